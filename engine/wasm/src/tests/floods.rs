//! What floods what wasmtime counts by itself: handles, bytes over the boundary, core instances, memories
//! and tables; and what is said with too many bytes, or goes on after it was said.
//!
//! Components are written out where no core module can do it. Each evil ends its guest with the name of
//! the limit, and the memory is given back.

use super::*;
use crate::{Entry, Old};

/// A host of its own: the guests of other tests would be counted.
fn alone() -> Host {
    Host::new(HostConfig::default()).expect("the engine starts")
}

fn loaded(host: &Host, bytes: &[u8]) -> Module {
    let loaded = host.load(bytes, &Grants::default());
    loaded.unwrap_or_else(|e| panic!("{e}"))
}

/// Calls it with the rows; how it ended, and that nothing of it is left.
fn ends(host: &Host, module: &Module, limits: &Limits) -> String {
    let ended = match module.open(&context(), limits) {
        Err(error) => error.to_string(),
        Ok(mut guest) => {
            let error = run(&mut guest, &rows()).expect_err("it must not succeed");
            assert!(guest.is_dead(), "{error}");
            assert_eq!(run(&mut guest, &rows()), Err(ProcessError::Dead));
            error.to_string()
        }
    };
    assert_eq!(host.memory_bytes(), 0, "{ended}");
    ended
}

/// A component whose core module has these bodies. It has a resource of its own, whose `$new` and `$drop`
/// they can call, and whatever stands in `{more}` beside its core module.
fn component(open: &str, process: &str, more: &str) -> Vec<u8> {
    let text = r#"(component
  (import "rustmq:etl/types@0.1.0" (instance $types
    (type $record (record (field "code" string) (field "message" string)))
    (export "failure" (type (eq $record)))))
  (alias export $types "failure" (type $failure))
  (import "rustmq:etl/data@0.1.0" (instance $data
    (export "context" (type (sub resource)))
    (export "batch" (type (sub resource)))
    (export "outbox" (type (sub resource)))))
  (alias export $data "context" (type $context))
  (alias export $data "batch" (type $batch))
  (alias export $data "outbox" (type $outbox))
  (type $own (resource (rep i32)))
  (core func $new (canon resource.new $own))
  (core func $drop (canon resource.drop $own))
  (core func $context_drop (canon resource.drop $context))
  (core func $batch_drop (canon resource.drop $batch))
  (core func $outbox_drop (canon resource.drop $outbox))
  (core module $code
    (import "host" "new" (func $new (param i32) (result i32)))
    (import "host" "drop" (func $drop (param i32)))
    (import "host" "context-drop" (func $context_drop (param i32)))
    (import "host" "batch-drop" (func $batch_drop (param i32)))
    (import "host" "outbox-drop" (func $outbox_drop (param i32)))
    (memory (export "memory") 1)
    (func (export "open") (param $context i32) (result i32) (local $i i32)
      {open}
      (call $context_drop (local.get $context))
      (i32.const 0))
    (func (export "process") (param $rows i32) (param $out i32) (result i32) (local $i i32)
      {process}
      (call $batch_drop (local.get $rows))
      (call $outbox_drop (local.get $out))
      (i32.const 0)))
  {more}
  (core instance $inside (instantiate $code (with "host" (instance
    (export "new" (func $new))
    (export "drop" (func $drop))
    (export "context-drop" (func $context_drop))
    (export "batch-drop" (func $batch_drop))
    (export "outbox-drop" (func $outbox_drop))))))
  (func $open (param "ctx" (borrow $context)) (result (result (error $failure)))
    (canon lift (core func $inside "open") (memory (core memory $inside "memory"))))
  (func $process (param "rows" (borrow $batch)) (param "out" (borrow $outbox))
      (result (result (error $failure)))
    (canon lift (core func $inside "process") (memory (core memory $inside "memory"))))
  (instance $module (export "open" (func $open)) (export "process" (func $process)))
  (export "rustmq:etl/module@0.1.0" (instance $module)))"#;
    let text = text.replace("@0.1.0", &format!("@{}", world::VERSION));
    let text = text.replace("{open}", open).replace("{process}", process);
    wat::parse_str(text.replace("{more}", more)).unwrap_or_else(|e| panic!("{e}"))
}

/// So often.
fn times(count: u32, body: &str) -> String {
    format!(
        "(local.set $i (i32.const {count}))
         (loop $on {body}
           (local.set $i (i32.sub (local.get $i) (i32.const 1)))
           (br_if $on (local.get $i)))"
    )
}

#[test]
fn a_flood_of_handles_ends_the_guest_with_the_name_of_the_limit() {
    let (host, limits) = (alone(), Limits::default());
    let new = "(drop (call $new (i32.const 7)))";
    let endless = format!("(loop $on {new} (br $on))");
    let over = "the module went over its limit of 1000 live handles";
    let in_open = format!("in `open`: {over}");
    for (open, process, expected) in [
        ("", endless.as_str(), over),
        (&endless, "", &in_open),
        // the batch and the outbox are two of them
        ("", &times(999, new), over),
        (&times(900, new), &times(99, new), over),
    ] {
        let module = loaded(&host, &component(open, process, ""));
        assert_eq!(ends(&host, &module, &limits), expected);
    }
    let few = Limits {
        handles: 10,
        ..Limits::default()
    };
    let text = ends(&host, &loaded(&host, &component("", &endless, "")), &few);
    assert!(text.contains("limit of 10 live handles"), "{text}");
}

#[test]
fn handles_that_are_few_or_given_back_are_no_flood() {
    let host = alone();
    let new = "(drop (call $new (i32.const 7)))";
    let back = times(5_000, "(call $drop (call $new (i32.const 7)))");
    for (open, process, calls) in [
        ("", times(998, new), 1),
        (&times(900, new)[..], times(49, new), 2),
        ("", back, 3),
    ] {
        let module = loaded(&host, &component(open, &process, ""));
        let mut guest = module
            .open(&context(), &Limits::default())
            .unwrap_or_else(|e| panic!("{e}"));
        for _ in 0..calls {
            assert_eq!(run(&mut guest, &rows()), Ok(Outcome::default()));
        }
    }
    assert_eq!(host.memory_bytes(), 0);
}

#[test]
fn a_component_has_so_many_core_instances_memories_and_tables() {
    let host = alone();
    // its own module is one instance with one memory
    for (inside, fits, expected) in [
        ("", 63, "64 core instances"),
        ("(memory 1)", 1, "2 memories"),
        ("(table 1 funcref)", 8, "8 tables"),
    ] {
        let more = |count: usize| {
            let one = "(core instance (instantiate $more))";
            let more = format!("(core module $more {inside}) {}", one.repeat(count));
            loaded(&host, &component("", "", &more))
        };
        let opened = more(fits).open(&context(), &Limits::default());
        let mut guest = opened.unwrap_or_else(|e| panic!("{inside}: {e}"));
        assert_eq!(run(&mut guest, &rows()), Ok(Outcome::default()));
        drop(guest);
        let text = ends(&host, &more(fits + 1), &Limits::default());
        let over = format!("in `open`: the module went over its limit of {expected}");
        assert!(text.starts_with(&over), "{text}");
    }
}

#[test]
fn asking_for_too_large_a_table_at_the_start() {
    for (elements, expected) in [(20_000, ""), (20_001, "limit of 20000 table elements")] {
        let table = format!("(table $table {elements} funcref)");
        let wat = wat("", "").replace("(table $table 1 funcref)", &table);
        let opened = load(&typed(&wat)).open(&context(), &Limits::default());
        let text = opened.err().map(|e| e.to_string()).unwrap_or_default();
        assert_eq!(text.is_empty(), expected.is_empty(), "{text}");
        assert!(text.contains(expected), "{text}");
    }
}

/// The functions that a module exports.
const ENTRIES: [&str; 4] = ["open", "process", "on-timers", "migrate"];

/// A module that keeps state and takes over older state; `{entry}` is the body of one of its functions,
/// `{entry: after}` what is called when its answer was read. The answer stands at 256; `$fill` writes
/// so many bytes of text at 4096.
const SAYS: &str = r#"(module
  (import "rustmq:etl/data@0.1.0" "[resource-drop]context" (func $context_drop (param i32)))
  (import "rustmq:etl/data@0.1.0" "[resource-drop]batch" (func $batch_drop (param i32)))
  (import "rustmq:etl/data@0.1.0" "[resource-drop]outbox" (func $outbox_drop (param i32)))
  (import "rustmq:etl/data@0.1.0" "[method]batch.len" (func $len (param i32) (result i32)))
  (memory (export "memory") 2)
  (global $heap (mut i32) (i32.const 4096))
  {realloc}
  (func $fill (param $bytes i32) (local $at i32)
    (drop (memory.grow (i32.add (i32.shr_u (local.get $bytes) (i32.const 16)) (i32.const 1))))
    (loop $on
      (i32.store (i32.add (i32.const 4096) (local.get $at)) (i32.const 0xac82e2))
      (local.set $at (i32.add (local.get $at) (i32.const 3)))
      (br_if $on (i32.lt_u (local.get $at) (local.get $bytes)))))
  (func $fail (param $code i32) (param $message i32) (result i32)
    (i32.store (i32.const 256) (i32.const 1))
    (i32.store (i32.const 260) (i32.const 4096))
    (i32.store (i32.const 264) (local.get $code))
    (i32.store (i32.const 268) (i32.const 4096))
    (i32.store (i32.const 272) (local.get $message))
    (i32.const 256))
  (func (export "rustmq:etl/module@0.1.0#open") (param $context i32) (result i32)
    (call $context_drop (local.get $context))
    {open})
  (func (export "rustmq:etl/module@0.1.0#process") (param $rows i32) (param $out i32) (result i32)
    (call $batch_drop (local.get $rows))
    (call $outbox_drop (local.get $out))
    {process})
  (func (export "rustmq:etl/timed@0.1.0#on-timers") (param $rows i32) (param $out i32) (result i32)
    (call $batch_drop (local.get $rows))
    (call $outbox_drop (local.get $out))
    {on-timers})
  (func (export "rustmq:etl/migration@0.1.0#migrate")
      (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
    {migrate})
  (func (export "cabi_post_rustmq:etl/module@0.1.0#open") (param i32) {open: after})
  (func (export "cabi_post_rustmq:etl/module@0.1.0#process") (param i32) {process: after})
  (func (export "cabi_post_rustmq:etl/timed@0.1.0#on-timers") (param i32) {on-timers: after})
  (func (export "cabi_post_rustmq:etl/migration@0.1.0#migrate") (param i32) {migrate: after}))"#;

/// How a call of one of its functions ends, after `dead:` where the guest ended with it; nothing if well.
fn ends_after(host: &Host, entry: &str, (body, after): (&str, &str), limits: &Limits) -> String {
    let mut wat = SAYS.to_owned();
    for name in ENTRIES {
        let (body, after) = match name == entry {
            true => (body, after),
            false => ("(i32.const 0)", ""),
        };
        wat = wat.replace(&format!("{{{name}}}"), body);
        wat = wat.replace(&format!("{{{name}: after}}"), after);
    }
    let section = world::stateful_type_section().expect("wit/ is valid");
    let module = loaded(host, &with_section(&wat, &section));
    let ended = match module.open(&context(), limits) {
        Err(error) => error.to_string(),
        Ok(mut guest) => {
            let keyed = &mut module.keyed(limits, 1);
            let work = input(Batch::new(rows(), (0..3).collect()));
            let answer = match entry {
                "migrate" => guest.migrate(0, &Old::default(), keyed),
                "on-timers" => guest.process_with(work, Entry::Timers, keyed).map(drop),
                _ => guest.process_with(work, Entry::Process, keyed).map(drop),
            };
            let said = answer.err().map(|e| e.to_string()).unwrap_or_default();
            let dead = if guest.is_dead() { "dead: " } else { "" };
            format!("{dead}{said}")
        }
    };
    assert_eq!(host.memory_bytes(), 0, "{entry}");
    ended
}

/// An answer of so many bytes of code and of message, as far as there is memory for them.
fn fail(code: usize, message: usize) -> String {
    let most = code.max(message).min(60_000_000);
    format!("(call $fill (i32.const {most})) (call $fail (i32.const {code}) (i32.const {message}))")
}

/// Limits with so many bytes over the boundary, and time that decides nothing.
fn boundary(bytes: usize) -> Limits {
    Limits {
        output_bytes_max: bytes / 2,
        deadline_ms: Limits::CAPS.deadline_ms,
        open_deadline_ms: Limits::CAPS.open_deadline_ms,
        ..Limits::default()
    }
}

#[test]
fn a_huge_failure_is_cut_and_the_guest_lives_on() {
    let (host, limits) = (alone(), boundary(128 << 20));
    for entry in ENTRIES {
        let place = if entry == "open" { "in `open`: " } else { "" };
        for (code, message, (kept_code, kept)) in [
            (0, 0, (0, 0)),
            (6, 9, (6, 9)),
            // between characters
            (66, 4_098, (63, 4_095)),
            (15_000_000, 15_000_000, (63, 4_095)),
        ] {
            let text = |bytes: usize| "€".repeat(bytes / 3);
            let expected = format!(
                "{place}the module failed: {}: {}",
                text(kept_code),
                text(kept)
            );
            let said = ends_after(&host, entry, (&fail(code, message), ""), &limits);
            assert!(said == expected, "{entry} {code} {message}: {said}");
        }
    }
}

#[test]
fn a_failure_of_more_than_may_cross_ends_the_guest_with_the_name_of_the_limit() {
    let (host, limits) = (alone(), boundary(3_000_000));
    for entry in ENTRIES {
        let place = if entry == "open" { "in `open`" } else { "dead" };
        for (code, message, expected) in [
            // code and message are the same bytes, and count twice
            (1_500_000, 1_500_000, "the module failed: "),
            (
                1_500_000,
                1_500_003,
                "went over its limit of 3000000 bytes that cross the boundary in one call; make",
            ),
            (
                3_000_003,
                0,
                "limit of 3000000 bytes that cross the boundary",
            ),
            (
                0,
                60_000_000,
                "limit of 3000000 bytes that cross the boundary",
            ),
            (4, 3, "trapped: incomplete utf-8 byte sequence"),
            (3, 1 << 30, "trapped: string pointer/length out of bounds"),
        ] {
            let said = ends_after(&host, entry, (&fail(code, message), ""), &limits);
            assert!(said.contains(expected), "{entry} {code} {message}: {said}");
            let is_over = !expected.starts_with("the module failed");
            assert!(!is_over || said.starts_with(place), "{entry}: {said}");
        }
    }
}

#[test]
fn more_than_may_cross_in_a_call_of_the_host_ends_the_guest_with_the_name_of_the_limit() {
    let limits = boundary(3_000_000);
    let reject = |rows: usize, text: usize| {
        let wat = wat("", "").replace(
            "(global.set $heap (i32.const 4096))",
            &format!(
                "(drop (memory.grow (i32.const 64)))
                 (call $reject (local.get $out) (i32.const 1024) (i32.const {rows})
                   (i32.const 1024) (i32.const {text}) (i32.const 1024) (i32.const {text}))"
            ),
        );
        typed(&wat)
    };
    let host = alone();
    let fits = loaded(&host, &reject(0, 1_500_000)).open(&context(), &limits);
    let mut guest = fits.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(run(&mut guest, &rows()), Ok(Outcome::default()));
    drop(guest);
    for (rows, text) in [(0, 1_500_001), (1, 1_500_000), (750_001, 0)] {
        assert_eq!(
            ends(&host, &loaded(&host, &reject(rows, text)), &limits),
            "the module went over its limit of 3000000 bytes that cross the boundary in one call; \
             make the batch smaller (policy.batch), or raise limits.output"
        );
    }
}

#[test]
fn what_goes_on_after_the_answer_was_read_is_contained() {
    let limits = Limits {
        deadline_ms: 20,
        open_deadline_ms: 20,
        ..Limits::default()
    };
    let (host, fails) = (alone(), fail(3, 3));
    for entry in ENTRIES {
        let (alive, dead) = match entry {
            "open" => ("in `open`: ", "in `open`: "),
            _ => ("", "dead: "),
        };
        for (body, after, (place, expected)) in [
            ("(i32.const 0)", "", ("", "")),
            (&fails, "", (alive, "the module failed: €: €")),
            (
                "(i32.const 0)",
                "unreachable",
                (dead, "the module trapped: the code reached"),
            ),
            (
                &fails,
                "unreachable",
                (dead, "the module trapped: the code reached"),
            ),
            (
                "(i32.const 0)",
                "(loop $on (br $on))",
                (dead, "the module used more than 20 ms"),
            ),
            (
                &fails,
                "(loop $on (br $on))",
                (dead, "the module used more than 20 ms"),
            ),
            (
                "(i32.const 0)",
                "(drop (call $len (i32.const 1)))",
                (
                    dead,
                    "the module trapped: wasm trap: cannot leave component instance",
                ),
            ),
            (
                "(i32.const 0)",
                "(drop (memory.grow (i32.const 5000))) unreachable",
                (
                    dead,
                    "the module went over its limit of 67108864 memory bytes",
                ),
            ),
        ] {
            let said = ends_after(&host, entry, (body, after), &limits);
            let expected = format!("{place}{expected}");
            assert!(said.starts_with(&expected), "{entry} {after}: {said}");
            assert_eq!(said.is_empty(), expected.is_empty(), "{entry}: {said}");
        }
    }
}
