//! Modules over typed columns: decoded once, written late, refused where the schemas do not fit.

use std::collections::BTreeMap;

use arrow::record_batch::RecordBatch;
use wasm::Metric;

use crate::Runtime;
use crate::tests::support::guest::{columns, columns_counting};
use crate::tests::support::{World, done, text, until};

const SCHEMA: &str = "{ codec: json, schema: { n: int64, s: string } }";

/// A pipeline over topic `in` with module `m`, these nodes behind the source `src`.
fn yaml(input: &str, nodes: &str) -> String {
    format!(
        "apiVersion: rustmq/v1alpha1\nkind: Pipeline\nmetadata: {{ name: p }}\n\
         topics:\n  in: {{ value: {input} }}\n  out: {{ value: {SCHEMA} }}\n  \
         rest: {{ value: json }}\n  bad: {{ partitions: 1 }}\n\
         modules:\n  m: {{ source: ./m }}\n\
         policy:\n  batch: {{ rows: 8, wait: 0ms }}\n  on-error: {{ then: {{ dead-letter: bad }} }}\n\
         nodes:\n  src: {{ kind: source, topic: in, start: earliest }}\n{nodes}"
    )
}

async fn apply(world: &World, yaml: &str) -> Result<Runtime, String> {
    let runtime = world.runtime();
    let digest = world.module(columns()).await;
    match world.apply(&runtime, yaml, &[("m", digest)]).await {
        Ok(_) => Ok(runtime),
        Err(found) => Err(found.iter().map(|d| format!("{d}\n")).collect()),
    }
}

/// What comes out on `out` and `rest`, and the dead letters as `value code node.port`.
async fn check(nodes: &str, values: &[&str], out: &[&str], rest: &[&str], letters: &[&str]) {
    let world = World::new();
    let applied = apply(&world, &yaml(SCHEMA, nodes)).await;
    let runtime = applied.unwrap_or_else(|e| panic!("{e}"));
    world.produce("in", 0, values);
    until(&runtime, done).await;
    assert_eq!(world.values("out", 0), out);
    assert_eq!(world.values("rest", 0), rest);
    let rows = world.log.rows(world.partition("bad", 0));
    let header = |name: &str, i: usize| text(Some(rows.header(name).value(i)));
    let letter = |i: usize| {
        let (code, node) = (header("rustmq.code", i), header("rustmq.node", i));
        let value = text(rows.record(i).value);
        format!("{value} {code} {node}.{}", header("rustmq.port", i))
    };
    let found: Vec<String> = (0..rows.len()).map(letter).collect();
    assert_eq!(found, letters);
    let status = runtime.status().pop().expect("the pipeline runs");
    let good = values.len() - letters.len();
    let counted = BTreeMap::from([("rows".to_string(), Metric::Counter { value: good as u64 })]);
    for (node, metrics) in &status.metrics {
        assert_eq!(metrics, &counted, "{node}");
    }
    let modules: Vec<&String> = status.metrics.keys().collect();
    assert_eq!(
        modules,
        ["v", "w"].split_at(usize::from(!nodes.contains("  v: "))).1
    );
}

const ROWS: [&str; 6] = [
    r#"{"s":"one","n":1}"#,
    r#"{"n": 2, "more": []}"#,
    r#"{"n":"3"}"#,
    r#"{"n":4,"s":"trap"}"#,
    "{",
    r#"{"s":null,"n":5}"#,
];

#[tokio::test]
async fn rows_go_in_and_out_as_columns() {
    let nodes = "  w: { kind: wasm, module: m, inputs: [src],\n      \
                 outputs: { out: { schema: out }, pass: {} } }\n  \
                 o: { kind: sink, inputs: [w], topic: out }\n  \
                 r: { kind: sink, inputs: [w.pass], topic: rest }\n";
    check(
        nodes,
        &ROWS,
        &[
            r#"{"n":1,"s":"one"}"#,
            r#"{"n":2,"s":null}"#,
            r#"{"n":5,"s":null}"#,
        ],
        &[ROWS[0], ROWS[1], ROWS[5]],
        &[
            r#"{"n":"3"} schema src.out"#,
            r#"{"n":4,"s":"trap"} trap w.src"#,
            "{ schema src.out",
        ],
    )
    .await;
}

/// The rows on `out` and `rest`, and the dead letters, for an input and a port that says a topic.
async fn check_misfits(input: &str, out: &str, nodes: &str, made: [&[&str]; 3]) {
    let before = format!("  out: {{ value: {SCHEMA} }}");
    let yaml = yaml(input, nodes).replace(&before, &format!("  out: {{ value: {out} }}"));
    let world = World::new();
    let runtime = apply(&world, &yaml).await.unwrap_or_else(|e| panic!("{e}"));
    world.produce("in", 0, &ROWS[..3]);
    until(&runtime, done).await;
    let found = ["out", "rest", "bad"].map(|topic| world.values(topic, 0));
    assert_eq!(found, made, "{input} {out}");
}

#[tokio::test]
async fn a_module_gets_nulls_of_misfits_where_the_topic_says_so() {
    let lenient = SCHEMA.replacen("codec:", "misfits: nulls, codec:", 1);
    let nodes = "  w: { kind: wasm, module: m, inputs: [src],\n      \
                 outputs: { out: { schema: out }, pass: { schema: out } } }\n  \
                 f: { kind: filter, inputs: [w.pass], where: \"n is null or n > 1\" }\n  \
                 o: { kind: sink, inputs: [w], topic: out }\n  \
                 r: { kind: sink, inputs: [f], topic: rest }\n";
    let (one, two) = (r#"{"n":1,"s":"one"}"#, r#"{"n":2,"s":null}"#);
    let (misfit, none) = (ROWS[2], r#"{"n":null,"s":null}"#);
    let strict: [&[&str]; 3] = [&[one, two], &[ROWS[1]], &[misfit]];
    check_misfits(SCHEMA, SCHEMA, nodes, strict).await;
    // the input's topic decides about the input, whatever the port's says
    check_misfits(SCHEMA, &lenient, nodes, strict).await;
    let nulls: [&[&str]; 3] = [&[one, two, none], &[ROWS[1], misfit], &[]];
    check_misfits(&lenient, &lenient, nodes, nulls).await;
    // the port's topic decides about what is passed on to it, and its record is given up there
    let port: [&[&str]; 3] = [&[one, two, none], &[ROWS[1]], &[misfit]];
    check_misfits(&lenient, SCHEMA, nodes, port).await;
}

#[tokio::test]
async fn topics_of_columns_are_neither_decoded_nor_encoded() {
    let nodes = "  w: { kind: wasm, module: m, inputs: [src],\n      \
                 outputs: { out: { schema: out }, pass: {} } }\n  \
                 o: { kind: sink, inputs: [w], topic: out }\n  \
                 r: { kind: sink, inputs: [w.pass], topic: rest }\n";
    let kept = "{ codec: columns, schema: { n: int64, s: string } }";
    let out = |value: &str| format!("  out: {{ value: {value} }}");
    let yaml = yaml(kept, nodes).replace(&out(SCHEMA), &out(kept));
    let world = World::new();
    let runtime = apply(&world, &yaml).await.unwrap_or_else(|e| panic!("{e}"));
    world.produce("in", 0, &ROWS);
    until(&runtime, done).await;
    let made = [
        r#"{"n":1,"s":"one"}"#,
        r#"{"n":2,"s":null}"#,
        r#"{"n":5,"s":null}"#,
    ];
    assert_eq!(world.values("rest", 0), made);
    let rows = world.log.rows(world.partition("out", 0));
    let columns = rows.columns.expect("the topic keeps columns");
    let fields = ["n", "s"].into_iter().zip(columns.arrays().iter().cloned());
    let columns = RecordBatch::try_from_iter(fields).expect("they are even");
    let json = codec::encode_json(&columns).expect("they are few");
    let found: Vec<String> = json.iter().map(text).collect();
    assert_eq!(found, made);
    assert_eq!(world.log.rows(world.partition("bad", 0)).len(), 3);
}

#[tokio::test]
async fn rows_that_a_port_has_no_form_for_are_reported_there() {
    let nodes = "  w: { kind: wasm, module: m, inputs: [src],\n      \
                 outputs: { out: { schema: out }, pass: {} } }\n  \
                 o: { kind: sink, inputs: [w], topic: out }\n  \
                 r: { kind: sink, inputs: [w.pass], topic: rest }\n";
    let avro = "{ codec: avro, schema: { type: record, name: r, fields: [ \
                { name: n, type: long }, { name: s, type: string } ] } }";
    let out = |value: &str| format!("  out: {{ value: {value} }}");
    let yaml = yaml(SCHEMA, nodes).replace(&out(SCHEMA), &out(avro));
    let world = World::new();
    let runtime = apply(&world, &yaml).await.unwrap_or_else(|e| panic!("{e}"));
    world.produce("in", 0, &ROWS[..2]);
    until(&runtime, done).await;
    assert_eq!(world.values("out", 0), ["\x02\x06one"]);
    assert_eq!(world.values("rest", 0), ROWS[..2]);
    let rows = world.log.rows(world.partition("bad", 0));
    let header = |name: &str| text(Some(rows.header(name).value(0)));
    let place = [
        header("rustmq.code"),
        header("rustmq.node"),
        header("rustmq.port"),
    ];
    assert_eq!(place, ["schema", "w", "out"]);
    let message = "field `s` (Avro string): it is null, and the schema has no null there";
    assert_eq!(header("rustmq.message"), message);
}

#[tokio::test]
async fn neighbours_and_expressions_work_on_the_same_columns() {
    let nodes = "  w: { kind: wasm, module: m, inputs: [src], outputs: { out: { schema: out }, \
                 pass: { schema: out } } }\n  \
                 v: { kind: wasm, module: m, inputs: [w], outputs: { out: {}, pass: {} } }\n  \
                 f: { kind: filter, inputs: [w.pass], where: \"n > 1\" }\n  \
                 g: { kind: filter, inputs: [v], where: \"_value_text like '%one%'\" }\n  \
                 x: { kind: map, inputs: [f], select: { n: n, s: \"coalesce(s, '-')\" } }\n  \
                 o: { kind: sink, inputs: [x, v.pass], topic: out }\n  \
                 r: { kind: sink, inputs: [g], topic: rest }\n";
    check(
        nodes,
        &ROWS[..2],
        &[
            r#"{"n":1,"s":"one"}"#,
            r#"{"n":2,"s":"-"}"#,
            r#"{"n":2,"s":null}"#,
        ],
        &[r#"{"n":1,"s":"one"}"#],
        &[],
    )
    .await;
}

#[tokio::test]
async fn a_float_that_is_not_finite_is_null_before_it_is_written() {
    let nodes = "  w: { kind: wasm, module: m, inputs: [src],\n      \
                 outputs: { out: { schema: out }, pass: {} } }\n  \
                 x: { kind: map, inputs: [src], select: { n: n, f: \"1e308 * 10.0 * n\" } }\n  \
                 g: { kind: filter, inputs: [x], where: \"f is null\" }\n  \
                 o: { kind: sink, inputs: [w], topic: out }\n  \
                 r: { kind: sink, inputs: [g], topic: rest }\n";
    check(
        nodes,
        &ROWS[..1],
        &[r#"{"n":1,"s":"one"}"#],
        &[r#"{"n":1,"f":null}"#],
        &[],
    )
    .await;
}

#[tokio::test]
async fn numbers_are_those_of_a_generation() {
    let nodes = "  w: { kind: wasm, module: m, inputs: [src],\n      \
                 outputs: { out: { schema: out }, pass: {} } }\n  \
                 o: { kind: sink, inputs: [w], topic: out }\n  \
                 r: { kind: sink, inputs: [w.pass], topic: rest }\n";
    let world = World::new();
    let yaml = yaml(SCHEMA, nodes);
    let runtime = apply(&world, &yaml).await.unwrap_or_else(|e| panic!("{e}"));
    let counted = || runtime.status().pop().expect("it runs").metrics["w"].clone();
    let one = |name: &str, value| BTreeMap::from([(name.to_string(), Metric::Counter { value })]);
    world.produce("in", 0, &ROWS[..2]);
    until(&runtime, done).await;
    assert_eq!(counted(), one("rows", 2));
    let second = world.module(columns_counting("seen")).await;
    let applied = world.apply(&runtime, &yaml, &[("m", second)]).await;
    applied.unwrap_or_else(|d| panic!("{d:#?}"));
    until(&runtime, |lanes| lanes[0].generation == 2).await;
    // it has committed nothing yet: the numbers are those of the one before
    assert_eq!(counted(), one("rows", 2));
    world.produce("in", 0, &ROWS[..1]);
    until(&runtime, |lanes| {
        done(lanes) && lanes[0].handovers.len() == 1
    })
    .await;
    assert_eq!(counted(), one("seen", 1));
}

#[tokio::test]
async fn columns_that_are_not_there_are_refused_on_apply() {
    let nodes = "  w: { kind: wasm, module: m, inputs: [src], outputs: [out, pass] }\n  \
                 o: { kind: sink, inputs: [w], topic: rest }\n";
    let refused = async |input: &str, nodes: &str| {
        let error = apply(&World::new(), &yaml(input, nodes)).await.err();
        error.unwrap_or_else(|| "it was applied".into())
    };
    let text = refused("json", nodes).await;
    assert!(
        text.contains("input `src` has no schema, so it has no columns"),
        "{text}"
    );
    let text = refused("{ codec: json, schema: { s: string } }", nodes).await;
    assert!(
        text.contains("`src` has no field `n`; it has s: string"),
        "{text}"
    );
    let narrow = nodes.replace("[out, pass]", "{ out: { schema: { n: int64 } }, pass: {} }");
    let text = refused(SCHEMA, &narrow).await;
    assert!(
        text.contains("output `out` has no field `s`; its schema is n: int64"),
        "{text}"
    );
    assert_eq!(refused(SCHEMA, nodes).await, "it was applied");
}
