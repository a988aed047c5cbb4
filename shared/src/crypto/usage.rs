//! How much each version of a key seals, counted over all processes: AES-GCM with random ivs ends at 2^32 values a key.
//!
//! ```text
//! {store}/{key}/used/{version, 10 digits}/{from, 10 digits}.json   {"format":1,"key","version","from","values","at"}
//! ```
//! A process takes a block of values before it seals them. The blocks of a version are a chain: each begins where the last
//! one ended and is put only where there is none, so of two processes that take one at once, one wins and the other
//! takes the next. What a process has taken and not sealed when it ends or dies is lost: the count is never too low. Blocks
//! grow with what the process has taken, so a short run loses little and a daemon asks seldom. Where the chain cannot be
//! read or written nothing is sealed, because nobody would know when to stop.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::KeyName;
use crate::store::{Depth, PutMode, PutOutcome, Store};

/// Values under one key at most: NIST SP 800-38D, 8.3, for random ivs of 96 bits.
pub const VALUES_MAX: u64 = 1 << 32;
/// From here on an operator is told.
pub const VALUES_WARN: u64 = VALUES_MAX / 2;
/// The first block of a process,
const BLOCK_MIN: u64 = 1 << 16;
/// and the largest; between them, half of what it has taken.
const BLOCK_MAX: u64 = 1 << 24;
/// Others that may be faster, one after the other.
const RACES_MAX: u32 = 1000;
const FORMAT: u32 = 1;

/// A block, as it is stored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Block {
    format: u32,
    key: KeyName,
    version: u32,
    from: u64,
    values: u64,
    at: DateTime<Utc>,
}

/// What a process knows of a version: what it may seal, and how far all have come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Share {
    /// Values that this process may seal,
    granted: u64,
    /// and those that somebody here is about to seal, or has.
    taken: u64,
    /// The last block that was seen begins here; `None` before any.
    last: Option<u64>,
    /// And ends here.
    pub end: u64,
}

impl Share {
    /// Takes so many values, if they are granted.
    pub fn take(&mut self, values: u64) -> bool {
        let fits = self.fits(values);
        if fits {
            self.taken += values;
        }
        fits
    }

    /// Whether so many are granted.
    pub fn fits(&self, values: u64) -> bool {
        self.taken + values <= self.granted
    }

    /// Whether it has been looked at in the store.
    pub fn is_known(&self) -> bool {
        self.granted > 0 || self.last.is_some()
    }

    /// How many values to take from the store where `wanted` more are to be sealed: all of these, because others here may
    /// take what is left meanwhile.
    fn block(&self, wanted: u64) -> u64 {
        (self.granted / 2).clamp(BLOCK_MIN, BLOCK_MAX).max(wanted)
    }

    /// With what was granted meanwhile; what was taken stays taken.
    pub fn with(self, new: &Self) -> Self {
        Self { taken: self.taken, ..*new }
    }
}

/// The chains of one key.
#[derive(Debug)]
pub(super) struct Usage {
    store: Arc<dyn Store>,
    key: KeyName,
}

impl Usage {
    pub fn new(store: Arc<dyn Store>, key: KeyName) -> Self {
        Self { store, key }
    }

    fn prefix(&self, version: u32) -> String {
        format!("{}/used/{version:010}/", self.key)
    }

    /// Grants the share `values` more, from a block of the store where it must; without any it is looked at how far all
    /// have come. `None` when the version would seal more than it may.
    ///
    /// # Errors
    /// Those of the store; `Data` for what is no block.
    pub async fn grant(&self, version: u32, share: Share, values: u64, now: DateTime<Utc>) -> Result<Option<Share>> {
        let told = |e: Error| {
            let message =
                format!("cannot count what version {version} of key {} seals, so it seals nothing: {e}", self.key);
            Error::new(e.kind(), message)
        };
        self.grant_any(version, share, values, now).await.map_err(told)
    }

    async fn grant_any(
        &self,
        version: u32,
        mut share: Share,
        values: u64,
        now: DateTime<Utc>,
    ) -> Result<Option<Share>> {
        for _ in 0..RACES_MAX {
            self.look(version, &mut share).await?;
            if share.end >= VALUES_MAX {
                return Ok(None);
            }
            if share.fits(values) {
                return Ok(Some(share));
            }
            if share.end + values > VALUES_MAX {
                return Ok(None);
            }
            let block = share.block(values).min(VALUES_MAX - share.end);
            if self.put(version, share.end, block, now).await? == PutOutcome::Written {
                let (last, end) = (Some(share.end), share.end + block);
                return Ok(Some(Share { granted: share.granted + block, last, end, ..share }));
            }
        }
        Err(Error::conflict(format!("{RACES_MAX} others were faster; run again")))
    }

    /// How far all have come, from the last block that was seen on.
    async fn look(&self, version: u32, share: &mut Share) -> Result<()> {
        let prefix = self.prefix(version);
        let mut after = share.last.map(|from| block_key(&prefix, from));
        let mut newest = None;
        loop {
            let page = self.store.list(&prefix, after.as_deref(), Depth::All).await?;
            newest = page.objects.into_iter().map(|object| object.key).next_back().or(newest);
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let Some(object) = newest else { return Ok(()) };
        let place = || format!("{}/{object}", self.store.url());
        let body = self.store.get(&object).await?;
        let block: Block = serde_json::from_slice(&body)
            .map_err(|e| Error::data(format!("{} is no count of Firn: {e}", place())).with_source(e))?;
        if (block.format, &block.key, block.version) != (FORMAT, &self.key, version)
            || object != block_key(&prefix, block.from)
        {
            return Err(Error::data(format!("{} is the count of something else", place())));
        }
        share.last = Some(block.from);
        share.end = block.from.saturating_add(block.values);
        Ok(())
    }

    async fn put(&self, version: u32, from: u64, values: u64, at: DateTime<Utc>) -> Result<PutOutcome> {
        let block = Block { format: FORMAT, key: self.key.clone(), version, from, values, at };
        let body = serde_json::to_vec(&block).map_err(|e| Error::bug("a count is JSON").with_source(e))?;
        self.store.put(&block_key(&self.prefix(version), from), body.into(), PutMode::Create).await
    }
}

fn block_key(prefix: &str, from: u64) -> String {
    format!("{prefix}{from:010}.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::LocalStore;

    async fn grant(usage: &Usage, share: Share, values: u64) -> Option<Share> {
        usage.grant(3, share, values, DateTime::UNIX_EPOCH).await.unwrap()
    }

    fn usage(folder: &std::path::Path) -> Usage {
        Usage::new(Arc::new(LocalStore::new(folder).unwrap()), "people".parse().unwrap())
    }

    #[tokio::test]
    async fn blocks_grow_with_what_a_process_takes() {
        let folder = tempfile::tempdir().unwrap();
        let usage = usage(folder.path());
        let (mut share, mut blocks) = (Share::default(), Vec::new());
        for _ in 0..40 {
            let before = share.granted;
            share.taken = share.granted;
            share = grant(&usage, share, 1).await.unwrap();
            blocks.push(share.granted - before);
        }
        assert_eq!(blocks[..4], [BLOCK_MIN, BLOCK_MIN, BLOCK_MIN, BLOCK_MIN * 3 / 2]);
        assert!(blocks.is_sorted() && *blocks.last().unwrap() == BLOCK_MAX, "{blocks:?}");
        assert_eq!(share.end, blocks.iter().sum::<u64>());
        let at_once = grant(&usage, Share::default(), BLOCK_MAX * 3).await.unwrap();
        assert_eq!((at_once.granted, at_once.end), (BLOCK_MAX * 3, share.end + BLOCK_MAX * 3));
    }

    #[tokio::test]
    async fn nothing_is_granted_past_the_bound() {
        let folder = tempfile::tempdir().unwrap();
        let usage = usage(folder.path());
        let _ = usage.put(3, 0, VALUES_MAX - 10, DateTime::UNIX_EPOCH).await.unwrap();
        assert_eq!(grant(&usage, Share::default(), 11).await, None);
        let last = grant(&usage, Share::default(), 9).await.unwrap();
        assert_eq!((last.granted, last.end), (10, VALUES_MAX));
        for values in [0, 1] {
            assert_eq!(grant(&usage, Share::default(), values).await, None, "full, and known to be before any value");
        }
    }

    #[tokio::test]
    async fn what_is_no_block_stops_everything() {
        let folder = tempfile::tempdir().unwrap();
        let usage = usage(folder.path());
        for (body, what) in [
            ("{}", "is no count of Firn"),
            (
                r#"{"format":1,"key":"people","version":2,"from":0,"values":1,"at":"2026-01-01T00:00:00Z"}"#,
                "is the count of something else",
            ),
        ] {
            let key = block_key(&usage.prefix(3), 0);
            let _ = usage.store.put(&key, body.into(), PutMode::Overwrite).await.unwrap();
            let error = usage.grant(3, Share::default(), 0, DateTime::UNIX_EPOCH).await.unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
            assert!(error.to_string().starts_with("cannot count what version 3 of key people seals"), "{error}");
        }
    }
}
