//! The `iceberg` crate's storage on our own object store: one S3 client, and fault injection covers table metadata too.
//!
//! The crate names files by absolute URL; [`Stores`] finds the store. Files are immutable and their names are never
//! reused, so writing is create-only.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use firn_shared::error::{Error, ErrorKind};
use firn_shared::store::{PutMode, PutOutcome, Store, Stores};
use futures::StreamExt;
use futures::stream::BoxStream;
use iceberg::io::{
    FileIO, FileIOBuilder, FileMetadata, FileRead, FileWrite, InputFile, OutputFile, Storage, StorageConfig,
    StorageFactory,
};
use serde::{Deserialize, Serialize};

/// File access for tables, through `stores`.
#[must_use]
pub fn file_io(stores: &Stores) -> FileIO {
    FileIOBuilder::new(Arc::new(StoresStorage { stores: Some(stores.clone()) })).build()
}

/// Both the factory and what it makes. The crate wants it serialisable; the stores themselves do not travel, and a
/// storage that has lost them refuses to work.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoresStorage {
    #[serde(skip)]
    stores: Option<Stores>,
}

impl StoresStorage {
    async fn resolve(&self, url: &str) -> iceberg::Result<(Arc<dyn Store>, String)> {
        let stores = self.stores.as_ref().ok_or_else(|| ours(Error::bug("a storage was sent without its stores")))?;
        stores.resolve(url).await.map_err(ours)
    }
}

/// Keeps our error, and with it the kind, as the source.
fn ours(error: Error) -> iceberg::Error {
    let kind = match error.kind() {
        ErrorKind::Data => iceberg::ErrorKind::DataInvalid,
        _ => iceberg::ErrorKind::Unexpected,
    };
    iceberg::Error::new(kind, "object store").with_source(error)
}

#[typetag::serde(name = "FirnStores")]
impl StorageFactory for StoresStorage {
    fn build(&self, _: &StorageConfig) -> iceberg::Result<Arc<dyn Storage>> {
        Ok(Arc::new(self.clone()))
    }
}

#[async_trait]
#[typetag::serde(name = "FirnStores")]
impl Storage for StoresStorage {
    async fn exists(&self, path: &str) -> iceberg::Result<bool> {
        let (store, key) = self.resolve(path).await?;
        Ok(store.head(&key).await.map_err(ours)?.is_some())
    }

    async fn metadata(&self, path: &str) -> iceberg::Result<FileMetadata> {
        let (store, key) = self.resolve(path).await?;
        let found = store.head(&key).await.map_err(ours)?;
        let meta = found.ok_or_else(|| ours(Error::data(format!("{path} is missing"))))?;
        Ok(FileMetadata { size: meta.size })
    }

    async fn read(&self, path: &str) -> iceberg::Result<Bytes> {
        let (store, key) = self.resolve(path).await?;
        store.get(&key).await.map_err(ours)
    }

    async fn reader(&self, path: &str) -> iceberg::Result<Box<dyn FileRead>> {
        let (store, key) = self.resolve(path).await?;
        Ok(Box::new(Reader { store, key }))
    }

    async fn write(&self, path: &str, bytes: Bytes) -> iceberg::Result<()> {
        let (store, key) = self.resolve(path).await?;
        create(store.as_ref(), &key, bytes).await
    }

    async fn writer(&self, path: &str) -> iceberg::Result<Box<dyn FileWrite>> {
        let (store, key) = self.resolve(path).await?;
        Ok(Box::new(Writer { store, key, buffer: Some(BytesMut::new()) }))
    }

    async fn delete(&self, path: &str) -> iceberg::Result<()> {
        let (store, key) = self.resolve(path).await?;
        store.delete(&key).await.map_err(ours)
    }

    async fn delete_prefix(&self, path: &str) -> iceberg::Result<()> {
        // Nothing here deletes by prefix: a prefix may hold what a live manifest names.
        Err(ours(Error::bug(format!("deleting everything below {path} is not allowed"))))
    }

    async fn delete_stream(&self, mut paths: BoxStream<'static, String>) -> iceberg::Result<()> {
        while let Some(path) = paths.next().await {
            self.delete(&path).await?;
        }
        Ok(())
    }

    fn new_input(&self, path: &str) -> iceberg::Result<InputFile> {
        Ok(InputFile::new(Arc::new(self.clone()), path.to_owned()))
    }

    fn new_output(&self, path: &str) -> iceberg::Result<OutputFile> {
        Ok(OutputFile::new(Arc::new(self.clone()), path.to_owned()))
    }
}

async fn create(store: &dyn Store, key: &str, bytes: Bytes) -> iceberg::Result<()> {
    match store.put(key, bytes, PutMode::Create).await.map_err(ours)? {
        PutOutcome::Written => Ok(()),
        PutOutcome::AlreadyExists => Err(ours(Error::bug(format!(
            "{}/{key} exists already, names of table files are never reused",
            store.url()
        )))),
    }
}

struct Reader {
    store: Arc<dyn Store>,
    key: String,
}

#[async_trait]
impl FileRead for Reader {
    async fn read(&self, range: Range<u64>) -> iceberg::Result<Bytes> {
        let bytes = self.store.get_range(&self.key, range.clone()).await.map_err(ours)?;
        if bytes.len() as u64 == range.end - range.start {
            return Ok(bytes);
        }
        let (key, got) = (&self.key, bytes.len());
        Err(ours(Error::data(format!("{key} ends inside bytes {range:?}: got {got}; the file was cut short"))))
    }
}

/// Manifests and manifest lists: a few megabytes at most, put in one piece when they are complete.
struct Writer {
    store: Arc<dyn Store>,
    key: String,
    buffer: Option<BytesMut>,
}

#[async_trait]
impl FileWrite for Writer {
    async fn write(&mut self, bytes: Bytes) -> iceberg::Result<()> {
        let buffer = self.buffer.as_mut().ok_or_else(|| ours(Error::bug(format!("{} is closed", self.key))))?;
        buffer.extend_from_slice(&bytes);
        Ok(())
    }

    async fn close(&mut self) -> iceberg::Result<()> {
        let buffer = self.buffer.take().ok_or_else(|| ours(Error::bug(format!("{} is closed", self.key))))?;
        create(self.store.as_ref(), &self.key, buffer.freeze()).await
    }
}
