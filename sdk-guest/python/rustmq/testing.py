"""Runs a module natively, on rows written by hand: `python -m unittest` needs no broker, no WebAssembly.

    out = rustmq.testing.run(tidy, [{"carrier": "UA", "delay": 90}, "not json"])
    assert out.json("out") == [{"carrier": "UA", "hours": 1.5}]
    assert out.rejects[0].code == "json"

The same code and the same loops as in the sandbox; the same rules too: a refused row has no output. Each
run is also a case of `rustmq module test`, which puts the same rows through the component.
"""

import json
import os
import sys
import time
from array import array
from dataclasses import dataclass, field

from . import _lookup, _telemetry
from ._batch import Batch, Column, Outbox
from ._module import run as _run_batch
from ._record import as_bytes


TIMED_NS = 300_000_000
"""How long a case is timed where `RUSTMQ_BENCH` asks for it."""


@dataclass
class Row:
    """An input row. A value or key that is text is its bytes; any other value but bytes is written as JSON."""

    value: object
    key: object = None
    event_time: int = 0
    headers: dict = field(default_factory=dict)

    def __post_init__(self):
        if not isinstance(self.value, (bytes, str, type(None))):
            self.value = json.dumps(self.value, ensure_ascii=False, separators=(",", ":"))
        self.value, self.key = as_bytes(self.value), as_bytes(self.key)
        self.headers = {name: as_bytes(value) for name, value in self.headers.items()}


@dataclass
class OutRow:
    """A row that came out; `parent` is the number of the input row it came from."""

    port: str
    parent: int
    key: bytes
    value: bytes
    event_time: int
    headers: dict

    @property
    def text(self):
        return (self.value or b"").decode()


@dataclass
class Refused:
    """A row that was rejected, or is to be tried again."""

    row: int
    code: str
    message: str


@dataclass
class Outcome:
    """All that came of a batch."""

    rows: list = field(default_factory=list)
    rejects: list = field(default_factory=list)
    retries: list = field(default_factory=list)
    log: list = field(default_factory=list)
    counters: dict = field(default_factory=dict)
    histograms: dict = field(default_factory=dict)

    def on(self, port="out"):
        return [row for row in self.rows if row.port == port]

    def texts(self, port="out"):
        return [row.text for row in self.on(port)]

    def json(self, port="out"):
        return [json.loads(row.text) for row in self.on(port)]


def run(module, rows, params=None, outputs=("out",), lookups=None):
    """Opens the module and gives it the rows as one batch. Raises what the module raises as a whole.

    `lookups` are the tables that the node declares: `{"users": {"ann": {"city": "Ghent"}}}`. Values that are
    neither text nor bytes are written as JSON.
    """
    rows = [row if isinstance(row, Row) else Row(row) for row in rows]
    params = "" if params is None else json.dumps(params)
    sink = _Sink()
    _telemetry.register(sink)
    tables = _Tables(lookups or {})
    _lookup.register(tables, tables.table)
    asked = len(_asked)
    module.open(params, list(outputs))
    host = _Host(rows)
    _run_batch(module, Batch(host, host), Outbox(host, host))
    outcome = host.settle(list(outputs))
    outcome.log, outcome.counters, outcome.histograms = sink.lines, sink.counters, sink.histograms
    if len(_asked) == asked:  # nobody answers requests of a case
        _record(module, params, list(outputs), rows, outcome, tables)
    return outcome


_asked = []


def http(answers):
    """Who answers the requests that modules make from now on: a function of a `rustmq.http.Request`."""
    from . import http as requests

    def send(made):
        _asked.extend(made)
        return [_answered(answers, request, requests.Error) for request in made]

    requests._Host.send = send


def _answered(answers, request, error):
    try:
        answer = answers(request)
    except error as refused:
        return refused
    answer.url = answer.url or request.url
    return answer


def _nanoseconds_per_row(module, rows):
    """What the batch costs, for `rustmq module bench`."""
    _telemetry.register(_Sink())  # what it tells here is not the test's
    took, calls = 0, 0
    while took < TIMED_NS:
        host = _Host(rows)
        batch, out = Batch(host, host), Outbox(host, host)
        began = time.perf_counter_ns()
        _run_batch(module, batch, out)
        took, calls = took + time.perf_counter_ns() - began, calls + 1
    return took / calls / len(rows)


class _Sink:
    def __init__(self):
        self.lines, self.counters, self.histograms, self.names = [], {}, {}, []

    def enabled(self, level):
        return True

    def log(self, level, message, values):
        pairs = [f" {name}={value}" for name, value in zip(values[::2], values[1::2])]
        self.lines.append((level, message + "".join(pairs)))

    def counter(self, name):
        self.names.append(name)
        return len(self.names) - 1

    def histogram(self, name, bounds):
        return self.counter(name)

    def add(self, ids, amounts):
        for metric, amount in zip(ids, amounts):
            name = self.names[metric]
            self.counters[name] = self.counters.get(name, 0) + amount

    def observe(self, metric, values):
        self.histograms.setdefault(self.names[metric], []).extend(values)


class _Tables:
    """Stands for the host's lookup tables."""

    Column = Column

    def __init__(self, tables):
        self.names = list(tables)
        self.entries = [{as_bytes(k): Row(v).value for k, v in t.items()} for t in tables.values()]

    def table(self, name):
        # tests may load several modules: only one that asks for a table needs it
        return self.names.index(name) if name in self.names else None

    def lookup(self, number, keys):
        entries = self.entries[number]
        return _packed([entries.get(key) for key in _cells(keys)])


class _Host:
    """Stands for the host's `packed`, and for the handles of batch and outbox."""

    Column = Column

    def __init__(self, rows):
        self.rows, self.calls = rows, []

    def len(self):
        return len(self.rows)

    def input(self):
        return 0

    def watermark(self):
        return min((row.event_time for row in self.rows), default=0)

    def keys(self, _):
        return _packed([row.key for row in self.rows])

    def values(self, _):
        return _packed([row.value for row in self.rows])

    def header(self, _, name):
        return _packed([row.headers.get(name) for row in self.rows])

    def event_times(self, _):
        return array("q", [row.event_time for row in self.rows]).tobytes()

    def offsets(self, _):
        return array("Q", range(len(self.rows))).tobytes()

    def forward(self, _, port, rows):
        self.calls.append(("forward", port, self._numbers(rows)))

    def emit(self, _, port, parents, keys, values):
        parents = self._numbers(parents)
        self.calls.append(["emit", port, parents, _cells(keys), _cells(values), None, []])

    def set_event_times(self, _, times):
        self.calls[-1][5] = list(array("q", times))

    def set_header(self, _, name, values):
        self.calls[-1][6].append((name, _cells(values)))

    def reject(self, _, rows, code, message):
        self.calls.append(("reject", self._numbers(rows), code, message))

    def retry(self, _, rows, after_ms, code, message):
        self.calls.append(("retry", self._numbers(rows), code, message))

    def _numbers(self, packed):
        rows = list(array("I", packed))
        for row in rows:
            assert row < len(self.rows), f"row {row}, but the batch has {len(self.rows)} rows"
        return rows

    def settle(self, ports):
        """Puts the calls together as the host does."""
        outcome, sent = Outcome(), []
        for kind, *rest in self.calls:
            if kind in ("reject", "retry"):
                rows, code, message = rest
                kept = outcome.rejects if kind == "reject" else outcome.retries
                kept.extend(Refused(row, code, message) for row in rows)
            else:
                sent.extend(self._sent(ports, kind, *rest))
        refused = {refused.row for refused in outcome.rejects}
        first = min((refused.row for refused in outcome.retries), default=len(self.rows))
        outcome.rows = [row for row in sent if row.parent < first and row.parent not in refused]
        outcome.rejects.sort(key=lambda refused: refused.row)
        return outcome

    def _sent(self, ports, kind, port, parents, keys=None, values=None, times=None, headers=()):
        for i, parent in enumerate(parents):
            row = self.rows[parent]
            if kind == "forward":
                yield OutRow(ports[port], parent, row.key, row.value, row.event_time, dict(row.headers))
                continue
            own = {name: cells[i] for name, cells in headers if cells[i] is not None}
            time = row.event_time if times is None else times[i]
            yield OutRow(ports[port], parent, keys[i], values[i], time, {**row.headers, **own})


def _packed(values):
    column = Column.of(values)
    return Column(column.offsets.tobytes(), column.data, column.validity)


def _cells(packed):
    column = Column.unpack(packed)
    return [column.get(row) for row in range(len(column))]


def _record(module, params, outputs, rows, outcome, tables):
    """A case for `rustmq module test`, which says where it wants them."""
    path, main = os.environ.get("RUSTMQ_CASES"), sys.modules.get("module")
    if not path or main is None or all(value is not module for value in vars(main).values()):
        return  # nobody asks, or it is not the module of module.py
    case = {
        "params": params, "outputs": outputs,
        "lookups": {name: [[_shown(key), _shown(value)] for key, value in entries.items()]
                    for name, entries in zip(tables.names, tables.entries)},
        "rows": [{"key": _shown(r.key), "value": _shown(r.value), "event_time": r.event_time,
                  "headers": _headers(r.headers)} for r in rows],
        "out": [{"port": r.port, "parent": r.parent, "key": _shown(r.key), "value": _shown(r.value),
                 "event_time": r.event_time, "headers": _headers(r.headers)} for r in outcome.rows],
        "rejects": [vars(refused) for refused in outcome.rejects],
        "retries": [vars(refused) for refused in outcome.retries],
    }
    if os.environ.get("RUSTMQ_BENCH") and rows:
        case["native_ns"] = _nanoseconds_per_row(module, rows)
    with open(path, "a", encoding="utf-8") as cases:
        cases.write(json.dumps(case, ensure_ascii=False) + "\n")


def _shown(value):
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"hex": value.hex()}


def _headers(headers):
    return [[name, _shown(value)] for name, value in headers.items()]
