//! Tests of pipelines: `*.test.yaml` beside them, run through the real path without servers.
//!
//! ```text
//! find ─→ records ─→ land (landing's own admission, a raw zone in memory)
//!                      └─→ bed: run, as ever (decode → transform → write → commit, all of it in memory) ─→ rows, quarantine
//!                                                            compare ←─ matching, cell ──┘
//!                                  report (text, JSON, JUnit) ←─┘└─→ update (rewrites what is expected)
//! ```
//! A case starts with empty tables. It may have several runs, so keys meet, deletes are carried out and loads are replaced
//! as in production. After the runs `reconcile` must balance: a record that is nowhere is a bug of ours, and fails the case.

mod bed;
mod cell;
mod compare;
mod find;
mod junit;
mod land;
mod lookups;
mod matching;
mod records;
mod render;
mod report;
mod update;
mod watch;
mod yaml;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use firn_shared::config::cases::{Case, TestFile};
use firn_shared::config::domain::Pipeline;
use firn_shared::config::{key_names, load_pipeline, load_tests, plugin_files, with_plugins};
use firn_shared::error::{Error, Result};
use firn_shared::functions::Functions;
use futures::{StreamExt, stream};
use regex::Regex;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use crate::run::references::local_files;

pub use bed::{Outcome, Record, TableOutcome};
pub use compare::{CellDifference, Difference};
pub use junit::junit;
pub use render::{Paint, render};
pub use report::{CaseReport, FileReport, Report, Verdict};
pub use watch::Watch;

/// What is to be done.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Files, or directories that are searched for `*.test.yaml`.
    pub paths: Vec<PathBuf>,
    /// Only cases in whose name this is found.
    pub filter: Option<Regex>,
    /// Rewrites what failed cases expect.
    pub update: bool,
    /// Cases that run at once; 0 is one per processor.
    pub at_once: usize,
    /// The functions that steps may call.
    pub functions: Functions,
    /// The deployment whose plug-ins steps may call; else the `firn.yaml` beside a pipeline, or beside its folder.
    pub firn: Option<PathBuf>,
}

/// Runs the tests.
///
/// # Errors
/// `Config` when there is no test, or none that the filter leaves. What is wrong with a file is in its report.
pub async fn run(options: &Options) -> Result<Report> {
    let found = find::find(&options.paths)?;
    let at_once = match options.at_once {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        given => given,
    };
    let mut report = Report::default();
    for path in found.files {
        report.files.push(run_file(&path, options, at_once).await?);
    }
    if report.cases() == 0 && report.files.iter().all(|file| file.problems.is_empty()) {
        let filter = options.filter.as_ref().map_or_else(String::new, |filter| format!(" that `{filter}` is found in"));
        return Err(Error::config(format!("no case{filter}; look at the paths and the filter")));
    }
    Ok(report)
}

async fn run_file(path: &Path, options: &Options, at_once: usize) -> Result<FileReport> {
    let mut report = FileReport::of(path);
    let (tests, pipeline) = match load(&mut report, options) {
        Ok((tests, pipeline)) => (Arc::new(tests), Arc::new(pipeline)),
        Err(problems) => return Ok(report.broken(problems)),
    };
    let folder = pipeline.file.parent().unwrap_or(Path::new(""));
    let steps = pipeline.outputs.iter().map(|output| &output.transformations);
    report.watch(steps.flat_map(|steps| local_files(steps, folder)));
    let wanted = |case: &Case| options.filter.as_ref().is_none_or(|filter| filter.is_match(&case.name));
    let numbers = (0..tests.cases.len()).filter(|number| wanted(&tests.cases[*number]));
    // Each case has a thread, so that they use all processors.
    let cases = numbers.map(|number| {
        let (tests, pipeline, runtime) = (Arc::clone(&tests), Arc::clone(&pipeline), Handle::current());
        let panicked = panicked(&tests, &tests.cases[number]);
        let case = spawn_blocking(move || runtime.block_on(run_case(&tests, &tests.cases[number], &pipeline)));
        async move { case.await.unwrap_or((panicked, None)) }
    });
    let done: Vec<(CaseReport, Option<Outcome>)> = stream::iter(cases).buffered(at_once).collect().await;
    if options.update {
        update::update(&tests, &done, &mut report)?;
    }
    report.cases.extend(done.into_iter().map(|(case, _)| case));
    report.settle_updates();
    Ok(report)
}

/// A file of tests and its pipeline; the report hears of every file before it is read.
fn load(report: &mut FileReport, options: &Options) -> std::result::Result<(TestFile, Pipeline), Vec<String>> {
    let told = |problems: firn_shared::config::Problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>();
    let tests = load_tests(&report.file).map_err(told)?;
    let places = options.firn.clone().map_or_else(|| firn_of(&tests.pipeline), |given| vec![given]);
    report.watch([tests.pipeline.clone()].into_iter().chain(places.clone()));
    let firn = options.firn.clone().or_else(|| places.into_iter().find(|path| path.is_file()));
    report.watch(firn.iter().flat_map(|firn| plugin_files(firn)));
    let samples = tests.cases.iter().flat_map(|case| &case.runs).filter_map(|run| run.file.as_ref());
    report.watch(samples.map(|sample| sample.path.clone()));
    report.watch(tests.lookups.iter().map(|lookup| lookup.path.clone()));
    if !tests.pipeline.is_file() {
        let (file, pipeline) = (tests.path.display(), tests.pipeline.display());
        return Err(vec![format!(
            "{file}: there is no pipeline {pipeline}; name the one that is tested under `pipeline`"
        )]);
    }
    let functions = match &firn {
        Some(firn) => with_plugins(firn, &options.functions).map_err(told)?,
        None => options.functions.clone(),
    };
    // So that columns are called as in the table: `_key_people`.
    let keys = firn.as_deref().and_then(key_names);
    let mut pipeline = load_pipeline(&tests.pipeline, &functions, keys.as_deref()).map_err(told)?;
    lookups::replace(&tests, &mut pipeline)?;
    Ok((tests, pipeline))
}

/// Where the `firn.yaml` that belongs to a pipeline may be: beside it, or beside its folder.
fn firn_of(pipeline: &Path) -> Vec<PathBuf> {
    let folder = pipeline.parent().unwrap_or(Path::new(""));
    vec![folder.join("firn.yaml"), folder.join("../firn.yaml")]
}

async fn run_case(tests: &TestFile, case: &Case, pipeline: &Arc<Pipeline>) -> (CaseReport, Option<Outcome>) {
    let begun = Instant::now();
    let outcome = Box::pin(bed::run(tests, case, pipeline)).await;
    let (verdict, differences, outcome) = match outcome {
        Err(error) => (Verdict::Broken(chain(&error)), Vec::new(), None),
        Ok(outcome) => {
            let differences = compare::compare(tests, case, &outcome);
            let verdict = if differences.is_empty() { Verdict::Passed } else { Verdict::Failed };
            (verdict, differences, Some(outcome))
        }
    };
    let (at, seconds) = (place(tests, case), begun.elapsed().as_secs_f64());
    let report = CaseReport { name: case.name.clone(), at, seconds, verdict, differences };
    (report, outcome)
}

/// The report of a case that panics: the others have theirs all the same.
fn panicked(tests: &TestFile, case: &Case) -> CaseReport {
    let verdict = Verdict::Broken("it panicked; please report this test".to_owned());
    CaseReport { name: case.name.clone(), at: place(tests, case), seconds: 0.0, verdict, differences: Vec::new() }
}

fn place(tests: &TestFile, case: &Case) -> String {
    format!("{}:{}:{}", tests.path.display(), case.at.line, case.at.column)
}

/// An error with its causes, on one line.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}, because: {error}");
        cause = error.source();
    }
    text
}
