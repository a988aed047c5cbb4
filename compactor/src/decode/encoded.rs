//! Values inside text: numbers in base64 as Kafka Connect and Debezium write them, 0 and 1, JSON in a string.
//!
//! Each is written out as the text that a column of its type takes from plain JSON, and then read like that.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use firn_shared::config::domain::Format;
use firn_shared::types::LogicalType;

use super::cursor::{Cursor, Raw};
use super::leaf::unquoted;
use super::number;
use super::reject::{Fault, RejectKind, kind_of};

/// The most digits that a scale may stand for: what Postgres allows behind the point.
const SCALE_MAX: u32 = 16_383;

/// Whether a value of this form has to be written out for a column of this type.
pub(super) fn is_encoded(format: &Format, logical: &LogicalType) -> bool {
    use LogicalType as L;
    let number = matches!(logical, L::Int | L::Long | L::Float | L::Double | L::Decimal { .. });
    match format {
        Format::Time(_) => false,
        Format::Base64 { .. } | Format::ConnectDecimal { .. } | Format::VariableScale => {
            number || *logical == L::String
        }
        Format::Bits => number || matches!(logical, L::Boolean | L::String),
        Format::ZeroOne => *logical == L::Boolean,
        Format::JsonText => *logical == L::Json,
    }
}

/// Writes the value out into `out`; `scratch` is room for unescaped text.
pub(super) fn write_out(
    raw: Raw<'_>,
    format: &Format,
    logical: &LogicalType,
    scratch: &mut String,
    out: &mut String,
) -> Result<(), Fault> {
    match format {
        Format::Base64 { scale } => decimal(&bytes(raw, scratch)?, i32::from(*scale), out),
        Format::ConnectDecimal { .. } if raw.text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
            out.push_str(raw.text);
            Ok(())
        }
        Format::ConnectDecimal { scale } => {
            let scale =
                scale.ok_or_else(|| Fault::new(RejectKind::BadFormat, "the schema gives the number no scale"))?;
            decimal(&bytes(raw, scratch)?, scale, out)
        }
        Format::VariableScale => {
            let (scale, value) = variable_scale(raw, scratch)?;
            decimal(&bytes(value, scratch)?, scale, out)
        }
        Format::Bits => bits(raw, logical, scratch, out),
        Format::ZeroOne => zero_one(raw.text, out),
        Format::JsonText => {
            let text = unquoted(raw, &LogicalType::Json, scratch)?;
            if serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
                return Err(Fault::new(RejectKind::BadFormat, "expected JSON inside a string, found other text"));
            }
            out.push_str(text);
            Ok(())
        }
        Format::Time(_) => {
            out.push_str(raw.text);
            Ok(())
        }
    }
}

fn bytes(raw: Raw<'_>, scratch: &mut String) -> Result<Vec<u8>, Fault> {
    if !raw.text.starts_with('"') {
        return Err(Fault::wrong_type("base64 in a string", kind_of(raw.text)));
    }
    let bytes = STANDARD.decode(super::text::unquote(raw, scratch));
    bytes.map_err(|_| Fault::new(RejectKind::BadFormat, "expected base64, found other text"))
}

/// Big-endian two's complement with `scale` digits after the point; where that is negative, with so many zeros before it.
fn decimal(bytes: &[u8], scale: i32, out: &mut String) -> Result<(), Fault> {
    if scale.unsigned_abs() > SCALE_MAX {
        return Err(Fault::new(RejectKind::OutOfRange, format!("a number of scale {scale} is not written out")));
    }
    let negative = bytes.first().is_some_and(|b| *b >= 0x80);
    let fill = if negative { 0xff } else { 0 };
    let significant = bytes.iter().position(|b| *b != fill).unwrap_or(bytes.len());
    // The first byte behind the fill may lack the sign bit: then one byte of fill belongs to the number.
    let digits = &bytes[significant..];
    let signed = digits.first().is_none_or(|b| (*b >= 0x80) == negative);
    if digits.len() > 16 || (digits.len() == 16 && !signed) {
        return Err(Fault::new(RejectKind::OutOfRange, "number has more than 38 digits"));
    }
    let mut wide = [fill; 16];
    wide[16 - digits.len()..].copy_from_slice(digits);
    let value = i128::from_be_bytes(wide);
    if negative {
        out.push('-');
    }
    let (start, scale, digits) = (out.len(), scale, scale.unsigned_abs() as usize);
    let width = if scale > 0 { digits + 1 } else { 1 };
    let written = write!(out, "{:0width$}", value.unsigned_abs());
    debug_assert!(written.is_ok() && out.len() > start, "writing to a String cannot fail");
    if scale > 0 {
        out.insert(out.len() - digits, '.');
    } else if value != 0 {
        out.extend(std::iter::repeat_n('0', digits));
    }
    Ok(())
}

/// The parts of `{"scale": 2, "value": "<base64>"}`.
fn variable_scale<'a>(raw: Raw<'a>, scratch: &mut String) -> Result<(i32, Raw<'a>), Fault> {
    let shape = || Fault::wrong_type("{scale, value}", kind_of(raw.text));
    if !raw.text.starts_with('{') {
        return Err(shape());
    }
    let mut cursor = Cursor::again(raw);
    cursor.take();
    let (mut scale, mut value) = (None, None);
    if !cursor.eat(b'}')? {
        loop {
            let key = cursor.any_key()?;
            let found = cursor.raw()?;
            match super::text::unquote(key, scratch) {
                "scale" => scale = number::int(found.text.as_bytes()).ok(),
                "value" => value = Some(found),
                _ => {}
            }
            if !cursor.more(b'}')? {
                break;
            }
        }
    }
    scale.zip(value).ok_or_else(|| Fault::new(RejectKind::BadFormat, "expected a scale and a value"))
}

/// Base64 of bytes, the lowest first; true and false pass for one bit.
fn bits(raw: Raw<'_>, logical: &LogicalType, scratch: &mut String, out: &mut String) -> Result<(), Fault> {
    if matches!(raw.text, "true" | "false") {
        let digit = if raw.text == "true" { "1" } else { "0" };
        out.push_str(if *logical == LogicalType::Boolean { raw.text } else { digit });
        return Ok(());
    }
    let bytes = bytes(raw, scratch)?;
    let length = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    if length > 16 {
        return Err(Fault::new(RejectKind::OutOfRange, "more than 128 bits"));
    }
    let mut wide = [0; 16];
    wide[..length].copy_from_slice(&bytes[..length]);
    let value = u128::from_le_bytes(wide);
    if *logical == LogicalType::Boolean {
        return zero_one(if value > 1 { "2" } else { ["0", "1"][value as usize] }, out);
    }
    let written = write!(out, "{value}");
    debug_assert!(written.is_ok(), "writing to a String cannot fail");
    Ok(())
}

fn zero_one(text: &str, out: &mut String) -> Result<(), Fault> {
    out.push_str(match text {
        "0" | "false" => "false",
        "1" | "true" => "true",
        _ => return Err(Fault::new(RejectKind::BadFormat, format!("expected 0 or 1, found other {}", kind_of(text)))),
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(format: &Format, logical: &LogicalType, raw: &str) -> Option<String> {
        let mut out = String::new();
        let raw = Raw { text: raw, escaped: raw.contains('\\') };
        write_out(raw, format, logical, &mut String::new(), &mut out).ok().map(|()| out)
    }

    /// The shortest two's complement of a number, as Java's `BigInteger.toByteArray` gives it.
    fn big_integer(value: i128) -> Vec<u8> {
        let bytes = value.to_be_bytes();
        let spare = |pair: &[u8]| (pair[0] == 0 && pair[1] < 0x80) || (pair[0] == 0xff && pair[1] >= 0x80);
        let skip = bytes.windows(2).take_while(|pair| spare(pair)).count();
        bytes[skip..].to_vec()
    }

    proptest! {
        #[test]
        fn decimals_of_kafka_connect_read_back(value: i128, shift in 0u32..127, scale in 0u8..=38, padded: bool) {
            let value = value >> shift;
            let mut bytes = big_integer(value);
            if padded {
                bytes.insert(0, if value < 0 { 0xff } else { 0 });
            }
            let json = format!("\"{}\"", STANDARD.encode(&bytes));
            let text = written(&Format::Base64 { scale }, &LogicalType::String, &json).unwrap();
            prop_assert_eq!(number::scaled(text.as_bytes(), scale).ok(), Some(value), "{}", text);
            let json = format!("{{\"scale\":{scale},\"value\":{json}}}");
            prop_assert_eq!(written(&Format::VariableScale, &LogicalType::String, &json), Some(text));
        }

        #[test]
        fn bits_are_little_endian(value: u64) {
            let json = format!("\"{}\"", STANDARD.encode(value.to_le_bytes()));
            prop_assert_eq!(written(&Format::Bits, &LogicalType::Long, &json), Some(value.to_string()));
        }
    }

    #[test]
    fn every_scale_of_a_connect_decimal_is_written_out() {
        let decimal = |scale| Format::ConnectDecimal { scale: Some(scale) };
        let check = |format: &Format, raw: &str, expected: &str| {
            assert_eq!(written(format, &LogicalType::String, raw).as_deref(), Some(expected), "{format:?} {raw}");
        };
        check(&decimal(2), "\"ew==\"", "1.23");
        check(&decimal(-3), "\"ew==\"", "123000");
        check(&decimal(-3), "\"hQ==\"", "-123000");
        check(&decimal(-3), "\"AA==\"", "0");
        check(&decimal(40), "\"AQ==\"", &format!("0.{}1", "0".repeat(39)));
        check(&Format::VariableScale, r#"{"scale":-2,"value":"AQ=="}"#, "100");
        // `decimal.format=NUMERIC`.
        check(&decimal(2), "1.23", "1.23");
        check(&decimal(2), "-5", "-5");
    }

    #[test]
    fn what_is_not_of_the_form_is_refused() {
        let string = LogicalType::String;
        for (format, raw) in [
            (Format::Base64 { scale: 2 }, "1.5"),
            (Format::Base64 { scale: 2 }, "\"1.5\""),
            (Format::Base64 { scale: 2 }, "\"AQAAAAAAAAAAAAAAAAAAAAAA\""),
            (Format::VariableScale, "\"AQ==\""),
            (Format::VariableScale, r#"{"scale":-16384,"value":"AQ=="}"#),
            (Format::VariableScale, r#"{"scale":2147483647,"value":"AQ=="}"#),
            (Format::ConnectDecimal { scale: Some(16_384) }, "\"AQ==\""),
            (Format::ConnectDecimal { scale: None }, "\"AQ==\""),
            (Format::ConnectDecimal { scale: Some(2) }, "\"1.5\""),
            (Format::ConnectDecimal { scale: Some(2) }, "true"),
            (Format::VariableScale, r#"{"scale":2}"#),
            (Format::Bits, "7"),
            (Format::Bits, "\"AQEBAQEBAQEBAQEBAQEBAQEB\""),
        ] {
            assert_eq!(written(&format, &string, raw), None, "{format} {raw}");
        }
        assert_eq!(written(&Format::Base64 { scale: 0 }, &string, "\"\""), Some("0".to_owned()));
        assert_eq!(written(&Format::Base64 { scale: 2 }, &string, "\"/w\\u003d\\u003d\""), Some("-0.01".to_owned()));
        assert_eq!(written(&Format::ZeroOne, &LogicalType::Boolean, "2"), None);
        assert_eq!(written(&Format::Bits, &LogicalType::Boolean, "\"AQ==\""), Some("true".to_owned()));
        assert_eq!(written(&Format::Bits, &LogicalType::Boolean, "\"Ag==\""), None);
        assert_eq!(written(&Format::JsonText, &LogicalType::Json, r#""{\"a\":1}""#), Some("{\"a\":1}".to_owned()));
        assert_eq!(written(&Format::JsonText, &LogicalType::Json, r#""{a}""#), None);
        assert_eq!(written(&Format::JsonText, &LogicalType::Json, r#"{"a":1}"#), None);
    }
}
