//! Each command: environment in, printed findings and exit code out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use firn_shared::cli::{say, say_json};
use firn_shared::clock::Clock;
use firn_shared::config::{self, Config};
use firn_shared::error::{Error, ErrorKind, Result};
use serde::Serialize;

use super::{
    Command, DIFFERENCE, DONE, Format, NOTHING_TO_DO, OVER_THRESHOLD, Which, erase, exit_code, explain, grants,
    inspect, pii, tell,
};
use crate::run::{Env, Options, Outcome, RunReport, Target, branch, dates, every, once, prove};
use crate::table::catalog::Created;
use crate::table::schema::compare;
use crate::{access, maintain};

/// Dates are asked again this often while `--wait` lasts.
const ASK_AGAIN: Duration = Duration::from_secs(30);

pub async fn command(command: Command, format: Format, config: Arc<Config>, clock: Arc<dyn Clock>) -> Result<u8> {
    let open = || Env::open(Arc::clone(&config), Arc::clone(&clock));
    match command {
        Command::Run { which, event_date, wait, every, dry_run } => {
            let env = open().await?;
            let date = event_date.map(|text| dates::parse(&text, clock.now().date_naive())).transpose()?;
            let options = Options { event_date: date, dry_run, ..Options::default() };
            match every {
                Some(every) => Box::pin(run_every(&env, &which, &options, format, every)).await,
                None => run_all(&env, &which, &options, format, wait.unwrap_or_default()).await,
            }
        }
        Command::Reprocess { which, end, branch, .. } if end.publish || end.discard => {
            end_branch(&open().await?, &which, (&branch, end.publish), format).await
        }
        Command::Reprocess { which, from, to, dry_run, diff, branch, .. } => {
            let branch = diff.then_some(branch);
            let options = Options { hours: from.zip(to), dry_run, branch, ..Options::default() };
            run_all(&open().await?, &which, &options, format, Duration::ZERO).await
        }
        Command::Maintain { which, only, delete_orphans, dry_run } => {
            let options = maintain::Options { only: only.into_iter().collect(), dry_run, delete_orphans };
            maintain_all(&open().await?, &which, &options, format).await
        }
        Command::Plan { which } => plan(&open().await?, &which, format).await,
        Command::Explain { which } => explain::explain(&config, &which, format).await,
        Command::Ddl { which, dry_run } => ddl(&config, &clock, &which, dry_run, format).await,
        Command::Reconcile { which, deep } => reconcile(&open().await?, &which, deep, format).await,
        Command::Erase(args) => Box::pin(erase::erase(&open().await?, args, format)).await,
        Command::Check { offline } => check(&config, &clock, offline, format).await,
        Command::Config { .. } => {
            say(config::show(&config).trim_end())?;
            Ok(DONE)
        }
        Command::Inspect { what, which } => inspect::inspect(&open().await?, &which, what, format).await,
        Command::Pii { command } => pii::command(&open().await?, command, format).await,
        Command::Grants { dry_run } => grants::grants(&config, dry_run, format).await,
        Command::Bench { .. } | Command::Completions { .. } | Command::Test(_) => Ok(DONE),
    }
}

/// Prints findings; as JSON a list, one entry a table.
pub fn print<T: Serialize>(format: Format, found: &[T], text: impl Fn(&T) -> String) -> Result<()> {
    match format {
        Format::Json => say_json(found),
        Format::Text => found.iter().try_for_each(|one| say(&text(one))),
    }
}

/// Runs each table; one that fails does not keep the others from running. The first failure decides the exit code.
async fn run_all(env: &Env, which: &Which, options: &Options, format: Format, wait: Duration) -> Result<u8> {
    let targets = Target::select(&env.config, which.pipeline.as_deref(), which.table.as_deref())?;
    let (mut reports, mut failure): (Vec<RunReport>, Option<ErrorKind>) = (Vec::new(), None);
    let deadline = Instant::now() + wait;
    for target in targets {
        if options.stop.is_cancelled() {
            break;
        }
        match run_waiting(env, target, options, deadline).await {
            Ok(report) => reports.push(report),
            Err(error) => {
                tell(&error, Format::Text);
                failure.get_or_insert(error.kind());
            }
        }
    }
    print(format, &reports, ToString::to_string)?;
    if let Some(kind) = failure {
        return Ok(exit_code(kind));
    }
    Ok(if reports.iter().any(|r| r.over_threshold.is_some()) {
        OVER_THRESHOLD
    } else if reports.iter().all(|r| r.outcome == Outcome::NothingToDo) {
        NOTHING_TO_DO
    } else {
        DONE
    })
}

/// Publishes or discards the branch of each table; one that fails does not keep the others from it.
async fn end_branch(env: &Env, which: &Which, (name, publish): (&str, bool), format: Format) -> Result<u8> {
    let (mut reports, mut failed) = (Vec::new(), None);
    for target in Target::select(&env.config, which.pipeline.as_deref(), which.table.as_deref())? {
        let outcome =
            if publish { branch::publish(env, target, name).await } else { branch::discard(env, target, name).await };
        match outcome {
            Ok(report) => reports.push(report),
            Err(error) => {
                tell(&error, Format::Text);
                failed.get_or_insert(error.kind());
            }
        }
    }
    print(format, &reports, ToString::to_string)?;
    let nothing = reports.iter().all(|report| report.outcome == branch::End::NothingToDo);
    Ok(failed.map_or(if nothing { NOTHING_TO_DO } else { DONE }, exit_code))
}

/// Asks again until the deadline while the date is open.
async fn run_waiting(env: &Env, target: Target<'_>, options: &Options, deadline: Instant) -> Result<RunReport> {
    loop {
        match once::run(env, target, options).await {
            Err(error)
                if error.kind() == ErrorKind::Unavailable
                    && options.event_date.is_some()
                    && Instant::now() < deadline =>
            {
                tracing::info!(reason = %error, "waiting");
                let left = deadline.saturating_duration_since(Instant::now());
                tokio::time::sleep(ASK_AGAIN.min(left)).await;
            }
            outcome => return outcome,
        }
    }
}

/// Errors that may pass are reported and tried again at the next turn; others end the loop.
async fn run_every(env: &Env, which: &Which, options: &Options, format: Format, every: Duration) -> Result<u8> {
    let stop = every::stop_on_signals()?;
    let options = Options { stop: stop.clone(), ..options.clone() };
    loop {
        let code = run_all(env, which, &options, format, Duration::ZERO).await?;
        if !matches!(code, DONE | NOTHING_TO_DO | OVER_THRESHOLD | 1) {
            return Ok(code);
        }
        if !every::pause(every, &stop).await {
            return Ok(DONE);
        }
    }
}

/// Maintains each table and its quarantine; one that fails does not keep the others from it.
async fn maintain_all(env: &Env, which: &Which, options: &maintain::Options, format: Format) -> Result<u8> {
    let (mut reports, mut failure): (Vec<maintain::Report>, Option<Error>) = (Vec::new(), None);
    for target in Target::select(&env.config, which.pipeline.as_deref(), which.table.as_deref())? {
        for subject in maintain::Subject::of(&target)? {
            match maintain::maintain(env, &subject, options).await {
                Ok(report) => reports.extend(report),
                Err(error) => {
                    if let Some(earlier) = failure.replace(error) {
                        tell(&earlier, Format::Text);
                    }
                }
            }
        }
    }
    print(format, &reports, ToString::to_string)?;
    if let Some(error) = failure {
        tell(&error, Format::Text);
        return Ok(exit_code(error.kind()));
    }
    Ok(if reports.iter().any(maintain::Report::gave_up) {
        exit_code(ErrorKind::Conflict)
    } else if reports.iter().all(maintain::Report::is_idle) {
        NOTHING_TO_DO
    } else {
        DONE
    })
}

async fn plan(env: &Env, which: &Which, format: Format) -> Result<u8> {
    let mut reports = Vec::new();
    let mut plans = Vec::new();
    for target in Target::select(&env.config, which.pipeline.as_deref(), which.table.as_deref())? {
        if format == Format::Json {
            let plan = once::plan(env, target, &Options { dry_run: true, ..Options::default() }).await?;
            plans.push(serde_json::json!({"table": target.name(), "plan": plan}));
        } else {
            reports.push(once::run(env, target, &Options { dry_run: true, ..Options::default() }).await?);
        }
    }
    match format {
        Format::Json => print(format, &plans, ToString::to_string)?,
        Format::Text => print(format, &reports, ToString::to_string)?,
    }
    Ok(DONE)
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
    let mut found = Vec::new();
    for target in Target::select(config, which.pipeline.as_deref(), which.table.as_deref())? {
        let definition = target.definition();
        definition.creation()?;
        let outcome = match &env {
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
        found.push(Ddl { table: target.name(), outcome, statement });
    }
    print(format, &found, |one| format!("-- {}: {}\n{}", one.table, one.outcome, one.statement))?;
    Ok(DONE)
}

async fn reconcile(env: &Env, which: &Which, deep: bool, format: Format) -> Result<u8> {
    let mut proofs = Vec::new();
    for target in Target::select(&env.config, which.pipeline.as_deref(), which.table.as_deref())? {
        proofs.push(prove::reconcile(env, target, deep).await?);
    }
    print(format, &proofs, ToString::to_string)?;
    Ok(if proofs.iter().all(prove::Proof::is_clean) { DONE } else { DIFFERENCE })
}

#[derive(Serialize)]
struct Checked {
    table: String,
    found: String,
}

/// Everything that a run would trip over before it reads a record.
async fn check(config: &Arc<Config>, clock: &Arc<dyn Clock>, offline: bool, format: Format) -> Result<u8> {
    let env = if offline { None } else { Some(Env::open(Arc::clone(config), Arc::clone(clock)).await?) };
    let (mut found, mut failure) = (Vec::new(), None);
    if config.deployment.access.is_some()
        && let Err(error) = access::wanted(config)
    {
        tell(&error, Format::Text);
        failure = Some(error.kind());
    }
    for target in Target::select(config, None, None)? {
        match check_table(env.as_ref(), target).await {
            Ok(text) => found.push(Checked { table: target.name(), found: text }),
            Err(error) => {
                tell(&error, Format::Text);
                failure.get_or_insert(error.kind());
            }
        }
    }
    print(format, &found, |one| format!("{}: {}", one.table, one.found))?;
    Ok(failure.map_or(DONE, exit_code))
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
            let differences = definition.differences(table.metadata());
            Ok(["good".to_owned(), landed].into_iter().chain(differences).collect::<Vec<_>>().join("; "))
        }
    }
}
