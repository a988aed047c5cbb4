//! What a table makes of change events: which rows delete, what a delete needs, and the columns that say what happened.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray};
use arrow_buffer::BooleanBuffer;
use arrow_schema::{Field, Schema};
use firn_shared::config::domain::{Column, Output, PayloadFormat};
use firn_shared::config::protected::unprotected_name;
use firn_shared::config::{DELETED, DELETED_AT, OPERATION, change_columns, shaped_columns};
use firn_shared::error::{Error, Result};
use firn_shared::functions::origins;

use crate::arrow_types::{UTC, data_type};
use crate::decode::change::{Changes, Marks, Op, Truncates};

/// What change events do to one table.
#[derive(Debug)]
pub struct Effect {
    format: PayloadFormat,
    /// The columns that change events add, behind the decoded ones.
    pub columns: Vec<Column>,
    /// By decoded column, whether a row that deletes needs it.
    needed: Vec<bool>,
    /// Whether rows take their key out of the table.
    deletes: bool,
    /// Whether a tombstone does something.
    tombstones: bool,
    /// What becomes of truncates.
    truncates: Truncates,
}

impl Effect {
    /// What the events of `output` do; `None` when its payloads are rows.
    pub fn new(output: &Output) -> Option<Self> {
        if !output.format.is_change() {
            return None;
        }
        let upsert = output.table.mode.upsert();
        let wanted = upsert.iter().flat_map(|upsert| upsert.keys.iter().chain(&upsert.versions));
        let after = shaped_columns(output);
        let wanted = wanted.filter_map(|name| {
            let name = unprotected_name(&output.table.protections, name.as_str());
            after.iter().position(|column| column.name == name)
        });
        let sources: BTreeSet<usize> = wanted.flat_map(|at| origins(&output.transformations, at)).collect();
        let deletes = upsert.is_some_and(|upsert| !upsert.soft_delete);
        Some(Self {
            format: output.format,
            columns: change_columns(output.format, &output.table.mode),
            needed: (0..output.table.columns.len()).map(|at| sources.contains(&at)).collect(),
            deletes,
            tombstones: deletes && output.format == PayloadFormat::Debezium,
            truncates: match upsert {
                None => Truncates::AsRows,
                Some(upsert) if upsert.versions.is_empty() => Truncates::CarriedOut,
                Some(_) => Truncates::Refused,
            },
        })
    }

    /// A reader of the events of one slice.
    pub fn changes(&self, columns: &[Column]) -> Changes {
        Changes::new(self.format, columns, self.needed.clone()).with_truncates(self.truncates)
    }

    /// Whether rows say which table of the source they are of.
    pub fn has_sources(&self) -> bool {
        self.format == PayloadFormat::Debezium
    }

    /// Whether a tombstone deletes its key. Only where rows go: a soft delete keeps the row, and a tombstone has none.
    pub fn takes_tombstones(&self) -> bool {
        self.tombstones
    }

    /// Which rows are spared by filters: those that delete, unless the table keeps changes as rows of their own.
    pub fn spared(&self, marks: &Marks) -> Option<BooleanBuffer> {
        if self.columns.iter().any(|column| column.name == OPERATION) {
            return None;
        }
        deleting(&marks.ops)
    }

    /// Which of the rows that are left (all, or the numbers in `left`) take their key out of the table.
    pub fn deletes(&self, marks: &Marks, left: Option<&[u32]>) -> Option<BooleanBuffer> {
        if !self.deletes {
            return None;
        }
        match left {
            None => deleting(&marks.ops),
            Some(left) => deleting(&left.iter().map(|row| marks.ops[*row as usize]).collect::<Vec<_>>()),
        }
    }

    /// The batch with the columns that change events add.
    ///
    /// # Errors
    /// `Bug` when there are not as many marks as rows.
    pub fn add_columns(&self, batch: RecordBatch, marks: &Marks) -> Result<RecordBatch> {
        if self.columns.is_empty() {
            return Ok(batch);
        }
        let (schema, mut arrays, rows) = batch.into_parts();
        let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
        for column in &self.columns {
            fields.push(Arc::new(Field::new(&column.name, data_type(&column.r#type), true)));
            arrays.push(values(&column.name, marks)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
            .map_err(|e| Error::bug("rows and what they do differ in number").with_source(e))
    }
}

fn values(name: &str, marks: &Marks) -> Result<ArrayRef> {
    Ok(match name {
        OPERATION => Arc::new(marks.ops.iter().map(|op| Some(op.letter())).collect::<StringArray>()),
        DELETED => Arc::new(marks.ops.iter().map(|op| Some(op.deletes())).collect::<BooleanArray>()),
        DELETED_AT => {
            let times = marks.ops.iter().zip(&marks.times).map(|(op, time)| time.filter(|_| op.deletes()));
            Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone(UTC))
        }
        other => return Err(Error::bug(format!("change events know no column `{other}`"))),
    })
}

/// `None` when none deletes.
fn deleting(ops: &[Op]) -> Option<BooleanBuffer> {
    let any = ops.iter().any(|op| op.deletes());
    any.then(|| ops.iter().map(|op| op.deletes()).collect())
}
