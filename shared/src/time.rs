//! Event times: from the forms people write them in to microseconds since the epoch, UTC.
//!
//! Rules, the same for every form: digits below a microsecond are dropped (towards the past); a leap second (`:60`) is
//! the first instant of the next minute; nothing is guessed, so RFC 3339 without an offset is not RFC 3339. Whether a
//! time is plausible is another question: [`is_plausible`].

use chrono::format::{Item, Parsed, StrftimeItems, parse};
use chrono::{DateTime, NaiveTime};

use crate::config::domain::TimeFormat;
use crate::error::{Error, Result};

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
/// 10000-01-01T00:00:00Z.
const YEAR_10000: i64 = 253_402_300_800 * SECOND;

/// Whether a time lies in the years 1970 to 9999, the only ones that landing sorts into hours.
#[must_use]
pub fn is_plausible(micros: i64) -> bool {
    (0..YEAR_10000).contains(&micros)
}

/// Reads times of one [`TimeFormat`]; made once, used for every record.
#[derive(Debug, Clone)]
pub struct TimeReader(Form);

#[derive(Debug, Clone)]
enum Form {
    Rfc3339,
    /// Units in a microsecond as a power of ten: seconds are 6, microseconds 0.
    Epoch {
        digits: i32,
    },
    Days,
    Strftime(Vec<Item<'static>>),
}

impl TimeReader {
    /// A reader of times of this form.
    ///
    /// # Errors
    /// `Config` when a strftime pattern has a specifier that chrono does not know.
    pub fn new(format: &TimeFormat) -> Result<Self> {
        Ok(Self(match format {
            TimeFormat::Rfc3339 => Form::Rfc3339,
            TimeFormat::EpochSeconds => Form::Epoch { digits: 6 },
            TimeFormat::EpochMillis => Form::Epoch { digits: 3 },
            TimeFormat::EpochMicros => Form::Epoch { digits: 0 },
            TimeFormat::EpochNanos => Form::Epoch { digits: -3 },
            TimeFormat::EpochDays => Form::Days,
            TimeFormat::Strftime(pattern) => Form::Strftime(
                StrftimeItems::new(pattern)
                    .parse_to_owned()
                    .map_err(|e| Error::config(format!("time format `{pattern}` is no strftime pattern: {e}")))?,
            ),
        }))
    }

    /// The time in a text, microseconds since the epoch.
    #[must_use]
    #[inline]
    pub fn text(&self, text: &str) -> Option<i64> {
        match &self.0 {
            Form::Rfc3339 => rfc3339(text.as_bytes()),
            Form::Epoch { digits } => decimal(text.as_bytes(), *digits),
            Form::Days => decimal(text.as_bytes(), 0).and_then(|days| days.checked_mul(DAY)),
            Form::Strftime(items) => strftime(text, items),
        }
    }

    /// The time in a JSON number, given as it is written; exact, because it never becomes a float.
    #[must_use]
    #[inline]
    pub fn number(&self, number: &str) -> Option<i64> {
        match &self.0 {
            Form::Epoch { .. } | Form::Days => self.text(number),
            Form::Rfc3339 => None,
            // `%Y%m%d` as a number is a number people write.
            Form::Strftime(items) => strftime(number, items),
        }
    }
}

/// Days from 1970-01-01 to a date (proleptic Gregorian), `None` when the calendar has no such date.
fn civil_days(year: i64, month: i64, day: i64) -> Option<i64> {
    const LENGTH: [i64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = *LENGTH.get(usize::try_from(month - 1).ok()?)? + i64::from(leap && month == 2);
    if day < 1 || day > length {
        return None;
    }
    // Counted in years that begin in March, so that the leap day comes last; 146,097 days are 400 years.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

/// RFC 3339: `2021-07-21T06:00:01.234567Z`, `+02:00` for `Z`, a space or `t` for `T`, one to nine digits of fraction.
#[must_use]
#[inline]
pub fn rfc3339(text: &[u8]) -> Option<i64> {
    let (head, tail) = text.split_first_chunk::<19>()?;
    let two = |at: usize| -> Option<i64> {
        let (tens, ones) = (head[at].wrapping_sub(b'0'), head[at + 1].wrapping_sub(b'0'));
        (tens < 10 && ones < 10).then(|| i64::from(tens) * 10 + i64::from(ones))
    };
    let marks = head[4] == b'-' && head[7] == b'-' && head[13] == b':' && head[16] == b':';
    if !marks || !matches!(head[10], b'T' | b't' | b' ') {
        return None;
    }
    let days = civil_days(two(0)? * 100 + two(2)?, two(5)?, two(8)?)?;
    let (hour, minute, second) = (two(11)?, two(14)?, two(17)?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, zone) = fraction(tail)?;
    let local = days * DAY + (hour * 3600 + minute * 60 + second) * SECOND + fraction;
    Some(local - zone_seconds(zone)? * SECOND)
}

/// `.digits` as microseconds, and what follows; nothing is zero.
fn fraction(tail: &[u8]) -> Option<(i64, &[u8])> {
    let Some(digits) = tail.strip_prefix(b".") else { return Some((0, tail)) };
    let len = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    if len == 0 || len > 9 {
        return None;
    }
    let mut micros = 0;
    for digit in digits[..len].iter().chain(b"000000").take(6) {
        micros = micros * 10 + i64::from(digit - b'0');
    }
    Some((micros, &digits[len..]))
}

/// Seconds east of UTC of `Z` or `±hh:mm`.
fn zone_seconds(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] if [h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit()) => {
            let hours = i64::from(h1 - b'0') * 10 + i64::from(h2 - b'0');
            let minutes = i64::from(m1 - b'0') * 10 + i64::from(m2 - b'0');
            let seconds = hours * 3600 + minutes * 60;
            (hours < 24 && minutes < 60).then_some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

/// A decimal number as JSON writes it, times ten to the `shift`, rounded down; `None` when it does not fit.
fn decimal(text: &[u8], shift: i32) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let whole = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    let (whole, rest) = digits.split_at(whole);
    if whole.is_empty() || (whole.len() > 1 && whole[0] == b'0') {
        return None;
    }
    let (point, rest) = match rest.strip_prefix(b".") {
        Some(rest) => {
            let len = rest.iter().take_while(|b| b.is_ascii_digit()).count();
            if len == 0 {
                return None;
            }
            rest.split_at(len)
        }
        None => (&[][..], rest),
    };
    let exponent: i32 = match rest.split_first() {
        None => 0,
        // `+` and `-` are read by the parser of i32; its range is far beyond any time.
        Some((b'e' | b'E', exponent)) => std::str::from_utf8(exponent).ok()?.parse().ok()?,
        Some(_) => return None,
    };
    // The digits of the result are those before the point, moved; everything after it rounds.
    let keep = i64::try_from(whole.len()).ok()? + i64::from(exponent) + i64::from(shift);
    let mut value = 0i64;
    let mut rest_is_zero = true;
    for (at, digit) in whole.iter().chain(point).map(|b| i64::from(b - b'0')).enumerate() {
        if (at as i64) < keep {
            value = value.checked_mul(10)?.checked_add(digit)?;
        } else {
            rest_is_zero &= digit == 0;
        }
    }
    let missing = keep - (whole.len() + point.len()) as i64;
    if missing > 0 && value != 0 {
        value = value.checked_mul(10i64.checked_pow(u32::try_from(missing).ok()?)?)?;
    }
    Some(match (negative, rest_is_zero) {
        (false, _) => value,
        (true, true) => -value,
        (true, false) => -value - 1,
    })
}

/// A time by a pattern: with its offset if it has one, else UTC; a date alone is its midnight.
fn strftime(text: &str, items: &[Item<'static>]) -> Option<i64> {
    let mut parsed = Parsed::new();
    parse(&mut parsed, text, items.iter()).ok()?;
    let time: DateTime<_> = if parsed.offset().is_some() {
        parsed.to_datetime().ok()?.to_utc()
    } else if let Ok(time) = parsed.to_naive_datetime_with_offset(0) {
        time.and_utc()
    } else if parsed.hour_div_12().is_none() && parsed.hour_mod_12().is_none() {
        parsed.to_naive_date().ok()?.and_time(NaiveTime::MIN).and_utc()
    } else {
        return None;
    };
    Some(time.timestamp_micros())
}

#[cfg(test)]
mod tests {
    use chrono::{FixedOffset, NaiveDate, SecondsFormat, TimeZone};
    use proptest::prelude::*;

    use super::*;

    fn reader(format: &TimeFormat) -> TimeReader {
        TimeReader::new(format).unwrap()
    }

    #[test]
    fn rfc_3339_takes_what_the_rfc_allows_and_nothing_else() {
        let good = [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01t00:00:00z", 0),
            ("1970-01-01 00:00:00.5Z", 500_000),
            ("1969-12-31T23:59:59.999999Z", -1),
            ("1970-01-01T00:00:00.123456789Z", 123_456),
            ("1970-01-01T01:00:00+01:00", 0),
            ("1969-12-31T18:30:00-05:30", 0),
            ("1970-01-01T00:00:00-00:00", 0),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000_000),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000_000),
        ];
        for (text, micros) in good {
            assert_eq!(rfc3339(text.as_bytes()), Some(micros), "{text}");
        }
        for text in [
            "",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "1970-01-01T00:00Z",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00.1234567890Z",
            "1970-01-01T00:00:00+0100",
            "1970-01-01T00:00:00+24:00",
            "1970-01-01T00:00:00+01:60",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:61Z",
            "1970-02-29T00:00:00Z",
            "1970-00-01T00:00:00Z",
            "1970-13-01T00:00:00Z",
            "1970-01-00T00:00:00Z",
            "+970-01-01T00:00:00Z",
            "1970-01-01T00:00:00Z ",
            "1970-01-01T00:00:00ZZ",
            "１970-01-01T00:00:00Z",
        ] {
            assert_eq!(rfc3339(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn epochs_are_exact_from_numbers_and_from_text() {
        use TimeFormat::{EpochMicros, EpochMillis, EpochSeconds};
        let cases = [
            (EpochSeconds, "1626847200", Some(1_626_847_200_000_000)),
            (EpochSeconds, "1626847200.123456789", Some(1_626_847_200_123_456)),
            (EpochSeconds, "1521911721.255387", Some(1_521_911_721_255_387)),
            (EpochSeconds, "1.6268472e9", Some(1_626_847_200_000_000)),
            (EpochSeconds, "16268472000E-1", Some(1_626_847_200_000_000)),
            (EpochSeconds, "-0.0000001", Some(-1)),
            (EpochSeconds, "-1.5", Some(-1_500_000)),
            (EpochSeconds, "0", Some(0)),
            (EpochSeconds, "0e999", Some(0)),
            (EpochMillis, "1626847200123", Some(1_626_847_200_123_000)),
            (EpochMillis, "0.0005", Some(0)),
            (EpochMicros, "9223372036854775807", Some(i64::MAX)),
            (EpochMicros, "9223372036854775808", None),
            (EpochMillis, "9223372036854775807", None),
            (EpochSeconds, "1e99", None),
            (EpochSeconds, "1e-99999999999", None),
            (EpochSeconds, "", None),
            (EpochSeconds, "-", None),
            (EpochSeconds, "+1", None),
            (EpochSeconds, "01", None),
            (EpochSeconds, "1.", None),
            (EpochSeconds, ".5", None),
            (EpochSeconds, "1e", None),
            (EpochSeconds, "0x10", None),
            (EpochSeconds, " 1", None),
            (EpochSeconds, "NaN", None),
        ];
        for (format, text, micros) in cases {
            let reader = reader(&format);
            assert_eq!(reader.text(text), micros, "{format:?} {text}");
            assert_eq!(reader.number(text), micros, "{format:?} {text}");
        }
        assert_eq!(reader(&TimeFormat::Rfc3339).number("1626847200"), None);
    }

    #[test]
    fn patterns_are_utc_unless_they_say_otherwise() {
        let cases = [
            ("%Y-%m-%d %H:%M:%S", "2021-07-21 06:00:00", Some("2021-07-21T06:00:00Z")),
            ("%Y-%m-%d %H:%M:%S %z", "2021-07-21 08:00:00 +0200", Some("2021-07-21T06:00:00Z")),
            ("%d/%b/%Y:%H:%M:%S%.f %z", "21/Jul/2021:06:00:00.25 +0000", Some("2021-07-21T06:00:00.25Z")),
            ("%Y%m%d", "20210721", Some("2021-07-21T00:00:00Z")),
            ("%s", "1626847200", Some("2021-07-21T06:00:00Z")),
            ("%Y-%m-%d %H", "2021-07-21 06", None),
            ("%H:%M", "06:00", None),
            ("%Y-%m-%d", "2021-02-30", None),
        ];
        for (pattern, text, expected) in cases {
            let micros = reader(&TimeFormat::Strftime(pattern.into())).text(text);
            assert_eq!(micros, expected.and_then(|e| rfc3339(e.as_bytes())), "{pattern} {text}");
        }
        assert!(TimeReader::new(&TimeFormat::Strftime("%Y-%Q".into())).is_err());
    }

    #[test]
    fn only_the_years_1970_to_9999_are_plausible() {
        let at = |text: &str| is_plausible(rfc3339(text.as_bytes()).unwrap());
        assert!(at("1970-01-01T00:00:00Z") && at("9999-12-31T23:59:59.999999Z"));
        assert!(!at("1969-12-31T23:59:59Z") && !at("9999-12-31T23:59:59-00:01"));
    }

    proptest! {
        #[test]
        fn rfc_3339_agrees_with_chrono(
            seconds in -62_135_596_800i64..253_402_300_800,
            nanos in 0u32..1_000_000_000,
            east in -1439i32..1440,
            form in 0..4u8,
        ) {
            let zone = FixedOffset::east_opt(east * 60).unwrap();
            let time = zone.timestamp_opt(seconds, nanos).unwrap();
            prop_assume!((0..=9999).contains(&chrono::Datelike::year(&time)));
            let form = [SecondsFormat::Secs, SecondsFormat::Millis, SecondsFormat::Micros, SecondsFormat::Nanos][form as usize];
            let text = time.to_rfc3339_opts(form, true);
            let expected = DateTime::parse_from_rfc3339(&text).unwrap().timestamp_micros();
            prop_assert_eq!(rfc3339(text.as_bytes()), Some(expected), "{}", text);
        }

        #[test]
        fn what_is_read_as_rfc_3339_chrono_reads_the_same(
            text in "(19|20)[0-9]{2}-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,10})?(Z|z|[+-][0-2][0-9]:[0-6][0-9])",
        ) {
            let expected = DateTime::parse_from_rfc3339(&text).ok().map(|time| time.timestamp_micros());
            let ours = rfc3339(text.as_bytes());
            // chrono takes more than nine digits of fraction, we do not.
            prop_assert!(ours == expected || ours.is_none() && text.contains('.'), "{} {:?} {:?}", text, ours, expected);
        }

        #[test]
        fn seconds_with_a_fraction_are_exact(micros in -253_402_300_800_000_000i64..253_402_300_800_000_000) {
            let text = format!("{}{}.{:06}", if micros < 0 { "-" } else { "" }, micros.abs() / SECOND, micros.abs() % SECOND);
            prop_assert_eq!(decimal(text.as_bytes(), 6), Some(micros));
            prop_assert_eq!(decimal(micros.to_string().as_bytes(), 0), Some(micros));
        }

        #[test]
        fn patterns_agree_with_chrono(days in 0i64..3_000_000, second in 0u32..86_400) {
            let date = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap() + chrono::TimeDelta::days(days);
            prop_assume!(chrono::Datelike::year(&date) <= 9999);
            let time = date.and_time(NaiveTime::from_num_seconds_from_midnight_opt(second, 0).unwrap());
            let pattern = "%Y/%m/%d %H.%M.%S";
            let text = time.format(pattern).to_string();
            let ours = reader(&TimeFormat::Strftime(pattern.into())).text(&text);
            prop_assert_eq!(ours, Some(time.and_utc().timestamp_micros()));
        }
    }
}
