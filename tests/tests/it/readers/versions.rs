//! A topic of versions of rows with columns of every type, the tables that follow it in every mode, and what each of
//! them is to hold.

use std::collections::BTreeMap;

use anyhow::Result;
use chrono::DateTime;
use firn_e2e::rig::kafka::{Kafka, Record};
use firn_e2e::rig::workspace::Workspace;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

const PARTITIONS: usize = 3;

/// What a table makes of the versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// Each of them.
    All,
    /// The newest of each key.
    Newest,
    /// Those of the last run.
    Last,
}

/// Tables and how each is written; all take the same events.
pub const TABLES: [(&str, Holds, &str); 5] = [
    ("appended", Holds::All, "mode: append"),
    ("rewritten", Holds::Newest, "writeStrategy: copyOnWrite"),
    ("positions", Holds::Newest, "writeStrategy: mergeOnRead"),
    ("equalities", Holds::Newest, "writeStrategy: mergeOnRead, deleteFiles: equality"),
    ("reloaded", Holds::Last, "mode: truncateLoad"),
];

/// The names of the tables that hold this.
pub fn tables(holds: Holds) -> impl Iterator<Item = &'static str> {
    TABLES.into_iter().filter(move |(_, of, _)| *of == holds).map(|(table, ..)| table)
}

/// Every type that Athena has, nested ones too. `time` is missing: neither Athena nor Spark reads it.
const COLUMNS: &str = "columns: [{name: id, type: long}, {name: moment, type: timestamptz, required: true}, \
    {name: n, type: long}, {name: name, type: string}, {name: small, type: int}, {name: part, type: float}, \
    {name: ratio, type: double}, {name: price, type: 'decimal(12,2)'}, {name: large, type: 'decimal(38,6)'}, \
    {name: flag, type: boolean}, {name: day, type: date}, {name: local, type: timestamp}, {name: uid, type: uuid}, \
    {name: raw, type: binary}, {name: tags, type: 'list<string>'}, {name: attrs, type: 'map<string, long>'}, \
    {name: deep, type: 'struct<a: list<struct<x: int, y: timestamptz>>, b: struct<c: date>>'}, {name: doc, type: json}]";

/// Two files of a partition are worth one, and of the snapshots the newest is enough.
const MAINTENANCE: &str =
    "maintenance: {compact: {minFiles: 2}, manifests: {minCount: 2}, expire: {olderThan: 1s, keepLast: 1}}";

/// 2024-05-01T00Z, seconds.
const START: i64 = 1_714_521_600;

fn pipeline(topic: &str, database: &str) -> String {
    let mut yaml = format!(
        "name: versions
ingestionUnit:
  kafka: {{cluster: events, topic: {topic}}}
  incomingData:
    format: json
    eventTime: {{path: $.moment, format: rfc3339}}
  raw: {{rotate: {{size: 256KiB, age: 1s}}}}
outsourcingUnit:
"
    );
    for (table, holds, mode) in TABLES {
        let upsert = match holds {
            Holds::Newest => "mode: upsert, idColumns: [id], timestampColumns: [moment], sortBy: [id], ",
            Holds::All | Holds::Last => "",
        };
        let table = format!(
            "database: {database}, tableName: {table}, partitionBy: [hour(moment)], {upsert}{mode}, {MAINTENANCE}, {COLUMNS}"
        );
        yaml.extend(["  - table: {", &table, "}\n"]);
    }
    yaml
}

/// One version of a key. Versions compare by time, then offset, then partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub minute: i64,
    offset: u64,
    partition: usize,
    pub n: i64,
}

fn utc(seconds: i64, micros: u32) -> DateTime<chrono::Utc> {
    DateTime::from_timestamp(seconds, micros * 1000).unwrap()
}

impl Version {
    /// Columns by name: the value as a producer writes it, and as the canonical text of readers has it.
    fn columns(&self, id: i64) -> Vec<(&'static str, Value, Value)> {
        let seed = self.offset as i64 * 7 + self.partition as i64;
        let same = |name, value: Value| (name, value.clone(), value);
        let moment = START + self.minute * 60;
        let at = utc(moment, seed as u32 % 1_000_000);
        let floating = |by: f64| (seed as f64 - 700.0) / by;
        let day = format!("2024-02-{:02}", 1 + seed % 29);
        // Every fifth row has nulls where it may.
        let some = |value: Value| if seed % 5 == 0 { Value::Null } else { value };
        let deep = |time: &str| {
            let items = (0..seed % 3).map(|x| json!({"x": x, "y": time})).collect::<Vec<_>>();
            some(json!({"a": items, "b": {"c": day}}))
        };
        let (base64, hex) = [("AAEC", "000102"), ("/w==", "ff"), ("", "")][seed as usize % 3];
        let tags = &[format!("t{seed}"), "ü".to_owned()][..seed as usize % 3];
        let doc = json!({"k": [seed, "ü"], "z": null});
        let large = format!("-{}1234567890123456789.000001", seed + 1);
        vec![
            same("id", json!(id)),
            (
                "moment",
                json!(utc(moment, 0).format("%FT%TZ").to_string()),
                json!(utc(moment, 0).format("%FT%T.000000Z").to_string()),
            ),
            same("n", json!(self.n)),
            same("name", json!(self.name())),
            same("small", some(json!(seed * 1000 - 7))),
            ("part", json!(floating(8.0)), json!(format!("{:?}", floating(8.0)))),
            ("ratio", some(json!(floating(4.0))), some(json!(format!("{:?}", floating(4.0))))),
            ("price", json!(seed as f64 + 0.25), json!(format!("{seed}.25"))),
            same("large", some(json!(large))),
            same("flag", some(json!(seed % 2 == 0))),
            same("day", json!(day)),
            same("local", some(json!(at.format("%FT%T%.6f").to_string()))),
            same("uid", json!(format!("6f1b9c1e-0000-4000-8000-{seed:012}"))),
            ("raw", json!(base64), json!(hex)),
            same("tags", json!(tags)),
            same("attrs", some(json!({"even": seed * 2, "odd": null}))),
            ("deep", deep(&at.format("%FT%T%.6fZ").to_string()), deep(&at.format("%FT%T%.6fZ").to_string())),
            ("doc", doc.clone(), json!(doc.to_string())),
        ]
    }

    fn name(&self) -> String {
        format!("{}-{}", self.partition, self.offset)
    }

    fn payload(&self, id: i64) -> String {
        let fields = self.columns(id).into_iter().map(|(name, value, _)| (name.to_owned(), value));
        Value::Object(fields.collect::<Map<_, _>>()).to_string()
    }

    /// The row as every reader is to give it, without the columns that Firn adds.
    fn text(&self, id: i64) -> String {
        let columns: BTreeMap<_, _> = self.columns(id).into_iter().map(|(name, _, value)| (name, value)).collect();
        json!(columns).to_string()
    }
}

/// Everything that was produced, and what tables are to make of it.
#[derive(Default)]
pub struct Model {
    ends: [u64; PARTITIONS],
    all: Vec<(i64, Version)>,
    /// What an upsert holds.
    pub newest: BTreeMap<i64, Version>,
    /// How many of the records belong to the last run.
    last: usize,
    /// Rows that somebody else deleted from the upserts.
    pub deleted: u64,
}

impl Model {
    /// The next `count` records: few keys and minutes, so many versions and many ties, in any order over the partitions.
    fn next(&mut self, count: usize, minutes: std::ops::Range<i64>, rng: &mut SmallRng) -> Vec<Record> {
        self.last = count;
        let mut records = Vec::new();
        for _ in 0..count {
            let partition = rng.random_range(0..PARTITIONS);
            let offset = self.ends[partition];
            let (minute, n) = (rng.random_range(minutes.clone()), rng.random_range(-999..999));
            let (id, version) = (rng.random_range(0..120), Version { minute, offset, partition, n });
            self.ends[partition] += 1;
            self.all.push((id, version));
            let newest = self.newest.entry(id).or_insert(version);
            *newest = version.max(*newest);
            records.push(Record::of(version.payload(id)).on(partition as i32));
        }
        records
    }

    /// How many records there are.
    pub fn records(&self) -> u64 {
        self.all.len() as u64
    }

    fn versions(&self, holds: Holds) -> Vec<(i64, Version)> {
        match holds {
            Holds::All => self.all.clone(),
            Holds::Newest => self.newest.iter().map(|(id, version)| (*id, *version)).collect(),
            Holds::Last => self.all[self.all.len() - self.last..].to_vec(),
        }
    }

    /// How many rows a table has.
    pub fn count(&self, holds: Holds) -> u64 {
        self.versions(holds).len() as u64
    }

    /// The rows of a table, sorted, as readers give them.
    pub fn rows(&self, holds: Holds) -> Vec<String> {
        let mut rows: Vec<String> = self.versions(holds).iter().map(|(id, version)| version.text(*id)).collect();
        rows.sort_unstable();
        rows
    }
}

/// A topic of versions, and tables that follow it.
pub struct Versions {
    topic: String,
    /// Its own: tests share servers, and with them catalogs.
    pub database: String,
    pub workspace: Workspace,
    pub model: Model,
    rng: SmallRng,
}

impl Versions {
    pub fn new(name: &str, seed: u64, workspace: Workspace) -> Result<Self> {
        let topic = format!("versions.{name}");
        Kafka::shared().create_topic(&topic, PARTITIONS as i32, &[])?;
        let database = name.replace('-', "_");
        workspace.pipeline("versions", &pipeline(&topic, &database))?;
        Ok(Self { topic, database, workspace, model: Model::default(), rng: SmallRng::seed_from_u64(seed) })
    }

    /// Produces, lands and compacts; in each round most records are newer than the table and some are late.
    pub fn advance(&mut self, round: i64, count: usize) -> Result<()> {
        let records = self.model.next(count, round * 50..round * 50 + 150, &mut self.rng);
        Kafka::shared().produce(&self.topic, records)?;
        self.workspace.land()?;
        self.workspace.compact()?;
        Ok(())
    }

    /// The table with its database.
    pub fn name(&self, table: &str) -> String {
        format!("{}.{table}", self.database)
    }

    /// Runs statements with Spark; `{d}` stands for catalog and database, `'t.` for a table's name in a call.
    pub fn spark(&self, statements: &[String]) {
        let there = format!("{{c}}.{}.", self.database);
        let of = |text: &String| text.replace("{d}.", &there).replace("'t.", &format!("'{}.", self.database));
        let statements: Vec<String> = statements.iter().map(of).collect();
        let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
        self.workspace.access().spark(&statements).unwrap();
    }

    /// Converts an hour range of every table that keeps its hours again, twice; nothing may change.
    pub fn reprocess(&self) {
        for table in tables(Holds::All).chain(tables(Holds::Newest)) {
            for _ in 0..2 {
                let range = ["reprocess", "--table", table, "--from", "2024-05-01T01", "--to", "2024-05-01T03"];
                self.workspace.compactor(&range).unwrap().expect(&[0]).unwrap();
            }
        }
    }
}
