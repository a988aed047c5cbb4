//! Kernels of closures over whole columns: one loop a column, results written side by side, nothing boxed.

use std::fmt;
use std::fmt::Write;
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, BooleanArray, Int64Array, PrimitiveArray, StringArray};
use arrow_schema::DataType;
use firn_shared::error::{Error, Result};

use super::kernel::{Batch, Call, Column, Kernel, Made, Misfit, Why, Work, broken};
use crate::arrow_types::data_type;
use crate::decode::Rejected;

/// A kernel of a closure.
struct Each<F>(F);

impl<F> fmt::Debug for Each<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Each")
    }
}

impl<F: Fn(&Batch<'_>) -> Result<Made> + Send + Sync> Kernel for Each<F> {
    fn call(&self, batch: &Batch<'_>) -> Result<Made> {
        self.0(batch)
    }
}

/// Work on the columns of a batch.
pub fn batch(work: impl Fn(&Batch<'_>) -> Result<Made> + Send + Sync + 'static) -> Work {
    Work::Make(Box::new(Each(work)))
}

/// Work on one column that every value fits.
pub fn column(work: impl Fn(Column<'_>) -> Result<ArrayRef> + Send + Sync + 'static) -> Work {
    batch(move |batch| Ok(Made::one(work(batch.column(0)?)?)))
}

/// Text to text that every value fits: the closure appends its result.
pub fn text(work: impl Fn(&str, &mut String) + Send + Sync + 'static) -> Work {
    column(move |column| {
        let texts = texts(column)?;
        let mut out = StringBuilder::with_capacity(texts.len(), texts.value_data().len());
        let mut value = String::new();
        for text in texts {
            match text {
                Some(text) => {
                    value.clear();
                    work(text, &mut value);
                    out.append_value(&value);
                }
                None => out.append_null(),
            }
        }
        Ok(Arc::new(out.finish()))
    })
}

/// Text to text; false makes null of what was appended.
pub fn text_or_reject(work: impl Fn(&str, &mut String) -> Result<bool, Why> + Send + Sync + 'static) -> Work {
    batch(move |batch| {
        let column = batch.column(0)?;
        let texts = texts(column)?;
        let mut out = StringBuilder::with_capacity(texts.len(), texts.value_data().len());
        let mut value = String::new();
        let mut rejects = Rejects::new(column.name);
        for (row, text) in texts.iter().enumerate() {
            value.clear();
            let outcome = text.map_or(Ok(false), |text| work(text, &mut value));
            match rejects.sieve(row, outcome) {
                Some(true) => out.append_value(&value),
                Some(false) | None => out.append_null(),
            }
        }
        Ok(Made { columns: vec![Arc::new(out.finish())], rejects: rejects.found })
    })
}

/// Text to true or false.
pub fn text_to_boolean(work: impl Fn(&str) -> bool + Send + Sync + 'static) -> Work {
    column(move |column| {
        let texts = texts(column)?;
        let values = texts.iter().map(|text| text.map(&work));
        Ok(Arc::new(values.collect::<BooleanArray>()))
    })
}

/// Text to the numbers or times that the step was planned to make.
pub fn text_to<T: ArrowPrimitiveType>(
    call: &Call<'_>,
    work: impl Fn(&str) -> Result<Option<T::Native>, Why> + Send + Sync + 'static,
) -> Result<Work, Misfit> {
    let wanted = data_type(call.to().map_err(broken)?);
    Ok(batch(move |batch| {
        let column = batch.column(0)?;
        let mut rejects = Rejects::new(column.name);
        let values = texts(column)?.iter().enumerate().map(|(row, text)| {
            let outcome = text.map_or(Ok(None), &work);
            rejects.sieve(row, outcome).flatten()
        });
        let values = values.collect::<PrimitiveArray<T>>().with_data_type(wanted.clone());
        Ok(Made { columns: vec![Arc::new(values)], rejects: rejects.found })
    }))
}

/// The rejects of one column.
pub struct Rejects<'a> {
    path: &'a str,
    /// Row and reason, ascending.
    pub found: Vec<(usize, Rejected)>,
}

impl<'a> Rejects<'a> {
    /// None yet, of the column of this name.
    pub fn new(path: &'a str) -> Self {
        Self { path, found: Vec::new() }
    }

    /// The value, unless it is rejected.
    pub fn sieve<V>(&mut self, row: usize, outcome: Result<V, Why>) -> Option<V> {
        outcome.map_err(|why| self.found.push((row, why.at(self.path)))).ok()
    }
}

/// The texts of a column.
///
/// # Errors
/// `Bug` when it holds none.
pub fn texts(column: Column<'_>) -> Result<&StringArray> {
    column.array.as_string_opt::<i32>().ok_or_else(|| other(column, "text"))
}

/// Integers of a column, of either width.
///
/// # Errors
/// `Bug` when it holds others.
pub fn longs(column: Column<'_>) -> Result<Int64Array> {
    let longs = arrow_cast::cast(column.array, &DataType::Int64);
    let longs = longs.map_err(|e| other(column, "integers").with_source(e))?;
    Ok(longs.as_primitive::<Int64Type>().clone())
}

/// Numbers or times of a column.
///
/// # Errors
/// `Bug` when it holds others.
pub fn numbers<T: ArrowPrimitiveType>(column: Column<'_>) -> Result<&PrimitiveArray<T>> {
    column.array.as_primitive_opt::<T>().ok_or_else(|| other(column, &T::DATA_TYPE.to_string()))
}

/// The error about an array of another type than planned.
pub fn other(column: Column<'_>, wanted: &str) -> Error {
    let mut message = format!("column `{}` is {}", column.name, column.array.data_type());
    let _ = write!(message, ", not {wanted}, as was planned");
    Error::bug(message)
}
