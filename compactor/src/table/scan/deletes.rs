//! Deleted rows: positions from position delete files, keys from equality delete files.
//!
//! **Positions** are kept as bitmaps per data file, each delete file read once while it fits the bound.
//!
//! **Keys** are kept per partition and set of key columns, as `key → highest data sequence number that deletes it`: a row
//! is deleted when that number is above its file's. So a row costs one look-up, however many delete files there are, and
//! data files of one partition share the work. Where they are more than may be kept, each data file is gone over once for
//! every part of them that fits. Keys are compared in arrow's row format; null equals null.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow_row::{RowConverter, Rows, SortField};
use arrow_schema::FieldRef;
use firn_shared::error::{Error, Result};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use iceberg::metadata_columns::{delete_file_path_field, delete_file_pos_field};
use iceberg::spec::{DataContentType, NestedField, NestedFieldRef, StructType, TableMetadata, Type};
use iceberg::table::Table;
use roaring::RoaringTreemap;

use super::cache::Cache;
use super::project::{Projection, arrow_field, leaf};
use super::reader::raw;
use super::{LiveFile, Tracked};

/// Bytes of bitmaps and of keys, half for each, that are kept for the next data file unless said otherwise.
pub(super) const KEPT_BYTES: u64 = 128 * 1024 * 1024;
/// What a key takes besides its bytes.
const KEY_OVERHEAD: u64 = 48;

type Bitmaps = HashMap<String, RoaringTreemap>;

/// Delete files that were read.
#[derive(Debug)]
pub(super) struct Deletes {
    table: Table,
    positions: Cache<Bitmaps>,
    keys: Cache<RwLock<Keys>>,
    /// Bytes of keys that one partition may take.
    key_bytes_max: u64,
}

/// Deleted keys of one partition and set of columns.
#[derive(Debug, Default)]
struct Keys {
    /// Delete files that are in it.
    files: HashSet<String>,
    deleted: HashMap<Box<[u8]>, i64>,
    /// What they take.
    bytes: u64,
}

/// A key column: the top-level column and the way down from it.
#[derive(Debug, Clone)]
struct KeyColumn {
    root: FieldRef,
    path: Vec<i32>,
}

/// What deletes rows of one data file.
pub(super) struct Filter {
    gone: RoaringTreemap,
    joins: Vec<Join>,
}

struct Join {
    columns: Vec<KeyColumn>,
    keys: Arc<RwLock<Keys>>,
    /// The data file's.
    sequence: i64,
}

impl Deletes {
    /// Keeps at most `bytes`.
    pub fn new(table: Table, bytes: u64) -> Self {
        Self { table, positions: Cache::new(bytes / 2), keys: Cache::new(bytes / 2), key_bytes_max: bytes / 2 }
    }

    /// Reads what deletes rows of `file`.
    pub async fn filter(&self, file: &LiveFile) -> Result<Filter> {
        let mut gone = RoaringTreemap::new();
        let mut by_columns: HashMap<Vec<i32>, Vec<&Tracked>> = HashMap::new();
        for delete in file.deletes() {
            if delete.file().content_type() == DataContentType::PositionDeletes {
                if let Some(bitmap) = self.bitmaps(delete).await?.get(file.path()) {
                    gone |= bitmap;
                }
                continue;
            }
            let mut ids = delete.file().equality_ids().unwrap_or_default();
            if ids.is_empty() {
                return Err(Error::data(format!("{} deletes by equality of no columns", delete.path())));
            }
            ids.sort_unstable();
            by_columns.entry(ids).or_default().push(delete);
        }
        let mut joins = Vec::with_capacity(by_columns.len());
        for (ids, deletes) in by_columns {
            let column = |id: &i32| key_column(self.table.metadata(), *id);
            let columns = ids.iter().map(column).collect::<Result<Vec<_>>>()?;
            let sequence = file.data.sequence_number();
            match self.keys(format!("{:?} {ids:?}", file.data.key()), &columns, &deletes).await? {
                Some(keys) => joins.push(Join { columns, keys, sequence }),
                None => gone |= self.gone_by_passes(file, &columns, &deletes).await?,
            }
        }
        Ok(Filter { gone, joins })
    }

    async fn bitmaps(&self, delete: &Tracked) -> Result<Arc<Bitmaps>> {
        if let Some(kept) = self.positions.get(delete.path()) {
            return Ok(kept);
        }
        let wanted = vec![arrow_field(delete_file_path_field())?, arrow_field(delete_file_pos_field())?];
        let mut rows = raw(self.table.file_io(), delete.file(), wanted).await?;
        let mut bitmaps = Bitmaps::new();
        while let Some(columns) = rows.try_next().await? {
            let (paths, positions) = (columns[0].as_string::<i32>(), columns[1].as_primitive::<Int64Type>());
            let mut row = 0;
            while row < paths.len() {
                let path = paths.value(row);
                // Sorted by path, so that runs are long.
                let end = (row..paths.len()).find(|r| paths.value(*r) != path).unwrap_or(paths.len());
                let bitmap = bitmaps.entry(path.to_owned()).or_default();
                for position in &positions.values()[row..end] {
                    bitmap.insert(u64::try_from(*position).map_err(|e| {
                        Error::data(format!("{} deletes position {position} of {path}", delete.path())).with_source(e)
                    })?);
                }
                row = end;
            }
        }
        let weight = bitmaps.iter().map(|(path, bitmap)| (path.len() + bitmap.serialized_size()) as u64).sum();
        let bitmaps = Arc::new(bitmaps);
        self.positions.put(delete.path(), bitmaps.clone(), weight);
        Ok(bitmaps)
    }

    /// The keys of a partition, with at least those of `deletes` in it; `None` when they are more than may be kept.
    async fn keys(
        &self,
        name: String,
        columns: &[KeyColumn],
        deletes: &[&Tracked],
    ) -> Result<Option<Arc<RwLock<Keys>>>> {
        let keys = self.keys.get(&name).unwrap_or_default();
        let read = || keys.read().unwrap_or_else(PoisonError::into_inner);
        let missing: Vec<&&Tracked> = deletes.iter().filter(|d| !read().files.contains(d.path())).collect();
        let least: u64 = missing.iter().map(|d| d.file().record_count() * KEY_OVERHEAD).sum();
        if read().bytes + least > self.key_bytes_max {
            return Ok(None);
        }
        for delete in missing {
            let mut rows = self.keys_of(delete, columns).await?;
            while let Some(found) = rows.try_next().await? {
                let mut keys = keys.write().unwrap_or_else(PoisonError::into_inner);
                found.iter().for_each(|row| keys.add(row.data(), delete.sequence_number()));
                if keys.bytes > self.key_bytes_max {
                    return Ok(None);
                }
            }
            keys.write().unwrap_or_else(PoisonError::into_inner).files.insert(delete.path().to_owned());
        }
        let bytes = read().bytes;
        self.keys.put(&name, keys.clone(), bytes);
        Ok(Some(keys))
    }

    /// The keys of a file, in its order.
    async fn keys_of(&self, file: &Tracked, columns: &[KeyColumn]) -> Result<BoxStream<'static, Result<Rows>>> {
        let wanted = columns.iter().map(|c| c.root.clone()).collect();
        let roots = raw(self.table.file_io(), file.file(), wanted).await?;
        let columns = columns.to_vec();
        Ok(roots.map(move |roots| key_rows(roots?.into_iter(), &columns)).boxed())
    }

    /// Positions of a data file whose keys are deleted. Memory holds a part of the keys at a time, and for each part the
    /// key columns of the data file are read once.
    async fn gone_by_passes(
        &self,
        file: &LiveFile,
        columns: &[KeyColumn],
        deletes: &[&Tracked],
    ) -> Result<RoaringTreemap> {
        let (mut gone, mut part) = (RoaringTreemap::new(), Keys::default());
        for delete in deletes {
            let mut rows = self.keys_of(delete, columns).await?;
            while let Some(found) = rows.try_next().await? {
                found.iter().for_each(|row| part.add(row.data(), delete.sequence_number()));
                if part.bytes > self.key_bytes_max {
                    self.pass(file, columns, &std::mem::take(&mut part), &mut gone).await?;
                }
            }
        }
        self.pass(file, columns, &part, &mut gone).await?;
        Ok(gone)
    }

    async fn pass(&self, file: &LiveFile, columns: &[KeyColumn], part: &Keys, gone: &mut RoaringTreemap) -> Result<()> {
        if part.deleted.is_empty() {
            return Ok(());
        }
        let mut rows = self.keys_of(&file.data, columns).await?;
        let mut position = 0;
        while let Some(found) = rows.try_next().await? {
            for row in &found {
                if part.takes(row.data(), file.data.sequence_number()) {
                    gone.insert(position);
                }
                position += 1;
            }
        }
        Ok(())
    }
}

impl Keys {
    /// Whether a row of a data file with this sequence number goes.
    fn takes(&self, key: &[u8], sequence: i64) -> bool {
        self.deleted.get(key).is_some_and(|deleted| *deleted > sequence)
    }

    fn add(&mut self, key: &[u8], sequence: i64) {
        if let Some(highest) = self.deleted.get_mut(key) {
            *highest = sequence.max(*highest);
            return;
        }
        self.bytes += key.len() as u64 + KEY_OVERHEAD;
        self.deleted.insert(key.into(), sequence);
    }
}

impl Filter {
    /// Columns that must be read to tell.
    pub fn columns(&self) -> impl Iterator<Item = FieldRef> {
        self.joins.iter().flat_map(|j| &j.columns).map(|c| c.root.clone())
    }

    /// Which rows of a decoded batch are live; `None` when all are.
    pub fn keep(
        &self,
        projection: &Projection,
        decoded: &RecordBatch,
        positions: &[i64],
    ) -> Result<Option<BooleanArray>> {
        if self.gone.is_empty() && self.joins.is_empty() {
            return Ok(None);
        }
        let mut keep: Vec<bool> = positions.iter().map(|p| !self.gone.contains(*p as u64)).collect();
        for join in &self.joins {
            let roots = join.columns.iter().map(|c| projection.column(decoded, &c.root)).collect::<Result<Vec<_>>>()?;
            let rows = key_rows(roots.into_iter(), &join.columns)?;
            let keys = join.keys.read().unwrap_or_else(PoisonError::into_inner);
            for (row, keep) in rows.iter().zip(&mut keep) {
                *keep &= !keys.takes(row.data(), join.sequence);
            }
        }
        Ok(Some(keep.into()))
    }
}

/// Rows of keys, comparable as bytes.
fn key_rows(roots: impl Iterator<Item = ArrayRef>, columns: &[KeyColumn]) -> Result<Rows> {
    let leaves = roots.zip(columns).map(|(root, column)| leaf(&root, &column.path)).collect::<Result<Vec<_>>>()?;
    let failed = |e: arrow_schema::ArrowError| Error::data(format!("cannot compare keys: {e}")).with_source(e);
    let fields = leaves.iter().map(|leaf| SortField::new(leaf.data_type().clone())).collect();
    RowConverter::new(fields).and_then(|converter| converter.convert_columns(&leaves)).map_err(failed)
}

/// A key column by its field id. It may have been dropped since: then an older schema knows it, and its deletes still
/// count.
fn key_column(metadata: &TableMetadata, id: i32) -> Result<KeyColumn> {
    let mut older: Vec<_> = metadata.schemas_iter().collect();
    older.sort_by_key(|s| std::cmp::Reverse(s.schema_id()));
    for schema in [metadata.current_schema()].into_iter().chain(older) {
        for root in schema.as_struct().fields() {
            if let Some((root, path)) = way_to(root, id) {
                return Ok(KeyColumn { root: arrow_field(&Arc::new(root))?, path });
            }
        }
    }
    Err(Error::data(format!(
        "an equality delete file of {} names field {id}, which no schema has",
        metadata.location()
    )))
}

/// `field` with nothing inside but the way through structs down to `id`, and the field ids of that way. All of it is
/// optional: a file may be older than the column, and a delete file holds nothing else.
fn way_to(field: &NestedFieldRef, id: i32) -> Option<(NestedField, Vec<i32>)> {
    let mut narrow = field.as_ref().clone();
    narrow.required = false;
    if field.id == id {
        return Some((narrow, Vec::new()));
    }
    let Type::Struct(inner) = field.field_type.as_ref() else { return None };
    let (child, mut path) = inner.fields().iter().find_map(|child| way_to(child, id))?;
    path.insert(0, child.id);
    narrow.field_type = Box::new(Type::Struct(StructType::new(vec![Arc::new(child)])));
    Some((narrow, path))
}
