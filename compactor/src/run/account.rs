//! The account after a run: every record of every object of the plan has met exactly one fate.
//!
//! Of new records the fates are added. Of records that are converted again those that they had met before are taken back
//! ([`before`]). Both tables are asked for them, because either may be elsewhere than the account: the quarantine is committed
//! first and is ahead after a crash, and other programs remove rows.

use std::collections::BTreeMap;

use firn_shared::error::{Error, Result};
use firn_shared::ids::PartitionRef;

use super::commit::Effect;
use crate::execute::Written;
use crate::plan::{Plan, Scope};
use crate::reconcile::account::{Account, Fate, OTHER_EVENT, Totals};
use crate::upsert;

/// What the quarantine table has, by partition.
#[derive(Debug, Default)]
pub struct InQuarantine {
    /// Rows of the run's records, which go.
    pub gone: BTreeMap<PartitionRef, u64>,
    /// Rows of other records below the table's position.
    pub kept: BTreeMap<PartitionRef, u64>,
}

/// The account after the run.
///
/// # Errors
/// `Bug` when records were lost or doubled on the way; nothing is committed then.
pub fn after(
    plan: &Plan,
    mut account: Account,
    (written, effect): (&Written, &Effect),
    quarantine: &InQuarantine,
) -> Result<Account> {
    let fates = fates(written, effect)?;
    let records = planned(plan, &fates)?;
    match plan.scope {
        Scope::New => {
            if effect.truncates {
                account.supersede_all();
            }
            consume(plan, &mut account, &fates);
        }
        Scope::Hours { .. } => convert_again(&mut account, (&records, &fates), effect, quarantine)?,
    }
    if let Some(staged) = &effect.upsert {
        for (partition, rows) in &staged.outdated {
            account.supersede(partition, *rows)?;
        }
        for (partition, rows) in &staged.restored {
            account.restore(partition, *rows)?;
        }
    }
    match account.differences().first() {
        Some((partition, difference)) => Err(Error::bug(format!(
            "{partition}: {difference} offsets are unaccounted for after this run; nothing was committed"
        ))),
        None => Ok(account),
    }
}

/// What became of the run's records, now that their keys have met.
///
/// # Errors
/// `Bug` when more records met than were converted.
pub fn fates(written: &Written, effect: &Effect) -> Result<BTreeMap<PartitionRef, Fate>> {
    let mut fates = written.fates.clone();
    if let Some(staged) = &effect.upsert {
        for (partition, fate) in &mut fates {
            let of = |counts: &upsert::Counts| counts.get(partition).copied().unwrap_or(0);
            fate.resolve(of(&staged.superseded), of(&staged.deleted))?;
        }
    }
    Ok(fates)
}

/// Records of the plan's objects, each of which has met a fate.
fn planned(plan: &Plan, fates: &BTreeMap<PartitionRef, Fate>) -> Result<BTreeMap<PartitionRef, u64>> {
    let mut records: BTreeMap<PartitionRef, u64> = BTreeMap::new();
    for object in plan.slices.iter().flat_map(|s| &s.objects) {
        *records.entry(object.partition_ref()).or_default() += object.object.records;
    }
    for (partition, planned) in &records {
        let met = fates.get(partition).map_or(0, Fate::records);
        if met != *planned {
            return Err(Error::bug(format!("{partition}: {planned} records planned, {met} accounted for")));
        }
    }
    Ok(records)
}

/// Adds what the ledger says of new offsets, and what became of their records.
fn consume(plan: &Plan, account: &mut Account, fates: &BTreeMap<PartitionRef, Fate>) {
    for ledger in &plan.ledger {
        let partition = PartitionRef { topic: ledger.topic.clone(), partition: ledger.partition };
        let (start, end) = (ledger.range.start(), ledger.range.end());
        account.totals_mut(&partition).add(&Totals { start, end, ..ledger.totals.clone() });
        if let Some(fate) = fates.get(&partition) {
            account.add_fate(&partition, fate);
        }
    }
}

/// Replaces the fates of records that were converted again.
fn convert_again(
    account: &mut Account,
    (records, fates): (&BTreeMap<PartitionRef, u64>, &BTreeMap<PartitionRef, Fate>),
    effect: &Effect,
    quarantine: &InQuarantine,
) -> Result<()> {
    let (rows_gone, no_totals) = (effect.replaced(), Totals::default());
    let of = |counts: &BTreeMap<PartitionRef, u64>, partition| counts.get(partition).copied().unwrap_or(0);
    if let Some((partition, rows)) = rows_gone.iter().find(|(at, rows)| **rows > 0 && !records.contains_key(at)) {
        return Err(Error::bug(format!(
            "{partition}: {rows} rows of these hours have no raw object; nothing was committed"
        )));
    }
    for partition in records.keys() {
        let Some(after) = fates.get(partition) else { continue };
        let totals = account.get(partition).unwrap_or(&no_totals).clone();
        let found = Found {
            rows: of(&rows_gone, partition),
            quarantined: of(&quarantine.gone, partition),
            quarantined_before: totals.quarantined.saturating_sub(of(&quarantine.kept, partition)),
        };
        let exploded = effect.further_replaced(partition).min(totals.exploded);
        let before = Fate { exploded, ..before(found, after, &totals) };
        if before.rows != found.rows {
            let (found, counted) = (found.rows, before.rows);
            tracing::warn!(%partition, found, counted, "somebody else removed or added rows of these hours");
        }
        account.replace_fate(partition, &before, after)?;
    }
    Ok(())
}

/// What the tables have of a partition's records that are converted again.
#[derive(Debug, Clone, Copy)]
struct Found {
    /// Rows of the table.
    rows: u64,
    /// Rows of the quarantine.
    quarantined: u64,
    /// Rows that the quarantine had when the account was made: all that are counted, less those of other records.
    quarantined_before: u64,
}

/// What had become of records that are converted again, as many as now. What was found in the tables comes first; the others
/// had been filtered, superseded or deleted, by the same reasons as now as far as possible. What is then left had been in a
/// quarantine that is ahead of the table, else was left out for any reason; and what no reason has room for were rows that
/// somebody else removed.
fn before(found: Found, after: &Fate, totals: &Totals) -> Fate {
    let mut left = after.records() - after.tombstones;
    let (mut rows, mut quarantined, mut filtered) = (0, 0, BTreeMap::new());
    let mut changed = [(0, totals.superseded), (0, totals.deleted)];
    let mut take = |taken: &mut u64, there: u64, most: u64| {
        let count = most.min(left).min(there.saturating_sub(*taken));
        *taken += count;
        left -= count;
    };
    let there = |reason: &String| totals.filtered.get(reason).copied().unwrap_or(0);
    take(&mut rows, totals.rows, found.rows);
    take(&mut quarantined, found.quarantined_before, found.quarantined);
    for (reason, count) in &after.filtered {
        take(filtered.entry(reason.clone()).or_default(), there(reason), *count);
    }
    for ((taken, there), now) in changed.iter_mut().zip([after.superseded, after.deleted]) {
        take(taken, *there, now);
    }
    take(&mut quarantined, found.quarantined_before, u64::MAX);
    // Filters change more often than keys, and keys more often than which events belong to a table.
    let (others, filters): (Vec<_>, Vec<_>) = totals.filtered.keys().partition(|reason| *reason == OTHER_EVENT);
    for reason in filters {
        take(filtered.entry(reason.clone()).or_default(), there(reason), u64::MAX);
    }
    for (taken, there) in &mut changed {
        take(taken, *there, u64::MAX);
    }
    for reason in others {
        take(filtered.entry(reason.clone()).or_default(), there(reason), u64::MAX);
    }
    take(&mut rows, totals.rows, u64::MAX);
    take(&mut quarantined, totals.quarantined, u64::MAX);
    filtered.retain(|_, count| *count > 0);
    let [(superseded, _), (deleted, _)] = changed;
    Fate { rows, quarantined, filtered, tombstones: after.tombstones, superseded, deleted, exploded: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fate(rows: u64, quarantined: u64, filtered: &[(&str, u64)]) -> Fate {
        let filtered = filtered.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
        Fate { rows, quarantined, filtered, tombstones: 2, ..Fate::default() }
    }

    fn account(rows: u64, quarantined: u64) -> Totals {
        let filtered = BTreeMap::from([("event".to_owned(), 50), ("old".to_owned(), 7)]);
        Totals { rows, quarantined, filtered, ..Totals::default() }
    }

    /// Rows and quarantine as they are found, all of the account's quarantine being of these records.
    fn check(found: (u64, u64), after: &Fate, totals: &Totals, expected: &Fate) {
        let (rows, quarantined) = found;
        let found = Found { rows, quarantined, quarantined_before: totals.quarantined };
        let before = before(found, after, totals);
        assert_eq!(before, *expected);
        assert_eq!(before.records(), after.records());
    }

    #[test]
    fn what_was_before_adds_up_to_the_same_records() {
        // Filters unchanged; a filter gone; a new filter that took rows.
        let cases = [
            (60, 5, fate(60, 5, &[("event", 35)]), vec![("event", 35)]),
            (60, 5, fate(65, 0, &[("event", 30), ("new", 5)]), vec![("event", 30), ("old", 5)]),
            (95, 5, fate(40, 0, &[("new", 60)]), vec![]),
            (50, 0, fate(100, 0, &[]), vec![("event", 43), ("old", 7)]),
            (44, 0, fate(57, 0, &[("event", 43)]), vec![("event", 49), ("old", 7)]),
        ];
        for (rows, quarantined, after, expected) in cases {
            check((rows, quarantined), &after, &account(rows, quarantined), &fate(rows, quarantined, &expected));
        }
    }

    #[test]
    fn a_quarantine_that_is_ahead_of_the_table_had_what_the_account_says() {
        let none = Totals { filtered: BTreeMap::new(), ..account(90, 10) };
        // Its rejects have gone, or come, and those of the table are as they were.
        check((90, 0), &fate(100, 0, &[]), &none, &fate(90, 10, &[]));
        check((90, 20), &fate(80, 20, &[]), &none, &fate(90, 10, &[]));
        // A filter has room for them, too.
        check((90, 0), &fate(100, 0, &[]), &account(90, 10), &fate(90, 10, &[]));
    }

    #[test]
    fn rows_that_somebody_removed_or_doubled_were_as_many_as_are_counted() {
        let none = Totals { filtered: BTreeMap::new(), ..account(90, 10) };
        check((85, 10), &fate(90, 10, &[]), &none, &fate(90, 10, &[]));
        check((120, 10), &fate(90, 10, &[]), &none, &fate(90, 10, &[]));
        check((90, 4), &fate(90, 10, &[]), &none, &fate(90, 10, &[]));
    }
}
