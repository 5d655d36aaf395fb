//! Tests of the sandbox. Guests are small core modules written as text, with the world embedded,
//! so that evil can be spelled out; the real SDK is tested in `server`, where it can be built.
//!
//! - `good` what a guest can do; `evil` what none can; `load` what is refused before it runs
//! - `columns` typed columns, good and evil; `packed` numbers as bytes; `telemetry` log and metrics
//! - `released` components of released versions; `state` what modules keep, `migration` how it changes;
//!   `lookup` tables
//! - `floods` what wasmtime counts, and what is said with too many bytes; `bounds` every other limit by name

mod bounds;
mod columns;
mod evil;
mod floods;
mod good;
mod http;
mod load;
mod lookup;
mod migration;
mod packed;
mod released;
mod state;
mod telemetry;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use arrow::array::Array;
use arrow::buffer::ScalarBuffer;
use model::rows::{Rows, RowsBuilder};

use crate::{
    Batch, Emission, Grants, Guest, Host, HostConfig, Input, Limits, Module, OpenContext, Outcome,
    ProcessError, world,
};

fn host() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(|| Host::new(HostConfig::default()).expect("the engine starts"))
}

/// A core module around the bodies of `open` and `process`, with its component type. Its text
/// says version 0.1.0, where it began.
fn guest(open: &str, process: &str) -> Vec<u8> {
    typed(&wat(open, process))
}

fn typed(wat: &str) -> Vec<u8> {
    with_section(
        wat,
        &world::component_type_section().expect("wit/ is valid"),
    )
}

/// `{realloc}` of a guest as text whose memory is large enough: what is taken is never given back.
const REALLOC: &str = r#"(func (export "cabi_realloc")
    (param i32 i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and
      (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
      (i32.sub (i32.const 0) (local.get $align))))
    (global.set $heap (i32.add (local.get $at) (local.get $size)))
    (local.get $at))"#;

fn with_section(wat: &str, section: &[u8]) -> Vec<u8> {
    let wat = wat.replace("{realloc}", REALLOC);
    let wat = wat.replace("@0.1.0", &format!("@{}", world::VERSION));
    let mut bytes = wat::parse_str(&wat).unwrap_or_else(|e| panic!("{e}"));
    custom(&mut bytes, "component-type:test", section);
    bytes
}

/// Appends a custom section.
fn custom(bytes: &mut Vec<u8>, name: &str, section: &[u8]) {
    bytes.push(0);
    leb(bytes, 1 + name.len() + section.len());
    bytes.push(name.len() as u8);
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(section);
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

/// Memory: 0 answer ok; 64 an answer `failed`/`on purpose`; 128 the rows 0, 1, 2, 9; 160 offsets
/// 0, 1, 3; 176 text `abc`; 192 offsets 0, 3, 1; 208 offsets 1, 2, 3; 224 bytes that are not
/// UTF-8; 256 space for answers; 4096 the heap.
fn wat(open: &str, process: &str) -> String {
    format!(
        r#"(module
  (import "rustmq:etl/data@0.1.0" "[resource-drop]context" (func $context_drop (param i32)))
  (import "rustmq:etl/data@0.1.0" "[resource-drop]batch" (func $batch_drop (param i32)))
  (import "rustmq:etl/data@0.1.0" "[resource-drop]outbox" (func $outbox_drop (param i32)))
  (import "rustmq:etl/data@0.1.0" "[method]context.params"
    (func $params (param i32 i32)))
  (import "rustmq:etl/data@0.1.0" "[method]batch.len" (func $len (param i32) (result i32)))
  (import "rustmq:etl/data@0.1.0" "[method]batch.keys" (func $keys (param i32 i32)))
  (import "rustmq:etl/data@0.1.0" "[method]batch.values" (func $values (param i32 i32)))
  (import "rustmq:etl/data@0.1.0" "[method]batch.header"
    (func $header (param i32 i32 i32 i32)))
  (import "rustmq:etl/data@0.1.0" "[method]batch.event-times"
    (func $times (param i32 i32)))
  (import "rustmq:etl/data@0.1.0" "[method]batch.offsets" (func $offsets (param i32 i32)))
  (import "rustmq:etl/data@0.1.0" "[method]outbox.forward"
    (func $forward (param i32 i32 i32 i32)))
  (import "rustmq:etl/data@0.1.0" "[method]outbox.emit"
    (func $emit (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "rustmq:etl/data@0.1.0" "[method]outbox.set-event-times"
    (func $set_times (param i32 i32 i32)))
  (import "rustmq:etl/data@0.1.0" "[method]outbox.set-header"
    (func $set_header (param i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "rustmq:etl/data@0.1.0" "[method]outbox.reject"
    (func $reject (param i32 i32 i32 i32 i32 i32 i32)))
  (import "rustmq:etl/data@0.1.0" "[method]outbox.retry"
    (func $retry (param i32 i32 i32 i32 i32 i32 i32 i32)))
  (memory (export "memory") 2)
  (table $table 1 funcref)
  (data (i32.const 64) "\01\00\00\00\54\00\00\00\06\00\00\00\5a\00\00\00\0a\00\00\00failedon purpose")
  (data (i32.const 128) "\00\00\00\00\01\00\00\00\02\00\00\00\09\00\00\00")
  (data (i32.const 160) "\00\00\00\00\01\00\00\00\03\00\00\00")
  (data (i32.const 176) "abc")
  (data (i32.const 192) "\00\00\00\00\03\00\00\00\01\00\00\00")
  (data (i32.const 208) "\01\00\00\00\02\00\00\00\03\00\00\00")
  (data (i32.const 224) "\ff\fe\fd")
  (global $heap (mut i32) (i32.const 4096))
  (func (export "cabi_realloc") (param i32 i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and
      (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
      (i32.sub (i32.const 0) (local.get $align))))
    (global.set $heap (i32.add (local.get $at) (local.get $size)))
    (block $roomy
      (br_if $roomy (i32.lt_u (global.get $heap) (i32.shl (memory.size) (i32.const 16))))
      (drop (memory.grow (i32.add (i32.shr_u (local.get $size) (i32.const 16)) (i32.const 1)))))
    (local.get $at))
  (func $again (result i32) (i32.add (call $again) (i32.const 1)))
  (func $deep_inside unreachable)
  (func (export "rustmq:etl/module@0.1.0#open") (param $context i32) (result i32)
    (local $answer i32)
    {open}
    (call $context_drop (local.get $context))
    (local.get $answer))
  (func $process (export "rustmq:etl/module@0.1.0#process") (param $rows i32) (param $out i32) (result i32)
    (local $answer i32) (local $i i32)
    (global.set $heap (i32.const 4096))
    {process}
    (call $batch_drop (local.get $rows))
    (call $outbox_drop (local.get $out))
    (local.get $answer)))"#
    )
}

fn load(bytes: &[u8]) -> Module {
    host()
        .load(bytes, &Grants::default())
        .unwrap_or_else(|e| panic!("{e}"))
}

fn context() -> OpenContext {
    OpenContext {
        params: r#"{"a":1}"#.into(),
        inputs: vec!["in".into()],
        outputs: vec!["out".into(), "rest".into()],
        partition: 3,
        ..OpenContext::default()
    }
}

fn open(bytes: &[u8], limits: &Limits) -> Guest {
    load(bytes)
        .open(&context(), limits)
        .unwrap_or_else(|e| panic!("{e}"))
}

/// Three rows: `a`=`one`, without key `two` and a header, `c` without value.
fn rows() -> Rows {
    let mut builder = RowsBuilder::new();
    builder.push(1, Some(b"a"), Some(b"one"), &[]);
    builder.push(2, None, Some(b"two"), &[("h", Some(b"x"))]);
    builder.push(3, Some(b"c"), None, &[]);
    builder.finish()
}

fn run(guest: &mut Guest, rows: &Rows) -> Result<Outcome, ProcessError> {
    let offsets: ScalarBuffer<u64> = (100..100 + rows.len() as u64).collect();
    guest.process(input(Batch::new(rows.clone(), offsets)))
}

fn input(batch: Batch) -> Input {
    Input {
        batch: Arc::new(batch),
        input: 0,
        watermark: 1,
    }
}

fn process(body: &str) -> Result<Outcome, ProcessError> {
    run(&mut open(&guest("", body), &Limits::default()), &rows())
}

/// An outcome as text, one line a row.
fn text(outcome: &Outcome) -> String {
    let show = |array: &arrow::array::BinaryArray, i: usize| {
        if array.is_null(i) {
            return "-".to_owned();
        }
        String::from_utf8_lossy(array.value(i)).into_owned()
    };
    let mut text = String::new();
    for emission in &outcome.emissions {
        match emission {
            Emission::Forward { port, rows } => text += &format!("forward {port} {rows:?}\n"),
            Emission::Emit {
                port,
                parents,
                keys,
                values,
                event_times,
                headers,
            } => {
                for (i, parent) in parents.iter().enumerate() {
                    let (key, value) = (show(keys, i), show(values, i));
                    text += &format!("emit {port} {parent} {key}={value}");
                    if let Some(times) = event_times {
                        text += &format!(" @{}", times[i]);
                    }
                    for (name, column) in headers {
                        text += &format!(" {name}:{}", show(column, i));
                    }
                    text.push('\n');
                }
            }
            Emission::Columns { port, columns, .. } => {
                text += &format!("columns {port} of {} rows\n", columns.num_rows());
            }
        }
    }
    for r in &outcome.rejections {
        text += &format!("reject {:?} {}: {}\n", r.rows, r.code, r.message);
    }
    for r in &outcome.retries {
        text += &format!(
            "retry {:?} {} ms {}: {}\n",
            r.rows, r.after_ms, r.code, r.message
        );
    }
    text
}

#[test]
fn the_sdk_carries_the_worlds_of_wit() {
    let check = |name: &str, section: Result<Vec<u8>, String>| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk-guest");
        let path = path.join(name);
        let section = section.expect("wit/ is valid");
        if std::env::var_os("RUSTMQ_BLESS").is_some() {
            std::fs::write(&path, &section).expect("the SDK's folder is writable");
        }
        let carried = std::fs::read(&path).expect("the SDK carries its component type");
        assert!(
            carried == section,
            "wit/ has changed: run this test with RUSTMQ_BLESS=1"
        );
    };
    check("component-type.bin", world::component_type_section());
    check("stateful-type.bin", world::stateful_type_section());
}
