//! What catalogs that only keep a pointer share: building and writing the new metadata file.

use std::str::FromStr;

use firn_shared::error::{Error, Result};
use iceberg::io::FileIO;
use iceberg::spec::{MetadataLog, TableMetadata, TableMetadataBuilder};
use iceberg::table::Table;
use iceberg::{MetadataLocation, Runtime, TableCreation, TableIdent, TableRequirement, TableUpdate};

use super::CommitOutcome;
use crate::table::error;

/// Table property: delete metadata files that fell off the log.
const DELETE_AFTER_COMMIT: &str = "write.metadata.delete-after-commit.enabled";

/// A metadata file that was written and that no catalog points to yet.
pub(super) struct StagedMetadata {
    /// Where the catalog points now; `None` for a new table.
    pub old: Option<String>,
    /// Where it shall point.
    pub new: String,
    /// What it says.
    pub metadata: TableMetadata,
    /// Files that fell off the metadata log with this version.
    expired: Vec<MetadataLog>,
}

/// The metadata that a commit leads to, written; `Err(reason)` inside when a requirement does not hold.
pub(super) async fn stage(
    base: &Table,
    updates: Vec<TableUpdate>,
    requirements: &[TableRequirement],
) -> Result<std::result::Result<StagedMetadata, String>> {
    let what = || format!("cannot commit {}", base.identifier());
    for requirement in requirements {
        if let Err(unmet) = requirement.check(Some(base.metadata())) {
            return Ok(Err(unmet.to_string()));
        }
    }
    let old = base.metadata_location_result().map_err(|e| error(what(), e))?.to_owned();
    let mut builder = base.metadata().clone().into_builder(Some(old.clone()));
    for update in updates {
        builder = update.apply(builder).map_err(|e| error(what(), e))?;
    }
    let built = builder.build().map_err(|e| error(what(), e))?;
    // Another writer's naming may not be ours; then counting starts again, the random part keeps names apart.
    let location = MetadataLocation::from_str(&old)
        .map_or_else(
            |_| MetadataLocation::new_with_metadata(built.metadata.location(), &built.metadata),
            |previous| previous.with_next_version(),
        )
        .with_new_metadata(&built.metadata);
    // A crash right after this leaves a metadata file that nothing names: orphan removal takes it.
    built.metadata.write_to(base.file_io(), &location).await.map_err(|e| error(what(), e))?;
    Ok(Ok(StagedMetadata {
        old: Some(old),
        new: location.to_string(),
        metadata: built.metadata,
        expired: built.expired_metadata_logs,
    }))
}

/// The first metadata file of a table, written.
pub(super) async fn stage_new(file_io: &FileIO, creation: TableCreation) -> Result<StagedMetadata> {
    let what = format!("cannot create table {}", creation.name);
    let wrap = |e| error(what.clone(), e);
    let metadata = TableMetadataBuilder::from_table_creation(creation)
        .and_then(TableMetadataBuilder::build)
        .map_err(wrap)?
        .metadata;
    let location = MetadataLocation::new_with_metadata(metadata.location(), &metadata);
    // A crash right after this leaves a metadata file that nothing names: orphan removal takes it.
    metadata.write_to(file_io, &location).await.map_err(wrap)?;
    Ok(StagedMetadata { old: None, new: location.to_string(), metadata, expired: Vec::new() })
}

impl StagedMetadata {
    /// Removes the file. Only after a definite no of the catalog, never when the outcome is unknown.
    pub async fn discard(&self, file_io: &FileIO) {
        if let Err(e) = file_io.delete(&self.new).await {
            tracing::warn!(file = %self.new, error = %e, "a metadata file that lost its race stays behind");
        }
    }

    /// [`Self::landed`] after the swap, where an error is no answer to whether it took place.
    pub async fn committed(self, ident: &TableIdent, file_io: &FileIO) -> CommitOutcome {
        self.landed(ident, file_io).await.map_or_else(CommitOutcome::Unknown, CommitOutcome::Committed)
    }

    /// The table at the new state. Metadata files that fell off the log are deleted when the table says so; a crash
    /// before that leaves files that nothing names.
    pub async fn landed(self, ident: &TableIdent, file_io: &FileIO) -> Result<Table> {
        if self.metadata.properties().get(DELETE_AFTER_COMMIT).is_some_and(|v| v == "true") {
            for log in &self.expired {
                if let Err(e) = file_io.delete(&log.metadata_file).await {
                    tracing::warn!(file = %log.metadata_file, error = %e, "an old metadata file stays behind");
                }
            }
        }
        table(ident, self.new, self.metadata, file_io)
    }
}

/// Whether the table is at the metadata file `location`, or has been.
pub(super) fn names(table: &Table, location: &str) -> bool {
    table.metadata_location() == Some(location)
        || table.metadata().metadata_log().iter().any(|log| log.metadata_file == location)
}

/// The table whose metadata lies at `location`.
pub(super) async fn read(ident: &TableIdent, location: &str, file_io: &FileIO) -> Result<Table> {
    let metadata = TableMetadata::read_from(file_io, location)
        .await
        .map_err(|e| error(format!("cannot read the metadata of {ident} at {location}"), e))?;
    table(ident, location.to_owned(), metadata, file_io)
}

/// A table from its parts.
pub(super) fn table(ident: &TableIdent, location: String, metadata: TableMetadata, io: &FileIO) -> Result<Table> {
    let runtime = Runtime::try_current().map_err(|e| error("tables are used inside the tokio runtime", e))?;
    Table::builder()
        .file_io(io.clone())
        .metadata_location(location)
        .metadata(metadata)
        .identifier(ident.clone())
        .runtime(runtime)
        .build()
        .map_err(|e| error(format!("cannot open {ident}"), e))
}

/// Namespaces have one level here, as in Glue and Athena.
pub(super) fn database(ident: &iceberg::NamespaceIdent) -> Result<&str> {
    match ident.as_ref().as_slice() {
        [one] => Ok(one),
        _ => Err(Error::config(format!("namespace {ident:?} must have exactly one level"))),
    }
}
