//! The layout of the raw zone: the one place that turns identifiers into object keys and back.
//!
//! ```text
//! {cluster}/{topic}/dt=2026-11-22/hr=07/{partition}-{start}-{end}-g{generation}-{id}.ndjson.zst   data
//! {cluster}/{topic}/_quarantine/{generation}/{partition}/{start:020}-{end:020}-{id}.ndjson.zst   refused records
//! {cluster}/{topic}/_batches/{generation}/{partition}/{start:020}.json                           one manifest a batch
//! {cluster}/{topic}/_checkpoints/{generation}/{partition}/{start:020}-{end:020}-{hours}.ndjson.zst folded manifests
//! {cluster}/{topic}/_progress/{generation}/{partition}.json                                      known partitions
//! ```
//! Keys are relative to the raw zone, whose prefix belongs to its store. Offsets in keys that are listed are padded to
//! 20 digits, so that byte order is offset order; the hours of a checkpoint are its first and its last event hour
//! (`20261122T07-20261122T09`), or `none`. Display writes a key, [`Key::from_str`] reads it back.

use std::fmt;
use std::str::FromStr;

use chrono::NaiveDate;

use crate::error::{Error, Result};
use crate::ids::{ClusterName, EventHour, Generation, Offset, OffsetRange, Partition, PartitionRef, Topic, TopicRef};

const DATA_SUFFIX: &str = ".ndjson.zst";
const MANIFEST_SUFFIX: &str = ".json";
/// The hours of a checkpoint that names no object.
const NO_HOURS: &str = "none";

/// A data object: records of one event hour out of one batch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RawKey {
    /// The partition its records were read from.
    pub partition: PartitionRef,
    /// The event hour of every record in it.
    pub hour: EventHour,
    /// First offset in it, and one past the last offset it may hold.
    pub range: OffsetRange,
    /// What makes the name unique: letters, digits and `-`; see [`check_id`].
    pub id: String,
}

/// An object of records that landing refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QuarantineKey {
    /// The partition its records were read from.
    pub partition: PartitionRef,
    /// First offset in it, and one past the last offset it may hold.
    pub range: OffsetRange,
    /// What makes the name unique.
    pub id: String,
}

/// The manifest of the batch that starts at an offset. Two writers of one chain meet at this key; one of them wins.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BatchKey {
    /// The chain.
    pub partition: PartitionRef,
    /// First offset of the batch.
    pub start: Offset,
}

/// Consecutive manifests of a chain, folded into one object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CheckpointKey {
    /// The chain.
    pub partition: PartitionRef,
    /// The offsets its manifests account for.
    pub range: OffsetRange,
    /// The first and the last event hour of the objects they name, so that a listing tells who need not be read.
    pub hours: Option<(EventHour, EventHour)>,
}

/// What a partition that landing knows says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProgressKey {
    /// The partition.
    pub partition: PartitionRef,
}

/// Any key of the raw zone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// A data object.
    Raw(RawKey),
    /// Refused records.
    Quarantine(QuarantineKey),
    /// A batch manifest.
    Batch(BatchKey),
    /// Folded manifests.
    Checkpoint(CheckpointKey),
    /// The state of a known partition.
    Progress(ProgressKey),
}

/// Checks the unique part of an object name: 1 to 64 ASCII letters, digits and `-`.
///
/// # Errors
/// `Bug`, because we make these names ourselves.
pub fn check_id(id: &str) -> Result<()> {
    let ok = (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if ok { Ok(()) } else { Err(Error::bug(format!("`{id}` cannot be part of a raw object's name"))) }
}

/// The folder below which all keys of a cluster lie, with trailing slash.
#[must_use]
pub fn cluster_prefix(cluster: &ClusterName) -> String {
    format!("{cluster}/")
}

/// The folder of one kind of ledger object of a topic (all generations), with trailing slash.
#[must_use]
pub fn ledger_prefix(cluster: &ClusterName, topic: &Topic, kind: Ledger) -> String {
    format!("{cluster}/{topic}/{}/", kind.folder())
}

/// The folder of one kind of ledger object of one partition, with trailing slash.
#[must_use]
pub fn partition_prefix(partition: &PartitionRef, kind: Ledger) -> String {
    let topic = &partition.topic;
    format!("{}{}/{}/", ledger_prefix(&topic.cluster, &topic.topic, kind), topic.generation, partition.partition)
}

/// The folder of the data objects of one hour, with trailing slash.
#[must_use]
pub fn hour_prefix(cluster: &ClusterName, topic: &Topic, hour: EventHour) -> String {
    format!("{cluster}/{topic}/dt={}/hr={:02}/", hour.date(), hour.hour())
}

/// The kinds of objects that are ordered by generation and partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ledger {
    /// Batch manifests.
    Batches,
    /// Folded manifests.
    Checkpoints,
    /// Refused records.
    Quarantine,
    /// States of known partitions.
    Progress,
}

impl Ledger {
    fn folder(self) -> &'static str {
        match self {
            Self::Batches => "_batches",
            Self::Checkpoints => "_checkpoints",
            Self::Quarantine => "_quarantine",
            Self::Progress => "_progress",
        }
    }
}

impl fmt::Display for RawKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topic = &self.partition.topic;
        write!(
            f,
            "{}{}-{}-{}-g{}-{}{DATA_SUFFIX}",
            hour_prefix(&topic.cluster, &topic.topic, self.hour),
            self.partition.partition,
            self.range.start(),
            self.range.end(),
            topic.generation,
            self.id
        )
    }
}

impl fmt::Display for QuarantineKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folder = partition_prefix(&self.partition, Ledger::Quarantine);
        write!(f, "{folder}{:020}-{:020}-{}{DATA_SUFFIX}", self.range.start(), self.range.end(), self.id)
    }
}

impl fmt::Display for BatchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:020}{MANIFEST_SUFFIX}", partition_prefix(&self.partition, Ledger::Batches), self.start)
    }
}

impl fmt::Display for CheckpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folder = partition_prefix(&self.partition, Ledger::Checkpoints);
        write!(f, "{folder}{:020}-{:020}-", self.range.start(), self.range.end())?;
        match self.hours {
            Some((first, last)) => write!(f, "{}-{}{DATA_SUFFIX}", compact(first), compact(last)),
            None => write!(f, "{NO_HOURS}{DATA_SUFFIX}"),
        }
    }
}

impl fmt::Display for ProgressKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topic = &self.partition.topic;
        let folder = ledger_prefix(&topic.cluster, &topic.topic, Ledger::Progress);
        write!(f, "{folder}{}/{}{MANIFEST_SUFFIX}", topic.generation, self.partition.partition)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raw(key) => key.fmt(f),
            Self::Quarantine(key) => key.fmt(f),
            Self::Batch(key) => key.fmt(f),
            Self::Checkpoint(key) => key.fmt(f),
            Self::Progress(key) => key.fmt(f),
        }
    }
}

impl FromStr for Key {
    type Err = Error;

    /// # Errors
    /// `Data` when nothing in the raw zone is named like this.
    fn from_str(text: &str) -> Result<Self> {
        parse(text)
            // One spelling a key: what Display would not write again (`hr=7`, `+5`) is not a key.
            .filter(|key| key.to_string() == text)
            .ok_or_else(|| Error::data(format!("`{text}` is not a key of the raw zone")))
    }
}

/// `FromStr` of one kind of key, through [`Key`].
macro_rules! parse_one_kind {
    ($($name:ident from $variant:ident: $what:literal),*) => {$(
        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                match text.parse()? {
                    Key::$variant(key) => Ok(key),
                    _ => Err(Error::data(format!(concat!("`{}` is not the key of ", $what), text))),
                }
            }
        }
    )*};
}
parse_one_kind!(
    RawKey from Raw: "a data object",
    QuarantineKey from Quarantine: "a quarantine object",
    BatchKey from Batch: "a batch manifest",
    CheckpointKey from Checkpoint: "a checkpoint",
    ProgressKey from Progress: "a progress object"
);

fn parse(text: &str) -> Option<Key> {
    let mut parts = text.split('/');
    let cluster = ClusterName::new(parts.next()?).ok()?;
    let topic = Topic::new(parts.next()?).ok()?;
    let folder = parts.next()?;
    if let Some(date) = folder.strip_prefix("dt=") {
        let hour = parts.next()?.strip_prefix("hr=")?.parse().ok()?;
        let hour = EventHour::from_date_hour(NaiveDate::parse_from_str(date, "%Y-%m-%d").ok()?, hour)?;
        let name = parts.next()?.strip_suffix(DATA_SUFFIX)?;
        if parts.next().is_some() {
            return None;
        }
        let mut fields = name.splitn(5, '-');
        let number = Partition(fields.next()?.parse().ok()?);
        let range = range(fields.next()?, fields.next()?)?;
        let generation = Generation(fields.next()?.strip_prefix('g')?.parse().ok()?);
        let id = id(fields.next()?)?;
        let partition = PartitionRef { topic: TopicRef { cluster, topic, generation }, partition: number };
        return Some(Key::Raw(RawKey { partition, hour, range, id }));
    }
    let generation = Generation(parts.next()?.parse().ok()?);
    let topic = TopicRef { cluster, topic, generation };
    let of = |number: &str| Some(PartitionRef { topic, partition: Partition(number.parse().ok()?) });
    let number = parts.next()?;
    if folder == Ledger::Progress.folder() {
        let partition = of(number.strip_suffix(MANIFEST_SUFFIX)?)?;
        return parts.next().is_none().then_some(Key::Progress(ProgressKey { partition }));
    }
    let partition = of(number)?;
    let name = parts.next()?;
    if parts.next().is_some() {
        return None;
    }
    if folder == Ledger::Batches.folder() {
        let start = name.strip_suffix(MANIFEST_SUFFIX)?.parse().ok()?;
        return Some(Key::Batch(BatchKey { partition, start }));
    }
    let mut fields = name.strip_suffix(DATA_SUFFIX)?.splitn(3, '-');
    let range = range(fields.next()?, fields.next()?)?;
    match (folder, fields.next()) {
        (f, Some(text)) if f == Ledger::Checkpoints.folder() => {
            let hours = if text == NO_HOURS { None } else { Some(hours(text)?) };
            Some(Key::Checkpoint(CheckpointKey { partition, range, hours }))
        }
        (f, Some(text)) if f == Ledger::Quarantine.folder() => {
            Some(Key::Quarantine(QuarantineKey { partition, range, id: id(text)? }))
        }
        _ => None,
    }
}

fn range(start: &str, end: &str) -> Option<OffsetRange> {
    OffsetRange::new(start.parse().ok()?, end.parse().ok()?).ok()
}

/// An event hour in a name, where `-` separates.
fn compact(hour: EventHour) -> String {
    format!("{}T{:02}", hour.date().format("%Y%m%d"), hour.hour())
}

/// What [`compact`] wrote. chrono cannot tell where a year of more than four digits ends, or what a sign is.
fn compact_hour(text: &str) -> Option<EventHour> {
    let (date, hour) = text.split_once('T')?;
    let (year, day) = date.split_at_checked(date.len().checked_sub(4)?)?;
    let (month, day) = day.split_at_checked(2)?;
    let date = NaiveDate::from_ymd_opt(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?)?;
    EventHour::from_date_hour(date, hour.parse().ok()?)
}

fn hours(text: &str) -> Option<(EventHour, EventHour)> {
    // The dash behind the first hour, not the sign of a year.
    let (first, last) = text.split_at_checked(text.find('T')? + 3)?;
    let hours = (compact_hour(first)?, compact_hour(last.strip_prefix('-')?)?);
    (hours.0 <= hours.1).then_some(hours)
}

fn id(text: &str) -> Option<String> {
    check_id(text).ok()?;
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn partition_ref() -> impl Strategy<Value = PartitionRef> {
        ("[a-zA-Z0-9][a-zA-Z0-9._-]{0,20}", "[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,20}", any::<u32>(), any::<u32>()).prop_map(
            |(cluster, topic, generation, partition)| PartitionRef {
                topic: TopicRef {
                    cluster: ClusterName::new(cluster).unwrap(),
                    topic: Topic::new(topic).unwrap(),
                    generation: Generation(generation),
                },
                partition: Partition(partition),
            },
        )
    }

    fn ranges() -> impl Strategy<Value = OffsetRange> {
        (0..u64::MAX - 1, 1..u64::MAX)
            .prop_map(|(start, len)| OffsetRange::new(start, start.saturating_add(len)).unwrap())
    }

    fn keys() -> impl Strategy<Value = Key> {
        // Every hour that a number of milliseconds can lie in, not only those that landing admits today.
        let hours = (prop_oneof![0i64..70_000_000, -2_200_000_000i64..2_200_000_000], prop::option::of(0i64..1000));
        (partition_ref(), ranges(), hours, "[a-zA-Z0-9-]{1,64}", 0..5u8).prop_map(
            |(partition, range, (hour, more), id, kind)| match kind {
                0 => Key::Raw(RawKey { partition, hour: EventHour::from_epoch_hours(hour), range, id }),
                1 => Key::Quarantine(QuarantineKey { partition, range, id }),
                2 => Key::Batch(BatchKey { partition, start: range.start() }),
                3 => {
                    let at = EventHour::from_epoch_hours;
                    let hours = more.map(|more| (at(hour), at(hour + more)));
                    Key::Checkpoint(CheckpointKey { partition, range, hours })
                }
                _ => Key::Progress(ProgressKey { partition }),
            },
        )
    }

    proptest! {
        #[test]
        fn a_key_is_read_back_as_it_was_written(key in keys()) {
            let text = key.to_string();
            prop_assert_eq!(text.parse::<Key>().unwrap(), key);
        }

        #[test]
        fn what_is_read_as_a_key_is_written_the_same(text in "[a-z]{1,3}/[a-z]{1,3}/(_batches|_checkpoints|_progress|_quarantine|dt=2026-1[0-3]-[0-3]{2})/(hr=)?[0-9]{1,2}/[0-9a-z.-]{1,30}(\\.json|\\.ndjson\\.zst)?") {
            if let Ok(key) = text.parse::<Key>() {
                prop_assert_eq!(key.to_string(), text);
            }
        }

        #[test]
        fn batch_keys_sort_as_their_offsets(partition in partition_ref(), a: u64, b: u64) {
            let key = |start| BatchKey { partition: partition.clone(), start }.to_string();
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
        }
    }

    #[test]
    fn the_layout_is_the_contract() {
        let partition: PartitionRef =
            PartitionRef { topic: "events/github.events/1".parse().unwrap(), partition: Partition(3) };
        let range = OffsetRange::new(100, 200).unwrap();
        let hour: EventHour = "2026-11-22T07".parse().unwrap();
        let cases = [
            (
                Key::Raw(RawKey { partition: partition.clone(), hour, range, id: "ab-0".into() }),
                "events/github.events/dt=2026-11-22/hr=07/3-100-200-g1-ab-0.ndjson.zst",
            ),
            (
                Key::Batch(BatchKey { partition: partition.clone(), start: 100 }),
                "events/github.events/_batches/1/3/00000000000000000100.json",
            ),
            (
                Key::Checkpoint(CheckpointKey {
                    partition: partition.clone(),
                    range,
                    hours: Some((hour, hour.next())),
                }),
                "events/github.events/_checkpoints/1/3/\
                 00000000000000000100-00000000000000000200-20261122T07-20261122T08.ndjson.zst",
            ),
            (
                Key::Checkpoint(CheckpointKey { partition: partition.clone(), range, hours: None }),
                "events/github.events/_checkpoints/1/3/00000000000000000100-00000000000000000200-none.ndjson.zst",
            ),
            (
                Key::Quarantine(QuarantineKey { partition: partition.clone(), range, id: "ab-0".into() }),
                "events/github.events/_quarantine/1/3/00000000000000000100-00000000000000000200-ab-0.ndjson.zst",
            ),
            (Key::Progress(ProgressKey { partition }), "events/github.events/_progress/1/3.json"),
        ];
        for (key, text) in cases {
            assert_eq!(key.to_string(), text);
        }
    }

    #[test]
    fn foreign_objects_are_not_keys() {
        for text in [
            "",
            "events",
            "events/t/_batches/1/3/5.json",
            "events/t/_batches/1/3/+0000000000000000005.json",
            "events/t/_batches/1/3/x/00000000000000000005.json",
            "events/t/dt=2026-11-22/hr=7/3-1-2-g1-a.ndjson.zst",
            "events/t/_checkpoints/1/3/00000000000000000100-00000000000000000200.ndjson.zst",
            "events/t/_checkpoints/1/3/00000000000000000100-00000000000000000200-20261122T08-20261122T07.ndjson.zst",
            "events/t/dt=2026-11-22/hr=24/3-1-2-g1-a.ndjson.zst",
            "events/t/dt=2026-11-22/hr=07/3-2-2-g1-a.ndjson.zst",
            "events/t/dt=2026-11-22/hr=07/3-1-2-g1-a.ndjson.zst.tmp",
            "events/t/dt=2026-11-22/hr=07/3-1-2-g1-a_b.ndjson.zst",
        ] {
            assert!(text.parse::<Key>().is_err(), "{text}");
        }
    }
}
