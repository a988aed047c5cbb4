//! The one door between tokio, which does IO, and rayon, which does everything that burns processor time.
//!
//! A piece of work enters with a memory permit and leaves as its result; the permit is given back when the result (or
//! whatever the result keeps alive) is dropped by the caller. Polars, zstd, decoding and Parquet encoding never run on
//! a tokio worker.
//!
//! What a panic says may hold values of records (`&text[..3]` in the middle of a letter shows the text), so nothing but a
//! literal message is ever printed or passed on: [`quiet_panics`], [`caught`].

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use firn_shared::error::{Error, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Memory is handed out in pieces of this many bytes.
const UNIT: u64 = 64 * 1024;

/// The worker threads and the memory they may hold together.
#[derive(Debug, Clone)]
pub struct Cpu {
    workers: Workers,
    memory: Arc<Semaphore>,
    bound: u64,
}

/// Who does the work.
#[derive(Debug, Clone)]
enum Workers {
    Pool(Arc<rayon::ThreadPool>),
    /// Whoever asks for it; must not be a tokio worker.
    Caller,
}

/// A share of the memory bound; returned on drop.
#[derive(Debug)]
pub struct Permit {
    _units: OwnedSemaphorePermit,
    bytes: u64,
}

impl Permit {
    /// How many bytes may be held under this permit.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Cpu {
    /// `threads` workers (0: one per processor) that hold at most `memory` bytes together.
    ///
    /// # Errors
    /// `Unavailable` when the threads cannot be started.
    pub fn new(threads: usize, memory: u64) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("cpu-{i}"))
            .build()
            .map_err(|e| Error::unavailable(format!("cannot start {threads} worker threads")).with_source(e))?;
        Ok(Self::of(Workers::Pool(Arc::new(pool)), memory))
    }

    /// No worker threads: work is done by the thread that waits for it, one piece after the other, with at most `memory`
    /// bytes. For small work, whose way to another thread and back would take longer than itself; the thread must not be
    /// a worker of a tokio runtime, but one that a runtime of several threads lets wait (`spawn_blocking`, `block_on`).
    #[must_use]
    pub fn on_the_spot(memory: u64) -> Self {
        Self::of(Workers::Caller, memory)
    }

    fn of(workers: Workers, memory: u64) -> Self {
        let units = usize::try_from((memory / UNIT).max(1)).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { workers, memory: Arc::new(Semaphore::new(units)), bound: memory }
    }

    /// Number of worker threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        match &self.workers {
            Workers::Pool(pool) => pool.current_num_threads(),
            Workers::Caller => 1,
        }
    }

    /// The bound all permits share, bytes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.bound
    }

    /// Waits for `bytes` of memory; asks for the whole bound at most.
    ///
    /// # Errors
    /// `Bug` when the door was closed, which nothing does.
    pub async fn permit(&self, bytes: u64) -> Result<Permit> {
        let bytes = bytes.min(self.bound).max(1);
        let units = u32::try_from(bytes.div_ceil(UNIT).min((self.bound / UNIT).max(1))).unwrap_or(u32::MAX);
        let units = Arc::clone(&self.memory).acquire_many_owned(units).await;
        Ok(Permit { _units: units.map_err(|e| Error::bug("memory permits are closed").with_source(e))?, bytes })
    }

    /// Runs `work` on a worker thread, under a permit the caller holds for as long as the memory is in use.
    ///
    /// # Errors
    /// `Bug` when the work panicked; the panic's message is in the log.
    pub async fn run<T, F>(&self, permit: &Permit, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        debug_assert!(permit.bytes > 0, "work needs a permit");
        let work = move || catch_unwind(AssertUnwindSafe(work));
        let outcome = match &self.workers {
            Workers::Pool(pool) => {
                let (result, answer) = oneshot::channel();
                // A receiver that is gone has been cancelled; nobody waits for the result any more.
                pool.spawn(move || drop(result.send(work())));
                answer.await.map_err(|gone| Error::bug("a worker thread vanished").with_source(gone))?
            }
            // Work may wait: for an upload, or for the key of a data subject.
            Workers::Caller => tokio::task::block_in_place(work),
        };
        outcome.map_err(|panic| Error::bug(format!("a worker thread panicked: {}", panic_text(&*panic))))
    }
}

thread_local! {
    /// Where the panic was that [`caught`] is about to catch on this thread; `None` outside of it.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What a panic says, if it is a literal of the source.
fn panic_text(panic: &(dyn Any + Send)) -> &'static str {
    panic.downcast_ref::<&'static str>().copied().unwrap_or("its message is not shown, because it might hold values")
}

/// From now on a panic prints where it was and, if that is a literal, what it says; nothing at all where it is caught.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let is_caught = PLACE.with_borrow_mut(|caught| caught.as_mut().map(|known| known.clone_from(&place)).is_some());
        if !is_caught {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("without a name");
            eprintln!("thread {name} panicked at {place}: {}", panic_text(panic.payload()));
        }
    }));
}

/// Works; where that panics, the error is `file:line:column` of the panic, empty where nobody knows.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let before = PLACE.replace(Some(String::new()));
    let outcome = catch_unwind(AssertUnwindSafe(work));
    let place = PLACE.replace(before).unwrap_or_default();
    outcome.map_err(|_| place)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use firn_shared::error::ErrorKind;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn permits_never_exceed_the_bound() {
        let cpu = Cpu::new(4, 16 * UNIT).unwrap();
        let (held, peak) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let tasks = (0..64u64).map(|i| {
            let (cpu, held, peak) = (cpu.clone(), Arc::clone(&held), Arc::clone(&peak));
            tokio::spawn(async move {
                let permit = cpu.permit((1 + i % 7) * UNIT).await.unwrap();
                let bytes = permit.bytes();
                peak.fetch_max(held.fetch_add(bytes, Ordering::SeqCst) + bytes, Ordering::SeqCst);
                cpu.run(&permit, std::thread::yield_now).await.unwrap();
                held.fetch_sub(bytes, Ordering::SeqCst);
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert!(peak.load(Ordering::SeqCst) <= 16 * UNIT);
        assert!(peak.load(Ordering::SeqCst) > 4 * UNIT, "work ran side by side");
    }

    #[tokio::test]
    async fn more_than_the_bound_waits_for_all_of_it_instead_of_forever() {
        let cpu = Cpu::new(1, 4 * UNIT).unwrap();
        assert_eq!(cpu.permit(u64::MAX).await.unwrap().bytes(), 4 * UNIT);
    }

    #[tokio::test]
    async fn a_panic_becomes_an_error_and_the_worker_lives_on() {
        survives(Cpu::new(1, UNIT).unwrap()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn work_on_the_spot_stays_on_its_thread_may_wait_and_survives_a_panic() {
        let cpu = Cpu::on_the_spot(UNIT);
        survives(cpu.clone()).await;
        let (permit, runtime) = (cpu.permit(1).await.unwrap(), tokio::runtime::Handle::current());
        let wait = move || (std::thread::current().id(), runtime.block_on(tokio::task::yield_now()));
        let (thread, ()) = cpu.run(&permit, wait).await.unwrap();
        assert_eq!((thread, cpu.threads()), (std::thread::current().id(), 1));
    }

    async fn survives(cpu: Cpu) {
        let permit = cpu.permit(1).await.unwrap();
        let error = cpu.run(&permit, || -> () { panic!("odd") }).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().contains("odd")), (ErrorKind::Bug, true));
        let name = "Renée".to_owned();
        let error = cpu.run(&permit, move || -> () { panic!("odd {name}") }).await.unwrap_err().to_string();
        assert!(error.contains("not shown") && !error.contains("Renée"), "{error}");
        assert_eq!(cpu.run(&permit, || 7).await.unwrap(), 7);
    }
}
