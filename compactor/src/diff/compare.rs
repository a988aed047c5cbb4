//! One bucket: rows of before and after with the same identity meet, and their columns are compared.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch, UInt32Array};
use firn_shared::error::{Error, Result};
use roaring::RoaringBitmap;
use serde::Serialize;

use super::identity::Identity;
use crate::provenance;
use crate::spill::SpillFile;
use crate::table::read::Origins;

/// Examples of each kind.
const EXAMPLES: usize = 5;

/// What was found, by row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Rows that come and were not there.
    pub added: u64,
    /// Rows that were there and do not come again.
    pub removed: u64,
    /// Rows that come with another value in some column.
    pub changed: u64,
    /// Rows that come as they were.
    pub same: u64,
    /// Changed rows by column. `_firn` changes when a row is made of another record.
    pub columns: BTreeMap<String, u64>,
    /// Where the first rows of each kind came from.
    pub examples: Examples,
}

/// Where some rows came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Examples {
    /// Of rows that are added.
    pub added: Vec<String>,
    /// Of rows that are removed.
    pub removed: Vec<String>,
    /// Of rows that change, as they will be.
    pub changed: Vec<String>,
}

impl Counts {
    /// Adds another bucket.
    pub(super) fn add(&mut self, other: Self) {
        self.added += other.added;
        self.removed += other.removed;
        self.changed += other.changed;
        self.same += other.same;
        for (column, rows) in other.columns {
            *self.columns.entry(column).or_default() += rows;
        }
        for (ours, theirs) in [
            (&mut self.examples.added, other.examples.added),
            (&mut self.examples.removed, other.examples.removed),
            (&mut self.examples.changed, other.examples.changed),
        ] {
            let room = EXAMPLES - ours.len();
            ours.extend(theirs.into_iter().take(room));
        }
    }
}

/// Compares a bucket.
///
/// # Errors
/// `Unavailable` for spilled files that cannot be read, `Bug` for those that are not what was written.
pub fn compare(identity: &Identity, before: &SpillFile, after: &SpillFile) -> Result<Counts> {
    let (before, after) = (whole(before)?, whole(after)?);
    let mut counts = Counts::default();
    let (before, after) = match (before, after) {
        (None, None) => return Ok(counts),
        (Some(before), None) => {
            counts.removed = before.num_rows() as u64;
            counts.examples.removed = places(&before, 0..before.num_rows() as u32)?;
            return Ok(counts);
        }
        (None, Some(after)) => {
            counts.added = after.num_rows() as u64;
            counts.examples.added = places(&after, 0..after.num_rows() as u32)?;
            return Ok(counts);
        }
        (Some(before), Some(after)) => (before, after),
    };
    let Pairs { before: old, after: new, removed, added } = pairs(identity, &before, &after)?;
    (counts.removed, counts.added) = (removed.len() as u64, added.len() as u64);
    counts.examples.removed = places(&before, removed)?;
    counts.examples.added = places(&after, added)?;
    let (old, new) = (take(&before, old)?, take(&after, new)?);
    let mut changed = RoaringBitmap::new();
    for (field, (a, b)) in old.schema_ref().fields().iter().zip(old.columns().iter().zip(new.columns())) {
        let mut rows = RoaringBitmap::new();
        differing(a.as_ref(), b.as_ref(), 0..old.num_rows(), &mut rows);
        if !rows.is_empty() {
            counts.columns.insert(field.name().clone(), rows.len());
            changed |= rows;
        }
    }
    counts.changed = changed.len();
    counts.same = old.num_rows() as u64 - counts.changed;
    counts.examples.changed = places(&new, changed)?;
    Ok(counts)
}

/// Rows that are in both, at the same place of both lists; and those that are in one.
struct Pairs {
    before: Vec<u32>,
    after: Vec<u32>,
    removed: Vec<u32>,
    added: Vec<u32>,
}

/// Several rows of one identity (a record may make several) meet in their order.
fn pairs(identity: &Identity, before: &RecordBatch, after: &RecordBatch) -> Result<Pairs> {
    let (of_before, of_after) = (identity.of(before)?, identity.of(after)?);
    let mut waiting: HashMap<&[u8], VecDeque<u32>> = HashMap::with_capacity(before.num_rows());
    for row in 0..before.num_rows() as u32 {
        waiting.entry(of_before.row(row as usize).data()).or_default().push_back(row);
    }
    let mut pairs = Pairs { before: Vec::new(), after: Vec::new(), removed: Vec::new(), added: Vec::new() };
    for row in 0..after.num_rows() as u32 {
        match waiting.get_mut(of_after.row(row as usize).data()).and_then(VecDeque::pop_front) {
            Some(old) => {
                pairs.before.push(old);
                pairs.after.push(row);
            }
            None => pairs.added.push(row),
        }
    }
    pairs.removed = waiting.into_values().flatten().collect();
    pairs.removed.sort_unstable();
    Ok(pairs)
}

/// Rows of `range` that differ: halves that are equal are not looked into.
fn differing(a: &dyn Array, b: &dyn Array, range: Range<usize>, found: &mut RoaringBitmap) {
    if range.is_empty() || a.slice(range.start, range.len()) == b.slice(range.start, range.len()) {
        return;
    }
    if range.len() == 1 {
        found.insert(range.start as u32);
        return;
    }
    let middle = range.start + range.len() / 2;
    differing(a, b, range.start..middle, found);
    differing(a, b, middle..range.end, found);
}

fn whole(file: &SpillFile) -> Result<Option<RecordBatch>> {
    let batches = file.read()?.collect::<Result<Vec<_>>>()?;
    let Some(first) = batches.first() else { return Ok(None) };
    let whole = arrow_select::concat::concat_batches(first.schema_ref(), &batches);
    whole.map(Some).map_err(|e| Error::bug("cannot join rows").with_source(e))
}

fn take(batch: &RecordBatch, rows: Vec<u32>) -> Result<RecordBatch> {
    arrow_select::take::take_record_batch(batch, &UInt32Array::from(rows))
        .map_err(|e| Error::bug("cannot take rows").with_source(e))
}

/// Where the first of these rows came from.
fn places(batch: &RecordBatch, rows: impl IntoIterator<Item = u32>) -> Result<Vec<String>> {
    let column = batch.column_by_name(provenance::COLUMN).and_then(|column| column.as_struct_opt());
    let origins = Origins::of(column.ok_or_else(|| Error::bug("rows without provenance"))?)?;
    let place = |row: u32| {
        Ok(match origins.partition(row as usize)? {
            Some(partition) => format!("{partition} offset {}", origins.offsets.value(row as usize)),
            None => "a row of another program".to_owned(),
        })
    };
    rows.into_iter().take(EXAMPLES).map(place).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::builder::{Int32Builder, ListBuilder};
    use arrow_array::{ArrayRef, Float64Array, StringArray};

    use super::*;

    fn check(a: ArrayRef, b: ArrayRef, expected: &[u32]) {
        let mut found = RoaringBitmap::new();
        differing(&a, &b, 0..a.len(), &mut found);
        assert_eq!(found.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn rows_that_differ_are_found_whatever_their_type() {
        let text = |values: [Option<&str>; 5]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
        let base = text([Some("a"), None, Some("c"), Some("d"), None]);
        check(base.clone(), text([Some("a"), None, Some("c"), Some("d"), None]), &[]);
        check(base, text([Some("b"), None, None, Some("d"), Some("")]), &[0, 2, 4]);
        // A NaN that stays one has not changed.
        let numbers = |values: [f64; 3]| Arc::new(Float64Array::from(values.to_vec())) as ArrayRef;
        check(numbers([f64::NAN, 1.0, 2.0]), numbers([f64::NAN, 1.0, -2.0]), &[2]);
        let lists = |values: [&[i32]; 3]| {
            let mut lists = ListBuilder::new(Int32Builder::new());
            for list in values {
                lists.values().append_slice(list);
                lists.append(true);
            }
            Arc::new(lists.finish()) as ArrayRef
        };
        check(lists([&[1, 2], &[], &[3]]), lists([&[1], &[2], &[3]]), &[0, 1]);
    }
}
