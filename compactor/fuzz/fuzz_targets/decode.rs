//! `cargo +nightly fuzz run decode` in `compactor/`: the decoder's target, guided by coverage.
#![no_main]

#[path = "../../../tests/tests/it/fuzz/decode.rs"]
mod decode;

libfuzzer_sys::fuzz_target!(|input: &[u8]| decode::target(input));
