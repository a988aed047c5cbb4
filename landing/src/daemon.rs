//! All pipelines of one deployment, in one process.

use std::sync::{Arc, PoisonError};

use firn_shared::clock::{Clock, SystemClock};
use firn_shared::config::domain::{Config, Pipeline};
use firn_shared::config::protected::protected;
use firn_shared::crypto::payload::Protected;
use firn_shared::crypto::{Guard, Keys};
use firn_shared::error::{Error, Result};
use firn_shared::ids::PipelineName;
use firn_shared::raw::admit::Admission;
use firn_shared::store::{Store, Stores};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::cpu::Cpu;
use crate::lane::LaneRules;
use crate::memory::{Memory, Shares};
use crate::metrics::Metrics;
use crate::patience::Patience;
use crate::pipeline::{self, Goal, Parts, Shared};
use crate::rivals::Rivals;
use crate::rotate::Limits;
use crate::server::{self, Health, Part, Readiness};
use crate::summary::{PipelineSummary, Summary};

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Stop once everything Kafka held at the start is in the raw zone.
    pub until_caught_up: bool,
    /// Only this pipeline.
    pub pipeline: Option<PipelineName>,
    /// Threads for validation and compression; 0 is one per processor.
    pub threads: usize,
    /// Give up after a consumer failed this often in a row; `None` is never.
    pub attempts: Option<u32>,
    /// Whether brokers are asked for the ids of topics. librdkafka's mock cluster never answers that question, and every
    /// time-out would be waited for.
    pub topic_ids: bool,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            until_caught_up: false,
            pipeline: None,
            threads: 0,
            attempts: None,
            topic_ids: true,
            clock: Arc::new(SystemClock),
        }
    }
}

/// Lands until `shutdown` resolves, or until caught up when the options say so; then drains and leaves the groups. Whoever
/// drops the future instead ends everything at once: what was not appended is read again by the next run.
///
/// `store` is the raw zone.
///
/// # Errors
/// `Config` when a person must act; `Unavailable` and `Conflict` when running again is the answer. What was appended
/// before stays, and the next run goes on from there.
pub async fn run(
    config: &Config,
    store: Arc<dyn Store>,
    options: Options,
    shutdown: impl Future<Output = ()>,
) -> Result<Summary> {
    let pipelines = selected(config, options.pipeline.as_ref())?;
    let daemon = Daemon::new(config, store, &options, &pipelines)?;
    // Readers are threads, which no drop of a future reaches.
    let _ended = daemon.stop.clone().drop_guard();
    let serving = daemon.serve(config).await?;
    let goal = Goal { until_caught_up: options.until_caught_up, attempts: options.attempts };
    let starts: Vec<_> = pipelines.iter().map(|pipeline| daemon.start(config, pipeline)).collect::<Result<_>>()?;
    let mut running = JoinSet::new();
    for start in starts {
        running.spawn(land(start, goal));
    }
    let ended = until_all_end(running, &daemon.stop, shutdown).await;
    daemon.stop.cancel();
    if let Some(serving) = serving {
        serving.await.map_err(|e| Error::bug("the metrics server panicked").with_source(e))?;
    }
    let mut summary = ended?;
    summary.buffer_bytes_peak = daemon.memory.peak();
    Ok(summary)
}

/// The pipelines to run.
fn selected<'c>(config: &'c Config, only: Option<&PipelineName>) -> Result<Vec<&'c Pipeline>> {
    let pipelines: Vec<_> =
        config.pipelines.values().filter(|pipeline| only.is_none_or(|only| *only == pipeline.name)).collect();
    if pipelines.is_empty() {
        return Err(Error::config(match only {
            Some(name) => format!("there is no pipeline {name}"),
            None => "there is no pipeline to run".to_owned(),
        }));
    }
    Ok(pipelines)
}

/// What all pipelines of one process share.
struct Daemon {
    options: Options,
    shares: Shares,
    memory: Arc<Memory>,
    metrics: Metrics,
    readiness: Arc<Readiness>,
    cpu: Cpu,
    store: Arc<dyn Store>,
    uploads: Arc<Semaphore>,
    keys: Arc<Keys>,
    stop: CancellationToken,
}

/// A pipeline before its keys are there.
struct Start {
    parts: Parts,
    rules: LaneRules,
    keys: Arc<Keys>,
    /// What is protected before it is uploaded.
    protected: Vec<Protected>,
}

impl Daemon {
    fn new(config: &Config, store: Arc<dyn Store>, options: &Options, pipelines: &[&Pipeline]) -> Result<Self> {
        let deployment = &config.deployment;
        let consumers = pipelines.iter().map(|p| p.ingestion.consumers.max(1)).sum();
        let shares = Shares::of(deployment.landing.memory, consumers)?;
        let readiness = Arc::new(Readiness::default());
        for pipeline in pipelines {
            readiness.lacks(&pipeline.name, Part::Cluster, "has not found its cluster yet");
        }
        let stores = Stores::new(deployment.s3.clone());
        Ok(Self {
            options: options.clone(),
            shares,
            memory: Memory::new(shares.buffers),
            metrics: Metrics::new()?,
            readiness,
            cpu: Cpu::new(options.threads)?,
            store,
            uploads: Arc::new(Semaphore::new(shares.uploads as usize)),
            keys: Keys::new(deployment, stores, Arc::clone(&options.clock)),
            stop: CancellationToken::new(),
        })
    }

    /// Serves metrics and health until the daemon stops, if it is to.
    async fn serve(&self, config: &Config) -> Result<Option<JoinHandle<()>>> {
        let Some(listen) = &config.deployment.landing.listen else { return Ok(None) };
        let health = Health {
            metrics: self.metrics.clone(),
            memory: Arc::clone(&self.memory),
            keys: Arc::clone(&self.keys),
            readiness: Arc::clone(&self.readiness),
            stop: self.stop.clone(),
        };
        Ok(Some(tokio::spawn(server::serve(listen, health).await?)))
    }

    /// What a pipeline is made of.
    fn start(&self, config: &Config, pipeline: &Pipeline) -> Result<Start> {
        let (name, ingestion) = (pipeline.name.clone(), pipeline.ingestion.clone());
        let cluster = config.deployment.clusters.get(&ingestion.cluster).cloned();
        let cluster = cluster
            .ok_or_else(|| Error::config(format!("pipeline {name}: there is no cluster {}", ingestion.cluster)))?;
        let rivals = Rivals::of(config, &name)?;
        let outputs = pipeline.outputs.iter().filter(|_| ingestion.protect_at_landing);
        let protected = outputs.flat_map(protected).collect();
        let rules = LaneRules {
            admission: Admission::of(&ingestion)?,
            guard: None,
            limits: Limits { size: ingestion.rotate_size, age: ingestion.rotate_age },
            clock: Arc::clone(&self.options.clock),
            cpu: self.cpu.clone(),
            memory: Arc::clone(&self.memory),
            frame: self.shares.frame,
            late_allowed: ingestion.late_allowed,
        };
        let settings = &config.deployment.landing;
        let parts = Parts {
            group: format!("{}{name}", settings.group_prefix),
            name,
            cluster,
            ingestion,
            rivals,
            topic_ids: self.options.topic_ids,
            shares: self.shares,
            drain: settings.drain,
            metrics: self.metrics.clone(),
            readiness: Arc::clone(&self.readiness),
            store: Arc::clone(&self.store),
            uploads: Arc::clone(&self.uploads),
            stop: self.stop.child_token(),
        };
        Ok(Start { parts, rules, keys: Arc::clone(&self.keys), protected })
    }
}

/// Waits for all pipelines; from the first failure on, or when told to, for their ends.
async fn until_all_end(
    mut running: JoinSet<(PipelineName, PipelineSummary, Result<()>)>,
    stop: &CancellationToken,
    shutdown: impl Future<Output = ()>,
) -> Result<Summary> {
    let mut summary = Summary::default();
    let mut outcome = Ok(());
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown, if !stop.is_cancelled() => {
                tracing::info!("stopping: finishing open batches");
                stop.cancel();
            }
            joined = running.join_next() => {
                let Some(joined) = joined else { break };
                let (name, totals, result) = joined.map_err(|e| Error::bug("a pipeline panicked").with_source(e))?;
                summary.pipelines.insert(name.to_string(), totals);
                outcome = outcome.and(result);
            }
        }
    }
    outcome.map(|()| summary)
}

/// One pipeline from its start to its end, and what it has done.
async fn land(start: Start, goal: Goal) -> (PipelineName, PipelineSummary, Result<()>) {
    let (name, readiness) = (start.parts.name.clone(), Arc::clone(&start.parts.readiness));
    let (mut totals, mut result) = (PipelineSummary::default(), Ok(()));
    match open(start, goal).await {
        Ok(Some(shared)) => {
            result = pipeline::run(Arc::clone(&shared), goal).await.map(|_| ());
            totals = shared.totals.lock().unwrap_or_else(PoisonError::into_inner).clone();
        }
        Ok(None) => {}
        Err(error) => result = Err(error),
    }
    if let Err(error) = &result {
        let cause = std::error::Error::source(error).map(ToString::to_string);
        tracing::error!(pipeline = %name, %error, cause, "pipeline ended");
        readiness.lacks(&name, Part::Whole, format!("ended: {error}"));
    }
    (name, totals, result)
}

/// Opens the pipeline's keys and finds its cluster; `None` when the daemon stops first. Other pipelines have other keys and
/// clusters, and go on meanwhile.
async fn open(start: Start, goal: Goal) -> Result<Option<Arc<Shared>>> {
    let Start { parts, mut rules, keys, protected } = start;
    let mut patience = Patience::new(&parts.name, &parts.metrics, &parts.stop, goal);
    while !protected.is_empty() {
        match Guard::new(&protected, &keys).await {
            Ok(guard) => {
                rules.guard = guard;
                break;
            }
            Err(error) => {
                parts.readiness.lacks(&parts.name, Part::Cluster, error.to_string());
                if !patience.after(error).await? {
                    return Ok(None);
                }
            }
        }
    }
    Shared::open(parts, Arc::new(rules), goal).await
}
