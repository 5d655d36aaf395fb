//! Canaries of modules that keep state: on a copy, migrated where it must be, which nobody else sees.

use std::sync::Arc;

use super::canary::report;
use super::migration::MIGRATES;
use super::state::{LETTER, Setup, again, other_schema, setup, setup_in};
use crate::tests::support::guest::guest;
use crate::tests::support::{World, done, until};
use crate::{CanaryError, CanaryReport, CanaryState, Until};

impl Setup {
    async fn canary(&self, module: Vec<u8>) -> Result<(), CanaryError> {
        let digest = self.world.module(module).await;
        let started = self
            .runtime
            .canary_start("p", "w", digest, Until::default());
        started.await
    }

    /// Runs rows through the first lane; what the canary says when it has seen or skipped all so far.
    async fn seen(&self, rows: &[(&str, i64, &str)], all: u64) -> CanaryReport {
        self.produce(rows);
        until(&self.runtime, done).await;
        let seen = |r: &CanaryReport| r.records + r.skipped_records >= all;
        report(&self.runtime, |r| {
            seen(r) || r.state != CanaryState::Running
        })
        .await
    }
}

#[tokio::test]
async fn the_candidate_goes_on_with_what_the_running_version_kept() {
    let setup = setup(LETTER, "").await;
    setup
        .out(&[("a", 1, "x"), ("a", 2, "x"), ("a", 2, "at 500")])
        .await;
    setup.canary(again()).await.expect("it starts");
    let rows = [
        ("a", 3, "x"),
        ("b", 4, "x"),
        ("a", 5, "trap"),
        ("a", 6, "x"),
    ];
    let report = setup.seen(&rows, 4).await;
    assert_eq!((report.records, report.same), (4, 4), "{report:#?}");
    // the timer that was set before fires for both
    let report = setup.seen(&[("c", 600, "get")], 5).await;
    assert_eq!((report.records, report.same), (5, 5), "{report:#?}");
    let kept = report.kept.expect("the node keeps state");
    // a, b, then a and its timer
    assert_eq!(
        (kept.running, kept.candidate, kept.batches_differ),
        (4, 4, 0)
    );
    assert_eq!((kept.copies, kept.migrated), (1, 0));
    assert_eq!(setup.out(&[("b", 601, "x")]).await, ["b 2"]);
}

#[tokio::test]
async fn the_copy_is_migrated_and_the_lane_keeps_its_own() {
    let setup = setup(LETTER, "").await;
    setup
        .out(&[
            ("a", 1, "x"),
            ("migrate-sum/1", 1, "x"),
            ("migrate-sum/2", 1, "x"),
        ])
        .await;
    setup.canary(MIGRATES.to_vec()).await.expect("it starts");
    let rows = [
        ("a", 3, "x"),
        ("a", 3, "get"),
        ("sum", 3, "get"),
        ("b", 3, "x"),
    ];
    let report = setup.seen(&rows, 4).await;
    // only what the migration adds up is another number
    assert_eq!((report.records, report.same), (4, 3), "{report:#?}");
    assert_eq!(report.examples[0].running, ["out: none"], "{report:#?}");
    assert_eq!(report.examples[0].candidate, ["out: 2"]);
    let kept = report.kept.expect("the node keeps state");
    assert_eq!((kept.copies, kept.migrated), (1, 1));
    let lanes = until(&setup.runtime, done).await;
    assert!(lanes.iter().all(|lane| lane.kept["w"].schema == 1));
    setup.runtime.canary_stop("p");
    assert_eq!(
        setup.out(&[("a", 4, "x"), ("sum", 4, "get")]).await,
        ["a 3", "sum none"]
    );
}

#[tokio::test]
async fn a_migration_that_fails_ends_the_canary_only() {
    let setup = setup(LETTER, "").await;
    setup
        .out(&[("a", 1, "x"), ("migrate-refuse", 1, "x")])
        .await;
    setup.canary(MIGRATES.to_vec()).await.expect("it starts");
    let report = setup.seen(&[("a", 2, "x")], 1).await;
    let CanaryState::Failed { why } = &report.state else {
        panic!("{report:#?}");
    };
    assert!(
        why.contains("lane 0: the migration of its state from schema 1 to 2"),
        "{why}"
    );
    assert!(why.contains("refused: as asked"), "{why}");
    assert_eq!(setup.out(&[("a", 3, "x")]).await, ["a 3"]);
}

#[tokio::test]
async fn candidates_that_cannot_take_the_state_are_refused() {
    let setup = setup(LETTER, "").await;
    setup.out(&[("a", 1, "x")]).await;
    let refused = setup.canary(other_schema()).await;
    assert!(
        matches!(refused, Err(CanaryError::Schema { from: 1, to: 2 })),
        "{refused:?}"
    );
    let refused = setup.canary(guest('-', "")).await;
    assert!(matches!(refused, Err(CanaryError::Stateful)), "{refused:?}");
    assert_eq!(setup.runtime.canary("p"), None);
}

#[tokio::test]
async fn a_copy_that_does_not_fit_is_refused() {
    let host = wasm::Host::new(wasm::HostConfig {
        memory_bytes_max: 4 << 20,
        ..wasm::HostConfig::default()
    });
    let host = Arc::new(host.expect("the engine starts"));
    let world = World {
        host,
        ..World::new()
    };
    let setup = setup_in(world, LETTER, "").await;
    // nearly a MiB, beside two instances of more than one
    let keys: Vec<String> = (0..245).map(|n| format!("{n:04000}")).collect();
    let rows: Vec<_> = keys.iter().map(|key| (&key[..], 1, "x")).collect();
    assert_eq!(setup.out(&rows).await.len(), 245);
    let refused = setup.canary(again()).await.err();
    let text = refused.map(|error| error.to_string()).unwrap_or_default();
    assert!(
        text.contains("works on a copy of what the node keeps"),
        "{text}"
    );
    assert!(text.contains("--memory-bytes"), "{text}");
}

/// Whatever a candidate leaves out, it never compares with a state that it does not have; promoted under
/// load, every row is counted once.
#[tokio::test]
async fn nothing_differs_under_load_and_a_promotion_takes_each_row_once() {
    for module in [again(), MIGRATES.to_vec()] {
        let setup = setup(LETTER, "").await;
        let key = |i: u64| format!("k{}", (i * 7) % 5);
        let mut produced = 0;
        let mut produce = |rows: u64| {
            let keys: Vec<String> = (produced..produced + rows).map(key).collect();
            produced += rows;
            let rows: Vec<_> = keys.iter().map(|key| (&key[..], 1, "x")).collect();
            rows.chunks(13).for_each(|part| setup.produce(part));
        };
        produce(100);
        setup.canary(module.clone()).await.expect("it starts");
        produce(2_000);
        until(&setup.runtime, done).await;
        let idle = |r: &CanaryReport| r.records + r.skipped_records >= 2_000;
        let seen = report(&setup.runtime, idle).await;
        assert_eq!(seen.records, seen.same, "{seen:#?}");
        assert!(seen.records > 0);
        let kept = seen.kept.expect("the node keeps state");
        assert_eq!((kept.running, kept.batches_differ), (kept.candidate, 0));
        produce(300);
        setup
            .apply(LETTER, "", module)
            .await
            .expect("it is promoted");
        produce(300);
        let taken = |lanes: &[crate::LaneStatus]| done(lanes) && lanes[0].generation == 2;
        until(&setup.runtime, taken).await;
        let counted = setup.counted();
        assert_eq!(counted.values().map(Vec::len).sum::<usize>(), 2_700);
        for counts in counted.into_values() {
            let expected: Vec<u64> = (1..=counts.len() as u64).collect();
            assert_eq!(counts, expected);
        }
    }
}
