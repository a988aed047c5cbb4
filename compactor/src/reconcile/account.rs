//! What became of every offset a table has consumed, as running totals per partition.
//!
//! The totals travel beside the position in each snapshot (`firn.account`), so that `reconcile` needs neither the rows nor
//! the snapshots that were expired. The law: offsets consumed = rows + quarantined + rejected at landing + filtered +
//! tombstones + superseded + deleted + absent + declared gaps. Where a step makes several rows of one record, it counts once
//! as rows, and its further rows are counted apart as exploded: rows of the table = rows + exploded.

use std::collections::BTreeMap;

use firn_shared::error::{Error, Result};
/// The reason under which records of events that belong to other tables are counted as filtered.
pub use firn_shared::functions::rows::OTHER_EVENT;
use firn_shared::ids::{Offset, Partition, PartitionRef, TopicRef};
use firn_shared::raw::manifest::{BatchManifest, RejectReason};
use serde::{Deserialize, Serialize};

/// Running totals of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Totals {
    /// First offset of the chain.
    pub start: Offset,
    /// First offset not consumed.
    pub end: Offset,
    /// Records with rows in the table.
    pub rows: u64,
    /// Rows of the table beyond the first of their record.
    #[serde(skip_serializing_if = "is_zero")]
    pub exploded: u64,
    /// Rows in the table's quarantine table.
    pub quarantined: u64,
    /// Records landing put into its quarantine, by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rejected: BTreeMap<RejectReason, u64>,
    /// Records left out on purpose, by reason ([`OTHER_EVENT`], else the filter's name).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub filtered: BTreeMap<String, u64>,
    /// Kafka null values.
    pub tombstones: u64,
    /// Records whose key has a newer version, in the table or deleted.
    pub superseded: u64,
    /// Records that deleted their key, or all of a source table.
    pub deleted: u64,
    /// Offsets without a record.
    pub absent: u64,
    /// Offsets that were never read, as declared.
    pub gaps: u64,
}

impl Totals {
    /// Adds what the ledger says of a batch that is consumed as a whole: everything but the fate of its records.
    pub fn add_batch(&mut self, batch: &BatchManifest) {
        self.add(&Self {
            start: batch.range.start(),
            end: batch.range.end(),
            rejected: batch.rejects.clone(),
            tombstones: batch.tombstones(),
            absent: batch.absent,
            gaps: batch.gap_offsets(),
            ..Self::default()
        });
    }

    /// Adds those of other records. If they cover offsets, these follow on those covered so far.
    pub fn add(&mut self, other: &Self) {
        if other.offsets() > 0 {
            if self.offsets() == 0 {
                self.start = other.start;
            }
            self.end = other.end;
        }
        self.rows += other.rows;
        self.exploded += other.exploded;
        self.quarantined += other.quarantined;
        self.tombstones += other.tombstones;
        self.superseded += other.superseded;
        self.deleted += other.deleted;
        self.absent += other.absent;
        self.gaps += other.gaps;
        add_counts(&mut self.rejected, &other.rejected);
        add_counts(&mut self.filtered, &other.filtered);
    }

    /// Offsets consumed.
    pub fn offsets(&self) -> u64 {
        self.end - self.start
    }

    /// Offsets accounted for.
    pub fn accounted(&self) -> u64 {
        let rejected: u64 = self.rejected.values().sum();
        let filtered: u64 = self.filtered.values().sum();
        let changed = self.superseded + self.deleted;
        self.rows + self.quarantined + rejected + filtered + self.tombstones + changed + self.absent + self.gaps
    }

    /// Offsets consumed less offsets accounted for; 0 when nothing is lost or doubled.
    pub fn difference(&self) -> i64 {
        self.offsets() as i64 - self.accounted() as i64
    }
}

/// What became of the records of some raw objects: an execution's counts, per partition.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Fate {
    /// Records of which rows were written.
    pub rows: u64,
    /// Rows written beyond the first of their record.
    #[serde(skip_serializing_if = "is_zero")]
    pub exploded: u64,
    /// Records quarantined.
    pub quarantined: u64,
    /// Records left out on purpose, by reason.
    pub filtered: BTreeMap<String, u64>,
    /// Tombstones seen.
    pub tombstones: u64,
    /// Records that lost to another version of their key.
    pub superseded: u64,
    /// Records that deleted their key.
    pub deleted: u64,
}

impl Fate {
    /// Records this accounts for.
    pub fn records(&self) -> u64 {
        let filtered: u64 = self.filtered.values().sum();
        self.rows + self.quarantined + self.tombstones + filtered + self.superseded + self.deleted
    }

    /// Of what was counted as rows, so many turned out to lose to another version, or to delete their key.
    ///
    /// # Errors
    /// `Bug` when more turned out than there were.
    pub fn resolve(&mut self, superseded: u64, deleted: u64) -> Result<()> {
        let left = self.rows.checked_sub(superseded + deleted);
        self.rows = left.ok_or_else(|| Error::bug("more records resolved by key than were converted"))?;
        self.superseded += superseded;
        self.deleted += deleted;
        Ok(())
    }

    /// Adds another slice's counts.
    pub fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        self.exploded += other.exploded;
        self.quarantined += other.quarantined;
        self.tombstones += other.tombstones;
        self.superseded += other.superseded;
        self.deleted += other.deleted;
        add_counts(&mut self.filtered, &other.filtered);
    }
}

fn add_counts<R: Ord + Clone>(counts: &mut BTreeMap<R, u64>, more: &BTreeMap<R, u64>) {
    for (reason, count) in more {
        *counts.entry(reason.clone()).or_default() += count;
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands references over")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Running totals of a table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "Text")]
pub struct Account(BTreeMap<TopicRef, BTreeMap<Partition, Totals>>);

/// The JSON form: topic incarnations as text, because JSON keys are text.
type Text = BTreeMap<String, BTreeMap<Partition, Totals>>;

impl TryFrom<Text> for Account {
    type Error = Error;
    fn try_from(text: Text) -> Result<Self> {
        let topics = text.into_iter().map(|(topic, parts)| Ok((topic.parse()?, parts)));
        Ok(Self(topics.collect::<Result<_>>()?))
    }
}

impl From<Account> for Text {
    fn from(account: Account) -> Self {
        account.0.into_iter().map(|(topic, parts)| (topic.to_string(), parts)).collect()
    }
}

impl Account {
    /// The totals of a partition, all zero at first.
    pub fn totals_mut(&mut self, partition: &PartitionRef) -> &mut Totals {
        self.0.entry(partition.topic.clone()).or_default().entry(partition.partition).or_default()
    }

    /// The totals of a partition.
    pub fn get(&self, partition: &PartitionRef) -> Option<&Totals> {
        self.0.get(&partition.topic)?.get(&partition.partition)
    }

    /// All partitions, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (PartitionRef, &Totals)> + '_ {
        self.0.iter().flat_map(|(topic, parts)| {
            parts.iter().map(move |(p, totals)| (PartitionRef { topic: topic.clone(), partition: *p }, totals))
        })
    }

    /// Adds what became of consumed records. Tombstones are the ledger's to count ([`Totals::add_batch`]).
    pub fn add_fate(&mut self, partition: &PartitionRef, fate: &Fate) {
        self.totals_mut(partition).add(&Totals {
            rows: fate.rows,
            exploded: fate.exploded,
            quarantined: fate.quarantined,
            filtered: fate.filtered.clone(),
            superseded: fate.superseded,
            deleted: fate.deleted,
            ..Totals::default()
        });
    }

    /// Replaces what became of some records by what became of them when they were converted again (`reprocess`).
    ///
    /// # Errors
    /// `Bug` when more is taken back than was ever counted.
    pub fn replace_fate(&mut self, partition: &PartitionRef, before: &Fate, after: &Fate) -> Result<()> {
        let at = || Error::bug(format!("{partition}: more records taken back than were counted"));
        let totals = self.totals_mut(partition);
        totals.rows = totals.rows.checked_sub(before.rows).ok_or_else(at)?;
        totals.exploded = totals.exploded.checked_sub(before.exploded).ok_or_else(at)?;
        totals.quarantined = totals.quarantined.checked_sub(before.quarantined).ok_or_else(at)?;
        totals.superseded = totals.superseded.checked_sub(before.superseded).ok_or_else(at)?;
        totals.deleted = totals.deleted.checked_sub(before.deleted).ok_or_else(at)?;
        for (reason, count) in &before.filtered {
            let slot = totals.filtered.get_mut(reason).ok_or_else(at)?;
            *slot = slot.checked_sub(*count).ok_or_else(at)?;
        }
        totals.filtered.retain(|_, count| *count > 0);
        self.add_fate(partition, after);
        Ok(())
    }

    /// Rows of the table that a newer version replaced.
    ///
    /// # Errors
    /// `Bug` when the partition never had so many.
    pub fn supersede(&mut self, partition: &PartitionRef, rows: u64) -> Result<()> {
        let totals = self.totals_mut(partition);
        let left = totals.rows.checked_sub(rows);
        totals.rows = left.ok_or_else(|| Error::bug(format!("{partition}: more rows replaced than were counted")))?;
        totals.superseded += rows;
        Ok(())
    }

    /// Records that were left out are rows again.
    ///
    /// # Errors
    /// `Bug` when the partition never had so many.
    pub fn restore(&mut self, partition: &PartitionRef, rows: u64) -> Result<()> {
        let totals = self.totals_mut(partition);
        let mut left = rows;
        let filtered = totals.filtered.iter_mut().filter(|(reason, _)| *reason != OTHER_EVENT).map(|(_, count)| count);
        for count in [&mut totals.superseded, &mut totals.deleted].into_iter().chain(filtered) {
            let taken = left.min(*count);
            *count -= taken;
            left -= taken;
        }
        if left > 0 {
            return Err(Error::bug(format!("{partition}: {left} more records restored than were left out")));
        }
        totals.filtered.retain(|_, count| *count > 0);
        totals.rows += rows;
        Ok(())
    }

    /// All rows of the table were replaced.
    pub fn supersede_all(&mut self) {
        for totals in self.0.values_mut().flat_map(BTreeMap::values_mut) {
            totals.superseded += std::mem::take(&mut totals.rows);
            totals.exploded = 0;
        }
    }

    /// Partitions whose offsets and accounts differ, with the difference.
    pub fn differences(&self) -> Vec<(PartitionRef, i64)> {
        self.iter().map(|(partition, totals)| (partition, totals.difference())).filter(|(_, d)| *d != 0).collect()
    }
}
