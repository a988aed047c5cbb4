//! A data subject under all the names that columns and Firn give them, and how to find these in bytes.

use std::borrow::Cow;
use std::collections::BTreeSet;

use memchr::memmem::{self, Finder};
use serde::{Deserialize, Serialize};

use super::keys::Keys;
use super::landed::SHAPELESS;
use crate::error::Result;
use crate::ids::KeyName;
use crate::types::LogicalType;

/// How a payload begins that was sealed as a whole.
pub(super) const SEALED: &[u8] = b"{\"_firn_sealed\":\"";

/// How a column writes a data subject, or any other value of which tokens are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Naming {
    /// As text: every character counts.
    #[default]
    Text,
    /// As a whole number: `42`, `42.0` and `4.2e1` are one.
    Number,
    /// As a uuid: of its digits, upper and lower case are one.
    Uuid,
}

impl Naming {
    /// Of a column of this type.
    #[must_use]
    pub fn of(r#type: &LogicalType) -> Self {
        match r#type {
            LogicalType::Int | LogicalType::Long => Self::Number,
            LogicalType::Uuid => Self::Uuid,
            _ => Self::Text,
        }
    }

    /// The text of which a subject's names and a value's token are made, however it is written.
    #[must_use]
    pub fn canonical(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::Text => Cow::Borrowed(text),
            Self::Number => integer(text).map_or(Cow::Borrowed(text), Cow::Owned),
            Self::Uuid => Cow::Owned(text.to_ascii_lowercase()),
        }
    }
}

/// A data subject under all the names that Firn gives them.
#[derive(Debug, Clone)]
pub struct Subject {
    /// What stands for the subject's text: tokens under every key, and hashes.
    disguises: BTreeSet<String>,
    /// Ids of the subject's keys.
    key_ids: BTreeSet<String>,
    /// By key, the name in the key store.
    names: Vec<(KeyName, String)>,
    /// The subject's own text.
    plain: String,
    /// Signs of the subject in bytes: texts and key ids.
    signs: Vec<Finder<'static>>,
}

impl Subject {
    /// The subject whose column says `text`: its tokens under `keys`, and its hashes in columns, each under its key.
    ///
    /// # Errors
    /// As the keys' providers say.
    pub async fn new(
        text: &str,
        keys: &Keys,
        names: &BTreeSet<KeyName>,
        hashed: &BTreeSet<(KeyName, String)>,
    ) -> Result<Self> {
        let mut subject = Self::plain(text);
        // Whoever wrote a uuid may have written it in capitals.
        let mut texts = vec![text.to_owned()];
        if is_uuid(text) {
            let others = [text.to_ascii_lowercase(), text.to_ascii_uppercase()];
            texts.extend(others.into_iter().filter(|other| other != text));
        }
        for name in names {
            let key = keys.key(name).await?;
            let token = key.token_key().await?;
            for text in &texts {
                let short = token.subject(text.as_bytes());
                subject.disguise(|out| token.token(text.as_bytes(), out));
                subject.key_ids.insert(format!("{name}/s/{short}"));
                subject.names.push((name.clone(), short));
            }
        }
        for (name, column) in hashed {
            let key = keys.key(name).await?;
            let hash = key.token_key().await?.for_column(column);
            for text in &texts {
                subject.disguise(|out| hash.token(text.as_bytes(), out));
            }
        }
        Ok(subject.with_signs())
    }

    fn plain(text: &str) -> Self {
        let (disguises, key_ids) = (BTreeSet::new(), BTreeSet::new());
        Self { disguises, key_ids, names: Vec::new(), plain: text.to_owned(), signs: Vec::new() }
    }

    fn disguise(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut hex = Vec::new();
        write(&mut hex);
        self.disguises.extend(String::from_utf8(hex));
    }

    fn with_signs(mut self) -> Self {
        let signs = self.disguises.iter().chain(&self.key_ids).chain([&self.plain]).filter(|text| !text.is_empty());
        self.signs = signs.map(|text| Finder::new(text).into_owned()).collect();
        self
    }

    /// Whether this is what a column of this kind says of the subject: in plain, or as a token or hash.
    #[must_use]
    pub fn is_named(&self, text: &str, naming: Naming) -> bool {
        let plain = match naming {
            Naming::Text => text == self.plain,
            Naming::Number => integer(text).is_some_and(|number| number == self.plain),
            Naming::Uuid => is_uuid(text) && text.eq_ignore_ascii_case(&self.plain),
        };
        plain || self.disguises.contains(text)
    }

    /// Whether a line of JSON may speak of the subject; a no is certain, and cheap.
    #[must_use]
    pub fn may_be_in(&self, line: &[u8]) -> bool {
        // Escapes, and numbers with an exponent, may hide the text.
        let exponent = |at: usize| {
            let digit = |at: Option<usize>| at.and_then(|at| line.get(at)).is_some_and(u8::is_ascii_digit);
            digit(at.checked_sub(1)) && (digit(Some(at + 1)) || matches!(line.get(at + 1), Some(b'+' | b'-')))
        };
        memchr::memchr(b'\\', line).is_some()
            || self.signs.iter().any(|sign| sign.find(line).is_some())
            || memmem::find(line, &SEALED[1..]).is_some()
            || memmem::find(line, SHAPELESS).is_some()
            || integer(&self.plain).is_some() && memchr::memchr2_iter(b'e', b'E', line).any(exponent)
            || is_uuid(&self.plain) && line.windows(36).any(|found| found.eq_ignore_ascii_case(self.plain.as_bytes()))
    }

    /// Whether a key id is that of the subject.
    #[must_use]
    pub fn has_key(&self, id: &str) -> bool {
        self.key_ids.contains(id)
    }

    /// Every text that names the subject in a column of text. Numbers and uuids that name it read like one of these.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.disguises.iter().chain([&self.plain]).map(String::as_str)
    }

    /// The ids of the subject's keys.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.key_ids.iter().map(String::as_str)
    }

    /// Keys, and the subject's name under each.
    #[must_use]
    pub fn names(&self) -> &[(KeyName, String)] {
        &self.names
    }

    /// Whether bytes whose form is not known speak of the subject, in plain or in the escapes of JSON.
    #[must_use]
    pub fn is_mentioned(&self, bytes: &[u8]) -> bool {
        self.stands_in(bytes) || memchr::memchr(b'\\', bytes).is_some() && self.stands_in(&unescaped(bytes))
    }

    /// Whether the subject's text stands somewhere, not as a part of a longer word or number.
    fn stands_in(&self, bytes: &[u8]) -> bool {
        if integer(&self.plain).is_some_and(|number| number == self.plain) {
            return words(bytes).any(|word| self.is_number(word));
        }
        let length = self.plain.len();
        let any_case = is_uuid(&self.plain);
        let same = |found: &[u8]| {
            found == self.plain.as_bytes() || any_case && found.eq_ignore_ascii_case(self.plain.as_bytes())
        };
        let apart = |at: usize| {
            let before = at.checked_sub(1).is_some_and(|before| joins(bytes[before]) && joins(bytes[at]));
            let after = bytes.get(at + length).is_some_and(|after| joins(*after) && joins(bytes[at + length - 1]));
            !before && !after
        };
        length > 0 && bytes.windows(length).enumerate().any(|(at, found)| same(found) && apart(at))
    }

    /// Whether a word is the subject's number; one with zeros in front is text, a date's day or the like.
    fn is_number(&self, word: &[u8]) -> bool {
        let Ok(word) = std::str::from_utf8(word) else { return false };
        let digits = word.strip_prefix('-').unwrap_or(word);
        let padded = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
        word == self.plain || !padded && integer(word).is_some_and(|number| number == self.plain)
    }
}

/// Whether a byte next to another of these makes one word of both.
fn joins(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Runs of what numbers and words are made of, without the full stop or dash that ends a sentence.
fn words(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let part = |byte: &u8| joins(*byte) || matches!(byte, b'.' | b'-' | b'+');
    bytes.split(move |byte| !part(byte)).map(|word| {
        let end = word.iter().rposition(|byte| !matches!(byte, b'.' | b'-' | b'+')).map_or(0, |last| last + 1);
        &word[..end]
    })
}

/// Bytes with the escapes of JSON undone wherever one stands; for those who search, so what is no escape stays.
fn unescaped(bytes: &[u8]) -> Vec<u8> {
    let unit = |at: usize| -> Option<u32> {
        let hex = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u32::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()
    };
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let (char, length) = match (byte, unit(at)) {
            (b'\\', Some(high @ 0xD800..0xDC00)) => match unit(at + 6) {
                Some(low @ 0xDC00..0xE000) => (char::from_u32(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)), 12),
                _ => (None, 6),
            },
            (b'\\', Some(unit)) => (char::from_u32(unit), 6),
            (b'\\', None) => {
                let char = match bytes.get(at + 1) {
                    Some(b'n') => '\n',
                    Some(b't') => '\t',
                    Some(b'r') => '\r',
                    Some(other) if other.is_ascii() => char::from(*other),
                    _ => '\\',
                };
                (Some(char), 2)
            }
            _ => {
                out.push(*byte);
                at += 1;
                continue;
            }
        };
        let char = char.unwrap_or(char::REPLACEMENT_CHARACTER);
        out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        at += length;
    }
    out
}

/// A whole number in plain digits, however it is written: `1e3` and `1000.0` are `1000`.
fn integer(text: &str) -> Option<String> {
    const DIGITS_MAX: usize = 40;
    let (sign, number) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    // Nothing to any power, also to one that no number here holds.
    let power = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if significant.is_empty() && !power.is_empty() && power.bytes().all(|b| b.is_ascii_digit()) {
        return Some("0".to_owned());
    }
    let zeros = exponent.parse::<i64>().ok()?.checked_add((digits.len() - significant.len()) as i64)?;
    let zeros = usize::try_from(zeros - fraction.len() as i64).ok().filter(|zeros| *zeros <= DIGITS_MAX);
    let digits = significant.trim_start_matches('0');
    Some(format!("{sign}{digits}{}", "0".repeat(zeros?)))
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A subject with the token `70c3` and the key `people/s/ab`.
    pub(in crate::crypto) fn subject(text: &str) -> Subject {
        let mut subject = Subject::plain(text);
        subject.disguises.insert("70c3".to_owned());
        subject.key_ids.insert("people/s/ab".to_owned());
        subject.with_signs()
    }

    #[test]
    fn a_subject_is_who_the_column_means() {
        for (of, text, naming, expected) in [
            ("42", "42", Naming::Text, true),
            ("42", "0042", Naming::Text, false),
            ("42", "42.0", Naming::Text, false),
            ("42", "4.2e1", Naming::Text, false),
            ("0042", "0042", Naming::Text, true),
            ("0042", "42", Naming::Text, false),
            ("42", "42.0", Naming::Number, true),
            ("42", "4.2e1", Naming::Number, true),
            ("42", "43", Naming::Number, false),
            ("42", "70c3", Naming::Number, true),
            ("42", "70c3", Naming::Text, true),
            ("6BA7B810-9dad-11d1-80b4-00c04fd430c8", "6ba7b810-9DAD-11d1-80b4-00c04fd430c8", Naming::Uuid, true),
            ("6BA7B810-9dad-11d1-80b4-00c04fd430c8", "6ba7b810-9DAD-11d1-80b4-00c04fd430c8", Naming::Text, false),
        ] {
            assert_eq!(subject(of).is_named(text, naming), expected, "{of} {text} {naming:?}");
        }
    }

    #[test]
    fn bytes_mention_a_subject_in_any_spelling_but_not_as_a_part_of_others() {
        for (of, bytes, expected) in [
            ("7", r#"{"who":7,"n":1"#, true),
            ("7", r#"{"who":"7""#, true),
            ("7", r#"{"who":0.7e1,"#, true),
            ("7", "customer 7.", true),
            ("7", r#"{"who":17,"at":"2026-11-07T07:17:27","n":7.5,"v":"v7","x":-7,"y":"7a""#, false),
            ("1000", r#"{"who":1e3,"#, true),
            ("-7", r#"{"who":-7"#, true),
            ("müller@x", r#"{"who":"m\u00fcller@x","#, true),
            ("müller@x", r#"{"who":"müller@xy","#, false),
            ("müller@x", r#"{"who":"hm\u00fcller@x","#, false),
            ("a\"b", r#"{"who":"a\"b","#, true),
            ("😀", r#"{"who":"\ud83d\ude00"#, true),
            ("alice", "about alice@example.com", true),
            ("alice", "about malice", false),
            ("6ba7b810-9dad-11d1-80b4-00c04fd430c8", r#"{"who":"6BA7B810-9DAD-11D1-80B4-00C04FD430C8"#, true),
            ("", "anything", false),
            ("x", "\\", false),
            ("x", "\\ud83d x", true),
        ] {
            assert_eq!(subject(of).is_mentioned(bytes.as_bytes()), expected, "{of} in {bytes}");
            assert!(!expected || subject(of).may_be_in(bytes.as_bytes()), "{of} in {bytes}");
        }
    }

    #[test]
    fn whole_numbers_are_one_number() {
        for (text, expected) in [
            ("7", Some("7")),
            ("-70.0e-1", Some("-7")),
            ("1.05e3", Some("1050")),
            ("0.000", Some("0")),
            ("-0e99999999999999999999", Some("0")),
            ("1e99999999999999999999", None),
            ("0e", None),
            ("7.5", None),
            ("1e400", None),
            ("x", None),
            ("", None),
            (".5e1", None),
        ] {
            assert_eq!(integer(text).as_deref(), expected, "{text}");
        }
        assert_eq!(Naming::Number.canonical("4.20e1"), "42");
        assert_eq!(Naming::Text.canonical("042"), "042");
        assert_eq!(Naming::Uuid.canonical("6BA7"), "6ba7");
    }
}
