//! Live files and live rows, by the specification's rules for scans.
//!
//! [`live`] goes from a snapshot to the data files that may matter: manifests and files are left out by a [`Prune`], and
//! each file that is left carries the delete files that apply to it ([`index`]). A [`Reader`] streams the rows of one
//! such file in file order with their positions: Parquet columns are found by field id and brought to the table's
//! current types ([`project`]), deleted rows are left out ([`deletes`]). [`manifests`] reads and keeps manifests.

mod cache;
mod deletes;
mod dictionary;
mod index;
pub(crate) mod manifests;
mod project;
mod prune;
mod reader;
mod wanted;

use std::sync::Arc;

use firn_shared::error::{Error, Result};
use futures::{StreamExt, TryStreamExt};
use iceberg::spec::{
    DataFile, DataFileFormat, Manifest, ManifestContentType, ManifestEntry, ManifestEntryRef, ManifestFile, SnapshotRef,
};
use iceberg::table::Table;

use index::Applying;
pub(super) use index::{DeleteIndex, only_file};
pub use prune::{
    All, PartitionKey, PartitionKeys, PartitionOrder, Prune, fields_may_hold, partition_key, partition_order,
    summary_may_hold, widest,
};
pub use reader::{BATCH_ROWS, LiveBatch, OpenFile, Reader, field_ids};
pub use wanted::{Values, Wanted, is_firns};

use super::files::{unknown_spec, without_metrics};

/// A data or delete file that a manifest of the table says is live.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracked {
    /// The partition spec it was written under.
    pub spec_id: i32,
    /// The manifest that named it when it was looked up; a later merge may have moved it.
    pub manifest: Arc<str>,
    entry: ManifestEntryRef,
}

impl Tracked {
    /// Path, partition, rows and bytes; a data file's counts, sizes and bounds by column are left out.
    #[must_use]
    pub fn file(&self) -> &DataFile {
        self.entry.data_file()
    }

    /// Its URL.
    #[must_use]
    pub fn path(&self) -> &str {
        self.entry.file_path()
    }

    /// Its data sequence number: deletes apply by it.
    #[must_use]
    pub fn sequence_number(&self) -> i64 {
        // Checked when it was made.
        self.entry.sequence_number().unwrap_or_default()
    }

    /// The snapshot that added it.
    #[must_use]
    pub fn snapshot_id(&self) -> Option<i64> {
        self.entry.snapshot_id()
    }

    /// Its partition, comparable across schemas.
    #[must_use]
    pub fn key(&self) -> PartitionKey {
        partition_key(self.spec_id, self.file().partition())
    }

    pub(super) fn of(manifest: &ManifestFile, path: &Arc<str>, entry: &ManifestEntryRef) -> Result<Self> {
        if entry.sequence_number().is_none() {
            return Err(no_number(entry));
        }
        Ok(Self { spec_id: manifest.partition_spec_id, manifest: path.clone(), entry: entry.clone() })
    }

    /// A data file, of which there may be many: without its metrics by column.
    fn data(manifest: &ManifestFile, path: &Arc<str>, entry: &ManifestEntryRef) -> Result<Self> {
        let data_file = without_metrics(entry.data_file(), manifest.partition_spec_id)?;
        let ManifestEntry { status, snapshot_id, sequence_number, file_sequence_number, .. } = **entry;
        let short = ManifestEntry { status, snapshot_id, sequence_number, file_sequence_number, data_file };
        Self::of(manifest, path, &Arc::new(short))
    }
}

/// The error for a live entry without its numbers.
pub(super) fn no_number(entry: &ManifestEntry) -> Error {
    Error::data(format!("the manifest entry of {} has no snapshot or sequence number", entry.file_path()))
}

/// A live data file and what deletes rows of it.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveFile {
    /// The data file.
    pub data: Tracked,
    applying: Applying,
}

impl LiveFile {
    /// The data file with all its rows, also those that are deleted.
    #[must_use]
    pub fn whole(data: Tracked) -> Self {
        Self { data, applying: Applying::default() }
    }

    /// The delete files that apply to it.
    pub fn deletes(&self) -> impl Iterator<Item = &Arc<Tracked>> {
        self.applying.iter(self.data.path())
    }

    /// The data file's URL.
    #[must_use]
    pub fn path(&self) -> &str {
        self.data.path()
    }

    /// As [`Tracked::file`], of the data file.
    #[must_use]
    pub fn file(&self) -> &DataFile {
        self.data.file()
    }
}

/// Manifests that are read at the same time.
pub(super) const CONCURRENT: usize = 8;

/// The live data files of `snapshot` (`None`: the current one of `main`) that `prune` does not rule out, in the order of
/// the manifests, each with its delete files.
///
/// # Errors
/// As the store says; `Data` for a manifest that cannot be read, `Config` for deletion vectors.
pub async fn live(table: &Table, snapshot: Option<&SnapshotRef>, prune: &dyn Prune) -> Result<Vec<LiveFile>> {
    let Some(snapshot) = snapshot.or_else(|| table.metadata().current_snapshot()) else { return Ok(Vec::new()) };
    let mut files = Vec::new();
    let deletes = each(table, snapshot, prune, |manifest, path, entry| {
        files.push(LiveFile::whole(Tracked::data(manifest, path, entry)?));
        Ok(())
    });
    let deletes = deletes.await?;
    if !deletes.is_empty() && !files.is_empty() {
        let index = DeleteIndex::new(delete_files(table, deletes, &files).await?);
        for file in &mut files {
            file.applying = index.of(&file.data);
        }
    }
    Ok(files)
}

/// Shows every live data file of the current snapshot of `main` with its partition and all that its entry says, in the order
/// of the manifests.
///
/// # Errors
/// As [`live`], and those of `see`.
pub async fn each_entry(table: &Table, mut see: impl FnMut(PartitionKey, &DataFile) -> Result<()>) -> Result<()> {
    let Some(snapshot) = table.metadata().current_snapshot() else { return Ok(()) };
    let see = |manifest: &ManifestFile, _: &Arc<str>, entry: &ManifestEntryRef| {
        let file = entry.data_file();
        see(partition_key(manifest.partition_spec_id, file.partition()), file)
    };
    each(table, snapshot, &All, see).await.map(|_| ())
}

/// Shows the live data files that `prune` does not rule out, a manifest after the other; gives back the manifests of delete
/// files.
async fn each(
    table: &Table,
    snapshot: &SnapshotRef,
    prune: &dyn Prune,
    mut see: impl FnMut(&ManifestFile, &Arc<str>, &ManifestEntryRef) -> Result<()>,
) -> Result<Vec<ManifestFile>> {
    let metadata = table.metadata();
    let list = manifests::list(table, snapshot).await?;
    let (data, deletes): (Vec<_>, Vec<_>) =
        list.into_iter().filter(manifests::has_live).partition(|m| m.content == ManifestContentType::Data);
    let data = data.into_iter().filter(|m| prune.manifest(metadata, m)).collect();
    let mut loaded = load_all(table, data);
    while let Some((file, manifest)) = loaded.try_next().await? {
        let spec_id = file.partition_spec_id;
        let spec = metadata.partition_spec_by_id(spec_id).ok_or_else(|| unknown_spec(metadata, spec_id))?;
        let path: Arc<str> = file.manifest_path.as_str().into();
        let live = manifest.entries().iter().filter(|e| e.is_alive());
        for entry in live.filter(|e| prune.file(metadata.current_schema(), spec, e.data_file())) {
            see(&file, &path, entry)?;
        }
    }
    Ok(deletes)
}

/// All live delete files of the current snapshot of `main`.
///
/// # Errors
/// As [`live`].
pub async fn live_deletes(table: &Table) -> Result<Vec<Arc<Tracked>>> {
    let Some(snapshot) = table.metadata().current_snapshot() else { return Ok(Vec::new()) };
    let deletes = |m: &ManifestFile| m.content == ManifestContentType::Deletes && manifests::has_live(m);
    let list = manifests::list(table, snapshot).await?.into_iter().filter(deletes).collect();
    read_deletes(table, list).await
}

/// The live delete files in those manifests that may hold some for the partitions of `files`.
async fn delete_files(table: &Table, manifests: Vec<ManifestFile>, files: &[LiveFile]) -> Result<Vec<Arc<Tracked>>> {
    let keys = files.iter().map(|f| f.data.key()).collect();
    let metadata = table.metadata();
    read_deletes(table, manifests.into_iter().filter(|m| summary_may_hold(metadata, m, &keys)).collect()).await
}

async fn read_deletes(table: &Table, manifests: Vec<ManifestFile>) -> Result<Vec<Arc<Tracked>>> {
    let mut found = Vec::new();
    let mut loaded = load_all(table, manifests);
    while let Some((file, manifest)) = loaded.try_next().await? {
        let path: Arc<str> = file.manifest_path.as_str().into();
        for entry in manifest.entries().iter().filter(|e| e.is_alive()) {
            found.push(Arc::new(delete_file(&file, &path, entry)?));
        }
    }
    Ok(found)
}

/// A delete file that this program can apply.
fn delete_file(manifest: &ManifestFile, path: &Arc<str>, entry: &ManifestEntryRef) -> Result<Tracked> {
    let file = Tracked::of(manifest, path, entry)?;
    if file.file().file_format() == DataFileFormat::Puffin || file.file().content_offset().is_some() {
        return Err(Error::config(format!(
            "{} is a deletion vector (format version 3), which cannot be read here; rewrite the table's deletes as \
             position delete files (format version 2)",
            file.path()
        )));
    }
    Ok(file)
}

pub(crate) type Loaded = (ManifestFile, Arc<Manifest>);

/// Loads manifests, several at a time, in their order.
pub(crate) fn load_all(table: &Table, manifests: Vec<ManifestFile>) -> futures::stream::BoxStream<'_, Result<Loaded>> {
    let load = move |manifest: ManifestFile| async move {
        let loaded = manifests::load(table.file_io(), &manifest).await?;
        Ok((manifest, loaded))
    };
    futures::stream::iter(manifests).map(load).buffered(CONCURRENT).boxed()
}

#[cfg(test)]
pub(super) mod tests;
#[cfg(test)]
mod wanted_tests;
