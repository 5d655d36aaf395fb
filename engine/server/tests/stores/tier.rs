//! Records go to a real store and come back, also after all but the catalog is lost.
//!
//! Called by: `main`. Invariants: values are compared byte for byte, in order. Refuses: nothing.

use serde_json::Value;

use crate::stores::gcs::{self, Gcs};
use crate::stores::s3::{self, S3};
use crate::support::{Server, World, wait};
use crate::{check_secret, config};

const RECORDS: u64 = 3_000;

/// Lines that tell their number; the one partition keeps their order.
fn lines(from: u64, to: u64) -> String {
    let line = |n: u64| {
        format!(
            "{{\"n\":{n},\"pad\":\"{:x}\"}}\n",
            n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        )
    };
    (from..to).map(line).collect()
}

fn serve(world: &World) -> Server {
    world.serve_with(&["--config", "node.toml"])
}

fn status(server: &Server) -> Value {
    let (code, body) = server.http("GET /v1/status", "");
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Until all records are in the store and the log has nothing of them.
fn wait_tiered(server: &Server, records: u64) {
    wait::until("all records to be tiered", || {
        let status = status(server);
        let is_done = status["tiered_records"] == records && status["storage"]["tier_waiting"] == 0;
        is_done.then_some(())
    });
}

fn produce(world: &World, from: u64, to: u64) {
    let file = world.write("lines", lines(from, to));
    world.run(&["produce", "t", &file]).ok();
}

fn check_all(world: &World, records: u64) {
    let out = world.run(&["consume", "t", "--format", "raw"]).ok().out;
    assert!(
        out == lines(0, records),
        "not the {records} lines that were produced"
    );
    let query = "select count(*), sum(json_get_int(_value_text, 'n')) from t";
    let out = world.run(&["sql", query]).ok().out;
    let sum = records * (records - 1) / 2;
    assert_eq!(
        out.lines().last(),
        Some(format!("{records},{sum}").as_str()),
        "{out}"
    );
}

/// Three keys of a hundred values each become three rows in the store.
fn compacted(world: &World) {
    world.run(&["topic", "create", "newest", "--compact"]).ok();
    let line = |n: u64| format!("{{\"key\":{},\"n\":{n}}}\n", n % 3);
    let file = world.write("keyed", (0..300).map(line).collect::<String>());
    world
        .run(&["produce", "newest", &file, "--key", "key"])
        .ok();
    let numbers = "select compacted_end, cold_records from system.partitions \
                   where topic = 'newest'";
    wait::until("the rows to shrink in the store", || {
        let out = world.run(&["sql", numbers]).ok().out;
        (out.lines().last() == Some("300,3")).then_some(())
    });
    check_compacted(world);
}

fn check_compacted(world: &World) {
    let out = world
        .run(&["consume", "newest", "--format", "raw"])
        .ok()
        .out;
    let wanted = "{\"key\":0,\"n\":297}\n{\"key\":1,\"n\":298}\n{\"key\":2,\"n\":299}\n";
    assert_eq!(out, wanted);
    let query = "select count(*), max(_offset) from newest";
    let out = world.run(&["sql", query]).ok().out;
    assert_eq!(out.lines().last(), Some("3,299"), "{out}");
}

fn round_trip(world: &World, url: &str, options: &[(&str, String)]) {
    world.write("node.toml", config(url, options));
    let server = serve(world);
    world.run(&["topic", "create", "t"]).ok();
    produce(world, 0, RECORDS);
    wait_tiered(&server, RECORDS);
    check_all(world, RECORDS);
    let shown = world.run(&["status"]).ok().out;
    assert!(shown.contains(url), "{shown}");
    let (_, page) = server.http("GET /v1/status", "");
    check_secret(world, &[&shown, &page]);
    compacted(world);
    server.stop();
    // The catalog stays; of the records nothing is left on this machine.
    std::fs::remove_dir_all(world.path("data").join("wal")).unwrap();
    let server = serve(world);
    check_compacted(world);
    check_all(world, RECORDS);
    produce(world, RECORDS, RECORDS + 10);
    check_all(world, RECORDS + 10);
    check_secret(world, &[]);
    server.kill();
    let server = serve(world);
    check_all(world, RECORDS + 10);
    server.stop();
    check_secret(world, &[]);
}

pub fn s3_round_trip() {
    let world = World::new();
    let s3 = S3::start(world.dir.path());
    round_trip(&world, &s3::url("a/b"), &s3::options(s3.port));
}

pub fn gcs_round_trip() {
    let world = World::new();
    let gcs = Gcs::start(world.dir.path());
    round_trip(&world, &gcs::url("a/b"), &gcs::options(gcs.wire.port));
}

pub fn a_store_that_dies() {
    let world = World::new();
    let mut s3 = S3::start(world.dir.path());
    world.write("node.toml", config(&s3::url(""), &s3::options(s3.port)));
    let server = serve(&world);
    world.run(&["topic", "create", "t"]).ok();
    produce(&world, 0, 500);
    wait_tiered(&server, 500);
    s3.kill();
    // Producing goes on: what is acknowledged is in the log.
    produce(&world, 500, RECORDS);
    wait::until("the breaker to open", || {
        (status(&server)["storage"]["tier_breaker"]["state"] == "open").then_some(())
    });
    let shown = world.run(&["status"]).ok().out;
    for part in ["breaker", "does not answer"] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
    s3.restart();
    wait_tiered(&server, RECORDS);
    check_all(&world, RECORDS);
    let shown = world.run(&["status"]).ok().out;
    assert!(!shown.contains("breaker"), "{shown}");
    check_secret(&world, &[&shown]);
    server.stop();
}
