//! The values of one column, one behind the other; where there is none comes out when the array is made.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array,
    Int64Array, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow_buffer::{ArrowNativeType, BooleanBuffer, Buffer, MutableBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::ArrowError;
use firn_shared::types::LogicalType;

use super::trusted::string_array;
use crate::arrow_types::UTC;

/// Values of one type.
#[derive(Debug)]
pub(super) enum Values {
    Bits(Vec<bool>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    I128(Vec<i128>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bytes { ends: Vec<i32>, data: Vec<u8> },
}

/// Zeros that the arrays of columns without any value share.
#[derive(Debug, Default)]
pub(super) struct Blanks(Option<Buffer>);

impl Blanks {
    fn zeros(&mut self, bytes: usize) -> Buffer {
        let zeros = self.0.take().filter(|zeros| zeros.len() >= bytes);
        let zeros = zeros.unwrap_or_else(|| MutableBuffer::from_len_zeroed(bytes).into());
        self.0.insert(zeros).slice_with_length(0, bytes)
    }

    fn numbers<T: ArrowNativeType>(&mut self, length: usize) -> ScalarBuffer<T> {
        ScalarBuffer::new(self.zeros(length * size_of::<T>()), 0, length)
    }
}

impl Values {
    /// None yet, of a type that is not nested.
    pub fn new(logical: &LogicalType) -> Self {
        match logical {
            LogicalType::Boolean => Self::Bits(Vec::new()),
            LogicalType::Int | LogicalType::Date => Self::I32(Vec::new()),
            LogicalType::Float => Self::F32(Vec::new()),
            LogicalType::Double => Self::F64(Vec::new()),
            LogicalType::Decimal { .. } => Self::I128(Vec::new()),
            LogicalType::Long | LogicalType::Time | LogicalType::Timestamp | LogicalType::TimestampTz => {
                Self::I64(Vec::new())
            }
            _ => Self::Bytes { ends: Vec::new(), data: Vec::new() },
        }
    }

    /// Bytes that one position takes besides text.
    pub fn width(&self) -> usize {
        match self {
            Self::Bits(_) => 1,
            Self::I32(_) | Self::F32(_) | Self::Bytes { .. } => 4,
            Self::I64(_) | Self::F64(_) => 8,
            Self::I128(_) => 16,
        }
    }

    /// Forgets all but the first `count`.
    pub fn truncate(&mut self, count: usize) {
        match self {
            Self::Bits(v) => v.truncate(count),
            Self::I32(v) => v.truncate(count),
            Self::I64(v) => v.truncate(count),
            Self::I128(v) => v.truncate(count),
            Self::F32(v) => v.truncate(count),
            Self::F64(v) => v.truncate(count),
            Self::Bytes { ends, data } => {
                ends.truncate(count);
                data.truncate(ends.last().map_or(0, |end| *end as usize));
            }
        }
    }

    /// The values as an array of `length` with these nulls; none are left afterwards.
    pub fn finish(
        &mut self,
        logical: &LogicalType,
        length: usize,
        nulls: Option<NullBuffer>,
        blanks: &mut Blanks,
    ) -> Result<ArrayRef, ArrowError> {
        Ok(match (self, logical) {
            (Self::Bits(v), _) => Arc::new(BooleanArray::new(bits(v, length, nulls.as_ref()), nulls)),
            (Self::I32(v), LogicalType::Date) => {
                Arc::new(Date32Array::try_new(numbers(v, length, nulls.as_ref(), blanks), nulls)?)
            }
            (Self::I32(v), _) => Arc::new(Int32Array::try_new(numbers(v, length, nulls.as_ref(), blanks), nulls)?),
            (Self::F32(v), _) => Arc::new(Float32Array::try_new(numbers(v, length, nulls.as_ref(), blanks), nulls)?),
            (Self::F64(v), _) => Arc::new(Float64Array::try_new(numbers(v, length, nulls.as_ref(), blanks), nulls)?),
            (Self::I64(v), logical) => {
                let values = numbers(v, length, nulls.as_ref(), blanks);
                match logical {
                    LogicalType::Time => Arc::new(Time64MicrosecondArray::try_new(values, nulls)?),
                    LogicalType::Timestamp => Arc::new(TimestampMicrosecondArray::try_new(values, nulls)?),
                    LogicalType::TimestampTz => {
                        Arc::new(TimestampMicrosecondArray::try_new(values, nulls)?.with_timezone(UTC))
                    }
                    _ => Arc::new(Int64Array::try_new(values, nulls)?),
                }
            }
            (Self::I128(v), logical) => {
                let array = Decimal128Array::try_new(numbers(v, length, nulls.as_ref(), blanks), nulls)?;
                match logical {
                    LogicalType::Decimal { precision, scale } => {
                        Arc::new(array.with_precision_and_scale(*precision, *scale as i8)?)
                    }
                    _ => Arc::new(array),
                }
            }
            (Self::Bytes { ends, data }, logical) => {
                let offsets = OffsetBuffer::new(offsets(ends, length, nulls.as_ref(), blanks));
                let room = Vec::with_capacity(data.len());
                let data = std::mem::replace(data, room).into();
                match logical {
                    LogicalType::Binary => Arc::new(BinaryArray::try_new(offsets, data, nulls)?),
                    _ => Arc::new(string_array(offsets, data, nulls)),
                }
            }
        })
    }
}

/// The values at their positions, zeros between them; what stays behind has room for as many.
fn numbers<T: ArrowNativeType>(
    values: &mut Vec<T>,
    length: usize,
    nulls: Option<&NullBuffer>,
    blanks: &mut Blanks,
) -> ScalarBuffer<T> {
    let Some(nulls) = nulls else {
        let room = Vec::with_capacity(values.len());
        return std::mem::replace(values, room).into();
    };
    if values.is_empty() {
        return blanks.numbers(length);
    }
    let mut spread = vec![T::default(); length];
    for (at, value) in nulls.valid_indices().zip(values.drain(..)) {
        spread[at] = value;
    }
    spread.into()
}

fn bits(values: &mut Vec<bool>, length: usize, nulls: Option<&NullBuffer>) -> BooleanBuffer {
    let Some(nulls) = nulls else {
        let bits = BooleanBuffer::from(values.as_slice());
        values.clear();
        return bits;
    };
    let mut words = vec![0u64; length.div_ceil(64)];
    for (at, value) in nulls.valid_indices().zip(values.drain(..)) {
        words[at / 64] |= u64::from(value) << (at % 64);
    }
    BooleanBuffer::new(Buffer::from_vec(words), 0, length)
}

/// Where each position begins and ends.
fn offsets(ends: &mut Vec<i32>, length: usize, nulls: Option<&NullBuffer>, blanks: &mut Blanks) -> ScalarBuffer<i32> {
    if ends.is_empty() && length > 0 {
        return blanks.numbers(length + 1);
    }
    let mut offsets = Vec::with_capacity(length + 1);
    offsets.push(0);
    match nulls {
        None => offsets.append(ends),
        Some(nulls) => {
            let mut last = 0;
            for (at, end) in nulls.valid_indices().zip(ends.drain(..)) {
                offsets.resize(at + 1, last);
                offsets.push(end);
                last = end;
            }
            offsets.resize(length + 1, last);
        }
    }
    offsets.into()
}
