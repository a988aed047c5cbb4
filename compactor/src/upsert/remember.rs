//! Deletes that are remembered, so that a late older version does not bring a row back.
//!
//! They are Parquet objects in a [`directory`] outside of what other engines take for the table's own and clean: beside
//! the table, or in a place that the deployment names. Each is named by the snapshot that knows it: a rollback forgets what
//! came after, like the position. A run adds objects and leaves out those past `deleteMemory`; an object that no state lists
//! is an orphan.

use arrow_array::RecordBatch;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use firn_shared::config::domain::StoreUrl;
use firn_shared::error::{Error, ErrorKind, Result};
use firn_shared::ids::RunId;
use firn_shared::store::{PutMode, Stores};
use iceberg::table::Table;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::{Deserialize, Serialize};

use super::truncate::Truncation;
use crate::table::read::Rows;

/// Beside the table's own directory.
const SUFFIX: &str = "_deletes";
/// An object holds about this many bytes of keys at most, before encoding.
pub const OBJECT_BYTES: usize = 16 << 20;

/// An object of remembered deletes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remembered {
    /// Its URL.
    pub url: String,
    /// Deletes in it.
    pub rows: u64,
    /// When they were applied.
    pub at: DateTime<Utc>,
}

impl Remembered {
    /// Whether it still counts.
    pub fn counts(&self, now: DateTime<Utc>, memory: std::time::Duration) -> bool {
        chrono::TimeDelta::from_std(memory).is_ok_and(|memory| self.at + memory > now)
    }
}

/// Where the remembered deletes of a table go, with trailing slash: below `place`, the deployment's for all tables, else
/// beside the table. Below `place` the table's uuid tells it from one of the same name in another catalog, whose orphans it
/// would else take.
pub fn directory(place: Option<&StoreUrl>, table: &Table) -> String {
    match place {
        Some(place) => format!("{place}/{}-{}/", table.identifier(), table.metadata().uuid()),
        None => format!("{}{SUFFIX}/", table.metadata().location().trim_end_matches('/')),
    }
}

/// What a table remembers, so that what comes late changes nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    /// Deletes of keys.
    pub deletes: List,
    /// The newest truncate of each source table.
    pub truncations: Vec<Truncation>,
    /// Whether deletes were forgotten: a `reprocess` then has to look for them in raw objects.
    pub forgotten: bool,
}

/// Writes deletes as one object in a [`directory`], the `number`-th of the run.
///
/// # Errors
/// As the store says.
pub async fn remember(
    stores: &Stores,
    directory: &str,
    (run, number): (RunId, &str),
    batches: &[RecordBatch],
    at: DateTime<Utc>,
) -> Result<Remembered> {
    let [first, ..] = batches else { return Err(Error::bug("nothing to remember")) };
    let url = format!("{directory}{run}-{number}.parquet");
    let encode = || -> parquet::errors::Result<Vec<u8>> {
        let mut writer = ArrowWriter::try_new(Vec::new(), first.schema(), None)?;
        for batch in batches {
            writer.write(batch)?;
        }
        writer.into_inner()
    };
    let bytes = encode().map_err(|e| Error::bug("cannot encode deletes").with_source(e))?;
    let (store, key) = stores.resolve(&url).await?;
    let put = store.put(&key, Bytes::from(bytes), PutMode::Create).await;
    let _ = put.map_err(|e| if e.kind() == ErrorKind::Config { refused(directory, e) } else { e })?;
    Ok(Remembered { url, rows: batches.iter().map(|b| b.num_rows() as u64).sum(), at })
}

fn refused(directory: &str, e: Error) -> Error {
    let hint = "name a place in another bucket as `compactor.deleteMemoryLocation`";
    Error::config(format!("deletes cannot be remembered in {directory}: {e}; if the bucket takes tables only, {hint}"))
        .with_source(e)
}

/// Reads one object.
///
/// # Errors
/// As the store says; `Data` when it cannot be read.
pub async fn recall(stores: &Stores, object: &Remembered) -> Result<Vec<RecordBatch>> {
    let (store, key) = stores.resolve(&object.url).await?;
    let bytes = store.get(&key).await?;
    let read = || -> parquet::errors::Result<Vec<RecordBatch>> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()?;
        reader.map(|batch| batch.map_err(Into::into)).collect()
    };
    read().map_err(|e| Error::data(format!("{}: {e}", object.url)).with_source(e))
}

/// The list without the deletes whose records are converted again; objects that hold some are written anew, into `directory`.
///
/// # Errors
/// As [`recall`] and [`remember`].
pub async fn without(
    (stores, directory): (&Stores, &str),
    list: List,
    replaced: &Rows,
    (run, attempt): (RunId, u32),
) -> Result<List> {
    let mut kept = List::new();
    for (number, object) in list.into_iter().enumerate() {
        let (mut left, mut gone) = (Vec::new(), 0);
        for batch in recall(stores, &object).await? {
            let stay = arrow_array::BooleanArray::new(!replaced.select(&batch)?.values(), None);
            gone += stay.false_count();
            let rest = arrow_select::filter::filter_record_batch(&batch, &stay);
            left.push(rest.map_err(|e| Error::bug("cannot select deletes").with_source(e))?);
        }
        left.retain(|batch| batch.num_rows() > 0);
        match (gone, left.is_empty()) {
            (0, _) => kept.push(object),
            (_, true) => {}
            (_, false) => {
                let name = format!("{attempt}-without-{number}");
                kept.push(remember(stores, directory, (run, &name), &left, object.at).await?);
            }
        }
    }
    Ok(kept)
}

/// Shared by the threads that merge: deletes until an object is worth writing.
#[derive(Debug, Default)]
pub struct Gathered {
    batches: Vec<RecordBatch>,
    bytes: usize,
}

impl Gathered {
    /// Adds deletes; gives back what is to be written when there is enough.
    pub fn add(&mut self, batches: Vec<RecordBatch>) -> Option<Vec<RecordBatch>> {
        self.bytes += batches.iter().map(RecordBatch::get_array_memory_size).sum::<usize>();
        self.batches.extend(batches);
        (self.bytes >= OBJECT_BYTES).then(|| self.take())
    }

    /// What is left.
    pub fn take(&mut self) -> Vec<RecordBatch> {
        self.bytes = 0;
        std::mem::take(&mut self.batches)
    }
}

/// The list as it is written into the table's state.
pub type List = Vec<Remembered>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deletes_count_until_their_memory_ends() {
        let at = DateTime::<Utc>::UNIX_EPOCH;
        let one = Remembered { url: String::new(), rows: 1, at };
        let hour = std::time::Duration::from_hours(1);
        assert!(one.counts(at, hour) && !one.counts(at + hour, hour));
    }
}
