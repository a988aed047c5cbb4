//! The same decoding in the plainest way, on `serde_json::Value`: what the decoder must agree with.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use firn_shared::config::domain::{Column, JsonPath};
use firn_shared::types::{LogicalType, StructField};
use serde_json::{Map, Value, json};

use super::time;

/// A column at a path such as `a.b`.
pub(super) fn column(name: &str, path: &str, logical: LogicalType, required: bool) -> Column {
    let path = JsonPath(path.split('.').map(str::to_owned).collect());
    Column { name: name.into(), path, r#type: logical, required, format: None, doc: None }
}

pub(super) fn field(name: &str, logical: LogicalType, required: bool) -> StructField {
    StructField { name: name.into(), r#type: logical, required }
}

/// What a payload's row must be, or `None` when it must be refused.
pub(super) fn row(payload: &Value, columns: &[Column]) -> Option<Vec<Value>> {
    if !payload.is_object() {
        return None;
    }
    columns
        .iter()
        .map(|column| {
            let mut value = payload;
            for key in &column.path.0 {
                match value {
                    Value::Object(map) => value = map.get(key).unwrap_or(&Value::Null),
                    Value::Null => {}
                    _ => return None,
                }
            }
            fit(value, &column.r#type, column.required)
        })
        .collect()
}

fn fit(value: &Value, logical: &LogicalType, required: bool) -> Option<Value> {
    if value.is_null() {
        return (!required).then_some(Value::Null);
    }
    match (logical, value) {
        (LogicalType::Boolean, Value::Bool(_)) | (LogicalType::String, Value::String(_)) => Some(value.clone()),
        (LogicalType::Json, any) => Some(any.clone()),
        (LogicalType::Long | LogicalType::Int, Value::Number(_) | Value::String(_)) => {
            let exact = integer(value)?;
            if *logical == LogicalType::Int { i32::try_from(exact).ok().map(|v| json!(v)) } else { Some(json!(exact)) }
        }
        (LogicalType::Double, Value::Number(n)) => n.as_f64().map(|f| json!(f)),
        (LogicalType::Double, Value::String(s)) => {
            serde_json::from_str::<serde_json::Number>(s).ok().filter(|_| bare(s))?.as_f64().map(|f| json!(f))
        }
        (LogicalType::TimestampTz, Value::String(s)) => time::timestamp(s.as_bytes()).map(|t| json!(t)),
        (LogicalType::List(element), Value::Array(values)) => {
            values.iter().map(|v| fit(v, element, false)).collect::<Option<_>>().map(Value::Array)
        }
        (LogicalType::Map(inner), Value::Object(map)) => map
            .iter()
            .map(|(k, v)| fit(v, inner, false).map(|v| (k.clone(), v)))
            .collect::<Option<_>>()
            .map(Value::Object),
        (LogicalType::Struct(fields), Value::Object(map)) => fields
            .iter()
            .map(|f| {
                let inner = map.get(&f.name).unwrap_or(&Value::Null);
                fit(inner, &f.r#type, f.required).map(|v| (f.name.clone(), v))
            })
            .collect::<Option<_>>()
            .map(Value::Object),
        _ => None,
    }
}

fn bare(text: &str) -> bool {
    !text.contains(|c: char| c.is_ascii_whitespace())
}

/// Integers whose texts in these tests are exact as `f64` when they are not integers already.
fn integer(value: &Value) -> Option<i64> {
    let number = match value {
        Value::String(s) => serde_json::from_str::<serde_json::Number>(s).ok().filter(|_| bare(s))?,
        Value::Number(n) => n.clone(),
        _ => return None,
    };
    let float = number.as_f64()?;
    let whole = number.is_f64() && float.fract() == 0.0 && float.abs() < 9e15;
    number.as_i64().or(whole.then_some(float as i64))
}

/// The rows of a batch.
pub(super) fn rows(batch: &RecordBatch) -> Vec<Vec<Value>> {
    (0..batch.num_rows()).map(|i| batch.columns().iter().map(|c| cell(c.as_ref(), i)).collect()).collect()
}

fn cell(array: &dyn Array, at: usize) -> Value {
    if array.is_null(at) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Boolean => json!(array.as_boolean().value(at)),
        DataType::Int32 => json!(array.as_primitive::<Int32Type>().value(at)),
        DataType::Date32 => json!(array.as_primitive::<Date32Type>().value(at)),
        DataType::Time64(_) => json!(array.as_primitive::<Time64MicrosecondType>().value(at)),
        DataType::Int64 => json!(array.as_primitive::<Int64Type>().value(at)),
        DataType::Float64 => json!(array.as_primitive::<Float64Type>().value(at)),
        DataType::Decimal128(..) => json!(array.as_primitive::<Decimal128Type>().value(at).to_string()),
        DataType::Timestamp(..) => json!(array.as_primitive::<TimestampMicrosecondType>().value(at)),
        DataType::Utf8 => json!(array.as_string::<i32>().value(at)),
        DataType::Binary => json!(array.as_binary::<i32>().value(at)),
        DataType::List(_) => {
            let values = array.as_list::<i32>().value(at);
            (0..values.len()).map(|i| cell(values.as_ref(), i)).collect()
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(at);
            let (keys, values) = (entries.column(0).as_string::<i32>(), entries.column(1));
            let map: Map<_, _> = (0..entries.len()).map(|i| (keys.value(i).to_owned(), cell(values, i))).collect();
            assert_eq!(map.len(), entries.len(), "a map has a key twice");
            Value::Object(map)
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            fields.iter().zip(columns).map(|(f, c)| (f.name().clone(), cell(c.as_ref(), at))).collect()
        }
        other => panic!("no test value for {other}"),
    }
}
