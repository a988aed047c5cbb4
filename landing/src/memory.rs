//! The bound on what landing holds.
//!
//! `landing.memory` is for the whole process, and divided once, by [`Shares`]: a fixed allowance for the program itself, and
//! of the rest a third for buffers, a quarter for librdkafka, an eighth for uploads, and what is left for what the
//! allocator cannot hand out again: buffers of every partition and hour grow and go at different times and leave holes.
//! One [`Memory`] per daemon counts every byte between librdkafka and the store: records copied out of Kafka, raw lines,
//! compressed frames, and bodies on their way up. Uploads wait until the copies that they make fit into their share.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use firn_shared::error::{Error, Result};
use firn_shared::store::S3Limits;

/// What the program takes by itself: threads, clients of Kafka and of the store, metrics, compression contexts; bytes.
pub const PROGRAM: u64 = 32 << 20;
/// The least that one consumer works with.
const CONSUMER_MIN: u64 = 4 << 20;

/// How `landing.memory` is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Bytes for records, lines, frames and bodies.
    pub buffers: u64,
    /// Bytes one consumer's librdkafka queue may hold.
    pub queue: u64,
    /// Bytes of one fetch answer.
    pub fetch: u64,
    /// Bytes of copies that uploads make.
    pub uploads: u64,
    /// Records are handed to the processors in chunks of about this many bytes.
    pub chunk: usize,
    /// Lines are compressed in frames of about this many bytes.
    pub frame: usize,
}

impl Shares {
    /// Divides `memory` bytes among `consumers` consumers.
    ///
    /// librdkafka counts payloads and overshoots its limit by the answers in flight; around each record it keeps some
    /// hundred bytes, and an answer stays whole until its last record is taken. So the limits it is given are half of its
    /// share.
    ///
    /// # Errors
    /// `Config`, with the least that so many consumers need.
    pub fn of(memory: u64, consumers: usize) -> Result<Self> {
        let consumers = consumers.max(1) as u64;
        let least = PROGRAM + 4 * CONSUMER_MIN * consumers;
        if memory < least {
            let mib = |bytes: u64| bytes.div_ceil(1 << 20);
            return Err(Error::config(format!(
                "landing.memory: {} MiB are too little for {consumers} consumers; give at least {} MiB, or lower \
                 numberOfConsumers",
                mib(memory),
                mib(least)
            )));
        }
        let rest = memory - PROGRAM;
        let consumer = rest / 4 / consumers;
        let buffers = rest / 3;
        Ok(Self {
            buffers,
            queue: (consumer / 4).min(64 << 20),
            fetch: (consumer / 8).min(8 << 20),
            uploads: rest / 8,
            chunk: (buffers / 64).clamp(64 << 10, 1 << 20) as usize,
            frame: (buffers / 128).clamp(64 << 10, 1 << 20) as usize,
        })
    }

    /// Bytes that the upload of a body of `bytes` may hold besides the body.
    #[must_use]
    pub fn upload(&self, bytes: u64) -> u64 {
        let limits = S3Limits::default();
        let writer = (limits.part_bytes * (limits.parts + 1)) as u64;
        // At least a sixteenth, which bounds the requests under way; at most all, so that a large one waits for the
        // others and not forever.
        bytes.min(writer).clamp(self.uploads / 16, self.uploads)
    }
}

#[derive(Debug, Default)]
struct Used {
    bytes: u64,
    peak: u64,
}

/// A counter of buffered bytes with a limit that readers respect.
#[derive(Debug)]
pub struct Memory {
    limit: u64,
    used: Mutex<Used>,
    freed: Condvar,
}

impl Memory {
    /// A bound of `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: Mutex::default(), freed: Condvar::new() })
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.lock().bytes
    }

    /// The most bytes ever in use.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.lock().peak
    }

    /// The bound.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// An empty holding that can grow.
    #[must_use]
    pub fn hold(self: &Arc<Self>) -> Held {
        Held { memory: Arc::clone(self), bytes: 0 }
    }

    /// Waits until fewer than `below` bytes are in use, for at most `patience`; says whether that is so.
    pub fn wait_below(&self, below: u64, patience: Duration) -> bool {
        let (used, _) = self
            .freed
            .wait_timeout_while(self.lock(), patience, |used| used.bytes >= below)
            .unwrap_or_else(PoisonError::into_inner);
        used.bytes < below
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, from: u64, to: u64) {
        let mut used = self.lock();
        used.bytes = used.bytes - from + to;
        used.peak = used.peak.max(used.bytes);
        drop(used);
        if to < from {
            self.freed.notify_all();
        }
    }
}

/// A part of the memory, given back when dropped.
#[derive(Debug)]
pub struct Held {
    memory: Arc<Memory>,
    bytes: u64,
}

impl Held {
    /// Makes the holding `bytes` large.
    pub fn resize(&mut self, bytes: u64) {
        if bytes != self.bytes {
            self.memory.change(self.bytes, bytes);
            self.bytes = bytes;
        }
    }

    /// Its size.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_counted_and_given_back() {
        let memory = Memory::new(100);
        let mut a = memory.hold();
        a.resize(60);
        let mut b = memory.hold();
        b.resize(50);
        assert_eq!((memory.used(), memory.peak()), (110, 110));
        assert!(!memory.wait_below(100, Duration::ZERO));
        a.resize(10);
        assert!(memory.wait_below(100, Duration::ZERO));
        drop((a, b));
        assert_eq!((memory.used(), memory.peak()), (0, 110));
    }

    #[test]
    fn the_shares_of_any_bound_add_up_to_it() {
        for memory in [64 << 20, 96 << 20, 512 << 20, 8 << 30_u64] {
            for consumers in [1, 2, 8, 40] {
                let Ok(shares) = Shares::of(memory, consumers) else {
                    assert!(memory < PROGRAM + 16 * consumers as u64 * (1 << 20));
                    continue;
                };
                let kafka = 2 * consumers as u64 * (shares.queue + 2 * shares.fetch);
                let counted = shares.buffers + kafka + shares.uploads;
                let rest = memory - PROGRAM;
                assert!(PROGRAM + counted + rest / 4 <= memory, "{memory} for {consumers}: {shares:?}");
            }
        }
    }

    #[test]
    fn too_many_consumers_for_the_bound_are_an_error_that_says_what_they_need() {
        let error = Shares::of(64 << 20, 8).unwrap_err().to_string();
        assert!(error.contains("for 8 consumers; give at least 160 MiB"), "{error}");
    }
}
