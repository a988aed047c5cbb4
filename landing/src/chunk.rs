//! Records copied out of librdkafka, in the order of their offsets, on their way to the processors.

use std::ops::Range;

use firn_shared::ids::Offset;

use crate::headers::Header;
use crate::memory::Held;

/// One record; its bytes lie in the chunk.
#[derive(Debug)]
struct Entry {
    offset: Offset,
    timestamp: Option<i64>,
    key: Option<Range<usize>>,
    payload: Option<Range<usize>>,
    headers: Range<usize>,
    flaw: Option<Range<usize>>,
}

/// A run of records of one partition.
#[derive(Debug)]
pub struct Chunk {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    headers: Vec<(Range<usize>, Option<Range<usize>>)>,
    held: Held,
}

/// A record of a chunk, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> {
    chunk: &'a Chunk,
    entry: &'a Entry,
}

impl Chunk {
    /// An empty chunk whose bytes count against `held`.
    #[must_use]
    pub fn new(held: Held) -> Self {
        Self { bytes: Vec::new(), entries: Vec::new(), headers: Vec::new(), held }
    }

    /// Copies a record. Headers that cannot be read, or not be written as they are, make it one that is refused; what is
    /// wrong with them says everything that their copy here does not.
    pub fn push<'h>(
        &mut self,
        offset: Offset,
        timestamp: Option<i64>,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
        headers: Result<impl Iterator<Item = Header<'h>>, String>,
    ) {
        let first = self.headers.len();
        let (headers, mut flaw) = match headers {
            Ok(headers) => (Some(headers), None),
            Err(why) => (None, Some(why)),
        };
        for (number, header) in headers.into_iter().flatten().enumerate() {
            if flaw.is_none() {
                flaw = flaw_of(number, &header);
            }
            let name = copy(&mut self.bytes, String::from_utf8_lossy(header.name).as_bytes());
            let value = header.value.map(|value| copy(&mut self.bytes, value));
            self.headers.push((name, value));
        }
        let flaw = flaw.map(|flaw| copy(&mut self.bytes, flaw.as_bytes()));
        let key = key.map(|key| copy(&mut self.bytes, key));
        let payload = payload.map(|payload| copy(&mut self.bytes, payload));
        self.entries.push(Entry { offset, timestamp, key, payload, headers: first..self.headers.len(), flaw });
        self.held.resize(self.capacity());
    }

    fn capacity(&self) -> u64 {
        (self.bytes.capacity()
            + self.entries.capacity() * size_of::<Entry>()
            + self.headers.capacity() * size_of::<(Range<usize>, Option<Range<usize>>)>()) as u64
    }

    /// Bytes of keys, headers and payloads.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it holds no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The records, by offset.
    pub fn records(&self) -> impl Iterator<Item = RecordView<'_>> {
        self.entries.iter().map(|entry| RecordView { chunk: self, entry })
    }
}

/// What keeps a header from being written as it is.
fn flaw_of(number: usize, header: &Header<'_>) -> Option<String> {
    if std::str::from_utf8(header.name).is_err() {
        return Some(format!("the name of header {number} is not UTF-8: {}", header.name.escape_ascii()));
    }
    let cut = || format!("the name of header {number} has a zero in it, after `{}`", header.name.escape_ascii());
    (!header.whole).then(cut)
}

fn copy(bytes: &mut Vec<u8>, from: &[u8]) -> Range<usize> {
    let start = bytes.len();
    bytes.extend_from_slice(from);
    start..bytes.len()
}

impl<'a> RecordView<'a> {
    /// Its offset.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.entry.offset
    }

    /// Kafka's timestamp, milliseconds since the epoch.
    #[must_use]
    pub fn timestamp(&self) -> Option<i64> {
        self.entry.timestamp
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.entry.key.clone().map(|range| &self.chunk.bytes[range])
    }

    /// The payload; `None` is a tombstone.
    #[must_use]
    pub fn payload(&self) -> Option<&'a [u8]> {
        self.entry.payload.clone().map(|range| &self.chunk.bytes[range])
    }

    /// Bytes of its key, and of names and values of its headers.
    #[must_use]
    pub fn bytes_beside(&self) -> u64 {
        let headers = &self.chunk.headers[self.entry.headers.clone()];
        let headers = headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Range::len));
        (headers.sum::<usize>() + self.entry.key.as_ref().map_or(0, Range::len)) as u64
    }

    /// What is wrong with its headers.
    #[must_use]
    pub fn flaw(&self) -> Option<&'a str> {
        let flaw = &self.chunk.bytes[self.entry.flaw.clone()?];
        Some(std::str::from_utf8(flaw).unwrap_or_default())
    }

    /// Header names and values, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + Clone + use<'a> {
        let chunk = self.chunk;
        chunk.headers[self.entry.headers.clone()].iter().map(|(name, value)| {
            let name = std::str::from_utf8(&chunk.bytes[name.clone()]).unwrap_or_default();
            (name, value.clone().map(|range| &chunk.bytes[range]))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    #[test]
    fn a_record_comes_out_as_it_went_in() {
        let memory = Memory::new(1 << 20);
        let mut chunk = Chunk::new(memory.hold());
        let headers = [("a", Some(&b"1"[..])), ("a", None)];
        let named = |(name, value): (&'static str, _)| Header { name: name.as_bytes(), value, whole: true };
        chunk.push(7, Some(5), Some(b"k"), Some(b"{}"), Ok(headers.into_iter().map(named)));
        chunk.push(9, None, None, None, Ok(std::iter::empty()));
        assert!(memory.used() >= chunk.len() as u64);
        let records: Vec<_> = chunk.records().collect();
        assert_eq!((records[0].offset(), records[0].timestamp()), (7, Some(5)));
        assert_eq!((records[0].key(), records[0].payload()), (Some(&b"k"[..]), Some(&b"{}"[..])));
        assert_eq!(records[0].headers().collect::<Vec<_>>(), headers);
        assert_eq!((records[1].key(), records[1].payload(), records[1].headers().count()), (None, None, 0));
        assert_eq!((records[0].bytes_beside(), records[1].bytes_beside()), (4, 0));
        assert_eq!((records[0].flaw(), records[1].flaw()), (None, None));
        drop(chunk);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn headers_that_cannot_be_written_are_told_byte_for_byte() {
        let memory = Memory::new(1 << 20);
        let mut chunk = Chunk::new(memory.hold());
        let header = |name: &'static [u8], whole| Header { name, value: Some(b"v"), whole };
        let cases = [
            (vec![header(b"ok", true), header(b"a\xff", true)], "the name of header 1 is not UTF-8: a\\xff"),
            (vec![header(b"cut", false)], "the name of header 0 has a zero in it, after `cut`"),
        ];
        for (headers, expected) in cases {
            chunk.push(0, None, None, Some(b"{}"), Ok(headers.into_iter()));
            assert_eq!(chunk.records().last().unwrap().flaw(), Some(expected));
        }
        let names: Vec<_> = chunk.records().flat_map(|record| record.headers().map(|(name, _)| name)).collect();
        assert_eq!(names, ["ok", "a\u{fffd}", "cut"]);
        chunk.push(0, None, None, None, Err::<std::iter::Empty<_>, _>("unreadable".to_owned()));
        assert_eq!(chunk.records().last().unwrap().flaw(), Some("unreadable"));
    }
}
