//! `plan → execute → commit`, per table, and the commands built of them.
//!
//! [`target`] is one table with all its names, [`references`] what its look-ups read; [`once`] carries out one run, and
//! [`report`] says what it did; [`account`] says what became of every record, and [`commit`] makes all of it visible,
//! quarantine first, or on a [`branch`] that is published later; [`dates`] waits for dates to be sealed; [`every`] waits and repeats; [`prove`] proves. [`protections`] knows what
//! is from before a protection. [`Env`] is what they all need, put together
//! once per process, or by a test with stores that fail.

pub mod account;
pub mod branch;
pub mod commit;
pub mod dates;
pub mod every;
pub mod once;
pub mod protections;
pub mod prove;
pub mod references;
pub mod report;
pub mod target;

use std::sync::Arc;

use firn_shared::clock::Clock;
use firn_shared::config::Config;
use firn_shared::crypto::Keys;
use firn_shared::error::Result;
use firn_shared::store::{Store, Stores};

pub use once::{Options, run};
pub use report::{Outcome, RunReport};
pub use target::Target;

use crate::execute::PROGRAM;
use crate::seam::Cpu;
use crate::table::Catalog;

/// What every command needs.
#[derive(Debug, Clone)]
pub struct Env {
    /// The checked configuration.
    pub config: Arc<Config>,
    /// Raw zone and tables.
    pub stores: Stores,
    /// Where tables are found.
    pub catalog: Arc<dyn Catalog>,
    /// Keys for personal data.
    pub keys: Arc<Keys>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Worker threads and memory.
    pub cpu: Cpu,
    /// Whether a terminal is to see progress bars.
    pub bars: bool,
}

impl Env {
    /// The environment that `config` describes.
    ///
    /// # Errors
    /// `Config` and `Unavailable` as the catalog says.
    pub async fn open(config: Arc<Config>, clock: Arc<dyn Clock>) -> Result<Self> {
        let stores = Stores::new(config.deployment.s3.clone());
        Self::on(stores, config, clock).await
    }

    /// The environment that `config` describes, on these stores.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn on(stores: Stores, config: Arc<Config>, clock: Arc<dyn Clock>) -> Result<Self> {
        let catalog = crate::table::catalog::open(&config.deployment.catalog, &stores).await?;
        let options = &config.deployment.compactor;
        let cpu = Cpu::new(options.threads, options.memory.saturating_sub(PROGRAM))?;
        let keys = Keys::new(&config.deployment, stores.clone(), Arc::clone(&clock));
        Ok(Self { config, stores, catalog, keys, clock, cpu, bars: true })
    }

    /// The raw zone.
    ///
    /// # Errors
    /// `Config` when it cannot be opened.
    pub async fn raw(&self) -> Result<Arc<dyn Store>> {
        self.stores.open(&self.config.deployment.raw).await
    }
}
