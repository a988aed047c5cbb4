//! What a run says of itself.

use std::collections::BTreeMap;
use std::fmt;

use firn_shared::ids::{EventHour, RunId};
use serde::Serialize;

use super::Target;
use crate::diff::Diff;
use crate::plan::position::Position;
use crate::plan::{Plan, hours};
use crate::reconcile::account::Fate;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// There is a new snapshot.
    Committed,
    /// There is a new snapshot on a branch; the table is as it was.
    OnBranch,
    /// Nothing new; nothing was written.
    NothingToDo,
    /// Planned and not carried out.
    Planned,
}

/// What a run did.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunReport {
    /// `database.table`.
    pub table: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Its identity, part of its files' names.
    pub run: RunId,
    /// The new snapshot.
    pub snapshot: Option<i64>,
    /// Raw objects, and slices they were cut into.
    pub objects: usize,
    /// See `objects`.
    pub slices: usize,
    /// Records of the raw objects.
    pub records: u64,
    /// Snapshots that it took: a large backlog arrives in several. For a plan, how many it would take at least.
    pub commits: u64,
    /// Records by event hour.
    pub hours: BTreeMap<EventHour, u64>,
    /// What became of the records.
    pub fate: Fate,
    /// Rows that a `reprocess` took out.
    pub replaced: u64,
    /// Data files written.
    pub files: usize,
    /// Their bytes.
    pub file_bytes: u64,
    /// Where the table stands afterwards.
    pub position: Position,
    /// Share of quarantined records, when it is above the table's threshold.
    pub over_threshold: Option<f64>,
    /// What is different on the branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diff: Option<Diff>,
    /// Wall-clock seconds.
    pub seconds: f64,
}

/// Of a run that did nothing yet.
pub(super) fn report(target: Target<'_>, run: RunId, plan: &Plan, outcome: Outcome) -> RunReport {
    RunReport {
        table: target.name(),
        outcome,
        run,
        snapshot: None,
        objects: plan.slices.iter().map(|s| s.objects.len()).sum(),
        slices: plan.slices.len(),
        records: plan.records(),
        commits: u64::from(outcome == Outcome::Committed),
        hours: hours(plan),
        fate: Fate::default(),
        replaced: 0,
        files: 0,
        file_bytes: 0,
        position: plan.to.clone(),
        over_threshold: None,
        diff: None,
        seconds: 0.0,
    }
}

impl RunReport {
    /// Adds the next commit of the same run.
    pub(super) fn absorb(&mut self, next: Self) {
        self.objects += next.objects;
        self.slices += next.slices;
        self.records += next.records;
        self.commits += next.commits;
        for (hour, records) in next.hours {
            *self.hours.entry(hour).or_default() += records;
        }
        self.fate.merge(&next.fate);
        self.replaced += next.replaced;
        self.files += next.files;
        self.file_bytes += next.file_bytes;
        (self.run, self.snapshot, self.position) = (next.run, next.snapshot, next.position);
    }
}

impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, records, objects, slices, fate, .. } = self;
        match self.outcome {
            Outcome::NothingToDo => return write!(f, "{table}: nothing to do"),
            Outcome::Planned => {
                write!(f, "{table}: would convert {records} records of {objects} raw objects in {slices} slices")?;
                if self.commits > 1 {
                    write!(f, " and at least {} commits", self.commits)?;
                }
                for (hour, records) in &self.hours {
                    write!(f, "\n  {hour}  {records}")?;
                }
                return Ok(());
            }
            Outcome::Committed | Outcome::OnBranch => {}
        }
        write!(f, "{table}: {records} records → {} rows", fate.rows)?;
        if self.replaced > 0 {
            write!(f, " in place of {}", self.replaced)?;
        }
        write!(f, ", {} quarantined, {} tombstones", fate.quarantined, fate.tombstones)?;
        if fate.exploded > 0 {
            write!(f, ", {} further rows of the same records", fate.exploded)?;
        }
        if fate.superseded + fate.deleted > 0 {
            write!(f, ", {} superseded, {} deletes", fate.superseded, fate.deleted)?;
        }
        for (reason, count) in &fate.filtered {
            write!(f, ", {count} filtered ({reason})")?;
        }
        write!(f, "; {} files, {} bytes, {:.1} s", self.files, self.file_bytes, self.seconds)?;
        if self.commits > 1 {
            write!(f, "; {} commits", self.commits)?;
        }
        if let Some(snapshot) = self.snapshot {
            write!(f, "; snapshot {snapshot}")?;
        }
        if let Some(diff) = &self.diff {
            write!(f, "\n{diff}")?;
        }
        if let Some(share) = self.over_threshold {
            write!(f, "\n{table}: {:.2} % of the records are quarantined, more than its threshold", share * 100.0)?;
        }
        Ok(())
    }
}
