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

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use firn_shared::config::domain::{Output, Pipeline, Protect, Protection};
use firn_shared::config::protected::protected;
use firn_shared::crypto::KeyBytes;
use firn_shared::crypto::erase::{Eraser, Subject};
use firn_shared::crypto::payload::Protected;
use firn_shared::error::{Error, Result};
use firn_shared::ids::{KeyName, Offset, PipelineName, RunId};
use iceberg::TableIdent;
use serde::{Deserialize, Serialize};

use crate::maintain;
use crate::run::{Env, Target};
pub use certificate::{Certificate, public_key, verify};
use journal::Journal;
use turn::Turn;

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
}

impl Report {
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
    for (pipeline, eraser) in whole.pipelines()? {
        raw::Work::new(env, pipeline, eraser, whole.run).await?.erase(None, &mut journal, &mut looked).await?;
    }
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
    for (pipeline, eraser) in whole.pipelines()? {
        let work = raw::Work::new(env, pipeline, eraser, whole.run).await?;
        work.erase(Some(&mut turn), &mut journal, &mut looked).await?;
    }
    for target in &whole.targets {
        if is_erasable(target.output) {
            tables::mark(env, &target.definition(), whole.run).await?;
        }
        tables::mark(env, &target.quarantine()?, whole.run).await?;
    }
    journal.report().raw_removed += raw::sweep(env, &mut turn, &looked).await?;
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

/// Whether a table has values that go with a subject.
fn is_erasable(output: &Output) -> bool {
    output.table.protections.iter().any(Protection::is_erasable)
}

/// Everything that one erasure is about.
struct Whole<'a> {
    env: &'a Env,
    run: RunId,
    subject: Subject,
    /// Tables of pipelines in whose records values go: of some the quarantine alone, which holds whole records.
    targets: Vec<Target<'a>>,
}

impl<'a> Whole<'a> {
    async fn of(env: &'a Env, subject: &str) -> Result<Self> {
        let mut targets = Target::select(&env.config, None, None)?;
        targets.retain(|target| target.pipeline.outputs.iter().any(is_erasable));
        if targets.is_empty() {
            return Err(Error::config(
                "no table has a protected column with a `subject`, so nobody's data can be told apart; add `subject` to `piiColumns`",
            ));
        }
        if subject.is_empty() {
            return Err(Error::config("the subject is empty"));
        }
        for target in &targets {
            let table = is_erasable(target.output).then(|| target.ident());
            for ident in table.into_iter().chain([target.quarantine()?.ident]) {
                if let Some(table) = env.catalog.load(&ident).await? {
                    snapshots::check(&table)?;
                }
            }
        }
        // Everything that may stand for the subject, in whichever of the tables: tokens of its keys, and hashes of columns.
        let protected: Vec<Protected> = targets.iter().flat_map(|target| protected(target.output)).collect();
        let (mut names, mut hashed) = (BTreeSet::new(), BTreeSet::new());
        for Protected { protection, column, .. } in &protected {
            let Some(key) = &protection.key else { continue };
            if protection.how == Protect::Hash {
                hashed.insert((key.clone(), column.clone()));
            }
            if protection.is_erasable() || protection.token || matches!(protection.how, Protect::Token | Protect::Hash)
            {
                names.insert(key.clone());
            }
        }
        let subject = Subject::new(subject, &env.keys, &names, &hashed).await?;
        Ok(Self { env, run: RunId::new(), subject, targets })
    }

    fn report(&self) -> Report {
        let mut report = Report { began: self.env.clock.now(), ..Report::default() };
        for (key, short) in self.subject.names() {
            report.subject.entry(key.clone()).or_insert_with(|| short.clone());
        }
        report
    }

    /// What takes the subject out of records of a pipeline.
    fn eraser(&self, pipeline: &Pipeline) -> Result<Eraser> {
        let protected: Vec<Protected> = pipeline.outputs.iter().flat_map(protected).collect();
        Eraser::new(self.subject.clone(), &protected)
    }

    /// The pipelines of the tables, once each, with what finds the subject in their payloads.
    fn pipelines(&self) -> Result<Vec<(&'a Pipeline, Eraser)>> {
        let mut out: Vec<(&Pipeline, Eraser)> = Vec::new();
        for pipeline in self.targets.iter().map(|target| target.pipeline) {
            if out.iter().all(|(known, _)| known.name != pipeline.name) {
                out.push((pipeline, self.eraser(pipeline)?));
            }
        }
        Ok(out)
    }

    /// The tables, each quarantine first, as a run commits them.
    fn tables(&self) -> Result<Vec<(tables::Work<'a>, maintain::Subject)>> {
        let mut out = Vec::new();
        let (env, run) = (self.env, self.run);
        for target in &self.targets {
            let eraser = self.eraser(target.pipeline)?;
            let rejects: Arc<dyn rows::Erase> = Arc::new(rows::Rejects::new(eraser, Arc::clone(&env.keys)));
            let matching: Arc<dyn rows::Erase> = Arc::new(rows::Matching::new(target.output, &self.subject));
            for maintained in maintain::Subject::of(target)?.into_iter().rev() {
                let ident = maintained.ident.clone();
                let is_table = ident == target.ident();
                if is_table && !is_erasable(target.output) {
                    continue;
                }
                let erase = Arc::clone(if is_table { &matching } else { &rejects });
                out.push((tables::Work { env, run, ident, erase }, maintained));
            }
        }
        Ok(out)
    }
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
            let TableErased { rows, files, snapshots, deleted, orphans, young, left, elsewhere, unopened } = erased;
            write!(f, "{table}: {rows} rows in {files} files {did} values")?;
            if *unopened > 0 {
                write!(f, "; {unopened} rows {sealed}")?;
            }
            if self.dry_run {
                writeln!(f, "; {snapshots} older snapshots would go")?;
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
        }
        if self.resumed > 0 {
            writeln!(f, "interrupted and gone on with {} times", self.resumed)?;
        }
        let keys = if self.dry_run { "would be destroyed" } else { "destroyed" };
        write!(f, "{} keys {keys}", self.keys.len())
    }
}
