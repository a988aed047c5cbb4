//! Iceberg tables: what the `iceberg` crate leaves out, on top of its specification types.
//!
//! Data flows down this list: [`schema`] turns checked columns into Iceberg's and Arrow's types, [`create`] makes the
//! table or loads it ([`athena`] says what of it Athena does not read), [`crate::write`] writes data and delete files, [`snapshot`] turns a change into one snapshot, its
//! manifests made by `producer`, on `main` or a branch ([`refs`]). [`validate`] says whether that snapshot still makes
//! sense on the table as it is now, and [`commit`] swaps the pointer in a [`catalog`], again and again until it knows how
//! it went. [`offsets`] keeps the consumed position in the same metadata, [`erasable`] what goes with a subject, [`erasure`]
//! what keeps runs from bringing back what was erased, [`protected`] since when values are protected. [`calendar`] counts the years to hours that partitions are made of.
//! [`scan`] is the one way to read: live files and
//! live rows, deletes applied. [`read`] and [`overwrite`] choose rows by where they came from, for `reprocess`, the
//! quarantine and `reconcile --deep`. [`storage`] stands below all of it: every byte goes through our own object store.

pub mod athena;
pub mod calendar;
pub mod catalog;
pub mod commit;
pub mod create;
pub mod erasable;
pub mod erasure;
mod files;
pub mod offsets;
pub mod overwrite;
mod producer;
pub mod protected;
pub mod read;
pub mod refs;
pub mod scan;
pub mod schema;
pub mod snapshot;
pub mod storage;
pub mod validate;

use firn_shared::error::{Error, ErrorKind};
use firn_shared::ids::{DatabaseName, TableName};
use iceberg::{NamespaceIdent, TableIdent};

pub use catalog::{Catalog, CommitOutcome};
pub use commit::{Committed, Committer};
pub use files::NewFile;
pub(crate) use files::schema_of;
pub(crate) use producer::MERGE_BYTES;
pub use snapshot::Change;

/// The catalog's name for a table.
#[must_use]
pub fn ident(database: &DatabaseName, table: &TableName) -> TableIdent {
    TableIdent::new(NamespaceIdent::new(database.to_string()), table.to_string())
}

/// An error of the `iceberg` crate as one of ours. The kind is that of our own error below it, when the object store or
/// a catalog caused it; else it follows from what the crate says.
pub fn error(what: impl Into<String>, error: iceberg::Error) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(&error);
    let mut kind = match error.kind() {
        iceberg::ErrorKind::CatalogCommitConflicts => ErrorKind::Conflict,
        iceberg::ErrorKind::FeatureUnsupported => ErrorKind::Config,
        iceberg::ErrorKind::DataInvalid => ErrorKind::Data,
        _ => ErrorKind::Bug,
    };
    while let Some(e) = cause {
        if let Some(ours) = e.downcast_ref::<Error>() {
            kind = ours.kind();
        }
        cause = e.source();
    }
    Error::new(kind, format!("{}: {error}", what.into())).with_source(error)
}

#[cfg(test)]
mod change_tests;
#[cfg(test)]
mod rewrite_tests;
#[cfg(test)]
mod spec_tests;
#[cfg(test)]
mod tests;
