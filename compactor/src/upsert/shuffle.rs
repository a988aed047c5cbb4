//! The rows of a run by key hash, on local disk: all versions of a key meet in one bucket, whichever Kafka partition,
//! slice or thread they came through, and a bucket fits into memory.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow_buffer::BooleanBuffer;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use firn_shared::config::domain::Upsert;
use firn_shared::error::{Error, Result};
use firn_shared::ids::RunId;
use iceberg::spec::TableMetadata;

use super::filter::KeyFilter;
use super::frames::{Frames, SharedFile};
use super::key::{Keys, bucket, hash};
use super::touched::Touched;
use super::truncate::Truncation;
use crate::execute::Rows;
use crate::spill::SpillDir;
use crate::write::conform;

/// The column that says whether a spilled row deletes its key.
pub const DELETE: &str = "__firn_delete";
/// The column that says whether the record of a spilled row has its place in the account elsewhere.
pub const SILENT: &str = "__firn_silent";
/// A bucket is to take this part of the run's memory, as Arrow arrays.
const BUCKET_SHARE: u64 = 16;
/// Buckets at most: beyond it frames become too small, and buckets larger than planned are split when they are read.
const BUCKETS_MAX: u64 = 1024;

/// The buckets of a run. Slices fill it at the same time, each through a [`ShuffleWriter`].
#[derive(Debug)]
pub struct Shuffle {
    keys: Keys,
    schema: SchemaRef,
    dir: SpillDir,
    /// Files of [`Self::scratch`] so far.
    scratch: AtomicU64,
    buckets: Vec<SharedFile>,
    filter: KeyFilter,
    touched: Mutex<Option<Touched>>,
    truncations: Mutex<Vec<Truncation>>,
    table: (TableMetadata, Vec<String>),
}

impl Shuffle {
    /// Buckets for about `records` records of `raw_bytes` bytes of JSON, below the directory `parent`.
    ///
    /// # Errors
    /// As [`Keys::new`]; `Config` when the directory cannot be made.
    pub fn new(
        upsert: &Upsert,
        metadata: &TableMetadata,
        (parent, run): (&Path, RunId),
        (records, raw_bytes): (u64, u64),
        memory: u64,
    ) -> Result<Self> {
        let table = crate::table::schema::arrow_schema(metadata.current_schema())?;
        let keys = Keys::new(upsert, &table)?;
        // A row that deletes may lack everything but its key.
        let mut fields: Vec<_> =
            table.fields().iter().map(|f| Arc::new(f.as_ref().clone().with_nullable(true))).collect();
        fields.extend([DELETE, SILENT].map(|name| Arc::new(Field::new(name, DataType::Boolean, false))));
        let dir = SpillDir::new(parent, &run.to_string())?;
        let count = raw_bytes.div_ceil((memory / BUCKET_SHARE).max(1)).clamp(1, BUCKETS_MAX);
        let buckets = (0..count).map(|n| Arc::new(Mutex::new(dir.file(&format!("incoming-{n}"))))).collect();
        let names: Vec<String> = keys.names().to_vec();
        Ok(Self {
            touched: Mutex::new(Some(Touched::new(metadata, &names)?)),
            truncations: Mutex::default(),
            filter: KeyFilter::new(records, memory / BUCKET_SHARE),
            table: (metadata.clone(), names),
            schema: Arc::new(Schema::new(fields)),
            keys,
            dir,
            scratch: AtomicU64::default(),
            buckets,
        })
    }

    /// How keys and versions are compared.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Number of buckets.
    pub fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// The run's own rows, [`DELETE`] included, by bucket.
    pub fn rows(&self) -> &[SharedFile] {
        &self.buckets
    }

    /// The run's own truncates.
    pub fn truncations(&self) -> Vec<Truncation> {
        self.truncations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the run may have a row of this key.
    pub fn may_touch(&self, key: &[u8]) -> bool {
        self.filter.may_hold(hash(key))
    }

    /// What the keys say about files, when all writers are done.
    ///
    /// # Errors
    /// `Bug` when it was taken before.
    pub fn take_touched(&self) -> Result<Touched> {
        let taken = self.touched.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.ok_or_else(|| Error::bug("the keys of a run are asked for twice"))
    }

    /// A further file per bucket, for what the table knows of the keys.
    pub fn more(&self, what: &str) -> Vec<SharedFile> {
        (0..self.buckets()).map(|n| Arc::new(Mutex::new(self.dir.file(&format!("{what}-{n}"))))).collect()
    }

    /// Files for whoever drops them soon.
    pub fn scratch(&self, count: usize) -> Vec<SharedFile> {
        let name = || format!("scratch-{}", self.scratch.fetch_add(1, Ordering::Relaxed));
        (0..count).map(|_| Arc::new(Mutex::new(self.dir.file(&name())))).collect()
    }
}

/// Which rows a writer takes, and where they go.
#[derive(Debug, Clone)]
pub struct Buckets {
    /// How keys are spread.
    pub shuffle: Arc<Shuffle>,
    /// `None`: all rows, as the run's own. Else rows of these keys, into files of their own.
    pub recall: Option<Arc<Recall>>,
}

/// Records that were converted by earlier runs and are wanted again, because a newer version of their key is gone.
#[derive(Debug)]
pub struct Recall {
    /// Their keys, approximately; [`super::merge`] leaves out what this lets pass by mistake.
    pub keys: KeyFilter,
    /// Their rows, by bucket.
    pub rows: Vec<SharedFile>,
    /// Truncates that were found on the way.
    pub truncations: Mutex<Vec<Truncation>>,
}

/// One slice's way into the buckets. Holds rows until a frame is worth writing.
#[derive(Debug)]
pub struct ShuffleWriter {
    shuffle: Arc<Shuffle>,
    recall: Option<Arc<Recall>>,
    frames: Frames,
    touched: Touched,
}

impl ShuffleWriter {
    /// A writer that holds at most about `memory` bytes.
    ///
    /// # Errors
    /// As [`Touched::new`].
    pub fn new(Buckets { shuffle, recall }: Buckets, memory: u64) -> Result<Self> {
        let touched = Touched::new(&shuffle.table.0, &shuffle.table.1)?;
        let files = recall.as_ref().map_or(&shuffle.buckets, |recall| &recall.rows);
        let frames = Frames::new(files.clone(), memory as usize);
        Ok(Self { shuffle, recall, frames, touched })
    }

    /// Takes rows of the table.
    ///
    /// # Errors
    /// `Unavailable` when the disk is full; `Data` for a value that does not fit its column.
    pub fn write(&mut self, rows: &Rows) -> Result<()> {
        let batch = self.marked(rows)?;
        let keys = self.shuffle.keys.keys(&batch)?;
        if self.recall.is_none() {
            self.touched.add(&batch)?;
        }
        let mut parts: Vec<Vec<u32>> = vec![Vec::new(); self.shuffle.buckets()];
        for (number, key) in keys.iter().enumerate() {
            match &self.recall {
                None => self.shuffle.filter.insert(hash(key.data())),
                Some(recall) if recall.keys.may_hold(hash(key.data())) => {}
                Some(_) => continue,
            }
            parts[bucket(key.data(), self.shuffle.buckets())].push(number as u32);
        }
        self.frames.write(&batch, parts.into_iter().enumerate())
    }

    /// Takes truncates.
    pub fn truncate(&self, found: Vec<Truncation>) {
        let to = self.recall.as_ref().map_or(&self.shuffle.truncations, |recall| &recall.truncations);
        to.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn finish(self) -> Result<()> {
        self.frames.finish()?;
        if let Some(touched) = &mut *self.shuffle.touched.lock().unwrap_or_else(PoisonError::into_inner) {
            touched.merge(self.touched);
        }
        Ok(())
    }

    /// The batch in the table's types, each row with its marks.
    fn marked(&self, rows: &Rows) -> Result<RecordBatch> {
        let (schema, mut columns, count) = rows.batch.clone().into_parts();
        let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
        for (name, marks) in [(DELETE, &rows.deletes), (SILENT, &rows.silent)] {
            fields.push(Arc::new(Field::new(name, DataType::Boolean, false)));
            let marks = marks.clone().unwrap_or_else(|| BooleanBuffer::new_unset(count));
            columns.push(Arc::new(BooleanArray::new(marks, None)) as ArrayRef);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let marked = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options);
        conform(&marked.map_err(|e| Error::bug("cannot mark rows").with_source(e))?, &self.shuffle.schema)
    }
}

/// Whether each row of a spilled batch deletes its key.
///
/// # Errors
/// `Bug` for a batch that was not spilled here.
pub fn deletes(batch: &RecordBatch) -> Result<BooleanArray> {
    let column = batch.column_by_name(DELETE).and_then(|c| c.as_any().downcast_ref::<BooleanArray>());
    column.cloned().ok_or_else(|| Error::bug("a spilled batch without its marks"))
}
