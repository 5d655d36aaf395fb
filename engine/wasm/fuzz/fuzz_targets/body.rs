//! A guest that does what the fuzzer says: its script is the value of the first row of the batch and the
//! params of `open`, calls of any of the host's functions with any numbers as arguments.
//!
//! Called by `guest.rs` for cargo-fuzz, and by `tests/fuzz_seeds` in every test run. What a script is:
//! `calls.rs`.
//! Invariants: the host neither panics nor hangs; a guest that was not opened leaves nothing; a dead guest
//! stays dead and its memory is given back; what a call emitted fits the batch, the ports and their schemas,
//! and its arrays are whole; of a call that failed nothing is kept, and never more than the limits; what a
//! batch sees of a table does not change.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use arrow::array::cast::AsArray;
use arrow::array::types::Float64Type;
use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::record_batch::RecordBatch;
use model::rows::{Rows, RowsBuilder};
use model::schema::{FieldType, Schema};
use rustmq_wasm::http::grant::{Grant, Rule};
use rustmq_wasm::http::{
    Access, Answer, Egress, Failed, Request, Response, Sending, Stopped, Trouble,
};
use rustmq_wasm::{
    Batch, Edge, Emission, Entry, Grants, Guest, Host, HostConfig, Input, Keyed, Limits, Lookups,
    Metric, Module, OpenContext, OpenError, Outcome, Pinned, ProcessError, Table,
};

#[path = "calls.rs"]
pub mod calls;

use calls::{CALLS, IN_OPEN, STEP, STRICT};

const STEPS_MAX: usize = 256;

/// What scripts came to, of all that were run with it.
#[derive(Debug)]
pub struct Seen {
    /// How often each of [`CALLS`] went well: in a call of the guest that came to its end, and with an
    /// answer of ok where the host may answer otherwise.
    pub reached: Vec<u64>,
    /// Guests that were opened, that said no in `open`, that died there.
    pub opened: [u64; 3],
    /// The same of calls with rows or timers, and of migrations.
    pub called: [u64; 3],
    pub migrated: [u64; 3],
    /// Emissions that were checked: rows passed on, rows as bytes, rows as columns.
    pub emitted: [u64; 3],
    /// Fields of which a row of an emission had a value.
    pub kinds: BTreeSet<String>,
    /// Requests that were answered.
    pub requests: u64,
}

impl Default for Seen {
    fn default() -> Seen {
        Seen {
            reached: vec![0; CALLS.len()],
            opened: [0; 3],
            called: [0; 3],
            migrated: [0; 3],
            emitted: [0; 3],
            kinds: BTreeSet::new(),
            requests: 0,
        }
    }
}

impl Seen {
    /// The steps of a part of the script were all done.
    fn done(&mut self, script: &[u8], part: u8) {
        for step in script.chunks_exact(STEP) {
            let (call, meant) = (usize::from(step[0]), step[1]);
            let Some((_, _, arguments, _)) = CALLS.get(call) else {
                continue;
            };
            let is_sure = !arguments.ends_with('?') || meant & STRICT != 0;
            if meant & IN_OPEN == part && is_sure {
                self.reached[call] += 1;
            }
        }
    }
}

/// Answers every request at once: with what was asked where the method has two letters, or with a failure.
#[derive(Debug)]
struct Echo;

impl Egress for Echo {
    fn refuses(&self, _: &Rule) -> Option<String> {
        None
    }

    fn send(&self, sending: &Sending<'_>) -> Result<Vec<Answer>, Stopped> {
        let answer = |request: &Request| match request.method.len() {
            2 => Ok(Response {
                status: 200,
                url: request.url.clone(),
                headers: request.headers.clone(),
                body: request.body.clone().unwrap_or_default(),
            }),
            _ => Err(Failed::new(Trouble::Other, &request.url)),
        };
        Ok(sending.requests.iter().map(answer).collect())
    }
}

fn module() -> &'static (Host, Module) {
    static MODULE: OnceLock<(Host, Module)> = OnceLock::new();
    MODULE.get_or_init(|| {
        let config = HostConfig {
            egress: Some(Arc::new(Echo)),
            ..HostConfig::default()
        };
        let host = Host::new(config).expect("the engine starts");
        let module = host.load(&calls::module(), &Grants::http());
        (host, module.expect("the guest is a module"))
    })
}

/// All six kinds, in the order of [`calls::FIELDS`].
fn schema() -> Arc<Schema> {
    let schema = r#"[{"name": "b", "type": "bool"}, {"name": "i", "type": "int64"},
                     {"name": "f", "type": "float64"}, {"name": "s", "type": "string"},
                     {"name": "y", "type": "bytes"}, {"name": "t", "type": "timestamp"}]"#;
    let schema = serde_json::from_str(schema).expect("it is JSON");
    Arc::new(Schema::from_json(&schema).expect("it is a schema"))
}

fn columns(rows: usize) -> RecordBatch {
    let bools: BooleanArray = (0..rows)
        .map(|row| (row != 1).then_some(row == 0))
        .collect();
    let ints = (0..rows as i64).map(Some).collect::<Int64Array>();
    let floats = (0..rows).map(|_| None).collect::<Float64Array>();
    let texts = (0..rows).map(|_| Some("text")).collect::<StringArray>();
    let bytes = (0..rows)
        .map(|row| (row > 0).then_some([0xff]))
        .collect::<BinaryArray>();
    let times = TimestampMicrosecondArray::from_iter_values(0..rows as i64).with_timezone("UTC");
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(bools),
        Arc::new(ints),
        Arc::new(floats),
        Arc::new(texts),
        Arc::new(bytes),
        Arc::new(times),
    ];
    RecordBatch::try_new(schema().to_arrow(), arrays).expect("it is a batch")
}

/// The script as params: each byte two letters, of which `a` is 0.
fn params(script: &[u8]) -> String {
    let letters = script.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let letters: String = letters.map(|digit| char::from(b'a' + digit)).collect();
    format!("\"{letters}\"")
}

/// The script as the first value, beside rows of other kinds.
fn rows(script: &[u8]) -> Rows {
    let mut rows = RowsBuilder::new();
    rows.push(1, Some(b"a"), Some(script), &[]);
    rows.push(2, None, Some(b"two"), &[("h", Some(b"x"))]);
    rows.push(3, Some(b"c"), None, &[]);
    rows.finish()
}

/// Limits that short scripts reach.
const STATE_BYTES: usize = 400;
const TIMERS: usize = 2;
const REQUESTS: usize = 8;
const METRICS: usize = 2;

/// The tables that the guest looks into: keys of the bytes that scripts find at low addresses.
fn table(host: &Host, values: [&[u8]; 2]) -> Table {
    let table = host.table();
    let changes = [(&b""[..], Some(values[0])), (&[0][..], Some(values[1]))];
    let applied = table.apply(changes, usize::MAX);
    applied.expect("there is room");
    table
}

/// What the guest has to work with, over all its calls.
struct World {
    context: OpenContext,
    limits: Limits,
    keyed: Keyed,
    tables: [Table; 2],
}

impl World {
    fn new(host: &Host, module: &Module, script: &[u8]) -> World {
        let typed = Edge {
            fields: Some(schema()),
            ..Edge::from("typed")
        };
        let context = OpenContext {
            params: params(script),
            inputs: vec![typed.clone()],
            outputs: vec![typed, "free".into()],
            lookups: Lookups::new(["b", "bi"].map(str::to_owned)),
            http: Some(Arc::new(Access::new(Grant { rules: Vec::new() }, 1))),
            ..OpenContext::default()
        };
        let limits = Limits {
            // Only what never ends may be stopped by time.
            deadline_ms: 10_000,
            open_deadline_ms: 10_000,
            state_bytes: STATE_BYTES,
            timers: TIMERS,
            http_requests: REQUESTS,
            metrics: METRICS,
            ..Limits::default()
        };
        World {
            context,
            keyed: module.keyed(&limits, 1),
            limits,
            tables: [table(host, [b"x", b"yy"]), table(host, [b"", b"z"])],
        }
    }

    /// Opens a guest, or not, as its script says.
    fn open(&self, module: &Module, seen: &mut Seen, script: &[u8]) -> Option<Guest> {
        let opened = module.open(&self.context, &self.limits);
        let end = match &opened {
            Ok(_) => 0,
            Err(OpenError::Run(error)) => end(error),
            Err(other) => panic!("{other}"),
        };
        seen.opened[end] += 1;
        if end < 2 {
            seen.done(script, IN_OPEN);
        }
        assert_eq!(self.requests(), 0, "requests in `open`");
        self.bounds();
        let guest = opened.ok()?;
        let schema = schema();
        for field in guest.selected(0) {
            assert!(schema.field(&field.name).is_some(), "{field:?} is none");
        }
        Some(guest)
    }

    /// One call, and what must be so after it.
    fn call(&mut self, guest: &mut Guest, rows: &Rows, entry: Entry, seen: &mut Seen) {
        let batch = Batch {
            columns: Some(columns(rows.len())),
            ..Batch::new(rows.clone(), vec![1, 2, 3].into())
        };
        let input = Input {
            batch: Arc::new(batch),
            input: 0,
            watermark: 1,
        };
        let pinned: Vec<Arc<Pinned>> = self.tables.iter().map(|t| Arc::new(t.pin())).collect();
        self.context.lookups.lend(Some(pinned.clone().into()));
        let read = |pinned: &Pinned| pinned.reading().get(&[0]).map(<[u8]>::to_vec);
        let then = read(&pinned[0]);
        // what comes meanwhile is for the next call
        let change = (&[0][..], Some(&b"later"[..]));
        let applied = self.tables[0].apply([change], usize::MAX);
        applied.expect("there is room");
        let before = (self.keyed.bytes(), self.keyed.changes());
        let (was_dead, asked) = (guest.is_dead(), self.requests());
        let done = guest.process_with(input, entry, &mut self.keyed);
        self.context.lookups.lend(None);
        let asked = self.requests() - asked;
        assert!(asked <= REQUESTS, "{asked} requests in one call");
        seen.requests += asked as u64;
        assert_eq!(read(&pinned[0]), then, "a table changed under a batch");
        match &done {
            Ok(outcome) => {
                self.keyed.keep_call();
                check(outcome, rows.len() as u32, &self.context.outputs, seen);
            }
            Err(_) => {
                self.keyed.drop_call();
                let after = (self.keyed.bytes(), self.keyed.changes());
                assert_eq!(before, after, "a call that failed left something");
            }
        }
        let end = done.as_ref().map_or_else(end, |_| 0);
        seen.called[end] += u64::from(!was_dead);
        if end < 2 {
            seen.done(rows.values.value(0), 0);
        }
        assert!(
            !was_dead || done == Err(ProcessError::Dead),
            "a dead guest worked: {done:?}"
        );
        self.bounds();
    }

    /// Requests that came as far as to be answered.
    fn requests(&self) -> usize {
        match self.context.metrics.read().get("http.requests") {
            Some(Metric::Counter { value }) => *value as usize,
            _ => 0,
        }
    }

    fn bounds(&self) {
        let metrics = self.context.metrics.read();
        // those with a dot are the host's
        let own = metrics.keys().filter(|name| !name.contains('.'));
        assert!(own.count() <= METRICS, "{metrics:?}");
        assert!(self.keyed.bytes() <= STATE_BYTES, "{}", self.keyed.bytes());
        let changes = self.keyed.changes();
        let is_timer = |key: &[u8]| key.first() == Some(&2);
        let timers = changes
            .iter()
            .filter(|(key, value)| is_timer(key) && value.is_some());
        assert!(timers.count() <= TIMERS, "{changes:?}");
    }
}

/// Lets a guest do what `script` says, once with rows and once with timers, and looks at what came of it;
/// answers whether it died, in `open` or later.
pub fn run(script: &[u8], seen: &mut Seen) -> bool {
    let script = &script[..script.len().min(STEPS_MAX * STEP)];
    let (host, module) = module();
    let before = host.memory_bytes();
    let mut world = World::new(host, module, script);
    let opened = world.open(module, seen, script);
    let is_dead = opened.is_none_or(|mut guest| {
        let rows = rows(script);
        world.call(&mut guest, &rows, Entry::Process, seen);
        world.call(&mut guest, &rows, Entry::Timers, seen);
        migrate(module, &world, script, seen);
        guest.is_dead()
    });
    // what was kept is what the changelog says, so that a restart has it again
    let mut again = module.keyed(&world.limits, 1);
    for (key, value) in world.keyed.changes() {
        let loaded = again.load(&key, value.as_deref());
        loaded.expect("the state wrote it");
    }
    world.keyed.keep();
    assert_eq!(again.bytes(), world.keyed.bytes());
    assert_eq!(again.entries(), world.keyed.entries());
    drop((world, again));
    assert_eq!(host.memory_bytes(), before, "memory was kept");
    is_dead
}

/// How a guest ended that did not go well: 1 by saying no, 2 by its death; never by that of the host.
fn end(error: &ProcessError) -> usize {
    let text = error.to_string();
    assert!(
        !text.is_empty() && !text.contains("the host panicked"),
        "{text}"
    );
    if matches!(error, ProcessError::Failed { .. }) {
        1
    } else {
        2
    }
}

/// Lets a guest take over an older state, whose first entry is the script.
fn migrate(module: &Module, world: &World, script: &[u8], seen: &mut Seen) {
    let mut old = vec![(vec![1, b'a'], script.to_vec()), (vec![1, b'b'], vec![7])];
    // a timer of the empty key at 0
    old.push((vec![2, 0x80, 0, 0, 0, 0, 0, 0, 0], vec![]));
    let load = |keyed: &mut Keyed, key: &[u8], value: Option<&[u8]>| {
        keyed.load(key, value).expect("a state wrote it");
    };
    let mut keyed = module.keyed(&world.limits, 1);
    old.iter()
        .for_each(|(key, value)| load(&mut keyed, key, Some(value)));
    let before = keyed.bytes();
    keyed.migrate(&world.limits, 2);
    // not as before, where the names of the metrics are used up
    let asked = world.requests();
    let Ok(mut guest) = module.open(&world.context, &world.limits) else {
        return;
    };
    let done = guest.migrate(1, &keyed.old(None), &mut keyed);
    assert_eq!(world.requests(), asked, "requests outside of a batch");
    let end = done.as_ref().map_or_else(end, |()| 0);
    seen.migrated[end] += 1;
    if end < 2 {
        seen.done(script, 0);
    }
    if end > 0 {
        keyed.back();
        assert_eq!((keyed.bytes(), keyed.schema()), (before, 1));
        assert_eq!(
            keyed.changes(),
            [],
            "a migration that failed left something"
        );
        return;
    };
    keyed.keep_migrated();
    keyed.migrated().expect("it is small");
    assert!(keyed.bytes() <= STATE_BYTES, "{}", keyed.bytes());
    // the log has both or neither
    let mut again = module.keyed(&world.limits, 1);
    let records = old.into_iter().map(|(key, value)| (key, Some(value)));
    for (key, value) in records.chain(keyed.changes()) {
        load(&mut again, &key, value.as_deref());
    }
    keyed.keep();
    assert_eq!((again.bytes(), again.schema()), (keyed.bytes(), 2));
    assert_eq!(again.entries(), keyed.entries());
    assert!(again.due().len() <= TIMERS);
}

/// What is emitted is whole, of this batch, and of its port.
fn check(outcome: &Outcome, rows: u32, outputs: &[Edge], seen: &mut Seen) {
    let inside = |list: &[u32]| assert!(list.iter().all(|row| *row < rows), "{outcome:?}");
    let set = |times: &Option<Vec<i64>>, headers: &[(String, BinaryArray)], len: usize| {
        assert!(times.as_ref().is_none_or(|times| times.len() == len));
        headers.iter().for_each(|(_, column)| whole(column, len));
    };
    for emission in &outcome.emissions {
        let (port, len, kind) = match emission {
            Emission::Forward { port, rows } => {
                inside(rows);
                (*port, 0, 0)
            }
            Emission::Emit {
                port,
                parents,
                keys,
                values,
                event_times,
                headers,
            } => {
                inside(parents);
                whole(keys, parents.len());
                whole(values, parents.len());
                set(event_times, headers, parents.len());
                (*port, parents.len(), 1)
            }
            Emission::Columns {
                port,
                parents,
                columns,
                keys,
                event_times,
                headers,
            } => {
                let len = parents.as_ref().map_or(rows as usize, Vec::len);
                inside(parents.as_deref().unwrap_or_default());
                keys.iter().for_each(|keys| whole(keys, len));
                set(event_times, headers, len);
                of_port(columns, len, &outputs[usize::from(*port)], seen);
                (*port, len, 2)
            }
        };
        seen.emitted[kind] += 1;
        assert!(usize::from(port) < outputs.len(), "{outcome:?}");
        assert!(len <= Limits::default().output_bytes_max);
    }
    outcome
        .rejections
        .iter()
        .for_each(|rejection| inside(&rejection.rows));
    outcome.retries.iter().for_each(|retry| inside(&retry.rows));
}

fn whole(array: &dyn Array, len: usize) {
    array.to_data().validate_full().expect("an array is whole");
    assert_eq!(array.len(), len, "{array:?}");
}

/// Columns are those of the output's schema, or any that a schema may have; floats are finite.
fn of_port(columns: &RecordBatch, len: usize, output: &Edge, seen: &mut Seen) {
    assert_eq!(columns.num_rows(), len);
    if let Some(schema) = &output.fields {
        assert_eq!(columns.schema(), schema.to_arrow());
    }
    for column in columns.columns() {
        whole(column, len);
        let kind = FieldType::of_arrow(column.data_type()).expect("it is a field's type");
        if column.null_count() < len {
            seen.kinds.insert(kind.to_string());
        }
        if let Some(floats) = column.as_primitive_opt::<Float64Type>() {
            assert!(floats.iter().flatten().all(f64::is_finite), "{floats:?}");
        }
    }
}
