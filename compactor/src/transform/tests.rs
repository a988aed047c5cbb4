use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use firn_shared::config::domain::JsonPath;
use firn_shared::error::ErrorKind;
use firn_shared::types::LogicalType;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::decode::{Decoder, RejectKind};

fn column(name: &str, logical: LogicalType) -> Column {
    Column {
        name: name.to_owned(),
        path: JsonPath(vec![name.to_owned()]),
        r#type: logical,
        required: false,
        format: None,
        doc: None,
    }
}

fn columns() -> Vec<Column> {
    vec![
        column("id", LogicalType::Long),
        column("Actor.Login", LogicalType::String),
        column("n", LogicalType::String),
        column("payload", LogicalType::Json),
        column("amount", LogicalType::Double),
        column("tags", LogicalType::Map(Box::new(LogicalType::Long))),
    ]
}

fn steps(list: &[(&str, Json)]) -> Vec<Step> {
    let functions = firn_shared::functions::Functions::built_in();
    firn_shared::functions::steps(&functions, &columns(), list).unwrap()
}

fn run(list: &[(&'static str, Json)], lines: &[&str]) -> Outcome {
    let transformer = Transformer::new(&steps(list), &columns(), &References::default()).unwrap();
    let mut decoder = Decoder::new(&columns()).unwrap();
    for line in lines {
        decoder.push(line.as_bytes()).unwrap();
    }
    let outcome = transformer.apply(decoder.finish().unwrap()).unwrap();
    let names = outcome.batch.schema().fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>();
    assert_eq!(names, transformer.output().iter().map(|(n, _)| n.clone()).collect::<Vec<_>>());
    outcome
}

fn rename(from: &str, to: &str) -> (&'static str, Json) {
    ("rename", json!({"from": from, "to": to}))
}
fn filter(text: &str) -> (&'static str, Json) {
    ("filter", json!({"where": text, "name": format!("not {text}")}))
}
fn cast(column: &str, to: &LogicalType) -> (&'static str, Json) {
    ("cast", json!({"column": column, "to": to.to_string()}))
}
fn extract(path: &str, to: &str, logical: &str) -> (&'static str, Json) {
    ("extract", json!({"from": "payload", "path": path, "as": to, "type": logical}))
}

#[test]
fn without_steps_the_batch_is_the_same_memory() {
    let transformer = Transformer::new(&[], &columns(), &References::default()).unwrap();
    let mut decoder = Decoder::new(&columns()).unwrap();
    decoder.push(br#"{"id":1}"#).unwrap();
    let batch = decoder.finish().unwrap();
    let outcome = transformer.apply(batch.clone()).unwrap();
    assert!(Arc::ptr_eq(batch.column(0), outcome.batch.column(0)));
    assert!(outcome.rows.is_none() && !transformer.can_reject());
}

#[test]
fn rename_drop_and_lower_change_what_they_name() {
    let list = [
        rename("Actor.Login", "actor_login"),
        ("lower", json!({"column": "actor_login"})),
        ("drop", json!({"columns": ["n", "payload", "amount"]})),
    ];
    let outcome = run(&list, &[r#"{"id":1,"Actor.Login":"ÄB","tags":{"x":1}}"#, "{}"]);
    let logins = outcome.batch.column_by_name("actor_login").unwrap().as_string::<i32>();
    assert_eq!(logins.iter().collect::<Vec<_>>(), [Some("äb"), None]);
    assert_eq!(outcome.batch.num_columns(), 3);
    assert!(matches!(outcome.batch.column(2).data_type(), DataType::Map(..)), "untouched columns keep their type");
}

#[test]
fn filters_count_rows_that_are_false_or_null_and_keep_row_numbers() {
    let lines = [r#"{"id":1}"#, r#"{"id":5}"#, "{}", r#"{"id":9,"n":"x"}"#];
    let outcome = run(&[filter("id > 2"), filter("n IS NULL")], &lines);
    assert_eq!(outcome.filtered, [("not id > 2".to_owned(), vec![0, 2]), ("not n IS NULL".to_owned(), vec![3])]);
    assert_eq!(outcome.rows, Some(vec![1]));
    assert_eq!(outcome.batch.column(0).as_primitive::<Int64Type>().values(), &[5]);
}

#[test]
fn extract_rejects_what_does_not_fit_with_step_and_path() {
    let lines = [
        r#"{"payload":{"size":3,"a":{"b":"x"}}}"#,
        r#"{"payload":{"size":"many"}}"#,
        r#"{"payload":{}}"#,
        "{}",
        r#"{"payload":[1]}"#,
    ];
    let outcome = run(&[extract("$.size", "size", "int"), extract("$.a.b", "b", "string")], &lines);
    assert_eq!(outcome.rows, Some(vec![0, 2, 3]));
    let sizes = outcome.batch.column_by_name("size").unwrap().as_primitive::<Int32Type>();
    assert_eq!(sizes.iter().collect::<Vec<_>>(), [Some(3), None, None]);
    let told: Vec<_> =
        outcome.rejected.iter().map(|r| (r.row, r.step.to_string(), r.why.path.as_str(), r.why.reason)).collect();
    assert_eq!(told[0], (1, "step 1".to_owned(), "payload: $.size", RejectKind::BadFormat));
    assert_eq!((told[1].0, told[1].3), (4, RejectKind::NotObject));
}

#[test]
fn casts_keep_values_or_reject_the_row() {
    use LogicalType as L;
    let decimal = L::Decimal { precision: 5, scale: 2 };
    // (from, value, to, what becomes of it: None when rejected)
    let cases: Vec<(L, &str, L, Option<&str>)> = vec![
        (L::String, "\"12\"", L::Int, Some("12")),
        (L::String, "\"1.5\"", L::Int, None),
        (L::String, "\"\"", L::Int, None),
        (L::String, "\"12.34\"", decimal.clone(), Some("12.34")),
        (L::String, "\"12.345\"", decimal.clone(), None),
        (L::String, "\"2021-07-21T06:00:00Z\"", L::TimestampTz, Some("2021-07-21T06:00:00Z")),
        (L::String, "\"yesterday\"", L::TimestampTz, None),
        (L::String, "\"{\\\"a\\\":1}\"", L::Json, Some("{\"a\":1}")),
        (L::String, "\"1,\\\"v\\\":2\"", L::Json, None),
        (L::Long, "7", L::Int, Some("7")),
        (L::Long, "3000000000", L::Int, None),
        (L::Long, "9007199254740993", L::Double, None),
        // Doubles and floats next to them are beyond what comes back.
        (L::Long, "9223372036854775807", L::Double, None),
        (L::Long, "-9223372036854775808", L::Double, Some("-9.223372036854776e18")),
        (L::Int, "2147483647", L::Float, None),
        (L::Long, "-5", L::String, Some("-5")),
        (L::Long, "12345", decimal.clone(), None),
        (L::Double, "1.5", L::Long, None),
        (L::Double, "2.0", L::Long, Some("2")),
        (L::Double, "1e300", L::Float, None),
        (L::Double, "0.1", L::Float, Some("0.1")),
        (decimal, "\"1.50\"", L::Double, Some("1.5")),
        (L::Boolean, "true", L::String, Some("true")),
        (L::TimestampTz, "\"2021-07-21T06:00:00.5Z\"", L::String, Some("2021-07-21T06:00:00.500Z")),
        (L::TimestampTz, "\"2021-07-21T23:59:59Z\"", L::Date, Some("2021-07-21")),
        (L::Date, "\"2021-07-21\"", L::TimestampTz, Some("2021-07-21T00:00:00Z")),
    ];
    for (from, value, to, expected) in cases {
        let columns = [column("v", from.clone())];
        let functions = firn_shared::functions::Functions::built_in();
        let steps = firn_shared::functions::steps(&functions, &columns, &[cast("v", &to)]).unwrap();
        let transformer = Transformer::new(&steps, &columns, &References::default()).unwrap();
        let mut decoder = Decoder::new(&columns).unwrap();
        decoder.push(format!("{{\"v\":{value}}}").as_bytes()).unwrap();
        decoder.push(b"{}").unwrap();
        let outcome = transformer.apply(decoder.finish().unwrap()).unwrap();
        let case = format!("{value} as {from} to {to}: {:?}", outcome.rejected);
        let left = outcome.batch.column(0);
        assert_eq!(left.data_type(), &data_type(&to), "{case}");
        assert!(left.is_null(left.len() - 1), "null stays null: {case}");
        let text = arrow_cast::display::ArrayFormatter::try_new(left, &arrow_cast::display::FormatOptions::default());
        let text = (left.len() == 2).then(|| text.unwrap().value(0).to_string());
        assert_eq!(text.as_deref(), expected, "{case}");
        assert_eq!(outcome.rejected.len(), usize::from(expected.is_none()), "{case}");
    }
}

#[test]
fn numbers_since_the_epoch_become_times() {
    let list = [("cast", json!({"column": "id", "to": "timestamptz", "format": "epochMillis"}))];
    let outcome = run(&list, &[r#"{"id":1626847200123}"#, r#"{"id":9223372036854775807}"#]);
    let times = outcome.batch.column(0).as_primitive::<TimestampMicrosecondType>();
    assert_eq!(times.values(), &[1_626_847_200_123_000]);
    assert_eq!(outcome.rejected[0].why.reason, RejectKind::OutOfRange);
}

#[test]
fn what_only_polars_can_tell_is_said_when_the_steps_are_built_all_at_once() {
    let mut steps = steps(&[filter("logn = 'x'"), rename("Actor.Login", "login"), filter("logn = 'x'"), filter("id")]);
    steps[2].places.insert("where".to_owned(), "p.yaml:3:9".to_owned());
    let error = Transformer::new(&steps, &columns(), &References::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("step 1: filter.where: `logn = 'x'`") || lines[0].contains("no column `logn`"),
        "{text}"
    );
    assert!(lines[1].starts_with("p.yaml:3:9: filter.where: no column `logn` here; did you mean `login`?"), "{text}");
    assert!(lines[2].contains("not true or false") && lines.len() == 3, "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn rows_in_are_rows_out_filtered_or_rejected(
        values in prop::collection::vec((prop::option::of(-5i64..5), "[0-9x]{1,2}", prop::option::of(any::<i32>())), 0..40),
        order in any::<bool>(),
    ) {
        let mut list = vec![filter("id >= 0"), cast("n", &LogicalType::Int), extract("$.s", "s", "int")];
        if order { list.swap(0, 1); }
        let lines: Vec<String> = values.iter().map(|(id, n, s)| {
            let s = s.map_or("\"no\"".to_owned(), |s| s.to_string());
            format!(r#"{{"id":{},"n":"{n}","payload":{{"s":{s}}}}}"#, id.map_or("null".to_owned(), |i| i.to_string()))
        }).collect();
        let outcome = run(&list, &lines.iter().map(String::as_str).collect::<Vec<_>>());
        let mut seen: Vec<u32> = outcome.rows.clone().unwrap_or_else(|| (0..values.len() as u32).collect());
        prop_assert_eq!(seen.len(), outcome.batch.num_rows());
        let ids = outcome.batch.column(0).as_primitive::<Int64Type>();
        for (at, row) in seen.iter().enumerate() {
            prop_assert_eq!(Some(ids.value(at)), values[*row as usize].0, "row numbers point at their records");
        }
        seen.extend(outcome.filtered.iter().flat_map(|(_, rows)| rows));
        seen.extend(outcome.rejected.iter().map(|r| r.row));
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..values.len() as u32).collect::<Vec<_>>());
    }
}

/// What all parts of a batch became, together.
fn in_parts(transformer: &Transformer, batch: RecordBatch, bytes_max: usize) -> Outcome {
    let mut parts = transformer.begin(batch, None, bytes_max).unwrap();
    let mut all = transformer.next(&mut parts).unwrap().unwrap();
    while let Some(part) = transformer.next(&mut parts).unwrap() {
        let batches = [&all.batch, &part.batch];
        all.batch = arrow_select::concat::concat_batches(&part.batch.schema(), batches).unwrap();
        all.rows = Some([all.rows.unwrap(), part.rows.unwrap()].concat());
        all.filtered.extend(part.filtered);
        all.rejected.extend(part.rejected);
    }
    all
}

#[test]
fn a_wide_column_beside_a_long_list_repeats_in_parts_that_are_bounded() {
    let columns = [listed(), vec![column("wide", LogicalType::String)]].concat();
    let functions = firn_shared::functions::Functions::built_in();
    let list = [("explode", json!({"column": "v"}))];
    let steps = firn_shared::functions::steps(&functions, &columns, &list).unwrap();
    let transformer = Transformer::new(&steps, &columns, &References::default()).unwrap();
    let mut decoder = Decoder::new(&columns).unwrap();
    for id in 0..40 {
        let elements = if id == 20 { 900 } else { 30 };
        let record = json!({"id": id, "wide": "x".repeat(1000), "v": vec!["e"; elements]});
        decoder.push(record.to_string().as_bytes()).unwrap();
    }
    // A record of 30 elements takes 30 kB, three of them fit; one of 900 is more than eight parts.
    let mut parts = transformer.begin(decoder.finish().unwrap(), None, 100_000).unwrap();
    let (mut rows, mut rejected, mut count) = (Vec::new(), Vec::new(), 0);
    while let Some(part) = transformer.next(&mut parts).unwrap() {
        assert!(part.batch.num_rows() <= 90, "{}", part.batch.num_rows());
        rows.extend(part.rows.unwrap());
        rejected.extend(part.rejected.iter().map(|reject| (reject.row, reject.why.reason)));
        count += 1;
    }
    let expected: Vec<u32> = (0..40).filter(|id| *id != 20).flat_map(|id| [id; 30]).collect();
    assert_eq!((rows, rejected, count), (expected, vec![(20, RejectKind::TooLarge)], 13));
}

fn listed() -> Vec<Column> {
    vec![column("id", LogicalType::Long), column("v", LogicalType::List(Box::new(LogicalType::String)))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_record_that_becomes_several_rows_is_still_exactly_one_thing(
        lists in prop::collection::vec(prop::option::of(prop::collection::vec(0usize..5, 0..4)), 0..30),
        keep_empty in any::<bool>(),
        bytes_max in 4usize..200,
    ) {
        // `0` is filtered, `x` is rejected by the cast behind the filter.
        const ELEMENTS: [&str; 5] = ["0", "1", "2", "3", "x"];
        let functions = firn_shared::functions::Functions::built_in();
        let list = [
            ("explode", json!({"column": "v", "keepEmpty": keep_empty})),
            ("filter", json!({"where": "v IS NULL OR v <> '0'", "name": "zero"})),
            ("cast", json!({"column": "v", "to": "int"})),
        ];
        let steps = firn_shared::functions::steps(&functions, &listed(), &list).unwrap();
        let transformer = Transformer::new(&steps, &listed(), &References::default()).unwrap();
        let mut decoder = Decoder::new(&listed()).unwrap();
        let values = |list: &Vec<usize>| list.iter().map(|at| ELEMENTS[*at]).collect::<Vec<_>>();
        for (id, list) in lists.iter().enumerate() {
            decoder.push(json!({"id": id, "v": list.as_ref().map(values)}).to_string().as_bytes()).unwrap();
        }
        // However few records go on at once, each comes to the same.
        let outcome = in_parts(&transformer, decoder.finish().unwrap(), bytes_max);
        let rows = outcome.rows.clone().unwrap_or_else(|| (0..lists.len() as u32).collect());
        prop_assert!(rows.is_sorted());
        for (id, list) in lists.iter().enumerate() {
            let elements = list.as_ref().map(values).unwrap_or_default();
            let found = rows.iter().filter(|row| **row == id as u32).count();
            let filtered: Vec<&str> = outcome.filtered.iter()
                .flat_map(|(name, rows)| rows.iter().filter(|row| **row == id as u32).map(|_| name.as_str())).collect();
            let rejected = outcome.rejected.iter().filter(|reject| reject.row == id as u32).count();
            let expected = match elements.iter().filter(|element| **element != "0").count() {
                _ if elements.contains(&"x") => (0, vec![], 1),
                _ if elements.is_empty() && keep_empty => (1, vec![], 0),
                _ if elements.is_empty() => (0, vec!["empty"], 0),
                0 => (0, vec!["zero"], 0),
                some => (some, vec![], 0),
            };
            prop_assert_eq!((found, filtered, rejected), expected, "{:?}", elements);
        }
    }
}

#[test]
fn a_row_that_an_earlier_batch_of_the_run_had_is_a_duplicate() {
    let list = [("dedup", json!({"by": ["id", "n"], "limit": 3}))];
    let transformer = Transformer::new(&steps(&list), &columns(), &References::default()).unwrap();
    let apply = |lines: &[&str]| {
        let mut decoder = Decoder::new(&columns()).unwrap();
        for line in lines {
            decoder.push(line.as_bytes()).unwrap();
        }
        transformer.apply(decoder.finish().unwrap())
    };
    let first = apply(&[r#"{"id":1,"n":"a"}"#, r#"{"id":1,"n":"b"}"#]).unwrap();
    assert!(first.filtered.is_empty());
    let second = apply(&[r#"{"id":1,"n":"b"}"#, r#"{"id":2}"#, r#"{"id":2}"#]).unwrap();
    assert_eq!((second.filtered, second.rows), (vec![("duplicate".to_owned(), vec![0, 2])], Some(vec![1])));
    let error = apply(&[r#"{"id":3}"#]).unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("more than 3 different rows"), "{error}");
}

#[test]
fn a_look_up_by_a_key_that_comes_twice_is_refused_without_the_key() {
    let array: ArrayRef =
        Arc::new(arrow_array::StringArray::from(vec![Some("x"), None, Some("secret"), None, Some("secret")]));
    let mut references = References::default();
    references.insert("f.csv", Reference::new(RecordBatch::try_from_iter([("k", array)]).unwrap()));
    let list =
        [("lookup", json!({"column": "n", "file": "f.csv", "key": "k", "take": {"k": "string"}, "prefix": "f_"}))];
    let error = Transformer::new(&steps(&list), &columns(), &references).unwrap_err().to_string();
    assert!(error.contains("column `k` of the file says the same in rows 3 and 5"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

/// Takes the first three bytes of a text, whatever they are.
#[derive(Debug)]
struct Cuts;

impl Kernel for Cuts {
    fn call(&self, batch: &Batch<'_>) -> Result<Made> {
        let texts = batch.column(0)?.array.as_string::<i32>();
        let cut = texts.iter().map(|text| text.map(|text| &text[..3]));
        Ok(Made::one(Arc::new(cut.collect::<arrow_array::StringArray>())))
    }
}

#[test]
fn a_row_on_which_a_step_of_ours_panics_is_rejected_and_no_other() {
    let (v, text) = (column("v", LogicalType::String), LogicalType::String);
    let step = Built {
        at: "p.yaml:3:9".into(),
        work: Work::Make(Box::new(Cuts)),
        plan: Planned { reads: vec![0], after: vec![(v, Source::Made(0))] },
        reads: vec![0],
        read: vec![("v".to_owned(), text.clone())],
        makes: vec![data_type(&text)],
        can_reject: true,
    };
    let transformer = Transformer { steps: vec![step], input: 1, output: vec![("v".to_owned(), text)] };
    let texts = ["Anna", "Zoë", "Karl", "Renée", "ÄÄ", "Otto"];
    let array: ArrayRef = Arc::new(arrow_array::StringArray::from(texts.to_vec()));
    let outcome = in_parts(&transformer, RecordBatch::try_from_iter([("v", array)]).unwrap(), usize::MAX);
    assert_eq!(outcome.rows, Some(vec![0, 2, 3, 5]));
    let left: Vec<_> = outcome.batch.column(0).as_string::<i32>().iter().flatten().collect();
    assert_eq!(left, ["Ann", "Kar", "Ren", "Ott"]);
    let told: Vec<_> = outcome.rejected.iter().map(|reject| (reject.row, &*reject.step, reject.why.reason)).collect();
    let expected = |row| (row, "p.yaml:3:9", RejectKind::BadFormat);
    assert_eq!(told, [expected(1), expected(4)]);
    assert!(outcome.rejected.iter().all(|reject| !reject.why.detail.contains('ë')), "{:?}", outcome.rejected);
}
