//! Parquet columns as the table's current columns: found by field id, promoted types widened, absent ones null.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, ListArray, MapArray, RecordBatch, StructArray, new_null_array};
use arrow_cast::CastOptions;
use arrow_schema::{DataType, Field, FieldRef, Schema as ArrowSchema};
use firn_shared::error::{Error, Result};
use iceberg::spec::{NestedFieldRef, Schema};
use parquet::arrow::{PARQUET_FIELD_ID_META_KEY, ProjectionMask};
use parquet::schema::types::SchemaDescriptor;

use crate::table::{error, schema};

/// The Arrow field of an Iceberg field, ids in the metadata.
pub(super) fn arrow_field(field: &NestedFieldRef) -> Result<FieldRef> {
    let alone = Schema::builder().with_fields([field.clone()]).build();
    let alone = alone.map_err(|e| error(format!("column `{}`", field.name), e))?;
    if field.initial_default.is_some() {
        return Err(Error::config(format!(
            "column `{}` has an initial default (format version 3), which cannot be read here",
            field.name
        )));
    }
    Ok(schema::arrow_schema(&alone)?.fields()[0].clone())
}

/// Which columns of one Parquet file are read, and how they become those that are wanted.
#[derive(Debug)]
pub(super) struct Projection {
    path: String,
    /// Leaves to decode.
    pub mask: ProjectionMask,
    /// Field id of a top-level column to its place in the decoded batch and its field in the file.
    columns: HashMap<i32, (usize, FieldRef)>,
}

impl Projection {
    /// For the top-level fields `wanted`, out of a file with these schemas.
    pub fn new(path: &str, file: &ArrowSchema, parquet: &SchemaDescriptor, wanted: &[FieldRef]) -> Result<Self> {
        let mut roots = Vec::new();
        let mut columns = HashMap::new();
        let ids: Vec<Option<i32>> = wanted.iter().map(|f| field_id(f)).collect();
        for (root, field) in file.fields().iter().enumerate() {
            let Some(id) = field_id(field) else {
                return Err(Error::config(format!(
                    "{path}: column `{}` has no field id (the file was not written by an Iceberg writer); rewrite the \
                     file, name mappings are not read",
                    field.name()
                )));
            };
            if ids.contains(&Some(id)) {
                columns.insert(id, (roots.len(), field.clone()));
                roots.push(root);
            }
        }
        Ok(Self { path: path.to_owned(), mask: ProjectionMask::roots(parquet, roots), columns })
    }

    /// One wanted column of a decoded batch.
    pub fn column(&self, batch: &RecordBatch, wanted: &FieldRef) -> Result<ArrayRef> {
        let column = match field_id(wanted).and_then(|id| self.columns.get(&id)) {
            Some((index, from)) => adapt(batch.column(*index), from, wanted),
            None => absent(wanted, batch.num_rows()),
        };
        column.map_err(|e| Error::new(e.kind(), format!("{}: {e}", self.path)).with_source(e))
    }
}

fn field_id(field: &Field) -> Option<i32> {
    field.metadata().get(PARQUET_FIELD_ID_META_KEY)?.parse().ok()
}

/// A column that was added after the file was written.
fn absent(wanted: &Field, rows: usize) -> Result<ArrayRef> {
    if !wanted.is_nullable() {
        return Err(Error::data(format!("column `{}` is required by the table and not in the file", wanted.name())));
    }
    Ok(new_null_array(wanted.data_type(), rows))
}

/// A value array of the file's field as one of the wanted field.
fn adapt(array: &ArrayRef, from: &Field, to: &Field) -> Result<ArrayRef> {
    let failed = |e: arrow_schema::ArrowError| {
        let (name, is, wanted) = (to.name(), from.data_type(), to.data_type());
        Error::data(format!("column `{name}` is {is} in the file and does not fit {wanted}: {e}")).with_source(e)
    };
    if array.data_type() == to.data_type() {
        return Ok(array.clone());
    }
    match (from.data_type(), to.data_type()) {
        (DataType::Struct(have), DataType::Struct(want)) => {
            let array = array.as_struct();
            let child = |field: &FieldRef| match have.iter().position(|f| field_id(f) == field_id(field)) {
                Some(at) => adapt(array.column(at), &have[at], field),
                // Rows without the struct do without its fields, required or not.
                None if array.null_count() == array.len() => Ok(new_null_array(field.data_type(), array.len())),
                None => absent(field, array.len()),
            };
            let children = want.iter().map(child).collect::<Result<Vec<_>>>()?;
            let nulls = array.nulls().cloned();
            Ok(Arc::new(StructArray::try_new_with_length(want.clone(), children, nulls, array.len()).map_err(failed)?))
        }
        (DataType::List(have), DataType::List(want)) => {
            let array = array.as_list::<i32>();
            let values = adapt(array.values(), have, want)?;
            let (offsets, nulls) = (array.offsets().clone(), array.nulls().cloned());
            Ok(Arc::new(ListArray::try_new(want.clone(), offsets, values, nulls).map_err(failed)?))
        }
        (DataType::Map(have, _), DataType::Map(want, sorted)) => {
            let array = array.as_map();
            let (DataType::Struct(have), DataType::Struct(fields)) = (have.data_type(), want.data_type()) else {
                return Err(Error::bug(format!("column `{}` is a map without entries", to.name())));
            };
            let entries = array.entries();
            let side = |at: usize| adapt(entries.column(at), &have[at], &fields[at]);
            let entries = StructArray::try_new(fields.clone(), vec![side(0)?, side(1)?], None).map_err(failed)?;
            let (offsets, nulls) = (array.offsets().clone(), array.nulls().cloned());
            Ok(Arc::new(MapArray::try_new(want.clone(), offsets, entries, nulls, *sorted).map_err(failed)?))
        }
        // A value that does not fit is an error here, never null.
        _ => {
            let strict = CastOptions { safe: false, ..CastOptions::default() };
            arrow_cast::cast_with_options(array, to.data_type(), &strict).map_err(failed)
        }
    }
}

/// A leaf inside a column, `path` being field ids from the column's child downwards; null where a parent is.
pub(super) fn leaf(column: &ArrayRef, path: &[i32]) -> Result<ArrayRef> {
    let Some((id, rest)) = path.split_first() else { return Ok(column.clone()) };
    let parent = column.as_struct();
    let at = parent.fields().iter().position(|f| field_id(f) == Some(*id));
    let at = at.ok_or_else(|| Error::bug(format!("no field {id} in a struct that was read for it")))?;
    let child = parent.column(at);
    let nulls = arrow_buffer::NullBuffer::union(parent.nulls(), child.nulls());
    let data = child.to_data().into_builder().nulls(nulls).build();
    let data = data.map_err(|e| Error::bug("nulls of a nested key").with_source(e))?;
    leaf(&arrow_array::make_array(data), rest)
}
