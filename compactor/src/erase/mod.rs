//! `compactor erase`: the personal data of one data subject goes, from everywhere.
//!
//! ```text
//! raw         objects with the subject's records ─→ new objects without the values ─→ manifests name these
//! marks       every table: a run that read raw objects before commits nothing after
//! raw         what no manifest names goes: the old objects
//! quarantine  files with the subject's rows, deleted ones too ─→ rewritten, values null ─→ commit, a hundred at a time; of
//!             every table of the pipeline, because each holds whole records
//! tables      the same ─→ manifests without removed files ─→ only the current snapshot ─→ delete what nothing names
//! keys        the subject's keys are destroyed: what copies and backups hold cannot be opened
//! certificate what was done, signed
//! ```
//! Protected values of columns with a `subject` go, tokens included; rows, records and their counts stay, so that the
//! ledger, the tables and `reconcile` go on agreeing; manifests say of how many records values were `erased`. What others
//! do meanwhile is not lost: landing appends behind what is looked through, runs and maintenance meet at each commit, and
//! another erasure waits for its [`turn`]. Every step looks for what is left, and what a crash would make unfindable is in
//! the [`journal`] before, so the same command goes on after a crash anywhere; only a whole erasure has a certificate.

mod certificate;
mod journal;
mod lines;
mod raw;
mod rows;
mod snapshots;
mod tables;
mod turn;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use firn_shared::crypto::KeyBytes;
use firn_shared::error::Result;
use firn_shared::ids::{KeyName, Offset, PipelineName};
use iceberg::TableIdent;
use serde::{Deserialize, Serialize};

use crate::execute::Progress;
use crate::run::Env;
use crate::spill;
pub use certificate::{Certificate, public_key, verify};
use journal::Journal;
use turn::Turn;
use whole::Whole;
pub use whole::as_written;

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
    fn add(&mut self, other: &Self) {
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
}

impl Report {
    /// Whether anything of the subject was found anywhere.
    #[must_use]
    pub fn found(&self) -> bool {
        self.raw.values().any(|raw| raw.records > 0)
            || self.tables.values().any(|table| table.files > 0)
            || !self.keys.is_empty()
    }

    fn raw_of(&mut self, pipeline: &PipelineName) -> &mut RawErased {
        self.raw.entry(pipeline.clone()).or_default()
    }

    fn table(&mut self, ident: &TableIdent) -> &mut TableErased {
        self.tables.entry(ident.to_string()).or_default()
    }
}

/// Looks for a subject and changes nothing.
///
/// # Errors
/// As [`erase`].
pub async fn look(env: &Env, subject: &str) -> Result<Report> {
    let whole = Whole::of(env, subject).await?;
    let mut journal = Journal::of_dry_run(Report { dry_run: true, ..whole.report() });
    let mut looked = raw::Looked::default();
    whole.say(journal.report());
    for (pipeline, parts) in whole.pipelines()? {
        raw::Work::new(env, pipeline, parts, whole.run).await?.erase(None, &mut journal, &mut looked).await?;
    }
    journal.report().unread = whole.unread(&looked).await?;
    for (work, _) in whole.tables()? {
        work.look(&mut journal).await?;
    }
    for (name, short) in whole.subject.names() {
        if env.keys.key(name).await?.has_subject(short).await? {
            journal.report().keys.insert(format!("{name}/s/{short}"));
        }
    }
    journal.report().ended = env.clock.now();
    journal.close(None).await
}

/// Erases a subject, and certifies it with a key that is made of `seed`.
///
/// # Errors
/// `Config` when no table has a subject, a key cannot be used or a branch or tag keeps old snapshots; `Conflict` while
/// another erasure is at work or when others kept changing a table; `Unavailable` when files stay that cannot be deleted; else
/// those of catalog and stores. Doing it again goes
/// on.
pub async fn erase(env: &Env, subject: &str, seed: &KeyBytes) -> Result<(Report, Certificate)> {
    let whole = Whole::of(env, subject).await?;
    let store = env.raw().await?;
    let mut journal = Journal::open(Arc::clone(&store), &whole.subject, whole.report()).await?;
    let mut turn = Turn::take(store, Arc::clone(&env.clock), whole.run, journal.who()).await?;
    let mut looked = raw::Looked::default();
    whole.say(journal.report());
    for (pipeline, parts) in whole.pipelines()? {
        let work = raw::Work::new(env, pipeline, parts, whole.run).await?;
        work.erase(Some(&mut turn), &mut journal, &mut looked).await?;
    }
    journal.report().unread = whole.unread(&looked).await?;
    for definition in whole.definitions()? {
        tables::mark(env, &definition, whole.run).await?;
    }
    journal.report().raw_removed += raw::sweep(env, &mut turn, &looked).await?;
    journal.report().spilled += spill::sweep(&env.config.deployment.compactor.temp_dir);
    journal.save().await?;
    turn.give_back().await?;
    for (work, maintained) in whole.tables()? {
        Box::pin(work.erase(&maintained, &mut journal)).await?;
    }
    for (name, short) in whole.subject.names() {
        let key = env.keys.key(name).await?;
        if key.has_subject(short).await? {
            let object = key.destroy_subject(short).await?;
            journal.report().keys.insert(object);
        }
    }
    journal.report().ended = env.clock.now();
    journal.save().await?;
    let certificate = Certificate::new(journal.report(), seed)?;
    Ok((journal.close(Some(&certificate)).await?, certificate))
}

/// What a terminal sees of looking through something, byte by byte.
fn progress(env: &Env, what: &str) -> Progress {
    if env.bars { Progress::of(what, 0) } else { Progress::quiet() }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let did = if self.dry_run { "would lose" } else { "lost" };
        let sealed = "hold something sealed that no key opens; they were looked through as they are";
        for (pipeline, raw) in &self.raw {
            let RawErased { objects, rewritten, records, unopened, .. } = raw;
            writeln!(f, "raw zone of {pipeline}: {records} records in {rewritten} of {objects} objects {did} values")?;
            if *unopened > 0 {
                writeln!(f, "  {unopened} records {sealed}")?;
            }
        }
        for (table, erased) in &self.tables {
            let TableErased { rows, files, snapshots, deleted, orphans, young, left, elsewhere, unopened, foreign } =
                erased;
            write!(f, "{table}: {rows} rows in {files} files {did} values")?;
            if *unopened > 0 {
                write!(f, "; {unopened} rows {sealed}")?;
            }
            if self.dry_run {
                writeln!(f, "; {snapshots} older snapshots would go")?;
                say_foreign(f, foreign)?;
                continue;
            }
            writeln!(f, "; {snapshots} older snapshots and {} files are gone", deleted + orphans)?;
            if *young > 0 {
                writeln!(f, "  {young} young files that nothing names stay; erase again when they are old")?;
            }
            if *left > 0 {
                writeln!(f, "  {left} files that nothing names could not be deleted; erase again")?;
            }
            for place in elsewhere {
                writeln!(f, "  files that nothing names were not looked for in {place}")?;
            }
            say_foreign(f, foreign)?;
        }
        if !self.dry_run {
            let spilled = self.spilled;
            writeln!(
                f,
                "temporary files: {spilled} directories of dead runs removed here; other machines were not looked at"
            )?;
        }
        for topic in &self.unread {
            writeln!(f, "raw zone of {topic}: no pipeline reads it, so it was not looked through")?;
        }
        for key in &self.unknown_keys {
            writeln!(
                f,
                "key {key} has sealed values and is not in firn.yaml; subjects' keys of that name were not looked for"
            )?;
        }
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

fn say_foreign(f: &mut fmt::Formatter<'_>, columns: &[String]) -> fmt::Result {
    if columns.is_empty() {
        return Ok(());
    }
    writeln!(f, "  columns that the pipeline does not have stay as they are: {}", columns.join(", "))
}
