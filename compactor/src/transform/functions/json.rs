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
use crate::transform::parts::add_bytes;
use crate::transform::text::{Extract, parse_json};
use crate::transform::values::{Rejects, Texts, batch, text_or_reject, texts};

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
    Ok(batch(move |batch| {
        let column = batch.column(0)?;
        let writer = json_text::Writer::new(&from, column.array)?;
        let mut widths = vec![0; batch.rows];
        add_bytes(column.array, &mut widths);
        let mut out = Texts::new(batch, column.name, 0);
        for (row, width) in widths.into_iter().enumerate() {
            let more = if column.array.is_null(row) {
                out.push_null()
            } else {
                out.push(width, |out| Ok(writer.write(row, out).is_ok()))
            };
            if !more {
                break;
            }
        }
        Ok(out.finish())
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
        let mut bytes = 0;
        for (row, text) in texts(column)?.iter().enumerate() {
            let mut leaves = Leaves::new(&separator, batch.room.longest(text.map_or(0, str::len)));
            let read = text.map(|text| leaves.add(text, 0));
            bytes += leaves.bytes;
            if batch.room.is_over(row + 1, bytes) {
                break;
            }
            let there = read.and_then(|read| rejects.sieve(row, read)).is_some();
            if there {
                for (key, value) in leaves.distinct() {
                    out.keys().append_value(key);
                    out.values().append_option(value);
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

/// The leaves of an object, each a path and its text; none for a JSON null.
struct Leaves<'a> {
    found: Vec<(String, Option<Cow<'a, str>>)>,
    path: String,
    separator: &'a str,
    /// Of paths and texts. Long paths with many leaves are many times the bytes of the object.
    bytes: usize,
    bytes_max: usize,
}

impl<'a> Leaves<'a> {
    fn new(separator: &'a str, bytes_max: usize) -> Self {
        Self { found: Vec::new(), path: String::new(), separator, bytes: 0, bytes_max }
    }

    /// Adds those of an object.
    fn add(&mut self, text: &'a str, depth: usize) -> Result<(), Why> {
        if depth > MAX_DEPTH {
            let detail = format!("objects nested deeper than {MAX_DEPTH}").into();
            return Err(Why { reason: RejectKind::TooDeep, detail });
        }
        let before = self.path.len();
        members(text, |key, value| {
            if depth > 0 {
                self.path.push_str(self.separator);
            }
            self.path.push_str(&key);
            let value = value.get();
            match kind_of(value) {
                "object" => self.add(value, depth + 1)?,
                "null" => self.leaf(None)?,
                "string" => {
                    let text = serde_json::from_str::<Key<'a>>(value).map_err(|e| not_json(&e))?;
                    self.leaf(Some(text.0))?;
                }
                _ => self.leaf(Some(Cow::Borrowed(value)))?,
            }
            self.path.truncate(before);
            Ok(())
        })
    }

    fn leaf(&mut self, value: Option<Cow<'a, str>>) -> Result<(), Why> {
        self.bytes += self.path.len() + value.as_ref().map_or(0, |value| value.len());
        if self.bytes > self.bytes_max {
            return Err(Why::large(self.bytes_max));
        }
        self.found.push((self.path.clone(), value));
        Ok(())
    }

    /// Each path once, with its last value, as in the records themselves.
    fn distinct(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let last: HashMap<&str, usize> = self.found.iter().enumerate().map(|(i, (key, _))| (key.as_str(), i)).collect();
        let found = self.found.iter().enumerate().filter(move |(i, (key, _))| last[key.as_str()] == *i);
        found.map(|(_, (key, value))| (key.as_str(), value.as_deref()))
    }
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
        let mut known = HashSet::new();
        while let Some((key, IgnoredAny)) = map.next_entry::<Key<'de>, _>()? {
            known.insert(key.0);
        }
        Ok(known.len() as i32)
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
