//! A canary through the command line: started beside what runs, shown, promoted, stopped; what a
//! restart leaves of it.

use serde_json::Value;

use crate::guests;
use crate::migration::MIGRATES;
use crate::state::KEEPS;
use crate::support::{World, wait};

const PIPELINE: &str = "\
apiVersion: rustmq/v1alpha1
kind: Pipeline
metadata: { name: p }
topics:
  in: { partitions: 1, value: raw }
  out: { partitions: 1, value: raw }
  bad: { partitions: 1, value: raw }
modules:
  m: { source: ./old.wasm, limits: { memory: 2MiB, deadline: 30ms } }
policy:
  on-error: { then: { dead-letter: bad } }
nodes:
  src: { kind: source, topic: in, start: earliest }
  work: { kind: wasm, module: m, inputs: [src] }
  out: { kind: sink, inputs: [work], topic: out }
";

fn produce(world: &World, lines: &str) {
    world
        .run_with_input(&["produce", "in"], lines.as_bytes())
        .ok();
}

fn report(world: &World) -> Value {
    let shown = world.run(&["pipeline", "canary", "show", "p", "--json"]);
    serde_json::from_str(&shown.ok().out).expect("JSON was asked for")
}

/// The report once so many records were compared.
fn compared(world: &World, records: u64) -> Value {
    wait::until(&format!("{records} records compared"), || {
        Some(report(world)).filter(|report| report["records"].as_u64() >= Some(records))
    })
}

fn values(world: &World, records: usize) -> Vec<String> {
    wait::until(&format!("{records} records written"), || {
        let out = world.run(&["consume", "out", "--format", "raw"]).ok().out;
        let lines: Vec<String> = out.lines().map(str::to_owned).collect();
        Some(lines).filter(|lines| lines.len() >= records)
    })
}

#[test]
fn a_canary_is_shown_promoted_and_forgotten() {
    let world = World::new();
    let server = world.serve();
    world.write("old.wasm", guests::evil(guests::TRAP));
    let new = world.write("new.wasm", guests::evil(guests::LOOP));
    let file = world.write("p.yaml", PIPELINE);
    let canary = |args: &[&str]| {
        let words: Vec<&str> = ["pipeline", "canary"].iter().chain(args).copied().collect();
        world.run(&words)
    };
    canary(&["start", "p", "work", &new]).fails(1, "pipeline p does not exist");
    world.run(&["pipeline", "apply", &file]).ok();
    canary(&["show", "p"]).fails(1, "has no canary");
    canary(&["start", "p", "out", &new]).fails(1, "it has: work");
    canary(&["start", "p", "work", "none.wasm"]).fails(1, "none.wasm");
    let started = canary(&["start", "p", "work", &new, "--for", "1h"]).ok();
    assert!(
        started.err.contains("node work, running"),
        "{}",
        started.err
    );
    canary(&["promote", "p"]).fails(1, "compared nothing yet; --force");
    canary(&["start", "p", "work", &new]).fails(1, "stop it first");

    produce(&world, "a\nb!\nc\n");
    let report = compared(&world, 3);
    assert_eq!(
        (&report["same"], &report["state"]["is"]),
        (&2.into(), &"running".into())
    );
    assert_eq!(report["differences"], serde_json::json!({ "code": 1 }));
    assert_eq!(report["examples"][0]["offset"], 1);
    let text = canary(&["show", "p"]).ok().out;
    assert!(
        text.contains("rejected with another code") && text.contains("partition 0, offset 1"),
        "{text}"
    );
    let described = world.run(&["pipeline", "describe", "p"]).ok().out;
    assert!(
        described.contains("canary: node work, running: 3 records"),
        "{described}"
    );
    assert_eq!(values(&world, 2), ["a", "c"]);

    let promoted = canary(&["promote", "p"]).ok();
    assert!(promoted.err.contains("generation 2"), "{}", promoted.err);
    assert!(
        promoted.out.contains("generation 2 was applied"),
        "{}",
        promoted.out
    );
    canary(&["show", "p"]).fails(1, "has no canary");
    // what the new version does with its first batch decides whether it stays
    produce(&world, "d\n");
    values(&world, 3);
    let started = canary(&["start", "p", "work", "old.wasm", "--records", "2"]).ok();
    assert!(started.err.contains("started"), "{}", started.err);
    produce(&world, "e!\nf\n");
    compared(&world, 2);
    assert_eq!(letters(&world), ["trap", "deadline"]);
    server.kill();

    let server = world.serve();
    canary(&["stop", "p"]).fails(1, "a restart of the server ends it");
    produce(&world, "g!\nh\n");
    assert_eq!(values(&world, 5), ["a", "c", "d", "f", "h"]);
    assert_eq!(letters(&world), ["trap", "deadline", "deadline"]);
    server.stop();
}

/// Of a module that keeps state, on a copy that the candidate takes over.
#[test]
fn a_canary_of_what_keeps_state_is_promoted_with_it() {
    let world = World::new();
    let server = world.serve();
    world.write("old.wasm", KEEPS);
    let new = world.write("new.wasm", MIGRATES);
    let text = PIPELINE.replace(", limits: { memory: 2MiB, deadline: 30ms }", "");
    let text = text.replace(
        "in: { partitions: 1, value: raw }",
        "in: { partitions: 1, value: json }",
    );
    let file = world.write("p.yaml", text);
    world.run(&["pipeline", "apply", &file]).ok();
    let send = |keys: &str| {
        let lines: String = keys
            .chars()
            .map(|key| format!("{{\"k\":\"{key}\"}}\n"))
            .collect();
        let produced = world.run_with_input(&["produce", "in", "--key", "k"], lines.as_bytes());
        produced.ok();
    };
    send("aab");
    assert_eq!(values(&world, 3), ["1", "2", "1"]);
    let canary = |args: &[&str]| {
        let words: Vec<&str> = ["pipeline", "canary"].iter().chain(args).copied().collect();
        world.run(&words)
    };
    canary(&["start", "p", "work", &new]).ok();
    send("ab");
    let report = compared(&world, 2);
    let kept = serde_json::json!({
        "copies": 1, "migrated": 1, "running": 2, "candidate": 2, "batches_differ": 0
    });
    assert_eq!((&report["same"], &report["kept"]), (&2.into(), &kept));
    let text = canary(&["show", "p"]).ok().out;
    assert!(
        text.contains("state changes") && text.contains("1 migrated"),
        "{text}"
    );
    canary(&["promote", "p"]).ok();
    send("ab");
    assert_eq!(values(&world, 7), ["1", "2", "1", "3", "2", "4", "3"]);
    let back = world.run(&["pipeline", "apply", &file]);
    back.fails(1, "state schema 2 -> 1");
    server.stop();
}

/// Codes of the dead letters.
fn letters(world: &World) -> Vec<String> {
    let bad = world.run(&["consume", "bad"]).ok().out;
    let code = |line: &str| -> Value { serde_json::from_str(line).expect("a letter is JSON") };
    let codes = bad.lines().map(code);
    let codes = codes.map(|letter| letter["headers"]["rustmq.code"].clone());
    codes
        .map(|code| code.as_str().unwrap_or("-").to_owned())
        .collect()
}
