//! `truncateLoad`: a run replaces the whole table.

use firn_compactor::run::{Options, Outcome, dates, run};
use firn_shared::error::ErrorKind;
use firn_shared::store::{Fault, Faults};

use crate::bed::{Bed, Landed, PIPELINE};

fn pipeline(allow_empty: bool) -> String {
    PIPELINE
        .replace("tableName: t", &format!("tableName: t\n      mode: truncateLoad\n      allowEmpty: {allow_empty}"))
}

/// Forgets the rows of earlier loads: the table no longer holds them.
fn replaced(landed: &mut Landed) {
    landed.rows.clear();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_replaces_the_table_and_a_crash_leaves_the_old_or_the_new_one() {
    for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::ErrorAfter] {
        for number in (1..).step_by(3) {
            let (bed, mut landed) = (Bed::with(&pipeline(false)), Landed::default());
            landed.land(&bed, 0, 30).await;
            bed.run(&Faults::none()).await.unwrap();
            landed.check(&bed).await;
            let old = landed.rows.clone();
            replaced(&mut landed);
            landed.land(&bed, 1, 25).await;
            let faults = Faults::at_write(number, fault);
            let _ = bed.run(&faults).await;
            let seen = bed.rows(false).await;
            assert!(seen == old || seen == landed.rows, "{fault:?} at {number}: neither the old table nor the new one");
            if seen == old {
                bed.run(&Faults::none()).await.unwrap();
            }
            landed.check(&bed).await;
            assert_eq!(bed.run(&Faults::none()).await.unwrap().outcome, Outcome::NothingToDo);
            if !faults.fired() {
                assert!(number > 6, "{fault:?}: only {number} writes");
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_without_rows_is_refused_unless_it_is_meant() {
    let (mut bed, mut landed) = (Bed::with(&pipeline(false)), Landed::default());
    landed.land(&bed, 0, 30).await;
    bed.run(&Faults::none()).await.unwrap();
    // An event of another table only: offsets to consume, and no row.
    bed.land(0, &[(6, Some(r#"{"type":"z","id":1,"at":"2021-07-21T06:00:00Z"}"#.to_owned()))]).await;
    let error = bed.run(&Faults::none()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().contains("allowEmpty"), "{error}");
    assert_eq!(bed.rows(false).await, landed.rows);
    bed.reconfigure(&pipeline(true));
    bed.run(&Faults::none()).await.unwrap();
    assert!(bed.rows(false).await.is_empty());
    bed.prove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reprocess_brings_nothing_of_earlier_loads_back() {
    let (bed, mut landed) = (Bed::with(&pipeline(false)), Landed::default());
    landed.land(&bed, 0, 30).await;
    bed.run(&Faults::none()).await.unwrap();
    replaced(&mut landed);
    landed.land(&bed, 0, 25).await;
    bed.run(&Faults::none()).await.unwrap();
    for _ in 0..2 {
        bed.reprocess(&Faults::none(), "2021-07-21T06", "2021-07-21T08").await.unwrap();
        landed.check(&bed).await;
    }
}

/// Hourly runs have taken everything by the time that the date is marked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_date_is_marked_without_a_new_load() {
    for allow_empty in [false, true] {
        let (bed, mut landed) = (Bed::with(&pipeline(allow_empty)), Landed::default());
        for _ in 0..2 {
            replaced(&mut landed);
            landed.land(&bed, 0, 25).await;
            bed.run(&Faults::none()).await.unwrap();
        }
        let on = Options { event_date: Some("2021-07-21".parse().unwrap()), ..Options::default() };
        let report = run(&bed.env(&Faults::none()).await, bed.target(), &on).await.unwrap();
        assert_eq!(report.outcome, Outcome::Committed);
        let marked = format!("{}2021-07-21", dates::COMPLETE);
        assert!(bed.table().await.unwrap().metadata().properties().contains_key(&marked));
        landed.check(&bed).await;
        // The last load is still the one before the mark.
        bed.reprocess(&Faults::none(), "2021-07-21T06", "2021-07-21T09").await.unwrap();
        landed.check(&bed).await;
    }
}
