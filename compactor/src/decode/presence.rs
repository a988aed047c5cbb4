//! Which positions of a column have a value: a bit each, once one of them has none.

use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer};

/// The positions filled so far. Those without a value cost nothing until the next value comes.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// Bits of the positions, the lowest first; none as long as every position has a value.
    words: Vec<u64>,
    length: usize,
    present: usize,
}

impl Presence {
    /// Positions filled so far.
    #[inline]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Leaves the positions up to `length` without a value.
    #[inline]
    pub fn pad(&mut self, length: usize) {
        if self.words.is_empty() && self.present == self.length && length > self.length {
            self.spell_out();
        }
        self.length = self.length.max(length);
    }

    /// The next position has a value.
    #[inline]
    pub fn push(&mut self) {
        if !self.words.is_empty() || self.present < self.length {
            let word = self.length / 64;
            if word >= self.words.len() {
                self.words.resize(word + 1, 0);
            }
            self.words[word] |= 1 << (self.length % 64);
        }
        self.length += 1;
        self.present += 1;
    }

    /// Writes a bit for each of the positions, all of which have values.
    #[cold]
    fn spell_out(&mut self) {
        self.words.resize(self.length / 64, u64::MAX);
        if !self.length.is_multiple_of(64) {
            self.words.push((1 << (self.length % 64)) - 1);
        }
    }

    /// Forgets the positions from `length` on.
    pub fn truncate(&mut self, length: usize) {
        if length >= self.length {
            return;
        }
        if self.words.is_empty() && self.present == self.length {
            self.present = length;
        } else {
            self.words.truncate(length.div_ceil(64));
            if let Some(last) = self.words.get_mut(length / 64) {
                *last &= (1 << (length % 64)) - 1;
            }
            self.present = self.words.iter().map(|word| word.count_ones() as usize).sum();
        }
        self.length = length;
    }

    /// Positions that have a value.
    pub fn present(&self) -> usize {
        self.present
    }

    /// The positions as arrow has them, `None` when each has a value; none are left afterwards.
    pub fn finish(&mut self) -> Option<NullBuffer> {
        let Self { mut words, length, present } = std::mem::take(self);
        if present == length {
            return None;
        }
        self.words = Vec::with_capacity(words.len());
        words.resize(length.div_ceil(64), 0);
        Some(NullBuffer::new(BooleanBuffer::new(Buffer::from_vec(words), 0, length)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn positions_are_kept(steps in prop::collection::vec((0..4u8, 0..150usize), 0..60)) {
            let mut presence = Presence::default();
            let mut plain: Vec<bool> = Vec::new();
            for (step, count) in steps {
                match step {
                    0 | 1 => {
                        (0..count).for_each(|_| presence.push());
                        plain.resize(plain.len() + count, true);
                    }
                    2 => {
                        let length = plain.len() + count;
                        presence.pad(length);
                        plain.resize(length, false);
                    }
                    _ => {
                        let length = plain.len().saturating_sub(count);
                        presence.truncate(length);
                        plain.truncate(length);
                    }
                }
                prop_assert_eq!(presence.len(), plain.len());
                prop_assert_eq!(presence.present(), plain.iter().filter(|p| **p).count());
            }
            let nulls = presence.finish();
            prop_assert_eq!(nulls.is_none(), !plain.contains(&false));
            let seen: Vec<bool> = nulls.map_or_else(|| vec![true; plain.len()], |n| n.iter().collect());
            prop_assert_eq!(seen, plain);
            prop_assert_eq!(presence.len(), 0);
        }
    }
}
