"""What stands for the host where a module runs natively, and the rows that go in and come out.

`testing` puts a `Host` in the place of `packed` and of the handles of batch and outbox, a `Store` in that of
`packed-state`, `Tables` in that of `lookup`, a `Sink` in that of `telemetry`.
"""

import json
import re
from array import array
from dataclasses import dataclass, field

from ._batch import Column
from ._record import NAME_BYTES_MAX, Failure, as_bytes
from ._typed import Bools, Floats, Ints
from ._typed_json import decode, encode


_METRIC = re.compile("[a-z][a-z0-9_]{0,63}")


@dataclass
class Row:
    """An input row. A value or key that is text is its bytes; any other value but bytes is written as JSON."""

    value: object
    key: object = None
    event_time: int = 0
    headers: dict = field(default_factory=dict)

    def __post_init__(self):
        if not isinstance(self.value, (bytes, bytearray, memoryview, str, type(None))):
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

    def add(self, more, parent):
        """What came of a second call, all of it from one row; what was told is told to one sink."""
        for row in more.rows:
            row.parent = parent
        for refused in more.rejects + more.retries:
            refused.row = parent
        self.rows += more.rows
        self.rejects += more.rejects
        self.retries += more.retries

class Sink:
    """Stands for the host's `telemetry`."""

    def __init__(self):
        self.lines, self.counters, self.histograms, self.names = [], {}, {}, []

    def enabled(self, level):
        return True

    def log(self, level, message, values):
        pairs = [f" {name}={value}" for name, value in zip(values[::2], values[1::2])]
        self.lines.append((level, message + "".join(pairs)))

    def counter(self, name):
        if _METRIC.fullmatch(name) is None:
            raise Failure("metric", f"a metric's name is `[a-z][a-z0-9_]*` of at most 64 bytes, not {name!r}")
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

    def give(self, outcome):
        """What was told so far."""
        outcome.log, outcome.counters, outcome.histograms = self.lines, self.counters, self.histograms


class Tables:
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


class Context:
    """What a node would declare, and what the module says of its columns."""

    def __init__(self, params, outputs):
        self.text, self.ports = params, outputs
        self.selected, self.declared = None, {}

    def params(self):
        return self.text

    def inputs(self):
        return ["in"]

    def outputs(self):
        return self.ports

    def select(self, _, fields):
        self.selected = fields

    def declare(self, port, fields):
        self.declared[port] = fields

class Store:
    """Stands for the host's `packed-state`: what a lane keeps."""

    def __init__(self, entries=(), timers=()):
        self.entries, self.set = dict(entries), set(timers)

    def get(self, keys):
        return Column.of([self.entries.get(key) for key in keys])

    def put(self, keys, values):
        for key, value in zip(keys, values):
            if value is None:
                self.entries.pop(key, None)
            else:
                self.entries[key] = value

    def scan(self, prefix, after, limit):
        keys = sorted(key for key in self.entries if key.startswith(prefix) and (after is None or key > after))
        keys = keys[:limit]
        return Column.of(keys), Column.of([self.entries[key] for key in keys])

    def timers(self, keys, times, on):
        change = self.set.add if on else self.set.discard
        for timer in zip(times, keys):
            change(timer)

    def due(self, watermark):
        """Those that the watermark has passed, in order; they are set no more."""
        due = sorted(timer for timer in self.set if timer[0] <= watermark)
        self.set.difference_update(due)
        return due


@dataclass
class _Numbers:
    values: bytes
    validity: bytes = b""


class Host:
    """Stands for the host's `packed`, and for the handles of batch and outbox: of the rows that fit what
    the module selects."""

    Column, Numbers, Bools = Column, _Numbers, _Numbers

    def __init__(self, rows, context, watermark=None):
        self.calls, self.context, self.unfit, self.given = [], context, [], watermark
        self.ports = len(context.ports)
        fields = context.selected or ()
        self.numbers, cells = [], []
        for number, row in enumerate(rows):
            try:
                cells.append(decode(row.value, fields))
                self.numbers.append(number)
            except ValueError as error:
                self.unfit.append(Refused(number, "schema", str(error)))
        self.rows = [rows[number] for number in self.numbers]
        self.cells = [[row[at] for row in cells] for at in range(len(fields))]

    def len(self):
        return len(self.rows)

    def input(self):
        return 0

    def watermark(self):
        if self.given is not None:
            return self.given
        return min((row.event_time for row in self.rows), default=0)

    def keys(self, _):
        return _packed([row.key for row in self.rows])

    def values(self, _):
        return _packed([row.value for row in self.rows])

    def header(self, _, name):
        _text(name)
        return _packed([row.headers.get(name) for row in self.rows])

    def event_times(self, _):
        return array("q", [row.event_time for row in self.rows]).tobytes()

    def offsets(self, _):
        return array("Q", range(len(self.rows))).tobytes()

    def get_bools(self, _, column):
        return Bools.of(self._selected(column, "bool")).pack(self)

    def get_ints(self, _, column):
        return Ints.of(self._selected(column, "int64", "timestamp")).pack(self)

    def get_floats(self, _, column):
        return Floats.of(self._selected(column, "float64")).pack(self)

    def get_bytes(self, _, column):
        cells = self._selected(column, "string", "bytes")
        return _packed([cell.encode() if isinstance(cell, str) else cell for cell in cells])

    def _selected(self, column, *kinds):
        fields = self.context.selected or ()
        assert column in range(len(fields)), f"column {column!r}, but the module selects {len(fields)}"
        field = fields[column]
        assert field.kind in kinds, f"field `{field.name}` was selected as {field.kind}"
        return self.cells[column]

    def forward(self, _, port, rows):
        self._port("forward", port)
        self.calls.append(_Call("forward", port, self._numbers(rows)))

    def emit(self, _, port, parents, keys, values):
        self._port("emit", port)
        emitted = _Call("emit", port, self._numbers(parents))
        rows = len(emitted.parents)
        emitted.keys, emitted.values = _fits("emit: keys", _cells(keys), rows), _fits("emit: values", _cells(values), rows)
        self.calls.append(emitted)

    def emit_columns(self, _, port, parents):
        self._port("emit", port)
        assert port in self.context.declared, f"no fields were declared for port {port} in `open`"
        parents = list(range(len(self.rows))) if parents is None else self._numbers(parents)
        self.calls.append(_Call("emit", port, parents, columns={}))

    def set_keys(self, _, keys):
        self._last("set-keys").keys = self._fitting("set-keys", _cells(keys))

    def set_bools(self, _, column, values):
        rows = len(self._last("set-bools").parents)
        assert len(values.values) == (rows + 7) // 8, f"bools for {rows} rows"
        self._set(column, list(Bools.unpack(values, rows)), "bool")

    def set_ints(self, _, column, values):
        self._set(column, list(Ints.unpack(values)), "int64", "timestamp")

    def set_floats(self, _, column, values):
        self._set(column, list(Floats.unpack(values)), "float64")

    def set_bytes(self, _, column, values):
        self._set(column, _cells(values), "string", "bytes")

    def _set(self, column, cells, *kinds):
        emitted = self._last("set-column")
        assert emitted.columns is not None, "set-column: there is no emit of columns before it"
        fields = self.context.declared[emitted.port]
        assert column in range(len(fields)), f"column {column!r}, but the module declares {len(fields)}"
        field = fields[column]
        assert field.kind in kinds, f"field `{field.name}` was declared as {field.kind}"
        assert column not in emitted.columns, f"field `{field.name}` was set already"
        emitted.columns[column] = _fits(f"field `{field.name}`", cells, len(emitted.parents))

    def set_event_times(self, _, times):
        self._last("set-event-times").times = self._fitting("set-event-times", list(array("q", times)))

    def set_header(self, _, name, values):
        headers, size = self._last("set-header").headers, len(_text(name).encode())
        fits = 0 < size <= NAME_BYTES_MAX
        assert fits, f"set-header: a name of {size} bytes, it must have 1 to {NAME_BYTES_MAX}"
        headers.append((name, self._fitting("set-header", _cells(values))))

    def reject(self, _, rows, code, message):
        self._refuse("reject", rows, code, message)

    def retry(self, _, rows, after_ms, code, message):
        self._refuse("retry", rows, code, message)

    def _refuse(self, kind, rows, code, message):
        refused = [Refused(row, _text(code), _text(message)) for row in self._numbers(rows)]
        self.calls.append(_Call(kind, refused=refused))

    def _numbers(self, packed):
        rows = list(array("I", packed))
        for row in rows:
            assert row < len(self.rows), f"row {row}, but the batch has {len(self.rows)} rows"
        return rows

    def _port(self, call, port):
        assert port in range(self.ports), f"{call}: port {port!r}, but {self.ports} outputs"

    def _last(self, call):
        """The emit that this call adds to."""
        assert self.calls and self.calls[-1].kind == "emit", f"{call}: there is no emit before it"
        return self.calls[-1]

    def _fitting(self, call, cells):
        return _fits(call, cells, len(self._last(call).parents))

    def settle(self, ports):
        """Puts the calls together as the host does."""
        outcome = Outcome()
        for call in self.calls:
            if call.kind in ("reject", "retry"):
                (outcome.rejects if call.kind == "reject" else outcome.retries).extend(call.refused)
            else:
                outcome.rows.extend(self._sent(ports[call.port], call))
        refused = {refused.row for refused in outcome.rejects}
        first = min((refused.row for refused in outcome.retries), default=len(self.rows))
        outcome.rows = [row for row in outcome.rows if row.parent < first and row.parent not in refused]
        # from numbers of the batch to those of the rows that were given
        for row in outcome.rows:
            row.parent = self.numbers[row.parent]
        for refused in outcome.rejects + outcome.retries:
            refused.row = self.numbers[refused.row]
        outcome.rejects = sorted(outcome.rejects + self.unfit, key=lambda refused: refused.row)
        return outcome

    def _sent(self, port, call):
        for i, parent in enumerate(call.parents):
            row = self.rows[parent]
            if call.kind == "forward":
                yield OutRow(port, parent, row.key, row.value, row.event_time, dict(row.headers))
                continue
            own = {name: cells[i] for name, cells in call.headers if cells[i] is not None}
            key = row.key if call.keys is None else call.keys[i]
            time = row.event_time if call.times is None else call.times[i]
            yield OutRow(port, parent, key, self._value(call, i), time, {**row.headers, **own})

    def _value(self, call, i):
        if call.columns is None:
            return call.values[i]
        fields = self.context.declared[call.port]
        cells = [call.columns[at][i] if at in call.columns else None for at in range(len(fields))]
        return encode(fields, cells)


@dataclass
class _Call:
    """One call into the outbox, with what later calls set on it."""

    kind: str
    port: int = 0
    parents: list = field(default_factory=list)
    keys: object = None
    values: object = None
    columns: object = None
    times: object = None
    headers: list = field(default_factory=list)
    refused: list = field(default_factory=list)


def _fits(what, cells, rows):
    assert len(cells) == rows, f"{what}: {len(cells)} values for {rows} rows"
    return cells


def _text(value):
    """What the contract takes as a string."""
    value.encode()
    return value


def _packed(values):
    column = Column.of(values)
    return Column(column.offsets.tobytes(), column.data, column.validity)


def _cells(packed):
    column = Column.unpack(packed)
    return [column.get(row) for row in range(len(column))]
