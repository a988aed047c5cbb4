//! What the table knows of a run's keys: its rows, found in the files that may hold them, and the deletes it remembers;
//! spilled into the same buckets as the run's rows. Each candidate file is read once, and only the key, the version and
//! the provenance of its rows.

use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow_schema::SchemaRef;
use chrono::{DateTime, Utc};
use firn_shared::error::{Error, Result};
use firn_shared::store::Stores;
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{DataFile, ManifestFile, PartitionSpec, Schema, TableMetadata};
use iceberg::table::Table;

use super::frames::{SharedFile, lock};
use super::key::bucket;
use super::merge::{UNVERSIONED, known_schema};
use super::remember::{Remembered, fitted, nullable, recall};
use super::shuffle::Shuffle;
use super::touched::Touched;
use super::truncate::Truncations;
use crate::seam::{Cpu, Permit};
use crate::table::read::Rows;
use crate::table::scan::{self, LiveBatch, LiveFile, OpenFile, Prune, Reader};

/// Found rows wait until they take this many bytes, so that frames are not tiny.
const WAITING_BYTES: usize = 4 << 20;
/// What one look-up may hold: decoded columns of a row group's pages, and found rows.
const LOOKUP_BYTES: u64 = 24 << 20;
/// This part of the memory keeps what delete files say for the next data file; look-ups share it.
const DELETES_SHARE: u64 = 8;
/// Of which more than this is not needed.
const DELETES_BYTES_MAX: u64 = 128 << 20;

/// The number of a remembered delete's file: it has none.
const NO_FILE: u32 = u32::MAX;

/// What a run is looking for in the table.
#[derive(Debug, Clone, Copy)]
pub struct Search<'a> {
    /// Which files may hold it.
    pub prune: &'a dyn Prune,
    /// What its keys are.
    pub touched: &'a Touched,
    /// Rows that are replaced whatever their key.
    pub replaced: Option<&'a Rows>,
    /// Rows that truncates of the run take.
    pub truncations: &'a Arc<Truncations>,
    /// All rows.
    pub everything: bool,
}

impl Search<'_> {
    /// Whether a row matters by its key alone.
    fn is_by_key(&self) -> bool {
        self.replaced.is_none() && self.truncations.is_empty() && !self.everything
    }
}

/// Which files may hold rows that a run changes.
#[derive(Debug)]
pub struct Affected {
    /// By key.
    pub touched: Touched,
    /// By origin, for rows that are replaced whatever their key.
    pub replaced: Option<Rows>,
}

impl Prune for Affected {
    fn manifest(&self, metadata: &TableMetadata, manifest: &ManifestFile) -> bool {
        // Where rows came from says nothing of their partition.
        self.replaced.is_some() || self.touched.may_be_named_by(metadata, manifest)
    }

    fn file(&self, schema: &Schema, spec: &PartitionSpec, file: &DataFile) -> bool {
        self.touched.may_be_in(spec, file) || self.replaced.as_ref().is_some_and(|rows| rows.may_be_in(schema, file))
    }
}

/// The same for a run with truncates: files that hold rows which these take are affected, too.
#[derive(Debug)]
pub struct Emptied {
    /// By the run's rows.
    pub affected: Arc<Affected>,
    /// By its truncates.
    pub truncations: Arc<Truncations>,
}

impl Prune for Emptied {
    fn file(&self, schema: &Schema, spec: &PartitionSpec, file: &DataFile) -> bool {
        self.affected.file(schema, spec, file) || self.truncations.may_be_over(schema, file)
    }
}

/// What the table knows, by bucket.
#[derive(Debug)]
pub struct Found {
    /// Candidate files; rows name them by number.
    pub files: Vec<LiveFile>,
    /// Their rows.
    pub rows: Vec<SharedFile>,
    /// Deletes.
    pub deletes: Vec<SharedFile>,
    /// Objects of deletes, by URL, that are of another key than the table has now and say nothing any more.
    pub of_other_keys: Vec<String>,
}

/// Looks the run's keys up in the table. `attempt` makes the spilled files' names unique.
///
/// # Errors
/// Those of the stores and of the temporary directory; `Data` for files that cannot be read.
pub async fn look_up(
    table: &Table,
    shuffle: &Arc<Shuffle>,
    search: Search<'_>,
    (remembered, stores, cpu): (&[Remembered], &Stores, &Cpu),
    attempt: u32,
) -> Result<Found> {
    let files = scan::live(table, None, search.prune).await?;
    let mut found = Found {
        rows: shuffle.more(&format!("rows-{attempt}")),
        deletes: shuffle.more(&format!("deletes-{attempt}")),
        files,
        of_other_keys: Vec::new(),
    };
    let columns = shuffle.keys().columns();
    let kept = (cpu.memory() / DELETES_SHARE).min(DELETES_BYTES_MAX);
    let lanes = cpu.threads().min(((cpu.memory() - kept) / LOOKUP_BYTES).max(1) as usize);
    let share = LOOKUP_BYTES + kept / lanes as u64;
    let reader = Reader::new(table, &columns)?.with_delete_bytes(kept);
    let work = found.files.iter().enumerate().map(|(number, file)| {
        let (found, reader) = (&found, &reader);
        async move { one_file((number as u32, file), reader, shuffle, search, (found, cpu, share)).await }
    });
    stream::iter(work).buffer_unordered(lanes).try_for_each(|()| std::future::ready(Ok(()))).await?;
    let schema = nullable(reader.schema());
    let work = remembered.iter().map(|object| {
        let (to, schema) = (found.deletes.as_slice(), &schema);
        async move {
            let is_of_key = one_object(object, stores, (shuffle, schema), search, (to, cpu)).await?;
            Ok::<_, Error>((!is_of_key).then(|| object.url.clone()))
        }
    });
    let strange: Vec<Option<String>> = stream::iter(work).buffered(lanes).try_collect().await?;
    found.of_other_keys = strange.into_iter().flatten().collect();
    Ok(found)
}

/// Spills the deletes of one object; answers whether they are deletes of the table's key.
async fn one_object(
    object: &Remembered,
    stores: &Stores,
    (shuffle, schema): (&Arc<Shuffle>, &SchemaRef),
    search: Search<'_>,
    (to, cpu): (&[SharedFile], &Cpu),
) -> Result<bool> {
    let permit = cpu.permit(LOOKUP_BYTES).await?;
    let recalled = recall(stores, object).await?;
    if !recalled.is_of(shuffle.keys(), schema) {
        return Ok(false);
    }
    let (shuffle, schema, to) = (Arc::clone(shuffle), Arc::clone(schema), to.to_vec());
    let (replaced, everything) = (search.replaced.cloned(), search.everything);
    let work = move || -> Result<bool> {
        for batch in recalled {
            let (batch, versioned) = fitted(&batch?, &schema, shuffle.keys().version_names())?;
            let marks = marks(&batch, replaced.as_ref())?;
            let hits = hits(&shuffle, &batch, &marks, everything)?;
            let position = if versioned { 0 } else { UNVERSIONED };
            let marked = marked(&batch, NO_FILE, vec![position; batch.num_rows()], marks)?;
            spill(&shuffle, vec![select(&marked, &hits)?], &to)?;
        }
        Ok(true)
    };
    on_worker(cpu, &permit, work).await
}

/// Deletes that still count.
pub fn counting(list: &[Remembered], now: DateTime<Utc>, memory: std::time::Duration) -> Vec<Remembered> {
    list.iter().filter(|object| object.counts(now, memory)).cloned().collect()
}

async fn one_file(
    (number, file): (u32, &LiveFile),
    reader: &Reader,
    shuffle: &Arc<Shuffle>,
    search: Search<'_>,
    (found, cpu, share): (&Found, &Cpu, u64),
) -> Result<()> {
    let permit = cpu.permit(share).await?;
    let mut open = reader.open(file).await?;
    let groups = if search.is_by_key() { Some(row_groups(&mut open, search.touched).await?) } else { None };
    if groups.as_ref().is_some_and(Vec::is_empty) {
        return Ok(());
    }
    let mut batches = open.rows(groups).await?;
    let (mut waiting, mut bytes) = (Vec::new(), 0);
    while let Some(live) = batches.try_next().await? {
        let (of, replaced) = (Arc::clone(shuffle), search.replaced.cloned());
        let (truncations, everything) = (Arc::clone(search.truncations), search.everything);
        let work = move || matching(&of, (number, &live), replaced.as_ref(), (&truncations, everything));
        let hits = on_worker(cpu, &permit, work).await?;
        if hits.num_rows() > 0 {
            bytes += hits.get_array_memory_size();
            waiting.push(hits);
        }
        if bytes >= WAITING_BYTES {
            bytes = 0;
            spill(shuffle, std::mem::take(&mut waiting), &found.rows)?;
        }
    }
    spill(shuffle, waiting, &found.rows)
}

/// The row groups that may hold one of the keys, by their bloom filters.
async fn row_groups(file: &mut OpenFile, touched: &Touched) -> Result<Vec<usize>> {
    let mut may = Vec::new();
    'groups: for group in 0..file.metadata().num_row_groups() {
        for (column, values) in touched.few() {
            if !file.may_hold(group, column, values).await? {
                continue 'groups;
            }
        }
        may.push(group);
    }
    Ok(may)
}

async fn on_worker<T: Send + 'static>(
    cpu: &Cpu,
    permit: &Permit,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    cpu.run(permit, work).await?
}

/// The rows of a batch that the run may change, with where they are.
fn matching(
    shuffle: &Shuffle,
    (number, live): (u32, &LiveBatch),
    replaced: Option<&Rows>,
    (truncations, everything): (&Truncations, bool),
) -> Result<RecordBatch> {
    let marks = marks(&live.batch, replaced)?;
    let mut hits = hits(shuffle, &live.batch, &marks, everything)?;
    if !truncations.is_empty() {
        let over = truncations.over(shuffle.keys(), &live.batch)?;
        hits = hits.iter().zip(over).map(|(hit, over)| Some(hit == Some(true) || over.is_some())).collect();
    }
    select(&marked(&live.batch, number, live.positions.clone(), marks)?, &hits)
}

/// Which rows are replaced because of their origin.
fn marks(batch: &RecordBatch, replaced: Option<&Rows>) -> Result<BooleanArray> {
    match replaced {
        Some(rows) => rows.select(batch),
        None => Ok(BooleanArray::from(vec![false; batch.num_rows()])),
    }
}

/// The batch with where its rows are.
fn marked(batch: &RecordBatch, number: u32, positions: Vec<i64>, marks: BooleanArray) -> Result<RecordBatch> {
    let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
    columns.push(Arc::new(UInt32Array::from(vec![number; batch.num_rows()])));
    columns.push(Arc::new(Int64Array::from(positions)));
    columns.push(Arc::new(marks));
    let schema = known_schema(batch.schema_ref());
    RecordBatch::try_new(schema, columns).map_err(|e| Error::bug("cannot mark rows").with_source(e))
}

/// Rows whose key the run may have, and marked ones.
fn hits(shuffle: &Shuffle, batch: &RecordBatch, marks: &BooleanArray, all: bool) -> Result<BooleanArray> {
    let keys = shuffle.keys().keys(batch)?;
    let hit = |(row, key): (usize, arrow_row::Row<'_>)| Some(all || marks.value(row) || shuffle.may_touch(key.data()));
    Ok(keys.iter().enumerate().map(hit).collect())
}

fn select(batch: &RecordBatch, rows: &BooleanArray) -> Result<RecordBatch> {
    arrow_select::filter::filter_record_batch(batch, rows).map_err(|e| Error::bug("cannot select rows").with_source(e))
}

/// Appends rows to their buckets.
fn spill(shuffle: &Shuffle, batches: Vec<RecordBatch>, to: &[SharedFile]) -> Result<()> {
    let Some(first) = batches.first() else { return Ok(()) };
    let whole = arrow_select::concat::concat_batches(first.schema_ref(), &batches);
    let whole = whole.map_err(|e| Error::bug("cannot join rows").with_source(e))?;
    let mut parts: Vec<Vec<u32>> = vec![Vec::new(); to.len()];
    for (row, key) in shuffle.keys().keys(&whole)?.iter().enumerate() {
        parts[bucket(key.data(), to.len())].push(row as u32);
    }
    for (file, rows) in to.iter().zip(parts).filter(|(_, rows)| !rows.is_empty()) {
        let part = arrow_select::take::take_record_batch(&whole, &UInt32Array::from(rows));
        let part = part.map_err(|e| Error::bug("cannot split rows").with_source(e))?;
        lock(file).append(&part)?;
    }
    Ok(())
}
