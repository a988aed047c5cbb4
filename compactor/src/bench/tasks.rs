//! The columns of the three tasks, and columns as a file.

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use firn_shared::config::domain::{Column, JsonPath};
use firn_shared::types::LogicalType;
use serde::{Deserialize, Serialize};

/// What is converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Task {
    /// Twelve columns of GitHub events.
    T1,
    /// Every column of Zeek DNS records.
    T2,
    /// Every leaf of GitHub events.
    T3,
}

/// T3's columns, as `infer` wrote them from the sample.
const T3: &str = include_str!("../../benches/t3.columns.yaml");

/// The columns of a task.
///
/// # Errors
/// Never, unless a column table of this file is damaged.
pub fn columns(task: Task) -> Result<Vec<Column>> {
    match task {
        Task::T1 => github().into_iter().map(|(name, path, logical)| column(name, path.split('.'), logical)).collect(),
        Task::T2 => {
            zeek().into_iter().map(|(name, logical)| column(&in_table(name), std::iter::once(name), logical)).collect()
        }
        Task::T3 => read_columns(T3),
    }
}

/// A dozen steps that pipelines typically have, over the columns of T1.
pub const STEPS: &str = "
- rename: {from: actor_login, to: login}
- lower: {column: login}
- trim: {column: repo_name}
- regexExtract: {column: repo_name, pattern: '^([^/]+)/', group: 1, as: repo_owner}
- concat: {columns: [type, payload_action], separator: '.', skipNulls: true, as: event}
- coalesce: {columns: [org_login, login], as: account}
- fillNull: {column: payload_size, value: 0}
- clamp: {column: payload_size, max: 1000}
- truncateTime: {column: created_at, to: hour, as: created_hour}
- hashBucket: {column: login, count: 64, as: bucket}
- if: {where: 'payload_size > 10', then: large, else: small, as: class}
- filter: {where: 'actor_id > 0'}
- drop: {columns: [payload_push_id]}
";

/// The steps with their arguments.
///
/// # Errors
/// Never, unless the list is damaged.
pub fn steps() -> Result<Vec<(String, serde_json::Value)>> {
    listed(STEPS)
}

/// Steps as a pipeline lists them.
///
/// # Errors
/// Text that is no such list.
pub fn listed(text: &str) -> Result<Vec<(String, serde_json::Value)>> {
    let list = firn_shared::config::yaml_as_json(text)?;
    let entries = list.as_array().into_iter().flatten().filter_map(|step| step.as_object()?.iter().next());
    Ok(entries.map(|(name, args)| (name.clone(), args.clone())).collect())
}

/// A key's name as a table takes it.
fn in_table(key: &str) -> String {
    key.to_lowercase().replace('.', "_")
}

fn column<'a>(name: &str, path: impl Iterator<Item = &'a str>, logical: &str) -> Result<Column> {
    Ok(Column {
        name: name.to_owned(),
        path: JsonPath(path.map(str::to_owned).collect()),
        r#type: logical.parse::<LogicalType>().with_context(|| format!("column {name}"))?,
        required: false,
        format: None,
        doc: None,
    })
}

fn github() -> [(&'static str, &'static str, &'static str); 12] {
    [
        ("id", "id", "long"),
        ("type", "type", "string"),
        ("actor_id", "actor.id", "long"),
        ("actor_login", "actor.login", "string"),
        ("repo_id", "repo.id", "long"),
        ("repo_name", "repo.name", "string"),
        ("public", "public", "boolean"),
        ("created_at", "created_at", "timestamptz"),
        ("org_login", "org.login", "string"),
        ("payload_action", "payload.action", "string"),
        ("payload_push_id", "payload.push_id", "long"),
        ("payload_size", "payload.size", "long"),
    ]
}

fn zeek() -> [(&'static str, &'static str); 26] {
    [
        ("_path", "string"),
        ("_write_ts", "timestamptz"),
        ("ts", "timestamptz"),
        ("uid", "string"),
        ("id.orig_h", "string"),
        ("id.orig_p", "long"),
        ("id.resp_h", "string"),
        ("id.resp_p", "long"),
        ("proto", "string"),
        ("trans_id", "long"),
        ("rtt", "double"),
        ("query", "string"),
        ("qclass", "long"),
        ("qclass_name", "string"),
        ("qtype", "long"),
        ("qtype_name", "string"),
        ("rcode", "long"),
        ("rcode_name", "string"),
        ("AA", "boolean"),
        ("TC", "boolean"),
        ("RD", "boolean"),
        ("RA", "boolean"),
        ("Z", "long"),
        ("answers", "list<string>"),
        ("TTLs", "list<double>"),
        ("rejected", "boolean"),
    ]
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: String,
    r#type: String,
}

/// Columns as a YAML list with one column a line, in the form that a pipeline's `columns` takes. Paths are not written:
/// each column is the key of its name.
#[must_use]
pub fn write_columns(columns: &[Column]) -> String {
    let line = |c: &Column| Line { name: c.name.clone(), r#type: c.r#type.to_string() };
    // A JSON object is a YAML flow mapping.
    let lines: Vec<_> = columns.iter().filter_map(|c| serde_json::to_string(&line(c)).ok()).collect();
    lines
        .iter()
        .flat_map(|json| {
            [
                "- ", json, "
",
            ]
        })
        .collect()
}

/// Reads what [`write_columns`] wrote; lines that begin with `#` are left out.
///
/// # Errors
/// A line that is no column, with its number.
pub fn read_columns(text: &str) -> Result<Vec<Column>> {
    let mut columns = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.is_empty() && !l.starts_with('#')) {
        let Some(json) = line.strip_prefix("- ") else { bail!("line {}: expected `- {{name, type}}`", i + 1) };
        let line: Line = serde_json::from_str(json).with_context(|| format!("line {}", i + 1))?;
        columns.push(column(&line.name, std::iter::once(line.name.as_str()), &line.r#type)?);
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(logical: &LogicalType) -> usize {
        match logical {
            LogicalType::Struct(fields) => fields.iter().map(|f| leaves(&f.r#type)).sum(),
            LogicalType::List(element) | LogicalType::Map(element) => leaves(element),
            _ => 1,
        }
    }

    #[test]
    fn every_task_has_its_columns() {
        let count = |task| columns(task).unwrap().iter().map(|c| leaves(&c.r#type)).sum::<usize>();
        assert_eq!((count(Task::T1), count(Task::T2), count(Task::T3)), (12, 26, 832));
    }

    #[test]
    fn columns_survive_their_file() {
        let columns = columns(Task::T3).unwrap();
        assert_eq!(read_columns(&write_columns(&columns)).unwrap(), columns);
    }
}
