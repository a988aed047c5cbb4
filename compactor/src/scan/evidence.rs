//! What was seen at each path, in counts. No value is kept.

use std::collections::BTreeMap;

use serde_json::Value;

use super::detect::{Kind, Match, number, text};
use super::names::hint;

/// Distinct paths that are told apart; a topic with more has keys that are data, and the rest is counted as one.
const PATHS_MAX: usize = 20_000;
/// Deeper values are not looked at.
const DEPTH_MAX: usize = 32;
/// Keys longer than this are data.
const KEY_MAX: usize = 64;
/// What stands for a key that is data.
const ANY_KEY: &str = "*";
/// What stands for the elements of a list.
const ELEMENT: &str = "[]";

/// What was seen at one path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Values that are not null.
    pub values: u64,
    /// By kind: values that are it as a whole and surely, as a whole and likely, and that contain it.
    pub kinds: BTreeMap<Kind, Counts>,
}

/// How often a kind was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// By a form that nothing else has, or a check digit.
    pub sure: u64,
    /// By its form or the field's name.
    pub likely: u64,
    /// Somewhere inside a longer text.
    pub inside: u64,
}

/// Evidence by path.
#[derive(Debug, Default)]
pub struct Evidence {
    paths: BTreeMap<Vec<String>, Seen>,
    /// Values at paths beyond the bound.
    pub beyond: u64,
}

impl Evidence {
    /// Paths and what was seen there.
    pub fn iter(&self) -> impl Iterator<Item = (&[String], &Seen)> {
        self.paths.iter().map(|(path, seen)| (path.as_slice(), seen))
    }

    /// Looks at a payload; `false` when it is no JSON.
    pub fn payload(&mut self, payload: &[u8]) -> bool {
        let Ok(value) = serde_json::from_slice::<Value>(payload) else { return false };
        self.walk(&value, &mut Vec::new());
        true
    }

    /// Looks at a record's key.
    pub fn key(&mut self, key: &[u8]) {
        let Ok(key) = std::str::from_utf8(key) else { return };
        let mut path = vec!["(key)".to_owned()];
        match serde_json::from_str::<Value>(key) {
            Ok(value @ (Value::Object(_) | Value::Array(_))) => self.walk(&value, &mut path),
            _ => self.see(&path, |path| text(key, hint(path))),
        }
    }

    fn walk(&mut self, value: &Value, path: &mut Vec<String>) {
        if path.len() > DEPTH_MAX {
            return;
        }
        match value {
            Value::Null => {}
            // A truth value is nobody's, but it is a value.
            Value::Bool(_) => self.see(path, |_| None),
            Value::Number(found) => {
                let raw = found.to_string();
                self.see(path, |path| number(&raw, hint(path)));
            }
            Value::String(found) => self.see(path, |path| text(found, hint(path))),
            Value::Array(items) => {
                path.push(ELEMENT.to_owned());
                for item in items {
                    self.walk(item, path);
                }
                path.pop();
            }
            Value::Object(entries) => {
                for (key, value) in entries {
                    let (name, found) = name_of(key);
                    path.push(name);
                    if found.is_some() {
                        self.see(path, |_| found);
                    }
                    self.walk(value, path);
                    path.pop();
                }
            }
        }
    }

    fn see(&mut self, path: &[String], look: impl FnOnce(&[String]) -> Option<(Kind, Match)>) {
        if !self.paths.contains_key(path) && self.paths.len() >= PATHS_MAX {
            self.beyond += 1;
            return;
        }
        let found = look(path);
        let seen = self.paths.entry(path.to_vec()).or_default();
        seen.values += 1;
        if let Some((kind, how)) = found {
            let counts = seen.kinds.entry(kind).or_default();
            *match how {
                Match::Sure => &mut counts.sure,
                Match::Likely => &mut counts.likely,
                Match::Inside => &mut counts.inside,
            } += 1;
        }
    }
}

/// The key as part of a path. Keys may be data themselves, and a report shows no data.
fn name_of(key: &str) -> (String, Option<(Kind, Match)>) {
    let found = text(key, super::names::Hint::None);
    let digits = key.bytes().filter(u8::is_ascii_digit).count();
    let hash = key.len() >= 16 && key.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    let data = found.is_some() || key.len() > KEY_MAX || digits >= 6 || (digits > 0 && digits == key.len()) || hash;
    (if data { ANY_KEY.to_owned() } else { key.to_owned() }, found)
}
