//! Reading lines.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::text::Bytes;
use crate::ids::Offset;

/// A line of a raw object, parsed as far as every reader needs; `key` and `headers` are decoded on demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The record's offset.
    pub offset: Offset,
    /// Kafka's timestamp, milliseconds since the epoch.
    pub timestamp: Option<i64>,
    /// The event's name.
    pub event: Option<Cow<'a, str>>,
    /// The payload as one JSON value, line feeds as blanks; `null` for a tombstone.
    pub value: &'a [u8],
    /// Whether Kafka's payload was null.
    pub tombstone: bool,
    key: &'a [u8],
    headers: &'a [u8],
    line_feeds: Option<&'a [u8]>,
}

/// Header names and values, in order.
pub type Headers = Vec<(String, Option<Vec<u8>>)>;

/// A line that is not an envelope. The caller knows the object and adds its name and the line's position in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MalformedLine {
    /// Position in the line, bytes from 0.
    pub at: usize,
    /// What was expected there.
    pub expected: String,
}

impl fmt::Display for MalformedLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {} of the line: expected {}", self.at, self.expected)
    }
}
impl std::error::Error for MalformedLine {}

impl<'a> Envelope<'a> {
    /// Reads a line (without its line feed). `value` is not validated here: whoever decodes it does that.
    ///
    /// # Errors
    /// Where the line stops being an envelope.
    #[inline]
    pub fn parse(line: &'a [u8]) -> Result<Self, MalformedLine> {
        match in_order(line) {
            Some(envelope) => Ok(envelope),
            None => in_any_order(line),
        }
    }

    /// The record's key, `None` when it has none.
    ///
    /// # Errors
    /// When the field is not text, `{"b64":…}` or null.
    pub fn key(&self) -> Result<Option<Vec<u8>>, MalformedLine> {
        let key: Option<Bytes> = field(self.key, "a key")?;
        Ok(key.map(|key| key.0))
    }

    /// The record's headers, in order.
    ///
    /// # Errors
    /// When the field is not a list of pairs.
    pub fn headers(&self) -> Result<Headers, MalformedLine> {
        let headers: Vec<(String, Option<Bytes>)> = field(self.headers, "headers")?;
        Ok(headers.into_iter().map(|(name, value)| (name, value.map(|value| value.0))).collect())
    }

    /// The payload as Kafka held it, byte for byte; `None` for a tombstone.
    ///
    /// # Errors
    /// When the line feed positions do not fit the value.
    pub fn payload(&self) -> Result<Option<Cow<'a, [u8]>>, MalformedLine> {
        if self.tombstone {
            return Ok(None);
        }
        let Some(line_feeds) = self.line_feeds else { return Ok(Some(Cow::Borrowed(self.value))) };
        let positions: Vec<usize> = field(line_feeds, "positions of line feeds")?;
        let mut payload = self.value.to_vec();
        for position in positions {
            let Some(byte @ b' ') = payload.get_mut(position) else {
                let expected = format!("a blank at position {position} of the value, where `lf` has a line feed");
                return Err(MalformedLine { at: 0, expected });
            };
            *byte = b'\n';
        }
        Ok(Some(Cow::Owned(payload)))
    }
}

fn field<'a, T: Deserialize<'a>>(json: &'a [u8], what: &str) -> Result<T, MalformedLine> {
    serde_json::from_slice(json).map_err(|e| MalformedLine { at: 0, expected: format!("{what}: {e}") })
}

/// The fast path: fields in the order in which [`super::LineWriter`] writes them, no white space between them.
#[inline]
fn in_order(line: &[u8]) -> Option<Envelope<'_>> {
    let rest = line.strip_prefix(b"{\"topic\":\"")?;
    // Topic names need no escaping, so the next quote ends it.
    let rest = rest.get(memchr::memchr(b'"', rest)?..)?.strip_prefix(b"\",\"partition\":")?;
    let (_, rest) = digits(rest)?;
    let (offset, rest) = digits(rest.strip_prefix(b",\"offset\":")?)?;
    let rest = rest.strip_prefix(b",\"timestamp\":")?;
    let (timestamp, rest) = if let Some(rest) = rest.strip_prefix(b"null") {
        (None, rest)
    } else if let Some(rest) = rest.strip_prefix(b"-") {
        let (number, rest) = digits(rest)?;
        (Some(0i64.checked_sub_unsigned(number)?), rest)
    } else {
        let (number, rest) = digits(rest)?;
        (Some(i64::try_from(number).ok()?), rest)
    };
    let (key, rest) = value(rest.strip_prefix(b",\"key\":")?)?;
    let (headers, rest) = value(rest.strip_prefix(b",\"headers\":")?)?;
    let (event, rest) = value(rest.strip_prefix(b",\"event\":")?)?;
    let event = match event {
        b"null" => None,
        text if memchr::memchr(b'\\', text).is_some() => Some(Cow::Owned(serde_json::from_slice(text).ok()?)),
        text => Some(Cow::Borrowed(simdutf8::basic::from_utf8(text.strip_prefix(b"\"")?.strip_suffix(b"\"")?).ok()?)),
    };
    let (tombstone, rest) = match rest.strip_prefix(b",\"tombstone\":true") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let (line_feeds, rest) = match rest.strip_prefix(b",\"lf\":") {
        Some(rest) => value(rest).map(|(positions, rest)| (Some(positions), rest))?,
        None => (None, rest),
    };
    let value = rest.strip_prefix(b",\"value\":")?.strip_suffix(b"}")?;
    if value.is_empty() || (tombstone && value != b"null") {
        return None;
    }
    Some(Envelope { offset, timestamp, event, value, tombstone, key, headers, line_feeds })
}

/// A number without sign, as JSON writes it, and what follows.
#[inline]
fn digits(text: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0u64;
    let mut len = 0;
    while let Some(digit) = text.get(len).filter(|b| b.is_ascii_digit()) {
        number = number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        len += 1;
    }
    (len > 0 && (len == 1 || text[0] != b'0')).then(|| (number, &text[len..]))
}

/// The bytes of a small JSON value (string, null, object, array), and what follows; not validated beyond its ends.
#[inline]
fn value(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = match text.first()? {
        b'n' => 4,
        b'"' => string_end(text, 0)?,
        b'[' | b'{' => {
            if text.get(1) == Some(&b']') {
                return Some(text.split_at(2));
            }
            let (mut depth, mut at) = (0u32, 0);
            loop {
                match text.get(at)? {
                    b'"' => {
                        at = string_end(text, at)?;
                        continue;
                    }
                    b'[' | b'{' => depth += 1,
                    b']' | b'}' => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    break at;
                }
            }
        }
        _ => return None,
    };
    text.split_at_checked(end)
}

/// Where the string that opens at `at` has ended.
#[inline]
fn string_end(text: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// A line as any JSON reader sees it; white space around the value is not part of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnyOrder<'a> {
    #[serde(borrow, rename = "topic")]
    _topic: Cow<'a, str>,
    #[serde(rename = "partition")]
    _partition: u32,
    offset: Offset,
    timestamp: Option<i64>,
    #[serde(borrow)]
    key: &'a RawValue,
    #[serde(borrow)]
    headers: &'a RawValue,
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
    #[serde(default)]
    tombstone: bool,
    #[serde(borrow, default)]
    lf: Option<&'a RawValue>,
    #[serde(borrow)]
    value: &'a RawValue,
}

#[cold]
fn in_any_order(line: &[u8]) -> Result<Envelope<'_>, MalformedLine> {
    let fields: AnyOrder<'_> = serde_json::from_slice(line).map_err(|e| {
        let text = e.to_string();
        let expected = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
        MalformedLine { at: e.column().saturating_sub(1), expected: format!("an envelope: {expected}") }
    })?;
    if fields.tombstone && fields.value.get() != "null" {
        return Err(MalformedLine { at: 0, expected: "the value null, because it is a tombstone".into() });
    }
    Ok(Envelope {
        offset: fields.offset,
        timestamp: fields.timestamp,
        event: fields.event,
        value: fields.value.get().as_bytes(),
        tombstone: fields.tombstone,
        key: fields.key.get().as_bytes(),
        headers: fields.headers.get().as_bytes(),
        line_feeds: fields.lf.map(|lf| lf.get().as_bytes()),
    })
}
