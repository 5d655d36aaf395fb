//! The command line without a server: help, wrong usage, exit codes, files that are wrong.

mod support;

use std::time::{Duration, Instant};

use support::World;

#[test]
fn wrong_usage_is_exit_2() {
    let world = World::new();
    let check = |args: &[&str], part: &str| {
        world.run(args).fails(2, part);
    };
    check(&["topic", "lst"], "list");
    check(&["serv"], "serve");
    check(&["serve", "--lisen", "x"], "--listen");
    check(&["topic", "create"], "<NAME>");
    check(&["topic", "create", "x", "--partitions", "many"], "many");
    check(
        &["consume", "x", "--from", "yesterday"],
        "earliest, latest, an offset",
    );
    check(
        &["consume", "x", "--json", "--format", "raw"],
        "--json means --format jsonl",
    );
    check(
        &["sql", "select 1", "--json", "--format", "csv"],
        "--json means --format jsonl",
    );
    check(
        &["produce", "x", "--format", "raw", "--key", "k"],
        "--key names a field",
    );
    check(&["serve", "--json"], "leave --json out");
    check(&["top"], "`rustmq top` is not built yet");
    check(&["bench", "--quick"], "`rustmq bench` is not built yet");
    check(
        &["pipeline", "tap", "a", "b.c"],
        "`rustmq pipeline tap` is not built yet",
    );
    check(
        &["pipeline", "dlq", "list"],
        "`rustmq pipeline dlq` is not built yet",
    );
    check(
        &["module", "new", "x", "--lang", "cobol"],
        "invalid value 'cobol'",
    );
    check(&[], "Usage: rustmq");
}

#[test]
fn help_is_there_for_every_command_and_lists_only_what_is_built() {
    let world = World::new();
    let help = world.run(&["--help"]).ok().out;
    assert!(
        help.contains("Exit codes:") && help.contains("Examples:"),
        "{help}"
    );
    let lists = |help: &str, name: &str| {
        help.lines()
            .any(|line| line.split_whitespace().next() == Some(name))
    };
    for name in [
        "serve",
        "topic",
        "produce",
        "consume",
        "module",
        "pipeline",
        "sql",
        "group",
        "status",
        "completions",
    ] {
        assert!(lists(&help, name), "{name} is not in {help}");
        let help = world.run(&[name, "--help"]).ok().out;
        assert!(help.contains("Examples:"), "{name} has no examples: {help}");
    }
    for name in ["top", "bench"] {
        assert!(!lists(&help, name), "{name} is in {help}");
    }
    let pipeline = world.run(&["pipeline", "--help"]).ok().out;
    assert!(
        lists(&pipeline, "plan") && !lists(&pipeline, "tap"),
        "{pipeline}"
    );
    let plan = world.run(&["pipeline", "plan", "--help"]).ok().out;
    for help in [&pipeline, &plan] {
        assert!(help.contains("live, drain, migrate or reset"), "{help}");
    }
    let serve = world.run(&["serve", "--help"]).ok().out;
    assert!(
        serve.contains("RUSTMQ_LOG says how much: error, warn (the default)"),
        "{serve}"
    );
    assert!(world.run(&["--version"]).ok().out.starts_with("rustmq "));
}

#[test]
fn completions_are_printed() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = world.run(&["completions", shell]).ok().out;
        assert!(script.contains("rustmq"), "{shell}");
    }
}

#[test]
fn no_server_is_exit_3_within_three_seconds() {
    let world = World::new();
    let ca = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let began = Instant::now();
    world.run(&["topic", "list"]).fails(3, "rustmq serve");
    world
        .run(&["status", "--server", "127.0.0.1:1"])
        .fails(3, "--ca FILE");
    world
        .run(&["status", "--server", "127.0.0.1:1", "--ca", ca])
        .fails(3, "certificate");
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn wrong_files_are_named_with_their_place() {
    let world = World::new();
    let config = world.write(
        "node.toml",
        "listen = \"127.0.0.1:0\"\nhtpp = \"x\"\n[limits]\na = 1\n",
    );
    let said = world.run(&["serve", "--config", &config]);
    let said = said.fails(1, "node.toml:2:1: error: unknown key `htpp`");
    assert!(
        said.err
            .contains("node.toml:4:1: error: unknown key `limits.a`"),
        "{}",
        said.err
    );
    world
        .run(&["serve", "--config", "absent.toml"])
        .fails(1, "absent.toml");
    world
        .run(&["serve", "--listen", "nowhere"])
        .fails(1, "--listen: `nowhere` is not an address");

    let schema = world.write("schema.json", "{\"a\": \"int65\"}");
    world
        .run(&["topic", "create", "x", "--schema", &schema])
        .fails(1, "schema.json");
    let schema = world.write("schema.json", "{\n  \"a\": \n}");
    world
        .run(&["topic", "create", "x", "--schema", &schema])
        .fails(1, "schema.json:3:1: error:");
    world.run(&["topic", "create", "../x"]).fails(1, "../x");
    world.run(&["topic", "create", "_x"]).fails(1, "_");
    world
        .run(&["topic", "create", "x", "--partitions", "0"])
        .fails(1, "1 to 10000 partitions");
}

/// What a key's file and a module's file are, before anything else about them.
#[test]
fn files_that_are_no_key_and_no_module_are_said_to_be_none() {
    let world = World::new();
    let module = world.write("empty.wasm", b"");
    world
        .run(&["module", "inspect", &module])
        .fails(1, "empty.wasm is not a module: the file is empty");
    world.run(&["module", "keygen", "good.key"]).ok();
    // readable by others, and text or not
    for (name, bytes) in [
        ("text.key", &b"ed25519:00"[..]),
        ("raw.key", b"\0asm\xff\xfe"),
        ("no.key", b""),
    ] {
        let key = world.write(name, bytes);
        let said = world.run(&["module", "sign", &module, "--key", &key]);
        let said = said.fails(1, "is no secret key made by `rustmq module keygen`");
        assert!(
            said.err.contains(name) && !said.err.contains("chmod"),
            "{}",
            said.err
        );
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(world.path("good.key"), open).unwrap();
        world
            .run(&["module", "sign", &module, "--key", "good.key"])
            .fails(1, "chmod 600");
    }
}

#[test]
fn misfits_are_refused_where_there_are_none() {
    let world = World::new();
    let schema = world.write("schema.json", "{\"a\": \"int64\"}");
    let create = |more: &[&str]| world.run(&[&["topic", "create", "x"][..], more].concat());
    create(&["--schema", &schema, "--misfits", "nul"]).fails(2, "a similar value exists: 'nulls'");
    create(&["--value", "json", "--misfits", "nulls"]).fails(1, "misfits as `nulls` need a schema");
    create(&[
        "--value",
        "columns",
        "--schema",
        &schema,
        "--misfits",
        "nulls",
    ])
    .fails(1, "value codec `columns` has no misfits to be `nulls`");
}

#[test]
fn lint_says_every_error_with_line_and_column() {
    let world = World::new();
    let file = world.write(
        "p.yaml",
        "apiVersion: rustmq/v1alpha1\nkind: Pipeline\nmetadata: { name: p }\n\
         nodes:\n  in: { kind: source, topic: t, start: earliest, colour: red }\n  \
         out: { kind: sink, inputs: [inn], topic: t }\n",
    );
    let said = world
        .run(&["pipeline", "lint", &file])
        .fails(1, "p.yaml:5:");
    assert!(said.err.contains("colour"), "{}", said.err);
    assert!(said.err.contains("p.yaml:6:"), "{}", said.err);
    world
        .run(&["pipeline", "lint", "absent.yaml"])
        .fails(1, "absent.yaml");
    let schema = world.run(&["pipeline", "schema"]).ok().out;
    assert!(schema.contains("\"apiVersion\""), "{schema}");
}
