use std::sync::atomic::{AtomicBool, Ordering};

use firn_shared::config::domain::{EventTime, Ingestion, LateThen, PayloadFormat, TopicSelector};
use firn_shared::ids::{ClusterName, Generations, Partition, PipelineName};

use super::*;
use crate::metrics::Metrics;

/// A clock that can break.
#[derive(Debug, Default)]
struct Broken(AtomicBool);

impl Clock for Broken {
    fn now(&self) -> DateTime<Utc> {
        assert!(!self.0.load(Ordering::SeqCst), "the clock is broken");
        DateTime::UNIX_EPOCH
    }
}

fn rules(clock: Arc<dyn Clock>) -> Arc<LaneRules> {
    let ingestion = Ingestion {
        cluster: ClusterName::new("c").unwrap(),
        topics: TopicSelector::List(Vec::new()),
        retention: None,
        consumers: 1,
        generation: Generations::default(),
        format: PayloadFormat::Json,
        event_name: None,
        event_time: EventTime::KafkaTimestamp,
        whitelist: None,
        late_allowed: Duration::ZERO,
        late_then: LateThen::Accept,
        max_record_bytes: 100,
        rotate_size: 1 << 20,
        rotate_age: Duration::from_hours(1),
        protect_at_landing: false,
    };
    Arc::new(LaneRules {
        admission: Admission::of(&ingestion).unwrap(),
        guard: None,
        limits: Limits { size: 1 << 20, age: Duration::from_hours(1) },
        clock,
        cpu: Cpu::new(1).unwrap(),
        memory: Memory::new(1 << 20),
        frame: 1 << 16,
        late_allowed: Duration::ZERO,
    })
}

fn lane(rules: &Arc<LaneRules>, number: u32, topic_id: Option<&str>) -> (Arc<Lane>, mpsc::Receiver<Outgoing>) {
    let partition = PartitionRef { topic: "c/t/1".parse().unwrap(), partition: Partition(number) };
    let metrics = Metrics::new().unwrap().partition(&PipelineName::new("p").unwrap(), &partition);
    let topic_id = topic_id.map(str::to_owned);
    Lane::new(Arc::clone(rules), Origin { partition, topic_id, start: 0, watermark: None }, metrics)
}

fn record(rules: &LaneRules, offset: Offset) -> Work {
    let mut chunk = Chunk::new(rules.memory.hold());
    chunk.push(offset, Some(0), None, Some(b"{}"), Ok(std::iter::empty()));
    Work::Records(chunk)
}

async fn manifest(outgoing: &mut mpsc::Receiver<Outgoing>) -> firn_shared::raw::manifest::BatchManifest {
    match outgoing.recv().await {
        Some(Outgoing::Batch(sealed)) => sealed.manifest,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_panic_ends_its_own_lane_and_no_other() {
    let clock = Arc::new(Broken::default());
    let rules = rules(clock.clone());
    let (broken, _outgoing) = lane(&rules, 0, None);
    clock.0.store(true, Ordering::SeqCst);
    broken.push(record(&rules, 0));
    broken.push(record(&rules, 1));
    assert!(!broken.drain(Instant::now() + Duration::from_mins(1)));
    let failure = broken.status().failure.unwrap();
    assert_eq!(failure.kind, ErrorKind::Bug);
    assert_eq!(failure.message, "c/t/1[0] panicked: the clock is broken");

    clock.0.store(false, Ordering::SeqCst);
    let (sound, mut outgoing) = lane(&rules, 1, None);
    sound.push(record(&rules, 0));
    sound.push(Work::Seal(Cause::Drain));
    assert_eq!(manifest(&mut outgoing).await.records(), 1);
}

#[tokio::test]
async fn a_topic_id_is_learnt_once_and_another_one_is_refused() {
    let rules = rules(Arc::new(Broken::default()));
    let (new, mut outgoing) = lane(&rules, 0, None);
    new.check_topic("A").unwrap();
    new.push(record(&rules, 0));
    new.push(Work::Seal(Cause::Drain));
    assert_eq!(manifest(&mut outgoing).await.topic_id.as_deref(), Some("A"));
    new.check_topic("A").unwrap();
    assert_eq!(new.check_topic("B").unwrap_err().to_string(), "c/t/1[0]: the topic was made again");

    let (known, _outgoing) = lane(&rules, 1, Some("A"));
    assert!(known.check_topic("B").is_err());
    known.check_topic("A").unwrap();
}
