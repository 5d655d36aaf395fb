//! Modules: what they reject, how they die, and how one takes over from another.

use std::collections::BTreeSet;

use wasm::Keyed;

use crate::operator::program::{Program, RetryPolicy};
use crate::operator::wasm::{Call, Made};
use crate::operator::{Chunk, OperatorError, Report, Why};
use crate::tests::support::guest::{
    broken, broken_otherwise, guest, insists, leaking, leaves, mended, solitary,
};
use crate::tests::support::{World, done, text, until};
use crate::{LaneState, LaneStatus, Runtime};

fn yaml(more: &str) -> String {
    format!(
        "apiVersion: rustmq/v1alpha1\nkind: Pipeline\nmetadata: {{ name: p }}\n\
         topics:\n  in: {{ partitions: 2 }}\n  out: {{ partitions: 2 }}\n  bad: {{ partitions: 1 }}\n\
         modules:\n  m: {{ source: ./m, limits: {{ deadline: 20ms }} }}\n\
         policy:\n  batch: {{ rows: 8, wait: 0ms }}\n  \
         on-error: {{ retry: {{ max: 2, backoff: 1ms, cap: 2ms }}, then: {{ dead-letter: bad }} }}\n\
         nodes:\n  src: {{ kind: source, topic: in, start: earliest }}\n  \
         w: {{ kind: wasm, module: m, inputs: [src] {more} }}\n  \
         o: {{ kind: sink, inputs: [w], topic: out }}\n"
    )
}

struct Setup {
    world: World,
    runtime: Runtime,
}

async fn setup() -> Setup {
    setup_of(guest('-', "")).await
}

async fn setup_of(guest: Vec<u8>) -> Setup {
    let world = World::new();
    let runtime = world.runtime();
    works_with(&world, &runtime, guest, 1).await;
    Setup { world, runtime }
}

/// Applies a module, and waits until all lanes work with it as that generation.
async fn works_with(world: &World, runtime: &Runtime, module: Vec<u8>, generation: u64) {
    let digest = world.module(module).await;
    let applied = world.apply(runtime, &yaml(""), &[("m", digest)]).await;
    applied.unwrap_or_else(|d| panic!("{d:#?}"));
    until(runtime, |l| l.iter().all(|l| l.generation == generation)).await;
}

/// Values of the first lane, those that come out, and the dead letters as `value code attempt`.
async fn check(values: &[&str], expected: &[&str], letters: &[&str]) {
    check_of(guest('-', ""), values, expected, letters).await;
}

async fn check_of(guest: Vec<u8>, values: &[&str], expected: &[&str], letters: &[&str]) {
    let Setup { world, runtime } = setup_of(guest).await;
    world.produce("in", 0, values);
    world.produce("in", 1, &["other"]);
    until(&runtime, done).await;
    assert_eq!(world.values("out", 0), expected);
    assert_eq!(world.values("out", 1), ["other"]);
    let rows = world.log.rows(world.partition("bad", 0));
    let header = |name: &str, i: usize| {
        let column = rows.header(name);
        text(Some(column.value(i)))
    };
    let found: Vec<String> = (0..rows.len())
        .map(|i| {
            assert!(header("rustmq.module", i).starts_with("sha256:"));
            let value = text(rows.record(i).value);
            format!(
                "{value} {} {}",
                header("rustmq.code", i),
                header("rustmq.attempt", i)
            )
        })
        .collect();
    assert_eq!(found, letters);
}

#[tokio::test]
async fn rejections_retries_and_failures() {
    check(&["a", "r1", "b"], &["a", "b"], &["r1 code 1"]).await;
    // Three tries of each row that asks for it, in turn; what stands beside goes through.
    check(
        &["a", "w1", "b", "w2", "c"],
        &["a", "b", "c"],
        &["w1 code 3", "w2 code 3"],
    )
    .await;
    // A module that fails gives the whole call up after its tries.
    check(
        &["a", "e", "b"],
        &[],
        &["a failed 3", "e failed 3", "b failed 3"],
    )
    .await;
}

#[tokio::test]
async fn rows_behind_one_that_is_given_up_are_worked() {
    let values = ["a", "w1", "b", "r1", "w2", "c", "t1", "d", "w3"];
    let letters = [
        "w1 code 3",
        "r1 code 1",
        "w2 code 3",
        "t1 trap 1",
        "w3 code 3",
    ];
    check_of(leaves(), &values, &["a", "b", "c", "d"], &letters).await;
}

/// Without a second try, at once and in parts, and of a module that keeps something.
#[test]
fn rows_behind_one_that_is_never_tried_again_are_worked() {
    let values = ["a", "w1", "w2", "b", "t1", "c", "w3", "d", "w4"];
    for (part, keyed) in [(100, false), (100, true), (2, false), (2, true)] {
        for guest in [guest('-', ""), leaves()] {
            let mut kept = keyed.then(|| Keyed::new(&Default::default(), 1));
            let (report, out) = called_with(&guest, part, &[chunk(&values)], kept.as_mut());
            let place = format!("parts of {part}, with state: {keyed}");
            assert_eq!(out, ["a", "b", "c", "d"], "{place}");
            let mut bad: Vec<u32> = report.rejects.iter().map(|reject| reject.origin).collect();
            bad.sort_unstable();
            assert_eq!(bad, [1, 2, 4, 6, 8], "{place}");
            assert_eq!(report.cut, None, "{place}");
        }
    }
}

/// Where many rows are given up the batch ends before those that were not worked; where it cannot end, as
/// all are of one record, these are given up, too.
#[test]
fn a_batch_of_many_rows_that_are_given_up_ends() {
    let values: Vec<String> = (0..50)
        .flat_map(|n| [format!("w{n}"), format!("v{n}")])
        .collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let all = chunk(&values);
    for keyed in [false, true] {
        let kept = || keyed.then(|| Keyed::new(&Default::default(), 1));
        let (report, out) =
            called_with(&leaves(), 1000, std::slice::from_ref(&all), kept().as_mut());
        let cut = report.cut.expect("it ends").origin as usize;
        assert!((60..80).contains(&cut), "{cut}");
        let worked: Vec<&str> = values[..cut]
            .iter()
            .copied()
            .filter(|v| v.starts_with('v'))
            .collect();
        assert_eq!(out, worked);
        assert_eq!(report.rejects.len(), cut - worked.len());

        // all of the first record, but for the last ten
        let origins = (0..values.len()).map(|row| u32::from(row >= values.len() - 10));
        let origins = origins.collect();
        let siblings = Chunk {
            origins,
            ..all.clone()
        };
        let (report, out) = called_with(&leaves(), 1000, &[siblings], kept().as_mut());
        assert_eq!(report.cut.map(|cut| cut.origin), Some(1));
        let first: Vec<u32> = report.rejects.iter().map(|reject| reject.origin).collect();
        assert!(first.iter().all(|origin| *origin == 0));
        assert_eq!(out.len() + first.len(), values.len() - 10);
        assert!(out.len() > 30, "{out:?}");
    }
}

#[tokio::test]
async fn rows_that_kill_the_guest_are_found() {
    let values: Vec<String> = (0..20)
        .map(|i| {
            if i % 7 == 3 {
                format!("t{i}")
            } else {
                format!("v{i}")
            }
        })
        .collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let good: Vec<&str> = values
        .iter()
        .copied()
        .filter(|v| v.starts_with('v'))
        .collect();
    check(&values, &good, &["t3 trap 1", "t10 trap 1", "t17 trap 1"]).await;
    check(&["a", "loop", "b"], &["a", "b"], &["loop deadline 1"]).await;
}

#[tokio::test]
async fn the_breaker_stops_a_lane_that_only_kills() {
    let Setup { world, runtime } = setup().await;
    let values = vec!["t"; 40];
    world.produce("in", 0, &values);
    world.produce("in", 1, &["fine"]);
    let stopped = |lane: &LaneStatus| matches!(lane.state, LaneState::Stopped { .. });
    let lanes = until(&runtime, |lanes| {
        stopped(&lanes[0]) && lanes[1].position == 1
    })
    .await;
    assert_eq!(lanes[0].position, 32);
    let why = lanes[0].state.to_string();
    assert!(
        why.starts_with(
            "stopped: the breaker opened: 32 rows killed the module before the one at offset 32 did"
        ),
        "{why}"
    );
    assert_eq!(world.values("out", 1), ["fine"]);
}

/// Rows with these values, which came from the first rows of the batch.
fn chunk(values: &[&str]) -> Chunk {
    let mut builder = model::rows::RowsBuilder::new();
    let mut push = |value: &&str| builder.push(0, None, Some(value.as_bytes()), &[]);
    values.iter().for_each(&mut push);
    Chunk {
        rows: builder.finish(),
        origins: (0..values.len() as u32).collect(),
        ..Chunk::empty()
    }
}

/// Runs the guest over chunks of its inputs; what it reports, and the values on its output.
fn called(chunks: &[Chunk], port_bytes_max: usize, kills: usize) -> (Report, Vec<String>) {
    called_of(&guest('-', ""), usize::MAX, chunks, port_bytes_max, kills)
}

fn called_of(
    guest: &[u8],
    part: usize,
    chunks: &[Chunk],
    port_bytes_max: usize,
    kills: usize,
) -> (Report, Vec<String>) {
    called_by(guest, part, (chunks, port_bytes_max, kills), None)
}

/// With what the guest keeps.
fn called_with(
    guest: &[u8],
    part: usize,
    chunks: &[Chunk],
    keyed: Option<&mut Keyed>,
) -> (Report, Vec<String>) {
    called_by(guest, part, (chunks, usize::MAX, 0), keyed)
}

fn called_by(
    guest: &[u8],
    part: usize,
    (chunks, port_bytes_max, kills): (&[Chunk], usize, usize),
    keyed: Option<&mut Keyed>,
) -> (Report, Vec<String>) {
    let module = World::new().host.load(guest, &Default::default());
    let program = Program {
        module: module.unwrap_or_else(|e| panic!("{e}")),
        context: wasm::OpenContext {
            inputs: vec!["a".into(), "b".into()],
            outputs: vec!["out".into()],
            ..Default::default()
        },
        limits: Default::default(),
        retry: RetryPolicy {
            max: 0,
            backoff_ms: 1,
            cap_ms: 1,
        },
    };
    let stop = wasm::http::Stop::default();
    let mut warm = program
        .open(0, Default::default(), stop.clone())
        .expect("it opens");
    let offsets: Vec<u64> = (0..10_000).collect();
    let (mut report, mut ports) = (Report::default(), vec![Made::default()]);
    let mut call = Call {
        node: 0,
        lane: 0,
        program: &program,
        offsets: &offsets,
        part,
        tried: &[],
        inputs: &[None, None],
        outputs: &[None],
        report: &mut report,
        port_bytes_max,
        ports: &mut ports,
        keyed,
        given_up: 0,
    };
    for _ in 0..kills {
        call.run(&mut warm, 0, &chunk(&["t"])).expect("it runs");
    }
    call.report.rejects.clear();
    for (at, chunk) in chunks.iter().enumerate() {
        call.run(&mut warm, at as u16 % 2, chunk).expect("it runs");
    }
    stop.set();
    let stopped = call.run(&mut warm, 0, &chunk(&["a"]));
    assert!(matches!(stopped, Err(OperatorError::Stopped)));
    let rows = Chunk::concat(&ports[0].pieces).expect("they fit").rows;
    let values = rows.records().map(|row| text(row.value)).collect();
    (report, values)
}

#[test]
fn rows_that_find_no_room_on_an_output_are_rejected() {
    let first = chunk(&["aaaa", "bbbb"]);
    let bytes = first.rows.bytes();
    let chunks = [first, chunk(&["cccc", "r", "dddd"])];
    let (report, values) = called(&chunks, bytes, 0);
    assert_eq!(values, ["aaaa", "bbbb"]);
    assert_eq!(report.cut, None);
    let found: Vec<_> = report
        .rejects
        .iter()
        .map(|r| (r.origin, &r.code[..]))
        .collect();
    assert_eq!(found, [(0, "limit"), (1, "code"), (2, "limit")]);
}

#[test]
fn of_a_call_that_finds_no_room_nothing_is_kept() {
    let rows = chunk(&["aaaa"]);
    let piece = rows.rows.bytes();
    let mut made = Made::default();
    assert!(made.push(rows.clone(), piece, 2 * piece).is_ok());
    let before = made.size();
    assert!(made.push(rows.clone(), piece, 2 * piece).is_ok());
    assert!(made.push(rows.clone(), piece, 2 * piece).is_err());
    made.back_to(before);
    assert_eq!(made.pieces.len(), 1);
    assert!(made.push(rows, piece, 2 * piece).is_ok());
}

/// Halving goes on only while single rows can be what kills it.
#[test]
fn a_guest_that_dies_of_many_rows_is_stopped() {
    let (report, values) = called_of(&solitary(), usize::MAX, &[chunk(&["a"; 8])], usize::MAX, 0);
    assert_eq!((values.len(), &report.cut), (8, &None));
    let (report, values) = called_of(
        &solitary(),
        usize::MAX,
        &[chunk(&["a"; 4096])],
        usize::MAX,
        0,
    );
    let cut = report.cut.expect("it is stopped");
    assert_eq!(values.len(), cut.origin as usize);
    let Why::Stop { message } = cut.why else {
        panic!("{cut:?}");
    };
    let begin = "the breaker opened: the module died 463 times over 4096 rows, more often than";
    assert!(message.starts_with(begin), "{message}");
    assert!(report.rejects.is_empty());
}

/// Credits that good rows earn count for the rows after them, however many come at once.
#[test]
fn lethal_rows_of_a_large_batch_are_found_as_those_of_small_ones() {
    let values: Vec<&str> = (0..8000)
        .map(|i| if i % 100 == 7 { "t" } else { "a" })
        .collect();
    let chunks = [chunk(&values)];
    let (report, kept) = called_of(&guest('-', ""), 1000, &chunks, usize::MAX, 0);
    assert_eq!((report.cut, report.crowded), (None, false));
    assert_eq!((report.rejects.len(), kept.len()), (80, 7920));
    let (report, _) = called_of(&guest('-', ""), usize::MAX, &chunks, usize::MAX, 0);
    assert!(report.cut.is_some(), "in one part it is stopped");
}

/// Its memory is for 3,500 rows of 50 bytes.
#[test]
fn more_rows_than_a_guest_stands_are_worked_in_parts() {
    let value = "a".repeat(50);
    for (rows, crowded) in [(2000, false), (4000, true)] {
        let chunks = [chunk(&vec![value.as_str(); rows])];
        let (report, kept) = called_of(&guest('-', ""), 1000, &chunks, usize::MAX, 0);
        assert_eq!((report.cut, report.rejects.len()), (None, 0));
        assert_eq!((kept.len(), report.crowded), (rows, crowded));
        assert_eq!(report.fault, None);
    }
}

#[test]
fn a_row_that_is_rejected_twice_is_told_once() {
    let (report, values) = called_of(
        &insists(),
        usize::MAX,
        &[chunk(&["a", "r", "b"])],
        usize::MAX,
        0,
    );
    assert_eq!(values, ["a", "b"]);
    let rejected: Vec<u32> = report.rejects.iter().map(|r| r.origin).collect();
    assert_eq!(rejected, [1]);
}

#[test]
fn a_guest_whose_memory_grows_is_opened_again_before_it_fails() {
    let chunks: Vec<Chunk> = (0..200).map(|_| chunk(&["a", "b"])).collect();
    let (report, values) = called_of(&leaking(), usize::MAX, &chunks, usize::MAX, 0);
    assert_eq!(values.len(), 400);
    assert_eq!(report.fault, None);
    assert!(report.rejects.is_empty());
}

#[test]
fn a_lane_that_stops_has_worked_all_that_it_commits() {
    let kills = crate::limits::BREAKER_ROWS_MAX as usize;
    let chunks = [chunk(&["a", "b", "t", "c"]), chunk(&["x", "y", "z"])];
    let (report, values) = called(&chunks, usize::MAX, kills);
    assert_eq!(report.cut.map(|cut| cut.origin), Some(2));
    assert_eq!(values, ["a", "b", "x", "y", "z"]);
}

#[tokio::test]
async fn a_new_version_takes_over_between_two_batches() {
    let Setup { world, runtime } = setup().await;
    let values: Vec<String> = (0..400)
        .map(|i| format!("{}{i}", if i % 2 == 0 { 'x' } else { 'y' }))
        .collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    for part in values[..200].chunks(10) {
        world.produce("in", 0, part);
    }
    let second = world.module(guest('x', "")).await;
    world
        .apply(&runtime, &yaml(""), &[("m", second)])
        .await
        .unwrap();
    for part in values[200..].chunks(10) {
        world.produce("in", 0, part);
    }
    let lanes = until(&runtime, |l| done(l) && l.iter().all(|l| l.generation == 2)).await;
    assert_eq!(lanes[0].modules["m"], second);
    // Before the hand-over all rows, after it those that version 2 lets through.
    let offset = match lanes[0].handovers.iter().next() {
        Some(handover) => {
            assert_eq!((handover.from, handover.to), (1, 2));
            assert_eq!(handover.rolled_back, None);
            handover.offset as usize
        }
        None => 0,
    };
    let kept = |(i, v): (usize, &&str)| (i < offset || v.starts_with('y')).then(|| v.to_string());
    let expected: Vec<String> = values.iter().enumerate().filter_map(kept).collect();
    assert_eq!(world.values("out", 0), expected);
    let position = world
        .log
        .position_of("_pipeline.p.src", world.partition("in", 0))
        .unwrap();
    assert_eq!(position.metadata, "generation=2");
}

#[tokio::test]
async fn a_version_that_fails_at_once_is_rolled_back() {
    let Setup { world, runtime } = setup().await;
    world.produce("in", 0, &["a", "b"]);
    until(&runtime, |l| l[0].position == 2).await;
    works_with(&world, &runtime, broken(), 2).await;
    world.produce("in", 0, &["c", "d"]);
    let lanes = until(&runtime, |l| l[0].position == 4).await;
    assert_eq!(world.values("out", 0), ["a", "b", "c", "d"]);
    assert_eq!(lanes[0].generation, 1);
    let last = lanes[0].handovers.back().unwrap();
    assert_eq!((last.from, last.to, last.offset), (1, 2, 2));
    let why = last.rolled_back.as_deref().unwrap();
    assert!(
        why.starts_with("generation 2 failed before its first commit: the module trapped"),
        "{why}"
    );
    assert!(lanes[0].fault.is_some());
    let letters = world.log.rows(world.partition("bad", 0));
    assert_eq!(letters.len(), 0);
    let position = world
        .log
        .position_of("_pipeline.p.src", world.partition("in", 0))
        .unwrap();
    assert_eq!(position.metadata, "generation=1");
}

/// One that had nothing to commit is gone back to, as it was said to run; if it fails, too, the one before.
#[tokio::test]
async fn a_version_is_rolled_back_to_the_one_that_was_seen_to_run() {
    for (idle, out, works) in [
        (guest('x', ""), vec!["a", "b"], 2),
        (broken(), vec!["a", "x", "b"], 1),
    ] {
        let Setup { world, runtime } = setup().await;
        world.produce("in", 0, &["a"]);
        until(&runtime, |l| l[0].position == 1).await;
        for (module, generation) in [(idle, 2), (broken_otherwise(), 3)] {
            works_with(&world, &runtime, module, generation).await;
        }
        world.produce("in", 0, &["x", "b"]);
        let lanes = until(&runtime, |l| l[0].position == 3).await;
        assert_eq!(world.values("out", 0), out);
        assert_eq!(lanes[0].generation, works);
        let (back, _) = lanes[0].rolled_back().expect("it says so");
        assert_eq!(back.to, if works == 2 { 3 } else { 2 });
        assert_eq!(world.log.rows(world.partition("bad", 0)).len(), 0);
    }
}

/// What is applied again as it is changes nothing, and ends nothing.
#[tokio::test]
async fn the_same_once_more_is_no_hand_over() {
    let Setup { world, runtime } = setup().await;
    world.produce("in", 0, &["a"]);
    until(&runtime, |l| l[0].position == 1).await;
    works_with(&world, &runtime, guest('-', ""), 1).await;
    world.produce("in", 0, &["b"]);
    let lanes = until(&runtime, |l| l[0].position == 2).await;
    assert_eq!((lanes[0].generation, lanes[0].handovers.len()), (1, 0));
}

/// A row that kills both versions does not keep the new one out.
#[tokio::test]
async fn a_version_is_not_blamed_for_a_row_that_kills_the_one_before_too() {
    let Setup { world, runtime } = setup().await;
    world.produce("in", 0, &["a"]);
    until(&runtime, |l| l[0].position == 1).await;
    works_with(&world, &runtime, guest('-', "nop"), 2).await;
    world.produce("in", 0, &["b", "t", "c"]);
    let back = |l: &LaneStatus| l.handovers.iter().any(|h| h.rolled_back.is_some());
    until(&runtime, |l| l[0].position == 4 && back(&l[0])).await;
    until(&runtime, |l| l[0].generation == 2).await;
    world.produce("in", 0, &["d"]);
    let lanes = until(&runtime, |l| l[0].position == 5).await;
    assert_eq!(world.values("out", 0), ["a", "b", "c", "d"]);
    assert_eq!(world.log.rows(world.partition("bad", 0)).len(), 1);
    let last = lanes[0].handovers.back().unwrap();
    assert_eq!((last.from, last.to, last.offset), (1, 2, 4));
    assert_eq!((&last.rolled_back, &lanes[0].fault), (&None, &None));
    let position = world
        .log
        .position_of("_pipeline.p.src", world.partition("in", 0))
        .unwrap();
    assert_eq!(position.metadata, "generation=2");
}

#[tokio::test]
async fn a_lane_that_waits_to_try_again_takes_a_new_version_at_once() {
    let world = World::new();
    let runtime = world.runtime();
    let patient = yaml(", on-error: { retry: { max: 5, backoff: 1h, cap: 1h } }");
    let (first, second) = (guest('-', ""), mended());
    let (first, second) = (world.module(first).await, world.module(second).await);
    world
        .apply(&runtime, &patient, &[("m", first)])
        .await
        .unwrap();
    world.produce("in", 0, &["e"]);
    let waits = |lane: &LaneStatus| matches!(lane.state, LaneState::Retrying { .. });
    until(&runtime, |lanes| waits(&lanes[0])).await;
    world
        .apply(&runtime, &patient, &[("m", second)])
        .await
        .unwrap();
    until(&runtime, |lanes| done(&lanes[..1])).await;
    assert_eq!(world.values("out", 0), ["e"]);
}

/// Every 50th version fails on whatever comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_versions_take_over_while_records_flow() {
    const SWAPS: u64 = 1000;
    let Setup { world, runtime } = setup().await;
    let good = [
        world.module(guest('-', "")).await,
        world.module(guest('-', "nop")).await,
    ];
    let bad = world.module(broken()).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let feed = tokio::spawn(feed(world.clone(), runtime.watch(), stopped));
    for swap in 1..=SWAPS {
        let module = if swap % 50 == 0 {
            bad
        } else {
            good[swap as usize % 2]
        };
        let generation = world
            .apply(&runtime, &yaml(""), &[("m", module)])
            .await
            .unwrap_or_else(|d| panic!("{d:#?}"));
        let lanes = until(&runtime, |lanes| {
            let over = |lane: &LaneStatus| lane.handovers.iter().any(|h| h.to == generation);
            lanes.iter().all(over)
        })
        .await;
        for lane in &lanes {
            let last = lane.handovers.iter().find(|h| h.to == generation).unwrap();
            assert_eq!(last.rolled_back.is_some(), module == bad, "{last:?}");
        }
    }
    stop.send_replace(true);
    let fed = feed.await.unwrap();
    until(&runtime, done).await;
    for lane in 0..2 {
        let expected: Vec<String> = (0..fed).map(|number| number.to_string()).collect();
        assert_eq!(world.values("out", lane), expected, "lane {lane}");
        assert!(world.values("bad", 0).is_empty());
    }
}

/// Numbers into both partitions, as fast as the slower lane takes them; how many.
async fn feed(
    world: World,
    mut moved: tokio::sync::watch::Receiver<u64>,
    stopped: tokio::sync::watch::Receiver<bool>,
) -> usize {
    let mut fed = 0;
    while !*stopped.borrow() {
        let numbers: Vec<String> = (fed..fed + 16).map(|number| number.to_string()).collect();
        let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
        world.produce("in", 0, &numbers);
        world.produce("in", 1, &numbers);
        fed += numbers.len();
        let behind = |lane| {
            let position = world
                .log
                .position_of("_pipeline.p.src", world.partition("in", lane));
            position.map_or(0, |p| p.offset) + 64 < fed as u64
        };
        while behind(0) || behind(1) {
            moved.changed().await.unwrap();
        }
    }
    fed
}

#[tokio::test]
async fn prepare_refuses_what_cannot_run() {
    let Setup { world, runtime } = setup().await;
    let fails = world.module(guest('-', "unreachable")).await;
    let missing = model::ids::Digest::of(b"nobody has it");
    let garbage = world.module(b"\0asm nonsense".to_vec()).await;
    let mut messages = BTreeSet::new();
    for digest in [fails, missing, garbage] {
        let refused = world
            .apply(&runtime, &yaml(""), &[("m", digest)])
            .await
            .unwrap_err();
        assert_eq!(refused.len(), 1);
        messages.insert(refused[0].to_string());
    }
    let refused = world.apply(&runtime, &yaml(""), &[]).await.unwrap_err();
    messages.insert(refused[0].to_string());
    let messages: Vec<String> = messages.into_iter().collect();
    assert!(
        messages[0].starts_with("p.yaml:15:3: error: module `m` does not open: in `open`: "),
        "{messages:#?}"
    );
    assert!(
        messages[1].starts_with("p.yaml:9:16: error: module `m` was not built"),
        "{messages:#?}"
    );
    assert!(
        messages[2..]
            .iter()
            .all(|m| m.starts_with("p.yaml:9:16: error: module `m`: ")),
        "{messages:#?}"
    );
    // What ran goes on.
    world.produce("in", 0, &["still"]);
    until(&runtime, |l| l[0].position == 1).await;
}
