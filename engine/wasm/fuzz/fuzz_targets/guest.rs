//! `cargo +nightly fuzz run guest` in `engine/wasm`: whatever a guest hands to the host.
//!
//! Called by cargo-fuzz only. Invariants and what is done: `body.rs`.

#![no_main]

mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    body::run(data, &mut body::Seen::default());
});
