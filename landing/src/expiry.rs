//! The alarm before data is lost: records that have not landed and that Kafka is about to forget.
//!
//! All partitions of the pipeline are looked at, whoever reads them, and above all when nobody does: the raw zone is out of
//! reach, a partition waits for an operator, a group hangs.

use std::sync::Arc;
use std::time::Duration;

use firn_shared::error::Result;
use firn_shared::ids::{Offset, PartitionRef};
use futures::stream::{self, StreamExt};

use crate::ledger;
use crate::observe::blocking;
use crate::pipeline::Shared;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(15);
/// The alarm is raised after this part of the retention.
const PATIENCE: f64 = 0.75;
/// Chains looked at at the same time.
const AT_ONCE: usize = 16;

/// Looks for as long as the pipeline runs.
///
/// # Errors
/// None: what fails is tried again.
pub async fn watch(shared: &Arc<Shared>) -> Result<()> {
    let mut tick = tokio::time::interval(LOOK);
    loop {
        tick.tick().await;
        if let Err(error) = look(shared).await {
            tracing::warn!(pipeline = %shared.name, %error, "cannot tell whether unread data is about to expire");
        }
    }
}

async fn look(shared: &Arc<Shared>) -> Result<()> {
    let now = shared.rules.clock.now().timestamp_millis();
    let topics = shared.state().topics.clone();
    let mut asked = Vec::new();
    for (topic, partitions) in &topics {
        let Some(retention) = shared.retention(topic) else { continue };
        let before = now.saturating_sub((retention.as_millis() as f64 * PATIENCE) as i64);
        asked.extend(partitions.iter().map(|partition| (topic.clone(), *partition, before)));
    }
    if asked.is_empty() {
        return Ok(());
    }
    let observer = shared.observer.clone();
    let old = blocking(move || observer.ends_of_old(&asked)).await?;
    stream::iter(old)
        .for_each_concurrent(AT_ONCE, |((topic, partition), end)| async move {
            judge(shared, shared.partition(&topic, partition), end).await;
        })
        .await;
    Ok(())
}

/// Raises or ends the alarm of a partition whose records below `end` are old.
async fn judge(shared: &Arc<Shared>, partition: PartitionRef, end: Offset) {
    let known = shared.state().ends.get(&partition).copied();
    let mut landed = known.unwrap_or(0);
    if landed < end {
        // It may have landed by another's hand.
        match ledger::end(shared, &partition, known).await {
            Ok(chain) => {
                landed = chain.map_or(0, |chain| chain.end);
                shared.extended(&partition, landed);
            }
            // Nobody else can land it either. The group's offset is the best that is known.
            Err(_) => landed = landed.max(shared.state().hints.get(&partition).copied().unwrap_or(0)),
        }
    }
    if shared.metrics.partition(&shared.name, &partition).expiring(landed < end) {
        tracing::error!(pipeline = %shared.name, %partition, landed, end, "unread data is about to expire");
    }
}
