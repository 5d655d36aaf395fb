//! Rows as bytes for languages that box numbers: the same rows, the same checks as without.

use super::*;

/// Memory: 128 the rows 0, 1, 2, 9; 160 the name `h`, 164 code `no`, 168 message `as asked`; from
/// 1024 on keys, values, event times, offsets and a header as they came.
const WAT: &str = r#"(module
  (import "rustmq:etl/data@0.1.0" "[resource-drop]context" (func $context_drop (param i32)))
  (import "rustmq:etl/data@0.1.0" "[resource-drop]batch" (func $batch_drop (param i32)))
  (import "rustmq:etl/data@0.1.0" "[resource-drop]outbox" (func $outbox_drop (param i32)))
  (import "rustmq:etl/packed@0.1.0" "keys" (func $keys (param i32 i32)))
  (import "rustmq:etl/packed@0.1.0" "values" (func $values (param i32 i32)))
  (import "rustmq:etl/packed@0.1.0" "event-times" (func $times (param i32 i32)))
  (import "rustmq:etl/packed@0.1.0" "offsets" (func $offsets (param i32 i32)))
  (import "rustmq:etl/packed@0.1.0" "header" (func $header (param i32 i32 i32 i32)))
  (import "rustmq:etl/packed@0.1.0" "forward" (func $forward (param i32 i32 i32 i32)))
  (import "rustmq:etl/packed@0.1.0" "emit" (func $emit_rows
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "rustmq:etl/packed@0.1.0" "set-event-times" (func $set_times (param i32 i32 i32)))
  (import "rustmq:etl/packed@0.1.0" "set-header"
    (func $set_header (param i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "rustmq:etl/packed@0.1.0" "reject" (func $reject (param i32 i32 i32 i32 i32 i32 i32)))
  (import "rustmq:etl/packed@0.1.0" "retry" (func $retry (param i32 i32 i32 i32 i32 i32 i32 i32)))
  (memory (export "memory") 20)
  (data (i32.const 128) "\00\00\00\00\01\00\00\00\02\00\00\00\09\00\00\00")
  (data (i32.const 160) "h   no  as asked")
  (global $heap (mut i32) (i32.const 65536))
  {realloc}
  (func $at (param $i i32) (result i32)
    (i32.load (i32.add (i32.const 1024) (i32.shl (local.get $i) (i32.const 2)))))
  (func $emit (param $out i32) (param $parents i32) (param $len i32)
    (call $emit_rows (local.get $out) (i32.const 0) (local.get $parents) (local.get $len)
      (call $at (i32.const 0)) (call $at (i32.const 1)) (call $at (i32.const 2))
      (call $at (i32.const 3)) (call $at (i32.const 4)) (call $at (i32.const 5))
      (call $at (i32.const 6)) (call $at (i32.const 7)) (call $at (i32.const 8))
      (call $at (i32.const 9)) (call $at (i32.const 10)) (call $at (i32.const 11))))
  (func (export "rustmq:etl/module@0.1.0#open") (param $context i32) (result i32)
    (call $context_drop (local.get $context))
    (i32.const 0))
  (func (export "rustmq:etl/module@0.1.0#process") (param $rows i32) (param $out i32) (result i32)
    (call $keys (local.get $rows) (i32.const 1024))
    (call $values (local.get $rows) (i32.const 1048))
    (call $times (local.get $rows) (i32.const 1072))
    (call $offsets (local.get $rows) (i32.const 1080))
    (call $header (local.get $rows) (i32.const 160) (i32.const 1) (i32.const 1088))
    {process}
    (call $batch_drop (local.get $rows))
    (call $outbox_drop (local.get $out))
    (i32.const 0)))"#;

fn packed(process: &str) -> Result<Outcome, ProcessError> {
    let wat = WAT.replace("{process}", process);
    run(&mut open(&typed(&wat), &Limits::default()), &rows())
}

#[test]
fn everything_comes_in_and_goes_out() {
    let process = "(call $emit (local.get $out) (i32.const 128) (i32.const 12))
        (call $set_times (local.get $out) (call $at (i32.const 12)) (call $at (i32.const 13)))
        (call $set_header (local.get $out) (i32.const 160) (i32.const 1) (call $at (i32.const 16))
          (call $at (i32.const 17)) (call $at (i32.const 18)) (call $at (i32.const 19))
          (call $at (i32.const 20)) (call $at (i32.const 21)))
        (call $forward (local.get $out) (i32.const 1) (i32.const 132) (i32.const 8))
        (call $emit (local.get $out) (i32.const 128) (i32.const 12))
        (call $set_times (local.get $out) (call $at (i32.const 14)) (call $at (i32.const 15)))
        (call $reject (local.get $out) (i32.const 128) (i32.const 4) (i32.const 164)
          (i32.const 2) (i32.const 168) (i32.const 8))
        (call $retry (local.get $out) (i32.const 136) (i32.const 4) (i32.const 7) (i32.const 164)
          (i32.const 2) (i32.const 168) (i32.const 8))";
    let outcome = packed(process).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        text(&outcome),
        "emit 0 0 a=one @1 h:-\n\
         emit 0 1 -=two @2 h:x\n\
         emit 0 2 c=- @3 h:-\n\
         forward 1 [1, 2]\n\
         emit 0 0 a=one @100\n\
         emit 0 1 -=two @101\n\
         emit 0 2 c=- @102\n\
         reject [0] no: as asked\n\
         retry [2] 7 ms no: as asked\n"
    );
}

#[test]
fn wrong_bytes_end_the_guest() {
    let cases = [
        (
            "(call $forward (local.get $out) (i32.const 1) (i32.const 128) (i32.const 7))",
            "forward: 7 bytes are no whole numbers of 4 bytes",
        ),
        (
            "(call $forward (local.get $out) (i32.const 2) (i32.const 128) (i32.const 8))",
            "forward: port 2, but the node has 2 outputs",
        ),
        (
            "(call $emit (local.get $out) (i32.const 128) (i32.const 16))",
            "emit: row 9, but the batch has 3 rows",
        ),
        (
            "(call $emit (local.get $out) (i32.const 128) (i32.const 8))",
            "emit: keys: 4 offsets for 2 rows",
        ),
        (
            "(call $emit (local.get $out) (i32.const 128) (i32.const 12))
             (call $set_times (local.get $out) (i32.const 128) (i32.const 23))",
            "set-event-times: 23 bytes are no whole numbers of 8 bytes",
        ),
        (
            "(call $set_header (local.get $out) (i32.const 160) (i32.const 1) (i32.const 128)
               (i32.const 4) (i32.const 128) (i32.const 0) (i32.const 0) (i32.const 0))",
            "set-header: there is no emit before it",
        ),
        (
            "(call $emit (local.get $out) (i32.const 128) (i32.const 12))
             (call $set_header (local.get $out) (i32.const 160) (i32.const 1) (i32.const 128)
               (i32.const 15) (i32.const 128) (i32.const 0) (i32.const 0) (i32.const 0))",
            "offsets: 15 bytes are no whole numbers of 4 bytes",
        ),
        (
            "(call $reject (local.get $out) (i32.const 140) (i32.const 4) (i32.const 164)
               (i32.const 2) (i32.const 168) (i32.const 8))",
            "reject: row 9, but the batch has 3 rows",
        ),
    ];
    for (process, expected) in cases {
        let error = packed(process).expect_err("it must not succeed");
        assert!(error.to_string().contains(expected), "{error}");
    }
}
