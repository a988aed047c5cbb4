//! Topics that come, go and begin anew under a table.

use firn_compactor::run::{Options, Outcome, run};
use firn_shared::error::ErrorKind;
use firn_shared::store::Faults;

use crate::bed::{Bed, PIPELINE, event};
use crate::versions::{STRATEGIES, pipeline};

/// So many events from the `first` on.
fn events(first: u64, count: u64) -> Vec<(u32, Option<String>)> {
    (first..first + count).map(|id| event(id).0).collect()
}

/// The snapshots of the table and of its quarantine.
async fn snapshots(bed: &Bed) -> [Option<i64>; 2] {
    let catalog = bed.env(&Faults::none()).await.catalog;
    let mut found = [None; 2];
    for (found, ident) in found.iter_mut().zip([bed.target().ident(), bed.target().quarantine().unwrap().ident]) {
        *found = catalog.load(&ident).await.unwrap().unwrap().metadata().current_snapshot_id();
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reprocess_leaves_rows_and_rejects_of_topics_that_are_not_read_any_more() {
    let both = PIPELINE.replace("topic: t}", "topic: [t, u]}");
    let mut bed = Bed::with(&both);
    bed.land_in("c/t/1", 0, &events(0, 40)).await;
    bed.land_in("c/u/1", 1, &events(40, 40)).await;
    // All of these are rejects.
    bed.land_in("c/u/1", 2, &[3, 5, 14, 16].map(|id| event(id).0)).await;
    bed.run_to_the_end().await;
    let before = (bed.rows(false).await, bed.rows(true).await);
    assert!(before.1.iter().any(|((partition, _), _)| *partition == 2));
    bed.reconfigure(PIPELINE);
    for _ in 0..2 {
        let report = bed.reprocess(&Faults::none(), "2021-07-21T00", "2021-07-22T00").await.unwrap();
        assert_eq!((report.outcome, report.records), (Outcome::Committed, 40));
        assert_eq!((bed.rows(false).await, bed.rows(true).await), before);
        bed.prove().await;
    }
    bed.reconfigure(&both);
    // Read again, they are replaced again.
    let report = bed.reprocess(&Faults::none(), "2021-07-21T00", "2021-07-22T00").await.unwrap();
    assert_eq!(report.records, 84);
    assert_eq!((bed.rows(false).await, bed.rows(true).await), before);
    bed.prove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reprocess_of_keys_needs_all_topics_of_the_table() {
    let both = |strategy| pipeline(strategy, "[hour(at)]").replace("topic: t}", "topic: [t, u]}");
    let rows = |ids: std::ops::Range<i64>| {
        let payload = |id| (6, Some(format!(r#"{{"type":"a","id":{id},"at":"2021-07-21T06:00:00Z","n":1}}"#)));
        ids.map(payload).chain([(6, Some(r#"{"type":"a","id":null,"n":1}"#.to_owned()))]).collect::<Vec<_>>()
    };
    let mut bed = Bed::with(&both(STRATEGIES[1]));
    bed.land_in("c/t/1", 0, &rows(0..9)).await;
    bed.land_in("c/u/1", 1, &rows(5..15)).await;
    bed.run_to_the_end().await;
    let before = (snapshots(&bed).await, bed.rows(false).await);
    bed.reconfigure(&pipeline(STRATEGIES[1], "[hour(at)]"));
    let error = bed.reprocess(&Faults::none(), "2021-07-21T06", "2021-07-21T07").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("c/u/1"), "{error}");
    assert_eq!((snapshots(&bed).await, bed.rows(false).await), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raw_zone_without_the_topics_of_the_table_is_refused_and_nothing_goes() {
    let bed = Bed::new();
    bed.land(0, &events(0, 40)).await;
    bed.run_to_the_end().await;
    let before = (snapshots(&bed).await, bed.rows(false).await, bed.rows(true).await);
    let raw = bed.dir.path().join("raw");
    std::fs::rename(&raw, bed.dir.path().join("elsewhere")).unwrap();
    std::fs::create_dir(&raw).unwrap();
    for hours in [None, Some(("2021-07-21T06".parse().unwrap(), "2021-07-21T07".parse().unwrap()))] {
        let options = Options { hours, ..Options::default() };
        let error = run(&bed.env(&Faults::none()).await, bed.target(), &options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data, "{error}");
        assert!(error.to_string().contains("c/t/1[0]") && error.to_string().contains("raw zone"), "{error}");
    }
    assert_eq!((snapshots(&bed).await, bed.rows(false).await, bed.rows(true).await), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_date_of_a_new_generation_does_not_wait_for_the_old_one() {
    let mut bed = Bed::new();
    let date = Some("2021-07-22".parse().unwrap());
    let on = Options { event_date: date, ..Options::default() };
    bed.land(0, &events(0, 20)).await;
    let env = bed.env(&Faults::none()).await;
    assert_eq!(run(&env, bed.target(), &on).await.unwrap_err().kind(), ErrorKind::Unavailable);
    // The topic was made again; what came of it lies days later.
    bed.reconfigure(&PIPELINE.replace("topic: t}", "topic: t, generation: 2}"));
    let env = bed.env(&Faults::none()).await;
    let open = run(&env, bed.target(), &on).await.unwrap_err();
    assert!(open.to_string().contains("nothing of its topics has been landed yet"), "{open}");
    bed.caught_up("c/t/2", 0, "2021-07-23T01:00:00Z").await;
    let report = run(&env, bed.target(), &on).await.unwrap();
    assert_eq!((report.outcome, report.records), (Outcome::Committed, 20), "the old generation's objects count");
    assert!(bed.table().await.unwrap().metadata().properties().contains_key("firn.complete.2021-07-22"));
}
