//! `/metrics`, `/healthz` and `/readyz`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use firn_shared::error::{Error, Result};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::memory::Memory;
use crate::metrics::Metrics;

/// What the endpoints look at.
#[derive(Debug, Clone)]
pub struct Health {
    /// The metrics.
    pub metrics: Metrics,
    /// The bound.
    pub memory: Arc<Memory>,
    /// Set once every pipeline has found its cluster.
    pub ready: Arc<AtomicBool>,
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
    match health.metrics.render(health.memory.used(), health.memory.peak()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn ready(State(health): State<Health>) -> Response {
    if health.ready.load(Ordering::Acquire) && !health.stop.is_cancelled() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting or stopping\n").into_response()
    }
}
