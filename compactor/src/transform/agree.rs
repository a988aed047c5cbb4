//! Whether a row is the one that a golden case expects: texts as they are, numbers digit by digit.

use std::collections::BTreeMap;

use firn_shared::types::LogicalType;
use serde_json::Value as Json;
use serde_json::value::RawValue;

use super::kernel::Typed;

/// More digits than these a double does not keep, so YAML does not hand them on; they are written in quotes.
const DOUBLE_DIGITS: usize = 15;

/// Whether the row `found`, as JSON text, is the `expected` one; its columns are these.
pub fn row(expected: &[Json], found: &str, columns: &[Typed]) -> bool {
    let Ok(found) = serde_json::from_str::<Vec<&RawValue>>(found) else { return false };
    let same = |((expected, found), (_, r#type)): ((&Json, &&RawValue), &Typed)| cell(expected, found.get(), r#type);
    expected.len() == found.len() && expected.iter().zip(&found).zip(columns).all(same)
}

/// A column of floats may be expected as `{$approx: 1.5, within: 0.01}`.
fn cell(expected: &Json, found: &str, r#type: &LogicalType) -> bool {
    let floats = has_floats(r#type);
    match (expected["$approx"].as_f64(), expected["within"].as_f64()) {
        (Some(near), Some(within)) if floats => found.parse::<f64>().is_ok_and(|found| (found - near).abs() <= within),
        _ => same(expected, found, floats),
    }
}

fn has_floats(r#type: &LogicalType) -> bool {
    match r#type {
        LogicalType::Float | LogicalType::Double => true,
        LogicalType::List(inner) | LogicalType::Map(inner) => has_floats(inner),
        LogicalType::Struct(fields) => fields.iter().any(|field| has_floats(&field.r#type)),
        _ => false,
    }
}

fn same(expected: &Json, found: &str, floats: bool) -> bool {
    match expected {
        Json::Null => found == "null",
        Json::Bool(bool) => found == if *bool { "true" } else { "false" },
        Json::Number(number) => Digits::of(&number.to_string()).is_some_and(|expected| {
            let kept = floats || !number.is_f64() || expected.significant.len() <= DOUBLE_DIGITS;
            kept && Digits::of(found) == Some(expected)
        }),
        Json::String(text) => match serde_json::from_str::<String>(found) {
            Ok(found) => found == *text,
            Err(_) => is_long(text) && Digits::of(found) == Digits::of(text),
        },
        Json::Array(items) => serde_json::from_str::<Vec<&RawValue>>(found).is_ok_and(|found| {
            items.len() == found.len() && items.iter().zip(found).all(|(item, found)| same(item, found.get(), floats))
        }),
        Json::Object(fields) => serde_json::from_str::<BTreeMap<String, &RawValue>>(found).is_ok_and(|found| {
            let same =
                |(name, field): (&String, &Json)| found.get(name).is_some_and(|found| same(field, found.get(), floats));
            fields.len() == found.len() && fields.iter().all(same)
        }),
    }
}

/// Whether a text is a number that can only be written in quotes: `'12'` stays a text that no number is.
fn is_long(text: &str) -> bool {
    text.parse::<i64>().is_err() && Digits::of(text).is_some_and(|number| number.significant.len() > DOUBLE_DIGITS)
}

/// A decimal number as it is written, whatever its zeros at the ends and its exponent: `1.50` is `15e-1`.
#[derive(Debug, PartialEq)]
struct Digits {
    negative: bool,
    /// None at all for zero.
    significant: String,
    exponent: i64,
}

impl Digits {
    fn of(text: &str) -> Option<Self> {
        let (negative, number) = text.strip_prefix('-').map_or((false, text), |number| (true, number));
        let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        if whole.is_empty() || !all.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let short = all.trim_end_matches('0');
        let digits = short.trim_start_matches('0').to_owned();
        let exponent = exponent.parse::<i64>().ok()? - fraction.len() as i64 + (all.len() - short.len()) as i64;
        Some(Self { negative, exponent: if digits.is_empty() { 0 } else { exponent }, significant: digits })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(expected: &Json, found: &str, r#type: &str, wanted: bool) {
        let columns = [("v".to_owned(), r#type.parse().unwrap())];
        let agrees = row(std::slice::from_ref(expected), &format!("[{found}]"), &columns);
        assert_eq!(agrees, wanted, "{expected} and {found} of {}", columns[0].1);
    }

    #[test]
    fn numbers_are_compared_digit_by_digit() {
        for (expected, found, r#type, wanted) in [
            (json!(1.5), "1.50", "decimal(4,2)", true),
            (json!(1500), "1.5e3", "double", true),
            (json!(0), "0.00", "decimal(4,2)", true),
            (json!(0), "-0.0", "double", false),
            (json!(-0.0), "-0.0", "double", true),
            (json!(9_007_199_254_740_993_i64), "9007199254740992", "long", false),
            (json!(i64::MIN), "-9223372036854775808", "long", true),
            (json!(0.1), "0.10000000000000001", "decimal(20,17)", false),
            (json!("0.10000000000000001"), "0.10000000000000001", "decimal(20,17)", true),
            (json!("0.10000000000000001"), "0.10000000000000002", "decimal(20,17)", false),
            (json!(0.300_000_000_000_000_04), "0.30000000000000004", "double", true),
            (json!(0.300_000_000_000_000_04), "0.30000000000000004", "decimal(20,17)", false),
            (json!("12"), "12", "int", false),
            (json!(12), "\"12\"", "string", false),
            (json!([{"a": 1.0}]), "[{\"a\":1}]", "list<struct<a: int>>", true),
            (json!({"a": 1}), "{\"a\":1,\"b\":null}", "map<string, int>", false),
        ] {
            check(&expected, found, r#type, wanted);
        }
    }

    #[test]
    fn only_floats_are_near() {
        let near = json!({"$approx": 1.5, "within": 0.01});
        for (found, r#type, wanted) in [
            ("1.509", "double", true),
            ("1.511", "double", false),
            ("null", "double", false),
            ("1.5", "decimal(3,2)", false),
            ("1", "int", false),
        ] {
            check(&near, found, r#type, wanted);
        }
    }
}
