//! The lines of a raw object: which speak of a subject, and the object without them. Pure, on worker threads.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};

use firn_shared::crypto::erase::{Erased, Eraser, Sealed};
use firn_shared::error::{Error, Result};
use firn_shared::raw::envelope::{Envelope, LineWriter, QuarantineLine, Record};

/// zstd level of rewritten objects.
const LEVEL: i32 = 3;

/// What the lines of an object hold of the subject.
#[derive(Debug, Default)]
pub struct Found {
    /// Lines that change, by number, with what was opened for it; the rest is made when the line is written, because an
    /// object may be the subject's as a whole.
    pub lines: BTreeMap<usize, New>,
    /// Parts in which something is sealed: line, which part, its bytes, and what is sealed.
    pub sealed: Vec<(usize, Part, Vec<u8>, Vec<Sealed>)>,
}

/// A part of a record in which values may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Its key.
    Key,
    /// Its payload.
    Payload,
}

/// What takes the place of a line's parts; `None` where they stay.
#[derive(Debug, Clone, Default)]
pub struct New {
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// Its payload.
    pub payload: Option<Vec<u8>>,
}

impl New {
    /// What is new of a part.
    pub fn put(&mut self, part: Part, bytes: Vec<u8>) {
        match part {
            Part::Key => self.key = Some(bytes),
            Part::Payload => self.payload = Some(bytes),
        }
    }
}

/// An object as it is stored.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Where it is, for messages.
    pub url: &'a str,
    /// Whether it holds refused records.
    pub refused: bool,
}

impl Stored<'_> {
    fn lines(&self) -> Result<impl Iterator<Item = Result<Vec<u8>>> + '_> {
        let broken = |e: std::io::Error| Error::data(format!("{} cannot be read: {e}", self.url)).with_source(e);
        let reader = BufReader::new(zstd::stream::read::Decoder::new(self.bytes).map_err(broken)?);
        Ok(reader.split(b'\n').map(move |line| line.map_err(broken)))
    }

    fn broken(&self, number: usize, why: &dyn std::fmt::Display) -> Error {
        Error::data(format!("{} line {}: {why}", self.url, number + 1))
    }

    fn refused_line(&self, number: usize, line: &[u8]) -> Result<QuarantineLine> {
        serde_json::from_slice(line).map_err(|e| self.broken(number, &e))
    }

    /// Looks through all lines.
    ///
    /// # Errors
    /// `Data`, naming object and line, for what is no line of a raw object.
    pub fn look(&self, eraser: &Eraser) -> Result<Found> {
        let mut found = Found::default();
        for (number, line) in self.lines()?.enumerate() {
            let line = line?;
            // Refused payloads may be base64 in the line.
            if !self.refused && !eraser.subject().may_be_in(&line) {
                continue;
            }
            let (key, payload) = self.parts(number, &line)?;
            for (part, bytes) in [(Part::Key, key), (Part::Payload, payload)] {
                let Some(bytes) = bytes else { continue };
                match eraser.erase(&bytes) {
                    Erased::Changed(_) => drop(found.lines.entry(number).or_default()),
                    Erased::Sealed(sealed) => found.sealed.push((number, part, bytes, sealed)),
                    Erased::Untouched => {}
                }
            }
        }
        Ok(found)
    }

    /// What is new of a line: what was `opened`, and what goes without being opened.
    fn new_of(&self, number: usize, line: &[u8], eraser: &Eraser, opened: &New) -> Result<New> {
        let (key, payload) = self.parts(number, line)?;
        let mut new = opened.clone();
        for (part, bytes) in [(Part::Key, key), (Part::Payload, payload)] {
            if let Some(Erased::Changed(without)) = bytes.map(|bytes| eraser.erase(&bytes)) {
                new.put(part, without);
            }
        }
        Ok(new)
    }

    /// Key and payload of a line, as far as something of a subject may be in them.
    #[allow(clippy::type_complexity, reason = "two parts of a record, either of which may be absent")]
    fn parts(&self, number: usize, line: &[u8]) -> Result<(Option<Vec<u8>>, Option<Vec<u8>>)> {
        // A key that is no JSON object has no places, and landing leaves it as it is.
        let object = |key: &Vec<u8>| key.trim_ascii_start().starts_with(b"{");
        if self.refused {
            let line = self.refused_line(number, line)?;
            return Ok((line.key.map(|key| key.0).filter(object), line.payload.map(|payload| payload.0)));
        }
        let broken = |e| self.broken(number, &e);
        let envelope = Envelope::parse(line).map_err(broken)?;
        let payload = envelope.payload().map_err(broken)?;
        Ok((envelope.key().map_err(broken)?.filter(object), payload.map(std::borrow::Cow::into_owned)))
    }

    /// The object with what is new; and its size before compression.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub fn rewrite(&self, new: &BTreeMap<usize, New>, eraser: &Eraser, writer: &LineWriter) -> Result<(Vec<u8>, u64)> {
        let failed = |e: std::io::Error| Error::bug(format!("{} cannot be compressed", self.url)).with_source(e);
        let mut out = zstd::stream::write::Encoder::new(Vec::new(), LEVEL).map_err(failed)?;
        let (mut raw_bytes, mut text) = (0, Vec::new());
        for (number, line) in self.lines()?.enumerate() {
            let line = line?;
            text.clear();
            match new.get(&number) {
                None => {
                    text.extend_from_slice(&line);
                    text.push(b'\n');
                }
                Some(opened) => {
                    let new = self.new_of(number, &line, eraser, opened)?;
                    self.write(number, &line, &new, (writer, &mut text))?;
                }
            }
            raw_bytes += text.len() as u64;
            out.write_all(&text).map_err(failed)?;
        }
        Ok((out.finish().map_err(failed)?, raw_bytes))
    }

    fn write(&self, number: usize, line: &[u8], new: &New, (writer, text): (&LineWriter, &mut Vec<u8>)) -> Result<()> {
        if self.refused {
            let line = self.refused_line(number, line)?;
            let headers = line.headers.iter().map(|(name, value)| (name.as_str(), value.as_ref().map(|v| &v.0[..])));
            let key = new.key.as_deref().or(line.key.as_ref().map(|key| &key.0[..]));
            let record = Record { offset: line.offset, timestamp: line.timestamp, key, headers };
            let payload = new.payload.as_deref().or(line.payload.as_ref().map(|payload| &payload.0[..]));
            writer.refused(text, record, (line.reason, &line.detail), payload);
            return Ok(());
        }
        let broken = |e| self.broken(number, &e);
        let envelope = Envelope::parse(line).map_err(broken)?;
        let key = envelope.key().map_err(broken)?;
        let headers = envelope.headers().map_err(broken)?;
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
        let (offset, timestamp) = (envelope.offset, envelope.timestamp);
        let record = Record { offset, timestamp, key: new.key.as_deref().or(key.as_deref()), headers };
        let payload = envelope.payload().map_err(broken)?;
        writer.record(text, record, envelope.event.as_deref(), new.payload.as_deref().or(payload.as_deref()));
        Ok(())
    }
}
