//! What lands where.

use firn_shared::raw::manifest::RejectReason;

use crate::support::{Kafka, Produced, assert_all, config, event, events, land, landed, raw_zone};

#[tokio::test(flavor = "multi_thread")]
async fn every_record_lands_once_in_the_object_of_its_hour() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = Kafka::start("t", 3);
    let mut produced = events(500, 3, 5);
    kafka.produce("t", &produced);
    let config = config(dir.path(), &kafka.brokers(), "t", "", "{size: 16KiB, age: 5m}");
    let store = raw_zone(dir.path());

    let summary = land(&config, store.clone()).await.unwrap();
    assert_eq!(summary.pipelines["p"].records, 500);
    let first = landed(&store, "t", 3).await;
    assert_all(&first, &produced);
    for ((_, _), (hour, payload)) in &first.records {
        let payload: serde_json::Value = serde_json::from_slice(payload.as_ref().unwrap()).unwrap();
        assert!(payload["at"].as_str().unwrap().starts_with(hour.as_str()), "{hour}: {payload}");
    }

    // Again, with nothing new and then with more: the chain goes on where it ended.
    assert_eq!(land(&config, store.clone()).await.unwrap().pipelines["p"].batches, 0);
    let more = events(100, 3, 2);
    kafka.produce("t", &more);
    assert_eq!(land(&config, store.clone()).await.unwrap().pipelines["p"].records, 100);
    produced.extend(more);
    assert_all(&landed(&store, "t", 3).await, &produced);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_records_are_kept_with_their_reason_and_tombstones_land() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = Kafka::start("t", 1);
    let ok = |name: &str| format!("{{\"at\":\"2026-11-22T07:00:00Z\",\"type\":\"{name}\"}}");
    let cases: Vec<(Produced, Option<RejectReason>)> = vec![
        (event(0, ok("A")), None),
        (event(0, b"\xff\xfe".to_vec()), Some(RejectReason::NotUtf8)),
        (event(0, "{\"at\":"), Some(RejectReason::NotJson)),
        (event(0, "{\"type\":\"A\"}"), Some(RejectReason::NoEventTime)),
        (event(0, "{\"at\":\"yesterday\",\"type\":\"A\"}"), Some(RejectReason::BadEventTime)),
        (event(0, ok("B")), Some(RejectReason::NotWhitelisted)),
        (event(0, ok(&"A".repeat(2000))), Some(RejectReason::TooLarge)),
        (event(0, "{\"at\":\"2026-11-22T01:00:00Z\",\"type\":\"A\"}"), Some(RejectReason::TooLate)),
        (Produced { payload: None, ..event(0, "") }, None),
        (Produced { headers: vec![("h".into(), b"v".to_vec())], key: None, ..event(0, ok("A")) }, None),
    ];
    let produced: Vec<_> = cases.iter().map(|(record, _)| record.clone()).collect();
    kafka.produce("t", &produced);
    let rules = "    eventName: $.type\n    whitelist: {A: {}}\n    late: {allowed: 1h, then: quarantine}\n    maxRecordSize: 1KiB\n";
    let config = config(dir.path(), &kafka.brokers(), "t", rules, "{size: 1MiB, age: 5m}");
    let store = raw_zone(dir.path());
    land(&config, store.clone()).await.unwrap();

    let landed = landed(&store, "t", 1).await;
    assert_all(&landed, &produced);
    for (offset, (_, reason)) in cases.iter().enumerate() {
        assert_eq!(landed.refused.get(&(0, offset as u64)), reason.as_ref(), "offset {offset}");
    }
    // The tombstone lies in the hour of Kafka's timestamp.
    assert_eq!(landed.records[&(0, 8)].0, "2023-11-14T22");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_finds_its_topics_and_leaves_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = Kafka::start("a.one", 1);
    kafka.produce("a.one", &events(10, 1, 1));
    kafka.produce("a.two", &events(20, 1, 1));
    kafka.produce("b", &events(30, 1, 1));
    let config = config(dir.path(), &kafka.brokers(), "{regex: 'a\\..*'}", "", "{size: 1MiB, age: 5m}");
    let store = raw_zone(dir.path());
    let summary = land(&config, store.clone()).await.unwrap();
    assert_eq!(summary.pipelines["p"].records, 30);
    assert_eq!(landed(&store, "b", 1).await.manifests.len(), 0);
}
