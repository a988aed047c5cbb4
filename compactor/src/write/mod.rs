//! Record batches to Parquet data files.
//!
//! A [`DataWriter`] is synchronous and runs on the caller's worker thread: it splits batches by the table's partition
//! spec ([`partition`]), sorts them in runs of bounded size, encodes ([`properties`]), and hands finished bytes to an
//! upload on the tokio runtime ([`upload`]) through a small buffer. [`metrics`] reads counts and bounds out of the
//! Parquet footer for the manifest. [`deletes`] writes delete files the same way.
//!
//! **Names.** `{location}/data/{partition path}/{run}-{slice}-{n}.parquet`; the run id is unique, so no name is ever used
//! twice. The path is for people: characters that are not letters, digits, `.`, `_` or `-` become `_` in it.
//!
//! **Memory.** At most [`WriteSpec::open_files_max`] files are open; beyond it the least recently used is closed. When
//! what all of them hold passes [`WriteSpec::memory`], the largest ends its row group (and its sorted run), which costs
//! smaller row groups, not smaller files.
//!
//! **Order.** Rows are sorted within runs, and each run is a row group. A file of one run carries the table's sort order
//! id; a file of several does not claim it, while its row groups still have narrow bounds. So file size does not suffer
//! from the bound on memory.

pub mod deletes;
mod encode;
mod file;
mod metrics;
mod partition;
pub mod properties;
mod sort;
mod stream;
mod upload;

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow_cast::CastOptions;
use arrow_schema::{Schema as ArrowSchema, SchemaRef as ArrowSchemaRef};
use firn_shared::error::{Error, Result};
use firn_shared::ids::RunId;
use firn_shared::store::Stores;
use iceberg::spec::{DataFile, Struct, TableMetadata, TableMetadataRef};

pub use stream::write_stream;

use crate::protect::METRICS;
use crate::table::{NewFile, schema};
use file::{Closing, OpenFile, Template};
use partition::Splitter;
use sort::Sorter;

/// What a writer needs to know.
#[derive(Debug, Clone)]
pub struct WriteSpec {
    /// The table: schema, default partition spec and sort order, location.
    pub metadata: TableMetadataRef,
    /// Where files go.
    pub stores: Stores,
    /// The runtime that uploads.
    pub runtime: tokio::runtime::Handle,
    /// The run; part of file names.
    pub run: RunId,
    /// The slice of the run, or another word that is unique in it; part of file names.
    pub slice: String,
    /// Files are closed at this many bytes.
    pub target_file_bytes: u64,
    /// Bound for everything that the writer buffers, bytes.
    pub memory: u64,
    /// Bound for files open at a time.
    pub open_files_max: usize,
    /// zstd level of the pages.
    pub zstd_level: i32,
}

/// Files open at a time unless said otherwise.
pub const OPEN_FILES_MAX: usize = 64;

/// Complete files that may still be on their way.
const CLOSING_MAX: usize = 2;

/// One partition of the table that rows are arriving for.
struct Open {
    partition: Struct,
    path: String,
    sorter: Sorter,
    file: Option<OpenFile>,
    used: u64,
}

impl Open {
    fn bytes(&self) -> u64 {
        self.sorter.bytes() + self.file.as_ref().map_or(0, OpenFile::memory)
    }
}

/// Writes the rows of one slice; dropped without `finish` it leaves no visible file of those still open.
pub struct DataWriter {
    spec: WriteSpec,
    template: Arc<Template>,
    schema: ArrowSchemaRef,
    splitter: Splitter,
    open: HashMap<Vec<u8>, Open>,
    closing: Vec<Closing>,
    closed: Vec<DataFile>,
    files: u64,
    clock: u64,
}

impl DataWriter {
    /// A writer for the current schema, partition spec and sort order of the table.
    ///
    /// # Errors
    /// `Config` for a zstd level that does not exist, `Bug` for a schema that Arrow cannot hold.
    pub fn new(spec: WriteSpec) -> Result<Self> {
        let metadata = &spec.metadata;
        let arrow = schema::arrow_schema(metadata.current_schema())?;
        let splitter = Splitter::new(metadata.current_schema().clone(), metadata.default_partition_spec().clone())?;
        let template = Arc::new(Template::new(&spec, arrow.clone())?);
        let (open, closing, closed) = (HashMap::new(), Vec::new(), Vec::new());
        Ok(Self { spec, template, schema: arrow, splitter, open, closing, closed, files: 0, clock: 0 })
    }

    /// Takes rows. Columns are found by name; what the table has more is null, other encodings of the same values
    /// (`LargeUtf8`, views, `UTC` for `+00:00`) are converted.
    ///
    /// # Errors
    /// `Data` for a value that does not fit its column, `Unavailable` when an upload failed; the writer is then useless.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let batch = conform(batch, &self.schema)?;
        for part in self.splitter.split(&batch)? {
            self.clock += 1;
            let sorter = || Sorter::new(self.spec.metadata.as_ref(), &self.schema);
            let open = match self.open.entry(part.key) {
                std::collections::hash_map::Entry::Occupied(found) => found.into_mut(),
                std::collections::hash_map::Entry::Vacant(new) => {
                    let path = self.splitter.path(&part.value);
                    new.insert(Open { partition: part.value, path, sorter: sorter()?, file: None, used: 0 })
                }
            };
            open.used = self.clock;
            if open.sorter.is_unsorted() {
                let file =
                    opened(&self.template, self.spec.metadata.default_partition_spec_id(), &mut self.files, open)?;
                file.write(&part.batch)?;
            } else {
                open.sorter.push(part.batch);
            }
            if self.open.len() > self.spec.open_files_max.max(1) {
                self.settle()?;
            }
        }
        self.settle()
    }

    /// Closes everything and waits for the uploads.
    ///
    /// # Errors
    /// As `write`; files that were uploaded before the failure are orphans.
    pub fn finish(mut self) -> Result<Vec<NewFile>> {
        for mut open in std::mem::take(&mut self.open).into_values() {
            self.close_file(&mut open)?;
        }
        let spec_id = self.spec.metadata.default_partition_spec_id();
        let mut closed = std::mem::take(&mut self.closed);
        for closing in std::mem::take(&mut self.closing) {
            closed.push(closing.wait()?);
        }
        let mut files: Vec<_> = closed.into_iter().map(|file| NewFile { spec_id, file }).collect();
        files.sort_by(|a, b| a.file.file_path().cmp(b.file.file_path()));
        Ok(files)
    }

    /// Closes files that are full, then whatever passes the bounds.
    fn settle(&mut self) -> Result<()> {
        // Written, a run exists a second time, encoded.
        let run_bytes = self.spec.memory / 4;
        for key in self.keys(|open| open.sorter.bytes() >= run_bytes) {
            self.with(&key, Self::end_run)?;
        }
        let target = self.spec.target_file_bytes;
        for key in self.keys(|open| open.file.as_ref().is_some_and(|f| f.size() >= target)) {
            self.close(&key)?;
        }
        while self.open.len() > self.spec.open_files_max.max(1) {
            let Some(key) = self.open.iter().min_by_key(|(_, o)| o.used).map(|(k, _)| k.clone()) else { break };
            self.close(&key)?;
        }
        while self.open.values().map(Open::bytes).sum::<u64>() > self.spec.memory {
            let Some((key, held)) = self.open.iter().map(|(k, o)| (k, o.bytes())).max_by_key(|(_, b)| *b) else {
                break;
            };
            let key = key.clone();
            self.with(&key, |writer, open| {
                writer.end_run(open)?;
                open.file.as_mut().map_or(Ok(()), OpenFile::end_row_group)
            })?;
            // What is left is the fixed cost of open files; then only closing helps.
            if self.open.get(&key).is_some_and(|o| o.bytes() >= held) {
                self.close(&key)?;
            }
        }
        Ok(())
    }

    fn keys(&self, which: impl Fn(&Open) -> bool) -> Vec<Vec<u8>> {
        self.open.iter().filter(|(_, o)| which(o)).map(|(k, _)| k.clone()).collect()
    }

    /// Works on one open partition that is taken out for the time.
    fn with(&mut self, key: &[u8], work: impl FnOnce(&mut Self, &mut Open) -> Result<()>) -> Result<()> {
        let Some(mut open) = self.open.remove(key) else { return Ok(()) };
        work(self, &mut open)?;
        self.open.insert(key.to_vec(), open);
        Ok(())
    }

    fn close(&mut self, key: &[u8]) -> Result<()> {
        let Some(mut open) = self.open.remove(key) else { return Ok(()) };
        self.close_file(&mut open)
    }

    /// Ends the partition's file. Few may be on their way at a time: until they are up they hold memory.
    fn close_file(&mut self, open: &mut Open) -> Result<()> {
        self.end_run(open)?;
        if let Some(file) = open.file.take() {
            self.closing.push(file.close()?);
        }
        while self.closing.len() > CLOSING_MAX {
            let ended = self.closing.iter().position(Closing::is_done).unwrap_or(0);
            let file = self.closing.swap_remove(ended).wait()?;
            self.closed.push(file);
        }
        Ok(())
    }

    /// Writes a sorted run as a row group of its own.
    fn end_run(&mut self, open: &mut Open) -> Result<()> {
        if let Some(run) = open.sorter.take()? {
            let file = opened(&self.template, self.spec.metadata.default_partition_spec_id(), &mut self.files, open)?;
            file.write_run(run)?;
        }
        Ok(())
    }
}

/// The partition's open file; a new one when there is none.
fn opened<'a>(template: &Arc<Template>, spec_id: i32, files: &mut u64, open: &'a mut Open) -> Result<&'a mut OpenFile> {
    if open.file.is_none() {
        open.file = Some(OpenFile::new(template.clone(), *files, &open.path, (spec_id, open.partition.clone()))?);
        *files += 1;
    }
    open.file.as_mut().ok_or_else(|| Error::bug("a file was just opened"))
}

/// The properties that a table needs so that these columns have bounds in every file, by whomever it is written; none for a
/// table that says something of them already, or has so few columns that all have bounds.
#[must_use]
pub fn bounds_properties(metadata: &TableMetadata, columns: &[String]) -> HashMap<String, String> {
    if metadata.current_schema().field_id_to_name_map().len() <= metrics::BOUNDED_COLUMNS_MAX {
        return HashMap::new();
    }
    let of = |column: &String| (format!("{METRICS}{column}"), "truncate(16)".to_owned());
    columns.iter().map(of).filter(|(key, _)| !metadata.properties().contains_key(key)).collect()
}

/// The batch in another schema of the same values: columns by name, missing ones null, other encodings converted.
///
/// # Errors
/// `Data` for a value that does not fit its column, `Bug` for a column that the schema does not have.
pub fn conform(batch: &RecordBatch, schema: &ArrowSchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch.clone());
    }
    for field in batch.schema_ref().fields() {
        if schema.field_with_name(field.name()).is_err() {
            return Err(Error::bug(format!("column `{}` is not in the table", field.name())));
        }
    }
    // A value that does not fit is an error here, never null.
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let column = |field: &Arc<arrow_schema::Field>| -> Result<ArrayRef> {
        let Some(array) = batch.column_by_name(field.name()) else {
            return Ok(new_null_array(field.data_type(), batch.num_rows()));
        };
        if array.data_type() == field.data_type() {
            return Ok(array.clone());
        }
        arrow_cast::cast_with_options(array, field.data_type(), &strict)
            .map_err(|e| Error::data(format!("column `{}` does not fit the table: {e}", field.name())).with_source(e))
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .map_err(|e| Error::data(format!("rows do not fit the table: {e}")).with_source(e))
}

/// The Arrow schema that [`DataWriter::write`] takes without conversion.
///
/// # Errors
/// `Bug` for a type that Arrow lacks.
pub fn arrow_schema(metadata: &TableMetadataRef) -> Result<Arc<ArrowSchema>> {
    schema::arrow_schema(metadata.current_schema())
}

#[cfg(test)]
mod tests;
