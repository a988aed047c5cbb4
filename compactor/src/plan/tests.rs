use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use firn_shared::config::domain::{EventTime, Ingestion, LateThen, TopicSelector};
use firn_shared::error::ErrorKind;
use firn_shared::ids::{Generation, Offset, Topic, TopicRef};
use firn_shared::raw::chain::{AppendOutcome, Chain};
use firn_shared::raw::manifest::{BatchManifest, MANIFEST_VERSION, RejectReason};
use firn_shared::raw::progress::{self, PartitionState, Progress};
use firn_shared::store::{LocalStore, Store};
use proptest::prelude::*;

use super::read::{Bounds, plan};
use super::*;

pub(crate) fn topic() -> TopicRef {
    "events/t/1".parse().unwrap()
}

fn partition(number: u32) -> PartitionRef {
    PartitionRef { topic: topic(), partition: Partition(number) }
}

/// What a batch holds: records per hour, then rejects and absent offsets.
#[derive(Debug, Clone)]
struct Content {
    hours: Vec<(u8, u64)>,
    rejects: u64,
    absent: u64,
}

fn manifest(partition: u32, start: Offset, content: &Content) -> BatchManifest {
    let mut at = start;
    let object = |hour: Option<u8>, records: u64, at: &mut Offset| {
        *at += records;
        RawObject {
            key: format!("{partition}/{}-{hour:?}", *at),
            event_hour: hour.map(|hour| EventHour::from_epoch_hours(i64::from(hour))),
            records,
            tombstones: records / 3,
            bytes: records * 10,
            raw_bytes: records * 100,
            blake3: String::new(),
            min_offset: *at - records,
            max_offset: *at - 1,
            min_event_time: None,
            max_event_time: None,
            erased: 0,
        }
    };
    let objects: Vec<_> = content.hours.iter().map(|&(hour, records)| object(Some(hour), records, &mut at)).collect();
    let quarantine: Vec<_> =
        (content.rejects > 0).then(|| object(None, content.rejects, &mut at)).into_iter().collect();
    BatchManifest {
        version: MANIFEST_VERSION,
        topic: topic(),
        topic_id: None,
        partition: Partition(partition),
        range: OffsetRange::new(start, at + content.absent).unwrap(),
        writer: "w".into(),
        written_at: DateTime::UNIX_EPOCH,
        objects,
        quarantine,
        rejects: (content.rejects > 0).then_some((RejectReason::NotJson, content.rejects)).into_iter().collect(),
        absent: content.absent,
        gap: None,
        watermark: None,
        caught_up_at: None,
    }
}

struct Zone {
    store: Arc<dyn Store>,
    _dir: tempfile::TempDir,
}

impl Zone {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { store: Arc::new(LocalStore::new(dir.path()).unwrap()), _dir: dir }
    }

    /// Appends batches to a partition and returns the chain's end.
    async fn land(&self, number: u32, batches: &[Content]) -> Offset {
        let mut chain = Chain::new(Arc::clone(&self.store), partition(number));
        let mut at = chain.end_after(None).await.unwrap().map_or(0, |end| end.end);
        for content in batches {
            let manifest = manifest(number, at, content);
            at = manifest.range.end();
            assert_eq!(chain.append(&manifest).await.unwrap(), AppendOutcome::Appended);
        }
        at
    }

    async fn plan(&self, position: &Position, scope: Scope, bounds: Bounds) -> firn_shared::error::Result<Plan> {
        plan(&self.store, &[topic()], (Some(7), position.clone()), scope, bounds).await
    }
}

fn at(positions: &[(u32, Offset)]) -> Position {
    let mut position = Position::start();
    for &(number, offset) in positions {
        position.advance(&partition(number), offset).unwrap();
    }
    position
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

const ALL: Bounds = Bounds { slice_raw_bytes_max: 1000, run_raw_bytes_max: None };

fn contents() -> impl Strategy<Value = Vec<Content>> {
    let content = (prop::collection::vec((0u8..6, 1u64..8), 0..3), 0u64..3, 0u64..3)
        .prop_filter("never empty", |(hours, rejects, absent)| !hours.is_empty() || rejects + absent > 0)
        .prop_map(|(hours, rejects, absent)| Content { hours, rejects, absent });
    prop::collection::vec(content, 0..5)
}

/// Every offset of a plan is in exactly one slice's object or one of the ledger's counts.
fn check_coverage(plan: &Plan) {
    let mut records: BTreeMap<PartitionRef, Vec<(Offset, Offset)>> = BTreeMap::new();
    for object in plan.slices.iter().flat_map(|slice| &slice.objects) {
        records.entry(object.partition_ref()).or_default().push((object.object.min_offset, object.object.max_offset));
    }
    for ranges in records.values_mut() {
        ranges.sort_unstable();
        assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0), "an offset is in two objects");
    }
    for ledger in &plan.ledger {
        let partition = PartitionRef { topic: ledger.topic.clone(), partition: ledger.partition };
        let in_objects: u64 = records.remove(&partition).unwrap_or_default().iter().map(|(a, b)| b - a + 1).sum();
        let totals = &ledger.totals;
        let counted = totals.rejected.values().sum::<u64>() + totals.absent + totals.gaps;
        assert_eq!(in_objects + counted, ledger.range.len(), "{partition}");
        assert_eq!(plan.from.get(&partition).unwrap_or(0), ledger.range.start());
        assert_eq!(plan.to.get(&partition), Some(ledger.range.end()));
        assert_eq!(totals.offsets(), ledger.range.len());
    }
    assert!(records.is_empty(), "objects of partitions that the plan does not move");
    assert!(plan.to.is_at_or_after(&plan.from));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn runs_one_after_another_take_every_offset_once(
        first in prop::collection::vec(contents(), 3),
        second in prop::collection::vec(contents(), 3),
        run_max in prop::option::of(1u64..3000),
    ) {
        run(async {
            let zone = Zone::new();
            let bounds = Bounds { run_raw_bytes_max: run_max, ..ALL };
            let (mut position, mut taken) = (Position::start(), 0);
            let mut ends = [0; 3];
            for landed in [first, second] {
                for (number, batches) in (0..).zip(&landed) {
                    ends[number as usize] = zone.land(number, batches).await;
                }
                // With a bound on a run, several runs are needed; each one moves on.
                loop {
                    let plan = zone.plan(&position, Scope::New, bounds).await.unwrap();
                    check_coverage(&plan);
                    assert!(plan.slices.iter().all(|s| s.objects.len() == 1 || s.raw_bytes() <= bounds.slice_raw_bytes_max));
                    assert!((0..).zip(&plan.slices).all(|(number, slice)| slice.number == number));
                    taken += plan.ledger.iter().map(|l| l.range.len()).sum::<u64>();
                    if plan.is_empty() {
                        break;
                    }
                    assert!(plan.from != plan.to);
                    position = plan.to;
                }
            }
            assert_eq!(taken, ends.iter().sum::<u64>());
            let reached: Vec<_> = (0..3).map(|number| position.get(&partition(number)).unwrap_or(0)).collect();
            assert_eq!(reached, ends);
        });
    }

    #[test]
    fn reprocessing_takes_all_objects_of_its_hours_below_the_position_and_no_other(
        landed in prop::collection::vec(contents(), 2),
        later in prop::collection::vec(contents(), 2),
        from in 0u8..6,
        len in 1u8..4,
    ) {
        run(async {
            let zone = Zone::new();
            for (number, batches) in (0..).zip(&landed) {
                zone.land(number, batches).await;
            }
            let position = zone.plan(&Position::start(), Scope::New, ALL).await.unwrap().to;
            for (number, batches) in (0..).zip(&later) {
                zone.land(number, batches).await;
            }
            let hour = |hour: u8| EventHour::from_epoch_hours(i64::from(hour));
            let scope = Scope::Hours { from: hour(from), to: hour(from + len) };
            let plan = zone.plan(&position, scope, ALL).await.unwrap();
            assert_eq!((&plan.from, &plan.to, plan.ledger.len()), (&position, &position, 0));
            let expected: u64 = landed.iter().flatten().flat_map(|c| &c.hours)
                .filter(|(hour, _)| (from..from + len).contains(hour)).map(|(_, records)| records).sum();
            assert_eq!(plan.records(), expected);
        });
    }
}

fn content(hour: u8, records: u64) -> Content {
    Content { hours: vec![(hour, records)], rejects: 0, absent: 0 }
}

#[test]
fn slices_are_cut_along_event_hours() {
    run(async {
        let zone = Zone::new();
        zone.land(0, &[content(1, 4), content(0, 4), content(1, 4)]).await;
        zone.land(1, &[content(0, 4), content(1, 20)]).await;
        let plan = zone.plan(&Position::start(), Scope::New, ALL).await.unwrap();
        let shape: Vec<Vec<_>> = plan
            .slices
            .iter()
            .map(|s| s.objects.iter().map(|o| (o.object.event_hour.unwrap().epoch_hours(), o.partition.0)).collect())
            .collect();
        assert_eq!(shape, [vec![(0, 0), (0, 1)], vec![(1, 0), (1, 0)], vec![(1, 1)]]);
        assert_eq!(plan.base_snapshot, Some(7));
        let json = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
    });
}

#[test]
fn a_position_that_does_not_fit_the_ledger_is_an_error_that_names_both() {
    run(async {
        let zone = Zone::new();
        zone.land(0, &[content(0, 5), content(0, 5)]).await;
        let hours = Scope::Hours { from: EventHour::from_epoch_hours(0), to: EventHour::from_epoch_hours(1) };
        for scope in [Scope::New, hours] {
            for (position, expected) in [
                (at(&[(0, 7)]), "events/t/1[0]: the table's position 7 lies inside batch 5..10"),
                (at(&[(0, 11)]), "events/t/1[0]: the table has read up to offset 11, but the ledger ends at 10"),
                (at(&[(3, 1)]), "events/t/1[3]: the table has read up to offset 1, but the ledger ends at 0"),
            ] {
                let error = zone.plan(&position, scope, ALL).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Data);
                assert!(error.to_string().contains(expected), "{error}");
            }
        }
        let backwards = Scope::Hours { from: EventHour::from_epoch_hours(1), to: EventHour::from_epoch_hours(1) };
        assert_eq!(zone.plan(&Position::start(), backwards, ALL).await.unwrap_err().kind(), ErrorKind::Config);
        let other: TopicRef = "events/other/1".parse().unwrap();
        let none = plan(&zone.store, &[other], (None, at(&[(0, 10)])), Scope::New, ALL).await.unwrap();
        assert!(none.is_empty(), "a topic that is no longer read keeps its position");
    });
}

fn ingestion(topics: TopicSelector, generation: u32) -> Ingestion {
    let names = ["t", "tt", "later"];
    Ingestion {
        cluster: topic().cluster,
        topics,
        retention: None,
        consumers: 1,
        generation: names.map(|name| (Topic::new(name).unwrap(), Generation(generation))).into_iter().collect(),
        format: firn_shared::config::domain::PayloadFormat::Json,
        event_name: None,
        event_time: EventTime::KafkaTimestamp,
        whitelist: None,
        late_allowed: Duration::ZERO,
        late_then: LateThen::Accept,
        max_record_bytes: 1,
        rotate_size: 1,
        rotate_age: Duration::ZERO,
        protect_at_landing: false,
    }
}

#[test]
fn topics_are_read_in_every_generation_up_to_the_configured_one() {
    let pattern = |pattern: &str| TopicSelector::Pattern(pattern.into());
    run(async {
        let zone = Zone::new();
        for name in ["events/t/1", "events/t/2", "events/tt/1", "other/t/1"] {
            let progress = Progress::default();
            let partition = PartitionRef { topic: name.parse().unwrap(), partition: Partition(0) };
            progress::write(&*zone.store, &partition, &progress).await.unwrap();
        }
        for (selector, generation, expected) in [
            (TopicSelector::List(vec![topic().topic]), 1, vec!["events/t/1"]),
            (TopicSelector::List(vec![topic().topic]), 3, vec!["events/t/1", "events/t/2"]),
            (pattern("t"), 1, vec!["events/t/1"]),
            (pattern("t|tt"), 1, vec!["events/t/1", "events/tt/1"]),
            (pattern("x.*"), 1, vec![]),
        ] {
            let found = read::topics(&*zone.store, &ingestion(selector, generation)).await.unwrap();
            assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        }
        let error = read::topics(&*zone.store, &ingestion(pattern("("), 1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    });
}

#[test]
fn a_date_is_sealed_when_its_last_hour_is_and_else_says_who_is_behind() {
    let date = "2026-11-22".parse().unwrap();
    let time = |text: &str| -> Option<DateTime<Utc>> { Some(text.parse().unwrap()) };
    let state = |watermark: &str| PartitionState { watermark: time(watermark), caught_up_at: None };
    let late = Duration::from_hours(1);
    let decide = |states: &[PartitionState]| {
        let states = (0..).zip(states).map(|(number, &state)| (partition(number), state)).collect();
        seal::decide(date, late, &states).unwrap()
    };
    assert!(decide(&[state("2026-11-23T01:00:00Z")]).is_sealed());
    assert!(!decide(&[]).is_sealed());
    let open = decide(&[state("2026-11-23T01:00:00Z"), state("2026-11-22T23:59:00Z")]);
    assert!(!open.is_sealed());
    assert_eq!(
        open.to_string(),
        "2026-11-22 is open in 1 of 2 partitions\n  events/t/1[1] from hour 2026-11-22T22 on: its watermark is \
         2026-11-22T23:59:00Z and it had read everything at never; either must reach 2026-11-23T00:00:00Z"
    );
}

#[test]
fn an_idle_partition_seals_through_its_progress() {
    run(async {
        let zone = Zone::new();
        zone.land(0, &[content(0, 5)]).await;
        let date = "2026-11-22".parse().unwrap();
        let time = |text: &str| -> Option<DateTime<Utc>> { Some(text.parse().unwrap()) };
        let seal = async || seal::date(&zone.store, &[topic()], date, Duration::ZERO).await.unwrap();
        assert_eq!((seal().await.is_sealed(), seal().await.partitions), (false, 1));
        let progress = Progress { end: 5, caught_up_at: time("2026-11-23T00:00:00Z"), ..Progress::default() };
        progress::write(&*zone.store, &partition(0), &progress).await.unwrap();
        assert!(seal().await.is_sealed());
        // A second partition without any record is asked too.
        let behind = Progress { end: 0, caught_up_at: time("2026-11-22T12:00:00Z"), ..Progress::default() };
        progress::write(&*zone.store, &partition(1), &behind).await.unwrap();
        let open = seal().await;
        assert_eq!((open.is_sealed(), open.partitions, open.open.len()), (false, 2, 1));
        // And a third one that landing knows of and has not read yet.
        progress::write(&*zone.store, &partition(1), &progress).await.unwrap();
        progress::trace(&zone.store, &topic(), &[Partition(0), Partition(2)].into()).await.unwrap();
        let open = seal().await;
        assert_eq!(open.partitions, 3);
        assert_eq!(open.open.keys().map(|open| open.partition).collect::<Vec<_>>(), [Partition(2)]);
    });
}

#[test]
fn a_date_asks_the_topics_of_today_and_those_that_have_brought_nothing() {
    let (date, late) = ("2026-11-22".parse().unwrap(), Duration::ZERO);
    let list = |names: &[&str]| TopicSelector::List(names.iter().map(|name| Topic::new(*name).unwrap()).collect());
    let progress = |caught_up_at: DateTime<Utc>| Progress { caught_up_at: Some(caught_up_at), ..Progress::default() };
    let done = progress("2026-11-23T00:00:00Z".parse().unwrap());
    run(async {
        let zone = Zone::new();
        let write = async |topic: &str, progress: &Progress| {
            let partition = PartitionRef { topic: topic.parse().unwrap(), partition: Partition(0) };
            progress::write(&*zone.store, &partition, progress).await.unwrap();
        };
        let seal = async |selector: TopicSelector, generation: u32| {
            let topics = read::topics_to_seal(&*zone.store, &ingestion(selector, generation)).await.unwrap();
            seal::date(&zone.store, &topics, date, late).await.unwrap()
        };
        // An old generation whose watermark nobody moves any more.
        zone.land(0, &[content(0, 5)]).await;
        assert!(!seal(list(&["t"]), 1).await.is_sealed());
        write("events/t/2", &done).await;
        for selector in [list(&["t"]), TopicSelector::Pattern("t".into())] {
            let sealed = seal(selector, 2).await;
            assert!(sealed.is_sealed() && sealed.partitions == 1, "{sealed}");
        }
        // A topic that the pipeline names and that has brought nothing.
        let open = seal(list(&["t", "later"]), 2).await;
        assert!(!open.is_sealed());
        assert!(open.to_string().contains("events/later/2: nothing of it has been landed yet"), "{open}");
        // One that is read and has no batch yet.
        write("events/later/2", &progress(DateTime::UNIX_EPOCH)).await;
        let open = seal(list(&["t", "later"]), 2).await;
        assert_eq!((open.is_sealed(), open.partitions, open.open.len()), (false, 2, 1), "{open}");
        write("events/later/2", &done).await;
        assert!(seal(list(&["t", "later"]), 2).await.is_sealed());
    });
}

#[test]
fn a_raw_zone_that_lost_a_topic_of_the_table_is_an_error_and_a_topic_that_is_not_read_is_left_alone() {
    run(async {
        let zone = Zone::new();
        let position = at(&[(0, 10)]);
        let hours = Scope::Hours { from: EventHour::from_epoch_hours(0), to: EventHour::from_epoch_hours(1) };
        let list = |name: &str| TopicSelector::List(vec![Topic::new(name).unwrap()]);
        let of = async |selector, generation| {
            read::topics_of(&*zone.store, &ingestion(selector, generation), &position).await.unwrap()
        };
        for selector in [list("t"), TopicSelector::Pattern("t+".into())] {
            let topics = of(selector, 1).await;
            assert_eq!(topics, [topic()]);
            for scope in [Scope::New, hours] {
                let error = plan(&zone.store, &topics, (None, position.clone()), scope, ALL).await.unwrap_err();
                assert!(error.kind() == ErrorKind::Data && error.to_string().contains("events/t/1[0]"), "{error}");
            }
        }
        for (selector, generation) in [(list("other"), 1), (TopicSelector::Pattern("o.*".into()), 1), (list("t"), 2)] {
            let topics = of(selector, generation).await;
            assert!(topics.is_empty());
            let plan = plan(&zone.store, &topics, (None, position.clone()), hours, ALL).await.unwrap();
            assert_eq!((plan.since, plan.slices.len()), (position.clone(), 0));
        }
    });
}
