//! Dates and times, as microseconds since the epoch.

use std::fmt::Write;
use std::sync::Arc;

use arrow_array::types::{Date32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{ArrayRef, Int32Array, Int64Array, PrimitiveArray, cast::AsArray};
use chrono::format::{Item, StrftimeItems};
use chrono::{DateTime, Datelike, Months, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone, Timelike};
use chrono_tz::Tz;
use firn_shared::config::domain::TimeFormat;
use firn_shared::error::Result;
use firn_shared::functions::{Function, time as spec};
use firn_shared::types::LogicalType;

use crate::arrow_types::data_type;
use crate::decode::time::YEARS;
use crate::transform::kernel::{Batch, Build, Call, Column, Made, Misfit, Why, Work, broken};
use crate::transform::values::{Rejects, Texts, batch, column, longs, other};

/// This family.
pub const TABLE: &[(&Function, Build)] = &[
    (&spec::TRUNCATE, truncate),
    (&spec::PART, part),
    (&spec::FORMAT, format),
    (&spec::TO_ZONE, to_zone),
    (&spec::FROM_ZONE, from_zone),
    (&spec::TO_EPOCH, to_epoch),
    (&spec::FROM_EPOCH, from_epoch),
    (&spec::SHIFT, shift),
    (&spec::DIFFERENCE, difference),
    (&spec::AGE, age),
];

const DAY: i64 = 86_400_000_000;

/// The values of a column of dates or times, in microseconds since the epoch.
fn micros(column: Column<'_>) -> Result<Int64Array> {
    if let Some(days) = column.array.as_primitive_opt::<Date32Type>() {
        return Ok(days.unary(|days| i64::from(days) * DAY));
    }
    match column.array.as_primitive_opt::<TimestampMicrosecondType>() {
        Some(times) => Ok(times.reinterpret_cast::<Int64Type>()),
        None => Err(other(column, "dates or times")),
    }
}

/// Dates or times out of the values of a column, of the type that the step was planned to make.
fn times(
    call: &Call<'_>,
    read: impl Fn(Column<'_>) -> Result<Int64Array> + Send + Sync + 'static,
    work: impl Fn(i64) -> Result<i64, Why> + Send + Sync + 'static,
) -> Result<Work, Misfit> {
    let to = call.to().map_err(broken)?.clone();
    Ok(batch(move |batch| {
        let column = batch.column(0)?;
        let mut rejects = Rejects::new(column.name);
        let values = read(column)?;
        let values = values.iter().enumerate().map(|(row, v)| v.and_then(|v| rejects.sieve(row, work(v))));
        let made: ArrayRef = match &to {
            LogicalType::Date => {
                let days = values.map(|micros| micros.map(|micros| micros.div_euclid(DAY) as i32));
                Arc::new(days.collect::<PrimitiveArray<Date32Type>>())
            }
            to => {
                let times = values.collect::<PrimitiveArray<TimestampMicrosecondType>>();
                Arc::new(times.with_data_type(data_type(to)))
            }
        };
        Ok(Made { columns: vec![made], rejects: rejects.found })
    }))
}

/// Date and time on the calendar. Every time that reaches a step is between the years 1 and 9999: the decoder, casts and
/// expressions, functions of others and those below see to it, each where it makes one.
fn civil(micros: i64) -> NaiveDateTime {
    DateTime::from_timestamp_micros(micros).unwrap_or_default().naive_utc()
}

fn in_years(micros: Option<i64>) -> Result<i64, Why> {
    micros.filter(|micros| YEARS.contains(micros)).ok_or_else(|| Why::range("beyond the years 1 to 9999"))
}

/// A unit of fixed length, in microseconds.
fn unit(name: &str) -> Option<i64> {
    Some(match name {
        "microsecond" | "micros" => 1,
        "millisecond" | "millis" => 1_000,
        "second" | "seconds" => 1_000_000,
        "minute" => 60_000_000,
        "hour" => 3_600_000_000,
        "day" | "days" => DAY,
        "week" => 7 * DAY,
        _ => return None,
    })
}

fn truncate(call: &Call<'_>) -> Result<Work, Misfit> {
    let to = call.args.text("to").map_err(broken)?.to_owned();
    let months: Option<u32> = match to.as_str() {
        "month" => Some(1),
        "quarter" => Some(3),
        "year" => Some(12),
        _ => None,
    };
    // 1970-01-01 was a Thursday, three days behind a Monday.
    let (length, behind) = (unit(&to).unwrap_or(DAY), if to == "week" { 3 * DAY } else { 0 });
    times(call, micros, move |micros| {
        let Some(months) = months else { return Ok(micros - (micros + behind).rem_euclid(length)) };
        let date = civil(micros).date();
        let first = NaiveDate::from_ymd_opt(date.year(), date.month0() / months * months + 1, 1);
        Ok(first.unwrap_or(date).and_time(NaiveTime::MIN).and_utc().timestamp_micros())
    })
}

fn part(call: &Call<'_>) -> Result<Work, Misfit> {
    let of: fn(&NaiveDateTime) -> u32 = match call.args.text("part").map_err(broken)? {
        "year" => |at| at.year().unsigned_abs(),
        "quarter" => |at| at.month0() / 3 + 1,
        "month" => |at| at.month(),
        "week" => |at| at.iso_week().week(),
        "day" => |at| at.day(),
        "dayOfYear" => |at| at.ordinal(),
        "weekday" => |at| at.weekday().number_from_monday(),
        "hour" => |at| at.hour(),
        "minute" => |at| at.minute(),
        "second" => |at| at.second(),
        _ => |at| at.nanosecond() / 1_000,
    };
    Ok(column(move |column| {
        let parts = micros(column)?;
        let parts = parts.iter().map(|micros| micros.map(|micros| of(&civil(micros)) as i32));
        Ok(Arc::new(parts.collect::<Int32Array>()))
    }))
}

fn zone(call: &Call<'_>) -> Result<Option<Tz>, Misfit> {
    let Some(name) = call.args.opt_text("zone") else { return Ok(None) };
    let parsed = name.parse::<Tz>().map(Some);
    parsed.map_err(|_| {
        ("zone", format!("no zone `{name}`; names are those of the IANA data base, such as `Europe/Berlin`"))
    })
}

fn format(call: &Call<'_>) -> Result<Work, Misfit> {
    let zoned = *call.from().map_err(broken)? == LogicalType::TimestampTz;
    let zone = zone(call)?;
    if zone.is_some() && !zoned {
        return Err(("zone", "is for timestamptz; a column without zone shows what it shows".to_owned()));
    }
    let zone = zone.unwrap_or(Tz::UTC);
    let pattern = match call.args.opt_time_format("pattern") {
        Some(TimeFormat::Strftime(pattern)) => pattern.clone(),
        Some(TimeFormat::Rfc3339) if zoned => "%Y-%m-%dT%H:%M:%S%.f%:z".to_owned(),
        Some(TimeFormat::Rfc3339) => "%Y-%m-%dT%H:%M:%S%.f".to_owned(),
        _ => return Err(("pattern", "must be a strftime pattern or `rfc3339`; `toEpoch` gives numbers".to_owned())),
    };
    let items: Vec<Item<'static>> = StrftimeItems::new(&pattern).map(Item::to_owned).collect();
    let write = move |micros: i64, out: &mut dyn Write| {
        if zoned {
            write!(out, "{}", zone.from_utc_datetime(&civil(micros)).format_with_items(items.iter()))
        } else {
            write!(out, "{}", civil(micros).format_with_items(items.iter()))
        }
    };
    if write(0, &mut String::new()).is_err() {
        return Err(("pattern", format!("`{pattern}` asks for an offset, which a column without zone does not have")));
    }
    Ok(batch(move |batch| {
        let column = batch.column(0)?;
        let mut out = Texts::new(batch, column.name, batch.rows * pattern.len());
        for micros in &micros(column)? {
            let more = match micros {
                // It was tried above. The text is about as long as its pattern.
                Some(micros) => out.push(usize::MAX, |out| Ok(write(micros, out).is_ok())),
                None => out.push_null(),
            };
            if !more {
                break;
            }
        }
        Ok(out.finish())
    }))
}

fn to_zone(call: &Call<'_>) -> Result<Work, Misfit> {
    let zone = zone(call)?.unwrap_or(Tz::UTC);
    times(call, micros, move |micros| {
        let east = zone.offset_from_utc_datetime(&civil(micros)).fix().local_minus_utc();
        in_years(Some(micros + i64::from(east) * 1_000_000))
    })
}

fn from_zone(call: &Call<'_>) -> Result<Work, Misfit> {
    let zone = zone(call)?.unwrap_or(Tz::UTC);
    let twice = call.args.text("twice").map_err(broken)?.to_owned();
    times(call, micros, move |micros| {
        let offset = match zone.offset_from_local_datetime(&civil(micros)) {
            chrono::LocalResult::Single(one) => one,
            chrono::LocalResult::Ambiguous(earlier, _) if twice == "earlier" => earlier,
            chrono::LocalResult::Ambiguous(_, later) if twice == "later" => later,
            chrono::LocalResult::Ambiguous(..) => return Err(Why::form("clocks of the zone showed this twice")),
            chrono::LocalResult::None => return Err(Why::form("clocks of the zone never showed this")),
        };
        in_years(Some(micros - i64::from(offset.fix().local_minus_utc()) * 1_000_000))
    })
}

fn to_epoch(call: &Call<'_>) -> Result<Work, Misfit> {
    let length = unit(call.args.text("unit").map_err(broken)?).unwrap_or(1);
    Ok(column(move |column| {
        let units: Int64Array = micros(column)?.unary(|micros| micros.div_euclid(length));
        Ok(Arc::new(units))
    }))
}

fn from_epoch(call: &Call<'_>) -> Result<Work, Misfit> {
    let nanos = call.args.opt_text("unit") == Some("nanos");
    let length = unit(call.args.text("unit").map_err(broken)?).unwrap_or(1);
    times(call, longs, move |number| {
        in_years(if nanos { Some(number.div_euclid(1_000)) } else { number.checked_mul(length) })
    })
}

fn shift(call: &Call<'_>) -> Result<Work, Misfit> {
    let (by, name) = (call.args.int("by").map_err(broken)?, call.args.text("unit").map_err(broken)?.to_owned());
    let months = match name.as_str() {
        "month" => Some(by),
        "year" => Some(by * 12),
        _ => None,
    };
    let length = unit(&name).unwrap_or(DAY);
    if *call.from().map_err(broken)? == LogicalType::Date && months.is_none() && length < DAY {
        return Err(("unit", format!("a date has no {name}s; cast it to timestamp first")));
    }
    times(call, micros, move |micros| {
        let Some(months) = months else {
            return in_years(by.checked_mul(length).and_then(|by| micros.checked_add(by)));
        };
        let count = Months::new(u32::try_from(months.unsigned_abs()).unwrap_or(u32::MAX));
        let at = civil(micros);
        let moved = if months < 0 { at.checked_sub_months(count) } else { at.checked_add_months(count) };
        in_years(moved.map(|moved| moved.and_utc().timestamp_micros()))
    })
}

/// Two columns of a batch, value by value.
fn pairs<V>(batch: &Batch<'_>, work: impl Fn(i64, i64) -> V) -> Result<Vec<Option<V>>> {
    let (one, two) = (micros(batch.column(0)?)?, micros(batch.column(1)?)?);
    Ok(one.iter().zip(&two).map(|(one, two)| Some(work(one?, two?))).collect())
}

fn difference(call: &Call<'_>) -> Result<Work, Misfit> {
    let length = unit(call.args.text("unit").map_err(broken)?).unwrap_or(1);
    Ok(batch(move |batch| {
        let units = pairs(batch, |from, to| (to - from).div_euclid(length))?;
        Ok(Made::one(Arc::new(units.into_iter().collect::<Int64Array>())))
    }))
}

fn age(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(batch(|batch| {
        let years = pairs(batch, |born, at| {
            let (born, at) = (civil(born).date(), civil(at).date());
            let before_birthday = (at.month(), at.day()) < (born.month(), born.day());
            at.year() - born.year() - i32::from(before_birthday)
        })?;
        Ok(Made::one(Arc::new(years.into_iter().collect::<Int32Array>())))
    }))
}
