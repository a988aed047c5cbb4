//! A `reprocess` on a branch: compared with the table, then published or discarded.
//!
//! The quarantine has a branch of the same name, because its rows change with the table's. The snapshot on the table's
//! branch names the one on the quarantine's, so that two halves of different runs are never published together.
//! Publishing moves the quarantine first, as a run does, then the table, then drops both branches; each step may be done
//! again, and a crash between any two leaves what the next `--publish` completes. The last branch to go is the table's.

use std::fmt;
use std::sync::Arc;

use firn_shared::config::domain::Mode;
use firn_shared::error::{Error, Result};
use firn_shared::ids::RunId;
use iceberg::spec::TableMetadata;
use iceberg::table::Table;
use serde::Serialize;

use super::{Env, Target, commit};
use crate::diff::{self, By, Diff, Turnover};
use crate::table::refs::{self, Head};
use crate::table::{Committed, Committer};

/// The branch unless another is named.
pub const BRANCH: &str = "firn_reprocess";

/// Reads the name of a branch.
///
/// # Errors
/// `Config` for `main` and for names that SQL would want in quotes.
pub fn name(text: &str) -> Result<String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    match text {
        "" | iceberg::spec::MAIN_BRANCH => Err(Error::config(format!("`{text}` cannot be a branch of its own"))),
        text if text.chars().all(plain) => Ok(text.to_owned()),
        _ => Err(Error::config(format!("branch `{text}` has other characters than a-z, 0-9 and _"))),
    }
}

/// What became of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum End {
    /// It is the table now.
    Published,
    /// It is gone.
    Discarded,
    /// There was none.
    NothingToDo,
}

/// What was done with the branch of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BranchReport {
    /// `database.table`.
    pub table: String,
    /// The branch.
    pub branch: String,
    /// What became of it.
    pub outcome: End,
    /// Its snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<i64>,
}

impl fmt::Display for BranchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, branch, outcome, snapshot } = self;
        match (outcome, snapshot) {
            (End::Published, Some(snapshot)) => {
                write!(f, "{table}: branch {branch} is the table now; snapshot {snapshot}")
            }
            (End::Discarded, Some(snapshot)) => write!(f, "{table}: branch {branch} with snapshot {snapshot} is gone"),
            _ => write!(f, "{table}: there is no branch {branch}"),
        }
    }
}

/// Compares what a run committed to a branch with the table it was made on.
pub(super) async fn compare(
    env: &Env,
    target: Target<'_>,
    (committed, branch): (&Committed, &str),
    turnover: &Turnover,
    run: RunId,
) -> Result<Diff> {
    let by = match &target.output.table.mode {
        Mode::Upsert(upsert) => By::Key(upsert.keys.iter().map(ToString::to_string).collect()),
        Mode::Append | Mode::TruncateLoad { .. } => By::Origin,
    };
    let temp = &env.config.deployment.compactor.temp_dir;
    diff::diff(&committed.table, (branch, committed.snapshot_id), turnover, by, (temp, run, &env.cpu)).await
}

/// Makes the branch the table.
///
/// # Errors
/// `Conflict` when the table or its quarantine has moved on since the branch was made: then compare again; `Config` when
/// there is no table, or the branch is not ours; else as the catalog says, and doing it again is safe.
pub async fn publish(env: &Env, target: Target<'_>, branch: &str) -> Result<BranchReport> {
    let Some((table, snapshot)) = find(env, target, branch).await? else { return Ok(nothing(target, branch)) };
    main_unmoved(target, &table, branch)?;
    let committer = Committer::new(Arc::clone(&env.catalog), Arc::clone(&env.clock));
    let quarantine = target.quarantine()?.ident;
    if let Some(with) = quarantine_of(&table, snapshot)? {
        committer.publish(&quarantine, branch, with).await?;
    }
    committer.publish(table.identifier(), branch, snapshot).await?;
    drop_both(env, target, (&committer, branch)).await?;
    Ok(BranchReport {
        table: target.name(),
        branch: branch.to_owned(),
        outcome: End::Published,
        snapshot: Some(snapshot),
    })
}

/// Drops the branch; its snapshot stays until it expires.
///
/// # Errors
/// As [`publish`], without conflicts.
pub async fn discard(env: &Env, target: Target<'_>, branch: &str) -> Result<BranchReport> {
    let committer = Committer::new(Arc::clone(&env.catalog), Arc::clone(&env.clock));
    let found = find(env, target, branch).await?;
    drop_both(env, target, (&committer, branch)).await?;
    let Some((_, snapshot)) = found else { return Ok(nothing(target, branch)) };
    Ok(BranchReport {
        table: target.name(),
        branch: branch.to_owned(),
        outcome: End::Discarded,
        snapshot: Some(snapshot),
    })
}

fn nothing(target: Target<'_>, branch: &str) -> BranchReport {
    BranchReport { table: target.name(), branch: branch.to_owned(), outcome: End::NothingToDo, snapshot: None }
}

/// Whether `branch` of a table and its quarantine may be made anew, published or dropped; asked before anything is done.
///
/// # Errors
/// `Config` when one of them has a tag of this name, or a branch that no `reprocess` made.
pub(super) async fn check(env: &Env, target: Target<'_>, branch: &str) -> Result<()> {
    for ident in [target.ident(), target.quarantine()?.ident] {
        if let Some(table) = env.catalog.load(&ident).await? {
            refs::check_ours(&ident, table.metadata(), branch)?;
        }
    }
    Ok(())
}

/// The table and the head of its branch; `None` when there is no such branch.
async fn find(env: &Env, target: Target<'_>, branch: &str) -> Result<Option<(Table, i64)>> {
    let table = env.catalog.load(&target.ident()).await?;
    let table = table.ok_or_else(|| Error::config(format!("there is no table {} yet; run first", target.name())))?;
    check(env, target, branch).await?;
    let head = Head::of(table.metadata(), Some(branch)).expected;
    Ok(head.map(|head| (table, head)))
}

/// Asked before the quarantine is touched; the catalog asks again when the table moves.
fn main_unmoved(target: Target<'_>, table: &Table, branch: &str) -> Result<()> {
    let metadata = table.metadata();
    let (main, head) = (Head::of(metadata, None), Head::of(metadata, Some(branch)));
    if main.snapshot.is_none() || part_of(metadata, &main, &head) || part_of(metadata, &head, &main) {
        return Ok(());
    }
    Err(Error::conflict(format!(
        "cannot publish branch {branch} of {}: the table has changed since it was compared; run `reprocess --diff` again \
         and look at it before publishing",
        target.name()
    )))
}

fn part_of<'a>(metadata: &'a TableMetadata, one: &Head<'a>, other: &Head<'a>) -> bool {
    let id = one.snapshot.map(|snapshot| snapshot.snapshot_id());
    other.ancestry(metadata).any(|ancestor| Some(ancestor.snapshot_id()) == id)
}

/// The snapshot on the quarantine's branch that goes with `snapshot`.
fn quarantine_of(table: &Table, snapshot: i64) -> Result<Option<i64>> {
    let found = table.metadata().snapshot_by_id(snapshot);
    let text = found.and_then(|s| s.summary().additional_properties.get(commit::QUARANTINE));
    text.map(|text| text.parse()).transpose().map_err(|e| {
        Error::data(format!("{} of snapshot {snapshot} is no number; discard the branch", commit::QUARANTINE))
            .with_source(e)
    })
}

async fn drop_both(env: &Env, target: Target<'_>, (committer, branch): (&Committer, &str)) -> Result<()> {
    let quarantine = target.quarantine()?.ident;
    if env.catalog.load(&quarantine).await?.is_some() {
        committer.drop_branch(&quarantine, branch).await?;
    }
    committer.drop_branch(&target.ident(), branch).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_has_a_name_that_needs_no_quotes() {
        assert_eq!(name("audit_2026").unwrap(), "audit_2026");
        for bad in ["", "main", "Main", "a b", "a-b", "a.b", "ä"] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
