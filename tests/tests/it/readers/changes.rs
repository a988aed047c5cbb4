//! Rows that are deleted at their source: change events into an upsert of every strategy, and into their history.

use std::collections::BTreeMap;

use anyhow::Result;
use firn_e2e::rig::kafka::{Kafka, Record};
use firn_e2e::rig::workspace::Workspace;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::agreement::{read_by_all, same};

const KEYS: i64 = 60;

/// Tables and how each is written.
const TABLES: [(&str, &str); 5] = [
    ("history", "mode: append"),
    ("gone_rewritten", "mode: upsert, idColumns: [id], writeStrategy: copyOnWrite"),
    ("gone_positions", "mode: upsert, idColumns: [id], writeStrategy: mergeOnRead"),
    ("gone_equalities", "mode: upsert, idColumns: [id], writeStrategy: mergeOnRead, deleteFiles: equality"),
    ("marked", "mode: upsert, idColumns: [id], writeStrategy: mergeOnRead, softDelete: true"),
];

/// A database table that changes, and the tables that follow it.
pub struct Source {
    topic: String,
    database: String,
    /// Its rows.
    rows: BTreeMap<i64, i64>,
    /// Every change, as the history keeps it.
    history: Vec<String>,
    /// The last row of every key that ever was, and whether it was deleted.
    known: BTreeMap<i64, (i64, bool)>,
    rng: SmallRng,
}

fn row(id: i64, n: i64) -> Value {
    json!({"id": id, "n": n, "place": {"x": n, "y": [n, null]}})
}

impl Source {
    /// A new source, and a pipeline in the workspace that follows it into all tables.
    pub fn new(name: &str, seed: u64, workspace: &Workspace) -> Result<Self> {
        let (topic, database) = (format!("changes.{name}"), name.replace('-', "_"));
        Kafka::shared().create_topic(&topic, 1, &[])?;
        let columns = "columns: [{name: id, type: long, required: true}, {name: n, type: long}, \
                       {name: place, type: 'struct<x: long, y: list<long>>'}]";
        let mut yaml = format!(
            "name: changes
ingestionUnit:
  kafka: {{cluster: events, topic: {topic}}}
  incomingData:
    format: debezium
    eventTime: {{path: $.ts_ms, format: epochMillis}}
  raw: {{rotate: {{size: 256KiB, age: 1s}}}}
outsourcingUnit:
"
        );
        for (table, mode) in TABLES {
            let table =
                format!("database: {database}, tableName: {table}, partitionBy: ['bucket(4, id)'], {mode}, {columns}");
            yaml.extend(["  - table: {", &table, "}\n"]);
        }
        workspace.pipeline("changes", &yaml)?;
        let (rows, history, known) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        Ok(Self { topic, database, rows, history, known, rng: SmallRng::seed_from_u64(seed) })
    }

    /// Creates, changes and deletes rows; with every delete goes a tombstone.
    pub fn produce(&mut self, count: usize) -> Result<()> {
        let mut records = Vec::new();
        for _ in 0..count {
            let (id, n) = (self.rng.random_range(0..KEYS), self.rng.random_range(-500..500));
            let before = self.rows.get(&id).copied();
            let delete = before.is_some() && self.rng.random_bool(0.4);
            let position = 1000 + self.history.len();
            let (op, after) = match (before, delete) {
                (_, true) => ("d", Value::Null),
                (None, false) => ("c", row(id, n)),
                (Some(_), false) => ("u", row(id, n)),
            };
            let payload = json!({
                "before": before.map(|n| row(id, n)), "after": after, "op": op, "ts_ms": 1_714_521_600_000_i64 + position as i64,
                "source": {"connector": "postgresql", "db": "shop", "table": "things", "lsn": position},
            });
            let key = Some(json!({"id": id}).to_string().into_bytes());
            records.push(Record { key: key.clone(), ..Record::of(payload.to_string()) });
            let kept = if delete { before.unwrap_or_default() } else { n };
            self.history.push(row(id, kept).to_string());
            self.known.insert(id, (kept, delete));
            if delete {
                records.push(Record { key, ..Record::default() });
                self.rows.remove(&id);
            } else {
                self.rows.insert(id, n);
            }
        }
        Kafka::shared().produce(&self.topic, records)
    }

    /// Checks that readers see in every table what it is to hold.
    pub fn check(&self, workspace: &Workspace) -> Result<()> {
        for (table, _) in TABLES {
            let mut expected: Vec<String> = match table {
                "history" => self.history.clone(),
                "marked" => self.known.iter().map(|(id, (n, _))| row(*id, *n).to_string()).collect(),
                _ => self.rows.iter().map(|(id, n)| row(*id, *n).to_string()).collect(),
            };
            expected.sort_unstable();
            let name = format!("{}.{table}", self.database);
            let mut rows = read_by_all(workspace.access(), &name, "sum(n) AS n, max(id) AS id")?;
            rows.sort_unstable();
            same(&format!("readers and the source of {name}"), &rows, &expected)?;
        }
        let marked = self.known.values().filter(|(_, deleted)| *deleted).count();
        let sql = "SELECT count(*) FROM t WHERE _is_deleted";
        let found = workspace.access().number(&format!("{}.marked", self.database), sql)?;
        anyhow::ensure!(marked > 0 && found == marked as i64, "{found} rows are marked as deleted, expected {marked}");
        Ok(())
    }
}
