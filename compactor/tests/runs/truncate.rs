//! Debezium's truncates: whole source tables are emptied, and what comes late stays out.

use firn_compactor::table::scan::{self, All};
use firn_shared::store::Faults;

use crate::bed::Bed;
use crate::changes::pipeline;

const MODES: [&str; 3] = [
    "mode: upsert, partitionBy: ['bucket(2, id)'], idColumns: [id], writeStrategy: copyOnWrite",
    "mode: upsert, partitionBy: ['bucket(2, id)'], idColumns: [id], writeStrategy: mergeOnRead",
    "mode: upsert, partitionBy: ['bucket(2, id)'], idColumns: [id], writeStrategy: mergeOnRead, deleteFiles: equality",
];

fn bed(mode: &str) -> Bed {
    Bed::with(&pipeline(mode))
}

/// A change at a position of the source.
fn change(op: &str, table: &str, id: i64, position: u64) -> (u32, Option<String>) {
    let row = format!(r#"{{"id":{id},"n":{position}}}"#);
    let (before, after) = match op {
        "t" => ("null", "null"),
        "d" => (row.as_str(), "null"),
        _ => ("null", row.as_str()),
    };
    let source = format!(r#"{{"db":"shop","schema":"public","table":"{table}","lsn":{position}}}"#);
    let payload = format!(
        r#"{{"before":{before},"after":{after},"source":{source},"op":"{op}","ts_ms":{}}}"#,
        1_626_847_200_000 + position
    );
    (6 + (position / 100) as u32, Some(payload))
}

/// Keys of the table, and whether each is marked as deleted.
async fn keys(bed: &Bed) -> Vec<(i64, bool)> {
    let rows = bed.marked_rows().await;
    let mut keys: Vec<_> = rows.into_iter().map(|(_, id, deleted)| (id.unwrap(), deleted)).collect();
    keys.sort_unstable();
    keys
}

fn live(keys: &[i64]) -> Vec<(i64, bool)> {
    keys.iter().map(|key| (*key, false)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncate_takes_the_older_rows_of_its_table_and_no_others() {
    for mode in MODES {
        let bed = bed(mode);
        bed.land_and_run(&[1, 2, 3].map(|id| change("c", "orders", id, 10 + id as u64))).await;
        bed.land_and_run(&[change("c", "returns", 50, 20), change("c", "orders", 4, 40)]).await;
        bed.land_and_run(&[change("t", "orders", 0, 30)]).await;
        assert_eq!(keys(&bed).await, live(&[4, 50]), "{mode}");
        // Late and older: it stays out. Newer: it comes in, in the same run as a repeated truncate too.
        bed.land_and_run(&[change("u", "orders", 1, 25), change("c", "orders", 9, 29)]).await;
        assert_eq!(keys(&bed).await, live(&[4, 50]), "{mode}");
        bed.land_and_run(&[change("t", "orders", 0, 30), change("c", "orders", 1, 31), change("u", "returns", 50, 21)])
            .await;
        assert_eq!(keys(&bed).await, live(&[1, 4, 50]), "{mode}");
        // A delete that is older than the truncate is no news.
        bed.land_and_run(&[change("d", "orders", 2, 22), change("t", "returns", 0, 60)]).await;
        assert_eq!(keys(&bed).await, live(&[1, 4]), "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncate_opens_no_files_of_other_source_tables() {
    for mode in MODES {
        let bed = bed(mode);
        bed.land_and_run(&[change("c", "returns", 50, 20), change("c", "returns", 51, 21)]).await;
        let of_returns: Vec<String> = files(&bed).await;
        bed.land_and_run(&[change("c", "orders", 1, 10), change("c", "orders", 2, 11)]).await;
        assert!(!of_returns.is_empty() && files(&bed).await.len() > of_returns.len());
        // To open one would fail.
        for path in &of_returns {
            std::fs::remove_file(path.trim_start_matches("file://")).unwrap();
        }
        bed.land(0, &[change("t", "orders", 0, 30)]).await;
        bed.run_to_the_end().await;
        assert_eq!(files(&bed).await, of_returns, "{mode}");
    }
}

/// The live data files, sorted.
async fn files(bed: &Bed) -> Vec<String> {
    let files = scan::live(&bed.table().await.unwrap(), None, &All).await.unwrap();
    let mut paths: Vec<String> = files.iter().map(|file| file.path().to_owned()).collect();
    paths.sort_unstable();
    paths
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hours_with_a_truncate_are_converted_again_to_the_same_table() {
    for mode in MODES {
        let bed = bed(mode);
        let of = |id: i64| change("c", "orders", id, 10 + id as u64);
        bed.land_and_run(&[of(1), of(2), of(90), change("c", "returns", 50, 120)]).await;
        bed.land_and_run(&[change("t", "orders", 0, 150), change("c", "orders", 3, 210)]).await;
        let expected = bed.marked_rows().await;
        assert_eq!(keys(&bed).await, live(&[3, 50]), "{mode}");
        for (from, to) in [("06", "07"), ("07", "08"), ("08", "09"), ("06", "09")] {
            let (from, to) = (format!("2021-07-21T{from}"), format!("2021-07-21T{to}"));
            bed.reprocess(&Faults::none(), &from, &to).await.unwrap();
            assert_eq!(bed.marked_rows().await, expected, "{mode} {from} {to}");
            bed.prove().await;
        }
    }
}

/// What a truncate took comes back when its record does not count any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncate_that_is_gone_after_a_reprocess_gives_its_rows_back() {
    for mode in MODES {
        let mut bed = bed(mode);
        bed.land_and_run(&[change("c", "orders", 1, 10), change("c", "orders", 2, 11), change("t", "orders", 0, 50)])
            .await;
        bed.land_and_run(&[change("t", "orders", 0, 150), change("c", "orders", 3, 210)]).await;
        assert_eq!(keys(&bed).await, live(&[3]), "{mode}");
        // Ordered by a column of its own, the table has no place for truncates: those of the hour are quarantined.
        let ordered = mode.replace("idColumns: [id]", "idColumns: [id], timestampColumns: [n]");
        bed.reconfigure(&pipeline(&ordered));
        bed.reprocess(&Faults::none(), "2021-07-21T07", "2021-07-21T08").await.unwrap();
        assert_eq!((keys(&bed).await, bed.rows(true).await.len()), (live(&[1, 2, 3]), 1), "{mode}");
        bed.prove().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soft_truncate_marks_rows_and_keeps_them() {
    for mode in MODES {
        let bed = bed(&format!("{mode}, softDelete: true"));
        bed.land_and_run(&[change("c", "orders", 1, 10), change("d", "orders", 2, 11), change("c", "returns", 50, 12)])
            .await;
        bed.land_and_run(&[change("t", "orders", 0, 30), change("c", "orders", 3, 31)]).await;
        assert_eq!(keys(&bed).await, [(1, true), (2, true), (3, false), (50, false)], "{mode}");
        // Late: it was there, and is gone.
        bed.land_and_run(&[change("c", "orders", 4, 20), change("u", "orders", 1, 40)]).await;
        assert_eq!(keys(&bed).await, [(1, false), (2, true), (3, false), (4, true), (50, false)], "{mode}");
        let expected = bed.marked_rows().await;
        bed.reprocess(&Faults::none(), "2021-07-21T06", "2021-07-21T07").await.unwrap();
        assert_eq!(bed.marked_rows().await, expected, "{mode}");
        bed.prove().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncate_that_cannot_be_carried_out_is_quarantined_and_one_that_is_history_is_a_row() {
    let unnamed = Some(r#"{"source":{"lsn":30},"op":"t","ts_ms":1626847200000}"#.to_owned());
    for (mode, records, rows, quarantined) in [
        (format!("{}, timestampColumns: [n]", MODES[0]), vec![change("t", "orders", 0, 30)], 1, 1),
        (MODES[1].to_owned(), vec![(6, unnamed)], 1, 1),
        ("mode: append, partitionBy: ['bucket(2, id)']".to_owned(), vec![change("t", "orders", 0, 30)], 2, 0),
    ] {
        let bed = bed(&mode);
        bed.land_and_run(&[change("c", "orders", 1, 10)]).await;
        bed.land_and_run(&records).await;
        assert_eq!((bed.rows(false).await.len(), bed.rows(true).await.len()), (rows, quarantined), "{mode}");
    }
}

/// Its memory gone, a delete is still in the raw zone, and a reprocess finds it there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reprocess_remembers_deletes_that_the_table_has_forgotten() {
    for mode in MODES {
        let bed = bed(&format!("{mode}, deleteMemory: 0s"));
        bed.land_and_run(&[change("c", "orders", 1, 10), change("c", "orders", 2, 11)]).await;
        bed.land_and_run(&[change("d", "orders", 1, 110)]).await;
        // The run after has forgotten it.
        bed.land_and_run(&[change("c", "orders", 3, 210)]).await;
        for _ in 0..2 {
            bed.reprocess(&Faults::none(), "2021-07-21T06", "2021-07-21T07").await.unwrap();
            assert_eq!(keys(&bed).await, live(&[2, 3]), "{mode}");
            bed.prove().await;
        }
    }
}
