//! What the CSV codec reads, refuses and writes; round trips through columns.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::BinaryArray;
use model::schema::Schema;
use model::topic::PayloadCodec;
use proptest::option;
use proptest::prelude::*;

use crate::{Format, encode_json};

fn format() -> Format {
    let schema = Schema::from_json(&serde_json::json!([
        {"name": "b", "type": "bool"},
        {"name": "i", "type": "int64"},
        {"name": "f", "type": "float64"},
        {"name": "s", "type": "string"},
        {"name": "x", "type": "bytes"},
        {"name": "t", "type": "timestamp"},
    ]));
    Format::new(PayloadCodec::Csv, Arc::new(schema.unwrap())).unwrap()
}

/// Values a line each in (`␊` is a line end inside one); what each is in JSON and, behind `=`, how it
/// is written again, or its error, out.
fn check(values: &str, expected: &str) {
    let format = format();
    let rows: Vec<String> = values
        .trim()
        .lines()
        .map(|l| l.trim().replace('␊', "\n"))
        .collect();
    let values = BinaryArray::from_iter_values(&rows);
    let decoded = format.decode(&values, &format.all());
    let json = encode_json(&decoded.columns).unwrap();
    let csv = format.encode(&decoded.columns).unwrap();
    let mut out = String::new();
    for row in 0..rows.len() {
        match decoded.errors.iter().find(|(bad, _)| *bad as usize == row) {
            Some((_, message)) => writeln!(out, "! {message}").unwrap(),
            None => {
                let text =
                    |array: &BinaryArray| String::from_utf8_lossy(array.value(row)).into_owned();
                let (json, csv) = (text(&json), text(&csv).replace('\n', "␊"));
                writeln!(out, "{json}\n= {csv}").unwrap();
            }
        }
    }
    let lines =
        |text: &str| -> Vec<String> { text.trim().lines().map(|l| l.trim().into()).collect() };
    assert_eq!(lines(&out), lines(expected), "{out}");
}

#[test]
fn reads_and_writes() {
    check(
        r#"
        true,1,1.5,plain,YQ==,2013-01-01T05:17:00Z
        false,-7,1e3,"a ""b"", c␊d",,5
        ,,,,,
        ,,,"",,␊
        "true","7","7","7","","1970-01-01T00:00:00+01:00"
        ,,7,a "b" c,,
        "#,
        r#"
        {"b":true,"i":1,"f":1.5,"s":"plain","x":"YQ==","t":"2013-01-01T05:17:00.000000Z"}
        = true,1,1.5,plain,YQ==,2013-01-01T05:17:00.000000Z
        {"b":false,"i":-7,"f":1000.0,"s":"a \"b\", c\nd","x":null,"t":"1970-01-01T00:00:00.000005Z"}
        = false,-7,1000.0,"a ""b"", c␊d",,1970-01-01T00:00:00.000005Z
        {"b":null,"i":null,"f":null,"s":null,"x":null,"t":null}
        = ,,,,,
        {"b":null,"i":null,"f":null,"s":"","x":null,"t":null}
        = ,,,"",,
        {"b":true,"i":7,"f":7.0,"s":"7","x":"","t":"1969-12-31T23:00:00.000000Z"}
        = true,7,7.0,7,"",1969-12-31T23:00:00.000000Z
        {"b":null,"i":null,"f":7.0,"s":"a \"b\" c","x":null,"t":null}
        = ,,7.0,"a ""b"" c",,
        "#,
    );
}

#[test]
fn refuses_by_name() {
    check(
        r#"
        yes,,,,,
        ,1.5,,,,
        ,,NaN,,,
        ,,,,*,
        ,,,,,yesterday
        ,
        ,,,,,,
        ,,,"open,,
        ,,,"a"b,,
        ,,␊,,,
        "",,,,,
        "#,
        r#"
        ! field `b` (bool): expected true or false, found `yes`
        ! field `i` (int64): expected an integer of 64 bits, found `1.5`
        ! field `f` (float64): expected a finite number, found `NaN`
        ! field `x` (bytes): expected base64, found `*`
        ! field `t` (timestamp): expected an RFC 3339 time with its zone, or microseconds, found `yesterday`
        ! the schema has 6 fields, the row 2
        ! the schema has 6 fields, the row 7
        ! not CSV: the quote at byte 3 does not end
        ! not CSV: expected `,` behind the quote at byte 6
        ! not CSV: a line end at byte 2: a value is one row, and a field with a line end is quoted
        ! field `b` (bool): expected true or false, found ``
        "#,
    );
}

#[test]
fn a_row_is_good_or_bad_whatever_is_asked_for() {
    let format = format();
    let values = BinaryArray::from_opt_vec(vec![Some(b"x,1,,,,"), Some(b"true,2,,,,"), None]);
    for wanted in [&[][..], &[1], &[1, 0], &[5, 1]] {
        let decoded = format.decode(&values, &format.columns(wanted).unwrap());
        assert_eq!(decoded.columns.num_rows(), 3);
        let bad: Vec<u32> = decoded.errors.iter().map(|(row, _)| *row).collect();
        assert_eq!(bad, [0]);
    }
    assert!(format.columns(&[6]).is_none());
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
        use arrow::array::{BooleanArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
        use arrow::record_batch::RecordBatch;
        let format = format();
        let columns = RecordBatch::try_new(format.arrow().clone(), vec![
            Arc::new(rows.iter().map(|r| r.0).collect::<BooleanArray>()),
            Arc::new(rows.iter().map(|r| r.1).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|r| r.2.filter(|f| f.is_finite())).collect::<Float64Array>()),
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
        values in prop::collection::vec(prop::collection::vec(
            prop::sample::select(&b"\",\n\r1.ae\xff"[..]), 0..12), 0..9),
    ) {
        let format = format();
        let array = BinaryArray::from_iter_values(&values);
        let decoded = format.decode(&array, &format.all());
        prop_assert_eq!(decoded.columns.num_rows(), values.len());
        let again = format.decode(&format.encode(&decoded.columns).unwrap(), &format.all());
        prop_assert_eq!(again.columns, decoded.columns);
    }
}
