//! The short texts inside YAML values: JSON paths, time formats, partition and sort fields, store URLs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use chrono::format::{Item, StrftimeItems};

use super::domain::{Format, JsonPath, PartitionField, SortField, StoreUrl, TimeFormat, Transform};
use crate::cursor::{Cursor, did_you_mean};
use crate::error::{Error, Result};
use crate::ids::ColumnName;

impl FromStr for JsonPath {
    type Err = Error;

    /// Reads `$.a.b`, `$['id.orig_h']` and `$["x"]`; a backslash in quotes takes the next character as it is.
    fn from_str(text: &str) -> Result<Self> {
        let mut cursor = Cursor::new("JSON path", text);
        if !cursor.eat("$") {
            return Err(cursor.expected("`$`"));
        }
        let mut keys = Vec::new();
        while !cursor.rest().is_empty() {
            keys.push(read_key(&mut cursor)?);
        }
        if keys.is_empty() {
            return Err(cursor.expected("a key, as in `$.name`"));
        }
        Ok(Self(keys))
    }
}

fn read_key(cursor: &mut Cursor<'_>) -> Result<String> {
    if cursor.eat(".") {
        let start = cursor.position();
        let key = cursor.take_while(|c| !matches!(c, '.' | '[' | ']' | '*' | '\'' | '"' | '`') && !c.is_whitespace());
        if key.is_empty() {
            return Err(cursor.expected("a key"));
        }
        if cursor.peek().is_some_and(|c| !matches!(c, '.' | '[')) {
            let stop = cursor.position();
            cursor.back_to(start);
            let whole = cursor.take_while(|c| !matches!(c, '.' | '['));
            cursor.back_to(stop);
            return Err(cursor.expected(&format!("`.` or `[` (odd keys are quoted: `['{whole}']`)")));
        }
        return Ok(key.to_owned());
    }
    if !cursor.eat("[") {
        return Err(cursor.expected("`.` or `[`"));
    }
    let quote = match cursor.peek() {
        Some(quote @ ('\'' | '"')) => quote,
        Some('*' | '0'..='9') => return Err(cursor.error("elements of lists cannot be addressed")),
        _ => return Err(cursor.expected("a quoted key")),
    };
    cursor.next();
    let mut key = String::new();
    loop {
        match cursor.next() {
            Some(c) if c == quote => break,
            Some('\\') => key.extend(cursor.next()),
            Some(c) => key.push(c),
            None => return Err(cursor.expected("a closing quote")),
        }
    }
    if cursor.eat("]") { Ok(key) } else { Err(cursor.expected("`]`")) }
}

impl FromStr for TimeFormat {
    type Err = Error;

    /// Reads `rfc3339`, `epochSeconds`, `epochMillis`, `epochMicros`, `epochNanos`, `epochDays`, or a strftime pattern.
    fn from_str(text: &str) -> Result<Self> {
        if let Some((_, format)) = NAMED.iter().find(|(name, _)| *name == text) {
            return Ok(format.clone());
        }
        if !text.contains('%') {
            let hint = did_you_mean(text, NAMED.iter().map(|(name, _)| *name));
            return Err(Error::config(format!(
                "no time format `{text}`: use `rfc3339`, `epochSeconds`, `epochMillis`, `epochMicros`, `epochNanos`, `epochDays` or a strftime pattern such as `%Y-%m-%d %H:%M:%S`{hint}"
            )));
        }
        if StrftimeItems::new(text).any(|item| item == Item::Error) {
            return Err(Error::config(format!("time format `{text}` has a `%` sequence that strftime does not know")));
        }
        Ok(Self::Strftime(text.to_owned()))
    }
}

const NAMED: &[(&str, TimeFormat)] = &[
    ("rfc3339", TimeFormat::Rfc3339),
    ("epochSeconds", TimeFormat::EpochSeconds),
    ("epochMillis", TimeFormat::EpochMillis),
    ("epochMicros", TimeFormat::EpochMicros),
    ("epochNanos", TimeFormat::EpochNanos),
    ("epochDays", TimeFormat::EpochDays),
];

impl fmt::Display for TimeFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Strftime(pattern) => f.write_str(pattern),
            named => f.write_str(NAMED.iter().find(|(_, format)| format == named).map_or("", |(name, _)| *name)),
        }
    }
}

impl FromStr for Format {
    type Err = Error;

    /// Reads `base64(2)`, `variableScale`, `bits`, `zeroOne`, `jsonText`, or the form of a time.
    fn from_str(text: &str) -> Result<Self> {
        if let Some((_, format)) = ENCODED.iter().find(|(name, _)| *name == text) {
            return Ok(format.clone());
        }
        let mut cursor = Cursor::new("format", text);
        if !cursor.eat("base64") {
            return text.parse().map(Self::Time);
        }
        cursor.expect("(")?;
        cursor.blanks();
        let start = cursor.position();
        let scale = cursor.number()?;
        let Some(scale) = u8::try_from(scale).ok().filter(|scale| *scale <= 38) else {
            cursor.back_to(start);
            return Err(cursor.error(&format!("scale {scale} is not between 0 and 38")));
        };
        cursor.expect(")")?;
        cursor.end()?;
        Ok(Self::Base64 { scale })
    }
}

const ENCODED: &[(&str, Format)] = &[
    ("variableScale", Format::VariableScale),
    ("bits", Format::Bits),
    ("zeroOne", Format::ZeroOne),
    ("jsonText", Format::JsonText),
];

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(format) => format.fmt(f),
            Self::Base64 { scale } => write!(f, "base64({scale})"),
            Self::ConnectDecimal { .. } => f.write_str("connectDecimal"),
            named => f.write_str(ENCODED.iter().find(|(_, format)| format == named).map_or("", |(name, _)| *name)),
        }
    }
}

impl FromStr for PartitionField {
    type Err = Error;

    /// Reads `c`, `year(c)`, `month(c)`, `day(c)`, `hour(c)`, `bucket(16, c)`, `truncate(4, c)`.
    fn from_str(text: &str) -> Result<Self> {
        let mut cursor = Cursor::new("partition field", text);
        let word = read_column(&mut cursor)?;
        cursor.blanks();
        if cursor.rest().is_empty() {
            return Ok(Self { column: ColumnName::new(word)?, transform: Transform::Identity });
        }
        cursor.expect("(")?;
        let transform = match word {
            "identity" => Transform::Identity,
            "year" => Transform::Year,
            "month" => Transform::Month,
            "day" => Transform::Day,
            "hour" => Transform::Hour,
            "bucket" => Transform::Bucket(read_width(&mut cursor)?),
            "truncate" => Transform::Truncate(read_width(&mut cursor)?),
            _ => {
                let hint = did_you_mean(word, ["identity", "year", "month", "day", "hour", "bucket", "truncate"]);
                cursor.back_to(0);
                return Err(Error::config(format!("{}{hint}", cursor.error(&format!("no transform `{word}`")))));
            }
        };
        let column = ColumnName::new(read_column(&mut cursor)?)?;
        cursor.expect(")")?;
        cursor.end()?;
        Ok(Self { column, transform })
    }
}

fn read_column<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str> {
    cursor.blanks();
    let word = cursor.take_while(|c| !matches!(c, '(' | ')' | ',') && !c.is_whitespace());
    if word.is_empty() { Err(cursor.expected("a column")) } else { Ok(word) }
}

fn read_width(cursor: &mut Cursor<'_>) -> Result<u32> {
    cursor.blanks();
    let start = cursor.position();
    let width = cursor.number()?;
    if width == 0 || width > i32::MAX as u32 {
        cursor.back_to(start);
        return Err(cursor.error("a whole number from 1 to 2147483647 is needed"));
    }
    cursor.expect(",")?;
    Ok(width)
}

impl fmt::Display for PartitionField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = &self.column;
        match self.transform {
            Transform::Identity => write!(f, "{column}"),
            Transform::Year => write!(f, "year({column})"),
            Transform::Month => write!(f, "month({column})"),
            Transform::Day => write!(f, "day({column})"),
            Transform::Hour => write!(f, "hour({column})"),
            Transform::Bucket(count) => write!(f, "bucket({count}, {column})"),
            Transform::Truncate(width) => write!(f, "truncate({width}, {column})"),
        }
    }
}

impl FromStr for SortField {
    type Err = Error;

    /// Reads `c`, `c asc`, `c desc`.
    fn from_str(text: &str) -> Result<Self> {
        let mut cursor = Cursor::new("sort field", text);
        let column = ColumnName::new(read_column(&mut cursor)?)?;
        cursor.blanks();
        let descending = cursor.eat("desc");
        if !descending {
            let _ = cursor.eat("asc");
        }
        cursor.blanks();
        if !cursor.rest().is_empty() {
            return Err(cursor.expected("`asc`, `desc` or the end"));
        }
        Ok(Self { column, descending })
    }
}

impl fmt::Display for SortField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.column, if self.descending { " desc" } else { "" })
    }
}

impl StoreUrl {
    /// Reads `s3://bucket/prefix`, `file:///dir`, or a directory, which is taken relative to `folder`, and that to the
    /// directory of the process: a deployment in `firn.yaml` is the same as one in `./firn.yaml`.
    ///
    /// # Errors
    /// `Config`, naming the text and what is wrong with it.
    pub fn parse(text: &str, folder: &Path) -> Result<Self> {
        let bad = |rule: &str| Error::config(format!("location `{text}` {rule}"));
        if let Some(rest) = text.strip_prefix("s3://").or_else(|| text.strip_prefix("s3a://")) {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-');
            if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(plain) {
                return Err(bad("needs a bucket of 3 to 63 lower-case letters, digits, `.` and `-`"));
            }
            let prefix = prefix.trim_end_matches('/');
            if !prefix.is_empty() && prefix.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
                return Err(bad("has an empty, `.` or `..` part in its prefix"));
            }
            return Ok(Self::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() });
        }
        if let Some(path) = text.strip_prefix("file://") {
            return if path.starts_with('/') {
                Ok(Self::File(tidy(Path::new(path))))
            } else {
                Err(bad("must be absolute after `file://`; write a relative directory without `file://`"))
            };
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(bad(&format!("has the unknown scheme `{scheme}`: use `s3://`, `file://` or a directory")));
        }
        if text.is_empty() {
            return Err(bad("is empty"));
        }
        let path =
            std::path::absolute(folder.join(text)).map_err(|e| bad("is relative to no directory").with_source(e))?;
        Ok(Self::File(tidy(&path)))
    }
}

/// The path without `.` parts and with `..` taken back, so that one directory has one spelling.
pub(super) fn tidy(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip<T: FromStr<Err = Error> + fmt::Display>(text: &str) -> String {
        text.parse::<T>().map_or_else(|error| error.to_string(), |read| read.to_string())
    }

    proptest! {
        #[test]
        fn json_path_reads_back_as_written(keys in prop::collection::vec(".{0,8}", 1..5)) {
            let path = JsonPath(keys);
            prop_assert_eq!(path.to_string().parse::<JsonPath>().unwrap(), path);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,30}") {
            let _ = (round_trip::<JsonPath>(&text), round_trip::<PartitionField>(&text), round_trip::<SortField>(&text));
            let _ = (round_trip::<TimeFormat>(&text), StoreUrl::parse(&text, Path::new("/x")));
        }

        #[test]
        fn partition_and_sort_fields_read_back_as_written(column in "[a-z0-9_]{1,9}", n in 1u32..99, descending: bool) {
            let column = ColumnName::new(column).unwrap();
            for transform in [Transform::Identity, Transform::Hour, Transform::Bucket(n), Transform::Truncate(n)] {
                let field = PartitionField { column: column.clone(), transform };
                prop_assert_eq!(field.to_string().parse::<PartitionField>().unwrap(), field);
            }
            let field = SortField { column, descending };
            prop_assert_eq!(field.to_string().parse::<SortField>().unwrap(), field);
        }
    }

    #[test]
    fn forms_are_read_and_mistakes_named() {
        let paths = [
            "$.a.b",
            "$['id.orig_h']",
            "$[\"x\"].y",
            "$.a-b",
            "",
            "$",
            "a.b",
            "$.",
            "$.a b",
            "$.a[0]",
            "$['a",
            "$['a'x",
            "$a",
        ];
        insta::assert_snapshot!(paths.map(round_trip::<JsonPath>).join("\n"), @r#"
        $.a.b
        $['id.orig_h']
        $.x.y
        $['a-b']
        JSON path ``: expected `$`, but the text ends at character 1
        JSON path `$`: expected a key, as in `$.name`, but the text ends at character 2
        JSON path `a.b`: expected `$`, found `a` at character 1
        JSON path `$.`: expected a key, but the text ends at character 3
        JSON path `$.a b`: expected `.` or `[` (odd keys are quoted: `['a b']`), found ` ` at character 4
        JSON path `$.a[0]`: elements of lists cannot be addressed at character 5
        JSON path `$['a`: expected a closing quote, but the text ends at character 5
        JSON path `$['a'x`: expected `]`, found `x` at character 6
        JSON path `$a`: expected `.` or `[`, found `a` at character 2
        "#);
        let fields = [
            "c",
            "hour( c )",
            "bucket(16,id)",
            "identity(c)",
            "hours(c)",
            "bucket(id)",
            "bucket(0, id)",
            "hour(c",
            "Hour",
            "hour(A)",
        ];
        insta::assert_snapshot!(fields.map(round_trip::<PartitionField>).join("\n"), @r#"
        c
        hour(c)
        bucket(16, id)
        c
        partition field `hours(c)`: no transform `hours` at character 1; did you mean `hour`?
        partition field `bucket(id)`: expected a number, found `i` at character 8
        partition field `bucket(0, id)`: a whole number from 1 to 2147483647 is needed at character 8
        partition field `hour(c`: expected `)`, but the text ends at character 7
        column `Hour` may hold only lower-case ASCII letters, digits and `_`, as Athena requires
        column `A` may hold only lower-case ASCII letters, digits and `_`, as Athena requires
        "#);
        let fields = ["c", "c  desc", "c asc", "c down", "c descx", "a.b"];
        insta::assert_snapshot!(fields.map(round_trip::<SortField>).join("\n"), @r#"
        c
        c desc
        c
        sort field `c down`: expected `asc`, `desc` or the end, found `d` at character 3
        sort field `c descx`: expected `asc`, `desc` or the end, found `x` at character 7
        column `a.b` may hold only lower-case ASCII letters, digits and `_`, as Athena requires
        "#);
        let formats = ["rfc3339", "epochMillis", "%d/%m/%Y", "epochmilis", "iso", "%!"];
        insta::assert_snapshot!(formats.map(round_trip::<TimeFormat>).join("\n"), @r#"
        rfc3339
        epochMillis
        %d/%m/%Y
        no time format `epochmilis`: use `rfc3339`, `epochSeconds`, `epochMillis`, `epochMicros`, `epochNanos`, `epochDays` or a strftime pattern such as `%Y-%m-%d %H:%M:%S`; did you mean `epochMillis`?
        no time format `iso`: use `rfc3339`, `epochSeconds`, `epochMillis`, `epochMicros`, `epochNanos`, `epochDays` or a strftime pattern such as `%Y-%m-%d %H:%M:%S`
        time format `%!` has a `%` sequence that strftime does not know
        "#);
        let formats = ["base64(2)", "base64( 38 )", "bits", "epochDays", "base64", "base64(39)", "base64(2", "bit"];
        insta::assert_snapshot!(formats.map(round_trip::<Format>).join("\n"), @r"
        base64(2)
        base64(38)
        bits
        epochDays
        format `base64`: expected `(`, but the text ends at character 7
        format `base64(39)`: scale 39 is not between 0 and 38 at character 8
        format `base64(2`: expected `)`, but the text ends at character 9
        no time format `bit`: use `rfc3339`, `epochSeconds`, `epochMillis`, `epochMicros`, `epochNanos`, `epochDays` or a strftime pattern such as `%Y-%m-%d %H:%M:%S`
        ");
        let urls = [
            "s3://lake",
            "s3://lake/a/b/",
            "file:///a/./b/../c/",
            "out/raw",
            "s3://x/a",
            "s3://lake/../x",
            "gs://b/c",
            "file://x",
            "",
        ];
        let read = |text| {
            StoreUrl::parse(text, Path::new("/etc/firn")).map_or_else(|error| error.to_string(), |url| url.to_string())
        };
        insta::assert_snapshot!(urls.map(read).join("\n"), @r#"
        s3://lake
        s3://lake/a/b
        file:///a/c
        file:///etc/firn/out/raw
        location `s3://x/a` needs a bucket of 3 to 63 lower-case letters, digits, `.` and `-`
        location `s3://lake/../x` has an empty, `.` or `..` part in its prefix
        location `gs://b/c` has the unknown scheme `gs`: use `s3://`, `file://` or a directory
        location `file://x` must be absolute after `file://`; write a relative directory without `file://`
        location `` is empty
        "#);
        let here = std::path::absolute("raw").unwrap();
        for (folder, text) in [("", "./raw"), (".", "raw"), ("pipelines/..", "raw")] {
            assert_eq!(
                StoreUrl::parse(text, Path::new(folder)).unwrap(),
                StoreUrl::File(here.clone()),
                "{folder} {text}"
            );
        }
    }
}
