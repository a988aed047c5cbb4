//! One open batch of one partition: what it has taken in, and how it becomes a manifest. Pure, apart from compressing.
//!
//! The batch walks forward through the offsets of its partition. Every offset it passes is a record in one event hour's
//! object, a refused record, or absent; [`Batch::seal`] therefore always yields a manifest that conserves.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use firn_shared::error::{Error, Result};
use firn_shared::ids::{EventHour, Offset, OffsetRange, PartitionRef};
use firn_shared::raw::key::{QuarantineKey, RawKey};
use firn_shared::raw::manifest::{BatchManifest, MANIFEST_VERSION, RawObject, RejectReason};

use crate::compress;
use crate::memory::{Held, Memory};
use crate::rotate::Shape;

/// Lines of one object: compressed frames, and a tail that does not fill a frame yet.
#[derive(Debug)]
struct Body {
    tail: Vec<u8>,
    frames: Vec<Bytes>,
    compressed: u64,
    raw_bytes: u64,
    records: u64,
    tombstones: u64,
    min_offset: Offset,
    max_offset: Offset,
    event_time: Option<(DateTime<Utc>, DateTime<Utc>)>,
    held: Held,
}

/// What is known of a record beyond its line.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    /// Its offset.
    pub offset: Offset,
    /// Its event time; `None` when it was refused for the lack of one.
    pub event_time: Option<DateTime<Utc>>,
    /// Kafka's timestamp.
    pub kafka_time: Option<DateTime<Utc>>,
    /// Whether it has no payload.
    pub tombstone: bool,
}

impl Body {
    fn new(offset: Offset, held: Held) -> Self {
        Self {
            tail: Vec::new(),
            frames: Vec::new(),
            compressed: 0,
            raw_bytes: 0,
            records: 0,
            tombstones: 0,
            min_offset: offset,
            max_offset: offset,
            event_time: None,
            held,
        }
    }

    fn add(&mut self, stamp: Stamp, frame: usize, write: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let before = self.tail.len();
        write(&mut self.tail);
        self.raw_bytes += (self.tail.len() - before) as u64;
        self.records += 1;
        self.tombstones += u64::from(stamp.tombstone);
        self.max_offset = stamp.offset;
        if let Some(time) = stamp.event_time {
            let (min, max) = self.event_time.unwrap_or((time, time));
            self.event_time = Some((min.min(time), max.max(time)));
        }
        if self.tail.len() >= frame {
            self.compress()?;
        }
        self.count();
        Ok(())
    }

    fn compress(&mut self) -> Result<()> {
        if !self.tail.is_empty() {
            let frame = compress::frame(&self.tail)?;
            self.compressed += frame.len() as u64;
            self.frames.push(frame);
            self.tail.clear();
        }
        Ok(())
    }

    fn count(&mut self) {
        self.held.resize(self.compressed + self.tail.capacity() as u64);
    }

    fn close(mut self, key: String, hour: Option<EventHour>) -> Result<SealedObject> {
        self.compress()?;
        self.tail = Vec::new();
        self.count();
        let mut hasher = blake3::Hasher::new();
        for frame in &self.frames {
            hasher.update(frame);
        }
        let object = RawObject {
            key,
            event_hour: hour,
            records: self.records,
            tombstones: self.tombstones,
            bytes: self.compressed,
            raw_bytes: self.raw_bytes,
            blake3: hasher.finalize().to_hex().to_string(),
            min_offset: self.min_offset,
            max_offset: self.max_offset,
            min_event_time: self.event_time.map(|(min, _)| min),
            max_event_time: self.event_time.map(|(_, max)| max),
            erased: 0,
        };
        Ok(SealedObject { object, frames: self.frames, held: self.held })
    }
}

/// An object ready to be uploaded.
#[derive(Debug)]
pub struct SealedObject {
    /// What the manifest says of it.
    pub object: RawObject,
    /// Its bytes.
    pub frames: Vec<Bytes>,
    held: Held,
}

impl SealedObject {
    /// Bytes it occupies.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.held.bytes()
    }
}

/// A closed batch: bodies to upload, then the manifest to append.
#[derive(Debug)]
pub struct Sealed {
    /// The link of the chain; its objects are those of `objects`.
    pub manifest: BatchManifest,
    /// Bodies of `manifest.objects`, then of `manifest.quarantine`.
    pub objects: Vec<SealedObject>,
}

/// An open batch.
#[derive(Debug)]
pub struct Batch {
    partition: PartitionRef,
    topic_id: Option<String>,
    writer: String,
    memory: std::sync::Arc<Memory>,
    frame: usize,
    start: Offset,
    next: Offset,
    absent: u64,
    opened_at: Option<DateTime<Utc>>,
    hours: BTreeMap<EventHour, Body>,
    refused: Option<Body>,
    rejects: BTreeMap<RejectReason, u64>,
    watermark: Option<DateTime<Utc>>,
    caught_up_at: Option<DateTime<Utc>>,
}

impl Batch {
    /// An empty batch that begins at `start`, the end of the partition's chain.
    #[must_use]
    pub fn new(
        partition: PartitionRef,
        topic_id: Option<String>,
        writer: String,
        (memory, frame): (std::sync::Arc<Memory>, usize),
        start: Offset,
        watermark: Option<DateTime<Utc>>,
    ) -> Self {
        Self {
            partition,
            topic_id,
            writer,
            memory,
            frame,
            start,
            next: start,
            absent: 0,
            opened_at: None,
            hours: BTreeMap::new(),
            refused: None,
            rejects: BTreeMap::new(),
            watermark,
            caught_up_at: None,
        }
    }

    /// Learns Kafka's id of the topic; manifests that are written from now on have it.
    pub fn know_topic(&mut self, id: String) {
        self.topic_id.get_or_insert(id);
    }

    /// The offset after the last one accounted for.
    #[must_use]
    pub fn next(&self) -> Offset {
        self.next
    }

    /// Whether no offset has been accounted for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.next == self.start
    }

    /// Largest event time seen in the partition, never ahead of the clock or of Kafka's timestamp of its record.
    #[must_use]
    pub fn watermark(&self) -> Option<DateTime<Utc>> {
        self.watermark
    }

    /// The last known time at which everything Kafka held then had been taken in.
    #[must_use]
    pub fn caught_up_at(&self) -> Option<DateTime<Utc>> {
        self.caught_up_at
    }

    /// What the rotation decides on.
    #[must_use]
    pub fn shape(&self) -> Shape {
        let size = |body: &Body| body.compressed + body.tail.len() as u64 / 4;
        let largest_object = self.hours.values().chain(&self.refused).map(size).max().unwrap_or(0);
        Shape { largest_object, opened_at: self.opened_at }
    }

    /// Bytes it occupies.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.hours.values().chain(&self.refused).map(|body| body.held.bytes()).sum()
    }

    /// Takes in a record of `hour`. Its event time moves the watermark, but neither past `now` nor past the time Kafka has
    /// it from: one record from the future must not seal hours that have not been, and in a backlog the future begins
    /// when the record was written and not when it is read.
    ///
    /// # Errors
    /// `Bug` when its offset was passed already.
    pub fn record(
        &mut self,
        stamp: Stamp,
        hour: EventHour,
        now: DateTime<Utc>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<()> {
        self.pass(stamp.offset, now)?;
        let memory = &self.memory;
        let body = self.hours.entry(hour).or_insert_with(|| Body::new(stamp.offset, memory.hold()));
        body.add(stamp, self.frame, write)?;
        // A tombstone's time is Kafka's, which says nothing about the event times around it.
        if let (Some(time), false) = (stamp.event_time, stamp.tombstone) {
            let written = stamp.kafka_time.unwrap_or(now).min(now);
            self.watermark = self.watermark.max(Some(time.min(written)));
        }
        Ok(())
    }

    /// Takes in a refused record.
    ///
    /// # Errors
    /// `Bug` when its offset was passed already.
    pub fn refuse(
        &mut self,
        stamp: Stamp,
        reason: RejectReason,
        now: DateTime<Utc>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<()> {
        self.pass(stamp.offset, now)?;
        let memory = &self.memory;
        let body = self.refused.get_or_insert_with(|| Body::new(stamp.offset, memory.hold()));
        body.add(stamp, self.frame, write)?;
        *self.rejects.entry(reason).or_default() += 1;
        Ok(())
    }

    fn pass(&mut self, offset: Offset, now: DateTime<Utc>) -> Result<()> {
        if offset < self.next {
            return Err(Error::bug(format!(
                "{}: offset {offset} came after {} had been passed",
                self.partition, self.next
            )));
        }
        self.skip_to(offset, now);
        self.next = offset + 1;
        self.opened_at.get_or_insert(now);
        Ok(())
    }

    /// Accounts for offsets below `position` that hold no record: the consumer has passed them.
    pub fn skip_to(&mut self, position: Offset, now: DateTime<Utc>) {
        if position > self.next {
            self.absent += position - self.next;
            self.next = position;
            self.opened_at.get_or_insert(now);
        }
    }

    /// Notes that Kafka's end was `end` at `at`: if the batch has come that far, the partition was caught up then.
    pub fn observe_end(&mut self, end: Offset, at: DateTime<Utc>) {
        if self.next >= end {
            self.caught_up_at = self.caught_up_at.max(Some(at));
        }
    }

    /// Closes the batch and begins the next one in its place; `None` when it is empty.
    ///
    /// # Errors
    /// `Bug` when the batch does not conserve.
    pub fn seal(&mut self, now: DateTime<Utc>) -> Result<Option<Sealed>> {
        let Ok(range) = OffsetRange::new(self.start, self.next) else { return Ok(None) };
        // Unique per batch and writer: nobody else writes these names, so a crash leaves an orphan at worst.
        let id = uuid::Uuid::new_v4().simple().to_string();
        let mut objects = Vec::with_capacity(self.hours.len() + 1);
        for (hour, body) in std::mem::take(&mut self.hours) {
            let key = RawKey { partition: self.partition.clone(), hour, range, id: id.clone() };
            objects.push(body.close(key.to_string(), Some(hour))?);
        }
        let hours = objects.len();
        if let Some(body) = self.refused.take() {
            let key = QuarantineKey { partition: self.partition.clone(), range, id };
            objects.push(body.close(key.to_string(), None)?);
        }
        let manifest = BatchManifest {
            version: MANIFEST_VERSION,
            topic: self.partition.topic.clone(),
            topic_id: self.topic_id.clone(),
            partition: self.partition.partition,
            range,
            writer: self.writer.clone(),
            written_at: now,
            objects: objects[..hours].iter().map(|sealed| sealed.object.clone()).collect(),
            quarantine: objects[hours..].iter().map(|sealed| sealed.object.clone()).collect(),
            rejects: std::mem::take(&mut self.rejects),
            absent: std::mem::take(&mut self.absent),
            gap: None,
            watermark: self.watermark,
            caught_up_at: self.caught_up_at,
        };
        manifest.check()?;
        self.start = self.next;
        self.opened_at = None;
        Ok(Some(Sealed { manifest, objects }))
    }
}

#[cfg(test)]
mod tests;
