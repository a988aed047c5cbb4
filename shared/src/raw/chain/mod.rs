//! The ledger of a partition: its manifests as a chain, each batch starting where the last one ended, from offset 0.
//!
//! Writing: [`Chain::end_after`] finds the end, [`Chain::append`] puts the next manifest under the key of its start, where
//! exactly one of several writers wins, [`Chain::fold`] copies every thousand of them into one checkpoint object.
//! Reading: [`Chain::scan`] walks checkpoints and then the manifests after the last one, and refuses a chain that has a
//! hole, an overlap or a manifest that breaks the conservation law. [`catalog`] lists what chains there are.
//!
//! Manifests are never removed, and replaced by erasure only (`amend`), so a checkpoint may be missing or late without
//! harm: it only saves requests.

mod amend;
pub mod catalog;
mod checkpoint;
mod read;
#[cfg(test)]
mod tests;
mod walk;

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::Deserialize;

pub use amend::successor;
pub use checkpoint::FOLD;

use crate::error::{Error, Result};
use crate::ids::{Offset, PartitionRef};
use crate::raw::key::BatchKey;
use crate::raw::manifest::{BatchManifest, MANIFEST_VERSION};
use crate::store::{PutMode, PutOutcome, Store};

/// The chain of one partition. Cheap to clone; holds no offsets but the end it has seen.
#[derive(Debug, Clone)]
pub struct Chain {
    store: Arc<dyn Store>,
    partition: PartitionRef,
    /// The end, once it is known: what the next batch must start with.
    end: Option<Offset>,
    /// Manifests of a checkpoint: [`FOLD`], and less in tests. Two writers of one chain must agree.
    fold_size: usize,
}

/// Where a chain ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainEnd {
    /// First offset that no manifest accounts for.
    pub end: Offset,
    /// Largest event time seen in the partition.
    pub watermark: Option<DateTime<Utc>>,
    /// When everything that Kafka held had been read up to `end`, if that was so.
    pub caught_up_at: Option<DateTime<Utc>>,
    /// Kafka's id of the topic, when the last batch knew it.
    pub topic_id: Option<String>,
    /// Manifests after the last checkpoint; [`FOLD`] of them are worth a [`Chain::fold`].
    pub unfolded: usize,
}

/// What became of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a batch that lost is not in the ledger"]
pub enum AppendOutcome {
    /// The batch is in the ledger.
    Appended,
    /// Another writer's batch is there; ours counts for nothing, and this writer must stop.
    Lost(Box<BatchManifest>),
}

impl Chain {
    /// The chain of `partition` in the raw zone `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, partition: PartitionRef) -> Self {
        Self { store, partition, end: None, fold_size: FOLD }
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> &PartitionRef {
        &self.partition
    }

    /// Appends the next batch.
    ///
    /// Before: its objects are in the store, under names that nobody else writes. A crash right after leaves the batch
    /// complete in the ledger and the group's offset behind it, which is a hint only. A crash right before leaves objects
    /// without manifest: nobody reads them, orphan removal deletes them.
    ///
    /// # Errors
    /// `Bug` when the batch breaks the conservation law or does not start at the chain's end, or when that end was never
    /// asked for; else those of the store. After an error the end is unknown again: ask for it, the batch may have landed.
    pub async fn append(&mut self, manifest: &BatchManifest) -> Result<AppendOutcome> {
        if manifest.partition_ref() != self.partition {
            let (of, to) = (manifest.partition_ref(), &self.partition);
            return Err(Error::bug(format!("batch {} of {of} cannot go into the chain of {to}", manifest.range)));
        }
        manifest.check().map_err(|e| Error::bug("a batch that does not add up was not written").with_source(e))?;
        let start = manifest.range.start();
        if self.end != Some(start) {
            return Err(Error::bug(format!(
                "batch {} of {} does not start at the chain's end, {}",
                manifest.range,
                self.partition,
                self.end.map_or("which is unknown".to_owned(), |end| end.to_string())
            )));
        }
        self.end = None;
        let key = BatchKey { partition: self.partition.clone(), start }.to_string();
        let body =
            serde_json::to_vec(manifest).map_err(|e| Error::bug("a manifest does not serialise").with_source(e))?;
        if self.store.put(&key, Bytes::from(body), PutMode::Create).await? == PutOutcome::Written {
            self.end = Some(manifest.range.end());
            return Ok(AppendOutcome::Appended);
        }
        // Taken: by ourselves, when a reply was lost and the batch was sent again, or by the winner.
        let there = self.manifest_at(start).await?;
        if there == *manifest {
            self.end = Some(manifest.range.end());
            return Ok(AppendOutcome::Appended);
        }
        Ok(AppendOutcome::Lost(Box::new(there)))
    }

    /// Reads and checks the manifest of the batch that starts at `start`.
    ///
    /// # Errors
    /// Those of the store; `Data` when it is missing, corrupt or of another batch.
    pub async fn manifest_at(&self, start: Offset) -> Result<BatchManifest> {
        let key = BatchKey { partition: self.partition.clone(), start }.to_string();
        let body = self.store.get(&key).await?;
        let name = || format!("{}/{key}", self.store.url());
        let manifest = self.parse_manifest(&body, &name)?;
        if manifest.range.start() != start {
            return Err(Error::data(format!("manifest {} is of batch {}", name(), manifest.range)));
        }
        Ok(manifest)
    }

    /// Parses a manifest and checks that it belongs here and adds up.
    fn parse_manifest(&self, body: &[u8], name: &dyn Fn() -> String) -> Result<BatchManifest> {
        let parsed = serde_json::from_slice::<BatchManifest>(body);
        // Another version may have other fields: that it is another is what to say of it, not which field is unknown.
        let version = parsed.as_ref().map_or_else(|_| version_of(body), |manifest| Some(manifest.version));
        if let Some(version) = version.filter(|version| *version != MANIFEST_VERSION) {
            return Err(Error::data(format!(
                "manifest {} has version {version}, this program reads {MANIFEST_VERSION}; upgrade it before landing writes \
                 more",
                name()
            )));
        }
        let manifest =
            parsed.map_err(|e| Error::data(format!("manifest {} is corrupt: {e}", name())).with_source(e))?;
        manifest.check().map_err(|e| Error::data(format!("manifest {} is corrupt: {e}", name())))?;
        if manifest.partition_ref() != self.partition {
            return Err(Error::data(format!("manifest {} is of {}", name(), manifest.partition_ref())));
        }
        Ok(manifest)
    }
}

/// The version of a manifest that may say anything else, too.
fn version_of(body: &[u8]) -> Option<u32> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    serde_json::from_slice::<Versioned>(body).ok().map(|versioned| versioned.version)
}
