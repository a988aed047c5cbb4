//! Makes a change visible, exactly once.
//!
//! Each attempt loads the table, asks whether the commit is there already, validates, stages, and lets the catalog swap
//! the pointer. A conflict is tried again on the new state; an unknown outcome is resolved by looking. What a crash
//! leaves behind is said at each step: always either the old table or the new one, and files that nothing names.

use std::sync::Arc;
use std::time::Duration;

use firn_shared::clock::Clock;
use firn_shared::error::{Error, ErrorKind, Result};
use iceberg::TableIdent;
use iceberg::spec::TableMetadata;
use iceberg::table::Table;
use rand::Rng;

use super::catalog::{Catalog, CommitOutcome};
use super::offsets;
use super::refs::{self, Head, Step};
use super::snapshot::{Change, Staged, produce};

/// Attempts before giving up; with the waits below about half a minute.
const ATTEMPTS: u32 = 10;
/// The first wait; doubles up to [`WAIT_MAX`], each with full jitter.
const WAIT: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Commits changes to the tables of one catalog.
#[derive(Debug, Clone)]
pub struct Committer {
    catalog: Arc<dyn Catalog>,
    clock: Arc<dyn Clock>,
    attempts: u32,
}

/// A change that is part of the table.
#[derive(Debug)]
pub struct Committed {
    /// The table with it.
    pub table: Table,
    /// Its snapshot.
    pub snapshot_id: i64,
    /// Attempts it took; 0 when it was found to have landed before.
    pub attempts: u32,
}

impl Committer {
    /// Commits through `catalog`.
    #[must_use]
    pub fn new(catalog: Arc<dyn Catalog>, clock: Arc<dyn Clock>) -> Self {
        Self { catalog, clock, attempts: ATTEMPTS }
    }

    /// Gives up after this many attempts.
    #[must_use]
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Makes `change` part of the table; a change whose commit id is in the table already is not done again.
    ///
    /// # Errors
    /// `Conflict` when the change no longer fits (plan again) or others were faster every time, `Unavailable` when
    /// catalog or store do not answer; then the change may or may not have landed, and doing it again is safe.
    pub async fn commit(&self, ident: &TableIdent, change: &Change) -> Result<Committed> {
        let mut in_doubt = false;
        let committed = self.attempt(ident, change, &mut in_doubt).await;
        // A conflict after an attempt in doubt does not say enough: the request may still be on its way to a catalog that
        // takes it. Then the files wait for orphan removal.
        if let (Err(e), true, false) = (&committed, change.disposable, in_doubt)
            && e.kind() == ErrorKind::Conflict
            && let Ok(base) = self.load(ident).await
        {
            discard(&base, change.add.iter().skip(change.shared).map(|added| added.file.file_path())).await;
        }
        committed
    }

    async fn attempt(&self, ident: &TableIdent, change: &Change, in_doubt: &mut bool) -> Result<Committed> {
        let mut last = Error::bug("no attempt was made");
        let mut refused = Refused::default();
        for attempt in 1..=self.attempts {
            if attempt > 1 {
                tokio::time::sleep(wait(attempt)).await;
            }
            let base = match self.load(ident).await {
                Ok(base) => base,
                Err(e) if e.kind() == ErrorKind::Unavailable => {
                    last = e;
                    continue;
                }
                Err(e) => return Err(e),
            };
            refused.discard(&base, in_doubt).await;
            // An earlier attempt, or an earlier process with the same commit id, may have got through unseen.
            let head = Head::of(base.metadata(), change.branch.as_deref());
            if let Some(snapshot_id) = offsets::landed(base.metadata(), &head, &change.commit_id)? {
                return Ok(Committed { table: base, snapshot_id, attempts: attempt - 1 });
            }
            change.expect.check(&base, change.parent()).await?;
            // A crash from here to the swap leaves manifests that nothing names: orphan removal takes them. The data
            // files of the change are in the same case until the swap.
            let staged = produce(&base, change, self.clock.now()).await?;
            match self.swap(&base, &staged, attempt).await {
                // A crash after the swap leaves the new table, complete; the next run finds its offsets in it.
                Swapped::Yes(table) => {
                    let (table, snapshot_id) = (*table, staged.snapshot_id);
                    return Ok(Committed { table, snapshot_id, attempts: attempt });
                }
                Swapped::No(e) => {
                    refused.0.push(staged);
                    last = e;
                }
                Swapped::Never(e) => {
                    refused.0.push(staged);
                    last = e;
                    break;
                }
                // The files stay: the table may name them already, or soon.
                Swapped::Unknown(e) => {
                    *in_doubt = true;
                    last = e;
                }
            }
        }
        // The last attempt's outcome may still be unknown: look once more before saying so.
        let table = match self.load(ident).await {
            Ok(table) => table,
            Err(e) if matches!(last.kind(), ErrorKind::Unavailable | ErrorKind::Conflict) => return Err(e),
            Err(_) => return Err(last),
        };
        refused.discard(&table, in_doubt).await;
        let head = Head::of(table.metadata(), change.branch.as_deref());
        match offsets::landed(table.metadata(), &head, &change.commit_id)? {
            Some(snapshot_id) => Ok(Committed { table, snapshot_id, attempts: self.attempts }),
            None => Err(last),
        }
    }

    /// Lets the catalog swap the pointer from `base` to what was staged on it.
    async fn swap(&self, base: &Table, staged: &Staged, attempt: u32) -> Swapped {
        let ident = base.identifier();
        let lost = |why: &str| {
            tracing::warn!(table = %ident, attempt, why, "commit lost a race");
            Error::conflict(format!(
                "cannot commit {ident}: {why} (attempt {attempt} of {}); run again, nothing was lost",
                self.attempts
            ))
        };
        match self.catalog.commit(base, staged.updates.clone(), staged.requirements.clone()).await {
            Ok(CommitOutcome::Committed(table)) => Swapped::Yes(Box::new(table)),
            Ok(CommitOutcome::Conflict(why)) => Swapped::No(lost(&why)),
            Ok(CommitOutcome::Unknown(e)) => {
                tracing::warn!(table = %ident, attempt, error = %e, "outcome of a commit is unknown, looking");
                let text = format!("cannot tell whether the commit to {ident} landed; run again");
                Swapped::Unknown(Error::unavailable(text).with_source(e))
            }
            Err(e) if e.kind() == ErrorKind::Unavailable => Swapped::No(e),
            Err(e) if self.is_outrun(ident, staged).await => Swapped::No(lost(&e.to_string()).with_source(e)),
            Err(e) => Swapped::Never(e),
        }
    }

    /// Whether the sequence number of what was staged is taken: a commit to another branch, which the requirements say nothing
    /// of, makes it invalid, and servers refuse it as such.
    async fn is_outrun(&self, ident: &TableIdent, staged: &Staged) -> bool {
        let table = self.load(ident).await;
        table.is_ok_and(|table| table.metadata().last_sequence_number() >= staged.sequence_number)
    }

    /// Makes the head of `branch` that of `main`: what was committed to the branch becomes visible at once.
    ///
    /// # Errors
    /// `Conflict` when `main` has moved on since the branch left it, or there is no such branch; else as the catalog
    /// says, and doing it again is safe.
    pub async fn fast_forward(&self, ident: &TableIdent, branch: &str) -> Result<Table> {
        self.step(ident, |table| refs::fast_forward(ident, table.metadata(), (branch, None))).await
    }

    /// As [`Self::fast_forward`], if the head of `branch` is `snapshot`; a snapshot that is part of `main` is published.
    ///
    /// # Errors
    /// As [`Self::fast_forward`]; `Conflict` when the branch has another head.
    pub async fn publish(&self, ident: &TableIdent, branch: &str, snapshot: i64) -> Result<Table> {
        self.step(ident, |table| refs::fast_forward(ident, table.metadata(), (branch, Some(snapshot)))).await
    }

    /// Removes `branch`, if there is one; its snapshots stay until they expire.
    ///
    /// # Errors
    /// `Config` for `main`, for tags and for branches that no `reprocess` made; else as the catalog says.
    pub async fn drop_branch(&self, ident: &TableIdent, branch: &str) -> Result<Table> {
        self.step(ident, |table| refs::drop(ident, table.metadata(), branch)).await
    }

    /// Changes metadata alone until there is nothing left to do, which also answers what an unknown outcome came to.
    ///
    /// # Errors
    /// As `next` and the catalog say; doing it again is safe.
    pub(crate) async fn step(
        &self,
        ident: &TableIdent,
        next: impl Fn(&Table) -> Result<Option<Step>> + Send + Sync,
    ) -> Result<Table> {
        let mut last = Error::bug("no attempt was made");
        for attempt in 1..=self.attempts {
            if attempt > 1 {
                tokio::time::sleep(wait(attempt)).await;
            }
            let table = match self.load(ident).await {
                Ok(table) => table,
                Err(e) if e.kind() == ErrorKind::Unavailable => {
                    last = e;
                    continue;
                }
                Err(e) => return Err(e),
            };
            let Some(Step { updates, requirements }) = next(&table)? else { return Ok(table) };
            last = match self.catalog.commit(&table, updates, requirements).await {
                Ok(CommitOutcome::Committed(table)) => return Ok(table),
                Ok(CommitOutcome::Conflict(why)) => Error::conflict(format!("cannot change {ident}: {why}; run again")),
                Ok(CommitOutcome::Unknown(e)) => {
                    Error::unavailable(format!("cannot tell whether {ident} was changed; run again")).with_source(e)
                }
                Err(e) if e.kind() == ErrorKind::Unavailable => e,
                Err(e) => return Err(e),
            };
        }
        Err(last)
    }

    async fn load(&self, ident: &TableIdent) -> Result<Table> {
        let table = self.catalog.load(ident).await?;
        table.ok_or_else(|| Error::config(format!("no table {ident} in {}; run ddl first", self.catalog.describe())))
    }
}

/// How a swap went.
enum Swapped {
    Yes(Box<Table>),
    /// Somebody else was faster, or the catalog does not answer: worth another attempt.
    No(Error),
    /// The catalog does not want it.
    Never(Error),
    Unknown(Error),
}

/// Attempts that the catalog refused, and whose files are still there. A gateway may have repeated a request that was
/// carried out, so that what was refused is the repetition: the table is asked before a file goes.
#[derive(Default)]
struct Refused(Vec<Staged>);

impl Refused {
    /// Removes the files of those that did not land, as `table` shows, which was loaded after they were refused.
    async fn discard(&mut self, table: &Table, in_doubt: &mut bool) {
        for staged in self.0.drain(..) {
            if is_out(&staged, table.metadata()) {
                discard(table, staged.files.iter().map(String::as_str)).await;
            } else {
                *in_doubt = true;
            }
        }
    }
}

/// Whether a snapshot certainly is no part of the table's history: nobody has its sequence number, or somebody else has. Where
/// the number is gone, what had it has expired, and later snapshots may name its manifests.
fn is_out(staged: &Staged, metadata: &TableMetadata) -> bool {
    metadata.last_sequence_number() < staged.sequence_number
        || metadata
            .snapshots()
            .any(|s| s.sequence_number() == staged.sequence_number && s.snapshot_id() != staged.snapshot_id)
}

/// Removes what an attempt wrote, after a definite no.
async fn discard<'a>(base: &Table, files: impl Iterator<Item = &'a str> + Send) {
    for file in files {
        if let Err(e) = base.file_io().delete(file).await {
            tracing::warn!(file, error = %e, "a file of an attempt that lost stays behind");
        }
    }
}

fn wait(attempt: u32) -> Duration {
    let cap = WAIT.saturating_mul(1 << (attempt - 2).min(8)).min(WAIT_MAX);
    rand::rng().random_range(Duration::ZERO..=cap)
}
