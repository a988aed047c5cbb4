//! One pipeline: its consumers, and what they share with those who watch Kafka and the raw zone for them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use firn_shared::config::domain::{Cluster, Ingestion};
use firn_shared::error::{Error, ErrorKind, Result};
use firn_shared::ids::{ClusterName, Offset, Partition, PartitionRef, PipelineName, Topic, TopicRef};
use firn_shared::raw::manifest::BatchManifest;
use firn_shared::raw::progress;
use firn_shared::store::Store;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::catch_up::catch_up;
use crate::commit;
use crate::consumer::Reader;
use crate::damage::Damage;
use crate::expiry;
use crate::kafka::{Observer, Selection, Topics};
use crate::lane::{Lane, LaneRules, Origin, Status};
use crate::ledger::Ledger;
use crate::memory::Shares;
use crate::metrics::{Metrics, PartitionMetrics};
use crate::observe;
use crate::patience::{BACKOFF, Patience};
use crate::retired;
use crate::rivals::Rivals;
use crate::server::{Part, Readiness};
use crate::summary::PipelineSummary;

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
    /// Whose topics are not this pipeline's.
    pub rivals: Rivals,
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
pub struct State {
    /// The topics that exist, and their partitions.
    pub topics: Topics,
    /// How long the broker keeps records.
    pub retention: BTreeMap<Topic, Duration>,
    /// What is being read.
    pub lanes: HashMap<PartitionRef, Arc<Lane>>,
    /// Where chains end, at least.
    pub ends: HashMap<PartitionRef, Offset>,
    /// What the group has committed, as its consumers saw it last.
    pub hints: HashMap<PartitionRef, Offset>,
    /// Topics that another pipeline reads, and what to do about it.
    pub refused: BTreeMap<Topic, String>,
    /// What waits for an operator, and why.
    pub stopped: BTreeMap<PartitionRef, String>,
    /// Consumers that the group has told what is their own.
    pub joined: BTreeSet<usize>,
    /// Partitions that have a trace in the raw zone.
    traced: BTreeSet<(Topic, Partition)>,
    /// Where partitions cannot be read.
    damaged: HashMap<PartitionRef, Damage>,
    /// Whether anything was ever read.
    worked: bool,
}

impl State {
    /// Whether the lane is the one of its partition.
    fn has(&self, lane: &Arc<Lane>) -> bool {
        self.lanes.get(&lane.partition).is_some_and(|current| Arc::ptr_eq(current, lane))
    }
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
    pub rivals: Rivals,
    /// See [`Shared`].
    pub group: String,
    /// See [`crate::Options`].
    pub topic_ids: bool,
    /// See [`Shared`].
    pub shares: Shares,
    /// See [`Shared`].
    pub drain: Duration,
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
    pub async fn open(parts: Parts, rules: Arc<LaneRules>, goal: Goal) -> Result<Option<Arc<Self>>> {
        let mut patience = Patience::new(&parts.name, &parts.metrics, &parts.stop, goal);
        loop {
            match Self::new(parts.clone(), Arc::clone(&rules)) {
                Ok(shared) => return Ok(Some(shared)),
                Err(error) => {
                    if !patience.after(error).await? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn new(parts: Parts, rules: Arc<LaneRules>) -> Result<Arc<Self>> {
        let cluster_name = parts.ingestion.cluster.clone();
        let observer =
            Observer::new(crate::kafka::client(&cluster_name, &parts.cluster)?)?.asking_for_ids(parts.topic_ids);
        Ok(Arc::new(Self {
            name: parts.name,
            cluster_name,
            cluster: parts.cluster,
            ingestion: parts.ingestion,
            rivals: parts.rivals,
            group: parts.group,
            shares: parts.shares,
            drain: parts.drain,
            rules,
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

    /// What changes. Never hold this across an await point.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many consumers this daemon has.
    #[must_use]
    pub fn consumers(&self) -> usize {
        self.ingestion.consumers.max(1)
    }

    /// Leaves a trace of every known partition in the raw zone: before any of them is read, so that the compactor knows
    /// of all when it sees the first batch of one.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn trace(&self) -> Result<()> {
        let mut missing = Topics::new();
        {
            let state = self.state();
            for (topic, partitions) in &state.topics {
                let new = partitions.iter().filter(|p| !state.traced.contains(&(topic.clone(), **p)));
                missing.entry(topic.clone()).or_default().extend(new);
            }
        }
        for (topic, partitions) in missing.into_iter().filter(|(_, partitions)| !partitions.is_empty()) {
            progress::trace(&self.store, &self.topic(&topic), &partitions).await?;
            self.state().traced.extend(partitions.into_iter().map(|partition| (topic.clone(), partition)));
        }
        Ok(())
    }

    /// The topics to subscribe to, in order.
    #[must_use]
    pub fn topics(&self) -> Vec<String> {
        self.state().topics.keys().map(ToString::to_string).collect()
    }

    /// How long a topic keeps records: what the broker said, else what the operator believes.
    pub fn retention(&self, topic: &Topic) -> Option<Duration> {
        self.state().retention.get(topic).copied().or(self.ingestion.retention)
    }

    /// The full name of a topic.
    #[must_use]
    pub fn topic(&self, topic: &Topic) -> TopicRef {
        let (cluster, generation) = (self.cluster_name.clone(), self.ingestion.generation.of(topic));
        TopicRef { cluster, topic: topic.clone(), generation }
    }

    /// The full name of a partition.
    #[must_use]
    pub fn partition(&self, topic: &Topic, partition: Partition) -> PartitionRef {
        PartitionRef { topic: self.topic(topic), partition }
    }

    /// Opens a lane and starts its committer.
    pub fn open_lane(self: &Arc<Self>, origin: Origin, ledger: Ledger) -> Arc<Lane> {
        let partition = origin.partition.clone();
        let metrics = self.metrics.partition(&self.name, &partition);
        let start = origin.start;
        let (lane, outgoing) = Lane::new(Arc::clone(&self.rules), origin, metrics);
        self.extended(&partition, start);
        let mut state = self.state();
        state.worked = true;
        state.stopped.remove(&partition);
        state.lanes.insert(partition, Arc::clone(&lane));
        lane.metrics.stopped(false);
        drop(state);
        self.runtime.spawn(commit::run(Arc::clone(self), Arc::clone(&lane), ledger, outgoing));
        lane
    }

    /// The lane is over.
    pub fn close_lane(&self, lane: &Arc<Lane>) {
        let mut state = self.state();
        if state.has(lane) {
            state.lanes.remove(&lane.partition);
            lane.metrics.forget();
        }
    }

    /// Where Kafka's end was for a lane; nothing is said of one that is over.
    pub fn observed(&self, lane: &Arc<Lane>, kafka_end: Offset) {
        let state = self.state();
        if state.has(lane) {
            let Status { committed, taken, .. } = lane.status();
            lane.metrics.observed(kafka_end, committed, taken);
        }
    }

    /// A partition that waits for an operator is another daemon's from now on.
    pub fn release(&self, partition: &PartitionRef) {
        self.metrics.partition(&self.name, partition).forget();
    }

    /// The chain of a partition ends here, or further on.
    pub fn extended(&self, partition: &PartitionRef, end: Offset) {
        let mut state = self.state();
        let known = state.ends.entry(partition.clone()).or_default();
        *known = end.max(*known);
    }

    /// A partition cannot be read from here on.
    pub fn damaged(&self, damage: Damage) {
        self.state().damaged.insert(damage.partition.clone(), damage);
    }

    /// Why a partition cannot be read from `start` on, if that was seen.
    #[must_use]
    pub fn damage(&self, partition: &PartitionRef, start: Offset) -> Option<String> {
        let state = self.state();
        let damage = state.damaged.get(partition).filter(|damage| damage.offset == start)?;
        Some(format!(
            "cannot read {partition} from offset {start} on: {}; when the broker's copy is repaired, or the records up to \
             the next sound one are deleted, start landing again",
            damage.why
        ))
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
    while let Err(error) = observe::topics(&shared, &selection, goal).await {
        shared.readiness.lacks(&shared.name, Part::Cluster, error.to_string());
        if !patience.after_answer(error).await? {
            return Ok(PipelineSummary::default());
        }
    }
    shared.readiness.has(&shared.name, Part::Cluster);
    let targets = if goal.until_caught_up { Some(observe::bounds(&shared).await?) } else { None };

    let mut readers = JoinSet::new();
    for index in 0..shared.consumers() {
        readers.spawn(keep_reading(Arc::clone(&shared), index, goal));
    }
    let watching = async {
        match targets {
            Some(targets) => catch_up(&shared, targets).await,
            None => {
                let watched = tokio::join!(
                    observe::watch(&shared, &selection),
                    expiry::watch(&shared),
                    retired::watch(&shared, &selection)
                );
                watched.0.and(watched.1).and(watched.2)
            }
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
    let left_out = {
        let state = shared.state();
        state.stopped.values().chain(state.refused.values()).next().cloned()
    };
    match left_out {
        Some(why) if goal.until_caught_up => Err(Error::config(why)),
        _ => Ok(shared.totals.lock().unwrap_or_else(PoisonError::into_inner).clone()),
    }
}

fn flatten(joined: std::result::Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    joined.unwrap_or_else(|e| Err(Error::bug("a consumer panicked").with_source(e)))
}

/// Runs one consumer until the pipeline stops or something breaks.
async fn read(shared: &Arc<Shared>, index: usize) -> Result<()> {
    shared.trace().await?;
    let member = Arc::clone(shared);
    flatten(tokio::task::spawn_blocking(move || Reader::join(&member, index)?.read()).await)
}

/// Runs one consumer, again and again.
async fn keep_reading(shared: Arc<Shared>, index: usize, goal: Goal) -> Result<()> {
    let mut failures = 0;
    let mut backoff = BACKOFF.0;
    loop {
        let begun = tokio::time::Instant::now();
        let Err(error) = read(&shared, index).await else { return Ok(()) };
        shared.state().joined.remove(&index);
        if begun.elapsed() > BACKOFF.1 {
            (failures, backoff) = (0, BACKOFF.0);
        }
        failures += 1;
        shared.metrics.failed(&shared.name, &error.kind().to_string());
        // What has worked before may work again: credentials are renewed, buckets come back. A daemon goes on trying.
        let worked = goal.attempts.is_none() && shared.state().worked;
        let hopeless = matches!(error.kind(), ErrorKind::Config | ErrorKind::Data) && !worked;
        if shared.stop.is_cancelled() || hopeless || goal.attempts.is_some_and(|most| failures >= most) {
            return Err(error);
        }
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let why = cause.as_ref().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
        shared.readiness.lacks(&shared.name, Part::Consumer(index), format!("consumer {index} starts again: {why}"));
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
