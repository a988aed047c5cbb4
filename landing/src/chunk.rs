//! Records copied out of librdkafka, in the order of their offsets, on their way to the processors.

use std::ops::Range;

use firn_shared::ids::Offset;

use crate::memory::Held;

/// One record; its bytes lie in the chunk.
#[derive(Debug)]
struct Entry {
    offset: Offset,
    timestamp: Option<i64>,
    key: Option<Range<usize>>,
    payload: Option<Range<usize>>,
    headers: Range<usize>,
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

    /// Copies a record.
    pub fn push<'h>(
        &mut self,
        offset: Offset,
        timestamp: Option<i64>,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
        headers: impl Iterator<Item = (&'h str, Option<&'h [u8]>)>,
    ) {
        let first = self.headers.len();
        for (name, value) in headers {
            let name = copy(&mut self.bytes, name.as_bytes());
            let value = value.map(|value| copy(&mut self.bytes, value));
            self.headers.push((name, value));
        }
        let key = key.map(|key| copy(&mut self.bytes, key));
        let payload = payload.map(|payload| copy(&mut self.bytes, payload));
        self.entries.push(Entry { offset, timestamp, key, payload, headers: first..self.headers.len() });
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
        chunk.push(7, Some(5), Some(b"k"), Some(b"{}"), headers.into_iter());
        chunk.push(9, None, None, None, std::iter::empty());
        assert!(memory.used() >= chunk.len() as u64);
        let records: Vec<_> = chunk.records().collect();
        assert_eq!((records[0].offset(), records[0].timestamp()), (7, Some(5)));
        assert_eq!((records[0].key(), records[0].payload()), (Some(&b"k"[..]), Some(&b"{}"[..])));
        assert_eq!(records[0].headers().collect::<Vec<_>>(), headers);
        assert_eq!((records[1].key(), records[1].payload(), records[1].headers().count()), (None, None, 0));
        drop(chunk);
        assert_eq!(memory.used(), 0);
    }
}
