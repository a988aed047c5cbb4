//! The distinct values of a column chunk, each with its number.

use std::hash::{BuildHasher, RandomState};

/// A dictionary page takes at most this many bytes; the values that follow are written plainly.
pub(super) const BYTES_MAX: usize = 1 << 20;
/// A search gives up after this many steps, so that values made to collide cost little.
const STEPS_MAX: usize = 64;

/// Numbers by hash, open addressing. Both kinds of dictionary are one of these beside their values.
#[derive(Debug)]
struct Index {
    /// Number plus one; zero is empty. A power of two long, at most half full; empty until the first value.
    slots: Vec<u32>,
    hashes: Vec<u32>,
    seed: u64,
}

impl Index {
    fn new() -> Self {
        Self { slots: Vec::new(), hashes: Vec::new(), seed: RandomState::new().hash_one(0) }
    }

    /// The number of the value with this hash that `same` knows, a new number (`true`), or `None` when it would take
    /// too long to find out.
    #[inline]
    fn find(&mut self, hash: u64, same: impl Fn(u32) -> bool) -> Option<(u32, bool)> {
        if self.slots.len() <= self.hashes.len() * 2 {
            self.grow();
        }
        let (mask, short) = (self.slots.len() - 1, (hash >> 32) as u32);
        let mut at = short as usize & mask;
        for _ in 0..STEPS_MAX {
            let Some(number) = self.slots[at].checked_sub(1) else {
                self.hashes.push(short);
                self.slots[at] = self.hashes.len() as u32;
                return Some((self.hashes.len() as u32 - 1, true));
            };
            if self.hashes[number as usize] == short && same(number) {
                return Some((number, false));
            }
            at = (at + 1) & mask;
        }
        None
    }

    #[cold]
    fn grow(&mut self) {
        let length = (self.slots.len() * 4).max(16);
        self.slots.clear();
        self.slots.resize(length, 0);
        for (number, hash) in self.hashes.iter().enumerate() {
            let mut at = *hash as usize & (length - 1);
            while self.slots[at] != 0 {
                at = (at + 1) & (length - 1);
            }
            self.slots[at] = number as u32 + 1;
        }
    }

    fn memory(&self) -> usize {
        4 * (self.slots.capacity() + self.hashes.capacity())
    }
}

/// Values of four or eight bytes, by their bits.
#[derive(Debug)]
pub(super) struct Numbers {
    index: Index,
    values: Vec<u64>,
}

impl Numbers {
    pub fn new() -> Self {
        Self { index: Index::new(), values: Vec::new() }
    }

    /// The number of a value, and whether it is new; `None` when the dictionary takes no more.
    #[inline]
    pub fn find(&mut self, value: u64) -> Option<(u32, bool)> {
        let values = &self.values;
        let found = self.index.find(mix(value, self.index.seed), |number| values[number as usize] == value)?;
        if found.1 {
            self.values.push(value);
            return (self.values.len() * 8 <= BYTES_MAX).then_some(found);
        }
        Some(found)
    }

    pub fn values(&self) -> &[u64] {
        &self.values
    }

    pub fn memory(&self) -> usize {
        self.index.memory() + 8 * self.values.capacity()
    }
}

/// Texts and bytes, kept as the dictionary page wants them: each after its length in four bytes.
#[derive(Debug)]
pub(super) struct Texts {
    index: Index,
    page: Vec<u8>,
    ends: Vec<u32>,
}

impl Texts {
    pub fn new() -> Self {
        Self { index: Index::new(), page: Vec::new(), ends: Vec::new() }
    }

    /// The number of a value, and whether it is new; `None` when the dictionary takes no more.
    #[inline]
    pub fn find(&mut self, value: &[u8]) -> Option<(u32, bool)> {
        let (page, ends) = (&self.page, &self.ends);
        let hash = hash(value, self.index.seed);
        let found = self.index.find(hash, |number| get(page, ends, number) == value)?;
        if found.1 {
            if self.page.len() + 4 + value.len() > BYTES_MAX {
                return None;
            }
            self.page.extend_from_slice(&(value.len() as u32).to_le_bytes());
            self.page.extend_from_slice(value);
            self.ends.push(self.page.len() as u32);
        }
        Some(found)
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn get(&self, number: u32) -> &[u8] {
        get(&self.page, &self.ends, number)
    }

    pub fn page(&self) -> &[u8] {
        &self.page
    }

    pub fn memory(&self) -> usize {
        self.index.memory() + self.page.capacity() + 4 * self.ends.capacity()
    }
}

#[inline]
fn get<'a>(page: &'a [u8], ends: &[u32], number: u32) -> &'a [u8] {
    let number = number as usize;
    let start = if number == 0 { 0 } else { ends[number - 1] as usize };
    &page[start + 4..ends[number] as usize]
}

#[inline]
fn mix(a: u64, b: u64) -> u64 {
    let wide = u128::from(a ^ 0x9E37_79B9_7F4A_7C15) * u128::from(b | 1);
    (wide as u64 ^ (wide >> 64) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[inline]
fn hash(value: &[u8], seed: u64) -> u64 {
    let mut state = seed ^ value.len() as u64;
    let mut rest = value;
    while let Some((word, more)) = rest.split_first_chunk::<8>() {
        state = mix(state ^ u64::from_le_bytes(*word), seed);
        rest = more;
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(state ^ u64::from_le_bytes(last), seed)
}
