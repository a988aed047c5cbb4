//! The bound on what landing buffers.
//!
//! One [`Memory`] per daemon counts every byte between librdkafka and the store: records copied out of Kafka, raw lines,
//! compressed frames, and bodies on their way up. Half of `landing.memory` is for these; a quarter goes to librdkafka's
//! queues (see [`Shares`]), the rest is left to the allocator, compression contexts and code.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How `landing.memory` is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Bytes for records, lines, frames and bodies.
    pub buffers: u64,
    /// Bytes one consumer's librdkafka queue may hold.
    pub queue: u64,
    /// Bytes of one fetch answer.
    pub fetch: u64,
    /// Records are handed to the processors in chunks of about this many bytes.
    pub chunk: usize,
    /// Lines are compressed in frames of about this many bytes.
    pub frame: usize,
}

impl Shares {
    /// Divides `memory` bytes among `consumers` consumers.
    ///
    /// librdkafka overshoots its queue limit by the answers in flight, so a consumer's quarter is split into queue and
    /// answers.
    #[must_use]
    pub fn of(memory: u64, consumers: usize) -> Self {
        let per_consumer = memory / 4 / consumers.max(1) as u64;
        let buffers = memory / 2;
        Self {
            buffers,
            queue: (per_consumer / 2).clamp(256 << 10, 64 << 20),
            fetch: (per_consumer / 8).clamp(64 << 10, 8 << 20),
            chunk: (buffers / 64).clamp(64 << 10, 1 << 20) as usize,
            frame: (buffers / 128).clamp(64 << 10, 1 << 20) as usize,
        }
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
    fn the_shares_of_any_bound_fit_into_it() {
        for memory in [16 << 20, 64 << 20, 512 << 20, 8 << 30_u64] {
            for consumers in [1, 2, 8] {
                let shares = Shares::of(memory, consumers);
                let kafka = consumers as u64 * (shares.queue + 2 * shares.fetch);
                assert!(shares.buffers + kafka <= memory, "{memory} for {consumers}: {shares:?}");
            }
        }
    }
}
