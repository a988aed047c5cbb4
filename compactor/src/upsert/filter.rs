//! Which keys a run touches, approximately: a Bloom filter that threads fill together (Bloom 1970; two probes from one
//! 64-bit hash, Kirsch and Mitzenmacher 2006).

use std::sync::atomic::{AtomicU64, Ordering};

/// Bits a key; with two probes about 3 % of other keys pass.
const BITS_PER_KEY: u64 = 12;
const PROBES: u64 = 2;

/// A set of key hashes that may say yes by mistake, never no.
#[derive(Debug)]
pub struct KeyFilter {
    words: Vec<AtomicU64>,
}

impl KeyFilter {
    /// For about `keys` keys, in at most `bytes_max` bytes.
    pub fn new(keys: u64, bytes_max: u64) -> Self {
        let words = (keys.saturating_mul(BITS_PER_KEY) / 64).clamp(1, (bytes_max / 8).max(1));
        Self { words: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Holds every key.
    pub fn all() -> Self {
        Self { words: vec![AtomicU64::new(u64::MAX)] }
    }

    fn places(&self, hash: u64) -> impl Iterator<Item = (usize, u64)> + '_ {
        let (one, other) = (hash, hash.rotate_left(32) | 1);
        let bits = self.words.len() as u64 * 64;
        (0..PROBES).map(move |probe| {
            let bit = one.wrapping_add(probe.wrapping_mul(other)) % bits;
            ((bit / 64) as usize, 1 << (bit % 64))
        })
    }

    /// Adds a key.
    pub fn insert(&self, hash: u64) {
        for (word, bit) in self.places(hash) {
            self.words[word].fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Whether the key may have been added.
    pub fn may_hold(&self, hash: u64) -> bool {
        self.places(hash).all(|(word, bit)| self.words[word].load(Ordering::Relaxed) & bit != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upsert::key::hash;

    #[test]
    fn every_key_added_is_found_and_few_others_are() {
        let filter = KeyFilter::new(10_000, 1 << 20);
        let key = |n: u32| hash(&n.to_le_bytes());
        (0..10_000).for_each(|n| filter.insert(key(n)));
        assert!((0..10_000).all(|n| filter.may_hold(key(n))));
        assert!((10_000..20_000).filter(|n| filter.may_hold(key(*n))).count() < 500);
    }
}
