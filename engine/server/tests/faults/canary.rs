//! A canary through the command line: started beside what runs, shown, promoted, stopped; what a
//! restart leaves of it.

use serde_json::Value;

use crate::guests;
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
