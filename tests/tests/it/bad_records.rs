//! Every kind of broken record ends in a quarantine with its reason, and holds up nothing.

use std::collections::BTreeMap;

use firn_e2e::rig::kafka::{Kafka, Record};
use serde_json::{Value, json};

use crate::ticks::{TABLE, Ticks, seeded};

/// What landing refuses, and its word for it.
fn refused() -> Vec<(&'static str, Vec<u8>)> {
    let at = |time: &str| format!(r#"{{"n":1,"at":{time}}}"#).into_bytes();
    vec![
        ("notUtf8", b"{\"n\":1,\"at\":\"2024-05-01T00:00:00Z\",\"pad\":\"\xff\"}".to_vec()),
        ("notJson", b"".to_vec()),
        ("notJson", b"{\"n\":1".to_vec()),
        ("notJson", br#"{"n":1,"at":"2024-05-01T00:00:00Z"} {"#.to_vec()),
        ("notJson", br#"{"n":NaN,"at":"2024-05-01T00:00:00Z"}"#.to_vec()),
        ("notJson", br#"{"n":1,"at":"2024-05-01T00:00:00Z",}"#.to_vec()),
        ("noEventTime", br#"{"n":1}"#.to_vec()),
        ("noEventTime", b"[1]".to_vec()),
        ("noEventTime", b"17".to_vec()),
        ("noEventTime", at("null")),
        ("badEventTime", at(r#""yesterday""#)),
        ("badEventTime", at(r#""1914-07-28T00:00:00Z""#)),
        ("badEventTime", at("{}")),
        ("tooLarge", format!(r#"{{"n":1,"at":"2024-05-01T00:00:00Z","pad":"{}"}}"#, "x".repeat(5000)).into_bytes()),
    ]
}

/// What lands and does not fit the columns: the JSON path of the culprit, and the record.
fn misfits() -> Vec<(&'static str, String)> {
    let record = |n: &str, pad: &str| format!(r#"{{"n":{n},"at":"2024-05-01T00:00:00Z","pad":{pad}}}"#);
    vec![
        ("$.n", record(r#""seven""#, r#""""#)),
        ("$.n", record("1.5", r#""""#)),
        ("$.n", record("9223372036854775808", r#""""#)),
        ("$.n", record("null", r#""""#)),
        ("$.n", record("[1]", r#""""#)),
        ("$.n", r#"{"at":"2024-05-01T00:00:00Z"}"#.to_owned()),
        ("$.pad", record("1", r#"{"a":1}"#)),
    ]
}

#[test]
fn every_broken_record_is_in_quarantine_with_its_reason() {
    let mut rng = seeded("every_broken_record");
    let (mut ticks, workspace) = Ticks::local("bad", Kafka::shared(), 1).unwrap();
    let pipeline = workspace.dir().join("pipelines/ticks.yaml");
    let text = std::fs::read_to_string(&pipeline).unwrap();
    std::fs::write(&pipeline, text.replace("    format: json\n", "    format: json\n    maxRecordSize: 4KiB\n"))
        .unwrap();

    let mut records = ticks.next(50, &mut rng);
    records.extend(refused().into_iter().map(|(_, payload)| Record::of(payload)));
    records.extend(misfits().into_iter().map(|(_, payload)| Record::of(payload)));
    records.push(Record { key: Some(b"k".to_vec()), ..Record::default() });
    records.extend(ticks.next(50, &mut rng));
    ticks.kafka.produce(&ticks.topic, records).unwrap();
    ticks.settle(&workspace).unwrap();

    let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
    for (reason, _) in refused() {
        *expected.entry(reason).or_default() += 1;
    }
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    let mut tombstones = 0;
    workspace
        .manifests(&ticks.topic, 1, |manifest| {
            for (reason, count) in manifest["rejects"].as_object().into_iter().flatten() {
                *found.entry(reason.clone()).or_default() += count.as_u64().unwrap();
            }
            let objects = manifest["objects"].as_array().unwrap();
            tombstones += objects.iter().map(|o| o["tombstones"].as_u64().unwrap_or(0)).sum::<u64>();
        })
        .unwrap();
    assert_eq!(json!(found), json!(expected));
    assert_eq!(tombstones, 1);

    let quarantine = format!("{TABLE}_quarantine");
    let sql = "SELECT json_path, decode(payload) FROM t ORDER BY _firn.\"offset\"";
    let rows = workspace.access().duckdb(&quarantine, sql).unwrap();
    let expected: Vec<Vec<Value>> = misfits().into_iter().map(|(path, raw)| vec![json!(path), json!(raw)]).collect();
    assert_eq!(rows, expected, "the quarantine table holds path and bytes of every misfit");
}

#[test]
fn a_corrupt_raw_object_stops_its_run_and_is_named() {
    let mut rng = seeded("a_corrupt_raw_object");
    let (mut ticks, workspace) = Ticks::local("corrupt", Kafka::shared(), 1).unwrap();
    ticks.produce(100, &mut rng).unwrap();
    workspace.land().unwrap();
    let mut object = String::new();
    let note = |manifest: &Value| object = manifest["objects"][0]["key"].as_str().unwrap().to_owned();
    workspace.manifests(&ticks.topic, 1, note).unwrap();
    let path = workspace.dir().join("raw").join(&object);
    let whole = std::fs::read(&path).unwrap();
    let mut broken = whole.clone();
    let middle = broken.len() / 2;
    broken[middle] ^= 0x40;
    for bytes in [&broken[..], &whole[..whole.len() - 1], &[]] {
        overwrite(&path, bytes);
        let ended = workspace.compactor(&["run"]).unwrap();
        assert_eq!(ended.code, Some(3), "{ended:?}");
        assert!(ended.stderr.contains(&object), "{}", ended.stderr);
    }
    let rows = workspace
        .access()
        .metadata(TABLE)
        .unwrap()
        .map(|_| workspace.access().number(TABLE, "SELECT count(*) FROM t").unwrap());
    assert_eq!(rows.unwrap_or(0), 0, "nothing was committed");
    overwrite(&path, &whole);
    ticks.settle(&workspace).unwrap();
}

fn overwrite(path: &std::path::Path, bytes: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}
