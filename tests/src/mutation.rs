//! Blind fuzzing with a bound: real inputs, spoilt at random, into whatever must not panic on any of them.
//!
//! The same targets run under `cargo fuzz`, guided by coverage and without a bound (`compactor/fuzz`); here every test run
//! tries some thousand inputs, new ones each time. The seed is printed; `FIRN_SEED` repeats a run.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// An input never grows beyond this.
const INPUT_BYTES_MAX: usize = 64 << 10;

/// What parsers stumble over.
const TOKENS: [&[u8]; 30] = [
    b"",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b"\\u",
    b"\\ud800",
    b":",
    b",",
    b"null",
    b"true",
    b"0",
    b"-",
    b"-0",
    b".",
    b"e999",
    b"18446744073709551616",
    b"9223372036854775807",
    b"-9223372036854775809",
    b"0.1",
    b"NaN",
    b"\n",
    b"\0",
    b"\xff",
    b"\xc3",
    b"/",
    b"$",
    b"[[[[[[[[[[[[[[[[",
];

/// A random generator whose seed is printed, so that a failure can be seen again; `FIRN_SEED` sets it.
#[allow(clippy::disallowed_methods, reason = "the seed of a test is no configuration of the product")]
pub fn seeded(test: &str) -> SmallRng {
    let seed = std::env::var("FIRN_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random::<u32>);
    println!("{test}: FIRN_SEED={seed}");
    SmallRng::seed_from_u64(u64::from(seed))
}

/// Gives `target` every seed as it is, and then `executions` spoilt ones.
///
/// # Panics
/// When the target does; with the input.
pub fn fuzz(name: &str, seeds: &[Vec<u8>], executions: usize, mut target: impl FnMut(&[u8])) {
    let mut rng = seeded(name);
    let mut attempt = |input: &[u8]| {
        let passed = catch_unwind(AssertUnwindSafe(|| target(input))).is_ok();
        assert!(passed, "{name} fails on {} bytes: {}", input.len(), input.escape_ascii());
    };
    for seed in seeds {
        attempt(seed);
    }
    for _ in 0..executions {
        attempt(&spoilt(seeds, &mut rng));
    }
}

/// A seed with one to eight edits.
fn spoilt(seeds: &[Vec<u8>], rng: &mut SmallRng) -> Vec<u8> {
    let mut input = any(seeds, rng).to_vec();
    for _ in 0..rng.random_range(1..=8) {
        edit(&mut input, seeds, rng);
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

fn any<'a>(seeds: &'a [Vec<u8>], rng: &mut SmallRng) -> &'a [u8] {
    &seeds[rng.random_range(0..seeds.len())]
}

fn edit(input: &mut Vec<u8>, seeds: &[Vec<u8>], rng: &mut SmallRng) {
    let at = rng.random_range(0..=input.len());
    // Short pieces most of the time, long ones now and then.
    let reach = if rng.random_range(0..4) == 0 { input.len() } else { 8 };
    let end = (at + rng.random_range(0..=reach)).min(input.len());
    match rng.random_range(0..6) {
        0 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
        1 if at < input.len() => input[at] = rng.random(),
        2 => drop(input.drain(at..end)),
        3 => {
            let piece = input[at..end].to_vec();
            let to = rng.random_range(0..=input.len());
            input.splice(to..to, piece);
        }
        4 => {
            let other = any(seeds, rng);
            let from = rng.random_range(0..=other.len());
            let to = (from + rng.random_range(0..=reach)).min(other.len());
            input.splice(at..end, other[from..to].iter().copied());
        }
        _ => {
            let token = TOKENS[rng.random_range(0..TOKENS.len())];
            input.splice(at..end, token.iter().copied());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_cannot_bear_an_input_is_told_with_it() {
        let seeds = [b"{\"a\":1}".to_vec()];
        let mut seen = std::collections::BTreeSet::new();
        fuzz("distinct", &seeds, 500, |input| {
            seen.insert(input.to_vec());
        });
        assert!(seen.len() > 300, "{} different inputs", seen.len());
        let failure = catch_unwind(|| fuzz("fails", &seeds, 0, |input| assert!(input.is_empty())));
        let message = failure.unwrap_err();
        assert_eq!(message.downcast_ref::<String>().map(String::as_str), Some(r#"fails fails on 7 bytes: {\"a\":1}"#));
    }
}
