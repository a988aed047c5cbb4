//! Record batches to the column chunks of a row group.
//!
//! The parquet crate takes a level per row and column, a hash table and a zstd context per column: a table of a thousand
//! leaves, most of them null, costs as much as a full one. Here a column is runs: [`shape`] follows the parents' nulls
//! and offsets once for all columns below them, [`leaf`] writes levels and [`values`] run by run, with a [`dictionary`]
//! as long as that pays, and [`pages`] compresses with one context what is worth it. Footers, indexes of pages and what
//! only few columns ask for (page statistics, bloom filters, other encodings, long decimals) stay the crate's: such a
//! leaf is written by its `ArrowColumnWriter`.

mod bounds;
mod dictionary;
mod hybrid;
mod leaf;
mod pages;
mod shape;
mod values;

use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, OffsetSizeTrait, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::Compression;
use parquet::errors::{ParquetError, Result};
use parquet::file::properties::{EnabledStatistics, WriterPropertiesPtr};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{ColumnDescPtr, SchemaDescriptor};

use leaf::Leaf;
use pages::Codec;
use shape::Shape;

/// Batches are written in parts, so that a page does not become much larger than it should: this many bytes for each
/// leaf.
const PART_BYTES_PER_LEAF: usize = 256 << 10;
/// Rows of a part at most.
const PART_ROWS_MAX: usize = 20_000;

/// How row groups of one schema are encoded; made once for all files.
pub(super) struct Encoding {
    schema: SchemaRef,
    properties: WriterPropertiesPtr,
    parquet: SchemaDescriptor,
    fields: Vec<FieldPlan>,
}

/// A top-level field: whose leaves are written here.
struct FieldPlan {
    ours: Vec<bool>,
    /// Makes the crate's writers of all leaves of the field, when one of them is needed.
    factory: Option<ArrowRowGroupWriterFactory>,
}

impl Encoding {
    pub fn new(schema: SchemaRef, properties: WriterPropertiesPtr) -> Result<Self> {
        let parquet = ArrowSchemaConverter::new().with_coerce_types(properties.coerce_types()).convert(&schema)?;
        let mut leaves = parquet.columns().iter();
        let mut fields = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let mut ours = Vec::new();
            plan(field.data_type(), &mut |data_type| {
                let Some(column) = leaves.next() else { return };
                ours.push(is_ours(data_type, column, &properties));
            });
            let factory = if ours.iter().all(|o| *o) { None } else { Some(factory(field, &properties)?) };
            fields.push(FieldPlan { ours, factory });
        }
        Ok(Self { schema, properties, parquet, fields })
    }

    /// A writer of a file with this schema.
    pub fn file<W: Write + Send>(&self, to: W) -> Result<SerializedFileWriter<W>> {
        SerializedFileWriter::new(to, self.parquet.root_schema_ptr(), self.properties.clone())
    }

    /// An empty row group.
    pub fn row_group(&self) -> Result<RowGroup> {
        let mut columns = self.parquet.columns().iter();
        let mut fields = Vec::with_capacity(self.fields.len());
        for field in &self.fields {
            let mut theirs = match &field.factory {
                Some(factory) => factory.create_column_writers(0)?.into_iter().map(Some).collect(),
                None => Vec::new(),
            };
            let mut leaves = Vec::with_capacity(field.ours.len());
            for (i, (ours, column)) in field.ours.iter().zip(&mut columns).enumerate() {
                leaves.push(if *ours {
                    LeafWriter::Ours(Box::new(Leaf::new(column.clone(), &self.properties)))
                } else {
                    let writer = theirs.get_mut(i).and_then(Option::take);
                    LeafWriter::Theirs(Box::new(writer.ok_or_else(|| missing(column))?))
                });
            }
            fields.push(leaves);
        }
        let work = Work { ranges: Vec::new(), codec: Codec::default() };
        Ok(RowGroup { schema: self.schema.clone(), fields, rows: 0, work })
    }
}

fn missing(column: &ColumnDescPtr) -> ParquetError {
    ParquetError::General(format!("no writer for column {}", column.path()))
}

/// Whether the leaf can be written here.
fn is_ours(data_type: &DataType, column: &ColumnDescPtr, properties: &WriterPropertiesPtr) -> bool {
    let path = column.path();
    values::takes(data_type, column.physical_type())
        && properties.encoding(path).is_none()
        && properties.statistics_enabled(path) != EnabledStatistics::Page
        && properties.bloom_filter_properties(path).is_none()
        && matches!(properties.compression(path), Compression::ZSTD(_) | Compression::UNCOMPRESSED)
}

/// Visits the leaves of a type in the order of Parquet's columns.
fn plan(data_type: &DataType, leaf: &mut impl FnMut(&DataType)) {
    match data_type {
        DataType::Struct(fields) => fields.iter().for_each(|f| plan(f.data_type(), leaf)),
        DataType::List(element) | DataType::LargeList(element) => plan(element.data_type(), leaf),
        DataType::Map(entries, _) => plan(entries.data_type(), leaf),
        other => leaf(other),
    }
}

fn factory(field: &Arc<Field>, properties: &WriterPropertiesPtr) -> Result<ArrowRowGroupWriterFactory> {
    let schema = Arc::new(Schema::new(vec![field.clone()]));
    let parquet = ArrowSchemaConverter::new().with_coerce_types(properties.coerce_types()).convert(&schema)?;
    // The factory takes what it needs to know from a file.
    let file = SerializedFileWriter::new(std::io::sink(), parquet.root_schema_ptr(), properties.clone())?;
    Ok(ArrowRowGroupWriterFactory::new(&file, schema))
}

enum LeafWriter {
    Ours(Box<Leaf>),
    Theirs(Box<ArrowColumnWriter>),
}

struct Work {
    ranges: Vec<Range<usize>>,
    codec: Codec,
}

/// A row group under construction.
pub(super) struct RowGroup {
    schema: SchemaRef,
    fields: Vec<Vec<LeafWriter>>,
    rows: usize,
    work: Work,
}

impl RowGroup {
    /// Rows written so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes that the file will have of it, about.
    pub fn bytes(&self) -> usize {
        let leaves = self.fields.iter().flatten();
        leaves
            .map(|leaf| match leaf {
                LeafWriter::Ours(leaf) => leaf.bytes(),
                LeafWriter::Theirs(writer) => writer.get_estimated_total_bytes(),
            })
            .sum()
    }

    /// Bytes held in memory.
    pub fn memory(&self) -> usize {
        let leaves = self.fields.iter().flatten();
        leaves
            .map(|leaf| match leaf {
                LeafWriter::Ours(leaf) => leaf.memory(),
                LeafWriter::Theirs(writer) => writer.memory_size(),
            })
            .sum()
    }

    /// Appends rows of the schema.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let leaves = self.fields.iter().map(Vec::len).sum::<usize>().max(1);
        let parts = batch.get_array_memory_size() / (leaves * PART_BYTES_PER_LEAF) + 1;
        let rows = batch.num_rows().div_ceil(parts).clamp(1, PART_ROWS_MAX);
        let mut at = 0;
        while at < batch.num_rows() {
            let count = rows.min(batch.num_rows() - at);
            if count == batch.num_rows() {
                self.write_part(batch)?;
            } else {
                self.write_part(&batch.slice(at, count))?;
            }
            at += count;
        }
        Ok(())
    }

    fn write_part(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows();
        let rows = Shape::rows(batch.num_rows());
        let schema = self.schema.clone();
        for ((field, array), leaves) in schema.fields().iter().zip(batch.columns()).zip(&mut self.fields) {
            if leaves.iter().any(|l| matches!(l, LeafWriter::Theirs(_))) {
                for (leaf, levels) in leaves.iter_mut().zip(compute_leaves(field, array)?) {
                    if let LeafWriter::Theirs(writer) = leaf {
                        writer.write(&levels)?;
                    }
                }
            }
            write_field(field, array, &rows, Depth::default(), &mut leaves.iter_mut(), &mut self.work)?;
        }
        Ok(())
    }

    /// Writes the column chunks as the file's next row group.
    pub fn finish<W: Write + Send>(mut self, to: &mut SerializedRowGroupWriter<'_, W>) -> Result<()> {
        for leaf in self.fields.into_iter().flatten() {
            match leaf {
                LeafWriter::Ours(leaf) => {
                    let (bytes, close) = leaf.finish(&mut self.work.codec)?;
                    to.append_column(&bytes, close)?;
                }
                LeafWriter::Theirs(writer) => writer.close()?.append_to_row_group(to)?,
            }
        }
        Ok(())
    }
}

/// The levels that a value has when all its parents are there.
#[derive(Debug, Clone, Copy, Default)]
struct Depth {
    definition: u32,
    repetition: u32,
}

/// Writes an array and everything below it, in the order of the leaves.
fn write_field<'a>(
    field: &Field,
    array: &ArrayRef,
    shape: &Shape,
    depth: Depth,
    leaves: &mut impl Iterator<Item = &'a mut LeafWriter>,
    work: &mut Work,
) -> Result<()> {
    let nullable = u32::from(field.is_nullable());
    match field.data_type() {
        DataType::Struct(fields) => {
            let array = array.as_struct();
            let nulls = array.nulls().filter(|n| field.is_nullable() && n.null_count() > 0);
            let inner = nulls.map(|nulls| shape.below_struct(nulls, depth.definition));
            let shape = inner.as_ref().unwrap_or(shape);
            let depth = Depth { definition: depth.definition + nullable, ..depth };
            for (field, array) in fields.iter().zip(array.columns()) {
                write_field(field, array, shape, depth, leaves, work)?;
            }
            Ok(())
        }
        DataType::List(element) => {
            let array = array.as_list::<i32>();
            let (inner, depth) = elements(field, array.offsets(), array.nulls(), shape, depth);
            write_field(element, array.values(), &inner, depth, leaves, work)
        }
        DataType::LargeList(element) => {
            let array = array.as_list::<i64>();
            let (inner, depth) = elements(field, array.offsets(), array.nulls(), shape, depth);
            write_field(element, array.values(), &inner, depth, leaves, work)
        }
        DataType::Map(entries, _) => {
            let array = array.as_map();
            let (inner, depth) = elements(field, array.offsets(), array.nulls(), shape, depth);
            let values: ArrayRef = Arc::new(array.entries().clone());
            write_field(entries, &values, &inner, depth, leaves, work)
        }
        _ => match leaves.next() {
            Some(LeafWriter::Ours(leaf)) => {
                leaf.write(shape, array.as_ref(), field.is_nullable(), &mut work.ranges, &mut work.codec)
            }
            Some(LeafWriter::Theirs(_)) => Ok(()),
            None => Err(ParquetError::General(format!("more columns than leaves at {}", field.name()))),
        },
    }
}

/// The shape of a list's elements, and their depth.
fn elements<O: OffsetSizeTrait>(
    field: &Field,
    offsets: &arrow_buffer::OffsetBuffer<O>,
    nulls: Option<&arrow_buffer::NullBuffer>,
    shape: &Shape,
    depth: Depth,
) -> (Shape, Depth) {
    let nulls = nulls.filter(|_| field.is_nullable());
    let empty = depth.definition + u32::from(field.is_nullable());
    let depth_below = Depth { definition: empty + 1, repetition: depth.repetition + 1 };
    (shape.below_list(offsets, nulls, depth.definition, empty, depth_below.repetition), depth_below)
}

#[cfg(test)]
mod tests;
