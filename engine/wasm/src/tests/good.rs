//! What a guest can do, seen from the host: data in, text out.

use arrow::array::Array;
use model::rows::RowsBuilder;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::column::check_offsets;

fn check(process: &str, expected: &str) {
    let outcome = super::process(process).unwrap_or_else(|e| panic!("{e}"));
    let expected: Vec<&str> = expected
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    assert_eq!(text(&outcome).lines().collect::<Vec<_>>(), expected);
}

const FORWARD: &str =
    "(call $forward (local.get $out) (i32.const 0) (i32.const 128) (i32.const 3))";

/// Emits keys and values as they came, for parents 0, 1, 2.
const COPY: &str = "(call $keys (local.get $rows) (i32.const 256))
    (call $values (local.get $rows) (i32.const 280))
    (call $emit (local.get $out) (i32.const 1) (i32.const 128) (i32.const 3)
      (i32.load (i32.const 256)) (i32.load (i32.const 260)) (i32.load (i32.const 264))
      (i32.load (i32.const 268)) (i32.load (i32.const 272)) (i32.load (i32.const 276))
      (i32.load (i32.const 280)) (i32.load (i32.const 284)) (i32.load (i32.const 288))
      (i32.load (i32.const 292)) (i32.load (i32.const 296)) (i32.load (i32.const 300)))";

#[test]
fn forwards_in_the_order_of_the_calls() {
    check(
        "(call $forward (local.get $out) (i32.const 1) (i32.const 132) (i32.const 2))
         (call $forward (local.get $out) (i32.const 0) (i32.const 128) (i32.const 1))",
        "forward 1 [1, 2]
         forward 0 [0]",
    );
}

#[test]
fn columns_come_in_and_go_out_whole() {
    check(COPY, "emit 1 0 a=one\nemit 1 1 -=two\nemit 1 2 c=-");
}

#[test]
fn columns_of_sliced_rows_start_at_zero() {
    let mut builder = RowsBuilder::new();
    for i in 0..40i64 {
        let value = format!("value {i}");
        let key = (i % 3 != 0).then_some(b"key".as_slice());
        builder.push(i, key, Some(value.as_bytes()), &[]);
    }
    let rows = builder.finish().slice(11, 3);
    let mut guest = open(&guest("", COPY), &Limits::default());
    let outcome = run(&mut guest, &rows).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        text(&outcome),
        "emit 1 0 key=value 11\nemit 1 1 -=value 12\nemit 1 2 key=value 13\n"
    );
}

#[test]
fn event_times_headers_and_offsets() {
    let process = format!(
        "{COPY}
        (call $offsets (local.get $rows) (i32.const 304))
        (call $set_times (local.get $out) (i32.load (i32.const 304)) (i32.load (i32.const 308)))
        (call $header (local.get $rows) (i32.const 304) (i32.const 0) (i32.const 312))
        (call $header (local.get $rows) (i32.const 311) (i32.const 0) (i32.const 312))
        (i32.store8 (i32.const 304) (i32.const 104))
        (call $header (local.get $rows) (i32.const 304) (i32.const 1) (i32.const 312))
        (call $set_header (local.get $out) (i32.const 176) (i32.const 2)
          (i32.load (i32.const 312)) (i32.load (i32.const 316)) (i32.load (i32.const 320))
          (i32.load (i32.const 324)) (i32.load (i32.const 328)) (i32.load (i32.const 332)))"
    );
    check(
        &process,
        "emit 1 0 a=one @100 ab:-
         emit 1 1 -=two @101 ab:x
         emit 1 2 c=- @102 ab:-",
    );
}

#[test]
fn rejections_and_retries() {
    check(
        "(call $reject (local.get $out) (i32.const 132) (i32.const 1)
           (i32.const 176) (i32.const 1) (i32.const 177) (i32.const 2))
         (call $retry (local.get $out) (i32.const 136) (i32.const 1) (i32.const 250)
           (i32.const 176) (i32.const 3) (i32.const 176) (i32.const 2))",
        "reject [1] a: bc
         retry [2] 250 ms abc: ab",
    );
}

#[test]
fn a_failure_is_no_trap() {
    let mut guest = open(
        &guest("", "(local.set $answer (i32.const 64))"),
        &Limits::default(),
    );
    for _ in 0..3 {
        let failed = run(&mut guest, &rows()).expect_err("it fails on purpose");
        let (code, message) = ("failed".to_owned(), "on purpose".to_owned());
        assert_eq!(failed, ProcessError::Failed { code, message });
        assert!(!guest.is_dead());
    }
}

#[test]
fn an_instance_stays_warm() {
    let mut guest = open(&guest("", FORWARD), &Limits::default());
    for _ in 0..1000 {
        let outcome = run(&mut guest, &rows()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(text(&outcome), "forward 0 [0, 1, 2]\n");
    }
}

#[test]
fn what_a_failed_call_emitted_does_not_count() {
    let body = format!(
        "{FORWARD} (if (i32.eqz (i32.load (i32.const 400)))
           (then (i32.store (i32.const 400) (i32.const 1)) (local.set $answer (i32.const 64))))"
    );
    let mut guest = open(&guest("", &body), &Limits::default());
    assert!(run(&mut guest, &rows()).is_err());
    let outcome = run(&mut guest, &rows()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(text(&outcome), "forward 0 [0, 1, 2]\n");
}

#[test]
fn an_empty_batch_is_fine() {
    let rows = rows().slice(0, 0);
    let mut guest = open(
        &guest("", "(drop (call $len (local.get $rows)))"),
        &Limits::default(),
    );
    let outcome = run(&mut guest, &rows).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((outcome, rows.values.len()), (Outcome::default(), 0));
}

#[test]
fn open_reads_its_params() {
    // the text is {"a":1}: seven bytes, else it traps
    let open_body = "(call $params (local.get $context) (i32.const 256))
        (if (i32.ne (i32.load (i32.const 260)) (i32.const 7)) (then unreachable))";
    open(&guest(open_body, ""), &Limits::default());
}

/// Emits every key and value of a batch of up to 256 rows, from parents 0, 1, 2, ….
const COPY_ALL: &str = "(loop $on
      (i32.store (i32.add (i32.const 1024) (i32.shl (local.get $i) (i32.const 2)))
        (local.get $i))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $on (i32.lt_u (local.get $i) (i32.const 256))))
    (call $keys (local.get $rows) (i32.const 256))
    (call $values (local.get $rows) (i32.const 280))
    (call $emit (local.get $out) (i32.const 0)
      (i32.const 1024) (call $len (local.get $rows))
      (i32.load (i32.const 256)) (i32.load (i32.const 260)) (i32.load (i32.const 264))
      (i32.load (i32.const 268)) (i32.load (i32.const 272)) (i32.load (i32.const 276))
      (i32.load (i32.const 280)) (i32.load (i32.const 284)) (i32.load (i32.const 288))
      (i32.load (i32.const 292)) (i32.load (i32.const 296)) (i32.load (i32.const 300)))";

fn cell() -> impl Strategy<Value = Option<Vec<u8>>> {
    option::of(vec(any::<u8>(), 0..40))
}

proptest! {
    /// Whatever rows go in, sliced anywhere, come out of a guest that copies them.
    #[test]
    fn columns_survive_the_boundary(
        cells in vec((cell(), cell()), 1..200),
        from in 0usize..200,
        len in 0usize..200,
    ) {
        let mut builder = RowsBuilder::new();
        for (key, value) in &cells {
            builder.push(0, key.as_deref(), value.as_deref(), &[]);
        }
        let from = from.min(cells.len());
        let len = len.min(cells.len() - from);
        let rows = builder.finish().slice(from, len);
        static COPIER: OnceLock<Module> = OnceLock::new();
        let module = COPIER.get_or_init(|| load(&guest("", COPY_ALL)));
        let mut guest = module.open(&context(), &Limits::default()).expect("it opens");
        let outcome = run(&mut guest, &rows).expect("it only copies");
        let [Emission::Emit { parents, keys, values, .. }] = &outcome.emissions[..] else {
            panic!("one emit: {outcome:?}");
        };
        prop_assert_eq!(parents, &(0..len as u32).collect::<Vec<_>>());
        for (row, (key, value)) in cells[from..from + len].iter().enumerate() {
            let at = |column: &arrow::array::BinaryArray| {
                column.is_valid(row).then(|| column.value(row).to_vec())
            };
            prop_assert_eq!((&at(keys), &at(values)), (key, value));
        }
    }

    /// Offsets that pass the check slice the data without a panic, and nothing else passes.
    #[test]
    fn only_sound_offsets_pass(offsets in vec(0u32..6, 0..5), data in 0usize..6, rows in 0usize..4) {
        let sound = offsets.len() == rows + 1
            && offsets[0] == 0
            && offsets.is_sorted()
            && offsets[rows] as usize == data;
        prop_assert_eq!(check_offsets("test", &offsets, data, rows).is_ok(), sound);
    }
}
