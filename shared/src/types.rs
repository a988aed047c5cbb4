//! The one set of column types, written in YAML as `long`, `decimal(10,2)`, `list<string>`, `struct<a: long, b: string>`.
//!
//! Mappings to Arrow, Iceberg and Glue live with the compactor, which links them.

use std::fmt;

/// A column type; the names follow the Iceberg specification ("Schemas and Data Types"), plus `json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogicalType {
    /// true or false
    Boolean,
    /// 32-bit signed integer
    Int,
    /// 64-bit signed integer
    Long,
    /// 32-bit IEEE 754
    Float,
    /// 64-bit IEEE 754
    Double,
    /// Exact decimal
    Decimal {
        /// Total digits, 1 to 38.
        precision: u8,
        /// Digits after the point, 0 to `precision`.
        scale: u8,
    },
    /// Calendar date
    Date,
    /// Time of day, microseconds
    Time,
    /// Microseconds without zone
    Timestamp,
    /// Microseconds since the epoch, UTC
    TimestampTz,
    /// UTF-8 text
    String,
    /// 16 bytes, text form in JSON; kept as text in tables because Athena has no `uuid`
    Uuid,
    /// Bytes; base64 in JSON
    Binary,
    /// Any JSON value, kept as its text
    Json,
    /// Ordered elements
    List(Box<LogicalType>),
    /// Text keys to values
    Map(Box<LogicalType>),
    /// Named fields
    Struct(Vec<StructField>),
}

/// A field of a struct type; nullable unless required.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StructField {
    /// The field's name in the table and, unless the mapping says otherwise, in the JSON.
    pub name: String,
    /// Its type.
    pub r#type: LogicalType,
    /// Whether a missing value is refused.
    pub required: bool,
}

impl fmt::Display for LogicalType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("boolean"),
            Self::Int => f.write_str("int"),
            Self::Long => f.write_str("long"),
            Self::Float => f.write_str("float"),
            Self::Double => f.write_str("double"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Self::Date => f.write_str("date"),
            Self::Time => f.write_str("time"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::TimestampTz => f.write_str("timestamptz"),
            Self::String => f.write_str("string"),
            Self::Uuid => f.write_str("uuid"),
            Self::Binary => f.write_str("binary"),
            Self::Json => f.write_str("json"),
            Self::List(element) => write!(f, "list<{element}>"),
            Self::Map(value) => write!(f, "map<string, {value}>"),
            Self::Struct(fields) => {
                f.write_str("struct<")?;
                for (i, field) in fields.iter().enumerate() {
                    let sep = if i == 0 { "" } else { ", " };
                    let not_null = if field.required { " not null" } else { "" };
                    write!(f, "{sep}{}: {}{not_null}", field.name, field.r#type)?;
                }
                f.write_str(">")
            }
        }
    }
}
