//! A backlog that is larger than a commit may be.

use std::sync::Arc;

use firn_compactor::run::{Options, Outcome, dates, run};
use firn_shared::error::ErrorKind;
use firn_shared::store::{Fault, Faults};

use crate::bed::{Bed, Landed, PIPELINE};

/// Every commit takes one batch of each partition, because one byte is more than any batch leaves room for.
fn in_small_commits(mut bed: Bed) -> Bed {
    let mut config = (*bed.config).clone();
    config.deployment.compactor.commit_size = 1;
    bed.config = Arc::new(config);
    bed
}

async fn backlog(bed: &Bed) -> Landed {
    let mut landed = Landed::default();
    for batch in 0..5 {
        landed.land(bed, 0, 10 + batch).await;
    }
    landed.land(bed, 1, 15).await;
    landed
}

async fn snapshots(bed: &Bed) -> usize {
    bed.table().await.map_or(0, |table| table.metadata().snapshots().count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_arrives_in_commits_of_bounded_size() {
    let bed = in_small_commits(Bed::new());
    let landed = backlog(&bed).await;
    let show = Options { dry_run: true, ..Options::default() };
    let planned = run(&bed.env(&Faults::none()).await, bed.target(), &show).await.unwrap();
    assert_eq!((planned.records, planned.outcome), (75, Outcome::Planned), "what is shown is the whole run");
    assert!(planned.to_string().contains("at least"), "{planned}");

    let report = bed.run(&Faults::none()).await.unwrap();
    assert_eq!((report.commits, report.records, snapshots(&bed).await), (5, 75, 5), "{report}");
    assert_eq!(report.fate.rows, landed.rows.len() as u64);
    assert_eq!(report.hours.values().sum::<u64>(), 75);
    assert!(report.to_string().contains("; 5 commits"), "{report}");
    landed.check(&bed).await;
    assert_eq!(bed.run(&Faults::none()).await.unwrap().outcome, Outcome::NothingToDo);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_goes_on_from_the_last_commit_before_a_crash() {
    let mut resumed = 0;
    for number in (5..).step_by(9) {
        let bed = in_small_commits(Bed::new());
        let landed = backlog(&bed).await;
        let faults = Faults::at_write(number, Fault::CrashAfter);
        let crashed = bed.run(&faults).await;
        let rows = bed.rows(false).await;
        assert!(rows.iter().all(|row| landed.rows.binary_search(row).is_ok()), "rows that were never landed");
        let before = snapshots(&bed).await;
        bed.run_to_the_end().await;
        landed.check(&bed).await;
        assert_eq!(snapshots(&bed).await, 5, "what was committed before the crash is not committed again");
        if !faults.fired() {
            crashed.unwrap();
            break;
        }
        resumed += u32::from(before > 0);
    }
    assert!(resumed > 2, "only {resumed} crashes between two commits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_date_is_marked_by_the_last_commit_of_its_backlog() {
    let bed = in_small_commits(Bed::new());
    let landed = backlog(&bed).await;
    let marked = async || match bed.table().await {
        Some(table) => table.metadata().properties().contains_key(&format!("{}2021-07-21", dates::COMPLETE)),
        None => false,
    };
    let on = Options { event_date: Some("2021-07-21".parse().unwrap()), ..Options::default() };
    // Dies in the middle of the backlog.
    let faults = Faults::at_write(45, Fault::CrashAfter);
    run(&bed.env(&faults).await, bed.target(), &on).await.unwrap_err();
    assert!((1..5).contains(&snapshots(&bed).await), "between the first commit and the last");
    assert!(!marked().await, "the date was marked before all of it was in the table");
    run(&bed.env(&Faults::none()).await, bed.target(), &on).await.unwrap();
    assert!(marked().await);
    landed.check(&bed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_asked_to_stop_ends_with_the_commit_in_progress() {
    let bed = in_small_commits(Bed::new());
    let landed = backlog(&bed).await;
    let options = Options::default();
    options.stop.cancel();
    let report = run(&bed.env(&Faults::none()).await, bed.target(), &options).await.unwrap();
    assert_eq!((report.commits, snapshots(&bed).await), (1, 1));
    bed.run_to_the_end().await;
    landed.check(&bed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_and_a_reprocess_are_one_snapshot_whatever_a_commit_may_be() {
    let load = PIPELINE.replace("tableName: t", "tableName: t\n      mode: truncateLoad");
    let bed = in_small_commits(Bed::with(&load));
    let landed = backlog(&bed).await;
    assert_eq!(bed.run(&Faults::none()).await.unwrap().commits, 1);
    landed.check(&bed).await;

    let bed = in_small_commits(Bed::new());
    let landed = backlog(&bed).await;
    bed.run(&Faults::none()).await.unwrap();
    let before = snapshots(&bed).await;
    let report = bed.reprocess(&Faults::none(), "2021-07-21T06", "2021-07-21T09").await.unwrap();
    assert_eq!((report.commits, snapshots(&bed).await), (1, before + 1));
    landed.check(&bed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_compactors_share_a_backlog_and_commit_every_row_once() {
    let bed = in_small_commits(Bed::new());
    let landed = backlog(&bed).await;
    let (one, two) = (Faults::none(), Faults::none());
    let (a, b) = tokio::join!(bed.run(&one), bed.run(&two));
    for outcome in [a, b] {
        if let Err(error) = outcome {
            assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        }
    }
    bed.run_to_the_end().await;
    landed.check(&bed).await;
}
