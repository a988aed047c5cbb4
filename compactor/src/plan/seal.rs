//! Whether every event hour of a date is complete, partition by partition.
//!
//! To be asked before the plan is made: batches that the answer rests on are then in the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;
use firn_shared::error::{Error, Result};
use firn_shared::ids::{EventHour, PartitionRef, TopicRef};
use firn_shared::raw::chain::Chain;
use firn_shared::raw::progress::{self, OpenReason, PartitionState, Seal, sealed};
use firn_shared::store::Store;
use futures::{StreamExt, TryStreamExt, stream};

use super::read::partitions;

const PARTITIONS_AT_ONCE: usize = 16;

/// What is known of a date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DateSeal {
    /// The date.
    pub date: NaiveDate,
    /// Partitions that were asked.
    pub partitions: usize,
    /// For each partition that is not done, its first open hour and why it is open.
    pub open: BTreeMap<PartitionRef, (EventHour, OpenReason)>,
    /// Topics of which nothing is known: what they will bring is open.
    pub unknown: Vec<TopicRef>,
}

impl DateSeal {
    /// Whether nothing more can come for the date. Topics of which nothing was ever landed are not known to be done.
    pub fn is_sealed(&self) -> bool {
        self.partitions > 0 && self.open.is_empty() && self.unknown.is_empty()
    }
}

impl fmt::Display for DateSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.partitions == 0 {
            return write!(f, "{} is open: nothing of its topics has been landed yet", self.date);
        }
        if self.is_sealed() {
            return write!(f, "{} is sealed in all {} partitions", self.date, self.partitions);
        }
        write!(f, "{} is open in {} of {} partitions", self.date, self.open.len(), self.partitions)?;
        for topic in &self.unknown {
            write!(f, "\n  {topic}: nothing of it has been landed yet, nor has landing said that there is nothing")?;
        }
        for (partition, (hour, reason)) in &self.open {
            write!(f, "\n  {partition} from hour {hour} on: {reason}")?;
        }
        Ok(())
    }
}

/// Decides from what the partitions say.
pub fn decide(
    date: NaiveDate,
    lateness: Duration,
    states: &BTreeMap<PartitionRef, PartitionState>,
) -> Result<DateSeal> {
    let mut open = BTreeMap::new();
    // From the last hour to the first, so that the first open one is what stays.
    for hour in (0..24).rev() {
        let hour =
            EventHour::from_date_hour(date, hour).ok_or_else(|| Error::bug(format!("{date} has no hour {hour}")))?;
        if let Seal::Open(reasons) = sealed(hour, lateness, states) {
            open.extend(reasons.into_iter().map(|(partition, reason)| (partition, (hour, reason))));
        }
    }
    Ok(DateSeal { date, partitions: states.len(), open, unknown: Vec::new() })
}

/// Asks the chains and the progress of every partition of these topics.
///
/// # Errors
/// Those of the store, and `Data` for corrupt manifests and progress.
pub async fn date(
    store: &Arc<dyn Store>,
    topics: &[TopicRef],
    date: NaiveDate,
    lateness: Duration,
) -> Result<DateSeal> {
    let mut all = partitions(&**store, topics).await?;
    for topic in topics {
        // A partition that never held a record has progress but no chain.
        let numbers = progress::partitions(store, topic).await?;
        all.extend(numbers.into_iter().map(|partition| PartitionRef { topic: topic.clone(), partition }));
    }
    all.sort();
    all.dedup();
    let landed: BTreeSet<&TopicRef> = all.iter().map(|partition| &partition.topic).collect();
    let unknown = topics.iter().filter(|topic| !landed.contains(topic)).cloned().collect();
    let states = stream::iter(all)
        .map(|partition| state(Arc::clone(store), partition))
        .buffered(PARTITIONS_AT_ONCE)
        .try_collect()
        .await?;
    Ok(DateSeal { unknown, ..decide(date, lateness, &states)? })
}

async fn state(store: Arc<dyn Store>, partition: PartitionRef) -> Result<(PartitionRef, PartitionState)> {
    let progress = progress::read(&*store, &partition).await?.map(PartitionState::from).unwrap_or_default();
    let end = Chain::new(store, partition.clone()).end_after(None).await?;
    let chain = end.map(|end| PartitionState { watermark: end.watermark, caught_up_at: end.caught_up_at });
    Ok((partition, progress.max(chain.unwrap_or_default())))
}
