//! Servers that die, answers that do not come, and what is said when a store does not open.
//!
//! Called by: `main`. Invariants: secrets are in no text. Refuses: nothing.

use std::time::{Duration, Instant};

use rustmq_storage::{BreakerState, Store, StoreConfig};

use crate::bucket::{Bucket, Kind, append, check, open};
use crate::stores::s3;
use crate::stores::wire::Trouble;

const LARGE_ROWS: u64 = 20;
const LARGE_LEN: usize = 1 << 20;
/// An error at start comes within this time, although the client asks again.
const ERROR_MAX: Duration = Duration::from_secs(20);

/// Until the breaker opens; the text of the last failure.
async fn fail_until_open(store: &Store) -> String {
    loop {
        let error = store.tier(None).await.unwrap_err().to_string();
        let status = store.status();
        assert!(status.tier_breaker.failures > 0, "{status:?}");
        if status.tier_breaker.state == BreakerState::Open {
            return error;
        }
    }
}

/// Until what was kept back has gone up.
async fn tier_at_last(store: &Store) {
    let began = Instant::now();
    while let Err(error) = store.tier(None).await {
        assert!(began.elapsed() < ERROR_MAX, "{error}");
        tokio::task::yield_now().await;
    }
}

pub async fn a_server_killed_in_the_middle_of_an_upload(kind: Kind) {
    let mut bucket = Bucket::new(kind);
    let store = bucket.open("data").await;
    for _ in 0..LARGE_ROWS {
        append(&store, 1, LARGE_LEN).await;
    }
    // The second part does not arrive whole, and nothing arrives after it.
    let mut is_down = false;
    bucket.wire().rule(move |request| {
        let is_second = request.parameter("partNumber") == Some("2");
        match (is_down, is_second) {
            (true, _) => Some(Trouble::Reset),
            (false, true) => {
                is_down = true;
                Some(Trouble::Torn)
            }
            (false, false) => None,
        }
    });
    assert!(store.tier(None).await.is_err());
    assert_eq!(bucket.wire().fired()[&Trouble::Torn], 1);
    bucket.kill();
    let error = fail_until_open(&store).await;
    assert!(error.contains("tried again"), "{error}");
    check(&store, 0, LARGE_ROWS, LARGE_LEN).await;
    bucket.restart();
    bucket.wire().calm();
    tier_at_last(&store).await;
    let status = store.status();
    assert_eq!(status.tier_breaker.state, BreakerState::Closed);
    assert_eq!(status.partitions[0].tier_failure, None);
    let store = bucket.reopen_emptied(store, "data").await;
    check(&store, 0, LARGE_ROWS, LARGE_LEN).await;
    bucket.settle(store, "data").await;
}

/// Every put of a manifest goes wrong once, in every way there is.
pub async fn answers_that_are_lost_or_wrong(kind: Kind) {
    let bucket = Bucket::new(kind);
    let store = bucket.open("data").await;
    let troubles = [
        Trouble::LostAnswer,
        Trouble::WrongAnswer,
        Trouble::Status(409),
        Trouble::Status(503),
        Trouble::Reset,
        Trouble::Torn,
    ];
    let mut end = 0;
    for prefix in ["manifests", "data"] {
        for trouble in troubles {
            append(&store, 30, 60).await;
            end += 30;
            let mut left = Some(trouble);
            bucket.wire().rule(move |request| {
                let is_put = matches!(request.method.as_str(), "PUT" | "POST");
                let is_it = is_put && request.target.contains(prefix);
                is_it.then(|| left.take()).flatten()
            });
            tier_at_last(&store).await;
            bucket.wire().calm();
        }
    }
    let fired = bucket.wire().fired();
    assert!(
        troubles.iter().all(|trouble| fired[trouble] == 2),
        "{fired:?}"
    );
    let store = bucket.reopen_emptied(store, "data").await;
    check(&store, 0, end, 60).await;
    let store = bucket.settle(store, "data").await;
    check(&store, 0, end, 60).await;
}

/// The error of opening with this one option changed.
async fn refusal(config: &StoreConfig, name: &str, value: &str) -> String {
    let mut config = config.clone();
    config
        .tier_options
        .0
        .insert(name.to_owned(), value.to_owned());
    refused(config).await
}

async fn refused(config: StoreConfig) -> String {
    let began = Instant::now();
    let error = open(config).await.err().unwrap().to_string();
    assert!(
        began.elapsed() < ERROR_MAX,
        "{:?}: {error}",
        began.elapsed()
    );
    assert!(!error.contains(s3::SECRET_KEY), "{error}");
    error
}

fn names(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "no {part:?} in: {error}");
    }
}

pub async fn what_does_not_open_says_why(kind: Kind) {
    let bucket = Bucket::new(kind);
    let config = bucket.config("data");
    let (endpoint, scheme) = match kind {
        Kind::S3 => ("aws_endpoint", "s3"),
        Kind::Gcs => ("google_base_url", "gs"),
    };
    if kind == Kind::S3 {
        let secret = "wrong-but-secret-all-the-same";
        let error = refusal(&config, "aws_secret_access_key", secret).await;
        names(
            &error,
            &[
                "refuses the keys",
                "SignatureDoesNotMatch",
                "aws_secret_access_key",
            ],
        );
        assert!(!error.contains(secret), "{error}");
        let error = refusal(&config, "aws_access_key_id", "NOBODY").await;
        names(
            &error,
            &["refuses the keys", "aws_access_key_id", "AWS_ACCESS_KEY_ID"],
        );
    }
    // Nothing listens on port 1.
    let error = refusal(&config, endpoint, "http://127.0.0.1:1").await;
    names(&error, &["does not answer", endpoint, "[storage.options]"]);
    let error = refusal(&config, "allow_http", "false").await;
    names(&error, &["plain http", "allow_http"]);
    let error = refusal(&config, "colour", "red").await;
    names(&error, &["storage.options.colour", endpoint]);
    let mut elsewhere = config.clone();
    elsewhere.tier_url = Some(format!("{scheme}://no-such-bucket/x"));
    names(
        &refused(elsewhere).await,
        &["no such bucket", "storage.url", "no-such-bucket"],
    );
    // Nothing was kept of the tries.
    let store = bucket.open("data").await;
    append(&store, 3, 10).await;
    store.tier(None).await.unwrap();
    check(&store, 0, 3, 10).await;
}
