//! What meets of some keys: rows of the run, of earlier runs and of the table, and deletes that the table remembers.
//!
//! How much that is shows only when it has been spilled: a truncate takes rows that the run has no record of, and a key's
//! rows may be wide in one bucket and narrow in the next. So a bucket that is larger than its share of memory is split by
//! further bits of the key's hash, again and again until the parts fit.

use firn_shared::error::Result;

use super::frames::{Frames, SharedFile, lock};
use super::key::{Keys, LEVELS_MAX, part};
use super::shuffle::Shuffle;

/// A bucket is split into so many at a time: beyond it the frames get too small.
const PARTS_MAX: u64 = 64;
/// However large the memory, texts of one batch must stay below the 2 GiB that Arrow's offsets reach.
const BYTES_MAX: u64 = 1 << 30;

/// What meets in one bucket.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// Rows of the run.
    pub incoming: SharedFile,
    /// Rows of earlier runs that may count again.
    pub recalled: Option<SharedFile>,
    /// Rows of the table.
    pub rows: SharedFile,
    /// Deletes that the table remembers.
    pub deletes: SharedFile,
    /// How often it was split.
    pub level: usize,
}

impl Bucket {
    fn files(&self) -> impl Iterator<Item = &SharedFile> {
        [&self.incoming, &self.rows, &self.deletes].into_iter().chain(&self.recalled)
    }

    /// What its rows take in memory, about.
    pub fn bytes(&self) -> u64 {
        self.files().map(|file| lock(file).bytes()).sum()
    }

    /// Parts that hold the same rows, when it takes more than `bytes_max`; `None` when it fits, or cannot be split: then
    /// nearly all of it is of one key, and [`super::merge`] reduces that as it reads.
    ///
    /// # Errors
    /// `Unavailable` for spilled files that cannot be read, or a disk that is full.
    pub fn split(&self, shuffle: &Shuffle, bytes_max: u64) -> Result<Option<Vec<Self>>> {
        let (bytes, bytes_max) = (self.bytes(), bytes_max.clamp(1, BYTES_MAX));
        if bytes <= bytes_max || self.level >= LEVELS_MAX {
            return Ok(None);
        }
        let level = self.level + 1;
        // Twice as many as would do, as parts are not equal.
        let count = (2 * bytes.div_ceil(bytes_max)).clamp(2, PARTS_MAX) as usize;
        let spread = |file: &SharedFile| spread(file, shuffle.keys(), level, (shuffle.scratch(count), bytes_max / 2));
        let (incoming, rows, deletes) = (spread(&self.incoming)?, spread(&self.rows)?, spread(&self.deletes)?);
        let recalled = self.recalled.as_ref().map(spread).transpose()?;
        let part = |at: usize| {
            let recalled = recalled.as_ref().map(|files| files[at].clone());
            let (incoming, rows, deletes) = (incoming[at].clone(), rows[at].clone(), deletes[at].clone());
            let mut part = Self { incoming, recalled, rows, deletes, level };
            if part.bytes() > bytes - bytes / 8 {
                part.level = LEVELS_MAX;
            }
            part
        };
        Ok(Some((0..count).map(part).filter(|part| part.bytes() > 0).collect()))
    }
}

/// The rows of a file by key, in their order.
fn spread(file: &SharedFile, keys: &Keys, level: usize, (to, held): (Vec<SharedFile>, u64)) -> Result<Vec<SharedFile>> {
    let mut frames = Frames::new(to.clone(), held as usize);
    for batch in lock(file).read()? {
        let batch = batch?;
        let mut parts: Vec<Vec<u32>> = vec![Vec::new(); to.len()];
        for (row, key) in keys.keys(&batch)?.iter().enumerate() {
            parts[part(key.data(), level, to.len())].push(row as u32);
        }
        frames.write(&batch, parts.into_iter().enumerate())?;
    }
    frames.finish()?;
    Ok(to)
}
