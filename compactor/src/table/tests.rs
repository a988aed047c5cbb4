//! A table in a SQLite catalog on local files: appends, overwrites, races, lost replies, and a crash after every step.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use async_trait::async_trait;
use firn_shared::clock::SystemClock;
use firn_shared::config::domain::{self, PartitionField, S3Options, Transform};
use firn_shared::error::Result;
use firn_shared::ids::{ColumnName, EventHour, Offset, OffsetRange, Partition, PartitionRef, RunId};
use firn_shared::store::{Depth, Fault, Faults, Stores};
use futures::TryStreamExt;
use iceberg::table::Table;
use iceberg::{NamespaceIdent, TableCreation, TableRequirement, TableUpdate};

use super::catalog::sqlite::SqliteCatalog;
use super::catalog::{Created, open};
use super::create::Definition;
use super::overwrite::{Removal, remove};
use super::read::{Rows, rows};
use super::refs::Head;
use super::scan::{All, Tracked, live};
use super::schema::TableColumn;
use super::validate::Expect;
use super::*;
use crate::plan::position::Position;
use crate::provenance::{self, Origin};
use crate::reconcile::account::Account;
use crate::write::{DataWriter, WriteSpec};

/// One place with a catalog; several may stand on one directory.
struct Place {
    stores: Stores,
    catalog: Arc<dyn Catalog>,
    definition: Definition,
}

impl Place {
    async fn at(dir: &Path) -> Self {
        Self::with(dir, Stores::new(S3Options::default())).await
    }

    async fn with(dir: &Path, stores: Stores) -> Self {
        let settings = domain::Catalog::Sqlite { path: dir.join("catalog.db"), name: "default".to_owned() };
        let catalog = open(&settings, &stores).await.unwrap();
        Self { stores, catalog, definition: definition(dir) }
    }

    async fn table(&self) -> Result<Table> {
        Ok(self.definition.ensure(self.catalog.as_ref()).await?.into_table())
    }

    fn spec(&self, table: &Table) -> WriteSpec {
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

    async fn files(&self, table: &Table, batches: Vec<RecordBatch>) -> Result<Vec<NewFile>> {
        let spec = self.spec(table);
        let job = move || {
            let mut writer = DataWriter::new(spec)?;
            batches.iter().try_for_each(|batch| writer.write(batch))?;
            writer.finish()
        };
        tokio::task::spawn_blocking(job).await.unwrap()
    }

    fn committer(&self) -> Committer {
        Committer::new(self.catalog.clone(), Arc::new(SystemClock)).with_attempts(3)
    }

    /// Appends rows `offsets` of an hour and moves the position to their end.
    async fn append(&self, id: &str, hour: i64, offsets: std::ops::Range<u64>) -> Result<Committed> {
        let table = self.table().await?;
        let base = offsets::current(table.metadata())?.map(|s| s.position).unwrap_or_default();
        let add = self.files(&table, vec![batch(hour, offsets.clone())]).await?;
        let change = Change {
            commit_id: id.to_owned(),
            add,
            offsets: Some((position(offsets.end), Account::default())),
            expect: Expect { position: Some(base), ..Expect::default() },
            ..Change::default()
        };
        self.committer().commit(&self.definition.ident, &change).await
    }

    async fn removal(&self, rows: Rows) -> Result<Removal> {
        let table = self.table().await?;
        remove(&table, rows, self.spec(&table)).await
    }

    /// Ids of all rows, read through deletes and all.
    async fn ids(&self) -> Vec<i64> {
        let table = self.table().await.unwrap();
        let stream = rows(&table, &["id"], &Rows::All).await.unwrap();
        let batches: Vec<RecordBatch> = stream.try_collect().await.unwrap();
        let mut ids: Vec<i64> =
            batches.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
        ids.sort_unstable();
        ids
    }

    async fn position(&self) -> Position {
        offsets::current(self.table().await.unwrap().metadata()).unwrap().map(|s| s.position).unwrap_or_default()
    }
}

fn definition(dir: &Path) -> Definition {
    let id = TableColumn { name: "id".to_owned(), r#type: "long".parse().unwrap(), required: true, doc: None };
    Definition {
        ident: TableIdent::new(NamespaceIdent::new("db".to_owned()), "t".to_owned()),
        location: format!("file://{}/lake/t", dir.display()),
        columns: vec![id, TableColumn::provenance()],
        partition_by: vec![PartitionField { column: ColumnName::new("id").unwrap(), transform: Transform::Bucket(2) }],
        sort_by: Vec::new(),
        properties: BTreeMap::new(),
        needed: BTreeMap::new(),
    }
}

fn partition() -> PartitionRef {
    PartitionRef { topic: "events/t/1".parse().unwrap(), partition: Partition(3) }
}

fn position(offset: u64) -> Position {
    let mut position = Position::start();
    position.advance(&partition(), offset).unwrap();
    position
}

/// Rows whose id is their offset.
fn batch(hour: i64, offsets: std::ops::Range<Offset>) -> RecordBatch {
    let origin = Origin { partition: partition(), hour: EventHour::from_epoch_hours(hour) };
    let from: Vec<(u32, Offset)> = offsets.clone().map(|o| (0, o)).collect();
    let ids: Int64Array = offsets.map(|o| o as i64).collect();
    let firn = provenance::column(&[origin], &from).unwrap();
    RecordBatch::try_from_iter([("id", Arc::new(ids) as ArrayRef), (provenance::COLUMN, Arc::new(firn) as ArrayRef)])
        .unwrap()
}

fn hours(from: i64, to: i64) -> Rows {
    Rows::Hours { from: EventHour::from_epoch_hours(from), to: EventHour::from_epoch_hours(to) }
}

fn ids(ranges: &[std::ops::Range<i64>]) -> Vec<i64> {
    ranges.iter().cloned().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_is_seen_with_its_position_and_totals() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::at(dir.path()).await;
    place.append("a", 7, 0..10).await.unwrap();
    let committed = place.append("b", 8, 10..15).await.unwrap();
    assert_eq!((place.ids().await, place.position().await), (ids(&[0..15]), position(15)));
    let snapshot = committed.table.metadata().current_snapshot().unwrap().clone();
    assert_eq!(snapshot.snapshot_id(), committed.snapshot_id);
    let summary = &snapshot.summary().additional_properties;
    assert_eq!((summary["total-records"].as_str(), summary["added-records"].as_str()), ("15", "5"));
    assert_eq!(summary[offsets::COMMIT_ID], "b");
    // Doing it again with the same id changes nothing.
    let change = Change { commit_id: "a".to_owned(), ..Change::default() };
    let again = place.committer().commit(&place.definition.ident, &change).await.unwrap();
    assert_eq!((again.attempts, place.ids().await.len()), (0, 15));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_was_overtaken_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::at(dir.path()).await;
    let table = place.table().await.unwrap();
    let add = place.files(&table, vec![batch(7, 0..10)]).await.unwrap();
    place.append("first", 7, 0..10).await.unwrap();
    let change = Change {
        commit_id: "second".to_owned(),
        add,
        offsets: Some((position(10), Account::default())),
        expect: Expect { position: Some(Position::start()), ..Expect::default() },
        ..Change::default()
    };
    let error = place.committer().commit(&place.definition.ident, &change).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("another run moved the offsets; run again"), "{error}");
    assert_eq!(place.ids().await, ids(&[0..10]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_writers_all_land_once_and_racing_creators_make_one_table() {
    let dir = tempfile::tempdir().unwrap();
    let place = Arc::new(Place::at(dir.path()).await);
    let made = futures::future::join_all((0..4).map(|_| place.definition.ensure(place.catalog.as_ref()))).await;
    let new = made.into_iter().filter(|m| matches!(m, Ok(Created::New(_)))).count();
    assert_eq!(new, 1);
    let tasks = (0..4u64).map(|writer| {
        let place = place.clone();
        tokio::spawn(async move {
            let table = place.table().await.unwrap();
            let add = place.files(&table, vec![batch(7, writer * 10..writer * 10 + 10)]).await.unwrap();
            let change = Change { commit_id: format!("w{writer}"), add, ..Change::default() };
            place.committer().with_attempts(50).commit(&place.definition.ident, &change).await.unwrap();
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(place.ids().await, ids(&[0..40]));
    // Nothing of the attempts that lost is left: 4 commits and the creation, a metadata file each.
    let store = place.stores.resolve(&place.definition.location).await.unwrap();
    let page = store.0.list(&format!("{}/metadata/", store.1), None, Depth::All).await.unwrap();
    let count = |suffix: &str| page.objects.iter().filter(|o| o.key.ends_with(suffix)).count();
    assert_eq!((count(".metadata.json"), count(".avro")), (5, 8), "{:?}", page.objects);
}

/// What comes instead of the first reply.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Instead {
    /// Nothing, and the commit was never made.
    NothingDone,
    /// Nothing, after the commit.
    Nothing,
    /// The refusal of a repetition that a gateway sent by itself.
    Conflict,
    /// A refusal that is none.
    Refusal,
    /// A refusal, because a commit to another branch came between.
    Outrun,
}

/// A catalog whose first reply gets lost.
#[derive(Debug)]
struct LosesReply {
    inner: Arc<dyn Catalog>,
    instead: Instead,
    lost: AtomicBool,
}

#[async_trait]
impl Catalog for LosesReply {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    async fn load(&self, ident: &TableIdent) -> Result<Option<Table>> {
        self.inner.load(ident).await
    }
    async fn databases(&self) -> Result<Vec<NamespaceIdent>> {
        self.inner.databases().await
    }
    async fn tables(&self, database: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        self.inner.tables(database).await
    }
    async fn ensure_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        self.inner.ensure_namespace(namespace).await
    }
    async fn create(&self, namespace: &NamespaceIdent, creation: TableCreation) -> Result<Created> {
        self.inner.create(namespace, creation).await
    }
    async fn commit(
        &self,
        base: &Table,
        updates: Vec<TableUpdate>,
        requirements: Vec<TableRequirement>,
    ) -> Result<CommitOutcome> {
        if self.lost.swap(true, Ordering::SeqCst) {
            return self.inner.commit(base, updates, requirements).await;
        }
        if self.instead == Instead::Outrun {
            let branch = Some("audit".to_owned());
            let change = Change { commit_id: "theirs".to_owned(), branch, ..Change::default() };
            Committer::new(self.inner.clone(), Arc::new(SystemClock)).commit(base.identifier(), &change).await?;
        } else if self.instead != Instead::NothingDone {
            self.inner.commit(base, updates, requirements).await?;
        }
        match self.instead {
            Instead::NothingDone | Instead::Nothing => Ok(CommitOutcome::Unknown(Error::unavailable("time-out"))),
            Instead::Conflict => Ok(CommitOutcome::Conflict("the table has moved on".to_owned())),
            Instead::Refusal => Err(Error::config("refused")),
            Instead::Outrun => Err(Error::config("400: sequence number 1 is not above the last one, 1")),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_invalid_because_of_one_to_a_branch_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut place = Place::at(dir.path()).await;
    let inner = place.catalog.clone();
    place.catalog = Arc::new(LosesReply { inner, instead: Instead::Outrun, lost: AtomicBool::new(false) });
    let committed = place.append("a", 7, 0..10).await.unwrap();
    assert_eq!((committed.attempts, place.ids().await), (2, ids(&[0..10])));
    assert!(committed.table.metadata().snapshot_for_ref("audit").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_reply_neither_loses_nor_doubles_the_commit() {
    for instead in [Instead::NothingDone, Instead::Nothing, Instead::Conflict, Instead::Refusal] {
        let dir = tempfile::tempdir().unwrap();
        let mut place = Place::at(dir.path()).await;
        let inner = place.catalog.clone();
        place.catalog = Arc::new(LosesReply { inner, instead, lost: AtomicBool::new(false) });
        let committed = place.append("a", 7, 0..10).await.unwrap();
        let attempts = match instead {
            Instead::NothingDone => 2,
            _ => 1,
        };
        assert_eq!(committed.attempts, attempts, "{instead:?}");
        assert_eq!(committed.table.metadata().snapshots().len(), 1);
        assert_eq!(place.ids().await, ids(&[0..10]));
        // Its manifest and its list are there; of an attempt that nobody knows of, these stay, too.
        let store = place.stores.resolve(&place.definition.location).await.unwrap();
        let page = store.0.list(&format!("{}/metadata/", store.1), None, Depth::All).await.unwrap();
        let count = |suffix: &str| page.objects.iter().filter(|o| o.key.ends_with(suffix)).count();
        assert_eq!(
            count(".avro"),
            if instead == Instead::NothingDone { 4 } else { 2 },
            "{instead:?}: {:?}",
            page.objects
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replacing_an_hour_removes_exactly_its_rows_and_twice_is_once() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::at(dir.path()).await;
    place.append("a", 7, 0..10).await.unwrap();
    // One file with two hours: it is mixed and must be rewritten.
    let table = place.table().await.unwrap();
    let add = place.files(&table, vec![batch(7, 10..20), batch(8, 20..30)]).await.unwrap();
    let change = Change { commit_id: "b".to_owned(), add, ..Change::default() };
    place.committer().commit(&place.definition.ident, &change).await.unwrap();
    place.append("c", 9, 30..40).await.unwrap();

    for round in 0..2 {
        let removal = place.removal(hours(7, 8)).await.unwrap();
        assert_eq!(removal.rows_removed, BTreeMap::from([(partition(), 20)]));
        let table = place.table().await.unwrap();
        let add = place.files(&table, vec![batch(7, 0..20)]).await.unwrap();
        let mut change = Change { commit_id: format!("again-{round}"), add, ..Change::default() };
        removal.apply_to(&mut change);
        place.committer().commit(&place.definition.ident, &change).await.unwrap();
        assert_eq!((place.ids().await, place.position().await), (ids(&[0..40]), position(40)));
    }
    let kept = place.removal(hours(100, 200)).await.unwrap();
    assert!(kept.is_empty() && kept.rows_removed.is_empty());
    let range = (partition(), OffsetRange::new(35, 1000).unwrap());
    let removal = place.removal(Rows::Offsets(vec![range])).await.unwrap();
    assert_eq!(removal.rows_removed, BTreeMap::from([(partition(), 5)]));
    let mut change = Change { commit_id: "cut".to_owned(), ..Change::default() };
    removal.apply_to(&mut change);
    place.committer().commit(&place.definition.ident, &change).await.unwrap();
    assert_eq!(place.ids().await, ids(&[0..35]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_arrive_in_a_replaced_range_are_a_conflict_and_others_are_not() {
    for (hour, conflict) in [(7, true), (9, false)] {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::at(dir.path()).await;
        place.append("a", 7, 0..10).await.unwrap();
        let removal = place.removal(hours(7, 8)).await.unwrap();
        place.append("b", hour, 10..20).await.unwrap();
        let mut change = Change { commit_id: "c".to_owned(), ..Change::default() };
        removal.apply_to(&mut change);
        let outcome = place.committer().commit(&place.definition.ident, &change).await;
        match outcome {
            Err(e) => assert!(conflict && e.to_string().contains("may hold rows that are being replaced"), "{e}"),
            Ok(_) => assert!(!conflict),
        }
        assert_eq!(place.ids().await, if conflict { ids(&[0..20]) } else { ids(&[10..20]) });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_gone_cannot_be_removed_again() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::at(dir.path()).await;
    place.append("a", 7, 0..10).await.unwrap();
    let table = place.table().await.unwrap();
    let files: Vec<Tracked> = live(&table, None, &All).await.unwrap().into_iter().map(|f| f.data).collect();
    for (id, works) in [("b", true), ("c", false)] {
        let change = Change { commit_id: id.to_owned(), remove: files.clone(), ..Change::default() };
        let outcome = place.committer().commit(&place.definition.ident, &change).await;
        assert_eq!(outcome.is_ok(), works, "{outcome:?}");
    }
    assert!(place.ids().await.is_empty());
}

/// Every catalog commit goes through the same programme of faults as the store.
#[derive(Debug)]
struct FaultyCatalog {
    inner: Arc<dyn Catalog>,
    faults: Arc<Faults>,
}

#[async_trait]
impl Catalog for FaultyCatalog {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    async fn load(&self, ident: &TableIdent) -> Result<Option<Table>> {
        self.inner.load(ident).await
    }
    async fn databases(&self) -> Result<Vec<NamespaceIdent>> {
        self.inner.databases().await
    }
    async fn tables(&self, database: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        self.inner.tables(database).await
    }
    async fn ensure_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        self.inner.ensure_namespace(namespace).await
    }
    async fn create(&self, namespace: &NamespaceIdent, creation: TableCreation) -> Result<Created> {
        self.faults.run("catalog.create", "t", self.inner.create(namespace, creation)).await
    }
    async fn commit(
        &self,
        base: &Table,
        updates: Vec<TableUpdate>,
        requirements: Vec<TableRequirement>,
    ) -> Result<CommitOutcome> {
        let done = self.faults.run("catalog.commit", "t", self.inner.commit(base, updates, requirements)).await;
        done.or_else(|e| Ok(CommitOutcome::Unknown(e)))
    }
}

/// The work of the crash matrix: an append, then a replacement of an hour.
async fn work(place: &Place) -> Result<()> {
    let table = place.table().await?;
    if offsets::landed(table.metadata(), &Head::of(table.metadata(), None), "a")?.is_none() {
        place.append("a", 7, 0..10).await?;
    }
    let removal = place.removal(hours(7, 8)).await?;
    let table = place.table().await?;
    let add = place.files(&table, vec![batch(7, 0..12)]).await?;
    let mut change = Change { commit_id: "b".to_owned(), add, ..Change::default() };
    removal.apply_to(&mut change);
    place.committer().commit(&place.definition.ident, &change).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_after_any_step_leaves_the_old_table_or_the_new_one() {
    let mut seen = BTreeSet::new();
    for fault in [Fault::CrashAfter, Fault::CrashBefore, Fault::ErrorAfter] {
        for number in 1.. {
            let dir = tempfile::tempdir().unwrap();
            let faults = Faults::at_write(number, fault);
            let around = faults.clone();
            let stores = Stores::wrapped(S3Options::default(), move |store| around.around(store));
            let mut broken = Place::with(dir.path(), stores).await;
            broken.catalog = Arc::new(FaultyCatalog { inner: broken.catalog.clone(), faults: faults.clone() });
            let outcome = work(&broken).await;
            let place = Place::at(dir.path()).await;
            let found = place.ids().await;
            let good = [Vec::new(), ids(&[0..10]), ids(&[0..12])];
            assert!(good.contains(&found), "{fault:?} at {number}: {found:?}");
            assert!(outcome.is_err() || found == good[2], "{fault:?} at {number}: {found:?} after success");
            seen.insert(found.len());
            work(&place).await.unwrap();
            assert_eq!(place.ids().await, good[2], "{fault:?} at {number}");
            assert_eq!(place.position().await, position(10));
            if !faults.fired() {
                break;
            }
            assert!(number < 200, "the work never completes");
        }
    }
    assert_eq!(seen, BTreeSet::from([0, 10, 12]), "all states were crossed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_manifests_are_merged_and_old_metadata_files_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut place = Place::at(dir.path()).await;
    place.definition.properties.insert("write.metadata.previous-versions-max".to_owned(), "3".to_owned());
    let table = place.table().await.unwrap();
    let files = place.files(&table, vec![batch(7, 0..1)]).await.unwrap();
    let mut last = None;
    for number in 0..105 {
        // The file is not read here: only its entries count.
        let change = Change { commit_id: format!("c{number}"), add: files.clone(), ..Change::default() };
        last = Some(place.committer().commit(&place.definition.ident, &change).await.unwrap());
    }
    let table = last.unwrap().table;
    let snapshot = table.metadata().current_snapshot().unwrap().clone();
    let manifests = table.manifest_list_reader(&snapshot).load().await.unwrap();
    assert!(manifests.entries().len() < 10, "{} manifests", manifests.entries().len());
    assert_eq!(live(&table, None, &All).await.unwrap().len(), 105);
    assert_eq!(snapshot.summary().additional_properties["total-data-files"], "105");
    let store = place.stores.resolve(&place.definition.location).await.unwrap();
    let page = store.0.list(&format!("{}/metadata/", store.1), None, Depth::All).await.unwrap();
    let metadata = page.objects.iter().filter(|o| o.key.ends_with(".metadata.json")).count();
    assert_eq!(metadata, 4, "the current one and three before it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_does_not_fit_is_named_column_by_column() {
    let dir = tempfile::tempdir().unwrap();
    let mut place = Place::at(dir.path()).await;
    place.table().await.unwrap();
    let column = TableColumn { name: "new".to_owned(), r#type: "json".parse().unwrap(), required: false, doc: None };
    place.definition.columns.push(column);
    let error = place.table().await.unwrap_err();
    assert!(error.to_string().contains("column `new` json is missing"), "{error}");
}

#[tokio::test]
async fn a_data_file_travels_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::at(dir.path()).await;
    let table = place.table().await.unwrap();
    for file in place.files(&table, vec![batch(7, 0..5)]).await.unwrap() {
        let json = file.to_json(table.metadata()).unwrap();
        assert_eq!(NewFile::from_json(&json, file.spec_id, table.metadata()).unwrap(), file);
    }
}

#[test]
fn the_catalog_is_shared_between_threads() {
    fn check<T: Send + Sync>() {}
    check::<SqliteCatalog>();
    check::<Committer>();
}
