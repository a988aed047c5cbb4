//! What a command found, table by table: a table that fails does not keep the others from being looked at, and its error
//! stands where its finding would.

use firn_shared::cli::{error_json, say, say_json};
use firn_shared::error::{Error, ErrorKind, Result};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Format, exit_code, tell};

/// Prints findings; as JSON a list.
pub fn print<T: Serialize>(format: Format, found: &[T], text: impl Fn(&T) -> String) -> Result<()> {
    match format {
        Format::Json => say_json(found),
        Format::Text => found.iter().try_for_each(|one| say(&text(one))),
    }
}

/// Findings in their order.
pub struct Findings<T> {
    found: Vec<Found<T>>,
    failure: Option<ErrorKind>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Found<T> {
    Finding(T),
    Failure(Value),
}

impl<T: Serialize> Findings<T> {
    /// None yet.
    pub fn new() -> Self {
        Self { found: Vec::new(), failure: None }
    }

    /// What came of a table. An error is told of at once, because the others may take long.
    pub fn add(&mut self, table: &str, outcome: Result<T>) {
        match outcome {
            Ok(finding) => self.found.push(Found::Finding(finding)),
            Err(error) => self.fail(json!({"table": table, "error": error_json(&error)}), &error),
        }
    }

    /// An error that is no table's.
    pub fn add_error(&mut self, error: &Error) {
        self.fail(json!({"error": error_json(error)}), error);
    }

    fn fail(&mut self, entry: Value, error: &Error) {
        tell(error, Format::Text);
        self.failure.get_or_insert(error.kind());
        self.found.push(Found::Failure(entry));
    }

    /// What was found of the tables that did not fail.
    pub fn good(&self) -> impl Iterator<Item = &T> {
        self.found.iter().filter_map(|found| match found {
            Found::Finding(finding) => Some(finding),
            Found::Failure(_) => None,
        })
    }

    /// The kind of the first error.
    pub fn failure(&self) -> Option<ErrorKind> {
        self.failure
    }

    /// The exit code of the first error, else this one.
    pub fn code_or(&self, code: u8) -> u8 {
        self.failure.map_or(code, exit_code)
    }

    /// Prints findings, as JSON a list with an entry for each failure.
    pub fn print(&self, format: Format, text: impl Fn(&T) -> String) -> Result<()> {
        match format {
            Format::Json => say_json(&self.found),
            Format::Text => self.good().try_for_each(|finding| say(&text(finding))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_an_entry_of_the_list_and_the_first_decides_the_exit_code() {
        let mut findings = Findings::new();
        findings.add("d.a", Ok(json!({"table": "d.a", "rows": 3})));
        findings.add("d.b", Err(Error::data("no rows").with_source(std::io::Error::other("the disk is gone"))));
        findings.add("d.c", Err(Error::config("no column")));
        findings.add("d.d", Ok(json!({"table": "d.d", "rows": 4})));
        let error = json!({"kind": "data", "message": "no rows", "causes": ["the disk is gone"]});
        let list = serde_json::to_value(&findings.found).unwrap();
        assert_eq!(list[0]["rows"], 3);
        assert_eq!(list[1], json!({"table": "d.b", "error": error}));
        assert_eq!((&list[2]["error"]["kind"], &list[3]["rows"]), (&json!("configuration"), &json!(4)));
        assert_eq!((findings.code_or(0), findings.good().count()), (3, 2));
    }
}
