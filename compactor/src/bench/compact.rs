//! Compacting a table of many small files, some rows of them deleted: bytes of Parquet a CPU-second.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use clap::Args;
use firn_shared::clock::SystemClock;
use firn_shared::config::domain::{self, Config, MaintenanceOptions, S3Options, SortField};
use firn_shared::crypto::Keys;
use firn_shared::ids::{ColumnName, RunId};
use firn_shared::store::Stores;
use iceberg::table::Table;
use iceberg::{NamespaceIdent, TableIdent};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use roaring::RoaringTreemap;
use serde::Serialize;

use super::usage::Begun;
use crate::execute::PROGRAM;
use crate::maintain::{Options, Part, Subject, maintain};
use crate::run::Env;
use crate::seam::Cpu;
use crate::table::catalog::open;
use crate::table::create::Definition;
use crate::table::scan::{All, LiveFile, live};
use crate::table::schema::TableColumn;
use crate::table::{Change, Committer, NewFile};
use crate::write::deletes::write_position_deletes;
use crate::write::{DataWriter, OPEN_FILES_MAX, WriteSpec};

/// Rows that are made and written at a time.
const BATCH_ROWS: usize = 8192;

/// `compactor bench compact`
#[derive(Debug, Args)]
pub struct Compact {
    /// Small files of the table.
    #[arg(long, default_value_t = 64)]
    pub files: usize,
    /// Rows of each.
    #[arg(long, default_value_t = 50_000)]
    pub rows: usize,
    /// Of so many rows one is deleted; 0 deletes none.
    #[arg(long, default_value_t = 20)]
    pub delete_one_in: usize,
    /// Sort the rows of each file.
    #[arg(long)]
    pub sort: bool,
    /// Worker threads.
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
    /// Bound of memory, bytes, as `compactor.memory`.
    #[arg(long, default_value_t = 512_000_000)]
    pub memory: u64,
    /// An empty directory for the table.
    #[arg(long)]
    pub to: PathBuf,
}

/// What it took.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CompactFigures {
    files_before: usize,
    files_after: usize,
    bytes_before: u64,
    bytes_after: u64,
    rows: u64,
    seconds: f64,
    cpu_seconds: f64,
    /// Megabytes of input Parquet a CPU-second.
    megabytes_per_cpu_second: f64,
}

/// Makes the table and compacts it.
///
/// # Errors
/// A directory that is in use, and whatever the table layer says.
pub fn compact(options: &Compact) -> Result<CompactFigures> {
    ensure!(options.files > 1 && options.rows > 0, "a compaction needs files with rows");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(options))
}

async fn measure(options: &Compact) -> Result<CompactFigures> {
    std::fs::create_dir_all(&options.to).with_context(|| format!("cannot make {}", options.to.display()))?;
    let to = options.to.canonicalize()?;
    ensure!(std::fs::read_dir(&to)?.next().is_none(), "{} is not empty", to.display());
    let env = env(&to, options).await?;
    let ident = TableIdent::new(NamespaceIdent::new("bench".to_owned()), "t".to_owned());
    fill(&env, &to, &ident, options).await?;
    let mut settings = MaintenanceOptions::default().resolve(128_000_000);
    (settings.min_files, settings.delete_share) = (2, 0.0);
    let subject =
        Subject { ident, settings, zstd_level: 3, keeps_last_load: false, remembers: false, others: Vec::new() };
    let only = Options { only: [Part::Compact].into(), ..Options::default() };
    let begun = Begun::now()?;
    let report = maintain(&env, &subject, &only).await?.context("the table was just made")?;
    let (seconds, cpu_seconds) = (begun.seconds(), begun.cpu_seconds()?);
    let done = report.compact.context("it was asked for")?;
    Ok(CompactFigures {
        files_before: done.files_before,
        files_after: done.files_after,
        bytes_before: done.bytes_before,
        bytes_after: done.bytes_after,
        rows: done.rows,
        seconds,
        cpu_seconds,
        megabytes_per_cpu_second: done.bytes_before as f64 / 1e6 / cpu_seconds,
    })
}

async fn env(to: &Path, options: &Compact) -> Result<Env> {
    let stores = Stores::new(S3Options::default());
    let catalog = domain::Catalog::Sqlite { path: to.join("catalog.db"), name: "default".to_owned() };
    let opened = open(&catalog, &stores).await?;
    let place = |name: &str| domain::StoreUrl::File(to.join(name));
    let deployment = domain::Deployment {
        clusters: BTreeMap::new(),
        raw: place("raw"),
        s3: S3Options::default(),
        catalog,
        warehouse: place("lake"),
        kms: domain::KmsOptions::default(),
        keys: BTreeMap::new(),
        plugins: Vec::new(),
        landing: domain::LandingOptions::default(),
        compactor: domain::CompactorOptions::default(),
        access: None,
        telemetry: domain::TelemetryOptions::default(),
    };
    Ok(Env {
        keys: Keys::new(&deployment, stores.clone(), Arc::new(SystemClock)),
        config: Arc::new(Config { deployment, pipelines: BTreeMap::new() }),
        stores,
        catalog: opened,
        clock: Arc::new(SystemClock),
        cpu: Cpu::new(options.threads, options.memory.saturating_sub(PROGRAM))?,
        bars: false,
    })
}

/// Files of rows, each with its delete file.
async fn fill(env: &Env, to: &Path, ident: &TableIdent, options: &Compact) -> Result<()> {
    let column = |name: &str, r#type: &str| -> Result<TableColumn> {
        Ok(TableColumn { name: name.to_owned(), r#type: r#type.parse()?, required: false, doc: None })
    };
    let sorted = options.sort.then(|| ColumnName::new("size")).transpose()?;
    let definition = Definition {
        ident: ident.clone(),
        location: format!("file://{}/lake/t", to.display()),
        columns: vec![
            column("id", "long")?,
            column("size", "long")?,
            column("kind", "string")?,
            column("text", "string")?,
        ],
        partition_by: Vec::new(),
        sort_by: sorted.map(|column| SortField { column, descending: false }).into_iter().collect(),
        properties: BTreeMap::new(),
        needed: BTreeMap::new(),
    };
    let table = definition.ensure(env.catalog.as_ref()).await?.into_table();
    let mut add: Vec<NewFile> = Vec::new();
    for number in 0..options.files {
        let (spec, rows) = (spec(env, &table, format!("d{number}")), options.rows);
        add.extend(tokio::task::spawn_blocking(move || write(spec, number, rows)).await??);
    }
    let committer = Committer::new(Arc::clone(&env.catalog), Arc::new(SystemClock));
    let change = Change { commit_id: "rows".to_owned(), add, ..Change::default() };
    let table = committer.commit(ident, &change).await?.table;
    if options.delete_one_in == 0 {
        return Ok(());
    }
    let (files, spec) = (live(&table, None, &All).await?, spec(env, &table, "deletes".to_owned()));
    let gone: RoaringTreemap = (0..options.rows as u64).step_by(options.delete_one_in).collect();
    let write = move || {
        let of = files.iter().map(|file: &LiveFile| (file, &gone));
        write_position_deletes(&spec, of)
    };
    let add = tokio::task::spawn_blocking(write).await??;
    committer.commit(ident, &Change { commit_id: "deletes".to_owned(), add, ..Change::default() }).await?;
    Ok(())
}

fn spec(env: &Env, table: &Table, slice: String) -> WriteSpec {
    WriteSpec {
        metadata: table.metadata_ref(),
        stores: env.stores.clone(),
        runtime: tokio::runtime::Handle::current(),
        run: RunId::new(),
        slice,
        target_file_bytes: 1 << 30,
        memory: 128 << 20,
        open_files_max: OPEN_FILES_MAX,
        zstd_level: 3,
    }
}

/// Rows with a number of their own, one that repeats, a word and a text.
fn write(spec: WriteSpec, number: usize, rows: usize) -> firn_shared::error::Result<Vec<NewFile>> {
    let mut rng = SmallRng::seed_from_u64(number as u64);
    let mut writer = DataWriter::new(spec)?;
    for start in (0..rows).step_by(BATCH_ROWS) {
        let ids = (number * rows + start) as i64..(number * rows + rows.min(start + BATCH_ROWS)) as i64;
        let sizes: Int64Array = ids.clone().map(|_| Some(rng.random_range(0..100_000))).collect();
        let kinds = StringArray::from_iter_values(ids.clone().map(|id| format!("kind-{}", id % 40)));
        let texts = StringArray::from_iter_values(ids.clone().map(|_| format!("{:032x} of it", rng.random::<u128>())));
        let columns: [(&str, ArrayRef); 4] = [
            ("id", Arc::new(Int64Array::from_iter_values(ids))),
            ("size", Arc::new(sizes)),
            ("kind", Arc::new(kinds)),
            ("text", Arc::new(texts)),
        ];
        let batch = RecordBatch::try_from_iter(columns);
        writer.write(&batch.map_err(|e| firn_shared::error::Error::bug("a batch of the bench").with_source(e))?)?;
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_compacted() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("t");
        let options =
            Compact { files: 4, rows: 1000, delete_one_in: 10, sort: true, threads: 2, memory: 128 << 20, to };
        let figures = compact(&options).unwrap();
        assert_eq!((figures.files_before, figures.files_after, figures.rows), (4, 1, 3600));
    }
}
