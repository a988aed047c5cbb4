//! Several compactors at once.

use firn_compactor::run::Outcome;
use firn_shared::error::ErrorKind;
use firn_shared::store::Faults;

use crate::bed::{Bed, Landed};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_compactors_at_once_commit_every_row_once() {
    let (bed, mut landed, mut all) = (Bed::new(), Landed::default(), 0);
    for round in 0..4 {
        landed.land(&bed, round % 2, 30).await;
        let (one, two, three) = (Faults::none(), Faults::none(), Faults::none());
        let (a, b, c) = tokio::join!(bed.run(&one), bed.run(&two), bed.run(&three));
        let mut committed = 0;
        for outcome in [a, b, c] {
            match outcome {
                Ok(report) => committed += u32::from(report.outcome == Outcome::Committed),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
            }
        }
        assert!(committed <= 1, "{committed} of three committed the same offsets");
        all += committed;
        while bed.run(&Faults::none()).await.unwrap().outcome != Outcome::NothingToDo {}
        landed.check(&bed).await;
    }
    assert!(all > 0, "all of them were in each other's way, each time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reprocess_beside_a_run_doubles_nothing() {
    let (bed, mut landed) = (Bed::new(), Landed::default());
    landed.land(&bed, 0, 50).await;
    bed.run(&Faults::none()).await.unwrap();
    let mut committed = [0, 0];
    for _ in 0..4 {
        landed.land(&bed, 0, 20).await;
        let (one, two) = (Faults::none(), Faults::none());
        let (run, again) = tokio::join!(bed.run(&one), bed.reprocess(&two, "2021-07-21T06", "2021-07-21T08"));
        for (outcome, committed) in [run, again].into_iter().zip(&mut committed) {
            match outcome {
                Ok(report) => *committed += u32::from(report.outcome == Outcome::Committed),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
            }
        }
        while bed.run(&Faults::none()).await.unwrap().outcome != Outcome::NothingToDo {}
        landed.check(&bed).await;
    }
    assert!(committed.into_iter().all(|of| of > 0), "a run and a reprocess committed {committed:?} times");
}
