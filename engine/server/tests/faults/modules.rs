//! Modules that trap, spin, eat memory, lie, or ask for what they do not get.
//!
//! What: on a server where another pipeline runs all the while, each evil costs exactly the row
//! that set it off: it ends as a dead letter that says where it came from, the rest goes on in
//! order. What is not granted is refused before anything happens.

use crate::guests;
use crate::support::{World, wait};

const OTHER: &str = "\
apiVersion: rustmq/v1alpha1
kind: Pipeline
metadata: { name: other }
topics:
  calm: { partitions: 1, value: raw }
  still: { partitions: 1, value: raw }
nodes:
  in: { kind: source, topic: calm, start: earliest }
  out: { kind: sink, inputs: [in], topic: still }
";

fn evil(name: &str) -> String {
    format!(
        "\
apiVersion: rustmq/v1alpha1
kind: Pipeline
metadata: {{ name: {name} }}
topics:
  {name}-in: {{ partitions: 1, value: raw }}
  {name}-out: {{ partitions: 1, value: raw }}
  {name}-bad: {{ partitions: 1, value: raw }}
modules:
  m: {{ source: ./{name}.wasm, limits: {{ memory: 2MiB, deadline: 30ms }} }}
policy:
  on-error: {{ retry: {{ max: 0 }}, then: {{ dead-letter: {name}-bad }} }}
nodes:
  in: {{ kind: source, topic: {name}-in, start: earliest }}
  work: {{ kind: wasm, module: m, inputs: [in] }}
  out: {{ kind: sink, inputs: [work], topic: {name}-out }}
"
    )
}

fn values(world: &World, topic: &str) -> Vec<String> {
    let out = world.run(&["consume", topic, "--format", "raw"]).ok().out;
    out.lines().map(str::to_owned).collect()
}

fn wait_for(world: &World, topic: &str, records: usize) -> Vec<String> {
    let what = format!("{records} records on {topic}");
    wait::until(&what, || {
        Some(values(world, topic)).filter(|found| found.len() >= records)
    })
}

/// The other pipeline carries one more record.
fn other_runs(world: &World, sent: &mut usize) {
    world
        .run_with_input(&["produce", "calm"], format!("calm {sent}\n").as_bytes())
        .ok();
    *sent += 1;
    assert_eq!(wait_for(world, "still", *sent).len(), *sent);
}

/// The one dead letter there is.
fn letter(world: &World, name: &str) -> serde_json::Value {
    let bad = world.run(&["consume", &format!("{name}-bad")]).ok().out;
    assert_eq!(bad.lines().count(), 1, "{name}: {bad}");
    serde_json::from_str(&bad).unwrap()
}

#[test]
fn evil_rows_become_dead_letters_and_the_rest_goes_on() {
    let world = World::new();
    let server = world.serve();
    let other = world.write("other.yaml", OTHER);
    world.run(&["pipeline", "apply", &other]).ok();
    let mut sent = 0;
    let mut check = |name: &str, deed: &str, code: &str, message: &str| {
        world.write(&format!("{name}.wasm"), guests::evil(deed));
        let file = world.write(&format!("{name}.yaml"), evil(name));
        world.run(&["pipeline", "apply", &file]).ok();
        let (topic, out) = (format!("{name}-in"), format!("{name}-out"));
        let lines: Vec<String> = (0..40)
            .map(|i| format!("row {i}{}", if i == 17 { "!" } else { "" }))
            .collect();
        world
            .run_with_input(&["produce", &topic], lines.join("\n").as_bytes())
            .ok();
        let good: Vec<String> = lines
            .iter()
            .filter(|line| !line.contains('!'))
            .cloned()
            .collect();
        assert_eq!(wait_for(&world, &out, good.len()), good, "{name}");
        let letter = letter(&world, name);
        let header = |key: &str| {
            letter["headers"][format!("rustmq.{key}")]
                .as_str()
                .unwrap_or("-")
                .to_owned()
        };
        assert_eq!(letter["value"], "row 17!", "{name}");
        assert_eq!(
            (header("pipeline"), header("node")),
            (name.to_owned(), "work".to_owned())
        );
        assert_eq!(
            (header("topic"), header("partition")),
            (topic, "0".to_owned())
        );
        assert_eq!(
            (header("offset"), header("code")),
            ("17".to_owned(), code.to_owned())
        );
        assert!(
            header("message").contains(message),
            "{name}: {}",
            header("message")
        );
        assert!(header("module").starts_with("sha256:"), "{name}: {letter}");
        assert!(
            header("attempt") != "-" && header("port") != "-",
            "{name}: {letter}"
        );
        other_runs(&world, &mut sent);
        let again = world.run_with_input(&["produce", &format!("{name}-in")], b"after\n");
        again.ok();
        assert_eq!(
            wait_for(&world, &out, good.len() + 1).last().unwrap(),
            "after"
        );
    };
    check("trap", guests::TRAP, "trap", "unreachable");
    check(
        "deep",
        guests::DEEP,
        "trap",
        "in innermost\n  in middle\n  in process",
    );
    check("spin", guests::LOOP, "deadline", "30 ms");
    check("eat", guests::EAT, "limit", "2097152 memory bytes");
    check("lie", guests::LIE, "trap", "row 99");
    let list = world.run(&["pipeline", "list", "--json"]).ok().out;
    assert_eq!(list.matches("\"running\"").count(), 6, "{list}");
    server.stop();
}

#[test]
fn what_is_not_granted_is_refused_before_anything_happens() {
    let world = World::new();
    let mut server = world.serve();
    let other = world.write("other.yaml", OTHER);
    world.run(&["pipeline", "apply", &other]).ok();
    let mut sent = 0;
    let mut check = |name: &str, bytes: &[u8], yaml: String, parts: &[&str]| {
        world.write(&format!("{name}.wasm"), bytes);
        let file = world.write(&format!("{name}.yaml"), yaml);
        let mut said = world.run(&["pipeline", "apply", &file]);
        for part in parts {
            said = said.fails(1, part);
        }
        let topic = format!("{name}-in");
        world
            .run(&["topic", "describe", &topic])
            .fails(1, "does not exist");
        world
            .run(&["pipeline", "describe", name])
            .fails(1, "does not exist");
        other_runs(&world, &mut sent);
        assert!(server.is_running());
    };
    let place = |name: &str| format!("{name}.yaml:9:16: error: ");
    let plain = |name: &str| evil(name);
    check(
        "nosy",
        &guests::nosy(),
        plain("nosy"),
        &[
            &place("nosy"),
            "wasi:http/outgoing-handler@0.2.0",
            "no network",
        ],
    );
    check(
        "foreign",
        &guests::foreign(),
        plain("foreign"),
        &[
            &place("foreign"),
            "imports env, which is not granted",
            "another host",
        ],
    );
    check(
        "text",
        b"#!/bin/sh\n",
        plain("text"),
        &[&place("text"), "text.wasm", "not a WebAssembly file"],
    );
    let torn = guests::evil(guests::TRAP);
    check(
        "torn",
        &torn[..torn.len() / 2],
        plain("torn"),
        &[&place("torn")],
    );
    let moon = plain("moon").replace("limits:", "grants: { moon: {} }, limits:");
    check(
        "moon",
        &guests::evil(guests::TRAP),
        moon,
        &["moon.yaml:9:", "moon"],
    );
    // `inspect` says the same without a server
    let inspect = world.run(&["module", "inspect", "nosy.wasm"]);
    assert!((inspect.out + &inspect.err).contains("wasi:http/outgoing-handler@0.2.0"));
    server.stop();
}

#[test]
fn modules_are_compiled_in_a_process_of_their_own() {
    let world = World::new();
    let compile = |bytes: &[u8]| world.run_with_input(&["__compile-module"], bytes);
    let module = wat::parse_str("(component)").unwrap();
    assert!(!compile(&module).ok().out.is_empty());
    let torn = compile(&module[..4]);
    torn.fails(1, "unexpected end");
}

#[test]
fn what_a_module_says_of_itself_is_shown_and_held_to() {
    let world = World::new();
    world.write("tame.wasm", guests::described());
    let shown = world.run(&["module", "inspect", "tame.wasm"]).ok().out;
    for part in [
        "tame 1.2.3",
        "\"limit\":{\"type\":\"integer\"}",
        "rustmq:etl 0.1.5",
        "sha256:",
    ] {
        assert!(shown.contains(part), "no {part} in {shown}");
    }
    let json = world
        .run(&["module", "inspect", "tame.wasm", "--json"])
        .ok();
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["describe"]["ports"], serde_json::json!(["out"]));
    assert_eq!(json["grants_needed"], serde_json::json!([]));
    let server = world.serve();
    let node = "module: m, inputs: [in]";
    let refused = |more: &str, port: &str, part: &str| {
        let yaml = evil("tame")
            .replace(node, &format!("{node}, {more}"))
            .replace("[work]", &format!("[work.{port}]"));
        let file = world.write("tame.yaml", yaml);
        let said = world.run(&["pipeline", "apply", &file]);
        said.fails(1, "tame.yaml:14:3: error: ").fails(1, part);
    };
    let many = "params.limit: \"many\" is not of type \"integer\"";
    refused("params: { limit: many }", "out", many);
    let unknown = "params.limt: not known; known are limit";
    refused("params: { limt: 1 }", "out", unknown);
    let other = "sends rows to the output `out`, which the node does not declare";
    refused("outputs: [other]", "other", other);
    server.stop();
}
