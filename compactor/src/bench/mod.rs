//! Measuring the conversion: inputs, the three tasks, and the loop from bytes to Parquet with its parts timed.
//!
//! `generate` repeats sample events with shifted times and new ids, as plain NDJSON or as a raw zone; `infer` proposes
//! columns for JSON; `tasks` holds the columns of T1, T2 and T3; `convert` reads, decodes and encodes, and prints one line
//! of JSON with rows, bytes and CPU seconds. `benches/compare` runs it beside its peers. `planning` measures the table
//! layer on a table of many files, `ledger` planning on a raw zone of many objects. `rows` writes what `benches/upsert`
//! loads and upserts beside Spark. `compact` measures a compaction. `plugins` runs steps of ours beside the same ones in
//! WebAssembly. `usage` says what each of their steps took.

mod compact;
mod convert;
mod generate;
mod infer;
mod ledger;
mod lines;
mod planning;
mod plugins;
mod protect;
mod rows;
mod tasks;
mod usage;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand, ValueEnum};

pub use self::compact::{Compact, CompactFigures, compact};
pub use self::convert::{Figures, Options, Stage, convert};
pub use self::generate::{Sample, generate, generate_raw};
pub use self::infer::infer;
pub use self::ledger::{LedgerFigures, LedgerOptions, ledger};
pub use self::planning::{Planning, PlanningFigures, planning};
pub use self::plugins::{PluginStep, Plugins, PluginsFigures, plugins};
pub use self::rows::{Rows, Which, rows};
pub use self::tasks::{Task, columns, read_columns, write_columns};

/// `compactor bench …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write an input of any size from sample events, with shifted times and new ids.
    Generate(Generate),
    /// Propose columns, with types, for newline-delimited JSON.
    Infer(Infer),
    /// Convert newline-delimited JSON, or raw objects, to Parquet and print rows, bytes and CPU seconds.
    Convert(Convert),
    /// Compact a table of many small files with deleted rows, and print bytes and CPU seconds.
    Compact(Compact),
    /// Plan and commit an upsert on a table of many files, and print seconds and memory.
    Planning(Planning),
    /// Write a raw zone of rows with keys, or newer versions of a hundredth of them.
    Rows(Rows),
    /// Plan on a raw zone of many objects, and print seconds and memory.
    Ledger(LedgerOptions),
    /// Run steps as functions of ours and as functions of a plug-in, and print CPU seconds of both.
    Plugins(Plugins),
}

/// `compactor bench generate`
#[derive(Debug, Args)]
pub struct Generate {
    /// Which sample, and how its times and ids are found.
    #[arg(long, value_enum)]
    pub sample: Sample,
    /// The sample events, newline-delimited JSON, zstd when the name ends in `.zst`.
    #[arg(long)]
    pub from: PathBuf,
    /// Bytes of JSON to write; the last repetition is written whole.
    #[arg(long, default_value_t = 500_000_000)]
    pub bytes: u64,
    /// Only sample events of at least so many bytes.
    #[arg(long, default_value_t = 0)]
    pub events_from: usize,
    /// What the shifts are drawn from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The file to write, or with `--raw` the directory of a raw zone.
    #[arg(long)]
    pub to: PathBuf,
    /// Write raw objects with envelopes and manifests instead of plain JSON.
    #[arg(long)]
    pub raw: bool,
}

/// `compactor bench infer`
#[derive(Debug, Args)]
pub struct Infer {
    /// Newline-delimited JSON, zstd when the name ends in `.zst`.
    pub from: PathBuf,
}

/// `compactor bench convert`
#[derive(Debug, Args)]
pub struct Convert {
    /// Newline-delimited JSON, or the directory of a raw zone.
    #[arg(long)]
    pub from: PathBuf,
    /// The columns.
    #[arg(long, value_enum, required_unless_present = "columns")]
    pub task: Option<Task>,
    /// The columns, from a file that `infer` wrote.
    #[arg(long, conflicts_with = "task")]
    pub columns: Option<PathBuf>,
    /// How much of the work to do.
    #[arg(long, value_enum, default_value_t = Stage::All)]
    pub stage: Stage,
    /// Threads, each with its part of the input and a file of its own.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Add the provenance column.
    #[arg(long)]
    pub provenance: bool,
    /// Run a dozen typical steps over the columns of T1.
    #[arg(long, requires = "task")]
    pub steps: bool,
    /// Protect this column: `NAME` is encrypted with a token beside it; or `NAME=encrypt`, `NAME=token`, `NAME=hash`.
    #[arg(long, value_name = "NAME")]
    pub protect: Vec<String>,
    /// zstd level of the Parquet pages.
    #[arg(long, default_value_t = 3)]
    pub level: i32,
    /// A batch is encoded at this many bytes; every column has its price per batch.
    #[arg(long, default_value_t = 16 << 20)]
    pub batch_bytes: usize,
    /// Directory of the table that the rows go to; needed unless `--stage` stops before encoding.
    #[arg(long)]
    pub to: Option<PathBuf>,
}

/// Runs a subcommand.
///
/// # Errors
/// Files that cannot be read or written, samples that are not what they should be, raw lines that are no envelopes.
pub fn run(command: Command) -> Result<()> {
    match command {
        Command::Generate(args) => {
            let sample = lines::read_sample(&args.from)?;
            let large: Vec<&[u8]> = lines::lines(&sample).filter(|event| event.len() >= args.events_from).collect();
            let sample = large.join(&b'\n');
            let bytes = if args.raw {
                generate_raw(args.sample, &sample, args.bytes, args.seed, &args.to)?
            } else {
                generate(args.sample, &sample, args.bytes, args.seed, &args.to)?
            };
            println!("{bytes} bytes of JSON in {}", args.to.display());
        }
        Command::Infer(args) => print!("{}", write_columns(&infer(&lines::read_sample(&args.from)?)?)),
        Command::Convert(args) => {
            ensure!(args.threads > 0, "a conversion needs at least one thread");
            let columns = match (&args.task, &args.columns) {
                (Some(task), _) => columns(*task)?,
                (None, Some(path)) => {
                    let text =
                        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
                    read_columns(&text)?
                }
                (None, None) => Vec::new(),
            };
            let options = Options {
                columns,
                stage: args.stage,
                threads: args.threads,
                provenance: args.provenance,
                steps: args.steps,
                protect: args.protect,
                level: args.level,
                batch_bytes: args.batch_bytes,
                to: args.to,
            };
            println!("{}", serde_json::to_string(&convert(&args.from, &options)?)?);
        }
        Command::Rows(args) => println!("{} rows in {}", rows(&args)?, args.to.display()),
        Command::Compact(args) => println!("{}", serde_json::to_string(&compact(&args)?)?),
        Command::Ledger(args) => println!("{}", serde_json::to_string(&ledger(&args)?)?),
        Command::Plugins(args) => println!("{}", serde_json::to_string(&plugins(&args)?)?),
        Command::Planning(args) => println!("{}", serde_json::to_string(&planning(&args)?)?),
    }
    Ok(())
}

/// The name of a value as the command line spells it.
fn spelled(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned())
}
