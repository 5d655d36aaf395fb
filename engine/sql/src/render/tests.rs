//! One batch in all three forms.

use super::*;
use arrow::array::{ArrayRef, BinaryArray, Float64Array, Int64Array, StringArray};
use std::sync::Arc;

fn batch() -> RecordBatch {
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "name",
            Arc::new(StringArray::from(vec![Some("a,\"b\""), Some(""), None])),
        ),
        (
            "n",
            Arc::new(Int64Array::from(vec![Some(1), None, Some(-30)])),
        ),
        (
            "mean",
            Arc::new(Float64Array::from(vec![0.5, f64::NAN, 1e20])),
        ),
        (
            "key",
            Arc::new(BinaryArray::from_vec(vec![b"text", b"\xff", b"two\nlines"])),
        ),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn check(found: Result<Bytes, SqlError>, expected: &str) {
    assert_eq!(
        String::from_utf8(found.unwrap().to_vec()).unwrap(),
        expected
    );
}

#[test]
fn table_form() {
    let batch = batch();
    check(
        table::table(&batch.schema(), &[batch]),
        concat!(
            " name  |   n |  mean | key\n",
            "-------+-----+-------+------------\n",
            " a,\"b\" |   1 |   0.5 | text\n",
            "       |     |       | /w==\n",
            "       | -30 | 1e+20 | two\\nlines\n",
            "(3 rows)\n",
        ),
    );
}

#[test]
fn csv_form() {
    check(
        csv(&batch()),
        "\"a,\"\"b\"\"\",1,0.5,text\n\"\",,,/w==\n,-30,1e+20,\"two\nlines\"\n",
    );
}

#[test]
fn jsonl_form() {
    check(
        jsonl(&batch()),
        concat!(
            r#"{"name":"a,\"b\"","n":1,"mean":0.5,"key":"text"}"#,
            "\n",
            r#"{"name":"","n":null,"mean":null,"key":"/w=="}"#,
            "\n",
            r#"{"name":null,"n":-30,"mean":1e+20,"key":"two\nlines"}"#,
            "\n",
        ),
    );
}
