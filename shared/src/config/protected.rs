//! What protections make of a table: the types of its columns, and the places in payloads where the values come from.

use super::domain::{
    Column, ColumnPath, Encoding, JsonPath, Output, PathStep, PayloadFormat, Protect, Protection, Step,
};
use super::shaped_columns;
use crate::crypto::naming::Naming;
use crate::crypto::payload::{Many, Protected};
use crate::functions::{Shape, Source, json, nested};
use crate::ids::KeyName;
use crate::types::{LogicalType, StructField};

/// What the names of columns begin with that say which key sealed a row's values: `_key_people`.
pub const KEY_PREFIX: &str = "_key_";

/// The name of the column that says which version of `key` sealed a row's values.
#[must_use]
pub fn key_column(key: &KeyName) -> String {
    format!("{KEY_PREFIX}{key}")
}

/// The keys that seal something, in the order of their columns.
#[must_use]
pub fn sealing_keys(protections: &[Protection]) -> Vec<&KeyName> {
    let mut keys: Vec<&KeyName> = Vec::new();
    for protection in protections.iter().filter(|p| p.how == Protect::Encrypt) {
        keys.extend(protection.key.iter().filter(|key| !keys.contains(key)).take(1).collect::<Vec<_>>());
    }
    keys
}

/// The steps from the table, taken as a struct of its columns, to the value.
#[must_use]
pub fn steps(path: &ColumnPath) -> Vec<PathStep> {
    std::iter::once(PathStep::Field(path.column.clone())).chain(path.inside.iter().cloned()).collect()
}

/// The fields of a struct after one protection; `path` leads from the struct to the value.
///
/// # Errors
/// Why the protection cannot be applied there.
pub fn protect_fields(
    fields: &[StructField],
    path: &[PathStep],
    protection: &Protection,
) -> Result<Vec<StructField>, String> {
    let Some((PathStep::Field(name), rest)) = path.split_first() else {
        return Err("`[]` is for lists and maps".to_owned());
    };
    let at = fields.iter().position(|field| field.name == *name).ok_or_else(|| {
        let known = fields.iter().map(|field| field.name.as_str());
        format!("no field `{name}` here{}", crate::cursor::did_you_mean(name, known))
    })?;
    let mut fields = fields.to_vec();
    if rest.iter().any(|step| matches!(step, PathStep::Field(_))) {
        fields[at].r#type = protect_inside(&fields[at].r#type, rest, protection)?;
        return Ok(fields);
    }
    if protection.how == Protect::Drop {
        if !rest.is_empty() {
            return Err("elements cannot be dropped; drop the whole column".to_owned());
        }
        fields.remove(at);
        return Ok(fields);
    }
    let protected = protect_inside(&fields[at].r#type, rest, protection)?;
    if protection.token {
        let token = StructField {
            name: protection.token_name(),
            r#type: text_of(&fields[at].r#type, rest),
            ..fields[at].clone()
        };
        if fields.iter().any(|field| field.name == token.name) {
            return Err(format!("the token would be called `{}`, which is there already", token.name));
        }
        fields.insert(at + 1, token);
    }
    fields[at].r#type = protected;
    Ok(fields)
}

fn protect_inside(r#type: &LogicalType, path: &[PathStep], protection: &Protection) -> Result<LogicalType, String> {
    match (path.split_first(), r#type) {
        (None, r#type) => leaf(r#type, protection),
        (Some((PathStep::Each, rest)), LogicalType::List(element)) => {
            protect_inside(element, rest, protection).map(|element| LogicalType::List(Box::new(element)))
        }
        (Some((PathStep::Each, rest)), LogicalType::Map(value)) => {
            protect_inside(value, rest, protection).map(|value| LogicalType::Map(Box::new(value)))
        }
        (Some((PathStep::Field(_), _)), LogicalType::Struct(fields)) => {
            let fields = protect_fields(fields, path, protection)?;
            if fields.is_empty() {
                Err("a struct needs a field; drop the whole column".to_owned())
            } else {
                Ok(LogicalType::Struct(fields))
            }
        }
        (Some((PathStep::Each, _)), other) => Err(format!("`[]` is for lists and maps, here is {other}")),
        (Some((PathStep::Field(name), _)), LogicalType::List(_)) => {
            Err(format!("`.{name}` of a list; write `[].{name}` for every element"))
        }
        (Some((PathStep::Field(name), _)), other) => Err(format!("`.{name}` is for structs, here is {other}")),
    }
}

fn leaf(r#type: &LogicalType, protection: &Protection) -> Result<LogicalType, String> {
    match (&protection.how, r#type) {
        (Protect::Keep, r#type) => Ok(r#type.clone()),
        (Protect::Redact(_), other) if *other != LogicalType::String => {
            Err(format!("`redact` looks through text, here is {other}; use another protection"))
        }
        (Protect::Encrypt, _) if protection.encoding == Encoding::Binary => Ok(LogicalType::Binary),
        _ => Ok(LogicalType::String),
    }
}

/// The type with text in place of the value.
fn text_of(r#type: &LogicalType, path: &[PathStep]) -> LogicalType {
    match (path.split_first(), r#type) {
        (Some((_, rest)), LogicalType::List(element)) => LogicalType::List(Box::new(text_of(element, rest))),
        (Some((_, rest)), LogicalType::Map(value)) => LogicalType::Map(Box::new(text_of(value, rest))),
        _ => LogicalType::String,
    }
}

/// The columns of a table after its protections.
///
/// # Errors
/// The number of the protection that cannot be applied, and why.
pub fn protect_columns(columns: Vec<Column>, protections: &[Protection]) -> Result<Vec<Column>, (usize, String)> {
    let mut columns = columns;
    for (i, protection) in protections.iter().enumerate() {
        let field = |c: &Column| StructField { name: c.name.clone(), r#type: c.r#type.clone(), required: c.required };
        let fields: Vec<StructField> = columns.iter().map(field).collect();
        let fields = protect_fields(&fields, &steps(&protection.path), protection).map_err(|why| (i, why))?;
        columns = fields.into_iter().map(|field| merge(field, &columns, protection)).collect();
    }
    for key in sealing_keys(protections) {
        let doc = format!("which key of `{key}` sealed the row's encrypted values");
        let name = key_column(key);
        let (path, r#type) = (JsonPath(vec![name.clone()]), LogicalType::String);
        columns.push(Column { name, path, r#type, required: false, format: None, doc: Some(doc) });
    }
    Ok(columns)
}

/// A field as the column it was before, or as a new one.
fn merge(field: StructField, before: &[Column], protection: &Protection) -> Column {
    let of = |name: &str| before.iter().find(|column| column.name == name);
    let column = match (of(&field.name), of(&protection.path.column)) {
        (Some(same), _) => same.clone(),
        (None, source) => Column {
            path: source.map_or_else(|| JsonPath(vec![field.name.clone()]), |source| source.path.clone()),
            name: field.name.clone(),
            r#type: LogicalType::String,
            required: field.required,
            format: None,
            doc: Some(format!("token of `{}`: HMAC-SHA256, hexadecimal", protection.path)),
        },
    };
    let format = if column.r#type == field.r#type { column.format.clone() } else { None };
    let doc = match (&protection.how, &protection.key) {
        (Protect::Encrypt, Some(key)) if field.name == protection.path.column => {
            let note =
                format!("`{}` is encrypted, AES-256-GCM; the key is named in {}", protection.path, key_column(key));
            Some(column.doc.map_or_else(|| note.clone(), |doc| format!("{doc} ({note})")))
        }
        _ => column.doc,
    };
    Column { r#type: field.r#type, required: field.required, format, doc, ..column }
}

/// The column before the protections that a column of the table was made of: itself, or what it is the token of.
#[must_use]
pub fn unprotected_name<'a>(protections: &'a [Protection], name: &'a str) -> &'a str {
    let of = protections.iter().find(|p| p.token && p.path.inside.is_empty() && p.token_name() == name);
    of.map_or(name, |protection| &protection.path.column)
}

/// Something in a payload's row that a column was made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traced {
    /// Where it stands.
    pub place: JsonPath,
    /// Whether the column is what stands there, of any type: renamed, copied or taken out. Else a function made it of
    /// that, and nothing is known of the way into it.
    pub same: bool,
}

/// Everything that a column behind the steps was made of; empty when it was made of nothing that payloads hold.
#[must_use]
pub fn traces(output: &Output, column: &str) -> Vec<Traced> {
    let shaped = shaped_columns(output);
    let Some(position) = shaped.iter().position(|c| c.name == column) else { return Vec::new() };
    let mut found: Vec<(usize, Vec<String>, bool)> = vec![(position, Vec::new(), true)];
    for step in output.transformations.iter().rev() {
        found = found.into_iter().flat_map(|(at, inner, same)| before(step, at, inner, same)).collect();
    }
    let mut out: Vec<Traced> = Vec::new();
    for (at, inner, same) in found {
        let Some(column) = output.table.columns.get(at) else { continue };
        let traced = Traced { place: JsonPath(column.path.0.iter().cloned().chain(inner).collect()), same };
        if !out.contains(&traced) {
            out.push(traced);
        }
    }
    out
}

/// What of the columns before a step is in the column at `at` behind it, and the way into that.
fn before(step: &Step, at: usize, inner: Vec<String>, same: bool) -> Vec<(usize, Vec<String>, bool)> {
    let number = match step.plan.after.get(at) {
        Some((_, Source::Kept(from))) => return vec![(*from, inner, same)],
        Some((_, Source::Made(number))) => *number,
        None => return Vec::new(),
    };
    let extracted = match &step.plan.reads[..] {
        [from] => extracted(step, number).map(|path| (*from, path)),
        _ => None,
    };
    match extracted {
        Some((from, path)) => vec![(from, path.into_iter().chain(inner).collect(), same)],
        None => step.plan.reads.iter().map(|from| (*from, Vec::new(), false)).collect(),
    }
}

/// The path that a step takes its result of this number from, if it takes values out of JSON text or a struct.
fn extracted(step: &Step, number: usize) -> Option<Vec<String>> {
    let path = |name: &str| step.args.path(name).map(|path| path.0.clone());
    if *step.function == json::EXTRACT {
        path("path").ok()
    } else if *step.function == json::EXTRACT_ALL {
        let (field, _) = step.args.types("fields").get(number)?;
        Some(path("under").unwrap_or_default().into_iter().chain([field.clone()]).collect())
    } else if *step.function == nested::UNNEST {
        let (name, _) = step.plan.makes().nth(number)?;
        Some(vec![name.strip_prefix(step.args.opt_text("prefix").unwrap_or_default())?.to_owned()])
    } else if *step.function == nested::FIELD {
        Some(vec![step.args.opt_text("name")?.to_owned()])
    } else {
        None
    }
}

/// Where a column's values stand in the row of a payload, as one value; `None` when that cannot be said.
#[must_use]
pub fn source(output: &Output, column: &str) -> Option<Traced> {
    match &traces(output, column)[..] {
        [one] => Some(one.clone()),
        _ => None,
    }
}

/// The decoded column that is a table column, under another name at most; `None` when a step made it, or reads it.
#[must_use]
pub fn decoded_name<'a>(output: &'a Output, column: &str) -> Option<&'a str> {
    let mut at = shaped_columns(output).iter().position(|c| c.name == column)?;
    for step in output.transformations.iter().rev() {
        let (_, Source::Kept(from)) = step.plan.after.get(at)? else { return None };
        at = *from;
        if step.plan.reads.contains(&at) && !matches!(step.function.shape, Shape::Layout(_)) {
            return None;
        }
    }
    output.table.columns.get(at).map(|column| column.name.as_str())
}

/// Where rows are in a payload.
fn rows(format: PayloadFormat) -> &'static [&'static [&'static str]] {
    match format {
        PayloadFormat::Json => &[&[]],
        PayloadFormat::Debezium => {
            &[&[], &["before"], &["after"], &["payload"], &["payload", "before"], &["payload", "after"]]
        }
        PayloadFormat::Dynamodb => &[&["dynamodb", "Keys"], &["dynamodb", "NewImage"], &["dynamodb", "OldImage"]],
    }
}

/// The places of a column path in payloads: where the column's value is, then the way into it.
fn places(output: &Output, path: &ColumnPath, row: &[&str]) -> Option<Vec<PathStep>> {
    let Traced { place, same } = source(output, &path.column)?;
    let field = |name: &str| PathStep::Field(name.to_owned());
    let row = row.iter().map(|name| field(name));
    if output.format == PayloadFormat::Dynamodb {
        // Typed JSON: the attribute as a whole, its type letter included.
        return Some(row.chain(place.0.first().map(|name| field(name))).collect());
    }
    // The way into what a function made leads nowhere in the payload: there the value is taken as a whole.
    let inside = if same { &path.inside[..] } else { &[] };
    Some(row.chain(place.0.iter().map(|name| field(name))).chain(inside.iter().cloned()).collect())
}

/// What each `[]` of a way into a value stands for.
fn many(r#type: Option<&LogicalType>, path: &[PathStep]) -> Vec<Many> {
    let Some((step, rest)) = path.split_first() else { return Vec::new() };
    let (own, inner) = match (step, r#type) {
        (PathStep::Each, Some(LogicalType::Map(value))) => (Some(Many::Values), Some(&**value)),
        (PathStep::Each, Some(LogicalType::List(element))) => (Some(Many::Elements), Some(&**element)),
        (PathStep::Field(name), Some(LogicalType::Struct(fields))) => {
            (None, fields.iter().find(|field| field.name == *name).map(|field| &field.r#type))
        }
        _ => (None, None),
    };
    own.into_iter().chain(many(inner, rest)).collect()
}

/// The type at the end of a way into a value.
fn inner<'a>(r#type: &'a LogicalType, path: &[PathStep]) -> Option<&'a LogicalType> {
    let Some((step, rest)) = path.split_first() else { return Some(r#type) };
    match (step, r#type) {
        (PathStep::Each, LogicalType::List(of) | LogicalType::Map(of)) => inner(of, rest),
        (PathStep::Field(name), LogicalType::Struct(fields)) => {
            fields.iter().find(|field| field.name == *name).and_then(|field| inner(&field.r#type, rest))
        }
        _ => None,
    }
}

/// The type of what a protection takes, as it is before; `None` where there is no such value.
#[must_use]
pub fn value_type(output: &Output, path: &ColumnPath) -> Option<LogicalType> {
    let column = shaped_columns(output).into_iter().find(|column| column.name == path.column)?;
    inner(&column.r#type, &path.inside).cloned()
}

/// What of an output's payloads is protected, for [`crate::crypto::Guard`].
#[must_use]
pub fn protected(output: &Output) -> Vec<Protected> {
    let (database, table) = (&output.table.database, &output.table.name);
    let protections = output.table.protections.iter();
    let shaped = shaped_columns(output);
    let type_of = |name: &str| shaped.iter().find(|column| column.name == name).map(|column| &column.r#type);
    let naming = |name: &str| type_of(name).map(Naming::of).unwrap_or_default();
    protections
        .map(|protection| {
            let subject =
                protection.subject.as_ref().map(|name| ColumnPath { column: name.to_string(), inside: Vec::new() });
            let of = |row: &&[&str]| {
                let subject = subject.as_ref().and_then(|path| places(output, path, row));
                Some((places(output, &protection.path, row)?, subject))
            };
            Protected {
                protection: protection.clone(),
                column: format!("{database}.{table}.{}", protection.path),
                places: rows(output.format).iter().filter_map(of).collect(),
                many: many(type_of(&protection.path.column), &protection.path.inside),
                naming: protection.subject.as_ref().map(|name| naming(name.as_str())).unwrap_or_default(),
                value: type_of(&protection.path.column)
                    .and_then(|column| inner(column, &protection.path.inside))
                    .map(Naming::of)
                    .unwrap_or_default(),
                traced: source(output, &protection.path.column).is_some(),
            }
        })
        .collect()
}
