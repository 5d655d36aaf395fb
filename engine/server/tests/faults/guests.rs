//! Modules as text, so that evil can be spelled out. Each forwards all rows, but does its evil
//! when the values of a batch hold a `!`.
//!
//! Called by: `modules`, `lookup`.

/// What a module built with the SDK carries: its world.
const COMPONENT_TYPE: &[u8] = include_bytes!("../../../../sdk-guest/component-type.bin");

pub const TRAP: &str = "unreachable";
pub const DEEP: &str = "(call $middle)";
pub const LOOP: &str = "(loop $on (br $on))";
pub const EAT: &str = "(loop $on
  (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";
/// Passes rows on that the batch does not have.
pub const LIE: &str = "(i32.store (i32.const 128) (i32.const 99))
  (call $forward (local.get $out) (i32.const 0) (i32.const 128) (i32.const 1))";

/// Memory: 256 the column record of the values; 1024 the heap.
pub fn evil(deed: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
  (import "rustmq:etl/data@0.1.5" "[resource-drop]context" (func $context_drop (param i32)))
  (import "rustmq:etl/data@0.1.5" "[resource-drop]batch" (func $batch_drop (param i32)))
  (import "rustmq:etl/data@0.1.5" "[resource-drop]outbox" (func $outbox_drop (param i32)))
  (import "rustmq:etl/data@0.1.5" "[method]batch.len" (func $len (param i32) (result i32)))
  (import "rustmq:etl/data@0.1.5" "[method]batch.values" (func $values (param i32 i32)))
  (import "rustmq:etl/data@0.1.5" "[method]outbox.forward"
    (func $forward (param i32 i32 i32 i32)))
  (memory (export "memory") 4)
  (global $heap (mut i32) (i32.const 1024))
  (func $take (export "cabi_realloc")
    (param i32 i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.set $heap (i32.add (local.get $at) (local.get $size)))
    (local.get $at))
  (func (export "rustmq:etl/module@0.1.5#open") (param $context i32) (result i32)
    (call $context_drop (local.get $context))
    (i32.const 0))
  (func $innermost unreachable)
  (func $middle (call $innermost))
  (func $process (export "rustmq:etl/module@0.1.5#process") (param $rows i32) (param $out i32) (result i32)
    (local $i i32) (local $n i32) (local $at i32) (local $end i32)
    (global.set $heap (i32.const 1024))
    (call $values (local.get $rows) (i32.const 256))
    (local.set $at (i32.load (i32.const 264)))
    (local.set $end (i32.add (local.get $at) (i32.load (i32.const 268))))
    (block $clean (loop $next
      (br_if $clean (i32.ge_u (local.get $at) (local.get $end)))
      (if (i32.eq (i32.load8_u (local.get $at)) (i32.const 33)) (then {deed}))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next)))
    (local.set $n (call $len (local.get $rows)))
    (local.set $at (call $take (i32.const 0) (i32.const 0) (i32.const 4)
      (i32.mul (local.get $n) (i32.const 4))))
    (block $full (loop $next
      (br_if $full (i32.ge_u (local.get $i) (local.get $n)))
      (i32.store (i32.add (local.get $at) (i32.mul (local.get $i) (i32.const 4))) (local.get $i))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $next)))
    (call $forward (local.get $out) (i32.const 0) (local.get $at) (local.get $n))
    (call $batch_drop (local.get $rows))
    (call $outbox_drop (local.get $out))
    (i32.const 0)))"#
    );
    let mut bytes = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"));
    custom(&mut bytes, "component-type:test", COMPONENT_TYPE);
    bytes
}

/// A module that forwards all rows and says so of itself.
pub fn described() -> Vec<u8> {
    let mut bytes = evil("unreachable");
    custom(&mut bytes, wasm::describe::SECTION, DESCRIBE.as_bytes());
    bytes
}

const DESCRIBE: &str = r#"{"name":"tame","version":"1.2.3","ports":["out"],
  "params":{"type":"object","properties":{"limit":{"type":"integer"}},"additionalProperties":false}}"#;

/// Appends a custom section.
/// Looks the values of its rows up in the table `users`.
pub fn looks_up() -> Vec<u8> {
    let text = include_str!("../../../../pipelines/src/tests/support/lookup.wat");
    let text = text.replace("VERSION", wasm::world::VERSION);
    let mut bytes = wat::parse_str(text).unwrap();
    custom(&mut bytes, "component-type", COMPONENT_TYPE);
    bytes
}

fn custom(bytes: &mut Vec<u8>, name: &str, section: &[u8]) {
    bytes.push(0);
    leb(bytes, 1 + name.len() + section.len());
    bytes.push(name.len() as u8);
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(section);
}

fn leb(bytes: &mut Vec<u8>, mut number: usize) {
    while number > 0x7f {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Wants to call out.
pub fn nosy() -> Vec<u8> {
    let text = r#"(component (import "wasi:http/outgoing-handler@0.2.0" (instance)))"#;
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}

/// For another host.
pub fn foreign() -> Vec<u8> {
    let text = r#"(module (import "env" "now" (func (result i64))))"#;
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}
