//! The built `landing` and `compactor`, as the processes that operators run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::procs::{Process, run_dir, tail, target_dir};

/// The path of a program of this build.
///
/// # Panics
/// When it has not been built: `cargo test` alone does not build the programs of other packages.
pub fn program(name: &str) -> PathBuf {
    let path = target_dir().join(name);
    assert!(path.exists(), "{} is missing: run ./test, or first `cargo build --workspace`", path.display());
    path
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it printed on stdout.
    pub stdout: String,
    /// What it printed on stderr.
    pub stderr: String,
}

impl Ended {
    /// The same, when the exit code is one of `codes`.
    ///
    /// # Errors
    /// With everything it printed.
    pub fn expect(self, codes: &[i32]) -> Result<Self> {
        if self.code.is_some_and(|code| codes.contains(&code)) {
            return Ok(self);
        }
        bail!("exit code {:?}, expected one of {codes:?}\n{}\n{}", self.code, self.stdout, self.stderr);
    }

    /// stdout as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("not JSON: {}\n{}", self.stdout, self.stderr))
    }
}

/// Runs a program to its end.
///
/// # Errors
/// When it cannot be started, or never ends.
pub fn run(name: &str, arguments: &[String]) -> Result<Ended> {
    let mut command = Command::new(program(name));
    command.args(arguments);
    run_command(name, command)
}

/// The same for any command.
///
/// # Errors
/// When it cannot be started, or never ends.
pub fn run_command(name: &str, command: Command) -> Result<Ended> {
    let dir = tempfile::tempdir_in(run_dir())?;
    let (out, err) = (dir.path().join("out"), dir.path().join("err"));
    let status = Process::start_apart(name, command, &out, &err)?.wait()?;
    let text = |path: &Path| anyhow::Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned());
    Ok(Ended { code: status.code(), stdout: text(&out)?, stderr: text(&err)? })
}

/// Starts a program with its output in `log`.
///
/// # Errors
/// When it cannot be started.
pub fn start(name: &str, arguments: &[String], log: &Path) -> Result<Process> {
    let mut command = Command::new(program(name));
    command.args(arguments);
    Process::start(name, command, log)
}

/// Waits for the end of a started program and returns its exit code; `None` when a signal ended it.
///
/// # Errors
/// When it never ends, or when the exit code is not one of `codes`; with the end of its log.
pub fn finish(mut process: Process, codes: &[i32]) -> Result<Option<i32>> {
    let code = process.wait()?.code();
    if code.is_none_or(|code| codes.contains(&code)) {
        return Ok(code);
    }
    bail!("exit code {code:?}, expected one of {codes:?}; its log:\n{}", tail(process.log()));
}
