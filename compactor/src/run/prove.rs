//! `reconcile`: the ledger, the snapshots and, with `--deep`, the rows themselves tell the same story.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use firn_shared::error::{Error, Result};
use firn_shared::ids::{Offset, OffsetRange, PartitionRef};
use futures::TryStreamExt;
use iceberg::table::Table;
use serde::Serialize;

use super::{Env, Target};
use crate::execute::Events;
use crate::plan::position::Position;
use crate::plan::read::topics;
use crate::provenance;
use crate::reconcile::deep::{DeepCheck, DeepReport};
use crate::reconcile::ledger;
use crate::reconcile::report::{Held, Report, compare};
use crate::table::offsets;
use crate::table::read::{self, Origins, Rows};
use crate::table::refs::Head;
use crate::table::scan::{All, Reader, live};

/// Examples that a deep report names of each kind.
const EXAMPLES: usize = 10;

/// The outcome for a table.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// Ledger against snapshots.
    pub account: Report,
    /// Ledger against rows, one by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deep: Option<DeepReport>,
}

impl Proof {
    /// Whether nothing is lost, doubled or unexplained.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.account.is_balanced() && self.deep.as_ref().is_none_or(DeepReport::is_clean)
    }
}

impl std::fmt::Display for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.account)?;
        match &self.deep {
            Some(deep) => write!(f, "\n{deep}"),
            None => Ok(()),
        }
    }
}

/// Compares what landed with what the table has; a table that does not exist yet has nothing.
///
/// # Errors
/// `Config` when there is no provenance for `deep`; `Data` for a broken ledger; else those of the stores.
pub async fn reconcile(env: &Env, target: Target<'_>, deep: bool) -> Result<Proof> {
    let raw = env.raw().await?;
    let table = env.catalog.load(&target.ident()).await?;
    // Loaded after the table: what a run commits to it in between lies past the position.
    let quarantine = env.catalog.load(&target.quarantine()?.ident).await?;
    let state = table.as_ref().map(|table| offsets::current(table.metadata())).transpose()?.flatten();
    let (position, account) = state.map(|s| (s.position, s.account)).unwrap_or_default();
    let topics = topics(&*raw, &target.pipeline.ingestion).await?;
    let totals = ledger::totals(&raw, &topics, &position).await?;
    let Some(table) = table else {
        return Ok(Proof { account: compare(target.name(), &totals, (&position, &account), None), deep: None });
    };
    let partitions = totals.keys().cloned().chain(position.iter().map(|(partition, _)| partition)).collect();
    let held = Held {
        rows: count_rows(&table).await?,
        quarantined: match &quarantine {
            Some(quarantine) => count_below(quarantine, &position, partitions).await?,
            None => 0,
        },
        ahead: quarantine.as_ref().map(|quarantine| ahead_by(quarantine, &table)).transpose()?.flatten(),
    };
    let report = compare(target.name(), &totals, (&position, &account), Some(&held));
    if !deep {
        return Ok(Proof { account: report, deep: None });
    }
    if !target.output.table.provenance {
        let name = target.name();
        return Err(Error::config(format!("cannot compare the offsets of {name} one by one: its provenance is off")));
    }
    let mut check = DeepCheck::new(EXAMPLES);
    feed(&table, None, |partition, offsets| check.rows(partition, offsets)).await?;
    if let Some(quarantine) = quarantine {
        feed(&quarantine, Some(&position), |partition, offsets| check.quarantined(partition, offsets)).await?;
    }
    let events = Events::of(target.output);
    let wanted: crate::reconcile::deep::Wanted = Arc::new(move |event| events.wants(event));
    let deep = check.against_ledger(&raw, &env.cpu, (&position, &account), &wanted).await?;
    Ok(Proof { account: report, deep: Some(deep) })
}

/// Rows of the quarantine below the table's position: those at or past it belong to a run that has yet to commit its table.
/// Files whose bounds say that they have none of these are counted by the manifests.
async fn count_below(quarantine: &Table, position: &Position, partitions: BTreeSet<PartitionRef>) -> Result<u64> {
    let past = partitions.into_iter().filter_map(|of| {
        let end = position.get(&of).unwrap_or(0);
        Some((of, OffsetRange::new(end, i64::MAX as u64).ok()?))
    });
    let past: u64 = read::count(quarantine, &Rows::Offsets(past.collect())).await?.values().sum();
    Ok(count_rows(quarantine).await?.saturating_sub(past))
}

/// The newest reprocess in the quarantine, if the table does not have it. Of times before the table's oldest snapshot nothing
/// can be said.
fn ahead_by(quarantine: &Table, table: &Table) -> Result<Option<String>> {
    let (main, ident) = (Head::of(table.metadata(), None), quarantine.identifier());
    let oldest = main.ancestry(table.metadata()).last().map_or(0, |snapshot| snapshot.timestamp_ms());
    for snapshot in offsets::ancestry(quarantine.metadata()).take_while(|s| s.timestamp_ms() >= oldest) {
        let summary = &snapshot.summary().additional_properties;
        let scope = summary.get(offsets::SCOPE).filter(|scope| scope.starts_with(offsets::SCOPE_REPROCESS));
        if let (Some(scope), Some(id)) = (scope, summary.get(offsets::COMMIT_ID)) {
            let of_run = id.strip_suffix(ident.name()).map(|run| format!("{run}{}", table.identifier().name()));
            let landed = offsets::landed(table.metadata(), &main, of_run.as_deref().unwrap_or(id))?;
            return Ok(landed.is_none().then(|| scope.clone()));
        }
    }
    Ok(None)
}

/// Rows by the manifests' counts; files with deletes are counted through them, without decoding a column.
async fn count_rows(table: &Table) -> Result<u64> {
    let reader = Reader::new(table, &[])?;
    let mut rows = 0;
    for file in live(table, None, &All).await? {
        if file.deletes().next().is_none() {
            rows += file.file().record_count();
            continue;
        }
        let mut batches = reader.rows(&file).await?;
        while let Some(live) = batches.try_next().await? {
            rows += live.positions.len() as u64;
        }
    }
    Ok(rows)
}

/// Feeds offsets and ordinals of all rows, or of those below `before`.
async fn feed(
    table: &Table,
    before: Option<&Position>,
    mut found: impl FnMut(&PartitionRef, Vec<(Offset, u32)>),
) -> Result<()> {
    let mut batches = read::rows(table, &[provenance::COLUMN], &Rows::All).await?;
    while let Some(batch) = batches.try_next().await? {
        let column = batch.column_by_name(provenance::COLUMN).and_then(|c| c.as_struct_opt());
        let column =
            column.ok_or_else(|| Error::data(format!("{} has no {}", table.identifier(), provenance::COLUMN)))?;
        let origins = Origins::of(column)?;
        let (mut of, mut offsets): (Option<PartitionRef>, Vec<(Offset, u32)>) = (None, Vec::new());
        for row in 0..column.len() {
            let Some(partition) = origins.partition(row)? else { continue };
            let offset = origins.offsets.value(row) as Offset;
            if before.is_some_and(|before| before.get(&partition).is_none_or(|end| offset >= end)) {
                continue;
            }
            if of.as_ref() != Some(&partition)
                && let Some(of) = of.replace(partition)
            {
                found(&of, std::mem::take(&mut offsets));
            }
            offsets.push((offset, origins.ordinal(row)));
        }
        if let Some(of) = of {
            found(&of, offsets);
        }
    }
    Ok(())
}
