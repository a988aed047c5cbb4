//! Values of Arrow columns as JSON text, in the forms that the decoder reads back.

use std::fmt::{self, Write};

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, Time64MicrosecondType,
    TimestampMicrosecondType,
};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array,
    Int64Array, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, NaiveDate, NaiveTime};
use firn_shared::error::{Error, Result};
use firn_shared::types::LogicalType;

/// Writes the values of one column.
#[derive(Debug)]
pub struct Writer<'a> {
    nulls: Option<NullBuffer>,
    values: Values<'a>,
    exact: bool,
}

#[derive(Debug)]
enum Values<'a> {
    Boolean(&'a BooleanArray),
    Int(&'a Int32Array),
    Long(&'a Int64Array),
    Float(&'a Float32Array),
    Double(&'a Float64Array),
    Decimal(&'a Decimal128Array),
    Date(&'a Date32Array),
    Time(&'a Time64MicrosecondArray),
    Timestamp(&'a TimestampMicrosecondArray, bool),
    Text(&'a StringArray),
    Json(&'a StringArray),
    Binary(&'a BinaryArray),
    List(&'a OffsetBuffer<i32>, Box<Writer<'a>>),
    Map(&'a OffsetBuffer<i32>, &'a StringArray, Box<Writer<'a>>),
    Struct(Vec<(String, Writer<'a>)>),
}

impl<'a> Writer<'a> {
    /// A writer of `array`, which holds values of `logical`.
    ///
    /// # Errors
    /// `Bug` when it holds others.
    pub fn new(logical: &LogicalType, array: &'a ArrayRef) -> Result<Self> {
        Self::with(logical, array, false)
    }

    /// As [`Self::new`], but values that have no form of their own in JSON, infinities and NaN, or the same as null, a null in
    /// `json`, are written in one that is no JSON: different values have different texts.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn exact(logical: &LogicalType, array: &'a ArrayRef) -> Result<Self> {
        Self::with(logical, array, true)
    }

    fn with(logical: &LogicalType, array: &'a ArrayRef, exact: bool) -> Result<Self> {
        let other = || Error::bug(format!("an array of {} is written as {logical}", array.data_type()));
        let values = match logical {
            LogicalType::Boolean => array.as_boolean_opt().map(Values::Boolean),
            LogicalType::Int => array.as_primitive_opt::<Int32Type>().map(Values::Int),
            LogicalType::Long => array.as_primitive_opt::<Int64Type>().map(Values::Long),
            LogicalType::Float => array.as_primitive_opt::<Float32Type>().map(Values::Float),
            LogicalType::Double => array.as_primitive_opt::<Float64Type>().map(Values::Double),
            LogicalType::Decimal { .. } => array.as_primitive_opt::<Decimal128Type>().map(Values::Decimal),
            LogicalType::Date => array.as_primitive_opt::<Date32Type>().map(Values::Date),
            LogicalType::Time => array.as_primitive_opt::<Time64MicrosecondType>().map(Values::Time),
            LogicalType::Timestamp | LogicalType::TimestampTz => {
                let zoned = *logical == LogicalType::TimestampTz;
                array.as_primitive_opt::<TimestampMicrosecondType>().map(|a| Values::Timestamp(a, zoned))
            }
            LogicalType::String | LogicalType::Uuid => array.as_string_opt().map(Values::Text),
            LogicalType::Json => array.as_string_opt().map(Values::Json),
            LogicalType::Binary => array.as_binary_opt().map(Values::Binary),
            LogicalType::List(element) => {
                let list = array.as_list_opt::<i32>().ok_or_else(other)?;
                Some(Values::List(list.offsets(), Box::new(Self::with(element, list.values(), exact)?)))
            }
            LogicalType::Map(value) => {
                let map = array.as_map_opt().ok_or_else(other)?;
                let keys = map.keys().as_string_opt().ok_or_else(other)?;
                Some(Values::Map(map.offsets(), keys, Box::new(Self::with(value, map.values(), exact)?)))
            }
            LogicalType::Struct(fields) => {
                let parts = array.as_struct_opt().ok_or_else(other)?;
                let field = |(field, array): (&firn_shared::types::StructField, &'a ArrayRef)| {
                    Ok((field.name.clone(), Self::with(&field.r#type, array, exact)?))
                };
                Some(Values::Struct(fields.iter().zip(parts.columns()).map(field).collect::<Result<_>>()?))
            }
        };
        Ok(Self { nulls: array.logical_nulls(), values: values.ok_or_else(other)?, exact })
    }

    /// Appends the value of a row.
    ///
    /// # Errors
    /// Those of `out`; text has none.
    pub fn write(&self, row: usize, out: &mut impl Write) -> fmt::Result {
        if self.is_null(row) {
            return out.write_str("null");
        }
        match &self.values {
            Values::Boolean(a) => write!(out, "{}", a.value(row)),
            Values::Int(a) => write!(out, "{}", a.value(row)),
            Values::Long(a) => write!(out, "{}", a.value(row)),
            Values::Float(a) if self.exact && !a.value(row).is_finite() => write!(out, "{}", a.value(row)),
            Values::Double(a) if self.exact && !a.value(row).is_finite() => write!(out, "{}", a.value(row)),
            Values::Json(a) if self.exact && a.value(row).trim() == "null" => write!(out, "json null"),
            Values::Float(a) => float(a.value(row).is_finite(), serde_json::to_string(&a.value(row)), out),
            Values::Double(a) => float(a.value(row).is_finite(), serde_json::to_string(&a.value(row)), out),
            Values::Decimal(a) => write!(out, "{}", a.value_as_string(row)),
            Values::Date(a) => {
                let date = NaiveDate::from_epoch_days(a.value(row)).unwrap_or_default();
                write!(out, "\"{date}\"")
            }
            Values::Time(a) => {
                let micros = a.value(row);
                let (seconds, rest) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
                let time = NaiveTime::from_num_seconds_from_midnight_opt(seconds as u32, rest as u32 * 1_000);
                write!(out, "\"{}\"", time.unwrap_or_default().format("%H:%M:%S%.f"))
            }
            Values::Timestamp(a, zoned) => {
                let at = DateTime::from_timestamp_micros(a.value(row)).unwrap_or_default();
                let at = at.format("%Y-%m-%dT%H:%M:%S%.f");
                write!(out, "\"{at}{}\"", if *zoned { "Z" } else { "" })
            }
            Values::Text(a) => quote(a.value(row), out),
            Values::Json(a) => out.write_str(a.value(row)),
            Values::Binary(a) => write!(out, "\"{}\"", Base64Display::new(a.value(row), &STANDARD)),
            Values::List(offsets, element) => {
                out.write_char('[')?;
                for (i, at) in (offsets[row]..offsets[row + 1]).enumerate() {
                    if i > 0 {
                        out.write_char(',')?;
                    }
                    element.write(at as usize, out)?;
                }
                out.write_char(']')
            }
            Values::Map(offsets, keys, value) => {
                out.write_char('{')?;
                for (i, at) in (offsets[row]..offsets[row + 1]).enumerate() {
                    member(keys.value(at as usize), i == 0, out)?;
                    value.write(at as usize, out)?;
                }
                out.write_char('}')
            }
            Values::Struct(fields) => {
                out.write_char('{')?;
                let there = fields.iter().filter(|(_, field)| !field.is_null(row));
                for (i, (name, field)) in there.enumerate() {
                    member(name, i == 0, out)?;
                    field.write(row, out)?;
                }
                out.write_char('}')
            }
        }
    }

    fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }
}

fn member(name: &str, first: bool, out: &mut impl Write) -> fmt::Result {
    if !first {
        out.write_char(',')?;
    }
    quote(name, out)?;
    out.write_char(':')
}

fn quote(text: &str, out: &mut impl Write) -> fmt::Result {
    out.write_str(&serde_json::to_string(text).map_err(|_| fmt::Error)?)
}

/// JSON has no infinity.
fn float(finite: bool, text: serde_json::Result<String>, out: &mut impl Write) -> fmt::Result {
    match text {
        Ok(text) if finite => out.write_str(&text),
        _ => out.write_str("null"),
    }
}
