//! Whether a change still makes sense on the table as it is now; asked before every attempt, on its newest state.
//!
//! That removed files are still live is asked while manifests are rewritten ([`super::producer`]), where it costs
//! nothing.

use std::collections::HashSet;
use std::sync::Arc;

use firn_shared::error::{Error, Result};
use futures::TryStreamExt;
use iceberg::TableIdent;
use iceberg::spec::{DataContentType, ManifestContentType, ManifestEntry, ManifestFile, TableMetadata};
use iceberg::table::Table;

use super::erasure::Mark;
use super::files::unknown_spec;
use super::offsets;
use super::refs::Head;
use super::scan::{DeleteIndex, Prune, Tracked, load_all, manifests, summary_may_hold};
use crate::plan::position::Position;
use crate::reconcile::account::Account;

/// What must hold for a change to be committed. "Since" a snapshot of `None` is since the empty table.
#[derive(Debug, Clone, Default)]
pub struct Expect {
    /// The position of the branch must still be this one.
    pub position: Option<Position>,
    /// So must the account: a reprocess changes it and leaves the position alone.
    pub account: Option<Account>,
    /// Nobody has erased a subject since.
    pub erasure: Option<Mark>,
    /// Since this snapshot nobody added data files that may hold what is looked for.
    pub no_new_files: Option<(Option<i64>, Arc<dyn Prune>)>,
    /// Since this snapshot nobody added delete files that apply to these data files: a file that is rewritten from them
    /// would bring back what those delete.
    pub no_new_deletes_for: Option<(Option<i64>, Vec<Tracked>)>,
    /// The files of `no_new_deletes_for` are rewritten where they are, with the sequence number of the snapshot they were
    /// read from: equality deletes that came later apply to the new files, too, and are no obstacle.
    pub equality_deletes_follow: bool,
    /// These files must be live, such as those that position deletes refer to. Files that the change removes are asked
    /// for anyway.
    pub live: Vec<Tracked>,
}

impl Expect {
    /// Asks all of it of the newest state of a branch.
    ///
    /// # Errors
    /// `Conflict`, naming what came between; else as the store says.
    pub async fn check(&self, table: &Table, branch: Option<&str>) -> Result<()> {
        let (ident, metadata) = (table.identifier(), table.metadata());
        let head = Head::of(metadata, branch);
        if let Some(expected) = &self.position {
            position_unmoved(ident, metadata, &head, expected)?;
        }
        if let Some(expected) = &self.account
            && offsets::at(metadata, &head)?.map(|state| state.account).unwrap_or_default() != *expected
        {
            return Err(Error::conflict(format!("cannot commit {ident}: another run changed the account; run again")));
        }
        if let Some(mark) = &self.erasure {
            mark.check(ident, metadata)?;
        }
        let nothing = self.no_new_files.is_none() && self.no_new_deletes_for.is_none() && self.live.is_empty();
        let list = match head.snapshot {
            Some(snapshot) if !nothing => manifests::list(table, snapshot).await?,
            _ => Vec::new(),
        };
        if let Some((base, prune)) = &self.no_new_files {
            no_new_files(table, &list, &since(ident, metadata, &head, *base)?, prune.as_ref()).await?;
        }
        if let Some((base, files)) = &self.no_new_deletes_for {
            let newer = since(ident, metadata, &head, *base)?;
            no_new_deletes(table, &list, &newer, files, self.equality_deletes_follow).await?;
        }
        still_live(table, &list, &self.live).await
    }
}

async fn no_new_files(table: &Table, list: &[ManifestFile], newer: &HashSet<i64>, prune: &dyn Prune) -> Result<()> {
    let metadata = table.metadata();
    let near = written_by(list, newer, ManifestContentType::Data).filter(|m| prune.manifest(metadata, m)).cloned();
    let mut loaded = load_all(table, near.collect());
    while let Some((file, manifest)) = loaded.try_next().await? {
        let spec_id = file.partition_spec_id;
        let spec = metadata.partition_spec_by_id(spec_id).ok_or_else(|| unknown_spec(metadata, spec_id))?;
        for entry in manifest.entries().iter().filter(|e| e.is_alive()) {
            if entry.snapshot_id().is_some_and(|id| newer.contains(&id))
                && prune.file(metadata.current_schema(), spec, entry.data_file())
            {
                return Err(Error::conflict(format!(
                    "cannot commit {}: {} was added meanwhile and may hold rows that are being replaced; run again",
                    table.identifier(),
                    entry.file_path()
                )));
            }
        }
    }
    Ok(())
}

async fn no_new_deletes(
    table: &Table,
    list: &[ManifestFile],
    newer: &HashSet<i64>,
    files: &[Tracked],
    equality_follows: bool,
) -> Result<()> {
    let keys = files.iter().map(Tracked::key).collect();
    let written = written_by(list, newer, ManifestContentType::Deletes);
    let near = written.filter(|m| summary_may_hold(table.metadata(), m, &keys)).cloned();
    let mut loaded = load_all(table, near.collect());
    let mut deletes = Vec::new();
    while let Some((file, manifest)) = loaded.try_next().await? {
        let matters = |entry: &ManifestEntry| {
            entry.is_alive() && !(equality_follows && entry.content_type() == DataContentType::EqualityDeletes)
        };
        for entry in manifest.entries().iter().filter(|e| matters(e)) {
            if entry.snapshot_id().is_some_and(|id| newer.contains(&id)) {
                deletes.push(Arc::new(Tracked::of(&file, &file.manifest_path.as_str().into(), entry)?));
            }
        }
    }
    let index = DeleteIndex::new(deletes);
    for file in files {
        if let Some(delete) = index.first_of(file) {
            return Err(Error::conflict(format!(
                "cannot commit {}: {} was added meanwhile and deletes rows of {}, which is being replaced; run again",
                table.identifier(),
                delete.path(),
                file.path()
            )));
        }
    }
    Ok(())
}

async fn still_live(table: &Table, list: &[ManifestFile], files: &[Tracked]) -> Result<()> {
    // A manifest never changes: while the table names the one that named the file, the file is live.
    let named: HashSet<&str> = list.iter().map(|m| m.manifest_path.as_str()).collect();
    let moved: Vec<&Tracked> = files.iter().filter(|f| !named.contains(f.manifest.as_ref())).collect();
    if moved.is_empty() {
        return Ok(());
    }
    let keys = moved.iter().map(|f| f.key()).collect();
    let mut left: HashSet<&str> = moved.iter().map(|f| f.path()).collect();
    let near = list.iter().filter(|m| manifests::has_live(m) && summary_may_hold(table.metadata(), m, &keys)).cloned();
    let mut loaded = load_all(table, near.collect());
    while let Some((_, manifest)) = loaded.try_next().await? {
        for entry in manifest.entries().iter().filter(|e| e.is_alive()) {
            left.remove(entry.file_path());
        }
        if left.is_empty() {
            return Ok(());
        }
    }
    let first = left.into_iter().min().unwrap_or_default();
    Err(not_live(table.identifier(), first))
}

/// The error for a file that somebody else removed.
pub(super) fn not_live(ident: &TableIdent, path: &str) -> Error {
    Error::conflict(format!(
        "cannot commit {ident}: file {path} is not part of the table any more; run again, nothing was lost"
    ))
}

/// Files added by `newer` snapshots are only in manifests that those wrote.
fn written_by<'a>(
    list: &'a [ManifestFile],
    newer: &'a HashSet<i64>,
    content: ManifestContentType,
) -> impl Iterator<Item = &'a ManifestFile> {
    list.iter().filter(move |m| m.content == content && manifests::has_live(m) && newer.contains(&m.added_snapshot_id))
}

/// The position that the change was planned on is the table's position.
///
/// # Errors
/// `Conflict` when it moved, `Data` when it cannot be read.
pub fn position_unmoved(
    ident: &TableIdent,
    metadata: &TableMetadata,
    head: &Head<'_>,
    expected: &Position,
) -> Result<()> {
    let found = offsets::at(metadata, head)?.map(|s| s.position).unwrap_or_default();
    if found == *expected {
        return Ok(());
    }
    Err(Error::conflict(format!("cannot commit {ident}: another run moved the offsets; run again, nothing was lost")))
}

/// Ids of the snapshots of a branch that came after `base`.
///
/// # Errors
/// `Conflict` when `base` is no ancestor any more (a rollback).
fn since(ident: &TableIdent, metadata: &TableMetadata, head: &Head<'_>, base: Option<i64>) -> Result<HashSet<i64>> {
    let mut newer = HashSet::new();
    let mut expired = false;
    for snapshot in head.ancestry(metadata) {
        if Some(snapshot.snapshot_id()) == base {
            return Ok(newer);
        }
        newer.insert(snapshot.snapshot_id());
        expired = snapshot.parent_snapshot_id().is_some_and(|parent| metadata.snapshot_by_id(parent).is_none());
    }
    match base {
        // What an expired snapshot added cannot be told from what was there before.
        None if expired => Err(Error::conflict(format!(
            "cannot commit {ident}: snapshots that came after the change was made have expired; run again"
        ))),
        None => Ok(newer),
        Some(base) => Err(Error::conflict(format!(
            "cannot commit {ident}: snapshot {base}, which the change was made on, is no ancestor any more; run again"
        ))),
    }
}
