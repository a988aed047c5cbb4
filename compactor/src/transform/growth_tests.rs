//! Steps that make much of little: memory is bounded by parts and by rejects, whatever a record asks for.

use arrow_array::{ArrayRef, StringArray};
use firn_shared::config::domain::JsonPath;
use firn_shared::functions::Functions;
use firn_shared::types::LogicalType;
use serde_json::{Value as Json, json};

use super::parts::bytes_of;
use super::*;
use crate::decode::{Decoder, RejectKind};

fn columns() -> Vec<Column> {
    let of = |name: &str, of: &str| Column {
        name: name.to_owned(),
        path: JsonPath(vec![name.to_owned()]),
        r#type: of.parse::<LogicalType>().unwrap(),
        required: false,
        format: None,
        doc: None,
    };
    vec![
        of("id", "long"),
        of("v", "string"),
        of("list", "list<string>"),
        of("at", "timestamptz"),
        of("none", "string"),
        of("u", "string"),
    ]
}

fn references() -> References {
    let column = |values: [String; 2]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    let rows = [
        ("key", column(["aaaa,aaaa".to_owned(), "b".to_owned()])),
        ("long", column(["x".repeat(5000), "y".repeat(FOUND_MAX + 1)])),
        ("short", column(["x".repeat(5000), "y".to_owned()])),
    ];
    let mut references = References::default();
    references.insert("f.csv", Reference::new(RecordBatch::try_from_iter(rows).unwrap()));
    references
}

const FOUND_MAX: usize = 1 << 20;

fn transformer(list: &[(&str, Json)]) -> Transformer {
    let steps = firn_shared::functions::steps(&Functions::built_in(), &columns(), list).unwrap();
    Transformer::new(&steps, &columns(), &references()).unwrap()
}

fn batch(records: impl IntoIterator<Item = Json>) -> RecordBatch {
    let mut decoder = Decoder::new(&columns()).unwrap();
    for record in records {
        decoder.push(record.to_string().as_bytes()).unwrap();
    }
    decoder.finish().unwrap()
}

fn record(id: usize, v: &str) -> Json {
    json!({"id": id, "v": v, "u": "u", "list": ["a", "b", "c"], "at": "2021-07-21T06:00:00Z"})
}

/// What becomes of the parts of a batch: each with its bytes.
fn parts(transformer: &Transformer, batch: RecordBatch, bytes_max: usize) -> Vec<(usize, Outcome)> {
    let mut parts = transformer.begin(batch, None, bytes_max).unwrap();
    let next = || transformer.next(&mut parts).unwrap();
    let size = |outcome: &Outcome| outcome.batch.columns().iter().map(|column| bytes_of(column)).sum();
    std::iter::from_fn(next).map(|outcome| (size(&outcome), outcome)).collect()
}

fn rejected(parts: &[(usize, Outcome)]) -> Vec<(u32, RejectKind)> {
    let of = |(_, outcome): &(usize, Outcome)| outcome.rejected.clone();
    parts.iter().flat_map(of).map(|reject| (reject.row, reject.why.reason)).collect()
}

/// Steps of which each makes some kilobytes of a record of a few bytes.
fn growing() -> Vec<(&'static str, Json)> {
    let long = "x".repeat(5000);
    vec![
        ("pad", json!({"column": "v", "width": 10_000})),
        ("replace", json!({"column": "v", "find": "a", "with": long})),
        ("regexReplace", json!({"column": "v", "pattern": "(a+)", "with": "$1".repeat(2000)})),
        ("concat", json!({"columns": ["v", "u"], "separator": long, "as": "w"})),
        ("joinList", json!({"column": "list", "separator": long})),
        ("constant", json!({"as": "w", "value": long})),
        ("fillNull", json!({"column": "none", "value": long})),
        ("if", json!({"where": "id >= 0", "then": long, "as": "w"})),
        ("replaceValues", json!({"column": "v", "values": {"aaaa,aaaa": long}})),
        ("lookup", json!({"column": "v", "file": "f.csv", "key": "key", "take": {"short": "string"}})),
        ("formatTime", json!({"column": "at", "pattern": format!("%Y{long}"), "as": "w"})),
        ("expr", json!({"sql": "LPAD(v, 10000)", "as": "w", "type": "string"})),
        ("expr", json!({"sql": "RPAD(v, id * 0 + 10000, 'ä')", "as": "w", "type": "string"})),
        ("expr", json!({"sql": format!("REPLACE(v, 'a', '{long}')"), "as": "w", "type": "string"})),
        ("expr", json!({"sql": format!("CONCAT(v, '{long}', v)"), "as": "w", "type": "string"})),
        ("expr", json!({"sql": format!("v || '{long}'"), "as": "w", "type": "string"})),
        ("expr", json!({"sql": format!("CASE WHEN id >= 0 THEN '{long}' END"), "as": "w", "type": "string"})),
    ]
}

#[test]
fn a_step_that_makes_much_of_little_works_on_parts_that_are_bounded() {
    const BYTES_MAX: usize = 64 << 10;
    for step in growing() {
        let name = format!("{} {:.60}", step.0, step.1.to_string());
        let transformer = transformer(&[step]);
        let input = batch((0..300).map(|id| record(id, "aaaa,aaaa")));
        let whole = transformer.apply(input.clone()).unwrap();
        let bytes: usize = whole.batch.columns().iter().map(|column| bytes_of(column)).sum();
        assert!(bytes > 16 * BYTES_MAX, "{name}: only {bytes} bytes");
        let parts = parts(&transformer, input, BYTES_MAX);
        for (bytes, _) in &parts {
            assert!(*bytes <= 3 * BYTES_MAX + (64 << 10), "{name}: a part of {bytes} bytes");
        }
        let batches: Vec<&RecordBatch> = parts.iter().map(|(_, outcome)| &outcome.batch).collect();
        let together = arrow_select::concat::concat_batches(&whole.batch.schema(), batches).unwrap();
        assert_eq!(together, whole.batch, "{name}: parts are what the whole is");
        let rows: Vec<u32> = parts.iter().flat_map(|(_, outcome)| outcome.rows.clone().unwrap()).collect();
        assert_eq!(rows, (0..300).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn many_steps_that_each_add_a_column_work_on_parts_that_are_bounded() {
    const BYTES_MAX: usize = 64 << 10;
    let list: Vec<(&str, Json)> = (0..30)
        .map(|n| match n % 2 {
            0 => ("upper", json!({"column": "v", "as": format!("w{n}")})),
            _ => ("extract", json!({"from": "list_json", "path": "$.v", "as": format!("w{n}"), "type": "string"})),
        })
        .collect();
    let make = [("expr", json!({"sql": "CONCAT('{\"v\":\"', v, '\"}')", "as": "list_json", "type": "string"}))];
    let transformer = transformer(&[&make[..], &list[..]].concat());
    let input = batch((0..300).map(|id| record(id, &"v".repeat(200))));
    let whole = transformer.apply(input.clone()).unwrap();
    let parts = parts(&transformer, input, BYTES_MAX);
    assert!(parts.len() > 4, "{}", parts.len());
    assert!(parts.iter().all(|(bytes, _)| *bytes <= 3 * BYTES_MAX), "{:?}", parts.iter().map(|p| p.0).max());
    assert_eq!(parts.iter().map(|(_, outcome)| outcome.batch.num_rows()).sum::<usize>(), whole.batch.num_rows());
}

/// Steps of which each makes more of the second record than one value may be of.
#[test]
fn a_value_that_becomes_too_long_rejects_its_record_and_no_other() {
    const BYTES_MAX: usize = 16 << 10;
    let key = "k".repeat(1000);
    let deep = format!(r#"{{"{key}":{{{}}}}}"#, (0..100).map(|n| format!("\"{n}\":1")).collect::<Vec<_>>().join(","));
    let quotes = "\u{1}".repeat(8000);
    let (a, long) = ("a".repeat(1000), "x".repeat(100));
    let (a, deep, quotes) = (a.as_str(), deep.as_str(), quotes.as_str());
    let cases: Vec<(&str, Json, &str)> = vec![
        ("replace", json!({"column": "v", "find": "a", "with": long}), a),
        ("regexReplace", json!({"column": "v", "pattern": "(a+)", "with": "$1$1".repeat(50)}), a),
        ("regexReplace", json!({"column": "v", "pattern": "", "with": long}), a),
        ("flattenJson", json!({"column": "v", "as": "w"}), deep),
        ("toJson", json!({"column": "v", "as": "w"}), quotes),
        (
            "expr",
            json!({"sql": "REPLACE(v, 'a', 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb')", "as": "w", "type": "string"}),
            a,
        ),
        (
            "expr",
            json!({"sql": "REPLACE(REPLACE(v, 'a', 'aaaaaaaaaa'), 'a', 'aaaaaaaaaa')", "as": "w", "type": "string"}),
            a,
        ),
        (
            "expr",
            json!({"sql": "CONCAT(v,v,v,v,v,v,v,v,v,v,v,v,v,v,v,v,v,v,v,v,v,v,v,v,v,v,v,v,v,v,v,v,v,v,v)", "as": "w", "type": "string"}),
            a,
        ),
        ("expr", json!({"sql": "LPAD(v, CAST(v AS BIGINT))", "as": "w", "type": "string"}), "1000000000000000"),
        ("filter", json!({"where": "LENGTH(LPAD(v, CAST(v AS BIGINT))) < 5"}), "1000000000000000"),
        ("if", json!({"where": "LENGTH(LPAD(v, CAST(v AS BIGINT))) < 5", "then": "x", "as": "w"}), "1000000000000000"),
    ];
    for (name, args, value) in cases {
        let told = format!("{name} {:.60}", args.to_string());
        let fine = if name == "flattenJson" { "{}" } else { "3" };
        let transformer = transformer(&[(name, args)]);
        let input = batch([record(0, fine), record(1, value), record(2, fine)]);
        let parts = parts(&transformer, input, BYTES_MAX);
        assert_eq!(rejected(&parts), [(1, RejectKind::TooLarge)], "{told}");
        let rows: Vec<u32> = parts.iter().flat_map(|(_, outcome)| outcome.rows.clone().unwrap()).collect();
        assert_eq!(rows, [0, 2], "{told}");
    }
}

/// The bound that is told beforehand is far above what is made: nothing is rejected for it.
#[test]
fn an_expression_is_rejected_for_what_it_makes_and_not_for_what_it_might() {
    let sql = "REPLACE(LOWER(v), 'a', 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb')";
    let transformer = transformer(&[("expr", json!({"sql": sql, "as": "w", "type": "string"}))]);
    let parts = parts(&transformer, batch((0..20).map(|id| record(id, &"c".repeat(3000)))), 16 << 10);
    assert!(rejected(&parts).is_empty(), "{:?}", rejected(&parts));
}

#[test]
fn rows_of_one_record_stay_together_and_are_rejected_together() {
    const BYTES_MAX: usize = 16 << 10;
    let list = [
        ("explode", json!({"column": "list"})),
        ("pad", json!({"column": "list", "width": 1000})),
        ("drop", json!({"columns": ["v"]})),
    ];
    let transformer = transformer(&list);
    let elements = |id: usize| if id == 5 { 200 } else { 30 };
    let records = (0..10).map(|id| json!({"id": id, "list": vec!["e"; elements(id)]}));
    let parts = parts(&transformer, batch(records), BYTES_MAX);
    assert_eq!(rejected(&parts), [(5, RejectKind::TooLarge)]);
    for (bytes, outcome) in &parts {
        assert!(*bytes <= 3 * BYTES_MAX, "{bytes}");
        let rows = outcome.rows.as_ref().unwrap();
        assert!(rows.chunk_by(|a, b| a == b).all(|record| record.len() == 30), "{rows:?}");
    }
    assert_eq!(parts.iter().map(|(_, outcome)| outcome.batch.num_rows()).sum::<usize>(), 9 * 30);
}

#[test]
fn a_look_up_refuses_a_file_with_values_that_are_too_long() {
    let list = [("lookup", json!({"column": "v", "file": "f.csv", "key": "key", "take": {"long": "string"}}))];
    let steps = firn_shared::functions::steps(&Functions::built_in(), &columns(), &list).unwrap();
    let error = Transformer::new(&steps, &columns(), &references()).unwrap_err().to_string();
    assert!(error.contains("row 2 of the file takes 1048581 bytes; a look-up adds up to 1048576"), "{error}");
}
