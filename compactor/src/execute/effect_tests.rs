//! Change events through a whole conversion: rows, marks and what every record became.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use bytes::Bytes;
use firn_shared::config::domain::{
    Column, DeleteFiles, JsonPath, Mode, Output, PayloadFormat, Step as Transform, StoreUrl, Table, Upsert,
    WriteStrategy,
};
use firn_shared::config::{DELETED, DELETED_AT, OPERATION, decoded_columns};
use firn_shared::functions::Functions;
use firn_shared::ids::{ColumnName, DatabaseName, EventHour, Partition, TableName, Topic};
use firn_shared::raw::envelope::{LineWriter, Record};
use firn_shared::raw::manifest::RawObject;
use firn_shared::types::LogicalType;
use serde_json::json;

use super::conversion::Conversion;
use super::convert::{Converter, Rows, Step};
use crate::plan::SliceObject;
use crate::provenance;
use crate::reconcile::account::Fate;
use crate::transform::References;

fn upsert(soft_delete: bool, versions: &[&str]) -> Mode {
    let names = |names: &[&str]| names.iter().map(|name| ColumnName::new(*name).unwrap()).collect();
    Mode::Upsert(Upsert {
        keys: names(&["customer"]),
        versions: names(versions),
        strategy: WriteStrategy::MergeOnRead(DeleteFiles::Position),
        delete_memory: Duration::ZERO,
        soft_delete,
    })
}

/// `id` (renamed to `customer`) and `name`; rows whose name is not `keep` are filtered.
fn output(format: PayloadFormat, mode: Mode) -> Output {
    let column = |name: &str, r#type, required| Column {
        name: name.to_owned(),
        path: JsonPath(vec![name.to_owned()]),
        r#type,
        required,
        format: None,
        doc: None,
    };
    let mut output = Output {
        format,
        events: None,
        table: Table {
            database: DatabaseName::new("d").unwrap(),
            name: TableName::new("t").unwrap(),
            location: Some(StoreUrl::File("/t".into())),
            mode,
            columns: vec![column("id", LogicalType::Long, true), column("name", LogicalType::String, true)],
            protections: Vec::new(),
            partition_by: Vec::new(),
            sort_by: Vec::new(),
            provenance: true,
            target_file_size: 1,
            zstd_level: 1,
            athena_allow: std::collections::BTreeSet::new(),
            properties: std::collections::BTreeMap::new(),
            quarantine_threshold: None,
            maintenance: firn_shared::config::domain::MaintenanceOptions::default(),
        },
        transformations: Vec::new(),
    };
    output.transformations = steps(&output, "name = 'keep'");
    output
}

fn steps(output: &Output, keep: &str) -> Vec<Transform> {
    let list =
        [("rename", json!({"from": "id", "to": "customer"})), ("filter", json!({"where": keep, "name": "others"}))];
    firn_shared::functions::steps(&Functions::built_in(), &decoded_columns(output), &list).unwrap()
}

/// Converts records (key and value) that stand at offsets 0, 1, …, in one batch.
fn convert(output: &Output, records: &[(&str, Option<&str>)]) -> (Option<Rows>, u64, Fate) {
    let (mut rows, rejects, fate) = convert_by(output, records, 1 << 20);
    assert!(rows.len() < 2);
    (rows.pop(), rejects, fate)
}

/// As [`convert`], in batches of about so many bytes.
fn convert_by(output: &Output, records: &[(&str, Option<&str>)], batch_bytes: usize) -> (Vec<Rows>, u64, Fate) {
    let writer = LineWriter::new(&Topic::new("t").unwrap(), Partition(0));
    let mut text = Vec::new();
    for (offset, (key, value)) in records.iter().enumerate() {
        let record = Record {
            offset: offset as u64,
            timestamp: Some(9),
            key: Some(key.as_bytes()),
            headers: std::iter::empty(),
        };
        writer.record(&mut text, record, None, value.map(str::as_bytes));
    }
    let bytes = zstd::bulk::compress(&text, 1).unwrap();
    let tombstones = records.iter().filter(|(_, value)| value.is_none()).count() as u64;
    let object = RawObject {
        key: "k".into(),
        event_hour: Some(EventHour::from_epoch_hours(1)),
        records: records.len() as u64,
        tombstones,
        bytes: bytes.len() as u64,
        raw_bytes: text.len() as u64,
        blake3: blake3::hash(&bytes).to_hex().to_string(),
        min_offset: 0,
        max_offset: records.len() as u64,
        min_event_time: None,
        max_event_time: None,
        erased: 0,
    };
    let object = SliceObject { topic: "events/t/1".parse().unwrap(), partition: Partition(0), object };
    let mut converter =
        Converter::new(Arc::new(Conversion::new(output, 1 << 20, &References::default(), None).unwrap()), batch_bytes)
            .unwrap();
    converter.begin(&object, "file:///raw/k").unwrap();
    converter.push(Bytes::from(bytes));
    let (mut rows, mut rejects, mut truncations) = (Vec::new(), 0, 0);
    let mut take = |step| match step {
        Step::Rows(more) => rows.push(more),
        Step::Rejects(batch) => rejects += batch.num_rows() as u64,
        Step::NeedBytes => {}
        Step::Truncations(found) => truncations += found.len() as u64,
    };
    loop {
        match converter.step(&object.object).unwrap() {
            Step::NeedBytes => break,
            step => take(step),
        }
    }
    converter.end_object(&object.object).unwrap();
    while let Some(step) = converter.drain().unwrap() {
        take(step);
    }
    let fate = converter.into_fates().into_values().next().unwrap();
    assert_eq!((fate.quarantined, fate.tombstones, fate.deleted), (rejects, tombstones, truncations));
    assert_eq!(fate.records(), records.len() as u64, "every record is exactly one thing");
    (rows, rejects, fate)
}

const EVENTS: [(&str, Option<&str>); 9] = [
    (r#"{"id":1}"#, Some(r#"{"after":{"id":1,"name":"keep"},"source":{"lsn":10},"op":"c","ts_ms":1}"#)),
    (r#"{"id":2}"#, Some(r#"{"after":{"id":2,"name":"drop"},"source":{"lsn":11},"op":"c","ts_ms":2}"#)),
    (r#"{"id":3}"#, Some(r#"{"before":{"id":3,"name":"drop"},"source":{"lsn":12},"op":"d","ts_ms":3}"#)),
    (r#"{"id":4}"#, Some(r#"{"before":null,"source":{"lsn":13},"op":"d","ts_ms":4}"#)),
    (r#"{"id":4}"#, None),
    ("no key", None),
    ("", Some(r#"{"source":{"lsn":14},"op":"m"}"#)),
    ("", Some(r#"{"source":{"lsn":15},"op":"t"}"#)),
    (r#"{"id":5}"#, Some(r#"{"after":{"id":5},"source":{"lsn":16},"op":"u"}"#)),
];

fn longs(rows: &Rows, name: &str) -> Vec<Option<i64>> {
    rows.batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().iter().collect()
}

fn texts<'a>(rows: &'a Rows, name: &str) -> Vec<Option<&'a str>> {
    rows.batch.column_by_name(name).unwrap().as_string::<i32>().iter().collect()
}

#[test]
fn an_upsert_gets_deletes_past_filters_and_requirements() {
    let (rows, rejects, fate) = convert(&output(PayloadFormat::Debezium, upsert(false, &[])), &EVENTS);
    let rows = rows.unwrap();
    assert_eq!(longs(&rows, "customer"), [Some(1), Some(3), Some(4), Some(4)]);
    assert_eq!(texts(&rows, "name"), [Some("keep"), Some("drop"), None, None]);
    assert_eq!(rows.deletes.as_ref().unwrap().iter().collect::<Vec<_>>(), [false, true, true, true]);
    // The truncate of no table, and the update that lacks a name.
    assert_eq!(rejects, 2);
    assert_eq!((fate.rows, fate.tombstones), (3, 2));
    assert_eq!(fate.filtered, [("message".to_owned(), 1), ("others".to_owned(), 1)].into());
    let origins = rows.batch.column_by_name(provenance::COLUMN).unwrap().as_struct();
    assert_eq!(origins.column_by_name(provenance::OFFSET).unwrap().as_primitive::<Int64Type>().values(), &[0, 2, 3, 4]);
    let versions: Vec<_> = origins.column_by_name(provenance::VERSION).unwrap().as_string::<i32>().iter().collect();
    assert!(versions[..3].is_sorted() && versions[0].is_some() && versions[3].is_none(), "{versions:?}");
}

#[test]
fn an_update_of_a_key_is_one_record_and_takes_the_former_key_away() {
    let events = [
        ("", Some(r#"{"before":{"id":1,"name":"drop"},"after":{"id":2,"name":"keep"},"source":{"lsn":10},"op":"u"}"#)),
        ("", Some(r#"{"before":{"id":3,"name":"keep"},"after":{"id":4,"name":"drop"},"source":{"lsn":11},"op":"u"}"#)),
        ("", Some(r#"{"before":{"id":5,"name":"keep"},"after":{"id":6},"source":{"lsn":12},"op":"u"}"#)),
    ];
    for soft in [false, true] {
        let (rows, rejects, fate) = convert(&output(PayloadFormat::Debezium, upsert(soft, &[])), &events);
        let rows = rows.unwrap();
        assert_eq!(longs(&rows, "customer"), [Some(1), Some(2), Some(3)]);
        for marks in [&rows.deletes, &rows.silent] {
            assert_eq!(marks.as_ref().unwrap().iter().collect::<Vec<_>>(), [true, false, true]);
        }
        assert_eq!((fate.rows, rejects, fate.filtered["others"]), (1, 1, 1));
    }
    // A table that keeps every change has one row of it.
    let (rows, ..) = convert(&output(PayloadFormat::Debezium, Mode::Append), &events[..1]);
    let rows = rows.unwrap();
    assert_eq!((longs(&rows, "customer"), rows.deletes.is_none()), (vec![Some(2)], true));
}

#[test]
fn a_truncate_is_a_delete_of_its_source_table_and_says_where_it_stands() {
    let events = [
        ("", Some(r#"{"after":{"id":1,"name":"keep"},"source":{"db":"d","table":"a","lsn":10},"op":"c","ts_ms":1}"#)),
        ("", Some(r#"{"source":{"db":"d","table":"a","lsn":11},"op":"t","ts_ms":2}"#)),
        ("", Some(r#"{"payload":{"source":{"db":"d","table":"b","lsn":12},"op":"t","ts_ms":3}}"#)),
        ("", Some(r#"{"id":null,"__op":"t","__source_table":"c","__source_lsn":13,"__deleted":"false"}"#)),
    ];
    let (rows, rejects, fate) = convert(&output(PayloadFormat::Debezium, upsert(false, &[])), &events);
    assert_eq!((rejects, fate.rows, fate.deleted), (0, 1, 3));
    let rows = rows.unwrap();
    let origins = rows.batch.column_by_name(provenance::COLUMN).unwrap().as_struct();
    assert_eq!(origins.column_by_name(provenance::SOURCE).unwrap().as_string::<i32>().value(0), "d.a");
    // Where a column orders the rows, there is no place for it.
    let (_, rejects, fate) = convert(&output(PayloadFormat::Debezium, upsert(false, &["name"])), &events);
    assert_eq!((rejects, fate.deleted), (3, 0));
}

#[test]
fn a_delete_that_cannot_be_compared_is_refused() {
    let (rows, rejects, _) = convert(&output(PayloadFormat::Debezium, upsert(false, &["name"])), &EVENTS);
    // The one without an image has the key only, and its tombstone too.
    assert_eq!(longs(&rows.unwrap(), "customer"), [Some(1), Some(3)]);
    assert_eq!(rejects, 3);
}

#[test]
fn a_soft_delete_keeps_the_row_and_says_when_it_went() {
    let (rows, _, fate) = convert(&output(PayloadFormat::Debezium, upsert(true, &[])), &EVENTS);
    let rows = rows.unwrap();
    assert!(rows.deletes.is_none());
    assert_eq!((longs(&rows, "customer"), fate.rows), (vec![Some(1), Some(3), Some(4)], 3));
    let deleted: Vec<_> = rows.batch.column_by_name(DELETED).unwrap().as_boolean().iter().collect();
    assert_eq!(deleted, [Some(false), Some(true), Some(true)]);
    let times = rows.batch.column_by_name(DELETED_AT).unwrap().as_primitive::<TimestampMicrosecondType>();
    assert_eq!(times.iter().collect::<Vec<_>>(), [None, Some(3000), Some(4000)]);
}

#[test]
fn an_append_table_keeps_every_change_and_its_operation() {
    let mut output = output(PayloadFormat::Debezium, Mode::Append);
    // Here deletes are rows like others, and a filter may look at the operation.
    output.transformations = steps(&output, "_op <> 'c' OR name = 'keep'");
    let (rows, rejects, fate) = convert(&output, &EVENTS);
    let rows = rows.unwrap();
    assert!(rows.deletes.is_none());
    assert_eq!(texts(&rows, OPERATION), [Some("c"), Some("d"), Some("d"), Some("t")]);
    assert_eq!((longs(&rows, "customer"), rejects, fate.tombstones), (vec![Some(1), Some(3), Some(4), None], 1, 2));
    // What a delete may lack, the table cannot require.
    let columns = firn_shared::config::columns_after(&output);
    assert!(columns.iter().all(|column| !column.required) && columns[2].name == OPERATION);
}

#[test]
fn plain_rows_know_nothing_of_changes() {
    let row = [("", Some(r#"{"id":1,"name":"keep"}"#)), (r#"{"id":1}"#, None)];
    let (rows, _, _) = convert(&output(PayloadFormat::Json, upsert(false, &["name"])), &row);
    let rows = rows.unwrap();
    assert!(rows.deletes.is_none());
    let origins = rows.batch.column_by_name(provenance::COLUMN).unwrap().as_struct();
    assert_eq!((rows.batch.num_columns(), origins.num_columns()), (3, provenance::FIELDS.len()));
}

#[test]
fn a_record_of_several_rows_counts_once_and_its_rows_are_numbered() {
    let mut output = output(PayloadFormat::Json, Mode::Append);
    output.table.columns[1].r#type = LogicalType::List(Box::new(LogicalType::String));
    output.table.columns[1].required = false;
    let list =
        [("explode", json!({"column": "name", "keepEmpty": false})), ("cast", json!({"column": "name", "to": "int"}))];
    let functions = Functions::built_in();
    output.transformations = firn_shared::functions::steps(&functions, &decoded_columns(&output), &list).unwrap();
    let records = [
        ("", Some(r#"{"id":1,"name":["1","2","3"]}"#)),
        ("", Some(r#"{"id":2,"name":[]}"#)),
        ("", Some(r#"{"id":3,"name":["4","x"]}"#)),
        ("", Some(r#"{"id":4,"name":["5"]}"#)),
    ];
    let (rows, rejects, fate) = convert(&output, &records);
    let rows = rows.unwrap();
    assert_eq!((fate.rows, fate.exploded, rejects, fate.filtered["empty"]), (2, 2, 1, 1));
    assert_eq!(longs(&rows, "id"), [Some(1), Some(1), Some(1), Some(4)]);
    let origins = rows.batch.column_by_name(provenance::COLUMN).unwrap().as_struct();
    let ordinals = origins.column_by_name(provenance::ORDINAL).unwrap().as_primitive::<Int32Type>();
    assert_eq!(ordinals.values(), &[0, 1, 2, 0]);
}

#[test]
fn records_that_become_many_rows_come_out_in_several_batches_and_are_each_one_thing() {
    let mut output = output(PayloadFormat::Json, Mode::Append);
    output.table.columns[1].r#type = LogicalType::List(Box::new(LogicalType::String));
    let wide =
        Column { name: "wide".to_owned(), path: JsonPath(vec!["wide".to_owned()]), ..output.table.columns[0].clone() };
    output.table.columns.push(Column { r#type: LogicalType::String, ..wide });
    let list = [
        ("explode", json!({"column": "name"})),
        ("filter", json!({"where": "name <> 'b' OR id = 5", "name": "others"})),
        ("cast", json!({"column": "name", "to": "json"})),
    ];
    output.transformations =
        firn_shared::functions::steps(&Functions::built_in(), &decoded_columns(&output), &list).unwrap();
    // Of the elements `b` is filtered, but in record 5, where it is no JSON.
    let records: Vec<String> = (0..12)
        .map(|id| {
            let (elements, wide) = (if id == 7 { 200 } else { 3 }, "x".repeat(if id == 3 { 9 } else { 500 }));
            let names: Vec<_> = (0..elements).map(|i| if i == 1 { "b" } else { "1" }).collect();
            json!({"id": id, "name": names, "wide": wide}).to_string()
        })
        .collect();
    let records: Vec<_> = records.iter().map(|record| ("", Some(record.as_str()))).collect();
    let (rows, rejects, fate) = convert_by(&output, &records, 4000);
    assert!(rows.len() > 3, "{}", rows.len());
    let ids: Vec<_> = rows.iter().flat_map(|rows| longs(rows, "id")).collect();
    let expected = (0..12).filter(|id| ![5, 7].contains(id)).flat_map(|id| [Some(id), Some(id)]);
    assert_eq!(ids, expected.collect::<Vec<_>>());
    assert_eq!((fate.rows, fate.exploded, rejects), (10, 10, 2));
    let ordinals = |rows: &Rows| {
        let origin = rows.batch.column_by_name(provenance::COLUMN).unwrap().as_struct();
        let ordinals = origin.column_by_name("ordinal").unwrap().as_primitive::<Int32Type>();
        ordinals.values().to_vec()
    };
    assert_eq!(rows.iter().flat_map(ordinals).collect::<Vec<_>>(), [0, 1].repeat(10));
}
