//! All pipelines of one deployment, in one process.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use firn_shared::clock::{Clock, SystemClock};
use firn_shared::config::domain::Config;
use firn_shared::config::protected::protected;
use firn_shared::crypto::{Guard, Keys};
use firn_shared::error::{Error, Result};
use firn_shared::ids::PipelineName;
use firn_shared::raw::admit::Admission;
use firn_shared::store::{Store, Stores};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cpu::Cpu;
use crate::lane::LaneRules;
use crate::memory::{Memory, Shares};
use crate::metrics::Metrics;
use crate::pipeline::{self, Goal, Parts, Shared};
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

/// Lands until `shutdown` resolves, or until caught up when the options say so; then drains and leaves the groups.
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
    let pipelines: BTreeMap<_, _> = config
        .pipelines
        .iter()
        .filter(|(name, _)| options.pipeline.as_ref().is_none_or(|only| only == *name))
        .collect();
    if pipelines.is_empty() {
        return Err(Error::config(match &options.pipeline {
            Some(name) => format!("there is no pipeline {name}"),
            None => "there is no pipeline to run".to_owned(),
        }));
    }
    let consumers = pipelines.values().map(|p| p.ingestion.consumers.max(1)).sum();
    let settings = &config.deployment.landing;
    let shares = Shares::of(settings.memory, consumers)?;
    let memory = Memory::new(shares.buffers);
    let metrics = Metrics::new()?;
    let cpu = Cpu::new(options.threads)?;
    let uploads = Arc::new(Semaphore::new(shares.uploads as usize));
    let stores = Stores::new(config.deployment.s3.clone());
    let keys = Keys::new(&config.deployment, stores, Arc::clone(&options.clock));
    let stop = CancellationToken::new();
    let readiness = Arc::new(Readiness::default());
    for name in pipelines.keys() {
        readiness.lacks(name, Part::Cluster, "has not found its cluster yet");
    }

    let serving = match &settings.listen {
        Some(listen) => {
            let health = Health {
                metrics: metrics.clone(),
                memory: Arc::clone(&memory),
                readiness: Arc::clone(&readiness),
                stop: stop.clone(),
            };
            Some(tokio::spawn(server::serve(listen, health).await?))
        }
        None => None,
    };

    let mut running = JoinSet::new();
    let goal = Goal { until_caught_up: options.until_caught_up, attempts: options.attempts };
    for (name, pipeline) in pipelines {
        let ingestion = pipeline.ingestion.clone();
        let cluster = config
            .deployment
            .clusters
            .get(&ingestion.cluster)
            .cloned()
            .ok_or_else(|| Error::config(format!("pipeline {name}: there is no cluster {}", ingestion.cluster)))?;
        let guard = if ingestion.protect_at_landing {
            Guard::new(&pipeline.outputs.iter().flat_map(protected).collect::<Vec<_>>(), &keys).await?
        } else {
            None
        };
        let rules = LaneRules {
            admission: Admission::of(&ingestion)?,
            guard,
            limits: Limits { size: ingestion.rotate_size, age: ingestion.rotate_age },
            clock: Arc::clone(&options.clock),
            cpu: cpu.clone(),
            memory: Arc::clone(&memory),
            frame: shares.frame,
            late_allowed: ingestion.late_allowed,
        };
        let parts = Parts {
            name: name.clone(),
            group: format!("{}{name}", settings.group_prefix),
            cluster,
            ingestion,
            topic_ids: options.topic_ids,
            shares,
            drain: settings.drain,
            rules: Arc::new(rules),
            metrics: metrics.clone(),
            readiness: Arc::clone(&readiness),
            store: Arc::clone(&store),
            uploads: Arc::clone(&uploads),
            stop: stop.child_token(),
        };
        running.spawn(land(parts, goal));
    }

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
    stop.cancel();
    if let Some(serving) = serving {
        serving.await.map_err(|e| Error::bug("the metrics server panicked").with_source(e))?;
    }
    summary.buffer_bytes_peak = memory.peak();
    outcome.map(|()| summary)
}

/// One pipeline from its start to its end, and what it has done.
async fn land(parts: Parts, goal: Goal) -> (PipelineName, PipelineSummary, Result<()>) {
    let (name, readiness) = (parts.name.clone(), Arc::clone(&parts.readiness));
    let (mut totals, mut result) = (PipelineSummary::default(), Ok(()));
    match Shared::open(parts, goal).await {
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
