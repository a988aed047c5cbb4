//! What a table knows of its protections: how each value is protected and since when, and what of the table is from before.
//!
//! A protection holds for what is written from then on. Which rows are older is told by their event hours, because these stay
//! with a row through every rewrite: the hours that the table had when the protection came, without those that a `reprocess`
//! has made again. Older snapshots hold what they held until they expire; a sequence number says which ones.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use firn_shared::config::domain::{Output, Protect, Protection};
use firn_shared::error::{Error, Result};
use firn_shared::ids::EventHour;
use iceberg::spec::{Snapshot, TableMetadata};
use serde::{Deserialize, Serialize};

use super::offsets::{SCOPE, SCOPE_REPROCESS};

/// Table property: a list of [`Since`], as JSON. Summary entry of a snapshot on a branch: the [`Made`] of its run.
pub const PROPERTY: &str = "firn.protected";

/// Event hours `from..to`.
pub type Hours = (EventHour, EventHour);

/// A protected value, and how: what [`Since`] is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Its path, as `piiColumns` has it.
    pub path: String,
    /// What becomes of it, such as `mask last(4)`.
    pub how: String,
}

/// How a value is protected, since when, and what of the table is from before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Since {
    /// The value's path, as `piiColumns` has it.
    pub path: String,
    /// What becomes of it, such as `mask last(4)`.
    pub how: String,
    /// When that was first seen; absent when the table was made with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// How it was protected before; absent when it was plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<String>,
    /// Event hours whose rows are from before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hours: Vec<Hours>,
    /// Snapshots up to this sequence number hold rows from before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub snapshots: i64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl Since {
    fn is_of(&self, made: &Made) -> bool {
        self.path == made.path && self.how == made.how
    }

    /// Whether `snapshot` holds rows from before.
    fn is_in(&self, snapshot: &Snapshot) -> bool {
        snapshot.sequence_number() <= self.snapshots
    }

    /// Rows of these hours were made again.
    fn replace(&mut self, replaced: Replaced, last: i64) {
        if self.hours.is_empty() {
            return;
        }
        self.snapshots = last;
        self.hours = match replaced {
            Replaced::All => Vec::new(),
            Replaced::Hours(out) => self.hours.iter().flat_map(|hours| without(*hours, out)).collect(),
        };
    }
}

/// What of `hours` is left.
fn without((from, to): Hours, (out_from, out_to): Hours) -> impl Iterator<Item = Hours> {
    [(from, to.min(out_from)), (from.max(out_to), to)].into_iter().filter(|(from, to)| from < to)
}

/// Rows that a commit replaces, by ones that are protected as the pipeline says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// Those of these event hours.
    Hours(Hours),
    /// All.
    All,
}

/// What an output protects, and how.
#[must_use]
pub fn made(output: &Output) -> Vec<Made> {
    let protections = output.table.protections.iter().filter(|p| p.protects());
    protections.map(|p| Made { path: p.path.to_string(), how: how(p) }).collect()
}

fn how(protection: &Protection) -> String {
    match &protection.how {
        Protect::Encrypt => "encrypt".to_owned(),
        Protect::Token => "token".to_owned(),
        Protect::Hash => "hash".to_owned(),
        Protect::Mask(mask) => format!("mask {mask}"),
        Protect::Redact(patterns) => format!("redact {}", patterns.join(", ")),
        Protect::Drop => "drop".to_owned(),
        Protect::Keep => "keep".to_owned(),
    }
}

/// The property of a table that is made with these protections; `None` when there are none.
#[must_use]
pub fn of_new(output: &Output) -> Option<(String, String)> {
    let all = next(&[], &made(output), &Before::default(), None);
    text_of(&all).ok().filter(|_| !all.is_empty())
}

/// What is written down; nothing before the first protection.
///
/// # Errors
/// `Data` when that cannot be read.
pub fn recorded(metadata: &TableMetadata) -> Result<Vec<Since>> {
    let Some(text) = metadata.properties().get(PROPERTY) else { return Ok(Vec::new()) };
    serde_json::from_str(text).map_err(|e| {
        let table = metadata.location();
        Error::data(format!("property {PROPERTY} of the table at {table} is broken; remove it")).with_source(e)
    })
}

/// A table as a protection finds it.
#[derive(Debug, Clone, Default)]
pub struct Before {
    /// The event hours that it has rows of.
    pub hours: Option<Hours>,
    /// Its last sequence number.
    pub last: i64,
    /// Now; absent for a table that is being made.
    pub now: Option<DateTime<Utc>>,
}

/// What is to be written down once rows are protected as `made` says, and rows were replaced. A protection that the pipeline
/// does not have any more is forgotten: rows are plain from now on, so that it would be a new one.
#[must_use]
pub fn next(known: &[Since], made: &[Made], before: &Before, replaced: Option<Replaced>) -> Vec<Since> {
    let of = |made: &Made| known.iter().find(|since| since.is_of(made)).cloned();
    let mut all: Vec<Since> = made.iter().map(|made| of(made).unwrap_or_else(|| begun(known, made, before))).collect();
    if let Some(replaced) = replaced {
        for since in &mut all {
            since.replace(replaced, before.last);
        }
    }
    all
}

fn begun(known: &[Since], made: &Made, before: &Before) -> Since {
    // Where some rows were older than the protection before, they are as plain as they were.
    let was = known.iter().find(|since| since.path == made.path && since.hours.is_empty());
    Since {
        path: made.path.clone(),
        how: made.how.clone(),
        since: before.now,
        was: was.map(|since| since.how.clone()),
        hours: before.hours.into_iter().collect(),
        snapshots: if before.hours.is_some() { before.last } else { 0 },
    }
}

/// Whether the table has not yet heard of one of these protections.
#[must_use]
pub fn is_news(known: &[Since], made: &[Made]) -> bool {
    !made.iter().all(|made| known.iter().any(|since| since.is_of(made)))
}

/// The same, with nothing left from before: somebody says so.
#[must_use]
pub fn accepted(all: Vec<Since>) -> Vec<Since> {
    all.into_iter().map(|since| Since { hours: Vec::new(), snapshots: 0, ..since }).collect()
}

/// The property as it has to be; `None` when it is like that.
///
/// # Errors
/// As [`recorded`].
pub fn changed(metadata: &TableMetadata, all: &[Since]) -> Result<Option<(String, String)>> {
    if recorded(metadata)? == *all {
        return Ok(None);
    }
    text_of(all).map(Some)
}

fn text_of<T: Serialize>(all: &[T]) -> Result<(String, String)> {
    let text = serde_json::to_string(all).map_err(|e| Error::bug("protections are JSON").with_source(e))?;
    Ok((PROPERTY.to_owned(), text))
}

/// The summary entry of a snapshot on a branch whose rows are protected like this.
///
/// # Errors
/// `Bug` only.
pub fn on_branch(made: &[Made]) -> Result<(String, String)> {
    text_of(made)
}

/// The property as it has to be once a snapshot of a branch is the table: the hours that its run has made again are as they
/// were protected then. `None` when it is like that.
///
/// # Errors
/// As [`recorded`].
pub fn published(metadata: &TableMetadata, snapshot: &Snapshot) -> Result<Option<(String, String)>> {
    let mut all = recorded(metadata)?;
    if all.is_empty() {
        return Ok(None);
    }
    let summary = &snapshot.summary().additional_properties;
    let scope = summary.get(SCOPE).and_then(|scope| scope.strip_prefix(SCOPE_REPROCESS)?.split_once(".."));
    let Some((from, to)) = scope else { return Ok(None) };
    let hours: Hours = (from.parse()?, to.parse()?);
    let made: Vec<Made> = match summary.get(PROPERTY) {
        Some(text) => serde_json::from_str(text)
            .map_err(|e| Error::data(format!("{PROPERTY} of the branch is broken; make it again")).with_source(e))?,
        None => Vec::new(),
    };
    let last = metadata.last_sequence_number();
    for since in &mut all {
        if made.iter().any(|made| since.is_of(made)) {
            since.replace(Replaced::Hours(hours), last);
        } else {
            since.hours = since.hours.iter().flat_map(|known| without(*known, hours)).chain([hours]).collect();
            since.snapshots = last;
        }
    }
    changed(metadata, &all)
}

/// Values of a table that are from before their protection, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Old {
    /// Rows hold them.
    Rows {
        /// Which values, and how they are there.
        what: String,
        /// In which hours.
        hours: Vec<Hours>,
    },
    /// Older snapshots do.
    Snapshots {
        /// Which values.
        what: String,
    },
}

/// Everything that is left from before: rows that look alike together.
#[must_use]
pub fn old(all: &[Since], metadata: &TableMetadata) -> Vec<Old> {
    let mut rows: BTreeMap<_, Vec<String>> = BTreeMap::new();
    let mut snapshots = Vec::new();
    for since in all {
        let Since { path, how, .. } = since;
        if !since.hours.is_empty() {
            let alike = (&since.hours, since.was.as_deref(), since.since);
            rows.entry(alike).or_default().push(format!("`{path}` ({how})"));
        } else if metadata.snapshots().any(|snapshot| since.is_in(snapshot)) {
            snapshots.push(format!("`{path}`"));
        }
    }
    let rows = rows.into_iter().map(|((hours, was, since), names)| {
        let is = was.map_or_else(|| "in plain".to_owned(), |was| format!("as `{was}` left it"));
        let since = since.map_or_else(String::new, |at| format!(", from before {}", at.format("%FT%RZ")));
        Old::Rows { what: format!("{} {is}{since}", names.join(", ")), hours: hours.clone() }
    });
    let snapshots = (!snapshots.is_empty()).then(|| Old::Snapshots { what: snapshots.join(", ") });
    rows.chain(snapshots).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(from: u32, to: u32) -> Hours {
        let hour = |hour| format!("2026-11-27T{hour:02}").parse().unwrap();
        (hour(from), hour(to))
    }

    fn mail(how: &str) -> Vec<Made> {
        vec![Made { path: "mail".to_owned(), how: how.to_owned() }]
    }

    fn at(last: i64, rows: Option<Hours>) -> Before {
        Before { hours: rows, last, now: Some(DateTime::UNIX_EPOCH) }
    }

    #[test]
    fn rows_are_old_until_every_hour_of_them_was_made_again() {
        let begun = next(&[], &mail("encrypt"), &at(7, Some(hours(1, 9))), None);
        assert_eq!((begun[0].hours.clone(), begun[0].snapshots), (vec![hours(1, 9)], 7));
        assert_eq!(
            next(&begun, &mail("encrypt"), &at(8, Some(hours(1, 12))), None),
            begun,
            "later rows are not from before"
        );
        let mut all = begun.clone();
        for (out, left) in [
            (hours(10, 12), vec![hours(1, 9)]),
            (hours(3, 5), vec![hours(1, 3), hours(5, 9)]),
            (hours(0, 2), vec![hours(2, 3), hours(5, 9)]),
            (hours(2, 6), vec![hours(6, 9)]),
            (hours(6, 20), vec![]),
        ] {
            all = next(&all, &mail("encrypt"), &at(9, None), Some(Replaced::Hours(out)));
            assert_eq!(all[0].hours, left, "{out:?}");
        }
        assert_eq!(all[0].snapshots, 9, "what was the table until then is in snapshots still");
        let loaded = next(&begun, &mail("encrypt"), &at(9, None), Some(Replaced::All));
        assert_eq!(loaded, all);
        assert_eq!(next(&all, &mail("encrypt"), &at(30, None), Some(Replaced::All)), all, "said once");
        assert!(accepted(begun)[0].hours.is_empty());
    }

    #[test]
    fn what_is_forgotten_or_protected_otherwise_begins_anew() {
        let masked = next(&[], &mail("mask all"), &at(0, None), None);
        assert_eq!((masked[0].hours.len(), masked[0].snapshots), (0, 0), "a new table has no rows from before");
        let plain = next(&masked, &[], &at(3, None), None);
        assert!(plain.is_empty());
        assert!(is_news(&plain, &mail("mask all")) && !is_news(&masked, &mail("mask all")));
        let again = next(&plain, &mail("mask all"), &at(4, Some(hours(1, 2))), None);
        assert_eq!((again[0].hours.clone(), again[0].was.as_deref()), (vec![hours(1, 2)], None));
        let other = next(&masked, &mail("encrypt"), &at(4, Some(hours(1, 2))), None);
        assert_eq!(other[0].was.as_deref(), Some("mask all"));
        let still_plain = next(&again, &mail("encrypt"), &at(5, Some(hours(1, 3))), None);
        assert_eq!(still_plain[0].was, None, "not all rows were masked");
    }
}
