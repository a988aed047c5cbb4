//! `dedup`: one memory for all slices and batches of a commit, and none beyond it.

use std::sync::Arc;

use firn_compactor::run::RunReport;
use firn_shared::error::ErrorKind;
use firn_shared::store::Faults;

use crate::bed::{Bed, PIPELINE};

/// Different ids, each of which comes several times in each object.
const IDS: u64 = 25;
/// Records of an object.
const RECORDS: u64 = 50;
/// Two objects of such records are more than a slice of the least size takes.
const LARGE: usize = 200 << 10;
const SMALL: usize = 1;

fn pipeline(limit: u64) -> String {
    format!("{PIPELINE}      - dedup: {{by: [id], limit: {limit}, name: again}}\n")
}

/// Lands the same ids in every object: two partitions, two event hours each, records of so many bytes.
async fn land(bed: &Bed, bytes: usize) {
    let padding = "x".repeat(bytes);
    let record = |hour: u32, id: u64| {
        let at = format!("2021-07-21T{hour:02}:00:00Z");
        (hour, Some(format!(r#"{{"type":"a","id":{id},"at":"{at}","n":1,"note":{{"k":1,"p":"{padding}"}}}}"#)))
    };
    for partition in [0, 1] {
        let records = (0..2 * RECORDS).map(|n| record(6 + (n / RECORDS) as u32, n % IDS));
        bed.land(partition, &records.collect::<Vec<_>>()).await;
    }
}

async fn ids(bed: &Bed) -> Vec<i64> {
    let mut ids: Vec<i64> = bed.rows(false).await.into_iter().filter_map(|(_, id)| id).collect();
    ids.sort_unstable();
    ids
}

fn left_out(report: &RunReport) -> u64 {
    assert_eq!(report.fate.filtered.keys().collect::<Vec<_>>(), ["again"], "{report}");
    report.fate.filtered["again"]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_equal_rows_stays_whatever_slice_it_is_in() {
    let bed = Bed::with(&pipeline(IDS));
    land(&bed, LARGE).await;
    let report = bed.run(&Faults::none()).await.unwrap();
    assert!(report.slices > 1 && report.commits == 1, "{report}");
    assert_eq!(ids(&bed).await, (0..IDS as i64).collect::<Vec<_>>());
    assert_eq!((report.fate.rows, left_out(&report)), (IDS, 4 * RECORDS - IDS));
    bed.prove().await;
    // The next commit knows nothing of this one.
    land(&bed, SMALL).await;
    let report = bed.run(&Faults::none()).await.unwrap();
    assert_eq!((report.fate.rows, left_out(&report)), (IDS, 4 * RECORDS - IDS));
    bed.prove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_commit_of_a_run_has_a_memory_of_its_own() {
    let mut bed = Bed::with(&pipeline(IDS));
    let mut config = (*bed.config).clone();
    config.deployment.compactor.commit_size = 1;
    bed.config = Arc::new(config);
    land(&bed, SMALL).await;
    land(&bed, SMALL).await;
    let report = bed.run(&Faults::none()).await.unwrap();
    assert_eq!((report.commits, report.fate.rows, left_out(&report)), (2, 2 * IDS, 8 * RECORDS - 2 * IDS), "{report}");
    bed.prove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_of_more_rows_than_the_limit_ends_the_run_and_leaves_nothing() {
    let mut bed = Bed::with(&pipeline(IDS - 1));
    land(&bed, SMALL).await;
    let error = bed.run(&Faults::none()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let expected = format!("dedup: a commit has more than {} different rows; raise `limit`", IDS - 1);
    assert!(error.to_string().contains(&expected), "{error}");
    assert!(ids(&bed).await.is_empty() && bed.rows(true).await.is_empty());
    bed.reconfigure(&pipeline(IDS));
    bed.run(&Faults::none()).await.unwrap();
    assert_eq!(ids(&bed).await.len() as u64, IDS);
    bed.prove().await;
}
