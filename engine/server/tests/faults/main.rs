//! Whole processes under fault: killed, starved of disk, lied to.
//!
//! - `kill` producers, a group and a pipeline over `kill -9` at random moments, with `clients`;
//!   `ledger` is what they know and the checker that holds it against what the server has
//! - `disk` a full disk, damaged files
//! - `bad_input` what users get wrong, `wire` what no honest client sends, `modules` guests
//!   that misbehave, `canary` in the shadow of others; `guests` makes them
//! - `state` what modules keep, `migration` how a new version takes it over, and `lookup` what they look
//!   into, over kills
//! - `soak` a thousand partitions for a long time: nothing drifts
//!
//! Called by: `cargo test -p rustmq --test faults`; one binary, because each links the server.
//! Invariants: chance comes from a printed seed (`RUSTMQ_SEED`); nothing sleeps but `wait`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../../tests/support/stores/mod.rs"]
mod stores;
#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod canary;
mod clients;
mod disk;
mod guests;
mod kill;
mod ledger;
mod lookup;
mod migration;
mod modules;
mod soak;
mod state;
mod wire;

/// Chance that can be repeated: SplitMix64.
pub struct Chance(u64);

impl Chance {
    /// From `RUSTMQ_SEED`, else from the clock; printed either way.
    pub fn seeded() -> (Chance, u64) {
        let given = std::env::var("RUSTMQ_SEED").ok();
        let seed = given.map_or_else(clock, |seed| seed.parse().expect("RUSTMQ_SEED is a number"));
        eprintln!("seed {seed}: repeat with RUSTMQ_SEED={seed}");
        (Chance(seed), seed)
    }

    /// Another one, that the order of threads does not touch.
    pub fn split(&mut self) -> Chance {
        Chance(self.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }
}

fn clock() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().expect("now is after 1970");
    since.as_nanos() as u64
}
