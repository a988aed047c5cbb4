//! Every metric of landing, in one place: `landing_<noun>_<unit>[_total]`.
//!
//! Labels are bounded by the configuration and the topics' partitions. Counters move once per batch, not per record.

use firn_shared::crypto::Used;
use firn_shared::error::{Error, Result};
use firn_shared::ids::{PartitionRef, PipelineName};
use firn_shared::raw::manifest::BatchManifest;
use prometheus::core::{Atomic, GenericCounterVec, GenericGaugeVec};
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::rotate::Cause;

/// Labels of one partition.
const PARTITION: [&str; 4] = ["pipeline", "cluster", "topic", "partition"];

/// The metrics of one daemon.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    records: IntCounterVec,
    rejects: IntCounterVec,
    absent: IntCounterVec,
    gaps: IntCounterVec,
    batches: IntCounterVec,
    sealed: IntCounterVec,
    objects: IntCounterVec,
    object_bytes: IntCounterVec,
    raw_bytes: IntCounterVec,
    chain_end: IntGaugeVec,
    read_end: IntGaugeVec,
    kafka_end: IntGaugeVec,
    lag: IntGaugeVec,
    watermark: IntGaugeVec,
    expiring: IntGaugeVec,
    stopped: IntGaugeVec,
    failures: IntCounterVec,
    kafka_errors: IntCounterVec,
    paused: IntGaugeVec,
    key_values: IntGaugeVec,
    buffer_bytes: IntGauge,
    buffer_peak_bytes: IntGauge,
}

impl Metrics {
    /// Metrics in a registry of their own.
    ///
    /// # Errors
    /// `Bug` when two have one name.
    pub fn new() -> Result<Self> {
        let registry = Registry::new();
        let r = &registry;
        Ok(Self {
            records: counter(r, "landing_records_total", "records written to raw objects", &PARTITION)?,
            rejects: counter(
                r,
                "landing_rejects_total",
                "records written to quarantine objects",
                &["pipeline", "cluster", "topic", "reason"],
            )?,
            absent: counter(r, "landing_absent_offsets_total", "offsets that hold no record", &PARTITION)?,
            gaps: counter(
                r,
                "landing_gap_offsets_total",
                "offsets Kafka no longer held when they were due",
                &PARTITION,
            )?,
            batches: counter(r, "landing_batches_total", "manifests appended", &PARTITION)?,
            sealed: counter(r, "landing_rotations_total", "batches closed", &["pipeline", "cause"])?,
            objects: counter(r, "landing_objects_total", "objects uploaded", &["pipeline"])?,
            object_bytes: counter(r, "landing_object_bytes_total", "compressed bytes uploaded", &["pipeline"])?,
            raw_bytes: counter(r, "landing_line_bytes_total", "bytes of lines before compression", &["pipeline"])?,
            chain_end: gauge(r, "landing_chain_end_offset", "first offset that is not in the raw zone", &PARTITION)?,
            read_end: gauge(r, "landing_read_end_offset", "first offset that has not been read yet", &PARTITION)?,
            kafka_end: gauge(r, "landing_kafka_end_offset", "end of the partition in Kafka", &PARTITION)?,
            lag: gauge(r, "landing_lag_offsets", "offsets in Kafka that are not in the raw zone", &PARTITION)?,
            watermark: gauge(r, "landing_watermark_seconds", "largest event time, seconds since 1970", &PARTITION)?,
            expiring: gauge(
                r,
                "landing_expiring_partitions",
                "1 when unread data is older than three quarters of the topic's retention",
                &PARTITION,
            )?,
            stopped: gauge(
                r,
                "landing_stopped_partitions",
                "1 when the partition is not read until an operator acts",
                &PARTITION,
            )?,
            failures: counter(
                r,
                "landing_failures_total",
                "consumers started again, by kind of error",
                &["pipeline", "kind"],
            )?,
            kafka_errors: counter(
                r,
                "landing_kafka_errors_total",
                "errors that the client of kafka told and went on from, by code",
                &["pipeline", "error"],
            )?,
            paused: gauge(r, "landing_paused_partitions", "partitions paused for memory", &["pipeline", "consumer"])?,
            key_values: gauge(
                r,
                "landing_key_values",
                "values that all processes have taken of the version in use, of 2^32",
                &["key"],
            )?,
            buffer_bytes: single(r, "landing_buffer_bytes", "bytes of records, lines and objects in memory")?,
            buffer_peak_bytes: single(r, "landing_buffer_peak_bytes", "the most bytes ever buffered")?,
            registry,
        })
    }

    /// The text form Prometheus scrapes; `used` and `peak` are the bytes buffered now and at most.
    ///
    /// # Errors
    /// `Bug` when a metric cannot be written.
    pub fn render(&self, used: u64, peak: u64) -> Result<String> {
        self.buffer_bytes.set(used as i64);
        self.buffer_peak_bytes.set(peak as i64);
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .map_err(|e| Error::bug("cannot write the metrics").with_source(e))
    }

    /// How much the keys in use have sealed.
    pub fn keys(&self, used: &[Used]) {
        for of in used {
            self.key_values.with_label_values(&[of.key.as_str()]).set(of.values as i64);
        }
    }

    /// The metrics of one partition.
    #[must_use]
    pub fn partition(&self, pipeline: &PipelineName, partition: &PartitionRef) -> PartitionMetrics {
        let labels = [
            pipeline.to_string(),
            partition.topic.cluster.to_string(),
            partition.topic.topic.to_string(),
            partition.partition.to_string(),
        ];
        PartitionMetrics { metrics: self.clone(), labels }
    }

    /// A consumer was given up and is started again.
    pub fn failed(&self, pipeline: &PipelineName, kind: &str) {
        self.failures.with_label_values(&[pipeline.as_str(), kind]).inc();
    }

    /// Kafka's client told an error and goes on by itself.
    pub fn kafka_error(&self, pipeline: &PipelineName, error: &str) {
        self.kafka_errors.with_label_values(&[pipeline.as_str(), error]).inc();
    }

    /// Partitions of a consumer that are paused.
    pub fn paused(&self, pipeline: &PipelineName, consumer: usize, partitions: usize) {
        self.paused.with_label_values(&[pipeline.as_str(), &consumer.to_string()]).set(partitions as i64);
    }
}

/// The metrics of one partition.
#[derive(Debug, Clone)]
pub struct PartitionMetrics {
    metrics: Metrics,
    labels: [String; 4],
}

impl PartitionMetrics {
    fn count(&self, counter: &IntCounterVec, by: u64) {
        counter.with_label_values(&self.labels).inc_by(by);
    }

    fn set(&self, gauge: &IntGaugeVec, to: i64) {
        gauge.with_label_values(&self.labels).set(to);
    }

    /// A batch was closed.
    pub fn sealed(&self, cause: Cause) {
        self.metrics.sealed.with_label_values(&[self.labels[0].as_str(), cause.as_str()]).inc();
    }

    /// A manifest was appended.
    pub fn appended(&self, manifest: &BatchManifest) {
        let m = &self.metrics;
        self.count(&m.records, manifest.records());
        self.count(&m.absent, manifest.absent);
        self.count(&m.gaps, manifest.gap_offsets());
        self.count(&m.batches, 1);
        for (reason, records) in &manifest.rejects {
            let [pipeline, cluster, topic, _] = &self.labels;
            let labels = [pipeline.as_str(), cluster.as_str(), topic.as_str(), reason.as_str()];
            m.rejects.with_label_values(&labels).inc_by(*records);
        }
        let objects = || manifest.objects.iter().chain(&manifest.quarantine);
        let pipeline = [self.labels[0].as_str()];
        m.objects.with_label_values(&pipeline).inc_by(objects().count() as u64);
        m.object_bytes.with_label_values(&pipeline).inc_by(objects().map(|o| o.bytes).sum());
        m.raw_bytes.with_label_values(&pipeline).inc_by(objects().map(|o| o.raw_bytes).sum());
        self.set(&m.chain_end, manifest.range.end() as i64);
        if let Some(watermark) = manifest.watermark {
            self.set(&m.watermark, watermark.timestamp());
        }
    }

    /// Kafka's end, the chain's, and how far the partition has been read.
    pub fn observed(&self, kafka_end: u64, chain_end: u64, read_end: u64) {
        self.set(&self.metrics.read_end, read_end as i64);
        self.set(&self.metrics.kafka_end, kafka_end as i64);
        self.set(&self.metrics.chain_end, chain_end as i64);
        self.set(&self.metrics.lag, kafka_end.saturating_sub(chain_end) as i64);
    }

    /// Whether unread data is about to expire; says whether that is news.
    pub fn expiring(&self, alarm: bool) -> bool {
        let before = self.metrics.expiring.with_label_values(&self.labels).get();
        self.set(&self.metrics.expiring, i64::from(alarm));
        alarm && before == 0
    }

    /// Takes back what was said of where the partition is: somebody else may have it now, and what nobody corrects would
    /// stay for ever. What was counted stays counted.
    pub fn forget(&self) {
        let m = &self.metrics;
        for gauge in [&m.chain_end, &m.read_end, &m.kafka_end, &m.lag, &m.watermark, &m.stopped] {
            // Never set, there is nothing to take back.
            let _ = gauge.remove_label_values(&self.labels);
        }
    }

    /// Whether the partition waits for an operator.
    pub fn stopped(&self, stopped: bool) {
        self.set(&self.metrics.stopped, i64::from(stopped));
    }
}

fn bug(error: prometheus::Error) -> Error {
    Error::bug("cannot register a metric").with_source(error)
}

fn counter<P: Atomic + 'static>(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<GenericCounterVec<P>> {
    let metric = GenericCounterVec::new(Opts::new(name, help), labels).map_err(bug)?;
    registry.register(Box::new(metric.clone())).map_err(bug)?;
    Ok(metric)
}

fn gauge<P: Atomic + 'static>(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<GenericGaugeVec<P>> {
    let metric = GenericGaugeVec::new(Opts::new(name, help), labels).map_err(bug)?;
    registry.register(Box::new(metric.clone())).map_err(bug)?;
    Ok(metric)
}

fn single(registry: &Registry, name: &str, help: &str) -> Result<IntGauge> {
    let metric = IntGauge::new(name, help).map_err(bug)?;
    registry.register(Box::new(metric.clone())).map_err(bug)?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use firn_shared::ids::Partition;

    use super::*;

    #[test]
    fn the_page_for_operators_has_every_metric_as_it_is() {
        let page = include_str!("../../docs/operations.md");
        let code = include_str!("metrics.rs").split("mod tests").next().unwrap();
        let calls = code.split_once("pub fn new()").unwrap().1.split(")?");
        let told = calls.filter_map(|call| {
            let literals: Vec<&str> = call.split('"').skip(1).step_by(2).collect();
            let [name, help, labels @ ..] = literals.as_slice() else { return None };
            let labels = if call.contains("&PARTITION") { "of the partition".to_owned() } else { labels.join(", ") };
            name.starts_with("landing_").then(|| format!("| `{name}` | {help} | {labels} |\n"))
        });
        let told: String = told.collect::<Vec<_>>().concat();
        assert!(told.lines().count() > 20 && page.contains(&told), "docs/operations.md should say\n{told}");
    }

    #[test]
    fn a_partition_that_has_left_is_shown_no_more() {
        let metrics = Metrics::new().unwrap();
        let partition = |number| {
            let partition = PartitionRef { topic: "c/t/1".parse().unwrap(), partition: Partition(number) };
            metrics.partition(&PipelineName::new("p").unwrap(), &partition)
        };
        for partition in [partition(0), partition(1)] {
            partition.stopped(false);
            partition.observed(9, 5, 7);
        }
        partition(0).forget();
        partition(2).forget();
        let text = metrics.render(0, 0).unwrap();
        assert!(!text.contains("partition=\"0\""), "{text}");
        for name in ["chain_end_offset", "read_end_offset", "kafka_end_offset", "lag_offsets", "stopped_partitions"] {
            assert!(text.contains(&format!("landing_{name}{{cluster=\"c\",partition=\"1\"")), "{text}");
        }
    }

    #[test]
    fn what_is_set_is_shown() {
        let metrics = Metrics::new().unwrap();
        metrics.paused(&PipelineName::new("p").unwrap(), 0, 3);
        metrics.keys(&[Used { key: "people".parse().unwrap(), version: 2, values: 65_536, by_hand: true }]);
        let text = metrics.render(5, 9).unwrap();
        assert!(text.contains("landing_buffer_bytes 5\n") && text.contains("landing_buffer_peak_bytes 9\n"), "{text}");
        assert!(text.contains("landing_paused_partitions{consumer=\"0\",pipeline=\"p\"} 3\n"), "{text}");
        assert!(text.contains("landing_key_values{key=\"people\"} 65536\n"), "{text}");
    }
}
