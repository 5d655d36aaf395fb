//! A case's batches through the real component, one after the other, as a lane gives them.
//!
//! Called by: `cases`.
//! Invariants: the guest is opened as the case's node declares; of a module that keeps state, what a batch
//! changed is kept, and the timers that it made due fire after it; it begins with what the module took
//! over, if the case says so. Rows that do not fit the schema do not come to the module.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, BinaryArray};
use codec::Format;
use model::rows::RowsBuilder;
use model::schema::{Field, Schema};
use model::topic::PayloadCodec;
use wasm::{
    Batch, Edge, Emission, Entry, Guest, Input, Keyed, Limits, Lookups, Module, OpenContext,
    Outcome,
};

use super::cases::{
    Bytes, Case, CaseBatch, CaseField, CaseMigrated, CaseRefused, CaseRow, Lines, kept_lines,
    out_line, refusals, sorted,
};

/// Rows that a case is repeated to, and how long it is timed.
const TIMED_ROWS: usize = 1000;
const TIMED: Duration = Duration::from_millis(300);
/// Deadline of a call here: the author's machine may be slow, and nobody waits behind it.
const DEADLINE_MS: u64 = 60_000;
/// Of which no input is: rows of timers have no columns.
const NO_INPUT: u16 = u16::MAX;

pub(super) struct Replay<'a> {
    case: &'a Case,
    module: &'a Module,
    context: OpenContext,
    guest: Guest,
    /// Of a module that keeps state.
    keyed: Option<Keyed>,
}

impl<'a> Replay<'a> {
    /// Opens the module as the case says.
    pub(super) fn begin(case: &'a Case, module: &'a Module) -> Result<Replay<'a>, String> {
        let keeps = module.info().stateful;
        if case.lane.is_some() && !keeps {
            return Err(
                "the case is of a module that keeps state, and the component keeps none".into(),
            );
        }
        let schema = module.info().state_schema().unwrap_or_default();
        let context = context(case)?;
        let mut replay = Replay {
            case,
            module,
            guest: opened(module, &context)?,
            context,
            keyed: keeps.then(|| module.keyed(&limits(), schema)),
        };
        if let Some(migrated) = case.lane.as_ref().and_then(|lane| lane.migrated.as_ref()) {
            replay.keyed = Some(replay.migrate(migrated, schema)?);
        }
        Ok(replay)
    }

    /// What the component makes of what an older version kept, in parts, as before its first batch.
    fn migrate(&mut self, migrated: &CaseMigrated, to: u32) -> Result<Keyed, String> {
        let from = migrated.schema;
        let mut keyed = self.module.keyed(&limits(), from);
        for (key, value) in &migrated.kept {
            keyed.load_entry(&key.bytes(), &value.bytes());
        }
        keyed.migrate(&limits(), to);
        let failed = |error| format!("its migration from schema {from}: {error}");
        let mut after: Option<Vec<u8>> = None;
        loop {
            let old = keyed.old(after.as_deref());
            let Some(last) = old.last() else { break };
            after = Some(last.to_vec());
            let called = self.guest.migrate(from, &old, &mut keyed);
            called.map_err(failed)?;
            keyed.keep_migrated();
        }
        keyed.migrated().map_err(failed)?;
        keyed.keep();
        Ok(keyed)
    }

    /// What the component makes of a batch and of the timers that it makes due, as lines.
    pub(super) fn batch(&mut self, batch: &CaseBatch) -> Result<Lines, String> {
        self.look_into(batch)?;
        // as a lane does between two batches
        if self.guest.is_swollen() {
            self.guest = opened(self.module, &self.context)?;
        }
        let mut given = Given::of_case(self.case, batch.rows.iter())?;
        if let Some(keyed) = &mut self.keyed {
            keyed.begin();
            given.watermark = keyed.watermark();
        }
        let mut lines = self.call(&given, Entry::Process)?;
        lines.extend(self.timers(batch)?);
        if let Some(keyed) = &mut self.keyed {
            keyed.keep();
        }
        Ok(sorted(lines))
    }

    /// The timers that the batch's rows made due: what comes of them is of its last row.
    fn timers(&mut self, batch: &CaseBatch) -> Result<Lines, String> {
        let newest = batch.rows.iter().map(|row| row.event_time).max();
        let (Some(keyed), Some(newest), Some(lane)) = (&mut self.keyed, newest, &self.case.lane)
        else {
            return Ok(Lines::new());
        };
        keyed.advance(newest.saturating_sub(lane.lateness_us));
        let due = keyed.due();
        if due.is_empty() {
            return Ok(Lines::new());
        }
        keyed.fire(&due);
        let fired = due.into_iter().map(|timer| CaseRow {
            key: Some(Bytes::of(&timer.key)),
            value: None,
            event_time: timer.time,
            headers: Vec::new(),
        });
        let fired: Vec<CaseRow> = fired.collect();
        let mut given = Given::of(fired.iter().collect());
        given.watermark = keyed.moved();
        given.numbers = vec![batch.rows.len().saturating_sub(1); fired.len()];
        self.call(&given, Entry::Timers)
    }

    fn call(&mut self, given: &Given<'_>, entry: Entry) -> Result<Lines, String> {
        let input = given.input(entry);
        let outcome = match &mut self.keyed {
            Some(keyed) => {
                let outcome = self.guest.process_with(input, entry, keyed);
                keyed.keep_call();
                outcome
            }
            None => self.guest.process(input),
        };
        let outcome = outcome.map_err(|error| error.to_string())?;
        self.lines(given, outcome)
    }

    /// What is kept by now, and the timers that are set.
    pub(super) fn kept(&mut self) -> Lines {
        let Some(keyed) = &mut self.keyed else {
            return Lines::new();
        };
        let entries = keyed.kept();
        let entries: Vec<_> = entries
            .map(|(key, value)| (Bytes::of(key), Bytes::of(value)))
            .collect();
        keyed.begin();
        keyed.advance(i64::MAX);
        let timers = keyed.due().into_iter();
        let timers: Vec<_> = timers
            .map(|timer| (timer.time, Bytes::of(&timer.key)))
            .collect();
        kept_lines(&entries, &timers)
    }

    /// Nanoseconds a row, of a batch of many; of what it changes nothing is kept.
    pub(super) fn time(&mut self, batch: &CaseBatch) -> Result<f64, String> {
        self.look_into(batch)?;
        let times = TIMED_ROWS.div_ceil(batch.rows.len().max(1));
        let repeated = batch.rows.iter().cycle().take(batch.rows.len() * times);
        let given = Given::of_case(self.case, repeated)?;
        let (mut took, mut calls) = (Duration::ZERO, 0u32);
        while took < TIMED {
            if self.guest.is_swollen() {
                self.guest = opened(self.module, &self.context)?;
            }
            let input = given.input(Entry::Process);
            let begun = Instant::now();
            let outcome = match &mut self.keyed {
                Some(keyed) => self.guest.process_with(input, Entry::Process, keyed),
                None => self.guest.process(input),
            };
            took += begun.elapsed();
            if let Some(keyed) = &mut self.keyed {
                keyed.begin();
            }
            outcome.map_err(|error| error.to_string())?;
            calls += 1;
        }
        let rows = given.batch.rows.len().max(1) as f64;
        Ok(took.as_nanos() as f64 / f64::from(calls) / rows)
    }

    /// Lends the tables of what the native run had in them.
    fn look_into(&self, batch: &CaseBatch) -> Result<(), String> {
        let mut view = Vec::new();
        // those that the node declared when the module was opened, in their order
        for name in names(self.case) {
            let entries = batch.lookups.get(name).into_iter().flatten();
            let entries: Vec<_> = entries
                .map(|(key, value)| (key.bytes(), value.bytes()))
                .collect();
            let changes = entries
                .iter()
                .map(|(key, value)| (&key[..], Some(&value[..])));
            let table = self.module.host().table();
            let applied = table.apply(changes, usize::MAX);
            applied.map_err(|e| e.to_string())?;
            view.push(Arc::new(table.pin()));
        }
        self.context.lookups.lend(Some(view.into()));
        Ok(())
    }

    fn lines(&self, given: &Given<'_>, outcome: Outcome) -> Result<Lines, String> {
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
        let places = outcome.rejections.iter().flat_map(|r| &r.rows);
        let beaten: BTreeSet<u32> = places.copied().collect();
        let places = outcome.retries.iter().flat_map(|r| &r.rows);
        let first = places.copied().min().unwrap_or(u32::MAX);
        let mut lines = Lines::new();
        for emission in outcome.emissions {
            let made = Made::of(emission, given.batch.rows.len())?;
            let port = self.case.outputs.get(usize::from(made.port));
            let port = port.map_or("?", String::as_str);
            let parents = made.parents.iter().enumerate();
            for (i, parent) in parents.filter(|(_, row)| **row < first && !beaten.contains(row)) {
                lines.push(made.line(self.case, i, port, given, *parent as usize));
            }
        }
        lines.extend(refusals("rejected", &rejects));
        lines.extend(refusals("to be retried", &retries));
        Ok(lines)
    }
}

fn limits() -> Limits {
    Limits {
        deadline_ms: DEADLINE_MS,
        open_deadline_ms: DEADLINE_MS,
        ..Limits::default()
    }
}

fn opened(module: &Module, context: &OpenContext) -> Result<Guest, String> {
    module.open(context, &limits()).map_err(|e| e.to_string())
}

/// The tables that the node declares.
fn names(case: &Case) -> impl Iterator<Item = &String> {
    let first = case.batches().first();
    first.into_iter().flat_map(|batch| batch.lookups.keys())
}

fn context(case: &Case) -> Result<OpenContext, String> {
    let inputs = match &case.inputs[..] {
        [] => &["in".to_owned()],
        inputs => inputs,
    };
    let selected = schema(case.selected.as_deref())?;
    let inputs = inputs.iter().map(|name| Edge {
        name: name.clone(),
        fields: selected.clone(),
    });
    let mut outputs = Vec::with_capacity(case.outputs.len());
    for (port, name) in (0u16..).zip(&case.outputs) {
        outputs.push(Edge {
            name: name.clone(),
            fields: schema(case.declared.get(&port).map(Vec::as_slice))?,
        });
    }
    Ok(OpenContext {
        params: case.params.clone(),
        inputs: inputs.collect(),
        outputs,
        lookups: Lookups::new(names(case).cloned()),
        ..OpenContext::default()
    })
}

fn schema(fields: Option<&[CaseField]>) -> Result<Option<Arc<Schema>>, String> {
    let Some(fields) = fields else {
        return Ok(None);
    };
    let fields = fields.iter().map(|field| Field {
        name: field.name.clone(),
        ty: field.ty,
    });
    let schema = Schema::new(fields.collect()).map_err(|e| e.to_string())?;
    Ok(Some(Arc::new(schema)))
}

/// A batch of a case.
struct Given<'a> {
    all: Vec<&'a CaseRow>,
    batch: Arc<Batch>,
    /// Numbers of the rows in the case, and their places among `all`.
    numbers: Vec<usize>,
    places: Vec<usize>,
    watermark: i64,
    /// Rows that do not fit the schema.
    refused: BTreeSet<usize>,
}

impl<'a> Given<'a> {
    /// Without those that do not fit the schema.
    fn of_case(case: &Case, rows: impl Iterator<Item = &'a CaseRow>) -> Result<Given<'a>, String> {
        let given = Given::of(rows.collect());
        let Some(schema) = schema(case.selected.as_deref())? else {
            return Ok(given);
        };
        let format = Format::new(PayloadCodec::Json, schema).ok_or("no JSON")?;
        let whole = format.project(|_| true);
        let errors = format.decode(&given.batch.rows.values, &whole).errors;
        let bad: BTreeSet<usize> = errors.iter().map(|(row, _)| *row as usize).collect();
        let fits = (0..given.all.len()).filter(|row| !bad.contains(row));
        let mut given = Given::some(given.all, fits.collect());
        let columns = format.decode(&given.batch.rows.values, &whole).columns;
        Arc::make_mut(&mut given.batch).columns = Some(columns);
        given.refused = bad;
        Ok(given)
    }

    fn of(all: Vec<&'a CaseRow>) -> Given<'a> {
        let places = (0..all.len()).collect();
        Given::some(all, places)
    }

    fn some(all: Vec<&'a CaseRow>, places: Vec<usize>) -> Given<'a> {
        let mut builder = RowsBuilder::new();
        for place in &places {
            let row = all[*place];
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
        let times = places.iter().map(|place| all[*place].event_time);
        let offsets = (0..places.len() as u64).collect();
        Given {
            batch: Arc::new(Batch::new(builder.finish(), offsets)),
            watermark: times.min().unwrap_or_default(),
            refused: BTreeSet::new(),
            numbers: places.clone(),
            places,
            all,
        }
    }

    fn input(&self, entry: Entry) -> Input {
        Input {
            batch: self.batch.clone(),
            input: match entry {
                Entry::Process => 0,
                Entry::Timers => NO_INPUT,
            },
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

    /// Output number `i`, made of the given row at `parent`.
    fn line(&self, case: &Case, i: usize, port: &str, given: &Given<'_>, parent: usize) -> String {
        let (number, parent) = (given.numbers[parent], given.all[given.places[parent]]);
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
        let key = own(&self.keys, &parent.key);
        let value = own(&self.values, &parent.value);
        let value = value.map(|value| case.value(port, &value));
        out_line(port, number, key.as_ref(), value.as_ref(), time, &headers)
    }
}
