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
use firn_shared::ids::ColumnName;

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
    /// By decoded column, whether the key is made of it.
    keyed: Vec<bool>,
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
        let after = shaped_columns(output);
        let sources = |names: &[ColumnName]| -> BTreeSet<usize> {
            let wanted = names.iter().filter_map(|name| {
                let name = unprotected_name(&output.table.protections, name.as_str());
                after.iter().position(|column| column.name == name)
            });
            wanted.flat_map(|at| origins(&output.transformations, at)).collect()
        };
        let keys = sources(upsert.map_or(&[], |upsert| &upsert.keys));
        let versions = sources(upsert.map_or(&[], |upsert| &upsert.versions));
        let columns = 0..output.table.columns.len();
        let deletes = upsert.is_some_and(|upsert| !upsert.soft_delete);
        Some(Self {
            format: output.format,
            columns: change_columns(output.format, &output.table.mode),
            needed: columns.clone().map(|at| keys.contains(&at) || versions.contains(&at)).collect(),
            keyed: columns.map(|at| keys.contains(&at)).collect(),
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
        Changes::new(self.format, columns, self.needed.clone())
            .with_keys(self.keyed.clone())
            .with_truncates(self.truncates)
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
        which(&marks.ops, None, Op::deletes)
    }

    /// Which of the rows that are left (all, or the numbers in `left`) take their key out of the table. A row that goes on
    /// under another key leaves nothing behind, not even where deleted rows are marked and stay.
    pub fn deletes(&self, marks: &Marks, left: Option<&[u32]>) -> Option<BooleanBuffer> {
        which(&marks.ops, left, |op| if self.deletes { op.deletes() } else { op == Op::Moved })
    }

    /// Which of the rows that are left have a record that is accounted for elsewhere.
    pub fn silent(marks: &Marks, left: Option<&[u32]>) -> Option<BooleanBuffer> {
        which(&marks.ops, left, Op::is_silent)
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

/// Of which rows it is so; `None` when of none.
fn which(ops: &[Op], left: Option<&[u32]>, is: impl Fn(Op) -> bool) -> Option<BooleanBuffer> {
    let found: BooleanBuffer = match left {
        None => ops.iter().map(|op| is(*op)).collect(),
        Some(left) => left.iter().map(|row| is(ops[*row as usize])).collect(),
    };
    (found.count_set_bits() > 0).then_some(found)
}
