//! The rows of a run by key hash, on local disk: all versions of a key meet in one bucket, whichever Kafka partition,
//! slice or thread they came through, and a bucket fits into memory.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use firn_shared::config::domain::Upsert;
use firn_shared::error::{Error, Result};
use firn_shared::ids::RunId;
use iceberg::spec::TableMetadata;

use super::filter::KeyFilter;
use super::key::{Keys, bucket, hash};
use super::spill::{SpillDir, SpillFile};
use super::touched::Touched;
use super::truncate::Truncation;
use crate::execute::Rows;
use crate::write::conform;

/// The column that says whether a spilled row deletes its key.
pub const DELETE: &str = "__firn_delete";
/// Frames of about this many bytes are worth their overhead.
const FRAME_BYTES: usize = 1 << 20;
/// A bucket is to take this part of the run's memory, as Arrow arrays.
const BUCKET_SHARE: u64 = 16;
/// Buckets at most: beyond it frames become too small, and buckets larger than planned are reduced while they are read.
const BUCKETS_MAX: u64 = 1024;

/// The buckets of a run. Slices fill it at the same time, each through a [`ShuffleWriter`].
#[derive(Debug)]
pub struct Shuffle {
    keys: Keys,
    schema: SchemaRef,
    dir: SpillDir,
    buckets: Vec<Mutex<SpillFile>>,
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
        fields.push(Arc::new(Field::new(DELETE, DataType::Boolean, false)));
        let dir = SpillDir::new(parent, &format!("firn-{run}"))?;
        let count = raw_bytes.div_ceil((memory / BUCKET_SHARE).max(1)).clamp(1, BUCKETS_MAX);
        let buckets = (0..count).map(|n| Mutex::new(dir.file(&format!("incoming-{n}")))).collect();
        let names: Vec<String> = keys.names().to_vec();
        Ok(Self {
            touched: Mutex::new(Some(Touched::new(metadata, &names)?)),
            truncations: Mutex::default(),
            filter: KeyFilter::new(records, memory / BUCKET_SHARE),
            table: (metadata.clone(), names),
            schema: Arc::new(Schema::new(fields)),
            keys,
            dir,
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
    pub fn rows(&self) -> &[Mutex<SpillFile>] {
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
    pub fn more(&self, what: &str) -> Vec<Mutex<SpillFile>> {
        (0..self.buckets()).map(|n| Mutex::new(self.dir.file(&format!("{what}-{n}")))).collect()
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
    pub rows: Vec<Mutex<SpillFile>>,
    /// Truncates that were found on the way.
    pub truncations: Mutex<Vec<Truncation>>,
}

/// One slice's way into the buckets. Holds rows until a frame is worth writing.
#[derive(Debug)]
pub struct ShuffleWriter {
    shuffle: Arc<Shuffle>,
    recall: Option<Arc<Recall>>,
    waiting: Vec<(Vec<RecordBatch>, usize)>,
    held: usize,
    bound: usize,
    touched: Touched,
}

impl ShuffleWriter {
    /// A writer that holds at most about `memory` bytes.
    ///
    /// # Errors
    /// As [`Touched::new`].
    pub fn new(Buckets { shuffle, recall }: Buckets, memory: u64) -> Result<Self> {
        let touched = Touched::new(&shuffle.table.0, &shuffle.table.1)?;
        let waiting = (0..shuffle.buckets()).map(|_| (Vec::new(), 0)).collect();
        Ok(Self { shuffle, recall, waiting, held: 0, bound: memory as usize, touched })
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
        for (at, numbers) in parts.into_iter().enumerate().filter(|(_, numbers)| !numbers.is_empty()) {
            let part = arrow_select::take::take_record_batch(&batch, &UInt32Array::from(numbers));
            let part = part.map_err(|e| Error::bug("cannot split rows by key").with_source(e))?;
            let bytes = part.get_array_memory_size();
            self.held += bytes;
            self.waiting[at].0.push(part);
            self.waiting[at].1 += bytes;
            if self.waiting[at].1 >= FRAME_BYTES {
                self.flush(at)?;
            }
        }
        while self.held > self.bound {
            let Some(largest) = (0..self.waiting.len()).max_by_key(|at| self.waiting[*at].1) else { break };
            self.flush(largest)?;
        }
        Ok(())
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
    pub fn finish(mut self) -> Result<()> {
        for at in 0..self.waiting.len() {
            self.flush(at)?;
        }
        if let Some(touched) = &mut *self.shuffle.touched.lock().unwrap_or_else(PoisonError::into_inner) {
            touched.merge(self.touched);
        }
        Ok(())
    }

    fn flush(&mut self, at: usize) -> Result<()> {
        let (batches, bytes) = std::mem::take(&mut self.waiting[at]);
        self.held -= bytes;
        if batches.is_empty() {
            return Ok(());
        }
        let whole = arrow_select::concat::concat_batches(&self.shuffle.schema, &batches);
        let whole = whole.map_err(|e| Error::bug("cannot join rows").with_source(e))?;
        let files = self.recall.as_ref().map_or(&self.shuffle.buckets, |recall| &recall.rows);
        files[at].lock().unwrap_or_else(PoisonError::into_inner).append(&whole)
    }

    /// The batch in the table's types, each row with its mark.
    fn marked(&self, rows: &Rows) -> Result<RecordBatch> {
        let marks = match &rows.deletes {
            Some(deletes) => BooleanArray::new(deletes.clone(), None),
            None => BooleanArray::from(vec![false; rows.batch.num_rows()]),
        };
        let (schema, mut columns, count) = rows.batch.clone().into_parts();
        let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new(DELETE, DataType::Boolean, false)));
        columns.push(Arc::new(marks) as ArrayRef);
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
