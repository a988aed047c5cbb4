//! One suite for every catalog: SQLite, memory, Glue (ministack, which enforces table versions) and REST (SeaweedFS).

use std::collections::BTreeMap;
use std::sync::Arc;

use firn_compactor::provenance::{self, Origin};
use firn_compactor::table::catalog::memory::MemoryCatalog;
use firn_compactor::table::catalog::{Created, open};
use firn_compactor::table::create::Definition;
use firn_compactor::table::read::{self, Rows};
use firn_compactor::table::schema::TableColumn;
use firn_compactor::table::storage::file_io;
use firn_compactor::table::{Catalog, Change, CommitOutcome, Committer, NewFile, snapshot};
use firn_compactor::write::{DataWriter, OPEN_FILES_MAX, WriteSpec};
use firn_e2e::rig::procs::run_dir;
use firn_e2e::rig::readers::{Access, S3Access};
use firn_e2e::rig::s3::{Kind, REGION, S3Server};
use firn_shared::clock::{Clock, SystemClock};
use firn_shared::config::domain::{self, PartitionField, S3Options, Secret, SortField, Transform};
use firn_shared::ids::{ColumnName, EventHour, Partition, PartitionRef, RunId};
use firn_shared::store::Stores;
use futures::TryStreamExt;
use iceberg::table::Table;
use iceberg::{NamespaceIdent, TableIdent};
use serde_json::json;

/// A catalog, the stores under it, where tables go, and how DuckDB reaches them.
struct Subject {
    catalog: Arc<dyn Catalog>,
    stores: Stores,
    warehouse: String,
    s3: Option<S3Access>,
    database: String,
}

impl Subject {
    async fn open(catalog: domain::Catalog, s3: S3Options, warehouse: String, access: Option<S3Access>) -> Self {
        let stores = Stores::new(s3);
        let catalog = open(&catalog, &stores).await.unwrap();
        Self::of(catalog, stores, warehouse, access)
    }

    fn of(catalog: Arc<dyn Catalog>, stores: Stores, warehouse: String, access: Option<S3Access>) -> Self {
        let database = format!("db_{}", uuid::Uuid::new_v4().simple());
        Self { catalog, stores, warehouse, s3: access, database }
    }

    fn definition(&self, name: &str) -> Definition {
        let column = |name: &str, r#type: &str, required| TableColumn {
            name: name.to_owned(),
            r#type: r#type.parse().unwrap(),
            required,
            doc: Some(format!("the {name}")),
        };
        Definition {
            ident: TableIdent::new(NamespaceIdent::new(self.database.clone()), name.to_owned()),
            location: format!("{}/{}/{name}", self.warehouse, self.database),
            columns: vec![
                column("id", "long", true),
                column("at", "timestamptz", false),
                column("local", "timestamp", false),
                column("nested", "struct<a: list<map<string, decimal(10,2)>>, b: struct<c: date>>", false),
                column("doc", "json", false),
                TableColumn::provenance(),
            ],
            partition_by: vec![
                PartitionField { column: ColumnName::new("at").unwrap(), transform: Transform::Hour },
                PartitionField { column: ColumnName::new("id").unwrap(), transform: Transform::Bucket(2) },
            ],
            sort_by: vec![SortField { column: ColumnName::new("id").unwrap(), descending: false }],
            properties: BTreeMap::from([("comment".to_owned(), "made by a test".to_owned())]),
            needed: BTreeMap::new(),
        }
    }

    async fn files(&self, table: &Table, ids: std::ops::Range<i64>) -> Vec<NewFile> {
        let spec = WriteSpec {
            metadata: table.metadata_ref(),
            stores: self.stores.clone(),
            runtime: tokio::runtime::Handle::current(),
            run: RunId::new(),
            slice: "0".to_owned(),
            target_file_bytes: 1 << 20,
            memory: 64 << 20,
            open_files_max: OPEN_FILES_MAX,
            zstd_level: 3,
        };
        let job = move || {
            let mut writer = DataWriter::new(spec)?;
            writer.write(&batch(ids))?;
            writer.finish()
        };
        tokio::task::spawn_blocking(job).await.unwrap().unwrap()
    }

    /// Commits rows on top of `table` without looking whether it is the current one.
    async fn append(&self, table: &Table, commit_id: &str, ids: std::ops::Range<i64>) -> CommitOutcome {
        let add = self.files(table, ids).await;
        let change = Change { commit_id: commit_id.to_owned(), add, ..Change::default() };
        let staged = snapshot::produce(table, &change, SystemClock.now()).await.unwrap();
        self.catalog.commit(table, staged.updates, staged.requirements).await.unwrap()
    }

    async fn count(&self, ident: &TableIdent) -> i64 {
        let table = self.catalog.load(ident).await.unwrap().unwrap();
        let stream = read::rows(&table, &["id"], &Rows::All).await.unwrap();
        stream.try_fold(0, |n, batch| async move { Ok(n + batch.num_rows() as i64) }).await.unwrap()
    }
}

fn batch(ids: std::ops::Range<i64>) -> arrow_array::RecordBatch {
    use arrow_array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray};
    let topic = "events/t/1".parse().unwrap();
    let origin = Origin {
        partition: PartitionRef { topic, partition: Partition(0) },
        hour: EventHour::from_epoch_hours(490_000),
    };
    let from: Vec<_> = ids.clone().map(|id| (0, id as u64)).collect();
    let times: TimestampMicrosecondArray =
        ids.clone().map(|id| Some(1_764_000_000_000_000 + id * 600_000_000)).collect();
    let docs: StringArray = ids.clone().map(|id| Some(format!("{{\"id\":{id}}}"))).collect();
    let columns: [(&str, ArrayRef); 4] = [
        ("id", Arc::new(Int64Array::from_iter_values(ids))),
        ("at", Arc::new(times.with_timezone("+00:00"))),
        ("doc", Arc::new(docs)),
        (provenance::COLUMN, Arc::new(provenance::column(&[origin], &from).unwrap())),
    ];
    arrow_array::RecordBatch::try_from_iter(columns).unwrap()
}

/// Who decides between creators of the same moment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Decides {
    /// The catalog, when they create.
    AtCreation,
    /// Nobody, until they commit: SeaweedFS tells each that it made the table, each with another uuid, and keeps the last.
    AtCommit,
}

/// The claims.
async fn conforms(subject: Subject, decides: Decides) {
    let definition = subject.definition("t");
    let (catalog, ident) = (subject.catalog.clone(), definition.ident.clone());
    assert!(catalog.load(&ident).await.unwrap().is_none());
    assert!(catalog.tables(ident.namespace()).await.unwrap().is_empty(), "no such database");
    catalog.ensure_namespace(ident.namespace()).await.unwrap();
    catalog.ensure_namespace(ident.namespace()).await.unwrap();
    assert!(catalog.databases().await.unwrap().contains(ident.namespace()));
    assert!(catalog.tables(ident.namespace()).await.unwrap().is_empty());
    assert!(catalog.load(&ident).await.unwrap().is_none());

    // Of several creators one wins, the others get its table.
    let creators = (0..4).map(|_| definition.ensure(catalog.as_ref()));
    let made: Vec<Created> = futures::future::join_all(creators).await.into_iter().map(Result::unwrap).collect();
    let winners = made.iter().filter(|m| matches!(m, Created::New(_))).count();
    let kept = catalog.load(&ident).await.unwrap().unwrap().metadata().uuid();
    for table in made.into_iter().map(Created::into_table) {
        if table.metadata().uuid() != kept {
            assert!(decides == Decides::AtCommit, "{}", catalog.describe());
            // Who holds a table that is not there can write nothing into the one that is.
            let outcome = subject.append(&table, "lost", 0..5).await;
            assert!(matches!(outcome, CommitOutcome::Conflict(_)), "{outcome:?}");
        }
    }
    assert!(winners == 1 || decides == Decides::AtCommit, "{winners} creators won on {}", catalog.describe());
    assert_eq!(catalog.tables(ident.namespace()).await.unwrap(), std::slice::from_ref(&ident));
    // Whoever comes later is told of the table that is there.
    let late = definition.ensure(catalog.as_ref()).await.unwrap();
    assert!(matches!(&late, Created::Existing(table) if table.metadata().uuid() == kept));
    assert_eq!(subject.count(&ident).await, 0);
    let table = catalog.load(&ident).await.unwrap().unwrap();
    let metadata = table.metadata();
    assert_eq!(metadata.location(), definition.location);
    assert_eq!(metadata.properties()["comment"], "made by a test");
    assert_eq!(metadata.default_partition_spec().fields().len(), 2);
    assert_eq!(metadata.default_sort_order().fields.len(), 1);

    // A commit sets snapshot and properties at once; a stale one is a conflict and changes nothing.
    let first = Change {
        commit_id: "first".to_owned(),
        add: subject.files(&table, 0..100).await,
        properties: BTreeMap::from([("firn.test".to_owned(), "1".to_owned())]),
        ..Change::default()
    };
    let committer = Committer::new(catalog.clone(), Arc::new(SystemClock)).with_attempts(60);
    let committed = committer.commit(&ident, &first).await.unwrap();
    assert_eq!(committed.table.metadata().properties()["firn.test"], "1");
    let outcome = subject.append(&table, "stale", 0..5).await;
    assert!(matches!(outcome, CommitOutcome::Conflict(_)), "{outcome:?}");
    assert_eq!(subject.count(&ident).await, 100);

    // Racing writers all land, once each.
    let subject = Arc::new(subject);
    let writers = (0..4i64).map(|writer| {
        let (subject, committer, ident) = (subject.clone(), committer.clone(), ident.clone());
        tokio::spawn(async move {
            for round in 0..3 {
                let table = subject.catalog.load(&ident).await.unwrap().unwrap();
                let start = 1000 + writer * 100 + round * 10;
                let add = subject.files(&table, start..start + 10).await;
                let change = Change { commit_id: format!("{writer}-{round}"), add, ..Change::default() };
                committer.commit(&ident, &change).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(subject.count(&ident).await, 220);

    // DuckDB reads the same, and every writer's rows once.
    let table = catalog.load(&ident).await.unwrap().unwrap();
    let access = Access {
        pyiceberg: json!({}),
        name: "x".to_owned(),
        spark: Vec::new(),
        trino: Vec::new(),
        s3: subject.s3.clone(),
    };
    let sql = "SELECT count(*), count(DISTINCT id), min(_firn.offset), max(_firn.offset), count(nested) FROM t";
    let rows = access.duckdb_at(table.metadata_location().unwrap(), sql).unwrap();
    assert_eq!(json!(rows), json!([[220, 220, 0, 1329, 0]]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sqlite_catalog_conforms() {
    let dir = run_dir().join(format!("sqlite-{}", uuid::Uuid::new_v4()));
    let catalog = domain::Catalog::Sqlite { path: dir.join("catalog.db"), name: "default".to_owned() };
    let warehouse = format!("file://{}/lake", dir.display());
    conforms(Subject::open(catalog, S3Options::default(), warehouse, None).await, Decides::AtCreation).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalog_in_memory_conforms() {
    let dir = run_dir().join(format!("memory-{}", uuid::Uuid::new_v4()));
    let stores = Stores::new(S3Options::default());
    let catalog = Arc::new(MemoryCatalog::new(file_io(&stores)));
    let warehouse = format!("file://{}/lake", dir.display());
    conforms(Subject::of(catalog, stores, warehouse, None), Decides::AtCreation).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_glue_catalog_conforms() {
    let server = S3Server::shared(Kind::Ministack);
    server.bucket("glue-lake").await.unwrap();
    let catalog = domain::Catalog::Glue {
        endpoint: Some(server.endpoint()),
        region: Some(REGION.to_owned()),
        catalog_id: None,
        credentials: server.options().credentials,
    };
    let warehouse = "s3://glue-lake".to_owned();
    conforms(Subject::open(catalog, server.options(), warehouse, Some(server.access())).await, Decides::AtCreation)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rest_catalog_conforms_and_racing_creators_are_told_apart_at_their_first_commit() {
    let server = S3Server::shared(Kind::SeaweedFs);
    let catalog = domain::Catalog::Rest {
        uri: server.rest_catalog(),
        warehouse: Some("s3://lake".to_owned()),
        credential: Some(Secret::new(server.rest_credential())),
        token: None,
        scope: None,
    };
    let subject = Subject::open(catalog, server.options(), "s3://lake".to_owned(), Some(server.access())).await;
    conforms(subject, Decides::AtCommit).await;
}
