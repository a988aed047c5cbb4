//! `compactor maintain`: tables stay fast and small.
//!
//! ```text
//! compact    choose (which files, pure) ─→ rewrite, deletes applied ─→ commit, batch by batch
//! manifests  small manifests of a kind, by partition ─→ commit
//! expire     retention (which snapshots, pure) ─→ commit ─→ delete what only they named
//! orphans    everything listed − everything named ─→ delete what is old enough
//! statistics column sizes of live files ─→ advice
//! ```
//! Each part is plan → execute → commit. Rows, consumed offsets and what is remembered of deletes never change. Nothing is
//! deleted before a commit has made it unnamed; a crash anywhere leaves files that nothing names, which `orphans` takes.
//! Runs, reprocesses and other engines may work on the table at the same time: a part that loses against them plans again.

mod choose;
mod compact;
pub(crate) mod expire;
mod manifests;
pub(crate) mod names;
pub(crate) mod orphans;
mod report;
pub(crate) mod retention;
mod statistics;

use std::collections::BTreeSet;

use clap::ValueEnum;
use firn_shared::config::Config;
use firn_shared::config::domain::{Maintenance, Mode};
use firn_shared::error::{Error, Result};
use iceberg::TableIdent;
use iceberg::spec::TableMetadata;
use iceberg::table::Table;
use serde::Serialize;

pub use compact::Compacted;
pub use expire::Expired;
pub use manifests::Merged;
pub use orphans::Orphans;
pub use report::Report;
pub use statistics::Statistics;

use crate::run::{Env, Target};

/// A part is planned again so often when somebody else changes the table meanwhile.
const ATTEMPTS: u32 = 8;

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Part {
    /// Rewrite small data files as large ones, and those that lost rows.
    Compact,
    /// Merge small manifests.
    Manifests,
    /// Remove old snapshots, and the files that only they name.
    Expire,
    /// Find files that nothing names; delete them when asked to.
    Orphans,
    /// Show what columns take, with advice.
    Statistics,
}

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Which parts; none means all.
    pub only: BTreeSet<Part>,
    /// Plan and change nothing.
    pub dry_run: bool,
    /// Delete orphans even if the configuration does not say so.
    pub delete_orphans: bool,
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

/// A table to be maintained.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Its name.
    pub ident: TableIdent,
    /// How.
    pub settings: Maintenance,
    /// zstd level of rewritten files.
    pub zstd_level: i32,
    /// Whether the snapshot of the last whole load stays: it alone says which records the table holds.
    pub keeps_last_load: bool,
    /// Whether its runs remember deletes.
    pub remembers: bool,
    /// Places of other tables, in which nothing is looked for.
    pub others: Vec<String>,
}

impl Subject {
    /// A pipeline's table, and its quarantine.
    ///
    /// # Errors
    /// `Config` when the quarantine's name becomes too long.
    pub fn of(target: &Target<'_>) -> Result<Vec<Self>> {
        let table = &target.output.table;
        let defaults = target.config.deployment.compactor.maintenance;
        let settings = table.maintenance.or(defaults).resolve(table.target_file_size);
        let zstd_level = table.zstd_level;
        let all = places(target.config)?;
        let subject = |ident: TableIdent, keeps_last_load, remembers| {
            let others =
                all.iter().filter(|(other, _)| *other != ident).map(|(_, location)| location.clone()).collect();
            Self { ident, settings, zstd_level, keeps_last_load, remembers, others }
        };
        let load = matches!(table.mode, Mode::TruncateLoad { .. });
        Ok(vec![
            subject(target.ident(), load, table.mode.upsert().is_some()),
            subject(target.quarantine()?.ident, false, false),
        ])
    }
}

/// The tables of all pipelines, quarantines included, and where they lie.
pub(crate) fn places(config: &Config) -> Result<Vec<(TableIdent, String)>> {
    let mut all = Vec::new();
    for target in Target::select(config, None, None)? {
        let quarantine = target.quarantine()?;
        all.extend([(target.ident(), target.location()), (quarantine.ident, quarantine.location)]);
    }
    Ok(all)
}

/// Why no file of a table may be deleted, if so: the owner says that others may name them, as of a table that was made from
/// the files of another one (Iceberg, "Table properties").
pub(crate) fn files_stay(metadata: &TableMetadata) -> Option<&'static str> {
    let enabled = metadata.properties().get("gc.enabled").is_none_or(|text| text.eq_ignore_ascii_case("true"));
    (!enabled).then_some("gc.enabled is false")
}

/// The table as it is now.
async fn load(env: &Env, subject: &Subject) -> Result<Table> {
    let table = env.catalog.load(&subject.ident).await?;
    table.ok_or_else(|| Error::conflict(format!("{} was dropped meanwhile", subject.ident)))
}

/// Maintains a table; `None` when it does not exist yet.
///
/// # Errors
/// As catalog and stores say, `Config` and `Data` for a table that cannot be read here. What was committed before stays.
pub async fn maintain(env: &Env, subject: &Subject, options: &Options) -> Result<Option<Report>> {
    let begun = std::time::Instant::now();
    if env.catalog.load(&subject.ident).await?.is_none() {
        return Ok(None);
    }
    let mut report = Report::of(&subject.ident, options.dry_run);
    if options.wants(Part::Compact) {
        report.compact = Some(Box::pin(compact::compact(env, subject, options.dry_run)).await?);
    }
    if options.wants(Part::Manifests) {
        report.manifests = Some(manifests::merge(env, subject, options.dry_run).await?);
    }
    if options.wants(Part::Expire) {
        report.expire = Some(expire::expire(env, subject, options.dry_run).await?);
    }
    if options.wants(Part::Orphans) {
        let delete = (options.delete_orphans || subject.settings.delete_orphans) && !options.dry_run;
        report.orphans = Some(orphans::orphans(env, subject, delete).await?);
    }
    if options.wants(Part::Statistics) {
        report.statistics = Some(statistics::statistics(env, subject).await?);
    }
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(Some(report))
}
