//! One bucket: its rows and what the table knows of their keys, to the rows that stay and the rows that go.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt32Type};
use arrow_array::{Array, BooleanArray, RecordBatch, UInt32Array};
use arrow_row::Rows;
use arrow_schema::SchemaRef;
use firn_shared::error::{Error, Result};
use firn_shared::ids::PartitionRef;
use roaring::RoaringTreemap;

use super::key::Keys;
use super::resolve::{Incoming, Known, newest, resolve};
use super::shuffle::{DELETE, deletes};
use super::soften::soften;
use super::spill::SpillFile;
use super::truncate::Truncations;
use crate::provenance;
use crate::table::read::Origins;

/// Number of a candidate file, in the batches of what the table knows.
pub const FILE: &str = "__firn_file";
/// Position of the row in it.
pub const POSITION: &str = "__firn_position";
/// Whether the run replaces the row whatever its version (`reprocess`).
pub const REPLACED: &str = "__firn_replaced";

/// Rows counted by where they came from. Rows without provenance are nobody's.
pub type Counts = BTreeMap<PartitionRef, u64>;

/// Rows of the table: by number of the file, their positions.
pub type Places = BTreeMap<u32, RoaringTreemap>;

/// What holds for all buckets.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// What truncates took.
    pub truncations: &'a Truncations,
    /// Rows that a truncate took are marked as deleted and stay.
    pub soft: bool,
    /// Deletes were forgotten: a record that nothing is known of may have been deleted all the same.
    pub forgotten: bool,
    /// Every record of earlier runs counts again.
    pub everything: bool,
}

/// A bucket, resolved.
#[derive(Debug, Default)]
pub struct Merged {
    /// Rows for the table; none when empty.
    pub rows: Vec<RecordBatch>,
    /// Rows that deleted their key, to be remembered.
    pub deletes: Vec<RecordBatch>,
    /// Rows of the table that go.
    pub outdated: Places,
    /// Their keys, with [`FILE`].
    pub outdated_keys: Vec<RecordBatch>,
    /// Rows of the table that a truncate took and that stay, marked.
    pub softened: Places,
    /// Incoming records that an equal key's newer version beat.
    pub superseded: Counts,
    /// Incoming records that deleted their key.
    pub deleted: Counts,
    /// Rows of the table that go, because the run has a newer version.
    pub outdated_by: Counts,
    /// Rows of the table that go, because the run replaces what their records became.
    pub replaced_by: Counts,
    /// Records of earlier runs that are rows again.
    pub restored: Counts,
}

/// What meets in one bucket.
#[derive(Debug, Clone, Copy)]
pub struct Bucket<'a> {
    /// Rows of the run.
    pub incoming: &'a Mutex<SpillFile>,
    /// Rows of earlier runs that may count again.
    pub recalled: Option<&'a Mutex<SpillFile>>,
    /// Rows of the table.
    pub rows: &'a Mutex<SpillFile>,
    /// Deletes that the table remembers.
    pub deletes: &'a Mutex<SpillFile>,
}

/// Resolves one bucket. Memory: its distinct keys, twice.
///
/// # Errors
/// `Unavailable` for spilled files that cannot be read, `Bug` for those that are not what was written.
pub fn merge(keys: &Keys, bucket: Bucket<'_>, rules: Rules<'_>, bytes_max: usize) -> Result<Merged> {
    let mut merged = Merged::default();
    let known = Table::of(bucket)?;
    if let Some(replaced) = &known.rows_replaced {
        count(replaced, 0..replaced.num_rows(), &mut merged.replaced_by)?;
        places(replaced, 0..replaced.num_rows(), &mut merged.outdated);
        merged.outdated_keys.push(key_columns(replaced, keys)?);
    }
    let own = load(keys, bucket.incoming, bytes_max, &mut merged.superseded)?;
    let recalled = match bucket.recalled {
        Some(file) => load(keys, file, bytes_max, &mut Counts::new())?,
        None => None,
    };
    let recalled = match recalled {
        Some(recalled) if rules.everything => Some(recalled),
        // They were let in by a filter that lets others pass, too, whose standing rows were not looked up.
        Some(recalled) => {
            let wanted = known.wanted_again(keys, own.as_ref(), rules.forgotten)?;
            let of = keys.keys(&recalled)?;
            let wanted = (0..of.num_rows()).filter(|row| wanted.contains(of.row(*row).data()));
            Some(take(&recalled, wanted.map(|row| row as u32).collect())?)
        }
        None => None,
    };
    // Rows from this number on are not the run's own.
    let own_rows = own.as_ref().map_or(0, RecordBatch::num_rows) as u32;
    let both: Vec<RecordBatch> = own.into_iter().chain(recalled).collect();
    let incoming = both.first().map(|first| concat(&first.schema(), &both)).transpose()?;
    drop(both);
    let arriving = comparable(keys, incoming.as_ref())?;
    let table = comparable(keys, known.rows.as_ref())?;
    let deletes_known = comparable(keys, known.deletes.as_ref())?;
    let mut resolution = resolve(
        Incoming { keys: &arriving.0, versions: &arriving.1 },
        Known { keys: &table.0, versions: &table.1 },
        Known { keys: &deletes_known.0, versions: &deletes_known.1 },
    );
    let taken = known.rows.as_ref().map(|rows| rules.truncations.over(keys, rows)).transpose()?;
    let taken = taken.map(|over| over.iter().map(Option::is_some).collect::<Vec<_>>());
    if let Some(incoming) = incoming.as_ref().filter(|_| !rules.soft) {
        // What came before a truncate is no row, however new it is.
        let over = rules.truncations.over(keys, incoming)?;
        let (lost, left) = resolution.winners.into_iter().partition(|row| over[*row as usize].is_some());
        resolution.winners = left;
        resolution.superseded.extend::<Vec<u32>>(lost);
    }
    drop((arriving, table, deletes_known));
    if let Some(standing) = &known.rows {
        leave(standing, &taken.unwrap_or_default(), resolution.outdated, (keys, rules.soft), &mut merged)?;
    }
    merged.outdated_keys.retain(|batch| batch.num_rows() > 0);
    if let Some(incoming) = &incoming {
        // What was recalled and lost is superseded as before.
        resolution.superseded.retain(|row| *row < own_rows);
        count(incoming, numbers(&resolution.superseded), &mut merged.superseded)?;
        enter(incoming, resolution.winners, own_rows, (keys, rules), &mut merged)?;
    }
    Ok(merged)
}

/// Rows of the table that have a newer version now, or that a truncate took.
fn leave(
    standing: &RecordBatch,
    taken: &[bool],
    mut outdated: Vec<u32>,
    (keys, soft): (&Keys, bool),
    merged: &mut Merged,
) -> Result<()> {
    let newer: HashSet<u32> = outdated.iter().copied().collect();
    let taken = (0u32..).zip(taken).filter(|(row, taken)| **taken && !newer.contains(row)).map(|(row, _)| row);
    if soft {
        places(standing, taken.map(|row| row as usize), &mut merged.softened);
    } else {
        outdated.extend(taken);
    }
    count(standing, numbers(&outdated), &mut merged.outdated_by)?;
    places(standing, numbers(&outdated), &mut merged.outdated);
    let gone = take(standing, outdated)?;
    merged.outdated_keys.push(key_columns(&gone, keys)?);
    Ok(())
}

/// Incoming rows that won: rows for the table, and deletes to remember.
fn enter(
    incoming: &RecordBatch,
    winners: Vec<u32>,
    own_rows: u32,
    (keys, rules): (&Keys, Rules<'_>),
    merged: &mut Merged,
) -> Result<()> {
    let (again, new): (Vec<u32>, Vec<u32>) = winners.into_iter().partition(|row| *row >= own_rows);
    for (winners, of_run) in [(new, true), (again, false)] {
        let (rows, gone) = split(&take(incoming, winners)?, deletes)?;
        if let Some(gone) = gone {
            // Those of earlier runs have their place in the account.
            if of_run {
                count(&gone, 0..gone.num_rows(), &mut merged.deleted)?;
            }
            merged.deletes.push(known_columns(&gone, keys)?);
        }
        if let Some(mut rows) = rows {
            if !of_run {
                count(&rows, 0..rows.num_rows(), &mut merged.restored)?;
            }
            if rules.soft {
                let over = rules.truncations.over(keys, &rows)?;
                rows = soften(&rows, &over)?;
            }
            merged.rows.push(without(&rows, DELETE)?);
        }
    }
    Ok(())
}

/// What the table knows of the keys of a bucket.
struct Table {
    rows: Option<RecordBatch>,
    rows_replaced: Option<RecordBatch>,
    deletes: Option<RecordBatch>,
    deletes_replaced: Option<RecordBatch>,
}

impl Table {
    fn of(bucket: Bucket<'_>) -> Result<Self> {
        let (rows, rows_replaced) = by_mark(all(bucket.rows)?)?;
        let (deletes, deletes_replaced) = by_mark(all(bucket.deletes)?)?;
        Ok(Self { rows, rows_replaced, deletes, deletes_replaced })
    }

    /// Keys whose newest version was replaced and did not come back as new or newer: an earlier version may count again.
    /// When deletes were forgotten, also keys of which the run has a version newer than anything known: what had kept it
    /// out may be one of those.
    fn wanted_again(&self, keys: &Keys, own: Option<&RecordBatch>, forgotten: bool) -> Result<HashSet<Vec<u8>>> {
        let replaced = [&self.rows_replaced, &self.deletes_replaced].map(Option::as_ref);
        let mut wanted = orphaned(keys, replaced, own)?;
        if let Some(own) = own.filter(|_| forgotten) {
            let mut known: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
            for batch in [&self.rows, &self.deletes].into_iter().flatten().chain(replaced.into_iter().flatten()) {
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
            wanted.extend(new.map(|(key, _)| key.data().to_vec()));
        }
        Ok(wanted)
    }
}

/// Keys of which earlier versions may count again.
///
/// # Errors
/// As [`merge`].
pub fn orphans(keys: &Keys, bucket: Bucket<'_>, bytes_max: usize, forgotten: bool) -> Result<HashSet<Vec<u8>>> {
    let known = Table::of(bucket)?;
    if !forgotten && known.rows_replaced.is_none() && known.deletes_replaced.is_none() {
        return Ok(HashSet::new());
    }
    let own = load(keys, bucket.incoming, bytes_max, &mut Counts::new())?;
    known.wanted_again(keys, own.as_ref(), forgotten)
}

fn orphaned(keys: &Keys, replaced: [Option<&RecordBatch>; 2], own: Option<&RecordBatch>) -> Result<HashSet<Vec<u8>>> {
    let (own_keys, own_versions) = comparable(keys, own)?;
    let newest: HashMap<&[u8], &[u8]> =
        own_keys.iter().zip(own_versions.iter()).map(|(key, version)| (key.data(), version.data())).collect();
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

/// Rows that stand, and rows that are replaced.
fn by_mark(batch: Option<RecordBatch>) -> Result<(Option<RecordBatch>, Option<RecordBatch>)> {
    match batch {
        Some(batch) => split(&batch, |batch| Ok(batch[REPLACED].as_boolean().clone())),
        None => Ok((None, None)),
    }
}

/// The newest row of each key in the bucket. Buckets are read in parts and reduced as they grow, so that a key with a
/// million versions costs no more than one with few.
fn load(
    keys: &Keys,
    file: &Mutex<SpillFile>,
    bytes_max: usize,
    superseded: &mut Counts,
) -> Result<Option<RecordBatch>> {
    let (mut held, mut bytes, mut limit) = (Vec::new(), 0, bytes_max);
    for batch in file.lock().unwrap_or_else(PoisonError::into_inner).read()? {
        let batch = batch?;
        bytes += batch.get_array_memory_size();
        held.push(batch);
        if bytes > limit && held.len() > 1 {
            let reduced = reduce(keys, &std::mem::take(&mut held), superseded)?;
            bytes = reduced.get_array_memory_size();
            // What did not shrink is not tried again before it has doubled.
            limit = limit.max(bytes * 2);
            held.push(reduced);
        }
    }
    if held.is_empty() { Ok(None) } else { reduce(keys, &held, superseded).map(Some) }
}

fn reduce(keys: &Keys, batches: &[RecordBatch], superseded: &mut Counts) -> Result<RecordBatch> {
    let [first, ..] = batches else { return Err(Error::bug("nothing to reduce")) };
    let whole = concat(&first.schema(), batches)?;
    let (of, versions) = comparable(keys, Some(&whole))?;
    let stay = newest(Incoming { keys: &of, versions: &versions });
    let mut next = stay.iter().peekable();
    let lost = (0..whole.num_rows() as u32).filter(|n| next.next_if_eq(&n).is_none());
    count(&whole, lost.map(|n| n as usize), superseded)?;
    take(&whole, stay)
}

/// Keys and versions of a batch; empty for none.
fn comparable(keys: &Keys, batch: Option<&RecordBatch>) -> Result<(Rows, Rows)> {
    match batch {
        Some(batch) => Ok((keys.keys(batch)?, keys.versions(batch)?)),
        None => Ok(keys.none()),
    }
}

fn all(file: &Mutex<SpillFile>) -> Result<Option<RecordBatch>> {
    let batches = file.lock().unwrap_or_else(PoisonError::into_inner).read()?.collect::<Result<Vec<_>>>()?;
    match batches.first() {
        Some(first) => concat(&first.schema(), &batches).map(Some),
        None => Ok(None),
    }
}

fn concat(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<RecordBatch> {
    arrow_select::concat::concat_batches(schema, batches).map_err(|e| Error::bug("cannot join rows").with_source(e))
}

fn take(batch: &RecordBatch, rows: Vec<u32>) -> Result<RecordBatch> {
    arrow_select::take::take_record_batch(batch, &UInt32Array::from(rows))
        .map_err(|e| Error::bug("cannot take rows").with_source(e))
}

/// Rows that are not marked, and rows that are; `None` for none.
fn split(
    batch: &RecordBatch,
    marks: impl Fn(&RecordBatch) -> Result<BooleanArray>,
) -> Result<(Option<RecordBatch>, Option<RecordBatch>)> {
    let marks = marks(batch)?;
    let (marked, plain): (Vec<u32>, Vec<u32>) =
        (0..batch.num_rows() as u32).partition(|row| marks.value(*row as usize));
    let part = |rows: Vec<u32>| match rows.len() {
        0 => Ok(None),
        all if all == batch.num_rows() => Ok(Some(batch.clone())),
        _ => take(batch, rows).map(Some),
    };
    Ok((part(plain)?, part(marked)?))
}

fn without(batch: &RecordBatch, column: &str) -> Result<RecordBatch> {
    let index = batch.schema_ref().index_of(column).map_err(|e| Error::bug("a column is gone").with_source(e))?;
    let mut batch = batch.clone();
    batch.remove_column(index);
    Ok(batch)
}

fn project(batch: &RecordBatch, columns: &[&str]) -> Result<RecordBatch> {
    let index = |name: &&str| batch.schema_ref().index_of(name);
    let found = columns.iter().map(index).collect::<Result<Vec<_>, _>>().and_then(|at| batch.project(&at));
    found.map_err(|e| Error::bug("a spilled batch lacks a column").with_source(e))
}

/// Key columns and [`FILE`].
fn key_columns(batch: &RecordBatch, keys: &Keys) -> Result<RecordBatch> {
    let columns: Vec<&str> = keys.names().iter().map(String::as_str).chain([FILE]).collect();
    project(batch, &columns)
}

/// The columns that are remembered of a delete.
fn known_columns(batch: &RecordBatch, keys: &Keys) -> Result<RecordBatch> {
    project(batch, &keys.columns())
}

fn numbers(rows: &[u32]) -> impl Iterator<Item = usize> + '_ {
    rows.iter().map(|row| *row as usize)
}

fn places(batch: &RecordBatch, rows: impl Iterator<Item = usize>, to: &mut Places) {
    let files = batch[FILE].as_primitive::<UInt32Type>();
    let positions = batch[POSITION].as_primitive::<Int64Type>();
    for row in rows {
        to.entry(files.value(row)).or_default().insert(positions.value(row) as u64);
    }
}

/// Adds rows to others.
pub fn add_places(to: &mut Places, more: Places) {
    for (file, rows) in more {
        *to.entry(file).or_default() |= rows;
    }
}

/// Counts records by where they came from. The row of a tombstone, a delete without a position in its source, is left out:
/// its record has its place in the account, as a tombstone.
fn count(batch: &RecordBatch, rows: impl Iterator<Item = usize>, counts: &mut Counts) -> Result<()> {
    let column = batch.column_by_name(provenance::COLUMN).and_then(|c| c.as_struct_opt());
    let column = column.ok_or_else(|| Error::bug("rows without provenance"))?;
    let origins = Origins::of(column)?;
    let marks = batch.column_by_name(DELETE).and_then(|c| c.as_boolean_opt());
    let tombstones = marks.zip(column.column_by_name(provenance::VERSION));
    let is_record = |row: &usize| tombstones.is_none_or(|(marks, at)| !marks.value(*row) || at.is_valid(*row));
    for (partition, rows) in origins.count(rows.filter(is_record))? {
        *counts.entry(partition).or_default() += rows;
    }
    Ok(())
}

/// One lane's results, added up.
impl Merged {
    /// Adds the counts of another bucket; its rows are the writer's by then.
    pub fn add_counts(&mut self, other: &mut Self) {
        add_places(&mut self.outdated, std::mem::take(&mut other.outdated));
        add_places(&mut self.softened, std::mem::take(&mut other.softened));
        for (ours, theirs) in [
            (&mut self.superseded, &mut other.superseded),
            (&mut self.deleted, &mut other.deleted),
            (&mut self.outdated_by, &mut other.outdated_by),
            (&mut self.replaced_by, &mut other.replaced_by),
            (&mut self.restored, &mut other.restored),
        ] {
            for (partition, rows) in std::mem::take(theirs) {
                *ours.entry(partition).or_default() += rows;
            }
        }
    }
}

/// The schema of what the table knows of keys: the columns of a lookup, [`FILE`], [`POSITION`] and [`REPLACED`].
pub fn known_schema(columns: &SchemaRef) -> SchemaRef {
    use arrow_schema::{DataType, Field, Schema};
    let mut fields: Vec<_> = columns.fields().iter().cloned().collect();
    for (name, r#type) in [(FILE, DataType::UInt32), (POSITION, DataType::Int64), (REPLACED, DataType::Boolean)] {
        fields.push(Arc::new(Field::new(name, r#type, false)));
    }
    Arc::new(Schema::new(fields))
}
