//! What users and other engines do to a table's snapshots.

use std::sync::Arc;

use firn_compactor::run::Outcome;
use firn_compactor::table::{Change, CommitOutcome, Committer};
use firn_shared::clock::SystemClock;
use firn_shared::store::Faults;
use iceberg::TableUpdate;
use iceberg::spec::{MAIN_BRANCH, SnapshotReference, SnapshotRetention};

use crate::bed::{Bed, Landed};

async fn update(bed: &Bed, updates: Vec<TableUpdate>) {
    let env = bed.env(&Faults::none()).await;
    let table = bed.table().await.unwrap();
    let outcome = env.catalog.commit(&table, updates, Vec::new()).await.unwrap();
    assert!(matches!(outcome, CommitOutcome::Committed(_)), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_were_rolled_back_come_again_exactly_once() {
    let (bed, mut landed) = (Bed::new(), Landed::default());
    landed.land(&bed, 0, 30).await;
    bed.run(&Faults::none()).await.unwrap();
    let first = bed.table().await.unwrap().metadata().current_snapshot_id().unwrap();
    landed.land(&bed, 0, 30).await;
    landed.land(&bed, 1, 10).await;
    bed.run(&Faults::none()).await.unwrap();
    let retention = SnapshotRetention::branch(None, None, None);
    let reference = SnapshotReference { snapshot_id: first, retention };
    update(&bed, vec![TableUpdate::SetSnapshotRef { ref_name: MAIN_BRANCH.to_owned(), reference }]).await;
    assert!(bed.rows(false).await.len() < landed.rows.len());
    let report = bed.run(&Faults::none()).await.unwrap();
    assert_eq!((report.outcome, report.records), (Outcome::Committed, 40));
    landed.check(&bed).await;
    assert_eq!(bed.run(&Faults::none()).await.unwrap().outcome, Outcome::NothingToDo);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_outlive_the_expiry_of_every_snapshot_of_ours() {
    let (bed, mut landed) = (Bed::new(), Landed::default());
    landed.land(&bed, 0, 30).await;
    bed.run(&Faults::none()).await.unwrap();
    let ours = bed.table().await.unwrap().metadata().current_snapshot_id().unwrap();
    // Somebody else commits, and expires everything but that.
    let env = bed.env(&Faults::none()).await;
    let committer = Committer::new(Arc::clone(&env.catalog), Arc::new(SystemClock));
    let foreign = Change { commit_id: "someone".to_owned(), ..Change::default() };
    committer.commit(&bed.target().ident(), &foreign).await.unwrap();
    update(&bed, vec![TableUpdate::RemoveSnapshots { snapshot_ids: vec![ours] }]).await;
    assert_eq!(bed.run(&Faults::none()).await.unwrap().outcome, Outcome::NothingToDo);
    landed.check(&bed).await;
    landed.land(&bed, 0, 30).await;
    assert_eq!(bed.run(&Faults::none()).await.unwrap().records, 30);
    landed.check(&bed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_without_rows_still_moves_the_offsets() {
    let bed = Bed::new();
    bed.land(0, &[(6, None), (6, None), (7, Some(r#"{"type":"z"}"#.to_owned()))]).await;
    let report = bed.run(&Faults::none()).await.unwrap();
    assert_eq!((report.outcome, report.fate.tombstones, report.fate.rows, report.files), (Outcome::Committed, 2, 0, 0));
    assert_eq!(bed.run(&Faults::none()).await.unwrap().outcome, Outcome::NothingToDo);
    bed.prove().await;
}
