//! `cargo +nightly fuzz run parsers` in `compactor/`: the first byte of an input says which parser gets the rest.
#![no_main]

#[path = "../../../tests/tests/it/fuzz/parsers.rs"]
mod parsers;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Some((first, rest)) = input.split_first() {
        let (_, target) = parsers::TARGETS[usize::from(*first) % parsers::TARGETS.len()];
        target(rest);
    }
});
