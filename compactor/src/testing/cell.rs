//! A value of a table as people write it in a test.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, Time64MicrosecondType,
    TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, TimeUnit};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta};
use firn_shared::config::cases::Tree;
use firn_shared::error::{Error, Result};

/// The value at `row`: numbers and booleans as they are, decimals and times as text, binary in base64.
///
/// # Errors
/// `Bug` for a type that no table has.
pub fn cell(array: &dyn Array, row: usize) -> Result<Tree> {
    if array.is_null(row) {
        return Ok(Tree::Null);
    }
    let inner = |values: &ArrayRef| (0..values.len()).map(|i| cell(values.as_ref(), i)).collect::<Result<Vec<_>>>();
    Ok(match array.data_type() {
        DataType::Boolean => Tree::Bool(array.as_boolean().value(row)),
        DataType::Int32 => Tree::Int(i64::from(array.as_primitive::<Int32Type>().value(row))),
        DataType::Int64 => Tree::Int(array.as_primitive::<Int64Type>().value(row)),
        // By its shortest text: 0.1 as float is 0.1, not 0.10000000149.
        DataType::Float32 => float(array.as_primitive::<Float32Type>().value(row).to_string()),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(row).to_string()),
        DataType::Decimal128(..) => Tree::Text(array.as_primitive::<Decimal128Type>().value_as_string(row)),
        DataType::Date32 => Tree::Text(date(array.as_primitive::<Date32Type>().value(row))),
        DataType::Time64(TimeUnit::Microsecond) => {
            Tree::Text(time(array.as_primitive::<Time64MicrosecondType>().value(row)))
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let micros = array.as_primitive::<TimestampMicrosecondType>().value(row);
            Tree::Text(instant(micros, zone.is_some()))
        }
        DataType::Utf8 => Tree::Text(array.as_string::<i32>().value(row).to_owned()),
        DataType::Binary => Tree::Text(STANDARD.encode(array.as_binary::<i32>().value(row))),
        // As Iceberg's binary is read back.
        DataType::LargeBinary => Tree::Text(STANDARD.encode(array.as_binary::<i64>().value(row))),
        DataType::List(_) => Tree::List(inner(&array.as_list::<i32>().value(row))?),
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let (keys, values) = (inner(entries.column(0))?, inner(entries.column(1))?);
            Tree::Map(keys.iter().map(|key| key.bare().unwrap_or_default()).zip(values).collect())
        }
        DataType::Struct(fields) => {
            let columns = fields.iter().zip(array.as_struct().columns());
            let entry = |(field, values): (&arrow_schema::FieldRef, &ArrayRef)| {
                Ok((field.name().clone(), cell(values.as_ref(), row)?))
            };
            Tree::Map(columns.map(entry).collect::<Result<_>>()?)
        }
        other => return Err(Error::bug(format!("a table has a column of type {other}"))),
    })
}

/// What is no number of JSON stays text.
fn float(text: String) -> Tree {
    match text.parse::<f64>() {
        Ok(float) if float.is_finite() => Tree::Float(float),
        _ => Tree::Text(text),
    }
}

fn date(days: i32) -> String {
    let date = NaiveDate::default().checked_add_signed(TimeDelta::days(i64::from(days)));
    date.map_or_else(|| format!("day {days}"), |date| date.to_string())
}

fn time(micros: i64) -> String {
    let of_day = u32::try_from(micros / 1_000_000).ok().zip(u32::try_from(micros % 1_000_000).ok());
    let time = of_day.and_then(|(s, us)| NaiveTime::from_num_seconds_from_midnight_opt(s, us * 1000));
    time.map_or_else(|| format!("microsecond {micros}"), |time| time.format("%H:%M:%S%.f").to_string())
}

fn instant(micros: i64, zoned: bool) -> String {
    let Some(time) = DateTime::from_timestamp_micros(micros) else { return format!("microsecond {micros}") };
    let text = time.format("%Y-%m-%dT%H:%M:%S%.f");
    if zoned { format!("{text}Z") } else { text.to_string() }
}
