//! The dictionary of a column chunk: all different values of it, if every page refers to them.

use std::collections::HashSet;
use std::io::{Cursor, Read};
use std::sync::Arc;

use bytes::Bytes;
use firn_shared::error::{Error, Result};
use iceberg::io::{FileIO, FileRead};
use parquet::basic::{Encoding, Type as PhysicalType};
use parquet::column::page::{Page, PageReader};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;

use super::reader::failed;
use crate::table::error;

/// Larger dictionaries are not read: the column itself is hardly more.
const BYTES_MAX: u64 = 4 << 20;

/// Texts or bytes, each behind its length in four bytes, as Parquet's plain encoding has them.
pub(super) struct Dictionary(Bytes);

impl Dictionary {
    /// Whether one of these values is in it; yes when it cannot be followed to its end.
    pub fn has_any(&self, values: &HashSet<&[u8]>) -> bool {
        let mut rest = &self.0[..];
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let Some((value, after)) = after.split_at_checked(u32::from_le_bytes(*length) as usize) else {
                return true;
            };
            if values.contains(value) {
                return true;
            }
            rest = after;
        }
        !rest.is_empty()
    }
}

/// The dictionary of a column of texts; `None` when there is none, or pages do without it, or nobody says whether they do.
///
/// # Errors
/// As the store says; `Data` for a page that cannot be read.
pub(super) async fn dictionary(io: &FileIO, path: &str, column: &ColumnChunkMetaData) -> Result<Option<Dictionary>> {
    let Some(range) = place(column) else { return Ok(None) };
    let input = io.new_input(path).map_err(|e| error(format!("cannot open {path}"), e))?;
    let input = input.reader().await.map_err(|e| error(format!("cannot open {path}"), e))?;
    let bytes = input.read(range.clone()).await.map_err(|e| error(format!("cannot read {path}"), e))?;
    let part = Arc::new(Part { begin: range.start, bytes });
    let mut pages =
        SerializedPageReader::new(part, column, column.num_values() as usize, None).map_err(|e| failed(path, e))?;
    match pages.get_next_page().map_err(|e| failed(path, e))? {
        Some(Page::DictionaryPage { buf, encoding: Encoding::PLAIN | Encoding::PLAIN_DICTIONARY, .. }) => {
            Ok(Some(Dictionary(buf)))
        }
        Some(_) => Ok(None),
        None => Err(Error::data(format!("cannot read {path}: no page where its dictionary begins"))),
    }
}

/// Where the dictionary lies, if it says everything.
fn place(column: &ColumnChunkMetaData) -> Option<std::ops::Range<u64>> {
    let only = |pages: &parquet::basic::EncodingMask| {
        pages.is_only(Encoding::RLE_DICTIONARY) || pages.is_only(Encoding::PLAIN_DICTIONARY)
    };
    let says_all = column.page_encoding_stats_mask().is_some_and(only);
    if column.column_type() != PhysicalType::BYTE_ARRAY || !says_all {
        return None;
    }
    let begin = u64::try_from(column.dictionary_page_offset()?).ok()?;
    let end = u64::try_from(column.data_page_offset()).ok()?;
    (begin < end && end - begin <= BYTES_MAX).then_some(begin..end)
}

/// A part of a file under the places that it has in the whole.
struct Part {
    begin: u64,
    bytes: Bytes,
}

impl Part {
    fn after(&self, start: u64) -> parquet::errors::Result<Bytes> {
        let at = start.checked_sub(self.begin).and_then(|at| usize::try_from(at).ok());
        let at = at.filter(|at| *at <= self.bytes.len());
        let at = at.ok_or_else(|| parquet::errors::ParquetError::EOF(format!("nothing was read at {start}")))?;
        Ok(self.bytes.slice(at..))
    }
}

impl Length for Part {
    fn len(&self) -> u64 {
        self.begin + self.bytes.len() as u64
    }
}

impl ChunkReader for Part {
    type T = Cursor<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        self.after(start).map(Cursor::new)
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let mut out = vec![0; length];
        self.get_read(start)?.read_exact(&mut out)?;
        Ok(Bytes::from(out))
    }
}
