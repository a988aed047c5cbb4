//! Numbered events for tests that count: every number must be in the table exactly once, whatever happened on the way.

use anyhow::{Result, ensure};
use firn_e2e::rig::kafka::{Kafka, Record};
use firn_e2e::rig::readers::Access;
use firn_e2e::rig::samples::tick;
use firn_e2e::rig::workspace::{Workspace, tick_pipeline};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// A topic of numbered events and how many it has.
pub struct Ticks<'k> {
    pub kafka: &'k Kafka,
    pub topic: String,
    pub partitions: i32,
    pub produced: u64,
}

/// The table of every tick pipeline.
pub const TABLE: &str = "t.ticks";

impl<'k> Ticks<'k> {
    /// A workspace on local files whose one pipeline puts a new topic into [`TABLE`].
    pub fn local(name: &str, kafka: &'k Kafka, partitions: i32) -> Result<(Self, Workspace)> {
        let workspace = Workspace::local(name, kafka)?;
        let ticks = Self::new(name, kafka, partitions, &workspace)?;
        Ok((ticks, workspace))
    }

    /// A new topic, and a pipeline in the workspace that puts it into [`TABLE`].
    pub fn new(name: &str, kafka: &'k Kafka, partitions: i32, workspace: &Workspace) -> Result<Self> {
        let topic = format!("ticks.{name}");
        kafka.create_topic(&topic, partitions, &[])?;
        workspace.pipeline("ticks", &tick_pipeline("ticks", &topic, "ticks"))?;
        Ok(Self { kafka, topic, partitions, produced: 0 })
    }

    /// The next `count` records, on random partitions at random times of six hours.
    pub fn next(&mut self, count: u64, rng: &mut impl Rng) -> Vec<Record> {
        let numbers = self.produced..self.produced + count;
        self.produced = numbers.end;
        let record = |n| Record::of(tick(n, rng.random_range(0..6 * 3600)));
        numbers.map(record).enumerate().map(|(i, r)| r.on(i as i32 % self.partitions)).collect()
    }

    /// Produces the next `count` records.
    pub fn produce(&mut self, count: u64, rng: &mut impl Rng) -> Result<()> {
        let records = self.next(count, rng);
        self.kafka.produce(&self.topic, records)
    }

    /// Lands and compacts what is left and checks that every number is in the table once and all accounts agree.
    pub fn settle(&self, workspace: &Workspace) -> Result<()> {
        workspace.land()?;
        workspace.compact()?;
        check_numbers(workspace.access(), self.produced)?;
        workspace.reconcile()?;
        Ok(())
    }
}

/// Checks that the table has the numbers `0..count`, each once.
pub fn check_numbers(access: &Access, count: u64) -> Result<()> {
    let sql = "SELECT count(*), count(DISTINCT n), coalesce(min(n), 0), coalesce(max(n) + 1, 0) FROM t";
    let rows = access.duckdb(TABLE, sql)?;
    let count = count as i64;
    ensure!(
        rows == [[count, count, 0, count].map(serde_json::Value::from).to_vec()],
        "expected {count} numbers, the table has {rows:?}"
    );
    Ok(())
}

/// A random generator whose seed is printed, so that a failure can be seen again; `FIRN_SEED` sets it.
#[allow(clippy::disallowed_methods, reason = "the seed of a test is no configuration of the product")]
pub fn seeded(test: &str) -> SmallRng {
    let seed = std::env::var("FIRN_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random::<u32>);
    println!("{test}: FIRN_SEED={seed}");
    SmallRng::seed_from_u64(u64::from(seed))
}
