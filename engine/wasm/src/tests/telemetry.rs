//! What a guest may tell: numbers that count when the call was good, lines that stay lines.

use std::fmt;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::*;
use crate::{Labels, Metric, Metrics};

/// Memory: 512 names `rows`, `sizes`, `Bad Name`; 544 bounds 1.0 and 10.0, 560 values 0.5, 5.0 and
/// 50.0; 600 the ids 0 and 9, 608 the amount 3; 640 and 680 answers; 720 a text of two lines, 760 a
/// name and a value; 800 an answer `failed`.
const WAT: &str = r#"(module
  (import "rustmq:etl/data@0.1.0" "[resource-drop]context" (func $context_drop (param i32)))
  (import "rustmq:etl/data@0.1.0" "[resource-drop]batch" (func $batch_drop (param i32)))
  (import "rustmq:etl/data@0.1.0" "[resource-drop]outbox" (func $outbox_drop (param i32)))
  (import "rustmq:etl/telemetry@0.1.0" "enabled" (func $enabled (param i32) (result i32)))
  (import "rustmq:etl/telemetry@0.1.0" "log" (func $log (param i32 i32 i32 i32 i32)))
  (import "rustmq:etl/telemetry@0.1.0" "counter" (func $counter (param i32 i32 i32)))
  (import "rustmq:etl/telemetry@0.1.0" "histogram" (func $histogram (param i32 i32 i32 i32 i32)))
  (import "rustmq:etl/telemetry@0.1.0" "add" (func $add (param i32 i32 i32 i32)))
  (import "rustmq:etl/telemetry@0.1.0" "observe" (func $observe (param i32 i32 i32)))
  (memory (export "memory") 20)
  (data (i32.const 512) "rowssizesBad Name")
  (data (i32.const 544) "\00\00\00\00\00\00\f0\3f\00\00\00\00\00\00\24\40")
  (data (i32.const 560) "\00\00\00\00\00\00\e0\3f\00\00\00\00\00\00\14\40\00\00\00\00\00\00\49\40")
  (data (i32.const 600) "\00\00\00\00\09\00\00\00\03\00\00\00\00\00\00\00")
  (data (i32.const 720) "one\0atwo")
  (data (i32.const 730) "kv\1b")
  (data (i32.const 760) "\da\02\00\00\01\00\00\00\db\02\00\00\02\00\00\00")
  (data (i32.const 800) "\01\00\00\00\34\03\00\00\06\00\00\00\34\03\00\00\06\00\00\00failed")
  (global $heap (mut i32) (i32.const 65536))
  {realloc}
  (func (export "rustmq:etl/module@0.1.0#open") (param $context i32) (result i32)
    (local $answer i32)
    {open}
    (call $context_drop (local.get $context))
    (local.get $answer))
  (func (export "rustmq:etl/module@0.1.0#process") (param $rows i32) (param $out i32) (result i32)
    (local $answer i32)
    {process}
    (call $batch_drop (local.get $rows))
    (call $outbox_drop (local.get $out))
    (local.get $answer)))"#;

/// Registers the counter `rows` (0) and the histogram `sizes` (1).
const BOTH: &str = "(call $counter (i32.const 512) (i32.const 4) (i32.const 640))
    (call $histogram (i32.const 516) (i32.const 5) (i32.const 544) (i32.const 2) (i32.const 680))";

/// Adds 3 and observes three values.
const TELL: &str = "(call $add (i32.const 600) (i32.const 1) (i32.const 608) (i32.const 1))
    (call $observe (i32.const 1) (i32.const 560) (i32.const 3))";

const LOG: &str = "(call $log (i32.const 2) (i32.const 720) (i32.const 7) (i32.const 760)
    (i32.const 2))";

fn opened(open: &str, process: &str, metrics: &Metrics, limits: &Limits) -> Result<Guest, String> {
    let wat = WAT.replace("{open}", open).replace("{process}", process);
    let context = OpenContext {
        labels: Labels {
            pipeline: "p".into(),
            node: "n".into(),
            lane: 3,
        },
        metrics: metrics.clone(),
        ..context()
    };
    let opened = load(&typed(&wat)).open(&context, limits);
    opened.map_err(|error| error.to_string())
}

fn guest(process: &str, metrics: &Metrics) -> Guest {
    opened(BOTH, process, metrics, &Limits::default()).expect("it opens")
}

/// The counter, and the histogram's counts and sum.
fn told(metrics: &Metrics) -> (u64, Vec<u64>, f64) {
    let read = metrics.read();
    match (&read["rows"], &read["sizes"]) {
        (Metric::Counter { value }, Metric::Histogram { counts, sum, .. }) => {
            (*value, counts.clone(), *sum)
        }
        other => panic!("a counter and a histogram: {other:?}"),
    }
}

#[test]
fn numbers_count_when_the_call_was_good() {
    let metrics = Metrics::default();
    let mut good = guest(TELL, &metrics);
    assert_eq!(told(&metrics), (0, vec![0, 0, 0], 0.0));
    run(&mut good, &rows()).expect("a good call");
    assert_eq!(told(&metrics), (3, vec![1, 1, 1], 55.5));
    let failing = format!("{TELL} (local.set $answer (i32.const 800))");
    let mut failing = guest(&failing, &metrics);
    run(&mut failing, &rows()).expect_err("it fails");
    let mut dying = guest(&format!("{TELL} unreachable"), &metrics);
    run(&mut dying, &rows()).expect_err("it dies");
    assert_eq!(told(&metrics), (3, vec![1, 1, 1], 55.5));
    // nor does what an `open` counts that fails
    let open = format!(
        "{BOTH} (call $add (i32.const 600) (i32.const 1) (i32.const 608) (i32.const 1))
         (local.set $answer (i32.const 800))"
    );
    assert!(opened(&open, "", &metrics, &Limits::default()).is_err());
    assert_eq!(told(&metrics).0, 3);
    // another instance goes on where the first was
    run(&mut guest(TELL, &metrics), &rows()).expect("a good call");
    assert_eq!(told(&metrics), (6, vec![2, 2, 2], 111.0));
}

#[test]
fn wrong_numbers_end_the_guest() {
    let flood = "(call $observe (i32.const 1) (i32.const 65536) (i32.const 100000))".repeat(10);
    let cases = [
        (
            "(call $add (i32.const 604) (i32.const 1) (i32.const 608) (i32.const 1))",
            "add: no metric has the id 9",
        ),
        (
            "(call $add (i32.const 600) (i32.const 2) (i32.const 608) (i32.const 1))",
            "add: 2 counters and 1 amounts",
        ),
        (
            "(call $observe (i32.const 2) (i32.const 560) (i32.const 3))",
            "observe: no metric has the id 2",
        ),
        (
            &flood,
            "limit of 1000000 additions and observed values in one call",
        ),
        (
            "(call $log (i32.const 2) (i32.const 720) (i32.const 7) (i32.const 760)
               (i32.const 65))",
            "limit of 64 names and values in one line of log",
        ),
    ];
    for (process, expected) in cases {
        let mut guest = guest(process, &Metrics::default());
        let error = run(&mut guest, &rows()).expect_err("it must not succeed");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(guest.is_dead());
    }
}

#[test]
fn names_and_bounds_are_refused_with_a_failure() {
    let cases = [
        (
            "(call $counter (i32.const 521) (i32.const 8) (i32.const 640))",
            "metric: a metric's name is `[a-z][a-z0-9_]*`",
        ),
        (
            "(call $histogram (i32.const 516) (i32.const 5) (i32.const 552) (i32.const 2)
               (i32.const 640))",
            "metric: a histogram's bounds are finite and ascend",
        ),
        (
            "(call $histogram (i32.const 516) (i32.const 5) (i32.const 552) (i32.const 33)
               (i32.const 640))",
            "limit of 32 bounds of a histogram",
        ),
    ];
    for (open, expected) in cases {
        let open = format!("{open} (local.set $answer (i32.const 640))");
        let error = opened(&open, "", &Metrics::default(), &Limits::default());
        let error = error.err().expect("it must not open");
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn lines_go_to_the_log_below_a_rate() {
    let lines = Lines::default();
    // while there are two, a line of a test beside this one does not decide alone that nobody listens
    let _second = tracing::Dispatch::new(lines.clone());
    let process =
        format!("(if (i32.eqz (call $enabled (i32.const 0))) (then unreachable)) {LOG} {LOG}");
    tracing::subscriber::with_default(lines.clone(), || {
        let limits = Limits {
            log_bytes_per_s: 140,
            ..Limits::default()
        };
        let guest = opened("", &process, &Metrics::default(), &limits);
        run(&mut guest.expect("it opens"), &rows()).expect("a good call");
        // an empty line costs what stands around it
        let empty = "(call $log (i32.const 4) (i32.const 720) (i32.const 0) (i32.const 760)
            (i32.const 0))";
        let none = Limits {
            log_bytes_per_s: 0,
            ..Limits::default()
        };
        let empty = opened("", empty, &Metrics::default(), &none);
        run(&mut empty.expect("it opens"), &rows()).expect("a good call");
    });
    // 12 bytes each and 128 beside them: the second has no room in this second
    let line = "INFO message=one two k=v  pipeline=p node=n lane=3";
    assert_eq!(*lines.0.lock().expect("whole"), [line]);
    let mut silent = guest(
        "(if (call $enabled (i32.const 4)) (then unreachable))",
        &Metrics::default(),
    );
    run(&mut silent, &rows()).expect("nobody listens");
}

/// Keeps events of modules as text.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "rustmq::module"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().expect("whole").push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push_str(&format!(" {field}={value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!(" {field}={value:?}"));
    }
}
