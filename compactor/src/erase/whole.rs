//! Everything that one erasure is about: the subject under all names, and the tables and topics that may hold their values.
//!
//! What a pipeline says today is not all: tables say which columns runs have protected, and which topics they have read.

use std::collections::BTreeSet;
use std::sync::Arc;

use firn_shared::config::Config;
use firn_shared::config::domain::{PathStep, Pipeline, Protect};
use firn_shared::config::protected::protected;
use firn_shared::crypto::Erasable;
use firn_shared::crypto::erase::{Eraser, Naming, Subject};
use firn_shared::crypto::payload::Protected;
use firn_shared::error::{Error, Result};
use firn_shared::ids::{PipelineName, RunId, TopicRef};
use firn_shared::raw::chain::catalog;
use iceberg::TableIdent;

use super::forgotten::{self, Forgotten};
use super::held::{Held, Owner, Pass, Refused};
use super::leave::Leave;
use super::raw::Looked;
use super::{Report, deletes, rows, snapshots, tables};
use crate::maintain;
use crate::plan::read::topics;
use crate::run::{Env, Target};
use crate::table::create::Definition;

/// Everything that one erasure is about.
pub struct Whole<'a> {
    env: &'a Env,
    pub run: RunId,
    pub subject: Subject,
    /// Tables with something that goes with a subject.
    held: Vec<Held<'a>>,
    /// Quarantines of whole records in which values go.
    refused: Vec<Refused<'a>>,
    leave: Leave,
    report: Report,
}

impl<'a> Whole<'a> {
    /// Of the subject with this text; `leave` names columns that stay.
    pub async fn of(env: &'a Env, subject: &str, leave: &[String]) -> Result<Self> {
        if subject.is_empty() {
            return Err(Error::config("the subject is empty"));
        }
        let mut known: BTreeSet<TableIdent> = BTreeSet::new();
        for target in Target::select(&env.config, None, None)? {
            known.extend([target.ident(), target.quarantine()?.ident]);
        }
        let Forgotten { held: more, refused: more_refused, databases, unlisted, passed } =
            forgotten::find(env, &known).await?;
        let (mut held, mut refused) = (Vec::new(), Vec::new());
        for pipeline in env.config.pipelines.values() {
            let (tables, quarantines) = of_pipeline(env, pipeline).await?;
            held.extend(tables);
            refused.extend(quarantines);
        }
        held.extend(more);
        refused.extend(more_refused);
        held.retain(|of| !of.erasable.is_empty());
        if held.is_empty() {
            return Err(Error::config(
                "no table has a protected column with a `subject`, so nobody's data can be told apart; add `subject` to `piiColumns`",
            ));
        }
        refused.retain(|of| !erasable_in(&held, of).is_empty());
        let all = held.iter().map(|of| (&of.ident, of.target, &of.table));
        let all: Vec<_> = all.chain(refused.iter().map(|of| (&of.ident, of.target, &of.table))).collect();
        for table in all.iter().filter_map(|(_, _, table)| table.as_ref()) {
            snapshots::check(table)?;
        }
        let forgotten = all.iter().filter(|(_, target, _)| target.is_none()).map(|(ident, _, _)| ident.to_string());
        let mut report = Report {
            began: env.clock.now(),
            forgotten: forgotten.collect(),
            databases,
            unlisted,
            passed,
            ..Report::default()
        };
        let leave = Leave::parse(leave, &held)?;
        leave.check(&held)?;
        for of in &held {
            if let Some(table) = &of.table {
                let gone = of.erasable.iter().flat_map(|one| one.columns.iter().cloned());
                let gone: Vec<_> = gone.filter(|path| !leave.has(&of.ident, path)).collect();
                deletes::check(env, table, &gone).await?;
            }
        }
        for table in refused.iter().filter_map(|of| of.table.as_ref()) {
            let payload = vec![PathStep::Field(rows::PAYLOAD.to_owned())];
            deletes::check(env, table, &[payload]).await?;
        }
        let subject = self::subject(env, &held, subject, &mut report).await?;
        for (key, short) in subject.names() {
            report.subject.entry(key.clone()).or_insert_with(|| short.clone());
        }
        Ok(Self { env, run: RunId::new(), subject, held, refused, leave, report })
    }

    /// What is known before anything is looked at.
    pub fn report(&self) -> Report {
        self.report.clone()
    }

    /// What of the tables is not looked at.
    pub fn say(&self, report: &mut Report) {
        let Report { unknown_keys, forgotten, databases, unlisted, passed, .. } = self.report();
        (report.unknown_keys, report.forgotten, report.databases) = (unknown_keys, forgotten, databases);
        (report.unlisted, report.passed) = (unlisted, passed);
        for of in &self.held {
            let (foreign, spared) = (of.foreign(), self.leave.of(&of.ident));
            let unknown: BTreeSet<_> = of.erasable.iter().filter_map(|one| one.key.clone()).collect();
            let unknown: BTreeSet<_> = unknown.intersection(&report.unknown_keys).cloned().collect();
            if !(foreign.is_empty() && spared.is_empty() && unknown.is_empty()) {
                let told = report.table(&of.ident);
                (told.foreign, told.spared, told.unknown_keys) = (foreign, spared, unknown);
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

    /// What of the raw zone is looked through, each topic once, for whatever any table protects of its records.
    pub fn passes(&self) -> Result<Vec<Pass>> {
        let mut passes: Vec<Pass> = Vec::new();
        let mut taken: BTreeSet<&TopicRef> = BTreeSet::new();
        for of in &self.held {
            let owner = match of.pipeline() {
                Some(name) => Owner::Pipeline(name.clone()),
                None => Owner::Table(of.ident.to_string()),
            };
            let at = passes.iter().position(|pass| pass.owner == owner).unwrap_or_else(|| {
                passes.push(Pass { owner, topics: Vec::new() });
                passes.len() - 1
            });
            for topic in of.topics.iter().filter(|topic| taken.insert(*topic)) {
                let values = self.held.iter().filter(|of| of.topics.contains(topic)).flat_map(|of| &of.erasable);
                passes[at].topics.push((topic.clone(), Arc::new(Eraser::new(self.subject.clone(), values)?)));
            }
        }
        Ok(passes)
    }

    /// The tables that a run may be about to write to, as their pipelines define them.
    pub fn definitions(&self) -> Result<Vec<(TableIdent, Option<Definition>)>> {
        let mut out = Vec::new();
        for of in &self.held {
            out.push((of.ident.clone(), of.target.map(|target| target.definition())));
        }
        for of in &self.refused {
            out.push((of.ident.clone(), of.target.map(|target| target.quarantine()).transpose()?));
        }
        Ok(out)
    }

    /// The tables, quarantines first, as runs commit them.
    pub fn tables(&self) -> Result<Vec<(tables::Work<'a>, maintain::Subject)>> {
        let mut out = Vec::new();
        let (env, run) = (self.env, self.run);
        for of in &self.refused {
            let eraser = Eraser::new(self.subject.clone(), erasable_in(&self.held, of))?;
            let erase: Arc<dyn rows::Erase> = Arc::new(rows::Rejects::new(eraser, Arc::clone(&env.keys)));
            out.push((
                tables::Work { env, run, ident: of.ident.clone(), erase },
                self.maintained(&of.ident, of.target)?,
            ));
        }
        for of in &self.held {
            let stays = |path: &[_]| self.leave.has(&of.ident, path);
            let matching = rows::Matching::new(&of.erasable, &self.subject, |name| of.naming(name), stays);
            let erase: Arc<dyn rows::Erase> = Arc::new(matching);
            out.push((
                tables::Work { env, run, ident: of.ident.clone(), erase },
                self.maintained(&of.ident, of.target)?,
            ));
        }
        Ok(out)
    }

    /// How orphans of a table are looked for.
    fn maintained(&self, ident: &TableIdent, target: Option<Target<'_>>) -> Result<maintain::Subject> {
        let mut found = match target {
            Some(target) => maintain::Subject::of(&target)?.into_iter().find(|of| of.ident == *ident),
            None => None,
        }
        .map_or_else(|| forgotten::maintained(&self.env.config, ident), Ok)?;
        let forgotten = self.held.iter().filter(|of| of.target.is_none()).map(|of| (&of.ident, &of.table));
        let refused = self.refused.iter().filter(|of| of.target.is_none()).map(|of| (&of.ident, &of.table));
        let others = forgotten.chain(refused).filter(|(other, _)| *other != ident);
        found.others.extend(others.filter_map(|(_, table)| Some(table.as_ref()?.metadata().location().to_owned())));
        Ok(found)
    }
}

/// The tables of a pipeline and their quarantines, all of them with the topics that it reads and that any of them has read.
async fn of_pipeline<'a>(env: &'a Env, pipeline: &'a Pipeline) -> Result<(Vec<Held<'a>>, Vec<Refused<'a>>)> {
    let target = |output| Target { config: &env.config, pipeline, output };
    let mut held = Vec::new();
    for output in &pipeline.outputs {
        held.push(Held::of(env, target(output)).await?);
    }
    let mut all: BTreeSet<TopicRef> = topics(&*env.raw().await?, &pipeline.ingestion).await?.into_iter().collect();
    all.extend(held.iter().flat_map(|of| of.topics.iter().cloned()));
    let mut refused = Vec::new();
    for (of, output) in held.iter_mut().zip(&pipeline.outputs) {
        of.topics.clone_from(&all);
        refused.push(Refused::of(env, target(output), all.clone()).await?);
    }
    Ok((held, refused))
}

/// What goes with a subject of the records in a quarantine: whatever a table protects that is made of the same topics, or of
/// the same pipeline; of records that nobody knows the topics of, whatever any table does.
fn erasable_in<'h>(held: &'h [Held<'_>], refused: &Refused<'_>) -> BTreeSet<&'h Erasable> {
    let pipeline: Option<&PipelineName> = refused.target.map(|target| &target.pipeline.name);
    let shares = |of: &&Held<'_>| {
        refused.topics.as_ref().is_none_or(|topics| !topics.is_disjoint(&of.topics))
            || pipeline.is_some() && of.pipeline() == pipeline
    };
    held.iter().filter(shares).flat_map(|of| &of.erasable).collect()
}

/// The subject under everything that may stand for it, in whichever of the tables: tokens of its keys, and hashes of columns.
async fn subject(env: &Env, held: &[Held<'_>], subject: &str, report: &mut Report) -> Result<Subject> {
    let recorded = held.iter().flat_map(|of| &of.erasable).map(|one| one.naming);
    let namings: BTreeSet<Naming> = namings(&env.config).into_iter().chain(recorded).collect();
    let number = Naming::Number.canonical(subject);
    if number != subject && namings.contains(&Naming::Number) {
        if namings.len() == 1 {
            tracing::info!("columns of subjects are whole numbers: the subject is looked for as one, in plain digits");
        } else {
            tracing::warn!("columns of whole numbers write this subject in other digits, as a number; erase that, too");
        }
    }
    // `0042` and `42.0` are `42` where all columns of subjects are whole numbers.
    let written = if namings.len() == 1 && namings.contains(&Naming::Number) { number } else { subject.into() };
    let (mut names, mut hashed) = (BTreeSet::new(), BTreeSet::new());
    let outputs = held.iter().filter_map(|of| of.target).flat_map(|target| &target.pipeline.outputs);
    for Protected { protection, column, .. } in outputs.flat_map(protected) {
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
    // How a column was protected that says whose values these are, nobody knows any more: by any of the keys.
    for of in held.iter().filter(|of| of.target.is_none()) {
        names.extend(env.keys.names().cloned());
        let subjects = of.erasable.iter().map(|one| format!("{}.{}", of.ident, one.subject));
        hashed.extend(subjects.flat_map(|column| env.keys.names().map(move |key| (key.clone(), column.clone()))));
    }
    Subject::new(&written, &env.keys, &names, &hashed).await
}

/// How columns of subjects write them.
fn namings(config: &Config) -> Vec<Naming> {
    let protected = config.pipelines.values().flat_map(|pipeline| pipeline.outputs.iter().flat_map(protected));
    protected.filter(|one| one.protection.is_erasable()).map(|one| one.naming).collect()
}
