//! The bytes of a batch, fixed: what was written by an older version must be read for ever.
//!
//! Called by `cargo test`. Invariants: `tests/golden/NAME.hex` decodes to the records below; the
//! plain ones are also what encoding gives, byte for byte. A file that is missing is written
//! when `RUSTMQ_GOLDEN_WRITE=1`; a file that is there is never changed.

#![allow(
    clippy::unwrap_used,
    reason = "a test file: its functions panic to fail"
)]

use std::fmt::Write as _;
use std::path::PathBuf;

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use bytes::Bytes;
use rustmq_model::batch::{Batch, Codec, Producer};
use rustmq_model::ids::{ProducerId, ShardEpoch};
use rustmq_model::rows::{Rows, RowsBuilder, TypedColumns};

fn path(name: &str) -> PathBuf {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    golden.join(format!("{name}.hex"))
}

fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(32) {
        line.iter()
            .for_each(|byte| write!(text, "{byte:02x}").unwrap());
        text.push('\n');
    }
    text
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    let pairs = digits.as_bytes().chunks_exact(2);
    pairs
        .map(|p| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap())
        .collect()
}

/// `batch` must be what is in the file, by content, and by bytes too if `exact`.
fn check(name: &str, batch: &Batch, exact: bool) {
    let path = path(name);
    if !path.exists() && std::env::var_os("RUSTMQ_GOLDEN_WRITE").is_some() {
        std::fs::write(&path, to_hex(&batch.to_bytes())).unwrap();
    }
    let golden = from_hex(&std::fs::read_to_string(&path).unwrap());
    let read = Batch::decode(Bytes::from(golden.clone())).unwrap();
    read.check().unwrap();
    assert_eq!(read.rows().unwrap(), batch.rows().unwrap(), "{name}");
    assert_eq!(read.offsets(), batch.offsets(), "{name}");
    assert_eq!(
        (
            read.producer(),
            read.epoch(),
            read.append_time(),
            read.codec()
        ),
        (
            batch.producer(),
            batch.epoch(),
            batch.append_time(),
            batch.codec()
        ),
        "{name}"
    );
    if exact {
        assert_eq!(to_hex(&batch.to_bytes()), to_hex(&golden), "{name}");
    }
}

fn full() -> Rows {
    let mut rows = RowsBuilder::new();
    let headers: &[(&str, Option<&[u8]>)] = &[("origin", Some(b"JFK")), ("empty", None)];
    rows.push(
        1_357_034_400_000_000,
        Some(b"UA"),
        Some(b"{\"dep_delay\":2}"),
        &[],
    );
    rows.push(1_357_034_400_000_001, None, Some(b""), headers);
    rows.push(-1, Some(b""), None, &[("n", Some(b""))]);
    rows.finish()
}

fn long() -> Rows {
    let mut rows = RowsBuilder::new();
    for i in 0..40 {
        rows.push(
            i,
            None,
            Some(format!("the same words in record {i}").as_bytes()),
            &[],
        );
    }
    rows.finish()
}

#[test]
fn plain_with_everything() {
    let producer = Producer {
        id: ProducerId(0x0102_0304),
        epoch: 5,
        sequence: 6,
    };
    let batch = Batch::encode(&full(), Codec::None, Some(producer)).unwrap();
    check(
        "plain-full",
        &batch.stamped(1_000, ShardEpoch(7), 1_700_000_000_000_000),
        true,
    );
}

#[test]
fn plain_with_values_only() {
    check(
        "plain-values",
        &Batch::encode(&long(), Codec::None, None).unwrap(),
        true,
    );
}

#[test]
fn plain_with_holes_in_the_offsets() {
    let batch = Batch::encode_sparse(&full(), &[1, 5, 9], Codec::None, None).unwrap();
    check("plain-sparse", &batch.stamped(50, ShardEpoch(0), 0), true);
}

#[test]
fn plain_with_what_compaction_left_of_a_range() {
    let batch = Batch::encode_compacted(&full(), &[1, 5, 9], 12, Codec::None).unwrap();
    let batch = batch.stamped(50, ShardEpoch(0), 0);
    assert_eq!((batch.base_offset(), batch.next_offset()), (50, 63));
    check("plain-compacted", &batch, true);
}

fn typed() -> Rows {
    let times = TimestampMicrosecondArray::from(vec![Some(1_357_034_400_000_000), Some(-1), None]);
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
        Arc::new(Int64Array::from(vec![Some(-2), Some(i64::MAX), None])),
        Arc::new(Float64Array::from(vec![Some(0.5), Some(-0.0), None])),
        Arc::new(StringArray::from(vec![Some("JFK é"), Some(""), None])),
        Arc::new(BinaryArray::from_opt_vec(vec![
            Some(b"\xff\0"),
            Some(b""),
            None,
        ])),
        Arc::new(times.with_timezone("UTC")),
        Arc::new(Int64Array::from(vec![1, 2, 0])),
    ];
    let mut rows = RowsBuilder::new();
    rows.push(1_357_034_400_000_000, Some(b"UA"), Some(b""), &[]);
    rows.push(5, None, Some(b""), &[("h", Some(b"x"))]);
    rows.push(-1, Some(b"gone"), None, &[]);
    Rows {
        columns: Some(TypedColumns::new(arrays).unwrap()),
        ..rows.finish()
    }
}

#[test]
fn plain_with_typed_columns() {
    let batch = Batch::encode(&typed(), Codec::None, None).unwrap();
    check("plain-columns", &batch.stamped(9, ShardEpoch(1), 3), true);
}

/// What a compressor makes may change with its version; what it made must be read.
#[test]
fn compressed() {
    check(
        "lz4",
        &Batch::encode(&long(), Codec::Lz4, None).unwrap(),
        false,
    );
    check(
        "zstd",
        &Batch::encode(&long(), Codec::Zstd, None).unwrap(),
        false,
    );
}
