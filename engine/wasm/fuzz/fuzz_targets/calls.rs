//! The guest of the fuzzer: the host's functions that its scripts call, and what lies in its memory.
//!
//! Called by `body.rs` and `tests/fuzz_seeds`. A step of a script is [`STEP`] bytes: which of [`CALLS`], how
//! it is meant, and sixteen 32-bit arguments, of which a call takes those it has. How it is meant, by bit:
//! - 0 addresses, 1 lengths, 2 numbers: as they are; else they are cut to what may fit
//! - 3 handles as they are; else they are the right ones, or nothing would come further than to them
//! - 4 [`ANSWER`], of several steps the last counts; 5 [`IN_OPEN`]; 6 [`STRICT`]
//! - 7 of the first step: nothing is selected and declared in `open` but by steps
//!
//! Invariants: each function of `wit/` that a guest can import is in `CALLS` once: a test compares them.
//! Refuses: kinds of arguments that are none, by a panic.

use rustmq_wasm::world;

#[path = "section.rs"]
mod section;

/// Bytes of one step in the script.
pub const STEP: usize = 2 + 16 * 4;

/// The answer of the export is where the step's first argument says.
pub const ANSWER: u8 = 16;
/// The step is for `open`; else for the other exports.
pub const IN_OPEN: u8 = 32;
/// An `err` of the host ends the guest, so that who lives on was told ok.
pub const STRICT: u8 = 64;

/// The table of fields that a guest has: the six kinds, three times; the second as they may be selected, the
/// third as they may be declared. So six in a row have six names.
pub const FIELDS_AT: u32 = 512;
pub const FIELDS: [(u8, u8); 18] = [
    (b'b', 0),
    (b'i', 1),
    (b'f', 2),
    (b's', 3),
    (b'y', 4),
    (b't', 5),
    (b'b', 0),
    (b'i', 2),
    (b'f', 2),
    (b's', 4),
    (b'y', 4),
    (b't', 1),
    (b'b', 0),
    (b'i', 5),
    (b'f', 1),
    (b's', 3),
    (b'y', 3),
    (b't', 5),
];
/// A failure, as a result.
const FAILURE_AT: u32 = 736;
/// Floats that ascend.
pub const FLOATS_AT: u32 = 768;
pub const FLOATS: u32 = 6;
/// Requests.
pub const REQUESTS_AT: u32 = 816;
pub const REQUESTS: u32 = 3;
pub const REQUEST_BYTES: u32 = 44;
const HEADERS_AT: u32 = 952;
/// The names of the fields, as one text.
pub const TEXT_AT: u32 = 992;
pub const TEXT: &[u8] = b"bifsyt";
/// Zeros.
pub const ZEROS_AT: u32 = 64;
/// Here the answers of the host begin.
const MEMORY: usize = 1024;

/// Interface, function, its arguments as [`core`] knows them, and what it returns.
pub const CALLS: &[(&str, &str, &str, &str)] = &[
    ("data", "[method]context.params", "ctx >", ""),
    ("data", "[method]context.inputs", "ctx >", ""),
    ("data", "[method]context.outputs", "ctx >", ""),
    ("data", "[method]context.partition", "ctx", "i32"),
    ("data", "[method]batch.len", "rows", "i32"),
    ("data", "[method]batch.input", "rows", "i32"),
    ("data", "[method]batch.keys", "rows >", ""),
    ("data", "[method]batch.values", "rows >", ""),
    ("data", "[method]batch.event-times", "rows >", ""),
    ("data", "[method]batch.offsets", "rows >", ""),
    ("data", "[method]batch.header", "rows text >", ""),
    ("data", "[method]batch.watermark", "rows", "i64"),
    ("data", "[method]outbox.forward", "out port parents", ""),
    (
        "data",
        "[method]outbox.emit",
        "out port parents column column",
        "",
    ),
    ("data", "[method]outbox.set-event-times", "out times", ""),
    ("data", "[method]outbox.set-header", "out text column", ""),
    ("data", "[method]outbox.reject", "out parents text text", ""),
    (
        "data",
        "[method]outbox.retry",
        "out parents number text text",
        "",
    ),
    ("columns", "input-fields", "ctx port >", ""),
    ("columns", "output-fields", "ctx port >", ""),
    ("columns", "select", "ctx port fields ?", ""),
    ("columns", "declare", "ctx port fields ?", ""),
    ("columns", "get-bools", "rows kind >", ""),
    ("columns", "get-ints", "rows kind >", ""),
    ("columns", "get-floats", "rows kind >", ""),
    ("columns", "get-bytes", "rows kind >", ""),
    ("columns", "emit", "out port flag parents", ""),
    ("columns", "set-keys", "out column", ""),
    ("columns", "set-bools", "out kind bools", ""),
    ("columns", "set-ints", "out kind ints", ""),
    ("columns", "set-floats", "out kind doubles", ""),
    ("columns", "set-bytes", "out kind column", ""),
    ("packed", "keys", "rows >", ""),
    ("packed", "values", "rows >", ""),
    ("packed", "event-times", "rows >", ""),
    ("packed", "offsets", "rows >", ""),
    ("packed", "header", "rows text >", ""),
    ("packed", "get-ints", "rows kind >", ""),
    ("packed", "get-floats", "rows kind >", ""),
    ("packed", "get-bytes", "rows kind >", ""),
    ("packed", "forward", "out port packed-parents", ""),
    (
        "packed",
        "emit",
        "out port packed-parents packed-column packed-column",
        "",
    ),
    ("packed", "set-event-times", "out packed-times", ""),
    ("packed", "set-header", "out text packed-column", ""),
    ("packed", "reject", "out packed-parents text text", ""),
    ("packed", "retry", "out packed-parents number text text", ""),
    ("packed", "emit-columns", "out port flag packed-parents", ""),
    ("packed", "set-keys", "out packed-column", ""),
    ("packed", "set-ints", "out kind packed-numbers", ""),
    ("packed", "set-floats", "out kind packed-numbers", ""),
    ("packed", "set-bytes", "out kind packed-column", ""),
    ("packed", "lookup", "number packed-column >", ""),
    ("lookup", "table", "text ?", ""),
    ("lookup", "get", "number column >", ""),
    ("state", "get", "column >", ""),
    ("state", "put", "column column", ""),
    ("state", "delete", "column", ""),
    ("state", "scan", "bytes flag bytes number >", ""),
    ("packed-state", "get", "packed-column >", ""),
    ("packed-state", "put", "packed-column packed-column", ""),
    ("packed-state", "delete", "packed-column", ""),
    ("packed-state", "scan", "bytes flag bytes number >", ""),
    (
        "packed-state",
        "set-timers",
        "packed-column packed-times",
        "",
    ),
    (
        "packed-state",
        "clear-timers",
        "packed-column packed-times",
        "",
    ),
    ("timers", "set", "column times", ""),
    ("timers", "clear", "column times", ""),
    ("telemetry", "enabled", "kind", "i32"),
    ("telemetry", "log", "kind text texts", ""),
    ("telemetry", "counter", "text ?", ""),
    ("telemetry", "histogram", "text bounds ?", ""),
    ("telemetry", "add", "ids times", ""),
    ("telemetry", "observe", "number bounds", ""),
    ("http", "send", "requests >", ""),
];

/// The numbers that an argument crosses as: `x` context, `r` rows, `o` outbox, `a` address, `l` length, `p`
/// length in bytes of numbers, `f` fields and `m` how many, `n` number below 4, `k` below 8, `b` 0 or 1, `>`
/// address of the answer.
pub fn core(kind: &str) -> &'static str {
    match kind {
        "ctx" => "x",
        "rows" => "r",
        "out" => "o",
        "port" | "number" => "n",
        "kind" => "k",
        "flag" => "b",
        "fields" => "fm",
        "packed-parents" | "packed-times" => "ap",
        "bytes" | "text" | "texts" | "parents" | "times" | "ids" | "bounds" | "requests" => "al",
        "column" => "alalal",
        "packed-column" => "apalal",
        "bools" | "ints" | "doubles" => "alal",
        "packed-numbers" => "apal",
        // a result, or anything else
        "?" | ">" => ">",
        other => panic!("{other} is no kind of argument"),
    }
}

/// The module's bytes.
pub fn module() -> Vec<u8> {
    let mut bytes = wat::parse_str(wat()).expect("the guest is well-formed");
    let types = world::stateful_type_section().expect("wit/ is valid");
    section::append(&mut bytes, "component-type:fuzz", &types);
    bytes
}

/// The imports, and the loop over the script.
fn wat() -> String {
    let targets: String = (0..CALLS.len()).map(|n| format!(" $is{n}")).collect();
    let mut code = format!("(br_table{targets} $next (i32.load8_u (local.get $at)))");
    let mut imports = String::new();
    for (number, (interface, name, arguments, result)) in CALLS.iter().enumerate() {
        let kinds: String = arguments.split(' ').map(core).collect();
        let params = " i32".repeat(kinds.len());
        let (returns, drop) = match *result {
            "" => (String::new(), ["", ""]),
            result => (format!(" (result {result})"), ["(drop ", ")"]),
        };
        let from = format!("\"rustmq:etl/{interface}@{}\" \"{name}\"", world::VERSION);
        imports += &format!("(import {from} (func $call{number} (param{params}){returns}))\n");
        let given: String = kinds.chars().enumerate().map(argument).collect();
        let call = format!("{}(call $call{number}{given}){}", drop[0], drop[1]);
        let after = if arguments.ends_with('?') {
            "(call $strict)"
        } else {
            ""
        };
        code = format!("(block $is{number} {code}) {call} {after} (br $next)\n");
    }
    let memory: String = memory()
        .iter()
        .map(|byte| format!("\\{byte:02x}"))
        .collect();
    include_str!("guest.wat")
        .replace("@VERSION", &format!("@{}", world::VERSION))
        .replace("FIELDS_AT", &FIELDS_AT.to_string())
        .replace("FAILURE_AT", &FAILURE_AT.to_string())
        .replace("MEMORY", &memory)
        .replace("IMPORTS", &imports)
        .replace("CODE", &code)
}

/// One argument of a call, read from the script.
fn argument((place, kind): (usize, char)) -> String {
    let raw = format!(
        "(i32.load (i32.add (local.get $at) (i32.const {})))",
        2 + 4 * place
    );
    let cut =
        |flag: u8, most: u32| format!(" (call $cut {raw} (i32.const {flag}) (i32.const {most}))");
    match kind {
        'x' => format!(" (call $handle {raw} (local.get $ctx))"),
        'r' => format!(" (call $handle {raw} (local.get $rows))"),
        'o' => format!(" (call $handle {raw} (local.get $out))"),
        'a' => cut(1, 0x3fff8),
        'f' => format!(" (call $fields {raw})"),
        'l' => cut(2, 0x1f),
        'p' => cut(2, 0x3f),
        'm' => cut(2, 7),
        'b' => cut(4, 1),
        'n' => cut(4, 3),
        'k' => cut(4, 7),
        // The address of the answer.
        _ => format!(" (i32.const {MEMORY})"),
    }
}

/// What lies below the answers: at 0 the numbers 0 to 7, of which a script makes lists and columns.
fn memory() -> Vec<u8> {
    let mut memory = vec![0; MEMORY];
    let mut lay = |at: u32, numbers: &[u32]| {
        for (number, place) in numbers.iter().zip((at as usize..).step_by(4)) {
            memory[place..place + 4].copy_from_slice(&number.to_le_bytes());
        }
    };
    lay(0, &[0, 1, 2, 3, 4, 5, 6, 7]);
    for (number, (name, kind)) in FIELDS.iter().enumerate() {
        let of = TEXT
            .iter()
            .position(|letter| letter == name)
            .expect("a letter");
        lay(
            FIELDS_AT + 12 * number as u32,
            &[TEXT_AT + of as u32, 1, u32::from(*kind)],
        );
    }
    lay(FAILURE_AT, &[1, TEXT_AT, 2, TEXT_AT, 6]);
    for number in 0..FLOATS {
        let bits = f64::from(number).to_bits();
        lay(FLOATS_AT + 8 * number, &[bits as u32, (bits >> 32) as u32]);
    }
    // method, URL, headers, body and time: with all of them, with none, with a method that fails
    let (none, url) = ([0; 5], [TEXT_AT, 6]);
    let all = [1, TEXT_AT, 4, 1, 1000];
    for (number, (method, headers, rest)) in
        [(2, 2, all), (2, 0, none), (3, 1, none)].iter().enumerate()
    {
        let at = REQUESTS_AT + REQUEST_BYTES * number as u32;
        lay(
            at,
            &[TEXT_AT, *method, url[0], url[1], HEADERS_AT, *headers],
        );
        lay(at + 24, rest);
    }
    lay(
        HEADERS_AT,
        &[TEXT_AT, 1, TEXT_AT, 2, TEXT_AT + 1, 1, TEXT_AT, 0],
    );
    memory[TEXT_AT as usize..][..TEXT.len()].copy_from_slice(TEXT);
    memory
}
