//! A small guest as text, whose rows say what it shall do with them.
//!
//! Called by: `tests`. The first byte of a value decides: `t` traps, `l` loops for ever, `r` is
//! rejected, `w` asks for a retry, `e` fails the call, the byte in `drop` is filtered; all else
//! is forwarded to the first output.

/// The guest as a core module with its component type; `drop` makes versions differ.
pub(crate) fn guest(drop: char, open: &str) -> Vec<u8> {
    encode(
        &WAT.replace("{drop}", &(drop as u32).to_string())
            .replace("{open}", open),
    )
}

/// A guest that opens, and traps on whatever comes.
pub(crate) fn broken() -> Vec<u8> {
    let always = WAT.replace(
        "(i32.eq (local.get $byte) (i32.const 116))",
        "(i32.const 1)",
    );
    encode(&always.replace("{drop}", "0").replace("{open}", ""))
}

/// The same with another digest.
pub(crate) fn broken_otherwise() -> Vec<u8> {
    let mut bytes = broken();
    // a custom section named `x`
    bytes.extend([0, 2, 1, b'x']);
    bytes
}

/// A guest that loops for ever on `from` instead of `l`, or traps on it.
pub(crate) fn evil(from: char, traps: bool) -> Vec<u8> {
    let byte = if traps { 116 } else { 108 };
    let other = WAT.replace(
        &format!("(i32.eq (local.get $byte) (i32.const {byte}))"),
        &format!("(i32.eq (local.get $byte) (i32.const {}))", from as u32),
    );
    encode(&other.replace("{drop}", "0").replace("{open}", ""))
}

/// A guest that takes a MiB with every call and never gives it back.
pub(crate) fn leaking() -> Vec<u8> {
    let begins = "(global.set $heap (i32.const 4096))\n    (call $values";
    assert_eq!(WAT.matches(begins).count(), 1);
    let leaks = format!("(drop (memory.grow (i32.const 16))) {begins}");
    let other = WAT.replace(begins, &leaks);
    encode(&other.replace("{drop}", "0").replace("{open}", ""))
}

/// A guest that traps wherever it is given more than one row.
pub(crate) fn solitary() -> Vec<u8> {
    let counted = "(local.set $n (i32.sub (i32.load (i32.const 260)) (i32.const 1)))";
    assert!(WAT.contains(counted));
    let traps = "(if (i32.gt_s (local.get $n) (i32.const 1)) (then unreachable))";
    let other = WAT.replace(counted, &format!("{counted} {traps}"));
    encode(&other.replace("{drop}", "0").replace("{open}", ""))
}

/// A guest that leaves the rows behind one that it asks to have again, as the SDKs do.
pub(crate) fn leaves() -> Vec<u8> {
    let goes_on = "(i32.const 132) (i32.const 7))
              (br $handled)))
            (if (i32.eq (local.get $byte) (i32.const 101))";
    assert_eq!(WAT.matches(goes_on).count(), 1);
    let other = WAT.replace(goes_on, &goes_on.replace("$handled", "$done"));
    encode(&other.replace("{drop}", "0").replace("{open}", ""))
}

/// A guest that rejects a row twice, in two calls.
pub(crate) fn insists() -> Vec<u8> {
    let call = "(call $reject (local.get $out) (i32.const 512) (i32.const 1)
                (i32.const 128) (i32.const 4) (i32.const 132) (i32.const 7))";
    assert!(WAT.contains(call));
    let other = WAT.replace(call, &format!("{call} {call}"));
    encode(&other.replace("{drop}", "0").replace("{open}", ""))
}

/// A guest that sends everything to the second output.
pub(crate) fn elsewhere() -> Vec<u8> {
    let second = "(call $forward (local.get $out) (i32.const 1)";
    let other = WAT.replace("(call $forward (local.get $out) (i32.const 0)", second);
    encode(&other.replace("{drop}", "0").replace("{open}", ""))
}

/// A guest that lets its rows through in the opposite order.
pub(crate) fn backwards() -> Vec<u8> {
    let row = "(i32.store (i32.add (i32.const 131072) (i32.shl (local.get $count) (i32.const 2)))";
    let rows = "(call $forward (local.get $out) (i32.const 0) (i32.const 131072)";
    assert!(WAT.contains(row) && WAT.contains(rows));
    // the list of rows grows downwards, to where its first was
    let other = WAT.replace(
        row,
        &row.replace("i32.add (i32.const 131072)", "i32.sub (i32.const 135168)"),
    );
    let first = "(i32.sub (i32.const 135172) (i32.shl (local.get $count) (i32.const 2)))";
    let other = other.replace(rows, &rows.replace("(i32.const 131072)", first));
    encode(&other.replace("{drop}", "0").replace("{open}", ""))
}

/// The guest over typed columns, but it leaves `n` out.
pub(crate) fn columns_without_n() -> Vec<u8> {
    let call = "(call $set_ints (local.get $out) (i32.const 0) (i32.load (i32.const 256))
      (i32.load (i32.const 260)) (i32.load (i32.const 264)) (i32.load (i32.const 268)))";
    assert!(COLUMNS.contains(call));
    encode_columns(&COLUMNS.replace(call, ""))
}

/// A guest that lets `e` through, on which the others fail.
pub(crate) fn mended() -> Vec<u8> {
    let never = WAT.replace(
        "(i32.eq (local.get $byte) (i32.const 101))",
        "(i32.const 0)",
    );
    encode(&never.replace("{drop}", "0").replace("{open}", ""))
}

/// A guest over typed columns `n: int64` and `s: string`: emits them as they came on port 0, but
/// traps on a row whose text begins with `t`, and forwards every row on port 1. It counts its `rows`.
pub(crate) fn columns() -> Vec<u8> {
    columns_counting("rows")
}

/// The same with another name for the counter, of four bytes.
pub(crate) fn columns_counting(name: &str) -> Vec<u8> {
    encode_columns(&COLUMNS.replace("\"rows\"", &format!("\"{name}\"")))
}

/// A guest that looks its rows' values up in the table `users`: the row becomes the key, what was found
/// the value.
pub(crate) fn looks_up() -> Vec<u8> {
    encode(&include_str!("lookup.wat").replace("VERSION", wasm::world::VERSION))
}

fn encode_columns(wat: &str) -> Vec<u8> {
    let fields: String = [600u32, 1, 1, 601, 1, 3]
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .map(|byte| format!("\\{byte:02x}"))
        .collect();
    encode(&wat.replace("{fields}", &fields))
}

fn encode(text: &str) -> Vec<u8> {
    let mut bytes = wat::parse_str(text).unwrap_or_else(|e| panic!("{e}"));
    let section = wasm::world::component_type_section().expect("wit/ is valid");
    let name = "component-type:test";
    bytes.push(0);
    leb(&mut bytes, 1 + name.len() + section.len());
    bytes.push(name.len() as u8);
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(&section);
    bytes
}

fn leb(bytes: &mut Vec<u8>, mut number: usize) {
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        bytes.push(if number == 0 { low } else { low | 0x80 });
        if number == 0 {
            return;
        }
    }
}

const WAT: &str = r#"(module
  (import "rustmq:etl/data@0.1.5" "[resource-drop]context" (func $context_drop (param i32)))
  (import "rustmq:etl/data@0.1.5" "[resource-drop]batch" (func $batch_drop (param i32)))
  (import "rustmq:etl/data@0.1.5" "[resource-drop]outbox" (func $outbox_drop (param i32)))
  (import "rustmq:etl/data@0.1.5" "[method]batch.values" (func $values (param i32 i32)))
  (import "rustmq:etl/data@0.1.5" "[method]outbox.forward"
    (func $forward (param i32 i32 i32 i32)))
  (import "rustmq:etl/data@0.1.5" "[method]outbox.reject"
    (func $reject (param i32 i32 i32 i32 i32 i32 i32)))
  (import "rustmq:etl/data@0.1.5" "[method]outbox.retry"
    (func $retry (param i32 i32 i32 i32 i32 i32 i32 i32)))
  (memory (export "memory") 3)
  (data (i32.const 64) "\01\00\00\00\54\00\00\00\06\00\00\00\5a\00\00\00\0a\00\00\00failedon purpose")
  (data (i32.const 128) "codewhy not")
  (global $heap (mut i32) (i32.const 4096))
  (func (export "cabi_realloc") (param i32 i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and
      (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
      (i32.sub (i32.const 0) (local.get $align))))
    (global.set $heap (i32.add (local.get $at) (local.get $size)))
    (local.get $at))
  (func (export "rustmq:etl/module@0.1.5#open") (param $context i32) (result i32)
    {open}
    (call $context_drop (local.get $context))
    (i32.const 0))
  (func (export "rustmq:etl/module@0.1.5#process") (param $rows i32) (param $out i32) (result i32)
    (local $answer i32) (local $i i32) (local $n i32) (local $count i32) (local $byte i32)
    (global.set $heap (i32.const 4096))
    (call $values (local.get $rows) (i32.const 256))
    (local.set $n (i32.sub (i32.load (i32.const 260)) (i32.const 1)))
    (block $done
      (loop $next
        (br_if $done (i32.ge_s (local.get $i) (local.get $n)))
        (local.set $byte (i32.load8_u (i32.add (i32.load (i32.const 264))
          (i32.load (i32.add (i32.load (i32.const 256)) (i32.shl (local.get $i) (i32.const 2)))))))
        (i32.store (i32.const 512) (local.get $i))
        (block $handled
          (block $pass
            (if (i32.eq (local.get $byte) (i32.const 116)) (then unreachable))
            (if (i32.eq (local.get $byte) (i32.const 108)) (then (loop $ever (br $ever))))
            (if (i32.eq (local.get $byte) (i32.const 114)) (then
              (call $reject (local.get $out) (i32.const 512) (i32.const 1)
                (i32.const 128) (i32.const 4) (i32.const 132) (i32.const 7))
              (br $handled)))
            (if (i32.eq (local.get $byte) (i32.const 119)) (then
              (call $retry (local.get $out) (i32.const 512) (i32.const 1) (i32.const 1)
                (i32.const 128) (i32.const 4) (i32.const 132) (i32.const 7))
              (br $handled)))
            (if (i32.eq (local.get $byte) (i32.const 101)) (then
              (local.set $answer (i32.const 64)) (br $handled)))
            (br_if $handled (i32.eq (local.get $byte) (i32.const {drop}))))
          (i32.store (i32.add (i32.const 131072) (i32.shl (local.get $count) (i32.const 2)))
            (local.get $i))
          (local.set $count (i32.add (local.get $count) (i32.const 1))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))
    (call $forward (local.get $out) (i32.const 0) (i32.const 131072) (local.get $count))
    (call $batch_drop (local.get $rows))
    (call $outbox_drop (local.get $out))
    (local.get $answer)))"#;

const COLUMNS: &str = r#"(module
  (import "rustmq:etl/data@0.1.5" "[resource-drop]context" (func $context_drop (param i32)))
  (import "rustmq:etl/data@0.1.5" "[resource-drop]batch" (func $batch_drop (param i32)))
  (import "rustmq:etl/data@0.1.5" "[resource-drop]outbox" (func $outbox_drop (param i32)))
  (import "rustmq:etl/data@0.1.5" "[method]batch.len" (func $len (param i32) (result i32)))
  (import "rustmq:etl/data@0.1.5" "[method]outbox.forward" (func $forward (param i32 i32 i32 i32)))
  (import "rustmq:etl/columns@0.1.5" "select" (func $select (param i32 i32 i32 i32 i32)))
  (import "rustmq:etl/columns@0.1.5" "declare" (func $declare (param i32 i32 i32 i32 i32)))
  (import "rustmq:etl/columns@0.1.5" "get-ints" (func $get_ints (param i32 i32 i32)))
  (import "rustmq:etl/columns@0.1.5" "get-bytes" (func $get_bytes (param i32 i32 i32)))
  (import "rustmq:etl/columns@0.1.5" "emit" (func $emit (param i32 i32 i32 i32 i32)))
  (import "rustmq:etl/columns@0.1.5" "set-ints" (func $set_ints (param i32 i32 i32 i32 i32 i32)))
  (import "rustmq:etl/columns@0.1.5" "set-bytes"
    (func $set_bytes (param i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "rustmq:etl/telemetry@0.1.5" "counter" (func $counter (param i32 i32 i32)))
  (import "rustmq:etl/telemetry@0.1.5" "add" (func $add (param i32 i32 i32 i32)))
  (memory (export "memory") 3)
  (data (i32.const 512) "{fields}")
  (data (i32.const 600) "ns")
  (data (i32.const 610) "rows")
  (global $heap (mut i32) (i32.const 4096))
  (func (export "cabi_realloc") (param i32 i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and
      (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
      (i32.sub (i32.const 0) (local.get $align))))
    (global.set $heap (i32.add (local.get $at) (local.get $size)))
    (local.get $at))
  (func (export "rustmq:etl/module@0.1.5#open") (param $context i32) (result i32)
    (local $answer i32)
    (call $select (local.get $context) (i32.const 0) (i32.const 512) (i32.const 2) (i32.const 700))
    (if (i32.load8_u (i32.const 700)) (then (local.set $answer (i32.const 700))))
    (call $declare (local.get $context) (i32.const 0) (i32.const 512) (i32.const 2)
      (i32.const 740))
    (if (i32.load8_u (i32.const 740)) (then (local.set $answer (i32.const 740))))
    (call $counter (i32.const 610) (i32.const 4) (i32.const 780))
    (call $context_drop (local.get $context))
    (local.get $answer))
  (func (export "rustmq:etl/module@0.1.5#process") (param $rows i32) (param $out i32) (result i32)
    (local $i i32) (local $n i32) (local $from i32)
    (global.set $heap (i32.const 4096))
    (local.set $n (call $len (local.get $rows)))
    (i64.store (i32.const 824) (i64.extend_i32_u (local.get $n)))
    (call $add (i32.const 816) (i32.const 1) (i32.const 824) (i32.const 1))
    (call $get_ints (local.get $rows) (i32.const 0) (i32.const 256))
    (call $get_bytes (local.get $rows) (i32.const 1) (i32.const 272))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $i) (local.get $n)))
        (i32.store (i32.add (i32.const 131072) (i32.shl (local.get $i) (i32.const 2)))
          (local.get $i))
        (local.set $from (i32.add (i32.load (i32.const 272)) (i32.shl (local.get $i) (i32.const 2))))
        (if (i32.lt_u (i32.load (local.get $from)) (i32.load offset=4 (local.get $from)))
          (then (if (i32.eq (i32.const 116) (i32.load8_u
              (i32.add (i32.load (i32.const 280)) (i32.load (local.get $from)))))
            (then unreachable))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))
    (call $emit (local.get $out) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
    (call $set_ints (local.get $out) (i32.const 0) (i32.load (i32.const 256))
      (i32.load (i32.const 260)) (i32.load (i32.const 264)) (i32.load (i32.const 268)))
    (call $set_bytes (local.get $out) (i32.const 1) (i32.load (i32.const 272))
      (i32.load (i32.const 276)) (i32.load (i32.const 280)) (i32.load (i32.const 284))
      (i32.load (i32.const 288)) (i32.load (i32.const 292)))
    (call $forward (local.get $out) (i32.const 1) (i32.const 131072) (local.get $n))
    (call $batch_drop (local.get $rows))
    (call $outbox_drop (local.get $out))
    (i32.const 0)))"#;
