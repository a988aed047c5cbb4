//! How Parquet files are written, in one place.

use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};

use firn_shared::error::{Error, Result};

/// A row group is closed at this many rows, whatever its size.
pub const ROW_GROUP_ROWS_MAX: usize = 1 << 20;
/// A row group is closed when it holds about this many encoded bytes, so that a writer's memory is bounded.
pub const ROW_GROUP_BYTES_MAX: usize = 64 << 20;

/// Properties of every data file: zstd pages, statistics, bounded row groups.
///
/// # Errors
/// `Config` for a zstd level that does not exist.
pub fn properties(zstd_level: i32) -> Result<WriterPropertiesBuilder> {
    let level = ZstdLevel::try_new(zstd_level)
        .map_err(|e| Error::config(format!("zstd level {zstd_level} does not exist; give 1 to 22")).with_source(e))?;
    Ok(WriterProperties::builder()
        .set_created_by(concat!("firn ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(level))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES_MAX)))
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
