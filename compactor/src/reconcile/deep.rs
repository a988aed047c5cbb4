//! `reconcile --deep`: the table's own set of offsets against the ledger's, one by one.
//!
//! The caller feeds the `_firn` offsets of every live row of the table and of its quarantine table, in any order; they
//! become one bit each. Then the raw objects of every partition are read, and what they hold must be there exactly once, less
//! what the account says was left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use firn_shared::error::Result;
use firn_shared::ids::{Offset, PartitionRef};
use firn_shared::raw::chain::Chain;
use firn_shared::raw::manifest::{BatchManifest, RawObject};
use firn_shared::store::Store;
use futures::{StreamExt, TryStreamExt, stream};
use roaring::RoaringTreemap;
use serde::Serialize;

use super::account::{Account, OTHER_EVENT};
use super::ledger::{not_at, part};
use super::objects::{ObjectOffsets, offsets, refused};
use crate::plan::position::Position;
use crate::seam::Cpu;

const OBJECTS_AT_ONCE: usize = 8;
/// The chain is walked this many objects ahead of reading them: they are named and not held.
const OBJECTS_AHEAD: usize = 4096;

/// Bits of an ordinal beside its offset: a record of the largest size has fewer elements, a partition fewer offsets than the
/// other 40 bits count.
const ORDINAL_BITS: u32 = 24;

/// Which event names a table holds.
pub type Wanted = Arc<dyn Fn(Option<&str>) -> bool + Send + Sync>;

/// The offsets found in the table and its quarantine.
#[derive(Debug)]
pub struct DeepCheck {
    examples_max: usize,
    partitions: BTreeMap<PartitionRef, Found>,
}

#[derive(Debug, Default)]
struct Found {
    rows: RoaringTreemap,
    /// Rows beyond the first of their record, offset and ordinal in one number.
    further: RoaringTreemap,
    quarantined: RoaringTreemap,
    duplicates: Examples,
}

/// Offsets that should not be: how many, and the first of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Examples {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Vec<Offset>,
}

impl Examples {
    fn push(&mut self, offset: Offset, max: usize) {
        self.count += 1;
        if self.first.len() < max {
            self.first.push(offset);
        }
    }

    fn of(set: &RoaringTreemap, max: usize) -> Self {
        Self { count: set.len(), first: set.iter().take(max).collect() }
    }
}

impl fmt::Display for Examples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first: Vec<_> = self.first.iter().map(Offset::to_string).collect();
        let more = if self.count > first.len() as u64 { ", …" } else { "" };
        write!(f, "{} ({}{more})", self.count, first.join(", "))
    }
}

/// The outcome.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeepReport {
    /// One line a partition.
    pub partitions: Vec<DeepLine>,
}

/// A partition: what its raw objects hold for the table, and what the table has.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeepLine {
    /// `cluster/topic/generation[partition]`.
    pub partition: String,
    /// Records in raw objects that the table is to hold.
    pub expected: u64,
    /// Offsets that rows have.
    pub rows: u64,
    /// Rows beyond the first of their record: in the table, and by the account.
    pub exploded: (u64, u64),
    /// Offsets in the quarantine table.
    pub quarantined: u64,
    /// Records that the pipeline's filters left out, by the account; as many may be missing.
    pub filtered: u64,
    /// Records that an upsert left out, by the account: older versions and deletes; as many more may be missing.
    pub superseded: u64,
    /// In the ledger, but neither row nor in quarantine. The examples include what was left out on purpose.
    pub missing: Examples,
    /// Rows with an offset that another row or the quarantine has too.
    pub duplicates: Examples,
    /// In the table, but not in the ledger below the table's position, or not of its events.
    pub unexpected: Examples,
    /// Further rows of a record that lack the row before them.
    pub orphans: Examples,
    /// Records of other tables' events: in the raw objects, and by the account.
    pub other_events: (u64, u64),
}

impl DeepLine {
    /// Whether the table has each offset exactly once.
    pub fn is_clean(&self) -> bool {
        self.missing.count == self.filtered + self.superseded
            && self.duplicates.count == 0
            && self.unexpected.count == 0
            && self.orphans.count == 0
            && self.other_events.0 == self.other_events.1
            && self.exploded.0 == self.exploded.1
    }
}

impl DeepReport {
    /// Whether every partition is clean.
    pub fn is_clean(&self) -> bool {
        self.partitions.iter().all(DeepLine::is_clean)
    }
}

impl fmt::Display for DeepReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.partitions {
            let DeepLine { partition, expected, rows, quarantined, filtered, superseded, .. } = line;
            write!(f, "{partition}: {expected} offsets in raw objects, {rows} in rows, {quarantined} in quarantine")?;
            if *filtered > 0 {
                write!(f, ", {filtered} filtered")?;
            }
            if *superseded > 0 {
                write!(f, ", {superseded} superseded or deleted")?;
            }
            if line.exploded.0 > 0 {
                write!(f, ", {} further rows of the same records", line.exploded.0)?;
            }
            if line.is_clean() {
                writeln!(f, ": each exactly once")?;
                continue;
            }
            writeln!(f)?;
            if line.missing.count != *filtered + *superseded {
                writeln!(f, "  missing: {}", line.missing)?;
            }
            if line.duplicates.count > 0 {
                writeln!(f, "  duplicate: {}", line.duplicates)?;
            }
            if line.unexpected.count > 0 {
                writeln!(f, "  unexpected: {}", line.unexpected)?;
            }
            if line.orphans.count > 0 {
                writeln!(f, "  rows whose record lacks an earlier row: {}", line.orphans)?;
            }
            if line.exploded.0 != line.exploded.1 {
                let (found, counted) = line.exploded;
                writeln!(f, "  further rows of records: {found} in the table, {counted} in the account")?;
            }
            if line.other_events.0 != line.other_events.1 {
                let (found, counted) = line.other_events;
                writeln!(f, "  events of other tables: {found} in raw objects, {counted} in the account")?;
            }
        }
        write!(f, "{}", if self.is_clean() { "every offset exactly once" } else { "NOT CLEAN" })
    }
}

impl DeepCheck {
    /// Nothing fed yet; the report will name the first `examples_max` offsets of each kind.
    pub fn new(examples_max: usize) -> Self {
        Self { examples_max, partitions: BTreeMap::new() }
    }

    /// Feeds offsets of rows of the table, each with the row's number among those of its record.
    pub fn rows(&mut self, partition: &PartitionRef, offsets: impl IntoIterator<Item = (Offset, u32)>) {
        let max = self.examples_max;
        let found = self.found(partition);
        for (offset, ordinal) in offsets {
            let fresh = match ordinal {
                0 => found.rows.insert(offset),
                further => found.further.insert(offset << ORDINAL_BITS | u64::from(further)),
            };
            if !fresh {
                found.duplicates.push(offset, max);
            }
        }
    }

    /// Feeds offsets of rows of the quarantine table.
    pub fn quarantined(&mut self, partition: &PartitionRef, offsets: impl IntoIterator<Item = (Offset, u32)>) {
        let max = self.examples_max;
        let found = self.found(partition);
        for (offset, _) in offsets {
            if !found.quarantined.insert(offset) {
                found.duplicates.push(offset, max);
            }
        }
    }

    fn found(&mut self, partition: &PartitionRef) -> &mut Found {
        self.partitions.entry(partition.clone()).or_default()
    }

    /// Reads the raw objects below `position` and compares. Memory: one bit an offset, the names of some thousand objects, and
    /// the objects in work, which count against the bound of `cpu`.
    ///
    /// # Errors
    /// `Data` for a broken ledger or a corrupt raw object; those of the store.
    pub async fn against_ledger(
        mut self,
        store: &Arc<dyn Store>,
        cpu: &Cpu,
        (position, account): (&Position, &Account),
        wanted: &Wanted,
    ) -> Result<DeepReport> {
        let mut named: BTreeSet<PartitionRef> = self.partitions.keys().cloned().collect();
        named.extend(position.iter().map(|(partition, _)| partition));
        let mut lines = Vec::new();
        for partition in named {
            let end = position.get(&partition).unwrap_or(0);
            let expected = expected(store, cpu, (&partition, end), wanted).await?;
            let found = self.partitions.remove(&partition).unwrap_or_default();
            lines.push(self.compare(&partition, &expected, found, account));
        }
        Ok(DeepReport { partitions: lines })
    }

    fn compare(&self, partition: &PartitionRef, expected: &ObjectOffsets, found: Found, account: &Account) -> DeepLine {
        let max = self.examples_max;
        let (rows, quarantined) = (found.rows.len(), found.quarantined.len());
        let mut duplicates = found.duplicates;
        let mut orphans = Examples::default();
        for offset in &found.rows & &found.quarantined {
            duplicates.push(offset, max);
        }
        // A further row needs the one before it; the first has none.
        for further in &found.further {
            let (offset, ordinal) = (further >> ORDINAL_BITS, further & ((1 << ORDINAL_BITS) - 1));
            let before = if ordinal == 1 { found.rows.contains(offset) } else { found.further.contains(further - 1) };
            if !before {
                orphans.push(offset, max);
            }
        }
        let exploded = found.further.len();
        let has = found.rows | found.quarantined;
        let totals = account.get(partition);
        let filtered = totals.map(|totals| &totals.filtered);
        let of = |other: bool| -> u64 {
            let filtered = filtered.into_iter().flatten();
            filtered.filter(|(reason, _)| (*reason == OTHER_EVENT) == other).map(|(_, count)| count).sum()
        };
        DeepLine {
            partition: partition.to_string(),
            expected: expected.wanted.len(),
            rows,
            exploded: (exploded, totals.map_or(0, |totals| totals.exploded)),
            quarantined,
            filtered: of(false),
            superseded: totals.map_or(0, |totals| totals.superseded + totals.deleted),
            missing: Examples::of(&(&expected.wanted - &has), max),
            duplicates,
            unexpected: Examples::of(&(&has - &expected.wanted), max),
            orphans,
            other_events: (expected.other_events, of(true)),
        }
    }
}

/// What the raw objects of a partition hold below the table's position. Those that landing refused are read, too: the
/// account counts their records, and nothing else has them.
async fn expected(
    store: &Arc<dyn Store>,
    cpu: &Cpu,
    (partition, end): (&PartitionRef, Offset),
    wanted: &Wanted,
) -> Result<ObjectOffsets> {
    let chain = Chain::new(Arc::clone(store), partition.clone());
    let (mut all, mut from) = (ObjectOffsets::default(), 0);
    while from < end {
        let mut objects = Vec::new();
        let mut take = |batch: BatchManifest| {
            objects.extend(batch.objects.into_iter().map(|object| (object, Some(Arc::clone(wanted)))));
            objects.extend(batch.quarantine.into_iter().map(|object| (object, None)));
            Ok(objects.len() < OBJECTS_AHEAD)
        };
        let reached = part(&chain, (from, end), &mut take).await?;
        if reached == from || reached > end {
            return Err(not_at(partition, end, reached));
        }
        from = reached;
        let mut read = stream::iter(objects)
            .map(|(object, wanted)| read(Arc::clone(store), cpu, object, wanted))
            .buffer_unordered(OBJECTS_AT_ONCE);
        while let Some(object) = read.try_next().await? {
            all.wanted |= object.wanted;
            all.other_events += object.other_events;
        }
    }
    Ok(all)
}

/// Reads one object; of one that landing refused, without `wanted`, nothing is expected.
async fn read(store: Arc<dyn Store>, cpu: &Cpu, object: RawObject, wanted: Option<Wanted>) -> Result<ObjectOffsets> {
    let permit = cpu.permit(object.bytes).await?;
    let bytes = store.get(&object.key).await?;
    let name = format!("{}/{}", store.url(), object.key);
    let work = move || match wanted {
        Some(wanted) => offsets(&object, &bytes, &name, &*wanted),
        None => refused(&object, &bytes, &name).map(|()| ObjectOffsets::default()),
    };
    cpu.run(&permit, work).await?
}
