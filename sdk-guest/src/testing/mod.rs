//! Runs a module natively, on rows written by hand: `cargo test` needs no broker, no WebAssembly.
//!
//! Called by: tests of guests.
//! Invariants: the same module code and the same loops as in the sandbox; the same rules too: a
//! rejected or retried row has no output, an error of `process` panics with its message. Rows
//! read as columns are decoded from JSON as the host decodes them, columns are written as JSON.
//! Each run of the crate's own module, and each lane, is also a case of `rustmq module test`, which puts
//! the same rows through the component (those that make requests are not: nobody answers there).

mod case;
mod json;
mod lane;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::batch::{Batch, Context};
use crate::http::{Error, Request, Response};
use crate::outbox::Outbox;
use crate::record::Failure;
use crate::sys::{self, Call, Emit, Values};
use crate::{Column, Level, Module};

pub use lane::Lane;

/// An input row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    /// Microseconds since the epoch, UTC.
    pub event_time: i64,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Row {
    pub fn new(value: impl Into<Vec<u8>>) -> Row {
        Row {
            value: Some(value.into()),
            ..Row::default()
        }
    }

    pub fn json(value: &impl serde::Serialize) -> Row {
        Row::new(serde_json::to_vec(value).expect("the test's own value"))
    }

    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Row {
        self.key = Some(key.into());
        self
    }

    pub fn event_time(mut self, micros: i64) -> Row {
        self.event_time = micros;
        self
    }

    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Row {
        self.headers.push((name.into(), value.into()));
        self
    }
}

impl From<&str> for Row {
    fn from(value: &str) -> Row {
        Row::new(value)
    }
}

impl From<String> for Row {
    fn from(value: String) -> Row {
        Row::new(value)
    }
}

impl From<&[u8]> for Row {
    fn from(value: &[u8]) -> Row {
        Row::new(value)
    }
}

/// A row that came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutRow {
    pub port: String,
    /// Number of the input row it came from.
    pub parent: usize,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub event_time: i64,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl OutRow {
    /// The value as text; empty without one.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).into_owned()
    }
}

/// A row that was rejected, or is to be tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub row: usize,
    pub code: String,
    pub message: String,
}

/// All that came of a batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    pub rows: Vec<OutRow>,
    pub rejects: Vec<Refused>,
    pub retries: Vec<Refused>,
    /// Lines with their values behind them.
    pub log: Vec<(Level, String)>,
    pub counters: BTreeMap<String, u64>,
    /// All values that were observed, in order.
    pub histograms: BTreeMap<String, Vec<f64>>,
}

impl Outcome {
    /// The rows of one output, in order.
    pub fn on(&self, port: &str) -> Vec<&OutRow> {
        self.rows.iter().filter(|row| row.port == port).collect()
    }

    /// The values of one output as text, in order.
    pub fn texts(&self, port: &str) -> Vec<String> {
        self.on(port).into_iter().map(OutRow::text).collect()
    }

    /// The values of one output read from JSON. Panics where one is not.
    pub fn json<T: serde::de::DeserializeOwned>(&self, port: &str) -> Vec<T> {
        let read = |row: &OutRow| {
            serde_json::from_str(&row.text())
                .unwrap_or_else(|e| panic!("output {:?} is not as expected: {e}", row.text()))
        };
        self.on(port).into_iter().map(read).collect()
    }
}

/// Runs a module over rows as one batch, without params, with the one output `out`.
pub fn run<M: Module>(rows: impl IntoIterator<Item = impl Into<Row>>) -> Outcome {
    Harness::new().run::<M>(rows)
}

/// Who answers the requests that modules make, on this thread and from now on.
pub fn http(answers: impl Fn(&Request) -> Result<Response, Error> + 'static) {
    sys::http::answer(answers);
}

/// What a node would declare.
pub struct Harness {
    context: sys::Context,
}

impl Default for Harness {
    fn default() -> Harness {
        Harness::new()
    }
}

impl Harness {
    pub fn new() -> Harness {
        Harness {
            context: sys::Context {
                params: String::new(),
                inputs: vec!["in".into()],
                outputs: vec!["out".into()],
                partition: 0,
                said: Rc::default(),
                lookups: Rc::default(),
            },
        }
    }

    pub fn params(mut self, params: &impl serde::Serialize) -> Harness {
        self.context.params = serde_json::to_string(params).expect("the test's own params");
        self
    }

    pub fn outputs(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Harness {
        self.context.outputs = names.into_iter().map(Into::into).collect();
        self
    }

    /// A table that the node declares, and what is in it. Said again, it is another one.
    pub fn lookup(
        self,
        name: impl Into<String>,
        entries: impl IntoIterator<Item = (impl Into<Vec<u8>>, impl Into<Vec<u8>>)>,
    ) -> Harness {
        self.set_lookup(name, entries);
        self
    }

    fn set_lookup(
        &self,
        name: impl Into<String>,
        entries: impl IntoIterator<Item = (impl Into<Vec<u8>>, impl Into<Vec<u8>>)>,
    ) {
        let entries = entries.into_iter();
        let entries = entries.map(|(key, value)| (key.into(), value.into()));
        let mut tables = self.context.lookups.borrow_mut();
        tables.insert(name.into(), entries.collect());
    }

    /// Opens the module only.
    pub fn open<M: Module>(&self) -> Result<M, Failure> {
        M::open(&Context(self.context.clone()))
    }

    /// Opens the module and gives it the rows as one batch. Panics where it fails.
    pub fn run<M: Module>(&self, rows: impl IntoIterator<Item = impl Into<Row>>) -> Outcome {
        drop((sys::telemetry::take(), sys::http::made()));
        let mut module = self.opened::<M>();
        let rows: Vec<Row> = rows.into_iter().map(Into::into).collect();
        let early = rows.iter().map(|row| row.event_time).min();
        let mut call = |batch: &Batch, out: &mut Outbox| module.process(batch, out);
        let decoded = self.decoded(&rows);
        let outcome = self.call(&rows, &decoded, early.unwrap_or_default(), &mut call);
        if sys::http::made() {
            return outcome;
        }
        case::record::<M>(&self.context, &rows, &outcome, || {
            let kept = decoded.kept(&rows);
            let (batch, mut out) = self.lent(&kept, &decoded, early.unwrap_or_default());
            let begun = std::time::Instant::now();
            // What it said the first time is what counts.
            let _ = call(&batch, &mut out);
            let took = begun.elapsed();
            drop((out.0.calls.take(), sys::telemetry::take()));
            took
        });
        outcome
    }

    fn opened<M: Module>(&self) -> M {
        self.open::<M>()
            .unwrap_or_else(|f| panic!("the module does not open: {}: {}", f.code, f.message))
    }

    /// One call of a module. Panics where it fails.
    fn batch(
        &self,
        rows: &[Row],
        watermark: i64,
        call: impl FnOnce(&Batch, &mut Outbox) -> Result<(), Failure>,
    ) -> Outcome {
        self.call(rows, &self.decoded(rows), watermark, call)
    }

    /// The same of timers, which have no columns.
    fn timed(
        &self,
        rows: &[Row],
        watermark: i64,
        call: impl FnOnce(&Batch, &mut Outbox) -> Result<(), Failure>,
    ) -> Outcome {
        self.call(rows, &json::decode(rows, &[]), watermark, call)
    }

    fn decoded(&self, rows: &[Row]) -> json::Decoded {
        let selected = self.context.said.borrow().selected.get(&0).cloned();
        json::decode(rows, &selected.unwrap_or_default())
    }

    /// What a call is lent: the rows that could be decoded.
    fn lent(&self, kept: &[Row], decoded: &json::Decoded, watermark: i64) -> (Batch, Outbox) {
        let outbox = sys::Outbox {
            rows: kept.len(),
            ports: self.context.outputs.len(),
            said: self.context.said.clone(),
            calls: Rc::default(),
        };
        let mut lent = lend(kept);
        lent.typed = decoded.columns.clone();
        lent.watermark = watermark;
        (Batch::new(lent), Outbox(outbox))
    }

    fn call(
        &self,
        rows: &[Row],
        decoded: &json::Decoded,
        watermark: i64,
        call: impl FnOnce(&Batch, &mut Outbox) -> Result<(), Failure>,
    ) -> Outcome {
        let kept = decoded.kept(rows);
        let (batch, mut out) = self.lent(&kept, decoded, watermark);
        call(&batch, &mut out)
            .unwrap_or_else(|f| panic!("the module fails: {}: {}", f.code, f.message));
        let calls = out.0.calls.take();
        let mut outcome = settle(&self.context.outputs, &kept, calls);
        outcome.renumber(&decoded.good);
        outcome.rejects.extend(decoded.refused.iter().cloned());
        outcome.rejects.sort_by_key(|refused| refused.row);
        let heard = sys::telemetry::take();
        Outcome {
            log: heard.log,
            counters: heard.counters,
            histograms: heard.histograms,
            ..outcome
        }
    }
}

impl Outcome {
    /// From numbers of the batch to those of the rows that were given.
    fn renumber(&mut self, good: &[usize]) {
        self.rows
            .iter_mut()
            .for_each(|row| row.parent = good[row.parent]);
        let refused = self.rejects.iter_mut().chain(&mut self.retries);
        refused.for_each(|refused| refused.row = good[refused.row]);
    }
}

fn lend(rows: &[Row]) -> sys::Rows {
    let mut lent = sys::Rows::default();
    for (offset, row) in rows.iter().enumerate() {
        lent.keys.push(row.key.as_deref());
        lent.values.push(row.value.as_deref());
        lent.event_times.push(row.event_time);
        lent.offsets.push(offset as u64);
        lent.headers.push(row.headers.clone());
    }
    lent
}

/// Puts the calls together as the host would.
fn settle(ports: &[String], rows: &[Row], calls: Vec<Call>) -> Outcome {
    let mut outcome = Outcome::default();
    let mut refused = BTreeSet::new();
    let (mut first_retry, mut sent) = (usize::MAX, Vec::new());
    for call in calls {
        match call {
            Call::Reject {
                rows,
                code,
                message,
            } => {
                for row in rows {
                    refused.insert(row as usize);
                    let (code, message) = (code.clone(), message.clone());
                    outcome.rejects.push(Refused {
                        row: row as usize,
                        code,
                        message,
                    });
                }
            }
            Call::Retry {
                rows,
                code,
                message,
                ..
            } => {
                for row in rows {
                    first_retry = first_retry.min(row as usize);
                    let (code, message) = (code.clone(), message.clone());
                    outcome.retries.push(Refused {
                        row: row as usize,
                        code,
                        message,
                    });
                }
            }
            sending => sent.push(sending),
        }
    }
    let stands = |row: usize| row < first_retry && !refused.contains(&row);
    for call in sent {
        out_rows(ports, rows, call, &mut outcome.rows, &stands);
    }
    outcome
}

fn out_rows(
    ports: &[String],
    rows: &[Row],
    call: Call,
    sent: &mut Vec<OutRow>,
    stands: &dyn Fn(usize) -> bool,
) {
    match call {
        Call::Forward {
            port,
            rows: forwarded,
        } => {
            for row in forwarded
                .into_iter()
                .map(|row| row as usize)
                .filter(|row| stands(*row))
            {
                let Row {
                    key,
                    value,
                    event_time,
                    headers,
                } = rows[row].clone();
                let port = ports[usize::from(port)].clone();
                sent.push(OutRow {
                    port,
                    parent: row,
                    key,
                    value,
                    event_time,
                    headers,
                });
            }
        }
        Call::Emit(emit) => emitted(ports, rows, emit, sent, stands),
        Call::Reject { .. } | Call::Retry { .. } => {}
    }
}

fn emitted(
    ports: &[String],
    rows: &[Row],
    emit: Emit,
    sent: &mut Vec<OutRow>,
    stands: &dyn Fn(usize) -> bool,
) {
    let owned = |column: &Column, i| column.get(i).map(<[u8]>::to_vec);
    let parents = emit.parents.iter().map(|row| *row as usize);
    for (i, parent) in parents.enumerate().filter(|(_, row)| stands(*row)) {
        let mut headers = rows[parent].headers.clone();
        for (name, column) in &emit.headers {
            if let Some(value) = owned(column, i) {
                headers.retain(|(known, _)| known != name);
                headers.push((name.clone(), value));
            }
        }
        sent.push(OutRow {
            port: ports[usize::from(emit.port)].clone(),
            parent,
            key: match &emit.keys {
                Some(keys) => owned(keys, i),
                None => rows[parent].key.clone(),
            },
            value: match &emit.values {
                Values::Bytes(values) => owned(values, i),
                Values::Columns(columns) => Some(json::encode(columns, i)),
            },
            event_time: emit
                .event_times
                .as_ref()
                .map_or(rows[parent].event_time, |times| times[i]),
            headers,
        });
    }
}
