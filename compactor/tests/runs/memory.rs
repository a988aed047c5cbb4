//! Deletes that a table remembers: how long, in how many objects, and through changes of its configuration.

use std::sync::Arc;

use chrono::TimeDelta;
use firn_compactor::run::{Options, Outcome, run};
use firn_compactor::table::offsets;
use firn_shared::clock::ManualClock;
use firn_shared::store::Faults;

use crate::bed::Bed;
use crate::changes::pipeline;

const MODE: &str = "mode: upsert, writeStrategy: mergeOnRead";

/// A change of a row at a position of the source; `at` is a column of it.
fn change(op: &str, id: i64, (position, at): (u64, i64)) -> (u32, Option<String>) {
    let (row, none) = (format!(r#"{{"id":{id},"n":{at}}}"#), "null".to_owned());
    let (before, after) = if op == "d" { (row, none) } else { (none, row) };
    let source = format!(r#"{{"connector":"mysql","file":"binlog.000001","pos":{position},"row":0}}"#);
    (6, Some(format!(r#"{{"before":{before},"after":{after},"source":{source},"op":"{op}","ts_ms":1626847200000}}"#)))
}

async fn ids(bed: &Bed) -> Vec<i64> {
    let mut ids: Vec<i64> = bed.rows(false).await.into_iter().filter_map(|(_, id)| id).collect();
    ids.sort_unstable();
    ids
}

/// Rows of each object that the table remembers.
async fn objects(bed: &Bed) -> Vec<u64> {
    let table = bed.table().await.unwrap();
    let state = offsets::current(table.metadata()).unwrap().unwrap();
    state.deletes.iter().map(|object| object.rows).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_objects_of_deletes_become_one_and_all_deletes_count_on() {
    let bed = Bed::with(&pipeline(&format!("{MODE}, idColumns: [id]")));
    let rows: Vec<_> = (0..40).map(|id| change("c", id, (10, 1))).collect();
    bed.land_and_run(&rows).await;
    let mut most = 0;
    for id in 0..20 {
        bed.land(0, &[change("d", id, (100, 2))]).await;
        bed.run_to_the_end().await;
        most = most.max(objects(&bed).await.len());
    }
    let objects = objects(&bed).await;
    assert!(most == 16 && objects.len() < 16, "{most} at most, {objects:?} now");
    assert_eq!(objects.iter().sum::<u64>(), 20);
    // Late and older: they stay away. Newer: they are back.
    let late: Vec<_> = (0..20).map(|id| change("u", id, (50, 3))).collect();
    bed.land_and_run(&late).await;
    assert_eq!(ids(&bed).await, (20..40).collect::<Vec<_>>());
    bed.land_and_run(&[change("c", 3, (101, 3))]).await;
    assert_eq!(ids(&bed).await.len(), 21);
    // What was merged away is deleted when no snapshot lists it any more.
    let directory = bed.dir.path().join("lake/d/t_deletes");
    let files = || std::fs::read_dir(&directory).unwrap().count();
    let before = files();
    bed.maintain(&Faults::none(), &bed.subject()).await.unwrap();
    assert!(files() < before && files() == objects.len(), "{} of {before} are left", files());
    bed.land_and_run(&late).await;
    assert_eq!(ids(&bed).await.len(), 21);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_is_forgotten_when_its_memory_ends() {
    let bed = Bed::with(&pipeline(&format!("{MODE}, idColumns: [id], deleteMemory: 2h")));
    let begin = "2021-07-21T12:00:00Z".parse().unwrap();
    let clock = ManualClock::new(begin);
    let run_at = async |minutes: i64, records: &[(u32, Option<String>)]| {
        clock.set(begin + TimeDelta::minutes(minutes));
        bed.land(0, records).await;
        let mut env = bed.env(&Faults::none()).await;
        env.clock = Arc::new(clock.clone());
        let report = run(&env, bed.target(), &Options::default()).await.unwrap();
        assert_eq!(report.outcome, Outcome::Committed);
        ids(&bed).await
    };
    assert_eq!(run_at(0, &[change("c", 1, (10, 1)), change("c", 2, (10, 1))]).await, [1, 2]);
    assert_eq!(run_at(0, &[change("d", 1, (100, 2))]).await, [2]);
    assert_eq!(run_at(119, &[change("u", 1, (50, 3))]).await, [2], "remembered to the end");
    assert_eq!(run_at(120, &[change("u", 1, (51, 4))]).await, [1, 2], "and not longer");
    assert!(objects(&bed).await.is_empty());
}

/// `n` orders rows from now on, or does no more. A delete that was remembered without it is compared by where it came from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_ordered_by_other_columns_runs_on_with_what_it_remembers() {
    let by_source = format!("{MODE}, idColumns: [id]");
    let by_column = format!("{MODE}, idColumns: [id], timestampColumns: [n]");
    for (before, after) in [(&by_source, &by_column), (&by_column, &by_source)] {
        let mut bed = Bed::with(&pipeline(before));
        bed.land_and_run(&[change("c", 1, (10, 10)), change("c", 2, (10, 10))]).await;
        bed.land_and_run(&[change("d", 1, (100, 100))]).await;
        bed.reconfigure(&pipeline(after));
        bed.land_and_run(&[change("u", 1, (50, 900)), change("u", 2, (50, 50))]).await;
        assert_eq!(ids(&bed).await, [2], "{after}");
        bed.land_and_run(&[change("c", 1, (101, 101))]).await;
        assert_eq!(ids(&bed).await, [1, 2], "{after}");
        bed.reprocess(&Faults::none(), "2021-07-21T06", "2021-07-21T07").await.unwrap();
        assert_eq!(ids(&bed).await, [1, 2], "{after}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_another_key_forgets_the_deletes_of_the_former_one() {
    let mut bed = Bed::with(&pipeline(&format!("{MODE}, idColumns: [id, n]")));
    bed.land_and_run(&[change("c", 1, (10, 1)), change("c", 1, (10, 2)), change("d", 1, (100, 1))]).await;
    assert_eq!((ids(&bed).await, objects(&bed).await), (vec![1], vec![1]));
    bed.reconfigure(&pipeline(&format!("{MODE}, idColumns: [id]")));
    // The row of 1 and 2 is not that of 1 and 1, which alone was deleted.
    bed.land_and_run(&[change("u", 1, (50, 2)), change("c", 2, (50, 2))]).await;
    assert_eq!((ids(&bed).await, objects(&bed).await), (vec![1, 2], vec![]));
    bed.land_and_run(&[change("d", 2, (60, 2))]).await;
    assert_eq!((ids(&bed).await, objects(&bed).await), (vec![1], vec![1]));
}
