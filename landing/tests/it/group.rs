//! Other members of the group: what they have is theirs to finish, and what they leave is read within the same bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use firn_landing::memory::Shares;
use firn_shared::error::ErrorKind;
use firn_shared::ids::{Partition, PartitionRef};
use firn_shared::raw::progress::{self, Progress};
use firn_shared::store::Faults;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::support::{Daemon, Kafka, assert_all, config, event, land, landed, raw_zone};

/// A member of the pipeline's group that has partitions and does nothing with them.
struct Member {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Member {
    /// Joins the group; returns once it has all of the topic's partitions.
    fn join(kafka: &Kafka, topic: &str, partitions: usize) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", kafka.brokers())
            .set("group.id", "firn-p")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "300")
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        consumer.subscribe(&[topic]).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (has_all, all) = sync_channel(1);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                drop(consumer.poll(Duration::from_millis(50)));
                if consumer.assignment().unwrap().count() == partitions {
                    let _ = has_all.try_send(());
                }
            }
        });
        all.recv_timeout(Duration::from_mins(5)).expect("the member gets all partitions");
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn partition(number: u32) -> PartitionRef {
    PartitionRef { topic: "c/t/1".parse().unwrap(), partition: Partition(number) }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_partition_that_another_member_has_is_nothing_to_wait_for() {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::start("t", 2));
    let config = config(dir.path(), &kafka.brokers(), "t", "", "{size: 1MiB, age: 5m}");
    let _member = Member::join(&kafka, "t", 2);
    let landed = tokio::time::timeout(Duration::from_mins(5), land(&config, raw_zone(dir.path()))).await;
    assert_eq!(landed.expect("the run ends").unwrap().pipelines["p"].batches, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_another_member_has_stopped_ends_the_run_with_the_reason() {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::start("t", 1));
    kafka.produce("t", &[event(0, "{\"at\":\"2026-11-22T07:00:00Z\"}")]);
    let config = config(dir.path(), &kafka.brokers(), "t", "", "{size: 1MiB, age: 5m}");
    let store = raw_zone(dir.path());
    let _member = Member::join(&kafka, "t", 1);
    let stopped = Progress { stopped: Some("a person must act".to_owned()), ..Progress::default() };
    progress::write(&*store, &partition(0), &stopped).await.unwrap();
    let landed = tokio::time::timeout(Duration::from_mins(5), land(&config, store)).await;
    let error = landed.expect("the run ends").unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Config, "a person must act"));
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_inherited_while_memory_is_full_wait_as_well() {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::start("t", 8));
    let produced: Vec<_> = (0..16_000_usize)
        .map(|n| {
            let noise: String =
                (0..125).map(|i| blake3::hash(&[n, n >> 8, i].map(|x| x as u8)).to_hex()[..16].to_owned()).collect();
            event((n % 8) as i32, format!("{{\"at\":\"2026-11-22T07:00:00Z\",\"n\":{n},\"pad\":\"{noise}\"}}"))
        })
        .collect();
    kafka.produce("t", &produced);
    let mut config = config(dir.path(), &kafka.brokers(), "t", "", "{size: 1GiB, age: 1h}");
    config.deployment.landing.memory = 64 << 20;
    let store = raw_zone(dir.path());
    progress::trace(&store, &partition(0).topic, &(0..8).map(Partition).collect()).await.unwrap();

    let member = Member::join(&kafka, "t", 8);
    // Uploads hang, and with them everything.
    let faults = Faults::gate();
    let daemon = Daemon::start(config.clone(), faults.around(store.clone()));
    daemon.until("landing_paused_partitions", |paused| paused.iter().sum::<i64>() > 0).await;
    drop(member);
    daemon.until("landing_paused_partitions", |paused| paused.iter().sum::<i64>() == 8).await;
    assert!(faults.fired());
    faults.open();
    daemon.until("landing_records_total", |records| records.iter().sum::<i64>() > 1_000).await;
    let summary = daemon.stop().await.unwrap();
    let (peak, bound) = (summary.buffer_bytes_peak, Shares::of(64 << 20, 2).unwrap().buffers);
    assert!(peak <= bound, "{peak} bytes buffered, {bound} are allowed");
    land(&config, store.clone()).await.unwrap();
    assert_all(&landed(&store, "t", 8).await, &produced);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_without_leader_keeps_nothing_from_the_others() {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::start_two("t", 6, 0..3));
    let config = config(dir.path(), &kafka.brokers(), "t", "", "{size: 1MiB, age: 20ms}");
    let daemon = Daemon::start(config, raw_zone(dir.path()));
    daemon.until("landing_kafka_end_offset", |ends| ends == [0; 6]).await;
    kafka.second_down();
    let produced: Vec<_> = (3..6).map(|n| event(n, "{\"at\":\"2026-11-22T07:00:00Z\"}")).collect();
    kafka.produce("t", &produced);
    daemon.until("landing_kafka_end_offset", |ends| ends.iter().sum::<i64>() == 3).await;
    daemon.until("landing_lag_offsets", |lags| lags == [0; 6]).await;
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_gone_keeps_no_date_open() {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::start("shop.t", 1));
    let config = config(dir.path(), &kafka.brokers(), "{regex: 'shop\\..*'}", "", "{size: 1MiB, age: 20ms}");
    let store = raw_zone(dir.path());
    // Landed once, and deleted since; the other one is another pipeline's.
    let [gone, other] = ["c/shop.gone/1", "c/gone/1"]
        .map(|topic| PartitionRef { topic: topic.parse().unwrap(), partition: Partition(0) });
    let said = Progress { end: 7, ..Progress::default() };
    for partition in [&gone, &other] {
        progress::write(&*store, partition, &said).await.unwrap();
    }
    let daemon = Daemon::start(config, store.clone());
    let caught_up = async |partition: &PartitionRef| {
        let found = progress::read(&*store, partition).await.unwrap().unwrap();
        assert_eq!(found.end, 7);
        found.caught_up_at
    };
    let noticed = async {
        while caught_up(&gone).await.is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(5), noticed).await.expect("the topic is noticed to be gone");
    assert_eq!(caught_up(&other).await, None);
    daemon.stop().await.unwrap();
}
