//! When a batch is closed, and whose. Pure: values and `now` in, a decision out.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

/// Why a batch was closed; a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// One of its objects reached the configured size.
    Size,
    /// It reached the configured age.
    Age,
    /// Memory ran short and it was the largest.
    Memory,
    /// The partition is leaving, the daemon stops, or it has read what it was asked to read.
    Drain,
}

impl Cause {
    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Age => "age",
            Self::Memory => "memory",
            Self::Drain => "drain",
        }
    }
}

/// The configured limits of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Compressed bytes of one object.
    pub size: u64,
    /// Time since the batch got its first offset.
    pub age: Duration,
}

/// What the decision needs to know of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Compressed bytes of its largest object, lines not yet compressed counted at a quarter.
    pub largest_object: u64,
    /// When it got its first offset; `None` while it is empty.
    pub opened_at: Option<DateTime<Utc>>,
}

/// Whether a batch is to be closed now. The hours of a batch are closed together, so that late hours make at most one
/// object each per batch and never rotate on their own.
#[must_use]
pub fn due(shape: Shape, limits: Limits, now: DateTime<Utc>) -> Option<Cause> {
    let opened_at = shape.opened_at?;
    if shape.largest_object >= limits.size {
        return Some(Cause::Size);
    }
    let age = TimeDelta::from_std(limits.age).unwrap_or(TimeDelta::MAX);
    (now - opened_at >= age).then_some(Cause::Age)
}

/// Whose batch to close when memory runs short: the one that holds most, the older one of equals.
#[must_use]
pub fn victim<K>(batches: impl IntoIterator<Item = (K, u64, Option<DateTime<Utc>>)>) -> Option<K> {
    let held = batches.into_iter().filter_map(|(key, bytes, opened_at)| Some((key, bytes, opened_at?)));
    held.max_by(|a, b| a.1.cmp(&b.1).then(b.2.cmp(&a.2))).map(|(key, ..)| key)
}

/// Whether an idle partition should say again how far it has read.
///
/// An hour can be sealed once everything held at its end plus `late_allowed` was read, so one word per hour is enough,
/// and one when there was none before.
#[must_use]
pub fn progress_due(last: Option<DateTime<Utc>>, caught_up_at: DateTime<Utc>, late_allowed: Duration) -> bool {
    let late = TimeDelta::from_std(late_allowed).unwrap_or(TimeDelta::MAX);
    let sealed = |at: DateTime<Utc>| at.checked_sub_signed(late).map(|t| t.timestamp().div_euclid(3600));
    last.is_none_or(|last| sealed(last) < sealed(caught_up_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn a_batch_is_closed_by_size_first_and_by_age_at_its_bound() {
        let limits = Limits { size: 100, age: Duration::from_mins(1) };
        let check = |largest_object, opened_at: Option<i64>, now, expected| {
            let shape = Shape { largest_object, opened_at: opened_at.map(at) };
            assert_eq!(due(shape, limits, at(now)), expected, "{largest_object} {opened_at:?} {now}");
        };
        check(99, Some(0), 59, None);
        check(100, Some(0), 0, Some(Cause::Size));
        check(100, Some(0), 60, Some(Cause::Size));
        check(1, Some(0), 60, Some(Cause::Age));
        check(0, Some(0), 61, Some(Cause::Age));
        check(0, None, 1_000_000, None);
    }

    #[test]
    fn the_largest_batch_gives_way_and_empty_ones_never() {
        assert_eq!(victim([("a", 5, Some(at(3))), ("b", 9, Some(at(9))), ("c", 9, Some(at(1)))]), Some("c"));
        assert_eq!(victim([("a", 5, None)]), None);
    }

    #[test]
    fn an_idle_partition_speaks_once_per_sealed_hour() {
        let late = Duration::from_mins(10);
        assert!(progress_due(None, at(10), late));
        assert!(!progress_due(Some(at(3600)), at(4199), late));
        assert!(progress_due(Some(at(3600)), at(4200), late));
        assert!(!progress_due(Some(at(4200)), at(7799), late));
    }
}
