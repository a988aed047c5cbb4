//! One table: its columns, partitioning and options.

use std::collections::{BTreeMap, BTreeSet};

use super::File;
use super::columns::{marks, misplaced};
use super::maintenance::maintenance;
use crate::config::domain::{
    AthenaGuard, Column, DeleteFiles, EventTime, Format, Ingestion, JsonPath, Mode, Output, PartitionField,
    PayloadFormat, Protection, SortField, StoreUrl, Table, Transform, WriteStrategy,
};
use crate::config::units::ByteSize;
use crate::config::wire::{
    AthenaGuardYaml, ColumnYaml, ContractYaml, Incompatible, ModeYaml, NewColumn, RemovedColumn, TableYaml, TypeChange,
};
use crate::cursor::did_you_mean;
use crate::functions::Columns;
use crate::ids::{DatabaseName, TableName};
use crate::types::LogicalType;

const TARGET_FILE_SIZE: ByteSize = ByteSize(128_000_000);
const ZSTD_LEVEL: i32 = 3;

/// The hour partition on a column that holds the event time as decoded; with it, the rows of an event hour can be told
/// apart without provenance.
#[must_use]
pub fn event_hour_partition<'a>(ingestion: &Ingestion, output: &'a Output) -> Option<&'a PartitionField> {
    let EventTime::Field { path, .. } = &ingestion.event_time else { return None };
    let columns = super::columns_after(output);
    output.table.partition_by.iter().find(|field| {
        let holds_event_time = |column: &Column| column.name == field.column.as_str() && column.path == *path;
        field.transform == Transform::Hour && columns.iter().any(holds_event_time)
    })
}

/// Reads the columns as declared; broken ones leave the list incomplete.
pub(super) fn columns(file: &File, path: &str, yaml: &TableYaml) -> (Columns, Vec<Column>) {
    let (mut tracked, mut decoded) = (Columns::default(), Vec::new());
    let json = yaml.json_columns.clone().unwrap_or_default();
    let json_known = !file.is_cut(&format!("{path}.jsonColumns"));
    match &yaml.columns {
        None => {
            tracked.incomplete = true;
            if !file.is_cut(&format!("{path}.columns")) {
                file.unsupported(path, "inferring columns; list them under `columns`");
            }
        }
        Some(list) if list.is_empty() => file.report(&format!("{path}.columns"), "must not be empty"),
        Some(list) => {
            for (i, yaml) in list.iter().enumerate() {
                let path = format!("{path}.columns[{i}]");
                let Some((yaml, name)) = yaml.as_ref().and_then(|yaml| Some((yaml, yaml.name.as_ref()?))) else {
                    tracked.incomplete = true;
                    continue;
                };
                let named_at = format!("{path}.name");
                let (column, typed) = column(file, &path, yaml, name, json_known.then(|| json.contains(name)));
                if typed {
                    decoded.push(column.clone());
                    tracked.push(column, named_at);
                } else {
                    tracked.push_untyped(column, named_at);
                }
            }
        }
    }
    for (i, name) in json.iter().enumerate() {
        if let Some(message) = tracked.missing(name) {
            file.report(&format!("{path}.jsonColumns[{i}]"), message);
        }
    }
    (tracked, decoded)
}

/// A column, and whether its type could be read; `is_json` says whether `jsonColumns` names it, if that could be read.
fn column(file: &File, path: &str, yaml: &ColumnYaml, name: &str, is_json: Option<bool>) -> (Column, bool) {
    let (is_json, no_types) = (is_json == Some(true), is_json.is_none());
    let at = |key: &str| format!("{path}.{key}");
    if name.is_empty() {
        file.report(&at("name"), "is empty");
    }
    let declared = yaml.r#type.as_ref().map(|text| file.take(&at("type"), text.parse::<LogicalType>()));
    let r#type = match declared {
        Some(Some(declared)) if is_json && declared != LogicalType::Json => {
            file.report(&at("type"), format!("is {declared}, but jsonColumns names the column; leave the type out"));
            None
        }
        Some(declared) => declared,
        None if is_json => Some(LogicalType::Json),
        None => {
            // A list of JSON columns that could not be read may have named this one.
            if !file.is_cut(&at("type")) && !no_types {
                file.report(&at("type"), "missing");
            }
            None
        }
    };
    file.refuse(yaml.was.as_ref(), &at("was"), "renaming columns of a table that exists");
    let format: Option<Format> = file.parse(&at("format"), yaml.format.as_ref());
    if let (Some(format), Some(r#type)) = (&format, &r#type)
        && let Some(rule) = misplaced(format, r#type)
    {
        file.report(&at("format"), format!("{rule}, column `{name}` is {type}"));
    }
    let own = JsonPath(vec![name.to_owned()]);
    let column = Column {
        name: name.to_owned(),
        path: file.parse_or(&at("path"), yaml.path.as_ref(), own.clone()).unwrap_or(own),
        r#type: r#type.clone().unwrap_or(LogicalType::String),
        required: yaml.required.unwrap_or_default(),
        format,
        doc: yaml.doc.clone(),
    };
    (column, r#type.is_some())
}

/// Adds the columns that change events bring along.
pub(super) fn add_change_columns(tracked: &mut Columns, path: &str, yaml: &TableYaml, format: PayloadFormat) {
    let append = matches!(yaml.mode, None | Some(ModeYaml::Append));
    let soft_delete = yaml.mode == Some(ModeYaml::Upsert) && yaml.soft_delete == Some(true);
    for column in marks(format, append, soft_delete) {
        tracked.push(column, format!("{path}.mode"));
    }
}

/// Reads everything but the columns and the mode; `after` are the columns behind the last step.
pub(super) fn table(
    file: &File,
    path: &str,
    yaml: &TableYaml,
    (decoded, protections): (Vec<Column>, Option<Vec<Protection>>),
    (after, format): (&Columns, Option<PayloadFormat>),
) -> Option<Table> {
    let at = |key: &str| format!("{path}.{key}");
    refuse_later(file, path, yaml);
    let mode = super::mode::mode(file, path, yaml, after, format);
    let properties = yaml.properties.clone().unwrap_or_default();
    let athena_allow = athena(yaml);
    check_properties(file, &at("properties"), (&properties, &athena_allow), mode.as_ref());
    let partition_by = partition_by(file, &at("partitionBy"), yaml.partition_by.as_deref().unwrap_or_default(), after);
    let sort_by = sort_by(file, &at("sortBy"), yaml.sort_by.as_deref().unwrap_or_default(), after);
    let location = match &yaml.s3_location {
        Some(text) => file.take(&at("s3Location"), StoreUrl::parse(text, file.folder())).map(Some),
        None => Some(None),
    };
    let maintenance = maintenance(file, &at("maintenance"), yaml.maintenance.as_ref());
    let target = file.parse_or(&at("targetFileSize"), yaml.target_file_size.as_ref(), TARGET_FILE_SIZE);
    if target.is_some_and(|target| target.0 < 1_000_000) {
        file.report(&at("targetFileSize"), "must be at least 1MB");
    }
    let database = yaml.database.clone().and_then(|name| file.take(&at("database"), DatabaseName::new(name)));
    let name = yaml.table_name.clone().and_then(|name| file.take(&at("tableName"), TableName::new(name)));
    Some(Table {
        database: database?,
        name: name?,
        location: location?,
        mode: mode?,
        columns: decoded,
        protections: protections?,
        partition_by: partition_by?,
        sort_by: sort_by?,
        provenance: yaml.provenance.unwrap_or(true),
        target_file_size: target?.0,
        zstd_level: yaml.zstd_level.unwrap_or(ZSTD_LEVEL),
        athena_allow,
        properties,
        quarantine_threshold: yaml.quarantine_threshold,
        maintenance: maintenance?,
    })
}

/// Reports every option that a later version understands.
fn refuse_later(file: &File, path: &str, yaml: &TableYaml) {
    let at = |key: &str| format!("{path}.{key}");
    let Some(contract) = &yaml.contract else { return };
    let ContractYaml { new_column, removed_column, type_change, incompatible } = contract;
    let changed = [
        ("newColumn", new_column.is_some_and(|choice| choice != NewColumn::Ignore), "ignore"),
        ("removedColumn", removed_column.is_some_and(|choice| choice != RemovedColumn::Keep), "keep"),
        ("typeChange", type_change.is_some_and(|choice| choice != TypeChange::Fail), "fail"),
        ("incompatible", incompatible.is_some_and(|choice| choice != Incompatible::Quarantine), "quarantine"),
    ];
    for (key, changed, default) in changed {
        if changed {
            file.unsupported(&at(&format!("contract.{key}")), format!("anything but `{default}`"));
        }
    }
}

/// The guards for Athena that are off.
fn athena(yaml: &TableYaml) -> BTreeSet<AthenaGuard> {
    let allowed = yaml.athena.iter().flat_map(|athena| athena.allow.iter().flatten());
    let guard = |yaml: &AthenaGuardYaml| match yaml {
        AthenaGuardYaml::FormatVersion => AthenaGuard::FormatVersion,
        AthenaGuardYaml::Types => AthenaGuard::Types,
    };
    allowed.map(guard).collect()
}

fn check_properties(
    file: &File,
    path: &str,
    (properties, allow): (&BTreeMap<String, String>, &BTreeSet<AthenaGuard>),
    mode: Option<&Mode>,
) {
    const POSITION: WriteStrategy = WriteStrategy::MergeOnRead(DeleteFiles::Position);
    for (name, value) in properties {
        let at = super::super::shape::join(path, name);
        if name.starts_with("firn.") {
            file.report(&at, "properties that begin with `firn.` are ours");
            continue;
        }
        let by_position = || mode.and_then(Mode::upsert).is_some_and(|upsert| upsert.strategy == POSITION);
        match (name.as_str(), value.as_str()) {
            ("format-version", "3") if !allow.contains(&AthenaGuard::FormatVersion) => file.report(
                &at,
                "Athena reads format version 2; for a table that it never reads, set athena: {allow: [formatVersion]}",
            ),
            ("format-version", "3") if by_position() => file.report(
                &at,
                "format version 3 takes no position delete files; set writeStrategy: copyOnWrite or deleteFiles: equality",
            ),
            ("format-version", "2" | "3") => {}
            ("format-version", _) => file.report(&at, format!("there is no format version `{value}` to write; use 2 or 3")),
            // What the writer of this program would ignore.
            ("write.target-file-size-bytes", _) => file.report(&at, "has no effect on what is written here; set targetFileSize"),
            ("write.parquet.compression-level", _) => file.report(&at, "has no effect on what is written here; set zstdLevel"),
            ("write.parquet.compression-codec", codec) if codec != "zstd" => {
                file.report(&at, "has no effect on what is written here, which is always zstd; set zstdLevel");
            }
            ("write.format.default", format) if format != "parquet" => {
                file.report(&at, "has no effect on what is written here, which is always Parquet");
            }
            _ => {}
        }
    }
}

fn partition_by(file: &File, path: &str, texts: &[String], after: &Columns) -> Option<Vec<PartitionField>> {
    let mut out: Vec<PartitionField> = Vec::new();
    let mut whole = true;
    for (i, text) in texts.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let Some(field) = file.take(&path, text.parse::<PartitionField>()) else {
            whole = false;
            continue;
        };
        let column = field.column.as_str();
        if let Some(message) = after.missing(column) {
            file.report(&path, message);
        }
        if let Some(r#type) = after.type_of(column)
            && !suits(field.transform, r#type)
        {
            file.report(&path, format!("`{field}` does not suit column `{column}`, which is {type}"));
        }
        if out.iter().any(|other| other.column == field.column && same_kind(other.transform, field.transform)) {
            file.report(&path, format!("`{field}` repeats a partition field of column `{column}`"));
        }
        if let Some(suffix) = suffix(field.transform)
            && after.has(&format!("{column}_{suffix}"))
        {
            file.report(&path, format!("the partition field `{column}_{suffix}` has the name of a column"));
        }
        out.push(field);
    }
    whole.then_some(out)
}

/// Whether a transform takes a type (Iceberg specification, "Partition Transforms").
fn suits(transform: Transform, r#type: &LogicalType) -> bool {
    use LogicalType as L;
    let nested = matches!(r#type, L::Json | L::List(_) | L::Map(_) | L::Struct(_));
    match transform {
        Transform::Identity => !nested,
        Transform::Year | Transform::Month | Transform::Day => {
            matches!(r#type, L::Date | L::Timestamp | L::TimestampTz)
        }
        Transform::Hour => matches!(r#type, L::Timestamp | L::TimestampTz),
        Transform::Bucket(_) => !nested && !matches!(r#type, L::Boolean | L::Float | L::Double),
        Transform::Truncate(_) => matches!(r#type, L::Int | L::Long | L::Decimal { .. } | L::String | L::Binary),
    }
}

/// Two fields of one column that Iceberg's Java library refuses together.
fn same_kind(a: Transform, b: Transform) -> bool {
    let is_time = |t| matches!(t, Transform::Year | Transform::Month | Transform::Day | Transform::Hour);
    std::mem::discriminant(&a) == std::mem::discriminant(&b) || is_time(a) && is_time(b)
}

/// What Iceberg appends to the column's name for the name of the partition field.
fn suffix(transform: Transform) -> Option<&'static str> {
    match transform {
        Transform::Identity => None,
        Transform::Year => Some("year"),
        Transform::Month => Some("month"),
        Transform::Day => Some("day"),
        Transform::Hour => Some("hour"),
        Transform::Bucket(_) => Some("bucket"),
        Transform::Truncate(_) => Some("trunc"),
    }
}

fn sort_by(file: &File, path: &str, texts: &[String], after: &Columns) -> Option<Vec<SortField>> {
    let mut out: Vec<SortField> = Vec::new();
    let mut whole = true;
    for (i, text) in texts.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let Some(field) = file.take(&path, text.parse::<SortField>()) else {
            whole = false;
            continue;
        };
        let column = field.column.as_str();
        if let Some(message) = after.missing(column) {
            file.report(&path, message);
        }
        if let Some(r#type @ (LogicalType::List(_) | LogicalType::Map(_) | LogicalType::Struct(_))) =
            after.type_of(column)
        {
            file.report(&path, format!("column `{column}` is {type}, which has no order"));
        }
        if out.iter().any(|other| other.column == field.column) {
            file.report(&path, format!("column `{column}` comes twice"));
        }
        out.push(field);
    }
    whole.then_some(out)
}

/// Reports events of an output that the whitelist does not let pass.
pub(super) fn check_events(file: &File, path: &str, events: &[String], ingestion: &Ingestion) {
    if ingestion.event_name.is_none() {
        file.report(path, "needs ingestionUnit.incomingData.eventName, the place of the event's name");
    }
    for (i, event) in events.iter().enumerate() {
        let path = format!("{path}[{i}]");
        if events[..i].contains(event) {
            file.report(&path, format!("event `{event}` comes twice"));
        }
        if let Some(whitelist) = &ingestion.whitelist
            && !whitelist.contains_key(event)
        {
            let hint = did_you_mean(event, whitelist.keys().map(String::as_str));
            file.report(&path, format!("event `{event}` is not in the whitelist, so it never arrives{hint}"));
        }
    }
}
