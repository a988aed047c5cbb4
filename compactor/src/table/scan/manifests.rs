//! Manifest lists and manifests. Both never change once written, so parsed manifests are kept for the whole process.

use std::sync::{Arc, LazyLock};

use firn_shared::error::{Error, Result};
use iceberg::io::FileIO;
use iceberg::spec::{Manifest, ManifestFile, SnapshotRef};
use iceberg::table::Table;

use super::cache::Cache;
use crate::table::error;

/// Bytes of manifest files whose entries are kept; parsed they take several times as much.
const KEPT_BYTES: u64 = 8 * 1024 * 1024;

static KEPT: LazyLock<Cache<Manifest>> = LazyLock::new(|| Cache::new(KEPT_BYTES));

/// The manifests of a snapshot.
pub(crate) async fn list(table: &Table, snapshot: &SnapshotRef) -> Result<Vec<ManifestFile>> {
    let list = table.manifest_list_reader(snapshot).load().await;
    let list = list.map_err(|e| error(format!("cannot read {}", snapshot.manifest_list()), e))?;
    Ok(list.consume_entries().into_iter().collect())
}

/// Whether a manifest names live files; else all it holds are entries of files that its snapshot removed.
pub(crate) fn has_live(manifest: &ManifestFile) -> bool {
    manifest.has_added_files() || manifest.has_existing_files()
}

/// A manifest, entries with what they inherit from the list.
pub(crate) async fn load(io: &FileIO, manifest: &ManifestFile) -> Result<Arc<Manifest>> {
    if let Some(kept) = KEPT.get(&manifest.manifest_path) {
        return Ok(kept);
    }
    let (io, file) = (io.clone(), manifest.clone());
    // A task of its own: parsing is work for a processor, and several manifests are read at a time.
    let loaded = tokio::spawn(async move { file.load_manifest(&io).await }).await;
    let loaded = loaded.map_err(|e| Error::bug("a manifest's reader died").with_source(e))?;
    let loaded = loaded.map_err(|e| error(format!("cannot read manifest {}", manifest.manifest_path), e))?;
    let loaded = Arc::new(loaded);
    KEPT.put(&manifest.manifest_path, loaded.clone(), manifest.manifest_length.max(0) as u64);
    Ok(loaded)
}
