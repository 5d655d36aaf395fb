//! Modules in Python and JavaScript that keep state: their lanes through the component, and one state that
//! goes from a version in Rust to one in Python and one in JavaScript.
//!
//! Called by: `main`.

use std::fs;

use serde_json::{Value, json};

use crate::modules::documented;
use crate::pipeline::records;
use crate::support::{World, wait};
use crate::{keep_target, run, with_tools};

/// Sums up by key, tells a sum when its key was quiet for ten microseconds, and lists what is kept; kept
/// in euros until schema 1, as text in cents until schema 2.
const PYTHON: &str = r#"
import rustmq


@rustmq.flat_map(state_schema=3)
def spent(order, meta, state, params):
    kept = state.get(meta.key, {"cents": 0})
    if "until" in kept:
        state.clear_timer(meta.key, kept["until"])
    kept = {"cents": kept["cents"] + order["cents"], "until": meta.event_time + params.get("quiet", 10)}
    state.put(meta.key, kept)
    state.set_timer(meta.key, kept["until"])
    state.put_bytes(b"last\xff", meta.key)
    if order["cents"] < 0:
        raise rustmq.Reject("negative", f"{kept['cents']} cents are left")
    if order.get("list"):
        yield ",".join(key.decode() for key, _ in state.scan("a"))
        yield ",".join(value.decode() for _, value in state.scan_bytes("last", limit=1))


@spent.on_timer
def quiet(key, time, state):
    kept = state.get(key)
    state.delete(key)
    if kept["cents"] == 13:
        raise rustmq.Reject("thirteen", key.decode())
    yield rustmq.Record(kept["cents"], key=b"quiet " + key, event_time=time + 1)


@spent.migrate(1)
def euros(key, euros, state):
    state.put(key, {"cents": euros * 100})


@spent.migrate(2)
def cents(key, cents: bytes, state):
    state.put(key, {"cents": int(cents)})
    state.set_timer(key, 5)
"#;

const PYTHON_TEST: &str = r#"
import unittest

import module
import rustmq.testing
from rustmq.testing import Lane, Row


def row(key, cents, time, **more):
    return Row({"cents": cents, **more}, key=key, event_time=time)


class Spent(unittest.TestCase):
    def test_sums(self):
        lane = Lane(module.spent, lateness_us=2)
        orders = [row("ann", 1, 1), row("bob", 5, 2), row("ann", -3, 3), row("ann", 2, 4, list=True), "{"]
        out = lane.run(orders)
        self.assertEqual(out.json(), ["ann", "ann"])
        self.assertEqual([refused.row for refused in out.rejects], [2, 4])
        self.assertEqual(lane.timers, [(12, b"bob"), (14, b"ann")])
        out = lane.run([row("al", 13, 5), row("a\u00e9", 7, 20, list=True)])
        self.assertEqual([told.text for told in out.rows], ['"al,ann,a\u00e9"', '"a\u00e9"', "5", "3"])
        self.assertEqual([refused.message for refused in out.rejects], ["al"])
        lane.run([row("bob", 1, 40)])
        self.assertEqual(lane.keys, [b"al", b"bob", b"last\xff"])

    def test_older_versions(self):
        old = {f"k{number:04}": number for number in range(2100)}
        lane = Lane(module.spent, params={"quiet": 3}).migrate(1, old)
        lane.run([row("k0007", 1, 9)])
        self.assertEqual(lane.get("k0007"), {"cents": 701, "until": 12})
        out = Lane(module.spent).migrate(2, {"ann": "150", b"\xff": b"2"}).run([row("bob", 1, 9)])
        self.assertEqual([told.key for told in out.rows], [b"quiet ann", b"quiet \xff"])
        self.assertEqual(out.texts(), ["150", "2"])


class Nobody(unittest.TestCase):
    def test_one_batch(self):
        self.assertEqual(rustmq.testing.run(module.spent, [row(None, 1, 1)]).rejects[0].code, "key")
"#;

const JS: &str = r#"
import { Record, Reject, flatMap } from '#rustmq';

const text = (bytes) => new TextDecoder().decode(bytes);
const last = Uint8Array.of(108, 97, 115, 116, 255);

export default flatMap(
  (order, { key, eventTime }, state, params) => {
    const before = state.get(key) ?? { cents: 0 };
    if (before.until !== undefined) state.clearTimer(key, before.until);
    const kept = { cents: before.cents + order.cents, until: eventTime + (params.quiet ?? 10) };
    state.put(key, kept);
    state.setTimer(key, kept.until);
    state.putBytes(last, key);
    if (order.cents < 0) throw new Reject('negative', `${kept.cents} cents are left`);
    if (!order.list) return [];
    const keys = state.scan('a').map(([name]) => text(name));
    return [keys.join(), state.scanBytes('last', { limit: 1 }).map(([, value]) => text(value)).join()];
  },
  {
    stateSchema: 3,
    onTimer(key, time, state) {
      const { cents } = state.get(key);
      state.delete(key);
      if (cents === 13) throw new Reject('thirteen', text(key));
      const told = Uint8Array.of(...new TextEncoder().encode('quiet '), ...key);
      return [new Record(cents, { key: told, eventTime: time + 1 })];
    },
    migrate: {
      1: (key, euros, state) => state.put(key, { cents: euros * 100 }),
      2: {
        value: 'bytes',
        each(key, cents, state) {
          state.put(key, { cents: Number(text(cents)) });
          state.setTimer(key, 5);
        },
      },
    },
  },
);
"#;

const JS_TEST: &str = r#"
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Lane, Row, run } from '#rustmq/testing';
import spent from '../module.js';

const row = (key, cents, eventTime, more) => new Row({ cents, ...more }, { key, eventTime });

test('sums', () => {
  const lane = new Lane(spent, { latenessUs: 2 });
  const last = row('ann', 2, 4, { list: true });
  const orders = [row('ann', 1, 1), row('bob', 5, 2), row('ann', -3, 3), last, '{'];
  let out = lane.run(orders);
  assert.deepEqual(out.json(), ['ann', 'ann']);
  assert.deepEqual(out.rejects.map((refused) => refused.row), [2, 4]);
  assert.deepEqual(lane.timers, [[12, 'bob'], [14, 'ann']]);
  out = lane.run([row('al', 13, 5), row('aé', 7, 20, { list: true })]);
  assert.deepEqual(out.texts(), ['"al,ann,aé"', '"aé"', '5', '3']);
  assert.deepEqual(out.rejects.map(({ message }) => message), ['al']);
  lane.run([row('bob', 1, 40)]);
  assert.deepEqual(lane.keys.slice(0, 2), ['al', 'bob']);
});

test('older versions', () => {
  const old = Array.from({ length: 2100 }, (_, i) => [`k${String(i).padStart(4, '0')}`, i]);
  const lane = new Lane(spent, { params: { quiet: 3 } }).migrate(1, new Map(old));
  lane.run([row('k0007', 1, 9)]);
  assert.deepEqual(lane.get('k0007'), { cents: 701, until: 12 });
  const older = new Map([['ann', '150'], [Uint8Array.of(255), '2']]);
  const out = new Lane(spent).migrate(2, older).run([row('bob', 1, 9)]);
  assert.deepEqual(out.texts(), ['150', '2']);
});

test('one batch', () => {
  assert.equal(run(spent, [new Row({ cents: 1 })]).rejects[0].code, 'key');
});
"#;

/// The world is the one that the module needs, and the section says what it keeps.
fn inspected(world: &World, name: &str, keeps: Value) {
    let component = format!("{name}/build/{name}.wasm");
    let info = world.run(&["module", "inspect", &component, "--json"]).ok();
    let info: Value = serde_json::from_str(&info.out).unwrap();
    let described = &info["describe"];
    let said = json!([
        info["world"],
        described["state_schema"],
        described["migrates"]
    ]);
    assert_eq!(said, keeps, "{info}");
}

/// What the native lanes say is what the component does: batches, refused rows, timers, migrations.
fn lanes(lang: &str, module: (&str, &str), test: (&str, &str)) {
    let world = World::new();
    world.run(&["module", "new", "spent", "--lang", lang]).ok();
    for (file, text) in [module, test] {
        world.write(&format!("spent/{file}"), text);
    }
    let said = with_tools(&world, &["module", "test", "spent"]).ok().out;
    assert_eq!(
        said,
        "4 cases, 11 rows: the component does what the native tests say\n"
    );
    let keeps = json!([
        format!("rustmq:etl/migrating@{}", wasm::world::VERSION),
        3,
        [1, 2]
    ]);
    inspected(&world, "spent", keeps);
}

pub fn python_lanes() {
    let test = ("tests/test_module.py", PYTHON_TEST);
    lanes("python", ("module.py", PYTHON), test);
}

pub fn js_lanes() {
    let test = ("test/module.test.js", JS_TEST);
    lanes("js", ("module.js", JS), test);
}

const PYTHON_DOCUMENTED: [&str; 3] = [
    r#"
lane = Lane(module.count)
assert lane.run([Row({}, key="ann"), Row({}, key="bob"), Row({}, key="ann")]).json() == [1, 1, 2]
assert lane.get("ann") == 2
"#,
    r#"
lane = Lane(module.minutes)
assert lane.run([Row({}, key="roof", event_time=1), Row({}, key="roof", event_time=59_000_000)]).rows == []
out = lane.run([Row({}, key="roof", event_time=61_000_000)])
assert out.json() == [{"sensor": "roof", "count": 2}] and out.rows[0].event_time == 60_000_000
"#,
    r#"
lane = Lane(module.spent).migrate(2, {"ann": "150"})
assert lane.run([Row({"cents": 5}, key="ann")]).json() == [{"cents": 155, "currency": "EUR"}]
assert Lane(module.spent).migrate(1, {"ann": "2"}).get("ann")["cents"] == 200
"#,
];

const JS_DOCUMENTED: [&str; 3] = [
    r#"
const lane = new Lane(module);
assert.deepEqual(lane.run([row('ann'), row('bob'), row('ann')]).json(), [1, 1, 2]);
assert.equal(lane.get('ann'), 2);
"#,
    r#"
const lane = new Lane(module);
assert.deepEqual(lane.run([row('roof', {}, 1), row('roof', {}, 59_000_000)]).rows, []);
const out = lane.run([row('roof', {}, 61_000_000)]);
assert.deepEqual(out.json(), [{ sensor: 'roof', count: 2 }]);
"#,
    r#"
const lane = new Lane(module).migrate(2, { ann: '150' });
assert.deepEqual(lane.run([row('ann', { cents: 5 })]).json(), [{ cents: 155, currency: 'EUR' }]);
assert.equal(new Lane(module).migrate(1, { ann: '2' }).get('ann').cents, 200);
"#,
];

/// The page's modules do what it says of them.
pub fn python_documented() {
    let blocks = documented("Keeping state", "python");
    assert_eq!(blocks.len(), PYTHON_DOCUMENTED.len());
    for (block, test) in blocks.iter().zip(PYTHON_DOCUMENTED) {
        let world = World::new();
        world
            .run(&["module", "new", "kept", "--lang", "python"])
            .ok();
        world.write("kept/module.py", block);
        let head = "import tests\nimport module\nfrom rustmq.testing import Lane, Row\n";
        world.write("kept/try.py", format!("{head}{test}"));
        run("python3", &["try.py"], &world.path("kept"));
    }
}

pub fn js_documented() {
    let blocks = documented("Keeping state", "js");
    assert_eq!(blocks.len(), JS_DOCUMENTED.len());
    for (block, test) in blocks.iter().zip(JS_DOCUMENTED) {
        let world = World::new();
        world.run(&["module", "new", "kept", "--lang", "js"]).ok();
        world.write("kept/module.js", block);
        let head = r"
import assert from 'node:assert/strict';
import { Lane, Row } from '#rustmq/testing';
import module from './module.js';

const row = (key, value = {}, eventTime = 0) => new Row(value, { key, eventTime });
";
        world.write("kept/try.js", format!("{head}{test}"));
        run("node", &["try.js"], &world.path("kept"));
    }
}

/// Counts by key; what is kept is a number.
const V1: &str = r#"
use rustmq::{Meta, Reject, State};

#[rustmq::map]
fn count(_: &[u8], meta: Meta, state: &mut State) -> Result<String, Reject> {
    let key = meta.key().unwrap_or_default();
    let seen = 1 + state.get::<u64>(key)?.unwrap_or_default();
    state.put(key, &seen)?;
    Ok(format!("rust {seen}"))
}
"#;

/// The same state, and the next number.
const V2: &str = r#"
import rustmq


@rustmq.map
def count(order: bytes, meta, state):
    if b"forget" in order:
        state.delete(meta.key)
        return "forgotten"
    seen = 1 + state.get(meta.key, 0)
    state.put(meta.key, seen)
    return f"python {seen}"
"#;

/// Keeps an object, and tells it when it is due.
const V3: &str = r#"
import { map } from '#rustmq';

export default map(
  (value, { key, eventTime }, state) => {
    const seen = { count: 1 + (state.get(key)?.count ?? 0) };
    if (value.includes('fail')) throw new Error('as asked');
    state.put(key, seen);
    state.setTimer(key, eventTime);
  },
  {
    value: 'text',
    stateSchema: 2,
    onTimer: (key, time, state) => `js ${state.get(key).count}`,
    migrate: {
      1: (key, count, state) => {
        if (new TextDecoder().decode(key) === 'eve') throw new TypeError('not hers');
        state.put(key, { count });
      },
    },
  },
);
"#;

const PIPELINE: &str = "
apiVersion: rustmq/v1alpha1
kind: Pipeline
metadata: { name: counts }
topics:
  orders: { partitions: 1, value: raw }
  counts: { partitions: 1, value: raw }
  bad: { partitions: 1, value: raw }
modules:
  count: { source: ./MODULE/build/MODULE.wasm, limits: { deadline: TIME } }
policy:
  on-error: { then: { dead-letter: bad } }
nodes:
  in: { kind: source, topic: orders, start: earliest }
  count: { kind: wasm, module: count, inputs: [in] }
  out: { kind: sink, inputs: [count], topic: counts }
";

fn built(world: &World, name: &str, lang: &str, file: &str, source: &str) {
    world.run(&["module", "new", name, "--lang", lang]).ok();
    world.write(&format!("{name}/{file}"), source);
    with_tools(world, &["module", "build", name]).ok();
}

fn apply(world: &World, module: &str, deadline: &str) {
    let pipeline = PIPELINE.replace("MODULE", module).replace("TIME", deadline);
    let file = world.write("counts.yaml", pipeline);
    world.run(&["pipeline", "apply", &file]).ok();
}

/// One more order of somebody's, and what all of them came to.
fn ordered(world: &World, who: &str, what: &str, count: usize) -> Vec<String> {
    let order = format!("{{\"who\":\"{who}\",\"what\":\"{what}\"}}\n");
    let produce = ["produce", "orders", "--key", "who"];
    world.run_with_input(&produce, order.as_bytes()).ok();
    let records = records(world, "counts", count);
    let text = |record: &Value| record["value"].as_str().unwrap().to_owned();
    records.iter().map(text).collect()
}

/// What Rust kept is Python's, byte for byte, and JavaScript's after a migration: after one that failed,
/// which named the entry and left the version before it at work.
pub fn one_state_of_three() {
    let world = World::new();
    keep_target(&world);
    built(&world, "v1", "rust", "src/lib.rs", V1);
    built(&world, "v2", "python", "module.py", V2);
    built(&world, "v3", "js", "module.js", V3);
    let world_of = |name| format!("rustmq:etl/{name}@{}", wasm::world::VERSION);
    inspected(&world, "v2", json!([world_of("stateful"), 1, null]));
    let server = world.serve();
    apply(&world, "v1", "10s");
    assert_eq!(ordered(&world, "ann", "tea", 1), ["rust 1"]);
    assert_eq!(ordered(&world, "ann", "tea", 2), ["rust 1", "rust 2"]);
    apply(&world, "v2", "10s");
    let python = ordered(&world, "ann", "milk", 3);
    assert_eq!(python, ["python 3", "rust 1", "rust 2"]);
    let has = |all: Vec<String>, wanted: &str| assert!(all.contains(&wanted.to_owned()), "{all:?}");
    has(ordered(&world, "eve", "tea", 4), "python 1");

    apply(&world, "v3", "10s");
    wait::until("the entry and the error are named", || {
        let said = world.run(&["pipeline", "describe", "counts", "--json"]);
        let part = r#"key \"eve\": TypeError: not hers"#;
        said.ok().out.contains(part).then_some(())
    });
    has(ordered(&world, "ann", "tea", 5), "python 4");
    has(ordered(&world, "eve", "forget", 6), "forgotten");
    // it is tried again when something about it is another
    apply(&world, "v3", "11s");
    has(ordered(&world, "ann", "tea", 7), "js 5");
    // a row that is refused is not counted
    has(ordered(&world, "ann", "fail", 7), "js 5");
    has(ordered(&world, "ann", "tea", 8), "js 6");
    let bad = records(&world, "bad", 1).remove(0);
    let headers = bad["headers"].to_string();
    assert!(headers.contains("as asked"), "{headers}");
    server.stop();
    let log = fs::read_to_string(world.path("serve.err")).unwrap();
    assert!(!log.contains("panicked"), "{log}");
}
