//! `cargo +nightly fuzz run file` in `engine/wasm`: whatever is given as a module's file.
//!
//! Called by cargo-fuzz only. Invariants and what is done: `file_body.rs`.

#![no_main]

mod file_body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    file_body::file(data);
    file_body::described(data);
});
