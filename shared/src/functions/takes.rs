//! Which types a function takes, and which it gives.

use std::fmt;

use super::Args;
use crate::types::LogicalType;

/// Types that a column may have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Every type.
    Any,
    /// `string`.
    Text,
    /// `string` or `json`.
    JsonText,
    /// `json`.
    Json,
    /// `boolean`.
    Boolean,
    /// `int` or `long`.
    Whole,
    /// Integers, floats and decimals.
    Number,
    /// `int`, `float` or `double`: what a `double` holds exactly.
    Real,
    /// `date`.
    Date,
    /// `date`, `timestamp` or `timestamptz`.
    Calendar,
    /// `timestamp` or `timestamptz`.
    Instant,
    /// `timestamp`.
    Local,
    /// `timestamptz`.
    Zoned,
    /// `string` or `binary`.
    Bytes,
    /// `binary`.
    Binary,
    /// `time`.
    Time,
    /// `uuid`.
    Uuid,
    /// What a decimal of these digits holds exactly: decimals, `int` and `long` of which every value fits.
    Decimal {
        /// Digits in all.
        precision: u8,
        /// Of these behind the point.
        scale: u8,
    },
    /// A list.
    List,
    /// A list of elements of such types.
    ListOf(&'static Takes),
    /// A map.
    Map,
    /// A struct.
    Struct,
    /// A list or a map.
    Container,
    /// A list, a map or a struct.
    Nested,
    /// Everything but lists, maps, structs and JSON.
    Scalar,
}

impl Takes {
    /// Whether a column of this type may be given.
    #[must_use]
    pub fn accepts(self, r#type: &LogicalType) -> bool {
        use LogicalType as L;
        let nested = matches!(r#type, L::List(_) | L::Map(_) | L::Struct(_));
        match self {
            Self::Any => true,
            Self::Text => *r#type == L::String,
            Self::JsonText => matches!(r#type, L::String | L::Json),
            Self::Json => *r#type == L::Json,
            Self::Boolean => *r#type == L::Boolean,
            Self::Whole => matches!(r#type, L::Int | L::Long),
            Self::Number => matches!(r#type, L::Int | L::Long | L::Float | L::Double | L::Decimal { .. }),
            Self::Real => matches!(r#type, L::Int | L::Float | L::Double),
            Self::Date => *r#type == L::Date,
            Self::Calendar => matches!(r#type, L::Date | L::Timestamp | L::TimestampTz),
            Self::Instant => matches!(r#type, L::Timestamp | L::TimestampTz),
            Self::Local => *r#type == L::Timestamp,
            Self::Zoned => *r#type == L::TimestampTz,
            Self::Bytes => matches!(r#type, L::String | L::Binary),
            Self::Binary => *r#type == L::Binary,
            Self::Time => *r#type == L::Time,
            Self::Uuid => *r#type == L::Uuid,
            Self::Decimal { precision, scale } => digits(r#type)
                .is_some_and(|(whole, fraction)| fraction <= scale && whole <= precision.saturating_sub(scale)),
            Self::List => matches!(r#type, L::List(_)),
            Self::ListOf(takes) => matches!(r#type, L::List(element) if takes.accepts(element)),
            Self::Map => matches!(r#type, L::Map(_)),
            Self::Struct => matches!(r#type, L::Struct(_)),
            Self::Container => matches!(r#type, L::List(_) | L::Map(_)),
            Self::Nested => nested,
            Self::Scalar => !nested && *r#type != L::Json,
        }
    }
}

impl fmt::Display for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "any type",
            Self::Text => "string",
            Self::JsonText => "json or string",
            Self::Json => "json",
            Self::Boolean => "boolean",
            Self::Whole => "int or long",
            Self::Number => "int, long, float, double or decimal",
            Self::Real => "int, float or double",
            Self::Date => "date",
            Self::Calendar => "date, timestamp or timestamptz",
            Self::Instant => "timestamp or timestamptz",
            Self::Local => "timestamp",
            Self::Zoned => "timestamptz",
            Self::Bytes => "string or binary",
            Self::Binary => "binary",
            Self::Time => "time",
            Self::Uuid => "uuid",
            Self::Decimal { precision, scale } => {
                return write!(f, "int, long or decimal within decimal({precision},{scale})");
            }
            Self::List => "a list",
            Self::ListOf(takes) => return write!(f, "list<{takes}>"),
            Self::Map => "a map",
            Self::Struct => "a struct",
            Self::Container => "a list or a map",
            Self::Nested => "a list, a map or a struct",
            Self::Scalar => "a type without parts",
        })
    }
}

/// How many digits a number may have before and behind the point; `None` for what is no exact number.
fn digits(r#type: &LogicalType) -> Option<(u8, u8)> {
    match r#type {
        LogicalType::Int => Some((10, 0)),
        LogicalType::Long => Some((19, 0)),
        LogicalType::Decimal { precision, scale } => Some((precision - scale, *scale)),
        _ => None,
    }
}

/// What is wrong with an argument: its name and a message.
pub type Misfit = (&'static str, String);

/// The type of a result.
#[derive(Clone, Copy)]
pub enum Gives {
    /// That of the (first) column read.
    Same,
    /// `boolean`.
    Boolean,
    /// `int`.
    Int,
    /// `long`.
    Long,
    /// `double`.
    Double,
    /// `string`.
    Text,
    /// `list<string>`.
    Texts,
    /// `json`.
    Json,
    /// `binary`.
    Binary,
    /// `date`.
    Date,
    /// `timestamp`.
    Local,
    /// `timestamptz`.
    Zoned,
    /// This type.
    Of(&'static LogicalType),
    /// What an argument says.
    Arg(&'static str),
    /// Computed from the types read and the arguments; the text says it in words.
    With(&'static str, fn(&[LogicalType], &Args) -> Result<LogicalType, Misfit>),
}

impl Gives {
    /// The type for columns of these types.
    ///
    /// # Errors
    /// What is wrong with an argument.
    pub fn of(self, reads: &[LogicalType], args: &Args) -> Result<LogicalType, Misfit> {
        use LogicalType as L;
        Ok(match self {
            Self::Same => reads.first().cloned().unwrap_or(L::String),
            Self::Boolean => L::Boolean,
            Self::Int => L::Int,
            Self::Long => L::Long,
            Self::Double => L::Double,
            Self::Text => L::String,
            Self::Texts => L::List(Box::new(L::String)),
            Self::Json => L::Json,
            Self::Binary => L::Binary,
            Self::Date => L::Date,
            Self::Local => L::Timestamp,
            Self::Zoned => L::TimestampTz,
            Self::Of(r#type) => r#type.clone(),
            Self::Arg(name) => args.opt_type(name).cloned().unwrap_or(L::String),
            Self::With(_, of) => return of(reads, args),
        })
    }

    /// The type, when it hangs on no column: what is known of a result whose input is broken.
    #[must_use]
    pub fn fixed(self, args: &Args) -> Option<LogicalType> {
        match self {
            Self::Same | Self::With(..) => None,
            fixed => fixed.of(&[], args).ok(),
        }
    }
}

impl fmt::Display for Gives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Same => "the same type",
            Self::Boolean => "boolean",
            Self::Int => "int",
            Self::Long => "long",
            Self::Double => "double",
            Self::Text => "string",
            Self::Texts => "list<string>",
            Self::Json => "json",
            Self::Binary => "binary",
            Self::Date => "date",
            Self::Local => "timestamp",
            Self::Zoned => "timestamptz",
            Self::Of(r#type) => return write!(f, "{type}"),
            Self::Arg(name) => return write!(f, "what `{name}` says"),
            Self::With(words, _) => words,
        })
    }
}
