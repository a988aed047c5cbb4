//! AES-256-GCM in one layout: `iv 12 bytes ‖ ciphertext ‖ tag 16 bytes`, which Spark's `aes_decrypt(c, key, 'GCM')`, OpenSSL and
//! everything else that knows GCM open; as bytes, or in base64 where text is wanted.
//!
//! Every value has a random iv of its own, so equal values look different. A key may seal 2^32 values at most (NIST SP
//! 800-38D, 8.3); [`super::usage`] sees to that.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::rngs::{OsRng, StdRng};
use rand::{RngCore, SeedableRng, TryRngCore};
use zeroize::{Zeroize, Zeroizing};

use super::provider::KeyBytes;
use crate::error::{Error, Result};

/// Length of the iv in front of the ciphertext, bytes.
pub const IV_BYTES: usize = 12;
/// Length of the tag behind it, bytes.
pub const TAG_BYTES: usize = 16;
/// Ivs that are drawn at a time, from a seed of the system's own generator: one system call for many values.
const IVS_AT_ONCE: usize = 512;

/// A value that was decrypted; not printable, wiped when dropped.
#[derive(PartialEq, Eq)]
pub struct Plaintext(Zeroizing<Vec<u8>>);

impl Plaintext {
    /// The bytes, for the one call that needs them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A key that seals values, under the name by which readers find it.
pub struct DataKey {
    id: String,
    cipher: LessSafeKey,
    values: AtomicU64,
    bytes: AtomicU64,
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl DataKey {
    /// The key called `id`: `{key}/{version}`, or `{key}/s/{subject}`.
    ///
    /// # Errors
    /// `Bug`, never for 32 bytes.
    pub fn new(id: impl Into<String>, key: &KeyBytes) -> Result<Self> {
        let unbound =
            UnboundKey::new(&AES_256_GCM, key.expose()).map_err(|_| Error::bug("AES-256 refuses 32 bytes"))?;
        let (values, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { id: id.into(), cipher: LessSafeKey::new(unbound), values, bytes })
    }

    /// Its name, which goes beside the ciphertext.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Values and bytes sealed by this process.
    #[must_use]
    pub fn used(&self) -> (u64, u64) {
        (self.values.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Counts a batch of sealed values.
    pub fn count(&self, values: u64, bytes: u64) {
        self.values.fetch_add(values, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Opens what [`Sealer::seal`] wrote in base64.
    ///
    /// # Errors
    /// `Data` when the text is not of that layout, or was sealed by another key or with other additional data.
    pub fn open(&self, text: &[u8], aad: &[u8]) -> Result<Plaintext> {
        self.open_bytes(STANDARD.decode(text).map_err(|_| self.failed("not base64"))?, aad)
    }

    /// Opens what [`Sealer::seal`] wrote as bytes.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_bytes(&self, sealed: Vec<u8>, aad: &[u8]) -> Result<Plaintext> {
        let mut bytes = Zeroizing::new(sealed);
        if bytes.len() < IV_BYTES + TAG_BYTES {
            return Err(self.failed("too short for iv and tag"));
        }
        let iv = Nonce::try_assume_unique_for_key(&bytes[..IV_BYTES]).map_err(|_| self.failed("no iv"))?;
        let opened = self.cipher.open_in_place(iv, Aad::from(aad), &mut bytes[IV_BYTES..]);
        let length = opened.map_err(|_| self.failed("another key, other additional data, or damaged"))?.len();
        bytes.copy_within(IV_BYTES..IV_BYTES + length, 0);
        bytes[length..].zeroize();
        bytes.truncate(length);
        Ok(Plaintext(bytes))
    }

    /// Appends iv, ciphertext and tag. What is sealed in place is plaintext until it is done, so it is never left half.
    fn seal_with(&self, iv: [u8; IV_BYTES], aad: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<()> {
        out.reserve(IV_BYTES + value.len() + TAG_BYTES);
        out.extend_from_slice(&iv);
        let at = out.len();
        out.extend_from_slice(value);
        let nonce = Nonce::assume_unique_for_key(iv);
        let Ok(tag) = self.cipher.seal_in_place_separate_tag(nonce, Aad::from(aad), &mut out[at..]) else {
            out[at..].zeroize();
            out.truncate(at - IV_BYTES);
            return Err(Error::bug(format!("AES-256-GCM refuses a value of {} bytes", value.len())));
        };
        out.extend_from_slice(tag.as_ref());
        Ok(())
    }

    fn failed(&self, what: &str) -> Error {
        Error::data(format!("cannot decrypt with key {}: {what}", self.id))
    }
}

/// Seals values; one a thread, because it keeps its buffers.
#[derive(Default)]
pub struct Sealer {
    ivs: Vec<u8>,
    next: usize,
    work: Vec<u8>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

impl Sealer {
    /// Appends the sealed `value` to `out` in base64.
    ///
    /// # Errors
    /// As [`Self::seal_bytes`].
    pub fn seal(&mut self, key: &DataKey, aad: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let mut work = std::mem::take(&mut self.work);
        work.clear();
        self.seal_bytes(key, aad, value, &mut work)?;
        let at = out.len();
        out.resize(at + work.len().div_ceil(3) * 4, 0);
        let written = STANDARD.encode_slice(work.as_slice(), &mut out[at..]);
        self.work = work;
        written.map(drop).map_err(|_| Error::bug("base64 is longer than it can be"))
    }

    /// Appends the sealed `value` to `out` as bytes.
    ///
    /// # Errors
    /// `Unavailable` when the system gives no random bytes.
    #[inline]
    pub fn seal_bytes(&mut self, key: &DataKey, aad: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<()> {
        // The system's own generator: that of the crypto library collects jitter for 50 ms in every process first.
        let iv = self.iv(|seed| OsRng.try_fill_bytes(seed))?;
        key.seal_with(iv, aad, value, out)
    }

    fn iv<E>(&mut self, chance: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<[u8; IV_BYTES]> {
        if self.next + IV_BYTES > self.ivs.len() {
            // Only what chance has seeded becomes an iv: where it fails, there is none.
            let mut ivs = std::mem::take(&mut self.ivs);
            self.next = 0;
            let mut seed = <StdRng as SeedableRng>::Seed::default();
            chance(&mut seed).map_err(|_| Error::unavailable("the system gives no random bytes"))?;
            // A generator made for ciphers, and four times as fast as asking the system for all of it.
            ivs.resize(IVS_AT_ONCE * IV_BYTES, 0);
            StdRng::from_seed(seed).fill_bytes(&mut ivs);
            self.ivs = ivs;
        }
        let mut iv = [0; IV_BYTES];
        iv.copy_from_slice(&self.ivs[self.next..self.next + IV_BYTES]);
        self.next += IV_BYTES;
        Ok(iv)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> DataKey {
        DataKey::new("people/1", &KeyBytes::new([byte; 32])).unwrap()
    }

    /// Made with Python's `cryptography` (OpenSSL): `AESGCM(bytes(32*[7])).encrypt(bytes(range(12)), text, aad)`.
    #[test]
    fn ciphertexts_are_those_of_openssl() {
        let iv = std::array::from_fn(|i| i as u8);
        for (value, aad, expected) in [
            ("", "", VECTORS[0]),
            ("alice@example.com", "", VECTORS[1]),
            ("alice@example.com", "shop.orders.email", VECTORS[2]),
            ("Grüße, 世界", "", VECTORS[3]),
        ] {
            let mut out = Vec::new();
            key(7).seal_with(iv, aad.as_bytes(), value.as_bytes(), &mut out).unwrap();
            assert_eq!(STANDARD.encode(&out), expected, "{value} {aad}");
            assert_eq!(key(7).open(expected.as_bytes(), aad.as_bytes()).unwrap().expose(), value.as_bytes());
        }
    }

    const VECTORS: [&str; 4] = [
        "AAECAwQFBgcICQoLPCGJq2C1/kEP57sjS4Y33A==",
        "AAECAwQFBgcICQoLee2AE3hJvDEW35Xwh3YPlYwiOPNGRjdTYXDlnYHeIWr4",
        "AAECAwQFBgcICQoLee2AE3hJvDEW35Xwh3YPlYy6HuwMlT2bnox4ysm+znmH",
        "AAECAwQFBgcICQoLX/MqzN6WvGVXVl0KBc3gZ0JCYRvCnnis4k5TKD/cIQ==",
    ];

    proptest! {
        #[test]
        fn what_was_sealed_opens_with_its_key_and_context_alone(value: Vec<u8>, aad: Vec<u8>, flip: prop::sample::Index) {
            let mut out = Vec::new();
            let mut sealer = Sealer::default();
            let mut bytes = b"before".to_vec();
            sealer.seal_bytes(&key(1), &aad, &value, &mut bytes).unwrap();
            let opened = key(1).open_bytes(bytes["before".len()..].to_vec(), &aad).unwrap();
            prop_assert_eq!(opened.expose(), value.as_slice());
            sealer.seal(&key(1), &aad, &value, &mut out).unwrap();
            let opened = key(1).open(&out, &aad).unwrap();
            prop_assert_eq!(opened.expose(), value.as_slice());
            prop_assert!(key(2).open(&out, &aad).is_err());
            prop_assert!(key(1).open(&out, &[aad.as_slice(), b"x"].concat()).is_err());
            let mut raw = STANDARD.decode(&out).unwrap();
            let at = flip.index(raw.len());
            raw[at] ^= 1;
            prop_assert!(key(1).open(STANDARD.encode(&raw).as_bytes(), &aad).is_err());
            let mut again = Vec::new();
            sealer.seal(&key(1), &aad, &value, &mut again).unwrap();
            prop_assert_ne!(out, again, "a fresh iv for each value");
        }
    }

    #[test]
    fn without_chance_there_is_no_iv() {
        let mut sealer = Sealer::default();
        for _ in 0..3 {
            assert!(sealer.iv(|_| Err(())).is_err(), "not even the second time");
        }
        let seven = |seed: &mut [u8]| {
            seed.fill(7);
            Ok::<(), ()>(())
        };
        let ivs: std::collections::BTreeSet<_> = (0..IVS_AT_ONCE).map(|_| sealer.iv(seven).unwrap()).collect();
        assert_eq!((ivs.len(), sealer.next), (IVS_AT_ONCE, sealer.ivs.len()));
        assert!(sealer.iv(|_| Err(())).is_err() && sealer.iv(|_| Err(())).is_err(), "no iv comes twice");
    }

    #[test]
    fn nothing_shows_keys_or_plaintext() {
        let mut out = Vec::new();
        Sealer::default().seal(&key(9), b"", b"secret", &mut out).unwrap();
        let opened = key(9).open(&out, b"").unwrap();
        assert_eq!(
            format!("{opened:?} {:?} {:?}", key(9), KeyBytes::new([9; 32])),
            "*** DataKey { id: \"people/1\", .. } ***"
        );
    }
}
