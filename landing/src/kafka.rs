//! Clients of a cluster: their properties, and questions about topics that need no group.

use std::collections::{BTreeMap, BTreeSet};
use std::net::ToSocketAddrs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use firn_shared::config::domain::{Brokers, Cluster, Ingestion, TopicSelector};
use firn_shared::error::{Error, Result};
use firn_shared::ids::{ClusterName, Offset, Partition, Topic};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, Offset as KafkaOffset, TopicPartitionList};

use crate::memory::Shares;
use crate::topic_id::topic_ids;

/// How long a question to a broker may take.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// How long the question for an end may take that is asked again and again.
const END_PATIENCE: Duration = Duration::from_secs(3);
/// How long the question for topic ids may take; the connection is there already.
const ID_PATIENCE: Duration = Duration::from_secs(2);
/// Events of the library that are looked at after a failure.
const EVENTS_MAX: usize = 32;
/// How long it is not asked again when there was no answer.
const ID_SILENCE: Duration = Duration::from_mins(1);

/// The properties every client of a cluster has.
///
/// # Errors
/// `Unavailable` when the cluster's DNS name does not resolve.
pub fn client(name: &ClusterName, cluster: &Cluster) -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers(name, &cluster.brokers)?);
    config.set("client.id", "firn-landing");
    for (property, value) in &cluster.properties {
        config.set(property, value);
    }
    for (property, value) in &cluster.security {
        config.set(property, value.expose());
    }
    Ok(config)
}

fn brokers(name: &ClusterName, brokers: &Brokers) -> Result<String> {
    match brokers {
        Brokers::List(list) => Ok(list.join(",")),
        Brokers::Dns { name: host, port } => {
            let found: BTreeSet<String> = (host.as_str(), *port)
                .to_socket_addrs()
                .map_err(|e| Error::unavailable(format!("cannot resolve {host} of cluster {name}")).with_source(e))?
                .map(|address| address.to_string())
                .collect();
            if found.is_empty() {
                return Err(Error::unavailable(format!("{host} of cluster {name} resolves to no address")));
            }
            Ok(found.into_iter().collect::<Vec<_>>().join(","))
        }
    }
}

/// What a member has unless the cluster's properties say something else.
const DEFAULTS: [(&str, &str); 6] = [
    ("topic.metadata.refresh.interval.ms", "60000"),
    ("fetch.wait.max.ms", "100"),
    ("session.timeout.ms", "30000"),
    ("socket.keepalive.enable", "true"),
    ("queued.min.messages", "100000"),
    // Else bytes that rotted on a broker's disk would land as if they were sound.
    ("check.crcs", "true"),
];

/// Adds what a member of the pipeline's group needs. What exactly-once rests on cannot be overridden.
pub fn member(config: &mut ClientConfig, group: &str, shares: &Shares) {
    for (property, value) in DEFAULTS {
        if config.get(property).is_none() {
            config.set(property, value);
        }
    }
    config
        .set("group.id", group)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A position outside the log is for the chain to explain, never for the library to repair.
        .set("auto.offset.reset", "error")
        .set("queued.max.messages.kbytes", (shares.queue >> 10).max(1).to_string())
        .set("fetch.message.max.bytes", (shares.fetch / 2).to_string())
        .set("fetch.max.bytes", shares.fetch.to_string())
        // About producing; but librdkafka wants it no larger than a fetch.
        .set("message.max.bytes", shares.fetch.min(1_000_000).to_string())
        // A record larger than a fetch still comes, alone: brokers always answer with one whole record batch.
        .set("receive.message.max.bytes", "1000000000");
}

/// Sends librdkafka's log to `tracing`, and keeps what it complained of last: a call that failed only says that it did.
#[derive(Debug, Clone, Default)]
pub struct Logged {
    complaint: Arc<Mutex<Option<Complaint>>>,
}

/// What librdkafka complained of.
#[derive(Debug)]
struct Complaint {
    reason: String,
    /// Whether the brokers refuse us, or we them, which no waiting changes.
    refusal: bool,
}

impl Logged {
    /// What it complained of last; once.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        self.take().map(|complaint| complaint.reason)
    }

    /// That something failed, for what it complained of meanwhile: `Config` for a login or a certificate that is refused,
    /// else `Unavailable`.
    fn failure(&self, what: String) -> Error {
        match self.take() {
            None => Error::unavailable(what),
            Some(Complaint { reason, refusal: true }) => Error::config(format!("{what}: {reason}")),
            Some(Complaint { reason, .. }) => Error::unavailable(format!("{what}: {reason}")),
        }
    }

    fn take(&self) -> Option<Complaint> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Whether an error of a client says that a login or a certificate is refused.
fn is_refusal(error: &KafkaError, reason: &str) -> bool {
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::UnsupportedSASLMechanism,
        ) => true,
        // A connection that breaks while TLS is agreed on has the same code.
        Some(RDKafkaErrorCode::SSL) => reason.contains("certificate") || reason.contains("unknown ca"),
        _ => false,
    }
}

impl ClientContext for Logged {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka client");
        let refusal = is_refusal(&error, reason);
        let mut complaint = self.complaint.lock().unwrap_or_else(PoisonError::into_inner);
        // What follows a refusal comes of it: no broker is left.
        if refusal || complaint.as_ref().is_none_or(|before| !before.refusal) {
            *complaint = Some(Complaint { reason: reason.to_owned(), refusal });
        }
    }
}
impl ConsumerContext for Logged {}

/// One line of librdkafka's log.
pub fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            // It recovers by itself or hands us an error, which decides.
            tracing::warn!(facility, "{message}");
        }
        RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => tracing::info!(facility, "{message}"),
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => tracing::debug!(facility, "{message}"),
    }
}

/// Which topics a pipeline reads, decided here and not by librdkafka, whose regular expressions are others.
#[derive(Debug, Clone)]
pub enum Selection {
    /// These.
    List(Vec<Topic>),
    /// All that match in full.
    Pattern(regex::Regex),
}

impl Selection {
    /// The selection of a pipeline.
    ///
    /// # Errors
    /// `Config` when the pattern cannot be read.
    pub fn of(ingestion: &Ingestion) -> Result<Self> {
        match &ingestion.topics {
            TopicSelector::List(topics) => Ok(Self::List(topics.clone())),
            TopicSelector::Pattern(text) => regex::Regex::new(&format!("^(?:{text})$"))
                .map(Self::Pattern)
                .map_err(|e| Error::config(format!("topic pattern `{text}` cannot be read")).with_source(e)),
        }
    }

    /// Whether a topic belongs to it. Internal topics never match a pattern.
    #[must_use]
    pub fn takes(&self, topic: &str) -> bool {
        match self {
            Self::List(topics) => topics.iter().any(|t| t.as_str() == topic),
            Self::Pattern(pattern) => !topic.starts_with("__") && pattern.is_match(topic),
        }
    }
}

/// Topics and their partitions.
pub type Topics = BTreeMap<Topic, BTreeSet<Partition>>;

/// Asks a cluster about topics; belongs to no group.
#[derive(Clone)]
pub struct Observer {
    /// Sees what a reader would.
    client: Arc<BaseConsumer<Logged>>,
    /// Sees open transactions too.
    log: Arc<BaseConsumer<Logged>>,
    ids: bool,
    silence: Arc<Mutex<Silence>>,
}

/// Until when nobody asks for topic ids, because the last question was not answered.
#[derive(Debug, Default)]
struct Silence {
    after_a_question: Option<Instant>,
    after_insisting: Option<Instant>,
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observer")
    }
}

impl Observer {
    /// A client that sees what a read-committed consumer would.
    ///
    /// # Errors
    /// `Config` when librdkafka refuses the properties.
    pub fn new(mut config: ClientConfig) -> Result<Self> {
        let mut client = |isolation: &str| {
            let client = config.set("isolation.level", isolation).create_with_context(Logged::default());
            client.map_err(|e| Error::config("librdkafka refuses the cluster's properties").with_source(e))
        };
        let (client, log) = (Arc::new(client("read_committed")?), Arc::new(client("read_uncommitted")?));
        Ok(Self { client, log, ids: true, silence: Arc::default() })
    }

    /// Whether it asks for topic ids at all.
    #[must_use]
    pub fn asking_for_ids(self, ids: bool) -> Self {
        Self { ids, ..self }
    }

    /// What went wrong, with what the library complained of meanwhile: a login that was refused, a certificate that is not
    /// trusted. It tells that only to those who poll.
    fn failed(&self, what: String, error: KafkaError) -> Error {
        self.listen();
        self.client.context().failure(what).with_source(error)
    }

    fn listen(&self) {
        for _ in 0..EVENTS_MAX {
            drop(self.client.poll(Duration::ZERO));
        }
    }

    /// Topics of the selection that exist, with their partitions. Blocks.
    ///
    /// # Errors
    /// `Unavailable`, with the cluster's answer; `Config` when it refuses us.
    pub fn topics(&self, selection: &Selection) -> Result<Topics> {
        let metadata = self
            .client
            .fetch_metadata(None, PATIENCE)
            .map_err(|e| self.failed("cannot list the cluster's topics".to_owned(), e))?;
        // What was complained of before this answer is over.
        self.listen();
        drop(self.client.context().take());
        let chosen = metadata.topics().iter().filter(|t| t.error().is_none() && selection.takes(t.name()));
        chosen
            .map(|topic| {
                let partitions = topic.partitions().iter().map(|p| Partition(p.id() as u32)).collect();
                Ok((Topic::new(topic.name())?, partitions))
            })
            .collect()
    }

    /// Whether there is such a topic; `false` only when the cluster says that there is none. Blocks.
    ///
    /// # Errors
    /// `Unavailable`, with the cluster's answer; `Config` when it refuses us.
    pub fn exists(&self, topic: &Topic) -> Result<bool> {
        let metadata = self
            .client
            .fetch_metadata(Some(topic.as_str()), PATIENCE)
            .map_err(|e| self.failed(format!("cannot ask for topic {topic}"), e))?;
        let said = metadata.topics().iter().find(|found| found.name() == topic.as_str());
        let unknown = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
        Ok(said.and_then(MetadataTopic::error) != Some(unknown))
    }

    /// First offset held and end (the last stable offset) of a partition. Blocks.
    ///
    /// # Errors
    /// `Unavailable`, with the cluster's answer; `Config` when it refuses us.
    pub fn bounds(&self, topic: &Topic, partition: Partition) -> Result<(Offset, Offset)> {
        self.ask(&self.client, topic, partition, PATIENCE)
    }

    /// The last stable offset, for those who ask again soon and want a partition without leader to keep nobody waiting.
    /// Blocks.
    ///
    /// # Errors
    /// `Unavailable`, with the cluster's answer; `Config` when it refuses us.
    pub fn end(&self, topic: &Topic, partition: Partition) -> Result<Offset> {
        self.ask(&self.client, topic, partition, END_PATIENCE).map(|(_, end)| end)
    }

    /// The end of a partition with what belongs to transactions that are not over: the high watermark. Blocks.
    ///
    /// # Errors
    /// `Unavailable`, with the cluster's answer; `Config` when it refuses us.
    pub fn log_end(&self, topic: &Topic, partition: Partition) -> Result<Offset> {
        self.ask(&self.log, topic, partition, END_PATIENCE).map(|(_, high)| high)
    }

    fn ask(
        &self,
        client: &BaseConsumer<Logged>,
        topic: &Topic,
        partition: Partition,
        patience: Duration,
    ) -> Result<(Offset, Offset)> {
        let (low, high) = client
            .fetch_watermarks(topic.as_str(), partition.0 as i32, patience)
            .map_err(|e| self.failed(format!("cannot ask for the offsets of {topic}[{partition}]"), e))?;
        Ok((low.max(0) as Offset, high.max(0) as Offset))
    }

    /// Of each of these partitions, which offsets end those that are older than a time (milliseconds): the first offset
    /// whose record is not, else the partition's end. Partitions that do not answer are left out. Blocks.
    ///
    /// # Errors
    /// `Unavailable`, when none answers.
    pub fn ends_of_old(&self, asked: &[(Topic, Partition, i64)]) -> Result<BTreeMap<(Topic, Partition), Offset>> {
        let failed = |e| self.failed("cannot ask for the offsets of a time".to_owned(), e);
        let all = match self.offsets_at(asked, PATIENCE) {
            Ok(all) => all,
            Err(error) => {
                // One partition without leader spoils the answer for all.
                let each = asked.iter().map(|one| self.offsets_at(std::slice::from_ref(one), ID_PATIENCE));
                let answers: Vec<_> = each.filter_map(std::result::Result::ok).flatten().collect();
                if answers.is_empty() {
                    return Err(failed(error));
                }
                answers
            }
        };
        let ends = all.into_iter().filter_map(|(topic, partition, offset)| {
            let end = match offset {
                KafkaOffset::Offset(offset) => offset.max(0) as Offset,
                KafkaOffset::End => self.end(&topic, partition).ok()?,
                _ => return None,
            };
            Some(((topic, partition), end))
        });
        Ok(ends.collect())
    }

    fn offsets_at(
        &self,
        asked: &[(Topic, Partition, i64)],
        patience: Duration,
    ) -> KafkaResult<Vec<(Topic, Partition, KafkaOffset)>> {
        let mut times = TopicPartitionList::new();
        for (topic, partition, millis) in asked {
            times.add_partition_offset(topic.as_str(), partition.0 as i32, KafkaOffset::Offset(*millis))?;
        }
        let answer = self.client.offsets_for_times(times, patience)?;
        let told = answer.elements().into_iter().filter(|element| element.error().is_ok()).filter_map(|element| {
            Some((Topic::new(element.topic()).ok()?, Partition(element.partition() as u32), element.offset()))
        });
        Ok(told.collect())
    }

    /// Kafka's ids of topics, as far as the brokers tell. Blocks, briefly: brokers that know no ids do not answer at all,
    /// and are not asked again for a while.
    #[must_use]
    pub fn topic_ids(&self, topics: &[Topic]) -> BTreeMap<Topic, String> {
        self.ids_within(topics, ID_PATIENCE, |silence| &mut silence.after_a_question)
    }

    /// The id of one topic, for those who know that the brokers have told it before: a loaded broker gets more time.
    #[must_use]
    pub fn insist_on_id(&self, topic: &Topic) -> Option<String> {
        self.ids_within(std::slice::from_ref(topic), PATIENCE, |silence| &mut silence.after_insisting).remove(topic)
    }

    fn ids_within(
        &self,
        topics: &[Topic],
        patience: Duration,
        after: impl Fn(&mut Silence) -> &mut Option<Instant>,
    ) -> BTreeMap<Topic, String> {
        let silence = || self.silence.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.ids || after(&mut silence()).is_some_and(|until| Instant::now() < until) {
            return BTreeMap::new();
        }
        let ids = topic_ids(self.client.client(), topics, patience);
        *after(&mut silence()) = ids.is_none().then(|| Instant::now() + ID_SILENCE);
        ids.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use firn_shared::error::ErrorKind;

    use super::*;

    #[test]
    fn a_pattern_matches_in_full_and_never_internal_topics() {
        let pattern = Selection::Pattern(regex::Regex::new("^(?:a|b.*)$").unwrap());
        let taken: Vec<_> = ["a", "ab", "b", "bc", "__b", "cb"].into_iter().filter(|t| pattern.takes(t)).collect();
        assert_eq!(taken, ["a", "b", "bc"]);
    }

    #[test]
    fn what_a_member_sets_itself_is_refused_in_properties() {
        let mut config = ClientConfig::new();
        member(&mut config, "g", &Shares::of(512_000_000, 1).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("firn.yaml");
        for (property, value) in config.config_map() {
            let firn = format!(
                "clusters:\n  c: {{brokers: 'a:1', properties: {{{property}: '{value}'}}}}\nraw: /r\nwarehouse: /w\n\
                 catalog: {{sqlite: {{path: c.db}}}}\n"
            );
            std::fs::write(&file, firn).unwrap();
            let problems =
                firn_shared::config::load(&file, &[]).map_or_else(|problems| problems.to_string(), |_| String::new());
            let free = DEFAULTS.iter().any(|(default, _)| *default == property);
            assert_eq!(problems.contains("cannot be set here"), !free, "{property}: {problems}");
        }
    }

    #[test]
    fn a_refused_login_is_for_a_person_and_a_broker_that_is_away_for_later() {
        let global = KafkaError::Global;
        let logged = Logged::default();
        let told = |events: &[(KafkaError, &str)]| {
            for (error, reason) in events {
                ClientContext::error(&logged, error.clone(), reason);
            }
            let failed = logged.failure("cannot list the cluster's topics".to_owned());
            (failed.kind(), failed.to_string())
        };
        let down = (global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        let refused = (global(RDKafkaErrorCode::Authentication), "SASL authentication error: Authentication failed");
        let stranger = (global(RDKafkaErrorCode::SSL), "SSL handshake failed: certificate verify failed");
        let cut = (global(RDKafkaErrorCode::SSL), "SSL handshake failed: Disconnected");
        let listing = |why: &str| format!("cannot list the cluster's topics{why}");
        assert_eq!(told(&[]), (ErrorKind::Unavailable, listing("")));
        assert_eq!(told(std::slice::from_ref(&down)), (ErrorKind::Unavailable, listing(": 1/1 brokers are down")));
        // That all brokers are down is what comes of it.
        let expected = listing(": SASL authentication error: Authentication failed");
        assert_eq!(told(&[refused, down.clone()]), (ErrorKind::Config, expected));
        let expected = listing(": SSL handshake failed: certificate verify failed");
        assert_eq!(told(&[stranger, down]), (ErrorKind::Config, expected));
        assert_eq!(told(&[cut]), (ErrorKind::Unavailable, listing(": SSL handshake failed: Disconnected")));
    }

    #[test]
    fn a_cluster_s_security_becomes_librdkafka_s_properties_and_exactly_once_cannot_be_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let firn = "clusters:\n  c:\n    brokers: ['a:1', 'b:2']\n    \
                    security: {protocol: saslSsl, mechanism: scramSha256, username: u, password: p, caFile: ca.pem, \
                    certFile: cert.pem, keyFile: key.pem, keyPassword: q}\n    \
                    properties: {session.timeout.ms: '9000', fetch.wait.max.ms: '7'}\n\
                    raw: /r\nwarehouse: /w\ncatalog: {sqlite: {path: c.db}}\n";
        std::fs::write(dir.path().join("firn.yaml"), firn).unwrap();
        let config = firn_shared::config::load(&dir.path().join("firn.yaml"), &[]);
        let config = config.unwrap_or_else(|problems| panic!("{problems}"));
        let (name, cluster) = config.deployment.clusters.first_key_value().unwrap();
        let mut client = client(name, cluster).unwrap();
        let file = |name: &str| dir.path().join(name).display().to_string();
        for (property, expected) in [
            ("bootstrap.servers", "a:1,b:2".to_owned()),
            ("security.protocol", "sasl_ssl".to_owned()),
            ("sasl.mechanism", "SCRAM-SHA-256".to_owned()),
            ("sasl.username", "u".to_owned()),
            ("sasl.password", "p".to_owned()),
            ("ssl.ca.location", file("ca.pem")),
            ("ssl.certificate.location", file("cert.pem")),
            ("ssl.key.location", file("key.pem")),
            ("ssl.key.password", "q".to_owned()),
        ] {
            assert_eq!(client.get(property), Some(expected.as_str()), "{property}");
        }
        let shares = Shares::of(512_000_000, 1).unwrap();
        client.set("isolation.level", "read_uncommitted").set("enable.auto.commit", "true");
        member(&mut client, "g", &shares);
        for (property, expected) in [
            ("check.crcs", "true"),
            ("session.timeout.ms", "9000"),
            ("fetch.wait.max.ms", "7"),
            ("isolation.level", "read_committed"),
            ("enable.auto.commit", "false"),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("group.id", "g"),
        ] {
            assert_eq!(client.get(property), Some(expected), "{property}");
        }
    }
}
