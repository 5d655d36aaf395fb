//! Modules that keep state, natively: attributes, timers, what a rejected row changed.

// the name that authors know it by
extern crate rustmq_sdk as rustmq;

use std::time::Duration;

use rustmq::testing::{Harness, Lane, Row};
use rustmq::{
    Batch, Column, Context, Failure, Lookup, Module, Outbox, Record, Reject, State, Stateful,
};

mod total {
    use super::*;

    /// Sums up by key; a row that is not a number changes nothing, however late it says so.
    #[rustmq::map(state_schema = 3)]
    pub fn total(value: &str, meta: rustmq::Meta, state: &mut State) -> Result<i64, Reject> {
        let key = meta.key().unwrap_or_default();
        let before = state.get::<i64>(key)?.unwrap_or_default();
        state.put(key, &(before + 1_000_000))?;
        state.put(b"last", value)?;
        let number: i64 = value.parse()?;
        state.put(key, &(before + number))?;
        Ok(before + number)
    }
}

#[test]
fn a_function_with_a_state_keeps_it_by_key() {
    let mut lane = Lane::<total::total>::new();
    let row = |key: &str, value: &str| Row::new(value).key(key);
    let out = lane.run([row("a", "1"), row("b", "2"), row("a", "x"), row("a", "3")]);
    assert_eq!(out.texts("out"), ["1", "2", "4"]);
    assert_eq!(out.rejects.len(), 1);
    let out = lane.run([row("a", "5"), row("a", "y")]);
    assert_eq!(out.texts("out"), ["9"]);
    assert_eq!(lane.get::<i64>("a"), Some(9));
    assert_eq!(lane.get::<String>("last"), Some("5".to_owned()));
    assert_eq!(
        lane.keys(),
        [b"a".to_vec(), b"b".to_vec(), b"last".to_vec()]
    );
    assert_eq!(<total::total as Stateful>::STATE_SCHEMA, 3);
}

mod sent {
    use super::*;

    /// Counts, and sends where the value says: what cannot be sent was not counted.
    #[rustmq::map]
    pub fn sent(value: &str, state: &mut State) -> Result<Record<u64>, Reject> {
        let count = state.get::<u64>(b"count")?.unwrap_or_default() + 1;
        state.put(b"count", &count)?;
        Ok(Record::new(count).to(value.to_owned()))
    }
}

#[test]
fn a_row_whose_output_cannot_be_sent_changes_nothing() {
    let mut lane = Lane::<sent::sent>::new();
    let out = lane.run(["out", "nowhere", "out"]);
    assert_eq!(out.texts("out"), ["1", "2"]);
    assert_eq!(out.rejects[0].code, "port");
    assert_eq!(lane.get::<u64>("count"), Some(2));
}

mod fresh {
    use super::*;

    #[rustmq::filter]
    pub fn fresh(value: &[u8], state: &mut State) -> bool {
        let known = state.get_bytes(value).is_some();
        state.put_bytes(value, *b"1");
        !known
    }
}

#[test]
fn a_filter_can_remember() {
    let mut lane = Lane::<fresh::fresh>::new();
    assert_eq!(lane.run(["a", "b", "a"]).texts("out"), ["a", "b"]);
    assert_eq!(lane.run(["b", "c"]).texts("out"), ["c"]);
}

/// Counts by key in windows of ten microseconds, each told when it is over.
struct Windows;

impl Stateful for Windows {
    fn open(_: &Context) -> Result<Windows, Failure> {
        Ok(Windows)
    }

    fn process(&mut self, rows: &Batch, _: &mut Outbox, state: &mut State) -> Result<(), Failure> {
        for (row, time) in rows.event_times().iter().enumerate() {
            let end = time - time.rem_euclid(10) + 10;
            let key = [rows.keys().get(row).unwrap_or_default(), &end.to_be_bytes()].concat();
            let count = state.get::<u64>(&key).ok().flatten().unwrap_or_default();
            let put = state.put(&key, &(count + 1));
            put.map_err(|_| Failure::new("state", "a number is JSON"))?;
            state.set_timer(&key, end);
        }
        Ok(())
    }

    fn on_timers(
        &mut self,
        fired: &Batch,
        out: &mut Outbox,
        state: &mut State,
    ) -> Result<(), Failure> {
        let parents: Vec<u32> = (0..fired.len() as u32).collect();
        let (mut keys, mut values) = (Column::new(), Column::new());
        for key in fired.keys().iter().flatten() {
            keys.push(key.get(..1));
            values.push(state.get_bytes(key));
            state.delete(key);
        }
        out.emit(0, &parents, &keys, &values);
        Ok(())
    }
}

rustmq::export_stateful!(Windows);

#[test]
fn windows_are_told_once_in_order_of_their_ends() {
    let mut lane = Lane::<Windows>::new().lateness(Duration::from_micros(5));
    let row = |key: &str, time: i64| Row::new("").key(key).event_time(time);
    let out = lane.run([row("b", 3), row("a", 12), row("a", 14), row("b", 9)]);
    assert!(out.rows.is_empty());
    assert_eq!(lane.timers_set().len(), 2);
    let out = lane.run([row("a", 8), row("a", 26)]);
    let told = |out: &rustmq::testing::Outcome| -> Vec<(i64, String, String)> {
        let rows = out.rows.iter();
        rows.map(|row| {
            let key = String::from_utf8_lossy(row.key.as_deref().unwrap_or_default());
            (row.event_time, key.into_owned(), row.text())
        })
        .collect()
    };
    let pairs = [(10, "a", "1"), (10, "b", "2"), (20, "a", "2")];
    let expected = pairs.map(|(time, key, count)| (time, key.to_owned(), count.to_owned()));
    assert_eq!(told(&out), expected);
    assert!(out.rows.iter().all(|row| row.parent == 1));
    assert!(lane.run([row("c", 27)]).rows.is_empty());
    assert_eq!(lane.keys().len(), 2);
}

mod plain {
    #[rustmq::filter]
    pub fn plain(_: &[u8]) -> bool {
        true
    }
}

#[test]
fn only_what_keeps_state_says_so() {
    assert_eq!(<plain::plain as Module>::STATE_SCHEMA, None);
}

#[test]
fn entries_are_scanned_by_prefix() {
    struct Scans;
    impl Stateful for Scans {
        fn open(_: &Context) -> Result<Scans, Failure> {
            Ok(Scans)
        }
        fn process(&mut self, _: &Batch, _: &mut Outbox, state: &mut State) -> Result<(), Failure> {
            for key in ["a", "b1", "b2", "b3", "c"] {
                state.put_bytes(key, key);
            }
            state.delete("b2");
            let keys = |found: Vec<(Vec<u8>, Vec<u8>)>| -> Vec<Vec<u8>> {
                found.into_iter().map(|(key, _)| key).collect()
            };
            assert_eq!(keys(state.scan("b", None, 10)), [b"b1", b"b3"]);
            assert_eq!(keys(state.scan("b", Some(b"b1"), 10)), [b"b3"]);
            assert_eq!(keys(state.scan("", None, 2)), [&b"a"[..], b"b1"]);
            Ok(())
        }
    }
    Lane::<Scans>::new().run(["x"]);
}

mod listed {
    use super::*;

    /// Keeps rows, and says all that are kept; one that is not wanted is not kept.
    #[rustmq::map]
    pub fn listed(value: &str, state: &mut State) -> Result<String, Reject> {
        let key = format!("row {value}");
        if let Some(gone) = value.strip_prefix('-') {
            state.delete(format!("row {gone}"));
        } else {
            state.put(&key, value)?;
        }
        let found = state.scan("row ", None, usize::MAX);
        let keys = found.iter().map(|(key, _)| String::from_utf8_lossy(key));
        let keys = keys.collect::<Vec<_>>().join(",");
        match value {
            "bad" | "-a" => Err(Reject::new("bad", keys)),
            _ => Ok(keys),
        }
    }
}

#[test]
fn a_row_that_scans_can_still_be_taken_back() {
    let mut lane = Lane::<listed::listed>::new();
    let out = lane.run(["a", "c", "bad", "-a", "b", "-c"]);
    let texts = ["row a", "row a,row c", "row a,row b,row c", "row a,row b"];
    assert_eq!(out.texts("out"), texts.map(|text| format!("{text:?}")));
    let refused: Vec<&str> = out.rejects.iter().map(|r| r.message.as_str()).collect();
    assert_eq!(refused, ["row a,row bad,row c", "row c"]);
    assert_eq!(lane.keys(), [&b"row a"[..], b"row b"]);
}

mod spent {
    use super::*;

    /// What was spent at the prices of its time.
    #[rustmq::map]
    pub fn spent(item: &str, prices: &Lookup, state: &mut State) -> Result<i64, Reject> {
        let price: i64 = prices.get(item)?.unwrap_or_default();
        let spent = price + state.get::<i64>("spent")?.unwrap_or_default();
        state.put("spent", &spent)?;
        Ok(spent)
    }
}

#[test]
fn a_table_may_change_between_batches() {
    let node = Harness::new().lookup("prices", [("tea", "3")]);
    let mut lane = Lane::<spent::spent>::of(node);
    assert_eq!(
        lane.run(["tea", "milk", "tea"]).texts("out"),
        ["3", "3", "6"]
    );
    lane.lookup("prices", [("tea", "4"), ("milk", "1")]);
    assert_eq!(lane.run(["tea", "milk"]).texts("out"), ["10", "11"]);
}

mod moved {
    use super::*;

    /// Kept as a number until schema 2, and in cents until schema 3.
    #[rustmq::map(state_schema = 3, migrate(1 = euros, 2 = cents))]
    pub fn moved(value: &str, meta: rustmq::Meta, state: &mut State) -> Result<String, Reject> {
        let key = meta.key().unwrap_or_default();
        let before = state.get::<String>(key)?.unwrap_or_default();
        let all = before + value;
        state.put(key, &all)?;
        Ok(all)
    }

    fn euros(key: &[u8], value: &[u8], state: &mut State) -> Result<(), Reject> {
        let euros = str::from_utf8(value)?.parse::<u64>()?;
        state.put(key, &format!("{euros}.00"))
    }

    fn cents(key: &[u8], value: &[u8], state: &mut State) -> Result<(), Reject> {
        let cents = str::from_utf8(value)?.parse::<u64>()?;
        let key = key.strip_prefix(b"cents/").unwrap_or(key);
        // what was apart before is together now
        let before: u64 = state.get(b"sum")?.unwrap_or_default();
        state.put(b"sum", &(before + cents))?;
        state.put(key, &format!("{}.{:02}", cents / 100, cents % 100))
    }
}

#[test]
fn a_function_takes_over_what_it_kept_before() {
    type Moved = Lane<moved::moved>;
    assert_eq!(<moved::moved as Stateful>::MIGRATES, [1, 2]);
    let mut lane = Moved::new()
        .migrate(1, [("ann", "5"), ("bob", "7")])
        .expect("it goes");
    assert_eq!(lane.get::<String>("bob"), Some("7.00".to_owned()));
    assert_eq!(
        lane.run([Row::new("!").key("ann")]).texts("out"),
        ["\"5.00!\""]
    );
    // more than one part, in any order
    let old = (0..2_500)
        .rev()
        .map(|i| (format!("cents/{i:04}"), i.to_string()));
    let lane = Moved::new().migrate(2, old).expect("it goes");
    assert_eq!(lane.get::<u64>("sum"), Some((0..2_500).sum()));
    assert_eq!(lane.get::<String>("0207"), Some("2.07".to_owned()));
    assert_eq!(lane.keys().len(), 2_501);
    let failed = Moved::new().migrate(1, [("ann", "5"), ("bob", "seven")]);
    let failed = failed.err().expect("bob is none");
    assert!(failed.message.starts_with("key \"bob\": "), "{failed:?}");
}

#[test]
#[should_panic(expected = "the module takes over from schemas [1, 2], not from 4")]
fn nothing_is_taken_over_from_a_schema_that_is_not_named() {
    drop(Lane::<moved::moved>::new().migrate(4, [("ann", "5")]));
}
