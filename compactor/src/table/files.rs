//! A data file on its way into a table, and what is kept of one.

use firn_shared::error::{Error, Result};
use iceberg::spec::{
    DataFile, DataFileBuilder, PartitionSpec, PartitionSpecRef, SchemaRef, TableMetadata,
    deserialize_data_file_from_json, serialize_data_file_to_json,
};

/// A data file that was written and not yet committed, with its partition spec, which the crate's type does not tell.
#[derive(Debug, Clone, PartialEq)]
pub struct NewFile {
    /// The partition spec it was written under.
    pub spec_id: i32,
    /// Path, partition and metrics.
    pub file: DataFile,
}

impl NewFile {
    /// As JSON, for runs whose slices are executed by other processes.
    ///
    /// # Errors
    /// `Bug` when the spec is not one of the table's.
    pub fn to_json(&self, metadata: &TableMetadata) -> Result<String> {
        let partition = partition_type(metadata, self.spec_id)?;
        serialize_data_file_to_json(self.file.clone(), &partition, metadata.format_version())
            .map_err(|e| super::error(format!("cannot describe {}", self.file.file_path()), e))
    }

    /// Reads what [`NewFile::to_json`] wrote.
    ///
    /// # Errors
    /// `Data` when the text is not a data file of this table and spec.
    pub fn from_json(json: &str, spec_id: i32, metadata: &TableMetadata) -> Result<Self> {
        let partition = partition_type(metadata, spec_id)?;
        let schema = schema_of(metadata, spec_of(metadata, spec_id)?)?;
        deserialize_data_file_from_json(json, spec_id, &partition, schema)
            .map(|file| Self { spec_id, file })
            .map_err(|e| super::error("cannot read the description of a data file", e))
    }
}

fn partition_type(metadata: &TableMetadata, spec_id: i32) -> Result<iceberg::spec::StructType> {
    let spec = spec_of(metadata, spec_id)?;
    spec.partition_type(schema_of(metadata, spec)?).map_err(|e| super::error("cannot type the partition", e))
}

fn spec_of(metadata: &TableMetadata, spec_id: i32) -> Result<&PartitionSpecRef> {
    metadata.partition_spec_by_id(spec_id).ok_or_else(|| unknown_spec(metadata, spec_id))
}

/// The schema to describe files of a partition spec with: the current one, or, when a column that an older spec is made of
/// was dropped since, the newest that has it.
///
/// # Errors
/// `Data` when no schema of the table has it any more.
pub(crate) fn schema_of<'a>(metadata: &'a TableMetadata, spec: &PartitionSpec) -> Result<&'a SchemaRef> {
    let mut older: Vec<&SchemaRef> = metadata.schemas_iter().collect();
    older.sort_by_key(|schema| std::cmp::Reverse(schema.schema_id()));
    let mut all = [metadata.current_schema()].into_iter().chain(older);
    all.find(|schema| spec.partition_type(schema).is_ok()).ok_or_else(|| {
        let (location, spec) = (metadata.location(), spec.spec_id());
        Error::data(format!("no schema of the table at {location} has the columns of its partition spec {spec}"))
    })
}

/// A file without its counts, sizes and bounds by column, which take most of its entry. Whoever reads the file, or knows that it
/// went, does not ask for them.
pub(super) fn without_metrics(file: &DataFile, spec_id: i32) -> Result<DataFile> {
    let mut builder = DataFileBuilder::default();
    builder
        .content(file.content_type())
        .file_path(file.file_path().to_owned())
        .file_format(file.file_format())
        .partition(file.partition().clone())
        .partition_spec_id(spec_id)
        .record_count(file.record_count())
        .file_size_in_bytes(file.file_size_in_bytes())
        .key_metadata(file.key_metadata().map(<[u8]>::to_vec))
        .split_offsets(file.split_offsets().map(<[i64]>::to_vec))
        .equality_ids(file.equality_ids())
        .first_row_id(file.first_row_id())
        .referenced_data_file(file.referenced_data_file())
        .content_offset(file.content_offset())
        .content_size_in_bytes(file.content_size_in_bytes());
    if let Some(order) = file.sort_order_id() {
        builder.sort_order_id(order);
    }
    builder.build().map_err(|e| Error::bug(format!("cannot shorten the entry of {}", file.file_path())).with_source(e))
}

/// The error for a spec id that the table does not have.
pub(super) fn unknown_spec(metadata: &TableMetadata, spec_id: i32) -> Error {
    Error::bug(format!("the table at {} has no partition spec {spec_id}", metadata.location()))
}
