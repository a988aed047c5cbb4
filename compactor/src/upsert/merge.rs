//! One bucket: its rows and what the table knows of their keys, to the rows that stay and the rows that go.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt32Type};
use arrow_array::{BooleanArray, RecordBatch, UInt32Array};
use arrow_row::Rows;
use arrow_schema::SchemaRef;
use firn_shared::error::{Error, Result};
use firn_shared::ids::PartitionRef;
use roaring::RoaringTreemap;

use super::bucket::Bucket;
use super::frames::{SharedFile, lock};
use super::kept::{self, Source};
use super::key::Keys;
use super::known::{Held, Table, by_mark, is_unversioned};
use super::resolve::{Incoming, Known, Resolution, newest, newest_of, resolve};
use super::shuffle::{DELETE, SILENT, deletes};
use super::soften::soften;
use super::truncate::Truncations;
use crate::provenance;
use crate::table::read::Origins;

/// Number of a candidate file, in the batches of what the table knows.
pub const FILE: &str = "__firn_file";
/// Position of the row in it.
pub const POSITION: &str = "__firn_position";
/// In the place of a position: a delete that has no version but where it came from, as the table is ordered by other columns
/// than it was.
pub const UNVERSIONED: i64 = 1;
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
    /// Rows of the table that go, and all others of their key with them.
    pub outdated: Places,
    /// Rows of the table that go by themselves: of their key, others may stand.
    pub displaced: Places,
    /// Rows of the table that a truncate took and that stay, marked.
    pub softened: Places,
    /// Rows that mark their key as deleted, as [`kept::images`] has them: the row's other values are in the table.
    pub marks: Vec<RecordBatch>,
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

/// Resolves one bucket; `gone` is given the keys of the table's rows that go with all others of their key, with [`FILE`].
/// Memory: its distinct keys, twice.
///
/// # Errors
/// `Unavailable` for spilled files that cannot be read, `Bug` for those that are not what was written; and those of `gone`.
pub fn merge(
    keys: &Keys,
    bucket: &Bucket,
    rules: Rules<'_>,
    bytes_max: usize,
    mut gone: impl FnMut(&RecordBatch) -> Result<()>,
) -> Result<Merged> {
    let mut merged = Merged::default();
    let known = Table::of(keys, bucket, bytes_max, |replaced| {
        count(replaced, 0..replaced.num_rows(), &mut merged.replaced_by)?;
        places(replaced, 0..replaced.num_rows(), &mut merged.displaced);
        Ok(())
    })?;
    let (incoming, own_rows) = incoming(keys, bucket, (&known, rules), bytes_max, &mut merged)?;
    let Decided { mut resolution, lost, sources } = decide(keys, &known, incoming.as_ref(), rules)?;
    match (known.again, &known.rows) {
        (Some(file), _) => {
            for batch in lock(file).read()? {
                let Some(standing) = by_mark(&batch?)?.0 else { continue };
                let of = keys.keys(&standing)?;
                let outdated = (0..of.num_rows()).filter(|row| lost.contains(of.row(*row).data()));
                let outdated = outdated.map(|row| row as u32).collect();
                leave(&standing, outdated, (keys, rules), &mut merged, &mut gone)?;
            }
        }
        (None, Some(standing)) => leave(standing, resolution.outdated, (keys, rules), &mut merged, &mut gone)?,
        (None, None) => {}
    }
    if let Some(incoming) = &incoming {
        // What was recalled and lost is superseded as before.
        resolution.superseded.retain(|row| *row < own_rows);
        count(incoming, numbers(&resolution.superseded), &mut merged.superseded)?;
        resolution.winners.retain(|row| !sources.contains_key(row));
        mark(incoming, &sources, own_rows, keys, &mut merged)?;
        enter(incoming, resolution.winners, own_rows, (keys, rules), &mut merged)?;
    }
    Ok(merged)
}

/// Rows of the run, then those of earlier runs that count again; and how many are the run's own.
fn incoming(
    keys: &Keys,
    bucket: &Bucket,
    (known, rules): (&Table<'_>, Rules<'_>),
    bytes_max: usize,
    merged: &mut Merged,
) -> Result<(Option<RecordBatch>, u32)> {
    let limits = (bytes_max, rules.soft);
    let own = load(keys, &bucket.incoming, limits, &mut merged.superseded)?;
    let recalled = match &bucket.recalled {
        Some(file) => load(keys, file, limits, &mut Counts::new())?,
        None => None,
    };
    let recalled = match recalled {
        Some(recalled) if rules.everything => Some(recalled),
        // They were let in by a filter that lets others pass, too, whose standing rows were not looked up.
        Some(recalled) => {
            let wanted = known.wanted_again(keys, own.as_ref(), (rules.forgotten, rules.soft))?;
            let of = keys.keys(&recalled)?;
            let wanted = (0..of.num_rows()).filter(|row| wanted.contains(of.row(*row).data()));
            Some(take(&recalled, wanted.map(|row| row as u32).collect())?)
        }
        None => None,
    };
    let own_rows = own.as_ref().map_or(0, RecordBatch::num_rows) as u32;
    let both: Vec<RecordBatch> = own.into_iter().chain(recalled).collect();
    Ok((both.first().map(|first| concat(&first.schema(), &both)).transpose()?, own_rows))
}

/// Who wins, and what follows.
struct Decided {
    resolution: Resolution,
    /// Keys of which all rows of the table go.
    lost: HashSet<Vec<u8>>,
    /// Whose values winners keep that mark their key as deleted.
    sources: BTreeMap<u32, Source>,
}

fn decide(keys: &Keys, known: &Table<'_>, incoming: Option<&RecordBatch>, rules: Rules<'_>) -> Result<Decided> {
    let arriving = comparable(keys, incoming)?;
    let table = comparable(keys, known.rows.as_ref())?;
    let (versioned, unversioned) = match &known.deletes {
        Some(deletes) => split(deletes, |deletes| Ok(is_unversioned(deletes)))?,
        None => (None, None),
    };
    let versioned = comparable(keys, versioned.as_ref())?;
    let unversioned = ordered(keys, unversioned.as_ref())?;
    let origins = incoming.map_or_else(|| Ok(keys.no_ties()), |incoming| keys.ties(incoming))?;
    let mut resolution = resolve(
        Incoming { keys: &arriving.0, versions: &arriving.1 },
        Known { keys: &table.0, versions: &table.1, with: &arriving.1 },
        &[
            Known { keys: &versioned.0, versions: &versioned.1, with: &arriving.1 },
            Known { keys: &unversioned.0, versions: &unversioned.1, with: &origins },
        ],
    );
    let mut sources = BTreeMap::new();
    if let Some(incoming) = incoming {
        if rules.soft {
            let of_table = [known.rows.as_ref(), known.rows_replaced.as_ref()];
            sources = kept::sources(keys, (incoming, &arriving), &resolution.winners, of_table)?;
        } else {
            // What came before a truncate is no row, however new it is.
            let over = rules.truncations.over(keys, incoming)?;
            let (lost, left) = resolution.winners.into_iter().partition(|row| over[*row as usize].is_some());
            resolution.winners = left;
            resolution.superseded.extend::<Vec<u32>>(lost);
        }
    }
    let outdated = resolution.outdated.iter().filter(|_| known.again.is_some());
    let lost = outdated.map(|row| table.0.row(*row as usize).data().to_vec()).collect();
    Ok(Decided { resolution, lost, sources })
}

/// Rows of the table that have a newer version now, by number, or that a truncate took.
fn leave(
    standing: &RecordBatch,
    outdated: Vec<u32>,
    (keys, rules): (&Keys, Rules<'_>),
    merged: &mut Merged,
    gone: &mut impl FnMut(&RecordBatch) -> Result<()>,
) -> Result<()> {
    let over = rules.truncations.over(keys, standing)?;
    let newer: HashSet<u32> = outdated.iter().copied().collect();
    let taken = (0u32..).zip(&over).filter(|(row, over)| over.is_some() && !newer.contains(row));
    let taken: Vec<u32> = taken.map(|(row, _)| row).collect();
    if rules.soft {
        places(standing, numbers(&taken), &mut merged.softened);
    } else {
        places(standing, numbers(&taken), &mut merged.displaced);
        count(standing, numbers(&taken), &mut merged.outdated_by)?;
    }
    if outdated.is_empty() {
        return Ok(());
    }
    count(standing, numbers(&outdated), &mut merged.outdated_by)?;
    places(standing, numbers(&outdated), &mut merged.outdated);
    gone(&key_columns(&take(standing, outdated)?, keys)?)
}

/// Incoming rows that won and mark their key as deleted: they keep the values of another row.
fn mark(
    incoming: &RecordBatch,
    sources: &BTreeMap<u32, Source>,
    own_rows: u32,
    keys: &Keys,
    merged: &mut Merged,
) -> Result<()> {
    count(incoming, sources.keys().filter(|row| **row >= own_rows).map(|row| *row as usize), &mut merged.restored)?;
    let (mut marks, mut values, mut images, mut at) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (winner, source) in sources {
        match source {
            Source::Incoming(row) => {
                marks.push(*winner);
                values.push(*row);
            }
            Source::Table(file, position) => {
                images.push(*winner);
                at.push((*file, *position));
            }
        }
    }
    if !marks.is_empty() {
        let rows = kept::overlay(&take(incoming, values)?, &take(incoming, marks)?, keys)?;
        merged.rows.push(plain(&rows)?);
    }
    if !images.is_empty() {
        merged.marks.push(kept::images(&take(incoming, images)?, &at, keys)?);
    }
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
            merged.rows.push(plain(&rows)?);
        }
    }
    Ok(())
}

/// Keys of which earlier versions may count again.
///
/// # Errors
/// As [`merge`].
pub fn orphans(
    keys: &Keys,
    bucket: &Bucket,
    bytes_max: usize,
    (forgotten, soft): (bool, bool),
) -> Result<HashSet<Vec<u8>>> {
    let known = Table::of(keys, bucket, bytes_max, |_| Ok(()))?;
    if !forgotten && known.rows_replaced.is_none() && known.deletes_replaced.is_none() {
        return Ok(HashSet::new());
    }
    let own = load(keys, &bucket.incoming, (bytes_max, soft), &mut Counts::new())?;
    known.wanted_again(keys, own.as_ref(), (forgotten, soft))
}

/// The newest row of each key in the bucket, and with soft deletes the newest that is none. Buckets are read in parts and
/// reduced as they grow, so that a key with a million versions costs no more than one with few.
fn load(
    keys: &Keys,
    file: &SharedFile,
    (bytes_max, soft): (usize, bool),
    superseded: &mut Counts,
) -> Result<Option<RecordBatch>> {
    let mut reduce = |batches: &[RecordBatch]| reduce(keys, batches, soft, superseded);
    let mut held = Held::new(bytes_max);
    for batch in lock(file).read()? {
        held.add(batch?, &mut reduce)?;
    }
    if held.batches.is_empty() { Ok(None) } else { reduce(&held.batches).map(Some) }
}

fn reduce(keys: &Keys, batches: &[RecordBatch], soft: bool, superseded: &mut Counts) -> Result<RecordBatch> {
    let [first, ..] = batches else { return Err(Error::bug("nothing to reduce")) };
    let whole = concat(&first.schema(), batches)?;
    let (of, versions) = comparable(keys, Some(&whole))?;
    let of = Incoming { keys: &of, versions: &versions };
    let mut stay = newest(of);
    if soft {
        let marked = kept::marked(&whole);
        stay.extend(newest_of(of, (0..whole.num_rows() as u32).filter(|row| !marked[*row as usize])));
        stay.sort_unstable();
        stay.dedup();
    }
    let mut next = stay.iter().peekable();
    let lost = (0..whole.num_rows() as u32).filter(|n| next.next_if_eq(&n).is_none());
    count(&whole, lost.map(|n| n as usize), superseded)?;
    take(&whole, stay)
}

/// Keys and versions of a batch; empty for none.
pub fn comparable(keys: &Keys, batch: Option<&RecordBatch>) -> Result<(Rows, Rows)> {
    match batch {
        Some(batch) => Ok((keys.keys(batch)?, keys.versions(batch)?)),
        None => Ok(keys.none()),
    }
}

/// Keys of a batch, and what its rows are ordered by besides columns; empty for none.
fn ordered(keys: &Keys, batch: Option<&RecordBatch>) -> Result<(Rows, Rows)> {
    match batch {
        Some(batch) => Ok((keys.keys(batch)?, keys.ties(batch)?)),
        None => Ok((keys.none().0, keys.no_ties())),
    }
}

pub fn concat(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<RecordBatch> {
    arrow_select::concat::concat_batches(schema, batches).map_err(|e| Error::bug("cannot join rows").with_source(e))
}

pub fn take(batch: &RecordBatch, rows: Vec<u32>) -> Result<RecordBatch> {
    arrow_select::take::take_record_batch(batch, &UInt32Array::from(rows))
        .map_err(|e| Error::bug("cannot take rows").with_source(e))
}

/// Rows that are not marked, and rows that are; `None` for none.
pub fn split(
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

/// The batch as the table has it.
fn plain(batch: &RecordBatch) -> Result<RecordBatch> {
    let mut batch = batch.clone();
    for column in [DELETE, SILENT] {
        let index = batch.schema_ref().index_of(column).map_err(|e| Error::bug("a column is gone").with_source(e))?;
        batch.remove_column(index);
    }
    Ok(batch)
}

/// Some columns of a batch.
pub fn project(batch: &RecordBatch, columns: &[&str]) -> Result<RecordBatch> {
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

/// Counts records by where they came from. Rows whose record has its place in the account elsewhere are left out.
fn count(batch: &RecordBatch, rows: impl Iterator<Item = usize>, counts: &mut Counts) -> Result<()> {
    let column = batch.column_by_name(provenance::COLUMN).and_then(|c| c.as_struct_opt());
    let column = column.ok_or_else(|| Error::bug("rows without provenance"))?;
    let silent = batch.column_by_name(SILENT).and_then(|c| c.as_boolean_opt());
    let is_record = |row: &usize| silent.is_none_or(|silent| !silent.value(*row));
    for (partition, rows) in Origins::of(column)?.count(rows.filter(is_record))? {
        *counts.entry(partition).or_default() += rows;
    }
    Ok(())
}

/// One lane's results, added up.
impl Merged {
    /// Adds the counts of another bucket; its rows are the writer's by then.
    pub fn add_counts(&mut self, other: &mut Self) {
        add_places(&mut self.outdated, std::mem::take(&mut other.outdated));
        add_places(&mut self.displaced, std::mem::take(&mut other.displaced));
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
