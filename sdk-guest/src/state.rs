//! What a module keeps from batch to batch.
//!
//! ```
//! # extern crate rustmq_sdk as rustmq;
//! use rustmq::{Meta, Reject, State};
//!
//! #[rustmq::map]
//! fn count(order: &[u8], meta: Meta, state: &mut State) -> Result<u64, Reject> {
//!     let key = meta.key().ok_or_else(|| Reject::new("key", "no key"))?;
//!     let seen = 1 + state.get::<u64>(key)?.unwrap_or_default();
//!     state.put(key, &seen)?;
//!     Ok(seen)
//! }
//!
//! use rustmq::testing::{Lane, Row};
//! let mut lane = Lane::<count>::new();
//! lane.run([Row::new("tea").key("ann"), Row::new("milk").key("bob")]);
//! let out = lane.run([Row::new("tea").key("ann"), Row::new("no key")]);
//! assert_eq!(out.texts("out"), ["2"]);
//! assert_eq!(lane.get::<u64>("ann"), Some(2));
//! ```
//!
//! Called by: guests. Invariants: one set of keys for each lane of a node (the lane's partition holds
//! all records of a key); what a call reads is fetched once, what it changes is told once, at its
//! end, and counts only if it returns ok; what a rejected row changed is taken back.

use std::collections::BTreeMap;
use std::ops::Bound;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::column::Column;
use crate::record::{Failure, Reject};
use crate::{Batch, Context, Module, Outbox, sys};

/// A module that keeps state; else as [`Module`]. Exported with [`crate::export_stateful!`].
/// A function of an attribute becomes one by taking a `&mut State`.
pub trait Stateful: Sized {
    /// As in [`Module`].
    const PARAMS: Option<&'static crate::describe::Schema> = None;
    const PORTS: Option<&'static [&'static str]> = None;
    /// Version of how it keeps its state: one that reads what another wrote in vain has another
    /// number, and is put in its place only if it can [`migrate`](Stateful::migrate).
    const STATE_SCHEMA: u32 = 1;
    /// The older versions whose state `migrate` takes over.
    const MIGRATES: &'static [u32] = &[];

    fn open(context: &Context) -> Result<Self, Failure>;

    fn process(&mut self, rows: &Batch, out: &mut Outbox, state: &mut State)
    -> Result<(), Failure>;

    /// Timers that the watermark has passed, in the order of time and key: keys and event times of the
    /// batch are theirs, there are no values.
    fn on_timers(
        &mut self,
        fired: &Batch,
        out: &mut Outbox,
        state: &mut State,
    ) -> Result<(), Failure> {
        let _ = (fired, out, state);
        Ok(())
    }

    /// Takes over a part of what was kept with schema `from`, one of `MIGRATES`: each entry comes once, in
    /// the order of keys. The state is empty before the first part, and what is put into it is kept from
    /// now on; timers stay as they are, unless they are set or cleared here. After an error, or a
    /// panic, the old version goes on with what it kept.
    fn migrate(&mut self, from: u32, old: &Entries, state: &mut State) -> Result<(), Failure> {
        let _ = (old, state);
        let message = format!("nothing is taken over from schema {from}");
        Err(Failure::new("migrate", message))
    }
}

/// Entries of an older state.
#[derive(Debug, Clone)]
pub struct Entries {
    keys: Column,
    values: Column,
}

impl Entries {
    pub(crate) fn new(keys: Column, values: Column) -> Entries {
        Entries { keys, values }
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Keys and values, in the order of keys.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let values = self.values.iter().flatten();
        self.keys.iter().flatten().zip(values)
    }
}

/// The state of a node's lane during one call.
#[derive(Default)]
pub struct State {
    host: sys::State,
    seen: BTreeMap<Vec<u8>, Seen>,
    /// By time and key: whether it was set or cleared last.
    timers: BTreeMap<(i64, Vec<u8>), bool>,
    /// What the row at work changed, as it was before.
    undo: Vec<Undo>,
    /// Whether rows are told apart: what the one at work changed is not told before it is over.
    by_row: bool,
}

#[derive(Clone)]
struct Seen {
    value: Option<Vec<u8>>,
    changed: bool,
}

enum Undo {
    Entry(Vec<u8>, Option<Seen>),
    Timer((i64, Vec<u8>), Option<bool>),
}

impl State {
    pub(crate) fn new(host: sys::State) -> State {
        State {
            host,
            ..State::default()
        }
    }

    /// What was put at a key, read from JSON.
    pub fn get<T: DeserializeOwned>(&mut self, key: impl AsRef<[u8]>) -> Result<Option<T>, Reject> {
        let Some(bytes) = self.get_bytes(key) else {
            return Ok(None);
        };
        let read = serde_json::from_slice(bytes);
        read.map(Some)
            .map_err(|e| Reject::new("state", format!("what is kept does not fit: {e}")))
    }

    /// Puts a value, as JSON.
    pub fn put<T: Serialize + ?Sized>(
        &mut self,
        key: impl AsRef<[u8]>,
        value: &T,
    ) -> Result<(), Reject> {
        let bytes = serde_json::to_vec(value).map_err(|e| Reject::new("state", e))?;
        self.put_bytes(key, bytes);
        Ok(())
    }

    pub fn get_bytes(&mut self, key: impl AsRef<[u8]>) -> Option<&[u8]> {
        let key = key.as_ref();
        if !self.seen.contains_key(key) {
            let mut keys = Column::new();
            keys.push(Some(key));
            self.look(&keys);
        }
        self.seen.get(key)?.value.as_deref()
    }

    pub fn put_bytes(&mut self, key: impl AsRef<[u8]>, value: impl Into<Vec<u8>>) {
        self.change(key.as_ref(), Some(value.into()));
    }

    pub fn delete(&mut self, key: impl AsRef<[u8]>) {
        self.change(key.as_ref(), None);
    }

    /// Reads what stands at many keys with one call of the host, so that `get` has it at hand. The
    /// attributes do it for the keys of a batch.
    pub fn fetch(&mut self, keys: &Column) {
        let mut wanted = Column::new();
        let mut asked = std::collections::BTreeSet::new();
        for key in keys.iter().flatten() {
            if !self.seen.contains_key(key) && asked.insert(key) {
                wanted.push(Some(key));
            }
        }
        if !wanted.is_empty() {
            self.look(&wanted);
        }
    }

    /// At most `limit` entries whose keys begin with `prefix` and come behind `after`, in the order of
    /// their bytes.
    pub fn scan(
        &mut self,
        prefix: impl AsRef<[u8]>,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Vec<(Vec<u8>, Vec<u8>)> {
        if !self.by_row {
            self.tell();
        }
        let prefix = prefix.as_ref();
        let mut found: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut after = after.map(<[u8]>::to_vec);
        while found.len() < limit {
            let left = u32::try_from(limit - found.len()).unwrap_or(u32::MAX);
            let (keys, values) = self.host.scan(prefix, after.as_deref(), left);
            let pairs = keys.iter().flatten().zip(values.iter());
            let pairs = pairs.map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec)));
            let mut page: BTreeMap<Vec<u8>, Option<Vec<u8>>> = pairs.collect();
            let last = page.last_key_value().map(|(key, _)| key.clone());
            page.extend(self.own(prefix, after.as_deref(), last.as_deref()));
            let there = page.into_iter();
            found.extend(there.filter_map(|(key, value)| Some((key, value?))));
            if last.is_none() {
                break;
            }
            after = last;
        }
        found.truncate(limit);
        found
    }

    /// What the call changed and has not told yet, of the keys with a prefix, behind one and up to another.
    fn own(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        last: Option<&[u8]>,
    ) -> impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)> {
        let from = match after.filter(|after| *after >= prefix) {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(prefix),
        };
        let seen = self.seen.range::<[u8], _>((from, Bound::Unbounded));
        let seen = seen.take_while(move |(key, _)| {
            key.starts_with(prefix) && last.is_none_or(|last| key.as_slice() <= last)
        });
        let changed = seen.filter(|(_, seen)| seen.changed);
        changed.map(|(key, seen)| (key.clone(), seen.value.clone()))
    }

    /// A timer of a key, which fires in `on_timers` once the watermark has passed `time`: microseconds
    /// since the epoch, UTC.
    pub fn set_timer(&mut self, key: impl AsRef<[u8]>, time: i64) {
        self.timer((time, key.as_ref().to_vec()), true);
    }

    pub fn clear_timer(&mut self, key: impl AsRef<[u8]>, time: i64) {
        self.timer((time, key.as_ref().to_vec()), false);
    }

    /// A row begins: what it changes can be taken back.
    #[doc(hidden)]
    pub fn begin_row(&mut self) {
        self.by_row = true;
        self.undo.clear();
    }

    /// The row is not taken: nor is what it changed.
    #[doc(hidden)]
    pub fn undo_row(&mut self) {
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Entry(key, Some(seen)) => drop(self.seen.insert(key, seen)),
                Undo::Entry(key, None) => drop(self.seen.remove(&key)),
                Undo::Timer(timer, Some(set)) => drop(self.timers.insert(timer, set)),
                Undo::Timer(timer, None) => drop(self.timers.remove(&timer)),
            }
        }
    }

    fn change(&mut self, key: &[u8], value: Option<Vec<u8>>) {
        let seen = Seen {
            value,
            changed: true,
        };
        let before = self.seen.insert(key.to_vec(), seen);
        self.undo.push(Undo::Entry(key.to_vec(), before));
    }

    fn timer(&mut self, timer: (i64, Vec<u8>), set: bool) {
        let before = self.timers.insert(timer.clone(), set);
        self.undo.push(Undo::Timer(timer, before));
    }

    fn look(&mut self, keys: &Column) {
        let values = self.host.get(keys);
        for (key, value) in keys.iter().flatten().zip(values.iter()) {
            let seen = Seen {
                value: value.map(<[u8]>::to_vec),
                changed: false,
            };
            self.seen.insert(key.to_vec(), seen);
        }
    }

    /// Tells the host all that changed.
    pub(crate) fn tell(&mut self) {
        let (mut keys, mut values) = (Column::new(), Column::new());
        for (key, seen) in self.seen.iter_mut().filter(|(_, seen)| seen.changed) {
            keys.push(Some(key));
            values.push(seen.value.as_deref());
            seen.changed = false;
        }
        if !keys.is_empty() {
            self.host.put(&keys, &values);
        }
        for set in [true, false] {
            let (mut keys, mut times) = (Column::new(), Vec::new());
            for ((time, key), _) in self.timers.iter().filter(|(_, last)| **last == set) {
                keys.push(Some(key));
                times.push(*time);
            }
            if !times.is_empty() {
                self.host.timers(&keys, &times, set);
            }
        }
        self.timers.clear();
        self.undo.clear();
    }
}

/// A [`Stateful`] as the module that is exported.
#[doc(hidden)]
pub struct Keeping<M>(M);

impl<M: Stateful> Module for Keeping<M> {
    const PARAMS: Option<&'static crate::describe::Schema> = M::PARAMS;
    const PORTS: Option<&'static [&'static str]> = M::PORTS;
    const STATE_SCHEMA: Option<u32> = Some(M::STATE_SCHEMA);
    const MIGRATES: &'static [u32] = M::MIGRATES;

    fn open(context: &Context) -> Result<Self, Failure> {
        M::open(context).map(Keeping)
    }

    fn process(&mut self, rows: &Batch, out: &mut Outbox) -> Result<(), Failure> {
        self.with(|module, state| module.process(rows, out, state))
    }
}

impl<M: Stateful> Keeping<M> {
    pub fn on_timers(&mut self, fired: &Batch, out: &mut Outbox) -> Result<(), Failure> {
        self.with(|module, state| module.on_timers(fired, out, state))
    }

    pub fn migrate(&mut self, from: u32, old: &Entries) -> Result<(), Failure> {
        self.with(|module, state| module.migrate(from, old, state))
    }

    fn with(
        &mut self,
        call: impl FnOnce(&mut M, &mut State) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut state = State::new(sys::State::default());
        call(&mut self.0, &mut state)?;
        state.tell();
        Ok(())
    }
}
