//! Older snapshots, which still name files with a subject's rows: all of them go, and what only they named.

use std::collections::HashSet;
use std::sync::Arc;

use firn_shared::error::{Error, Result};
use firn_shared::ids::RunId;
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::TableIdent;
use iceberg::spec::{FormatVersion, MAIN_BRANCH, SnapshotRef};
use iceberg::table::Table;

use super::journal::Journal;
use super::tables::erasing;
use crate::maintain::expire;
use crate::maintain::files_stay;
use crate::maintain::names::{named, statistics, unnamed};
use crate::maintain::retention::Retention;
use crate::run::Env;
use crate::table::catalog::CommitOutcome;
use crate::table::scan::manifests;
use crate::table::{Change, Committer, refs};

/// Others may be faster so often.
const ATTEMPTS: u32 = 8;
/// Files that are deleted at the same time.
const AT_ONCE: usize = 16;

/// Whether a table can be erased from. Branches and tags keep snapshots on purpose: whoever made them must let go first.
///
/// # Errors
/// `Config`, naming them; or the format version, when rows have identities that a rewrite would lose; or the property that
/// keeps old files from being deleted.
pub fn check(table: &Table) -> Result<()> {
    let (ident, metadata) = (table.identifier(), table.metadata());
    if metadata.format_version() != FormatVersion::V2 {
        let version = metadata.format_version();
        return Err(Error::config(format!("{ident} has format {version}; only from format v2 can be erased here")));
    }
    if let Some(why) = files_stay(metadata) {
        return Err(Error::config(format!(
            "{ident} cannot be erased from: {why}, so that old files stay; unset it when nobody else names them, then erase"
        )));
    }
    let others: Vec<String> = refs::all(metadata)?.into_keys().filter(|name| name != MAIN_BRANCH).collect();
    if others.is_empty() {
        return Ok(());
    }
    let names = others.join("`, `");
    Err(Error::config(format!(
        "{ident} has the branches or tags `{names}`, which keep old rows; drop them, then erase"
    )))
}

/// Writes the manifests again that still say of removed files what was in them: bounds are values.
///
/// # Errors
/// As catalog and stores say.
pub async fn scrub(env: &Env, ident: &TableIdent, run: RunId) -> Result<()> {
    let committer = Committer::new(Arc::clone(&env.catalog), Arc::clone(&env.clock));
    for attempt in 0..ATTEMPTS {
        let Some(table) = env.catalog.load(ident).await? else { return Ok(()) };
        let Some(snapshot) = table.metadata().current_snapshot() else { return Ok(()) };
        let list = manifests::list(&table, snapshot).await?;
        let stale: Vec<_> = list.iter().filter(|m| m.has_deleted_files()).collect();
        if stale.is_empty() {
            return Ok(());
        }
        // Those without live files are left out by any commit.
        let merge = stale.iter().filter(|m| manifests::has_live(m)).map(|m| vec![m.manifest_path.clone()]).collect();
        let change = Change {
            commit_id: format!("{run}-scrub{attempt}"),
            merge,
            changes_no_row: true,
            summary: erasing(&table)?,
            ..Change::default()
        };
        match committer.commit(ident, &change).await {
            Err(e) if e.kind() == firn_shared::error::ErrorKind::Conflict && attempt + 1 < ATTEMPTS => {
                tracing::warn!(table = %ident, attempt, error = %e, "scrubbing manifests again");
            }
            outcome => return outcome.map(drop),
        }
    }
    Ok(())
}

/// Removes all snapshots but the current one; the files that only they named are in the journal before they become
/// unnamed. Says how many snapshots went.
///
/// # Errors
/// `Conflict` when others kept changing the table; else those of catalog and stores.
pub async fn forget(env: &Env, ident: &TableIdent, journal: &mut Journal) -> Result<u64> {
    let mut last = Error::bug("no attempt was made");
    for _ in 0..ATTEMPTS {
        let Some(table) = env.catalog.load(ident).await? else { return Ok(0) };
        // A branch that was made meanwhile holds on to what has to go.
        check(&table)?;
        let metadata = table.metadata();
        let retention = Retention::only_current(metadata);
        let Some(step) = expire::step(&table, &retention)? else { return Ok(0) };
        let gone: Vec<SnapshotRef> =
            retention.expired().iter().filter_map(|id| metadata.snapshot_by_id(*id).cloned()).collect();
        let left: Vec<SnapshotRef> = metadata.current_snapshot().cloned().into_iter().collect();
        let ids: HashSet<i64> = gone.iter().map(|s| s.snapshot_id()).collect();
        let of_gone =
            statistics(metadata).filter(|(id, _)| ids.contains(id)).map(|(_, path)| path.to_owned()).collect();
        let files = unnamed(&table, (&gone, &left), of_gone).await?;
        journal.doom(&ident.to_string(), files.into_keys()).await?;
        match env.catalog.commit(&table, step.updates, step.requirements).await? {
            CommitOutcome::Committed(_) => return Ok(gone.len() as u64),
            CommitOutcome::Conflict(why) => {
                last = Error::conflict(format!("cannot remove old snapshots of {ident}: {why}; erase again"));
            }
            CommitOutcome::Unknown(e) => last = e,
        }
    }
    Err(last)
}

/// Deletes the files of the journal that the table does not name. Says how many.
///
/// # Errors
/// Those of catalog and stores; the journal still names the files then.
pub async fn delete_doomed(env: &Env, ident: &TableIdent, journal: &mut Journal) -> Result<u64> {
    let doomed = journal.doomed(&ident.to_string());
    if doomed.is_empty() {
        return Ok(0);
    }
    let Some(table) = env.catalog.load(ident).await? else { return Ok(0) };
    let names = named(&table).await?;
    let io = table.file_io();
    let delete = |file: String| async move {
        let deleted = io.delete(&file).await;
        deleted.map_err(|e| crate::table::error(format!("{file} cannot be deleted; erase again"), e))
    };
    let gone = doomed.into_iter().filter(|file| !names.contains(file)).map(delete);
    let count = stream::iter(gone).buffer_unordered(AT_ONCE).try_fold(0, async |count, ()| Ok(count + 1)).await?;
    journal.gone(&ident.to_string()).await?;
    Ok(count)
}
