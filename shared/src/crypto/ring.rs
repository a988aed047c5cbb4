//! Keys from a key ring file. Only an operator adds versions; the file is read again now and then, so that a daemon
//! takes a new version up without a restart.

use std::path::PathBuf;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::provider::{KeyBytes, KeyProvider, KeyVersion};
use crate::config::{RingKey, read_ring};
use crate::error::{Error, Result};
use crate::ids::KeyName;

/// One key of a ring.
#[derive(Debug)]
pub struct RingProvider {
    path: PathBuf,
    name: KeyName,
}

impl RingProvider {
    /// The key called `name` in the ring at `path`.
    pub fn new(path: PathBuf, name: KeyName) -> Self {
        Self { path, name }
    }

    /// The file is small and read seldom, so it is read where it is asked for.
    fn read(&self) -> Result<RingKey> {
        let mut ring = read_ring(&self.path)?;
        ring.keys.remove(&self.name).ok_or_else(|| {
            Error::config(format!("key ring {} has no key `{}`; add it under `keys`", self.path.display(), self.name))
        })
    }
}

#[async_trait]
impl KeyProvider for RingProvider {
    async fn newest(&self, _: DateTime<Utc>) -> Result<KeyVersion> {
        let key = self.read()?;
        let newest = key.versions.last_key_value().map(|(number, key)| (*number, key.clone()));
        let (number, key) = newest.ok_or_else(|| Error::bug("a checked key ring has a key without versions"))?;
        Ok(KeyVersion { number, key, created: None })
    }

    async fn renew(&self, than: u32, now: DateTime<Utc>) -> Result<Option<KeyVersion>> {
        let newest = self.newest(now).await?;
        Ok((newest.number > than).then_some(newest))
    }

    async fn version(&self, number: u32) -> Result<KeyVersion> {
        let key = self.read()?.versions.remove(&number);
        let key = key.ok_or_else(|| {
            let (path, name) = (self.path.display(), &self.name);
            // The data names it: whoever searches data must be able to tell that from a ring that cannot be read.
            Error::data(format!("key ring {path} has no version {number} of `{name}`; what it sealed cannot be opened"))
        })?;
        Ok(KeyVersion { number, key, created: None })
    }

    async fn token(&self, _: DateTime<Utc>) -> Result<KeyBytes> {
        self.read()?.token.ok_or_else(|| {
            let (path, name) = (self.path.display(), &self.name);
            Error::config(format!(
                "key ring {path} has no `token` under `{name}`, which tokens, hashes and subjects need"
            ))
        })
    }

    async fn signing(&self, _: DateTime<Utc>) -> Result<KeyBytes> {
        read_ring(&self.path)?
            .signing
            .ok_or_else(|| Error::config(format!("key ring {} has no `signing` key", self.path.display())))
    }
}
