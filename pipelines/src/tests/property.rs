//! Random pipelines over random rows, with refused commits and restarts: what the sinks hold is
//! what a plain model says, each row once and in order.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use proptest::prelude::*;

use crate::tests::support::{Fate, World, done, text, until};

/// One operator; `input` counts the ports made so far, from the source's on.
#[derive(Clone, Debug)]
struct Step {
    kind: Kind,
    input: usize,
}

#[derive(Clone, Debug)]
enum Kind {
    /// Keeps `a % n = 0`.
    Every(i64),
    /// Keeps `100 / (a - n) <> 0`: fails on `a = n`.
    Divide(i64),
    /// Adds to `a`.
    Add(i64),
    /// `low` below `n`, `odd` if odd, else `rest`.
    Split(i64),
}

impl Kind {
    fn ports(&self) -> &'static [&'static str] {
        match self {
            Kind::Split(_) => &["low", "odd", "rest"],
            _ => &["out"],
        }
    }
}

#[derive(Clone, Debug)]
struct Case {
    steps: Vec<Step>,
    /// Ports that a sink reads, and whether it is keyed by `a`.
    sinks: Vec<(BTreeSet<usize>, bool)>,
    /// `a` of each row of each lane; nothing is a row that is no JSON.
    rows: Vec<Vec<Option<i64>>>,
    batch: u32,
    fates: Vec<bool>,
    /// After how many rows of each lane the runtime is stopped and another one started.
    restart: usize,
}

fn case() -> impl Strategy<Value = Case> {
    let kind = prop_oneof![
        (1..4i64).prop_map(Kind::Every),
        (0..8i64).prop_map(Kind::Divide),
        (-3..4i64).prop_map(Kind::Add),
        (0..8i64).prop_map(Kind::Split),
    ];
    let step = (kind, any::<prop::sample::Index>());
    let steps = prop::collection::vec(step, 0..6).prop_map(|raw| {
        let mut ports = 1;
        let mut steps = Vec::new();
        for (kind, index) in raw {
            let input = index.index(ports);
            ports += kind.ports().len();
            steps.push(Step { kind, input });
        }
        (steps, ports)
    });
    steps.prop_flat_map(|(steps, ports)| {
        let sink = (prop::collection::btree_set(0..ports, 1..4), any::<bool>());
        let sinks = prop::collection::vec(sink, 1..4);
        let row = prop_oneof![8 => (0..12i64).prop_map(Some), 1 => Just(None)];
        let lane = prop::collection::vec(row, 0..30);
        let rows = prop::collection::vec(lane, 2..3);
        let fates = prop::collection::vec(prop::bool::weighted(0.8), 0..12);
        (Just(steps), sinks, rows, 1..7u32, fates, 0..30usize).prop_map(
            |(steps, sinks, rows, batch, fates, restart)| Case {
                steps,
                sinks,
                rows,
                batch,
                fates,
                restart,
            },
        )
    })
}

const SINK_PARTITIONS: u32 = 3;

impl Case {
    /// The name of each port, in the order the steps count them.
    fn ports(&self) -> Vec<String> {
        let mut names = vec!["in".to_string()];
        for (number, step) in self.steps.iter().enumerate() {
            names.extend(step.kind.ports().iter().map(|port| match *port {
                "out" => format!("s{number}"),
                port => format!("s{number}.{port}"),
            }));
        }
        names
    }

    fn yaml(&self) -> String {
        let ports = self.ports();
        let mut out =
            "apiVersion: rustmq/v1alpha1\nkind: Pipeline\nmetadata: { name: p }\ntopics:\n  \
             src: { partitions: 2, value: { codec: json, schema: { id: int64, a: int64 } } }\n  \
             bad: { partitions: 2 }\n"
                .to_string();
        for number in 0..self.sinks.len() {
            let _ = writeln!(out, "  t{number}: {{ partitions: {SINK_PARTITIONS} }}");
        }
        let _ = writeln!(
            out,
            "policy: {{ batch: {{ rows: {}, wait: 0ms }}, on-error: {{ then: {{ dead-letter: bad }} }} }}\n\
             nodes:\n  in: {{ kind: source, topic: src, start: earliest }}",
            self.batch
        );
        for (number, step) in self.steps.iter().enumerate() {
            let _ = write!(out, "  s{number}: {{ inputs: [{}], ", ports[step.input]);
            let _ = match step.kind {
                Kind::Every(n) => writeln!(out, "kind: filter, where: \"a % {n} = 0\" }}"),
                Kind::Divide(n) => {
                    writeln!(out, "kind: filter, where: \"100 / (a - {n}) <> 0\" }}")
                }
                Kind::Add(n) => {
                    writeln!(out, "kind: map, select: {{ id: id, a: \"a + {n}\" }} }}")
                }
                Kind::Split(n) => writeln!(
                    out,
                    "kind: route, cases: {{ low: \"a < {n}\", odd: \"a % 2 <> 0\" }}, else: rest }}"
                ),
            };
        }
        for (number, (inputs, keyed)) in self.sinks.iter().enumerate() {
            let inputs: Vec<&str> = inputs.iter().map(|port| ports[*port].as_str()).collect();
            let key = if *keyed { ", key: a" } else { "" };
            let inputs = inputs.join(", ");
            let _ = writeln!(
                out,
                "  o{number}: {{ kind: sink, inputs: [{inputs}], topic: t{number}{key} }}"
            );
        }
        out
    }

    /// The typed columns of the source are needed, so rows that are no JSON are found.
    fn decoded(&self) -> bool {
        // Filters and routes pass the edge on; all kinds here read `a`.
        let reads_source = self.steps.iter().any(|step| step.input == 0);
        reads_source
            || self
                .sinks
                .iter()
                .any(|(inputs, keyed)| *keyed && inputs.contains(&0))
    }

    /// Values of each port for one row, and the nodes that rejected it.
    fn model(&self, a: Option<i64>) -> (Vec<Option<Option<i64>>>, BTreeSet<String>) {
        let mut rejected = BTreeSet::new();
        let bad = a.is_none() && self.decoded();
        if bad {
            rejected.insert("in".to_string());
        }
        let mut ports = vec![(!bad).then_some(a)];
        for (number, step) in self.steps.iter().enumerate() {
            let input = ports[step.input].flatten();
            let pass = |keep: bool| input.filter(|_| keep).map(Some);
            match step.kind {
                Kind::Every(n) => ports.push(pass(input.is_some_and(|a| a % n == 0))),
                Kind::Divide(n) => {
                    if input == Some(n) {
                        rejected.insert(format!("s{number}"));
                    }
                    ports.push(pass(input.is_some_and(|a| a != n && 100 / (a - n) != 0)));
                }
                Kind::Add(n) => ports.push(input.map(|a| Some(a + n))),
                Kind::Split(n) => {
                    let low = input.is_some_and(|a| a < n);
                    let odd = input.is_some_and(|a| a % 2 != 0);
                    ports.push(pass(low));
                    ports.push(pass(!low && odd));
                    ports.push(pass(!low && !odd));
                }
            }
        }
        (ports, rejected)
    }
}

/// What a sink holds: topic and partition → lane → rows in order.
type Held = BTreeMap<(usize, u32), BTreeMap<u32, Vec<(u64, Option<i64>)>>>;

fn expected(case: &Case) -> (Held, BTreeSet<(u32, u64, String)>) {
    let mut held = Held::new();
    let mut dead = BTreeSet::new();
    for (lane, rows) in case.rows.iter().enumerate() {
        for (offset, a) in rows.iter().enumerate() {
            let (ports, rejected) = case.model(*a);
            let lane = lane as u32;
            dead.extend(rejected.into_iter().map(|node| (lane, offset as u64, node)));
            for (sink, (inputs, keyed)) in case.sinks.iter().enumerate() {
                for value in inputs.iter().filter_map(|port| ports[*port]) {
                    let key = value.filter(|_| *keyed).map(|a| a.to_string());
                    let partition = key.map_or(lane % SINK_PARTITIONS, |key| {
                        model::hash::partition_for_key(key.as_bytes(), SINK_PARTITIONS)
                    });
                    let lanes = held.entry((sink, partition)).or_default();
                    lanes.entry(lane).or_default().push((offset as u64, value));
                }
            }
        }
    }
    (held, dead)
}

/// Lane, offset and `a` of a value; a row that is no JSON says lane and offset only.
fn read(value: &str) -> (u32, u64, Option<i64>) {
    let json: serde_json::Value = serde_json::from_str(value.trim_end_matches('!')).unwrap();
    let id = json["id"].as_u64().unwrap();
    ((id / 1000) as u32, id % 1000, json["a"].as_i64())
}

fn found(case: &Case, world: &World) -> (Held, BTreeSet<(u32, u64, String)>) {
    let mut held = Held::new();
    for sink in 0..case.sinks.len() {
        for partition in 0..SINK_PARTITIONS {
            for value in world.values(&format!("t{sink}"), partition) {
                let (lane, offset, a) = read(&value);
                let lanes = held.entry((sink, partition)).or_default();
                lanes.entry(lane).or_default().push((offset, a));
            }
        }
    }
    let mut dead = BTreeSet::new();
    for partition in 0..2 {
        let rows = world.log.rows(world.partition("bad", partition));
        let (nodes, offsets) = (rows.header("rustmq.node"), rows.header("rustmq.offset"));
        for i in 0..rows.len() {
            let offset = text(Some(offsets.value(i))).parse().unwrap();
            let node = text(Some(nodes.value(i)));
            assert!(
                dead.insert((partition, offset, node)),
                "a dead letter came twice"
            );
        }
    }
    (held, dead)
}

fn values(case: &Case, lane: usize, range: std::ops::Range<usize>) -> Vec<String> {
    let rows = &case.rows[lane];
    let range = range.start.min(rows.len())..range.end.min(rows.len());
    let one = |offset: usize| {
        let id = lane * 1000 + offset;
        match rows[offset] {
            Some(a) => format!(r#"{{"id":{id},"a":{a}}}"#),
            None => format!(r#"{{"id":{id}}}!"#),
        }
    };
    range.map(one).collect()
}

async fn run(case: &Case) -> World {
    let world = World::new();
    let yaml = case.yaml();
    for (phase, range) in [0..case.restart, case.restart..usize::MAX]
        .into_iter()
        .enumerate()
    {
        let runtime = world.runtime();
        world
            .apply(&runtime, &yaml, &[])
            .await
            .unwrap_or_else(|d| panic!("{d:#?}\n{yaml}"));
        let fates = case
            .fates
            .iter()
            .map(|ok| if *ok { Fate::Late } else { Fate::Refused });
        world.log.fates(fates);
        for lane in 0..case.rows.len() {
            let values = values(case, lane, range.clone());
            for part in values.chunks(5) {
                let part: Vec<&str> = part.iter().map(String::as_str).collect();
                world.produce("src", lane as u32, &part);
            }
        }
        if phase == 0 {
            // Somewhere in between, wherever that is.
            tokio::task::yield_now().await;
        } else {
            until(&runtime, done).await;
        }
        runtime.shutdown().await;
        world.log.forget_fates();
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn sinks_hold_what_the_model_says(case in case()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let world = runtime.block_on(run(&case));
        let (held, dead) = found(&case, &world);
        let (expected_held, expected_dead) = expected(&case);
        prop_assert_eq!(dead, expected_dead, "{}", case.yaml());
        prop_assert_eq!(held, expected_held, "{}", case.yaml());
    }
}
