//! From URLs to stores.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{Mutex, OnceCell};

use super::{LocalStore, Prefixed, S3Client, S3Limits, S3Store, Store};
use crate::config::domain::{S3Options, StoreUrl};
use crate::error::{Error, Result};

/// Puts something around every store that is opened: fault injection, counting.
pub type Wrap = dyn Fn(Arc<dyn Store>) -> Arc<dyn Store> + Send + Sync;

/// The stores of a process: one per bucket, and one for all local files, made at first use.
#[derive(Clone)]
pub struct Stores {
    shared: Arc<Shared>,
}

struct Shared {
    s3: S3Options,
    /// Made when the first bucket is opened.
    client: OnceCell<S3Client>,
    wrap: Option<Box<Wrap>>,
    opened: Mutex<HashMap<String, Arc<dyn Store>>>,
}

impl Shared {
    fn new(s3: S3Options, wrap: Option<Box<Wrap>>) -> Self {
        Self { s3, client: OnceCell::new(), wrap, opened: Mutex::default() }
    }
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stores").field("s3", &self.shared.s3).finish_non_exhaustive()
    }
}

impl Stores {
    /// Stores that reach S3 with these options.
    #[must_use]
    pub fn new(s3: S3Options) -> Self {
        Self::build(s3, None)
    }

    /// The same, with `wrap` around every store.
    #[must_use]
    pub fn wrapped(s3: S3Options, wrap: impl Fn(Arc<dyn Store>) -> Arc<dyn Store> + Send + Sync + 'static) -> Self {
        Self::build(s3, Some(Box::new(wrap)))
    }

    /// The same, with `store` as the one that holds its URL: a bucket in memory, say.
    #[must_use]
    pub fn holding(s3: S3Options, store: Arc<dyn Store>) -> Self {
        let stores = Shared { opened: Mutex::new([(store.url().to_owned(), store)].into()), ..Shared::new(s3, None) };
        Self { shared: Arc::new(stores) }
    }

    fn build(s3: S3Options, wrap: Option<Box<Wrap>>) -> Self {
        Self { shared: Arc::new(Shared::new(s3, wrap)) }
    }

    /// The store that holds a full URL (`s3://bucket/key`, `s3a://bucket/key`, `file:///dir/file`), and the key in it.
    /// Local files are kept by one store whose root is `/`. The key is taken as it stands: object keys are not
    /// percent-decoded.
    ///
    /// # Errors
    /// `Config` for an unknown scheme or a URL without bucket or absolute path.
    pub async fn resolve(&self, url: &str) -> Result<(Arc<dyn Store>, String)> {
        let (root, key) = split(url)?;
        Ok((self.root(&root).await?, key))
    }

    /// A place as a store of its own: keys are relative to the URL, prefix included.
    ///
    /// # Errors
    /// `Config` when the S3 client cannot be made.
    pub async fn open(&self, url: &StoreUrl) -> Result<Arc<dyn Store>> {
        match url {
            StoreUrl::S3 { bucket, prefix } => {
                let root = StoreUrl::S3 { bucket: bucket.clone(), prefix: String::new() };
                Ok(Prefixed::over(self.root(&root).await?, prefix))
            }
            StoreUrl::File(_) => self.root(url).await,
        }
    }

    /// The most bytes that a writer of this URL holds until they are in the store.
    #[must_use]
    pub fn writer_bytes_max(&self, url: &str) -> u64 {
        let limits = S3Limits::default();
        if url.starts_with("file:") { 0 } else { (limits.part_bytes * (limits.parts + 1)) as u64 }
    }

    async fn root(&self, root: &StoreUrl) -> Result<Arc<dyn Store>> {
        let name = root.to_string();
        let mut opened = self.shared.opened.lock().await;
        if let Some(store) = opened.get(&name) {
            return Ok(Arc::clone(store));
        }
        let mut store: Arc<dyn Store> = match root {
            StoreUrl::S3 { bucket, .. } => {
                let client = self.shared.client.get_or_try_init(|| S3Client::connect(&self.shared.s3)).await?;
                Arc::new(S3Store::new(client.clone(), bucket))
            }
            StoreUrl::File(path) => Arc::new(LocalStore::new(path)?),
        };
        if let Some(wrap) = &self.shared.wrap {
            store = wrap(store);
        }
        opened.insert(name, Arc::clone(&store));
        Ok(store)
    }
}

/// Opens one place, for programs that need no other: its store, and the prefix (no slash at either end) that its keys
/// start with.
///
/// # Errors
/// `Config` when the S3 client cannot be made or the directory is not absolute.
pub async fn open(url: &StoreUrl, s3: &S3Options) -> Result<(Arc<dyn Store>, String)> {
    let (root, prefix) = match url {
        StoreUrl::S3 { bucket, prefix } => {
            (StoreUrl::S3 { bucket: bucket.clone(), prefix: String::new() }, prefix.clone())
        }
        StoreUrl::File(_) => (url.clone(), String::new()),
    };
    Ok((Stores::new(s3.clone()).open(&root).await?, prefix))
}

/// A full URL as the root of its store and the key in it.
fn split(url: &str) -> Result<(StoreUrl, String)> {
    let bad = |rule: &str| Error::config(format!("`{url}` {rule}"));
    // Hadoop, and with it Spark, writes `file:/dir/file`.
    let hadoop = url.strip_prefix("file:").filter(|path| path.starts_with('/') && !path.starts_with("//"));
    let (scheme, rest) = hadoop
        .map(|path| ("file", path))
        .or_else(|| url.split_once("://"))
        .ok_or_else(|| bad("is not a URL such as s3://bucket/key or file:///dir/file"))?;
    match scheme {
        "s3" | "s3a" | "s3n" => {
            let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(bad("names no bucket"));
            }
            Ok((StoreUrl::S3 { bucket: bucket.to_owned(), prefix: String::new() }, key.to_owned()))
        }
        "file" => {
            let path = Path::new(rest);
            if !path.is_absolute() {
                return Err(bad("needs an absolute path: file:///dir/file"));
            }
            Ok((StoreUrl::File(PathBuf::from("/")), rest.trim_start_matches('/').to_owned()))
        }
        _ => Err(bad("has a scheme that is not s3 or file")),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::store::{MemoryStore, PutMode};

    #[tokio::test]
    async fn a_bucket_that_is_held_is_asked_for_what_lies_in_it() {
        let bucket = Arc::new(MemoryStore::new("s3://held"));
        let stores = Stores::holding(S3Options::default(), bucket.clone());
        let (store, key) = stores.resolve("s3a://held/a/b").await.unwrap();
        let _ = store.put(&key, Bytes::from_static(b"1"), PutMode::Create).await.unwrap();
        assert_eq!(bucket.get("a/b").await.unwrap(), "1");
        let below = stores.open(&StoreUrl::S3 { bucket: "held".to_owned(), prefix: "a".to_owned() }).await.unwrap();
        assert_eq!((below.url(), below.get("b").await.unwrap()), ("s3://held/a", Bytes::from_static(b"1")));
    }

    #[test]
    fn urls_split_into_root_and_key() {
        let check = |url: &str, expected: std::result::Result<(&str, &str), &str>| {
            let got = split(url).map(|(root, key)| (root.to_string(), key)).map_err(|e| e.to_string());
            assert_eq!(got, expected.map(|(r, k)| (r.to_owned(), k.to_owned())).map_err(str::to_owned), "{url}");
        };
        check("s3://lake/a/b=c/d%20e.parquet", Ok(("s3://lake", "a/b=c/d%20e.parquet")));
        check("s3a://lake/a", Ok(("s3://lake", "a")));
        check("s3://lake", Ok(("s3://lake", "")));
        check("file:///var/lake/a", Ok(("file:///", "var/lake/a")));
        check("file:/var/lake/a", Ok(("file:///", "var/lake/a")));
        check("file:var/lake", Err("`file:var/lake` is not a URL such as s3://bucket/key or file:///dir/file"));
        check("file://var/lake", Err("`file://var/lake` needs an absolute path: file:///dir/file"));
        check("s3:///a", Err("`s3:///a` names no bucket"));
        check("gs://b/a", Err("`gs://b/a` has a scheme that is not s3 or file"));
        check("/a/b", Err("`/a/b` is not a URL such as s3://bucket/key or file:///dir/file"));
    }
}
