//! Trino, the engine under Athena: one server for all tests, whose catalogs are made as tests name them.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::http;
use super::procs::{Process, free_port, run_dir, source_dir};
use super::readers::{Access, Piped};

struct Trino {
    client: Piped,
    /// Catalogs that it has.
    catalogs: BTreeSet<String>,
    _server: Process,
}

impl Trino {
    fn start() -> Result<Self> {
        let (dir, port) = (run_dir().join("trino"), free_port());
        std::fs::create_dir_all(&dir)?;
        let mut command = Command::new(source_dir().join("localstack/trino/start"));
        command.arg("--dir").arg(&dir).args(["--port", &port.to_string()]);
        let mut server = Process::start("trino", command, &dir.join("log"))?;
        server.ready(|| is_up(port).then_some(())).context("Trino does not start: run localstack/setup, or ./test")?;
        let client = Piped::python("trino_reader.py", &[format!("http://127.0.0.1:{port}").into()])?;
        Ok(Self { client, catalogs: BTreeSet::new(), _server: server })
    }

    fn run(&mut self, sql: &[String], canonical: bool) -> Result<Value> {
        self.client.ask(&json!({"sql": sql, "canonical": canonical}))
    }
}

/// Whether it says that it has started.
fn is_up(port: u16) -> bool {
    http::get(&format!("127.0.0.1:{port}"), "/v1/info").is_ok_and(|(_, body)| body.contains("\"starting\":false"))
}

/// `CREATE CATALOG` with these properties.
#[must_use]
pub fn create_catalog(name: &str, properties: &[(String, String)]) -> String {
    let properties: Vec<String> =
        properties.iter().map(|(key, value)| format!("\"{key}\" = '{}'", value.replace('\'', "''"))).collect();
    format!("CREATE CATALOG {name} USING iceberg WITH ({})", properties.join(", "))
}

/// The answer of the last of these statements; the catalog of `access` is made first.
pub(super) fn run(access: &Access, sql: &[String], canonical: bool) -> Result<Value> {
    static TRINO: OnceLock<Mutex<Trino>> = OnceLock::new();
    let trino = TRINO.get_or_init(|| Mutex::new(Trino::start().expect("Trino starts")));
    let mut trino = trino.lock().unwrap_or_else(PoisonError::into_inner);
    if !trino.catalogs.contains(&access.name) {
        trino.run(&[create_catalog(&access.name, &access.trino)], false)?;
        trino.catalogs.insert(access.name.clone());
    }
    trino.run(sql, canonical)
}
