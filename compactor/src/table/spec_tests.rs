//! Tables whose partitioning has changed: files of two specs beside each other.

use iceberg::spec::Transform as T;

use super::scan::tests::{Bed, Row};
use super::scan::{All, LiveFile, live};
use super::*;
use crate::write::deletes::write_equality_deletes;

fn rows(ids: std::ops::Range<i64>) -> Vec<Row> {
    ids.map(|id| Row { id, v: Some(id % 3), ..Row::default() }).collect()
}

async fn ids(bed: &Bed) -> Vec<i64> {
    bed.rows().await.iter().map(|row| row.id).collect()
}

async fn files(bed: &Bed) -> Vec<LiveFile> {
    live(&bed.table().await, None, &All).await.unwrap()
}

async fn specs(bed: &Bed) -> Vec<i32> {
    let mut specs: Vec<i32> = files(bed).await.iter().map(|file| file.data.spec_id).collect();
    specs.sort_unstable();
    specs.dedup();
    specs
}

/// All rows anew, in files of the current spec, as a compaction that moves them writes them.
async fn rewrite(bed: &mut Bed) {
    let remove = files(bed).await.into_iter().map(|file| file.data).collect();
    let add = bed.files(&bed.rows().await).await;
    bed.commit(Change { add, remove, changes_no_row: true, ..Change::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_works_on_files_of_a_spec_whose_column_was_dropped() {
    use firn_shared::config::domain::Transform;
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::new(dir.path(), Some(("v", Transform::Identity))).await;
    bed.append(&rows(0..9)).await;
    // Its partitions have the type from before the promotion.
    bed.evolve(0).await;
    bed.append(&rows(9..18)).await;
    bed.repartition(Some(("id", T::Bucket(2)))).await;
    bed.drop_v().await;
    bed.append(&rows(18..27)).await;
    assert_eq!(specs(&bed).await, [0, 1]);

    bed.delete_rows(|row| row.id % 9 == 4).await;
    bed.delete_keys(&rows(6..8), &["id"]).await;
    let left = |id: &i64| id % 9 != 4 && ![6, 7].contains(id);
    let expected: Vec<i64> = (0..27).filter(left).collect();
    assert_eq!(ids(&bed).await, expected);
    let old = files(&bed).await.into_iter().filter(|file| file.data.spec_id == 0);
    assert!(
        old.flat_map(|file| file.deletes().cloned().collect::<Vec<_>>()).all(|delete| delete.spec_id == 0),
        "deletes lie beside their files"
    );

    // A description of a file of the old spec travels, too.
    let table = bed.table().await;
    for file in files(&bed).await {
        let new = NewFile { spec_id: file.data.spec_id, file: file.file().clone() };
        let json = new.to_json(table.metadata()).unwrap();
        assert_eq!(NewFile::from_json(&json, new.spec_id, table.metadata()).unwrap().spec_id, new.spec_id);
    }

    let old = files(&bed).await.into_iter().find(|file| file.data.spec_id == 0).unwrap();
    let gone: Vec<i64> = {
        let before = ids(&bed).await;
        bed.commit(Change { remove: vec![old.data], ..Change::default() }).await;
        let after = ids(&bed).await;
        before.into_iter().filter(|id| !after.contains(id)).collect()
    };
    assert!(!gone.is_empty() && gone.iter().all(|id| *id < 18));
    rewrite(&mut bed).await;
    assert_eq!(specs(&bed).await, [1]);
    assert_eq!(ids(&bed).await, expected.into_iter().filter(|id| !gone.contains(id)).collect::<Vec<_>>());
    assert!(files(&bed).await.iter().all(|file| file.deletes().next().is_none()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equality_deletes_without_partition_reach_every_spec_and_those_of_a_partition_only_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::new(dir.path(), None).await;
    bed.append(&rows(0..6)).await;
    bed.repartition(Some(("id", T::Bucket(2)))).await;
    bed.append(&rows(6..12)).await;
    assert_eq!(specs(&bed).await, [0, 1]);
    let table = bed.table().await;
    let delete = async |ids: Vec<i64>, spec_id: i32, partition: iceberg::spec::Struct| {
        let ids: arrow_array::ArrayRef = std::sync::Arc::new(arrow_array::Int64Array::from(ids));
        let keys = arrow_array::RecordBatch::try_from_iter([("id", ids)]).unwrap();
        let (spec, id) = (bed.spec(&table), table.metadata().current_schema().field_id_by_name("id").unwrap());
        let job = move || write_equality_deletes(&spec, &keys, &[id], (spec_id, partition)).unwrap();
        tokio::task::spawn_blocking(job).await.unwrap()
    };
    let global = delete(vec![1, 7], 0, iceberg::spec::Struct::empty()).await;
    let partition = files(&bed).await.into_iter().find(|file| file.data.spec_id == 1).unwrap();
    let own = delete((0..12).collect(), 1, partition.file().partition().clone()).await;
    bed.commit(Change { add: global, ..Change::default() }).await;
    assert_eq!(ids(&bed).await, [0, 2, 3, 4, 5, 6, 8, 9, 10, 11]);
    // Of the partitioned spec: rows of one of its partitions, and none of the other spec.
    let before = files(&bed).await;
    bed.commit(Change { add: own, ..Change::default() }).await;
    let left = ids(&bed).await;
    assert!(left.starts_with(&[0, 2, 3, 4, 5]) && left.len() < 10, "{left:?}");
    for (file, before) in files(&bed).await.iter().zip(&before) {
        let more = file.data.key() == partition.data.key();
        assert_eq!(file.deletes().count(), before.deletes().count() + usize::from(more), "{}", file.path());
    }
    // What comes later stays, and so does what is left when all of it moves to one spec.
    bed.append(&rows(1..2)).await;
    let left = ids(&bed).await;
    assert!(left.contains(&1));
    rewrite(&mut bed).await;
    assert_eq!((specs(&bed).await, ids(&bed).await), (vec![1], left));
}
