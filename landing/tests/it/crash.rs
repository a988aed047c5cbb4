//! The process dies after (or before) each store operation in turn and is started again.

use std::future::pending;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use firn_landing::{Options, run};
use firn_shared::ids::Partition;
use firn_shared::raw::chain::catalog;
use firn_shared::raw::progress;
use firn_shared::store::{Fault, Faults};
use tokio::runtime::Runtime;

use crate::support::{Kafka, Produced, assert_all, config, events, land, landed, raw_zone};

/// Runs the crash at every place, several places at a time.
async fn matrix(fault: Fault) {
    let kafka = Kafka::start("t", 2);
    let produced = Arc::new(events(120, 2, 3));
    kafka.produce("t", &produced);
    for places in (1..).step_by(8) {
        let runs: Vec<_> = (places..places + 8)
            .map(|n| tokio::spawn(crash_at(n, fault, kafka.brokers(), Arc::clone(&produced))))
            .collect();
        let mut fired = true;
        for run in runs {
            fired &= run.await.unwrap();
        }
        if !fired {
            assert!(places > 8, "the run had more than 8 operations to die at");
            return;
        }
    }
}

/// Dies at operation `n`, starts again and compares; says whether the run was long enough to die.
async fn crash_at(n: u64, fault: Fault, brokers: String, produced: Arc<Vec<Produced>>) -> bool {
    let dir = tempfile::tempdir().unwrap();
    // Its own group: what another run committed is no hint here.
    let mut config = config(dir.path(), &brokers, "t", "", "{size: 4KiB, age: 5m}");
    config.deployment.landing.group_prefix = format!("crash-{n}-");
    let store = raw_zone(dir.path());
    let faults = Faults::at_write(n, fault);
    let first = land(&config, faults.around(store.clone())).await;
    assert_eq!(first.is_err(), faults.is_dead(), "operation {n}: {first:?}");
    // Whoever sees the first batch of one partition knows of all.
    let topic = "c/t/1".parse().unwrap();
    if !catalog::partitions(store.as_ref(), &topic).await.unwrap().is_empty() {
        assert_eq!(progress::partitions(&store, &topic).await.unwrap(), [Partition(0), Partition(1)], "operation {n}");
    }
    if faults.is_dead() {
        land(&config, store.clone()).await.unwrap_or_else(|e| panic!("after operation {n}: {e}"));
    }
    assert_all(&landed(&store, "t", 2).await, &produced);
    faults.fired()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_after_any_write_loses_and_doubles_nothing() {
    matrix(Fault::CrashAfter).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_before_any_write_loses_and_doubles_nothing() {
    matrix(Fault::CrashBefore).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_loses_and_doubles_nothing() {
    let kafka = Kafka::start("t", 2);
    let produced = events(120, 2, 3);
    kafka.produce("t", &produced);
    let runs: Vec<_> = (0..6)
        .map(|seed| {
            let (brokers, produced) = (kafka.brokers(), produced.clone());
            tokio::spawn(async move {
                let dir = tempfile::tempdir().unwrap();
                let mut config = config(dir.path(), &brokers, "t", "", "{size: 4KiB, age: 5m}");
                config.deployment.landing.group_prefix = format!("lost-{seed}-");
                let store = raw_zone(dir.path());
                let faults = Faults::random(seed, 0.05);
                // Each failure ends a run; nothing but the raw zone survives it.
                let mut runs = 0;
                while land(&config, faults.around(store.clone())).await.is_err() {
                    runs += 1;
                    assert!(runs < 50, "seed {seed} makes no progress");
                }
                assert_all(&landed(&store, "t", 2).await, &produced);
            })
        })
        .collect();
    for run in runs {
        run.await.unwrap();
    }
}

#[test]
fn a_landing_whose_future_is_dropped_ends_its_readers() {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::start("t", 1));
    kafka.produce("t", &events(10, 1, 1));
    let config = config(dir.path(), &kafka.brokers(), "t", "", "{size: 1MiB, age: 20ms}");
    let (faults, store) = (Faults::none(), raw_zone(dir.path()));
    let (ended, end) = sync_channel(1);
    // As in a test that fails: the runtime goes, and waits for its threads.
    std::thread::spawn(move || {
        Runtime::new().unwrap().block_on(async {
            let options = Options { threads: 2, topic_ids: false, ..Options::default() };
            let landed = async {
                while !faults.log().iter().any(|done| done.operation == "put" && done.key.contains("/_batches/")) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::select! {
                ended = run(&config, faults.around(store), options, pending()) => panic!("{ended:?}"),
                () = landed => {}
            }
        });
        let _ = ended.send(());
    });
    end.recv_timeout(Duration::from_mins(5)).expect("the readers end");
}
