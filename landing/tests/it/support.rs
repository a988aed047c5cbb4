//! A mock cluster, a configuration, and the comparison of the raw zone with what was produced.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use firn_landing::{Options, Summary, run};
use firn_shared::config::{self, Config};
use firn_shared::error::Result;
use firn_shared::ids::{Partition, PartitionRef};
use firn_shared::raw::chain::Chain;
use firn_shared::raw::envelope::Envelope;
use firn_shared::raw::manifest::{BatchManifest, RejectReason};
use firn_shared::store::{LocalStore, Store};
use rdkafka::ClientConfig;

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

/// A record to produce.
#[derive(Debug, Clone)]
pub struct Produced {
    pub partition: i32,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub timestamp: i64,
    pub headers: Vec<(String, Vec<u8>)>,
}

pub fn event(partition: i32, payload: impl Into<Vec<u8>>) -> Produced {
    Produced {
        partition,
        key: Some(b"k".to_vec()),
        payload: Some(payload.into()),
        timestamp: 1_700_000_000_000,
        headers: Vec::new(),
    }
}

/// `count` events over `partitions` partitions and `hours` hours.
pub fn events(count: usize, partitions: i32, hours: usize) -> Vec<Produced> {
    (0..count)
        .map(|n| {
            let at = format!("2026-11-22T{:02}:{:02}:00Z", n % hours, n % 60);
            event(n as i32 % partitions, format!("{{\"at\":\"{at}\",\"n\":{n},\"pad\":\"{}\"}}", "x".repeat(n % 700)))
        })
        .collect()
}

/// A cluster with one topic.
pub struct Kafka {
    cluster: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
}

impl Kafka {
    pub fn start(topic: &str, partitions: i32) -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(topic, partitions, 1).unwrap();
        let producer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("linger.ms", "0")
            .create()
            .unwrap();
        Self { cluster, producer }
    }

    pub fn brokers(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    pub fn produce(&self, topic: &str, records: &[Produced]) {
        for record in records {
            let mut message =
                BaseRecord::<[u8], [u8]>::to(topic).partition(record.partition).timestamp(record.timestamp);
            message.key = record.key.as_deref();
            message.payload = record.payload.as_deref();
            if !record.headers.is_empty() {
                let headers = record.headers.iter();
                message.headers = Some(
                    headers
                        .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(value) })),
                );
            }
            self.producer.send(message).map_err(|(e, _)| e).unwrap();
        }
        self.producer.flush(Duration::from_secs(10)).unwrap();
    }
}

/// A deployment with one pipeline `p` that reads `topics`, further lines of `incomingData` given.
pub fn config(dir: &Path, brokers: &str, topics: &str, incoming: &str, raw: &str) -> Config {
    let firn = format!(
        "clusters:\n  c: {{brokers: '{brokers}', properties: {{session.timeout.ms: '6000', heartbeat.interval.ms: '300'}}}}\n\
         raw: file://{0}/raw\nwarehouse: file://{0}/tables\ncatalog: {{sqlite: {{path: {0}/catalog.db, name: c}}}}\n\
         landing: {{memory: 64MiB, drain: 10s}}\n",
        dir.display()
    );
    let pipeline = format!(
        "name: p\ningestionUnit:\n  kafka: {{cluster: c, topic: {topics}, numberOfConsumers: 2}}\n  incomingData:\n    \
         format: json\n    eventTime: {{path: $.at, format: rfc3339}}\n{incoming}  raw: {{rotate: {raw}}}\n\
         outsourcingUnit:\n  - table: {{database: d, tableName: t, columns: [{{name: n, type: long}}]}}\n"
    );
    std::fs::write(dir.join("firn.yaml"), firn).unwrap();
    std::fs::write(dir.join("p.yaml"), pipeline).unwrap();
    config::load(&dir.join("firn.yaml"), &[dir.join("p.yaml")]).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The raw zone of a test.
pub fn raw_zone(dir: &Path) -> Arc<dyn Store> {
    Arc::new(LocalStore::new(dir.join("raw")).unwrap())
}

/// Lands everything that is there; gives up at the first failure.
pub async fn land(config: &Config, store: Arc<dyn Store>) -> Result<Summary> {
    let options =
        Options { until_caught_up: true, threads: 2, attempts: Some(1), topic_ids: false, ..Options::default() };
    run(config, store, options, std::future::pending()).await
}

/// Event hour and payload.
pub type Content = (String, Option<Vec<u8>>);

/// What the raw zone holds of a topic.
#[derive(Debug, Default)]
pub struct Landed {
    /// By partition and offset.
    pub records: BTreeMap<(u32, u64), Content>,
    /// By partition and offset.
    pub refused: BTreeMap<(u32, u64), RejectReason>,
    /// All of them.
    pub manifests: Vec<BatchManifest>,
}

/// Reads the chains of a topic and every object they name; fails when an offset is there twice or a chain has a hole.
pub async fn landed(store: &Arc<dyn Store>, topic: &str, partitions: u32) -> Landed {
    let mut landed = Landed::default();
    for number in 0..partitions {
        let partition = PartitionRef { topic: format!("c/{topic}/1").parse().unwrap(), partition: Partition(number) };
        let manifests = Chain::new(Arc::clone(store), partition).read(0).await.unwrap();
        let mut end = 0;
        for manifest in manifests {
            manifest.check().unwrap();
            assert_eq!(manifest.range.start(), end, "the chain of partition {number} has no hole");
            end = manifest.range.end();
            for object in &manifest.objects {
                let body = store.get(&object.key).await.unwrap();
                assert_eq!(body.len() as u64, object.bytes);
                assert_eq!(blake3::hash(&body).to_hex().to_string(), object.blake3);
                let lines = zstd::stream::decode_all(&*body).unwrap();
                assert_eq!(lines.len() as u64, object.raw_bytes);
                for line in lines.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
                    let envelope = Envelope::parse(line).unwrap();
                    let hour = object.event_hour.unwrap().to_string();
                    let payload = envelope.payload().unwrap().map(|p| p.to_vec());
                    let before = landed.records.insert((number, envelope.offset), (hour, payload));
                    assert!(before.is_none(), "offset {} of partition {number} landed twice", envelope.offset);
                }
            }
            for object in &manifest.quarantine {
                let body = zstd::stream::decode_all(&*store.get(&object.key).await.unwrap()).unwrap();
                for line in body.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
                    let line: serde_json::Value = serde_json::from_slice(line).unwrap();
                    let reason = serde_json::from_value(line["reason"].clone()).unwrap();
                    let before = landed.refused.insert((number, line["offset"].as_u64().unwrap()), reason);
                    assert!(before.is_none(), "a record was refused twice");
                }
            }
            landed.manifests.push(manifest);
        }
    }
    landed
}

/// Fails unless every record landed or was refused, once, in its place.
pub fn assert_all(landed: &Landed, produced: &[Produced]) {
    let mut next: BTreeMap<u32, u64> = BTreeMap::new();
    for record in produced {
        let number = record.partition as u32;
        let offset = next.entry(number).or_default();
        match landed.records.get(&(number, *offset)) {
            Some((_, payload)) => assert_eq!(payload, &record.payload, "offset {offset} of partition {number}"),
            None => assert!(landed.refused.contains_key(&(number, *offset)), "offset {offset} of {number} is missing"),
        }
        *offset += 1;
    }
    assert_eq!(landed.records.len() + landed.refused.len(), produced.len(), "nothing that was not produced");
}
