//! Bytes in JSON: text as a string, anything else as `{"b64":"…"}`, nothing as null.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A key, a header value or a refused payload; serialises as a string, or as `{"b64":"…"}` when it is not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bytes(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Base64<'a> {
    #[serde(borrow)]
    b64: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Wire<'a> {
    Text(String),
    #[serde(borrow)]
    Base64(Base64<'a>),
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Base64 { b64: STANDARD.encode(&self.0).into() }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Wire::deserialize(deserializer)? {
            Wire::Text(text) => Self(text.into_bytes()),
            Wire::Base64(Base64 { b64 }) => Self(STANDARD.decode(b64.as_bytes()).map_err(D::Error::custom)?),
        })
    }
}

/// Appends `bytes` as [`Bytes`] serialises, or `null`.
pub(super) fn push_bytes(line: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| simdutf8::basic::from_utf8(bytes).map_err(|_| bytes)) {
        None => line.extend_from_slice(b"null"),
        Some(Ok(text)) => push_string(line, text),
        Some(Err(bytes)) => {
            line.extend_from_slice(b"{\"b64\":\"");
            let at = line.len();
            line.resize(at + bytes.len().div_ceil(3) * 4, 0);
            let written = STANDARD.encode_slice(bytes, &mut line[at..]).unwrap_or_default();
            line.truncate(at + written);
            line.extend_from_slice(b"\"}");
        }
    }
}

/// Appends a JSON string.
pub(crate) fn push_string(line: &mut Vec<u8>, text: &str) {
    line.push(b'"');
    let bytes = text.as_bytes();
    let mut plain_from = 0;
    for (i, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        line.extend_from_slice(&bytes[plain_from..i]);
        plain_from = i + 1;
        match byte {
            b'"' => line.extend_from_slice(b"\\\""),
            b'\\' => line.extend_from_slice(b"\\\\"),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            b'\t' => line.extend_from_slice(b"\\t"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                line.extend_from_slice(b"\\u00");
                line.push(HEX[usize::from(byte >> 4)]);
                line.push(HEX[usize::from(byte & 15)]);
            }
        }
    }
    line.extend_from_slice(&bytes[plain_from..]);
    line.push(b'"');
}

/// Appends a number.
pub(super) fn push_u64(line: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    line.extend_from_slice(&digits[at..]);
}

/// Appends a number, or `null`.
pub(super) fn push_i64(line: &mut Vec<u8>, number: Option<i64>) {
    let Some(number) = number else { return line.extend_from_slice(b"null") };
    if number < 0 {
        line.push(b'-');
    }
    push_u64(line, number.unsigned_abs());
}
