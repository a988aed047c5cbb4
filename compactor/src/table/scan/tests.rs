//! Random tables with deletes and schema changes, against a model and against the crate's own scan.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Fields};
use firn_shared::clock::SystemClock;
use firn_shared::config::domain::{self, PartitionField, S3Options, Transform};
use firn_shared::ids::{ColumnName, RunId};
use firn_shared::store::Stores;
use futures::TryStreamExt;
use iceberg::spec::{NestedField, PrimitiveType, Schema, StructType, Type, UnboundPartitionSpec};
use iceberg::{NamespaceIdent, TableIdent, TableUpdate};
use proptest::prelude::*;
use roaring::RoaringTreemap;

use super::*;
use crate::table::catalog::open;
use crate::table::create::Definition;
use crate::table::schema::TableColumn;
use crate::table::{Catalog, Change, CommitOutcome, Committer, NewFile};
use crate::write::deletes::{write_equality_deletes, write_position_deletes};
use crate::write::{DataWriter, WriteSpec};

/// A row in the newest schema. `n` is the struct, `a` and `b` its fields.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(in crate::table) struct Row {
    pub id: i64,
    pub k: Option<String>,
    pub v: Option<i64>,
    pub n: Option<(Option<i64>, Option<i64>)>,
    pub w: Option<String>,
}

/// One table in a SQLite catalog on local files.
#[allow(clippy::struct_excessive_bools, reason = "four changes of the schema, each made or not")]
pub(in crate::table) struct Bed {
    pub stores: Stores,
    pub catalog: Arc<dyn Catalog>,
    pub ident: TableIdent,
    commits: u32,
    /// Which changes of the schema were made.
    promoted: bool,
    added: bool,
    renamed: bool,
    /// Whether `v` is gone.
    dropped: bool,
}

impl Bed {
    pub async fn new(dir: &Path, partition: Option<(&str, Transform)>) -> Self {
        let stores = Stores::new(S3Options::default());
        let settings = domain::Catalog::Sqlite { path: dir.join("catalog.db"), name: "default".to_owned() };
        let catalog = open(&settings, &stores).await.unwrap();
        let column = |name: &str, r#type: &str, required| TableColumn {
            name: name.to_owned(),
            r#type: r#type.parse().unwrap(),
            required,
            doc: None,
        };
        let definition = Definition {
            ident: TableIdent::new(NamespaceIdent::new("db".to_owned()), "t".to_owned()),
            location: format!("file://{}/lake/t", dir.display()),
            columns: vec![
                column("id", "long", true),
                column("k", "string", false),
                column("v", "int", false),
                column("n", "struct<a: int>", false),
            ],
            partition_by: partition
                .map(|(column, transform)| PartitionField { column: ColumnName::new(column).unwrap(), transform })
                .into_iter()
                .collect(),
            sort_by: Vec::new(),
            properties: BTreeMap::new(),
            needed: BTreeMap::new(),
        };
        definition.ensure(catalog.as_ref()).await.unwrap();
        let ident = definition.ident;
        Self { stores, catalog, ident, commits: 0, promoted: false, added: false, renamed: false, dropped: false }
    }

    pub async fn table(&self) -> Table {
        self.catalog.load(&self.ident).await.unwrap().unwrap()
    }

    pub fn spec(&self, table: &Table) -> WriteSpec {
        WriteSpec {
            metadata: table.metadata_ref(),
            stores: self.stores.clone(),
            runtime: tokio::runtime::Handle::current(),
            run: RunId::new(),
            slice: "0".to_owned(),
            target_file_bytes: 1 << 20,
            memory: 32 << 20,
            open_files_max: 8,
            zstd_level: 1,
        }
    }

    pub async fn commit(&mut self, change: Change) -> Table {
        self.commits += 1;
        let change = Change { commit_id: format!("c{}", self.commits), ..change };
        self.committer().commit(&self.ident, &change).await.unwrap().table
    }

    pub fn committer(&self) -> Committer {
        Committer::new(self.catalog.clone(), Arc::new(SystemClock)).with_attempts(3)
    }

    /// The row as the schema of now can hold it.
    fn fit(&self, row: &Row) -> Row {
        let mut row = row.clone();
        if !self.added {
            row.w = None;
            row.n = row.n.map(|(a, _)| (a, None));
        }
        if self.dropped {
            row.v = None;
        }
        row
    }

    fn batch(&self, rows: &[Row]) -> RecordBatch {
        let long = |f: &dyn Fn(&Row) -> Option<i64>| -> ArrayRef {
            let values = rows.iter().map(f);
            if self.promoted {
                Arc::new(values.collect::<Int64Array>())
            } else {
                Arc::new(values.map(|v| v.map(|v| v as i32)).collect::<Int32Array>())
            }
        };
        let field = |name: &str, array: &ArrayRef| arrow_schema::Field::new(name, array.data_type().clone(), true);
        let mut inner = vec![("a", long(&|r| r.n.and_then(|n| n.0)))];
        if self.added {
            inner.push(("b", Arc::new(rows.iter().map(|r| r.n.and_then(|n| n.1)).collect::<Int64Array>())));
        }
        let fields: Fields = inner.iter().map(|(name, array)| field(name, array)).collect();
        let nulls = rows.iter().map(|r| r.n.is_some()).collect::<Vec<_>>().into();
        let inner = StructArray::new(fields, inner.into_iter().map(|(_, a)| a).collect(), Some(nulls));
        let text = |f: fn(&Row) -> Option<&str>| -> ArrayRef { Arc::new(rows.iter().map(f).collect::<StringArray>()) };
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            ("id", Arc::new(rows.iter().map(|r| r.id).collect::<Int64Array>())),
            (if self.renamed { "key" } else { "k" }, text(|r| r.k.as_deref())),
            ("n", Arc::new(inner)),
        ];
        if !self.dropped {
            columns.insert(2, ("v", long(&|r| r.v)));
        }
        if self.added {
            columns.push(("w", text(|r| r.w.as_deref())));
        }
        RecordBatch::try_from_iter(columns).unwrap()
    }

    pub async fn append(&mut self, rows: &[Row]) -> Table {
        let add = self.files(rows).await;
        self.commit(Change { add, ..Change::default() }).await
    }

    /// Data files that no commit names yet.
    pub async fn files(&self, rows: &[Row]) -> Vec<NewFile> {
        let table = self.table().await;
        let (spec, batch) = (self.spec(&table), self.batch(rows));
        let job = move || {
            let mut writer = DataWriter::new(spec).unwrap();
            writer.write(&batch).unwrap();
            writer.finish().unwrap()
        };
        tokio::task::spawn_blocking(job).await.unwrap()
    }

    /// Deletes by position the rows that `which` picks.
    pub async fn delete_rows(&mut self, which: impl Fn(&Row) -> bool) -> Table {
        let change = self.deletion(which).await;
        self.commit(change).await
    }

    /// The same, not committed yet.
    pub async fn deletion(&self, which: impl Fn(&Row) -> bool) -> Change {
        let table = self.table().await;
        let reader = Reader::all(&table).unwrap();
        let mut gone = Vec::new();
        for file in live(&table, None, &All).await.unwrap() {
            let mut bitmap = RoaringTreemap::new();
            for batch in reader.rows(&file).await.unwrap().try_collect::<Vec<_>>().await.unwrap() {
                for (row, position) in rows_of(&batch.batch).iter().zip(&batch.positions) {
                    if which(row) {
                        bitmap.insert(*position as u64);
                    }
                }
            }
            gone.push((file, bitmap));
        }
        let spec = self.spec(&table);
        let referred: Vec<Tracked> = gone.iter().filter(|(_, b)| !b.is_empty()).map(|(f, _)| f.data.clone()).collect();
        let job = move || write_position_deletes(&spec, gone.iter().map(|(f, b)| (f, b))).unwrap();
        let add = tokio::task::spawn_blocking(job).await.unwrap();
        let mut change = Change { add, ..Change::default() };
        change.expect.live = referred;
        change
    }

    /// Deletes by equality, in every live partition, the keys of `rows` in these columns.
    pub async fn delete_keys(&mut self, rows: &[Row], columns: &[&str]) {
        let table = self.table().await;
        let schema = table.metadata().current_schema().clone();
        let ids: Vec<i32> = columns.iter().map(|c| schema.field_id_by_name(c).unwrap()).collect();
        let whole = self.batch(rows);
        let keys = RecordBatch::try_from_iter(columns.iter().map(|c| (*c, whole.column_by_name(c).unwrap().clone())));
        let keys = keys.unwrap();
        let mut seen = HashSet::new();
        let mut add: Vec<NewFile> = Vec::new();
        for file in live(&table, None, &All).await.unwrap() {
            if seen.insert(file.data.key()) {
                let (spec, keys, ids) = (self.spec(&table), keys.clone(), ids.clone());
                let place = (file.data.spec_id, file.file().partition().clone());
                let job = move || write_equality_deletes(&spec, &keys, &ids, place).unwrap();
                add.extend(tokio::task::spawn_blocking(job).await.unwrap());
            }
        }
        self.commit(Change { add, ..Change::default() }).await;
    }

    /// One change of the schema, unless it was made before.
    pub async fn evolve(&mut self, step: u8) {
        let flag = match step {
            0 => &mut self.promoted,
            1 => &mut self.added,
            _ => &mut self.renamed,
        };
        if std::mem::replace(flag, true) {
            return;
        }
        let table = self.table().await;
        let mut fields: Vec<NestedField> =
            table.metadata().current_schema().as_struct().fields().iter().map(|f| f.as_ref().clone()).collect();
        let at = |name: &str| fields.iter().position(|field| field.name == name);
        let (v, n) = (at("v"), at("n").unwrap());
        let Type::Struct(inner) = fields[n].field_type.as_ref() else { panic!("n is a struct") };
        let mut inner: Vec<NestedField> = inner.fields().iter().map(|f| f.as_ref().clone()).collect();
        match step {
            0 => {
                if let Some(v) = v {
                    *fields[v].field_type = Type::Primitive(PrimitiveType::Long);
                }
                *inner[0].field_type = Type::Primitive(PrimitiveType::Long);
            }
            1 => {
                inner.push(NestedField::optional(51, "b", Type::Primitive(PrimitiveType::Long)));
                fields.push(NestedField::optional(50, "w", Type::Primitive(PrimitiveType::String)));
            }
            _ => fields[1].name = "key".to_owned(),
        }
        *fields[n].field_type = Type::Struct(StructType::new(inner.into_iter().map(Arc::new).collect()));
        let schema = Schema::builder().with_fields(fields.into_iter().map(Arc::new)).build().unwrap();
        self.update(vec![TableUpdate::AddSchema { schema }, TableUpdate::SetCurrentSchema { schema_id: -1 }]).await;
    }

    /// New files go to other partitions from now on.
    pub async fn repartition(&self, by: Option<(&str, iceberg::spec::Transform)>) {
        let table = self.table().await;
        let mut spec = UnboundPartitionSpec::builder();
        if let Some((column, transform)) = by {
            let id = table.metadata().current_schema().field_id_by_name(column).unwrap();
            spec = spec.add_partition_field(id, format!("p_{column}"), transform).unwrap();
        }
        let updates = vec![TableUpdate::AddSpec { spec: spec.build() }, TableUpdate::SetDefaultSpec { spec_id: -1 }];
        self.update(updates).await;
    }

    /// Drops column `v`, which the current partition spec must not need.
    pub async fn drop_v(&mut self) {
        if std::mem::replace(&mut self.dropped, true) {
            return;
        }
        let table = self.table().await;
        let fields = table.metadata().current_schema().as_struct().fields().iter().filter(|f| f.name != "v").cloned();
        let schema = Schema::builder().with_fields(fields).build().unwrap();
        self.update(vec![TableUpdate::AddSchema { schema }, TableUpdate::SetCurrentSchema { schema_id: -1 }]).await;
    }

    async fn update(&self, updates: Vec<TableUpdate>) {
        let outcome = self.catalog.commit(&self.table().await, updates, Vec::new()).await.unwrap();
        assert!(matches!(outcome, CommitOutcome::Committed(_)), "{outcome:?}");
    }

    /// All rows, sorted; positions are checked on the way.
    pub async fn rows(&self) -> Vec<Row> {
        self.rows_within(1 << 20).await
    }

    /// The same, with so many bytes for deleted positions and keys.
    async fn rows_within(&self, delete_bytes: u64) -> Vec<Row> {
        let table = self.table().await;
        let reader = Reader::all(&table).unwrap().with_batch_rows(3).with_delete_bytes(delete_bytes);
        let mut rows = Vec::new();
        for file in live(&table, None, &All).await.unwrap() {
            let alone = LiveFile::whole(file.data.clone());
            let all = reader.rows(&alone).await.unwrap().try_collect::<Vec<_>>().await.unwrap();
            let all: HashMap<i64, Row> =
                all.iter().flat_map(|b| b.positions.iter().copied().zip(rows_of(&b.batch))).collect();
            assert_eq!(all.len() as u64, file.file().record_count());
            for live in reader.rows(&file).await.unwrap().try_collect::<Vec<_>>().await.unwrap() {
                assert!(live.positions.is_sorted_by(|a, b| a < b));
                for (row, position) in rows_of(&live.batch).into_iter().zip(&live.positions) {
                    assert_eq!(all[position], row);
                    rows.push(row);
                }
            }
        }
        rows.sort();
        rows
    }

    /// The same as the crate reads them.
    async fn rows_by_the_crate(&self) -> iceberg::Result<Vec<Row>> {
        let stream = self.table().await.scan().build()?.to_arrow().await?;
        let batches: Vec<RecordBatch> = stream.try_collect().await?;
        let mut rows: Vec<Row> = batches.iter().flat_map(rows_of).collect();
        rows.sort();
        Ok(rows)
    }
}

pub(in crate::table) fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let long = |array: &ArrayRef, row: usize| -> Option<i64> {
        array.is_valid(row).then(|| match array.data_type() {
            DataType::Int32 => i64::from(array.as_primitive::<Int32Type>().value(row)),
            _ => array.as_primitive::<Int64Type>().value(row),
        })
    };
    let text = |name: &str, row: usize| {
        let array = batch.column_by_name(name)?.as_string::<i32>();
        array.is_valid(row).then(|| array.value(row).to_owned())
    };
    let inner = batch.column_by_name("n").unwrap().as_struct();
    let row = |row: usize| Row {
        id: long(batch.column_by_name("id").unwrap(), row).unwrap(),
        k: text("k", row).or_else(|| text("key", row)),
        v: batch.column_by_name("v").and_then(|v| long(v, row)),
        n: inner.is_valid(row).then(|| {
            (long(inner.column_by_name("a").unwrap(), row), inner.column_by_name("b").and_then(|b| long(b, row)))
        }),
        w: text("w", row),
    };
    (0..batch.num_rows()).map(row).collect()
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Row>),
    /// Rows whose id leaves this remainder by three.
    DeleteRows(i64),
    /// Keys of these rows, in a choice of columns.
    DeleteKeys(Vec<Row>, u8),
    Evolve(u8),
    /// New files go to other partitions.
    Repartition(u8),
    DropV,
}

fn row() -> impl Strategy<Value = Row> {
    let small = || proptest::option::of(0..3i64);
    let text = || proptest::option::of("[ab]");
    (0..8i64, text(), small(), proptest::option::of((small(), small())), text()).prop_map(|(id, k, v, n, w)| Row {
        id,
        k,
        v,
        n,
        w,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => proptest::collection::vec(row(), 1..12).prop_map(Step::Append),
        2 => (0..3i64).prop_map(Step::DeleteRows),
        2 => (proptest::collection::vec(row(), 1..4), 0..4u8).prop_map(|(rows, c)| Step::DeleteKeys(rows, c)),
        1 => (0..3u8).prop_map(Step::Evolve),
        1 => (0..4u8).prop_map(Step::Repartition),
        1 => Just(Step::DropV),
    ]
}

/// Whether two rows agree in these columns; null agrees with null.
fn same_key(a: &Row, b: &Row, columns: &[&str]) -> bool {
    columns.iter().all(|column| match *column {
        "id" => a.id == b.id,
        "v" => a.v == b.v,
        "w" => a.w == b.w,
        _ => a.k == b.k,
    })
}

async fn play(steps: Vec<Step>, partition: Option<(&str, Transform)>) {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::new(dir.path(), partition).await;
    let mut model: Vec<Row> = Vec::new();
    let mut by_the_crate = true;
    for step in steps {
        match step {
            Step::Append(rows) => {
                let rows: Vec<Row> = rows.iter().map(|r| bed.fit(r)).collect();
                bed.append(&rows).await;
                model.extend(rows);
            }
            Step::DeleteRows(remainder) => {
                bed.delete_rows(|row| row.id % 3 == remainder).await;
                model.retain(|row| row.id % 3 != remainder);
            }
            Step::DeleteKeys(rows, choice) => {
                let rows: Vec<Row> = rows.iter().map(|r| bed.fit(r)).collect();
                let key = if bed.renamed { "key" } else { "k" };
                let columns: &[&str] = match choice {
                    0 => &["id"],
                    1 if !bed.dropped => &[key, "v"],
                    2 if bed.added => &["w", "id"],
                    _ => &[key],
                };
                bed.delete_keys(&rows, columns).await;
                model.retain(|row| !rows.iter().any(|gone| same_key(row, gone, columns)));
                by_the_crate = false;
            }
            Step::Evolve(change) => bed.evolve(change).await,
            Step::Repartition(choice) => {
                use iceberg::spec::Transform as T;
                let key = if bed.renamed { "key" } else { "k" };
                let specs = [None, Some(("id", T::Bucket(3))), Some((key, T::Identity)), Some(("v", T::Identity))];
                let by = specs[choice as usize].filter(|(column, _)| *column != "v" || !bed.dropped);
                bed.repartition(by).await;
                by_the_crate = false;
            }
            Step::DropV => {
                bed.repartition(None).await;
                bed.drop_v().await;
                for row in &mut model {
                    row.v = None;
                }
                by_the_crate = false;
            }
        }
        model.sort();
        assert_eq!(bed.rows().await, model);
        assert_eq!(bed.rows_within(1).await, model, "with room for no key");
    }
    // The crate cannot add a field to a struct that is null.
    if by_the_crate && !bed.added {
        assert_eq!(bed.rows_by_the_crate().await.unwrap(), model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_scan_reads_what_a_model_holds(steps in proptest::collection::vec(step(), 1..9), choice in 0..3usize) {
        // The source of the last one is promoted on the way.
        let partition = [None, Some(("id", Transform::Bucket(2))), Some(("v", Transform::Identity))][choice];
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(play(steps, partition));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_files_of_a_partition_share_the_list_of_their_deletes() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::new(dir.path(), None).await;
    let row = |id| Row { id, ..Row::default() };
    for id in 0..3 {
        bed.append(&[row(id), row(100 + id)]).await;
        bed.delete_keys(&[row(id)], &["id"]).await;
    }
    let files = live(&bed.table().await, None, &All).await.unwrap();
    let mut counts: Vec<usize> = files.iter().map(|file| file.deletes().count()).collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 2, 3]);
    let lists: Vec<_> = files.iter().map(|file| file.applying.lists()).collect();
    assert!(lists.iter().all(|list| list.len() == 1 && Arc::ptr_eq(list[0], lists[0][0])));
    assert_eq!(bed.rows().await.len(), 3);
}
