//! The work stops after every single operation, and starts again.

use firn_compactor::run::Outcome;
use firn_shared::error::ErrorKind;
use firn_shared::store::{Fault, Faults};

use crate::bed::{Bed, Landed, PIPELINE};

/// Readers see the rows of whole runs only.
async fn readers_see(bed: &Bed, states: &[&Landed]) {
    let rows = bed.rows(false).await;
    assert!(states.iter().any(|state| state.rows == rows), "half a run is visible: {} rows", rows.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_write_loses_and_doubles_nothing() {
    for fault in [Fault::CrashBefore, Fault::CrashAfter] {
        let mut number = 0;
        loop {
            number += 1;
            let (bed, mut landed) = (Bed::new(), Landed::default());
            let nothing = landed.clone();
            landed.land(&bed, 0, 40).await;
            landed.land(&bed, 1, 25).await;
            let faults = Faults::at_write(number, fault);
            let first = bed.run(&faults).await;
            readers_see(&bed, &[&nothing, &landed]).await;
            if !faults.fired() {
                assert_eq!(first.unwrap().outcome, Outcome::Committed);
                landed.check(&bed).await;
                assert!(number > 10, "only {number} operations");
                break;
            }
            let after_first = landed.clone();
            // New batches arrive before it comes back.
            landed.land(&bed, 0, 12).await;
            let faults = Faults::at_write(number / 2 + 1, fault);
            let _ = bed.run(&faults).await;
            readers_see(&bed, &[&nothing, &after_first, &landed]).await;
            bed.run_to_the_end().await;
            landed.check(&bed).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_lost_anywhere_loses_and_doubles_nothing() {
    let mut number = 0;
    loop {
        number += 1;
        let (bed, mut landed) = (Bed::new(), Landed::default());
        landed.land(&bed, 0, 40).await;
        let faults = Faults::at_write(number, Fault::ErrorAfter);
        match bed.run(&faults).await {
            Ok(report) => assert_eq!(report.outcome, Outcome::Committed),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
        }
        bed.run_to_the_end().await;
        landed.check(&bed).await;
        if !faults.fired() {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_at_random_places_lose_and_double_nothing() {
    for seed in 0..8 {
        println!("seed {seed}");
        let (bed, mut landed) = (Bed::new(), Landed::default());
        for round in 0..6 {
            landed.land(&bed, round % 3, 10 + u64::from(round)).await;
            let _ = bed.run(&Faults::random(seed * 100 + u64::from(round), 0.02)).await;
        }
        bed.run_to_the_end().await;
        landed.check(&bed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_reply_was_lost_is_recognised() {
    let (bed, mut landed) = (Bed::new(), Landed::default());
    landed.land(&bed, 0, 40).await;
    let clean = Bed::new();
    let mut same = Landed::default();
    same.land(&clean, 0, 40).await;
    let log = Faults::at_write(u64::MAX, Fault::CrashAfter);
    clean.run(&log).await.unwrap();
    let commit = log.log().into_iter().rfind(|o| o.operation == "catalog.commit" && o.key == "t").unwrap();
    let report = bed.run(&Faults::at_write(commit.number, Fault::ErrorAfter)).await.unwrap();
    assert_eq!(report.outcome, Outcome::Committed);
    landed.check(&bed).await;
    assert_eq!(bed.table().await.unwrap().metadata().snapshots().count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reprocess_that_crashes_leaves_the_old_rows_or_the_new_ones() {
    let mut number = 0;
    loop {
        number += 1;
        let (mut bed, mut landed) = (Bed::new(), Landed::default());
        landed.land(&bed, 0, 60).await;
        bed.run(&Faults::none()).await.unwrap();
        landed.check(&bed).await;
        let before = bed.rows(false).await;
        let quarantined = bed.rows(true).await;
        // 13 is no longer left out.
        bed.reconfigure(&PIPELINE.replace("<> 13", "<> 14"));
        let faults = Faults::at_write(number, Fault::CrashAfter);
        let crashed = bed.reprocess(&faults, "2021-07-21T06", "2021-07-21T07").await;
        let seen = bed.rows(false).await;
        let again = bed.reprocess(&Faults::none(), "2021-07-21T06", "2021-07-21T07").await.unwrap();
        let after = bed.rows(false).await;
        assert!(after.len() > before.len(), "the thirteens of the hour came in");
        assert!(seen == before || seen == after, "half a reprocess is visible");
        let twice = bed.reprocess(&Faults::none(), "2021-07-21T06", "2021-07-21T07").await.unwrap();
        assert_eq!((twice.fate.clone(), bed.rows(false).await), (again.fate, after));
        assert_eq!(twice.replaced, twice.fate.rows);
        assert_eq!(bed.rows(true).await, quarantined);
        bed.prove().await;
        if !faults.fired() {
            crashed.unwrap();
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_were_rejected_become_rows_when_the_pipeline_learns() {
    let (mut bed, mut landed) = (Bed::new(), Landed::default());
    landed.land(&bed, 0, 60).await;
    bed.run(&Faults::none()).await.unwrap();
    let quarantined = bed.rows(true).await.len();
    bed.reconfigure(&PIPELINE.replace("      - extract: {from: note, path: $.k, as: k, type: int}\n", ""));
    // The column `k` stays in the table and is null from now on; the rejects of its step come in.
    let report = bed.reprocess(&Faults::none(), "2021-07-21T06", "2021-07-21T09").await.unwrap();
    assert!(report.fate.quarantined < quarantined as u64);
    assert_eq!(bed.rows(true).await.len() as u64, report.fate.quarantined);
    bed.prove().await;
}
