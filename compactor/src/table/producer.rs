//! The manifests of a new snapshot: those of the files that come in, and the parent's, kept, rewritten or merged.
//!
//! A commit touches few manifests of a large table: a file that goes out knows the manifest that names it, and where a
//! merge has moved it, partition summaries say where to look. Merging takes a bounded number and size of manifests a
//! commit, the smallest first.
//!
//! What goes is marked as deleted, as the specification wants it: expiry by other engines deletes files by these marks, and
//! their incremental reads show them. No scan looks at a mark's metrics, so it has none; and the marks of manifests that lose
//! everything share a few new manifests, so that replacing a table costs reading its manifests and writing little.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use firn_shared::error::{Error, Result};
use futures::TryStreamExt;
use iceberg::spec::{
    DataContentType, FormatVersion, Manifest, ManifestContentType, ManifestEntry, ManifestFile, ManifestWriter,
    ManifestWriterBuilder, PartitionSpec, SchemaRef, SnapshotSummaryCollector,
};
use iceberg::table::Table;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::files::{schema_of, unknown_spec, without_metrics};
use super::refs::Head;
use super::scan::{CONCURRENT, PartitionKeys, Tracked, load_all, manifests, no_number, only_file, summary_may_hold};
use super::snapshot::Change;
use super::validate::not_live;
use super::{NewFile, error};

/// Manifests are merged when a spec has this many small ones (Iceberg's `commit.manifest.min-count-to-merge`), and no
/// more than this many in one commit.
const MERGE_COUNT: usize = 100;
/// Up to this many bytes of manifests become one (Iceberg's `commit.manifest.target-size-bytes`); a manifest of half the
/// size is left alone.
pub(crate) const MERGE_BYTES: i64 = 8 * 1024 * 1024;

/// So many entries of files that went make one manifest.
const MARKS_MAX: usize = 10_000;

/// One attempt at a snapshot.
pub(super) struct Producer<'a> {
    table: &'a Table,
    pub snapshot_id: i64,
    pub attempt: Uuid,
    pub summary: SnapshotSummaryCollector,
    /// Everything written.
    pub files: Vec<String>,
    /// Manifests of the parent that are not part of the snapshot as they were, because files of theirs went.
    rewritten: HashSet<String>,
}

/// Entries that go out.
#[derive(Default)]
struct Gone<'a> {
    all: bool,
    paths: HashSet<&'a str>,
    /// Delete files with smaller sequence numbers; they can match no live data file.
    before: i64,
    /// Data files whose own position deletes go with them.
    deletes_of: HashSet<&'a str>,
}

impl Gone<'_> {
    fn takes(&self, entry: &ManifestEntry) -> bool {
        if self.all || self.paths.contains(entry.file_path()) {
            return true;
        }
        entry.content_type() != DataContentType::Data
            && (entry.sequence_number().is_some_and(|number| number < self.before)
                || (entry.content_type() == DataContentType::PositionDeletes
                    && only_file(entry.data_file()).is_some_and(|path| self.deletes_of.contains(path.as_str()))))
    }
}

/// A manifest of the new snapshot: one that is there, or that is being written.
enum Next {
    Same(ManifestFile),
    Again(JoinHandle<iceberg::Result<ManifestFile>>),
}

impl Next {
    /// Begins to write one, in a task of its own: encoding is work for a processor, and several are written at a time.
    fn write(writer: ManifestWriter) -> Self {
        Self::Again(tokio::spawn(writer.write_manifest_file()))
    }

    async fn done(self) -> Result<ManifestFile> {
        match self {
            Self::Same(manifest) => Ok(manifest),
            Self::Again(writing) => {
                let written = writing.await.map_err(|e| Error::bug("a manifest's writer died").with_source(e))?;
                written.map_err(|e| error("cannot rewrite a manifest", e))
            }
        }
    }
}

/// Manifests of nothing but marks, being filled, by spec, content and schema.
#[derive(Default)]
struct Marks(BTreeMap<(i32, bool, i32), (ManifestWriter, usize)>);

impl<'a> Producer<'a> {
    pub fn new(table: &'a Table) -> Self {
        // 63 random bits; one that the table knows already is drawn again.
        let draw = || (Uuid::new_v4().as_u64_pair().0 ^ Uuid::new_v4().as_u64_pair().1) as i64 & i64::MAX;
        let mut snapshot_id = draw();
        while snapshot_id == 0 || table.metadata().snapshot_by_id(snapshot_id).is_some() {
            snapshot_id = draw();
        }
        let summary = SnapshotSummaryCollector::default();
        Self { table, snapshot_id, attempt: Uuid::new_v4(), summary, files: Vec::new(), rewritten: HashSet::new() }
    }

    /// All manifests of the snapshot.
    pub async fn manifests(&mut self, head: &Head<'_>, change: &Change) -> Result<Vec<ManifestFile>> {
        let mut added = self.add(&change.add, change.rewrite_of).await?;
        let parent = match head.snapshot {
            Some(parent) => manifests::list(self.table, parent).await?,
            None => Vec::new(),
        };
        // What is not live are entries of files that the parent removed.
        let (data, deletes): (Vec<_>, Vec<_>) =
            parent.into_iter().filter(manifests::has_live).partition(|m| m.content == ManifestContentType::Data);
        if change.replace_all {
            let gone = Gone { all: true, ..Gone::default() };
            let parent = data.into_iter().chain(deletes).collect();
            added.extend(self.rewrite(parent, &gone, &mut HashSet::new()).await?);
            return Ok(added);
        }
        let (remove_data, remove_deletes): (Vec<_>, Vec<_>) =
            change.remove.iter().partition(|f| f.file().content_type() == DataContentType::Data);
        let data = self.keep_data(data, &remove_data).await?;
        let before = self.oldest_data(added.iter().chain(&data));
        let deletes = self.keep_deletes(deletes, &remove_deletes, &remove_data, before).await?;
        added.extend(data);
        added.extend(deletes);
        self.merge(added, &change.merge).await
    }

    /// A manifest under a new name.
    fn manifest(
        &mut self,
        schema: SchemaRef,
        spec: PartitionSpec,
        content: ManifestContentType,
    ) -> Result<ManifestWriter> {
        let location = self.table.metadata().location();
        let path = format!("{location}/metadata/{}-m{}.avro", self.attempt, self.files.len());
        let output =
            self.table.file_io().new_output(&path).map_err(|e| error(format!("cannot write manifest {path}"), e))?;
        self.files.push(path);
        let builder = ManifestWriterBuilder::new(output, Some(self.snapshot_id), schema, spec);
        Ok(match (self.table.metadata().format_version(), content) {
            (FormatVersion::V3, ManifestContentType::Data) => builder.build_v3_data(),
            (FormatVersion::V3, ManifestContentType::Deletes) => builder.build_v3_deletes(),
            (_, ManifestContentType::Data) => builder.build_v2_data(),
            (_, ManifestContentType::Deletes) => builder.build_v2_deletes(),
        })
    }

    /// Manifests of the files that come in, one per partition spec and content.
    async fn add(&mut self, files: &[NewFile], rewrite_of: Option<i64>) -> Result<Vec<ManifestFile>> {
        let metadata = self.table.metadata();
        let mut groups: BTreeMap<(i32, bool), Vec<&NewFile>> = BTreeMap::new();
        for file in files {
            let deletes = file.file.content_type() != DataContentType::Data;
            groups.entry((file.spec_id, deletes)).or_default().push(file);
        }
        let mut manifests = Vec::new();
        for ((spec_id, deletes), files) in groups {
            let spec = metadata.partition_spec_by_id(spec_id).ok_or_else(|| unknown_spec(metadata, spec_id))?;
            let schema = schema_of(metadata, spec)?;
            let content = if deletes { ManifestContentType::Deletes } else { ManifestContentType::Data };
            // -1: the sequence number is inherited from the snapshot, so that a retry needs no new manifest data.
            let sequence_number = rewrite_of.filter(|_| !deletes).unwrap_or(-1);
            let mut writer = self.manifest(schema.clone(), spec.as_ref().clone(), content)?;
            for NewFile { file, .. } in files {
                self.summary.add_file(file, schema.clone(), spec.clone());
                writer.add_file(file.clone(), sequence_number).map_err(|e| error("cannot add a file", e))?;
            }
            manifests.push(writer.write_manifest_file().await.map_err(|e| error("cannot write a manifest", e))?);
        }
        Ok(manifests)
    }

    /// The parent's data manifests without the removed files; those that name none of them as they are.
    async fn keep_data(&mut self, parent: Vec<ManifestFile>, remove: &[&Tracked]) -> Result<Vec<ManifestFile>> {
        let gone = Gone { paths: remove.iter().map(|f| f.path()).collect(), ..Gone::default() };
        let mut found = HashSet::new();
        let (named, others) = named(parent, remove);
        let mut kept = self.rewrite(named, &gone, &mut found).await?;
        if found.len() < gone.paths.len() {
            // Merges have moved the rest.
            let keys = keys(remove.iter().filter(|f| !found.contains(f.path())));
            let metadata = self.table.metadata();
            let (near, far): (Vec<_>, Vec<_>) = others.into_iter().partition(|m| summary_may_hold(metadata, m, &keys));
            kept.extend(far);
            kept.extend(self.rewrite(near, &gone, &mut found).await?);
        } else {
            kept.extend(others);
        }
        self.all_found(remove, &found)?;
        Ok(kept)
    }

    /// The parent's delete manifests without the removed files, and without delete files that can match no data file any
    /// more, where that is cheap to know: those older than every live data file, and those that refer to one data file,
    /// which goes out with this change.
    async fn keep_deletes(
        &mut self,
        parent: Vec<ManifestFile>,
        remove: &[&Tracked],
        data: &[&Tracked],
        before: i64,
    ) -> Result<Vec<ManifestFile>> {
        let paths = remove.iter().map(|f| f.path()).collect();
        let gone = Gone { all: false, paths, before, deletes_of: data.iter().map(|f| f.path()).collect() };
        let keys = keys(remove.iter().chain(data));
        let metadata = self.table.metadata();
        let (look, mut kept): (Vec<_>, Vec<_>) = parent.into_iter().partition(|m| {
            m.min_sequence_number < before || (!keys.is_empty() && summary_may_hold(metadata, m, &keys))
        });
        let mut found = HashSet::new();
        kept.extend(self.rewrite(look, &gone, &mut found).await?);
        self.all_found(remove, &found)?;
        Ok(kept)
    }

    /// The smallest sequence number of a live data file in these manifests.
    fn oldest_data<'m>(&self, manifests: impl Iterator<Item = &'m ManifestFile>) -> i64 {
        let next = self.table.metadata().next_sequence_number();
        let data = manifests.filter(|m| m.content == ManifestContentType::Data && manifests::has_live(m));
        // A new manifest gets its number with the list.
        data.map(|m| if m.min_sequence_number < 0 { next } else { m.min_sequence_number }).min().unwrap_or(next)
    }

    fn all_found(&self, remove: &[&Tracked], found: &HashSet<String>) -> Result<()> {
        match remove.iter().find(|file| !found.contains(file.path())) {
            None => Ok(()),
            Some(file) => Err(not_live(self.table.identifier(), file.path())),
        }
    }

    /// Manifests again without what is gone, its entries marked as deleted; those without such entries as they are.
    /// Several are read and written at a time; the order of those with live files stays.
    async fn rewrite(
        &mut self,
        manifests: Vec<ManifestFile>,
        gone: &Gone<'_>,
        found: &mut HashSet<String>,
    ) -> Result<Vec<ManifestFile>> {
        let table = self.table;
        let mut loaded = load_all(table, manifests);
        let (mut marks, mut next, mut done) = (Marks::default(), VecDeque::new(), Vec::new());
        while let Some((manifest, loaded)) = loaded.try_next().await? {
            next.extend(self.without(manifest, &loaded, (gone, &mut marks), found)?);
            while next.len() > CONCURRENT
                && let Some(first) = next.pop_front()
            {
                done.push(first.done().await?);
            }
        }
        next.extend(marks.0.into_values().map(|(writer, _)| Next::write(writer)));
        for last in next {
            done.push(last.done().await?);
        }
        Ok(done)
    }

    /// One manifest without what is gone, under its own schema and spec; `None` when nothing is left of it, and the marks of its
    /// files have not filled a manifest yet.
    fn without(
        &mut self,
        manifest: ManifestFile,
        loaded: &Manifest,
        (gone, marks): (&Gone<'_>, &mut Marks),
        found: &mut HashSet<String>,
    ) -> Result<Option<Next>> {
        let live = loaded.entries().iter().filter(|entry| entry.is_alive());
        let (goes, stays): (Vec<_>, Vec<_>) = live.partition(|entry| gone.takes(entry));
        if goes.is_empty() {
            return Ok(Some(Next::Same(manifest)));
        }
        self.rewritten.insert(manifest.manifest_path.clone());
        let (schema, spec) = (loaded.metadata().schema(), loaded.metadata().partition_spec());
        let key = (spec.spec_id(), manifest.content == ManifestContentType::Data, loaded.metadata().schema_id());
        let shared = if stays.is_empty() { marks.0.remove(&key) } else { None };
        let (mut writer, mut count) = match shared {
            Some(shared) => shared,
            None => (self.manifest(schema.clone(), spec.clone(), manifest.content)?, 0),
        };
        for entry in &stays {
            add_existing(&mut writer, entry)?;
        }
        let spec = Arc::new(spec.clone());
        for entry in goes {
            found.insert(entry.file_path().to_owned());
            self.summary.remove_file(entry.data_file(), schema.clone(), spec.clone());
            let sequence = entry.sequence_number().ok_or_else(|| no_number(entry))?;
            let file = without_metrics(entry.data_file(), spec.spec_id())?;
            let marked = writer.add_delete_file(file, sequence, entry.file_sequence_number);
            marked.map_err(|e| error(format!("cannot rewrite manifest {}", manifest.manifest_path), e))?;
            count += 1;
        }
        if stays.is_empty() && count < MARKS_MAX {
            marks.0.insert(key, (writer, count));
            return Ok(None);
        }
        Ok(Some(Next::write(writer)))
    }

    /// Merges the manifests `asked` for; else, where a spec has many small ones of one content, the smallest of them. What this
    /// snapshot itself has written without some of its files stays as it is.
    async fn merge(&mut self, manifests: Vec<ManifestFile>, asked: &[Vec<String>]) -> Result<Vec<ManifestFile>> {
        let bins = if asked.is_empty() { self.many_small(&manifests) } else { asked.to_vec() };
        let mut by_path: HashMap<String, ManifestFile> = HashMap::new();
        let wanted: HashSet<&String> = bins.iter().flatten().collect();
        let mut kept = Vec::with_capacity(manifests.len());
        for manifest in manifests {
            if wanted.contains(&manifest.manifest_path) {
                by_path.insert(manifest.manifest_path.clone(), manifest);
            } else {
                kept.push(manifest);
            }
        }
        for bin in &bins {
            let found = bin.iter().filter(|path| !self.rewritten.contains(*path)).map(|path| {
                by_path.remove(path).ok_or_else(|| {
                    let table = self.table.identifier();
                    Error::conflict(format!(
                        "cannot commit {table}: manifest {path} was rewritten meanwhile; run again"
                    ))
                })
            });
            let found = found.collect::<Result<Vec<_>>>()?;
            // Schemas differ between manifests; merged ones must agree on it.
            let mut by_schema: BTreeMap<i32, Vec<Arc<Manifest>>> = BTreeMap::new();
            let mut loaded = load_all(self.table, found);
            while let Some((_, loaded)) = loaded.try_next().await? {
                by_schema.entry(loaded.metadata().schema_id()).or_default().push(loaded);
            }
            drop(loaded);
            for manifests in by_schema.into_values() {
                kept.push(self.merged(&manifests).await?);
            }
        }
        Ok(kept)
    }

    /// The small manifests of each spec and content that are worth a merge: bounded in number and size.
    fn many_small(&self, manifests: &[ManifestFile]) -> Vec<Vec<String>> {
        let mut small: BTreeMap<(i32, bool), Vec<(i64, &str)>> = BTreeMap::new();
        let old = |m: &&ManifestFile| m.added_snapshot_id != self.snapshot_id && manifests::has_live(m);
        for m in manifests.iter().filter(old).filter(|m| m.manifest_length < MERGE_BYTES / 2) {
            let group = small.entry((m.partition_spec_id, m.content == ManifestContentType::Data)).or_default();
            group.push((m.manifest_length, &m.manifest_path));
        }
        let chosen = small.into_values().filter(|group| group.len() >= MERGE_COUNT).map(|mut group| {
            group.sort_unstable();
            let mut bytes = 0;
            let fits = |(length, _): &&(i64, &str)| {
                bytes += length;
                bytes <= MERGE_BYTES
            };
            group.iter().take(MERGE_COUNT).take_while(fits).map(|(_, path)| (*path).to_owned()).collect()
        });
        chosen.collect()
    }

    async fn merged(&mut self, manifests: &[Arc<Manifest>]) -> Result<ManifestFile> {
        let [first, ..] = manifests else { return Err(Error::bug("nothing to merge")) };
        let (schema, spec) = (first.metadata().schema().clone(), first.metadata().partition_spec().clone());
        let mut writer = self.manifest(schema, spec, *first.metadata().content())?;
        for entry in manifests.iter().flat_map(|m| m.entries()).filter(|e| e.is_alive()) {
            add_existing(&mut writer, entry)?;
        }
        writer.write_manifest_file().await.map_err(|e| error("cannot write a merged manifest", e))
    }
}

/// The manifests that named these files when they were looked up, and the others.
fn named(manifests: Vec<ManifestFile>, files: &[&Tracked]) -> (Vec<ManifestFile>, Vec<ManifestFile>) {
    let named: HashSet<&str> = files.iter().map(|file| file.manifest.as_ref()).collect();
    manifests.into_iter().partition(|m| named.contains(m.manifest_path.as_str()))
}

fn keys<'f>(files: impl Iterator<Item = &'f &'f Tracked>) -> PartitionKeys {
    files.map(|file| file.key()).collect()
}

/// An entry that stays, with the snapshot and sequence numbers it came with.
fn add_existing(writer: &mut ManifestWriter, entry: &ManifestEntry) -> Result<()> {
    let snapshot = entry.snapshot_id().ok_or_else(|| no_number(entry))?;
    let sequence = entry.sequence_number().ok_or_else(|| no_number(entry))?;
    writer
        .add_existing_file(entry.data_file().clone(), snapshot, sequence, entry.file_sequence_number)
        .map_err(|e| error(format!("cannot keep {}", entry.file_path()), e))
}
