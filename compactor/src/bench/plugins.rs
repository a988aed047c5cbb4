//! What a step costs as a plug-in: steps of ours, and beside each the same in WebAssembly, on the columns of T1.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use arrow_array::RecordBatch;
use clap::Args;
use firn_shared::config::domain::{Column, PluginLimits, PluginSpec, StoreUrl};
use firn_shared::functions::{self, Functions};
use firn_shared::ids::PluginName;
use serde::Serialize;

use super::convert::{BATCH_ROWS, thread_cpu_seconds};
use super::lines::{each_line, part};
use super::tasks::{self, Task, listed};
use crate::decode::Decoder;
use crate::plugin;
use crate::transform::{References, Transformer};

/// The plug-in, of `benches/steps.c`.
const FILE: &[u8] = include_bytes!("../../benches/steps.wasm");
/// Its name.
const NAME: &str = "wasm";
/// A batch ends at this many bytes, as those of a conversion do.
const BATCH_BYTES: usize = 16 << 20;

/// What makes columns of types that T1 does not have; not measured.
const BEFORE: &str = "
- split: {column: repo_name, separator: /, as: parts}
- cast: {column: actor_id, to: 'decimal(18,2)', as: actor_number}
- cast: {column: repo_id, to: 'decimal(18,2)', as: repo_number}
";

/// The steps; the plug-in has functions of the same names and arguments. Numbers, text, lists made, lists read, decimals.
const STEPS: &str = "
- clamp: {column: actor_id, min: 1000, max: 10000000}
- lower: {column: repo_name}
- split: {column: repo_name, separator: /, as: words}
- joinList: {column: parts, separator: ' of '}
- sum: {columns: [actor_number, repo_number], as: numbers}
";

/// `compactor bench plugins`
#[derive(Debug, Args)]
pub struct Plugins {
    /// GitHub events, newline-delimited JSON.
    #[arg(long)]
    pub from: PathBuf,
    /// How often each step works on a batch: one time is too short to be measured.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
}

/// What the steps took.
#[derive(Debug, Serialize)]
pub struct PluginsFigures {
    /// Records.
    pub rows: u64,
    /// Calls of each step.
    pub batches: u64,
    /// By step.
    pub steps: Vec<PluginStep>,
}

/// What a step took, on one thread.
#[derive(Debug, Serialize)]
pub struct PluginStep {
    /// Its name.
    pub step: String,
    /// CPU seconds of ours, all rounds.
    pub built_in_seconds: f64,
    /// CPU seconds of the plug-in's, all rounds.
    pub plugin_seconds: f64,
    /// Nanoseconds a row of ours.
    pub built_in_nanos_a_row: f64,
    /// Nanoseconds a row of the plug-in's.
    pub plugin_nanos_a_row: f64,
    /// How many times as long the plug-in's takes.
    pub times: f64,
}

/// Runs both on every batch, in turns, and compares what they make.
///
/// # Errors
/// Input that cannot be read or is no GitHub event; a plug-in's step that makes something else than ours.
pub fn plugins(args: &Plugins) -> Result<PluginsFigures> {
    let columns = tasks::columns(Task::T1)?;
    let mut bench = Bench::new(&columns, args.rounds)?;
    let mut decoder = Decoder::new(&columns)?;
    each_line(part(&args.from, 0, 1)?, |line| {
        decoder.push(line).map_err(|why| anyhow::anyhow!("{why}"))?;
        if decoder.rows() >= BATCH_ROWS || decoder.bytes() >= BATCH_BYTES {
            bench.batch(decoder.finish()?)?;
        }
        Ok(())
    })
    .with_context(|| format!("in {}", args.from.display()))?;
    bench.batch(decoder.finish()?)?;
    Ok(bench.figures())
}

struct Bench {
    before: Transformer,
    pairs: Vec<Pair>,
    rounds: u32,
    rows: u64,
    batches: u64,
}

/// A step of ours, and that of the plug-in.
struct Pair {
    name: String,
    built_in: Transformer,
    plugin: Transformer,
    /// CPU seconds of both.
    seconds: [f64; 2],
}

impl Bench {
    fn new(columns: &[Column], rounds: u32) -> Result<Self> {
        let functions = Functions::built_in().with(plugin::of_bytes(&spec()?, FILE)?)?;
        let steps = |columns: &[Column], list: &[(String, serde_json::Value)]| {
            let list: Vec<_> = list.iter().map(|(name, args)| (name.as_str(), args.clone())).collect();
            functions::steps(&functions, columns, &list)
        };
        let before = steps(columns, &listed(BEFORE)?)?;
        let last = before.last().context("no step comes before")?;
        let prepared: Vec<Column> = last.plan.after.iter().map(|(column, _)| column.clone()).collect();
        let alone = |name: String, args: &serde_json::Value| {
            let steps = steps(&prepared, &[(name, args.clone())])?;
            Transformer::new(&steps, &prepared, &References::default())
        };
        let pair = |(name, args): (String, serde_json::Value)| {
            let (built_in, plugin) = (alone(name.clone(), &args)?, alone(format!("{NAME}.{name}"), &args)?);
            anyhow::Ok(Pair { name, built_in, plugin, seconds: [0.0; 2] })
        };
        let pairs = listed(STEPS)?.into_iter().map(pair).collect::<Result<_>>()?;
        let before = Transformer::new(&before, columns, &References::default())?;
        Ok(Self { before, pairs, rounds, rows: 0, batches: 0 })
    }

    fn batch(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let batch = self.before.apply(batch)?.batch;
        for pair in &mut self.pairs {
            pair.run(&batch, self.rounds, self.batches % 2 == 1)?;
        }
        self.rows += batch.num_rows() as u64;
        self.batches += 1;
        Ok(())
    }

    fn figures(self) -> PluginsFigures {
        let rows = (self.rows * u64::from(self.rounds)).max(1) as f64;
        let step = |Pair { name, seconds: [ours, theirs], .. }: Pair| PluginStep {
            step: name,
            built_in_seconds: ours,
            plugin_seconds: theirs,
            built_in_nanos_a_row: ours * 1e9 / rows,
            plugin_nanos_a_row: theirs * 1e9 / rows,
            times: theirs / ours,
        };
        let steps = self.pairs.into_iter().map(step).collect();
        PluginsFigures { rows: self.rows, batches: self.batches, steps }
    }
}

impl Pair {
    /// Runs both; the one that comes second finds the batch in the cache.
    fn run(&mut self, batch: &RecordBatch, rounds: u32, plugin_first: bool) -> Result<()> {
        let mut made = [None, None];
        for number in if plugin_first { [1, 0] } else { [0, 1] } {
            let steps = [&self.built_in, &self.plugin][number];
            let begun = cpu_seconds()?;
            for _ in 0..rounds {
                made[number] = Some(steps.apply(batch.clone())?);
            }
            self.seconds[number] += cpu_seconds()? - begun;
        }
        let made = made.map(|outcome| outcome.map(|outcome| (outcome.batch, outcome.rejected)));
        ensure!(made[0] == made[1], "the plug-in's step {} makes something else than ours", self.name);
        Ok(())
    }
}

/// CPU time of this thread. Linux writes it down when a thread gives way, and else at every tick, which is long for a step.
fn cpu_seconds() -> Result<f64> {
    std::thread::yield_now();
    thread_cpu_seconds()
}

fn spec() -> Result<PluginSpec> {
    let file = StoreUrl::File(Path::new("/steps.wasm").to_path_buf());
    Ok(PluginSpec { name: PluginName::new(NAME)?, file, sha256: None, limits: PluginLimits::default() })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// `events` GitHub events, some of them without what the steps read.
    fn events(count: usize) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for i in 0..count {
            let repo = match i % 3 {
                0 => serde_json::json!({"id": i, "name": format!("Firn/Ecrins/{i}")}),
                1 => serde_json::json!({"id": i * 1_000, "name": "Firn"}),
                _ => serde_json::json!({}),
            };
            writeln!(file, "{}", serde_json::json!({"id": i, "actor": {"id": i * 7_919}, "repo": repo})).unwrap();
        }
        file
    }

    #[test]
    fn every_step_makes_the_same_built_in_and_as_a_plugin() {
        let file = events(20_000);
        let figures = plugins(&Plugins { from: file.path().to_path_buf(), rounds: 1 }).unwrap();
        assert_eq!((figures.rows, figures.batches), (20_000, 2));
        let names: Vec<&str> = figures.steps.iter().map(|step| step.step.as_str()).collect();
        assert_eq!(names, ["clamp", "lower", "split", "joinList", "sum"]);
        assert!(figures.steps.iter().all(|step| step.built_in_seconds > 0.0 && step.plugin_seconds > 0.0));
    }

    #[test]
    fn a_step_that_makes_something_else_is_told() {
        let mut bench = Bench::new(&tasks::columns(Task::T1).unwrap(), 1).unwrap();
        let mut decoder = Decoder::new(&tasks::columns(Task::T1).unwrap()).unwrap();
        // Only letters of ASCII have small ones in the plug-in.
        decoder.push("{\"id\": 1, \"repo\": {\"name\": \"Écrins\"}}".as_bytes()).unwrap();
        let error = bench.batch(decoder.finish().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "the plug-in's step lower makes something else than ours");
    }
}
