//! Keys from a key ring file. Only an operator adds versions; the file is read again now and then, so that a daemon
//! takes a new version up without a restart.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::provider::{KeyBytes, KeyProvider, KeyVersion};
use crate::config::{RingKey, RingStamp, read_ring, ring_stamp};
use crate::error::{Error, Result};
use crate::ids::KeyName;

/// One key of a ring.
#[derive(Debug)]
pub struct RingProvider {
    path: PathBuf,
    name: KeyName,
    /// The key as it was when the file was like that.
    held: Mutex<Option<(RingStamp, RingKey)>>,
}

impl RingProvider {
    /// The key called `name` in the ring at `path`.
    pub fn new(path: PathBuf, name: KeyName) -> Self {
        Self { path, name, held: Mutex::default() }
    }

    /// The file is small and read only when it has changed, so it is read where it is asked for.
    fn read(&self) -> Result<RingKey> {
        let stamp = ring_stamp(&self.path)?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, key)) = held.as_ref().filter(|(known, _)| *known == stamp) {
            return Ok(key.clone());
        }
        let mut ring = read_ring(&self.path)?;
        let key = ring.keys.remove(&self.name).ok_or_else(|| {
            Error::config(format!("key ring {} has no key `{}`; add it under `keys`", self.path.display(), self.name))
        })?;
        *held = Some((stamp, key.clone()));
        Ok(key)
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

#[cfg(test)]
mod tests {
    use std::fs::{File, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[tokio::test]
    async fn a_file_that_has_not_changed_is_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.yaml");
        let write = |byte: u8| {
            let key = STANDARD.encode([byte; 32]);
            std::fs::write(&path, format!("keys: {{people: {{versions: {{1: '{key}'}}}}}}\n")).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        };
        let set_modified = |at| File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
        write(1);
        let at = std::fs::metadata(&path).unwrap().modified().unwrap();
        let ring = RingProvider::new(path.clone(), "people".parse().unwrap());
        let key = async || ring.newest(DateTime::<Utc>::UNIX_EPOCH).await.map(|newest| newest.key.expose()[0]);
        assert_eq!(key().await.unwrap(), 1);
        write(2);
        set_modified(at);
        assert_eq!(key().await.unwrap(), 1, "as far as one can tell it is the same file");
        set_modified(at + std::time::Duration::from_secs(1));
        assert_eq!(key().await.unwrap(), 2);
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(key().await.unwrap_err().to_string().contains("may be read by others"), "that is always looked at");
    }
}
