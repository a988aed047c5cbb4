//! `--update`: what came out becomes what is expected, in the file itself.
//!
//! Only the `expect:` blocks of cases that failed are written again; everything around them stays as it is, comments
//! included. Inside a block, values that fit stay as they were written, so matchers survive. The new text is read and
//! compared before the file is replaced: an update that would not pass is not made.

use std::io::Write;
use std::path::Path;

use firn_shared::config::cases::{Case, Expected, Pattern, TableExpect, TestFile, Tree};
use firn_shared::config::read_tests;
use firn_shared::error::{Error, Result};
use firn_shared::types::LogicalType;

use super::bed::{Outcome, Record, TableOutcome};
use super::compare::{compare, resolve, schema_of};
use super::matching::{fits, pair};
use super::report::{CaseReport, FileReport, Verdict};
use super::yaml::{Entry, block};
use crate::provenance;

/// More rows are counted, not listed, where nothing was expected before.
const ROWS_MAX: usize = 200;

/// Rewrites the cases that failed.
///
/// # Errors
/// `Unavailable` when the file cannot be read or written; that a case cannot be rewritten is put into the report.
pub fn update(tests: &TestFile, done: &[(CaseReport, Option<Outcome>)], report: &mut FileReport) -> Result<()> {
    let failed: Vec<(&Case, &Outcome)> = done
        .iter()
        .filter(|(case, _)| case.verdict == Verdict::Failed)
        .filter_map(|(case, outcome)| Some((tests.cases.iter().find(|c| c.name == case.name)?, outcome.as_ref()?)))
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    let cannot = |what: &str, e: std::io::Error| {
        Error::unavailable(format!("cannot {what} {}", tests.path.display())).with_source(e)
    };
    if report.is_outdated() {
        // Places in what was read are not places in what is there.
        report.not_updated.push(format!("{}: was changed while its cases ran; run it again", tests.path.display()));
        return Ok(());
    }
    let before = std::fs::read_to_string(&tests.path).map_err(|e| cannot("read", e))?;
    let mut lines: Vec<String> = before.lines().map(str::to_owned).collect();
    let mut rewritten = Vec::new();
    // From the last to the first, so that places further up stay true.
    for (case, outcome) in failed.iter().rev() {
        match splice(&mut lines, case, outcome) {
            Ok(()) => rewritten.push((case.name.clone(), *outcome)),
            Err(why) => report.not_updated.push(format!("{}:{}: {why}", tests.path.display(), case.at.line)),
        }
    }
    let end = if before.contains("\r\n") { "\r\n" } else { "\n" };
    let after = lines.join(end) + end;
    if let Err(why) = proves(&tests.path, &after, tests.cases.len(), &rewritten) {
        report.not_updated.push(format!("{}: nothing was written: {why}", tests.path.display()));
        return Ok(());
    }
    replace(&tests.path, after.as_bytes()).map_err(|e| cannot("write", e))?;
    report.rewritten();
    report.updated = rewritten.into_iter().map(|(name, _)| name).collect();
    Ok(())
}

/// Whether the new text says what came out.
fn proves(path: &Path, text: &str, cases: usize, rewritten: &[(String, &Outcome)]) -> Result<(), String> {
    let tests = read_tests(path, text).map_err(|problems| format!("it would not be readable: {problems}"))?;
    if tests.cases.len() != cases {
        return Err("cases would be lost".to_owned());
    }
    for (name, outcome) in rewritten {
        let case = tests.cases.iter().find(|case| case.name == *name).ok_or("a case would be lost")?;
        if let Some(difference) = compare(&tests, case, outcome).first() {
            return Err(format!("`{name}` would still differ: {}", difference.message));
        }
    }
    Ok(())
}

/// Replaces the file as a whole, or not at all.
fn replace(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text)?;
    file.as_file().set_permissions(std::fs::metadata(path)?.permissions())?;
    file.persist(path)?;
    Ok(())
}

/// Puts the new block in place of the old one, or at the end of the case.
fn splice(lines: &mut Vec<String>, case: &Case, outcome: &Outcome) -> Result<(), String> {
    let (first, indent) = (case.at.line - 1, case.at.column - 1);
    let depth = |line: &str| line.chars().take_while(|c| *c == ' ').count();
    let idle = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    if lines.get(first).is_none_or(|line| line.chars().nth(indent) == Some('{')) {
        return Err("the case is written in braces; give its keys lines of their own".to_owned());
    }
    let beyond = |line: &String| !idle(line) && depth(line) < indent;
    let after = lines[first + 1..].iter().position(beyond).map_or(lines.len(), |at| first + 1 + at);
    let is_key = |line: &String| depth(line) == indent && line.trim_start().starts_with("expect:");
    let mut new = Vec::new();
    block(&[Entry::map("expect", entries(case, outcome))], indent, &mut new);
    let last_inside = |from: usize, deeper: usize| {
        (from..after).rev().find(|at| !lines[*at].trim().is_empty() && depth(&lines[*at]) >= deeper)
    };
    let range = match (first + 1..after).find(|at| is_key(&lines[*at])) {
        Some(key) => {
            // What is no deeper than the key and no comment belongs to the next key.
            let next = (key + 1..after).find(|at| !idle(&lines[*at]) && depth(&lines[*at]) <= indent).unwrap_or(after);
            let end = (key + 1..next).rev().find(|at| !lines[*at].trim().is_empty() && depth(&lines[*at]) > indent);
            key..end.map_or(key + 1, |end| end + 1)
        }
        None => {
            if case.expect.is_some() {
                return Err("`expect` does not stand on a line of its own".to_owned());
            }
            let end = last_inside(first, indent).map_or(first + 1, |end| end.max(first) + 1);
            end..end
        }
    };
    lines.splice(range, new);
    Ok(())
}

/// The new block.
fn entries(case: &Case, outcome: &Outcome) -> Vec<Entry> {
    let old = case.expect.clone().unwrap_or_default();
    let mut out = Vec::new();
    if let Some(error) = &outcome.error {
        let message = Tree::Text(error.clone());
        let said = |pattern: &&Pattern| match pattern {
            Pattern::Value(Tree::Text(text)) => error.contains(text.as_str()),
            other => fits(other, &message, &LogicalType::String),
        };
        out.push(Entry::value("error", old.error.as_ref().filter(said).map_or(message.clone(), Pattern::to_tree)));
    }
    if !outcome.refused.is_empty() {
        let columns = columns_of(&old.rejected, &["event", "reason"]);
        out.push(Entry::rows("rejected", merged(&old.rejected, &outcome.refused, &columns, &|_| LogicalType::String)));
    }
    let named = old.named || outcome.tables.len() > 1;
    let mut tables = Vec::new();
    for table in &outcome.tables {
        let of = old.tables.iter().find(|(name, _)| resolve(name, outcome).is_ok_and(|found| found.name == table.name));
        let entries = match of {
            Some((_, old)) => table_entries(old, table),
            // Where nothing was said of a table, only what must be said is added.
            None if case.expect.is_some() && table.quarantine.is_empty() => continue,
            None if case.expect.is_some() => table_entries(&TableExpect::default(), table),
            None => table_entries(&fresh(table), table),
        };
        tables.push(Entry::map(of.map_or(table.name.as_str(), |(name, _)| name.as_str()), entries));
    }
    match tables.pop() {
        Some(Entry::Map(_, entries)) if !named && tables.is_empty() => out.push(Entry::map("table", entries)),
        Some(last) => {
            tables.push(last);
            out.push(Entry::map("tables", tables));
        }
        None => {}
    }
    out
}

/// What is said of a table of which nothing was said.
fn fresh(table: &TableOutcome) -> TableExpect {
    let many = table.rows.len() > ROWS_MAX;
    TableExpect {
        rows: (!many).then(Vec::new),
        row_count: many.then_some(0),
        filtered: (!table.filtered.is_empty()).then(Default::default),
        ..TableExpect::default()
    }
}

fn table_entries(old: &TableExpect, found: &TableOutcome) -> Vec<Entry> {
    let mut out = Vec::new();
    let count = |name: &str, count: u64| Entry::value(name, Tree::Int(count as i64));
    if old.schema.is_some() {
        out.push(Entry::rows("schema", schema_of(found).into_iter().map(Tree::Text).collect()));
    }
    if old.ordered {
        out.push(Entry::value("ordered", Tree::Bool(true)));
    }
    if let Some(rows) = &old.rows {
        let all: Vec<&str> = found.columns.iter().map(|(name, ..)| name.as_str()).collect();
        let all: Vec<&str> = all.into_iter().filter(|name| *name != provenance::COLUMN).collect();
        let known = |name: &String| found.columns.iter().any(|(column, ..)| column == name);
        let columns: Vec<String> = columns_of(rows, &all).into_iter().filter(known).collect();
        let types = |name: &str| {
            let column = found.columns.iter().find(|(column, ..)| column == name);
            column.map_or(LogicalType::String, |(_, logical, _)| logical.clone())
        };
        let rows = if old.ordered {
            in_order(rows, &found.rows, &columns, &types)
        } else {
            merged(rows, &found.rows, &columns, &types)
        };
        out.push(Entry::rows("rows", rows));
    }
    if old.row_count.is_some() {
        out.push(count("rowCount", found.rows.len() as u64));
    }
    if old.quarantine_count.is_some() {
        out.push(count("quarantineCount", found.quarantine.len() as u64));
    } else if old.quarantine.is_some() || !found.quarantine.is_empty() {
        let list = old.quarantine.clone().unwrap_or_default();
        let columns = columns_of(&list, &["event", "path", "reason", "step"]);
        let types = |name: &str| if name == "event" { LogicalType::Long } else { LogicalType::String };
        out.push(Entry::rows("quarantine", merged(&list, &found.quarantine, &columns, &types)));
    }
    if old.filtered.is_some() {
        let counts = found.filtered.iter().map(|(reason, count)| (reason.clone(), Tree::Int(*count as i64)));
        out.push(Entry::value("filtered", Tree::Map(counts.collect())));
    }
    for (name, old, found) in [
        ("tombstones", old.tombstones, found.tombstones),
        ("superseded", old.superseded, found.superseded),
        ("deleted", old.deleted, found.deleted),
    ] {
        if old.is_some() {
            out.push(count(name, found));
        }
    }
    out
}

/// The columns that the expected rows name; `all` when there are none.
fn columns_of(rows: &[Expected], all: &[&str]) -> Vec<String> {
    let mut columns: Vec<String> = Vec::new();
    for (name, _) in rows.iter().flat_map(|row| &row.values) {
        if !columns.contains(name) {
            columns.push(name.clone());
        }
    }
    // In the order of the table, where it knows them.
    columns.sort_by_key(|name| all.iter().position(|other| other == name).unwrap_or(usize::MAX));
    if columns.is_empty() { all.iter().map(ToString::to_string).collect() } else { columns }
}

type Types<'a> = &'a dyn Fn(&str) -> LogicalType;

/// How many values of a found record do not fit an expected one.
fn distance(expected: &Expected, found: &Record, types: Types<'_>) -> usize {
    let differs =
        |(name, pattern): &&(String, Pattern)| !fits(pattern, found.get(name).unwrap_or(&Tree::Null), &types(name));
    expected.values.iter().filter(differs).count()
}

/// What was found, as it was expected where that fits, in the order of the records.
fn merged(old: &[Expected], found: &[Record], columns: &[String], types: Types<'_>) -> Vec<Tree> {
    let mut of: Vec<Option<usize>> = vec![None; found.len()];
    for (i, j) in pair(old.len(), found.len(), &|i, j| distance(&old[i], &found[j], types) == 0) {
        of[j] = Some(i);
    }
    let mut left: Vec<usize> = (0..old.len()).filter(|i| !of.contains(&Some(*i))).collect();
    for j in 0..found.len() {
        if of[j].is_some() {
            continue;
        }
        let near = |i: &usize| distance(&old[*i], &found[j], types);
        if let Some(i) = left.iter().copied().min_by_key(near).filter(|i| near(i) * 2 <= old[*i].values.len()) {
            left.retain(|other| *other != i);
            of[j] = Some(i);
        }
    }
    of.iter().zip(found).map(|(of, record)| row(of.map(|i| &old[i]), record, columns, types)).collect()
}

fn in_order(old: &[Expected], found: &[Record], columns: &[String], types: Types<'_>) -> Vec<Tree> {
    found.iter().enumerate().map(|(i, record)| row(old.get(i), record, columns, types)).collect()
}

fn row(old: Option<&Expected>, found: &Record, columns: &[String], types: Types<'_>) -> Tree {
    let Some(old) = old else {
        let value = |name: &String| (name.clone(), literal(found.get(name).unwrap_or(&Tree::Null)));
        return Tree::Map(columns.iter().map(value).collect());
    };
    let named = |name: &&String| old.values.iter().any(|(other, _)| other == *name);
    let value = |name: &String| {
        let found = found.get(name).unwrap_or(&Tree::Null);
        let pattern = old.values.iter().find(|(other, _)| other == name).map(|(_, pattern)| pattern);
        let kept = pattern.filter(|pattern| fits(pattern, found, &types(name)));
        let written = match (kept, pattern) {
            (Some(pattern), _) => pattern.to_tree(),
            // JSON that was written as a structure stays one.
            (None, Some(Pattern::Map(_) | Pattern::List(_))) if let Tree::Text(text) = found => {
                Tree::from_json(text).map_or_else(|| literal(found), |tree| literal(&tree))
            }
            _ => literal(found),
        };
        (name.clone(), written)
    };
    Tree::Map(columns.iter().filter(named).map(value).collect())
}

/// A value as a pattern that means just this value.
fn literal(tree: &Tree) -> Tree {
    match tree {
        Tree::Text(text) if text.starts_with('$') => Pattern::Value(tree.clone()).to_tree(),
        Tree::List(items) => Tree::List(items.iter().map(literal).collect()),
        Tree::Map(entries) if entries.iter().any(|(key, _)| key.starts_with('$')) => {
            Pattern::Value(tree.clone()).to_tree()
        }
        Tree::Map(entries) => Tree::Map(entries.iter().map(|(key, value)| (key.clone(), literal(value))).collect()),
        scalar => scalar.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_changed_meanwhile_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.test.yaml");
        let text = "cases:\n  - name: a\n    events: []\n";
        std::fs::write(&path, text).unwrap();
        let mut report = FileReport::of(&path);
        let tests = read_tests(&path, text).unwrap();
        let (name, at) = ("a".to_owned(), String::new());
        let failed = CaseReport { name, at, seconds: 0.0, verdict: Verdict::Failed, differences: Vec::new() };
        let done = [(failed, Some(Outcome::default()))];
        let saved = format!("# a line more\n{text}");
        std::fs::write(&path, &saved).unwrap();
        update(&tests, &done, &mut report).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), saved);
        assert!(report.not_updated[0].contains("was changed while its cases ran"), "{:?}", report.not_updated);
        let mut report = FileReport::of(&path);
        let tests = read_tests(&path, &saved).unwrap();
        update(&tests, &done, &mut report).unwrap();
        assert_eq!((report.not_updated.len(), report.updated.as_slice()), (0, &["a".to_owned()][..]));
    }
}
