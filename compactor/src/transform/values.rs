//! Kernels of closures over whole columns: one loop a column, results written side by side, nothing boxed.

use std::fmt;
use std::fmt::Write;
use std::sync::Arc;

use arrow_array::builder::{ArrayBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, BooleanArray, Int64Array, PrimitiveArray, StringArray};
use arrow_schema::DataType;
use firn_shared::error::{Error, Result};

use super::kernel::{Batch, Call, Column, Kernel, Made, Misfit, Room, Why, Work, broken};
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

/// Text to text that every value fits: the closure appends its result, of at most a few times as many bytes.
pub fn text(work: impl Fn(&str, &mut String) + Send + Sync + 'static) -> Work {
    text_or_reject(move |text, out| {
        work(text, out);
        Ok(true)
    })
}

/// Text to text, as [`text`]; false makes null of what was appended.
pub fn text_or_reject(work: impl Fn(&str, &mut String) -> Result<bool, Why> + Send + Sync + 'static) -> Work {
    texts_of(move |text, out| work(text, &mut out.value))
}

/// Text to text of any length; what becomes too long is rejected.
pub fn long_text(work: impl Fn(&str, &mut Text) + Send + Sync + 'static) -> Work {
    texts_of(move |text, out| {
        work(text, out);
        Ok(true)
    })
}

fn texts_of(work: impl Fn(&str, &mut Text) -> Result<bool, Why> + Send + Sync + 'static) -> Work {
    batch(move |batch| {
        let column = batch.column(0)?;
        let texts = texts(column)?;
        let mut out = Texts::new(batch, column.name, text_bytes(texts));
        for text in texts {
            let more = match text {
                Some(text) => out.push(text.len(), |out| work(text, out)),
                None => out.push_null(),
            };
            if !more {
                break;
            }
        }
        Ok(out.finish())
    })
}

/// The bytes of the texts of a column, which may be a part of a longer one.
pub fn text_bytes(texts: &StringArray) -> usize {
    let offsets = texts.value_offsets();
    (offsets[offsets.len() - 1] - offsets[0]) as usize
}

/// Text that is being written, up to a bound: no more is taken once it would be longer.
#[derive(Debug, Default)]
pub struct Text {
    value: String,
    max: usize,
    is_over: bool,
}

impl Text {
    /// Whether so many bytes more are within the bound.
    pub fn takes(&mut self, bytes: usize) -> bool {
        self.is_over |= self.value.len().saturating_add(bytes) > self.max;
        !self.is_over
    }

    /// Appends, unless that would be too long.
    pub fn push_str(&mut self, text: &str) -> bool {
        let takes = self.takes(text.len());
        if takes {
            self.value.push_str(text);
        }
        takes
    }

    /// Appends characters, as many as it takes.
    pub fn extend(&mut self, characters: impl IntoIterator<Item = char>) {
        for c in characters {
            if !self.takes(c.len_utf8()) {
                return;
            }
            self.value.push(c);
        }
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.push_str(text) { Ok(()) } else { Err(fmt::Error) }
    }
}

/// A column of texts that is being made of the first rows of a batch, and the rows that do not fit.
pub struct Texts<'a> {
    out: StringBuilder,
    value: Text,
    room: Room,
    rejects: Rejects<'a>,
}

impl<'a> Texts<'a> {
    /// None yet; `bytes` is about what they will take, `path` the column's name for rejects.
    pub fn new(batch: &Batch<'_>, path: &'a str, bytes: usize) -> Self {
        let out = StringBuilder::with_capacity(batch.rows, bytes.min(batch.room.bytes));
        Self { out, value: Text::default(), room: batch.room, rejects: Rejects::new(path) }
    }

    /// Appends what is written of a value of `from` bytes; false of `write` makes null of it. False when there is no room for
    /// this row, and it is not appended.
    pub fn push(&mut self, from: usize, write: impl FnOnce(&mut Text) -> Result<bool, Why>) -> bool {
        self.value.value.clear();
        (self.value.max, self.value.is_over) = (self.room.longest(from), false);
        let outcome = write(&mut self.value);
        let outcome = if self.value.is_over { Err(Why::large(self.value.max)) } else { outcome };
        let made = if outcome == Ok(true) { self.value.value.len() } else { 0 };
        if self.has_no_room(made) {
            return false;
        }
        match self.rejects.sieve(self.out.len(), outcome) {
            Some(true) => self.out.append_value(&self.value.value),
            Some(false) | None => self.out.append_null(),
        }
        true
    }

    /// Appends a null; false as of [`Self::push`].
    pub fn push_null(&mut self) -> bool {
        if self.has_no_room(0) {
            return false;
        }
        self.out.append_null();
        true
    }

    fn has_no_room(&self, made: usize) -> bool {
        self.room.is_over(self.out.len() + 1, self.out.values_slice().len() + made)
    }

    /// The column as the only one of a step.
    pub fn finish(mut self) -> Made {
        Made { columns: vec![Arc::new(self.out.finish())], rejects: self.rejects.found }
    }
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
