//! How `compactor.memory` is divided. Every buffer of a run has its share here, and the shares add up to the bound.
//!
//! [`PROGRAM`] is taken off once, when the process starts ([`crate::run::Env`]); the rest is what [`crate::seam::Cpu`] hands out.

use firn_shared::error::{Error, Result};

/// What the program takes by itself, bytes: threads, clients of store and catalog, the plan, manifests, file statistics.
pub const PROGRAM: u64 = 32 << 20;
/// Below this a slice's writers make tiny row groups; fewer slices run at once instead.
pub const SLICE_BYTES_MIN: u64 = 32 << 20;

/// What slices may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Slices that run at once.
    pub at_once: usize,
    /// What each may hold.
    pub slice: Share,
}

/// What one slice may hold, bytes. Of 32 parts: 2 for pieces, 2 for inflating, 10 for the batch, 3 for rejects, 10 and 2
/// for the writers, 3 for what the allocator cannot hand out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// All of it.
    pub bytes: u64,
    /// A piece of a raw object; three are held: one at work, one that waits, one on its way.
    pub piece: u64,
    /// A batch of decoded rows. It exists up to eight times over: builders grow by doubling, steps of the pipeline make new
    /// columns, the table's types and partitions are copies; and twice more as the records that a step may reject.
    pub batch: u64,
    /// Rejects before they become a batch, which copies them twice.
    pub rejects: u64,
    /// Everything that the writer of rows holds.
    pub rows_writer: u64,
    /// The same of the quarantine's.
    pub rejects_writer: u64,
}

impl Budget {
    /// Divides `memory` bytes, without the program's own, among as many slices as `threads` can work on.
    ///
    /// # Errors
    /// `Config` when not even one slice fits.
    pub fn of(memory: u64, threads: usize) -> Result<Self> {
        Self::beside(memory, threads, 0)
    }

    /// As [`Self::of`], where each slice takes `call` bytes besides its share while a step works.
    ///
    /// # Errors
    /// `Config` when not even one slice fits.
    pub fn beside(memory: u64, threads: usize, call: u64) -> Result<Self> {
        let slice = SLICE_BYTES_MIN.saturating_add(call);
        if memory < slice {
            let least = (PROGRAM + slice).div_ceil(1 << 20);
            let of_which = if call == 0 { String::new() } else { format!(", {} of them for a plug-in", call >> 20) };
            return Err(Error::config(format!(
                "compactor.memory: {memory} bytes are too little; give at least {least} MiB{of_which}"
            )));
        }
        let at_once = (memory / slice).clamp(1, threads.max(1) as u64);
        Ok(Self { at_once: at_once as usize, slice: Share::of(memory / at_once - call) })
    }
}

impl Share {
    fn of(bytes: u64) -> Self {
        let part = bytes / 32;
        Self {
            bytes,
            piece: (part * 2 / 3).min(4 << 20),
            batch: part.min(64 << 20),
            rejects: part,
            rows_writer: part * 10,
            rejects_writer: part * 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_any_bound_add_up_to_it() {
        for memory in [64 << 20, 100_000_000, 256 << 20, 512_000_000, 8 << 30, 256 << 30_u64] {
            for threads in [1, 2, 7, 64] {
                let Budget { at_once, slice } = Budget::of(memory - PROGRAM, threads).unwrap();
                let reading = 3 * slice.piece + slice.bytes / 16;
                let decoding = 10 * slice.batch + 3 * slice.rejects;
                let counted = reading + decoding + slice.rows_writer + slice.rejects_writer;
                let holes = slice.bytes / 32 * 3;
                assert!(PROGRAM + at_once as u64 * (counted + holes) <= memory, "{memory} for {threads}: {slice:?}");
                assert!(slice.bytes >= SLICE_BYTES_MIN && at_once <= threads);
            }
        }
    }

    #[test]
    fn what_a_step_takes_is_nobody_elses() {
        let (memory, call) = (512 << 20, 100 << 20);
        for threads in [1, 2, 7, 64] {
            let Budget { at_once, slice } = Budget::beside(memory, threads, call).unwrap();
            assert!(
                at_once as u64 * (slice.bytes + call) <= memory && slice.bytes >= SLICE_BYTES_MIN && at_once <= threads
            );
        }
        let error = Budget::beside(memory, 1, memory).unwrap_err().to_string();
        assert!(error.contains("at least 576 MiB, 512 of them for a plug-in"), "{error}");
    }

    #[test]
    fn a_bound_below_one_slice_is_an_error_that_says_the_least() {
        let error = Budget::of((64 << 20) - PROGRAM - 1, 1).unwrap_err().to_string();
        assert!(error.contains("at least 64 MiB"), "{error}");
    }
}
