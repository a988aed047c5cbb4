//! Sorted runs of bounded size.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_ord::sort::{SortColumn, SortOptions, lexsort_to_indices};
use arrow_schema::SchemaRef;
use firn_shared::error::{Error, Result};
use iceberg::spec::{NullOrder, SortDirection, TableMetadata, Transform};

/// Holds rows until a run is full, then gives them out in the table's sort order.
pub(super) struct Sorter {
    schema: SchemaRef,
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
        Ok(Self { schema: schema.clone(), by, held: Vec::new(), bytes: 0 })
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

    /// The run, sorted; `None` when nothing is held. Equal rows keep no particular order.
    pub fn take(&mut self) -> Result<Option<RecordBatch>> {
        let held = std::mem::take(&mut self.held);
        self.bytes = 0;
        if held.is_empty() {
            return Ok(None);
        }
        let failed = |e: arrow_schema::ArrowError| Error::bug(format!("cannot sort rows: {e}")).with_source(e);
        let rows = arrow_select::concat::concat_batches(&self.schema, &held).map_err(failed)?;
        let columns: Vec<SortColumn> = self
            .by
            .iter()
            .map(|(index, options)| SortColumn { values: rows.column(*index).clone(), options: Some(*options) })
            .collect();
        let order = lexsort_to_indices(&columns, None).map_err(failed)?;
        arrow_select::take::take_record_batch(&rows, &order).map(Some).map_err(failed)
    }
}
