//! Modules that keep state: counted once whatever happens, kept over restarts and new versions, timers
//! once and in order, nothing of what failed.

use std::collections::BTreeMap;

use model::ids::Digest;
use model::rows::RowsBuilder;

use crate::tests::support::guest::guest;
use crate::tests::support::{Fate, World, done, text, until};
use crate::{LaneState, LaneStatus, Runtime, state_topic};

/// `tests/guests/keeps`: counts by key, unless a row's value says otherwise.
pub(super) const KEEPS: &[u8] =
    include_bytes!("../../../tests/guests/conformance/released/0.1.2-stateful.wasm");

/// The same code under another digest.
pub(super) fn again() -> Vec<u8> {
    let mut bytes = KEEPS.to_vec();
    // a custom section named `x`
    bytes.extend([0, 2, 1, b'x']);
    bytes
}

/// The same code, which says that it keeps its state in another way.
pub(super) fn other_schema() -> Vec<u8> {
    let (old, new) = (b"\"state_schema\":1", b"\"state_schema\":2");
    let mut bytes = KEEPS.to_vec();
    let at = KEEPS.windows(old.len()).rposition(|part| part == old);
    let at = at.expect("its section says so");
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

fn yaml(then: &str, node: &str) -> String {
    format!(
        "apiVersion: rustmq/v1alpha1\nkind: Pipeline\nmetadata: {{ name: p }}\n\
         topics:\n  in: {{ partitions: 2 }}\n  out: {{ partitions: 2 }}\n  bad: {{ partitions: 1 }}\n\
         modules:\n  m: {{ source: ./m, limits: {{ deadline: 200ms, state: 1MiB }} }}\n\
         policy:\n  batch: {{ rows: 8, wait: 0ms }}\n  \
         on-error: {{ retry: {{ max: 0 }}, then: {then} }}\n\
         nodes:\n  src: {{ kind: source, topic: in, start: earliest }}\n  \
         w: {{ kind: wasm, module: m, inputs: [src] {node} }}\n  \
         o: {{ kind: sink, inputs: [w], topic: out }}\n"
    )
}

pub(super) const LETTER: &str = "{ dead-letter: bad }";

pub(super) struct Setup {
    pub(super) world: World,
    pub(super) runtime: Runtime,
}

pub(super) async fn setup(then: &str, node: &str) -> Setup {
    setup_in(World::new(), then, node).await
}

pub(super) async fn setup_in(world: World, then: &str, node: &str) -> Setup {
    let runtime = world.runtime();
    let setup = Setup { world, runtime };
    setup
        .apply(then, node, KEEPS.to_vec())
        .await
        .expect("it applies");
    until(&setup.runtime, done).await;
    setup
}

impl Setup {
    pub(super) async fn apply(
        &self,
        then: &str,
        node: &str,
        module: Vec<u8>,
    ) -> Result<Digest, String> {
        let digest = self.world.module(module).await;
        let (yaml, modules) = (yaml(then, node), [("m", digest)]);
        let applied = self.world.apply(&self.runtime, &yaml, &modules).await;
        applied.map(|_| digest).map_err(|d| d[0].to_string())
    }

    /// Rows of the first lane: key, time, value.
    pub(super) fn produce(&self, rows: &[(&str, i64, &str)]) {
        let mut builder = RowsBuilder::new();
        for (key, time, value) in rows {
            builder.push(*time, Some(key.as_bytes()), Some(value.as_bytes()), &[]);
        }
        let partition = self.world.partition("in", 0);
        self.world.log.append(partition, &builder.finish());
    }

    /// The same, and what came out of both lanes since `from` rows ago, as `key value`.
    pub(super) async fn out(&self, rows: &[(&str, i64, &str)]) -> Vec<String> {
        let before = [0, 1].map(|lane| self.lane(lane).len());
        self.produce(rows);
        until(&self.runtime, done).await;
        let new = |lane: usize| self.lane(lane as u32).split_off(before[lane]);
        [new(0), new(1)].concat()
    }

    /// All that came out; of one key in the order of the log.
    pub(super) fn all(&self) -> Vec<String> {
        [self.lane(0), self.lane(1)].concat()
    }

    pub(super) fn lane(&self, lane: u32) -> Vec<String> {
        let rows = self.world.log.rows(self.world.partition("out", lane));
        let row = |r: model::rows::RecordRef<'_>| format!("{} {}", text(r.key), text(r.value));
        rows.records().map(row).collect()
    }

    /// The counts that came out for each key, in their order.
    pub(super) fn counted(&self) -> BTreeMap<String, Vec<u64>> {
        let mut counted: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for line in self.all() {
            let (key, count) = line.split_once(' ').expect("key and count");
            let counts = counted.entry(key.to_string()).or_default();
            counts.push(count.parse().expect("a number"));
        }
        counted
    }

    /// That each record of `truth`, records by key, was counted once and in order.
    pub(super) fn counted_once(&self, mut truth: BTreeMap<String, u64>, when: &str) {
        for (key, counts) in self.counted() {
            let expected: Vec<u64> = (1..=truth.remove(&key).expect("it was produced")).collect();
            assert_eq!(counts, expected, "{key}, {when}");
        }
        assert!(truth.is_empty(), "{truth:?} did not come, {when}");
    }

    /// Records to be counted, of five keys; `truth` has how many of each.
    pub(super) fn produce_round(&self, round: u64, truth: &mut BTreeMap<String, u64>) {
        let keys: Vec<String> = (0..13)
            .map(|i| format!("k{}", (i * 7 + round) % 5))
            .collect();
        for key in &keys {
            *truth.entry(key.clone()).or_default() += 1;
        }
        let rows = keys.iter().map(|key| (&key[..], round as i64, "x"));
        self.produce(&rows.collect::<Vec<_>>());
    }

    pub(super) async fn restart(&mut self) {
        self.runtime.shutdown().await;
        self.runtime = self.world.runtime();
        self.start().await;
        until(&self.runtime, done).await;
    }

    /// What the server does when it comes up.
    pub(super) async fn start(&self) {
        let catalog = model::port::CatalogView::catalog(&*self.world.catalog);
        let record = catalog.pipeline("p").expect("it is there").clone();
        let prepared = self.runtime.prepare(&record).await.expect("it was before");
        self.runtime.start(prepared).await.expect("it did before");
    }
}

#[tokio::test]
async fn counts_outlive_restarts_and_new_versions() {
    let mut setup = setup(LETTER, "").await;
    assert_eq!(
        setup.out(&[("a", 1, "x"), ("a", 2, "x")]).await,
        ["a 1", "a 2"]
    );
    setup.restart().await;
    assert_eq!(setup.out(&[("a", 3, "x")]).await, ["a 3"]);
    let digest = setup.apply(LETTER, "", again()).await.expect("live");
    let lanes = until(&setup.runtime, |l| l.iter().all(|l| l.generation == 2)).await;
    assert_eq!(lanes[0].modules["m"], digest);
    assert_eq!(
        setup.out(&[("a", 4, "x"), ("a", 4, "get")]).await,
        ["a 4", "a 4"]
    );
    let lanes = until(&setup.runtime, done).await;
    let kept = &lanes[0].kept["w"];
    assert_eq!((kept.entries, kept.watermark), (1, Some(4)));
    assert!(kept.bytes > 0);
    // one partition a lane, newest of each key: what a compaction leaves is the state
    let topic = state_topic("p", "w");
    assert_eq!(topic, "_state.p.w");
    assert!(setup.world.log.rows(setup.world.partition(&topic, 0)).len() > 4);
}

#[tokio::test]
async fn of_a_row_that_kills_the_module_nothing_is_kept() {
    let setup = setup(LETTER, "").await;
    let rows = [
        ("a", 1, "x"),
        ("a", 1, "trap"),
        ("b", 1, "x"),
        ("a", 1, "x"),
    ];
    let mut out = setup.out(&rows).await;
    out.sort();
    assert_eq!(out, ["a 1", "a 2", "b 1"]);
    let letters = setup.world.log.rows(setup.world.partition("bad", 0));
    assert_eq!(letters.len(), 1);
    // nor of one that keeps more than it may
    let rows = [("a", 1, "x"), ("c", 1, "hoard"), ("a", 1, "x")];
    assert_eq!(setup.out(&rows).await, ["a 3", "a 4"]);
    let letters = setup.world.log.rows(setup.world.partition("bad", 0));
    assert_eq!(text(Some(letters.header("rustmq.code").value(1))), "limit");
}

#[tokio::test]
async fn rows_behind_a_stop_are_counted_when_their_time_comes() {
    let setup = setup("stop", "").await;
    setup.produce(&[
        ("a", 1, "x"),
        ("a", 2, "reject"),
        ("a", 3, "x"),
        ("a", 9, "x"),
    ]);
    let stopped = |lane: &LaneStatus| matches!(lane.state, LaneState::Stopped { .. });
    let lanes = until(&setup.runtime, |l| stopped(&l[0])).await;
    assert_eq!(
        (lanes[0].position, lanes[0].kept["w"].watermark),
        (1, Some(1))
    );
    assert_eq!(setup.all(), ["a 1"]);
    setup.apply("drop", "", KEEPS.to_vec()).await.expect("live");
    until(&setup.runtime, done).await;
    assert_eq!(setup.all(), ["a 1", "a 2", "a 3"]);
}

#[tokio::test]
async fn timers_fire_once_and_in_order() {
    let mut setup = setup(LETTER, ", lateness: 1ms").await;
    let rows = [
        ("a", 10, "x"),
        ("a", 10, "at 500"),
        ("a", 10, "at 400"),
        ("a", 10, "at 9000"),
    ];
    setup.out(&rows).await;
    setup.restart().await;
    // the watermark is a millisecond behind
    assert_eq!(setup.out(&[("b", 1_399, "get")]).await, ["b none"]);
    let mut out = setup.out(&[("b", 1_600, "get")]).await;
    out.sort();
    assert_eq!(
        out,
        [
            "a fired 400 at 600, count 1",
            "a fired 500 at 600, count 0",
            "b none"
        ]
    );
    setup.restart().await;
    // event times that go back move nothing
    assert_eq!(setup.out(&[("b", 0, "get")]).await, ["b none"]);
    let out = setup.out(&[("a", 20_000, "get")]).await;
    assert_eq!(out, ["a none", "a fired 9000 at 19000, count 0"]);
    assert_eq!(setup.out(&[("a", 90_000, "get")]).await, ["a none"]);
}

#[tokio::test]
async fn timers_that_fail_or_set_themselves_again_harm_nobody() {
    let setup = setup(LETTER, "").await;
    let rows = [("bomb", 1, "at 2"), ("ever", 1, "at 2"), ("z", 1, "at 2")];
    setup.out(&rows).await;
    let mut out = setup.out(&[("a", 5, "get")]).await;
    out.sort();
    assert_eq!(
        out,
        [
            "a none",
            "ever fired 2 at 5, count 0",
            "z fired 2 at 5, count 0"
        ]
    );
    let letters = setup.world.log.rows(setup.world.partition("bad", 0));
    assert_eq!(letters.len(), 1);
    assert_eq!(text(letters.record(0).value), "get");
    let message = text(Some(letters.header("rustmq.message").value(0)));
    assert!(message.contains("a timer, on purpose"), "{message}");
    let mut out = setup.out(&[("a", 6, "get")]).await;
    out.sort();
    assert_eq!(out, ["a none", "ever fired 2 at 6, count 0"]);
}

#[tokio::test]
async fn what_would_lose_state_is_refused() {
    let setup = setup(LETTER, "").await;
    setup.out(&[("a", 1, "x")]).await;
    let refused = async |more: &str, module: Vec<u8>, part: &str| {
        let error = setup.apply(LETTER, more, module).await.expect_err(part);
        assert!(error.contains(part), "{error}");
    };
    let nothing = "node w: state schema 1 -> 2, but the new version takes over no older state";
    refused("", other_schema(), nothing).await;
    refused("", guest('-', ""), "node w: what it keeps would be lost").await;
    let two = "}\n  src2: { kind: source, topic: out, start: latest }\n  \
               w2: { kind: wasm, module: m, inputs: [src, src2]";
    refused(two, KEEPS.to_vec(), "node `w2` keeps state").await;
    assert_eq!(setup.out(&[("a", 1, "x")]).await, ["a 2"]);
}

#[tokio::test]
async fn each_row_is_counted_once_whatever_the_log_does() {
    let mut setup = setup(LETTER, "").await;
    let mut truth: BTreeMap<String, u64> = BTreeMap::new();
    for round in 0..60u64 {
        let fates = [
            Fate::Refused,
            Fate::Late,
            Fate::Done,
            Fate::Late,
            Fate::Refused,
        ];
        let chosen = fates
            .iter()
            .cycle()
            .skip(round as usize % 5)
            .take(round as usize % 4);
        setup.world.log.fates(chosen.copied());
        setup.produce_round(round, &mut truth);
        match round % 7 {
            3 => setup.restart().await,
            5 => {
                until(&setup.runtime, done).await;
            }
            _ => {}
        }
    }
    setup.world.log.forget_fates();
    until(&setup.runtime, done).await;
    setup.counted_once(truth, "after all rounds");
}
