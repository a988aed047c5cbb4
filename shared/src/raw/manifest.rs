//! A batch: a half-open offset range of one partition, its objects and its counts, as one JSON manifest.
//!
//! Conservation, checked by [`BatchManifest::check`] before a manifest is written and after one is read:
//! `range.len() = Σ objects.records + Σ rejects + absent`, tombstones being records, or all of it when it is a gap.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::{EventHour, Offset, OffsetRange, Partition, PartitionRef, TopicRef};

/// The format version this code writes; readers refuse a newer one.
pub const MANIFEST_VERSION: u32 = 1;

/// One link of a partition's chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BatchManifest {
    /// Format version.
    pub version: u32,
    /// The topic this batch was read from.
    pub topic: TopicRef,
    /// Kafka's id of the topic when the batch was read, when the broker tells one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
    /// The partition.
    pub partition: Partition,
    /// The offsets this batch accounts for, `[start, end)`.
    pub range: OffsetRange,
    /// Who wrote it: a fresh identity per assignment of the partition, the same in every object name of the batch.
    pub writer: String,
    /// When it was written, wall clock.
    pub written_at: DateTime<Utc>,
    /// Raw objects, ascending by event hour and first offset.
    pub objects: Vec<RawObject>,
    /// Objects of records that were refused, with their reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantine: Vec<RawObject>,
    /// Refused records by reason; their sum equals the records of `quarantine`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rejects: BTreeMap<RejectReason, u64>,
    /// Offsets of the range that hold no record (transaction markers, aborted records, compaction).
    #[serde(default)]
    pub absent: u64,
    /// Present when the whole range was never read: a declared gap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<GapReason>,
    /// Largest event time seen in the partition up to the end of this batch: its watermark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<DateTime<Utc>>,
    /// Wall-clock time at which everything Kafka held in the partition had been read up to `range.end`, if that was so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caught_up_at: Option<DateTime<Utc>>,
}

/// One immutable object of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawObject {
    /// The key, relative to the raw zone's store.
    pub key: String,
    /// The event hour of every record in it; absent in quarantine objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_hour: Option<EventHour>,
    /// Lines, tombstones included.
    pub records: u64,
    /// Lines without payload (Kafka null values).
    #[serde(default)]
    pub tombstones: u64,
    /// Size of the object in bytes.
    pub bytes: u64,
    /// Size of the lines before compression.
    pub raw_bytes: u64,
    /// BLAKE3 of the object's bytes, hex.
    pub blake3: String,
    /// Smallest offset in it.
    pub min_offset: Offset,
    /// Largest offset in it.
    pub max_offset: Offset,
    /// Smallest event time in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_event_time: Option<DateTime<Utc>>,
    /// Largest event time in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_event_time: Option<DateTime<Utc>>,
    /// Records of it whose personal values were taken out when their subject was erased; they count as before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub erased: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "what serde calls it with")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Why landing refused a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RejectReason {
    /// The payload is not UTF-8.
    NotUtf8,
    /// The payload is not one JSON value.
    NotJson,
    /// The event time path leads nowhere, or to null.
    NoEventTime,
    /// There is an event time, but it is not of the configured format, or outside the years 1970 to 9999.
    BadEventTime,
    /// Key, headers and payload together exceed the size limit.
    TooLarge,
    /// A header cannot be written down as it is: its name is not UTF-8 text without a zero.
    BadHeader,
    /// The event is not on the whitelist.
    NotWhitelisted,
    /// The event is later than `late.allowed` and the pipeline says to quarantine those.
    TooLate,
}

/// Why a range of offsets was never read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GapReason {
    /// Kafka's retention removed the offsets before landing read them: data was lost, an alarm.
    Expired,
    /// Kafka no longer held the offsets when the topic was read for the first time: a chain begins at offset 0, always,
    /// so that two first writers meet at one key.
    BeforeFirstRead,
}

impl RejectReason {
    /// Its name in manifests, quarantine lines and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotUtf8 => "notUtf8",
            Self::NotJson => "notJson",
            Self::NoEventTime => "noEventTime",
            Self::BadEventTime => "badEventTime",
            Self::TooLarge => "tooLarge",
            Self::BadHeader => "badHeader",
            Self::NotWhitelisted => "notWhitelisted",
            Self::TooLate => "tooLate",
        }
    }
}

impl BatchManifest {
    /// The partition this batch belongs to.
    #[must_use]
    pub fn partition_ref(&self) -> PartitionRef {
        PartitionRef { topic: self.topic.clone(), partition: self.partition }
    }

    /// Records in raw objects, tombstones included.
    #[must_use]
    pub fn records(&self) -> u64 {
        total(self.objects.iter().map(|o| o.records))
    }

    /// Tombstones in raw objects.
    #[must_use]
    pub fn tombstones(&self) -> u64 {
        total(self.objects.iter().map(|o| o.tombstones))
    }

    /// Records refused at landing.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        total(self.rejects.values().copied())
    }

    /// Records, refused ones included, whose personal values were taken out.
    #[must_use]
    pub fn erased(&self) -> u64 {
        total(self.objects.iter().chain(&self.quarantine).map(|o| o.erased))
    }

    /// Offsets of the batch that were never read.
    #[must_use]
    pub fn gap_offsets(&self) -> u64 {
        if self.gap.is_some() { self.range.len() } else { 0 }
    }

    /// Checks the conservation law and that every object lies within the range.
    ///
    /// # Errors
    /// `Data`, naming the partition, the range and the two numbers that differ.
    pub fn check(&self) -> Result<()> {
        let at = || format!("batch {} of {}", self.range, self.partition_ref());
        if self.version != MANIFEST_VERSION {
            return Err(Error::data(format!("{}: manifest version {} is not {MANIFEST_VERSION}", at(), self.version)));
        }
        let counted = total([self.records(), self.rejected(), self.absent, self.gap_offsets()].into_iter());
        if counted != self.range.len() {
            return Err(Error::data(format!(
                "{}: {counted} offsets accounted for, the range has {}",
                at(),
                self.range.len()
            )));
        }
        let in_quarantine = total(self.quarantine.iter().map(|o| o.records));
        if in_quarantine != self.rejected() {
            return Err(Error::data(format!(
                "{}: {in_quarantine} records in quarantine objects, {} rejects by reason",
                at(),
                self.rejected()
            )));
        }
        for object in self.objects.iter().chain(&self.quarantine) {
            let inside = self.range.contains(object.min_offset) && self.range.contains(object.max_offset);
            if !inside
                || object.min_offset > object.max_offset
                || object.records == 0
                || object.tombstones > object.records
                || object.erased > object.records
            {
                return Err(Error::data(format!("{}: object {} does not fit into it", at(), object.key)));
            }
        }
        Ok(())
    }
}

/// A sum of counts that somebody else wrote: what is more than a number can hold is no range's length either.
fn total(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::saturating_add)
}
