//! Columns of single values: the raw text of a JSON value in, an Arrow array out.
//!
//! A leaf may be shorter than its parent: positions that got no value are filled with nulls when the next value comes, or
//! at the end, so that a column that is absent from a record costs that record nothing.

use arrow_array::ArrayRef;
use arrow_schema::ArrowError;
use base64::Engine;
use firn_shared::config::domain::{Format, TimeFormat};
use firn_shared::types::LogicalType;

use super::cursor::{Cursor, Raw};
use super::encoded::{self, is_encoded};
use super::presence::Presence;
use super::reject::{Fault, RejectKind, kind_of};
use super::text::unquote;
use super::values::{Blanks, Values};
use super::{number, time};

const DAY_MICROS: i128 = 86_400_000_000;

/// What leaves share.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Bytes of text and of list elements buffered so far.
    pub bytes: usize,
    /// Room for unescaped text.
    pub scratch: String,
    /// Room for numbers that come in bytes.
    pub digits: String,
}

/// One column of single values.
#[derive(Debug)]
pub(super) struct Leaf {
    reading: Reading,
    validity: Presence,
    /// Of the positions that have one.
    values: Values,
    /// Apart, so that what every value needs lies close together.
    form: Box<Form>,
}

/// What values look like.
#[derive(Debug)]
struct Form {
    logical: LogicalType,
    format: Option<Format>,
    /// The format that the column was declared with, for values whose schema says none.
    declared: Option<Format>,
}

/// How values are read: the commonest ways first, without a look at the format.
#[derive(Debug, Clone, Copy)]
enum Reading {
    Text,
    Long,
    Double,
    Boolean,
    /// In the forms of RFC 3339.
    Timestamp,
    Other,
    /// The value is inside text, see [`super::encoded`].
    Encoded,
}

impl Reading {
    fn of(logical: &LogicalType, format: Option<&Format>) -> Self {
        match (logical, format) {
            (logical, Some(format)) if is_encoded(format, logical) => Self::Encoded,
            (LogicalType::String, _) => Self::Text,
            (LogicalType::Long, _) => Self::Long,
            (LogicalType::Double, _) => Self::Double,
            (LogicalType::Boolean, _) => Self::Boolean,
            (LogicalType::Timestamp | LogicalType::TimestampTz, None | Some(Format::Time(TimeFormat::Rfc3339))) => {
                Self::Timestamp
            }
            _ => Self::Other,
        }
    }
}

impl Leaf {
    /// An empty column; `logical` is not nested.
    pub fn new(logical: LogicalType, format: Option<Format>) -> Self {
        let (reading, values) = (Reading::of(&logical, format.as_ref()), Values::new(&logical));
        let form = Box::new(Form { logical, declared: format.clone(), format });
        Self { reading, validity: Presence::default(), values, form }
    }

    /// The column's type.
    pub fn logical(&self) -> &LogicalType {
        &self.form.logical
    }

    /// Whether values come inside text.
    pub fn is_encoded(&self) -> bool {
        matches!(self.reading, Reading::Encoded)
    }

    /// From now on values have this form; `None` for the one declared.
    pub fn read_as(&mut self, format: Option<Format>) {
        self.form.format = format.or_else(|| self.form.declared.clone());
        self.reading = Reading::of(&self.form.logical, self.form.format.as_ref());
    }

    /// Positions filled so far.
    pub fn len(&self) -> usize {
        self.validity.len()
    }

    /// Bytes that one position takes besides text.
    pub fn width(&self) -> usize {
        self.values.width()
    }

    /// Fills with nulls up to `length`.
    #[inline]
    pub fn pad(&mut self, length: usize) {
        self.validity.pad(length);
    }

    /// Forgets every position from `length` on.
    pub fn truncate(&mut self, length: usize) {
        self.validity.truncate(length);
        self.values.truncate(self.validity.present());
    }

    /// Takes the next value for position `at`, the end of the column or beyond it: at once when it has its type's usual
    /// form.
    #[inline]
    pub fn take(&mut self, cursor: &mut Cursor<'_>, at: usize, meter: &mut Meter) -> Result<(), Fault> {
        let next = cursor.peek()?;
        match self.reading {
            Reading::Text if next == b'"' => {
                let text = unquote(cursor.string()?, &mut meter.scratch);
                meter.bytes += text.len();
                return self.push_text(text, at);
            }
            Reading::Long if next != b'n' => {
                if let Some(value) = cursor.small_integer() {
                    self.push_i64(value, at);
                    return Ok(());
                }
            }
            Reading::Double if next != b'n' => {
                if let Some(value) = cursor.small_decimal() {
                    self.push_f64(value, at);
                    return Ok(());
                }
            }
            Reading::Boolean if next != b'n' => {
                if let Some(value) = cursor.boolean() {
                    self.push_boolean(value, at);
                    return Ok(());
                }
            }
            _ if next == b'n' => return cursor.null(),
            _ => {}
        }
        self.put(cursor.raw()?, at, meter)
    }

    /// Puts the value with this raw JSON text at position `at`, the end of the column or beyond it. Null puts nothing.
    /// A value that does not fit leaves no trace.
    pub fn put(&mut self, raw: Raw<'_>, at: usize, meter: &mut Meter) -> Result<(), Fault> {
        if raw.is_null() {
            return Ok(());
        }
        match self.reading {
            Reading::Text => {
                let text = unquoted(raw, &self.form.logical, &mut meter.scratch)?;
                meter.bytes += text.len();
                self.push_text(text, at)
            }
            Reading::Long => {
                let value =
                    number::long(numeral(raw, &self.form.logical)?.as_bytes()).map_err(|f| f.of(&self.form.logical))?;
                self.push_i64(value, at);
                Ok(())
            }
            Reading::Timestamp => {
                let text = unquoted(raw, &self.form.logical, &mut meter.scratch)?;
                let value = time::timestamp(text.as_bytes()).ok_or_else(|| self.bad_time())?;
                self.push_i64(value, at);
                Ok(())
            }
            Reading::Double | Reading::Boolean | Reading::Other => self.put_other(raw, at, meter),
            Reading::Encoded => self.put_encoded(raw, at, meter),
        }
    }

    /// A value inside text, first brought into the form that the column's type has in JSON.
    fn put_encoded(&mut self, raw: Raw<'_>, at: usize, meter: &mut Meter) -> Result<(), Fault> {
        let mut text = std::mem::take(&mut meter.digits);
        text.clear();
        let mut put = || {
            if let Some(format) = &self.form.format {
                encoded::write_out(raw, format, &self.form.logical, &mut meter.scratch, &mut text)?;
            }
            match self.form.logical {
                LogicalType::String | LogicalType::Json => {
                    meter.bytes += text.len();
                    self.push_text(&text, at)
                }
                LogicalType::Long => {
                    let value = number::long(text.as_bytes()).map_err(|f| f.of(&self.form.logical))?;
                    self.push_i64(value, at);
                    Ok(())
                }
                _ => self.put_other(Raw { text: &text, escaped: false }, at, meter),
            }
        };
        let done = put();
        meter.digits = text;
        done
    }

    fn put_other(&mut self, raw: Raw<'_>, at: usize, meter: &mut Meter) -> Result<(), Fault> {
        let logical = &self.form.logical;
        match logical {
            LogicalType::Boolean => {
                let value = match raw.text {
                    "true" => true,
                    "false" => false,
                    _ => return Err(Fault::wrong_type(logical, kind_of(raw.text))),
                };
                self.push_boolean(value, at);
            }
            LogicalType::Int => {
                let value = number::int(numeral(raw, logical)?.as_bytes()).map_err(|f| f.of(logical))?;
                self.push_i32(value, at);
            }
            LogicalType::Float => {
                let value = number::float(numeral(raw, logical)?).map_err(|f| f.of(logical))?;
                self.pad(at);
                self.validity.push();
                if let Values::F32(v) = &mut self.values {
                    v.push(value);
                }
            }
            LogicalType::Double => {
                let value = number::double(numeral(raw, logical)?).map_err(|f| f.of(logical))?;
                self.push_f64(value, at);
            }
            LogicalType::Decimal { precision, scale } => {
                let value = number::decimal(numeral(raw, logical)?.as_bytes(), *precision, *scale)
                    .map_err(|f| f.of(logical))?;
                self.pad(at);
                self.validity.push();
                if let Values::I128(v) = &mut self.values {
                    v.push(value);
                }
            }
            LogicalType::Date => {
                let value = self.date(raw, meter)?;
                self.push_i32(value, at);
            }
            LogicalType::Time | LogicalType::Timestamp | LogicalType::TimestampTz => {
                let value =
                    if *logical == LogicalType::Time { self.time(raw, meter) } else { self.timestamp(raw, meter) }?;
                self.push_i64(value, at);
            }
            LogicalType::Uuid => {
                let text = unquoted(raw, logical, &mut meter.scratch)?;
                let uuid = (text.len() == 36).then(|| uuid::Uuid::try_parse(text).ok()).flatten();
                let uuid = uuid.ok_or_else(|| Fault::new(RejectKind::BadFormat, "expected uuid, found other text"))?;
                meter.bytes += 36;
                let mut lower = uuid::Uuid::encode_buffer();
                return self.push_text(uuid.hyphenated().encode_lower(&mut lower), at);
            }
            LogicalType::Binary => {
                let text = unquoted(raw, logical, &mut meter.scratch)?;
                let bytes = base64::engine::general_purpose::STANDARD.decode(text);
                let bytes =
                    bytes.map_err(|_| Fault::new(RejectKind::BadFormat, "expected base64, found other text"))?;
                meter.bytes += bytes.len();
                return self.push_bytes(&bytes, at);
            }
            _ => {
                meter.bytes += raw.text.len();
                return self.push_text(raw.text, at);
            }
        }
        Ok(())
    }

    fn date(&self, raw: Raw<'_>, meter: &mut Meter) -> Result<i32, Fault> {
        if let Some(micros) = self.epoch(raw)? {
            return i32::try_from(micros.div_euclid(DAY_MICROS as i64)).map_err(|_| self.bad_time());
        }
        let text = unquoted(raw, &self.form.logical, &mut meter.scratch)?;
        let days = match &self.form.format {
            Some(Format::Time(TimeFormat::Strftime(pattern))) => time::date_by(text, pattern),
            _ => time::date(text.as_bytes()),
        };
        days.ok_or_else(|| self.bad_time())
    }

    fn time(&self, raw: Raw<'_>, meter: &mut Meter) -> Result<i64, Fault> {
        if let Some(micros) = self.epoch(raw)? {
            return if (0..86_400_000_000).contains(&micros) { Ok(micros) } else { Err(self.bad_time()) };
        }
        let text = unquoted(raw, &self.form.logical, &mut meter.scratch)?;
        let micros = match &self.form.format {
            Some(Format::Time(TimeFormat::Strftime(pattern))) => time::time_by(text, pattern),
            // A time of day in UTC is what Debezium's `ZonedTime` is.
            _ => time::time(text.strip_suffix('Z').unwrap_or(text).as_bytes()),
        };
        micros.ok_or_else(|| self.bad_time())
    }

    fn timestamp(&self, raw: Raw<'_>, meter: &mut Meter) -> Result<i64, Fault> {
        if let Some(micros) = self.epoch(raw)? {
            return Ok(micros);
        }
        let text = unquoted(raw, &self.form.logical, &mut meter.scratch)?;
        let micros = match &self.form.format {
            Some(Format::Time(TimeFormat::Strftime(pattern))) => time::timestamp_by(text, pattern),
            _ => time::timestamp(text.as_bytes()),
        };
        micros.ok_or_else(|| self.bad_time())
    }

    /// Microseconds of a number (or a number in text) when the format counts from the epoch; a number without such a
    /// format is refused, as its unit would be a guess. So is what lies beyond the years 1 to 9999: no text, no zone and no
    /// reader of the table would know it (Debezium writes `infinity` of `PostgreSQL` so).
    fn epoch(&self, raw: Raw<'_>) -> Result<Option<i64>, Fault> {
        let (scale, times, over) = match self.form.format {
            Some(Format::Time(TimeFormat::EpochSeconds)) => (6, 1, 1),
            Some(Format::Time(TimeFormat::EpochMillis)) => (3, 1, 1),
            Some(Format::Time(TimeFormat::EpochMicros)) => (0, 1, 1),
            Some(Format::Time(TimeFormat::EpochNanos)) => (0, 1, 1000),
            Some(Format::Time(TimeFormat::EpochDays)) => (0, DAY_MICROS, 1),
            _ => return Ok(None),
        };
        let units = number::scaled_down(numeral(raw, &self.form.logical)?.as_bytes(), scale)
            .map_err(|f| f.of(&self.form.logical))?;
        let micros = units.checked_mul(times).map(|micros| micros.div_euclid(over));
        let micros = micros.and_then(|micros| i64::try_from(micros).ok()).filter(|micros| time::YEARS.contains(micros));
        micros.map(Some).ok_or_else(|| number::NumberFault::Overflow.of(&self.form.logical))
    }

    #[cold]
    fn bad_time(&self) -> Fault {
        let form = match &self.form.format {
            Some(Format::Time(TimeFormat::Strftime(pattern))) => format!(" as {pattern}"),
            _ => String::new(),
        };
        Fault::new(RejectKind::BadFormat, format!("expected {}{form}, found other text", self.form.logical))
    }

    fn push_i32(&mut self, value: i32, at: usize) {
        self.pad(at);
        self.validity.push();
        if let Values::I32(v) = &mut self.values {
            v.push(value);
        }
    }

    #[inline]
    fn push_i64(&mut self, value: i64, at: usize) {
        self.pad(at);
        self.validity.push();
        if let Values::I64(v) = &mut self.values {
            v.push(value);
        }
    }

    #[inline]
    fn push_f64(&mut self, value: f64, at: usize) {
        self.pad(at);
        self.validity.push();
        if let Values::F64(v) = &mut self.values {
            v.push(value);
        }
    }

    #[inline]
    fn push_boolean(&mut self, value: bool, at: usize) {
        self.pad(at);
        self.validity.push();
        if let Values::Bits(v) = &mut self.values {
            v.push(value);
        }
    }

    /// Puts text at position `at`.
    #[inline]
    pub fn push_text(&mut self, value: &str, at: usize) -> Result<(), Fault> {
        self.push_bytes(value.as_bytes(), at)
    }

    /// Puts bytes at position `at`; into a column of text, only what is text.
    #[inline]
    fn push_bytes(&mut self, value: &[u8], at: usize) -> Result<(), Fault> {
        self.pad(at);
        let Values::Bytes { ends, data } = &mut self.values else { return Ok(()) };
        let end = i32::try_from(data.len() + value.len());
        let end = end.map_err(|_| Fault::new(RejectKind::TooLarge, "column buffer would pass 2 GiB"))?;
        data.extend_from_slice(value);
        ends.push(end);
        self.validity.push();
        Ok(())
    }

    /// The column as an array of `length`; the leaf is empty afterwards.
    pub fn finish(&mut self, length: usize, blanks: &mut Blanks) -> Result<ArrayRef, ArrowError> {
        self.pad(length);
        let nulls = self.validity.finish();
        self.values.finish(&self.form.logical, length, nulls, blanks)
    }
}

#[inline]
pub(super) fn unquoted<'a>(raw: Raw<'a>, logical: &LogicalType, scratch: &'a mut String) -> Result<&'a str, Fault> {
    if raw.text.starts_with('"') {
        Ok(unquote(raw, scratch))
    } else {
        Err(Fault::wrong_type(logical, kind_of(raw.text)))
    }
}

/// The text of a number, or of a string that holds one (escapes in it make it none).
#[inline]
pub(super) fn numeral<'a>(raw: Raw<'a>, logical: &LogicalType) -> Result<&'a str, Fault> {
    match raw.text.as_bytes()[0] {
        b'-' | b'0'..=b'9' => Ok(raw.text),
        b'"' => {
            let inner = &raw.text[1..raw.text.len() - 1];
            if number::is_number(inner.as_bytes()) {
                Ok(inner)
            } else {
                Err(number::NumberFault::Malformed.of(logical))
            }
        }
        _ => Err(Fault::wrong_type(logical, kind_of(raw.text))),
    }
}
