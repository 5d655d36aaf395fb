"""Rows of typed columns, natively through the harness: JSON in, columns, JSON out."""

import unittest
from array import array
from typing import Iterator, Optional
from unittest import mock

import rustmq
from rustmq import testing
from rustmq.testing import Row, run


@rustmq.row(rename={"kind": "type"})
class Flight:
    carrier: str
    dep_delay: float | None
    ts: rustmq.Timestamp
    kind: Optional[str] = None


@rustmq.row
class Late:
    """A flight that is late."""

    carrier: str
    hours: float
    due: rustmq.Timestamp
    known: bool = False

    def far(self):
        return self.hours > 1


@rustmq.map
def late(row: Flight) -> Late | None:
    if row.dep_delay is None:
        raise rustmq.Reject("delay", "no delay")
    if row.dep_delay > 15:
        due = row.ts + int(row.dep_delay) * 60_000_000
        return Late(row.carrier, row.dep_delay / 60, due, row.kind not in (None, "?"))
    return None


FLIGHTS = [
    '{"carrier":"UA","dep_delay":90,"ts":"2013-01-01T05:00:00Z","type":"A320"}',
    '{"carrier":"AA","dep_delay":1.5,"ts":0}',
    '{"dep_delay":16,"ts":0}',
    '{"carrier":"AA","ts":0}',
    '{"carrier":7,"dep_delay":20,"ts":0}',
    "not json",
    '{"carrier":"é","dep_delay":30,"ts":"1970-01-01T01:00:00.000001234+01:00","extra":[]}',
]


@rustmq.row
class Cells:
    text: str | None
    raw: bytes | None = None


def made_of(make):
    """What becomes of four rows that `make` makes of their numbers."""
    @rustmq.map
    def each(value) -> Cells:
        return make(value)

    out = run(each, range(4))
    return [(row.parent, row.text) for row in out.rows], [(r.row, r.message) for r in out.rejects]


def refused(outcome):
    return [(r.row, r.code, r.message) for r in outcome.rejects]


class Rows(unittest.TestCase):
    def test_a_map_reads_columns_and_makes_columns(self):
        out = run(late, FLIGHTS)
        self.assertEqual([(row.parent, row.text) for row in out.rows], [
            (0, '{"carrier":"UA","hours":1.5,"due":"2013-01-01T06:30:00.000000Z","known":true}'),
            (6, '{"carrier":"é","hours":0.5,"due":"1970-01-01T00:30:00.000001Z","known":false}'),
        ])
        self.assertEqual(refused(out)[:3], [
            (2, "null", "field `carrier` is null"),
            (3, "delay", "no delay"),
            (4, "schema", "field `carrier` (string): found 7"),
        ])
        self.assertEqual((out.rejects[3].row, out.rejects[3].code), (5, "schema"))

    def test_a_row_is_a_named_tuple_with_what_the_class_has(self):
        made = Late("UA", 1.5, due=0)
        self.assertEqual((made.known, made.far(), Late.__doc__), (False, True, "A flight that is late."))
        self.assertEqual(repr(made), "Late(carrier='UA', hours=1.5, due=0, known=False)")
        self.assertEqual(made._replace(hours=0.5).far(), False)
        with self.assertRaises(AttributeError):
            made.hours = 2

    def test_what_does_not_fit_refuses_its_row_alone(self):
        @rustmq.row
        class Given:
            n: int

        @rustmq.row
        class Made:
            n: int
            text: str | None
            flag: bool | None = None

        @rustmq.flat_map
        def each(row: Given) -> Iterator[rustmq.Record[Made]]:
            yield rustmq.Record(Made(row.n, None), key=str(row.n))
            yield {
                3: Made(None, "x"), 4: Made(1.5, "x"), 5: Made(2**63, "x"), 6: Made(6, "\udc80"),
                7: Made(7, b"x"), 8: Made(8, "x", 1), 9: {"n": 9},
            }.get(row.n, Made(-row.n, "é" * row.n, row.n == 1))

        out = run(each, [Row({"n": n}, key="k") for n in range(1, 10)])
        self.assertEqual([(row.parent, row.key, row.text) for row in out.rows], [
            (0, b"1", '{"n":1,"text":null,"flag":null}'),
            (0, b"k", '{"n":-1,"text":"é","flag":true}'),
            (1, b"2", '{"n":2,"text":null,"flag":null}'),
            (1, b"k", '{"n":-2,"text":"éé","flag":false}'),
        ])
        self.assertEqual([(r.row, r.code) for r in out.rejects], [(row, "encode") for row in range(2, 9)])
        self.assertEqual([r.message for r in out.rejects], [
            "field `n` is None, and its type does not say `| None`",
            "field `n`: int64 cannot be 1.5",
            "field `n`: int64 cannot be 9223372036854775808",
            "field `text`: string cannot be '\\udc80'",
            "field `text`: string cannot be b'x'",
            "field `flag`: bool cannot be 1",
            "the module makes rows of Made, but returned a dict",
        ])

    def test_a_cell_of_another_type_beside_none_refuses_its_row_alone(self):
        self.assertEqual(made_of(lambda n: Cells(["x", None, 5, b"x"][n])), ([
            (0, '{"text":"x","raw":null}'), (1, '{"text":null,"raw":null}'),
        ], [(2, "field `text`: string cannot be 5"), (3, "field `text`: string cannot be b'x'")]))

    def test_numbers_are_no_bytes(self):
        numbers = array("H", [1, 2])
        given = [numbers, b"\0", bytearray(b"\1"), memoryview(numbers)]
        self.assertEqual(made_of(lambda n: Cells(None, given[n])), ([
            (1, '{"text":null,"raw":"AA=="}'), (2, '{"text":null,"raw":"AQ=="}'),
        ], [(0, "field `raw`: bytes cannot be array('H', [1, 2])"), (3, mock.ANY)]))
        for values in ([numbers, b"x"], [numbers, None]):
            with self.assertRaisesRegex(TypeError, "items of more than a byte"):
                rustmq.Column.of(values)

    def test_records_of_rows_say_more(self):
        @rustmq.row
        class Number:
            n: int
            data: bytes | None

        @rustmq.flat_map
        def count(text: str, meta, params) -> Iterator[rustmq.Record[Number]]:
            yield rustmq.Record(Number(0, None))
            yield rustmq.Record(Number(params["factor"], b""), key="own", event_time=meta.event_time + 1)
            yield rustmq.Record(Number(2, b"\xff\xff"), headers={"n": "2"}, port="rest")

        out = run(count, [Row("abc", key="k", event_time=5)], params={"factor": 2}, outputs=["out", "rest"])
        self.assertEqual(out.texts("out"), ['{"n":0,"data":null}', '{"n":2,"data":""}'])
        self.assertEqual([(row.key, row.event_time) for row in out.rows], [(b"k", 5), (b"own", 6), (b"k", 5)])
        rest = out.on("rest")[0]
        self.assertEqual((rest.text, rest.headers), ('{"n":2,"data":"//8="}', {"n": b"2"}))

    def test_either_side_may_be_json(self):
        @rustmq.row
        class Number:
            n: int

        @rustmq.map
        def typed(row) -> Number:
            return Number(row["n"])

        self.assertEqual(run(typed, [{"n": 3}]).texts(), ['{"n":3}'])

        @rustmq.map
        def plain(row: Number):
            return {"n": row.n + 1}

        self.assertEqual(run(plain, [{"n": 3}, {"n": 4.0}]).json(), [{"n": 4}, {"n": 5}])
        not_said = rustmq.map(lambda row: Number(row["n"]))
        self.assertIn("say so: `-> Number`", run(not_said, [{"n": 3}]).rejects[0].message)

    def test_rows_are_passed_on_as_they_came(self):
        @rustmq.row
        class Number:
            n: int

        @rustmq.filter
        def small(row: Number) -> bool:
            return row.n < 10

        @rustmq.route("small", "large")
        def sizes(row: Number):
            return "small" if row.n < 10 else "large"

        rows = ['{"n":3,"more":1}', '{"n":30}', '{"n":null}']
        self.assertEqual(run(small, rows).texts(), ['{"n":3,"more":1}'])
        routed = run(sizes, rows, outputs=["small", "large"])
        self.assertEqual([row.port for row in routed.rows], ["small", "large"])
        self.assertEqual(refused(routed), [(2, "null", "field `n` is null")])


class Nothing(unittest.TestCase):
    """Records without a value, for those who say that they take them."""

    def test_a_row_may_be_none_where_the_record_has_no_value(self):
        rows = ['{"n":1}', None, "{}", '{"n":"x"}', '{"n":2}']

        @rustmq.row
        class Given:
            n: int | None

        @rustmq.row
        class Needed:
            n: int

        for cls, empty in ((Given, ["Given(n=None)"]), (Needed, [])):
            for annotation in (cls | None, Optional[cls], None | cls):
                @rustmq.map
                def shown(row: annotation):
                    return repr(row)

                out = run(shown, rows)
                name = cls.__name__
                self.assertEqual(out.json(), [f"{name}(n=1)", "None", *empty, f"{name}(n=2)"])
                codes = [(refused.row, refused.code) for refused in out.rejects]
                self.assertEqual(codes, [(3, "schema")] if empty else [(2, "null"), (3, "schema")])

    def test_without_or_none_it_is_a_row_of_nulls(self):
        @rustmq.map
        def shown(row: Some):
            return row.n

        self.assertEqual(run(rustmq.map(lambda row: row), [None]).rejects[0].code, "no-value")
        self.assertEqual(run(shown, [None, {"n": 5}]).texts(), ["5"])
        self.assertEqual(refused(run(late, [None])), [(0, "null", "field `carrier` is null")])

    def test_values_are_fetched_only_where_a_row_has_no_field(self):
        fetched = []

        @rustmq.filter
        def kept(row: Some | None):
            return row is None or row.n is not None

        class Counted(testing.Host):
            def values(self, handle):
                fetched.append(1)
                return super().values(handle)

        with mock.patch.object(testing, "Host", Counted):
            self.assertEqual(run(kept, ['{"n":1}', '{"x":1}']).texts(), ['{"n":1}'])
            self.assertEqual(fetched, [])
            self.assertEqual([row.value for row in run(kept, ["{}", None]).rows], [None])
            self.assertEqual(fetched, [1])

    def test_annotations_that_hold_a_row_otherwise_are_refused(self):
        def said(annotation, make=rustmq.map):
            def function(row):
                return row

            function.__annotations__ = {"row": annotation}
            with self.assertRaises(TypeError) as caught:
                make(function)
            return str(caught.exception)

        for annotation in (Late | dict, Iterator[Late], rustmq.Record[Late], Late | str | None):
            why = said(annotation)
            self.assertIn("function: a parameter of rows is annotated `Late` or `Late | None`, not `", why)
        self.assertIn("of one class", said(Late | Flight))

        def old(key, value: Late, state):
            pass

        keeping = rustmq.map(state_schema=2)(lambda value, state: value)
        with self.assertRaisesRegex(TypeError, "old: what was kept is no typed columns: .*`value`"):
            keeping.migrate(1)(old)

    def test_a_name_that_only_a_type_checker_knows_hides_no_other(self):
        def shown(row, params):
            return row.carrier

        shown.__annotations__ = {"row": "Late | None", "params": "OnlyForTheChecker", "return": "Late"}
        module = rustmq.map(shown)
        self.assertEqual([field.name for field in module.selected], ["carrier", "hours", "due", "known"])
        self.assertEqual([field.name for field in module.declared[0]], ["carrier", "hours", "due", "known"])
        shown.__annotations__ = {"row": "OnlyForTheChecker | None"}
        self.assertEqual(rustmq.map(shown).selected, ())


@rustmq.row
class Some:
    flag: bool | None
    n: int | None
    x: float | None
    text: str | None
    raw: bytes | None
    at: rustmq.Timestamp | None


class Columns(unittest.TestCase):
    def test_a_module_of_whole_columns(self):
        @rustmq.batch(select=Some, declare={"out": Some})
        def work(rows, out):
            out.emit_columns(0)
            out.set_bools("flag", rows.bools("flag"))
            out.set_ints("n", rows.ints(1))
            out.set_floats(2, [None if x is None else x * 2 for x in rows.floats("x")])
            out.set_bytes("text", rows.bytes("text").texts())
            out.set_bytes("raw", rows.bytes("raw"))
            out.set_ints("at", array("q", range(len(rows))))
            with self.assertRaisesRegex(KeyError, "no field 'y': the module selects flag, n, x"):
                rows.floats("y")

        for absent in range(1, 12):
            rows = [
                {"flag": i % 3 == 0, "n": i - 5, "x": i / 2, "text": "é" * (i % 3) + "x", "raw": "AAE=", "at": i}
                if i % absent != absent - 1 else {} for i in range(20)
            ]
            out = run(work, rows)
            for i, (given, made) in enumerate(zip(rows, out.json())):
                x = given.get("x")
                self.assertEqual(made, {
                    "flag": given.get("flag"), "n": given.get("n"), "x": None if x is None else x * 2,
                    "text": given.get("text"), "raw": given.get("raw"), "at": f"1970-01-01T00:00:00.{i:06}Z",
                })

    def test_columns_of_some_rows_on_some_outputs(self):
        @rustmq.batch(select=Some, declare={"rest": Some})
        def work(rows, out):
            numbers = rows.ints("n")
            self.assertEqual((numbers.get(0), numbers.get(1), len(numbers)), (3, None, 2))
            self.assertEqual(list(numbers), [3, None])
            out.emit_columns(1, [1, 1])
            out.set_keys(rustmq.Column.of([b"a", None]))
            out.set_floats("x", [1, float("inf")])
            out.set_header("h", rustmq.Column.of([None, b"h"]))

        out = run(work, [{"n": 3}, Row({}, key="k")], outputs=["out", "rest"])
        self.assertEqual([(row.key, row.headers) for row in out.rows], [(b"a", {}), (None, {"h": b"h"})])
        self.assertEqual([row["x"] for row in out.json("rest")], [1.0, None])
        self.assertEqual(out.json("rest")[0]["text"], None)

    def test_what_the_host_traps_on_fails_natively(self):
        column, one = rustmq.Column, rustmq.Column.of([b"x"])
        for work, why in (
            (lambda rows, out: out.forward(1, [0]), "port 1, but 1 outputs"),
            (lambda rows, out: out.emit(-1, [0], one, one), "port -1"),
            (lambda rows, out: out.emit("out", [0], one, one), "port 'out'"),
            (lambda rows, out: out.emit(0, [2], one, one), "row 2, but the batch has 2 rows"),
            (lambda rows, out: out.emit(0, [0, 1], one, one), "emit: keys: 1 values for 2 rows"),
            (lambda rows, out: out.emit(0, [0], one, column.of([])), "emit: values: 0 values for 1 rows"),
            (lambda rows, out: out.emit_columns(2), "port 2"),
            (lambda rows, out: (out.emit_columns(0), out.set_keys(one)), "set-keys: 1 values for 2 rows"),
            (lambda rows, out: (out.emit_columns(0), out.set_ints("n", [1])), "field `n`: 1 values for 2 rows"),
            (lambda rows, out: (out.emit_columns(0), out.set_ints(9, [1, 2])), "column 9, but the module declares 6"),
            (lambda rows, out: (out.emit(0, [0], one, one), out.set_ints(1, [1])), "no emit of columns before"),
            (lambda rows, out: (out.emit(0, [0], one, one), out.set_event_times([1, 2])), "2 values for 1 rows"),
            (lambda rows, out: (out.emit(0, [0], one, one), out.set_header("h", column.of([]))), "set-header: 0 values"),
            (lambda rows, out: (out.forward(0, [0]), out.set_event_times([1])), "no emit before"),
            (lambda rows, out: out.set_header("h", one), "no emit before"),
        ):
            with self.assertRaisesRegex(AssertionError, why):
                run(rustmq.batch(work, declare=Some), [1, 2])

    def test_columns_are_made_of_what_is_gone_through_once(self):
        for made in (rustmq.Column.of(each for each in (b"a", None, b"bc")),
                     rustmq.Column.of_texts(each for each in ("a", None, "bc"))):
            self.assertEqual(list(made), [b"a", None, b"bc"])
        self.assertEqual(list(rustmq.Column.of(iter([b"a", b"b"]))), [b"a", b"b"])

    def test_times_that_the_calendar_lacks(self):
        rows = [f'{{"at":"{at}"}}' for at in (
            "2013-02-30T00:00:00Z", "2013-01-01T24:00:00Z", "2013-01-01T23:59:59+25:00", "2012-02-29T23:59:59Z")]
        kept = rustmq.batch(lambda rows, out: out.forward(0, range(len(rows))), select=Some)
        self.assertEqual([(row.row, row.code) for row in run(kept, rows).rejects], [(i, "schema") for i in range(3)])

    def test_classes_that_are_no_rows_say_why(self):
        def said(make):
            with self.assertRaises(TypeError) as caught:
                make()
            return str(caught.exception)

        self.assertIn("at least one field", said(lambda: rustmq.row(type("Empty", (), {}))))
        made = lambda **hints: rustmq.row(type("Odd", (), {"__annotations__": hints}))  # noqa: E731
        self.assertIn("field 'n' may be bool, int", said(lambda: made(n=list)))
        self.assertIn("field 'n' may be bool, int", said(lambda: made(n=int | str)))
        self.assertIn("`rename` gives", said(lambda: made(_n=int)))
        self.assertIn("is no row", said(lambda: rustmq.batch(lambda rows, out: None, select=dict)))
        twice = type("Twice", (), {"__annotations__": {"a": int, "b": int}})
        self.assertIn("two fields are named 'b'", said(lambda: rustmq.row(twice, rename={"a": "b"})))
        self.assertIn("which is no field", said(lambda: rustmq.row(twice, rename={"c": "b"})))


if __name__ == "__main__":
    unittest.main()
