//! Modules that look into tables: a join that sees what was there before its first batch, and what
//! changes between batches; what happens when a table cannot be had.

use model::rows::RowsBuilder;
use model::topic::TopicSpec;

use crate::tests::support::guest::{guest, looks_up};
use crate::tests::support::{World, done, text, until};
use crate::{LaneState, LaneStatus, LookupStatus, Runtime, Until};

fn yaml(lookups: &str) -> String {
    format!(
        "apiVersion: rustmq/v1alpha1\nkind: Pipeline\nmetadata: {{ name: p }}\n\
         topics:\n  in: {{ partitions: 2 }}\n  out: {{ partitions: 2 }}\n\
         modules:\n  m: {{ source: ./m }}\n\
         policy:\n  batch: {{ rows: 8, wait: 0ms }}\n\
         nodes:\n  src: {{ kind: source, topic: in, start: earliest }}\n  \
         w: {{ kind: wasm, module: m, inputs: [src]{lookups} }}\n  \
         o: {{ kind: sink, inputs: [w], topic: out }}\n"
    )
}

const USERS: &str = ", lookups: { users: people }";

struct Setup {
    world: World,
    runtime: Runtime,
}

impl Setup {
    fn new() -> Setup {
        let world = World::new();
        let spec = TopicSpec {
            partitions: 3,
            compact: true,
            ..TopicSpec::default()
        };
        world.topic("people", spec);
        world.topic(
            "in",
            TopicSpec {
                partitions: 2,
                ..TopicSpec::default()
            },
        );
        let runtime = world.runtime();
        Setup { world, runtime }
    }

    async fn apply(&self, lookups: &str, module: Vec<u8>) -> Result<u64, String> {
        let digest = self.world.module(module).await;
        let (yaml, modules) = (yaml(lookups), [("m", digest)]);
        let applied = self.world.apply(&self.runtime, &yaml, &modules);
        applied.await.map_err(|d| d[0].to_string())
    }

    /// What is known of people from now on; no value forgets one.
    fn people(&self, people: &[(&str, Option<&str>)]) {
        for (name, value) in people {
            let mut rows = RowsBuilder::new();
            rows.push(0, Some(name.as_bytes()), value.map(str::as_bytes), &[]);
            let index = u32::from(name.as_bytes()[0]) % 3;
            let partition = self.world.partition("people", index);
            self.world.log.append(partition, &rows.finish());
        }
    }

    /// What becomes of rows of the first lane, as `row value`, in the order of the text.
    async fn joined(&self, rows: &[&str]) -> Vec<String> {
        let before = [0, 1].map(|lane| self.lane(lane).len());
        self.world.produce("in", 0, rows);
        until(&self.runtime, done).await;
        let new = [0, 1].map(|lane| self.lane(lane as u32).split_off(before[lane]));
        sorted(new.concat())
    }

    fn out(&self) -> Vec<String> {
        sorted([self.lane(0), self.lane(1)].concat())
    }

    fn lane(&self, index: u32) -> Vec<String> {
        let rows = self.world.log.rows(self.world.partition("out", index));
        let row = |r: model::rows::RecordRef<'_>| format!("{} {}", text(r.key), text(r.value));
        rows.records().map(row).collect()
    }

    fn tables(&self) -> Vec<LookupStatus> {
        let status = self.runtime.status();
        status.into_iter().flat_map(|p| p.lookups).collect()
    }

    /// Waits until the tables have all that their topics have.
    async fn followed(&self) {
        let read = |tables: Vec<LookupStatus>| tables.iter().all(|t| t.read == t.end);
        until(&self.runtime, |_| read(self.tables())).await;
    }

    async fn restart(&mut self) {
        self.runtime.shutdown().await;
        self.runtime = self.world.runtime();
        let catalog = model::port::CatalogView::catalog(&*self.world.catalog);
        let record = catalog.pipeline("p").expect("it is there").clone();
        let prepared = self.runtime.prepare(&record).await.expect("it was before");
        self.runtime.start(prepared).await.expect("it did before");
    }
}

fn sorted(mut rows: Vec<String>) -> Vec<String> {
    rows.sort();
    rows
}

#[tokio::test]
async fn a_join_sees_all_that_was_there_and_what_changes_between_batches() {
    let mut setup = Setup::new();
    let names: Vec<String> = (0..200).map(|n| format!("{n}-person")).collect();
    for name in &names {
        setup.people(&[(name, Some("old")), (name, Some("new"))]);
    }
    setup.people(&[("gone", Some("x")), ("gone", None)]);
    // reading the tables is slow, and there are rows already
    setup.world.log.unreadable(3);
    let rows: Vec<&str> = names.iter().map(String::as_str).chain(["gone"]).collect();
    setup.world.produce("in", 0, &rows);
    setup.apply(USERS, looks_up()).await.expect("it applies");
    until(&setup.runtime, done).await;
    let expected = names.iter().map(|name| format!("{name} new"));
    let expected = expected.chain(["gone -".to_string()]).collect();
    assert_eq!(setup.out(), sorted(expected));
    let [table] = &setup.tables()[..] else {
        panic!("one table");
    };
    assert_eq!((&table.node[..], &table.table[..]), ("w", "users"));
    assert_eq!((&table.topic[..], table.entries), ("people", 200));
    assert_eq!((table.read, table.end), (402, 402));
    assert!(table.bytes > 200 * 96 && table.bytes < table.bytes_max);
    // then it follows
    for round in 0..20 {
        let value = format!("{round}");
        setup.people(&[("gone", Some(&value)), ("b", None)]);
        setup.followed().await;
        let found = setup.joined(&["gone", "b"]).await;
        assert_eq!(found, ["b -".to_string(), format!("gone {round}")]);
        if round % 7 == 3 {
            setup.restart().await;
        }
    }
}

#[tokio::test]
async fn what_cannot_be_had_is_an_error_of_apply() {
    let setup = Setup::new();
    let refused = async |lookups: &str, part: &str| {
        let error = setup.apply(lookups, looks_up()).await.expect_err(part);
        assert!(error.contains(part), "{error}");
    };
    refused(
        "",
        "the node declares none: give it `lookups: { users: TOPIC }`",
    )
    .await;
    let other = ", lookups: { user: people }";
    refused(
        other,
        "the node declares no table `users`; its `lookups` are user",
    )
    .await;
    let missing = ", lookups: { users: poeple }";
    refused(missing, "no topic `poeple` (did you mean `people`?)").await;
    assert!(setup.runtime.status().is_empty());
}

#[tokio::test]
async fn a_table_above_its_limit_stops_the_lanes_until_it_may_be_larger() {
    let setup = Setup::new();
    setup.people(&[("a", Some("1"))]);
    let small = ", lookups: { users: { topic: people, limit: 1KiB } }";
    setup.apply(small, looks_up()).await.expect("it applies");
    assert_eq!(setup.joined(&["a"]).await, ["a 1"]);
    let large = "x".repeat(1_000);
    setup.people(&[("b", Some(&large))]);
    let given_up = || setup.tables().iter().any(|table| table.fault.is_some());
    until(&setup.runtime, |_| given_up()).await;
    setup.world.produce("in", 0, &["a"]);
    let stopped = |lane: &LaneStatus| matches!(lane.state, LaneState::Stopped { .. });
    let lanes = until(&setup.runtime, |l| l.iter().any(stopped)).await;
    let lane = lanes.iter().find(|lane| stopped(lane)).expect("it stopped");
    let why = "stopped: node `w`: lookup table `users`: the newest values of topic `people` take more \
               than 1 KiB: raise its `limit`, or keep less in the topic";
    assert_eq!(lane.state.to_string(), why);
    let empty = || {
        setup
            .tables()
            .iter()
            .all(|t| (t.entries, t.bytes) == (0, 0))
    };
    until(&setup.runtime, |_| empty()).await;
    // a generation that has the same limit does not open either
    let generation = setup
        .apply(small, looks_up())
        .await
        .expect("it is read beside");
    let declined = |lane: &LaneStatus| {
        let fault = lane.fault.as_deref().unwrap_or_default();
        fault.contains(&format!("generation {generation} does not open"))
    };
    until(&setup.runtime, |l| l.iter().any(declined)).await;
    let more = ", lookups: { users: { topic: people, limit: 1MiB } }";
    setup.apply(more, looks_up()).await.expect("it applies");
    until(&setup.runtime, done).await;
    assert_eq!(setup.out(), ["a 1", "a 1"]);
}

#[tokio::test]
async fn another_topic_takes_over_when_it_is_read() {
    let setup = Setup::new();
    setup.world.topic("others", TopicSpec::default());
    setup.people(&[("a", Some("1"))]);
    setup.apply(USERS, looks_up()).await.expect("it applies");
    assert_eq!(setup.joined(&["a"]).await, ["a 1"]);
    let mut rows = RowsBuilder::new();
    rows.push(0, Some(b"a"), Some(b"2"), &[]);
    let partition = setup.world.partition("others", 0);
    setup.world.log.append(partition, &rows.finish());
    let lookups = ", lookups: { users: others }";
    let generation = setup.apply(lookups, looks_up()).await.expect("live");
    let taken = |l: &[LaneStatus]| l.iter().all(|l| l.generation == generation);
    until(&setup.runtime, taken).await;
    assert_eq!(setup.joined(&["a"]).await, ["a 2"]);
    // without a table, a module that asks for none
    let generation = setup.apply("", guest('-', "")).await.expect("live");
    let taken = |l: &[LaneStatus]| l.iter().all(|l| l.generation == generation);
    until(&setup.runtime, taken).await;
    assert!(setup.tables().is_empty());
}

#[tokio::test]
async fn a_canary_sees_what_the_running_version_saw() {
    let setup = Setup::new();
    setup.people(&[("a", Some("1"))]);
    setup.apply(USERS, looks_up()).await.expect("it applies");
    assert_eq!(setup.joined(&["a"]).await, ["a 1"]);
    let mut again = looks_up();
    // a custom section named `x`
    again.extend([0, 2, 1, b'x']);
    let digest = setup.world.module(again).await;
    let records = Until {
        records: Some(40),
        time: None,
    };
    let started = setup.runtime.canary_start("p", "w", digest, records);
    started.await.expect("it opens");
    for round in 0..40 {
        setup.joined(&["a"]).await;
        let value = format!("{round}");
        setup.people(&[("a", Some(&value))]);
    }
    let compared = || {
        setup
            .runtime
            .canary("p")
            .is_some_and(|report| report.records >= 1)
    };
    until(&setup.runtime, |_| compared()).await;
    let report = setup.runtime.canary("p").expect("it ran");
    assert_eq!(report.records, report.same, "{report:?}");
    assert_eq!(report.fault, None);
}
