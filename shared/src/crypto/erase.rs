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
        Ok(subject)
    }

    /// Whether this is what a column says of the subject: in plain, or as a token.
    #[must_use]
    pub fn is_named(&self, text: &str) -> bool {
        self.texts.contains(text)
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
