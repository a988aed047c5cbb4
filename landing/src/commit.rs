//! The committer of one lane: upload, append, and only then tell the reader. The only visible step is the append.
//!
//! ```text
//! upload every object      a crash here leaves objects nobody names: orphans
//! append the manifest      one winner; a crash right after it loses only the hint, the chain is ahead of the group
//! group offset (reader)    a hint
//! ```

use std::sync::Arc;

use firn_shared::error::{Error, Result};
use firn_shared::raw::progress::{self, Progress};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::mpsc;

use crate::batch::Sealed;
use crate::lane::{Lane, Outgoing};
use crate::ledger::Ledger;
use crate::pipeline::Shared;
use crate::upload::upload;

/// Objects of one batch that go up at the same time.
const AT_ONCE: usize = 4;

/// Commits what the lane hands over, in order, until the lane ends.
pub async fn run(shared: Arc<Shared>, lane: Arc<Lane>, mut ledger: Ledger, mut outgoing: mpsc::Receiver<Outgoing>) {
    loop {
        let next = tokio::select! {
            // A lane that ends in order has handed over everything before.
            biased;
            () = lane.ended() => None,
            next = outgoing.recv() => next,
        };
        let Some(next) = next else { break };
        let done = tokio::select! {
            biased;
            // Nothing may be appended for a partition that is gone. What was on its way is fenced by the chain.
            () = lane.ended() => break,
            done = commit(&shared, &lane, &mut ledger, next) => done,
        };
        match done {
            Ok(Some(end)) => {
                shared.extended(&lane.partition, end);
                lane.done(end);
            }
            Ok(None) => lane.done(lane.status().committed),
            Err(error) => {
                lane.fail(error);
                break;
            }
        }
    }
    shared.close_lane(&lane);
}

/// Makes one batch durable and returns the chain's new end.
async fn commit(shared: &Shared, lane: &Lane, ledger: &mut Ledger, next: Outgoing) -> Result<Option<u64>> {
    let Sealed { manifest, objects } = match next {
        Outgoing::Batch(sealed) => *sealed,
        Outgoing::Idle { end, watermark, caught_up_at } => {
            let progress = Progress { end, caught_up_at: Some(caught_up_at), watermark, stopped: None };
            progress::write(shared.store.as_ref(), &lane.partition, &progress).await?;
            return Ok(None);
        }
    };
    let slot = |_| Error::bug("the upload slots are gone");
    stream::iter(objects)
        .map(Ok)
        .try_for_each_concurrent(AT_ONCE, |object| async {
            let copies = u32::try_from(shared.shares.upload(object.object.bytes)).unwrap_or(u32::MAX);
            let _slot = shared.uploads.acquire_many(copies).await.map_err(slot)?;
            upload(shared.store.as_ref(), object).await
        })
        .await?;
    ledger.append(&manifest).await?;
    shared.count(&lane.metrics, &manifest);
    tracing::debug!(partition = %lane.partition, range = %manifest.range, records = manifest.records(), "batch appended");
    Ok(Some(manifest.range.end()))
}
