//! Roles of `firn.yaml` to grants of AWS Lake Formation: what there shall be, what there is, and the steps between.
//!
//! ```text
//! access.roles + pipelines ─→ wanted ─┐
//!                                     ├─→ difference ─→ steps ─→ printed, or carried out by lake_formation
//! lake_formation: what there is ──────┘
//! ```
//! [`wanted`] and [`difference`] are plain functions of values; [`lake_formation`] asks and carries out, [`managed`] keeps
//! what earlier runs granted.
//!
//! What is managed: permissions of the principals that the roles name on the databases of the pipelines, and whatever an
//! earlier run managed, so that a role that is no longer written loses what it had. Nothing else is looked at.

mod difference;
pub mod lake_formation;
pub mod managed;
#[cfg(test)]
mod tests;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

pub use difference::difference;
pub use wanted::{databases, principals, wanted};

/// What a permission is on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Resource {
    /// A database.
    Database {
        /// Its name.
        database: String,
    },
    /// All tables of a database, present and future.
    AllTables {
        /// The database.
        database: String,
    },
    /// A table, with columns that it may get later.
    Table {
        /// The database.
        database: String,
        /// The table.
        table: String,
    },
    /// Columns of a table.
    Columns {
        /// The database.
        database: String,
        /// The table.
        table: String,
        /// Which.
        columns: Names,
    },
}

/// Columns of a table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Names {
    /// These.
    Only(BTreeSet<String>),
    /// All but these, those included that come later. Found only: Firn grants columns by name.
    AllBut(BTreeSet<String>),
}

impl Resource {
    /// The database it is in.
    #[must_use]
    pub fn database(&self) -> &str {
        let (Self::Database { database }
        | Self::AllTables { database }
        | Self::Table { database, .. }
        | Self::Columns { database, .. }) = self;
        database
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
        match self {
            Self::Database { database } => write!(f, "database {database}"),
            Self::AllTables { database } => write!(f, "all tables of {database}"),
            Self::Table { database, table } => write!(f, "{database}.{table}"),
            Self::Columns { database, table, columns: Names::Only(names) } => {
                write!(f, "{database}.{table} ({})", list(names))
            }
            Self::Columns { database, table, columns: Names::AllBut(names) } => {
                write!(f, "{database}.{table} (all but {})", list(names))
            }
        }
    }
}

/// Permissions by principal and what they are on, under the names that Lake Formation has for them.
pub type Permissions = BTreeMap<(String, Resource), BTreeSet<String>>;

/// A step from what there is to what there shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What is done.
    pub act: Act,
    /// Who is concerned.
    pub principal: String,
    /// On what.
    pub resource: Resource,
    /// Which permissions.
    pub permissions: BTreeSet<String>,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Act {
    /// Gives permissions.
    Grant,
    /// Takes permissions.
    Revoke,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.act {
            Act::Grant => '+',
            Act::Revoke => '-',
        };
        let permissions = self.permissions.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        write!(f, "{sign} {}: {permissions} on {}", self.principal, self.resource)
    }
}
