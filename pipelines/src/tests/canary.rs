//! Canaries: what is counted, what is not harmed, and what ends them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::ids::Digest;

use crate::tests::support::guest::{
    backwards, broken, columns, columns_without_n, elsewhere, evil, guest, mended,
};
use crate::tests::support::{World, done, until};
use crate::{CanaryError, CanaryReport, CanaryState, Difference, LaneStatus, Runtime, Until};

fn yaml(more: &str) -> String {
    format!(
        "apiVersion: rustmq/v1alpha1\nkind: Pipeline\nmetadata: {{ name: p }}\n\
         topics:\n  in: {{ partitions: 2 }}\n  out: {{ partitions: 2 }}\n  bad: {{ partitions: 1 }}\n\
         modules:\n  m: {{ source: ./m, limits: {{ deadline: 20ms }} }}\n\
         policy:\n  batch: {{ rows: 8, wait: 0ms }}\n  \
         on-error: {{ retry: {{ max: 2, backoff: 1ms, cap: 2ms }}, then: {{ dead-letter: bad }} }}\n\
         nodes:\n  src: {{ kind: source, topic: in, start: earliest }}\n  \
         w: {{ kind: wasm, module: m, inputs: [src], outputs: [out, other] }}\n  \
         o: {{ kind: sink, inputs: [w.out], topic: out }}\n{more}"
    )
}

struct Setup {
    world: World,
    runtime: Runtime,
    running: Digest,
}

/// A pipeline whose module lets all but its special rows through.
async fn setup() -> Setup {
    setup_in(World::new()).await
}

async fn setup_in(world: World) -> Setup {
    let runtime = world.runtime();
    let running = world.module(guest('-', "")).await;
    let applied = world.apply(&runtime, &yaml(""), &[("m", running)]).await;
    applied.unwrap_or_else(|d| panic!("{d:#?}"));
    until(&runtime, done).await;
    Setup {
        world,
        runtime,
        running,
    }
}

impl Setup {
    async fn start(&self, candidate: Vec<u8>) -> Digest {
        let digest = self.world.module(candidate).await;
        let started = self
            .runtime
            .canary_start("p", "w", digest, Until::default());
        started.await.unwrap_or_else(|e| panic!("{e}"));
        digest
    }

    async fn apply(&self, module: Digest) {
        let modules = [("m", module)];
        let applied = self.world.apply(&self.runtime, &yaml(""), &modules).await;
        applied.unwrap_or_else(|d| panic!("{d:#?}"));
    }

    /// Runs values through the first lane; what the canary says when it has seen all of them.
    async fn seen(&self, values: &[&str]) -> CanaryReport {
        self.world.produce("in", 0, values);
        until(&self.runtime, done).await;
        let all = values.len() as u64;
        report(&self.runtime, |report| {
            report.records + report.skipped_records >= all || report.state != CanaryState::Running
        })
        .await
    }
}

pub(super) async fn report(
    runtime: &Runtime,
    what: impl Fn(&CanaryReport) -> bool,
) -> CanaryReport {
    let mut watch = runtime.watch();
    let wait = async {
        loop {
            watch.borrow_and_update();
            if let Some(report) = runtime.canary("p").filter(&what) {
                return report;
            }
            watch.changed().await.expect("the runtime is there");
        }
    };
    match tokio::time::timeout(Duration::from_secs(30), wait).await {
        Ok(report) => report,
        Err(_) => panic!("not reached: {:#?}", runtime.canary("p")),
    }
}

fn differences(pairs: &[(Difference, u64)]) -> BTreeMap<Difference, u64> {
    pairs.iter().copied().collect()
}

#[tokio::test]
async fn the_same_module_does_not_differ() {
    let setup = setup().await;
    let values = ["a", "r1", "b", "w1", "c", "t1", "d", "e", "f", "loop", "g"];
    let candidate = setup.start(guest('-', "")).await;
    let report = setup.seen(&values).await;
    assert_eq!(
        (report.running, report.candidate),
        (setup.running, candidate)
    );
    // retries that were in vain are rejected in the end, with the same code
    assert_eq!(report.differences, BTreeMap::new(), "{report:#?}");
    assert_eq!((report.records, report.same), (11, 11));
    assert_eq!((report.skipped_records, report.reordered), (0, 0));
    assert_eq!(report.state, CanaryState::Running);
    assert!(report.examples.is_empty());
    // both looped until the deadline, and do so again: what that took is added up
    assert!(
        report.running_us > 0 && report.candidate_us > 0,
        "{report:#?}"
    );
    setup.world.produce("in", 0, &["loop"]);
    let more = self::report(&setup.runtime, |r| r.records == 12).await;
    assert!(more.running_us > report.running_us, "{more:#?}");
    assert!(more.candidate_us > report.candidate_us, "{more:#?}");
}

#[tokio::test]
async fn rows_in_another_order_are_the_same_rows() {
    let setup = setup().await;
    setup.start(backwards()).await;
    let report = setup.seen(&["a", "b", "r1", "c"]).await;
    assert_eq!((report.records, report.same), (4, 4), "{report:#?}");
    assert_eq!((report.batches, report.reordered), (1, 1), "{report:#?}");
    // one row has no order, and as they came is what the lane wrote
    setup.world.produce("in", 0, &["d"]);
    let report = self::report(&setup.runtime, |r| r.records == 5).await;
    assert_eq!((report.batches, report.reordered), (2, 1), "{report:#?}");
    assert_eq!(setup.world.values("out", 0), ["a", "b", "c", "d"]);
    assert!(report.differences.is_empty() && report.examples.is_empty());
}

/// Its thread, and with it its instance, not only its report.
#[tokio::test]
async fn nothing_of_it_stays_when_the_pipeline_is_applied() {
    let host = wasm::Host::new(wasm::HostConfig::default()).expect("the engine starts");
    let world = World {
        host: Arc::new(host),
        ..World::new()
    };
    let setup = setup_in(world).await;
    let host = setup.world.host.clone();
    let before = host.memory_bytes();
    // another version, of the same size
    let module = setup.start(guest('x', "")).await;
    setup.seen(&["a", "b"]).await;
    assert!(host.memory_bytes() > before);

    setup.apply(module).await;
    until(&setup.runtime, |l| l.iter().all(|l| l.generation == 2)).await;
    // the lanes' old instances go with the first commit of the new ones
    for lane in 0..2 {
        setup.world.produce("in", lane, &["c"]);
    }
    let taken = |lane: &LaneStatus| lane.handovers.back().is_some_and(|last| last.to == 2);
    until(&setup.runtime, |l| done(l) && l.iter().all(taken)).await;
    let given_back = async {
        while host.memory_bytes() != before {
            tokio::task::yield_now().await;
        }
    };
    let given_back = tokio::time::timeout(Duration::from_secs(30), given_back).await;
    assert!(
        given_back.is_ok(),
        "{} of {before} bytes",
        host.memory_bytes()
    );
    let report = setup.runtime.canary("p").expect("what it found stays");
    assert_eq!(report.records, 2);
}

#[tokio::test]
async fn none_is_compared_with_a_generation_that_was_rolled_back() {
    let setup = setup().await;
    let broken = setup.world.module(broken()).await;
    setup.apply(broken).await;
    until(&setup.runtime, |l| l.iter().all(|l| l.generation == 2)).await;
    // they have not worked with it yet
    setup.start(guest('x', "")).await;
    let report = setup.seen(&["a"]).await;
    let CanaryState::Done { why } = &report.state else {
        panic!("{report:#?}")
    };
    assert!(
        why.contains("generation 2 failed before its first commit"),
        "{why}"
    );
    assert_eq!((report.running, report.records), (broken, 0));

    let start = setup
        .runtime
        .canary_start("p", "w", setup.running, Until::default());
    let refused = start
        .await
        .expect_err("no lane runs what it would name")
        .to_string();
    assert!(
        refused.contains("lane 0 of topic in works with generation 1"),
        "{refused}"
    );
    assert!(refused.contains("generation 2"), "{refused}");
    setup.apply(setup.running).await;
    setup.world.produce("in", 0, &["b"]);
    let taken = |lanes: &[LaneStatus]| done(lanes) && lanes[0].generation == 3;
    until(&setup.runtime, taken).await;
    setup.start(guest('x', "")).await;
    assert_eq!(setup.seen(&["c"]).await.running, setup.running);
}

#[tokio::test]
async fn filters_and_outputs_are_counted() {
    let setup = setup().await;
    setup.start(guest('x', "")).await;
    let report = setup.seen(&["a", "x1", "b", "x2", "x3", "x4", "r"]).await;
    assert_eq!(report.differences, differences(&[(Difference::Rows, 4)]));
    assert_eq!((report.records, report.same), (7, 3));
    let examples: Vec<_> = report
        .examples
        .iter()
        .map(|e| (e.offset, &e.input[..]))
        .collect();
    assert_eq!(examples, [(1, "x1"), (3, "x2"), (4, "x3")]);
    assert_eq!(report.examples[0].running, ["out: x1"]);
    assert_eq!(report.examples[0].candidate, ["filtered"]);
    // nothing that it made was written
    assert_eq!(
        setup.world.values("out", 0),
        ["a", "x1", "b", "x2", "x3", "x4"]
    );

    setup.runtime.canary_stop("p").expect("one runs");
    assert_eq!(setup.runtime.canary("p"), None);
    setup.start(elsewhere()).await;
    let report = setup.seen(&["a", "b", "r"]).await;
    assert_eq!(report.differences, differences(&[(Difference::Port, 2)]));
    assert_eq!(report.examples[1].candidate, ["other: b"]);
}

#[tokio::test]
async fn failures_are_counted_by_code_and_harm_nobody() {
    let setup = setup().await;
    setup.start(evil('x', true)).await;
    let report = setup.seen(&["a", "x1", "b", "x2", "t"]).await;
    // the running version traps on `t`, which the candidate knows nothing of
    let expected = differences(&[(Difference::Failed, 2), (Difference::Mended, 1)]);
    assert_eq!(report.differences, expected, "{report:#?}");
    assert_eq!(report.failures, BTreeMap::from([("trap".to_string(), 2)]));
    let fault = report.fault.as_deref().unwrap_or_default();
    assert!(fault.contains("trapped"), "{fault}");
    let told = &report.examples[0].candidate[0];
    assert!(told.starts_with("rejected (trap): "), "{told}");

    setup.runtime.canary_stop("p").expect("one runs");
    setup.start(evil('y', false)).await;
    let report = setup.seen(&["a", "y1", "b", "y2"]).await;
    assert_eq!(
        report.failures,
        BTreeMap::from([("deadline".to_string(), 2)])
    );
    let expected = ["a", "x1", "b", "x2", "a", "y1", "b", "y2"];
    assert_eq!(setup.world.values("out", 0), expected);
    let letters = setup.world.log.rows(setup.world.partition("bad", 0));
    assert_eq!(letters.len(), 1);
}

#[tokio::test]
async fn one_that_only_kills_is_stopped_by_its_breaker() {
    let setup = setup().await;
    setup.start(broken()).await;
    let report = setup.seen(&["v"; 40]).await;
    let CanaryState::Failed { why } = &report.state else {
        panic!("{report:#?}")
    };
    assert!(why.starts_with("the breaker opened: 32 rows"), "{why}");
    assert_eq!(report.failures, BTreeMap::from([("trap".to_string(), 32)]));
    assert_eq!(report.records, 32);
    assert_eq!(setup.world.values("out", 0).len(), 40);
    // the pipeline goes on without it
    setup.world.produce("in", 0, &["more"]);
    until(&setup.runtime, done).await;
    assert_eq!(setup.runtime.canary("p").map(|r| r.records), Some(32));
}

#[tokio::test]
async fn rows_that_were_not_committed_are_not_compared() {
    let setup = setup().await;
    // the running version waits twice before it gives up each `w`; a candidate that does the same
    // is asked once
    setup.start(mended()).await;
    let report = setup.seen(&["a", "w1", "b", "w2", "c"]).await;
    assert_eq!((report.records, report.same), (5, 5), "{report:#?}");
    setup.world.produce("in", 0, &["e", "d"]);
    let report = self::report(&setup.runtime, |r| r.records == 7).await;
    assert_eq!(report.differences, differences(&[(Difference::Mended, 2)]));
}

#[tokio::test]
async fn a_field_that_differs_is_named() {
    let world = World::new();
    let runtime = world.runtime();
    let (old, new) = (
        world.module(columns()).await,
        world.module(columns_without_n()).await,
    );
    let yaml = "apiVersion: rustmq/v1alpha1\nkind: Pipeline\nmetadata: { name: p }\n\
         topics:\n  in: { partitions: 1, value: { codec: json, schema: { n: int64, s: string } } }\n  \
         out: { partitions: 1, value: { codec: json, schema: { n: int64, s: string } } }\n  \
         bad: { partitions: 1 }\n\
         modules:\n  m: { source: ./m }\n\
         policy:\n  on-error: { then: { dead-letter: bad } }\n\
         nodes:\n  src: { kind: source, topic: in, start: earliest }\n  \
         w: { kind: wasm, module: m, inputs: [src], outputs: { out: { schema: out }, all: {} } }\n  \
         o: { kind: sink, inputs: [w.out], topic: out }\n";
    let applied = world.apply(&runtime, yaml, &[("m", old)]).await;
    applied.unwrap_or_else(|d| panic!("{d:#?}"));
    until(&runtime, done).await;
    let started = runtime.canary_start("p", "w", new, Until::default());
    started.await.unwrap_or_else(|e| panic!("{e}"));
    let rows = [
        r#"{"n":1,"s":"a"}"#,
        r#"{"n":2,"s":"t"}"#,
        r#"{"n":null,"s":"b"}"#,
    ];
    world.produce("in", 0, &rows);
    let report = report(&runtime, |r| r.records == 3).await;
    // both trap on the second; the third has no `n` anyway
    assert_eq!(report.differences, differences(&[(Difference::Content, 1)]));
    assert_eq!(report.content, BTreeMap::from([("value".to_string(), 1)]));
    let example = &report.examples[0];
    assert_eq!((example.offset, &example.input[..]), (0, rows[0]));
    assert_eq!(example.running[0], r#"out: {"n":1,"s":"a"}"#);
    assert_eq!(example.candidate[0], r#"out: {"n":null,"s":"a"}"#);
}

#[tokio::test]
async fn it_ends_when_it_has_seen_enough_and_when_the_pipeline_changes() {
    let setup = setup().await;
    let digest = setup.world.module(guest('x', "")).await;
    let until_records = |records| Until {
        records: Some(records),
        time: None,
    };
    let started = setup
        .runtime
        .canary_start("p", "w", digest, until_records(3));
    started.await.unwrap_or_else(|e| panic!("{e}"));
    let again = setup
        .runtime
        .canary_start("p", "w", digest, until_records(3));
    assert!(matches!(again.await, Err(CanaryError::Runs(node)) if node == "w"));
    let report = setup.seen(&["a", "b", "c"]).await;
    let report = match report.state {
        CanaryState::Running => self::report(&setup.runtime, |r| r.state != report.state).await,
        _ => report,
    };
    assert_eq!(report.state.to_string(), "done: 3 records were asked for");
    let time = Until {
        records: None,
        time: Some(Duration::from_millis(1)),
    };
    let started = setup.runtime.canary_start("p", "w", digest, time);
    started.await.unwrap_or_else(|e| panic!("{e}"));
    let report = self::report(&setup.runtime, |r| r.state != CanaryState::Running).await;
    assert_eq!(report.state.to_string(), "done: its time is over");

    setup.start(guest('x', "")).await;
    let applied = setup
        .world
        .apply(&setup.runtime, &yaml(""), &[("m", digest)])
        .await;
    applied.unwrap_or_else(|d| panic!("{d:#?}"));
    let report = self::report(&setup.runtime, |r| r.state != CanaryState::Running).await;
    assert_eq!(report.state.to_string(), "done: generation 2 was applied");
}

#[tokio::test]
async fn what_could_not_be_promoted_is_refused() {
    let setup = setup().await;
    let digest = setup.world.module(guest('x', "")).await;
    let refused = async |node: &str, digest: Digest, part: &str| {
        let started = setup
            .runtime
            .canary_start("p", node, digest, Until::default());
        let error = started.await.expect_err("it is refused").to_string();
        assert!(error.contains(part), "{error}");
    };
    refused("o", digest, "no node `o` that runs a module; it has: w").await;
    refused("w", Digest::of(b"nothing"), "no such module").await;
    let stubborn = setup.world.module(guest('x', "unreachable")).await;
    refused("w", stubborn, "does not open in node `w`: ").await;
    let twice = yaml("  w2: { kind: wasm, module: m, inputs: [src] }\n");
    let applied = setup
        .world
        .apply(&setup.runtime, &twice, &[("m", digest)])
        .await;
    applied.unwrap_or_else(|d| panic!("{d:#?}"));
    refused("w", digest, "also runs in node `w2`").await;
    let pinned = yaml("").replace("./m", &digest.to_string());
    let applied = setup
        .world
        .apply(&setup.runtime, &pinned, &[("m", digest)])
        .await;
    applied.unwrap_or_else(|d| panic!("{d:#?}"));
    refused("w", digest, "by its digest").await;
    assert_eq!(setup.runtime.canary("p"), None);
}

/// Whatever a slow candidate leaves out is counted; a promotion under load loses and doubles nothing.
#[tokio::test]
async fn a_promotion_under_load_takes_each_record_once() {
    let setup = setup().await;
    setup.start(evil('y', false)).await;
    let values: Vec<String> = (0..2_000)
        .map(|i| format!("{}{i}", if i % 100 == 50 { 'y' } else { 'v' }))
        .collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    for part in values[..1_000].chunks(10) {
        setup.world.produce("in", 0, part);
    }
    until(&setup.runtime, done).await;
    let report = self::report(&setup.runtime, |r| {
        r.records + r.skipped_records == 1_000 || r.state != CanaryState::Running
    })
    .await;
    assert_eq!(report.records + report.skipped_records, 1_000);
    assert!(report.records > 0);
    setup.runtime.canary_stop("p");

    let digest = setup.start(guest('x', "")).await;
    for part in values[1_000..1_500].chunks(10) {
        setup.world.produce("in", 0, part);
    }
    let applied = setup
        .world
        .apply(&setup.runtime, &yaml(""), &[("m", digest)])
        .await;
    applied.unwrap_or_else(|d| panic!("{d:#?}"));
    for part in values[1_500..].chunks(10) {
        setup.world.produce("in", 0, part);
    }
    let lanes = until(&setup.runtime, |l| {
        done(l) && l.iter().all(|lane| lane.generation == 2)
    })
    .await;
    assert_eq!(lanes[0].modules["m"], digest);
    assert_eq!(setup.world.values("out", 0), values);
}
