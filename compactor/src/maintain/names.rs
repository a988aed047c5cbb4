//! Files that a table names: whatever is named here is never deleted.

use std::collections::{HashMap, HashSet};

use firn_shared::error::{Error, Result};
use futures::TryStreamExt;
use iceberg::spec::{ManifestFile, SnapshotRef, TableMetadata};
use iceberg::table::Table;
use serde::Serialize;

use crate::table::offsets;
use crate::table::scan::{load_all, manifests};
use crate::upsert::remember::Remembered;

/// What a file is to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// A data or delete file.
    Data,
    /// A manifest.
    Manifest,
    /// A manifest list.
    ManifestList,
    /// Remembered deletes.
    Remembered,
    /// A statistics file.
    Statistics,
}

/// URLs, as hashes: a table may name millions of files.
#[derive(Debug, Default)]
pub struct Names(HashSet<[u8; 16]>);

impl Names {
    /// Adds a URL.
    pub fn insert(&mut self, url: &str) {
        self.0.insert(hash(url));
    }

    /// Whether a URL is in it, whatever way of writing its scheme somebody chose.
    #[must_use]
    pub fn contains(&self, url: &str) -> bool {
        self.0.contains(&hash(url))
    }
}

fn hash(url: &str) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&blake3::hash(plain(url).as_bytes()).as_bytes()[..16]);
    short
}

/// One way of writing the schemes that mean the same: Spark writes `s3a://` and `file:/`.
pub(crate) fn plain(url: &str) -> String {
    for scheme in ["s3a://", "s3n://"] {
        if let Some(rest) = url.strip_prefix(scheme) {
            return format!("s3://{rest}");
        }
    }
    match url.strip_prefix("file:") {
        Some(path) => format!("file:///{}", path.trim_start_matches('/')),
        None => url.to_owned(),
    }
}

/// Everything that any snapshot of the table names, and its metadata files.
///
/// # Errors
/// As the store says; `Data` when a snapshot cannot be read: then nothing may be taken for unnamed.
pub async fn named(table: &Table) -> Result<Names> {
    let metadata = table.metadata();
    let mut names = Names::default();
    if let Some(location) = table.metadata_location() {
        names.insert(location);
    }
    metadata.metadata_log().iter().for_each(|log| names.insert(&log.metadata_file));
    statistics(metadata).for_each(|(_, path)| names.insert(path));
    for object in remembered(metadata.snapshots())?.iter().chain(&state_of_property(metadata)?) {
        names.insert(&object.url);
    }
    let manifests = manifests_of(table, metadata.snapshots(), |list| names.insert(list)).await?;
    for path in manifests.keys() {
        names.insert(path);
    }
    let mut loaded = load_all(table, manifests.into_values().collect());
    while let Some((_, manifest)) = loaded.try_next().await? {
        manifest.entries().iter().filter(|e| e.is_alive()).for_each(|e| names.insert(e.file_path()));
    }
    drop(loaded);
    Ok(names)
}

/// Files that `gone` snapshots name, and no snapshot that is `left` does: they may be deleted once the former are gone.
///
/// # Errors
/// As the store says; `Data` when a snapshot that is left cannot be read.
pub async fn unnamed(
    table: &Table,
    (gone, left): (&[SnapshotRef], &[SnapshotRef]),
    files: Vec<String>,
) -> Result<HashMap<String, Kind>> {
    let mut found: HashMap<String, Kind> = files.into_iter().map(|path| (path, Kind::Statistics)).collect();
    let mut gone_manifests = HashMap::new();
    for snapshot in gone {
        found.insert(snapshot.manifest_list().to_owned(), Kind::ManifestList);
        match manifests::list(table, snapshot).await {
            Ok(list) => gone_manifests.extend(list.into_iter().map(|m| (m.manifest_path.clone(), m))),
            Err(error) => passed_over(snapshot.manifest_list(), &error),
        }
    }
    let left_manifests = manifests_of(table, left.iter(), |list| {
        found.remove(list);
    });
    let left_manifests = left_manifests.await?;
    gone_manifests.retain(|path, _| !left_manifests.contains_key(path));
    for manifest in gone_manifests.into_values() {
        let loaded = match manifests::load(table.file_io(), &manifest).await {
            Ok(loaded) => loaded,
            Err(error) => {
                passed_over(&manifest.manifest_path, &error);
                continue;
            }
        };
        // Entries of files that the snapshot removed, too: the one that added them may have expired before.
        found.extend(loaded.entries().iter().map(|e| (e.file_path().to_owned(), Kind::Data)));
        found.insert(manifest.manifest_path, Kind::Manifest);
    }
    let mut loaded = load_all(table, left_manifests.into_values().collect());
    while let Some((_, manifest)) = loaded.try_next().await? {
        for entry in manifest.entries().iter().filter(|e| e.is_alive()) {
            found.remove(entry.file_path());
        }
    }
    drop(loaded);
    found.extend(remembered(gone.iter())?.into_iter().map(|object| (object.url, Kind::Remembered)));
    for object in remembered(left.iter())?.iter().chain(&state_of_property(table.metadata())?) {
        found.remove(&object.url);
    }
    Ok(found)
}

/// Somebody else who expired the same snapshot may have deleted its files already; what is left are orphans.
fn passed_over(file: &str, error: &Error) {
    tracing::warn!(file, %error, "what an expired snapshot named is left to orphan removal");
}

/// The manifests of some snapshots, by path; `list` is told the path of each manifest list.
async fn manifests_of<'a>(
    table: &Table,
    snapshots: impl Iterator<Item = &'a SnapshotRef>,
    mut list: impl FnMut(&str),
) -> Result<HashMap<String, ManifestFile>> {
    let mut found = HashMap::new();
    for snapshot in snapshots {
        list(snapshot.manifest_list());
        for manifest in manifests::list(table, snapshot).await? {
            found.insert(manifest.manifest_path.clone(), manifest);
        }
    }
    Ok(found)
}

/// Statistics files and the snapshots they belong to.
pub fn statistics(metadata: &TableMetadata) -> impl Iterator<Item = (i64, &str)> {
    let of_columns = metadata.statistics_iter().map(|s| (s.snapshot_id, s.statistics_path.as_str()));
    of_columns.chain(metadata.partition_statistics_iter().map(|s| (s.snapshot_id, s.statistics_path.as_str())))
}

/// Objects of deletes that snapshots remember.
fn remembered<'a>(snapshots: impl Iterator<Item = &'a SnapshotRef>) -> Result<Vec<Remembered>> {
    let texts = snapshots.filter_map(|s| s.summary().additional_properties.get(offsets::DELETES));
    let lists =
        texts.map(|text| serde_json::from_str::<Vec<Remembered>>(text).map_err(|e| unreadable(offsets::DELETES, e)));
    Ok(lists.collect::<Result<Vec<_>>>()?.concat())
}

/// Whether the table has a list of remembered deletes, whatever its pipeline says now.
///
/// # Errors
/// `Data` when a list cannot be read.
pub fn remembers(metadata: &TableMetadata) -> Result<bool> {
    Ok(!remembered(metadata.snapshots())?.is_empty() || !state_of_property(metadata)?.is_empty())
}

/// Those that the table's property remembers, whether it counts now or not.
fn state_of_property(metadata: &TableMetadata) -> Result<Vec<Remembered>> {
    let Some(text) = metadata.properties().get(offsets::STATE_PROPERTY) else { return Ok(Vec::new()) };
    let state: offsets::State = serde_json::from_str(text).map_err(|e| unreadable(offsets::STATE_PROPERTY, e))?;
    Ok(state.deletes)
}

fn unreadable(what: &str, e: serde_json::Error) -> Error {
    Error::data(format!("{what} cannot be read, so nothing is taken for unnamed: {e}")).with_source(e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_same_under_every_way_of_writing_its_scheme() {
        let mut names = Names::default();
        names.insert("s3a://lake/t/data/a.parquet");
        names.insert("file:/lake/t/data/b.parquet");
        assert!(names.contains("s3://lake/t/data/a.parquet") && names.contains("s3n://lake/t/data/a.parquet"));
        assert!(names.contains("file:///lake/t/data/b.parquet"));
        assert!(!names.contains("s3://lake/t/data/b.parquet"));
    }
}
