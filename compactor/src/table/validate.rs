//! Whether a change still makes sense on the table as it is now: pure predicates, asked before every attempt.
//!
//! That removed files are still live is asked while manifests are rewritten ([`super::snapshot`]), where it costs
//! nothing.

use std::collections::HashSet;

use firn_shared::error::{Error, Result};
use iceberg::TableIdent;
use iceberg::spec::{DataContentType, TableMetadata};

use super::offsets;
use super::read::Rows;
use crate::plan::position::Position;

/// What must hold for a change to be committed.
#[derive(Debug, Clone, Default)]
pub struct Expect {
    /// The table's position must still be this one.
    pub position: Option<Position>,
    /// Since this snapshot (`None`: since the empty table) nobody added files that may hold such rows, and no delete
    /// files at all: a rewritten file would bring back what they delete.
    pub no_new_files: Option<(Option<i64>, Rows)>,
}

/// The position that the change was planned on is the table's position.
///
/// # Errors
/// `Conflict` when it moved, `Data` when it cannot be read.
pub fn position_unmoved(ident: &TableIdent, metadata: &TableMetadata, expected: &Position) -> Result<()> {
    let found = offsets::current(metadata)?.map(|s| s.position).unwrap_or_default();
    if found == *expected {
        return Ok(());
    }
    Err(Error::conflict(format!("cannot commit {ident}: another run moved the offsets; run again, nothing was lost")))
}

/// Ids of the snapshots that came after `base`.
///
/// # Errors
/// `Conflict` when `base` is no ancestor any more (a rollback).
pub fn since(ident: &TableIdent, metadata: &TableMetadata, base: Option<i64>) -> Result<HashSet<i64>> {
    let mut newer = HashSet::new();
    for snapshot in offsets::ancestry(metadata) {
        if Some(snapshot.snapshot_id()) == base {
            return Ok(newer);
        }
        newer.insert(snapshot.snapshot_id());
    }
    match base {
        None => Ok(newer),
        Some(base) => Err(Error::conflict(format!(
            "cannot commit {ident}: snapshot {base}, which the change was made on, is no ancestor any more; run again"
        ))),
    }
}

/// A file that came after the base must not touch the rows that are being replaced.
///
/// # Errors
/// `Conflict`, naming the file.
pub fn untouched(ident: &TableIdent, path: &str, content: DataContentType, may_hold: bool) -> Result<()> {
    let why = match content {
        DataContentType::Data if !may_hold => return Ok(()),
        DataContentType::Data => "may hold rows that are being replaced",
        _ => "deletes rows of files that are being replaced",
    };
    Err(Error::conflict(format!("cannot commit {ident}: {path} was added meanwhile and {why}; run again")))
}
