//! A batch on its way through the steps: named columns and the numbers of the rows that are left.

use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, RecordBatch};
use firn_shared::error::{Error, Result};

/// Named columns of equal length.
#[derive(Debug)]
pub struct Frame {
    columns: Vec<(String, ArrayRef)>,
    rows: usize,
    /// Numbers of the rows in the batch as it entered; `None` while all are there.
    ids: Option<Vec<u32>>,
}

/// The columns that are left, without their names.
#[derive(Debug)]
pub struct Parts {
    /// The columns in order.
    pub arrays: Vec<ArrayRef>,
    /// Number of rows.
    pub rows: usize,
}

impl Frame {
    /// All of `batch`.
    pub fn new(batch: RecordBatch) -> Self {
        let rows = batch.num_rows();
        let (schema, arrays, _) = batch.into_parts();
        let names = schema.fields().iter().map(|f| f.name().clone());
        Self { columns: names.zip(arrays).collect(), rows, ids: None }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number that row `row` had in the batch as it entered.
    pub fn id(&self, row: usize) -> u32 {
        self.ids.as_ref().map_or(row as u32, |ids| ids[row])
    }

    pub fn get(&self, name: &str) -> Result<&ArrayRef> {
        let column = self.columns.iter().find(|(n, _)| n == name);
        column.map(|(_, array)| array).ok_or_else(|| Error::bug(format!("the column `{name}` is gone")))
    }

    /// Replaces the column, or adds it at the end.
    pub fn put(&mut self, name: &str, array: ArrayRef) {
        match self.columns.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = array,
            None => self.columns.push((name.to_owned(), array)),
        }
    }

    pub fn rename(&mut self, from: &str, to: &str) {
        for (name, _) in &mut self.columns {
            if name == from {
                to.clone_into(name);
            }
        }
    }

    pub fn drop_columns(&mut self, names: &[String]) {
        self.columns.retain(|(name, _)| !names.contains(name));
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
        let mask = BooleanArray::from(keep);
        for (name, array) in &mut self.columns {
            let left = arrow_select::filter::filter(array.as_ref(), &mask);
            *array = left.map_err(|e| Error::bug(format!("cannot take rows out of `{name}`")).with_source(e))?;
        }
        self.rows -= out.len();
        self.ids = Some(ids);
        Ok(())
    }

    /// The columns, and the numbers of the rows unless all are left.
    pub fn into_parts(self) -> (Parts, Option<Vec<u32>>) {
        let arrays = self.columns.into_iter().map(|(_, array)| Arc::clone(&array)).collect();
        (Parts { arrays, rows: self.rows }, self.ids)
    }
}
