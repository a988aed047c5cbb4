//! Checkpoints: every thousand manifests in one object, so that five years of a partition are read in thousands of
//! requests instead of millions.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::Chain;
use super::read::READ_AHEAD;
use super::walk::Links;
use crate::error::{Error, Result};
use crate::ids::{EventHour, OffsetRange};
use crate::raw::key::CheckpointKey;
use crate::raw::manifest::BatchManifest;
use crate::store::PutMode;

/// Manifests of a checkpoint.
pub const FOLD: usize = 1000;

const ZSTD_LEVEL: i32 = 9;

impl Chain {
    /// Folds the manifests after the last checkpoint, [`FOLD`] at a time, and returns how many checkpoints were written.
    ///
    /// The manifests stay, and where a checkpoint begins and ends follows from the chain alone. So two who fold at once
    /// write the same object, and a crash leaves a checkpoint whole or absent.
    ///
    /// # Errors
    /// As [`Chain::scan`].
    pub async fn fold(&self) -> Result<usize> {
        let mut folded =
            self.checkpoints_near(self.end.unwrap_or(0)).await?.last().map_or(0, |checkpoint| checkpoint.range.end());
        let starts = self.starts_from(folded).await?;
        let mut written = 0;
        for starts in starts.chunks_exact(self.fold_size) {
            let mut manifests = stream::iter(starts.to_vec()).map(|start| self.manifest_at(start)).buffered(READ_AHEAD);
            let mut links = Links::after(&self.partition, folded);
            let mut batch = Vec::with_capacity(starts.len());
            let (begin, mut hours) = (folded, None);
            while let Some(manifest) = manifests.try_next().await? {
                links.next(manifest.range)?;
                folded = manifest.range.end();
                hours = widened(hours, &manifest);
                batch.push(manifest);
            }
            let range = OffsetRange::new(begin, folded)?;
            let checkpoint = CheckpointKey { partition: self.partition.clone(), range, hours };
            // Found there: somebody else has folded the same manifests into the same object.
            self.write_checkpoint(&checkpoint, &batch, PutMode::Create).await?;
            written += 1;
        }
        Ok(written)
    }

    /// Writes the checkpoint of these manifests. One whose name nobody could read would take the chain with it, since who
    /// looks for the chain's end reads the names of all: better none.
    pub(super) async fn write_checkpoint(
        &self,
        checkpoint: &CheckpointKey,
        manifests: &[BatchManifest],
        mode: PutMode,
    ) -> Result<()> {
        let name = checkpoint.to_string();
        if name.parse::<CheckpointKey>().ok().as_ref() != Some(checkpoint) {
            return Err(Error::bug(format!("{name} cannot be read back as the key of a checkpoint")));
        }
        let mut lines = Vec::new();
        for manifest in manifests {
            serde_json::to_writer(&mut lines, manifest)
                .map_err(|e| Error::bug("a manifest does not serialise").with_source(e))?;
            lines.push(b'\n');
        }
        let body = zstd::encode_all(&lines[..], ZSTD_LEVEL)
            .map_err(|e| Error::bug("a checkpoint cannot be compressed").with_source(e))?;
        let _ = self.store.put(&name, Bytes::from(body), mode).await?;
        Ok(())
    }

    /// The manifests of a checkpoint, checked to be a chain from its first to its last offset.
    pub(super) async fn read_checkpoint(&self, checkpoint: &CheckpointKey) -> Result<Vec<BatchManifest>> {
        let (key, range) = (checkpoint.to_string(), checkpoint.range);
        let name = || format!("{}/{key}", self.store.url());
        let body = self.store.get(&key).await?;
        let lines = zstd::decode_all(&body[..])
            .map_err(|e| Error::data(format!("checkpoint {} is corrupt: {e}", name())).with_source(e))?;
        let mut links = Links::after(&self.partition, range.start());
        let mut manifests = Vec::with_capacity(self.fold_size);
        let mut end = range.start();
        for (number, line) in lines.split(|&b| b == b'\n').filter(|line| !line.is_empty()).enumerate() {
            let manifest = self.parse_manifest(line, &|| format!("{} line {}", name(), number + 1))?;
            links.next(manifest.range)?;
            end = manifest.range.end();
            manifests.push(manifest);
        }
        if end != range.end() {
            return Err(Error::data(format!("checkpoint {} ends at offset {end} instead of {}", name(), range.end())));
        }
        Ok(manifests)
    }
}

/// The first and the last event hour of what came before and of a manifest's objects.
fn widened(hours: Option<(EventHour, EventHour)>, manifest: &BatchManifest) -> Option<(EventHour, EventHour)> {
    let of_objects = manifest.objects.iter().filter_map(|object| object.event_hour);
    of_objects
        .fold(hours, |hours, hour| Some(hours.map_or((hour, hour), |(first, last)| (hour.min(first), hour.max(last)))))
}
