//! A run of the harness as a case: what went in and what came out, one line of JSON each; a lane with
//! all its batches is one case.
//!
//! Called by: `testing`, `lane`.
//! Invariants: nothing is written unless `RUSTMQ_CASES` names a file, as `rustmq module test` does;
//! one write a line, so that tests may run beside each other. A case names the type of its module, since
//! a test may run others than the crate's own.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Outcome, Refused, Row};
use crate::sys;
use crate::sys::lookup::Entries;
use crate::typed::{Field, FieldType};

/// How long a case is timed where `RUSTMQ_BENCH` asks for it.
const TIMED: Duration = Duration::from_millis(300);

/// Whether anybody wants cases.
pub(super) fn is_wanted() -> bool {
    std::env::var_os("RUSTMQ_CASES").is_some()
}

/// Writes down a case of one batch. `once` runs the batch again and says how long that took.
pub(super) fn record<M>(
    context: &sys::Context,
    rows: &[Row],
    outcome: &Outcome,
    once: impl FnMut() -> Duration,
) {
    if !is_wanted() {
        return;
    }
    let mut line = node::<M>(context);
    line.extend(batch(context, rows, outcome));
    line.insert("native_ns".into(), native_ns(rows.len(), once).into());
    write(&line);
}

/// Nanoseconds a row, where they are asked for.
pub(super) fn native_ns(rows: usize, once: impl FnMut() -> Duration) -> Option<f64> {
    let asked = std::env::var_os("RUSTMQ_BENCH").is_some() && rows > 0;
    asked.then(|| nanoseconds_per_row(rows, once))
}

/// What a lane had before its first batch, and what came of its batches.
#[derive(Default)]
pub(super) struct LaneCase {
    pub(super) lateness_us: i64,
    /// The older schema whose state was taken over, and that state.
    pub(super) migrated: Option<(u32, Entries)>,
    pub(super) batches: Vec<Map<String, Value>>,
    /// What a row of the first batch costs, where it was timed.
    pub(super) native_ns: Option<f64>,
}

/// Writes down a case of all batches of a lane, and what it kept in the end.
pub(super) fn record_lane<M>(context: &sys::Context, lane: LaneCase, kept: &sys::state::Store) {
    let mut line = node::<M>(context);
    let timer = |(time, key): &(i64, Vec<u8>)| json!([time, bytes(Some(key))]);
    let migrated = lane.migrated.as_ref();
    let migrated = migrated.map(|(schema, old)| json!({ "schema": schema, "kept": pairs(old) }));
    let shown = json!({
        "lateness_us": lane.lateness_us,
        "migrated": migrated,
        "batches": lane.batches,
        "kept": pairs(&kept.entries),
        "timers": kept.timers.iter().map(timer).collect::<Vec<_>>(),
    });
    line.insert("lane".into(), shown);
    line.insert("native_ns".into(), lane.native_ns.into());
    write(&line);
}

/// Lists of key and value.
fn pairs(entries: &Entries) -> Value {
    let pair = |(key, value): (&Vec<u8>, &Vec<u8>)| json!([bytes(Some(key)), bytes(Some(value))]);
    entries.iter().map(pair).collect()
}

fn write(line: &Map<String, Value>) {
    let Some(path) = std::env::var_os("RUSTMQ_CASES") else {
        return;
    };
    let line = format!("{}\n", json!(line));
    let file = OpenOptions::new().create(true).append(true).open(&path);
    let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
    written.unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
}

/// What the node declares, and what the module said of its columns.
fn node<M>(context: &sys::Context) -> Map<String, Value> {
    let said = context.said.borrow();
    let declared = said.declared.iter();
    let declared: Map<String, Value> = declared
        .map(|(port, list)| (port.to_string(), fields(list)))
        .collect();
    object([
        ("module", std::any::type_name::<M>().into()),
        ("params", context.params.as_str().into()),
        ("inputs", context.inputs.clone().into()),
        ("outputs", context.outputs.clone().into()),
        (
            "selected",
            said.selected.get(&0).map(|list| fields(list)).into(),
        ),
        ("declared", declared.into()),
    ])
}

/// What went in, and what came of it.
pub(super) fn batch(context: &sys::Context, rows: &[Row], outcome: &Outcome) -> Map<String, Value> {
    let out = outcome.rows.iter().map(|row| {
        let mut shown = shown(&row.key, &row.value, row.event_time, &row.headers);
        shown.insert("port".into(), row.port.clone().into());
        shown.insert("parent".into(), row.parent.into());
        Value::Object(shown)
    });
    let given = rows
        .iter()
        .map(|row| Value::Object(shown(&row.key, &row.value, row.event_time, &row.headers)));
    object([
        ("lookups", lookups(context).into()),
        ("rows", given.collect()),
        ("out", out.collect()),
        ("rejects", refused(&outcome.rejects).into()),
        ("retries", refused(&outcome.retries).into()),
    ])
}

fn object<const N: usize>(pairs: [(&str, Value); N]) -> Map<String, Value> {
    let pairs = pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    pairs.collect()
}

/// The tables that the node declares: lists of key and value.
fn lookups(context: &sys::Context) -> Map<String, Value> {
    let tables = context.lookups.borrow();
    let tables = tables.iter();
    tables
        .map(|(name, entries)| (name.clone(), pairs(entries)))
        .collect()
}

fn nanoseconds_per_row(rows: usize, mut once: impl FnMut() -> Duration) -> f64 {
    let (mut took, mut calls) = (Duration::ZERO, 0u32);
    while took < TIMED {
        took += once();
        calls += 1;
    }
    took.as_nanos() as f64 / f64::from(calls) / rows as f64
}

fn shown(
    key: &Option<Vec<u8>>,
    value: &Option<Vec<u8>>,
    event_time: i64,
    headers: &[(String, Vec<u8>)],
) -> Map<String, Value> {
    let headers = headers
        .iter()
        .map(|(name, value)| json!([name, bytes(Some(value))]));
    object([
        ("key", bytes(key.as_deref())),
        ("value", bytes(value.as_deref())),
        ("event_time", event_time.into()),
        ("headers", headers.collect()),
    ])
}

/// Text, where it is; else hexadecimal digits.
fn bytes(bytes: Option<&[u8]>) -> Value {
    let Some(bytes) = bytes else {
        return Value::Null;
    };
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({ "hex": bytes.iter().map(|b| format!("{b:02x}")).collect::<String>() }),
    }
}

fn refused(refused: &[Refused]) -> Vec<Value> {
    let shown = |r: &Refused| json!({ "row": r.row, "code": r.code, "message": r.message });
    refused.iter().map(shown).collect()
}

fn fields(fields: &[Field]) -> Value {
    let name = |kind| match kind {
        FieldType::Bool => "bool",
        FieldType::Int64 => "int64",
        FieldType::Float64 => "float64",
        FieldType::String => "string",
        FieldType::Bytes => "bytes",
        FieldType::Timestamp => "timestamp",
    };
    let shown = |field: &Field| json!({ "name": field.name, "type": name(field.kind) });
    fields.iter().map(shown).collect()
}
