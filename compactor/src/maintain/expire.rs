//! Removes old snapshots, then the files that only they named.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use firn_shared::error::Result;
use futures::{StreamExt, stream};
use iceberg::spec::SnapshotRef;
use iceberg::table::Table;
use iceberg::{TableRequirement, TableUpdate};
use serde::Serialize;

use super::Subject;
use super::names::{Kind, statistics, unnamed};
use super::retention::{Retention, Verdict, judge};
use crate::run::Env;
use crate::table::Committer;
use crate::table::refs::{self, Step};

/// Files that are deleted at the same time.
const AT_ONCE: usize = 16;

/// What expired.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Expired {
    /// Snapshots that went, or would.
    pub snapshots: Vec<i64>,
    /// Branches and tags whose own time had run out.
    pub refs: Vec<String>,
    /// Snapshots that stay, by reason.
    pub kept: BTreeMap<Verdict, usize>,
    /// Files deleted, or that would be.
    pub files: BTreeMap<Kind, usize>,
    /// Files that could not be deleted; `orphans` finds them.
    pub left_behind: usize,
    /// Why nothing was looked at.
    pub skipped: Option<String>,
}

/// Expires snapshots of a table.
///
/// # Errors
/// `Conflict` when somebody else changed the table every time; else as catalog and stores say.
pub async fn expire(env: &Env, subject: &Subject, dry_run: bool) -> Result<Expired> {
    let judged = |table: &Table| judge(table.metadata(), &subject.settings, subject.keeps_last_load, env.clock.now());
    let table = super::load(env, subject).await?;
    if let Some(why) = super::files_stay(table.metadata()) {
        return Ok(Expired { skipped: Some(why.to_owned()), ..Expired::default() });
    }
    let retention = judged(&table)?;
    let mut report = Expired { snapshots: retention.expired(), refs: retention.refs.clone(), ..Expired::default() };
    for verdict in retention.verdicts.values().filter(|v| **v != Verdict::Old) {
        *report.kept.entry(*verdict).or_default() += 1;
    }
    if dry_run || (report.snapshots.is_empty() && report.refs.is_empty()) {
        return Ok(report);
    }
    // An attempt whose outcome is unknown may have removed what the next one no longer finds.
    let proposed: Mutex<Proposed> = Mutex::default();
    let committer = Committer::new(Arc::clone(&env.catalog), Arc::clone(&env.clock));
    let next = |table: &Table| {
        let retention = judged(table)?;
        proposed.lock().unwrap_or_else(PoisonError::into_inner).note(table, &retention);
        step(table, &retention)
    };
    // A crash right after the commit leaves files that nothing names: orphan removal takes them.
    let table = committer.step(&subject.ident, next).await?;
    let Proposed { snapshots, statistics, refs } = proposed.into_inner().unwrap_or_else(PoisonError::into_inner);
    let gone: Vec<SnapshotRef> =
        snapshots.into_values().filter(|s| table.metadata().snapshot_by_id(s.snapshot_id()).is_none()).collect();
    report.snapshots = gone.iter().map(|s| s.snapshot_id()).collect();
    report.snapshots.sort_unstable();
    report.refs = refs;
    let is_gone = |id: &i64| report.snapshots.contains(id);
    let statistics = statistics.into_iter().filter(|(id, _)| is_gone(id)).map(|(_, path)| path).collect();
    let left: Vec<SnapshotRef> = table.metadata().snapshots().cloned().collect();
    let files = unnamed(&table, (&gone, &left), statistics).await?;
    delete(&table, files, &mut report).await;
    tracing::info!(table = %subject.ident, snapshots = report.snapshots.len(), files = ?report.files, "expired");
    Ok(report)
}

/// Everything that attempts asked to be removed.
#[derive(Debug, Default)]
struct Proposed {
    snapshots: HashMap<i64, SnapshotRef>,
    statistics: HashSet<(i64, String)>,
    refs: Vec<String>,
}

impl Proposed {
    fn note(&mut self, table: &Table, retention: &Retention) {
        let metadata = table.metadata();
        let expired = retention.expired();
        self.snapshots.extend(expired.iter().filter_map(|id| Some((*id, metadata.snapshot_by_id(*id)?.clone()))));
        let of_expired = statistics(metadata).filter(|(id, _)| expired.contains(id));
        self.statistics.extend(of_expired.map(|(id, path)| (id, path.to_owned())));
        let new = retention.refs.iter().filter(|name| !self.refs.contains(name)).cloned().collect::<Vec<_>>();
        self.refs.extend(new);
    }
}

/// The change of metadata; `None` when there is nothing to do. Branches and tags must be where they were when the
/// snapshots were judged.
pub(crate) fn step(table: &Table, retention: &Retention) -> Result<Option<Step>> {
    let metadata = table.metadata();
    let snapshot_ids = retention.expired();
    if snapshot_ids.is_empty() && retention.refs.is_empty() {
        return Ok(None);
    }
    let matches = |(name, reference): (String, iceberg::spec::SnapshotReference)| {
        TableRequirement::RefSnapshotIdMatch { r#ref: name, snapshot_id: Some(reference.snapshot_id) }
    };
    let mut requirements = vec![TableRequirement::UuidMatch { uuid: metadata.uuid() }];
    requirements.extend(refs::all(metadata)?.into_iter().map(matches));
    let remove = |name: &String| TableUpdate::RemoveSnapshotRef { ref_name: name.clone() };
    let mut updates: Vec<TableUpdate> = retention.refs.iter().map(remove).collect();
    for snapshot_id in &snapshot_ids {
        if metadata.statistics_for_snapshot(*snapshot_id).is_some() {
            updates.push(TableUpdate::RemoveStatistics { snapshot_id: *snapshot_id });
        }
        if metadata.partition_statistics_for_snapshot(*snapshot_id).is_some() {
            updates.push(TableUpdate::RemovePartitionStatistics { snapshot_id: *snapshot_id });
        }
    }
    if !snapshot_ids.is_empty() {
        updates.push(TableUpdate::RemoveSnapshots { snapshot_ids });
    }
    Ok(Some(Step { updates, requirements }))
}

/// Deletes files; those that cannot be deleted are counted, and found again as orphans.
async fn delete(table: &Table, files: HashMap<String, Kind>, report: &mut Expired) {
    let io = table.file_io();
    let one = |(path, kind): (String, Kind)| async move { (kind, io.delete(&path).await.map_err(|e| (path, e))) };
    let mut deleting = stream::iter(files).map(one).buffer_unordered(AT_ONCE);
    while let Some((kind, deleted)) = deleting.next().await {
        match deleted {
            Ok(()) => *report.files.entry(kind).or_default() += 1,
            Err((file, error)) => {
                tracing::warn!(file, %error, "a file of an expired snapshot stays behind");
                report.left_behind += 1;
            }
        }
    }
}
