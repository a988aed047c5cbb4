//! What the raw zone and Kafka say of each partition, side by side; belongs to no group and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use firn_shared::config::domain::{Config, Pipeline, TopicSelector};
use firn_shared::error::{Error, Result};
use firn_shared::ids::{Offset, Partition, PartitionRef, PipelineName, Topic, TopicRef};
use firn_shared::raw::chain::Chain;
use firn_shared::raw::progress;
use firn_shared::store::{Depth, Store};
use rdkafka::ClientConfig;
use serde::Serialize;

use crate::kafka::{self, Observer, Selection};
use crate::retention;
use crate::rivals::Rivals;

/// One partition.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionStatus {
    /// `cluster/topic/generation`.
    pub topic: String,
    /// The partition.
    pub partition: Partition,
    /// First offset Kafka holds.
    pub kafka_start: Offset,
    /// Kafka's end (last stable offset).
    pub kafka_end: Offset,
    /// First offset that is not in the raw zone; `None` when nothing was ever landed.
    pub chain_end: Option<Offset>,
    /// Offsets to go.
    pub lag: Offset,
    /// Largest event time landed.
    pub watermark: Option<DateTime<Utc>>,
    /// When everything Kafka held had been landed, at last.
    pub caught_up_at: Option<DateTime<Utc>>,
    /// Why nobody reads it until an operator acts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}

/// By pipeline.
pub type Status = BTreeMap<String, Vec<PartitionStatus>>;

/// Asks Kafka and the raw zone.
///
/// # Errors
/// `Config` for an unknown pipeline, else those of the cluster and the store.
pub async fn read(config: &Config, store: Arc<dyn Store>, only: Option<&PipelineName>) -> Result<Status> {
    if let Some(name) = only.filter(|name| !config.pipelines.contains_key(name)) {
        return Err(Error::config(format!("there is no pipeline {name}")));
    }
    let mut status = Status::new();
    for (name, pipeline) in config.pipelines.iter().filter(|(name, _)| only.is_none_or(|only| only == *name)) {
        let mut partitions = Vec::new();
        for (partition, low, high) in ask(config, pipeline).await? {
            partitions.push(of(&store, partition, low, high).await?);
        }
        status.insert(name.to_string(), partitions);
    }
    Ok(status)
}

async fn of(store: &Arc<dyn Store>, partition: PartitionRef, low: Offset, high: Offset) -> Result<PartitionStatus> {
    let end = Chain::new(Arc::clone(store), partition.clone()).end_after(None).await?;
    let said = progress::read(store.as_ref(), &partition).await?.unwrap_or_default();
    let caught_up_at = end.as_ref().and_then(|end| end.caught_up_at).max(said.caught_up_at);
    Ok(PartitionStatus {
        topic: partition.topic.to_string(),
        partition: partition.partition,
        kafka_start: low,
        kafka_end: high,
        chain_end: end.as_ref().map(|end| end.end),
        lag: high.saturating_sub(end.as_ref().map_or(low, |end| end.end.max(low))),
        watermark: end.and_then(|end| end.watermark),
        caught_up_at,
        stopped: said.stopped,
    })
}

async fn ask(config: &Config, pipeline: &Pipeline) -> Result<Vec<(PartitionRef, Offset, Offset)>> {
    let ingestion = pipeline.ingestion.clone();
    let client = client(config, pipeline)?;
    let answer = tokio::task::spawn_blocking(move || {
        let observer = Observer::new(client)?;
        let mut found = Vec::new();
        let topics = observer.topics(&Selection::of(&ingestion)?)?;
        for (topic, partitions) in &topics {
            for partition in partitions {
                let (low, high) = observer.bounds(topic, *partition)?;
                let (cluster, generation) = (ingestion.cluster.clone(), ingestion.generation.of(topic));
                let topic = TopicRef { cluster, topic: topic.clone(), generation };
                found.push((PartitionRef { topic, partition: *partition }, low, high));
            }
        }
        Ok(found)
    });
    answer.await.map_err(|e| Error::bug("a question to kafka panicked").with_source(e))?
}

fn client(config: &Config, pipeline: &Pipeline) -> Result<ClientConfig> {
    let name = &pipeline.ingestion.cluster;
    let cluster = config.deployment.clusters.get(name);
    kafka::client(name, cluster.ok_or_else(|| Error::config(format!("there is no cluster {name}")))?)
}

/// Checks what only servers can tell: the raw zone can be listed, the clusters answer, the topics exist, are read by one
/// pipeline each and keep records for as long as the pipeline says.
///
/// # Errors
/// `Config` with all that is wrong with topics, a line each; `Unavailable` for a server that does not answer.
pub async fn check(config: &Config, store: Arc<dyn Store>) -> Result<()> {
    let _ = store.list("", None, Depth::One).await?;
    let mut problems = Vec::new();
    for (name, pipeline) in &config.pipelines {
        let of_one = check_topics(config, pipeline).await?;
        problems.extend(of_one.into_iter().map(|problem| format!("pipeline {name}: {problem}")));
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::config(problems.join("\n"))) }
}

/// What is wrong with a pipeline's topics.
async fn check_topics(config: &Config, pipeline: &Pipeline) -> Result<Vec<String>> {
    let ingestion = &pipeline.ingestion;
    let found: BTreeSet<Topic> = ask(config, pipeline).await?.into_iter().map(|(p, ..)| p.topic.topic).collect();
    let missing: Vec<&str> = match &ingestion.topics {
        TopicSelector::List(topics) => {
            topics.iter().filter(|topic| !found.contains(topic)).map(Topic::as_str).collect()
        }
        TopicSelector::Pattern(pattern) => found.is_empty().then_some(pattern.as_str()).into_iter().collect(),
    };
    let missing = missing.iter().map(|topic| format!("cluster {} has no topic {topic}", ingestion.cluster));
    let mut problems: Vec<String> = missing.collect();
    let rivals = Rivals::of(config, &pipeline.name)?;
    problems.extend(found.iter().filter_map(|topic| rivals.claim(topic.as_str(), &pipeline.name)));
    let found: Vec<Topic> = found.into_iter().collect();
    let told = retention::retention(&client(config, pipeline)?, &found).await?;
    problems.extend(retention::too_short(ingestion, &told));
    for blind_spot in told.blind_spots(ingestion.retention) {
        tracing::warn!(pipeline = %pipeline.name, "{blind_spot}");
    }
    Ok(problems)
}

/// A table for people.
#[must_use]
pub fn table(status: &Status) -> String {
    let mut text = String::new();
    let time = |at: Option<DateTime<Utc>>| at.map_or_else(|| "-".to_owned(), |t| t.format("%FT%TZ").to_string());
    for (pipeline, partitions) in status {
        let _ = writeln!(text, "{pipeline}");
        let _ = writeln!(
            text,
            "  {:<40} {:>12} {:>12} {:>12}  {:<20}  caught up",
            "partition", "landed", "kafka", "lag", "watermark"
        );
        for p in partitions {
            let name = format!("{}[{}]", p.topic, p.partition);
            let landed = p.chain_end.map_or_else(|| "-".to_owned(), |end| end.to_string());
            let (watermark, caught_up) = (time(p.watermark), time(p.caught_up_at));
            let _ = writeln!(
                text,
                "  {name:<40} {landed:>12} {:>12} {:>12}  {watermark:<20}  {caught_up}",
                p.kafka_end, p.lag
            );
            if let Some(why) = &p.stopped {
                let _ = writeln!(text, "    stopped: {why}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_why_a_partition_stands_still() {
        let row = |number, stopped: Option<&str>| PartitionStatus {
            topic: "c/t/1".to_owned(),
            partition: Partition(number),
            kafka_start: 0,
            kafka_end: 9,
            chain_end: Some(5),
            lag: 4,
            watermark: None,
            caught_up_at: None,
            stopped: stopped.map(str::to_owned),
        };
        let text = table(&Status::from([("p".to_owned(), vec![row(0, Some("a person must act")), row(1, None)])]));
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert!(lines[0].starts_with("  c/t/1[0] ") && lines[2].starts_with("  c/t/1[1] "), "{text}");
        assert_eq!((lines[1], lines.len()), ("    stopped: a person must act", 3), "{text}");
    }
}
