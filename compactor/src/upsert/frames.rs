//! Rows on their way into several spilled files, held until a frame is worth writing, within a bound.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow_array::{RecordBatch, UInt32Array};
use firn_shared::error::{Error, Result};

use crate::spill::SpillFile;

/// A spilled file that several threads fill or read.
pub type SharedFile = Arc<Mutex<SpillFile>>;

/// Frames of about this many bytes are worth their overhead.
const FRAME_BYTES: usize = 1 << 20;

/// The file, for one thread.
pub fn lock(file: &SharedFile) -> MutexGuard<'_, SpillFile> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Files, and the rows that wait for each.
#[derive(Debug)]
pub struct Frames {
    files: Vec<SharedFile>,
    waiting: Vec<(Vec<RecordBatch>, usize)>,
    held: usize,
    bound: usize,
}

impl Frames {
    /// Into these files; holds about `bound` bytes at most.
    pub fn new(files: Vec<SharedFile>, bound: usize) -> Self {
        let waiting = files.iter().map(|_| (Vec::new(), 0)).collect();
        Self { files, waiting, held: 0, bound }
    }

    /// Takes rows of a batch by number, each list of them for one file.
    ///
    /// # Errors
    /// `Unavailable` when the disk is full.
    pub fn write(&mut self, batch: &RecordBatch, parts: impl IntoIterator<Item = (usize, Vec<u32>)>) -> Result<()> {
        for (at, rows) in parts.into_iter().filter(|(_, rows)| !rows.is_empty()) {
            let part = arrow_select::take::take_record_batch(batch, &UInt32Array::from(rows));
            let part = part.map_err(|e| Error::bug("cannot split rows").with_source(e))?;
            let bytes = part.get_array_memory_size();
            self.held += bytes;
            self.waiting[at].0.push(part);
            self.waiting[at].1 += bytes;
            if self.waiting[at].1 >= FRAME_BYTES {
                self.flush(at)?;
            }
        }
        while self.held > self.bound {
            let Some(largest) = (0..self.waiting.len()).max_by_key(|at| self.waiting[*at].1) else { break };
            self.flush(largest)?;
        }
        Ok(())
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn finish(mut self) -> Result<()> {
        (0..self.waiting.len()).try_for_each(|at| self.flush(at))
    }

    fn flush(&mut self, at: usize) -> Result<()> {
        let (batches, bytes) = std::mem::take(&mut self.waiting[at]);
        self.held -= bytes;
        let Some(first) = batches.first() else { return Ok(()) };
        let whole = arrow_select::concat::concat_batches(first.schema_ref(), &batches);
        lock(&self.files[at]).append(&whole.map_err(|e| Error::bug("cannot join rows").with_source(e))?)
    }
}
