//! How long topics keep records, as the broker says and as the operator believes.

use std::collections::BTreeMap;
use std::time::Duration;

use firn_shared::config::domain::Ingestion;
use firn_shared::error::{Error, Result};
use firn_shared::ids::Topic;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;

use crate::kafka::PATIENCE;

/// The retention of topics; one without bound, or that the broker does not tell, is not in the answer.
///
/// # Errors
/// `Unavailable`, with the cluster's answer.
pub async fn retention(client: &ClientConfig, topics: &[Topic]) -> Result<BTreeMap<Topic, Duration>> {
    let failed = |e| Error::unavailable("cannot ask for the topics' retention").with_source(e);
    if topics.is_empty() {
        return Ok(BTreeMap::new());
    }
    let admin: AdminClient<DefaultClientContext> = client.create().map_err(failed)?;
    let wanted: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic.as_str())).collect();
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let answers = admin.describe_configs(&wanted, &options).await.map_err(failed)?;
    // In the order of the question.
    let known = topics.iter().zip(answers).filter_map(|(topic, answer)| {
        let millis: u64 = answer.ok()?.get("retention.ms")?.value.as_ref()?.parse().ok()?;
        Some((topic.clone(), Duration::from_millis(millis)))
    });
    Ok(known.collect())
}

/// What is wrong with the operator's belief: a topic that keeps records for a shorter time. Pure.
#[must_use]
pub fn too_short(ingestion: &Ingestion, known: &BTreeMap<Topic, Duration>) -> Option<String> {
    let believed = ingestion.retention?;
    let (topic, kept) = known.iter().find(|(_, kept)| **kept < believed)?;
    Some(format!(
        "topic {topic} keeps records for {} s, the pipeline's retention says {} s; correct one of them",
        kept.as_secs(),
        believed.as_secs()
    ))
}
