//! One broker: Apache Kafka in KRaft mode through `localstack/kafka/start` (or noida-db, see there).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication, TopicResult};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::procs::{PATIENCE, Process, free_port, listens, run_dir, source_dir, until};

/// How long a probe of a broker that may not serve yet waits; one that serves answers at once.
const PROBE: Duration = Duration::from_secs(10);

/// How long a transaction may live: as long as brokers allow. It ends when the test says so, however slow the machine is.
const TRANSACTION: (&str, &str) = ("transaction.timeout.ms", "900000");

type Admin = AdminClient<DefaultClientContext>;

/// A broker, its data directory and its address, which both outlive a restart.
pub struct Kafka {
    dir: PathBuf,
    brokers: String,
    broker: String,
    /// What clients need besides the address.
    login: Vec<(&'static str, String)>,
    process: Mutex<Option<Process>>,
}

/// A record to produce.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// The partition; else the producer chooses.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The payload; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Kafka's timestamp, milliseconds; else now.
    pub timestamp: Option<i64>,
    /// Headers in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// A record of this payload.
    pub fn of(value: impl Into<Vec<u8>>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    /// The same on this partition.
    #[must_use]
    pub fn on(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }
}

/// Collects the first delivery error.
#[derive(Default)]
struct Deliveries(Mutex<Option<String>>);

impl ClientContext for Deliveries {}
impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0.lock().expect("no delivery panics").get_or_insert_with(|| error.to_string());
        }
    }
}

impl Kafka {
    /// The broker that tests share; for those that neither stop nor kill it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&run_dir().join("kafka")).expect("the shared broker starts"))
    }

    /// Starts a broker on `dir`, new or used before.
    ///
    /// # Errors
    /// When it does not come up; with its log.
    pub fn start(dir: &Path) -> Result<Self> {
        Self::start_with(dir, Vec::new())
    }

    /// The same, for a broker that asks user `firn` for the password `secret`, over TLS; its authority is `ca.pem` in
    /// `dir`.
    ///
    /// # Errors
    /// When it does not come up; with its log.
    pub fn start_secured(dir: &Path) -> Result<Self> {
        let login = [
            ("security.protocol", "sasl_ssl".to_owned()),
            ("sasl.mechanism", "PLAIN".to_owned()),
            ("sasl.username", "firn".to_owned()),
            ("sasl.password", "secret".to_owned()),
            ("ssl.ca.location", dir.join("ca.pem").display().to_string()),
        ];
        Self::start_with(dir, login.into())
    }

    fn start_with(dir: &Path, login: Vec<(&'static str, String)>) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let process = Self::launch(dir, &login)?;
        let broker = fs::read_to_string(dir.join("broker"))?.trim().to_owned();
        // `./test` tells which broker ran.
        fs::write(run_dir().with_file_name("broker"), &broker)?;
        let brokers = fs::read_to_string(dir.join("address"))?.trim().to_owned();
        Ok(Self { dir: dir.to_path_buf(), brokers, broker, login, process: Mutex::new(Some(process)) })
    }

    fn launch(dir: &Path, login: &[(&'static str, String)]) -> Result<Process> {
        let mut command = Command::new(source_dir().join("localstack/kafka/start"));
        command.arg("--dir").arg(dir);
        if !dir.join("address").exists() {
            command.arg("--port").arg(free_port().to_string()).arg("--controller").arg(free_port().to_string());
        }
        if !login.is_empty() {
            command.arg("--secured");
        }
        let mut process = Process::start("kafka", command, &dir.join("log"))?;
        process.ready(|| {
            let address = fs::read_to_string(dir.join("address")).ok()?;
            let port = address.trim().rsplit_once(':')?.1.parse().ok()?;
            if !listens(port) {
                return None;
            }
            let probe: BaseConsumer = client(address.trim(), login).set("log_level", "0").create().ok()?;
            let metadata = probe.fetch_metadata(None, PROBE).ok()?;
            (!metadata.brokers().is_empty()).then_some(())
        })?;
        Ok(process)
    }

    /// `host:port`.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Name and version of what runs, such as `kafka 4.4.0`.
    pub fn broker(&self) -> &str {
        &self.broker
    }

    /// Whether this is Apache Kafka, and not the stand-in.
    pub fn is_apache(&self) -> bool {
        self.broker.starts_with("kafka ")
    }

    /// SIGKILL.
    pub fn kill(&self) {
        *self.process.lock().expect("no test panics while it restarts the broker") = None;
    }

    /// Starts it again where [`Kafka::kill`] left it.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart(&self) -> Result<()> {
        self.kill();
        *self.process.lock().expect("no test panics while it restarts the broker") =
            Some(Self::launch(&self.dir, &self.login)?);
        Ok(())
    }

    fn config(&self) -> ClientConfig {
        let mut config = client(&self.brokers, &self.login);
        config.set("log_level", "2");
        config
    }

    /// Creates a topic with its settings and waits until the broker serves it.
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn create_topic(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) -> Result<()> {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            new = new.set(key, value);
        }
        self.administer(async |admin, options| admin.create_topics([&new], options).await)?;
        self.await_partitions(topic, partitions)
    }

    /// Deletes a topic and waits until it is gone.
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn delete_topic(&self, topic: &str) -> Result<()> {
        self.administer(async |admin, options| admin.delete_topics(&[topic], options).await)?;
        self.await_partitions(topic, 0)
    }

    /// Raises the number of partitions to `count`.
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn add_partitions(&self, topic: &str, count: i32) -> Result<()> {
        let wider = NewPartitions::new(topic, count as usize);
        self.administer(async |admin, options| admin.create_partitions([&wider], options).await)?;
        self.await_partitions(topic, count)
    }

    /// Asks for a change of topics until the broker makes or refuses it. A broker that stalled for as long as its session
    /// lasts knows for a moment of no broker, not even itself, and cannot place a partition.
    fn administer(&self, ask: impl AsyncFn(&Admin, &AdminOptions) -> KafkaResult<Vec<TopicResult>>) -> Result<()> {
        let (admin, options): (Admin, _) = (self.config().create()?, options());
        until("the broker has room for a partition", || match block_on(ask(&admin, &options)) {
            Err(error) => Some(Err(error.into())),
            Ok(answers) => match answers.into_iter().find_map(Result::err) {
                None => Some(Ok(())),
                Some((_, RDKafkaErrorCode::InvalidReplicationFactor)) => None,
                Some((topic, code)) => Some(Err(anyhow::anyhow!("{topic}: {code}"))),
            },
        })?
    }

    fn await_partitions(&self, topic: &str, count: i32) -> Result<()> {
        let probe: BaseConsumer = self.config().create()?;
        until(&format!("{topic} has {count} partitions"), || {
            let metadata = probe.fetch_metadata(None, PATIENCE).ok()?;
            let found = metadata.topics().iter().find(|t| t.name() == topic);
            let have = found.map_or(0, |t| t.partitions().iter().filter(|p| p.leader() >= 0).count());
            (have == count as usize).then_some(())
        })
    }

    /// Lets the broker forget every offset of the partition below `before`, as retention does.
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) -> Result<()> {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, Offset::Offset(before))?;
        let admin: Admin = self.config().create()?;
        let done = block_on(admin.delete_records(&offsets, &options()))?;
        Ok(done.elements().iter().try_for_each(TopicPartitionListElem::error)?)
    }

    /// First and one past the last offset of every partition.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn offsets(&self, topic: &str) -> Result<BTreeMap<u32, (u64, u64)>> {
        let probe: BaseConsumer = self.config().create()?;
        let metadata = probe.fetch_metadata(Some(topic), PATIENCE)?;
        let partitions = metadata.topics().first().context("the topic is known")?.partitions();
        partitions
            .iter()
            .map(|p| {
                let (low, high) = probe.fetch_watermarks(topic, p.id(), PATIENCE)?;
                Ok((p.id() as u32, (low as u64, high as u64)))
            })
            .collect()
    }

    /// Produces the records in order and waits until the broker has them all.
    ///
    /// # Errors
    /// The first delivery that failed.
    pub fn produce(&self, topic: &str, records: impl IntoIterator<Item = Record>) -> Result<()> {
        let producer = self.producer(&[("linger.ms", "5")])?;
        send(&producer, topic, records)?;
        finish(&producer)
    }

    /// Produces each group of records in one transaction, committed or aborted as told.
    ///
    /// # Errors
    /// The first delivery or transaction step that failed.
    pub fn produce_transactions(
        &self,
        topic: &str,
        groups: impl IntoIterator<Item = (Vec<Record>, Outcome)>,
    ) -> Result<()> {
        let producer = self.producer(&[("transactional.id", &uuid::Uuid::new_v4().to_string()), TRANSACTION])?;
        producer.init_transactions(PATIENCE)?;
        for (records, outcome) in groups {
            producer.begin_transaction()?;
            send(&producer, topic, records)?;
            finish(&producer)?;
            match outcome {
                Outcome::Commit => producer.commit_transaction(PATIENCE)?,
                Outcome::Abort => producer.abort_transaction(PATIENCE)?,
            }
        }
        Ok(())
    }

    /// Produces records in a transaction and leaves it open.
    ///
    /// # Errors
    /// The first delivery or transaction step that failed.
    pub fn open_transaction(&self, topic: &str, records: Vec<Record>) -> Result<OpenTransaction> {
        let producer = self.producer(&[("transactional.id", &uuid::Uuid::new_v4().to_string()), TRANSACTION])?;
        producer.init_transactions(PATIENCE)?;
        producer.begin_transaction()?;
        send(&producer, topic, records)?;
        finish(&producer)?;
        Ok(OpenTransaction(producer))
    }

    /// Lets the last byte of what a partition holds rot on the broker's disk.
    ///
    /// # Errors
    /// When there is no such file, as with any broker but Apache Kafka.
    pub fn damage(&self, topic: &str, partition: i32) -> Result<Damaged> {
        let file = self.dir.join(format!("data/{topic}-{partition}/{:020}.log", 0));
        let length = fs::metadata(&file).with_context(|| format!("no log {}", file.display()))?.len();
        let damaged = Damaged { file, at: length.checked_sub(1).context("nothing is there to rot")? };
        damaged.flip()?;
        Ok(damaged)
    }

    fn producer(&self, settings: &[(&str, &str)]) -> Result<BaseProducer<Deliveries>> {
        let mut config = self.config();
        config.set("enable.idempotence", "true").set("compression.type", "lz4");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        Ok(config.create_with_context(Deliveries::default())?)
    }
}

fn client(brokers: &str, login: &[(&'static str, String)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    for (property, value) in login {
        config.set(*property, value);
    }
    config
}

/// A transaction that is not over.
pub struct OpenTransaction(BaseProducer<Deliveries>);

impl OpenTransaction {
    /// Ends it.
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn commit(self) -> Result<()> {
        Ok(self.0.commit_transaction(PATIENCE)?)
    }
}

/// A byte that is not what the producer sent.
#[derive(Debug)]
pub struct Damaged {
    file: PathBuf,
    at: u64,
}

impl Damaged {
    fn flip(&self) -> Result<()> {
        use std::os::unix::fs::FileExt;
        let file = fs::File::options().read(true).write(true).open(&self.file)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, self.at)?;
        Ok(file.write_all_at(&[byte[0] ^ 0x40], self.at)?)
    }

    /// Makes it what it was.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn repair(self) -> Result<()> {
        self.flip()
    }
}

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its records count.
    Commit,
    /// Its records take offsets and are never seen.
    Abort,
}

fn send(producer: &BaseProducer<Deliveries>, topic: &str, records: impl IntoIterator<Item = Record>) -> Result<()> {
    for record in records {
        let mut message = BaseRecord::<[u8], [u8]>::to(topic);
        message.partition = record.partition;
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        message.timestamp = record.timestamp;
        if !record.headers.is_empty() {
            let headers = OwnedHeaders::new();
            let insert = |all: OwnedHeaders, (key, value): &(String, Option<Vec<u8>>)| {
                all.insert(Header { key, value: value.as_ref() })
            };
            message.headers = Some(record.headers.iter().fold(headers, insert));
        }
        while let Err((error, back)) = producer.send(message) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                bail!("cannot produce to {topic}: {error}");
            }
            producer.poll(Duration::from_millis(10));
            message = back;
        }
    }
    Ok(())
}

fn finish(producer: &BaseProducer<Deliveries>) -> Result<()> {
    producer.flush(PATIENCE)?;
    match producer.context().0.lock().expect("no delivery panics").take() {
        None => Ok(()),
        Some(error) => bail!("a record was not delivered: {error}"),
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}

/// Runs a future to its end, on a runtime of its own.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be built").block_on(future)
}
