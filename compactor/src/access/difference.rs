//! The steps from the permissions that there are to those that there shall be.
//!
//! Lake Formation's API tells neither whether a second list of columns for the same principal and table joins the first
//! nor what revoking a part of a list leaves (emulators keep each list by itself). The steps come out right either way:
//! columns are only ever added by a grant of exactly those, and when columns must go, every list on that table is
//! revoked as it was found, and what shall stay is granted anew.

use std::collections::{BTreeMap, BTreeSet};

use super::{Act, Names, Permissions, Resource, Step};

const SELECT: &str = "SELECT";

/// A principal, and a table by database and name.
type Of = (String, String, String);

/// The steps, those that take first. A second time there are none.
#[must_use]
pub fn difference(wanted: &Permissions, found: &Permissions) -> Vec<Step> {
    let (wanted, wanted_selects) = split(wanted);
    let (found, found_selects) = split(found);
    let mut revokes = missing(Act::Revoke, &found, &wanted);
    let mut grants = missing(Act::Grant, &wanted, &found);
    let none = BTreeSet::new();
    for of in wanted_selects.keys().chain(found_selects.keys()).collect::<BTreeSet<_>>() {
        let (want, have) = (wanted_selects.get(of).unwrap_or(&none), found_selects.get(of).unwrap_or(&none));
        let step = |act, resource: &Resource| {
            let permissions = BTreeSet::from([SELECT.to_owned()]);
            Step { act, principal: of.0.clone(), resource: resource.clone(), permissions }
        };
        match added(want, have) {
            _ if want == have => {}
            Some(added) if added.is_empty() => {}
            Some(added) => {
                let (database, table) = (of.1.clone(), of.2.clone());
                let columns = Resource::Columns { database, table, columns: Names::Only(added) };
                grants.push(step(Act::Grant, &columns));
            }
            None => {
                revokes.extend(have.iter().map(|resource| step(Act::Revoke, resource)));
                grants.extend(want.iter().map(|resource| step(Act::Grant, resource)));
            }
        }
    }
    revokes.append(&mut grants);
    revokes
}

/// The columns to be added, when lists of columns are all that there is and all that there shall be, and none must go.
fn added(want: &BTreeSet<Resource>, have: &BTreeSet<Resource>) -> Option<BTreeSet<String>> {
    let lists = |resources: &BTreeSet<Resource>| -> Option<BTreeSet<String>> {
        let lists: Option<Vec<_>> = resources
            .iter()
            .map(|resource| match resource {
                Resource::Columns { columns: Names::Only(names), .. } => Some(names.iter().cloned()),
                _ => None,
            })
            .collect();
        Some(lists?.into_iter().flatten().collect())
    };
    let (want, have) = (lists(want)?, lists(have)?);
    (!want.is_empty() && have.is_subset(&want)).then(|| want.difference(&have).cloned().collect())
}

/// Permissions to read tables or columns by what they are on, and all others.
fn split(permissions: &Permissions) -> (Permissions, BTreeMap<Of, BTreeSet<Resource>>) {
    let (mut others, mut selects) = (Permissions::new(), BTreeMap::<Of, BTreeSet<Resource>>::new());
    for ((principal, resource), names) in permissions {
        let mut names = names.clone();
        if let Resource::Table { database, table } | Resource::Columns { database, table, .. } = resource
            && names.remove(SELECT)
        {
            let of = (principal.clone(), database.clone(), table.clone());
            selects.entry(of).or_default().insert(resource.clone());
        }
        if !names.is_empty() {
            others.insert((principal.clone(), resource.clone()), names);
        }
    }
    (others, selects)
}

/// What `these` have that `those` do not.
fn missing(act: Act, these: &Permissions, those: &Permissions) -> Vec<Step> {
    let none = BTreeSet::new();
    let step = |((principal, resource), names): (&(String, Resource), &BTreeSet<String>)| {
        let there = those.get(&(principal.clone(), resource.clone())).unwrap_or(&none);
        let permissions: BTreeSet<String> = names.difference(there).cloned().collect();
        let (principal, resource) = (principal.clone(), resource.clone());
        (!permissions.is_empty()).then_some(Step { act, principal, resource, permissions })
    };
    these.iter().filter_map(step).collect()
}
