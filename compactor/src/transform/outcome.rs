//! What became of a batch.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::{Array, RecordBatch};
use firn_shared::config::domain::{Column, JsonPath};
use firn_shared::error::Result;
use firn_shared::types::LogicalType;

use super::frame::Frame;
use super::kernel::{Batch, Kernel, Made};
use crate::decode::{RejectKind, Rejected};

/// What became of a batch: records in = records with rows in `batch` + filtered + rejected.
#[derive(Debug)]
pub struct Outcome {
    /// The rows that are left, with the table's columns.
    pub batch: RecordBatch,
    /// For each row of `batch` the number its record had in the batch as it entered, ascending; `None` when each is there
    /// once. A number repeats where a step made several rows of one.
    pub rows: Option<Vec<u32>>,
    /// Records left out, by the reason's name.
    pub filtered: Vec<(String, Vec<u32>)>,
    /// Records with a value that does not fit.
    pub rejected: Vec<RowReject>,
}

/// A record with a value that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowReject {
    /// Its number in the batch as it entered.
    pub row: u32,
    /// `file:line:column` of the step.
    pub step: Arc<str>,
    /// What does not fit; the path begins with the column's name.
    pub why: Rejected,
}

/// Rejects rows without a value.
#[derive(Debug)]
pub struct Present;

impl Kernel for Present {
    fn call(&self, batch: &Batch<'_>) -> Result<Made> {
        let column = batch.column(0)?;
        let missing = (0..batch.rows).filter(|row| column.array.is_null(*row));
        let why = || Rejected {
            path: column.name.to_owned(),
            reason: RejectKind::Missing,
            detail: "a key column has no value".to_owned(),
        };
        Ok(Made { columns: Vec::new(), rejects: missing.map(|row| (row, why())).collect() })
    }
}

/// A column as the plan of a step of ours names it.
pub fn kept(name: &str, r#type: &LogicalType) -> Column {
    let (name, r#type) = (name.to_owned(), r#type.clone());
    Column { name, path: JsonPath(Vec::new()), r#type, required: false, format: None, doc: None }
}

/// Where records became several rows: a record is rejected as a whole, and filtered only when none of its rows is left, so
/// that each is still exactly one thing.
pub fn settle(frame: &mut Frame, filtered: &mut Vec<(String, Vec<u32>)>, rejected: &mut Vec<RowReject>) -> Result<()> {
    let mut bad = BTreeSet::new();
    rejected.retain(|reject| bad.insert(reject.row));
    let out: Vec<usize> = (0..frame.rows()).filter(|row| bad.contains(&frame.id(*row))).collect();
    frame.remove(&out)?;
    let mut settled: BTreeSet<u32> = (0..frame.rows()).map(|row| frame.id(row)).collect();
    settled.extend(&bad);
    // The last filter that took a row of the record is the one that left it with none.
    for (_, rows) in filtered.iter_mut().rev() {
        let mut once: Vec<u32> = std::mem::take(rows);
        once.dedup();
        once.retain(|row| settled.insert(*row));
        *rows = once;
    }
    filtered.retain(|(_, rows)| !rows.is_empty());
    Ok(())
}
