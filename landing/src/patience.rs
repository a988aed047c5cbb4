//! How long, and how often, a pipeline tries what failed.

use std::time::Duration;

use firn_shared::error::{Error, ErrorKind, Result};
use firn_shared::ids::PipelineName;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::pipeline::Goal;

/// Bounds of the wait before something is tried again.
pub const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// How often something is tried again that a pipeline needs to begin, its cluster or its keys: other pipelines of the daemon
/// have others, and go on meanwhile.
#[derive(Debug)]
pub struct Patience {
    name: PipelineName,
    metrics: Metrics,
    stop: CancellationToken,
    goal: Goal,
    failures: u32,
    backoff: Duration,
}

impl Patience {
    /// For the first question.
    #[must_use]
    pub fn new(name: &PipelineName, metrics: &Metrics, stop: &CancellationToken, goal: Goal) -> Self {
        let (name, metrics, stop) = (name.clone(), metrics.clone(), stop.clone());
        Self { name, metrics, stop, goal, failures: 0, backoff: BACKOFF.0 }
    }

    /// Waits until it is time to ask again; `false` when the daemon stops first.
    ///
    /// # Errors
    /// The failure, when asking again is no use.
    pub async fn after(&mut self, error: Error) -> Result<bool> {
        let hopeless = !error.kind().is_retryable();
        self.wait(error, hopeless).await
    }

    /// The same for a server's answer: what it refuses now it may grant later, and a daemon asks on.
    ///
    /// # Errors
    /// As [`Patience::after`].
    pub async fn after_answer(&mut self, error: Error) -> Result<bool> {
        let granted_later = self.goal.attempts.is_none() && error.kind() == ErrorKind::Config;
        let hopeless = !error.kind().is_retryable() && !granted_later;
        self.wait(error, hopeless).await
    }

    async fn wait(&mut self, error: Error, hopeless: bool) -> Result<bool> {
        self.failures += 1;
        self.metrics.failed(&self.name, &error.kind().to_string());
        if hopeless || self.goal.attempts.is_some_and(|most| self.failures >= most) {
            return Err(error);
        }
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        if error.kind().is_retryable() {
            tracing::warn!(pipeline = %self.name, %error, cause, backoff = ?self.backoff, "trying again");
        } else {
            tracing::error!(pipeline = %self.name, %error, cause, backoff = ?self.backoff, "a person must act");
        }
        tokio::select! {
            () = tokio::time::sleep(self.backoff) => {}
            () = self.stop.cancelled() => return Ok(false),
        }
        self.backoff = (self.backoff * 2).min(BACKOFF.1);
        Ok(true)
    }
}
