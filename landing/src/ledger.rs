//! The partition's chain of manifests, as landing uses it: where to start, and what comes next.

use std::collections::BTreeMap;
use std::sync::Arc;

use firn_shared::error::{Error, Result};
use firn_shared::ids::{Generation, Offset, OffsetRange, PartitionRef, TopicRef};
use firn_shared::raw::chain::{AppendOutcome, Chain, ChainEnd, FOLD, catalog};
use firn_shared::raw::manifest::{BatchManifest, GapReason, MANIFEST_VERSION};
use firn_shared::raw::position::{Assignment, ChainState, KafkaState, on_assignment};
use firn_shared::raw::progress::{self, Progress};

use crate::assign::{Decision, Kafka};
use crate::lane::Origin;
use crate::observe::blocking;
use crate::pipeline::Shared;

/// A chain being extended.
#[derive(Debug)]
pub struct Ledger {
    chain: Chain,
    unfolded: usize,
}

impl Ledger {
    /// Appends a manifest, and folds the chain when it is worth it.
    ///
    /// # Errors
    /// `Conflict` when another writer was faster: this one must stop and read the chain again. Else those of the store.
    pub async fn append(&mut self, manifest: &BatchManifest) -> Result<()> {
        match self.chain.append(manifest).await? {
            AppendOutcome::Appended => {}
            AppendOutcome::Lost(winner) => {
                return Err(Error::conflict(format!(
                    "batch {} of {} lost to batch {} of writer {}; it will be read again from the chain's end",
                    manifest.range,
                    self.chain.partition(),
                    winner.range,
                    winner.writer
                )));
            }
        }
        self.unfolded += 1;
        if self.unfolded >= FOLD {
            // The chain is complete without its checkpoints; the next append tries again.
            match self.chain.fold().await {
                Ok(_) => self.unfolded = 0,
                Err(error) => tracing::warn!(partition = %self.chain.partition(), %error, "cannot fold the chain"),
            }
        }
        Ok(())
    }
}

/// End of a partition's chain; `None` when it has none.
///
/// # Errors
/// Those of the store.
pub async fn end(shared: &Shared, partition: &PartitionRef, hint: Option<Offset>) -> Result<Option<ChainEnd>> {
    Chain::new(Arc::clone(&shared.store), partition.clone()).end_after(hint).await
}

/// Where an assigned partition starts. A gap is in the chain when this returns, and whether it waits for an operator in
/// its progress.
///
/// # Errors
/// `Conflict` when another writer appended meanwhile; those of the store.
pub async fn position(
    shared: &Arc<Shared>,
    partition: PartitionRef,
    mut kafka: Kafka,
    hint: Option<Offset>,
) -> Result<Decision> {
    let mut chain = Chain::new(Arc::clone(&shared.store), partition.clone());
    let known = chain.end_after(hint).await?;
    let said = progress::read(shared.store.as_ref(), &partition).await?.unwrap_or_default();
    let chain_id = known.as_ref().and_then(|end| end.topic_id.clone());
    let earlier = if known.is_none() { earlier_id(shared, &partition).await? } else { None };
    if (chain_id.is_some() || earlier.is_some()) && kafka.topic_id.is_none() {
        let (observer, topic) = (shared.observer.clone(), partition.topic.topic.clone());
        kafka.topic_id = blocking(move || Ok(observer.insist_on_id(&topic))).await?;
        if kafka.topic_id.is_none() {
            tracing::warn!(pipeline = %shared.name, %partition, "the brokers do not tell the topic's id, which they once did");
        }
    }
    let state = known.as_ref().map(|end| ChainState { end: end.end, topic_id: end.topic_id.as_deref() });
    let broker = KafkaState { low: kafka.low, high: kafka.high, topic_id: kafka.topic_id.as_deref() };
    let earlier = earlier.as_ref().map(|(generation, id)| (*generation, id.as_str()));
    let assignment = match on_assignment(&partition, state, earlier, broker) {
        Ok(assignment) => assignment,
        Err(refused) => return stop(shared, partition, said, refused.to_string()).await,
    };
    // Once an id is known every manifest has it: the next assignment looks at the last one only.
    let topic_id = chain_id.or(kafka.topic_id);
    let (watermark, unfolded) = known.map_or((None, 0), |end| (end.watermark, end.unfolded));
    let mut ledger = Ledger { chain, unfolded };
    let start = match assignment {
        Assignment::Start(start) | Assignment::Resume(start) => start,
        Assignment::DeclareGap(range, reason) => {
            let manifest = gap(shared, &partition, range, reason, topic_id.clone(), watermark);
            ledger.append(&manifest).await?;
            if reason == GapReason::Expired {
                tracing::error!(pipeline = %shared.name, %partition, %range, "kafka's retention removed unread records");
            } else {
                tracing::info!(pipeline = %shared.name, %partition, %range, "kafka no longer held the topic's first records");
            }
            shared.count(&shared.metrics.partition(&shared.name, &partition), &manifest);
            range.end()
        }
    };
    if let Some(why) = shared.damage(&partition, start) {
        return stop(shared, partition, said, why).await;
    }
    if said.stopped.is_some() {
        progress::write(shared.store.as_ref(), &partition, &Progress { stopped: None, ..said }).await?;
    }
    let origin = Origin { partition, topic_id, start, watermark };
    Ok(Decision::Start(origin, Box::new(ledger)))
}

/// The last generation before a partition's that knew Kafka's id of the topic, and that id.
async fn earlier_id(shared: &Shared, partition: &PartitionRef) -> Result<Option<(Generation, String)>> {
    let current = &partition.topic;
    if current.generation == Generation::default() {
        return Ok(None);
    }
    let all = catalog::generations(shared.store.as_ref(), &current.cluster, &current.topic).await?;
    for generation in all.into_iter().rev().filter(|generation| *generation < current.generation) {
        let topic = TopicRef { generation, ..current.clone() };
        let known = end(shared, &PartitionRef { topic, partition: partition.partition }, None).await?;
        if let Some(id) = known.and_then(|end| end.topic_id) {
            return Ok(Some((generation, id)));
        }
    }
    Ok(None)
}

/// Lets a partition wait for an operator, and says so where other daemons see it.
async fn stop(shared: &Shared, partition: PartitionRef, said: Progress, why: String) -> Result<Decision> {
    let progress = Progress { stopped: Some(why.clone()), ..said };
    progress::write(shared.store.as_ref(), &partition, &progress).await?;
    shared.stop_partition(partition, why);
    Ok(Decision::Stop)
}

fn gap(
    shared: &Shared,
    partition: &PartitionRef,
    range: OffsetRange,
    reason: GapReason,
    topic_id: Option<String>,
    watermark: Option<chrono::DateTime<chrono::Utc>>,
) -> BatchManifest {
    BatchManifest {
        version: MANIFEST_VERSION,
        topic: partition.topic.clone(),
        topic_id,
        partition: partition.partition,
        range,
        writer: uuid::Uuid::new_v4().simple().to_string(),
        written_at: shared.rules.clock.now(),
        objects: Vec::new(),
        quarantine: Vec::new(),
        rejects: BTreeMap::new(),
        absent: 0,
        gap: Some(reason),
        watermark,
        caught_up_at: None,
    }
}
