//! The columns of a table, step by step: names and types after each transformation.

use super::File;
use crate::config::domain::{Column, Format, JsonPath, Mode, Output, PayloadFormat, TimeFormat, Transformation};
use crate::cursor::did_you_mean;
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

/// The columns of an output's table in order, after all transformations and without provenance. Names are valid
/// [`ColumnName`]s; `path` and `format` tell where the value came from.
#[must_use]
pub fn columns_after(output: &Output) -> Vec<Column> {
    let mut columns = Columns::default();
    for column in &output.table.columns {
        columns.push(column.clone(), String::new());
    }
    for column in change_columns(output.format, &output.table.mode) {
        columns.push(column, String::new());
    }
    for step in &output.transformations {
        columns.apply(&step.transformation, "", &mut |_, _| {});
    }
    let mut columns: Vec<Column> = columns.list.into_iter().map(|tracked| tracked.column).collect();
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

/// Columns at one moment.
#[derive(Debug, Default)]
pub(super) struct Columns {
    list: Vec<Tracked>,
    /// Something that would add columns was broken: a name that is not found may yet be right.
    pub(super) incomplete: bool,
}

/// A column, where its name was given, and whether its type could be read.
#[derive(Debug)]
struct Tracked {
    column: Column,
    named_at: String,
    type_known: bool,
}

impl Columns {
    /// Adds a column whose name stands at `named_at`.
    pub(super) fn push(&mut self, column: Column, named_at: String) {
        self.list.push(Tracked { column, named_at, type_known: true });
    }

    /// Adds a column whose type could not be read.
    pub(super) fn push_untyped(&mut self, column: Column, named_at: String) {
        self.list.push(Tracked { column, named_at, type_known: false });
    }

    /// Whether a column of this name is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.list.iter().any(|tracked| tracked.column.name == name)
    }

    /// The message about a name that is not there; `None` when that cannot be told.
    pub(super) fn missing(&self, name: &str) -> Option<String> {
        let known = self.list.iter().map(|tracked| tracked.column.name.as_str());
        (!self.incomplete && !self.has(name)).then(|| format!("no column `{name}` here{}", did_you_mean(name, known)))
    }

    /// The type of a column, when both are known.
    pub(super) fn type_of(&self, name: &str) -> Option<&LogicalType> {
        let tracked = self.list.iter().find(|tracked| tracked.column.name == name)?;
        tracked.type_known.then_some(&tracked.column.r#type)
    }

    /// Changes the list as `step` (which stands at `path`) does; `report` takes path and message of what is wrong.
    pub(super) fn apply(&mut self, step: &Transformation, path: &str, report: &mut dyn FnMut(&str, String)) {
        match step {
            Transformation::Rename { from, to } => {
                if from != to && self.has(to) {
                    report(&format!("{path}.rename.to"), format!("a column `{to}` is there already"));
                    self.list.retain(|tracked| tracked.column.name != *from);
                    return;
                }
                if let Some(tracked) = self.find(from, &format!("{path}.rename.from"), report) {
                    tracked.column.name.clone_from(to);
                    tracked.named_at = format!("{path}.rename.to");
                } else if !self.has(to) {
                    // What follows may use the new name: one mistake, one message.
                    self.incomplete = true;
                }
            }
            Transformation::Drop { columns } => {
                for (i, name) in columns.iter().enumerate() {
                    if self.find(name, &format!("{path}.drop.columns[{i}]"), report).is_some() {
                        self.list.retain(|tracked| tracked.column.name != *name);
                    }
                }
            }
            Transformation::Cast { column, to, format } => {
                let Some(tracked) = self.find(column, &format!("{path}.cast.column"), report) else { return };
                let from = &tracked.column.r#type;
                if tracked.type_known
                    && let Err((key, message)) = castable(from, to, format.as_ref())
                {
                    report(&format!("{path}.cast.{key}"), message);
                }
                tracked.column.r#type = to.clone();
                tracked.type_known = true;
            }
            Transformation::Extract { from, path: inner, to, r#type } => {
                let source = self.find(from, &format!("{path}.extract.from"), report);
                let source = source.filter(|source| source.type_known).map(|source| source.column.r#type.clone());
                if let Some(source) = source
                    && !matches!(source, LogicalType::Json | LogicalType::String)
                {
                    report(
                        &format!("{path}.extract.from"),
                        format!("column `{from}` is {source}; only json and string hold JSON text"),
                    );
                }
                if self.has(to) {
                    report(&format!("{path}.extract.as"), format!("a column `{to}` is there already"));
                    return;
                }
                let column = Column {
                    name: to.clone(),
                    path: inner.clone(),
                    r#type: r#type.clone(),
                    required: false,
                    format: None,
                    doc: None,
                };
                self.push(column, format!("{path}.extract.as"));
            }
            Transformation::Lower { column } => {
                let path = format!("{path}.lower.column");
                if let Some(tracked) = self.find(column, &path, report)
                    && tracked.type_known
                    && tracked.column.r#type != LogicalType::String
                {
                    report(
                        &path,
                        format!("column `{column}` is {}; only string has a lower case", tracked.column.r#type),
                    );
                }
            }
            Transformation::Filter { r#where, .. } => {
                if r#where.trim().is_empty() {
                    report(&format!("{path}.filter.where"), "is empty".to_owned());
                }
            }
        }
    }

    fn find(&mut self, name: &str, path: &str, report: &mut dyn FnMut(&str, String)) -> Option<&mut Tracked> {
        if let Some(message) = self.missing(name) {
            report(path, message);
        }
        self.list.iter_mut().find(|tracked| tracked.column.name == name)
    }

    /// Checks the final names against Athena's rules and each other.
    pub(super) fn check_names(&self, file: &File) {
        for (i, tracked) in self.list.iter().enumerate() {
            let name = &tracked.column.name;
            let lower = name.to_lowercase();
            let twin = self.list[..i].iter().find(|other| other.column.name.to_lowercase() == lower);
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
        Format::Base64 { .. } | Format::VariableScale => (number, "only numbers and strings are read from such bytes"),
        Format::Bits => (number || *r#type == L::Boolean, "only numbers, strings and booleans are read from bits"),
        Format::ZeroOne => (*r#type == L::Boolean, "only booleans are 0 and 1"),
        Format::JsonText => (*r#type == L::Json, "only json is JSON text"),
    };
    (!fits).then_some(rule)
}

/// Whether `cast` knows a way that keeps values; else the key to blame and why.
fn castable(from: &LogicalType, to: &LogicalType, format: Option<&TimeFormat>) -> Result<(), (&'static str, String)> {
    use LogicalType as L;
    let number = |t: &L| matches!(t, L::Int | L::Long | L::Float | L::Double | L::Decimal { .. });
    let nested = |t: &L| matches!(t, L::List(_) | L::Map(_) | L::Struct(_));
    let time = |t: &L| matches!(t, L::Date | L::Timestamp | L::TimestampTz);
    let epoch = matches!(from, L::Int | L::Long) && matches!(to, L::Timestamp | L::TimestampTz);
    let units = [TimeFormat::EpochSeconds, TimeFormat::EpochMillis, TimeFormat::EpochMicros];
    match (from, to) {
        _ if epoch && !format.is_some_and(|format| units.contains(format)) => {
            return Err(("to", format!("{from} to {to} needs `format`: epochSeconds, epochMillis or epochMicros")));
        }
        (L::String | L::Json | L::Uuid, to) if nested(to) && from != to => {
            return Err(("to", format!("{from} to {to} is what `extract` is for")));
        }
        (from, to) if from == to => {}
        (L::Json | L::Uuid, L::String) | (L::String, _) => {}
        (from, to) if number(from) && (number(to) || *to == L::String) => {}
        (L::Boolean, L::String) => {}
        (from, to) if time(from) && (time(to) || *to == L::String) => {}
        _ if epoch => {}
        _ => return Err(("to", format!("there is no way from {from} to {to}"))),
    }
    if format.is_some() && !epoch && !(*from == L::String && takes_time(to)) {
        return Err(("format", format!("{from} to {to} takes no format")));
    }
    Ok(())
}
