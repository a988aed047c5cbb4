//! Parquet's hybrid of run lengths and bit packing, written run by run.
//!
//! A run of eight or more is a run length; everything else is packed in groups of eight. A run of any length costs the
//! same, which is what makes columns of nulls cheap.

/// Values of one group.
const GROUP: usize = 8;
/// Groups that fit the one byte that is kept for a packed run's header.
const GROUPS_MAX: u8 = 63;

/// Levels or dictionary indices of one page.
#[derive(Debug, Default)]
pub(super) struct Hybrid {
    out: Vec<u8>,
    /// Bits of a value, at most 32.
    width: u8,
    /// The run in progress.
    value: u32,
    count: usize,
    /// Values of an unfinished group: packed, when they are of eight bits or fewer, else as they are.
    packed: u64,
    group: [u32; GROUP],
    filled: usize,
    /// The number one, packed eight times.
    ones: u64,
    /// Where the header of the packed run in progress is, and its groups.
    header: Option<usize>,
    groups: u8,
}

/// Bits needed for values up to `max`.
pub(super) fn width_of(max: u32) -> u8 {
    (u32::BITS - max.leading_zeros()) as u8
}

impl Hybrid {
    /// For values of `width` bits.
    pub fn new(width: u8) -> Self {
        let ones = if width > 8 { 0 } else { (0..GROUP).fold(0, |ones, _| ones << width | 1) };
        Self { width, ones, ..Self::default() }
    }

    /// Bytes so far, about.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Bytes held.
    pub fn capacity(&self) -> usize {
        self.out.capacity()
    }

    /// `count` times `value`.
    #[inline]
    pub fn repeat(&mut self, value: u32, count: usize) {
        if value != self.value {
            self.end_run();
            self.value = value;
        }
        self.count += count;
    }

    /// All of `values`.
    pub fn extend(&mut self, values: &[u32]) {
        let mut rest = values;
        while let Some(first) = rest.first() {
            let run = rest.iter().take_while(|v| *v == first).count();
            if run < GROUP && self.count == 0 && self.filled == 0 && rest.len() >= GROUP {
                if self.width <= 8 {
                    self.packed = rest[..GROUP].iter().rev().fold(0, |bits, v| bits << self.width | u64::from(*v));
                } else {
                    self.group.copy_from_slice(&rest[..GROUP]);
                }
                self.pack();
                rest = &rest[GROUP..];
            } else {
                self.repeat(*first, run);
                rest = &rest[run..];
                if run >= GROUP {
                    self.end_run();
                }
            }
        }
    }

    /// Appends what is held to `to` and begins anew.
    pub fn finish_into(&mut self, to: &mut Vec<u8>) {
        self.end_run();
        if self.filled > 0 {
            self.value = 0;
            self.fill(GROUP - self.filled);
            self.pack();
        }
        self.end_packed();
        to.extend_from_slice(&self.out);
        self.out.clear();
        self.value = 0;
    }

    fn end_run(&mut self) {
        let mut count = std::mem::take(&mut self.count);
        if self.filled > 0 {
            let here = count.min(GROUP - self.filled);
            self.fill(here);
            count -= here;
            if self.filled == GROUP {
                self.pack();
            }
        }
        if count >= GROUP {
            self.end_packed();
            varint(&mut self.out, (count as u64) << 1);
            let bytes = usize::from(self.width).div_ceil(8);
            self.out.extend_from_slice(&self.value.to_le_bytes()[..bytes]);
        } else if count > 0 {
            // Nothing is in the group: else it would have taken the rest of the run.
            self.fill(count);
        }
    }

    /// Puts the run's value `count` times into the group, which has room for it.
    #[inline]
    fn fill(&mut self, count: usize) {
        if self.width <= 8 {
            // The lowest `count` of the ones, each times the value.
            let bits = count as u32 * u32::from(self.width);
            let ones = self.ones & u64::MAX.checked_shr(u64::BITS - bits).unwrap_or_default();
            self.packed |= (ones * u64::from(self.value)) << (self.filled as u32 * u32::from(self.width));
        } else {
            self.group[self.filled..self.filled + count].fill(self.value);
        }
        self.filled += count;
    }

    /// Appends the whole group and begins another.
    fn pack(&mut self) {
        if self.header.is_none() {
            self.header = Some(self.out.len());
            self.out.push(0);
        }
        let width = usize::from(self.width);
        if width <= 8 {
            let packed = std::mem::take(&mut self.packed);
            self.out.extend_from_slice(&packed.to_le_bytes()[..width]);
        } else {
            let (mut bits, mut held) = (0u64, 0);
            for value in self.group {
                bits |= u64::from(value) << held;
                held += width;
                while held >= 8 {
                    self.out.push(bits as u8);
                    bits >>= 8;
                    held -= 8;
                }
            }
        }
        self.filled = 0;
        self.groups += 1;
        if self.groups == GROUPS_MAX {
            self.end_packed();
        }
    }

    fn end_packed(&mut self) {
        if let Some(header) = self.header.take() {
            self.out[header] = self.groups << 1 | 1;
            self.groups = 0;
        }
    }
}

/// Appends an unsigned LEB128 number.
pub(super) fn varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads what the specification describes, in the plainest way.
    fn read(bytes: &[u8], width: u8, count: usize) -> Vec<u32> {
        let mut values = Vec::new();
        let mut at = 0;
        while values.len() < count {
            let (mut header, mut shift) = (0u64, 0);
            loop {
                header |= u64::from(bytes[at] & 0x7f) << shift;
                shift += 7;
                at += 1;
                if bytes[at - 1] < 0x80 {
                    break;
                }
            }
            let (length, packed) = ((header >> 1) as usize, header & 1 == 1);
            let bytes_here = if packed { length * usize::from(width) } else { usize::from(width).div_ceil(8) };
            let bit = |n: usize| u32::from(bytes[at + n / 8] >> (n % 8) & 1);
            let value = |n: usize| (0..usize::from(width)).map(|b| bit(n * usize::from(width) + b) << b).sum::<u32>();
            if packed {
                values.extend((0..length * 8).map(value));
            } else {
                values.extend(std::iter::repeat_n(value(0), length));
            }
            at += bytes_here;
        }
        assert_eq!(at, bytes.len());
        values.truncate(count);
        values
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            width in 1u8..=20,
            runs in prop::collection::vec((any::<u32>(), prop_oneof![1usize..3, 1usize..30, 1usize..2000]), 0..60),
            at_once in any::<bool>(),
        ) {
            let runs: Vec<_> = runs.iter().map(|(v, n)| (v & ((1 << width) - 1), *n)).collect();
            let expected: Vec<u32> = runs.iter().flat_map(|(v, n)| std::iter::repeat_n(*v, *n)).collect();
            let mut hybrid = Hybrid::new(width);
            for _ in 0..2 {
                if at_once {
                    hybrid.extend(&expected);
                } else {
                    for (value, count) in &runs {
                        hybrid.repeat(*value, *count);
                    }
                }
                let mut bytes = Vec::new();
                hybrid.finish_into(&mut bytes);
                prop_assert_eq!(read(&bytes, width, expected.len()), expected.clone());
            }
        }
    }
}
