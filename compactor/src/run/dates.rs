//! `--event-date`: dates that must be complete before they are converted, and are marked so.

use std::sync::Arc;

use chrono::{Days, NaiveDate};
use firn_shared::error::{Error, Result};
use firn_shared::store::Store;
use iceberg::table::Table;

use super::{Env, Target};
use crate::plan::read::topics_to_seal;
use crate::plan::seal;

/// Table property that marks a date as complete: this and the date; its value is when that was found.
pub const COMPLETE: &str = "firn.complete.";

/// Reads `2026-11-22`, or `T-1D` as so many days before `today` (UTC).
///
/// # Errors
/// `Config` for anything else.
pub fn parse(text: &str, today: NaiveDate) -> Result<NaiveDate> {
    let bad = || Error::config(format!("`{text}` is neither a date such as 2026-11-22 nor days back such as T-1D"));
    if let Some(days) = text.strip_prefix("T-").and_then(|rest| rest.strip_suffix(['D', 'd'])) {
        let days = days.parse().map_err(|_| bad())?;
        return today.checked_sub_days(Days::new(days)).ok_or_else(bad);
    }
    text.parse().map_err(|_| bad())
}

/// The property that marks `date` as complete in the table; `None` when it is marked already.
///
/// # Errors
/// `Unavailable` (exit code 1, retry later) with every partition's reason when the date is open.
pub async fn sealed_mark(
    env: &Env,
    target: Target<'_>,
    raw: &Arc<dyn Store>,
    date: NaiveDate,
    table: Option<&Table>,
) -> Result<Option<(String, String)>> {
    let ingestion = &target.pipeline.ingestion;
    let topics = topics_to_seal(&**raw, ingestion).await?;
    let seal = seal::date(raw, &topics, date, ingestion.late_allowed).await?;
    if !seal.is_sealed() {
        return Err(Error::unavailable(format!("{}: {seal}", target.name())));
    }
    let key = format!("{COMPLETE}{date}");
    if table.is_some_and(|t| t.metadata().properties().contains_key(&key)) {
        return Ok(None);
    }
    Ok(Some((key, env.clock.now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_or_refused() {
        let day = |text: &str| text.parse::<NaiveDate>().unwrap();
        let today = day("2026-03-01");
        let cases = [("2026-11-22", Some(day("2026-11-22"))), ("T-1D", Some(day("2026-02-28"))), ("T-0d", Some(today))];
        for (text, expected) in cases {
            assert_eq!(parse(text, today).ok(), expected, "{text}");
        }
        for text in ["", "T-D", "T+1D", "yesterday", "2026-13-01", "T-99999999999D"] {
            assert!(parse(text, today).unwrap_err().to_string().contains(text), "{text}");
        }
    }
}
