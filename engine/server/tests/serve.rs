//! A whole server: what it refuses to start on, how it ends, what survives.

mod support;

use support::{World, holds, wait};

#[test]
fn records_come_back_after_a_stop_and_after_kill_9() {
    let world = World::new();
    let server = world.serve();
    world
        .run(&["topic", "create", "orders", "--partitions", "2"])
        .ok();
    let lines = "{\"id\":1,\"v\":\"a\"}\n{\"id\":2,\"v\":\"b\"}\nnot json\n";
    let input = world.write("orders.jsonl", lines);
    let said = world
        .run(&["produce", "orders", &input, "--key", "id"])
        .ok();
    assert!(said.err.contains("3 records acknowledged"), "{}", said.err);
    server.stop();
    assert!(
        !holds(&world.path("state"), "server.json"),
        "the state folder is cleaned"
    );

    let server = world.serve();
    let sorted = |out: &str| {
        let mut lines: Vec<&str> = out.lines().collect();
        lines.sort_unstable();
        lines.join("\n") + "\n"
    };
    let out = world
        .run(&["consume", "orders", "--format", "raw"])
        .ok()
        .out;
    assert_eq!(sorted(&out), sorted(lines));
    world
        .run_with_input(&["produce", "orders", "-", "--format", "raw"], b"last\n")
        .ok();
    server.kill();

    let server = world.serve();
    let out = world
        .run(&["consume", "orders", "--format", "raw"])
        .ok()
        .out;
    assert_eq!(sorted(&out), sorted(&format!("{lines}last\n")));
    let out = world
        .run(&["sql", "select count(*) as n from orders"])
        .ok()
        .out;
    assert_eq!(out, "n\n4\n");
    server.stop();
}

#[test]
fn a_compacted_topic_keeps_the_newest_value_of_each_key() {
    let world = World::new();
    let server = world.serve();
    let create = ["topic", "create", "balances", "--compact", "--no-tier"];
    let times = ["--tombstone-retention", "1h", "--retention", "30d"];
    let all = [&create[..], &times].concat();
    world.run(&all).ok();
    let described = world.run(&["topic", "describe", "balances"]).ok().out;
    for line in [
        "retention:        30d",
        "compact:          true",
        "tombstones stand: 1h",
    ] {
        assert!(described.contains(line), "{line}: {described}");
    }
    let keyless = world.run_with_input(&["produce", "balances"], b"{\"v\":1}\n");
    keyless.fails(1, "key");

    produce_balances(&world);
    wait::until("compaction", || {
        (read_balances(&world).lines().count() < 10_000).then_some(())
    });
    check_balances(&read_balances(&world));
    server.kill();
    let server = world.serve();
    check_balances(&read_balances(&world));
    server.stop();
}

/// Ten keys, more records than a pass begins with, and a last batch that is left alone.
fn produce_balances(world: &World) {
    let line = |n: u64| format!("{{\"id\":{},\"v\":{n},\"pad\":\"{:0200}\"}}\n", n % 10, 0);
    let many: String = (0..20_000).map(line).collect();
    for text in [many, line(20_000)] {
        let produce = ["produce", "balances", "--key", "id"];
        world.run_with_input(&produce, text.as_bytes()).ok();
    }
}

fn read_balances(world: &World) -> String {
    let consume = [
        "consume", "balances", "--from", "earliest", "--format", "raw",
    ];
    world.run(&consume).ok().out
}

fn check_balances(out: &str) {
    let values = out.lines().map(|line| {
        let value: serde_json::Value = serde_json::from_str(line).expect("it was sent as JSON");
        let number = |name: &str| value[name].as_u64().expect("it was sent as a number");
        (number("id"), number("v"))
    });
    let newest: std::collections::BTreeMap<u64, u64> = values.collect();
    let expected = (1..10).map(|id| (id, 19_990 + id)).chain([(0, 20_000)]);
    assert_eq!(newest, expected.collect());
}

#[test]
fn a_compacted_topic_in_the_tier_keeps_the_newest_value_of_each_key() {
    let world = World::new();
    let config = "[storage]\ntier_age_ms = 1\n[tier]\ntick_ms = 10\n\
                  [compaction]\nage_ms = 1\ndirty_percent = 1\n";
    world.write("node.toml", config);
    let serve = || world.serve_with(&["--config", "node.toml"]);
    let server = serve();
    let create = ["topic", "create", "balances", "--compact"];
    world.run(&create).ok();
    let described = world.run(&["topic", "describe", "balances"]).ok().out;
    for line in ["tier:             true", "compact:          true"] {
        assert!(described.contains(line), "{line}: {described}");
    }
    produce_balances(&world);
    let sql = |query: &str| world.run(&["sql", query]).ok().out;
    let numbers = "select \"end\", cold_end, compacted_end, cold_records \
                   from system.partitions where topic = 'balances'";
    // One row a key, the newest: all is in the tier, and all of it compacted.
    wait::until("the rows to shrink", || {
        sql(numbers)
            .contains("\n20001,20001,20001,10\n")
            .then_some(())
    });
    let (_, body) = server.http("GET /v1/status", "");
    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status["tiered_records"], 10, "{body}");
    let newest = "select count(*), min(_offset), max(_offset) from balances";
    let check = || {
        assert_eq!(sql(newest).lines().last(), Some("10,19991,20000"));
        let read = read_balances(&world);
        assert_eq!(read.lines().count(), 10, "{read}");
        check_balances(&read);
    };
    check();
    server.kill();
    let server = serve();
    check();
    let last = format!("{{\"id\":3,\"v\":20001,\"pad\":\"{:0200}\"}}\n", 0);
    let produce = ["produce", "balances", "--key", "id"];
    world.run_with_input(&produce, last.as_bytes()).ok();
    wait::until("one more pass", || {
        sql(numbers)
            .contains("\n20002,20002,20002,10\n")
            .then_some(())
    });
    assert!(read_balances(&world).ends_with(&last));
    server.stop();
}

#[test]
fn a_trim_removes_the_oldest_records_for_good() {
    let world = World::new();
    // Half of the records are in the tier when they are trimmed.
    world.write(
        "node.toml",
        "[storage]\ntier_age_ms = 1\n[tier]\ntick_ms = 10\n",
    );
    let serve = || world.serve_with(&["--config", "node.toml"]);
    let server = serve();
    world.run(&["topic", "create", "notes"]).ok();
    let two = ["topic", "create", "orders", "--partitions", "2"];
    world.run(&two).ok();
    let produce = |topic: &str, text: &str| {
        let produce = ["produce", topic, "-", "--format", "raw"];
        world.run_with_input(&produce, text.as_bytes()).ok();
    };
    let sql = |query: &str| world.run(&["sql", query]).ok().out;
    produce("notes", "0\n1\n2\n3\n4\n");
    wait::until("the first half to be tiered", || {
        let (code, body) = server.http("GET /v1/status", "");
        assert_eq!(code, 200, "{body}");
        let status: serde_json::Value = serde_json::from_str(&body).unwrap();
        (status["tiered_records"] == 5).then_some(())
    });
    produce("notes", "5\n6\n7\n8\n9\n");

    let trim = |more: &[&str]| {
        let all = [&["topic", "trim", "notes"], more].concat();
        world.run(&all)
    };
    trim(&[]).fails(2, "--before");
    trim(&["--before", "x"]).fails(2, "--before");
    trim(&["--before", "1", "--before-time", "2026-01-01T00:00:00Z"]).fails(2, "cannot be used");
    trim(&["--before-time", "yesterday"]).fails(2, "2026-01-31T12:00:00Z");
    trim(&["--before", "11"]).fails(1, "ends at offset 10");
    trim(&["--before", "1", "--partition", "1"]).fails(1, "has no partition 1");
    world
        .run(&["topic", "trim", "noets", "--before", "1"])
        .fails(1, "rustmq topic list");
    let orders = ["topic", "trim", "orders", "--before", "1"];
    world.run(&orders).fails(1, "--partition");

    let said = trim(&["--before", "3"]).ok();
    assert!(
        said.err
            .contains("partition 0 of notes: it has offsets 3 to 10"),
        "{}",
        said.err
    );
    let consume = |from: &str| {
        let consume = ["consume", "notes", "--from", from, "--format", "raw"];
        world.run(&consume).ok().out
    };
    let bounds = "select count(*), min(_offset), max(_offset) from notes";
    let check = || {
        for from in ["earliest", "0", "3"] {
            assert_eq!(consume(from), "3\n4\n5\n6\n7\n8\n9\n", "{from}");
        }
        assert_eq!(consume("8"), "8\n9\n");
        assert_eq!(sql(bounds).lines().last(), Some("7,3,9"));
    };
    check();
    server.kill();
    let server = serve();
    check();

    let said = trim(&["--before", "2"]).ok();
    assert!(said.err.contains("nothing to trim"), "{}", said.err);
    let out = trim(&["--before", "6", "--partition", "0", "--json"])
        .ok()
        .out;
    let shown: serde_json::Value = serde_json::from_str(&out).unwrap();
    let kept = serde_json::json!({"partition": 0, "start_before": 3, "start": 6, "end": 10});
    assert_eq!(
        shown,
        serde_json::json!({"name": "notes", "partitions": [kept]})
    );
    trim(&["--before-time", "2001-01-01T00:00:00Z"]).ok();
    assert_eq!(consume("earliest"), "6\n7\n8\n9\n");
    trim(&["--before-time", "2999-01-01T00:00:00Z"]).ok();
    assert_eq!(consume("earliest"), "");
    produce("notes", "10\n");
    assert_eq!(sql(bounds).lines().last(), Some("1,10,10"));
    let all = [
        "topic",
        "trim",
        "orders",
        "--before-time",
        "2999-01-01T00:00:00Z",
    ];
    let said = world.run(&all).ok();
    assert!(said.err.contains("partition 1 of orders"), "{}", said.err);
    server.stop();
}

#[test]
fn what_cannot_be_served_is_said() {
    let world = World::new();
    let mut server = world.serve();
    let pid = server.pid().to_string();
    let serve = |args: &[&str]| {
        let mut all = vec!["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
        all.extend(args);
        world.run(&all)
    };
    serve(&["--data-dir", "data"]).fails(1, &format!("in use by process {pid}"));
    let (quic, http) = (server.quic.clone(), server.http.clone());
    let free = "127.0.0.1:0";
    world
        .run(&[
            "serve",
            "--data-dir",
            "two",
            "--listen",
            &quic,
            "--http",
            free,
        ])
        .fails(1, "choose another address with --listen");
    world
        .run(&[
            "serve",
            "--data-dir",
            "two",
            "--listen",
            free,
            "--http",
            &http,
        ])
        .fails(1, "choose another address with --http");
    world.write("file", "");
    serve(&["--data-dir", "file/inside"])
        .fails(1, "cannot write to the data directory file/inside");
    serve(&["--data-dir", "/proc/rustmq"]).fails(1, "cannot write to the data directory");
    assert!(server.is_running());
    world.run(&["topic", "list"]).ok();
    server.stop();
}

#[test]
fn sigint_stops_too_and_a_follower_is_not_waited_for() {
    let world = World::new();
    let mut server = world.serve();
    world.run(&["topic", "create", "t"]).ok();
    world
        .run_with_input(&["produce", "t", "--format", "raw"], b"x\n")
        .ok();
    let out = world.path("follow.out");
    let mut follower = world
        .command(&["consume", "t", "--follow", "--format", "raw"])
        .stdout(std::fs::File::create(&out).unwrap())
        .spawn()
        .unwrap();
    wait::until("the follower's first record", || {
        std::fs::read_to_string(&out)
            .unwrap()
            .starts_with('x')
            .then_some(())
    });
    server.signal("INT");
    assert_eq!(server.wait().code(), Some(0));
    let _ = follower.kill();
    let _ = follower.wait();
}

#[test]
fn bad_requests_leave_everything_else_running() {
    let world = World::new();
    let mut server = world.serve();
    world.run(&["topic", "create", "t"]).ok();
    world
        .run(&["topic", "create", "t"])
        .fails(1, "exists already");
    world.run(&["topic", "create", "t", "--if-absent"]).ok();
    world
        .run(&["topic", "describe", "absent"])
        .fails(1, "does not exist");
    world.run(&["topic", "delete", "../x"]).fails(1, "../x");
    world.run(&["consume", "absent"]).fails(1, "does not exist");
    world
        .run_with_input(&["produce", "absent"], b"")
        .fails(1, "does not exist");
    world
        .run(&["pipeline", "describe", "absent"])
        .fails(1, "does not exist");

    let mut input = b"fine\n".to_vec();
    input.resize(9 << 20, b'x');
    let said = world.run_with_input(&["produce", "t", "--format", "raw"], &input);
    let said = said.fails(1, "<stdin>:2");
    assert!(said.err.contains("1 record acknowledged"), "{}", said.err);
    let out = world.run(&["consume", "t", "--format", "raw"]).ok().out;
    assert_eq!(out, "fine\n");

    for query in [
        "drop table t",
        "create table x as select 1",
        "insert into t values (1)",
        "copy t to '/tmp/x'",
        "set a = 1",
        "select * from '/etc/passwd'",
        "selec 1",
        "select nope from t",
    ] {
        let said = world.run(&["sql", query]);
        assert_eq!(said.code, 1, "{query}: {} {}", said.out, said.err);
        assert!(said.err.starts_with("error: "), "{query}: {}", said.err);
    }
    assert!(server.is_running());
    assert_eq!(
        world.run(&["sql", "select _value_text from t"]).ok().out,
        "_value_text\nfine\n"
    );
    server.stop();
}

#[test]
fn groups_remember_what_was_printed() {
    let world = World::new();
    let server = world.serve();
    world.run(&["topic", "create", "t"]).ok();
    world
        .run_with_input(&["produce", "t", "--format", "raw"], b"a\nb\nc\n")
        .ok();
    let consume = |more: &[&str]| {
        let mut args = vec!["consume", "t", "--group", "g", "--format", "raw"];
        args.extend(more);
        world.run(&args).ok().out
    };
    assert_eq!(consume(&["--from", "earliest", "--max", "2"]), "a\nb\n");
    assert_eq!(consume(&["--from", "earliest"]), "c\n");
    assert_eq!(consume(&[]), "");
    assert!(world.run(&["group", "list"]).ok().out.contains('g'));
    let json = world.run(&["group", "describe", "g", "--json"]).ok().out;
    assert!(json.contains("\"committed\":3"), "{json}");
    world.run(&["group", "reset", "g", "t", "--to", "1"]).ok();
    assert_eq!(consume(&[]), "b\nc\n");
    let deleted = world.run(&["group", "delete", "g", "--json"]).ok().out;
    assert_eq!(deleted, "{\"deleted\":\"g\"}\n");
    server.stop();
}

#[test]
fn http_answers_sql_and_lists() {
    let world = World::new();
    let server = world.serve();
    let schema = world.write("schema.json", "{\"n\": \"int64\"}");
    world
        .run(&["topic", "create", "t", "--schema", &schema])
        .ok();
    world
        .run_with_input(&["produce", "t"], b"{\"n\":1}\n{\"n\":2}\n")
        .ok();
    assert_eq!(server.http("GET /healthz", ""), (200, "ok\n".to_owned()));
    let (status, body) = server.http("POST /v1/sql", "select sum(n) as s from t");
    assert_eq!((status, body.as_str()), (200, "{\"s\":3}\n"));
    let (status, body) = server.http(
        "POST /v1/sql",
        "{\"query\": \"select n from t order by n\"}",
    );
    assert_eq!((status, body.as_str()), (200, "{\"n\":1}\n{\"n\":2}\n"));
    let (status, body) = server.http(
        "POST /v1/sql",
        "{\"query\": \"select n from t order by n\", \"row_limit\": 1}",
    );
    assert_eq!(status, 200);
    assert!(
        body.lines().last().unwrap().starts_with("{\"error\":"),
        "{body}"
    );
    let check = |head: &str, body: &str, status: u16, part: &str| {
        let answer = server.http(head, body);
        assert_eq!(answer.0, status, "{head}: {}", answer.1);
        assert!(answer.1.contains(part), "{head}: {}", answer.1);
    };
    check("POST /v1/sql", "drop table t", 400, "\"advice\":\"fix\"");
    check("POST /v1/sql", "", 400, "no query");
    check("POST /v1/sql", "{\"quarry\": 1}", 400, "quarry");
    check("POST /v1/sql", &" ".repeat((1 << 20) + 1), 413, "too-large");
    check("GET /v1/sql", "", 405, "POST");
    check("GET /nowhere", "", 404, "not-found");
    check("GET /v1/topics", "", 200, "\"name\":\"t\"");
    check("GET /v1/topics/t", "", 200, "\"end\":2");
    check("GET /v1/topics/absent", "", 404, "does not exist");
    check("GET /v1/pipelines", "", 200, "\"pipelines\":[]");
    check("GET /v1/status", "", 200, "\"records\":2");
    server.stop();
}

#[test]
fn formats_of_consume_and_sql() {
    let world = World::new();
    let server = world.serve();
    world.run(&["topic", "create", "t"]).ok();
    let csv = world.write("t.csv", "id,name\n7,ann\n");
    world
        .run(&["produce", "t", &csv, "--format", "csv", "--key", "id"])
        .ok();
    let line = world.run(&["consume", "t", "--json"]).ok().out;
    let record: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(record["key"], "7");
    assert_eq!(record["value"], "{\"id\":\"7\",\"name\":\"ann\"}");
    assert_eq!(
        (record["partition"].as_u64(), record["offset"].as_u64()),
        (Some(0), Some(0))
    );
    assert_eq!(
        record["timestamp"].as_str().unwrap().len(),
        "2013-01-01T00:00:00.000000Z".len()
    );
    let check = |args: &[&str], expect: &str| {
        assert_eq!(world.run(args).ok().out, expect, "{args:?}");
    };
    check(&["sql", "select 1 as a, 'x' as b"], "a,b\n1,x\n");
    check(&["sql", "select 1 as a", "--json"], "{\"a\":1}\n");
    assert!(
        world
            .run(&["sql", "select 1 as a", "--format", "table"])
            .ok()
            .out
            .contains("\n 1\n")
    );
    check(&["consume", "t", "--from", "latest"], "");
    check(&["consume", "t", "--from", "2999-01-01T00:00:00Z"], "");
    check(&["consume", "t", "--max", "0"], "");
    let status: serde_json::Value =
        serde_json::from_str(&world.run(&["status", "--json"]).ok().out).unwrap();
    assert_eq!(status["records"], 1);
    assert_eq!(status["quic"], server.quic);
    world.run(&["status"]).ok();
    world.run(&["topic", "delete", "t"]).ok();
    world
        .run(&["topic", "describe", "t"])
        .fails(1, "does not exist");
    server.stop();
}

#[test]
fn topics_of_csv_have_columns() {
    let world = World::new();
    let config = world.write(
        "config.toml",
        "[storage]\ntier_age_ms = 1\n[tier]\ntick_ms = 10\n",
    );
    let server = world.serve_with(&["--config", &config]);
    let needs = "value codec `csv` needs a schema";
    world
        .run(&["topic", "create", "c", "--value", "csv"])
        .fails(1, needs);
    let schema = world.write(
        "schema.json",
        r#"[{"name": "id", "type": "int64"}, {"name": "said", "type": "string"}]"#,
    );
    world
        .run(&[
            "topic", "create", "c", "--value", "csv", "--schema", &schema,
        ])
        .ok();
    let produce = |text: &str| {
        let rows = world.write("rows.csv", text);
        world.run(&["produce", "c", &rows, "--format", "raw"]).ok();
    };
    produce("1,plain\n2,\"a, \"\"b\"\"\"\nthree,bad\n");
    wait::until("the rows to be tiered", || {
        let (_, body) = server.http("GET /v1/status", "");
        let status: serde_json::Value = serde_json::from_str(&body).unwrap();
        (status["tiered_records"] == 3).then_some(())
    });
    produce("4,\n5,\"\"\n");
    let query = "select _offset, id, said from c order by _offset";
    assert_eq!(
        world.run(&["sql", query]).ok().out,
        "_offset,id,said\n0,1,plain\n1,2,\"a, \"\"b\"\"\"\n2,,\n3,4,\n4,5,\"\"\n"
    );
    assert_eq!(
        world.run(&["consume", "c", "--format", "raw"]).ok().out,
        "1,plain\n2,\"a, \"\"b\"\"\"\nthree,bad\n4,\n5,\"\"\n"
    );
    server.stop();
}

const AVSC: &str = r#"{"type": "record", "name": "Said", "fields": [
  {"name": "id", "type": "int"},
  {"name": "said", "type": ["null", "string"]},
  {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}
]}"#;

#[test]
fn topics_of_avro_are_json_at_the_command_line() {
    let world = World::new();
    let config = world.write(
        "config.toml",
        "[storage]\ntier_age_ms = 1\n[tier]\ntick_ms = 10\n",
    );
    let server = world.serve_with(&["--config", &config]);
    let schema = world.write("said.avsc", AVSC);
    let wrong = world.write("wrong.avsc", AVSC.replace("\"int\"", "{\"type\": \"map\"}"));
    world
        .run(&["topic", "create", "a", "--schema", &wrong])
        .fails(
            1,
            "wrong.avsc:2:12: error: Avro schema, field `id`: type `map` has no column",
        );
    world
        .run(&[
            "topic", "create", "a", "--value", "json", "--schema", &schema,
        ])
        .fails(1, "an Avro schema needs value codec `avro`, not `json`");
    world
        .run(&["topic", "create", "a", "--schema", &schema])
        .ok();
    let described = world.run(&["topic", "describe", "a"]).ok().out;
    assert!(
        described.contains("id: int64, said: string, at: timestamp"),
        "{described}"
    );
    assert!(
        described.contains(r#"{"type":"record","name":"Said""#),
        "{described}"
    );
    let lines = world.write(
        "rows.jsonl",
        "{\"id\":1,\"said\":\"a\\nb\",\"at\":\"2013-01-01T05:17:00Z\"}\n{\"id\":2,\"at\":0}\n",
    );
    world.run(&["produce", "a", &lines, "--key", "id"]).ok();
    wait::until("the rows to be tiered", || {
        let (_, body) = server.http("GET /v1/status", "");
        let status: serde_json::Value = serde_json::from_str(&body).unwrap();
        (status["tiered_records"] == 2).then_some(())
    });
    // {3, "c", 1 ms}, as another program would write it; the others do not fit
    let datum = world.write("one.avro", "\x06\x02\x02c\x02");
    world.run(&["produce", "a", &datum, "--format", "raw"]).ok();
    let bad = world.write(
        "bad.jsonl",
        "{\"id\":4,\"at\":0}\n{\"id\":3000000000,\"at\":0}\n",
    );
    let refused = world.run(&["produce", "a", &bad]);
    let place = "bad.jsonl:2: field `id` (Avro int): 3000000000 has more than 32 bits; 1 record \
                 acknowledged by a";
    refused.fails(1, place);
    let query = "select id, said, at from a order by _offset";
    assert_eq!(
        world.run(&["sql", query]).ok().out,
        "id,said,at\n1,\"a\nb\",2013-01-01T05:17:00.000000Z\n2,,1970-01-01T00:00:00.000000Z\n\
         3,c,1970-01-01T00:00:00.001000Z\n4,,1970-01-01T00:00:00.000000Z\n"
    );
    let shown = world.run(&["consume", "a"]).ok().out;
    let values: Vec<String> = shown
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["value"].to_string())
        .collect();
    assert_eq!(
        values[2],
        r#""{\"id\":3,\"said\":\"c\",\"at\":\"1970-01-01T00:00:00.001000Z\"}""#
    );
    assert_eq!(values.len(), 4);
    server.stop();
}

#[test]
fn topics_of_columns_are_json_for_clients() {
    let world = World::new();
    let config = world.write(
        "config.toml",
        "[storage]\ntier_age_ms = 1\n[tier]\ntick_ms = 10\n",
    );
    let server = world.serve_with(&["--config", &config]);
    let schema = world.write("schema.json", r#"{"id": "int64", "said": "string"}"#);
    world
        .run(&["topic", "create", "c", "--value", "columns"])
        .fails(1, "value codec `columns` needs a schema");
    let create = [
        "topic", "create", "c", "--value", "columns", "--schema", &schema,
    ];
    world.run(&create).ok();
    let produce = |lines: &str, format: &str| {
        let rows = world.write("rows.jsonl", lines);
        world.run(&["produce", "c", &rows, "--format", format])
    };
    produce(
        "{\"said\":\"a\",\"id\":1,\"more\":[]}\n{\"id\":2}\n",
        "jsonl",
    )
    .ok();
    wait::until("the rows to be tiered", || {
        let (_, body) = server.http("GET /v1/status", "");
        let status: serde_json::Value = serde_json::from_str(&body).unwrap();
        (status["tiered_records"] == 2).then_some(())
    });
    produce("{\"id\":3,\"said\":\"\"}\n", "jsonl").ok();
    produce("{\"id\":4}\n{\"id\":\"x\"}\n", "jsonl").fails(
        1,
        "rows.jsonl:2: field `id` (int64): expected an integer, found string \"x\"; 1 record acknowledged",
    );
    produce("{\"id\":true}\n", "raw").fails(
        1,
        "record 0 of the batch is no JSON object of the topic's schema: field `id` (int64): expected \
         an integer, found true",
    );
    let query = "select _offset, id, said from c order by _offset";
    assert_eq!(
        world.run(&["sql", query]).ok().out,
        "_offset,id,said\n0,1,a\n1,2,\n2,3,\"\"\n3,4,\n"
    );
    assert_eq!(
        world.run(&["consume", "c", "--format", "raw"]).ok().out,
        "{\"id\":1,\"said\":\"a\"}\n{\"id\":2,\"said\":null}\n{\"id\":3,\"said\":\"\"}\n\
         {\"id\":4,\"said\":null}\n"
    );
    // batches that are on their way together, a long one before a short one, keep their order
    let said = "x".repeat(200);
    let long = (5..=30_000).map(|id| format!("{{\"id\":{id},\"said\":\"{said}\"}}\n"));
    produce(&long.collect::<String>(), "jsonl").ok();
    let query = "select count(*), sum(case when id = _offset + 1 then 1 else 0 end) as due from c";
    let counted = world.run(&["sql", query]).ok().out;
    assert!(counted.ends_with("\n30000,30000\n"), "{counted}");
    server.stop();
}
