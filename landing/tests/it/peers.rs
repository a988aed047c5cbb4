//! What happened to users of other sinks, each as a test of ours; `docs/promises.md` says where it was seen.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Duration;

use firn_landing::{Options, run};
use firn_shared::store::{Fault, Faults};

use crate::support::{Kafka, assert_all, config, event, events, land, landed, raw_zone};

/// Lands while records come in, closing batches by nothing but their age; the process dies after its `number`-th write and
/// is started again. Returns how many batches there are in the end.
async fn land_by_the_clock(number: u64) -> usize {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::start("t", 2));
    let produced = events(400, 2, 3);
    let config = config(dir.path(), &kafka.brokers(), "t", "", "{size: 1GiB, age: 20ms}");
    let store = raw_zone(dir.path());
    let faults = Faults::at_write(number, Fault::CrashAfter);
    let (told, stop) = tokio::sync::oneshot::channel::<()>();
    let options = Options { threads: 2, attempts: Some(1), topic_ids: false, ..Options::default() };
    let dead = Cell::new(false);
    let daemon = async {
        let ended = run(&config, faults.around(store.clone()), options, async { drop(stop.await) }).await;
        dead.set(true);
        ended
    };
    let batches = || faults.log().iter().filter(|operation| operation.key.contains("/_batches/")).count();
    let source = async {
        for records in produced.chunks(40) {
            let before = batches();
            kafka.produce("t", records);
            // Nothing but their age closes a batch, however long that takes here.
            while batches() == before && !dead.get() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let _ = told.send(());
    };
    let (ended, ()) = tokio::join!(daemon, source);
    assert!(ended.is_ok() || faults.fired(), "{ended:?}");
    land(&config, store.clone()).await.unwrap();
    let found = landed(&store, "t", 2).await;
    assert_all(&found, &produced);
    found.manifests.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_by_time_is_exactly_once_too() {
    let crashes = (1..40).step_by(4).chain([u64::MAX]);
    let batches = futures::future::join_all(crashes.map(land_by_the_clock)).await;
    assert!(*batches.last().unwrap() > 6, "age closed no batches: {batches:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn late_records_do_not_make_a_file_each() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = Kafka::start("t", 2);
    // Every tenth record is late, by one of a hundred hours.
    let produced: Vec<_> = (0..3_000_usize)
        .map(|n| {
            let (day, hour) = if n % 10 == 0 { (1 + n / 240 % 5, n / 10 % 20) } else { (22, 7) };
            event(n as i32 % 2, format!("{{\"at\":\"2026-11-{day:02}T{hour:02}:00:00Z\",\"n\":{n}}}"))
        })
        .collect();
    kafka.produce("t", &produced);
    let config = config(dir.path(), &kafka.brokers(), "t", "", "{size: 1GiB, age: 1h}");
    let store = raw_zone(dir.path());
    land(&config, store.clone()).await.unwrap();
    let found = landed(&store, "t", 2).await;
    assert_all(&found, &produced);
    let hours: BTreeSet<_> = found.records.iter().map(|((partition, _), (hour, _))| (partition, hour)).collect();
    let objects: usize = found.manifests.iter().map(|manifest| manifest.objects.len()).sum();
    assert_eq!(found.manifests.len(), 2, "late records rotated nothing");
    assert_eq!(objects, hours.len(), "one object for each hour of a batch, not for each late record");
    assert!(objects < 300, "{objects} objects for 300 late records");
}
