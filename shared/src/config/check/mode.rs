//! How runs change a table: `mode` and the options that belong to it.

use std::time::Duration;

use super::File;
use crate::config::domain::{DeleteFiles, Mode, PayloadFormat, Upsert, WriteStrategy};
use crate::config::units::Period;
use crate::config::wire::{DeleteFilesYaml, ModeYaml, TableYaml, WriteStrategyYaml};
use crate::functions::Columns;
use crate::ids::ColumnName;
use crate::types::LogicalType;

const DELETE_MEMORY: Period = Period(Duration::from_hours(7 * 24));

/// Reads the mode; `after` are the columns behind the last step, `format` is `None` when it could not be read.
pub(super) fn mode(
    file: &File,
    path: &str,
    yaml: &TableYaml,
    after: &Columns,
    format: Option<PayloadFormat>,
) -> Option<Mode> {
    let at = |key: &str| format!("{path}.{key}");
    let mode = yaml.mode.unwrap_or(ModeYaml::Append);
    refuse_foreign(file, path, yaml, mode);
    let changes = format.map(PayloadFormat::is_change);
    if mode == ModeYaml::TruncateLoad && changes == Some(true) {
        file.report(&at("mode"), "`truncateLoad` needs whole rows; change events are for `upsert` and `append`");
    }
    if yaml.soft_delete == Some(true) && mode == ModeYaml::Upsert && changes == Some(false) {
        file.report(
            &at("softDelete"),
            "needs change events (format `debezium` or `dynamodb`), which say what is deleted",
        );
    }
    match mode {
        // A mode that could not be read was reported; its options are not judged by the default.
        _ if file.is_cut(&at("mode")) => None,
        ModeYaml::Append => Some(Mode::Append),
        ModeYaml::TruncateLoad => Some(Mode::TruncateLoad { allow_empty: yaml.allow_empty.unwrap_or_default() }),
        ModeYaml::Upsert => {
            if yaml.provenance == Some(false) {
                file.report(
                    &at("provenance"),
                    "mode `upsert` needs it: the Kafka offset decides between equal versions",
                );
            }
            let keys = names(file, &at("idColumns"), yaml.id_columns.as_deref(), after, &is_key);
            // Change events carry their position in the source, which orders them better than any column.
            let versions = match yaml.timestamp_columns.as_deref() {
                None | Some([]) if changes != Some(false) => Some(Vec::new()),
                texts => names(file, &at("timestampColumns"), texts, after, &is_version),
            };
            let memory = file.parse_or(&at("deleteMemory"), yaml.delete_memory.as_ref(), DELETE_MEMORY);
            Some(Mode::Upsert(Upsert {
                keys: keys?,
                versions: versions?,
                strategy: strategy(file, &at("deleteFiles"), yaml)?,
                delete_memory: memory?.0,
                soft_delete: yaml.soft_delete.unwrap_or_default(),
            }))
        }
    }
}

fn strategy(file: &File, path: &str, yaml: &TableYaml) -> Option<WriteStrategy> {
    let files = match yaml.delete_files {
        Some(DeleteFilesYaml::Equality) => DeleteFiles::Equality,
        Some(DeleteFilesYaml::Position) | None => DeleteFiles::Position,
    };
    match yaml.write_strategy {
        Some(WriteStrategyYaml::CopyOnWrite) if yaml.delete_files.is_some() => {
            file.report(path, "`copyOnWrite` writes no delete files; leave it out");
            None
        }
        Some(WriteStrategyYaml::CopyOnWrite) => Some(WriteStrategy::CopyOnWrite),
        Some(WriteStrategyYaml::MergeOnRead) | None => Some(WriteStrategy::MergeOnRead(files)),
    }
}

/// Reports options that another mode has.
fn refuse_foreign(file: &File, path: &str, yaml: &TableYaml, mode: ModeYaml) {
    let upsert = [
        ("writeStrategy", yaml.write_strategy.is_some()),
        ("deleteFiles", yaml.delete_files.is_some()),
        ("idColumns", yaml.id_columns.is_some()),
        ("timestampColumns", yaml.timestamp_columns.is_some()),
        ("deleteMemory", yaml.delete_memory.is_some()),
        ("softDelete", yaml.soft_delete.is_some()),
    ];
    for (key, given) in upsert {
        if given && mode != ModeYaml::Upsert {
            file.report(&format!("{path}.{key}"), "belongs to `mode: upsert`");
        }
    }
    if yaml.allow_empty.is_some() && mode != ModeYaml::TruncateLoad {
        file.report(&format!("{path}.allowEmpty"), "belongs to `mode: truncateLoad`");
    }
}

/// Column names that must be there, once each, of a type that suits.
fn names(
    file: &File,
    path: &str,
    texts: Option<&[String]>,
    after: &Columns,
    suits: &dyn Fn(&LogicalType) -> Result<(), &'static str>,
) -> Option<Vec<ColumnName>> {
    let Some(texts) = texts.filter(|texts| !texts.is_empty()) else {
        if !file.is_cut(path) {
            file.report(path, "missing; mode `upsert` needs at least one column");
        }
        return None;
    };
    let mut out: Vec<ColumnName> = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        let path = format!("{path}[{i}]");
        if let Some(message) = after.missing(text) {
            file.report(&path, message);
            continue;
        }
        let Some(name) = file.take(&path, ColumnName::new(text.clone())) else { continue };
        if let Some(Err(why)) = after.type_of(text).map(suits) {
            file.report(&path, format!("column `{text}` {why}"));
        }
        if out.contains(&name) {
            file.report(&path, format!("column `{text}` comes twice"));
        }
        out.push(name);
    }
    (out.len() == texts.len()).then_some(out)
}

fn is_key(r#type: &LogicalType) -> Result<(), &'static str> {
    use LogicalType as L;
    match r#type {
        L::Float | L::Double => Err("is a float, which has no exact equality; cast it to a decimal or text"),
        L::Json | L::List(_) | L::Map(_) | L::Struct(_) => Err("is nested, so it cannot be part of a key"),
        _ => Ok(()),
    }
}

fn is_version(r#type: &LogicalType) -> Result<(), &'static str> {
    use LogicalType as L;
    match r#type {
        L::Json | L::List(_) | L::Map(_) | L::Struct(_) | L::Boolean | L::Binary | L::Uuid => {
            Err("has no order that says which version is newer")
        }
        _ => Ok(()),
    }
}
