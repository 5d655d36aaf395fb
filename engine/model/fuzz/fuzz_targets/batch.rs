//! `cargo +nightly fuzz run batch` in `engine/model`: decoding of batches from outside.
//!
//! Called by cargo-fuzz only. Invariants and what is done: `body.rs`.

#![no_main]

mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
