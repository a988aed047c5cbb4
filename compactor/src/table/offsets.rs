//! Where a table says how far it has consumed its topics.
//!
//! Every snapshot of ours carries the position, the account and the id of its commit in its summary. The table's
//! position is that of the nearest ancestor of the current snapshot that has one: a rollback by hand rolls the position
//! back too, and the rows come again; other branches and tags do not count.
//!
//! Somebody else's expiry may remove every snapshot of ours. For that case the same metadata commit puts the same
//! [`State`] into a table property, with the snapshot's id and sequence number. It counts only if no ancestor is ours,
//! that snapshot is gone, and its sequence number is below that of every ancestor left: then it was expired, not rolled
//! back. The oldest ancestor left remembers its parent: when it is the very next commit after that snapshot and has
//! another parent, the snapshot was rolled back before it expired, and what the table holds is unknown: an error. What
//! cannot be told apart: a rollback by hand, then at least two commits of others, then an expiry of all but the last of
//! them, with no run of ours between. The rolled-back rows then stay away until `reprocess` brings them.
//!
//! A cherry-pick publishes a snapshot's files under a new snapshot whose summary names the source. If the source is ours
//! and follows on the position below the cherry-pick, its position holds; else nobody can say what the table contains,
//! and that is an error.

use std::collections::HashMap;

use firn_shared::error::{Error, Result};
use iceberg::spec::{Snapshot, SnapshotRef, TableMetadata};
use serde::{Deserialize, Serialize};

use super::refs::Head;
use crate::plan::position::Position;
use crate::reconcile::account::Account;
use crate::upsert::Truncation;
use crate::upsert::remember::{Memory, Remembered};

/// Summary key: the position after the snapshot.
pub const POSITION: &str = "firn.position";
/// Summary key: the position before the snapshot.
pub const BASE_POSITION: &str = "firn.base-position";
/// Summary key: the account after the snapshot.
pub const ACCOUNT: &str = "firn.account";
/// Summary key: the commit's identity; the answer to "did it land?".
pub const COMMIT_ID: &str = "firn.commit-id";
/// Summary key: what the commit was for.
pub const SCOPE: &str = "firn.scope";
/// Its value for a run over new records.
pub const SCOPE_NEW: &str = "new";
/// Its value for a `reprocess` begins with this.
pub const SCOPE_REPROCESS: &str = "reprocess ";
/// Table property: the [`State`] of our last snapshot.
pub const STATE_PROPERTY: &str = "firn.state";
/// Summary key: the position before the last load, where the snapshot of that load was removed.
pub const LOAD_BASE: &str = "firn.load-base";
/// Summary key of Iceberg: the snapshot that a cherry-pick copied.
const SOURCE_SNAPSHOT: &str = "source-snapshot-id";

/// Summary key: the objects that hold the deletes remembered after the snapshot.
pub const DELETES: &str = "firn.deletes";
/// Summary key: the newest truncate of each source table after the snapshot.
pub const TRUNCATIONS: &str = "firn.truncations";
/// Summary key: there, and `true`, when deletes were forgotten by then.
pub const FORGOTTEN: &str = "firn.forgotten-deletes";

/// What our snapshots say of the consumed offsets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Next offset to read, per partition.
    pub position: Position,
    /// What became of the offsets so far.
    pub account: Account,
    /// Deletes that are remembered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deletes: Vec<Remembered>,
    /// The newest truncate of each source table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncations: Vec<Truncation>,
    /// Whether deletes were forgotten.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forgotten: bool,
    /// The snapshot that said so.
    pub snapshot_id: i64,
    /// Its sequence number.
    pub sequence_number: i64,
    /// The commit that wrote it.
    pub commit_id: String,
}

impl State {
    /// What the table remembers.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let (deletes, truncations) = (self.deletes.clone(), self.truncations.clone());
        Memory { deletes, truncations, forgotten: self.forgotten }
    }
}

/// The current snapshot of `main` and what is left of its ancestors, newest first.
pub fn ancestry(metadata: &TableMetadata) -> impl Iterator<Item = &SnapshotRef> {
    Head::of(metadata, None).ancestry(metadata)
}

/// What the table says now; `None` when nothing of ours was ever committed, or all of it was rolled back.
///
/// # Errors
/// `Data` when a summary or the property cannot be read, or a cherry-pick makes the position unknowable.
pub fn current(metadata: &TableMetadata) -> Result<Option<State>> {
    at(metadata, &Head::of(metadata, None))
}

/// What a branch says: a branch counts from where it left `main`.
///
/// # Errors
/// As [`current`].
pub fn at(metadata: &TableMetadata, head: &Head<'_>) -> Result<Option<State>> {
    let mut picked: Option<&SnapshotRef> = None;
    for snapshot in head.ancestry(metadata) {
        if let Some(state) = of_snapshot(snapshot)? {
            return match picked {
                Some(source) => follows(source, Some(&state)).map(Some),
                None => Ok(Some(state)),
            };
        }
        if let Some(source) = picked_source(metadata, snapshot) {
            if let Some(earlier) = picked {
                return Err(unknowable(earlier));
            }
            picked = Some(source);
        }
    }
    let expired = from_property(metadata, head)?;
    match picked {
        Some(source) => follows(source, expired.as_ref()).map(Some),
        None => Ok(expired),
    }
}

/// Whether the commit is part of the branch: in a summary of the ancestry, or in the property while that counts.
///
/// # Errors
/// `Data` when the property cannot be read.
pub fn landed(metadata: &TableMetadata, head: &Head<'_>, commit_id: &str) -> Result<Option<i64>> {
    let ours = |s: &&SnapshotRef| summary(s).get(COMMIT_ID).is_some_and(|id| id == commit_id);
    if let Some(snapshot) = head.ancestry(metadata).find(ours) {
        return Ok(Some(snapshot.snapshot_id()));
    }
    Ok(from_property(metadata, head)?.filter(|s| s.commit_id == commit_id).map(|s| s.snapshot_id))
}

/// The position before the newest commit of ours whose summary says `key` = `value`, or as an erasure that removed it has
/// taken it down; `None` when no snapshot that is left says so.
///
/// # Errors
/// `Data` when the summary cannot be read.
pub fn base_of(metadata: &TableMetadata, key: &str, value: &str) -> Result<Option<Position>> {
    for snapshot in ancestry(metadata) {
        let says = summary(snapshot).get(key).is_some_and(|found| found == value);
        let at = if says { BASE_POSITION } else { LOAD_BASE };
        if let Some(text) = summary(snapshot).get(at) {
            return parse(text, at, snapshot.snapshot_id()).map(Some);
        }
    }
    Ok(None)
}

fn summary(snapshot: &Snapshot) -> &HashMap<String, String> {
    &snapshot.summary().additional_properties
}

fn of_snapshot(snapshot: &Snapshot) -> Result<Option<State>> {
    let Some(position) = summary(snapshot).get(POSITION) else { return Ok(None) };
    let id = snapshot.snapshot_id();
    let account = match summary(snapshot).get(ACCOUNT) {
        Some(text) => parse(text, ACCOUNT, id)?,
        None => Account::default(),
    };
    let deletes = summary(snapshot).get(DELETES).map(|text| parse(text, DELETES, id)).transpose()?;
    let truncations = summary(snapshot).get(TRUNCATIONS).map(|text| parse(text, TRUNCATIONS, id)).transpose()?;
    Ok(Some(State {
        deletes: deletes.unwrap_or_default(),
        truncations: truncations.unwrap_or_default(),
        forgotten: summary(snapshot).get(FORGOTTEN).is_some_and(|text| text == "true"),
        position: parse(position, POSITION, id)?,
        account,
        snapshot_id: id,
        sequence_number: snapshot.sequence_number(),
        commit_id: summary(snapshot).get(COMMIT_ID).cloned().unwrap_or_default(),
    }))
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str, key: &str, snapshot: i64) -> Result<T> {
    serde_json::from_str(text).map_err(|e| {
        Error::data(format!("{key} of snapshot {snapshot} cannot be read: {e}; roll the table back before it"))
            .with_source(e)
    })
}

fn from_property(metadata: &TableMetadata, head: &Head<'_>) -> Result<Option<State>> {
    let Some(text) = metadata.properties().get(STATE_PROPERTY) else { return Ok(None) };
    let state: State = serde_json::from_str(text).map_err(|e| {
        Error::data(format!("table property {STATE_PROPERTY} cannot be read: {e}; restore or remove it")).with_source(e)
    })?;
    if !property_counts(metadata, head, &state) {
        return Ok(None);
    }
    let oldest = head.ancestry(metadata).last();
    let next_but_no_child = |s: &&SnapshotRef| {
        s.sequence_number() == state.sequence_number + 1 && s.parent_snapshot_id() != Some(state.snapshot_id)
    };
    match oldest.filter(next_but_no_child) {
        None => Ok(Some(state)),
        Some(oldest) => Err(Error::data(format!(
            "snapshot {} was rolled back, snapshot {} was committed by somebody else and everything before it expired, so \
             the consumed offsets of the table are unknown; make the table anew: drop it, and run",
            state.snapshot_id,
            oldest.snapshot_id()
        ))),
    }
}

/// The rule of the module's documentation. Expiry never takes the current snapshot, so a table without one was rolled
/// back to nothing, not expired.
fn property_counts(metadata: &TableMetadata, head: &Head<'_>, state: &State) -> bool {
    let mut ancestors = head.ancestry(metadata).peekable();
    ancestors.peek().is_some()
        && metadata.snapshot_by_id(state.snapshot_id).is_none()
        && ancestors.all(|s| !summary(s).contains_key(POSITION) && s.sequence_number() > state.sequence_number)
}

/// The snapshot of ours that `snapshot` is a cherry-picked copy of.
fn picked_source<'a>(metadata: &'a TableMetadata, snapshot: &Snapshot) -> Option<&'a SnapshotRef> {
    let source = summary(snapshot).get(SOURCE_SNAPSHOT)?.parse().ok()?;
    metadata.snapshot_by_id(source).filter(|s| summary(s).contains_key(POSITION))
}

/// The state of a cherry-picked snapshot, if it was made on the position that lies `below` it here.
fn follows(source: &SnapshotRef, below: Option<&State>) -> Result<State> {
    let base: Position = match summary(source).get(BASE_POSITION) {
        Some(text) => parse(text, BASE_POSITION, source.snapshot_id())?,
        None => return Err(unknowable(source)),
    };
    let here = below.map(|s| s.position.clone()).unwrap_or_default();
    match of_snapshot(source)? {
        Some(state) if base == here => Ok(state),
        _ => Err(unknowable(source)),
    }
}

fn unknowable(source: &Snapshot) -> Error {
    let id = source.snapshot_id();
    Error::data(format!(
        "snapshot {id} was cherry-picked out of its order, so the consumed offsets of the table are unknown; \
         roll back before the cherry-pick and run again"
    ))
}

#[cfg(test)]
#[path = "offsets_tests.rs"]
mod tests;
