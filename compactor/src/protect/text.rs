//! The canonical text of a value: what is encrypted, and what tokens are made of. It is part of the format: a value has
//! the same text in every release.
//!
//! | type | text |
//! | --- | --- |
//! | string, json, uuid | as it is |
//! | boolean | `true`, `false` |
//! | int, long | decimal digits |
//! | float, double | shortest digits that read back: `1.0`, `0.1`, `1e21` |
//! | decimal(p,s) | all digits of the scale: `12.30` |
//! | date, time | `2026-11-26`, `17:03:04.500` |
//! | timestamp, timestamptz | `2026-11-26T17:03:04.500`, with `Z` for timestamptz |
//! | binary | base64 |
//! | list, map, struct | JSON without blanks; numbers and booleans bare, everything else quoted |

use std::fmt::Write;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, StringArray};
use arrow_schema::DataType;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use firn_shared::error::{Error, Result};

/// Every value's text; null stays null.
pub fn canonical(array: &ArrayRef) -> Result<StringArray> {
    Ok(match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().clone(),
        DataType::Binary => array.as_binary::<i32>().iter().map(|v| v.map(|v| STANDARD.encode(v))).collect(),
        DataType::Struct(_) | DataType::List(_) | DataType::Map(..) => {
            let mut out = String::new();
            let cells = Json::new(array)?;
            let text = |row: usize| {
                array.is_valid(row).then(|| {
                    out.clear();
                    cells.write(row, &mut out);
                    out.clone()
                })
            };
            (0..array.len()).map(text).collect()
        }
        _ => {
            let text = arrow_cast::cast(array, &DataType::Utf8);
            text.map_err(|e| Error::bug(format!("no text of {}", array.data_type())).with_source(e))?
                .as_string::<i32>()
                .clone()
        }
    })
}

/// A nested array that can be written row by row.
enum Json {
    /// Numbers and booleans.
    Bare(StringArray),
    Quoted(StringArray),
    Struct(Arc<dyn Array>, Vec<(String, Json)>),
    List(Arc<dyn Array>, Box<Json>),
    Map(Arc<dyn Array>, StringArray, Box<Json>),
}

impl Json {
    fn new(array: &ArrayRef) -> Result<Self> {
        Ok(match array.data_type() {
            DataType::Struct(fields) => {
                let columns = fields.iter().zip(array.as_struct().columns());
                let columns = columns.map(|(field, array)| Ok((field.name().clone(), Self::new(array)?)));
                Self::Struct(Arc::clone(array), columns.collect::<Result<_>>()?)
            }
            DataType::List(_) => {
                let values = Self::new(array.as_list::<i32>().values())?;
                Self::List(Arc::clone(array), Box::new(values))
            }
            DataType::Map(..) => {
                let map = array.as_map();
                Self::Map(Arc::clone(array), canonical(map.keys())?, Box::new(Self::new(map.values())?))
            }
            DataType::Boolean
            | DataType::Int32
            | DataType::Int64
            | DataType::Float32
            | DataType::Float64
            | DataType::Decimal128(..) => Self::Bare(canonical(array)?),
            _ => Self::Quoted(canonical(array)?),
        })
    }

    fn write(&self, row: usize, out: &mut String) {
        match self {
            Self::Bare(text) if text.is_valid(row) => out.push_str(text.value(row)),
            Self::Quoted(text) if text.is_valid(row) => quote(text.value(row), out),
            Self::Struct(array, fields) if array.is_valid(row) => {
                out.push('{');
                for (i, (name, values)) in fields.iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { "," });
                    quote(name, out);
                    out.push(':');
                    values.write(row, out);
                }
                out.push('}');
            }
            Self::List(array, values) if array.is_valid(row) => {
                let offsets = array.as_list::<i32>().value_offsets();
                out.push('[');
                for (i, at) in (offsets[row]..offsets[row + 1]).enumerate() {
                    out.push_str(if i == 0 { "" } else { "," });
                    values.write(at as usize, out);
                }
                out.push(']');
            }
            Self::Map(array, keys, values) if array.is_valid(row) => {
                let offsets = array.as_map().value_offsets();
                out.push('{');
                for (i, at) in (offsets[row]..offsets[row + 1]).enumerate() {
                    out.push_str(if i == 0 { "" } else { "," });
                    quote(keys.value(at as usize), out);
                    out.push(':');
                    values.write(at as usize, out);
                }
                out.push('}');
            }
            _ => out.push_str("null"),
        }
    }
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                let written = write!(out, "\\u{:04x}", c as u32);
                debug_assert!(written.is_ok(), "writing to a String cannot fail");
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use firn_shared::config::domain::JsonPath;

    use super::*;
    use crate::decode::Decoder;

    /// A value of a type, as the decoder makes it of JSON.
    pub fn array(r#type: &str, json: &str) -> ArrayRef {
        let column = firn_shared::config::domain::Column {
            name: "v".into(),
            path: JsonPath(vec!["v".into()]),
            r#type: r#type.parse().unwrap(),
            required: false,
            format: None,
            doc: None,
        };
        let mut decoder = Decoder::new(&[column]).unwrap();
        decoder.push(format!("{{\"v\":{json}}}").as_bytes()).unwrap();
        Arc::clone(decoder.finish().unwrap().column(0))
    }

    #[test]
    fn every_type_has_its_pinned_text() {
        for (r#type, json, expected) in [
            ("string", r#""Grüße""#, "Grüße"),
            ("json", r#"{ "a": [1] }"#, r#"{ "a": [1] }"#),
            ("uuid", r#""6BA7B810-9DAD-11D1-80B4-00C04FD430C8""#, "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
            ("boolean", "true", "true"),
            ("int", "-7", "-7"),
            ("long", "9223372036854775807", "9223372036854775807"),
            ("float", "0.1", "0.1"),
            ("double", "1", "1.0"),
            ("double", "1e21", "1e21"),
            ("decimal(10,2)", "12.3", "12.30"),
            ("date", r#""2026-11-26""#, "2026-11-26"),
            ("time", r#""17:03:04.5""#, "17:03:04.500"),
            ("timestamp", r#""2026-11-26T17:03:04""#, "2026-11-26T17:03:04"),
            ("timestamptz", r#""2026-11-26T18:03:04.123456+01:00""#, "2026-11-26T17:03:04.123456Z"),
            ("binary", r#""AQID""#, "AQID"),
            ("list<int>", "[1,null]", "[1,null]"),
            ("map<string, double>", r#"{"a\"":0.5}"#, r#"{"a\"":0.5}"#),
            ("struct<a: string, b: list<boolean>>", r#"{"a":"x\n\u0001"}"#, r#"{"a":"x\n\u0001","b":null}"#),
        ] {
            assert_eq!(canonical(&array(r#type, json)).unwrap().value(0), expected, "{type}");
            assert!(canonical(&array(r#type, "null")).unwrap().is_null(0), "{type}");
        }
    }
}
