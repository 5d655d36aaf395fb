"""Modules that keep state, natively: what a refused row changed, timers, older schemas, cases."""

import json
import os
import sys
import tempfile
import types
import unittest
from unittest import mock

import rustmq
from rustmq import _cases, http, testing
from rustmq.testing import Lane, Row, run


@rustmq.map(state_schema=3)
def total(value: str, meta, state):
    """Sums up by key; a row that is no number changes nothing, however late it says so."""
    before = state.get(meta.key, 0)
    state.put(meta.key, before + 1_000_000)
    state.put("last", value)
    after = before + int(value)
    state.put(meta.key, after)
    return after


@total.migrate(1)
def euros(key, euros, state):
    state.put(key, euros * 100)


@total.migrate(2)
def cents(key, value: bytes, state):
    key = key.removeprefix(b"cents/")
    # what was apart before is together now
    state.put("sum", state.get("sum", 0) + int(value))
    state.put(key, int(value))
    if key == b"later":
        state.set_timer(key, 5)


@rustmq.flat_map
def windows(value, meta, state, params):
    """Counts by key in windows of ten microseconds, each told when it is over."""
    end = meta.event_time - meta.event_time % 10 + 10
    key = meta.key + b"/%d" % end
    state.put(key, state.get(key, 0) + 1)
    state.set_timer(key, end)
    if value == "never":
        state.clear_timer(key, end)
        raise rustmq.Reject("never", "not counted")
    return ()


@windows.on_timer
def over(key, time, params, state):
    count = state.get(key)
    state.delete(key)
    if params.get("strict") and count > 1:
        raise rustmq.Reject("many", f"{count} of {key.decode()}")
    yield rustmq.Record(count, key=key.partition(b"/")[0])


@rustmq.filter
def fresh(value: bytes, state):
    known = state.get_bytes(value) is not None
    state.put_bytes(value, b"1")
    return not known


@rustmq.row
class Order:
    cents: int | None


@rustmq.row
class Sum:
    cents: int


@rustmq.map
def sums(order: Order, state) -> Sum | None:
    state.put("sum", state.get("sum", 0) + (order.cents or 0))
    return Sum(state.get("sum") if order.cents else order.cents)


@rustmq.batch
def latest(rows, out, state):
    """Keeps the last value of each key, and tells all of it when a timer fires."""
    state.fetch(rows.keys())
    for key, value, time in zip(rows.keys(), rows.values(), rows.event_times()):
        state.put_bytes(b"of/" + key, value)
        state.set_timer("all", time + 10)


@latest.on_timers
def tell(fired, out, state):
    found = state.scan_bytes("of/")
    column = rustmq.Column.of
    out.emit(0, [0] * len(found), column([key for key, _ in found]), column([value for _, value in found]))


def row(key, value, time=0):
    return Row(value, key=key, event_time=time)


class Kept(unittest.TestCase):
    def test_a_function_with_a_state_keeps_it_by_key(self):
        lane = Lane(total)
        out = lane.run([row("a", "1"), row("b", "2"), row("a", "x"), row("a", "3")])
        self.assertEqual(out.json(), [1, 2, 4])
        self.assertEqual(out.rejects[0].code, "error")
        self.assertEqual(lane.run([row("a", "5"), row("a", "y")]).json(), [9])
        self.assertEqual((lane.get("a"), lane.get("last"), lane.get("c", 7)), (9, "5", 7))
        self.assertEqual(lane.keys, [b"a", b"b", b"last"])
        self.assertEqual(run(total, [Row("1")]).rejects[0].code, "key")
        self.assertEqual(run(total, [row("a", "8")]).json(), [8])

    def test_what_is_refused_late_changes_nothing(self):
        @rustmq.map
        def sent(port: str, state):
            count = state.get("count", 0) + 1
            state.put("count", count)
            return rustmq.Record(count, port=port)

        lane = Lane(sent)
        out = lane.run(["out", "nowhere", "out"])
        self.assertEqual((out.json(), out.rejects[0].code, lane.get("count")), ([1, 2], "port", 2))
        lane = Lane(sums)
        out = lane.run([Row({"cents": 3}), Row({}), Row({"cents": 4})])
        self.assertEqual((out.json(), out.rejects[0].code), ([{"cents": 3}, {"cents": 7}], "encode"))

    def test_a_batch_that_fails_changes_nothing(self):
        @rustmq.batch
        def failing(rows, out, params, state):
            state.put("count", state.get("count", 0) + len(rows))
            if len(rows) > 1:
                raise rustmq.Failure("many", "too many")

        lane = Lane(failing)
        lane.run(["a"])
        with self.assertRaises(rustmq.Failure):
            lane.run(["a", "b"])
        self.assertEqual(lane.get("count"), 1)

    def test_parameters_may_be_keyword_only(self):
        @rustmq.map
        def count(value: int, *, state, meta):
            state.put(meta.key, value)
            state.set_timer(meta.key, 5)

        @count.on_timer
        def over(key, *, time, state):
            return [key.decode(), time, state.get(key)]

        @rustmq.batch
        def works(rows, out, *, state, params):
            state.put("n", len(rows) + params["more"])

        @works.on_timers
        def later(fired, out, *, state):
            pass

        keeping = rustmq.map(state_schema=2)(count.function)

        @keeping.migrate(1)
        def old(key, *, value, state):
            state.put(key, value + 1)

        self.assertEqual(Lane(count).run([row("k", "7", 9)]).json(), [["k", 5, 7]])
        lane = Lane(works, params={"more": 3})
        lane.run(["a"])
        self.assertEqual((lane.get("n"), Lane(keeping).migrate(1, {"a": 1}).get("a")), (4, 2))

    def test_a_filter_and_a_route_can_remember(self):
        lane = Lane(fresh)
        self.assertEqual(lane.run(["a", "b", "a"]).texts(), ["a", "b"])
        self.assertEqual(lane.run(["b", "c"]).texts(), ["c"])
        turn = rustmq.route("even", "odd")(lambda value, state: (state.put("n", state.get("n", 0) + 1), (
            "odd" if state.get("n") % 2 else "even"))[1])
        out = Lane(turn, outputs=["even", "odd"]).run(["1", "2", "3"])
        self.assertEqual((out.texts("odd"), out.texts("even")), (["1", "3"], ["2"]))

    def test_what_is_kept_is_json_or_bytes(self):
        @rustmq.map
        def odd(value: str, state):
            state.put_bytes("raw", b"\xff")
            puts = {"bytes": b"x", "nothing": rustmq.TOMBSTONE, "set": {1}}
            if value in puts:
                state.put("x", puts[value])
            state.put("order", Order(5))
            return state.get("raw")

        codes = [refused.code for refused in run(odd, ["bytes", "nothing", "set", "read"]).rejects]
        self.assertEqual(codes, ["error", "error", "encode", "state"])

        @rustmq.map
        def rows(_, state):
            state.put("order", Order(5))
            return state.get("order")

        self.assertEqual(run(rows, ["1"]).json(), [{"cents": 5}])

    def test_entries_are_scanned_by_prefix(self):
        seen = []

        @rustmq.map
        def scans(value: str, state):
            for key in ("a", "b1", "b2", "b3", "c") if value == "put" else ():
                state.put(key, key)
            if value == "change":
                state.delete("b2")
                state.put("b0", "b0")
                state.put("b9", "b9")
            for question in ({"prefix": "b"}, {"prefix": "b", "after": "b1"}, {"limit": 2}, {"prefix": "b", "limit": 3}):
                seen.append([found for _, found in state.scan(**question)])
            if value == "change":
                raise rustmq.Reject("no", "not that")

        lane = Lane(scans)
        with mock.patch.object(rustmq._state, "SCAN_ENTRIES", 2):
            lane.run(["put"])
            lane.run(["change", "look"])
        put = [["b1", "b2", "b3"], ["b2", "b3"], ["a", "b1"], ["b1", "b2", "b3"]]
        changed = [["b0", "b1", "b3", "b9"], ["b3", "b9"], ["a", "b0"], ["b0", "b1", "b3"]]
        self.assertEqual(seen, put + changed + put)

    def test_what_a_batch_reads_is_fetched_at_once(self):
        calls = []

        class Counted(testing.Store):
            def get(self, keys):
                calls.append(list(keys))
                return super().get(keys)

        with mock.patch.object(testing, "Store", Counted):
            Lane(total).run([row("a", "1"), row("b", "2"), row("a", "3")])
        self.assertEqual(calls, [[b"a", b"b"]])

    def test_functions_that_cannot_keep_state(self):
        stateless, keeping = rustmq.map(lambda value: value), rustmq.map(lambda value, state: value)
        for wrong in (
            lambda: rustmq.map(state_schema=2)(lambda value: value),
            lambda: rustmq.map(state_schema="2")(lambda value, state: value),
            lambda: rustmq.batch(lambda rows, out, meta: None),
            lambda: stateless.on_timer(lambda key, time: None),
            lambda: stateless.migrate(1)(lambda key, value, state: None),
            lambda: keeping.migrate(1)(lambda key, value, state: None),
            lambda: keeping.migrate(0)(lambda key, value: None),
            lambda: keeping.migrate(lambda key, value, state: None),
            lambda: keeping.on_timer(lambda key: None),
            lambda: keeping.on_timer(lambda key, time, meta: None),
            lambda: latest.on_timer(lambda key, time: None),
            lambda: windows.on_timer(lambda key, time: None),
            lambda: Lane(stateless),
        ):
            with self.assertRaises(TypeError):
                wrong()
        self.assertEqual(run(stateless, ["1"]).json(), [1])


class Timers(unittest.TestCase):
    def test_windows_are_told_once_in_order_of_their_ends(self):
        lane = Lane(windows, lateness_us=5)
        out = lane.run([row("b", 1, 3), row("a", 1, 12), row("a", 1, 14), row("b", '"never"', 9)])
        self.assertEqual((out.rows, out.rejects[0].code), ([], "never"))
        self.assertEqual(lane.timers, [(10, b"b/10"), (20, b"a/20")])
        out = lane.run([row("a", 1, 8), row("a", 1, 26)])
        told = [(told.event_time, told.key, told.text, told.parent) for told in out.rows]
        self.assertEqual(told, [(10, b"a", "1", 1), (10, b"b", "1", 1), (20, b"a", "2", 1)])
        self.assertEqual(lane.run([row("c", 1, 27)]).rows, [])
        self.assertEqual(len(lane.keys), 2)

    def test_a_timer_that_is_refused_is_gone_and_changes_nothing(self):
        lane = Lane(windows, params={"strict": True})
        out = lane.run([row("a", 1, 1), row("a", 1, 2), row("b", 1, 12)])
        self.assertEqual([(r.row, r.code, r.message) for r in out.rejects], [(2, "many", "2 of a/10")])
        self.assertEqual((lane.keys, lane.timers), ([b"a/10", b"b/20"], [(20, b"b/20")]))

    def test_a_batch_is_given_all_timers_at_once(self):
        lane = Lane(latest)
        self.assertEqual(lane.run([row("b", "1", 0), row("a", "2", 1)]).rows, [])
        out = lane.run([row("b", "3", 10)])
        self.assertEqual([(told.key, told.text) for told in out.rows], [(b"of/a", "2"), (b"of/b", "3")])

    def test_a_timer_may_make_typed_columns(self):
        @rustmq.map
        def quiet(order: Order, meta, state):
            state.put(meta.key, order.cents)
            state.set_timer(meta.key, meta.event_time + 1)

        @quiet.on_timer
        def tell(key, time, state) -> Sum:
            return Sum(state.get(key))

        out = Lane(quiet).run([Row({"cents": 5}, key="a"), Row({}, key="b", event_time=9)])
        self.assertEqual(out.texts(), ['{"cents":5}'])


class Migrations(unittest.TestCase):
    def test_a_function_takes_over_what_it_kept_before(self):
        self.assertEqual((total.state_schema, sorted(total.migrations)), (3, [1, 2]))
        lane = Lane(total).migrate(1, {"ann": 5, "bob": "7"})
        self.assertEqual(lane.run([row("ann", "1")]).json(), [501])
        # more than one part, in any order
        old = {f"cents/{number:04}": str(number) for number in reversed(range(2500))}
        lane = Lane(total).migrate(2, {**old, "later": b"1"})
        self.assertEqual((lane.get("sum"), lane.get("0207"), len(lane.keys)), (sum(range(2500)) + 1, 207, 2502))
        self.assertEqual(lane.timers, [(5, b"later")])

    def test_what_cannot_be_taken_over_is_named_and_nothing_changes(self):
        lane = Lane(total).migrate(1, {"ann": 5})
        with self.assertRaises(rustmq.Failure) as failed:
            lane.migrate(2, {"ann": "6", "bob": "seven"})
        self.assertRegex(failed.exception.message, r'^key "bob": ValueError: .* \(test_state.py, line \d+, in cents\)$')
        with self.assertRaises(rustmq.Failure) as failed:
            lane.migrate(1, {"ann": "{"})
        self.assertEqual(failed.exception.code, "json")
        self.assertEqual((lane.get("ann"), lane.keys), (500, [b"ann"]))
        with self.assertRaisesRegex(ValueError, "takes over from schemas 1, 2, not from 4"):
            lane.migrate(4, {})


class Cases(unittest.TestCase):
    def written(self, main, work):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "cases")
            module = types.SimpleNamespace(main=main)
            with mock.patch.dict(os.environ, {"RUSTMQ_CASES": path}), \
                    mock.patch.dict(sys.modules, {"module": module}), mock.patch.object(_cases.atexit, "register"):
                work()
                _cases.write_lanes()
            if not os.path.exists(path):
                return []
            with open(path, encoding="utf-8") as file:
                return [json.loads(line) for line in file]

    def test_a_lane_is_one_case_with_what_it_kept(self):
        def work():
            lane = Lane(total, lateness_us=3).migrate(1, {"b": 5, b"\xff": 1})
            lane.run([row("a", "1", 2), row("b", "2", 4)])
            lane.run([row("a", "x", 9)])
            Lane(windows).run([row("a", 1)])

        case, = self.written(total, work)
        lane = case["lane"]
        self.assertEqual((lane["lateness_us"], lane["migrated"]["schema"]), (3, 1))
        self.assertEqual(lane["migrated"]["kept"], [["b", "5"], [{"hex": "ff"}, "1"]])
        self.assertEqual([len(batch["rows"]) for batch in lane["batches"]], [2, 1])
        self.assertEqual(lane["batches"][0]["out"][1]["value"], "502")
        self.assertEqual(lane["kept"], [["a", "1"], ["b", "502"], ["last", '"2"'], [{"hex": "ff"}, "100"]])
        case, = self.written(windows, lambda: run(windows, [row("a", 1, 3)]))
        self.assertEqual(case["lane"]["timers"], [[10, "a/10"]])

    def test_lanes_that_ask_others_or_migrate_later_are_no_cases(self):
        @rustmq.map
        def asks(value, state):
            return http.get("https://a.example/").status

        def work():
            testing.http(lambda request: http.Response(200))
            lane = Lane(asks)
            lane.run([1])
            lane.run([2])

        self.assertEqual(self.written(asks, work), [])

        def later():
            lane = Lane(total)
            lane.run([row("a", "1")])
            lane.migrate(1, {"a": 2}).run([row("a", "1")])

        self.assertEqual(self.written(total, later), [])
