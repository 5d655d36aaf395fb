"""Runs a module natively, on rows written by hand: `python -m unittest` needs no broker, no WebAssembly.

    out = rustmq.testing.run(tidy, [{"carrier": "UA", "delay": 90}, "not json"])
    assert out.json("out") == [{"carrier": "UA", "hours": 1.5}]
    assert out.rejects[0].code == "json"

The same code and the same loops as in the sandbox; the same rules too: a refused row has no output. Rows
read as columns are decoded from JSON as the host decodes them, columns are written as JSON. `Lane` runs a module
that keeps state, batch after batch. Each run of `module.py`'s own module, and each lane, is also a case of
`rustmq module test`, which puts the same rows through the component.
"""

import json
import os
import time

from . import _cases, _keeping, _lookup, _module, _telemetry
from ._batch import Column
from ._json import read
from ._native import Context, Host, Outcome, OutRow, Refused, Row, Sink, Store, Tables
from ._record import as_bytes

__all__ = ["Lane", "OutRow", "Outcome", "Refused", "Row", "http", "run"]

TIMED_NS = 300_000_000
"""How long a case is timed where `RUSTMQ_BENCH` asks for it."""

MIGRATION_ENTRIES = 1000
"""Entries that a module is given in one call, at most."""


def run(module, rows, params=None, outputs=("out",), lookups=None):
    """Opens the module and gives it the rows as one batch. Raises what the module raises as a whole.

    `lookups` are the tables that the node declares: `{"users": {"ann": {"city": "Ghent"}}}`. Values that are
    neither text nor bytes are written as JSON. One that keeps state begins with none; `Lane` gives it more than
    one batch.
    """
    if module.state_schema is not None:
        return Lane(module, params, outputs, lookups).run(rows)
    rows, context = _rows(rows), _context(params, outputs)
    sink, tables = _opened(module, context, lookups)
    asked = len(_asked)
    outcome = _call(module, rows, context)
    sink.give(outcome)
    if _cases.is_wanted(module) and len(_asked) == asked:  # nobody answers requests of a case
        batch = _cases.batch(rows, outcome, tables)
        timed = os.environ.get("RUSTMQ_BENCH") and rows
        _cases.record(context, batch, _nanoseconds_per_row(module, context, rows) if timed else None)
    return outcome


class Lane:
    """One lane of a module that keeps state: batch after batch, with all that it keeps.

        lane = rustmq.testing.Lane(count)
        lane.run([Row("tea", key="ann")])
        assert lane.get("ann") == 1

    As in the platform, timers fire after the batch that moved the watermark past them, each once, in the order of
    time and key; those set meanwhile wait for the next batch. `lateness_us` is the node's `lateness`; the others are
    as in `run`, and `lane.lookups` may be changed between batches.
    """

    def __init__(self, module, params=None, outputs=("out",), lookups=None, lateness_us=0):
        if module.state_schema is None:
            raise TypeError(f"{module.__name__} keeps no state: try it with `rustmq.testing.run`")
        self.module, self.context, self.lookups = module, _context(params, outputs), lookups
        self.lateness_us, self.watermark, self.store = lateness_us, -2**63, Store()
        # of a case: what it was given and what came of it
        self.batches, self.migrated, self.is_case, self.native_ns = [], None, True, None
        _opened(module, self.context, lookups)

    def migrate(self, schema, entries):
        """The module takes over what an older version kept, as it does before its first batch: values that are
        neither text nor bytes are written as JSON. Timers and watermark stay. Raises `rustmq.Failure` where it
        cannot: the platform then goes on with the old version, and the lane with what it had."""
        module, old = self.module, sorted((as_bytes(key), Row(value).value) for key, value in entries.items())
        if schema not in module.migrations:
            known = ", ".join(map(str, module.migrations)) or "none"
            raise ValueError(f"{module.__name__} takes over from schemas {known}, not from {schema}")
        _opened(module, self.context, self.lookups)
        store = Store(timers=self.store.set)
        for at in range(0, len(old), MIGRATION_ENTRIES):
            keys, values = zip(*old[at:at + MIGRATION_ENTRIES])
            _keeping.migrate(module, store, schema, Column.of(keys), Column.of(values))
        # a case migrates once, at its beginning
        self.is_case &= not self.batches and self.migrated is None
        self.migrated = {"schema": schema, "kept": _cases.entries(dict(old))}
        self.store = store
        return self

    def run(self, rows):
        """Gives the module a batch, and then the timers that it made due: what they emit has the batch's last row
        as its parent. Raises what the module raises as a whole, and keeps nothing of that batch."""
        rows, module = _rows(rows), self.module
        sink, tables = _opened(module, self.context, self.lookups)
        asked, store = len(_asked), Store(self.store.entries, self.store.set)
        outcome = _call(module, rows, self.context, store, self.watermark)
        newest = max((row.event_time - self.lateness_us for row in rows), default=self.watermark)
        watermark = max(self.watermark, newest)
        fired = [Row(None, key, time) for time, key in store.due(watermark)] if rows else []
        if fired:
            of_timers = _call(module, fired, self.context, store, watermark, timers=True)
            outcome.add(of_timers, max(len(rows) - 1, 0))
        before, begun = self.store, self.watermark
        self.store, self.watermark = store, watermark
        sink.give(outcome)
        self.is_case &= len(_asked) == asked  # nobody answers requests of a case
        if _cases.is_wanted(module):
            if not self.batches:
                _cases.keep(self)
                if rows and os.environ.get("RUSTMQ_BENCH"):
                    self.native_ns = _nanoseconds_per_row(module, self.context, rows, before, begun)
            self.batches.append(_cases.batch(rows, outcome, tables))
        return outcome

    def get(self, key, default=None):
        """What is kept at a key, read from JSON."""
        value = self.get_bytes(key)
        return default if value is None else read(value, "state", "what is kept")

    def get_bytes(self, key):
        return self.store.entries.get(as_bytes(key))

    @property
    def keys(self):
        """In the order of their bytes."""
        return sorted(self.store.entries)

    @property
    def timers(self):
        """Time and key of those that are set, in order."""
        return sorted(self.store.set)


def _rows(rows):
    return [row if isinstance(row, Row) else Row(row) for row in rows]


def _context(params, outputs):
    return Context("" if params is None else json.dumps(params), list(outputs))


def _opened(module, context, lookups):
    """Opens the module; what it tells from now on goes to the sink, what it looks up is in the tables."""
    sink, tables = Sink(), Tables(lookups or {})
    _telemetry.register(sink)
    _lookup.register(tables, tables.table)
    module.open(context)
    return sink, tables


def _call(module, rows, context, store=None, watermark=None, timers=False):
    host = Host(rows, context, watermark)
    _module.run(module, host, host, host, store, timers)
    return host.settle(context.ports)


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


def _nanoseconds_per_row(module, context, rows, store=None, watermark=None):
    """What the batch costs, for `rustmq module bench`; with the same state each time."""
    _telemetry.register(Sink())  # what it tells here is not the test's
    took, calls = 0, 0
    while took < TIMED_NS:
        host, kept = Host(rows, context, watermark), store and Store(store.entries, store.set)
        began = time.perf_counter_ns()
        _module.run(module, host, host, host, kept)
        took, calls = took + time.perf_counter_ns() - began, calls + 1
    return took / calls / len(rows)
