//! `landing run | check | config show | status | completions`.
//!
//! Exit codes: 0 done, 1 run again later, 2 a person must change the configuration, 70 a bug of ours.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser, Subcommand};
use firn_shared::cli::{self, Format};
use firn_shared::config::{self, Config};
use firn_shared::error::{Error, Result};
use firn_shared::functions::Functions;
use firn_shared::ids::PipelineName;
use firn_shared::store::{Store, Stores};
use firn_shared::telemetry;

use crate::daemon::{Options, run};
use crate::memory::Shares;
use crate::status;

/// Takes records from Kafka into the raw zone, exactly once.
#[derive(Debug, Parser)]
#[command(name = "landing", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Path of firn.yaml.
    #[arg(long, global = true, default_value = "firn.yaml")]
    config: PathBuf,
    /// Pipeline files, or directories of them; may be given several times.
    #[arg(long, global = true, default_value = "pipelines")]
    pipelines: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Land until told to stop (SIGTERM, SIGINT).
    Run {
        /// End once everything that Kafka held at the start is in the raw zone.
        #[arg(long)]
        until_caught_up: bool,
        /// Only this pipeline.
        #[arg(long)]
        pipeline: Option<PipelineName>,
        /// Threads for validation and compression; 0 is one per processor.
        #[arg(long, default_value_t = 0)]
        threads: usize,
    },
    /// Check all files; then ask the clusters for the topics and their retention, and the raw zone for a listing.
    Check {
        /// Only the files: ask no server.
        #[arg(long)]
        offline: bool,
    },
    /// Show the configuration as it is understood.
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// Show per partition how far the raw zone is, how far Kafka is, what lies between, and the watermark.
    Status {
        /// Only this pipeline.
        #[arg(long)]
        pipeline: Option<PipelineName>,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        output: Format,
    },
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print it with defaults filled in and secrets masked.
    Show,
}

/// Runs the command line and returns the exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::tell("landing", &error, Format::Text);
            ExitCode::from(cli::exit_code(error.kind()))
        }
    }
}

fn execute(cli: Cli) -> Result<()> {
    if let Command::Completions { shell } = cli.command {
        return cli::completions(Cli::command(), shell);
    }
    // Steps are the compactor's work; functions of somebody's own are known to their compactor alone.
    let config = config::load_with(&cli.config, &cli.pipelines, &Functions::built_in().open())?;
    telemetry::start(&config.deployment.telemetry)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("landing-io")
        .build()
        .map_err(|e| Error::unavailable("cannot start the runtime").with_source(e))?;
    runtime.block_on(command(cli.command, &config))
}

async fn command(command: Command, config: &Config) -> Result<()> {
    match command {
        Command::Run { until_caught_up, pipeline, threads } => {
            let attempts = until_caught_up.then_some(5);
            let options = Options { until_caught_up, pipeline, threads, attempts, ..Options::default() };
            let summary = run(config, raw_zone(config).await?, options, cli::asked_to_stop()?).await?;
            cli::say_json(&summary)
        }
        Command::Check { offline } => {
            if config.pipelines.is_empty() {
                return Err(Error::config("there is no pipeline in the files of --pipelines"));
            }
            let consumers = config.pipelines.values().map(|p| p.ingestion.consumers.max(1)).sum();
            Shares::of(config.deployment.landing.memory, consumers)?;
            if !offline {
                status::check(config, raw_zone(config).await?).await?;
            }
            let count = config.pipelines.len();
            cli::say(&format!("good: {count} {}", if count == 1 { "pipeline" } else { "pipelines" }))
        }
        Command::Config { what: ConfigCommand::Show } => cli::say(config::show(config).trim_end()),
        Command::Status { pipeline, output } => {
            let status = status::read(config, raw_zone(config).await?, pipeline.as_ref()).await?;
            match output {
                Format::Json => cli::say_json(&status),
                Format::Text => cli::say(status::table(&status).trim_end()),
            }
        }
        Command::Completions { .. } => Ok(()),
    }
}

async fn raw_zone(config: &Config) -> Result<Arc<dyn Store>> {
    Stores::new(config.deployment.s3.clone()).open(&config.deployment.raw).await
}
