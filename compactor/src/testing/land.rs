//! Records into a raw zone, by landing's own rules; one batch a partition and run.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use firn_shared::config::cases::{Event, Tree};
use firn_shared::config::domain::{Ingestion, TopicSelector};
use firn_shared::crypto::{Guard, Scratch};
use firn_shared::error::{Error, Result};
use firn_shared::ids::{EventHour, Offset, OffsetRange, Partition, PartitionRef, Topic, TopicRef};
use firn_shared::raw::admit::{Admission, Verdict};
use firn_shared::raw::chain::{AppendOutcome, Chain};
use firn_shared::raw::envelope::{LineWriter, Record as RawRecord};
use firn_shared::raw::key::{QuarantineKey, RawKey};
use firn_shared::raw::manifest::{BatchManifest, MANIFEST_VERSION, RawObject, RejectReason};
use firn_shared::store::{PutMode, PutOutcome, Store};
use tokio::task::block_in_place;

use super::bed::Record;

/// What makes names of objects unique: there is one writer.
const WRITER: &str = "test";

/// A raw zone that grows.
pub struct Land<'a> {
    ingestion: &'a Ingestion,
    rules: Rules,
    store: Arc<dyn Store>,
    partitions: BTreeMap<PartitionRef, Tail>,
    /// Records so far.
    events: u64,
    /// Which record has which offset.
    pub numbers: BTreeMap<(PartitionRef, Offset), u64>,
    /// Records that were refused.
    pub refused: Vec<Record>,
}

/// What becomes of a record on its way in.
struct Rules {
    admission: Admission,
    /// What is protected before it is stored; `None` when nothing is.
    guard: Option<Guard>,
}

/// Where a partition ends.
struct Tail {
    chain: Chain,
    next: Offset,
    watermark: Option<DateTime<Utc>>,
}

/// Lines of one object.
#[derive(Default)]
struct Body {
    lines: Vec<u8>,
    offsets: Vec<Offset>,
    tombstones: u64,
}

/// What a batch is made of.
#[derive(Default)]
struct Bodies {
    hours: BTreeMap<EventHour, Body>,
    refused: Body,
    rejects: BTreeMap<RejectReason, u64>,
}

impl<'a> Land<'a> {
    /// An empty raw zone in `store`; what `guard` protects is protected in it.
    ///
    /// # Errors
    /// As [`Admission::of`].
    pub fn new(ingestion: &'a Ingestion, store: Arc<dyn Store>, guard: Option<Guard>) -> Result<Self> {
        Ok(Self {
            ingestion,
            rules: Rules { admission: Admission::of(ingestion)?, guard },
            store,
            partitions: BTreeMap::new(),
            events: 0,
            numbers: BTreeMap::new(),
            refused: Vec::new(),
        })
    }

    /// Lands records.
    ///
    /// # Errors
    /// `Config` for a record of a topic that the pipeline does not read; else those of the store.
    pub async fn land(&mut self, events: Vec<Event>) -> Result<()> {
        let mut parts: BTreeMap<PartitionRef, Vec<(u64, Event)>> = BTreeMap::new();
        for event in events {
            self.events += 1;
            let topic = self.topic(event.topic.as_ref(), self.events)?;
            let Ingestion { cluster, generation, .. } = self.ingestion;
            let generation = generation.of(&topic);
            let topic = TopicRef { cluster: cluster.clone(), topic, generation };
            let partition = PartitionRef { topic, partition: Partition(event.partition) };
            parts.entry(partition).or_default().push((self.events, event));
        }
        for (partition, events) in parts {
            self.batch(partition, events).await?;
        }
        Ok(())
    }

    fn topic(&self, named: Option<&Topic>, number: u64) -> Result<Topic> {
        match (&self.ingestion.topics, named) {
            (TopicSelector::List(topics), None) => {
                topics.first().cloned().ok_or_else(|| Error::bug("a pipeline without topics"))
            }
            (TopicSelector::List(topics), Some(topic)) if topics.contains(topic) => Ok(topic.clone()),
            (TopicSelector::Pattern(pattern), Some(topic)) => {
                let whole = regex::Regex::new(&format!("^(?:{pattern})$"));
                let whole = whole.map_err(|e| Error::bug("a pattern that was checked is broken").with_source(e))?;
                if whole.is_match(topic.as_str()) {
                    return Ok(topic.clone());
                }
                Err(Error::config(format!("event {number}: the pipeline does not read topic `{topic}`")))
            }
            (TopicSelector::List(_), Some(topic)) => {
                Err(Error::config(format!("event {number}: the pipeline does not read topic `{topic}`")))
            }
            (TopicSelector::Pattern(pattern), None) => Err(Error::config(format!(
                "event {number}: the pipeline reads topics by the pattern `{pattern}`; give the event a `topic`"
            ))),
        }
    }

    /// The records of one partition as the next batch of its chain.
    async fn batch(&mut self, partition: PartitionRef, events: Vec<(u64, Event)>) -> Result<()> {
        let store = Arc::clone(&self.store);
        if !self.partitions.contains_key(&partition) {
            let mut chain = Chain::new(Arc::clone(&store), partition.clone());
            chain.end_after(None).await?;
            self.partitions.insert(partition.clone(), Tail { chain, next: 0, watermark: None });
        }
        let Some(tail) = self.partitions.get_mut(&partition) else { return Err(Error::bug("a partition is gone")) };
        let start = tail.next;
        let writer = LineWriter::new(&partition.topic.topic, partition.partition);
        let (mut bodies, mut scratch) = (Bodies::default(), Scratch::default());
        for (number, event) in events {
            self.numbers.insert((partition.clone(), tail.next), number);
            // Keys of data subjects may have to be fetched.
            let take = || bodies.take((&self.rules, &mut scratch), &writer, tail, number, &event);
            self.refused.extend(block_in_place(take)?);
        }
        let range = OffsetRange::new(start, tail.next)?;
        let manifest = bodies.store(&*store, &partition, range, tail.watermark).await?;
        match tail.chain.append(&manifest).await? {
            AppendOutcome::Appended => Ok(()),
            AppendOutcome::Lost(_) => Err(Error::bug("somebody else writes into the raw zone of a test")),
        }
    }
}

impl Bodies {
    /// Takes in the next record of a partition; answers what is refused.
    fn take(
        &mut self,
        (Rules { admission, guard }, scratch): (&Rules, &mut Scratch),
        writer: &LineWriter,
        tail: &mut Tail,
        number: u64,
        event: &Event,
    ) -> Result<Option<Record>> {
        let offset = tail.next;
        tail.next += 1;
        let payload = event.payload.as_deref();
        let headers = event.headers.iter().map(|(name, value)| (name.as_str(), Some(value.as_bytes())));
        let key = match (event.key.as_deref(), guard) {
            (Some(key), Some(guard)) => Some(guard.protect_key(key, scratch)?),
            (key, _) => key.map(Cow::Borrowed),
        };
        let record = RawRecord { offset, timestamp: Some(event.timestamp), key: key.as_deref(), headers };
        match admission.judge(payload, Some(event.timestamp), tail.watermark) {
            Verdict::Admitted { event, time, hour } => {
                let sealed = match (payload, guard) {
                    (Some(payload), Some(guard)) => Some(guard.protect(payload, scratch)?),
                    (payload, _) => payload.map(Cow::Borrowed),
                };
                let body = self.hours.entry(hour).or_default();
                writer.record(&mut body.lines, record, event.as_deref(), sealed.as_deref());
                body.offsets.push(offset);
                body.tombstones += u64::from(payload.is_none());
                // Not bounded by the wall clock, as landing does: a test's records may lie anywhere.
                if payload.is_some() {
                    tail.watermark = tail.watermark.max(Some(time));
                }
                Ok(None)
            }
            Verdict::Refused { reason, detail, .. } => {
                let sealed = match (payload, guard) {
                    (Some(payload), Some(guard)) => Some(guard.protect_unknown(payload, scratch)?),
                    (payload, _) => payload.map(Cow::Borrowed),
                };
                writer.refused(&mut self.refused.lines, record, (reason, &detail), sealed.as_deref());
                self.refused.offsets.push(offset);
                *self.rejects.entry(reason).or_default() += 1;
                let text = |text: &str| Tree::Text(text.to_owned());
                let cells = vec![
                    ("event".to_owned(), Tree::Int(number as i64)),
                    ("reason".to_owned(), text(reason.as_str())),
                    ("detail".to_owned(), text(&detail)),
                ];
                Ok(Some(Record { event: Some(number), cells }))
            }
        }
    }

    /// Writes the objects; the batch that names them.
    async fn store(
        self,
        store: &dyn Store,
        partition: &PartitionRef,
        range: OffsetRange,
        watermark: Option<DateTime<Utc>>,
    ) -> Result<BatchManifest> {
        let id = || WRITER.to_owned();
        let mut objects = Vec::new();
        for (hour, body) in self.hours {
            let key = RawKey { partition: partition.clone(), hour, range, id: id() }.to_string();
            objects.push(body.store(store, key, Some(hour)).await?);
        }
        let mut quarantine = Vec::new();
        if !self.refused.offsets.is_empty() {
            let key = QuarantineKey { partition: partition.clone(), range, id: id() }.to_string();
            quarantine.push(self.refused.store(store, key, None).await?);
        }
        Ok(BatchManifest {
            version: MANIFEST_VERSION,
            topic: partition.topic.clone(),
            topic_id: None,
            partition: partition.partition,
            range,
            writer: id(),
            written_at: DateTime::UNIX_EPOCH,
            objects,
            quarantine,
            rejects: self.rejects,
            absent: 0,
            gap: None,
            watermark,
            caught_up_at: None,
        })
    }
}

impl Body {
    async fn store(self, store: &dyn Store, key: String, hour: Option<EventHour>) -> Result<RawObject> {
        let bytes = zstd::bulk::compress(&self.lines, 1).map_err(|e| Error::bug("zstd").with_source(e))?;
        let (Some(min), Some(max)) = (self.offsets.first(), self.offsets.last()) else {
            return Err(Error::bug("an object without records"));
        };
        let object = RawObject {
            key,
            event_hour: hour,
            records: self.offsets.len() as u64,
            tombstones: self.tombstones,
            bytes: bytes.len() as u64,
            raw_bytes: self.lines.len() as u64,
            blake3: blake3::hash(&bytes).to_hex().to_string(),
            min_offset: *min,
            max_offset: *max,
            min_event_time: None,
            max_event_time: None,
            erased: 0,
        };
        match store.put(&object.key, Bytes::from(bytes), PutMode::Create).await? {
            PutOutcome::Written => Ok(object),
            PutOutcome::AlreadyExists => Err(Error::bug(format!("two objects of a test are called {}", object.key))),
        }
    }
}
