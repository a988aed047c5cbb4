//! Records that do not fit their columns, kept as they were: the table `{table}_quarantine`.
//!
//! Each row holds the payload byte for byte, where in it the fault lies and why, which step found it, and `_firn`. The
//! quarantine is committed before the main table, and every run replaces the rows of the offsets it consumes, so that a
//! crash between the two commits, another slicing, or a rollback doubles nothing.

mod rows;

pub use rows::{Reject, Rejects};

use firn_shared::types::LogicalType;

use crate::table::schema::TableColumn;

/// What is appended to the table's name.
pub const SUFFIX: &str = "_quarantine";

/// The quarantine table's columns, `_firn` last.
#[must_use]
pub fn columns() -> Vec<TableColumn> {
    let column = |name: &str, r#type, required, doc: &str| TableColumn {
        name: name.to_owned(),
        r#type,
        required,
        doc: Some(doc.to_owned()),
    };
    vec![
        column("payload", LogicalType::Binary, true, "the Kafka record's value, byte for byte"),
        column("json_path", LogicalType::String, true, "where in the payload the fault lies"),
        column("reason", LogicalType::String, true, "what is wrong, one word"),
        column("detail", LogicalType::String, true, "what was expected and what was found"),
        column("step", LogicalType::String, false, "file:line:column of the transformation that refused the record"),
        column("event", LogicalType::String, false, "the event's name"),
        column("kafka_timestamp", LogicalType::TimestampTz, false, "the Kafka record's timestamp"),
        TableColumn::provenance(),
    ]
}
