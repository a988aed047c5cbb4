use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use firn_shared::config::domain::{JsonPath, TimeFormat};
use proptest::prelude::*;

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

fn steps(list: Vec<Transformation>) -> Vec<Step> {
    let numbered = list.into_iter().enumerate();
    numbered.map(|(i, transformation)| Step { at: format!("p.yaml:{}:7", i + 1), transformation }).collect()
}

fn run(list: Vec<Transformation>, lines: &[&str]) -> Outcome {
    let transformer = Transformer::new(&steps(list), &columns()).unwrap();
    let mut decoder = Decoder::new(&columns()).unwrap();
    for line in lines {
        decoder.push(line.as_bytes()).unwrap();
    }
    let outcome = transformer.apply(decoder.finish().unwrap()).unwrap();
    let names = outcome.batch.schema().fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>();
    assert_eq!(names, transformer.output().iter().map(|(n, _)| n.clone()).collect::<Vec<_>>());
    outcome
}

fn rename(from: &str, to: &str) -> Transformation {
    Transformation::Rename { from: from.into(), to: to.into() }
}
fn filter(text: &str) -> Transformation {
    Transformation::Filter { r#where: text.into(), name: format!("not {text}") }
}
fn cast(column: &str, to: LogicalType, format: Option<TimeFormat>) -> Transformation {
    Transformation::Cast { column: column.into(), to, format }
}
fn extract(path: &[&str], to: &str, logical: LogicalType) -> Transformation {
    let path = JsonPath(path.iter().map(ToString::to_string).collect());
    Transformation::Extract { from: "payload".into(), path, to: to.into(), r#type: logical }
}

#[test]
fn without_steps_the_batch_is_the_same_memory() {
    let transformer = Transformer::new(&[], &columns()).unwrap();
    let mut decoder = Decoder::new(&columns()).unwrap();
    decoder.push(br#"{"id":1}"#).unwrap();
    let batch = decoder.finish().unwrap();
    let outcome = transformer.apply(batch.clone()).unwrap();
    assert!(Arc::ptr_eq(batch.column(0), outcome.batch.column(0)));
    assert!(outcome.rows.is_none() && !transformer.can_reject());
}

#[test]
fn rename_drop_and_lower_change_what_they_name() {
    let list = vec![
        rename("Actor.Login", "actor_login"),
        Transformation::Lower { column: "actor_login".into() },
        Transformation::Drop { columns: vec!["n".into(), "payload".into(), "amount".into()] },
    ];
    let outcome = run(list, &[r#"{"id":1,"Actor.Login":"ÄB","tags":{"x":1}}"#, "{}"]);
    let logins = outcome.batch.column_by_name("actor_login").unwrap().as_string::<i32>();
    assert_eq!(logins.iter().collect::<Vec<_>>(), [Some("äb"), None]);
    assert_eq!(outcome.batch.num_columns(), 3);
    assert!(matches!(outcome.batch.column(2).data_type(), DataType::Map(..)), "untouched columns keep their type");
}

#[test]
fn filters_count_rows_that_are_false_or_null_and_keep_row_numbers() {
    let lines = [r#"{"id":1}"#, r#"{"id":5}"#, "{}", r#"{"id":9,"n":"x"}"#];
    let outcome = run(vec![filter("id > 2"), filter("n IS NULL")], &lines);
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
    let list = vec![extract(&["size"], "size", LogicalType::Int), extract(&["a", "b"], "b", LogicalType::String)];
    let outcome = run(list, &lines);
    assert_eq!(outcome.rows, Some(vec![0, 2, 3]));
    let sizes = outcome.batch.column_by_name("size").unwrap().as_primitive::<Int32Type>();
    assert_eq!(sizes.iter().collect::<Vec<_>>(), [Some(3), None, None]);
    let told: Vec<_> =
        outcome.rejected.iter().map(|r| (r.row, r.step.to_string(), r.why.path.as_str(), r.why.reason)).collect();
    assert_eq!(told[0], (1, "p.yaml:1:7".to_owned(), "payload: $.size", RejectKind::BadFormat));
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
        let steps = steps(vec![cast("v", to.clone(), None)]);
        let transformer = Transformer::new(&steps, &columns).unwrap();
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
    let list = vec![cast("id", LogicalType::TimestampTz, Some(TimeFormat::EpochMillis))];
    let outcome = run(list, &[r#"{"id":1626847200123}"#, r#"{"id":9223372036854775807}"#]);
    let times = outcome.batch.column(0).as_primitive::<TimestampMicrosecondType>();
    assert_eq!(times.values(), &[1_626_847_200_123_000]);
    assert_eq!(outcome.rejected[0].why.reason, RejectKind::OutOfRange);
}

#[test]
fn what_cannot_work_is_said_when_the_pipeline_is_built() {
    let cases = [
        (vec![rename("nope", "x")], "p.yaml:1:7: no column `nope`"),
        (vec![rename("id", "n")], "there is a column `n` already"),
        (vec![Transformation::Drop { columns: vec!["n".into()] }, rename("n", "m")], "p.yaml:2:7: no column `n`"),
        (vec![Transformation::Lower { column: "id".into() }], "is long, not string"),
        (vec![rename("Actor.Login", "login"), filter("logn = 'x'")], "did you mean `login`?"),
        (vec![cast("id", LogicalType::TimestampTz, None)], "needs a format"),
        (vec![cast("payload", LogicalType::Struct(vec![]), None)], "extract"),
        (vec![cast("tags", LogicalType::Long, None)], "no way from map"),
    ];
    for (list, expected) in cases {
        let error = Transformer::new(&steps(list), &columns()).unwrap_err();
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn rows_in_are_rows_out_filtered_or_rejected(
        values in prop::collection::vec((prop::option::of(-5i64..5), "[0-9x]{1,2}", prop::option::of(any::<i32>())), 0..40),
        order in any::<bool>(),
    ) {
        let mut list = vec![filter("id >= 0"), cast("n", LogicalType::Int, None), extract(&["s"], "s", LogicalType::Int)];
        if order { list.swap(0, 1); }
        let lines: Vec<String> = values.iter().map(|(id, n, s)| {
            let s = s.map_or("\"no\"".to_owned(), |s| s.to_string());
            format!(r#"{{"id":{},"n":"{n}","payload":{{"s":{s}}}}}"#, id.map_or("null".to_owned(), |i| i.to_string()))
        }).collect();
        let outcome = run(list, &lines.iter().map(String::as_str).collect::<Vec<_>>());
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
