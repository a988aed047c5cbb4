//! A store that breaks on purpose, for tests.
//!
//! Every operation goes through [`Faults::run`], which counts it, writes it down, and fires what was programmed. One
//! [`Faults`] may stand behind several stores, and behind other things that have effects (a catalog): they then share
//! one count, which makes a crash matrix over all of them a loop:
//!
//! ```text
//! for n in 1.. {
//!     let faults = Faults::at(n, Fault::CrashAfter);
//!     let _ = run(with(&faults)).await;      // dies after its n-th operation
//!     run(without()).await?;                 // starts again
//!     check_rows();
//!     if !faults.fired() { break }           // it completed before operation n: every place was tried
//! }
//! ```

use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Semaphore;

use super::{Depth, ObjectMeta, ObjectWriter, Page, PutMode, PutOutcome, Store};
use crate::error::{Error, Result};

/// What happens at an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails without effect.
    ErrorBefore,
    /// It has its effect, and the caller is told that it failed: the reply was lost.
    ErrorAfter,
    /// It takes this much longer, and succeeds.
    Delay(Duration),
    /// It waits until [`Faults::open`], and succeeds.
    Hold,
    /// The process dies before it: this and every later operation fail without effect.
    CrashBefore,
    /// The process dies after it: it has its effect, nothing later has.
    CrashAfter,
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedOperation {
    /// Its number, from 1.
    pub number: u64,
    /// What it was: `put`, `writer.close`, `catalog.commit`.
    pub operation: &'static str,
    /// On what.
    pub key: String,
    /// The fault that fired, if any.
    pub fault: Option<Fault>,
}

/// The programme of faults, and the log of what was done.
#[derive(Debug)]
pub struct Faults {
    programme: Programme,
    /// Only operations that change something are counted and broken.
    writes_only: bool,
    /// Has a permit while an operation is held up.
    held: Semaphore,
    /// Hands out no permit; closed as a semaphore, and so opened, when nothing is held up any more.
    gate: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug)]
enum Programme {
    /// A fault at each of these numbers.
    At(Vec<(u64, Fault)>),
    /// Every operation fails with this probability, before or after its effect.
    Random { probability: f64 },
    /// What changes something waits for the gate.
    Gate,
}

#[derive(Debug)]
struct State {
    count: u64,
    dead: bool,
    fired: bool,
    log: Vec<LoggedOperation>,
    random: StdRng,
}

impl Faults {
    /// No faults; counts and logs.
    #[must_use]
    pub fn none() -> Arc<Self> {
        Self::build(Programme::At(Vec::new()), 0, false)
    }

    /// One fault at operation `number` (from 1).
    #[must_use]
    pub fn at(number: u64, fault: Fault) -> Arc<Self> {
        Self::build(Programme::At(vec![(number, fault)]), 0, false)
    }

    /// One fault at the `number`-th operation that changes something; reads are neither counted nor broken, except
    /// that they fail after a crash.
    #[must_use]
    pub fn at_write(number: u64, fault: Fault) -> Arc<Self> {
        Self::build(Programme::At(vec![(number, fault)]), 0, true)
    }

    /// Several faults at the numbers given.
    #[must_use]
    pub fn script(faults: Vec<(u64, Fault)>) -> Arc<Self> {
        Self::build(Programme::At(faults), 0, false)
    }

    /// Several faults at the numbers given, counting as [`Faults::at_write`] does.
    #[must_use]
    pub fn script_of_writes(faults: Vec<(u64, Fault)>) -> Arc<Self> {
        Self::build(Programme::At(faults), 0, true)
    }

    /// Each operation fails with this probability, half of the failures after the effect; the same seed and the same
    /// order of operations give the same faults.
    #[must_use]
    pub fn random(seed: u64, probability: f64) -> Arc<Self> {
        Self::build(Programme::Random { probability }, seed, false)
    }

    /// Operations that change something wait until [`Faults::open`], however long that takes.
    #[must_use]
    pub fn gate() -> Arc<Self> {
        Self::build(Programme::Gate, 0, true)
    }

    fn build(programme: Programme, seed: u64, writes_only: bool) -> Arc<Self> {
        let random = StdRng::seed_from_u64(seed);
        let state = State { count: 0, dead: false, fired: false, log: Vec::new(), random };
        let (held, gate) = (Semaphore::new(0), Semaphore::new(0));
        Arc::new(Self { programme, writes_only, held, gate, state: Mutex::new(state) })
    }

    /// Returns when an operation has come to [`Fault::Hold`]; never, if none does.
    pub async fn held(&self) {
        if let Ok(permit) = self.held.acquire().await {
            permit.forget();
        }
    }

    /// Opens the gate for everything that waits and everything that comes.
    pub fn open(&self) {
        self.gate.close();
    }

    /// How many operations were counted.
    pub fn count(&self) -> u64 {
        self.state().count
    }

    /// Whether a fault has fired. When it has not, the run was shorter than the programme.
    pub fn fired(&self) -> bool {
        self.state().fired
    }

    /// Whether the process counts as dead.
    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// Everything counted, in order.
    pub fn log(&self) -> Vec<LoggedOperation> {
        self.state().log.clone()
    }

    /// Puts this programme around a store.
    pub fn around(self: &Arc<Self>, inner: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(Faulty { inner, faults: Arc::clone(self) })
    }

    /// One operation that changes something: `effect`, or what was programmed for it.
    ///
    /// # Errors
    /// What `effect` says, or `Unavailable` with a message that starts with `injected fault`.
    pub async fn run<T>(
        &self,
        operation: &'static str,
        key: &str,
        effect: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.step(operation, key, true, effect).await
    }

    async fn read<T>(
        &self,
        operation: &'static str,
        key: &str,
        effect: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.step(operation, key, false, effect).await
    }

    async fn step<T>(
        &self,
        operation: &'static str,
        key: &str,
        writes: bool,
        effect: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        if matches!(self.programme, Programme::Gate) && writes && !self.gate.is_closed() {
            self.state().fired = true;
            self.wait().await;
        }
        let injected = |what: &str| Error::unavailable(format!("injected fault: {what} {operation} {key}"));
        let fault = self.next(operation, key, writes).map_err(|()| injected("the process is dead at"))?;
        match fault {
            None => {
                let done = effect.await;
                // It died meanwhile at another operation: nobody is there to see the answer.
                if self.is_dead() { Err(injected("the process died during")) } else { done }
            }
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                effect.await
            }
            Some(Fault::Hold) => {
                self.held.add_permits(1);
                self.wait().await;
                effect.await
            }
            Some(Fault::ErrorBefore) => Err(injected("error before")),
            Some(Fault::CrashBefore) => Err(injected("crash before")),
            Some(Fault::ErrorAfter) => effect.await.and_then(|_| Err(injected("reply lost of"))),
            Some(Fault::CrashAfter) => effect.await.and_then(|_| Err(injected("crash after"))),
        }
    }

    /// Returns once the gate is open.
    async fn wait(&self) {
        // Never a permit: the semaphore is closed.
        drop(self.gate.acquire().await);
    }

    /// Counts an operation and says what is to happen to it; `Err` when the process is dead.
    fn next(&self, operation: &'static str, key: &str, writes: bool) -> Result<Option<Fault>, ()> {
        let mut state = self.state();
        if state.dead {
            return Err(());
        }
        if self.writes_only && !writes {
            return Ok(None);
        }
        state.count += 1;
        let number = state.count;
        let fault = match &self.programme {
            Programme::At(faults) => faults.iter().find(|(at, _)| *at == number).map(|(_, fault)| *fault),
            Programme::Gate => None,
            Programme::Random { probability } => {
                let hit = state.random.random_bool(*probability);
                let after = state.random.random_bool(0.5);
                hit.then_some(if after { Fault::ErrorAfter } else { Fault::ErrorBefore })
            }
        };
        state.fired |= fault.is_some();
        state.dead |= matches!(fault, Some(Fault::CrashBefore | Fault::CrashAfter));
        state.log.push(LoggedOperation { number, operation, key: key.to_owned(), fault });
        Ok(fault)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store with a programme of faults; made by [`Faults::around`].
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn Store>,
    faults: Arc<Faults>,
}

#[async_trait]
impl Store for Faulty {
    fn url(&self) -> &str {
        self.inner.url()
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        self.faults.read("get", key, self.inner.get(key)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        self.faults.read("get_range", key, self.inner.get_range(key, range)).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        self.faults.read("head", key, self.inner.head(key)).await
    }

    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<PutOutcome> {
        self.faults.run("put", key, self.inner.put(key, body, mode)).await
    }

    async fn writer(&self, key: &str) -> Result<Box<dyn ObjectWriter>> {
        let inner = self.faults.run("writer", key, self.inner.writer(key)).await?;
        Ok(Box::new(FaultyWriter { inner, faults: Arc::clone(&self.faults), key: key.to_owned() }))
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, depth: Depth) -> Result<Page> {
        self.faults.read("list", prefix, self.inner.list(prefix, start_after, depth)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.faults.run("delete", key, self.inner.delete(key)).await
    }

    async fn keeps_versions(&self) -> Result<bool> {
        self.faults.read("keeps_versions", "", self.inner.keeps_versions()).await
    }

    async fn purge(&self, key: &str) -> Result<u64> {
        self.faults.run("purge", key, self.inner.purge(key)).await
    }
}

struct FaultyWriter {
    inner: Box<dyn ObjectWriter>,
    faults: Arc<Faults>,
    key: String,
}

#[async_trait]
impl ObjectWriter for FaultyWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.faults.run("writer.write", &self.key, self.inner.write(bytes)).await
    }

    async fn close(self: Box<Self>) -> Result<u64> {
        self.faults.run("writer.close", &self.key, self.inner.close()).await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.faults.run("writer.abort", &self.key, self.inner.abort()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::LocalStore;

    async fn puts(store: &dyn Store, count: usize) -> usize {
        for i in 0..count {
            if store.put(&format!("{i}"), Bytes::new(), PutMode::Create).await.is_err() {
                return i;
            }
        }
        count
    }

    #[tokio::test]
    async fn what_changes_something_waits_at_a_gate_and_goes_on_when_it_opens() {
        let dir = tempfile::tempdir().unwrap();
        let local: Arc<dyn Store> = Arc::new(LocalStore::new(dir.path()).unwrap());
        let faults = Faults::gate();
        let store = faults.around(local);
        assert!(store.head("0").await.unwrap().is_none() && !faults.fired());
        let mut waiting = std::pin::pin!(puts(store.as_ref(), 2));
        assert!(futures::poll!(&mut waiting).is_pending() && faults.fired());
        faults.open();
        assert_eq!((waiting.await, faults.count()), (2, 2));
    }

    #[tokio::test]
    async fn each_fault_leaves_the_effects_it_says() {
        let cases = [
            (Fault::ErrorBefore, 1, true),
            (Fault::ErrorAfter, 2, true),
            (Fault::CrashBefore, 1, false),
            (Fault::CrashAfter, 2, false),
            (Fault::Delay(Duration::from_millis(1)), 3, true),
        ];
        for (fault, objects, alive) in cases {
            let dir = tempfile::tempdir().unwrap();
            let local: Arc<dyn Store> = Arc::new(LocalStore::new(dir.path()).unwrap());
            let faults = Faults::at_write(2, fault);
            let store = faults.around(Arc::clone(&local));
            puts(store.as_ref(), 3).await;
            assert!(faults.fired());
            assert_eq!(local.list("", None, Depth::All).await.unwrap().objects.len(), objects, "{fault:?}");
            assert_eq!(store.head("0").await.is_ok(), alive, "{fault:?}");
            assert_eq!(faults.log()[1].fault, Some(fault));
        }
    }

    #[tokio::test]
    async fn a_held_operation_has_no_effect_until_the_gate_opens() {
        let dir = tempfile::tempdir().unwrap();
        let local: Arc<dyn Store> = Arc::new(LocalStore::new(dir.path()).unwrap());
        let faults = Faults::at_write(2, Fault::Hold);
        let store = faults.around(Arc::clone(&local));
        let look = async {
            faults.held().await;
            let seen = local.list("", None, Depth::All).await.unwrap().objects.len();
            faults.open();
            seen
        };
        assert_eq!(tokio::join!(puts(store.as_ref(), 3), look), (3, 1));
    }

    #[tokio::test]
    async fn a_crash_matrix_ends_when_a_run_completes() {
        let mut reached = Vec::new();
        for n in 1.. {
            let dir = tempfile::tempdir().unwrap();
            let faults = Faults::at(n, Fault::CrashAfter);
            let store = faults.around(Arc::new(LocalStore::new(dir.path()).unwrap()));
            reached.push(puts(store.as_ref(), 3).await);
            if !faults.fired() {
                break;
            }
        }
        assert_eq!(reached, [0, 1, 2, 3]);
    }

    #[tokio::test]
    async fn the_same_seed_gives_the_same_faults() {
        let run = async |seed| {
            let dir = tempfile::tempdir().unwrap();
            let faults = Faults::random(seed, 0.3);
            let store = faults.around(Arc::new(LocalStore::new(dir.path()).unwrap()));
            for i in 0..40 {
                let _ = store.head(&format!("{i}")).await;
            }
            faults.log()
        };
        assert_eq!(run(7).await, run(7).await);
        assert_ne!(run(7).await, run(8).await);
    }
}
