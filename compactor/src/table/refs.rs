//! Branches: where a commit goes, and how a finished branch becomes `main`.

use std::collections::BTreeMap;

use firn_shared::error::{Error, Result};
use iceberg::spec::{MAIN_BRANCH, SnapshotRef, SnapshotReference, SnapshotRetention, TableMetadata};
use iceberg::{TableIdent, TableRequirement, TableUpdate};

use super::snapshot::json;
use super::{offsets, protected};

/// The head of a branch.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The branch.
    pub name: &'a str,
    /// Its snapshot; for a branch that does not exist that of `main`; `None` for an empty table.
    pub snapshot: Option<&'a SnapshotRef>,
    /// The snapshot that the reference names now; `None` when there is no such reference.
    pub expected: Option<i64>,
}

impl<'a> Head<'a> {
    /// Of `branch`; `None` is `main`.
    #[must_use]
    pub fn of(metadata: &'a TableMetadata, branch: Option<&'a str>) -> Self {
        let name = branch.unwrap_or(MAIN_BRANCH);
        let found = if name == MAIN_BRANCH { metadata.current_snapshot() } else { metadata.snapshot_for_ref(name) };
        let snapshot = found.or_else(|| metadata.current_snapshot());
        Self { name, snapshot, expected: found.map(|s| s.snapshot_id()) }
    }

    /// Of `branch` as it begins anew at `main`, whatever it named before.
    #[must_use]
    pub fn anew(metadata: &'a TableMetadata, branch: &'a str) -> Self {
        Self { snapshot: metadata.current_snapshot(), ..Self::of(metadata, Some(branch)) }
    }

    /// Whether it is `main`.
    #[must_use]
    pub fn is_main(&self) -> bool {
        self.name == MAIN_BRANCH
    }

    /// Its snapshot and what is left of the ancestors, newest first.
    pub fn ancestry(&self, metadata: &'a TableMetadata) -> impl Iterator<Item = &'a SnapshotRef> + use<'a> {
        let parent = |s: &&'a SnapshotRef| s.parent_snapshot_id().and_then(|id| metadata.snapshot_by_id(id));
        // A damaged file could hold a circle; no walk is longer than the number of snapshots.
        std::iter::successors(self.snapshot, parent).take(metadata.snapshots().len())
    }

    /// How long the branch and its snapshots are kept, as somebody has set it.
    ///
    /// # Errors
    /// `Conflict` when the name is a tag's.
    pub fn retention(&self, metadata: &TableMetadata) -> Result<SnapshotRetention> {
        if self.expected.is_none() {
            return Ok(SnapshotRetention::branch(None, None, None));
        }
        let Some(reference) = all(metadata)?.remove(self.name) else {
            return Ok(SnapshotRetention::branch(None, None, None));
        };
        if !reference.is_branch() {
            return Err(Error::conflict(format!("{} is a tag, and only branches take commits", self.name)));
        }
        Ok(reference.retention)
    }
}

/// All branches and tags. The crate has no way to ask for them.
///
/// # Errors
/// `Bug` when the metadata does not serialise as the specification wants.
pub fn all(metadata: &TableMetadata) -> Result<BTreeMap<String, SnapshotReference>> {
    let odd = |e| Error::bug("cannot write the table's metadata as JSON").with_source(e);
    let mut whole = serde_json::to_value(metadata).map_err(odd)?;
    match whole.get_mut("refs").map(serde_json::Value::take) {
        Some(refs) => serde_json::from_value(refs).map_err(odd),
        None => Ok(BTreeMap::new()),
    }
}

/// Whether `branch` may be made anew or dropped: a `reprocess` made it, or there is no such reference.
///
/// # Errors
/// `Config` when it is a tag, or a branch whose head somebody else made.
pub fn check_ours(ident: &TableIdent, metadata: &TableMetadata, branch: &str) -> Result<()> {
    let Some(head) = metadata.snapshot_for_ref(branch) else { return Ok(()) };
    let is_branch = all(metadata)?.get(branch).is_some_and(SnapshotReference::is_branch);
    let scope = head.summary().additional_properties.get(offsets::SCOPE);
    let what = match scope {
        _ if !is_branch => "a tag",
        Some(scope) if scope.starts_with(offsets::SCOPE_REPROCESS) => return Ok(()),
        _ => "a branch whose newest snapshot no reprocess made",
    };
    Err(Error::config(format!("`{branch}` of {ident} is {what}, and stays as it is; name another branch")))
}

/// A change of metadata alone.
pub(crate) struct Step {
    pub updates: Vec<TableUpdate>,
    pub requirements: Vec<TableRequirement>,
}

/// Makes the head of `branch` that of `main`; `None` when it is already part of it. `only` says which head is meant.
///
/// # Errors
/// `Conflict` when `main` has moved on since the branch left it, there is no such branch, or it has another head.
pub(super) fn fast_forward(
    ident: &TableIdent,
    metadata: &TableMetadata,
    (branch, only): (&str, Option<i64>),
) -> Result<Option<Step>> {
    let (main, head) = (Head::of(metadata, None), Head::of(metadata, Some(branch)));
    let on_main = |id: i64| main.ancestry(metadata).any(|s| s.snapshot_id() == id);
    if only.is_some_and(on_main) {
        return Ok(None);
    }
    let (Some(to), Some(id)) = (head.snapshot, head.expected) else {
        return Err(Error::conflict(format!("cannot publish branch {branch} of {ident}: there is no such branch")));
    };
    if only.is_some_and(|only| only != id) {
        return Err(Error::conflict(format!(
            "cannot publish branch {branch} of {ident}: somebody else has made it anew meanwhile; make the branch again"
        )));
    }
    if on_main(id) {
        return Ok(None);
    }
    if main.expected.is_some_and(|main| !head.ancestry(metadata).any(|s| s.snapshot_id() == main)) {
        return Err(Error::conflict(format!(
            "cannot publish branch {branch} of {ident}: main has moved on since the branch left it; make the branch again"
        )));
    }
    let reference = SnapshotReference::new(to.snapshot_id(), main.retention(metadata)?);
    let mut updates = vec![TableUpdate::SetSnapshotRef { ref_name: MAIN_BRANCH.to_owned(), reference }];
    // The state of the branch becomes that of the table, as if its commits had been made on main.
    if let Some(state) = offsets::at(metadata, &head)? {
        let property = (offsets::STATE_PROPERTY.to_owned(), json(&state)?);
        updates.push(TableUpdate::SetProperties { updates: [property].into() });
    }
    // What was made again there is from before no more.
    if let Some(property) = protected::published(metadata, to)? {
        updates.push(TableUpdate::SetProperties { updates: [property].into() });
    }
    let matches = |head: &Head<'_>| TableRequirement::RefSnapshotIdMatch {
        r#ref: head.name.to_owned(),
        snapshot_id: head.expected,
    };
    let uuid = TableRequirement::UuidMatch { uuid: metadata.uuid() };
    Ok(Some(Step { updates, requirements: vec![uuid, matches(&main), matches(&head)] }))
}

/// Removes a branch; `None` when there is none. Its snapshots stay until they expire.
///
/// # Errors
/// `Config` for `main`, and as [`check_ours`].
pub(super) fn drop(ident: &TableIdent, metadata: &TableMetadata, branch: &str) -> Result<Option<Step>> {
    if branch == MAIN_BRANCH {
        return Err(Error::config(format!("{MAIN_BRANCH} of {ident} cannot be dropped")));
    }
    let head = Head::of(metadata, Some(branch));
    let Some(id) = head.expected else { return Ok(None) };
    check_ours(ident, metadata, branch)?;
    let uuid = TableRequirement::UuidMatch { uuid: metadata.uuid() };
    let requirement = TableRequirement::RefSnapshotIdMatch { r#ref: branch.to_owned(), snapshot_id: Some(id) };
    let updates = vec![TableUpdate::RemoveSnapshotRef { ref_name: branch.to_owned() }];
    Ok(Some(Step { updates, requirements: vec![uuid, requirement] }))
}
