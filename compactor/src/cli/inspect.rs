//! What is in a table: its snapshots, its files, its consumed offsets; and its definition as DDL.

use std::collections::BTreeMap;
use std::fmt::Write;

use clap::ValueEnum;
use firn_shared::config::domain::{self, Transform};
use firn_shared::error::Result;
use firn_shared::types::LogicalType;
use iceberg::table::Table;
use serde_json::{Value, json};

use super::commands::targets;
use super::findings::Findings;
use super::{DONE, Format, Which};
use crate::run::{Env, Target};
use crate::table::create::Definition;
use crate::table::offsets;
use crate::table::protected::PROPERTY;
use crate::table::scan::{All, LiveFile, live};

/// What to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// The ancestry of the current snapshot, newest first.
    Snapshots,
    /// Live data files.
    Files,
    /// Consumed offsets, and what became of them.
    Offsets,
}

/// Shows tables; one that does not exist yet has nothing to show.
pub async fn inspect(env: &Env, which: &Which, what: What, format: Format) -> Result<u8> {
    let mut found = Findings::new();
    for target in targets(&env.config, which)? {
        let shown = show(env, target, what).await;
        found.add(&target.name(), shown.map(|rows| json!({"table": target.name(), "found": rows})));
    }
    found.print(format, |one| {
        let mut text = one["table"].as_str().unwrap_or_default().to_owned();
        let Some(rows) = one["found"].as_array() else { return format!("{text}: no table yet") };
        for row in rows {
            let cells = row.as_object().into_iter().flatten().map(|(name, value)| match value {
                Value::String(text) => format!("{name} {text}"),
                other => format!("{name} {other}"),
            });
            let _ = write!(text, "\n  {}", cells.collect::<Vec<_>>().join("  "));
        }
        text
    })?;
    Ok(found.code_or(DONE))
}

/// `None` when there is no table yet.
async fn show(env: &Env, target: Target<'_>, what: What) -> Result<Option<Vec<Value>>> {
    let Some(table) = env.catalog.load(&target.ident()).await? else { return Ok(None) };
    Ok(Some(match what {
        What::Snapshots => snapshots(&table),
        What::Files => files(&table).await?,
        What::Offsets => consumed(&table)?,
    }))
}

fn snapshots(table: &Table) -> Vec<Value> {
    let shown = |snapshot: &iceberg::spec::SnapshotRef| {
        let summary = &snapshot.summary().additional_properties;
        let of = |key: &str| summary.get(key).cloned().unwrap_or_default();
        json!({
            "snapshot": snapshot.snapshot_id(),
            "at": chrono::DateTime::from_timestamp_millis(snapshot.timestamp_ms()).map(|t| t.to_rfc3339()),
            "operation": snapshot.summary().operation.as_str(),
            "scope": of(offsets::SCOPE),
            "addedRecords": of("added-records"),
            "deletedRecords": of("deleted-records"),
            "totalRecords": of("total-records"),
        })
    };
    offsets::ancestry(table.metadata()).map(shown).collect()
}

async fn files(table: &Table) -> Result<Vec<Value>> {
    let live = live(table, None, &All).await?;
    let shown = |file: &LiveFile| {
        json!({
            "path": file.path(),
            "rows": file.file().record_count(),
            "bytes": file.file().file_size_in_bytes(),
        })
    };
    Ok(live.iter().map(shown).collect())
}

fn consumed(table: &Table) -> Result<Vec<Value>> {
    let Some(state) = offsets::current(table.metadata())? else { return Ok(Vec::new()) };
    let shown = |(partition, next): (firn_shared::ids::PartitionRef, u64)| {
        let totals = state.account.get(&partition);
        json!({"partition": partition.to_string(), "next": next, "account": totals})
    };
    Ok(state.position.iter().map(shown).collect())
}

/// The definition as Spark and Athena would write it.
pub fn ddl_text(definition: &Definition, table: &domain::Table) -> String {
    let mut text = format!("CREATE TABLE {} (\n", definition.ident);
    for (i, column) in definition.columns.iter().enumerate() {
        let not_null = if column.required { " NOT NULL" } else { "" };
        let doc = column.doc.as_ref().map(|doc| format!(" COMMENT '{}'", doc.replace('\'', "''")));
        let comma = if i + 1 < definition.columns.len() { "," } else { "" };
        let doc = doc.unwrap_or_default();
        let _ = writeln!(text, "  {} {}{not_null}{doc}{comma}", column.name, sql_type(&column.r#type));
    }
    text.push_str(")\nUSING iceberg");
    if !table.partition_by.is_empty() {
        let fields = table.partition_by.iter().map(|field| match field.transform {
            Transform::Identity => field.column.to_string(),
            Transform::Year => format!("years({})", field.column),
            Transform::Month => format!("months({})", field.column),
            Transform::Day => format!("days({})", field.column),
            Transform::Hour => format!("hours({})", field.column),
            Transform::Bucket(count) => format!("bucket({count}, {})", field.column),
            Transform::Truncate(width) => format!("truncate({width}, {})", field.column),
        });
        let _ = write!(text, "\nPARTITIONED BY ({})", fields.collect::<Vec<_>>().join(", "));
    }
    let _ = write!(text, "\nLOCATION '{}'", definition.location);
    // What a table says of itself is no matter of whoever makes it.
    let needed = definition.needed.iter().filter(|(key, _)| *key != PROPERTY);
    let properties: BTreeMap<_, _> = needed.chain(&definition.properties).collect();
    if !properties.is_empty() {
        let properties = properties.iter().map(|(k, v)| format!("'{k}' = '{v}'"));
        let _ = write!(text, "\nTBLPROPERTIES ({})", properties.collect::<Vec<_>>().join(", "));
    }
    text.push(';');
    text
}

fn sql_type(logical: &LogicalType) -> String {
    match logical {
        LogicalType::Long => "bigint".to_owned(),
        // Spark's `timestamp` is an instant, its `timestamp_ntz` is not.
        LogicalType::TimestampTz => "timestamp".to_owned(),
        LogicalType::Timestamp => "timestamp_ntz".to_owned(),
        LogicalType::Time | LogicalType::Uuid | LogicalType::Json => "string".to_owned(),
        LogicalType::List(element) => format!("array<{}>", sql_type(element)),
        LogicalType::Map(value) => format!("map<string, {}>", sql_type(value)),
        LogicalType::Struct(fields) => {
            let fields = fields.iter().map(|f| format!("{}: {}", f.name, sql_type(&f.r#type)));
            format!("struct<{}>", fields.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}
