//! Takes the values of one data subject out of payloads: null stands where they were, everything else stays.

use std::collections::BTreeSet;
use std::ops::Range;

use super::keys::Keys;
use super::landed::Landed;
use super::payload::{Protected, text_of};
use super::spans::{Places, Span, find};
use crate::config::domain::EventTime;
use crate::error::Result;
use crate::ids::KeyName;
use crate::raw::inspect::Inspector;

/// What is left of a record that cannot be looked into and speaks of the subject.
const ERASED: &[u8] = b"{\"_firn_erased\":true}";
/// How a payload begins that was sealed as a whole.
const SEALED: &[u8] = b"{\"_firn_sealed\":\"";

/// A data subject under all the names that Firn gives them.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The subject's own text, and its tokens under every key.
    texts: BTreeSet<String>,
    /// Ids of the subject's keys.
    key_ids: BTreeSet<String>,
    /// By key, the name in the key store.
    names: Vec<(KeyName, String)>,
    plain: String,
    /// Signs of the subject in bytes: texts and key ids.
    signs: Vec<memchr::memmem::Finder<'static>>,
}

impl Subject {
    /// The subject whose column says `text`, under `keys` (those with tokens).
    ///
    /// # Errors
    /// As the keys' providers say.
    pub async fn new(text: &str, keys: &Keys, names: &BTreeSet<KeyName>) -> Result<Self> {
        let mut subject = Self {
            texts: [text.to_owned()].into(),
            key_ids: BTreeSet::new(),
            names: Vec::new(),
            plain: text.to_owned(),
            signs: Vec::new(),
        };
        for name in names {
            let key = keys.key(name).await?;
            let token = key.token_key().await?;
            let mut hex = Vec::new();
            token.token(text.as_bytes(), &mut hex);
            subject.texts.extend(String::from_utf8(hex));
            let short = token.subject(text.as_bytes());
            subject.key_ids.insert(format!("{name}/s/{short}"));
            subject.names.push((name.clone(), short));
        }
        let signs = subject.texts.iter().chain(&subject.key_ids).filter(|text| !text.is_empty());
        subject.signs = signs.map(|text| memchr::memmem::Finder::new(text).into_owned()).collect();
        Ok(subject)
    }

    /// Whether this is what a column says of the subject: in plain, or as a token. Numbers may be written in several ways,
    /// and so may ids in hexadecimal digits.
    #[must_use]
    pub fn is_named(&self, text: &str) -> bool {
        self.texts.contains(text)
            || integer(text).is_some_and(|number| number == self.plain)
            || is_uuid(&self.plain) && text.eq_ignore_ascii_case(&self.plain)
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
            || memchr::memmem::find(line, &SEALED[1..]).is_some()
            || integer(&self.plain).is_some() && memchr::memchr2_iter(b'e', b'E', line).any(exponent)
            || is_uuid(&self.plain) && line.windows(36).any(|found| found.eq_ignore_ascii_case(self.plain.as_bytes()))
    }

    /// Whether a key id is that of the subject.
    #[must_use]
    pub fn has_key(&self, id: &str) -> bool {
        self.key_ids.contains(id)
    }

    /// Keys, and the subject's name under each.
    #[must_use]
    pub fn names(&self) -> &[(KeyName, String)] {
        &self.names
    }

    /// Whether bytes of which nothing is known speak of the subject.
    #[must_use]
    pub fn is_mentioned(&self, bytes: &[u8]) -> bool {
        !self.plain.is_empty() && memchr::memmem::find(bytes, self.plain.as_bytes()).is_some()
    }
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
    let zeros = exponent.parse::<i64>().ok()?.checked_add((digits.len() - significant.len()) as i64)?;
    let zeros = usize::try_from(zeros - fraction.len() as i64).ok().filter(|zeros| *zeros <= DIGITS_MAX);
    let digits = significant.trim_start_matches('0');
    if digits.is_empty() {
        return Some("0".to_owned());
    }
    Some(format!("{sign}{digits}{}", "0".repeat(zeros?)))
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()
}

/// Takes a subject out of payloads of one output.
#[derive(Debug)]
pub struct Eraser {
    subject: Subject,
    places: Places,
    /// By number in `places`: a value that goes when the subject at the other number is the one, or a subject.
    works: Vec<Option<usize>>,
    inspector: Inspector,
}

/// What became of a payload.
#[derive(Debug, PartialEq, Eq)]
pub enum Erased {
    /// Nothing of the subject is in it.
    Untouched,
    /// The payload without the subject's values.
    Changed(Vec<u8>),
    /// It is sealed as a whole: with which key, and the ciphertext. Ask again with what is in it.
    Sealed(String, String),
}

impl Eraser {
    /// For the values in `protected` that have a subject.
    ///
    /// # Errors
    /// `Bug`, never.
    pub fn new(subject: Subject, protected: &[Protected]) -> Result<Self> {
        let (mut places, mut works) = (Places::default(), Vec::new());
        for one in protected.iter().filter(|p| p.protection.protects() && p.protection.subject.is_some()) {
            for (path, of) in &one.places {
                let Some(of) = of else { continue };
                places.want(of, works.len());
                works.push(None);
                places.want(path, works.len());
                works.push(Some(works.len() - 1));
            }
        }
        Ok(Self { subject, places, works, inspector: Inspector::new(None, &EventTime::KafkaTimestamp)? })
    }

    /// The subject.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Looks into one payload.
    #[must_use]
    pub fn erase(&self, payload: &[u8]) -> Erased {
        if let Some(landed) = payload.strip_prefix(SEALED).and_then(|rest| rest.strip_suffix(b"\"}"))
            && let Some(Landed { value, key: Some(key), .. }) = std::str::from_utf8(landed).ok().and_then(Landed::parse)
        {
            return Erased::Sealed(key.to_owned(), value.to_owned());
        }
        let mut spans = Vec::new();
        if self.inspector.inspect(payload).is_err() || find(payload, &self.places, &mut spans).is_err() {
            return self.erase_whole(payload);
        }
        let mut gone: Vec<Range<usize>> = spans
            .iter()
            .filter(|(number, range)| self.goes(payload, &spans, *number, range))
            .map(|(_, range)| range.clone())
            .collect();
        if gone.is_empty() {
            return Erased::Untouched;
        }
        gone.sort_by_key(|range| (range.start, std::cmp::Reverse(range.end)));
        let (mut out, mut done) = (Vec::with_capacity(payload.len()), 0);
        for range in gone {
            if range.start < done {
                continue;
            }
            out.extend_from_slice(&payload[done..range.start]);
            out.extend_from_slice(b"null");
            done = range.end;
        }
        out.extend_from_slice(&payload[done..]);
        Erased::Changed(out)
    }

    /// Of a record that cannot be followed everything goes, if it mentions the subject.
    #[must_use]
    pub fn erase_whole(&self, bytes: &[u8]) -> Erased {
        if self.subject.is_mentioned(bytes) { Erased::Changed(ERASED.to_vec()) } else { Erased::Untouched }
    }

    fn goes(&self, payload: &[u8], spans: &[Span], number: usize, range: &Range<usize>) -> bool {
        let Some(of) = self.works[number] else { return false };
        let raw = &payload[range.clone()];
        if raw == b"null" {
            return false;
        }
        let sealed_by = |raw: &[u8]| {
            let text = text_of(raw)?;
            Landed::parse(&text)?.key.map(|key| self.subject.has_key(key))
        };
        if sealed_by(raw) == Some(true) {
            return true;
        }
        // Any of duplicate keys may be the one that some reader takes.
        spans.iter().filter(|(other, _)| *other == of).any(|(_, range)| {
            let Some(text) = text_of(&payload[range.clone()]) else { return false };
            match Landed::parse(&text) {
                None => self.subject.is_named(&text),
                Some(landed) => {
                    landed.key.is_some_and(|key| self.subject.has_key(key))
                        || landed.token.is_some_and(|token| self.subject.is_named(token))
                        || landed.key.is_none() && self.subject.is_named(landed.value)
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::domain::{ColumnPath, PathStep, Protect, Protection};

    fn subject(text: &str) -> Subject {
        let texts: BTreeSet<String> = [text.to_owned(), "70c3".to_owned()].into();
        let key_ids: BTreeSet<String> = ["people/s/ab".to_owned()].into();
        let signs = texts.iter().chain(&key_ids).map(|text| memchr::memmem::Finder::new(text).into_owned()).collect();
        Subject { texts, key_ids, names: Vec::new(), plain: text.to_owned(), signs }
    }

    fn eraser(text: &str) -> Eraser {
        let field = |name: &str| vec![PathStep::Field(name.to_owned())];
        let protection = Protection {
            path: ColumnPath { column: "mail".to_owned(), inside: Vec::new() },
            how: Protect::Encrypt,
            token: true,
            key: None,
            subject: Some("who".parse().unwrap()),
            aad: None,
        };
        let protected = Protected {
            protection,
            column: "d.t.mail".to_owned(),
            places: vec![(field("mail"), Some(field("who")))],
            traced: true,
        };
        Eraser::new(subject(text), &[protected]).unwrap()
    }

    #[test]
    fn only_values_of_the_subject_go_however_it_is_written() {
        let token = "ab".repeat(32);
        let sealed = format!(r#"{{"who":8,"mail":"firn:1:e:people/s/ab:QUJD:{token}"}}"#);
        for (payload, expected) in [
            (r#"{"who":1000,"mail":"a@b","n":1}"#, Some(r#"{"who":1000,"mail":null,"n":1}"#)),
            (r#"{"who":1e3,"mail":"a@b"}"#, Some(r#"{"who":1e3,"mail":null}"#)),
            (r#"{"who":"1000.0","mail":"a@b"}"#, Some(r#"{"who":"1000.0","mail":null}"#)),
            (r#"{"who":"\u0031000","mail":"a@b"}"#, Some(r#"{"who":"\u0031000","mail":null}"#)),
            (r#"{"who":"70c3","mail":"a@b","mail":"c"}"#, Some(r#"{"who":"70c3","mail":null,"mail":null}"#)),
            (sealed.as_str(), Some(r#"{"who":8,"mail":null}"#)),
            (r#"{"who":10000,"mail":"1000"}"#, None),
            (r#"{"who":1000,"mail":null}"#, None),
            (r#"{"who":1000"#, Some(r#"{"_firn_erased":true}"#)),
            (r#"{"who":9"#, None),
        ] {
            let expected = expected.map_or(Erased::Untouched, |text| Erased::Changed(text.as_bytes().to_vec()));
            assert_eq!(eraser("1000").erase(payload.as_bytes()), expected, "{payload}");
            let may = eraser("1000").subject().may_be_in(payload.as_bytes());
            assert!(may || expected == Erased::Untouched, "{payload}");
        }
        assert!(!subject("1000").may_be_in(br#"{"who":999,"mail":"e1@example.com"}"#));
    }

    #[test]
    fn whole_numbers_are_one_number() {
        for (text, expected) in [
            ("7", Some("7")),
            ("-70.0e-1", Some("-7")),
            ("1.05e3", Some("1050")),
            ("0.000", Some("0")),
            ("7.5", None),
            ("1e400", None),
            ("x", None),
            ("", None),
            (".5e1", None),
        ] {
            assert_eq!(integer(text).as_deref(), expected, "{text}");
        }
    }
}
