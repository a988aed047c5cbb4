//! Changes that change no row, beside others that do.

use std::path::Path;
use std::sync::Arc;

use firn_shared::error::{Error, ErrorKind};
use firn_shared::ids::{Partition, PartitionRef};
use iceberg::TableUpdate;
use iceberg::spec::Operation;
use iceberg::table::Table;

use super::scan::tests::{Bed, Row};
use super::scan::{All, live, manifests};
use super::*;
use crate::plan::position::Position;
use crate::reconcile::account::Account;

fn rows(ids: std::ops::Range<i64>) -> Vec<Row> {
    ids.map(|id| Row { id, ..Row::default() }).collect()
}

async fn commit(bed: &Bed, id: &str, change: &Change) -> Result<Committed, Error> {
    let change = Change { commit_id: id.to_owned(), ..change.clone() };
    bed.committer().commit(&bed.ident, &change).await
}

/// A rewrite of all files as one, as a compaction makes it: planned now, committed later.
async fn compaction(bed: &Bed) -> Change {
    let table = bed.table().await;
    let snapshot = table.metadata().current_snapshot().unwrap();
    let remove: Vec<_> = live(&table, None, &All).await.unwrap().into_iter().map(|f| f.data).collect();
    let mut change = Change { add: bed.files(&bed.rows().await).await, remove: remove.clone(), ..Change::default() };
    change.rewrite_of = Some(snapshot.sequence_number());
    (change.changes_no_row, change.disposable) = (true, true);
    change.expect.no_new_deletes_for = Some((Some(snapshot.snapshot_id()), remove));
    change.expect.equality_deletes_follow = true;
    change
}

fn written(change: &Change) -> Vec<bool> {
    let exists = |new: &NewFile| Path::new(new.file.file_path().trim_start_matches("file://")).exists();
    change.add.iter().map(exists).collect()
}

fn position(offset: u64) -> Position {
    let of = PartitionRef { topic: "c/t/1".parse().unwrap(), partition: Partition(0) };
    let mut position = Position::start();
    position.advance(&of, offset).unwrap();
    position
}

async fn manifests_of(table: &Table) -> Vec<String> {
    let list = manifests::list(table, table.metadata().current_snapshot().unwrap()).await.unwrap();
    list.into_iter().map(|m| m.manifest_path).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equality_deletes_that_come_during_a_compaction_apply_to_what_it_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::new(dir.path(), None).await;
    bed.append(&rows(0..5)).await;
    bed.append(&rows(5..10)).await;
    let change = compaction(&bed).await;
    bed.delete_keys(&rows(3..6), &["id"]).await;
    let table = commit(&bed, "compact", &change).await.unwrap().table;
    assert_eq!(table.metadata().current_snapshot().unwrap().summary().operation, Operation::Replace);
    let ids: Vec<i64> = bed.rows().await.iter().map(|row| row.id).collect();
    assert_eq!(ids, [0, 1, 2, 6, 7, 8, 9]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_a_compaction_that_lost_are_deleted_and_those_of_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::new(dir.path(), None).await;
    bed.append(&rows(0..10)).await;
    let loser = compaction(&bed).await;
    let kept = Change { disposable: false, add: bed.files(&rows(0..10)).await, ..loser.clone() };
    // The next attempt has the first of its files, too.
    let add = [bed.files(&rows(0..10)).await, bed.files(&rows(0..10)).await].concat();
    let shares = Change { shared: 1, add, ..loser.clone() };
    bed.delete_rows(|row| row.id == 3).await;
    for (change, stay) in [(&kept, 1), (&loser, 0), (&shares, 1)] {
        assert!(written(change).into_iter().all(|there| there));
        assert_eq!(commit(&bed, "loser", change).await.unwrap_err().kind(), ErrorKind::Conflict);
        let expected: Vec<bool> = (0..change.add.len()).map(|number| number < stay).collect();
        assert_eq!(written(change), expected);
    }
    assert_eq!(bed.rows().await.len(), 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_says_the_offsets_again_and_needs_the_manifests_it_was_planned_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::new(dir.path(), None).await;
    for n in 0..3u64 {
        let add = bed.files(&rows(n as i64 * 10..n as i64 * 10 + 5)).await;
        bed.commit(Change { add, offsets: Some((position(n * 5 + 5), Account::default())), ..Change::default() }).await;
    }
    let before = bed.table().await;
    let merge = vec![manifests_of(&before).await];
    let change = Change { merge, changes_no_row: true, ..Change::default() };
    let table = commit(&bed, "merge", &change).await.unwrap().table;
    assert_eq!(manifests_of(&table).await.len(), 1);
    assert_eq!(bed.rows().await.len(), 15);
    let [was, is] = [&before, &table].map(|t| offsets::current(t.metadata()).unwrap().unwrap());
    assert_eq!((&is.position, is.snapshot_id), (&was.position, table.metadata().current_snapshot_id().unwrap()));
    let error = commit(&bed, "again", &change).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Conflict && error.to_string().contains("was rewritten meanwhile"), "{error}");
    // Every older snapshot may go now.
    let current = table.metadata().current_snapshot_id();
    let old = table.metadata().snapshots().map(|s| s.snapshot_id()).filter(|id| Some(*id) != current).collect();
    let updates = vec![TableUpdate::RemoveSnapshots { snapshot_ids: old }];
    bed.catalog.commit(&table, updates, Vec::new()).await.unwrap();
    assert_eq!(offsets::current(bed.table().await.metadata()).unwrap().unwrap().position, position(15));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_of_deletes_that_match_nothing_any_more_is_done_and_they_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::new(dir.path(), None).await;
    bed.append(&rows(0..5)).await;
    let remove = live(&bed.table().await, None, &All).await.unwrap().into_iter().map(|file| file.data).collect();
    let Change { add, .. } = bed.deletion(|row| row.id < 3).await;
    // The data file goes at the moment at which its deletes come.
    bed.commit(Change { add, remove, ..Change::default() }).await;
    let add = bed.files(&rows(5..10)).await;
    let kept = bed.table().await;
    let list = manifests::list(&kept, kept.metadata().current_snapshot().unwrap()).await.unwrap();
    let merge = list.into_iter().filter(manifests::has_live).map(|m| vec![m.manifest_path]).collect::<Vec<_>>();
    assert_eq!(merge.len(), 1, "that of the deletes");
    let table = commit(&bed, "merge", &Change { add, merge, ..Change::default() }).await.unwrap().table;
    let list = manifests::list(&table, table.metadata().current_snapshot().unwrap()).await.unwrap();
    assert_eq!((list.iter().filter(|m| manifests::has_live(m)).count(), bed.rows().await.len()), (1, 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_never_go_back_whoever_commits() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::new(dir.path(), None).await;
    let at = |offset| Change { offsets: Some((position(offset), Account::default())), ..Change::default() };
    bed.commit(at(10)).await;
    for back in [at(9), Change { offsets: Some((Position::start(), Account::default())), ..Change::default() }] {
        let error = commit(&bed, "back", &back).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Conflict && error.to_string().contains("consumed more"), "{error}");
    }
    commit(&bed, "same", &at(10)).await.unwrap();
    commit(&bed, "on", &at(11)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_on_an_empty_table_notices_that_what_came_since_has_expired() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::new(dir.path(), None).await;
    let mut change = Change { add: bed.files(&rows(0..5)).await, ..Change::default() };
    change.expect.no_new_files = Some((None, Arc::new(All)));
    let first = bed.append(&rows(0..5)).await.metadata().current_snapshot_id().unwrap();
    bed.commit(Change::default()).await;
    let updates = vec![TableUpdate::RemoveSnapshots { snapshot_ids: vec![first] }];
    bed.catalog.commit(&bed.table().await, updates, Vec::new()).await.unwrap();
    let error = commit(&bed, "late", &change).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Conflict && error.to_string().contains("have expired"), "{error}");
    assert_eq!(bed.rows().await.len(), 5);
}
