//! A module that looks into a table over `kill -9`: after each restart it sees all that was produced
//! before, from its first record on.
//!
//! What: a compacted topic of users, each changed in every round; small segments, so that it is
//! compacted while it is read. The server is killed right behind the last acknowledgement, and
//! starts with records that wait to be joined.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::guests::looks_up;
use crate::support::{World, wait};

const CONFIG: &str = "\
[storage]
segment_bytes = \"256KiB\"
tail_bytes_max = \"128KiB\"
";

const PIPELINE: &str = "\
apiVersion: rustmq/v1alpha1
kind: Pipeline
metadata: { name: p }
topics:
  people: { partitions: 3, value: json, compact: true, min-compaction-lag: 0ms }
  in: { partitions: 2, value: raw }
  out: { partitions: 2, value: raw }
modules:
  m: { source: ./joins.wasm }
policy:
  batch: { rows: 50, wait: 0ms }
nodes:
  src: { kind: source, topic: in, start: earliest }
  join: { kind: wasm, module: m, inputs: [src], lookups: { users: people } }
  sink: { kind: sink, inputs: [join], topic: out }
";

const ROUNDS: usize = 4;
const USERS: usize = 2_000;

fn described(world: &World) -> Value {
    let json = world.run(&["pipeline", "describe", "p", "--json"]).ok().out;
    serde_json::from_str(&json).expect("JSON was asked for")
}

/// What each user came to, so often as it was joined.
fn joined(world: &World) -> BTreeMap<String, Vec<String>> {
    let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in world.run(&["consume", "out"]).ok().out.lines() {
        let record: Value = serde_json::from_str(line).expect("a record is JSON");
        let text = |name: &str| record[name].as_str().unwrap_or("-").to_owned();
        users.entry(text("key")).or_default().push(text("value"));
    }
    users
}

#[test]
fn tables_are_whole_after_kills() {
    let world = World::new();
    world.write("node.toml", CONFIG);
    world.write("joins.wasm", looks_up());
    let file = world.write("p.yaml", PIPELINE);
    let mut server = world.serve_with(&["--config", "node.toml"]);
    world.run(&["pipeline", "apply", &file]).ok();
    let line = |user: usize, round: usize| format!("{{\"k\":\"user {user}\",\"round\":{round}}}");
    let orders: String = (0..USERS).map(|user| format!("user {user}\n")).collect();
    for round in 1..=ROUNDS {
        let users: String = (0..USERS).map(|user| line(user, round) + "\n").collect();
        let produced = world.run_with_input(&["produce", "people", "--key", "k"], users.as_bytes());
        produced.ok();
        server.kill();
        server = world.serve_with(&["--config", "node.toml"]);
        let order = ["produce", "in", "--format", "raw"];
        world.run_with_input(&order, orders.as_bytes()).ok();
        let all = round * USERS;
        let found = wait::until(&format!("{all} orders joined"), || {
            let found = joined(&world);
            (found.values().map(Vec::len).sum::<usize>() >= all).then_some(found)
        });
        for user in 0..USERS {
            let rounds = &found[&format!("user {user}")];
            let expected: Vec<String> = (1..=round).map(|round| line(user, round)).collect();
            assert_eq!(rounds, &expected, "user {user}");
        }
    }
    let text = world.run(&["pipeline", "describe", "p"]).ok().out;
    assert!(text.contains("TABLE") && text.contains("people"), "{text}");
    let status = &described(&world)["status"]["lookups"][0];
    assert_eq!(status["entries"], USERS, "{status}");
    assert_eq!(status["fault"], Value::Null, "{status}");
    server.stop();
}
