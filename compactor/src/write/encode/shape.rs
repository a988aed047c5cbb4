//! Where the values of a column lie below its parents, as runs.
//!
//! A slot is one entry of Parquet's levels: a row, or an element of a list, or the place of a parent that is null or
//! empty. All columns of a struct have one shape, and a parent that is absent for a thousand rows is one run of it, so a
//! column that is null almost everywhere costs a few runs, not a level per row.

use std::rc::Rc;

use arrow_array::OffsetSizeTrait;
use arrow_buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};

/// Consecutive slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// Positions of the array at hand, `from` on.
    Here { from: usize, count: usize },
    /// The value or a parent of it is null or empty; the definition level says which.
    Absent { level: u32, count: usize },
}

/// The slots of an array.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    runs: Vec<Run>,
    /// Repetition levels as runs, one level per slot; `None` where no parent is a list.
    pub repetition: Option<Rc<Vec<(u32, usize)>>>,
}

impl Shape {
    /// Rows, at the top.
    pub fn rows(count: usize) -> Self {
        Self { runs: vec![Run::Here { from: 0, count }], repetition: None }
    }

    /// Visits the slots in order; positions that are null are absent with `level`.
    #[inline]
    pub fn visit(&self, nulls: Option<&NullBuffer>, level: u32, mut each: impl FnMut(Run)) {
        let Some(nulls) = nulls.filter(|n| n.null_count() > 0) else {
            self.runs.iter().copied().for_each(each);
            return;
        };
        let bits = nulls.inner();
        for run in &self.runs {
            let Run::Here { from, count } = *run else {
                each(*run);
                continue;
            };
            runs_of_bits(bits, from, count, |set, from, count| {
                each(if set { Run::Here { from, count } } else { Run::Absent { level, count } });
            });
        }
    }

    /// The children of a struct: where it is null, they are absent with `level`.
    pub fn below_struct(&self, nulls: &NullBuffer, level: u32) -> Self {
        let mut runs = Vec::with_capacity(self.runs.len());
        self.visit(Some(nulls), level, |run| push(&mut runs, run));
        Self { runs, repetition: self.repetition.clone() }
    }

    /// The elements of a list: where it is null, they are absent with `null`, where it is empty, with `empty`;
    /// `repetition` is the level of every element but the first.
    pub fn below_list<O: OffsetSizeTrait>(
        &self,
        offsets: &OffsetBuffer<O>,
        nulls: Option<&NullBuffer>,
        null: u32,
        empty: u32,
        repetition: u32,
    ) -> Self {
        let mut runs = Vec::with_capacity(self.runs.len());
        let mut above = Above::new(self.repetition.as_deref());
        self.visit(nulls, null, |run| match run {
            Run::Absent { count, .. } => {
                push(&mut runs, run);
                above.copy(count);
            }
            Run::Here { from, count } => {
                for ends in offsets[from..=from + count].windows(2) {
                    let (start, end) = (ends[0].as_usize(), ends[1].as_usize());
                    above.copy(1);
                    if start == end {
                        push(&mut runs, Run::Absent { level: empty, count: 1 });
                    } else {
                        push(&mut runs, Run::Here { from: start, count: end - start });
                        above.push(repetition, end - start - 1);
                    }
                }
            }
        });
        Self { runs, repetition: Some(Rc::new(above.levels)) }
    }
}

/// Visits the runs of equal bits among the `count` bits at `from`: whether they are set, where they begin, how many. Most
/// are short, so a word is looked at as a whole.
#[inline]
fn runs_of_bits(bits: &BooleanBuffer, from: usize, count: usize, mut each: impl FnMut(bool, usize, usize)) {
    let (bytes, offset, end) = (bits.values(), bits.offset(), from + count);
    let (mut at, mut start, mut set) = (from, from, None);
    while at < end {
        let bit = offset + at;
        let mut word = word_at(bytes, bit / 8) >> (bit % 8);
        let mut left = (64 - bit % 8).min(end - at);
        let mut run = *set.get_or_insert(word & 1 == 1);
        loop {
            let same = (if run { word.trailing_ones() } else { word.trailing_zeros() } as usize).min(left);
            at += same;
            left -= same;
            if left == 0 {
                break;
            }
            each(run, start, at - start);
            word >>= same;
            (start, run) = (at, !run);
        }
        set = Some(run);
    }
    if let Some(set) = set {
        each(set, start, end - start);
    }
}

/// Eight bytes at `at`, or what there is of them.
#[inline]
fn word_at(bytes: &[u8], at: usize) -> u64 {
    let rest = &bytes[at..];
    rest.first_chunk::<8>().map_or_else(
        || rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
        |word| u64::from_le_bytes(*word),
    )
}

/// Appends a run, as part of the last one where it continues it.
fn push(runs: &mut Vec<Run>, run: Run) {
    match (runs.last_mut(), run) {
        (Some(Run::Here { from, count }), Run::Here { from: next, count: more }) if *from + *count == next => {
            *count += more;
        }
        (Some(Run::Absent { level, count }), Run::Absent { level: next, count: more }) if *level == next => {
            *count += more;
        }
        _ => runs.push(run),
    }
}

/// Repetition levels of a list's elements, made from those of the list's own slots.
struct Above<'a> {
    own: Option<&'a Vec<(u32, usize)>>,
    /// The run that comes next, and what of it is used.
    next: usize,
    used: usize,
    levels: Vec<(u32, usize)>,
}

impl<'a> Above<'a> {
    fn new(own: Option<&'a Vec<(u32, usize)>>) -> Self {
        Self { own, next: 0, used: 0, levels: Vec::new() }
    }

    /// The levels of the next `count` slots; a row's is zero.
    fn copy(&mut self, mut count: usize) {
        let Some(own) = self.own else { return self.push(0, count) };
        while count > 0 {
            let (level, length) = own[self.next];
            let here = count.min(length - self.used);
            self.push(level, here);
            count -= here;
            self.used += here;
            if self.used == length {
                (self.next, self.used) = (self.next + 1, 0);
            }
        }
    }

    fn push(&mut self, level: u32, count: usize) {
        match self.levels.last_mut() {
            Some((last, length)) if *last == level => *length += count,
            _ if count > 0 => self.levels.push((level, count)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_of_bits_are_the_bits(
            runs in prop::collection::vec(prop_oneof![3 => 1..4usize, 1 => 1..200usize], 1..40),
            first: bool,
            from: prop::sample::Index,
            cut in 0..70usize,
        ) {
            let values: Vec<bool> = runs.iter().enumerate().flat_map(|(i, n)| std::iter::repeat_n(first ^ (i % 2 == 0), *n)).collect();
            let cut = cut.min(values.len() - 1);
            let bits = BooleanBuffer::from(values.as_slice()).slice(cut, values.len() - cut);
            let from = from.index(bits.len());
            let mut seen = Vec::new();
            let mut last = None;
            runs_of_bits(&bits, from, bits.len() - from, |set, at, count| {
                assert!(count > 0 && last != Some(set) && at == from + seen.len());
                last = Some(set);
                seen.extend(std::iter::repeat_n(set, count));
            });
            prop_assert_eq!(seen.as_slice(), &values[cut + from..]);
        }
    }
}
