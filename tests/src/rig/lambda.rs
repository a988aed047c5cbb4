//! A function as AWS runs it, and Athena as it calls one: the runtime interface of Lambda, and the SDK that AWS publishes
//! for the other side of Athena's protocol.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::procs::{Process, free_port, run_dir, source_dir};
use super::programs::program;
use super::readers::{Piped, fetched, venv};

/// A built program that runs as a Lambda.
#[derive(Debug)]
pub struct Lambda {
    runtime: Piped,
    function: Process,
}

impl Lambda {
    /// Starts the runtime and the program in it, with this `firn.yaml`.
    ///
    /// # Errors
    /// What the function says when it cannot begin.
    pub fn start(name: &str, config: &Path) -> Result<Self> {
        let port = free_port();
        let mut command = Command::new(venv("python"));
        command.arg(source_dir().join("tests/readers/lambda_runtime.py")).arg(port.to_string());
        let mut runtime = Piped::start(&format!("{name}-runtime"), command)?;
        runtime.ask::<Value>(&json!({"do": "ready"}))?;
        let mut command = Command::new(program(name));
        command.env("AWS_LAMBDA_RUNTIME_API", format!("127.0.0.1:{port}")).env("FIRN_CONFIG", config);
        let function = Process::start(name, command, &run_dir().join(format!("{name}-{port}.log")))?;
        let failure: Value = runtime.ask(&json!({"do": "init"}))?;
        if !failure.is_null() {
            bail!("{failure}");
        }
        Ok(Self { runtime, function })
    }

    /// Its answer to an event: `{"response": ...}` or `{"failure": ...}`.
    ///
    /// # Errors
    /// When it gives none.
    pub fn invoke(&mut self, event: &Value) -> Result<Value> {
        self.runtime.ask(&json!({"event": event}))
    }

    /// Its log.
    pub fn log(&self) -> &Path {
        self.function.log()
    }
}

/// Athena's side of a function, by its SDK.
#[derive(Debug)]
pub struct AthenaPeer(Piped);

impl AthenaPeer {
    /// Starts it.
    ///
    /// # Errors
    /// When the SDK or Java cannot be had.
    pub fn start() -> Result<Self> {
        let mut command = Command::new("java");
        command
            .args(["-Xmx256m", "-XX:+UseSerialGC", "--add-opens=java.base/java.nio=ALL-UNNAMED", "-cp"])
            .arg(fetched("athena")?.join("*"))
            .arg(source_dir().join("tests/readers/AthenaPeer.java"));
        Piped::start("athena-peer", command).map(Self)
    }

    /// The request that asks whether a function is there, in this version of the protocol.
    ///
    /// # Errors
    /// What the SDK says.
    pub fn ping(&mut self, version: u32) -> Result<Value> {
        self.0.ask(&json!({"do": "ping", "version": version}))
    }

    /// The request that calls a function for rows of so many texts.
    ///
    /// # Errors
    /// What the SDK says.
    pub fn call(&mut self, version: u32, method: &str, columns: usize, rows: &[Vec<Value>]) -> Result<Value> {
        self.0.ask(&json!({"do": "call", "version": version, "method": method, "columns": columns, "rows": rows}))
    }

    /// What the SDK reads in an answer.
    ///
    /// # Errors
    /// When it cannot.
    pub fn read(&mut self, version: u32, answer: &Value) -> Result<Value> {
        self.0.ask(&json!({"do": "read", "version": version, "text": answer.to_string()}))
    }
}
