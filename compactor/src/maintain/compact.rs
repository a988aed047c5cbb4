//! Rewrites data files: small ones as large ones, and those whose rows were deleted without them.
//!
//! The new files of a group have the data sequence number of the snapshot that was read, so that equality deletes that
//! came meanwhile apply to them as they would have to the old ones. Inputs must be live still, and nobody may have added
//! position deletes for them. Files of an older partition spec move to the current one and count as new: no delete that
//! is in the table was meant for where they go.
//!
//! **Batches.** Groups are committed some at a time; after each commit, and after each conflict, the rest is planned again
//! on the table as it is then. A conflict makes batches smaller, so that a busy table is compacted in short steps.
//!
//! **Memory.** Each lane holds one group's rows in flight: a row group of an input, a few batches, and its writer's share.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use firn_shared::error::{Error, ErrorKind, Result};
use firn_shared::ids::RunId;
use futures::{StreamExt, TryStreamExt};
use iceberg::spec::{DataFile, FormatVersion};
use iceberg::table::Table;
use serde::Serialize;
use tokio::task::JoinSet;

use super::choose::{Candidate, Choice, Verdict, choose};
use super::{ATTEMPTS, Subject};
use crate::execute::{Budget, SLICE_BYTES_MIN};
use crate::run::Env;
use crate::table::offsets::SCOPE;
use crate::table::read::batches;
use crate::table::scan::{All, LiveFile, PartitionKey, Reader, Tracked, live, live_deletes};
use crate::table::{Change, Committer, NewFile};
use crate::write::{OPEN_FILES_MAX, WriteSpec, write_stream};

/// Inputs of a commit, bytes: what is lost to a conflict at most.
const COMMIT_BYTES_MAX: u64 = 4 << 30;
/// Inputs of a commit, files.
const COMMIT_FILES_MAX: usize = 2000;

/// What was rewritten.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Compacted {
    /// Snapshots made.
    pub commits: usize,
    /// Data files that went, or would.
    pub files_before: usize,
    /// Data files that came.
    pub files_after: usize,
    /// Their bytes.
    pub bytes_before: u64,
    /// Their bytes.
    pub bytes_after: u64,
    /// Rows that were written.
    pub rows: u64,
    /// Delete files that went, or would, because no data file is left that they may delete from.
    pub delete_files: usize,
    /// Files by verdict, when it was planned first.
    pub files: BTreeMap<Verdict, usize>,
    /// Groups that other writers kept from being committed.
    pub left: usize,
    /// Why nothing was looked at.
    pub skipped: Option<String>,
}

/// Compacts a table.
///
/// # Errors
/// As catalog and stores say; `Data` for files that cannot be read.
pub async fn compact(env: &Env, subject: &Subject, dry_run: bool) -> Result<Compacted> {
    let mut report = Compacted::default();
    let committer = Committer::new(Arc::clone(&env.catalog), Arc::clone(&env.clock));
    let run = RunId::new();
    let (mut ours, mut conflicts, mut number) = (HashSet::new(), 0, 0);
    loop {
        let table = super::load(env, subject).await?;
        if table.metadata().format_version() > FormatVersion::V2 {
            report.skipped = Some("its rows have ids (format version 3), which a rewrite would lose".to_owned());
            return Ok(report);
        }
        let plan = Plan::of(&table, subject, &ours).await?;
        if number == 0 {
            plan.verdicts.iter().for_each(|verdict| *report.files.entry(*verdict).or_default() += 1);
        }
        if dry_run {
            report.went(&plan.groups, plan.useless(&plan.groups).len());
            return Ok(report);
        }
        let batch = plan.batch(conflicts);
        let useless = plan.useless(&batch);
        if batch.is_empty() && useless.is_empty() {
            return Ok(report);
        }
        number += 1;
        let work = Work { env, subject, table: &table, run, number };
        let written = work.rewrite(&batch).await?;
        let change = work.change(&batch, &useless, &written)?;
        match committer.commit(&subject.ident, &change).await {
            Ok(committed) => {
                ours.insert(committed.snapshot_id);
                report.commits += 1;
                report.went(&batch, useless.len());
                report.came(&written);
                tracing::info!(table = %subject.ident, files = written.len(), rows = report.rows, "compacted");
            }
            Err(error) if error.kind() == ErrorKind::Conflict && conflicts < ATTEMPTS => {
                tracing::warn!(table = %subject.ident, conflicts, %error, "planning the compaction again");
                conflicts += 1;
            }
            Err(error) if error.kind() == ErrorKind::Conflict => {
                report.left = plan.groups.len();
                return Ok(report);
            }
            Err(error) => return Err(error),
        }
    }
}

/// What is to be done to one state of the table.
struct Plan {
    verdicts: Vec<Verdict>,
    groups: Vec<Group>,
    /// All data files.
    files: Vec<LiveFile>,
    /// All delete files.
    deletes: Vec<Arc<Tracked>>,
}

/// Data files that become one.
#[derive(Debug, Clone)]
struct Group {
    files: Vec<LiveFile>,
    /// Whether they are of an older partition spec.
    moves: bool,
}

impl Group {
    fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.file().file_size_in_bytes()).sum()
    }
}

impl Plan {
    /// `ours` are the snapshots that this maintenance has made.
    async fn of(table: &Table, subject: &Subject, ours: &HashSet<i64>) -> Result<Self> {
        let mut files = live(table, None, &All).await?;
        // The order in which they came keeps rows that came together together.
        files.sort_by(|a, b| (a.data.sequence_number(), a.path()).cmp(&(b.data.sequence_number(), b.path())));
        let candidates = candidates(&files, ours);
        let Choice { groups, verdicts } = choose(&candidates, &subject.settings);
        let current = table.metadata().default_partition_spec_id();
        let group = |numbers: Vec<usize>| {
            let files: Vec<LiveFile> = numbers.into_iter().map(|n| files[n].clone()).collect();
            Group { moves: files.iter().any(|f| f.data.spec_id != current), files }
        };
        let groups = groups.into_iter().map(group).collect();
        let deletes = live_deletes(table).await?;
        Ok(Self { verdicts, groups, files, deletes })
    }

    /// Groups of one commit: all of one kind, bounded, and fewer after each conflict.
    fn batch(&self, conflicts: u32) -> Vec<Group> {
        let Some(first) = self.groups.first() else { return Vec::new() };
        let most = COMMIT_FILES_MAX >> (2 * conflicts).min(12);
        let (mut files, mut bytes) = (first.files.len(), first.bytes());
        let fits = |group: &&Group| {
            files += group.files.len();
            bytes += group.bytes();
            files <= most && bytes <= COMMIT_BYTES_MAX
        };
        let more = self.groups.iter().skip(1).filter(|g| g.moves == first.moves).take_while(fits);
        [first].into_iter().chain(more).cloned().collect()
    }

    /// Delete files that apply to no data file once the batch is rewritten. New data files have newer sequence numbers,
    /// and a rewrite that others are about to commit takes its rows from files that are live now: no use comes back.
    fn useless(&self, batch: &[Group]) -> Vec<Arc<Tracked>> {
        let gone: HashSet<&str> = batch.iter().flat_map(|g| &g.files).map(LiveFile::path).collect();
        let stay = self.files.iter().filter(|file| !gone.contains(file.path()));
        let used: HashSet<&str> = stay.flat_map(LiveFile::deletes).map(|delete| delete.path()).collect();
        self.deletes.iter().filter(|delete| !used.contains(delete.path())).cloned().collect()
    }
}

/// The files as [`choose`] wants them. What a delete file deletes is shared among the data files that it applies to.
fn candidates(files: &[LiveFile], ours: &HashSet<i64>) -> Vec<Candidate<PartitionKey>> {
    let mut uses: HashMap<&str, u64> = HashMap::new();
    for delete in files.iter().flat_map(LiveFile::deletes) {
        *uses.entry(delete.path()).or_default() += 1;
    }
    let share = |delete: &Arc<Tracked>| delete.file().record_count().div_ceil(uses[delete.path()]);
    let candidate = |file: &LiveFile| Candidate {
        partition: file.data.key(),
        bytes: file.file().file_size_in_bytes(),
        rows: file.file().record_count(),
        delete_files: file.deletes().count(),
        deleted_rows: file.deletes().map(share).sum(),
        fresh: file.data.snapshot_id().is_some_and(|id| ours.contains(&id)),
    };
    files.iter().map(candidate).collect()
}

/// One batch.
struct Work<'a> {
    env: &'a Env,
    subject: &'a Subject,
    table: &'a Table,
    run: RunId,
    number: usize,
}

impl Work<'_> {
    /// Writes the rows of each group, several groups at a time.
    async fn rewrite(&self, batch: &[Group]) -> Result<Vec<NewFile>> {
        let cpu = &self.env.cpu;
        // Deleted keys and positions are shared by all lanes.
        let kept = cpu.memory() / 4;
        let Budget { slice, .. } = Budget::of((cpu.memory() - kept).max(SLICE_BYTES_MIN), cpu.threads())?;
        let reader = Reader::all(self.table)?.with_delete_bytes(kept / 2);
        let mut written = Vec::new();
        let mut lanes = JoinSet::new();
        for (number, group) in batch.iter().enumerate() {
            // A row group of a foreign file may be larger than a lane's share: then fewer lanes run.
            let read = group.files.iter().map(|f| row_group_bytes(f.file())).max().unwrap_or_default();
            let permit = cpu.permit(slice.bytes.max(slice.bytes / 2 + 2 * read)).await?;
            let spec = self.spec(number, permit.bytes().min(slice.bytes) / 2);
            let rewritten = rewrite_group(reader.clone(), group.files.clone(), spec);
            lanes.spawn(async move {
                let written = rewritten.await;
                drop(permit);
                written
            });
            // Failures are seen early; results wait.
            while let Some(ended) = lanes.try_join_next() {
                written.extend(ended.map_err(died)??);
            }
        }
        while let Some(ended) = lanes.join_next().await {
            written.extend(ended.map_err(died)??);
        }
        Ok(written)
    }

    fn spec(&self, number: usize, memory: u64) -> WriteSpec {
        WriteSpec {
            metadata: self.table.metadata_ref(),
            stores: self.env.stores.clone(),
            runtime: tokio::runtime::Handle::current(),
            run: self.run,
            slice: format!("c{}-{number}", self.number),
            // A group is about as large as a file; encoded anew it may be a little larger, and shall not leave a crumb.
            target_file_bytes: self.subject.settings.target_file_bytes / 2 * 3,
            memory,
            open_files_max: OPEN_FILES_MAX,
            zstd_level: self.subject.zstd_level,
        }
    }

    fn change(&self, batch: &[Group], useless: &[Arc<Tracked>], written: &[NewFile]) -> Result<Change> {
        let snapshot = self.table.metadata().current_snapshot();
        let snapshot = snapshot.ok_or_else(|| Error::bug("files without a snapshot"))?;
        let inputs: Vec<Tracked> = batch.iter().flat_map(|g| &g.files).map(|f| f.data.clone()).collect();
        let moves = batch.iter().any(|group| group.moves);
        let useless = useless.iter().map(|delete| delete.as_ref().clone());
        let mut change = Change {
            commit_id: format!("{}-{}", self.run, self.number),
            add: written.to_vec(),
            remove: inputs.iter().cloned().chain(useless).collect(),
            rewrite_of: (!moves).then_some(snapshot.sequence_number()),
            changes_no_row: true,
            disposable: true,
            summary: BTreeMap::from([(SCOPE.to_owned(), "compact".to_owned())]),
            ..Change::default()
        };
        change.expect.no_new_deletes_for = Some((Some(snapshot.snapshot_id()), inputs));
        change.expect.equality_deletes_follow = !moves;
        Ok(change)
    }
}

/// Writes the live rows of some files.
async fn rewrite_group(reader: Reader, files: Vec<LiveFile>, spec: WriteSpec) -> Result<Vec<NewFile>> {
    let location = spec.metadata.location().to_owned();
    let read = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&read);
    let batches = batches(reader, files).map_ok(move |live| {
        count.fetch_add(live.batch.num_rows() as u64, Ordering::Relaxed);
        live.batch
    });
    let written = write_stream(spec, batches.boxed()).await?;
    let came: u64 = written.iter().map(|new| new.file.record_count()).sum();
    let rows = read.load(Ordering::Relaxed);
    if came == rows {
        return Ok(written);
    }
    Err(Error::bug(format!("{rows} rows were read for a rewrite of {location} and {came} were written")))
}

fn died(e: tokio::task::JoinError) -> Error {
    Error::bug("a rewriting task died").with_source(e)
}

/// The largest row group of a file, bytes, from where the groups begin.
fn row_group_bytes(file: &DataFile) -> u64 {
    let size = file.file_size_in_bytes();
    let mut starts: Vec<u64> = file.split_offsets().unwrap_or_default().iter().map(|o| *o as u64).collect();
    starts.push(size);
    let gaps = starts.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
    gaps.max().unwrap_or(size).min(size)
}

impl Compacted {
    fn went(&mut self, groups: &[Group], deletes: usize) {
        self.files_before += groups.iter().map(|g| g.files.len()).sum::<usize>();
        self.bytes_before += groups.iter().map(Group::bytes).sum::<u64>();
        self.delete_files += deletes;
    }

    fn came(&mut self, written: &[NewFile]) {
        self.files_after += written.len();
        self.bytes_after += written.iter().map(|new| new.file.file_size_in_bytes()).sum::<u64>();
        self.rows += written.iter().map(|new| new.file.record_count()).sum::<u64>();
    }
}
