//! What became of the tests, for all who print it.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::compare::Difference;
use super::watch::{Stamp, stamp};

/// Everything that ran.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// By file.
    pub files: Vec<FileReport>,
}

/// One file.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileReport {
    /// The file.
    pub file: PathBuf,
    /// Why it, or its pipeline, cannot be used; then there are no cases.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Its cases that ran.
    pub cases: Vec<CaseReport>,
    /// Why it could not be rewritten.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_updated: Vec<String>,
    /// Cases that were rewritten.
    #[serde(skip)]
    pub updated: Vec<String>,
    /// What it hangs on, itself first, as it was before its cases ran.
    #[serde(skip)]
    pub watched: Vec<(PathBuf, Stamp)>,
}

/// One case.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CaseReport {
    /// Its name.
    pub name: String,
    /// `file:line:column`.
    pub at: String,
    /// How long it took.
    pub seconds: f64,
    /// How it went.
    pub verdict: Verdict,
    /// What was not as expected.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
}

/// How a case went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// As expected.
    Passed,
    /// Something else came out.
    Failed,
    /// What came out is what is expected from now on.
    Updated,
    /// It could not be run.
    Broken(String),
}

impl FileReport {
    pub(super) fn of(path: &Path) -> Self {
        let mut report = Self { file: path.to_owned(), ..Self::default() };
        report.watch([path.to_owned()]);
        report
    }

    /// Whether the file of tests is no longer what was read.
    pub(super) fn is_outdated(&self) -> bool {
        self.watched.first().is_some_and(|(file, before)| stamp(file) != *before)
    }

    /// The file of tests was rewritten here, which is no change to run it again for.
    pub(super) fn rewritten(&mut self) {
        if let Some((file, before)) = self.watched.first_mut() {
            *before = stamp(file);
        }
    }

    /// Hangs on these files, too.
    pub(super) fn watch(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        self.watched.extend(paths.into_iter().map(|path| {
            let stamp = stamp(&path);
            (path, stamp)
        }));
    }

    pub(super) fn broken(mut self, problems: Vec<String>) -> Self {
        self.problems = problems;
        self
    }

    /// Cases that were rewritten have not failed.
    pub(super) fn settle_updates(&mut self) {
        for case in &mut self.cases {
            if self.updated.contains(&case.name) {
                case.verdict = Verdict::Updated;
            }
        }
    }
}

impl Report {
    /// Cases that ran.
    #[must_use]
    pub fn cases(&self) -> usize {
        self.files.iter().map(|file| file.cases.len()).sum()
    }

    /// Cases that went like this.
    pub fn count(&self, verdict: impl Fn(&Verdict) -> bool) -> usize {
        self.files.iter().flat_map(|file| &file.cases).filter(|case| verdict(&case.verdict)).count()
    }

    /// Whether a file could not be used, or a case not be run.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.files.iter().any(|file| !file.problems.is_empty() || !file.not_updated.is_empty())
            || self.count(|verdict| matches!(verdict, Verdict::Broken(_))) > 0
    }

    /// Whether something came out that was not expected.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.count(|verdict| *verdict == Verdict::Failed) > 0
    }
}
