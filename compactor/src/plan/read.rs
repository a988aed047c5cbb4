//! The plan's reading side: chains in, [`Plan`] out. Nothing is written.

use std::sync::Arc;

use firn_shared::config::domain::{Ingestion, TopicSelector};
use firn_shared::error::{Error, Result};
use firn_shared::ids::{EventHour, Offset, PartitionRef, Topic, TopicRef};
use firn_shared::raw::chain::{Chain, catalog};
use firn_shared::raw::key::CheckpointKey;
use firn_shared::store::Store;
use futures::{StreamExt, TryStreamExt, stream};
use regex::Regex;

use super::consume::{Consumption, Revisit};
use super::position::Position;
use super::{Plan, Scope, SliceObject, cut};

/// Partitions whose chains are read at once.
const PARTITIONS_AT_ONCE: usize = 8;

/// A bounded plan names about this many raw objects at most, so that small ones do not fill the memory.
const RUN_OBJECTS_MAX: u64 = 50_000;

/// How much a plan takes, and how it is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// A slice holds at most this many uncompressed bytes (or one object).
    pub slice_raw_bytes_max: u64,
    /// A plan takes at most about this many uncompressed bytes; shared evenly by the partitions with something new, each
    /// of which takes one batch at least. `None`: everything.
    pub run_raw_bytes_max: Option<u64>,
}

/// The topics of a pipeline that the raw zone knows, in all generations up to the configured one: what an earlier
/// incarnation still has to say is read before it is left.
///
/// # Errors
/// `Config` for a broken pattern, else those of the store.
pub async fn topics(store: &dyn Store, ingestion: &Ingestion) -> Result<Vec<TopicRef>> {
    let cluster = &ingestion.cluster;
    let names = match &ingestion.topics {
        TopicSelector::List(topics) => topics.clone(),
        TopicSelector::Pattern(pattern) => {
            let regex = whole(pattern)?;
            let known = catalog::topics(store, cluster).await?;
            known.into_iter().filter(|topic| regex.is_match(topic.as_str())).collect()
        }
    };
    let mut topics = Vec::new();
    for topic in names {
        for generation in catalog::generations(store, cluster, &topic).await? {
            if generation <= ingestion.generation.of(&topic) {
                topics.push(TopicRef { cluster: cluster.clone(), topic: topic.clone(), generation });
            }
        }
    }
    topics.sort();
    topics.dedup();
    Ok(topics)
}

/// The topics to plan for a table that stands at `position`: beside [`topics`] those of the configured generation that it
/// has read, so that a raw zone without them is an error and not nothing to do.
///
/// # Errors
/// As [`topics`].
pub async fn topics_of(store: &dyn Store, ingestion: &Ingestion, position: &Position) -> Result<Vec<TopicRef>> {
    let mut found = topics(store, ingestion).await?;
    let names: Box<dyn Fn(&Topic) -> bool + Send> = match &ingestion.topics {
        TopicSelector::List(list) => Box::new(|topic| list.contains(topic)),
        TopicSelector::Pattern(pattern) => {
            let regex = whole(pattern)?;
            Box::new(move |topic| regex.is_match(topic.as_str()))
        }
    };
    let read = position.iter().map(|(partition, _)| partition.topic);
    found.extend(read.filter(|of| {
        let current = ingestion.generation.of(&of.topic);
        of.cluster == ingestion.cluster && of.generation == current && names(&of.topic)
    }));
    found.sort();
    found.dedup();
    Ok(found)
}

/// The topics whose partitions say whether a date is complete. An earlier incarnation is over: nothing more comes of it,
/// and nobody moves its watermark. A topic that the pipeline names is asked though nothing of it has been landed.
///
/// # Errors
/// As [`topics`].
pub async fn topics_to_seal(store: &dyn Store, ingestion: &Ingestion) -> Result<Vec<TopicRef>> {
    let current = |topic: &Topic| ingestion.generation.of(topic);
    if let TopicSelector::List(list) = &ingestion.topics {
        let of = |topic: &Topic| TopicRef {
            cluster: ingestion.cluster.clone(),
            topic: topic.clone(),
            generation: current(topic),
        };
        let mut all: Vec<TopicRef> = list.iter().map(of).collect();
        all.sort();
        all.dedup();
        return Ok(all);
    }
    Ok(topics(store, ingestion).await?.into_iter().filter(|of| of.generation == current(&of.topic)).collect())
}

/// A pattern that matches whole names.
fn whole(pattern: &str) -> Result<Regex> {
    Regex::new(&format!("^(?:{pattern})$"))
        .map_err(|e| Error::config(format!("topic pattern `{pattern}` is no regular expression: {e}")))
}

/// The partitions of these topics that have a chain.
///
/// # Errors
/// Those of the store.
pub async fn partitions(store: &dyn Store, topics: &[TopicRef]) -> Result<Vec<PartitionRef>> {
    let mut partitions = Vec::new();
    for topic in topics {
        let numbers = catalog::partitions(store, topic).await?;
        partitions.extend(numbers.into_iter().map(|partition| PartitionRef { topic: topic.clone(), partition }));
    }
    Ok(partitions)
}

/// Plans a run over these topics, for a table that stands at `position` in `base_snapshot`.
///
/// # Errors
/// `Data` when the ledger is broken or does not fit the table's position; `Config` for an empty range of hours; those of
/// the store.
pub async fn plan(
    store: &Arc<dyn Store>,
    topics: &[TopicRef],
    (base_snapshot, position): (Option<i64>, Position),
    scope: Scope,
    bounds: Bounds,
) -> Result<Plan> {
    let mut partitions = partitions(&**store, topics).await?;
    // A chain that the table has read from and that is gone is an error, not an empty partition.
    partitions.extend(position.iter().map(|(partition, _)| partition).filter(|p| topics.contains(&p.topic)));
    partitions.sort();
    partitions.dedup();
    let mut plan = Plan {
        scope,
        base_snapshot,
        from: position.clone(),
        branch: None,
        since: Position::default(),
        to: position.clone(),
        until: position,
        slices: Vec::new(),
        ledger: Vec::new(),
    };
    let mut objects: Vec<SliceObject> = Vec::new();
    match scope {
        Scope::New => {
            let behind = behind(store, partitions, &mut plan).await?;
            let share = bounds.run_raw_bytes_max.map(|bytes| Share::of(bytes, behind.len() as u64));
            let mut taken =
                stream::iter(behind).map(|(chain, from)| take_new(chain, from, share)).buffered(PARTITIONS_AT_ONCE);
            while let Some((partition, consumption)) = taken.try_next().await? {
                let (next, ledger, mut found) = consumption.finish();
                if let Some(ledger) = ledger {
                    plan.to.advance(&partition, next)?;
                    plan.ledger.push(ledger);
                    objects.append(&mut found);
                }
            }
        }
        Scope::Hours { from, to } => {
            if from >= to {
                return Err(Error::config(format!("cannot reprocess {from} to {to}: the range holds no hour")));
            }
            // Rows of a topic that is not read have nothing that could take their place.
            for (partition, end) in plan.from.iter().filter(|(partition, _)| !topics.contains(&partition.topic)) {
                plan.since.advance(&partition, end)?;
            }
            let read = partitions.into_iter().filter_map(|partition| Some((plan.from.get(&partition)?, partition)));
            let mut found = stream::iter(read.collect::<Vec<_>>())
                .map(|(position, partition)| revisit(Arc::clone(store), partition, position, (from, to)))
                .buffered(PARTITIONS_AT_ONCE);
            while let Some(mut found) = found.try_next().await? {
                objects.append(&mut found);
            }
        }
    }
    plan.slices = cut(objects, bounds.slice_raw_bytes_max);
    Ok(plan)
}

/// What one partition may add to a bounded plan.
#[derive(Debug, Clone, Copy)]
struct Share {
    raw_bytes: u64,
    objects: u64,
}

impl Share {
    fn of(raw_bytes: u64, partitions: u64) -> Self {
        let partitions = partitions.max(1);
        Self { raw_bytes: raw_bytes / partitions, objects: RUN_OBJECTS_MAX / partitions }
    }

    fn leaves_room(self, consumption: &Consumption) -> bool {
        consumption.raw_bytes() < self.raw_bytes && consumption.objects() < self.objects
    }
}

/// The chains that go on past the table's position, each with that position; notes in the plan where they end.
async fn behind(
    store: &Arc<dyn Store>,
    partitions: Vec<PartitionRef>,
    plan: &mut Plan,
) -> Result<Vec<(Chain, Offset)>> {
    let asked: Vec<_> = partitions.into_iter().map(|p| (plan.from.get(&p).unwrap_or(0), p)).collect();
    let mut ends = stream::iter(asked)
        .map(|(from, partition)| async move {
            let mut chain = Chain::new(Arc::clone(store), partition);
            let end = end_beyond(&mut chain, from).await?;
            Ok::<_, Error>((chain, from, end))
        })
        .buffered(PARTITIONS_AT_ONCE);
    let mut behind = Vec::new();
    while let Some((chain, from, end)) = ends.try_next().await? {
        if end > from {
            plan.until.advance(chain.partition(), end)?;
            behind.push((chain, from));
        }
    }
    Ok(behind)
}

async fn take_new(chain: Chain, from: Offset, share: Option<Share>) -> Result<(PartitionRef, Consumption)> {
    let partition = chain.partition().clone();
    let mut consumption = Consumption::new(partition.clone(), from);
    chain
        .scan(from, &mut |batch| {
            consumption.take(batch)?;
            Ok(share.is_none_or(|share| share.leaves_room(&consumption)))
        })
        .await?;
    Ok((partition, consumption))
}

async fn revisit(
    store: Arc<dyn Store>,
    partition: PartitionRef,
    position: Offset,
    hours: (EventHour, EventHour),
) -> Result<Vec<SliceObject>> {
    let mut chain = Chain::new(store, partition.clone());
    end_beyond(&mut chain, position).await?;
    let mut revisit = Revisit::new(partition, position, hours);
    // The checkpoint in which the position lies is read whatever its hours: it says whether the table fits the ledger.
    let wanted = |checkpoint: &CheckpointKey| {
        let meets = |(first, last): (EventHour, EventHour)| first < hours.1 && last >= hours.0;
        checkpoint.hours.is_some_and(meets) || checkpoint.range.contains(position.saturating_sub(1))
    };
    chain.scan_where(0, &wanted, &mut |batch| revisit.look(batch)).await?;
    Ok(revisit.finish())
}

/// The chain's end, which a table cannot have passed.
async fn end_beyond(chain: &mut Chain, position: Offset) -> Result<Offset> {
    let end = chain.end_after(Some(position)).await?.map_or(0, |end| end.end);
    if end < position {
        return Err(Error::data(format!(
            "cannot plan {}: the table has read up to offset {position}, but the ledger ends at {end}; the raw zone is not \
             the one the table was written from; point `raw` to the old one, or make the table anew",
            chain.partition()
        )));
    }
    Ok(end)
}
