//! Proof by seeds: random work on the real WAL, commit, reclaim and recovery over a disk that
//! loses writes and names, tears, reorders, flips, fills up, fails and goes dark, under clients
//! that send again what they heard nothing of; and bugs planted one by one to show that this
//! would find them.
//!
//! Everything runs on the test's own thread (the writer takes turns), so a seed is a run:
//! `PROOF_SEED=7 cargo test -p rustmq-storage --lib proof` runs that one, and `PROOF_SEEDS` sets
//! how many. Invariants: `oracle` decides what is right and shares no code with the store.

mod oracle;
mod run;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::planted::{self, Bug};
use run::{Report, run};

/// Seeds without a bug, all of which must pass.
const SEEDS: u64 = 150;
/// A bug that so many seeds do not find is not found.
const SEEDS_MAX: u64 = 1_000;

/// What must have happened often enough, or nothing is proved.
const FAULTS: [&str; 8] = [
    "write_eio",
    "sync_eio",
    "full_on_create",
    "full_on_write",
    "power",
    "lost_writes",
    "reordered_writes",
    "lost_names",
];

/// Every bug, and the number of seeds it took to find it when this was written.
const BUGS: [(Bug, u64); 24] = [
    (Bug::AckBeforeSync, 1),
    (Bug::SyncSkipped, 1),
    (Bug::CompletionNotChecked, 4),
    (Bug::SyncRetried, 5),
    (Bug::WatermarkBeforeSync, 1),
    (Bug::FailureForgotten, 1),
    (Bug::PositionOff, 1),
    (Bug::PartitionNotSummed, 3),
    (Bug::HoleSkipped, 1),
    (Bug::PreviousNotChecked, 126),
    (Bug::TornTailKept, 166),
    (Bug::NameNotSynced, 1),
    (Bug::RemovalsNotSynced, 4),
    (Bug::SyncedToStale, 4),
    (Bug::SyncedToNew, 2),
    (Bug::DamageCut, 2),
    (Bug::SegmentFreedEarly, 4),
    (Bug::CheckpointLeftOut, 2),
    (Bug::CheckpointStartForgotten, 2),
    (Bug::CheckpointPartitionForgotten, 2),
    (Bug::CheckpointSequencesForgotten, 15),
    (Bug::TrimBeforeSync, 5),
    (Bug::OffsetsKeptWhenFull, 1),
    (Bug::FullConfirmed, 1),
];

/// One run; a panic counts as a violation.
fn try_seed(seed: u64, bug: Option<Bug>) -> Result<Report, String> {
    planted::plant(bug, seed);
    let done = catch_unwind(AssertUnwindSafe(|| run(seed)));
    planted::clear();
    done.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn random_work_with_faults_loses_nothing() {
    let seeds = match env("PROOF_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..env("PROOF_SEEDS").unwrap_or(SEEDS),
    };
    let mut total = Report::default();
    let runs = seeds.end - seeds.start;
    for seed in seeds {
        let report = try_seed(seed, None).unwrap_or_else(|why| panic!("PROOF_SEED={seed}: {why}"));
        total.add(&report);
    }
    println!("runs={runs} {total}");
    if runs >= SEEDS {
        let least = [total.acked, total.unknown, total.full, total.crashes];
        assert!(least.iter().all(|count| *count > runs / 4), "{total}");
        assert!(total.flips > runs, "{total}");
        for fault in FAULTS {
            assert!(
                total.fired.of(fault) > runs / 20,
                "{fault} too seldom: {total}"
            );
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in 0..5 {
        let (one, two) = (try_seed(seed, None), try_seed(seed, None));
        assert_eq!(one, two, "PROOF_SEED={seed}");
        assert_ne!(
            one.unwrap().bytes_crc,
            try_seed(seed + 5, None).unwrap().bytes_crc
        );
    }
}

#[test]
fn every_planted_bug_is_found() {
    let mut missed = Vec::new();
    for (bug, then) in BUGS {
        let found = (0..SEEDS_MAX).find_map(|seed| Some((seed, try_seed(seed, Some(bug)).err()?)));
        match found {
            Some((seed, why)) => {
                let now = seed + 1;
                println!("{bug:?}: {now} seeds (then {then}), PROOF_SEED={seed}: {why}");
            }
            None => missed.push(bug),
        }
    }
    assert!(
        missed.is_empty(),
        "not found in {SEEDS_MAX} seeds: {missed:?}"
    );
}
