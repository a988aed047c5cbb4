//! A batch on its way through the steps: columns and the numbers of the rows that are left.

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use firn_shared::error::{Error, Result};
use firn_shared::functions::{Planned, Source};

use super::parts::bytes_of;

/// Columns of equal length.
#[derive(Debug)]
pub struct Frame {
    columns: Vec<ArrayRef>,
    rows: usize,
    /// Numbers of the rows in the batch as it entered; `None` while each is there once.
    ids: Option<Vec<u32>>,
}

impl Frame {
    /// All of `batch`.
    pub fn new(batch: RecordBatch) -> Self {
        let rows = batch.num_rows();
        let (_, columns, _) = batch.into_parts();
        Self { columns, rows, ids: None }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number that row `row` had in the batch as it entered.
    pub fn id(&self, row: usize) -> u32 {
        self.ids.as_ref().map_or(row as u32, |ids| ids[row])
    }

    /// The first row of the record that this row is of; the number of rows for one behind the last.
    pub fn record_start(&self, row: usize) -> usize {
        let is_first = |row: &usize| *row == 0 || *row >= self.rows || self.id(*row - 1) != self.id(*row);
        (0..=row).rev().find(is_first).unwrap_or_default()
    }

    /// The row behind the last of the record that this row is of.
    pub fn record_end(&self, row: usize) -> usize {
        (row + 1..self.rows).find(|next| self.id(*next) != self.id(row)).unwrap_or(self.rows)
    }

    /// The column at this position.
    ///
    /// # Errors
    /// `Bug` when there are fewer.
    pub fn get(&self, position: usize) -> Result<&ArrayRef> {
        self.columns.get(position).ok_or_else(|| Error::bug(format!("there is no column at position {position}")))
    }

    /// The bytes of all columns together.
    pub fn bytes(&self) -> usize {
        self.columns.iter().map(|column| bytes_of(column)).sum()
    }

    /// Arranges the columns as a plan says, with those that its step made.
    ///
    /// # Errors
    /// `Bug` when the plan speaks of other columns.
    pub fn arrange(&mut self, plan: &Planned, made: &[ArrayRef]) -> Result<()> {
        let of = |source: &Source| {
            let column = match source {
                Source::Kept(at) => self.columns.get(*at),
                Source::Made(number) => made.get(*number),
            };
            column.cloned().ok_or_else(|| Error::bug(format!("a plan speaks of {source:?}, which is not there")))
        };
        self.columns = plan.after.iter().map(|(_, source)| of(source)).collect::<Result<_>>()?;
        if self.columns.iter().any(|column| column.len() != self.rows) {
            return Err(Error::bug(format!("a step made a column of other than {} rows", self.rows)));
        }
        Ok(())
    }

    /// Takes rows out; `out` ascends.
    pub fn remove(&mut self, out: &[usize]) -> Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        let mut keep = vec![true; self.rows];
        for row in out {
            keep[*row] = false;
        }
        let ids = (0..self.rows).filter(|row| keep[*row]).map(|row| self.id(row)).collect();
        self.rows = keep.iter().filter(|keep| **keep).count();
        let mask = BooleanArray::from(keep);
        for array in &mut self.columns {
            let left = arrow_select::filter::filter(array.as_ref(), &mask);
            *array = left.map_err(|e| Error::bug("cannot take rows out of a column").with_source(e))?;
        }
        self.ids = Some(ids);
        Ok(())
    }

    /// The rows from `at` on; the frame keeps those before.
    pub fn split_off(&mut self, at: usize) -> Self {
        let ids = (at..self.rows).map(|row| self.id(row)).collect();
        let columns = self.columns.iter().map(|array| array.slice(at, self.rows - at)).collect();
        let rest = Self { columns, rows: self.rows - at, ids: Some(ids) };
        self.columns.iter_mut().for_each(|array| *array = array.slice(0, at));
        self.ids = Some((0..at).map(|row| self.id(row)).collect());
        self.rows = at;
        rest
    }

    /// Makes several rows of one: `from` names, ascending, the row that each comes from.
    pub fn repeat(&mut self, from: &UInt32Array) -> Result<()> {
        let ids = from.values().iter().map(|row| self.id(*row as usize)).collect();
        for array in &mut self.columns {
            let taken = arrow_select::take::take(array.as_ref(), from, None);
            *array = taken.map_err(|e| Error::bug("cannot repeat the rows of a column").with_source(e))?;
        }
        self.rows = from.len();
        self.ids = Some(ids);
        Ok(())
    }

    /// The columns in order, the number of rows, and their numbers unless each is there once.
    pub fn into_parts(self) -> (Vec<ArrayRef>, usize, Option<Vec<u32>>) {
        (self.columns, self.rows, self.ids)
    }
}
