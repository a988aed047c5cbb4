//! The embedded catalog: a SQLite file with the tables of Iceberg's JDBC catalog, which PyIceberg and Spark read.
//!
//! Every call opens the file, does one statement or transaction, and closes it; SQLite's own locks keep processes apart.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use firn_shared::error::{Error, Result};
use iceberg::io::FileIO;
use iceberg::table::Table;
use iceberg::{NamespaceIdent, TableCreation, TableIdent, TableRequirement, TableUpdate};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::{Catalog, CommitOutcome, Created, pointer};

/// How long a statement waits for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// Column for column what Iceberg's JDBC catalog and PyIceberg's `SqlCatalog` create.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS iceberg_tables (
    catalog_name VARCHAR(255) NOT NULL,
    table_namespace VARCHAR(255) NOT NULL,
    table_name VARCHAR(255) NOT NULL,
    metadata_location VARCHAR(1000),
    previous_metadata_location VARCHAR(1000),
    iceberg_type VARCHAR(5),
    PRIMARY KEY (catalog_name, table_namespace, table_name)
);
CREATE TABLE IF NOT EXISTS iceberg_namespace_properties (
    catalog_name VARCHAR(255) NOT NULL,
    namespace VARCHAR(255) NOT NULL,
    property_key VARCHAR(255) NOT NULL,
    property_value VARCHAR(1000) NOT NULL,
    PRIMARY KEY (catalog_name, namespace, property_key)
);";

/// A catalog in a SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteCatalog {
    path: PathBuf,
    name: String,
    file_io: FileIO,
}

impl SqliteCatalog {
    /// Opens or makes the file; `name` is the catalog inside it.
    ///
    /// # Errors
    /// `Config` when the file cannot be made, `Unavailable` when it stays locked.
    pub async fn open(path: PathBuf, name: String, file_io: FileIO) -> Result<Self> {
        if let Some(parent) = path.parent() {
            tokio::fs::create_dir_all(parent)
                .await
                .map_err(|e| Error::config(format!("cannot make {}", parent.display())).with_source(e))?;
        }
        let catalog = Self { path, name, file_io };
        catalog.run(|connection| connection.execute_batch(TABLES)).await?;
        Ok(catalog)
    }

    /// One piece of SQL work on a blocking thread.
    async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.attempt(work).await?.map_err(|e| self.failed(e))
    }

    /// The same, with SQLite's own error; the outer error is for the thread.
    async fn attempt<T, F>(&self, work: F) -> Result<rusqlite::Result<T>>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let path = self.path.clone();
        let job = move || {
            let mut connection = Connection::open(&path)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            work(&mut connection)
        };
        tokio::task::spawn_blocking(job).await.map_err(|e| Error::bug("a thread of the catalog died").with_source(e))
    }

    fn failed(&self, error: rusqlite::Error) -> Error {
        let message = format!("{} failed: {error}", self.describe());
        if is_busy(&error) { Error::unavailable(message) } else { Error::config(message) }.with_source(error)
    }

    async fn location(&self, ident: &TableIdent) -> Result<Option<String>> {
        let (catalog, namespace) = (self.name.clone(), pointer::database(ident.namespace())?.to_owned());
        let table = ident.name().to_owned();
        let found = self
            .run(move |c| {
                c.query_row(
                    "SELECT metadata_location FROM iceberg_tables \
                     WHERE catalog_name = ?1 AND table_namespace = ?2 AND table_name = ?3",
                    params![catalog, namespace, table],
                    |row| row.get::<_, Option<String>>(0),
                )
                .optional()
            })
            .await?;
        match found {
            None => Ok(None),
            Some(Some(location)) => Ok(Some(location)),
            Some(None) => Err(Error::data(format!("{ident} in {} has no metadata location", self.describe()))),
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

#[async_trait]
impl Catalog for SqliteCatalog {
    fn describe(&self) -> String {
        format!("catalog {} in {}", self.name, Path::display(&self.path))
    }

    async fn load(&self, ident: &TableIdent) -> Result<Option<Table>> {
        match self.location(ident).await? {
            Some(location) => Ok(Some(pointer::read(ident, &location, &self.file_io).await?)),
            None => Ok(None),
        }
    }

    async fn databases(&self) -> Result<Vec<NamespaceIdent>> {
        let catalog = self.name.clone();
        let names = self
            .run(move |c| {
                let mut found = c.prepare(
                    "SELECT table_namespace FROM iceberg_tables WHERE catalog_name = ?1 \
                     UNION SELECT namespace FROM iceberg_namespace_properties WHERE catalog_name = ?1",
                )?;
                found.query_map([catalog], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()
            })
            .await?;
        Ok(names.into_iter().map(NamespaceIdent::new).collect())
    }

    async fn tables(&self, database: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        let (catalog, namespace) = (self.name.clone(), pointer::database(database)?.to_owned());
        let names = self
            .run(move |c| {
                // Tables of catalogs that are older than views have no type.
                let mut found = c.prepare(
                    "SELECT table_name FROM iceberg_tables WHERE catalog_name = ?1 AND table_namespace = ?2 \
                     AND (iceberg_type IS NULL OR iceberg_type = 'TABLE')",
                )?;
                found.query_map([catalog, namespace], |row| row.get(0))?.collect::<rusqlite::Result<Vec<_>>>()
            })
            .await?;
        Ok(names.into_iter().map(|name| TableIdent::new(database.clone(), name)).collect())
    }

    async fn ensure_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        let (catalog, namespace) = (self.name.clone(), pointer::database(namespace)?.to_owned());
        self.run(move |c| {
            c.execute(
                "INSERT OR IGNORE INTO iceberg_namespace_properties VALUES (?1, ?2, 'exists', 'true')",
                params![catalog, namespace],
            )
        })
        .await?;
        Ok(())
    }

    async fn create(&self, namespace: &NamespaceIdent, creation: TableCreation) -> Result<Created> {
        let ident = TableIdent::new(namespace.clone(), creation.name.clone());
        if let Some(table) = self.load(&ident).await? {
            return Ok(Created::Existing(table));
        }
        let staged = pointer::stage_new(&self.file_io, creation).await?;
        let (catalog, namespace) = (self.name.clone(), pointer::database(namespace)?.to_owned());
        let (table, location) = (ident.name().to_owned(), staged.new.clone());
        let inserted = self
            .run(move |c| {
                c.execute(
                    "INSERT OR IGNORE INTO iceberg_tables \
                     (catalog_name, table_namespace, table_name, metadata_location, iceberg_type) \
                     VALUES (?1, ?2, ?3, ?4, 'TABLE')",
                    params![catalog, namespace, table, location],
                )
            })
            .await?;
        if inserted == 1 {
            return Ok(Created::New(staged.landed(&ident, &self.file_io).await?));
        }
        staged.discard(&self.file_io).await;
        self.made_by_another(&ident).await.map(Created::Existing)
    }

    async fn commit(
        &self,
        base: &Table,
        updates: Vec<TableUpdate>,
        requirements: Vec<TableRequirement>,
    ) -> Result<CommitOutcome> {
        let staged = match pointer::stage(base, updates, &requirements).await? {
            Ok(staged) => staged,
            Err(unmet) => return Ok(CommitOutcome::Conflict(unmet)),
        };
        let ident = base.identifier();
        let (catalog, namespace) = (self.name.clone(), pointer::database(ident.namespace())?.to_owned());
        let (table, new, old) = (ident.name().to_owned(), staged.new.clone(), staged.old.clone());
        let swapped = self
            .attempt(move |c| {
                c.execute(
                    "UPDATE iceberg_tables SET metadata_location = ?1, previous_metadata_location = ?2 \
                     WHERE catalog_name = ?3 AND table_namespace = ?4 AND table_name = ?5 AND metadata_location = ?2",
                    params![new, old, catalog, namespace, table],
                )
            })
            .await;
        match swapped {
            // A crash right after the swap leaves the new table, complete.
            Ok(Ok(1)) => Ok(staged.committed(ident, &self.file_io).await),
            Ok(Ok(_)) => {
                staged.discard(&self.file_io).await;
                let old = staged.old.as_deref().unwrap_or_default();
                Ok(CommitOutcome::Conflict(format!("{ident} is no longer at {old}")))
            }
            // The statement never got its lock: nothing was changed.
            Ok(Err(e)) if is_busy(&e) => {
                staged.discard(&self.file_io).await;
                Err(self.failed(e))
            }
            Ok(Err(e)) => Ok(CommitOutcome::Unknown(self.failed(e))),
            Err(e) => Ok(CommitOutcome::Unknown(e)),
        }
    }
}
