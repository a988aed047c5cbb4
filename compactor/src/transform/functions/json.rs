//! JSON text.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use arrow_array::builder::{Int32Builder, ListBuilder, MapBuilder, MapFieldNames, StringBuilder};
use arrow_array::{Array, ArrayRef};
use firn_shared::config::domain::JsonPath;
use firn_shared::error::Result;
use firn_shared::functions::{Function, json};
use firn_shared::types::LogicalType;
use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::arrow_types::{MAP_ENTRIES, data_type, element_field};
use crate::decode::{MAX_DEPTH, RejectKind};
use crate::transform::json_text;
use crate::transform::kernel::{Batch, Build, Call, Kernel, Made, Misfit, Why, Work, broken};
use crate::transform::text::{Extract, parse_json};
use crate::transform::values::{Rejects, batch, column, text_or_reject, texts};

/// This family.
pub const TABLE: &[(&Function, Build)] = &[
    (&json::EXTRACT, extract),
    (&json::EXTRACT_ALL, extract_all),
    (&json::FLATTEN_JSON, flatten),
    (&json::TO_JSON, to_json),
    (&json::FROM_JSON, from_json),
    (&json::JSON_KEYS, keys),
    (&json::JSON_KIND, kind),
    (&json::JSON_SIZE, size),
];

fn extract(call: &Call<'_>) -> Result<Work, Misfit> {
    let path = call.args.path("path").map_err(broken)?.clone();
    let (name, to) = (call.args.text("as").map_err(broken)?, call.to().map_err(broken)?);
    Ok(Work::Make(Box::new(Extract::new([(path, name.to_owned(), to.clone())]))))
}

fn extract_all(call: &Call<'_>) -> Result<Work, Misfit> {
    let under = call.args.path("under").map_or_else(|_| Vec::new(), |path| path.0.clone());
    let fields = call.args.types("fields").iter().zip(call.makes);
    let fields = fields.map(|((field, _), (name, r#type))| {
        let path = under.iter().cloned().chain([field.clone()]).collect();
        (JsonPath(path), name.clone(), r#type.clone())
    });
    Ok(Work::Make(Box::new(Extract::new(fields))))
}

impl Kernel for Extract {
    fn engine(&self) -> &'static str {
        "decoder"
    }

    fn call(&self, batch: &Batch<'_>) -> Result<Made> {
        let column = batch.column(0)?;
        let (columns, rejects) = self.apply(column.name, column.array)?;
        Ok(Made { columns, rejects })
    }
}

/// `fromJson`: text as a value of this type.
#[derive(Debug)]
struct Parse(LogicalType);

fn from_json(call: &Call<'_>) -> Result<Work, Misfit> {
    Ok(Work::Make(Box::new(Parse(call.to().map_err(broken)?.clone()))))
}

impl Kernel for Parse {
    fn engine(&self) -> &'static str {
        "decoder"
    }

    fn call(&self, batch: &Batch<'_>) -> Result<Made> {
        let column = batch.column(0)?;
        let (array, rejects) = parse_json(column.name, column.array, &self.0)?;
        Ok(Made { columns: vec![array], rejects })
    }
}

fn to_json(call: &Call<'_>) -> Result<Work, Misfit> {
    let from = call.from().map_err(broken)?.clone();
    Ok(column(move |column| {
        let writer = json_text::Writer::new(&from, column.array)?;
        let mut out = StringBuilder::new();
        let mut text = String::new();
        for row in 0..column.array.len() {
            if column.array.is_null(row) {
                out.append_null();
                continue;
            }
            text.clear();
            writer.write(row, &mut text);
            out.append_value(&text);
        }
        Ok(Arc::new(out.finish()))
    }))
}

fn not_json(e: &serde_json::Error) -> Why {
    let detail = format!("not one JSON value at line {} column {}", e.line(), e.column());
    Why { reason: RejectKind::NotJson, detail: detail.into() }
}

fn wrong(wanted: &str, text: &str) -> Why {
    let detail = format!("expected {wanted}, found {}", kind_of(text));
    Why { reason: RejectKind::WrongType, detail: detail.into() }
}

/// What a JSON value is, by its first character.
fn kind_of(text: &str) -> &'static str {
    match text.trim_start().as_bytes().first() {
        Some(b'{') => "object",
        Some(b'[') => "list",
        Some(b'"') => "string",
        Some(b't' | b'f') => "boolean",
        Some(b'n') => "null",
        _ => "number",
    }
}

/// Looks at the members of an object, one after the other.
struct Members<F>(F);

impl<'de, F: FnMut(Cow<'de, str>, &'de RawValue) -> Result<(), Why>> Visitor<'de> for Members<F> {
    type Value = Result<(), Why>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut outcome = Ok(());
        while let Some(key) = map.next_key::<Key<'de>>()? {
            let value = map.next_value::<&'de RawValue>()?;
            if outcome.is_ok() {
                outcome = (self.0)(key.0, value);
            }
        }
        Ok(outcome)
    }
}

/// A key, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

fn members<'a>(text: &'a str, each: impl FnMut(Cow<'a, str>, &'a RawValue) -> Result<(), Why>) -> Result<(), Why> {
    if kind_of(text) != "object" {
        return match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => Err(wrong("object", text)),
            Err(e) => Err(not_json(&e)),
        };
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let outcome = deserializer.deserialize_map(Members(each)).map_err(|e| not_json(&e))?;
    deserializer.end().map_err(|e| not_json(&e))?;
    outcome
}

fn flatten(call: &Call<'_>) -> Result<Work, Misfit> {
    let separator = call.args.text("separator").map_err(broken)?.to_owned();
    let wanted = data_type(&LogicalType::Map(Box::new(LogicalType::String)));
    Ok(batch(move |batch| {
        let column = batch.column(0)?;
        let names = MapFieldNames { entry: MAP_ENTRIES.to_owned(), key: "key".to_owned(), value: "value".to_owned() };
        let mut out = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
        let mut rejects = Rejects::new(column.name);
        for (row, text) in texts(column)?.iter().enumerate() {
            let mut leaves = Vec::new();
            let read = text.map(|text| leaves_of(text, &mut String::new(), &separator, 0, &mut leaves));
            let there = read.and_then(|read| rejects.sieve(row, read)).is_some();
            if there {
                // A key that comes twice has its last value, as in the records themselves.
                let last: HashMap<String, usize> =
                    leaves.iter().enumerate().map(|(i, (key, _))| (key.clone(), i)).collect();
                for (_, (key, value)) in leaves.iter().enumerate().filter(|(i, (key, _))| last[key] == *i) {
                    out.keys().append_value(key);
                    out.values().append_option(value.as_deref());
                }
            }
            append(&mut out, there)?;
        }
        let array: ArrayRef = Arc::new(out.finish());
        let array = arrow_cast::cast(&array, &wanted).map_err(bug)?;
        Ok(Made { columns: vec![array], rejects: rejects.found })
    }))
}

fn append(out: &mut MapBuilder<StringBuilder, StringBuilder>, there: bool) -> Result<()> {
    out.append(there).map_err(bug)
}

fn bug(e: arrow_schema::ArrowError) -> firn_shared::error::Error {
    firn_shared::error::Error::bug("cannot build a map").with_source(e)
}

/// A path and the text of its leaf; none for a JSON null.
type Leaf<'a> = (String, Option<Cow<'a, str>>);

fn leaves_of<'a>(
    text: &'a str,
    path: &mut String,
    separator: &str,
    depth: usize,
    leaves: &mut Vec<Leaf<'a>>,
) -> Result<(), Why> {
    if depth > MAX_DEPTH {
        let detail = format!("objects nested deeper than {MAX_DEPTH}").into();
        return Err(Why { reason: RejectKind::TooDeep, detail });
    }
    let before = path.len();
    members(text, |key, value| {
        if before > 0 {
            path.push_str(separator);
        }
        path.push_str(&key);
        let value = value.get();
        match kind_of(value) {
            "object" => leaves_of(value, path, separator, depth + 1, leaves)?,
            "null" => leaves.push((path.clone(), None)),
            "string" => {
                let text = serde_json::from_str::<Key<'a>>(value).map_err(|e| not_json(&e))?;
                leaves.push((path.clone(), Some(text.0)));
            }
            _ => leaves.push((path.clone(), Some(Cow::Borrowed(value)))),
        }
        path.truncate(before);
        Ok(())
    })
}

fn keys(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(batch(|batch| {
        let column = batch.column(0)?;
        let field = element_field(&LogicalType::String);
        let mut out = ListBuilder::new(StringBuilder::new()).with_field(field);
        let mut rejects = Rejects::new(column.name);
        for (row, text) in texts(column)?.iter().enumerate() {
            let (mut keys, mut known): (Vec<Cow<'_, str>>, _) = (Vec::new(), HashSet::new());
            let mut note = |key| {
                if known.insert(Cow::clone(&key)) {
                    keys.push(key);
                }
            };
            let read = text.map(|text| {
                members(text, |key, _| {
                    note(key);
                    Ok(())
                })
            });
            let there = read.and_then(|read| rejects.sieve(row, read)).is_some();
            if there {
                for key in &keys {
                    out.values().append_value(key);
                }
            }
            out.append(there);
        }
        Ok(Made { columns: vec![Arc::new(out.finish())], rejects: rejects.found })
    }))
}

fn kind(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(text_or_reject(|text, out| {
        serde_json::from_str::<IgnoredAny>(text).map_err(|e| not_json(&e))?;
        out.push_str(kind_of(text));
        Ok(true)
    }))
}

/// Counts the members of an object or a list.
struct Count;

impl<'de> Visitor<'de> for Count {
    type Value = i32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<i32, A::Error> {
        let mut count = 0;
        while list.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<i32, A::Error> {
        let mut count = 0;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(count)
    }
}

fn size(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(batch(|batch| {
        let column = batch.column(0)?;
        let texts = texts(column)?;
        let mut out = Int32Builder::with_capacity(texts.len());
        let mut rejects = Rejects::new(column.name);
        for (row, text) in texts.iter().enumerate() {
            let read = |text: &str| {
                serde_json::from_str::<IgnoredAny>(text).map_err(|e| not_json(&e))?;
                let mut deserializer = serde_json::Deserializer::from_str(text);
                deserializer.deserialize_any(Count).map_err(|_| wrong("object or list", text))
            };
            out.append_option(text.and_then(|text| rejects.sieve(row, read(text))));
        }
        Ok(Made { columns: vec![Arc::new(out.finish())], rejects: rejects.found })
    }))
}
