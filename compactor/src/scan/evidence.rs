//! What was seen at each path, in counts. No value is kept.

use std::collections::{BTreeMap, BTreeSet};

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
pub const ANY_KEY: &str = "*";
/// What stands for the elements of a list.
const ELEMENT: &str = "[]";
/// What stands for a record's key.
pub const RECORD_KEY: &str = "(key)";
/// What stands before the name of a header.
pub const HEADER: &str = "(header)";
/// Fewer different keys are fields, however they change;
const KEYS_MIN: u64 = 3;
/// these, where simple values stand behind them;
const SIMPLE_KEYS_MIN: u64 = 20;
/// and as many are data, however they look.
const KEYS_MAX: u64 = 256;

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
    payload: Node,
    /// Of records' keys.
    key: Node,
    /// Of records' headers, by name.
    headers: Node,
    /// Paths that are told apart so far.
    paths: usize,
    /// Values at paths beyond the bound.
    pub beyond: u64,
}

/// What was seen at a path, and below it.
#[derive(Debug, Default)]
struct Node {
    seen: Seen,
    /// Objects that stood here.
    objects: u64,
    /// Entries of these, all together.
    entries: u64,
    /// What kinds of values these entries had.
    forms: [bool; 3],
    keys: BTreeMap<String, Node>,
    element: Option<Box<Node>>,
}

impl Node {
    /// Whether the keys of the objects here are data: all stand before the like, and they change from object to object.
    /// Fields that come and go do so, too; so objects behind them must have the same keys, and of simple values there must
    /// be many that come seldom.
    fn has_data_for_keys(&self) -> bool {
        let distinct = self.keys.len() as u64;
        if distinct >= KEYS_MAX {
            return true;
        }
        let alike = self.forms.iter().filter(|seen| **seen).count() == 1;
        let inner = || self.keys.values().map(|node| node.element.as_ref().map_or(&node.keys, |element| &element.keys));
        let all: BTreeSet<&String> = inner().flat_map(BTreeMap::keys).collect();
        let same = 2 * inner().map(|keys| keys.len() as u64).sum::<u64>() >= distinct * all.len() as u64;
        // In how many of the objects a key is, on the average: fewer than one of so many.
        let fewer_than_one_of = |share: u64| self.entries.saturating_mul(share) < distinct.saturating_mul(self.objects);
        match all.len() {
            0 => alike && distinct >= SIMPLE_KEYS_MIN && fewer_than_one_of(20),
            _ => alike && distinct >= KEYS_MIN && fewer_than_one_of(2) && same,
        }
    }

    fn merge(&mut self, other: Self) {
        self.seen.merge(&other.seen);
        self.objects += other.objects;
        self.entries += other.entries;
        self.forms.iter_mut().zip(other.forms).for_each(|(own, seen)| *own |= seen);
        for (key, node) in other.keys {
            self.keys.entry(key).or_default().merge(node);
        }
        if let Some(element) = other.element {
            self.element.get_or_insert_default().merge(*element);
        }
    }

    /// Takes the node apart into paths, keys that are data under one name.
    fn tell(mut self, path: &mut Vec<String>, out: &mut BTreeMap<Vec<String>, Seen>) {
        if self.seen.values > 0 {
            out.entry(path.clone()).or_default().merge(&self.seen);
        }
        if self.has_data_for_keys() {
            let mut any = Self::default();
            for node in std::mem::take(&mut self.keys).into_values() {
                any.merge(node);
            }
            self.keys.insert(ANY_KEY.to_owned(), any);
        }
        let element = self.element.map(|element| (ELEMENT.to_owned(), *element));
        for (name, node) in element.into_iter().chain(self.keys) {
            path.push(name);
            node.tell(path, out);
            path.pop();
        }
    }
}

impl Seen {
    fn merge(&mut self, other: &Self) {
        self.values += other.values;
        for (kind, counts) in &other.kinds {
            let own = self.kinds.entry(*kind).or_default();
            own.sure += counts.sure;
            own.likely += counts.likely;
            own.inside += counts.inside;
        }
    }

    fn add(&mut self, found: Option<(Kind, Match)>) {
        self.values += 1;
        if let Some((kind, how)) = found {
            let counts = self.kinds.entry(kind).or_default();
            *match how {
                Match::Sure => &mut counts.sure,
                Match::Likely => &mut counts.likely,
                Match::Inside => &mut counts.inside,
            } += 1;
        }
    }
}

impl Evidence {
    /// Paths and what was seen there.
    pub fn into_paths(self) -> BTreeMap<Vec<String>, Seen> {
        let mut out = BTreeMap::new();
        self.payload.tell(&mut Vec::new(), &mut out);
        self.key.tell(&mut vec![RECORD_KEY.to_owned()], &mut out);
        self.headers.tell(&mut vec![HEADER.to_owned()], &mut out);
        out
    }

    /// Looks at a payload; `false` when it is no JSON.
    pub fn payload(&mut self, payload: &[u8]) -> bool {
        let Ok(value) = serde_json::from_slice::<Value>(payload) else { return false };
        Walk { paths: &mut self.paths, beyond: &mut self.beyond }.value(&mut self.payload, &value, &mut Vec::new());
        true
    }

    /// Looks at a record's key.
    pub fn key(&mut self, key: &[u8]) {
        let mut walk = Walk { paths: &mut self.paths, beyond: &mut self.beyond };
        walk.bytes(&mut self.key, key, &mut vec![RECORD_KEY.to_owned()]);
    }

    /// Looks at a record's headers: their names and values.
    pub fn headers<'a>(&mut self, headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) {
        let mut walk = Walk { paths: &mut self.paths, beyond: &mut self.beyond };
        let mut path = vec![HEADER.to_owned()];
        let mut headers = headers.peekable();
        self.headers.objects += u64::from(headers.peek().is_some());
        for (name, value) in headers {
            self.headers.forms[SIMPLE] = true;
            walk.entry(&mut self.headers, name, &mut path, |walk, node, path| {
                if let Some(value) = value {
                    walk.bytes(node, value, path);
                }
            });
        }
    }
}

/// On the way through a value.
struct Walk<'a> {
    paths: &'a mut usize,
    beyond: &'a mut u64,
}

impl Walk<'_> {
    /// What may be JSON, or any text.
    fn bytes(&mut self, node: &mut Node, bytes: &[u8], path: &mut Vec<String>) {
        let Ok(found) = std::str::from_utf8(bytes) else { return };
        match serde_json::from_str::<Value>(found) {
            Ok(value @ (Value::Object(_) | Value::Array(_))) => self.value(node, &value, path),
            _ => node.seen.add(text(found, hint(path))),
        }
    }

    fn value(&mut self, node: &mut Node, value: &Value, path: &mut Vec<String>) {
        if path.len() > DEPTH_MAX {
            return;
        }
        match value {
            Value::Null => {}
            // A truth value is nobody's, but it is a value.
            Value::Bool(_) => node.seen.add(None),
            Value::Number(found) => node.seen.add(number(&found.to_string(), hint(path))),
            Value::String(found) => node.seen.add(text(found, hint(path))),
            Value::Array(items) => {
                if node.element.is_none() && !self.may_add() {
                    *self.beyond += items.len() as u64;
                    return;
                }
                let element = node.element.get_or_insert_default();
                path.push(ELEMENT.to_owned());
                for item in items {
                    self.value(element, item, path);
                }
                path.pop();
            }
            Value::Object(entries) => {
                node.objects += 1;
                for (key, value) in entries {
                    if let Some(form) = form(value) {
                        node.forms[form] = true;
                    }
                    self.entry(node, key, path, |walk, inner, path| walk.value(inner, value, path));
                }
            }
        }
    }

    /// One of the things that stand at a node under a name, and what is to be looked at behind it.
    fn entry(
        &mut self,
        node: &mut Node,
        key: &str,
        path: &mut Vec<String>,
        look: impl FnOnce(&mut Self, &mut Node, &mut Vec<String>),
    ) {
        let (name, found) = name_of(key);
        node.entries += 1;
        if !node.keys.contains_key(&name) && !self.may_add() {
            *self.beyond += 1;
            return;
        }
        let inner = node.keys.entry(name.clone()).or_default();
        path.push(name);
        if found.is_some() {
            inner.seen.add(found);
        }
        look(self, inner, path);
        path.pop();
    }

    fn may_add(&mut self) -> bool {
        let may = *self.paths < PATHS_MAX;
        *self.paths += usize::from(may);
        may
    }
}

/// The number of [`form`] that is neither object nor list.
const SIMPLE: usize = 2;

/// What kind of value it is, null aside.
fn form(value: &Value) -> Option<usize> {
    match value {
        Value::Null => None,
        Value::Object(_) => Some(0),
        Value::Array(_) => Some(1),
        _ => Some(SIMPLE),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The paths of what was seen in payloads that differ in one name.
    fn paths(payload: impl Fn(&str) -> String) -> Vec<String> {
        let mut evidence = Evidence::default();
        for last in 'a'..='x' {
            assert!(evidence.payload(payload(&format!("jo-{last}")).as_bytes()));
        }
        evidence.into_paths().into_keys().map(|path| path.join(".")).collect()
    }

    #[test]
    fn names_of_people_for_keys_are_not_shown() {
        let shown = paths(|name| format!(r#"{{"balances":{{"{name}":{{"phone":"+1 555 0100","n":{{"x":1}}}}}}}}"#));
        assert_eq!(shown, ["balances.*.n.x", "balances.*.phone"]);
        let shown = paths(|name| format!(r#"{{"of":{{"{name}":[{{"phone":"+1 555 0100"}}]}}}}"#));
        assert_eq!(shown, ["of.*.[].phone"]);
        let shown = paths(|name| format!(r#"[{{"{name}":"+1 555 0100"}}]"#));
        assert_eq!(shown, ["[].*"]);
    }

    #[test]
    fn names_of_fields_are_shown() {
        let shown =
            paths(|name| format!(r#"{{"from":{{"name":"{name}"}},"to":{{"name":"x"}},"first":"{name}","last":1}}"#));
        assert_eq!(shown, ["first", "from.name", "last", "to.name"]);
        // One of several, as events have it.
        let mut evidence = Evidence::default();
        for (i, event) in ["order", "payment", "user", "visit"].iter().cycle().take(40).enumerate() {
            assert!(evidence.payload(format!(r#"{{"{event}":{{"{event}_id":{i},"a":1}}}}"#).as_bytes()));
            assert!(evidence.payload(format!(r#"{{"flat":{{"{event}":{i}}}}}"#).as_bytes()));
        }
        let shown: Vec<String> = evidence.into_paths().into_keys().map(|path| path.join(".")).collect();
        assert!(shown.contains(&"order.order_id".to_owned()) && shown.contains(&"flat.visit".to_owned()), "{shown:?}");
    }
}
