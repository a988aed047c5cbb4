//! Ledger and account side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use firn_shared::ids::{Offset, PartitionRef};
use firn_shared::raw::manifest::RejectReason;
use serde::Serialize;

use super::account::{Account, Totals};
use super::ledger::LedgerTotals;
use crate::plan::position::Position;

/// The outcome for a table; serialises to JSON, and prints as a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// `database.table`.
    pub table: String,
    /// One line a partition.
    pub partitions: Vec<Line>,
    /// Rows that the table says it has; absent while there is no table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_rows: Option<u64>,
    /// Rows that the quarantine says it has of consumed offsets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantine_rows: Option<u64>,
    /// What is wrong with the table as a whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// A partition: offsets of the ledger, and where the table has them.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// `cluster/topic/generation[partition]`.
    pub partition: String,
    /// First offset of the ledger.
    pub start: Offset,
    /// First offset that the table has not consumed.
    pub end: Offset,
    /// Offsets landed and not yet consumed.
    pub behind: u64,
    /// Records with rows in the table.
    pub rows: u64,
    /// Rows beyond the first of their record.
    pub exploded: u64,
    /// Rows in its quarantine table.
    pub quarantined: u64,
    /// Refused at landing, by reason.
    pub rejected: BTreeMap<RejectReason, u64>,
    /// Left out on purpose, by reason.
    pub filtered: BTreeMap<String, u64>,
    /// Kafka null values.
    pub tombstones: u64,
    /// Records whose key has a newer version.
    pub superseded: u64,
    /// Records that deleted their key.
    pub deleted: u64,
    /// Offsets without record.
    pub absent: u64,
    /// Offsets that were never read, as declared.
    pub gaps: u64,
    /// Records among all of these whose personal values were erased from the raw zone.
    pub erased: u64,
    /// Offsets of the ledger less what is accounted for; must be 0.
    pub difference: i64,
    /// Where ledger and account disagree.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// What a table and its quarantine hold by their own count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// Rows of the table.
    pub rows: u64,
    /// Rows of the quarantine below the table's position.
    pub quarantined: u64,
    /// The reprocess that is in the quarantine and not in the table, if there is one.
    pub ahead: Option<String>,
}

impl Held {
    /// Where it is not what the account says.
    fn problems(&self, rows: u64, quarantined: u64) -> Vec<String> {
        let Self { rows: found, quarantined: refused, ahead } = self;
        let table = (*found != rows).then(|| {
            format!(
                "the table holds {found} rows and accounts for {rows}; somebody else has changed it, or rows were lost"
            )
        });
        let quarantine = (*refused != quarantined).then(|| {
            let why = match ahead {
                Some(scope) => format!("a reprocess has come to it and not to the table ({scope}): it is at work, or run it again"),
                None => "somebody else has changed it, or rows were lost".to_owned(),
            };
            format!("the quarantine holds {refused} rows of consumed offsets and the table accounts for {quarantined}; {why}")
        });
        table.into_iter().chain(quarantine).collect()
    }
}

impl Report {
    /// Whether nothing is lost, doubled or unexplained.
    pub fn is_balanced(&self) -> bool {
        self.problems.is_empty() && self.partitions.iter().all(|line| line.difference == 0 && line.problems.is_empty())
    }

    /// The sum of all differences' sizes.
    pub fn difference(&self) -> u64 {
        self.partitions.iter().map(|line| line.difference.unsigned_abs()).sum()
    }
}

/// Compares the ledger with a table that stands at `position` and accounts for it with `account`. `held` is what the tables
/// have by their own count, `None` when there is no table.
pub fn compare(
    table: impl Into<String>,
    ledger: &BTreeMap<PartitionRef, LedgerTotals>,
    (position, account): (&Position, &Account),
    held: Option<&Held>,
) -> Report {
    let named: BTreeSet<PartitionRef> = ledger
        .keys()
        .cloned()
        .chain(position.iter().map(|(partition, _)| partition))
        .chain(account.iter().map(|(partition, _)| partition))
        .collect();
    let (no_ledger, no_totals) = (LedgerTotals::default(), Totals::default());
    let partitions: Vec<Line> = named
        .iter()
        .map(|partition| {
            let ledger = ledger.get(partition).unwrap_or(&no_ledger);
            let totals = account.get(partition).unwrap_or(&no_totals);
            line(partition, ledger, position.get(partition).unwrap_or(0), totals)
        })
        .collect();
    let rows: u64 = partitions.iter().map(|line| line.rows + line.exploded).sum();
    let quarantined = partitions.iter().map(|line| line.quarantined).sum();
    Report {
        table: table.into(),
        partitions,
        table_rows: held.map(|held| held.rows),
        quarantine_rows: held.map(|held| held.quarantined),
        problems: held.map(|held| held.problems(rows, quarantined)).unwrap_or_default(),
    }
}

fn line(partition: &PartitionRef, ledger: &LedgerTotals, position: Offset, account: &Totals) -> Line {
    let said = &ledger.totals;
    let mut problems = Vec::new();
    let mut same = |what: &str, ours: u64, theirs: u64| {
        if ours != theirs {
            problems.push(format!("{what}: {theirs} in the ledger, {ours} in the account"));
        }
    };
    same("end", account.end, position);
    same("tombstones", account.tombstones, said.tombstones);
    same("absent", account.absent, said.absent);
    same("gaps", account.gaps, said.gaps);
    let reasons: BTreeSet<_> = account.rejected.keys().chain(said.rejected.keys()).copied().collect();
    for reason in reasons {
        let of = |totals: &Totals| totals.rejected.get(&reason).copied().unwrap_or(0);
        same(reason.as_str(), of(account), of(said));
    }
    let filtered: u64 = account.filtered.values().sum();
    let records =
        account.rows + account.quarantined + filtered + account.tombstones + account.superseded + account.deleted;
    same("records", records, ledger.records);
    Line {
        partition: partition.to_string(),
        start: said.start,
        end: position,
        behind: ledger.end.saturating_sub(position),
        rows: account.rows,
        exploded: account.exploded,
        quarantined: account.quarantined,
        rejected: account.rejected.clone(),
        filtered: account.filtered.clone(),
        tombstones: account.tombstones,
        superseded: account.superseded,
        deleted: account.deleted,
        absent: account.absent,
        gaps: account.gaps,
        erased: ledger.erased,
        difference: said.offsets() as i64 - account.accounted() as i64,
        problems,
    }
}

const HEAD: [&str; 13] = [
    "partition",
    "offsets",
    "rows",
    "quarantined",
    "rejected",
    "filtered",
    "tombstones",
    "superseded",
    "deleted",
    "absent",
    "gaps",
    "difference",
    "behind",
];

impl Line {
    fn cells(&self) -> [String; 13] {
        let numbers = self.numbers();
        let mut cells: [String; 13] = Default::default();
        cells[0].clone_from(&self.partition);
        cells[1] = format!("{}..{}", self.start, self.end);
        for (cell, number) in cells[2..].iter_mut().zip(numbers) {
            *cell = number.to_string();
        }
        cells
    }

    /// The columns from `rows` on.
    fn numbers(&self) -> [i128; 11] {
        let rejected: u64 = self.rejected.values().sum();
        let filtered: u64 = self.filtered.values().sum();
        [
            self.rows.into(),
            self.quarantined.into(),
            rejected.into(),
            filtered.into(),
            self.tombstones.into(),
            self.superseded.into(),
            self.deleted.into(),
            self.absent.into(),
            self.gaps.into(),
            self.difference.into(),
            self.behind.into(),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows: Vec<[String; 13]> = vec![HEAD.map(str::to_owned)];
        rows.extend(self.partitions.iter().map(Line::cells));
        let mut total: [String; 13] = Default::default();
        "total".clone_into(&mut total[0]);
        total[1] = self.partitions.iter().map(|line| line.end - line.start).sum::<u64>().to_string();
        for (at, cell) in total[2..].iter_mut().enumerate() {
            *cell = self.partitions.iter().map(|line| line.numbers()[at]).sum::<i128>().to_string();
        }
        rows.push(total);
        let mut widths = [0; 13];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.len().max(*width);
            }
        }
        writeln!(f, "{}", self.table)?;
        for row in &rows {
            let cells = row.iter().zip(widths).enumerate();
            let cells =
                cells.map(|(at, (cell, w))| if at == 0 { format!("{cell:<w$}") } else { format!("{cell:>w$}") });
            writeln!(f, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        self.reasons(f)?;
        for problem in &self.problems {
            writeln!(f, "  problem: {problem}")?;
        }
        for line in &self.partitions {
            for problem in &line.problems {
                writeln!(f, "  problem: {}: {problem}", line.partition)?;
            }
        }
        let verdict = match self.table_rows {
            _ if !self.is_balanced() => "NOT BALANCED",
            Some(_) => "balanced: every offset is accounted for",
            None => "no table yet: the first run makes it",
        };
        write!(f, "  {verdict}")
    }
}

impl Report {
    /// Sums by reason, one line each.
    fn reasons(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sums: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for line in &self.partitions {
            for (reason, count) in &line.rejected {
                *sums.entry(("rejected at landing", reason.as_str())).or_default() += count;
            }
            for (reason, count) in &line.filtered {
                *sums.entry(("filtered", reason)).or_default() += count;
            }
        }
        for ((what, reason), count) in sums {
            writeln!(f, "  {what}, {reason}: {count}")?;
        }
        let exploded: u64 = self.partitions.iter().map(|line| line.exploded).sum();
        if exploded > 0 {
            writeln!(f, "  exploded, further rows of the same records: {exploded}")?;
        }
        let erased: u64 = self.partitions.iter().map(|line| line.erased).sum();
        if erased > 0 {
            writeln!(f, "  erased, records among these without the values of a subject: {erased}")?;
        }
        Ok(())
    }
}
