//! Typed columns in batches: round trips, damage, crafted sections, mixed rows.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::DataType;
use bytes::Bytes;
use proptest::prelude::*;

use super::super::tests::{craft, decode_fixed};
use super::super::{Batch, BatchError, Codec};
use super::format;
use crate::ids::ShardEpoch;
use crate::limits::RECORD_BYTES_MAX;
use crate::rows::{Rows, RowsBuilder, TypedColumns};

const CODECS: [Codec; 3] = [Codec::None, Codec::Lz4, Codec::Zstd];

type Cells = (
    Option<bool>,
    Option<i64>,
    Option<f64>,
    Option<String>,
    Option<Vec<u8>>,
    Option<i64>,
    bool,
);

fn rows_of(cells: &[Cells]) -> Rows {
    let times: TimestampMicrosecondArray = cells.iter().map(|c| c.5).collect();
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(cells.iter().map(|c| c.0).collect::<BooleanArray>()),
        Arc::new(cells.iter().map(|c| c.1).collect::<Int64Array>()),
        Arc::new(cells.iter().map(|c| c.2).collect::<Float64Array>()),
        Arc::new(cells.iter().map(|c| c.3.clone()).collect::<StringArray>()),
        Arc::new(cells.iter().map(|c| c.4.clone()).collect::<BinaryArray>()),
        Arc::new(times.with_timezone("UTC")),
    ];
    let mut rows = RowsBuilder::new();
    for (at, cell) in cells.iter().enumerate() {
        let value: Option<&[u8]> = cell.6.then_some(&[]);
        rows.push(at as i64, Some(&at.to_le_bytes()), value, &[]);
    }
    Rows {
        columns: Some(TypedColumns::new(arrays).unwrap()),
        ..rows.finish()
    }
}

fn cells_any() -> impl Strategy<Value = Vec<Cells>> {
    let cell = (
        any::<Option<bool>>(),
        any::<Option<i64>>(),
        any::<Option<f64>>(),
        prop::option::of("[aé😀]{0,4}"),
        prop::option::of(prop::collection::vec(any::<u8>(), 0..5)),
        any::<Option<i64>>(),
        prop::bool::weighted(0.9),
    );
    prop::collection::vec(cell, 1..70)
}

/// One row of each kind, and one of nulls.
fn sample() -> Rows {
    let full = |n: i64| -> Cells {
        let text = format!("text {n} é");
        (
            Some(n % 2 == 0),
            Some(-n),
            Some(0.5),
            Some(text),
            Some(vec![0xff, n as u8]),
            Some(n),
            true,
        )
    };
    let mut cells: Vec<Cells> = (0..9).map(full).collect();
    cells.push((None, None, None, None, None, None, false));
    rows_of(&cells)
}

proptest! {
    #[test]
    fn round_trip(
        cells in cells_any(), codec in prop::sample::select(&CODECS[..]), from in 0usize..70,
        chosen in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let rows = rows_of(&cells);
        let batch = Batch::encode(&rows, codec, None).unwrap();
        let back = Batch::decode(batch.to_bytes()).unwrap();
        back.check().unwrap();
        prop_assert!(back.has_columns());
        prop_assert_eq!(back.rows().unwrap(), rows.clone());
        // a slice is encoded as if it stood alone, and chosen rows are those
        let from = from % rows.len();
        let part = rows.slice(from, rows.len() - from);
        let encoded = Batch::encode(&part, codec, None).unwrap();
        prop_assert_eq!(encoded.rows().unwrap().columns, rows_of(&cells[from..]).columns);
        let chosen: Vec<u32> = chosen.iter().map(|i| i.index(rows.len()) as u32).collect();
        let picked: Vec<Cells> = chosen.iter().map(|i| cells[*i as usize].clone()).collect();
        if !picked.is_empty() {
            prop_assert_eq!(rows.take(&chosen).columns, rows_of(&picked).columns);
        }
        let joined = Rows::concat(&[rows.slice(0, from), part]).unwrap();
        prop_assert_eq!(joined.columns, rows.columns.clone());
        let bytes = rows.columns.as_ref().unwrap().bytes();
        prop_assert!(rows.bytes() >= bytes && rows.payload_bytes() >= bytes);
    }
}

#[test]
fn every_flipped_byte_is_found() {
    let good = Batch::encode(&sample(), Codec::None, None)
        .unwrap()
        .to_bytes();
    for at in (88..good.len()).chain(36..88) {
        let mut bad = good.to_vec();
        bad[at] ^= 1;
        assert!(Batch::decode(Bytes::from(bad)).is_err(), "byte {at}");
    }
    for length in 0..good.len() {
        assert!(
            Batch::decode(good.slice(..length)).is_err(),
            "{length} bytes"
        );
    }
}

/// Damage that a checksum made afterwards hides must still be an error or rows, never a panic.
#[test]
fn damage_under_a_good_checksum_does_not_panic() {
    for codec in CODECS {
        let good = Batch::encode(&sample(), codec, None).unwrap().to_bytes();
        for at in 36..good.len() {
            for value in [0, 1, 0x80, 0xff] {
                let mut bad = good.to_vec();
                bad[at] = value;
                let Ok(batch) = decode_fixed(bad) else {
                    continue;
                };
                if let Ok(rows) = batch.rows() {
                    let again = Batch::encode(&rows, Codec::None, None);
                    let again = again.map(|again| again.rows().unwrap().columns);
                    assert_eq!(again, Ok(rows.columns));
                }
                let _ = (batch.check(), batch.slice_from(7));
            }
        }
    }
}

fn numbers(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

/// Two records with these sections beside their timestamps; what is wrong with them.
fn check(parts: &[(u16, Vec<u8>)], expected: &str) {
    let mut all = vec![(format::TIMESTAMPS, 0, vec![0; 16], 16)];
    all.extend(
        parts
            .iter()
            .map(|(id, bytes)| (*id, 0, bytes.clone(), bytes.len() as u32)),
    );
    let batch = decode_fixed(craft(2, Codec::None, &all)).unwrap();
    let found = match batch.rows() {
        Ok(rows) => format!("{:?}", rows.columns.map(|columns| columns.arrays().len())),
        Err(error) => error.to_string(),
    };
    assert_eq!(found, expected);
}

#[test]
fn sections_that_do_not_fit_are_named() {
    const TYPES: u16 = format::COLUMN_TYPES;
    let wrong = |id: u16, what: &str| format!("section {id} of the batch is wrong: {what}");
    let ints = || (16, vec![0; 16]);
    check(&[(TYPES, vec![2]), ints()], "Some(1)");
    check(
        &[ints()],
        &wrong(16, "it is of a column, and no types are there"),
    );
    check(&[(TYPES, vec![2])], &wrong(16, "it is missing"));
    check(
        &[(TYPES, vec![])],
        &wrong(15, "0 columns; 1 to 256 are allowed"),
    );
    check(
        &[(TYPES, vec![2; 257])],
        &wrong(15, "257 columns; 1 to 256 are allowed"),
    );
    check(
        &[(TYPES, vec![0]), ints()],
        &wrong(15, "column 0 has type 0"),
    );
    check(
        &[(TYPES, vec![7]), ints()],
        &wrong(15, "column 0 has type 7"),
    );
    let beyond = (19, vec![0; 16]);
    check(
        &[(TYPES, vec![2]), ints(), beyond],
        &wrong(19, "it is of a column beyond the 1 there are"),
    );
    check(
        &[(TYPES, vec![2]), (16, vec![0; 15])],
        &wrong(16, "it has 15 bytes instead of 16"),
    );
    check(
        &[(TYPES, vec![2]), ints(), (17, vec![0])],
        &wrong(17, "a column of int64 has no bytes of its own"),
    );
    let tail = "bits after the last cell are set";
    check(&[(TYPES, vec![2]), ints(), (18, vec![4])], &wrong(18, tail));
    check(&[(TYPES, vec![1]), (16, vec![4])], &wrong(16, tail));
    let values = (5, numbers(&[0, 0, 0]));
    check(
        &[values, (TYPES, vec![2]), ints()],
        &wrong(5, "there are columns, so there are no value bytes"),
    );
    let text = |offsets: &[u32], bytes: &[u8]| {
        [
            (TYPES, vec![4]),
            (16, numbers(offsets)),
            (17, bytes.to_vec()),
        ]
    };
    check(&text(&[0, 1, 2], b"ab"), "Some(1)");
    let falls = wrong(16, "offsets must begin at 0 and never fall");
    check(&text(&[0, 2, 1], b"a"), &falls);
    check(&text(&[1, 1, 2], b"ab"), &falls);
    check(&text(&[0, 1, u32::MAX], b"ab"), &falls);
    check(
        &text(&[0, 1, 3], b"ab"),
        &wrong(17, "it has 2 bytes instead of 3"),
    );
    let utf8 = batch_error(&text(&[0, 1, 2], "é".as_bytes()));
    assert!(
        utf8.contains("section 16") && utf8.contains("utf-8"),
        "{utf8}"
    );
    let utf8 = batch_error(&text(&[0, 1, 2], b"a\xff"));
    assert!(utf8.to_lowercase().contains("utf-8"), "{utf8}");
}

fn batch_error(parts: &[(u16, Vec<u8>)]) -> String {
    let mut all = vec![(format::TIMESTAMPS, 0, vec![0; 16], 16)];
    all.extend(
        parts
            .iter()
            .map(|(id, bytes)| (*id, 0, bytes.clone(), bytes.len() as u32)),
    );
    let batch = decode_fixed(craft(2, Codec::None, &all)).unwrap();
    batch.rows().unwrap_err().to_string().to_lowercase()
}

#[test]
fn columns_are_even_and_of_a_schemas_types() {
    let ints = |n: i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(0..n)) };
    let check = |arrays: Vec<ArrayRef>, expected: &str| {
        assert_eq!(TypedColumns::new(arrays).unwrap_err().to_string(), expected);
    };
    check(vec![], "typed columns: there are none");
    check(
        vec![ints(1), ints(2)],
        "column typed has 2 rows where there are 1",
    );
    check(
        vec![new_null_array(&DataType::Int32, 1)],
        "typed columns: one has type Int32",
    );
    check(
        vec![ints(1); 257],
        "typed columns: there are 257; at most 256 are allowed",
    );
    let mut rows = sample();
    rows.values = BinaryArray::from_vec(vec![b"x"; 10]);
    assert_eq!(
        rows.check().unwrap_err().to_string(),
        "typed columns: the values have bytes beside them"
    );
}

#[test]
fn rows_without_a_value_join_those_with_columns_and_others_do_not() {
    let mut gone = RowsBuilder::new();
    gone.push(5, Some(b"k"), None, &[]);
    let gone = gone.finish();
    let rows = Rows::concat(&[gone.clone(), sample(), gone]).unwrap();
    let columns = rows.columns.clone().unwrap();
    assert_eq!(columns.len(), 12);
    assert!(
        columns
            .arrays()
            .iter()
            .all(|a| a.is_null(0) && a.is_null(11) && a.is_valid(1))
    );
    assert_eq!(rows.values.null_count(), 3);
    let back = Batch::encode(&rows, Codec::None, None)
        .unwrap()
        .stamped(7, ShardEpoch(1), 2);
    let rest = back.slice_from(12).unwrap().unwrap();
    assert_eq!(rest.rows().unwrap().columns, Some(columns.slice(5, 7)));
    let mut bytes = RowsBuilder::new();
    bytes.push(5, None, Some(b"{}"), &[]);
    let error = Rows::concat(&[sample(), bytes.finish()]).unwrap_err();
    let expected =
        "typed columns: rows of other columns, or of value bytes, cannot stand behind them";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_record_is_no_larger_than_the_limit() {
    let text = |bytes: usize| -> ArrayRef {
        let offsets = OffsetBuffer::from_lengths([0, bytes]);
        let text = Buffer::from_vec(vec![b'x'; bytes]);
        Arc::new(StringArray::new(offsets, text, None::<NullBuffer>))
    };
    let mut rows = RowsBuilder::new();
    (0..2).for_each(|_| rows.push(0, None, Some(b""), &[]));
    let rows = Rows {
        columns: Some(TypedColumns::new(vec![text(RECORD_BYTES_MAX + 1)]).unwrap()),
        ..rows.finish()
    };
    let error = Batch::encode(&rows, Codec::None, None).unwrap_err();
    assert!(error.to_string().contains("record 1"), "{error}");
}

#[test]
fn an_older_reader_refuses_columns_by_name() {
    // what it does with a section that it does not know and that is not optional
    let parts = [(format::TIMESTAMPS, 0, vec![0; 8], 8), (900, 0, vec![], 0)];
    let error = decode_fixed(craft(1, Codec::None, &parts)).unwrap_err();
    assert_eq!(error, BatchError::UnknownSection { id: 900 });
}
