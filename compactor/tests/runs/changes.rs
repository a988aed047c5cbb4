//! Change events against a model: inserts, updates, deletes, each delivered at least once and in any order between runs.

use std::collections::BTreeMap;
use std::path::Path;

use firn_shared::store::{Fault, Faults};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::bed::{Bed, FIRN, Place};

/// Debezium's events into one table, which `TABLE` stands for.
const PIPELINE: &str = "
name: p
ingestionUnit:
  kafka: {cluster: c, topic: t}
  incomingData:
    format: debezium
    eventTime: {path: $.ts_ms, format: epochMillis}
    late: {allowed: 1h, then: accept}
outsourcingUnit:
  - table: {database: d, tableName: t, TABLE, columns: [
      {name: id, type: long, required: true}, {name: n, type: int, required: true}]}
";

/// A pipeline of change events into a table with these options.
pub fn pipeline(options: &str) -> String {
    PIPELINE.replace("TABLE", options)
}

/// An upsert by `id` with these options, in four partitions.
fn upsert(options: &str) -> String {
    pipeline(&format!("mode: upsert, idColumns: [id], partitionBy: ['bucket(4, id)'], {options}"))
}

const OPTIONS: [&str; 3] =
    ["writeStrategy: copyOnWrite", "writeStrategy: mergeOnRead", "writeStrategy: mergeOnRead, deleteFiles: equality"];

/// A change as the source made it.
#[derive(Debug, Clone)]
struct Change {
    id: i64,
    position: u64,
    payload: String,
    deletes: bool,
}

/// The source, and what of it was delivered.
#[derive(Debug, Default)]
struct Source {
    changes: Vec<Change>,
    /// Which rows exist at the source, and their `n`.
    rows: BTreeMap<i64, i32>,
    ends: BTreeMap<u32, u64>,
    /// Newest delivered version of each key: position, offset, partition; and whether it deletes.
    newest: BTreeMap<i64, ((u64, u64, u32), bool)>,
}

impl Source {
    /// Makes changes that are possible: a row is updated or deleted only while it is there.
    fn change(&mut self, rng: &mut SmallRng, count: usize) {
        for _ in 0..count {
            let (id, n) = (rng.random_range(0..15i64), rng.random_range(0..99));
            let position = 100 + self.changes.len() as u64;
            let row = |n: i32| format!(r#"{{"id":{id},"n":{n}}}"#);
            let before = self.rows.get(&id).map_or("null".to_owned(), |n| row(*n));
            let deletes = self.rows.contains_key(&id) && rng.random_ratio(1, 3);
            let (op, after) = match (self.rows.contains_key(&id), deletes) {
                (false, _) => ("c", row(n)),
                (true, false) => ("u", row(n)),
                (true, true) => ("d", "null".to_owned()),
            };
            if deletes {
                self.rows.remove(&id);
            } else {
                self.rows.insert(id, n);
            }
            let source = format!(r#"{{"connector":"mysql","file":"binlog.000001","pos":{position},"row":0}}"#);
            let ts = 1_626_847_200_000 + position;
            let payload =
                format!(r#"{{"before":{before},"after":{after},"source":{source},"op":"{op}","ts_ms":{ts}}}"#);
            self.changes.push(Change { id, position, payload, deletes });
        }
    }

    /// Delivers changes `range`, and again up to five of those before them, to some partition.
    async fn deliver(&mut self, bed: &Bed, rng: &mut SmallRng, range: std::ops::Range<usize>) {
        let partition = rng.random_range(0..2);
        let again = range.start.saturating_sub(rng.random_range(0..6));
        let mut records = Vec::new();
        for change in &self.changes[again..range.end] {
            let offset = self.ends.entry(partition).or_default();
            let version = (change.position, *offset, partition);
            *offset += 1;
            records.push((6, Some(change.payload.clone())));
            let slot = self.newest.entry(change.id).or_insert((version, change.deletes));
            if version > slot.0 {
                *slot = (version, change.deletes);
            }
        }
        bed.land(partition, &records).await;
    }

    fn delivered(&self) -> Vec<(Place, Option<i64>)> {
        let live = self.newest.iter().filter(|(_, (_, deletes))| !deletes);
        let mut rows: Vec<_> =
            live.map(|(id, ((_, offset, partition), _))| ((*partition, *offset), Some(*id))).collect();
        rows.sort_unstable();
        rows
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_is_what_the_source_is_whatever_comes_twice_or_late() {
    for (n, options) in OPTIONS.into_iter().enumerate() {
        let mut rng = SmallRng::seed_from_u64(n as u64);
        let bed = Bed::with(&upsert(options));
        let mut source = Source::default();
        source.change(&mut rng, 240);
        let mut chunks: Vec<_> = (0..8).map(|n| n * 30..(n + 1) * 30).collect();
        // A chunk in four comes after the one that follows it: older versions, also of rows that are deleted by then.
        chunks.swap(1, 2);
        chunks.swap(5, 6);
        for (round, chunk) in chunks.into_iter().enumerate() {
            source.deliver(&bed, &mut rng, chunk).await;
            if round % 3 == 1 {
                let _ = bed.run(&Faults::at_write(rng.random_range(1..20), Fault::CrashAfter)).await;
            }
            bed.run_to_the_end().await;
            assert_eq!(bed.rows(false).await, source.delivered(), "{options} round {round}");
            bed.prove().await;
        }
        let ids: Vec<i64> = source.rows.keys().copied().collect();
        let mut found: Vec<i64> = bed.rows(false).await.into_iter().filter_map(|(_, id)| id).collect();
        found.sort_unstable();
        assert_eq!(found, ids, "{options}: the table is the source");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reprocess_repeats_deletes_too() {
    let mut rng = SmallRng::seed_from_u64(40);
    let bed = Bed::with(&upsert(OPTIONS[1]));
    let mut source = Source::default();
    source.change(&mut rng, 90);
    for chunk in [0..30, 30..60, 60..90] {
        source.deliver(&bed, &mut rng, chunk).await;
        bed.run_to_the_end().await;
    }
    for _ in 0..2 {
        bed.reprocess(&Faults::none(), "2021-07-21T06", "2021-07-21T07").await.unwrap();
        assert_eq!(bed.rows(false).await, source.delivered());
        bed.prove().await;
    }
}

/// A change of row 1 at a position in the source.
fn one(op: &str, position: u64) -> (u32, Option<String>) {
    let (row, none) = (r#"{"id":1,"n":5}"#, "null");
    let (before, after) = if op == "d" { (row, none) } else { (none, row) };
    let source = format!(r#"{{"connector":"mysql","file":"binlog.000001","pos":{position},"row":0}}"#);
    let payload =
        format!(r#"{{"before":{before},"after":{after},"source":{source},"op":"{op}","ts_ms":1626847200000}}"#);
    (6, Some(payload))
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

/// Older versions of a deleted row come late, from either partition; it stays away.
async fn row_one_stays_away(bed: &Bed, partition: u32) {
    bed.land(partition, &[one("u", 101)]).await;
    bed.run_to_the_end().await;
    assert_eq!(bed.rows(false).await, []);
    bed.prove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletes_are_remembered_where_the_deployment_says_and_found_when_that_changes() {
    let elsewhere = FIRN.replace("threads: 2", "threads: 2, deleteMemoryLocation: DIR/memory");
    let pipeline = upsert(OPTIONS[1]);
    let mut bed = Bed::on(&elsewhere, &pipeline);
    let (memory, beside) = (bed.dir.path().join("memory"), bed.dir.path().join("lake/d/t_deletes"));
    bed.land(0, &[one("c", 100), one("d", 102)]).await;
    bed.run_to_the_end().await;
    let uuid = bed.table().await.unwrap().metadata().uuid();
    let own = memory.join(format!("d.t-{uuid}"));
    assert_eq!((names(&own).len(), beside.exists()), (1, false));
    row_one_stays_away(&bed, 1).await;

    // What nothing names is an orphan there, too; what lies beside belongs to a table of the same name.
    let (named, other) = (names(&own), memory.join("d.t-0193f1f2-7d3c-7aaa-8000-000000000000"));
    std::fs::create_dir(&other).unwrap();
    let left = format!("{}-0.parquet", firn_shared::ids::RunId::new());
    for left in [own.join(&left), other.join("named.parquet")] {
        std::fs::write(left, "x").unwrap();
    }
    let report = bed.maintain(&Faults::none(), &bed.subject()).await.unwrap();
    assert!(report.orphans.unwrap().examples.iter().any(|url| url.ends_with(&left)));
    assert_eq!((names(&own), names(&other)), (named.clone(), vec!["named.parquet".to_owned()]));
    row_one_stays_away(&bed, 1).await;

    // Deletes go beside the table from now on; those that lie elsewhere count on.
    std::fs::write(bed.dir.path().join("firn.yaml"), FIRN.replace("DIR", bed.dir.path().to_str().unwrap())).unwrap();
    bed.reconfigure(&pipeline);
    row_one_stays_away(&bed, 0).await;
    assert_eq!((names(&own), beside.exists()), (named, false));
    bed.reprocess(&Faults::none(), "2021-07-21T06", "2021-07-21T07").await.unwrap();
    assert_eq!(names(&beside).len(), 1);
    row_one_stays_away(&bed, 1).await;
    bed.maintain(&Faults::none(), &bed.subject()).await.unwrap();
    assert_eq!((names(&own).len(), names(&beside).len()), (0, 1), "what only old snapshots named is gone");
    row_one_stays_away(&bed, 0).await;
}
