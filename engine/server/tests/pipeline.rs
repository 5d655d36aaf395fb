//! Pipelines through the command line on a whole server: apply, change, crash, delete, and what is
//! refused without any effect. Modules are built in the tour and in the sandbox's own tests.

mod support;

use support::asked::Asked;
use support::{World, wait};

const SPLIT: &str = "\
apiVersion: rustmq/v1alpha1
kind: Pipeline
metadata: { name: split }
topics:
  orders: { partitions: 2, value: { codec: json, schema: { id: int64, euros: float64 } } }
  large: { partitions: 2, value: { codec: json, schema: { id: int64, cents: float64 } } }
  small: { partitions: 1, value: json }
  bad: { partitions: 1, value: raw }
policy:
  on-error: { then: { dead-letter: bad } }
nodes:
  in: { kind: source, topic: orders, start: earliest }
  known: { kind: filter, inputs: [in], where: \"id is not null\" }
  split: { kind: route, inputs: [known], cases: { large: \"euros >= 10\" }, else: rest }
  cents: { kind: map, inputs: [split.large], select: { id: id, cents: \"euros * 100\" } }
  large: { kind: sink, inputs: [cents], topic: large }
  small: { kind: sink, inputs: [split.rest], topic: small }
";

fn count(world: &World, topic: &str) -> u64 {
    let json = world.run(&["topic", "describe", topic, "--json"]).ok().out;
    let found: serde_json::Value = serde_json::from_str(&json).expect("JSON was asked for");
    let partitions = found["partitions"].as_array().into_iter().flatten();
    partitions.filter_map(|p| p["end"].as_u64()).sum()
}

fn wait_for(world: &World, topic: &str, records: u64) {
    wait::until(&format!("{records} records on {topic}"), || {
        (count(world, topic) >= records).then_some(())
    });
}

/// The same rows from a topic with dead letters and from one with nulls.
const MISFITS: &str = "\
apiVersion: rustmq/v1alpha1
kind: Pipeline
metadata: { name: both }
topics:
  strict: { value: { codec: json, schema: { id: int64 } } }
  one: { value: json }
  two: { value: json }
  bad: {}
policy:
  on-error: { then: { dead-letter: bad } }
nodes:
  strict: { kind: source, topic: strict, start: earliest }
  lenient: { kind: source, topic: lenient, start: earliest }
  f: { kind: filter, inputs: [strict], where: \"id is null or id > 0\" }
  g: { kind: filter, inputs: [lenient], where: \"id is null or id > 0\" }
  one: { kind: sink, inputs: [f], topic: one }
  two: { kind: sink, inputs: [g], topic: two }
";

#[test]
fn misfits_are_what_their_topic_says_and_sql_agrees() {
    let world = World::new();
    let server = world.serve();
    let schema = world.write("schema.json", "{\"id\": \"int64\"}");
    let nulls = ["--schema", &schema, "--misfits", "nulls"];
    let create = [&["topic", "create", "lenient"], &nulls[..]].concat();
    world.run(&create).ok();
    let file = world.write("both.yaml", MISFITS);
    world.run(&["pipeline", "apply", &file]).ok();
    let described = |topic: &str, misfits: &str| {
        let text = world.run(&["topic", "describe", topic]).ok().out;
        assert!(
            text.lines()
                .any(|line| line.split_whitespace().eq(["misfits:", misfits])),
            "{text}"
        );
        let json = world.run(&["topic", "describe", topic, "--json"]).ok().out;
        let found: serde_json::Value = serde_json::from_str(&json).expect("JSON was asked for");
        assert_eq!(found["misfits"], misfits);
    };
    described("strict", "dead-letter");
    described("lenient", "nulls");
    let other = "lenient: { value: { codec: json, schema: { id: int64 }, misfits: dead-letter } }";
    let other = world.write(
        "other.yaml",
        MISFITS.replace("bad: {}", &format!("bad: {{}}\n  {other}")),
    );
    world.run(&["pipeline", "plan", &other]).fails(
        1,
        "topic `lenient` exists already and differs: misfits is nulls, not dead-letter",
    );
    let rows = world.write("rows.jsonl", "{\"id\":1}\n{\"id\":\"x\"}\n{\"id\":0}\n");
    for topic in ["strict", "lenient"] {
        world.run(&["produce", topic, &rows]).ok();
    }
    wait_for(&world, "two", 2);
    wait_for(&world, "one", 1);
    wait_for(&world, "bad", 1);
    let values = |topic: &str| world.run(&["consume", topic, "--format", "raw"]).ok().out;
    assert_eq!(values("one"), "{\"id\":1}\n");
    assert_eq!(values("two"), "{\"id\":1}\n{\"id\":\"x\"}\n");
    assert_eq!(values("bad"), "{\"id\":\"x\"}\n");
    for topic in ["strict", "lenient"] {
        let query =
            format!("select _offset, id from {topic} where id is null or id > 0 order by 1");
        assert_eq!(
            world.run(&["sql", &query]).ok().out,
            "_offset,id\n0,1\n1,\n"
        );
    }
    let said = "\nlenient: 1 of those read did not fit their schema and went on as nulls";
    let text = wait::until("what became of the misfit", || {
        let text = world.run(&["pipeline", "describe", "both"]).ok().out;
        text.contains(said).then_some(text)
    });
    assert!(!text.contains("\nstrict: "), "{text}");
    server.stop();
}

const SIGNED: &str = "\
apiVersion: rustmq/v1alpha1
kind: Pipeline
metadata: { name: signed }
topics:
  in: { partitions: 1, value: raw }
  out: { partitions: 1, value: raw }
modules:
  vouched: { source: ./module.wasm }
nodes:
  in: { kind: source, topic: in, start: earliest }
  vouched: { kind: wasm, module: vouched, inputs: [in], outputs: { out: {}, rest: {} }, params: { tag: t } }
  out: { kind: sink, inputs: [vouched.out, vouched.rest], topic: out }
";

/// The newest module that is kept.
fn released() -> Vec<u8> {
    let released = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/guests/conformance/released"
    );
    let all = std::fs::read_dir(released).expect("released modules");
    let newest = all.flatten().map(|entry| entry.path()).max();
    std::fs::read(newest.expect("one at least")).expect("it is readable")
}

/// What the only lane works with, once it is that.
fn works_with(world: &World, generation: u64) -> serde_json::Value {
    wait::until(&format!("generation {generation} works"), || {
        let described = world
            .run(&["pipeline", "describe", "signed", "--json"])
            .ok()
            .out;
        let found: serde_json::Value =
            serde_json::from_str(&described).expect("JSON was asked for");
        let lane = found["status"]["lanes"][0].clone();
        (lane["generation"] == generation).then_some(lane)
    })
}

#[test]
fn what_was_rolled_back_does_not_come_with_a_restart() {
    let world = World::new();
    world.write("module.wasm", released());
    let apply = |limits: &str| {
        let source = format!("source: ./module.wasm{limits}");
        let file = world.write(
            "trial.yaml",
            SIGNED.replace("source: ./module.wasm", &source),
        );
        world.run(&["pipeline", "apply", &file]).ok();
    };
    let sent = |rows: usize, out: u64| {
        world
            .run_with_input(&["produce", "in"], "emit\n".repeat(rows).as_bytes())
            .ok();
        wait_for(&world, "out", out);
    };
    let server = world.serve();
    apply("");
    sent(1, 1);
    apply(", limits: { output: 50B }");
    works_with(&world, 2);
    sent(50, 51);
    let lane = works_with(&world, 1);
    assert!(
        lane["fault"].to_string().contains("generation 2 failed"),
        "{lane}"
    );
    server.kill();

    let server = world.serve();
    sent(50, 101);
    works_with(&world, 1);
    let list = world.run(&["pipeline", "list"]).ok().out;
    assert!(list.contains("rolled back"), "{list}");
    apply(", limits: { output: 50KiB }");
    sent(50, 151);
    works_with(&world, 3);
    wait::until("it is known to work", || {
        sent(1, count(&world, "out") + 1);
        let lane = works_with(&world, 3);
        let taken =
            |handover: &serde_json::Value| handover["to"] == 3 && handover["rolled_back"].is_null();
        lane["handovers"]
            .as_array()?
            .iter()
            .any(taken)
            .then_some(())
    });
    server.kill();

    let mut server = world.serve();
    sent(50, count(&world, "out") + 50);
    let lane = works_with(&world, 3);
    assert_eq!(
        lane["handovers"],
        serde_json::json!([]),
        "it is not on trial any more"
    );
    assert_eq!(lane["rejected"], 0);

    // of two that had nothing to commit the second fails: the first goes on, and after a restart as well
    apply(", limits: { output: 60KiB }");
    works_with(&world, 4);
    apply(", limits: { output: 50B }");
    works_with(&world, 5);
    for restarts in [true, false] {
        sent(50, count(&world, "out") + 50);
        works_with(&world, 4);
        if restarts {
            server.kill();
            server = world.serve();
        }
    }
    server.stop();
}

#[test]
fn only_modules_that_a_trusted_key_signed_are_applied() {
    let world = World::new();
    let plain = released();
    world.write("module.wasm", &plain);
    let file = world.write("signed.yaml", SIGNED);
    let key = |name: &str| {
        world
            .run(&["module", "keygen", name])
            .ok()
            .out
            .trim()
            .to_owned()
    };
    let (ours, theirs) = (key("ours.key"), key("theirs.key"));
    assert_ne!(ours, theirs);
    world
        .run(&["module", "keygen", "ours.key"])
        .fails(1, "exists already");

    let config = format!("[modules]\ntrust = [\"{ours}\"]\n");
    let config = world.write("node.toml", config);
    let server = world.serve_with(&["--config", &config]);
    let apply = || world.run(&["pipeline", "apply", &file]);
    apply().fails(1, "is not signed");
    let planned = world.run(&["pipeline", "plan", &file]);
    assert!(planned.err.contains("is not signed"), "{}", planned.err);
    planned.fails(1, "an apply of it is refused");
    let sign = |key: &str| world.run(&["module", "sign", "module.wasm", "--key", key]);
    sign("theirs.key").ok();
    apply().fails(1, &format!("signed by {theirs} only"));
    let once = sign("ours.key").ok().out;
    assert_eq!(
        sign("ours.key").ok().out,
        once,
        "a second time changes nothing"
    );
    let shown = world.run(&["module", "inspect", "module.wasm"]).ok().out;
    assert!(shown.contains(&ours) && shown.contains(&theirs), "{shown}");
    apply().ok();

    let mut changed = std::fs::read(world.path("module.wasm")).expect("it is there");
    changed[plain.len() - 1] ^= 1;
    world.write("module.wasm", changed);
    apply().fails(1, "");
    sign("ours.key").fails(1, "");

    // who trusts somebody else after a restart does not run it either, and says so
    server.kill();
    let others = key("others.key");
    let config = world.write("node.toml", format!("[modules]\ntrust = [\"{others}\"]\n"));
    let server = world.serve_with(&["--config", &config]);
    let told = world.run(&["pipeline", "describe", "signed"]).ok().out;
    let why = [
        "generation 1 did not start with the server: ",
        "signed.yaml:8:22: error: module `vouched`",
        "it does not run",
    ];
    assert!(why.iter().all(|part| told.contains(part)), "{told}");
    world.write("module.wasm", &plain);
    apply().fails(1, "is not signed");
    server.kill();
    let text = "[modules]\ntrust = [\"nobody\"]\nrequire_signed = 1\n";
    let config = world.write("node.toml", text);
    world
        .run(&["serve", "--config", &config, "--data-dir", "other"])
        .fails(1, "node.toml:2:9: error: `nobody` is no public key");
    let config = world.write("node.toml", "[modules]\nrequire_signed = true\n");
    world
        .run(&["serve", "--config", &config, "--data-dir", "other"])
        .fails(1, "modules.trust names no key");
}

const ASKING: &str = "\
apiVersion: rustmq/v1alpha1
kind: Pipeline
metadata: { name: asking }
topics:
  urls: { partitions: 2, value: raw }
  answers: { partitions: 1, value: raw }
  bad: { partitions: 1, value: raw }
modules:
  asks:
    source: ./asks.wasm
    grants:
      http:
        - host: 127.0.0.1
          port: PORT
          scheme: http
          headers: { authorization: { secret: token, prefix: \"Bearer \" } }
    limits: { http-rate: 10000 }
policy:
  batch: { rows: 20 }
  on-error: { then: { dead-letter: bad } }
nodes:
  in: { kind: source, topic: urls, start: earliest }
  asks: { kind: wasm, module: asks, inputs: [in] }
  out: { kind: sink, inputs: [asks], topic: answers }
";

/// Requests are made at least once, what comes of them is committed once; the secret is sent, and nowhere
/// to be read.
#[test]
fn rows_are_enriched_by_requests_once_over_a_crash() {
    let world = World::new();
    let asked = Asked::start();
    let released = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/guests/conformance/released/0.1.3-http.wasm"
    );
    world.write("asks.wasm", std::fs::read(released).expect("it is kept"));
    let file = world.write(
        "asking.yaml",
        ASKING.replace("PORT", &asked.port.to_string()),
    );
    let token = world.write("token", "pssst-7\n");
    let secret = format!("[secrets]\ntoken = {{ file = {token:?}, hosts = [\"127.0.0.1\"] }}\n");
    let apply = || world.run(&["pipeline", "apply", &file]);

    let server = world.serve();
    let place = "asking.yaml:13:11: error: module `asks` cannot be granted this: ";
    apply().fails(
        1,
        &format!("{place}this server lets no grant reach addresses that are not public"),
    );
    server.stop();
    let open = "[modules]\nhttp_networks = [\"127.0.0.0/8\"]\n";
    let config = world.write("node.toml", open);
    let server = world.serve_with(&["--config", &config]);
    apply().fails(
        1,
        &format!("{place}the header `authorization`: the server's configuration has no secret"),
    );
    server.stop();
    world.write("node.toml", format!("{open}{secret}"));
    let server = world.serve_with(&["--config", &config]);
    apply().ok();

    let url = |number: u32| format!("GET http://127.0.0.1:{}/{number}\n", asked.port);
    let lines: String = (0..1000).map(url).collect();
    world
        .run_with_input(&["produce", "urls"], lines.as_bytes())
        .ok();
    wait::until("some requests", || {
        (asked.heads().len() >= 100).then_some(())
    });
    server.kill();
    let server = world.serve_with(&["--config", &config]);
    wait_for(&world, "answers", 1000);
    world
        .run_with_input(&["produce", "urls"], b"GET http://127.0.0.2/\n")
        .ok();
    wait_for(&world, "bad", 1);
    let described = world.run(&["pipeline", "describe", "asking"]).ok().out;
    assert!(described.contains("http.requests"), "{described}");
    let json = world
        .run(&["pipeline", "describe", "asking", "--json"])
        .ok()
        .out;
    let mut answers: Vec<String> = (0..1000).map(|number| format!("200 /{number}")).collect();
    let consumed = world.run(&[
        "consume", "answers", "--from", "earliest", "--max", "1000", "--format", "raw",
    ]);
    let mut got: Vec<String> = consumed.ok().out.lines().map(str::to_owned).collect();
    answers.sort();
    got.sort();
    assert_eq!(got, answers);
    assert_eq!(count(&world, "answers"), 1000);
    let heads = asked.heads();
    assert!(heads.len() >= 1000, "{}", heads.len());
    assert!(
        heads
            .iter()
            .all(|head| head.contains("authorization: Bearer pssst-7")),
        "{:?}",
        heads[0]
    );
    server.stop();
    let log = std::fs::read_to_string(world.path("serve.err")).expect("a log");
    for told in [described, json, log] {
        assert!(!told.contains("pssst"), "{told}");
    }
}

#[test]
fn records_are_split_once_over_a_crash_and_a_change() {
    let world = World::new();
    let server = world.serve();
    let file = world.write("split.yaml", SPLIT);
    assert!(
        world
            .run(&["pipeline", "lint", &file])
            .ok()
            .out
            .contains("ok")
    );
    let plan = world.run(&["pipeline", "plan", &file]).ok().out;
    assert!(plan.contains("orders") && plan.contains("large"), "{plan}");
    world
        .run(&["topic", "describe", "orders"])
        .fails(1, "does not exist");
    let applied = world.run(&["pipeline", "apply", &file, "--json"]).ok().out;
    let applied: serde_json::Value = serde_json::from_str(&applied).expect("JSON was asked for");
    assert_eq!(
        (&applied["generation"], &applied["plan"]["new"]),
        (&1.into(), &true.into())
    );
    assert_eq!(applied["plan"]["topics"][0]["name"], "orders");
    let lines = |from: u64| -> String {
        (from..from + 500)
            .map(|id| format!("{{\"id\":{id},\"euros\":{}}}\n", id % 20))
            .collect()
    };
    world
        .run_with_input(&["produce", "orders", "--key", "id"], lines(0).as_bytes())
        .ok();
    server.kill();

    let server = world.serve();
    world
        .run_with_input(&["produce", "orders", "--key", "id"], lines(500).as_bytes())
        .ok();
    wait_for(&world, "large", 500);
    wait_for(&world, "small", 500);
    let out = world.run(&[
        "sql",
        "select count(*), count(distinct id), min(cents) from large",
    ]);
    assert_eq!(out.ok().out.lines().last(), Some("500,500,1000.0"));

    let changed = world.write("split.yaml", SPLIT.replace("euros >= 10", "euros >= 100"));
    let said = world.run(&["pipeline", "apply", &changed]).ok();
    assert!(said.err.contains("generation 2"), "{}", said.err);
    world
        .run_with_input(
            &["produce", "orders", "--key", "id"],
            lines(1000).as_bytes(),
        )
        .ok();
    wait_for(&world, "small", 1000);
    assert_eq!(
        (count(&world, "large"), count(&world, "small")),
        (500, 1000)
    );

    let described = world.run(&["pipeline", "describe", "split"]).ok().out;
    assert!(described.contains("running"), "{described}");
    assert!(world.run(&["pipeline", "list"]).ok().out.contains("split"));
    world
        .run(&["topic", "delete", "orders"])
        .fails(1, "used by pipeline");
    world.run(&["pipeline", "delete", "split"]).ok();
    world.run(&["topic", "delete", "orders"]).ok();
    world
        .run(&["pipeline", "delete", "split"])
        .fails(1, "does not exist");
    server.stop();
}

/// A module that counts by key.
const KEEPS: &[u8] =
    include_bytes!("../../../tests/guests/conformance/released/0.1.2-stateful.wasm");

const COUNTED: &str = "\
apiVersion: rustmq/v1alpha1
kind: Pipeline
metadata: { name: counted }
topics:
  in: { partitions: 1, value: json }
  out: { partitions: 1, value: raw }
modules:
  m: { source: ./keeps.wasm }
nodes:
  in: { kind: source, topic: in, start: earliest }
  count: { kind: wasm, module: m, inputs: [in] }
  out: { kind: sink, inputs: [count], topic: out }
";

/// Neither positions nor state stay of one that does not run any more, nor one of them without the other.
#[test]
fn a_pipeline_that_did_not_start_again_is_deleted_wholly() {
    let world = World::new();
    world.write("keeps.wasm", KEEPS);
    let file = world.write("counted.yaml", COUNTED);
    let key = world.run(&["module", "keygen", "a.key"]).ok().out;
    let config = format!("[modules]\ntrust = [\"{}\"]\n", key.trim());
    let config = world.write("node.toml", config);
    let server = world.serve();
    world.run(&["pipeline", "apply", &file]).ok();
    let lines = "{\"k\":\"a\"}\n".repeat(3);
    let produced = world.run_with_input(&["produce", "in", "--key", "k"], lines.as_bytes());
    produced.ok();
    wait_for(&world, "out", 3);
    server.stop();

    // nobody signed its module
    let server = world.serve_with(&["--config", &config]);
    let list = world.run(&["pipeline", "list"]).ok().out;
    assert!(list.contains("stopped"), "{list}");
    world.run(&["pipeline", "delete", "counted"]).ok();
    world
        .run(&["pipeline", "delete", "counted"])
        .fails(1, "does not exist");
    server.stop();

    let server = world.serve();
    world.run(&["pipeline", "apply", &file]).ok();
    wait_for(&world, "out", 6);
    let values: Vec<String> = world
        .run(&["consume", "out"])
        .ok()
        .out
        .lines()
        .map(value)
        .collect();
    assert_eq!(values, ["1", "2", "3", "1", "2", "3"]);
    server.stop();
}

fn value(line: &str) -> String {
    let record: serde_json::Value = serde_json::from_str(line).expect("a record is JSON");
    record["value"].as_str().unwrap_or("-").to_owned()
}

#[test]
fn a_refused_pipeline_has_no_effect() {
    let world = World::new();
    let mut server = world.serve();
    world
        .run(&["topic", "create", "small", "--partitions", "3"])
        .ok();
    let check = |name: &str, text: String, parts: &[&str]| {
        let file = world.write(name, text);
        let said = world.run(&["pipeline", "apply", &file]);
        assert_eq!(said.code, 1, "{name}: {} {}", said.out, said.err);
        for part in parts {
            assert!(
                said.err.contains(part),
                "{name}: no {part:?} in {}",
                said.err
            );
        }
        world
            .run(&["topic", "describe", "orders"])
            .fails(1, "does not exist");
        assert_eq!(world.run(&["pipeline", "list", "--json"]).ok().out, "[]\n");
    };
    // partitions that differ from the topic that is there, both named
    check(
        "differs.yaml",
        SPLIT.to_owned(),
        &["differs.yaml:7:3: error:", "small", "3", "1"],
    );
    let with = |from: &str, to: &str| {
        SPLIT
            .replace("  small: { p", "  tiny: { p")
            .replace(from, to)
    };
    check(
        "key.yaml",
        with("policy:", "polcy:"),
        &["key.yaml:9:1: error:", "polcy"],
    );
    check(
        "sql.yaml",
        with("euros >= 10", "euros >="),
        &["sql.yaml:14:", "error:"],
    );
    check(
        "column.yaml",
        with("id is not null", "ident is not null"),
        &["column.yaml:13:", "ident"],
    );
    check(
        "input.yaml",
        with("[split.rest]", "[split.nope]"),
        &["input.yaml:17:", "nope"],
    );
    let wasm = "modules:\n  m: { source: ./m.wasm }\nnodes:\n  w: { kind: wasm, module: m, inputs: [in] }\n";
    let module = with("nodes:\n", wasm).replace("topic: small", "topic: tiny");
    check(
        "absent.yaml",
        module.clone(),
        &["absent.yaml:12:", "m.wasm", "is not there"],
    );
    world.write("m.wasm", b"not wasm at all");
    let unknown = format!("sha256:{}", "0".repeat(64));
    check(
        "digest.yaml",
        module.replace("./m.wasm", &unknown),
        &[
            "digest.yaml:12:",
            "no module with this digest is stored here",
        ],
    );
    check("module.yaml", module, &["not a module"]);
    let key = world.path("key.yaml").display().to_string();
    let told = world.run(&["pipeline", "apply", &key, "--json"]);
    let told: serde_json::Value = serde_json::from_str(&told.out).expect("as `lint` says it");
    assert_eq!(told[0]["line"], 9);
    assert!(server.is_running());
    server.stop();
}

/// Whoever finds what is wrong, a program gets the list that `lint --json` prints; and an object for what is
/// deleted.
#[test]
fn what_is_refused_and_what_is_deleted_is_data_for_programs() {
    let world = World::new();
    let server = world.serve();
    let json = |said: &support::Said| -> serde_json::Value {
        serde_json::from_str(&said.out)
            .unwrap_or_else(|error| panic!("{error}: {:?}, {}", said.out, said.err))
    };
    world
        .run(&["topic", "create", "small", "--partitions", "3"])
        .ok();
    let file = world.write("split.yaml", SPLIT);
    // the server refuses it
    let refused = world.run(&["pipeline", "apply", &file, "--json"]);
    let told = json(&refused);
    assert_eq!(
        (&told[0]["line"], &told[0]["severity"]),
        (&7.into(), &"error".into()),
        "{told}"
    );
    refused.fails(1, "topic `small` exists");
    // the upload of its module is refused
    world.write("m.wasm", b"not wasm at all");
    let wasm = "modules:\n  m: { source: ./m.wasm }\nnodes:\n  w: { kind: wasm, module: m, inputs: [in] }\n";
    let module = world.write("module.yaml", SPLIT.replace("nodes:\n", wasm));
    for asked in ["apply", "plan"] {
        let told = json(&world.run(&["pipeline", asked, &module, "--json"]));
        assert_eq!(told[0]["line"], 12, "{asked}: {told}");
        let message = told[0]["message"].as_str().unwrap_or_default();
        assert!(message.contains("not a module"), "{asked}: {told}");
    }
    world.run(&["topic", "delete", "small"]).ok();
    world.run(&["pipeline", "apply", &file]).ok();
    let deleted = |what: &str, name: &str| json(&world.run(&[what, "delete", name, "--json"]).ok());
    assert_eq!(
        deleted("pipeline", "split"),
        serde_json::json!({ "deleted": "split" })
    );
    assert_eq!(
        deleted("topic", "small"),
        serde_json::json!({ "deleted": "small" })
    );
    server.stop();
}
