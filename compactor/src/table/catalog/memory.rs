//! A catalog that lives as long as the program: for tables of which nothing is kept.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use firn_shared::error::Result;
use iceberg::io::FileIO;
use iceberg::table::Table;
use iceberg::{NamespaceIdent, TableCreation, TableIdent, TableRequirement, TableUpdate};

use super::pointer::StagedMetadata;
use super::{Catalog, CommitOutcome, Created, pointer};

/// Tables by name, each as its current metadata file says; that is read once a commit, whoever loads the table.
#[derive(Debug)]
pub struct MemoryCatalog {
    file_io: FileIO,
    tables: Mutex<HashMap<TableIdent, Table>>,
    databases: Mutex<HashSet<NamespaceIdent>>,
}

impl MemoryCatalog {
    /// A catalog without tables.
    #[must_use]
    pub fn new(file_io: FileIO) -> Self {
        Self { file_io, tables: Mutex::default(), databases: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<TableIdent, Table>> {
        // Every change is one insertion.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the pointer of `ident` to the staged metadata file, unless somebody else has moved it.
    async fn swap(&self, ident: &TableIdent, staged: &StagedMetadata) -> Result<bool> {
        let table = pointer::read(ident, &staged.new, &self.file_io).await?;
        let mut tables = self.held();
        let unmoved = tables.get(ident).and_then(Table::metadata_location) == staged.old.as_deref();
        if unmoved {
            tables.insert(ident.clone(), table);
        }
        Ok(unmoved)
    }
}

#[async_trait]
impl Catalog for MemoryCatalog {
    fn describe(&self) -> String {
        "the catalog in memory".to_owned()
    }

    async fn load(&self, ident: &TableIdent) -> Result<Option<Table>> {
        Ok(self.held().get(ident).cloned())
    }

    async fn databases(&self) -> Result<Vec<NamespaceIdent>> {
        Ok(self.databases.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect())
    }

    async fn tables(&self, database: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        Ok(self.held().keys().filter(|ident| ident.namespace() == database).cloned().collect())
    }

    async fn ensure_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        pointer::database(namespace)?;
        self.databases.lock().unwrap_or_else(PoisonError::into_inner).insert(namespace.clone());
        Ok(())
    }

    async fn create(&self, namespace: &NamespaceIdent, creation: TableCreation) -> Result<Created> {
        let ident = TableIdent::new(namespace.clone(), creation.name.clone());
        if let Some(table) = self.load(&ident).await? {
            return Ok(Created::Existing(table));
        }
        let staged = pointer::stage_new(&self.file_io, creation).await?;
        if self.swap(&ident, &staged).await? {
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
        if self.swap(ident, &staged).await? {
            return Ok(staged.committed(ident, &self.file_io).await);
        }
        staged.discard(&self.file_io).await;
        let old = staged.old.as_deref().unwrap_or_default();
        Ok(CommitOutcome::Conflict(format!("{ident} is no longer at {old}")))
    }
}
