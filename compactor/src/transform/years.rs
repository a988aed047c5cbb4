//! Times that are none: what lies beyond the years 1 to 9999 (or the hours of a day) has no text that reads back. The decoder
//! and our functions make no such values; expressions and functions of others might.

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Time64MicrosecondType, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, TimeUnit};

use crate::decode::time::{DAYS, YEARS};
use crate::decode::{RejectKind, Rejected};

/// The rows whose value is, or holds, such a time; ascending.
pub fn beyond(array: &ArrayRef) -> Vec<usize> {
    if !holds_times(array.data_type()) {
        return Vec::new();
    }
    (0..array.len()).filter(|row| is_beyond(array, *row)).collect()
}

/// Why such a row is rejected.
pub fn reject(path: &str) -> Rejected {
    let detail = "the result is no time between the years 1 and 9999".to_owned();
    Rejected { path: path.to_owned(), reason: RejectKind::OutOfRange, detail }
}

fn holds_times(of: &DataType) -> bool {
    match of {
        DataType::Date32 | DataType::Time64(TimeUnit::Microsecond) | DataType::Timestamp(TimeUnit::Microsecond, _) => {
            true
        }
        DataType::List(element) | DataType::Map(element, _) => holds_times(element.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| holds_times(field.data_type())),
        _ => false,
    }
}

fn is_beyond(array: &ArrayRef, row: usize) -> bool {
    let any = |values: &ArrayRef, offsets: &[i32]| {
        holds_times(values.data_type())
            && (offsets[row]..offsets[row + 1]).any(|element| is_beyond(values, element as usize))
    };
    array.is_valid(row)
        && match array.data_type() {
            DataType::Date32 => !DAYS.contains(&array.as_primitive::<Date32Type>().value(row)),
            DataType::Time64(TimeUnit::Microsecond) => {
                !(0..86_400_000_000).contains(&array.as_primitive::<Time64MicrosecondType>().value(row))
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                !YEARS.contains(&array.as_primitive::<TimestampMicrosecondType>().value(row))
            }
            DataType::List(_) => any(array.as_list::<i32>().values(), array.as_list::<i32>().value_offsets()),
            DataType::Map(..) => any(array.as_map().values(), array.as_map().value_offsets()),
            DataType::Struct(_) => array.as_struct().columns().iter().any(|part| is_beyond(part, row)),
            _ => false,
        }
}
