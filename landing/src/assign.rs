//! Where an assigned partition starts: at the end of its chain, whatever the group's offset says.

use std::collections::BTreeSet;
use std::sync::Arc;

use firn_shared::error::{Error, Result};
use firn_shared::ids::{Offset, Partition, Topic};
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::lane::Origin;
use crate::ledger::{self, Ledger};
use crate::pipeline::Shared;

/// Partitions looked at at the same time.
const AT_ONCE: usize = 16;

/// What is done with an assigned partition.
#[derive(Debug)]
pub enum Decision {
    /// Read from here, and extend this chain.
    Start(Origin, Box<Ledger>),
    /// Do not read it until an operator acts; everything else goes on.
    Stop,
}

/// What Kafka says of a partition.
#[derive(Debug, Clone)]
pub struct Kafka {
    /// First offset it still holds.
    pub low: Offset,
    /// Offset after the last one a reader may see.
    pub high: Offset,
    /// The topic's id, when the broker tells one.
    pub topic_id: Option<String>,
}

/// Decides for every partition, given the group's offset as a hint; declared gaps are in the chain when this returns.
///
/// # Errors
/// `Unavailable` when Kafka or the store cannot say; `Conflict` when another writer is at work on a chain.
pub async fn decide(
    shared: &Arc<Shared>,
    wanted: Vec<(Topic, Partition, Option<Offset>)>,
) -> Result<Vec<((Topic, Partition), Decision)>> {
    let (observer, topics) = (shared.observer.clone(), wanted.iter().map(|(topic, ..)| topic.clone()));
    let topics: Vec<_> = topics.collect::<BTreeSet<_>>().into_iter().collect();
    let panicked = |e| Error::bug("a question to kafka panicked").with_source(e);
    let ids = tokio::task::spawn_blocking(move || observer.topic_ids(&topics)).await.map_err(panicked)?;
    stream::iter(wanted)
        .map(|(topic, partition, hint)| (ids.get(&topic).cloned(), topic, partition, hint))
        .map(|(topic_id, topic, partition, hint)| async move {
            let (observer, asked) = (shared.observer.clone(), topic.clone());
            let bounds = tokio::task::spawn_blocking(move || observer.bounds(&asked, partition));
            let bounds = bounds.await.map_err(panicked)??;
            let kafka = Kafka { low: bounds.0, high: bounds.1, topic_id };
            let decision = ledger::position(shared, shared.partition(&topic, partition), kafka, hint).await?;
            Ok(((topic, partition), decision))
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}
