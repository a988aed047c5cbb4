//! One run of one table: `plan → execute → commit`.

use std::collections::BTreeSet;
use std::sync::Arc;

use firn_shared::config::domain::{Mode, Protection};
use firn_shared::error::{Error, ErrorKind, Result};
use firn_shared::ids::{EventHour, RunId};
use iceberg::table::Table;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::account::InQuarantine;
use super::commit::{How, Quarantined};
use super::report::{Outcome, RunReport, report};
use super::{Env, Target, account, branch, commit, dates, protections};
use crate::execute::{self, Conversion, Execution, Progress, Quarantine, RowsTo, Written};
use crate::plan::position::Position;
use crate::plan::read::{Bounds, plan as read_plan, topics_of};
use crate::plan::{Plan, Scope, Slice, SliceObject, cut};
use crate::table::erasure::{Mark, Marks};
use crate::table::offsets::State;
use crate::table::{Committer, erasable, offsets};
use crate::upsert::{Affected, Buckets, Shuffle, Upserting};

/// A slice holds at least this many uncompressed bytes, so that files do not become tiny.
const SLICE_RAW_BYTES_MIN: u64 = 16 << 20;
/// And at most this many, so that a slice that fails loses little.
const SLICE_RAW_BYTES_MAX: u64 = 4 << 30;
/// A `reprocess` that meets other runs is planned again so often.
const REPROCESS_ATTEMPTS: u32 = 5;
/// The commit of a run is worked out again so often when somebody else changes the table meanwhile.
const COMMIT_ATTEMPTS: u32 = 20;

/// What a run is to do.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Everything new, or hours again.
    pub hours: Option<(EventHour, EventHour)>,
    /// This date must be sealed, and is marked complete by the run.
    pub event_date: Option<chrono::NaiveDate>,
    /// Plan only.
    pub dry_run: bool,
    /// Hours again, on this branch, compared with what is there.
    pub branch: Option<String>,
    /// Set when the run is to end with the commit in progress.
    pub stop: CancellationToken,
}

/// Runs `target` once: up to where its chains end now, in one commit or, when that is more than `compactor.commitSize`, in
/// several. Each of them is a run of its own: what fails later, or never comes because of a crash, leaves them in place, and
/// the next run goes on from there.
///
/// # Errors
/// `Conflict` when another run was faster (nothing of this one is visible), `Data` for a corrupt raw object, a broken
/// ledger or a table that does not fit, `Unavailable` when a date is not sealed or a service does not answer.
pub async fn run(env: &Env, target: Target<'_>, options: &Options) -> Result<RunReport> {
    let begun = std::time::Instant::now();
    let mut goal = None;
    let mut report = run_part(env, target, options, &mut goal).await?;
    while report.outcome == Outcome::Committed
        && goal.as_ref().is_some_and(|goal| !report.position.is_at_or_after(goal))
        && !options.stop.is_cancelled()
    {
        let next = run_part(env, target, options, &mut goal).await?;
        if next.outcome != Outcome::Committed {
            // Another compactor took what was left.
            break;
        }
        report.absorb(next);
    }
    let share = report.fate.quarantined as f64 / report.records.max(1) as f64;
    let threshold = target.output.table.quarantine_threshold;
    report.over_threshold = threshold.is_some_and(|most| share > most).then_some(share);
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(report)
}

/// One commit of a run. `goal` is where the chains ended when its first part was planned.
async fn run_part(env: &Env, target: Target<'_>, options: &Options, goal: &mut Option<Position>) -> Result<RunReport> {
    let mut attempt = 1;
    loop {
        match Box::pin(run_once(env, target, options, goal)).await {
            // Its quarantine may be committed already: giving up here would leave rejects without their rows.
            Err(error) if again(&error, options) && attempt < REPROCESS_ATTEMPTS => {
                tracing::warn!(table = target.name(), attempt, %error, "planning the reprocess again");
                attempt += 1;
            }
            outcome => return outcome,
        }
    }
}

fn again(error: &Error, options: &Options) -> bool {
    error.kind() == ErrorKind::Conflict && options.hours.is_some()
}

async fn run_once(env: &Env, target: Target<'_>, options: &Options, goal: &mut Option<Position>) -> Result<RunReport> {
    let id = RunId::new();
    match prepare(env, target, options, goal).await? {
        Prepared { plan, .. } if options.dry_run => {
            let raw_bytes: u64 = plan.slices.iter().map(Slice::raw_bytes).sum();
            let commits = commit_size(env, target, options).map_or(1, |most| raw_bytes.div_ceil(most.max(1)).max(1));
            Ok(RunReport { commits, ..report(target, id, &plan, Outcome::Planned) })
        }
        Prepared { plan, mark: None, .. } if idle(&plan) => Ok(report(target, id, &plan, Outcome::NothingToDo)),
        // Boxed: the future of a whole run is large, and every caller would carry it.
        prepared => {
            let marks = prepared.marks.clone();
            match Box::pin(carry_out(env, target, id, prepared)).await {
                Err(error) => Err(or_erased(env, target, &marks, error).await),
                outcome => outcome,
            }
        }
    }
}

/// Plans `target` without carrying it out.
///
/// # Errors
/// As [`run`].
pub async fn plan(env: &Env, target: Target<'_>, options: &Options) -> Result<Plan> {
    Ok(prepare(env, target, options, &mut None).await?.plan)
}

/// Nothing to convert, and nothing to advance or replace.
fn idle(plan: &Plan) -> bool {
    match plan.scope {
        Scope::New => plan.is_empty(),
        // Rows may have to go though no object is left to replace them.
        Scope::Hours { .. } => plan.from.is_start(),
    }
}

/// A plan and what it was made from.
struct Prepared {
    plan: Plan,
    table: Option<Table>,
    conversion: Conversion,
    /// What was erased before the ledger was read.
    marks: Marks,
    /// The property that marks the date.
    mark: Option<(String, String)>,
}

/// How many raw bytes one commit takes; `None` when the run must be one snapshot: a load is whole or not there, and so are
/// hours that are replaced.
fn commit_size(env: &Env, target: Target<'_>, options: &Options) -> Option<u64> {
    let whole = matches!(target.output.table.mode, Mode::TruncateLoad { .. }) || options.hours.is_some();
    (!whole).then_some(env.config.deployment.compactor.commit_size)
}

async fn prepare(env: &Env, target: Target<'_>, options: &Options, goal: &mut Option<Position>) -> Result<Prepared> {
    if let Some(branch) = &options.branch {
        branch::check(env, target, branch).await?;
    }
    let conversion = target.conversion(env).await?;
    let raw = env.raw().await?;
    let table = env.catalog.load(&target.ident()).await?;
    let marks = marks(env, target, table.as_ref()).await?;
    let state = match &table {
        Some(table) => offsets::current(table.metadata())?,
        None => None,
    };
    if let Some(table) = &table {
        odd_in(target, table);
        // Told once a run, and not by the one that may end it.
        if goal.is_none() && options.hours.is_none() {
            for what in protections::left_plain(env, target, table).await? {
                tracing::warn!(table = target.name(), what, "the table holds values from before their protection");
            }
        }
    }
    let position = state.map(|s| s.position).unwrap_or_default();
    let topics = topics_of(&*raw, &target.pipeline.ingestion, &position).await?;
    // Asked before the plan is made, so that what sealed the date is in the plan.
    let mark = match options.event_date {
        Some(date) => dates::sealed_mark(env, target, &raw, date, table.as_ref()).await?,
        None => None,
    };
    let scope = match options.hours {
        Some((from, to)) => {
            if !target.output.table.provenance {
                return Err(Error::config(format!(
                    "cannot reprocess {}: its provenance is off, so the rows of an hour cannot be told apart",
                    target.name()
                )));
            }
            Scope::Hours { from, to }
        }
        None => Scope::New,
    };
    let base = table.as_ref().and_then(|t| t.metadata().current_snapshot_id());
    // A plan that is only shown is shown whole.
    let commit_size = commit_size(env, target, options).filter(|_| !options.dry_run);
    let bounds = Bounds { slice_raw_bytes_max: u64::MAX, run_raw_bytes_max: commit_size };
    let mut plan = read_plan(&raw, &topics, (base, position), scope, bounds).await?;
    plan.branch.clone_from(&options.branch);
    rows_left_alone(target, &plan)?;
    if let (Mode::TruncateLoad { .. }, Scope::Hours { .. }, Some(table)) = (&target.output.table.mode, scope, &table) {
        only_last_load(&mut plan, table)?;
    }
    reslice(&mut plan, env.cpu.threads());
    // The date is complete once everything is in the table that its seal rests on, which is what was there at the start.
    let goal = goal.get_or_insert_with(|| plan.until.clone());
    let mark = mark.filter(|_| plan.to.is_at_or_after(goal));
    Ok(Prepared { plan, table, conversion, marks, mark })
}

/// Says what of a table is not as the pipeline would have it, where the run goes on all the same.
fn odd_in(target: Target<'_>, table: &Table) {
    for what in target.definition().differences(table.metadata()) {
        tracing::warn!(table = target.name(), what, "the table is not as the pipeline says");
    }
    if let Some(what) = target.unreadable_by_athena(table.metadata()) {
        tracing::warn!(table = target.name(), what, "not every reader reads the table");
    }
}

/// The erasures that are known now. Only who has subjects asks for those of the quarantine.
async fn marks(env: &Env, target: Target<'_>, table: Option<&Table>) -> Result<Marks> {
    let of = |table: Option<&Table>| table.map(|table| Mark::of(table.metadata())).unwrap_or_default();
    let quarantine = if target.output.table.protections.iter().any(Protection::is_erasable) {
        env.catalog.load(&target.quarantine()?.ident).await?
    } else {
        None
    };
    Ok(Marks { table: of(table), quarantine: of(quarantine.as_ref()) })
}

/// Raw objects, and snapshots, go away under a run that was planned before an erasure: that is no damage.
async fn or_erased(env: &Env, target: Target<'_>, marks: &Marks, error: Error) -> Error {
    let ident = target.ident();
    if error.kind() != ErrorKind::Data {
        return error;
    }
    let erased = match env.catalog.load(&ident).await {
        Ok(Some(table)) => marks.table.check(&ident, table.metadata()).err(),
        _ => None,
    };
    match erased {
        Some(conflict) => conflict.with_source(error),
        None => error,
    }
}

/// Leaves out what earlier loads consumed: a later load replaced it.
fn only_last_load(plan: &mut Plan, table: &Table) -> Result<()> {
    let base = offsets::base_of(table.metadata(), offsets::SCOPE, offsets::SCOPE_NEW)?.ok_or_else(|| {
        Error::data(format!(
            "cannot reprocess {}: the snapshot of its last load has expired, so which records belong to it is unknown",
            table.identifier()
        ))
    })?;
    for slice in &mut plan.slices {
        slice.objects.retain(|o| o.object.min_offset >= base.get(&o.partition_ref()).unwrap_or(0));
    }
    for (partition, end) in base.iter() {
        if plan.since.get(&partition).is_none_or(|since| since < end) {
            plan.since.advance(&partition, end)?;
        }
    }
    Ok(())
}

/// A `reprocess` replaces rows of the topics that it reads. Where keys meet that is not enough: an older version that was
/// to count again could be in a topic that is not read.
fn rows_left_alone(target: Target<'_>, plan: &Plan) -> Result<()> {
    let topics: BTreeSet<String> = plan.since.iter().map(|(partition, _)| partition.topic.to_string()).collect();
    if topics.is_empty() {
        return Ok(());
    }
    let (name, topics) = (target.name(), topics.into_iter().collect::<Vec<_>>().join(", "));
    if target.output.table.mode.upsert().is_some() {
        return Err(Error::config(format!(
            "cannot reprocess {name}: it has read {topics}, which the pipeline does not name any more or the raw zone does \
             not hold, so older versions of its keys would not be found; name them in `topic` again, or make the table anew"
        )));
    }
    tracing::warn!(
        table = name,
        topics,
        "the table has rows of topics that the pipeline does not read any more: a reprocess leaves them as they are"
    );
    Ok(())
}

/// Cuts the plan so that all threads have work and slices stay of a sensible size.
fn reslice(plan: &mut Plan, threads: usize) {
    let objects: Vec<SliceObject> = std::mem::take(&mut plan.slices).into_iter().flat_map(|s| s.objects).collect();
    let total: u64 = objects.iter().map(|o| o.object.raw_bytes).sum();
    let share = total.div_ceil(threads.max(1) as u64).clamp(SLICE_RAW_BYTES_MIN, SLICE_RAW_BYTES_MAX);
    plan.slices = cut(objects, share);
}

async fn carry_out(env: &Env, target: Target<'_>, id: RunId, prepared: Prepared) -> Result<RunReport> {
    let Prepared { plan, table, conversion, marks, mark } = prepared;
    // A crash right after leaves an empty table of the right shape.
    let definition = target.definition();
    let table = match table {
        Some(table) => {
            let live = table.metadata().current_schema();
            crate::table::schema::compare(live, &definition.columns)?.check(&definition.ident)?;
            protections::keys_meet(env, target, &table).await?;
            // A crash right after leaves properties that the next run would set.
            protections::settle(env, target, &table, false).await?.unwrap_or(table)
        }
        None => definition.ensure(&*env.catalog).await?.into_table(),
    };
    let bytes = plan.slices.iter().flat_map(|s| &s.objects).map(|o| o.object.bytes).sum();
    let progress = if env.bars { Progress::of(&target.name(), bytes) } else { Progress::quiet() };
    let shuffle = match target.output.table.mode.upsert() {
        Some(upsert) => {
            let raw_bytes = plan.slices.iter().map(Slice::raw_bytes).sum();
            let temp = &env.config.deployment.compactor.temp_dir;
            let sizes = (plan.records(), raw_bytes);
            let shuffle = Shuffle::new(upsert, table.metadata(), (temp, id), sizes, env.cpu.memory())?;
            Some(Arc::new(shuffle))
        }
        None => None,
    };
    let execution = Execution {
        run: id,
        raw: env.raw().await?,
        stores: env.stores.clone(),
        cpu: env.cpu.clone(),
        conversion: Arc::new(conversion),
        table,
        marks,
        rows_to: match &shuffle {
            Some(shuffle) => RowsTo::Buckets(Buckets { shuffle: Arc::clone(shuffle), recall: None }),
            None => RowsTo::Files,
        },
        quarantine: Quarantine {
            definition: target.quarantine()?,
            catalog: Arc::clone(&env.catalog),
            made: OnceCell::new(),
        },
        target_file_bytes: target.output.table.target_file_size,
        zstd_level: target.output.table.zstd_level,
        progress,
    };
    let written = execute::execute(&plan, &execution).await;
    execution.progress.end();
    // A crash up to here leaves data files that nothing names.
    let written = written?;
    let how = how(env, target, &plan, &written, shuffle)?;
    // Boxed, as the future of the whole run is.
    Box::pin(finish(env, target, &plan, &execution, (written, how, mark))).await
}

/// How the table's mode lets the run's rows meet the table's.
fn how(env: &Env, target: Target<'_>, plan: &Plan, written: &Written, shuffle: Option<Arc<Shuffle>>) -> Result<How> {
    match (&target.output.table.mode, shuffle) {
        (Mode::Upsert(upsert), Some(shuffle)) => Ok(How::Upsert(Box::new(Upserting {
            upsert: upsert.clone(),
            affected: Arc::new(Affected { touched: shuffle.take_touched()?, replaced: commit::replaced_rows(plan) }),
            shuffle,
            stores: env.stores.clone(),
            delete_memory_location: env.config.deployment.compactor.delete_memory_location.clone(),
            cpu: env.cpu.clone(),
            now: env.clock.now(),
        }))),
        // Nothing new is no new load: the commit marks a date, and leaves the last load where it is.
        (Mode::TruncateLoad { .. }, _) if plan.is_empty() && plan.scope == Scope::New => Ok(How::Append),
        (Mode::Upsert(_), None) => Err(Error::bug("an upsert without its rows")),
        (Mode::TruncateLoad { allow_empty }, _) => {
            let rows: u64 = written.fates.values().map(|fate| fate.rows).sum();
            if rows == 0 && !allow_empty && plan.scope == Scope::New {
                return Err(Error::data(format!(
                    "{}: this run has no row, so it would empty the table; set `allowEmpty: true` if that is meant",
                    target.name()
                )));
            }
            Ok(How::TruncateLoad)
        }
        (Mode::Append, _) => Ok(How::Append),
    }
}

async fn finish(
    env: &Env,
    target: Target<'_>,
    plan: &Plan,
    execution: &Execution,
    (mut written, how, mark): (Written, How, Option<(String, String)>),
) -> Result<RunReport> {
    let committer = Committer::new(Arc::clone(&env.catalog), Arc::clone(&env.clock));
    let quarantined = if written.quarantine_untouched(plan) {
        Quarantined::default()
    } else {
        commit::quarantine(plan, execution, &committer, std::mem::take(&mut written.rejects)).await?
    };
    let finish = Finish { env, target, plan, execution, committer, written, how, quarantined, mark };
    let mut attempt = 1;
    loop {
        // What the run does depends on the table as it is; raw objects are not converted again for that.
        let table = env.catalog.load(execution.table.identifier()).await?;
        let table = table.ok_or_else(|| Error::conflict(format!("{} was dropped meanwhile", target.name())))?;
        let state = offsets::current(table.metadata())?.unwrap_or_default();
        execution.marks.table.check(table.identifier(), table.metadata())?;
        match Box::pin(finish.attempt(&table, &state, attempt)).await {
            // Somebody else changed the table and left the position alone: maintenance, a reprocess, another engine.
            Err(e) if e.kind() == ErrorKind::Conflict && attempt < COMMIT_ATTEMPTS && state.position == plan.from => {
                tracing::warn!(table = target.name(), attempt, error = %e, "working out the commit again");
                attempt += 1;
            }
            outcome => return outcome,
        }
    }
}

/// A run whose slices are done.
struct Finish<'a> {
    env: &'a Env,
    target: Target<'a>,
    plan: &'a Plan,
    execution: &'a Execution,
    committer: Committer,
    written: Written,
    how: How,
    quarantined: Quarantined,
    mark: Option<(String, String)>,
}

impl Finish<'_> {
    /// Converts the table's records of other hours again, for the keys that ask for it.
    async fn recall(&self, buckets: Buckets) -> Result<()> {
        let Self { env, target, plan, execution, .. } = self;
        let Scope::Hours { from, to } = plan.scope else { return Ok(()) };
        tracing::info!(table = target.name(), "older versions may count again: reading the other hours, too");
        let raw = env.raw().await?;
        let topics = topics_of(&*raw, &target.pipeline.ingestion, &plan.from).await?;
        let bounds = Bounds { slice_raw_bytes_max: u64::MAX, run_raw_bytes_max: None };
        let mut rest = plan.clone_without_slices();
        for (from, to) in [(EventHour::MIN, from), (to, EventHour::MAX)] {
            let scope = Scope::Hours { from, to };
            let part = read_plan(&raw, &topics, (plan.base_snapshot, plan.from.clone()), scope, bounds).await?;
            rest.slices.extend(part.slices);
        }
        reslice(&mut rest, env.cpu.threads());
        let execution =
            Execution { rows_to: RowsTo::Buckets(buckets), progress: Progress::quiet(), ..(*execution).clone() };
        execute::execute(&rest, &execution).await.map(|_| ())
    }

    async fn attempt(&self, table: &Table, state: &State, attempt: u32) -> Result<RunReport> {
        let Self { env, target, plan, execution, committer, written, how, quarantined, mark } = self;
        commit::position_unmoved(plan, table).await?;
        let recall = async |buckets| self.recall(buckets).await;
        let effect = commit::effect(plan, execution, (table, state), how, (attempt, recall)).await?;
        let quarantine =
            InQuarantine { gone: quarantined.gone.clone(), kept: commit::quarantine_kept(plan, execution).await? };
        let account = account::after(plan, state.account.clone(), (written, &effect), &quarantine)?;
        let mut report = report(*target, execution.run, plan, Outcome::Committed);
        for fate in account::fates(written, &effect)?.values() {
            report.fate.merge(fate);
        }
        let staged = effect.upsert.iter().flat_map(|staged| &staged.add);
        let files: Vec<_> = written.files.iter().chain(staged).collect();
        report.files = files.len();
        report.file_bytes = files.iter().map(|f| f.file.file_size_in_bytes()).sum();
        report.replaced = effect.replaced().values().sum();
        let turnover = plan.branch.as_ref().map(|branch| (branch, effect.turnover(&written.files)));
        let made = (written.files.clone(), effect, how);
        let erasable = erasable::grown(table, target.output)?;
        let protected = protections::after(env, *target, plan, table).await?;
        let properties = mark.clone().into_iter().chain(erasable).chain(protected).collect();
        let also = (properties, protections::on_branch(*target, plan)?, quarantined);
        let committed = commit::table(plan, execution, committer, made, (table, state, account), also).await?;
        report.snapshot = Some(committed.snapshot_id);
        if let Some((name, turnover)) = turnover {
            report.outcome = Outcome::OnBranch;
            report.diff = Some(branch::compare(env, *target, (&committed, name), &turnover, execution.run).await?);
        }
        let RunReport { table, records, fate, .. } = &report;
        let (rows, quarantined, snapshot) = (fate.rows, fate.quarantined, committed.snapshot_id);
        let offsets_left = plan.offsets_left();
        tracing::info!(%table, snapshot, records, rows, quarantined, offsets_left, "committed");
        Ok(report)
    }
}

impl Written {
    /// Whether the run has nothing to say to the quarantine: it consumes no offset and replaces no hour.
    fn quarantine_untouched(&self, plan: &Plan) -> bool {
        self.rejects.is_empty() && plan.scope == Scope::New && plan.ledger.is_empty()
    }
}
