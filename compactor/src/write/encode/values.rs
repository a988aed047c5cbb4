//! The values of a column chunk: distinct ones in a dictionary as long as that pays, else one after the other.

use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, ByteArrayType, Date32Type, Decimal128Type, Float32Type, Float64Type, GenericBinaryType,
    GenericStringType, Int32Type, Int64Type, Time64MicrosecondType, TimestampMicrosecondType, TimestampNanosecondType,
};
use arrow_array::{Array, GenericByteArray, OffsetSizeTrait};
use arrow_buffer::{ArrowNativeType, BooleanBufferBuilder, ToByteSlice};
use arrow_schema::{DataType, TimeUnit};
use parquet::basic::{Encoding, Type};

use super::bounds::{Bounds, widen, widen_bytes};
use super::dictionary::{Numbers, Texts};
use super::hybrid::{Hybrid, width_of};

/// A first page of fewer values does not tell whether they repeat.
const DECIDE_AT: usize = 512;

/// The distinct values, if they are numbered.
#[derive(Debug)]
enum Dictionary {
    None,
    Numbers(Numbers),
    Texts(Texts),
}

/// The values of a chunk under construction.
#[derive(Debug)]
pub(super) struct Values {
    physical: Type,
    bounds: Bounds,
    dictionary: Dictionary,
    /// Whether new values are numbered; else they are written plainly.
    numbering: bool,
    /// Pages that refer to the dictionary.
    numbered_pages: usize,
    /// The page's values: their numbers, or their plain form.
    numbers: Vec<u32>,
    plain: Vec<u8>,
    bits: BooleanBufferBuilder,
    /// How many values the page has, and what they take plainly, bytes.
    count: usize,
    bytes: usize,
}

/// Whether an array of this type can be written as this physical type here.
pub(super) fn takes(arrow: &DataType, physical: Type) -> bool {
    use DataType as D;
    match physical {
        Type::BOOLEAN => matches!(arrow, D::Boolean),
        Type::INT32 => matches!(arrow, D::Int32 | D::Date32 | D::Decimal128(..)),
        Type::INT64 => matches!(
            arrow,
            D::Int64
                | D::Decimal128(..)
                | D::Time64(TimeUnit::Microsecond)
                | D::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, _)
        ),
        Type::FLOAT => matches!(arrow, D::Float32),
        Type::DOUBLE => matches!(arrow, D::Float64),
        Type::BYTE_ARRAY => matches!(arrow, D::Utf8 | D::LargeUtf8 | D::Binary | D::LargeBinary),
        Type::INT96 | Type::FIXED_LEN_BYTE_ARRAY => false,
    }
}

/// A number as Parquet has it: its bits, its bytes, its order.
trait Number: Copy + PartialOrd {
    fn bits(self) -> u64;
    fn append(values: &[Self], to: &mut Vec<u8>);
    fn bounds(bounds: &mut Bounds) -> Option<&mut Option<(Self, Self)>>;
}

macro_rules! number {
    ($type:ty, $bounds:ident, $bits:expr) => {
        impl Number for $type {
            #[inline]
            fn bits(self) -> u64 {
                $bits(self)
            }
            fn append(values: &[Self], to: &mut Vec<u8>) {
                if cfg!(target_endian = "little") {
                    to.extend_from_slice(values.to_byte_slice());
                } else {
                    for value in values {
                        to.extend_from_slice(&value.to_le_bytes());
                    }
                }
            }
            fn bounds(bounds: &mut Bounds) -> Option<&mut Option<(Self, Self)>> {
                if let Bounds::$bounds(bounds) = bounds { Some(bounds) } else { None }
            }
        }
    };
}
number!(i32, Int32, |v: i32| u64::from(v.cast_unsigned()));
number!(i64, Int64, |v: i64| v.cast_unsigned());
number!(f32, Float, |v: f32| u64::from(v.to_bits()));
number!(f64, Double, |v: f64| v.to_bits());

impl Values {
    pub fn new(physical: Type, numbering: bool) -> Self {
        let (dictionary, bounds) = match physical {
            Type::BOOLEAN => (Dictionary::None, Bounds::Boolean(None)),
            Type::INT32 => (Dictionary::Numbers(Numbers::new()), Bounds::Int32(None)),
            Type::FLOAT => (Dictionary::Numbers(Numbers::new()), Bounds::Float(None)),
            Type::DOUBLE => (Dictionary::Numbers(Numbers::new()), Bounds::Double(None)),
            Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY => (Dictionary::Texts(Texts::new()), Bounds::Bytes(None)),
            Type::INT64 | Type::INT96 => (Dictionary::Numbers(Numbers::new()), Bounds::Int64(None)),
        };
        let numbering = numbering && physical != Type::BOOLEAN;
        Self {
            physical,
            bounds,
            dictionary: if numbering { dictionary } else { Dictionary::None },
            numbering,
            numbered_pages: 0,
            numbers: Vec::new(),
            plain: Vec::new(),
            bits: BooleanBufferBuilder::new(0),
            count: 0,
            bytes: 0,
        }
    }

    /// Appends the values at `ranges` of an array, none of them null. The type is one that [`takes`] accepts.
    pub fn extend(&mut self, array: &dyn Array, ranges: &[Range<usize>]) {
        use DataType as D;
        self.count += ranges.iter().map(ExactSizeIterator::len).sum::<usize>();
        match (array.data_type(), self.physical) {
            (D::Boolean, _) => {
                let values = array.as_boolean().values();
                for range in ranges {
                    let offset = values.offset();
                    self.bits.append_packed_range(range.start + offset..range.end + offset, values.values());
                }
            }
            (D::Int32, _) => self.primitives::<Int32Type>(array, ranges),
            (D::Date32, _) => self.primitives::<Date32Type>(array, ranges),
            (D::Int64, _) => self.primitives::<Int64Type>(array, ranges),
            (D::Time64(_), _) => self.primitives::<Time64MicrosecondType>(array, ranges),
            (D::Timestamp(TimeUnit::Nanosecond, _), _) => self.primitives::<TimestampNanosecondType>(array, ranges),
            (D::Timestamp(..), _) => self.primitives::<TimestampMicrosecondType>(array, ranges),
            (D::Float32, _) => self.primitives::<Float32Type>(array, ranges),
            (D::Float64, _) => self.primitives::<Float64Type>(array, ranges),
            // The precision is what makes the values fit.
            (D::Decimal128(..), Type::INT32) => {
                let values: Vec<i32> =
                    array.as_primitive::<Decimal128Type>().values().iter().map(|v| *v as i32).collect();
                self.slices(&values, ranges);
            }
            (D::Decimal128(..), _) => {
                let values: Vec<i64> =
                    array.as_primitive::<Decimal128Type>().values().iter().map(|v| *v as i64).collect();
                self.slices(&values, ranges);
            }
            (D::Utf8, _) => self.bytes_of::<GenericStringType<i32>>(array.as_bytes(), ranges),
            (D::LargeUtf8, _) => self.bytes_of::<GenericStringType<i64>>(array.as_bytes(), ranges),
            (D::Binary, _) => self.bytes_of::<GenericBinaryType<i32>>(array.as_bytes(), ranges),
            (D::LargeBinary, _) => self.bytes_of::<GenericBinaryType<i64>>(array.as_bytes(), ranges),
            (other, _) => debug_assert!(false, "{other} is not taken here"),
        }
    }

    fn primitives<T: ArrowPrimitiveType<Native: Number>>(&mut self, array: &dyn Array, ranges: &[Range<usize>]) {
        self.slices(array.as_primitive::<T>().values(), ranges);
    }

    fn slices<T: Number>(&mut self, values: &[T], ranges: &[Range<usize>]) {
        for range in ranges {
            let values = &values[range.clone()];
            self.bytes += size_of_val(values);
            let numbered = self.number(values);
            if numbered < values.len() {
                self.plain(&values[numbered..]);
            }
        }
    }

    /// Numbers values as long as the dictionary takes them; answers how many.
    fn number<T: Number>(&mut self, values: &[T]) -> usize {
        if !self.numbering {
            return 0;
        }
        let Dictionary::Numbers(dictionary) = &mut self.dictionary else { return 0 };
        self.numbers.reserve(values.len());
        let mut last: Option<(u64, u32)> = None;
        for (i, value) in values.iter().enumerate() {
            let bits = value.bits();
            let number = match last {
                Some((same, number)) if same == bits => number,
                _ => match dictionary.find(bits) {
                    Some((number, new)) => {
                        if new
                            && value.partial_cmp(value).is_some()
                            && let Some(bounds) = T::bounds(&mut self.bounds)
                        {
                            widen(bounds, *value, *value);
                        }
                        number
                    }
                    None => {
                        self.stop_numbering();
                        return i;
                    }
                },
            };
            last = Some((bits, number));
            self.numbers.push(number);
        }
        values.len()
    }

    fn plain<T: Number>(&mut self, values: &[T]) {
        T::append(values, &mut self.plain);
        // NaN is neither above nor below anything.
        let mut ordered = values.iter().copied().filter(|v| v.partial_cmp(v).is_some());
        if let Some(first) = ordered.next()
            && let Some(bounds) = T::bounds(&mut self.bounds)
        {
            let (low, high) = ordered.fold((first, first), |(low, high), v| {
                (if v < low { v } else { low }, if v > high { v } else { high })
            });
            widen(bounds, low, high);
        }
    }

    fn bytes_of<T: ByteArrayType<Offset: OffsetSizeTrait>>(
        &mut self,
        array: &GenericByteArray<T>,
        ranges: &[Range<usize>],
    ) {
        let (offsets, data) = (array.value_offsets(), array.value_data());
        let value = |i: usize| -> &[u8] { &data[offsets[i].as_usize()..offsets[i + 1].as_usize()] };
        for range in ranges {
            self.bytes += offsets[range.end].as_usize() - offsets[range.start].as_usize() + 4 * range.len();
            let mut range = range.clone();
            if self.numbering {
                range.start += self.number_texts(range.clone(), value);
            }
            if range.is_empty() {
                continue;
            }
            let first = value(range.start);
            let (mut low, mut high) = (first, first);
            for i in range {
                let value = value(i);
                (low, high) = (low.min(value), high.max(value));
                self.plain.extend_from_slice(&(value.len() as u32).to_le_bytes());
                self.plain.extend_from_slice(value);
            }
            if let Bounds::Bytes(bounds) = &mut self.bounds {
                widen_bytes(bounds, low);
                widen_bytes(bounds, high);
            }
        }
    }

    /// Numbers texts as long as the dictionary takes them; answers how many.
    fn number_texts<'a>(&mut self, range: Range<usize>, value: impl Fn(usize) -> &'a [u8]) -> usize {
        let Dictionary::Texts(dictionary) = &mut self.dictionary else { return 0 };
        self.numbers.reserve(range.len());
        let mut last: Option<(&[u8], u32)> = None;
        for i in range.clone() {
            let value = value(i);
            let number = match last {
                Some((same, number)) if same == value => number,
                _ => match dictionary.find(value) {
                    Some((number, new)) => {
                        if new && let Bounds::Bytes(bounds) = &mut self.bounds {
                            widen_bytes(bounds, value);
                        }
                        number
                    }
                    None => {
                        self.stop_numbering();
                        return i - range.start;
                    }
                },
            };
            last = Some((value, number));
            self.numbers.push(number);
        }
        range.len()
    }

    /// Writes the page's values plainly from now on, those that have numbers first. The dictionary stays if earlier
    /// pages refer to it.
    #[cold]
    fn stop_numbering(&mut self) {
        self.numbering = false;
        let narrow = matches!(self.physical, Type::INT32 | Type::FLOAT);
        match &self.dictionary {
            Dictionary::Numbers(dictionary) => {
                for number in &self.numbers {
                    let bytes = dictionary.values()[*number as usize].to_le_bytes();
                    self.plain.extend_from_slice(if narrow { &bytes[..4] } else { &bytes });
                }
            }
            Dictionary::Texts(dictionary) => {
                for number in &self.numbers {
                    let value = dictionary.get(*number);
                    self.plain.extend_from_slice(&(value.len() as u32).to_le_bytes());
                    self.plain.extend_from_slice(value);
                }
            }
            Dictionary::None => {}
        }
        self.numbers = Vec::new();
        if self.numbered_pages == 0 {
            self.dictionary = Dictionary::None;
        }
    }

    /// Bytes that the page's values will take, about.
    pub fn page_bytes(&self) -> usize {
        self.plain.len() + self.bits.len() / 8 + self.numbers.len() * usize::from(self.number_width()) / 8
    }

    /// Bytes held in memory.
    pub fn memory(&self) -> usize {
        let dictionary = match &self.dictionary {
            Dictionary::None => 0,
            Dictionary::Numbers(numbers) => numbers.memory(),
            Dictionary::Texts(texts) => texts.memory(),
        };
        dictionary + self.plain.capacity() + self.bits.capacity() / 8 + 4 * self.numbers.capacity()
    }

    /// Bytes of the dictionary page.
    pub fn dictionary_bytes(&self) -> usize {
        match &self.dictionary {
            Dictionary::None => 0,
            Dictionary::Numbers(numbers) if matches!(self.physical, Type::INT32 | Type::FLOAT) => {
                numbers.values().len() * 4
            }
            Dictionary::Numbers(numbers) => numbers.values().len() * 8,
            Dictionary::Texts(texts) => texts.page().len(),
        }
    }

    fn number_width(&self) -> u8 {
        let count = match &self.dictionary {
            Dictionary::None => 0,
            Dictionary::Numbers(numbers) => numbers.values().len(),
            Dictionary::Texts(texts) => texts.len(),
        };
        width_of(count.saturating_sub(1) as u32)
    }

    /// Ends the page: appends its values and answers their encoding, and for texts how many bytes of text they are.
    pub fn end_page(&mut self, to: &mut Vec<u8>) -> (Encoding, Option<i64>) {
        if let Bounds::Boolean(bounds) = &mut self.bounds {
            let trues = self.bits.as_slice().iter().map(|b| b.count_ones() as usize).sum::<usize>();
            if trues > 0 {
                widen(bounds, true, true);
            }
            if trues < self.bits.len() {
                widen(bounds, false, false);
            }
            to.extend_from_slice(self.bits.as_slice());
            self.bits.truncate(0);
            self.count = 0;
            return (Encoding::PLAIN, None);
        }
        let (count, bytes) = (std::mem::take(&mut self.count), std::mem::take(&mut self.bytes));
        // The first page tells whether values repeat: a dictionary as large as the values themselves is time lost.
        let with_dictionary = self.page_bytes() + self.dictionary_bytes();
        let undecided = self.numbering && self.numbered_pages == 0 && count >= DECIDE_AT;
        if undecided && with_dictionary * 10 > bytes * 9 {
            self.stop_numbering();
        }
        let text = matches!(self.bounds, Bounds::Bytes(_)).then(|| (bytes - 4 * count) as i64);
        if self.numbering {
            let width = self.number_width();
            to.push(width);
            let mut hybrid = Hybrid::new(width);
            hybrid.extend(&self.numbers);
            hybrid.finish_into(to);
            self.numbers.clear();
            self.numbered_pages += 1;
            (Encoding::RLE_DICTIONARY, text)
        } else {
            to.extend_from_slice(&self.plain);
            self.plain.clear();
            (Encoding::PLAIN, text)
        }
    }

    /// The dictionary page, how many values it has, and the bounds of all values.
    pub fn finish(self) -> (Option<(Vec<u8>, usize)>, Bounds) {
        let narrow = matches!(self.physical, Type::INT32 | Type::FLOAT);
        let dictionary = match &self.dictionary {
            _ if self.numbered_pages == 0 => None,
            Dictionary::None => None,
            Dictionary::Numbers(numbers) => {
                let width = if narrow { 4 } else { 8 };
                let bytes = numbers.values().iter().flat_map(|v| v.to_le_bytes().into_iter().take(width)).collect();
                Some((bytes, numbers.values().len()))
            }
            Dictionary::Texts(texts) => Some((texts.page().to_vec(), texts.len())),
        };
        (dictionary, self.bounds)
    }
}
