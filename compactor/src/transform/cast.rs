//! `cast`: another type for a column, exactly or not at all.
//!
//! Text is read by the decoder, numbers and times are cast by Polars. A Polars cast that is not strict turns what does
//! not fit into null and cuts fractions off; both are found afterwards (new nulls, and a cast back that differs) and
//! reject their rows.

use arrow_array::ArrayRef;
use arrow_schema::DataType;
use firn_shared::config::domain::TimeFormat;
use firn_shared::error::{Error, Result};
use firn_shared::types::LogicalType;
use polars::chunked_array::cast::CastOptions;
use polars::prelude::{self as pl, ChunkCompareEq, Series};

use super::{ffi, new_nulls, text};
use crate::arrow_types::data_type;
use crate::decode::time::YEARS;
use crate::decode::{RejectKind, Rejected};

/// A checked cast.
#[derive(Debug)]
pub struct Cast {
    to: LogicalType,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// Nothing to do but to call it otherwise.
    Same,
    /// Text, by the decoder.
    Text(Option<TimeFormat>),
    /// Text that must be JSON.
    Json,
    /// Number to number, and back to see that nothing was lost.
    Exact,
    /// Between float and double: rounding is what floats do, running out of range is not.
    Float,
    /// Number or boolean to text.
    ToText,
    /// Dates and times among each other, by calendar.
    Calendar,
    /// Time to RFC 3339 text.
    TimeToText,
    /// Number since the epoch, in units of so many microseconds, to a time.
    FromEpoch(i64),
}

impl Cast {
    /// How to get from one type to the other.
    ///
    /// # Errors
    /// `Config` when there is no way that keeps values.
    pub fn new(from: &LogicalType, to: &LogicalType, format: Option<&TimeFormat>) -> Result<Self> {
        use LogicalType as L;
        let number = |t: &L| matches!(t, L::Int | L::Long | L::Float | L::Double | L::Decimal { .. });
        let time = |t: &L| matches!(t, L::Date | L::Timestamp | L::TimestampTz);
        let way = match (from, to) {
            (from, to) if from == to => Way::Same,
            (L::Json | L::Uuid, L::String) => Way::Same,
            (L::String, L::Json) => Way::Json,
            (L::String | L::Json | L::Uuid, L::List(_) | L::Map(_) | L::Struct(_)) => {
                return Err(Error::config(format!("{from} to {to} is what `extract` is for")));
            }
            (L::String, _) => Way::Text(format.cloned()),
            (L::Float, L::Double) | (L::Double, L::Float) => Way::Float,
            (from, to) if number(from) && number(to) => Way::Exact,
            (from, L::String) if number(from) || *from == L::Boolean => Way::ToText,
            (from, L::String) if time(from) => Way::TimeToText,
            (L::Int | L::Long, L::Timestamp | L::TimestampTz) => Way::FromEpoch(match format {
                Some(TimeFormat::EpochSeconds) => 1_000_000,
                Some(TimeFormat::EpochMillis) => 1_000,
                Some(TimeFormat::EpochMicros) => 1,
                _ => {
                    return Err(Error::config(format!(
                        "{from} to {to} needs a format: epochSeconds, epochMillis or epochMicros"
                    )));
                }
            }),
            (from, to) if time(from) && time(to) => Way::Calendar,
            _ => return Err(Error::config(format!("there is no way from {from} to {to}"))),
        };
        if format.is_some() && !matches!(way, Way::Text(_) | Way::FromEpoch(_)) {
            return Err(Error::config(format!("{from} to {to} takes no format")));
        }
        Ok(Self { to: to.clone(), way })
    }

    /// What works on the values.
    pub fn by(&self) -> &'static str {
        match self.way {
            Way::Same => "nothing",
            Way::Text(_) | Way::Json => "decoder",
            Way::Exact | Way::Float | Way::ToText | Way::Calendar => "Polars",
            Way::TimeToText | Way::FromEpoch(_) => "Arrow",
        }
    }

    /// Whether a value may not fit.
    pub fn may_reject(&self) -> bool {
        !matches!(self.way, Way::Same | Way::ToText | Way::TimeToText)
    }

    /// The column in its new type, and the rows that do not fit.
    pub fn apply(&self, name: &str, array: &ArrayRef) -> Result<text::Read> {
        let wanted = data_type(&self.to);
        match &self.way {
            Way::Same => Ok((ArrayRef::clone(array), Vec::new())),
            Way::Text(format) => text::parse(name, array, &self.to, format.as_ref()),
            Way::Json => text::check_json(name, array),
            Way::TimeToText => {
                let cast = arrow_cast::cast(array, &wanted);
                Ok((cast.map_err(|e| Error::bug(format!("cast of `{name}`: {e}")))?, Vec::new()))
            }
            Way::Exact | Way::Float | Way::ToText | Way::Calendar => self.polars(name, array, &wanted),
            Way::FromEpoch(unit) => from_epoch(name, array, *unit, &wanted),
        }
    }

    fn polars(&self, name: &str, array: &ArrayRef, wanted: &DataType) -> Result<text::Read> {
        let before = ffi::to_polars(name, array)?;
        let after = loose(&before, &polars_type(&self.to)?)?;
        let lost = match self.way {
            Way::Exact => differ(&before, &loose(&after, before.dtype())?)?,
            Way::Float => overflown(&before, &after)?,
            _ => Vec::new(),
        };
        let after = ffi::from_polars(&after, wanted)?;
        let fault = |row, reason, detail: &str| {
            let detail = format!("{detail} as {}", self.to);
            (row, Rejected { path: name.to_owned(), reason, detail })
        };
        let out_of_range = new_nulls(array, &after);
        let mut faults: Vec<_> = lost
            .into_iter()
            .filter(|row| out_of_range.binary_search(row).is_err())
            .map(|row| fault(row, RejectKind::Inexact, "value would change"))
            .collect();
        faults.extend(out_of_range.iter().map(|row| fault(*row, RejectKind::OutOfRange, "value does not fit")));
        faults.sort_by_key(|(row, _)| *row);
        Ok((after, faults))
    }
}

fn loose(series: &Series, to: &pl::DataType) -> Result<Series> {
    let cast = series.cast_with_options(to, CastOptions::NonStrict);
    cast.map_err(|e| Error::bug(format!("cast of `{}` to {to} in Polars: {e}", series.name())))
}

/// Rows with a value of which `back` holds another one, or none.
fn differ(values: &Series, back: &Series) -> Result<Vec<usize>> {
    let same = values.equal(back);
    let same = same.map_err(|e| Error::bug(format!("cannot compare `{}` with itself: {e}", values.name())))?;
    let there = values.is_not_null();
    let rows = there.iter().zip(same.iter()).enumerate();
    Ok(rows.filter(|(_, (there, same))| *there == Some(true) && *same != Some(true)).map(|(row, _)| row).collect())
}

/// Rows that were finite and are not any more.
fn overflown(before: &Series, after: &Series) -> Result<Vec<usize>> {
    let finite = |s: &Series| s.is_finite().map_err(|e| Error::bug(format!("`{}` is no float: {e}", s.name())));
    let (before, after) = (finite(before)?, finite(after)?);
    let rows = before.iter().zip(after.iter()).enumerate();
    Ok(rows.filter(|(_, (b, a))| *b == Some(true) && *a == Some(false)).map(|(row, _)| row).collect())
}

fn polars_type(logical: &LogicalType) -> Result<pl::DataType> {
    Ok(match logical {
        LogicalType::Int => pl::DataType::Int32,
        LogicalType::Long => pl::DataType::Int64,
        LogicalType::Float => pl::DataType::Float32,
        LogicalType::Double => pl::DataType::Float64,
        LogicalType::Decimal { precision, scale } => {
            pl::DataType::Decimal(usize::from(*precision), usize::from(*scale))
        }
        LogicalType::String => pl::DataType::String,
        LogicalType::Date => pl::DataType::Date,
        LogicalType::Timestamp => pl::DataType::Datetime(pl::TimeUnit::Microseconds, None),
        LogicalType::TimestampTz => pl::DataType::Datetime(pl::TimeUnit::Microseconds, Some(pl::TimeZone::UTC)),
        other => return Err(Error::bug(format!("Polars is not asked for {other}"))),
    })
}

/// Numbers since the epoch to microseconds; only years 1 to 9999 are times.
fn from_epoch(name: &str, array: &ArrayRef, unit: i64, wanted: &DataType) -> Result<text::Read> {
    let bug = |e: arrow_schema::ArrowError| Error::bug(format!("cast of `{name}`: {e}"));
    let longs = arrow_cast::cast(array, &DataType::Int64).map_err(bug)?;
    let longs = arrow_array::cast::AsArray::as_primitive::<arrow_array::types::Int64Type>(&longs);
    let micros = longs.iter().map(|n| n.and_then(|n| n.checked_mul(unit)).filter(|n| YEARS.contains(n)));
    let micros: ArrayRef = std::sync::Arc::new(micros.collect::<arrow_array::Int64Array>());
    let faults = new_nulls(longs, &micros).into_iter().map(|row| {
        let detail = "value is no time between the years 1 and 9999".to_owned();
        (row, Rejected { path: name.to_owned(), reason: RejectKind::OutOfRange, detail })
    });
    Ok((arrow_cast::cast(&micros, wanted).map_err(bug)?, faults.collect()))
}
