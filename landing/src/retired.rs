//! Topics that are gone for good: nothing more comes of them, and no date has to wait for them.
//!
//! Their partitions have no lane that could say so. The raw zone knows the topics of a pattern, the configuration those of a
//! list; of what Kafka does not list, it is asked by name, because a topic that we may not see any more is not listed
//! either.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use firn_shared::error::Result;
use firn_shared::ids::Topic;
use firn_shared::raw::chain::catalog;
use firn_shared::raw::progress::{self, Progress};

use crate::kafka::Selection;
use crate::observe::blocking;
use crate::pipeline::Shared;

/// How often it is looked. What is gone at two looks in a row was not just missing on a broker that has begun.
const LOOK: Duration = Duration::from_secs(20);

/// Looks for as long as the pipeline runs.
///
/// # Errors
/// None: what fails is tried again.
pub async fn watch(shared: &Arc<Shared>, selection: &Selection) -> Result<()> {
    let mut tick = tokio::time::interval(LOOK);
    let mut before = BTreeSet::new();
    loop {
        tick.tick().await;
        match look(shared, selection, &before).await {
            Ok(gone) => before = gone,
            Err(error) => tracing::warn!(pipeline = %shared.name, %error, "cannot tell which topics are gone"),
        }
    }
}

/// The topics that are gone; of those that were gone `before`, the partitions say that they are read to the end.
async fn look(shared: &Arc<Shared>, selection: &Selection, before: &BTreeSet<Topic>) -> Result<BTreeSet<Topic>> {
    let at = shared.rules.clock.now();
    let gone = gone(shared, missing(shared, selection).await?).await?;
    for topic in gone.iter().filter(|topic| before.contains(topic)) {
        let store = &shared.store;
        for number in progress::partitions(store, &shared.topic(topic)).await? {
            let partition = shared.partition(topic, number);
            let said = progress::read(store.as_ref(), &partition).await?.unwrap_or_default();
            progress::write(store.as_ref(), &partition, &Progress { caught_up_at: Some(at), ..said }).await?;
        }
    }
    for topic in gone.difference(before) {
        tracing::info!(pipeline = %shared.name, %topic, "the topic is gone");
    }
    Ok(gone)
}

/// Topics of the pipeline that the cluster did not list.
async fn missing(shared: &Arc<Shared>, selection: &Selection) -> Result<Vec<Topic>> {
    let known = match selection {
        Selection::List(topics) => topics.clone(),
        Selection::Pattern(_) => catalog::topics(shared.store.as_ref(), &shared.cluster_name).await?,
    };
    let own =
        |topic: &Topic| selection.takes(topic.as_str()) && shared.rivals.claim(topic.as_str(), &shared.name).is_none();
    let state = shared.state();
    Ok(known.into_iter().filter(|topic| own(topic) && !state.topics.contains_key(topic)).collect())
}

/// Those of which the cluster says that there are none.
async fn gone(shared: &Arc<Shared>, missing: Vec<Topic>) -> Result<BTreeSet<Topic>> {
    if missing.is_empty() {
        return Ok(BTreeSet::new());
    }
    let observer = shared.observer.clone();
    blocking(move || {
        let mut gone = BTreeSet::new();
        for topic in missing {
            if !observer.exists(&topic)? {
                gone.insert(topic);
            }
        }
        Ok(gone)
    })
    .await
}
