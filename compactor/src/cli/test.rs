//! `compactor test`: needs no deployment, so it runs before `firn.yaml` is read; of that only the plug-ins matter to it.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Args;
use firn_shared::cli::say;
use firn_shared::config::env;
use firn_shared::error::{Error, Result};
use firn_shared::functions::Functions;
use regex::Regex;

use super::{DONE, Format, TESTS_FAILED, exit_code};
use crate::testing::{self, Options, Paint, Report, Watch};

/// What to test, and how.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// Files of tests, or directories that are searched for `*.test.yaml` (default: those of `--pipelines`).
    paths: Vec<PathBuf>,
    /// Only cases in whose name this regular expression is found.
    #[arg(long, value_name = "REGEX")]
    filter: Option<Regex>,
    /// Write what comes out into the files as what is expected.
    #[arg(long)]
    update: bool,
    /// Run again whenever a test, its pipeline, its samples or plug-ins change, until interrupted.
    #[arg(long)]
    watch: bool,
    /// Write a report as `JUnit` XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// Runs tests and prints what became of them.
pub fn test(
    args: TestArgs,
    (firn, pipelines): (Option<PathBuf>, Vec<PathBuf>),
    functions: Functions,
    format: Format,
) -> Result<u8> {
    // Cases run side by side, each on one thread; Polars' own pool would only stand in their way.
    crate::transform::bound_threads(1);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("compactor-io")
        .build()
        .map_err(|e| Error::unavailable("cannot start the runtime").with_source(e))?;
    let paths = if args.paths.is_empty() { pipelines } else { args.paths.clone() };
    let (filter, update) = (args.filter.clone(), args.update);
    let options = Options { paths, filter, update, at_once: 0, functions, firn };
    runtime.block_on(async {
        let mut watch = Watch::default();
        loop {
            watch.look_at(&options.paths);
            match testing::run(&options).await {
                Ok(report) => {
                    tell(&report, &args, format)?;
                    if !args.watch {
                        return Ok(code(&report));
                    }
                    watch.hang_on(&report);
                }
                // An editor may be about to put the file there.
                Err(error) if args.watch => super::tell(&error, format),
                Err(error) => return Err(error),
            }
            watch.changed().await;
        }
    })
}

fn tell(report: &Report, args: &TestArgs, format: Format) -> Result<()> {
    if let Some(path) = &args.junit {
        write(path, &testing::junit(report))?;
    }
    match format {
        Format::Json => {
            let json = serde_json::to_string_pretty(report);
            say(&json.map_err(|e| Error::bug("a report does not serialise").with_source(e))?)
        }
        Format::Text => {
            let colour = std::io::stdout().is_terminal() && env::variable("NO_COLOR").is_none_or(|no| no.is_empty());
            say(&testing::render(report, Paint(colour)))
        }
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    let failed = |e| Error::unavailable(format!("cannot write {}", path.display())).with_source(e);
    std::fs::write(path, text).map_err(failed)
}

fn code(report: &Report) -> u8 {
    if report.is_broken() {
        exit_code(firn_shared::error::ErrorKind::Config)
    } else if report.has_failed() {
        TESTS_FAILED
    } else {
        DONE
    }
}
