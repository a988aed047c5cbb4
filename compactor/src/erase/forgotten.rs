//! Tables that no pipeline names any more and that Firn has written: a table's properties and snapshots say so.
//!
//! All databases of the catalog are looked into, those of the pipelines in any case. Another deployment may have its tables
//! in the same catalog, with other keys and other people under the same numbers: a table is taken for this deployment's when
//! it lies in the warehouse, or has read a topic that is in the raw zone. What is not looked at is said, with the reason.

use std::collections::{BTreeMap, BTreeSet};

use firn_shared::config::Config;
use firn_shared::error::{Error, ErrorKind, Result};
use firn_shared::ids::TopicRef;
use firn_shared::raw::chain::catalog;
use futures::{StreamExt, stream};
use iceberg::spec::{PrimitiveType, TableMetadata, Type};
use iceberg::table::Table;
use iceberg::{NamespaceIdent, TableIdent};

use super::held::{Held, Refused, read};
use super::tables::{FILE_BYTES, LEVEL};
use crate::maintain;
use crate::maintain::names::plain;
use crate::provenance;
use crate::quarantine::SUFFIX;
use crate::run::Env;
use crate::table::erasable;

/// Tables that are loaded at the same time.
const AT_ONCE: usize = 16;
/// Keys of table properties that are Firn's begin like that.
const OURS: &str = "firn.";

/// What was found beside the tables of the pipelines.
#[derive(Debug, Default)]
pub struct Forgotten {
    /// Tables with something that goes with a subject.
    pub held: Vec<Held<'static>>,
    /// Quarantine tables.
    pub refused: Vec<Refused<'static>>,
    /// Databases that were looked into.
    pub databases: BTreeSet<String>,
    /// Databases whose tables the catalog does not list, and what it says; `*` stands for those that no pipeline names.
    pub unlisted: BTreeMap<String, String>,
    /// Tables that were not looked at, and why.
    pub passed: BTreeMap<String, String>,
}

/// Looks for tables that are not `known`.
///
/// # Errors
/// `Config` when the tables of a pipeline's database cannot be listed; `Data` when what Firn has written down in a table is
/// broken; else those of catalog and stores.
pub async fn find(env: &Env, known: &BTreeSet<TableIdent>) -> Result<Forgotten> {
    let mut found = Forgotten::default();
    let mut strangers = Vec::new();
    for database in databases(env, known, &mut found).await? {
        strangers.extend(tables(env, &database, known, &mut found).await?);
    }
    let mut tables: BTreeMap<TableIdent, Table> = BTreeMap::new();
    let load = |ident: TableIdent| async move { (env.catalog.load(&ident).await, ident) };
    let mut loading =
        stream::iter(strangers.into_iter().filter(|ident| !known.contains(ident))).map(load).buffer_unordered(AT_ONCE);
    while let Some((loaded, ident)) = loading.next().await {
        match loaded {
            Ok(Some(table)) if is_firns(&table) => {
                tables.insert(ident, table);
            }
            Ok(_) => {}
            Err(e) if is_final(&e) => {
                found.passed.insert(ident.to_string(), format!("it cannot be read: {e}"));
            }
            Err(e) => return Err(e),
        }
    }
    drop(loading);
    sort(env, tables, &mut found).await?;
    Ok(found)
}

/// A table that no pipeline names, for those who look for orphans.
pub fn maintained(config: &Config, ident: &TableIdent) -> Result<maintain::Subject> {
    Ok(maintain::Subject {
        ident: ident.clone(),
        settings: config.deployment.compactor.maintenance.resolve(FILE_BYTES),
        zstd_level: LEVEL,
        keeps_last_load: false,
        remembers: false,
        others: maintain::places(config)?.into_iter().map(|(_, location)| location).collect(),
    })
}

/// Whether asking again would be no use.
fn is_final(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Config | ErrorKind::Data)
}

/// Those that pipelines name, and all others as far as the catalog tells.
async fn databases(env: &Env, known: &BTreeSet<TableIdent>, found: &mut Forgotten) -> Result<Vec<NamespaceIdent>> {
    let mut all: BTreeSet<NamespaceIdent> = known.iter().map(|ident| ident.namespace().clone()).collect();
    match env.catalog.databases().await {
        Ok(others) => all.extend(others),
        Err(e) if is_final(&e) => {
            tracing::warn!(error = %e, "databases that no pipeline names are not looked into");
            found.unlisted.insert("*".to_owned(), e.to_string());
        }
        Err(e) => return Err(e),
    }
    Ok(all.into_iter().collect())
}

async fn tables(
    env: &Env,
    database: &NamespaceIdent,
    known: &BTreeSet<TableIdent>,
    found: &mut Forgotten,
) -> Result<Vec<TableIdent>> {
    let name = database.to_url_string();
    match env.catalog.tables(database).await {
        Ok(tables) => {
            found.databases.insert(name);
            Ok(tables)
        }
        Err(e) if is_final(&e) && known.iter().any(|ident| ident.namespace() == database) => Err(Error::new(
            e.kind(),
            format!(
                "tables of {name} that no pipeline names any more may hold values of the subject, and {} does not list \
                 them; allow it, then erase: {e}",
                env.catalog.describe()
            ),
        )
        .with_source(e)),
        Err(e) if is_final(&e) => {
            tracing::warn!(database = name, error = %e, "a database that no pipeline names is not looked into");
            found.unlisted.insert(name, e.to_string());
            Ok(Vec::new())
        }
        Err(e) => Err(e),
    }
}

/// Tells what is to be erased from.
async fn sort(env: &Env, tables: BTreeMap<TableIdent, Table>, found: &mut Forgotten) -> Result<()> {
    let mut topics: BTreeMap<TableIdent, BTreeSet<TopicRef>> = BTreeMap::new();
    for (ident, table) in &tables {
        match read(table) {
            Ok(read) => {
                topics.insert(ident.clone(), read);
            }
            Err(e) if is_final(&e) && !is_in_warehouse(env, table) => {
                found.passed.insert(ident.to_string(), format!("what it has read cannot be told: {e}"));
            }
            Err(e) => return Err(e),
        }
    }
    for (ident, table) in tables {
        let beside = beside(&ident).filter(|_| is_quarantine(table.metadata()));
        let holds_records = beside.is_some();
        if found.passed.contains_key(&ident.to_string()) || !holds_records && !says_erasable(&table) {
            continue;
        }
        let read = topics.get(beside.as_ref().unwrap_or(&ident));
        if !is_here(env, &table, read).await? {
            let location = table.metadata().location();
            let why = format!(
                "it lies outside of the warehouse, at {location}, and the raw zone has none of its topics, so it is of \
                 another deployment: erase there"
            );
            found.passed.insert(ident.to_string(), why);
        } else if holds_records {
            let topics = read.filter(|topics| !topics.is_empty()).cloned();
            found.refused.push(Refused { ident, target: None, table: Some(table), topics });
        } else {
            found.held.push(Held::forgotten(table)?);
        }
    }
    Ok(())
}

/// Whether a run has written down that something goes with a subject, readable or not.
fn says_erasable(table: &Table) -> bool {
    table.metadata().properties().contains_key(erasable::PROPERTY)
}

/// Whether Firn has written a table: in its properties, in a summary, or as a quarantine.
fn is_firns(table: &Table) -> bool {
    let metadata = table.metadata();
    let mut summaries = metadata.snapshots().map(|snapshot| &snapshot.summary().additional_properties);
    metadata.properties().keys().any(|key| key.starts_with(OURS))
        || summaries.any(|summary| summary.keys().any(|key| key.starts_with(OURS)))
        || is_quarantine(metadata)
}

/// The table beside which a table stands as its quarantine, by its name.
fn beside(ident: &TableIdent) -> Option<TableIdent> {
    let name = ident.name().strip_suffix(SUFFIX)?;
    Some(TableIdent::new(ident.namespace().clone(), name.to_owned()))
}

/// Whether a table has what an erasure needs of a quarantine: whole records, and where they come from.
fn is_quarantine(metadata: &TableMetadata) -> bool {
    let schema = metadata.current_schema().as_struct();
    let payload = schema.field_by_name("payload").map(|field| field.field_type.as_ref());
    payload == Some(&Type::Primitive(PrimitiveType::Binary))
        && ["json_path", "reason", provenance::COLUMN].iter().all(|name| schema.field_by_name(name).is_some())
}

/// Whether a table is of this deployment.
async fn is_here(env: &Env, table: &Table, topics: Option<&BTreeSet<TopicRef>>) -> Result<bool> {
    if is_in_warehouse(env, table) {
        return Ok(true);
    }
    let raw = env.raw().await?;
    for topic in topics.into_iter().flatten() {
        if catalog::generations(&*raw, &topic.cluster, &topic.topic).await?.contains(&topic.generation) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_in_warehouse(env: &Env, table: &Table) -> bool {
    let warehouse = plain(&format!("{}/", env.config.deployment.warehouse));
    plain(table.metadata().location()).starts_with(&warehouse)
}
