//! A guest that does what the fuzzer says: its script is the value of the first row of the batch,
//! calls of any of the host's functions with any numbers as arguments.
//!
//! Called by `guest.rs` for cargo-fuzz, and by `tests/fuzz_seeds.rs` in every test run.
//! A call is [`STEP`] bytes: which function, how its arguments are meant (bit 0 addresses, bit 1
//! lengths, bit 2 numbers: as they are, else cut to what may fit), and sixteen 32-bit arguments.
//! Handles are the right ones but for bit 3: else nothing would come further than to them.
//! Invariants: the host neither panics nor hangs; a dead guest stays dead and its memory is given
//! back; what a call emitted fits the batch and the ports, and its arrays are whole.

use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use model::rows::{Rows, RowsBuilder};
use model::schema::Schema;
use rustmq_wasm::{
    Edge, Emission, Grants, Host, HostConfig, Input, Limits, Module, OpenContext, Outcome,
    ProcessError, world,
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
    ("telemetry", "enabled", "n", "i32"),
    ("telemetry", "log", "nalal", ""),
    ("telemetry", "counter", "al>", ""),
    ("telemetry", "histogram", "alal>", ""),
    ("telemetry", "add", "alal", ""),
    ("telemetry", "observe", "nal", ""),
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
    let section = world::component_type_section().expect("wit/ is valid");
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
        let module = host.load(&bytes(), &Grants::default());
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

/// Lets a guest do what `script` says, and looks at what came of it; answers whether it died.
pub fn run(script: &[u8]) -> bool {
    let script = &script[..script.len().min(STEPS_MAX * STEP)];
    let (host, module) = module();
    let before = host.memory_bytes();
    let typed = Edge {
        fields: Some(schema()),
        ..Edge::from("typed")
    };
    let context = OpenContext {
        params: "{}".to_owned(),
        inputs: vec![typed.clone()],
        outputs: vec![typed, "free".into()],
        ..OpenContext::default()
    };
    let limits = Limits {
        // Only what never ends may be stopped by time.
        deadline_ms: 10_000,
        ..Limits::default()
    };
    let mut guest = module.open(&context, &limits).expect("it opens");
    let rows = rows(script);
    let columns = columns(rows.len());
    for offsets in [[1, 2, 3], [4, 5, 6]] {
        let input = Input {
            rows: &rows,
            columns: Some(&columns),
            unwritten: None,
            offsets: &offsets,
            input: 0,
            watermark: 1,
        };
        let was_dead = guest.is_dead();
        let done = guest.process(input);
        match &done {
            Ok(outcome) => check(outcome, rows.len() as u32, context.outputs.len() as u16),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        assert!(
            !was_dead || done == Err(ProcessError::Dead),
            "a dead guest worked: {done:?}"
        );
        assert!(context.metrics.read().len() <= limits.metrics);
    }
    let is_dead = guest.is_dead();
    drop(guest);
    assert_eq!(host.memory_bytes(), before, "memory was kept");
    is_dead
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
