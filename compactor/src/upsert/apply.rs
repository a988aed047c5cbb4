//! Takes rows out of the table, in the way its strategy says.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt32Type;
use arrow_array::{BooleanArray, RecordBatch, UInt32Array};
use firn_shared::config::domain::{DeleteFiles, WriteStrategy};
use firn_shared::error::{Error, Result};
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::table::Table;
use roaring::RoaringTreemap;

use super::Staged;
use super::key::Keys;
use super::merge::FILE;
use crate::table::NewFile;
use crate::table::scan::{LiveBatch, LiveFile, Reader};
use crate::write::deletes::{write_equality_deletes, write_position_deletes};
use crate::write::{WriteSpec, write_stream};

/// Number, file, and rows of it that go.
pub type Gone = Vec<(u32, LiveFile, Arc<RoaringTreemap>)>;

/// Adds to `staged` what takes the rows `gone` out. A file that loses every row goes as a whole.
///
/// # Errors
/// Those of the stores; `Data` for files of the table that cannot be read.
pub async fn apply(
    table: &Table,
    strategy: WriteStrategy,
    (gone, outdated_keys, keys): (Gone, &[RecordBatch], &Keys),
    spec: WriteSpec,
    staged: &mut Staged,
) -> Result<()> {
    let whole = |(_, file, rows): &(u32, LiveFile, Arc<RoaringTreemap>)| rows.len() == file.file().record_count();
    let (all, some): (Gone, Gone) = gone.into_iter().partition(whole);
    staged.remove.extend(all.into_iter().map(|(_, file, _)| file));
    if some.is_empty() {
        return Ok(());
    }
    match strategy {
        WriteStrategy::CopyOnWrite => {
            staged.add.extend(rewrite(table, &some, spec).await?);
            staged.remove.extend(some.into_iter().map(|(_, file, _)| file));
        }
        WriteStrategy::MergeOnRead(DeleteFiles::Position) => {
            staged.referred.extend(some.iter().map(|(_, file, _)| file.clone()));
            let write = move || write_position_deletes(&spec, some.iter().map(|(_, file, rows)| (file, &**rows)));
            staged.add.extend(blocking(write).await?);
        }
        WriteStrategy::MergeOnRead(DeleteFiles::Equality) => {
            staged.referred.extend(some.iter().map(|(_, file, _)| file.clone()));
            for (number, (partition, rows)) in by_partition(&some, outdated_keys, keys)?.into_iter().enumerate() {
                let spec = WriteSpec { slice: format!("{}-{number}", spec.slice), ..spec.clone() };
                let ids = key_ids(table, keys)?;
                staged.add.extend(blocking(move || write_equality_deletes(&spec, &rows, &ids, partition)).await?);
            }
        }
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::bug("a writing thread died").with_source(e))?
}

fn key_ids(table: &Table, keys: &Keys) -> Result<Vec<i32>> {
    let schema = table.metadata().current_schema();
    let id = |name: &String| {
        schema.field_id_by_name(name).ok_or_else(|| Error::data(format!("the table has no column `{name}`")))
    };
    keys.names().iter().map(id).collect()
}

type Partition = (i32, iceberg::spec::Struct);

/// The keys of rows that go, without their files, by the partition that the rows are in: an equality delete reaches only
/// its own partition and spec, which need not be where the new row goes.
fn by_partition(gone: &Gone, keys: &[RecordBatch], of: &Keys) -> Result<Vec<(Partition, RecordBatch)>> {
    let mut numbers: Vec<(Partition, Vec<u32>)> = Vec::new();
    for (number, file, _) in gone {
        let partition = (file.data.spec_id, file.file().partition().clone());
        match numbers.iter_mut().find(|(known, _)| *known == partition) {
            Some((_, files)) => files.push(*number),
            None => numbers.push((partition, vec![*number])),
        }
    }
    let odd = |e: arrow_schema::ArrowError| Error::bug("cannot select keys").with_source(e);
    let mut parts: BTreeMap<usize, Vec<RecordBatch>> = BTreeMap::new();
    for batch in keys {
        let files: &UInt32Array = batch[FILE].as_primitive::<UInt32Type>();
        let plain: Vec<usize> =
            of.names().iter().map(|n| batch.schema_ref().index_of(n)).collect::<Result<_, _>>().map_err(odd)?;
        let plain = batch.project(&plain).map_err(odd)?;
        for (at, (_, wanted)) in numbers.iter().enumerate() {
            let rows: BooleanArray = files.values().iter().map(|n| Some(wanted.contains(n))).collect();
            let rows = arrow_select::filter::filter_record_batch(&plain, &rows).map_err(odd)?;
            if rows.num_rows() > 0 {
                parts.entry(at).or_default().push(rows);
            }
        }
    }
    let joined = parts.into_iter().map(|(at, batches)| {
        let whole = arrow_select::concat::concat_batches(batches[0].schema_ref(), &batches).map_err(odd)?;
        Ok((numbers[at].0.clone(), whole))
    });
    joined.collect()
}

/// Writes the rows that stay, file after file.
async fn rewrite(table: &Table, gone: &Gone, spec: WriteSpec) -> Result<Vec<NewFile>> {
    let reader = Reader::all(table)?;
    let open = |(_, file, rows): &'_ (u32, LiveFile, Arc<RoaringTreemap>)| {
        let (reader, file, rows) = (reader.clone(), file.clone(), rows.clone());
        async move { Ok::<_, Error>(reader.rows(&file).await?.and_then(move |live| std::future::ready(stay(&live, &rows)))) }
    };
    write_stream(spec, stream::iter(gone).then(open).try_flatten()).await
}

/// The rows of a batch that do not go.
fn stay(live: &LiveBatch, gone: &RoaringTreemap) -> Result<RecordBatch> {
    let stay: BooleanArray = live.positions.iter().map(|p| Some(!gone.contains(*p as u64))).collect();
    let kept = arrow_select::filter::filter_record_batch(&live.batch, &stay);
    kept.map_err(|e| Error::bug("cannot filter rows").with_source(e))
}
