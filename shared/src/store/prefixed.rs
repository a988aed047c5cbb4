//! One prefix of a store, seen as a store of its own.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Depth, ObjectMeta, ObjectWriter, Page, PutMode, PutOutcome, Store};
use crate::error::Result;

/// The keys of a store below a prefix, relative to it.
#[derive(Debug)]
pub struct Prefixed {
    inner: Arc<dyn Store>,
    /// With trailing slash.
    prefix: String,
    url: String,
}

impl Prefixed {
    /// The part of `inner` below `prefix` (with or without trailing slash); `inner` itself when the prefix is empty.
    pub fn over(inner: Arc<dyn Store>, prefix: &str) -> Arc<dyn Store> {
        let prefix = prefix.trim_matches('/');
        if prefix.is_empty() {
            return inner;
        }
        let url = format!("{}/{prefix}", inner.url());
        Arc::new(Self { inner, prefix: format!("{prefix}/"), url })
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn relative(&self, mut full: String) -> String {
        full.drain(..self.prefix.len());
        full
    }
}

#[async_trait]
impl Store for Prefixed {
    fn url(&self) -> &str {
        &self.url
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        self.inner.get(&self.full(key)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        self.inner.get_range(&self.full(key), range).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        let meta = self.inner.head(&self.full(key)).await?;
        Ok(meta.map(|meta| ObjectMeta { key: self.relative(meta.key), ..meta }))
    }

    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<PutOutcome> {
        self.inner.put(&self.full(key), body, mode).await
    }

    async fn writer(&self, key: &str) -> Result<Box<dyn ObjectWriter>> {
        self.inner.writer(&self.full(key)).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, depth: Depth) -> Result<Page> {
        let start_after = start_after.map(|key| self.full(key));
        let page = self.inner.list(&self.full(prefix), start_after.as_deref(), depth).await?;
        Ok(Page {
            objects: page.objects.into_iter().map(|meta| ObjectMeta { key: self.relative(meta.key), ..meta }).collect(),
            prefixes: page.prefixes.into_iter().map(|prefix| self.relative(prefix)).collect(),
            next: page.next.map(|next| self.relative(next)),
        })
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.inner.delete(&self.full(key)).await
    }

    async fn keeps_versions(&self) -> Result<bool> {
        self.inner.keeps_versions().await
    }

    async fn purge(&self, key: &str) -> Result<u64> {
        self.inner.purge(&self.full(key)).await
    }
}
