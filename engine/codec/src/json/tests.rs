//! What the JSON codec reads, refuses and writes; round trips; agreement with serde_json.

use super::*;
use crate::Format;
use arrow::array::{
    Array, ArrayRef, BinaryArray, StringViewArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::record_batch::RecordBatch;
use model::schema::{Field, FieldType, Schema};
use model::topic::PayloadCodec;
use proptest::option;
use proptest::prelude::*;
use std::fmt::Write as _;
use std::sync::Arc;

fn schema() -> Schema {
    let field = |name: &str, ty| Field {
        name: name.to_string(),
        ty,
    };
    Schema {
        fields: vec![
            field("b", FieldType::Bool),
            field("i", FieldType::Int64),
            field("f", FieldType::Float64),
            field("s", FieldType::String),
            field("x", FieldType::Bytes),
            field("t", FieldType::Timestamp),
        ],
        avro: None,
    }
}

fn texts(array: &BinaryArray) -> Vec<String> {
    (0..array.len())
        .map(|i| String::from_utf8_lossy(array.value(i)).into_owned())
        .collect()
}

/// Values a line each in; per row what it decodes to (nulls left out), or its error, out.
fn check(values: &str, expected: &str) {
    let rows: Vec<&[u8]> = values.trim().lines().map(|l| l.trim().as_bytes()).collect();
    let decoded = JsonDecoder::new(&schema()).decode(&BinaryArray::from_vec(rows));
    let mut out = String::new();
    let back = texts(&encode_json(&decoded.columns).unwrap());
    for (row, line) in back.iter().enumerate() {
        match decoded.errors.iter().find(|(bad, _)| *bad as usize == row) {
            Some((_, message)) => {
                assert!(
                    !line.contains(":\"") && line.matches("null").count() == 6,
                    "{line}"
                );
                writeln!(out, "! {message}").unwrap();
            }
            None => {
                let object: serde_json::Map<_, _> = serde_json::from_str(line).unwrap();
                let set: serde_json::Map<String, serde_json::Value> =
                    object.into_iter().filter(|(_, v)| !v.is_null()).collect();
                writeln!(out, "{}", serde_json::Value::Object(set)).unwrap();
            }
        }
    }
    let expected: Vec<&str> = expected.trim().lines().map(str::trim).collect();
    assert_eq!(out.trim().lines().collect::<Vec<_>>(), expected);
}

#[test]
fn reads_every_type() {
    check(
        r#"
        {"b":true,"i":-9223372036854775808,"f":1e-3,"x":"AQI=","t":"2013-01-01T00:00:00Z"}
        {"s":"a\"\u00e9\ud83d\ude00\n"}
        { "t" : 1500000 , "i" : 3.0e2 , "extra" : [ { "b" : 1 } , null ] , "f" : 5 }
        {"i":1,"i":2,"b":null,"\u0073":"escaped key"}
        {}
        "#,
        r#"
        {"b":true,"i":-9223372036854775808,"f":0.001,"x":"AQI=","t":"2013-01-01T00:00:00.000000Z"}
        {"s":"a\"é😀\n"}
        {"i":300,"f":5.0,"t":"1970-01-01T00:00:01.500000Z"}
        {"i":2,"s":"escaped key"}
        {}
        "#,
    );
}

#[test]
fn names_what_does_not_fit() {
    check(
        r#"
        {"i":"1"}
        {"i":1.5}
        {"i":9223372036854775808}
        {"b":1}
        {"f":"1"}
        {"f":1e999}
        {"s":7}
        {"s":{"a":1}}
        {"x":"*"}
        {"t":"2013-01-01"}
        {"t":1.5}
        {"i":"01234567890123456789012345678901234567890123456789"}
        {"s":"fine"}
        "#,
        r#"
        ! field `i` (int64): expected an integer, found string "1"
        ! field `i` (int64): expected an integer of 64 bits, found number 1.5
        ! field `i` (int64): expected an integer of 64 bits, found number 9223372036854775808
        ! field `b` (bool): expected true or false, found number 1
        ! field `f` (float64): expected a number, found string "1"
        ! field `f` (float64): expected a number that fits float64, found number 1e999
        ! field `s` (string): expected a string, found number 7
        ! field `s` (string): expected a string, found an object
        ! field `x` (bytes): expected a string of base64, found string "*"
        ! field `t` (timestamp): expected an RFC 3339 time with its zone, found string "2013-01-01"
        ! field `t` (timestamp): expected whole microseconds since 1970, found number 1.5
        ! field `i` (int64): expected an integer, found string "0123456789012345678901234567890123456789…"
        {"s":"fine"}
        "#,
    );
}

#[test]
fn names_what_is_not_json() {
    check(
        "[1]\nhello\n{\"s\":\"a\n{\"i\":01}\n{\"i\":1}}\n{\"i\":1,}\n{\"i\" 1}\n{\"s\":\"\\ud800\"}\n\"x\"",
        r#"
        ! not a JSON object: found an array
        ! not JSON: expected a value at byte 0, found 'h'
        ! not JSON: the text ends too early at byte 7
        ! not JSON: a number must not start with 0 at byte 6, found '1'
        ! not JSON: text after the value at byte 7, found '}'
        ! not JSON: expected a field name in double quotes at byte 7, found '}'
        ! not JSON: expected `:` after the field name at byte 5, found '1'
        ! not JSON: bad \u escape at byte 6, found '\\'
        ! not a JSON object: found string "x"
        "#,
    );
}

#[test]
fn empty_not_utf8_tombstone_and_depth() {
    let deep = "[".repeat(100_000);
    let values = BinaryArray::from_opt_vec(vec![
        Some(b"".as_slice()),
        Some(b"{\"s\":\"\xff\"}".as_slice()),
        None,
        Some(deep.as_bytes()),
    ]);
    let decoded = JsonDecoder::new(&schema()).decode(&values);
    assert_eq!(decoded.columns.num_rows(), 4);
    let errors: Vec<String> = decoded
        .errors
        .iter()
        .map(|(row, m)| format!("{row} {m}"))
        .collect();
    assert_eq!(
        errors,
        [
            "0 not JSON: the value is empty",
            "1 not JSON: not UTF-8 at byte 6",
            "3 not JSON: nested too deeply at byte 128, found '['",
        ]
    );
}

/// What is remembered of the row before changes nothing: rows together are what each is alone.
#[test]
fn a_row_is_read_as_if_it_were_alone() {
    let rows = [
        r#"{"b":true,"i":1,"f":0.5}"#,
        r#"{"i":2,"b":false,"f":1.5}"#,
        r#"{"i":2, "b":false ,"other":{"i":3}, "f" :2}"#,
        r#"{"b":true,"i":1,"i":7,"s":"a"}"#,
        r#"{"b":true,"i":1,"\u0069":8,"s":"b"}"#,
        r#"{"b":true,"i":"x","s":"c"}"#,
        r#"{"b":true,"i" 1}"#,
        r#"{"b"#,
        "{}",
    ];
    let decoder = JsonDecoder::new(&schema());
    let decode = |rows: Vec<&str>| {
        let rows = rows.into_iter().map(str::as_bytes).collect();
        decoder.decode(&BinaryArray::from_vec(rows))
    };
    for (first, second) in (0..rows.len()).flat_map(|a| (0..rows.len()).map(move |b| (a, b))) {
        let both = decode(vec![rows[first], rows[second], rows[second]]);
        let alone = decode(vec![rows[second]]);
        for row in [1, 2] {
            assert_eq!(
                both.columns.slice(row, 1),
                alone.columns,
                "{first}, {second}"
            );
            let error = both.errors.iter().find(|(bad, _)| *bad as usize == row);
            let expected = alone.errors.first().map(|(_, message)| message);
            assert_eq!(error.map(|(_, message)| message), expected);
        }
    }
}

#[test]
fn projection_keeps_the_verdict() {
    let format = Format::new(PayloadCodec::Json, Arc::new(schema())).unwrap();
    let values = BinaryArray::from_vec(vec![br#"{"i":1,"b":"no"}"#.as_slice(), br#"{"i":2}"#]);
    let decoded = format.decode(&values, &format.columns(&[1]).unwrap());
    assert_eq!(
        texts(&encode_json(&decoded.columns).unwrap()),
        [r#"{"i":null}"#, r#"{"i":2}"#]
    );
    assert_eq!(decoded.errors.len(), 1);
    let none = format.decode(&values, &format.columns(&[]).unwrap());
    assert_eq!((none.columns.num_rows(), none.errors.len()), (2, 1));
    assert!(format.columns(&[9]).is_none());
}

#[test]
fn writes_what_expressions_give() {
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "v\"",
            Arc::new(StringViewArray::from(vec![Some("a"), None])),
        ),
        ("u", Arc::new(UInt64Array::from(vec![u64::MAX, 0]))),
        (
            "n",
            Arc::new(arrow::array::Float64Array::from(vec![f64::NAN, 1.0])),
        ),
        ("d", Arc::new(arrow::array::Date32Array::from(vec![0, 1]))),
        (
            "x",
            Arc::new(BinaryArray::from_vec(vec![b"text", b"\xff\xfe"])),
        ),
        (
            "t",
            Arc::new(arrow::array::TimestampSecondArray::from(vec![
                1,
                i64::MAX / 2_000_000,
            ])),
        ),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let expected = [
        concat!(
            r#"{"v\"":"a","u":18446744073709551615,"n":null,"d":"1970-01-01","x":"dGV4dA==","#,
            r#""t":"1970-01-01T00:00:01.000000Z"}"#,
        ),
        r#"{"v\"":null,"u":0,"n":1.0,"d":"1970-01-02","x":"//4=","t":4611686018427000000}"#,
    ];
    assert_eq!(texts(&encode_json(&batch).unwrap()), expected);
    let mut encoder = JsonEncoder::new(&batch, BytesAs::TextElseBase64).unwrap();
    let mut out = Vec::new();
    encoder.row(0, &mut out);
    assert!(String::from_utf8(out).unwrap().contains(r#""x":"text""#));
}

/// Golden bytes: the stored form of a typed row must not drift.
#[test]
fn golden() {
    let line =
        br#"{"b":false,"i":-7,"f":0.1,"s":"\u0001/\\","x":"","t":"1969-12-31T23:59:59.999999Z"}"#;
    let decoded = JsonDecoder::new(&schema()).decode(&BinaryArray::from_vec(vec![line]));
    assert_eq!(encode_json(&decoded.columns).unwrap().value(0), line);
}

fn any_cell() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::json;
    prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i64>().prop_map(|n| json!(n)),
        any::<f64>().prop_map(|n| json!(n)),
        ".{0,12}".prop_map(|s| json!(s)),
        Just(json!({"deep": [1, "two", null]})),
    ]
}

/// A row of the test schema's types.
type Row = (
    Option<bool>,
    Option<i64>,
    Option<f64>,
    Option<String>,
    Option<Vec<u8>>,
    Option<i64>,
);

fn any_row() -> impl Strategy<Value = Row> {
    use proptest::num::f64::{NORMAL, ZERO};
    let bytes = proptest::collection::vec(any::<u8>(), 0..9);
    (
        any::<Option<bool>>(),
        any::<Option<i64>>(),
        option::of(NORMAL | ZERO),
        option::of(".{0,20}"),
        option::of(bytes),
        any::<Option<i64>>(),
    )
}

proptest! {
    /// Columns of any content survive writing and reading.
    #[test]
    fn round_trip(rows in proptest::collection::vec(any_row(), 1..20)) {
        let times = TimestampMicrosecondArray::from_iter(rows.iter().map(|r| r.5));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(arrow::array::BooleanArray::from_iter(rows.iter().map(|r| r.0))),
            Arc::new(arrow::array::Int64Array::from_iter(rows.iter().map(|r| r.1))),
            Arc::new(arrow::array::Float64Array::from_iter(rows.iter().map(|r| r.2))),
            Arc::new(arrow::array::StringArray::from_iter(rows.iter().map(|r| r.3.as_deref()))),
            Arc::new(BinaryArray::from_iter(rows.iter().map(|r| r.4.as_deref()))),
            Arc::new(times.with_timezone("UTC")),
        ];
        let batch = RecordBatch::try_new(schema().to_arrow(), columns).unwrap();
        let decoded = JsonDecoder::new(&schema()).decode(&encode_json(&batch).unwrap());
        prop_assert_eq!(&decoded.errors, &vec![]);
        prop_assert_eq!(&decoded.columns, &batch);
    }

    /// Whatever the bytes, rows are kept, nothing panics, and the verdict "is JSON" is serde_json's.
    #[test]
    fn agrees_with_serde_json(text in r#"[ \[\]{}:,"\\0-9a-fu+.eE\-trulsn\x01é]{0,24}"#) {
        let value = format!("{{\"s\":null,\"z\":{text}}}");
        let fields = vec![Field { name: "s".into(), ty: FieldType::Bool }];
        let schema = Schema { fields, avro: None };
        let decoded = JsonDecoder::new(&schema).decode(&BinaryArray::from_vec(vec![value.as_bytes()]));
        prop_assert_eq!(decoded.columns.num_rows(), 1);
        match serde_json::from_str::<serde_json::Value>(&value) {
            Ok(_) => {
                let wrong = decoded.errors.iter().find(|(_, m)| m.starts_with("not JSON"));
                prop_assert!(wrong.is_none(), "{value}: {wrong:?}");
            }
            Err(e) if e.to_string().contains("out of range") => {}
            Err(e) => prop_assert!(!decoded.errors.is_empty(), "{value}: {e}"),
        }
    }

    /// Objects of any fields: a row is bad exactly when a value has the wrong type.
    #[test]
    fn verdict_follows_types(i in any_cell(), s in any_cell(), extra in any_cell()) {
        let value = serde_json::json!({"extra": extra, "s": s, "i": i}).to_string();
        let decoded = JsonDecoder::new(&schema()).decode(&BinaryArray::from_vec(vec![value.as_bytes()]));
        let whole = |n: &serde_json::Number| n.is_i64()
            || n.as_f64().is_some_and(|f| f.fract() == 0.0 && f.abs() <= 9_007_199_254_740_992.0);
        let good = (s.is_null() || s.is_string())
            && (i.is_null() || i.as_number().is_some_and(whole));
        prop_assert_eq!(decoded.errors.is_empty(), good, "{}", value);
    }
}
