//! AWS Glue: the pointer is the table parameter `metadata_location`, locked by Glue's table version.
//!
//! `UpdateTable` replaces the whole table, so what others put on it is read and sent back. It locks only when the
//! `VersionId` is sent; `SkipArchive` keeps Glue from storing every version. The client's own retries are off for it:
//! a repeated request would fail on the version that its own first try made, and look like a lost race.

use std::collections::HashMap;

use async_trait::async_trait;
use aws_sdk_glue::Client;
use aws_sdk_glue::config::retry::RetryConfig;
use aws_sdk_glue::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_glue::types::{Column, DatabaseInput, StorageDescriptor, Table as GlueTable, TableInput};
use firn_shared::aws::failed;
use firn_shared::error::{Error, Result};
use iceberg::io::FileIO;
use iceberg::spec::TableMetadata;
use iceberg::table::Table;
use iceberg::{NamespaceIdent, TableCreation, TableIdent, TableRequirement, TableUpdate};

use super::{Catalog, CommitOutcome, Created, glue_list, pointer};
use crate::table::schema::glue_type;

const METADATA_LOCATION: &str = "metadata_location";
const PREVIOUS_METADATA_LOCATION: &str = "previous_metadata_location";

/// The tables of one Glue Data Catalog.
#[derive(Debug, Clone)]
pub struct GlueCatalog {
    client: Client,
    catalog_id: Option<String>,
    file_io: FileIO,
}

/// What Glue answers when it has looked at a request and not carried it out. Everything else may have had its effect:
/// `OperationTimeoutException` has status 400 like these, and says only that the answer was not ready in time.
const REFUSED: [&str; 14] = [
    "AccessDeniedException",
    "EntityNotFoundException",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidInputException",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "NotAuthorized",
    "ResourceNumberLimitExceededException",
    "UnrecognizedClientException",
    "ValidationError",
    "ValidationException",
];

/// Whether the request can have had an effect: not when it was refused or never left.
fn may_have_landed<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    match error {
        SdkError::ConstructionFailure(_) => false,
        SdkError::ServiceError(service) => !service.err().code().is_some_and(|code| REFUSED.contains(&code)),
        _ => true,
    }
}

impl GlueCatalog {
    /// The tables reachable with `client`; `catalog_id` is another account's number.
    #[must_use]
    pub fn new(client: Client, catalog_id: Option<String>, file_io: FileIO) -> Self {
        Self { client, catalog_id, file_io }
    }

    async fn get(&self, ident: &TableIdent) -> Result<Option<GlueTable>> {
        let request = self.client.get_table().set_catalog_id(self.catalog_id.clone());
        match request.database_name(pointer::database(ident.namespace())?).name(ident.name()).send().await {
            Ok(found) => Ok(found.table),
            Err(e) if e.as_service_error().is_some_and(|s| s.is_entity_not_found_exception()) => Ok(None),
            Err(e) => Err(failed(&format!("cannot look up {ident} in Glue"), e)),
        }
    }

    /// Moves the pointer, if the table still has `version`.
    async fn swap(&self, found: &GlueTable, ident: &TableIdent, input: TableInput) -> Result<CommitEnd> {
        let no_retries = aws_sdk_glue::config::Builder::new().retry_config(RetryConfig::disabled());
        let sent = self
            .client
            .update_table()
            .set_catalog_id(self.catalog_id.clone())
            .database_name(pointer::database(ident.namespace())?)
            .skip_archive(true)
            .set_version_id(found.version_id().map(str::to_owned))
            .table_input(input)
            .customize()
            .config_override(no_retries)
            .send()
            .await;
        let what = format!("cannot move {ident} in Glue");
        Ok(match sent {
            Ok(_) => CommitEnd::Landed,
            Err(e) if e.as_service_error().is_some_and(|s| s.is_concurrent_modification_exception()) => CommitEnd::Lost,
            Err(e) if may_have_landed(&e) => CommitEnd::Unknown(failed(&what, e)),
            Err(e) => CommitEnd::Refused(failed(&what, e)),
        })
    }
}

/// What became of `UpdateTable`.
enum CommitEnd {
    Landed,
    Lost,
    Refused(Error),
    Unknown(Error),
}

fn location(table: &GlueTable, ident: &TableIdent) -> Result<String> {
    let parameters = table.parameters();
    let found = parameters.and_then(|p| p.get(METADATA_LOCATION)).cloned();
    found.ok_or_else(|| Error::data(format!("{ident} in Glue is not an Iceberg table: it has no {METADATA_LOCATION}")))
}

/// What Glue shall show: our columns, and everything else as it was `before`.
fn input(ident: &TableIdent, metadata: &TableMetadata, new: &str, before: Option<&GlueTable>) -> Result<TableInput> {
    let mut parameters: HashMap<String, String> = before.and_then(|t| t.parameters().cloned()).unwrap_or_default();
    parameters.insert("table_type".to_owned(), "ICEBERG".to_owned());
    if let Some(old) = parameters.insert(METADATA_LOCATION.to_owned(), new.to_owned()) {
        parameters.insert(PREVIOUS_METADATA_LOCATION.to_owned(), old);
    }
    let descriptor = StorageDescriptor::builder()
        .location(metadata.location())
        .set_columns(Some(columns(metadata)?))
        .set_parameters(before.and_then(|t| t.storage_descriptor()).and_then(|s| s.parameters().cloned()))
        .build();
    TableInput::builder()
        .name(ident.name())
        .set_description(before.and_then(|t| t.description().map(str::to_owned)))
        .set_owner(before.and_then(|t| t.owner().map(str::to_owned)))
        .table_type("EXTERNAL_TABLE")
        .set_parameters(Some(parameters))
        .storage_descriptor(descriptor)
        .build()
        .map_err(|e| Error::bug(format!("cannot describe {ident} to Glue")).with_source(e))
}

/// The columns as Athena's own commits write them.
fn columns(metadata: &TableMetadata) -> Result<Vec<Column>> {
    let fields = metadata.current_schema().as_struct().fields();
    let column = |field: &iceberg::spec::NestedFieldRef| {
        Column::builder()
            .name(&field.name)
            .r#type(glue_type(&field.field_type))
            .set_comment(field.doc.clone())
            .parameters("iceberg.field.id", field.id.to_string())
            .parameters("iceberg.field.optional", (!field.required).to_string())
            .parameters("iceberg.field.current", "true")
            .build()
            .map_err(|e| Error::bug(format!("cannot describe column {} to Glue", field.name)).with_source(e))
    };
    fields.iter().map(column).collect()
}

#[async_trait]
impl Catalog for GlueCatalog {
    fn describe(&self) -> String {
        match &self.catalog_id {
            Some(id) => format!("Glue catalog {id}"),
            None => "the Glue catalog".to_owned(),
        }
    }

    async fn load(&self, ident: &TableIdent) -> Result<Option<Table>> {
        match self.get(ident).await? {
            Some(found) => Ok(Some(pointer::read(ident, &location(&found, ident)?, &self.file_io).await?)),
            None => Ok(None),
        }
    }

    async fn databases(&self) -> Result<Vec<NamespaceIdent>> {
        glue_list::databases(&self.client, self.catalog_id.as_deref()).await
    }

    async fn tables(&self, database: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        glue_list::tables(&self.client, self.catalog_id.as_deref(), database).await
    }

    async fn ensure_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        let name = pointer::database(namespace)?;
        let input = DatabaseInput::builder().name(name).build();
        let input = input.map_err(|e| Error::bug(format!("cannot describe database {name}")).with_source(e))?;
        match self.client.get_database().set_catalog_id(self.catalog_id.clone()).name(name).send().await {
            Ok(_) => return Ok(()),
            Err(e) if e.as_service_error().is_some_and(|s| s.is_entity_not_found_exception()) => {}
            Err(e) => return Err(failed(&format!("cannot look up database {name} in Glue"), e)),
        }
        let request = self.client.create_database().set_catalog_id(self.catalog_id.clone()).database_input(input);
        match request.send().await {
            Ok(_) => Ok(()),
            Err(e) if e.as_service_error().is_some_and(|s| s.is_already_exists_exception()) => Ok(()),
            Err(e) => Err(failed(&format!("cannot make database {name} in Glue"), e)),
        }
    }

    async fn create(&self, namespace: &NamespaceIdent, creation: TableCreation) -> Result<Created> {
        let ident = TableIdent::new(namespace.clone(), creation.name.clone());
        if let Some(table) = self.load(&ident).await? {
            return Ok(Created::Existing(table));
        }
        let staged = pointer::stage_new(&self.file_io, creation).await?;
        let sent = self
            .client
            .create_table()
            .set_catalog_id(self.catalog_id.clone())
            .database_name(pointer::database(namespace)?)
            .table_input(input(&ident, &staged.metadata, &staged.new, None)?)
            .send()
            .await;
        match sent {
            Ok(_) => Ok(Created::New(staged.landed(&ident, &self.file_io).await?)),
            Err(e) if e.as_service_error().is_some_and(|s| s.is_already_exists_exception()) => {
                let table = self.made_by_another(&ident).await?;
                // The SDK may have sent the request twice: then the table that exists is ours.
                if table.metadata_location() == Some(staged.new.as_str()) {
                    return Ok(Created::New(table));
                }
                staged.discard(&self.file_io).await;
                Ok(Created::Existing(table))
            }
            Err(e) => Err(failed(&format!("cannot create {ident} in Glue"), e)),
        }
    }

    async fn commit(
        &self,
        base: &Table,
        updates: Vec<TableUpdate>,
        requirements: Vec<TableRequirement>,
    ) -> Result<CommitOutcome> {
        let ident = base.identifier();
        let staged = match pointer::stage(base, updates, &requirements).await? {
            Ok(staged) => staged,
            Err(unmet) => return Ok(CommitOutcome::Conflict(unmet)),
        };
        let found = match self.get(ident).await {
            Ok(Some(found)) if Some(location(&found, ident)?) == staged.old => found,
            Ok(_) => {
                staged.discard(&self.file_io).await;
                return Ok(CommitOutcome::Conflict(format!("{ident} has moved on in Glue")));
            }
            Err(e) => {
                staged.discard(&self.file_io).await;
                return Err(e);
            }
        };
        let input = input(ident, &staged.metadata, &staged.new, Some(&found))?;
        match self.swap(&found, ident, input).await? {
            // A crash right after the swap leaves the new table, complete.
            CommitEnd::Landed => Ok(staged.committed(ident, &self.file_io).await),
            CommitEnd::Lost => {
                // What stands between may have sent the request twice: then the version that it met is its own.
                match self.load(ident).await {
                    Ok(Some(table)) if pointer::names(&table, &staged.new) => {
                        return Ok(CommitOutcome::Committed(table));
                    }
                    Ok(_) => staged.discard(&self.file_io).await,
                    Err(e) => tracing::warn!(file = %staged.new, error = %e, "a staged metadata file stays behind"),
                }
                Ok(CommitOutcome::Conflict(format!("{ident} was changed at the same moment in Glue")))
            }
            CommitEnd::Refused(e) => {
                staged.discard(&self.file_io).await;
                Err(e)
            }
            CommitEnd::Unknown(e) => Ok(CommitOutcome::Unknown(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_glue::config::http::HttpResponse;
    use aws_sdk_glue::error::ErrorMetadata;
    use aws_sdk_glue::operation::update_table::UpdateTableError;

    use super::*;

    #[test]
    fn only_an_answer_that_refuses_the_request_says_that_nothing_was_moved() {
        let answer = |status: u16, code: Option<&str>| {
            let error = match code {
                Some(code) => ErrorMetadata::builder().code(code).build(),
                None => ErrorMetadata::builder().build(),
            };
            let answer = HttpResponse::new(status.try_into().unwrap(), "".into());
            SdkError::service_error(UpdateTableError::generic(error), answer)
        };
        for (status, code, may_have) in [
            (400, Some("OperationTimeoutException"), true),
            (400, Some("ThrottlingException"), true),
            (400, Some("SomethingNewException"), true),
            (400, None, true),
            (408, None, true),
            (500, Some("InternalServiceException"), true),
            (400, Some("EntityNotFoundException"), false),
            (400, Some("InvalidInputException"), false),
            (400, Some("AccessDeniedException"), false),
        ] {
            assert_eq!(may_have_landed(&answer(status, code)), may_have, "{status} {code:?}");
        }
    }
}
