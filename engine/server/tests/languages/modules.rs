//! One language at a time: its SDK, a new module, its build, and what goes wrong.
//!
//! Called by: `main`.

use std::fs;
use std::path::Path;

use crate::support::{Said, World, said};
use crate::{keep_target, repository, run, with_tools};

pub fn python_sdk() {
    run(
        "python3",
        &["-m", "unittest"],
        &repository().join("sdk-guest/python"),
    );
    let example = repository().join("examples/languages/modules/comfort");
    run("python3", &["-m", "unittest"], &example);
}

pub fn js_sdk() {
    let sdk = repository().join("sdk-guest/js");
    let tests = ["limits", "rows", "sdk", "state"].map(|name| format!("test/{name}.test.js"));
    let words: Vec<&str> = tests.iter().map(String::as_str).collect();
    run("node", &[&["--test"], &words[..]].concat(), &sdk);
    let example = repository().join("examples/languages/modules/alerts");
    run("node", &["--test", "test/module.test.js"], &example);
}

fn build(world: &World, dir: &str) -> Said {
    with_tools(world, &["module", "build", dir])
}

/// What somebody needs who looks for the failed test, each once on standard error; the command failed.
#[track_caller]
fn shows_once(said: Said, parts: &[&str]) {
    for part in parts {
        let times = said.err.matches(part).count();
        assert_eq!(times, 1, "{part:?} in: {}", said.err);
    }
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    assert!(said.err.ends_with(", as it says above\n"), "{}", said.err);
}

/// A native test that fails: its name, its line and what differs are shown, wherever the language's program
/// writes them. No tools are needed to get there.
fn failing_test(lang: &str, test: &str, parts: &[&str]) {
    let world = World::new();
    world.run(&["module", "new", "tidy", "--lang", lang]).ok();
    let path = format!("tidy/{test}");
    let text = fs::read_to_string(world.path(&path)).unwrap();
    world.write(&path, text.replace("no-value", "another"));
    for asked in ["test", "bench"] {
        let said = world.run(&["module", asked, "tidy"]);
        let words = said.err.replace('_', " ");
        assert!(words.contains("readings become fahrenheit"), "{}", said.err);
        shows_once(said, parts);
    }
}

pub fn python_failing() {
    let parts = [
        "FAIL: test_",
        "test_module.py\", line ",
        "AssertionError: Tuples differ: (1, 'no-value') != (1, 'another')",
        "error: python3 -m unittest fails in",
    ];
    failing_test("python", "tests/test_module.py", &parts);
}

pub fn js_failing() {
    let parts = [
        "test/module.test.js:10:",
        "+   'no-value'",
        "error: npm test fails in",
    ];
    failing_test("js", "test/module.test.js", &parts);
}

/// A Rust module that does something else in the sandbox: the difference is shown.
pub fn rust_cases() {
    let world = World::new();
    keep_target(&world);
    world.run(&["module", "new", "tidy"]).ok();
    let said = world.run(&["module", "test", "tidy"]).ok().out;
    assert_eq!(
        said,
        "1 case, 2 rows: the component does what the native tests say\n"
    );
    let source = world.path("tidy/src/lib.rs");
    let text = fs::read_to_string(&source).unwrap();
    let wrong = "9.0 / 5.0 + if cfg!(target_family = \"wasm\") { 33.0 } else { 32.0 }";
    fs::write(&source, text.replace("9.0 / 5.0 + 32.0", wrong)).unwrap();
    let said = world.run(&["module", "test", "tidy"]);
    let expected = "case 1:\n\
        - row 0 on out: key=- time=0 value={\"sensor\":\"roof\",\"fahrenheit\":68.0}\n\
        + row 0 on out: key=- time=0 value={\"sensor\":\"roof\",\"fahrenheit\":69.0}\n\
        1 case, 2 rows: 1 differ: - native, + component\n";
    assert_eq!(
        (said.code, said.out.as_str()),
        (1, expected),
        "{}",
        said.err
    );

    fs::write(&source, text.replace("\"no-value\")", "\"no\")")).unwrap();
    let said = world.run(&["module", "test", "tidy"]);
    shows_once(
        said,
        &[
            "---- tests::readings_become_fahrenheit stdout ----",
            "panicked at src/lib.rs:",
            "right: (1, \"no\")",
            "error: cargo test fails in",
        ],
    );
    let untested = text.split("#[cfg(test)]").next().unwrap();
    fs::write(&source, untested).unwrap();
    let said = world.run(&["module", "test", "tidy"]);
    let said = said.fails(1, "ran no module");
    assert!(!said.err.contains("warning: "), "{}", said.err);
}

const LANE: &str = r#"
use rustmq::{Batch, Column, Context, Entries, Failure, Outbox, State, Stateful};

/// Sums up by key, and tells what was left ten microseconds after the last.
struct Sums;

impl Stateful for Sums {
    const STATE_SCHEMA: u32 = 2;
    const MIGRATES: &'static [u32] = &[1];

    fn migrate(&mut self, _: u32, old: &Entries, state: &mut State) -> Result<(), Failure> {
        for (key, value) in old.iter() {
            state.put_bytes(key, [value, b"00"].concat());
        }
        Ok(())
    }

    fn open(_: &Context) -> Result<Sums, Failure> {
        Ok(Sums)
    }

    fn process(&mut self, rows: &Batch, _: &mut Outbox, state: &mut State) -> Result<(), Failure> {
        let wrong = |_| Failure::new("sum", "what is kept is no number");
        for row in 0..rows.len() {
            let (meta, value) = (rows.meta(row), rows.values().get(row).unwrap_or_default());
            let key = meta.key().unwrap_or_default();
            let before = state.get::<i64>(key).map_err(wrong)?.unwrap_or_default();
            let number: i64 = String::from_utf8_lossy(value).parse().unwrap_or(WRONG);
            state.put(key, &(before + number)).map_err(wrong)?;
            state.set_timer(key, meta.event_time() + 10);
        }
        Ok(())
    }

    fn on_timers(&mut self, fired: &Batch, out: &mut Outbox, state: &mut State) -> Result<(), Failure> {
        let parents: Vec<u32> = (0..fired.len() as u32).collect();
        let mut sums = Column::new();
        for key in fired.keys().iter() {
            sums.push(state.get_bytes(key.unwrap_or_default()).as_deref());
        }
        out.emit(0, &parents, fired.keys(), &sums);
        Ok(())
    }
}

const WRONG: i64 = if cfg!(target_family = "wasm") { 1000 } else { 0 };

rustmq::export_stateful!(Sums);

#[cfg(test)]
mod tests {
    use rustmq::testing::{Lane, Row, run};

    #[rustmq::filter]
    fn other(_: &[u8]) -> bool {
        true
    }

    #[test]
    fn sums_are_told_when_they_are_over() {
        assert_eq!(run::<other>(["a"]).rows.len(), 1);
        let mut lane = Lane::<super::Sums>::new();
        let row = |key: &str, value: &str, time: i64| Row::new(value).key(key).event_time(time);
        assert!(lane.run([row("a", "1", 1), row("b", VALUE, 2)]).rows.is_empty());
        assert_eq!(lane.run([row("a", "4", 12)]).texts("out"), ["5", "2"]);
        assert_eq!(lane.run([row("c", "0", 30)]).texts("out"), ["5"]);
        drop(lane);
        let mut lane = Lane::<super::Sums>::new().migrate(1, [("a", "3"), ("b", "1")]).expect("it goes");
        assert!(lane.run([row("a", "1", 1)]).rows.is_empty());
        assert_eq!(lane.get::<i64>("a"), Some(301));
    }
}
"#;

/// A module that keeps state is tried batch by batch, with what it kept and its timers; what a test runs
/// besides is no case of it.
pub fn rust_lanes() {
    let world = World::new();
    keep_target(&world);
    world.run(&["module", "new", "sums"]).ok();
    world.write("sums/src/lib.rs", LANE.replace("VALUE", r#""2""#));
    let said = world.run(&["module", "test", "sums"]).ok();
    assert_eq!(
        said.out,
        "2 cases, 5 rows: the component does what the native tests say\n"
    );
    let left_out = "leaving out 1 case of other modules than sums::Sums: sums::tests::other";
    assert!(said.err.contains(left_out), "{}", said.err);

    let wrong = LANE.replace("VALUE", r#""x""#);
    let wrong = wrong.replace(r#""5", "2""#, r#""5", "0""#);
    world.write("sums/src/lib.rs", wrong);
    let said = world.run(&["module", "test", "sums"]);
    let expected = "case 1:\n  batch 2:\n\
        - row 0 on out: key=b time=12 value=0\n\
        + row 0 on out: key=b time=12 value=1000\n  in the end:\n\
        - kept b=0\n\
        + kept b=1000\n\
        2 cases, 5 rows: 1 differ: - native, + component\n";
    assert_eq!(
        (said.code, said.out.as_str()),
        (1, expected),
        "{}",
        said.err
    );

    let only = LANE
        .split("        let mut lane")
        .next()
        .unwrap()
        .to_owned()
        + "    }\n}\n";
    world.write("sums/src/lib.rs", only.replace("{Lane, Row, run}", "run"));
    let part = "ran sums::tests::other through the SDK's `testing`, and not sums::Sums";
    world.run(&["module", "test", "sums"]).fails(1, part);
}

const PYTHON_ROWS: &str = r#"
import rustmq


@rustmq.row(rename={"kind": "type"})
class Flight:
    carrier: str
    flight: int | None
    delay: float | None
    ts: rustmq.Timestamp
    raw: bytes | None
    late: bool | None
    kind: str | None


@rustmq.row
class Seen:
    carrier: str
    next: int
    hours: float | None
    due: rustmq.Timestamp
    raw: bytes | None
    early: bool | None
    kind: str


@rustmq.flat_map
def seen(flight: Flight, meta) -> "list[rustmq.Record[Seen]]":
    if flight.flight is None:
        raise rustmq.Reject("flight", "no number")
    hours = None if flight.delay is None else flight.delay / 60
    early = None if flight.late is None else not flight.late
    made = Seen(flight.carrier, flight.flight + 1, hours, flight.ts + 1, flight.raw, early, flight.kind)
    again = rustmq.Record(made._replace(next=0), key="k", event_time=meta.event_time + 1, headers={"h": "1"})
    return [rustmq.Record(made), again][: 1 + (meta.row == 0)]
"#;

const PYTHON_ROWS_TEST: &str = r#"
import unittest

import rustmq
import rustmq.testing
from module import seen

FLIGHTS = [
    '{"carrier":"é","flight":9007199254740993,"delay":90,"ts":"2013-01-01T05:00:00Z",'
    '"raw":"AAE=","late":true,"type":"x"}',
    '{"carrier":"AA","flight":-1,"ts":0,"type":""}',
    '{"carrier":"AA","flight":1,"ts":0}',
    '{"flight":2,"ts":0}',
    '{"carrier":"AA","ts":0}',
    '{"carrier":7,"ts":0}',
    'not json',
    '{"carrier":"B","flight":3,"delay":1e300,"ts":1,"type":"y"}',
]


@rustmq.map
def other(value):
    return value


class Seen(unittest.TestCase):
    def test_flights(self):
        rustmq.testing.run(other, [1])
        out = rustmq.testing.run(seen, [rustmq.testing.Row(flight, key="f") for flight in FLIGHTS])
        self.assertEqual([row.parent for row in out.rows], [0, 0, 1, 7])
        codes = {2: "encode", 3: "null", 4: "flight", 5: "schema", 6: "schema"}
        self.assertEqual({refused.row: refused.code for refused in out.rejects}, codes)
        rustmq.testing.run(seen, FLIGHTS[1:2] * 3)
"#;

const JS_ROWS: &str = r#"
import { Record, Reject, flatMap } from '#rustmq';

const select = {
  carrier: 'string', flight: 'int64?', delay: 'float64?', ts: 'timestamp', raw: 'bytes?',
  late: 'bool?', type: 'string?',
};
const declare = {
  carrier: 'string', next: 'int64', hours: 'float64?', due: 'timestamp', raw: 'bytes?',
  early: 'bool?', type: 'string',
};

export default flatMap(
  ({ carrier, flight, delay, ts, raw, late, type }, meta) => {
    if (flight === null) throw new Reject('flight', 'no number');
    const [hours, early] = [delay === null ? null : delay / 60, late === null ? null : !late];
    const made = { carrier, next: flight + 1, hours, due: ts + 1, raw, early, type };
    if (meta.row > 0) return [made];
    const more = { key: 'k', eventTime: meta.eventTime + 1, headers: { h: '1' } };
    return [new Record(made), new Record({ ...made, next: 0 }, more)];
  },
  { select, declare },
);
"#;

const JS_ROWS_TEST: &str = r#"
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { map } from '#rustmq';
import { Row, run } from '#rustmq/testing';
import seen from '../module.js';

const flights = [
  '{"carrier":"é","flight":9007199254740990,"delay":90,"ts":"2013-01-01T05:00:00Z",' +
  '"raw":"AAE=","late":true,"type":"x"}',
  '{"carrier":"AA","flight":-1,"ts":0,"type":""}',
  '{"carrier":"AA","flight":1,"ts":0}',
  '{"flight":2,"ts":0}',
  '{"carrier":"AA","ts":0}',
  '{"carrier":7,"ts":0}',
  'not json',
  '{"carrier":"B","flight":3,"delay":1e300,"ts":1,"type":"y"}',
];

test('flights', () => {
  run(map((value) => value), [1]);
  const out = run(seen, flights.map((flight) => new Row(flight, { key: 'f' })));
  assert.deepEqual(out.rows.map((row) => row.parent), [0, 0, 1, 7]);
  const codes = [[2, 'encode'], [3, 'null'], [4, 'flight'], [5, 'schema'], [6, 'schema']];
  assert.deepEqual(out.rejects.map(({ row, code }) => [row, code]), codes);
  run(seen, [flights[1], flights[1], flights[1]]);
});
"#;

/// Typed columns of every type, with nulls, letters of several bytes and rows that do not fit: the
/// component does what the native run does. What the test runs besides is no case.
fn rows(lang: &str, module: (&str, &str), test: (&str, &str)) {
    let world = World::new();
    world.run(&["module", "new", "seen", "--lang", lang]).ok();
    for (file, text) in [module, test] {
        world.write(&format!("seen/{file}"), text);
    }
    let said = with_tools(&world, &["module", "test", "seen"]).ok().out;
    assert_eq!(
        said,
        "2 cases, 11 rows: the component does what the native tests say\n"
    );
}

pub fn python_rows() {
    let test = ("tests/test_module.py", PYTHON_ROWS_TEST);
    rows("python", ("module.py", PYTHON_ROWS), test);
}

pub fn js_rows() {
    let test = ("test/module.test.js", JS_ROWS_TEST);
    rows("js", ("module.js", JS_ROWS), test);
}

/// The code of a language in a section of the page on modules, in order.
pub(crate) fn documented(section: &str, lang: &str) -> Vec<String> {
    let page = fs::read_to_string(repository().join("docs/modules.md")).unwrap();
    let (_, text) = page.split_once(&format!("## {section}\n")).unwrap();
    let (text, _) = text.split_once("\n## ").unwrap();
    let begin = format!("```{lang}\n");
    let blocks = text.split(&begin).skip(1);
    let code = |block: &str| block.split_once("```").unwrap().0.to_owned();
    blocks.map(code).collect()
}

pub fn python_documented() {
    let [rows, whole] = &documented("Typed columns", "python")[..] else {
        panic!("a function over rows, then whole columns");
    };
    let test = r#"
import unittest

import rustmq.testing
from module import late

FLIGHTS = [
    '{"carrier":"UA","dep_delay":90,"ts":"2013-01-01T05:00:00Z"}', '{"carrier":"AA","ts":0}',
    '{"carrier":"AA","dep_delay":1.5,"ts":0}', '{"carrier":"B6","dep_delay":30,"ts":1}',
]


class Late(unittest.TestCase):
    def test_flights(self):
        out = rustmq.testing.run(late, FLIGHTS)
        self.assertEqual(out.texts(), [
            '{"carrier":"UA","hours":1.5,"ts":"2013-01-01T05:00:00.000000Z"}',
            '{"carrier":"B6","hours":0.5,"ts":"1970-01-01T00:00:00.000001Z"}',
        ])
"#;
    for module in [rows.clone(), format!("{rows}\n{whole}")] {
        let world = World::new();
        world
            .run(&["module", "new", "late", "--lang", "python"])
            .ok();
        world.write("late/module.py", module);
        world.write("late/tests/test_module.py", test);
        run("python3", &["-m", "unittest"], &world.path("late"));
    }
}

pub fn js_documented() {
    let [rows, whole] = &documented("Typed columns", "js")[..] else {
        panic!("a function over rows, then whole columns");
    };
    let test = r#"
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { run } from '#rustmq/testing';
import late from '../module.js';

const flights = [
  '{"carrier":"UA","dep_delay":90,"ts":"2013-01-01T05:00:00Z"}', '{"carrier":"AA","ts":0}',
  '{"carrier":"AA","dep_delay":1.5,"ts":0}', '{"carrier":"B6","dep_delay":30,"ts":1}',
];

test('flights', () => {
  assert.deepEqual(run(late, flights).texts(), [
    '{"carrier":"UA","hours":1.5,"ts":"2013-01-01T05:00:00.000000Z"}',
    '{"carrier":"B6","hours":0.5,"ts":"1970-01-01T00:00:00.000001Z"}',
  ]);
});
"#;
    let (head, _) = rows.split_once("export default").unwrap();
    for module in [rows.clone(), format!("{head}{whole}")] {
        let world = World::new();
        world.run(&["module", "new", "late", "--lang", "js"]).ok();
        world.write("late/module.js", module);
        world.write("late/test/module.test.js", test);
        run("npm", &["test"], &world.path("late"));
    }
}

/// Made, tested natively, built, inspected; then broken, and the error has its line.
fn new_test_build(lang: &str, test: (&str, &[&str]), broken: (&str, &str), says: &[&str]) {
    let world = World::new();
    world.run(&["module", "new", "tidy", "--lang", lang]).ok();
    let dir = world.path("tidy");
    run(test.0, test.1, &dir);
    let built = build(&world, "tidy").ok();
    assert_eq!(built.out, "tidy/build/tidy.wasm\n");
    assert!(
        built.err.contains("building ") && built.err.contains("wrote "),
        "{}",
        built.err
    );
    // the tools would make another component of the same source
    let component = || fs::read(world.path("tidy/build/tidy.wasm")).unwrap();
    let first = component();
    let again = build(&world, "tidy").ok().err;
    assert!(again.contains("is made of the same already"), "{again}");
    assert!(component() == first, "the same component");
    let info = world
        .run(&["module", "inspect", "tidy/build/tidy.wasm", "--json"])
        .ok()
        .out;
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    let imports = info["imports"].as_array().unwrap();
    let ours = |name: &serde_json::Value| name.as_str().unwrap().starts_with("rustmq:etl/");
    assert!(imports.iter().all(ours), "{info}");
    assert_eq!(info["describe"]["name"], "tidy");
    assert_eq!(info["describe"]["version"], "0.1.0");

    let tried = with_tools(&world, &["module", "test", "tidy"]).ok().out;
    assert_eq!(
        tried,
        "1 case, 2 rows: the component does what the native tests say\n"
    );
    let timed = with_tools(&world, &["module", "bench", "tidy", "--json"])
        .ok()
        .out;
    let timed: serde_json::Value = serde_json::from_str(&timed).unwrap();
    let positive = |name: &str| timed[0][name].as_f64().is_some_and(|ns| ns > 0.0);
    assert!(positive("native_ns") && positive("component_ns"), "{timed}");

    let source = dir.join(broken.0);
    let text = fs::read_to_string(&source).unwrap();
    assert!(text.contains(broken.1), "{text}");
    fs::write(&source, text.replacen(broken.1, "import ) from", 1)).unwrap();
    let refused = build(&world, "tidy");
    for part in says {
        assert!(
            refused.err.contains(part),
            "no {part:?} in: {}",
            refused.err
        );
    }
    refused.fails(1, "could not build");
}

pub fn python() {
    let test = ("python3", &["-m", "unittest"][..]);
    let says = ["module.py\", line 3", "SyntaxError"];
    new_test_build("python", test, ("module.py", "import rustmq"), &says);
}

pub fn js() {
    let test = ("npm", &["test"][..]);
    let says = ["module.js:3:", "PARSE_ERROR"];
    new_test_build(
        "js",
        test,
        ("module.js", "import { map, Reject } from"),
        &says,
    );
}

/// What comes in is of another realm than the module's own arrays; it is bytes all the same.
pub fn js_bytes() {
    let world = World::new();
    world.run(&["module", "new", "raw", "--lang", "js"]).ok();
    let module = "import { map } from '#rustmq';\n\n\
                  export default map((value) => value, { value: 'bytes' });\n";
    world.write("raw/module.js", module);
    let test = "import { test } from 'node:test';\nimport raw from '../module.js';\n\
                import { run } from '#rustmq/testing';\n\n\
                test('as it came', () => void run(raw, ['as it came']));\n";
    world.write("raw/test/module.test.js", test);
    let said = with_tools(&world, &["module", "test", "raw"]).ok().out;
    assert_eq!(
        said,
        "1 case, 1 row: the component does what the native tests say\n"
    );
}

/// The error says what to do, and nothing half installed is left.
fn unreachable(lang: &str, settings: &[(&str, &str)]) {
    let world = World::new();
    world.run(&["module", "new", "tidy", "--lang", lang]).ok();
    let mut command = world.command(&["module", "build", "tidy"]);
    command.env("RUSTMQ_TOOLS", world.path("tools"));
    command.env("npm_config_cache", world.path("npm"));
    command.envs(settings.iter().copied());
    let refused = said(command.output().unwrap());
    assert!(
        refused.err.contains("cannot install componentize-"),
        "{}",
        refused.err
    );
    assert!(!Path::new(&world.path("tidy/build")).exists());
    assert_eq!(fs::read_dir(world.path("tools")).unwrap().count(), 0);
    refused.fails(1, "set ");
}

pub fn python_unreachable() {
    let nowhere = [
        ("PIP_INDEX_URL", "http://127.0.0.1:9/"),
        ("PIP_RETRIES", "0"),
        ("PIP_FIND_LINKS", ""),
        ("PIP_NO_CACHE_DIR", "1"),
    ];
    unreachable("python", &nowhere);
}

pub fn js_unreachable() {
    let nowhere = [
        ("npm_config_registry", "http://127.0.0.1:9/"),
        ("npm_config_fetch_retries", "0"),
    ];
    unreachable("js", &nowhere);
}
