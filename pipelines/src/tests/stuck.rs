//! What must neither stop a lane for good nor keep it busy for ever: rows, tries and commits at the limits.

use model::limits::{HEADERS_MAX, RECORD_BYTES_MAX};
use model::rows::RowsBuilder;

use crate::tests::state;
use crate::tests::support::guest::guest;
use crate::tests::support::{Fate, World, done, text, until};
use crate::{LaneState, Runtime};

/// A lane over `in` whose rejected records are in `bad`.
fn yaml(retry: &str, out: &str, nodes: &str) -> String {
    format!(
        "apiVersion: rustmq/v1alpha1\nkind: Pipeline\nmetadata: {{ name: p }}\n\
         topics:\n  in: {{ partitions: 1 }}\n  out: {{ partitions: 1 {out} }}\n  bad: {{ partitions: 1 }}\n\
         modules:\n  m: {{ source: ./m, limits: {{ deadline: 20ms }} }}\n\
         policy:\n  batch: {{ rows: 8, wait: 0ms }}\n  \
         on-error: {{ retry: {{ max: 2, {retry} }}, then: {{ dead-letter: bad }} }}\n\
         nodes:\n  src: {{ kind: source, topic: in, start: earliest }}\n{nodes}"
    )
}

const ONE: &str = "  w: { kind: wasm, module: m, inputs: [src] }\n  \
                   o: { kind: sink, inputs: [w], topic: out }\n";

async fn started(yaml: &str) -> (World, Runtime) {
    let world = World::new();
    let runtime = world.runtime();
    let digest = world.module(guest('-', "")).await;
    let applied = world.apply(&runtime, yaml, &[("m", digest)]).await;
    applied.unwrap_or_else(|d| panic!("{d:#?}"));
    (world, runtime)
}

/// The dead letters as `value node code attempt`.
fn letters(world: &World) -> Vec<String> {
    let rows = world.log.rows(world.partition("bad", 0));
    let letter = |i: usize| {
        let header = |name: &str| text(Some(rows.header(name).value(i)));
        let said = ["node", "code", "attempt"].map(|name| header(&format!("rustmq.{name}")));
        format!("{} {}", text(rows.record(i).value), said.join(" "))
    };
    (0..rows.len()).map(letter).collect()
}

#[tokio::test]
async fn tries_without_a_wait_are_counted() {
    let (world, runtime) = started(&yaml("backoff: 0ms, cap: 0ms", "", ONE)).await;
    world.produce("in", 0, &["a", "w1", "b"]);
    let lanes = until(&runtime, done).await;
    assert_eq!(world.values("out", 0), ["a", "b"]);
    assert_eq!(letters(&world), ["w1 w code 3"]);
    assert_eq!(lanes[0].retries, 2);
}

#[tokio::test]
async fn two_nodes_that_try_one_record_again_give_it_up() {
    let nodes = "  w: { kind: wasm, module: m, inputs: [src] }\n  \
                 v: { kind: wasm, module: m, inputs: [src] }\n  \
                 o: { kind: sink, inputs: [w, v], topic: out }\n";
    let (world, runtime) = started(&yaml("backoff: 1ms", "", nodes)).await;
    world.produce("in", 0, &["a", "w1", "b"]);
    until(&runtime, done).await;
    assert_eq!(world.values("out", 0), ["a", "a", "b", "b"]);
    assert_eq!(letters(&world), ["w1 w code 3", "w1 v code 3"]);
}

#[tokio::test]
async fn a_timer_that_is_rejected_stops_before_the_whole_batch() {
    let state = state::setup("stop", "").await;
    state.produce(&[
        ("bomb", 1, "at 3"),
        ("a", 2, "x"),
        ("b", 5, "x"),
        ("c", 6, "x"),
    ]);
    let stopped = |l: &crate::LaneStatus| matches!(l.state, LaneState::Stopped { .. });
    let lanes = until(&state.runtime, |l| stopped(&l[0])).await;
    // cut row by row, those before the one that makes it due would be committed
    assert_eq!(lanes[0].position, 0);
    assert_eq!(state.lane(0), [""; 0]);
    let fault = lanes[0].fault.as_deref().unwrap_or_default();
    assert!(fault.contains("a timer, on purpose"), "{fault}");
}

#[tokio::test]
async fn a_first_commit_that_the_log_refuses_is_rolled_back() {
    let yaml = yaml("backoff: 1ms", "", ONE);
    let (world, runtime) = started(&yaml).await;
    world.produce("in", 0, &["a"]);
    until(&runtime, done).await;
    let modules = [("m", world.module(guest('x', "")).await)];
    let applied = world.apply(&runtime, &yaml, &modules).await;
    applied.unwrap_or_else(|d| panic!("{d:#?}"));
    until(&runtime, |l| l[0].generation == 2).await;
    world.log.fates([Fate::Invalid]);
    world.produce("in", 0, &["b", "xc"]);
    let lanes = until(&runtime, |l| done(l) && l[0].position == 3).await;
    // by the version that lets them through
    assert_eq!(world.values("out", 0), ["a", "b", "xc"]);
    assert_eq!(lanes[0].generation, 1);
    let why = lanes[0]
        .handovers
        .back()
        .and_then(|h| h.rolled_back.as_deref());
    assert!(
        why.is_some_and(|why| why.contains("told to refuse")),
        "{why:?}"
    );
}

#[tokio::test]
async fn a_record_without_a_key_does_not_stop_a_lane_at_a_compacted_topic() {
    let nodes = "  o: { kind: sink, inputs: [src], topic: out }\n";
    let (world, runtime) = started(&yaml("", ", compact: true", nodes)).await;
    let mut rows = RowsBuilder::new();
    rows.push(0, Some(b"k"), Some(b"a"), &[]);
    rows.push(1, None, Some(b"b"), &[]);
    world.log.append(world.partition("in", 0), &rows.finish());
    until(&runtime, done).await;
    assert_eq!(world.values("out", 0), ["a"]);
    assert_eq!(letters(&world), ["b o no-key 1"]);
}

#[tokio::test]
async fn letters_of_records_at_the_limits_say_what_was_cut() {
    let (world, runtime) = started(&yaml("", "", ONE)).await;
    let names: Vec<String> = (0..HEADERS_MAX).map(|i| format!("h{i}")).collect();
    let crowd: Vec<(&str, Option<&[u8]>)> = names.iter().map(|n| (n.as_str(), None)).collect();
    let large = [&b"r"[..], &vec![b'x'; RECORD_BYTES_MAX - 1_100]].concat();
    let key = vec![b'k'; 1_000];
    for (key, value, headers) in [
        (&b"k"[..], &b"r1"[..], &crowd[..]),
        (&key, &large, &[("h", None)]),
        (&b"k"[..], &b"r2"[..], &crowd[..3]),
    ] {
        let mut rows = RowsBuilder::new();
        rows.push(0, Some(key), Some(value), headers);
        world.log.append(world.partition("in", 0), &rows.finish());
    }
    until(&runtime, done).await;
    let rows = world.log.rows(world.partition("bad", 0));
    let letter = |i: usize| {
        let (record, cut) = (rows.record(i), rows.header("rustmq.cut"));
        let whole = record.value == Some(&large) || record.value.is_some_and(|v| v.len() == 2);
        let cut = arrow::array::Array::is_valid(&cut, i).then(|| text(Some(cut.value(i))));
        format!("{} {whole} {cut:?}", record.headers.count())
    };
    let found: Vec<String> = (0..rows.len()).map(letter).collect();
    let expected = [
        "256 true Some(\"headers\")",
        "11 false Some(\"headers, value\")",
        "13 true None",
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_commit_that_was_too_large_does_not_slow_a_lane_for_ever() {
    let (world, runtime) = started(&yaml("", "", ONE)).await;
    world.log.rows_max(1);
    world.produce("in", 0, &["a"; 8]);
    let before = until(&runtime, done).await[0].commits;
    assert!(before >= 8, "{before}");
    world.log.rows_max(1_000);
    world.produce("in", 0, &["b"; 400]);
    let commits = until(&runtime, |l| done(l) && l[0].position == 408).await[0].commits - before;
    assert!(commits < 100, "{commits} commits of 400 rows");
}

#[tokio::test]
async fn dead_letters_have_no_compacted_topic() {
    let world = World::new();
    let yaml = yaml("", "", ONE).replace(
        "bad: { partitions: 1 }",
        "bad: { partitions: 1, compact: true }",
    );
    let digest = world.module(guest('-', "")).await;
    let refused = world.apply(&world.runtime(), &yaml, &[("m", digest)]).await;
    let said = refused.expect_err("it is refused")[0].to_string();
    assert!(said.contains("topic `bad` is compacted"), "{said}");
}

/// Its memory is for 3,500 rows of 50 bytes.
#[tokio::test]
async fn a_module_that_does_not_stand_larger_batches_gets_none() {
    let yaml = yaml("", "", ONE)
        .replace("rows: 8, wait", "wait")
        .replace("20ms", "1s")
        .replace("max: 2, ", "max: 2");
    let (world, runtime) = started(&yaml).await;
    let values: Vec<String> = (0..30_000).map(|i| format!("a{i:049}")).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    for some in values.chunks(1000) {
        world.produce("in", 0, some);
    }
    let lanes = until(&runtime, |l| done(l) && l[0].position == 30_000).await;
    assert_eq!(world.values("out", 0), values);
    assert_eq!(letters(&world), Vec::<String>::new());
    assert_eq!(lanes[0].fault, None);
    assert!(lanes[0].commits < 30, "{} commits", lanes[0].commits);
}
