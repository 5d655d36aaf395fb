//! Keeps state: what it does with a row is the row's value, what it is about the row's key. It uses all
//! of the world `stateful`, so that a component kept of each released version
//! (`../conformance/released/VERSION-stateful.wasm`) shows that a newer host still runs it.
//!
//! `get` emits what is kept, `delete` forgets it, `at N` and `not N` set and clear a timer, `scan` emits
//! all entries whose keys begin with the key, `reject` refuses the row; `trap`, `hoard`, `flood` and
//! `search` are evil. All else is counted, and the count emitted. A timer emits its time and the
//! count, and forgets the key; that of the key `bomb` panics, and that of `ever` sets itself again.
//!
//! Until 0.1.3 a count was a number, schema 1; now it is an object. What becomes of an entry of schema 1
//! is its key: `migrate-at` sets a timer, `migrate-not` clears one at 9000, `migrate-drop` is gone,
//! `migrate-sum/…` are added up under `sum`, `migrate-refuse` is refused; `migrate-panic`, `-spin`,
//! `-hoard` and `-flood` are evil. All else is kept.

use std::collections::BTreeMap;
use std::hint::black_box;

use rustmq::{Batch, Column, Context, Entries, Failure, Outbox, Reject, State, Stateful};

struct Keeps;

impl Stateful for Keeps {
    const STATE_SCHEMA: u32 = 2;
    const MIGRATES: &'static [u32] = &[1];

    fn open(_: &Context) -> Result<Keeps, Failure> {
        Ok(Keeps)
    }

    fn process(&mut self, rows: &Batch, out: &mut Outbox, state: &mut State) -> Result<(), Failure> {
        state.fetch(rows.keys());
        let mut said = Said::default();
        for row in 0..rows.len() {
            let key = rows.keys().get(row).unwrap_or_default();
            let text = rows.values().get(row).unwrap_or_default();
            match told(key, &String::from_utf8_lossy(text), state) {
                Ok(text) => said.say(row as u32, key, &text),
                Err(reject) => out.reject(&[row as u32], "refused", &format!("{reject:?}")),
            }
        }
        said.send(out);
        Ok(())
    }

    fn on_timers(&mut self, fired: &Batch, out: &mut Outbox, state: &mut State) -> Result<(), Failure> {
        let mut said = Said::default();
        for (row, time) in fired.event_times().iter().enumerate() {
            let key = fired.keys().get(row).unwrap_or_default();
            match key {
                b"bomb" => panic!("a timer, on purpose"),
                b"ever" => state.set_timer(key, *time),
                _ => {}
            }
            let count = kept(key, state).ok().flatten().unwrap_or_default();
            state.delete(key);
            let watermark = fired.watermark();
            said.say(row as u32, key, &format!("fired {time} at {watermark}, count {count}"));
        }
        said.send(out);
        Ok(())
    }

    fn migrate(&mut self, _: u32, old: &Entries, state: &mut State) -> Result<(), Failure> {
        for (key, value) in old.iter() {
            let count = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            let count = count.ok_or_else(|| Failure::new("count", "it is none"))?;
            migrated(key, count, state)?;
        }
        Ok(())
    }
}

/// What becomes of an entry of schema 1.
fn migrated(key: &[u8], count: u64, state: &mut State) -> Result<(), Failure> {
    let failed = |_| Failure::new("state", "it is JSON");
    match key {
        b"migrate-at" => state.set_timer(key, 7_000),
        b"migrate-not" => state.clear_timer(key, 9_000),
        b"migrate-drop" => return Ok(()),
        b"migrate-refuse" => return Err(Failure::new("refused", "as asked")),
        b"migrate-panic" => panic!("on purpose"),
        b"migrate-spin" => loop {
            black_box(count);
        },
        b"migrate-hoard" => {
            for number in 0u32.. {
                state.put_bytes(number.to_le_bytes(), vec![b'x'; 512 << 10]);
                state.scan(b"", None, 1);
            }
        }
        b"migrate-flood" => {
            for time in 0.. {
                state.set_timer(key, time);
                state.scan(b"", None, 1);
            }
        }
        _ if key.starts_with(b"migrate-sum/") => {
            let sum = kept(b"sum", state).ok().flatten().unwrap_or_default();
            return keep(b"sum", sum + count, state).map_err(failed);
        }
        _ => {}
    }
    keep(key, count, state).map_err(failed)
}

fn kept(key: &[u8], state: &mut State) -> Result<Option<u64>, Reject> {
    let object = state.get::<BTreeMap<String, u64>>(key)?;
    Ok(object.and_then(|object| object.get("count").copied()))
}

fn keep(key: &[u8], count: u64, state: &mut State) -> Result<(), Reject> {
    state.put(key, &BTreeMap::from([("count", count)]))
}

/// What becomes of a row, as text.
fn told(key: &[u8], value: &str, state: &mut State) -> Result<String, Reject> {
    let (word, rest) = value.split_once(' ').unwrap_or((value, ""));
    let number = || rest.parse::<i64>().map_err(Reject::from);
    match word {
        "get" => {
            let kept = kept(key, state)?;
            Ok(kept.map_or("none".to_owned(), |kept| kept.to_string()))
        }
        "delete" => {
            state.delete(key);
            Ok("deleted".to_owned())
        }
        "at" => {
            state.set_timer(key, number()?);
            Ok("set".to_owned())
        }
        "not" => {
            state.clear_timer(key, number()?);
            Ok("cleared".to_owned())
        }
        "scan" => {
            let found = state.scan(key, None, 1_000);
            let one = |(key, value): (Vec<u8>, Vec<u8>)| {
                format!("{}={}", String::from_utf8_lossy(&key), String::from_utf8_lossy(&value))
            };
            Ok(found.into_iter().map(one).collect::<Vec<_>>().join(","))
        }
        "reject" => Err(Reject::new("refused", "as asked")),
        "trap" => {
            keep(key, 1_000_000, state)?;
            // so that the host has it
            state.scan(key, None, 1);
            panic!("on purpose");
        }
        "hoard" => loop {
            let key = count(b"hoard", state)?.to_le_bytes();
            state.put_bytes(key, vec![b'x'; 512 << 10]);
            state.scan(key, None, 1);
        },
        "flood" => loop {
            let time = i64::MAX - count(b"flood", state)? as i64;
            state.set_timer(key, time);
            state.scan(b"flood", None, 1);
        },
        "search" => loop {
            state.scan(b"", None, usize::MAX);
        },
        _ => count(key, state).map(|count| count.to_string()),
    }
}

fn count(key: &[u8], state: &mut State) -> Result<u64, Reject> {
    let count = 1 + kept(key, state)?.unwrap_or_default();
    keep(key, count, state)?;
    Ok(count)
}

/// Rows to be, under the keys of those they came from.
#[derive(Default)]
struct Said {
    parents: Vec<u32>,
    keys: Column,
    values: Column,
}

impl Said {
    fn say(&mut self, row: u32, key: &[u8], text: &str) {
        self.parents.push(row);
        self.keys.push(Some(key));
        self.values.push(Some(text.as_bytes()));
    }

    fn send(self, out: &mut Outbox) {
        if !self.parents.is_empty() {
            out.emit(0, &self.parents, &self.keys, &self.values);
        }
    }
}

rustmq::export_stateful!(Keeps);
