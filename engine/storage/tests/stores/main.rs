//! The store over real object stores: S3 and GCS servers on loopback, sound and in trouble.
//!
//! - `bucket` a server with a bucket, and stores over it
//! - `records` what goes up comes back: parts, an emptied folder, merging, trim, collection
//! - `writers` two brokers at one bucket
//! - `trouble` servers that die, wrong keys, and what is said then
//! - `storm` work at random over a wire that fails at random
//!
//! Called by: `cargo test -p rustmq-storage --test stores`, after `cargo xtask stores`.
//! Invariants: every check runs over both kinds of store; chance comes from a printed seed
//! (`RUSTMQ_SEED`).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bucket;
mod records;
#[path = "../../../../tests/support/stores/report.rs"]
mod report;
#[path = "../../../../tests/support/stores/mod.rs"]
mod stores;
mod storm;
mod trouble;
mod writers;

use std::process::ExitCode;

use bucket::Kind;
use futures::future::BoxFuture;
use report::Case;

type Check = fn(Kind) -> BoxFuture<'static, ()>;

macro_rules! checks {
    ($($path:path),* $(,)?) => {
        [$((stringify!($path), (|kind| Box::pin($path(kind))) as Check)),*]
    };
}

fn main() -> ExitCode {
    let checks = checks![
        records::large_objects_go_in_parts,
        records::all_comes_back_to_an_empty_folder,
        records::merging_trim_and_collection_leave_no_orphans,
        writers::one_of_many_puts_of_a_name_wins,
        writers::the_loser_is_fenced_also_after_collection,
        trouble::a_server_killed_in_the_middle_of_an_upload,
        trouble::answers_that_are_lost_or_wrong,
        trouble::what_does_not_open_says_why,
        storm::no_gap_no_double_no_orphan,
    ];
    let cases = checks.into_iter().flat_map(|(name, check)| {
        [Kind::S3, Kind::Gcs].map(|kind| Case {
            name: format!("{}::{}", kind.name(), name.replace(' ', "")),
            pin: kind.pin(),
            run: Box::new(move || {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                runtime.block_on(check(kind));
            }),
        })
    });
    report::run(cases.collect())
}
