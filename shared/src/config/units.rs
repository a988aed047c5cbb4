//! Sizes (`128MB`, `1GiB`) and times (`90s`, `5m`, `6h`, `7d`) as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::cursor::Cursor;
use crate::error::{Error, Result};

/// A number of bytes: `B`, decimal units (`KB`, `MB`, `GB`, `TB`) or binary ones (`KiB`, `MiB`, `GiB`, `TiB`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A length of time: whole milliseconds, seconds, minutes, hours or days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

/// Largest unit first, binary before decimal, so that `Display` finds the shortest form.
const SIZES: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

/// Milliseconds of each unit, largest first.
const PERIODS: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a whole number and one of `units`.
fn read(what: &'static str, example: &str, text: &str, units: &[(&str, u64)]) -> Result<u64> {
    let mut cursor = Cursor::new(what, text);
    cursor.blanks();
    let digits = cursor.take_while(|c| c.is_ascii_digit());
    if digits.is_empty() {
        return Err(cursor.expected(&format!("a whole number and a unit, such as {example}")));
    }
    cursor.blanks();
    let start = cursor.position();
    let unit = cursor.take_while(char::is_alphabetic);
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        cursor.back_to(start);
        let known = units.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        return Err(cursor.expected(&format!("a unit ({known})")));
    };
    cursor.end()?;
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor));
    number.ok_or_else(|| Error::config(format!("{what} `{text}` is too large")))
}

fn write(f: &mut fmt::Formatter<'_>, number: u64, units: &[(&str, u64)], zero: &str) -> fmt::Result {
    match units.iter().find(|(_, factor)| number != 0 && number.is_multiple_of(*factor)) {
        Some((unit, factor)) => write!(f, "{}{unit}", number / factor),
        None => f.write_str(zero),
    }
}

impl FromStr for ByteSize {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        read("size", "128MB", text, SIZES).map(Self)
    }
}
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self.0, SIZES, "0B")
    }
}

impl FromStr for Period {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        read("time", "5m", text, PERIODS).map(|millis| Self(Duration::from_millis(millis)))
    }
}
impl fmt::Display for Period {
    /// Parts of a millisecond are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), PERIODS, "0s")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn size_and_time_read_back_as_written(number: u64) {
            prop_assert_eq!(ByteSize(number).to_string().parse::<ByteSize>().unwrap(), ByteSize(number));
            let period = Period(Duration::from_millis(number));
            prop_assert_eq!(period.to_string().parse::<Period>().unwrap(), period);
        }
    }

    #[test]
    fn decimal_and_binary_units_differ() {
        let size = |text: &str| text.parse::<ByteSize>().unwrap().0;
        assert_eq!((size("128MB"), size("1GiB"), size("0 B"), size("2 KB")), (128_000_000, 1_073_741_824, 0, 2_000));
        assert_eq!("90s".parse::<Period>().unwrap().0, Duration::from_secs(90));
        assert_eq!("7d".parse::<Period>().unwrap().to_string(), "7d");
    }

    #[test]
    fn mistakes_name_the_units() {
        let size = |text: &str| text.parse::<ByteSize>().unwrap_err().to_string();
        let time = |text: &str| text.parse::<Period>().unwrap_err().to_string();
        let errors = [size("128"), size("12mb"), size("1.5GB"), size("99999999999TB"), time("5 minutes"), time("-1s")];
        insta::assert_snapshot!(errors.join("\n"), @r#"
        size `128`: expected a unit (`TiB`, `TB`, `GiB`, `GB`, `MiB`, `MB`, `KiB`, `KB`, `B`), but the text ends at character 4
        size `12mb`: expected a unit (`TiB`, `TB`, `GiB`, `GB`, `MiB`, `MB`, `KiB`, `KB`, `B`), found `m` at character 3
        size `1.5GB`: expected a unit (`TiB`, `TB`, `GiB`, `GB`, `MiB`, `MB`, `KiB`, `KB`, `B`), found `.` at character 2
        size `99999999999TB` is too large
        time `5 minutes`: expected a unit (`d`, `h`, `m`, `s`, `ms`), found `m` at character 3
        time `-1s`: expected a whole number and a unit, such as 5m, found `-` at character 1
        "#);
    }
}
