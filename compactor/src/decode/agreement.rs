//! The decoder against the reference: random JSON under random columns, and damaged copies of real events.

use std::fmt::Write;

use firn_shared::config::domain::Column;
use firn_shared::types::LogicalType;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use super::reference::{column, field, row, rows};
use super::{Decoder, RejectKind};

const KEYS: [&str; 4] = ["a", "b", "c", "long_key_of_an_object"];
const SCALARS: [&str; 30] = [
    "null",
    "true",
    "false",
    "0",
    "-0",
    "1",
    "-7",
    "42",
    "2147483648",
    "9223372036854775807",
    "9223372036854775808",
    "1.0",
    "1e3",
    "1.5",
    "-2.50",
    "1e-2",
    "\"\"",
    "\"x\"",
    "\"12\"",
    "\"1.0\"",
    "\"1.5\"",
    "\"007\"",
    "\" 1\"",
    "\"a\\n\\u00e9\\\"\"",
    "\"\\ud83d\\ude00 \u{1F600}\"",
    "\"2021-07-21T06:00:00Z\"",
    "\"2021-07-21 06:00\"",
    "\"null\"",
    "\"{}\"",
    "12345678",
];

/// One JSON value, with blanks, escaped and repeated keys.
fn json(rng: &mut SmallRng, depth: usize, out: &mut String) {
    let blank = |rng: &mut SmallRng, out: &mut String| {
        if rng.random_ratio(1, 6) {
            out.push_str([" ", "\t", "\n  ", "\r"].choose(rng).unwrap_or(&""));
        }
    };
    blank(rng, out);
    match rng.random_range(0..if depth == 0 { 4 } else { 10 }) {
        0..4 => out.push_str(SCALARS.choose(rng).unwrap_or(&"0")),
        4..6 => {
            out.push('[');
            for i in 0..rng.random_range(0..4) {
                if i > 0 {
                    out.push(',');
                }
                json(rng, depth - 1, out);
            }
            blank(rng, out);
            out.push(']');
        }
        _ => object(rng, depth, out),
    }
    blank(rng, out);
}

pub(super) fn object(rng: &mut SmallRng, depth: usize, out: &mut String) {
    out.push('{');
    for i in 0..rng.random_range(0..6) {
        if i > 0 {
            out.push(',');
        }
        match *KEYS.choose(rng).unwrap_or(&"a") {
            "b" if rng.random_ratio(1, 4) => out.push_str("\"\\u0062\""),
            key => write!(out, "\"{key}\"").unwrap(),
        }
        out.push(':');
        json(rng, depth.saturating_sub(1), out);
    }
    out.push('}');
}

fn logical(rng: &mut SmallRng, depth: usize) -> LogicalType {
    use LogicalType as T;
    match rng.random_range(0..if depth == 0 { 7 } else { 11 }) {
        0 => T::Boolean,
        1 => T::Long,
        2 => T::Int,
        3 => T::Double,
        4 => T::String,
        5 => T::Json,
        6 => T::TimestampTz,
        7 => T::List(Box::new(logical(rng, depth - 1))),
        8 => T::Map(Box::new(logical(rng, depth - 1))),
        _ => {
            let count = rng.random_range(1..=KEYS.len());
            T::Struct(KEYS[..count].iter().map(|k| field(k, logical(rng, depth - 1), rng.random_ratio(1, 8))).collect())
        }
    }
}

pub(super) fn columns(rng: &mut SmallRng) -> Vec<Column> {
    (0..rng.random_range(1..6))
        .map(|i| {
            let keys: Vec<_> = (0..rng.random_range(1..4)).map(|_| *KEYS.choose(rng).unwrap_or(&"a")).collect();
            column(&format!("c{i}"), &keys.join("."), logical(rng, 2), rng.random_ratio(1, 10))
        })
        .collect()
}

/// Compares a JSON column by the value of its text.
pub(super) fn normal(mut rows: Vec<Vec<Value>>, columns: &[Column]) -> Vec<Vec<Value>> {
    for (value, column) in rows.iter_mut().flat_map(|r| r.iter_mut().zip(columns)) {
        parse_json_text(value, &column.r#type);
    }
    rows
}

fn parse_json_text(value: &mut Value, logical: &LogicalType) {
    match (logical, value) {
        (LogicalType::Json, value) => {
            if let Some(text) = value.as_str() {
                *value = serde_json::from_str(text).unwrap();
            }
        }
        (LogicalType::List(inner), Value::Array(values)) => values.iter_mut().for_each(|v| parse_json_text(v, inner)),
        (LogicalType::Map(inner), Value::Object(map)) => map.values_mut().for_each(|v| parse_json_text(v, inner)),
        (LogicalType::Struct(fields), Value::Object(map)) => {
            for field in fields {
                if let Some(value) = map.get_mut(&field.name) {
                    parse_json_text(value, &field.r#type);
                }
            }
        }
        _ => {}
    }
}

/// Pushes every payload and compares acceptance one by one, and the rows at the end.
fn check(payloads: &[Vec<u8>], columns: &[Column]) -> (usize, usize) {
    let mut decoder = Decoder::new(columns).unwrap();
    let mut expected = Vec::new();
    for payload in payloads {
        let parsed = serde_json::from_slice::<Value>(payload);
        // serde_json refuses to parse numbers beyond f64 wherever they stand; they are JSON all the same.
        if parsed.as_ref().is_err_and(|e| e.to_string().contains("number out of range")) {
            continue;
        }
        let wanted = parsed.as_ref().ok().and_then(|value| row(value, columns));
        let outcome = decoder.push(payload);
        let text = String::from_utf8_lossy(payload);
        assert_eq!(outcome.is_ok(), wanted.is_some(), "{text}\n{outcome:?}\n{parsed:?}\n{columns:?}");
        expected.extend(wanted);
    }
    assert_eq!(decoder.rows(), expected.len());
    let batch = decoder.finish().unwrap();
    assert_eq!(normal(rows(&batch), columns), expected, "{columns:?}");
    (expected.len(), payloads.len())
}

#[test]
fn random_json_under_random_columns_is_what_serde_json_says() {
    let (mut accepted, mut all) = (0, 0);
    for seed in 0..2000 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let columns = columns(&mut rng);
        let payloads: Vec<_> = (0..10)
            .map(|i| {
                let mut text = String::new();
                if i == 0 {
                    json(&mut rng, 4, &mut text);
                } else {
                    object(&mut rng, 4, &mut text);
                }
                text.into_bytes()
            })
            .collect();
        let (some, of) = check(&payloads, &columns);
        accepted += some;
        all += of;
    }
    assert!(accepted > all / 20 && accepted < all, "{accepted} of {all}: the inputs say nothing");
}

fn events(file: &str) -> Vec<Vec<u8>> {
    let path = format!("{}/../tests/fixtures/{file}", env!("CARGO_MANIFEST_DIR"));
    let bytes = zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap();
    bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(<[u8]>::to_vec).collect()
}

fn github_columns() -> Vec<Column> {
    use LogicalType as T;
    let author = T::Struct(vec![field("email", T::String, false), field("name", T::String, true)]);
    let commit =
        vec![field("sha", T::String, true), field("author", author, false), field("distinct", T::Boolean, false)];
    vec![
        column("id", "id", T::Long, true),
        column("type", "type", T::String, true),
        column("actor", "actor", T::Struct(vec![field("id", T::Long, true), field("login", T::String, false)]), false),
        column("actor_login", "actor.login", T::String, true),
        column("repo", "repo", T::Map(Box::new(T::Json)), false),
        column("public", "public", T::Boolean, false),
        column("created_at", "created_at", T::TimestampTz, true),
        column("payload", "payload", T::Json, false),
        column("size", "payload.size", T::Int, false),
        column("commits", "payload.commits", T::List(Box::new(T::Struct(commit))), false),
    ]
}

/// Damages a copy in one to three places.
fn damage(rng: &mut SmallRng, event: &[u8]) -> Vec<u8> {
    const PIECES: [&[u8]; 16] = [
        b"{",
        b"}",
        b"[",
        b"]",
        b"\"",
        b":",
        b",",
        b"\\",
        b"\\u12",
        b"null",
        b"1.5",
        b"\xff",
        b"\x00",
        b"\xc3\xa9",
        b" ",
        b"e5",
    ];
    let mut copy = event.to_vec();
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..copy.len());
        let end = (at + rng.random_range(0..8)).min(copy.len());
        match rng.random_range(0..6) {
            0 => copy.truncate(at.max(1)),
            1 => copy[at] = rng.random(),
            2 => drop(copy.drain(at..end.max(at + 1).min(copy.len() - 1).max(at))),
            3 => drop(copy.splice(at..at, PIECES.choose(rng).unwrap_or(&PIECES[0]).iter().copied())),
            4 => {
                let repeated = copy[at..end].to_vec();
                drop(copy.splice(at..at, repeated));
            }
            _ => drop(copy.splice(at..end, PIECES.choose(rng).unwrap_or(&PIECES[0]).iter().copied())),
        }
    }
    copy
}

#[test]
fn damaged_events_are_refused_or_read_as_serde_json_reads_them() {
    // Short events: damage is as well placed in them, and an unoptimised parser is done in seconds.
    let github: Vec<_> = events("github-events.ndjson.zst").into_iter().filter(|e| e.len() < 1500).collect();
    let columns = github_columns();
    let mut rng = SmallRng::seed_from_u64(20_210_721);
    let mut totals = (0, 0);
    for _ in 0..200 {
        let payloads: Vec<_> = (0..100)
            .map(|_| {
                let event = github.choose(&mut rng).unwrap();
                if rng.random_ratio(1, 10) { event.clone() } else { damage(&mut rng, event) }
            })
            .collect();
        let (accepted, all) = check(&payloads, &columns);
        totals = (totals.0 + accepted, totals.1 + all);
    }
    assert_eq!(totals.1, 20_000);
    assert!(totals.0 > 2_000 && totals.0 < 15_000, "{totals:?}: the damage says nothing");
}

#[test]
fn every_real_event_fits_its_columns() {
    let github = events("github-events.ndjson.zst");
    assert_eq!(check(&github, &github_columns()), (800, 800));
    let zeek = events("zeek-dns.ndjson.zst");
    assert_eq!(zeek.len(), 53_615);
    let mut decoder = Decoder::new(&zeek_columns()).unwrap();
    for event in &zeek {
        assert_eq!(decoder.push(event), Ok(()));
    }
    let batch = decoder.finish().unwrap();
    let present = |name: &str| batch.num_rows() - batch.column_by_name(name).unwrap().null_count();
    assert_eq!((present("rtt"), present("answers"), present("TTLs")), (39_677, 39_682, 39_682));
}

fn zeek_columns() -> Vec<Column> {
    let dotted = |name: &str, logical: LogicalType| Column {
        path: firn_shared::config::domain::JsonPath(vec![name.into()]),
        ..column(name, "x", logical, false)
    };
    vec![
        dotted("ts", LogicalType::TimestampTz),
        dotted("id.orig_h", LogicalType::String),
        dotted("id.orig_p", LogicalType::Int),
        dotted("rtt", LogicalType::Double),
        dotted("answers", LogicalType::List(Box::new(LogicalType::String))),
        dotted("TTLs", LogicalType::List(Box::new(LogicalType::Double))),
    ]
}

#[test]
fn nesting_beyond_the_limit_is_refused_without_recursion() {
    let mut decoder = Decoder::new(&github_columns()).unwrap();
    let deep = format!("{{\"x\":{}1{}}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    assert_eq!(decoder.push(deep.as_bytes()).unwrap_err().reason, RejectKind::TooDeep);
}
