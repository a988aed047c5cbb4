//! From files to one snapshot: manifests per partition spec, the manifest list, the summary.
//!
//! A [`Change`] is plain data and knows no table state; [`produce`] applies it to the table as loaded and may be called
//! again on a newer one. Everything it writes has a new name, so an attempt that is given up leaves only files that
//! nothing names.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use firn_shared::error::{Error, Result};
use iceberg::spec::{
    FormatVersion, MAIN_BRANCH, Manifest, ManifestContentType, ManifestFile, ManifestListWriter, ManifestWriter,
    ManifestWriterBuilder, Operation, PartitionSpec, SchemaRef, Snapshot, SnapshotReference, SnapshotRetention,
    SnapshotSummaryCollector, Summary, TableMetadata,
};
use iceberg::table::Table;
use iceberg::{TableRequirement, TableUpdate};
use uuid::Uuid;

use super::files::unknown_spec;
use super::offsets::{self, State};
use super::validate::Expect;
use super::{NewFile, error};
use crate::plan::position::Position;
use crate::reconcile::account::Account;

/// Manifests are merged when a spec has this many small ones (Iceberg's `commit.manifest.min-count-to-merge`).
const MERGE_COUNT_MIN: usize = 100;
/// Up to this many bytes of manifests become one (Iceberg's `commit.manifest.target-size-bytes`).
const MERGE_BYTES: i64 = 8 * 1024 * 1024;

/// One snapshot to be.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// The commit's identity, unique; a commit with the same id is recognised and not done twice.
    pub commit_id: String,
    /// Data files that come in.
    pub add: Vec<NewFile>,
    /// Paths of data files that go out; each must be live.
    pub remove: Vec<String>,
    /// The consumed offsets after it; `None` for tables that consume none.
    pub offsets: Option<(Position, Account)>,
    /// Further summary entries; keys start with `firn.`.
    pub summary: BTreeMap<String, String>,
    /// Table properties set in the same metadata commit.
    pub properties: BTreeMap<String, String>,
    /// What must still hold.
    pub expect: Expect,
}

/// A change applied to one state of the table: files are written, the catalog has not been told.
#[derive(Debug)]
pub struct Staged {
    /// For the catalog.
    pub updates: Vec<TableUpdate>,
    /// For the catalog.
    pub requirements: Vec<TableRequirement>,
    /// The new snapshot.
    pub snapshot_id: i64,
    /// Manifests and the manifest list; garbage if the commit definitely fails.
    pub files: Vec<String>,
}

/// Writes manifests and manifest list of `change` on top of `table`.
///
/// # Errors
/// `Conflict` when a file to remove is not live any more; else what the store says.
pub async fn produce(table: &Table, change: &Change, now: DateTime<Utc>) -> Result<Staged> {
    let mut producer = Producer::new(table)?;
    let mut manifests = producer.add(&change.add).await?;
    let removed: HashSet<&str> = change.remove.iter().map(String::as_str).collect();
    manifests.extend(producer.keep(&removed).await?);

    let metadata = table.metadata();
    let sequence_number = metadata.next_sequence_number();
    let list = format!("{}/metadata/snap-{}-1-{}.avro", metadata.location(), producer.snapshot_id, producer.attempt);
    let rows = write_list(table, &list, producer.snapshot_id, sequence_number, manifests).await?;
    producer.files.push(list.clone());

    let state = state_of(change, producer.snapshot_id, sequence_number);
    let operation = if change.remove.is_empty() {
        Operation::Append
    } else if change.add.is_empty() {
        Operation::Delete
    } else {
        Operation::Overwrite
    };
    let mut properties = summary_of(table, change, state.as_ref())?;
    properties.extend(producer.summary.build());
    add_totals(&mut properties, metadata);
    let snapshot = Snapshot::builder()
        .with_manifest_list(list)
        .with_snapshot_id(producer.snapshot_id)
        .with_parent_snapshot_id(metadata.current_snapshot_id())
        .with_sequence_number(sequence_number)
        .with_summary(Summary { operation, additional_properties: properties })
        .with_schema_id(metadata.current_schema_id())
        // The specification wants time to move forward; clocks of different machines do not.
        .with_timestamp_ms(now.timestamp_millis().max(metadata.last_updated_ms()));
    let snapshot = match rows {
        Some((first, count)) => snapshot.with_row_range(first, count).build(),
        None => snapshot.build(),
    };
    Ok(Staged {
        updates: updates_of(change, state.as_ref(), snapshot)?,
        requirements: vec![
            TableRequirement::UuidMatch { uuid: metadata.uuid() },
            TableRequirement::RefSnapshotIdMatch {
                r#ref: MAIN_BRANCH.to_owned(),
                snapshot_id: metadata.current_snapshot_id(),
            },
        ],
        snapshot_id: producer.snapshot_id,
        files: producer.files,
    })
}

fn state_of(change: &Change, snapshot_id: i64, sequence_number: i64) -> Option<State> {
    let (position, account) = change.offsets.clone()?;
    Some(State { position, account, snapshot_id, sequence_number, commit_id: change.commit_id.clone() })
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::bug("cannot write the offsets as JSON").with_source(e))
}

/// Our own summary entries.
fn summary_of(table: &Table, change: &Change, state: Option<&State>) -> Result<HashMap<String, String>> {
    let mut summary: HashMap<String, String> = change.summary.clone().into_iter().collect();
    summary.insert("engine-name".to_owned(), "firn".to_owned());
    summary.insert("engine-version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    summary.insert(offsets::COMMIT_ID.to_owned(), change.commit_id.clone());
    if let Some(state) = state {
        let base = offsets::current(table.metadata())?.map(|s| s.position).unwrap_or_default();
        summary.insert(offsets::BASE_POSITION.to_owned(), json(&base)?);
        summary.insert(offsets::POSITION.to_owned(), json(&state.position)?);
        summary.insert(offsets::ACCOUNT.to_owned(), json(&state.account)?);
    }
    Ok(summary)
}

fn updates_of(change: &Change, state: Option<&State>, snapshot: Snapshot) -> Result<Vec<TableUpdate>> {
    let reference = SnapshotReference::new(snapshot.snapshot_id(), SnapshotRetention::branch(None, None, None));
    let mut properties: HashMap<String, String> = change.properties.clone().into_iter().collect();
    if let Some(state) = state {
        properties.insert(offsets::STATE_PROPERTY.to_owned(), json(state)?);
    }
    let mut updates = vec![
        TableUpdate::AddSnapshot { snapshot },
        TableUpdate::SetSnapshotRef { ref_name: MAIN_BRANCH.to_owned(), reference },
    ];
    if !properties.is_empty() {
        updates.push(TableUpdate::SetProperties { updates: properties });
    }
    Ok(updates)
}

/// Running totals of the summary: the parent's plus what changed. A total that the parent does not have stays unknown.
fn add_totals(summary: &mut HashMap<String, String>, metadata: &TableMetadata) {
    let number = |map: &HashMap<String, String>, key: &str| map.get(key).and_then(|v| v.parse::<i64>().ok());
    let parent = metadata.current_snapshot().map(|s| &s.summary().additional_properties);
    for (total, added, removed) in [
        ("total-data-files", "added-data-files", "deleted-data-files"),
        ("total-delete-files", "added-delete-files", "removed-delete-files"),
        ("total-records", "added-records", "deleted-records"),
        ("total-files-size", "added-files-size", "removed-files-size"),
        ("total-position-deletes", "added-position-deletes", "removed-position-deletes"),
        ("total-equality-deletes", "added-equality-deletes", "removed-equality-deletes"),
    ] {
        let before = parent.map_or(Some(0), |p| number(p, total));
        let change = number(summary, added).unwrap_or(0) - number(summary, removed).unwrap_or(0);
        if let Some(before) = before {
            summary.insert(total.to_owned(), (before + change).max(0).to_string());
        }
    }
}

/// Writes the manifest list; for tables with row lineage, says which row ids it took.
async fn write_list(
    table: &Table,
    path: &str,
    snapshot_id: i64,
    sequence_number: i64,
    manifests: Vec<ManifestFile>,
) -> Result<Option<(u64, u64)>> {
    let wrap = |e| error(format!("cannot write {path}"), e);
    let metadata = table.metadata();
    let parent = metadata.current_snapshot_id();
    let first_row = metadata.next_row_id();
    let file = table.file_io().new_output(path).map_err(wrap)?.writer().await.map_err(wrap)?;
    let mut list = match metadata.format_version() {
        FormatVersion::V1 => return Err(version_refused(table)),
        FormatVersion::V2 => ManifestListWriter::v2(file, snapshot_id, parent, sequence_number),
        FormatVersion::V3 => ManifestListWriter::v3(file, snapshot_id, parent, sequence_number, Some(first_row)),
    };
    list.add_manifests(manifests.into_iter()).map_err(wrap)?;
    let next_row = list.next_row_id();
    list.close().await.map_err(wrap)?;
    Ok(next_row.map(|next| (first_row, next - first_row)))
}

fn version_refused(table: &Table) -> Error {
    Error::config(format!("{} has format version 1; set its property format-version to 2 first", table.identifier()))
}

/// One attempt at a snapshot.
struct Producer<'a> {
    table: &'a Table,
    snapshot_id: i64,
    attempt: Uuid,
    summary: SnapshotSummaryCollector,
    files: Vec<String>,
}

impl<'a> Producer<'a> {
    fn new(table: &'a Table) -> Result<Self> {
        if table.metadata().format_version() == FormatVersion::V1 {
            return Err(version_refused(table));
        }
        // 63 random bits; one that the table knows already is drawn again.
        let draw = || (Uuid::new_v4().as_u64_pair().0 ^ Uuid::new_v4().as_u64_pair().1) as i64 & i64::MAX;
        let mut snapshot_id = draw();
        while snapshot_id == 0 || table.metadata().snapshot_by_id(snapshot_id).is_some() {
            snapshot_id = draw();
        }
        let summary = SnapshotSummaryCollector::default();
        Ok(Self { table, snapshot_id, attempt: Uuid::new_v4(), summary, files: Vec::new() })
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

    /// Manifests of the files that come in, one per partition spec.
    async fn add(&mut self, files: &[NewFile]) -> Result<Vec<ManifestFile>> {
        let metadata = self.table.metadata();
        let mut by_spec: BTreeMap<i32, Vec<&NewFile>> = BTreeMap::new();
        for file in files {
            by_spec.entry(file.spec_id).or_default().push(file);
        }
        let mut manifests = Vec::new();
        for (spec_id, files) in by_spec {
            let spec = metadata.partition_spec_by_id(spec_id).ok_or_else(|| unknown_spec(metadata, spec_id))?;
            let schema = metadata.current_schema();
            let mut writer = self.manifest(schema.clone(), spec.as_ref().clone(), ManifestContentType::Data)?;
            for NewFile { file, .. } in files {
                self.summary.add_file(file, schema.clone(), spec.clone());
                // -1: the sequence number is inherited from the snapshot, so that a retry needs no new manifest data.
                writer.add_file(file.clone(), -1).map_err(|e| error("cannot add a data file", e))?;
            }
            manifests.push(writer.write_manifest_file().await.map_err(|e| error("cannot write a manifest", e))?);
        }
        Ok(manifests)
    }

    /// The manifests of the parent: kept as they are, rewritten without the removed files, or merged when small.
    async fn keep(&mut self, removed: &HashSet<&str>) -> Result<Vec<ManifestFile>> {
        let Some(parent) = self.table.metadata().current_snapshot() else {
            return self.all_found(removed, &HashSet::new()).map(|()| Vec::new());
        };
        let list = self.table.manifest_list_reader(parent).load().await;
        let list = list.map_err(|e| error(format!("cannot read {}", parent.manifest_list()), e))?;
        let mut kept = Vec::new();
        let mut found: HashSet<String> = HashSet::new();
        for manifest in list.entries() {
            // Entries of files that an earlier snapshot removed; nothing in it is live.
            if !manifest.has_added_files() && !manifest.has_existing_files() {
                continue;
            }
            if removed.len() == found.len() || manifest.content != ManifestContentType::Data {
                kept.push(manifest.clone());
                continue;
            }
            let loaded = self.load(manifest).await?;
            let hits = loaded.entries().iter().filter(|e| e.is_alive() && removed.contains(e.file_path())).count();
            if hits == 0 {
                kept.push(manifest.clone());
            } else {
                kept.push(self.without(manifest, &loaded, removed, &mut found).await?);
            }
        }
        self.all_found(removed, &found)?;
        self.merge(kept).await
    }

    fn all_found(&self, removed: &HashSet<&str>, found: &HashSet<String>) -> Result<()> {
        match removed.iter().find(|path| !found.contains(**path)) {
            None => Ok(()),
            Some(path) => Err(Error::conflict(format!(
                "cannot commit {}: data file {path} is not part of the table any more; run again, nothing was lost",
                self.table.identifier()
            ))),
        }
    }

    async fn load(&self, manifest: &ManifestFile) -> Result<Manifest> {
        let loaded = manifest.load_manifest(self.table.file_io()).await;
        loaded.map_err(|e| error(format!("cannot read manifest {}", manifest.manifest_path), e))
    }

    /// A manifest again, its removed files marked as deleted, under its own schema and spec.
    async fn without(
        &mut self,
        manifest: &ManifestFile,
        loaded: &Manifest,
        removed: &HashSet<&str>,
        found: &mut HashSet<String>,
    ) -> Result<ManifestFile> {
        let wrap = |e| error(format!("cannot rewrite manifest {}", manifest.manifest_path), e);
        let (schema, spec) = (loaded.metadata().schema().clone(), loaded.metadata().partition_spec().clone());
        let mut writer = self.manifest(schema.clone(), spec.clone(), manifest.content)?;
        let spec = Arc::new(spec);
        for entry in loaded.entries().iter().filter(|e| e.is_alive()) {
            if removed.contains(entry.file_path()) {
                found.insert(entry.file_path().to_owned());
                self.summary.remove_file(entry.data_file(), schema.clone(), spec.clone());
                let sequence = entry.sequence_number().ok_or_else(|| no_number(entry.file_path()))?;
                writer
                    .add_delete_file(entry.data_file().clone(), sequence, entry.file_sequence_number)
                    .map_err(wrap)?;
            } else {
                add_existing(&mut writer, entry)?;
            }
        }
        writer.write_manifest_file().await.map_err(wrap)
    }

    /// When a spec has many small data manifests, packs them into larger ones; bounded by [`MERGE_BYTES`] a manifest.
    async fn merge(&mut self, manifests: Vec<ManifestFile>) -> Result<Vec<ManifestFile>> {
        let small = |m: &ManifestFile| m.content == ManifestContentType::Data && m.manifest_length < MERGE_BYTES / 2;
        let mut counts: HashMap<i32, usize> = HashMap::new();
        for manifest in manifests.iter().filter(|m| small(m)) {
            *counts.entry(manifest.partition_spec_id).or_default() += 1;
        }
        let (merge, mut kept): (Vec<_>, Vec<_>) = manifests.into_iter().partition(|m| {
            small(m)
                && m.added_snapshot_id != self.snapshot_id
                && counts.get(&m.partition_spec_id).is_some_and(|count| *count >= MERGE_COUNT_MIN)
        });
        // Schemas differ between manifests; merged ones must agree on spec and schema.
        let mut bins: BTreeMap<(i32, i32), (i64, Vec<Manifest>)> = BTreeMap::new();
        for manifest in merge {
            let loaded = self.load(&manifest).await?;
            let key = (manifest.partition_spec_id, loaded.metadata().schema_id());
            let bin = bins.entry(key).or_default();
            if bin.0 + manifest.manifest_length > MERGE_BYTES && !bin.1.is_empty() {
                let full = std::mem::take(&mut bin.1);
                bin.0 = 0;
                kept.push(self.merged(&full).await?);
            }
            let bin = bins.entry(key).or_default();
            bin.0 += manifest.manifest_length;
            bin.1.push(loaded);
        }
        for (_, bin) in bins.into_values() {
            if !bin.is_empty() {
                kept.push(self.merged(&bin).await?);
            }
        }
        Ok(kept)
    }

    async fn merged(&mut self, manifests: &[Manifest]) -> Result<ManifestFile> {
        let [first, ..] = manifests else { return Err(Error::bug("nothing to merge")) };
        let (schema, spec) = (first.metadata().schema().clone(), first.metadata().partition_spec().clone());
        let mut writer = self.manifest(schema, spec, ManifestContentType::Data)?;
        for entry in manifests.iter().flat_map(Manifest::entries).filter(|e| e.is_alive()) {
            add_existing(&mut writer, entry)?;
        }
        writer.write_manifest_file().await.map_err(|e| error("cannot write a merged manifest", e))
    }
}

/// An entry that stays, with the snapshot and sequence numbers it came with.
fn add_existing(writer: &mut ManifestWriter, entry: &iceberg::spec::ManifestEntry) -> Result<()> {
    let missing = || no_number(entry.file_path());
    let snapshot = entry.snapshot_id().ok_or_else(missing)?;
    let sequence = entry.sequence_number().ok_or_else(missing)?;
    writer
        .add_existing_file(entry.data_file().clone(), snapshot, sequence, entry.file_sequence_number)
        .map_err(|e| error("cannot keep a data file", e))
}

fn no_number(path: &str) -> Error {
    Error::data(format!("the manifest entry of {path} has no snapshot or sequence number"))
}
