//! Sixty-four bytes of JSON at a time, as bit masks: which of them are quotes, backslashes, brackets.
//!
//! What the processor can do is found out when the program runs: AVX-512, AVX2, or plain 64-bit words where there is
//! neither. A loop over blocks is compiled once for each, by [`per_processor`], so that nothing is decided inside of it.

/// Bytes of a block, and bits of a mask: the lowest is the first byte.
pub(super) const BLOCK: usize = 64;

/// What the bytes of a block are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Masks {
    pub quote: u64,
    pub backslash: u64,
    /// `{` and `[`.
    pub opener: u64,
    /// `{`, `}`, `[`, `]`, `:` and `,`.
    pub operator: u64,
    /// Blank or below it.
    pub space: u64,
    /// Below a blank.
    pub control: u64,
}

/// Defines a function whose last parameter, `|block| masks`, is filled in for the processor at hand. The loop must be
/// `#[inline(always)]`: only then is it compiled for the processor, too.
macro_rules! per_processor {
    ($(#[$doc:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty = $body:path;) => {
        $(#[$doc])*
        #[inline]
        #[cfg_attr(target_arch = "x86_64", allow(unsafe_code, reason = "the processor is asked first"))]
        $visibility fn $name($($argument: $type),*) -> $result {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw")]
                fn avx512($($argument: $type),*) -> $result {
                    $body($($argument,)* |block| $crate::decode::blocks::x86::avx512(block))
                }
                #[target_feature(enable = "avx2")]
                fn avx2($($argument: $type),*) -> $result {
                    $body($($argument,)* |block| $crate::decode::blocks::x86::avx2(block))
                }
                if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512f") {
                    // SAFETY: the processor has what the function is compiled for.
                    return unsafe { avx512($($argument),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has what the function is compiled for.
                    return unsafe { avx2($($argument),*) };
                }
            }
            $body($($argument,)* $crate::decode::blocks::portable)
        }
    };
}
pub(super) use per_processor;

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::{
        __m256i, _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_min_epu8, _mm256_movemask_epi8, _mm256_or_si256,
        _mm256_set1_epi8, _mm512_cmpeq_epi8_mask, _mm512_cmple_epu8_mask, _mm512_cmplt_epu8_mask, _mm512_loadu_si512,
        _mm512_or_si512, _mm512_set1_epi8,
    };

    use super::{BLOCK, Masks};

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    #[allow(unsafe_code, reason = "vectors are loaded by address")]
    pub(in super::super) fn avx512(block: &[u8; BLOCK]) -> Masks {
        // SAFETY: the address is that of 64 bytes.
        let bytes = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
        let is = |byte: u8| _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(byte.cast_signed()));
        // The bit that tells `[` from `{` and `]` from `}`.
        let folded = _mm512_or_si512(bytes, _mm512_set1_epi8(0x20));
        let bracket = |byte: u8| _mm512_cmpeq_epi8_mask(folded, _mm512_set1_epi8(byte.cast_signed()));
        let blank = _mm512_set1_epi8(0x20);
        Masks {
            quote: is(b'"'),
            backslash: is(b'\\'),
            opener: bracket(b'{'),
            operator: bracket(b'{') | bracket(b'}') | is(b':') | is(b','),
            space: _mm512_cmple_epu8_mask(bytes, blank),
            control: _mm512_cmplt_epu8_mask(bytes, blank),
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    #[allow(unsafe_code, reason = "vectors are loaded by address")]
    pub(in super::super) fn avx2(block: &[u8; BLOCK]) -> Masks {
        // SAFETY: the addresses are those of the two halves of 64 bytes.
        let halves: [__m256i; 2] =
            unsafe { [_mm256_loadu_si256(block.as_ptr().cast()), _mm256_loadu_si256(block.as_ptr().add(32).cast())] };
        let join = |[low, high]: [__m256i; 2]| {
            let bits = |half| u64::from(_mm256_movemask_epi8(half).cast_unsigned());
            bits(low) | bits(high) << 32
        };
        // Not with `map`, which is compiled for any processor and would call each closure.
        let equal = |[low, high]: [__m256i; 2], byte: u8| {
            let byte = _mm256_set1_epi8(byte.cast_signed());
            [_mm256_cmpeq_epi8(low, byte), _mm256_cmpeq_epi8(high, byte)]
        };
        let either = |a: [__m256i; 2], b: [__m256i; 2]| [_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])];
        let at_most = |byte: u8| {
            let byte = _mm256_set1_epi8(byte.cast_signed());
            let least = |half| _mm256_cmpeq_epi8(_mm256_min_epu8(half, byte), half);
            [least(halves[0]), least(halves[1])]
        };
        let blank = _mm256_set1_epi8(0x20);
        let folded = [_mm256_or_si256(halves[0], blank), _mm256_or_si256(halves[1], blank)];
        let openers = equal(folded, b'{');
        let brackets = either(openers, equal(folded, b'}'));
        let others = either(equal(halves, b':'), equal(halves, b','));
        Masks {
            quote: join(equal(halves, b'"')),
            backslash: join(equal(halves, b'\\')),
            opener: join(openers),
            operator: join(either(brackets, others)),
            space: join(at_most(0x20)),
            control: join(at_most(0x1f)),
        }
    }
}

/// The same in words of eight bytes.
#[inline]
pub(super) fn portable(block: &[u8; BLOCK]) -> Masks {
    let mut masks = Masks { quote: 0, backslash: 0, opener: 0, operator: 0, space: 0, control: 0 };
    for (i, word) in block.as_chunks::<8>().0.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let put = |mask: &mut u64, hits: u64| *mask |= gather(hits) << (8 * i);
        let folded = word | (ONES * 0x20);
        put(&mut masks.quote, equal(word, b'"'));
        put(&mut masks.backslash, equal(word, b'\\'));
        let opener = equal(folded, b'{');
        put(&mut masks.opener, opener);
        put(&mut masks.operator, opener | equal(folded, b'}') | equal(word, b':') | equal(word, b','));
        let control = below_blank(word);
        put(&mut masks.control, control);
        put(&mut masks.space, control | equal(word, b' '));
    }
    masks
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;
/// Every second bit, from the second on.
const ODD: u64 = 0xAAAA_AAAA_AAAA_AAAA;

/// The high bit of each byte that is `byte`. No carry passes between the bytes.
#[inline]
fn equal(word: u64, byte: u8) -> u64 {
    let different = word ^ (ONES * u64::from(byte));
    !(((different & !HIGHS) + !HIGHS) | different) & HIGHS
}

/// The high bit of each byte below a blank.
#[inline]
fn below_blank(word: u64) -> u64 {
    !((word & !HIGHS) + ONES * 0x60) & !word & HIGHS
}

/// The high bits of eight bytes as the low byte of a word.
#[inline]
fn gather(highs: u64) -> u64 {
    (highs >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

/// Each bit is whether the number of bits up to and with it is odd: between quotes, one.
#[inline]
pub(super) fn odd_so_far(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}

/// The last bytes of a text, and blanks.
#[inline]
pub(super) fn padded(rest: &[u8]) -> [u8; BLOCK] {
    let mut block = [b' '; BLOCK];
    let length = rest.len().min(BLOCK);
    block[..length].copy_from_slice(&rest[..length]);
    block
}

/// The bytes that a backslash stands before; `carry` says whether the first of the block is one, then of the next.
#[inline]
pub(super) fn escaped(backslash: u64, carry: &mut u64) -> u64 {
    if backslash == 0 {
        return std::mem::take(carry);
    }
    // Of a run of backslashes every second one is itself escaped, whichever bit the run begins at: subtracting a run that
    // begins at an odd bit carries to its end and leaves the odd bits of it different.
    let free = backslash & !*carry;
    let maybe = free << 1;
    let series = (maybe | ODD).wrapping_sub(free);
    let escapes = series ^ ODD;
    let found = escapes ^ (free | *carry);
    *carry = (escapes & backslash) >> 63;
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plainly(block: &[u8; BLOCK]) -> Masks {
        let mask =
            |test: fn(u8) -> bool| block.iter().enumerate().fold(0, |mask, (i, b)| mask | u64::from(test(*b)) << i);
        Masks {
            quote: mask(|b| b == b'"'),
            backslash: mask(|b| b == b'\\'),
            opener: mask(|b| b"{[".contains(&b)),
            operator: mask(|b| b"{}[]:,".contains(&b)),
            space: mask(|b| b <= b' '),
            control: mask(|b| b < b' '),
        }
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "else it is not compiled for the processor, see `per_processor`")]
    fn one(block: &[u8; BLOCK], masks: impl Fn(&[u8; BLOCK]) -> Masks) -> Masks {
        masks(block)
    }
    per_processor! {
        fn here(block: &[u8; BLOCK]) -> Masks = one;
    }

    proptest! {
        #[test]
        fn every_processor_sees_the_same(bytes in prop::collection::vec(any::<u8>(), BLOCK)) {
            let block: &[u8; BLOCK] = bytes.as_slice().try_into().unwrap();
            prop_assert_eq!(portable(block), plainly(block));
            prop_assert_eq!(here(block), plainly(block));
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") {
                #[allow(unsafe_code, reason = "the processor was asked")]
                // SAFETY: the processor has it.
                let seen = unsafe { x86::avx2(block) };
                prop_assert_eq!(seen, plainly(block));
            }
        }

        #[test]
        fn every_second_backslash_of_a_run_escapes(
            bytes in prop::collection::vec(prop_oneof![3 => Just(b'\\'), 1 => Just(b'x')], 4 * BLOCK),
        ) {
            let mut carry = 0;
            let mut expected = false;
            for block in bytes.as_chunks::<BLOCK>().0 {
                let found = escaped(plainly(block).backslash, &mut carry);
                for (i, byte) in block.iter().enumerate() {
                    prop_assert_eq!(found >> i & 1 == 1, expected, "byte {}", i);
                    expected = !expected && *byte == b'\\';
                }
            }
        }

        #[test]
        fn bytes_between_quotes_are_odd(bits: u64) {
            let plain = (0..64).fold(0, |all, i| all | u64::from((bits << (63 - i)).count_ones() % 2) << i);
            prop_assert_eq!(odd_so_far(bits), plain);
        }
    }
}
