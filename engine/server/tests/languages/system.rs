//! What modules in Python and JavaScript expect of a system, in a component that has none: each row is one
//! way of asking for it, which once ended the instance, and the component does what the native test says.
//!
//! Called by: `main`.

use crate::support::World;
use crate::with_tools;

const PYTHON: &str = r#"
import codecs
import datetime
import logging
import sys
import traceback
import warnings

import rustmq

log = logging.getLogger("module")
seen = rustmq.Counter("seen")
print("loaded")


def failing():
    raise KeyError("x")


def caught():
    try:
        failing()
    except KeyError:
        log.exception("caught")
        return traceback.format_exc().splitlines()[-1]


def unraisable():
    class Odd:
        def __del__(self):
            failing()

    Odd()


def refused(code, message):
    raise rustmq.Reject(code, message)


def later(after_ms):
    raise rustmq.Retry(after_ms, "later", "\ud800")


ASKED = {
    "print": lambda: print("a", "b", end="", flush=True),
    "stderr": lambda: print("a\nb", file=sys.stderr),
    "logging": lambda: log.warning("warned %d", 5),
    "caught": caught,
    "warnings": lambda: warnings.warn("odd"),
    "unraisable": unraisable,
    "strptime": lambda: str(datetime.datetime.strptime("2013-02-28", "%Y-%m-%d")),
    "idna": lambda: "é.example".encode("idna").decode(),
    "codecs": lambda: [b"\xe9".decode(name) for name in ("cp1252", "latin-1", "iso8859-15")],
    "bom": lambda: b"\xef\xbb\xbfx".decode("utf-8-sig"),
    "surrogate": lambda: refused("\ud800", "no city \ud800"),
    "log": lambda: rustmq.log.info("\ud800", **{"\ud800": "\ud800"}),
    "counter": lambda: seen.add(-1),
    "header": lambda: rustmq.Record(1, headers={5: "x"}),
    "headers": lambda: rustmq.Record(1, headers={"\ud800": "x"}),
    "time": lambda: rustmq.Record(1, event_time=2**63),
    "later": lambda: later(-1),
    "much later": lambda: later(2**40),
}


@rustmq.map
def module(name: str | None):
    return "nothing" if name is None else ASKED[name]()
"#;

const PYTHON_TEST: &str = r#"
import unittest

import rustmq.testing
from module import ASKED, module


class Asked(unittest.TestCase):
    def test_each(self):
        for name in [None, *ASKED]:
            rustmq.testing.run(module, [name])
        rustmq.testing.run(module, ["surrogate", None, "time", "print"])
"#;

const JS: &str = r#"
import { Counter, Record, Retry, map } from '#rustmq';

console.log('loaded');
const { warn } = console;
const seen = new Counter('seen');

export const asked = {
  log: () => console.log('a', { b: [1] }, undefined),
  warn: () => warn('a\nb'),
  error: () => console.error(new TypeError('x')),
  group: () => [console.group('a'), console.groupEnd()].length,
  counter: () => seen.add(0.5),
  time: () => new Record(1, { eventTime: 2n ** 64n + 5n }),
  promise: () => Promise.resolve(1),
  later: () => {
    throw new Retry(2 ** 40, 'later');
  },
};

export default map((name) => (name === null ? 'nothing' : asked[name]()), { value: 'text?' });
"#;

const JS_TEST: &str = r#"
import { test } from 'node:test';

import { run } from '#rustmq/testing';
import module, { asked } from '../module.js';

test('each', () => {
  for (const name of [null, ...Object.keys(asked)]) run(module, [name]);
});
"#;

fn as_natively(lang: &str, files: [(&str, &str); 2], cases: &str) {
    let world = World::new();
    world.run(&["module", "new", "asking", "--lang", lang]).ok();
    for (file, text) in files {
        let path = format!("asking/{file}");
        let old = std::fs::read_to_string(world.path(&path)).unwrap();
        // how tests in Python find the SDK
        let finds = old
            .split_once("import unittest")
            .map_or("", |(finds, _)| finds);
        world.write(&path, format!("{finds}{text}"));
    }
    let said = with_tools(&world, &["module", "test", "asking"]).ok().out;
    let expected = format!("{cases}: the component does what the native tests say\n");
    assert_eq!(said, expected);
}

pub fn python() {
    let files = [("module.py", PYTHON), ("tests/test_module.py", PYTHON_TEST)];
    as_natively("python", files, "20 cases, 23 rows");
}

pub fn js() {
    let files = [("module.js", JS), ("test/module.test.js", JS_TEST)];
    as_natively("js", files, "9 cases, 9 rows");
}
