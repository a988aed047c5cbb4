//! A store that deletes for good: older versions of what is deleted go, too.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Depth, ObjectMeta, ObjectWriter, Page, PutMode, PutOutcome, Store};
use crate::error::Result;

/// Another store, whose `delete` is `purge`.
#[derive(Debug)]
pub struct Purging {
    inner: Arc<dyn Store>,
    purged: Arc<AtomicU64>,
}

impl Purging {
    /// The store `inner`; `purged` counts the versions that went besides the objects themselves.
    pub fn over(inner: Arc<dyn Store>, purged: Arc<AtomicU64>) -> Arc<dyn Store> {
        Arc::new(Self { inner, purged })
    }
}

#[async_trait]
impl Store for Purging {
    fn url(&self) -> &str {
        self.inner.url()
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        self.inner.get_range(key, range).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        self.inner.head(key).await
    }

    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<PutOutcome> {
        self.inner.put(key, body, mode).await
    }

    async fn writer(&self, key: &str) -> Result<Box<dyn ObjectWriter>> {
        self.inner.writer(key).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, depth: Depth) -> Result<Page> {
        self.inner.list(prefix, start_after, depth).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.purge(key).await.map(drop)
    }

    async fn keeps_versions(&self) -> Result<bool> {
        self.inner.keeps_versions().await
    }

    async fn purge(&self, key: &str) -> Result<u64> {
        let older = self.inner.purge(key).await?;
        self.purged.fetch_add(older, Ordering::Relaxed);
        Ok(older)
    }
}
