//! `*.test.yaml`: tests of a pipeline, checked. What the records are and what must come out; nothing is run here.

mod pattern;
mod tree;

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::{DateTime, Utc};

pub(super) use pattern::Mistake;
pub use pattern::Pattern;
pub use tree::Tree;

use crate::ids::Topic;

/// Where something stands in a test file, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column in characters.
    pub column: usize,
}

/// A file of tests.
#[derive(Debug, Clone)]
pub struct TestFile {
    /// The file.
    pub path: PathBuf,
    /// The pipeline under test.
    pub pipeline: PathBuf,
    /// The wall clock of the runs.
    pub now: DateTime<Utc>,
    /// Kafka's timestamp of records that give none, milliseconds.
    pub timestamp: i64,
    /// Files in place of those that look-ups read.
    pub lookups: Vec<LookupFile>,
    /// The cases, in order.
    pub cases: Vec<Case>,
}

/// A file in place of one that look-ups read.
#[derive(Debug, Clone)]
pub struct LookupFile {
    /// Where it is given.
    pub at: Place,
    /// What the pipeline names.
    pub named: String,
    /// The file.
    pub path: PathBuf,
}

/// A case; it starts with empty tables.
#[derive(Debug, Clone)]
pub struct Case {
    /// What it claims.
    pub name: String,
    /// Where it stands.
    pub at: Place,
    /// What each run finds.
    pub runs: Vec<Batch>,
    /// What must come out; `None` until an update writes it.
    pub expect: Option<Expect>,
}

/// What one run finds in the raw zone: the records of the file, then the others.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Records from a file.
    pub file: Option<Sample>,
    /// Records written in place.
    pub events: Vec<Event>,
}

/// A file of records.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Where it is named.
    pub at: Place,
    /// The file.
    pub path: PathBuf,
    /// Whether a line is `{"key": …, "value": …}` and not a payload.
    pub records: bool,
    /// Lines left out at the beginning.
    pub skip: usize,
    /// Lines read at most.
    pub take: usize,
}

/// A Kafka record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The topic; `None` is the pipeline's first.
    pub topic: Option<Topic>,
    /// The partition.
    pub partition: u32,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// Kafka's timestamp, milliseconds.
    pub timestamp: i64,
    /// The payload; `None` is a tombstone.
    pub payload: Option<Vec<u8>>,
}

/// Named values of an expected row or record.
pub type Named = Vec<(String, Pattern)>;

/// An expected row or record, and where it stands.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Where.
    pub at: Place,
    /// Its values; those that are not named may be anything.
    pub values: Named,
}

/// What must come out.
#[derive(Debug, Clone, Default)]
pub struct Expect {
    /// Where it stands.
    pub at: Place,
    /// Records that landing refuses.
    pub rejected: Vec<Expected>,
    /// The run must fail with this.
    pub error: Option<Pattern>,
    /// Whether the tables are named; else there is one.
    pub named: bool,
    /// By table, as it is named.
    pub tables: BTreeMap<String, TableExpect>,
}

/// What must become of one table. What is `None` may be anything.
#[derive(Debug, Clone, Default)]
pub struct TableExpect {
    /// Where it stands.
    pub at: Place,
    /// Its rows.
    pub rows: Option<Vec<Expected>>,
    /// How many rows it has.
    pub row_count: Option<u64>,
    /// Whether the rows stand in the order of the records.
    pub ordered: bool,
    /// Its columns: name, type, whether required; and where the list stands.
    pub schema: Option<(Place, Vec<String>)>,
    /// Records in quarantine; `None` is none unless there is a count.
    pub quarantine: Option<Vec<Expected>>,
    /// How many records are in quarantine.
    pub quarantine_count: Option<u64>,
    /// Records left out, by reason.
    pub filtered: Option<BTreeMap<String, u64>>,
    /// Tombstones.
    pub tombstones: Option<u64>,
    /// Records whose key has a newer version.
    pub superseded: Option<u64>,
    /// Records that deleted their key.
    pub deleted: Option<u64>,
}
