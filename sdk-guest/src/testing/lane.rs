//! A lane of a module that keeps state: batch after batch, with timers.
//!
//! Called by: tests of guests. Invariants: as in the platform, timers fire after the batch that moved
//! the watermark past them, each once, in the order of time and key; those set meanwhile wait for
//! the next batch. A lane is one case of `rustmq module test`, written down when it is dropped.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::case::LaneCase;
use super::{Harness, Outcome, Row, case};
use crate::sys::state::{Store, swap};
use crate::sys::{self, http};
use crate::{Column, Entries, Failure, Keeping, Module, Stateful};
use serde::de::DeserializeOwned;

/// Entries that a module is given in one call, at most.
const MIGRATION_ENTRIES: usize = 1_000;

/// One lane, with all that it keeps.
pub struct Lane<M: Stateful> {
    harness: Harness,
    module: Keeping<M>,
    kept: Store,
    watermark: i64,
    case: LaneCase,
    /// Whether it cannot be one: it made requests, which nobody answers in a case, or took something over
    /// when it had begun.
    no_case: bool,
}

impl<M: Stateful> Drop for Lane<M> {
    fn drop(&mut self) {
        // what a test that fails has seen so far says nothing
        if self.case.batches.is_empty() || self.no_case || std::thread::panicking() {
            return;
        }
        let lane = std::mem::take(&mut self.case);
        case::record_lane::<M>(&self.harness.context, lane, &self.kept);
    }
}

impl<M: Stateful> Default for Lane<M> {
    fn default() -> Lane<M> {
        Lane::new()
    }
}

impl<M: Stateful> Lane<M> {
    /// A node without params, with the one output `out`.
    pub fn new() -> Lane<M> {
        Lane::of(Harness::new())
    }

    /// Opens the module as the node says. Panics where it does not open.
    pub fn of(harness: Harness) -> Lane<M> {
        drop(sys::telemetry::take());
        Lane {
            module: harness.opened(),
            harness,
            kept: Store::default(),
            watermark: i64::MIN,
            case: LaneCase::default(),
            no_case: false,
        }
    }

    /// The node's `lateness`.
    pub fn lateness(mut self, lateness: Duration) -> Lane<M> {
        self.case.lateness_us = lateness.as_micros() as i64;
        self
    }

    /// From now on this is in a table, as after records in its topic: batches that follow see it.
    pub fn lookup(
        &mut self,
        name: impl Into<String>,
        entries: impl IntoIterator<Item = (impl Into<Vec<u8>>, impl Into<Vec<u8>>)>,
    ) {
        self.harness.set_lookup(name, entries);
    }

    /// The module takes over entries that were kept with schema `from`, as it does before its first batch;
    /// timers and watermark stay. What the lane keeps is then what the module made of them.
    ///
    /// # Errors
    /// The module's own. The platform then goes on with the old version.
    pub fn migrate(
        mut self,
        from: u32,
        old: impl IntoIterator<Item = (impl Into<Vec<u8>>, impl Into<Vec<u8>>)>,
    ) -> Result<Lane<M>, Failure> {
        if !M::MIGRATES.contains(&from) {
            let known = M::MIGRATES;
            panic!("the module takes over from schemas {known:?}, not from {from}");
        }
        let old = old.into_iter().map(|(k, v)| (k.into(), v.into()));
        let old: BTreeMap<Vec<u8>, Vec<u8>> = old.collect();
        let others = swap(Store {
            entries: BTreeMap::new(),
            timers: std::mem::take(&mut self.kept.timers),
        });
        let entries: Vec<_> = old.iter().collect();
        let parts = entries.chunks(MIGRATION_ENTRIES);
        let module = &mut self.module;
        let done = parts
            .map(part)
            .try_for_each(|part| module.migrate(from, &part));
        self.kept = swap(others);
        self.no_case |= !self.case.batches.is_empty() || self.case.migrated.is_some();
        self.case.migrated = Some((from, old));
        done.map(|()| self)
    }

    /// Gives the module a batch, and then the timers that it made due: what they emit has the batch's
    /// last row as its parent. Panics where the module fails.
    pub fn run(&mut self, rows: impl IntoIterator<Item = impl Into<Row>>) -> Outcome {
        let rows: Vec<Row> = rows.into_iter().map(Into::into).collect();
        let _ = http::made();
        let first = case::is_wanted() && self.case.batches.is_empty();
        let begin = first.then(|| (self.kept.clone(), self.watermark));
        let others = swap(std::mem::take(&mut self.kept));
        let (harness, module) = (&self.harness, &mut self.module);
        let mut outcome = harness.batch(&rows, self.watermark, |batch, out| {
            module.process(batch, out)
        });
        self.kept = swap(others);
        let newest = rows.iter().map(|row| row.event_time).max();
        if let Some(newest) = newest {
            let moved = newest.saturating_sub(self.case.lateness_us);
            self.watermark = self.watermark.max(moved);
        }
        outcome.add(self.timers(), rows.len().saturating_sub(1));
        self.no_case |= http::made();
        if let Some(begin) = &begin {
            let timed = case::native_ns(rows.len(), || self.once(&rows, begin));
            self.case.native_ns = timed;
        }
        if case::is_wanted() {
            let batch = case::batch(&self.harness.context, &rows, &outcome);
            self.case.batches.push(batch);
        }
        outcome
    }

    /// How long the module takes for a batch, of which nothing is kept.
    fn once(&mut self, rows: &[Row], (kept, watermark): &(Store, i64)) -> Duration {
        let decoded = self.harness.decoded(rows);
        let rows = decoded.kept(rows);
        let (batch, mut out) = self.harness.lent(&rows, &decoded, *watermark);
        let others = swap(kept.clone());
        let begun = Instant::now();
        // what came of it the first time is what counts
        let _ = self.module.process(&batch, &mut out);
        let took = begun.elapsed();
        drop((swap(others), sys::telemetry::take()));
        took
    }

    fn timers(&mut self) -> Outcome {
        let later = (self.watermark.saturating_add(1), Vec::new());
        let left = self.kept.timers.split_off(&later);
        let due = std::mem::replace(&mut self.kept.timers, left);
        if due.is_empty() {
            return Outcome::default();
        }
        let fired: Vec<Row> = due
            .into_iter()
            .map(|(time, key)| Row {
                key: Some(key),
                event_time: time,
                ..Row::default()
            })
            .collect();
        let others = swap(std::mem::take(&mut self.kept));
        let module = &mut self.module;
        let outcome = self.harness.timed(&fired, self.watermark, |batch, out| {
            module.on_timers(batch, out)
        });
        self.kept = swap(others);
        outcome
    }

    /// What is kept at a key. Panics where it is not JSON of that type.
    pub fn get<T: DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Option<T> {
        let bytes = self.kept.entries.get(key.as_ref())?;
        let read = serde_json::from_slice(bytes);
        Some(read.unwrap_or_else(|e| panic!("what is kept is not as expected: {e}")))
    }

    /// Keys, in the order of their bytes.
    pub fn keys(&self) -> Vec<Vec<u8>> {
        self.kept.entries.keys().cloned().collect()
    }

    /// Time and key of the timers that are set, in order.
    pub fn timers_set(&self) -> Vec<(i64, Vec<u8>)> {
        self.kept.timers.iter().cloned().collect()
    }
}

fn part(entries: &[(&Vec<u8>, &Vec<u8>)]) -> Entries {
    let (mut keys, mut values) = (Column::new(), Column::new());
    for (key, value) in entries {
        keys.push(Some(key));
        values.push(Some(value));
    }
    Entries::new(keys, values)
}

impl Outcome {
    /// What came of a second call, all of it from one row.
    fn add(&mut self, mut more: Outcome, parent: usize) {
        more.rows.iter_mut().for_each(|row| row.parent = parent);
        let refused = more.rejects.iter_mut().chain(&mut more.retries);
        refused.for_each(|refused| refused.row = parent);
        self.rows.extend(more.rows);
        self.rejects.extend(more.rejects);
        self.retries.extend(more.retries);
        self.log.extend(more.log);
        for (name, count) in more.counters {
            *self.counters.entry(name).or_default() += count;
        }
        for (name, values) in more.histograms {
            self.histograms.entry(name).or_default().extend(values);
        }
    }
}
