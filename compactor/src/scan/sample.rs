//! Raw lines by chance: some objects of some hours, the first records of each. Bounded whatever the raw zone holds.
//!
//! Objects are found by listing a date, an hour of it and its objects, so five years of raw data cost as many requests as a
//! day. What no manifest names yet may be among them: a value is personal data before it is in the ledger, too.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};

use firn_shared::error::Result;
use firn_shared::ids::{ClusterName, Topic};
use firn_shared::raw::key::{Key, Ledger, cluster_prefix, ledger_prefix};
use firn_shared::store::{Depth, Store};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

/// Read of an object at most; its first records are in there.
const PIECE: u64 = 8 << 20;
/// A zstd window of raw objects at most.
const WINDOW_LOG_MAX: u32 = 23;
/// Misses in a row after which all there is has been seen.
const MISSES_MAX: usize = 40;

/// How much is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Objects of a topic.
    pub objects: usize,
    /// Records of an object.
    pub records: usize,
    /// What chance starts from: the same seed on the same raw zone looks at the same records.
    pub seed: u64,
}

/// Chooses objects of a topic.
#[derive(Debug)]
pub struct Sampler<'a> {
    store: &'a dyn Store,
    random: SmallRng,
    listings: HashMap<String, Vec<String>>,
}

impl<'a> Sampler<'a> {
    /// Chooses from `store`.
    pub fn new(store: &'a dyn Store, seed: u64) -> Self {
        Self { store, random: SmallRng::seed_from_u64(seed), listings: HashMap::new() }
    }

    /// Keys of up to `count` objects of the topic, no two the same.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn objects(&mut self, cluster: &ClusterName, topic: &Topic, count: usize) -> Result<Vec<String>> {
        let root = format!("{}{topic}/", cluster_prefix(cluster));
        self.pick(&root, ["dt=", "hr="], |key| matches!(key, Key::Raw(_)), count).await
    }

    /// The same of objects with records that landing refused.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn refused(&mut self, cluster: &ClusterName, topic: &Topic, count: usize) -> Result<Vec<String>> {
        // By generation and partition.
        let root = ledger_prefix(cluster, topic, Ledger::Quarantine);
        self.pick(&root, ["", ""], |key| matches!(key, Key::Quarantine(_)), count).await
    }

    /// Wanted keys two folders below `root`, whose names begin so; every folder is as likely as its neighbours.
    async fn pick(
        &mut self,
        root: &str,
        [outer, inner]: [&str; 2],
        wanted: fn(&Key) -> bool,
        count: usize,
    ) -> Result<Vec<String>> {
        let (mut found, mut misses) = (Vec::new(), 0);
        while found.len() < count && misses < MISSES_MAX {
            let Some(folder) = self.choose(root, outer).await? else { break };
            let Some(folder) = self.choose(&folder, inner).await? else { break };
            match self.choose(&folder, "").await? {
                Some(key) if !found.contains(&key) && key.parse().is_ok_and(|key| wanted(&key)) => {
                    found.push(key);
                    misses = 0;
                }
                _ => misses += 1,
            }
        }
        found.sort();
        Ok(found)
    }

    /// One of the entries directly below `prefix` whose name begins with `start`.
    async fn choose(&mut self, prefix: &str, start: &str) -> Result<Option<String>> {
        let prefix = format!("{prefix}{start}");
        if !self.listings.contains_key(&prefix) {
            // One page: of an hour with more than a thousand objects the first thousand are as good as any.
            let mut entries = Vec::new();
            let mut after: Option<String> = None;
            loop {
                let page = self.store.list(&prefix, after.as_deref(), Depth::One).await?;
                entries.extend(page.prefixes);
                entries.extend(page.objects.into_iter().map(|object| object.key));
                after = page.next;
                if after.is_none() || start.is_empty() {
                    break;
                }
            }
            self.listings.insert(prefix.clone(), entries);
        }
        let entries = self.listings.get(&prefix).map(Vec::as_slice).unwrap_or_default();
        Ok(entries.choose(&mut self.random).cloned())
    }
}

/// The first lines of an object, at most `count` and what the piece holds.
///
/// # Errors
/// Those of the store. An object that is no zstd has no lines.
pub async fn lines(store: &dyn Store, key: &str, count: usize) -> Result<Vec<Vec<u8>>> {
    let piece = store.get_range(key, 0..PIECE).await?;
    let mut lines = Vec::new();
    let Ok(mut inflate) = zstd::stream::read::Decoder::new(&*piece) else { return Ok(lines) };
    if inflate.window_log_max(WINDOW_LOG_MAX).is_err() {
        return Ok(lines);
    }
    let mut inflate = BufReader::new(inflate);
    while lines.len() < count {
        let mut line = Vec::new();
        // The piece may end in the middle of a frame: what came before counts.
        match inflate.read_until(b'\n', &mut line) {
            Ok(read) if read > 0 && line.last() == Some(&b'\n') => lines.push(line),
            _ => break,
        }
    }
    Ok(lines)
}
