//! A guest that does what the fuzzer says: its script is the value of the first row of the batch,
//! calls of any of the host's functions with any numbers as arguments.
//!
//! Called by `guest.rs` for cargo-fuzz, and by `tests/fuzz_seeds.rs` in every test run.
//! A call is [`STEP`] bytes: which function, how its arguments are meant (bit 0 addresses, bit 1
//! lengths, bit 2 numbers: as they are, else cut to what may fit), and sixteen 32-bit arguments.
//! Handles are the right ones but for bit 3: else nothing would come further than to them. Bit 4 of the
//! first call: the export's answer lies where its first argument says.
//! Invariants: the host neither panics nor hangs; a dead guest stays dead and its memory is given
//! back; what a call emitted fits the batch and the ports, and its arrays are whole; of a call that failed
//! nothing is kept, and never more than the limits; what a batch sees of a table does not change.

use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use model::rows::{Rows, RowsBuilder};
use model::schema::Schema;
use rustmq_wasm::{
    Batch, Edge, Emission, Entry, Grants, Guest, Host, HostConfig, Input, Keyed, Limits, Lookups,
    Metric, Module, OpenContext, Outcome, Pinned, ProcessError, Table, world,
};

/// Bytes of one call in the script.
pub const STEP: usize = 2 + 16 * 4;
const STEPS_MAX: usize = 256;

/// Interface, function, and its arguments: `r` rows, `o` outbox, `a` address, `l` length, `n`
/// number, `b` 0 or 1, `>` address of the answer; what it returns.
pub const CALLS: &[(&str, &str, &str, &str)] = &[
    ("data", "[method]batch.len", "r", "i32"),
    ("data", "[method]batch.input", "r", "i32"),
    ("data", "[method]batch.keys", "r>", ""),
    ("data", "[method]batch.values", "r>", ""),
    ("data", "[method]batch.event-times", "r>", ""),
    ("data", "[method]batch.offsets", "r>", ""),
    ("data", "[method]batch.header", "ral>", ""),
    ("data", "[method]batch.watermark", "r", "i64"),
    ("data", "[method]outbox.forward", "onal", ""),
    ("data", "[method]outbox.emit", "onalalalalalalal", ""),
    ("data", "[method]outbox.set-event-times", "oal", ""),
    ("data", "[method]outbox.set-header", "oalalalal", ""),
    ("data", "[method]outbox.reject", "oalalal", ""),
    ("data", "[method]outbox.retry", "oalnalal", ""),
    ("columns", "get-bools", "rn>", ""),
    ("columns", "get-ints", "rn>", ""),
    ("columns", "get-floats", "rn>", ""),
    ("columns", "get-bytes", "rn>", ""),
    ("columns", "emit", "onbal", ""),
    ("columns", "set-keys", "oalalal", ""),
    ("columns", "set-bools", "onalal", ""),
    ("columns", "set-ints", "onalal", ""),
    ("columns", "set-floats", "onalal", ""),
    ("columns", "set-bytes", "onalalal", ""),
    ("packed", "keys", "r>", ""),
    ("packed", "values", "r>", ""),
    ("packed", "event-times", "r>", ""),
    ("packed", "offsets", "r>", ""),
    ("packed", "header", "ral>", ""),
    ("packed", "get-ints", "rn>", ""),
    ("packed", "get-floats", "rn>", ""),
    ("packed", "get-bytes", "rn>", ""),
    ("packed", "forward", "onal", ""),
    ("packed", "emit", "onalalalalalalal", ""),
    ("packed", "set-event-times", "oal", ""),
    ("packed", "set-header", "oalalalal", ""),
    ("packed", "reject", "oalalal", ""),
    ("packed", "retry", "oalnalal", ""),
    ("packed", "emit-columns", "onbal", ""),
    ("packed", "set-keys", "oalalal", ""),
    ("packed", "set-ints", "onalal", ""),
    ("packed", "set-floats", "onalal", ""),
    ("packed", "set-bytes", "onalalal", ""),
    ("packed", "lookup", "nalalal>", ""),
    ("lookup", "table", "al>", ""),
    ("lookup", "get", "nalalal>", ""),
    ("state", "get", "alalal>", ""),
    ("state", "put", "alalalalalal", ""),
    ("state", "delete", "alalal", ""),
    ("state", "scan", "albaln>", ""),
    ("packed-state", "get", "alalal>", ""),
    ("packed-state", "put", "alalalalalal", ""),
    ("packed-state", "delete", "alalal", ""),
    ("packed-state", "scan", "albaln>", ""),
    ("packed-state", "set-timers", "alalalal", ""),
    ("packed-state", "clear-timers", "alalalal", ""),
    ("timers", "set", "alalalal", ""),
    ("timers", "clear", "alalalal", ""),
    ("telemetry", "enabled", "n", "i32"),
    ("telemetry", "log", "nalal", ""),
    ("telemetry", "counter", "al>", ""),
    ("telemetry", "histogram", "alal>", ""),
    ("telemetry", "add", "alal", ""),
    ("telemetry", "observe", "nal", ""),
    ("http", "send", "al>", ""),
];

/// The imports, and the loop over the script.
fn wat() -> String {
    let targets: String = (0..CALLS.len()).map(|n| format!(" $is{n}")).collect();
    let mut code = format!("(br_table{targets} $next (i32.load8_u (local.get $at)))");
    let mut imports = String::new();
    for (number, (interface, name, arguments, result)) in CALLS.iter().enumerate() {
        let params = " i32".repeat(arguments.len());
        let (returns, drop) = match *result {
            "" => (String::new(), ["", ""]),
            result => (format!(" (result {result})"), ["(drop ", ")"]),
        };
        let from = format!("\"rustmq:etl/{interface}@{}\" \"{name}\"", world::VERSION);
        imports += &format!("(import {from} (func $call{number} (param{params}){returns}))\n");
        let given: String = arguments.chars().enumerate().map(argument).collect();
        let call = format!("{}(call $call{number}{given}){}", drop[0], drop[1]);
        code = format!("(block $is{number} {code}) {call} (br $next)\n");
    }
    include_str!("guest.wat")
        .replace("@VERSION", &format!("@{}", world::VERSION))
        .replace("IMPORTS", &imports)
        .replace("CODE", &code)
}

/// One argument of a call, read from the script.
fn argument((place, kind): (usize, char)) -> String {
    let raw = format!(
        "(i32.load (i32.add (local.get $at) (i32.const {})))",
        2 + 4 * place
    );
    match kind {
        'r' => format!(" (call $handle {raw} (local.get $rows))"),
        'o' => format!(" (call $handle {raw} (local.get $out))"),
        'a' => format!(" (call $cut {raw} (i32.const 1) (i32.const 0x3fff8))"),
        'l' => format!(" (call $cut {raw} (i32.const 2) (i32.const 0x1f))"),
        'b' => format!(" (call $cut {raw} (i32.const 4) (i32.const 1))"),
        'n' => format!(" (call $cut {raw} (i32.const 4) (i32.const 3))"),
        // The address of the answer.
        _ => " (i32.const 1024)".to_owned(),
    }
}

fn bytes() -> Vec<u8> {
    let mut bytes = wat::parse_str(wat()).expect("the guest is well-formed");
    let section = world::stateful_type_section().expect("wit/ is valid");
    let name = b"component-type:fuzz";
    bytes.push(0);
    leb(&mut bytes, 1 + name.len() + section.len());
    bytes.push(name.len() as u8);
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(&section);
    bytes
}

fn leb(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn module() -> &'static (Host, Module) {
    static MODULE: OnceLock<(Host, Module)> = OnceLock::new();
    MODULE.get_or_init(|| {
        let host = Host::new(HostConfig::default()).expect("the engine starts");
        let module = host.load(&bytes(), &Grants::http());
        (host, module.expect("the guest is a module"))
    })
}

fn schema() -> Arc<Schema> {
    let schema = r#"[{"name": "i", "type": "int64"}, {"name": "f", "type": "float64"},
                     {"name": "s", "type": "string"}]"#;
    let schema = serde_json::from_str(schema).expect("it is JSON");
    Arc::new(Schema::from_json(&schema).expect("it is a schema"))
}

fn columns(rows: usize) -> RecordBatch {
    let ints: ArrayRef = Arc::new((0..rows as i64).map(Some).collect::<Int64Array>());
    let floats: ArrayRef = Arc::new((0..rows).map(|_| None).collect::<Float64Array>());
    let texts: ArrayRef = Arc::new((0..rows).map(|_| Some("text")).collect::<StringArray>());
    RecordBatch::try_new(schema().to_arrow(), vec![ints, floats, texts]).expect("it is a batch")
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
    fn new(host: &Host, module: &Module) -> World {
        let typed = Edge {
            fields: Some(schema()),
            ..Edge::from("typed")
        };
        let context = OpenContext {
            params: "{}".to_owned(),
            inputs: vec![typed.clone()],
            outputs: vec![typed, "free".into()],
            lookups: Lookups::new(["i", "f"].map(str::to_owned)),
            ..OpenContext::default()
        };
        let limits = Limits {
            // Only what never ends may be stopped by time.
            deadline_ms: 10_000,
            state_bytes: STATE_BYTES,
            timers: TIMERS,
            http_requests: REQUESTS,
            ..Limits::default()
        };
        World {
            context,
            keyed: module.keyed(&limits, 1),
            limits,
            tables: [table(host, [b"x", b"yy"]), table(host, [b"", b"z"])],
        }
    }

    /// One call, and what must be so after it.
    fn call(&mut self, guest: &mut Guest, rows: &Rows, entry: Entry) {
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
        let seen = |pinned: &Pinned| pinned.reading().get(&[0]).map(<[u8]>::to_vec);
        let then = seen(&pinned[0]);
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
        assert_eq!(seen(&pinned[0]), then, "a table changed under a batch");
        match &done {
            Ok(outcome) => {
                self.keyed.keep_call();
                check(
                    outcome,
                    rows.len() as u32,
                    self.context.outputs.len() as u16,
                );
            }
            Err(error) => {
                harmless(error);
                self.keyed.drop_call();
                let after = (self.keyed.bytes(), self.keyed.changes());
                assert_eq!(before, after, "a call that failed left something");
            }
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
        assert!(self.context.metrics.read().len() <= self.limits.metrics);
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
/// answers whether it died.
pub fn run(script: &[u8]) -> bool {
    let script = &script[..script.len().min(STEPS_MAX * STEP)];
    let (host, module) = module();
    let before = host.memory_bytes();
    let mut world = World::new(host, module);
    let opened = module.open(&world.context, &world.limits);
    let mut guest = opened.expect("it opens");
    let rows = rows(script);
    world.call(&mut guest, &rows, Entry::Process);
    world.call(&mut guest, &rows, Entry::Timers);
    migrate(module, &world, script);
    // what was kept is what the changelog says, so that a restart has it again
    let mut again = module.keyed(&world.limits, 1);
    for (key, value) in world.keyed.changes() {
        let loaded = again.load(&key, value.as_deref());
        loaded.expect("the state wrote it");
    }
    world.keyed.keep();
    assert_eq!(again.bytes(), world.keyed.bytes());
    assert_eq!(again.entries(), world.keyed.entries());
    let is_dead = guest.is_dead();
    drop((guest, world, again));
    assert_eq!(host.memory_bytes(), before, "memory was kept");
    is_dead
}

/// An end of the guest, not of the host.
fn harmless(error: &ProcessError) {
    let text = error.to_string();
    assert!(
        !text.is_empty() && !text.contains("the host panicked"),
        "{text}"
    );
}

/// Lets a guest take over an older state, whose first entry is the script.
fn migrate(module: &Module, world: &World, script: &[u8]) {
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
    let opened = module.open(&world.context, &world.limits);
    let mut guest = opened.expect("it opens");
    let asked = world.requests();
    let done = guest.migrate(1, &keyed.old(None), &mut keyed);
    assert_eq!(world.requests(), asked, "requests outside of a batch");
    if let Err(error) = done {
        harmless(&error);
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

/// What is emitted is whole, and of this batch.
fn check(outcome: &Outcome, rows: u32, ports: u16) {
    let inside = |list: &[u32]| assert!(list.iter().all(|row| *row < rows), "{outcome:?}");
    let whole = |array: &dyn Array, len: usize| {
        array.to_data().validate_full().expect("an array is whole");
        assert_eq!(array.len(), len, "{outcome:?}");
    };
    for emission in &outcome.emissions {
        let (port, len) = match emission {
            Emission::Forward { port, rows } => {
                inside(rows);
                (*port, 0)
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
                assert!(
                    event_times
                        .as_ref()
                        .is_none_or(|times| times.len() == parents.len())
                );
                headers
                    .iter()
                    .for_each(|(_, column)| whole(column, parents.len()));
                (*port, parents.len())
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
                columns
                    .columns()
                    .iter()
                    .for_each(|column| whole(column, len));
                keys.iter().for_each(|keys| whole(keys, len));
                assert!(event_times.as_ref().is_none_or(|times| times.len() == len));
                headers.iter().for_each(|(_, column)| whole(column, len));
                (*port, len)
            }
        };
        assert!(port < ports, "{outcome:?}");
        assert!(len <= Limits::default().output_bytes_max);
    }
    outcome
        .rejections
        .iter()
        .for_each(|rejection| inside(&rejection.rows));
    outcome.retries.iter().for_each(|retry| inside(&retry.rows));
}
