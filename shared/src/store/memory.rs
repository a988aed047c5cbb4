//! Objects that live as long as the program: for runs of which nothing is kept.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use tokio::task::coop::consume_budget;

use super::{Depth, ObjectMeta, ObjectWriter, Page, PutMode, PutOutcome, Store};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};

/// Entries of a page at most, as on S3.
const PAGE_ENTRIES_MAX: usize = 1000;

/// A bucket in memory; clones show the same objects. It waits for nothing, so it needs no thread; it gives way, so that
/// whoever loops over it does not keep others from their turn.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    url: String,
    objects: Arc<Mutex<BTreeMap<String, Object>>>,
}

#[derive(Debug, Clone)]
struct Object {
    body: Bytes,
    modified: DateTime<Utc>,
}

impl Object {
    fn new(body: Bytes) -> Self {
        Self { body, modified: SystemClock.now() }
    }

    fn meta(&self, key: &str) -> ObjectMeta {
        ObjectMeta { key: key.to_owned(), size: self.body.len() as u64, modified: self.modified }
    }
}

impl MemoryStore {
    /// An empty bucket that goes by this URL (`s3://name`).
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), objects: Arc::default() }
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Object>> {
        // No operation leaves the map half changed.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn body(&self, key: &str) -> Result<Bytes> {
        let found = self.objects().get(key).map(|object| object.body.clone());
        found.ok_or_else(|| Error::data(format!("cannot read {}/{key}: no such object", self.url)))
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn url(&self) -> &str {
        &self.url
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        consume_budget().await;
        self.body(key)
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        consume_budget().await;
        let body = self.body(key)?;
        let [start, end] = [range.start, range.end].map(|at| at.min(body.len() as u64) as usize);
        Ok(body.slice(start..end.max(start)))
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        consume_budget().await;
        Ok(self.objects().get(key).map(|object| object.meta(key)))
    }

    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<PutOutcome> {
        consume_budget().await;
        if key.is_empty() {
            return Err(Error::data(format!("cannot write {}/: a key must not be empty", self.url)));
        }
        let mut objects = self.objects();
        if mode == PutMode::Create && objects.contains_key(key) {
            return Ok(PutOutcome::AlreadyExists);
        }
        objects.insert(key.to_owned(), Object::new(body));
        Ok(PutOutcome::Written)
    }

    async fn writer(&self, key: &str) -> Result<Box<dyn ObjectWriter>> {
        Ok(Box::new(MemoryWriter { store: self.clone(), key: key.to_owned(), body: BytesMut::new() }))
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, depth: Depth) -> Result<Page> {
        consume_budget().await;
        Ok(page(&self.objects(), prefix, start_after, depth))
    }

    async fn delete(&self, key: &str) -> Result<()> {
        consume_budget().await;
        self.objects().remove(key);
        Ok(())
    }

    async fn keeps_versions(&self) -> Result<bool> {
        Ok(false)
    }

    async fn purge(&self, key: &str) -> Result<u64> {
        self.delete(key).await.map(|()| 0)
    }
}

/// One page of the keys that begin with `prefix`.
fn page(objects: &BTreeMap<String, Object>, prefix: &str, start_after: Option<&str>, depth: Depth) -> Page {
    let (mut page, mut last) = (Page::default(), String::new());
    let from = start_after.filter(|after| *after >= prefix).map_or(Bound::Included(prefix), Bound::Excluded);
    for (key, object) in objects.range::<str, _>((from, Bound::Unbounded)) {
        let Some(rest) = key.strip_prefix(prefix) else { break };
        let group = match rest.find('/') {
            Some(slash) if depth == Depth::One => Some(&key[..=prefix.len() + slash]),
            _ => None,
        };
        // A group counts as one string: its further keys, and those of a group that was seen before this page, are in it.
        if group.is_some_and(|group| last == group || start_after.is_some_and(|after| group <= after)) {
            continue;
        }
        if page.objects.len() + page.prefixes.len() == PAGE_ENTRIES_MAX {
            page.next = Some(last);
            break;
        }
        last.clear();
        last.push_str(group.unwrap_or(key));
        match group {
            Some(group) => page.prefixes.push(group.to_owned()),
            None => page.objects.push(object.meta(key)),
        }
    }
    page
}

/// An object that is being put together.
struct MemoryWriter {
    store: MemoryStore,
    key: String,
    body: BytesMut,
}

#[async_trait]
impl ObjectWriter for MemoryWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.body.extend_from_slice(&bytes);
        Ok(())
    }

    async fn close(self: Box<Self>) -> Result<u64> {
        let Self { store, key, body } = *self;
        let bytes = body.len() as u64;
        let _written = store.put(&key, body.freeze(), PutMode::Overwrite).await?;
        Ok(bytes)
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Faults, Prefixed, conformance};

    #[tokio::test]
    async fn a_bucket_in_memory_keeps_what_every_store_promises_also_behind_a_prefix_and_a_fault_programme() {
        let faults = Faults::none();
        let bucket = Arc::new(MemoryStore::new("s3://memory"));
        conformance::run(faults.around(Prefixed::over(bucket, "some/prefix"))).await.unwrap();
        assert!(faults.count() > 1000 && !faults.fired());
    }
}
