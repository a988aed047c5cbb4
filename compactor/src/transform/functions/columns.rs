//! Which columns there are, and nulls in them.

use std::iter::repeat_n;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray, Datum, Scalar};
use arrow_buffer::BooleanBuffer;
use firn_shared::error::{Error, Result};
use firn_shared::functions::{Function, columns};
use firn_shared::types::LogicalType;

use crate::transform::kernel::{Build, Call, Made, Misfit, Work, broken};
use crate::transform::parts::bytes_of;
use crate::transform::text;
use crate::transform::values::{batch, column};

/// This family.
pub const TABLE: &[(&Function, Build)] = &[
    (&columns::RENAME, layout),
    (&columns::DROP, layout),
    (&columns::SELECT, layout),
    (&columns::REORDER, layout),
    (&columns::COPY, layout),
    (&columns::CONSTANT, constant),
    (&columns::COALESCE, coalesce),
    (&columns::FILL_NULL, fill_null),
    (&columns::NULL_IF, null_if),
];

/// Columns that are only arranged need no code of their own.
fn layout(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(Work::Layout)
}

/// An argument as one value of a type.
pub fn literal(call: &Call<'_>, arg: &'static str, r#type: &LogicalType) -> Result<Scalar<ArrayRef>, Misfit> {
    let json = call.args.opt_scalar(arg).ok_or_else(|| (arg, "is missing".to_owned()))?;
    text::literal(r#type, json).map(Scalar::new).map_err(|message| (arg, message))
}

fn failed(what: &'static str) -> impl Fn(arrow_schema::ArrowError) -> Error {
    move |e| Error::bug(what).with_source(e)
}

fn constant(call: &Call<'_>) -> Result<Work, Misfit> {
    let value = literal(call, "value", call.to().map_err(broken)?)?.into_inner();
    let bytes = bytes_of(&value);
    Ok(batch(move |batch| {
        let rows = arrow_array::UInt32Array::from(vec![0; batch.room.rows_of(repeat_n(bytes, batch.rows))]);
        let column = arrow_select::take::take(&value, &rows, None).map_err(failed("cannot repeat a constant"))?;
        Ok(Made::one(column))
    }))
}

/// Which rows have a value.
fn valid(array: &dyn Array) -> BooleanArray {
    let valid = array.logical_nulls().map_or_else(|| BooleanBuffer::new_set(array.len()), |nulls| nulls.into_inner());
    BooleanArray::new(valid, None)
}

fn coalesce(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(batch(|batch| {
        let mut found = Arc::clone(batch.column(0)?.array);
        for column in &batch.columns[1..] {
            if found.null_count() == 0 {
                break;
            }
            found = arrow_select::zip::zip(&valid(&found), &found, column.array).map_err(failed("coalesce"))?;
        }
        Ok(Made::one(found))
    }))
}

fn fill_null(call: &Call<'_>) -> Result<Work, Misfit> {
    let value = literal(call, "value", call.to().map_err(broken)?)?;
    let bytes = bytes_of(value.get().0);
    Ok(batch(move |batch| {
        let array = batch.column(0)?.array;
        if array.null_count() == 0 {
            return Ok(Made::one(Arc::clone(array)));
        }
        let filled = (0..batch.rows).map(|row| if array.is_null(row) { bytes } else { 0 });
        let array = array.slice(0, batch.room.rows_of(filled));
        let filled = arrow_select::zip::zip(&valid(&array), &array, &value).map_err(failed("fillNull"))?;
        Ok(Made::one(filled))
    }))
}

fn null_if(call: &Call<'_>) -> Result<Work, Misfit> {
    let value = literal(call, "value", call.to().map_err(broken)?)?;
    Ok(column(move |column| {
        let same = arrow_ord::cmp::eq(column.array, &value).map_err(failed("nullIf"))?;
        arrow_select::nullif::nullif(column.array, &same).map_err(failed("nullIf"))
    }))
}
