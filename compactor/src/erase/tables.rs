//! A table without a subject: files that hold the subject's rows are rewritten, then every older snapshot goes.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use firn_shared::error::{Error, ErrorKind, Result};
use firn_shared::ids::RunId;
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::TableIdent;
use iceberg::table::Table;

use super::journal::Journal;
use super::progress;
use super::rows::Erase;
use super::snapshots;
use crate::maintain;
use crate::maintain::names::Names;
use crate::maintain::orphans::{self, Orphans, Verdict};
use crate::run::Env;
use crate::table::create::Definition;
use crate::table::erasure;
use crate::table::offsets::{SCOPE, SCOPE_NEW};
use crate::table::read::batches;
use crate::table::scan::{All, LiveFile, Prune, Reader, Wanted, live};
use crate::table::{Change, Committer, offsets};
use crate::write::{OPEN_FILES_MAX, WriteSpec, write_stream};

/// Planned again so often when somebody else changes the table meanwhile.
const ATTEMPTS: u32 = 20;
/// Files of a commit: what is lost to a conflict at most.
const FILES: usize = 100;
/// zstd level of rewritten files.
pub const LEVEL: i32 = 3;
/// Size of rewritten files to aim for.
pub const FILE_BYTES: u64 = 128_000_000;

/// One table, and what of it is the subject's.
pub struct Work<'a> {
    pub env: &'a Env,
    pub run: RunId,
    pub ident: TableIdent,
    pub erase: Arc<dyn Erase>,
}

/// Marks a table, so that no run commits what it made of raw objects of before. A run may be about to make the table that
/// a pipeline defines: then it is made here. Of one that no pipeline names another deployment may be writing yet.
///
/// # Errors
/// Those of the catalog.
pub async fn mark(env: &Env, ident: &TableIdent, definition: Option<&Definition>, run: RunId) -> Result<()> {
    if env.catalog.load(ident).await?.is_none() {
        let Some(definition) = definition else { return Ok(()) };
        definition.ensure(&*env.catalog).await?;
    }
    let committer = Committer::new(Arc::clone(&env.catalog), Arc::clone(&env.clock));
    let erasure = run.to_string();
    committer.step(ident, |table| Ok(erasure::mark(table, &erasure))).await.map(drop)
}

impl Work<'_> {
    /// Counts what would be erased; nothing when there is no such table.
    ///
    /// # Errors
    /// Those of catalog and stores; `Data` for files that cannot be read.
    pub async fn look(&self, journal: &mut Journal) -> Result<()> {
        let Some(table) = self.env.catalog.load(&self.ident).await? else { return Ok(()) };
        let mut seen = Seen::default();
        let found = self.holding(&table, &mut seen).await?;
        let (count, mut rows) = (found.len() as u64, 0);
        let mut live = batches(Reader::all(&table)?, found);
        while let Some(live) = live.try_next().await? {
            rows += self.erase.apply(live.batch).await?.1;
        }
        let counts = journal.report().table(&self.ident);
        (counts.files, counts.rows, counts.unopened) = (count, rows, self.erase.unopened());
        (counts.looked, counts.excluded) = seen.counts();
        counts.snapshots = table.metadata().snapshots().len().saturating_sub(1) as u64;
        Ok(())
    }

    /// Erases from the table.
    ///
    /// # Errors
    /// `Conflict` when others kept changing it, `Config` when a branch or tag holds on to its rows; else those of catalog
    /// and stores.
    pub async fn erase(&self, maintained: &maintain::Subject, journal: &mut Journal) -> Result<()> {
        let Self { env, run, ident, .. } = self;
        let (mut seen, mut conflicts) = (Seen::default(), 0);
        loop {
            let Some(table) = env.catalog.load(ident).await? else { return Ok(()) };
            let found = self.holding(&table, &mut seen).await?;
            let Some(commit) = next(&table, found) else { break };
            match self.rewrite(&table, &commit, conflicts).await {
                Ok(rows) => {
                    let counts = journal.report().table(ident);
                    counts.rows += rows;
                    counts.files += commit.len() as u64;
                    journal.save().await?;
                    tracing::info!(table = %ident, rows, files = commit.len(), "rewrote files of a subject");
                }
                Err(e) if e.kind() == ErrorKind::Conflict && conflicts < ATTEMPTS => {
                    tracing::warn!(table = %ident, conflicts, error = %e, "looking for the subject again");
                    conflicts += 1;
                }
                Err(e) => return Err(e),
            }
        }
        let counts = journal.report().table(ident);
        (counts.looked, counts.excluded) = seen.counts();
        snapshots::scrub(env, ident, *run).await?;
        let snapshots = snapshots::forget(env, ident, journal).await?;
        journal.report().table(ident).snapshots += snapshots;
        let deleted = snapshots::delete_doomed(env, ident, journal).await?;
        journal.report().table(ident).deleted += deleted;
        journal.report().table(ident).unopened = self.erase.unopened();
        // Files of runs that died hold rows as well. A young one may belong to a commit in flight.
        loop {
            let found = orphans::orphans(env, maintained, true).await?;
            let counts = journal.report().table(ident);
            counts.orphans += found.deleted as u64;
            counts.young = files(&found, Verdict::Young);
            counts.left = files(&found, Verdict::Orphan).saturating_sub(found.deleted as u64);
            // One look takes a bounded number of them.
            let more = found.deleted > 0 && counts.left > found.left_behind as u64;
            counts.elsewhere = found.elsewhere;
            if !more {
                break;
            }
        }
        journal.save().await
    }

    /// The files with rows of the subject that still have values; rows that a delete file has taken out still have their
    /// bytes there. What is `seen` is not looked at again.
    async fn holding(&self, table: &Table, seen: &mut Seen) -> Result<Vec<LiveFile>> {
        let schema = table.metadata().current_schema();
        // A table that was made before a column was added has nothing of the subject there.
        let columns = self.erase.first_look();
        let there = columns.iter().map(String::as_str).filter(|name| schema.field_by_name(name).is_some());
        let (first, whole) = (Reader::new(table, &there.collect::<Vec<_>>())?, Reader::all(table)?);
        let wanted = self.erase.wanted(schema).map(Arc::new);
        let prune: &dyn Prune = match &wanted {
            Some(wanted) => &**wanted,
            None => &All,
        };
        let mut files = live(table, None, prune).await?;
        seen.by_bounds = wanted.as_ref().map_or(0, |wanted| wanted.excluded());
        files.retain(|file| !seen.clean.contains(file.path()));
        let progress = progress(self.env, &self.ident.to_string());
        progress.expect(files.iter().map(|file| file.data.file().file_size_in_bytes()).sum());
        let known = seen.dirty.clone();
        let look = |file: LiveFile| {
            let (first, whole, erase, wanted) =
                (first.clone(), whole.clone(), Arc::clone(&self.erase), wanted.as_ref().map(Arc::clone));
            let known = known.contains(file.path());
            // A task of its own: decoding is work for a processor, and several files are read at a time.
            let looking = tokio::spawn(async move {
                let look =
                    if known { None } else { Some(look(&first, &whole, (&*erase, wanted.as_deref()), &file).await?) };
                Ok::<_, Error>((file, look))
            });
            async { looking.await.map_err(|e| Error::bug("looking through a file died").with_source(e))? }
        };
        let mut looked = stream::iter(files).map(look).buffered(self.env.cpu.threads());
        let mut found = Vec::new();
        while let Some((file, look)) = looked.try_next().await? {
            progress.advance(file.data.file().file_size_in_bytes());
            if look.is_none_or(|look| seen.take(&file, look)) {
                found.push(file);
            }
        }
        progress.end();
        Ok(found)
    }

    /// Writes the live rows of `files` again without the values, and commits. Says how many rows lost some.
    async fn rewrite(&self, table: &Table, files: &[LiveFile], attempt: u32) -> Result<u64> {
        let Self { env, run, ident, erase } = self;
        let snapshot = table.metadata().current_snapshot();
        let snapshot = snapshot.ok_or_else(|| Error::bug("files without a snapshot"))?;
        let permit = env.cpu.permit(env.cpu.memory() / 2).await?;
        let name = files.first().map(|file| file.data.snapshot_id().unwrap_or_default()).unwrap_or_default();
        let spec = WriteSpec {
            metadata: table.metadata_ref(),
            stores: env.stores.clone(),
            runtime: tokio::runtime::Handle::current(),
            run: RunId::new(),
            slice: format!("erase{attempt}-{name}"),
            target_file_bytes: FILE_BYTES,
            memory: permit.bytes() / 2,
            open_files_max: OPEN_FILES_MAX,
            zstd_level: LEVEL,
        };
        let (read, erased) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (count, lost) = (Arc::clone(&read), Arc::clone(&erased));
        let rows = batches(Reader::all(table)?, files.to_vec()).and_then(move |live| {
            let (erase, count, lost) = (Arc::clone(erase), Arc::clone(&count), Arc::clone(&lost));
            async move {
                count.fetch_add(live.batch.num_rows() as u64, Ordering::Relaxed);
                let (batch, rows) = erase.apply(live.batch).await?;
                lost.fetch_add(rows, Ordering::Relaxed);
                Ok(batch)
            }
        });
        let added = write_stream(spec, rows).await?;
        drop(permit);
        let (came, read) = (added.iter().map(|new| new.file.record_count()).sum::<u64>(), read.load(Ordering::Relaxed));
        if came != read {
            return Err(Error::bug(format!("{read} rows of {ident} were read and {came} were written")));
        }
        let inputs: Vec<_> = files.iter().map(|file| file.data.clone()).collect();
        let moves = inputs.iter().any(|file| file.spec_id != table.metadata().default_partition_spec_id());
        let mut change = Change {
            commit_id: format!("{run}-{}", RunId::new()),
            add: added,
            remove: inputs.clone(),
            rewrite_of: (!moves).then_some(snapshot.sequence_number()),
            keeps_offsets: true,
            disposable: true,
            summary: erasing(table)?,
            ..Change::default()
        };
        change.expect.no_new_deletes_for = Some((Some(snapshot.snapshot_id()), inputs));
        change.expect.equality_deletes_follow = !moves;
        Committer::new(Arc::clone(&env.catalog), Arc::clone(&env.clock)).commit(ident, &change).await?;
        Ok(erased.load(Ordering::Relaxed))
    }
}

fn files(of: &Orphans, verdict: Verdict) -> u64 {
    of.files.get(&verdict).copied().unwrap_or_default() as u64
}

/// What one commit takes: files of one kind, since those of an older partition spec move to the current one.
fn next(table: &Table, found: Vec<LiveFile>) -> Option<Vec<LiveFile>> {
    let moves = |file: &LiveFile| file.data.spec_id != table.metadata().default_partition_spec_id();
    let kind = found.first().map(moves)?;
    Some(found.into_iter().filter(|file| moves(file) == kind).take(FILES).collect())
}

/// What is known of data files, which never change.
#[derive(Debug, Default)]
struct Seen {
    /// Nothing of the subject is in them. A marked table takes no rows of the subject any more.
    clean: Names,
    /// Rows of the subject are in them.
    dirty: HashSet<String>,
    /// Files of which rows were read.
    looked: u64,
    /// Files that were opened, and of which no row had to be read.
    by_footer: u64,
    /// Files that were not opened, at the last look.
    by_bounds: u64,
}

impl Seen {
    /// Takes down what was found, and says whether rows of the subject are in the file.
    fn take(&mut self, file: &LiveFile, look: Look) -> bool {
        match look {
            Look::Excluded => self.by_footer += 1,
            Look::Clean | Look::Holds => self.looked += 1,
        }
        if look == Look::Holds {
            self.dirty.insert(file.path().to_owned());
        } else {
            self.clean.insert(file.path());
        }
        look == Look::Holds
    }

    /// Files that were read, and files that need not be.
    fn counts(&self) -> (u64, u64) {
        (self.looked, self.by_footer + self.by_bounds)
    }
}

/// What was found in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Its footer says that it holds nothing of the subject.
    Excluded,
    /// Nothing.
    Clean,
    /// Rows that lose something.
    Holds,
}

/// Looks for rows that lose something. Few columns first: most files hold nothing of the subject.
async fn look(
    first: &Reader,
    whole: &Reader,
    (erase, wanted): (&dyn Erase, Option<&Wanted>),
    file: &LiveFile,
) -> Result<Look> {
    let file = LiveFile::whole(file.data.clone());
    let mut open = first.open(&file).await?;
    let groups = match wanted {
        Some(wanted) => wanted.row_groups(&mut open).await?,
        None => None,
    };
    if groups.as_ref().is_some_and(Vec::is_empty) {
        return Ok(Look::Excluded);
    }
    let (mut batches, mut may_hold) = (open.rows(groups.clone()).await?, false);
    while let (false, Some(live)) = (may_hold, batches.try_next().await?) {
        may_hold = erase.may_be_in(&live.batch)?;
    }
    if !may_hold {
        return Ok(Look::Clean);
    }
    let mut batches = whole.open(&file).await?.rows(groups).await?;
    while let Some(live) = batches.try_next().await? {
        if erase.apply(live.batch).await?.1 > 0 {
            return Ok(Look::Holds);
        }
    }
    Ok(Look::Clean)
}

/// What an erasure says of its snapshots. The last load of a table that is loaded as a whole is remembered, because the
/// snapshot that says so goes.
pub fn erasing(table: &Table) -> Result<BTreeMap<String, String>> {
    let mut summary = BTreeMap::from([(SCOPE.to_owned(), "erase".to_owned())]);
    if let Some(base) = offsets::base_of(table.metadata(), SCOPE, SCOPE_NEW)? {
        let base = serde_json::to_string(&base).map_err(|e| Error::bug("a position is JSON").with_source(e))?;
        summary.insert(offsets::LOAD_BASE.to_owned(), base);
    }
    Ok(summary)
}
