//! Deletes that are remembered, so that a late older version does not bring a row back.
//!
//! They are Parquet objects in a [`directory`] outside of what other engines take for the table's own and clean: beside
//! the table, or in a place that the deployment names. Each is named by the snapshot that knows it: a rollback forgets what
//! came after, like the position. A run adds objects and leaves out those past `deleteMemory`; an object that no state lists
//! is an orphan.
//!
//! Every snapshot lists them all, and every run reads them all. So small ones of about the same age are written into one
//! when they get many ([`merged`]); the small ones stay until the snapshots that list them expire.
//!
//! An object says by field id which columns were the key, and has the version columns of its time. Where the table's key is
//! another one since, it tells nothing; where the versions are, [`fitted`] makes the best of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow_schema::{Field, Schema, SchemaRef};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use firn_shared::config::domain::StoreUrl;
use firn_shared::error::{Error, ErrorKind, Result};
use firn_shared::ids::RunId;
use firn_shared::store::{PutMode, Stores};
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::table::Table;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{ArrowWriter, PARQUET_FIELD_ID_META_KEY};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};

use super::key::Keys;
use super::truncate::Truncation;
use crate::table::read::Rows;
use crate::write::conform;

/// Beside the table's own directory.
const SUFFIX: &str = "_deletes";
/// What objects are called behind run and number.
const ENDING: &str = ".parquet";
/// Characters of a run's identity.
const RUN_CHARS: usize = 36;
/// An object holds about this many bytes of keys at most, before encoding.
pub const OBJECT_BYTES: usize = 16 << 20;
/// An object of more deletes is not merged with others.
const SMALL_ROWS: u64 = 128 * 1024;
/// So many small objects are left as they are.
const SMALL_MAX: usize = 16;
/// Only objects are merged whose deletes were applied in the same of so many parts of `deleteMemory`: all of a merged one are
/// remembered as long as its youngest.
const AGES: i32 = 8;
/// Objects that are read at the same time.
const AT_ONCE: usize = 8;
/// Parquet metadata: the field ids of the key's columns.
const KEY_FIELDS: &str = "firn.key-fields";

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

/// Whether an object of this name, directly in a [`directory`], may be one that a run wrote there. The directory lies beside
/// the table, where another table may have its own files.
pub fn is_object(name: &str) -> bool {
    let Some(run) = name.get(..RUN_CHARS) else { return false };
    let rest = name[RUN_CHARS..].strip_prefix('-').and_then(|rest| rest.strip_suffix(ENDING));
    let is_run = uuid::Uuid::try_parse(run).is_ok_and(|run| run.get_version_num() == 7);
    is_run && rest.is_some_and(|number| !number.is_empty() && !number.contains('/'))
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

/// Where objects go: store, [`directory`], run.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The store.
    pub stores: &'a Stores,
    /// The directory.
    pub directory: &'a str,
    /// The run that writes.
    pub run: RunId,
}

/// Writes deletes of the table's key as one object, the `number`-th of the run.
///
/// # Errors
/// As the store says.
pub async fn remember(
    place: Place<'_>,
    number: &str,
    (batches, keys): (&[RecordBatch], &Keys),
    at: DateTime<Utc>,
) -> Result<Remembered> {
    let [first, ..] = batches else { return Err(Error::bug("nothing to remember")) };
    let mut object = Object::new(&first.schema(), &key_fields(keys, &first.schema()))?;
    batches.iter().try_for_each(|batch| object.write(batch))?;
    object.put(place, number, at).await
}

/// An object on its way.
struct Object {
    writer: ArrowWriter<Vec<u8>>,
    rows: u64,
}

impl Object {
    fn new(schema: &SchemaRef, key_fields: &str) -> Result<Self> {
        let key_fields = KeyValue::new(KEY_FIELDS.to_owned(), key_fields.to_owned());
        let properties = WriterProperties::builder().set_key_value_metadata(Some(vec![key_fields])).build();
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(properties));
        Ok(Self { writer: writer.map_err(unwritable)?, rows: 0 })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        self.writer.write(batch).map_err(unwritable)
    }

    async fn put(
        self,
        Place { stores, directory, run }: Place<'_>,
        number: &str,
        at: DateTime<Utc>,
    ) -> Result<Remembered> {
        let url = format!("{directory}{run}-{number}{ENDING}");
        let bytes = self.writer.into_inner().map_err(unwritable)?;
        let (store, key) = stores.resolve(&url).await?;
        let put = store.put(&key, Bytes::from(bytes), PutMode::Create).await;
        let _ = put.map_err(|e| if e.kind() == ErrorKind::Config { refused(directory, e) } else { e })?;
        Ok(Remembered { url, rows: self.rows, at })
    }
}

fn unwritable(e: parquet::errors::ParquetError) -> Error {
    Error::bug("cannot encode deletes").with_source(e)
}

/// The key's columns in `schema`, as objects name them.
fn key_fields(keys: &Keys, schema: &Schema) -> String {
    let id = |name: &String| {
        let id = schema.field_with_name(name).ok().and_then(field_id);
        id.map_or_else(|| name.clone(), str::to_owned)
    };
    keys.names().iter().map(id).collect::<Vec<_>>().join(",")
}

fn field_id(field: &Field) -> Option<&str> {
    field.metadata().get(PARQUET_FIELD_ID_META_KEY).map(String::as_str)
}

fn refused(directory: &str, e: Error) -> Error {
    let hint = "name a place in another bucket as `compactor.deleteMemoryLocation`";
    Error::config(format!("deletes cannot be remembered in {directory}: {e}; if the bucket takes tables only, {hint}"))
        .with_source(e)
}

/// The deletes of one object.
#[derive(Debug)]
pub struct Recalled {
    url: String,
    reader: ParquetRecordBatchReader,
    schema: SchemaRef,
    key_fields: String,
}

impl Recalled {
    /// Whether they are deletes of these keys in a table of this schema.
    pub fn is_of(&self, keys: &Keys, schema: &Schema) -> bool {
        self.key_fields == key_fields(keys, schema)
    }

    /// The fields of which it holds values.
    pub fn field_ids(&self) -> impl Iterator<Item = i32> {
        self.schema.fields().iter().filter_map(|field| field_id(field)?.parse().ok())
    }
}

impl Iterator for Recalled {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.reader.next()?;
        Some(batch.map_err(|e| Error::data(format!("{}: {e}", self.url)).with_source(e)))
    }
}

/// Opens one object. It is read as a whole, encoded; its batches are decoded one after the other.
///
/// # Errors
/// As the store says; `Data` when it cannot be read.
pub async fn recall(stores: &Stores, object: &Remembered) -> Result<Recalled> {
    let (store, key) = stores.resolve(&object.url).await?;
    let bytes = store.get(&key).await?;
    let open = || -> parquet::errors::Result<Recalled> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
        let said = builder.metadata().file_metadata().key_value_metadata();
        let said = said.and_then(|list| list.iter().find(|one| one.key == KEY_FIELDS)?.value.clone());
        let (url, schema) = (object.url.clone(), Arc::clone(builder.schema()));
        Ok(Recalled { url, schema, key_fields: said.unwrap_or_default(), reader: builder.build()? })
    };
    open().map_err(|e| Error::data(format!("{}: {e}", object.url)).with_source(e))
}

/// The schema with every column nullable.
pub fn nullable(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Remembered deletes in today's columns, found by field id: what is not wanted any more is left out, what was not
/// remembered is null. The answer says whether the first of the `versions` is there: deletes without it can be ordered by
/// where they came from only.
///
/// # Errors
/// `Data` for a value that does not fit its column.
pub fn fitted(batch: &RecordBatch, schema: &SchemaRef, versions: &[String]) -> Result<(RecordBatch, bool)> {
    let of = |field: &Arc<Field>| {
        let is = |other: &Arc<Field>| match (field_id(field), field_id(other)) {
            (Some(id), Some(other)) => id == other,
            _ => field.name() == other.name(),
        };
        batch.schema_ref().fields().iter().position(is)
    };
    let mut versioned = true;
    let (mut fields, mut columns): (Vec<Field>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
    for field in schema.fields() {
        let column = match of(field) {
            Some(at) => Arc::clone(batch.column(at)),
            None => {
                versioned &= versions.first() != Some(field.name());
                new_null_array(field.data_type(), batch.num_rows())
            }
        };
        fields.push(Field::new(field.name(), column.data_type().clone(), true));
        columns.push(column);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let found = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options);
    let found = found.map_err(|e| Error::bug("cannot fit remembered deletes").with_source(e))?;
    Ok((conform(&found, schema)?, versioned))
}

/// The list without the deletes whose records are converted again; objects that hold some are written anew.
///
/// # Errors
/// As [`recall`] and [`remember`].
pub async fn without(place: Place<'_>, list: List, replaced: &Rows, attempt: u32) -> Result<List> {
    let one = |(number, object): (usize, Remembered)| async move {
        let recalled = recall(place.stores, &object).await?;
        let mut left = Object::new(&recalled.schema, &recalled.key_fields)?;
        for batch in recalled {
            let batch = batch?;
            let stay = arrow_array::BooleanArray::new(!replaced.select(&batch)?.values(), None);
            let rest = arrow_select::filter::filter_record_batch(&batch, &stay);
            left.write(&rest.map_err(|e| Error::bug("cannot select deletes").with_source(e))?)?;
        }
        match left.rows {
            rows if rows == object.rows => Ok(Some(object)),
            0 => Ok(None),
            _ => left.put(place, &format!("{attempt}-without-{number}"), object.at).await.map(Some),
        }
    };
    let kept: Vec<Option<Remembered>> =
        stream::iter(list.into_iter().enumerate()).map(one).buffered(AT_ONCE).try_collect().await?;
    Ok(kept.into_iter().flatten().collect())
}

/// The list with small objects of about the same age as one, when there are many.
///
/// # Errors
/// As [`recall`] and [`remember`].
pub async fn merged(place: Place<'_>, list: List, memory: std::time::Duration, attempt: u32) -> Result<List> {
    let (mut kept, groups) = groups(list, memory);
    for (number, group) in groups.into_iter().enumerate() {
        let read = group.iter().map(|object| recall(place.stores, object));
        let read: Vec<Recalled> = stream::iter(read).buffered(AT_ONCE).try_collect().await?;
        let [first, ..] = read.as_slice() else { continue };
        let mut whole = Object::new(&first.schema, &first.key_fields)?;
        let like = (Arc::clone(&first.schema), first.key_fields.clone());
        let mut at = DateTime::<Utc>::MIN_UTC;
        for (object, recalled) in group.into_iter().zip(read) {
            // What is of another shape of the table goes its own way, which is not long any more.
            if (&recalled.schema, &recalled.key_fields) != (&like.0, &like.1) {
                kept.push(object);
                continue;
            }
            at = at.max(object.at);
            for batch in recalled {
                whole.write(&batch?)?;
            }
        }
        kept.push(whole.put(place, &format!("{attempt}-merged-{number}"), at).await?);
    }
    kept.sort_by_key(|object| object.at);
    Ok(kept)
}

/// Objects that stay, and those that are worth to be one.
fn groups(list: List, memory: std::time::Duration) -> (List, Vec<List>) {
    let (small, mut kept): (List, List) = list.into_iter().partition(|object| object.rows < SMALL_ROWS);
    if small.len() <= SMALL_MAX {
        kept.extend(small);
        return (kept, Vec::new());
    }
    let age = chrono::TimeDelta::from_std(memory).map_or(i64::MAX, |memory| (memory / AGES).num_milliseconds().max(1));
    let mut by_age: BTreeMap<i64, Vec<List>> = BTreeMap::new();
    for object in small {
        let groups = by_age.entry(object.at.timestamp_millis().div_euclid(age)).or_default();
        match groups.last_mut().filter(|group| group.iter().map(|one| one.rows).sum::<u64>() < SMALL_ROWS) {
            Some(group) => group.push(object),
            None => groups.push(vec![object]),
        }
    }
    let (groups, lone): (Vec<List>, Vec<List>) = by_age.into_values().flatten().partition(|group| group.len() > 1);
    kept.extend(lone.into_iter().flatten());
    (kept, groups)
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
    fn only_what_a_run_writes_is_an_object_of_remembered_deletes() {
        let run = RunId::new();
        for name in [format!("{run}-0.parquet"), format!("{run}-2-merged-1.parquet")] {
            assert!(is_object(&name), "{name}");
        }
        for name in [
            "left.parquet".to_owned(),
            "936da01f-9abd-4d9d-80c7-02af85c822a8-0.parquet".to_owned(),
            "00000-0-0193f1f2-7d3c-7aaa-8000-000000000000-00001.parquet".to_owned(),
            format!("{run}.parquet"),
            format!("{run}-.parquet"),
            format!("{run}-0.orc"),
            format!("data/{run}-0.parquet"),
            format!("{run}-0/x.parquet"),
            "ä".repeat(30),
        ] {
            assert!(!is_object(&name), "{name}");
        }
    }

    #[test]
    fn deletes_count_until_their_memory_ends() {
        let at = DateTime::<Utc>::UNIX_EPOCH;
        let one = Remembered { url: String::new(), rows: 1, at };
        let hour = std::time::Duration::from_hours(1);
        assert!(one.counts(at, hour) && !one.counts(at + hour, hour));
    }

    fn object(url: usize, rows: u64, minutes: i64) -> Remembered {
        let at = DateTime::<Utc>::UNIX_EPOCH + chrono::TimeDelta::minutes(minutes);
        Remembered { url: url.to_string(), rows, at }
    }

    /// As [`merged`] leaves the list, without a store.
    fn after(list: List, memory: std::time::Duration) -> List {
        let (mut kept, groups) = groups(list, memory);
        for group in groups {
            let at = group.iter().map(|one| one.at).max().unwrap();
            let rows = group.iter().map(|one| one.rows).sum();
            kept.push(Remembered { rows, at, ..group[0].clone() });
        }
        kept
    }

    #[test]
    fn few_objects_are_listed_after_any_number_of_runs_and_none_is_remembered_for_long_after_its_time() {
        let (memory, minutes) = (std::time::Duration::from_hours(7 * 24), 7 * 24 * 60);
        let mut list = List::new();
        for run in 0..3 * 7 * 24 * 12 {
            let now = run * 5;
            list.push(object(run as usize, 40, now));
            list = after(list, memory);
            list.retain(|one| one.counts(DateTime::UNIX_EPOCH + chrono::TimeDelta::minutes(now), memory));
            assert!(list.len() <= SMALL_MAX, "{} after {run} runs", list.len());
            let rows: u64 = list.iter().map(|one| one.rows).sum();
            let (least, most) = (40 * (minutes / 5).min(run), 40 * (minutes / 5 * 9 / 8 + 1));
            assert!((least as u64..=most as u64).contains(&rows), "{rows} after {run} runs");
        }
    }

    #[test]
    fn large_objects_are_left_alone_and_small_ones_grow_no_larger_than_two() {
        let small = (0..40).map(|n| object(n, SMALL_ROWS / 10, 1));
        let list: List = small.chain([object(99, SMALL_ROWS, 1)]).collect();
        let rows: u64 = list.iter().map(|one| one.rows).sum();
        let after = after(list, std::time::Duration::from_hours(24));
        assert!(after.contains(&object(99, SMALL_ROWS, 1)));
        assert!(after.iter().all(|one| one.rows < 2 * SMALL_ROWS), "{after:?}");
        assert_eq!((after.iter().map(|one| one.rows).sum::<u64>(), after.len()), (rows, 5));
    }
}
