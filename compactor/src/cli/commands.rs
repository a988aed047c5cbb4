//! Each command: environment in, printed findings and exit code out.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use firn_shared::cli::say;
use firn_shared::clock::Clock;
use firn_shared::config::{self, Config};
use firn_shared::crypto::Used;
use firn_shared::error::{Error, ErrorKind, Result};
use firn_shared::ids::KeyName;
use serde::Serialize;

use super::findings::Findings;
use super::{
    Command, DIFFERENCE, DONE, Format, NOTHING_TO_DO, OVER_THRESHOLD, Which, erase, exit_code, explain, grants,
    inspect, pii,
};
use crate::run::{Env, Options, Outcome, RunReport, Target, branch, dates, every, once, protections, prove};
use crate::table::catalog::Created;
use crate::table::schema::compare;
use crate::{access, maintain};

pub async fn command(command: Command, format: Format, config: Arc<Config>, clock: Arc<dyn Clock>) -> Result<u8> {
    let open = || Env::open(Arc::clone(&config), Arc::clone(&clock));
    match command {
        Command::Run { which, event_date, wait, every, dry_run } => {
            let env = open().await?;
            let date = event_date.map(|text| dates::parse(&text, clock.now().date_naive())).transpose()?;
            let options = Options { event_date: date, dry_run, ..Options::default() };
            match every {
                Some(every) => Box::pin(run_every(&env, &which, options, format, every)).await,
                None => Ok(run_all(&env, &which, &options, format, wait.unwrap_or_default()).await?.0),
            }
        }
        Command::Reprocess { which, end, branch, .. } if end.publish || end.discard => {
            end_branch(&open().await?, &which, (&branch, end.publish), format).await
        }
        Command::Reprocess { which, from, to, dry_run, diff, branch, .. } => {
            let branch = diff.then_some(branch);
            let options = Options { hours: from.zip(to), dry_run, branch, ..Options::default() };
            Ok(run_all(&open().await?, &which, &options, format, Duration::ZERO).await?.0)
        }
        Command::Maintain { which, only, delete_orphans, accept_older_rows, dry_run } => {
            let options = maintain::Options { only: only.into_iter().collect(), dry_run, delete_orphans };
            maintain_all(&open().await?, &which, (&options, accept_older_rows), format).await
        }
        Command::Plan { which } => plan(&open().await?, &which, format).await,
        Command::Explain { which } => explain::explain(&config, &which, format).await,
        Command::Ddl { which, dry_run } => ddl(&config, &clock, &which, dry_run, format).await,
        Command::Reconcile { which, deep } => reconcile(&open().await?, &which, deep, format).await,
        Command::Erase(args) => Box::pin(erase::erase(&config, &clock, args, format)).await,
        Command::Check { offline } => check(&config, &clock, offline, format).await,
        Command::Config { .. } => {
            say(config::show(&config).trim_end())?;
            Ok(DONE)
        }
        Command::Inspect { what, which } => inspect::inspect(&open().await?, &which, what, format).await,
        Command::Pii { command } => pii::command(&open().await?, command, format).await,
        Command::Grants { dry_run } => grants::grants(&config, dry_run, format).await,
        // Carried out before the configuration is read.
        Command::Bench { .. }
        | Command::Completions { .. }
        | Command::Test(_)
        | Command::Functions { .. }
        | Command::Schema { .. } => Ok(DONE),
    }
}

/// The tables that are asked for.
pub fn targets<'a>(config: &'a Config, which: &Which) -> Result<Vec<Target<'a>>> {
    Target::select(config, which.pipeline.as_deref(), which.table.as_deref())
}

/// Runs each table, and says with which code it ended and what failed first.
async fn run_all(
    env: &Env,
    which: &Which,
    options: &Options,
    format: Format,
    wait: Duration,
) -> Result<(u8, Option<ErrorKind>)> {
    let (mut found, deadline) = (Findings::<RunReport>::new(), Instant::now() + wait);
    for target in targets(&env.config, which)? {
        if options.stop.is_cancelled() {
            break;
        }
        found.add(&target.name(), every::waiting(env, target, options, deadline).await);
    }
    found.print(format, ToString::to_string)?;
    let code = if found.good().any(|report| report.over_threshold.is_some()) {
        OVER_THRESHOLD
    } else if found.good().all(|report| report.outcome == Outcome::NothingToDo) {
        NOTHING_TO_DO
    } else {
        DONE
    };
    Ok((found.code_or(code), found.failure()))
}

/// Runs each table again and again; errors that may pass are told of and tried again, others end it.
async fn run_every(env: &Env, which: &Which, options: Options, format: Format, every: Duration) -> Result<u8> {
    let options = Options { stop: every::stop_on_signals()?, ..options };
    let turn = async || {
        let (code, failure) = run_all(env, which, &options, format, Duration::ZERO).await?;
        Ok((code, failure.is_none_or(ErrorKind::is_retryable)))
    };
    let ended = every::repeat(every, &options.stop, turn).await?;
    Ok(ended.unwrap_or(DONE))
}

/// Publishes or discards the branch of each table.
async fn end_branch(env: &Env, which: &Which, (name, publish): (&str, bool), format: Format) -> Result<u8> {
    let mut found = Findings::new();
    for target in targets(&env.config, which)? {
        let outcome =
            if publish { branch::publish(env, target, name).await } else { branch::discard(env, target, name).await };
        found.add(&target.name(), outcome);
    }
    found.print(format, ToString::to_string)?;
    let nothing = found.good().all(|report| report.outcome == branch::End::NothingToDo);
    Ok(found.code_or(if nothing { NOTHING_TO_DO } else { DONE }))
}

/// Maintains each table and its quarantine.
async fn maintain_all(
    env: &Env,
    which: &Which,
    (options, accept): (&maintain::Options, bool),
    format: Format,
) -> Result<u8> {
    let (mut found, mut settled) = (Findings::<maintain::Report>::new(), false);
    for target in targets(&env.config, which)? {
        if !options.dry_run {
            match settle(env, target, accept).await {
                Ok(done) => settled |= done,
                Err(error) => {
                    found.add(&target.name(), Err(error));
                    continue;
                }
            }
        }
        for subject in maintain::Subject::of(&target)? {
            let outcome = maintain::maintain(env, &subject, options).await;
            if let Some(outcome) = outcome.transpose() {
                found.add(&subject.ident.to_string(), outcome);
            }
        }
    }
    found.print(format, ToString::to_string)?;
    let code = if found.good().any(maintain::Report::gave_up) {
        exit_code(ErrorKind::Conflict)
    } else if found.good().all(maintain::Report::is_idle) && !settled {
        NOTHING_TO_DO
    } else {
        DONE
    };
    Ok(found.code_or(code))
}

/// Writes into the table what its protections need, and whether there was something to write.
async fn settle(env: &Env, target: Target<'_>, accept: bool) -> Result<bool> {
    let Some(table) = env.catalog.load(&target.ident()).await? else { return Ok(false) };
    Ok(protections::settle(env, target, &table, accept).await?.is_some())
}

async fn plan(env: &Env, which: &Which, format: Format) -> Result<u8> {
    let options = Options { dry_run: true, ..Options::default() };
    let (mut reports, mut plans) = (Findings::new(), Findings::new());
    for target in targets(&env.config, which)? {
        let name = target.name();
        match format {
            Format::Text => reports.add(&name, once::run(env, target, &options).await),
            Format::Json => {
                let planned = once::plan(env, target, &options).await;
                plans.add(&name, planned.map(|plan| serde_json::json!({"table": name, "plan": plan})));
            }
        }
    }
    match format {
        Format::Text => reports.print(format, ToString::to_string)?,
        Format::Json => plans.print(format, ToString::to_string)?,
    }
    Ok(reports.code_or(plans.code_or(DONE)))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Ddl {
    table: String,
    outcome: String,
    statement: String,
}

async fn ddl(config: &Arc<Config>, clock: &Arc<dyn Clock>, which: &Which, dry_run: bool, format: Format) -> Result<u8> {
    let env = if dry_run { None } else { Some(Env::open(Arc::clone(config), Arc::clone(clock)).await?) };
    let mut found = Findings::new();
    for target in targets(config, which)? {
        found.add(&target.name(), ddl_of(env.as_ref(), target).await);
    }
    found.print(format, |one: &Ddl| format!("-- {}: {}\n{}", one.table, one.outcome, one.statement))?;
    Ok(found.code_or(DONE))
}

/// Makes the table, unless there is no catalog to make it in.
async fn ddl_of(env: Option<&Env>, target: Target<'_>) -> Result<Ddl> {
    let definition = target.definition();
    definition.creation()?;
    let outcome = match env {
        None => "would be created unless it exists".to_owned(),
        Some(env) => match definition.ensure(&*env.catalog).await? {
            Created::New(_) => "created".to_owned(),
            Created::Existing(table) => {
                let differences = definition.differences(table.metadata());
                let exists = "exists, with these columns".to_owned();
                [exists].into_iter().chain(differences).collect::<Vec<_>>().join("; ")
            }
        },
    };
    let statement = inspect::ddl_text(&definition, &target.output.table);
    Ok(Ddl { table: target.name(), outcome, statement })
}

/// A difference matters more than a table that could not be looked at.
async fn reconcile(env: &Env, which: &Which, deep: bool, format: Format) -> Result<u8> {
    let mut found = Findings::new();
    for target in targets(&env.config, which)? {
        found.add(&target.name(), prove::reconcile(env, target, deep).await);
    }
    found.print(format, ToString::to_string)?;
    Ok(if found.good().all(prove::Proof::is_clean) { found.code_or(DONE) } else { DIFFERENCE })
}

/// What was found of a table, or of a key.
#[derive(Serialize)]
struct Checked {
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<KeyName>,
    found: String,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.table, &self.key) {
            (Some(table), _) => write!(f, "{table}: {}", self.found),
            (None, Some(key)) => write!(f, "key {key}: {}", self.found),
            (None, None) => f.write_str(&self.found),
        }
    }
}

/// Everything that a run would trip over before it reads a record.
async fn check(config: &Arc<Config>, clock: &Arc<dyn Clock>, offline: bool, format: Format) -> Result<u8> {
    let env = if offline { None } else { Some(Env::open(Arc::clone(config), Arc::clone(clock)).await?) };
    let mut found = Findings::new();
    if config.deployment.access.is_some()
        && let Err(error) = access::wanted(config)
    {
        found.add_error(&error);
    }
    for target in Target::select(config, None, None)? {
        let checked = check_table(env.as_ref(), target).await;
        found.add(&target.name(), checked.map(|found| Checked { table: Some(target.name()), key: None, found }));
    }
    for used in env.iter().flat_map(|env| env.keys.used()) {
        let what = used_up(&used);
        found.add(used.key.as_str(), Ok(Checked { table: None, key: Some(used.key.clone()), found: what }));
    }
    found.print(format, ToString::to_string)?;
    Ok(found.code_or(DONE))
}

/// How far the version in use is from its bound, and what to do about it.
fn used_up(used: &Used) -> String {
    let Used { version, values, .. } = used;
    used.warning().unwrap_or_else(|| format!("version {version} has used {values} of the 2^32 values that it may seal"))
}

async fn check_table(env: Option<&Env>, target: Target<'_>) -> Result<String> {
    match env {
        Some(env) => drop(target.conversion(env).await?),
        None => drop(target.check_steps().await?),
    }
    let definition = target.definition();
    definition.creation()?;
    target.quarantine()?.creation()?;
    let Some(env) = env else { return Ok("the configuration is good".to_owned()) };
    let topics = crate::plan::read::topics(&*env.raw().await?, &target.pipeline.ingestion).await?;
    let landed = if topics.is_empty() { "nothing landed yet".to_owned() } else { format!("{} topics", topics.len()) };
    match env.catalog.load(&definition.ident).await? {
        None => Ok(format!("good; the first run creates it at {}; {landed}", definition.location)),
        Some(table) => {
            compare(table.metadata().current_schema(), &definition.columns)?.check(&definition.ident)?;
            if let Some(what) = target.unreadable_by_athena(table.metadata()) {
                return Err(Error::config(what));
            }
            protections::keys_meet(env, target, &table).await?;
            let differences = definition.differences(table.metadata());
            let from_before = protections::left_plain(env, target, &table).await?;
            let all = ["good".to_owned(), landed].into_iter().chain(differences).chain(from_before);
            Ok(all.collect::<Vec<_>>().join("; "))
        }
    }
}
