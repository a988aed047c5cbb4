//! Planning on a raw zone of many objects. Only the ledger exists: its manifests name objects that were never written,
//! because planning opens none.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, ensure};
use chrono::DateTime;
use clap::Args;
use firn_shared::ids::{EventHour, OffsetRange, Partition, PartitionRef, TopicRef};
use firn_shared::raw::chain::{Chain, FOLD};
use firn_shared::raw::key::RawKey;
use firn_shared::raw::manifest::{BatchManifest, MANIFEST_VERSION, RawObject};
use firn_shared::store::{LocalStore, Store};
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::usage::{Begun, Step};
use crate::plan::Scope;
use crate::plan::position::Position;
use crate::plan::read::{Bounds, plan};
use crate::reconcile::ledger::totals;

/// Records of an object, and bytes of its lines.
const RECORDS: u64 = 1_000;
const RAW_BYTES: u64 = 2_000_000;
/// The first event hour: 2026-01-01T00.
const FIRST_HOUR: i64 = 490_896;
/// Partitions whose chains are written at once.
const PARTITIONS_AT_ONCE: usize = 8;

/// `compactor bench ledger`
#[derive(Debug, Args)]
pub struct LedgerOptions {
    /// Raw objects that the ledger names.
    #[arg(long, default_value_t = 1_000_000)]
    pub objects: u64,
    /// Partitions they are spread over.
    #[arg(long, default_value_t = 16)]
    pub partitions: u32,
    /// Objects of a batch, each of another event hour.
    #[arg(long, default_value_t = 5)]
    pub batch: u64,
    /// Event hours that pass from the first batch to the last.
    #[arg(long, default_value_t = 720)]
    pub hours: u64,
    /// Event hours that are planned again.
    #[arg(long, default_value_t = 6)]
    pub again: u64,
    /// An empty directory for the raw zone.
    #[arg(long)]
    pub to: PathBuf,
}

/// What it took; `count` is raw objects.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerFigures {
    objects: u64,
    partitions: u32,
    steps: Vec<Step>,
}

/// Makes the ledger and plans on it.
///
/// # Errors
/// A directory that is in use, and whatever planning says.
pub fn ledger(options: &LedgerOptions) -> Result<LedgerFigures> {
    ensure!(options.partitions > 0 && options.batch > 0 && options.hours >= options.again, "too small to measure");
    std::fs::create_dir_all(&options.to)?;
    ensure!(std::fs::read_dir(&options.to)?.next().is_none(), "{} is not empty", options.to.display());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(options))
}

async fn measure(options: &LedgerOptions) -> Result<LedgerFigures> {
    let store: Arc<dyn Store> = Arc::new(LocalStore::new(&options.to)?);
    let topic: TopicRef = "events/bench/1".parse()?;
    let mut steps = Vec::new();
    let mut note = |what, begun: Begun, count: u64| -> Result<()> {
        steps.push(begun.ends(what, count as usize)?);
        Ok(())
    };
    let begun = Begun::now()?;
    let written: Vec<u64> = stream::iter(0..options.partitions)
        .map(|number| {
            let partition = PartitionRef { topic: topic.clone(), partition: Partition(number) };
            tokio::spawn(write(Arc::clone(&store), partition, Spread::of(options)))
        })
        .buffered(PARTITIONS_AT_ONCE)
        .map(|joined| joined?)
        .try_collect()
        .await?;
    let objects = written.iter().sum();
    note("make the ledger", begun, objects)?;

    let topics = [topic];
    let planned = async |position: &Position, scope, run_raw_bytes_max| {
        let bounds = Bounds { slice_raw_bytes_max: 1 << 30, run_raw_bytes_max };
        plan(&store, &topics, (None, position.clone()), scope, bounds).await
    };
    let count = |plan: &crate::plan::Plan| plan.slices.iter().map(|slice| slice.objects.len() as u64).sum();
    let begun = Begun::now()?;
    let first = planned(&Position::start(), Scope::New, Some(64_000_000_000)).await?;
    note("plan the first commit of 64 GB", begun, count(&first))?;

    // The end of the table's history: nothing is left but a last commit.
    let begun = Begun::now()?;
    let whole = planned(&Position::start(), Scope::New, None).await?;
    note("plan everything at once", begun, count(&whole))?;
    ensure!(count(&whole) == objects, "everything is planned");
    let position = whole.to;
    let begun = Begun::now()?;
    let nothing = planned(&position, Scope::New, None).await?;
    note("plan when nothing is new", begun, count(&nothing))?;

    let middle = FIRST_HOUR + options.hours as i64 / 2;
    let hours = |from: i64, hours: u64| Scope::Hours {
        from: EventHour::from_epoch_hours(from),
        to: EventHour::from_epoch_hours(from + hours as i64),
    };
    for (what, scope) in [
        ("reprocess some hours in the middle", hours(middle, options.again)),
        ("reprocess as many at the end", hours(FIRST_HOUR + (options.hours - options.again) as i64, options.again)),
    ] {
        let begun = Begun::now()?;
        let again = planned(&position, scope, None).await?;
        note(what, begun, count(&again))?;
    }
    let begun = Begun::now()?;
    let counted = totals(&store, &topics, &position).await?;
    note("add up the ledger for reconcile", begun, objects)?;
    ensure!(counted.values().map(|t| t.records).sum::<u64>() == objects * RECORDS, "every record is counted");
    Ok(LedgerFigures { objects, partitions: options.partitions, steps })
}

/// How the objects of one partition are spread.
#[derive(Debug, Clone, Copy)]
struct Spread {
    batches: u64,
    batch: u64,
    hours: u64,
}

impl Spread {
    fn of(options: &LedgerOptions) -> Self {
        let batches = options.objects.div_ceil(u64::from(options.partitions) * options.batch);
        Self { batches, batch: options.batch, hours: options.hours }
    }
}

/// Writes one chain, as landing would, and returns how many objects it names.
async fn write(store: Arc<dyn Store>, partition: PartitionRef, spread: Spread) -> Result<u64> {
    let mut chain = Chain::new(store, partition.clone());
    chain.end_after(None).await?;
    for number in 0..spread.batches {
        let now = FIRST_HOUR + (number * spread.hours / spread.batches) as i64;
        // The current hour, and late records of the hours before it.
        let objects = (0..spread.batch).map(|late| {
            let start = (number * spread.batch + late) * RECORDS;
            object(&partition, EventHour::from_epoch_hours((now - late as i64).max(FIRST_HOUR)), start)
        });
        let objects: Vec<RawObject> = objects.collect::<Result<_>>()?;
        let len = spread.batch * RECORDS;
        let manifest = BatchManifest {
            version: MANIFEST_VERSION,
            topic: partition.topic.clone(),
            topic_id: Some("bench".to_owned()),
            partition: partition.partition,
            range: OffsetRange::new(number * len, (number + 1) * len)?,
            writer: "0193f1f27d3c7aaa8000000000000000".to_owned(),
            written_at: DateTime::UNIX_EPOCH,
            objects,
            quarantine: Vec::new(),
            rejects: BTreeMap::new(),
            absent: 0,
            gap: None,
            watermark: Some(EventHour::from_epoch_hours(now).start()),
            caught_up_at: None,
        };
        ensure!(
            chain.append(&manifest).await? == firn_shared::raw::chain::AppendOutcome::Appended,
            "nobody else writes here"
        );
        if (number + 1).is_multiple_of(FOLD as u64) {
            chain.fold().await?;
        }
    }
    Ok(spread.batches * spread.batch)
}

fn object(partition: &PartitionRef, hour: EventHour, start: u64) -> Result<RawObject> {
    let range = OffsetRange::new(start, start + RECORDS)?;
    let id = "0193f1f27d3c7aaa8000000000000000-0".to_owned();
    Ok(RawObject {
        key: RawKey { partition: partition.clone(), hour, range, id }.to_string(),
        event_hour: Some(hour),
        records: RECORDS,
        tombstones: 0,
        bytes: RAW_BYTES / 8,
        raw_bytes: RAW_BYTES,
        blake3: "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262".to_owned(),
        min_offset: start,
        max_offset: start + RECORDS - 1,
        min_event_time: Some(hour.start()),
        max_event_time: Some(hour.start()),
        erased: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_hours_are_planned_without_reading_the_whole_ledger() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("raw");
        let options = LedgerOptions { objects: 5_250, partitions: 1, batch: 3, hours: 200, again: 5, to: to.clone() };
        let figures = ledger(&options).unwrap();
        let counts: Vec<_> = figures.steps.iter().map(|step| step.count).collect();
        assert_eq!(counts[..4], [5_250, 5_250, 5_250, 0]);
        // 1,750 batches; five hours are 44 of them, and each hour's late records come with the two hours after.
        assert!(counts[4] > 120 && counts[4] < 140, "{counts:?}");
        // The first thousand batches are folded and end in hour 114: what happens after it needs no checkpoint.
        let checkpoint = std::fs::read_dir(to.join("events/bench/_checkpoints/1/0")).unwrap().next().unwrap().unwrap();
        std::fs::write(checkpoint.path(), "junk").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store: Arc<dyn Store> = Arc::new(LocalStore::new(&to).unwrap());
        let mut position = Position::start();
        let topic: TopicRef = "events/bench/1".parse().unwrap();
        let partition = PartitionRef { topic: topic.clone(), partition: Partition(0) };
        position.advance(&partition, 1_750 * 3 * RECORDS).unwrap();
        let at = |hour: i64| EventHour::from_epoch_hours(FIRST_HOUR + hour);
        let again = |from, to| {
            let scope = Scope::Hours { from: at(from), to: at(to) };
            let bounds = Bounds { slice_raw_bytes_max: 1, run_raw_bytes_max: None };
            runtime.block_on(plan(&store, std::slice::from_ref(&topic), (None, position.clone()), scope, bounds))
        };
        assert_eq!(again(195, 200).unwrap().slices.len(), counts[5]);
        let error = again(100, 105).unwrap_err();
        assert!(error.to_string().contains("checkpoint"), "{error}");
    }
}
