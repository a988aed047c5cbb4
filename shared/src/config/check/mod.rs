//! Wire structs to domain types: every rule that needs more than one value, or the meaning of one.
//!
//! Checks never stop at a problem. They report it and go on with `None` in its place; a domain value is built only when
//! all of its parts are there, and is used only when nothing at all was reported.

mod access;
mod across;
mod cases;
mod columns;
mod firn;
mod keys;
mod maintenance;
mod mode;
mod pipeline;
mod plugins;
mod protect;
mod table;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub(super) use across::across;
pub(super) use cases::tests;
pub use columns::{DELETED, DELETED_AT, OPERATION, change_columns, columns_after, decoded_columns, shaped_columns};
pub(super) use firn::deployment;
pub(super) use pipeline::{Known, pipeline};
pub(super) use plugins::plugins;
pub use table::event_hour_partition;

use super::problems::Problem;
use super::shape::Shape;
use super::yaml::Position;
use crate::error::Error;

/// A file under check: where its values are, and what was found so far.
#[derive(Debug)]
pub(super) struct File {
    /// The file, as it is shown.
    pub(super) path: PathBuf,
    positions: HashMap<String, Position>,
    cut: BTreeSet<String>,
    problems: RefCell<Vec<Problem>>,
}

impl File {
    /// A file whose shape was checked.
    pub(super) fn new(path: &Path, shape: Shape) -> Self {
        let file =
            Self { path: path.to_owned(), positions: shape.positions, cut: shape.cut, problems: RefCell::default() };
        for (at, path, message) in shape.problems {
            file.report_at(at, &path, message);
        }
        file
    }

    /// What was found.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    /// Whether the value at `path` was missing or broken, and reported as such.
    pub(super) fn is_cut(&self, path: &str) -> bool {
        self.cut.contains(path)
    }

    /// Where the value at `path` stands, or the nearest one around it.
    pub(super) fn position(&self, path: &str) -> Position {
        let mut path = path;
        loop {
            if let Some(at) = self.positions.get(path) {
                return *at;
            }
            let Some(end) = path.rfind(['.', '[']) else { return Position { line: 1, column: 1 } };
            path = &path[..end];
        }
    }

    /// `file:line:column` of the value at `path`.
    pub(super) fn place(&self, path: &str) -> String {
        let at = self.position(path);
        format!("{}:{}:{}", self.path.display(), at.line, at.column)
    }

    /// `file:line:column` of every value below `path`, by its path from there.
    pub(super) fn places(&self, path: &str) -> BTreeMap<String, String> {
        let below = self.positions.keys().filter_map(|inner| inner.strip_prefix(path)?.strip_prefix('.'));
        below.map(|rest| (rest.to_owned(), self.place(&format!("{path}.{rest}")))).collect()
    }

    /// The folder that relative paths start from.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    pub(super) fn report_at(&self, at: Position, path: &str, message: impl Into<String>) {
        let (file, path, message) = (self.path.clone(), path.to_owned(), message.into());
        self.problems.borrow_mut().push(Problem { file, line: at.line, column: at.column, path, message });
    }

    /// Reports a problem with the value at `path`.
    pub(super) fn report(&self, path: &str, message: impl Display) {
        self.report_at(self.position(path), path, message.to_string());
    }

    /// Reports a value that later work will understand.
    pub(super) fn unsupported(&self, path: &str, what: impl Display) {
        self.report(path, format!("not supported yet: {what}"));
    }

    /// Reports `value` as not supported when it is there at all.
    fn refuse<T>(&self, value: Option<&T>, path: &str, what: &str) {
        if value.is_some() {
            self.unsupported(path, what);
        }
    }

    /// Takes the value of a result, or reports its error.
    pub(super) fn take<T>(&self, path: &str, result: Result<T, Error>) -> Option<T> {
        result.map_err(|error| self.report(path, error)).ok()
    }

    /// Reads a text that is there.
    fn parse<T: FromStr<Err = Error>>(&self, path: &str, text: Option<&String>) -> Option<T> {
        text.and_then(|text| self.take(path, text.parse()))
    }

    /// Reads a text or takes the default; `None` only after a report.
    fn parse_or<T: FromStr<Err = Error>>(&self, path: &str, text: Option<&String>, default: T) -> Option<T> {
        match text {
            Some(text) => self.take(path, text.parse()),
            None => Some(default),
        }
    }
}
