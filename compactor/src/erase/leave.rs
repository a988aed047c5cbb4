//! Columns in which no null may stand today though a run has protected them once: nothing is erased before the operator has
//! said what becomes of them.

use std::collections::BTreeSet;

use firn_shared::config::domain::{ColumnPath, PathStep};
use firn_shared::error::{Error, Result};
use iceberg::TableIdent;
use iceberg::spec::{NestedFieldRef, TableMetadata, Transform, Type};

use super::held::Held;

/// Values of a table that the operator leaves as they are.
#[derive(Debug, Default)]
pub struct Leave(BTreeSet<(TableIdent, Vec<PathStep>)>);

impl Leave {
    /// Of `database.table.column`, columns as `piiColumns` writes them.
    ///
    /// # Errors
    /// `Config` for what is no column that an erasure would touch.
    pub fn parse(texts: &[String], held: &[Held<'_>]) -> Result<Self> {
        let mut all = BTreeSet::new();
        for text in texts {
            let of = held.iter().find_map(|of| Some((of, text.strip_prefix(&format!("{}.", of.ident))?)));
            let Some((of, column)) = of else {
                let known: Vec<String> = held.iter().map(|of| of.ident.to_string()).collect();
                return Err(Error::config(format!(
                    "--leave {text}: no such table; write database.table.column, of one of {}",
                    known.join(", ")
                )));
            };
            let known: Vec<&Vec<PathStep>> = paths(of).collect();
            let Some(path) = known.iter().find(|path| written(path) == column) else {
                let known: Vec<String> = known.iter().map(|path| written(path)).collect();
                return Err(Error::config(format!(
                    "--leave {text}: {} has no column `{column}` from which something is erased; there are: {}",
                    of.ident,
                    known.join(", ")
                )));
            };
            all.insert((of.ident.clone(), (*path).clone()));
        }
        Ok(Self(all))
    }

    /// Whether a value of a table is left.
    pub fn has(&self, table: &TableIdent, path: &[PathStep]) -> bool {
        self.0.iter().any(|(of, left)| of == table && left == path)
    }

    /// What of a table is left, as it is written.
    pub fn of(&self, table: &TableIdent) -> Vec<String> {
        self.0.iter().filter(|(of, _)| of == table).map(|(_, path)| written(path)).collect()
    }

    /// Looks for columns that would break if they lost values.
    ///
    /// # Errors
    /// `Config`, naming all of them and what to do.
    pub fn check(&self, held: &[Held<'_>]) -> Result<()> {
        let mut problems = Vec::new();
        for of in held {
            for path in paths(of).filter(|path| !self.has(&of.ident, path)) {
                let Some((why, remedy)) = breaks(of, path) else { continue };
                let (table, column) = (&of.ident, written(path));
                problems.push(format!(
                    "{table} cannot lose values of `{column}`, which a run has protected for a subject once: {why}; {remedy}, \
                     or keep them on purpose: --leave {table}.{column}"
                ));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::config(problems.join("\n"))) }
    }
}

/// The values of a table that go, as far as it has them.
fn paths<'h>(of: &'h Held<'_>) -> impl Iterator<Item = &'h Vec<PathStep>> {
    let metadata = of.table.as_ref().map(|table| table.metadata());
    let all: BTreeSet<&Vec<PathStep>> = of.erasable.iter().flat_map(|one| &one.columns).collect();
    all.into_iter().filter(move |path| metadata.is_some_and(|metadata| field(metadata, path).is_some()))
}

/// As `piiColumns` writes it.
fn written(path: &[PathStep]) -> String {
    let Some((PathStep::Field(column), inside)) = path.split_first() else { return String::new() };
    ColumnPath { column: column.clone(), inside: inside.to_vec() }.to_string()
}

/// The field at the end of a path.
fn field<'t>(metadata: &'t TableMetadata, path: &[PathStep]) -> Option<&'t NestedFieldRef> {
    let (PathStep::Field(name), mut rest) = path.split_first()? else { return None };
    let mut field = metadata.current_schema().as_struct().field_by_name(name)?;
    while let Some((step, after)) = rest.split_first() {
        field = match (step, field.field_type.as_ref()) {
            (PathStep::Field(name), Type::Struct(of)) => of.field_by_name(name)?,
            (PathStep::Each, Type::List(of)) => &of.element_field,
            (PathStep::Each, Type::Map(of)) => &of.value_field,
            _ => return None,
        };
        rest = after;
    }
    Some(field)
}

/// Why no null may stand there, and what would change that.
fn breaks(of: &Held<'_>, path: &[PathStep]) -> Option<(String, String)> {
    let metadata = of.table.as_ref()?.metadata();
    let (field, column) = (field(metadata, path)?, written(path));
    let upsert = of.target.and_then(|target| target.output.table.mode.upsert()).filter(|_| path.len() == 1);
    if let (Some(upsert), Some(target)) = (upsert, of.target) {
        let file = target.pipeline.file.display();
        for (names, key) in [(&upsert.keys, "idColumns"), (&upsert.versions, "timestampColumns")] {
            if names.iter().any(|name| name.as_str() == column) {
                return Some((format!("it is one of {key} in {file}"), format!("take another column for {key}")));
            }
        }
    }
    let spec = metadata.default_partition_spec();
    if spec.fields().iter().any(|by| by.source_id == field.id && by.transform != Transform::Void) {
        let why = "the table is partitioned by it".to_owned();
        return Some((why, "partition the table by another column".to_owned()));
    }
    if metadata.current_schema().identifier_field_ids().any(|id| id == field.id) {
        return Some(("it is an identifier field of the table".to_owned(), "drop the identifier field".to_owned()));
    }
    let remedy = || "make it optional (ALTER TABLE … ALTER COLUMN … DROP NOT NULL)".to_owned();
    field.required.then(|| ("it is required".to_owned(), remedy()))
}
