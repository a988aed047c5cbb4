//! What an erasure leaves on a table, so that nobody who read raw objects before it commits after it.
//!
//! An erasure changes the raw zone first, then marks every table, then looks through the tables. A run takes the mark down
//! before it reads the ledger and commits only while the table still has it: what it commits is either there when the
//! erasure looks, or was made of raw objects without the subject.

use firn_shared::error::{Error, Result};
use iceberg::spec::TableMetadata;
use iceberg::table::Table;
use iceberg::{TableIdent, TableRequirement, TableUpdate};

use super::refs::Step;

/// Table property: the last erasure that the table was marked by.
pub const PROPERTY: &str = "firn.erasure";

/// The last erasure that somebody knows of; none before the first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mark(Option<String>);

impl Mark {
    /// The mark of a table.
    #[must_use]
    pub fn of(metadata: &TableMetadata) -> Self {
        Self(metadata.properties().get(PROPERTY).cloned())
    }

    /// Nobody has erased anything since.
    ///
    /// # Errors
    /// `Conflict` when somebody has.
    pub fn check(&self, ident: &TableIdent, metadata: &TableMetadata) -> Result<()> {
        if *self == Self::of(metadata) {
            return Ok(());
        }
        Err(Error::conflict(format!(
            "cannot commit {ident}: a subject was erased while raw objects were read; run again, nothing was lost"
        )))
    }
}

/// What a run took down before it read the ledger.
#[derive(Debug, Clone, Default)]
pub struct Marks {
    /// Of its table.
    pub table: Mark,
    /// Of its quarantine table.
    pub quarantine: Mark,
}

/// Marks a table; `None` when it is marked by this erasure already.
pub(crate) fn mark(table: &Table, erasure: &str) -> Option<Step> {
    let metadata = table.metadata();
    if metadata.properties().get(PROPERTY).is_some_and(|known| known == erasure) {
        return None;
    }
    let updates = [(PROPERTY.to_owned(), erasure.to_owned())].into();
    Some(Step {
        updates: vec![TableUpdate::SetProperties { updates }],
        requirements: vec![TableRequirement::UuidMatch { uuid: metadata.uuid() }],
    })
}
