//! Roles and what they may read, as far as it can be told without the pipelines.

use std::collections::BTreeMap;

use super::File;
use super::firn::url;
use crate::config::access::{Access, Columns, Reads, Role};
use crate::config::shape::join;
use crate::config::wire::{AccessYaml, CatalogYaml, OneOrMany, ReadsYaml, RoleYaml};

/// Lake Formation's word for everybody whom IAM lets in.
const EVERYBODY: &str = "IAM_ALLOWED_PRINCIPALS";

/// The roles; `None` only after a report, or when there is no `access`.
pub(super) fn access(file: &File, yaml: Option<&AccessYaml>, catalog: Option<&CatalogYaml>) -> Option<Access> {
    let yaml = yaml?;
    url(file, "access.endpoint", yaml.endpoint.as_ref());
    if catalog.is_some_and(|catalog| !matches!(catalog, CatalogYaml::Glue(_))) {
        file.report("access", "needs `catalog: {glue: ...}`: Lake Formation governs tables of Glue's catalog only");
    }
    let mut roles = BTreeMap::new();
    for (name, yaml) in yaml.roles.iter().flatten() {
        let path = join("access.roles", name);
        match yaml {
            Some(yaml) => drop(role(file, &path, yaml).map(|role| roles.insert(name.clone(), role))),
            None if file.is_cut(&path) => {}
            None => file.report(&path, "expected a mapping with `principals` and `reads`, found nothing"),
        }
    }
    Some(Access { endpoint: yaml.endpoint.clone(), roles })
}

fn role(file: &File, path: &str, yaml: &RoleYaml) -> Option<Role> {
    let at = join(path, "principals");
    let principals = match yaml.principals.clone()? {
        OneOrMany::One(one) => {
            principal(file, &at, &one);
            vec![one]
        }
        OneOrMany::Many(many) => {
            if many.is_empty() {
                file.report(&at, "must not be empty");
            }
            many.iter().enumerate().for_each(|(i, one)| principal(file, &format!("{at}[{i}]"), one));
            many
        }
    };
    let mut all = Vec::new();
    for (i, yaml) in yaml.reads.iter().flatten().enumerate() {
        let path = format!("{}[{i}]", join(path, "reads"));
        all.extend(yaml.as_ref().and_then(|yaml| reads(file, &path, yaml)));
    }
    Some(Role { principals, reads: all })
}

fn principal(file: &File, path: &str, text: &str) {
    let is_account = text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    if text == EVERYBODY {
        file.report(path, format!("`{EVERYBODY}` is everybody whom IAM lets in, so that no role would count"));
    } else if !is_account && (!text.starts_with("arn:") || text.split(':').count() < 6 || text.contains('*')) {
        file.report(path, format!("`{text}` is neither an ARN such as `arn:aws:iam::123456789012:role/analyst` nor the number of an account"));
    }
}

fn reads(file: &File, path: &str, yaml: &ReadsYaml) -> Option<Reads> {
    for (key, list) in [("tables", &yaml.tables), ("columns", &yaml.columns), ("exclude", &yaml.exclude)] {
        if list.as_ref().is_some_and(Vec::is_empty) {
            file.report(&join(path, key), "must not be empty; leave it out for all");
        }
    }
    let columns = match (&yaml.columns, &yaml.exclude) {
        (Some(_), Some(_)) => {
            file.report(path, "has both `columns` and `exclude`; keep one");
            return None;
        }
        (Some(columns), None) => Columns::Only(columns.clone()),
        (None, exclude) => Columns::AllBut(exclude.clone().unwrap_or_default()),
    };
    Some(Reads {
        at: file.place(path),
        places: file.places(path),
        database: yaml.database.clone()?,
        tables: yaml.tables.clone(),
        columns,
        personal: yaml.personal.unwrap_or_default(),
    })
}
