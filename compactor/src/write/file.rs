//! One Parquet file on its way out.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use firn_shared::error::{Error, Result};
use firn_shared::store::Stores;
use iceberg::spec::{DataContentType, DataFile, DataFileBuilder, DataFileFormat, SchemaRef as IcebergSchema, Struct};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::WriterProperties;
use tokio::runtime::Handle;

use super::metrics::Metrics;
use super::upload::{BUFFERED, Pending, Upload};
use super::{WriteSpec, properties};

/// What all files of a writer share.
pub(super) struct Template {
    stores: Stores,
    runtime: Handle,
    arrow: SchemaRef,
    schema: IcebergSchema,
    properties: WriterProperties,
    /// `{location}/data`, or the table's `write.data.path`.
    directory: String,
    /// `{run}-{slice}`.
    name: String,
    spec_id: i32,
    /// `None` for unsorted tables.
    sort_order_id: Option<i32>,
}

impl Template {
    pub fn new(spec: &WriteSpec, arrow: SchemaRef) -> Result<Self> {
        let metadata = &spec.metadata;
        let location = metadata.location().trim_end_matches('/');
        let directory = metadata.properties().get("write.data.path").cloned();
        let order = metadata.default_sort_order();
        Ok(Self {
            stores: spec.stores.clone(),
            runtime: spec.runtime.clone(),
            arrow,
            schema: metadata.current_schema().clone(),
            properties: properties::for_table(metadata, spec.zstd_level)?,
            directory: directory.unwrap_or_else(|| format!("{location}/data")),
            name: format!("{}-{}", spec.run, spec.slice),
            spec_id: metadata.default_partition_spec_id(),
            sort_order_id: (!order.is_unsorted()).then_some(order.order_id as i32),
        })
    }
}

/// A file being written.
pub(super) struct OpenFile {
    template: Arc<Template>,
    url: String,
    partition: Struct,
    writer: ArrowWriter<Upload>,
    runs: usize,
}

/// A file that is complete here and may still be on its way.
pub(super) struct Closing {
    template: Arc<Template>,
    url: String,
    partition: Struct,
    parquet: ParquetMetaData,
    bytes: u64,
    runs: usize,
    upload: Pending,
}

impl OpenFile {
    /// The `number`-th file of the writer, below `path` of the partition (empty when unpartitioned).
    pub fn new(template: Arc<Template>, number: u64, path: &str, partition: Struct) -> Result<Self> {
        let slash = if path.is_empty() { "" } else { "/" };
        let url = format!("{}/{path}{slash}{}-{number:05}.parquet", template.directory, template.name);
        let upload = Upload::start(&template.runtime, template.stores.clone(), url.clone());
        let options = ArrowWriterOptions::new()
            .with_properties(template.properties.clone())
            // Readers of Iceberg go by field ids; the copy of the Arrow schema would be dead weight in each footer.
            .with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(upload, template.arrow.clone(), options)
            .map_err(|e| Error::bug(format!("cannot start {url}: {e}")).with_source(e))?;
        Ok(Self { template, url, partition, writer, runs: 0 })
    }

    /// Bytes held in memory.
    pub fn memory(&self) -> u64 {
        self.writer.memory_size() as u64 + self.writer.inner().buffered() + BUFFERED
    }

    /// Bytes the file will have, about.
    pub fn size(&self) -> u64 {
        (self.writer.bytes_written() + self.writer.in_progress_size()) as u64
    }

    /// Appends rows.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let written = self.writer.write(batch);
        self.explain(written)
    }

    /// Appends a sorted run as one row group.
    pub fn write_run(&mut self, run: &RecordBatch) -> Result<()> {
        self.runs += 1;
        self.write(run)?;
        self.end_row_group()
    }

    /// Ends the row group, which frees the memory it held.
    pub fn end_row_group(&mut self) -> Result<()> {
        let flushed = self.writer.flush();
        self.explain(flushed)
    }

    fn explain<T>(&mut self, result: Result<T, ParquetError>) -> Result<T> {
        result.map_err(|e| match self.writer.inner_mut().failure() {
            Some(cause) => cause,
            None => Error::bug(format!("cannot encode {}: {e}", self.url)).with_source(e),
        })
    }

    /// Writes the footer and lets the upload end.
    pub fn close(mut self) -> Result<Closing> {
        let finished = self.writer.finish();
        let parquet = self.explain(finished)?;
        let bytes = self.writer.bytes_written() as u64;
        // `into_inner` would write a second footer.
        let upload = self.writer.inner_mut().close();
        let Self { template, url, partition, runs, .. } = self;
        Ok(Closing { template, url, partition, parquet, bytes, runs, upload })
    }
}

impl Closing {
    /// Waits for the upload; the file as the manifest describes it.
    pub fn wait(self) -> Result<DataFile> {
        let Self { template, url, partition, parquet, bytes, runs, upload } = self;
        let uploaded = upload.wait()?;
        if uploaded != bytes {
            return Err(Error::bug(format!("{url}: {bytes} bytes were written and {uploaded} arrived")));
        }
        let metrics = Metrics::of(&parquet, &template.schema)?;
        let mut builder = DataFileBuilder::default();
        builder
            .content(DataContentType::Data)
            .file_path(url.clone())
            .file_format(DataFileFormat::Parquet)
            .partition(partition)
            .partition_spec_id(template.spec_id)
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
