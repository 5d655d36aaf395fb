//! State that a new version takes over while the server is killed: each record is counted once, whatever
//! part of the change was on the disk.

use serde_json::Value;

use crate::Chance;
use crate::state::{CONFIG, KEEPS, by_key, ends};
use crate::support::{World, wait};

/// The same module with another schema, which takes over the older one.
pub const MIGRATES: &[u8] =
    include_bytes!("../../../../tests/guests/conformance/released/0.1.4-stateful.wasm");

const ROUNDS: u64 = 4;
/// So many keys that a migration takes a while.
const KEYS: u64 = 4_000;

/// Each round has a pipeline of its own over the same records.
fn pipeline(world: &World, round: u64, module: &str) -> String {
    let text = format!(
        "apiVersion: rustmq/v1alpha1
kind: Pipeline
metadata: {{ name: p{round} }}
topics:
  in: {{ partitions: 2, value: json }}
  out{round}: {{ partitions: 2, value: raw }}
modules:
  m: {{ source: ./{module} }}
policy:
  batch: {{ rows: 100, wait: 0ms }}
  on-error: {{ then: stop }}
nodes:
  src: {{ kind: source, topic: in, start: earliest }}
  count: {{ kind: wasm, module: m, inputs: [src] }}
  sink: {{ kind: sink, inputs: [count], topic: out{round} }}
"
    );
    world.write("p.yaml", text)
}

fn produce(world: &World, keys: impl Iterator<Item = u64>) {
    let lines: String = keys
        .map(|key| format!("{{\"k\":\"key {key}\"}}\n"))
        .collect();
    let produced = world.run_with_input(&["produce", "in", "--key", "k"], lines.as_bytes());
    produced.ok();
}

fn counted(world: &World, topic: &str) {
    let all = ends(world, "in");
    wait::until(&format!("{all} records counted in {topic}"), || {
        (ends(world, topic) >= all).then_some(())
    });
}

/// The schemas that the lanes have in the log.
fn schemas(world: &World, pipeline: &str) -> Vec<u64> {
    let json = world
        .run(&["pipeline", "describe", pipeline, "--json"])
        .ok()
        .out;
    let described: Value = serde_json::from_str(&json).expect("JSON was asked for");
    let lanes = described["status"]["lanes"]
        .as_array()
        .into_iter()
        .flatten();
    lanes
        .filter_map(|lane| lane["kept"]["count"]["schema"].as_u64())
        .collect()
}

#[test]
fn counts_are_exact_where_a_migration_is_killed() {
    let (mut chance, _) = Chance::seeded();
    let world = World::new();
    world.write("node.toml", CONFIG);
    world.write("old.wasm", KEEPS);
    world.write("new.wasm", MIGRATES);
    let mut server = world.serve_with(&["--config", "node.toml"]);
    let mut old = pipeline(&world, 1, "old.wasm");
    world.run(&["pipeline", "apply", &old]).ok();
    produce(&world, 0..KEYS);
    for round in 1..=ROUNDS {
        let (name, topic) = (format!("p{round}"), format!("out{round}"));
        if round > 1 {
            old = pipeline(&world, round, "old.wasm");
            world.run(&["pipeline", "apply", &old]).ok();
        }
        counted(&world, &topic);
        assert_eq!(schemas(&world, &name), [1, 1]);
        let new = pipeline(&world, round, "new.wasm");
        let planned = world.run(&["pipeline", "plan", &new]).ok().out;
        assert!(planned.contains("migrate"), "{planned}");
        // some are on their way when it begins, and some come later, or never
        let some = chance.between(0, 300);
        produce(&world, (0..some).map(|_| chance.between(0, KEYS)));
        let apply = world.command(&["pipeline", "apply", &new]).spawn();
        let mut apply = apply.expect("the binary is there");
        if chance.between(0, 1) == 0 {
            apply.wait().expect("it ends");
        }
        let some = chance.between(0, 100);
        produce(&world, (0..some).map(|_| chance.between(0, 6)));
        server.kill();
        apply.wait().expect("it ends");
        server = world.serve_with(&["--config", "node.toml"]);
        world.run(&["pipeline", "apply", &new]).ok();
        produce(&world, (0..50).map(|_| chance.between(0, 6)));
        counted(&world, &topic);
        wait::until("both lanes to be migrated", || {
            (schemas(&world, &name) == [2, 2]).then_some(())
        });
        let (given, counted) = (by_key(&world, "in"), by_key(&world, &topic));
        for (key, records) in given {
            let expected: Vec<String> = (1..=records.len()).map(|n| n.to_string()).collect();
            assert_eq!(counted[&key], expected, "key {key}, round {round}");
        }
        world.run(&["pipeline", "delete", &name]).ok();
    }
    server.stop();
}
