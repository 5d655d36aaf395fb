//! Modules that ask other services: what is granted, what is refused on `apply`, and a lane that is stopped
//! while its module waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use model::ids::Digest;
use wasm::http::grant::Rule;
use wasm::http::request::check;
use wasm::http::{Answer, Egress, Request, Response, Sending, Stopped};

use crate::tests::support::{World, done, until};
use crate::{CanaryError, Runtime, Until};

/// `tests/guests/asks`: a row is a request, its output the answer.
const ASKS: &[u8] = include_bytes!("../../../tests/guests/conformance/released/0.1.3-http.wasm");

/// Answers with the path; on `/hold` when it is told to, or never.
#[derive(Debug, Default)]
struct Echo {
    asked: AtomicUsize,
    let_go: AtomicBool,
}

impl Egress for Echo {
    fn refuses(&self, rule: &Rule) -> Option<String> {
        let refused = rule.host.to_string() == "refused.example";
        refused.then(|| "not from here".to_owned())
    }

    fn send(&self, sending: &Sending<'_>) -> Result<Vec<Answer>, Stopped> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let held = |request: &Request| request.url.ends_with("/hold");
        while sending.requests.iter().any(held) && !self.let_go.load(Ordering::SeqCst) {
            if sending.stop.is_set() {
                return Err(Stopped);
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        let answer = |request: &Request| {
            let request = check(request.clone(), sending.limits)?;
            sending.access.grant.rule(&request.method, &request.url)?;
            Ok(Response {
                status: 200,
                url: request.url.to_string(),
                headers: Vec::new(),
                body: request.url.path().into(),
            })
        };
        Ok(sending.requests.iter().map(answer).collect())
    }
}

fn world(echo: &Arc<Echo>) -> World {
    let host = wasm::Host::new(wasm::HostConfig {
        egress: Some(echo.clone()),
        ..wasm::HostConfig::default()
    });
    World {
        host: Arc::new(host.expect("the engine starts")),
        ..World::new()
    }
}

async fn apply(world: &World, runtime: &Runtime, grants: &str, digest: Digest) {
    let applied = world.apply(runtime, &yaml(grants), &[("m", digest)]).await;
    applied.unwrap_or_else(|d| panic!("{d:#?}"));
}

fn yaml(grants: &str) -> String {
    format!(
        "apiVersion: rustmq/v1alpha1\nkind: Pipeline\nmetadata: {{ name: p }}\n\
         topics:\n  in: {{ partitions: 1 }}\n  out: {{ partitions: 1 }}\n  bad: {{ partitions: 1 }}\n\
         modules:\n  m: {{ source: ./m, grants: {grants} }}\n\
         policy:\n  on-error: {{ then: {{ dead-letter: bad }} }}\n\
         nodes:\n  src: {{ kind: source, topic: in, start: earliest }}\n  \
         w: {{ kind: wasm, module: m, inputs: [src] }}\n  \
         o: {{ kind: sink, inputs: [w], topic: out }}\n"
    )
}

const GET: &str = "{ http: [{ host: a.example }] }";

#[tokio::test]
async fn answers_come_back_as_rows_and_what_is_denied_as_dead_letters() {
    let echo = Arc::new(Echo::default());
    let world = world(&echo);
    let runtime = world.runtime();
    let digest = world.module(ASKS.to_vec()).await;
    apply(&world, &runtime, GET, digest).await;
    let rows = [
        "GET https://a.example/one",
        "GET https://b.example/two",
        "POST https://a.example/ x",
    ];
    world.produce("in", 0, &rows);
    world.produce("in", 0, &["GET https://a.example/three"]);
    until(&runtime, |lanes| done(lanes) && lanes[0].position == 4).await;
    assert_eq!(world.values("out", 0), ["200 /one", "200 /three"]);
    assert_eq!(world.values("bad", 0), rows[1..]);
    let metrics = &runtime.status()[0].metrics["w"];
    assert_eq!(metrics["http.requests"], wasm::Metric::Counter { value: 4 });
    assert_eq!(metrics["http.failures"], wasm::Metric::Counter { value: 2 });
    runtime.shutdown().await;
}

#[tokio::test]
async fn what_is_not_granted_or_not_allowed_is_refused_on_apply() {
    let echo = Arc::new(Echo::default());
    let world = world(&echo);
    let runtime = world.runtime();
    let digest = world.module(ASKS.to_vec()).await;
    for (grants, says) in [
        (
            "{}",
            "p.yaml:9:16: error: module `m`: the module makes requests to other services \
             (rustmq:etl/http@0.1.3), which its entry under `modules` must grant: `grants: { http: [{ host: \
             api.example.com, methods: [GET] }] }`",
        ),
        (
            "{ http: [{ host: a.example }, { host: refused.example }] }",
            "p.yaml:9:59: error: module `m` cannot be granted this: not from here",
        ),
    ] {
        let refused = world.apply(&runtime, &yaml(grants), &[("m", digest)]).await;
        let refused = refused.map_err(|d| d.iter().map(ToString::to_string).collect());
        assert_eq!(refused, Err::<u64, Vec<String>>(vec![says.to_owned()]));
    }
}

#[tokio::test]
async fn a_lane_that_waits_for_an_answer_stops_and_asks_again_afterwards() {
    let echo = Arc::new(Echo::default());
    let world = world(&echo);
    let runtime = world.runtime();
    let digest = world.module(ASKS.to_vec()).await;
    apply(&world, &runtime, GET, digest).await;
    world.produce("in", 0, &["GET https://a.example/hold"]);
    while echo.asked.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    runtime.shutdown().await;
    assert_eq!(world.values("out", 0), [""; 0]);
    assert_eq!(world.values("bad", 0), [""; 0], "no row is to blame");
    echo.let_go.store(true, Ordering::SeqCst);
    let runtime = world.runtime();
    apply(&world, &runtime, GET, digest).await;
    until(&runtime, |lanes| done(lanes) && lanes[0].position == 1).await;
    assert_eq!(world.values("out", 0), ["200 /hold"]);
    assert_eq!(echo.asked.load(Ordering::SeqCst), 2);
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_canary_reads_and_does_not_write() {
    let echo = Arc::new(Echo::default());
    let world = world(&echo);
    let runtime = world.runtime();
    let digest = world.module(ASKS.to_vec()).await;
    let mut changed = ASKS.to_vec();
    changed.extend([0, 2, 1, b'x']);
    let candidate = world.module(changed).await;
    let writing = "{ http: [{ host: a.example }, { host: b.example, methods: [GET, POST] }] }";
    apply(&world, &runtime, writing, digest).await;
    let start = || runtime.canary_start("p", "w", candidate, Until::default());
    let refused = start().await.map_err(|error| match error {
        CanaryError::Writes { method } => method,
        other => panic!("{other}"),
    });
    assert_eq!(refused, Err("POST".to_owned()));
    apply(&world, &runtime, GET, digest).await;
    start().await.unwrap_or_else(|error| panic!("{error}"));
    until(&runtime, |lanes| lanes[0].generation == 2).await;
    world.produce("in", 0, &["GET https://a.example/one"]);
    until(&runtime, |lanes| done(lanes) && lanes[0].position == 1).await;
    let mut watch = runtime.watch();
    while runtime.canary("p").is_none_or(|report| report.records == 0) {
        watch.changed().await.expect("the runtime is there");
    }
    let report = runtime.canary("p").expect("a report");
    assert_eq!((report.records, report.same), (1, 1), "{report:?}");
    runtime.shutdown().await;
}
