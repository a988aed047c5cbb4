//! Bytes as text.

use std::fmt::Write;
use std::sync::Arc;

use arrow_array::Array;
use arrow_array::builder::BinaryBuilder;
use arrow_array::cast::AsArray;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use firn_shared::error::Result;

use crate::transform::kernel::{Call, Column, Made, Misfit, Why, Work};
use crate::transform::values::{Rejects, Text, Texts, batch, other, text_bytes, texts};

/// `base64Encode`
pub fn base64_encode(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(each(|bytes, out| {
        // Four digits are of three bytes.
        if out.takes(bytes.len().div_ceil(3) * 4) {
            let _ = write!(out, "{}", base64::display::Base64Display::new(bytes, &STANDARD));
        }
    }))
}

/// `hexEncode`
pub fn hex_encode(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(each(|bytes, out| out.extend(digits(bytes))))
}

/// Lower-case hexadecimal digits of bytes.
pub fn digits(bytes: &[u8]) -> impl Iterator<Item = char> {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
}

/// Text of the bytes of each value, of text or binary.
pub fn each(work: impl Fn(&[u8], &mut Text) + Send + Sync + 'static) -> Work {
    batch(move |batch| {
        let column = batch.column(0)?;
        let mut out = Texts::new(batch, column.name, 0);
        for bytes in bytes(column)? {
            let more = match bytes {
                Some(bytes) => out.push(bytes.len(), |out| {
                    work(bytes, out);
                    Ok(true)
                }),
                None => out.push_null(),
            };
            if !more {
                break;
            }
        }
        Ok(out.finish())
    })
}

/// The bytes of each value, of text or binary.
///
/// # Errors
/// `Bug` for a column of other values.
pub fn bytes<'a>(column: Column<'a>) -> Result<Box<dyn Iterator<Item = Option<&'a [u8]>> + 'a>> {
    if let Some(texts) = column.array.as_string_opt::<i32>() {
        return Ok(Box::new(texts.iter().map(|text| text.map(str::as_bytes))));
    }
    match column.array.as_binary_opt::<i32>() {
        Some(bytes) => Ok(Box::new(bytes.iter())),
        None => Err(other(column, "text or bytes")),
    }
}

fn decode(work: impl Fn(&[u8]) -> Result<Vec<u8>, Why> + Send + Sync + 'static) -> Work {
    batch(move |batch| {
        let column = batch.column(0)?;
        let texts = texts(column)?;
        let mut out = BinaryBuilder::with_capacity(texts.len(), text_bytes(texts));
        let mut rejects = Rejects::new(column.name);
        for (row, text) in texts.iter().enumerate() {
            let decoded = text.and_then(|text| rejects.sieve(row, work(text.as_bytes())));
            out.append_option(decoded);
        }
        Ok(Made { columns: vec![Arc::new(out.finish())], rejects: rejects.found })
    })
}

/// `base64Decode`
pub fn base64_decode(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(decode(|text| STANDARD.decode(text).map_err(|_| Why::form("not base64 of the standard alphabet, padded"))))
}

/// `hexDecode`
pub fn hex_decode(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(decode(|text| {
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        let pair = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?);
        let decoded: Option<Vec<u8>> = text.chunks(2).map(pair).collect();
        decoded.ok_or_else(|| Why::form("not pairs of hexadecimal digits"))
    }))
}
