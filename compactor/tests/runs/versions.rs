//! Tables of versions: what lands, and the model of what an upsert makes of it.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::SmallRng;

use super::bed::{Bed, Place};

/// How the table is written; `OPTIONS` stands for the strategy, `PARTITIONS` for its partitioning.
const PIPELINE: &str = "
name: p
ingestionUnit:
  kafka: {cluster: c, topic: t}
  incomingData:
    format: json
    eventName: $.type
    eventTime: {path: $.at, format: rfc3339}
    late: {allowed: 1h, then: accept}
outsourcingUnit:
  - events: [a]
    table:
      database: d
      tableName: t
      mode: upsert
      OPTIONS
      idColumns: [id]
      timestampColumns: [at]
      partitionBy: PARTITIONS
      sortBy: [id]
      columns:
        - {name: id, type: long}
        - {name: at, type: timestamptz, required: true}
        - {name: n, type: int}
";

pub const STRATEGIES: [&str; 3] = [
    "writeStrategy: copyOnWrite",
    "writeStrategy: mergeOnRead",
    "writeStrategy: mergeOnRead\n      deleteFiles: equality",
];

/// The pipeline of such a table.
pub fn pipeline(strategy: &str, partitions: &str) -> String {
    PIPELINE.replace("OPTIONS", strategy).replace("PARTITIONS", partitions)
}

/// What was landed: the newest version of each key, and how many records had none.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// Key to version (minute of the day, then offset, then partition).
    pub newest: BTreeMap<i64, (u32, u64, u32)>,
    /// Every record that has a key: key, version, `n`.
    pub records: Vec<(i64, (u32, u64, u32), i32)>,
    /// Bytes of every record that no column wants.
    pub pad: usize,
    quarantined: usize,
    ends: BTreeMap<u32, u64>,
}

impl Model {
    /// Lands `count` records over few keys and few minutes: many versions, many ties, any order.
    pub async fn land(&mut self, bed: &Bed, rng: &mut SmallRng, partition: u32, count: usize) {
        let mut records = Vec::new();
        for _ in 0..count {
            let offset = self.ends.entry(partition).or_default();
            let (id, minute) = (rng.random_range(0..30i64), rng.random_range(6 * 60..9 * 60u32));
            let time = format!("2021-07-21T{:02}:{:02}:00Z", minute / 60, minute % 60);
            let key = if rng.random_ratio(1, 40) { "null".to_owned() } else { id.to_string() };
            let n = rng.random_range(0..99);
            let pad = "x".repeat(self.pad);
            let payload = format!(r#"{{"type":"a","id":{key},"at":"{time}","n":{n},"pad":"{pad}"}}"#);
            records.push((minute / 60, Some(payload)));
            if key == "null" {
                self.quarantined += 1;
            } else {
                let version = (minute, *offset, partition);
                self.records.push((id, version, n));
                let slot = self.newest.entry(id).or_insert(version);
                *slot = (*slot).max(version);
            }
            *offset += 1;
        }
        bed.land(partition, &records).await;
    }

    pub fn rows(&self) -> Vec<(Place, Option<i64>)> {
        let place = |(id, (_, offset, partition)): (&i64, &(u32, u64, u32))| ((*partition, *offset), Some(*id));
        let mut rows: Vec<_> = self.newest.iter().map(place).collect();
        rows.sort_unstable();
        rows
    }

    pub async fn check(&self, bed: &Bed, what: &str) {
        assert_eq!(bed.rows(false).await, self.rows(), "{what}");
        assert_eq!(bed.rows(true).await.len(), self.quarantined, "{what}");
        bed.prove().await;
    }
}
