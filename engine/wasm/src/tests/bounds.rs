//! Every bound that has a name: what is at it goes through, one more is refused with the name and the number.
//!
//! - caps of [`Limits`], all of them; headers of emitted rows; the state; requests to other services
//!
//! What wasmtime counts is in `floods`, memory and time in `evil`.

use super::evil::emit;
use super::http::{Echo, granted};
use super::state::call_packed;
use super::*;
use crate::Keyed;

/// Every field of `Limits` with what it is called: one that is not listed here does not compile.
macro_rules! raised {
    ($($field:ident: $name:literal,)*) => {{
        let Limits { $($field: _,)* } = Limits::CAPS;
        [$(($name, Limits::CAPS.$field as u64, Limits {
            $field: Limits::CAPS.$field + 1,
            ..Limits::CAPS
        }),)*]
    }};
}

#[test]
fn every_limit_above_its_cap_is_refused_by_its_name() {
    let module = load(&guest("", ""));
    let refused = |limits: &Limits| match module.open(&context(), limits) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    };
    assert_eq!(refused(&Limits::default()), "");
    assert_eq!(refused(&Limits::CAPS), "");
    for (name, cap, limits) in raised! {
        memory_bytes: "memory bytes",
        table_elements: "table elements",
        instances: "instances",
        memories: "memories",
        tables: "tables",
        handles: "handles",
        deadline_ms: "milliseconds for one call",
        open_deadline_ms: "milliseconds for `open`",
        output_bytes_max: "output bytes in one call",
        log_bytes_per_s: "log bytes a second",
        metrics: "metrics",
        state_bytes: "bytes of state",
        timers: "timers",
        http_requests: "requests for one batch",
        http_at_once: "requests at a time",
        http_per_s: "requests a second",
        http_timeout_ms: "milliseconds for one request",
        http_time_ms: "milliseconds for all requests of a batch",
        http_sent_bytes: "bytes of a request",
        http_received_bytes: "bytes of an answer",
        output_ratio_max: "output bytes for an input byte",
    } {
        let wanted = cap + 1;
        assert_eq!(
            refused(&limits),
            format!("a module cannot be given {wanted} {name}: at most {cap}")
        );
    }
}

#[test]
fn headers_of_an_emit_have_a_count_and_names_a_length() {
    for (headers, name, expected) in [
        (64, 255, ""),
        (64, 1, ""),
        (65, 1, "went over its limit of 64 headers in one emit"),
        (
            1,
            0,
            "trapped: set-header: a name of 0 bytes, it must have 1 to 255",
        ),
        (
            1,
            256,
            "trapped: set-header: a name of 256 bytes, it must have 1 to 255",
        ),
        (
            1,
            100_000,
            "trapped: set-header: a name of 4096 bytes, it must have 1 to 255",
        ),
    ] {
        let set = format!(
            "(call $set_header (local.get $out) (i32.const 16384) (i32.const {name})
               (i32.const 160) (i32.const 3) (i32.const 176) (i32.const 3)
               (i32.const 0) (i32.const 0))"
        );
        let body = emit("(i32.const 160) (i32.const 3)", 3, 0) + &set.repeat(headers);
        let mut guest = open(&guest("", &body), &Limits::default());
        match run(&mut guest, &rows()) {
            Ok(outcome) => {
                let [Emission::Emit { headers: set, .. }] = &outcome.emissions[..] else {
                    panic!("{outcome:?}");
                };
                assert_eq!((set.len(), expected), (headers, ""));
                assert!(set.iter().all(|(set, _)| set.len() == name));
            }
            Err(error) => {
                let text = error.to_string();
                assert!(!expected.is_empty() && text.contains(expected), "{text}");
                assert!(guest.is_dead(), "{text}");
            }
        }
    }
}

/// Zeros in the memory of a guest of `call_packed` that has grown by [`GROWN`] pages; the answers of the
/// host, which lie below, do not reach them.
const ZEROS: usize = 20 << 20;
const GROWN: usize = 400;

/// A column of one string of so many bytes, whose offsets it writes at 1000 (`place` 0) or behind that.
fn one(place: usize, bytes: usize) -> (String, String) {
    let at = 1000 + place * 8;
    (
        format!(
            "(i32.store (i32.const {at}) (i32.const 0))
             (i32.store (i32.const {}) (i32.const {bytes}))",
            at + 4
        ),
        format!(
            "(i32.const {at}) (i32.const 8) (i32.const {ZEROS}) (i32.const {bytes})
             (i32.const 0) (i32.const 0)"
        ),
    )
}

/// One of so many empty strings.
fn empty(count: usize) -> String {
    let offsets = (count + 1) * 4;
    format!(
        "(i32.const {ZEROS}) (i32.const {offsets}) (i32.const {ZEROS}) (i32.const 0)
         (i32.const 0) (i32.const 0)"
    )
}

fn put(key: usize, value: usize) -> String {
    let ((key, keys), (value, values)) = (one(0, key), one(1, value));
    format!("{key} {value} (call $put {keys} {values})")
}

fn timer(call: &str, key: usize) -> String {
    let (key, keys) = one(0, key);
    format!("{key} (call {call} {keys} (i32.const {ZEROS}) (i32.const 8))")
}

/// A call about so many keys.
fn keys(call: &str, count: usize) -> String {
    let keys = empty(count);
    let more = match call {
        "$get" => "(i32.const 1024)".to_owned(),
        "$put" => keys.clone(),
        "$delete" => String::new(),
        _ => format!("(i32.const {ZEROS}) (i32.const {})", count * 8),
    };
    format!("(call {call} {keys} {more})")
}

#[test]
fn keys_values_and_reads_of_the_state_have_their_most() {
    let check = |name: &str, process: &str, expected: &str| {
        let process = format!("(drop (memory.grow (i32.const {GROWN}))) {process}");
        let keyed = &mut Keyed::new(&Limits::default(), 1);
        match call_packed(keyed, &process) {
            Ok(said) => assert_eq!((said.as_str(), expected), ("", ""), "{name}"),
            Err(ended) => {
                let over = format!("the module went over its limit of {expected}");
                assert!(ended.starts_with(&over), "{name}: {ended}");
                assert_eq!(keyed.bytes(), 0, "{name}");
            }
        }
    };
    let key = "4096 bytes in a key of the state";
    check("key", &put(4 << 10, 1), "");
    check("long key", &put((4 << 10) + 1, 1), key);
    check("huge key", &put(5 << 20, 1), key);
    check("timer", &timer("$set", 4 << 10), "");
    check("long timer", &timer("$set", (4 << 10) + 1), key);
    check("value", &put(1, 1 << 20), "");
    let value = "1048576 bytes in a value of the state";
    check("long value", &put(1, (1 << 20) + 1), value);
    for call in ["$get", "$put", "$delete", "$set", "$clear"] {
        check(call, &keys(call, 100_000), "");
        let over = "100000 keys in one call about the state";
        check(call, &keys(call, 100_001), over);
    }
    let read = |count| put(0, 1 << 20) + &keys("$get", count);
    check("read", &read(16), "");
    let over = "16777216 bytes read from the state in one call";
    check("long read", &read(17), over);
}

/// `{requests}` of `{count}` at 65536, all of whose `{headers}` are at 131072; 128 text; 262144 zeros.
const SENDS: &str = r#"(module
  (import "rustmq:etl/data@0.1.0" "[resource-drop]context" (func $context_drop (param i32)))
  (import "rustmq:etl/data@0.1.0" "[resource-drop]batch" (func $batch_drop (param i32)))
  (import "rustmq:etl/data@0.1.0" "[resource-drop]outbox" (func $outbox_drop (param i32)))
  (import "rustmq:etl/http@0.1.0" "send" (func $send (param i32 i32 i32)))
  (memory (export "memory") 100)
  (data (i32.const 128) "GEThttps://a.example/one")
  (data (i32.const 65536) "{requests}")
  (data (i32.const 131072) "{headers}")
  (global $heap (mut i32) (i32.const 4000000))
  {realloc}
  (func (export "rustmq:etl/module@0.1.0#open") (param $context i32) (result i32)
    (call $context_drop (local.get $context))
    (i32.const 0))
  (func (export "rustmq:etl/module@0.1.0#process") (param $rows i32) (param $out i32) (result i32)
    (call $send (i32.const 65536) (i32.const {count}) (i32.const 256))
    (call $batch_drop (local.get $rows))
    (call $outbox_drop (local.get $out))
    (i32.const 0)))"#;

/// Numbers of 32 bits as a string of WAT.
fn words(words: impl IntoIterator<Item = u32>) -> String {
    let bytes = words.into_iter().flat_map(u32::to_le_bytes);
    bytes.map(|byte| format!("\\{byte:02x}")).collect()
}

/// A module that sends requests of so many headers and bytes of body, each header of so many bytes.
fn sends(requests: &[(u32, u32)], header: u32) -> Vec<u8> {
    let request = |(headers, body): &(u32, u32)| {
        let has_body = u32::from(*body > 0);
        let text = [128, 3, 131, 21];
        let lists = [131_072, *headers, has_body, 262_144, *body];
        // no timeout
        text.into_iter().chain(lists).chain([0, 0])
    };
    let most = requests.iter().map(|(headers, _)| *headers).max();
    let headers = (0..most.unwrap_or_default()).flat_map(|_| [128, 1, 262_144, header - 1]);
    let wat = SENDS.replace("{requests}", &words(requests.iter().flat_map(request)));
    let wat = wat.replace("{headers}", &words(headers));
    typed(&wat.replace("{count}", &requests.len().to_string()))
}

#[test]
fn requests_of_one_call_have_their_most_headers_and_bytes() {
    let headers = "limit of 64 headers of one request";
    // the lists of a guest may overlap: what is given twice counts twice
    let crossing = "limit of 2000000 bytes that cross the boundary in one call";
    let held = "limit of 2000000 bytes of requests in one call";
    for (requests, header, expected) in [
        (&[(0, 0)][..], 1, ""),
        (&[(64, 0)], 10, ""),
        (&[(65, 0)], 10, headers),
        (&[(1_000, 0)], 10, headers),
        (&[(64, 9), (65, 9)], 10, headers),
        (&[(0, 600_000); 3], 1, ""),
        (&[(0, 600_000); 4], 1, crossing),
        (&[(1, 0); 3], 600_000, ""),
        (&[(1, 0); 4], 600_000, crossing),
        (&[(19, 0)], 100_000, ""),
        (&[(64, 0)], 100_000, crossing),
        (&[(1, 900_000)], 900_000, ""),
        (&[(1, 500_000); 2], 500_000, held),
        (&[(1, 450_000); 3], 100_000, ""),
        (&[(1, 450_000); 4], 100_000, held),
    ] {
        let echo = Arc::new(Echo::default());
        let config = HostConfig {
            egress: Some(echo.clone()),
            ..HostConfig::default()
        };
        let host = Host::new(config).expect("the engine starts");
        let loaded = host.load(&sends(requests, header), &Grants::http());
        let module = loaded.unwrap_or_else(|e| panic!("{e}"));
        let limits = Limits {
            output_bytes_max: 1_000_000,
            ..Limits::default()
        };
        let mut guest = module.open(&granted(), &limits).expect("it opens");
        let ended = run(&mut guest, &rows()).err().map(|e| e.to_string());
        let text = ended.unwrap_or_default();
        assert_eq!(text.is_empty(), expected.is_empty(), "{requests:?}: {text}");
        assert!(text.contains(expected), "{requests:?}: {text}");
        assert_eq!(guest.is_dead(), !expected.is_empty(), "{requests:?}");
        // all of them, or none
        let asked = echo.0.lock().expect("requests");
        let asked = asked.iter().map(|request| {
            let body = request.body.as_ref().map_or(0, Vec::len);
            (request.headers.len() as u32, body as u32)
        });
        let wanted = if expected.is_empty() { requests } else { &[] };
        assert_eq!(asked.collect::<Vec<_>>(), wanted);
        drop(guest);
        assert_eq!(host.memory_bytes(), 0, "{requests:?}");
    }
}
