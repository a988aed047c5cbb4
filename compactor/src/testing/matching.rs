//! Does a value fit what is expected? Types decide: times are instants, decimals are numbers, JSON is its value.

use firn_shared::config::cases::{Pattern, Tree};
use firn_shared::types::LogicalType;

use crate::decode::parse_timestamp;

/// Whether `found`, a value of type `logical`, fits.
pub fn fits(pattern: &Pattern, found: &Tree, logical: &LogicalType) -> bool {
    match (pattern, logical) {
        (Pattern::Any, _) => true,
        (Pattern::Present, _) => *found != Tree::Null,
        (Pattern::Absent, _) => *found == Tree::Null,
        (Pattern::Regex(regex), _) => found.bare().is_some_and(|text| regex.is_match(&text)),
        (Pattern::Approx { value, within }, _) => number(found).is_some_and(|found| (found - value).abs() <= *within),
        // What is a number in a test is none in a column of text: the step that makes one of it is missing.
        (Pattern::Value(Tree::Int(_) | Tree::Float(_) | Tree::Bool(_)), LogicalType::String)
            if matches!(found, Tree::Text(_)) =>
        {
            false
        }
        (Pattern::Value(expected), LogicalType::Json | LogicalType::String) => text_fits(expected, found),
        (Pattern::Value(expected), logical) => value_fits(expected, found, logical),
        (Pattern::List(_) | Pattern::Unordered(_) | Pattern::Map(_), LogicalType::Json | LogicalType::String) => {
            let read = if let Tree::Text(text) = found { Tree::from_json(text) } else { None };
            read.is_some_and(|read| json_fits(pattern, &read))
        }
        (Pattern::List(items), _) => match found {
            Tree::List(found) => {
                items.len() == found.len()
                    && items.iter().zip(found).all(|(item, found)| fits(item, found, element_type(logical)))
            }
            _ => false,
        },
        (Pattern::Unordered(items), _) => match found {
            Tree::List(found) => {
                items.len() == found.len()
                    && pair(items.len(), found.len(), &|i, j| fits(&items[i], &found[j], element_type(logical))).len()
                        == items.len()
            }
            _ => false,
        },
        (Pattern::Map(entries), logical) => map_fits(entries, found, logical),
    }
}

fn element_type(logical: &LogicalType) -> &LogicalType {
    match logical {
        LogicalType::List(element) => element,
        other => other,
    }
}

fn entry_type<'a>(logical: &'a LogicalType, name: &str) -> Option<&'a LogicalType> {
    match logical {
        LogicalType::Struct(fields) => fields.iter().find(|field| field.name == name).map(|field| &field.r#type),
        LogicalType::Map(value) => Some(value),
        _ => None,
    }
}

/// Of a struct the fields that are named; of a map all entries.
fn map_fits(entries: &[(String, Pattern)], found: &Tree, logical: &LogicalType) -> bool {
    let Tree::Map(found) = found else { return false };
    let all = matches!(logical, LogicalType::Struct(_)) || entries.len() == found.len();
    let fits = |(name, pattern): &(String, Pattern)| {
        let value = found.iter().find(|(other, _)| other == name).map(|(_, value)| value);
        value.zip(entry_type(logical, name)).is_some_and(|(value, logical)| fits(pattern, value, logical))
    };
    all && entries.iter().all(fits)
}

/// Inside a JSON value, where no type is known.
fn json_fits(pattern: &Pattern, found: &Tree) -> bool {
    match pattern {
        Pattern::Value(expected) => same(expected, found),
        Pattern::List(items) => match found {
            Tree::List(found) => items.len() == found.len() && items.iter().zip(found).all(|(i, f)| json_fits(i, f)),
            _ => false,
        },
        Pattern::Unordered(items) => match found {
            Tree::List(found) => {
                let pairs = pair(items.len(), found.len(), &|i, j| json_fits(&items[i], &found[j]));
                items.len() == found.len() && pairs.len() == items.len()
            }
            _ => false,
        },
        Pattern::Map(entries) => match found {
            Tree::Map(found) => {
                let value = |name: &str| found.iter().find(|(other, _)| other == name).map(|(_, value)| value);
                entries.len() == found.len()
                    && entries.iter().all(|(name, inner)| value(name).is_some_and(|value| json_fits(inner, value)))
            }
            _ => false,
        },
        scalar => fits(scalar, found, &LogicalType::Long),
    }
}

/// A place at which a value is not as expected: its path below the value, and both sides; `None` is nothing.
pub type Apart = (String, Option<Tree>, Option<Tree>);

/// Where `found` does not fit: inside structures the places that differ, else the value itself.
pub fn apart(pattern: &Pattern, found: &Tree, logical: &LogicalType) -> Vec<Apart> {
    let mut out = Vec::new();
    part(String::new(), pattern, found, Some(logical), &mut out);
    out
}

/// `logical` is `None` inside a JSON value.
fn part(path: String, pattern: &Pattern, found: &Tree, logical: Option<&LogicalType>, out: &mut Vec<Apart>) {
    if logical.map_or_else(|| json_fits(pattern, found), |logical| fits(pattern, found, logical)) {
        return;
    }
    let read = match (pattern, found, logical) {
        (Pattern::Map(_) | Pattern::List(_), Tree::Text(text), Some(LogicalType::Json | LogicalType::String)) => {
            Tree::from_json(text)
        }
        _ => None,
    };
    match (pattern, read.as_ref().unwrap_or(found)) {
        (Pattern::Map(expected), Tree::Map(found)) => {
            entries(&path, expected, found, logical.filter(|_| read.is_none()), out);
        }
        (Pattern::List(expected), Tree::List(found)) if expected.len() == found.len() => {
            let inner = logical.filter(|_| read.is_none()).map(element_type);
            for (i, (expected, found)) in expected.iter().zip(found).enumerate() {
                part(format!("{path}[{i}]"), expected, found, inner, out);
            }
        }
        (_, found) => out.push((path, Some(pattern.to_tree()), Some(found.clone()))),
    }
}

type Entries<'a> = &'a [(String, Tree)];

fn entries(
    path: &str,
    expected: &[(String, Pattern)],
    found: Entries<'_>,
    logical: Option<&LogicalType>,
    out: &mut Vec<Apart>,
) {
    for (name, pattern) in expected {
        let below = format!("{path}.{name}");
        let value = found.iter().find(|(other, _)| other == name).map(|(_, value)| value);
        match (value, logical.map(|logical| entry_type(logical, name))) {
            (Some(value), None) => part(below, pattern, value, None, out),
            (Some(value), Some(Some(inner))) => part(below, pattern, value, Some(inner), out),
            _ => out.push((below, Some(pattern.to_tree()), None)),
        }
    }
    if !matches!(logical, Some(LogicalType::Struct(_))) {
        let more = found.iter().filter(|(name, _)| !expected.iter().any(|(other, _)| other == name));
        out.extend(more.map(|(name, value)| (format!("{path}.{name}"), None, Some(value.clone()))));
    }
}

/// Text is compared as it is; a number, truth value or structure with what the text says as JSON.
fn text_fits(expected: &Tree, found: &Tree) -> bool {
    match (expected, found) {
        (Tree::Null | Tree::Text(_), _) => expected == found,
        (_, Tree::Text(text)) => Tree::from_json(text).is_some_and(|found| same(expected, &found)),
        _ => same(expected, found),
    }
}

#[allow(clippy::float_cmp, reason = "the same number is meant, not a near one")]
fn value_fits(expected: &Tree, found: &Tree, logical: &LogicalType) -> bool {
    let texts = match (expected, found) {
        (Tree::Text(expected), Tree::Text(found)) => Some((expected.as_str(), found.as_str())),
        _ => None,
    };
    match (logical, texts) {
        (LogicalType::Timestamp | LogicalType::TimestampTz, Some((expected, found))) => {
            let (a, b) = (parse_timestamp(expected.as_bytes()), parse_timestamp(found.as_bytes()));
            expected == found || (a.is_some() && a == b)
        }
        (LogicalType::Time, Some((expected, found))) => whole_time(expected) == whole_time(found),
        (LogicalType::Decimal { .. }, _) => match (expected.bare(), found.bare()) {
            (Some(expected), Some(found)) => plain_decimal(&expected) == plain_decimal(&found),
            (expected, found) => expected == found,
        },
        (LogicalType::Float, _) => match (number(expected), number(found)) {
            (Some(expected), Some(found)) => expected as f32 == found as f32,
            _ => expected == found,
        },
        _ => same(expected, found),
    }
}

/// The same value: numbers by their value, mappings whatever their order.
#[allow(clippy::float_cmp, reason = "the same number is meant, not a near one")]
fn same(expected: &Tree, found: &Tree) -> bool {
    match (expected, found) {
        (Tree::Int(a), Tree::Float(b)) | (Tree::Float(b), Tree::Int(a)) => *a as f64 == *b,
        (Tree::List(a), Tree::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Tree::Map(a), Tree::Map(b)) => {
            let other = |name: &str| b.iter().find(|(key, _)| key == name).map(|(_, value)| value);
            a.len() == b.len() && a.iter().all(|(name, a)| other(name).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

fn number(tree: &Tree) -> Option<f64> {
    match tree {
        Tree::Int(int) => Some(*int as f64),
        Tree::Float(float) => Some(*float),
        Tree::Text(text) => text.parse().ok(),
        _ => None,
    }
}

/// A decimal without what makes no difference: `1.50` and `1.5`, `-0` and `0`.
fn plain_decimal(text: &str) -> String {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    if whole.is_empty() && fraction.is_empty() { "0".to_owned() } else { format!("{sign}{whole}.{fraction}") }
}

/// A time of day with its seconds, and without zeros behind them.
fn whole_time(text: &str) -> String {
    match text.split_once('.') {
        Some((whole, fraction)) => {
            format!("{whole}.{}", fraction.trim_end_matches('0')).trim_end_matches('.').to_owned()
        }
        None if text.len() == 5 => format!("{text}:00"),
        None => text.to_owned(),
    }
}

/// The largest set of pairs `(i, j)` that fit, each number once (augmenting paths).
pub fn pair(left: usize, right: usize, fits: &dyn Fn(usize, usize) -> bool) -> Vec<(usize, usize)> {
    let edges: Vec<Vec<usize>> = (0..left).map(|i| (0..right).filter(|j| fits(i, *j)).collect()).collect();
    let mut owner: Vec<Option<usize>> = vec![None; right];
    for i in 0..left {
        let mut seen = vec![false; right];
        augment(i, &edges, &mut owner, &mut seen);
    }
    let mut pairs: Vec<_> = owner.iter().enumerate().filter_map(|(j, i)| Some(((*i)?, j))).collect();
    pairs.sort_unstable();
    pairs
}

/// Finds a place for `from`, moving others if that helps. Without recursion: a chain of moves may be long.
fn augment(from: usize, edges: &[Vec<usize>], owner: &mut [Option<usize>], seen: &mut [bool]) {
    // Each entry: who looks for a place, and which of its edges comes next.
    let mut path = vec![(from, 0)];
    while let Some((i, next)) = path.last_mut() {
        let Some(j) = edges[*i].get(*next).copied() else {
            path.pop();
            continue;
        };
        *next += 1;
        if std::mem::replace(&mut seen[j], true) {
            continue;
        }
        match owner[j] {
            Some(other) => path.push((other, 0)),
            None => {
                for (i, next) in path {
                    owner[edges[i][next - 1]] = Some(i);
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Tree {
        Tree::from_json(text).unwrap()
    }

    fn check(expected: &str, found: &str, logical: &str) -> bool {
        fits(&Pattern::Value(read(expected)), &read(found), &logical.parse().unwrap())
    }

    #[test]
    fn values_are_compared_by_their_type() {
        for (expected, found, logical) in [
            ("7", "7", "long"),
            ("7", "7.0", "double"),
            ("0.1", "0.1", "float"),
            ("1.5", "\"1.50\"", "decimal(10,2)"),
            ("\"1.50\"", "\"1.5\"", "decimal(10,2)"),
            ("0", "\"-0.00\"", "decimal(10,2)"),
            ("\"2021-07-21T08:00:00+02:00\"", "\"2021-07-21T06:00:00Z\"", "timestamptz"),
            ("\"10:30\"", "\"10:30:00\"", "time"),
            ("\"{}\"", "\"{}\"", "json"),
            ("null", "null", "long"),
            ("7", "\"7\"", "json"),
            ("\"7\"", "\"7\"", "string"),
        ] {
            assert!(check(expected, found, logical), "{expected} fits {found} of {logical}");
        }
        for (expected, found, logical) in [
            ("7", "\"7\"", "long"),
            ("7", "8", "long"),
            ("\"1.51\"", "\"1.50\"", "decimal(10,2)"),
            ("null", "0", "long"),
            ("0", "null", "long"),
            ("\"2021-07-21T06:00:00Z\"", "\"2021-07-21T06:00:01Z\"", "timestamptz"),
            ("\"{ }\"", "\"{}\"", "json"),
            ("\"7\"", "7", "long"),
            ("7", "\"7\"", "string"),
            ("true", "\"true\"", "string"),
            ("0.5", "\"0.5\"", "string"),
        ] {
            assert!(!check(expected, found, logical), "{expected} does not fit {found} of {logical}");
        }
    }

    #[test]
    fn json_is_its_value_and_structs_are_what_is_named_of_them() {
        let map = |text: &str| {
            let Tree::Map(entries) = read(text) else { panic!("a mapping") };
            Pattern::Map(entries.into_iter().map(|(key, value)| (key, Pattern::Value(value))).collect())
        };
        let text = |text: &str| Tree::Text(text.to_owned());
        assert!(fits(&map(r#"{"a":1,"b":2}"#), &text(r#"{ "b": 2.0, "a": 1 }"#), &LogicalType::Json));
        assert!(!fits(&map(r#"{"a":1}"#), &text(r#"{"a":1,"b":2}"#), &LogicalType::Json), "all of it counts");
        let logical = "struct<a: long, b: string>".parse().unwrap();
        assert!(fits(&map(r#"{"a":1}"#), &read(r#"{"a":1,"b":"x"}"#), &logical));
        assert!(!fits(&map(r#"{"c":null}"#), &read(r#"{"a":1,"b":"x"}"#), &logical));
        let logical = "map<string, long>".parse().unwrap();
        assert!(!fits(&map(r#"{"a":1}"#), &read(r#"{"a":1,"b":2}"#), &logical));
        let items = |items: &[i64]| items.iter().map(|i| Pattern::Value(Tree::Int(*i))).collect::<Vec<_>>();
        let logical = "list<long>".parse().unwrap();
        assert!(fits(&Pattern::Unordered(items(&[2, 1])), &read("[1,2]"), &logical));
        assert!(!fits(&Pattern::List(items(&[2, 1])), &read("[1,2]"), &logical));
        assert!(!fits(&Pattern::Unordered(items(&[2, 2])), &read("[1,2]"), &logical));
    }

    proptest! {
        /// Against trying every way.
        #[test]
        fn as_many_pairs_are_found_as_there_can_be(edges in prop::collection::vec(prop::collection::vec(any::<bool>(), 5), 0..5)) {
            fn best(i: usize, edges: &[Vec<bool>], used: u8) -> usize {
                let Some(row) = edges.get(i) else { return 0 };
                let free = (0..5).filter(|j| row[*j] && used & (1 << j) == 0);
                let with = free.map(|j| 1 + best(i + 1, edges, used | (1 << j))).max().unwrap_or(0);
                with.max(best(i + 1, edges, used))
            }
            let pairs = pair(edges.len(), 5, &|i, j| edges[i][j]);
            prop_assert!(pairs.iter().all(|(i, j)| edges[*i][*j]));
            prop_assert_eq!(pairs.len(), best(0, &edges, 0));
        }
    }
}
