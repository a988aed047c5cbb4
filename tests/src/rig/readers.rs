//! Independent readers: DuckDB and PyIceberg in one Python process, Spark in another, Trino a server with a client in a
//! third, all asked line by line.
//!
//! The catalog tells where the table's metadata is (through PyIceberg), DuckDB reads that one metadata file: an answer
//! always belongs to one committed state of the table.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{ChildStdin, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::procs::{PATIENCE, Process, run_dir, source_dir, tail};
use super::programs::run_command;
use super::{s3, trino};

/// Directory of what tests fetch once: `${XDG_CACHE_HOME:-$HOME/.cache}/firn`, as in `localstack/setup`.
#[allow(clippy::disallowed_methods, reason = "the rig shares this directory with shell scripts")]
fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var("HOME").unwrap_or_default()).join(".cache");
    std::env::var("XDG_CACHE_HOME").map_or_else(|_| home(), PathBuf::from).join("firn")
}

/// A program of the tests' Python environment.
#[allow(clippy::disallowed_methods, reason = "the rig shares this directory with shell scripts")]
pub fn venv(program: &str) -> PathBuf {
    let venv = std::env::var("FIRN_VENV").map_or_else(|_| cache().join("venv"), PathBuf::from);
    venv.join("bin").join(program)
}

/// Python of the environment that LocalStack has for itself.
pub fn localstack_python() -> PathBuf {
    cache().join("localstack/bin/python")
}

/// How readers reach a catalog and what lies behind it.
#[derive(Debug, Clone)]
pub struct Access {
    /// Properties of `pyiceberg.catalog.load_catalog`.
    pub pyiceberg: Value,
    /// The catalog's name, also in Spark and Trino.
    pub name: String,
    /// Properties of the Spark catalog, without `spark.sql.catalog.{name}.`.
    pub spark: Vec<(String, String)>,
    /// Properties of the Trino catalog.
    pub trino: Vec<(String, String)>,
    /// The object store, when it is not local files.
    pub s3: Option<S3Access>,
}

/// Static access to an S3 server.
#[derive(Debug, Clone)]
pub struct S3Access {
    /// `http://host:port`.
    pub endpoint: String,
    /// Access key id.
    pub key: String,
    /// Secret access key.
    pub secret: String,
}

/// A snapshot as PyIceberg tells it.
#[derive(Debug, Clone, serde::Deserialize)]
pub struct Snapshot {
    /// Its id.
    pub id: i64,
    /// Its parent's.
    pub parent: Option<i64>,
    /// `append`, `overwrite`, ...
    pub operation: String,
    /// The rest of its summary.
    pub summary: std::collections::BTreeMap<String, String>,
}

/// A live data file as PyIceberg tells it.
#[derive(Debug, Clone, serde::Deserialize)]
pub struct DataFile {
    /// Its location.
    pub path: String,
    /// Its partition, as text.
    pub partition: String,
    /// Rows in it.
    pub records: u64,
    /// Its size.
    pub bytes: u64,
}

/// A process that answers JSON requests, a line each.
#[derive(Debug)]
pub(super) struct Piped {
    process: Process,
    requests: ChildStdin,
    /// Its lines, from a thread that ends with it: a pipe cannot be read with a bound.
    answers: Receiver<String>,
}

impl Piped {
    /// Starts a script of `tests/readers`.
    pub(super) fn python(script: &str, arguments: &[PathBuf]) -> Result<Self> {
        let mut command = Command::new(venv("python"));
        command.arg(source_dir().join("tests/readers").join(script)).args(arguments);
        // What neither reader takes from a catalog's properties; every test server knows these.
        command
            .env("AWS_REGION", s3::REGION)
            .env("AWS_ACCESS_KEY_ID", s3::KEY)
            .env("AWS_SECRET_ACCESS_KEY", s3::SECRET);
        Self::start(script, command)
    }

    pub(super) fn start(name: &str, command: Command) -> Result<Self> {
        let mut process = Process::start_piped(name, command, &run_dir().join(format!("{name}.log")))
            .context("not installed: run localstack/setup, or ./test")?;
        let requests = process.child().stdin.take().context("stdin is a pipe")?;
        let lines = BufReader::new(process.child().stdout.take().context("stdout is a pipe")?).lines();
        let (answer, answers) = sync_channel(1);
        let pass_on = move || lines.map_while(Result::ok).try_for_each(|line| answer.send(line)).unwrap_or_default();
        thread::Builder::new().name(format!("{name}-answers")).spawn(pass_on)?;
        Ok(Self { process, requests, answers })
    }

    pub(super) fn ask<T: DeserializeOwned>(&mut self, request: &Value) -> Result<T> {
        writeln!(self.requests, "{request}")?;
        let line = match self.answers.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => bail!("the reader ended; its log:\n{}", tail(self.process.log())),
            Err(RecvTimeoutError::Timeout) => {
                // A late answer would be taken for that of the next request.
                self.process.kill();
                bail!("no answer to {request} in {PATIENCE:?}; log:\n{}", tail(self.process.log()));
            }
        };
        let mut answer: Value = serde_json::from_str(&line).with_context(|| format!("answer {line}"))?;
        if let Some(error) = answer.get("error") {
            bail!("{} in answer to {request}", error.as_str().unwrap_or_default());
        }
        serde_json::from_value(answer["answer"].take()).with_context(|| format!("answer {line}"))
    }
}

fn lock(python: &'static OnceLock<Mutex<Piped>>, start: impl FnOnce() -> Result<Piped>) -> MutexGuard<'static, Piped> {
    let python = python.get_or_init(|| Mutex::new(start().expect("the reader starts")));
    python.lock().unwrap_or_else(PoisonError::into_inner)
}

fn duckdb() -> MutexGuard<'static, Piped> {
    static DUCKDB: OnceLock<Mutex<Piped>> = OnceLock::new();
    lock(&DUCKDB, || Piped::python("duckdb_reader.py", &[]))
}

/// The directory of the jars that `localstack/fetch NAME` fetches.
///
/// # Errors
/// When they cannot be had.
pub fn fetched(name: &str) -> Result<PathBuf> {
    let mut command = Command::new(source_dir().join("localstack/fetch"));
    command.arg(name);
    let fetch = run_command("fetch", command)?;
    let jars = fetch.stdout.trim();
    if jars.is_empty() {
        bail!("no jars of {name}: {}", fetch.stderr);
    }
    Ok(jars.into())
}

fn spark_session() -> MutexGuard<'static, Piped> {
    static SPARK: OnceLock<Mutex<Piped>> = OnceLock::new();
    lock(&SPARK, || Piped::python("spark_reader.py", &[fetched("spark")?]))
}

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// DuckDB and its Iceberg extension.
    DuckDb,
    /// PyIceberg, which refuses tables with equality deletes.
    PyIceberg,
    /// Spark and the Iceberg runtime.
    Spark,
    /// Trino, the engine under Athena.
    Trino,
}

impl Engine {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::DuckDb, Self::PyIceberg, Self::Spark, Self::Trino];
}

/// Rows of a query.
pub type Rows = Vec<Vec<Value>>;

/// Rows of a DuckDB query that reads files named in it.
///
/// # Errors
/// What DuckDB says.
pub fn duckdb_sql(sql: &str) -> Result<Rows> {
    duckdb().ask(&json!({"do": "sql", "sql": sql}))
}

impl Access {
    /// The location of the table's current metadata file; `None` when there is no such table.
    ///
    /// # Errors
    /// What PyIceberg says.
    pub fn metadata(&self, table: &str) -> Result<Option<String>> {
        let answer =
            duckdb().ask(&json!({"do": "locate", "name": self.name, "catalog": self.pyiceberg, "table": table}));
        match answer {
            Err(error) if ["NoSuchTableError", "no such table"].iter().any(|none| error.to_string().contains(none)) => {
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// Rows of a DuckDB query in which `t` is the table.
    ///
    /// # Errors
    /// What DuckDB says.
    pub fn duckdb(&self, table: &str, sql: &str) -> Result<Rows> {
        let metadata = self.metadata(table)?.with_context(|| format!("there is no table {table}"))?;
        self.duckdb_at(&metadata, sql)
    }

    /// The same for the state of the table that one metadata file describes.
    ///
    /// # Errors
    /// What DuckDB says.
    pub fn duckdb_at(&self, metadata: &str, sql: &str) -> Result<Rows> {
        duckdb().ask(&self.duckdb_request(metadata, sql, false))
    }

    fn duckdb_request(&self, metadata: &str, sql: &str, canonical: bool) -> Value {
        let s3 = self.s3.as_ref().map(|s3| json!({"endpoint": s3.endpoint, "key": s3.key, "secret": s3.secret}));
        json!({"do": "sql", "sql": sql, "metadata": metadata, "s3": s3, "canonical": canonical})
    }

    /// Rows of a query in which `t` is the table as PyIceberg reads it.
    ///
    /// # Errors
    /// What PyIceberg says: it refuses tables with equality deletes.
    pub fn pyiceberg(&self, table: &str, sql: &str) -> Result<Rows> {
        duckdb().ask(&json!({"do": "scan", "sql": sql, "name": self.name, "catalog": self.pyiceberg, "table": table}))
    }

    /// The number that a DuckDB query of one row and column gives.
    ///
    /// # Errors
    /// What DuckDB says, or when it is no number.
    pub fn number(&self, table: &str, sql: &str) -> Result<i64> {
        let rows = self.duckdb(table, sql)?;
        rows.first().and_then(|row| row.first()?.as_i64()).with_context(|| format!("{sql} gave {rows:?}"))
    }

    /// The table's snapshots, oldest first.
    ///
    /// # Errors
    /// What PyIceberg says.
    pub fn snapshots(&self, table: &str) -> Result<Vec<Snapshot>> {
        duckdb().ask(&json!({"do": "snapshots", "name": self.name, "catalog": self.pyiceberg, "table": table}))
    }

    /// The table's live data files.
    ///
    /// # Errors
    /// What PyIceberg says.
    pub fn files(&self, table: &str) -> Result<Vec<DataFile>> {
        duckdb().ask(&json!({"do": "files", "name": self.name, "catalog": self.pyiceberg, "table": table}))
    }

    /// Rows of the last of these Spark statements; `{c}` stands for the catalog.
    ///
    /// # Errors
    /// What Spark says.
    pub fn spark(&self, statements: &[&str]) -> Result<Rows> {
        self.ask_spark(statements, false)
    }

    fn ask_spark<T: DeserializeOwned>(&self, statements: &[&str], canonical: bool) -> Result<T> {
        let catalog = format!("spark.sql.catalog.{}", self.name);
        let mut conf = serde_json::Map::new();
        conf.insert(catalog.clone(), "org.apache.iceberg.spark.SparkCatalog".into());
        // Spark must see what others commit.
        conf.insert(format!("{catalog}.cache-enabled"), "false".into());
        for (key, value) in &self.spark {
            conf.insert(format!("{catalog}.{key}"), value.as_str().into());
        }
        let sql = self.in_catalog(statements);
        spark_session().ask(&json!({"conf": conf, "sql": sql, "canonical": canonical}))
    }

    /// Rows of the last of these Trino statements, as they come in JSON; `{c}` stands for the catalog.
    ///
    /// # Errors
    /// What Trino says.
    pub fn trino(&self, statements: &[&str]) -> Result<Rows> {
        Ok(serde_json::from_value(trino::run(self, &self.in_catalog(statements), false)?)?)
    }

    fn in_catalog(&self, statements: &[&str]) -> Vec<String> {
        statements.iter().map(|s| s.replace("{c}", &self.name)).collect()
    }

    /// Rows of a query in which `{t}` stands for the table, sorted; a row is text that is the same whoever read it
    /// (`tests/readers/canonical.py`).
    ///
    /// # Errors
    /// What the engine says.
    pub fn read(&self, engine: Engine, table: &str, sql: &str) -> Result<Vec<String>> {
        let mut rows: Vec<String> = match engine {
            Engine::DuckDb => {
                let metadata = self.metadata(table)?.with_context(|| format!("there is no table {table}"))?;
                duckdb().ask(&self.duckdb_request(&metadata, &sql.replace("{t}", "t"), true))?
            }
            Engine::PyIceberg => duckdb().ask(&json!({
                "do": "scan", "sql": sql.replace("{t}", "t"), "name": self.name, "catalog": self.pyiceberg,
                "table": table, "canonical": true,
            }))?,
            Engine::Spark => self.ask_spark(&[&sql.replace("{t}", &format!("{{c}}.{table}"))], true)?,
            Engine::Trino => {
                let sql = sql.replace("{t}", &format!("{}.{table}", self.name));
                serde_json::from_value(trino::run(self, &[sql], true)?)?
            }
        };
        rows.sort_unstable();
        Ok(rows)
    }
}
