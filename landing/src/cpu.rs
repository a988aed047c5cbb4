//! The one seam between threads that wait and threads that compute.

use std::any::Any;
use std::sync::Arc;

use firn_shared::error::{Error, Result};

/// A pool for validation, line writing and compression, shared by all partitions.
#[derive(Debug, Clone)]
pub struct Cpu(Arc<rayon::ThreadPool>);

impl Cpu {
    /// A pool of `threads` threads; 0 is one per processor.
    ///
    /// # Errors
    /// `Unavailable` when the system gives no threads.
    pub fn new(threads: usize) -> Result<Self> {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("landing-cpu-{i}"))
            // Without one, rayon ends the process, and with it every other pipeline.
            .panic_handler(
                |panic| tracing::error!(error = %panicked("work on a processor thread", &*panic), "a person must act"),
            )
            .build()
            .map(|pool| Self(Arc::new(pool)))
            .map_err(|e| Error::unavailable("cannot start the processor threads").with_source(e))
    }

    /// Runs `work` on the pool, some time.
    pub fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        // First come, first served: a partition's next turn queues behind the others'.
        self.0.spawn_fifo(work);
    }
}

/// The error that a panic is.
#[must_use]
pub fn panicked(what: &str, panic: &(dyn Any + Send)) -> Error {
    let said =
        panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref::<String>().cloned());
    Error::bug(format!("{what} panicked: {}", said.as_deref().unwrap_or("without a word")))
}
