//! What a `reprocess` would change: rows that go against rows that come, before anybody sees them.
//!
//! ```text
//! gone:  rows of the table that the run takes out ─┐                            ┌─ added, removed
//!                                                  ├─ by identity, on local disk ┤
//! came:  rows of the files that the run wrote ─────┘                            └─ changed, by column
//! ```
//! The run knows both sides ([`Turnover`]), so nothing else of the table is read. A row's identity is where it came from
//! in Kafka, in an upsert table its key ([`identity`]); [`spread`] puts rows of one identity into one bucket, and
//! [`compare`] compares bucket by bucket. Memory: one bucket at a time.

mod compare;
mod identity;
mod spread;

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arrow_array::BooleanArray;
use firn_shared::error::{Error, Result};
use firn_shared::ids::RunId;
use futures::{StreamExt, TryStreamExt};
use iceberg::spec::{DataFile, ManifestFile, PartitionSpec, Schema, TableMetadata};
use iceberg::table::Table;
use roaring::RoaringTreemap;
use serde::Serialize;

pub use compare::{Counts, Examples};
pub use identity::By;

use crate::seam::Cpu;
use crate::table::NewFile;
use crate::table::read::Rows;
use crate::table::scan::{LiveBatch, LiveFile, Prune, Reader, live};
use compare::compare;
use identity::Identity;
use spread::Side;

/// A bucket is to take this part of the memory, as Arrow arrays.
const BUCKET_SHARE: u64 = 16;
/// What Parquet takes as Arrow arrays, about.
const INFLATED: u64 = 8;
/// Buckets at most.
const BUCKETS_MAX: u64 = 1024;
/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 2048;

/// Rows that a run takes out of the table, and the files of those that it puts in.
#[derive(Debug, Clone, Default)]
pub struct Turnover {
    /// Files that rows go from, and which.
    pub gone: Vec<(LiveFile, Which)>,
    /// Files of which all rows come.
    pub came: Vec<NewFile>,
}

/// Rows of one file.
#[derive(Debug, Clone)]
pub enum Which {
    /// By where they came from.
    Of(Rows),
    /// By their numbers in the file.
    At(Arc<RoaringTreemap>),
}

impl Which {
    fn select(&self, live: &LiveBatch) -> Result<BooleanArray> {
        match self {
            Self::Of(rows) => rows.select(&live.batch),
            Self::At(rows) => Ok(live.positions.iter().map(|at| Some(rows.contains(*at as u64))).collect()),
        }
    }
}

/// What a run changes, row by row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diff {
    /// The branch that holds the outcome.
    pub branch: String,
    /// What makes two rows the same one.
    pub by: By,
    /// The rows.
    #[serde(flatten)]
    pub counts: Counts,
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { branch, by, counts: Counts { added, removed, changed, same, columns, examples } } = self;
        write!(
            f,
            "on branch {branch}: {added} rows added, {removed} removed, {changed} changed, {same} the same, {by}"
        )?;
        for (column, rows) in columns {
            write!(f, "\n  {column}: changed in {rows} rows")?;
        }
        for (what, some) in [("added", &examples.added), ("removed", &examples.removed), ("changed", &examples.changed)]
        {
            if !some.is_empty() {
                write!(f, "\n  {what}, for example: {}", some.join(", "))?;
            }
        }
        write!(f, "\n  the table is as it was; `reprocess --publish` makes the branch the table, `--discard` drops it")
    }
}

/// Compares both sides of `turnover`, which `snapshot` of `table` has carried out.
///
/// # Errors
/// Those of the stores and of the directory for temporary files; `Data` for files that cannot be read.
pub async fn diff(
    table: &Table,
    (branch, snapshot): (&str, i64),
    turnover: &Turnover,
    by: By,
    (temp, run, cpu): (&Path, RunId, &Cpu),
) -> Result<Diff> {
    let identity = Arc::new(Identity::new(by.clone(), &Reader::all(table)?)?);
    let dir = crate::spill::SpillDir::new(temp, &format!("{run}-diff"))?;
    let permit = cpu.permit(cpu.memory()).await?;
    let buckets = buckets(turnover, permit.bytes());
    let side = |name: &str| Side::new(&dir, (name, buckets), (permit.bytes() / BUCKET_SHARE) as usize);
    let (mut gone, mut came) = (side("gone"), side("came"));
    let reader = Reader::all(table)?.with_batch_rows(BATCH_ROWS);
    for (file, which) in &turnover.gone {
        let rows = reader.rows(file).await?.map(|live| {
            let live = live?;
            let wanted = which.select(&live)?;
            arrow_select::filter::filter_record_batch(&live.batch, &wanted)
                .map_err(|e| Error::bug("cannot select rows that go").with_source(e))
        });
        gone = gone.fill(rows.boxed(), &identity, (cpu, &permit)).await?;
    }
    for file in files_of(table, snapshot, &turnover.came).await? {
        let rows = reader.rows(&file).await?.map_ok(|live| live.batch);
        came = came.fill(rows.boxed(), &identity, (cpu, &permit)).await?;
    }
    let mut total = Counts::default();
    for (before, after) in gone.into_buckets().into_iter().zip(came.into_buckets()) {
        let of = Arc::clone(&identity);
        total.add(cpu.run(&permit, move || compare(&of, &before, &after)).await??);
    }
    Ok(Diff { branch: branch.to_owned(), by, counts: total })
}

fn buckets(turnover: &Turnover, memory: u64) -> usize {
    let gone = turnover.gone.iter().map(|(file, _)| file.file().file_size_in_bytes());
    let came = turnover.came.iter().map(|new| new.file.file_size_in_bytes());
    let bytes = gone.chain(came).sum::<u64>().saturating_mul(INFLATED);
    bytes.div_ceil((memory / BUCKET_SHARE).max(1)).clamp(1, BUCKETS_MAX) as usize
}

/// The new files as the snapshot that added them has them.
async fn files_of(table: &Table, snapshot: i64, new: &[NewFile]) -> Result<Vec<LiveFile>> {
    let paths = new.iter().map(|new| new.file.file_path().to_owned()).collect();
    let found = table.metadata().snapshot_by_id(snapshot);
    let found = found.ok_or_else(|| {
        Error::conflict(format!("snapshot {snapshot} of {} is gone before it was compared", table.identifier()))
    })?;
    live(table, Some(found), &AddedBy { snapshot, paths }).await
}

/// Certain files that one snapshot added.
#[derive(Debug)]
struct AddedBy {
    snapshot: i64,
    paths: HashSet<String>,
}

impl Prune for AddedBy {
    fn manifest(&self, _: &TableMetadata, manifest: &ManifestFile) -> bool {
        manifest.added_snapshot_id == self.snapshot
    }

    fn file(&self, _: &Schema, _: &PartitionSpec, file: &DataFile) -> bool {
        self.paths.contains(file.file_path())
    }
}
