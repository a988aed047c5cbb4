//! From one type to another.

use arrow_array::Array;
use arrow_array::types::{Date32Type, Decimal128Type, TimestampMicrosecondType};
use firn_shared::config::domain::TimeFormat;
use firn_shared::error::Result;
use firn_shared::functions::{Function, types};
use firn_shared::types::LogicalType;

use crate::decode::time;
use crate::transform::cast::Cast;
use crate::transform::kernel::{Batch, Build, Call, Kernel, Made, Misfit, Why, Work, broken};
use crate::transform::values::{Rejects, batch, text_to, texts};

/// This family.
pub const TABLE: &[(&Function, Build)] = &[
    (&types::CAST, cast),
    (&types::PARSE_TIMESTAMP, parse_timestamp),
    (&types::PARSE_DATE, parse_date),
    (&types::PARSE_DECIMAL, parse_decimal),
    (&types::PARSE_BOOLEAN, parse_boolean),
];

fn cast(call: &Call<'_>) -> Result<Work, Misfit> {
    let (from, to) = (call.from().map_err(broken)?, call.to().map_err(broken)?);
    let cast = Cast::new(from, to, call.args.opt_time_format("format")).map_err(|e| ("to", e.to_string()))?;
    Ok(Work::Make(Box::new(cast)))
}

impl Kernel for Cast {
    fn engine(&self) -> &'static str {
        self.by()
    }

    fn can_reject(&self) -> bool {
        self.may_reject()
    }

    fn call(&self, batch: &Batch<'_>) -> Result<Made> {
        let column = batch.column(0)?;
        let (array, rejects) = self.apply(column.name, column.array)?;
        Ok(Made { columns: vec![array], rejects })
    }
}

fn formats(call: &Call<'_>) -> Result<Vec<TimeFormat>, Misfit> {
    let formats = call.args.texts("formats").iter().map(|text| text.parse::<TimeFormat>());
    formats.collect::<Result<_>>().map_err(|e| ("formats", e.to_string()))
}

fn parse_timestamp(call: &Call<'_>) -> Result<Work, Misfit> {
    let formats = formats(call)?;
    text_to::<TimestampMicrosecondType>(call, move |text| {
        let found = formats.iter().find_map(|format| micros(text, format));
        found.map(Some).ok_or_else(|| Why::form("none of the forms fits"))
    })
}

/// Microseconds since the epoch, by one form.
fn micros(text: &str, format: &TimeFormat) -> Option<i64> {
    let count = |unit: i64| text.parse::<i64>().ok()?.checked_mul(unit).filter(|micros| time::YEARS.contains(micros));
    match format {
        TimeFormat::Rfc3339 => time::timestamp(text.as_bytes()),
        TimeFormat::EpochSeconds => count(1_000_000),
        TimeFormat::EpochMillis => count(1_000),
        TimeFormat::EpochMicros => count(1),
        TimeFormat::EpochNanos => text.parse::<i64>().ok().map(|nanos| nanos.div_euclid(1_000)),
        TimeFormat::EpochDays => count(86_400_000_000),
        TimeFormat::Strftime(pattern) => time::timestamp_by(text, pattern),
    }
}

fn parse_date(call: &Call<'_>) -> Result<Work, Misfit> {
    let formats = formats(call)?;
    text_to::<Date32Type>(call, move |text| {
        let by = |format: &TimeFormat| match format {
            TimeFormat::Strftime(pattern) => time::date_by(text, pattern),
            other => i32::try_from(micros(text, other)?.div_euclid(86_400_000_000)).ok(),
        };
        formats.iter().find_map(by).map(Some).ok_or_else(|| Why::form("none of the forms fits"))
    })
}

fn parse_decimal(call: &Call<'_>) -> Result<Work, Misfit> {
    let LogicalType::Decimal { precision, scale } = *call.to().map_err(broken)? else {
        return Err(("precision", "is no decimal".to_owned()));
    };
    let point = call.args.text("point").map_err(broken)?.to_owned();
    let group = call.args.text("group").map_err(broken)?.to_owned();
    text_to::<Decimal128Type>(call, move |text| match amount(text, &point, &group, scale)? {
        value if value.unsigned_abs() >= 10_u128.pow(u32::from(precision)) => {
            Err(Why::range(format!("more than {precision} digits")))
        }
        value => Ok(Some(value)),
    })
}

/// The unscaled value of an amount as people write it.
fn amount(text: &str, point: &str, group: &str, scale: u8) -> Result<i128, Why> {
    let form = || Why::form("not an amount");
    let around = |c: char| c.is_whitespace() || matches!(c, '$' | '€' | '£' | '¥' | '₹' | '\u{a0}');
    let text = text.trim_matches(around);
    let (negative, text) = match text.strip_prefix(['-', '−']) {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let text = text.trim_start_matches(around);
    let (whole, fraction) = text.split_once(point).unwrap_or((text, ""));
    let whole = if group.is_empty() { whole.to_owned() } else { ungrouped(whole, group).ok_or_else(form)? };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty() || !digits(&whole) || !digits(fraction) {
        return Err(form());
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > usize::from(scale) {
        let reason = crate::decode::RejectKind::Inexact;
        return Err(Why { reason, detail: format!("more than {scale} digits after the point").into() });
    }
    let all = format!("{whole}{fraction:0<width$}", width = usize::from(scale));
    let value: i128 = all.parse().map_err(|_| Why::range("more digits than a decimal holds"))?;
    Ok(if negative { -value } else { value })
}

/// The digits of `1,234,567`; groups but the first have three (or two, as in `12,34,567`) digits.
fn ungrouped(whole: &str, group: &str) -> Option<String> {
    let mut parts = whole.split(group);
    let mut out = parts.next()?.to_owned();
    let rest: Vec<&str> = parts.collect();
    let fits = rest.iter().all(|part| matches!(part.len(), 2 | 3)) && rest.last().is_none_or(|last| last.len() == 3);
    if !fits || !rest.is_empty() && out.is_empty() {
        return None;
    }
    out.extend(rest);
    Some(out)
}

fn parse_boolean(call: &Call<'_>) -> Result<Work, Misfit> {
    let lower = |name| call.args.texts(name).iter().map(|word| word.to_lowercase()).collect::<Vec<_>>();
    let (yes, no) = (lower("yes"), lower("no"));
    if let Some(both) = yes.iter().find(|word| no.contains(word)) {
        return Err(("no", format!("`{both}` is in `yes` too")));
    }
    Ok(batch(move |batch| {
        let column = batch.column(0)?;
        let texts = texts(column)?;
        let mut rejects = Rejects::new(column.name);
        let mut out = arrow_array::builder::BooleanBuilder::with_capacity(texts.len());
        for (row, text) in texts.iter().enumerate() {
            let read = |text: &str| {
                let word = |words: &[String]| words.iter().any(|word| *word == text.to_lowercase());
                if word(&yes) {
                    Ok(true)
                } else if word(&no) {
                    Ok(false)
                } else {
                    Err(Why::form("another word"))
                }
            };
            out.append_option(text.and_then(|text| rejects.sieve(row, read(text))));
        }
        Ok(Made { columns: vec![std::sync::Arc::new(out.finish())], rejects: rejects.found })
    }))
}
