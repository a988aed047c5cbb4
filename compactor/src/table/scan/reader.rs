//! The live rows of one data file, in file order, with their positions.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow_schema::{FieldRef, Fields, Schema as ArrowSchema, SchemaRef as ArrowSchemaRef};
use firn_shared::error::{Error, Result};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use iceberg::arrow::ArrowFileReader;
use iceberg::io::{FileIO, FileMetadata};
use iceberg::spec::{DataFile, DataFileFormat, PrimitiveLiteral};
use iceberg::table::Table;
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::basic::Type as PhysicalType;
use parquet::bloom_filter::Sbbf;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

use super::LiveFile;
use super::deletes::{Deletes, KEPT_BYTES};
use super::dictionary::dictionary;
use super::project::{Projection, arrow_field};
use crate::table::error;

/// Rows per batch unless said otherwise.
pub const BATCH_ROWS: usize = 8192;

type Builder = ParquetRecordBatchStreamBuilder<ArrowFileReader>;

/// Live rows.
#[derive(Debug, Clone)]
pub struct LiveBatch {
    /// The columns asked for, in the table's current types.
    pub batch: RecordBatch,
    /// For each row its number in the file, counted from 0 over all rows, deleted ones included. Ascending.
    pub positions: Vec<i64>,
}

/// Reads data files of one table. Delete files that several data files share are read once, within a bound of memory.
#[derive(Debug, Clone)]
pub struct Reader {
    table: Table,
    fields: Fields,
    schema: ArrowSchemaRef,
    batch_rows: usize,
    deletes: Arc<Deletes>,
}

impl Reader {
    /// For top-level columns of the table's current schema, in the order given.
    ///
    /// # Errors
    /// `Config` for a column that the table does not have.
    pub fn new(table: &Table, columns: &[&str]) -> Result<Self> {
        let schema = table.metadata().current_schema();
        let field = |name: &&str| match schema.as_struct().field_by_name(name) {
            Some(field) => arrow_field(field),
            None => Err(Error::config(format!("{} has no column `{name}`", table.identifier()))),
        };
        Ok(Self::of(table, columns.iter().map(field).collect::<Result<_>>()?))
    }

    /// For all columns.
    ///
    /// # Errors
    /// `Config` for a column that cannot be read here.
    pub fn all(table: &Table) -> Result<Self> {
        let fields = table.metadata().current_schema().as_struct().fields();
        Ok(Self::of(table, fields.iter().map(arrow_field).collect::<Result<_>>()?))
    }

    fn of(table: &Table, fields: Fields) -> Self {
        let schema = Arc::new(ArrowSchema::new(fields.clone()));
        let deletes = Arc::new(Deletes::new(table.clone(), KEPT_BYTES));
        Self { table: table.clone(), fields, schema, batch_rows: BATCH_ROWS, deletes }
    }

    /// Decodes at most this many rows at a time; a batch holds the live ones of them.
    #[must_use]
    pub fn with_batch_rows(mut self, rows: usize) -> Self {
        self.batch_rows = rows.max(1);
        self
    }

    /// Keeps deleted positions and keys in this many bytes, half for each.
    #[must_use]
    pub fn with_delete_bytes(mut self, bytes: u64) -> Self {
        self.deletes = Arc::new(Deletes::new(self.table.clone(), bytes));
        self
    }

    /// The schema of the batches.
    #[must_use]
    pub fn schema(&self) -> &ArrowSchemaRef {
        &self.schema
    }

    /// All live rows of a file.
    ///
    /// # Errors
    /// As [`Reader::open`] and [`OpenFile::rows`].
    pub async fn rows(&self, file: &LiveFile) -> Result<BoxStream<'static, Result<LiveBatch>>> {
        self.open(file).await?.rows(None).await
    }

    /// Reads the footer of a file, for callers that choose row groups.
    ///
    /// # Errors
    /// As the store says; `Data` for a file that is not Parquet inside, `Config` for one that says so.
    pub async fn open(&self, file: &LiveFile) -> Result<OpenFile> {
        let parquet = parquet(self.table.file_io(), file.file()).await?;
        Ok(OpenFile { reader: self.clone(), file: file.clone(), parquet })
    }
}

/// A data file whose footer was read.
pub struct OpenFile {
    reader: Reader,
    file: LiveFile,
    parquet: Builder,
}

impl OpenFile {
    /// The footer: row groups with their statistics.
    #[must_use]
    pub fn metadata(&self) -> &ParquetMetaData {
        self.parquet.metadata()
    }

    /// The number of the Parquet column that holds a field of no nested type; `None` when the file does not have it.
    #[must_use]
    pub fn leaf(&self, field_id: i32) -> Option<usize> {
        let is = |info: &parquet::schema::types::BasicTypeInfo| info.has_id() && info.id() == field_id;
        self.parquet.parquet_schema().columns().iter().position(|c| is(c.self_type().get_basic_info()))
    }

    /// Whether a row group may hold one of these texts in a Parquet column, by its dictionary; where some page does without
    /// one, or the column has no texts, it may.
    ///
    /// # Errors
    /// As the store says; `Data` when the dictionary cannot be read.
    pub async fn dictionary_may_hold(
        &mut self,
        row_group: usize,
        leaf: usize,
        values: &HashSet<PrimitiveLiteral>,
    ) -> Result<bool> {
        let (io, path) = (self.reader.table.file_io(), self.file.path());
        let column = self.metadata().row_group(row_group).column(leaf);
        let texts: Option<HashSet<&[u8]>> = values.iter().map(bytes_of).collect();
        match texts {
            Some(texts) => Ok(dictionary(io, path, column).await?.is_none_or(|page| page.has_any(&texts))),
            None => Ok(true),
        }
    }

    /// Whether a row group may hold one of these values of a field, by its bloom filter; without one it may.
    ///
    /// # Errors
    /// As the store says; `Data` when the filter cannot be read.
    pub async fn may_hold(
        &mut self,
        row_group: usize,
        field_id: i32,
        values: &HashSet<PrimitiveLiteral>,
    ) -> Result<bool> {
        let Some(leaf) = self.leaf(field_id) else { return Ok(true) };
        let stored = self.parquet.parquet_schema().column(leaf).physical_type();
        let filter = self.parquet.get_row_group_column_bloom_filter(row_group, leaf).await;
        let filter = filter.map_err(|e| failed(self.file.path(), e))?;
        Ok(filter.is_none_or(|filter| values.iter().any(|value| is_in(&filter, stored, value))))
    }

    /// Streams the live rows of some row groups (`None`: of all), ascending.
    ///
    /// # Errors
    /// As the store says; `Data` for files that cannot be decoded or do not fit the table, `Config` for delete files of a
    /// kind that cannot be read.
    pub async fn rows(self, row_groups: Option<Vec<usize>>) -> Result<BoxStream<'static, Result<LiveBatch>>> {
        let Self { reader, file, parquet } = self;
        let filter = reader.deletes.filter(&file).await?;
        let mut wanted: Vec<FieldRef> = reader.fields.iter().cloned().collect();
        wanted.extend(filter.columns());
        let projection = Projection::new(file.path(), parquet.schema(), parquet.parquet_schema(), &wanted)?;
        let mut positions = Positions::of(parquet.metadata(), row_groups.as_deref());
        let mut parquet = parquet.with_projection(projection.mask.clone()).with_batch_size(reader.batch_rows);
        if let Some(groups) = row_groups {
            parquet = parquet.with_row_groups(groups);
        }
        let path = file.path().to_owned();
        let stream = parquet.build().map_err(|e| failed(&path, e))?;
        let (fields, schema) = (reader.fields, reader.schema);
        let mut live = move |decoded: RecordBatch| {
            let positions = positions.next(decoded.num_rows());
            let columns = fields.iter().map(|f| projection.column(&decoded, f)).collect::<Result<Vec<_>>>()?;
            let keep = filter.keep(&projection, &decoded, &positions)?;
            keep_rows(&schema, columns, positions, keep)
        };
        let batches = stream.map(move |decoded| decoded.map_err(|e| failed(&path, e)).and_then(&mut live));
        Ok(batches.try_filter(|b| std::future::ready(!b.positions.is_empty())).boxed())
    }
}

fn keep_rows(
    schema: &ArrowSchemaRef,
    columns: Vec<ArrayRef>,
    positions: Vec<i64>,
    keep: Option<BooleanArray>,
) -> Result<LiveBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(positions.len()));
    let batch = RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .map_err(|e| Error::data(format!("rows do not fit the table: {e}")).with_source(e))?;
    let Some(keep) = keep else { return Ok(LiveBatch { batch, positions }) };
    let batch = arrow_select::filter::filter_record_batch(&batch, &keep);
    let batch = batch.map_err(|e| Error::bug("cannot leave out deleted rows").with_source(e))?;
    let positions = keep.values().set_indices().map(|row| positions[row]).collect();
    Ok(LiveBatch { batch, positions })
}

/// Whether a value may be in a bloom filter over a column of this physical type, which for an older file may be narrower than
/// the value's. Types whose stored form is not certain may.
fn is_in(filter: &Sbbf, stored: PhysicalType, value: &PrimitiveLiteral) -> bool {
    match (stored, value) {
        (PhysicalType::INT32, PrimitiveLiteral::Int(n)) => filter.check(n),
        (PhysicalType::INT32, PrimitiveLiteral::Long(n)) => i32::try_from(*n).is_ok_and(|n| filter.check(&n)),
        (PhysicalType::INT64, PrimitiveLiteral::Long(n)) => filter.check(n),
        (PhysicalType::BYTE_ARRAY, PrimitiveLiteral::String(text)) => filter.check(text.as_str()),
        (PhysicalType::BYTE_ARRAY, PrimitiveLiteral::Binary(bytes)) => filter.check(bytes.as_slice()),
        (PhysicalType::FIXED_LEN_BYTE_ARRAY, PrimitiveLiteral::UInt128(n)) => filter.check(n.to_be_bytes().as_slice()),
        _ => true,
    }
}

/// The bytes of a text; `None` for other values.
fn bytes_of(value: &PrimitiveLiteral) -> Option<&[u8]> {
    match value {
        PrimitiveLiteral::String(text) => Some(text.as_bytes()),
        _ => None,
    }
}

/// The row numbers of the row groups that are read, in order.
struct Positions {
    groups: std::vec::IntoIter<Range<i64>>,
    current: Range<i64>,
}

impl Positions {
    fn of(metadata: &ParquetMetaData, chosen: Option<&[usize]>) -> Self {
        let mut start = 0;
        let mut ranges = Vec::new();
        for (number, group) in metadata.row_groups().iter().enumerate() {
            let range = start..start + group.num_rows();
            start = range.end;
            if chosen.is_none_or(|chosen| chosen.contains(&number)) {
                ranges.push(range);
            }
        }
        Self { groups: ranges.into_iter(), current: 0..0 }
    }

    fn next(&mut self, count: usize) -> Vec<i64> {
        let mut positions = Vec::with_capacity(count);
        while positions.len() < count {
            let left = (count - positions.len()) as i64;
            let end = self.current.end.min(self.current.start + left);
            positions.extend(self.current.start..end);
            self.current.start = end;
            if positions.len() < count {
                match self.groups.next() {
                    Some(next) => self.current = next,
                    None => break,
                }
            }
        }
        positions
    }
}

/// The fields of which a Parquet file of the table has a column.
///
/// # Errors
/// As [`Reader::open`].
pub async fn field_ids(table: &Table, file: &DataFile) -> Result<Vec<i32>> {
    let parquet = parquet(table.file_io(), file).await?;
    let infos = parquet.parquet_schema().columns().iter().map(|column| column.self_type().get_basic_info().clone());
    Ok(infos.filter(parquet::schema::types::BasicTypeInfo::has_id).map(|info| info.id()).collect())
}

/// Opens a Parquet file of the table.
pub(super) async fn parquet(io: &FileIO, file: &DataFile) -> Result<Builder> {
    let path = file.file_path();
    if file.file_format() != DataFileFormat::Parquet {
        return Err(Error::config(format!("{path} is {}, and only Parquet is read here", file.file_format())));
    }
    let input = io.new_input(path).map_err(|e| error(format!("cannot open {path}"), e))?;
    let input = input.reader().await.map_err(|e| error(format!("cannot open {path}"), e))?;
    let reader = ArrowFileReader::new(FileMetadata { size: file.file_size_in_bytes() }, input);
    // The file's copy of an Arrow schema may name other types than the table; Parquet's own are plain.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    Builder::new_with_options(reader, options).await.map_err(|e| failed(path, e))
}

/// All rows of a delete file, some columns of it.
pub(super) async fn raw(
    io: &FileIO,
    file: &DataFile,
    wanted: Vec<FieldRef>,
) -> Result<BoxStream<'static, Result<Vec<ArrayRef>>>> {
    let parquet = parquet(io, file).await?;
    let path = file.file_path().to_owned();
    let projection = Projection::new(&path, parquet.schema(), parquet.parquet_schema(), &wanted)?;
    let stream = parquet.with_projection(projection.mask.clone()).with_batch_size(BATCH_ROWS).build();
    let stream = stream.map_err(|e| failed(&path, e))?;
    let columns = move |batch: RecordBatch| wanted.iter().map(|f| projection.column(&batch, f)).collect();
    Ok(stream.map(move |batch| batch.map_err(|e| failed(&path, e)).and_then(&columns)).boxed())
}

/// The kind is that of our own error below, when the store caused it.
pub(super) fn failed(path: &str, e: ParquetError) -> Error {
    let message = format!("cannot read {path}");
    match e {
        ParquetError::External(cause) => match cause.downcast::<iceberg::Error>() {
            Ok(cause) => error(message, *cause),
            Err(cause) => Error::data(format!("{message}: {cause}")),
        },
        other => Error::data(format!("{message}: {other}")).with_source(other),
    }
}
