//! Topics of CSV, Avro and columns: read and written as columns, and between codecs.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use model::rows::{Rows, RowsBuilder, TypedColumns};
use model::schema::Schema;

use crate::tests::support::{World, done, text, until};

const JSON: &str = "{ codec: json, schema: { a: int64, b: string } }";
const CSV: &str = "{ codec: csv, schema: [{ name: a, type: int64 }, { name: b, type: string }] }";
/// The same fields the other way round, and one more.
const WIDE: &str = "{ codec: csv, schema: [{ name: b, type: string }, { name: c, type: bool }, \
                    { name: a, type: float64 }] }";

fn pipeline(input: &str, output: &str, nodes: &str) -> String {
    format!(
        "apiVersion: rustmq/v1alpha1\nkind: Pipeline\nmetadata: {{ name: p }}\n\
         topics:\n  in: {{ value: {input} }}\n  out: {{ value: {output} }}\n  bad: {{}}\n\
         policy: {{ batch: {{ rows: 3, wait: 0ms }}, on-error: {{ then: {{ dead-letter: bad }} }} }}\n\
         nodes:\n  src: {{ kind: source, topic: in, start: earliest }}\n{nodes}"
    )
}

const STRAIGHT: &str = "  o: { kind: sink, inputs: [src], topic: out }\n";

/// The dead letters, each as `value | message`.
fn found_letters(world: &World) -> Vec<String> {
    let rows = world.log.rows(world.partition("bad", 0));
    let letter = |i: usize| {
        let message = text(Some(rows.header("rustmq.message").value(i)));
        format!("{} | {message}", text(rows.record(i).value))
    };
    (0..rows.len()).map(letter).collect()
}

/// Values in; what is on `out`, and the dead letters with their messages, out.
async fn check(yaml: &str, values: &[&str], out: &[&str], letters: &[&str]) {
    let world = World::new();
    let runtime = world.runtime();
    let applied = world.apply(&runtime, yaml, &[]).await;
    applied.unwrap_or_else(|d| panic!("{d:#?}"));
    world.produce("in", 0, values);
    until(&runtime, done).await;
    assert_eq!(world.values("out", 0), out);
    assert_eq!(found_letters(&world), letters);
}

#[tokio::test]
async fn csv_goes_through_operators_as_it_is() {
    let nodes = "  f: { kind: filter, inputs: [src], where: \"a < 10\" }\n  \
                 o: { kind: sink, inputs: [f], topic: out, key: b }\n";
    let values = ["1,\"x\"", "20,y", "3,", "4", "5,z\n"];
    let letters = ["4 | the schema has 2 fields, the row 1"];
    check(
        &pipeline(CSV, CSV, nodes),
        &values,
        &["1,\"x\"", "3,", "5,z\n"],
        &letters,
    )
    .await;
}

#[tokio::test]
async fn a_sink_writes_in_the_codec_of_its_topic() {
    let json = [r#"{"b":"x, y","a":1}"#, r#"{"a":null,"b":""}"#, "{", "{}"];
    let letters = ["{ | not JSON: the text ends too early at byte 1"];
    let csv = ["1,\"x, y\"", ",\"\"", ","];
    check(&pipeline(JSON, CSV, STRAIGHT), &json, &csv, &letters).await;
    let wide = ["\"x, y\",,1.0", "\"\",,", ",,"];
    check(&pipeline(JSON, WIDE, STRAIGHT), &json, &wide, &letters).await;
    check(&pipeline(CSV, WIDE, STRAIGHT), &csv, &wide, &[]).await;
    let back = [
        r#"{"a":1,"b":"x, y"}"#,
        r#"{"a":null,"b":""}"#,
        r#"{"a":null,"b":null}"#,
    ];
    check(&pipeline(CSV, JSON, STRAIGHT), &csv, &back, &[]).await;
    let nodes = "  m: { kind: map, inputs: [src], select: { b: \"b\", a: \"a * 2\" } }\n  \
                 o: { kind: sink, inputs: [m], topic: out }\n";
    check(
        &pipeline(JSON, CSV, nodes),
        &json,
        &["2,\"x, y\"", ",\"\"", ","],
        &letters,
    )
    .await;
}

fn lenient(value: &str) -> String {
    value.replacen("codec:", "misfits: nulls, codec:", 1)
}

#[tokio::test]
async fn misfits_are_nulls_where_the_topic_says_so() {
    let json = [
        r#"{"a":1,"b":"x"}"#,
        r#"{"a":"1","b":"y"}"#,
        "{",
        r#"{"a":2}"#,
    ];
    let letters = [
        "{\"a\":\"1\",\"b\":\"y\"} | field `a` (int64): expected an integer, found string \"1\"",
        "{ | not JSON: the text ends too early at byte 1",
    ];
    let kept = "  f: { kind: filter, inputs: [src], where: \"a is null or a = 1\" }\n  \
                o: { kind: sink, inputs: [f], topic: out }\n";
    check(&pipeline(JSON, JSON, kept), &json, &json[..1], &letters).await;
    check(
        &pipeline(&lenient(JSON), JSON, kept),
        &json,
        &json[..3],
        &[],
    )
    .await;
    // what is written anew is written from the columns; in what a field says, the bytes are whole
    let made = "  m: { kind: map, inputs: [src], select: { a: a, b: \"_value_text\" } }\n  \
                o: { kind: sink, inputs: [m], topic: out }\n";
    let mapped = [
        r#"{"a":1,"b":"{\"a\":1,\"b\":\"x\"}"}"#,
        r#"{"a":null,"b":"{\"a\":\"1\",\"b\":\"y\"}"}"#,
        r#"{"a":null,"b":"{"}"#,
        r#"{"a":2,"b":"{\"a\":2}"}"#,
    ];
    check(&pipeline(&lenient(JSON), JSON, made), &json, &mapped, &[]).await;
    let csv = ["1,x", ",", ",", "2,"];
    check(&pipeline(&lenient(JSON), CSV, STRAIGHT), &json, &csv, &[]).await;
    let rows = ["1,x", "one,y", "2"];
    let again = [
        r#"{"a":1,"b":"x"}"#,
        r#"{"a":null,"b":null}"#,
        r#"{"a":null,"b":null}"#,
    ];
    check(&pipeline(&lenient(CSV), JSON, STRAIGHT), &rows, &again, &[]).await;
    let datums = ["\x02\x02\x02x", "\x02\x02\x02"];
    check(
        &pipeline(&lenient(AVRO), JSON, STRAIGHT),
        &datums,
        &again[..2],
        &[],
    )
    .await;
}

#[tokio::test]
async fn what_a_sink_cannot_write_is_a_dead_letter_whatever_its_topic_says() {
    let json = [r#"{"b":"x","a":1}"#, r#"{"a":1}"#, "{"];
    let message = "field `b` (Avro string): it is null, and the schema has no null there";
    let letters = [
        format!("{{\"a\":1}} | {message}"),
        format!("{{ | {message}"),
    ];
    let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
    let yaml = pipeline(&lenient(JSON), &lenient(AVRO), STRAIGHT);
    check(&yaml, &json, &["\x02\x02\x02x"], &letters).await;
}

#[tokio::test]
async fn each_input_has_the_misfits_of_its_own_topic() {
    let nodes = "  also: { kind: source, topic: more, start: earliest }\n  \
                 f: { kind: filter, inputs: [src, also], where: \"a is null\" }\n  \
                 o: { kind: sink, inputs: [f], topic: out }\n";
    let yaml = pipeline(CSV, CSV, nodes).replace(
        "  bad: {}",
        &format!("  more: {{ value: {} }}\n  bad: {{}}", lenient(CSV)),
    );
    let world = World::new();
    let runtime = world.runtime();
    let applied = world.apply(&runtime, &yaml, &[]).await;
    applied.unwrap_or_else(|d| panic!("{d:#?}"));
    world.produce("in", 0, &["one,x"]);
    world.produce("more", 0, &["two,y"]);
    until(&runtime, done).await;
    assert_eq!(world.values("out", 0), ["two,y"]);
    assert_eq!(found_letters(&world).len(), 1);
}

#[tokio::test]
async fn values_of_different_codecs_do_not_meet() {
    let nodes = "  m: { kind: map, inputs: [src], select: { a: a, b: b } }\n  \
                 o: { kind: sink, inputs: [src, m], topic: out }\n";
    let world = World::new();
    let runtime = world.runtime();
    let refused = world.apply(&runtime, &pipeline(CSV, CSV, nodes), &[]).await;
    let found: Vec<String> = refused
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(
        found[0].contains("its inputs have values of different codecs"),
        "{found:#?}"
    );
}

const AVRO: &str = "{ codec: avro, schema: { type: record, name: r, fields: [ \
                    { name: a, type: [\"null\", int] }, { name: b, type: string } ] } }";

#[tokio::test]
async fn avro_goes_through_operators_as_it_is() {
    let nodes = "  f: { kind: filter, inputs: [src], where: \"a < 10\" }\n  \
                 o: { kind: sink, inputs: [f], topic: out, key: b }\n";
    // {1, "x"}, {20, "y"}, {null, "z"}, cut short, {5, ""}
    let values = [
        "\x02\x02\x02x",
        "\x02\x28\x02y",
        "\0\x02z",
        "\x02\x02\x02",
        "\x02\x0a\0",
    ];
    let letters = [
        "\x02\x02\x02 | not Avro of the topic's schema: field `b` (string): it needs 1 \
                    bytes and 0 are left, at byte 2",
    ];
    check(
        &pipeline(AVRO, AVRO, nodes),
        &values,
        &["\x02\x02\x02x", "\x02\x0a\0"],
        &letters,
    )
    .await;
}

#[tokio::test]
async fn a_row_that_the_schema_has_no_form_for_is_a_dead_letter_of_the_sink() {
    let json = [
        r#"{"b":"x","a":1}"#,
        r#"{"a":1}"#,
        r#"{"b":"","a":3000000000}"#,
    ];
    let avro = ["\x02\x02\x02x"];
    let letters = [
        "{\"a\":1} | field `b` (Avro string): it is null, and the schema has no null there",
        "{\"b\":\"\",\"a\":3000000000} | field `a` (Avro int): 3000000000 has more than 32 bits",
    ];
    check(&pipeline(JSON, AVRO, STRAIGHT), &json, &avro, &letters).await;
    let back = [r#"{"a":1,"b":"x"}"#];
    check(&pipeline(AVRO, JSON, STRAIGHT), &avro, &back, &[]).await;
    let nodes = "  m: { kind: map, inputs: [src], select: { b: \"b\", a: \"a * 2\" } }\n  \
                 o: { kind: sink, inputs: [m], topic: out }\n";
    let doubled = ["\x02\x04\x02x"];
    check(&pipeline(AVRO, AVRO, nodes), &avro, &doubled, &[]).await;
}

#[tokio::test]
async fn a_field_that_is_missing_and_never_null_is_a_mistake_of_the_file() {
    let nodes = "  m: { kind: map, inputs: [src], select: { a: a } }\n  \
                 o: { kind: sink, inputs: [m], topic: out }\n";
    let world = World::new();
    let runtime = world.runtime();
    let refused = world
        .apply(&runtime, &pipeline(JSON, AVRO, nodes), &[])
        .await;
    let found: Vec<String> = refused
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect();
    let message =
        "topic `out` has a field `b` that is not here, and its Avro schema has no null there";
    assert!(found.iter().any(|d| d.contains(message)), "{found:#?}");
}

const COLUMNS: &str = "{ codec: columns, schema: { a: int64, b: string } }";

/// Values in; what is on `out` as JSON of its columns, and the dead letters with their messages, out.
async fn check_columns(yaml: &str, values: &[&str], out: &[&str], letters: &[&str]) {
    let world = World::new();
    let runtime = world.runtime();
    let applied = world.apply(&runtime, yaml, &[]).await;
    applied.unwrap_or_else(|d| panic!("{d:#?}"));
    world.produce("in", 0, values);
    until(&runtime, done).await;
    let rows = world.log.rows(world.partition("out", 0));
    let columns = rows.columns.expect("the topic keeps columns");
    let schema = Schema::from_json(&serde_json::json!({"a": "int64", "b": "string"}));
    let names = schema.unwrap().to_arrow();
    let columns = RecordBatch::try_new(names, columns.arrays().to_vec()).unwrap();
    let json = codec::encode_json(&columns).unwrap();
    let found: Vec<String> = json.iter().map(text).collect();
    assert_eq!(found, out);
    assert_eq!(rows.values.null_count(), 0);
    assert_eq!(found_letters(&world), letters);
}

#[tokio::test]
async fn columns_go_through_operators_as_they_are() {
    let world = World::new();
    let runtime = world.runtime();
    let nodes = "  f: { kind: filter, inputs: [src], where: \"a is null or 6 / a > 1\" }\n  \
                 o: { kind: sink, inputs: [f], topic: out, key: b }\n";
    let applied = world
        .apply(&runtime, &pipeline(COLUMNS, COLUMNS, nodes), &[])
        .await;
    applied.unwrap_or_else(|d| panic!("{d:#?}"));
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![
            Some(1),
            Some(6),
            Some(0),
            None,
            Some(2),
        ])),
        Arc::new(StringArray::from(vec![
            Some("x"),
            Some("y"),
            Some("z"),
            None,
            None,
        ])),
    ];
    let mut rows = RowsBuilder::new();
    for (at, value) in [Some(b"".as_slice()), Some(b""), Some(b""), None, Some(b"")]
        .iter()
        .enumerate()
    {
        rows.push(at as i64, None, *value, &[]);
    }
    let rows = Rows {
        columns: Some(TypedColumns::new(arrays).unwrap()),
        ..rows.finish()
    };
    world.log.append(world.partition("in", 0), &rows);
    until(&runtime, done).await;
    let out = world.log.rows(world.partition("out", 0));
    assert_eq!(out.columns, Some(rows.take(&[0, 3, 4]).columns.unwrap()));
    let values: Vec<Option<&[u8]>> = out.values.iter().collect();
    assert_eq!(values, [Some(b"".as_slice()), None, Some(b"")]);
    let keys: Vec<String> = out.keys.iter().map(text).collect();
    assert_eq!(keys, ["x", "-", "-"]);
    let bad = world.log.rows(world.partition("bad", 0));
    let letters: Vec<String> = bad.values.iter().map(text).collect();
    assert_eq!(letters, [r#"{"a":0,"b":"z"}"#], "a dead letter is JSON");
    assert_eq!(bad.columns, None);
}

#[tokio::test]
async fn a_sink_keeps_columns_and_reads_them_again() {
    let json = [r#"{"b":"x","a":1}"#, r#"{"a":"x"}"#, "{}"];
    let kept = [r#"{"a":1,"b":"x"}"#, r#"{"a":null,"b":null}"#];
    let letters = [r#"{"a":"x"} | field `a` (int64): expected an integer, found string "x""#];
    check_columns(&pipeline(JSON, COLUMNS, STRAIGHT), &json, &kept, &letters).await;
    check_columns(&pipeline("raw", COLUMNS, STRAIGHT), &json, &kept, &letters).await;
    check_columns(&pipeline(CSV, COLUMNS, STRAIGHT), &["1,x", ","], &kept, &[]).await;
    let nodes = "  m: { kind: map, inputs: [src], select: { b: \"b\", a: \"a * 2\" } }\n  \
                 o: { kind: sink, inputs: [m], topic: out }\n";
    let doubled = [r#"{"a":2,"b":"x"}"#, r#"{"a":null,"b":null}"#];
    check_columns(&pipeline(JSON, COLUMNS, nodes), &json, &doubled, &letters).await;
    check_columns(&pipeline(COLUMNS, COLUMNS, nodes), &kept, &doubled, &[]).await;
    check(&pipeline(COLUMNS, JSON, STRAIGHT), &kept, &kept, &[]).await;
    check(&pipeline(COLUMNS, "raw", STRAIGHT), &kept, &kept, &[]).await;
    check(&pipeline(COLUMNS, CSV, STRAIGHT), &kept, &["1,x", ","], &[]).await;
    let nodes = "  f: { kind: filter, inputs: [src], where: \"_value_text like '%x%'\" }\n  \
                 o: { kind: sink, inputs: [f], topic: out }\n";
    check_columns(&pipeline(COLUMNS, COLUMNS, nodes), &kept, &kept[..1], &[]).await;
}

#[tokio::test]
async fn dead_letters_do_not_go_to_a_topic_that_keeps_columns() {
    let yaml =
        pipeline(JSON, JSON, STRAIGHT).replace("bad: {}", &format!("bad: {{ value: {COLUMNS} }}"));
    let world = World::new();
    let runtime = world.runtime();
    let refused = world.apply(&runtime, &yaml, &[]).await;
    let found: Vec<String> = refused
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect();
    let message = "topic `bad` keeps columns, and a dead letter has the bytes of its record";
    assert!(found.iter().any(|d| d.contains(message)), "{found:#?}");
}
