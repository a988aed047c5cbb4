//! What lands where.

use std::collections::BTreeMap;

use chrono::DateTime;
use firn_shared::error::ErrorKind;
use firn_shared::ids::{OffsetRange, Partition, PartitionRef};
use firn_shared::raw::chain::Chain;
use firn_shared::raw::manifest::{BatchManifest, GapReason, MANIFEST_VERSION, RejectReason};

use crate::support::{
    Header, Kafka, Produced, assert_all, config, configured, event, events, land, landed, pipeline, raw_zone,
};

fn header(name: &str, value: &[u8]) -> Header {
    (name.into(), Some(value.to_vec()))
}

/// A manifest of nothing but a gap.
fn gap(partition: &PartitionRef, start: u64, end: u64, topic_id: &str) -> BatchManifest {
    BatchManifest {
        version: MANIFEST_VERSION,
        topic: partition.topic.clone(),
        topic_id: Some(topic_id.to_owned()),
        partition: partition.partition,
        range: OffsetRange::new(start, end).unwrap(),
        writer: "w".to_owned(),
        written_at: DateTime::UNIX_EPOCH,
        objects: Vec::new(),
        quarantine: Vec::new(),
        rejects: BTreeMap::new(),
        absent: 0,
        gap: Some(GapReason::Expired),
        watermark: None,
        caught_up_at: None,
    }
}

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
    let ok = |name: &str| format!("{{\"at\":\"2021-11-22T07:00:00Z\",\"type\":\"{name}\"}}");
    let cases: Vec<(Produced, Option<RejectReason>)> = vec![
        (event(0, ok("A")), None),
        (event(0, b"\xff\xfe".to_vec()), Some(RejectReason::NotUtf8)),
        (event(0, "{\"at\":"), Some(RejectReason::NotJson)),
        (event(0, "{\"type\":\"A\"}"), Some(RejectReason::NoEventTime)),
        (event(0, "{\"at\":\"yesterday\",\"type\":\"A\"}"), Some(RejectReason::BadEventTime)),
        (event(0, ok("B")), Some(RejectReason::NotWhitelisted)),
        (event(0, ok(&"A".repeat(2000))), Some(RejectReason::TooLarge)),
        (event(0, "{\"at\":\"2021-11-22T01:00:00Z\",\"type\":\"A\"}"), Some(RejectReason::TooLate)),
        (Produced { payload: None, ..event(0, "") }, None),
        (Produced { headers: vec![header("h", b"v")], key: None, ..event(0, ok("A")) }, None),
        (Produced { key: Some(vec![0xff; 1000]), ..event(0, ok("A")) }, Some(RejectReason::TooLarge)),
        (Produced { headers: vec![header("h", &[0xff; 1000])], ..event(0, ok("A")) }, Some(RejectReason::TooLarge)),
        (Produced { payload: None, key: Some(vec![b'k'; 1025]), ..event(0, "") }, Some(RejectReason::TooLarge)),
        (event(0, "{"), Some(RejectReason::NotJson)),
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
async fn keys_and_headers_land_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = Kafka::start("t", 1);
    let headers = [
        vec![header("a", b"1"), header("a", b"2"), header("", b"")],
        vec![("n".into(), None), header("b", b"\xff\0\n\"")],
        vec![header("\u{fc}\n\"", b"{}")],
    ];
    let keys = [Some(b"k".to_vec()), Some(Vec::new()), Some(b"\xfe\0".to_vec()), None];
    let one = |(headers, key): (&Vec<Header>, &Option<Vec<u8>>)| Produced {
        headers: headers.clone(),
        key: key.clone(),
        ..event(0, "{\"at\":\"2026-11-22T07:00:00Z\"}")
    };
    let produced: Vec<_> =
        headers.iter().flat_map(|headers| keys.iter().map(move |key| (headers, key))).map(one).collect();
    kafka.produce("t", &produced);
    let config = config(dir.path(), &kafka.brokers(), "t", "", "{size: 1MiB, age: 5m}");
    let store = raw_zone(dir.path());
    land(&config, store.clone()).await.unwrap();
    let landed = landed(&store, "t", 1).await;
    assert_all(&landed, &produced);
    assert_eq!(landed.records.len(), produced.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_whose_name_is_no_text_is_refused_and_stalls_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = Kafka::start("t", 1);
    let ok = || event(0, "{\"at\":\"2026-11-22T07:00:00Z\"}");
    let named =
        |name: &[u8]| Produced { headers: vec![header("h", b"v"), (name.to_vec(), Some(b"v".to_vec()))], ..ok() };
    let produced = [named(b"ok"), named(b"\xff\xfea"), named(b"zero\0behind"), ok()];
    kafka.produce("t", &produced);
    let config = config(dir.path(), &kafka.brokers(), "t", "", "{size: 1MiB, age: 5m}");
    let store = raw_zone(dir.path());
    land(&config, store.clone()).await.unwrap();
    let landed = landed(&store, "t", 1).await;
    assert_all(&landed, &produced);
    assert_eq!(landed.refused, [1, 2].map(|offset| ((0, offset), RejectReason::BadHeader)).into());
    assert_eq!(landed.details[&(0, 1)], "the name of header 1 is not UTF-8: \\xff\\xfea");
    assert_eq!(landed.details[&(0, 2)], "the name of header 1 has a zero in it, after `zero`");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_id_that_is_known_once_is_in_every_later_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = Kafka::start("t", 1);
    let config = config(dir.path(), &kafka.brokers(), "t", "", "{size: 1MiB, age: 5m}");
    let store = raw_zone(dir.path());
    for round in 0..3 {
        kafka.produce("t", &events(10, 1, 1));
        if round == 0 {
            // As a broker that tells ids leaves it; this one never answers the question.
            let partition = PartitionRef { topic: "c/t/1".parse().unwrap(), partition: Partition(0) };
            let mut chain = Chain::new(store.clone(), partition.clone());
            chain.end_after(None).await.unwrap();
            let _ = chain.append(&gap(&partition, 0, 10, "A")).await.unwrap();
        }
        land(&config, store.clone()).await.unwrap();
    }
    let landed = landed(&store, "t", 1).await;
    assert_eq!(landed.manifests.len(), 3);
    assert!(
        landed.manifests.iter().all(|manifest| manifest.topic_id.as_deref() == Some("A")),
        "{:?}",
        landed.manifests
    );
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

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_two_patterns_match_lands_once_and_the_second_pipeline_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = Kafka::start("a", 1);
    let produced = [("a", 10), ("b", 20), ("c", 30)].map(|(topic, count)| (topic, events(count, 1, 1)));
    for (topic, records) in &produced {
        kafka.produce(topic, records);
    }
    let of = |name, topics| pipeline(name, topics, "", "{size: 1MiB, age: 5m}");
    let pipelines = [of("p", "{regex: 'a|b'}"), of("q", "{regex: 'b|c'}")];
    let config = configured(dir.path(), &kafka.brokers(), &pipelines.each_ref().map(String::as_str));
    let store = raw_zone(dir.path());
    let error = land(&config, store.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.to_string().starts_with("topic b is read by pipeline p already, and pipeline q leaves it out"),
        "{error}"
    );
    for (topic, records) in &produced {
        assert_all(&landed(&store, topic, 1).await, records);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_cannot_be_opened_keeps_no_other_pipeline_from_landing() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = Kafka::start("a", 1);
    let produced = events(10, 1, 1);
    kafka.produce("a", &produced);
    kafka.produce("b", &produced);
    let sealed = pipeline("a", "a", "", "{size: 1MiB, age: 5m}")
        .replace("  raw:", "  protectAt: landing\n  raw:")
        .replace("columns: [", "piiColumns: [{name: mail, protect: encrypt}], columns: [{name: mail, type: string}, ");
    let open = pipeline("b", "b", "", "{size: 1MiB, age: 5m}");
    // Nobody has made the file of the key.
    let config = configured(dir.path(), &kafka.brokers(), &[&sealed, &open]);
    let store = raw_zone(dir.path());
    let error = land(&config, store.clone()).await.unwrap_err();
    assert!(error.to_string().contains("keys.yaml"), "{error}");
    assert_all(&landed(&store, "b", 1).await, &produced);
    assert_eq!(landed(&store, "a", 1).await.manifests.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_from_the_year_55840_goes_to_quarantine_and_a_record_from_the_future_ages_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = Kafka::start("t", 1);
    let at = |at: &str| event(0, format!("{{\"at\":\"{at}\"}}"));
    let micros = Produced { payload: None, timestamp: 1_700_000_000_000_000, ..event(0, "") };
    // Kafka has them all from 2023-11-14, 22:13: the second one's clock is months ahead, and the third is not late for it.
    let produced = [micros, at("2024-03-01T00:00:00Z"), at("2023-11-14T21:30:00Z"), at("2023-11-14T20:59:59Z")];
    kafka.produce("t", &produced);
    let rules = "    late: {allowed: 1h, then: quarantine}\n";
    let config = config(dir.path(), &kafka.brokers(), "t", rules, "{size: 1MiB, age: 5m}");
    let store = raw_zone(dir.path());
    land(&config, store.clone()).await.unwrap();
    let landed = landed(&store, "t", 1).await;
    assert_all(&landed, &produced);
    let refused = [(0, RejectReason::BadEventTime), (3, RejectReason::TooLate)];
    assert_eq!(landed.refused, refused.map(|(offset, reason)| ((0, offset), reason)).into());
    assert_eq!(landed.manifests.last().unwrap().watermark, DateTime::from_timestamp(1_700_000_000, 0));
}
