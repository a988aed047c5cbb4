//! Protections that come to a table that has rows: the table learns of them before the first row is protected, and people are
//! told what is from before until it is gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use firn_shared::config::domain::Mode;
use firn_shared::config::protected::unprotected_name;
use firn_shared::error::{Error, Result};
use firn_shared::ids::ColumnName;
use iceberg::spec::TableMetadata;
use iceberg::table::Table;
use iceberg::{TableRequirement, TableUpdate};

use super::{Env, Target};
use crate::plan::{Plan, Scope};
use crate::provenance;
use crate::table::protected::{self, Before, Hours, Old, Replaced, Since};
use crate::table::refs::Step;
use crate::table::{Committer, read};

/// Ranges of hours that a message names.
const RANGES: usize = 5;

/// What a table holds from before its protections, and what to do; nothing once that is gone.
///
/// # Errors
/// As catalog and store say; `Data` for a property that cannot be read.
pub async fn left_plain(env: &Env, target: Target<'_>, table: &Table) -> Result<Vec<String>> {
    let all = known(target, table.metadata(), before(env, target, table).await?, None)?;
    let old = protected::old(&all, table.metadata());
    Ok(old.iter().map(|old| told(target, table.metadata(), old)).collect())
}

/// The keys by which rows meet are those that the table has.
///
/// # Errors
/// `Data` when a key column was protected after the table had rows: new rows would stand beside the old ones instead of
/// replacing them.
pub async fn keys_meet(env: &Env, target: Target<'_>, table: &Table) -> Result<()> {
    let Some(upsert) = target.output.table.mode.upsert() else { return Ok(()) };
    let all = known(target, table.metadata(), before(env, target, table).await?, None)?;
    let is_old = |name: &str| all.iter().any(|since| since.path == name && !since.hours.is_empty());
    let made_of = |key: &ColumnName| is_old(unprotected_name(&target.output.table.protections, key.as_str()));
    let Some(key) = upsert.keys.iter().find(|key| made_of(key)) else { return Ok(()) };
    let name = target.name();
    Err(Error::data(format!(
        "`{key}` of {name} is one of its idColumns, and the table has rows from before it was protected: new rows would not \
         meet them; drop the table and run, which makes it anew of the raw zone, or, if no row of it comes again, say so: \
         {}",
        accepting(&name)
    )))
}

/// Tells the table of the protections that it does not know yet, and sets the properties that they need and that it has none
/// of; `None` when there is nothing to set. `accept` says that nothing is left from before.
///
/// # Errors
/// `Conflict` when somebody else wrote meanwhile, so that what is from before is not known; else as the catalog says.
pub async fn settle(env: &Env, target: Target<'_>, table: &Table, accept: bool) -> Result<Option<Table>> {
    let before = before(env, target, table).await?;
    let wanted = |metadata: &TableMetadata| -> Result<BTreeMap<String, String>> {
        let all = known(target, metadata, before.clone(), None)?;
        let all = if accept { protected::accepted(all) } else { all };
        let since = protected::changed(metadata, &all)?;
        Ok(target.definition().lacking(metadata).into_iter().chain(since).collect())
    };
    if wanted(table.metadata())?.is_empty() {
        return Ok(None);
    }
    let seen = table.metadata().current_snapshot_id();
    let step = |table: &Table| {
        let metadata = table.metadata();
        let updates = wanted(metadata)?;
        if updates.is_empty() {
            return Ok(None);
        }
        if metadata.current_snapshot_id() != seen {
            let ident = table.identifier();
            return Err(Error::conflict(format!("{ident} changed while its protections were written down; run again")));
        }
        Ok(Some(Step {
            updates: vec![TableUpdate::SetProperties { updates: updates.into_iter().collect() }],
            requirements: vec![
                TableRequirement::UuidMatch { uuid: metadata.uuid() },
                TableRequirement::RefSnapshotIdMatch {
                    r#ref: iceberg::spec::MAIN_BRANCH.to_owned(),
                    snapshot_id: seen,
                },
            ],
        }))
    };
    let table = Committer::new(Arc::clone(&env.catalog), Arc::clone(&env.clock)).step(&target.ident(), step).await?;
    tracing::info!(table = target.name(), "the table knows its protections");
    Ok(Some(table))
}

/// The property as it has to be once a run is committed; `None` when it is like that.
///
/// # Errors
/// As [`left_plain`].
pub(super) async fn after(
    env: &Env,
    target: Target<'_>,
    plan: &Plan,
    table: &Table,
) -> Result<Option<(String, String)>> {
    let replaced = replaced(target, plan).filter(|_| plan.branch.is_none());
    let all = known(target, table.metadata(), before(env, target, table).await?, replaced)?;
    protected::changed(table.metadata(), &all)
}

/// What a snapshot on a branch says of its protections, for when it is published; nothing where rows of its hours stay as
/// they are.
///
/// # Errors
/// `Bug` only.
pub(super) fn on_branch(target: Target<'_>, plan: &Plan) -> Result<Option<(String, String)>> {
    let whole = plan.branch.is_some() && replaced(target, plan).is_some();
    whole.then(|| protected::on_branch(&protected::made(target.output))).transpose()
}

/// The rows that a run makes again, if it leaves none of these hours as they are.
fn replaced(target: Target<'_>, plan: &Plan) -> Option<Replaced> {
    match (plan.scope, &target.output.table.mode) {
        (Scope::Hours { from, to }, _) => plan.since.is_start().then_some(Replaced::Hours((from, to))),
        (Scope::New, Mode::TruncateLoad { .. }) => (!plan.is_empty()).then_some(Replaced::All),
        (Scope::New, _) => None,
    }
}

/// What the table knows, with the protections that are news to it.
fn known(
    target: Target<'_>,
    metadata: &TableMetadata,
    before: Before,
    replaced: Option<Replaced>,
) -> Result<Vec<Since>> {
    let before = Before { last: metadata.last_sequence_number(), ..before };
    Ok(protected::next(&protected::recorded(metadata)?, &protected::made(target.output), &before, replaced))
}

/// The table as a new protection finds it. Only news costs a look at its files.
async fn before(env: &Env, target: Target<'_>, table: &Table) -> Result<Before> {
    let now = Some(env.clock.now());
    let known = protected::recorded(table.metadata())?;
    if !protected::is_news(&known, &protected::made(target.output)) {
        return Ok(Before { now, ..Before::default() });
    }
    let mut hours = read::hours(table).await?;
    if let Some(quarantine) = env.catalog.load(&target.quarantine()?.ident).await? {
        hours = both(hours, read::hours(&quarantine).await?);
    }
    Ok(Before { hours, now, ..Before::default() })
}

fn both(a: Option<Hours>, b: Option<Hours>) -> Option<Hours> {
    match (a, b) {
        (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
        (a, b) => a.or(b),
    }
}

fn accepting(table: &str) -> String {
    format!("compactor maintain --table {table} --accept-older-rows")
}

/// What is left, and which commands end it.
fn told(target: Target<'_>, metadata: &TableMetadata, old: &Old) -> String {
    let name = target.name();
    let expire = format!("compactor maintain --table {name} --only expire,orphans");
    let accept = accepting(&name);
    match old {
        Old::Rows { what, hours } => {
            let ranges: Vec<String> = hours.iter().map(|(from, to)| format!("{from} to {to}")).collect();
            let again = if metadata.current_schema().field_by_name(provenance::COLUMN).is_none() {
                "drop the table and run, which makes it anew of the raw zone".to_owned()
            } else if matches!(target.output.table.mode, Mode::TruncateLoad { .. }) {
                "the next load replaces them".to_owned()
            } else {
                let command =
                    |(from, to): &Hours| format!("compactor reprocess --table {name} --from {from} --to {to}");
                hours.iter().take(RANGES).map(command).collect::<Vec<_>>().join("; ")
            };
            format!(
                "rows of {name} of the event hours {} hold {what}: {again}; then {expire}; or say that they may stay: {accept}",
                ranges[..ranges.len().min(RANGES)].join(", ")
            )
        }
        Old::Snapshots { what } => format!(
            "older snapshots of {name} hold {what} as before their protection: {expire}, which leaves the newest \
             `expire.keepLast` and those younger than `expire.olderThan`; or say that they may stay: {accept}"
        ),
    }
}
