//! Lists, maps and structs: elements are taken by position, never copied one by one.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, Int32Array, ListArray, StructArray, UInt32Array};
use arrow_buffer::OffsetBuffer;
use arrow_row::{RowConverter, Rows, SortField};
use arrow_schema::{ArrowError, DataType, Field, SortOptions};
use firn_shared::error::{Error, Result};
use firn_shared::functions::{Function, nested as spec};
use firn_shared::types::LogicalType;

use super::columns::literal;
use crate::arrow_types::{data_type, element_field};
use crate::decode::RejectKind;
use crate::transform::kernel::{Batch, Build, Call, Column, Explode, Exploded, Made, Misfit, Why, Work, broken};
use crate::transform::values::{Rejects, Texts, batch, column, other};

/// This family.
pub const TABLE: &[(&Function, Build)] = &[
    (&spec::JOIN, join),
    (&spec::SIZE, size),
    (&spec::ELEMENT, element),
    (&spec::DISTINCT, distinct),
    (&spec::SORT, sort),
    (&spec::LIST_CONTAINS, contains),
    (&spec::SLICE, slice),
    (&spec::FLATTEN, flatten),
    (&spec::MAP_KEYS, map_keys),
    (&spec::MAP_VALUES, map_values),
    (&spec::MAP_GET, map_get),
    (&spec::FIELD, field),
    (&spec::UNNEST, unnest),
    (&spec::STRUCT, make_struct),
    (&spec::EXPLODE, explode),
];

fn bug(e: ArrowError) -> Error {
    Error::bug("cannot build a nested column").with_source(e)
}

fn list_of(column: Column<'_>) -> Result<&ListArray> {
    column.array.as_list_opt::<i32>().ok_or_else(|| other(column, "lists"))
}

/// Where the elements of a row are; nowhere for a null.
fn range(list: &ListArray, row: usize) -> Range<usize> {
    let offsets = list.value_offsets();
    if list.is_null(row) { 0..0 } else { offsets[row] as usize..offsets[row + 1] as usize }
}

fn take(values: &dyn Array, positions: &UInt32Array) -> Result<ArrayRef> {
    arrow_select::take::take(values, positions, None).map_err(bug)
}

/// Lists of elements at other positions: the closure pushes those of one row.
fn relist(list: &ListArray, values: &ArrayRef, mut positions: impl FnMut(usize, &mut Vec<u32>)) -> Result<ArrayRef> {
    let (mut taken, mut offsets) = (Vec::with_capacity(values.len()), Vec::with_capacity(list.len() + 1));
    offsets.push(0);
    for row in 0..list.len() {
        positions(row, &mut taken);
        offsets
            .push(i32::try_from(taken.len()).map_err(|_| Error::data("lists of more than 2^31 elements in a batch"))?);
    }
    let values = take(values, &UInt32Array::from(taken))?;
    let field = Arc::new(Field::new(crate::arrow_types::LIST_ELEMENT, values.data_type().clone(), true));
    let list = ListArray::try_new(field, OffsetBuffer::new(offsets.into()), values, list.nulls().cloned());
    Ok(Arc::new(list.map_err(bug)?))
}

fn join(call: &Call<'_>) -> Result<Work, Misfit> {
    let separator = call.args.text("separator").map_err(broken)?.to_owned();
    Ok(batch(move |batch| {
        let column = batch.column(0)?;
        let list = list_of(column)?;
        let texts = list.values().as_string_opt::<i32>().ok_or_else(|| other(column, "lists of texts"))?;
        let mut out = Texts::new(batch, column.name, 0);
        for row in 0..list.len() {
            let more = if list.is_null(row) {
                out.push_null()
            } else {
                let elements = range(list, row).filter(|at| texts.is_valid(*at));
                let from = elements.clone().map(|at| texts.value_length(at) as usize).sum();
                out.push(from, |out| {
                    let mut all = elements.enumerate();
                    Ok(all.all(|(i, at)| {
                        out.push_str(if i > 0 { separator.as_str() } else { "" }) && out.push_str(texts.value(at))
                    }))
                })
            };
            if !more {
                break;
            }
        }
        Ok(out.finish())
    }))
}

fn size(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(column(|column| {
        let lengths = match column.array.as_list_opt::<i32>() {
            Some(list) => list.offsets().lengths().collect::<Vec<_>>(),
            None => {
                column.array.as_map_opt().ok_or_else(|| other(column, "lists or maps"))?.offsets().lengths().collect()
            }
        };
        let sizes =
            lengths.into_iter().enumerate().map(|(row, length)| column.array.is_valid(row).then_some(length as i32));
        Ok(Arc::new(sizes.collect::<Int32Array>()))
    }))
}

/// The position in a list of an index that may count from the end.
fn from_ends(index: i64, range: &Range<usize>) -> usize {
    match usize::try_from(index) {
        Ok(index) => range.start.saturating_add(index),
        Err(_) => range.end.saturating_sub(usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX)),
    }
}

fn element(call: &Call<'_>) -> Result<Work, Misfit> {
    let at = call.args.int("at").map_err(broken)?;
    Ok(column(move |column| {
        let list = list_of(column)?;
        let positions = (0..list.len()).map(|row| {
            let range = range(list, row);
            let from_end = at < 0 && at.unsigned_abs() > range.len() as u64;
            let position = from_ends(at, &range);
            (!from_end && range.contains(&position)).then_some(position as u32)
        });
        take(list.values(), &positions.collect())
    }))
}

/// The elements of lists as bytes that compare as they do.
fn comparable(values: &ArrayRef, descending: bool) -> Result<Rows> {
    let options = SortOptions { descending, nulls_first: false };
    let field = SortField::new_with_options(values.data_type().clone(), options);
    let converter = RowConverter::new(vec![field]).map_err(bug)?;
    converter.convert_columns(&[Arc::clone(values)]).map_err(bug)
}

fn distinct(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(column(|column| {
        let list = list_of(column)?;
        let rows = comparable(list.values(), false)?;
        let mut seen = HashSet::new();
        relist(list, list.values(), |row, positions| {
            seen.clear();
            positions.extend(range(list, row).filter(|at| seen.insert(rows.row(*at))).map(|at| at as u32));
        })
    }))
}

fn sort(call: &Call<'_>) -> Result<Work, Misfit> {
    let descending = call.args.flag("descending");
    Ok(column(move |column| {
        let list = list_of(column)?;
        let rows = comparable(list.values(), descending)?;
        relist(list, list.values(), |row, positions| {
            let from = positions.len();
            positions.extend(range(list, row).map(|at| at as u32));
            positions[from..].sort_by_key(|at| rows.row(*at as usize));
        })
    }))
}

fn contains(call: &Call<'_>) -> Result<Work, Misfit> {
    let LogicalType::List(element) = call.from().map_err(broken)? else {
        return Err(("column", "is no list".to_owned()));
    };
    let value = literal(call, "value", element)?;
    Ok(column(move |column| {
        let list = list_of(column)?;
        let same = arrow_ord::cmp::eq(list.values(), &value).map_err(bug)?;
        let found = (0..list.len())
            .map(|row| list.is_valid(row).then(|| range(list, row).any(|at| same.is_valid(at) && same.value(at))));
        Ok(Arc::new(found.collect::<BooleanArray>()))
    }))
}

fn slice(call: &Call<'_>) -> Result<Work, Misfit> {
    let (start, length) = (call.args.int("start").map_err(broken)?, call.args.opt_int("length"));
    let length = length.map_or(usize::MAX, |length| usize::try_from(length).unwrap_or(usize::MAX));
    Ok(column(move |column| {
        let list = list_of(column)?;
        relist(list, list.values(), |row, positions| {
            let range = range(list, row);
            let from = from_ends(start, &range).max(range.start);
            let to = from.saturating_add(length).min(range.end);
            positions.extend((from..to).map(|at| at as u32));
        })
    }))
}

fn flatten(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(column(|column| {
        let list = list_of(column)?;
        let inner = list.values().as_list_opt::<i32>().ok_or_else(|| other(column, "lists of lists"))?;
        relist(list, inner.values(), |row, positions| {
            positions.extend(range(list, row).flat_map(|at| range(inner, at)).map(|at| at as u32));
        })
    }))
}

fn map_keys(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(column(|column| {
        let map = column.array.as_map_opt().ok_or_else(|| other(column, "maps"))?;
        let field = Arc::new(element_field(&LogicalType::String));
        let keys = ListArray::try_new(field, map.offsets().clone(), Arc::clone(map.keys()), map.nulls().cloned());
        Ok(Arc::new(keys.map_err(bug)?))
    }))
}

fn map_values(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(column(|column| {
        let map = column.array.as_map_opt().ok_or_else(|| other(column, "maps"))?;
        let values = Arc::clone(map.values());
        let field = Arc::new(Field::new(crate::arrow_types::LIST_ELEMENT, values.data_type().clone(), true));
        let list = ListArray::try_new(field, map.offsets().clone(), values, map.nulls().cloned());
        Ok(Arc::new(list.map_err(bug)?))
    }))
}

fn map_get(call: &Call<'_>) -> Result<Work, Misfit> {
    let key = call.args.text("key").map_err(broken)?.to_owned();
    Ok(column(move |column| {
        let map = column.array.as_map_opt().ok_or_else(|| other(column, "maps"))?;
        let keys = map.keys().as_string_opt::<i32>().ok_or_else(|| other(column, "maps with keys of text"))?;
        let offsets = map.value_offsets();
        let positions = (0..map.len()).map(|row| {
            let mut range = if map.is_null(row) { 0..0 } else { offsets[row]..offsets[row + 1] };
            range.rfind(|at| keys.value(*at as usize) == key).map(|at| at as u32)
        });
        take(map.values(), &positions.collect())
    }))
}

/// Field `number` of structs; null where the struct is.
fn part(parts: &StructArray, number: usize) -> Result<ArrayRef> {
    let values = parts.columns().get(number).ok_or_else(|| Error::bug("a struct lacks a field that was planned"))?;
    match parts.nulls() {
        None => Ok(Arc::clone(values)),
        Some(nulls) => {
            let gone = BooleanArray::new(!nulls.inner(), None);
            arrow_select::nullif::nullif(values, &gone).map_err(bug)
        }
    }
}

fn struct_of(column: Column<'_>) -> Result<&StructArray> {
    column.array.as_struct_opt().ok_or_else(|| other(column, "structs"))
}

fn field(call: &Call<'_>) -> Result<Work, Misfit> {
    let name = call.args.text("name").map_err(broken)?;
    let LogicalType::Struct(fields) = call.from().map_err(broken)? else {
        return Err(("column", "is no struct".to_owned()));
    };
    let number = fields.iter().position(|field| field.name == name);
    let number = number.ok_or_else(|| ("name", format!("no field `{name}`")))?;
    Ok(column(move |column| part(struct_of(column)?, number)))
}

fn unnest(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(batch(|batch| {
        let parts = struct_of(batch.column(0)?)?;
        let columns = (0..parts.num_columns()).map(|number| part(parts, number)).collect::<Result<_>>()?;
        Ok(Made { columns, rejects: Vec::new() })
    }))
}

fn make_struct(call: &Call<'_>) -> Result<Work, Misfit> {
    let DataType::Struct(fields) = data_type(call.to().map_err(broken)?) else {
        return Err(("as", "is no struct".to_owned()));
    };
    Ok(batch(move |batch| {
        let columns: Vec<ArrayRef> = batch.columns.iter().map(|column| Arc::clone(column.array)).collect();
        let parts = StructArray::try_new_with_length(fields.clone(), columns, None, batch.rows);
        Ok(Made::one(Arc::new(parts.map_err(bug)?)))
    }))
}

fn explode(call: &Call<'_>) -> Result<Work, Misfit> {
    let keep_empty = call.args.flag("keepEmpty");
    let limit = call.args.int("limit").map_err(broken)? as usize;
    Ok(Work::Explode(Box::new(Elements { keep_empty, limit, positions: call.makes.len() > 1 })))
}

/// The rows that lists become.
#[derive(Debug)]
struct Elements {
    keep_empty: bool,
    limit: usize,
    positions: bool,
}

impl Explode for Elements {
    fn explode(&self, batch: &Batch<'_>) -> Result<Exploded> {
        let column = batch.column(0)?;
        let list = list_of(column)?;
        let (mut from, mut elements, mut places) = (Vec::new(), Vec::new(), Vec::new());
        let mut rejects = Rejects::new(column.name);
        for row in 0..list.len() {
            let range = range(list, row);
            if range.len() > self.limit {
                let detail = format!("more than {} elements", self.limit).into();
                rejects.sieve::<()>(row, Err(Why { reason: RejectKind::TooLarge, detail }));
                continue;
            }
            if range.is_empty() && self.keep_empty {
                from.push(row as u32);
                elements.push(None);
                places.push(None);
            }
            for (place, at) in range.enumerate() {
                from.push(row as u32);
                elements.push(Some(at as u32));
                places.push(Some(place as i32));
            }
        }
        let mut columns = vec![take(list.values(), &UInt32Array::from(elements))?];
        if self.positions {
            columns.push(Arc::new(Int32Array::from(places)));
        }
        Ok(Exploded { from: UInt32Array::from(from), columns, rejects: rejects.found })
    }
}
