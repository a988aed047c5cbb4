//! The smallest and the largest value of a column chunk, as Parquet's footer has them.

use parquet::basic::LogicalType;
use parquet::data_type::ByteArray;
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::schema::types::ColumnDescriptor;

/// Bounds of the values seen so far; `None` when there were none (or only NaN).
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Bounds {
    Boolean(Option<(bool, bool)>),
    Int32(Option<(i32, i32)>),
    Int64(Option<(i64, i64)>),
    Float(Option<(f32, f32)>),
    Double(Option<(f64, f64)>),
    Bytes(Option<(Vec<u8>, Vec<u8>)>),
}

/// Widens `bounds` by `[low, high]`.
pub(super) fn widen<T: PartialOrd + Copy>(bounds: &mut Option<(T, T)>, low: T, high: T) {
    *bounds = Some(match *bounds {
        Some((min, max)) => (if low < min { low } else { min }, if high > max { high } else { max }),
        None => (low, high),
    });
}

/// The same for bytes.
pub(super) fn widen_bytes(bounds: &mut Option<(Vec<u8>, Vec<u8>)>, value: &[u8]) {
    match bounds {
        Some((min, _)) if value < min.as_slice() => value.clone_into(min),
        Some((_, max)) if value > max.as_slice() => value.clone_into(max),
        Some(_) => {}
        None => *bounds = Some((value.to_vec(), value.to_vec())),
    }
}

impl Bounds {
    /// For the footer; texts and bytes are cut to `length`, the maximum so that it stays one.
    pub fn statistics(self, column: &ColumnDescriptor, nulls: u64, length: Option<usize>) -> Statistics {
        let signed = column.sort_order().is_signed();
        macro_rules! plain {
            ($bounds:expr) => {{
                let (min, max) = $bounds.unzip();
                ValueStatistics::new(min, max, None, Some(nulls), false)
                    .with_backwards_compatible_min_max(signed)
                    .into()
            }};
        }
        match self {
            Self::Boolean(bounds) => plain!(bounds),
            Self::Int32(bounds) => plain!(bounds),
            Self::Int64(bounds) => plain!(bounds),
            // Zero has two signs, and a bound must hold for both.
            Self::Float(bounds) => {
                plain!(bounds.map(|(l, h)| (if l == 0.0 { -0.0 } else { l }, if h == 0.0 { 0.0 } else { h })))
            }
            Self::Double(bounds) => {
                plain!(bounds.map(|(l, h)| (if l == 0.0 { -0.0 } else { l }, if h == 0.0 { 0.0 } else { h })))
            }
            Self::Bytes(bounds) => {
                let text = column.logical_type_ref() == Some(&LogicalType::String);
                let (min, max) = bounds.unzip();
                let lower = min.as_ref().and_then(|min| cut(min, length, text));
                let upper = max.as_ref().and_then(|max| above(cut(max, length, text)?, text));
                let exact = (lower.is_none(), upper.is_none());
                let of = |value: Option<Vec<u8>>| value.map(ByteArray::from);
                ValueStatistics::new(of(lower.or(min)), of(upper.or(max)), None, Some(nulls), false)
                    .with_backwards_compatible_min_max(signed)
                    .with_min_is_exact(exact.0)
                    .with_max_is_exact(exact.1)
                    .into()
            }
        }
    }
}

/// A value that is longer, cut to `length` bytes at most; text between characters.
fn cut(value: &[u8], length: Option<usize>, text: bool) -> Option<Vec<u8>> {
    let mut length = length.filter(|length| value.len() > *length)?;
    while text && length > 0 && value[length] & 0xC0 == 0x80 {
        length -= 1;
    }
    (length > 0).then(|| value[..length].to_vec())
}

/// Something of the same form, not longer, that is above everything that begins with `prefix`.
fn above(mut prefix: Vec<u8>, text: bool) -> Option<Vec<u8>> {
    if text {
        let prefix = std::str::from_utf8(&prefix).ok()?;
        return prefix.char_indices().rev().find_map(|(at, last)| {
            let next = char::from_u32(u32::from(last) + 1).filter(|next| next.len_utf8() == last.len_utf8())?;
            Some(format!("{}{next}", &prefix[..at]).into_bytes())
        });
    }
    while let Some(last) = prefix.pop() {
        if let Some(next) = last.checked_add(1) {
            prefix.push(next);
            return Some(prefix);
        }
    }
    None
}
