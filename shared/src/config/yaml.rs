//! YAML text to a tree in which every value knows its place, and typed values out of such a tree.
//!
//! The tree comes from yaml-rust2's events (a stream, so that depth is bounded and every duplicate key is seen);
//! `serde_yaml` turns checked trees into wire structs and values back into text. Anchors, aliases, merge keys, tags and
//! several documents in a file are refused: a pipeline file says what it says at the place where it stands.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_yaml::{Mapping, Number, Value};
use yaml_rust2::Event;
use yaml_rust2::parser::Parser;
use yaml_rust2::scanner::{Marker, TScalarStyle};
use zeroize::Zeroize;

/// Collections may be nested this deep.
const DEPTH_MAX: usize = 64;

/// A place in a file, both from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl From<&Marker> for Position {
    fn from(mark: &Marker) -> Self {
        Self { line: mark.line(), column: mark.col() + 1 }
    }
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) kind: Kind,
}

impl Node {
    /// Wipes the texts: what was read may hold passwords and keys.
    pub(super) fn wipe(&mut self) {
        match &mut self.kind {
            Kind::Text { text, .. } => text.zeroize(),
            Kind::List(items) => items.iter_mut().for_each(Self::wipe),
            Kind::Map(entries) => entries.iter_mut().for_each(|entry| entry.value.wipe()),
            _ => {}
        }
    }
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Text; `expanded` when `${…}` was replaced in it, so that it may also stand for a number.
    Text {
        text: String,
        expanded: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Text whose `${…}` could not be replaced, which was reported.
    Unset,
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) at: Position,
    pub(super) value: Node,
}

/// A mistake and where it is.
pub(super) type Mistake = (Position, String);

/// A collection that is not closed yet.
enum Open {
    List(Position, Vec<Node>),
    Map(Position, Vec<Entry>, Option<(String, Position)>),
}

/// Reads one document; an empty one is a null. Mistakes that do not stop the reading are put into `mistakes`.
///
/// # Errors
/// The mistake that stopped it.
pub(super) fn read(text: &str, mistakes: &mut Vec<Mistake>) -> Result<Node, Mistake> {
    let mut parser = Parser::new_from_str(text);
    let mut open: Vec<Open> = Vec::new();
    let mut root = None;
    loop {
        let (event, mark) = parser
            .next_token()
            .map_err(|error| (Position::from(error.marker()), format!("not YAML: {}", error.info())))?;
        let at = Position::from(&mark);
        let mut node = match event {
            Event::StreamEnd => break,
            Event::DocumentStart if root.is_some() => {
                return Err((at, "a second document; only one is read from a file".to_owned()));
            }
            Event::Alias(_) => return Err((at, "aliases (`*name`) are not supported; write the value out".to_owned())),
            Event::Scalar(_, _, anchor, _) | Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _)
                if anchor != 0 =>
            {
                return Err((at, "anchors (`&name`) are not supported; write the value out".to_owned()));
            }
            Event::Scalar(_, _, _, Some(_)) | Event::SequenceStart(_, Some(_)) | Event::MappingStart(_, Some(_)) => {
                return Err((at, "tags (`!name`) are not supported".to_owned()));
            }
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() >= DEPTH_MAX => {
                return Err((at, format!("nested deeper than {DEPTH_MAX}")));
            }
            Event::SequenceStart(..) => {
                refuse_as_key(open.last(), at)?;
                open.push(Open::List(at, Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                refuse_as_key(open.last(), at)?;
                open.push(Open::Map(at, Vec::new(), None));
                continue;
            }
            Event::Scalar(text, style, ..) => {
                if let Some(Open::Map(start, entries, key @ None)) = open.last_mut() {
                    // The parser places a block mapping at the colon behind its first key.
                    *start = (*start).min(at);
                    if let Some(first) = entries.iter().find(|entry| entry.key == text) {
                        mistakes.push((at, format!("key `{text}` comes twice; first at line {}", first.at.line)));
                    }
                    *key = Some((text, at));
                    continue;
                }
                let kind =
                    if style == TScalarStyle::Plain { plain(text) } else { Kind::Text { text, expanded: false } };
                Node { at, kind }
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(at, items)) => Node { at, kind: Kind::List(items) },
                Some(Open::Map(at, entries, _)) => Node { at, kind: Kind::Map(entries) },
                None => continue,
            },
            _ => continue,
        };
        match open.last_mut() {
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map(_, entries, key)) => {
                // A second value of a key was reported above; the first one stays.
                if let Some((key, at)) = key.take().filter(|(key, _)| entries.iter().all(|entry| entry.key != *key)) {
                    if node.kind == Kind::Null {
                        // Nothing stands nowhere: the parser would point behind the next line break.
                        node.at = at;
                    }
                    entries.push(Entry { key, at, value: node });
                }
            }
            None => root = Some(node),
        }
    }
    Ok(root.unwrap_or(Node { at: Position { line: 1, column: 1 }, kind: Kind::Null }))
}

fn refuse_as_key(open: Option<&Open>, at: Position) -> Result<(), Mistake> {
    match open {
        Some(Open::Map(_, _, None)) => Err((at, "a key must be text".to_owned())),
        _ => Ok(()),
    }
}

/// The value of a scalar without quotes (YAML 1.2 core schema, as `serde_yaml` reads it).
fn plain(text: String) -> Kind {
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" => Kind::Bool(true),
        "false" | "False" | "FALSE" => Kind::Bool(false),
        _ => number(&text).unwrap_or(Kind::Text { text, expanded: false }),
    }
}

/// A decimal number; digits with leading zeros are text, as in `serde_yaml`.
pub(super) fn number(text: &str) -> Option<Kind> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let numeric = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'-' | b'+'));
    let padded = digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
    if !numeric || padded {
        return None;
    }
    text.parse().map(Kind::Int).or_else(|_| text.parse().map(Kind::Float)).ok().filter(|kind| match kind {
        Kind::Float(float) => float.is_finite(),
        _ => true,
    })
}

/// A tree as JSON, without its places.
pub(super) fn json(node: &Node) -> serde_json::Value {
    match &node.kind {
        Kind::Null | Kind::Unset => serde_json::Value::Null,
        Kind::Bool(bool) => (*bool).into(),
        Kind::Int(int) => (*int).into(),
        Kind::Float(float) => (*float).into(),
        Kind::Text { text, .. } => text.as_str().into(),
        Kind::List(items) => items.iter().map(json).collect(),
        Kind::Map(entries) => entries.iter().map(|entry| (entry.key.clone(), json(&entry.value))).collect(),
    }
}

/// The typed value of a tree whose shape was checked.
///
/// # Errors
/// The path and what does not fit, should the check have let something through.
pub(super) fn typed<T: DeserializeOwned>(value: Value) -> Result<T, (String, String)> {
    let mut track = serde_path_to_error::Track::new();
    let wrapped = serde_path_to_error::Deserializer::new(value, &mut track);
    let result = serde_yaml::with::singleton_map_recursive::deserialize(wrapped);
    result.map_err(|error| (track.path().to_string(), error.to_string()))
}

/// A value as YAML text, nulls left out.
///
/// # Errors
/// What cannot be written.
pub(super) fn write<T: Serialize>(value: &T) -> Result<String, String> {
    let mut tree = serde_yaml::with::singleton_map_recursive::serialize(value, serde_yaml::value::Serializer)
        .map_err(|error| error.to_string())?;
    drop_nulls(&mut tree);
    serde_yaml::to_string(&tree).map_err(|error| error.to_string())
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Mapping(mapping) => {
            mapping.retain(|_, value| !value.is_null());
            mapping.iter_mut().for_each(|(_, value)| drop_nulls(value));
        }
        Value::Sequence(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// The pieces `shape` builds values from.
pub(super) mod value {
    use super::{Kind, Mapping, Number, Value};

    pub(in crate::config) type Yaml = Value;

    /// A scalar.
    pub(in crate::config) fn scalar(kind: &Kind) -> Yaml {
        match kind {
            Kind::Bool(bool) => Value::Bool(*bool),
            Kind::Int(int) => Value::Number(Number::from(*int)),
            Kind::Float(float) => Value::Number(Number::from(*float)),
            Kind::Text { text, .. } => Value::String(text.clone()),
            Kind::Null | Kind::Unset | Kind::List(_) | Kind::Map(_) => Value::Null,
        }
    }

    /// A list.
    pub(in crate::config) fn list(items: Vec<Yaml>) -> Yaml {
        Value::Sequence(items)
    }

    /// A mapping.
    pub(in crate::config) fn map(entries: Vec<(String, Yaml)>) -> Yaml {
        Value::Mapping(entries.into_iter().map(|(key, value)| (Value::String(key), value)).collect::<Mapping>())
    }
}
