//! `/metrics`, `/healthz` and `/readyz`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use firn_shared::crypto::Keys;
use firn_shared::error::{Error, Result};
use firn_shared::ids::PipelineName;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::memory::Memory;
use crate::metrics::Metrics;

/// A part of a pipeline that may not be ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// All of it.
    Whole,
    /// Its cluster.
    Cluster,
    /// One of its consumers.
    Consumer(usize),
}

/// What keeps the daemon from being ready: pipelines that do not see their cluster, whose consumers fail, or that ended.
#[derive(Debug, Default)]
pub struct Readiness(Mutex<BTreeMap<(PipelineName, Part), String>>);

impl Readiness {
    fn reasons(&self) -> MutexGuard<'_, BTreeMap<(PipelineName, Part), String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This part does not do its work, for this reason.
    pub fn lacks(&self, pipeline: &PipelineName, part: Part, why: impl Into<String>) {
        self.reasons().insert((pipeline.clone(), part), why.into());
    }

    /// This part does its work.
    pub fn has(&self, pipeline: &PipelineName, part: Part) {
        self.reasons().remove(&(pipeline.clone(), part));
    }

    /// A line for each part that does not do its work.
    #[must_use]
    pub fn lacking(&self) -> String {
        let mut text = String::new();
        for ((pipeline, _), why) in self.reasons().iter() {
            let _ = writeln!(text, "{pipeline}: {why}");
        }
        text
    }
}

/// What the endpoints look at.
#[derive(Debug, Clone)]
pub struct Health {
    /// The metrics.
    pub metrics: Metrics,
    /// The bound.
    pub memory: Arc<Memory>,
    /// The keys that seal.
    pub keys: Arc<Keys>,
    /// Empty while every pipeline does its work.
    pub readiness: Arc<Readiness>,
    /// Set when the daemon ends.
    pub stop: CancellationToken,
}

/// Binds the address now, so that a taken port is an error of the start, and serves until `health.stop`.
///
/// # Errors
/// `Config` when the address cannot be bound.
pub async fn serve(listen: &str, health: Health) -> Result<impl Future<Output = ()> + Send + 'static> {
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|e| Error::config(format!("landing.listen: cannot listen on {listen}")).with_source(e))?;
    let address = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
    tracing::info!(address, "serving /metrics, /healthz and /readyz");
    let stop = health.stop.clone();
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .with_state(health);
    Ok(async move {
        let served = axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "the metrics server ended");
        }
    })
}

async fn metrics(State(health): State<Health>) -> Response {
    health.metrics.keys(&health.keys.used());
    match health.metrics.render(health.memory.used(), health.memory.peak()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn ready(State(health): State<Health>) -> Response {
    let lacking = health.readiness.lacking();
    if health.stop.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response()
    } else if lacking.is_empty() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, lacking).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pipeline_that_is_not_reading_is_named_with_the_reason() {
        let (a, b) = (PipelineName::new("a").unwrap(), PipelineName::new("b").unwrap());
        let readiness = Readiness::default();
        readiness.lacks(&a, Part::Cluster, "has not found its cluster yet");
        readiness.lacks(&b, Part::Cluster, "has not found its cluster yet");
        readiness.has(&a, Part::Cluster);
        readiness.lacks(&b, Part::Consumer(1), "consumer 1 starts again: no store");
        readiness.has(&b, Part::Cluster);
        assert_eq!(readiness.lacking(), "b: consumer 1 starts again: no store\n");
        readiness.has(&b, Part::Consumer(0));
        assert_eq!(readiness.lacking(), "b: consumer 1 starts again: no store\n");
        readiness.has(&b, Part::Consumer(1));
        assert_eq!(readiness.lacking(), "");
    }
}
