//! Arrow arrays as a plug-in sees them, and back. What comes back is not trusted.

use arrow_array::{Array, ArrayRef, make_array};
use arrow_buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer};
use arrow_data::ArrayData;
use arrow_schema::{DataType as Arrow, TimeUnit};

use super::host::{Column, DataType};
use crate::arrow_types::UTC;

impl DataType {
    /// Its type in Arrow.
    #[must_use]
    pub fn arrow(self) -> Arrow {
        match self {
            Self::Boolean => Arrow::Boolean,
            Self::Long => Arrow::Int64,
            Self::Double => Arrow::Float64,
            Self::Text => Arrow::Utf8,
            Self::Binary => Arrow::Binary,
            Self::Date => Arrow::Date32,
            Self::Timestamp => Arrow::Timestamp(TimeUnit::Microsecond, None),
            Self::Timestamptz => Arrow::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
        }
    }

    fn has_offsets(self) -> bool {
        matches!(self, Self::Text | Self::Binary)
    }
}

/// The array's buffers, from row 0 on.
///
/// # Errors
/// What of it is not of the type.
pub fn lower(array: &ArrayRef, of: DataType) -> Result<Column, String> {
    if *array.data_type() != of.arrow() {
        return Err(format!("a column of {} where {} is read", array.data_type(), of.arrow()));
    }
    let rows = array.len();
    let validity = array.nulls().filter(|nulls| nulls.null_count() > 0).map(|nulls| bits(nulls.inner()));
    let data = array.to_data();
    let (offset, buffers) = (data.offset(), data.buffers());
    let (offsets, values) = if of.has_offsets() {
        let all: &[i32] = buffers.first().map(Buffer::typed_data).unwrap_or_default();
        let of_rows = all.get(offset..=offset + rows).unwrap_or(&[0]);
        let (first, last) = (of_rows[0], of_rows[of_rows.len() - 1]);
        let bytes = buffers.get(1).map(Buffer::as_slice).unwrap_or_default();
        let bytes = bytes.get(first as usize..last as usize).unwrap_or_default();
        (of_rows.iter().map(|at| at - first).collect(), bytes.to_vec())
    } else if of == DataType::Boolean {
        let buffer = buffers.first().cloned().unwrap_or_default();
        (Vec::new(), bits(&BooleanBuffer::new(buffer, offset, rows)))
    } else {
        let width = of.arrow().primitive_width().unwrap_or_default();
        let bytes = buffers.first().map(Buffer::as_slice).unwrap_or_default();
        (Vec::new(), bytes.get(offset * width..(offset + rows) * width).unwrap_or_default().to_vec())
    };
    Ok(Column { data_type: of, validity, offsets, values })
}

/// Bits from the first on.
fn bits(of: &BooleanBuffer) -> Vec<u8> {
    of.sliced().as_slice()[..of.len().div_ceil(8)].to_vec()
}

/// Why a column is none.
#[derive(Debug)]
pub enum NoColumn {
    /// It is of another type or length.
    Shape(String),
    /// Offsets do not ascend, or bytes are no text.
    Value(String),
}

/// The array that a plug-in made.
///
/// # Errors
/// What of it is no array of this type and length.
pub fn lift(column: Column, of: DataType, rows: usize) -> Result<ArrayRef, NoColumn> {
    if column.data_type != of {
        return Err(NoColumn::Shape(format!("a column of {}, it said {}", column.data_type.arrow(), of.arrow())));
    }
    let exactly = |what: &str, found: usize, wanted: usize| {
        let wrong = || NoColumn::Shape(format!("{found} {what}, {wanted} belong to {rows} rows"));
        if found == wanted { Ok(()) } else { Err(wrong()) }
    };
    let mut data = ArrayData::builder(of.arrow()).len(rows);
    if let Some(validity) = column.validity {
        exactly("bytes of validity", validity.len(), rows.div_ceil(8))?;
        data = data.nulls(Some(NullBuffer::new(BooleanBuffer::new(Buffer::from_vec(validity), 0, rows))));
    }
    if of.has_offsets() {
        exactly("offsets", column.offsets.len(), rows + 1)?;
        data = data.add_buffer(Buffer::from_vec(column.offsets)).add_buffer(Buffer::from_vec(column.values));
    } else {
        let bytes = match of.arrow().primitive_width() {
            Some(width) => rows * width,
            None => rows.div_ceil(8),
        };
        exactly("bytes of values", column.values.len(), bytes)?;
        // Numbers need an alignment that bytes do not have.
        let mut aligned = MutableBuffer::new(column.values.len());
        aligned.extend_from_slice(&column.values);
        data = data.add_buffer(aligned.into());
    }
    // Checks offsets and UTF-8, too.
    data.build().map(make_array).map_err(|e| NoColumn::Value(e.to_string()))
}
