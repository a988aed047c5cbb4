//! From files to one snapshot: the manifest list and the summary; [`super::producer`] makes the manifests.
//!
//! A [`Change`] is plain data and knows no table state; [`produce`] applies it to the table as loaded and may be called
//! again on a newer one. Everything it writes has a new name, so an attempt that is given up leaves only files that
//! nothing names.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use firn_shared::error::{Error, Result};
use iceberg::spec::{
    DataContentType, FormatVersion, ManifestFile, ManifestListWriter, Operation, Snapshot, SnapshotRef,
    SnapshotReference, Summary, TableMetadata,
};
use iceberg::table::Table;
use iceberg::{TableRequirement, TableUpdate};

use super::offsets::{self, State};
use super::producer::Producer;
use super::refs::{self, Head};
use super::scan::Tracked;
use super::validate::Expect;
use super::{NewFile, error};
use crate::plan::position::Position;
use crate::reconcile::account::Account;
use crate::upsert::remember::Memory;

/// One snapshot to be.
#[derive(Debug, Clone, Default)]
#[allow(clippy::struct_excessive_bools, reason = "five independent marks of a change, each named where it is set")]
pub struct Change {
    /// The commit's identity, unique; a commit with the same id is recognised and not done twice.
    pub commit_id: String,
    /// The branch it is for; `None` is `main`. A branch that does not exist starts at `main`.
    pub branch: Option<String>,
    /// The branch begins anew at `main`, whatever an earlier `reprocess` left on it.
    pub anew: bool,
    /// Data and delete files that come in.
    pub add: Vec<NewFile>,
    /// Data and delete files that go out; each must be live.
    pub remove: Vec<Tracked>,
    /// Everything that is live at the time of the commit goes out; `add` stays.
    pub replace_all: bool,
    /// Added data files hold rows that were in the table: they get this data sequence number, that of the snapshot they
    /// were read from, so that equality deletes that came later still apply to them.
    pub rewrite_of: Option<i64>,
    /// The change moves rows to other files, or names them in other manifests, and changes none: readers are told so, and
    /// the consumed offsets, which stay as they are, are said again, so that older snapshots may expire.
    pub changes_no_row: bool,
    /// The consumed offsets stay as they are and are said again, though rows change: older snapshots may expire.
    pub keeps_offsets: bool,
    /// Manifests that become one each. All of them must be part of the branch.
    pub merge: Vec<Vec<String>>,
    /// Nobody commits the added files in another change: they are deleted when this one certainly does not land.
    pub disposable: bool,
    /// So many of the added files, the first ones, stay even then: the next change that is tried has them, too.
    pub shared: usize,
    /// The consumed offsets after it; `None` for tables that consume none.
    pub offsets: Option<(Position, Account)>,
    /// What is remembered after it; part of what `offsets` says.
    pub remembered: Memory,
    /// Further summary entries; keys start with `firn.`.
    pub summary: BTreeMap<String, String>,
    /// Table properties set in the same metadata commit.
    pub properties: BTreeMap<String, String>,
    /// What must still hold.
    pub expect: Expect,
}

impl Change {
    /// The branch that the snapshot is made on: what must hold is asked of it.
    pub(super) fn parent(&self) -> Option<&str> {
        self.branch.as_deref().filter(|_| !self.anew)
    }

    fn head<'a>(&'a self, metadata: &'a TableMetadata) -> Head<'a> {
        match &self.branch {
            Some(branch) if self.anew => Head::anew(metadata, branch),
            branch => Head::of(metadata, branch.as_deref()),
        }
    }
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
    /// Its sequence number: no other snapshot has it if this one lands.
    pub sequence_number: i64,
    /// Manifests and the manifest list; garbage if the commit definitely fails.
    pub files: Vec<String>,
}

/// Writes manifests and manifest list of `change` on top of `table`.
///
/// # Errors
/// `Conflict` when a file to remove is not live any more; `Config` when a branch that begins anew is not ours; else what the
/// store says.
pub async fn produce(table: &Table, change: &Change, now: DateTime<Utc>) -> Result<Staged> {
    if table.metadata().format_version() == FormatVersion::V1 {
        return Err(version_refused(table));
    }
    let mut added = HashSet::new();
    if let Some(twice) = change.add.iter().map(|f| f.file.file_path()).find(|path| !added.insert(*path)) {
        return Err(Error::bug(format!("cannot commit {}: file {twice} would come in twice", table.identifier())));
    }
    let metadata = table.metadata();
    if let (Some(branch), true) = (&change.branch, change.anew) {
        refs::check_ours(table.identifier(), metadata, branch)?;
    }
    let head = change.head(metadata);
    let parent = head.snapshot.map(|s| s.snapshot_id());
    let mut producer = Producer::new(table);
    let manifests = producer.manifests(&head, change).await?;

    let sequence_number = metadata.next_sequence_number();
    let list = format!("{}/metadata/snap-{}-1-{}.avro", metadata.location(), producer.snapshot_id, producer.attempt);
    let rows = write_list(table, &list, (producer.snapshot_id, parent), sequence_number, manifests).await?;
    producer.files.push(list.clone());

    let state = state_of(table, &head, change, (producer.snapshot_id, sequence_number))?;
    let mut properties = summary_of(metadata, &head, change, state.as_ref())?;
    properties.extend(producer.summary.build());
    let operation = operation(change, &properties);
    add_totals(&mut properties, head.snapshot);
    let snapshot = Snapshot::builder()
        .with_manifest_list(list)
        .with_snapshot_id(producer.snapshot_id)
        .with_parent_snapshot_id(parent)
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
        updates: updates_of(metadata, &head, change, state.as_ref().filter(|_| head.is_main()), snapshot)?,
        requirements: vec![
            TableRequirement::UuidMatch { uuid: metadata.uuid() },
            TableRequirement::RefSnapshotIdMatch { r#ref: head.name.to_owned(), snapshot_id: head.expected },
        ],
        snapshot_id: producer.snapshot_id,
        sequence_number,
        files: producer.files,
    })
}

/// What readers are told of the kind of change: as Iceberg's own writers say it.
fn operation(change: &Change, summary: &HashMap<String, String>) -> Operation {
    if change.changes_no_row || change.rewrite_of.is_some() && !change.keeps_offsets {
        return Operation::Replace;
    }
    let data = change.add.iter().any(|f| f.file.content_type() == DataContentType::Data);
    let deletes = change.add.iter().any(|f| f.file.content_type() != DataContentType::Data);
    let removes = summary.contains_key("deleted-data-files") || !change.remove.is_empty();
    match (data, deletes || removes) {
        (_, false) => Operation::Append,
        (false, true) => Operation::Delete,
        (true, true) => Operation::Overwrite,
    }
}

/// What the snapshot says of the consumed offsets; `None` when it says nothing.
fn state_of(
    table: &Table,
    head: &Head<'_>,
    change: &Change,
    (snapshot_id, sequence_number): (i64, i64),
) -> Result<Option<State>> {
    if change.offsets.is_none() && !change.changes_no_row && !change.keeps_offsets {
        return Ok(None);
    }
    let base = offsets::at(table.metadata(), head)?;
    let commit_id = change.commit_id.clone();
    let Some((position, account)) = change.offsets.clone() else {
        return Ok(base.map(|state| State { snapshot_id, sequence_number, commit_id, ..state }));
    };
    if base.is_some_and(|base| !position.is_at_or_after(&base.position)) {
        return Err(Error::conflict(format!(
            "cannot commit {}: the table has consumed more than this run started from; run again, nothing was lost",
            table.identifier()
        )));
    }
    let Memory { deletes, truncations, forgotten } = change.remembered.clone();
    Ok(Some(State { position, account, deletes, truncations, forgotten, snapshot_id, sequence_number, commit_id }))
}

pub(super) fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::bug("cannot write the offsets as JSON").with_source(e))
}

/// Our own summary entries.
fn summary_of(
    metadata: &TableMetadata,
    head: &Head<'_>,
    change: &Change,
    state: Option<&State>,
) -> Result<HashMap<String, String>> {
    let mut summary: HashMap<String, String> = change.summary.clone().into_iter().collect();
    summary.insert("engine-name".to_owned(), "firn".to_owned());
    summary.insert("engine-version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    summary.insert(offsets::COMMIT_ID.to_owned(), change.commit_id.clone());
    if let Some(state) = state {
        let base = offsets::at(metadata, head)?.map(|s| s.position).unwrap_or_default();
        summary.insert(offsets::BASE_POSITION.to_owned(), json(&base)?);
        summary.insert(offsets::POSITION.to_owned(), json(&state.position)?);
        summary.insert(offsets::ACCOUNT.to_owned(), json(&state.account)?);
        if !state.deletes.is_empty() {
            summary.insert(offsets::DELETES.to_owned(), json(&state.deletes)?);
        }
        if !state.truncations.is_empty() {
            summary.insert(offsets::TRUNCATIONS.to_owned(), json(&state.truncations)?);
        }
        if state.forgotten {
            summary.insert(offsets::FORGOTTEN.to_owned(), "true".to_owned());
        }
    }
    Ok(summary)
}

fn updates_of(
    metadata: &TableMetadata,
    head: &Head<'_>,
    change: &Change,
    state: Option<&State>,
    snapshot: Snapshot,
) -> Result<Vec<TableUpdate>> {
    let reference = SnapshotReference::new(snapshot.snapshot_id(), head.retention(metadata)?);
    let mut properties: HashMap<String, String> = change.properties.clone().into_iter().collect();
    if let Some(state) = state {
        properties.insert(offsets::STATE_PROPERTY.to_owned(), json(state)?);
    }
    let mut updates = vec![
        TableUpdate::AddSnapshot { snapshot },
        TableUpdate::SetSnapshotRef { ref_name: head.name.to_owned(), reference },
    ];
    if !properties.is_empty() {
        updates.push(TableUpdate::SetProperties { updates: properties });
    }
    Ok(updates)
}

/// Running totals of the summary: the parent's plus what changed. A total that the parent does not have stays unknown.
fn add_totals(summary: &mut HashMap<String, String>, parent: Option<&SnapshotRef>) {
    let number = |map: &HashMap<String, String>, key: &str| map.get(key).and_then(|v| v.parse::<i64>().ok());
    let parent = parent.map(|s| &s.summary().additional_properties);
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
    (snapshot_id, parent): (i64, Option<i64>),
    sequence_number: i64,
    manifests: Vec<ManifestFile>,
) -> Result<Option<(u64, u64)>> {
    let wrap = |e| error(format!("cannot write {path}"), e);
    let metadata = table.metadata();
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
