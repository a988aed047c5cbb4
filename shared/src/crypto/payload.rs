//! Protection inside payloads: the bytes of protected values are replaced in place, the record is never rebuilt.
//!
//! Landing does it before anything is uploaded (`protectAt: landing`), the compactor with records that it quarantines. A
//! payload that cannot be followed, because it is no JSON, is sealed as a whole.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::keys::{Key, Keys};
use super::landed;
use super::seal::{DataKey, Sealer};
use super::spans::{Places, Span, find, unquoted};
use super::treatment::Treatment;
use crate::config::domain::{EventTime, PathStep, Protection};
use crate::error::{Error, Result};
use crate::raw::envelope::text::push_string;
use crate::raw::inspect::Inspector;

/// A protected value's way from a column back into payloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protected {
    /// What becomes of it.
    pub protection: Protection,
    /// Its full name, `database.table.path`.
    pub column: String,
    /// Where it is in a payload, and where its subject is.
    pub places: Vec<(Vec<PathStep>, Option<Vec<PathStep>>)>,
    /// Whether these places are all there are; else the value may be anywhere in the payload.
    pub traced: bool,
}

/// Protects payloads of one pipeline or one table; shared by all threads.
#[derive(Debug)]
pub struct Guard {
    places: Places,
    treatments: Vec<Treatment>,
    /// By number in `places`: what is done there, and the number under which the subject stands.
    works: Vec<Work>,
    /// Seals payloads that cannot be followed.
    whole: Option<Arc<Key>>,
    /// Whether every protected value can be found in a payload.
    traced: bool,
    inspector: Inspector,
}

#[derive(Debug, Clone, Copy)]
enum Work {
    Protect {
        treatment: usize,
        subject: Option<usize>,
    },
    /// Only read, to choose a key.
    Subject,
}

/// A thread's buffers.
#[derive(Default)]
pub struct Scratch {
    sealer: Sealer,
    spans: Vec<Span>,
    text: Vec<u8>,
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}

impl Guard {
    /// A guard for these values; `None` when nothing is to be protected.
    ///
    /// # Errors
    /// As [`Treatment::new`].
    pub async fn new(protected: &[Protected], keys: &Keys) -> Result<Option<Self>> {
        let protected: Vec<&Protected> = protected.iter().filter(|p| p.protection.protects()).collect();
        if protected.is_empty() {
            return Ok(None);
        }
        let (mut places, mut treatments, mut works) = (Places::default(), Vec::new(), Vec::new());
        let mut taken: Vec<&Vec<PathStep>> = Vec::new();
        for one in &protected {
            let treatment = Treatment::new(&one.protection, keys, &one.column).await?;
            for (path, subject) in &one.places {
                // Two tables may protect the same value, in the same way: then once is enough.
                if taken.contains(&path) {
                    continue;
                }
                taken.push(path);
                let subject = subject.as_ref().filter(|_| treatment.by_subject()).map(|path| {
                    places.want(path, works.len());
                    works.push(Work::Subject);
                    works.len() - 1
                });
                places.want(path, works.len());
                works.push(Work::Protect { treatment: treatments.len(), subject });
            }
            treatments.push(treatment);
        }
        let named = protected.iter().find_map(|p| p.protection.key.as_ref()).or_else(|| keys.names().next());
        let whole = match named {
            Some(name) => Some(keys.key(name).await?),
            None => None,
        };
        let traced = protected.iter().all(|p| p.traced);
        let inspector = Inspector::new(None, &EventTime::KafkaTimestamp)?;
        Ok(Some(Self { places, treatments, works, whole, traced, inspector }))
    }

    /// The payload with protected values replaced. It must be one JSON value; one that is not comes back sealed.
    ///
    /// # Errors
    /// Those of keys that had to be fetched.
    pub fn protect<'a>(&self, payload: &'a [u8], scratch: &mut Scratch) -> Result<Cow<'a, [u8]>> {
        let mut spans = std::mem::take(&mut scratch.spans);
        spans.clear();
        let followed = self.traced && find(payload, &self.places, &mut spans).is_ok();
        // Outer before inner, where a place is wanted twice.
        spans.sort_by_key(|(_, range)| (range.start, std::cmp::Reverse(range.end)));
        let protected = if !followed {
            self.seal_whole(payload, scratch).map(Cow::Owned)
        } else if spans.is_empty() {
            Ok(Cow::Borrowed(payload))
        } else {
            self.replace(payload, &spans, scratch).map(Cow::Owned)
        };
        scratch.spans = spans;
        protected
    }

    /// A record's key: one that is a JSON object holds the row's values under the same names. Anything else has no places
    /// that a path could name, and stays as it is.
    ///
    /// # Errors
    /// As [`Self::protect`].
    pub fn protect_key<'a>(&self, key: &'a [u8], scratch: &mut Scratch) -> Result<Cow<'a, [u8]>> {
        let is_object = key.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{');
        if self.traced && is_object && self.inspector.inspect(key).is_ok() {
            self.protect(key, scratch)
        } else {
            Ok(Cow::Borrowed(key))
        }
    }

    /// The same for a payload of which nothing is known: one that is not JSON in UTF-8 is sealed as a whole.
    ///
    /// # Errors
    /// As [`Self::protect`].
    pub fn protect_unknown<'a>(&self, payload: &'a [u8], scratch: &mut Scratch) -> Result<Cow<'a, [u8]>> {
        match self.inspector.inspect(payload) {
            Ok(_) => self.protect(payload, scratch),
            Err(_) => self.seal_whole(payload, scratch).map(Cow::Owned),
        }
    }

    /// Fetches the keys of all subjects in these payloads at once, so that [`Self::protect`] does not wait for each.
    ///
    /// # Errors
    /// Those of the key store.
    pub fn warm<'a>(&self, payloads: impl Iterator<Item = &'a [u8]>) -> Result<()> {
        if !self.treatments.iter().any(Treatment::by_subject) {
            return Ok(());
        }
        let mut wanted: HashMap<usize, Vec<String>> = HashMap::new();
        let mut spans = Vec::new();
        for payload in payloads {
            spans.clear();
            if find(payload, &self.places, &mut spans).is_err() {
                continue;
            }
            for (number, _) in &spans {
                if let Work::Protect { treatment, subject: Some(subject) } = self.works[*number]
                    && let Some(name) = self.subject(payload, &spans, treatment, subject)?
                {
                    wanted.entry(treatment).or_default().push(name);
                }
            }
        }
        for (treatment, mut names) in wanted {
            names.sort_unstable();
            names.dedup();
            if let Some(key) = self.treatments[treatment].sealing() {
                key.subjects_blocking(&names)?;
            }
        }
        Ok(())
    }

    /// The subject's name in the key store, from the value at number `subject`; the last of duplicate keys counts.
    fn subject(&self, payload: &[u8], spans: &[Span], treatment: usize, subject: usize) -> Result<Option<String>> {
        let Some((_, range)) = spans.iter().rev().find(|(number, _)| *number == subject) else { return Ok(None) };
        let Some(text) = text_of(&payload[range.clone()]) else { return Ok(None) };
        let key = self.treatments[treatment].sealing().ok_or_else(|| Error::bug("a subject without a key"))?;
        Ok(Some(key.token_key_opened()?.subject(text.as_bytes())))
    }

    /// The key that seals a value. Within a record a key is asked for its newest version once: one column of the table
    /// names it for all values of the row.
    fn key_for(
        &self,
        payload: &[u8],
        spans: &[Span],
        (treatment, subject): (usize, Option<usize>),
        newest: &mut Vec<(usize, Arc<DataKey>)>,
    ) -> Result<Option<Arc<DataKey>>> {
        let Some(key) = self.treatments[treatment].sealing() else { return Ok(None) };
        let name = match subject {
            Some(subject) => self.subject(payload, spans, treatment, subject)?,
            None => None,
        };
        if let Some(name) = name {
            return key.subjects_blocking(std::slice::from_ref(&name)).map(|mut keys| keys.remove(&name));
        }
        let same = |at: usize| self.treatments[at].sealing().is_some_and(|other| Arc::ptr_eq(other, key));
        if let Some((_, known)) = newest.iter().find(|(at, _)| same(*at)) {
            return Ok(Some(Arc::clone(known)));
        }
        let current = key.current_blocking()?;
        newest.push((treatment, Arc::clone(&current)));
        Ok(Some(current))
    }

    fn replace(&self, payload: &[u8], spans: &[Span], scratch: &mut Scratch) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(payload.len() + spans.len() * 160);
        let (mut done, mut newest) = (0, Vec::new());
        for (number, range) in spans {
            let Work::Protect { treatment, subject } = self.works[*number] else { continue };
            let raw = &payload[range.clone()];
            // What lies inside a value that was replaced is gone with it; null stays null.
            if range.start < done || raw == b"null" {
                continue;
            }
            out.extend_from_slice(&payload[done..range.start]);
            done = range.end;
            if self.treatments[treatment].drops() {
                out.extend_from_slice(b"null");
                continue;
            }
            let text = text_of(raw).unwrap_or_default();
            let key = self.key_for(payload, spans, (treatment, subject), &mut newest)?;
            scratch.write(&self.treatments[treatment], &text, key.as_deref())?;
            push_string(&mut out, std::str::from_utf8(&scratch.text).map_err(|e| Error::bug(e.to_string()))?);
        }
        out.extend_from_slice(&payload[done..]);
        Ok(out)
    }

    fn seal_whole(&self, payload: &[u8], scratch: &mut Scratch) -> Result<Vec<u8>> {
        let Some(key) = &self.whole else {
            return Ok(format!("{{\"_firn_removed\":{}}}", payload.len()).into_bytes());
        };
        let key = key.current_blocking()?;
        let mut out = b"{\"_firn_sealed\":\"".to_vec();
        landed::begin_sealed(key.id(), &mut out);
        scratch.sealer.seal(&key, b"", payload, &mut out)?;
        key.count(1, payload.len() as u64);
        out.extend_from_slice(b":\"}");
        Ok(out)
    }
}

impl Scratch {
    /// The landed form of a value, in `self.text`.
    fn write(&mut self, treatment: &Treatment, text: &str, key: Option<&DataKey>) -> Result<()> {
        let mut out = std::mem::take(&mut self.text);
        out.clear();
        let token = |out: &mut Vec<u8>| {
            if let Some(key) = treatment.token_key() {
                key.token(text.as_bytes(), out);
            }
        };
        if let Some(key) = key {
            landed::begin_sealed(key.id(), &mut out);
            treatment.apply(text, Some(key), &mut self.sealer, &mut out)?;
            key.count(1, text.len() as u64);
            out.push(b':');
            token(&mut out);
        } else {
            landed::begin_value(&mut out);
            token(&mut out);
            out.push(b':');
            treatment.apply(text, None, &mut self.sealer, &mut out)?;
        }
        self.text = out;
        Ok(())
    }
}

/// The text of a JSON value: what a string says, the JSON of everything else; `None` for null.
#[must_use]
pub fn text_of(raw: &[u8]) -> Option<Cow<'_, str>> {
    match raw.first() {
        None | Some(b'n') => None,
        // Half a surrogate pair is no character: the string as it is written, then.
        Some(b'"') => unquoted(raw).or_else(|| Some(String::from_utf8_lossy(raw))),
        _ => Some(String::from_utf8_lossy(raw)),
    }
}

#[cfg(test)]
#[path = "payload_tests.rs"]
mod tests;
