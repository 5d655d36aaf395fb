//! What the Avro codec reads, refuses and writes: by hand, against the reference implementation,
//! and round trips of anything.
//!
//! `reference.txt` was written once by Apache's own library for Python (avro 1.12.0): a schema, its
//! canonical form (where that library keeps `{"type":"int"}` of logical types, it is `"int"` here,
//! as the specification and the library for Java have it), the fingerprint of that, then random
//! datums, each with the same record as JSON. Never changed.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{
    Array as _, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::record_batch::RecordBatch;
use model::schema::Schema;
use model::topic::PayloadCodec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{Format, encode_json};

const REFERENCE: &str = include_str!("reference.txt");

fn schema(json: &Value) -> Arc<Schema> {
    Arc::new(Schema::from_json(json).unwrap())
}

fn avro(json: &Value) -> Format {
    Format::new(PayloadCodec::Avro, schema(json)).unwrap()
}

/// A record of these fields.
fn record(fields: &Value) -> Value {
    json!({"type": "record", "name": "r", "fields": fields})
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").unwrap();
        out
    })
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digits).collect()
}

fn lines(text: &str) -> Vec<&str> {
    text.trim().lines().map(str::trim).collect()
}

/// Values in hex, a line each; what each is in JSON, or its error, out.
fn reads(schema: &Value, values: &str, expected: &str) {
    let format = avro(schema);
    let values: Vec<Vec<u8>> = lines(values).into_iter().map(from_hex).collect();
    let decoded = format.decode(&BinaryArray::from_iter_values(&values), &format.all());
    let json = encode_json(&decoded.columns).unwrap();
    let shown = |row: usize| match decoded.errors.iter().find(|(bad, _)| *bad as usize == row) {
        Some((_, message)) => {
            let what = message.strip_prefix("not Avro of the topic's schema: ");
            format!("! {}", what.unwrap())
        }
        None => String::from_utf8_lossy(json.value(row)).into_owned(),
    };
    let found: Vec<String> = (0..values.len()).map(shown).collect();
    // what a value begins with is said behind all else, here on a line of its own
    let found = found.join("\n").replace("; it ", "\n; it ");
    let found: Vec<&str> = lines(&found);
    let cut = |line: &str| {
        line.split_once("datums may begin so")
            .map(|(said, _)| format!("{said}…"))
    };
    let found: Vec<String> = found
        .iter()
        .map(|l| cut(l).unwrap_or(l.to_string()))
        .collect();
    assert_eq!(found, lines(expected));
}

/// JSON, a line each; the datum of each in hex, or why there is none, out.
fn writes(schema: &Value, json: &str, expected: &str) {
    let format = avro(schema);
    let read = Format::new(PayloadCodec::Json, format.schema().clone()).unwrap();
    let rows = BinaryArray::from_iter_values(lines(json));
    let decoded = read.decode(&rows, &read.all());
    assert_eq!(decoded.errors, []);
    let written = format.write(&decoded.columns).unwrap();
    let shown = |row: usize| match written.errors.iter().find(|(bad, _)| *bad as usize == row) {
        Some((_, message)) => format!("! {message}"),
        None => hex(written.values.value(row)),
    };
    let found: Vec<String> = (0..rows.len()).map(shown).collect();
    assert_eq!(found, lines(expected));
}

#[test]
fn the_reference_implementation_means_the_same() {
    let mut lines = REFERENCE.lines();
    let mut next = || lines.next().unwrap();
    let schema = Arc::new(Schema::from_json(&serde_json::from_str(next()).unwrap()).unwrap());
    let record = schema.to_avro().unwrap();
    assert_eq!(record.canonical(), next());
    assert_eq!(hex(&record.fingerprint().to_le_bytes()), next());
    let pairs: Vec<(Vec<u8>, &str)> = lines
        .map(|line| line.split_once(' ').unwrap())
        .map(|(datum, json)| (from_hex(datum), json))
        .collect();
    let avro = Format::new(PayloadCodec::Avro, schema.clone()).unwrap();
    let json = Format::new(PayloadCodec::Json, schema).unwrap();
    let datums = BinaryArray::from_iter_values(pairs.iter().map(|(datum, _)| datum));
    let objects = BinaryArray::from_iter_values(pairs.iter().map(|(_, json)| json));
    let (ours, theirs) = (
        avro.decode(&datums, &avro.all()),
        json.decode(&objects, &json.all()),
    );
    assert_eq!((ours.errors, theirs.errors), (vec![], vec![]));
    assert_eq!(ours.columns, theirs.columns);
    assert_eq!(avro.encode(&theirs.columns).unwrap(), datums);
    // with the head of a single object too
    let head = [&[0xc3, 0x01][..], &record.fingerprint().to_le_bytes()].concat();
    let single = pairs.iter().map(|(datum, _)| [&head[..], datum].concat());
    let single = avro.decode(&BinaryArray::from_iter_values(single), &avro.all());
    assert_eq!((single.errors, single.columns), (vec![], theirs.columns));
}

#[test]
fn reads_what_is_there_and_names_what_is_wrong() {
    let fields = json!([
        {"name": "b", "type": "boolean"},
        {"name": "i", "type": ["null", "int"]},
        {"name": "s", "type": "string"},
    ]);
    reads(
        &record(&fields),
        "
        01000261
        00020102c3
        01
        02000261
        01040261
        0102808080801002
        010080808080808080808002
        0100ffffffffffffffffffff
        0100
        01000261ff
        010004ff
        010004ffff
        010001
        0100feffffffffffffffff01
        c301112233445566778801000261
        000000000701000261
        0000000007010002
        0001000007010002
        ",
        r#"
        {"b":true,"i":null,"s":"a"}
        ! field `s` (string): a string that is not UTF-8 from its byte 0 at byte 3
        ! field `i` (int): a number that does not end at byte 1
        ! field `b` (boolean): 2, which is neither 0 nor 1, at byte 0
        ! field `i` (int): branch 2 of a union of 2 at byte 1
        ! field `i` (int): 2147483648, which has more than 32 bits, at byte 1
        ! field `s` (string): a number of more than 64 bits at byte 2
        ! field `s` (string): a number of more than 64 bits at byte 2
        ! field `s` (string): a number that does not end at byte 2
        ! the datum ends 1 bytes before the value does, at byte 4
        ! field `s` (string): it needs 2 bytes and 1 are left, at byte 2
        ! field `s` (string): a string that is not UTF-8 from its byte 0 at byte 2
        ! field `s` (string): a length of -1 at byte 2
        ! field `s` (string): it needs 9223372036854775807 bytes and 0 are left, at byte 2
        ! field `b` (boolean): 195, which is neither 0 nor 1, at byte 0
          ; it begins as a single object of schema 8877665544332211, and the topic's is e36d561229650bd3
        ! the datum ends 6 bytes before the value does, at byte 3
          ; it begins as Confluent's serializers begin a value (00, schema 7), and …
        ! the datum ends 5 bytes before the value does, at byte 3
          ; it may begin as Confluent's serializers begin a value, of another schema (00, schema 7), and …
        ! field `i` (int): branch -1 of a union of 2 at byte 1
        "#,
    );
}

#[test]
fn what_does_not_fit_a_column_or_its_type_is_named() {
    let fields = json!([
        {"name": "e", "type": {"type": "enum", "name": "e", "symbols": ["A", "B"]}},
        {"name": "z", "type": {"type": "fixed", "name": "z", "size": 2}},
        {"name": "m", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "n", "type": ["null"]},
        {"name": "f", "type": "float"},
    ]);
    let schema = record(&fields);
    reads(
        &schema,
        "
        02ffff0200000000c0
        04ffff0200000000c0
        01ffff0200000000c0
        00ff
        00fffffeffffffffffffffff0100000000c0
        00ffff0202000000c0
        00ffff020000000080
        00ffff02000000c07f
        ",
        r#"
        {"e":"B","z":"//8=","m":"1970-01-01T00:00:00.001000Z","n":null,"f":-2.0}
        ! field `e` (enum e): symbol 2 of 2 at byte 0
        ! field `e` (enum e): symbol -1 of 2 at byte 0
        ! field `z` (fixed z of 2 bytes): it needs 2 bytes and 1 are left, at byte 1
        ! field `m` (timestamp-millis): 9223372036854775807, a time beyond what microseconds hold, at byte 3
        ! field `n` (null): branch 1 of a union of 1 at byte 4
        {"e":"A","z":"//8=","m":"1970-01-01T00:00:00.001000Z","n":null,"f":-0.0}
        {"e":"A","z":"//8=","m":"1970-01-01T00:00:00.001000Z","n":null,"f":null}
        "#,
    );
    writes(
        &schema,
        r#"
        {"e":"B","z":"//8=","m":1999,"n":null,"f":0.1}
        {"e":"A","z":"AAA=","m":-1,"n":null,"f":-2}
        {"e":"C","z":"//8=","m":0,"n":null,"f":0}
        {"e":"A","z":"/w==","m":0,"n":null,"f":0}
        {"e":"A","z":"//8=","m":null,"n":null,"f":0}
        {"e":"A","z":"//8=","m":0,"n":"x","f":0}
        {"e":"A","z":"//8=","m":0,"n":null,"f":1e300}
        {"z":"//8=","m":0,"f":1}
        "#,
        "
        02ffff0200cdcccc3d
        0000000100000000c0
        ! field `e` (Avro enum e): `C` is no symbol of it
        ! field `z` (Avro fixed z of 2 bytes): it has 1 bytes
        ! field `m` (Avro timestamp-millis): it is null, and the schema has no null there
        ! field `n` (Avro null): it is not null, and the schema has only null there
        ! field `f` (Avro float): 1e300 does not fit 32 bits
        ! field `e` (Avro enum e): it is null, and the schema has no null there
        ",
    );
}

#[test]
fn lists_of_fields_are_unions_with_null() {
    let list = json!({"i": "int64", "t": "timestamp", "s": "string"});
    let json = r#"
        {"i":-1,"t":"1970-01-01T00:00:00.000001Z","s":""}
        {}
    "#;
    writes(&list, json, "020102020200\n000000");
}

#[test]
fn a_row_is_good_or_bad_whatever_is_asked_for() {
    let format = avro(&record(&json!([
        {"name": "a", "type": "string"}, {"name": "b", "type": "int"}])));
    let values = BinaryArray::from_opt_vec(vec![Some(b"\x02\xff\x02"), Some(b"\x02a\x02"), None]);
    for wanted in [&[][..], &[1], &[1, 0]] {
        let decoded = format.decode(&values, &format.columns(wanted).unwrap());
        assert_eq!(decoded.columns.num_rows(), 3);
        let bad: Vec<u32> = decoded.errors.iter().map(|(row, _)| *row).collect();
        assert_eq!(bad, [0]);
    }
}

#[test]
fn lengths_are_believed_only_if_the_bytes_are_there() {
    // 2^62 bytes of a string, of bytes, and a fixed of 8 MiB
    let format = avro(&record(&json!([
        {"name": "s", "type": "string"},
        {"name": "z", "type": {"type": "fixed", "name": "z", "size": 8_388_608}},
    ])));
    let values: Vec<&[u8]> = vec![b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", b"\x00\x00"];
    let decoded = format.decode(&BinaryArray::from_vec(values), &format.all());
    assert_eq!(decoded.errors.len(), 2);
}

/// All types, those with null and those without.
fn everything() -> Format {
    let schema: Value = serde_json::from_str(REFERENCE.lines().next().unwrap()).unwrap();
    avro(&schema)
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        rows in prop::collection::vec((
            option::of(any::<bool>()), option::of(any::<i64>()), option::of(any::<f64>()),
            option::of("[a\",\n\r é]{0,6}"), option::of(prop::collection::vec(any::<u8>(), 0..5)),
            option::of(any::<i64>()),
        ), 0..20),
    ) {
        let format = avro(&json!([
            {"name": "b", "type": "bool"},
            {"name": "i", "type": "int64"},
            {"name": "f", "type": "float64"},
            {"name": "s", "type": "string"},
            {"name": "x", "type": "bytes"},
            {"name": "t", "type": "timestamp"},
        ]));
        let columns = RecordBatch::try_new(format.arrow().clone(), vec![
            Arc::new(rows.iter().map(|r| r.0).collect::<BooleanArray>()),
            Arc::new(rows.iter().map(|r| r.1).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|r| r.2.filter(|f| !f.is_nan())).collect::<Float64Array>()),
            Arc::new(rows.iter().map(|r| r.3.clone()).collect::<StringArray>()),
            Arc::new(rows.iter().map(|r| r.4.clone()).collect::<BinaryArray>()),
            Arc::new(rows.iter().map(|r| r.5).collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        ]).unwrap();
        let values = format.encode(&columns).unwrap();
        let decoded = format.decode(&values, &format.all());
        prop_assert_eq!(&decoded.errors, &vec![]);
        prop_assert_eq!(decoded.columns, columns);
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..9),
    ) {
        read_or_refused(&values);
    }

    /// Datums that are right but for one byte, or for their end.
    #[test]
    fn damaged_datums_are_read_or_refused(
        line in 3..83usize, at in any::<prop::sample::Index>(), byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let line = REFERENCE.lines().nth(line).unwrap();
        let mut datum = from_hex(line.split_once(' ').unwrap().0);
        let at = at.index(datum.len());
        match cut {
            true => datum.truncate(at),
            false => datum[at] = byte,
        }
        read_or_refused(&[datum]);
    }
}

/// What is read can be written, and is read again as the same.
fn read_or_refused(values: &[Vec<u8>]) {
    let format = everything();
    let decoded = format.decode(&BinaryArray::from_iter_values(values), &format.all());
    assert_eq!(decoded.columns.num_rows(), values.len());
    let written = format.write(&decoded.columns).unwrap();
    let again = format.decode(&written.values, &format.all());
    for row in 0..values.len() {
        let is_bad = decoded.errors.iter().any(|(bad, _)| *bad as usize == row);
        // bits of a NaN may differ, its text does not
        let text = |columns: &RecordBatch| encode_json(&columns.slice(row, 1)).unwrap();
        assert!(is_bad || text(&decoded.columns) == text(&again.columns));
    }
}
