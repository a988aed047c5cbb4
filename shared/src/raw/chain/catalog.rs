//! What chains there are, by listing folders.

use crate::error::Result;
use crate::ids::{ClusterName, Generation, Partition, Topic, TopicRef};
use crate::raw::key::{Ledger, cluster_prefix, ledger_prefix};
use crate::store::{Depth, Store};

/// The topics of a cluster that have a folder in the raw zone, ascending.
///
/// # Errors
/// Those of the store.
pub async fn topics(store: &dyn Store, cluster: &ClusterName) -> Result<Vec<Topic>> {
    let names = folders(store, &cluster_prefix(cluster)).await?;
    Ok(names.into_iter().filter_map(|name| Topic::new(name).ok()).collect())
}

/// The generations of a topic that landing has read, with or without records, ascending.
///
/// # Errors
/// Those of the store.
pub async fn generations(store: &dyn Store, cluster: &ClusterName, topic: &Topic) -> Result<Vec<Generation>> {
    let mut names = folders(store, &ledger_prefix(cluster, topic, Ledger::Batches)).await?;
    names.extend(folders(store, &ledger_prefix(cluster, topic, Ledger::Progress)).await?);
    let mut generations: Vec<_> = names.iter().filter_map(|name| name.parse().ok()).map(Generation).collect();
    generations.sort_unstable();
    generations.dedup();
    Ok(generations)
}

/// The partitions of a topic that have a chain, ascending.
///
/// # Errors
/// Those of the store.
pub async fn partitions(store: &dyn Store, topic: &TopicRef) -> Result<Vec<Partition>> {
    let prefix = format!("{}{}/", ledger_prefix(&topic.cluster, &topic.topic, Ledger::Batches), topic.generation);
    let mut partitions: Vec<_> =
        folders(store, &prefix).await?.iter().filter_map(|name| name.parse().ok()).map(Partition).collect();
    partitions.sort_unstable();
    Ok(partitions)
}

/// The names of the folders directly below `prefix`.
async fn folders(store: &dyn Store, prefix: &str) -> Result<Vec<String>> {
    let (mut names, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = store.list(prefix, after.as_deref(), Depth::One).await?;
        names.extend(
            page.prefixes.iter().filter_map(|p| Some(p.strip_prefix(prefix)?.trim_end_matches('/').to_owned())),
        );
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(names),
        }
    }
}
