//! Years, months, days and hours since 1970 of any time that a column can hold, as Iceberg counts them (specification,
//! "Partition Transforms").
//!
//! The crate counts the last second of a day before 1970 into the next one, makes years that its calendar does not reach
//! null, and wraps hours that do not fit.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Int32Type, TimestampMicrosecondType, TimestampNanosecondType,
};
use arrow_array::{Array, ArrayRef, Int32Array};
use arrow_schema::{DataType, TimeUnit};
use chrono::{DateTime, NaiveTime, TimeDelta};
use firn_shared::error::{Error, Result};
use firn_shared::ids::EventHour;
use iceberg::spec::{Literal, PrimitiveLiteral, PrimitiveType, Transform};

/// Microseconds of a day.
const DAY_MICROS: i64 = 86_400_000_000;
/// Days of the 400 years after which the calendar repeats.
const CYCLE_DAYS: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: i64 = 719_468;

/// The partition values of a column of dates or times; `None` for other transforms and columns.
///
/// # Errors
/// `Data` for a time whose hour does not fit the partition value.
pub fn values(transform: Transform, column: &ArrayRef) -> Result<Option<ArrayRef>> {
    let day = match column.data_type() {
        DataType::Date32 if transform == Transform::Hour => return Ok(None),
        DataType::Date32 => 1,
        DataType::Timestamp(TimeUnit::Microsecond, _) => DAY_MICROS,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => DAY_MICROS * 1000,
        _ => return Ok(None),
    };
    if !matches!(transform, Transform::Year | Transform::Month | Transform::Day | Transform::Hour) {
        return Ok(None);
    }
    let value = |at: i64| match transform {
        Transform::Year => fitting(year_and_month(at.div_euclid(day)).0 - 1970),
        Transform::Month => {
            let (year, month) = year_and_month(at.div_euclid(day));
            fitting((year - 1970) * 12 + month)
        }
        Transform::Day => fitting(at.div_euclid(day)),
        _ => fitting(at.div_euclid(day / 24)),
    };
    let values = match column.data_type() {
        DataType::Date32 => of::<Date32Type>(column, value),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => of::<TimestampNanosecondType>(column, value),
        _ => of::<TimestampMicrosecondType>(column, value),
    }?;
    Ok(Some(if transform == Transform::Day {
        Arc::new(values.reinterpret_cast::<Date32Type>())
    } else {
        Arc::new(values)
    }))
}

fn of<T: ArrowPrimitiveType>(column: &ArrayRef, value: impl Fn(i64) -> Result<i32>) -> Result<Int32Array>
where
    T::Native: Into<i64>,
{
    column.as_primitive::<T>().try_unary::<_, Int32Type, _>(|at| value(at.into()))
}

fn fitting(value: i64) -> Result<i32> {
    i32::try_from(value).map_err(|e| Error::data("a time is too far from 1970 for its partition").with_source(e))
}

/// The year, and the month from 0, of a day since 1970, in the proleptic Gregorian calendar.
fn year_and_month(days: i64) -> (i64, i64) {
    // Years begin in March here, so that the leap day is the last one.
    let days = days + EPOCH_DAYS;
    let (cycle, day) = (days.div_euclid(CYCLE_DAYS), days.rem_euclid(CYCLE_DAYS));
    let year = (day - day / 1460 + day / 36_524 - day / (CYCLE_DAYS - 1)) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (into_next, month) = if month < 10 { (0, month + 2) } else { (1, month - 10) };
    (cycle * 400 + year + into_next, month)
}

/// A partition value as people write it; `None` where the type says enough. What no calendar reaches is its bare number.
pub fn text(transform: Transform, r#type: &PrimitiveType, value: &Literal) -> Option<String> {
    let number = match value {
        Literal::Primitive(PrimitiveLiteral::Int(number)) => i64::from(*number),
        Literal::Primitive(PrimitiveLiteral::Long(number)) => *number,
        _ => return None,
    };
    let found = match (transform, r#type) {
        (Transform::Year, _) => Some((1970 + number).to_string()),
        (Transform::Month, _) => Some(format!("{:04}-{:02}", 1970 + number.div_euclid(12), number.rem_euclid(12) + 1)),
        (Transform::Hour, _) => Some(EventHour::from_epoch_hours(number).start().format("%Y-%m-%d-%H").to_string()),
        (_, PrimitiveType::Date) => TimeDelta::try_days(number)
            .and_then(|days| DateTime::UNIX_EPOCH.checked_add_signed(days))
            .map(|date| date.date_naive().to_string()),
        (_, PrimitiveType::Time) => time_of_day(number).map(|time| time.to_string()),
        (_, PrimitiveType::Timestamp) => DateTime::from_timestamp_micros(number).map(|at| at.naive_utc().to_string()),
        (_, PrimitiveType::Timestamptz) => DateTime::from_timestamp_micros(number).map(|at| at.to_string()),
        (_, PrimitiveType::TimestampNs) => Some(DateTime::from_timestamp_nanos(number).naive_utc().to_string()),
        (_, PrimitiveType::TimestamptzNs) => Some(DateTime::from_timestamp_nanos(number).to_string()),
        _ => return None,
    };
    Some(found.unwrap_or_else(|| number.to_string()))
}

fn time_of_day(micros: i64) -> Option<NaiveTime> {
    let (seconds, rest) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    NaiveTime::from_num_seconds_from_midnight_opt(u32::try_from(seconds).ok()?, rest as u32 * 1000)
}

#[cfg(test)]
mod tests {
    use arrow_array::{Date32Array, TimestampMicrosecondArray};
    use chrono::Datelike;
    use proptest::prelude::*;

    use super::*;

    fn micros(transform: Transform, at: i64) -> Result<i32> {
        let column: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![at]).with_timezone("+00:00"));
        let values = values(transform, &column)?.unwrap();
        let values = arrow_cast::cast(&values, &DataType::Int32).unwrap();
        Ok(values.as_primitive::<Int32Type>().value(0))
    }

    proptest! {
        #[test]
        fn years_months_days_and_hours_are_those_of_the_calendar(
            at in prop_oneof![-8_334_600_000_000_000_000..8_210_260_000_000_000_000i64, -DAY_MICROS * 3..DAY_MICROS * 3],
        ) {
            let time = DateTime::from_timestamp_micros(at).unwrap();
            let days = time.date_naive().signed_duration_since(DateTime::UNIX_EPOCH.date_naive()).num_days() as i32;
            prop_assert_eq!(micros(Transform::Year, at).unwrap(), time.year() - 1970);
            prop_assert_eq!(micros(Transform::Month, at).unwrap(), (time.year() - 1970) * 12 + time.month0() as i32);
            prop_assert_eq!(micros(Transform::Day, at).unwrap(), days);
            prop_assert_eq!(micros(Transform::Hour, at).ok(), i32::try_from(time.timestamp().div_euclid(3600)).ok());
            let date: ArrayRef = Arc::new(Date32Array::from(vec![days]));
            let year = values(Transform::Year, &date).unwrap().unwrap();
            prop_assert_eq!(year.as_primitive::<Int32Type>().value(0), time.year() - 1970);
        }
    }

    #[test]
    fn the_last_second_of_a_day_before_1970_is_of_that_day() {
        for (at, expected) in [(-DAY_MICROS - 500_000, -2), (-DAY_MICROS, -1), (-500_000, -1), (-1, -1), (0, 0)] {
            assert_eq!(micros(Transform::Day, at).unwrap(), expected, "{at}");
        }
    }

    #[test]
    fn times_that_no_calendar_reaches_have_partitions_or_are_refused() {
        for at in [i64::MIN, i64::MAX] {
            let days = i32::try_from(at.div_euclid(DAY_MICROS)).unwrap();
            assert_eq!(micros(Transform::Day, at).unwrap(), days);
            assert_eq!(micros(Transform::Year, at).unwrap().signum(), at.signum() as i32);
            assert!(micros(Transform::Hour, at).is_err());
        }
    }

    #[test]
    fn every_value_has_a_text() {
        use PrimitiveType as P;
        let check = |transform, r#type: P, value: Literal, expected: &str| {
            assert_eq!(text(transform, &r#type, &value).as_deref(), Some(expected), "{type} {value:?}");
        };
        check(Transform::Identity, P::Date, Literal::int(20_000), "2024-10-04");
        check(Transform::Day, P::Date, Literal::int(i32::MAX), "2147483647");
        check(Transform::Day, P::Date, Literal::int(i32::MIN), "-2147483648");
        check(Transform::Identity, P::Timestamptz, Literal::long(-1), "1969-12-31 23:59:59.999999 UTC");
        check(Transform::Identity, P::Timestamp, Literal::long(1_500_000), "1970-01-01 00:00:01.500");
        check(Transform::Identity, P::Timestamptz, Literal::long(i64::MAX), "9223372036854775807");
        check(Transform::Identity, P::TimestamptzNs, Literal::long(-1), "1969-12-31 23:59:59.999999999 UTC");
        check(Transform::Identity, P::Time, Literal::long(-1), "-1");
        check(Transform::Year, P::Int, Literal::int(i32::MAX), "2147485617");
        check(Transform::Month, P::Int, Literal::int(-1), "1969-12");
        check(Transform::Hour, P::Int, Literal::int(-1), "1969-12-31-23");
        assert_eq!(text(Transform::Bucket(4), &P::Int, &Literal::int(3)), None);
    }
}
