//! `./quickstart`: the embedded stack in one process. A broker in memory, local files, a SQLite catalog, and between them
//! the same `landing` and `compactor` that run in production, here as libraries.
//!
//! [`broker`] holds the events, [`deployment`] writes the configuration, [`show`] reads the table back.

mod broker;
mod deployment;
mod show;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use firn_compactor::run::{self, Env, Target};
use firn_shared::clock::SystemClock;
use firn_shared::config;
use firn_shared::config::domain::TelemetryOptions;
use firn_shared::store::Stores;
use firn_shared::telemetry;
use indicatif::{ProgressBar, ProgressStyle};

use broker::Broker;

/// The sample: 800 events of GitHub's public timeline.
const EVENTS: &[u8] = include_bytes!("../../tests/fixtures/github-events.ndjson.zst");
const TOPIC: &str = "github.events";
const PARTITIONS: i32 = 3;

/// Takes 800 real events from a broker to an Iceberg table, on this machine and without a server.
#[derive(Debug, Parser)]
#[command(name = "quickstart")]
struct Cli {
    /// Where the results go; emptied when an earlier quickstart made it.
    #[arg(long, default_value = ".firn")]
    dir: PathBuf,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.context("cannot start the runtime").and_then(|runtime| runtime.block_on(quickstart(&cli.dir))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn quickstart(dir: &Path) -> Result<()> {
    let started = Instant::now();
    let text = String::from_utf8(zstd::decode_all(EVENTS)?)?;
    let events: Vec<&str> = text.lines().collect();

    let step = Step::begin(1, "produce", "events into an in-process broker", events.len() as u64);
    let broker = Broker::start(TOPIC, PARTITIONS)?;
    broker.produce(TOPIC, PARTITIONS, &events, |done| step.bar.set_position(done))?;
    step.end(&format!("{} events in {PARTITIONS} partitions of {TOPIC}", events.len()));
    let dir = deployment::prepare(dir, &broker.address())?;
    let config = config::load(&dir.join("firn.yaml"), &[dir.join("pipelines")]).map_err(|p| anyhow::anyhow!("{p}"))?;

    telemetry::start(&TelemetryOptions { log: "error".into(), ..config.deployment.telemetry.clone() })?;

    let step = Step::begin(2, "land", "from Kafka to the raw zone", 0);
    let stores = Stores::new(config.deployment.s3.clone());
    let raw = stores.open(&config.deployment.raw).await?;
    let options =
        firn_landing::Options { until_caught_up: true, attempts: Some(5), topic_ids: false, ..Default::default() };
    let landed = firn_landing::run(&config, raw, options, std::future::pending()).await?;
    let (records, objects, batches) =
        landed.pipelines.values().fold((0, 0, 0), |sum, p| (sum.0 + p.records, sum.1 + p.objects, sum.2 + p.batches));
    step.end(&format!("{records} records in {objects} objects, {batches} batches in the ledger"));

    let step = Step::begin(3, "compact", "from the raw zone to the table", 0);
    let mut env = Env::open(Arc::new(config), Arc::new(SystemClock)).await?;
    env.bars = false;
    let targets = Target::select(&env.config, None, None)?;
    let target = *targets.first().context("the example has a table")?;
    let report = run::run(&env, target, &run::Options::default()).await?;
    step.end(&format!("{} rows of {} in one snapshot", report.fate.rows, target.name()));

    let step = Step::begin(4, "reconcile", "every offset against the rows", 0);
    let proof = run::prove::reconcile(&env, target, true).await?;
    step.end(&format!("difference {}", proof.account.difference()));

    let contents = show::read(env.catalog.as_ref(), &target).await?;
    print(&contents, &dir, &target.name());
    ensure!(proof.is_clean(), "the accounts do not agree:\n{proof}");
    ensure!(contents.types.values().sum::<u64>() == events.len() as u64, "the table does not have every event");
    println!(
        "Done in {:.1} s. Run it again as you like; {} is made anew each time.",
        started.elapsed().as_secs_f64(),
        dir.display()
    );
    Ok(())
}

fn print(contents: &show::Contents, dir: &Path, table: &str) {
    println!("\n{table} per hour of the event");
    for (hour, rows) in &contents.hours {
        println!("  {hour}:00Z  {rows:>4}");
    }
    println!("{table} per type");
    let mut types: Vec<(&String, &u64)> = contents.types.iter().collect();
    types.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    for (name, rows) in types {
        println!("  {name:<30} {rows:>4}");
    }
    println!("\nWhere everything is");
    for (what, path) in [
        ("raw zone", "raw/events/github.events"),
        ("ledger", "raw/events/github.events/_batches"),
        ("table", "warehouse/github/events"),
        ("catalog", "catalog.db"),
        ("configuration", "firn.yaml"),
    ] {
        println!("  {what:<14} {}", dir.join(path).display());
    }
    println!("\nAsk the table yourself, for example with DuckDB");
    println!("  INSTALL iceberg; LOAD iceberg;");
    println!("  SELECT type, count(*) FROM iceberg_scan('{}') GROUP BY 1 ORDER BY 2 DESC;\n", contents.metadata);
}

/// A step on the terminal: what is going on, then what came of it and how long it took.
struct Step {
    bar: ProgressBar,
    head: String,
    started: Instant,
}

impl Step {
    fn begin(number: u32, name: &str, what: &str, length: u64) -> Self {
        let head = format!("[{number}/4] {name:<10}");
        let (bar, template) = match length {
            0 => (ProgressBar::new_spinner(), "{prefix} {spinner} {msg}"),
            _ => (ProgressBar::new(length), "{prefix} {bar:30} {pos}/{len} {msg}"),
        };
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(head.clone());
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, head, started: Instant::now() }
    }

    fn end(self, outcome: &str) {
        self.bar.finish_and_clear();
        println!("{} {outcome} ({:.1} s)", self.head, self.started.elapsed().as_secs_f64());
    }
}
