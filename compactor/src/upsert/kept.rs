//! Soft deletes of single rows: the row keeps the values that it had, whatever the event says of them.
//!
//! Of a deleted row many sources send the key alone (Postgres without `REPLICA IDENTITY FULL`, DynamoDB without old images),
//! and Debezium makes values up where null is not allowed. So the values stay those of the newest row of the key that was
//! there before; the event gives the marks, where it came from, and the version. Only where no such row is known the event's
//! own values are all there is.
//!
//! That row is of the same run, or it is in the table: then [`rewrite`] reads it and writes it anew, marked.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt32Type};
use arrow_array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow_row::Rows;
use arrow_schema::{DataType, Field, Schema};
use firn_shared::config::{DELETED, DELETED_AT};
use firn_shared::error::{Error, Result};
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::table::Table;

use super::frames::{Frames, SharedFile, lock};
use super::key::Keys;
use super::merge::{FILE, POSITION, comparable, project};
use super::shuffle::{Shuffle, deletes};
use crate::provenance;
use crate::seam::Cpu;
use crate::table::NewFile;
use crate::table::scan::{LiveBatch, LiveFile, Reader};
use crate::write::{WriteSpec, write_stream};

/// Parts at most into which the marks of a run are spread.
const PARTS_MAX: u64 = 64;

/// Whose values a row keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Of another incoming row, by its number.
    Incoming(u32),
    /// Of a row in the table: number of the file, position.
    Table(u32, i64),
}

/// Which rows are marked as deleted; none in a table without the mark.
pub fn marked(rows: &RecordBatch) -> Vec<bool> {
    match rows.column_by_name(DELETED).and_then(|column| column.as_boolean_opt()) {
        Some(marks) => marks.iter().map(|mark| mark == Some(true)).collect(),
        None => vec![false; rows.num_rows()],
    }
}

/// What is known of a key that a winner marks as deleted: the newest rows, by number.
#[derive(Debug, Default)]
struct Known {
    winner: u32,
    incoming: Option<u32>,
    table: [Option<u32>; 2],
}

/// Of each winner that marks its key as deleted the row whose values it keeps, if there is one. `of_table` are rows that
/// stand, and rows that are replaced; a replaced one was made of the same records and is of use where there is no other.
///
/// # Errors
/// `Bug` for batches that have not the table's types.
pub fn sources(
    keys: &Keys,
    (incoming, (of, versions)): (&RecordBatch, &(Rows, Rows)),
    winners: &[u32],
    of_table: [Option<&RecordBatch>; 2],
) -> Result<BTreeMap<u32, Source>> {
    let (marked, removed) = (marked(incoming), deletes(incoming)?);
    let winners = winners.iter().filter(|row| marked[**row as usize] && !removed.value(**row as usize));
    let mut known: HashMap<&[u8], Known> =
        winners.map(|row| (of.row(*row as usize).data(), Known { winner: *row, ..Known::default() })).collect();
    if known.is_empty() {
        return Ok(BTreeMap::new());
    }
    for row in (0..of.num_rows()).filter(|row| !marked[*row]) {
        if let Some(known) = known.get_mut(of.row(row).data()) {
            newer(&mut known.incoming, row, versions);
        }
    }
    let rows = [comparable(keys, of_table[0])?, comparable(keys, of_table[1])?];
    for (which, (of, versions)) in rows.iter().enumerate() {
        for row in 0..of.num_rows() {
            if let Some(known) = known.get_mut(of.row(row).data()) {
                newer(&mut known.table[which], row, versions);
            }
        }
    }
    let place = |which: usize, row: u32| {
        let rows = of_table[which]?;
        let (file, position) = (rows[FILE].as_primitive::<UInt32Type>(), rows[POSITION].as_primitive::<Int64Type>());
        Some(Source::Table(file.value(row as usize), position.value(row as usize)))
    };
    let source = |known: &Known| match (known.incoming, known.table) {
        (Some(own), [Some(standing), _]) => {
            let newer = versions.row(own as usize).data() > rows[0].1.row(standing as usize).data();
            if newer { Some(Source::Incoming(own)) } else { place(0, standing) }
        }
        (Some(own), [None, _]) => Some(Source::Incoming(own)),
        (None, [Some(standing), _]) => place(0, standing),
        (None, [None, Some(replaced)]) => place(1, replaced),
        (None, [None, None]) => None,
    };
    Ok(known.values().filter_map(|known| Some((known.winner, source(known)?))).collect())
}

fn newer(best: &mut Option<u32>, row: usize, versions: &Rows) {
    if best.is_none_or(|best| versions.row(best as usize).data() <= versions.row(row).data()) {
        *best = Some(row as u32);
    }
}

/// The columns that the event itself gives, as far as the batch has them.
fn of_event<'a>(batch: &RecordBatch, keys: &'a Keys) -> Vec<&'a str> {
    let versions = keys.version_names().iter().map(String::as_str);
    let names = [DELETED, DELETED_AT, provenance::COLUMN].into_iter().chain(versions);
    names.filter(|name| batch.column_by_name(name).is_some()).collect()
}

/// Rows with the values of `values` and the marks of `marks`, row by row.
///
/// # Errors
/// `Bug` for batches of different length.
pub fn overlay(values: &RecordBatch, marks: &RecordBatch, keys: &Keys) -> Result<RecordBatch> {
    let (schema, mut columns, _) = values.clone().into_parts();
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    for name in of_event(marks, keys) {
        let (Some(at), Some(column)) = (schema.index_of(name).ok(), marks.column_by_name(name)) else { continue };
        fields[at] =
            Arc::new(fields[at].as_ref().clone().with_data_type(column.data_type().clone()).with_nullable(true));
        columns[at] = Arc::clone(column);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .map_err(|e| Error::bug("cannot mark rows as deleted").with_source(e))
}

/// What an event gives to rows that are in the table `at` file and position.
///
/// # Errors
/// `Bug` when there are not as many places as rows.
pub fn images(rows: &RecordBatch, at: &[(u32, i64)], keys: &Keys) -> Result<RecordBatch> {
    let (schema, mut columns, _) = project(rows, &of_event(rows, keys))?.into_parts();
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(FILE, DataType::UInt32, false)));
    fields.push(Arc::new(Field::new(POSITION, DataType::Int64, false)));
    columns.push(Arc::new(at.iter().map(|(file, _)| *file).collect::<UInt32Array>()) as ArrayRef);
    columns.push(Arc::new(at.iter().map(|(_, position)| *position).collect::<Int64Array>()));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .map_err(|e| Error::bug("cannot note which rows are deleted").with_source(e))
}

/// What becomes of the rows of one file.
#[derive(Debug)]
struct Images {
    file: u32,
    batch: RecordBatch,
    by_position: HashMap<i64, u32>,
}

impl Images {
    fn of(file: u32, batch: RecordBatch) -> Self {
        let positions = batch[POSITION].as_primitive::<Int64Type>();
        let by_position = positions.values().iter().zip(0..).map(|(position, row)| (*position, row)).collect();
        Self { file, batch, by_position }
    }

    /// The rows of a batch that are marked, with their marks.
    fn over(&self, live: &LiveBatch, keys: &Keys) -> Result<RecordBatch> {
        let odd = |e: arrow_schema::ArrowError| Error::bug("cannot find rows to mark").with_source(e);
        let images: Vec<Option<u32>> = live.positions.iter().map(|at| self.by_position.get(at).copied()).collect();
        let wanted: BooleanArray = images.iter().map(|image| Some(image.is_some())).collect();
        let values = arrow_select::filter::filter_record_batch(&live.batch, &wanted).map_err(odd)?;
        let images: UInt32Array = images.into_iter().flatten().map(Some).collect();
        let marks = arrow_select::take::take_record_batch(&self.batch, &images).map_err(odd)?;
        overlay(&values, &marks, keys)
    }
}

/// Writes the rows anew that `marks` tell of, as [`images`] made them, each with its own values and the event's marks.
///
/// # Errors
/// Those of the stores and of the temporary directory; `Data` for files of the table that cannot be read.
pub async fn rewrite(
    table: &Table,
    files: &[LiveFile],
    marks: Vec<SharedFile>,
    (shuffle, cpu): (&Arc<Shuffle>, &Cpu),
    spec: WriteSpec,
) -> Result<Vec<NewFile>> {
    let bytes: u64 = marks.iter().map(|file| lock(file).bytes()).sum();
    if bytes == 0 {
        return Ok(Vec::new());
    }
    let bound = (cpu.memory() / 16).max(1);
    let permit = cpu.permit(spec.memory + 2 * bound).await?;
    let parts = shuffle.scratch(bytes.div_ceil(bound).clamp(1, PARTS_MAX) as usize);
    let to = parts.clone();
    cpu.run(&permit, move || spread(&marks, to, bound as usize)).await??;
    let reader = Reader::all(table)?;
    let load = |part: SharedFile| async move {
        let of = tokio::task::spawn_blocking(move || by_file(&part)).await;
        let of = of.map_err(|e| Error::bug("a reading thread died").with_source(e))??;
        Ok::<_, Error>(stream::iter(of.into_iter().map(|images| Ok::<_, Error>(Arc::new(images)))))
    };
    let open = |images: Arc<Images>| {
        let (reader, file) = (reader.clone(), files[images.file as usize].clone());
        async move { Ok::<_, Error>(reader.rows(&file).await?.map_ok(move |live| (Arc::clone(&images), live))) }
    };
    let rows = stream::iter(parts).then(load).try_flatten().and_then(open).try_flatten();
    let rows = rows.map(|found| {
        let (images, live): (Arc<Images>, LiveBatch) = found?;
        images.over(&live, shuffle.keys())
    });
    write_stream(spec, rows).await
}

/// The marks of each file into one part.
fn spread(marks: &[SharedFile], parts: Vec<SharedFile>, held: usize) -> Result<()> {
    let count = parts.len();
    let mut frames = Frames::new(parts, held);
    for file in marks {
        for batch in lock(file).read()? {
            let batch = batch?;
            let mut rows: Vec<Vec<u32>> = vec![Vec::new(); count];
            for (row, file) in (0..).zip(batch[FILE].as_primitive::<UInt32Type>().values()) {
                rows[*file as usize % count].push(row);
            }
            frames.write(&batch, rows.into_iter().enumerate())?;
        }
    }
    frames.finish()
}

/// The marks of one part, by file.
fn by_file(part: &SharedFile) -> Result<Vec<Images>> {
    let odd = |e: arrow_schema::ArrowError| Error::bug("cannot split marks by file").with_source(e);
    let batches = lock(part).read()?.collect::<Result<Vec<_>>>()?;
    let Some(first) = batches.first() else { return Ok(Vec::new()) };
    let whole = arrow_select::concat::concat_batches(first.schema_ref(), &batches).map_err(odd)?;
    let mut rows: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (row, file) in (0..).zip(whole[FILE].as_primitive::<UInt32Type>().values()) {
        rows.entry(*file).or_default().push(row);
    }
    let images = |(file, rows): (u32, Vec<u32>)| {
        let batch = arrow_select::take::take_record_batch(&whole, &UInt32Array::from(rows)).map_err(odd)?;
        Ok(Images::of(file, batch))
    };
    rows.into_iter().map(images).collect()
}
