//! What was expected against what came out: every difference, each with its place in the test file.

use std::collections::{BTreeMap, BTreeSet};

use firn_shared::config::cases::{Case, Expected, Pattern, Place, TableExpect, TestFile, Tree};
use firn_shared::types::LogicalType;
use serde::Serialize;

use super::bed::{Outcome, Record, TableOutcome};
use super::matching::{apart, fits, pair};
use crate::provenance;

/// Beyond so many comparisons rows are paired first come, first served; only overlapping matchers can tell.
const PAIRS_MAX: usize = 4_000_000;
/// Shown of each kind; the rest is counted.
const SHOWN_MAX: usize = 20;
/// A value that differs in more places is shown as a whole.
const PLACES_MAX: usize = 8;
/// Longer texts are cut where whole rows are told, characters.
const TEXT_MAX: usize = 120;

/// Something that is not as expected.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// `file:line:column` of what was expected.
    pub at: String,
    /// The table, unless the case as a whole is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// What differs: `rows`, `quarantine`, `schema`, …
    pub subject: &'static str,
    /// How.
    pub message: String,
    /// Column by column, for a row that is nearly the expected one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cells: Vec<CellDifference>,
}

/// A value that is not as expected.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CellDifference {
    /// Its column.
    pub column: String,
    /// What was expected.
    pub expected: String,
    /// What is there.
    pub found: String,
}

/// Gathers differences of one subject.
struct Subject<'a> {
    tests: &'a TestFile,
    table: Option<&'a str>,
    name: &'static str,
    out: &'a mut Vec<Difference>,
}

impl Subject<'_> {
    fn tell(&mut self, at: Place, message: String, cells: Vec<CellDifference>) {
        let at = format!("{}:{}:{}", self.tests.path.display(), at.line, at.column);
        let table = self.table.map(str::to_owned);
        self.out.push(Difference { at, table, subject: self.name, message, cells });
    }

    fn count(&mut self, at: Place, expected: Option<u64>, found: u64) {
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            self.tell(at, format!("expected {expected}, found {found}"), Vec::new());
        }
    }
}

/// Every difference of a case.
pub fn compare(tests: &TestFile, case: &Case, outcome: &Outcome) -> Vec<Difference> {
    let mut out = Vec::new();
    let Some(expect) = &case.expect else {
        let mut whole = Subject { tests, table: None, name: "expect", out: &mut out };
        whole.tell(
            case.at,
            "nothing is expected yet; `compactor test --update` writes what comes out".to_owned(),
            vec![],
        );
        return out;
    };
    let mut whole = Subject { tests, table: None, name: "error", out: &mut out };
    match (&expect.error, &outcome.error) {
        (None, None) => {}
        (Some(_), None) => whole.tell(expect.at, "the run was expected to fail, and did not".to_owned(), vec![]),
        (None, Some(error)) => whole.tell(expect.at, format!("the run failed: {error}"), vec![]),
        (Some(pattern), Some(error)) => {
            // A text is looked for in the message; a matcher says itself what it wants.
            let said = match pattern {
                Pattern::Value(Tree::Text(text)) => error.contains(text.as_str()),
                other => fits(other, &Tree::Text(error.clone()), &LogicalType::String),
            };
            if !said {
                whole.tell(expect.at, format!("expected {}, the run failed with: {error}", pattern.to_tree()), vec![]);
            }
        }
    }
    whole.name = "rejected";
    let columns = columns_of(&outcome.refused);
    records(
        &mut whole,
        (expect.at, &expect.rejected),
        &outcome.refused,
        (&columns, "record that landing refuses"),
        false,
    );
    for (name, expected) in &expect.tables {
        match resolve(name, outcome) {
            Ok(table) => self::table(tests, expected, table, &mut out),
            Err(why) => {
                Subject { tests, table: None, name: "tables", out: &mut out }.tell(expected.at, why, Vec::new());
            }
        }
    }
    // A table that is not mentioned may have any rows, but quarantines nothing.
    let mentioned: BTreeSet<&str> =
        expect.tables.keys().filter_map(|name| Some(resolve(name, outcome).ok()?.name.as_str())).collect();
    for table in outcome.tables.iter().filter(|table| !mentioned.contains(table.name.as_str())) {
        self::table(tests, &TableExpect { at: expect.at, ..TableExpect::default() }, table, &mut out);
    }
    out
}

/// The table that is meant; an empty name is the only one.
pub fn resolve<'a>(name: &str, outcome: &'a Outcome) -> Result<&'a TableOutcome, String> {
    let known = || outcome.tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>().join(", ");
    if name.is_empty() {
        return match outcome.tables.as_slice() {
            [one] => Ok(one),
            _ => Err(format!("the pipeline has several tables, name them under `tables`: {}", known())),
        };
    }
    let named =
        |table: &&TableOutcome| table.name == name || table.name.split_once('.').is_some_and(|(_, t)| t == name);
    outcome.tables.iter().find(named).ok_or_else(|| format!("no table `{name}`; there are: {}", known()))
}

fn table(tests: &TestFile, expected: &TableExpect, found: &TableOutcome, out: &mut Vec<Difference>) {
    let mut subject = Subject { tests, table: Some(&found.name), name: "schema", out };
    if let Some((at, expected)) = &expected.schema {
        schema(&mut subject, *at, expected, &schema_of(found));
    }
    subject.name = "rows";
    let columns: Vec<_> = found.columns.iter().map(|(name, logical, _)| (name.clone(), logical.clone())).collect();
    if let Some(rows) = &expected.rows {
        records(&mut subject, (expected.at, rows), &found.rows, (&columns, "row"), expected.ordered);
    }
    subject.name = "rowCount";
    subject.count(expected.at, expected.row_count, found.rows.len() as u64);
    subject.name = "quarantine";
    if expected.quarantine_count.is_none() {
        let none = Vec::new();
        let list = expected.quarantine.as_ref().unwrap_or(&none);
        let columns = columns_of(&found.quarantine);
        records(&mut subject, (expected.at, list), &found.quarantine, (&columns, "record in quarantine"), false);
    }
    subject.name = "quarantineCount";
    subject.count(expected.at, expected.quarantine_count, found.quarantine.len() as u64);
    for (name, expected_count, found) in [
        ("tombstones", expected.tombstones, found.tombstones),
        ("superseded", expected.superseded, found.superseded),
        ("deleted", expected.deleted, found.deleted),
    ] {
        subject.name = name;
        subject.count(expected.at, expected_count, found);
    }
    subject.name = "filtered";
    if let Some(counts) = &expected.filtered
        && *counts != found.filtered
    {
        let told = |counts: &BTreeMap<String, u64>| {
            let each = counts.iter().map(|(reason, count)| format!("{reason}: {count}")).collect::<Vec<_>>();
            if each.is_empty() { "nothing".to_owned() } else { each.join(", ") }
        };
        subject.tell(expected.at, format!("expected {}, found {}", told(counts), told(&found.filtered)), Vec::new());
    }
}

/// The columns of a table, one text each.
pub fn schema_of(table: &TableOutcome) -> Vec<String> {
    let columns = table.columns.iter().filter(|(name, ..)| name != provenance::COLUMN);
    columns
        .map(|(name, logical, required)| format!("{name}: {logical}{}", if *required { " required" } else { "" }))
        .collect()
}

fn schema(subject: &mut Subject<'_>, at: Place, expected: &[String], found: &[String]) {
    let words = |text: &String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let expected: Vec<String> = expected.iter().map(words).collect();
    if expected == found {
        return;
    }
    let cells = (0..expected.len().max(found.len())).filter(|i| expected.get(*i) != found.get(*i)).map(|i| {
        let text = |list: &[String]| list.get(i).cloned().unwrap_or_else(|| "no column".to_owned());
        CellDifference { column: format!("column {}", i + 1), expected: text(&expected), found: text(found) }
    });
    let cells = cells.collect();
    subject.tell(at, "other columns".to_owned(), cells);
}

type Columns = [(String, LogicalType)];

/// Records that are no rows have text and numbers; which of them there are is known by the schema of test files.
fn columns_of(records: &[Record]) -> Vec<(String, LogicalType)> {
    let typed = |(name, value): &(String, Tree)| {
        let logical = match (name.as_str(), value) {
            (_, Tree::Int(_)) => LogicalType::Long,
            ("payload", _) => LogicalType::Json,
            _ => LogicalType::String,
        };
        (name.clone(), logical)
    };
    records.first().map_or_else(Vec::new, |record| record.cells.iter().map(typed).collect())
}

fn records(
    subject: &mut Subject<'_>,
    (at, expected): (Place, &[Expected]),
    found: &[Record],
    (columns, what): (&Columns, &str),
    ordered: bool,
) {
    if subject.name == "rows" && !names_are_known(subject, expected, columns) {
        return;
    }
    let fits = |i: usize, j: usize| distance(&expected[i], &found[j], columns) == 0;
    let pairs = if ordered {
        (0..expected.len().min(found.len())).filter(|i| fits(*i, *i)).map(|i| (i, i)).collect()
    } else if expected.len().saturating_mul(found.len()) > PAIRS_MAX {
        first_come(expected.len(), found.len(), &fits)
    } else {
        pair(expected.len(), found.len(), &fits)
    };
    let (used, done): (BTreeSet<usize>, BTreeSet<usize>) =
        (pairs.iter().map(|(_, j)| *j).collect(), pairs.iter().map(|(i, _)| *i).collect());
    let missing: Vec<usize> = (0..expected.len()).filter(|i| !done.contains(i)).collect();
    let mut left: Vec<usize> = (0..found.len()).filter(|j| !used.contains(j)).collect();
    let mut told = 0;
    for i in missing {
        told += 1;
        if told > SHOWN_MAX {
            continue;
        }
        let near =
            if ordered { left.iter().copied().find(|j| *j == i) } else { nearest(&expected[i], found, &left, columns) };
        match near {
            Some(j) => {
                left.retain(|other| *other != j);
                let cells = row_differences(&expected[i], &found[j], columns);
                subject.tell(expected[i].at, format!("{what}{} differs", of_event(&found[j])), cells);
            }
            None => subject.tell(expected[i].at, format!("no such {what}: {}", shown(&expected[i])), Vec::new()),
        }
    }
    if told > SHOWN_MAX {
        subject.tell(at, format!("and {} more that differ or are missing", told - SHOWN_MAX), Vec::new());
    }
    for j in left.iter().take(SHOWN_MAX) {
        let cells: Vec<_> = found[*j].cells.iter().filter(|(name, _)| name != provenance::COLUMN).cloned().collect();
        let row = brief(&Tree::Map(cells));
        subject.tell(at, format!("unexpected {what}{}: {row}", of_event(&found[*j])), Vec::new());
    }
    if left.len() > SHOWN_MAX {
        subject.tell(at, format!("and {} more unexpected", left.len() - SHOWN_MAX), Vec::new());
    }
}

fn of_event(record: &Record) -> String {
    record.event.map_or_else(String::new, |event| format!(" of event {event}"))
}

fn shown(expected: &Expected) -> Tree {
    brief(&Tree::Map(expected.values.iter().map(|(name, pattern)| (name.clone(), pattern.to_tree())).collect()))
}

/// The same with long texts cut.
fn brief(tree: &Tree) -> Tree {
    match tree {
        Tree::Text(text) => match text.char_indices().nth(TEXT_MAX) {
            Some((end, _)) => Tree::Text(format!("{}… ({} characters)", &text[..end], text.chars().count())),
            None => tree.clone(),
        },
        Tree::List(items) => Tree::List(items.iter().map(brief).collect()),
        Tree::Map(entries) => Tree::Map(entries.iter().map(|(key, value)| (key.clone(), brief(value))).collect()),
        scalar => scalar.clone(),
    }
}

/// Reports names that no column has; a typing error there would make every row differ.
fn names_are_known(subject: &mut Subject<'_>, expected: &[Expected], columns: &Columns) -> bool {
    let mut told = BTreeSet::new();
    for row in expected {
        for (name, _) in &row.values {
            if columns.iter().any(|(column, _)| column == name) || !told.insert(name.as_str()) {
                continue;
            }
            let near = columns.iter().map(|(column, _)| (strsim::damerau_levenshtein(column, name), column)).min();
            let hint = match near {
                Some((distance, column)) if distance <= 2 => format!("; did you mean `{column}`?"),
                _ => String::new(),
            };
            subject.tell(row.at, format!("the table has no column `{name}`{hint}"), Vec::new());
        }
    }
    told.is_empty()
}

/// Values that do not fit, by column; of structures the places in them.
fn row_differences(expected: &Expected, found: &Record, columns: &Columns) -> Vec<CellDifference> {
    let mut cells = Vec::new();
    for (name, pattern) in &expected.values {
        let logical = type_of(columns, name);
        let value = found.get(name).unwrap_or(&Tree::Null);
        let places = apart(pattern, value, logical);
        if places.len() > PLACES_MAX {
            let (expected, found) = (pattern.to_tree().to_json(), value.to_json());
            cells.push(CellDifference { column: name.clone(), expected, found });
        } else {
            cells.extend(places.into_iter().map(|(path, expected, found)| {
                let side = |tree: Option<Tree>| tree.map_or_else(|| "nothing".to_owned(), |tree| tree.to_json());
                CellDifference { column: format!("{name}{path}"), expected: side(expected), found: side(found) }
            }));
        }
    }
    cells
}

/// How many of the expected values do not fit.
fn distance(expected: &Expected, found: &Record, columns: &Columns) -> usize {
    let fits = |(name, pattern): &&(String, Pattern)| {
        fits(pattern, found.get(name).unwrap_or(&Tree::Null), type_of(columns, name))
    };
    expected.values.iter().filter(|value| !fits(value)).count()
}

fn type_of<'a>(columns: &'a Columns, name: &str) -> &'a LogicalType {
    columns.iter().find(|(column, _)| column == name).map_or(&LogicalType::String, |(_, logical)| logical)
}

/// The record that has most of the expected values, at least half of them.
fn nearest(expected: &Expected, found: &[Record], left: &[usize], columns: &Columns) -> Option<usize> {
    let distance = |j: &usize| distance(expected, &found[*j], columns);
    let best = left.iter().copied().min_by_key(distance)?;
    (distance(&best) * 2 <= expected.values.len()).then_some(best)
}

fn first_come(left: usize, right: usize, fits: &dyn Fn(usize, usize) -> bool) -> Vec<(usize, usize)> {
    let mut free: Vec<usize> = (0..right).collect();
    let mut pairs = Vec::new();
    for i in 0..left {
        if let Some(at) = free.iter().position(|j| fits(i, *j)) {
            pairs.push((i, free.remove(at)));
        }
    }
    pairs
}
