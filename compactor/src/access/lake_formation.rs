//! AWS Lake Formation: the permissions that there are, and one step after the other.

use std::collections::BTreeSet;

use aws_sdk_lakeformation::Client;
use aws_sdk_lakeformation::error::BuildError;
use aws_sdk_lakeformation::types::{
    self, ColumnWildcard, DataLakePrincipal, DatabaseResource, Permission, TableResource, TableWildcard,
    TableWithColumnsResource,
};
use firn_shared::aws::{Connection, failed};
use firn_shared::config::Config;
use firn_shared::config::domain::Catalog;
use firn_shared::error::{Error, Result};

use super::managed::Managed;
use super::{Act, Names, Permissions, Resource, Step, databases, principals};

/// Stands for everybody whom IAM lets in: what it may, Lake Formation does not restrict.
const EVERYBODY: &str = "IAM_ALLOWED_PRINCIPALS";

/// The permissions of a Glue catalog.
#[derive(Debug)]
pub struct LakeFormation {
    client: Client,
    catalog_id: Option<String>,
}

/// What Lake Formation says of the databases and principals that are managed here.
#[derive(Debug, Default)]
pub struct Found {
    /// Permissions.
    pub permissions: Permissions,
    /// What is open to everybody whom IAM lets in.
    pub open: BTreeSet<String>,
}

impl LakeFormation {
    /// Reached as the Glue catalog is.
    ///
    /// # Errors
    /// `Config` when the catalog is not Glue.
    pub async fn connect(config: &Config) -> Result<Self> {
        let Catalog::Glue { region, credentials, catalog_id, .. } = &config.deployment.catalog else {
            return Err(Error::config(
                "grants need `catalog: {glue: ...}`: Lake Formation governs Glue's catalog only",
            ));
        };
        let access = config.deployment.access.as_ref();
        let connection = Connection {
            service: "Lake Formation",
            section: "catalog.glue",
            endpoint: access.and_then(|access| access.endpoint.as_deref()),
            region: region.as_deref(),
            credentials: credentials.as_ref(),
        };
        Ok(Self { client: Client::new(&connection.load().await?), catalog_id: catalog_id.clone() })
    }

    /// What there is of what is managed: for the principals of the roles in the databases of the pipelines, and of
    /// `earlier` runs.
    ///
    /// # Errors
    /// What Lake Formation says.
    pub async fn found(&self, config: &Config, earlier: &BTreeSet<Managed>) -> Result<Found> {
        let (databases, principals) = (databases(config), principals(config));
        let is_managed = |principal: &str, database: &str| {
            principals.contains(principal) && databases.contains(database)
                || earlier.iter().any(|one| one.principal == principal && one.database == database)
        };
        let mut found = Found::default();
        let mut next = None;
        loop {
            // A filter by principal would ask for a request a table.
            let request = self.client.list_permissions().set_catalog_id(self.catalog_id.clone()).set_next_token(next);
            let page = request.send().await.map_err(|e| failed("cannot list permissions", e))?;
            for entry in page.principal_resource_permissions() {
                let principal = entry.principal().and_then(DataLakePrincipal::data_lake_principal_identifier);
                let Some((principal, resource)) = principal.zip(entry.resource().and_then(from_wire)) else { continue };
                if principal == EVERYBODY && databases.contains(resource.database()) {
                    found.open.insert(resource.to_string());
                } else if is_managed(principal, resource.database()) {
                    let names = entry.permissions().iter().map(|permission| permission.as_str().to_owned());
                    found.permissions.entry((principal.to_owned(), resource)).or_default().extend(names);
                }
            }
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(found);
            }
        }
    }

    /// Carries out one step.
    ///
    /// # Errors
    /// What Lake Formation says.
    pub async fn apply(&self, step: &Step) -> Result<()> {
        let malformed = |e: BuildError| Error::bug("a resource lacks a name").with_source(e);
        let principal = DataLakePrincipal::builder().data_lake_principal_identifier(&step.principal).build();
        let resource = to_wire(&step.resource).map_err(malformed)?;
        let permissions: Vec<Permission> =
            step.permissions.iter().map(|name| Permission::from(name.as_str())).collect();
        let what = format!("cannot carry out `{step}`");
        let catalog = self.catalog_id.clone();
        match step.act {
            Act::Grant => {
                let request = self.client.grant_permissions().set_catalog_id(catalog).principal(principal);
                let request = request.resource(resource).set_permissions(Some(permissions));
                request.send().await.map(drop).map_err(|e| failed(&what, e))
            }
            Act::Revoke => {
                let request = self.client.revoke_permissions().set_catalog_id(catalog).principal(principal);
                let request = request.resource(resource).set_permissions(Some(permissions));
                request.send().await.map(drop).map_err(|e| failed(&what, e))
            }
        }
    }
}

fn from_wire(resource: &types::Resource) -> Option<Resource> {
    if let Some(database) = resource.database() {
        return Some(Resource::Database { database: database.name().to_owned() });
    }
    if let Some(table) = resource.table() {
        let database = table.database_name().to_owned();
        return Some(match table.name() {
            // Lake Formation writes a wildcard both ways.
            Some(name) if table.table_wildcard().is_none() && name != "ALL_TABLES" => {
                Resource::Table { database, table: name.to_owned() }
            }
            _ => Resource::AllTables { database },
        });
    }
    let of = resource.table_with_columns()?;
    let (database, table) = (of.database_name().to_owned(), of.name().to_owned());
    let set = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
    let columns = match of.column_wildcard() {
        Some(wildcard) => Names::AllBut(set(wildcard.excluded_column_names())),
        None => Names::Only(set(of.column_names())),
    };
    Some(match columns {
        // The whole table, written as all columns but none.
        Names::AllBut(but) if but.is_empty() => Resource::Table { database, table },
        columns => Resource::Columns { database, table, columns },
    })
}

fn to_wire(resource: &Resource) -> Result<types::Resource, BuildError> {
    let wire = types::Resource::builder();
    let of_table = |database: &str| TableResource::builder().database_name(database);
    Ok(match resource {
        Resource::Database { database } => wire.database(DatabaseResource::builder().name(database).build()?),
        Resource::AllTables { database } => {
            wire.table(of_table(database).table_wildcard(TableWildcard::builder().build()).build()?)
        }
        Resource::Table { database, table } => wire.table(of_table(database).name(table).build()?),
        Resource::Columns { database, table, columns } => {
            let of = TableWithColumnsResource::builder().database_name(database).name(table);
            let list = |names: &BTreeSet<String>| Some(names.iter().cloned().collect());
            let of = match columns {
                Names::Only(names) => of.set_column_names(list(names)),
                Names::AllBut(names) => {
                    of.column_wildcard(ColumnWildcard::builder().set_excluded_column_names(list(names)).build())
                }
            };
            wire.table_with_columns(of.build()?)
        }
    }
    .build())
}
