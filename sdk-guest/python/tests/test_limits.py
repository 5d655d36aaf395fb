"""What the contract cannot hold refuses its row, or is cut to what it can: natively as in the component."""

import sys
import unittest
from unittest import mock

import rustmq
from rustmq import _record, _sandbox, http, testing
from rustmq.testing import Row, run

LONE = "\ud800"


def refusals(out):
    return [(refused.row, refused.code, refused.message) for refused in out.rejects + out.retries]


def raising(error):
    @rustmq.map
    def raises(value):
        raise error
    return raises


class Cancelled(BaseException):
    """As that of `asyncio`."""


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("nothing to say")


class Texts(unittest.TestCase):
    def test_what_utf8_cannot_hold_is_replaced(self):
        for error, code, message in (
            (rustmq.Reject("city", f"no {LONE}"), "city", "no \ufffd"),
            (rustmq.Reject(f"{LONE}", "a\U0001f600b"), "\ufffd", "a\U0001f600b"),
            (rustmq.Retry(1, LONE, LONE), "\ufffd", "\ufffd"),
            (ValueError(LONE), "error", "ValueError: \ufffd (test_limits.py, line"),
            (Unspeakable(), "error", "Unspeakable: (its text fails with RuntimeError) (test_limits"),
        ):
            (_, said, why), = refusals(run(raising(error), [1]))
            self.assertEqual((said, why[:len(message)]), (code, message))
        failure = rustmq.Failure(LONE, LONE)
        self.assertEqual((failure.code, failure.message), ("\ufffd", "\ufffd"))

    def test_no_memory_refuses_its_row(self):
        why = "MemoryError; there is no more memory: raise limits.memory of the module if that is right (test_l"
        (_, code, said), = refusals(run(raising(MemoryError()), [1]))
        self.assertEqual((code, said[:len(why)]), ("limit", why))

    def test_in_the_log_and_in_a_batch(self):
        @rustmq.map
        def logs(value):
            rustmq.log.info(value["city"], **{value["city"]: value["city"]})

        out = run(logs, ['{"city":"\\ud800"}'])
        self.assertEqual((out.rejects, out.log), ([], [("info", "\ufffd \ufffd=\ufffd")]))

        @rustmq.batch
        def refuses(rows, out):
            out.reject([0], LONE, LONE)
            out.retry([1], 2**40, LONE, LONE)
            out.emit(0, [2], rows.keys().gather([2]), rows.values().gather([2]))
            out.set_header("h" + LONE, rustmq.Column.of([b"x"]))

        out = run(refuses, [1, 2, 3])
        self.assertEqual(refusals(out), [(0, "\ufffd", "\ufffd"), (1, "\ufffd", "\ufffd")])

    def test_names_of_headers(self):
        @rustmq.map
        def named(value):
            return rustmq.Record(1, headers={LONE if value else 5: "x"})

        out = run(named, [1, 0])
        self.assertEqual([row.headers for row in out.rows], [{"\ufffd": b"x"}])
        self.assertRegex(out.rejects[0].message, "the name of a header is a str, not int")

    def test_headers_and_keys_are_bytes_or_text(self):
        """A row whose header or key is neither is refused, and told which it was."""
        def made(**said):
            out = run(rustmq.map(lambda value: rustmq.Record(value, **said)), [1])
            return out.rows[0] if out.rows else out.rejects[0]

        for value in ("é", "é".encode(), bytearray("é".encode()), memoryview("xé".encode())[1:]):
            row = made(key=value, headers={"city": value})
            self.assertEqual((row.key, row.headers), ("é".encode(), {"city": "é".encode()}))
        pair = "letter 1 is half of a surrogate pair, which UTF-8 cannot hold: give bytes, or text without it"
        for said, message in (
            ({"headers": {"a": "x", "city": "x" + LONE}}, f"header `city`: {pair}"),
            ({"headers": {"city": 5}}, "header `city`: bytes or str, not int"),
            ({"headers": {"x" * 256: ""}}, f"header `{'x' * 32}`: a name has 1 to 255 bytes, not 256"),
            ({"headers": {"": "x"}}, "header ``: a name has 1 to 255 bytes, not 0"),
            ({"headers": {5: "x"}}, "the name of a header is a str, not int"),
            ({"headers": [("city", "x")]}, "headers are a dict of names with bytes or str, not list"),
            ({"key": "x" + LONE}, f"the key: {pair}"),
            ({"key": 5}, "the key: bytes or str, not int"),
        ):
            refused = made(**said)
            self.assertEqual((refused.code, refused.message), ("encode", message))
        self.assertEqual(made(headers={"é" * 127: None}).headers, {})

        @rustmq.batch
        def unnamed(rows, out):
            out.emit(0, [0], rows.keys(), rows.values())
            out.set_header("é" * 128, rustmq.Column.of([b"x"]))

        with self.assertRaisesRegex(AssertionError, "set-header: a name of 256 bytes"):
            run(unnamed, [1])

    def test_values_and_what_is_kept_may_be_any_bytes(self):
        for kind in (bytes, bytearray, memoryview):
            out = run(rustmq.map(lambda value: rustmq.Record(kind(b"\xff"))), [Row(kind(b"1"))])
            self.assertEqual([row.value for row in out.rows], [b"\xff"])

            @rustmq.map
            def keeps(value: bytes, state):
                state.put_bytes(kind(b"k"), kind(value))
                if value == b"json":
                    state.put(b"k", kind(value))

            lane = testing.Lane(keeps)
            out = lane.run([b"x", b"json"])
            self.assertRegex(refusals(out)[0][2], "^TypeError: bytes are put with `put_bytes`")
            self.assertEqual(lane.get_bytes("k"), b"x")

    def test_requests(self):
        asked = []

        def answer(request):
            asked.append(request)
            return http.Response(200)

        testing.http(answer)
        for timeout, fits in ((0.5, 1), (-3, 0), (2**40, 2**32 - 1), (float("inf"), 2**32 - 1), (None, None)):
            http.get(f"https://a.example/{LONE}", headers={LONE: 7}, timeout_ms=timeout)
            made = asked[-1]
            self.assertEqual((made.url, made.headers), ("https://a.example/\ufffd", {"\ufffd": "7"}))
            self.assertEqual((made.timeout_ms, type(made.timeout_ms)), (fits, type(fits)))
        for token in (b"t", bytearray(b"t"), memoryview(b"t"), "t"):
            http.get("https://a.example/", headers={"authorization": token})
            self.assertEqual(asked[-1].headers, {"authorization": "t"})
        with self.assertRaisesRegex(ValueError, "header `odd`: its bytes are no UTF-8"):
            http.get("https://a.example/", headers={"odd": b"\xff"})
        with self.assertRaises(TypeError):
            http.post("https://a.example/", body=5)


class Own(unittest.TestCase):
    def test_classes_of_ones_own_that_do_not_call_init(self):
        class Late(rustmq.Reject):
            code = "late"

            def __init__(self, hours):
                self.hours = hours

        class Busy(rustmq.Retry):
            def __init__(self, message):
                self.message = message

        for error, code, message in (
            (Late(3), "late", "Late: 3 (test_limits.py, line"),
            (Busy("soon " + LONE), "error", "soon \ufffd"),
            (Busy(None), "error", "Busy: None (test_limits.py, line"),
        ):
            (_, said, why), = refusals(run(raising(error), [1]))
            self.assertEqual((said, why[:len(message)]), (code, message))

        @rustmq.batch
        def late(rows, out):
            raise Late(3)

        with self.assertRaises(rustmq.Failure) as failed:
            run(late, [1])
        self.assertEqual(failed.exception.code, "late")
        self.assertRegex(failed.exception.message, "^Late: 3 .*, in late")

    def test_a_migration_that_asks_for_more_time_says_why(self):
        keeping = rustmq.map(state_schema=2)(lambda value, state: value)

        @keeping.migrate(1)
        def old(key, value, state):
            raise rustmq.Retry(1, "busy", "not now")

        with self.assertRaises(rustmq.Failure) as failed:
            testing.Lane(keeping).migrate(1, {"a": 1})
        self.assertEqual((failed.exception.code, failed.exception.message), ("busy", 'key "a": not now'))


class Exits(unittest.TestCase):
    """What is no `Exception` refuses its row as all else does."""

    EXITS = (
        (SystemExit(3), "SystemExit: 3; a module does not exit: to refuse a row raise `rustmq.Reject` (test"),
        (SystemExit(), "SystemExit; a module does not exit"),
        (GeneratorExit(), "GeneratorExit (test_limits.py, line"),
        (Cancelled("late"), "Cancelled: late (test_limits.py, line"),
    )

    def test_an_exit_refuses_its_row_alone(self):
        for error, message in self.EXITS:
            def of_two(value, state):
                state.put("seen", value)
                if value == 2:
                    raise error
                return "out"

            def both(value, state):
                yield of_two(value, state)

            route = rustmq.route("out")
            for module in (rustmq.map(of_two), rustmq.filter(of_two), route(of_two), rustmq.flat_map(both)):
                lane = testing.Lane(module)
                out = lane.run([1, 2])
                self.assertEqual([row.parent for row in out.rows], [0])
                (row, code, said), = refusals(out)
                self.assertEqual((row, code, said[:len(message)]), (1, "error", message))
                self.assertEqual(lane.get("seen"), 1)

    def test_timers_and_migrations_do_not_exit_either(self):
        @rustmq.map(state_schema=2)
        def sets(value, state):
            state.set_timer("k", 1)

        @sets.on_timer
        def over(key, time):
            sys.exit("over")

        @sets.migrate(1)
        def old(key, value, state):
            sys.exit("old")

        out = testing.Lane(sets).run([Row(1, event_time=5)])
        self.assertRegex(refusals(out)[0][2], "^SystemExit: over; .*, in over")
        with self.assertRaisesRegex(rustmq.Failure, 'key "a": SystemExit: old; .*, in old'):
            testing.Lane(sets).migrate(1, {"a": 1})

    def test_who_stops_the_tests_does(self):
        stopped = raising(KeyboardInterrupt("enough"))
        with self.assertRaises(KeyboardInterrupt):
            run(stopped, [1])
        with mock.patch.object(_record, "INTERRUPTS", _record.INTERRUPTS):
            _sandbox.uninterrupted()
            self.assertEqual(refusals(run(stopped, [1]))[0][1], "error")


class Numbers(unittest.TestCase):
    def test_times_to_wait(self):
        for after, fits in ((-1, 0), (0.5, 1), (7, 7), ("7", 7), (float("nan"), 0), (2**40, 2**32 - 1), (float("inf"), 2**32 - 1)):
            self.assertEqual(rustmq.Retry(after, "later").after_ms, fits)
        for after, fits in (("7", 7000), ("9" * 5000, 2**32 - 1), ("²", 1000), ("soon", 1000)):
            with self.assertRaises(rustmq.Retry) as later:
                http.Response(429, headers={"retry-after": after}).ok()
            self.assertEqual(later.exception.after_ms, fits)

    def test_a_counter_takes_whole_numbers_that_do_not_shrink_it(self):
        seen = rustmq.Counter("seen_amounts")

        @rustmq.map
        def counts(value):
            seen.add({"huge": 2**70, "true": True}.get(value, value))

        out = run(counts, [3, -1, 0.5, Row('"x"'), 4])
        self.assertEqual([(refused.row, refused.code) for refused in out.rejects], [(i, "error") for i in (1, 2, 3)])
        self.assertEqual(out.counters, {"seen_amounts": 7})
        self.assertEqual(run(counts, [Row('"huge"')]).counters, {"seen_amounts": 2**64 - 1})

    def test_a_time_beyond_64_bits_refuses_its_row_alone(self):
        @rustmq.map
        def timed(value):
            return rustmq.Record(value, event_time=value)

        @rustmq.map
        def sets(value, meta, state):
            state.set_timer("k", value)
            state.clear_timer("j", value)

        for module in (timed, sets):
            out = run(module, [2**63 - 1, 2**63, -2**63, -2**63 - 1, 5])
            self.assertEqual([(refused.row, refused.code) for refused in out.rejects], [(1, "encode"), (3, "encode")])
        self.assertEqual([row.event_time for row in run(timed, [-2**63, 2**64, 7]).rows], [-2**63, 7])


class Async(unittest.TestCase):
    def test_async_functions_are_no_modules(self):
        async def one(value):
            return value

        async def many(value):
            yield value

        async def work(rows, out):
            pass

        async def over(key, time):
            pass

        async def old(key, value, state):
            pass

        keeping = rustmq.map(state_schema=2)(lambda value, state: value)
        for wrong in (
            lambda: rustmq.map(one), lambda: rustmq.filter(one), lambda: rustmq.flat_map(many),
            lambda: rustmq.route("a")(one), lambda: rustmq.batch(work), lambda: keeping.on_timer(over),
            lambda: keeping.migrate(1)(old),
        ):
            with self.assertRaisesRegex(TypeError, "not `async`"):
                wrong()

    def test_what_nobody_awaits_is_refused(self):
        for module in (rustmq.map(hidden_row), rustmq.filter(hidden_row), rustmq.flat_map(hidden_row),
                       rustmq.route("out")(hidden_row)):
            self.assertEqual([refused.code for refused in run(module, [1]).rejects], ["encode"])
        with self.assertRaisesRegex(rustmq.Failure, "nobody awaits"):
            run(rustmq.batch(lambda rows, out: hidden_row(rows)), [1])
        keeping = rustmq.map(state_schema=2)(lambda value, state: value)
        keeping.migrate(1)(lambda key, value, state: hidden_row(value))
        with self.assertRaisesRegex(rustmq.Failure, "nobody awaits"):
            testing.Lane(keeping).migrate(1, {"a": 1})


def hidden_row(value):
    async def later():
        return True

    return later()


if __name__ == "__main__":
    unittest.main()
