//! Why a record was refused: a value, never an error, and never with the data in it.

use std::fmt;

/// A record that does not fit its columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Where in the payload, list indices included: `$.payload.commits[2].sha`; `$` when the whole payload is at fault. Keys
    /// of maps are data: `[*]` stands for each.
    pub path: String,
    /// What is wrong.
    pub reason: RejectKind,
    /// What was expected and what kind of JSON was found; never the value.
    pub detail: String,
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectKind {
    /// The payload is not UTF-8.
    NotUtf8,
    /// The payload is not one JSON value: syntax, truncated, or something follows it.
    NotJson,
    /// A string has an escape that is no character: bad hex digits or half a surrogate pair.
    BadEscape,
    /// Objects and lists are nested deeper than [`super::MAX_DEPTH`].
    TooDeep,
    /// The payload is JSON, but not an object.
    NotObject,
    /// A required value is missing or null.
    Missing,
    /// The JSON value is of another kind than the column's type takes.
    WrongType,
    /// A number does not fit the column's range or precision.
    OutOfRange,
    /// A number would lose digits.
    Inexact,
    /// Text is not of the column's form (time, date, number in text, base64, UUID).
    BadFormat,
    /// An event that asks for what is not carried out.
    Unsupported,
    /// A column's buffer would pass 2 GiB; finish batches earlier.
    TooLarge,
}

impl RejectKind {
    /// The name used in quarantine tables and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotUtf8 => "notUtf8",
            Self::NotJson => "notJson",
            Self::BadEscape => "badEscape",
            Self::TooDeep => "tooDeep",
            Self::NotObject => "notObject",
            Self::Missing => "missing",
            Self::WrongType => "wrongType",
            Self::OutOfRange => "outOfRange",
            Self::Inexact => "inexact",
            Self::BadFormat => "badFormat",
            Self::Unsupported => "unsupported",
            Self::TooLarge => "tooLarge",
        }
    }
}

impl fmt::Display for RejectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.path, self.reason, self.detail)
    }
}

impl Rejected {
    pub(super) fn whole(reason: RejectKind, detail: impl Into<String>) -> Self {
        Self { path: "$".to_owned(), reason, detail: detail.into() }
    }
}

/// What is wrong with one value; its path is added on the way up. Boxed: the way without faults is the hot one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault(Box<(RejectKind, String)>);

impl Fault {
    #[cold]
    pub fn new(reason: RejectKind, detail: impl Into<String>) -> Self {
        Self(Box::new((reason, detail.into())))
    }

    /// A JSON value of another kind than the column takes.
    #[cold]
    pub fn wrong_type(expected: impl fmt::Display, found: &str) -> Self {
        Self::new(RejectKind::WrongType, format!("expected {expected}, found {found}"))
    }

    pub fn into_parts(self) -> (RejectKind, String) {
        *self.0
    }
}

/// The kind of the JSON value whose text this is.
pub(super) fn kind_of(raw: &str) -> &'static str {
    match raw.as_bytes().first() {
        Some(b'"') => "string",
        Some(b'{') => "object",
        Some(b'[') => "list",
        Some(b't' | b'f') => "boolean",
        Some(b'n') => "null",
        _ => "number",
    }
}

/// A path under construction, innermost segment first.
#[derive(Debug, Default)]
pub(super) struct Trail(Vec<Segment>);

#[derive(Debug)]
enum Segment {
    /// A field, whose name the configuration gives.
    Key(String),
    Index(usize),
    /// A value of a map.
    Entry,
}

impl Trail {
    pub fn key(&mut self, key: &str) {
        self.0.push(Segment::Key(key.to_owned()));
    }

    pub fn index(&mut self, index: usize) {
        self.0.push(Segment::Index(index));
    }

    /// A value of a map: its key is data, and stays out of paths.
    pub fn entry(&mut self) {
        self.0.push(Segment::Entry);
    }

    /// The JSON path, spelled as [`firn_shared::config::domain::JsonPath`] spells it.
    pub fn render(&self) -> String {
        use fmt::Write;
        let mut path = "$".to_owned();
        for segment in self.0.iter().rev() {
            let written = match segment {
                Segment::Index(i) => write!(path, "[{i}]"),
                Segment::Entry => write!(path, "[*]"),
                Segment::Key(k) if !k.is_empty() && k.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') => {
                    write!(path, ".{k}")
                }
                Segment::Key(k) => write!(path, "['{}']", k.replace('\\', "\\\\").replace('\'', "\\'")),
            };
            debug_assert!(written.is_ok(), "writing to a String cannot fail");
        }
        path
    }
}
