//! One Parquet file on its way out.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use firn_shared::error::{Error, Result};
use firn_shared::store::Stores;
use iceberg::metadata_columns::RESERVED_FIELD_ID_DELETE_FILE_PATH;
use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, Datum, SchemaRef as IcebergSchema, Struct,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::encode::{Encoding, RowGroup};
use super::metrics::{Metrics, always_bounded};
use super::properties::{ROW_GROUP_BYTES_MAX, ROW_GROUP_ROWS_MAX};
use super::upload::{BUFFERED, Pending, Upload};
use super::{WriteSpec, properties};

/// What an encoder holds of each column from its first row on and does not count, bytes.
const COLUMN: u64 = 16 << 10;
/// What the one codec of a row group holds for pages of a megabyte, bytes.
const CODEC: u64 = 2 << 20;

/// What all files of a writer share.
pub(super) struct Template {
    stores: Stores,
    runtime: Handle,
    schema: IcebergSchema,
    encoding: Encoding,
    /// Leaf columns.
    columns: u64,
    /// What the store's writer of one file holds at most.
    upload_bytes_max: u64,
    /// `{location}/data`, or the table's `write.data.path`.
    directory: String,
    /// `{run}-{slice}`.
    name: String,
    kind: Kind,
    /// Fields that have bounds however many columns there are.
    bounded: HashSet<i32>,
    /// `None` for unsorted tables.
    sort_order_id: Option<i32>,
}

/// What files are for.
pub(super) enum Kind {
    Data,
    PositionDeletes,
    /// By these columns.
    EqualityDeletes(Vec<i32>),
}

impl Template {
    pub fn new(spec: &WriteSpec, arrow: SchemaRef) -> Result<Self> {
        let metadata = &spec.metadata;
        let location = metadata.location().trim_end_matches('/');
        let directory = metadata.properties().get("write.data.path").cloned();
        let order = metadata.default_sort_order();
        let encoding = encoding(arrow, properties::for_table(metadata, spec.zstd_level)?)?;
        Ok(Self {
            stores: spec.stores.clone(),
            runtime: spec.runtime.clone(),
            schema: metadata.current_schema().clone(),
            encoding,
            columns: metadata.current_schema().field_id_to_name_map().len().max(1) as u64,
            upload_bytes_max: spec.stores.writer_bytes_max(location),
            directory: directory.unwrap_or_else(|| format!("{location}/data")),
            name: format!("{}-{}", spec.run, spec.slice),
            kind: Kind::Data,
            bounded: always_bounded(metadata),
            sort_order_id: (!order.is_unsorted()).then_some(order.order_id as i32),
        })
    }

    /// Of delete files with a schema of their own. A slice may write deletes several times, so names are drawn.
    pub fn deletes(spec: &WriteSpec, schema: IcebergSchema, arrow: SchemaRef, kind: Kind) -> Result<Self> {
        let name = format!("{}-{}-deletes-{}", spec.run, spec.slice, Uuid::new_v4().simple());
        let encoding = encoding(arrow.clone(), properties::properties(spec.zstd_level)?.build())?;
        Ok(Self { schema, encoding, name, kind, sort_order_id: None, ..Self::new(spec, arrow)? })
    }
}

fn encoding(arrow: SchemaRef, properties: WriterProperties) -> Result<Encoding> {
    Encoding::new(arrow, Arc::new(properties))
        .map_err(|e| Error::bug(format!("the schema has no Parquet form: {e}")).with_source(e))
}

/// A file being written.
pub(super) struct OpenFile {
    template: Arc<Template>,
    url: String,
    /// Spec id and value.
    partition: (i32, Struct),
    writer: SerializedFileWriter<Upload>,
    /// The row group in progress.
    rows: Option<RowGroup>,
    runs: usize,
    /// First and last data file that position deletes refer to.
    refers_to: Option<(String, String)>,
}

/// A file that is complete here and may still be on its way.
pub(super) struct Closing {
    template: Arc<Template>,
    url: String,
    partition: (i32, Struct),
    parquet: ParquetMetaData,
    bytes: u64,
    runs: usize,
    refers_to: Option<(String, String)>,
    upload: Pending,
}

impl OpenFile {
    /// The `number`-th file of the writer, below `path` of the partition (empty when unpartitioned).
    pub fn new(template: Arc<Template>, number: u64, path: &str, partition: (i32, Struct)) -> Result<Self> {
        let slash = if path.is_empty() { "" } else { "/" };
        let url = format!("{}/{path}{slash}{}-{number:05}.parquet", template.directory, template.name);
        let upload = Upload::start(&template.runtime, template.stores.clone(), url.clone());
        let writer = template.encoding.file(upload);
        let writer = writer.map_err(|e| Error::bug(format!("cannot start {url}: {e}")).with_source(e))?;
        Ok(Self { template, url, partition, writer, rows: None, runs: 0, refers_to: None })
    }

    /// Bytes held in memory, about: what the encoder counts, what it does not count of each column, and what was written
    /// and may not be in the store yet.
    pub fn memory(&self) -> u64 {
        let (encoded, columns) = match &self.rows {
            Some(rows) => (rows.memory() as u64, self.template.columns * COLUMN + CODEC),
            None => (0, 0),
        };
        let on_their_way = (self.writer.bytes_written() as u64).min(BUFFERED + self.template.upload_bytes_max);
        encoded + columns + on_their_way
    }

    /// Bytes the file will have, about.
    pub fn size(&self) -> u64 {
        (self.writer.bytes_written() + self.rows.as_ref().map_or(0, RowGroup::bytes)) as u64
    }

    /// Says that the next rows delete rows of this data file; paths ascend.
    pub fn refer_to(&mut self, path: &str) {
        match &mut self.refers_to {
            Some((_, last)) if last == path => {}
            Some((_, last)) => *last = path.to_owned(),
            None => self.refers_to = Some((path.to_owned(), path.to_owned())),
        }
    }

    /// Appends rows.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut at = 0;
        while at < batch.num_rows() {
            let rows = match &mut self.rows {
                Some(rows) => rows,
                none => {
                    let rows = self.template.encoding.row_group();
                    none.insert(
                        rows.map_err(|e| Error::bug(format!("cannot encode {}: {e}", self.url)).with_source(e))?,
                    )
                }
            };
            let count = (batch.num_rows() - at).min(ROW_GROUP_ROWS_MAX - rows.rows());
            let written = rows.write(&batch.slice(at, count));
            let full = rows.rows() >= ROW_GROUP_ROWS_MAX || rows.bytes() >= ROW_GROUP_BYTES_MAX;
            self.explain(written)?;
            at += count;
            if full {
                self.end_row_group()?;
            }
        }
        Ok(())
    }

    /// Appends a sorted run as one row group.
    pub fn write_run(&mut self, run: impl Iterator<Item = Result<RecordBatch>>) -> Result<()> {
        self.runs += 1;
        for rows in run {
            self.write(&rows?)?;
        }
        self.end_row_group()
    }

    /// Ends the row group, which frees the memory it held.
    pub fn end_row_group(&mut self) -> Result<()> {
        let Some(rows) = self.rows.take() else { return Ok(()) };
        let written = self.writer.next_row_group().and_then(|mut group| {
            rows.finish(&mut group)?;
            group.close()
        });
        self.explain(written).map(drop)
    }

    fn explain<T>(&mut self, result: Result<T, ParquetError>) -> Result<T> {
        result.map_err(|e| match self.writer.inner_mut().failure() {
            Some(cause) => cause,
            None => Error::bug(format!("cannot encode {}: {e}", self.url)).with_source(e),
        })
    }

    /// Writes the footer and lets the upload end.
    pub fn close(mut self) -> Result<Closing> {
        self.end_row_group()?;
        let finished = self.writer.finish();
        let parquet = self.explain(finished)?;
        let bytes = self.writer.bytes_written() as u64;
        // `into_inner` would write a second footer.
        let upload = self.writer.inner_mut().close();
        let Self { template, url, partition, runs, refers_to, .. } = self;
        Ok(Closing { template, url, partition, parquet, bytes, runs, refers_to, upload })
    }
}

impl Closing {
    /// Whether the upload has ended.
    pub fn is_done(&self) -> bool {
        self.upload.is_done()
    }

    /// Waits for the upload; the file as the manifest describes it.
    pub fn wait(self) -> Result<DataFile> {
        let Self { template, url, partition, parquet, bytes, runs, refers_to, upload } = self;
        let uploaded = upload.wait()?;
        if uploaded != bytes {
            return Err(Error::bug(format!("{url}: {bytes} bytes were written and {uploaded} arrived")));
        }
        let mut metrics = Metrics::of(&parquet, &template.schema, &template.bounded)?;
        let mut builder = DataFileBuilder::default();
        let content = match &template.kind {
            Kind::Data => DataContentType::Data,
            Kind::PositionDeletes => DataContentType::PositionDeletes,
            Kind::EqualityDeletes(ids) => {
                builder.equality_ids(Some(ids.clone()));
                DataContentType::EqualityDeletes
            }
        };
        if let Some((first, last)) = refers_to {
            // Whole paths: readers see by equal bounds that one data file is concerned.
            metrics.lower.insert(RESERVED_FIELD_ID_DELETE_FILE_PATH, Datum::string(&first));
            metrics.upper.insert(RESERVED_FIELD_ID_DELETE_FILE_PATH, Datum::string(&last));
            builder.referenced_data_file((first == last).then_some(first));
        }
        builder
            .content(content)
            .file_path(url.clone())
            .file_format(DataFileFormat::Parquet)
            .partition(partition.1)
            .partition_spec_id(partition.0)
            .record_count(parquet.file_metadata().num_rows() as u64)
            .file_size_in_bytes(bytes)
            .column_sizes(metrics.sizes)
            .value_counts(metrics.values)
            .null_value_counts(metrics.nulls)
            .lower_bounds(metrics.lower)
            .upper_bounds(metrics.upper)
            .split_offsets(Some(metrics.split_offsets));
        // Several runs are sorted each, not all together.
        if runs == 1 {
            builder.sort_order_id(template.sort_order_id.unwrap_or(0));
        }
        builder.build().map_err(|e| Error::bug(format!("cannot describe {url}: {e}")))
    }
}
