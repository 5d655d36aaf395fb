//! The binary with its tier on real object stores: S3 and GCS servers on loopback.
//!
//! - `tier` records go up and come back, through `serve`, `consume`, `sql` and `status`
//! - `start` what `serve` says when a store does not open
//!
//! Called by: `cargo test -p rustmq --test stores`, after `cargo xtask stores`.
//! Invariants: whatever a process printed is searched for the store's secret.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../../tests/support/stores/report.rs"]
mod report;
mod start;
#[path = "../../../../tests/support/stores/mod.rs"]
mod stores;
#[path = "../support/mod.rs"]
mod support;
mod tier;

use std::process::ExitCode;

use report::Case;
use stores::pins::{GCS, Pin, S3};
use stores::s3::SECRET_KEY;
use support::World;

/// `[storage]` with small objects that go at once, and the options of a store.
fn config(url: &str, options: &[(&str, String)]) -> String {
    let mut text = format!(
        "[storage]\nurl = \"{url}\"\nsegment_bytes = \"256KiB\"\ntier_bytes = \"64KiB\"\n\
         tier_age_ms = 1\n[compaction]\nage_ms = 1\n[storage.options]\n"
    );
    for (name, value) in options {
        text.push_str(&format!("{name} = \"{value}\"\n"));
    }
    text
}

/// The secret is in nothing that was said.
#[track_caller]
fn check_secret(world: &World, said: &[&str]) {
    let log = std::fs::read_to_string(world.path("serve.err")).unwrap_or_default();
    for text in said.iter().chain([&log.as_str()]) {
        assert!(!text.contains(SECRET_KEY), "the secret is in: {text}");
    }
}

fn main() -> ExitCode {
    let case = |name: &str, pin: Pin, run: fn()| Case {
        name: name.to_owned(),
        pin,
        run: Box::new(run),
    };
    report::run(vec![
        case("s3::records_go_up_and_come_back", S3, tier::s3_round_trip),
        case(
            "gcs::records_go_up_and_come_back",
            GCS,
            tier::gcs_round_trip,
        ),
        case(
            "s3::a_store_that_dies_shows_and_heals",
            S3,
            tier::a_store_that_dies,
        ),
        case("s3::what_does_not_open_says_why", S3, start::s3_refusals),
        case("gcs::what_does_not_open_says_why", GCS, start::gcs_refusals),
    ])
}
