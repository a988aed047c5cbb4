//! What earlier runs granted: `{warehouse}/_access/managed.json`, the principals and the databases in which they hold
//! something from us. With it a role that is no longer in `firn.yaml` loses what it had; without it, nobody would know.
//!
//! It is written before grants are made and again when all is done: a crash in between leaves it naming more than there
//! is, never less.

use std::collections::BTreeSet;

use firn_shared::error::{Error, Result};
use firn_shared::store::{PutMode, Store};
use serde::{Deserialize, Serialize};

use super::Permissions;

/// Where it is in the warehouse.
const OBJECT: &str = "_access/managed.json";
const FORMAT: u32 = 1;

/// A principal and a database in which it was granted something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Managed {
    /// The principal.
    pub principal: String,
    /// The database.
    pub database: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    managed: BTreeSet<Managed>,
}

/// What is managed by these permissions.
#[must_use]
pub fn of(permissions: &Permissions) -> BTreeSet<Managed> {
    let of = |(principal, resource): &(String, super::Resource)| Managed {
        principal: principal.clone(),
        database: resource.database().to_owned(),
    };
    permissions.keys().map(of).collect()
}

/// What the warehouse says; nothing before the first grant.
///
/// # Errors
/// `Data` for an object that is none of ours, else those of the store.
pub async fn load(warehouse: &dyn Store) -> Result<BTreeSet<Managed>> {
    if warehouse.head(OBJECT).await?.is_none() {
        return Ok(BTreeSet::new());
    }
    let body = warehouse.get(OBJECT).await?;
    let place = || format!("{}/{OBJECT}", warehouse.url());
    let stored: Stored = serde_json::from_slice(&body)
        .map_err(|e| Error::data(format!("{} does not say what is managed: {e}", place())).with_source(e))?;
    if stored.format == FORMAT {
        return Ok(stored.managed);
    }
    Err(Error::data(format!("{} has format {}; a newer Firn wrote it", place(), stored.format)))
}

/// Writes it.
///
/// # Errors
/// Those of the store.
pub async fn save(warehouse: &dyn Store, managed: BTreeSet<Managed>) -> Result<()> {
    let body = serde_json::to_vec_pretty(&Stored { format: FORMAT, managed });
    let body = body.map_err(|e| Error::bug("what is managed is JSON").with_source(e))?;
    warehouse.put(OBJECT, body.into(), PutMode::Overwrite).await.map(drop)
}
