//! Inputs of any size: real events repeated, each repetition with later times and new ids, otherwise byte for byte.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use clap::ValueEnum;
use firn_shared::ids::{
    ClusterName, EventHour, Generation, Offset, OffsetRange, Partition, PartitionRef, Topic, TopicRef,
};
use firn_shared::raw::envelope::{LineWriter, Record};
use firn_shared::raw::key::{BatchKey, RawKey};
use firn_shared::raw::manifest::{BatchManifest, MANIFEST_VERSION, RawObject};
use memchr::memmem;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::lines::lines;

/// A kind of sample, and which of its fields move from one repetition to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sample {
    /// GitHub events: `id`, the first key, and the event's own `created_at`.
    Github,
    /// Zeek records: `_write_ts` and `ts`.
    Zeek,
}

/// A value of an event that changes.
enum Moving {
    Id(u64),
    Time(DateTime<Utc>, SecondsFormat),
}

/// An event cut at its moving values.
struct Template<'a> {
    /// What stands before each moving value, in order.
    pieces: Vec<(&'a [u8], Moving)>,
    rest: &'a [u8],
    time: DateTime<Utc>,
}

impl Sample {
    fn template(self, event: &[u8]) -> Result<Template<'_>> {
        let marks = match self {
            Self::Github => vec![
                memmem::find(event, b"\"id\":\"").map(|at| at + 6),
                memmem::rfind(event, b"\"created_at\":\"").map(|at| at + 14),
            ],
            Self::Zeek => vec![
                memmem::find(event, b"\"_write_ts\":\"").map(|at| at + 13),
                memmem::find(event, b"\"ts\":\"").map(|at| at + 6),
            ],
        };
        let (mut pieces, mut from, mut time) = (Vec::new(), 0, None);
        for at in marks {
            let at = at.context("a value that should move is missing")?;
            let length = memchr::memchr(b'"', &event[at..]).context("a string has no end")?;
            let value = std::str::from_utf8(&event[at..at + length])?;
            let moving = if let Ok(id) = value.parse() {
                Moving::Id(id)
            } else {
                let at = DateTime::parse_from_rfc3339(value)?.to_utc();
                time = Some(at);
                Moving::Time(at, if value.contains('.') { SecondsFormat::Micros } else { SecondsFormat::Secs })
            };
            pieces.push((&event[from..at], moving));
            from = at + length;
        }
        Ok(Template { pieces, rest: &event[from..], time: time.context("an event has no time")? })
    }

    /// How far repetitions lie apart, at most.
    fn step(self) -> TimeDelta {
        TimeDelta::seconds(if self == Self::Github { 37 } else { 901 })
    }
}

/// The repetitions of a sample, in order, without an end.
struct Repeater<'a> {
    templates: Vec<Template<'a>>,
    step: TimeDelta,
    shift: TimeDelta,
    ids: u64,
    rng: SmallRng,
}

impl<'a> Repeater<'a> {
    fn new(sample: Sample, events: &'a [u8], seed: u64) -> Result<Self> {
        let template = |(i, event)| sample.template(event).with_context(|| format!("line {}", i + 1));
        let templates = lines(events).enumerate().map(template).collect::<Result<Vec<_>>>()?;
        ensure!(!templates.is_empty(), "the sample has no events");
        let rng = SmallRng::seed_from_u64(seed);
        Ok(Self { templates, step: sample.step(), shift: TimeDelta::zero(), ids: 0, rng })
    }

    /// Calls `each` with the events of one repetition and their times.
    fn next(&mut self, mut each: impl FnMut(&[u8], DateTime<Utc>) -> Result<()>) -> Result<()> {
        let mut event = Vec::new();
        for template in &self.templates {
            event.clear();
            for (piece, moving) in &template.pieces {
                event.extend_from_slice(piece);
                match moving {
                    Moving::Id(id) => write!(event, "{}", id + self.ids)?,
                    Moving::Time(at, form) => write!(event, "{}", (*at + self.shift).to_rfc3339_opts(*form, true))?,
                }
            }
            event.extend_from_slice(template.rest);
            each(&event, template.time + self.shift)?;
        }
        let seconds = self.rng.random_range(1..=self.step.num_seconds());
        self.shift += TimeDelta::seconds(seconds);
        self.ids += 1_000_003 + self.rng.random_range(0..1000);
        Ok(())
    }
}

/// Writes at least `bytes` of newline-delimited JSON and answers how many.
///
/// # Errors
/// A sample without the fields that should move, with the line; a file that cannot be written.
pub fn generate(sample: Sample, events: &[u8], bytes: u64, seed: u64, to: &Path) -> Result<u64> {
    let file = File::create(to).with_context(|| format!("cannot write {}", to.display()))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let mut repeater = Repeater::new(sample, events, seed)?;
    let mut written = 0;
    while written < bytes {
        repeater.next(|event, _| {
            written += event.len() as u64 + 1;
            out.write_all(event)?;
            Ok(out.write_all(b"\n")?)
        })?;
    }
    out.flush()?;
    Ok(written)
}

/// Writes a raw zone of one partition, a batch for about every 64 MB, and answers the payload bytes in it.
///
/// # Errors
/// As [`generate`].
pub fn generate_raw(sample: Sample, events: &[u8], bytes: u64, seed: u64, to: &Path) -> Result<u64> {
    let topic = TopicRef {
        cluster: ClusterName::new("bench")?,
        topic: Topic::new(if sample == Sample::Github { "github" } else { "zeek" })?,
        generation: Generation::default(),
    };
    let partition = PartitionRef { topic, partition: Partition(0) };
    let mut repeater = Repeater::new(sample, events, seed)?;
    let lines = LineWriter::new(&partition.topic.topic, partition.partition);
    let (mut written, mut offset) = (0, 0);
    while written < bytes {
        let mut batch = Batch { partition: partition.clone(), start: offset, hours: BTreeMap::new() };
        let full = (written + (64 << 20)).min(bytes);
        while written < full {
            repeater.next(|event, time| {
                written += event.len() as u64;
                batch.add(&lines, event, time, offset);
                offset += 1;
                Ok(())
            })?;
        }
        batch.write(to, offset)?;
    }
    Ok(written)
}

/// One batch and its objects, by event hour.
pub(super) struct Batch {
    pub partition: PartitionRef,
    pub start: Offset,
    pub hours: BTreeMap<i64, Object>,
}

pub(super) struct Object {
    lines: Vec<u8>,
    records: u64,
    offsets: (Offset, Offset),
    times: (DateTime<Utc>, DateTime<Utc>),
}

impl Batch {
    pub fn add(&mut self, lines: &LineWriter, event: &[u8], time: DateTime<Utc>, offset: Offset) {
        let object = self.hours.entry(EventHour::of(time).epoch_hours()).or_insert_with(|| Object {
            lines: Vec::new(),
            records: 0,
            offsets: (offset, offset),
            times: (time, time),
        });
        let timestamp = Some(time.timestamp_millis());
        let record = Record { offset, timestamp, key: None, headers: std::iter::empty::<(&str, Option<&[u8]>)>() };
        lines.record(&mut object.lines, record, None, Some(event));
        object.records += 1;
        object.offsets.1 = offset;
        object.times = (object.times.0.min(time), object.times.1.max(time));
    }

    pub fn write(self, root: &Path, end: Offset) -> Result<()> {
        let range = OffsetRange::new(self.start, end)?;
        let mut objects = Vec::new();
        for (hour, object) in &self.hours {
            let event_hour = EventHour::from_epoch_hours(*hour);
            let key = RawKey { partition: self.partition.clone(), hour: event_hour, range, id: "bench".to_owned() };
            let key = key.to_string();
            let bytes = zstd::encode_all(object.lines.as_slice(), 3)?;
            put(root, &key, &bytes)?;
            objects.push(RawObject {
                key,
                event_hour: Some(event_hour),
                records: object.records,
                tombstones: 0,
                bytes: bytes.len() as u64,
                raw_bytes: object.lines.len() as u64,
                blake3: blake3::hash(&bytes).to_hex().to_string(),
                min_offset: object.offsets.0,
                max_offset: object.offsets.1,
                min_event_time: Some(object.times.0),
                max_event_time: Some(object.times.1),
                erased: 0,
            });
        }
        let watermark = self.hours.values().map(|o| o.times.1).max();
        let manifest = BatchManifest {
            version: MANIFEST_VERSION,
            topic: self.partition.topic.clone(),
            topic_id: None,
            partition: self.partition.partition,
            range,
            writer: "bench".to_owned(),
            written_at: watermark.unwrap_or_default(),
            objects,
            quarantine: Vec::new(),
            rejects: BTreeMap::new(),
            absent: 0,
            gap: None,
            watermark,
            caught_up_at: watermark,
        };
        manifest.check()?;
        let key = BatchKey { partition: self.partition, start: self.start };
        put(root, &key.to_string(), &serde_json::to_vec(&manifest)?)
    }
}

fn put(root: &Path, key: &str, bytes: &[u8]) -> Result<()> {
    let path = root.join(key);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Options, Stage, Task, columns, convert};

    fn sample(file: &str, count: usize) -> Vec<u8> {
        let path = format!("{}/../tests/fixtures/{file}", env!("CARGO_MANIFEST_DIR"));
        let bytes = zstd::decode_all(File::open(path).unwrap()).unwrap();
        lines(&bytes).take(count).flat_map(|l| [l, b"\n"].concat()).collect()
    }

    fn options(task: Task, threads: usize) -> Options {
        Options {
            columns: columns(task).unwrap(),
            stage: Stage::All,
            threads,
            protect: Vec::new(),
            provenance: true,
            steps: false,
            level: 1,
            batch_bytes: 1 << 16,
            to: None,
        }
    }

    #[test]
    fn one_seed_gives_one_input_and_the_first_repetition_is_the_sample() {
        let dir = tempfile::tempdir().unwrap();
        let events = sample("github-events.ndjson.zst", 20);
        let bytes = 3 * events.len() as u64;
        let write = |name: &str, seed| {
            let path = dir.path().join(name);
            generate(Sample::Github, &events, bytes, seed, &path).unwrap();
            std::fs::read(path).unwrap()
        };
        let first = write("a", 1);
        assert!(first == write("b", 1) && first != write("c", 2));
        assert!(first.starts_with(&events) && first.len() >= bytes as usize);
    }

    #[test]
    fn plain_and_raw_inputs_of_one_seed_convert_to_the_same_rows() {
        let dir = tempfile::tempdir().unwrap();
        for (sample_kind, file, task) in
            [(Sample::Github, "github-events.ndjson.zst", Task::T1), (Sample::Zeek, "zeek-dns.ndjson.zst", Task::T2)]
        {
            let events = sample(file, 50);
            let (plain, raw) = (dir.path().join(file), dir.path().join(format!("{file}.raw")));
            generate(sample_kind, &events, 200_000, 7, &plain).unwrap();
            generate_raw(sample_kind, &events, 200_000, 7, &raw).unwrap();
            let to = |threads| Options { to: Some(dir.path().join("out")), ..options(task, threads) };
            let plain = convert(&plain, &to(2)).unwrap();
            let raw = convert(&raw, &to(1)).unwrap();
            assert_eq!((plain.rows, plain.bytes_in, plain.rejected), (raw.rows, raw.bytes_in, raw.rejected));
            assert!(plain.rejected == 0 && plain.rows >= 50, "{plain:?}");
        }
    }
}
