//! What the images of change events lack, and what they say of a row's former key.

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use firn_compactor::table::read::{self, Rows};
use firn_shared::config::DELETED;
use firn_shared::store::Faults;
use futures::TryStreamExt;

use crate::bed::Bed;
use crate::changes::pipeline;

const STRATEGIES: [&str; 3] =
    ["writeStrategy: copyOnWrite", "writeStrategy: mergeOnRead", "writeStrategy: mergeOnRead, deleteFiles: equality"];

/// A change at a position of the source, with these images, in the hour of its position's hundreds.
fn change(op: &str, position: u64, before: &str, after: &str) -> (u32, Option<String>) {
    let source = format!(r#"{{"db":"shop","schema":"public","table":"orders","lsn":{position}}}"#);
    let ts = 1_626_847_200_000 + position;
    let payload = format!(r#"{{"before":{before},"after":{after},"source":{source},"op":"{op}","ts_ms":{ts}}}"#);
    (6 + (position / 100) as u32, Some(payload))
}

fn put(position: u64, id: i64, n: i32) -> (u32, Option<String>) {
    change("u", position, "null", &format!(r#"{{"id":{id},"n":{n}}}"#))
}

/// As Postgres sends it without `REPLICA IDENTITY FULL`: of the row the key alone, and zero where null is not allowed.
fn gone(position: u64, id: i64) -> (u32, Option<String>) {
    change("d", position, &format!(r#"{{"id":{id},"n":0}}"#), "null")
}

fn key_alone(position: u64, id: i64) -> (u32, Option<String>) {
    change("d", position, &format!(r#"{{"id":{id}}}"#), "null")
}

/// Rows as (id, n, whether it is marked), sorted.
async fn rows(bed: &Bed) -> Vec<(i64, Option<i32>, bool)> {
    let table = bed.table().await.unwrap();
    let soft = table.metadata().current_schema().field_by_name(DELETED).is_some();
    let columns: &[&str] = if soft { &["id", "n", DELETED] } else { &["id", "n"] };
    let mut batches = read::rows(&table, columns, &Rows::All).await.unwrap();
    let mut rows = Vec::new();
    while let Some(batch) = batches.try_next().await.unwrap() {
        let (ids, numbers) = (batch["id"].as_primitive::<Int64Type>(), batch["n"].as_primitive::<Int32Type>());
        let marks = batch.column_by_name(DELETED).map(|marks| marks.as_boolean().clone());
        for row in 0..batch.num_rows() {
            let number = numbers.is_valid(row).then(|| numbers.value(row));
            rows.push((ids.value(row), number, marks.as_ref().is_some_and(|marks| marks.value(row))));
        }
    }
    rows.sort_unstable();
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soft_delete_marks_the_row_and_keeps_its_values() {
    for how in STRATEGIES {
        let bed = Bed::with(&pipeline(&format!("mode: upsert, idColumns: [id], softDelete: true, {how}")));
        bed.land_and_run(&[put(10, 1, 5), put(11, 2, 6), put(12, 3, 7), put(13, 4, 8)]).await;
        // Of rows in the table, of the same run, after an update in the same run, and of what nobody knows.
        bed.land_and_run(&[gone(20, 1), key_alone(21, 2), put(22, 5, 9), gone(23, 5), put(24, 3, 70), gone(25, 3)])
            .await;
        bed.land_and_run(&[key_alone(30, 9)]).await;
        let expected = [
            (1, Some(5), true),
            (2, Some(6), true),
            (3, Some(70), true),
            (4, Some(8), false),
            (5, Some(9), true),
            (9, None, true),
        ];
        assert_eq!(rows(&bed).await, expected, "{how}");
        // A delete of a deleted row, a late update of one, and one that is there again.
        bed.land_and_run(&[gone(40, 1), put(19, 2, 60), put(41, 5, 90)]).await;
        let mut expected = expected;
        expected[4] = (5, Some(90), false);
        assert_eq!(rows(&bed).await, expected, "{how}");
        bed.reprocess(&Faults::none(), "2021-07-21T06", "2021-07-21T07").await.unwrap();
        // The late update is in its place now.
        expected[1] = (2, Some(60), true);
        assert_eq!(rows(&bed).await, expected, "{how}");
        bed.prove().await;
    }
}

/// Only the hour with the delete is converted again, or one with an older version, too: the values are those of the newest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reprocess_of_soft_deletes_equals_replaying_everything() {
    for how in STRATEGIES {
        let bed = Bed::with(&pipeline(&format!("mode: upsert, idColumns: [id], softDelete: true, {how}")));
        bed.land_and_run(&[put(10, 1, 5), put(11, 2, 6)]).await;
        bed.land_and_run(&[put(110, 1, 50)]).await;
        bed.land_and_run(&[put(212, 2, 60), gone(213, 1), gone(214, 2)]).await;
        let expected = [(1, Some(50), true), (2, Some(60), true)];
        assert_eq!(rows(&bed).await, expected, "{how}");
        for (from, to) in [("08", "09"), ("06", "07"), ("07", "09"), ("06", "09")] {
            let (from, to) = (format!("2021-07-21T{from}"), format!("2021-07-21T{to}"));
            bed.reprocess(&Faults::none(), &from, &to).await.unwrap();
            assert_eq!(rows(&bed).await, expected, "{how} {from}");
            bed.prove().await;
        }
    }
}

fn moved(position: u64, id: i64, (from, to): (i32, i32)) -> (u32, Option<String>) {
    let row = |n: i32| format!(r#"{{"id":{id},"n":{n}}}"#);
    change("u", position, &row(from), &row(to))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_that_gives_a_row_another_key_leaves_nothing_under_the_former_one() {
    for (how, soft) in STRATEGIES.iter().flat_map(|how| [(how, false), (how, true)]) {
        let options = format!("mode: upsert, idColumns: [n], partitionBy: ['bucket(2, n)'], softDelete: {soft}, {how}");
        let bed = Bed::with(&pipeline(&options));
        bed.land_and_run(&[put(10, 1, 5), put(11, 2, 6)]).await;
        bed.land_and_run(&[moved(110, 1, (5, 50)), moved(111, 2, (6, 6))]).await;
        assert_eq!(rows(&bed).await, [(1, Some(50), false), (2, Some(6), false)], "{options}");
        // What comes late under the former key is older than the update.
        bed.land_and_run(&[moved(109, 1, (5, 5))]).await;
        assert_eq!(rows(&bed).await, [(1, Some(50), false), (2, Some(6), false)], "{options}");
        for (from, to) in [("06", "07"), ("07", "08"), ("06", "08")] {
            let (from, to) = (format!("2021-07-21T{from}"), format!("2021-07-21T{to}"));
            bed.reprocess(&Faults::none(), &from, &to).await.unwrap();
            assert_eq!(rows(&bed).await, [(1, Some(50), false), (2, Some(6), false)], "{options} {from}");
            bed.prove().await;
        }
        // Another row takes the key, later.
        bed.land_and_run(&[put(120, 3, 5), moved(121, 2, (6, 7)), moved(122, 2, (7, 8))]).await;
        assert_eq!(rows(&bed).await, [(1, Some(50), false), (2, Some(8), false), (3, Some(5), false)], "{options}");
    }
}
