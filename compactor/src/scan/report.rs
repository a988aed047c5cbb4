//! Findings: what a path holds, how sure that is, and whether the pipeline knows.

use std::fmt::Write;

use clap::ValueEnum;
use firn_shared::config::domain::{ColumnPath, JsonPath, Output, PathStep, PayloadFormat, Pipeline};
use firn_shared::config::protected::{Traced, traces};
use firn_shared::config::shaped_columns;
use serde::Serialize;

use super::detect::Kind;
use super::evidence::{ANY_KEY, Counts, Evidence, HEADER, RECORD_KEY};

/// How sure a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "camelCase")]
pub enum Confidence {
    /// Now and then, or by the field's name alone.
    Low,
    /// Often, or inside longer texts.
    Medium,
    /// As a rule, by a form that nothing else has or with a check digit.
    High,
}

/// A path that holds personal data.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Where in the payload; `(key)` is the record's key, `header NAME` one of its headers.
    pub path: String,
    /// What it looks like.
    pub kind: Kind,
    /// How sure that is.
    pub confidence: Confidence,
    /// Values that match as a whole.
    pub whole: u64,
    /// Values that contain it.
    pub inside: u64,
    /// Values that were seen there.
    pub values: u64,
    /// Columns that take it, `database.table.column`, those that are dropped included.
    pub columns: Vec<String>,
    /// Columns among these where no `piiColumns` says what becomes of it; a path without columns stays in the raw zone only.
    pub undeclared: Vec<String>,
}

/// What was looked at, and what was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Scanned {
    /// The pipeline.
    pub pipeline: String,
    /// Objects looked into, those of refused records among them.
    pub objects: u64,
    /// Records looked at.
    pub records: u64,
    /// Records that are no envelope or no JSON.
    pub unreadable: u64,
    /// Values at paths beyond those that are told apart.
    pub beyond: u64,
    /// What was found, the surest first.
    pub findings: Vec<Finding>,
}

impl Finding {
    /// Whether somebody looked at it: every column that takes it is declared.
    #[must_use]
    pub fn is_declared(&self) -> bool {
        !self.columns.is_empty() && self.undeclared.is_empty()
    }
}

impl Scanned {
    pub(super) fn of(pipeline: &Pipeline) -> Self {
        let name = pipeline.name.to_string();
        Self { pipeline: name, objects: 0, records: 0, unreadable: 0, beyond: 0, findings: Vec::new() }
    }

    pub(super) fn conclude(&mut self, pipeline: &Pipeline, evidence: Evidence) {
        self.beyond = evidence.beyond;
        for (path, seen) in evidence.into_paths() {
            for (kind, counts) in &seen.kinds {
                let confidence = confidence(*counts, seen.values);
                let columns = columns(pipeline, &path);
                let named = |column: &&(String, bool)| !column.1;
                self.findings.push(Finding {
                    path: spelled(&path),
                    kind: *kind,
                    confidence,
                    whole: counts.sure + counts.likely,
                    inside: counts.inside,
                    values: seen.values,
                    undeclared: columns.iter().filter(named).map(|(name, _)| name.clone()).collect(),
                    columns: columns.into_iter().map(|(name, _)| name).collect(),
                });
            }
        }
        self.findings.sort_by(|a, b| b.confidence.cmp(&a.confidence).then_with(|| a.path.cmp(&b.path)));
    }

    /// Findings that nobody declared, at least so sure.
    pub fn undeclared(&self, least: Confidence) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.confidence >= least && !finding.is_declared())
    }
}

fn confidence(counts: Counts, values: u64) -> Confidence {
    let share = |count: u64, of: u64| count * of >= values;
    if counts.sure >= 3 && share(counts.sure, 2) {
        Confidence::High
    } else if (counts.sure > 0 && share(counts.sure, 20))
        || (counts.likely >= 3 && share(counts.likely, 2))
        || (counts.inside >= 3 && share(counts.inside, 20))
    {
        Confidence::Medium
    } else {
        Confidence::Low
    }
}

/// The path as JSON paths are spelled, with `[]` for elements of lists.
fn spelled(path: &[String]) -> String {
    let mut text = String::new();
    let mut keys: Vec<String> = Vec::new();
    let path = match path {
        [header, name, inside @ ..] if header == HEADER => {
            let _ = write!(text, "header {}", name.escape_debug());
            inside
        }
        _ => path,
    };
    for key in path {
        if key == "[]" {
            if !keys.is_empty() || text.is_empty() {
                push_keys(&mut text, &mut keys);
            }
            text.push_str("[]");
        } else if key == RECORD_KEY {
            text.push_str(key);
        } else {
            keys.push(key.clone());
        }
    }
    push_keys(&mut text, &mut keys);
    text
}

fn push_keys(text: &mut String, keys: &mut Vec<String>) {
    let path = JsonPath(std::mem::take(keys)).to_string();
    text.push_str(if text.is_empty() { &path } else { path.trim_start_matches('$') });
}

/// Where in the row a path of the payload lies: change events have the row somewhere inside.
fn in_row(format: PayloadFormat, path: &[String]) -> Vec<String> {
    let is = |at: usize, names: &[&str]| path.get(at).is_some_and(|key| names.contains(&key.as_str()));
    match format {
        PayloadFormat::Debezium => {
            let envelope = usize::from(is(0, &["payload"]));
            let image = if is(envelope, &["after", "before"]) { envelope + 1 } else { 0 };
            path[image..].to_vec()
        }
        // `{"name": {"S": …}}`: every second key is a type.
        PayloadFormat::Dynamodb if is(1, &["NewImage", "OldImage", "Keys"]) => {
            path[2..].iter().step_by(2).cloned().collect()
        }
        _ => path.to_vec(),
    }
}

/// Columns that take the value at a path or something around it, whatever steps made of it, and whether each is declared.
fn columns(pipeline: &Pipeline, path: &[String]) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    if path.first().is_some_and(|key| key == RECORD_KEY || key == HEADER) {
        return found;
    }
    let path = in_row(pipeline.ingestion.format, path);
    // A key that is not shown may be any.
    let same = |(key, own): (&String, &String)| key == own || key == ANY_KEY;
    let takes = |of: &Traced| of.place.0.len() <= path.len() && path.iter().zip(&of.place.0).all(same);
    for output in &pipeline.outputs {
        for column in shaped_columns(output) {
            let taken: Vec<Traced> = traces(output, &column.name).into_iter().filter(takes).collect();
            let inside = |of: &Traced| of.same.then(|| &path[of.place.0.len()..]);
            if !taken.is_empty() {
                let table = &output.table;
                let name = format!("{}.{}.{}", table.database, table.name, column.name);
                found.push((name, taken.iter().all(|of| is_declared(output, &column.name, inside(of)))));
            }
        }
    }
    found
}

/// Whether somebody has said what becomes of what is `inside` a column, or of the column where the way into it is not known.
fn is_declared(output: &Output, column: &str, inside: Option<&[String]>) -> bool {
    let holds = |(step, key): (&PathStep, &String)| match step {
        PathStep::Each => true,
        PathStep::Field(name) => name == key,
    };
    let declares = |path: &ColumnPath| match inside {
        None => path.inside.is_empty(),
        Some(inside) => path.inside.len() <= inside.len() && path.inside.iter().zip(inside).all(holds),
    };
    output.table.protections.iter().any(|p| p.path.column == column && declares(&p.path))
}

/// The findings as text.
#[must_use]
pub fn render(scanned: &Scanned, least: Confidence) -> String {
    let Scanned { pipeline, objects, records, .. } = scanned;
    let mut text = format!("{pipeline}: {records} records of {objects} raw objects");
    if scanned.unreadable > 0 {
        let _ = write!(text, ", {} of them unreadable", scanned.unreadable);
    }
    let shown = scanned.findings.iter().filter(|finding| finding.confidence >= least);
    for finding in shown {
        let Finding { path, confidence, whole, inside, values, columns, .. } = finding;
        let _ =
            write!(text, "\n  {:<8} {:<11} {path}  ", format!("{confidence:?}").to_lowercase(), finding.kind.as_str());
        let _ = write!(text, "{} of {values}", whole + inside);
        if *inside > 0 {
            let _ = write!(text, " ({inside} inside text)");
        }
        let state = match (columns.is_empty(), finding.undeclared.is_empty()) {
            (true, _) => "in no table, kept in the raw zone".to_owned(),
            (_, true) => "declared".to_owned(),
            _ => format!("undeclared: {}", finding.undeclared.join(", ")),
        };
        let _ = write!(text, "  {state}");
    }
    if scanned.findings.is_empty() {
        text.push_str("\n  nothing that looks like personal data");
    }
    text
}
