//! A module that keeps state over `kill -9`: each record is counted once, and what is kept goes with
//! its pipeline.
//!
//! What: records of a few keys, a module that counts by key and emits each count, batches of five
//! rows, small segments so that the state's changelog is compacted, kills while the pipeline is
//! somewhere on its way. The counts of a key that came out must be 1 to the number of its
//! records, which is counted from the input topic.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::Chance;
use crate::support::{World, wait};

/// `tests/guests/keeps`.
pub const KEEPS: &[u8] =
    include_bytes!("../../../../tests/guests/conformance/released/0.1.2-stateful.wasm");

pub const CONFIG: &str = "\
[storage]
segment_bytes = \"256KiB\"
tail_bytes_max = \"128KiB\"
";

const PIPELINE: &str = "\
apiVersion: rustmq/v1alpha1
kind: Pipeline
metadata: { name: p }
topics:
  in: { partitions: 2, value: json }
  out: { partitions: 2, value: raw }
modules:
  m: { source: ./keeps.wasm }
policy:
  batch: { rows: 5, wait: 0ms }
  on-error: { then: stop }
nodes:
  src: { kind: source, topic: in, start: earliest }
  count: { kind: wasm, module: m, inputs: [src] }
  sink: { kind: sink, inputs: [count], topic: out }
";

const ROUNDS: u64 = 5;
const RECORDS: u64 = 1_000;

pub fn ends(world: &World, topic: &str) -> u64 {
    let json = world.run(&["topic", "describe", topic, "--json"]).ok().out;
    let found: Value = serde_json::from_str(&json).expect("JSON was asked for");
    let partitions = found["partitions"].as_array().into_iter().flatten();
    partitions.filter_map(|p| p["end"].as_u64()).sum()
}

/// The values of each key, in order.
pub fn by_key(world: &World, topic: &str) -> BTreeMap<String, Vec<String>> {
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in world.run(&["consume", topic]).ok().out.lines() {
        let record: Value = serde_json::from_str(line).expect("a record is JSON");
        let text = |name: &str| record[name].as_str().unwrap_or("-").to_owned();
        keys.entry(text("key")).or_default().push(text("value"));
    }
    keys
}

/// Each key's counts, so often over.
fn check(world: &World, times: usize) {
    let (given, counted) = (by_key(world, "in"), by_key(world, "out"));
    assert_eq!(given.len(), counted.len());
    for (key, records) in given {
        let once = 1..=records.len();
        let expected = (0..times).flat_map(|_| once.clone().map(|n| n.to_string()));
        assert_eq!(counted[&key], expected.collect::<Vec<_>>(), "key {key}");
    }
}

#[test]
fn counts_are_exact_over_kills_and_go_with_the_pipeline() {
    let (mut chance, _) = Chance::seeded();
    let world = World::new();
    world.write("node.toml", CONFIG);
    world.write("keeps.wasm", KEEPS);
    let file = world.write("p.yaml", PIPELINE);
    let mut server = world.serve_with(&["--config", "node.toml"]);
    world.run(&["pipeline", "apply", &file]).ok();
    for round in 1..=ROUNDS {
        let line = |_| format!("{{\"k\":\"key {}\"}}\n", chance.between(0, 6));
        let lines: String = (0..RECORDS).map(line).collect();
        let produced = world.run_with_input(&["produce", "in", "--key", "k"], lines.as_bytes());
        produced.ok();
        let some = (round - 1) * RECORDS + chance.between(0, RECORDS);
        wait::until(&format!("{some} records counted"), || {
            (ends(&world, "out") >= some).then_some(())
        });
        server.kill();
        server = world.serve_with(&["--config", "node.toml"]);
    }
    let all = ROUNDS * RECORDS;
    wait::until("all records counted", || {
        (ends(&world, "out") >= all).then_some(())
    });
    check(&world, 1);
    let described = world.run(&["pipeline", "describe", "p"]).ok().out;
    assert!(described.contains("ENTRIES"), "{described}");
    world
        .run(&["topic", "delete", "_state.p.count"])
        .fails(1, "is internal");

    world.run(&["pipeline", "delete", "p"]).ok();
    world.run(&["pipeline", "apply", &file]).ok();
    let twice = 2 * all;
    wait::until("all records counted again", || {
        (ends(&world, "out") >= twice).then_some(())
    });
    check(&world, 2);
    server.stop();
}
