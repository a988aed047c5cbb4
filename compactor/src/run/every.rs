//! Runs again and again, until asked to stop.

use std::time::Duration;

use firn_shared::cli::asked_to_stop;
use firn_shared::error::Result;
use rand::Rng;
use tokio_util::sync::CancellationToken;

/// Waits for about `every` (up to a tenth longer, so that many compactors do not fall into step), or until asked to
/// stop; then `false`.
pub async fn pause(every: Duration, stop: &CancellationToken) -> bool {
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
