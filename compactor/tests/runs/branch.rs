//! `reprocess --diff`: what would change is counted on a branch, and published or discarded as a whole.

use std::collections::BTreeMap;

use firn_compactor::diff::Counts;
use firn_compactor::run::branch::{BRANCH, End};
use firn_compactor::run::{Outcome, RunReport};
use firn_shared::error::ErrorKind;
use firn_shared::store::{Fault, Faults};
use iceberg::TableUpdate;
use iceberg::spec::{SnapshotReference, SnapshotRetention};

use crate::bed::{Bed, Fate, Landed, PIPELINE, Place, event};

type Row = (Place, Option<i64>);

const FROM: &str = "2021-07-21T06";
const TO: &str = "2021-07-21T08";

/// Events 13 come in, events 1 of `k` go, and `k` is read from a place where nothing is.
fn changed() -> String {
    PIPELINE.replace("<> 13", "<> 1").replace("path: $.k", "path: $.none")
}

/// A bed with one partition of 60 events, converted.
async fn converted(pipeline: &str) -> (Bed, Landed) {
    let (bed, mut landed) = (Bed::with(pipeline), Landed::default());
    landed.land(&bed, 0, 60).await;
    bed.run(&Faults::none()).await.unwrap();
    landed.check(&bed).await;
    (bed, landed)
}

/// Everything that readers of main see: the rows, and the quarantine.
async fn seen(bed: &Bed) -> (Vec<Row>, Vec<Row>) {
    (bed.rows(false).await, bed.rows(true).await)
}

fn diff(report: &RunReport) -> &Counts {
    assert_eq!(report.outcome, Outcome::OnBranch);
    &report.diff.as_ref().unwrap().counts
}

async fn branches(bed: &Bed) -> usize {
    let mut found = 0;
    for ident in [bed.target().ident(), bed.target().quarantine().unwrap().ident] {
        let table = bed.env(&Faults::none()).await.catalog.load(&ident).await.unwrap();
        found += usize::from(table.is_some_and(|t| t.metadata().snapshot_for_ref(BRANCH).is_some()));
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_added_removed_and_changed_are_counted_and_nothing_is_visible() {
    let (mut bed, _) = converted(PIPELINE).await;
    let before = seen(&bed).await;
    let kinds = |fates: &[Fate]| {
        let of_hours = (0..60).map(event).filter(|((hour, _), _)| (6..8).contains(hour));
        of_hours.filter(|(_, fate)| fates.contains(fate)).count() as u64
    };
    // Quarantined by the step whose path changes: those have a text at `$.k`, and `n` of 1, which goes now.
    let (rows, thirteens) = (kinds(&[Fate::Row]), kinds(&[Fate::Filtered]));
    assert!(rows > 10 && thirteens > 2);
    bed.reconfigure(&PIPELINE.replace("<> 13", "<> 1"));
    for _ in 0..2 {
        let report = bed.diff(&Faults::none(), FROM, TO).await.unwrap();
        let found = diff(&report);
        assert_eq!((found.added, found.removed, found.changed, found.same), (thirteens, rows, 0, 0), "{found:?}");
        assert_eq!((seen(&bed).await, found.examples.removed.len()), (before.clone(), 5));
        bed.prove().await;
    }
    // The last of the column's digits is enough to tell that rows change, and nothing else of them does.
    bed.reconfigure(&PIPELINE.replace("path: $.k", "path: $.none"));
    let report = bed.diff(&Faults::none(), FROM, TO).await.unwrap();
    let found = diff(&report);
    assert_eq!((found.removed, found.changed, found.same), (0, rows, 0), "{found:?}");
    assert_eq!(found.columns, BTreeMap::from([("k".to_owned(), rows)]));
    let mut rejected = (0..60).map(event).filter(|((hour, payload), fate)| {
        (6..8).contains(hour) && *fate == Fate::Quarantined && payload.as_ref().unwrap().contains("\"x\"")
    });
    assert_eq!(found.added, rejected.by_ref().count() as u64, "rejects of the step come in");
    // The same configuration changes nothing.
    bed.reconfigure(PIPELINE);
    let report = bed.diff(&Faults::none(), FROM, TO).await.unwrap();
    let found = diff(&report);
    assert_eq!((found.added, found.removed, found.changed, found.same), (0, 0, 0, rows), "{found:?}");
    assert_eq!(seen(&bed).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_published_branch_is_what_a_reprocess_would_have_made() {
    let (mut bed, _) = converted(PIPELINE).await;
    let (mut other, _) = converted(PIPELINE).await;
    bed.reconfigure(&changed());
    other.reconfigure(&changed());
    bed.diff(&Faults::none(), FROM, TO).await.unwrap();
    assert_eq!(branches(&bed).await, 2);
    let report = bed.publish(&Faults::none()).await.unwrap();
    assert_eq!((report.outcome, branches(&bed).await), (End::Published, 0));
    other.reprocess(&Faults::none(), FROM, TO).await.unwrap();
    assert_eq!(seen(&bed).await, seen(&other).await);
    bed.prove().await;
    assert_eq!(bed.publish(&Faults::none()).await.unwrap().outcome, End::NothingToDo);
    assert_eq!(bed.run(&Faults::none()).await.unwrap().outcome, Outcome::NothingToDo);
    // And the table goes on from where it stood.
    bed.land(0, &[event(100).0, event(101).0]).await;
    bed.run_to_the_end().await;
    bed.prove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_that_the_table_has_left_behind_is_not_published() {
    let (mut bed, mut landed) = converted(PIPELINE).await;
    bed.reconfigure(&changed());
    bed.diff(&Faults::none(), FROM, TO).await.unwrap();
    landed.land(&bed, 1, 20).await;
    bed.run_to_the_end().await;
    let before = seen(&bed).await;
    let error = bed.publish(&Faults::none()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("reprocess --diff"), "{error}");
    assert_eq!(seen(&bed).await, before);
    bed.prove().await;
    bed.diff(&Faults::none(), FROM, TO).await.unwrap();
    assert_eq!(bed.publish(&Faults::none()).await.unwrap().outcome, End::Published);
    assert_ne!(seen(&bed).await, before);
    bed.prove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_discarded_branch_leaves_no_trace() {
    let (mut bed, landed) = converted(PIPELINE).await;
    bed.reconfigure(&changed());
    bed.diff(&Faults::none(), FROM, TO).await.unwrap();
    for outcome in [End::Discarded, End::NothingToDo] {
        assert_eq!(bed.discard(&Faults::none()).await.unwrap().outcome, outcome);
        assert_eq!(branches(&bed).await, 0);
        landed.check(&bed).await;
    }
}

/// Makes `name` a tag, or a branch, of the table's or the quarantine's current snapshot.
async fn refer(bed: &Bed, quarantine: bool, name: &str, retention: SnapshotRetention) {
    let ident = if quarantine { bed.target().quarantine().unwrap().ident } else { bed.target().ident() };
    let env = bed.env(&Faults::none()).await;
    let table = env.catalog.load(&ident).await.unwrap().unwrap();
    let reference = SnapshotReference { snapshot_id: table.metadata().current_snapshot_id().unwrap(), retention };
    let updates = vec![TableUpdate::SetSnapshotRef { ref_name: name.to_owned(), reference }];
    env.catalog.commit(&table, updates, Vec::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_and_a_branch_of_somebody_else_are_left_as_they_are() {
    for quarantine in [false, true] {
        for (retention, what) in [
            (SnapshotRetention::Tag { max_ref_age_ms: None }, "is a tag"),
            (SnapshotRetention::branch(None, None, None), "no reprocess made"),
        ] {
            let (mut bed, landed) = converted(PIPELINE).await;
            bed.reconfigure(&changed());
            refer(&bed, quarantine, BRANCH, retention).await;
            let faults = Faults::at_write(u64::MAX, Fault::CrashAfter);
            let errors = [
                bed.diff(&faults, FROM, TO).await.unwrap_err(),
                bed.publish(&faults).await.unwrap_err(),
                bed.discard(&faults).await.unwrap_err(),
            ];
            for error in errors {
                assert!(error.kind() == ErrorKind::Config && error.to_string().contains(what), "{error}");
            }
            assert!(faults.log().is_empty(), "nothing is converted or committed: {:?}", faults.log());
            assert_eq!(branches(&bed).await, 1);
            landed.check(&bed).await;
        }
    }
}

/// A branch of the quarantine belongs to the comparison that made it and to no later one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn halves_of_two_comparisons_are_not_published_together() {
    let (mut bed, _) = converted(PIPELINE).await;
    bed.reconfigure(&changed());
    bed.diff(&Faults::none(), FROM, TO).await.unwrap();
    let before = seen(&bed).await;
    // A second comparison dies when its quarantine is on its branch and its table is not.
    let log = Faults::at_write(u64::MAX, Fault::CrashAfter);
    bed.diff(&log, FROM, TO).await.unwrap();
    let table = bed.target().ident().name().to_owned();
    let at = log.log().into_iter().find(|o| o.operation == "catalog.commit" && o.key == table).unwrap().number;
    assert!(bed.diff(&Faults::at_write(at, Fault::CrashBefore), FROM, TO).await.is_err());
    let error = bed.publish(&Faults::none()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Conflict && error.to_string().contains("made it anew"), "{error}");
    assert_eq!(seen(&bed).await, before);
    bed.diff(&Faults::none(), FROM, TO).await.unwrap();
    bed.publish(&Faults::none()).await.unwrap();
    bed.prove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_write_of_comparing_or_publishing_leaves_the_old_table_or_the_new_one() {
    // A crash after a write is one before the next.
    for fault in [Fault::CrashBefore, Fault::ErrorAfter] {
        let mut number = 0;
        loop {
            number += 1;
            let (mut bed, _) = converted(PIPELINE).await;
            bed.reconfigure(&changed());
            let before = bed.rows(false).await;
            let comparing = Faults::at_write(number, fault);
            let _ = bed.diff(&comparing, FROM, TO).await;
            assert_eq!(bed.rows(false).await, before, "{fault:?} at {number} of comparing");
            bed.prove().await;
            let report = bed.diff(&Faults::none(), FROM, TO).await.unwrap();
            let (added, removed) = (diff(&report).added as usize, diff(&report).removed as usize);
            let publishing = Faults::at_write(number, fault);
            let _ = bed.publish(&publishing).await;
            let now = bed.rows(false).await;
            assert!(now == before || now.len() == before.len() + added - removed, "{fault:?} at {number}: half of it");
            bed.publish(&Faults::none()).await.unwrap();
            assert_eq!(bed.rows(false).await.len(), before.len() + added - removed, "{fault:?} at {number}");
            assert_eq!(branches(&bed).await, 0);
            bed.prove().await;
            if !comparing.fired() && !publishing.fired() {
                assert!(number > 4, "only {number} operations");
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_comparison_beside_a_run_and_a_publication_lose_nothing() {
    let (bed, mut landed) = converted(PIPELINE).await;
    for round in 0..4 {
        landed.land(&bed, round % 2, 20).await;
        let [one, two, three] = [(); 3].map(|()| Faults::none());
        let outcomes = tokio::join!(bed.run(&one), bed.diff(&two, FROM, TO), bed.publish(&three));
        for error in [outcomes.0.err(), outcomes.1.err(), outcomes.2.err()].into_iter().flatten() {
            assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        }
        bed.run_to_the_end().await;
        // What the race may have left of the quarantine, the next comparison replaces.
        bed.diff(&Faults::none(), FROM, TO).await.unwrap();
        bed.publish(&Faults::none()).await.unwrap();
        landed.check(&bed).await;
    }
}
