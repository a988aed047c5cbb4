//! Finding the end of a chain, and reading it.

use futures::{StreamExt, TryStreamExt, stream};

use super::walk::Links;
use super::{Chain, ChainEnd};
use crate::error::{Error, Result};
use crate::ids::Offset;
use crate::raw::key::{BatchKey, CheckpointKey, Key, Ledger, partition_prefix};
use crate::raw::manifest::BatchManifest;
use crate::store::Depth;

/// Manifests that are read at once.
pub(super) const READ_AHEAD: usize = 32;

impl Chain {
    /// The end of the chain, `None` when nothing was ever read. Costs a listing of the newest checkpoints, one of the
    /// manifests after them, and one read, however long the chain is.
    ///
    /// `hint` is where the end is believed to be (the group's committed offset); it saves listing the older checkpoints
    /// and may be wrong in any way.
    ///
    /// # Errors
    /// Those of the store, and `Data` for a last manifest that is corrupt.
    pub async fn end_after(&mut self, hint: Option<Offset>) -> Result<Option<ChainEnd>> {
        let checkpoints = self.checkpoints_near(hint.unwrap_or(0)).await?;
        let folded = checkpoints.last().map_or(0, |checkpoint| checkpoint.range.end());
        let tail = self.starts_from(folded).await?;
        let last = if let Some(&start) = tail.last() {
            self.manifest_at(start).await?
        } else if let Some(newest) = checkpoints.last() {
            // Nothing after the last checkpoint, whose last manifest is the chain's.
            let last = self.read_checkpoint(newest).await?.pop();
            last.ok_or_else(|| Error::data(format!("checkpoint {newest} holds no manifest")))?
        } else {
            self.end = Some(0);
            return Ok(None);
        };
        let end = last.range.end();
        self.end = Some(end);
        let BatchManifest { watermark, caught_up_at, topic_id, .. } = last;
        Ok(Some(ChainEnd { end, watermark, caught_up_at, topic_id, unfolded: tail.len() }))
    }

    /// Every manifest that accounts for an offset of `from` or later, in order, each one passed to `visit`, which may
    /// stop the walk by returning `false`. Memory: one checkpoint and a few manifests.
    ///
    /// # Errors
    /// `Data` when the chain has a hole or an overlap, or a manifest is corrupt (object and offsets named); those of the
    /// store; those of `visit`.
    pub async fn scan(
        &self,
        from: Offset,
        visit: &mut (dyn FnMut(BatchManifest) -> Result<bool> + Send),
    ) -> Result<()> {
        self.scan_where(from, &|_| true, visit).await
    }

    /// As [`Chain::scan`], without reading the checkpoints that are not `wanted`: their manifests are passed over.
    ///
    /// # Errors
    /// As `scan`; a passed-over checkpoint must still follow on the one before it.
    pub async fn scan_where(
        &self,
        from: Offset,
        wanted: &(dyn Fn(&CheckpointKey) -> bool + Send + Sync),
        visit: &mut (dyn FnMut(BatchManifest) -> Result<bool> + Send),
    ) -> Result<()> {
        let checkpoints = self.checkpoints_near(from).await?;
        // Checkpoints before the one that holds `from` do not matter here; without such a one, the chain must begin here.
        let before = checkpoints.first().is_some_and(|first| first.range.start() <= from);
        let mut links = if before { Links::unknown(&self.partition) } else { Links::after(&self.partition, 0) };
        let mut folded = 0;
        for checkpoint in checkpoints {
            links.folded(checkpoint.range)?;
            folded = checkpoint.range.end();
            if folded <= from || !wanted(&checkpoint) {
                continue;
            }
            for manifest in self.read_checkpoint(&checkpoint).await? {
                if manifest.range.end() > from && !visit(manifest)? {
                    return Ok(());
                }
            }
        }
        let starts = self.starts_from(folded).await?;
        // The batch that holds `from` starts at or before it; nothing before that one is read.
        let first = starts.partition_point(|&start| start <= from).saturating_sub(1);
        let mut links =
            if first == 0 { Links::after(&self.partition, folded) } else { Links::unknown(&self.partition) };
        let mut tail = stream::iter(starts[first..].to_vec()).map(|start| self.manifest_at(start)).buffered(READ_AHEAD);
        while let Some(manifest) = tail.try_next().await? {
            links.next(manifest.range)?;
            if manifest.range.end() > from && !visit(manifest)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The manifests of [`Chain::scan`] as one list.
    ///
    /// # Errors
    /// As `scan`.
    pub async fn read(&self, from: Offset) -> Result<Vec<BatchManifest>> {
        let mut manifests = Vec::new();
        self.scan(from, &mut |manifest| {
            manifests.push(manifest);
            Ok(true)
        })
        .await?;
        Ok(manifests)
    }

    /// The checkpoints from the one that may hold `near` on, ascending; all of them when it is not clear which that is.
    pub(super) async fn checkpoints_near(&self, near: Offset) -> Result<Vec<CheckpointKey>> {
        // Checkpoints are few (one for a thousand manifests), but after years more than a page: look at the last
        // sixteenth of the offsets first. If that holds none, or none from before `near`, look at all.
        let lower = near - near / 16;
        if lower > 0 {
            let found = self.checkpoints_from(lower).await?;
            if found.first().is_some_and(|first| first.range.start() <= near) {
                return Ok(found);
            }
        }
        self.checkpoints_from(0).await
    }

    async fn checkpoints_from(&self, start: Offset) -> Result<Vec<CheckpointKey>> {
        let prefix = partition_prefix(&self.partition, Ledger::Checkpoints);
        let keys = self.keys_from(&prefix, &format!("{prefix}{start:020}")).await?;
        keys.iter().map(|key| key.parse()).collect()
    }

    /// The starts of the manifests from offset `start` on, ascending.
    pub(super) async fn starts_from(&self, start: Offset) -> Result<Vec<Offset>> {
        let prefix = partition_prefix(&self.partition, Ledger::Batches);
        let keys = self.keys_from(&prefix, &format!("{prefix}{start:020}")).await?;
        keys.iter()
            .map(|key| match key.parse()? {
                Key::Batch(BatchKey { start, .. }) => Ok(start),
                _ => Err(Error::data(format!("{}/{key} does not belong into a chain", self.store.url()))),
            })
            .collect()
    }

    /// The keys below `prefix` that are `first` or later; `first` is a key without its suffix, so that listing after it
    /// begins with the key itself.
    async fn keys_from(&self, prefix: &str, first: &str) -> Result<Vec<String>> {
        let (mut keys, mut after) = (Vec::new(), Some(first.to_owned()));
        while let Some(start_after) = after {
            let page = self.store.list(prefix, Some(&start_after), Depth::All).await?;
            keys.extend(page.objects.into_iter().map(|object| object.key));
            after = page.next;
        }
        Ok(keys)
    }
}
