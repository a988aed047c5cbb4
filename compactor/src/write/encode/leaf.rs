//! One leaf of the schema: the levels and values of its column chunk.

use std::ops::Range;

use arrow_array::Array;
use bytes::Bytes;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::LevelHistogram;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnDescPtr;

use super::hybrid::{Hybrid, width_of};
use super::pages::{About, Codec, Pages, RawPage};
use super::shape::{Run, Shape};
use super::values::Values;

/// A page ends at about this many bytes.
const PAGE_BYTES: usize = 1 << 20;
/// A page ends at this many rows, if it has enough bytes to be worth one.
const PAGE_ROWS: usize = 20_000;
const PAGE_BYTES_MIN: usize = 4 << 10;
/// A page ends at this many rows, however small it is.
const PAGE_ROWS_MAX: usize = 1 << 18;

/// Definition or repetition levels.
#[derive(Debug)]
struct Levels {
    hybrid: Hybrid,
    /// How often each level comes in the chunk.
    counts: Vec<i64>,
}

impl Levels {
    /// Levels up to `max`; none when that is zero, as Parquet leaves them out.
    fn new(max: i16) -> Option<Self> {
        let max = u32::try_from(max).ok().filter(|max| *max > 0)?;
        Some(Self { hybrid: Hybrid::new(width_of(max)), counts: vec![0; max as usize + 1] })
    }

    #[inline]
    fn repeat(&mut self, level: u32, count: usize) {
        self.hybrid.repeat(level, count);
        self.counts[level as usize] += count as i64;
    }

    /// Appends the page's levels after their length.
    fn end_page(&mut self, to: &mut Vec<u8>) {
        let start = to.len();
        to.extend_from_slice(&[0; 4]);
        self.hybrid.finish_into(to);
        let length = (to.len() - start - 4) as u32;
        to[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }
}

/// A column chunk under construction.
#[derive(Debug)]
pub(super) struct Leaf {
    column: ColumnDescPtr,
    statistics: bool,
    truncate: Option<usize>,
    definition: Option<Levels>,
    repetition: Option<Levels>,
    values: Values,
    /// Of the page in progress.
    slots: usize,
    rows: usize,
    /// Of the pages before it.
    slots_before: usize,
    rows_before: usize,
    nulls: usize,
    pages: Pages,
}

impl Leaf {
    pub fn new(column: ColumnDescPtr, properties: &WriterProperties) -> Self {
        let path = column.path();
        Self {
            statistics: properties.statistics_enabled(path) != EnabledStatistics::None,
            truncate: properties.statistics_truncate_length(),
            definition: Levels::new(column.max_def_level()),
            repetition: Levels::new(column.max_rep_level()),
            values: Values::new(column.physical_type(), properties.dictionary_enabled(path)),
            slots: 0,
            rows: 0,
            slots_before: 0,
            rows_before: 0,
            nulls: 0,
            pages: Pages::new(properties.compression(path)),
            column,
        }
    }

    /// Appends the slots of `shape` with the values of `array`. `ranges` is room to work in.
    pub fn write(
        &mut self,
        shape: &Shape,
        array: &dyn Array,
        nullable: bool,
        ranges: &mut Vec<Range<usize>>,
        codec: &mut Codec,
    ) -> Result<()> {
        ranges.clear();
        let max = u32::try_from(self.column.max_def_level()).unwrap_or_default();
        let nulls = if nullable { array.nulls() } else { None };
        let mut slots = 0;
        shape.visit(nulls, max.saturating_sub(1), |run| match run {
            Run::Here { from, count } => {
                slots += count;
                ranges.push(from..from + count);
                if let Some(levels) = &mut self.definition {
                    levels.repeat(max, count);
                }
            }
            Run::Absent { level, count } => {
                slots += count;
                self.nulls += count;
                if let Some(levels) = &mut self.definition {
                    levels.repeat(level, count);
                }
            }
        });
        self.slots += slots;
        match (&mut self.repetition, &shape.repetition) {
            (Some(levels), Some(runs)) => {
                for (level, count) in runs.iter() {
                    levels.repeat(*level, *count);
                    self.rows += if *level == 0 { *count } else { 0 };
                }
            }
            (None, None) => self.rows += slots,
            _ => {
                return Err(ParquetError::General(format!(
                    "column {} and its array nest differently",
                    self.column.path()
                )));
            }
        }
        if !ranges.is_empty() {
            self.values.extend(array, ranges);
        }
        let bytes = self.page_bytes();
        if bytes >= PAGE_BYTES || (self.rows >= PAGE_ROWS && bytes >= PAGE_BYTES_MIN) || self.rows >= PAGE_ROWS_MAX {
            self.end_page(codec)?;
        }
        Ok(())
    }

    fn page_bytes(&self) -> usize {
        let levels = self.definition.iter().chain(&self.repetition).map(|l| l.hybrid.len()).sum::<usize>();
        levels + self.values.page_bytes()
    }

    fn end_page(&mut self, codec: &mut Codec) -> Result<()> {
        if self.slots == 0 {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(self.page_bytes() + 16);
        for levels in self.repetition.iter_mut().chain(&mut self.definition) {
            levels.end_page(&mut bytes);
        }
        let (encoding, text) = self.values.end_page(&mut bytes);
        let (slots, rows) = (std::mem::take(&mut self.slots), std::mem::take(&mut self.rows));
        self.slots_before += slots;
        self.rows_before += rows;
        self.pages.push(RawPage { bytes, slots, rows, encoding, text }, codec)
    }

    /// Bytes that the file will have of this chunk, about.
    pub fn bytes(&self) -> usize {
        self.pages.bytes() + self.page_bytes() + self.values.dictionary_bytes()
    }

    /// Bytes held in memory.
    pub fn memory(&self) -> usize {
        let levels = self.definition.iter().chain(&self.repetition).map(|l| l.hybrid.capacity()).sum::<usize>();
        size_of::<Self>() + levels + self.values.memory() + self.pages.memory()
    }

    /// The chunk's bytes and its part of the footer.
    pub fn finish(mut self, codec: &mut Codec) -> Result<(Bytes, ColumnCloseResult)> {
        self.end_page(codec)?;
        let (dictionary, bounds) = self.values.finish();
        let about = About { column: self.column.clone(), rows: self.rows_before, slots: self.slots_before };
        let (bytes, mut close) = self.pages.finish(dictionary, about, codec)?;
        if self.statistics {
            let histogram = |levels: Option<Levels>| levels.map(|l| LevelHistogram::from(l.counts));
            close.metadata = close
                .metadata
                .into_builder()
                .set_statistics(bounds.statistics(&self.column, self.nulls as u64, self.truncate))
                .set_repetition_level_histogram(histogram(self.repetition))
                .set_definition_level_histogram(histogram(self.definition))
                .build()?;
        }
        Ok((bytes, close))
    }
}
