//! Maintenance: rows and offsets stay what they are, files become few, and nothing that is named is ever deleted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use firn_compactor::maintain::{Options, Part, maintain};
use firn_compactor::run::Outcome;
use firn_compactor::table::scan::{All, LiveFile, live, live_deletes};
use firn_compactor::table::{Change, CommitOutcome, Committer};
use firn_shared::clock::SystemClock;
use firn_shared::error::ErrorKind;
use firn_shared::store::{Fault, Faults};
use iceberg::TableUpdate;
use iceberg::spec::{MAIN_BRANCH, SnapshotReference, SnapshotRetention};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::bed::{Bed, Landed};
use crate::versions::{Model, STRATEGIES, pipeline};

async fn files(bed: &Bed) -> Vec<LiveFile> {
    live(&bed.table().await.unwrap(), None, &All).await.unwrap()
}

fn walk(dir: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, found) } else { assert!(found.insert(path)) }
    }
}

/// Every file of the table is named by its one snapshot or its metadata, and the other way round.
async fn nothing_is_left_over(bed: &Bed) {
    let table = bed.table().await.unwrap();
    let metadata = table.metadata();
    assert_eq!(metadata.snapshots().count(), 1);
    let mut named: BTreeSet<String> = files(bed).await.iter().map(|f| f.path().to_owned()).collect();
    named.extend(live_deletes(&table).await.unwrap().iter().map(|d| d.path().to_owned()));
    named.extend(metadata.metadata_log().iter().map(|log| log.metadata_file.clone()));
    named.insert(table.metadata_location().unwrap().to_owned());
    let snapshot = metadata.current_snapshot().unwrap();
    named.insert(snapshot.manifest_list().to_owned());
    let list = table.manifest_list_reader(snapshot).load().await.unwrap();
    named.extend(list.entries().iter().map(|m| m.manifest_path.clone()));
    let mut found = BTreeSet::new();
    walk(Path::new(metadata.location().trim_start_matches("file://")), &mut found);
    let found: BTreeSet<String> = found.into_iter().map(|path| format!("file://{}", path.display())).collect();
    let lost: Vec<_> = named.difference(&found).collect();
    assert!(lost.is_empty(), "files that the table names are gone: {lost:?}");
    let left: Vec<_> = found.difference(&named).collect();
    assert!(left.is_empty(), "files that nothing names are left: {left:?}");
}

/// A table of several runs, all of it small.
async fn small_files(runs: u64) -> (Bed, Landed) {
    let (bed, mut landed) = (Bed::new(), Landed::default());
    for run in 0..runs {
        landed.land(&bed, run as u32 % 2, 30).await;
        bed.run(&Faults::none()).await.unwrap();
    }
    (bed, landed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maintenance_changes_no_row_and_no_offset() {
    let (bed, mut landed) = small_files(4).await;
    let (before, subject) = (files(&bed).await.len(), bed.subject());
    assert!(before > 9, "{before}");
    let report = bed.maintain(&Faults::none(), &subject).await.unwrap();
    println!("{report}");
    assert_eq!(report.compact.as_ref().unwrap().files_before, before);
    // One file an event hour.
    assert_eq!(files(&bed).await.len(), 3);
    landed.check(&bed).await;
    nothing_is_left_over(&bed).await;
    // The position is found, though every snapshot of a run is gone.
    assert_eq!(bed.run(&Faults::none()).await.unwrap().outcome, Outcome::NothingToDo);
    landed.land(&bed, 1, 20).await;
    assert_eq!(bed.run(&Faults::none()).await.unwrap().records, 20);
    bed.reprocess(&Faults::none(), "2021-07-21T06", "2021-07-21T07").await.unwrap();
    landed.check(&bed).await;
    bed.maintain(&Faults::none(), &subject).await.unwrap();
    landed.check(&bed).await;
    nothing_is_left_over(&bed).await;
    let again = bed.maintain(&Faults::none(), &subject).await.unwrap();
    assert_eq!(again.compact.unwrap().commits, 0, "what was compacted is not compacted again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_of_maintenance_writes_nothing() {
    let (bed, landed) = small_files(3).await;
    let before = bed.table().await.unwrap();
    let faults = Faults::at_write(1, Fault::CrashBefore);
    let options = Options { dry_run: true, ..Options::default() };
    let report = maintain(&bed.env(&faults).await, &bed.subject(), &options).await.unwrap().unwrap();
    assert!(!faults.fired() && report.compact.unwrap().files_before > 3);
    assert!(!report.expire.unwrap().snapshots.is_empty() && report.orphans.unwrap().deleted == 0);
    assert_eq!(bed.table().await.unwrap().metadata_location(), before.metadata_location());
    landed.check(&bed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maintenance_that_stops_anywhere_loses_nothing_and_is_finished_by_the_next() {
    // To crash before an operation is to crash after the one before it.
    for fault in [Fault::CrashAfter, Fault::ErrorAfter] {
        let mut number = 0;
        loop {
            number += 1;
            let (bed, mut landed) = small_files(2).await;
            let faults = Faults::at_write(number, fault);
            let stopped = bed.maintain(&faults, &bed.subject()).await;
            // A process that died says nothing; one that lives says that it can be tried again.
            if let (Err(error), false) = (&stopped, faults.is_dead()) {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{fault:?} at {number}: {error}");
            }
            assert_eq!(bed.rows(false).await, landed.rows, "{fault:?} at {number}");
            if number % 3 == 0 {
                landed.land(&bed, 0, 10).await;
                bed.run_to_the_end().await;
            }
            bed.maintain(&Faults::none(), &bed.subject()).await.unwrap();
            landed.check(&bed).await;
            nothing_is_left_over(&bed).await;
            assert_eq!(bed.run(&Faults::none()).await.unwrap().outcome, Outcome::NothingToDo);
            if !faults.fired() {
                assert!(number > 20, "only {number} operations");
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maintenance_of_deleted_rows_that_stops_anywhere_brings_none_of_them_back() {
    for number in 1.. {
        let mut rng = SmallRng::seed_from_u64(400 + number);
        let (bed, mut model) = (Bed::with(&pipeline(STRATEGIES[1], "[]")), Model::default());
        for partition in [0, 1] {
            model.land(&bed, &mut rng, partition, 30).await;
            bed.run_to_the_end().await;
        }
        assert!(!live_deletes(&bed.table().await.unwrap()).await.unwrap().is_empty());
        let faults = Faults::at_write(number, Fault::CrashAfter);
        let stopped = bed.maintain(&faults, &bed.subject()).await;
        assert!(stopped.is_ok() || faults.fired(), "{number}: {stopped:?}");
        assert_eq!(bed.rows(false).await, model.rows(), "{number}");
        if number % 3 == 0 {
            model.land(&bed, &mut rng, 0, 10).await;
            bed.run_to_the_end().await;
        }
        bed.maintain(&Faults::none(), &bed.subject()).await.unwrap();
        model.check(&bed, &format!("stopped at {number}")).await;
        assert!(live_deletes(&bed.table().await.unwrap()).await.unwrap().is_empty(), "{number}");
        nothing_is_left_over(&bed).await;
        if !faults.fired() {
            assert!(number > 10, "only {number} operations");
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compacted_upserts_have_no_deletes_and_the_newest_versions() {
    for (n, strategy) in STRATEGIES.into_iter().enumerate() {
        for partitions in ["[]", "[hour(at)]"] {
            let mut rng = SmallRng::seed_from_u64(200 + n as u64);
            let (bed, mut model) = (Bed::with(&pipeline(strategy, partitions)), Model::default());
            for round in 0..4 {
                for partition in 0..2 {
                    model.land(&bed, &mut rng, partition, 25).await;
                    bed.run_to_the_end().await;
                }
                let subject = bed.subject();
                let report = bed.maintain(&Faults::none(), &subject).await.unwrap();
                let deletes = live_deletes(&bed.table().await.unwrap()).await.unwrap();
                assert!(deletes.is_empty(), "{strategy} {partitions}: {report}");
                model.check(&bed, &format!("{strategy} {partitions} round {round}")).await;
                nothing_is_left_over(&bed).await;
            }
        }
    }
}

async fn commit(bed: &Bed, updates: Vec<TableUpdate>) {
    let env = bed.env(&Faults::none()).await;
    let outcome = env.catalog.commit(&bed.table().await.unwrap(), updates, Vec::new()).await.unwrap();
    assert!(matches!(outcome, CommitOutcome::Committed(_)), "{outcome:?}");
}

fn expire_only() -> Options {
    Options { only: [Part::Expire].into(), ..Options::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_branches_and_what_they_hold_outlive_expiry() {
    let (bed, landed) = small_files(4).await;
    let ancestry: Vec<i64> = {
        let table = bed.table().await.unwrap();
        firn_compactor::table::offsets::ancestry(table.metadata()).map(|s| s.snapshot_id()).collect()
    };
    let to = |snapshot_id, retention| SnapshotReference { snapshot_id, retention };
    let set = |name: &str, reference| TableUpdate::SetSnapshotRef { ref_name: name.to_owned(), reference };
    let short = Some(1);
    commit(
        &bed,
        vec![
            set("release", to(ancestry[3], SnapshotRetention::Tag { max_ref_age_ms: None })),
            set("audit", to(ancestry[2], SnapshotRetention::branch(None, None, None))),
            set("over", to(ancestry[1], SnapshotRetention::Tag { max_ref_age_ms: short })),
        ],
    )
    .await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let report = maintain(&bed.env(&Faults::none()).await, &bed.subject(), &expire_only()).await.unwrap().unwrap();
    let expired = report.expire.unwrap();
    assert_eq!((expired.snapshots, expired.refs), (vec![ancestry[1]], vec!["over".to_owned()]));
    let table = bed.table().await.unwrap();
    for (name, id) in [("release", ancestry[3]), ("audit", ancestry[2]), (MAIN_BRANCH, ancestry[0])] {
        let snapshot = table.metadata().snapshot_for_ref(name).unwrap();
        assert_eq!(snapshot.snapshot_id(), id);
        // All of it can still be read.
        let reader = firn_compactor::table::scan::Reader::all(&table).unwrap();
        for file in live(&table, Some(snapshot), &All).await.unwrap() {
            reader.open(&file).await.unwrap();
        }
    }
    landed.check(&bed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_consumed_offsets_outlive_expiry_after_a_rollback_and_foreign_commits() {
    for foreign in [&["someone"][..], &["someone", "someone-again"]] {
        Box::pin(rolled_back_and_expired(foreign)).await;
    }
}

/// `foreign` are commits of others after the rollback.
async fn rolled_back_and_expired(foreign: &[&str]) {
    let (bed, mut landed) = small_files(1).await;
    let first = bed.table().await.unwrap().metadata().current_snapshot_id().unwrap();
    let env = bed.env(&Faults::none()).await;
    landed.land(&bed, 0, 30).await;
    bed.run(&Faults::none()).await.unwrap();
    // The second run is rolled back by hand, and somebody else commits on the first: the property still speaks of the
    // second, so the snapshot of the first must stay.
    let reference = SnapshotReference { snapshot_id: first, retention: SnapshotRetention::branch(None, None, None) };
    commit(&bed, vec![TableUpdate::SetSnapshotRef { ref_name: MAIN_BRANCH.to_owned(), reference }]).await;
    let committer = Committer::new(Arc::clone(&env.catalog), Arc::new(SystemClock));
    for id in foreign {
        let change = Change { commit_id: (*id).to_owned(), ..Change::default() };
        committer.commit(&bed.target().ident(), &change).await.unwrap();
    }
    maintain(&env, &bed.subject(), &expire_only()).await.unwrap();
    let report = bed.run(&Faults::none()).await.unwrap();
    assert_eq!((report.outcome, report.records), (Outcome::Committed, 30), "the rows come again");
    landed.check(&bed).await;
    // After a run of ours all older ones may go.
    maintain(&env, &bed.subject(), &expire_only()).await.unwrap();
    assert_eq!(bed.table().await.unwrap().metadata().snapshots().count(), 1);
    assert_eq!(bed.run(&Faults::none()).await.unwrap().outcome, Outcome::NothingToDo);
    landed.check(&bed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn young_and_foreign_files_and_those_of_others_are_no_orphans() {
    let (bed, landed) = small_files(2).await;
    let location = bed.table().await.unwrap().metadata().location().trim_start_matches("file://").to_owned();
    let left = ["data/left.parquet", "metadata/left.avro", "data/README.md", "inner/data/x.parquet"];
    for name in left {
        let path = Path::new(&location).join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"x").unwrap();
    }
    let exist = || left.map(|name| Path::new(&location).join(name).exists());
    let options = Options { only: [Part::Orphans].into(), ..Options::default() };
    let (env, mut subject) = (bed.env(&Faults::none()).await, bed.subject());
    subject.settings.orphans_after = Duration::from_hours(1);
    let young = maintain(&env, &subject, &options).await.unwrap().unwrap().orphans.unwrap();
    assert_eq!((young.deleted, exist()), (0, [true; 4]), "{young:?}");
    subject.settings.orphans_after = Duration::ZERO;
    subject.settings.delete_orphans = false;
    let shown = maintain(&env, &subject, &options).await.unwrap().unwrap().orphans.unwrap();
    assert_eq!((shown.deleted, shown.examples.len(), exist()), (0, 2, [true; 4]), "{shown:?}");
    // A table that lies where we look keeps us from looking.
    subject.others.push(format!("file://{location}/data/other"));
    let error = maintain(&env, &subject, &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    subject.others.pop();
    let asked = Options { delete_orphans: true, ..options };
    let gone = maintain(&env, &subject, &asked).await.unwrap().unwrap().orphans.unwrap();
    assert_eq!((gone.deleted, exist()), (2, [false, false, true, true]), "{gone:?}");
    landed.check(&bed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_lies_beside_under_the_name_of_remembered_deletes_loses_nothing() {
    let (bed, landed) = small_files(1).await;
    let beside = bed.dir.path().join("lake/d/t_deletes");
    let run = firn_shared::ids::RunId::new();
    let theirs =
        [format!("data/{run}-0.parquet"), "data/part-0.parquet".to_owned(), "metadata/v1.metadata.json".to_owned()];
    for name in &theirs {
        let path = beside.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"x").unwrap();
    }
    std::fs::write(beside.join("part-1.parquet"), b"x").unwrap();
    // Whether the table's own runs remember deletes or not.
    for remembers in [false, true] {
        let mut subject = bed.subject();
        subject.remembers = remembers;
        let report = bed.maintain(&Faults::none(), &subject).await.unwrap().orphans.unwrap();
        assert!(
            beside.join("part-1.parquet").exists() && theirs.iter().all(|name| beside.join(name).exists()),
            "{report:?}"
        );
    }
    landed.check(&bed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_whose_files_others_may_name_keeps_all_of_them() {
    let (bed, landed) = small_files(3).await;
    let property =
        |value: &str| TableUpdate::SetProperties { updates: [("gc.enabled".to_owned(), value.to_owned())].into() };
    commit(&bed, vec![property("false")]).await;
    let left = bed.dir.path().join("lake/d/t/data/left.parquet");
    std::fs::write(&left, b"x").unwrap();
    let report = bed.maintain(&Faults::none(), &bed.subject()).await.unwrap();
    let (expire, orphans) = (report.expire.clone().unwrap(), report.orphans.clone().unwrap());
    assert_eq!((expire.snapshots.len(), orphans.deleted, left.exists()), (0, 0, true));
    assert_eq!(report.to_string().matches("skipped: gc.enabled is false").count(), 2, "{report}");
    assert_eq!(bed.table().await.unwrap().metadata().snapshots().count(), 4, "those of the runs and of the compaction");
    commit(&bed, vec![property("TRUE")]).await;
    let report = bed.maintain(&Faults::none(), &bed.subject()).await.unwrap();
    assert!(!report.expire.unwrap().snapshots.is_empty() && !left.exists());
    landed.check(&bed).await;
}
