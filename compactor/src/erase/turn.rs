//! One erasure at a time in a raw zone: two that replace the same manifest would undo each other.
//!
//! ```text
//! {raw}/_erasures/_turns/{number, 12 digits}.json     {"run","who","until"}
//! ```
//! Whoever creates the next number has the turn, until it is given back or `until` has passed. The same subject again is
//! taken for the one who died, and takes over. Who has the turn asks before each change whether it is still theirs.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use firn_shared::clock::Clock;
use firn_shared::error::{Error, Result};
use firn_shared::ids::RunId;
use firn_shared::store::{Depth, PutMode, PutOutcome, Store};
use serde::{Deserialize, Serialize};

use super::journal::FOLDER;

/// A turn that nobody asks for again is over after this long.
const LEASE: TimeDelta = TimeDelta::minutes(10);

/// The turn to erase.
#[derive(Debug)]
pub struct Turn {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    number: u64,
    lease: Lease,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Lease {
    run: String,
    who: String,
    until: DateTime<Utc>,
}

impl Turn {
    /// Takes the turn.
    ///
    /// # Errors
    /// `Conflict` while another erasure has it; those of the store.
    pub async fn take(store: Arc<dyn Store>, clock: Arc<dyn Clock>, run: RunId, who: &str) -> Result<Self> {
        let numbers = numbers(&*store).await?;
        let last = numbers.last().copied();
        if let Some(number) = last {
            let body = store.get(&key(number)).await?;
            let odd = |e| Error::data(format!("{}/{} is no turn", store.url(), key(number))).with_source(e);
            let held: Lease = serde_json::from_slice(&body).map_err(odd)?;
            if held.who != who && held.until > clock.now() {
                return Err(Error::conflict(format!(
                    "another erasure, {}, is at work; run again when it has ended, or after {} if it died",
                    held.run,
                    held.until.format("%H:%M:%S UTC")
                )));
            }
        }
        let lease = Lease { run: run.to_string(), who: who.to_owned(), until: clock.now() + LEASE };
        let number = last.map_or(1, |last| last + 1);
        if store.put(&key(number), body(&lease)?, PutMode::Create).await? == PutOutcome::AlreadyExists {
            return Err(Error::conflict("another erasure begins at the same time; run again"));
        }
        for old in numbers {
            store.delete(&key(old)).await?;
        }
        Ok(Self { store, clock, number, lease })
    }

    /// Asks whether the turn is still ours, and makes it last.
    ///
    /// # Errors
    /// `Conflict` when another erasure has taken over; those of the store.
    pub async fn hold(&mut self) -> Result<()> {
        if numbers(&*self.store).await?.last() != Some(&self.number) {
            return Err(Error::conflict("another erasure has taken over; run again when it has ended"));
        }
        self.lease.until = self.clock.now() + LEASE;
        self.store.put(&key(self.number), body(&self.lease)?, PutMode::Overwrite).await.map(drop)
    }

    /// Gives it back. The object stays, so that numbers go on growing.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn give_back(mut self) -> Result<()> {
        self.hold().await?;
        self.lease.until = self.clock.now();
        self.store.put(&key(self.number), body(&self.lease)?, PutMode::Overwrite).await.map(drop)
    }
}

fn key(number: u64) -> String {
    format!("{FOLDER}/_turns/{number:012}.json")
}

fn body(lease: &Lease) -> Result<Bytes> {
    serde_json::to_vec(lease).map(Bytes::from).map_err(|e| Error::bug("a turn is JSON").with_source(e))
}

/// The numbers that are there, ascending; few, because each turn removes those before it.
async fn numbers(store: &dyn Store) -> Result<Vec<u64>> {
    let prefix = format!("{FOLDER}/_turns/");
    let page = store.list(&prefix, None, Depth::All).await?;
    let number = |key: &str| key.strip_prefix(&prefix)?.strip_suffix(".json")?.parse().ok();
    Ok(page.objects.iter().filter_map(|object| number(&object.key)).collect())
}

#[cfg(test)]
mod tests {
    use firn_shared::clock::SystemClock;
    use firn_shared::error::ErrorKind;
    use firn_shared::store::LocalStore;

    use super::*;

    #[tokio::test]
    async fn one_erasure_has_the_turn_and_the_same_subject_takes_over() {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(LocalStore::new(dir.path()).unwrap());
        let take = |who| Turn::take(Arc::clone(&store), Arc::new(SystemClock), RunId::new(), who);
        let mut first = take("a").await.unwrap();
        let refused = take("b").await.unwrap_err();
        assert!(refused.kind() == ErrorKind::Conflict && refused.to_string().contains("is at work"), "{refused}");
        first.hold().await.unwrap();
        let mut again = take("a").await.unwrap();
        assert_eq!(first.hold().await.unwrap_err().kind(), ErrorKind::Conflict);
        again.hold().await.unwrap();
        again.give_back().await.unwrap();
        take("b").await.unwrap();
    }
}
