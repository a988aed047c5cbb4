//! What an expected value may be: a value, or a matcher in its place.
//!
//! `$any`, `$present` (not null), `$absent` (null); `{$regex: …}`, `{$approx: 1.5, within: 0.01}`, `{$unordered: […]}`,
//! `{$value: …}` for a value that looks like a matcher. Inside lists and mappings the same holds again.

use regex::Regex;

use super::Tree;
use crate::cursor::did_you_mean;

/// An expected value.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// Exactly this; a list or mapping in it holds no matchers.
    Value(Tree),
    /// Anything, null included.
    Any,
    /// Anything but null.
    Present,
    /// Null.
    Absent,
    /// Text in which the expression is found.
    Regex(Regex),
    /// A number that is near.
    Approx {
        /// To this.
        value: f64,
        /// At most so far.
        within: f64,
    },
    /// A list, element by element.
    List(Vec<Pattern>),
    /// The same elements in any order.
    Unordered(Vec<Pattern>),
    /// Of a struct these fields, of a map or JSON object all entries.
    Map(Vec<(String, Pattern)>),
}

/// What is wrong with a pattern: the path below it, and why.
pub(in crate::config) type Mistake = (String, String);

const WORDS: [&str; 3] = ["$any", "$present", "$absent"];
const KEYS: [&str; 4] = ["$regex", "$approx", "$unordered", "$value"];
/// Numbers are near when they differ by no more than this share of the expected one.
const NEAR: f64 = 1e-9;

impl Pattern {
    /// Reads a pattern; what is wrong goes to `report` with the path below this value.
    pub(in crate::config) fn read(tree: &Tree, report: &mut dyn FnMut(Mistake)) -> Self {
        match tree {
            Tree::Text(text) if looks_like_matcher(text) => word(text, report),
            Tree::Map(entries) if entries.iter().any(|(key, _)| looks_like_matcher(key)) => {
                matcher(entries, report).unwrap_or(Self::Any)
            }
            Tree::List(items) => Self::List(list(items, report)),
            Tree::Map(entries) => {
                let entry = |(key, value): &(String, Tree)| {
                    let below = |(path, why): Mistake| (crate::config::shape::join("", key) + &dotted(&path), why);
                    (key.clone(), Self::read(value, &mut |mistake| report(below(mistake))))
                };
                Self::Map(entries.iter().map(entry).collect())
            }
            scalar => Self::Value(scalar.clone()),
        }
    }

    /// The pattern as it is written.
    #[must_use]
    pub fn to_tree(&self) -> Tree {
        let one = |key: &str, value| Tree::Map(vec![(key.to_owned(), value)]);
        let all = |items: &[Self]| Tree::List(items.iter().map(Self::to_tree).collect());
        match self {
            Self::Value(Tree::Text(text)) if looks_like_matcher(text) => one("$value", Tree::Text(text.clone())),
            Self::Value(tree @ (Tree::List(_) | Tree::Map(_))) => one("$value", tree.clone()),
            Self::Value(tree) => tree.clone(),
            Self::Any => Tree::Text("$any".to_owned()),
            Self::Present => Tree::Text("$present".to_owned()),
            Self::Absent => Tree::Text("$absent".to_owned()),
            Self::Regex(regex) => one("$regex", Tree::Text(regex.as_str().to_owned())),
            Self::Approx { value, within } => Tree::Map(vec![
                ("$approx".to_owned(), Tree::Float(*value)),
                ("within".to_owned(), Tree::Float(*within)),
            ]),
            Self::List(items) => all(items),
            Self::Unordered(items) => one("$unordered", all(items)),
            Self::Map(entries) => {
                Tree::Map(entries.iter().map(|(key, value)| (key.clone(), value.to_tree())).collect())
            }
        }
    }

    /// Whether it is nothing but a value, so that an update may replace it.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        match self {
            Self::Value(_) => true,
            Self::List(items) => items.iter().all(Self::is_plain),
            Self::Map(entries) => entries.iter().all(|(_, value)| value.is_plain()),
            _ => false,
        }
    }
}

/// Texts that begin like this are matchers, or mistakes.
fn looks_like_matcher(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next() == Some('$') && chars.next().is_some_and(|c| c.is_ascii_alphabetic())
}

fn dotted(path: &str) -> String {
    if path.is_empty() || path.starts_with('[') { path.to_owned() } else { format!(".{path}") }
}

fn list(items: &[Tree], report: &mut dyn FnMut(Mistake)) -> Vec<Pattern> {
    let item = |(i, item): (usize, &Tree)| {
        Pattern::read(item, &mut |(path, why)| report((format!("[{i}]{}", dotted(&path)), why)))
    };
    items.iter().enumerate().map(item).collect()
}

fn word(text: &str, report: &mut dyn FnMut(Mistake)) -> Pattern {
    match text {
        "$any" => Pattern::Any,
        "$present" => Pattern::Present,
        "$absent" => Pattern::Absent,
        _ => {
            let hint = did_you_mean(text, WORDS);
            let known = "`$any`, `$present` and `$absent`";
            let why = format!("no matcher `{text}`, there are {known}; for the text itself write {{$value: …}}{hint}");
            report((String::new(), why));
            Pattern::Any
        }
    }
}

fn matcher(entries: &[(String, Tree)], report: &mut dyn FnMut(Mistake)) -> Option<Pattern> {
    let mut wrong = |why: String| report((String::new(), why));
    let number = |tree: &Tree| match tree {
        Tree::Int(int) => Some(*int as f64),
        Tree::Float(float) => Some(*float),
        _ => None,
    };
    match entries {
        [(key, value)] if key == "$value" => Some(Pattern::Value(value.clone())),
        [(key, Tree::List(items))] if key == "$unordered" => Some(Pattern::Unordered(list(items, report))),
        [(key, Tree::Text(text))] if key == "$regex" => match Regex::new(text) {
            Ok(regex) => Some(Pattern::Regex(regex)),
            Err(error) => {
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                wrong(format!("`{text}` is not a regular expression: {reason}"));
                None
            }
        },
        [(key, value), rest @ ..] if key == "$approx" => {
            let within = match rest {
                [] => number(value).map(|value| (value * NEAR).abs()),
                [(key, within)] if key == "within" => number(within).filter(|within| *within >= 0.0),
                _ => None,
            };
            if let (Some(value), Some(within)) = (number(value), within) {
                return Some(Pattern::Approx { value, within });
            }
            wrong("`$approx` takes a number, and `within` another one that is not negative".to_owned());
            None
        }
        [(key, value)] if KEYS.contains(&key.as_str()) => {
            let what = if key == "$regex" { "text" } else { "a list" };
            wrong(format!("`{key}` takes {what}, found {}", value.kind()));
            None
        }
        _ => {
            let key =
                entries.iter().map(|(key, _)| key.as_str()).find(|key| looks_like_matcher(key)).unwrap_or_default();
            let hint = if KEYS.contains(&key) { String::new() } else { did_you_mean(key, KEYS) };
            let known = "`$regex`, `$approx`, `$unordered` and `$value`";
            wrong(format!("`{key}` is no matcher, or does not stand alone; there are {known}{hint}"));
            None
        }
    }
}
