//! Typed columns: what comes in goes out, and what no guest can do with them.

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::record_batch::RecordBatch;
use codec::Format;
use model::schema::{Field, FieldType, Schema};
use model::topic::PayloadCodec;

use super::*;
use crate::Edge;

/// Memory: 512 the six fields, 640 their names, 700 answers of open, 800 three numbers, 824 offsets
/// 0, 1, 2, 3 and 840 offsets 0, 2, 1, 3; 856 text `abc`, 859 bytes that are not UTF-8, 1024 columns.
const WAT: &str = r#"(module
  (import "rustmq:etl/data@0.1.0" "[resource-drop]context" (func $context_drop (param i32)))
  (import "rustmq:etl/data@0.1.0" "[resource-drop]batch" (func $batch_drop (param i32)))
  (import "rustmq:etl/data@0.1.0" "[resource-drop]outbox" (func $outbox_drop (param i32)))
  (import "rustmq:etl/data@0.1.0" "[method]batch.values" (func $values (param i32 i32)))
  (import "rustmq:etl/data@0.1.0" "[method]outbox.forward"
    (func $forward (param i32 i32 i32 i32)))
  (import "rustmq:etl/data@0.1.0" "[method]outbox.emit" (func $emit_rows
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "rustmq:etl/data@0.1.0" "[method]outbox.set-event-times"
    (func $set_times (param i32 i32 i32)))
  (import "rustmq:etl/columns@0.1.0" "select" (func $select (param i32 i32 i32 i32 i32)))
  (import "rustmq:etl/columns@0.1.0" "declare" (func $declare (param i32 i32 i32 i32 i32)))
  (import "rustmq:etl/columns@0.1.0" "get-bools" (func $get_bools (param i32 i32 i32)))
  (import "rustmq:etl/columns@0.1.0" "get-ints" (func $get_ints (param i32 i32 i32)))
  (import "rustmq:etl/columns@0.1.0" "get-floats" (func $get_floats (param i32 i32 i32)))
  (import "rustmq:etl/columns@0.1.0" "get-bytes" (func $get_bytes (param i32 i32 i32)))
  (import "rustmq:etl/columns@0.1.0" "emit" (func $emit (param i32 i32 i32 i32 i32)))
  (import "rustmq:etl/columns@0.1.0" "set-keys"
    (func $set_keys (param i32 i32 i32 i32 i32 i32 i32)))
  (import "rustmq:etl/columns@0.1.0" "set-bools"
    (func $set_bools (param i32 i32 i32 i32 i32 i32)))
  (import "rustmq:etl/columns@0.1.0" "set-ints" (func $set_ints (param i32 i32 i32 i32 i32 i32)))
  (import "rustmq:etl/columns@0.1.0" "set-floats"
    (func $set_floats (param i32 i32 i32 i32 i32 i32)))
  (import "rustmq:etl/columns@0.1.0" "set-bytes"
    (func $set_bytes (param i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "rustmq:etl/packed@0.1.0" "get-ints" (func $packed_ints (param i32 i32 i32)))
  (import "rustmq:etl/packed@0.1.0" "get-floats" (func $packed_floats (param i32 i32 i32)))
  (import "rustmq:etl/packed@0.1.0" "set-floats"
    (func $set_packed_floats (param i32 i32 i32 i32 i32 i32)))
  (import "rustmq:etl/packed@0.1.0" "set-keys"
    (func $set_packed_keys (param i32 i32 i32 i32 i32 i32 i32)))
  (import "rustmq:etl/packed@0.1.0" "set-ints"
    (func $set_packed_ints (param i32 i32 i32 i32 i32 i32)))
  (import "rustmq:etl/packed@0.1.0" "get-bytes" (func $packed_bytes (param i32 i32 i32)))
  (import "rustmq:etl/packed@0.1.0" "set-bytes"
    (func $set_packed_bytes (param i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "rustmq:etl/packed@0.1.0" "emit-columns" (func $packed_emit (param i32 i32 i32 i32 i32)))
  (import "rustmq:etl/packed@0.1.0" "values" (func $packed_values (param i32 i32)))
  (import "rustmq:etl/packed@0.1.0" "emit" (func $packed_emit_rows
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (memory (export "memory") 20)
  (data (i32.const 512) "{fields}")
  (data (i32.const 640) "flagcountscorenamerawat")
  (data (i32.const 800) "\01\00\00\00\02\00\00\00")
  (data (i32.const 824) "\00\00\00\00\01\00\00\00\02\00\00\00\03\00\00\00")
  (data (i32.const 840) "\00\00\00\00\02\00\00\00\01\00\00\00\03\00\00\00")
  (data (i32.const 856) "abc\ff\fe\fd")
  (global $heap (mut i32) (i32.const 65536))
  {realloc}
  (func $at (param $i i32) (result i32)
    (i32.load (i32.add (i32.const 1024) (i32.shl (local.get $i) (i32.const 2)))))
  (func (export "rustmq:etl/module@0.1.0#open") (param $context i32) (result i32)
    (local $answer i32)
    {open}
    (call $context_drop (local.get $context))
    (local.get $answer))
  (func (export "rustmq:etl/module@0.1.0#process") (param $rows i32) (param $out i32) (result i32)
    (local $answer i32)
    (global.set $heap (i32.const 65536))
    {process}
    (call $batch_drop (local.get $rows))
    (call $outbox_drop (local.get $out))
    (local.get $answer)))"#;

const NAMES: [(&str, u8); 6] = [
    ("flag", 0),
    ("count", 1),
    ("score", 2),
    ("name", 3),
    ("raw", 4),
    ("at", 5),
];

fn typed_guest(open: &str, process: &str) -> Vec<u8> {
    typed(&typed_wat(open, process))
}

fn typed_wat(open: &str, process: &str) -> String {
    let (mut fields, mut name_at) = (String::new(), 640u32);
    for (name, kind) in NAMES {
        for number in [name_at, name.len() as u32, kind.into()] {
            fields.extend(number.to_le_bytes().iter().map(|b| format!("\\{b:02x}")));
        }
        name_at += name.len() as u32;
    }
    let wat = WAT.replace("{fields}", &fields);
    wat.replace("{open}", open).replace("{process}", process)
}

/// Selects all six fields of input 0 and declares them for port 0.
const BOTH: &str = "(call $select (local.get $context) (i32.const 0) (i32.const 512) (i32.const 6)
      (i32.const 700))
    (if (i32.load8_u (i32.const 700)) (then (local.set $answer (i32.const 700))))
    (call $declare (local.get $context) (i32.const 0) (i32.const 512) (i32.const 6)
      (i32.const 740))
    (if (i32.load8_u (i32.const 740)) (then (local.set $answer (i32.const 740))))";

/// Emits each column as it came, for every row.
const COPY: &str = "(call $get_bools (local.get $rows) (i32.const 0) (i32.const 1024))
    (call $get_ints (local.get $rows) (i32.const 1) (i32.const 1040))
    (call $get_floats (local.get $rows) (i32.const 2) (i32.const 1056))
    (call $get_bytes (local.get $rows) (i32.const 3) (i32.const 1072))
    (call $get_bytes (local.get $rows) (i32.const 4) (i32.const 1096))
    (call $get_ints (local.get $rows) (i32.const 5) (i32.const 1120))
    (call $emit (local.get $out) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
    (call $set_bools (local.get $out) (i32.const 0) (call $at (i32.const 0)) (call $at (i32.const 1))
      (call $at (i32.const 2)) (call $at (i32.const 3)))
    (call $set_ints (local.get $out) (i32.const 1) (call $at (i32.const 4)) (call $at (i32.const 5))
      (call $at (i32.const 6)) (call $at (i32.const 7)))
    (call $set_floats (local.get $out) (i32.const 2) (call $at (i32.const 8)) (call $at (i32.const 9))
      (call $at (i32.const 10)) (call $at (i32.const 11)))
    (call $set_bytes (local.get $out) (i32.const 3) (call $at (i32.const 12))
      (call $at (i32.const 13)) (call $at (i32.const 14)) (call $at (i32.const 15))
      (call $at (i32.const 16)) (call $at (i32.const 17)))
    (call $set_bytes (local.get $out) (i32.const 4) (call $at (i32.const 18))
      (call $at (i32.const 19)) (call $at (i32.const 20)) (call $at (i32.const 21))
      (call $at (i32.const 22)) (call $at (i32.const 23)))
    (call $set_ints (local.get $out) (i32.const 5) (call $at (i32.const 24)) (call $at (i32.const 25))
      (call $at (i32.const 26)) (call $at (i32.const 27)))";

fn schema() -> Arc<Schema> {
    let types = [
        FieldType::Bool,
        FieldType::Int64,
        FieldType::Float64,
        FieldType::String,
        FieldType::Bytes,
        FieldType::Timestamp,
    ];
    let fields = NAMES.iter().zip(types).map(|((name, _), ty)| Field {
        name: (*name).to_owned(),
        ty,
    });
    Arc::new(Schema::new(fields.collect()).expect("it is a schema"))
}

fn edge(name: &str, fields: &Arc<Schema>) -> Edge {
    Edge {
        name: name.to_owned(),
        fields: Some(fields.clone()),
    }
}

pub(super) fn edges() -> OpenContext {
    OpenContext {
        inputs: vec![edge("in", &schema())],
        outputs: vec![edge("out", &schema()), "rest".into()],
        ..context()
    }
}

pub(super) fn batch(rows: usize) -> RecordBatch {
    let present = |row: usize, every: usize| !row.is_multiple_of(every);
    let some = |every: usize| (0..rows).map(move |row| present(row, every).then_some(row));
    let times = TimestampMicrosecondArray::from_iter(some(4).map(|r| r.map(|r| r as i64)));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from_iter(
            some(3).map(|r| r.map(|r| r % 2 == 0)),
        )),
        Arc::new(Int64Array::from_iter_values(0..rows as i64)),
        Arc::new(Float64Array::from_iter(
            some(5).map(|r| r.map(|r| r as f64 / 2.0)),
        )),
        Arc::new(StringArray::from_iter(
            some(2).map(|r| r.map(|r| format!("name {r}"))),
        )),
        Arc::new(BinaryArray::from_iter(
            some(7).map(|r| r.map(|r| [r as u8, 0xff])),
        )),
        Arc::new(times.with_timezone("UTC")),
    ];
    RecordBatch::try_new(schema().to_arrow(), columns).expect("the columns fit the schema")
}

fn plain_rows(count: usize) -> Rows {
    let mut builder = RowsBuilder::new();
    (0..count).for_each(|row| builder.push(row as i64, Some(b"k"), Some(b"v"), &[]));
    builder.finish()
}

fn run_on(guest: &mut Guest, columns: &RecordBatch) -> Result<Outcome, ProcessError> {
    let rows = plain_rows(columns.num_rows());
    let offsets: ScalarBuffer<u64> = (0..rows.len() as u64).collect();
    guest.process(input(Batch {
        columns: Some(columns.clone()),
        ..Batch::new(rows, offsets)
    }))
}

fn opened(process: &str) -> Guest {
    load(&typed_guest(BOTH, process))
        .open(&edges(), &Limits::default())
        .unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn every_type_comes_in_and_goes_out() {
    let mut guest = opened(COPY);
    let whole = batch(300);
    for (from, len) in [(0, 300), (0, 0), (1, 1), (13, 64), (7, 200), (299, 1)] {
        let columns = whole.slice(from, len);
        let outcome = run_on(&mut guest, &columns).unwrap_or_else(|e| panic!("{e}"));
        let [
            Emission::Columns {
                port: 0,
                parents: None,
                columns: out,
                keys: None,
                ..
            },
        ] = &outcome.emissions[..]
        else {
            panic!("one emit of columns: {outcome:?}");
        };
        assert_eq!(out, &columns, "{from} {len}");
    }
}

#[test]
fn packed_numbers_are_the_same() {
    let process = "(call $packed_ints (local.get $rows) (i32.const 5) (i32.const 1024))
        (call $packed_bytes (local.get $rows) (i32.const 3) (i32.const 1040))
        (call $packed_emit (local.get $out) (i32.const 0) (i32.const 1) (i32.const 800) (i32.const 8))
        (call $set_packed_ints (local.get $out) (i32.const 5)
          (i32.add (call $at (i32.const 0)) (i32.const 8)) (i32.const 16)
          (i32.const 0) (i32.const 0))
        (call $packed_emit (local.get $out) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
        (call $set_packed_bytes (local.get $out) (i32.const 3) (call $at (i32.const 4))
          (call $at (i32.const 5)) (call $at (i32.const 6)) (call $at (i32.const 7))
          (call $at (i32.const 8)) (call $at (i32.const 9)))
        (call $packed_floats (local.get $rows) (i32.const 2) (i32.const 1064))
        (call $set_packed_floats (local.get $out) (i32.const 2) (call $at (i32.const 10))
          (call $at (i32.const 11)) (call $at (i32.const 12)) (call $at (i32.const 13)))
        (call $set_packed_keys (local.get $out) (i32.const 824) (i32.const 16) (i32.const 856)
          (i32.const 3) (i32.const 0) (i32.const 0))";
    let columns = batch(3);
    let outcome = run_on(&mut opened(process), &columns).unwrap_or_else(|e| panic!("{e}"));
    let [
        Emission::Columns {
            parents: Some(parents),
            columns: times,
            ..
        },
        Emission::Columns {
            parents: None,
            columns: names,
            keys: Some(keys),
            ..
        },
    ] = &outcome.emissions[..]
    else {
        panic!("two emits of columns: {outcome:?}");
    };
    assert_eq!(parents, &[1, 2]);
    assert_eq!(
        times.column(5).as_ref(),
        columns.column(5).slice(1, 2).as_ref()
    );
    assert_eq!(times.column(0).null_count(), 2, "what is not set is null");
    assert_eq!(names.column(3), columns.column(3));
    assert_eq!(names.column(2), columns.column(2));
    assert_eq!(keys, &BinaryArray::from_vec(vec![b"a", b"b", b"c"]));
}

#[test]
fn values_that_only_columns_hold_are_written_when_asked_for() {
    let format = Format::new(PayloadCodec::Json, schema()).expect("json has columns");
    let process = "(call $values (local.get $rows) (i32.const 1024))
        (call $values (local.get $rows) (i32.const 1024))
        (call $emit_rows (local.get $out) (i32.const 1) (i32.const 824) (i32.const 2)
          (call $at (i32.const 0)) (i32.const 3) (call $at (i32.const 2)) (call $at (i32.const 3))
          (i32.const 0) (i32.const 0)
          (call $at (i32.const 0)) (i32.const 3) (call $at (i32.const 2)) (call $at (i32.const 3))
          (i32.const 0) (i32.const 0))";
    let given = Batch {
        columns: Some(batch(2)),
        unwritten: Some(format.clone()),
        ..Batch::new(plain_rows(2), vec![0, 1].into())
    };
    let outcome = opened(process)
        .process(input(given))
        .unwrap_or_else(|e| panic!("{e}"));
    let [Emission::Emit { keys, values, .. }] = &outcome.emissions[..] else {
        panic!("one emit: {outcome:?}");
    };
    assert_eq!(values, &format.encode(&batch(2)).expect("they are few"));
    assert_eq!(keys, values);
}

#[test]
fn floats_that_are_not_finite_are_null() {
    let process = "(f64.store (i32.const 1200) (f64.const nan))
        (f64.store (i32.const 1208) (f64.const 1.5))
        (call $emit (local.get $out) (i32.const 0) (i32.const 1) (i32.const 800) (i32.const 2))
        (call $set_floats (local.get $out) (i32.const 2) (i32.const 1200) (i32.const 2)
          (i32.const 0) (i32.const 0))
        (f64.store (i32.const 1200) (f64.const -inf))
        (call $emit (local.get $out) (i32.const 0) (i32.const 1) (i32.const 800) (i32.const 2))
        (call $set_packed_floats (local.get $out) (i32.const 2) (i32.const 1200) (i32.const 16)
          (i32.const 0) (i32.const 0))";
    let outcome = run_on(&mut opened(process), &batch(3)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(outcome.emissions.len(), 2);
    for emission in &outcome.emissions {
        let Emission::Columns { columns, .. } = emission else {
            panic!("columns: {emission:?}");
        };
        let expected: ArrayRef = Arc::new(Float64Array::from(vec![None, Some(1.5)]));
        assert_eq!(columns.column(2), &expected);
    }
}

/// `open` that asks for the integers as floats, and sets `score`; its one column is set by the call.
const AS_FLOATS: &str = "(i32.store (i32.const 532) (i32.const 2))
    (call $select (local.get $context) (i32.const 0) (i32.const 524) (i32.const 1)
      (i32.const 700))
    (call $declare (local.get $context) (i32.const 0) (i32.const 536) (i32.const 1)
      (i32.const 740))";
const FLOATS_ON: &str = "(call $get_floats (local.get $rows) (i32.const 0) (i32.const 1024))
    (call $emit (local.get $out) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
    (call $set_floats (local.get $out) (i32.const 0) (call $at (i32.const 0)) (call $at (i32.const 1))
      (call $at (i32.const 2)) (call $at (i32.const 3)))";

#[test]
fn integers_are_the_nearest_floats_where_floats_are_asked_for() {
    let packed = FLOATS_ON.replace("$get_floats", "$packed_floats");
    let packed = packed.replace("(call $at (i32.const 1))", "(i32.const {rows})");
    for rows in [0, 1, 7, 8, 9, 64, 1000] {
        let ends = [i64::MIN, i64::MAX, (1 << 53) + 1, -(1 << 62) - 3, 0, -1];
        let ints = (0..rows as i64).map(|row| match row % 3 {
            0 => Some(ends[row as usize / 3 % ends.len()]),
            1 => Some(row * 7_919),
            _ => (row % 5 > 0).then_some(-row),
        });
        let ints = Int64Array::from_iter(ints);
        let expected: Float64Array = ints.iter().map(|n| n.map(|n| n as f64)).collect();
        let mut columns = batch(rows).columns().to_vec();
        columns[1] = Arc::new(ints);
        let columns = RecordBatch::try_new(schema().to_arrow(), columns).expect("it fits");
        for process in [FLOATS_ON, &packed.replace("{rows}", &rows.to_string())] {
            let module = load(&typed_guest(AS_FLOATS, process));
            let opened = module.open(&edges(), &Limits::default());
            let mut guest = opened.unwrap_or_else(|e| panic!("{e}"));
            let outcome = run_on(&mut guest, &columns).unwrap_or_else(|e| panic!("{e}"));
            let [Emission::Columns { columns, .. }] = &outcome.emissions[..] else {
                panic!("one emit of columns: {outcome:?}");
            };
            assert_eq!(
                columns.column(2).as_ref(),
                &expected as &dyn Array,
                "{rows}"
            );
        }
    }
}

#[test]
fn floats_into_memory_that_is_not_there() {
    let lies = REALLOC.replace("(local.get $at))", "(i32.const -8))");
    let wat = typed_wat(AS_FLOATS, FLOATS_ON).replace("{realloc}", &lies);
    let opened = load(&typed(&wat)).open(&edges(), &Limits::default());
    let mut guest = opened.unwrap_or_else(|e| panic!("{e}"));
    let text = run_on(&mut guest, &batch(3))
        .expect_err("it lies")
        .to_string();
    assert!(text.contains("realloc"), "{text}");
    assert!(guest.is_dead());
}

/// Guests whose runtime frees a list of nothing, as that of componentize-py does, must have made it.
#[test]
fn a_list_of_nothing_is_where_the_guest_says() {
    let place = "(select (local.get $at) (i32.const 4096) (local.get $size)))";
    let realloc = REALLOC.replace("(local.get $at))", place);
    let process = "(call $get_floats (local.get $rows) (i32.const 0) (i32.const 1024))
        (if (i32.ne (call $at (i32.const 2)) (i32.const 4096)) (then unreachable))";
    let wat = typed_wat(AS_FLOATS, process).replace("{realloc}", &realloc);
    let opened = load(&typed(&wat)).open(&edges(), &Limits::default());
    let mut guest = opened.unwrap_or_else(|e| panic!("{e}"));
    let mut columns = batch(3).columns().to_vec();
    columns[1] = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let columns = RecordBatch::try_new(schema().to_arrow(), columns).expect("it fits");
    run_on(&mut guest, &columns).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn what_the_host_makes_of_columns_counts() {
    let each =
        "(call $emit (local.get $out) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))";
    let none =
        "(call $emit (local.get $out) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 0))";
    let two = "(call $emit (local.get $out) (i32.const 0) (i32.const 1) (i32.const 800)
        (i32.const 2))";
    // the names of fields in each row; an array, even of no rows; the keys of parents
    for (call, times, key) in [(each, 50, 1), (none, 700, 1), (two, 100, 100_000)] {
        let key = vec![b'k'; key];
        let mut builder = RowsBuilder::new();
        (0..300).for_each(|row| {
            let key = if row == 1 { &key[..] } else { b"k" };
            builder.push(row, Some(key), Some(b"v"), &[]);
        });
        let (rows, columns) = (builder.finish(), batch(300));
        let offsets: ScalarBuffer<u64> = (0..300).collect();
        let given = Batch {
            columns: Some(columns),
            ..Batch::new(rows, offsets)
        };
        let run = |times: usize| opened(&call.repeat(times)).process(input(given.clone()));
        run(5).unwrap_or_else(|e| panic!("{e}"));
        let text = run(times).expect_err("it is too much").to_string();
        assert!(text.contains("output bytes in one call"), "{call}: {text}");
    }
}

fn refused(context: &OpenContext, open: &str) -> String {
    match load(&typed_guest(open, "")).open(context, &Limits::default()) {
        Ok(_) => "it opened".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn open_agrees_on_the_fields() {
    assert_eq!(refused(&edges(), BOTH), "it opened");
    let mut other = edges();
    other.inputs[0].fields = None;
    let text = refused(&other, BOTH);
    assert!(
        text.contains("no-schema: input `in` has no schema"),
        "{text}"
    );
    let mut less = (*schema()).clone();
    less.fields.pop();
    let less = Arc::new(less);
    other.inputs[0].fields = Some(less.clone());
    let text = refused(&other, BOTH);
    assert!(
        text.contains("`in` has no field `at`; it has flag: bool, count: int64"),
        "{text}"
    );
    let mut changed = (*schema()).clone();
    changed.fields[1].ty = FieldType::String;
    other.inputs[0].fields = Some(Arc::new(changed));
    let text = refused(&other, BOTH);
    assert!(
        text.contains("field-type: field `count` of `in` is string, not int64"),
        "{text}"
    );
    let mut other = edges();
    other.outputs[0].fields = Some(less);
    let text = refused(&other, BOTH);
    assert!(text.contains("output `out` has no field `at`"), "{text}");
    let twice = BOTH.replace(
        "(i32.const 512) (i32.const 6)",
        "(i32.const 512) (i32.const 7)",
    );
    let text = refused(&edges(), &twice);
    assert!(!text.contains("it opened"), "{text}");
    let text = refused(
        &edges(),
        &BOTH.replacen("(i32.const 0)", "(i32.const 3)", 1),
    );
    assert!(text.contains("select: input 3 of 1"), "{text}");
}

#[test]
fn an_output_without_a_schema_gets_what_was_declared() {
    let open = BOTH.replace(
        "$declare (local.get $context) (i32.const 0)",
        "$declare (local.get $context) (i32.const 1)",
    );
    let process = COPY.replace(
        "$emit (local.get $out) (i32.const 0)",
        "$emit (local.get $out) (i32.const 1)",
    );
    let mut guest = load(&typed_guest(&open, &process))
        .open(&edges(), &Limits::default())
        .unwrap_or_else(|e| panic!("{e}"));
    let outcome = run_on(&mut guest, &batch(9)).unwrap_or_else(|e| panic!("{e}"));
    let [
        Emission::Columns {
            port: 1, columns, ..
        },
    ] = &outcome.emissions[..]
    else {
        panic!("one emit of columns: {outcome:?}");
    };
    assert_eq!(columns, &batch(9));
}

/// What a process body over three rows ends with; an emit was begun before it.
fn check(process: &str, expected: &str) {
    let begun = format!(
        "(call $emit (local.get $out) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
         {process}"
    );
    let mut guest = opened(&begun);
    let error = run_on(&mut guest, &batch(3)).expect_err("it must not succeed");
    assert!(error.to_string().contains(expected), "{error}");
    assert!(guest.is_dead());
}

fn set_bytes(column: u8, offsets: &str, data: u32) -> String {
    format!(
        "(call $set_bytes (local.get $out) (i32.const {column}) {offsets} (i32.const {data})
         (i32.const 3) (i32.const 0) (i32.const 0))"
    )
}

#[test]
fn wrong_byte_strings_end_the_guest() {
    let sound = "(i32.const 824) (i32.const 4)";
    let cases = [
        (
            set_bytes(3, "(i32.const 824) (i32.const 3)", 856),
            "set-bytes: field `name`: 3 offsets for 3 rows",
        ),
        (
            set_bytes(3, "(i32.const 840) (i32.const 4)", 856),
            "set-bytes: field `name`: offsets of row 1 go backwards (2 then 1)",
        ),
        (
            set_bytes(3, sound, 859),
            "set-bytes: field `name`: not UTF-8",
        ),
        (
            set_bytes(1, sound, 856),
            "set-bytes: field `count` was declared as int64",
        ),
        (
            set_bytes(9, sound, 856),
            "set-bytes: column 9, but 6 were declared for port 0",
        ),
        (
            format!("{} {}", set_bytes(4, sound, 859), set_bytes(4, sound, 859)),
            "set-bytes: field `raw` was set already",
        ),
    ];
    for (process, expected) in cases {
        check(&process, expected);
    }
}

#[test]
fn wrong_numbers_end_the_guest() {
    let cases = [
        (
            "(call $set_ints (local.get $out) (i32.const 1) (i32.const 800) (i32.const 2)
               (i32.const 0) (i32.const 0))",
            "set-ints: field `count`: 2 values for 3 rows",
        ),
        (
            "(call $set_ints (local.get $out) (i32.const 1) (i32.const 800) (i32.const 3)
               (i32.const 800) (i32.const 2))",
            "set-ints: field `count`: validity has 2 bytes, 3 rows need 1",
        ),
        (
            "(call $set_floats (local.get $out) (i32.const 1) (i32.const 800) (i32.const 3)
               (i32.const 0) (i32.const 0))",
            "set-floats: field `count` was declared as int64",
        ),
        (
            "(call $set_bools (local.get $out) (i32.const 0) (i32.const 800) (i32.const 2)
               (i32.const 0) (i32.const 0))",
            "set-bools: field `flag`: 2 bytes of bits for 3 rows",
        ),
        (
            "(call $set_packed_ints (local.get $out) (i32.const 1) (i32.const 800) (i32.const 23)
               (i32.const 0) (i32.const 0))",
            "set-ints: field `count`: 23 bytes of values for 3 rows",
        ),
        (
            "(call $set_ints (local.get $out) (i32.const 1) (i32.const 1310000) (i32.const 300)
               (i32.const 0) (i32.const 0))",
            "out of bounds",
        ),
        (
            "(call $set_keys (local.get $out) (i32.const 824) (i32.const 3) (i32.const 856)
               (i32.const 3) (i32.const 0) (i32.const 0))",
            "set-keys: 3 offsets for 3 rows",
        ),
        (
            "(call $set_times (local.get $out) (i32.const 800) (i32.const 2))",
            "set-event-times: 2 times for 3 rows",
        ),
    ];
    for (process, expected) in cases {
        check(process, expected);
    }
}

#[test]
fn wrong_calls_end_the_guest() {
    let cases = [
        (
            "(call $forward (local.get $out) (i32.const 0) (i32.const 0) (i32.const 0))
             (call $set_ints (local.get $out) (i32.const 1) (i32.const 800) (i32.const 3)
               (i32.const 0) (i32.const 0))",
            "set-ints: there is no emit of columns before it",
        ),
        (
            "(call $emit (local.get $out) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0))",
            "columns emit: no fields were declared for port 1",
        ),
        (
            "(call $emit (local.get $out) (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 0))",
            "columns emit: port 2, but the node has 2 outputs",
        ),
        (
            "(call $emit (local.get $out) (i32.const 0) (i32.const 1) (i32.const 856) (i32.const 0))
             (call $emit (local.get $out) (i32.const 0) (i32.const 1) (i32.const 836) (i32.const 1))",
            "columns emit: row 3, but the batch has 3 rows",
        ),
        (
            "(call $packed_emit (local.get $out) (i32.const 0) (i32.const 1) (i32.const 800)
               (i32.const 7))",
            "emit-columns: 7 bytes are no whole numbers of 4 bytes",
        ),
        (
            "(call $get_ints (local.get $rows) (i32.const 3) (i32.const 1024))",
            "get-ints: field `name` was selected as string",
        ),
        (
            "(call $get_ints (local.get $rows) (i32.const 6) (i32.const 1024))",
            "get-ints: column 6, but the module selected 6 of input 0",
        ),
        (
            "(loop $on (call $emit (local.get $out) (i32.const 0) (i32.const 0) (i32.const 0)
               (i32.const 0)) (br $on))",
            "limit of 1048576 output bytes in one call",
        ),
    ];
    for (process, expected) in cases {
        check(process, expected);
    }
}
