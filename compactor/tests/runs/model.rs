//! What a table of any mode holds after any stream of records: the plainest reading of the documentation.

use std::collections::BTreeMap;

use firn_shared::ids::EventHour;
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

use crate::bed::{Bed, Place, event_hour};

/// How a table is fed and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Rows as JSON, all kept.
    Append,
    /// Change events, all kept.
    Changes,
    /// Rows as JSON, each run in place of the last.
    TruncateLoad,
    /// Rows as JSON, by key and time.
    Upsert(&'static str),
    /// Change events, by key and position.
    Hard(&'static str),
    /// The same, and what is deleted is marked.
    Soft(&'static str),
}

/// The ways to write an upsert.
pub const STRATEGIES: [&str; 3] =
    ["writeStrategy: copyOnWrite", "writeStrategy: mergeOnRead", "writeStrategy: mergeOnRead, deleteFiles: equality"];

/// Every mode and strategy.
pub fn kinds() -> Vec<Kind> {
    let upserts = STRATEGIES.into_iter().flat_map(|how| [Kind::Upsert(how), Kind::Hard(how), Kind::Soft(how)]);
    [Kind::Append, Kind::Changes, Kind::TruncateLoad].into_iter().chain(upserts).collect()
}

/// Partition specs: none, by key, by time, and by a value that changes, so that rows move.
pub const PARTITIONS: [&str; 5] = ["", "'bucket(3, id)'", "hour(at)", "'truncate(20, n)'", "day(at), 'bucket(2, id)'"];

/// From so many on, values of `n` are left out when the filter is on.
const LARGE: i32 = 60;

/// Two tables of the source, and the keys of each.
const TABLES: [(&str, std::ops::Range<i64>); 2] = [("orders", 0..9), ("returns", 100..104)];

/// What happened at the source, or a row.
#[derive(Debug, Clone)]
struct Event {
    /// Of which source table.
    table: usize,
    id: i64,
    n: i32,
    /// Order in the source; for rows the minute of the day.
    position: u64,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Row,
    Delete,
    Truncate,
    Bad,
}

/// An event in Kafka.
#[derive(Debug, Clone, Copy)]
struct Record {
    partition: u32,
    offset: u64,
    event: usize,
}

/// A row as a reader sees it: where it came from, its key if it has one, and whether it is marked as deleted.
pub type Row = (Place, Option<i64>, bool);

/// Everything that happened and landed.
#[derive(Debug, Clone)]
pub struct Model {
    kind: Kind,
    partitions: &'static str,
    /// Whether large values are left out.
    pub filter: bool,
    events: Vec<Event>,
    records: Vec<Record>,
    ends: BTreeMap<u32, u64>,
    /// Records before this one belong to earlier loads.
    load: usize,
}

impl Model {
    /// Nothing yet.
    pub fn new(kind: Kind, partitions: &'static str) -> Self {
        let (events, records, ends) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { kind, partitions, filter: false, events, records, ends, load: 0 }
    }

    fn takes_changes(&self) -> bool {
        matches!(self.kind, Kind::Changes | Kind::Hard(_) | Kind::Soft(_))
    }

    /// The pipeline that feeds the table.
    pub fn pipeline(&self) -> String {
        let format = if self.takes_changes() { "debezium" } else { "json" };
        let mode = match self.kind {
            Kind::Append | Kind::Changes => "mode: append".to_owned(),
            Kind::TruncateLoad => "mode: truncateLoad, allowEmpty: true".to_owned(),
            Kind::Upsert(how) => format!("mode: upsert, {how}, idColumns: [id], timestampColumns: [at]"),
            Kind::Hard(how) => format!("mode: upsert, {how}, idColumns: [id]"),
            Kind::Soft(how) => format!("mode: upsert, {how}, idColumns: [id], softDelete: true"),
        };
        let steps = if self.filter {
            format!("\n    transformations:\n      - filter: {{where: \"n IS NULL OR n < {LARGE}\", name: large}}")
        } else {
            String::new()
        };
        format!(
            "
name: p
ingestionUnit:
  kafka: {{cluster: c, topic: t}}
  incomingData:
    format: {format}
    eventTime: {{path: $.ts_ms, format: epochMillis}}
    late: {{allowed: 1h, then: accept}}
outsourcingUnit:
  - table: {{database: d, tableName: t, {mode}, partitionBy: [{}], columns: [
      {{name: id, type: long, required: true}}, {{name: at, type: timestamptz, format: epochMillis}},
      {{name: n, type: int}}]}}{steps}
",
            self.partitions
        )
    }

    /// The next `count` things that happen.
    pub fn happen(&mut self, rng: &mut SmallRng, count: usize) {
        for _ in 0..count {
            let table = usize::from(rng.random_ratio(1, 4));
            let what = match rng.random_range(0..40) {
                0 => What::Bad,
                1..=2 if self.takes_changes() => What::Truncate,
                3..=9 if self.takes_changes() => What::Delete,
                _ => What::Row,
            };
            // Rows are ordered by a time that repeats, changes by a position that does not.
            let position = if self.takes_changes() { self.events.len() as u64 } else { rng.random_range(0..30) };
            let (id, n) = (rng.random_range(TABLES[table].1.clone()), rng.random_range(0..99));
            self.events.push(Event { table, id, n, position, what });
        }
    }

    /// Lands what happened, some of it later or never, and `count` of what happened before, again or late, in some
    /// partitions and in any order.
    pub async fn land(&mut self, bed: &Bed, rng: &mut SmallRng, count: usize) {
        let fresh = self.records.iter().map(|r| r.event + 1).max().unwrap_or(0);
        let mut chosen: Vec<usize> = (fresh..self.events.len()).filter(|_| !rng.random_ratio(1, 6)).collect();
        let all: Vec<usize> = (0..self.events.len()).collect();
        chosen.extend(all.choose_multiple(rng, count));
        if chosen.is_empty() {
            chosen.push(0);
        }
        self.load = self.records.len();
        for batch in chosen.chunks(rng.random_range(5..25)) {
            let partition = rng.random_range(0..2);
            let mut batch: Vec<usize> = batch.to_vec();
            if rng.random_ratio(1, 3) {
                batch.reverse();
            }
            let mut landing = Vec::new();
            for event in batch {
                let offset = self.ends.entry(partition).or_default();
                self.records.push(Record { partition, offset: *offset, event });
                *offset += 1;
                landing.push((6 + rng.random_range(0..4), Some(self.payload(event))));
            }
            bed.land(partition, &landing).await;
        }
    }

    fn payload(&self, number: usize) -> String {
        let Event { table, id, n, position, what } = &self.events[number];
        let at = event_hour(6).start().timestamp_millis() + *position as i64 * 60_000;
        let n = if *what == What::Bad { "\"many\"".to_owned() } else { n.to_string() };
        if !self.takes_changes() {
            return format!(r#"{{"id":{id},"at":{at},"n":{n},"ts_ms":{at}}}"#);
        }
        let row = format!(r#"{{"id":{id},"at":{at},"n":{n}}}"#);
        let (op, before, after) = match what {
            What::Row | What::Bad => ("u", "null".to_owned(), row),
            What::Delete => ("d", row, "null".to_owned()),
            What::Truncate => ("t", "null".to_owned(), "null".to_owned()),
        };
        let source = format!(
            r#"{{"connector":"mysql","db":"shop","table":"{}","file":"b.000001","pos":{position},"row":0,"ts_ms":{at}}}"#,
            TABLES[*table].0
        );
        format!(r#"{{"before":{before},"after":{after},"source":{source},"op":"{op}","ts_ms":{at}}}"#)
    }

    /// What decides between two records: time or position, then offset, then partition.
    fn version(&self, record: &Record) -> (u64, u64, u32) {
        (self.events[record.event].position, record.offset, record.partition)
    }

    /// Whether the filter leaves a record out; what deletes passes, where deleting is what it does.
    fn left_out(&self, record: &Record) -> bool {
        let event = &self.events[record.event];
        let large = self.filter && event.n >= LARGE && event.what != What::Truncate;
        large && (event.what != What::Delete || self.kind == Kind::Changes)
    }

    /// The rows of the table.
    pub fn rows(&self) -> Vec<Row> {
        let counted = |record: &&Record| self.events[record.event].what != What::Bad && !self.left_out(record);
        let row = |record: &Record, deleted| {
            let event = &self.events[record.event];
            let id = (event.what != What::Truncate).then_some(event.id);
            ((record.partition, record.offset), id, deleted)
        };
        let mut rows: Vec<Row> = match self.kind {
            Kind::Append | Kind::Changes => self.records.iter().filter(counted).map(|r| row(r, false)).collect(),
            Kind::TruncateLoad => self.records[self.load..].iter().filter(counted).map(|r| row(r, false)).collect(),
            Kind::Upsert(_) | Kind::Hard(_) | Kind::Soft(_) => {
                let (mut newest, mut truncated) = (BTreeMap::new(), BTreeMap::new());
                for record in self.records.iter().filter(counted) {
                    let event = &self.events[record.event];
                    if event.what == What::Truncate {
                        let slot = truncated.entry(event.table).or_insert(self.version(record));
                        *slot = self.version(record).max(*slot);
                        continue;
                    }
                    let slot = newest.entry(event.id).or_insert(record);
                    if self.version(record) > self.version(slot) {
                        *slot = record;
                    }
                }
                let gone = |record: &Record| {
                    let event = &self.events[record.event];
                    let over = truncated.get(&event.table).is_some_and(|t| self.version(record) < *t);
                    event.what == What::Delete || over
                };
                let soft = matches!(self.kind, Kind::Soft(_));
                newest.into_values().filter(|r| soft || !gone(r)).map(|r| row(r, gone(r))).collect()
            }
        };
        rows.sort_unstable();
        rows
    }

    /// The rows of the quarantine.
    pub fn quarantined(&self) -> Vec<Place> {
        let bad = self.records.iter().filter(|record| self.events[record.event].what == What::Bad);
        let mut places: Vec<Place> = bad.map(|record| (record.partition, record.offset)).collect();
        places.sort_unstable();
        places
    }

    /// The table and its quarantine hold what they should, and every offset is accounted for.
    pub async fn check(&self, bed: &Bed, what: &str) {
        let found = bed.marked_rows().await;
        assert_eq!(found, self.rows(), "{what}: rows of {:?} partitioned by [{}]", self.kind, self.partitions);
        let quarantined: Vec<Place> = bed.rows(true).await.into_iter().map(|(place, _)| place).collect();
        assert_eq!(quarantined, self.quarantined(), "{what}: quarantine");
        bed.prove().await;
    }

    /// All hours that records are in.
    pub fn all_hours() -> (EventHour, EventHour) {
        (event_hour(6), event_hour(10))
    }
}
