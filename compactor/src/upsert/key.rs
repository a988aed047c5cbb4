//! Keys and versions of rows as bytes that compare like the values (`arrow-row`).
//!
//! The version of a row is its `timestampColumns`, then the source position of change events where the table has one,
//! then where it came from in Kafka. Nulls come first, so a row without a version, or without provenance because another
//! engine wrote it, is older than any other. No two records of a table have the same version.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, StructArray};
use arrow_row::{RowConverter, Rows, SortField};
use arrow_schema::{DataType, Field, Schema};
use firn_shared::config::domain::Upsert;
use firn_shared::error::{Error, Result};

use crate::provenance;

/// Fields of the provenance in the order in which they decide, after the version columns. Offsets of an older
/// incarnation of a topic come before those of a newer one, whatever their numbers.
const TIES: [&str; 6] = [
    provenance::VERSION,
    provenance::GENERATION,
    provenance::OFFSET,
    provenance::CLUSTER,
    provenance::TOPIC,
    provenance::PARTITION,
];

/// Turns the key and the version of rows into comparable bytes. Shared by all threads of a run.
#[derive(Debug)]
pub struct Keys {
    names: Vec<String>,
    versions: Vec<String>,
    key: RowConverter,
    version: RowConverter,
    tie: RowConverter,
}

impl Keys {
    /// For rows of the table's `schema`.
    ///
    /// # Errors
    /// `Data` when the table lacks a column of the key or of the version, or its type has no order.
    pub fn new(upsert: &Upsert, schema: &Schema) -> Result<Self> {
        let names: Vec<String> = upsert.keys.iter().map(ToString::to_string).collect();
        let versions: Vec<String> = upsert.versions.iter().map(ToString::to_string).collect();
        let field = |name: &String| -> Result<SortField> {
            let field = schema.field_with_name(name);
            let field = field.map_err(|e| Error::data(format!("the table has no column `{name}`")).with_source(e))?;
            Ok(SortField::new(field.data_type().clone()))
        };
        let converter = |fields: Vec<SortField>| {
            RowConverter::new(fields).map_err(|e| Error::data(format!("columns without an order: {e}")).with_source(e))
        };
        let key = converter(names.iter().map(field).collect::<Result<_>>()?)?;
        let mut fields = versions.iter().map(field).collect::<Result<Vec<_>>>()?;
        let origin = schema.field_with_name(provenance::COLUMN);
        let origin = origin.map_err(|e| Error::data("the table has no provenance").with_source(e))?;
        let ties = SortField::new(DataType::Struct(tie_fields(origin.data_type())?.into()));
        fields.push(ties.clone());
        Ok(Self { names, versions, key, version: converter(fields)?, tie: converter(vec![ties])? })
    }

    /// The columns that say which rows are of one key.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// All columns that a lookup has to read: key, version, provenance.
    pub fn columns(&self) -> Vec<&str> {
        let mut columns: Vec<&str> = self.names.iter().chain(&self.versions).map(String::as_str).collect();
        columns.push(provenance::COLUMN);
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// Keys and versions of no rows.
    pub fn none(&self) -> (Rows, Rows) {
        (self.key.empty_rows(0, 0), self.version.empty_rows(0, 0))
    }

    /// The columns that say which row of a key is newest.
    pub fn version_names(&self) -> &[String] {
        &self.versions
    }

    /// [`Self::ties`] of no rows.
    pub fn no_ties(&self) -> Rows {
        self.tie.empty_rows(0, 0)
    }

    /// The keys of a batch that has the table's types.
    ///
    /// # Errors
    /// `Bug` when it has not.
    pub fn keys(&self, batch: &RecordBatch) -> Result<Rows> {
        let columns = self.names.iter().map(|name| column(batch, name)).collect::<Result<Vec<_>>>()?;
        self.key.convert_columns(&columns).map_err(odd)
    }

    /// The versions of a batch that has the table's types.
    ///
    /// # Errors
    /// As [`Self::keys`].
    pub fn versions(&self, batch: &RecordBatch) -> Result<Rows> {
        let mut columns = self.versions.iter().map(|name| column(batch, name)).collect::<Result<Vec<_>>>()?;
        columns.push(ties(batch)?);
        self.version.convert_columns(&columns).map_err(odd)
    }

    /// What of the versions is not of columns: the order of change events, whose rows and truncates compare by it.
    ///
    /// # Errors
    /// As [`Self::keys`].
    pub fn ties(&self, batch: &RecordBatch) -> Result<Rows> {
        self.tie.convert_columns(&[ties(batch)?]).map_err(odd)
    }
}

/// The fields of a batch's provenance that decide.
fn ties(batch: &RecordBatch) -> Result<ArrayRef> {
    let origin = column(batch, provenance::COLUMN)?;
    let origin = origin.as_struct_opt().ok_or_else(|| Error::bug("the provenance is not a struct"))?;
    let fields = tie_fields(origin.data_type())?;
    let arrays = fields.iter().filter_map(|field| origin.column_by_name(field.name()).cloned()).collect();
    let ties = StructArray::try_new(fields.into(), arrays, origin.nulls().cloned()).map_err(odd)?;
    Ok(Arc::new(ties))
}

/// The fields of a provenance column that decide ties, in their order.
fn tie_fields(origin: &DataType) -> Result<Vec<Arc<Field>>> {
    let DataType::Struct(fields) = origin else { return Err(Error::data("the provenance is not a struct")) };
    let find = |name: &&str| fields.iter().find(|field| field.name() == name).cloned();
    // Nullable inside the struct or not makes no difference to the order.
    let found = TIES.iter().filter_map(find).map(|f| Arc::new(f.as_ref().clone().with_nullable(true)));
    Ok(found.collect())
}

fn column(batch: &RecordBatch, name: &str) -> Result<ArrayRef> {
    batch.column_by_name(name).cloned().ok_or_else(|| Error::bug(format!("a batch without column `{name}`")))
}

fn odd(e: arrow_schema::ArrowError) -> Error {
    Error::bug(format!("keys and versions cannot be compared: {e}")).with_source(e)
}

/// Which of `buckets` a key belongs to; equal keys always to the same.
pub fn bucket(key: &[u8], buckets: usize) -> usize {
    part(key, 0, buckets)
}

/// Buckets can be split so often: each time takes other bits of the hash.
pub const LEVELS_MAX: usize = blake3::OUT_LEN / size_of::<u64>() - 1;

/// Which of `parts` a key belongs to in a bucket that was split `level` times; the levels know nothing of each other.
pub fn part(key: &[u8], level: usize, parts: usize) -> usize {
    (word(key, level) % parts as u64) as usize
}

/// 64 bits of a key.
pub fn hash(key: &[u8]) -> u64 {
    word(key, 0)
}

/// Word number `level` of a key's hash; of [`LEVELS_MAX`] at most.
fn word(key: &[u8], level: usize) -> u64 {
    let mut bytes = [0; 8];
    let from = 8 * level.min(LEVELS_MAX);
    bytes.copy_from_slice(&blake3::hash(key).as_bytes()[from..from + 8]);
    u64::from_le_bytes(bytes)
}
