//! Makes a table from its definition, or finds the one that is there.

use std::collections::{BTreeMap, HashMap};

use firn_shared::config::domain::{PartitionField, SortField, Transform};
use firn_shared::error::{Error, Result};
use iceberg::spec::{
    FormatVersion, NullOrder, Schema, SortDirection, SortField as IcebergSortField, SortOrder,
    Transform as IcebergTransform, UnboundPartitionSpec,
};
use iceberg::{TableCreation, TableIdent};

use super::catalog::{Catalog, Created};
use super::error;
use super::schema::{TableColumn, compare, iceberg_schema};

/// What tables of ours are made with unless the pipeline says otherwise.
const DEFAULT_PROPERTIES: [(&str, &str); 4] = [
    ("write.format.default", "parquet"),
    ("write.parquet.compression-codec", "zstd"),
    // A table committed every hour would else keep 8,760 metadata files a year, each naming all snapshots.
    ("write.metadata.delete-after-commit.enabled", "true"),
    ("write.metadata.previous-versions-max", "100"),
];
/// The property that overrides the guard for format v2, which is what Athena reads.
const FORMAT_VERSION: &str = "format-version";

/// A table to be.
#[derive(Debug, Clone)]
pub struct Definition {
    /// Its name in the catalog.
    pub ident: TableIdent,
    /// URL of its directory, without trailing slash.
    pub location: String,
    /// Its columns, in order; [`TableColumn::provenance`] included when wanted.
    pub columns: Vec<TableColumn>,
    /// Hidden partitioning.
    pub partition_by: Vec<PartitionField>,
    /// Order of rows inside files.
    pub sort_by: Vec<SortField>,
    /// Iceberg properties; they win over ours.
    pub properties: BTreeMap<String, String>,
}

impl Definition {
    /// Makes namespace and table unless they exist; doing it again, or twice at once, changes nothing.
    ///
    /// # Errors
    /// `Config` for a definition that makes no table, `Data` when the existing table does not fit the columns.
    pub async fn ensure(&self, catalog: &dyn Catalog) -> Result<Created> {
        let created = match catalog.load(&self.ident).await? {
            Some(table) => Created::Existing(table),
            None => {
                let creation = self.creation()?;
                catalog.ensure_namespace(self.ident.namespace()).await?;
                catalog.create(self.ident.namespace(), creation).await?
            }
        };
        if let Created::Existing(table) = &created {
            compare(table.metadata().current_schema(), &self.columns)?.check(&self.ident)?;
        }
        Ok(created)
    }

    /// The definition in Iceberg's terms.
    ///
    /// # Errors
    /// `Config`, naming the column or property that does not work.
    pub fn creation(&self) -> Result<TableCreation> {
        let schema = iceberg_schema(&self.columns)?;
        let mut properties: HashMap<String, String> =
            DEFAULT_PROPERTIES.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        properties.extend(self.properties.clone());
        let version = match properties.remove(FORMAT_VERSION).as_deref() {
            None | Some("2") => FormatVersion::V2,
            Some("3") => FormatVersion::V3,
            Some(other) => {
                let table = &self.ident;
                return Err(Error::config(format!("{table}: property {FORMAT_VERSION} is {other}, not 2 or 3")));
            }
        };
        let creation = TableCreation::builder()
            .name(self.ident.name().to_owned())
            .location(self.location.clone())
            .partition_spec(self.partition_spec(&schema)?)
            .sort_order(self.sort_order(&schema)?)
            .schema(schema)
            .properties(properties)
            .format_version(version);
        Ok(creation.build())
    }

    fn field_id(&self, schema: &Schema, column: &str, what: &str) -> Result<i32> {
        schema
            .field_id_by_name(column)
            .ok_or_else(|| Error::config(format!("{}: {what}: the table has no column `{column}`", self.ident)))
    }

    fn partition_spec(&self, schema: &Schema) -> Result<UnboundPartitionSpec> {
        let mut spec = UnboundPartitionSpec::builder();
        for field in &self.partition_by {
            let column = field.column.as_str();
            let id = self.field_id(schema, column, "partitionBy")?;
            let name = partition_name(field);
            spec = spec
                .add_partition_field(id, name, iceberg_transform(field.transform))
                .map_err(|e| error(format!("{}: partitionBy `{column}`", self.ident), e))?;
        }
        let spec = spec.build();
        // Bound once here, so that a transform that does not fit its column is a configuration error.
        let bound = spec.clone().bind(schema.clone());
        bound.map_err(|e| Error::config(format!("{}: partitionBy: {e}", self.ident)).with_source(e))?;
        Ok(spec)
    }

    fn sort_order(&self, schema: &Schema) -> Result<SortOrder> {
        let mut order = SortOrder::builder();
        for field in &self.sort_by {
            let (direction, nulls) = if field.descending {
                (SortDirection::Descending, NullOrder::Last)
            } else {
                (SortDirection::Ascending, NullOrder::First)
            };
            order.with_sort_field(
                IcebergSortField::builder()
                    .source_id(self.field_id(schema, field.column.as_str(), "sortBy")?)
                    .transform(IcebergTransform::Identity)
                    .direction(direction)
                    .null_order(nulls)
                    .build(),
            );
        }
        if self.sort_by.is_empty() {
            return Ok(SortOrder::unsorted_order());
        }
        order.build(schema).map_err(|e| Error::config(format!("{}: sortBy: {e}", self.ident)).with_source(e))
    }
}

/// The name Iceberg's own builders give a partition field.
fn partition_name(field: &PartitionField) -> String {
    let column = &field.column;
    match field.transform {
        Transform::Identity => column.to_string(),
        Transform::Year => format!("{column}_year"),
        Transform::Month => format!("{column}_month"),
        Transform::Day => format!("{column}_day"),
        Transform::Hour => format!("{column}_hour"),
        Transform::Bucket(_) => format!("{column}_bucket"),
        Transform::Truncate(_) => format!("{column}_trunc"),
    }
}

fn iceberg_transform(transform: Transform) -> IcebergTransform {
    match transform {
        Transform::Identity => IcebergTransform::Identity,
        Transform::Year => IcebergTransform::Year,
        Transform::Month => IcebergTransform::Month,
        Transform::Day => IcebergTransform::Day,
        Transform::Hour => IcebergTransform::Hour,
        Transform::Bucket(count) => IcebergTransform::Bucket(count),
        Transform::Truncate(width) => IcebergTransform::Truncate(width),
    }
}
