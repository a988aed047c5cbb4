//! One side of a comparison: its rows by identity, on local disk, so that both sides of a bucket fit into memory.

use std::sync::Arc;

use arrow_array::{RecordBatch, UInt32Array};
use firn_shared::error::{Error, Result};
use futures::TryStreamExt;
use futures::stream::BoxStream;

use super::identity::Identity;
use crate::seam::{Cpu, Permit};
use crate::spill::{SpillDir, SpillFile};
use crate::upsert::key::bucket;

/// Rows in buckets, and rows that wait until writing them is worth it.
#[derive(Debug)]
pub struct Side {
    buckets: Vec<SpillFile>,
    waiting: Vec<RecordBatch>,
    bytes: usize,
    bytes_max: usize,
}

impl Side {
    /// No rows yet, in `count` buckets; holds about `bytes_max` bytes in memory.
    pub fn new(dir: &SpillDir, (name, count): (&str, usize), bytes_max: usize) -> Self {
        let buckets = (0..count).map(|number| dir.file(&format!("{name}-{number}"))).collect();
        Self { buckets, waiting: Vec::new(), bytes: 0, bytes_max }
    }

    /// Takes rows.
    ///
    /// # Errors
    /// Of the rows; `Unavailable` when the disk is full.
    pub async fn fill(
        mut self,
        mut rows: BoxStream<'_, Result<RecordBatch>>,
        identity: &Arc<Identity>,
        (cpu, permit): (&Cpu, &Permit),
    ) -> Result<Self> {
        loop {
            let next = rows.try_next().await?;
            let ended = next.is_none();
            if let Some(batch) = next.filter(|batch| batch.num_rows() > 0) {
                self.bytes += batch.get_array_memory_size();
                self.waiting.push(batch);
            }
            if ended || self.bytes >= self.bytes_max {
                let of = Arc::clone(identity);
                self = cpu.run(permit, move || self.spread(&of)).await??;
            }
            if ended {
                return Ok(self);
            }
        }
    }

    /// The buckets, when all rows are in.
    pub fn into_buckets(self) -> Vec<SpillFile> {
        self.buckets
    }

    fn spread(mut self, identity: &Identity) -> Result<Self> {
        self.bytes = 0;
        for batch in std::mem::take(&mut self.waiting) {
            let mut parts: Vec<Vec<u32>> = vec![Vec::new(); self.buckets.len()];
            for (row, id) in identity.of(&batch)?.iter().enumerate() {
                parts[bucket(id.data(), self.buckets.len())].push(row as u32);
            }
            for (file, rows) in self.buckets.iter_mut().zip(parts).filter(|(_, rows)| !rows.is_empty()) {
                let part = arrow_select::take::take_record_batch(&batch, &UInt32Array::from(rows));
                file.append(&part.map_err(|e| Error::bug("cannot split rows").with_source(e))?)?;
            }
        }
        Ok(self)
    }
}
