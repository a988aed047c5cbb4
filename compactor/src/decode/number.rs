//! JSON number text to exact numbers, never by way of `f64` unless the column is one.

use super::reject::{Fault, RejectKind};

/// Why number text has no exact value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NumberFault {
    /// Not a number by the JSON grammar.
    Malformed,
    /// Digits below the scale would be lost.
    Inexact,
    /// Beyond 38 digits or the target's range.
    Overflow,
}

impl NumberFault {
    /// The fault of a value meant for `expected`.
    #[cold]
    pub fn of(self, expected: impl std::fmt::Display) -> Fault {
        match self {
            Self::Malformed => Fault::new(RejectKind::BadFormat, format!("expected {expected}, found other text")),
            Self::Inexact => Fault::new(RejectKind::Inexact, format!("number would lose digits as {expected}")),
            Self::Overflow => Fault::new(RejectKind::OutOfRange, format!("number does not fit {expected}")),
        }
    }
}

/// A number's parts by the grammar of RFC 8259.
struct Parts<'a> {
    negative: bool,
    integer: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().take_while(|b| b.is_ascii_digit()).count())
}

fn parts(text: &[u8]) -> Option<Parts<'_>> {
    let (negative, rest) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let (integer, mut rest) = digits(rest);
    if integer.is_empty() || (integer.len() > 1 && integer[0] == b'0') {
        return None;
    }
    let mut fraction: &[u8] = &[];
    if let Some(after) = rest.strip_prefix(b".") {
        (fraction, rest) = digits(after);
        if fraction.is_empty() {
            return None;
        }
    }
    let mut exponent = 0i64;
    if let Some(after) = rest.strip_prefix(b"e").or_else(|| rest.strip_prefix(b"E")) {
        let (minus, after) = match after.first() {
            Some(b'-') => (true, &after[1..]),
            Some(b'+') => (false, &after[1..]),
            _ => (false, after),
        };
        let (power, end) = digits(after);
        if power.is_empty() {
            return None;
        }
        // Saturating: an exponent of a million is as far out as any larger one.
        exponent = power.iter().fold(0, |e, b| (e * 10 + i64::from(b - b'0')).min(1_000_000));
        if minus {
            exponent = -exponent;
        }
        rest = end;
    }
    rest.is_empty().then_some(Parts { negative, integer, fraction, exponent })
}

/// Whether text is a number by the JSON grammar.
pub(super) fn is_number(text: &[u8]) -> bool {
    length(text) == Some(text.len())
}

/// The length of the number that `text` begins with; `None` when it begins with none, or with a broken one.
#[inline]
pub(super) fn length(text: &[u8]) -> Option<usize> {
    let start = usize::from(text.first() == Some(&b'-'));
    let mut end = start;
    while text.get(end).is_some_and(u8::is_ascii_digit) {
        end += 1;
    }
    if end == start || (end > start + 1 && text[start] == b'0') {
        return None;
    }
    match text.get(end) {
        Some(b'.' | b'e' | b'E') => length_behind(text, end),
        _ => Some(end),
    }
}

/// The integer of at most 18 digits that `text` begins with, and its length; `None` for anything else.
#[inline]
pub(super) fn small_integer(text: &[u8]) -> Option<(i64, usize)> {
    let start = usize::from(text.first() == Some(&b'-'));
    let (value, end) = digits_from(text, start, 0)?;
    let small = end > start && end - start <= 18 && (text[start] != b'0' || end == start + 1);
    let integer = small && !matches!(text.get(end), Some(b'.' | b'e' | b'E'));
    // Not before it is known to be small: of more digits, the value may have wrapped.
    integer.then(|| (if start == 1 { -value.cast_signed() } else { value.cast_signed() }, end))
}

/// The number that `text` begins with as a float, and its length; `None` for anything else, and for numbers that are not
/// one exact float divided by another, which rounds once and so to the nearest.
#[inline]
pub(super) fn small_decimal(text: &[u8]) -> Option<(f64, usize)> {
    let start = usize::from(text.first() == Some(&b'-'));
    let (mut value, point) = digits_from(text, start, 0)?;
    let mut end = point;
    if point == start || (point > start + 1 && text[start] == b'0') {
        return None;
    }
    if text.get(point) == Some(&b'.') {
        (value, end) = digits_from(text, point + 1, value)?;
        if end == point + 1 {
            return None;
        }
    }
    let fraction = (end - point).saturating_sub(1);
    // Nineteen digits do not pass 64 bits.
    if point - start + fraction > 19 || value > 1 << 53 || matches!(text.get(end), Some(b'e' | b'E' | b'.')) {
        return None;
    }
    let value = value as f64 / POWERS_OF_TEN.get(fraction)?;
    Some((if start == 1 { -value } else { value }, end))
}

/// Powers of ten that are exact floats.
const POWERS_OF_TEN: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// `value` with the digits at `at` appended, wrapping, and where they end; `None` at the end of the text.
#[inline]
fn digits_from(text: &[u8], mut at: usize, mut value: u64) -> Option<(u64, usize)> {
    loop {
        let digit = text.get(at)?.wrapping_sub(b'0');
        if digit > 9 {
            return Some((value, at));
        }
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
        at += 1;
    }
}

/// The length of the number that `text` begins with, from the end of the integer on.
fn length_behind(text: &[u8], mut end: usize) -> Option<usize> {
    let some_digits = |from: usize| {
        let count = text.get(from..)?.iter().take_while(|b| b.is_ascii_digit()).count();
        (count > 0).then_some(from + count)
    };
    if text[end] == b'.' {
        end = some_digits(end + 1)?;
    }
    match (text.get(end), text.get(end + 1)) {
        (Some(b'e' | b'E'), Some(b'+' | b'-')) => some_digits(end + 2),
        (Some(b'e' | b'E'), _) => some_digits(end + 1),
        _ => Some(end),
    }
}

/// `text × 10^scale` as an integer, exactly.
pub(super) fn scaled(text: &[u8], scale: u8) -> Result<i128, NumberFault> {
    let Parts { negative, integer, fraction, exponent } = parts(text).ok_or(NumberFault::Malformed)?;
    let total = (integer.len() + fraction.len()) as i64;
    // How many of the written digits stand left of the scaled number's point.
    let keep = integer.len() as i64 + exponent + i64::from(scale);
    let mut value = 0i128;
    for (i, digit) in integer.iter().chain(fraction).enumerate() {
        if (i as i64) < keep {
            let next = value.checked_mul(10).and_then(|v| v.checked_add(i128::from(digit - b'0')));
            value = next.ok_or(NumberFault::Overflow)?;
        } else if *digit != b'0' {
            return Err(NumberFault::Inexact);
        }
    }
    if value != 0 && keep > total {
        let power = u32::try_from(keep - total).map_err(|_| NumberFault::Overflow)?;
        value = 10i128.checked_pow(power).and_then(|p| value.checked_mul(p)).ok_or(NumberFault::Overflow)?;
    }
    Ok(if negative { -value } else { value })
}

/// As [`scaled`], digits below the scale dropped (towards zero).
pub(super) fn scaled_down(text: &[u8], scale: u8) -> Result<i128, NumberFault> {
    match scaled(text, scale) {
        Err(NumberFault::Inexact) => {}
        other => return other,
    }
    (scale..=38)
        .find_map(|s| scaled(text, s).ok().map(|v| v / 10i128.pow(u32::from(s - scale))))
        .ok_or(NumberFault::Inexact)
}

/// A 64-bit integer; `1.0` and `1e3` count as they are exact, `1.5` does not.
pub(super) fn long(text: &[u8]) -> Result<i64, NumberFault> {
    let (negative, magnitude) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    if matches!(magnitude.len(), 1..=18) && (magnitude[0] != b'0' || magnitude.len() == 1) {
        let mut value = 0i64;
        let mut plain = true;
        for b in magnitude {
            let digit = b.wrapping_sub(b'0');
            plain &= digit < 10;
            value = value.wrapping_mul(10).wrapping_add(i64::from(digit));
        }
        if plain {
            return Ok(if negative { -value } else { value });
        }
    }
    i64::try_from(scaled(text, 0)?).map_err(|_| NumberFault::Overflow)
}

/// A 32-bit integer.
pub(super) fn int(text: &[u8]) -> Result<i32, NumberFault> {
    i32::try_from(long(text)?).map_err(|_| NumberFault::Overflow)
}

/// A decimal's unscaled value.
pub(super) fn decimal(text: &[u8], precision: u8, scale: u8) -> Result<i128, NumberFault> {
    let value = scaled(text, scale)?;
    if value.unsigned_abs() < 10u128.pow(u32::from(precision)) { Ok(value) } else { Err(NumberFault::Overflow) }
}

/// The nearest 64-bit float of a number by the JSON grammar.
pub(super) fn double(text: &str) -> Result<f64, NumberFault> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        Ok(_) => Err(NumberFault::Overflow),
        Err(_) => Err(NumberFault::Malformed),
    }
}

/// The nearest 32-bit float of a number by the JSON grammar.
pub(super) fn float(text: &str) -> Result<f32, NumberFault> {
    match text.parse::<f32>() {
        Ok(value) if value.is_finite() => Ok(value),
        Ok(_) => Err(NumberFault::Overflow),
        Err(_) => Err(NumberFault::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::NumberFault::{Inexact, Malformed, Overflow};
    use super::*;

    #[test]
    fn integers_are_exact_or_refused() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("-0", Ok(0)),
            ("17245100123", Ok(17_245_100_123)),
            ("9223372036854775807", Ok(i64::MAX)),
            ("-9223372036854775808", Ok(i64::MIN)),
            ("9223372036854775808", Err(Overflow)),
            ("1.0", Ok(1)),
            ("1e3", Ok(1000)),
            ("1.5e1", Ok(15)),
            ("100e-2", Ok(1)),
            ("1.5", Err(Inexact)),
            ("1e-1", Err(Inexact)),
            ("1.00000000000000000000000000000000000000000000001", Err(Inexact)),
            ("1e400", Err(Overflow)),
            ("0e999999999999", Ok(0)),
            ("007", Err(Malformed)),
            ("+1", Err(Malformed)),
            ("1.", Err(Malformed)),
            (".5", Err(Malformed)),
            ("1_0", Err(Malformed)),
            (" 1", Err(Malformed)),
            ("", Err(Malformed)),
            ("-", Err(Malformed)),
            ("NaN", Err(Malformed)),
        ] {
            assert_eq!(long(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn decimals_keep_every_digit() {
        let max = "99999999999999999999999999999999999999";
        assert_eq!(decimal(max.as_bytes(), 38, 0), Ok(max.parse().unwrap()));
        assert_eq!(decimal(b"0.1", 10, 2), Ok(10));
        assert_eq!(decimal(b"-12345678.90", 10, 2), Ok(-1_234_567_890));
        assert_eq!(decimal(b"123456789.00", 10, 2), Err(Overflow));
        assert_eq!(decimal(b"0.125", 10, 2), Err(Inexact));
        assert_eq!(decimal(b"1.2500e1", 10, 2), Ok(1250));
    }

    #[test]
    fn floats_refuse_what_is_not_finite() {
        assert_eq!(double("1e308"), Ok(1e308));
        assert_eq!(double("1e309"), Err(Overflow));
        assert!(!is_number(b"inf") && !is_number(b"1e") && is_number(b"-0.5E+7"));
        assert_eq!(float("1e39"), Err(Overflow));
        assert_eq!(double("17"), Ok(17.0));
    }

    proptest! {
        #[test]
        fn the_short_ways_say_what_the_long_ones_say(
            text in prop_oneof![
                "-?(0|[1-9][0-9]{0,25})", "-?[0-9]{1,20}[.][0-9]{0,25}", "-?[0-9]{1,4}([.][0-9]{1,3})?[eE.+-]?[0-9]{0,3}", "[-0-9.]{0,5}",
            ],
            behind in prop::sample::select(vec![",", "}", " ", "]"]),
        ) {
            let more = format!("{text}{behind}");
            let all = length(more.as_bytes());
            prop_assert_eq!(is_number(text.as_bytes()), serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok());
            prop_assert_eq!(is_number(text.as_bytes()), all == Some(text.len()));
            let begins = all.map_or("", |length| &more[..length]);
            match small_integer(more.as_bytes()) {
                Some((value, length)) => prop_assert_eq!((Ok(value), Some(length)), (begins.parse(), all)),
                None => prop_assert!(begins.is_empty() || begins.len() > 18 || begins.contains(['.', 'e', 'E'])),
            }
            if let Some((value, length)) = small_decimal(more.as_bytes()) {
                prop_assert_eq!((value.to_bits(), Some(length)), (begins.parse::<f64>().unwrap().to_bits(), all));
            }
        }
    }

    #[test]
    fn digits_below_a_microsecond_are_dropped_not_rounded() {
        assert_eq!(scaled_down(b"1.9999999", 6), Ok(1_999_999));
        assert_eq!(scaled_down(b"-1.9999999", 6), Ok(-1_999_999));
    }
}
