//! Runs the fuzz body over seeds: the golden batches and thousands of damaged copies of them.
//!
//! Called by `cargo test`. Invariants: `../fuzz/fuzz_targets/body.rs`; the damage is the same in
//! every run.

#![allow(
    clippy::unwrap_used,
    reason = "a test file: its functions panic to fail"
)]

#[path = "../fuzz/fuzz_targets/body.rs"]
mod body;

use std::path::PathBuf;

/// Mutations of each seed.
const MUTATIONS: usize = 2_000;

/// xorshift64*: enough to pick places and values, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below.max(1)
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut paths: Vec<_> = golden
        .read_dir()
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort();
    let read = |path: PathBuf| {
        let digits: String = std::fs::read_to_string(path)
            .unwrap()
            .split_whitespace()
            .collect();
        let pairs = digits.as_bytes().chunks_exact(2);
        pairs
            .map(|p| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap())
            .collect()
    };
    paths.into_iter().map(read).collect()
}

fn mutate(seed: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=dice.roll(4) {
        let at = dice.roll(bytes.len());
        match dice.roll(6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, dice.roll(256) as u8),
            2 if at + 4 <= bytes.len() => {
                let values = [
                    0u32,
                    1,
                    0x7fff_ffff,
                    0x8000_0000,
                    u32::MAX,
                    bytes.len() as u32,
                ];
                let value = values[dice.roll(values.len())];
                bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            }
            3 if !bytes.is_empty() => {
                let from = dice.roll(bytes.len());
                let length = dice.roll(bytes.len() - from.max(at)).min(16);
                bytes.copy_within(from..from + length, at);
            }
            _ if at < bytes.len() => bytes[at] = dice.roll(256) as u8,
            _ => {}
        }
    }
    bytes
}

#[test]
fn seeds_and_their_mutations_do_not_panic() {
    let seeds = seeds();
    assert!(seeds.len() >= 5);
    let mut dice = Dice(0x5eed);
    body::run(&[]);
    for seed in &seeds {
        body::run(seed);
        for _ in 0..MUTATIONS {
            body::run(&mutate(seed, &mut dice));
        }
    }
}
