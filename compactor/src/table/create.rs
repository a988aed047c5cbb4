//! Makes a table from its definition, or finds the one that is there.

use std::collections::{BTreeMap, HashMap};

use firn_shared::config::domain::{PartitionField, SortField, Transform};
use firn_shared::error::{Error, Result};
use iceberg::spec::{
    FormatVersion, NullOrder, Schema, SortDirection, SortField as IcebergSortField, SortOrder, TableMetadata,
    Transform as IcebergTransform, UnboundPartitionSpec,
};
use iceberg::{TableCreation, TableIdent};

use super::catalog::{Catalog, Created};
use super::error;
use super::protected::PROPERTY;
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
    /// Properties that its protections need; those of `properties` win. Runs set those that a table has none of.
    pub needed: BTreeMap<String, String>,
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

    /// What of the table is not as defined, columns aside. It is no error: files are written as the table has it, which an
    /// engine may have changed for good reasons, and readers see no difference.
    #[must_use]
    pub fn differences(&self, metadata: &TableMetadata) -> Vec<String> {
        [self.layout_differences(metadata), self.property_differences(metadata)].concat()
    }

    /// What the protections need and the table has no word of; what somebody has set stays.
    #[must_use]
    pub fn lacking(&self, metadata: &TableMetadata) -> BTreeMap<String, String> {
        let lacks = |key: &str| {
            key != PROPERTY && !metadata.properties().contains_key(key) && !self.properties.contains_key(key)
        };
        let needed = self.needed.iter().filter(|(key, _)| lacks(key));
        needed.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Properties are set when the table is made, and never after, but for those that protections need.
    fn property_differences(&self, metadata: &TableMetadata) -> Vec<String> {
        let version = (metadata.format_version() as u8).to_string();
        let different = |(key, wanted): (&String, &String)| {
            let live = if key == FORMAT_VERSION { Some(&version) } else { metadata.properties().get(key) };
            let has = match live {
                Some(live) if live == wanted => return None,
                Some(live) => format!("has {key} = {live}"),
                None => format!("has no property {key}"),
            };
            let ident = &self.ident;
            Some(format!(
                "{ident} {has}, and the pipeline says {wanted}: the table keeps what it has; make them equal with ALTER TABLE … \
                 SET TBLPROPERTIES ('{key}' = '{wanted}') in Spark, or in the pipeline"
            ))
        };
        let needed = self.needed.iter().filter(|(key, _)| {
            let has = metadata.properties().contains_key(*key);
            has && !self.properties.contains_key(*key) && *key != PROPERTY
        });
        self.properties.iter().chain(needed).filter_map(different).collect()
    }

    /// Partitioning and order.
    fn layout_differences(&self, metadata: &TableMetadata) -> Vec<String> {
        let schema = metadata.current_schema();
        let column = |id: i32| schema.name_by_field_id(id).map_or_else(|| format!("field {id}"), str::to_owned);
        let spec = metadata.default_partition_spec();
        // A field that was dropped from a spec of format version 1 stays, without effect.
        let fields = spec.fields().iter().filter(|field| field.transform != IcebergTransform::Void);
        let partitions = fields.map(|field| partition_text(field.transform, &column(field.source_id)));
        let order = metadata.default_sort_order();
        let sorts = order.fields.iter().map(|field| {
            let by = partition_text(field.transform, &column(field.source_id));
            if field.direction == SortDirection::Descending { format!("{by} desc") } else { by }
        });
        let mut found = Vec::new();
        let ident = &self.ident;
        for (key, (does, statement), live, wanted) in [
            (
                "partitionBy",
                ("is partitioned by", "ADD, DROP or REPLACE PARTITION FIELD"),
                partitions.collect::<Vec<_>>(),
                self.partition_by.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ),
            (
                "sortBy",
                ("is sorted by", "WRITE ORDERED BY"),
                sorts.collect(),
                self.sort_by.iter().map(ToString::to_string).collect(),
            ),
        ] {
            if live != wanted {
                let (live, wanted) = (live.join(", "), wanted.join(", "));
                found.push(format!(
                    "{ident} {does} [{live}], and {key} says [{wanted}]: new files are written as the table has it; make \
                     them equal with ALTER TABLE … {statement} in Spark, or in the pipeline"
                ));
            }
        }
        found
    }

    /// The definition in Iceberg's terms.
    ///
    /// # Errors
    /// `Config`, naming the column or property that does not work.
    pub fn creation(&self) -> Result<TableCreation> {
        let schema = iceberg_schema(&self.columns)?;
        let mut properties: HashMap<String, String> =
            DEFAULT_PROPERTIES.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        properties.extend(self.needed.clone());
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

/// A partition field of a live table in the words of `partitionBy`.
fn partition_text(transform: IcebergTransform, column: &str) -> String {
    match transform {
        IcebergTransform::Identity => column.to_owned(),
        IcebergTransform::Bucket(count) => format!("bucket({count}, {column})"),
        IcebergTransform::Truncate(width) => format!("truncate({width}, {column})"),
        other => format!("{other}({column})"),
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

#[cfg(test)]
mod tests {
    use iceberg::NamespaceIdent;
    use iceberg::spec::TableMetadataBuilder;

    use super::*;

    fn definition(partition_by: &[&str], sort_by: &[&str]) -> Definition {
        let column = |name: &str, r#type: &str| TableColumn {
            name: name.to_owned(),
            r#type: r#type.parse().unwrap(),
            required: true,
            doc: None,
        };
        Definition {
            ident: TableIdent::new(NamespaceIdent::new("d".to_owned()), "t".to_owned()),
            location: "file:///t".to_owned(),
            columns: vec![column("id", "long"), column("at", "timestamptz"), column("k", "string")],
            partition_by: partition_by.iter().map(|text| text.parse().unwrap()).collect(),
            sort_by: sort_by.iter().map(|text| text.parse().unwrap()).collect(),
            properties: BTreeMap::new(),
            needed: BTreeMap::new(),
        }
    }

    #[test]
    fn a_layout_that_the_table_does_not_have_is_named_with_both() {
        let live = [
            definition(&[], &[]),
            definition(&["hour(at)", "bucket(4, id)", "truncate(2, k)", "k"], &["id desc", "k"]),
            definition(&["day(at)"], &["k"]),
            definition(&["month(at)"], &["k desc"]),
            definition(&["year(at)"], &["id"]),
        ];
        for (n, made) in live.iter().enumerate() {
            let built = TableMetadataBuilder::from_table_creation(made.creation().unwrap()).unwrap();
            let metadata = built.build().unwrap().metadata;
            for (m, wanted) in live.iter().enumerate() {
                let found = wanted.layout_differences(&metadata);
                assert_eq!(found.len(), if n == m { 0 } else { 2 }, "{n} {m}: {found:?}");
            }
            if n == 1 {
                let [partitions, sorts] = &live[2].layout_differences(&metadata)[..] else { panic!("two") };
                assert!(partitions.starts_with(
                    "d.t is partitioned by [hour(at), bucket(4, id), truncate(2, k), k], and partitionBy says [day(at)]"
                ));
                assert!(sorts.starts_with("d.t is sorted by [id desc, k], and sortBy says [k]"), "{sorts}");
            }
        }
    }

    #[test]
    fn properties_that_the_table_does_not_have_are_named_with_both() {
        let of = |properties: &[(&str, &str)]| Definition {
            properties: properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            ..definition(&[], &[])
        };
        let made = of(&[("a", "1"), ("b", "2"), (FORMAT_VERSION, "2")]);
        let built = TableMetadataBuilder::from_table_creation(made.creation().unwrap()).unwrap();
        let metadata = built.build().unwrap().metadata;
        assert_eq!(made.differences(&metadata), Vec::<String>::new());
        // The table may have more.
        assert_eq!(of(&[("a", "1")]).differences(&metadata), Vec::<String>::new());
        let found = of(&[("a", "3"), ("c", "4"), (FORMAT_VERSION, "3")]).differences(&metadata);
        let begins =
            ["d.t has a = 1, and the pipeline says 3", "d.t has no property c, and", "d.t has format-version = 2,"];
        assert_eq!(found.len(), begins.len(), "{found:?}");
        assert!(begins.iter().zip(&found).all(|(begin, text)| text.starts_with(begin)), "{found:?}");
    }
}
