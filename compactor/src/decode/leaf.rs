//! Columns of single values: the raw text of a JSON value in, an Arrow array out.
//!
//! A leaf may be shorter than its parent: positions that got no value are filled with nulls when the next value comes, or
//! at the end, so that a column that is absent from a record costs that record nothing.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array,
    Int64Array, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow_buffer::{BooleanBufferBuilder, NullBuffer, NullBufferBuilder, OffsetBuffer, ScalarBuffer};
use arrow_schema::ArrowError;
use base64::Engine;
use firn_shared::config::domain::{Format, TimeFormat};
use firn_shared::types::LogicalType;

use super::cursor::Raw;
use super::encoded::{self, is_encoded};
use super::reject::{Fault, RejectKind, kind_of};
use super::text::unquote;
use super::trusted::string_array;
use super::{number, time};
use crate::arrow_types::UTC;

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
    logical: LogicalType,
    reading: Reading,
    format: Option<Format>,
    /// The form that the column was declared with, for values whose schema says none.
    declared: Option<Format>,
    validity: NullBufferBuilder,
    values: Values,
}

/// How values are read: the two commonest ways first, without a look at the format.
#[derive(Debug, Clone, Copy)]
enum Reading {
    Text,
    Long,
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
            _ => Self::Other,
        }
    }
}

#[derive(Debug)]
enum Values {
    Bits(BooleanBufferBuilder),
    I32(Vec<i32>),
    I64(Vec<i64>),
    I128(Vec<i128>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bytes { offsets: Vec<i32>, data: Vec<u8> },
}

impl Leaf {
    /// An empty column; `logical` is not nested.
    pub fn new(logical: LogicalType, format: Option<Format>) -> Self {
        let values = match &logical {
            LogicalType::Boolean => Values::Bits(BooleanBufferBuilder::new(0)),
            LogicalType::Int | LogicalType::Date => Values::I32(Vec::new()),
            LogicalType::Float => Values::F32(Vec::new()),
            LogicalType::Double => Values::F64(Vec::new()),
            LogicalType::Decimal { .. } => Values::I128(Vec::new()),
            LogicalType::Long | LogicalType::Time | LogicalType::Timestamp | LogicalType::TimestampTz => {
                Values::I64(Vec::new())
            }
            _ => Values::Bytes { offsets: vec![0], data: Vec::new() },
        };
        let reading = Reading::of(&logical, format.as_ref());
        Self { logical, reading, declared: format.clone(), format, validity: NullBufferBuilder::new(0), values }
    }

    /// The column's type.
    pub fn logical(&self) -> &LogicalType {
        &self.logical
    }

    /// Whether values come inside text.
    pub fn is_encoded(&self) -> bool {
        matches!(self.reading, Reading::Encoded)
    }

    /// From now on values have this form; `None` for the one declared.
    pub fn read_as(&mut self, format: Option<Format>) {
        self.format = format.or_else(|| self.declared.clone());
        self.reading = Reading::of(&self.logical, self.format.as_ref());
    }

    /// Positions filled so far.
    pub fn len(&self) -> usize {
        self.validity.len()
    }

    /// Bytes that one position takes besides text.
    pub fn width(&self) -> usize {
        match &self.values {
            Values::Bits(_) => 1,
            Values::I32(_) | Values::F32(_) | Values::Bytes { .. } => 4,
            Values::I64(_) | Values::F64(_) => 8,
            Values::I128(_) => 16,
        }
    }

    /// Fills with nulls up to `length`.
    pub fn pad(&mut self, length: usize) {
        let missing = length.saturating_sub(self.len());
        if missing == 0 {
            return;
        }
        self.validity.append_n_nulls(missing);
        match &mut self.values {
            Values::Bits(v) => v.append_n(missing, false),
            Values::I32(v) => v.resize(length, 0),
            Values::I64(v) => v.resize(length, 0),
            Values::I128(v) => v.resize(length, 0),
            Values::F32(v) => v.resize(length, 0.0),
            Values::F64(v) => v.resize(length, 0.0),
            Values::Bytes { offsets, data } => offsets.resize(length + 1, data.len() as i32),
        }
    }

    /// Forgets every position from `length` on.
    pub fn truncate(&mut self, length: usize) {
        if length >= self.len() {
            return;
        }
        self.validity.truncate(length);
        match &mut self.values {
            Values::Bits(v) => v.truncate(length),
            Values::I32(v) => v.truncate(length),
            Values::I64(v) => v.truncate(length),
            Values::I128(v) => v.truncate(length),
            Values::F32(v) => v.truncate(length),
            Values::F64(v) => v.truncate(length),
            Values::Bytes { offsets, data } => {
                offsets.truncate(length + 1);
                data.truncate(offsets.last().map_or(0, |end| *end as usize));
            }
        }
    }

    /// Puts the value with this raw JSON text at position `at`, the end of the column or beyond it. Null puts nothing.
    /// A value that does not fit leaves no trace.
    pub fn put(&mut self, raw: Raw<'_>, at: usize, meter: &mut Meter) -> Result<(), Fault> {
        if raw.is_null() {
            return Ok(());
        }
        match self.reading {
            Reading::Text => {
                let text = unquoted(raw, &self.logical, &mut meter.scratch)?;
                meter.bytes += text.len();
                self.push_text(text, at)
            }
            Reading::Long => {
                let value = number::long(numeral(raw, &self.logical)?.as_bytes()).map_err(|f| f.of(&self.logical))?;
                self.push_i64(value, at);
                Ok(())
            }
            Reading::Other => self.put_other(raw, at, meter),
            Reading::Encoded => self.put_encoded(raw, at, meter),
        }
    }

    /// A value inside text, first brought into the form that the column's type has in JSON.
    fn put_encoded(&mut self, raw: Raw<'_>, at: usize, meter: &mut Meter) -> Result<(), Fault> {
        let mut text = std::mem::take(&mut meter.digits);
        text.clear();
        let mut put = || {
            if let Some(format) = &self.format {
                encoded::write_out(raw, format, &self.logical, &mut meter.scratch, &mut text)?;
            }
            match self.logical {
                LogicalType::String | LogicalType::Json => {
                    meter.bytes += text.len();
                    self.push_text(&text, at)
                }
                LogicalType::Long => {
                    let value = number::long(text.as_bytes()).map_err(|f| f.of(&self.logical))?;
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
        let logical = &self.logical;
        match logical {
            LogicalType::Boolean => {
                let value = match raw.text {
                    "true" => true,
                    "false" => false,
                    _ => return Err(Fault::wrong_type(logical, kind_of(raw.text))),
                };
                self.pad(at);
                self.validity.append_non_null();
                if let Values::Bits(v) = &mut self.values {
                    v.append(value);
                }
            }
            LogicalType::Int => {
                let value = number::int(numeral(raw, logical)?.as_bytes()).map_err(|f| f.of(logical))?;
                self.push_i32(value, at);
            }
            LogicalType::Float => {
                let value = number::float(numeral(raw, logical)?).map_err(|f| f.of(logical))?;
                self.pad(at);
                self.validity.append_non_null();
                if let Values::F32(v) = &mut self.values {
                    v.push(value);
                }
            }
            LogicalType::Double => {
                let value = number::double(numeral(raw, logical)?).map_err(|f| f.of(logical))?;
                self.pad(at);
                self.validity.append_non_null();
                if let Values::F64(v) = &mut self.values {
                    v.push(value);
                }
            }
            LogicalType::Decimal { precision, scale } => {
                let value = number::decimal(numeral(raw, logical)?.as_bytes(), *precision, *scale)
                    .map_err(|f| f.of(logical))?;
                self.pad(at);
                self.validity.append_non_null();
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
            return i32::try_from(micros.div_euclid(86_400_000_000)).map_err(|_| self.bad_time());
        }
        let text = unquoted(raw, &self.logical, &mut meter.scratch)?;
        let days = match &self.format {
            Some(Format::Time(TimeFormat::Strftime(pattern))) => time::date_by(text, pattern),
            _ => time::date(text.as_bytes()),
        };
        days.ok_or_else(|| self.bad_time())
    }

    fn time(&self, raw: Raw<'_>, meter: &mut Meter) -> Result<i64, Fault> {
        if let Some(micros) = self.epoch(raw)? {
            return if (0..86_400_000_000).contains(&micros) { Ok(micros) } else { Err(self.bad_time()) };
        }
        let text = unquoted(raw, &self.logical, &mut meter.scratch)?;
        let micros = match &self.format {
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
        let text = unquoted(raw, &self.logical, &mut meter.scratch)?;
        let micros = match &self.format {
            Some(Format::Time(TimeFormat::Strftime(pattern))) => time::timestamp_by(text, pattern),
            _ => time::timestamp(text.as_bytes()),
        };
        micros.ok_or_else(|| self.bad_time())
    }

    /// Microseconds of a number (or a number in text) when the format counts from the epoch; a number without such a
    /// format is refused, as its unit would be a guess.
    fn epoch(&self, raw: Raw<'_>) -> Result<Option<i64>, Fault> {
        let (scale, times, over) = match self.format {
            Some(Format::Time(TimeFormat::EpochSeconds)) => (6, 1, 1),
            Some(Format::Time(TimeFormat::EpochMillis)) => (3, 1, 1),
            Some(Format::Time(TimeFormat::EpochMicros)) => (0, 1, 1),
            Some(Format::Time(TimeFormat::EpochNanos)) => (0, 1, 1000),
            Some(Format::Time(TimeFormat::EpochDays)) => (0, DAY_MICROS, 1),
            _ => return Ok(None),
        };
        let units =
            number::scaled_down(numeral(raw, &self.logical)?.as_bytes(), scale).map_err(|f| f.of(&self.logical))?;
        let micros = units.checked_mul(times).map(|micros| micros.div_euclid(over));
        let micros = micros.and_then(|micros| i64::try_from(micros).ok());
        micros.map(Some).ok_or_else(|| number::NumberFault::Overflow.of(&self.logical))
    }

    #[cold]
    fn bad_time(&self) -> Fault {
        let form = match &self.format {
            Some(Format::Time(TimeFormat::Strftime(pattern))) => format!(" as {pattern}"),
            _ => String::new(),
        };
        Fault::new(RejectKind::BadFormat, format!("expected {}{form}, found other text", self.logical))
    }

    fn push_i32(&mut self, value: i32, at: usize) {
        self.pad(at);
        self.validity.append_non_null();
        if let Values::I32(v) = &mut self.values {
            v.push(value);
        }
    }

    fn push_i64(&mut self, value: i64, at: usize) {
        self.pad(at);
        self.validity.append_non_null();
        if let Values::I64(v) = &mut self.values {
            v.push(value);
        }
    }

    /// Puts text at position `at`.
    #[inline]
    pub fn push_text(&mut self, value: &str, at: usize) -> Result<(), Fault> {
        self.push_bytes(value.as_bytes(), at)
    }

    /// Puts bytes at position `at`; into a column of text, only what is text.
    fn push_bytes(&mut self, value: &[u8], at: usize) -> Result<(), Fault> {
        self.pad(at);
        let Values::Bytes { offsets, data } = &mut self.values else { return Ok(()) };
        let end = i32::try_from(data.len() + value.len());
        let end = end.map_err(|_| Fault::new(RejectKind::TooLarge, "column buffer would pass 2 GiB"))?;
        data.extend_from_slice(value);
        offsets.push(end);
        self.validity.append_non_null();
        Ok(())
    }

    /// The column as an array of `length`; the leaf is empty afterwards.
    pub fn finish(&mut self, length: usize) -> Result<ArrayRef, ArrowError> {
        self.pad(length);
        let nulls = self.validity.finish();
        Ok(match (&mut self.values, &self.logical) {
            (Values::Bits(v), _) => Arc::new(BooleanArray::new(v.finish(), nulls)),
            (Values::I32(v), LogicalType::Date) => Arc::new(Date32Array::try_new(take(v), nulls)?),
            (Values::I32(v), _) => Arc::new(Int32Array::try_new(take(v), nulls)?),
            (Values::F32(v), _) => Arc::new(Float32Array::try_new(take(v), nulls)?),
            (Values::F64(v), _) => Arc::new(Float64Array::try_new(take(v), nulls)?),
            (Values::I64(v), LogicalType::Time) => Arc::new(Time64MicrosecondArray::try_new(take(v), nulls)?),
            (Values::I64(v), LogicalType::Timestamp) => Arc::new(TimestampMicrosecondArray::try_new(take(v), nulls)?),
            (Values::I64(v), LogicalType::TimestampTz) => {
                Arc::new(TimestampMicrosecondArray::try_new(take(v), nulls)?.with_timezone(UTC))
            }
            (Values::I64(v), _) => Arc::new(Int64Array::try_new(take(v), nulls)?),
            (Values::I128(v), LogicalType::Decimal { precision, scale }) => {
                Arc::new(Decimal128Array::try_new(take(v), nulls)?.with_precision_and_scale(*precision, *scale as i8)?)
            }
            (Values::I128(v), _) => Arc::new(Decimal128Array::try_new(take(v), nulls)?),
            (Values::Bytes { offsets, data }, logical) => finish_bytes(offsets, data, logical, nulls)?,
        })
    }
}

/// The values as a buffer; what stays behind has room for as many.
fn take<T: arrow_buffer::ArrowNativeType>(values: &mut Vec<T>) -> ScalarBuffer<T> {
    let fresh = Vec::with_capacity(values.len());
    std::mem::replace(values, fresh).into()
}

fn finish_bytes(
    offsets: &mut Vec<i32>,
    data: &mut Vec<u8>,
    logical: &LogicalType,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, ArrowError> {
    let mut fresh = Vec::with_capacity(offsets.len());
    fresh.push(0);
    let offsets = OffsetBuffer::new(std::mem::replace(offsets, fresh).into());
    let room = Vec::with_capacity(data.len());
    let data = std::mem::replace(data, room).into();
    Ok(match logical {
        LogicalType::Binary => Arc::new(BinaryArray::try_new(offsets, data, nulls)?),
        _ => Arc::new(string_array(offsets, data, nulls)),
    })
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
