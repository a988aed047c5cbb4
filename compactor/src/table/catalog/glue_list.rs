//! What there is in AWS Glue. Only an erasure asks, so only its role needs these two permissions.

use aws_sdk_glue::Client;
use aws_sdk_glue::types::Table as GlueTable;
use firn_shared::aws::failed;
use firn_shared::error::Result;
use iceberg::{NamespaceIdent, TableIdent};

use super::pointer;

/// The databases.
pub(super) async fn databases(client: &Client, catalog: Option<&str>) -> Result<Vec<NamespaceIdent>> {
    let request = client.get_databases().set_catalog_id(catalog.map(str::to_owned));
    let (mut pages, mut found) = (request.into_paginator().send(), Vec::new());
    while let Some(page) = pages.next().await {
        let page = page.map_err(|e| failed("cannot list the databases in Glue (glue:GetDatabases)", e))?;
        found.extend(page.database_list.into_iter().map(|database| NamespaceIdent::new(database.name)));
    }
    Ok(found)
}

/// The Iceberg tables of a database.
pub(super) async fn tables(
    client: &Client,
    catalog: Option<&str>,
    database: &NamespaceIdent,
) -> Result<Vec<TableIdent>> {
    let name = pointer::database(database)?;
    let request = client.get_tables().set_catalog_id(catalog.map(str::to_owned)).database_name(name);
    let (mut pages, mut found) = (request.into_paginator().send(), Vec::new());
    while let Some(page) = pages.next().await {
        let page = match page {
            Ok(page) => page,
            Err(e) if e.as_service_error().is_some_and(|s| s.is_entity_not_found_exception()) => return Ok(Vec::new()),
            Err(e) => return Err(failed(&format!("cannot list the tables of {name} in Glue (glue:GetTables)"), e)),
        };
        let iceberg = page.table_list.unwrap_or_default().into_iter().filter(is_iceberg);
        found.extend(iceberg.map(|table| TableIdent::new(database.clone(), table.name)));
    }
    Ok(found)
}

/// Whether Glue says so of a table, as every engine writes it.
fn is_iceberg(table: &GlueTable) -> bool {
    let kind = table.parameters().and_then(|parameters| parameters.get("table_type"));
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case("iceberg"))
}
