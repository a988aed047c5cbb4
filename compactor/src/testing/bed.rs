//! One case, run: a deployment in memory, and what its tables hold afterwards.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use chrono::{DateTime, Utc};
use firn_shared::clock::ManualClock;
use firn_shared::config::Config;
use firn_shared::config::cases::{Case, TestFile, Tree};
use firn_shared::config::domain::{Deployment, Pipeline, S3Options, StoreUrl};
use firn_shared::config::protected::protected;
use firn_shared::crypto::{Guard, Keys};
use firn_shared::error::{Error, Result};
use firn_shared::store::{MemoryStore, Stores};
use firn_shared::types::LogicalType;
use futures::TryStreamExt;
use iceberg::TableIdent;

use super::cell::cell;
use super::land::Land;
use super::records::records;
use crate::protect::fixed;
use crate::provenance;
use crate::run::{Env, Options, Target, prove, run as run_table};
use crate::seam::Cpu;
use crate::table::catalog::memory::MemoryCatalog;
use crate::table::offsets;
use crate::table::read::{self, Origins, Rows};
use crate::table::storage::file_io;

/// Cases so far: each has a bucket of its own, whose name is never used again, because what is kept of files is kept by URL.
static CASES: AtomicU64 = AtomicU64::new(1);

/// What came out of a case.
#[derive(Debug, Default)]
pub struct Outcome {
    /// By output of the pipeline, in order.
    pub tables: Vec<TableOutcome>,
    /// Records that landing refused.
    pub refused: Vec<Record>,
    /// Why a run failed, if one did; the tables are then as they were.
    pub error: Option<String>,
}

/// What became of one table.
#[derive(Debug, Default)]
pub struct TableOutcome {
    /// `database.table`.
    pub name: String,
    /// Its columns: name, type, whether required.
    pub columns: Vec<(String, LogicalType, bool)>,
    /// Its rows in the order of the records.
    pub rows: Vec<Record>,
    /// Its quarantine in the order of the records.
    pub quarantine: Vec<Record>,
    /// Records left out, by reason.
    pub filtered: BTreeMap<String, u64>,
    /// Tombstones.
    pub tombstones: u64,
    /// Records whose key has a newer version.
    pub superseded: u64,
    /// Records that deleted their key.
    pub deleted: u64,
}

/// A row, or a record that is none.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Which record of the case it was, from 1, where that is known.
    pub event: Option<u64>,
    /// Its values by name.
    pub cells: Vec<(String, Tree)>,
}

impl Record {
    /// A value by its name.
    pub fn get(&self, name: &str) -> Option<&Tree> {
        self.cells.iter().find(|(other, _)| other == name).map(|(_, value)| value)
    }
}

/// Runs a case from empty tables.
///
/// # Errors
/// `Config` for records that cannot be read or do not belong to the pipeline; `Bug` when something is not accounted for.
pub async fn run(tests: &TestFile, case: &Case, pipeline: &Arc<Pipeline>) -> Result<Outcome> {
    let folder = tempfile::tempdir()
        .map_err(|e| Error::unavailable("cannot make a temporary directory for a test").with_source(e))?;
    // No bucket of S3 can have such a name.
    let bucket = format!("_case-{}", CASES.fetch_add(1, Ordering::Relaxed));
    let config = Arc::new(deployment(folder.path(), &bucket, pipeline)?);
    let env = environment(&config, &bucket, tests.now);
    let guard = if pipeline.ingestion.protect_at_landing {
        Guard::new(&pipeline.outputs.iter().flat_map(protected).collect::<Vec<_>>(), &env.keys).await?
    } else {
        None
    };
    let mut land = Land::new(&pipeline.ingestion, env.raw().await?, guard)?;
    let targets = Target::select(&config, None, None)?;
    let mut error = None;
    'runs: for batch in &case.runs {
        land.land(records(tests, batch)?).await?;
        for target in &targets {
            if let Err(why) = run_table(&env, *target, &Options::default()).await {
                error = Some(super::chain(&why));
                break 'runs;
            }
        }
    }
    let mut outcome = Outcome { tables: Vec::new(), refused: std::mem::take(&mut land.refused), error };
    for (at, target) in targets.iter().enumerate() {
        // Provenance is on while a case runs; the table's columns are those of the pipeline as it is.
        outcome.tables.push(look(&env, (*target, pipeline.outputs[at].table.provenance), &land).await?);
        if outcome.error.is_none() {
            balance(&env, *target).await?;
        }
    }
    outcome.refused.sort_by_key(|record| record.event);
    Ok(outcome)
}

/// Raw zone, tables and catalog of a case are in memory, and its thread does all of the work. What look-ups read, and what
/// upserts spill, are files as ever.
fn environment(config: &Arc<Config>, bucket: &str, now: DateTime<Utc>) -> Env {
    let stores = Stores::holding(S3Options::default(), Arc::new(MemoryStore::new(format!("s3://{bucket}"))));
    let clock = Arc::new(ManualClock::new(now));
    Env {
        config: Arc::clone(config),
        catalog: Arc::new(MemoryCatalog::new(file_io(&stores))),
        keys: Keys::new(&config.deployment, stores.clone(), Arc::clone(&clock) as _),
        clock,
        cpu: Cpu::on_the_spot(config.deployment.compactor.memory),
        bars: false,
        stores,
    }
}

/// The pipeline in a bucket. Provenance tells which record became which row.
fn deployment(folder: &Path, bucket: &str, pipeline: &Pipeline) -> Result<Config> {
    let mut pipeline = pipeline.clone();
    for output in &mut pipeline.outputs {
        output.table.location = None;
        output.table.provenance = true;
    }
    let place = |prefix: &str| StoreUrl::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() };
    let mut deployment = Deployment { raw: place("raw"), warehouse: place("tables"), ..Deployment::local(folder) };
    // A bound of what is held, not what is taken: records of a test are few, and a plug-in may be allowed much.
    deployment.compactor.memory = 8 << 30;
    let protections = pipeline.outputs.iter().flat_map(|output| &output.table.protections);
    let keys: Vec<_> = protections.filter_map(|protection| protection.key.clone()).collect();
    deployment.keys = fixed::keys(folder, keys)?;
    deployment.keys.values_mut().for_each(|key| key.store = place("keys"));
    Ok(Config { deployment, pipelines: [(pipeline.name.clone(), pipeline)].into() })
}

/// Every record must be somewhere.
async fn balance(env: &Env, target: Target<'_>) -> Result<()> {
    if env.catalog.load(&target.ident()).await?.is_none() {
        return Ok(());
    }
    let proof = prove::reconcile(env, target, false).await?;
    if proof.is_clean() {
        return Ok(());
    }
    Err(Error::bug(format!("records of {} are unaccounted for, please report this test:\n{proof}", target.name())))
}

/// What a table and its quarantine hold.
async fn look(env: &Env, (target, provenance): (Target<'_>, bool), land: &Land<'_>) -> Result<TableOutcome> {
    let columns: Vec<_> = target.columns().into_iter().map(|c| (c.name, c.r#type, c.required)).collect();
    let names: Vec<&str> = columns.iter().map(|(name, ..)| name.as_str()).collect();
    let mut found = TableOutcome { name: target.name(), ..TableOutcome::default() };
    found.rows = rows(env, &target.ident(), &names, land).await?;
    let quarantine = ["payload", "json_path", "reason", "detail", "step", provenance::COLUMN];
    let rejects = rows(env, &target.quarantine()?.ident, &quarantine, land).await?;
    found.quarantine = rejects.into_iter().map(|record| quarantined(target, record)).collect();
    if let Some(table) = env.catalog.load(&target.ident()).await?
        && let Some(state) = offsets::current(table.metadata())?
    {
        for (_, totals) in state.account.iter() {
            for (reason, count) in &totals.filtered {
                *found.filtered.entry(reason.clone()).or_default() += count;
            }
            found.tombstones += totals.tombstones;
            found.superseded += totals.superseded;
            found.deleted += totals.deleted;
        }
    }
    found.columns = columns;
    if !provenance {
        found.columns.retain(|(name, ..)| name != provenance::COLUMN);
    }
    Ok(found)
}

/// The rows of a table, by the number of their record.
async fn rows(env: &Env, ident: &TableIdent, columns: &[&str], land: &Land<'_>) -> Result<Vec<Record>> {
    let Some(table) = env.catalog.load(ident).await? else { return Ok(Vec::new()) };
    let mut batches = read::rows(&table, columns, &Rows::All).await?;
    let mut records = Vec::new();
    while let Some(batch) = batches.try_next().await? {
        let numbers = numbers(&batch, land)?;
        for (row, event) in numbers.into_iter().enumerate() {
            let value = |name: &&str| {
                let array = batch.column_by_name(name);
                let array = array.ok_or_else(|| Error::bug(format!("the table was read without `{name}`")))?;
                Ok(((*name).to_owned(), cell(array.as_ref(), row)?))
            };
            records.push(Record { event, cells: columns.iter().map(value).collect::<Result<_>>()? });
        }
    }
    records.sort_by_key(|record| record.event);
    Ok(records)
}

/// Of each row the number of its record.
fn numbers(batch: &RecordBatch, land: &Land<'_>) -> Result<Vec<Option<u64>>> {
    let column = batch.column_by_name(provenance::COLUMN).and_then(|column| column.as_struct_opt());
    let origins = Origins::of(column.ok_or_else(|| Error::bug("rows without provenance"))?)?;
    let number = |row: usize| {
        let Some(partition) = origins.partition(row)? else { return Ok(None) };
        Ok(land.numbers.get(&(partition, origins.offsets.value(row) as u64)).copied())
    };
    (0..batch.num_rows()).map(number).collect()
}

/// A row of the quarantine in the words of a test.
fn quarantined(target: Target<'_>, mut record: Record) -> Record {
    let mut take = |name: &str| {
        let at = record.cells.iter().position(|(other, _)| other == name);
        at.map_or(Tree::Null, |at| std::mem::replace(&mut record.cells[at].1, Tree::Null))
    };
    let step = match take("step") {
        Tree::Null => Tree::Int(0),
        Tree::Text(at) => {
            let number = target.output.transformations.iter().position(|step| step.at == at);
            number.map_or(Tree::Text(at), |number| Tree::Int(number as i64 + 1))
        }
        other => other,
    };
    let payload = match take("payload") {
        // Of most payloads the text says more than base64; the others stay as they are.
        Tree::Text(base64) => Tree::Text(text_of(&base64).unwrap_or(base64)),
        other => other,
    };
    let event = record.event.map_or(Tree::Null, |event| Tree::Int(event as i64));
    let cells = [
        ("event", event),
        ("path", take("json_path")),
        ("reason", take("reason")),
        ("detail", take("detail")),
        ("step", step),
        ("payload", payload),
    ];
    Record { event: record.event, cells: cells.map(|(name, value)| (name.to_owned(), value)).into() }
}

fn text_of(base64: &str) -> Option<String> {
    use base64::Engine as _;
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(base64).ok()?).ok()
}
