//! Truncates of tables with soft deletes: rows that came before one stay, and say that they are deleted.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray};
use arrow_schema::DataType;
use firn_shared::config::{DELETED, DELETED_AT};
use firn_shared::error::{Error, Result};
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::table::Table;
use roaring::RoaringTreemap;

use super::apply::Gone;
use super::merge::Places;
use super::shuffle::Shuffle;
use super::truncate::{Truncation, Truncations};
use crate::seam::Cpu;
use crate::table::NewFile;
use crate::table::scan::{LiveBatch, LiveFile, Reader};
use crate::write::{WriteSpec, write_stream};

/// Rows as they are after the truncates `over` them. A row that was deleted before stays as it is.
///
/// # Errors
/// `Bug` for rows without the columns of a soft delete.
pub fn soften(rows: &RecordBatch, over: &[Option<&Truncation>]) -> Result<RecordBatch> {
    if over.iter().all(Option::is_none) {
        return Ok(rows.clone());
    }
    let deleted = deleted(rows)?;
    let index = |name: &str| rows.schema_ref().index_of(name).map_err(|e| lacks(name).with_source(e));
    let (mark, time) = (index(DELETED)?, index(DELETED_AT)?);
    let times = rows.column(time).as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(|| lacks(DELETED_AT))?;
    let now = |row: usize| over[row].filter(|_| !deleted[row]);
    let marks: BooleanArray = (0..rows.num_rows()).map(|row| Some(deleted[row] || over[row].is_some())).collect();
    let times: TimestampMicrosecondArray = (0..rows.num_rows())
        .map(|row| match now(row) {
            Some(truncation) => truncation.micros,
            None => times.is_valid(row).then(|| times.value(row)),
        })
        .collect();
    let mut columns = rows.columns().to_vec();
    columns[mark] = Arc::new(marks);
    columns[time] = match rows.column(time).data_type() {
        DataType::Timestamp(_, zone) => Arc::new(times.with_timezone_opt(zone.clone())) as ArrayRef,
        _ => return Err(lacks(DELETED_AT)),
    };
    RecordBatch::try_new(rows.schema(), columns).map_err(|e| Error::bug("cannot mark rows as deleted").with_source(e))
}

/// Which rows are marked as deleted.
fn deleted(rows: &RecordBatch) -> Result<Vec<bool>> {
    let marks =
        rows.column_by_name(DELETED).and_then(|column| column.as_boolean_opt()).ok_or_else(|| lacks(DELETED))?;
    Ok(marks.iter().map(|mark| mark == Some(true)).collect())
}

fn lacks(name: &str) -> Error {
    Error::bug(format!("rows of a table with soft deletes have no `{name}`"))
}

/// Rows that were softened.
#[derive(Debug, Default)]
pub struct Softened {
    /// Where they were: those that were not deleted already.
    pub places: Places,
    /// The files they are in now.
    pub files: Vec<NewFile>,
}

/// Writes the rows in `of` anew, marked, file after file.
///
/// # Errors
/// Those of the stores; `Data` for files of the table that cannot be read.
pub async fn rewrite(
    table: &Table,
    of: Gone,
    (shuffle, truncations, cpu): (&Arc<Shuffle>, &Arc<Truncations>, &Cpu),
    spec: WriteSpec,
) -> Result<Softened> {
    if of.is_empty() {
        return Ok(Softened::default());
    }
    let _permit = cpu.permit(spec.memory).await?;
    let reader = Reader::all(table)?;
    let open = |(number, file, places): (u32, LiveFile, Arc<RoaringTreemap>)| {
        let reader = reader.clone();
        async move { Ok::<_, Error>(reader.rows(&file).await?.map_ok(move |live| (number, Arc::clone(&places), live))) }
    };
    let mut softened = Softened::default();
    let places = &mut softened.places;
    let rows = stream::iter(of).then(open).try_flatten().map(|found| {
        let (number, wanted, live): (u32, Arc<RoaringTreemap>, LiveBatch) = found?;
        let (taken, positions) = still_there(&live, &wanted)?;
        if taken.num_rows() == 0 {
            return Ok(taken);
        }
        places.entry(number).or_default().extend(positions);
        soften(&taken, &truncations.over(shuffle.keys(), &taken)?)
    });
    softened.files = write_stream(spec, rows).await?;
    Ok(softened)
}

/// Rows at certain places that are not deleted, and where they are.
fn still_there(live: &LiveBatch, rows: &RoaringTreemap) -> Result<(RecordBatch, Vec<u64>)> {
    let deleted = deleted(&live.batch)?;
    let wanted = |row: usize| rows.contains(live.positions[row] as u64) && !deleted[row];
    let keep: BooleanArray = (0..live.positions.len()).map(|row| Some(wanted(row))).collect();
    let positions = keep.values().set_indices().map(|row| live.positions[row] as u64).collect();
    let taken = arrow_select::filter::filter_record_batch(&live.batch, &keep);
    Ok((taken.map_err(|e| Error::bug("cannot filter rows").with_source(e))?, positions))
}
