//! State on its way from one schema to another: through a component that takes it over, and by itself.

use std::collections::BTreeMap;

use super::state::{Chance, Entries, scanned};
use super::*;
use crate::{Keyed, Timer};

/// `tests/guests/keeps`, which takes over what it kept until 0.1.3.
const KEEPS: &[u8] =
    include_bytes!("../../../../tests/guests/conformance/released/0.1.4-stateful.wasm");

/// A state of schema 1 with these counts and a timer of `t`.
fn counts(limits: &Limits, counts: &[(&str, &str)]) -> Keyed {
    let mut keyed = Keyed::new(limits, 1);
    for (key, value) in counts {
        let put = keyed.put(key.as_bytes(), Some(value.as_bytes()));
        put.expect("there is room");
    }
    keyed.set_timer(b"t", 9_000).expect("there is room");
    keyed.advance(8_000);
    keyed.keep_call();
    keyed.keep();
    keyed
}

/// All of it in one part; what is kept then, or how it ended.
fn taken_over(guest: &mut Guest, keyed: &mut Keyed) -> Result<String, String> {
    let limits = Limits {
        state_bytes: 8 << 20,
        timers: 1_000,
        ..Limits::default()
    };
    keyed.migrate(&limits, 2);
    if let Err(error) = guest.migrate(1, &keyed.old(None), keyed) {
        keyed.back();
        return Err(error.to_string());
    }
    keyed.keep_migrated();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let one = |(key, value)| format!("{}={}", text(key), text(value));
    Ok(scanned(keyed, 100)
        .into_iter()
        .map(one)
        .collect::<Vec<_>>()
        .join(" "))
}

#[test]
fn a_module_takes_over_what_it_kept_before() {
    let module = load(KEEPS);
    let info = module.info();
    assert_eq!((info.state_schema(), info.migrates()), (Some(2), &[1][..]));
    assert_eq!(info.world.as_deref(), Some("rustmq:etl/migrating@0.1.5"));
    let limits = Limits::default();
    let keyed = &mut counts(
        &limits,
        &[
            ("a", "2"),
            ("migrate-at", "1"),
            ("migrate-drop", "5"),
            ("migrate-not", "1"),
        ],
    );
    let mut guest = module.open(&context(), &limits).expect("it opens");
    assert_eq!(
        taken_over(&mut guest, keyed).as_deref(),
        Ok(r#"a={"count":2} migrate-at={"count":1} migrate-not={"count":1}"#)
    );
    assert!(keyed.is_migrated());
    assert_eq!((keyed.schema(), keyed.committed().schema()), (2, 1));
    // the timer that was set stays; time goes on where it was
    assert_eq!((keyed.watermark(), keyed.moved()), (8_000, 8_000));
    keyed.advance(10_000);
    let timer = |time, key: &[u8]| Timer {
        time,
        key: key.to_vec(),
    };
    assert_eq!(
        keyed.due(),
        [timer(7_000, b"migrate-at"), timer(9_000, b"t")]
    );
    keyed.keep();
    assert!(!keyed.is_migrated());
}

#[test]
fn what_no_migration_may_do_ends_it_and_nothing_is_changed() {
    let module = load(KEEPS);
    let limits = Limits::default();
    for (deed, part) in [
        ("migrate-refuse", "refused: as asked"),
        ("migrate-panic", "trapped"),
        ("migrate-spin", "more than 100 ms"),
        ("migrate-hoard", "8388608 bytes of state"),
        ("migrate-flood", "1000 timers"),
    ] {
        let limits = Limits {
            // time stops only what never ends
            deadline_ms: match deed {
                "migrate-spin" => limits.deadline_ms,
                _ => Limits::CAPS.deadline_ms,
            },
            ..limits.clone()
        };
        let keyed = &mut counts(&limits, &[("a", "2"), (deed, "1"), ("z", "1")]);
        let before = (keyed.bytes(), scanned(keyed, 100));
        let mut guest = module.open(&context(), &limits).expect("it opens");
        let ended = taken_over(&mut guest, keyed).expect_err(deed);
        assert!(ended.contains(part), "{deed}: {ended}");
        assert_eq!(guest.is_dead(), deed != "migrate-refuse", "{deed}");
        assert_eq!((keyed.bytes(), scanned(keyed, 100)), before, "{deed}");
        assert_eq!((keyed.schema(), keyed.changes()), (1, vec![]), "{deed}");
    }
}

#[test]
fn a_module_that_says_so_must_export_it() {
    let refused = |says: &str| {
        let mut bytes = guest("", "");
        custom(&mut bytes, crate::describe::SECTION, says.as_bytes());
        let refused = host().load(&bytes, &Grants::default()).err();
        refused.map(|error| error.to_string()).unwrap_or_default()
    };
    let text = refused(r#"{"name":"m","version":"1","state_schema":2,"migrates":[1]}"#);
    assert!(
        text.contains("does not export rustmq:etl/migration@0.1.5"),
        "{text}"
    );
    let text = refused(r#"{"name":"m","version":"1","migrates":[1]}"#);
    assert!(text.contains("has no `state_schema`"), "{text}");
}

/// Random states, migrations and batches after them; what the log has before the commit is the old state,
/// after it the new one.
#[test]
fn one_commit_has_all_of_a_migration() {
    let limits = Limits::default();
    for seed in 0..200 {
        let mut chance = Chance(seed);
        let mut keyed = Keyed::new(&limits, 1);
        let mut kept = Entries::new();
        for _ in 0..chance.below(40) {
            let (key, value) = random(&mut chance);
            keyed.put(&key, Some(&value)).expect("there is room");
            kept.insert(key, value);
        }
        keyed.set_timer(b"t", 5).expect("there is room");
        keyed.keep_call();
        keyed.advance(3);
        let mut log = keyed.changes();
        keyed.keep();
        keyed.migrate(&limits, 2);
        let (mut after, mut seen, mut new) = (None::<Vec<u8>>, Entries::new(), Entries::new());
        loop {
            let old = keyed.old(after.as_deref());
            let Some(last) = old.last() else { break };
            after = Some(last.to_vec());
            for (key, value) in old.0.keys.iter().zip(&old.0.values) {
                seen.insert(key.clone(), value.clone());
                for _ in 0..chance.below(3) {
                    let (other, _) = random(&mut chance);
                    let put = [key, &other][chance.below(2) as usize];
                    let value = [value, &other][chance.below(2) as usize];
                    keyed.put(put, Some(value)).expect("there is room");
                    new.insert(put.clone(), value.clone());
                }
            }
            keyed.keep_migrated();
        }
        assert_eq!(seen, kept, "seed {seed}");
        assert_eq!(scanned(&keyed, 7), new, "seed {seed}");
        let back = {
            let mut back = reloaded(&limits, &log);
            back.migrate(&limits, 2);
            back.back();
            back
        };
        assert_eq!(
            (back.schema(), scanned(&back, 7)),
            (1, kept.clone()),
            "seed {seed}"
        );
        // a batch after it, worked twice
        for _ in 0..2 {
            keyed.begin();
            keyed.put(b"batch", Some(b"1")).expect("there is room");
            keyed.keep_call();
            keyed.advance(4);
        }
        new.insert(b"batch".to_vec(), b"1".to_vec());
        let before = reloaded(&limits, &log);
        assert_eq!(
            (before.schema(), scanned(&before, 9)),
            (1, kept),
            "seed {seed}"
        );
        log.extend(keyed.changes());
        keyed.keep();
        let again = reloaded(&limits, &log);
        assert_eq!(
            (again.schema(), scanned(&again, 9)),
            (2, new),
            "seed {seed}"
        );
        assert_eq!(
            (again.bytes(), again.entries(), again.watermark()),
            (keyed.bytes(), keyed.entries(), 4),
            "seed {seed}"
        );
        assert_eq!(keyed.changes(), [], "seed {seed}");
    }
}

fn random(chance: &mut Chance) -> (Vec<u8>, Vec<u8>) {
    let key = vec![b'k', chance.below(30) as u8];
    (key, vec![b'v'; chance.below(3) as usize])
}

fn reloaded(limits: &Limits, log: &[(Vec<u8>, Option<Vec<u8>>)]) -> Keyed {
    let mut keyed = Keyed::new(limits, 9);
    for (key, value) in log {
        keyed.load(key, value.as_deref()).expect("a state wrote it");
    }
    keyed
}

/// What is asked for next is as much as one call may bring, but always something.
#[test]
fn parts_are_bounded() {
    let limits = Limits::default();
    let mut keyed = Keyed::new(&limits, 1);
    let mut wanted = BTreeMap::new();
    for number in 0..2_500u32 {
        let key = number.to_be_bytes();
        keyed.put(&key, Some(b"x")).expect("there is room");
        wanted.insert(key.to_vec(), b"x".to_vec());
    }
    for (place, size) in [(7u32, 600 << 10), (8, 600 << 10), (9, 1 << 20)] {
        let (key, value) = (place.to_be_bytes(), vec![b'y'; size]);
        keyed.put(&key, Some(&value)).expect("there is room");
        wanted.insert(key.to_vec(), value);
    }
    keyed.keep_call();
    keyed.keep();
    keyed.migrate(&limits, 2);
    let (mut after, mut seen, mut sizes) = (None::<Vec<u8>>, BTreeMap::new(), Vec::new());
    loop {
        let old = keyed.old(after.as_deref());
        let Some(last) = old.last() else { break };
        after = Some(last.to_vec());
        sizes.push(old.0.keys.len());
        seen.extend(old.0.keys.into_iter().zip(old.0.values));
    }
    assert!(seen == wanted);
    assert_eq!(sizes, [8, 1, 1, 1_000, 1_000, 490]);
}
