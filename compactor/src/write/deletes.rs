//! Delete files: rows by their position, or by their key.
//!
//! Position deletes are grouped by the partition of the data files they refer to, because they apply in no other, and
//! sorted by path and position, as the specification wants. Bounds of the path column are whole paths: readers see by
//! equal bounds, or by `referenced_data_file`, that a delete file concerns one data file alone.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::SchemaRef as ArrowSchemaRef;
use firn_shared::error::{Error, Result};
use iceberg::metadata_columns::{delete_file_path_field, delete_file_pos_field};
use iceberg::spec::{Schema, SchemaRef, Struct};
use roaring::RoaringTreemap;

use super::WriteSpec;
use super::file::{Closing, Kind, OpenFile, Template};
use super::partition::{partition_path, retyped};
use crate::table::scan::{LiveFile, PartitionKey};
use crate::table::{NewFile, error, schema_of};

/// Positions that become one batch on their way to the encoder.
const BATCH_ROWS: usize = 64 * 1024;
/// Files that are finished here and still on their way to the store.
const CLOSING_MAX: usize = 16;

/// Writes position deletes: for each data file the numbers of its rows that go. Files are full at the target size of
/// `spec`. Synchronous, as [`super::DataWriter`]; memory is one open file.
///
/// # Errors
/// `Data` for a position beyond Iceberg's long, `Unavailable` when an upload failed; what was uploaded before is an
/// orphan.
pub fn write_position_deletes<'a>(
    spec: &WriteSpec,
    of: impl Iterator<Item = (&'a LiveFile, &'a RoaringTreemap)>,
) -> Result<Vec<NewFile>> {
    let mut groups: BTreeMap<String, Vec<(&LiveFile, &RoaringTreemap)>> = BTreeMap::new();
    for (file, positions) in of.filter(|(_, positions)| !positions.is_empty()) {
        groups.entry(group_name(&file.data.key())).or_default().push((file, positions));
    }
    let schema = Schema::builder().with_fields([delete_file_path_field().clone(), delete_file_pos_field().clone()]);
    let schema = Arc::new(schema.build().map_err(|e| error("the schema of position deletes", e))?);
    let mut output = Output::new(spec, &schema, Kind::PositionDeletes)?;
    for mut files in groups.into_values() {
        files.sort_unstable_by_key(|(file, _)| file.path());
        let [(first, _), ..] = files.as_slice() else { continue };
        output.begin(first.data.spec_id, first.file().partition())?;
        for (path, positions) in files.into_iter().map(|(file, positions)| (file.path(), positions)) {
            let mut left = positions.iter().peekable();
            while left.peek().is_some() {
                let batch = positions_batch(&output.arrow, path, left.by_ref().take(BATCH_ROWS))?;
                output.write(&batch, Some(path))?;
            }
        }
    }
    output.finish()
}

/// Writes equality deletes of one partition: rows that equal one of `keys` go, wherever they are in that partition of
/// that spec, if they came before. `field_ids` are the columns of `keys`, in their order; `partition` is of the spec.
/// For an unpartitioned spec they reach every partition of every spec.
///
/// # Errors
/// `Bug` for columns that are not the table's, else as [`write_position_deletes`].
pub fn write_equality_deletes(
    spec: &WriteSpec,
    keys: &RecordBatch,
    field_ids: &[i32],
    partition: (i32, Struct),
) -> Result<Vec<NewFile>> {
    write_equality_deletes_in_parts(spec, [Ok(keys.clone())], field_ids, partition)
}

/// As [`write_equality_deletes`], of keys in several batches.
///
/// # Errors
/// As there, and those of `keys`.
pub fn write_equality_deletes_in_parts(
    spec: &WriteSpec,
    keys: impl IntoIterator<Item = Result<RecordBatch>>,
    field_ids: &[i32],
    (spec_id, partition): (i32, Struct),
) -> Result<Vec<NewFile>> {
    let current = spec.metadata.current_schema();
    let field = |id: &i32| {
        let found = current.as_struct().field_by_id(*id);
        found.cloned().ok_or_else(|| Error::bug(format!("the table has no top-level column with field id {id}")))
    };
    let fields = field_ids.iter().map(field).collect::<Result<Vec<_>>>()?;
    let schema = Schema::builder().with_fields(fields).build();
    let schema = Arc::new(schema.map_err(|e| error("the schema of equality deletes", e))?);
    let mut output = Output::new(spec, &schema, Kind::EqualityDeletes(field_ids.to_vec()))?;
    output.begin(spec_id, &partition)?;
    for keys in keys {
        let keys = RecordBatch::try_new(output.arrow.clone(), keys?.columns().to_vec())
            .map_err(|e| Error::bug(format!("keys do not fit their columns: {e}")).with_source(e))?;
        if keys.num_rows() > 0 {
            output.write(&keys, None)?;
        }
    }
    output.finish()
}

/// An order of partitions, so that the same input gives the same files.
fn group_name((spec_id, partition): &PartitionKey) -> String {
    format!("{spec_id:010} {partition:?}")
}

fn positions_batch(arrow: &ArrowSchemaRef, path: &str, positions: impl Iterator<Item = u64>) -> Result<RecordBatch> {
    let number = |p| i64::try_from(p).map_err(|e| Error::data(format!("{path} has no row {p}")).with_source(e));
    let positions: Int64Array = positions.map(number).collect::<Result<Vec<i64>>>()?.into();
    let paths = StringArray::from_iter_values(std::iter::repeat_n(path, arrow_array::Array::len(&positions)));
    let columns: Vec<ArrayRef> = vec![Arc::new(paths), Arc::new(positions)];
    RecordBatch::try_new(arrow.clone(), columns).map_err(|e| Error::bug("a batch of positions").with_source(e))
}

/// Delete files of one kind, one open at a time.
struct Output<'a> {
    spec: &'a WriteSpec,
    template: Arc<Template>,
    arrow: ArrowSchemaRef,
    /// Where files go now: spec id, partition, its path.
    place: (i32, Struct, String),
    open: Option<OpenFile>,
    closing: VecDeque<(i32, Closing)>,
    done: Vec<NewFile>,
    files: u64,
}

impl<'a> Output<'a> {
    fn new(spec: &'a WriteSpec, schema: &SchemaRef, kind: Kind) -> Result<Self> {
        let arrow = crate::table::schema::arrow_schema(schema)?;
        let template = Arc::new(Template::deletes(spec, schema.clone(), arrow.clone(), kind)?);
        let (place, closing, done) = ((0, Struct::empty(), String::new()), VecDeque::new(), Vec::new());
        Ok(Self { spec, template, arrow, place, open: None, closing, done, files: 0 })
    }

    /// Goes on with another partition.
    fn begin(&mut self, spec_id: i32, partition: &Struct) -> Result<()> {
        self.close()?;
        let metadata = &self.spec.metadata;
        let spec = metadata.partition_spec_by_id(spec_id);
        let spec = spec.ok_or_else(|| Error::bug(format!("the table has no partition spec {spec_id}")))?;
        let schema = schema_of(metadata, spec)?;
        let partition = retyped(spec, schema, partition);
        let path = partition_path(spec, schema, &partition);
        self.place = (spec_id, partition, path);
        Ok(())
    }

    /// Appends rows; for position deletes, those of data file `of`.
    fn write(&mut self, batch: &RecordBatch, of: Option<&str>) -> Result<()> {
        let file = match &mut self.open {
            Some(file) => file,
            None => {
                let (spec_id, partition, path) = &self.place;
                let file = OpenFile::new(self.template.clone(), self.files, path, (*spec_id, partition.clone()))?;
                self.files += 1;
                self.open.insert(file)
            }
        };
        if let Some(path) = of {
            file.refer_to(path);
        }
        file.write(batch)?;
        if file.size() >= self.spec.target_file_bytes { self.close() } else { Ok(()) }
    }

    fn close(&mut self) -> Result<()> {
        let Some(file) = self.open.take() else { return Ok(()) };
        self.closing.push_back((self.place.0, file.close()?));
        while self.closing.len() > CLOSING_MAX {
            self.settle_one()?;
        }
        Ok(())
    }

    fn settle_one(&mut self) -> Result<()> {
        if let Some((spec_id, closing)) = self.closing.pop_front() {
            self.done.push(NewFile { spec_id, file: closing.wait()? });
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<NewFile>> {
        self.close()?;
        while !self.closing.is_empty() {
            self.settle_one()?;
        }
        Ok(self.done)
    }
}
