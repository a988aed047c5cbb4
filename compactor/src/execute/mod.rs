//! Slices of a plan to data files. Only ever adds objects that nothing names yet; a crash leaves orphans and no change.
//!
//! A slice is one task: it reads raw objects in pieces, and for each piece sends its [`Work`] through the one door to the
//! worker threads, where [`inflate`] and [`convert`] make batches that the writers encode at once. Memory: [`budget`] divides the run's
//! bound; a slice holds a permit for its share for as long as it lives.

mod budget;
mod conversion;
mod convert;
mod effect;
#[cfg(test)]
mod effect_tests;
mod events;
mod inflate;
mod progress;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::RecordBatch;
use bytes::Bytes;
use firn_shared::error::{Error, Result};
use firn_shared::ids::{PartitionRef, RunId};
use firn_shared::raw::manifest::RawObject;
use firn_shared::store::{Store, Stores, read_chunks};
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::table::Table;
use tokio::sync::OnceCell;

pub use conversion::Conversion;
pub use convert::Rows;
pub use events::Events;
pub use progress::Progress;

use crate::plan::{Plan, Slice};
use crate::reconcile::account::Fate;
use crate::seam::{Cpu, Permit};
use crate::table::create::Definition;
use crate::table::erasure::Marks;
use crate::table::{Catalog, NewFile};
use crate::upsert::{Buckets, ShuffleWriter, Truncation};
use crate::write::{DataWriter, OPEN_FILES_MAX, WriteSpec};
use budget::Share;
pub use budget::{Budget, PROGRAM, SLICE_BYTES_MIN};
use convert::{Converter, Step};

/// Everything a run's slices share.
#[derive(Debug, Clone)]
pub struct Execution {
    /// The run; part of every file name.
    pub run: RunId,
    /// Where raw objects are.
    pub raw: Arc<dyn Store>,
    /// Where data files go.
    pub stores: Stores,
    /// Worker threads and memory.
    pub cpu: Cpu,
    /// What becomes of a record.
    pub conversion: Arc<Conversion>,
    /// The table, as it was when the plan was made.
    pub table: Table,
    /// The erasures that were known before the ledger was read.
    pub marks: Marks,
    /// Where rows go.
    pub rows_to: RowsTo,
    /// Where rejects go.
    pub quarantine: Quarantine,
    /// Data files are closed at this many bytes.
    pub target_file_bytes: u64,
    /// zstd level of the pages.
    pub zstd_level: i32,
    /// Who is told how far it is.
    pub progress: Progress,
}

/// Where the rows of slices go.
#[derive(Debug, Clone)]
pub enum RowsTo {
    /// Into data files at once.
    Files,
    /// Into buckets by key; files are made when all versions of a key have met.
    Buckets(Buckets),
}

impl RowsTo {
    /// Whether records are only looked through again: what becomes of the others was settled by earlier runs.
    fn recalls(&self) -> bool {
        matches!(self, Self::Buckets(Buckets { recall: Some(_), .. }))
    }
}

/// The quarantine table, made when the first record needs it.
#[derive(Debug, Clone)]
pub struct Quarantine {
    /// Its definition.
    pub definition: Definition,
    /// Where it is made.
    pub catalog: Arc<dyn Catalog>,
    /// The table, once somebody asked for it.
    pub made: OnceCell<Table>,
}

impl Quarantine {
    /// The table; makes it when there is none.
    ///
    /// # Errors
    /// As [`Definition::ensure`].
    pub async fn table(&self) -> Result<&Table> {
        let make = || async {
            // A crash right after leaves an empty table, which the next run uses.
            self.definition.ensure(&*self.catalog).await.map(crate::table::catalog::Created::into_table)
        };
        self.made.get_or_try_init(make).await
    }
}

/// What slices made: files that nothing names yet, and what became of every record.
#[derive(Debug, Default)]
pub struct Written {
    /// Data files of the table.
    pub files: Vec<NewFile>,
    /// Data files of the quarantine table.
    pub rejects: Vec<NewFile>,
    /// Records by fate, per partition.
    pub fates: BTreeMap<PartitionRef, Fate>,
}

impl Written {
    fn merge(&mut self, other: Self) {
        self.files.extend(other.files);
        self.rejects.extend(other.rejects);
        for (partition, fate) in &other.fates {
            self.fates.entry(partition.clone()).or_default().merge(fate);
        }
    }
}

/// Converts all slices of `plan`, as many at a time as threads and memory allow.
///
/// # Errors
/// Of the first slice that fails: `Data` naming the raw object and place, else those of the stores.
pub async fn execute(plan: &Plan, execution: &Execution) -> Result<Written> {
    let threads = execution.cpu.threads().min(plan.slices.len());
    // What steps hold for the whole run is not the slices' to divide.
    let memory = execution.cpu.memory().saturating_sub(execution.conversion.held_bytes());
    let Budget { at_once, slice: share } = Budget::beside(memory, threads, execution.conversion.call_bytes())?;
    let mut written = Written::default();
    let slices = plan.slices.iter().map(|slice| convert_slice(slice, execution, share));
    let mut slices = stream::iter(slices).buffer_unordered(at_once);
    while let Some(slice) = slices.try_next().await? {
        written.merge(slice);
    }
    // The order of completion is chance; manifests should not depend on it.
    written.files.sort_by(|a, b| a.file.file_path().cmp(b.file.file_path()));
    written.rejects.sort_by(|a, b| a.file.file_path().cmp(b.file.file_path()));
    Ok(written)
}

/// A slice's way to where its rows go.
enum Output {
    Files(Box<DataWriter>),
    Buckets(ShuffleWriter),
}

impl Output {
    fn write(&mut self, rows: &Rows) -> Result<()> {
        match self {
            Self::Files(_) if rows.deletes.is_some() => Err(Error::bug("rows that delete need an upsert")),
            Self::Files(writer) => writer.write(&rows.batch),
            Self::Buckets(writer) => writer.write(rows),
        }
    }

    fn truncate(&self, truncations: Vec<Truncation>) -> Result<()> {
        match self {
            Self::Files(_) => Err(Error::bug("truncates need an upsert")),
            Self::Buckets(writer) => {
                writer.truncate(truncations);
                Ok(())
            }
        }
    }

    fn finish(self) -> Result<Vec<NewFile>> {
        match self {
            Self::Files(writer) => writer.finish(),
            Self::Buckets(writer) => writer.finish().map(|()| Vec::new()),
        }
    }
}

/// A slice in work; moves between tokio and the worker threads.
struct Work {
    converter: Converter,
    data: Output,
    /// Rejects were quarantined by an earlier run.
    recalls: bool,
    rejects: Option<DataWriter>,
}

/// What a slice in work may hold, and the permit for it.
struct Held {
    permit: Permit,
    share: Share,
}

/// Why work came back.
enum Pause {
    /// It needs the object's next bytes, or its end.
    NeedBytes,
    /// It has rejects and no quarantine table yet.
    NeedQuarantine(RecordBatch),
}

async fn convert_slice(slice: &Slice, execution: &Execution, share: Share) -> Result<Written> {
    let held = Held { permit: execution.cpu.permit(share.bytes).await?, share };
    let mut work = Box::new(Work {
        converter: Converter::new(Arc::clone(&execution.conversion), share.batch as usize)?,
        data: match &execution.rows_to {
            RowsTo::Files => {
                let spec = write_spec(execution, &execution.table, slice, "", share.rows_writer);
                Output::Files(Box::new(DataWriter::new(spec)?))
            }
            RowsTo::Buckets(buckets) => Output::Buckets(ShuffleWriter::new(buckets.clone(), share.rows_writer)?),
        },
        recalls: execution.rows_to.recalls(),
        rejects: None,
    });
    for object in &slice.objects {
        let url = format!("{}/{}", execution.raw.url(), object.object.key);
        work.converter.begin(object, &url)?;
        let pieces = read_chunks(Arc::clone(&execution.raw), &object.object.key, share.piece);
        let mut pieces = std::pin::pin!(pieces.await?);
        while let Some(piece) = pieces.try_next().await? {
            execution.progress.advance(piece.len() as u64);
            work = feed(work, piece, &object.object, execution, slice, &held).await?;
        }
        work.converter.end_object(&object.object)?;
    }
    let written = finish(work, execution, slice, &held).await?;
    execution.progress.slice_done(slice.number, slice.records());
    Ok(written)
}

/// Works off one piece of an object.
async fn feed(
    mut work: Box<Work>,
    piece: Bytes,
    object: &RawObject,
    execution: &Execution,
    slice: &Slice,
    held: &Held,
) -> Result<Box<Work>> {
    work.converter.push(piece);
    let object = Arc::new(object.clone());
    loop {
        let of = Arc::clone(&object);
        let (back, pause) = execution
            .cpu
            .run(&held.permit, move || {
                let pause = advance(&mut work, &of);
                (work, pause)
            })
            .await?;
        work = back;
        match pause? {
            Pause::NeedBytes => return Ok(work),
            Pause::NeedQuarantine(batch) => work = with_quarantine(work, batch, execution, slice, held).await?,
        }
    }
}

/// On a worker thread: lines to batches, batches to files, until something is needed from outside.
fn advance(work: &mut Work, object: &RawObject) -> Result<Pause> {
    loop {
        match work.converter.step(object)? {
            Step::NeedBytes => return Ok(Pause::NeedBytes),
            Step::Rows(rows) => work.data.write(&rows)?,
            Step::Truncations(truncations) => work.data.truncate(truncations)?,
            Step::Rejects(_) if work.recalls => {}
            Step::Rejects(batch) => match &mut work.rejects {
                Some(writer) => writer.write(&batch)?,
                None => return Ok(Pause::NeedQuarantine(batch)),
            },
        }
    }
}

async fn with_quarantine(
    mut work: Box<Work>,
    batch: RecordBatch,
    execution: &Execution,
    slice: &Slice,
    held: &Held,
) -> Result<Box<Work>> {
    let table = execution.quarantine.table().await?;
    let mut writer = DataWriter::new(write_spec(execution, table, slice, "q", held.share.rejects_writer))?;
    let (writer, result) = execution
        .cpu
        .run(&held.permit, move || {
            let result = writer.write(&batch);
            (writer, result)
        })
        .await?;
    result?;
    work.rejects = Some(writer);
    Ok(work)
}

async fn finish(mut work: Box<Work>, execution: &Execution, slice: &Slice, held: &Held) -> Result<Written> {
    loop {
        let (back, left) = execution
            .cpu
            .run(&held.permit, move || {
                let left = drain(&mut work);
                (work, left)
            })
            .await?;
        work = back;
        match left? {
            Some(batch) => work = with_quarantine(work, batch, execution, slice, held).await?,
            None => break,
        }
    }
    let Work { converter, data, rejects, .. } = *work;
    let close = move || {
        let files = data.finish()?;
        let rejects = rejects.map(DataWriter::finish).transpose()?.unwrap_or_default();
        Ok::<_, Error>(Written { files, rejects, fates: converter.into_fates() })
    };
    execution.cpu.run(&held.permit, close).await?
}

/// On a worker thread: the last batches. Gives rejects back when there is no quarantine table yet.
fn drain(work: &mut Work) -> Result<Option<RecordBatch>> {
    while let Some(step) = work.converter.drain()? {
        match step {
            Step::NeedBytes => {}
            Step::Rows(rows) => work.data.write(&rows)?,
            Step::Truncations(truncations) => work.data.truncate(truncations)?,
            Step::Rejects(_) if work.recalls => {}
            Step::Rejects(batch) => match &mut work.rejects {
                Some(writer) => writer.write(&batch)?,
                None => return Ok(Some(batch)),
            },
        }
    }
    Ok(None)
}

fn write_spec(execution: &Execution, table: &Table, slice: &Slice, what: &str, memory: u64) -> WriteSpec {
    WriteSpec {
        metadata: table.metadata_ref(),
        stores: execution.stores.clone(),
        runtime: tokio::runtime::Handle::current(),
        run: execution.run,
        slice: format!("{what}{}", slice.number),
        target_file_bytes: execution.target_file_bytes,
        memory,
        open_files_max: OPEN_FILES_MAX,
        zstd_level: execution.zstd_level,
    }
}
