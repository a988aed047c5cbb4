//! Runs that wait for a date to be complete, and work that is done again and again until asked to stop.

use std::time::{Duration, Instant};

use firn_shared::cli::asked_to_stop;
use firn_shared::error::{ErrorKind, Result};
use rand::Rng;
use tokio_util::sync::CancellationToken;

use super::{Env, Options, RunReport, Target, once};

/// Dates are asked again this often while they are waited for.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// Runs `target`, and asks again until the deadline while the date that it is for is open.
///
/// # Errors
/// As [`once::run`].
pub async fn waiting(env: &Env, target: Target<'_>, options: &Options, deadline: Instant) -> Result<RunReport> {
    loop {
        match once::run(env, target, options).await {
            Err(error)
                if error.kind() == ErrorKind::Unavailable
                    && options.event_date.is_some()
                    && Instant::now() < deadline =>
            {
                tracing::info!(reason = %error, "waiting");
                let left = deadline.saturating_duration_since(Instant::now());
                tokio::time::sleep(ASK_AGAIN.min(left)).await;
            }
            outcome => return outcome,
        }
    }
}

/// Takes turns until asked to stop (`None`), or until a turn says that there is no use in another; then with what it said.
///
/// # Errors
/// Those of `turn`.
pub async fn repeat<T>(
    every: Duration,
    stop: &CancellationToken,
    mut turn: impl AsyncFnMut() -> Result<(T, bool)>,
) -> Result<Option<T>> {
    loop {
        let (said, again) = turn().await?;
        if !again {
            return Ok(Some(said));
        }
        if !pause(every, stop).await {
            return Ok(None);
        }
    }
}

/// Waits for about `every` (up to a tenth longer, so that many compactors do not fall into step), or until asked to
/// stop; then `false`.
async fn pause(every: Duration, stop: &CancellationToken) -> bool {
    let jitter = rand::rng().random_range(0.0..0.1);
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(every.mul_f64(1.0 + jitter)) => true,
    }
}

/// A token that SIGTERM and SIGINT set: the commit in progress finishes, and no other begins.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn stop_on_signals() -> Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (set, asked) = (stop.clone(), asked_to_stop()?);
    tokio::spawn(async move {
        asked.await;
        tracing::info!("asked to stop; the commit in progress finishes first");
        set.cancel();
    });
    Ok(stop)
}
