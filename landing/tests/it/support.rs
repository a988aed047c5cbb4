//! A mock cluster, a configuration, and the comparison of the raw zone with what was produced.

use std::collections::BTreeMap;
use std::ffi::{CString, c_void};
use std::path::Path;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use firn_landing::{Options, Summary, run};
use firn_shared::config::{self, Config};
use firn_shared::error::Result;
use firn_shared::ids::{Partition, PartitionRef};
use firn_shared::raw::chain::Chain;
use firn_shared::raw::envelope::{Envelope, QuarantineLine};
use firn_shared::raw::manifest::{BatchManifest, RejectReason};
use firn_shared::store::{LocalStore, Store};
use rdkafka::ClientConfig;
use rdkafka::bindings as sys;
use rdkafka::mocking::{MockCluster, MockCoordinator};
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
use sys::rd_kafka_vtype_t::{
    RD_KAFKA_VTYPE_HEADERS, RD_KAFKA_VTYPE_KEY, RD_KAFKA_VTYPE_MSGFLAGS, RD_KAFKA_VTYPE_PARTITION,
    RD_KAFKA_VTYPE_TIMESTAMP, RD_KAFKA_VTYPE_TOPIC, RD_KAFKA_VTYPE_VALUE,
};

/// A record to produce.
#[derive(Debug, Clone)]
pub struct Produced {
    pub partition: i32,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub timestamp: i64,
    pub headers: Vec<Header>,
}

/// Name and value.
pub type Header = (Vec<u8>, Option<Vec<u8>>);

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
        Self::start_with(MockCluster::new(1).unwrap(), topic, partitions)
    }

    /// The same with a second broker, which leads these partitions and nothing else.
    pub fn start_two(topic: &str, partitions: i32, second: std::ops::Range<i32>) -> Self {
        let cluster = MockCluster::new(2).unwrap();
        cluster.coordinator(MockCoordinator::Group("firn-p".to_owned()), 1).unwrap();
        let kafka = Self::start_with(cluster, topic, partitions);
        for partition in 0..partitions {
            let leader = if second.contains(&partition) { 2 } else { 1 };
            kafka.cluster.partition_leader(topic, partition, Some(leader)).unwrap();
        }
        kafka
    }

    fn start_with(cluster: MockCluster<'static, DefaultProducerContext>, topic: &str, partitions: i32) -> Self {
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
            if record.headers.is_empty() {
                let mut message =
                    BaseRecord::<[u8], [u8]>::to(topic).partition(record.partition).timestamp(record.timestamp);
                message.key = record.key.as_deref();
                message.payload = record.payload.as_deref();
                self.producer.send(message).map_err(|(e, _)| e).unwrap();
            } else {
                produce_with_headers(&self.producer, topic, record);
            }
        }
        self.producer.flush(Duration::from_mins(5)).unwrap();
    }

    /// Takes the second broker away.
    pub fn second_down(&self) {
        self.cluster.broker_down(2).unwrap();
    }
}

/// Through the C interface, as rdkafka takes header names for text.
#[allow(unsafe_code, reason = "rdkafka cannot produce a header whose name is not UTF-8")]
fn produce_with_headers(producer: &BaseProducer, topic: &str, record: &Produced) {
    let topic = CString::new(topic).unwrap();
    let part = |bytes: Option<&[u8]>| {
        let (ptr, size) = bytes_of(bytes);
        sys::rd_kafka_vu_s__bindgen_ty_1 {
            mem: sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 { ptr: ptr.cast_mut(), size },
        }
    };
    // SAFETY: everything pointed to lives until the call returns, and librdkafka copies it; the headers become its own.
    unsafe {
        let headers = sys::rd_kafka_headers_new(record.headers.len());
        for (name, value) in &record.headers {
            let (value, size) = bytes_of(value.as_deref());
            let added =
                sys::rd_kafka_header_add(headers, name.as_ptr().cast(), name.len() as isize, value, size as isize);
            assert_eq!(added, RD_KAFKA_RESP_ERR_NO_ERROR);
        }
        let fields = [
            (RD_KAFKA_VTYPE_TOPIC, sys::rd_kafka_vu_s__bindgen_ty_1 { cstr: topic.as_ptr() }),
            (RD_KAFKA_VTYPE_PARTITION, sys::rd_kafka_vu_s__bindgen_ty_1 { i32_: record.partition }),
            (RD_KAFKA_VTYPE_TIMESTAMP, sys::rd_kafka_vu_s__bindgen_ty_1 { i64_: record.timestamp }),
            (RD_KAFKA_VTYPE_MSGFLAGS, sys::rd_kafka_vu_s__bindgen_ty_1 { i: sys::RD_KAFKA_MSG_F_COPY }),
            (RD_KAFKA_VTYPE_KEY, part(record.key.as_deref())),
            (RD_KAFKA_VTYPE_VALUE, part(record.payload.as_deref())),
            (RD_KAFKA_VTYPE_HEADERS, sys::rd_kafka_vu_s__bindgen_ty_1 { headers }),
        ];
        let fields = fields.map(|(vtype, u)| sys::rd_kafka_vu_t { vtype, u });
        let error = sys::rd_kafka_produceva(producer.client().native_ptr(), fields.as_ptr(), fields.len());
        assert!(error.is_null());
    }
}

fn bytes_of(bytes: Option<&[u8]>) -> (*const c_void, usize) {
    bytes.map_or((ptr::null(), 0), |bytes| (bytes.as_ptr().cast(), bytes.len()))
}

/// A deployment with one pipeline `p` that reads `topics`, further lines of `incomingData` given.
pub fn config(dir: &Path, brokers: &str, topics: &str, incoming: &str, raw: &str) -> Config {
    let pipeline = pipeline("p", topics, incoming, raw);
    configured(dir, brokers, &[&pipeline])
}

/// A deployment with these pipelines; one of them may ask for a key `people`, whose file is `keys.yaml`.
pub fn configured(dir: &Path, brokers: &str, pipelines: &[&str]) -> Config {
    let firn = format!(
        "clusters:\n  c: {{brokers: '{brokers}', properties: {{session.timeout.ms: '6000', heartbeat.interval.ms: '300'}}}}\n\
         raw: file://{0}/raw\nwarehouse: file://{0}/tables\ncatalog: {{sqlite: {{path: {0}/catalog.db, name: c}}}}\n\
         landing: {{memory: {1}MiB, drain: 10s}}\nkeys:\n  people: {{file: {0}/keys.yaml}}\n",
        dir.display(),
        32 + 32 * pipelines.len()
    );
    std::fs::write(dir.join("firn.yaml"), firn).unwrap();
    let files: Vec<_> = pipelines.iter().zip(0..).map(|(text, n)| (dir.join(format!("{n}.yaml")), text)).collect();
    for (file, text) in &files {
        std::fs::write(file, text).unwrap();
    }
    let files: Vec<_> = files.into_iter().map(|(file, _)| file).collect();
    config::load(&dir.join("firn.yaml"), &files).unwrap_or_else(|problems| panic!("{problems}"))
}

/// A pipeline and its table, which have one name.
pub fn pipeline(name: &str, topics: &str, incoming: &str, raw: &str) -> String {
    format!(
        "name: {name}\ningestionUnit:\n  kafka: {{cluster: c, topic: {topics}, numberOfConsumers: 2}}\n  incomingData:\n    \
         format: json\n    eventTime: {{path: $.at, format: rfc3339}}\n{incoming}  raw: {{rotate: {raw}}}\n\
         outsourcingUnit:\n  - table: {{database: d, tableName: {name}, columns: [{{name: n, type: long}}]}}\n"
    )
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

/// A port that is free and below those that the system hands out by itself: nobody else is given it meanwhile.
fn free_port() -> u16 {
    let mut ports = std::iter::repeat_with(|| 10_000 + (uuid::Uuid::new_v4().as_u128() % 22_000) as u16);
    ports.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// A landing daemon in this process, to be looked at over HTTP.
pub struct Daemon {
    address: String,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<Summary>>,
}

impl Daemon {
    /// Starts it.
    pub fn start(mut config: Config, store: Arc<dyn Store>) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        config.deployment.landing.listen = Some(address.clone());
        let (stop, told) = oneshot::channel();
        let options = Options { threads: 2, topic_ids: false, ..Options::default() };
        let running = tokio::spawn(async move { run(&config, store, options, async { drop(told.await) }).await });
        Self { address, stop, running }
    }

    /// The values of a metric, once they are as wanted.
    pub async fn until(&self, metric: &str, wanted: impl Fn(&[i64]) -> bool) {
        let mut seen = Vec::new();
        let polled = async {
            loop {
                seen = self.metric(metric).await.unwrap_or_default();
                if wanted(&seen) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_mins(5), polled).await.is_ok();
        assert!(in_time, "{metric} is {seen:?}");
    }

    async fn metric(&self, name: &str) -> std::io::Result<Vec<i64>> {
        let mut stream = tokio::net::TcpStream::connect(&self.address).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let of_name = answer.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        Ok(of_name.filter_map(|line| line.rsplit_once(' ')?.1.parse().ok()).collect())
    }

    /// Stops it in order.
    pub async fn stop(self) -> Result<Summary> {
        let _ = self.stop.send(());
        self.running.await.unwrap()
    }
}

/// Event hour and payload.
pub type Content = (String, Option<Vec<u8>>);

/// Key and headers.
pub type Beside = (Option<Vec<u8>>, Vec<Header>);

/// What the raw zone holds of a topic.
#[derive(Debug, Default)]
pub struct Landed {
    /// By partition and offset.
    pub records: BTreeMap<(u32, u64), Content>,
    /// By partition and offset.
    pub refused: BTreeMap<(u32, u64), RejectReason>,
    /// Keys and headers of both, by partition and offset.
    pub beside: BTreeMap<(u32, u64), Beside>,
    /// What exactly was wrong with the refused ones.
    pub details: BTreeMap<(u32, u64), String>,
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
                    let headers = named(envelope.headers().unwrap());
                    landed.beside.insert((number, envelope.offset), (envelope.key().unwrap(), headers));
                    let before = landed.records.insert((number, envelope.offset), (hour, payload));
                    assert!(before.is_none(), "offset {} of partition {number} landed twice", envelope.offset);
                }
            }
            for object in &manifest.quarantine {
                let body = zstd::stream::decode_all(&*store.get(&object.key).await.unwrap()).unwrap();
                for line in body.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
                    let line: QuarantineLine = serde_json::from_slice(line).unwrap();
                    let headers = line.headers.into_iter().map(|(name, value)| (name, value.map(|v| v.0))).collect();
                    let at = (number, line.offset);
                    landed.beside.insert(at, (line.key.map(|key| key.0), named(headers)));
                    landed.details.insert(at, line.detail);
                    assert!(landed.refused.insert(at, line.reason).is_none(), "a record was refused twice");
                }
            }
            landed.manifests.push(manifest);
        }
    }
    landed
}

fn named(headers: Vec<(String, Option<Vec<u8>>)>) -> Vec<Header> {
    headers.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect()
}

/// Fails unless every record landed or was refused, once, in its place, with its key and its headers.
pub fn assert_all(landed: &Landed, produced: &[Produced]) {
    let mut next: BTreeMap<u32, u64> = BTreeMap::new();
    for record in produced {
        let number = record.partition as u32;
        let offset = next.entry(number).or_default();
        match landed.records.get(&(number, *offset)) {
            Some((_, payload)) => assert_eq!(payload, &record.payload, "offset {offset} of partition {number}"),
            None => assert!(landed.refused.contains_key(&(number, *offset)), "offset {offset} of {number} is missing"),
        }
        let (key, headers) = &landed.beside[&(number, *offset)];
        assert_eq!(key, &record.key, "offset {offset} of partition {number}");
        if landed.refused.get(&(number, *offset)) != Some(&RejectReason::BadHeader) {
            assert_eq!(headers, &record.headers, "offset {offset} of partition {number}");
        }
        *offset += 1;
    }
    assert_eq!(landed.records.len() + landed.refused.len(), produced.len(), "nothing that was not produced");
}
