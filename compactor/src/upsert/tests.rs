//! Buckets of many keys, whole and in parts: what becomes of a key does not depend on its neighbours.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow_schema::{DataType, Field, Schema};
use firn_shared::config::domain::{DeleteFiles, Upsert, WriteStrategy};
use firn_shared::ids::{ColumnName, EventHour, Offset, Partition, PartitionRef, RunId};
use iceberg::spec::{TableMetadata, TableMetadataBuilder};
use iceberg::{NamespaceIdent, TableIdent};
use proptest::prelude::*;

use super::bucket::Bucket;
use super::frames::lock;
use super::key::{LEVELS_MAX, bucket};
use super::merge::{Merged, Places, Rules, UNVERSIONED, known_schema, merge};
use super::shuffle::Shuffle;
use super::truncate::Truncations;
use crate::execute::Rows;
use crate::provenance::{self, Origin};
use crate::table::create::Definition;
use crate::table::schema::TableColumn;

/// Memory of which a bucket's share is [`SHARE`].
const MEMORY: u64 = 16 * SHARE;
const SHARE: u64 = 64 << 10;

fn metadata() -> TableMetadata {
    let id = TableColumn { name: "id".to_owned(), r#type: "long".parse().unwrap(), required: true, doc: None };
    let definition = Definition {
        ident: TableIdent::new(NamespaceIdent::new("d".to_owned()), "t".to_owned()),
        location: "file:///t".to_owned(),
        columns: vec![id, TableColumn::provenance()],
        partition_by: Vec::new(),
        sort_by: Vec::new(),
        properties: BTreeMap::new(),
        needed: BTreeMap::new(),
    };
    let built = TableMetadataBuilder::from_table_creation(definition.creation().unwrap()).unwrap().build();
    built.unwrap().metadata
}

/// A shuffle into `buckets`, which hold nothing yet.
fn shuffle(buckets: u64, dir: &std::path::Path) -> Arc<Shuffle> {
    let upsert = Upsert {
        keys: vec![ColumnName::new("id").unwrap()],
        versions: Vec::new(),
        strategy: WriteStrategy::MergeOnRead(DeleteFiles::Position),
        delete_memory: Duration::from_hours(1),
        soft_delete: false,
    };
    let sizes = (1000, buckets * SHARE);
    let shuffle = Arc::new(Shuffle::new(&upsert, &metadata(), (dir, RunId::new()), sizes, MEMORY).unwrap());
    assert_eq!(shuffle.buckets() as u64, buckets);
    shuffle
}

/// Rows of the table: key and offset.
fn rows(of: &[(i64, Offset)]) -> RecordBatch {
    let partition = PartitionRef { topic: "c/t/1".parse().unwrap(), partition: Partition(0) };
    let origin = Origin { partition, hour: EventHour::from_epoch_hours(1) };
    let places: Vec<(u32, Offset)> = of.iter().map(|(_, offset)| (0, *offset)).collect();
    let origins = provenance::column(&[origin], &places).unwrap();
    let schema = crate::table::schema::arrow_schema(metadata().current_schema()).unwrap();
    let ids: ArrayRef = Arc::new(of.iter().map(|(id, _)| Some(*id)).collect::<Int64Array>());
    let field = Field::new(provenance::COLUMN, origins.data_type().clone(), true);
    let plain = Schema::new(vec![Field::new("id", DataType::Int64, false), field]);
    let batch = RecordBatch::try_new(Arc::new(plain), vec![ids, Arc::new(origins)]).unwrap();
    crate::write::conform(&batch, &schema).unwrap()
}

/// What the table knows, each row of file 0 at its number.
fn known(of: &[(i64, Offset)]) -> RecordBatch {
    known_at(of, (0..of.len() as i64).collect(), vec![false; of.len()])
}

/// What the table knows, at these positions of file 0, and what of it the run replaces.
fn known_at(of: &[(i64, Offset)], positions: Vec<i64>, replaced: Vec<bool>) -> RecordBatch {
    let batch = rows(of);
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(UInt32Array::from(vec![0; of.len()])));
    columns.push(Arc::new(Int64Array::from(positions)));
    columns.push(Arc::new(BooleanArray::from(replaced)));
    RecordBatch::try_new(known_schema(batch.schema_ref()), columns).unwrap()
}

/// Each bucket of the shuffle with what it holds of these rows.
fn buckets(shuffle: &Arc<Shuffle>, incoming: &[(i64, Offset)], table: &[(i64, Offset)]) -> Vec<Bucket> {
    let deletes = incoming.iter().map(|(id, _)| id % 7 == 0).collect();
    let mut writer =
        super::ShuffleWriter::new(super::Buckets { shuffle: Arc::clone(shuffle), recall: None }, MEMORY).unwrap();
    writer.write(&Rows { batch: rows(incoming), deletes: Some(deletes), silent: None }).unwrap();
    writer.finish().unwrap();
    let (of_table, of_deletes) = (shuffle.more("rows"), shuffle.more("deletes"));
    let batch = known(table);
    for (number, key) in shuffle.keys().keys(&batch).unwrap().iter().enumerate() {
        let at = bucket(key.data(), shuffle.buckets());
        lock(&of_table[at]).append(&batch.slice(number, 1)).unwrap();
    }
    let bucket = |at: usize| Bucket {
        incoming: Arc::clone(&shuffle.rows()[at]),
        recalled: None,
        rows: Arc::clone(&of_table[at]),
        deletes: Arc::clone(&of_deletes[at]),
        level: 0,
    };
    (0..shuffle.buckets()).map(bucket).collect()
}

/// The outcome of all buckets, each split until it is no larger than `bytes_max`, and how many parts they were.
fn outcome(shuffle: &Arc<Shuffle>, mut waiting: Vec<Bucket>, bytes_max: u64) -> (Merged, Vec<(i64, i64)>, usize) {
    let truncations = Truncations::newest(shuffle.keys(), []).unwrap();
    let rules = Rules { truncations: &truncations, soft: false, forgotten: false, everything: false };
    let (mut total, mut rows, mut parts) = (Merged::default(), Vec::new(), 0);
    while let Some(bucket) = waiting.pop() {
        if let Some(smaller) = bucket.split(shuffle, bytes_max).unwrap() {
            assert_eq!(smaller.iter().map(row_count).sum::<u64>(), row_count(&bucket), "no row is lost");
            waiting.extend(smaller);
            continue;
        }
        parts += 1;
        let mut merged = merge(shuffle.keys(), &bucket, rules, bytes_max.min(1 << 20) as usize, |_| Ok(())).unwrap();
        for batch in merged.rows.drain(..) {
            let offsets = batch[provenance::COLUMN].as_struct().column_by_name(provenance::OFFSET).unwrap().clone();
            let (ids, offsets) = (batch["id"].as_primitive::<Int64Type>(), offsets.as_primitive::<Int64Type>());
            rows.extend(ids.values().iter().copied().zip(offsets.values().iter().copied()));
        }
        total.add_counts(&mut merged);
    }
    rows.sort_unstable();
    (total, rows, parts)
}

fn row_count(bucket: &Bucket) -> u64 {
    [&bucket.incoming, &bucket.rows, &bucket.deletes].into_iter().map(|file| lock(file).rows()).sum()
}

fn plain(merged: &Merged) -> (Places, [&super::Counts; 3]) {
    (merged.outdated.clone(), [&merged.superseded, &merged.deleted, &merged.outdated_by])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn many_buckets_and_parts_of_buckets_come_to_what_one_comes_to(
        incoming in prop::collection::vec((0..60i64, 0..500u64), 1..150),
        table in prop::collection::btree_map(0..60i64, 0..500u64, 0..60),
    ) {
        let mut incoming = incoming;
        incoming.sort_unstable_by_key(|row| row.1);
        incoming.dedup_by_key(|row| row.1);
        let table: Vec<_> = table.into_iter().collect();
        let dir = tempfile::tempdir().unwrap();
        let one = shuffle(1, dir.path());
        let (expected, rows, parts) = outcome(&one, buckets(&one, &incoming, &table), u64::MAX);
        prop_assert_eq!(parts, 1);
        for (count, bytes_max) in [(5, u64::MAX), (1, 16 << 10), (2, 4 << 10)] {
            let of = shuffle(count, dir.path());
            let (found, same, _) = outcome(&of, buckets(&of, &incoming, &table), bytes_max);
            prop_assert_eq!(&same, &rows);
            prop_assert_eq!(plain(&found), plain(&expected));
        }
    }
}

/// A file of these rows, each a batch.
fn spilled(shuffle: &Shuffle, rows: &RecordBatch) -> super::SharedFile {
    let file = shuffle.scratch(1).remove(0);
    (0..rows.num_rows()).for_each(|row| lock(&file).append(&rows.slice(row, 1)).unwrap());
    file
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_key_of_many_rows_comes_to_the_same_however_few_of_them_are_held(
        incoming in prop::collection::vec((0..4i64, 0..90u64), 0..8),
        recalled in prop::collection::vec((0..4i64, 0..90u64), 0..8),
        table in prop::collection::vec((0..4i64, 0..90u64, any::<bool>()), 0..60),
        deletes in prop::collection::vec((0..4i64, 0..90u64, any::<bool>(), any::<bool>()), 0..30),
        (soft, forgotten) in (any::<bool>(), any::<bool>()),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let shuffle = shuffle(1, dir.path());
        let mut incoming = incoming;
        incoming.sort_unstable_by_key(|row| row.1);
        incoming.dedup_by_key(|row| row.1);
        let mut bucket = buckets(&shuffle, &incoming, &[]).remove(0);
        let of: Vec<_> = table.iter().map(|row| (row.0, row.1)).collect();
        let replaced = table.iter().map(|row| row.2).collect();
        bucket.rows = spilled(&shuffle, &known_at(&of, (0..of.len() as i64).collect(), replaced));
        let of: Vec<_> = deletes.iter().map(|row| (row.0, row.1)).collect();
        let unversioned = deletes.iter().map(|row| i64::from(row.3) * UNVERSIONED).collect();
        bucket.deletes = spilled(&shuffle, &known_at(&of, unversioned, deletes.iter().map(|row| row.2).collect()));
        let earlier = self::shuffle(1, dir.path());
        bucket.recalled = Some(Arc::clone(&buckets(&earlier, &recalled, &[])[0].incoming));
        let truncations = Truncations::newest(shuffle.keys(), []).unwrap();
        let rules = Rules { truncations: &truncations, soft, forgotten, everything: false };
        let outcome = |bytes_max: usize| {
            let mut gone = Vec::new();
            let merged = merge(shuffle.keys(), &bucket, rules, bytes_max, |keys| {
                gone.extend(keys["id"].as_primitive::<Int64Type>().values().iter().copied());
                Ok(())
            });
            let mut merged = merged.unwrap();
            let rows = [&mut merged.rows, &mut merged.deletes, &mut merged.marks].map(std::mem::take);
            (rows, format!("{merged:?}"), gone)
        };
        prop_assert_eq!(outcome(1), outcome(usize::MAX));
        let wanted = |bytes_max| super::merge::orphans(shuffle.keys(), &bucket, bytes_max, (forgotten, soft)).unwrap();
        prop_assert_eq!(wanted(1), wanted(usize::MAX));
    }
}

#[test]
fn rows_of_one_key_are_no_longer_held_than_they_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let shuffle = shuffle(1, dir.path());
    let mut bucket = buckets(&shuffle, &[(1, 1_000_000)], &[]).remove(0);
    let file = shuffle.scratch(1).remove(0);
    for from in 0..50 {
        lock(&file).append(&known(&(0..1000).map(|n| (1, from * 1000 + n)).collect::<Vec<_>>())).unwrap();
    }
    bucket.rows = file;
    let known = super::known::Table::of(shuffle.keys(), &bucket, SHARE as usize, |_| Ok(())).unwrap();
    assert_eq!((known.rows.unwrap().num_rows(), known.again.is_some()), (1, true));
    // All of them go, though only one of them is held.
    let truncations = Truncations::newest(shuffle.keys(), []).unwrap();
    let rules = Rules { truncations: &truncations, soft: false, forgotten: false, everything: false };
    let (mut gone, mut most) = (0, 0);
    let merged = merge(shuffle.keys(), &bucket, rules, SHARE as usize, |keys| {
        (gone, most) = (gone + keys.num_rows(), most.max(keys.num_rows()));
        Ok(())
    });
    assert_eq!((gone, most, merged.unwrap().outdated_by.values().sum::<u64>()), (50_000, 1000, 50_000));
}

#[test]
fn a_bucket_of_rows_that_a_truncate_takes_is_split_until_its_parts_fit() {
    let dir = tempfile::tempdir().unwrap();
    let shuffle = shuffle(1, dir.path());
    // One record of the run, and a table that is a hundred times its share.
    let table: Vec<(i64, Offset)> = (0..100_000).map(|id| (id, id as u64)).collect();
    let mut bucket = buckets(&shuffle, &[(1, 1_000_000)], &[]).remove(0);
    let file = shuffle.scratch(1).remove(0);
    for rows in table.chunks(1000) {
        lock(&file).append(&known(rows)).unwrap();
    }
    bucket.rows = file;
    assert!(bucket.bytes() > 50 * SHARE);
    let (mut waiting, mut rows, mut largest) = (vec![bucket], 0, 0);
    while let Some(bucket) = waiting.pop() {
        match bucket.split(&shuffle, SHARE).unwrap() {
            Some(parts) => waiting.extend(parts),
            None => {
                rows += row_count(&bucket);
                largest = largest.max(bucket.bytes());
            }
        }
    }
    assert_eq!(rows, 100_001);
    assert!(largest <= SHARE, "{largest} bytes");
    // Parts are gone from the disk with whoever dropped them.
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().collect();
    let files = std::fs::read_dir(left[0].path()).unwrap().count();
    assert!(files <= 2, "{files} files");
}

#[test]
fn many_versions_of_one_key_are_not_split_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let shuffle = shuffle(1, dir.path());
    let incoming: Vec<(i64, Offset)> = (0..5000).map(|offset| (1, offset)).collect();
    let mut bucket = buckets(&shuffle, &incoming, &[]).remove(0);
    let mut splits = 0;
    while let Some(mut parts) = bucket.split(&shuffle, 1 << 10).unwrap() {
        assert_eq!(parts.len(), 1);
        bucket = parts.remove(0);
        splits += 1;
    }
    assert!(splits <= LEVELS_MAX);
    let (_, rows, _) = outcome(&shuffle, vec![bucket], u64::MAX);
    assert_eq!(rows, [(1, 4999)]);
}
