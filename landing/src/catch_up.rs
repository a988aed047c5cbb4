//! When a run that is to end has done everything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use firn_shared::error::Result;
use firn_shared::ids::{Offset, PartitionRef};
use firn_shared::raw::progress;

use crate::lane::Work;
use crate::ledger;
use crate::observe::{self, Bounds};
use crate::pipeline::Shared;
use crate::rotate::Cause;

/// How often it is looked whether everything is done.
const LOOK: Duration = Duration::from_millis(250);
/// Every how many looks the raw zone is asked about partitions that another daemon has.
const ELSEWHERE: u32 = 20;

/// Waits until every partition's chain has reached its target, closing batches that have read that far.
///
/// # Errors
/// Those of the store and of the cluster.
pub async fn catch_up(shared: &Arc<Shared>, targets: Bounds) -> Result<()> {
    let mut open: BTreeMap<_, _> = targets.into_iter().map(|(partition, (_, end))| (partition, end)).collect();
    let mut tick = tokio::time::interval(LOOK);
    let mut looks = 0_u32;
    loop {
        tick.tick().await;
        looks += 1;
        let (lanes, stopped, ends, joined) = {
            let state = shared.state();
            (state.lanes.clone(), state.stopped.clone(), state.ends.clone(), state.joined.len())
        };
        open.retain(|partition, target| {
            !stopped.contains_key(partition) && ends.get(partition).is_none_or(|end| end < target)
        });
        for (partition, target) in &open {
            if let Some(lane) = lanes.get(partition)
                && lane.status().taken >= *target
            {
                lane.push(Work::Seal(Cause::Drain));
            }
        }
        // Once the group has told every consumer what is its own, the rest is another daemon's.
        if looks.is_multiple_of(ELSEWHERE) && joined == shared.consumers() {
            for partition in open.keys().filter(|partition| !lanes.contains_key(partition)) {
                elsewhere(shared, partition, ends.get(partition).copied()).await?;
            }
        }
        if open.is_empty() {
            // What the lanes now learn lets them say that their hours are complete.
            return observe::ends(shared).await;
        }
    }
}

/// Looks how far another daemon has come with a partition; it shows in the raw zone only. One that holds no record has no
/// chain, and one that waits for an operator gets no further, which this daemon's operator wants to know too.
async fn elsewhere(shared: &Arc<Shared>, partition: &PartitionRef, hint: Option<Offset>) -> Result<()> {
    let said = progress::read(shared.store.as_ref(), partition).await?;
    if let Some(why) = said.and_then(|said| said.stopped) {
        shared.stop_partition(partition.clone(), why);
        return Ok(());
    }
    let chain = ledger::end(shared, partition, hint).await?;
    shared.extended(partition, chain.map_or(0, |chain| chain.end));
    Ok(())
}
