//! Makes what a run wrote visible: the quarantine first, then the table with its offsets.
//!
//! The two tables cannot commit together. The quarantine replaces all rows of the run's offsets (or hours), so it may be
//! committed any number of times. A crash after it leaves a quarantine ahead of its table; the next run over the same
//! offsets replaces those rows. A crash after the table's commit leaves nothing to do.

use std::collections::BTreeMap;

use firn_shared::error::Result;
use firn_shared::ids::{OffsetRange, PartitionRef};
use iceberg::TableIdent;
use iceberg::table::Table;

use crate::diff::{Turnover, Which};
use crate::execute::Execution;
use crate::plan::{Plan, Scope};
use crate::reconcile::account::Account;
use crate::table::offsets::{SCOPE, SCOPE_NEW, SCOPE_REPROCESS, State};
use crate::table::overwrite::{self, Removal};
use crate::table::read::{self, Rows};
use crate::table::validate::Expect;
use crate::table::{Change, Committed, Committer, NewFile};
use crate::upsert::{self, Buckets, Upserting};
use crate::write::{OPEN_FILES_MAX, WriteSpec};

/// Summary key: the snapshot of the quarantine's branch that goes with a snapshot on the table's.
pub const QUARANTINE: &str = "firn.quarantine-snapshot";
/// [`SCOPE`] of a run that found nothing new, and marks a date as complete: it is no load.
const SCOPE_MARK: &str = "mark";

/// The rows that a run replaces. A `reprocess` leaves those past its position alone: they belong to a run that was
/// planned later.
fn rows_of(plan: &Plan) -> Rows {
    match plan.scope {
        Scope::New => Rows::Offsets(
            plan.ledger
                .iter()
                .map(|l| (PartitionRef { topic: l.topic.clone(), partition: l.partition }, l.range))
                .collect(),
        ),
        Scope::Hours { from, to } => {
            let since = |of: &PartitionRef| plan.since.get(of).unwrap_or(0);
            let read = plan.from.iter().filter_map(|(of, end)| Some((OffsetRange::new(since(&of), end).ok()?, of)));
            let read = read.map(|(range, of)| (of, range));
            Rows::Both(Box::new(Rows::Hours { from, to }), Box::new(Rows::Offsets(read.collect())))
        }
    }
}

/// The table still stands where the plan was made.
///
/// # Errors
/// `Conflict` when another run moved the position.
pub async fn position_unmoved(plan: &Plan, table: &Table) -> Result<()> {
    let expect = Expect { position: Some(plan.from.clone()), ..Expect::default() };
    expect.check(table, None).await
}

/// Rows that the run replaces because of their origin; a run over new records replaces none.
pub fn replaced_rows(plan: &Plan) -> Option<Rows> {
    matches!(plan.scope, Scope::Hours { .. }).then(|| rows_of(plan))
}

/// What was done to the quarantine.
#[derive(Debug, Default)]
pub struct Quarantined {
    /// Rows of each partition that went.
    pub gone: BTreeMap<PartitionRef, u64>,
    /// The new snapshot, if there is one.
    pub snapshot: Option<i64>,
}

/// Replaces the quarantine's rows of this run by `rejects`. Tables without a quarantine table, and runs that change
/// nothing in it, commit nothing.
///
/// # Errors
/// `Conflict` when another run changed the same rows meanwhile; else as the table layer says.
pub async fn quarantine(
    plan: &Plan,
    execution: &Execution,
    committer: &Committer,
    rejects: Vec<NewFile>,
) -> Result<Quarantined> {
    let quarantine = &execution.quarantine;
    let ident = quarantine.definition.ident.clone();
    let Some(table) = quarantine.catalog.load(&ident).await? else { return Ok(Quarantined::default()) };
    // The table's own commit asks again, atomically; asked here, a run that lost leaves the quarantine alone, too.
    if let Some(main) = quarantine.catalog.load(execution.table.identifier()).await? {
        position_unmoved(plan, &main).await?;
        execution.marks.table.check(main.identifier(), main.metadata())?;
    }
    let spec = write_spec(execution, &table, "qr");
    let removal = overwrite::remove(&table, rows_of(plan), spec).await?;
    let gone = removal.rows_removed.clone();
    if removal.is_empty() && rejects.is_empty() {
        if let Some(branch) = &plan.branch {
            // What an earlier one left there does not go with this one.
            committer.drop_branch(&ident, branch).await?;
        }
        return Ok(Quarantined { gone, snapshot: None });
    }
    let shared = rejects.len();
    let mut change = Change { disposable: true, shared, ..change(execution, plan, &ident, rejects) };
    removal.apply_to(&mut change);
    change.expect.erasure = Some(execution.marks.quarantine.clone());
    let snapshot = committer.commit(&ident, &change).await?.snapshot_id;
    Ok(Quarantined { gone, snapshot: Some(snapshot) })
}

/// Rows that the quarantine has of records that a run over hours leaves alone, by partition; nothing else tells how many of
/// those that the account counts were of these hours when the quarantine is ahead of its table.
///
/// # Errors
/// As reading the quarantine says.
pub async fn quarantine_kept(plan: &Plan, execution: &Execution) -> Result<BTreeMap<PartitionRef, u64>> {
    let quarantine = &execution.quarantine;
    let mut kept = BTreeMap::new();
    if let Scope::Hours { .. } = plan.scope
        && let Some(table) = quarantine.catalog.load(&quarantine.definition.ident).await?
    {
        let consumed = plan.from.iter().filter_map(|(of, end)| Some((of, OffsetRange::new(0, end).ok()?)));
        kept = read::count(&table, &Rows::Offsets(consumed.collect())).await?;
        for (partition, of_run) in read::count(&table, &rows_of(plan)).await? {
            *kept.entry(partition).or_default() -= of_run;
        }
    }
    Ok(kept)
}

/// How the rows of a run meet those of the table.
#[derive(Debug)]
pub enum How {
    /// They are added.
    Append,
    /// By key.
    Upsert(Box<Upserting>),
    /// They take the place of all others.
    TruncateLoad,
}

/// What a run does to one state of the table besides adding the files it wrote.
#[derive(Debug, Default)]
pub struct Effect {
    /// Rows of the table that are replaced because of their origin.
    pub removal: Option<Removal>,
    /// Rows of the run against rows of the table, by key.
    pub upsert: Option<upsert::Staged>,
    /// Everything that was in the table goes.
    pub truncates: bool,
}

impl Effect {
    /// Rows that go because their records are converted again.
    pub fn replaced(&self) -> BTreeMap<PartitionRef, u64> {
        let of_upsert = self.upsert.as_ref().map(|staged| &staged.replaced);
        let of_removal = self.removal.as_ref().map(|removal| &removal.rows_removed);
        of_upsert.or(of_removal).cloned().unwrap_or_default()
    }

    /// Rows that go and rows that come, `written` being the files of a run that is no upsert.
    pub fn turnover(&self, written: &[NewFile]) -> Turnover {
        match (&self.upsert, &self.removal) {
            (Some(staged), _) => staged.turnover.clone(),
            (None, Some(removal)) => Turnover {
                gone: removal.removed.iter().map(|f| (f.clone(), Which::Of(removal.rows.clone()))).collect(),
                came: written.to_vec(),
            },
            (None, None) => Turnover { gone: Vec::new(), came: written.to_vec() },
        }
    }

    /// Rows that go with them, beyond the first of their record.
    pub(super) fn further_replaced(&self, partition: &PartitionRef) -> u64 {
        let of_removal = self.removal.as_ref().and_then(|removal| removal.further_removed.get(partition));
        of_removal.copied().unwrap_or_default()
    }
}

/// Works out what the run does to `table`, which stands at `state`; `attempt` makes the names of files unique, `recall` is
/// for [`upsert::stage`].
///
/// # Errors
/// As the table layer and [`upsert::stage`] say.
pub async fn effect(
    plan: &Plan,
    execution: &Execution,
    (table, state): (&Table, &State),
    how: &How,
    (attempt, recall): (u32, impl AsyncFnOnce(Buckets) -> Result<()>),
) -> Result<Effect> {
    let spec = |what: &str| write_spec(execution, table, what);
    match (how, plan.scope) {
        (How::Upsert(job), _) => {
            let staged = upsert::stage(job, table, &state.memory(), &spec(""), (attempt, recall)).await?;
            Ok(Effect { upsert: Some(staged), ..Effect::default() })
        }
        (How::Append | How::TruncateLoad, Scope::Hours { .. }) => {
            let removal = overwrite::remove(table, rows_of(plan), spec(&format!("r{attempt}"))).await?;
            Ok(Effect { removal: Some(removal), ..Effect::default() })
        }
        (How::Append, Scope::New) => Ok(Effect::default()),
        (How::TruncateLoad, Scope::New) => Ok(Effect { truncates: true, ..Effect::default() }),
    }
}

/// Commits the table: files, rows that go, position and account, together. Position and account must be those that the
/// effect was worked out on.
///
/// # Errors
/// `Conflict` when somebody else changed what the run depends on; then nothing of this run is visible.
pub async fn table(
    plan: &Plan,
    execution: &Execution,
    committer: &Committer,
    (files, effect, how): (Vec<NewFile>, Effect, &How),
    (base, state, account): (&Table, &State, Account),
    (properties, said, quarantined): (BTreeMap<String, String>, Option<(String, String)>, &Quarantined),
) -> Result<Committed> {
    let ident = execution.table.identifier().clone();
    // What slices wrote goes into the next attempt; what was worked out on one state of the table does not.
    let shared = files.len();
    let mut change = Change { disposable: true, shared, ..change(execution, plan, &ident, files) };
    if let Some(removal) = effect.removal {
        removal.apply_to(&mut change);
    }
    if let (Some(staged), How::Upsert(job)) = (effect.upsert, how) {
        change.remembered.clone_from(&staged.remembered);
        staged.apply_to(base, job, &mut change);
    }
    change.replace_all = effect.truncates;
    change.offsets = Some((plan.to.clone(), account));
    change.properties.extend(properties);
    change.summary.extend(said);
    if let (Some(_), Some(snapshot)) = (&plan.branch, quarantined.snapshot) {
        change.summary.insert(QUARANTINE.to_owned(), snapshot.to_string());
    }
    change.expect.position = Some(plan.from.clone());
    change.expect.account = Some(state.account.clone());
    change.expect.erasure = Some(execution.marks.table.clone());
    committer.commit(&ident, &change).await
}

fn change(execution: &Execution, plan: &Plan, ident: &TableIdent, add: Vec<NewFile>) -> Change {
    let scope = match plan.scope {
        Scope::New if plan.is_empty() => SCOPE_MARK.to_owned(),
        Scope::New => SCOPE_NEW.to_owned(),
        Scope::Hours { from, to } => format!("{SCOPE_REPROCESS}{from}..{to}"),
    };
    Change {
        commit_id: format!("{}-{}", execution.run, ident.name()),
        branch: plan.branch.clone(),
        anew: plan.branch.is_some(),
        add,
        summary: BTreeMap::from([(SCOPE.to_owned(), scope)]),
        ..Change::default()
    }
}

fn write_spec(execution: &Execution, table: &Table, what: &str) -> WriteSpec {
    WriteSpec {
        metadata: table.metadata_ref(),
        stores: execution.stores.clone(),
        runtime: tokio::runtime::Handle::current(),
        run: execution.run,
        slice: what.to_owned(),
        target_file_bytes: execution.target_file_bytes,
        // Beside it are the program's own share and the rows that are read.
        memory: execution.cpu.memory() / 4,
        open_files_max: OPEN_FILES_MAX,
        zstd_level: execution.zstd_level,
    }
}
