//! Catalogs: where the pointer to a table's current metadata lives, and the one atomic step that moves it.
//!
//! [`sqlite`] and [`glue`] keep a pointer: we write the metadata file and compare-and-swap ([`pointer`]); so does [`memory`],
//! for what is thrown away anyway. [`rest`] takes the change and writes the metadata itself. All of them say how a commit
//! went in the same words.

pub mod glue;
mod glue_list;
pub mod memory;
mod pointer;
pub mod rest;
pub mod sqlite;

use std::sync::Arc;

use async_trait::async_trait;
use firn_shared::aws::Connection;
use firn_shared::config::domain;
use firn_shared::error::{Error, Result};
use firn_shared::store::Stores;
use iceberg::table::Table;
use iceberg::{NamespaceIdent, TableCreation, TableIdent, TableRequirement, TableUpdate};

/// How a commit went.
#[derive(Debug)]
pub enum CommitOutcome {
    /// The table is at the new state.
    Committed(Table),
    /// The table is not and will not be at the new state: somebody else was faster, or a requirement no longer holds.
    Conflict(String),
    /// Nobody knows: the request may have been carried out, or may still be.
    Unknown(Error),
}

/// Who made the table.
#[derive(Debug)]
pub enum Created {
    /// This call did.
    New(Table),
    /// It was there already, or somebody else was faster.
    Existing(Table),
}

impl Created {
    /// The table, whoever made it.
    #[must_use]
    pub fn into_table(self) -> Table {
        match self {
            Self::New(table) | Self::Existing(table) => table,
        }
    }
}

/// Where tables are found and their pointers are moved.
///
/// Errors: `Unavailable` when the catalog does not answer, `Config` for refused credentials, `Data` for a table that is
/// not an Iceberg table or whose metadata cannot be read.
#[async_trait]
pub trait Catalog: std::fmt::Debug + Send + Sync {
    /// What and where it is, for messages.
    fn describe(&self) -> String;

    /// The table as it is now, or `None` when there is none.
    async fn load(&self, ident: &TableIdent) -> Result<Option<Table>>;

    /// The databases that there are, in any order; namespaces below others are none.
    async fn databases(&self) -> Result<Vec<NamespaceIdent>>;

    /// The Iceberg tables of a database, in any order; none when there is no such database.
    async fn tables(&self, database: &NamespaceIdent) -> Result<Vec<TableIdent>>;

    /// Makes the namespace unless it exists.
    async fn ensure_namespace(&self, namespace: &NamespaceIdent) -> Result<()>;

    /// Makes the table (`creation` must carry a location) unless it exists; of two creators one wins and the other
    /// gets the winner's table.
    async fn create(&self, namespace: &NamespaceIdent, creation: TableCreation) -> Result<Created>;

    /// The table that somebody else was faster to make.
    async fn made_by_another(&self, ident: &TableIdent) -> Result<Table> {
        let table = self.load(ident).await?;
        table.ok_or_else(|| Error::conflict(format!("{ident} was made and dropped; run again")))
    }

    /// Applies `updates` to `base` when all `requirements` hold and nobody moved the table since `base` was loaded.
    ///
    /// `Err` means that the table is unchanged and stays so; what may have happened unseen is
    /// [`CommitOutcome::Unknown`].
    async fn commit(
        &self,
        base: &Table,
        updates: Vec<TableUpdate>,
        requirements: Vec<TableRequirement>,
    ) -> Result<CommitOutcome>;
}

/// The catalog that `firn.yaml` names. The stores serve the tables' files.
///
/// # Errors
/// `Config` and `Unavailable` as the catalog says.
pub async fn open(catalog: &domain::Catalog, stores: &Stores) -> Result<Arc<dyn Catalog>> {
    let file_io = super::storage::file_io(stores);
    Ok(match catalog {
        domain::Catalog::Sqlite { path, name } => {
            Arc::new(sqlite::SqliteCatalog::open(path.clone(), name.clone(), file_io).await?)
        }
        domain::Catalog::Glue { endpoint, region, catalog_id, credentials } => {
            let connection = Connection {
                service: "Glue",
                section: "catalog.glue",
                endpoint: endpoint.as_deref(),
                region: region.as_deref(),
                credentials: credentials.as_ref(),
            };
            let client = aws_sdk_glue::Client::new(&connection.load().await?);
            Arc::new(glue::GlueCatalog::new(client, catalog_id.clone(), file_io))
        }
        domain::Catalog::Rest { uri, warehouse, credential, token, scope } => {
            let access = rest::Access {
                credential: credential.clone(),
                token: token.clone(),
                scope: scope.clone().unwrap_or_else(|| "catalog".to_owned()),
            };
            Arc::new(rest::RestCatalog::connect(uri, warehouse.as_deref(), access, file_io).await?)
        }
    })
}
