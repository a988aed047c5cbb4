//! Which raw objects a run converts, decided before anything is read or written.
//!
//! [`position`] says how far the table has come; [`seal`] whether a date is complete; [`read`] walks the ledger past the
//! position and [`consume`] decides what is taken of each partition. The outcome, a [`Plan`], is plain data: it names the
//! snapshot it was made from, the objects in slices of bounded size, and where the table stands when it is carried out.

pub mod consume;
pub mod position;
pub mod read;
pub mod seal;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use firn_shared::ids::{EventHour, OffsetRange, Partition, PartitionRef, TopicRef};
use firn_shared::raw::manifest::RawObject;
use serde::{Deserialize, Serialize};

use crate::reconcile::account::Totals;
use position::Position;

/// What a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// Everything past the table's position.
    New,
    /// All raw objects of the hours `from..to` (half-open) below the table's position, replacing their rows.
    Hours {
        /// First hour.
        from: EventHour,
        /// First hour after the range.
        to: EventHour,
    },
}

/// A run, decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// What it is for.
    pub scope: Scope,
    /// The table's current snapshot when the plan was made; the commit checks the position, not this.
    pub base_snapshot: Option<i64>,
    /// The table's position when the plan was made; the commit is refused when it has moved.
    pub from: Position,
    /// The branch that the outcome is for; `None` is the table itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// What a `reprocess` leaves alone: offsets before these belong to loads that a later one replaced, or to topics that are
    /// not read. Else empty.
    #[serde(default)]
    pub since: Position,
    /// The table's position after the commit; equals `from` for [`Scope::Hours`].
    pub to: Position,
    /// Where the chains ended when the plan was made; `to` lies before it when a run is cut into several commits.
    #[serde(default)]
    pub until: Position,
    /// Units of work, independent of each other.
    pub slices: Vec<Slice>,
    /// What the ledger says of the batches consumed ([`Totals::add_batch`]); empty for [`Scope::Hours`].
    pub ledger: Vec<PartitionLedger>,
}

/// The ledger's part of a plan for one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionLedger {
    /// The topic.
    pub topic: TopicRef,
    /// The partition.
    pub partition: Partition,
    /// Offsets the plan consumes.
    pub range: OffsetRange,
    /// Batches in them.
    pub batches: u64,
    /// Totals of just this range, the fate of records left open.
    pub totals: Totals,
}

/// Raw objects converted together by one thread or task.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Slice {
    /// Its number in the plan, from 0; part of its data files' names.
    pub number: u32,
    /// Ordered by event hour, topic, partition, first offset.
    pub objects: Vec<SliceObject>,
}

/// A raw object and where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SliceObject {
    /// The topic.
    pub topic: TopicRef,
    /// The partition.
    pub partition: Partition,
    /// The object, as the manifest has it.
    pub object: RawObject,
}

impl SliceObject {
    /// The partition the object came from.
    pub fn partition_ref(&self) -> PartitionRef {
        PartitionRef { topic: self.topic.clone(), partition: self.partition }
    }
}

impl Slice {
    /// Bytes of its lines, uncompressed.
    pub fn raw_bytes(&self) -> u64 {
        self.objects.iter().map(|o| o.object.raw_bytes).sum()
    }

    /// Lines in it, tombstones included.
    pub fn records(&self) -> u64 {
        self.objects.iter().map(|o| o.object.records).sum()
    }
}

impl Plan {
    /// Whether there is neither an object to convert nor an offset to advance.
    pub fn is_empty(&self) -> bool {
        self.slices.is_empty() && self.from == self.to
    }

    /// Offsets that were in the ledger when the plan was made, and that it leaves to a next one.
    pub fn offsets_left(&self) -> u64 {
        self.until.iter().map(|(partition, end)| end.saturating_sub(self.to.get(&partition).unwrap_or(0))).sum()
    }

    /// Lines in all slices.
    pub fn records(&self) -> u64 {
        self.slices.iter().map(Slice::records).sum()
    }

    /// The same plan with nothing to convert.
    #[must_use]
    pub fn clone_without_slices(&self) -> Self {
        Self { slices: Vec::new(), ..self.clone() }
    }
}

/// Cuts objects into slices of at most `raw_bytes_max` uncompressed bytes (a larger object is a slice of its own),
/// ordered so that a slice touches few event hours and so few table partitions.
pub fn cut(mut objects: Vec<SliceObject>, raw_bytes_max: u64) -> Vec<Slice> {
    fn key(o: &SliceObject) -> (Option<EventHour>, &TopicRef, Partition, u64) {
        (o.object.event_hour, &o.topic, o.partition, o.object.min_offset)
    }
    objects.sort_by(|a, b| key(a).cmp(&key(b)));
    let mut slices: Vec<Slice> = Vec::new();
    let mut held = 0;
    for object in objects {
        let bytes = object.object.raw_bytes;
        if slices.is_empty() || held + bytes > raw_bytes_max {
            slices.push(Slice { number: slices.len() as u32, objects: Vec::new() });
            held = 0;
        }
        held += bytes;
        if let Some(slice) = slices.last_mut() {
            slice.objects.push(object);
        }
    }
    slices
}

/// Hours and records of a plan, for its summary.
pub fn hours(plan: &Plan) -> BTreeMap<EventHour, u64> {
    let mut hours = BTreeMap::new();
    for object in plan.slices.iter().flat_map(|s| &s.objects) {
        if let Some(hour) = object.object.event_hour {
            *hours.entry(hour).or_default() += object.object.records;
        }
    }
    hours
}
