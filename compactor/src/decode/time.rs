//! Times in text: RFC 3339 and its common relatives by a scanner that allocates nothing, other forms by `chrono` patterns.

use std::ops::RangeInclusive;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Timelike};

const MICROS: i64 = 1_000_000;
const DAY_SECONDS: i64 = 86_400;
/// Date and time as nearly all write them; a zero is any digit.
const USUAL: &[u8; 19] = b"0000-00-00T00:00:00";
/// 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999999Z, in microseconds.
pub(crate) const YEARS: RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;
/// The days of [`YEARS`]: 0001-01-01 to 9999-12-31. Only these have a text that every reader of a table knows.
pub(crate) const DAYS: RangeInclusive<i32> = -719_162..=2_932_896;

/// Days from 1970-01-01 to a civil date that exists (proleptic Gregorian), else `None`.
fn civil_days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    // Years begin in March, so that the leap day is the last day of a year; eras of 400 years have 146,097 days.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    Some(era * 146_097 + year * 365 + year / 4 - year / 100 + day_of_year - 719_468)
}

fn two(text: &[u8], at: usize) -> Option<i64> {
    let (tens, ones) = (text.get(at)?.wrapping_sub(b'0'), text.get(at + 1)?.wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then_some(i64::from(tens) * 10 + i64::from(ones))
}

fn is(text: &[u8], at: usize, byte: u8) -> Option<()> {
    (text.get(at) == Some(&byte)).then_some(())
}

/// `YYYY-MM-DD` as days since the epoch.
pub(super) fn date(text: &[u8]) -> Option<i32> {
    let days = i32::try_from(date_prefix(text)?).ok()?;
    (text.len() == 10 && DAYS.contains(&days)).then_some(days)
}

fn date_prefix(text: &[u8]) -> Option<i64> {
    is(text, 4, b'-')?;
    is(text, 7, b'-')?;
    civil_days(two(text, 0)? * 100 + two(text, 2)?, two(text, 5)?, two(text, 8)?)
}

/// `HH:MM`, `HH:MM:SS` or with a fraction, as microseconds since midnight.
pub(super) fn time(text: &[u8]) -> Option<i64> {
    let (micros, end) = clock(text, 0)?;
    (end == text.len() && micros < DAY_SECONDS * MICROS).then_some(micros)
}

/// The time of day at `at`, and where it ends. A leap second is the first instant of the next minute; digits of the
/// fraction below a microsecond are dropped.
fn clock(text: &[u8], at: usize) -> Option<(i64, usize)> {
    let (hours, minutes) = (two(text, at)?, two(text, at + 3)?);
    is(text, at + 2, b':')?;
    if hours > 23 || minutes > 59 {
        return None;
    }
    let mut micros = (hours * 60 + minutes) * 60 * MICROS;
    let mut end = at + 5;
    if text.get(end) == Some(&b':') {
        let seconds = two(text, end + 1)?;
        if seconds > 60 || (seconds == 60 && minutes != 59) {
            return None;
        }
        micros += seconds * MICROS;
        end += 3;
        if matches!(text.get(end), Some(b'.' | b',')) {
            let digits = text[end + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            let mut unit = MICROS;
            for digit in text[end + 1..].iter().take(digits.min(6)) {
                unit /= 10;
                micros += i64::from(digit - b'0') * unit;
            }
            end += 1 + digits;
        }
    }
    Some((micros, end))
}

/// Seconds east of UTC: nothing (taken as UTC), `Z`, `+hh:mm`, `+hhmm` or `+hh`, a space or `UTC` before it allowed.
fn offset(text: &[u8]) -> Option<i64> {
    let text = text.strip_prefix(b" ").unwrap_or(text);
    match text {
        b"" | b"Z" | b"z" | b"UTC" => return Some(0),
        _ => {}
    }
    let sign = match text.first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let hours = two(text, 1)?;
    let minutes = match text.len() {
        3 => 0,
        5 => two(text, 3)?,
        6 => is(text, 3, b':').and_then(|()| two(text, 4))?,
        _ => return None,
    };
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 60 + minutes) * 60)
}

/// RFC 3339 text (`T`, `t` or a space between date and time; seconds and offset may be missing, then zero and UTC) as
/// microseconds since the epoch, UTC; within [`YEARS`].
pub(crate) fn timestamp(text: &[u8]) -> Option<i64> {
    usual_timestamp(text).or_else(|| other_timestamp(text)).filter(|micros| YEARS.contains(micros))
}

fn other_timestamp(text: &[u8]) -> Option<i64> {
    let days = date_prefix(text)?;
    if !matches!(text.get(10), Some(b'T' | b't' | b' ')) {
        return None;
    }
    let (micros, end) = clock(text, 11)?;
    let east = offset(&text[end..])?;
    Some((days * DAY_SECONDS - east) * MICROS + micros)
}

/// The form that nearly all have, `YYYY-MM-DDThh:mm:ssZ`, with six digits of a fraction or none; `None` for any other, and
/// for leap seconds.
fn usual_timestamp(text: &[u8]) -> Option<i64> {
    let (seconds, fraction) = text.split_first_chunk::<19>()?;
    let fraction = match fraction {
        b"Z" => 0,
        [b'.', digits @ .., b'Z'] if digits.len() == 6 => {
            let digit = |i: usize| i64::from(digits[i].wrapping_sub(b'0'));
            if !digits.iter().all(u8::is_ascii_digit) {
                return None;
            }
            ((digit(0) * 10 + digit(1)) * 100 + digit(2) * 10 + digit(3)) * 100 + digit(4) * 10 + digit(5)
        }
        _ => return None,
    };
    let mut wrong = 0;
    for (byte, pattern) in seconds.iter().zip(USUAL) {
        let digit = byte.wrapping_sub(b'0');
        wrong |= if *pattern == b'0' { u8::from(digit > 9) } else { byte ^ pattern };
    }
    if wrong != 0 {
        return None;
    }
    let two = |at: usize| i64::from(seconds[at] - b'0') * 10 + i64::from(seconds[at + 1] - b'0');
    let (hour, minute, second) = (two(11), two(14), two(17));
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = civil_days(two(0) * 100 + two(2), two(5), two(8))?;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * MICROS + fraction)
}

/// A timestamp by a `chrono` pattern, UTC when the pattern has no offset, midnight when it has no time; within [`YEARS`].
pub(crate) fn timestamp_by(text: &str, pattern: &str) -> Option<i64> {
    let naive = || NaiveDateTime::parse_from_str(text, pattern).ok();
    let midnight = || NaiveDate::parse_from_str(text, pattern).ok()?.and_hms_opt(0, 0, 0);
    let at = match DateTime::parse_from_str(text, pattern) {
        Ok(at) => at.to_utc(),
        Err(_) => naive().or_else(midnight)?.and_utc(),
    };
    Some(at.timestamp_micros()).filter(|micros| YEARS.contains(micros))
}

/// A date by a `chrono` pattern, as days since the epoch; within [`DAYS`].
pub(crate) fn date_by(text: &str, pattern: &str) -> Option<i32> {
    let day = NaiveDate::parse_from_str(text, pattern).ok()?;
    let days = i32::try_from(day.signed_duration_since(NaiveDate::default()).num_days());
    days.ok().filter(|days| DAYS.contains(days))
}

/// A time of day by a `chrono` pattern, as microseconds since midnight.
pub(super) fn time_by(text: &str, pattern: &str) -> Option<i64> {
    let time = NaiveTime::parse_from_str(text, pattern).ok()?;
    Some(i64::from(time.num_seconds_from_midnight()) * MICROS + i64::from(time.nanosecond() / 1000 % 1_000_000))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn common_forms_of_one_instant_agree() {
        let expected = timestamp(b"2021-07-21T06:00:00Z");
        assert_eq!(expected, Some(1_626_847_200_000_000));
        for text in [
            "2021-07-21 06:00:00",
            "2021-07-21t06:00:00.000z",
            "2021-07-21T06:00Z",
            "2021-07-21T08:00:00+02:00",
            "2021-07-21 06:00:00.0000000 +0000",
            "2021-07-21T11:30:00,0+0530",
            "2021-07-20T23:00:00-07",
            "2021-07-21 06:00:00 UTC",
        ] {
            assert_eq!(timestamp(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_instant_is_refused() {
        for text in [
            "",
            "2021-07-21",
            "2021-02-29T00:00:00Z",
            "2021-13-01T00:00:00Z",
            "2021-07-21T24:00:00Z",
            "2021-07-21T06:60:00Z",
            "2021-07-21T06:00:60Z",
            "2021-07-21T06:00:00.Z",
            "2021-07-21T06:00:00Zx",
            "2021-07-21T06:00:00+2",
            "1626847200",
            "2021-07-21T06:00:00 Europe/Berlin",
            "2021-7-21T06:00:00Z",
            "+2021-07-21T06:00:00Z",
        ] {
            assert_eq!(timestamp(text.as_bytes()), None, "{text}");
        }
        assert_eq!(time(b"23:59:60"), None);
        assert_eq!(date(b"2021-07-21T00:00:00Z"), None);
    }

    #[test]
    fn only_the_years_1_to_9999_are_times() {
        for (text, expected) in [
            ("0001-01-01T00:00:00Z", Some(*YEARS.start())),
            ("0000-12-31T23:59:59Z", None),
            ("0001-01-01T00:00:00+01:00", None),
            ("9999-12-31T23:59:59.999999Z", Some(*YEARS.end())),
            ("9999-12-31T23:59:59.999999-01:00", None),
        ] {
            assert_eq!(timestamp(text.as_bytes()), expected, "{text}");
        }
        assert_eq!((date(b"0001-01-01"), date(b"9999-12-31")), (Some(*DAYS.start()), Some(*DAYS.end())));
        assert_eq!(date(b"0000-12-31"), None);
        assert_eq!((date_by("+10000", "%Y"), date_by("+10000-01-01", "%Y-%m-%d")), (None, None));
        assert_eq!(timestamp_by("+262000-01-01 00:00", "%Y-%m-%d %H:%M"), None);
        assert_eq!(timestamp_by("+262000-01-01", "%Y-%m-%d"), None);
        assert_eq!(timestamp_by("-4-01-01 +0000", "%Y-%m-%d %z"), None);
    }

    #[test]
    fn patterns_of_chrono_are_followed() {
        assert_eq!(timestamp_by("21/Jul/2021:06:00:00 +0000", "%d/%b/%Y:%H:%M:%S %z"), Some(1_626_847_200_000_000));
        assert_eq!(timestamp_by("20210721", "%Y%m%d"), Some(1_626_825_600_000_000));
        assert_eq!(date_by("21.07.2021", "%d.%m.%Y"), Some(18_829));
        assert_eq!(time_by("060000", "%H%M%S"), Some(21_600_000_000));
    }

    proptest! {
        #[test]
        fn the_usual_form_is_no_other(text in "[0-9]{4}-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9]([.,][0-9:]{5,7})?[Z+]?") {
            if let Some(micros) = usual_timestamp(text.as_bytes()) {
                let known = DateTime::parse_from_rfc3339(&text).map(|at| at.timestamp_micros());
                prop_assert_eq!(Ok(micros), known);
            }
        }

        #[test]
        fn agrees_with_chrono(micros in -62_167_219_200_000_000i64..253_402_300_800_000_000, east in -86_340i32..86_340) {
            let east = chrono::FixedOffset::east_opt(east / 60 * 60).unwrap();
            let at = DateTime::from_timestamp_micros(micros).unwrap().with_timezone(&east);
            let text = at.to_rfc3339_opts(chrono::SecondsFormat::Micros, false);
            // Years beyond four digits are outside RFC 3339.
            if text.len() == 32 {
                let expected = Some(micros).filter(|micros| YEARS.contains(micros));
                prop_assert_eq!(timestamp(text.as_bytes()), expected);
                let usual = at.to_utc().format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
                prop_assert_eq!(timestamp(usual.as_bytes()), expected);
                prop_assert_eq!(usual_timestamp(usual.as_bytes()), Some(micros));
            }
            let day = at.date_naive();
            if let Some(days) = date(day.to_string().as_bytes()) {
                prop_assert_eq!(NaiveDate::default() + chrono::Days::new(0) + chrono::TimeDelta::days(days.into()), day);
            }
        }
    }
}
