use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use chrono::DateTime;
use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;
use crate::ids::{EventHour, OffsetRange, Partition};
use crate::raw::key::{CheckpointKey, Ledger, partition_prefix};
use crate::raw::manifest::{GapReason, MANIFEST_VERSION, RawObject};
use crate::store::{Depth, Fault, Faults, LocalStore};

fn partition() -> PartitionRef {
    PartitionRef { topic: "events/t/1".parse().unwrap(), partition: Partition(0) }
}

fn manifest(start: Offset, len: u64, writer: &str) -> BatchManifest {
    BatchManifest {
        version: MANIFEST_VERSION,
        topic: partition().topic,
        topic_id: Some("id".into()),
        partition: Partition(0),
        range: OffsetRange::new(start, start + len).unwrap(),
        writer: writer.into(),
        written_at: DateTime::UNIX_EPOCH,
        objects: vec![],
        quarantine: vec![],
        rejects: BTreeMap::default(),
        absent: len,
        gap: None,
        watermark: DateTime::from_timestamp((start + len) as i64, 0),
        caught_up_at: None,
    }
}

fn object() -> RawObject {
    RawObject {
        key: "k".into(),
        event_hour: None,
        records: 1,
        tombstones: 0,
        bytes: 1,
        raw_bytes: 1,
        blake3: String::new(),
        min_offset: 0,
        max_offset: 0,
        min_event_time: None,
        max_event_time: None,
        erased: 0,
    }
}

/// A raw zone that disappears with the test, and chains in it that fold every four manifests.
struct Zone {
    store: Arc<dyn Store>,
    _dir: tempfile::TempDir,
}

impl Zone {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { store: Arc::new(LocalStore::new(dir.path()).unwrap()), _dir: dir }
    }

    fn chain(&self) -> Chain {
        Self::over(Arc::clone(&self.store))
    }

    fn over(store: Arc<dyn Store>) -> Chain {
        Chain { fold_size: 4, ..Chain::new(store, partition()) }
    }

    /// A chain of batches of these lengths, folded after those batches.
    async fn with(lengths: &[u64], folds: &[usize]) -> Self {
        let zone = Self::new();
        let mut chain = zone.chain();
        let mut at = chain.end_after(None).await.unwrap().map_or(0, |end| end.end);
        for (number, &len) in lengths.iter().enumerate() {
            assert_eq!(chain.append(&manifest(at, len, "w")).await.unwrap(), AppendOutcome::Appended);
            at += len;
            if folds.contains(&number) {
                chain.fold().await.unwrap();
            }
        }
        zone
    }

    async fn keys(&self, kind: Ledger) -> Vec<String> {
        let page = self.store.list(&partition_prefix(&partition(), kind), None, Depth::All).await.unwrap();
        page.objects.into_iter().map(|object| object.key).collect()
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_end_is_right_whatever_the_hint_and_reading_gives_what_was_written(
        lengths in prop::collection::vec(1u64..100, 0..15),
        folds in prop::collection::vec(0usize..15, 0..3),
        hints in prop::collection::vec(0u64..3000, 4),
        froms in prop::collection::vec(0u64..1500, 4),
    ) {
        run(async {
            let zone = Zone::with(&lengths, &folds).await;
            let total: u64 = lengths.iter().sum();
            for hint in [None, Some(total), Some(u64::MAX)].into_iter().chain(hints.into_iter().map(Some)) {
                let end = zone.chain().end_after(hint).await.unwrap();
                let expected = DateTime::from_timestamp(total as i64, 0);
                assert_eq!(end.as_ref().map(|e| (e.end, e.watermark)), (total > 0).then_some((total, expected)));
            }
            let mut at = 0;
            let model: Vec<_> = lengths.iter().map(|&len| { at += len; manifest(at - len, len, "w") }).collect();
            for from in [0, total].into_iter().chain(froms) {
                let expected: Vec<_> = model.iter().filter(|m| m.range.end() > from).cloned().collect();
                assert_eq!(zone.chain().read(from).await.unwrap(), expected, "from {from}");
            }
        });
    }
}

#[test]
fn of_two_writers_one_wins_and_the_other_learns_who() {
    run(async {
        let zone = Zone::with(&[10], &[]).await;
        let (mut ours, mut theirs) = (zone.chain(), zone.chain());
        ours.end_after(None).await.unwrap();
        theirs.end_after(None).await.unwrap();
        let winner = manifest(10, 5, "them");
        assert_eq!(theirs.append(&winner).await.unwrap(), AppendOutcome::Appended);
        assert_eq!(ours.append(&manifest(10, 7, "us")).await.unwrap(), AppendOutcome::Lost(Box::new(winner)));
        // The loser does not know the end any more and cannot go on.
        assert_eq!(ours.append(&manifest(15, 1, "us")).await.unwrap_err().kind(), ErrorKind::Bug);
        assert_eq!(zone.chain().read(0).await.unwrap().len(), 2);
    });
}

#[test]
fn the_same_batch_again_is_no_conflict() {
    run(async {
        let zone = Zone::new();
        let (mut first, mut second) = (zone.chain(), zone.chain());
        first.end_after(None).await.unwrap();
        second.end_after(None).await.unwrap();
        let batch = manifest(0, 5, "w");
        assert_eq!(first.append(&batch).await.unwrap(), AppendOutcome::Appended);
        assert_eq!(second.append(&batch).await.unwrap(), AppendOutcome::Appended);
    });
}

#[test]
fn a_batch_that_does_not_add_up_or_follow_on_is_never_written() {
    run(async {
        let zone = Zone::with(&[10], &[]).await;
        let mut chain = zone.chain();
        assert_eq!(chain.append(&manifest(10, 1, "w")).await.unwrap_err().kind(), ErrorKind::Bug, "end unknown");
        chain.end_after(None).await.unwrap();
        for bad in [
            manifest(9, 1, "w"),
            manifest(11, 1, "w"),
            BatchManifest { absent: 0, ..manifest(10, 1, "w") },
            BatchManifest { gap: Some(GapReason::Expired), ..manifest(10, 1, "w") },
            BatchManifest { partition: Partition(1), ..manifest(10, 1, "w") },
        ] {
            assert_eq!(chain.append(&bad).await.unwrap_err().kind(), ErrorKind::Bug);
        }
        assert_eq!(chain.append(&manifest(10, 1, "w")).await.unwrap(), AppendOutcome::Appended);
    });
}

#[test]
fn two_who_fold_at_once_write_the_same_checkpoints_and_manifests_stay() {
    run(async {
        let zone = Zone::with(&[5; 9], &[]).await;
        let (a, b) = (zone.chain(), zone.chain());
        let (first, second) = futures::join!(a.fold(), b.fold());
        assert!(first.unwrap() + second.unwrap() >= 2);
        assert_eq!(zone.chain().fold().await.unwrap(), 0);
        assert_eq!(
            zone.keys(Ledger::Checkpoints).await,
            [
                "events/t/_checkpoints/1/0/00000000000000000000-00000000000000000020-none.ndjson.zst",
                "events/t/_checkpoints/1/0/00000000000000000020-00000000000000000040-none.ndjson.zst"
            ]
        );
        assert_eq!(zone.keys(Ledger::Batches).await.len(), 9);
        let end = zone.chain().end_after(None).await.unwrap().unwrap();
        assert_eq!((end.end, end.unfolded), (45, 1));
    });
}

#[test]
fn a_broken_ledger_is_named_and_nothing_is_read_past_it() {
    run(async {
        let hole = Zone::with(&[5, 5, 5], &[]).await;
        hole.store.delete("events/t/_batches/1/0/00000000000000000005.json").await.unwrap();
        let error = hole.chain().read(0).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the ledger of events/t/1[0] has a hole: no manifest accounts for offsets 5..10, batch 10..15 comes after \
             it; nothing was read past it; restore the manifest from a version of the bucket"
        );
        assert_eq!(error.kind(), ErrorKind::Data);
        let headless = Zone::with(&[5, 5, 5], &[]).await;
        headless.store.delete("events/t/_batches/1/0/00000000000000000000.json").await.unwrap();
        assert!(headless.chain().read(0).await.unwrap_err().to_string().contains("offsets 0..5"));

        let put = async |zone: &Zone, key: &str, body: Vec<u8>| {
            let _ = zone.store.put(key, Bytes::from(body), PutMode::Overwrite).await.unwrap();
        };
        let zone = Zone::with(&[5, 5], &[]).await;
        let key = "events/t/_batches/1/0/00000000000000000003.json";
        put(&zone, key, serde_json::to_vec(&manifest(3, 9, "w")).unwrap()).await;
        let error = zone.chain().read(0).await.unwrap_err().to_string();
        assert!(error.contains("overlaps: batch 3..12 starts before offset 5"), "{error}");

        for (body, expected) in [
            (b"{".to_vec(), "00000000000000000005.json is corrupt: EOF while parsing"),
            (
                serde_json::to_vec(&BatchManifest { absent: 4, ..manifest(5, 5, "w") }).unwrap(),
                "is corrupt: batch 5..10 of events/t/1[0]: 4 offsets accounted for, the range has 5",
            ),
            (serde_json::to_vec(&manifest(6, 5, "w")).unwrap(), "00000000000000000005.json is of batch 6..11"),
            (
                serde_json::to_vec(&BatchManifest { version: 2, ..manifest(5, 5, "w") }).unwrap(),
                "00000000000000000005.json has version 2, this program reads 1; upgrade it before landing writes more",
            ),
            (
                br#"{"version":2,"segments":[]}"#.to_vec(),
                "00000000000000000005.json has version 2, this program reads 1; upgrade it before landing writes more",
            ),
        ] {
            let zone = Zone::with(&[5, 5], &[]).await;
            put(&zone, "events/t/_batches/1/0/00000000000000000005.json", body).await;
            let error = zone.chain().read(0).await.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert_eq!(zone.chain().end_after(None).await.unwrap_err().kind(), ErrorKind::Data);
        }

        let zone = Zone::with(&[5; 4], &[3]).await;
        put(&zone, &zone.keys(Ledger::Checkpoints).await[0], b"junk".to_vec()).await;
        let error = zone.chain().read(0).await.unwrap_err().to_string();
        assert!(error.contains("checkpoint ") && error.contains("is corrupt"), "{error}");
    });
}

#[test]
fn checkpoints_of_other_hours_are_passed_over_unread() {
    run(async {
        let hour = EventHour::from_epoch_hours;
        let zone = Zone::new();
        let mut chain = zone.chain();
        chain.end_after(None).await.unwrap();
        for number in 0..10 {
            let object =
                |hour| RawObject { event_hour: Some(hour), min_offset: number, max_offset: number, ..object() };
            let objects = vec![object(hour(number as i64))];
            let batch = BatchManifest { objects, absent: 0, ..manifest(number, 1, "w") };
            assert_eq!(chain.append(&batch).await.unwrap(), AppendOutcome::Appended);
        }
        chain.fold().await.unwrap();
        // Hours 0..4 and 4..8 are folded, 8 and 9 are not. What is not read may be junk.
        let [first, _] = &zone.keys(Ledger::Checkpoints).await[..] else { panic!("two checkpoints") };
        assert!(first.ends_with("-19700101T00-19700101T03.ndjson.zst"), "{first}");
        let _ = zone.store.put(first, Bytes::from_static(b"junk"), PutMode::Overwrite).await.unwrap();
        let mut seen = Vec::new();
        let wanted = |checkpoint: &CheckpointKey| checkpoint.hours.is_some_and(|(_, last)| last >= hour(5));
        let mut note = |batch: BatchManifest| {
            seen.push(batch.range.start());
            Ok(true)
        };
        zone.chain().scan_where(0, &wanted, &mut note).await.unwrap();
        assert_eq!(seen, [4, 5, 6, 7, 8, 9]);
        assert!(zone.chain().read(0).await.is_err());
    });
}

#[test]
fn a_chain_with_an_hour_in_the_year_55840_can_be_folded_and_read() {
    run(async {
        let zone = Zone::new();
        let mut chain = zone.chain();
        chain.end_after(None).await.unwrap();
        // What a tombstone left behind whose Kafka timestamp was in microseconds.
        let hours = ["2026-11-22T07", "+55840-06-12T07", "-0044-03-15T07", "2026-11-22T08"];
        for (number, hour) in (0..).zip(hours) {
            let hour = Some(hour.parse().unwrap());
            let objects = vec![RawObject { event_hour: hour, min_offset: number, max_offset: number, ..object() }];
            let batch = BatchManifest { objects, absent: 0, ..manifest(number, 1, "w") };
            assert_eq!(chain.append(&batch).await.unwrap(), AppendOutcome::Appended);
        }
        assert_eq!(chain.fold().await.unwrap(), 1);
        let [folded] = &zone.keys(Ledger::Checkpoints).await[..] else { panic!("one checkpoint") };
        assert!(folded.ends_with("--00440315T07-+558400612T07.ndjson.zst"), "{folded}");
        assert_eq!(zone.chain().end_after(None).await.unwrap().unwrap().end, 4);
        assert_eq!(zone.chain().read(0).await.unwrap().len(), 4);
        assert_eq!(chain.fold().await.unwrap(), 0);
    });
}

/// Appends and folds until `batches` are in, finding the end anew after every failure.
async fn write_all(chain: &mut Chain, batches: u64) -> Result<()> {
    let mut at = chain.end_after(None).await?.map_or(0, |end| end.end);
    while at < batches * 5 {
        match chain.append(&manifest(at, 5, "w")).await? {
            AppendOutcome::Appended => at += 5,
            AppendOutcome::Lost(_) => return Err(Error::bug("nobody else writes here")),
        }
        chain.fold().await?;
    }
    Ok(())
}

#[test]
fn a_crash_or_a_lost_reply_at_any_operation_leaves_a_chain_that_goes_on() {
    run(async {
        for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::ErrorBefore, Fault::ErrorAfter] {
            for number in 1.. {
                let zone = Zone::new();
                let faults = Faults::at(number, fault);
                let mut broken = Zone::over(faults.around(Arc::clone(&zone.store)));
                let first = write_all(&mut broken, 6).await;
                write_all(&mut zone.chain(), 6).await.unwrap();
                let ranges: Vec<_> = zone.chain().read(0).await.unwrap().iter().map(|m| m.range.start()).collect();
                assert_eq!(ranges, [0, 5, 10, 15, 20, 25], "{fault:?} at {number}");
                assert_eq!(zone.keys(Ledger::Checkpoints).await.len(), 1);
                if !faults.fired() {
                    first.unwrap();
                    break;
                }
            }
        }
    });
}

#[test]
fn chains_are_listed_by_topic_generation_and_partition() {
    run(async {
        let zone = Zone::new();
        for (topic, partition) in [("events/t/1", 0), ("events/t/1", 10), ("events/t/12", 2), ("events/u/1", 0)] {
            let partition = PartitionRef { topic: topic.parse().unwrap(), partition: Partition(partition) };
            let mut chain = Chain::new(Arc::clone(&zone.store), partition.clone());
            chain.end_after(None).await.unwrap();
            let batch = BatchManifest { topic: partition.topic, partition: partition.partition, ..manifest(0, 1, "w") };
            assert_eq!(chain.append(&batch).await.unwrap(), AppendOutcome::Appended);
        }
        let topic = partition().topic;
        let store = &*zone.store;
        assert_eq!(catalog::topics(store, &topic.cluster).await.unwrap().len(), 2);
        let generations = catalog::generations(store, &topic.cluster, &topic.topic).await.unwrap();
        assert_eq!(generations.iter().map(|g| g.0).collect::<Vec<_>>(), [1, 12]);
        assert_eq!(catalog::partitions(store, &topic).await.unwrap(), [Partition(0), Partition(10)]);
    });
}

/// The manifests of a chain after the values of somebody were taken out of the batch at `start`.
fn amended(start: Offset) -> BTreeMap<Offset, BatchManifest> {
    let object = RawObject { key: "new".into(), min_offset: start, max_offset: start, erased: 1, ..object() };
    [(start, BatchManifest { objects: vec![object], absent: 4, ..manifest(start, 5, "w") })].into()
}

#[test]
fn an_amended_batch_is_the_same_in_manifests_and_checkpoints_and_accounts_for_the_same_records() {
    run(async {
        let zone = Zone::new();
        let mut chain = zone.chain();
        chain.end_after(None).await.unwrap();
        for number in 0..6 {
            let mut before = amended(number * 5).remove(&(number * 5)).unwrap();
            (before.objects[0].key, before.objects[0].erased) = ("old".into(), 0);
            assert_eq!(chain.append(&before).await.unwrap(), AppendOutcome::Appended);
        }
        let folded_late = zone.chain();
        for start in [5, 25] {
            chain.amend(&amended(start)).await.unwrap();
        }
        // Landing read the manifests of before, and folds them after.
        folded_late.fold().await.unwrap();
        let erased = async || zone.chain().read(0).await.unwrap().iter().map(BatchManifest::erased).collect::<Vec<_>>();
        assert_eq!(erased().await, [0, 1, 0, 0, 0, 1]);
        chain.amend(&amended(0)).await.unwrap();
        assert_eq!(erased().await, [1, 1, 0, 0, 0, 1], "in the checkpoint, too");

        let key = zone.keys(Ledger::Checkpoints).await.remove(0);
        let stale = zone.store.get(&key).await.unwrap();
        chain.amend(&amended(10)).await.unwrap();
        let _ = zone.store.put(&key, stale, PutMode::Overwrite).await.unwrap();
        assert_eq!(erased().await, [1, 1, 0, 0, 0, 1], "a checkpoint that was folded meanwhile says what was");
        chain.refold(&[10].into()).await.unwrap();
        assert_eq!(erased().await, [1, 1, 1, 0, 0, 1]);

        let mut other = amended(15);
        other.get_mut(&15).unwrap().absent = 0;
        other.get_mut(&15).unwrap().objects[0].records = 5;
        let error = chain.amend(&other).await.unwrap_err();
        assert!(error.to_string().contains("is not to be changed"), "{error}");
    });
}
