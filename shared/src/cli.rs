//! What the command lines of both programs do alike: output, errors, exit codes, completion scripts, signals.
//!
//! What a command found goes to standard output, for people or as JSON; logs and errors go to standard error. The exit
//! code follows from the kind of the first failure.

use std::io::Write;

use clap::{Command, ValueEnum};
use clap_complete::Shell;
use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};

/// Done.
pub const DONE: u8 = 0;
/// Reconciliation found a difference.
pub const DIFFERENCE: u8 = 4;
/// More records were quarantined than the table's threshold allows.
pub const OVER_THRESHOLD: u8 = 5;
/// Personal data was found that no pipeline declares.
pub const PERSONAL_DATA: u8 = 6;
/// A test of a pipeline failed.
pub const TESTS_FAILED: u8 = 7;
/// Nothing to do; Airflow's code for skipped.
pub const NOTHING_TO_DO: u8 = 99;

/// How a command prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs, one JSON value.
    Json,
}

/// What a failure of this kind tells the scheduler.
#[must_use]
pub fn exit_code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Conflict | ErrorKind::Unavailable => 1,
        ErrorKind::Config => 2,
        ErrorKind::Data => 3,
        ErrorKind::Bug => 70,
    }
}

/// Writes to standard output; a reader that has seen enough (`| head`) is no failure.
///
/// # Errors
/// `Unavailable` when nothing can be written.
pub fn say(text: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::unavailable("cannot write to standard output").with_source(e))
        }
        _ => Ok(()),
    }
}

/// Writes a value as JSON.
///
/// # Errors
/// As [`say`].
pub fn say_json(value: &(impl Serialize + ?Sized)) -> Result<()> {
    let json = serde_json::to_string_pretty(value);
    say(&json.map_err(|e| Error::bug("findings do not serialise").with_source(e))?)
}

/// An error as programs read it: `kind`, `message`, and the messages of its `causes`.
#[must_use]
pub fn error_json(error: &Error) -> serde_json::Value {
    serde_json::json!({"kind": error.kind().to_string(), "message": error.to_string(), "causes": causes(error)})
}

fn causes(error: &Error) -> Vec<String> {
    let mut causes = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    causes
}

/// Prints an error with its causes, to standard output, too, for programs.
pub fn tell(program: &str, error: &Error, format: Format) {
    if format == Format::Json {
        let json = serde_json::json!({"error": error_json(error)});
        // The error that is being told of is the one that counts.
        let _ = say(&json.to_string());
    }
    eprintln!("{program}: {error}");
    for cause in causes(error) {
        eprintln!("  because: {cause}");
    }
}

/// Prints a completion script for a shell.
///
/// # Errors
/// As [`say`].
pub fn completions(mut command: Command, shell: Shell) -> Result<()> {
    let (mut script, name) = (Vec::new(), command.get_name().to_owned());
    clap_complete::generate(shell, &mut command, name, &mut script);
    say(String::from_utf8_lossy(&script).trim_end())
}

/// Listens from now on for SIGTERM and SIGINT; what it returns resolves at the first of them.
///
/// # Errors
/// `Bug` when the handlers cannot be installed.
pub fn asked_to_stop() -> Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|e| Error::bug("cannot listen for signals").with_source(e));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
