//! Repeating requests, with pauses drawn at random.

use std::time::Duration;

use rand::Rng;

use super::client::S3Limits;
use super::failure::Failure;

/// Runs `attempt` (told its number, from 1) until it succeeds, fails for good, or the attempts are used up.
pub(super) async fn retry<T, Fut>(limits: &S3Limits, mut attempt: impl FnMut(u32) -> Fut) -> Result<T, Failure>
where
    Fut: Future<Output = Result<T, Failure>>,
{
    let mut number = 1;
    loop {
        let mut failure = match attempt(number).await {
            Ok(value) => return Ok(value),
            Err(failure) => failure,
        };
        failure.attempts = number;
        if !failure.class.is_transient() || number >= limits.attempts {
            return Err(failure);
        }
        let pause = rand::rng().random_range(Duration::ZERO..=pause_bound(limits, number));
        tracing::debug!(number, ?pause, failure = %failure.text, "a request failed and is repeated");
        tokio::time::sleep(pause).await;
        number += 1;
    }
}

/// The longest pause after attempt `number`.
fn pause_bound(limits: &S3Limits, number: u32) -> Duration {
    limits.backoff.saturating_mul(1 << (number - 1).min(20)).min(limits.backoff_max)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::store::s3::failure::Class;

    fn limits() -> S3Limits {
        S3Limits { attempts: 3, backoff: Duration::from_millis(1), ..S3Limits::default() }
    }

    async fn run(class: Class, good_from: u32) -> (Result<u32, Class>, u32) {
        let (limits, tried) = (limits(), Cell::new(0));
        let done = retry(&limits, |number| {
            tried.set(number);
            async move { if number >= good_from { Ok(number) } else { Err(Failure::of(class)) } }
        });
        (done.await.map_err(|failure| failure.class), tried.get())
    }

    #[tokio::test]
    async fn only_transient_failures_are_repeated_and_not_for_ever() {
        assert_eq!(run(Class::Transient, 1).await, (Ok(1), 1));
        assert_eq!(run(Class::Transient, 3).await, (Ok(3), 3));
        assert_eq!(run(Class::Transient, 4).await, (Err(Class::Transient), 3));
        assert_eq!(run(Class::Refused, 2).await, (Err(Class::Refused), 1));
    }

    #[test]
    fn pauses_double_up_to_their_bound() {
        let limits = S3Limits { backoff_max: Duration::from_millis(5), ..limits() };
        let bounds: Vec<u128> = (1..=5).map(|number| pause_bound(&limits, number).as_millis()).collect();
        assert_eq!(bounds, [1, 2, 4, 5, 5]);
        assert_eq!(pause_bound(&limits, u32::MAX).as_millis(), 5);
    }
}
