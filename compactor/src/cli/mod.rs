//! `compactor run | reprocess | maintain | plan | explain | ddl | reconcile | erase | check | test | functions | schema | pii |
//! grants | config show | inspect | bench | completions`.
//!
//! Arguments are declared here, [`commands`] carries them out, [`inspect`] shows a table. What a command found, or why it
//! did not, is collected table by table ([`findings`]) and printed on standard output, for people or as JSON; logs and errors
//! go to standard error. The exit code follows from the kind
//! of the first failure: see [`exit_code`].

mod commands;
mod erase;
mod explain;
mod findings;
mod functions;
mod grants;
mod inspect;
mod pii;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use firn_shared::cli::{
    DIFFERENCE, DONE, Format, NOTHING_TO_DO, OVER_THRESHOLD, PERSONAL_DATA, TESTS_FAILED, completions, exit_code,
};
use firn_shared::clock::SystemClock;
use firn_shared::config;
use firn_shared::error::{Error, Result};
use firn_shared::functions::{Function, Functions};
use firn_shared::ids::EventHour;
use firn_shared::telemetry;

use crate::bench;
use crate::maintain::Part;
use crate::run::branch;

/// The deployment that is taken when none is given.
const FIRN_YAML: &str = "firn.yaml";

/// Takes the raw zone into Iceberg tables, one atomic commit a run.
#[derive(Debug, Parser)]
#[command(name = "compactor", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Path of firn.yaml [default: firn.yaml; of `test`: beside the pipeline or its folder].
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    /// Pipeline files, or directories of them; may be given several times.
    #[arg(long, global = true, default_value = "pipelines")]
    pipelines: Vec<PathBuf>,
    /// How to print what was found.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// Which tables.
#[derive(Debug, Clone, Args)]
pub struct Which {
    /// Only this pipeline.
    #[arg(long)]
    pipeline: Option<String>,
    /// Only this table, `table` or `database.table`.
    #[arg(long)]
    table: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take everything new into the tables.
    Run {
        #[command(flatten)]
        which: Which,
        /// Run only when every event hour of this date is sealed in every partition, else end with 1; the date is then
        /// marked in the table. 2026-11-22, or T-1D for yesterday (UTC).
        #[arg(long, value_name = "DATE")]
        event_date: Option<String>,
        /// Wait up to this long for the date to be complete, such as 30m.
        #[arg(long, value_name = "DURATION", value_parser = duration, requires = "event_date")]
        wait: Option<Duration>,
        /// Stay, and run again after this time, such as 1h, until SIGTERM; the commit in progress then finishes. Exit
        /// codes 2, 3 and 70 end it, others do not.
        #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with_all = ["event_date", "dry_run"])]
        every: Option<Duration>,
        /// Show the plan and change nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Convert the raw objects of a range of event hours again, and replace exactly their rows.
    Reprocess {
        #[command(flatten)]
        which: Which,
        /// First event hour, such as 2026-11-22T07 (UTC).
        #[arg(long, value_name = "HOUR", required_unless_present = "branch_end")]
        from: Option<EventHour>,
        /// First event hour after the range.
        #[arg(long, value_name = "HOUR", required_unless_present = "branch_end")]
        to: Option<EventHour>,
        /// Show the plan and change nothing.
        #[arg(long)]
        dry_run: bool,
        /// Leave the table as it is: write to a branch, and report which rows are added, removed and changed, by column.
        #[arg(long, conflicts_with = "dry_run")]
        diff: bool,
        #[command(flatten)]
        end: BranchEnd,
        /// The branch of --diff, --publish and --discard.
        #[arg(long, value_name = "NAME", value_parser = branch_name, default_value = branch::BRANCH)]
        branch: String,
    },
    /// Make tables fast and small: compact files, merge manifests, expire snapshots, find orphans, show sizes.
    Maintain {
        #[command(flatten)]
        which: Which,
        /// Only these parts; else all of them, in this order.
        #[arg(long, value_enum, value_delimiter = ',', value_name = "PARTS")]
        only: Vec<Part>,
        /// Delete the files that nothing names; else they are only shown, unless the configuration says otherwise.
        #[arg(long, conflicts_with = "dry_run")]
        delete_orphans: bool,
        /// Rows and snapshots from before a protection may stay as they are, or are gone: warn of them no more.
        #[arg(long, conflicts_with = "dry_run")]
        accept_older_rows: bool,
        /// Show what would be done and change nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Show which raw objects and event hours `run` would take, and change nothing.
    Plan {
        #[command(flatten)]
        which: Which,
    },
    /// Show the columns after every step and in the table, what works on them, and the plans of Polars.
    Explain {
        #[command(flatten)]
        which: Which,
    },
    /// Create the tables from their columns in YAML; tables that exist are compared with them.
    Ddl {
        #[command(flatten)]
        which: Which,
        /// Print the DDL and create nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Prove that every offset landed is a row, in quarantine, or left out for a stated reason.
    Reconcile {
        #[command(flatten)]
        which: Which,
        /// Compare the offsets in the rows with those of the raw objects, one by one.
        #[arg(long)]
        deep: bool,
    },
    /// Erase the personal data of one data subject from raw zone, tables, quarantine and old snapshots, and destroy their
    /// keys.
    ///
    /// Protected values of columns with a `subject` go, tokens included; rows and records stay. After an interruption the
    /// same command goes on. Exit code 1: another erasure is at work, or others kept changing a table; run again. Exit code
    /// 99: nothing of the subject was found.
    Erase(erase::EraseArgs),
    /// Check all files; then ask catalog, raw zone and tables whether a run could begin.
    Check {
        /// Only the files: ask no server, but a store for plug-ins that are in one.
        #[arg(long)]
        offline: bool,
    },
    /// Look for personal data.
    Pii {
        #[command(subcommand)]
        command: pii::PiiCommand,
    },
    /// Make the roles of `access` in firn.yaml permissions of AWS Lake Formation; prints what it grants (+) and revokes (-).
    Grants {
        /// Print the difference and change nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Run the tests of pipelines (`*.test.yaml`), without any server; only plug-ins and look-up files may be in a store.
    Test(test::TestArgs),
    /// List the functions that steps may call, those of plug-ins in firn.yaml among them, or describe one.
    Functions {
        /// The function to describe.
        name: Option<String>,
    },
    /// Print a JSON Schema for editors, with the functions of this program and of plug-ins in firn.yaml.
    Schema {
        /// Of which file.
        #[arg(value_enum)]
        what: functions::What,
    },
    /// Show the configuration as it is understood.
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// Show a table's snapshots, files, or consumed offsets.
    Inspect {
        /// What to show.
        #[arg(value_enum)]
        what: inspect::What,
        #[command(flatten)]
        which: Which,
    },
    /// Measure the conversion.
    Bench {
        #[command(subcommand)]
        command: bench::Command,
    },
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// What becomes of a branch that `--diff` made.
#[derive(Debug, Clone, Copy, Args)]
#[group(id = "branch_end", multiple = false, conflicts_with_all = ["from", "to", "dry_run", "diff"])]
pub struct BranchEnd {
    /// Make the branch the table, if the table has not changed since.
    #[arg(long)]
    publish: bool,
    /// Drop the branch.
    #[arg(long)]
    discard: bool,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print it with defaults filled in and secrets masked.
    Show,
}

fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<config::units::Period>().map(|period| period.0).map_err(|e| e.to_string())
}

fn branch_name(text: &str) -> Result<String, String> {
    branch::name(text).map_err(|e| e.to_string())
}

/// Runs the command line and returns the exit code.
pub fn main() -> ExitCode {
    main_with(&[])
}

/// As [`main`], with functions of somebody's own for the steps of pipelines.
pub fn main_with(own: &'static [Function]) -> ExitCode {
    crate::seam::quiet_panics();
    let cli = Cli::parse();
    let format = cli.output;
    let functions = Functions::built_in().loading(crate::plugin::load).with(own);
    match functions.and_then(|functions| execute(cli, &functions)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            tell(&error, format);
            ExitCode::from(exit_code(error.kind()))
        }
    }
}

/// Prints an error with its causes.
fn tell(error: &Error, format: Format) {
    firn_shared::cli::tell("compactor", error, format);
}

fn execute(cli: Cli, functions: &Functions) -> Result<u8> {
    match cli.command {
        Command::Completions { shell } => {
            completions(Cli::command(), shell)?;
            return Ok(DONE);
        }
        Command::Test(args) => {
            return test::test(args, (cli.config, cli.pipelines), functions.clone(), cli.output);
        }
        Command::Functions { name } => {
            return functions::functions(cli.config.as_deref(), name.as_deref(), functions, cli.output);
        }
        Command::Schema { what } => return functions::schema(cli.config.as_deref(), what, functions),
        Command::Bench { command } => {
            return match bench::run(command) {
                Ok(()) => Ok(DONE),
                Err(error) => {
                    let kind = firn_shared::error::kind_of(&error);
                    Err(Error::new(kind, format!("{error:#}")))
                }
            };
        }
        _ => {}
    }
    let firn = cli.config.unwrap_or_else(|| FIRN_YAML.into());
    let config = Arc::new(config::load_with(&firn, &cli.pipelines, functions)?);
    telemetry::start(&config.deployment.telemetry)?;
    // Before any thread starts: Polars takes the size of its pool from the environment.
    crate::transform::bound_threads(config.deployment.compactor.threads);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("compactor-io")
        .build()
        .map_err(|e| Error::unavailable("cannot start the runtime").with_source(e))?;
    runtime.block_on(commands::command(cli.command, cli.output, config, Arc::new(SystemClock)))
}

#[cfg(test)]
mod tests;
