//! A batch in parts where it becomes more than it was: a text of a megabyte beside a list of thousands, or thousands of
//! texts that are filled up, would be gigabytes at once. Parts are whole records, one after the other, and each goes through
//! the rest of the steps before the next.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow_buffer::BooleanBuffer;
use firn_shared::error::{Error, Result};

use super::frame::Frame;
use super::kernel::Room;
use super::outcome::RowReject;

/// A record may become rows of so many times the bytes of a part.
pub const RECORD_PARTS: usize = 8;
/// All columns of the rows that go on together may be of so many times the bytes of a part; a batch is of one when it comes.
const ROWS_PARTS: usize = 3;
/// A value may become longer than what it is made of up to so many times the bytes of a part.
const VALUE_PARTS: usize = 2;

/// A batch on its way through the steps.
#[derive(Debug)]
pub struct Parts {
    /// All of it, where there is no step.
    pub(super) whole: Option<RecordBatch>,
    /// The first part last.
    pub(super) pending: Vec<Part>,
    /// Rows that no filter takes out.
    pub(super) spared: Option<BooleanBuffer>,
    /// Bytes of the rows that a part may become.
    pub(super) bytes_max: usize,
}

/// Records of a batch, and what became of those that are left out.
#[derive(Debug)]
pub(super) struct Part {
    pub frame: Frame,
    /// The step that is next.
    pub step: usize,
    /// What that step made already, if it makes several rows of one.
    pub exploded: Option<Rows>,
    pub filtered: Vec<(String, Vec<u32>)>,
    pub rejected: Vec<RowReject>,
}

/// Rows that are about to be made of those of a frame.
#[derive(Debug)]
pub(super) struct Rows {
    /// For each the row it comes from, ascending.
    pub from: UInt32Array,
    /// The columns that the step made for them.
    pub columns: Vec<ArrayRef>,
}

impl Part {
    pub fn new(frame: Frame) -> Self {
        Self { frame, step: 0, exploded: None, filtered: Vec::new(), rejected: Vec::new() }
    }

    /// What a step may make of it.
    pub fn room(&self, bytes_max: usize) -> Room {
        let of_row = self.frame.bytes() / self.frame.rows().max(1);
        let of_parts = |parts| bytes_max.saturating_mul(parts);
        Room { bytes: of_parts(ROWS_PARTS), of_row, value: of_parts(VALUE_PARTS) }
    }

    /// The records behind those of which so many bytes are half, where all are more: they are through with this step.
    pub fn cut_grown(&mut self, bytes_max: usize) -> Option<Self> {
        let (rows, bytes) = (self.frame.rows(), self.frame.bytes());
        if bytes <= bytes_max || rows < 2 {
            return None;
        }
        let at = (rows as u64 * (bytes_max as u64 / 2) / bytes as u64) as usize;
        let at = match self.frame.record_start(at) {
            0 => self.frame.record_end(0),
            at => at,
        };
        self.split_off_some(at).map(|later| Self { step: later.step + 1, ..later })
    }

    /// The records from row `at` on, if there are any.
    pub fn split_off_some(&mut self, at: usize) -> Option<Self> {
        (at < self.frame.rows()).then(|| self.split_off(at))
    }

    /// The records that are too many for a part, when there are: they are taken out of this one. `kept` are the columns whose
    /// values repeat.
    pub fn cut(&mut self, kept: &[ArrayRef], bytes_max: usize) -> Option<Self> {
        let rows = self.exploded.as_ref()?;
        let ends = self.records(kept, rows);
        let mut bytes = 0_usize;
        let many = ends.iter().position(|(_, of_record)| {
            bytes = bytes.saturating_add(*of_record);
            bytes > bytes_max
        });
        let at = ends[many?.max(1) - 1].0;
        self.split_off_some(at)
    }

    /// The rows of records that would become more than a part can be, whatever else is in it.
    pub fn too_large(&self, kept: &[ArrayRef], rows: &Rows, bytes_max: usize) -> Vec<usize> {
        let bound = bytes_max.saturating_mul(RECORD_PARTS);
        let (mut found, mut from) = (Vec::new(), 0);
        for (end, bytes) in self.records(kept, rows) {
            if bytes > bound {
                found.extend(from..end);
            }
            from = end;
        }
        found
    }

    /// Of each record where its rows end, and the bytes that they will take.
    fn records(&self, kept: &[ArrayRef], rows: &Rows) -> Vec<(usize, usize)> {
        let mut widths = vec![0_usize; self.frame.rows()];
        for array in kept {
            add_bytes(array, &mut widths);
        }
        let mut bytes = vec![0_usize; widths.len()];
        for row in rows.from.values() {
            let row = *row as usize;
            bytes[row] = bytes[row].saturating_add(widths[row]);
        }
        let mut records: Vec<(usize, usize)> = Vec::new();
        for (row, bytes) in bytes.into_iter().enumerate() {
            match records.last_mut() {
                Some((end, of_record)) if self.frame.id(row - 1) == self.frame.id(row) => {
                    (*end, *of_record) = (row + 1, of_record.saturating_add(bytes));
                }
                _ => records.push((row + 1, bytes)),
            }
        }
        records
    }

    /// What belongs to the records from row `at` on.
    fn split_off(&mut self, at: usize) -> Self {
        let id = self.frame.id(at);
        let exploded = self.exploded.as_mut().map(|rows| {
            let first = rows.from.values().partition_point(|row| (*row as usize) < at);
            let (all, count) = (rows.from.len(), rows.from.len() - first);
            let from = rows.from.slice(first, count).unary(|row| row - at as u32);
            let columns = rows.columns.iter().map(|column| column.slice(first, count)).collect();
            rows.from = rows.from.slice(0, first);
            rows.columns.iter_mut().for_each(|column| *column = column.slice(0, column.len() - (all - first)));
            Rows { from, columns }
        });
        let mut filtered = Vec::new();
        for (name, rows) in &mut self.filtered {
            let (before, behind) = rows.iter().partition(|row| **row < id);
            *rows = before;
            filtered.push((name.clone(), behind));
        }
        let (before, rejected) = std::mem::take(&mut self.rejected).into_iter().partition(|reject| reject.row < id);
        self.rejected = before;
        Self { frame: self.frame.split_off(at), step: self.step, exploded, filtered, rejected }
    }
}

impl Rows {
    /// Without those that come from these rows; `gone` ascends.
    pub fn without(&mut self, gone: &[usize]) -> Result<()> {
        if gone.is_empty() {
            return Ok(());
        }
        let stays = self.from.values().iter().map(|row| gone.binary_search(&(*row as usize)).is_err());
        let stays: BooleanArray = stays.map(Some).collect();
        let filter = |array: &dyn Array| {
            let left = arrow_select::filter::filter(array, &stays);
            left.map_err(|e| Error::bug("cannot take rows out of a column").with_source(e))
        };
        self.from = filter(&self.from)?.as_primitive().clone();
        self.columns = self.columns.iter().map(|column| filter(column)).collect::<Result<_>>()?;
        Ok(())
    }
}

/// The bytes that the values of a column take.
pub fn bytes_of(array: &dyn Array) -> usize {
    let span = |offsets: &[i32]| (offsets[0] as usize, (offsets[offsets.len() - 1] - offsets[0]) as usize);
    let offsets = (array.len() + 1) * size_of::<i32>();
    let elements = |values: &ArrayRef, (from, count): (usize, usize)| bytes_of(&values.slice(from, count));
    if let Some(texts) = array.as_string_opt::<i32>() {
        span(texts.value_offsets()).1 + offsets
    } else if let Some(bytes) = array.as_binary_opt::<i32>() {
        span(bytes.value_offsets()).1 + offsets
    } else if let Some(list) = array.as_list_opt::<i32>() {
        elements(list.values(), span(list.value_offsets())) + offsets
    } else if let Some(map) = array.as_map_opt() {
        let span = span(map.value_offsets());
        elements(map.keys(), span) + elements(map.values(), span) + offsets
    } else if let Some(parts) = array.as_struct_opt() {
        parts.columns().iter().map(|part| bytes_of(part)).sum()
    } else {
        array.len() * array.data_type().primitive_width().unwrap_or(1)
    }
}

/// Adds to each row the bytes that its value takes.
pub fn add_bytes(array: &ArrayRef, rows: &mut [usize]) {
    let lengths = |offsets: &[i32], rows: &mut [usize]| {
        for (row, pair) in rows.iter_mut().zip(offsets.windows(2)) {
            *row += (pair[1] - pair[0]) as usize + size_of::<i32>();
        }
    };
    let elements = |values: &ArrayRef, offsets: &[i32], rows: &mut [usize]| {
        let first = offsets[0] as usize;
        let mut of_each = vec![0; offsets[offsets.len() - 1] as usize - first];
        add_bytes(&values.slice(first, of_each.len()), &mut of_each);
        for (row, pair) in rows.iter_mut().zip(offsets.windows(2)) {
            let of_row = &of_each[pair[0] as usize - first..pair[1] as usize - first];
            *row += of_row.iter().sum::<usize>() + size_of::<i32>();
        }
    };
    if let Some(texts) = array.as_string_opt::<i32>() {
        lengths(texts.value_offsets(), rows);
    } else if let Some(bytes) = array.as_binary_opt::<i32>() {
        lengths(bytes.value_offsets(), rows);
    } else if let Some(list) = array.as_list_opt::<i32>() {
        elements(list.values(), list.value_offsets(), rows);
    } else if let Some(map) = array.as_map_opt() {
        elements(map.keys(), map.value_offsets(), rows);
        elements(map.values(), map.value_offsets(), rows);
    } else if let Some(parts) = array.as_struct_opt() {
        parts.columns().iter().for_each(|part| add_bytes(part, rows));
    } else {
        let width = array.data_type().primitive_width().unwrap_or(1);
        for row in rows {
            *row += width;
        }
    }
}
