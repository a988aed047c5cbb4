use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// What happens to a batch.
#[derive(Debug, Clone)]
enum Step {
    Record { hour: i64, size: usize, tombstone: bool },
    Refuse(RejectReason),
    Skip(u64),
    Observe { behind: u64 },
    Seal,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0i64..5, 0usize..300, any::<bool>())
            .prop_map(|(hour, size, tombstone)| Step::Record { hour, size, tombstone }),
        2 => prop_oneof![Just(RejectReason::NotJson), Just(RejectReason::TooLate)].prop_map(Step::Refuse),
        2 => (0u64..4).prop_map(Step::Skip),
        1 => (0u64..3).prop_map(|behind| Step::Observe { behind }),
        1 => Just(Step::Seal),
    ];
    proptest::collection::vec(step, 0..80)
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

fn batch(memory: &Arc<Memory>, start: Offset) -> Batch {
    let partition = PartitionRef { topic: "c/t/1".parse().unwrap(), partition: firn_shared::ids::Partition(3) };
    Batch::new(partition, None, "w".into(), (Arc::clone(memory), 200), start, None)
}

/// The offsets in a body whose lines are offsets.
fn offsets(object: &SealedObject) -> Vec<u64> {
    let body = object.frames.concat();
    assert_eq!(body.len() as u64, object.object.bytes);
    assert_eq!(blake3::hash(&body).to_hex().to_string(), object.object.blake3);
    let lines = zstd::stream::decode_all(&*body).unwrap();
    assert_eq!(lines.len() as u64, object.object.raw_bytes);
    let line = |line: &str| line.split(' ').next().unwrap().parse().unwrap();
    String::from_utf8(lines).unwrap().lines().map(line).collect()
}

proptest! {
    #[test]
    fn every_offset_is_in_one_object_or_absent(steps in steps(), start in 0u64..1000) {
        let memory = Memory::new(1 << 30);
        let mut batch = batch(&memory, start);
        let (mut next, mut expected, mut sealed) = (start, BTreeSet::new(), Vec::new());
        let now = at(1_000_000);
        for step in steps.into_iter().chain([Step::Seal]) {
            match step {
                Step::Record { hour, size, tombstone } => {
                    let stamp = Stamp { offset: next, event_time: Some(at(hour * 3600 + 7)), kafka_time: None, tombstone };
                    let line = format!("{next} {}\n", "x".repeat(size));
                    let hour = EventHour::from_epoch_hours(hour);
                    batch.record(stamp, hour, now, |out| out.extend_from_slice(line.as_bytes())).unwrap();
                    expected.insert(next);
                    next += 1;
                }
                Step::Refuse(reason) => {
                    let stamp = Stamp { offset: next, event_time: None, kafka_time: None, tombstone: false };
                    let line = format!("{next}\n");
                    batch.refuse(stamp, reason, now, |out| out.extend_from_slice(line.as_bytes())).unwrap();
                    expected.insert(next);
                    next += 1;
                }
                Step::Skip(offsets) => {
                    next += offsets;
                    batch.skip_to(next, now);
                }
                Step::Observe { behind } => batch.observe_end(next.saturating_sub(behind), now),
                Step::Seal => sealed.extend(batch.seal(now).unwrap()),
            }
            prop_assert_eq!(batch.next(), next);
        }
        prop_assert!(batch.is_empty() && batch.shape().opened_at.is_none());

        // The manifests are a chain that conserves.
        let mut end = start;
        let mut found = Vec::new();
        for Sealed { manifest, objects } in &sealed {
            manifest.check().unwrap();
            prop_assert_eq!(manifest.range.start(), end);
            end = manifest.range.end();
            let named: Vec<_> = manifest.objects.iter().chain(&manifest.quarantine).collect();
            prop_assert_eq!(objects.iter().map(|o| &o.object).collect::<Vec<_>>(), named);
            found.extend(objects.iter().flat_map(offsets));
        }
        prop_assert_eq!(end, next);
        let all = found.len();
        let found: BTreeSet<_> = found.into_iter().collect();
        prop_assert_eq!(all, found.len(), "an offset twice");
        prop_assert_eq!(found, expected);

        drop(sealed);
        prop_assert_eq!(memory.used(), 0, "everything sealed and uploaded is given back");
    }
}

#[test]
fn an_offset_that_was_passed_is_a_bug_and_no_second_copy() {
    let memory = Memory::new(1 << 20);
    let mut batch = batch(&memory, 5);
    let stamp = |offset| Stamp { offset, event_time: Some(at(0)), kafka_time: None, tombstone: false };
    let hour = EventHour::from_epoch_hours(0);
    batch.record(stamp(7), hour, at(0), |out| out.push(b'\n')).unwrap();
    for offset in [4, 6, 7] {
        let error = batch.record(stamp(offset), hour, at(0), |_| ()).unwrap_err();
        assert_eq!(error.kind(), firn_shared::error::ErrorKind::Bug, "{offset}");
    }
    assert_eq!(batch.seal(at(0)).unwrap().unwrap().manifest.absent, 2);
}

#[test]
fn the_watermark_follows_events_but_neither_the_future_nor_tombstones() {
    let memory = Memory::new(1 << 20);
    let mut batch = batch(&memory, 0);
    let hour = EventHour::from_epoch_hours(0);
    let mut take = |offset, time, tombstone| {
        let stamp = Stamp { offset, event_time: Some(at(time)), kafka_time: None, tombstone };
        batch.record(stamp, hour, at(100), |out| out.push(b'\n')).unwrap();
        batch.watermark()
    };
    assert_eq!(take(0, 90, true), None);
    assert_eq!(take(1, 50, false), Some(at(50)));
    assert_eq!(take(2, 20, false), Some(at(50)));
    assert_eq!(take(3, 1_000_000, false), Some(at(100)));
}

#[test]
fn a_record_ahead_of_its_time_does_not_age_the_backlog_behind_it() {
    let memory = Memory::new(1 << 20);
    let mut batch = batch(&memory, 0);
    let now = at(1_000_000);
    let mut take = |offset, time, written| {
        let stamp = Stamp { offset, event_time: Some(at(time)), kafka_time: Some(at(written)), tombstone: false };
        batch.record(stamp, EventHour::of(at(time)), now, |out| out.push(b'\n')).unwrap();
        batch.watermark()
    };
    // Read long after they were written, one of them by a clock that was a day ahead.
    assert_eq!(take(0, 50, 60), Some(at(50)));
    assert_eq!(take(1, 61 + 86_400, 61), Some(at(61)));
    assert_eq!(take(2, 62, 63), Some(at(62)));
    assert_eq!(take(3, 2_000_000, 3_000_000), Some(now));
}
