//! Takes rows out of the table, in the way its strategy says.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt32Type;
use arrow_array::{BooleanArray, RecordBatch};
use firn_shared::config::domain::{DeleteFiles, WriteStrategy};
use firn_shared::error::{Error, Result};
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::table::Table;
use roaring::RoaringTreemap;

use super::Staged;
use super::frames::{Frames, SharedFile, lock};
use super::key::Keys;
use super::merge::{FILE, Places};
use super::shuffle::Shuffle;
use crate::execute::Budget;
use crate::seam::Cpu;
use crate::table::NewFile;
use crate::table::scan::{LiveBatch, LiveFile, PartitionKey, Reader};
use crate::write::deletes::{write_equality_deletes_in_parts, write_position_deletes};
use crate::write::{WriteSpec, write_stream};

/// Number, file, and rows of it that go.
pub type Gone = Vec<(u32, LiveFile, Arc<RoaringTreemap>)>;

/// Rows of the table that go.
#[derive(Debug)]
pub struct Leaving {
    /// All of them.
    pub gone: Gone,
    /// Those that go without the other rows of their key.
    pub displaced: Places,
    /// The keys of the others, each with [`FILE`]; for equality deletes only.
    pub keys: Vec<SharedFile>,
}

/// Adds to `staged` what takes the rows that leave out. A file that loses every row goes as a whole.
///
/// # Errors
/// Those of the stores; `Data` for files of the table that cannot be read.
pub async fn apply(
    table: &Table,
    strategy: WriteStrategy,
    Leaving { gone, displaced, keys }: Leaving,
    (shuffle, cpu): (&Arc<Shuffle>, &Cpu),
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
            staged.add.extend(rewrite(table, &some, spec, cpu).await?);
            staged.remove.extend(some.into_iter().map(|(_, file, _)| file));
        }
        WriteStrategy::MergeOnRead(DeleteFiles::Position) => {
            staged.referred.extend(some.iter().map(|(_, file, _)| file.clone()));
            let write = move || write_position_deletes(&spec, some.iter().map(|(_, file, rows)| (file, &**rows)));
            staged.add.extend(blocking(write).await?);
        }
        WriteStrategy::MergeOnRead(DeleteFiles::Equality) => {
            staged.referred.extend(some.iter().map(|(_, file, _)| file.clone()));
            staged.add.extend(by_key(table, &some, keys, (shuffle, cpu), &spec).await?);
            // A delete by key would take the others of the key, too.
            let rest: Vec<(LiveFile, RoaringTreemap)> = some
                .into_iter()
                .filter_map(|(number, file, _)| Some((file, displaced.get(&number)?.clone())))
                .collect();
            let write = move || write_position_deletes(&spec, rest.iter().map(|(file, rows)| (file, rows)));
            staged.add.extend(blocking(write).await?);
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

/// Writes equality deletes of the keys of rows in `gone`, in the partitions that the rows are in: an equality delete reaches
/// only its own partition and spec, which need not be where the new row goes.
async fn by_key(
    table: &Table,
    gone: &Gone,
    keys: Vec<SharedFile>,
    (shuffle, cpu): (&Arc<Shuffle>, &Cpu),
    spec: &WriteSpec,
) -> Result<Vec<NewFile>> {
    let mut partitions: Vec<(i32, iceberg::spec::Struct)> = Vec::new();
    let mut numbers: HashMap<PartitionKey, usize> = HashMap::new();
    let mut of_file: HashMap<u32, usize> = HashMap::new();
    for (number, file, _) in gone {
        let at = *numbers.entry(file.data.key()).or_insert_with(|| {
            partitions.push((file.data.spec_id, file.file().partition().clone()));
            partitions.len() - 1
        });
        of_file.insert(*number, at);
    }
    let parts = shuffle.scratch(partitions.len());
    let permit = cpu.permit(spec.memory).await?;
    let (of, to, held) = (Arc::clone(shuffle), parts.clone(), permit.bytes() / 2);
    cpu.run(&permit, move || by_partition(&keys, &of_file, of.keys(), Frames::new(to, held as usize))).await??;
    let ids = key_ids(table, shuffle.keys())?;
    let mut files = Vec::new();
    for (number, (part, partition)) in parts.into_iter().zip(partitions).enumerate() {
        let spec = WriteSpec { slice: format!("{}-{number}", spec.slice), ..spec.clone() };
        let ids = ids.clone();
        let write = move || write_equality_deletes_in_parts(&spec, lock(&part).read()?, &ids, partition);
        files.extend(blocking(write).await?);
    }
    Ok(files)
}

/// Keys, without their files, into the part of the partition that their file is in; those of other files are left out.
fn by_partition(keys: &[SharedFile], of_file: &HashMap<u32, usize>, of: &Keys, mut to: Frames) -> Result<()> {
    let odd = |e: arrow_schema::ArrowError| Error::bug("cannot select keys").with_source(e);
    for file in keys {
        for batch in lock(file).read()? {
            let batch = batch?;
            let mut parts: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
            for (row, file) in (0..).zip(batch[FILE].as_primitive::<UInt32Type>().values()) {
                if let Some(part) = of_file.get(file) {
                    parts.entry(*part).or_default().push(row);
                }
            }
            let plain = of.names().iter().map(|name| batch.schema_ref().index_of(name));
            let plain = batch.project(&plain.collect::<Result<Vec<_>, _>>().map_err(odd)?).map_err(odd)?;
            to.write(&plain, parts)?;
        }
    }
    to.finish()
}

/// Writes the rows that stay, several files at a time, neighbours in one lane so that each partition has few new files.
async fn rewrite(table: &Table, gone: &Gone, spec: WriteSpec, cpu: &Cpu) -> Result<Vec<NewFile>> {
    let Budget { at_once, slice: share } = Budget::of(cpu.memory(), cpu.threads())?;
    let lanes = lanes(gone, at_once, spec.target_file_bytes);
    let reader = Reader::all(table)?.with_delete_bytes(share.bytes / 4 * lanes.len() as u64);
    let lane = |(number, files): (usize, Gone)| {
        let (slice, reader) = (format!("{}-{number}", spec.slice), reader.clone());
        let spec = WriteSpec { slice, memory: share.bytes / 4, ..spec.clone() };
        let open = move |(_, file, rows): (u32, LiveFile, Arc<RoaringTreemap>)| {
            let reader = reader.clone();
            async move {
                let live = reader.rows(&file).await?;
                Ok::<_, Error>(live.and_then(move |live| std::future::ready(stay(&live, &rows))))
            }
        };
        async move {
            let _permit = cpu.permit(share.bytes).await?;
            write_stream(spec, stream::iter(files).then(open).try_flatten()).await
        }
    };
    let written = futures::future::try_join_all(lanes.into_iter().enumerate().map(lane)).await?;
    Ok(written.into_iter().flatten().collect())
}

/// The files in at most `most` lanes of about equal bytes, by partition; no more lanes than there are whole files to write.
fn lanes(gone: &Gone, most: usize, target_file_bytes: u64) -> Vec<Gone> {
    let mut files = gone.clone();
    files.sort_by_cached_key(|(number, file, _)| (format!("{:?}", file.data.key()), *number));
    let total: u64 = files.iter().map(|(_, file, _)| file.file().file_size_in_bytes()).sum();
    let count = (total / target_file_bytes.max(1)).clamp(1, most.max(1) as u64);
    let mut lanes: Vec<Gone> = vec![Vec::new(); count as usize];
    let mut before = 0;
    for file in files {
        let at = u128::from(before) * u128::from(count) / u128::from(total.max(1));
        before += file.1.file().file_size_in_bytes();
        lanes[(at as usize).min(count as usize - 1)].push(file);
    }
    lanes.retain(|lane| !lane.is_empty());
    lanes
}

/// The rows of a batch that do not go.
fn stay(live: &LiveBatch, gone: &RoaringTreemap) -> Result<RecordBatch> {
    let stay: BooleanArray = live.positions.iter().map(|p| Some(!gone.contains(*p as u64))).collect();
    let kept = arrow_select::filter::filter_record_batch(&live.batch, &stay);
    kept.map_err(|e| Error::bug("cannot filter rows").with_source(e))
}
