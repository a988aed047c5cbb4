//! The pages of a column chunk: held as they are while they are small, compressed once they are worth it.

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, PageType};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, OffsetIndexBuilder, PageEncodingStats};
use parquet::schema::types::ColumnDescPtr;

use super::hybrid::varint;

/// A chunk of fewer bytes is not compressed: it is mostly levels of nulls, and a frame costs more than it saves.
const COMPRESSED_MIN: usize = 1024;

/// One zstd context a level for all columns; a context per column costs more than compressing what mostly empty columns
/// hold.
#[derive(Default)]
pub(super) struct Codec {
    contexts: Vec<(i32, zstd::bulk::Compressor<'static>)>,
    scratch: Vec<u8>,
}

impl Codec {
    fn compress(&mut self, compression: Compression, bytes: &[u8]) -> Result<&[u8]> {
        let Compression::ZSTD(level) = compression else {
            return Err(ParquetError::General(format!("{compression} is not written here")));
        };
        let level = level.compression_level();
        let known = self.contexts.iter().position(|(known, _)| *known == level);
        let at = match known {
            Some(at) => at,
            None => {
                self.contexts.push((level, zstd::bulk::Compressor::new(level)?));
                self.contexts.len() - 1
            }
        };
        self.scratch.clear();
        self.scratch.reserve(zstd::zstd_safe::compress_bound(bytes.len()));
        self.contexts[at].1.compress_to_buffer(bytes, &mut self.scratch)?;
        Ok(&self.scratch)
    }
}

/// A page before compression.
#[derive(Debug)]
pub(super) struct RawPage {
    pub bytes: Vec<u8>,
    pub slots: usize,
    pub rows: usize,
    pub encoding: Encoding,
    /// Bytes of text in it.
    pub text: Option<i64>,
}

/// A page in its place.
#[derive(Debug)]
struct Placed {
    offset: usize,
    size: usize,
    rows: usize,
    text: Option<i64>,
}

/// The data pages of a chunk.
#[derive(Debug)]
pub(super) struct Pages {
    compression: Compression,
    held: Vec<RawPage>,
    held_bytes: usize,
    /// Whether the pages placed so far are compressed; then all are.
    compressed: bool,
    out: Vec<u8>,
    /// Bytes of `out`, were nothing in it compressed.
    uncompressed: usize,
    placed: Vec<Placed>,
    /// Runs of pages with one encoding.
    encodings: Vec<(Encoding, usize)>,
}

/// What the footer says of a chunk besides its pages.
pub(super) struct About {
    pub column: ColumnDescPtr,
    pub rows: usize,
    pub slots: usize,
}

impl Pages {
    /// No pages yet; they are compressed with the codec in hand unless `compression` says none.
    pub fn new(compression: Compression) -> Self {
        Self {
            compression,
            held: Vec::new(),
            held_bytes: 0,
            compressed: false,
            out: Vec::new(),
            uncompressed: 0,
            placed: Vec::new(),
            encodings: Vec::new(),
        }
    }

    fn is_worth(&self, bytes: usize) -> bool {
        self.compressed || (bytes >= COMPRESSED_MIN && self.compression != Compression::UNCOMPRESSED)
    }

    /// Appends a page.
    pub fn push(&mut self, page: RawPage, codec: &mut Codec) -> Result<()> {
        self.held_bytes += page.bytes.len();
        self.held.push(page);
        if self.is_worth(self.held_bytes) {
            self.compressed = true;
            self.place(Some(codec))?;
        }
        Ok(())
    }

    /// Bytes that the file will have of these pages, about.
    pub fn bytes(&self) -> usize {
        self.out.len() + self.held_bytes
    }

    /// Bytes held in memory.
    pub fn memory(&self) -> usize {
        self.out.capacity() + self.held_bytes + self.held.len() * size_of::<RawPage>()
    }

    fn place(&mut self, mut codec: Option<&mut Codec>) -> Result<()> {
        for page in self.held.drain(..) {
            let offset = self.out.len();
            let body = match &mut codec {
                Some(codec) => codec.compress(self.compression, &page.bytes)?,
                None => &page.bytes,
            };
            let sizes = (page.bytes.len(), body.len());
            let header = put_header(&mut self.out, PageType::DATA_PAGE, sizes, page.slots, page.encoding);
            self.out.extend_from_slice(body);
            self.uncompressed += header + page.bytes.len();
            self.placed.push(Placed { offset, size: self.out.len() - offset, rows: page.rows, text: page.text });
            match self.encodings.last_mut() {
                Some((encoding, pages)) if *encoding == page.encoding => *pages += 1,
                _ => self.encodings.push((page.encoding, 1)),
            }
        }
        self.held_bytes = 0;
        Ok(())
    }

    /// The chunk, `dictionary` (the page and its values) before everything else.
    pub fn finish(
        mut self,
        dictionary: Option<(Vec<u8>, usize)>,
        about: About,
        codec: &mut Codec,
    ) -> Result<(Bytes, ColumnCloseResult)> {
        let more = dictionary.as_ref().map_or(0, |(bytes, _)| bytes.len());
        let compressed = self.is_worth(self.held_bytes + more);
        self.place(compressed.then_some(&mut *codec))?;
        let mut bytes = Vec::new();
        let mut uncompressed = self.uncompressed;
        let mut statistics = Vec::with_capacity(self.encodings.len() + 1);
        if let Some((page, values)) = &dictionary {
            let body = if compressed { codec.compress(self.compression, page)? } else { page };
            bytes.reserve(body.len() + self.out.len() + 64);
            let encoding = Encoding::PLAIN_DICTIONARY;
            let header = put_header(&mut bytes, PageType::DICTIONARY_PAGE, (page.len(), body.len()), *values, encoding);
            bytes.extend_from_slice(body);
            uncompressed += header + page.len();
            statistics.push(PageEncodingStats { page_type: PageType::DICTIONARY_PAGE, encoding, count: 1 });
        }
        let first = bytes.len();
        if first == 0 {
            bytes = self.out;
        } else {
            bytes.extend_from_slice(&self.out);
        }
        for (encoding, pages) in &self.encodings {
            statistics.push(PageEncodingStats {
                page_type: PageType::DATA_PAGE,
                encoding: *encoding,
                count: *pages as i32,
            });
        }
        let mut encodings = vec![Encoding::RLE];
        encodings.extend(statistics.iter().map(|s| s.encoding));
        let texts = self.placed.iter().filter_map(|p| p.text).reduce(|a, b| a + b);
        let metadata = ColumnChunkMetaData::builder(about.column)
            .set_compression(if compressed { self.compression } else { Compression::UNCOMPRESSED })
            .set_encodings(encodings)
            .set_page_encoding_stats(statistics)
            .set_total_compressed_size(bytes.len() as i64)
            .set_total_uncompressed_size(uncompressed as i64)
            .set_num_values(about.slots as i64)
            .set_data_page_offset(first as i64)
            .set_dictionary_page_offset(dictionary.map(|_| 0))
            .set_unencoded_byte_array_data_bytes(texts)
            .build()?;
        let mut index = OffsetIndexBuilder::new();
        for page in &self.placed {
            index.append_row_count(page.rows as i64);
            index.append_unencoded_byte_array_data_bytes(page.text);
            let size = i32::try_from(page.size).map_err(|_| ParquetError::General("a page passes 2 GiB".into()))?;
            index.append_offset_and_size((first + page.offset) as i64, size);
        }
        let close = ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: about.rows as u64,
            metadata,
            bloom_filter: None,
            column_index: None,
            offset_index: Some(index.build()),
        };
        Ok((bytes.into(), close))
    }
}

/// Appends a page header in Thrift's compact form (`PageHeader` of parquet.thrift); answers its length. `sizes` are those
/// of the page without and with compression.
fn put_header(to: &mut Vec<u8>, kind: PageType, sizes: (usize, usize), values: usize, encoding: Encoding) -> usize {
    let start = to.len();
    // A field's first byte: how much its number is above the last one's, then its type; 5 is an i32, 12 a struct.
    let int = |to: &mut Vec<u8>, value: usize| {
        to.push(0x15);
        varint(to, (value as u64) << 1);
    };
    let dictionary = kind == PageType::DICTIONARY_PAGE;
    int(to, if dictionary { 2 } else { 0 });
    int(to, sizes.0);
    int(to, sizes.1);
    // Field 5 is the header of a data page, field 7 that of a dictionary page.
    to.push(if dictionary { 0x4C } else { 0x2C });
    int(to, values);
    int(to, number_of(encoding));
    if dictionary {
        // Not sorted.
        to.push(0x12);
    } else {
        int(to, number_of(Encoding::RLE));
        int(to, number_of(Encoding::RLE));
    }
    to.extend_from_slice(&[0, 0]);
    to.len() - start
}

/// The number of an encoding in parquet.thrift.
fn number_of(encoding: Encoding) -> usize {
    match encoding {
        Encoding::PLAIN_DICTIONARY => 2,
        Encoding::RLE => 3,
        Encoding::RLE_DICTIONARY => 8,
        _ => 0,
    }
}
