//! What the ledger says of the offsets that a table has consumed.

use std::collections::BTreeMap;
use std::sync::Arc;

use firn_shared::error::{Error, Result};
use firn_shared::ids::{Offset, PartitionRef, TopicRef};
use firn_shared::raw::chain::Chain;
use firn_shared::raw::manifest::BatchManifest;
use firn_shared::store::Store;
use futures::{StreamExt, TryStreamExt, stream};

use super::account::Totals;
use crate::plan::position::Position;
use crate::plan::read::partitions;

const PARTITIONS_AT_ONCE: usize = 8;

/// A partition's manifests, added up to the table's position.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LedgerTotals {
    /// Everything that manifests count; rows, quarantined, filtered and superseded are left at 0.
    pub totals: Totals,
    /// Records in raw objects, tombstones included.
    pub records: u64,
    /// Records, refused ones included, whose personal values were taken out.
    pub erased: u64,
    /// First offset that no manifest accounts for: the table is behind by `end` less its position.
    pub end: Offset,
}

/// Adds up the chains of these topics to where the table stands. Partitions the table has not read have totals of 0.
///
/// # Errors
/// `Data` when a chain is broken or the position lies inside a batch or beyond the chain; those of the store.
pub async fn totals(
    store: &Arc<dyn Store>,
    topics: &[TopicRef],
    position: &Position,
) -> Result<BTreeMap<PartitionRef, LedgerTotals>> {
    let mut all = partitions(&**store, topics).await?;
    all.extend(position.iter().map(|(partition, _)| partition));
    all.sort();
    all.dedup();
    stream::iter(all)
        .map(|partition| {
            let (store, position) = (Arc::clone(store), position.get(&partition).unwrap_or(0));
            async move {
                let mut totals = LedgerTotals::default();
                totals.end = up_to(store, &partition, position, &mut |batch| {
                    totals.records += batch.records();
                    totals.erased += batch.erased();
                    totals.totals.add_batch(&batch);
                    Ok(())
                })
                .await?;
                Ok((partition, totals))
            }
        })
        .buffered(PARTITIONS_AT_ONCE)
        .try_collect()
        .await
}

/// Visits the batches of a partition below the table's position, and returns the chain's end.
///
/// # Errors
/// As [`totals`].
pub async fn up_to(
    store: Arc<dyn Store>,
    partition: &PartitionRef,
    position: Offset,
    visit: &mut (dyn FnMut(BatchManifest) -> Result<()> + Send),
) -> Result<Offset> {
    let mut chain = Chain::new(store, partition.clone());
    let end = chain.end_after(Some(position)).await?.map_or(0, |end| end.end);
    let reached = part(&chain, (0, position), &mut |batch| visit(batch).map(|()| true)).await?;
    if reached != position {
        return Err(not_at(partition, position, reached));
    }
    Ok(end)
}

/// Visits the batches from an end of one of them on, up to `position` or until `visit` says that it has enough, and returns
/// where it came to.
///
/// # Errors
/// As [`totals`].
pub async fn part(
    chain: &Chain,
    (from, position): (Offset, Offset),
    visit: &mut (dyn FnMut(BatchManifest) -> Result<bool> + Send),
) -> Result<Offset> {
    let mut reached = from;
    if from < position {
        chain
            .scan(from, &mut |batch| {
                if batch.range.start() >= position {
                    return Ok(false);
                }
                reached = batch.range.end();
                Ok(visit(batch)? && reached < position)
            })
            .await?;
    }
    Ok(reached)
}

/// The error for a position that is not the end of a batch.
pub fn not_at(partition: &PartitionRef, position: Offset, reached: Offset) -> Error {
    Error::data(format!(
        "cannot reconcile {partition}: the table has read up to offset {position}, the nearest end of a batch in the ledger is \
         {reached}; the raw zone is not the one the table was written from"
    ))
}
