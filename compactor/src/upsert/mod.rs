//! Upserts: rows of a run against rows of the table, newest version of each key wins.
//!
//! ```text
//! slices ─→ shuffle (by key hash, on local disk) ─┬─→ merge, bucket by bucket ─→ new rows ─→ data files
//!            touched: bounds, partitions, filter  │     resolve: who wins       └→ deletes to remember
//!                 └─→ lookup in candidate files ──┘                 └→ rows that go ─→ apply: position deletes,
//!                     and in remembered deletes                                        equality deletes, or rewritten files
//! ```
//! The shuffle is made once per run. Everything after it depends on the table as it is and is done again when somebody
//! else changed the table meanwhile ([`stage`]); raw objects are not converted twice.
//!
//! **The rule** ([`resolve`]): an incoming record wins when its version is above that of every other record of its key in
//! the run, of every row the table has, and of every delete it remembers. A winner that deletes leaves no row and is
//! remembered for `deleteMemory`; any other winner becomes a row. Whatever has the same key and lost, goes. A truncate of a
//! source table is a delete of all its keys at once ([`truncate`]). Where deleted rows are marked and stay, a row keeps the
//! values that it had ([`kept`]).
//!
//! **Cost**: candidate files are those whose partition and key bounds meet the run's keys; of them only key, version and
//! provenance are read, once, and for few keys only the row groups whose bloom filters may hold one. What is written follows
//! the touched rows (merge on read) or files (copy on write).
//!
//! **Memory**: a bucket's distinct keys at a time and thread; what does not fit lies on local disk, and a bucket that is
//! larger than its share is split ([`bucket`]). One that cannot be split, because its rows are of one key, is reduced as it is
//! read ([`known`]).

mod apply;
mod bucket;
mod filter;
mod frames;
mod kept;
pub mod key;
mod known;
mod lookup;
mod merge;
pub mod remember;
mod resolve;
mod shuffle;
mod soften;
mod touched;
mod truncate;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use arrow_array::RecordBatch;
use chrono::{DateTime, Utc};
use firn_shared::config::domain::{StoreUrl, Upsert, WriteStrategy};
use firn_shared::error::{Error, Result};
use firn_shared::ids::RunId;
use firn_shared::store::Stores;
use iceberg::spec::{TableMetadata, TableMetadataRef};
use iceberg::table::Table;

pub use lookup::Affected;
pub use merge::Counts;
pub use shuffle::{Buckets, Recall, Shuffle, ShuffleWriter};
pub use touched::Touched;
pub use truncate::Truncation;

use crate::diff::{Turnover, Which};
use crate::execute::Budget;
use crate::seam::Cpu;
use crate::table::scan::{All, LiveFile, Prune, Tracked};
use crate::table::{Change, NewFile, error};
use crate::write::{DataWriter, WriteSpec, bounds_properties};
use apply::Leaving;
use bucket::Bucket;
use filter::KeyFilter;
use frames::{SharedFile, lock};
use lookup::{Emptied, Found, Search, counting, look_up};
use merge::{Merged, Rules, merge};
use remember::{Gathered, List, Memory, Place, merged, remember};
use truncate::Truncations;

/// An upsert whose rows were shuffled.
#[derive(Debug)]
pub struct Upserting {
    /// How.
    pub upsert: Upsert,
    /// The run's rows.
    pub shuffle: Arc<Shuffle>,
    /// Which files it concerns.
    pub affected: Arc<Affected>,
    /// Local and remote files.
    pub stores: Stores,
    /// Where deletes are remembered; `None` is beside the table.
    pub delete_memory_location: Option<StoreUrl>,
    /// Worker threads and memory.
    pub cpu: Cpu,
    /// When the run's deletes are applied.
    pub now: DateTime<Utc>,
}

impl Upserting {
    /// Properties that let files be found by key and version, where the table has so many columns that it needs them.
    fn bounds_properties(&self, metadata: &TableMetadata) -> HashMap<String, String> {
        let columns = [self.shuffle.keys().names(), self.shuffle.keys().version_names()].concat();
        bounds_properties(metadata, &columns)
    }

    /// The table with those properties, for the files of the commit that sets them.
    fn with_bounds(&self, metadata: &TableMetadataRef) -> Result<TableMetadataRef> {
        let properties = self.bounds_properties(metadata);
        if properties.is_empty() {
            return Ok(Arc::clone(metadata));
        }
        let built = TableMetadata::clone(metadata).into_builder(None).set_properties(properties);
        let built = built.and_then(iceberg::spec::TableMetadataBuilder::build);
        Ok(Arc::new(built.map_err(|e| error("cannot set the bounds of key columns", e))?.metadata))
    }
}

/// What an upsert does to one state of the table: files are written, nothing names them yet.
#[derive(Debug, Default)]
pub struct Staged {
    /// Data and delete files that come in.
    pub add: Vec<NewFile>,
    /// Data files that go out.
    pub remove: Vec<LiveFile>,
    /// Data files that delete files of `add` refer to.
    pub referred: Vec<LiveFile>,
    /// Incoming records that lost to another version of their key.
    pub superseded: Counts,
    /// Incoming records that deleted their key.
    pub deleted: Counts,
    /// Rows of the table that a newer version replaced.
    pub outdated: Counts,
    /// Rows of the table that were replaced because of their origin.
    pub replaced: Counts,
    /// Records of earlier runs that are rows again, because what had superseded them is gone.
    pub restored: Counts,
    /// All that is remembered from now on.
    pub remembered: Memory,
    /// Which files of the table may have mattered, when they are more than the job's rows say.
    wider: Option<Arc<dyn Prune>>,
    /// Rows that go, and the files of rows that come.
    pub turnover: Turnover,
}

impl Staged {
    /// Puts it into a change, with what must hold for it: the files it takes rows out of are live and have the rows they
    /// had in `base`, and nobody added files that may hold the run's keys.
    pub fn apply_to(self, base: &Table, job: &Upserting, change: &mut Change) {
        let since = base.metadata().current_snapshot_id();
        let gone: Vec<Tracked> = self.remove.into_iter().map(|file| file.data).collect();
        let referred: Vec<Tracked> = self.referred.into_iter().map(|file| file.data).collect();
        let mut unchanged = gone.clone();
        if job.upsert.soft_delete {
            // Rows of them may have been written anew: what somebody deleted meanwhile must not come back by it.
            unchanged.extend(referred.iter().cloned());
        }
        change.expect.live.extend(referred);
        let affected = || Arc::clone(&job.affected) as Arc<dyn Prune>;
        change.expect.no_new_files = Some((since, self.wider.unwrap_or_else(affected)));
        change.expect.no_new_deletes_for = Some((since, unchanged));
        change.remove.extend(gone);
        change.add.extend(self.add);
        change.properties.extend(job.bounds_properties(base.metadata()));
    }
}

/// Works out what the run does to `table`, which remembers `memory`. `attempt` makes file names unique; `spec` is what
/// data files are written with. `recall` converts earlier records of some keys again, when a `reprocess` took newer
/// versions of them away.
///
/// # Errors
/// Those of the stores and of the temporary directory; `Data` for files of the table that cannot be read.
pub async fn stage(
    job: &Upserting,
    table: &Table,
    memory: &Memory,
    spec: &WriteSpec,
    (attempt, recall): (u32, impl AsyncFnOnce(Buckets) -> Result<()>),
) -> Result<Staged> {
    let spec = &WriteSpec { metadata: job.with_bounds(&spec.metadata)?, ..spec.clone() };
    // Boxed, as the futures of its parts are large together.
    let (stage, memory) = Box::pin(stand(job, table, memory, spec.run, (attempt, recall))).await?;
    let Budget { at_once: lanes, slice: share } = Budget::of(job.cpu.memory(), job.cpu.threads())?;
    let lane = |number: usize| {
        let slice = format!("{}u{attempt}-{number}", spec.slice);
        stage.lane(share.bytes, WriteSpec { slice, ..spec.clone() })
    };
    let mut total = Merged::default();
    let mut staged = Staged { remembered: memory, wider: stage.wider.clone(), ..Staged::default() };
    let (mut keys, mut marks, mut remembered) = (Vec::new(), Vec::new(), List::new());
    for mut lane in futures::future::try_join_all((0..lanes).map(lane)).await? {
        total.add_counts(&mut lane.merged);
        keys.push(lane.keys);
        marks.push(lane.marks);
        staged.add.extend(lane.files);
        remembered.extend(lane.remembered);
    }
    let place = stage.place(spec.run);
    let left = stage.gathered.lock().unwrap_or_else(PoisonError::into_inner).take();
    if !left.is_empty() {
        let deletes = (left.as_slice(), job.shuffle.keys());
        remembered.push(remember(place, &format!("{attempt}-rest"), deletes, job.now).await?);
    }
    if !remembered.is_empty() {
        let all = std::mem::take(&mut staged.remembered.deletes).into_iter().chain(remembered).collect();
        staged.remembered.deletes = merged(place, all, job.upsert.delete_memory, attempt).await?;
    }
    let found = &stage.found.files;
    let named = |what: &str| WriteSpec { slice: format!("{}{what}{attempt}", spec.slice), ..spec.clone() };
    let softened = by_file(found, std::mem::take(&mut total.softened));
    let rules = (&job.shuffle, &stage.truncations, &job.cpu);
    let mut softened = soften::rewrite(table, softened, rules, named("m")).await?;
    staged.add.append(&mut softened.files);
    let kept = kept::rewrite(table, found, marks, (&job.shuffle, &job.cpu), named("k"));
    staged.add.extend(Box::pin(kept).await?);
    merge::add_places(&mut total.displaced, softened.places);
    let displaced = total.displaced.clone();
    merge::add_places(&mut total.outdated, total.displaced);
    let gone = by_file(found, total.outdated);
    staged.turnover = Turnover {
        gone: gone.iter().map(|(_, file, rows)| (file.clone(), Which::At(Arc::clone(rows)))).collect(),
        came: staged.add.clone(),
    };
    let leaving = Leaving { gone, displaced, keys };
    let apply = apply::apply(table, job.upsert.strategy, leaving, (&job.shuffle, &job.cpu), named("d"), &mut staged);
    Box::pin(apply).await?;
    (staged.superseded, staged.deleted) = (total.superseded, total.deleted);
    (staged.outdated, staged.replaced) = (total.outdated_by, total.replaced_by);
    staged.restored = total.restored;
    Ok(staged)
}

/// What the table has and remembers of what the run is about; and what is left of its memory.
async fn stand<'a>(
    job: &'a Upserting,
    table: &Table,
    memory: &Memory,
    run: RunId,
    (attempt, recall): (u32, impl AsyncFnOnce(Buckets) -> Result<()>),
) -> Result<(Stage<'a>, Memory)> {
    let (keys, replaced) = (job.shuffle.keys(), job.affected.replaced.as_ref());
    let mut deletes = counting(&memory.deletes, job.now, job.upsert.delete_memory);
    let own = job.shuffle.truncations();
    let (mut known, mut everything) = (memory.truncations.clone(), false);
    if let Some(replaced) = replaced {
        (known, everything) = truncate::without(keys, known, replaced, &own)?;
    }
    known.extend(own.clone());
    let newest = Truncations::newest(keys, known.clone())?;
    // Those that were known have taken their rows.
    let new = newest.list().iter().filter(|one| own.contains(one)).cloned();
    let new = Arc::new(Truncations::newest(keys, new)?);
    let wider: Option<Arc<dyn Prune>> = match (everything, new.is_empty()) {
        (true, _) => Some(Arc::new(All)),
        (false, false) => {
            Some(Arc::new(Emptied { affected: Arc::clone(&job.affected), truncations: Arc::clone(&new) }))
        }
        (false, true) => None,
    };
    let search = Search {
        prune: wider.as_deref().unwrap_or(job.affected.as_ref()),
        touched: &job.affected.touched,
        replaced,
        truncations: &new,
        everything,
    };
    let found = look_up(table, &job.shuffle, search, (&deletes, &job.stores, &job.cpu), attempt).await?;
    if !found.of_other_keys.is_empty() {
        let objects = found.of_other_keys.len();
        tracing::warn!(
            table = %table.identifier(),
            objects,
            "idColumns changed: deletes by the former key are forgotten, so rows may come back that late records tell of"
        );
        deletes.retain(|object| !found.of_other_keys.contains(&object.url));
    }
    let forgotten = memory.forgotten || deletes.len() < memory.deletes.len();
    let mut stage = Stage {
        job,
        directory: remember::directory(job.delete_memory_location.as_ref(), table),
        found: Arc::new(found),
        recalled: None,
        truncations: Arc::new(newest),
        forgotten: forgotten && replaced.is_some(),
        everything,
        wider,
        next: AtomicUsize::new(0),
        gathered: Mutex::default(),
    };
    if let Some(replaced) = replaced {
        stage.recalled = stage.orphans(attempt).await?;
        if let Some(recalled) = &stage.recalled {
            recall(Buckets { shuffle: Arc::clone(&job.shuffle), recall: Some(Arc::clone(recalled)) }).await?;
            known.extend(recalled.truncations.lock().unwrap_or_else(PoisonError::into_inner).drain(..));
            stage.truncations = Arc::new(Truncations::newest(keys, known)?);
        }
        deletes = remember::without(stage.place(run), deletes, replaced, attempt).await?;
    }
    let truncations = stage.truncations.list().to_vec();
    Ok((stage, Memory { deletes, truncations, forgotten }))
}

/// Rows of the table, per file.
fn by_file(files: &[LiveFile], places: merge::Places) -> apply::Gone {
    places.into_iter().map(|(file, rows)| (file, files[file as usize].clone(), Arc::new(rows))).collect()
}

/// What all lanes of a merge share.
struct Stage<'a> {
    job: &'a Upserting,
    /// Where deletes are remembered.
    directory: String,
    found: Arc<Found>,
    recalled: Option<Arc<Recall>>,
    truncations: Arc<Truncations>,
    forgotten: bool,
    everything: bool,
    wider: Option<Arc<dyn Prune>>,
    next: AtomicUsize,
    gathered: Mutex<Gathered>,
}

/// What one lane of a merge made.
struct Lane {
    merged: Merged,
    /// Keys of rows that go, where the strategy needs them.
    keys: SharedFile,
    /// Rows that mark others as deleted.
    marks: SharedFile,
    files: Vec<NewFile>,
    remembered: List,
}

impl Stage<'_> {
    /// Where deletes are remembered.
    fn place(&self, run: RunId) -> Place<'_> {
        Place { stores: &self.job.stores, directory: &self.directory, run }
    }

    /// Keys of which an earlier version may count again.
    async fn orphans(&self, attempt: u32) -> Result<Option<Arc<Recall>>> {
        let shuffle = &self.job.shuffle;
        let recall = |keys: KeyFilter| {
            let rows = shuffle.more(&format!("recalled-{attempt}"));
            Arc::new(Recall { keys, rows, truncations: Mutex::default() })
        };
        if self.everything {
            return Ok(Some(recall(KeyFilter::all())));
        }
        let rules = (self.forgotten, self.job.upsert.soft_delete);
        let permit = self.job.cpu.permit(self.job.cpu.memory()).await?;
        let (of, found, bytes) = (Arc::clone(shuffle), Arc::clone(&self.found), permit.bytes());
        let work = move || -> Result<Option<KeyFilter>> {
            let own = of.rows().iter().filter(|_| rules.0 || rules.1);
            let count: u64 = found.rows.iter().chain(&found.deletes).chain(own).map(|file| lock(file).rows()).sum();
            let (keys, mut any) = (KeyFilter::new(count, bytes / 16), false);
            let mut waiting: Vec<Bucket> = (0..of.buckets()).map(|at| bucket_of(&of, &found, None, at)).collect();
            while let Some(bucket) = waiting.pop() {
                if let Some(parts) = bucket.split(&of, bytes / 8)? {
                    waiting.extend(parts);
                    continue;
                }
                for key in merge::orphans(of.keys(), &bucket, (bytes / 8) as usize, rules)? {
                    keys.insert(key::hash(&key));
                    any = true;
                }
            }
            Ok(any.then_some(keys))
        };
        let keys = self.job.cpu.run(&permit, work).await??;
        Ok(keys.map(recall))
    }

    /// Merges buckets one after the other, with a writer of its own.
    async fn lane(&self, bytes: u64, mut spec: WriteSpec) -> Result<Lane> {
        let job = self.job;
        let permit = job.cpu.permit(bytes).await?;
        spec.memory = permit.bytes() / 4;
        let (run, name) = (spec.run, spec.slice.clone());
        let mut writer = DataWriter::new(spec)?;
        let mut scratch = job.shuffle.scratch(2).into_iter();
        let (Some(keys), Some(marks)) = (scratch.next(), scratch.next()) else {
            return Err(Error::bug("two files were asked for"));
        };
        let (mut total, mut remembered, mut objects) = (Merged::default(), List::new(), 0);
        // Parts of a bucket that was split.
        let mut waiting: Vec<Bucket> = Vec::new();
        loop {
            let bucket = match waiting.pop() {
                Some(part) => part,
                None => match self.next.fetch_add(1, Ordering::Relaxed) {
                    at if at < job.shuffle.buckets() => {
                        bucket_of(&job.shuffle, &self.found, self.recalled.as_deref(), at)
                    }
                    _ => break,
                },
            };
            let (shuffle, truncations) = (Arc::clone(&job.shuffle), Arc::clone(&self.truncations));
            let (soft, forgotten, everything) = (job.upsert.soft_delete, self.forgotten, self.everything);
            let by_key = (job.upsert.strategy == EQUALITY).then(|| Arc::clone(&keys));
            let (to, bytes_max) = (Arc::clone(&marks), permit.bytes() / 8);
            let work = move || -> Result<(Work, DataWriter)> {
                if let Some(parts) = bucket.split(&shuffle, bytes_max)? {
                    return Ok((Work::Parts(parts), writer));
                }
                let rules = Rules { truncations: &truncations, soft, forgotten, everything };
                let gone = |keys: &RecordBatch| by_key.as_ref().map_or(Ok(()), |file| lock(file).append(keys));
                let mut merged = merge(shuffle.keys(), &bucket, rules, bytes_max as usize, gone)?;
                for rows in merged.rows.drain(..) {
                    writer.write(&rows)?;
                }
                merged.marks.drain(..).try_for_each(|rows| lock(&to).append(&rows))?;
                Ok((Work::Merged(Box::new(merged)), writer))
            };
            let (done, back) = job.cpu.run(&permit, work).await??;
            writer = back;
            let mut merged = match done {
                Work::Parts(parts) => {
                    waiting.extend(parts);
                    continue;
                }
                Work::Merged(merged) => merged,
            };
            total.add_counts(&mut merged);
            let full = self.gathered.lock().unwrap_or_else(PoisonError::into_inner).add(merged.deletes);
            if let Some(full) = full {
                let deletes = (full.as_slice(), job.shuffle.keys());
                remembered.push(remember(self.place(run), &format!("{name}-{objects}"), deletes, job.now).await?);
                objects += 1;
            }
        }
        let files = job.cpu.run(&permit, move || writer.finish()).await??;
        Ok(Lane { merged: total, keys, marks, files, remembered })
    }
}

/// What became of a bucket.
enum Work {
    /// It was too large.
    Parts(Vec<Bucket>),
    /// It was resolved.
    Merged(Box<Merged>),
}

fn bucket_of(shuffle: &Shuffle, found: &Found, recalled: Option<&Recall>, bucket: usize) -> Bucket {
    Bucket {
        incoming: Arc::clone(&shuffle.rows()[bucket]),
        recalled: recalled.map(|recalled| Arc::clone(&recalled.rows[bucket])),
        rows: Arc::clone(&found.rows[bucket]),
        deletes: Arc::clone(&found.deletes[bucket]),
        level: 0,
    }
}

/// The strategy that needs the keys of rows that go.
const EQUALITY: WriteStrategy = WriteStrategy::MergeOnRead(firn_shared::config::domain::DeleteFiles::Equality);

#[cfg(test)]
mod tests;
