//! Built-in operators, dead letters and policies.

use model::topic::TopicSpec;

use crate::tests::support::{Fate, World, done, text, until};
use crate::{LaneState, Runtime};

const TYPED: &str = "{ codec: json, schema: { a: int64, b: string } }";

fn pipeline(policy: &str, nodes: &str) -> String {
    format!(
        "apiVersion: rustmq/v1alpha1\nkind: Pipeline\nmetadata: {{ name: p }}\n\
         topics:\n  in: {{ partitions: 1, value: {TYPED} }}\n  out: {{ partitions: 1 }}\n  \
         spread: {{ partitions: 4 }}\n  bad: {{ partitions: 1 }}\n\
         policy: {{ batch: {{ rows: 3, wait: 0ms }}, on-error: {{ {policy} }} }}\n\
         nodes:\n  src: {{ kind: source, topic: in, start: earliest }}\n{nodes}"
    )
}

const DEAD: &str = "then: { dead-letter: bad }";

/// Runs a pipeline over values and shows what is in a topic.
async fn check(yaml: &str, values: &[&str], topic: &str, expected: &[&str]) -> (World, Runtime) {
    let world = World::new();
    let runtime = world.runtime();
    world
        .apply(&runtime, yaml, &[])
        .await
        .unwrap_or_else(|d| panic!("{d:#?}"));
    world.produce("in", 0, values);
    until(&runtime, done).await;
    assert_eq!(world.values(topic, 0), expected);
    (world, runtime)
}

#[tokio::test]
async fn filter_map_route() {
    let values = [
        r#"{"a":1,"b":"x"}"#,
        r#"{"a":20}"#,
        r#"{"b":"y"}"#,
        r#"{"a":3,"b":null}"#,
    ];
    let nodes = "  f: { kind: filter, inputs: [src], where: \"a < 10\" }\n  \
                 o: { kind: sink, inputs: [f], topic: out }\n";
    check(
        &pipeline("", nodes),
        &values,
        "out",
        &[values[0], values[3]],
    )
    .await;
    let nodes = "  m: { kind: map, inputs: [src], select: { twice: \"a * 2\", b: b } }\n  \
                 f: { kind: filter, inputs: [m], where: \"twice > 2\" }\n  \
                 o: { kind: sink, inputs: [f], topic: out }\n";
    let expected = [r#"{"twice":40,"b":null}"#, r#"{"twice":6,"b":null}"#];
    check(&pipeline("", nodes), &values, "out", &expected).await;
    let nodes = "  r: { kind: route, inputs: [src], cases: { low: \"a < 10\", x: \"b = 'y'\" }, \
else: rest }\n  \
                 s: { kind: sink, inputs: [r.low], topic: spread }\n  \
                 o: { kind: sink, inputs: [r.rest, r.x], topic: out }\n";
    // Two outputs of one source meet again in its order.
    check(
        &pipeline("", nodes),
        &values,
        "out",
        &[values[1], values[2]],
    )
    .await;
}

#[tokio::test]
async fn keys_choose_partitions() {
    let values: Vec<String> = (0..40)
        .map(|i| format!(r#"{{"a":{i},"b":"k{}"}}"#, i % 5))
        .collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let nodes = "  s: { kind: sink, inputs: [src], topic: spread, key: b }\n  \
                 o: { kind: sink, inputs: [src], topic: out }\n";
    let (world, _runtime) = check(&pipeline("", nodes), &values, "out", &values).await;
    let mut seen = 0;
    for index in 0..4 {
        let rows = world.log.rows(world.partition("spread", index));
        seen += rows.len();
        for record in rows.records() {
            let key = record.key.expect("every row has a key");
            assert_eq!(model::hash::partition_for_key(key, 4), index);
        }
    }
    assert_eq!(seen, 40);
}

#[tokio::test]
async fn dead_letters_say_where_they_come_from() {
    let values = [
        r#"{"a":2}"#,
        "oops",
        r#"{"a":0}"#,
        r#"{"a":"x"}"#,
        r#"{"a":5}"#,
    ];
    let nodes = "  f: { kind: filter, inputs: [src], where: \"10 / a > 1\" }\n  \
                 o: { kind: sink, inputs: [f], topic: out }\n";
    let (world, runtime) = check(
        &pipeline(DEAD, nodes),
        &values,
        "out",
        &[values[0], values[4]],
    )
    .await;
    let rows = world.log.rows(world.partition("bad", 0));
    let show = |i: usize| {
        let record = rows.record(i);
        let headers = record
            .headers
            .map(|(n, v)| format!("{}={}", n.replace("rustmq.", ""), text(v)));
        format!(
            "{} {}",
            text(record.value),
            headers.collect::<Vec<_>>().join(" ")
        )
    };
    let shown: Vec<String> = (0..rows.len()).map(show).collect();
    assert_eq!(shown.len(), 3, "{shown:#?}");
    assert!(
        shown[0].starts_with("oops pipeline=p node=src port=out code=schema message=not JSON"),
        "{}",
        shown[0]
    );
    assert!(
        shown[0].ends_with("attempt=1 topic=in partition=0 offset=1 module="),
        "{}",
        shown[0]
    );
    assert!(
        shown[1].starts_with("{\"a\":0} pipeline=p node=f port=src code=expression message="),
        "{}",
        shown[1]
    );
    assert!(shown[1].contains("zero"), "{}", shown[1]);
    assert!(shown[2].contains("offset=3"), "{}", shown[2]);
    let lanes = until(&runtime, done).await;
    assert_eq!(
        (lanes[0].rows_in, lanes[0].rows_out, lanes[0].rejected),
        (5, 2, 3)
    );
}

#[tokio::test]
async fn stop_and_drop() {
    let values = [r#"{"a":2}"#, r#"{"a":0}"#, r#"{"a":5}"#];
    let nodes = "  f: { kind: filter, inputs: [src], where: \"10 / a > 1\" }\n  \
                 o: { kind: sink, inputs: [f], topic: out }\n";
    let expected = [values[0], values[2]];
    let (_world, runtime) = check(&pipeline("then: drop", nodes), &values, "out", &expected).await;
    assert_eq!(until(&runtime, done).await[0].dropped, 1);

    let world = World::new();
    let runtime = world.runtime();
    world
        .apply(&runtime, &pipeline("then: stop", nodes), &[])
        .await
        .unwrap();
    world.produce("in", 0, &values);
    let stopped = |s: &LaneState| matches!(s, LaneState::Stopped { .. });
    let lanes = until(&runtime, |lanes| stopped(&lanes[0].state)).await;
    assert_eq!(lanes[0].position, 1);
    assert!(
        lanes[0]
            .state
            .to_string()
            .starts_with("stopped: node `f` rejected a record (expression): "),
        "{}",
        lanes[0].state
    );
    assert_eq!(world.values("out", 0), [values[0]]);
    // A changed pipeline goes on where the lane stopped.
    world
        .apply(&runtime, &pipeline("then: drop", nodes), &[])
        .await
        .unwrap();
    until(&runtime, done).await;
    assert_eq!(world.values("out", 0), expected);
}

#[tokio::test]
async fn failures_restarts_and_large_commits() {
    let values: Vec<String> = (0..60).map(|i| format!(r#"{{"a":{i}}}"#)).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let nodes = "  o: { kind: sink, inputs: [src], topic: out }\n";
    let world = World::new();
    let runtime = world.runtime();
    world
        .apply(&runtime, &pipeline("", nodes), &[])
        .await
        .unwrap();
    world.log.fates([
        Fate::Late,
        Fate::Done,
        Fate::Refused,
        Fate::Done,
        Fate::Late,
        Fate::Refused,
    ]);
    world.log.rows_max(2);
    world.produce("in", 0, &values[..30]);
    until(&runtime, done).await;
    runtime.shutdown().await;
    world.produce("in", 0, &values[30..]);
    let again = world.runtime();
    world
        .apply(&again, &pipeline("", nodes), &[])
        .await
        .unwrap();
    until(&again, done).await;
    assert_eq!(world.values("out", 0), values);
}

/// Commits for 40,000 rows under a policy of batches; that they are all there is seen to.
async fn commits_of_a_backlog(batch: &str) -> u64 {
    let values: Vec<String> = (0..40_000).map(|i| format!("{{\"a\":{i}}}")).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let nodes = "  o: { kind: sink, inputs: [src], topic: out }\n";
    let yaml = pipeline("", nodes).replace("rows: 3, wait: 0ms", batch);
    let (world, runtime) = check(&yaml, &values[..1], "out", &values[..1]).await;
    for some in values[1..].chunks(700) {
        world.produce("in", 0, some);
    }
    let all = |l: &[crate::LaneStatus]| done(l) && l[0].position == 40_000;
    let commits = until(&runtime, all).await[0].commits;
    assert_eq!(world.values("out", 0), values);
    commits
}

#[tokio::test]
async fn a_lane_that_is_behind_takes_more_rows_at_once() {
    let commits = commits_of_a_backlog("wait: 0ms").await;
    assert!(commits < 40, "{commits} commits");
    let commits = commits_of_a_backlog("rows: 1000, wait: 0ms").await;
    assert!(commits >= 40, "{commits} commits");
}

#[tokio::test]
async fn positions_start_forget_and_trim() {
    let nodes = "  o: { kind: sink, inputs: [src], topic: out }\n";
    let world = World::new();
    let spec = TopicSpec {
        codec: model::topic::PayloadCodec::Json,
        ..TopicSpec::default()
    };
    world.topic("in", spec);
    world.produce("in", 0, &["1", "2", "3", "4"]);
    let yaml = pipeline("", nodes)
        .replace(TYPED, "json")
        .replace("earliest", "\"1970-01-01T00:00:00.000002Z\"");
    let runtime = world.runtime();
    world.apply(&runtime, &yaml, &[]).await.unwrap();
    until(&runtime, done).await;
    assert_eq!(world.values("out", 0), ["3", "4"]);
    let position = world
        .log
        .position_of("_pipeline.p.src", world.partition("in", 0))
        .unwrap();
    assert_eq!(
        (position.offset, position.metadata.as_str()),
        (4, "generation=1")
    );

    let moved = world
        .apply(
            &runtime,
            &yaml.replace("start:", "start: earliest } #"),
            &[],
        )
        .await;
    let moved = moved.unwrap_err();
    assert_eq!(
        moved[0].to_string(),
        "p.yaml:1:1: error: this change cannot be taken while the \
pipeline exists: node src: start 1970-01-01T00:00:00.000002Z -> earliest \
(delete the pipeline first, then apply it again)"
    );
    runtime.remove("p").await.unwrap();
    assert!(!runtime.remains("p"));
    let command = model::catalog::Command::PipelineDelete { name: "p".into() };
    world.catalog_apply(&command);
    world.log.trim(world.partition("in", 0), 1);
    world
        .apply(
            &runtime,
            &yaml.replace("start:", "start: earliest } #"),
            &[],
        )
        .await
        .unwrap();
    until(&runtime, done).await;
    assert_eq!(world.values("out", 0), ["3", "4", "2", "3", "4"]);
}

#[tokio::test]
async fn what_retention_took_is_said() {
    let nodes = "  o: { kind: sink, inputs: [src], topic: out }\n";
    let yaml = pipeline("", nodes).replace(TYPED, "json");
    let (world, runtime) = check(&yaml, &["1", "2", "3", "4"], "out", &["1", "2", "3", "4"]).await;
    runtime.shutdown().await;
    world.produce("in", 0, &["5", "6"]);
    world.log.trim(world.partition("in", 0), 5);
    let again = world.runtime();
    world.apply(&again, &yaml, &[]).await.unwrap();
    let lanes = until(&again, done).await;
    assert_eq!(world.values("out", 0).last().unwrap(), "6");
    let fault = lanes[0].fault.as_deref();
    assert_eq!(
        fault,
        Some("records 4 to 4 were removed by retention before they were read")
    );
}
