//! `piiColumns` and `protectAt`: that protections can be carried out, and that no plaintext is left beside them.

use super::{File, columns};
use crate::config::check::shaped_columns;
use crate::config::domain::{
    ColumnPath, Encoding, EventTime, Ingestion, JsonPath, Mask, Output, PartitionField, PathStep, PayloadFormat,
    Protect, Protection, SortField,
};
use crate::config::protected::{Traced, decoded_name, protected, source, traces, value_type};
use crate::config::wire::{EncodingYaml, PiiYaml, ProtectYaml, TableYaml};
use crate::crypto::mask::Redactor;
use crate::cursor::did_you_mean;
use crate::functions::Columns;
use crate::ids::{ColumnName, KeyName};
use crate::types::LogicalType;

/// Reads the protections of a table and applies them to its columns; `keys` are the names in `firn.yaml`, `None` when
/// they are not known.
pub(super) fn protections(
    file: &File,
    path: &str,
    yaml: &TableYaml,
    after: &mut Columns,
    keys: Option<&[String]>,
) -> Option<Vec<Protection>> {
    let at = |i: usize| format!("{path}.piiColumns[{i}]");
    let mut out: Vec<Protection> = Vec::new();
    let mut whole = !file.is_cut(&format!("{path}.piiColumns"));
    let before = yaml.pii_columns.iter().flatten().enumerate();
    for (i, yaml) in before {
        let protection = yaml.as_ref().and_then(|yaml| protection(file, &at(i), yaml, keys));
        let Some(protection) = protection else {
            whole = false;
            after.incomplete = true;
            continue;
        };
        if let Some(other) = out.iter().find(|other| other.path.overlaps(&protection.path)) {
            file.report(
                &format!("{}.name", at(i)),
                format!("`{}` is protected already, as `{}`", protection.path, other.path),
            );
            whole = false;
            continue;
        }
        if let Some(other) = out
            .iter()
            .find(|o| o.seals() && protection.seals() && o.key == protection.key && o.subject != protection.subject)
        {
            let key = protection.key.as_ref().map(ToString::to_string).unwrap_or_default();
            let message = format!(
                "`{}` is sealed with `{key}` for another `subject`; a row has one key of each name, so use another key",
                other.path
            );
            file.report(&format!("{}.subject", at(i)), message);
        }
        if let Some(subject) = &protection.subject {
            check_subject(file, &format!("{}.subject", at(i)), subject, after);
            if let (true, Some(what)) = (protection.protects(), required_on_the_way(after, &protection.path)) {
                file.report(
                    &format!("{}.subject", at(i)),
                    format!("{what} is required, and a value whose key is destroyed is null; make it optional"),
                );
            }
        }
        out.push(protection);
    }
    if let Err((i, why)) = columns::protect(after, &out) {
        let name = format!("{}.name", at(position(yaml, &out[i])));
        file.report(&name, why);
        whole = false;
    }
    check_uses(file, path, yaml, &out);
    check_findable(file, &|protection| at(position(yaml, protection)), &out);
    whole.then_some(out)
}

/// Which entry of the file a protection came from.
fn position(yaml: &TableYaml, protection: &Protection) -> usize {
    let name = protection.path.to_string();
    let all = yaml.pii_columns.iter().flatten();
    all.enumerate().find(|(_, y)| y.as_ref().and_then(|y| y.name.as_ref()) == Some(&name)).map_or(0, |(i, _)| i)
}

fn protection(file: &File, path: &str, yaml: &PiiYaml, keys: Option<&[String]>) -> Option<Protection> {
    let at = |key: &str| format!("{path}.{key}");
    let name: Option<ColumnPath> = file.parse(&at("name"), yaml.name.as_ref());
    let how = how(file, path, yaml);
    refuse_foreign(file, path, yaml);
    let token = yaml.token.unwrap_or_default();
    match yaml.protect {
        Some(ProtectYaml::Token) if token => file.report(&at("token"), "`protect: token` is the token already"),
        Some(ProtectYaml::Drop) if token => file.report(&at("token"), "write `protect: token` to keep only the token"),
        Some(ProtectYaml::Keep) if token => file.report(&at("token"), "a column that stays as it is needs no token"),
        _ => {}
    }
    let needs_key =
        token || matches!(yaml.protect, Some(ProtectYaml::Encrypt | ProtectYaml::Token | ProtectYaml::Hash));
    let key = key(file, &at("key"), yaml.key.as_ref(), needs_key, keys);
    let subject = match &yaml.subject {
        Some(text) => file.take(&at("subject"), ColumnName::new(text.clone())).map(Some),
        None => Some(None),
    };
    let encoding = match yaml.encoding {
        None | Some(EncodingYaml::Base64) => Encoding::Base64,
        Some(EncodingYaml::Binary) => Encoding::Binary,
    };
    let aad = yaml.aad.clone();
    Some(Protection { path: name?, how: how?, token, key: key?, subject: subject?, aad, encoding })
}

fn how(file: &File, path: &str, yaml: &PiiYaml) -> Option<Protect> {
    let at = |key: &str| format!("{path}.{key}");
    Some(match yaml.protect? {
        ProtectYaml::Encrypt => Protect::Encrypt,
        ProtectYaml::Token => Protect::Token,
        ProtectYaml::Hash => Protect::Hash,
        ProtectYaml::Drop => Protect::Drop,
        ProtectYaml::Keep => Protect::Keep,
        ProtectYaml::Mask => Protect::Mask(file.parse_or(&at("mask"), yaml.mask.as_ref(), Mask::All)?),
        ProtectYaml::Redact => {
            let patterns: Vec<String> = yaml.pattern.iter().chain(yaml.patterns.iter().flatten()).cloned().collect();
            if patterns.is_empty() {
                file.report(path, "`redact` needs `pattern` or `patterns`: what to take out");
                return None;
            }
            let key = if yaml.pattern.is_some() { "pattern" } else { "patterns" };
            file.take(&at(key), Redactor::new(&patterns))?;
            Protect::Redact(patterns)
        }
    })
}

/// Reports options that another protection has.
fn refuse_foreign(file: &File, path: &str, yaml: &PiiYaml) {
    let Some(protect) = yaml.protect else { return };
    for (key, given, owner) in [
        ("mask", yaml.mask.is_some(), ProtectYaml::Mask),
        ("pattern", yaml.pattern.is_some(), ProtectYaml::Redact),
        ("patterns", yaml.patterns.is_some(), ProtectYaml::Redact),
        ("aad", yaml.aad.is_some(), ProtectYaml::Encrypt),
        ("encoding", yaml.encoding.is_some(), ProtectYaml::Encrypt),
    ] {
        if given && protect != owner {
            let owner = format!("{owner:?}").to_lowercase();
            file.report(&format!("{path}.{key}"), format!("belongs to `protect: {owner}`"));
        }
    }
}

/// The key, or the only one there is; the outer `None` only after a report.
#[allow(clippy::option_option, reason = "`None` outside is a reported mistake, inside it is `not needed`")]
fn key(
    file: &File,
    path: &str,
    name: Option<&String>,
    needed: bool,
    keys: Option<&[String]>,
) -> Option<Option<KeyName>> {
    let Some(name) = name else {
        return match keys {
            _ if !needed => Some(None),
            // Nobody knows firn.yaml here: any name will do, and this one says so.
            None => Some(KeyName::new("default").ok()),
            Some([one]) => Some(KeyName::new(one.clone()).ok()),
            Some([]) => {
                file.report(path, "firn.yaml has no keys; add one under `keys`");
                None
            }
            Some(several) => {
                let known = several.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                file.report(path, format!("missing; firn.yaml has the keys {known}"));
                None
            }
        };
    };
    if !needed {
        file.report(path, "this protection needs no key; leave it out");
    }
    if let Some(keys) = keys
        && !keys.contains(name)
    {
        let hint = did_you_mean(name, keys.iter().map(String::as_str));
        file.report(path, format!("no key `{name}` in firn.yaml{hint}"));
        return None;
    }
    file.take(path, KeyName::new(name.clone())).map(Some)
}

fn check_subject(file: &File, path: &str, subject: &ColumnName, after: &Columns) {
    if let Some(message) = after.missing(subject.as_str()) {
        return file.report(path, message);
    }
    // What payloads and tables say of a subject must be comparable: other types are written in several ways.
    match after.type_of(subject.as_str()) {
        None | Some(LogicalType::String | LogicalType::Int | LogicalType::Long | LogicalType::Uuid) => {}
        Some(r#type) => {
            file.report(path, format!("column `{subject}` is {type}; a subject is text, a whole number or a uuid"));
        }
    }
}

/// Reports values whose rows erasure could not find again: their subject's column has lost who it is, and no key of the
/// subject stands beside them.
fn check_findable(file: &File, at: &dyn Fn(&Protection) -> String, protections: &[Protection]) {
    let by_name = |p: &&Protection| p.is_erasable() && !p.seals() && p.how != Protect::Drop;
    for protection in protections.iter().filter(by_name) {
        let Some(subject) = &protection.subject else { continue };
        let own = protections.iter().find(|p| p.path.inside.is_empty() && p.path.column == subject.as_str());
        let lost = match own {
            Some(own) if own.token || own.subject.as_ref() == Some(subject) && own.seals() => continue,
            Some(own) => match &own.how {
                Protect::Keep | Protect::Token | Protect::Hash => continue,
                Protect::Encrypt => "encrypted without a token",
                Protect::Mask(_) => "masked",
                Protect::Redact(_) => "redacted",
                Protect::Drop => "dropped",
            },
            None => continue,
        };
        let (path, name) = (&protection.path, subject.as_str());
        file.report(
            &format!("{}.subject", at(protection)),
            format!(
                "column `{name}` is {lost}, so erasure would not find the rows of a subject again and `{path}` would stay; \
                 give `{name}` a token, or encrypt `{path}`"
            ),
        );
    }
}

/// Reports uses of protected columns that cannot work.
fn check_uses(file: &File, path: &str, yaml: &TableYaml, protections: &[Protection]) {
    let report = |key: &str, i: usize, column: &str, order: bool| {
        let Some(protection) = protections.iter().find(|p| p.path.inside.is_empty() && p.path.column == column) else {
            return;
        };
        let token = protection.token_name();
        let token =
            if protection.token { format!("use `{token}`") } else { format!("add `token: true` and use `{token}`") };
        let why = match (&protection.how, order) {
            (Protect::Keep | Protect::Drop, _) | (Protect::Token | Protect::Hash, false) => return,
            (Protect::Encrypt, false) => {
                format!("is encrypted with a fresh iv for every value, so no two are equal; {token}")
            }
            (Protect::Mask(_) | Protect::Redact(_), false) => {
                format!("is masked, so different values may look the same; {token}")
            }
            (_, true) => "is protected, so it has lost its order; use another column".to_owned(),
        };
        file.report(&format!("{path}.{key}[{i}]"), format!("column `{column}` {why}"));
    };
    let erasable = |key: &str, i: usize, name: &str| {
        let of = |p: &&Protection| {
            p.subject.is_some()
                && p.path.inside.is_empty()
                && (p.token && p.token_name() == name || p.path.column == name)
        };
        if let Some(protection) = protections.iter().find(of) {
            let message =
                format!("erasure takes `{name}` out, because `{}` has a subject; use another column", protection.path);
            file.report(&format!("{path}.{key}[{i}]"), message);
        }
    };
    for (i, name) in yaml.id_columns.iter().flatten().enumerate() {
        report("idColumns", i, name, false);
        erasable("idColumns", i, name);
    }
    for (i, name) in yaml.timestamp_columns.iter().flatten().enumerate() {
        report("timestampColumns", i, name, true);
    }
    for (i, text) in yaml.partition_by.iter().flatten().enumerate() {
        if let Ok(field) = text.parse::<PartitionField>() {
            report("partitionBy", i, field.column.as_str(), false);
            // Values of partitions are part of file names.
            erasable("partitionBy", i, field.column.as_str());
        }
    }
    for (i, text) in yaml.sort_by.iter().flatten().enumerate() {
        if let Ok(field) = text.parse::<SortField>() {
            report("sortBy", i, field.column.as_str(), false);
        }
    }
}

/// Whether one place holds the other; what a map has for any key, a field may have for its own.
fn overlap(a: &[PathStep], b: &[PathStep]) -> bool {
    a.iter().zip(b).all(|(a, b)| a == b || *a == PathStep::Each || *b == PathStep::Each)
}

fn steps(path: &JsonPath) -> Vec<PathStep> {
    path.0.iter().map(|key| PathStep::Field(key.clone())).collect()
}

/// Reports columns that hold a protected value a second time, in plain, or that are made of one; `columns` are those
/// before the protections.
pub(super) fn check_copies(file: &File, path: &str, output: &Output, columns: &[String]) {
    let protections = &output.table.protections;
    for protection in protections.iter().filter(|p| p.protects()) {
        let at = format!("{path}.piiColumns[{}]", index(protections, protection));
        check_erasable(file, &at, output, protection);
        let own = traces(output, &protection.path.column);
        let what = &protection.path;
        for column in columns.iter().filter(|name| **name != protection.path.column) {
            let there = Column { file, path, output, name: column };
            let Some((Traced { place, same }, name)) = there.copy_of(protection, &own, &format!("`{what}`")) else {
                continue;
            };
            let message = if same {
                format!("column `{column}` holds `{what}` in plain, at {place}")
            } else {
                format!("column `{column}` is made of {place}, which `{what}` is, too")
            };
            let hint = "protect it, too, take it out with the step `drop`, or say";
            file.report(&format!("{at}.name"), format!("{message}; {hint} `{{name: {name}, protect: keep}}`"));
        }
    }
}

/// Reports columns that hold in plain what another table of the pipeline protects. Tables whose events are others have
/// other values at the same place.
pub(super) fn check_neighbours(file: &File, outputs: &[(String, Output)]) {
    let apart = |a: &[String], b: &[String]| a.iter().all(|event| !b.contains(event));
    for (i, (_, output)) in outputs.iter().enumerate() {
        for (j, (path, other)) in outputs.iter().enumerate() {
            let other_events = matches!((&output.events, &other.events), (Some(a), Some(b)) if apart(a, b));
            if i == j || other_events {
                continue;
            }
            for protection in output.table.protections.iter().filter(|p| p.protects()) {
                check_neighbour(file, (output, protection), path, other);
            }
        }
    }
}

/// Reports the columns of another table that hold what this one protects.
fn check_neighbour(file: &File, (output, protection): (&Output, &Protection), path: &str, other: &Output) {
    let own = traces(output, &protection.path.column);
    let what = format!("`{}` of table {}.{}", protection.path, output.table.database, output.table.name);
    for column in shaped_columns(other) {
        let there = Column { file, path, output: other, name: &column.name };
        let Some((Traced { place, same }, name)) = there.copy_of(protection, &own, &what) else { continue };
        let at = other.table.columns.iter().position(|decoded| decoded.name == column.name);
        let at = at.map_or_else(|| format!("{path}.tableName"), |i| format!("{path}.columns[{i}].name"));
        let made = if same { "holds" } else { "is made of" };
        let hint = format!("protect it here, too, or say `{{name: {name}, protect: keep}}` under `piiColumns`");
        file.report(&at, format!("column `{}` {made} {what} in plain, at {place}; {hint}", column.name));
    }
}

/// A column of an output, before its protections.
struct Column<'a> {
    file: &'a File,
    /// Of the output's table.
    path: &'a str,
    output: &'a Output,
    name: &'a str,
}

impl Column<'_> {
    /// What of the column gives away what is protected while nobody says what becomes of it, and the name to say it under.
    /// `own` is what the protected column was made of; `what` says which that is.
    fn copy_of(&self, protection: &Protection, own: &[Traced], what: &str) -> Option<(Traced, String)> {
        let declared: Vec<&Protection> =
            self.output.table.protections.iter().filter(|p| p.path.column == self.name).collect();
        for of in traces(self.output, self.name) {
            let Some(place) = own.iter().find_map(|own| copied(own, protection, &of)) else { continue };
            let covers = |p: &&&Protection| !of.same || overlap(&inside(&of, &p.path), &place);
            let covering: Vec<&&Protection> = declared.iter().filter(covers).collect();
            for other in &covering {
                self.check_subject_too(other, protection, (&of.place, what));
            }
            if covering.is_empty() {
                let rest = place.get(of.place.0.len()..).filter(|_| !declared.is_empty()).unwrap_or_default();
                let path = ColumnPath { column: self.name.to_owned(), inside: rest.to_vec() };
                return Some((of, path.to_string()));
            }
        }
        None
    }

    /// Reports a protection without subject of what goes elsewhere when its subject is erased.
    fn check_subject_too(&self, other: &Protection, protection: &Protection, (place, what): (&JsonPath, &str)) {
        if protection.is_erasable() && other.protects() && other.subject.is_none() {
            let at = format!("{}.piiColumns[{}].name", self.path, index(&self.output.table.protections, other));
            let message = format!(
                "`{}` is made of {place}, as {what} is, which goes when its subject is erased; give it a `subject`, too",
                other.path
            );
            self.file.report(&at, message);
        }
    }
}

/// The place of a path into a column that was made of this.
fn inside(of: &Traced, path: &ColumnPath) -> Vec<PathStep> {
    let inside = if of.same { &path.inside[..] } else { &[] };
    steps(&of.place).into_iter().chain(inside.iter().cloned()).collect()
}

/// The place of what is protected, if what a column was made of may give it away.
fn copied(own: &Traced, protection: &Protection, other: &Traced) -> Option<Vec<PathStep>> {
    let place = inside(own, &protection.path);
    // What lies inside of a value was taken out of it on purpose; but a function may have made the value of that, too.
    let gives_away = overlap(&steps(&other.place), &place) && (other.place.0.len() <= place.len() || !own.same);
    gives_away.then_some(place)
}

/// Reports values of subjects that erasure could not find in payloads.
fn check_erasable(file: &File, at: &str, output: &Output, protection: &Protection) {
    let Some(subject) = &protection.subject else { return };
    if !source(output, subject.as_str()).is_some_and(|traced| traced.same) {
        let message =
            format!("column `{subject}` is made by a step, so payloads do not say whose they are; name a column");
        file.report(&format!("{at}.subject"), format!("{message} that is decoded or extracted"));
    }
    if source(output, &protection.path.column).is_none() {
        let message =
            format!("`{}` is not made of one value, so erasure would not find it in payloads", protection.path);
        file.report(&format!("{at}.name"), format!("{message}; protect the columns that it is made of and drop it"));
    }
}

/// The column or the first field on the way to a value that is required, the value included.
fn required_on_the_way(columns: &Columns, path: &ColumnPath) -> Option<String> {
    let column = &columns.iter().find(|tracked| tracked.column.name == path.column)?.column;
    if column.required {
        return Some(format!("column `{}`", path.column));
    }
    let mut r#type = &column.r#type;
    for (i, step) in path.inside.iter().enumerate() {
        r#type = match (step, r#type) {
            (PathStep::Each, LogicalType::List(of) | LogicalType::Map(of)) => of,
            (PathStep::Field(name), LogicalType::Struct(fields)) => {
                let field = fields.iter().find(|field| field.name == *name)?;
                if field.required {
                    let inside = path.inside[..=i].to_vec();
                    return Some(format!("field `{}`", ColumnPath { inside, ..path.clone() }));
                }
                &field.r#type
            }
            _ => return None,
        };
    }
    None
}

fn index(protections: &[Protection], one: &Protection) -> usize {
    protections.iter().position(|p| p == one).unwrap_or_default()
}

/// Reports what cannot work when payloads are protected before anything reads them.
pub(super) fn check_landing(file: &File, ingestion: &Ingestion, outputs: &[(String, Output)]) {
    const AT: &str = "ingestionUnit.protectAt";
    if !ingestion.protect_at_landing {
        return;
    }
    if ingestion.format == PayloadFormat::Dynamodb {
        file.report(AT, "values of DynamoDB say their types, so ciphertext cannot take their place; use `conversion`");
    }
    let all: Vec<_> = outputs
        .iter()
        .flat_map(|(path, output)| protected(output).into_iter().map(move |p| (path, output, p)))
        .collect();
    if !all.iter().any(|(_, _, p)| p.protection.protects()) {
        file.report(AT, "no table of this pipeline has `piiColumns`, so there is nothing to protect");
    }
    for (path, output, one) in all.iter().filter(|(_, _, p)| p.protection.protects()) {
        let column = &one.protection.path.column;
        let name = format!("{path}.piiColumns[{}].name", index(&output.table.protections, &one.protection));
        if decoded_name(output, column).is_none() {
            file.report(
                &name,
                format!(
                    "with `protectAt: landing`, steps find ciphertext in `{column}`; only those that arrange columns may \
                     touch it: `rename`, `select`, `reorder`, `drop`, `copy`"
                ),
            );
        }
        check_token(file, (path, output), &one.protection);
        for (what, place) in [("eventName", ingestion.event_name.as_ref()), ("eventTime.path", event_time(ingestion))] {
            let Some(place) = place.map(steps) else { continue };
            if one.places.iter().any(|(own, _)| overlap(own, &place)) {
                file.report(&name, format!("landing reads `{what}` there, after it would be protected"));
            }
        }
        for (_, other_output, other) in all.iter().filter(|(_, _, p)| p.protection.protects()) {
            let same = |p: &&(Vec<PathStep>, _)| one.places.iter().any(|(own, _)| overlap(own, &p.0));
            // Hashes are of one table's column each.
            let differs = one.protection.how == Protect::Hash
                || other.protection.how != one.protection.how
                || other.protection.token != one.protection.token
                || other.protection.key != one.protection.key
                || other.protection.aad != one.protection.aad
                || other.value != one.value && one.protection.makes_token()
                || other.places != one.places;
            if differs && other.places.iter().any(|p| same(&p)) && other.column != one.column {
                let table = format!("{}.{}", other_output.table.database, other_output.table.name);
                file.report(
                    &name,
                    format!("landing protects a value once, but table {table} protects it in another way"),
                );
            }
        }
    }
    check_plain_readers(file, outputs);
}

/// Reports tokens that would not be those of conversion: landing knows the text of the JSON, and of most types it is not
/// what conversion makes tokens of.
fn check_token(file: &File, (path, output): (&str, &Output), protection: &Protection) {
    use LogicalType as L;
    if !protection.makes_token() {
        return;
    }
    let name = decoded_name(output, &protection.path.column);
    let encoded = output.table.columns.iter().any(|c| Some(c.name.as_str()) == name && c.format.is_some());
    let r#type = match value_type(output, &protection.path) {
        Some(L::String | L::Int | L::Long | L::Uuid | L::Boolean) if !encoded => return,
        Some(r#type) if encoded => format!("{type} with a `format`"),
        Some(r#type) => r#type.to_string(),
        None => return,
    };
    let key = if protection.token { "token" } else { "protect" };
    let at = format!("{path}.piiColumns[{}].{key}", index(&output.table.protections, protection));
    file.report(
        &at,
        format!(
            "`{}` is {type}: landing would make tokens of the JSON's text, and conversion makes them of the value, so they \
             would not meet; use `protectAt: conversion`, or protect it without a token",
            protection.path
        ),
    );
}

/// Reports tables that would find ciphertext where they expect a value.
fn check_plain_readers(file: &File, outputs: &[(String, Output)]) {
    for (path, output) in outputs {
        for (i, column) in output.table.columns.iter().enumerate() {
            let own: Vec<PathStep> = steps(&column.path);
            // A value of another shape than a protected path has is sealed, and here it is expected.
            let nested = matches!(
                column.r#type,
                LogicalType::Json | LogicalType::Struct(_) | LogicalType::List(_) | LogicalType::Map(_)
            );
            let inside = outputs.iter().flat_map(|(_, other)| protected(other)).find(|p| {
                let inside = |(place, _): &(Vec<PathStep>, _)| place.len() > own.len() && place.starts_with(&own);
                p.protection.protects() && p.places.iter().any(inside)
            });
            if let (false, Some(found)) = (nested, inside) {
                let message = format!(
                    "is {}, and landing seals {} where {} cannot be in it; use `protectAt: conversion`",
                    column.r#type, column.path, found.column
                );
                file.report(&format!("{path}.columns[{i}]"), message);
            }
            let covered = output
                .table
                .protections
                .iter()
                .any(|p| source(output, &p.path.column).is_some_and(|traced| traced.place == column.path));
            let found = outputs.iter().flat_map(|(_, other)| protected(other)).find(|p| {
                p.protection.protects()
                    && p.places.iter().any(|(place, _)| overlap(place, &own) && place.len() <= own.len())
            });
            if let (false, Some(found)) = (covered, found) {
                let message = format!(
                    "landing replaces {} by ciphertext for {}; protect it here, too",
                    column.path, found.column
                );
                file.report(&format!("{path}.columns[{i}]"), message);
            }
        }
    }
}

fn event_time(ingestion: &Ingestion) -> Option<&JsonPath> {
    match &ingestion.event_time {
        EventTime::Field { path, .. } => Some(path),
        EventTime::KafkaTimestamp => None,
    }
}
