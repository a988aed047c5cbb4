//! When an event hour is complete: what partitions say of themselves, and the rule that seals an hour.
//!
//! A partition that receives records says how far it is in its manifests. An idle one writes no manifests, so landing
//! overwrites one small object per partition whenever it has read everything and nothing is open. That object is there
//! from the moment landing knows the partition, before it has read anything and without a claim: nobody takes an hour for
//! complete because a partition has not said anything yet.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::{EventHour, Offset, Partition, PartitionRef, TopicRef};
use crate::raw::key::{Key, Ledger, ProgressKey, ledger_prefix};
use crate::store::{Depth, PutMode, Store};

/// What a partition had reached at some time; by default nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Progress {
    /// The chain's end.
    pub end: Offset,
    /// Wall-clock time at which everything Kafka held had been read up to `end`, if that was ever so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caught_up_at: Option<DateTime<Utc>>,
    /// Largest event time seen so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<DateTime<Utc>>,
    /// Why nobody reads the partition until an operator acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}

/// Overwrites a partition's progress. A crash before or after leaves an older or a newer truth, never a wrong one.
///
/// # Errors
/// Those of the store.
pub async fn write(store: &dyn Store, partition: &PartitionRef, progress: &Progress) -> Result<()> {
    let key = ProgressKey { partition: partition.clone() }.to_string();
    let body = serde_json::to_vec(progress).map_err(|e| Error::bug("progress does not serialise").with_source(e))?;
    let _ = store.put(&key, Bytes::from(body), PutMode::Overwrite).await?;
    Ok(())
}

/// Leaves a trace of those of a topic's partitions that have none: progress without a claim. What is there stays.
///
/// # Errors
/// Those of the store. Doing it again is safe.
pub async fn trace(store: &Arc<dyn Store>, topic: &TopicRef, known: &BTreeSet<Partition>) -> Result<()> {
    let there = partitions(store, topic).await?;
    let body = serde_json::to_vec(&Progress::default())
        .map_err(|e| Error::bug("progress does not serialise").with_source(e))?;
    for partition in known.iter().filter(|partition| there.binary_search(partition).is_err()) {
        let key = ProgressKey { partition: PartitionRef { topic: topic.clone(), partition: *partition } }.to_string();
        // Found there: it has said more in the meantime.
        let _ = store.put(&key, Bytes::from(body.clone()), PutMode::Create).await?;
    }
    Ok(())
}

/// A partition's progress, if it ever wrote one.
///
/// # Errors
/// Those of the store, and `Data` for an object that is not progress.
pub async fn read(store: &dyn Store, partition: &PartitionRef) -> Result<Option<Progress>> {
    let key = ProgressKey { partition: partition.clone() }.to_string();
    let body = match store.get(&key).await {
        Ok(body) => body,
        Err(error) => return if store.head(&key).await?.is_none() { Ok(None) } else { Err(error) },
    };
    let progress = serde_json::from_slice(&body)
        .map_err(|e| Error::data(format!("{}/{key} is not the progress of a partition", store.url())).with_source(e))?;
    Ok(Some(progress))
}

/// The partitions of a topic that landing knows, ascending.
///
/// # Errors
/// Those of the store.
pub async fn partitions(store: &Arc<dyn Store>, topic: &TopicRef) -> Result<Vec<Partition>> {
    let prefix = format!("{}{}/", ledger_prefix(&topic.cluster, &topic.topic, Ledger::Progress), topic.generation);
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.list(&prefix, after.as_deref(), Depth::All).await?;
        for object in &page.objects {
            if let Key::Progress(key) = object.key.parse()? {
                found.push(key.partition.partition);
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// How far a partition is, from its chain and its progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PartitionState {
    /// Largest event time seen.
    pub watermark: Option<DateTime<Utc>>,
    /// When everything that Kafka held had been read, at last.
    pub caught_up_at: Option<DateTime<Utc>>,
}

impl PartitionState {
    /// The newer of two statements.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { watermark: self.watermark.max(other.watermark), caught_up_at: self.caught_up_at.max(other.caught_up_at) }
    }
}

impl From<Progress> for PartitionState {
    fn from(progress: Progress) -> Self {
        Self { watermark: progress.watermark, caught_up_at: progress.caught_up_at }
    }
}

/// Whether an hour is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seal {
    /// Every partition has passed it.
    Sealed,
    /// These have not.
    Open(BTreeMap<PartitionRef, OpenReason>),
}

/// Why an hour is open for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenReason {
    /// Its watermark, and when it had read everything.
    pub state: PartitionState,
    /// The time that either of them must reach.
    pub until: DateTime<Utc>,
}

impl fmt::Display for OpenReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |time: Option<DateTime<Utc>>| time.map_or("never".into(), |t| t.format("%FT%TZ").to_string());
        write!(
            f,
            "its watermark is {} and it had read everything at {}; either must reach {}",
            self.state.watermark.map_or("none".into(), |t| t.format("%FT%TZ").to_string()),
            time(self.state.caught_up_at),
            self.until.format("%FT%TZ")
        )
    }
}

/// Whether `hour` is complete for all partitions: each one's watermark has passed its end by `lateness`, or everything
/// Kafka held for it at wall-clock end + lateness has been read. A topic without partitions is sealed, having nothing.
#[must_use]
pub fn sealed(
    hour: EventHour,
    lateness: std::time::Duration,
    partitions: &BTreeMap<PartitionRef, PartitionState>,
) -> Seal {
    let lateness = chrono::TimeDelta::from_std(lateness).unwrap_or(chrono::TimeDelta::MAX);
    let until = hour.end().checked_add_signed(lateness).unwrap_or(DateTime::<Utc>::MAX_UTC);
    let reached = |time: Option<DateTime<Utc>>| time.is_some_and(|time| time >= until);
    let open: BTreeMap<_, _> = partitions
        .iter()
        .filter(|(_, state)| !reached(state.watermark) && !reached(state.caught_up_at))
        .map(|(partition, &state)| (partition.clone(), OpenReason { state, until }))
        .collect();
    if open.is_empty() { Seal::Sealed } else { Seal::Open(open) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn partition(number: u32) -> PartitionRef {
        PartitionRef { topic: "events/t/1".parse().unwrap(), partition: Partition(number) }
    }

    fn at(text: &str) -> Option<DateTime<Utc>> {
        (!text.is_empty()).then(|| text.parse().unwrap())
    }

    #[test]
    fn an_hour_is_sealed_when_every_partition_has_passed_it_or_had_nothing_more() {
        let hour = "2026-11-22T07".parse().unwrap();
        let hour_and_six = ["2026-11-22T14:00:00Z", "2026-11-22T13:59:59Z"];
        let cases = [
            (vec![], true),
            (vec![(hour_and_six[0], "")], true),
            (vec![(hour_and_six[1], "")], false),
            (vec![("", hour_and_six[0])], true),
            (vec![(hour_and_six[1], hour_and_six[1])], false),
            (vec![("", "")], false),
            (vec![(hour_and_six[0], ""), ("", hour_and_six[0])], true),
            (vec![(hour_and_six[0], ""), (hour_and_six[1], "")], false),
        ];
        for (states, expected) in cases {
            let states: BTreeMap<_, _> = (0..)
                .zip(&states)
                .map(|(n, (watermark, caught_up))| {
                    (partition(n), PartitionState { watermark: at(watermark), caught_up_at: at(caught_up) })
                })
                .collect();
            let seal = sealed(hour, Duration::from_hours(6), &states);
            assert_eq!(seal == Seal::Sealed, expected, "{states:?}");
        }
    }

    #[tokio::test]
    async fn a_trace_claims_nothing_and_takes_nothing_back() {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(crate::store::LocalStore::new(dir.path()).unwrap());
        let said = Progress { end: 7, caught_up_at: at("2026-11-22T07:10:00Z"), ..Progress::default() };
        write(&*store, &partition(1), &said).await.unwrap();
        let topic = partition(0).topic;
        for _ in 0..2 {
            trace(&store, &topic, &(0..3).map(Partition).collect()).await.unwrap();
            assert_eq!(partitions(&store, &topic).await.unwrap(), [0, 1, 2].map(Partition));
            assert_eq!(read(&*store, &partition(1)).await.unwrap(), Some(said.clone()));
            let traced = read(&*store, &partition(2)).await.unwrap().unwrap();
            assert_eq!(PartitionState::from(traced), PartitionState::default());
        }
    }

    #[test]
    fn an_open_hour_says_which_partition_and_why() {
        let states = BTreeMap::from([(
            partition(3),
            PartitionState { watermark: at("2026-11-22T07:10:00Z"), caught_up_at: None },
        )]);
        let Seal::Open(reasons) = sealed("2026-11-22T07".parse().unwrap(), Duration::ZERO, &states) else {
            panic!("sealed")
        };
        let (partition, reason) = reasons.first_key_value().unwrap();
        assert_eq!(
            format!("{partition}: {reason}"),
            "events/t/1[3]: its watermark is 2026-11-22T07:10:00Z and it had read everything at never; either must \
             reach 2026-11-22T08:00:00Z"
        );
    }
}
