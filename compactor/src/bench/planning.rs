//! Planning and committing on a table of many files. Only metadata exists: manifests name data files that were never
//! written, because neither step opens one. What files an upsert may touch is found as a run finds it, from its keys; the
//! look-up inside of them, which reads, is measured by `bench` on tables that have rows.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arrow_array::{ArrayRef, Date32Array, Int64Array, RecordBatch};
use clap::Args;
use firn_shared::clock::{Clock, SystemClock};
use firn_shared::config::domain::{self, PartitionField, S3Options, Transform};
use firn_shared::ids::ColumnName;
use firn_shared::store::Stores;
use iceberg::spec::{
    DataContentType, DataFileBuilder, DataFileFormat, Datum, Literal, ManifestListWriter, ManifestWriterBuilder,
    Operation, Schema, Snapshot, SnapshotReference, SnapshotRetention, Struct, Summary,
};
use iceberg::table::Table;
use iceberg::{NamespaceIdent, TableIdent, TableUpdate};
use serde::Serialize;

use super::usage::{Begun, Step};
use crate::table::catalog::open;
use crate::table::create::Definition;
use crate::table::scan::{All, Tracked, live};
use crate::table::schema::TableColumn;
use crate::table::{Catalog, Change, CommitOutcome, Committer, NewFile};
use crate::upsert::{Affected, Touched};

/// `compactor bench planning`
#[derive(Debug, Args)]
pub struct Planning {
    /// Data files of the table.
    #[arg(long, default_value_t = 100_000)]
    pub files: usize,
    /// Manifests they are spread over, one partition each.
    #[arg(long, default_value_t = 2_000)]
    pub manifests: usize,
    /// Days, which are the table's partitions.
    #[arg(long, default_value_t = 365)]
    pub days: usize,
    /// Days that the upsert touches.
    #[arg(long, default_value_t = 7)]
    pub touched: usize,
    /// An empty directory for the table's metadata.
    #[arg(long)]
    pub to: PathBuf,
}

/// What it took.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanningFigures {
    files: usize,
    manifests: usize,
    steps: Vec<Step>,
}

/// Rows of a data file.
const ROWS: usize = 1000;
/// Keys that the upsert has.
const KEYS: usize = 100_000;

/// Makes the table and measures on it.
///
/// # Errors
/// A directory that is in use, and whatever the table layer says.
pub fn planning(options: &Planning) -> Result<PlanningFigures> {
    ensure!(
        options.files >= options.manifests && options.manifests >= options.days,
        "more files than manifests than days"
    );
    ensure!(options.days >= options.touched && options.touched > 0, "some of the days are touched");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(options))
}

struct Bench {
    catalog: Arc<dyn Catalog>,
    ident: TableIdent,
    steps: Vec<Step>,
}

impl Bench {
    async fn table(&self) -> Result<Table> {
        self.catalog.load(&self.ident).await?.context("the table was just made")
    }

    fn note(&mut self, what: &'static str, begun: &Begun, count: usize) -> Result<()> {
        self.steps.push(begun.ends(what, count)?);
        Ok(())
    }

    async fn commit(&mut self, what: &'static str, change: Change) -> Result<()> {
        let begun = Begun::now()?;
        let change = Change { commit_id: what.to_owned(), ..change };
        let committer = Committer::new(self.catalog.clone(), Arc::new(SystemClock));
        let table = committer.commit(&self.ident, &change).await?.table;
        let step = begun.ends(what, 0)?;
        let snapshot = table.metadata().current_snapshot().context("a snapshot was just committed")?;
        let count = table.manifest_list_reader(snapshot).load().await?.entries().len();
        self.steps.push(Step { count, ..step });
        Ok(())
    }
}

async fn measure(options: &Planning) -> Result<PlanningFigures> {
    let mut bench = make(&options.to).await?;
    let begun = Begun::now()?;
    fill(&bench, options).await?;
    bench.note("make the table", &begun, options.manifests)?;

    let table = bench.table().await?;
    let begun = Begun::now()?;
    let mut touched = Touched::new(table.metadata(), &["day".to_owned(), "id".to_owned()])?;
    touched.add(&keys(options)?)?;
    let days = Arc::new(Affected { touched, replaced: None });
    bench.note("say what keys touch", &begun, KEYS)?;
    let base = table.metadata().current_snapshot_id();
    let mut found = Vec::new();
    for what in ["plan an upsert, nothing cached", "plan an upsert again"] {
        let begun = Begun::now()?;
        found = live(&table, None, days.as_ref()).await?;
        bench.note(what, &begun, found.len())?;
    }

    // One in ten files of the touched days is rewritten.
    let remove: Vec<Tracked> = found.iter().step_by(10).map(|f| f.data.clone()).collect();
    let schema = table.metadata().current_schema();
    let add = (0..remove.len()).map(|n| file(schema, remove[n].file().partition(), options.files + n, None));
    let mut change = Change { add: add.collect::<Result<_>>()?, remove: remove.clone(), ..Change::default() };
    change.expect.no_new_files = Some((base, days.clone()));
    change.expect.no_new_deletes_for = Some((base, remove));
    bench.commit("commit copy-on-write", change).await?;

    // Each file that is left in the touched days gets a delete file.
    let table = bench.table().await?;
    let left: Vec<Tracked> = live(&table, None, days.as_ref()).await?.into_iter().map(|f| f.data).collect();
    let deletes = left.iter().enumerate().map(|(n, f)| file(schema, f.file().partition(), n, Some(f.path())));
    let mut change = Change { add: deletes.collect::<Result<_>>()?, ..Change::default() };
    change.expect.no_new_files = Some((table.metadata().current_snapshot_id(), days.clone()));
    change.expect.live = left;
    bench.commit("commit merge-on-read", change).await?;

    let table = bench.table().await?;
    let begun = Begun::now()?;
    let found = live(&table, None, days.as_ref()).await?;
    ensure!(found.iter().all(|f| f.deletes().count() == 1), "every file of the touched days has its delete file");
    bench.note("plan with delete files", &begun, found.len())?;
    let begun = Begun::now()?;
    let all = live(&table, None, &All).await?.len();
    ensure!(all == options.files, "{all} files are live");
    bench.note("plan without pruning", &begun, all)?;
    bench.commit("truncate", Change { replace_all: true, ..Change::default() }).await?;
    Ok(PlanningFigures { files: options.files, manifests: options.manifests, steps: bench.steps })
}

async fn make(to: &Path) -> Result<Bench> {
    std::fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    let to = to.canonicalize()?;
    ensure!(std::fs::read_dir(&to)?.next().is_none(), "{} is not empty", to.display());
    let stores = Stores::new(S3Options::default());
    let settings = domain::Catalog::Sqlite { path: to.join("catalog.db"), name: "default".to_owned() };
    let catalog = open(&settings, &stores).await?;
    let column = |name: &str, r#type: &str| -> Result<TableColumn> {
        Ok(TableColumn { name: name.to_owned(), r#type: r#type.parse()?, required: false, doc: None })
    };
    let definition = Definition {
        ident: TableIdent::new(NamespaceIdent::new("bench".to_owned()), "t".to_owned()),
        location: format!("file://{}/lake/t", to.display()),
        columns: vec![column("id", "long")?, column("day", "date")?, column("text", "string")?],
        partition_by: vec![PartitionField { column: ColumnName::new("day")?, transform: Transform::Identity }],
        sort_by: Vec::new(),
        properties: BTreeMap::new(),
        needed: BTreeMap::new(),
    };
    definition.ensure(catalog.as_ref()).await?;
    Ok(Bench { catalog, ident: definition.ident, steps: Vec::new() })
}

/// Keys from all over the touched days: date and number.
fn keys(options: &Planning) -> Result<RecordBatch> {
    let day = |key: usize| day(key % options.touched * options.days / options.touched);
    let last = options.files * ROWS - 1;
    let days: ArrayRef = Arc::new(Date32Array::from_iter_values((0..KEYS).map(day)));
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values((0..KEYS).map(|key| (key * last / (KEYS - 1)) as i64)));
    Ok(RecordBatch::try_from_iter([("day", days), ("id", ids)])?)
}

/// The first snapshot, as if one commit had written all manifests: merging would else make them fewer.
async fn fill(bench: &Bench, options: &Planning) -> Result<()> {
    let table = bench.table().await?;
    let (metadata, io) = (table.metadata(), table.file_io());
    let (schema, spec) = (metadata.current_schema(), metadata.default_partition_spec());
    let (id, sequence) = (1, metadata.next_sequence_number());
    let path = |name: String| format!("{}/metadata/{name}.avro", metadata.location());
    let mut manifests = Vec::with_capacity(options.manifests);
    for number in 0..options.manifests {
        let output = io.new_output(path(format!("bench-m{number}")))?;
        let mut writer =
            ManifestWriterBuilder::new(output, Some(id), schema.clone(), spec.as_ref().clone()).build_v2_data();
        let day = partition(number % options.days);
        for file_number in (number..options.files).step_by(options.manifests) {
            writer.add_file(file(schema, &day, file_number, None)?.file, -1)?;
        }
        manifests.push(writer.write_manifest_file().await?);
    }
    let list = path("snap-bench".to_owned());
    let mut writer = ManifestListWriter::v2(io.new_output(&list)?.writer().await?, id, None, sequence);
    writer.add_manifests(manifests.into_iter())?;
    writer.close().await?;
    let snapshot = Snapshot::builder()
        .with_manifest_list(list)
        .with_snapshot_id(id)
        .with_sequence_number(sequence)
        .with_summary(Summary { operation: Operation::Append, additional_properties: HashMap::new() })
        .with_schema_id(metadata.current_schema_id())
        .with_timestamp_ms(SystemClock.now().timestamp_millis())
        .build();
    let reference = SnapshotReference::new(id, SnapshotRetention::branch(None, None, None));
    let updates = vec![
        TableUpdate::AddSnapshot { snapshot },
        TableUpdate::SetSnapshotRef { ref_name: "main".to_owned(), reference },
    ];
    let outcome = bench.catalog.commit(&table, updates, Vec::new()).await?;
    ensure!(matches!(outcome, CommitOutcome::Committed(_)), "the first snapshot was not committed: {outcome:?}");
    Ok(())
}

fn day(number: usize) -> i32 {
    20_000 + number as i32
}

fn partition(number: usize) -> Struct {
    Struct::from_iter([Some(Literal::date(day(number)))])
}

/// The `number`-th data file, or a position delete file of the data file `of`.
fn file(schema: &Schema, partition: &Struct, number: usize, of: Option<&str>) -> Result<NewFile> {
    let id = schema.field_id_by_name("id").context("the table has ids")?;
    let low = (number * ROWS) as i64;
    let kind = if of.is_some() { "deletes" } else { "data" };
    let mut builder = DataFileBuilder::default();
    builder
        .content(if of.is_some() { DataContentType::PositionDeletes } else { DataContentType::Data })
        .file_path(format!("file:///bench/lake/t/data/day/0193f1f2-7d3c-7aaa-{kind}-{number:012}.parquet"))
        .file_format(DataFileFormat::Parquet)
        .partition(partition.clone())
        .record_count(ROWS as u64)
        .file_size_in_bytes(128 << 20);
    match of {
        Some(path) => {
            builder.referenced_data_file(Some(path.to_owned()));
        }
        None => {
            let ids = 1..=3;
            builder
                .column_sizes(ids.clone().map(|id| (id, 1 << 20)).collect())
                .value_counts(ids.clone().map(|id| (id, ROWS as u64)).collect())
                .null_value_counts(ids.map(|id| (id, 0)).collect())
                .lower_bounds(HashMap::from([(id, Datum::long(low)), (3, Datum::string("a text of 16 c"))]))
                .upper_bounds(HashMap::from([
                    (id, Datum::long(low + ROWS as i64 - 1)),
                    (3, Datum::string("z text of 16 c")),
                ]));
        }
    }
    Ok(NewFile { spec_id: 0, file: builder.build()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_planned_on_and_committed_to() {
        let dir = tempfile::tempdir().unwrap();
        let options = Planning { files: 600, manifests: 120, days: 12, touched: 3, to: dir.path().join("t") };
        let figures = planning(&options).unwrap();
        let counts: Vec<_> = figures.steps.iter().map(|s| (s.what, s.count)).collect();
        assert_eq!(counts[2], ("plan an upsert, nothing cached", 150));
        assert_eq!(counts[7], ("plan without pruning", 600));
        // More than a hundred small manifests: the commits merged a hundred of them, and no more.
        assert!(counts[4].1 > 20 && counts[4].1 < 30, "{counts:?}");
    }
}
