//! Does a file have the shape its JSON Schema asks for? Every difference at once, each with its place.
//!
//! What fits goes on to be typed; what does not is cut out and remembered, so that later checks neither trip over it nor
//! complain that it is missing. Broken elements of lists of mappings leave a null, so that positions stay true.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value as Json;

use super::yaml::value::{self, Yaml};
use super::yaml::{Entry, Kind, Node, Position, number};
use crate::cursor::{did_you_mean, nearest};
use crate::functions::Function;

/// What came out of a check.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// Differences: place, path, message.
    pub(super) problems: Vec<(Position, String, String)>,
    /// Paths of values that are missing or were cut out, each reported.
    pub(super) cut: BTreeSet<String>,
    /// Where each value stands.
    pub(super) positions: HashMap<String, Position>,
}

/// Compares `node` with `schema`; the value is what fits.
pub(super) fn check(schema: &Json, node: &Node) -> (Shape, Yaml) {
    let mut walk = Walk { root: schema, shape: Shape::default() };
    let value = walk.node(schema, node, "").unwrap_or_else(|| value::map(Vec::new()));
    (walk.shape, value)
}

/// The path of `key` inside `path`.
pub(crate) fn join(path: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
    match (path, plain) {
        ("", true) => key.to_owned(),
        (_, true) => format!("{path}.{key}"),
        (_, false) => format!("{path}['{key}']"),
    }
}

struct Walk<'a> {
    root: &'a Json,
    shape: Shape,
}

impl<'a> Walk<'a> {
    fn report(&mut self, at: Position, path: &str, message: impl Into<String>) {
        self.shape.problems.push((at, path.to_owned(), message.into()));
    }

    /// The alternatives of a schema: references followed, `anyOf` and `oneOf` laid flat.
    fn branches(&self, schema: &'a Json, out: &mut Vec<&'a Json>) {
        if let Some(name) = schema["$ref"].as_str().and_then(|link| link.strip_prefix("#/$defs/")) {
            return self.branches(&self.root["$defs"][name], out);
        }
        match schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array()) {
            Some(choices) => choices.iter().for_each(|choice| self.branches(choice, out)),
            None => out.push(schema),
        }
    }

    /// The part of `node` that fits; `None` when nothing does, which was reported.
    fn node(&mut self, schema: &'a Json, node: &Node, path: &str) -> Option<Yaml> {
        self.shape.positions.insert(path.to_owned(), node.at);
        if is_any(schema) {
            return Some(self.anything(node, path));
        }
        let mut branches = Vec::new();
        self.branches(schema, &mut branches);
        let wanted = |name: &str| -> Vec<&'a Json> {
            branches.iter().filter(|branch| has_type(branch, name)).copied().collect()
        };
        match &node.kind {
            Kind::Unset => return None,
            Kind::Null if !wanted("null").is_empty() => return Some(value::scalar(&Kind::Null)),
            Kind::Map(entries) => match wanted("object").as_slice() {
                [] => {}
                [one] if !is_tagged(one) => return Some(self.map(one, node.at, entries, path)),
                tagged => return self.tagged(tagged, node.at, entries, path),
            },
            Kind::List(items) => {
                if let Some(list) = wanted("array").first() {
                    return self.list(list, node.at, items, path);
                }
            }
            Kind::Text { text, expanded } => {
                let words = wanted("string");
                if !words.is_empty() {
                    return self.word(&words, node, text, path);
                }
                if let Some(kind) = Some(text).filter(|_| *expanded).and_then(|text| retyped(text)) {
                    return self.node(schema, &Node { at: node.at, kind }, path);
                }
            }
            Kind::Bool(_) if !wanted("boolean").is_empty() => return Some(value::scalar(&node.kind)),
            Kind::Int(int) => {
                if let Some(branch) = wanted("integer").first().or(wanted("number").first()) {
                    return self.bounded(branch, node, *int as f64, path);
                }
            }
            Kind::Float(float) => {
                if let Some(branch) = wanted("number").first() {
                    return self.bounded(branch, node, *float, path);
                }
            }
            _ => {}
        }
        let quotes = match node.kind {
            Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) if !wanted("string").is_empty() => "; put it in quotes",
            _ => "",
        };
        self.report(node.at, path, format!("expected {}, found {}{quotes}", expected(&branches), found(&node.kind)));
        None
    }

    fn map(&mut self, schema: &'a Json, at: Position, entries: &[Entry], path: &str) -> Yaml {
        let properties = schema["properties"].as_object();
        let known = || properties.into_iter().flat_map(|map| map.keys().map(String::as_str));
        let mut out = Vec::new();
        for entry in entries {
            let inner = join(path, &entry.key);
            let property = properties.and_then(|map| map.get(&entry.key));
            let rest = Some(&schema["additionalProperties"]).filter(|rest| rest.is_object() || is_any(rest));
            let Some(schema) = property.or(rest) else {
                let hint = match nearest(&entry.key, known()) {
                    Some(near) => {
                        self.shape.cut.insert(join(path, near));
                        format!("; did you mean `{near}`?")
                    }
                    None => format!("; known are {}", listed(known())),
                };
                self.report(entry.at, &inner, format!("unknown key{hint}"));
                continue;
            };
            if let Some(value) = self.node(schema, &entry.value, &inner) {
                out.push((entry.key.clone(), value));
                continue;
            }
            if property.is_none() && self.is_nullable(schema) {
                out.push((entry.key.clone(), value::scalar(&Kind::Null)));
            }
            self.shape.cut.insert(inner);
        }
        for key in schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str) {
            let inner = join(path, key);
            if entries.iter().all(|entry| entry.key != key) && self.shape.cut.insert(inner.clone()) {
                self.report(at, &inner, "missing");
            }
        }
        value::map(out)
    }

    /// A mapping of one key that says which alternative is meant.
    fn tagged(&mut self, branches: &[&'a Json], at: Position, entries: &[Entry], path: &str) -> Option<Yaml> {
        let known: Vec<(&str, &'a Json)> = branches
            .iter()
            .filter_map(|branch| branch["properties"].as_object()?.iter().next())
            .map(|(key, schema)| (key.as_str(), schema))
            .collect();
        let names = || match known.len() {
            0..=12 => format!("one of {}", listed(known.iter().map(|(name, _)| *name))),
            many => format!("one of {many} functions (docs/functions.md)"),
        };
        let [entry] = entries else {
            self.report(at, path, format!("expected a mapping of one key, {}; found {} keys", names(), entries.len()));
            return None;
        };
        let inner = join(path, &entry.key);
        let Some((_, schema)) = known.iter().find(|(name, _)| *name == entry.key) else {
            // Names of a form that others may give: what stands below them is theirs to judge.
            let foreign = branches.iter().any(|branch| branch["patternProperties"].is_object());
            if foreign && Function::is_own(&entry.key) {
                return Some(value::map(vec![(entry.key.clone(), self.unjudged(&entry.value, &inner))]));
            }
            let hint = did_you_mean(&entry.key, known.iter().map(|(name, _)| *name));
            self.report(entry.at, &inner, format!("unknown key, expected {}{hint}", names()));
            return None;
        };
        let value = self.node(schema, &entry.value, &inner)?;
        Some(value::map(vec![(entry.key.clone(), value)]))
    }

    /// A value as it is; only its places are noted.
    fn unjudged(&mut self, node: &Node, path: &str) -> Yaml {
        self.shape.positions.insert(path.to_owned(), node.at);
        match &node.kind {
            Kind::List(items) => {
                let items = items.iter().enumerate();
                value::list(items.map(|(i, item)| self.unjudged(item, &format!("{path}[{i}]"))).collect())
            }
            Kind::Map(entries) => {
                let entries = entries.iter();
                value::map(entries.map(|e| (e.key.clone(), self.unjudged(&e.value, &join(path, &e.key)))).collect())
            }
            scalar => value::scalar(scalar),
        }
    }

    fn list(&mut self, schema: &'a Json, at: Position, items: &[Node], path: &str) -> Option<Yaml> {
        if schema["minItems"].as_u64().is_some_and(|least| (items.len() as u64) < least) {
            self.report(at, path, "must not be empty");
        }
        let mut branches = Vec::new();
        self.branches(&schema["items"], &mut branches);
        let holes = branches.iter().any(|branch| has_type(branch, "object"));
        let mut whole = true;
        let mut out = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let value = self.node(&schema["items"], item, &format!("{path}[{i}]"));
            whole &= value.is_some();
            out.push(value.unwrap_or_else(|| value::scalar(&Kind::Null)));
        }
        (whole || holes).then(|| value::list(out))
    }

    fn word(&mut self, branches: &[&'a Json], node: &Node, text: &str, path: &str) -> Option<Yaml> {
        let words: Vec<&str> = branches.iter().flat_map(|branch| words_of(branch)).collect();
        let free = branches.iter().any(|branch| words_of(branch).is_empty());
        if free || words.contains(&text) {
            return Some(value::scalar(&node.kind));
        }
        let hint = did_you_mean(text, words.iter().copied());
        self.report(node.at, path, format!("`{text}` is not one of {}{hint}", listed(words.iter().copied())));
        None
    }

    fn bounded(&mut self, schema: &Json, node: &Node, number: f64, path: &str) -> Option<Yaml> {
        let least = schema["minimum"].as_f64();
        let most = schema["maximum"].as_f64().or_else(|| match schema["format"].as_str() {
            Some("uint32") => Some(f64::from(u32::MAX)),
            Some("int32") => Some(f64::from(i32::MAX)),
            _ => None,
        });
        if least.is_none_or(|least| number >= least) && most.is_none_or(|most| number <= most) {
            return Some(value::scalar(&node.kind));
        }
        let bounds = match (least, most) {
            (Some(least), Some(most)) => format!("between {least} and {most}"),
            (Some(least), None) => format!("at least {least}"),
            (None, most) => format!("at most {}", most.unwrap_or_default()),
        };
        self.report(node.at, path, format!("must be {bounds}, found {number}"));
        None
    }

    /// A value of any shape; only the places in it matter.
    fn anything(&mut self, node: &Node, path: &str) -> Yaml {
        self.shape.positions.insert(path.to_owned(), node.at);
        match &node.kind {
            Kind::List(items) => {
                let items = items.iter().enumerate();
                value::list(items.map(|(i, item)| self.anything(item, &format!("{path}[{i}]"))).collect())
            }
            Kind::Map(entries) => {
                let mut inner =
                    |entry: &Entry| (entry.key.clone(), self.anything(&entry.value, &join(path, &entry.key)));
                value::map(entries.iter().map(&mut inner).collect())
            }
            scalar => value::scalar(scalar),
        }
    }

    fn is_nullable(&self, schema: &'a Json) -> bool {
        let mut branches = Vec::new();
        self.branches(schema, &mut branches);
        branches.iter().any(|branch| has_type(branch, "null"))
    }
}

/// Whether a schema asks for nothing.
fn is_any(schema: &Json) -> bool {
    const ASKS: [&str; 6] = ["type", "$ref", "anyOf", "oneOf", "enum", "const"];
    *schema == Json::Bool(true) || schema.as_object().is_some_and(|map| ASKS.iter().all(|key| !map.contains_key(*key)))
}

fn has_type(schema: &Json, name: &str) -> bool {
    match &schema["type"] {
        Json::String(only) => only == name,
        Json::Array(several) => several.iter().any(|one| one == name),
        _ => false,
    }
}

/// Whether a schema of a mapping asks for exactly one key, as the alternatives of an enum do.
fn is_tagged(schema: &Json) -> bool {
    schema["properties"].as_object().is_some_and(|map| map.len() == 1)
        && schema["required"].as_array().is_some_and(|required| required.len() == 1)
        && schema["additionalProperties"] == false
        && schema["title"].is_null()
        && schema["properties"].as_object().is_some_and(|map| map.values().all(|inner| inner["$ref"].is_string()))
}

fn words_of(schema: &Json) -> Vec<&str> {
    schema["enum"].as_array().into_iter().flatten().chain(Some(&schema["const"])).filter_map(Json::as_str).collect()
}

/// A variable's text as the number or truth value it stands for.
fn retyped(text: &str) -> Option<Kind> {
    match text {
        "true" => Some(Kind::Bool(true)),
        "false" => Some(Kind::Bool(false)),
        _ => number(text),
    }
}

fn listed<'w>(words: impl Iterator<Item = &'w str>) -> String {
    words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn expected(branches: &[&Json]) -> String {
    const NAMES: &[(&str, &str)] = &[
        ("string", "text"),
        ("integer", "a whole number"),
        ("number", "a number"),
        ("boolean", "true or false"),
        ("array", "a list"),
        ("object", "a mapping"),
    ];
    let names = NAMES.iter().filter(|(name, _)| branches.iter().any(|branch| has_type(branch, name)));
    names.map(|(_, name)| *name).collect::<Vec<_>>().join(" or ")
}

fn found(kind: &Kind) -> &'static str {
    match kind {
        Kind::Null => "nothing",
        Kind::Bool(_) => "true or false",
        Kind::Int(_) => "a whole number",
        Kind::Float(_) => "a number",
        Kind::Text { .. } | Kind::Unset => "text",
        Kind::List(_) => "a list",
        Kind::Map(_) => "a mapping",
    }
}
