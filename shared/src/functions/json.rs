//! JSON text.

use super::{Arg, Family, Function, Gives, Kind, LONG, Nulls, Planner, Shape, Takes};
use crate::types::LogicalType;

/// This family.
pub const ALL: &[Function] = &[EXTRACT, EXTRACT_ALL, FLATTEN_JSON, TO_JSON, FROM_JSON, JSON_KEYS, JSON_KIND, JSON_SIZE];

/// `extract`
pub const EXTRACT: Function = Function::new(
    "extract",
    "Takes a value out of a column of JSON text, as strictly as columns are decoded from the payload.",
    Shape::Make(extract),
)
.of(Family::Json)
.args(&[
    Arg::required("from", Kind::Column(Takes::JsonText), "The column of JSON text."),
    Arg::required("path", Kind::Path, "JSON path in it."),
    Arg::required("as", Kind::NewColumn, "The new column."),
    Arg::required("type", Kind::Type, "Its type."),
])
.nulls(Nulls::Made("a path that leads nowhere, or to a JSON null"))
.rejects("text that is no JSON object, and values that are not of the type")
.example("extract: {from: payload, path: $.size, as: size, type: int}");

fn extract(p: &mut Planner<'_>) -> Option<()> {
    let (to, r#type) = (p.args.opt_text("as")?.to_owned(), p.args.opt_type("type")?.clone());
    let read = p.read("from");
    p.add("as", &to, Some(r#type));
    read.map(drop)
}

/// `extractAll`
pub const EXTRACT_ALL: Function = Function::new(
    "extractAll",
    "Takes several fields out of one object in a column of JSON text, in one pass; columns come in the order of their names.",
    Shape::Make(extract_all),
)
.of(Family::Json)
.args(&[
    Arg::required("from", Kind::Column(Takes::JsonText), "The column of JSON text."),
    Arg::optional("under", Kind::Path, "JSON path of the object; else the text itself is one."),
    Arg::required("fields", Kind::Types, "Names of its fields, each with the type of its column."),
    Arg::default("prefix", Kind::Text, "\"\"", "What the columns' names begin with, before the fields' names."),
])
.nulls(Nulls::Made("a field that is not there, or is a JSON null"))
.rejects("text that is no JSON object, and values that are not of the type")
.example("extractAll: {from: payload, under: $.repo, fields: {id: long, name: string}, prefix: repo_}");

fn extract_all(p: &mut Planner<'_>) -> Option<()> {
    let (fields, prefix) = (p.args.types("fields").to_vec(), p.args.opt_text("prefix")?.to_owned());
    let read = p.read("from");
    for (name, r#type) in fields {
        p.add("fields", &format!("{prefix}{name}"), Some(r#type));
    }
    read.map(drop)
}

/// `flattenJson`
pub const FLATTEN_JSON: Function = Function::map(
    "flattenJson",
    "A JSON object of any depth as a map from the path of each leaf to its text; lists stay JSON text.",
    Takes::JsonText,
    Gives::With("map<string, string>", |_, _| Ok(LogicalType::Map(Box::new(LogicalType::String)))),
)
.of(Family::Json)
.args(&[Arg::default("separator", Kind::Text, "\".\"", "What stands between the keys of a path.")])
.rejects("text that is no JSON object, and paths that together are longer than memory allows")
.example("flattenJson: {column: payload, as: fields}");

/// `toJson`
pub const TO_JSON: Function = Function::map(
    "toJson",
    "Any value as JSON text; of a struct, fields without a value are left out. NaN and infinities, which JSON lacks, are null.",
    Takes::Any,
    Gives::Json,
)
.of(Family::Json)
.rejects(LONG)
.example("toJson: {column: tags, as: tags_json}");

/// `fromJson`
pub const FROM_JSON: Function = Function::map(
    "fromJson",
    "JSON text as a value of a type, as strictly as columns are decoded from the payload.",
    Takes::JsonText,
    Gives::Arg("type"),
)
.of(Family::Json)
.args(&[Arg::required("type", Kind::Type, "The type.")])
.nulls(Nulls::Made("a JSON null"))
.rejects("text that is not JSON, and values that are not of the type")
.example("fromJson: {column: tags, type: 'list<string>'}");

/// `jsonKeys`
pub const JSON_KEYS: Function =
    Function::map("jsonKeys", "The keys of a JSON object, in its order.", Takes::JsonText, Gives::Texts)
        .of(Family::Json)
        .rejects("text that is no JSON object")
        .example("jsonKeys: {column: payload, as: payload_keys}");

/// `jsonKind`
pub const JSON_KIND: Function = Function::map(
    "jsonKind",
    "What a JSON value is: `object`, `list`, `string`, `number`, `boolean` or `null`.",
    Takes::JsonText,
    Gives::Text,
)
.of(Family::Json)
.rejects("text that is not JSON")
.example("jsonKind: {column: payload, as: kind}");

/// `jsonSize`
pub const JSON_SIZE: Function = Function::map(
    "jsonSize",
    "How many members a JSON object or list has; a key that comes twice is one.",
    Takes::JsonText,
    Gives::Int,
)
.of(Family::Json)
.rejects("text that is neither a JSON object nor a list")
.example("jsonSize: {column: payload, as: payload_size}");
