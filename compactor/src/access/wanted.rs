//! The permissions that roles ask for, over the tables and columns that the pipelines make.
//!
//! Columns are granted by name: one that a table gets later is not readable before somebody has looked at it, which the
//! next grants do. Only `personal: true` without a list of columns gives a whole table.

use std::collections::{BTreeMap, BTreeSet};

use firn_shared::config::access::{Columns, Reads};
use firn_shared::config::domain::Output;
use firn_shared::config::{Config, columns_after};
use firn_shared::error::{Error, Result};

use super::{Names, Permissions, Resource};
use crate::{provenance, quarantine};

/// What one principal may read of one table; `None` is all of it.
type Share = Option<BTreeSet<String>>;
/// Shares by principal, database and table.
type Shares = BTreeMap<(String, String, String), Share>;

/// The databases of all pipelines.
#[must_use]
pub fn databases(config: &Config) -> BTreeSet<String> {
    outputs(config).map(|output| output.table.database.to_string()).collect()
}

/// The principals of all roles.
#[must_use]
pub fn principals(config: &Config) -> BTreeSet<String> {
    let roles = config.deployment.access.iter().flat_map(|access| access.roles.values());
    roles.flat_map(|role| role.principals.iter().cloned()).collect()
}

fn outputs(config: &Config) -> impl Iterator<Item = &Output> {
    config.pipelines.values().flat_map(|pipeline| &pipeline.outputs)
}

/// The permissions that the roles ask for; those of a principal in several roles add up.
///
/// # Errors
/// `Config` when there are no roles, and with every place where one names a database, table or column that no pipeline
/// has, or personal data without saying so.
pub fn wanted(config: &Config) -> Result<Permissions> {
    let access = config.deployment.access.as_ref();
    let access = access.ok_or_else(|| Error::config("firn.yaml has no `access`; write who reads what there"))?;
    let (mut shares, mut wrong) = (Shares::new(), Vec::new());
    for (name, role) in &access.roles {
        for (i, reads) in role.reads.iter().enumerate() {
            for (part, found) in expand(config, reads) {
                match found {
                    Ok((table, share)) => {
                        for principal in &role.principals {
                            let key = (principal.clone(), reads.database.clone(), table.clone());
                            shares
                                .entry(key)
                                .and_modify(|held| add(held, share.as_ref()))
                                .or_insert_with(|| share.clone());
                        }
                    }
                    Err(why) => {
                        let inner = if part.is_empty() { String::new() } else { format!(".{part}") };
                        wrong.push(format!("{}: access.roles.{name}.reads[{i}]{inner}: {why}", reads.place(&part)));
                    }
                }
            }
        }
    }
    if wrong.is_empty() { Ok(permissions(shares)) } else { Err(Error::config(wrong.join("\n"))) }
}

fn add(held: &mut Share, more: Option<&BTreeSet<String>>) {
    match (held.as_mut(), more) {
        (Some(held), Some(more)) => held.extend(more.iter().cloned()),
        _ => *held = None,
    }
}

fn permissions(shares: Shares) -> Permissions {
    let mut wanted = Permissions::new();
    let mut grant = |principal: &str, resource: Resource, permission: &str| {
        wanted.entry((principal.to_owned(), resource)).or_default().insert(permission.to_owned());
    };
    for ((principal, database, table), share) in shares {
        // Engines look at a table before they read it, and at its database before that.
        grant(&principal, Resource::Database { database: database.clone() }, "DESCRIBE");
        grant(&principal, Resource::Table { database: database.clone(), table: table.clone() }, "DESCRIBE");
        let readable = match share {
            None => Resource::Table { database, table },
            Some(names) => Resource::Columns { database, table, columns: Names::Only(names) },
        };
        grant(&principal, readable, "SELECT");
    }
    wanted
}

/// A table and what of it is meant, or what is wrong, with the part of the entry that it is about.
type Found = (String, Result<(String, Share), String>);

/// What one entry of a role means.
fn expand(config: &Config, reads: &Reads) -> Vec<Found> {
    let here: Vec<&Output> =
        outputs(config).filter(|output| output.table.database.as_str() == reads.database).collect();
    if here.is_empty() {
        let known = databases(config).into_iter().collect::<Vec<_>>().join(", ");
        return vec![(
            "database".to_owned(),
            Err(format!("no pipeline fills a table of `{}`, but of {known}", reads.database)),
        )];
    }
    let Some(tables) = &reads.tables else {
        let nowhere = named(&reads.columns)
            .iter()
            .enumerate()
            .filter(|(_, name)| !here.iter().any(|output| names(output).contains(*name)));
        let mut found: Vec<Found> = nowhere
            .map(|(i, name)| {
                (list_part(&reads.columns, i), Err(format!("no table of {} has a column `{name}`", reads.database)))
            })
            .collect();
        if found.is_empty() {
            found.extend(
                here.into_iter()
                    .filter_map(|output| share(output, reads).transpose())
                    .map(|found| (String::new(), found)),
            );
        }
        return found;
    };
    let known = |name: &str| here.iter().copied().find(|output| output.table.name.as_str() == name);
    let mut found = Vec::new();
    for (i, table) in tables.iter().enumerate() {
        let part = format!("tables[{i}]");
        if let Some(output) = known(table) {
            let unknown = unknown(output, reads);
            if unknown.is_empty() {
                let nothing = || Err(format!("nothing is left of table {table} to read"));
                found.push((part, share(output, reads).and_then(|share| share.map_or_else(nothing, Ok))));
            }
            found.extend(unknown);
        } else if table.strip_suffix(quarantine::SUFFIX).and_then(known).is_some() {
            // Whole records are in it, so there is no part without personal data.
            let whole = reads.personal && named(&reads.columns).is_empty();
            let why = "holds whole records; give it an entry of its own with `personal: true` and no columns";
            found.push((part, if whole { Ok((table.clone(), None)) } else { Err(format!("{table} {why}")) }));
        } else {
            let all = here.iter().map(|output| output.table.name.as_str()).collect::<Vec<_>>().join(", ");
            found.push((part, Err(format!("no pipeline fills a table `{table}` of {}, but {all}", reads.database))));
        }
    }
    found
}

fn named(columns: &Columns) -> &[String] {
    let (Columns::Only(names) | Columns::AllBut(names)) = columns;
    names
}

fn list_part(columns: &Columns, index: usize) -> String {
    let list = match columns {
        Columns::Only(_) => "columns",
        Columns::AllBut(_) => "exclude",
    };
    format!("{list}[{index}]")
}

/// All columns of a table as it is written, in alphabetical order.
fn names(output: &Output) -> BTreeSet<String> {
    let provenance = output.table.provenance.then(|| provenance::COLUMN.to_owned());
    columns_after(output).into_iter().map(|column| column.name).chain(provenance).collect()
}

/// What an entry names that the table does not have.
fn unknown(output: &Output, reads: &Reads) -> Vec<Found> {
    let known = names(output);
    let listed = named(&reads.columns).iter().enumerate().filter(|(_, name)| !known.contains(*name));
    let why = |name: &str| Err(format!("table {} has no column `{name}`", output.table.name));
    listed.map(|(i, name)| (list_part(&reads.columns, i), why(name))).collect()
}

/// What an entry means for one table; `None` for a table that has none of it.
fn share(output: &Output, reads: &Reads) -> Result<Option<(String, Share)>, String> {
    let (table, known) = (output.table.name.to_string(), names(output));
    let protections = output.table.protections.iter().filter(|_| !reads.personal);
    let personal: BTreeSet<&str> = protections.map(|protection| protection.path.column.as_str()).collect();
    let share: BTreeSet<String> = match &reads.columns {
        Columns::AllBut(but) if but.is_empty() && reads.personal => return Ok(Some((table, None))),
        Columns::AllBut(but) => {
            known.into_iter().filter(|name| !but.contains(name) && !personal.contains(name.as_str())).collect()
        }
        Columns::Only(only) => {
            if let Some(name) = only.iter().find(|name| personal.contains(name.as_str())) {
                return Err(format!("column `{name}` of {table} is personal data; say `personal: true` to grant it"));
            }
            only.iter().filter(|name| known.contains(*name)).cloned().collect()
        }
    };
    Ok((!share.is_empty()).then_some((table, Some(share))))
}
