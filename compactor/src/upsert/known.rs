//! What the table knows of the keys of a bucket.
//!
//! A bucket that cannot be split any more holds little but one key, of which the table may have any number of rows: one that
//! was appended to before it became an upsert, say. Who wins depends on the newest of them alone, so of such a bucket no
//! more is kept while it is read; its rows are read once more to say which of them go.

use std::collections::{HashMap, HashSet};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{BooleanArray, RecordBatch};
use firn_shared::error::Result;

use super::bucket::Bucket;
use super::frames::{SharedFile, lock};
use super::kept;
use super::key::Keys;
use super::merge::{POSITION, REPLACED, UNVERSIONED, comparable, concat, split, take};
use super::resolve::{Incoming, newest, newest_of};

/// What the table knows of the keys of a bucket. Of a bucket beyond its share of memory only the newest of each key.
pub struct Table<'a> {
    /// Rows that stand.
    pub rows: Option<RecordBatch>,
    /// Rows that the run replaces.
    pub rows_replaced: Option<RecordBatch>,
    /// Remembered deletes that stand.
    pub deletes: Option<RecordBatch>,
    /// Remembered deletes that the run replaces.
    pub deletes_replaced: Option<RecordBatch>,
    /// Where all rows are, when `rows` are not all of them.
    pub again: Option<&'a SharedFile>,
}

impl<'a> Table<'a> {
    /// Of a bucket whose rows may take `bytes_max`, and its deletes as much; `see` is shown all rows that the run replaces.
    ///
    /// # Errors
    /// `Unavailable` for spilled files that cannot be read, and those of `see`.
    pub fn of(
        keys: &Keys,
        bucket: &'a Bucket,
        bytes_max: usize,
        see: impl FnMut(&RecordBatch) -> Result<()>,
    ) -> Result<Self> {
        let rows = |batches: &[RecordBatch]| newest_rows(keys, batches);
        let deletes = |batches: &[RecordBatch]| newest_deletes(keys, batches);
        let again = is_larger(&bucket.rows, bytes_max).then_some(&bucket.rows);
        let (rows, rows_replaced) = read(&bucket.rows, bytes_max, rows, see)?;
        let (deletes, deletes_replaced) = read(&bucket.deletes, bytes_max, deletes, |_| Ok(()))?;
        Ok(Self { rows, rows_replaced, deletes, deletes_replaced, again })
    }

    /// Keys whose newest version was replaced and did not come back as new or newer: an earlier version may count again.
    /// When deletes were forgotten, also keys of which the run has a version newer than anything known: what had kept it
    /// out may be one of those. With soft deletes, also keys that the run marks as deleted in place of a row that was
    /// replaced, and of which it has another version: the newest values may be in none of them.
    pub fn wanted_again(
        &self,
        keys: &Keys,
        own: Option<&RecordBatch>,
        (forgotten, soft): (bool, bool),
    ) -> Result<HashSet<Vec<u8>>> {
        let replaced = [&self.rows_replaced, &self.deletes_replaced].map(Option::as_ref);
        let mut wanted = orphaned(keys, replaced, own)?;
        if let (Some(own), Some(rows)) = (own.filter(|_| soft), &self.rows_replaced) {
            let (of, marked) = (keys.keys(own)?, kept::marked(own));
            let of_mark = |mark: bool| -> HashSet<&[u8]> {
                (0..of.num_rows()).filter(|row| marked[*row] == mark).map(|row| of.row(row).data()).collect()
            };
            let (deleted, others) = (of_mark(true), of_mark(false));
            let replaced = keys.keys(rows)?;
            let of_both = replaced.iter().filter(|key| deleted.contains(key.data()) && others.contains(key.data()));
            wanted.extend(of_both.map(|key| key.data().to_vec()));
        }
        if let Some(own) = own.filter(|_| forgotten) {
            wanted.extend(self.newer_than_known(keys, own)?);
        }
        Ok(wanted)
    }

    /// Keys of rows that are newer than anything known of them.
    fn newer_than_known(&self, keys: &Keys, own: &RecordBatch) -> Result<Vec<Vec<u8>>> {
        let mut known: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        let batches = [&self.rows, &self.deletes, &self.rows_replaced, &self.deletes_replaced];
        for batch in batches.into_iter().flatten() {
            let (of, versions) = comparable(keys, Some(batch))?;
            for (key, version) in of.iter().zip(versions.iter()) {
                let newest = known.entry(key.data().to_vec()).or_default();
                if newest.as_slice() < version.data() {
                    *newest = version.data().to_vec();
                }
            }
        }
        let (of, versions) = comparable(keys, Some(own))?;
        let new = of
            .iter()
            .zip(versions.iter())
            .filter(|(key, version)| known.get(key.data()).is_none_or(|newest| newest.as_slice() < version.data()));
        Ok(new.map(|(key, _)| key.data().to_vec()).collect())
    }
}

fn orphaned(keys: &Keys, replaced: [Option<&RecordBatch>; 2], own: Option<&RecordBatch>) -> Result<HashSet<Vec<u8>>> {
    let (own_keys, own_versions) = comparable(keys, own)?;
    let mut newest: HashMap<&[u8], &[u8]> = HashMap::with_capacity(own_keys.num_rows());
    for (key, version) in own_keys.iter().zip(own_versions.iter()) {
        let slot = newest.entry(key.data()).or_insert(version.data());
        *slot = (*slot).max(version.data());
    }
    let mut found = HashSet::new();
    for replaced in replaced.into_iter().flatten() {
        let (of, versions) = comparable(keys, Some(replaced))?;
        for (key, version) in of.iter().zip(versions.iter()) {
            if newest.get(key.data()).is_none_or(|newest| *newest < version.data()) {
                found.insert(key.data().to_vec());
            }
        }
    }
    Ok(found)
}

fn is_larger(file: &SharedFile, bytes_max: usize) -> bool {
    lock(file).bytes() > bytes_max as u64
}

/// What stands and what is replaced in a file: all of it when that is no more than `bytes_max`, else what `reduce` leaves.
fn read(
    file: &SharedFile,
    bytes_max: usize,
    mut reduce: impl FnMut(&[RecordBatch]) -> Result<RecordBatch>,
    mut see_replaced: impl FnMut(&RecordBatch) -> Result<()>,
) -> Result<(Option<RecordBatch>, Option<RecordBatch>)> {
    let limit = if is_larger(file, bytes_max) { bytes_max / 2 } else { usize::MAX };
    let (mut standing, mut replaced) = (Held::new(limit), Held::new(limit));
    for batch in lock(file).read()? {
        let (stands, goes) = by_mark(&batch?)?;
        if let Some(goes) = goes {
            see_replaced(&goes)?;
            replaced.add(goes, &mut reduce)?;
        }
        stands.map_or(Ok(()), |stands| standing.add(stands, &mut reduce))?;
    }
    Ok((standing.whole()?, replaced.whole()?))
}

/// Rows that stand, and rows that are replaced.
pub fn by_mark(batch: &RecordBatch) -> Result<(Option<RecordBatch>, Option<RecordBatch>)> {
    split(batch, |batch| Ok(batch[REPLACED].as_boolean().clone()))
}

/// Batches of which only some rows matter: reduced whenever they pass a limit.
pub struct Held {
    pub batches: Vec<RecordBatch>,
    bytes: usize,
    limit: usize,
}

impl Held {
    /// Reduces beyond `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { batches: Vec::new(), bytes: 0, limit }
    }

    /// Takes a batch.
    ///
    /// # Errors
    /// Those of `reduce`.
    pub fn add(
        &mut self,
        batch: RecordBatch,
        reduce: &mut impl FnMut(&[RecordBatch]) -> Result<RecordBatch>,
    ) -> Result<()> {
        self.bytes += batch.get_array_memory_size();
        self.batches.push(batch);
        if self.bytes > self.limit && self.batches.len() > 1 {
            let reduced = reduce(&std::mem::take(&mut self.batches))?;
            self.bytes = reduced.get_array_memory_size();
            // What did not shrink is not tried again before it has doubled.
            self.limit = self.limit.max(self.bytes.saturating_mul(2));
            self.batches.push(reduced);
        }
        Ok(())
    }

    fn whole(self) -> Result<Option<RecordBatch>> {
        self.batches.first().map(|first| concat(&first.schema(), &self.batches)).transpose()
    }
}

/// The newest of each key; of equal ones the last.
fn newest_rows(keys: &Keys, batches: &[RecordBatch]) -> Result<RecordBatch> {
    let whole = concat(&batches[0].schema(), batches)?;
    let (of, versions) = comparable(keys, Some(&whole))?;
    take(&whole, newest(Incoming { keys: &of, versions: &versions }))
}

/// The newest of each key: of deletes with a version, and of those without by whatever they are compared by.
fn newest_deletes(keys: &Keys, batches: &[RecordBatch]) -> Result<RecordBatch> {
    let whole = concat(&batches[0].schema(), batches)?;
    let (of, versions) = comparable(keys, Some(&whole))?;
    let (ties, marks) = (keys.ties(&whole)?, is_unversioned(&whole));
    let (unversioned, versioned): (Vec<u32>, Vec<u32>) =
        (0..whole.num_rows() as u32).partition(|row| marks.value(*row as usize));
    let by_version = Incoming { keys: &of, versions: &versions };
    let mut stay = newest_of(by_version, versioned.into_iter());
    stay.extend(newest_of(by_version, unversioned.iter().copied()));
    stay.extend(newest_of(Incoming { keys: &of, versions: &ties }, unversioned.into_iter()));
    stay.sort_unstable();
    stay.dedup();
    take(&whole, stay)
}

/// Which remembered deletes have no version.
pub fn is_unversioned(deletes: &RecordBatch) -> BooleanArray {
    let positions = deletes[POSITION].as_primitive::<Int64Type>();
    positions.values().iter().map(|position| Some(*position == UNVERSIONED)).collect()
}
