//! What `serve` says when its store does not open: exit 1, and what to look at.
//!
//! Called by: `main`. Invariants: no secret in it, at the loudest log level. Refuses: nothing.

use std::time::{Duration, Instant};

use crate::stores::gcs::{self, Gcs};
use crate::stores::s3::{self, S3, SECRET_KEY};
use crate::support::{World, said};
use crate::{check_secret, config};

/// The client asks again for a while; nobody should wait longer.
const ERROR_MAX: Duration = Duration::from_secs(20);

/// `serve` with this configuration ends with exit 1 and names all of `parts`.
#[track_caller]
fn refused(world: &World, text: &str, parts: &[&str]) {
    world.write("node.toml", text);
    let began = Instant::now();
    let any = "127.0.0.1:0";
    let args = [
        "serve",
        "--config",
        "node.toml",
        "--data-dir",
        "data",
        "--listen",
        any,
        "--http",
        any,
    ];
    let mut command = world.command(&args);
    let said = said(command.env("RUSTMQ_LOG", "trace").output().unwrap());
    let said = said.fails(1, parts[0]);
    for part in parts {
        assert!(said.err.contains(part), "no {part:?} in: {}", said.err);
    }
    assert!(
        began.elapsed() < ERROR_MAX,
        "{:?}: {}",
        began.elapsed(),
        said.err
    );
    check_secret(world, &[&said.out, &said.err]);
}

/// The options with one of them changed.
fn with(
    options: &[(&'static str, String)],
    name: &'static str,
    value: &str,
) -> Vec<(&'static str, String)> {
    let others = options.iter().filter(|(found, _)| *found != name).cloned();
    others.chain([(name, value.to_owned())]).collect()
}

pub fn s3_refusals() {
    let world = World::new();
    let s3 = S3::start(world.dir.path());
    let (url, options) = (s3::url("p"), s3::options(s3.port));
    let refused = |url: &str, options: &[(&str, String)], parts: &[&str]| {
        refused(&world, &config(url, options), parts);
    };
    let wrong = with(&options, "aws_secret_access_key", "wrong");
    refused(
        &url,
        &wrong,
        &[
            "refuses the keys",
            "aws_secret_access_key",
            "[storage.options]",
        ],
    );
    let wrong = with(&options, "aws_access_key_id", "NOBODY");
    refused(&url, &wrong, &["refuses the keys", "aws_access_key_id"]);
    refused(
        "s3://not-there/p",
        &options,
        &["no such bucket", "not-there", "storage.url"],
    );
    let wrong = with(&options, "aws_endpoint", "http://127.0.0.1:1");
    refused(&url, &wrong, &["does not answer", "aws_endpoint"]);
    let wrong = with(&options, "allow_http", "false");
    refused(&url, &wrong, &["plain http", "allow_http = \"true\""]);
    let wrong = with(&options, "aws_acces_key", "x");
    refused(
        &url,
        &wrong,
        &["storage.options.aws_acces_key", "aws_access_key_id"],
    );
    let keys = format!("s3://{}:{SECRET_KEY}@{}/p", s3::ACCESS_KEY, s3::BUCKET);
    refused(&keys, &options, &["holds no keys", "[storage.options]"]);
}

pub fn gcs_refusals() {
    let world = World::new();
    let gcs = Gcs::start(world.dir.path());
    let (url, options) = (gcs::url("p"), gcs::options(gcs.wire.port));
    let refused = |url: &str, options: &[(&str, String)], parts: &[&str]| {
        refused(&world, &config(url, options), parts);
    };
    refused(
        "gs://not-there/p",
        &options,
        &["no such bucket", "not-there", "storage.url"],
    );
    let wrong = with(&options, "google_base_url", "http://127.0.0.1:1");
    refused(&url, &wrong, &["does not answer", "google_base_url"]);
    let wrong = with(&options, "google_service_account_key", "{}");
    refused(&url, &wrong, &["google_service_account_key"]);
}
