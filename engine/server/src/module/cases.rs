//! Cases that a module's native tests wrote down, run again through its component.
//!
//! Called by: `trial`. A case is a line of JSON of the SDKs' harnesses: params, outputs, rows, and what
//! came out natively.
//! Invariants: what is compared is what a lane would do with the outcome: a refused row has no output, a
//! retry ends the batch; rows that do not fit the schema never come to the module. Messages are compared,
//! but for codes whose messages are the language's own words, which differ from one engine to another.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, BinaryArray};
use arrow::record_batch::RecordBatch;
use codec::Format;
use model::rows::{Rows, RowsBuilder};
use model::schema::{Field, FieldType, Schema};
use model::topic::PayloadCodec;
use serde::Deserialize;
use wasm::{Edge, Emission, Guest, Input, Limits, Lookups, Module, OpenContext, Outcome};

/// Codes of the SDKs and the host, whose messages come from a parser or an interpreter.
const WORDS_DIFFER: [&str; 5] = ["json", "utf-8", "encode", "error", "schema"];
/// Rows that a case is repeated to, and how long it is timed.
const TIMED_ROWS: usize = 1000;
const TIMED: Duration = Duration::from_millis(300);
/// Deadline of a call here: the author's machine may be slow, and nobody waits behind it.
const DEADLINE_MS: u64 = 60_000;

#[derive(Debug, Deserialize)]
pub struct Case {
    params: String,
    #[serde(default)]
    inputs: Vec<String>,
    outputs: Vec<String>,
    /// The tables that the module may look into: keys and values.
    #[serde(default)]
    lookups: BTreeMap<String, Vec<(Bytes, Bytes)>>,
    /// Typed columns that the module asked for, and that it makes by output.
    selected: Option<Vec<CaseField>>,
    #[serde(default)]
    declared: BTreeMap<u16, Vec<CaseField>>,
    pub rows: Vec<CaseRow>,
    out: Vec<CaseOut>,
    rejects: Vec<CaseRefused>,
    retries: Vec<CaseRefused>,
    /// What a row cost natively, where it was timed.
    pub native_ns: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct CaseField {
    name: String,
    #[serde(rename = "type")]
    ty: FieldType,
}

#[derive(Debug, Deserialize)]
pub struct CaseRow {
    key: Option<Bytes>,
    value: Option<Bytes>,
    event_time: i64,
    headers: Vec<(String, Bytes)>,
}

#[derive(Debug, Deserialize)]
struct CaseOut {
    port: String,
    parent: usize,
    #[serde(flatten)]
    row: CaseRow,
}

#[derive(Debug, Deserialize)]
struct CaseRefused {
    row: usize,
    code: String,
    message: String,
}

/// Text, or hexadecimal digits where it is none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(untagged)]
enum Bytes {
    Text(String),
    Hex { hex: String },
}

impl Bytes {
    fn of(bytes: &[u8]) -> Bytes {
        match std::str::from_utf8(bytes) {
            Ok(text) => Bytes::Text(text.to_owned()),
            Err(_) => Bytes::Hex {
                hex: bytes.iter().map(|b| format!("{b:02x}")).collect(),
            },
        }
    }

    fn bytes(&self) -> Vec<u8> {
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
type Lines = Vec<String>;

impl Case {
    /// The cases of a file that the native tests wrote.
    pub fn read(text: &str) -> Result<Vec<Case>, String> {
        let lines = text.lines().enumerate();
        let case = |(number, line): (usize, &str)| {
            serde_json::from_str(line).map_err(|e| format!("case {}: {e}", number + 1))
        };
        lines.map(case).collect()
    }

    /// What differs: lines that only the native run has begin with `-`, those that only the component has
    /// with `+`. Empty if nothing does.
    pub fn compare(&self, module: &Module) -> Result<String, String> {
        let wanted = self.native();
        let got = self.component(module)?;
        if wanted == got {
            return Ok(String::new());
        }
        let mut diff = String::new();
        for (mark, these, others) in [('-', &wanted, &got), ('+', &got, &wanted)] {
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
        Ok(diff)
    }

    /// Nanoseconds a row in the component, where the case can be repeated.
    pub fn time(&self, module: &Module) -> Result<f64, String> {
        let times = TIMED_ROWS.div_ceil(self.rows.len().max(1));
        let repeated = self.rows.iter().cycle().take(self.rows.len() * times);
        let given = self.given(repeated)?;
        let mut guest = self.open(module)?;
        let (mut took, mut calls) = (Duration::ZERO, 0u32);
        while took < TIMED {
            // as a lane does between two batches
            if guest.is_swollen() {
                guest = self.open(module)?;
            }
            let begun = Instant::now();
            guest.process(given.input()).map_err(|e| e.to_string())?;
            took += begun.elapsed();
            calls += 1;
        }
        let rows = given.rows.len().max(1) as f64;
        Ok(took.as_nanos() as f64 / f64::from(calls) / rows)
    }

    /// A retry ends the batch: what is behind it costs nothing.
    pub fn has_retries(&self) -> bool {
        !self.retries.is_empty()
    }

    fn open(&self, module: &Module) -> Result<Guest, String> {
        let schema = |fields: &Vec<CaseField>| {
            let fields = fields.iter().map(|field| Field {
                name: field.name.clone(),
                ty: field.ty,
            });
            Schema::new(fields.collect()).map(Arc::new)
        };
        let schema = |fields: Option<&Vec<CaseField>>| match fields {
            Some(fields) => schema(fields).map(Some).map_err(|e| e.to_string()),
            None => Ok(None),
        };
        let inputs = match &self.inputs[..] {
            [] => &["in".to_owned()],
            inputs => inputs,
        };
        let selected = schema(self.selected.as_ref())?;
        let inputs = inputs.iter().map(|name| Edge {
            name: name.clone(),
            fields: selected.clone(),
        });
        let mut outputs = Vec::with_capacity(self.outputs.len());
        for (port, name) in (0u16..).zip(&self.outputs) {
            outputs.push(Edge {
                name: name.clone(),
                fields: schema(self.declared.get(&port))?,
            });
        }
        let context = OpenContext {
            params: self.params.clone(),
            inputs: inputs.collect(),
            outputs,
            lookups: self.lookups(module)?,
            ..OpenContext::default()
        };
        let limits = Limits {
            deadline_ms: DEADLINE_MS,
            open_deadline_ms: DEADLINE_MS,
            ..Limits::default()
        };
        module.open(&context, &limits).map_err(|e| e.to_string())
    }

    /// Tables of what the native run had in them.
    fn lookups(&self, module: &Module) -> Result<Lookups, String> {
        let mut view = Vec::with_capacity(self.lookups.len());
        for entries in self.lookups.values() {
            let pair = |(key, value): &(Bytes, Bytes)| (key.bytes(), value.bytes());
            let entries: Vec<_> = entries.iter().map(pair).collect();
            let changes = entries
                .iter()
                .map(|(key, value)| (&key[..], Some(&value[..])));
            let table = module.host().table();
            let applied = table.apply(changes, usize::MAX);
            applied.map_err(|e| e.to_string())?;
            view.push(Arc::new(table.pin()));
        }
        let lookups = Lookups::new(self.lookups.keys().cloned());
        lookups.lend(Some(view.into()));
        Ok(lookups)
    }

    /// The rows as a batch; those that do not fit the schema are left out.
    fn given<'a>(&self, rows: impl Iterator<Item = &'a CaseRow>) -> Result<Given, String> {
        let all: Vec<&CaseRow> = rows.collect();
        let mut given = Given::of(&all, (0..all.len()).collect());
        let Some(selected) = &self.selected else {
            return Ok(given);
        };
        let fields = selected.iter().map(|field| Field {
            name: field.name.clone(),
            ty: field.ty,
        });
        let schema = Schema::new(fields.collect()).map_err(|e| e.to_string())?;
        let format = Format::new(PayloadCodec::Json, Arc::new(schema)).ok_or("no JSON")?;
        let whole = format.project(|_| true);
        let errors = format.decode(&given.rows.values, &whole).errors;
        let bad: BTreeSet<usize> = errors.iter().map(|(row, _)| *row as usize).collect();
        given = Given::of(
            &all,
            (0..all.len()).filter(|row| !bad.contains(row)).collect(),
        );
        given.columns = Some(format.decode(&given.rows.values, &whole).columns);
        given.refused = bad;
        Ok(given)
    }

    /// What the native run said, as lines.
    fn native(&self) -> Lines {
        let mut lines = Lines::new();
        for out in &self.out {
            let row = &out.row;
            let headers = row.headers.iter();
            let headers = headers
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            let (key, value) = (row.key.as_ref(), row.value.as_ref());
            lines.push(out_line(
                &out.port,
                out.parent,
                key,
                value,
                row.event_time,
                &headers,
            ));
        }
        lines.extend(refusals("rejected", &self.rejects));
        lines.extend(refusals("to be retried", &self.retries));
        sorted(lines)
    }

    /// What the component says, as lines.
    fn component(&self, module: &Module) -> Result<Lines, String> {
        let given = self.given(self.rows.iter())?;
        let mut guest = self.open(module)?;
        let outcome = guest.process(given.input()).map_err(|e| e.to_string())?;
        let refused = |rows: &[u32], code: &str, message: &str| -> Vec<CaseRefused> {
            let rows = rows.iter().map(|row| CaseRefused {
                row: given.numbers[*row as usize],
                code: code.to_owned(),
                message: message.to_owned(),
            });
            rows.collect()
        };
        let rejects = outcome.rejections.iter();
        let mut rejects: Vec<_> = rejects
            .flat_map(|r| refused(&r.rows, &r.code, &r.message))
            .collect();
        rejects.extend(given.refused.iter().map(|row| CaseRefused {
            row: *row,
            code: "schema".to_owned(),
            message: String::new(),
        }));
        let retries = outcome.retries.iter();
        let retries: Vec<_> = retries
            .flat_map(|r| refused(&r.rows, &r.code, &r.message))
            .collect();
        let beaten: BTreeSet<usize> = rejects.iter().map(|r| r.row).collect();
        let first = retries.iter().map(|r| r.row).min().unwrap_or(usize::MAX);
        let stands = |row: usize| row < first && !beaten.contains(&row);
        let mut lines = Lines::new();
        self.emitted(&given, outcome, &stands, &mut lines)?;
        lines.extend(refusals("rejected", &rejects));
        lines.extend(refusals("to be retried", &retries));
        Ok(sorted(lines))
    }

    fn emitted(
        &self,
        given: &Given,
        outcome: Outcome,
        stands: &dyn Fn(usize) -> bool,
        lines: &mut Lines,
    ) -> Result<(), String> {
        for emission in outcome.emissions {
            let made = Made::of(emission, given.rows.len())?;
            let port = self.outputs.get(usize::from(made.port));
            let port = port.map_or("?", String::as_str);
            for (i, parent) in made.parents.iter().enumerate() {
                let number = given.numbers[*parent as usize];
                if stands(number) {
                    lines.push(made.line(i, port, number, &self.rows[number]));
                }
            }
        }
        Ok(())
    }
}

fn sorted(mut lines: Lines) -> Lines {
    // the order on a port is the order of the calls, and the number of a row is in its line: what a
    // harness does with several ports is its own
    lines.sort_by(|a, b| a.split('=').next().cmp(&b.split('=').next()));
    lines
}

fn refusals(what: &str, refused: &[CaseRefused]) -> Lines {
    let line = |r: &CaseRefused| {
        let words = !WORDS_DIFFER.contains(&r.code.as_str());
        let message = if words { r.message.as_str() } else { "…" };
        format!("row {} {what}: {}: {message}", r.row, r.code)
    };
    refused.iter().map(line).collect()
}

fn out_line(
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

/// A case's rows as a batch.
struct Given {
    rows: Rows,
    /// Numbers of the rows in the case.
    numbers: Vec<usize>,
    columns: Option<RecordBatch>,
    offsets: Vec<u64>,
    watermark: i64,
    /// Rows that do not fit the schema.
    refused: BTreeSet<usize>,
}

impl Given {
    fn of(all: &[&CaseRow], numbers: Vec<usize>) -> Given {
        let mut builder = RowsBuilder::new();
        for number in &numbers {
            let row = all[*number];
            let owned = |bytes: &Option<Bytes>| bytes.as_ref().map(Bytes::bytes);
            let (key, value) = (owned(&row.key), owned(&row.value));
            let headers = row.headers.iter();
            let headers: Vec<_> = headers.map(|(name, value)| (name, value.bytes())).collect();
            let headers: Vec<_> = headers
                .iter()
                .map(|(name, value)| (name.as_str(), Some(value.as_slice())))
                .collect();
            builder.push(row.event_time, key.as_deref(), value.as_deref(), &headers);
        }
        let times = numbers.iter().map(|number| all[*number].event_time);
        Given {
            rows: builder.finish(),
            columns: None,
            offsets: (0..numbers.len() as u64).collect(),
            watermark: times.min().unwrap_or_default(),
            refused: BTreeSet::new(),
            numbers,
        }
    }

    fn input(&self) -> Input<'_> {
        Input {
            rows: &self.rows,
            columns: self.columns.as_ref(),
            unwritten: None,
            offsets: &self.offsets,
            input: 0,
            watermark: self.watermark,
        }
    }
}

/// One emission, whatever its form: what is not there is the parent's.
struct Made {
    port: u16,
    parents: Vec<u32>,
    keys: Option<BinaryArray>,
    values: Option<BinaryArray>,
    times: Option<Vec<i64>>,
    headers: Vec<(String, BinaryArray)>,
}

impl Made {
    fn of(emission: Emission, rows: usize) -> Result<Made, String> {
        Ok(match emission {
            Emission::Forward { port, rows } => Made {
                port,
                parents: rows,
                keys: None,
                values: None,
                times: None,
                headers: Vec::new(),
            },
            Emission::Emit {
                port,
                parents,
                keys,
                values,
                event_times: times,
                headers,
            } => Made {
                port,
                parents,
                keys: Some(keys),
                values: Some(values),
                times,
                headers,
            },
            Emission::Columns {
                port,
                parents,
                columns,
                keys,
                event_times: times,
                headers,
            } => Made {
                port,
                parents: parents.unwrap_or_else(|| (0..rows as u32).collect()),
                keys,
                values: Some(codec::encode_json(&columns).map_err(|e| e.to_string())?),
                times,
                headers,
            },
        })
    }

    fn line(&self, i: usize, port: &str, number: usize, parent: &CaseRow) -> String {
        let cell = |array: &BinaryArray| (!array.is_null(i)).then(|| Bytes::of(array.value(i)));
        let own = |array: &Option<BinaryArray>, inherited: &Option<Bytes>| match array {
            Some(array) => cell(array),
            None => inherited.clone(),
        };
        let mut headers: BTreeMap<String, Bytes> = parent.headers.iter().cloned().collect();
        let set = self.headers.iter();
        headers.extend(set.filter_map(|(name, array)| Some((name.clone(), cell(array)?))));
        let time = self
            .times
            .as_ref()
            .map_or(parent.event_time, |times| times[i]);
        let (key, value) = (
            own(&self.keys, &parent.key),
            own(&self.values, &parent.value),
        );
        out_line(port, number, key.as_ref(), value.as_ref(), time, &headers)
    }
}
