//! What a record costs that crosses into a WebAssembly module and back, beside native Rust.
//!
//! `forward-N`: the guest passes all N row numbers on. `filter-N`: it reads every value and passes
//! half of them on. `copy-N`: it reads keys and values and emits copies. `lookup-N`: it looks every key up
//! in a table of 4,000 with one call and emits what it found; the baseline asks a `HashMap`. `json-N`: it
//! reads JSON into a struct, computes, writes another struct as JSON; through `#[rustmq::map]`.
//! `columns-N`: it
//! reads three columns of numbers and makes one, through the same attribute and `derive(Row)`; that
//! the host decodes columns from JSON and encodes them again is not counted. `checked-N`: the same by a
//! function that refuses rows, of fields that not every number fits. `stage-N`: `columns` with
//! both counted, so all that a stage does between its topics; the baseline reads and writes structs
//! with serde. `cold-start`: a module whose code is cached is loaded, opened and called once, in
//! milliseconds; the baseline reads and hashes its two files.
//! `python-…`, `js-…`: forward, filter, copy, json and columns at 1,000 rows from those languages, `…-whole`,
//! which is the work of columns over whole ones instead of a function called for each row, `…-state`, which
//! counts the rows of each key in the module's state and passes none on (the baseline has a `HashMap`), and
//! `…-first-batch`, in milliseconds: a module whose code is cached is opened and called once, beside one
//! in Rust. They need the languages' tools, so they are skipped without `RUSTMQ_TOOLS` and in a smoke run.
//! N is the rows of a batch, each of about 120 bytes; 16,000 is the most that a lane takes at once
//! when it is behind (ADR 0029). Counted is the call of the guest with all
//! columns in and out; building an output batch from them is not.
//! Baseline: the same work on the same Arrow columns in this process.

use std::collections::HashMap;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::cast::AsArray;
use arrow::array::types::{Float64Type, Int64Type};
use arrow::array::{Array, ArrayRef, BinaryArray, BinaryBuilder, Float64Array, Int64Array};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use benches::rig::{self, Result};
use benches::{Case, Options, Unit};
use codec::Format;
use model::ids::Digest;
use model::rows::{Rows, RowsBuilder};
use model::schema::{Field, FieldType, Schema};
use model::topic::PayloadCodec;
use tokio::runtime::Runtime;
use wasm::{
    Batch, Edge, Emission, Entry, Grants, Guest, Host, HostConfig, Input, Limits, Lookups, Module,
    OpenContext, Table,
};

#[path = "../../tests/guests/boundary-json/src/row.rs"]
mod row;

const SIZES: [usize; 6] = [1, 10, 100, 1000, 10_000, 16_000];
const KINDS: [&str; 8] = [
    "forward", "filter", "copy", "lookup", "json", "columns", "checked", "stage",
];

fn main() -> Result<()> {
    let (options, runtime) = rig::begin()?;
    let host = Host::new(HostConfig::default())?;
    let boundary = module(&host, &runtime, "boundary")?;
    let json = module(&host, &runtime, "boundary-json")?;
    let columns = module(&host, &runtime, "boundary-columns")?;
    let checked = module(&host, &runtime, "boundary-checked")?;
    for kind in KINDS {
        let module = match kind {
            "json" => &json,
            "columns" | "stage" => &columns,
            "checked" => &checked,
            _ => &boundary,
        };
        for size in SIZES {
            let case = format!("{kind}-{size}");
            if options.wants(&case) {
                if kind == "stage" {
                    stage(case, &rows(size), &mut open(module, kind)?, &options)?;
                } else {
                    measure(case, kind, &rows(size), &|| open(module, kind), &options)?;
                }
            }
        }
    }
    if options.wants("cold-start") {
        cold_start(&built(&runtime, "boundary")?, &options)?;
    }
    for language in ["python", "js"] {
        from_language(language, &boundary, &runtime, &options)?;
    }
    Ok(())
}

fn from_language(
    language: &str,
    rust: &Module,
    runtime: &Runtime,
    options: &Options,
) -> Result<()> {
    let kinds = ["forward", "filter", "copy", "json", "columns", "whole"];
    let case = |kind: &str| format!("{language}-{kind}-1000");
    let first = format!("{language}-first-batch");
    let wants_state = options.wants(&case("state"));
    let wants_others = options.wants(&first) || kinds.iter().any(|kind| options.wants(&case(kind)));
    if !wants_state && !wants_others {
        return Ok(());
    }
    if options.quick || std::env::var_os("RUSTMQ_TOOLS").is_none() {
        println!("bench boundary {language}-*: skipped: it needs RUSTMQ_TOOLS and no --quick");
        return Ok(());
    }
    let load = |name: &str| -> Result<Module> {
        let languages = Path::new(env!("CARGO_MANIFEST_DIR")).join("languages");
        let dir = languages.join(name);
        let path = runtime.block_on(server::module::build(&dir, &mut |_| {}))?;
        Ok(rust.host().load(&fs::read(path)?, &Grants::default())?)
    };
    if wants_state {
        keep(case("state"), &load(&format!("{language}-state"))?, options)?;
    }
    if !wants_others {
        return Ok(());
    }
    let module = load(language)?;
    for kind in kinds.into_iter().filter(|kind| options.wants(&case(kind))) {
        measure(
            case(kind),
            kind,
            &rows(1000),
            &|| open_for(&module, kind),
            options,
        )?;
    }
    if options.wants(&first) {
        let mut line = Case::new("boundary", first, Unit::Milliseconds);
        let batch = batch(1000);
        let millis = |module: &Module| -> Result<f64> {
            let begun = Instant::now();
            black_box(open(module, "forward")?.process(input(&batch))?);
            Ok(begun.elapsed().as_secs_f64() * 1000.0)
        };
        for _ in 0..options.amount(100, 3) {
            line.ours(millis(&module)?, 1);
            line.baseline(millis(rust)?);
        }
        line.print();
    }
    Ok(())
}

fn input(batch: &Arc<Batch>) -> Input {
    Input {
        batch: batch.clone(),
        input: 0,
        watermark: 0,
    }
}

/// Without columns.
fn batch(size: usize) -> Arc<Batch> {
    Arc::new(Batch::new(rows(size), (0..size as u64).collect()))
}

fn module(host: &Host, runtime: &Runtime, name: &str) -> Result<Module> {
    Ok(host.load(&built(runtime, name)?, &Grants::default())?)
}

/// Builds a guest of `tests/guests`; cargo knows when there is nothing to do.
fn built(runtime: &Runtime, name: &str) -> Result<Vec<u8>> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let dir = repository.join("tests/guests").join(name);
    let target = repository.join("target/guests");
    let path = runtime.block_on(server::module::build_into(&dir, &target, &mut |_| {}))?;
    Ok(fs::read(path)?)
}

fn open(module: &Module, kind: &str) -> Result<Guest> {
    match kind {
        "forward" | "filter" | "copy" | "lookup" => open_for(module, kind),
        _ => open_with(module, String::new()),
    }
}

/// A module that is told what to do.
fn open_for(module: &Module, kind: &str) -> Result<Guest> {
    open_with(module, format!(r#"{{"work":"{kind}"}}"#))
}

fn open_with(module: &Module, params: String) -> Result<Guest> {
    let context = OpenContext {
        params,
        inputs: vec![Edge {
            name: "in".into(),
            fields: Some(Arc::new(schema())),
        }],
        outputs: vec!["out".into()],
        lookups: users(),
        ..OpenContext::default()
    };
    // the clock of a benchmark is the benchmark's
    let limits = Limits {
        deadline_ms: 60_000,
        ..Limits::default()
    };
    Ok(module.open(&context, &limits)?)
}

const USERS: usize = 4000;

/// Keys of the rows, and what they stand for.
fn user(number: usize) -> (Vec<u8>, Vec<u8>) {
    let key = format!("N{number:05}").into_bytes();
    let value = format!(
        r#"{{"tail":{number},"maker":"BOEING","seats":{}}}"#,
        number % 400
    );
    (key, value.into_bytes())
}

/// The table that the guest looks into.
fn users() -> Lookups {
    let all: Vec<_> = (0..USERS).map(user).collect();
    let table = Table::default();
    let changes = all.iter().map(|(key, value)| (&key[..], Some(&value[..])));
    // without a bound there is nothing to refuse
    let _ = table.apply(changes, usize::MAX);
    let lookups = Lookups::new(["users".to_owned()]);
    lookups.lend(Some([Arc::new(table.pin())].into()));
    lookups
}

fn rows(size: usize) -> Rows {
    let mut builder = RowsBuilder::new();
    for i in 0..size {
        let key = format!("N{:05}", i % 4000);
        let value = format!(
            concat!(
                r#"{{"carrier":"UA","flight":{},"origin":"EWR","dest":"IAH","dep_delay":{},"#,
                r#""tail":"{}","distance":{}}}"#
            ),
            1000 + i % 9000,
            (i % 90) as f64 / 2.0,
            key,
            1000 + i % 1000
        );
        builder.push(i as i64, Some(key.as_bytes()), Some(value.as_bytes()), &[]);
    }
    builder.finish()
}

fn field(name: &str, ty: FieldType) -> Field {
    Field {
        name: name.into(),
        ty,
    }
}

fn schema() -> Schema {
    Schema {
        fields: vec![
            field("flight", FieldType::Int64),
            field("dep_delay", FieldType::Float64),
            field("distance", FieldType::Int64),
        ],
        avro: None,
    }
}

fn scores() -> Schema {
    Schema {
        fields: vec![field("score", FieldType::Float64)],
        avro: None,
    }
}

/// The numbers of `rows`, as the host decodes them.
fn numbers(size: usize) -> Result<RecordBatch> {
    let ints =
        |of: fn(i64) -> i64| Arc::new(Int64Array::from_iter_values((0..size as i64).map(of)));
    let delays = (0..size).map(|i| (i % 90) as f64 / 2.0);
    let columns: Vec<ArrayRef> = vec![
        ints(|i| 1000 + i % 9000),
        Arc::new(Float64Array::from_iter_values(delays)),
        ints(|i| 1000 + i % 1000),
    ];
    Ok(RecordBatch::try_new(schema().to_arrow(), columns)?)
}

fn measure(
    case: String,
    kind: &str,
    rows: &Rows,
    open: &dyn Fn() -> Result<Guest>,
    options: &Options,
) -> Result<()> {
    let columns = numbers(rows.len())?;
    let made = scores().to_arrow();
    let batch = Arc::new(Batch {
        columns: Some(columns.clone()),
        ..Batch::new(rows.clone(), (0..rows.len() as u64).collect())
    });
    let mut guest = open()?;
    let users: HashMap<Vec<u8>, Vec<u8>> = (0..USERS).map(user).collect();
    let mut ours = || -> Result<()> {
        // as a lane does, and a part of the cost
        if guest.is_swollen() {
            guest = open()?;
        }
        black_box(guest.process(input(black_box(&batch)))?);
        Ok(())
    };
    let mut native = || -> Result<()> {
        match kind {
            "forward" => drop(black_box(forward(black_box(rows)))),
            "filter" => drop(black_box(filter(black_box(rows)))),
            "copy" => drop(black_box(copy(black_box(rows)))),
            "lookup" => drop(black_box(look_up(black_box(rows), &users))),
            "columns" | "whole" => drop(black_box(score(black_box(&columns), &made)?)),
            "checked" => drop(black_box(score_checked(black_box(&columns), &made)?)),
            _ => drop(black_box(json(black_box(rows))?)),
        }
        Ok(())
    };
    in_turns(case, rows.len(), options, &mut ours, &mut native)
}

fn in_turns(
    case: String,
    size: usize,
    options: &Options,
    ours: &mut dyn FnMut() -> Result<()>,
    native: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    let mut line = Case::new("boundary", case, Unit::NanosecondsPerRecord);
    // both warm before the first turn
    turn(size, options, ours)?;
    turn(size, options, native)?;
    for _ in 0..options.runs() {
        let (nanos, records) = turn(size, options, ours)?;
        line.ours(nanos, records);
        line.baseline(turn(size, options, native)?.0);
    }
    line.print();
    Ok(())
}

/// Counts by key in a module that keeps state, batch after batch.
fn keep(case: String, module: &Module, options: &Options) -> Result<()> {
    let batch = batch(1000);
    let mut guest = open_with(module, "{}".into())?;
    let mut keyed = module.keyed(&Limits::default(), 1);
    let mut ours = || -> Result<()> {
        if guest.is_swollen() {
            guest = open_with(module, "{}".into())?;
        }
        keyed.begin();
        black_box(guest.process_with(input(&batch), Entry::Process, &mut keyed)?);
        keyed.keep_call();
        black_box(keyed.changes());
        keyed.keep();
        Ok(())
    };
    let mut counts: HashMap<Vec<u8>, u64> = HashMap::new();
    let mut native = || -> Result<()> {
        for key in batch.rows.keys.iter().flatten() {
            *counts.entry(key.to_vec()).or_default() += 1;
        }
        Ok(())
    };
    in_turns(case, batch.rows.len(), options, &mut ours, &mut native)
}

/// What a stage does with a batch between its topics: JSON to columns, the guest, columns to JSON.
fn stage(case: String, rows: &Rows, guest: &mut Guest, options: &Options) -> Result<()> {
    let format = |schema| Format::new(PayloadCodec::Json, Arc::new(schema)).ok_or("no JSON");
    let given = format(schema())?;
    let made = format(scores())?;
    let all = given.project(|_| true);
    let offsets: ScalarBuffer<u64> = (0..rows.len() as u64).collect();
    let mut ours = || -> Result<()> {
        let decoded = given.decode(black_box(&rows.values), &all);
        let batch = Arc::new(Batch {
            columns: Some(decoded.columns),
            ..Batch::new(rows.clone(), offsets.clone())
        });
        let outcome = guest.process(input(&batch))?;
        let [Emission::Columns { columns, .. }] = &outcome.emissions[..] else {
            return Err("the guest makes one batch of columns".into());
        };
        black_box(made.encode(columns)?);
        Ok(())
    };
    let mut native = || -> Result<()> {
        black_box(json_scores(black_box(rows))?);
        Ok(())
    };
    in_turns(case, rows.len(), options, &mut ours, &mut native)
}

/// Loads a module whose code is cached, opens it and gives it a batch of one row.
fn cold_start(component: &[u8], options: &Options) -> Result<()> {
    let folder = rig::folder()?;
    let batch = batch(1);
    let once = |host: &Host| -> Result<()> {
        let module = host.load(component, &Grants::default())?;
        black_box(open(&module, "forward")?.process(input(&batch))?);
        Ok(())
    };
    // a host of its own for each turn, as it remembers what it has loaded
    let host = || {
        Host::new(HostConfig {
            cache_dir: Some(folder.path().to_owned()),
            ..HostConfig::default()
        })
    };
    once(&host()?)?;
    let entry = fs::read_dir(folder.path())?.next();
    let code = entry.ok_or("the code was not kept")??.path();
    let read = || -> Result<()> {
        black_box((Digest::of(component), Digest::of(&fs::read(&code)?)));
        Ok(())
    };
    let mut line = Case::new("boundary", "cold-start", Unit::Milliseconds);
    let millis = |work: &dyn Fn() -> Result<()>| -> Result<f64> {
        let begun = Instant::now();
        work()?;
        Ok(begun.elapsed().as_secs_f64() * 1000.0)
    };
    for _ in 0..options.amount(100, 3) {
        let host = host()?;
        line.ours(millis(&|| once(&host))?, 1);
        line.baseline(millis(&read)?);
    }
    line.print();
    Ok(())
}

/// Nanoseconds per record of one turn, and its records.
fn turn(
    size: usize,
    options: &Options,
    work: &mut dyn FnMut() -> Result<()>,
) -> Result<(f64, u64)> {
    // the clock is looked at every so many calls: it costs as much as a small one
    let calls_between = (2000 / size).max(1);
    let length = options.turn() / 4;
    let (begun, mut calls) = (Instant::now(), 0);
    while begun.elapsed() < length {
        for _ in 0..calls_between {
            work()?;
        }
        calls += calls_between;
    }
    let records = (calls * size) as u64;
    Ok((begun.elapsed().as_nanos() as f64 / records as f64, records))
}

fn forward(rows: &Rows) -> Vec<u32> {
    (0..rows.len() as u32).collect()
}

fn filter(rows: &Rows) -> Vec<u32> {
    let kept = |row: &u32| {
        let value = rows.values.value(*row as usize);
        value[value.len() - 2] & 1 == 0
    };
    (0..rows.len() as u32).filter(kept).collect()
}

fn copy(rows: &Rows) -> (Vec<u32>, BinaryArray, BinaryArray) {
    let copied = |column: &BinaryArray| {
        let offsets = Buffer::from_slice_ref(column.value_offsets());
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        let data = Buffer::from(column.value_data());
        BinaryArray::new(offsets, data, column.nulls().cloned())
    };
    (forward(rows), copied(&rows.keys), copied(&rows.values))
}

fn look_up(rows: &Rows, users: &HashMap<Vec<u8>, Vec<u8>>) -> (Vec<u32>, BinaryArray, BinaryArray) {
    let mut values = BinaryBuilder::with_capacity(rows.len(), 0);
    for key in &rows.keys {
        values.append_option(key.and_then(|key| users.get(key)));
    }
    (forward(rows), rows.keys.clone(), values.finish())
}

/// The work of `columns` as a native author does it: a batch for a batch, null where a number is not
/// finite, as the platform says it; rows with a null are a case of their own, which is not measured.
fn score(columns: &RecordBatch, made: &SchemaRef) -> Result<RecordBatch> {
    let (flights, delays, distances) = full(columns)?;
    let rows = flights.iter().zip(delays).zip(distances);
    let score = |((flight, delay), distance): ((&i64, &f64), &i64)| {
        *distance as f64 / (*delay + *flight as f64)
    };
    let scores = codec::finite(Float64Array::from_iter_values(rows.map(score)));
    Ok(RecordBatch::try_new(made.clone(), vec![Arc::new(scores)])?)
}

/// The work of `checked`; that a row is refused is a case of its own, which is not measured.
fn score_checked(columns: &RecordBatch, made: &SchemaRef) -> Result<RecordBatch> {
    let (flights, delays, distances) = full(columns)?;
    let mut scores = Vec::with_capacity(flights.len());
    for ((flight, delay), distance) in flights.iter().zip(delays).zip(distances) {
        let (flight, distance) = (i32::try_from(*flight)?, i32::try_from(*distance)?);
        let hours = delay + f64::from(flight);
        if hours <= 0.0 {
            return Err(format!("flight {flight} left {} early", -delay).into());
        }
        scores.push(f64::from(distance) / hours);
    }
    let scores = codec::finite(scores.into());
    Ok(RecordBatch::try_new(made.clone(), vec![Arc::new(scores)])?)
}

/// The three columns of `numbers`.
fn full(columns: &RecordBatch) -> Result<(&[i64], &[f64], &[i64])> {
    let refused = "a column of numbers without nulls";
    let ints = |i: usize| -> Result<&[i64]> {
        let column = columns.column(i).as_primitive_opt::<Int64Type>();
        let column = column.filter(|column| column.null_count() == 0);
        Ok(column.ok_or(refused)?.values())
    };
    let delays = columns.column(1).as_primitive_opt::<Float64Type>();
    let delays = delays.filter(|column| column.null_count() == 0);
    Ok((ints(0)?, delays.ok_or(refused)?.values(), ints(2)?))
}

fn json(rows: &Rows) -> serde_json::Result<(Vec<u32>, BinaryArray, BinaryArray)> {
    let mut offsets: Vec<i32> = Vec::with_capacity(rows.len() + 1);
    let mut data = Vec::with_capacity(rows.values.value_data().len());
    offsets.push(0);
    for value in rows.values.iter().flatten() {
        let row: row::In<'_> = serde_json::from_slice(value)?;
        serde_json::to_writer(&mut data, &row::convert(row))?;
        offsets.push(data.len() as i32);
    }
    let offsets = OffsetBuffer::new(offsets.into());
    let values = BinaryArray::new(offsets, data.into(), None);
    Ok((forward(rows), rows.keys.clone(), values))
}

/// The work of `stage` as a native author does it.
fn json_scores(rows: &Rows) -> serde_json::Result<BinaryArray> {
    #[derive(serde::Deserialize)]
    struct Given {
        flight: i64,
        dep_delay: f64,
        distance: i64,
    }
    #[derive(serde::Serialize)]
    struct Made {
        score: f64,
    }
    let mut offsets: Vec<i32> = Vec::with_capacity(rows.len() + 1);
    let mut data = Vec::with_capacity(rows.len() * 32);
    offsets.push(0);
    for value in rows.values.iter().flatten() {
        let row: Given = serde_json::from_slice(value)?;
        let score = row.distance as f64 / (row.dep_delay + row.flight as f64);
        serde_json::to_writer(&mut data, &Made { score })?;
        offsets.push(data.len() as i32);
    }
    let offsets = OffsetBuffer::new(offsets.into());
    Ok(BinaryArray::new(offsets, data.into(), None))
}
