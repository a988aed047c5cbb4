//! Files that nothing names: listed, and deleted when asked to.
//!
//! Only the directories that writers of Iceberg use are looked into (`data` and `metadata` of the table), only what has the
//! name of a table's file is taken, and only when it is old: a younger file may belong to a commit in flight. Where deletes
//! are remembered lies beside the table, and may be another table's place: of it only what has the name of such an object is
//! taken. The table is read again after the listing, so that nothing is deleted that became part of it meanwhile.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use firn_shared::error::{Error, Result};
use firn_shared::store::{Depth, ObjectMeta};
use futures::{StreamExt, stream};
use iceberg::table::Table;
use serde::Serialize;

use super::Subject;
use super::names::{Names, named, remembers};
use crate::run::Env;
use crate::upsert::remember;

/// Files that are deleted at the same time.
const AT_ONCE: usize = 16;
/// Orphans that one run takes; the rest waits for the next. Their names are held in memory.
const ORPHANS_MAX: usize = 100_000;
/// Paths that a report names.
const EXAMPLES: usize = 20;
/// What files of tables are called, whoever writes them.
const ENDINGS: [&str; 8] =
    [".parquet", ".orc", ".avro", ".puffin", ".stats", ".metadata.json", ".metadata.json.gz", ".crc"];

/// What was found.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Orphans {
    /// Files by verdict.
    pub files: BTreeMap<Verdict, usize>,
    /// Bytes of the orphans.
    pub bytes: u64,
    /// Some of them.
    pub examples: Vec<String>,
    /// Orphans deleted.
    pub deleted: usize,
    /// Orphans that could not be deleted.
    pub left_behind: usize,
    /// Directories of the table outside of its location, which are not looked into.
    pub elsewhere: Vec<String>,
    /// Why nothing was looked at.
    pub skipped: Option<String>,
}

/// What a file is, and so what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Kept: a snapshot, a manifest or the metadata names it.
    Named,
    /// Kept: it is young and may belong to a commit in flight.
    Young,
    /// Kept: it does not have the name of a table's file.
    Foreign,
    /// Nothing names it, and it is old.
    Orphan,
}

impl Verdict {
    /// In a few words.
    #[must_use]
    pub fn says(self) -> &'static str {
        match self {
            Self::Named => "named by the table",
            Self::Young => "young, maybe of a commit in flight",
            Self::Foreign => "not a table's file",
            Self::Orphan => "named by nothing",
        }
    }
}

/// A directory to look into.
#[derive(Debug)]
struct Place {
    /// With trailing slash.
    url: String,
    holds: Holds,
}

/// What writers put into a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// Files of the table, at any depth.
    Files,
    /// Its metadata, at any depth.
    Metadata,
    /// Remembered deletes, side by side.
    Deletes,
}

impl Holds {
    /// Whether a file may be a writer's, by its name below the directory.
    fn may_hold(self, name: &str) -> bool {
        match self {
            Self::Files | Self::Metadata => ENDINGS.iter().any(|ending| name.ends_with(ending)),
            Self::Deletes => remember::is_object(name),
        }
    }
}

/// Judges one file by its name below `place`.
fn judge(place: &Place, name: &str, modified: DateTime<Utc>, names: &Names, before: DateTime<Utc>) -> Verdict {
    if names.contains(&format!("{}{name}", place.url)) {
        Verdict::Named
    } else if !place.holds.may_hold(name) {
        Verdict::Foreign
    } else if modified >= before {
        Verdict::Young
    } else {
        Verdict::Orphan
    }
}

/// Looks for orphans of a table.
///
/// # Errors
/// `Config` when another table lies where orphans are looked for; `Data` when the listing shows none of the files that
/// the table names; else as catalog and stores say.
pub async fn orphans(env: &Env, subject: &Subject, delete: bool) -> Result<Orphans> {
    let table = super::load(env, subject).await?;
    if let Some(why) = super::files_stay(table.metadata()) {
        return Ok(Orphans { skipped: Some(why.to_owned()), ..Orphans::default() });
    }
    let age = chrono::TimeDelta::from_std(subject.settings.orphans_after).unwrap_or(chrono::TimeDelta::MAX);
    let before = env.clock.now().checked_sub_signed(age).unwrap_or(DateTime::<Utc>::MIN_UTC);
    let memory = env.config.deployment.compactor.delete_memory_location.as_ref();
    let memory = (subject.remembers || remembers(table.metadata())?).then(|| remember::directory(memory, &table));
    let places = places(&table, subject, memory)?;
    let names = named(&table).await?;
    let mut report = Orphans { elsewhere: elsewhere(&table), ..Orphans::default() };
    let (mut found, mut metadata_shown): (Vec<(String, u64)>, bool) = (Vec::new(), false);
    for place in &places {
        let mut of_place = BTreeMap::new();
        look(env, place, |name, meta| {
            let verdict = judge(place, name, meta.modified, &names, before);
            *of_place.entry(verdict).or_default() += 1;
            if verdict == Verdict::Orphan && found.len() < ORPHANS_MAX {
                found.push((format!("{}{name}", place.url), meta.size));
            }
        })
        .await?;
        // The current metadata file is always there: where the listing does not show it, names are not what they seem.
        let shown = count(&of_place, Verdict::Named) > 0;
        metadata_shown |= shown && place.holds == Holds::Metadata;
        for (verdict, files) in of_place {
            *report.files.entry(verdict).or_default() += files;
        }
    }
    if !found.is_empty() && !metadata_shown {
        return Err(Error::data(format!(
            "the listing of {} shows files and none of the metadata that {} names; its location may be written in another \
             way, nothing was deleted",
            places.iter().map(|place| place.url.as_str()).collect::<Vec<_>>().join(", "),
            subject.ident
        )));
    }
    // What became part of the table since it was read is no orphan.
    let now = super::load(env, subject).await?;
    if !found.is_empty() && now.metadata_location() != table.metadata_location() {
        let names = named(&now).await?;
        found.retain(|(url, _)| !names.contains(url));
    }
    report.bytes = found.iter().map(|(_, bytes)| bytes).sum();
    report.examples = found.iter().take(EXAMPLES).map(|(url, _)| url.clone()).collect();
    if delete {
        remove(&now, found, &mut report).await;
        tracing::info!(table = %subject.ident, files = report.deleted, bytes = report.bytes, "deleted orphans");
    }
    Ok(report)
}

fn count(of: &BTreeMap<Verdict, usize>, verdict: Verdict) -> usize {
    of.get(&verdict).copied().unwrap_or_default()
}

/// Directories to look into; `memory` is that of remembered deletes.
fn places(table: &Table, subject: &Subject, memory: Option<String>) -> Result<Vec<Place>> {
    let location = table.metadata().location().trim_end_matches('/');
    let mut places = vec![
        Place { url: format!("{location}/data/"), holds: Holds::Files },
        Place { url: format!("{location}/metadata/"), holds: Holds::Metadata },
    ];
    places.extend(memory.map(|url| Place { url, holds: Holds::Deletes }));
    for (place, other) in places.iter().flat_map(|place| subject.others.iter().map(move |other| (place, other))) {
        // Beside the table another one may lie: its files are told by their names.
        let inside = place.holds != Holds::Deletes && format!("{other}/").starts_with(place.url.as_str());
        if inside || other.trim_end_matches('/') == location {
            return Err(Error::config(format!(
                "cannot look for orphans of {}: another table has its place at {other}; give each table a location of its own",
                subject.ident
            )));
        }
    }
    Ok(places)
}

/// Where properties send files that are not looked for.
pub fn elsewhere(table: &Table) -> Vec<String> {
    let metadata = table.metadata();
    let location = format!("{}/", metadata.location().trim_end_matches('/'));
    let of = |key: &str| metadata.properties().get(key).filter(|path| !path.starts_with(&location)).cloned();
    ["write.data.path", "write.metadata.path", "write.object-storage.path", "write.folder-storage.path"]
        .into_iter()
        .filter_map(of)
        .collect()
}

/// Shows the files of a directory, by their names below it.
async fn look(env: &Env, place: &Place, mut see: impl FnMut(&str, &ObjectMeta)) -> Result<()> {
    let (store, prefix) = env.stores.resolve(&place.url).await?;
    let depth = if place.holds == Holds::Deletes { Depth::One } else { Depth::All };
    let mut after: Option<String> = None;
    loop {
        let page = store.list(&prefix, after.as_deref(), depth).await?;
        for meta in &page.objects {
            if let Some(name) = meta.key.strip_prefix(&prefix) {
                see(name, meta);
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

async fn remove(table: &Table, found: Vec<(String, u64)>, report: &mut Orphans) {
    let io = table.file_io();
    let one = |(url, _)| async move { io.delete(&url).await.map_err(|e| (url, e)) };
    let mut deleting = stream::iter(found).map(one).buffer_unordered(AT_ONCE);
    while let Some(deleted) = deleting.next().await {
        match deleted {
            Ok(()) => report.deleted += 1,
            Err((file, error)) => {
                tracing::warn!(file, %error, "an orphan stays behind");
                report.left_behind += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_files_of_a_table_that_nothing_names_are_orphans() {
        let mut names = Names::default();
        names.insert("s3a://lake/t/data/live.parquet");
        let before = DateTime::<Utc>::UNIX_EPOCH;
        let old = before - chrono::TimeDelta::seconds(1);
        let place = Place { url: "s3://lake/t/".to_owned(), holds: Holds::Files };
        let check = |name: &str, at, expected| {
            assert_eq!(judge(&place, name, at, &names, before), expected, "{name}");
        };
        check("data/live.parquet", old, Verdict::Named);
        check("data/left.parquet", old, Verdict::Orphan);
        check("data/left.parquet", before, Verdict::Young);
        check("metadata/00001-x.metadata.json", old, Verdict::Orphan);
        check("metadata/snap-1.avro", old, Verdict::Orphan);
        check("metadata/version-hint.text", old, Verdict::Foreign);
        check("data/README", old, Verdict::Foreign);
    }

    #[test]
    fn beside_a_table_only_objects_of_remembered_deletes_are_orphans() {
        let place = Place { url: "s3://lake/t_deletes/".to_owned(), holds: Holds::Deletes };
        let (names, before) = (Names::default(), DateTime::<Utc>::UNIX_EPOCH);
        let old = before - chrono::TimeDelta::seconds(1);
        let check = |name: &str, expected| assert_eq!(judge(&place, name, old, &names, before), expected, "{name}");
        let object = format!("{}-0.parquet", firn_shared::ids::RunId::new());
        check(&object, Verdict::Orphan);
        // A table `t_deletes` has these.
        check(&format!("data/{object}"), Verdict::Foreign);
        check("metadata/00001-x.metadata.json", Verdict::Foreign);
        check("part-0.parquet", Verdict::Foreign);
    }
}
