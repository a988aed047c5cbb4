//! Replaces rows by where they came from: what `reprocess` and the quarantine's idempotent commit are made of.
//!
//! [`remove`] reads the provenance of candidate files and sorts them into three heaps: a file whose rows are all meant is
//! removed, one with some is rewritten without them, one with none is kept. Nothing is visible before the commit, which
//! checks that the files are still live and that nobody added rows or deletes meanwhile ([`Removal::apply_to`]).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use firn_shared::error::{Error, Result};
use firn_shared::ids::PartitionRef;
use futures::TryStreamExt;
use iceberg::table::Table;

use super::read::{Origins, Rows, batches};
use super::scan::{LiveFile, Reader, live};
use super::{Change, NewFile};
use crate::provenance;
use crate::write::{WriteSpec, write_stream};

/// Files and rows that go out of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Removal {
    /// Which rows.
    pub rows: Rows,
    /// The snapshot it was made on; `None` for a table without one.
    pub base_snapshot: Option<i64>,
    /// Files that go, rewritten ones included.
    pub removed: Vec<LiveFile>,
    /// What is left of the rewritten ones.
    pub rewritten: Vec<NewFile>,
    /// Rows that go, per partition they came from.
    pub rows_removed: BTreeMap<PartitionRef, u64>,
    /// Of each partition the rows that go beyond the first of their record, which [`Self::rows_removed`] does not count.
    pub further_removed: BTreeMap<PartitionRef, u64>,
}

impl Removal {
    /// Whether nothing goes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty()
    }

    /// Puts the removal into a change, with what must hold for it.
    pub fn apply_to(self, change: &mut Change) {
        change.add.extend(self.rewritten);
        change.expect.no_new_files = Some((self.base_snapshot, Arc::new(self.rows)));
        // A delete that came meanwhile would be undone by a rewritten file, and its rows are counted as removed here.
        change.expect.no_new_deletes_for =
            Some((self.base_snapshot, self.removed.iter().map(|f| f.data.clone()).collect()));
        change.remove.extend(self.removed.into_iter().map(|f| f.data));
    }
}

/// What one file holds.
#[derive(Default)]
struct Holding {
    meant: u64,
    others: u64,
    by_partition: BTreeMap<PartitionRef, u64>,
    further: BTreeMap<PartitionRef, u64>,
}

/// Finds the files that hold `rows` and rewrites the mixed ones through a writer made from `spec`. Memory: one batch of
/// rows, and the writer's bound.
///
/// # Errors
/// `Config` for a table without provenance; else as reading and writing say.
pub async fn remove(table: &Table, rows: Rows, spec: WriteSpec) -> Result<Removal> {
    let mut removal = Removal {
        base_snapshot: table.metadata().current_snapshot_id(),
        rows,
        removed: Vec::new(),
        rewritten: Vec::new(),
        rows_removed: BTreeMap::new(),
        further_removed: BTreeMap::new(),
    };
    if table.metadata().current_schema().field_by_name(provenance::COLUMN).is_none() {
        let (table, column) = (table.identifier(), provenance::COLUMN);
        return Err(Error::config(format!(
            "{table} has no column {column}, so rows cannot be replaced by their origin"
        )));
    }
    let reader = Reader::new(table, &[provenance::COLUMN])?;
    let mut mixed = Vec::new();
    for file in live(table, None, &removal.rows).await? {
        let holding = look(&reader, &file, &removal.rows).await?;
        if holding.meant == 0 {
            continue;
        }
        if holding.others > 0 {
            mixed.push(file.clone());
        }
        removal.removed.push(file);
        for (partition, count) in holding.by_partition {
            *removal.rows_removed.entry(partition).or_default() += count;
        }
        for (partition, count) in holding.further {
            *removal.further_removed.entry(partition).or_default() += count;
        }
    }
    removal.removed.sort_by(|a, b| a.path().cmp(b.path()));
    if !mixed.is_empty() {
        removal.rewritten = rewrite(Reader::all(table)?, mixed, removal.rows.clone(), spec).await?;
    }
    Ok(removal)
}

/// Counts the rows of a file, deletes applied.
async fn look(reader: &Reader, file: &LiveFile, rows: &Rows) -> Result<Holding> {
    let mut holding = Holding::default();
    let mut stream = reader.rows(file).await?;
    // Rows of one file come from few partitions: the reference is built once a partition, not once a row.
    let mut partitions: HashMap<(String, String, i32, i32), PartitionRef> = HashMap::new();
    while let Some(batch) = stream.try_next().await?.map(|live| live.batch) {
        let selected = rows.select(&batch)?;
        holding.meant += selected.true_count() as u64;
        holding.others += (batch.num_rows() - selected.true_count()) as u64;
        let column = batch.column_by_name(provenance::COLUMN).and_then(|c| c.as_struct_opt());
        let Some(column) = column else { continue };
        let origins = Origins::of(column)?;
        let mut counts: HashMap<(&str, &str, i32, i32), [u64; 2]> = HashMap::new();
        for row in selected.values().set_indices() {
            let (cluster, topic) = (origins.clusters.value(row), origins.topics.value(row));
            let key = (cluster, topic, origins.generations.value(row), origins.partitions.value(row));
            let count = counts.entry(key).or_default();
            count[usize::from(origins.ordinal(row) > 0)] += 1;
            if count.iter().sum::<u64>() == 1 {
                let owned = (cluster.to_owned(), topic.to_owned(), key.2, key.3);
                if let (std::collections::hash_map::Entry::Vacant(new), Some(partition)) =
                    (partitions.entry(owned), origins.partition(row)?)
                {
                    new.insert(partition);
                }
            }
        }
        for ((cluster, topic, generation, partition), [first, further]) in counts {
            let key = (cluster.to_owned(), topic.to_owned(), generation, partition);
            if let Some(partition) = partitions.get(&key) {
                *holding.by_partition.entry(partition.clone()).or_default() += first;
                if further > 0 {
                    *holding.further.entry(partition.clone()).or_default() += further;
                }
            }
        }
    }
    Ok(holding)
}

/// Writes the rows of `files` that are not meant, all columns, in their order.
async fn rewrite(reader: Reader, files: Vec<LiveFile>, rows: Rows, spec: WriteSpec) -> Result<Vec<NewFile>> {
    let kept = batches(reader, files).and_then(|live| {
        let kept = rows.select(&live.batch).and_then(|meant| {
            let others = arrow_array::BooleanArray::new(!meant.values(), None);
            let kept = arrow_select::filter::filter_record_batch(&live.batch, &others);
            kept.map_err(|e| Error::bug("cannot filter rows").with_source(e))
        });
        std::future::ready(kept)
    });
    write_stream(spec, kept).await
}
