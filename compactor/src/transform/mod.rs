//! Steps from decoded columns to table columns.
//!
//! A batch enters as decoded; each step sees the columns the steps before it left. [`Transformer::new`] checks every step
//! against the columns it will see, so that only values can fail later; a value that does not fit rejects its row and
//! never becomes null. Rows carry their number in the batch as it entered, so that whoever holds the raw records knows
//! which of them were filtered or rejected.
//!
//! [`frame`] is the batch on its way, [`filter`] and [`cast`] let Polars work on the columns they need through [`ffi`],
//! [`text`] reads JSON text with the same decoder as the records themselves.

mod cast;
mod ffi;
mod filter;
mod frame;
mod text;

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_buffer::BooleanBuffer;
use arrow_schema::{DataType, Field, Schema};
use firn_shared::config::domain::{Column, Step, Transformation};
use firn_shared::error::{Error, ErrorKind, Result};
use firn_shared::ids::ColumnName;
use firn_shared::types::LogicalType;
use polars::prelude::StringNameSpaceImpl;

use crate::arrow_types::data_type;
use crate::decode::{RejectKind, Rejected};
use cast::Cast;
pub use ffi::bound_threads;
use filter::Predicate;
use frame::Frame;
use text::Extract;

/// Checked steps; cheap to share between threads.
#[derive(Debug)]
pub struct Transformer {
    steps: Vec<Checked>,
    input: Vec<LogicalType>,
    output: Vec<(String, LogicalType)>,
}

#[derive(Debug)]
struct Checked {
    at: Arc<str>,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Rename { from: String, to: String },
    Drop { columns: Vec<String> },
    Cast { column: String, cast: Cast },
    Extract { from: String, extract: Extract },
    Lower { column: String },
    Filter { predicate: Predicate, name: String },
    Present { column: String },
}

/// What became of a batch: rows in = rows of `batch` + filtered + rejected.
#[derive(Debug)]
pub struct Outcome {
    /// The rows that are left, with the table's columns.
    pub batch: RecordBatch,
    /// For each row of `batch` its number in the batch as it entered; `None` when every row is left.
    pub rows: Option<Vec<u32>>,
    /// Rows left out, by the filter's name.
    pub filtered: Vec<(String, Vec<u32>)>,
    /// Rows with a value that does not fit.
    pub rejected: Vec<RowReject>,
}

/// A row with a value that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowReject {
    /// Its number in the batch as it entered.
    pub row: u32,
    /// `file:line:column` of the step.
    pub step: Arc<str>,
    /// What does not fit; the path begins with the column's name.
    pub why: Rejected,
}

impl Transformer {
    /// Checks `steps` against the decoded `columns`.
    ///
    /// # Errors
    /// `Config`, naming the step's position and what it cannot do.
    pub fn new(steps: &[Step], columns: &[Column]) -> Result<Self> {
        let input: Vec<LogicalType> = columns.iter().map(|c| c.r#type.clone()).collect();
        let mut now: Vec<(String, LogicalType)> = columns.iter().map(|c| (c.name.clone(), c.r#type.clone())).collect();
        let mut checked = Vec::with_capacity(steps.len());
        for step in steps {
            let work = check(&step.transformation, &mut now)
                .map_err(|e| Error::new(ErrorKind::Config, format!("{}: {e}", step.at)))?;
            checked.push(Checked { at: step.at.as_str().into(), work });
        }
        Ok(Self { steps: checked, input, output: now })
    }

    /// Adds a last step that rejects rows without a value in one of these columns of the table.
    ///
    /// # Errors
    /// `Config` for a column that is not there after the other steps.
    pub fn requiring(mut self, columns: &[ColumnName]) -> Result<Self> {
        for column in columns {
            find(&self.output, column.as_str())?;
            self.steps.push(Checked { at: "idColumns".into(), work: Work::Present { column: column.to_string() } });
        }
        Ok(self)
    }

    /// Columns after the last step, in order.
    #[must_use]
    pub fn output(&self) -> &[(String, LogicalType)] {
        &self.output
    }

    /// Whether a step can reject a row, so that the raw records of a batch must be kept until it has passed.
    #[must_use]
    pub fn can_reject(&self) -> bool {
        self.steps.iter().any(|s| match &s.work {
            Work::Extract { .. } | Work::Present { .. } => true,
            Work::Cast { cast, .. } => cast.can_reject(),
            _ => false,
        })
    }

    /// Runs the steps. Without steps the batch passes as it is.
    ///
    /// # Errors
    /// `Bug` when the batch is not of the columns that were checked.
    pub fn apply(&self, batch: RecordBatch) -> Result<Outcome> {
        self.apply_sparing(batch, None)
    }

    /// As [`Self::apply`], but no filter takes out a row of which `spared` says so: a delete has to reach the table
    /// whatever the row had looked like.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn apply_sparing(&self, batch: RecordBatch, spared: Option<&BooleanBuffer>) -> Result<Outcome> {
        if self.steps.is_empty() {
            return Ok(Outcome { batch, rows: None, filtered: Vec::new(), rejected: Vec::new() });
        }
        if batch.num_columns() != self.input.len() {
            return Err(Error::bug(format!(
                "a batch of {} columns, {} expected",
                batch.num_columns(),
                self.input.len()
            )));
        }
        let mut frame = Frame::new(batch);
        let (mut filtered, mut rejected) = (Vec::new(), Vec::new());
        for step in &self.steps {
            step.run(&mut frame, spared, &mut filtered, &mut rejected)
                .map_err(|e| Error::new(e.kind(), format!("{}: {e}", step.at)))?;
        }
        let (columns, rows) = frame.into_parts();
        let count = columns.rows;
        let fields = self.output.iter().map(|(name, logical)| Field::new(name, data_type(logical), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let batch = RecordBatch::try_new_with_options(schema, columns.arrays, &options)
            .map_err(|e| Error::bug("steps left other columns than they said").with_source(e))?;
        Ok(Outcome { batch, rows, filtered, rejected })
    }
}

impl Checked {
    fn run(
        &self,
        frame: &mut Frame,
        spared: Option<&BooleanBuffer>,
        filtered: &mut Vec<(String, Vec<u32>)>,
        rejected: &mut Vec<RowReject>,
    ) -> Result<()> {
        let mut reject = |frame: &mut Frame, faults: Vec<(usize, Rejected)>| -> Result<()> {
            let rows: Vec<usize> = faults.iter().map(|(row, _)| *row).collect();
            rejected.extend(faults.into_iter().map(|(row, why)| RowReject {
                row: frame.id(row),
                step: Arc::clone(&self.at),
                why,
            }));
            frame.remove(&rows)
        };
        match &self.work {
            Work::Rename { from, to } => frame.rename(from, to),
            Work::Drop { columns } => frame.drop_columns(columns),
            Work::Lower { column } => {
                let lowered = lower(column, frame.get(column)?)?;
                frame.put(column, lowered);
            }
            Work::Cast { column, cast } => {
                let (array, faults) = cast.apply(column, frame.get(column)?)?;
                frame.put(column, array);
                reject(frame, faults)?;
            }
            Work::Extract { from, extract } => {
                let (array, faults) = extract.apply(from, frame.get(from)?)?;
                frame.put(extract.to(), array);
                reject(frame, faults)?;
            }
            Work::Present { column } => {
                let values = frame.get(column)?;
                let missing = (0..values.len()).filter(|row| values.is_null(*row));
                let detail = "a key column has no value";
                let why = || Rejected { path: column.clone(), reason: RejectKind::Missing, detail: detail.to_owned() };
                let faults = missing.map(|row| (row, why())).collect();
                reject(frame, faults)?;
            }
            Work::Filter { predicate, name } => {
                let columns = predicate.columns().iter();
                let columns =
                    columns.map(|c| Ok((c.clone(), Arc::clone(frame.get(c)?)))).collect::<Result<Vec<_>>>()?;
                let keep = predicate.evaluate(frame.rows(), columns)?;
                let spared = |row: usize| spared.is_some_and(|spared| spared.value(frame.id(row) as usize));
                let out: Vec<usize> = keep
                    .iter()
                    .enumerate()
                    .filter(|(row, keep)| *keep != Some(true) && !spared(*row))
                    .map(|(row, _)| row)
                    .collect();
                if !out.is_empty() {
                    filtered.push((name.clone(), out.iter().map(|row| frame.id(*row)).collect()));
                }
                frame.remove(&out)?;
            }
        }
        Ok(())
    }
}

fn lower(name: &str, array: &ArrayRef) -> Result<ArrayRef> {
    let series = ffi::to_polars(name, array)?;
    let text = series.str().map_err(|e| Error::bug(format!("column `{name}` is not text in Polars: {e}")))?;
    ffi::from_polars(&polars::prelude::IntoSeries::into_series(text.to_lowercase()), array.data_type())
}

/// Checks one step against the columns `now`, and changes them as the step will.
fn check(transformation: &Transformation, now: &mut Vec<(String, LogicalType)>) -> Result<Work> {
    Ok(match transformation {
        Transformation::Rename { from, to } => {
            let at = find(now, from)?;
            if from != to && now.iter().any(|(name, _)| name == to) {
                return Err(Error::config(format!("rename: there is a column `{to}` already")));
            }
            now[at].0.clone_from(to);
            Work::Rename { from: from.clone(), to: to.clone() }
        }
        Transformation::Drop { columns } => {
            for column in columns {
                let at = find(now, column)?;
                now.remove(at);
            }
            Work::Drop { columns: columns.clone() }
        }
        Transformation::Cast { column, to, format } => {
            let at = find(now, column)?;
            let cast = Cast::new(&now[at].1, to, format.as_ref())?;
            now[at].1 = to.clone();
            Work::Cast { column: column.clone(), cast }
        }
        Transformation::Extract { from, path, to, r#type } => {
            let at = find(now, from)?;
            if !matches!(now[at].1, LogicalType::Json | LogicalType::String) {
                return Err(Error::config(format!("extract: column `{from}` is {}, not JSON text", now[at].1)));
            }
            if now.iter().any(|(name, _)| name == to) {
                return Err(Error::config(format!("extract: there is a column `{to}` already")));
            }
            now.push((to.clone(), r#type.clone()));
            Work::Extract { from: from.clone(), extract: Extract::new(path, to, r#type) }
        }
        Transformation::Lower { column } => {
            let at = find(now, column)?;
            if now[at].1 != LogicalType::String {
                return Err(Error::config(format!("lower: column `{column}` is {}, not string", now[at].1)));
            }
            Work::Lower { column: column.clone() }
        }
        Transformation::Filter { r#where, name } => {
            let type_of = |column: &str| -> Result<DataType> { Ok(data_type(&now[find(now, column)?].1)) };
            Work::Filter { predicate: Predicate::new(r#where, &type_of)?, name: name.clone() }
        }
    })
}

fn find(now: &[(String, LogicalType)], wanted: &str) -> Result<usize> {
    now.iter().position(|(name, _)| name == wanted).ok_or_else(|| {
        let near = now.iter().map(|(name, _)| (strsim::damerau_levenshtein(name, wanted), name)).min();
        let hint = match near {
            Some((distance, name)) if distance <= 2 => format!("; did you mean `{name}`?"),
            _ => String::new(),
        };
        Error::config(format!("no column `{wanted}` at this step{hint}"))
    })
}

/// Whether any value of `array` is null where `before` had one.
fn new_nulls(before: &dyn Array, after: &dyn Array) -> Vec<usize> {
    if after.null_count() == before.null_count() {
        return Vec::new();
    }
    (0..after.len()).filter(|row| after.is_null(*row) && before.is_valid(*row)).collect()
}

#[cfg(test)]
mod tests;
