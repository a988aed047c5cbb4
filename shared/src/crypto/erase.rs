//! Takes the values of one data subject out of payloads: null stands where they were, everything else stays.
//!
//! A payload may hold what only a key opens: it was sealed as a whole, or a value in it because of its shape. Then the
//! eraser asks for what is in there, and whoever holds the keys asks again with it. Who cannot be told apart by where
//! things stand is looked for in the bytes.

use std::ops::Range;

use super::erasable::Erasable;
use super::landed::{Landed, shapeless};
use super::naming::SEALED;
pub use super::naming::{Naming, Subject};
use super::payload::text_of;
use super::seal::Plaintext;
use super::spans::{Places, Span, find};
use crate::config::domain::EventTime;
use crate::error::Result;
use crate::raw::inspect::Inspector;

/// What is left of a record that cannot be looked into and speaks of the subject.
const ERASED: &[u8] = b"{\"_firn_erased\":true}";

/// Takes a subject out of payloads of one pipeline.
#[derive(Debug)]
pub struct Eraser {
    subject: Subject,
    places: Places,
    /// By number in `places`.
    works: Vec<Work>,
    inspector: Inspector,
}

#[derive(Debug, Clone, Copy)]
enum Work {
    /// Says whose values these are.
    Subject,
    /// Goes when the subject at number `of`, written like that, is the one.
    Value { of: usize, naming: Naming },
}

/// What became of a payload.
#[derive(Debug, PartialEq, Eq)]
pub enum Erased {
    /// Nothing of the subject is in it.
    Untouched,
    /// The payload without the subject's values.
    Changed(Vec<u8>),
    /// Something in it is sealed and may be the subject's. Ask again with what is in it.
    Sealed(Vec<Sealed>),
}

/// Something sealed in a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The id of the key.
    pub key: String,
    /// The ciphertext.
    pub value: String,
    at: Range<usize>,
}

/// What is known of one value.
enum Fate {
    Stays,
    Goes,
    /// Whose it is cannot be said: the record has another shape.
    Unknown,
    /// Nor can what it is.
    Sealed(Sealed),
}

/// Whose a value is.
enum Whose {
    Subjects,
    Others,
    Unknown,
}

impl Eraser {
    /// For these values.
    ///
    /// # Errors
    /// `Bug`, never.
    pub fn new<'a>(subject: Subject, values: impl IntoIterator<Item = &'a Erasable>) -> Result<Self> {
        let (mut places, mut works) = (Places::default(), Vec::new());
        for one in values {
            for (path, of) in &one.places {
                let Some(of) = of else { continue };
                places.want(of, &[], works.len());
                works.push(Work::Subject);
                places.want(path, &one.many, works.len());
                works.push(Work::Value { of: works.len() - 1, naming: one.naming });
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
        match whole(payload) {
            Some(sealed) => Erased::Sealed(vec![sealed]),
            None => self.look(payload, None),
        }
    }

    /// The same with what is in the payload's [`Erased::Sealed`], in its order; `None` for what cannot be opened, which
    /// is taken as it stands there. Never asks again.
    #[must_use]
    pub fn erase_opened(&self, payload: &[u8], opened: &[Option<Plaintext>]) -> Erased {
        match (whole(payload), opened) {
            // The plaintext of everybody else in the record cannot stand there: all of it goes.
            (Some(_), [Some(plain)]) => match self.look(plain.expose(), Some(&[])) {
                Erased::Untouched => Erased::Untouched,
                Erased::Changed(_) | Erased::Sealed(_) => Erased::Changed(ERASED.to_vec()),
            },
            (Some(_), _) => self.look(payload, Some(&[])),
            (None, _) => self.look(payload, Some(opened)),
        }
    }

    fn look(&self, payload: &[u8], opened: Option<&[Option<Plaintext>]>) -> Erased {
        let mut spans = Vec::new();
        if self.inspector.inspect(payload).is_err() || find(payload, &self.places, &mut spans).is_err() {
            return self.erase_mentioned(payload);
        }
        let (mut gone, mut sealed, mut unknown): (Vec<Range<usize>>, Vec<Sealed>, bool) =
            (Vec::new(), Vec::new(), false);
        for span in &spans {
            match self.fate(payload, &spans, span) {
                Fate::Stays => {}
                Fate::Goes => gone.push(span.at.clone()),
                Fate::Unknown => unknown = true,
                Fate::Sealed(one) if sealed.contains(&one) => {}
                Fate::Sealed(one) => sealed.push(one),
            }
        }
        if unknown && let changed @ Erased::Changed(_) = self.erase_mentioned(payload) {
            return changed;
        }
        sealed.retain(|one| !gone.contains(&one.at));
        match opened {
            None if !sealed.is_empty() => return Erased::Sealed(sealed),
            opened => {
                let opened = sealed.iter().zip(opened.unwrap_or_default());
                let hers = |plain: &Option<Plaintext>| {
                    plain.as_ref().is_some_and(|plain| self.subject.is_mentioned(plain.expose()))
                };
                gone.extend(opened.filter(|(_, plain)| hers(plain)).map(|(one, _)| one.at.clone()));
            }
        }
        if gone.is_empty() { Erased::Untouched } else { Erased::Changed(without(payload, gone)) }
    }

    /// Of a record that cannot be followed everything goes, if it mentions the subject.
    fn erase_mentioned(&self, bytes: &[u8]) -> Erased {
        if self.subject.is_mentioned(bytes) { Erased::Changed(ERASED.to_vec()) } else { Erased::Untouched }
    }

    fn fate(&self, payload: &[u8], spans: &[Span], span: &Span) -> Fate {
        let Work::Value { of, naming } = self.works[span.wanted] else { return Fate::Stays };
        let raw = &payload[span.at.clone()];
        if raw == b"null" {
            return Fate::Stays;
        }
        let text = text_of(raw).filter(|_| raw.first() == Some(&b'"'));
        let opaque = text.as_deref().and_then(shapeless);
        let landed = text.as_deref().and_then(Landed::parse);
        let key = landed.and_then(|landed| landed.key).or(opaque.map(|(key, _)| key));
        if key.is_some_and(|key| self.subject.has_key(key)) {
            return Fate::Goes;
        }
        match (self.whose(payload, spans, of, naming), opaque) {
            (Whose::Subjects, _) => Fate::Goes,
            (Whose::Others, _) => Fate::Stays,
            (Whose::Unknown, None) => Fate::Unknown,
            (Whose::Unknown, Some((key, value))) => {
                Fate::Sealed(Sealed { key: key.to_owned(), value: value.to_owned(), at: span.at.clone() })
            }
        }
    }

    fn whose(&self, payload: &[u8], spans: &[Span], of: usize, naming: Naming) -> Whose {
        let mut whose = Whose::Others;
        // Any of duplicate keys may be the one that some reader takes.
        for span in spans.iter().filter(|span| span.wanted == of) {
            let raw = &payload[span.at.clone()];
            if span.odd || matches!(raw.first(), Some(b'{' | b'[')) {
                whose = Whose::Unknown;
                continue;
            }
            let Some(text) = text_of(raw) else { continue };
            let named = match Landed::parse(&text) {
                None => self.subject.is_named(&text, naming),
                Some(landed) => {
                    landed.key.is_some_and(|key| self.subject.has_key(key))
                        || landed.token.is_some_and(|token| self.subject.is_named(token, Naming::Text))
                        || landed.key.is_none() && self.subject.is_named(landed.value, naming)
                }
            };
            if named {
                return Whose::Subjects;
            }
        }
        whose
    }
}

/// What is in a payload that was sealed as a whole, or looks like it.
fn whole(payload: &[u8]) -> Option<Sealed> {
    let landed = payload.strip_prefix(SEALED)?.strip_suffix(b"\"}")?;
    let Landed { value, key: Some(key), .. } = Landed::parse(std::str::from_utf8(landed).ok()?)? else { return None };
    Some(Sealed { key: key.to_owned(), value: value.to_owned(), at: 0..payload.len() })
}

/// The payload with null at these places.
fn without(payload: &[u8], mut gone: Vec<Range<usize>>) -> Vec<u8> {
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
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::domain::{ColumnPath, PathStep, Protect, Protection};
    use crate::crypto::naming::tests::subject;
    use crate::crypto::payload::Protected;
    use crate::crypto::provider::KeyBytes;
    use crate::crypto::{DataKey, Sealer};

    fn eraser(text: &str, naming: Naming, (value, of): (&str, &str)) -> Eraser {
        let steps =
            |path: &str| -> Vec<PathStep> { path.split('.').map(|name| PathStep::Field(name.into())).collect() };
        let protection = Protection {
            path: ColumnPath { column: "mail".to_owned(), inside: Vec::new() },
            how: Protect::Encrypt,
            token: true,
            key: None,
            subject: Some("who".parse().unwrap()),
            aad: None,
            encoding: crate::config::domain::Encoding::Base64,
        };
        let protected = Protected {
            protection,
            column: "d.t.mail".to_owned(),
            places: vec![(steps(value), Some(steps(of)))],
            many: Vec::new(),
            naming,
            value: Naming::Text,
            traced: true,
        };
        Eraser::new(subject(text), &[Erasable::of(&protected).unwrap()]).unwrap()
    }

    fn check(eraser: &Eraser, payload: &str, expected: Option<&str>) {
        let expected = expected.map_or(Erased::Untouched, |text| Erased::Changed(text.as_bytes().to_vec()));
        assert_eq!(eraser.erase(payload.as_bytes()), expected, "{payload}");
        let may = eraser.subject().may_be_in(payload.as_bytes());
        assert!(may || expected == Erased::Untouched, "{payload}");
    }

    #[test]
    fn only_values_of_the_subject_go_however_it_is_written() {
        let token = "ab".repeat(32);
        let sealed = format!(r#"{{"who":8,"mail":"firn:1:e:people/s/ab:QUJD:{token}"}}"#);
        let odd = r#"{"who":8,"mail":"firn:1:s:people/s/ab:QUJD:"}"#;
        let number = eraser("1000", Naming::Number, ("mail", "who"));
        for (payload, expected) in [
            (r#"{"who":1000,"mail":"a@b","n":1}"#, Some(r#"{"who":1000,"mail":null,"n":1}"#)),
            (r#"{"who":1e3,"mail":"a@b"}"#, Some(r#"{"who":1e3,"mail":null}"#)),
            (r#"{"who":"1000.0","mail":"a@b"}"#, Some(r#"{"who":"1000.0","mail":null}"#)),
            (r#"{"who":"\u0031000","mail":"a@b"}"#, Some(r#"{"who":"\u0031000","mail":null}"#)),
            (r#"{"who":"70c3","mail":"a@b","mail":"c"}"#, Some(r#"{"who":"70c3","mail":null,"mail":null}"#)),
            (sealed.as_str(), Some(r#"{"who":8,"mail":null}"#)),
            (odd, Some(r#"{"who":8,"mail":null}"#)),
            (r#"{"who":10000,"mail":"1000"}"#, None),
            (r#"{"who":1000,"mail":null}"#, None),
            (r#"{"who":1000"#, Some(r#"{"_firn_erased":true}"#)),
            (r#"{"who":9"#, None),
            (r#"{"who":10001"#, None),
        ] {
            check(&number, payload, expected);
        }
        assert!(!subject("1000").may_be_in(br#"{"who":999,"mail":"e1@example.com"}"#));
    }

    #[test]
    fn in_text_every_character_counts() {
        let text = eraser("42", Naming::Text, ("mail", "who"));
        for other in ["\"0042\"", "\"42.0\"", "\"4.2e1\"", "42.0", "null", "43"] {
            check(&text, &format!(r#"{{"who":{other},"mail":"a@b"}}"#), None);
        }
        for same in ["\"42\"", "42", "\"\\u00342\""] {
            let expected = format!(r#"{{"who":{same},"mail":null}}"#);
            check(&text, &format!(r#"{{"who":{same},"mail":"a@b"}}"#), Some(&expected));
        }
    }

    #[test]
    fn values_of_another_shape_go_with_their_subject_and_records_that_mention_one_go_as_a_whole() {
        let all = Some(r#"{"_firn_erased":true}"#);
        let apart = eraser("42", Naming::Number, ("user.mail", "who"));
        check(&apart, r#"{"who":42,"user":[{"mail":"a@b"}]}"#, Some(r#"{"who":42,"user":null}"#));
        check(&apart, r#"{"who":42,"user":"a@b"}"#, Some(r#"{"who":42,"user":null}"#));
        check(&apart, r#"{"who":43,"user":"a@b 42"}"#, None);
        check(&apart, r#"{"who":{"id":42},"user":{"mail":"a@b"}}"#, all);
        check(&apart, r#"{"who":{"id":43},"user":{"mail":"a@b"}}"#, None);
        check(&apart, r#"[{"who":42,"user":{"mail":"a@b"}}]"#, all);
        let inside = eraser("42", Naming::Number, ("user.mail", "user.id"));
        check(&inside, r#"{"user":[{"id":42,"mail":"a@b"}]}"#, all);
        check(&inside, r#"{"user":[{"id":43,"mail":"a@b"}]}"#, None);
        check(&inside, r#"{"user":null,"n":42}"#, None);
    }

    #[test]
    fn what_is_sealed_is_asked_for_and_what_only_looks_sealed_is_taken_as_it_is() {
        let key = DataKey::new("people/1", &KeyBytes::new([1; 32])).unwrap();
        let seal = |text: &str| {
            let mut out = Vec::new();
            Sealer::default().seal(&key, b"", text.as_bytes(), &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let eraser = eraser("müller@x", Naming::Text, ("user.mail", "user.id"));
        let asked = |payload: &str, open: bool| {
            assert!(eraser.subject().may_be_in(payload.as_bytes()), "{payload}");
            let Erased::Sealed(sealed) = eraser.erase(payload.as_bytes()) else { panic!("{payload}") };
            let plain = |one: &Sealed| open.then(|| key.open(one.value.as_bytes(), b"").unwrap());
            eraser.erase_opened(payload.as_bytes(), &sealed.iter().map(plain).collect::<Vec<_>>())
        };
        let changed = |text: &str| Erased::Changed(text.as_bytes().to_vec());
        // Valid JSON that was sealed whole is JSON again, escapes and all; its mails mention nobody.
        let whole = |text: &str| format!(r#"{{"_firn_sealed":"firn:1:e:people/1:{}:"}}"#, seal(text));
        let hers = r#"{"user":{"id":"m\u00fcller@x","mail":"a@b"}}"#;
        assert_eq!(asked(&whole(hers), true), changed(r#"{"_firn_erased":true}"#));
        assert_eq!(asked(&whole(&hers[..hers.len() - 1]), true), changed(r#"{"_firn_erased":true}"#), "cut short");
        let other = r#"{"user":{"id":"x","mail":"a@b"},"note":"about müller@x"}"#;
        assert_eq!(asked(&whole(other), true), Erased::Untouched);
        assert_eq!(asked(&whole(hers), false), Erased::Untouched);
        // A value of another shape.
        let odd = |text: &str| format!(r#"{{"n":1,"user":"firn:1:s:people/1:{}:"}}"#, seal(text));
        assert_eq!(asked(&odd(r#"[{"id":"m\u00fcller@x"}]"#), true), changed(r#"{"n":1,"user":null}"#));
        assert_eq!(asked(&odd(r#"[{"id":"x"}]"#), true), Erased::Untouched);
        assert_eq!(asked(&odd(r#"[{"id":"m\u00fcller@x"}]"#), false), Erased::Untouched);
    }
}
