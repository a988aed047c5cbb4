//! How Parquet files are written, in one place.

use firn_shared::error::{Error, Result};
use iceberg::spec::{Schema, TableMetadata, Type};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use crate::protect::{BLOOM, CODEC, FAST, METRICS, UNCOMPRESSED};
use crate::provenance;

/// A row group is closed at this many rows, whatever its size.
pub const ROW_GROUP_ROWS_MAX: usize = 1 << 20;
/// A row group is closed when it holds about this many encoded bytes, so that a writer's memory is bounded.
pub const ROW_GROUP_BYTES_MAX: usize = 64 << 20;

/// Bloom filters are made for this many values of a row group, 150 KB of them, and are wrong about one in a hundred.
const BLOOM_VALUES: u64 = 1 << 17;
const BLOOM_FPP: f64 = 0.01;

/// Properties of every data file: zstd pages, statistics, bounded row groups, offsets as differences.
///
/// # Errors
/// `Config` for a zstd level that does not exist.
pub fn properties(zstd_level: i32) -> Result<WriterPropertiesBuilder> {
    let level = ZstdLevel::try_new(zstd_level)
        .map_err(|e| Error::config(format!("zstd level {zstd_level} does not exist; give 1 to 22")).with_source(e))?;
    let offset = path(&format!("{}.{}", provenance::COLUMN, provenance::OFFSET));
    Ok(WriterProperties::builder()
        .set_created_by(concat!("firn ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(level))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES_MAX))
        // Offsets are distinct and nearly ascending: as differences they take a few bits, as a dictionary eight bytes each.
        .set_column_dictionary_enabled(offset.clone(), false)
        .set_column_encoding(offset, Encoding::DELTA_BINARY_PACKED))
}

/// The same for a table: page statistics where readers prune by them (partition sources, sort columns, the event hour),
/// because on every column they cost time and footer.
///
/// # Errors
/// `Config` for a zstd level that does not exist.
pub fn for_table(metadata: &TableMetadata, zstd_level: i32) -> Result<WriterProperties> {
    let mut properties = properties(zstd_level)?;
    let schema = metadata.current_schema();
    let partition = metadata.default_partition_spec().fields().iter().map(|f| f.source_id);
    let sort = metadata.default_sort_order().fields.iter().map(|f| f.source_id);
    let hour = schema.field_id_by_name(&format!("{}.{}", provenance::COLUMN, provenance::EVENT_HOUR));
    for id in partition.chain(sort).chain(hour) {
        if let Some(name) = schema.name_by_field_id(id) {
            properties = properties.set_column_statistics_enabled(path(name), EnabledStatistics::Page);
        }
    }
    for (key, value) in metadata.properties() {
        // As the specification of Iceberg's table properties says; `full`, `counts` and `truncate(n)` are less than ours.
        if let Some(name) = key.strip_prefix(METRICS)
            && value == "none"
            && let Some(path) = parquet_path(schema, name)
        {
            // Ciphertext: a dictionary of it would be thrown away.
            properties = properties
                .set_column_statistics_enabled(path.clone(), EnabledStatistics::None)
                .set_column_dictionary_enabled(path, false);
        }
        if let Some(name) = key.strip_prefix(CODEC)
            && let Some(path) = parquet_path(schema, name)
        {
            let codec = match value.as_str() {
                UNCOMPRESSED => Some(Compression::UNCOMPRESSED),
                FAST => Some(Compression::ZSTD(ZstdLevel::try_new(1).unwrap_or_default())),
                _ => None,
            };
            if let Some(codec) = codec {
                properties = properties.set_column_compression(path, codec);
            }
        }
        if let Some(name) = key.strip_prefix(BLOOM)
            && value == "true"
            && let Some(path) = parquet_path(schema, name)
        {
            properties = properties
                .set_column_bloom_filter_enabled(path.clone(), true)
                .set_column_bloom_filter_fpp(path.clone(), BLOOM_FPP)
                .set_column_bloom_filter_ndv(path, BLOOM_VALUES);
        }
    }
    Ok(properties.build())
}

/// The column of Parquet that holds a field, by the field's full name in Iceberg.
fn parquet_path(schema: &Schema, name: &str) -> Option<ColumnPath> {
    let mut parts = name.split('.');
    let mut field = schema.as_struct().field_by_name(parts.next()?)?;
    let mut path = vec![field.name.clone()];
    for part in parts {
        field = match field.field_type.as_ref() {
            Type::Struct(of) => of.field_by_name(part)?,
            Type::List(of) if part == "element" => {
                path.push("list".to_owned());
                &of.element_field
            }
            Type::Map(of) if part == "value" => {
                path.push("key_value".to_owned());
                &of.value_field
            }
            _ => return None,
        };
        path.push(part.to_owned());
    }
    matches!(field.field_type.as_ref(), Type::Primitive(_)).then(|| ColumnPath::new(path))
}

fn path(name: &str) -> ColumnPath {
    ColumnPath::new(name.split('.').map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_that_zstd_does_not_have_are_refused() {
        assert!(properties(3).is_ok());
        assert!(properties(23).is_err());
    }
}
