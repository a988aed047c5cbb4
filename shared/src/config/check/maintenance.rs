//! `maintenance` to its options.

use std::time::Duration;

use super::File;
use crate::config::maintenance::MaintenanceOptions;
use crate::config::units::{ByteSize, Period};
use crate::config::wire::MaintenanceYaml;

/// A run that takes longer than this from its first file to its commit would lose files to orphan removal.
const ORPHANS_AFTER_MIN: Duration = Duration::from_hours(1);

/// Reads what is there; `None` after a report.
pub(super) fn maintenance(file: &File, path: &str, yaml: Option<&MaintenanceYaml>) -> Option<MaintenanceOptions> {
    let Some(yaml) = yaml else { return Some(MaintenanceOptions::default()) };
    let at = |key: &str| format!("{path}.{key}");
    let period = |key: &str, text: Option<&String>| match text {
        Some(text) => file.take(&at(key), text.parse::<Period>()).map(|period| Some(period.0)),
        None => Some(None),
    };
    let (compact, expire) = (yaml.compact.clone().unwrap_or_default(), yaml.expire.clone().unwrap_or_default());
    let orphans = yaml.orphans.clone().unwrap_or_default();
    let small = match &compact.smaller_than {
        Some(text) => file.take(&at("compact.smallerThan"), text.parse::<ByteSize>()).map(Some),
        None => Some(None),
    };
    let orphans_after = period("orphans.olderThan", orphans.older_than.as_ref());
    if orphans_after.flatten().is_some_and(|after| after < ORPHANS_AFTER_MIN) {
        file.report(&at("orphans.olderThan"), "must be at least 1h: younger files may belong to a commit in flight");
    }
    Some(MaintenanceOptions {
        small_file_bytes: small?.map(|size| size.0),
        min_files: compact.min_files.map(|count| count as usize),
        delete_share: compact.delete_share,
        min_manifests: yaml.manifests.as_ref().and_then(|m| m.min_count).map(|count| count as usize),
        expire_after: period("expire.olderThan", expire.older_than.as_ref())?,
        keep_last: expire.keep_last.map(|count| count as usize),
        orphans_after: orphans_after?,
        delete_orphans: orphans.delete,
    })
}
