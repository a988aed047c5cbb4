//! The one set of column types, written in YAML as `long`, `decimal(10,2)`, `list<string>`, `struct<a: long, b: string>`.
//!
//! `Display` and `FromStr` are the only code that knows the grammar; serde uses the same text. Blanks are free between
//! words; a field name with other characters than letters, digits and `_` stands in backticks (doubled inside).
//!
//! Mappings to Arrow, Iceberg and Glue live with the compactor, which links them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::cursor::{Cursor, did_you_mean};
use crate::error::{Error, Result};

/// Types may be nested this deep; more is a mistake, not a schema.
const DEPTH_MAX: usize = 32;

/// A column type; the names follow the Iceberg specification ("Schemas and Data Types"), plus `json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
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
                    write!(f, "{sep}{}: {}{not_null}", FieldName(&field.name), field.r#type)?;
                }
                f.write_str(">")
            }
        }
    }
}

/// A field name as it is written in a type: bare, or in backticks.
struct FieldName<'a>(&'a str);

impl fmt::Display for FieldName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name) = self;
        if !name.is_empty() && name.chars().all(is_bare) {
            f.write_str(name)
        } else {
            write!(f, "`{}`", name.replace('`', "``"))
        }
    }
}

fn is_bare(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Type names without arguments; other names for the same thing are refused with the name to use.
const SIMPLE: &[(&str, LogicalType)] = &[
    ("boolean", LogicalType::Boolean),
    ("int", LogicalType::Int),
    ("long", LogicalType::Long),
    ("float", LogicalType::Float),
    ("double", LogicalType::Double),
    ("date", LogicalType::Date),
    ("time", LogicalType::Time),
    ("timestamp", LogicalType::Timestamp),
    ("timestamptz", LogicalType::TimestampTz),
    ("string", LogicalType::String),
    ("uuid", LogicalType::Uuid),
    ("binary", LogicalType::Binary),
    ("json", LogicalType::Json),
];
/// Type names with arguments.
const COMPOUND: &[&str] = &["decimal", "list", "map", "struct"];
/// What people coming from other systems write, and what it is called here.
const ALIASES: &[(&str, &str)] = &[
    ("bool", "boolean"),
    ("integer", "int"),
    ("int32", "int"),
    ("bigint", "long"),
    ("int64", "long"),
    ("float32", "float"),
    ("float64", "double"),
    ("number", "decimal(precision,scale)"),
    ("numeric", "decimal(precision,scale)"),
    ("varchar", "string"),
    ("text", "string"),
    ("str", "string"),
    ("datetime", "timestamptz"),
    ("bytes", "binary"),
    ("array", "list<element>"),
    ("row", "struct<name: type>"),
    ("object", "struct<name: type>"),
];

impl FromStr for LogicalType {
    type Err = Error;

    /// Reads what `Display` writes.
    ///
    /// # Errors
    /// `Config`, with the text, what was expected and at which character.
    fn from_str(text: &str) -> Result<Self> {
        let mut cursor = Cursor::new("type", text);
        let found = read_type(&mut cursor, 0)?;
        cursor.end()?;
        Ok(found)
    }
}
impl TryFrom<String> for LogicalType {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<LogicalType> for String {
    fn from(r#type: LogicalType) -> Self {
        r#type.to_string()
    }
}

fn read_type(cursor: &mut Cursor<'_>, depth: usize) -> Result<LogicalType> {
    cursor.blanks();
    if depth > DEPTH_MAX {
        return Err(cursor.error(&format!("nested deeper than {DEPTH_MAX}")));
    }
    let start = cursor.position();
    let word = cursor.take_while(is_bare);
    if let Some((_, simple)) = SIMPLE.iter().find(|(name, _)| *name == word) {
        return Ok(simple.clone());
    }
    match word {
        "decimal" => read_decimal(cursor),
        "list" => {
            cursor.expect("<")?;
            let element = read_type(cursor, depth + 1)?;
            cursor.expect(">")?;
            Ok(LogicalType::List(Box::new(element)))
        }
        "map" => {
            cursor.expect("<")?;
            cursor.blanks();
            if !cursor.eat("string") {
                return Err(cursor.expected("`string` (keys of JSON objects are text)"));
            }
            cursor.expect(",")?;
            let value = read_type(cursor, depth + 1)?;
            cursor.expect(">")?;
            Ok(LogicalType::Map(Box::new(value)))
        }
        "struct" => read_struct(cursor, depth),
        "" => Err(cursor.expected("a type")),
        _ => {
            cursor.back_to(start);
            let hint = match ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(word)) {
                Some((_, name)) => format!("; write `{name}`"),
                None => did_you_mean(word, SIMPLE.iter().map(|(name, _)| *name).chain(COMPOUND.iter().copied())),
            };
            Err(Error::config(format!("{}{hint}", cursor.error(&format!("no type `{word}`")))))
        }
    }
}

fn read_decimal(cursor: &mut Cursor<'_>) -> Result<LogicalType> {
    cursor.expect("(")?;
    cursor.blanks();
    let start = cursor.position();
    let precision = cursor.number()?;
    if !(1..=38).contains(&precision) {
        cursor.back_to(start);
        return Err(cursor.error(&format!("precision {precision} is not between 1 and 38")));
    }
    cursor.expect(",")?;
    cursor.blanks();
    let start = cursor.position();
    let scale = cursor.number()?;
    if scale > precision {
        cursor.back_to(start);
        return Err(cursor.error(&format!("scale {scale} is above the precision {precision}")));
    }
    cursor.expect(")")?;
    Ok(LogicalType::Decimal { precision: precision as u8, scale: scale as u8 })
}

fn read_struct(cursor: &mut Cursor<'_>, depth: usize) -> Result<LogicalType> {
    cursor.expect("<")?;
    let mut fields: Vec<StructField> = Vec::new();
    loop {
        cursor.blanks();
        let start = cursor.position();
        let name = read_field_name(cursor)?;
        if fields.iter().any(|field| field.name == name) {
            cursor.back_to(start);
            return Err(cursor.error(&format!("field `{name}` comes twice")));
        }
        cursor.expect(":")?;
        let r#type = read_type(cursor, depth + 1)?;
        cursor.blanks();
        let required = cursor.eat("not");
        if required {
            cursor.expect("null")?;
            cursor.blanks();
        }
        fields.push(StructField { name, r#type, required });
        if cursor.eat(">") {
            return Ok(LogicalType::Struct(fields));
        }
        if !cursor.eat(",") {
            return Err(cursor.expected("`,` or `>`"));
        }
    }
}

fn read_field_name(cursor: &mut Cursor<'_>) -> Result<String> {
    if !cursor.eat("`") {
        let name = cursor.take_while(is_bare);
        return if name.is_empty() { Err(cursor.expected("a field name")) } else { Ok(name.to_owned()) };
    }
    let mut name = String::new();
    loop {
        match cursor.next() {
            Some('`') if !cursor.eat("`") => return Ok(name),
            Some(c) => name.push(c),
            None => return Err(cursor.expected("a closing backtick")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_type() -> impl Strategy<Value = LogicalType> {
        let decimal = (1u8..=38).prop_flat_map(|precision| {
            (0..=precision).prop_map(move |scale| LogicalType::Decimal { precision, scale })
        });
        let simple = prop::sample::select(SIMPLE.iter().map(|(_, simple)| simple.clone()).collect::<Vec<_>>());
        prop_oneof![4 => simple, 1 => decimal].prop_recursive(4, 24, 4, |inner| {
            let field = |inner: BoxedStrategy<LogicalType>| (inner, any::<bool>());
            prop_oneof![
                inner.clone().prop_map(|element| LogicalType::List(Box::new(element))),
                inner.clone().prop_map(|value| LogicalType::Map(Box::new(value))),
                prop::collection::btree_map(".{0,6}", field(inner.boxed()), 1..4).prop_map(|fields| {
                    let field = |(name, (r#type, required))| StructField { name, r#type, required };
                    LogicalType::Struct(fields.into_iter().map(field).collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn type_reads_back_as_written(written in any_type()) {
            prop_assert_eq!(&written.to_string().parse::<LogicalType>().unwrap(), &written);
            let json = serde_json::to_string(&written).unwrap();
            prop_assert_eq!(serde_json::from_str::<LogicalType>(&json).unwrap(), written);
        }

        #[test]
        fn any_text_is_a_type_or_an_error(text in "[a-z<>(),:` 0-9]{0,40}") {
            if let Ok(read) = text.parse::<LogicalType>() {
                prop_assert_eq!(read.to_string().parse::<LogicalType>().unwrap(), read);
            }
        }
    }

    #[test]
    fn blanks_are_free() {
        let read = |text: &str| text.parse::<LogicalType>().unwrap().to_string();
        assert_eq!(read(" map < string ,long > "), "map<string, long>");
        assert_eq!(
            read("struct<a:long not  null,`b.c`:list<decimal( 10 , 2 )>>"),
            "struct<a: long not null, `b.c`: list<decimal(10,2)>>"
        );
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let errors: Vec<String> = [
            "",
            "strin",
            "bigint",
            "decimal",
            "decimal(39,0)",
            "decimal(5,6)",
            "list<",
            "list<long",
            "map<long, long>",
            "struct<>",
            "struct<a long>",
            "struct<a: long, a: int>",
            "struct<a: long; b: int>",
            "struct<`a: long>",
            "long long",
        ]
        .iter()
        .map(|text| text.parse::<LogicalType>().unwrap_err().to_string())
        .chain(["list<".repeat(100_000).parse::<LogicalType>().unwrap_err().to_string()])
        .collect();
        insta::assert_snapshot!(errors.join("\n"), @r#"
        type ``: expected a type, but the text ends at character 1
        type `strin`: no type `strin` at character 1; did you mean `string`?
        type `bigint`: no type `bigint` at character 1; write `long`
        type `decimal`: expected `(`, but the text ends at character 8
        type `decimal(39,0)`: precision 39 is not between 1 and 38 at character 9
        type `decimal(5,6)`: scale 6 is above the precision 5 at character 11
        type `list<`: expected a type, but the text ends at character 6
        type `list<long`: expected `>`, but the text ends at character 10
        type `map<long, long>`: expected `string` (keys of JSON objects are text), found `l` at character 5
        type `struct<>`: expected a field name, found `>` at character 8
        type `struct<a long>`: expected `:`, found `l` at character 10
        type `struct<a: long, a: int>`: field `a` comes twice at character 17
        type `struct<a: long; b: int>`: expected `,` or `>`, found `;` at character 15
        type `struct<`a: long>`: expected a closing backtick, but the text ends at character 17
        type `long long`: expected the end, found `l` at character 6
        type `list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<…`: nested deeper than 32 at character 166
        "#);
    }
}
