//! Lookup tables by themselves: what is pinned stays as it was, and no byte is counted twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::state::Chance;
use super::*;
use crate::{Pinned, Table};

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
    let value = vec![b'v'; 100];
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
