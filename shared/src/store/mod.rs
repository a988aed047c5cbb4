//! Objects by key: S3, local files or memory, with the same semantics.
//!
//! A [`Store`] is one bucket, or one directory that behaves like one. Keys are relative to it (`raw/a/b.json`), ordered
//! by their bytes. Writes are atomic: a reader sees all of an object or none. `PutMode::Create` has exactly one winner,
//! which is what the batch manifests' exactly-once rests on.
//!
//! Reading order: [`Stores`] turns URLs into stores; [`S3Store`] and [`LocalStore`] are the two kinds, and [`MemoryStore`]
//! the one for what is thrown away anyway; [`Prefixed`] shows one prefix of a store as a store of its own, [`Purging`] one that
//! deletes older versions, too; [`read_chunks`] streams a large object through bounded memory; [`Faults`] break a store on
//! purpose, for tests; `conformance` (a feature) is what every store promises, as tests.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Result;

mod chunks;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod faulty;
mod local;
mod memory;
mod open;
mod prefixed;
mod purging;
mod s3;

pub use chunks::read_chunks;
pub use faulty::{Fault, Faults, Faulty, LoggedOperation};
pub use local::LocalStore;
pub use memory::MemoryStore;
pub use open::{Stores, Wrap, open};
pub use prefixed::Prefixed;
pub use purging::Purging;
pub use s3::{S3Client, S3Limits, S3Store};

/// What a listing says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// The key, relative to the store.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// Last modification, UTC.
    pub modified: chrono::DateTime<chrono::Utc>,
}

/// Whether an existing object may be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutMode {
    /// Only if nothing has this key (S3: `If-None-Match: *`).
    Create,
    /// Replace whatever is there.
    Overwrite,
}

/// What became of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a put that found the key taken has written nothing"]
pub enum PutOutcome {
    /// The object is ours.
    Written,
    /// `PutMode::Create` found the key taken; nothing was written.
    AlreadyExists,
}

/// One page of a listing, in key order.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Objects, ascending by key.
    pub objects: Vec<ObjectMeta>,
    /// Common prefixes up to and including the next `/`, when a delimiter was asked for; ascending.
    pub prefixes: Vec<String>,
    /// Where to go on (`start_after` of the next call); `None` on the last page.
    pub next: Option<String>,
}

/// Whether a listing descends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Everything below the prefix.
    All,
    /// Only up to the next `/`: objects directly below, and prefixes.
    One,
}

/// A bucket, or a directory that behaves like one.
///
/// Errors carry their kind: `Unavailable` after retries ran out, `Data` for an object that is missing or was cut short,
/// `Config` for refused credentials and missing buckets; the message names operation, key and store.
#[async_trait]
pub trait Store: std::fmt::Debug + Send + Sync {
    /// The URL of the root, without trailing slash: `s3://bucket` or `file:///var/lake`.
    fn url(&self) -> &str;

    /// The whole object.
    async fn get(&self, key: &str) -> Result<Bytes>;

    /// Bytes `range` of the object; what lies past its end is left out, so the answer may be shorter or empty.
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes>;

    /// Size and time, or `None` when there is no such object.
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>>;

    /// Writes the object, atomically; large bodies go up in parts. A lost reply is resolved by looking: a `Create` that
    /// finds the key taken by an earlier attempt of the same call reports `Written`. After an error the object may or
    /// may not be there.
    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<PutOutcome>;

    /// Opens an object to be written piece by piece (multipart upload), visible only after `close`.
    async fn writer(&self, key: &str) -> Result<Box<dyn ObjectWriter>>;

    /// One page (at most 1,000 entries) of the objects, and with [`Depth::One`] of the common prefixes, that start with
    /// `prefix` and sort after `start_after` by their bytes. A common prefix counts as one string, so that going on from
    /// `a/` does not descend into `a/`. A page may be empty and still have a `next`.
    async fn list(&self, prefix: &str, start_after: Option<&str>, depth: Depth) -> Result<Page>;

    /// Removes the object; no error when there is none. A store that keeps versions keeps it as an older one.
    async fn delete(&self, key: &str) -> Result<()>;

    /// Whether what is replaced or deleted stays as an older version. Files on disk have none.
    async fn keeps_versions(&self) -> Result<bool>;

    /// Removes the object with all its versions; says how many there were besides the object itself, delete markers
    /// included. Cut short, it leaves the object as the last that goes.
    async fn purge(&self, key: &str) -> Result<u64>;
}

/// An object being written; dropped without `close` it never becomes visible.
#[async_trait]
pub trait ObjectWriter: Send {
    /// Appends bytes.
    async fn write(&mut self, bytes: Bytes) -> Result<()>;
    /// Makes the object visible and returns its size in bytes.
    async fn close(self: Box<Self>) -> Result<u64>;
    /// Gives the upload up and frees its parts.
    async fn abort(self: Box<Self>) -> Result<()>;
}
