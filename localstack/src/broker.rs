//! The in-process broker: librdkafka's mock cluster on a free port. It forgets everything when the process ends and keeps
//! about 5 MB a partition, which is enough for the sample.

use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::config::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

/// The running broker.
pub struct Broker(MockCluster<'static, DefaultProducerContext>);

impl Broker {
    /// Starts one broker with one topic.
    ///
    /// # Errors
    /// When librdkafka cannot.
    pub fn start(topic: &str, partitions: i32) -> Result<Self> {
        let cluster = MockCluster::new(1).context("cannot start the in-process broker")?;
        cluster.create_topic(topic, partitions, 1).with_context(|| format!("cannot create {topic}"))?;
        Ok(Self(cluster))
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        self.0.bootstrap_servers()
    }

    /// Produces `events` round robin over the partitions and tells `progress` after each.
    ///
    /// # Errors
    /// When a record is not taken.
    pub fn produce(&self, topic: &str, partitions: i32, events: &[&str], progress: impl Fn(u64)) -> Result<()> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address()).set("linger.ms", "5");
        let producer: BaseProducer = config.create()?;
        for (i, event) in events.iter().enumerate() {
            let record = BaseRecord::<(), str>::to(topic).partition(i as i32 % partitions).payload(event);
            producer.send(record).map_err(|(error, _)| error).with_context(|| format!("cannot produce event {i}"))?;
            producer.poll(Duration::ZERO);
            progress(i as u64 + 1);
        }
        producer.flush(Duration::from_secs(30)).context("the broker did not take every event")
    }
}
