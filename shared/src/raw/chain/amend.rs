//! The one exception to "nothing that anything names is ever changed": erasure. A manifest that names an object with a
//! person's data is replaced by one that names another object without it; offsets and counts stay as they are, and the
//! object says how many of its records were erased from.
//!
//! Order: the new object is there; the manifest names it; the checkpoint that holds the manifest names it; the old object
//! goes. A crash in between leaves readers with one of both. Who erases holds the turn (only one does at a time), so
//! manifests have one writer; but landing may fold the manifest of before into a checkpoint meanwhile. The manifest itself
//! is right then, and [`Chain::refold`] makes the checkpoint say the same.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::Chain;
use crate::error::{Error, Result};
use crate::ids::Offset;
use crate::raw::key::{BatchKey, Key};
use crate::raw::manifest::BatchManifest;
use crate::store::PutMode;

/// What stands between an object's id and the erasure that made it.
const MARK: &str = "-erased";

/// The key of the object that takes the place of `key` in an erasure, which is named by a few letters and digits.
///
/// # Errors
/// `Data` for a key that is not a raw object's.
pub fn successor(key: &str, erasure: &str) -> Result<String> {
    let new_id = |id: &str| format!("{}{MARK}{erasure}", id.split(MARK).next().unwrap_or(id));
    Ok(match key.parse::<Key>()? {
        Key::Raw(mut raw) => {
            raw.id = new_id(&raw.id);
            raw.to_string()
        }
        Key::Quarantine(mut refused) => {
            refused.id = new_id(&refused.id);
            refused.to_string()
        }
        _ => return Err(Error::data(format!("{key} is not the key of a raw object"))),
    })
}

impl Chain {
    /// Puts manifests in the place of those of the same batches. What they say besides the objects' names, sizes, hashes
    /// and erased records must be as it was.
    ///
    /// # Errors
    /// `Bug` for a manifest that says something else; those of the store. Doing it again is safe.
    pub async fn amend(&self, manifests: &BTreeMap<Offset, BatchManifest>) -> Result<()> {
        for (start, manifest) in manifests {
            manifest.check()?;
            let before = self.manifest_at(*start).await?;
            if !same_but_for_bytes(&before, manifest) {
                let (range, of) = (manifest.range, self.partition());
                return Err(Error::bug(format!("batch {range} of {of} is not to be changed")));
            }
            let key = BatchKey { partition: self.partition.clone(), start: *start }.to_string();
            let body = serde_json::to_vec(manifest).map_err(|e| Error::bug("a manifest is JSON").with_source(e))?;
            let _ = self.store.put(&key, Bytes::from(body), PutMode::Overwrite).await?;
        }
        self.refold(&manifests.keys().copied().collect()).await
    }

    /// Makes checkpoints say of the batches that start at these offsets what their manifests say.
    ///
    /// # Errors
    /// Those of the store, and `Data` for what cannot be read.
    pub async fn refold(&self, starts: &BTreeSet<Offset>) -> Result<()> {
        let Some(first) = starts.first() else { return Ok(()) };
        for checkpoint in self.checkpoints_near(*first).await? {
            let range = checkpoint.range;
            let mut inside = starts.range(range.start()..range.end()).peekable();
            if inside.peek().is_none() {
                continue;
            }
            let mut folded = self.read_checkpoint(&checkpoint).await?;
            for start in inside {
                let found = folded.iter_mut().find(|manifest| manifest.range.start() == *start);
                let old = found.ok_or_else(|| {
                    Error::data(format!("checkpoint {checkpoint} has no batch that starts at offset {start}"))
                })?;
                *old = self.manifest_at(*start).await?;
            }
            self.write_checkpoint(&checkpoint, &folded, PutMode::Overwrite).await?;
        }
        Ok(())
    }
}

/// Whether two manifests account for the same records in the same way.
fn same_but_for_bytes(a: &BatchManifest, b: &BatchManifest) -> bool {
    let bare = |manifest: &BatchManifest| {
        let mut manifest = manifest.clone();
        for object in manifest.objects.iter_mut().chain(&mut manifest.quarantine) {
            (object.key, object.blake3) = (String::new(), String::new());
            (object.bytes, object.raw_bytes, object.erased) = (0, 0, 0);
        }
        manifest
    };
    bare(a) == bare(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{OffsetRange, Partition, PartitionRef};
    use crate::raw::key::RawKey;

    #[test]
    fn a_successor_has_the_name_of_the_first_object_and_of_its_own_erasure() {
        let key = |id: &str| {
            let range = OffsetRange::new(0, 5).unwrap();
            let partition = PartitionRef { topic: "events/t/1".parse().unwrap(), partition: Partition(3) };
            RawKey { partition, hour: "2026-11-22T07".parse().unwrap(), range, id: id.to_owned() }.to_string()
        };
        assert_eq!(successor(&key("ab-e1"), "0a1b").unwrap(), key("ab-e1-erased0a1b"));
        assert_eq!(successor(&key("ab-e1-erased0a1b"), "2c3d").unwrap(), key("ab-e1-erased2c3d"));
        assert!(successor("events/t/_batches/1/0/00000000000000000000.json", "0a1b").is_err());
    }
}
