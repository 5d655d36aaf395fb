//! State and timers: through a component of the world `stateful`, and the layers by themselves.

use std::collections::BTreeMap;

use super::*;
use crate::{Entry, Keyed, Timer};

/// `tests/guests/keeps` as it was released with 0.1.2.
const KEEPS: &[u8] =
    include_bytes!("../../../../tests/guests/conformance/released/0.1.2-stateful.wasm");

/// The same of each version, and the schema of what it keeps.
const RELEASED: [(&[u8], &str, u32); 4] = [
    (KEEPS, "0.1.2", 1),
    (
        include_bytes!("../../../../tests/guests/conformance/released/0.1.3-stateful.wasm"),
        "0.1.3",
        1,
    ),
    (
        include_bytes!("../../../../tests/guests/conformance/released/0.1.4-stateful.wasm"),
        "0.1.4",
        2,
    ),
    (
        include_bytes!("../../../../tests/guests/conformance/released/0.1.5-stateful.wasm"),
        "0.1.5",
        2,
    ),
];

fn keeps(limits: &Limits) -> Guest {
    opened(&load(KEEPS), limits)
}

fn opened(module: &Module, limits: &Limits) -> Guest {
    module
        .open(&context(), limits)
        .unwrap_or_else(|e| panic!("{e}"))
}

/// One call; what it emits, each row as `key value`, or how it ends. What it changed is kept if it
/// returns.
fn call(guest: &mut Guest, keyed: &mut Keyed, rows: &[(&str, &str)]) -> Result<String, String> {
    let mut builder = RowsBuilder::new();
    for (key, value) in rows {
        builder.push(5, Some(key.as_bytes()), Some(value.as_bytes()), &[]);
    }
    enter(guest, keyed, builder.finish(), Entry::Process)
}

fn fire(guest: &mut Guest, keyed: &mut Keyed) -> Result<String, String> {
    let due = keyed.due();
    let mut builder = RowsBuilder::new();
    for timer in &due {
        builder.push(timer.time, Some(&timer.key), None, &[]);
    }
    keyed.fire(&due);
    enter(guest, keyed, builder.finish(), Entry::Timers)
}

fn enter(guest: &mut Guest, keyed: &mut Keyed, rows: Rows, entry: Entry) -> Result<String, String> {
    let offsets: ScalarBuffer<u64> = (0..rows.len() as u64).collect();
    let input = Input {
        watermark: keyed.moved(),
        ..input(Batch::new(rows, offsets))
    };
    let outcome = guest.process_with(input, entry, keyed).map_err(|error| {
        keyed.drop_call();
        error.to_string()
    })?;
    keyed.keep_call();
    let mut said = Vec::new();
    for emission in outcome.emissions {
        let Emission::Emit { keys, values, .. } = emission else {
            panic!("it emits bytes");
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for (key, value) in keys.iter().zip(&values) {
            let pair = (
                text(key.unwrap_or_default()),
                text(value.unwrap_or_default()),
            );
            said.push(format!("{} {}", pair.0, pair.1));
        }
    }
    Ok(said.join("; "))
}

#[test]
fn released_stateful_modules_run() {
    for (bytes, version, schema) in RELEASED {
        let module = load(bytes);
        let info = module.info().clone();
        assert!(info.stateful, "{version}");
        assert_eq!(info.contract.as_deref(), Some(version));
        assert_eq!(info.describe.and_then(|d| d.state_schema), Some(schema));
        runs(&module, version, schema);
    }
}

fn runs(module: &Module, version: &str, schema: u32) {
    let limits = Limits::default();
    let mut keyed = Keyed::new(&limits, schema);
    let (guest, keyed) = (&mut opened(module, &limits), &mut keyed);
    let mut check = |rows: &[(&str, &str)], expected: &str| {
        let said = call(guest, keyed, rows).unwrap_or_else(|e| panic!("{version}: {e}"));
        // a count is an object since schema 2
        let said = said.replace("{\"count\":", "").replace('}', "");
        assert_eq!(said, expected, "{version}: {rows:?}");
    };
    check(&[("a", "x"), ("b", "x"), ("a", "x")], "a 1; b 1; a 2");
    check(&[("a", "get"), ("c", "get")], "a 2; c none");
    check(
        &[("ab", "x"), ("", "scan"), ("a", "scan")],
        "ab 1;  a=2,ab=1,b=1; a a=2,ab=1",
    );
    check(
        &[("a", "delete"), ("a", "get"), ("", "scan")],
        "a deleted; a none;  ab=1,b=1",
    );
    check(
        &[("b", "at 7"), ("ab", "at 7"), ("b", "at -3"), ("b", "at 9")],
        "b set; ab set; b set; b set",
    );
    check(&[("b", "at 8"), ("b", "not 8")], "b set; b cleared");
    keyed.advance(8);
    let fired = fire(guest, keyed);
    let expected = "b fired -3 at 8, count 1; ab fired 7 at 8, count 1; b fired 7 at 8, count 0";
    assert_eq!(fired.as_deref(), Ok(expected));
    assert_eq!(keyed.due(), []);
    keyed.advance(9);
    let last = Timer {
        time: 9,
        key: b"b".to_vec(),
    };
    assert_eq!(keyed.due(), [last]);
}

#[test]
fn a_call_that_fails_leaves_nothing() {
    let limits = Limits::default();
    let (guest, keyed) = (&mut keeps(&limits), &mut Keyed::new(&limits, 1));
    call(guest, keyed, &[("a", "x"), ("t", "at 3")]).expect("it counts");
    let before = (keyed.bytes(), keyed.changes());
    let ended = call(guest, keyed, &[("a", "x"), ("a", "trap")]).expect_err("it traps");
    assert!(ended.contains("panic: on purpose"), "{ended}");
    assert_eq!((keyed.bytes(), keyed.changes()), before);
    let guest = &mut keeps(&limits);
    assert_eq!(call(guest, keyed, &[("a", "get")]).as_deref(), Ok("a 1"));
    // nor does a batch that is not kept
    keyed.begin();
    assert_eq!((keyed.bytes(), keyed.changes()), (0, vec![]));
    assert_eq!(call(guest, keyed, &[("a", "get")]).as_deref(), Ok("a none"));
}

#[test]
fn bombs_and_floods_are_contained() {
    let limits = Limits {
        state_bytes: 8 << 20,
        timers: 1_000,
        deadline_ms: Limits::CAPS.deadline_ms,
        ..Limits::default()
    };
    // a host of its own: the guests of other tests would be counted
    let host = Host::new(HostConfig::default()).expect("the engine starts");
    let module = host.load(KEEPS, &Grants::default()).expect("it loads");
    let keyed = &mut Keyed::new(&limits, 1);
    call(&mut opened(&module, &limits), keyed, &[("a", "x")]).expect("it counts");
    keyed.keep();
    let held = keyed.bytes();
    for (deed, part) in [
        ("hoard", "8388608 bytes of state"),
        ("flood", "1000 timers"),
        ("search", "500 ms"),
    ] {
        // time stops only what never ends: how quick a machine is must not decide the others
        let deadline_ms = match deed {
            "search" => 500,
            _ => limits.deadline_ms,
        };
        let mut guest = opened(
            &module,
            &Limits {
                deadline_ms,
                ..limits.clone()
            },
        );
        let ended = call(&mut guest, keyed, &[("evil", deed)]).expect_err(deed);
        assert!(ended.contains(part), "{deed}: {ended}");
        assert!(guest.is_dead(), "{deed}");
        assert_eq!(keyed.bytes(), held, "{deed}");
        assert_eq!(
            call(&mut opened(&module, &limits), keyed, &[("a", "get")]).as_deref(),
            Ok("a 1")
        );
    }
    assert_eq!(host.memory_bytes(), 0);
    // one that may keep more still changes no more than an entry of the log holds
    let limits = Limits {
        state_bytes: 1 << 30,
        // the SDK holds what it has told
        memory_bytes: 512 << 20,
        deadline_ms: Limits::CAPS.deadline_ms,
        ..Limits::default()
    };
    let keyed = &mut Keyed::new(&limits, 1);
    let ended = call(&mut keeps(&limits), keyed, &[("evil", "hoard")]).expect_err("hoard");
    assert!(
        ended.contains("67108864 bytes of state changed in one call"),
        "{ended}"
    );
    assert_eq!(keyed.bytes(), 0);
}

#[test]
fn there_is_no_state_where_none_is_lent() {
    let limits = Limits::default();
    let error = run(&mut keeps(&limits), &rows()).expect_err("it wants to count");
    let text = error.to_string();
    assert!(
        text.contains("there is no state outside of a batch"),
        "{text}"
    );
}

/// Memory: 128 offsets 0, 1, 2, 3 of the keys `abc` at 160; 176 offsets 0, 1, 3 of the values `122` at
/// 192; 208 the rows 0, 1, 2; 224 the times 5 and 7; 240 validity of the first of two; from 1024 on what
/// was found, from 1048 on what was scanned.
const PACKED: &str = r#"(module
  (import "rustmq:etl/data@0.1.0" "[resource-drop]context" (func $context_drop (param i32)))
  (import "rustmq:etl/data@0.1.0" "[resource-drop]batch" (func $batch_drop (param i32)))
  (import "rustmq:etl/data@0.1.0" "[resource-drop]outbox" (func $outbox_drop (param i32)))
  (import "rustmq:etl/packed@0.1.0" "emit" (func $emit
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "rustmq:etl/packed-state@0.1.0" "get" (func $get (param i32 i32 i32 i32 i32 i32 i32)))
  (import "rustmq:etl/packed-state@0.1.0" "put"
    (func $put (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "rustmq:etl/packed-state@0.1.0" "delete" (func $delete (param i32 i32 i32 i32 i32 i32)))
  (import "rustmq:etl/packed-state@0.1.0" "scan" (func $scan (param i32 i32 i32 i32 i32 i32 i32)))
  (import "rustmq:etl/packed-state@0.1.0" "set-timers"
    (func $set (param i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "rustmq:etl/packed-state@0.1.0" "clear-timers"
    (func $clear (param i32 i32 i32 i32 i32 i32 i32 i32)))
  (memory (export "memory") 2)
  (data (i32.const 128) "\00\00\00\00\01\00\00\00\02\00\00\00\03\00\00\00")
  (data (i32.const 160) "abc")
  (data (i32.const 176) "\00\00\00\00\01\00\00\00\03\00\00\00")
  (data (i32.const 192) "122")
  (data (i32.const 208) "\00\00\00\00\01\00\00\00\02\00\00\00")
  (data (i32.const 224) "\05\00\00\00\00\00\00\00\07\00\00\00\00\00\00\00\01")
  (global $heap (mut i32) (i32.const 4096))
  {realloc}
  (func $at (param $i i32) (result i32)
    (i32.load (i32.add (i32.const 1024) (i32.shl (local.get $i) (i32.const 2)))))
  (func (export "rustmq:etl/module@0.1.0#open") (param $context i32) (result i32)
    (call $context_drop (local.get $context))
    (i32.const 0))
  (func (export "rustmq:etl/module@0.1.0#process") (export "rustmq:etl/timed@0.1.0#on-timers")
      (param $rows i32) (param $out i32) (result i32)
    {process}
    (call $batch_drop (local.get $rows))
    (call $outbox_drop (local.get $out))
    (i32.const 0))
  (func (export "rustmq:etl/migration@0.1.0#migrate")
      (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
    (i32.const 0)))"#;

/// One call of a guest whose lists are bytes.
pub(super) fn call_packed(keyed: &mut Keyed, process: &str) -> Result<String, String> {
    let section = world::stateful_type_section().expect("wit/ is valid");
    let module = load(&with_section(
        &PACKED.replace("{process}", process),
        &section,
    ));
    assert!(module.info().stateful);
    let rows = [("x", ""), ("y", ""), ("z", "")];
    // how quick a machine is must not decide
    let limits = Limits {
        deadline_ms: Limits::CAPS.deadline_ms,
        ..Limits::default()
    };
    call(&mut opened(&module, &limits), keyed, &rows)
}

#[test]
fn packed_state_is_the_same() {
    let keyed = &mut Keyed::new(&Limits::default(), 1);
    let everything = "
        (call $put (i32.const 128) (i32.const 12) (i32.const 160) (i32.const 2) (i32.const 0) (i32.const 0)
          (i32.const 176) (i32.const 12) (i32.const 192) (i32.const 3) (i32.const 0) (i32.const 0))
        (call $delete
          (i32.const 128) (i32.const 8) (i32.const 161) (i32.const 1) (i32.const 0) (i32.const 0))
        (call $get (i32.const 128) (i32.const 16) (i32.const 160) (i32.const 3) (i32.const 0) (i32.const 0)
          (i32.const 1024))
        (call $emit (local.get $out) (i32.const 0) (i32.const 208) (i32.const 12)
          (i32.const 128) (i32.const 16) (i32.const 160) (i32.const 3) (i32.const 0) (i32.const 0)
          (call $at (i32.const 0)) (call $at (i32.const 1)) (call $at (i32.const 2))
          (call $at (i32.const 3)) (call $at (i32.const 4)) (call $at (i32.const 5)))
        (call $scan (i32.const 160) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 9)
          (i32.const 1048))
        (call $emit (local.get $out) (i32.const 0) (i32.const 208) (i32.const 4)
          (call $at (i32.const 6)) (call $at (i32.const 7)) (call $at (i32.const 8))
          (call $at (i32.const 9)) (call $at (i32.const 10)) (call $at (i32.const 11))
          (call $at (i32.const 12)) (call $at (i32.const 13)) (call $at (i32.const 14))
          (call $at (i32.const 15)) (call $at (i32.const 16)) (call $at (i32.const 17)))
        (call $set (i32.const 128) (i32.const 12) (i32.const 160) (i32.const 2) (i32.const 0) (i32.const 0)
          (i32.const 224) (i32.const 16))
        (call $clear (i32.const 128) (i32.const 8) (i32.const 160) (i32.const 1) (i32.const 0) (i32.const 0)
          (i32.const 224) (i32.const 8))";
    let said = call_packed(keyed, everything);
    assert_eq!(said.as_deref(), Ok("a 1; b ; c ; a 1"));
    keyed.advance(100);
    let left = Timer {
        time: 7,
        key: b"b".to_vec(),
    };
    assert_eq!(keyed.due(), [left]);
}

#[test]
fn packed_lists_that_do_not_fit_are_traps() {
    for (process, expected) in [
        (
            "(call $get (i32.const 128) (i32.const 7) (i32.const 160) (i32.const 1) (i32.const 0)
               (i32.const 0) (i32.const 1024))",
            "offsets: 7 bytes are no whole numbers of 4 bytes",
        ),
        (
            "(call $delete (i32.const 128) (i32.const 12) (i32.const 160) (i32.const 2) (i32.const 240)
               (i32.const 1))",
            "delete: a key is absent",
        ),
        (
            "(call $set (i32.const 128) (i32.const 12) (i32.const 160) (i32.const 2) (i32.const 0)
               (i32.const 0) (i32.const 224) (i32.const 15))",
            "set-timers: 15 bytes are no whole numbers of 8 bytes",
        ),
        (
            "(call $clear (i32.const 128) (i32.const 12) (i32.const 160) (i32.const 2) (i32.const 0)
               (i32.const 0) (i32.const 224) (i32.const 8))",
            "clear-timers: 1 times for 2 keys",
        ),
    ] {
        let keyed = &mut Keyed::new(&Limits::default(), 1);
        let ended = call_packed(keyed, process).expect_err(expected);
        assert!(ended.contains(expected), "{ended}");
        assert_eq!(keyed.bytes(), 0, "{expected}");
    }
}

/// Numbers that can be repeated.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

pub(super) type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// All entries, page by page.
pub(super) fn scanned(keyed: &Keyed, page: u32) -> Entries {
    let (mut found, mut after) = (Entries::new(), None::<Vec<u8>>);
    loop {
        let next = keyed.scan(b"", after.as_deref(), page);
        let Some(last) = next.keys.last() else {
            return found;
        };
        after = Some(last.clone());
        found.extend(next.keys.into_iter().zip(next.values));
    }
}

/// Random changes, failures and restarts against a plain map; the changelog is the state.
#[test]
fn layers_and_changelog_say_what_a_plain_map_says() {
    for seed in 0..50 {
        let mut chance = Chance(seed);
        let limits = Limits::default();
        let mut keyed = Keyed::new(&limits, 3);
        let (mut kept, mut log) = (Entries::new(), Vec::new());
        for _ in 0..20 {
            keyed.begin();
            let mut batch = kept.clone();
            for _ in 0..chance.below(4) {
                let mut call = batch.clone();
                for _ in 0..chance.below(8) {
                    let key = vec![b'k', chance.below(12) as u8];
                    let value = chance
                        .below(3)
                        .checked_sub(1)
                        .map(|n| vec![b'v'; n as usize]);
                    keyed.put(&key, value.as_deref()).expect("within limits");
                    match value {
                        Some(value) => call.insert(key, value),
                        None => call.remove(&key),
                    };
                }
                assert_eq!(
                    scanned(&keyed, 1 + chance.below(5) as u32),
                    call,
                    "seed {seed}"
                );
                match chance.below(3) {
                    0 => keyed.drop_call(),
                    _ => {
                        keyed.keep_call();
                        batch = call;
                    }
                }
            }
            keyed.advance(chance.below(100) as i64);
            if chance.below(3) > 0 {
                log.extend(keyed.changes());
                keyed.keep();
                kept = batch;
            }
        }
        keyed.begin();
        let mut again = Keyed::new(&limits, 3);
        for (key, value) in &log {
            again.load(key, value.as_deref()).expect("it wrote it");
        }
        assert_eq!(scanned(&again, 100), kept, "seed {seed}");
        assert_eq!(scanned(&keyed, 100), kept, "seed {seed}");
        assert_eq!(
            (again.bytes(), again.watermark()),
            (keyed.bytes(), keyed.watermark())
        );
        // the schema is the one that it was kept with
        let mut other = Keyed::new(&limits, 4);
        other
            .load(&log[0].0, log[0].1.as_deref())
            .expect("it wrote it");
        assert_eq!(other.schema(), 3);
    }
}
