//! What a pipeline sees of Kafka from outside its group: topics, their partitions, and where they end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use firn_shared::error::{Error, Result};
use firn_shared::ids::{Offset, PartitionRef, Topic};

use crate::kafka::{Selection, Topics};
use crate::lane::{Lane, Work};
use crate::pipeline::{Goal, Shared};
use crate::retention::{self, Told};
use crate::server::Part;

/// How often Kafka is asked for new topics and the ends of partitions.
const OBSERVE: Duration = Duration::from_secs(5);

/// By partition the first offset and the end.
pub type Bounds = BTreeMap<PartitionRef, (Offset, Offset)>;

/// Runs what waits for Kafka on a thread that may.
///
/// # Errors
/// Those of `work`; `Bug` when it panicked.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::bug("a question to kafka panicked").with_source(e))?
}

/// Finds the topics; a listed one that is missing is waited for, unless somebody waits for the end.
///
/// # Errors
/// `Unavailable` when the cluster does not answer, `Config` when it refuses us and for a topic that is missed.
pub async fn topics(shared: &Arc<Shared>, selection: &Selection, goal: Goal) -> Result<()> {
    let (observer, selection) = (shared.observer.clone(), selection.clone());
    let listed = match &selection {
        Selection::List(topics) => topics.clone(),
        Selection::Pattern(_) => Vec::new(),
    };
    let topics = without_refused(shared, blocking(move || observer.topics(&selection)).await?);
    if let Some(missing) = listed.iter().find(|topic| !topics.contains_key(topic)) {
        if goal.until_caught_up {
            let cluster = &shared.cluster_name;
            let message = format!("cluster {cluster} has no topic {missing}; create it, or correct the pipeline");
            return Err(Error::config(message));
        }
        tracing::warn!(pipeline = %shared.name, topic = %missing, "the cluster has no such topic yet");
    }
    let unknown: Vec<Topic> = {
        let mut state = shared.state();
        let unknown = topics.keys().filter(|topic| !state.topics.contains_key(topic)).cloned().collect();
        state.topics = topics;
        unknown
    };
    if !goal.until_caught_up && !unknown.is_empty() {
        // Only alarms hang on the answer: nobody waits for it, and a broker that gives none stops nobody.
        tokio::spawn(learn_retention(Arc::clone(shared), unknown));
    }
    Ok(())
}

/// Leaves out what another pipeline reads, and says so once.
fn without_refused(shared: &Shared, mut topics: Topics) -> Topics {
    topics.retain(|topic, _| {
        let Some(why) = shared.rivals.claim(topic.as_str(), &shared.name) else { return true };
        if shared.state().refused.insert(topic.clone(), why.clone()).is_none() {
            tracing::error!(pipeline = %shared.name, "{why}");
        }
        false
    });
    topics
}

async fn learn_retention(shared: Arc<Shared>, topics: Vec<Topic>) {
    let known = match crate::kafka::client(&shared.cluster_name, &shared.cluster) {
        Ok(client) => retention::retention(&client, &topics).await,
        Err(error) => Err(error),
    };
    let told = known.unwrap_or_else(|error| {
        tracing::debug!(pipeline = %shared.name, %error, "no retention");
        Told { untold: topics, ..Told::default() }
    });
    if let Some(problem) = retention::too_short(&shared.ingestion, &told) {
        tracing::error!(pipeline = %shared.name, "{problem}");
    }
    // Once a topic: whoever asks is here for those that are new.
    for blind_spot in told.blind_spots(shared.ingestion.retention) {
        tracing::warn!(pipeline = %shared.name, "{blind_spot}");
    }
    shared.state().retention.extend(told.kept);
}

/// First offsets and ends of all partitions of the pipeline.
///
/// # Errors
/// `Unavailable`, with the cluster's answer.
pub async fn bounds(shared: &Arc<Shared>) -> Result<Bounds> {
    let topics = shared.state().topics.clone();
    let shared = Arc::clone(shared);
    blocking(move || {
        let all = topics.iter().flat_map(|(topic, partitions)| partitions.iter().map(move |p| (topic, *p)));
        all.map(|(topic, partition)| {
            Ok((shared.partition(topic, partition), shared.observer.bounds(topic, partition)?))
        })
        .collect()
    })
    .await
}

/// Tells the lanes where Kafka's ends are, and the metrics what it means.
///
/// # Errors
/// The first one: a partition without leader keeps nothing from the others.
pub async fn ends(shared: &Arc<Shared>) -> Result<()> {
    let lanes: Vec<_> = shared.state().lanes.values().cloned().collect();
    let shared = Arc::clone(shared);
    blocking(move || {
        let topics: BTreeSet<_> = lanes.iter().map(|lane| lane.partition.topic.topic.clone()).collect();
        let ids = shared.observer.topic_ids(&topics.into_iter().collect::<Vec<_>>());
        let mut outcome = Ok(());
        for lane in &lanes {
            if let Some(id) = ids.get(&lane.partition.topic.topic)
                && let Err(error) = lane.check_topic(id)
            {
                lane.fail(error);
                continue;
            }
            outcome = outcome.and(end(&shared, lane));
        }
        outcome
    })
    .await
}

/// The same for one lane.
fn end(shared: &Shared, lane: &Arc<Lane>) -> Result<()> {
    let (topic, partition) = (&lane.partition.topic.topic, lane.partition.partition);
    // Before the question: whatever the answer leaves out came later.
    let at = shared.rules.clock.now();
    let end = shared.observer.end(topic, partition)?;
    let status = lane.status();
    shared.observed(lane, end);
    if status.taken >= end {
        // Behind an open transaction there may be records that are for everybody to see once it has ended.
        lane.push(Work::End(shared.observer.log_end(topic, partition)?.max(end), at));
    }
    Ok(())
}

/// Watches Kafka for as long as the pipeline runs.
///
/// # Errors
/// None: what fails is tried again.
pub async fn watch(shared: &Arc<Shared>, selection: &Selection) -> Result<()> {
    let goal = Goal { until_caught_up: false, attempts: None };
    loop {
        tokio::time::sleep(OBSERVE).await;
        let found = topics(shared, selection, goal).await;
        match &found {
            Ok(()) => shared.readiness.has(&shared.name, Part::Cluster),
            Err(error) => shared.readiness.lacks(&shared.name, Part::Cluster, error.to_string()),
        }
        let traced = shared.trace().await;
        if let Err(error) = found.and(traced).and(ends(shared).await) {
            tracing::warn!(pipeline = %shared.name, %error, "cannot observe the cluster");
        }
    }
}
