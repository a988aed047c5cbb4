//! `access:` of `firn.yaml`.

use std::collections::BTreeMap;

use super::{OneOrMany, wire};

wire! {
    /// Who reads what: roles that become grants of AWS Lake Formation.
    struct AccessYaml {
        /// Another endpoint than AWS's, for emulators. Region and keys are those of `catalog.glue`.
        endpoint: Option<String>,
        /// Roles by a name of your choice.
        #[schemars(required)]
        roles: Option<BTreeMap<String, Option<RoleYaml>>>,
    }
    /// Principals and what they may read.
    struct RoleYaml {
        /// ARNs of IAM users, roles or groups, or what else Lake Formation takes as a principal.
        #[schemars(required)]
        principals: Option<OneOrMany>,
        /// What they may read; everything else of these databases that they were granted is revoked.
        #[schemars(required)]
        reads: Option<Vec<Option<ReadsYaml>>>,
    }
    /// Tables that may be read.
    struct ReadsYaml {
        /// The database.
        #[schemars(required)]
        database: Option<String>,
        /// Tables; absent is every table that pipelines fill, without the quarantine tables.
        tables: Option<Vec<String>>,
        /// Only these columns.
        columns: Option<Vec<String>>,
        /// All columns but these.
        exclude: Option<Vec<String>>,
        /// Also the columns that `piiColumns` names (default false).
        personal: Option<bool>,
    }
}
