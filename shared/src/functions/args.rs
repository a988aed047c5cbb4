//! Arguments: what a step gives, typed by what its function takes.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value as Json};

use super::{Function, Takes};
use crate::config::domain::{JsonPath, TimeFormat};
use crate::cursor::did_you_mean;
use crate::error::{Error, Result};
use crate::types::LogicalType;

/// An argument of a function.
#[derive(Debug, Clone, Copy)]
pub struct Arg {
    /// Its key.
    pub name: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// Whether it may be left out.
    pub need: Need,
    /// What it means.
    pub about: &'static str,
}

/// Whether an argument may be left out.
#[derive(Debug, Clone, Copy)]
pub enum Need {
    /// It must be given.
    Required,
    /// It may be left out, which its description explains.
    Optional,
    /// Left out, it is this, written as JSON.
    Default(&'static str),
}

/// What an argument may be.
#[derive(Clone, Copy)]
pub enum Kind {
    /// The name of a column of such a type.
    Column(Takes),
    /// Names of such columns, at least one.
    Columns(Takes),
    /// The name of a new column.
    NewColumn,
    /// Any text.
    Text,
    /// Texts, at least one.
    Texts,
    /// A whole number in a range.
    Int(i64, i64),
    /// A number.
    Number,
    /// true or false.
    Bool,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A text, a number, true or false.
    Scalar,
    /// A type, such as `decimal(10,2)`.
    Type,
    /// Names to types.
    Types,
    /// Texts to texts.
    Pairs,
    /// A JSON path.
    Path,
    /// The form of a time.
    TimeFormat,
    /// A regular expression.
    Regex,
    /// A Polars SQL expression.
    Sql,
}

/// A typed argument.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text, also of columns, words, patterns and expressions.
    Text(String),
    /// Texts.
    Texts(Vec<String>),
    /// A whole number.
    Int(i64),
    /// A number.
    Number(f64),
    /// true or false.
    Bool(bool),
    /// A text, a number, true or false.
    Scalar(Json),
    /// A type.
    Type(LogicalType),
    /// Names and types, in the order of the names.
    Types(Vec<(String, LogicalType)>),
    /// Texts to texts.
    Pairs(BTreeMap<String, String>),
    /// A JSON path.
    Path(JsonPath),
    /// The form of a time.
    TimeFormat(TimeFormat),
}

impl Arg {
    /// One that must be given.
    #[must_use]
    pub const fn required(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { name, kind, need: Need::Required, about }
    }

    /// One that may be left out.
    #[must_use]
    pub const fn optional(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { name, kind, need: Need::Optional, about }
    }

    /// One that is `default` (JSON) when it is left out.
    #[must_use]
    pub const fn default(name: &'static str, kind: Kind, default: &'static str, about: &'static str) -> Self {
        Self { name, kind, need: Need::Default(default), about }
    }

    /// What it is when it is left out, as one writes it: text is in quotes unless it is a plain word.
    #[must_use]
    pub fn default_text(&self) -> Option<&'static str> {
        let Need::Default(json) = self.need else { return None };
        let text = json.trim_matches('"');
        let plain =
            text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(|c| c.is_ascii_alphanumeric());
        Some(if plain && !matches!(text, "null" | "true" | "false") { text } else { json })
    }
}

/// The arguments of a step: as given, and typed with defaults filled in.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Args {
    given: Map<String, Json>,
    values: BTreeMap<&'static str, Value>,
}

impl Args {
    /// Types what a step gives; `report` takes the argument (with an index in a list) and what is wrong with it.
    pub fn read(function: &Function, given: &Map<String, Json>, report: &mut dyn FnMut(&str, String)) -> Option<Self> {
        let mut values = BTreeMap::new();
        let mut whole = true;
        for arg in function.all_args() {
            let default = match arg.need {
                Need::Default(text) => serde_json::from_str(text).ok(),
                Need::Required | Need::Optional => None,
            };
            let Some(json) = given.get(arg.name).or(default.as_ref()) else {
                if matches!(arg.need, Need::Required) {
                    report(arg.name, "missing".to_owned());
                    whole = false;
                }
                continue;
            };
            match arg.kind.read(json) {
                Ok(value) => drop(values.insert(arg.name, value)),
                Err((inner, message)) => {
                    report(&format!("{}{inner}", arg.name), message);
                    whole = false;
                }
            }
        }
        for key in given.keys().filter(|key| function.all_args().all(|arg| arg.name != key.as_str())) {
            let names: Vec<&str> = function.all_args().map(|arg| arg.name).collect();
            report(key, format!("unknown key{}", did_you_mean(key, names.iter().copied())));
            whole = false;
        }
        let given: BTreeMap<String, Json> = given.clone().into_iter().collect();
        whole.then(|| Self { given: given.into_iter().collect(), values })
    }

    /// Gives a text in place of another, or of a default.
    pub fn set_text(&mut self, name: &'static str, text: &str) {
        self.given.insert(name.to_owned(), text.into());
        self.values.insert(name, Value::Text(text.to_owned()));
    }

    /// As the step gives them.
    #[must_use]
    pub fn given(&self) -> &Map<String, Json> {
        &self.given
    }

    /// The argument, if it was given or has a default.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// A text, if there is one.
    #[must_use]
    pub fn opt_text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A whole number, if there is one.
    #[must_use]
    pub fn opt_int(&self, name: &str) -> Option<i64> {
        match self.get(name) {
            Some(Value::Int(int)) => Some(*int),
            _ => None,
        }
    }

    /// A number, if there is one.
    #[must_use]
    pub fn opt_number(&self, name: &str) -> Option<f64> {
        match self.get(name) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// A type, if there is one.
    #[must_use]
    pub fn opt_type(&self, name: &str) -> Option<&LogicalType> {
        match self.get(name) {
            Some(Value::Type(r#type)) => Some(r#type),
            _ => None,
        }
    }

    /// The form of a time, if there is one.
    #[must_use]
    pub fn opt_time_format(&self, name: &str) -> Option<&TimeFormat> {
        match self.get(name) {
            Some(Value::TimeFormat(format)) => Some(format),
            _ => None,
        }
    }

    /// A text, a number or a truth value, if there is one.
    #[must_use]
    pub fn opt_scalar(&self, name: &str) -> Option<&Json> {
        match self.get(name) {
            Some(Value::Scalar(json)) => Some(json),
            _ => None,
        }
    }

    /// Texts; none when there are none.
    #[must_use]
    pub fn texts(&self, name: &str) -> &[String] {
        match self.get(name) {
            Some(Value::Texts(texts)) => texts,
            _ => &[],
        }
    }

    /// Names and types; none when there are none.
    #[must_use]
    pub fn types(&self, name: &str) -> &[(String, LogicalType)] {
        match self.get(name) {
            Some(Value::Types(types)) => types,
            _ => &[],
        }
    }

    /// Whether it is true; false when there is none.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Value::Bool(true)))
    }

    /// A text that the table says is there.
    pub fn text(&self, name: &str) -> Result<&str> {
        self.opt_text(name).ok_or_else(|| absent(name, "text"))
    }

    /// A whole number that the table says is there.
    pub fn int(&self, name: &str) -> Result<i64> {
        self.opt_int(name).ok_or_else(|| absent(name, "whole number"))
    }

    /// A number that the table says is there.
    pub fn number(&self, name: &str) -> Result<f64> {
        self.opt_number(name).ok_or_else(|| absent(name, "number"))
    }

    /// Texts to texts that the table says are there.
    pub fn pairs(&self, name: &str) -> Result<&BTreeMap<String, String>> {
        match self.get(name) {
            Some(Value::Pairs(pairs)) => Ok(pairs),
            _ => Err(absent(name, "mapping")),
        }
    }

    /// A JSON path that the table says is there.
    pub fn path(&self, name: &str) -> Result<&JsonPath> {
        match self.get(name) {
            Some(Value::Path(path)) => Ok(path),
            _ => Err(absent(name, "JSON path")),
        }
    }
}

fn absent(name: &str, what: &str) -> Error {
    Error::bug(format!("argument `{name}` is no {what}; the table of functions and its builder differ"))
}

/// Where in the argument, and what is wrong.
type Mistake = (String, String);

impl Kind {
    fn read(self, json: &Json) -> Result<Value, Mistake> {
        let here = |message: String| (String::new(), message);
        let text = || json.as_str().ok_or_else(|| here(format!("expected text, found {}", found(json))));
        Ok(match self {
            Self::Column(_) | Self::NewColumn => {
                let name = text()?;
                if name.is_empty() {
                    return Err(here("is empty".to_owned()));
                }
                Value::Text(name.to_owned())
            }
            Self::Text => Value::Text(text()?.to_owned()),
            Self::Sql => match text()? {
                blank if blank.trim().is_empty() => return Err(here("is empty".to_owned())),
                sql => Value::Text(sql.to_owned()),
            },
            Self::Regex => {
                let pattern = text()?;
                if let Err(error) = regex::Regex::new(pattern) {
                    let reason = error.to_string();
                    let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
                    return Err(here(format!("`{pattern}` is not a regular expression: {reason}")));
                }
                Value::Text(pattern.to_owned())
            }
            Self::Word(words) => {
                let word = text()?;
                if !words.contains(&word) {
                    let known = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
                    let hint = did_you_mean(word, words.iter().copied());
                    return Err(here(format!("`{word}` is not one of {known}{hint}")));
                }
                Value::Text(word.to_owned())
            }
            Self::Columns(_) | Self::Texts => Value::Texts(texts(json)?),
            Self::Int(least, most) => {
                let int = json.as_i64().ok_or_else(|| here(format!("expected a whole number, found {}", found(json))));
                let int = int?;
                if !(least..=most).contains(&int) {
                    return Err(here(format!("must be between {least} and {most}, found {int}")));
                }
                Value::Int(int)
            }
            Self::Number => {
                let number = json.as_f64().ok_or_else(|| here(format!("expected a number, found {}", found(json))));
                Value::Number(number?)
            }
            Self::Bool => {
                let bool = json.as_bool().ok_or_else(|| here(format!("expected true or false, found {}", found(json))));
                Value::Bool(bool?)
            }
            Self::Scalar if json.is_string() || json.is_number() || json.is_boolean() => Value::Scalar(json.clone()),
            Self::Scalar => return Err(here(format!("expected text, a number, true or false, found {}", found(json)))),
            Self::Type => Value::Type(text()?.parse().map_err(|e: Error| here(e.to_string()))?),
            Self::Path => Value::Path(text()?.parse().map_err(|e: Error| here(e.to_string()))?),
            Self::TimeFormat => Value::TimeFormat(text()?.parse().map_err(|e: Error| here(e.to_string()))?),
            Self::Types => {
                let parse = |(name, text): (String, String)| match text.parse::<LogicalType>() {
                    Ok(r#type) => Ok((name, r#type)),
                    Err(error) => Err((key(&name), error.to_string())),
                };
                Value::Types(pairs(json)?.into_iter().map(parse).collect::<Result<_, Mistake>>()?)
            }
            Self::Pairs => Value::Pairs(pairs(json)?.into_iter().collect()),
        })
    }

    /// How it is written, in a few words.
    #[must_use]
    pub fn words(self) -> String {
        match self {
            Self::Column(Takes::Any) => "column".to_owned(),
            Self::Column(takes) => format!("column of {takes}"),
            Self::Columns(Takes::Any) => "list of columns".to_owned(),
            Self::Columns(takes) => format!("list of columns of {takes}"),
            Self::NewColumn => "name".to_owned(),
            Self::Text => "text".to_owned(),
            Self::Texts => "list of texts".to_owned(),
            Self::Int(i64::MIN, i64::MAX) => "whole number".to_owned(),
            Self::Int(least, i64::MAX) => format!("whole number from {least}"),
            Self::Int(least, most) => format!("whole number, {least} to {most}"),
            Self::Number => "number".to_owned(),
            Self::Bool => "true or false".to_owned(),
            Self::Word(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
            Self::Scalar => "text, number, true or false".to_owned(),
            Self::Type => "type".to_owned(),
            Self::Types => "names with types".to_owned(),
            Self::Pairs => "texts with texts".to_owned(),
            Self::Path => "JSON path".to_owned(),
            Self::TimeFormat => "form of a time".to_owned(),
            Self::Regex => "regular expression".to_owned(),
            Self::Sql => "Polars SQL expression".to_owned(),
        }
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words())
    }
}

fn texts(json: &Json) -> Result<Vec<String>, Mistake> {
    let items = json.as_array().ok_or_else(|| (String::new(), format!("expected a list, found {}", found(json))))?;
    if items.is_empty() {
        return Err((String::new(), "must not be empty".to_owned()));
    }
    let text = |(i, item): (usize, &Json)| match item.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err((format!("[{i}]"), format!("expected text, found {}", found(item)))),
    };
    items.iter().enumerate().map(text).collect()
}

fn pairs(json: &Json) -> Result<Vec<(String, String)>, Mistake> {
    let map = json.as_object().ok_or_else(|| (String::new(), format!("expected a mapping, found {}", found(json))))?;
    if map.is_empty() {
        return Err((String::new(), "must not be empty".to_owned()));
    }
    let text = |(name, item): (&String, &Json)| match item.as_str() {
        Some(text) => Ok((name.clone(), text.to_owned())),
        None => Err((key(name), format!("expected text, found {}", found(item)))),
    };
    let mut pairs = map.iter().map(text).collect::<Result<Vec<_>, _>>()?;
    pairs.sort();
    Ok(pairs)
}

/// A key inside an argument, as paths write it.
fn key(name: &str) -> String {
    let joined = crate::config::join("x", name);
    joined[1..].to_owned()
}

fn found(json: &Json) -> &'static str {
    match json {
        Json::Null => "nothing",
        Json::Bool(_) => "true or false",
        Json::Number(number) if number.is_f64() => "a number",
        Json::Number(_) => "a whole number",
        Json::String(_) => "text",
        Json::Array(_) => "a list",
        Json::Object(_) => "a mapping",
    }
}
