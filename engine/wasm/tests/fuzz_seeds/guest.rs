//! Scripts of the guest, and what they must have come to.
//!
//! Called by `cargo test`. Invariants: `../../fuzz/fuzz_targets/body.rs`. Every function of `wit/` that a
//! guest can import is called and goes well at least once, every kind of emission is checked and every kind
//! of field emitted, and of each export some calls go well, some say no and some die: or the scripts prove
//! nothing.
//!
//! Bugs that were planted in the host, one at a time, and the script that found each (of seeds 24301, the
//! default, and 1), with the calls that there were then; 400,000 scripts of seed 7 find nothing without them:
//! - no bound on the bytes that a lane keeps: 2293, 6315
//! - no bound on the number of timers: 179, 616
//! - a call that failed keeps what it added to the sums of the state: 23, 6
//! - the number of a lookup table is not checked: 30, 9
//! - a migration that failed is not taken back: 1, 1
//! - requests are made outside of a batch: 215, 210
//! - no bound on the requests of a batch: 571, 3895
//!
//! The first three were found only after half of the calls got lists that fit each other, and the limits
//! became so small that a script reaches them.
//!
//! Planted again, and some more, when scripts came to `open`: each within 5,000 scripts of the default seed:
//! - no bound on the bytes that a lane keeps; requests outside of a batch; no bound on those of a batch
//! - rows that an emit of columns names are not checked; floats of a column that are not finite
//! - more or fewer event times than rows of an emit of columns

use std::collections::BTreeSet;

use rustmq_wasm::world;

use crate::body::calls::{
    ANSWER, CALLS, FIELDS, FLOATS, FLOATS_AT, IN_OPEN, REQUEST_BYTES, REQUESTS, REQUESTS_AT,
    STRICT, TEXT, TEXT_AT, ZEROS_AT, core,
};
use crate::body::{self, Seen};
use crate::{At, Dice, run};

type Call = (&'static str, &'static str, &'static str, &'static str);

/// A script that grows.
struct Script<'a> {
    dice: &'a mut Dice,
    bytes: Vec<u8>,
    /// Of the lists that it makes, so that those of one emit fit each other.
    rows: u32,
    /// The call before.
    last: usize,
}

impl Script<'_> {
    fn bytes(dice: &mut Dice, steps: u32) -> Vec<u8> {
        let rows = 1 + dice.below(7);
        let mut script = Script {
            dice,
            bytes: Vec::new(),
            rows,
            last: 0,
        };
        let in_open = script.dice.below(6).saturating_sub(3);
        for number in 0..in_open + 1 + script.dice.below(steps) {
            script.step(number < in_open);
        }
        script.bytes
    }

    fn step(&mut self, in_open: bool) {
        let call = match in_open {
            true => self.opening(),
            false => self.next(),
        };
        // Most calls mean what may fit, or no script would come further than to the first.
        let mut meant = match self.dice.below(12) {
            0 => self.dice.roll() as u8,
            _ => self.dice.one(&[0, 0, STRICT]),
        };
        if in_open {
            meant |= IN_OPEN;
        }
        if self.dice.below(16) == 0 {
            meant |= ANSWER;
        }
        self.bytes.extend([call as u8, meant]);
        if self.dice.below(16) == 0 {
            self.rows = 1 + self.dice.below(7);
        }
        let mut numbers: [u32; 16] = std::array::from_fn(|_| self.number());
        if self.dice.below(8) > 0 {
            let fit = self.fit(call);
            numbers[..fit.len()].copy_from_slice(&fit);
        }
        if meant & ANSWER != 0 && self.dice.below(2) == 0 {
            // it says no; where it is an address too, that is cut
            numbers[0] |= 1;
        }
        let numbers = numbers.iter().flat_map(|number| number.to_le_bytes());
        self.bytes.extend(numbers);
        self.last = call;
    }

    /// What is for `open`, or anything.
    fn opening(&mut self) -> usize {
        let is_for_open =
            |call: &Call| call.2.starts_with("ctx") || call.0 == "telemetry" || call.1 == "table";
        self.mostly(is_for_open)
    }

    /// One of these calls, or anything.
    fn mostly(&mut self, wanted: impl Fn(&Call) -> bool) -> usize {
        match self.dice.below(8) {
            0 => self.dice.below(CALLS.len() as u32) as usize,
            _ => self.one(wanted),
        }
    }

    fn one(&mut self, wanted: impl Fn(&Call) -> bool) -> usize {
        let numbers = (0..CALLS.len()).filter(|number| wanted(&CALLS[*number]));
        let numbers: Vec<usize> = numbers.collect();
        self.dice.one(&numbers)
    }

    /// What is of use after the call before, or anything.
    fn next(&mut self) -> usize {
        let (interface, name, ..) = CALLS[self.last];
        let after: &[&str] = match (interface, name) {
            ("columns", "emit") | (_, "emit-columns" | "set-keys") => &[
                "set-keys",
                "set-bools",
                "set-ints",
                "set-floats",
                "set-bytes",
                "header",
                "times",
            ],
            (_, "set-bools" | "set-ints" | "set-floats" | "set-bytes") => &[
                "set-keys",
                "set-bools",
                "set-ints",
                "set-floats",
                "set-bytes",
            ],
            (_, "emit" | "[method]outbox.emit") => &["header", "times"],
            (_, "counter") => &["add"],
            (_, "histogram") => &["observe"],
            _ => &[],
        };
        if after.is_empty() || self.dice.below(4) == 0 {
            return self.any();
        }
        let wanted = match self.dice.one(after) {
            "header" => "set-header",
            "times" => "set-event-times",
            name => name,
        };
        self.one(|call| call.1.rsplit('.').next() == Some(wanted))
    }

    /// Anything; most often what needs neither a context nor an emit before it.
    fn any(&mut self) -> usize {
        let is_alone = |call: &Call| {
            let of_outbox = call.2.starts_with("out ");
            !(call.2.starts_with("ctx") || of_outbox && call.1.contains("set-"))
        };
        self.mostly(is_alone)
    }

    /// A number that is likely to be a good or a bad one.
    fn number(&mut self) -> u32 {
        match self.dice.below(8) {
            0 => self.dice.roll(),
            1 => u32::MAX - self.dice.below(3),
            2 => 0x7fff_fffe + self.dice.below(4),
            3 => self.dice.below(1 << 18),
            4 => 512 + self.dice.below(512),
            _ => self.dice.below(5),
        }
    }

    /// Arguments that the host takes, and does something with: lists of as many elements as each other, whole
    /// columns, kinds of fields that are declared.
    fn fit(&mut self, call: usize) -> Vec<u32> {
        let (_, name, arguments, _) = CALLS[call];
        let mut numbers = Vec::new();
        for kind in arguments.split(' ') {
            let fit = self.argument(name, kind);
            assert_eq!(fit.len(), core(kind).len(), "{kind}");
            if kind == "flag" && fit == [0] && name.starts_with("emit") {
                // no parents: a row of each of the batch
                self.rows = 3;
            }
            numbers.extend(fit);
        }
        numbers
    }

    fn argument(&mut self, name: &str, kind: &str) -> Vec<u32> {
        let rows = self.rows;
        match kind {
            "ctx" | "rows" | "out" => vec![self.number()],
            // as they are declared unless a step does otherwise
            "kind" => vec![match name {
                "get-bools" | "set-bools" => 0,
                "get-ints" | "set-ints" => self.dice.one(&[1, 5]),
                "get-floats" | "set-floats" => 2,
                "get-bytes" | "set-bytes" => self.dice.one(&[3, 4]),
                _ => self.dice.below(5),
            }],
            "port" | "flag" => vec![self.dice.below(2)],
            "number" => vec![self.dice.below(3)],
            "bytes" => vec![8 * self.dice.below(4), self.dice.below(3)],
            "text" => vec![TEXT_AT, 1 + self.dice.below(TEXT.len() as u32)],
            "texts" => vec![0, self.dice.below(5)],
            "fields" => vec![
                self.dice.below(FIELDS.len() as u32 - 5),
                1 + self.dice.below(6),
            ],
            "bounds" => vec![FLOATS_AT, 1 + self.dice.below(FLOATS)],
            "requests" => {
                // an address of 8 bytes
                let first = self.dice.one(&[0, 2]);
                vec![
                    REQUESTS_AT + REQUEST_BYTES * first,
                    1 + self.dice.below(REQUESTS - first),
                ]
            }
            "ids" => vec![ZEROS_AT, rows],
            "parents" => vec![self.parents(), rows],
            "packed-parents" => vec![self.parents(), 4 * rows],
            "times" => vec![8 * self.dice.below(4), rows],
            "packed-times" => vec![8 * self.dice.below(4), 8 * rows],
            "column" => self.column(rows + 1),
            "packed-column" => self.column(4 * (rows + 1)),
            "bools" => self.values(rows.div_ceil(8)),
            "ints" | "doubles" => self.values(rows),
            "packed-numbers" => self.values(8 * rows),
            // where the answer lies is not the script's
            _ => vec![0],
        }
    }

    /// Rows of the batch, which has three: the first ones, or the first one again and again.
    fn parents(&mut self) -> u32 {
        match self.rows {
            0..=3 => self.dice.one(&[0, ZEROS_AT]),
            _ => ZEROS_AT,
        }
    }

    /// Rows of one byte: offsets 0, 1, 2 and so on stand at 0; bytes of all kinds in the script.
    fn column(&mut self, offsets: u32) -> Vec<u32> {
        let data = match self.dice.below(2) {
            0 => 4096 + 8 * self.dice.below(40),
            _ => 8 * self.dice.below(4),
        };
        [[0, offsets], [data, self.rows], self.validity()].concat()
    }

    fn values(&mut self, length: u32) -> Vec<u32> {
        let at = match self.dice.below(3) {
            0 => 4096 + 8 * self.dice.below(40),
            1 => FLOATS_AT,
            _ => 8 * self.dice.below(4),
        };
        [[at, length], self.validity()].concat()
    }

    /// Most often all are present.
    fn validity(&mut self) -> [u32; 2] {
        match self.dice.below(6) {
            0 => [8 * self.dice.below(4), 1],
            _ => [0, 0],
        }
    }
}

/// What a guest can import of `wit/`, without what it exports itself.
#[test]
fn all_that_the_host_offers_is_called() {
    let (resolve, _) = world::resolve().expect("wit/ is valid");
    let exported = ["module", "timed", "migration"];
    let offered: BTreeSet<(String, String)> = resolve
        .interfaces
        .iter()
        .filter_map(|(_, interface)| Some((interface.name.clone()?, interface)))
        .filter(|(name, _)| !exported.contains(&name.as_str()))
        .flat_map(|(name, interface)| {
            let functions = interface.functions.keys().cloned();
            functions.map(move |function| (name.clone(), function))
        })
        .collect();
    let called = CALLS
        .iter()
        .map(|call| (call.0.to_owned(), call.1.to_owned()));
    assert_eq!(called.collect::<BTreeSet<_>>(), offered);
    assert_eq!(CALLS.len(), offered.len(), "one is called twice");
    assert!(CALLS.len() < 0x100, "a byte says which");
}

#[test]
fn no_script_harms_the_host() {
    let (mut dice, scripts) = run(20_000);
    let mut seen = Seen::default();
    body::run(&[], &mut seen);
    let mut ends = [0u64, 0];
    for number in 1..=scripts {
        let _at = At(number);
        let is_dead = body::run(&Script::bytes(&mut dice, 8), &mut seen);
        ends[usize::from(is_dead)] += 1;
    }
    eprintln!("went on, died: {ends:?}");
    eprintln!("{seen:?}");
    let some = scripts / 20;
    assert!(ends.iter().all(|count| *count > some), "{ends:?}");
    proven(&seen);
}

/// Nothing is left out.
fn proven(seen: &Seen) {
    let reached = CALLS.iter().zip(&seen.reached);
    let never: Vec<_> = reached.filter(|(_, times)| **times == 0).collect();
    assert!(never.is_empty(), "they never went well: {never:?}");
    for (what, counts) in [
        ("opened, said no, died in `open`", seen.opened),
        ("the same of calls", seen.called),
        ("the same of migrations", seen.migrated),
        ("forwarded, emitted as bytes, as columns", seen.emitted),
    ] {
        assert!(!counts.contains(&0), "{what}: {counts:?}");
    }
    let kinds = ["bool", "bytes", "float64", "int64", "string", "timestamp"];
    assert!(
        seen.kinds.iter().eq(&kinds),
        "emitted fields: {:?}",
        seen.kinds
    );
    assert!(seen.requests > 0, "no request was answered");
}
