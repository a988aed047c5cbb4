//! [`LogicalType`] to Arrow, in the shapes that the Iceberg writer takes: `Utf8` (not large, not view), UTC as `+00:00`,
//! microseconds everywhere, `element` and `key_value` as the names inside lists and maps.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, TimeUnit};
use firn_shared::types::{LogicalType, StructField};

/// The zone of every `timestamptz`, spelled as Iceberg's Arrow mapping spells it.
pub const UTC: &str = "+00:00";
/// The name of a list's element field.
pub const LIST_ELEMENT: &str = "element";
/// The name of a map's entries field.
pub const MAP_ENTRIES: &str = "key_value";

/// The Arrow type of a logical type.
#[must_use]
pub fn data_type(logical: &LogicalType) -> DataType {
    match logical {
        LogicalType::Boolean => DataType::Boolean,
        LogicalType::Int => DataType::Int32,
        LogicalType::Long => DataType::Int64,
        LogicalType::Float => DataType::Float32,
        LogicalType::Double => DataType::Float64,
        LogicalType::Decimal { precision, scale } => DataType::Decimal128(*precision, *scale as i8),
        LogicalType::Date => DataType::Date32,
        LogicalType::Time => DataType::Time64(TimeUnit::Microsecond),
        LogicalType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        LogicalType::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
        LogicalType::String | LogicalType::Uuid | LogicalType::Json => DataType::Utf8,
        LogicalType::Binary => DataType::Binary,
        LogicalType::List(element) => DataType::List(Arc::new(element_field(element))),
        LogicalType::Map(value) => DataType::Map(Arc::new(entries_field(value)), false),
        LogicalType::Struct(fields) => DataType::Struct(struct_fields(fields)),
    }
}

/// The field of a list's elements; elements may be null.
#[must_use]
pub fn element_field(element: &LogicalType) -> Field {
    Field::new(LIST_ELEMENT, data_type(element), true)
}

/// The key and value fields of a map; values may be null.
#[must_use]
pub fn entry_fields(value: &LogicalType) -> Fields {
    vec![Field::new("key", DataType::Utf8, false), Field::new("value", data_type(value), true)].into()
}

/// The entries field of a map.
#[must_use]
pub fn entries_field(value: &LogicalType) -> Field {
    Field::new(MAP_ENTRIES, DataType::Struct(entry_fields(value)), false)
}

/// The fields of a struct, nullable unless required.
#[must_use]
pub fn struct_fields(fields: &[StructField]) -> Fields {
    fields.iter().map(|f| Field::new(&f.name, data_type(&f.r#type), !f.required)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_types_use_the_names_of_the_iceberg_mapping() {
        let fields = vec![StructField { name: "a".into(), r#type: LogicalType::TimestampTz, required: true }];
        let logical = LogicalType::List(Box::new(LogicalType::Map(Box::new(LogicalType::Struct(fields)))));
        let text = format!("{:?}", data_type(&logical));
        for part in ["element", "key_value", "\"key\"", "\"value\"", "+00:00"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
