//! The columns of a table, step by step: names and types after each transformation.

use super::File;
use crate::config::domain::{Column, Format, JsonPath, Mode, Output, PayloadFormat, Protect, Protection};
use crate::config::protected;
use crate::functions::Columns;
use crate::ids::ColumnName;
use crate::types::LogicalType;

/// Name of the provenance column, which no other column may have.
pub(super) const PROVENANCE: &str = "_firn";

/// Names that Iceberg keeps for columns of its own; Spark reads no table in which one of them is taken.
const RESERVED: [&str; 10] = [
    "_change_ordinal",
    "_change_type",
    "_commit_snapshot_id",
    "_deleted",
    "_file",
    "_last_updated_sequence_number",
    "_partition",
    "_pos",
    "_row_id",
    "_spec_id",
];

/// What a change did: `c` created, `r` read by a snapshot, `u` updated, `d` deleted.
pub const OPERATION: &str = "_op";
/// Whether the source deleted the row. Not `_deleted`, which is one of [`RESERVED`].
pub const DELETED: &str = "_is_deleted";
/// When it did.
pub const DELETED_AT: &str = "_deleted_at";

/// The columns that change events add behind the decoded ones, before the transformations: an append table keeps every
/// change and says which kind it was, an upsert with soft deletes marks the rows that are gone.
#[must_use]
pub fn change_columns(format: PayloadFormat, mode: &Mode) -> Vec<Column> {
    marks(format, *mode == Mode::Append, mode.upsert().is_some_and(|upsert| upsert.soft_delete))
}

/// As [`change_columns`], for a mode that appends or an upsert with soft deletes.
pub(super) fn marks(format: PayloadFormat, append: bool, soft_delete: bool) -> Vec<Column> {
    let column = |name: &str, r#type, doc: &str| Column {
        name: name.to_owned(),
        path: JsonPath(vec![name.to_owned()]),
        r#type,
        required: false,
        format: None,
        doc: Some(doc.to_owned()),
    };
    let operation =
        "what the change did: c created, r read by a snapshot, u updated, d deleted, t all rows of its table";
    if !format.is_change() {
        Vec::new()
    } else if append {
        vec![column(OPERATION, LogicalType::String, operation)]
    } else if soft_delete {
        vec![
            column(DELETED, LogicalType::Boolean, "whether the source deleted the row"),
            column(DELETED_AT, LogicalType::TimestampTz, "when the source deleted the row"),
        ]
    } else {
        Vec::new()
    }
}

/// The columns before the first step: those decoded, and those that change events add.
#[must_use]
pub fn decoded_columns(output: &Output) -> Vec<Column> {
    let added = change_columns(output.format, &output.table.mode);
    output.table.columns.iter().cloned().chain(added).collect()
}

/// The columns behind the last step, before the table's protections.
#[must_use]
pub fn shaped_columns(output: &Output) -> Vec<Column> {
    match output.transformations.last() {
        Some(step) => step.plan.after.iter().map(|(column, _)| column.clone()).collect(),
        None => decoded_columns(output),
    }
}

/// The columns of an output's table in order, after all transformations and without provenance. Names are valid
/// [`ColumnName`]s; `path` and `format` tell where the value came from.
#[must_use]
pub fn columns_after(output: &Output) -> Vec<Column> {
    let columns = shaped_columns(output);
    // Checked: every protection finds its column.
    let mut columns = protected::protect_columns(columns.clone(), &output.table.protections).unwrap_or(columns);
    // Of a deleted row nothing is sure to be known but its key, and here it stays.
    if let Some(keys) = keys_of_kept_deletes(output) {
        for column in &mut columns {
            column.required &= keys.contains(&column.name.as_str());
        }
    }
    columns
}

/// The key columns of a table in which deleted rows stay as rows; `None` where they do not.
fn keys_of_kept_deletes(output: &Output) -> Option<Vec<&str>> {
    match &output.table.mode {
        _ if !output.format.is_change() => None,
        Mode::Append => Some(Vec::new()),
        Mode::Upsert(upsert) if upsert.soft_delete => Some(upsert.keys.iter().map(ColumnName::as_str).collect()),
        Mode::Upsert(_) | Mode::TruncateLoad { .. } => None,
    }
}

/// Changes the columns as the table's protections do.
///
/// # Errors
/// The number of the protection that cannot be applied, and why; the columns are then as they were.
pub(super) fn protect(columns: &mut Columns, protections: &[Protection]) -> Result<(), (usize, String)> {
    if columns.incomplete || columns.iter().any(|tracked| !tracked.type_known) {
        return Ok(());
    }
    for (i, protection) in protections.iter().enumerate() {
        columns.missing(&protection.path.column).map_or(Ok(()), |message| Err((i, message)))?;
    }
    let plain = columns.iter().map(|tracked| tracked.column.clone()).collect();
    let after = protected::protect_columns(plain, protections)?;
    let gone = |name: &str| {
        protections.iter().any(|p| p.how == Protect::Drop && p.path.inside.is_empty() && p.path.column == name)
    };
    let mut made = Columns::default();
    for tracked in columns.iter().filter(|tracked| !gone(&tracked.column.name)) {
        // Two of one name are told apart by neither; their check comes later.
        let column = after.iter().find(|column| column.name == tracked.column.name).unwrap_or(&tracked.column);
        made.push(column.clone(), tracked.named_at.clone());
    }
    for column in after {
        if !made.has(&column.name) {
            made.push(column, String::new());
        }
    }
    *columns = made;
    Ok(())
}

/// Checks the final names against Athena's rules and each other.
pub(super) fn check_names(columns: &Columns, file: &File) {
    for (i, tracked) in columns.iter().enumerate() {
        let name = &tracked.column.name;
        let lower = name.to_lowercase();
        let twin = columns.iter().take(i).find(|other| other.column.name.to_lowercase() == lower);
        if let Some(twin) = twin {
            let other = &twin.column.name;
            let line = file.position(&twin.named_at).line;
            let how = if other == name { "comes twice" } else { "is the same to Athena, which ignores case" };
            file.report(&tracked.named_at, format!("column `{name}` {how}; the other `{other}` is at line {line}"));
        } else if let Err(error) = ColumnName::new(name.clone()) {
            let better: String =
                lower.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
            file.report(&tracked.named_at, format!("{error}; add a step `rename: {{from: {name}, to: {better}}}`"));
        } else if name == PROVENANCE {
            file.report(&tracked.named_at, format!("`{PROVENANCE}` is the name of the provenance column"));
        } else if RESERVED.contains(&lower.as_str()) {
            let message = "is a name that Iceberg keeps for itself, and Spark could not read the table";
            file.report(&tracked.named_at, format!("`{name}` {message}; choose another"));
        }
        if tracked.type_known
            && let Some(message) = bad_field(&tracked.column.r#type)
        {
            file.report(&tracked.named_at, format!("column `{name}`: {message}"));
        }
    }
}

/// The first field inside a type whose name Athena refuses.
fn bad_field(r#type: &LogicalType) -> Option<String> {
    match r#type {
        LogicalType::List(inner) | LogicalType::Map(inner) => bad_field(inner),
        LogicalType::Struct(fields) => {
            let twice = fields.iter().enumerate().find(|(i, field)| {
                fields[..*i].iter().any(|other| other.name.to_lowercase() == field.name.to_lowercase())
            });
            if let Some((_, field)) = twice {
                return Some(format!("two fields are called `{}`, apart from case", field.name.to_lowercase()));
            }
            fields.iter().find_map(|field| {
                let name = ColumnName::new(field.name.clone()).err().map(|error| format!("field inside: {error}"));
                name.or_else(|| bad_field(&field.r#type))
            })
        }
        _ => None,
    }
}

/// Whether values of a type may have the form of a time.
pub(super) fn takes_time(r#type: &LogicalType) -> bool {
    matches!(r#type, LogicalType::Date | LogicalType::Time | LogicalType::Timestamp | LogicalType::TimestampTz)
}

/// What is wrong with a form of values beside a type, if anything is.
pub(super) fn misplaced(format: &Format, r#type: &LogicalType) -> Option<&'static str> {
    use LogicalType as L;
    let number = matches!(r#type, L::Int | L::Long | L::Float | L::Double | L::Decimal { .. } | L::String);
    let (fits, rule) = match format {
        Format::Time(_) => (takes_time(r#type), "only dates and times have a time format"),
        Format::Base64 { .. } | Format::ConnectDecimal { .. } | Format::VariableScale => {
            (number, "only numbers and strings are read from such bytes")
        }
        Format::Bits => (number || *r#type == L::Boolean, "only numbers, strings and booleans are read from bits"),
        Format::ZeroOne => (*r#type == L::Boolean, "only booleans are 0 and 1"),
        Format::JsonText => (*r#type == L::Json, "only json is JSON text"),
    };
    (!fits).then_some(rule)
}
