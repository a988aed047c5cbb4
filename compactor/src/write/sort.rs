//! Sorted runs of bounded size.

use std::sync::Arc;

use arrow_array::{Array, RecordBatch, UInt32Array};
use arrow_ord::sort::{SortColumn, SortOptions, lexsort_to_indices};
use arrow_schema::SchemaRef;
use firn_shared::error::{Error, Result};
use iceberg::spec::{NullOrder, SortDirection, TableMetadata, Transform};

/// Rows of a piece of a sorted run.
const PIECE_ROWS: usize = 4096;

/// Holds rows until a run is full, then gives them out in the table's sort order.
pub(super) struct Sorter {
    /// Column and direction; empty when the table is unsorted.
    by: Arc<[(usize, SortOptions)]>,
    held: Vec<RecordBatch>,
    bytes: u64,
}

impl Sorter {
    pub fn new(metadata: &TableMetadata, schema: &SchemaRef) -> Result<Self> {
        let table = metadata.current_schema();
        let column = |field: &iceberg::spec::SortField| {
            let name = table.name_by_field_id(field.source_id).unwrap_or_default();
            let index = schema.index_of(name).ok().filter(|_| field.transform == Transform::Identity);
            let options = SortOptions {
                descending: field.direction == SortDirection::Descending,
                nulls_first: field.null_order == NullOrder::First,
            };
            index.map(|index| (index, options)).ok_or_else(|| {
                Error::config(format!("cannot sort by `{name}` ({}): only whole top-level columns", field.transform))
            })
        };
        let by = metadata.default_sort_order().fields.iter().map(column).collect::<Result<_>>()?;
        Ok(Self { by, held: Vec::new(), bytes: 0 })
    }

    pub fn is_unsorted(&self) -> bool {
        self.by.is_empty()
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn push(&mut self, batch: RecordBatch) {
        self.bytes += batch.get_array_memory_size() as u64;
        self.held.push(batch);
    }

    /// The run, sorted, in pieces; `None` when nothing is held. Equal rows keep no particular order.
    pub fn take(&mut self) -> Result<Option<Run>> {
        let held = std::mem::take(&mut self.held);
        self.bytes = 0;
        if held.is_empty() {
            return Ok(None);
        }
        let key = |(index, options): &(usize, SortOptions)| {
            let parts: Vec<&dyn Array> = held.iter().map(|batch| batch.column(*index).as_ref()).collect();
            let values = arrow_select::concat::concat(&parts).map_err(failed)?;
            Ok(SortColumn { values, options: Some(*options) })
        };
        let keys = self.by.iter().map(key).collect::<Result<Vec<_>>>()?;
        let order = lexsort_to_indices(&keys, None).map_err(failed)?;
        // Of each row in the order of `held`: its batch and where in it.
        let starts: Vec<usize> = held
            .iter()
            .scan(0, |next, batch| {
                let start = *next;
                *next += batch.num_rows();
                Some(start)
            })
            .collect();
        Ok(Some(Run { held, starts, order, next: 0 }))
    }
}

fn failed(e: arrow_schema::ArrowError) -> Error {
    Error::bug(format!("cannot sort rows: {e}")).with_source(e)
}

/// Sorted rows, put together piece by piece, so that there is never a second copy of all of them.
pub(super) struct Run {
    held: Vec<RecordBatch>,
    /// First row of each batch.
    starts: Vec<usize>,
    order: UInt32Array,
    next: usize,
}

impl Iterator for Run {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let count = PIECE_ROWS.min(self.order.len() - self.next);
        if count == 0 {
            return None;
        }
        let rows = &self.order.values()[self.next..self.next + count];
        self.next += count;
        let place = |row: &u32| {
            let row = *row as usize;
            let batch = self.starts.partition_point(|start| *start <= row) - 1;
            (batch, row - self.starts[batch])
        };
        let places: Vec<(usize, usize)> = rows.iter().map(place).collect();
        let held: Vec<&RecordBatch> = self.held.iter().collect();
        Some(arrow_select::interleave::interleave_record_batch(&held, &places).map_err(failed))
    }
}
