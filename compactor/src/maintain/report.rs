//! What was done to a table, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;

use iceberg::TableIdent;
use serde::Serialize;

use super::{Compacted, Expired, Merged, Orphans, Statistics};

/// Columns that the text names.
const COLUMNS: usize = 10;

/// The outcome for a table; parts that were not asked for are absent.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// `database.table`.
    pub table: String,
    /// Whether it was planned only.
    pub dry_run: bool,
    /// Data files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compact: Option<Compacted>,
    /// Manifests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifests: Option<Merged>,
    /// Snapshots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expire: Option<Expired>,
    /// Files that nothing names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orphans: Option<Orphans>,
    /// Sizes and advice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statistics: Option<Statistics>,
    /// Wall-clock seconds.
    pub seconds: f64,
}

impl Report {
    /// Nothing was done yet.
    pub(super) fn of(table: &TableIdent, dry_run: bool) -> Self {
        let table = format!("{}.{}", table.namespace().to_url_string(), table.name());
        let (compact, manifests, expire, orphans, statistics) = (None, None, None, None, None);
        Self { table, dry_run, compact, manifests, expire, orphans, statistics, seconds: 0.0 }
    }

    /// Whether there was nothing to do: no snapshot made or removed, and no orphan. Statistics are shown, and change nothing.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let compact = self.compact.as_ref().is_none_or(|c| c.files_before + c.delete_files + c.left == 0);
        let manifests = self.manifests.as_ref().is_none_or(|m| m.before == 0 && !m.gave_up);
        let expire = self.expire.as_ref().is_none_or(|e| e.snapshots.is_empty() && e.refs.is_empty());
        let orphans = self.orphans.as_ref().is_none_or(|o| !o.files.contains_key(&super::orphans::Verdict::Orphan));
        compact && manifests && expire && orphans
    }

    /// Whether other writers kept something from being done.
    #[must_use]
    pub fn gave_up(&self) -> bool {
        self.compact.as_ref().is_some_and(|c| c.left > 0) || self.manifests.as_ref().is_some_and(|m| m.gave_up)
    }
}

/// Counts with their reasons: `3 small, 1 large enough`.
fn counts<V: Copy + Ord>(of: &BTreeMap<V, usize>, says: impl Fn(V) -> &'static str) -> String {
    let counts: Vec<String> = of.iter().map(|(verdict, count)| format!("{count} {}", says(*verdict))).collect();
    if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
}

fn size(bytes: u64) -> String {
    let mib = f64::from(1 << 20);
    if bytes < 1 << 20 { format!("{:.1} KiB", bytes as f64 / 1024.0) } else { format!("{:.1} MiB", bytes as f64 / mib) }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}: {:.1} s", self.table, if self.dry_run { ", dry run" } else { "" }, self.seconds)?;
        if let Some(part) = &self.compact {
            write!(f, "\n  compact    {part}")?;
        }
        if let Some(part) = &self.manifests {
            write!(f, "\n  manifests  {part}")?;
        }
        if let Some(part) = &self.expire {
            write!(f, "\n  expire     {part}")?;
        }
        if let Some(part) = &self.orphans {
            write!(f, "\n  orphans    {part}")?;
        }
        match &self.statistics {
            Some(part) => write!(f, "\n  statistics {part}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Compacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.skipped {
            return write!(f, "left alone: {why}");
        }
        write!(f, "{} data files ({})", self.files_before, size(self.bytes_before))?;
        if self.commits > 0 {
            write!(f, " → {} ({}), {} rows", self.files_after, size(self.bytes_after), self.rows)?;
        }
        write!(
            f,
            ", {} delete files go; of all: {}",
            self.delete_files,
            counts(&self.files, super::choose::Verdict::says)
        )?;
        if self.left > 0 {
            write!(
                f,
                "\n             {} groups are left: other writers changed their files every time; run again",
                self.left
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Merged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} → {}", self.before, self.all, self.after)?;
        if self.gave_up {
            write!(f, "; others committed every time, run again")?;
        }
        Ok(())
    }
}

impl fmt::Display for Expired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.skipped {
            return write!(f, "skipped: {why}");
        }
        let kept = counts(&self.kept, super::retention::Verdict::says);
        write!(f, "{} snapshots go; of the others: {kept}", self.snapshots.len())?;
        if !self.refs.is_empty() {
            write!(f, "; branches and tags whose time is over: {}", self.refs.join(", "))?;
        }
        let files: usize = self.files.values().sum();
        if files > 0 {
            write!(f, "; {files} files deleted")?;
        }
        if self.left_behind > 0 {
            write!(f, "; {} files could not be deleted and are orphans now", self.left_behind)?;
        }
        Ok(())
    }
}

impl fmt::Display for Orphans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.skipped {
            return write!(f, "skipped: {why}");
        }
        write!(
            f,
            "{} files: {}",
            self.files.values().sum::<usize>(),
            counts(&self.files, super::orphans::Verdict::says)
        )?;
        if self.bytes > 0 && self.deleted == 0 {
            write!(f, "; {} to be freed with --delete-orphans", size(self.bytes))?;
        }
        if self.deleted > 0 {
            write!(f, "; {} deleted ({})", self.deleted, size(self.bytes))?;
        }
        if self.left_behind > 0 {
            write!(f, "; {} could not be deleted", self.left_behind)?;
        }
        for place in &self.elsewhere {
            write!(f, "\n             {place} is outside of the table's location and was not looked into")?;
        }
        self.examples.iter().try_for_each(|path| write!(f, "\n             {path}"))
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { files, small_files, delete_files, partitions, rows, bytes, .. } = self;
        write!(
            f,
            "{rows} rows in {files} data files ({small_files} small) of {partitions} partitions, {}; {delete_files} delete files",
            size(*bytes)
        )?;
        for (column, part) in self.tops().into_iter().take(COLUMNS) {
            let per_row = part as f64 / (*rows).max(1) as f64;
            let share = part as f64 / (*bytes).max(1) as f64 * 100.0;
            write!(f, "\n             {share:5.1} %  {:>12}  {per_row:8.1} B/row  {column}", size(part))?;
        }
        self.advice.iter().try_for_each(|advice| write!(f, "\n             advice: {advice}"))
    }
}
