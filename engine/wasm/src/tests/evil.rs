//! What no guest can do: each evil ends the guest, with a message, and nothing else.

use super::*;
use crate::OpenError;

/// The error of a process body, as text; the guest must be dead after it.
fn ends(process: &str) -> String {
    ends_with(process, &Limits::default())
}

fn ends_with(process: &str, limits: &Limits) -> String {
    let mut guest = open(&guest("", process), limits);
    let error = run(&mut guest, &rows()).expect_err("it must not succeed");
    assert!(guest.is_dead());
    assert_eq!(run(&mut guest, &rows()), Err(ProcessError::Dead));
    error.to_string()
}

fn check(process: &str, expected: &str) {
    let text = ends(process);
    assert!(text.contains(expected), "{text}");
}

const SPIN: &str = "(loop $on (br $on))";

#[test]
fn spinning() {
    let limits = Limits {
        deadline_ms: 20,
        open_deadline_ms: 20,
        ..Limits::default()
    };
    let text = ends_with(SPIN, &limits);
    assert!(text.contains("more than 20 ms"), "{text}");
    let module = load(&guest(SPIN, ""));
    let spun = module.open(&context(), &limits).err();
    assert_eq!(
        spun,
        Some(OpenError::Run(ProcessError::Deadline { limit_ms: 20 }))
    );
}

#[test]
fn spinning_by_calls() {
    let limits = Limits {
        deadline_ms: 20,
        ..Limits::default()
    };
    let text = ends_with(
        "(loop $on (drop (call $len (local.get $rows))) (br $on))",
        &limits,
    );
    assert!(text.contains("more than 20 ms"), "{text}");
}

#[test]
fn spinning_in_the_start_function() {
    let wat = wat("", "").replace(
        "(func $deep_inside unreachable)",
        "(func $deep_inside (loop $on (br $on))) (start $deep_inside)",
    );
    let limits = Limits {
        open_deadline_ms: 20,
        ..Limits::default()
    };
    let spun = load(&typed(&wat)).open(&context(), &limits).err();
    assert_eq!(
        spun,
        Some(OpenError::Run(ProcessError::Deadline { limit_ms: 20 }))
    );
}

#[test]
fn eating_memory() {
    check(
        "(loop $on
           (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
         unreachable",
        "limit of 67108864 memory bytes",
    );
}

#[test]
fn failing_for_want_of_memory() {
    let fails = "(loop $on
           (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
         (local.set $answer (i32.const 64))";
    check(fails, "limit of 67108864 memory bytes");
    let module = load(&guest(fails, ""));
    let error = module.open(&context(), &Limits::default()).err();
    let limit = ProcessError::Limit {
        what: "memory bytes",
        limit: 67_108_864,
    };
    assert_eq!(error, Some(OpenError::Run(limit)));
}

/// What a language throws for want of memory refuses one row in most SDKs; the call is good otherwise.
#[test]
fn a_row_that_failed_for_want_of_memory_ends_the_guest() {
    let row =
        |code: &str| format!("(i32.const 128) (i32.const 1) {code} (i32.const 176) (i32.const 3)");
    let refusing = |code: &str| format!("(call $reject (local.get $out) {})", row(code));
    let thrown = refusing("(i32.const 232) (i32.const 5)");
    let said = refusing("(i32.const 176) (i32.const 3)");
    let denied = "(drop (memory.grow (i32.const 5000)))";
    let ended = |body: String| {
        let wat = wat("", &body).replace(
            r#"(data (i32.const 224) "\ff\fe\fd")"#,
            r#"(data (i32.const 224) "\ff\fe\fd") (data (i32.const 232) "error")"#,
        );
        let mut guest = open(&typed(&wat), &Limits::default());
        let ended = run(&mut guest, &rows());
        (ended.map(|outcome| text(&outcome)), guest.is_dead())
    };
    let limit = ProcessError::Limit {
        what: "memory bytes",
        limit: 67_108_864,
    };
    assert_eq!(ended(format!("{denied} {thrown}")), (Err(limit), true));
    // memory was not refused, or the module has a code for it, or it did without
    let rejected = |code: &str| -> (Result<_, ProcessError>, bool) {
        (Ok(format!("reject [0] {code}: abc\n")), false)
    };
    assert_eq!(ended(thrown), rejected("error"));
    assert_eq!(ended(format!("{denied} {said}")), rejected("abc"));
    assert_eq!(ended(denied.to_owned()), (Ok(String::new()), false));
}

/// How many calls go well until the guest is swollen, if `calls` are enough.
fn swollen_after(process: &str, calls: usize) -> Option<usize> {
    let mut guest = open(&guest("", process), &Limits::default());
    (1..=calls).find(|_| {
        run(&mut guest, &rows()).expect("it goes well");
        guest.is_swollen()
    })
}

#[test]
fn growing_from_call_to_call_is_seen_in_time() {
    // a MiB a call: the first leaves 62.9, and 48 more are above three quarters of that
    let leaks = "(drop (memory.grow (i32.const 16)))";
    assert_eq!(swollen_after(leaks, 64), Some(49));
    // much at once, and then no more
    let roomy = "(if (i32.lt_u (memory.size) (i32.const 960))
                   (then (drop (memory.grow (i32.const 958)))))";
    assert_eq!(swollen_after(roomy, 200), None);
    assert_eq!(swollen_after("", 200), None);
}

#[test]
fn asking_for_too_much_memory_at_the_start() {
    let wat = wat("", "").replace(
        "(memory (export \"memory\") 2)",
        "(memory (export \"memory\") 2000)",
    );
    let refused = load(&typed(&wat))
        .open(&context(), &Limits::default())
        .err();
    let text = refused.map(|e| e.to_string()).unwrap_or_default();
    assert!(text.contains("limit of 67108864 memory bytes"), "{text}");
}

#[test]
fn eating_tables() {
    check(
        "(loop $on
           (br_if $on (i32.ne (table.grow $table (ref.null func) (i32.const 64)) (i32.const -1))))
         unreachable",
        "limit of 20000 table elements",
    );
}

#[test]
fn recursing() {
    check("(drop (call $again))", "the call stack is exhausted");
}

#[test]
fn trapping_shows_the_functions() {
    let text = ends("(call $deep_inside)");
    assert!(
        text.starts_with("the module trapped: the code reached `unreachable`"),
        "{text}"
    );
    assert!(text.contains("\n  in deep_inside\n  in process"), "{text}");
}

#[test]
fn trapping_in_open() {
    let error = load(&guest("(call $deep_inside)", ""))
        .open(&context(), &Limits::default())
        .err();
    let text = error.map(|e| e.to_string()).unwrap_or_default();
    assert!(text.starts_with("in `open`: the module trapped"), "{text}");
}

#[test]
fn failing_in_open() {
    let error = load(&guest("(local.set $answer (i32.const 64))", ""));
    let error = error.open(&context(), &Limits::default()).err();
    let text = error.map(|e| e.to_string()).unwrap_or_default();
    assert_eq!(text, "in `open`: the module failed: failed: on purpose");
}

#[test]
fn last_words_are_told() {
    check(
        "(call $reject (local.get $out) (i32.const 0) (i32.const 0)
           (i32.const 176) (i32.const 0) (i32.const 176) (i32.const 3))
         (call $deep_inside)",
        "the module trapped: abc\n  in deep_inside",
    );
}

#[test]
fn rows_that_are_not_there() {
    let rows = "(i32.const 140) (i32.const 1)";
    check(
        &format!("(call $forward (local.get $out) (i32.const 0) {rows})"),
        "forward: row 9, but the batch has 3 rows",
    );
    check(
        &format!(
            "(call $reject (local.get $out) {rows}
               (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))"
        ),
        "reject: row 9, but the batch has 3 rows",
    );
}

#[test]
fn ports_that_are_not_there() {
    check(
        "(call $forward (local.get $out) (i32.const 2) (i32.const 128) (i32.const 1))",
        "forward: port 2, but the node has 2 outputs",
    );
}

#[test]
fn lists_outside_memory() {
    check(
        "(call $forward (local.get $out) (i32.const 0) (i32.const 128) (i32.const 0x7ffffff))",
        "out of bounds",
    );
}

/// An emit of two rows with these values: offsets (at, count), data length, validity length.
pub(super) fn emit(offsets: &str, data: usize, validity: usize) -> String {
    format!(
        "(call $emit (local.get $out) (i32.const 0) (i32.const 128) (i32.const 2)
           (i32.const 160) (i32.const 3) (i32.const 176) (i32.const 3)
           (i32.const 0) (i32.const 0)
           {offsets} (i32.const 176) (i32.const {data})
           (i32.const 176) (i32.const {validity}))"
    )
}

#[test]
fn columns_that_lie() {
    let at = |address: u32, count: u32| format!("(i32.const {address}) (i32.const {count})");
    assert!(process(&emit(&at(160, 3), 3, 0)).is_ok());
    for (body, expected) in [
        (
            emit(&at(160, 2), 3, 0),
            "emit: values: 2 offsets for 2 rows",
        ),
        (
            emit(&at(208, 3), 3, 0),
            "emit: values: the first offset is 1",
        ),
        (
            emit(&at(192, 3), 1, 0),
            "emit: values: offsets of row 1 go backwards (3 then 1)",
        ),
        (
            emit(&at(160, 3), 2, 0),
            "emit: values: the last offset is 3, but there are 2 bytes",
        ),
        (
            emit(&at(160, 3), 3, 2),
            "emit: values: validity has 2 bytes, 2 rows need 1",
        ),
    ] {
        check(&body, expected);
    }
}

#[test]
fn headers_and_times_of_nothing() {
    check(
        "(call $set_times (local.get $out) (i32.const 128) (i32.const 0))",
        "set-event-times: there is no emit before it",
    );
    let two = emit("(i32.const 160) (i32.const 3)", 3, 0);
    check(
        &format!("{two} (call $set_times (local.get $out) (i32.const 128) (i32.const 1))"),
        "set-event-times: 1 times for 2 rows",
    );
}

#[test]
fn text_that_is_none() {
    check(
        "(call $reject (local.get $out) (i32.const 128) (i32.const 1)
           (i32.const 224) (i32.const 3) (i32.const 176) (i32.const 3))",
        "text that is not UTF-8",
    );
}

#[test]
fn flooding_the_outbox() {
    check(
        "(loop $on
           (call $forward (local.get $out) (i32.const 0) (i32.const 128) (i32.const 0))
           (br $on))",
        "limit of 1048576 output bytes in one call",
    );
    let limits = Limits {
        output_bytes_max: 1000,
        ..Limits::default()
    };
    let flood = "(call $forward (local.get $out) (i32.const 0) (i32.const 1024) (i32.const 300))";
    let text = ends_with(flood, &limits);
    assert!(
        text.contains("limit of 1000 output bytes in one call"),
        "{text}"
    );
}

/// A row with this key and header.
fn heavy(key: usize, header: usize) -> Rows {
    let mut builder = RowsBuilder::new();
    let (key, header) = (vec![b'k'; key], vec![b'h'; header]);
    builder.push(1, Some(&key), Some(b"v"), &[("h", Some(&header))]);
    builder.push(2, None, Some(b"v"), &[]);
    builder.push(3, None, Some(b"v"), &[]);
    builder.finish()
}

#[test]
fn copying_what_a_row_inherits() {
    let forward = "(call $forward (local.get $out) (i32.const 0) (i32.const 128) (i32.const 1))";
    let emit = emit("(i32.const 160) (i32.const 3)", 3, 0);
    let one = (100_000, 100_000);
    for (call, (key, header)) in [(forward, one), (&emit[..], (0, 100_000))] {
        // to pass it on is not dear, even if no more comes out than went in
        let limits = Limits {
            output_ratio_max: 1,
            ..Limits::default()
        };
        let rows = heavy(key * 20, header * 20);
        let once = run(&mut open(&guest("", call), &limits), &rows);
        once.unwrap_or_else(|e| panic!("{e}"));
        let mut guest = open(&guest("", &call.repeat(100)), &Limits::default());
        let many = run(&mut guest, &heavy(key, header));
        let text = many.expect_err("it is too much").to_string();
        assert!(text.contains("output bytes in one call"), "{text}");
    }
}

#[test]
fn keeping_what_was_lent() {
    let wat = wat("", "").replace("(call $batch_drop (local.get $rows))", "");
    let mut guest = open(&typed(&wat), &Limits::default());
    let text = run(&mut guest, &rows())
        .expect_err("it keeps a borrow")
        .to_string();
    assert!(text.contains("borrow"), "{text}");
    assert!(guest.is_dead());
}

#[test]
fn handles_out_of_thin_air() {
    check("(drop (call $len (i32.const 77)))", "handle");
}

#[test]
fn allocating_outside_memory() {
    let wat = wat("", "(call $values (local.get $rows) (i32.const 256))").replace(
        "(local.get $at))\n  (func $again",
        "(i32.const -8))\n  (func $again",
    );
    let mut guest = open(&typed(&wat), &Limits::default());
    let text = run(&mut guest, &rows())
        .expect_err("it lies about memory")
        .to_string();
    assert!(text.contains("realloc"), "{text}");
}
