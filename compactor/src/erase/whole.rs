//! Everything that one erasure is about: the subject under all names, and the tables and topics that may hold their values.
//!
//! What a pipeline says today is not all: tables say which columns runs have protected, and which topics they have read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use firn_shared::config::domain::{Pipeline, Protect};
use firn_shared::config::protected::protected;
use firn_shared::config::{Config, columns_after};
use firn_shared::crypto::Erasable;
use firn_shared::crypto::erase::{Eraser, Naming, Subject};
use firn_shared::crypto::payload::Protected;
use firn_shared::error::{Error, Result};
use firn_shared::ids::{RunId, TopicRef};
use firn_shared::raw::chain::catalog;
use iceberg::spec::{PrimitiveType, Type};
use iceberg::table::Table;

use super::raw::{Looked, Parts};
use super::{Report, rows, snapshots, tables};
use crate::maintain;
use crate::plan::read::topics;
use crate::run::{Env, Target};
use crate::table::create::Definition;
use crate::table::{erasable, offsets};

/// Everything that one erasure is about.
pub struct Whole<'a> {
    env: &'a Env,
    pub run: RunId,
    pub subject: Subject,
    /// Tables of pipelines in whose records values go: of some the quarantine alone, which holds whole records.
    held: Vec<Held<'a>>,
    report: Report,
}

/// A table, and what of it and of its records goes with a subject.
struct Held<'a> {
    target: Target<'a>,
    table: Option<Table>,
    erasable: BTreeSet<Erasable>,
}

impl<'a> Held<'a> {
    async fn of(env: &Env, target: Target<'a>) -> Result<Self> {
        let table = env.catalog.load(&target.ident()).await?;
        let mut erasable = erasable::of(target.output);
        if let Some(table) = &table {
            erasable.extend(erasable::recorded(table)?);
        }
        Ok(Self { target, table, erasable })
    }

    /// The topics that the table has read.
    fn read(&self) -> Result<BTreeSet<TopicRef>> {
        let Some(table) = &self.table else { return Ok(BTreeSet::new()) };
        let state = offsets::current(table.metadata())?.unwrap_or_default();
        Ok(state.position.iter().map(|(partition, _)| partition.topic).collect())
    }

    /// How a column of the table names a subject; `None` when there is no such column.
    fn naming(&self, name: &str) -> Option<Naming> {
        let Some(table) = &self.table else {
            let columns = columns_after(self.target.output);
            return columns.iter().find(|column| column.name == name).map(|column| Naming::of(&column.r#type));
        };
        let field = table.metadata().current_schema().as_struct().field_by_name(name)?;
        Some(match *field.field_type {
            Type::Primitive(PrimitiveType::Int | PrimitiveType::Long) => Naming::Number,
            Type::Primitive(PrimitiveType::Uuid) => Naming::Uuid,
            _ => Naming::Text,
        })
    }

    /// Columns that neither the pipeline has nor a run has protected.
    fn foreign(&self) -> Vec<String> {
        let Some(table) = &self.table else { return Vec::new() };
        let ours: BTreeSet<String> = self.target.columns().into_iter().map(|column| column.name).collect();
        let protected = rows::columns(&self.erasable);
        let all = table.metadata().current_schema().as_struct().fields().iter().map(|field| field.name.clone());
        all.filter(|name| !ours.contains(name) && !protected.contains(name)).collect()
    }
}

impl<'a> Whole<'a> {
    pub async fn of(env: &'a Env, subject: &str) -> Result<Self> {
        let mut held = Vec::new();
        for target in Target::select(&env.config, None, None)? {
            held.push(Held::of(env, target).await?);
        }
        let pipelines: BTreeSet<_> =
            held.iter().filter(|of| !of.erasable.is_empty()).map(|of| of.target.pipeline.name.clone()).collect();
        held.retain(|of| pipelines.contains(&of.target.pipeline.name));
        if held.is_empty() {
            return Err(Error::config(
                "no table has a protected column with a `subject`, so nobody's data can be told apart; add `subject` to `piiColumns`",
            ));
        }
        if subject.is_empty() {
            return Err(Error::config("the subject is empty"));
        }
        for of in &held {
            if let Some(table) = of.table.as_ref().filter(|_| !of.erasable.is_empty()) {
                snapshots::check(table)?;
            }
            if let Some(table) = env.catalog.load(&of.target.quarantine()?.ident).await? {
                snapshots::check(&table)?;
            }
        }
        let mut report = Report { began: env.clock.now(), ..Report::default() };
        let subject = self::subject(env, &held, subject, &mut report).await?;
        for (key, short) in subject.names() {
            report.subject.entry(key.clone()).or_insert_with(|| short.clone());
        }
        Ok(Self { env, run: RunId::new(), subject, held, report })
    }

    /// What is known before anything is looked at.
    pub fn report(&self) -> Report {
        self.report.clone()
    }

    /// What of the tables is not looked at.
    pub fn say(&self, report: &mut Report) {
        report.unknown_keys.clone_from(&self.report.unknown_keys);
        for of in self.held.iter().filter(|of| !of.erasable.is_empty()) {
            let foreign = of.foreign();
            if !foreign.is_empty() {
                report.table(&of.target.ident()).foreign = foreign;
            }
        }
    }

    /// Topics of the raw zone that no pipeline reads and no table of these has read.
    pub async fn unread(&self, looked: &Looked) -> Result<BTreeSet<String>> {
        let store = self.env.raw().await?;
        let mut known: BTreeSet<(String, String)> = BTreeSet::new();
        let name = |of: TopicRef| (of.cluster.to_string(), of.topic.to_string());
        known.extend(looked.topics().cloned().map(name));
        for pipeline in self.env.config.pipelines.values() {
            known.extend(topics(&*store, &pipeline.ingestion).await?.into_iter().map(name));
        }
        let mut unread = BTreeSet::new();
        for cluster in self.env.config.deployment.clusters.keys() {
            for topic in catalog::topics(&*store, cluster).await? {
                if !known.contains(&(cluster.to_string(), topic.to_string())) {
                    unread.insert(format!("{cluster}/{topic}"));
                }
            }
        }
        Ok(unread)
    }

    /// What takes the subject out of records of a pipeline, whichever of its tables has protected them.
    fn eraser(&self, pipeline: &Pipeline) -> Result<Eraser> {
        let of_pipeline = self.held.iter().filter(|of| of.target.pipeline.name == pipeline.name);
        Eraser::new(self.subject.clone(), of_pipeline.flat_map(|of| &of.erasable))
    }

    /// The pipelines of the tables, once each, with what is to be looked through and what finds the subject there.
    pub fn pipelines(&self) -> Result<Vec<(&'a Pipeline, Parts)>> {
        let mut found: BTreeMap<_, (&Pipeline, BTreeSet<TopicRef>)> = BTreeMap::new();
        for of in &self.held {
            let (_, read) = found.entry(&of.target.pipeline.name).or_insert((of.target.pipeline, BTreeSet::new()));
            read.extend(of.read()?);
        }
        let parts = |(pipeline, read): (&'a Pipeline, _)| {
            Ok((pipeline, Parts { eraser: Arc::new(self.eraser(pipeline)?), read }))
        };
        found.into_values().map(parts).collect()
    }

    /// The tables that a run may be about to write to.
    pub fn definitions(&self) -> Result<Vec<Definition>> {
        let mut out = Vec::new();
        for of in &self.held {
            if !of.erasable.is_empty() {
                out.push(of.target.definition());
            }
            out.push(of.target.quarantine()?);
        }
        Ok(out)
    }

    /// The tables, each quarantine first, as a run commits them.
    pub fn tables(&self) -> Result<Vec<(tables::Work<'a>, maintain::Subject)>> {
        let mut out = Vec::new();
        let (env, run) = (self.env, self.run);
        for of in &self.held {
            let eraser = self.eraser(of.target.pipeline)?;
            let rejects: Arc<dyn rows::Erase> = Arc::new(rows::Rejects::new(eraser, Arc::clone(&env.keys)));
            let matching = rows::Matching::new(&of.erasable, &self.subject, &|name| of.naming(name));
            let matching: Arc<dyn rows::Erase> = Arc::new(matching);
            for maintained in maintain::Subject::of(&of.target)?.into_iter().rev() {
                let ident = maintained.ident.clone();
                let is_table = ident == of.target.ident();
                if is_table && of.erasable.is_empty() {
                    continue;
                }
                let erase = Arc::clone(if is_table { &matching } else { &rejects });
                out.push((tables::Work { env, run, ident, erase }, maintained));
            }
        }
        Ok(out)
    }
}

/// The subject under everything that may stand for it, in whichever of the tables: tokens of its keys, and hashes of columns.
async fn subject(env: &Env, held: &[Held<'_>], subject: &str, report: &mut Report) -> Result<Subject> {
    let written = as_written(&env.config, subject);
    if namings(&env.config).contains(&Naming::Number) && Naming::Number.canonical(&written) != written {
        tracing::warn!("columns of whole numbers write this subject in other digits, as a number; erase that, too");
    }
    let (mut names, mut hashed) = (BTreeSet::new(), BTreeSet::new());
    for Protected { protection, column, .. } in held.iter().flat_map(|of| protected(of.target.output)) {
        let Some(key) = &protection.key else { continue };
        if protection.how == Protect::Hash {
            hashed.insert((key.clone(), column.clone()));
        }
        if protection.is_erasable() || protection.token || matches!(protection.how, Protect::Token | Protect::Hash) {
            names.insert(key.clone());
        }
    }
    for key in held.iter().flat_map(|of| &of.erasable).filter_map(|of| of.key.clone()) {
        if env.keys.names().any(|known| *known == key) {
            names.insert(key);
        } else {
            report.unknown_keys.insert(key);
        }
    }
    Subject::new(&written, &env.keys, &names, &hashed).await
}

/// How columns write this subject: `0042` and `42.0` are `42` where all columns of subjects are whole numbers.
#[must_use]
pub fn as_written(config: &Config, subject: &str) -> String {
    if namings(config).iter().all(|naming| *naming == Naming::Number) {
        return Naming::Number.canonical(subject).into_owned();
    }
    subject.to_owned()
}

/// How columns of subjects write them.
fn namings(config: &Config) -> Vec<Naming> {
    let protected = config.pipelines.values().flat_map(|pipeline| pipeline.outputs.iter().flat_map(protected));
    protected.filter(|one| one.protection.is_erasable()).map(|one| one.naming).collect()
}
