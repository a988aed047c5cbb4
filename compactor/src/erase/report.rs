//! What an erasure found and did, for certificates and for people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, Utc};
use firn_shared::ids::{KeyName, Offset, PipelineName};
use iceberg::TableIdent;
use serde::{Deserialize, Serialize};

use super::held::Owner;

/// What is said of records and rows that could not be opened.
const SEALED: &str = "hold something sealed that no key opens; they were looked through as they are";

/// What was found, and done unless it was only looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The subject's names in the key store, by key; they do not say who it is.
    pub subject: BTreeMap<KeyName, String>,
    /// When it began.
    pub began: DateTime<Utc>,
    /// When it ended.
    pub ended: DateTime<Utc>,
    /// How often it was interrupted and gone on with.
    pub resumed: u32,
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// By pipeline.
    pub raw: BTreeMap<PipelineName, RawErased>,
    /// By table that no pipeline names any more, topics that it has read and no pipeline reads.
    #[serde(default)]
    pub raw_of_forgotten: BTreeMap<String, RawErased>,
    /// Raw objects that were removed: those that were replaced, and those that no manifest named.
    pub raw_removed: u64,
    /// By table, quarantine tables included.
    pub tables: BTreeMap<String, TableErased>,
    /// Objects of keys that were destroyed, or would be.
    pub keys: BTreeSet<String>,
    /// Directories of spilled rows that processes of this machine had left behind, and that were removed. Those of other
    /// machines were not looked at.
    #[serde(default)]
    pub spilled: u64,
    /// Raw topics, `cluster/topic`, that no pipeline reads; they were not looked through.
    #[serde(default)]
    pub unread: BTreeSet<String>,
    /// Keys that tables have been sealed with and that `firn.yaml` does not have any more; the subject's key of such a name
    /// was not looked for.
    #[serde(default)]
    pub unknown_keys: BTreeSet<KeyName>,
    /// Tables among `tables` that no pipeline names any more; their properties and snapshots say that Firn has written them.
    #[serde(default)]
    pub forgotten: BTreeSet<String>,
    /// Databases of the catalog in which such tables were looked for.
    #[serde(default)]
    pub databases: BTreeSet<String>,
    /// Databases in which they were not, because the catalog does not list their tables, and what it says; `*` stands for
    /// all that no pipeline names.
    #[serde(default)]
    pub unlisted: BTreeMap<String, String>,
    /// Tables of these databases that were not looked at, and why.
    #[serde(default)]
    pub passed: BTreeMap<String, String>,
    /// Buckets that keep versions: what others had deleted or replaced there before is not looked at.
    #[serde(default)]
    pub versioned: BTreeSet<String>,
    /// Older versions and delete markers that went with what was deleted.
    #[serde(default)]
    pub versions: u64,
    /// Whether older versions of what was deleted stay, which the operator accepted.
    #[serde(default)]
    pub versions_stay: bool,
}

/// What became of a pipeline's raw objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RawErased {
    /// Objects looked through, refused records included.
    pub objects: u64,
    /// Those with the subject's values.
    pub rewritten: u64,
    /// Records in them that lost values.
    pub records: u64,
    /// Records with something in them that is sealed, or looks like it, and that no key here opens; they were looked
    /// through as they are.
    pub unopened: u64,
    /// By partition, the first offset that was not looked at, because it landed later.
    pub through: BTreeMap<String, Offset>,
}

impl RawErased {
    pub(super) fn add(&mut self, other: &Self) {
        self.objects += other.objects;
        self.rewritten += other.rewritten;
        self.records += other.records;
        self.unopened += other.unopened;
    }
}

/// What became of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TableErased {
    /// Live rows that lost values.
    pub rows: u64,
    /// Data files that held the subject's rows, deleted ones included.
    pub files: u64,
    /// Data files whose rows were read.
    pub looked: u64,
    /// Data files whose rows were not, because bounds in manifests, or statistics, bloom filters or dictionaries in their
    /// footers say that nothing of the subject is in them.
    pub excluded: u64,
    /// Older snapshots that were removed.
    pub snapshots: u64,
    /// Files deleted, which only those had named.
    pub deleted: u64,
    /// Files deleted that nothing named before, such as those of a run that died.
    pub orphans: u64,
    /// Files that nothing names and that stay, because they are young: somebody may be about to commit them.
    pub young: u64,
    /// Files that nothing names and that could not be deleted. With any of these there is no certificate.
    pub left: u64,
    /// Directories outside of the table's location, where files are not looked for.
    pub elsewhere: Vec<String>,
    /// Rows with something in them that is sealed, or looks like it, and that no key here opens; they were looked through
    /// as they are.
    pub unopened: u64,
    /// Columns that the pipeline does not have and no run has protected; they stay as they are.
    pub foreign: Vec<String>,
    /// Columns that stay as they are because the operator said so.
    pub spared: Vec<String>,
    /// Keys of values of this table that `firn.yaml` does not have any more. Rows that only such a key tells to be the
    /// subject's stay.
    pub unknown_keys: BTreeSet<KeyName>,
}

impl Report {
    /// Whether anything of the subject was found anywhere.
    #[must_use]
    pub fn found(&self) -> bool {
        self.raws().any(|(_, raw)| raw.records > 0)
            || self.tables.values().any(|table| table.files > 0)
            || !self.keys.is_empty()
    }

    /// What became of raw objects, by whose they are.
    fn raws(&self) -> impl Iterator<Item = (&str, &RawErased)> {
        let forgotten = self.raw_of_forgotten.iter().map(|(name, raw)| (name.as_str(), raw));
        self.raw.iter().map(|(name, raw)| (name.as_str(), raw)).chain(forgotten)
    }

    pub(super) fn raw_of(&mut self, owner: &Owner) -> &mut RawErased {
        match owner {
            Owner::Pipeline(name) => self.raw.entry(name.clone()).or_default(),
            Owner::Table(name) => self.raw_of_forgotten.entry(name.clone()).or_default(),
        }
    }

    pub(super) fn table(&mut self, ident: &TableIdent) -> &mut TableErased {
        self.tables.entry(ident.to_string()).or_default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let did = if self.dry_run { "would lose" } else { "lost" };
        for (owner, raw) in self.raws() {
            let RawErased { objects, rewritten, records, unopened, .. } = raw;
            writeln!(f, "raw zone of {owner}: {records} records in {rewritten} of {objects} objects {did} values")?;
            if *unopened > 0 {
                writeln!(f, "  {unopened} records {SEALED}")?;
            }
        }
        for (table, erased) in &self.tables {
            self.say_table(f, table, erased)?;
        }
        if !self.dry_run {
            let spilled = self.spilled;
            writeln!(
                f,
                "temporary files: {spilled} directories of dead runs removed here; other machines were not looked at"
            )?;
        }
        self.say_versions(f)?;
        self.say_unseen(f)?;
        if self.resumed > 0 {
            writeln!(f, "interrupted and gone on with {} times", self.resumed)?;
        }
        let keys = if self.dry_run { "would be destroyed" } else { "destroyed" };
        write!(f, "{} keys {keys}", self.keys.len())?;
        if !self.found() {
            write!(f, "\nnothing of this subject was found; is it written as the subject's column writes it?")?;
        }
        Ok(())
    }
}

impl Report {
    fn say_table(&self, f: &mut fmt::Formatter<'_>, table: &str, erased: &TableErased) -> fmt::Result {
        let did = if self.dry_run { "would lose" } else { "lost" };
        let TableErased { rows, files, snapshots, deleted, orphans, young, left, elsewhere, unopened, .. } = erased;
        write!(f, "{table}: {rows} rows in {files} files {did} values")?;
        if *unopened > 0 {
            write!(f, "; {unopened} rows {SEALED}")?;
        }
        if self.dry_run {
            writeln!(f, "; {snapshots} older snapshots would go")?;
        } else {
            writeln!(f, "; {snapshots} older snapshots and {} files are gone", deleted + orphans)?;
        }
        if erased.looked + erased.excluded > 0 {
            let TableErased { looked, excluded, .. } = erased;
            writeln!(f, "  {looked} data files were read; bounds, filters or dictionaries exclude {excluded} more")?;
        }
        if self.forgotten.contains(table) {
            writeln!(f, "  no pipeline names this table any more")?;
        }
        if *young > 0 {
            writeln!(f, "  {young} young files that nothing names stay; erase again when they are old")?;
        }
        if *left > 0 {
            writeln!(f, "  {left} files that nothing names could not be deleted; erase again")?;
        }
        for place in elsewhere {
            writeln!(f, "  files that nothing names were not looked for in {place}")?;
        }
        if !erased.foreign.is_empty() {
            let columns = erased.foreign.join(", ");
            writeln!(f, "  columns that the pipeline does not have stay as they are: {columns}")?;
        }
        if !erased.spared.is_empty() {
            writeln!(f, "  columns that stay as they are because of --leave: {}", erased.spared.join(", "))?;
        }
        for key in &erased.unknown_keys {
            writeln!(
                f,
                "  rows that only key {key} tells to be the subject's stay, because firn.yaml does not have it"
            )?;
        }
        Ok(())
    }

    /// What became of older versions.
    fn say_versions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for bucket in &self.versioned {
            write!(f, "{bucket} keeps versions; ")?;
            if self.dry_run {
                writeln!(f, "an erasure needs --delete-versions or --accept-versions")?;
            } else if self.versions_stay {
                writeln!(f, "older ones of what was deleted stay there")?;
            } else {
                writeln!(f, "older ones of what others had deleted or replaced there before stay")?;
            }
        }
        if self.versions > 0 {
            writeln!(f, "{} older versions of it are gone", self.versions)?;
        }
        Ok(())
    }

    /// What was not looked at.
    fn say_unseen(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for topic in &self.unread {
            writeln!(f, "raw zone of {topic}: no pipeline reads it, so it was not looked through")?;
        }
        for (table, why) in &self.passed {
            writeln!(f, "{table} was not looked at: {why}")?;
        }
        for (database, why) in &self.unlisted {
            let of = if database == "*" { "databases that no pipeline names were" } else { "a database was" };
            writeln!(f, "{of} not looked into for tables that no pipeline names ({database}): {why}")?;
        }
        for key in &self.unknown_keys {
            writeln!(
                f,
                "key {key} has sealed values and is not in firn.yaml; subjects' keys of that name were not looked for"
            )?;
        }
        Ok(())
    }
}
