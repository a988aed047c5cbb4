//! Who reads what, as `firn.yaml` says it.

use std::collections::BTreeMap;

use super::wire::{AccessYaml, OneOrMany, ReadsYaml, RoleYaml};

/// Roles that become grants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Another endpoint of Lake Formation than AWS's.
    pub endpoint: Option<String>,
    /// Roles by name.
    pub roles: BTreeMap<String, Role>,
}

/// Principals and what they may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// ARNs, or numbers of accounts.
    pub principals: Vec<String>,
    /// What they may read.
    pub reads: Vec<Reads>,
}

/// Tables of a database that may be read. Whether they exist is known only together with all pipelines, which not every
/// program loads: whoever makes grants of them asks, and says where they stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reads {
    /// `file:line:column` of the entry.
    pub at: String,
    /// The same of what is in it, by its path inside the entry (`tables[1]`).
    pub places: BTreeMap<String, String>,
    /// The database.
    pub database: String,
    /// Tables; `None` is every table that pipelines fill.
    pub tables: Option<Vec<String>>,
    /// Which of their columns.
    pub columns: Columns,
    /// Whether columns with personal data belong to them.
    pub personal: bool,
}

impl Reads {
    /// `file:line:column` of a part, or of the entry.
    #[must_use]
    pub fn place(&self, part: &str) -> &str {
        self.places.get(part).unwrap_or(&self.at)
    }
}

/// Columns of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Columns {
    /// These.
    Only(Vec<String>),
    /// All but these.
    AllBut(Vec<String>),
}

/// The same as it is written.
pub(super) fn show(access: &Access) -> AccessYaml {
    let reads = |reads: &Reads| {
        let (columns, exclude) = match reads.columns.clone() {
            Columns::Only(columns) => (Some(columns), None),
            Columns::AllBut(columns) => (None, (!columns.is_empty()).then_some(columns)),
        };
        let (database, tables, personal) = (Some(reads.database.clone()), reads.tables.clone(), Some(reads.personal));
        Some(ReadsYaml { database, tables, columns, exclude, personal })
    };
    let role = |role: &Role| {
        let principals = Some(OneOrMany::Many(role.principals.clone()));
        Some(RoleYaml { principals, reads: Some(role.reads.iter().map(reads).collect()) })
    };
    let roles = access.roles.iter().map(|(name, of)| (name.clone(), role(of))).collect();
    AccessYaml { endpoint: access.endpoint.clone(), roles: Some(roles) }
}
