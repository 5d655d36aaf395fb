//! Cases that a module's native tests wrote down, run again through its component.
//!
//! Called by: `trial`. A case is a line of JSON of the SDKs' harnesses: params, outputs, rows, and what
//! came out natively; of a lane that keeps state, batch by batch. `replay` is the component's side.
//! Invariants: what is compared is what a lane would do with the outcome: a refused row has no output, a
//! retry ends the batch; rows that do not fit the schema never come to the module. Messages are compared,
//! but for codes whose messages are the language's own words, which differ from one engine to another; of
//! numbers in typed columns the value, not how it is written.

use std::collections::BTreeMap;
use std::fmt::Write;

use model::schema::FieldType;
use serde::Deserialize;
use serde_json::{Map, Value};
use wasm::Module;

use super::replay::Replay;

/// Codes of the SDKs and the host, whose messages come from a parser or an interpreter.
const WORDS_DIFFER: [&str; 5] = ["json", "utf-8", "encode", "error", "schema"];

#[derive(Debug, Deserialize)]
pub struct Case {
    /// Path of the module's type, where the language has one.
    module: Option<String>,
    pub(super) params: String,
    #[serde(default)]
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
    /// Typed columns that the module asked for, and that it makes by output.
    pub(super) selected: Option<Vec<CaseField>>,
    #[serde(default)]
    pub(super) declared: BTreeMap<u16, Vec<CaseField>>,
    /// Of a lane that keeps state.
    pub(super) lane: Option<CaseLane>,
    /// The only batch, where it is no lane.
    #[serde(flatten)]
    only: CaseBatch,
    /// What a row cost natively, where it was timed.
    pub native_ns: Option<f64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct CaseLane {
    pub(super) lateness_us: i64,
    /// What an older version kept, which the module took over before the first batch.
    pub(super) migrated: Option<CaseMigrated>,
    batches: Vec<CaseBatch>,
    /// What was kept in the end, and the timers that were set.
    kept: Vec<(Bytes, Bytes)>,
    timers: Vec<(i64, Bytes)>,
}

#[derive(Debug, Deserialize)]
pub(super) struct CaseMigrated {
    pub(super) schema: u32,
    pub(super) kept: Vec<(Bytes, Bytes)>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct CaseBatch {
    /// The tables that the module may look into: keys and values.
    pub(super) lookups: BTreeMap<String, Vec<(Bytes, Bytes)>>,
    pub(super) rows: Vec<CaseRow>,
    out: Vec<CaseOut>,
    rejects: Vec<CaseRefused>,
    retries: Vec<CaseRefused>,
}

#[derive(Debug, Deserialize)]
pub(super) struct CaseField {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) ty: FieldType,
}

#[derive(Debug, Deserialize)]
pub(super) struct CaseRow {
    pub(super) key: Option<Bytes>,
    pub(super) value: Option<Bytes>,
    pub(super) event_time: i64,
    pub(super) headers: Vec<(String, Bytes)>,
}

#[derive(Debug, Deserialize)]
struct CaseOut {
    port: String,
    parent: usize,
    #[serde(flatten)]
    row: CaseRow,
}

#[derive(Debug, Deserialize)]
pub(super) struct CaseRefused {
    pub(super) row: usize,
    pub(super) code: String,
    pub(super) message: String,
}

/// Text, or hexadecimal digits where it is none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(untagged)]
pub(super) enum Bytes {
    Text(String),
    Hex { hex: String },
}

impl Bytes {
    pub(super) fn of(bytes: &[u8]) -> Bytes {
        match std::str::from_utf8(bytes) {
            Ok(text) => Bytes::Text(text.to_owned()),
            Err(_) => Bytes::Hex {
                hex: bytes.iter().map(|b| format!("{b:02x}")).collect(),
            },
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Bytes::Text(text) => text.clone().into_bytes(),
            Bytes::Hex { hex } => (0..hex.len() / 2)
                .filter_map(|i| u8::from_str_radix(hex.get(2 * i..2 * i + 2)?, 16).ok())
                .collect(),
        }
    }

    fn shown(&self) -> String {
        match self {
            Bytes::Text(text) => text.clone(),
            Bytes::Hex { hex } => format!("0x{hex}"),
        }
    }
}

fn shown(bytes: Option<&Bytes>) -> String {
    bytes.map_or_else(|| "-".to_owned(), Bytes::shown)
}

/// What came of a case, line by line, in an order that says nothing.
pub(super) type Lines = Vec<String>;

impl Case {
    /// The cases of a file that the native tests wrote.
    pub fn read(text: &str) -> Result<Vec<Case>, String> {
        let lines = text.lines().enumerate();
        let case = |(number, line): (usize, &str)| {
            serde_json::from_str(line).map_err(|e| format!("case {}: {e}", number + 1))
        };
        lines.map(case).collect()
    }

    /// The type of the module that ran, where it is another than `own`.
    pub fn other(&self, own: &str) -> Option<&str> {
        let ran = self.module.as_deref()?;
        // the path that it is exported by may be that of a `use`
        (ran != own && last(ran) != last(own)).then_some(ran)
    }

    pub(super) fn batches(&self) -> &[CaseBatch] {
        match &self.lane {
            Some(lane) => &lane.batches,
            None => std::slice::from_ref(&self.only),
        }
    }

    /// Of all batches.
    pub fn rows(&self) -> usize {
        self.batches().iter().map(|batch| batch.rows.len()).sum()
    }

    /// What differs: lines that only the native run has begin with `-`, those that only the component has
    /// with `+`. Empty if nothing does.
    pub fn compare(&self, module: &Module) -> Result<String, String> {
        let mut replay = Replay::begin(self, module)?;
        let mut diff = String::new();
        for (number, batch) in self.batches().iter().enumerate() {
            let found = differing(&self.native(batch), &replay.batch(batch)?);
            if !found.is_empty() && self.lane.is_some() {
                // a String takes all that is written
                let _ = writeln!(diff, "  batch {}:", number + 1);
            }
            diff += &found;
        }
        if let Some(lane) = &self.lane {
            let kept = kept_lines(&lane.kept, &lane.timers);
            let found = differing(&kept, &replay.kept());
            if !found.is_empty() {
                diff += "  in the end:\n";
            }
            diff += &found;
        }
        Ok(diff)
    }

    /// Nanoseconds a row in the component, of the batch that was timed natively: the first.
    pub fn time(&self, module: &Module) -> Result<f64, String> {
        Replay::begin(self, module)?.time(self.timed())
    }

    /// Rows of that batch.
    pub fn rows_timed(&self) -> usize {
        self.timed().rows.len()
    }

    /// A retry ends the batch: what is behind it costs nothing.
    pub fn has_retries(&self) -> bool {
        !self.timed().retries.is_empty()
    }

    fn timed(&self) -> &CaseBatch {
        // a lane without batches is not written down
        self.batches().first().unwrap_or(&self.only)
    }

    /// What the native run said, as lines.
    fn native(&self, batch: &CaseBatch) -> Lines {
        let mut lines = Lines::new();
        for out in &batch.out {
            let row = &out.row;
            let headers = row.headers.iter();
            let headers = headers
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            let (key, value) = (row.key.as_ref(), row.value.as_ref());
            let value = value.map(|value| self.value(&out.port, value));
            lines.push(out_line(
                &out.port,
                out.parent,
                key,
                value.as_ref(),
                row.event_time,
                &headers,
            ));
        }
        lines.extend(refusals("rejected", &batch.rejects));
        lines.extend(refusals("to be retried", &batch.retries));
        sorted(lines)
    }

    /// A value that went out; where it is of typed columns, its floats as everyone writes them.
    pub(super) fn value(&self, port: &str, value: &Bytes) -> Bytes {
        let place = self.outputs.iter().position(|name| name == port);
        let place = place.and_then(|place| u16::try_from(place).ok());
        let (Some(fields), Bytes::Text(text)) = (place.and_then(|p| self.declared.get(&p)), value)
        else {
            return value.clone();
        };
        let Ok(mut row) = serde_json::from_str::<Map<String, Value>>(text) else {
            return value.clone();
        };
        for field in fields.iter().filter(|field| field.ty == FieldType::Float64) {
            if let Some(cell) = row.get_mut(&field.name)
                && let Some(number) = cell.as_f64()
            {
                *cell = number.into();
            }
        }
        Bytes::Text(Value::Object(row).to_string())
    }
}

/// The last name of a path, without what is in angle brackets.
fn last(path: &str) -> &str {
    let path = path.split('<').next().unwrap_or(path).trim();
    path.rsplit("::").next().unwrap_or(path)
}

/// What a lane keeps, as lines.
pub(super) fn kept_lines(kept: &[(Bytes, Bytes)], timers: &[(i64, Bytes)]) -> Lines {
    let entry = |(key, value): &(Bytes, Bytes)| format!("kept {}={}", key.shown(), value.shown());
    let timer = |(time, key): &(i64, Bytes)| format!("timer of {} at {time}", key.shown());
    let entries = kept.iter().map(entry);
    entries.chain(timers.iter().map(timer)).collect()
}

fn differing(wanted: &Lines, got: &Lines) -> String {
    let mut diff = String::new();
    if wanted == got {
        return diff;
    }
    for (mark, these, others) in [('-', wanted, got), ('+', got, wanted)] {
        let mut others = others.clone();
        for line in these {
            match others.iter().position(|other| other == line) {
                Some(at) => drop(others.remove(at)),
                // a String takes all that is written
                None => drop(writeln!(diff, "{mark} {line}")),
            }
        }
    }
    if diff.is_empty() {
        diff = "the same lines in another order\n".to_owned();
    }
    diff
}

pub(super) fn sorted(mut lines: Lines) -> Lines {
    // the order on a port is the order of the calls, and the number of a row is in its line: what a
    // harness does with several ports is its own
    lines.sort_by(|a, b| a.split('=').next().cmp(&b.split('=').next()));
    lines
}

pub(super) fn refusals(what: &str, refused: &[CaseRefused]) -> Lines {
    let line = |r: &CaseRefused| {
        let words = !WORDS_DIFFER.contains(&r.code.as_str());
        let message = if words { r.message.as_str() } else { "…" };
        format!("row {} {what}: {}: {message}", r.row, r.code)
    };
    refused.iter().map(line).collect()
}

pub(super) fn out_line(
    port: &str,
    parent: usize,
    key: Option<&Bytes>,
    value: Option<&Bytes>,
    time: i64,
    headers: &BTreeMap<String, Bytes>,
) -> String {
    let (key, value) = (shown(key), shown(value));
    let mut line = format!("row {parent} on {port}: key={key} time={time}");
    for (name, header) in headers {
        line += &format!(" {name}={}", header.shown());
    }
    line + " value=" + &value
}
