//! The process dies after (or before) each store operation in turn and is started again.

use firn_shared::store::{Fault, Faults};

use crate::support::{Kafka, assert_all, config, events, land, landed, raw_zone};

async fn matrix(fault: Fault) {
    let kafka = Kafka::start("t", 2);
    let produced = events(120, 2, 3);
    kafka.produce("t", &produced);
    for n in 1.. {
        let dir = tempfile::tempdir().unwrap();
        // Its own group: what another run committed is no hint here.
        let mut config = config(dir.path(), &kafka.brokers(), "t", "", "{size: 4KiB, age: 5m}");
        config.deployment.landing.group_prefix = format!("{fault:?}-{n}-").replace(['(', ')', ' '], "");
        let store = raw_zone(dir.path());
        let faults = Faults::at_write(n, fault);
        let first = land(&config, faults.around(store.clone())).await;
        assert_eq!(first.is_err(), faults.is_dead(), "operation {n}: {first:?}");
        if faults.is_dead() {
            land(&config, store.clone()).await.unwrap_or_else(|e| panic!("after operation {n}: {e}"));
        }
        assert_all(&landed(&store, "t", 2).await, &produced);
        if !faults.fired() {
            assert!(n > 8, "the run had operations to die at, not {n}");
            return;
        }
    }
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
    for seed in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path(), &kafka.brokers(), "t", "", "{size: 4KiB, age: 5m}");
        config.deployment.landing.group_prefix = format!("lost-{seed}-");
        let store = raw_zone(dir.path());
        let faults = Faults::random(seed, 0.1);
        // Each failure ends a run; nothing but the raw zone survives it.
        let mut runs = 0;
        while land(&config, faults.around(store.clone())).await.is_err() {
            runs += 1;
            assert!(runs < 100, "seed {seed} makes no progress");
        }
        assert_all(&landed(&store, "t", 2).await, &produced);
    }
}
