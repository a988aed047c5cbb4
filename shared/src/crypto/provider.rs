//! Where key material comes from: a key ring file or AWS KMS.

use std::fmt;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::{Error, Result};

/// 32 bytes of key; not printable, wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct KeyBytes([u8; 32]);

impl fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl KeyBytes {
    /// These bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A new random key.
    ///
    /// # Errors
    /// `Unavailable` when the system gives no random bytes.
    pub fn random() -> Result<Self> {
        let mut key = Self([0; 32]);
        aws_lc_rs::rand::fill(&mut key.0).map_err(|_| Error::unavailable("the system gives no random bytes"))?;
        Ok(key)
    }

    /// From exactly 32 bytes; `None` for any other number.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// From base64 of 32 bytes; `None` for anything else. The text itself is never part of an error.
    #[must_use]
    pub fn from_base64(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(STANDARD.decode(text.trim()).ok()?);
        Self::from_slice(&bytes)
    }

    /// The bytes, for the one call that needs them.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A version of a key that seals data.
#[derive(Debug, Clone)]
pub struct KeyVersion {
    /// Its number; the largest is the newest.
    pub number: u32,
    /// Its material.
    pub key: KeyBytes,
    /// When it was made, as far as that is known.
    pub created: Option<DateTime<Utc>>,
}

/// One named key of `firn.yaml`: its versions, and the secret behind its tokens.
#[async_trait]
pub trait KeyProvider: Send + Sync + fmt::Debug {
    /// The newest version; makes one when there is none.
    async fn newest(&self, now: DateTime<Utc>) -> Result<KeyVersion>;

    /// A version newer than `than`, as somebody else has made it or as it is made now; `None` where only an operator
    /// makes versions and there is no newer one.
    async fn renew(&self, than: u32, now: DateTime<Utc>) -> Result<Option<KeyVersion>>;

    /// One version.
    async fn version(&self, number: u32) -> Result<KeyVersion>;

    /// The secret behind tokens, the same for ever.
    async fn token(&self, now: DateTime<Utc>) -> Result<KeyBytes>;

    /// The seed of the key that signs certificates of erasure, the same for ever. Who may read values may not have it.
    async fn signing(&self, now: DateTime<Utc>) -> Result<KeyBytes>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_32_bytes_in_base64_are_a_key() {
        assert!(KeyBytes::from_base64(&STANDARD.encode([1; 32])).is_some());
        for text in ["", "abc", &STANDARD.encode([1; 31]), &STANDARD.encode([1; 33]), "hunter2hunter2hunter2hunter2!!"]
        {
            assert_eq!(KeyBytes::from_base64(text), None, "{text}");
        }
    }
}
