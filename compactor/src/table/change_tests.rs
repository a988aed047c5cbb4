//! Changes that meet: who wins, and what the table says afterwards.

use std::collections::HashSet;

use firn_shared::config::domain::Transform;
use firn_shared::error::{ErrorKind, Result};
use iceberg::spec::{ManifestEntryRef, ManifestStatus, Operation};
use iceberg::table::Table;
use iceberg::{TableRequirement, TableUpdate};

use super::refs::Head;
use super::scan::tests::{Bed, Row};
use super::scan::{All, LiveFile, Prune, Tracked, live, manifests};
use super::*;

fn rows(ids: std::ops::Range<i64>) -> Vec<Row> {
    ids.map(|id| Row { id, ..Row::default() }).collect()
}

async fn files(bed: &Bed) -> Vec<LiveFile> {
    live(&bed.table().await, None, &All).await.unwrap()
}

async fn ids(bed: &Bed) -> Vec<i64> {
    bed.rows().await.iter().map(|row| row.id).collect()
}

fn summary<'a>(table: &'a Table, key: &str) -> &'a str {
    let summary = &table.metadata().current_snapshot().unwrap().summary().additional_properties;
    summary.get(key).map_or("", String::as_str)
}

fn operation(table: &Table) -> Operation {
    table.metadata().current_snapshot().unwrap().summary().operation.clone()
}

/// A rewrite of some files as one, as compaction makes it: planned now, committed later.
async fn rewrite(bed: &Bed, of: &[LiveFile], keeps: &[Row]) -> Change {
    let table = bed.table().await;
    let snapshot = table.metadata().current_snapshot().unwrap();
    let remove: Vec<_> = of.iter().map(|f| f.data.clone()).collect();
    let mut change = Change { add: bed.files(keeps).await, remove: remove.clone(), ..Change::default() };
    change.rewrite_of = Some(snapshot.sequence_number());
    change.expect.no_new_deletes_for = Some((Some(snapshot.snapshot_id()), remove));
    change
}

async fn commit(bed: &Bed, id: &str, change: &Change) -> Result<Committed> {
    let change = Change { commit_id: id.to_owned(), ..change.clone() };
    bed.committer().commit(&bed.ident, &change).await
}

/// The change must lose, and say which file stands in its way.
async fn loses(bed: &Bed, change: &Change, path: &str, why: &str) {
    let error = commit(bed, "loser", change).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    let message = error.to_string();
    assert!(message.contains(path) && message.contains(why), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewrite_loses_against_a_delete_of_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::new(dir.path(), None).await;
    bed.append(&rows(0..10)).await;
    let change = rewrite(&bed, &files(&bed).await, &rows(0..10)).await;
    let table = bed.delete_rows(|row| row.id == 3).await;
    assert_eq!(operation(&table), Operation::Delete);
    assert_eq!((summary(&table, "added-delete-files"), summary(&table, "total-position-deletes")), ("1", "1"));
    let input = files(&bed).await.remove(0);
    loses(&bed, &change, input.path(), "which is being replaced").await;
    loses(&bed, &change, input.deletes().next().unwrap().path(), "was added meanwhile").await;
    assert_eq!(ids(&bed).await, [0, 1, 2, 4, 5, 6, 7, 8, 9]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_loses_against_a_rewrite_of_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::new(dir.path(), None).await;
    bed.append(&rows(0..10)).await;
    let deletion = bed.deletion(|row| row.id == 3).await;
    let input = files(&bed).await.remove(0);
    let change = rewrite(&bed, std::slice::from_ref(&input), &rows(0..10)).await;
    let table = commit(&bed, "rewrite", &change).await.unwrap().table;
    assert_eq!(operation(&table), Operation::Replace);
    loses(&bed, &deletion, input.path(), "is not part of the table any more").await;
    assert_eq!(ids(&bed).await, rows(0..10).iter().map(|r| r.id).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_overwrites_of_one_file_the_first_wins_and_others_do_not_meet() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::new(dir.path(), None).await;
    bed.append(&rows(0..10)).await;
    bed.append(&rows(10..20)).await;
    let live = files(&bed).await;
    // Manifests come newest first.
    let (second, first) = (&live[0], &live[1]);
    let replace = |file: &LiveFile, add| Change { add, remove: vec![file.data.clone()], ..Change::default() };
    let one = replace(first, bed.files(&rows(100..101)).await);
    let other = replace(second, bed.files(&rows(200..201)).await);
    let overlapping = replace(first, bed.files(&rows(300..301)).await);
    let table = commit(&bed, "one", &one).await.unwrap().table;
    assert_eq!(operation(&table), Operation::Overwrite);
    commit(&bed, "other", &other).await.unwrap();
    loses(&bed, &overlapping, first.path(), "is not part of the table any more").await;
    assert_eq!(ids(&bed).await, [100, 200]);
    assert_eq!(summary(&bed.table().await, "total-data-files"), "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_goes_beside_anything_unless_its_rows_are_asked_for() {
    /// Ids from this one on.
    #[derive(Debug)]
    struct From(i64);
    impl Prune for From {
        fn file(
            &self,
            schema: &iceberg::spec::Schema,
            _: &iceberg::spec::PartitionSpec,
            file: &iceberg::spec::DataFile,
        ) -> bool {
            let id = schema.field_id_by_name("id").unwrap();
            file.upper_bounds()[&id].literal() >= &iceberg::spec::PrimitiveLiteral::Long(self.0)
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::new(dir.path(), None).await;
    let table = bed.append(&rows(0..10)).await;
    let base = table.metadata().current_snapshot_id();
    let deletion = bed.deletion(|row| row.id == 3).await;
    let mut upsert = Change { add: bed.files(&rows(30..31)).await, ..Change::default() };
    upsert.expect.no_new_files = Some((base, std::sync::Arc::new(From(20))));
    let truncate = Change { add: bed.files(&rows(40..41)).await, replace_all: true, ..Change::default() };

    bed.append(&rows(10..15)).await;
    commit(&bed, "delete", &deletion).await.unwrap();
    commit(&bed, "upsert", &upsert).await.unwrap();
    let mut again = Change { add: bed.files(&rows(31..32)).await, ..upsert };
    loses(&bed, &again, "", "was added meanwhile and may hold rows that are being replaced").await;
    again.expect.no_new_files = Some((base, std::sync::Arc::new(From(31))));
    commit(&bed, "again", &again).await.unwrap();
    assert_eq!(ids(&bed).await, [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 30, 31]);
    // What came after the truncation was planned goes, too: it takes what is live.
    let table = commit(&bed, "truncate", &truncate).await.unwrap().table;
    assert_eq!(ids(&bed).await, [40]);
    assert_eq!(operation(&table), Operation::Overwrite);
    let totals = ["total-data-files", "total-delete-files", "total-records", "total-position-deletes"];
    assert_eq!(totals.map(|key| summary(&table, key)), ["1", "0", "1", "0"]);
    assert_eq!(summary(&table, "deleted-data-files"), "4");
}

/// The manifests of the current snapshot that it wrote, with the status of their entries, path, sequence number, and whether the
/// entry has metrics.
async fn written(table: &Table) -> Vec<Vec<(ManifestStatus, String, i64, bool)>> {
    let snapshot = table.metadata().current_snapshot().unwrap();
    let mut found = Vec::new();
    for manifest in manifests::list(table, snapshot).await.unwrap() {
        if manifest.added_snapshot_id == snapshot.snapshot_id() {
            let loaded = manifests::load(table.file_io(), &manifest).await.unwrap();
            let entry = |e: &ManifestEntryRef| {
                let metrics = !e.data_file().lower_bounds().is_empty() && !e.data_file().column_sizes().is_empty();
                (e.status(), e.file_path().to_owned(), e.sequence_number().unwrap(), metrics)
            };
            found.push(loaded.entries().iter().map(entry).collect());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_go_are_marked_in_one_manifest_and_those_that_stay_keep_their_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::new(dir.path(), None).await;
    let two = [bed.files(&rows(0..5)).await, bed.files(&rows(5..10)).await].concat();
    commit(&bed, "two", &Change { add: two, ..Change::default() }).await.unwrap();
    bed.append(&rows(10..15)).await;
    let mut before: Vec<_> = files(&bed).await.into_iter().map(|file| file.data).collect();
    before.sort_by_key(|file| (file.sequence_number(), file.path().to_owned()));
    let numbers = before.iter().map(|file| file.sequence_number()).collect::<Vec<_>>();
    assert!(numbers[0] == numbers[1] && numbers[1] < numbers[2], "{numbers:?}");

    let table =
        commit(&bed, "one goes", &Change { remove: vec![before[0].clone()], ..Change::default() }).await.unwrap().table;
    let [entries] = &written(&table).await[..] else { panic!("one manifest was rewritten") };
    let status: Vec<_> = entries.iter().map(|(status, path, _, metrics)| (*status, path.as_str(), *metrics)).collect();
    assert!(status.contains(&(ManifestStatus::Deleted, before[0].path(), false)), "{status:?}");
    assert!(status.contains(&(ManifestStatus::Existing, before[1].path(), true)) && status.len() == 2, "{status:?}");

    let table = commit(&bed, "all go", &Change { replace_all: true, ..Change::default() }).await.unwrap().table;
    let mut marked = written(&table).await.concat();
    assert_eq!(written(&table).await.len(), 1, "marks share a manifest");
    marked.sort_unstable_by(|a, b| a.1.cmp(&b.1));
    let mark = |file: &Tracked| (ManifestStatus::Deleted, file.path().to_owned(), file.sequence_number(), false);
    let mut expected: Vec<_> = before[1..].iter().map(mark).collect();
    expected.sort_unstable_by(|a, b| a.1.cmp(&b.1));
    assert_eq!(marked, expected);
    assert_eq!((ids(&bed).await, summary(&table, "deleted-records")), (vec![], "10"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewrite_keeps_its_sequence_number_so_that_later_equality_deletes_still_apply() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::new(dir.path(), None).await;
    bed.append(&rows(0..10)).await;
    let mut change = rewrite(&bed, &files(&bed).await, &rows(0..10)).await;
    bed.delete_keys(&rows(3..5), &["id"]).await;
    // Asked for, it is a conflict, as for any delete; by its number it need not be.
    loses(&bed, &change, "", "deletes rows of").await;
    change.expect.no_new_deletes_for = None;
    let table = commit(&bed, "rewrite", &change).await.unwrap().table;
    assert_eq!(ids(&bed).await, [0, 1, 2, 5, 6, 7, 8, 9]);
    assert_eq!(summary(&table, "total-equality-deletes"), "2");
    // Without any data file as old as the deletes, they go.
    let live = files(&bed).await;
    let remove = live.iter().map(|f| f.data.clone()).collect();
    let keeps: Vec<Row> = bed.rows().await;
    let change = Change { add: bed.files(&keeps).await, remove, ..Change::default() };
    let table = commit(&bed, "materialise", &change).await.unwrap().table;
    assert_eq!(ids(&bed).await, [0, 1, 2, 5, 6, 7, 8, 9]);
    assert_eq!((summary(&table, "removed-delete-files"), summary(&table, "total-delete-files")), ("1", "0"));
    assert!(files(&bed).await.iter().all(|f| f.deletes().next().is_none()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn position_deletes_go_with_their_only_file_and_stay_with_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::new(dir.path(), Some(("id", Transform::Bucket(2)))).await;
    bed.append(&rows(0..20)).await;
    bed.append(&rows(20..40)).await;
    // One delete file for each partition, which refers to both data files there; and one for one data file alone.
    bed.delete_rows(|row| row.id % 3 == 0).await;
    let lone = files(&bed).await.into_iter().next().unwrap();
    let gone: HashSet<i64> = {
        let reader = scan::Reader::all(&bed.table().await).unwrap();
        let batches: Vec<_> = futures::TryStreamExt::try_collect(reader.rows(&lone).await.unwrap()).await.unwrap();
        let first: &scan::LiveBatch = &batches[0];
        let column = arrow_array::cast::AsArray::as_primitive::<arrow_array::types::Int64Type>(first.batch.column(0));
        column.values().iter().copied().take(1).collect()
    };
    let table = bed.delete_rows(|row| gone.contains(&row.id)).await;
    assert_eq!(summary(&table, "total-delete-files"), "3");
    let lone = files(&bed).await.into_iter().find(|f| f.path() == lone.path()).unwrap();
    let own = lone.deletes().filter(|d| d.file().referenced_data_file().as_deref() == Some(lone.path()));
    assert_eq!((lone.deletes().count(), own.count()), (2, 1));
    let before = ids(&bed).await;
    let reader = scan::Reader::new(&table, &["id"]).unwrap();
    let batches: Vec<scan::LiveBatch> =
        futures::TryStreamExt::try_collect(reader.rows(&lone).await.unwrap()).await.unwrap();
    let kept: usize = batches.iter().map(|b| b.positions.len()).sum();
    let change = Change { remove: vec![lone.data.clone()], ..Change::default() };
    let table = commit(&bed, "drop", &change).await.unwrap().table;
    assert_eq!(operation(&table), Operation::Delete);
    assert_eq!((summary(&table, "removed-delete-files"), summary(&table, "total-delete-files")), ("1", "2"));
    assert_eq!(ids(&bed).await.len(), before.len() - kept);
    // A delete file may also be named itself.
    let delete = files(&bed).await.into_iter().find_map(|f| f.deletes().next().cloned()).unwrap();
    let change = Change { remove: vec![delete.as_ref().clone()], ..Change::default() };
    let table = commit(&bed, "undelete", &change).await.unwrap().table;
    assert_eq!(summary(&table, "total-delete-files"), "1");
    assert!(ids(&bed).await.len() > before.len() - kept);
    loses(&bed, &change, delete.path(), "is not part of the table any more").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_found_where_merges_have_moved_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::new(dir.path(), Some(("id", Transform::Bucket(2)))).await;
    bed.append(&rows(0..10)).await;
    let planned = files(&bed).await;
    let deletion = bed.deletion(|row| row.id == 3).await;
    let add = bed.files(&rows(10..11)).await;
    for number in 0..101 {
        // Only its entries count here.
        commit(&bed, &format!("m{number}"), &Change { add: add.clone(), ..Change::default() }).await.unwrap();
    }
    let now = files(&bed).await;
    let moved = |file: &LiveFile| now.iter().any(|f| f.path() == file.path() && f.data.manifest != file.data.manifest);
    assert!(planned.iter().all(moved), "the manifest was merged");
    commit(&bed, "delete", &deletion).await.unwrap();
    let remove = planned.iter().map(|f| f.data.clone()).collect();
    commit(&bed, "remove", &Change { remove, ..Change::default() }).await.unwrap();
    assert_eq!(files(&bed).await.len(), 101);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_is_invisible_until_it_is_published_and_main_must_not_have_moved() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::new(dir.path(), None).await;
    bed.append(&rows(0..10)).await;
    let on = |branch: &str, add| Change { branch: Some(branch.to_owned()), add, ..Change::default() };
    for (number, ids) in [(1, 10..12), (2, 12..14)] {
        commit(&bed, &format!("b{number}"), &on("audit", bed.files(&rows(ids)).await)).await.unwrap();
    }
    // The same commit again is recognised on its branch.
    assert_eq!(commit(&bed, "b2", &on("audit", Vec::new())).await.unwrap().attempts, 0);
    commit(&bed, "late", &on("other", bed.files(&rows(90..91)).await)).await.unwrap();
    assert_eq!(ids(&bed).await.len(), 10);
    let table = bed.table().await;
    let head = Head::of(table.metadata(), Some("audit")).snapshot.cloned();
    assert_eq!(live(&table, head.as_ref(), &All).await.unwrap().len(), 3);

    let committer = bed.committer();
    let table = committer.fast_forward(&bed.ident, "audit").await.unwrap();
    assert_eq!(table.metadata().current_snapshot_id(), head.map(|s| s.snapshot_id()));
    assert_eq!(ids(&bed).await, (0..14).collect::<Vec<_>>());
    // Again is nothing; a branch that main has left behind is a conflict.
    committer.fast_forward(&bed.ident, "audit").await.unwrap();
    for (branch, why) in [("other", "main has moved on"), ("none", "there is no such branch")] {
        let error = committer.fast_forward(&bed.ident, branch).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Conflict && error.to_string().contains(why), "{error}");
    }
    // What a reprocess made is dropped, and nothing else.
    let error = committer.drop_branch(&bed.ident, "other").await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("no reprocess made"), "{error}");
    let summary = [(offsets::SCOPE.to_owned(), format!("{}a..b", offsets::SCOPE_REPROCESS))].into();
    commit(&bed, "ours", &Change { summary, ..on("ours", bed.files(&rows(91..92)).await) }).await.unwrap();
    for _ in 0..2 {
        let table = committer.drop_branch(&bed.ident, "ours").await.unwrap();
        assert!(table.metadata().snapshot_for_ref("ours").is_none());
    }
    assert_eq!(committer.drop_branch(&bed.ident, "main").await.unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(ids(&bed).await.len(), 14);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_leaves_the_retention_of_its_branch_as_somebody_set_it() {
    use iceberg::spec::{SnapshotReference, SnapshotRetention};
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::new(dir.path(), None).await;
    let table = bed.append(&rows(0..1)).await;
    let id = table.metadata().current_snapshot_id().unwrap();
    let kept = SnapshotReference::new(id, SnapshotRetention::branch(Some(7), Some(1_000_000), None));
    let tag = SnapshotReference::new(id, SnapshotRetention::Tag { max_ref_age_ms: None });
    let set = |name: &str, reference| TableUpdate::SetSnapshotRef { ref_name: name.to_owned(), reference };
    let updates = vec![set("main", kept), set("fixed", tag)];
    bed.catalog.commit(&table, updates, Vec::<TableRequirement>::new()).await.unwrap();
    let table = bed.append(&rows(1..2)).await;
    let retention = Head::of(table.metadata(), None).retention(table.metadata()).unwrap();
    assert_eq!(retention, SnapshotRetention::branch(Some(7), Some(1_000_000), None));
    let change = Change { branch: Some("fixed".to_owned()), add: bed.files(&rows(2..3)).await, ..Change::default() };
    loses(&bed, &change, "fixed", "is a tag").await;
}
