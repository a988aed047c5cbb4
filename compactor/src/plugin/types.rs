//! Types of plug-ins as pipelines and Arrow call them.

use arrow_schema::DataType as Arrow;
use firn_shared::functions::Takes;
use firn_shared::types::LogicalType;

use super::world::{DataType, Digits, Flat};
use crate::arrow_types::data_type;

impl DataType {
    /// The type of a column.
    #[must_use]
    pub fn logical(self) -> LogicalType {
        match self {
            Self::Flat(of) => of.logical(),
            Self::List(of) => LogicalType::List(Box::new(of.logical())),
        }
    }

    /// Its type in Arrow.
    #[must_use]
    pub fn arrow(self) -> Arrow {
        data_type(&self.logical())
    }

    /// The type of its values: of rows, or of elements.
    #[must_use]
    pub fn values(self) -> Flat {
        let (Self::Flat(of) | Self::List(of)) = self;
        of
    }

    /// What columns may be given where it is read: those whose every value it holds. What it says lives as long as the
    /// process.
    #[must_use]
    pub fn takes(self) -> Takes {
        match self {
            Self::Flat(of) => of.takes(),
            Self::List(of) => Takes::ListOf(Box::leak(Box::new(of.takes()))),
        }
    }

    /// Whether there is such a type: a plug-in may name any number of digits.
    #[must_use]
    pub fn exists(self) -> bool {
        match self.values() {
            Flat::Decimal(Digits { precision, scale }) => (1..=38).contains(&precision) && scale <= precision,
            _ => true,
        }
    }
}

impl Flat {
    /// The type of its values.
    #[must_use]
    pub fn logical(self) -> LogicalType {
        match self {
            Self::Boolean => LogicalType::Boolean,
            Self::Long => LogicalType::Long,
            Self::Double => LogicalType::Double,
            Self::Text => LogicalType::String,
            Self::Binary => LogicalType::Binary,
            Self::Date => LogicalType::Date,
            Self::Timestamp => LogicalType::Timestamp,
            Self::Timestamptz => LogicalType::TimestampTz,
            Self::Time => LogicalType::Time,
            Self::Decimal(Digits { precision, scale }) => LogicalType::Decimal { precision, scale },
            Self::Json => LogicalType::Json,
            Self::Uuid => LogicalType::Uuid,
        }
    }

    fn takes(self) -> Takes {
        match self {
            Self::Boolean => Takes::Boolean,
            Self::Long => Takes::Whole,
            Self::Double => Takes::Real,
            Self::Text => Takes::Text,
            Self::Binary => Takes::Binary,
            Self::Date => Takes::Date,
            Self::Timestamp => Takes::Local,
            Self::Timestamptz => Takes::Zoned,
            Self::Time => Takes::Time,
            Self::Decimal(Digits { precision, scale }) => Takes::Decimal { precision, scale },
            Self::Json => Takes::Json,
            Self::Uuid => Takes::Uuid,
        }
    }
}
