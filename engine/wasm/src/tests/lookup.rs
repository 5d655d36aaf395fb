//! Lookup tables by themselves (what is pinned stays as it was, no byte is counted twice), and as a guest
//! asks for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::state::Chance;
use super::*;
use crate::{Lookups, Pinned, Table};

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

fn key(number: u64) -> Vec<u8> {
    vec![b'k', number as u8]
}

/// Whether a moment is as it was, asked for every key there can be.
fn assert_sees(pinned: &Pinned, expected: &Entries, seed: u64) {
    let reading = pinned.reading();
    for number in 0..13 {
        let key = key(number);
        assert_eq!(
            reading.get(&key),
            expected.get(&key).map(Vec::as_slice),
            "seed {seed}, key {number}"
        );
    }
}

/// Random records, tombstones, starts from nothing and readers that come and go, against plain maps.
#[test]
fn what_is_pinned_is_what_a_plain_map_was() {
    for seed in 0..200 {
        let mut chance = Chance(seed);
        let host = Host::new(HostConfig::default()).expect("the engine starts");
        let mut table = host.table();
        let mut now = Entries::new();
        let mut held: Vec<(Pinned, Entries)> = Vec::new();
        for _ in 0..60 {
            match chance.below(8) {
                0 => held.push((table.pin(), now.clone())),
                1 if !held.is_empty() => {
                    held.swap_remove(chance.below(held.len() as u64) as usize);
                }
                2 if chance.below(6) == 0 => {
                    table.clear();
                    now.clear();
                }
                // as after a restart: the readers of the one before still see theirs
                3 if chance.below(6) == 0 => {
                    table = host.table();
                    let all = now.iter().map(|(k, v)| (&k[..], Some(&v[..])));
                    table.apply(all, usize::MAX).expect("there is room");
                }
                _ => {
                    let mut changes = Vec::new();
                    for _ in 0..chance.below(6) {
                        let value = chance.below(4).checked_sub(1);
                        let value = value.map(|n| vec![chance.below(250) as u8; n as usize]);
                        changes.push((key(chance.below(12)), value));
                    }
                    let borrowed = changes.iter().map(|(k, v)| (&k[..], v.as_deref()));
                    table.apply(borrowed, usize::MAX).expect("there is room");
                    for (key, value) in changes {
                        match value {
                            Some(value) => now.insert(key, value),
                            None => now.remove(&key),
                        };
                    }
                }
            }
            for (pinned, then) in &held {
                assert_sees(pinned, then, seed);
            }
            assert_sees(&table.pin(), &now, seed);
            assert_eq!(table.len(), now.len(), "seed {seed}");
            let bytes: usize = now.iter().map(|(k, v)| k.len() + v.len() + 96).sum();
            assert_eq!(table.bytes(), bytes, "seed {seed}");
        }
        held.clear();
        assert_eq!(table.bytes_aside(), 0, "seed {seed}");
        assert_eq!(host.memory_bytes(), table.bytes(), "seed {seed}");
        drop(table);
        assert_eq!(host.memory_bytes(), 0, "seed {seed}");
    }
}

#[test]
fn a_table_refuses_what_is_too_much_before_it_takes_it() {
    let table = Table::default();
    let value = [b'v'; 100];
    let keys: Vec<Vec<u8>> = (0..10).map(key).collect();
    let changes = keys.iter().map(|key| (&key[..], Some(&value[..])));
    let full = table.apply(changes, 1_000).expect_err("ten are too many");
    assert_eq!(full.to_string(), "more than 1000 bytes");
    assert_eq!((table.len(), table.bytes()), (5, 5 * 198));
    // what makes it no larger goes in
    let small: [(&[u8], Option<&[u8]>); 2] = [(&keys[0], Some(b"x")), (&keys[1], None)];
    table.apply(small, 0).expect("it shrinks");
    assert_eq!(table.len(), 4);
    let seen = table.pin();
    table.clear();
    assert_eq!((table.len(), table.bytes()), (0, 0));
    assert_eq!(seen.reading().get(&keys[0]), Some(&b"x"[..]));
    assert!(table.bytes_aside() > 0);
    drop(seen);
    assert_eq!(table.bytes_aside(), 0);
}

/// Readers on threads of their own, each of whose moments is whole: all keys have one value.
#[test]
fn no_reader_sees_half_a_change() {
    let table = Table::default();
    let keys: Vec<Vec<u8>> = (0..50).map(key).collect();
    let round = |round: u32| {
        let value = round.to_le_bytes();
        let changes = keys.iter().map(|key| (&key[..], Some(&value[..])));
        table.apply(changes, usize::MAX).expect("there is room");
    };
    round(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..300 {
                    let pinned = Arc::new(table.pin());
                    let first = pinned.reading().get(&keys[0]).map(<[u8]>::to_vec);
                    for key in &keys {
                        assert_eq!(pinned.reading().get(key), first.as_deref());
                    }
                }
            });
        }
        (1..300).for_each(round);
    });
    assert_eq!(table.bytes_aside(), 0);
}

/// Memory: 600 the name `users`, 605 `nobody`; 640 the table's number; from 256 on the batch's values,
/// and from 288 what was found for them; 704 an answer of `table`; 800 the offsets 0, 4 and 4, 0.
const WAT: &str = r#"(module
  (import "rustmq:etl/data@0.1.0" "[resource-drop]context" (func $context_drop (param i32)))
  (import "rustmq:etl/data@0.1.0" "[resource-drop]batch" (func $batch_drop (param i32)))
  (import "rustmq:etl/data@0.1.0" "[resource-drop]outbox" (func $outbox_drop (param i32)))
  (import "rustmq:etl/data@0.1.0" "[method]batch.len" (func $len (param i32) (result i32)))
  (import "rustmq:etl/{values}@0.1.0" "{values_name}" (func $values (param i32 i32)))
  (import "rustmq:etl/{values}@0.1.0" "{emit_name}"
    (func $emit (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "rustmq:etl/lookup@0.1.0" "table" (func $table (param i32 i32 i32)))
  (import "rustmq:etl/{get}@0.1.0" "{get_name}"
    (func $get (param i32 i32 i32 i32 i32 i32 i32 i32)))
  (memory (export "memory") 80)
  (data (i32.const 600) "usersnobody")
  (data (i32.const 800) "\00\00\00\00\04\00\00\00\04\00\00\00\00\00\00\00")
  (global $heap (mut i32) (i32.const 131072))
  {realloc}
  (func $found (param $number i32)
    (call $get (local.get $number) (i32.load (i32.const 256)) (i32.load (i32.const 260))
      (i32.load (i32.const 264)) (i32.load (i32.const 268)) (i32.load (i32.const 272))
      (i32.load (i32.const 276)) (i32.const 288)))
  (func (export "rustmq:etl/module@0.1.0#open") (param $context i32) (result i32)
    (local $answer i32)
    {open}
    (call $context_drop (local.get $context))
    (local.get $answer))
  (func (export "rustmq:etl/module@0.1.0#process") (param $rows i32) (param $out i32) (result i32)
    (local $i i32) (local $n i32)
    (global.set $heap (i32.const 131072))
    (local.set $n (call $len (local.get $rows)))
    (call $values (local.get $rows) (i32.const 256))
    {process}
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $i) (local.get $n)))
        (i32.store (i32.add (i32.const 65536) (i32.shl (local.get $i) (i32.const 2)))
          (local.get $i))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))
    (call $emit (local.get $out) (i32.const 0) (i32.const 65536)
      (i32.mul (local.get $n) (i32.const {row_bytes}))
      (i32.load (i32.const 256)) (i32.load (i32.const 260)) (i32.load (i32.const 264))
      (i32.load (i32.const 268)) (i32.load (i32.const 272)) (i32.load (i32.const 276))
      (i32.load (i32.const 288)) (i32.load (i32.const 292)) (i32.load (i32.const 296))
      (i32.load (i32.const 300)) (i32.load (i32.const 304)) (i32.load (i32.const 308)))
    (call $batch_drop (local.get $rows))
    (call $outbox_drop (local.get $out))
    (i32.const 0)))"#;

const TABLE: &str = "(call $table (i32.const 600) (i32.const 5) (i32.const 704))
    (if (i32.load8_u (i32.const 704)) (then (local.set $answer (i32.const 704))))
    (i32.store (i32.const 640) (i32.load (i32.const 708)))";
const FOUND: &str = "(call $found (i32.load (i32.const 640)))";

/// A guest that emits what it finds for the values of its rows, in the one way or the other.
fn asking(packed: bool, open: &str, process: &str) -> Vec<u8> {
    let names = match packed {
        false => [
            ("{values}", "data"),
            ("{values_name}", "[method]batch.values"),
            ("{emit_name}", "[method]outbox.emit"),
            ("{get}", "lookup"),
            ("{get_name}", "get"),
            ("{row_bytes}", "1"),
        ],
        true => [
            ("{values}", "packed"),
            ("{values_name}", "values"),
            ("{emit_name}", "emit"),
            ("{get}", "packed"),
            ("{get_name}", "lookup"),
            ("{row_bytes}", "4"),
        ],
    };
    let wat = WAT.replace("{open}", open).replace("{process}", process);
    let fill = |wat: String, (name, text): (&str, &str)| wat.replace(name, text);
    typed(&names.into_iter().fold(wat, fill))
}

fn with_tables(module: &[u8], names: &[&str]) -> Result<(Guest, Lookups), String> {
    let lookups = Lookups::new(names.iter().map(|name| (*name).to_owned()));
    let context = OpenContext {
        lookups: lookups.clone(),
        ..context()
    };
    let opened = load(module).open(&context, &Limits::default());
    opened
        .map(|guest| (guest, lookups))
        .map_err(|e| e.to_string())
}

fn put(table: &Table, key: &str, value: Option<&str>) {
    let change = (key.as_bytes(), value.map(str::as_bytes));
    table.apply([change], usize::MAX).expect("there is room");
}

fn lend(lookups: &Lookups, tables: &[&Table]) {
    let view: Vec<_> = tables.iter().map(|table| Arc::new(table.pin())).collect();
    lookups.lend(Some(view.into()));
}

/// The rows have the values `one`, `two` and none.
fn joined(guest: &mut Guest) -> Result<String, String> {
    let outcome = run(guest, &rows()).map_err(|e| e.to_string())?;
    Ok(text(&outcome))
}

#[test]
fn many_keys_are_asked_for_at_once_in_both_ways() {
    for packed in [false, true] {
        let module = asking(packed, TABLE, FOUND);
        let imports = load(&module).info().imports.clone();
        assert!(
            imports.contains(&"rustmq:etl/lookup@0.1.5".to_owned()),
            "{imports:?}"
        );
        let (mut guest, lookups) = with_tables(&module, &["others", "users"]).expect("it opens");
        let (others, users) = (Table::default(), Table::default());
        put(&users, "one", Some("1"));
        put(&others, "one", Some("wrong"));
        lend(&lookups, &[&others, &users]);
        let first = "emit 0 0 one=1\nemit 0 1 two=-\nemit 0 2 -=-\n";
        assert_eq!(joined(&mut guest).as_deref(), Ok(first));
        // what changes meanwhile is seen when it is lent again
        put(&users, "one", None);
        put(&users, "two", Some(""));
        assert_eq!(joined(&mut guest).as_deref(), Ok(first));
        lend(&lookups, &[&others, &users]);
        let then = "emit 0 0 one=-\nemit 0 1 two=\nemit 0 2 -=-\n";
        assert_eq!(joined(&mut guest).as_deref(), Ok(then));
        // an instance that dies leaves its tables to the next
        let another = OpenContext {
            lookups: lookups.clone(),
            ..context()
        };
        let opened = load(&module).open(&another, &Limits::default());
        let mut next = opened.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(joined(&mut next).as_deref(), Ok(then));
        lookups.lend(None);
        let error = joined(&mut next).expect_err("nothing is lent");
        assert!(
            error.contains("get: there are no tables outside of a batch"),
            "{error}"
        );
        assert_eq!((users.bytes_aside(), others.bytes_aside()), (0, 0));
    }
}

#[test]
fn names_that_the_node_does_not_declare_are_said_in_open() {
    let module = asking(false, TABLE, FOUND);
    let refused = |names: &[&str], part: &str| {
        let error = with_tables(&module, names).err().expect("it does not open");
        assert!(error.contains(part), "{error}");
    };
    refused(
        &[],
        "the module asks for the table `users`, and the node declares none: give it `lookups: { users: \
         TOPIC }`",
    );
    refused(
        &["user", "prices"],
        "the node declares no table `users`; its `lookups` are user, prices",
    );
    let module = asking(false, &format!("{TABLE} {FOUND}"), "");
    refused_in(&module, "get: there are no tables outside of a batch");
}

fn refused_in(module: &[u8], part: &str) {
    let error = with_tables(module, &["users"])
        .err()
        .expect("it does not open");
    assert!(error.contains(part), "{error}");
}

#[test]
fn wrong_questions_end_the_guest() {
    let get = |offsets: u32, count: u32, data: u32, len: u32| {
        format!(
            "(call $get (i32.const 0) (i32.const {offsets}) (i32.const {count}) (i32.const {data})
               (i32.const {len}) (i32.const 0) (i32.const 0) (i32.const 288))"
        )
    };
    let cases = [
        (
            "(call $found (i32.const 1))".to_owned(),
            "get: table 1, but the node declares 1",
        ),
        (
            "(call $found (i32.const -1))".to_owned(),
            "get: table 4294967295",
        ),
        (
            get(804, 2, 600, 4),
            "get: keys: the first offset is 4, it must be 0",
        ),
        (
            get(800, 2, 600, 5),
            "get: keys: the last offset is 4, but there are 5 bytes",
        ),
        (get(800, 0, 600, 0), "get: keys: 0 offsets for 0 rows"),
        (
            get(1024, 100_002, 600, 0),
            "limit of 100000 keys in one lookup",
        ),
        (get(1024, 100_001, 5_242_880, 1), "pointer"),
    ];
    for (process, part) in cases {
        let module = asking(false, TABLE, &process);
        let (mut guest, lookups) = with_tables(&module, &["users"]).expect("it opens");
        let table = Table::default();
        lend(&lookups, &[&table]);
        let error = joined(&mut guest).expect_err("it must not succeed");
        assert!(error.contains(part), "{process}: {error}");
        assert!(guest.is_dead());
    }
}

#[test]
fn more_than_a_call_may_find_is_a_limit() {
    let module = asking(false, TABLE, FOUND);
    let (mut guest, lookups) = with_tables(&module, &["users"]).expect("it opens");
    let table = Table::default();
    let large = vec![b'x'; 40 << 20];
    let changes = [
        (&b"one"[..], Some(&large[..])),
        (&b"two"[..], Some(&large[..])),
    ];
    table.apply(changes, usize::MAX).expect("there is room");
    lend(&lookups, &[&table]);
    let error = joined(&mut guest).expect_err("80 MiB are found");
    assert!(
        error.contains("limit of 67108864 bytes found in one lookup"),
        "{error}"
    );
}
