//! One pipeline: its consumers, its view of Kafka, and the decision that it is done.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use firn_shared::config::domain::{Cluster, Ingestion};
use firn_shared::error::{Error, ErrorKind, Result};
use firn_shared::ids::{ClusterName, Offset, Partition, PartitionRef, PipelineName, Topic, TopicRef};
use firn_shared::raw::manifest::BatchManifest;
use firn_shared::store::Store;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::commit;
use crate::consumer::Reader;
use crate::kafka::{Observer, Selection};
use crate::lane::{Lane, LaneRules, Origin, Work};
use crate::ledger::{self, Ledger};
use crate::memory::Shares;
use crate::metrics::{Metrics, PartitionMetrics};
use crate::retention;
use crate::rotate::Cause;
use crate::server::Readiness;
use crate::summary::PipelineSummary;

/// How often Kafka is asked for new topics and the ends of partitions.
const OBSERVE: Duration = Duration::from_secs(5);
/// The same while somebody waits for the end.
const OBSERVE_EAGERLY: Duration = Duration::from_millis(250);
/// Bounds of the wait before a consumer is started again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// What everything of one pipeline shares.
#[derive(Debug)]
pub struct Shared {
    /// The pipeline.
    pub name: PipelineName,
    /// Its cluster.
    pub cluster_name: ClusterName,
    /// How to reach it.
    pub cluster: Cluster,
    /// What to read and how.
    pub ingestion: Ingestion,
    /// The consumer group.
    pub group: String,
    /// Sizes derived from the memory bound.
    pub shares: Shares,
    /// How long stopping may take.
    pub drain: Duration,
    /// The same for every lane.
    pub rules: Arc<LaneRules>,
    /// Metrics of the daemon.
    pub metrics: Metrics,
    /// What `/readyz` says.
    pub readiness: Arc<Readiness>,
    /// The raw zone.
    pub store: Arc<dyn Store>,
    /// Asks about topics and offsets.
    pub observer: Observer,
    /// For the threads that are not the runtime's.
    pub runtime: Handle,
    /// Ends the pipeline.
    pub stop: CancellationToken,
    /// Bytes that uploads of the whole daemon may hold besides the bodies.
    pub uploads: Arc<Semaphore>,
    /// Everything done so far.
    pub totals: Mutex<PipelineSummary>,
    state: Mutex<State>,
}

/// What changes while the pipeline runs.
#[derive(Debug, Default)]
struct State {
    topics: BTreeMap<Topic, BTreeSet<Partition>>,
    retention: BTreeMap<Topic, Duration>,
    lanes: HashMap<PartitionRef, Arc<Lane>>,
    ends: HashMap<PartitionRef, Offset>,
    stopped: BTreeMap<PartitionRef, String>,
}

/// How a pipeline ends.
#[derive(Debug, Clone, Copy)]
pub struct Goal {
    /// Stop once everything Kafka held at the start is in the raw zone.
    pub until_caught_up: bool,
    /// Give up after a consumer failed this often in a row; `None` is never.
    pub attempts: Option<u32>,
}

/// The parts a pipeline is made of.
#[derive(Debug, Clone)]
pub struct Parts {
    /// See [`Shared`].
    pub name: PipelineName,
    /// See [`Shared`].
    pub cluster: Cluster,
    /// See [`Shared`].
    pub ingestion: Ingestion,
    /// See [`Shared`].
    pub group: String,
    /// See [`crate::Options`].
    pub topic_ids: bool,
    /// See [`Shared`].
    pub shares: Shares,
    /// See [`Shared`].
    pub drain: Duration,
    /// See [`Shared`].
    pub rules: Arc<LaneRules>,
    /// See [`Shared`].
    pub metrics: Metrics,
    /// See [`Shared`].
    pub readiness: Arc<Readiness>,
    /// See [`Shared`].
    pub store: Arc<dyn Store>,
    /// See [`Shared`].
    pub uploads: Arc<Semaphore>,
    /// See [`Shared`].
    pub stop: CancellationToken,
}

impl Shared {
    /// A pipeline that has not begun; waits for its cluster's name to resolve. `None` when the daemon stops first.
    ///
    /// # Errors
    /// `Config` when librdkafka refuses the cluster's properties.
    pub async fn open(parts: Parts, goal: Goal) -> Result<Option<Arc<Self>>> {
        let mut patience = Patience::new(&parts.name, &parts.metrics, &parts.stop, goal);
        loop {
            match Self::new(parts.clone()) {
                Ok(shared) => return Ok(Some(shared)),
                Err(error) => {
                    if !patience.after(error).await? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn new(parts: Parts) -> Result<Arc<Self>> {
        let cluster_name = parts.ingestion.cluster.clone();
        let observer =
            Observer::new(crate::kafka::client(&cluster_name, &parts.cluster)?)?.asking_for_ids(parts.topic_ids);
        Ok(Arc::new(Self {
            name: parts.name,
            cluster_name,
            cluster: parts.cluster,
            ingestion: parts.ingestion,
            group: parts.group,
            shares: parts.shares,
            drain: parts.drain,
            rules: parts.rules,
            metrics: parts.metrics,
            readiness: parts.readiness,
            store: parts.store,
            observer,
            runtime: Handle::current(),
            stop: parts.stop,
            uploads: parts.uploads,
            totals: Mutex::default(),
            state: Mutex::default(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The topics to subscribe to, in order.
    #[must_use]
    pub fn topics(&self) -> Vec<String> {
        self.state().topics.keys().map(ToString::to_string).collect()
    }

    /// How long a topic keeps records: what the broker said, else what the operator believes.
    fn retention(&self, topic: &Topic) -> Option<Duration> {
        self.state().retention.get(topic).copied().or(self.ingestion.retention)
    }

    /// The full name of a partition.
    #[must_use]
    pub fn partition(&self, topic: &Topic, partition: Partition) -> PartitionRef {
        let topic = TopicRef {
            cluster: self.cluster_name.clone(),
            topic: topic.clone(),
            generation: self.ingestion.generation,
        };
        PartitionRef { topic, partition }
    }

    /// Opens a lane and starts its committer.
    pub fn open_lane(self: &Arc<Self>, origin: Origin, ledger: Ledger) -> Arc<Lane> {
        let partition = origin.partition.clone();
        let metrics = self.metrics.partition(&self.name, &partition);
        metrics.stopped(false);
        let start = origin.start;
        let (lane, outgoing) = Lane::new(Arc::clone(&self.rules), origin, metrics);
        let mut state = self.state();
        state.stopped.remove(&partition);
        state.ends.insert(partition.clone(), start);
        state.lanes.insert(partition, Arc::clone(&lane));
        drop(state);
        self.runtime.spawn(commit::run(Arc::clone(self), Arc::clone(&lane), ledger, outgoing));
        lane
    }

    /// The lane is over.
    pub fn close_lane(&self, lane: &Arc<Lane>) {
        let mut state = self.state();
        if state.lanes.get(&lane.partition).is_some_and(|current| Arc::ptr_eq(current, lane)) {
            state.lanes.remove(&lane.partition);
        }
    }

    /// The chain of a partition ends here now.
    pub fn extended(&self, partition: &PartitionRef, end: Offset) {
        self.state().ends.insert(partition.clone(), end);
    }

    /// Counts an appended manifest.
    pub fn count(&self, metrics: &PartitionMetrics, manifest: &BatchManifest) {
        metrics.appended(manifest);
        self.totals.lock().unwrap_or_else(PoisonError::into_inner).add(manifest);
    }

    /// A partition waits for an operator.
    pub fn stop_partition(&self, partition: PartitionRef, why: String) {
        self.metrics.partition(&self.name, &partition).stopped(true);
        tracing::error!(pipeline = %self.name, %partition, "{why}");
        self.state().stopped.insert(partition, why);
    }
}

/// Runs a pipeline until it is stopped or done.
///
/// # Errors
/// `Config` when a person must act, else what kept it from going on.
pub async fn run(shared: Arc<Shared>, goal: Goal) -> Result<PipelineSummary> {
    let selection = Selection::of(&shared.ingestion)?;
    let mut patience = Patience::new(&shared.name, &shared.metrics, &shared.stop, goal);
    while let Err(error) = observe_topics(&shared, &selection, goal).await {
        if !patience.after(error).await? {
            return Ok(PipelineSummary::default());
        }
    }
    shared.readiness.has(&shared.name);
    let targets = if goal.until_caught_up { Some(bounds(&shared).await?) } else { None };

    let mut readers = JoinSet::new();
    for index in 0..shared.ingestion.consumers.max(1) {
        readers.spawn(keep_reading(Arc::clone(&shared), index, goal));
    }
    let watching = async {
        match targets {
            Some(targets) => catch_up(&shared, targets).await,
            None => watch(&shared, &selection).await,
        }
    };
    // Whichever ends first ends the others.
    let mut outcome = tokio::select! {
        watched = watching => watched,
        Some(joined) = readers.join_next() => flatten(joined),
        () = shared.stop.cancelled() => Ok(()),
    };
    shared.stop.cancel();
    while let Some(joined) = readers.join_next().await {
        outcome = outcome.and(flatten(joined));
    }
    outcome?;
    let stopped = shared.state().stopped.values().next().cloned();
    match stopped {
        Some(why) if goal.until_caught_up => Err(Error::config(why)),
        _ => Ok(shared.totals.lock().unwrap_or_else(PoisonError::into_inner).clone()),
    }
}

fn flatten(joined: std::result::Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    joined.unwrap_or_else(|e| Err(Error::bug("a consumer panicked").with_source(e)))
}

/// Runs one consumer, again and again.
async fn keep_reading(shared: Arc<Shared>, index: usize, goal: Goal) -> Result<()> {
    let mut failures = 0;
    let mut backoff = BACKOFF.0;
    loop {
        let begun = tokio::time::Instant::now();
        let member = Arc::clone(&shared);
        let read = tokio::task::spawn_blocking(move || Reader::join(&member, index)?.read()).await;
        let Err(error) = flatten(read) else { return Ok(()) };
        if begun.elapsed() > BACKOFF.1 {
            (failures, backoff) = (0, BACKOFF.0);
        }
        failures += 1;
        shared.metrics.failed(&shared.name, &error.kind().to_string());
        // What has worked before may work again: credentials are renewed, buckets come back. A daemon goes on trying.
        let worked = goal.attempts.is_none() && !shared.state().ends.is_empty();
        let hopeless = matches!(error.kind(), ErrorKind::Config | ErrorKind::Data) && !worked;
        if shared.stop.is_cancelled() || hopeless || goal.attempts.is_some_and(|most| failures >= most) {
            return Err(error);
        }
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        if error.kind().is_retryable() {
            tracing::warn!(pipeline = %shared.name, consumer = index, %error, cause, ?backoff, "starting again from the chain");
        } else {
            tracing::error!(pipeline = %shared.name, consumer = index, %error, cause, ?backoff, "a person must act");
        }
        tokio::select! {
            () = tokio::time::sleep(backoff) => {}
            () = shared.stop.cancelled() => return Ok(()),
        }
        backoff = (backoff * 2).min(BACKOFF.1);
    }
}

/// How often a cluster is asked again that does not answer: other pipelines of the daemon have other clusters, and go on
/// meanwhile.
struct Patience {
    name: PipelineName,
    metrics: Metrics,
    stop: CancellationToken,
    goal: Goal,
    failures: u32,
    backoff: Duration,
}

impl Patience {
    fn new(name: &PipelineName, metrics: &Metrics, stop: &CancellationToken, goal: Goal) -> Self {
        let (name, metrics, stop) = (name.clone(), metrics.clone(), stop.clone());
        Self { name, metrics, stop, goal, failures: 0, backoff: BACKOFF.0 }
    }

    /// Waits until it is time to ask again; `false` when the daemon stops first.
    ///
    /// # Errors
    /// The failure, when asking again is no use.
    async fn after(&mut self, error: Error) -> Result<bool> {
        self.failures += 1;
        self.metrics.failed(&self.name, &error.kind().to_string());
        if !error.kind().is_retryable() || self.goal.attempts.is_some_and(|most| self.failures >= most) {
            return Err(error);
        }
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        tracing::warn!(pipeline = %self.name, %error, cause, backoff = ?self.backoff, "asking the cluster again");
        tokio::select! {
            () = tokio::time::sleep(self.backoff) => {}
            () = self.stop.cancelled() => return Ok(false),
        }
        self.backoff = (self.backoff * 2).min(BACKOFF.1);
        Ok(true)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::bug("a question to kafka panicked").with_source(e))?
}

/// Finds the topics; a listed one that is missing is waited for, unless somebody waits for the end.
async fn observe_topics(shared: &Arc<Shared>, selection: &Selection, goal: Goal) -> Result<()> {
    let (observer, selection) = (shared.observer.clone(), selection.clone());
    let listed = match &selection {
        Selection::List(topics) => topics.clone(),
        Selection::Pattern(_) => Vec::new(),
    };
    let topics = blocking(move || observer.topics(&selection)).await?;
    if let Some(missing) = listed.iter().find(|topic| !topics.contains_key(topic)) {
        if goal.until_caught_up {
            return Err(Error::unavailable(format!(
                "cluster {} has no topic {missing}; create it, or correct the pipeline",
                shared.cluster_name
            )));
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

async fn learn_retention(shared: Arc<Shared>, topics: Vec<Topic>) {
    let known = match crate::kafka::client(&shared.cluster_name, &shared.cluster) {
        Ok(client) => retention::retention(&client, &topics).await,
        Err(error) => Err(error),
    };
    match known {
        Ok(known) => {
            if let Some(problem) = retention::too_short(&shared.ingestion, &known) {
                tracing::error!(pipeline = %shared.name, "{problem}");
            }
            shared.state().retention.extend(known);
        }
        Err(error) => tracing::debug!(pipeline = %shared.name, %error, "no retention"),
    }
}

type Bounds = BTreeMap<PartitionRef, (Offset, Offset)>;

/// First offsets and ends of all partitions of the pipeline.
async fn bounds(shared: &Arc<Shared>) -> Result<Bounds> {
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
async fn observe_ends(shared: &Arc<Shared>) -> Result<()> {
    let lanes: Vec<_> = shared.state().lanes.values().cloned().collect();
    let shared = Arc::clone(shared);
    blocking(move || {
        let topics: BTreeSet<_> = lanes.iter().map(|lane| lane.partition.topic.topic.clone()).collect();
        let ids = shared.observer.topic_ids(&topics.into_iter().collect::<Vec<_>>());
        for lane in lanes {
            if let (Some(was), Some(is)) = (&lane.topic_id, ids.get(&lane.partition.topic.topic))
                && was != is
            {
                // The assignment that follows stops the topic and says what to do.
                lane.fail(Error::unavailable(format!("{}: the topic was made again", lane.partition)));
                continue;
            }
            // Before the question: whatever the answer leaves out came later.
            let at = shared.rules.clock.now();
            let (_, end) = shared.observer.bounds(&lane.partition.topic.topic, lane.partition.partition)?;
            lane.push(Work::End(end, at));
            let status = lane.status();
            lane.metrics.observed(end, status.committed);
            let unread_since = status.timestamp.filter(|_| end > status.committed);
            let retention = shared.retention(&lane.partition.topic.topic);
            let alarm = match (retention, unread_since) {
                (Some(retention), Some(since)) => {
                    (at.timestamp_millis() - since) as f64 > retention.as_millis() as f64 * 0.75
                }
                _ => false,
            };
            if lane.metrics.expiring(alarm) {
                tracing::error!(pipeline = %shared.name, partition = %lane.partition, "unread data is about to expire");
            }
        }
        Ok(())
    })
    .await
}

/// Watches Kafka for as long as the pipeline runs.
async fn watch(shared: &Arc<Shared>, selection: &Selection) -> Result<()> {
    let goal = Goal { until_caught_up: false, attempts: None };
    loop {
        tokio::time::sleep(OBSERVE).await;
        let topics = observe_topics(shared, selection, goal).await;
        if let Err(error) = topics.and(observe_ends(shared).await) {
            tracing::warn!(pipeline = %shared.name, %error, "cannot observe the cluster");
        }
    }
}

/// Waits until every partition's chain has reached its target, closing batches that have read that far.
async fn catch_up(shared: &Arc<Shared>, targets: Bounds) -> Result<()> {
    let mut open: BTreeMap<_, _> = targets.into_iter().map(|(partition, (_, end))| (partition, end)).collect();
    let mut tick = tokio::time::interval(OBSERVE_EAGERLY);
    let mut rounds = 0_u32;
    loop {
        tick.tick().await;
        rounds += 1;
        let (lanes, stopped, ends) = {
            let state = shared.state();
            (state.lanes.clone(), state.stopped.clone(), state.ends.clone())
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
        // Those that another daemon reads show in their chains only.
        if rounds.is_multiple_of(20) {
            for partition in open.keys().filter(|partition| !lanes.contains_key(partition)) {
                if let Some(chain) = ledger::end(shared, partition, ends.get(partition).copied()).await? {
                    shared.extended(partition, chain.end);
                }
            }
        }
        if open.is_empty() {
            // What the lanes now learn lets them say that their hours are complete.
            return observe_ends(shared).await;
        }
    }
}
