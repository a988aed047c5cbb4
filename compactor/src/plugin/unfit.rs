//! Values that lie well in memory and are none of their type all the same: decimals of too many digits, text that is no JSON
//! or no UUID. Each is of one row, which is rejected.

use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, DecimalType};
use arrow_array::{Array, ArrayRef};
use firn_shared::error::Result;

use super::world::{DataType, Digits, Flat};
use crate::decode::RejectKind;
use crate::transform::text::check_json;

/// JSON is copied to be looked at: so many values at a time.
const AT_ONCE: usize = 1024;

/// The rows of a column with such a value, ascending. What lies under a null does not matter.
///
/// # Errors
/// `Bug` for an array of another type.
pub fn unfit(array: &ArrayRef, of: DataType) -> Result<Vec<usize>> {
    let Some(list) = array.as_list_opt::<i32>() else { return unfit_values(array, of.values()) };
    let elements = unfit_values(list.values(), of.values())?;
    if elements.is_empty() {
        return Ok(elements);
    }
    let holds_one = |range: Range<usize>| {
        let next = elements.partition_point(|element| *element < range.start);
        elements.get(next).is_some_and(|element| *element < range.end)
    };
    let ends = list.value_offsets();
    let elements_of = |row: usize| ends[row] as usize..ends[row + 1] as usize;
    Ok((0..list.len()).filter(|row| list.is_valid(*row) && holds_one(elements_of(*row))).collect())
}

/// What such a value is.
pub fn what(of: DataType) -> (RejectKind, String) {
    match of.values() {
        Flat::Decimal(Digits { precision, .. }) => {
            (RejectKind::OutOfRange, format!("a decimal of more than {precision} digits"))
        }
        Flat::Json => (RejectKind::NotJson, "text that is not one JSON value".to_owned()),
        _ => (RejectKind::BadFormat, "text that is no UUID of 36 characters in lower case".to_owned()),
    }
}

fn unfit_values(array: &ArrayRef, of: Flat) -> Result<Vec<usize>> {
    let valid = |row: &usize| array.is_valid(*row);
    Ok(match of {
        Flat::Decimal(Digits { precision, .. }) => {
            let values = array.as_primitive::<Decimal128Type>().values();
            let fits = |row: &usize| Decimal128Type::is_valid_decimal_precision(values[*row], precision);
            (0..array.len()).filter(|row| !fits(row)).filter(valid).collect()
        }
        Flat::Json => {
            let mut rows = Vec::new();
            for from in (0..array.len()).step_by(AT_ONCE) {
                let part = array.slice(from, AT_ONCE.min(array.len() - from));
                rows.extend(check_json("value", &part)?.1.into_iter().map(|(row, _)| from + row));
            }
            rows
        }
        Flat::Uuid => {
            let texts = array.as_string::<i32>();
            (0..array.len()).filter(valid).filter(|row| !is_uuid(texts.value(*row))).collect()
        }
        _ => Vec::new(),
    })
}

/// Whether a text is as the decoder writes a UUID.
fn is_uuid(text: &str) -> bool {
    let fits = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    };
    text.len() == 36 && text.bytes().enumerate().all(fits)
}
