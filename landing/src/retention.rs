//! How long topics keep records, as the broker says and as the operator believes.

use std::collections::BTreeMap;
use std::time::Duration;

use firn_shared::config::domain::Ingestion;
use firn_shared::error::{Error, Result};
use firn_shared::ids::Topic;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResourceResult, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;

use crate::kafka::PATIENCE;

/// What brokers say of topics.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// How long they keep records, those that do not keep them for ever.
    pub kept: BTreeMap<Topic, Duration>,
    /// Topics of which the broker does not tell, as to those who may not describe configurations.
    pub untold: Vec<Topic>,
}

impl Told {
    /// What it means that nothing is told of a topic of which the operator believes nothing either. Pure.
    pub fn blind_spots(&self, believed: Option<Duration>) -> impl Iterator<Item = String> {
        let untold = self.untold.iter().filter(move |_| believed.is_none());
        untold.map(|topic| {
            format!(
                "cannot tell how long {topic} keeps records: no alarm before unread data expires; allow DescribeConfigs on \
                 it, or write ingestionUnit.kafka.retention"
            )
        })
    }
}

/// The retention of topics.
///
/// # Errors
/// `Unavailable`, with the cluster's answer.
pub async fn retention(client: &ClientConfig, topics: &[Topic]) -> Result<Told> {
    let failed = |e| Error::unavailable("cannot ask for the topics' retention").with_source(e);
    let mut told = Told::default();
    if topics.is_empty() {
        return Ok(told);
    }
    let admin: AdminClient<DefaultClientContext> = client.create().map_err(failed)?;
    let wanted: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic.as_str())).collect();
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let answers = admin.describe_configs(&wanted, &options).await.map_err(failed)?;
    let millis = |answer: ConfigResourceResult| answer.ok()?.get("retention.ms")?.value.as_ref()?.parse::<i64>().ok();
    // In the order of the question.
    for (topic, answer) in topics.iter().zip(answers) {
        match millis(answer) {
            None => told.untold.push(topic.clone()),
            // Below zero is for ever.
            Some(millis) => {
                told.kept
                    .extend(u64::try_from(millis).ok().map(|millis| (topic.clone(), Duration::from_millis(millis))));
            }
        }
    }
    Ok(told)
}

/// What is wrong with the operator's belief: a topic that keeps records for a shorter time. Pure.
#[must_use]
pub fn too_short(ingestion: &Ingestion, told: &Told) -> Option<String> {
    let believed = ingestion.retention?;
    let (topic, kept) = told.kept.iter().find(|(_, kept)| **kept < believed)?;
    Some(format!(
        "topic {topic} keeps records for {} s, the pipeline's retention says {} s; correct one of them",
        kept.as_secs(),
        believed.as_secs()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_of_which_nobody_says_how_long_it_keeps_records_is_told() {
        let topic = |name: &str| Topic::new(name).unwrap();
        let kept = [(topic("a"), Duration::from_hours(1))].into();
        let told = Told { kept, untold: vec![topic("b")] };
        let blind: Vec<_> = told.blind_spots(None).collect();
        assert_eq!(
            blind,
            [
                "cannot tell how long b keeps records: no alarm before unread data expires; allow DescribeConfigs on it, or \
              write ingestionUnit.kafka.retention"
            ]
        );
        assert_eq!(told.blind_spots(Some(Duration::from_hours(1))).count(), 0);
    }
}
