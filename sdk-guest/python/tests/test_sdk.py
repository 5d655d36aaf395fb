"""The SDK's own rules. Run in `sdk-guest/python`: `python3 -m unittest`."""

import json
import math
import os
import sys
import tempfile
import types
import unittest
from typing import Optional
from unittest import mock

import rustmq
from rustmq import http, testing
from rustmq.testing import Row, run


@rustmq.flat_map
def words(text: str, meta, params):
    for word in text.split():
        if word == "later":
            raise rustmq.Retry(5, "later", "not yet")
        if word == "bad":
            raise rustmq.Reject("bad", "a bad word")
        port = "long" if len(word) > 3 else None
        headers = {"from": str(meta.offset)} if params.get("tell") else None
        yield rustmq.Record(word, key=word, event_time=meta.event_time + 1, headers=headers, port=port)


@rustmq.map
def same(value):
    return value


@rustmq.map
def raw(value: bytes):
    return rustmq.TOMBSTONE if value == b"gone" else value


cities = rustmq.Lookup("cities")


@rustmq.map
def city(name: str):
    found = cities.get(name)
    return None if found is None else found["city"]


@rustmq.batch
def all_cities(rows, out):
    out.emit(0, range(len(rows)), rows.keys(), cities.get_all(rows.keys()))


class Lookups(unittest.TestCase):
    def test_tables_are_what_the_test_gives(self):
        out = run(city, ["ann", "bob"], lookups={"cities": {"ann": {"city": "Ghent"}}})
        self.assertEqual(out.json("out"), ["Ghent"])
        rows = [Row("", key="a"), Row(""), Row("", key="b")]
        out = run(all_cities, rows, lookups={"more": {}, "cities": {b"a": b"\xff", "c": "x"}})
        self.assertEqual([row.value for row in out.rows], [b"\xff", None, None])
        out = run(city, ["ann"], lookups={"cities": {"ann": "{"}})
        self.assertEqual(out.rejects[0].code, "lookup")
        out = run(city, ["ann"])
        self.assertIn("no table cities", out.rejects[0].message)


class Loops(unittest.TestCase):
    def test_what_a_record_does_not_say_is_its_parents(self):
        rows = [Row("a word", key="k", event_time=3, headers={"h": "x"}), Row("b", event_time=9)]
        out = run(words, rows, params={"tell": True}, outputs=["out", "long"])
        self.assertEqual(out.json("out"), ["a", "b"])
        long = out.on("long")[0]
        self.assertEqual((long.key, long.event_time, long.parent), (b"word", 4, 0))
        self.assertEqual(long.headers, {"h": b"x", "from": b"0"})
        kept = run(same, [Row(1, key="k", event_time=7, headers={"h": "x"})]).rows[0]
        self.assertEqual((kept.key, kept.event_time, kept.headers), (b"k", 7, {"h": b"x"}))

    def test_a_refused_row_has_no_output_and_a_retry_ends_the_batch(self):
        out = run(words, ["a bad b", "c", "d later", "e"], outputs=["out", "long"])
        self.assertEqual(out.json("out"), ["c"])
        self.assertEqual([(r.row, r.code) for r in out.rejects], [(0, "bad")])
        self.assertEqual([(r.row, r.code) for r in out.retries], [(2, "later")])
        out = run(words, ["a word", "b"], outputs=["out"])
        self.assertEqual(out.rejects[0].message, 'no output "long"; the node declares: out')

    def test_values_that_are_not_json_utf8_or_there(self):
        rows = ["{", "NaN", " 1 ", "[1] 2", None, b"\xff", "[" * 100000]
        out = run(same, rows)
        self.assertEqual(out.json(), [1])
        codes = {r.row: r.code for r in out.rejects}
        self.assertEqual(codes, {0: "json", 1: "json", 3: "json", 4: "no-value", 5: "json", 6: "json"})
        out = run(words, [b"\xff", None])
        self.assertEqual([r.code for r in out.rejects], ["utf-8", "no-value"])

    def test_what_cannot_be_written_is_refused(self):
        @rustmq.map
        def odd(value):
            return {1: math.nan, 2: {1, 2}, 3: "é\n", 4: None}[value]

        out = run(odd, ["1", "2", "3", "4"])
        self.assertEqual(out.texts(), ['"é\\n"'])
        self.assertEqual([r.code for r in out.rejects], ["encode", "encode"])

    def test_bytes_go_as_they_are(self):
        out = run(raw, [b"\xff\x00", "gone", "x"])
        self.assertEqual([row.value for row in out.rows], [b"\xff\x00", None, b"x"])

    def test_values_may_be_nothing(self):
        def made(annotation):
            def same(value):
                return repr(value)

            same.__annotations__ = {"value": annotation}
            return rustmq.map(same)

        rows = ["null", None, b"\xff"]
        for annotation in (bytes | None, Optional[bytes], "bytes | None"):
            self.assertEqual(run(made(annotation), rows).json(), ["b'null'", "None", "b'\\xff'"])
        for annotation in (str | None, Optional[str], "None | str"):
            out = run(made(annotation), rows)
            self.assertEqual((out.json(), out.rejects[0].code), (["'null'", "None"], "utf-8"))
            self.assertEqual(run(made(annotation), ["x"]).json(), ["'x'"])
        out = run(made(dict | None), [*rows, "[1]"])
        self.assertEqual((out.json(), out.rejects[0].code), (["None", "None", "[1]"], "json"))
        for annotation in (None, dict, dict | list, type(None)):
            self.assertEqual(run(made(annotation), [None]).rejects[0].code, "no-value")

    def test_an_exception_nobody_caught_says_where(self):
        @rustmq.filter
        def broken(value):
            return value["n"] > 1

        out = run(broken, ['{"n":2}', "{}"])
        self.assertEqual(out.texts(), ['{"n":2}'])
        self.assertEqual(out.rejects[0].code, "error")
        self.assertRegex(out.rejects[0].message, r"^KeyError: 'n' \(test_sdk.py, line \d+, in broken\)$")

        @rustmq.map
        def parses(value):
            return json.loads(value)

        said = run(parses, ['"{"', '5']).rejects
        self.assertRegex(said[0].message, r"^JSONDecodeError: .* \(test_sdk.py, line \d+, in parses\)$")

    def test_routes_and_batches(self):
        out = run(rustmq.route("small", "big")(lambda n: "big" if n > 9 else "small"), ["1", "10"],
                  outputs=["small", "big"])
        self.assertEqual((out.texts("small"), out.texts("big")), (["1"], ["10"]))

        @rustmq.batch
        def backwards(rows, out, params):
            order = list(reversed(range(len(rows))))
            out.emit(0, order, rows.keys().gather(order), rows.values().gather(order))

        self.assertEqual(run(backwards, ["1", None, "3"]).texts(), ["3", "", "1"])

    def test_numbers_and_lines_are_told(self):
        seen, size = rustmq.Counter("seen"), rustmq.Histogram("size", [1, 10])

        @rustmq.filter
        def telling(value):
            seen.add()
            size.observe(value)
            rustmq.log.info("a row", value=value)
            return True

        out = run(telling, ["1", "2"])
        self.assertEqual((out.counters, out.histograms), ({"seen": 2}, {"size": [1.0, 2.0]}))
        self.assertEqual(out.log, [("info", "a row value=1"), ("info", "a row value=2")])

    def test_metrics_of_one_name_are_one_and_odd_names_none(self):
        first, second = rustmq.Counter("twice"), rustmq.Counter("twice")

        @rustmq.filter
        def telling(value):
            first.add()
            second.add(10)
            rustmq.log.info("read", level=3, self=4, message=5)
            return True

        out = run(telling, ["1", "2"])
        self.assertEqual((out.counters, out.log[0]), ({"twice": 22}, ("info", "read level=3 self=4 message=5")))
        for name in ("Odd", "1st", "a-b", "", "a" * 65, "a\n", 5):
            with mock.patch.object(rustmq._telemetry, "_metrics", []), self.assertRaises(rustmq.Failure) as failed:
                rustmq.Counter(name)
                run(telling, [])
            self.assertEqual(failed.exception.code, "metric")

    def test_what_is_told_while_a_case_is_timed_does_not_count(self):
        seen = rustmq.Counter("seen")

        @rustmq.filter
        def telling(value):
            seen.add()
            rustmq.log.info("a row")
            return True

        with tempfile.TemporaryDirectory() as folder:
            cases = os.path.join(folder, "cases")
            asked = {"RUSTMQ_CASES": cases, "RUSTMQ_BENCH": "1"}
            module = types.SimpleNamespace(telling=telling)
            with mock.patch.dict(os.environ, asked), mock.patch.dict(sys.modules, {"module": module}), \
                    mock.patch.object(testing, "TIMED_NS", 1_000_000):
                out = run(telling, ["1"])
            with open(cases, encoding="utf-8") as file:
                self.assertGreater(json.loads(file.read())["native_ns"], 0)
        self.assertEqual((out.counters, out.log), ({"seen": 1}, [("info", "a row")]))

    def test_functions_that_cannot_be_modules(self):
        for wrong in (lambda: 1, lambda value, other: 1):
            with self.assertRaises(TypeError):
                rustmq.map(wrong)
        with self.assertRaises(rustmq.Failure):
            run(same, [], outputs=[])


@rustmq.map
def named(order):
    product = http.get(f"https://products.example/{order}", headers={"accept": "application/json"}).ok()
    return product.json()["name"]


@rustmq.batch
def all_named(rows, out):
    values = rows.values()
    bodies = [values.get(row) for row in range(len(values))]
    asked = [http.Request("POST", "https://products.example/", body=body) for body in bodies]
    for row, answer in enumerate(http.send(asked)):
        if isinstance(answer, http.Error):
            out.reject([row], answer.trouble, str(answer))
        else:
            out.forward(0, [row])


class Requests(unittest.TestCase):
    def answers(self, request):
        self.asked.append(request)
        path = request.url.rsplit("/", 1)[-1]
        if path == "denied":
            raise http.Error.of("denied", "not granted")
        if path == "late":
            raise http.Error.of("timeout", "no answer")
        if path == "busy":
            return http.Response(503, headers={"retry-after": "7"})
        return http.Response(404) if path == "9" else http.Response(200, '{"name":"tea"}')

    def setUp(self):
        self.asked = []
        testing.http(self.answers)

    def test_what_comes_of_an_answer(self):
        out = run(named, [1, "denied", 9])
        self.assertEqual(out.json(), ["tea"])
        self.assertEqual([r.code for r in out.rejects], ["json", "http-404"])
        out = run(named, ['"denied"', '"late"'])
        self.assertEqual([(r.code, r.message) for r in out.rejects], [("http-denied", "not granted")])
        self.assertEqual([r.code for r in out.retries], ["http-timeout"])
        self.assertEqual(run(named, ['"busy"']).retries[0].code, "http-503")
        self.assertEqual(self.asked[0].headers, {"accept": "application/json"})
        with self.assertRaises(rustmq.Retry) as later:
            http.Response(429, headers={"retry-after": "7"}).ok()
        self.assertEqual(later.exception.after_ms, 7000)
        self.assertEqual(str(http.Error.of("denied", "not granted")), "denied: not granted")

    def test_an_answer_that_is_no_json(self):
        unreadable = rustmq.map(lambda body: http.Response(200, body).json())
        out = run(unreadable, ['"<html>"', '"1"'])
        self.assertEqual(([r.code for r in out.rejects], out.json()), (["http-json"], [1]))
        with self.assertRaises(ValueError):
            http.Response(200, b"\xff").json()

    def test_a_batch_at_once(self):
        out = run(all_named, ["a", "b"])
        self.assertEqual(out.texts(), ["a", "b"])
        self.assertEqual([(r.method, r.body) for r in self.asked], [("POST", b"a"), ("POST", b"b")])
        http.post("https://products.example/", json={"a": 1})
        self.assertEqual(self.asked[-1].body, '{"a":1}')
