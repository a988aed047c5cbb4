//! Protection inside payloads: the bytes of protected values are replaced in place, the record is never rebuilt.
//!
//! Landing does it before anything is uploaded (`protectAt: landing`), the compactor with records that it quarantines. A
//! payload that cannot be followed, because it is no JSON, is sealed as a whole. So is a value of another shape than the
//! path of a protected value has: an object where the path has a list, text where it has an object.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::keys::{Key, Keys};
use super::landed;
use super::naming::Naming;
use super::seal::{DataKey, Sealer};
use super::spans::{Places, Span, find, unquoted};
use super::treatment::Treatment;
use crate::config::domain::{EventTime, PathStep, Protect, Protection};
use crate::error::{Error, Result};
use crate::raw::envelope::text::push_string;
use crate::raw::inspect::Inspector;

/// What `[]` of a path stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Many {
    /// The elements of a list.
    Elements,
    /// The values of a map.
    Values,
}

/// A protected value's way from a column back into payloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protected {
    /// What becomes of it.
    pub protection: Protection,
    /// Its full name, `database.table.path`.
    pub column: String,
    /// Where it is in a payload, and where its subject is.
    pub places: Vec<(Vec<PathStep>, Option<Vec<PathStep>>)>,
    /// What each `[]` of these places stands for, in order.
    pub many: Vec<Many>,
    /// How the subject's column writes whom it names.
    pub naming: Naming,
    /// How the value itself is written.
    pub value: Naming,
    /// Whether these places are all there are; else the value may be anywhere in the payload.
    pub traced: bool,
}

impl Protected {
    /// Whether erasure finds the value by what the subject's place says, and by nothing else.
    fn is_found_by_name(&self) -> bool {
        let by_key = self.protection.how == Protect::Encrypt || self.protection.how == Protect::Drop;
        self.protection.is_erasable() && !by_key
    }

    /// Whether this hides a subject that stands at `place`, so that nobody can tell any more who it is.
    fn hides(&self, place: &[PathStep]) -> bool {
        let told = self.protection.token || matches!(self.protection.how, Protect::Token | Protect::Hash);
        let stands = |(own, _): &(Vec<PathStep>, _)| place.starts_with(own) && (own.len() < place.len() || !told);
        self.protection.protects() && self.places.iter().any(stands)
    }
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
    /// Whether every protected value can be found in a payload, and whose it is afterwards.
    traced: bool,
    /// Whether landing may have protected values already: they stay as they are.
    landed: bool,
    inspector: Inspector,
}

#[derive(Debug, Clone, Copy)]
enum Work {
    Protect {
        treatment: usize,
        /// Where the subject stands, and how it is written.
        subject: Option<(usize, Naming)>,
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
            let treatment = treatment.in_text().for_values(one.value);
            for (path, subject) in &one.places {
                // Two tables may protect the same value, in the same way: then once is enough.
                if taken.contains(&path) {
                    continue;
                }
                taken.push(path);
                let subject = subject.as_ref().filter(|_| treatment.by_subject()).map(|path| {
                    places.want(path, &[], works.len());
                    works.push(Work::Subject);
                    (works.len() - 1, one.naming)
                });
                places.want(path, &one.many, works.len());
                works.push(Work::Protect { treatment: treatments.len(), subject });
            }
            treatments.push(treatment);
        }
        let named = protected.iter().find_map(|p| p.protection.key.as_ref()).or_else(|| keys.names().next());
        let whole = match named {
            Some(name) => Some(keys.key(name).await?),
            None => None,
        };
        // Of two tables one may hide the subject by which the other's values would be found again.
        let subjects = protected.iter().filter(|p| p.is_found_by_name()).flat_map(|p| &p.places);
        let hidden =
            subjects.filter_map(|(_, subject)| subject.as_ref()).any(|at| protected.iter().any(|p| p.hides(at)));
        let traced = protected.iter().all(|p| p.traced) && !hidden;
        let inspector = Inspector::new(None, &EventTime::KafkaTimestamp)?;
        Ok(Some(Self { places, treatments, works, whole, traced, landed: false, inspector }))
    }

    /// The same for payloads of which landing may have protected values: these stay as they are.
    #[must_use]
    pub fn of_landed(self, landed: bool) -> Self {
        Self { landed, ..self }
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
        spans.sort_by_key(|span| (span.at.start, std::cmp::Reverse(span.at.end)));
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
            for span in &spans {
                if let Work::Protect { treatment, subject: Some(subject) } = self.works[span.wanted]
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

    /// The subject's name in the key store, from the value at number `subject`; the last of duplicate keys counts. Nobody
    /// is named by a value of another shape, nor by one that landing has protected.
    fn subject(
        &self,
        payload: &[u8],
        spans: &[Span],
        treatment: usize,
        (subject, naming): (usize, Naming),
    ) -> Result<Option<String>> {
        let Some(span) = spans.iter().rev().find(|span| span.wanted == subject && !span.odd) else { return Ok(None) };
        let raw = &payload[span.at.clone()];
        if matches!(raw.first(), Some(b'{' | b'[')) || self.is_landed(raw) {
            return Ok(None);
        }
        let Some(text) = text_of(raw) else { return Ok(None) };
        let key = self.treatments[treatment].sealing().ok_or_else(|| Error::bug("a subject without a key"))?;
        Ok(Some(key.token_key_blocking()?.subject(naming.canonical(&text).as_bytes())))
    }

    /// Whether landing has protected this value.
    fn is_landed(&self, raw: &[u8]) -> bool {
        let is = |text: Cow<'_, str>| landed::Landed::parse(&text).is_some() || landed::shapeless(&text).is_some();
        self.landed && raw.first() == Some(&b'"') && text_of(raw).is_some_and(is)
    }

    /// The key that seals a value. Within a record a key is asked for its newest version once: one column of the table
    /// names it for all values of the row.
    fn key_for(
        &self,
        payload: &[u8],
        spans: &[Span],
        (treatment, subject): (usize, Option<(usize, Naming)>),
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
        // As many as there are in the record at most: those of subjects have other keys.
        let of_key =
            |span: &&Span| matches!(self.works[span.wanted], Work::Protect { treatment, .. } if same(treatment));
        let current = key.current_blocking(spans.iter().filter(of_key).count() as u64)?;
        newest.push((treatment, Arc::clone(&current)));
        Ok(Some(current))
    }

    fn replace(&self, payload: &[u8], spans: &[Span], scratch: &mut Scratch) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(payload.len() + spans.len() * 160);
        let (mut done, mut newest) = (0, Vec::new());
        for span in spans {
            let Work::Protect { treatment, subject } = self.works[span.wanted] else { continue };
            let raw = &payload[span.at.clone()];
            // What lies inside a value that was replaced is gone with it; null stays null.
            if span.at.start < done || raw == b"null" {
                continue;
            }
            out.extend_from_slice(&payload[done..span.at.start]);
            done = span.at.end;
            if self.is_landed(raw) {
                out.extend_from_slice(raw);
                continue;
            }
            if self.treatments[treatment].drops() && !span.odd {
                out.extend_from_slice(b"null");
                continue;
            }
            if span.odd {
                let key = self.key_of_odd(payload, spans, &span.at)?;
                scratch.write_shapeless(raw, key.as_deref())?;
            } else {
                let text = text_of(raw).unwrap_or_default();
                let key = self.key_for(payload, spans, (treatment, subject), &mut newest)?;
                scratch.write(&self.treatments[treatment], &text, key.as_deref())?;
            }
            push_string(&mut out, std::str::from_utf8(&scratch.text).map_err(|e| Error::bug(e.to_string()))?);
        }
        out.extend_from_slice(&payload[done..]);
        Ok(out)
    }

    /// The key for what stands at `at` in another shape: that of the subject of a value that belongs there, else the one
    /// for whole payloads; `None` where no key is configured, and the value goes.
    fn key_of_odd(&self, payload: &[u8], spans: &[Span], at: &Range<usize>) -> Result<Option<Arc<DataKey>>> {
        for span in spans.iter().filter(|span| span.odd && span.at == *at) {
            if let Work::Protect { treatment, subject: Some(subject) } = self.works[span.wanted]
                && let Some(name) = self.subject(payload, spans, treatment, subject)?
                && let Some(key) = self.treatments[treatment].sealing()
            {
                return key.subjects_blocking(std::slice::from_ref(&name)).map(|mut keys| keys.remove(&name));
            }
        }
        self.whole.as_ref().map(|key| key.current_blocking(1)).transpose()
    }

    fn seal_whole(&self, payload: &[u8], scratch: &mut Scratch) -> Result<Vec<u8>> {
        let Some(key) = &self.whole else {
            return Ok(format!("{{\"_firn_removed\":{}}}", payload.len()).into_bytes());
        };
        let key = key.current_blocking(1)?;
        let mut out = b"{\"_firn_sealed\":\"".to_vec();
        landed::begin_sealed(key.id(), &mut out);
        scratch.sealer.seal(&key, b"", payload, &mut out)?;
        key.count(1, payload.len() as u64);
        out.extend_from_slice(b":\"}");
        Ok(out)
    }
}

impl Scratch {
    /// A value of another shape, sealed as it stands there, in `self.text`.
    fn write_shapeless(&mut self, raw: &[u8], key: Option<&DataKey>) -> Result<()> {
        self.text.clear();
        let Some(key) = key else {
            landed::begin_value(&mut self.text);
            self.text.push(b':');
            return Ok(());
        };
        landed::begin_shapeless(key.id(), &mut self.text);
        self.sealer.seal(key, b"", raw, &mut self.text)?;
        key.count(1, raw.len() as u64);
        self.text.push(b':');
        Ok(())
    }

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
