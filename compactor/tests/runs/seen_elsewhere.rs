//! What went wrong in other programs that write changing tables, each as a test of ours, named after it.

use std::collections::BTreeSet;

use firn_shared::store::{Fault, Faults};

use crate::bed::Bed;
use crate::model::{PARTITIONS, STRATEGIES};

/// An upsert from change events; `at`, which partitions the table, is no part of the key.
fn bed(strategy: &str, partitions: &str) -> Bed {
    Bed::with(&format!(
        "
name: p
ingestionUnit:
  kafka: {{cluster: c, topic: t}}
  incomingData:
    format: debezium
    eventTime: {{path: $.ts_ms, format: epochMillis}}
    late: {{allowed: 1h, then: accept}}
outsourcingUnit:
  - table: {{database: d, tableName: t, mode: upsert, {strategy}, idColumns: [id], partitionBy: [{partitions}], columns: [
      {{name: id, type: long, required: true}}, {{name: at, type: timestamptz, format: epochMillis}},
      {{name: n, type: int}}, {{name: flag, type: boolean}}, {{name: amount, type: 'decimal(9,2)'}}]}}
"
    ))
}

/// The row `id` as of `position`, as an update; `fields` are added to it.
fn update(id: i64, position: u64, fields: &str) -> (u32, Option<String>) {
    let at = 1_626_847_200_000 + position * 3_600_000;
    let source = format!(r#"{{"db":"shop","table":"t","lsn":{position}}}"#);
    let row = format!(r#"{{"id":{id},"at":{at}{fields}}}"#);
    (6, Some(format!(r#"{{"after":{row},"source":{source},"op":"u","ts_ms":{at}}}"#)))
}

async fn ids(bed: &Bed) -> Vec<i64> {
    let mut ids: Vec<i64> = bed.rows(false).await.into_iter().filter_map(|(_, id)| id).collect();
    ids.sort_unstable();
    ids
}

fn ways() -> impl Iterator<Item = (&'static str, &'static str)> {
    STRATEGIES.into_iter().flat_map(|strategy| PARTITIONS.map(|partitions| (strategy, partitions)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flink_cdc_4535_an_update_that_moves_a_row_to_another_partition_leaves_no_old_row() {
    for (strategy, partitions) in ways() {
        let bed = bed(strategy, partitions);
        bed.land_and_run(&[update(1, 0, r#","n":1"#), update(2, 0, r#","n":2"#)]).await;
        // Another hour, another day, another `n`: whatever partitions it, the row moves.
        bed.land_and_run(&[update(1, 30, r#","n":50"#)]).await;
        bed.land_and_run(&[update(1, 60, r#","n":90"#), update(2, 61, r#","n":91"#)]).await;
        assert_eq!(ids(&bed).await, [1, 2], "{strategy} [{partitions}]");
        let places: Vec<u64> = bed.rows(false).await.into_iter().map(|((_, offset), _)| offset).collect();
        assert_eq!(places, [3, 4], "{strategy} [{partitions}]: the newest versions");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn debezium_server_a_value_that_cannot_be_converted_is_quarantined_and_never_0_or_false() {
    let bad = [
        r#","n":"many""#,
        r#","n":1.5"#,
        r#","n":99999999999"#,
        r#","flag":"maybe""#,
        r#","flag":2"#,
        r#","amount":"x""#,
        r#","amount":"1.005""#,
        r#","amount":[1]"#,
    ];
    let bed = bed(STRATEGIES[1], "");
    let records: Vec<_> = (0..).zip(bad).map(|(id, fields)| update(id, 1, fields)).collect();
    bed.land_and_run(&records).await;
    assert_eq!((ids(&bed).await, bed.rows(true).await.len()), (vec![], bad.len()));
    // And such an update does not take the row that was there.
    bed.land_and_run(&[update(0, 2, r#","n":7"#)]).await;
    bed.land_and_run(&[update(0, 3, bad[0])]).await;
    assert_eq!((ids(&bed).await, bed.rows(true).await.len()), (vec![0], bad.len() + 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn debezium_server_an_upsert_into_a_partitioned_table_works_under_every_spec() {
    for (strategy, partitions) in ways() {
        let bed = bed(strategy, partitions);
        for round in 0..3 {
            let records: Vec<_> = (0..6).map(|id| update(id, round * 7 + id as u64, r#","n":3,"flag":true"#)).collect();
            bed.land_and_run(&records).await;
            assert_eq!(ids(&bed).await, (0..6).collect::<Vec<_>>(), "{strategy} [{partitions}] round {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn risingwave_23411_delete_files_hit_the_rows_they_are_meant_for() {
    for strategy in &STRATEGIES[1..] {
        let bed = bed(strategy, "hour(at)");
        for round in 0..12 {
            // The same keys again and again, twice in a run too.
            let records: Vec<_> = (0..8).map(|n| update(n % 4, round * 8 + n as u64, r#","n":1"#)).collect();
            bed.land_and_run(&records).await;
            let rows = bed.rows(false).await;
            let newest = (0..4).map(|id| ((0, round * 8 + 4 + id), Some(id as i64)));
            assert_eq!(rows, newest.collect::<Vec<_>>(), "{strategy} round {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spark_8609_no_file_name_is_ever_used_twice_also_after_restarts() {
    for strategy in STRATEGIES {
        let bed = bed(strategy, "'bucket(2, id)'");
        let mut written: BTreeSet<String> = BTreeSet::new();
        for round in 0..8 {
            let records: Vec<_> = (0..5).map(|id| update(id, round * 5 + id as u64, r#","n":1"#)).collect();
            bed.land(0, &records).await;
            // It dies at another place each time, and starts again.
            for faults in [Faults::at_write(round + 1, Fault::CrashAfter), Faults::none()] {
                let _ = bed.run(&faults).await;
                let files = faults.log().into_iter().filter(|o| matches!(o.operation, "put" | "writer.close"));
                for file in files.filter(|o| [".parquet", ".avro"].iter().any(|end| o.key.ends_with(end))) {
                    assert!(written.insert(file.key.clone()), "{} was written twice", file.key);
                }
            }
        }
        assert!(written.len() > 20, "only {} files", written.len());
        bed.prove().await;
    }
}
