//! Writing lines.

use super::text::{push_bytes, push_i64, push_string, push_u64};
use crate::ids::{Offset, Partition, Topic};
use crate::raw::manifest::RejectReason;

/// Bytes of a line beside the record's own: names of fields, the topic, numbers.
const FRAME: u64 = 1 << 20;
/// Bytes of the position of a line feed, with its comma.
const LINE_FEED: u64 = 11;
/// Bytes that one byte of a key or a header becomes, as `\u0000`.
const ESCAPED: u64 = 6;

/// How long a line may be that readers take, where records have up to this many bytes.
#[must_use]
pub fn line_bytes_max(record_bytes_max: u64) -> u64 {
    record_bytes_max.saturating_mul(ESCAPED).saturating_add(FRAME)
}

/// No less than the bytes of a record's line, of which `beside` are those of its key and its headers. The event's name, a
/// part of the payload, stands in it twice.
#[must_use]
pub fn line_bytes(payload: &[u8], beside: u64) -> u64 {
    let line_feeds = memchr::memchr_iter(b'\n', payload).count() as u64;
    FRAME + payload.len() as u64 * 2 + line_feeds * LINE_FEED + beside * ESCAPED
}

/// A Kafka record on its way into a line; everything borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a, H> {
    /// Its offset.
    pub offset: Offset,
    /// Kafka's timestamp, milliseconds since the epoch.
    pub timestamp: Option<i64>,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// Header names and values, in order (any iterator that can be cloned).
    pub headers: H,
}

/// Appends the lines of one partition.
#[derive(Debug, Clone)]
pub struct LineWriter {
    /// `{"topic":"…","partition":…,"offset":`
    start: Vec<u8>,
}

impl LineWriter {
    /// A writer of lines of this partition.
    #[must_use]
    pub fn new(topic: &Topic, partition: Partition) -> Self {
        let mut start = b"{\"topic\":".to_vec();
        push_string(&mut start, topic.as_str());
        start.extend_from_slice(b",\"partition\":");
        push_u64(&mut start, u64::from(partition.0));
        start.extend_from_slice(b",\"offset\":");
        Self { start }
    }

    /// Appends a record and a line feed. `payload` must be one JSON value in UTF-8, or `None` for a tombstone.
    pub fn record<'a, H>(&self, line: &mut Vec<u8>, record: Record<'a, H>, event: Option<&str>, payload: Option<&[u8]>)
    where
        H: IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
    {
        line.reserve(self.start.len() + 160 + payload.map_or(4, <[u8]>::len));
        self.position(line, record.offset, record.timestamp);
        key_and_headers(line, record.key, record.headers);
        line.extend_from_slice(b",\"event\":");
        match event {
            Some(name) => push_string(line, name),
            None => line.extend_from_slice(b"null"),
        }
        match payload {
            None => line.extend_from_slice(b",\"tombstone\":true,\"value\":null"),
            Some(payload) => push_value(line, payload),
        }
        line.extend_from_slice(b"}\n");
    }

    /// Appends a refused record, whose payload may be anything, and a line feed.
    pub fn refused<'a, H>(
        &self,
        line: &mut Vec<u8>,
        record: Record<'a, H>,
        (reason, detail): (RejectReason, &str),
        payload: Option<&[u8]>,
    ) where
        H: IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
    {
        self.position(line, record.offset, record.timestamp);
        line.extend_from_slice(b",\"reason\":");
        push_string(line, reason.as_str());
        line.extend_from_slice(b",\"detail\":");
        push_string(line, detail);
        key_and_headers(line, record.key, record.headers);
        line.extend_from_slice(b",\"payload\":");
        push_bytes(line, payload);
        line.extend_from_slice(b"}\n");
    }

    fn position(&self, line: &mut Vec<u8>, offset: Offset, timestamp: Option<i64>) {
        line.extend_from_slice(&self.start);
        push_u64(line, offset);
        line.extend_from_slice(b",\"timestamp\":");
        push_i64(line, timestamp);
    }
}

fn key_and_headers<'a>(
    line: &mut Vec<u8>,
    key: Option<&[u8]>,
    headers: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
) {
    line.extend_from_slice(b",\"key\":");
    push_bytes(line, key);
    line.extend_from_slice(b",\"headers\":[");
    for (i, (name, value)) in headers.into_iter().enumerate() {
        line.extend_from_slice(if i == 0 { b"[" } else { b",[" });
        push_string(line, name);
        line.push(b',');
        push_bytes(line, value);
        line.push(b']');
    }
    line.push(b']');
}

/// Appends `,"value":…`, with blanks in place of line feeds and their positions before it.
fn push_value(line: &mut Vec<u8>, payload: &[u8]) {
    const VALUE: &[u8] = b",\"value\":";
    let mut line_feeds = memchr::memchr_iter(b'\n', payload);
    let Some(first) = line_feeds.next() else {
        line.extend_from_slice(VALUE);
        return line.extend_from_slice(payload);
    };
    line.extend_from_slice(b",\"lf\":[");
    push_u64(line, first as u64);
    for position in line_feeds {
        line.push(b',');
        push_u64(line, position as u64);
    }
    line.push(b']');
    line.extend_from_slice(VALUE);
    let at = line.len();
    line.extend_from_slice(payload);
    for byte in &mut line[at..] {
        if *byte == b'\n' {
            *byte = b' ';
        }
    }
}
