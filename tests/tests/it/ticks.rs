//! Numbered events for tests that count: every number must be in the table exactly once, whatever happened on the way.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
pub use firn_e2e::mutation::seeded;
use firn_e2e::rig::kafka::{Kafka, Record};
use firn_e2e::rig::readers::Access;
use firn_e2e::rig::samples::tick;
use firn_e2e::rig::workspace::{Workspace, tick_pipeline};
use firn_shared::raw::envelope::Envelope;
use rand::Rng;
use serde_json::Value;

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
        check_raw(workspace, &self.topic, self.produced)?;
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
        rows == [[count, count, 0, count].map(Value::from).to_vec()],
        "expected {count} numbers, the table has {rows:?}"
    );
    Ok(())
}

/// Checks that the objects that manifests name hold the numbers `0..count`, each once, and that chains have no hole.
fn check_raw(workspace: &Workspace, topic: &str, count: u64) -> Result<()> {
    let mut objects = Vec::new();
    let mut ranges: BTreeMap<String, BTreeMap<u64, u64>> = BTreeMap::new();
    for generation in [1, 2] {
        workspace.manifests(topic, generation, |manifest| {
            let keys = manifest["objects"].as_array().into_iter().flatten().filter_map(|o| o["key"].as_str());
            objects.extend(keys.map(str::to_owned));
            let chain = ranges.entry(format!("{generation}/{}", manifest["partition"])).or_default();
            chain.insert(manifest["range"][0].as_u64().unwrap(), manifest["range"][1].as_u64().unwrap());
        })?;
    }
    for (chain, batches) in ranges {
        let mut expected = *batches.keys().next().unwrap();
        for (start, end) in batches {
            ensure!(start == expected, "chain {chain} has a batch {start}..{end} where {expected} should begin one");
            expected = end;
        }
    }
    if objects.is_empty() {
        ensure!(count == 0, "nothing has landed of {count} numbers");
        return Ok(());
    }
    let (mut records, mut numbers) = (0, BTreeSet::new());
    workspace.raw_lines(&objects, |line| {
        let line = Envelope::parse(line)?;
        let Some(payload) = line.payload()? else { return Ok(()) };
        records += 1;
        // What lands is JSON, which is more than this parser takes.
        let payload = serde_json::from_slice::<Value>(&payload).unwrap_or_default();
        numbers.extend(payload.get("n").filter(|n| !n.is_null()).map(ToString::to_string));
        Ok(())
    })?;
    let found = numbers.len() as u64;
    ensure!(found >= count, "{count} numbers, the raw zone has {found} in {records} records");
    // The bad records of a test are not counted among its numbers and repeat them.
    ensure!(records == count || topic == "ticks.bad", "{count} numbers, the raw zone has {records} records");
    Ok(())
}
