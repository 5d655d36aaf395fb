"""The decorators, and the loops over rows.

A row's error, of any class, refuses that row; a retry ends the batch there; rows refused one after the other
for the same reason share a call; rows are collected by port, so that a port's order is that of the input.
What a refused row changed of the state is taken back.
"""

import inspect
import json

from . import _telemetry
from ._batch import Batch, Column, Meta, Outbox
from ._json import dumps
from ._keeping import Keeping
from ._record import (
    INHERITED, Failure, Record, Reject, Retry, micros, reason, refuse_async, sent_headers, sent_key, settled,
    told,
)
from ._row import of as _row_of
from ._row import taken as _row_taken
from ._row import within as _row_within
from ._state import State
from ._take import annotations, by_place, known_extras, take


def map(function=None, *, params=None, state_schema=None):
    """One row to one: what is returned is the new value; `None` drops the row.

    `params` is the JSON Schema of the node's params, if you want them checked. `state_schema` is the version of
    how the function keeps what it keeps, 1 where it has a parameter `state` and does not say.
    """
    return _decorated(function, _Map, params, state_schema)


def flat_map(function=None, *, params=None, state_schema=None):
    """One row to many: what is returned, or yielded, one after the other."""
    return _decorated(function, _FlatMap, params, state_schema)


def filter(function=None, *, params=None, state_schema=None):
    """Keeps the rows for which it returns true, as they are."""
    return _decorated(function, _Filter, params, state_schema)


def route(*ports, params=None, state_schema=None):
    """Sends each row as it is to the output whose name is returned: `@rustmq.route("small", "big")`."""
    if not ports or not all(isinstance(port, str) for port in ports):
        raise TypeError('name the outputs: @rustmq.route("small", "big")')
    return lambda function: _Route(function, params, state_schema, list(ports))


def batch(function=None, *, select=None, declare=None, params=None, state_schema=None):
    """Whole batches: `def work(rows, out)`, with `rustmq.Batch` and `rustmq.Outbox`; further parameters, by
    their names: `params` and `state`.

    `select` is the row class whose fields `rows` has as columns, `declare` that of what `out` is given as
    columns: of every output, or by output `{"out": Late}`.
    """
    def made(function):
        return _Batch(function, params, state_schema, select=select, declare=declare)
    return made if function is None else made(function)


def _decorated(function, kind, params, state_schema):
    if function is None:
        return lambda function: kind(function, params, state_schema)
    return kind(function, params, state_schema)


class Module(Keeping):
    """A function that has become a module; it can still be called."""

    makes_rows = False
    many = False

    def __init__(self, function, params=None, state_schema=None, ports=None):
        self.function, self.params_schema, self.ports_named = refuse_async(function), params, ports
        self._by_place = by_place(function)
        self.__name__, self.__doc__ = function.__name__, function.__doc__
        self._params, self._ports = {}, ["out"]
        # version of how it keeps state, and by older version what takes over from it; the state of a call
        self.state_schema, self.migrations, self.state = state_schema, {}, None
        # what is called when timers fire, and its further parameters
        self._timer = None
        # row classes of what comes in and of what goes out, where they are typed columns
        self._selected = self._declared = None
        # by port, why its rows cannot be columns
        self._closed = {}
        self._read_signature()
        self._check_schema()

    def __call__(self, *args, **kwargs):
        return self.function(*args, **kwargs)

    def open(self, context):
        """`context` has what the node declares, and takes what the module says of its columns."""
        self._ports = list(context.outputs())
        if not self._ports:
            raise Failure("outputs", "the node declares no outputs")
        try:
            self._params = json.loads(context.params() or "{}")
        except ValueError as error:
            raise Failure("params", f"the node's params are not JSON: {error}") from None
        if self._selected is not None:
            for number in range(len(context.inputs())):
                context.select(number, self._selected.fields)
        self._closed = {}
        for port, name in enumerate(self._ports):
            declared = self._declared_for(name)
            if declared is None:
                continue
            try:
                context.declare(port, declared.fields)
            except Failure as failure:
                # rows go to the first output unless they say otherwise
                if port == 0:
                    raise
                self._closed[port] = failure

    def _declared_for(self, output):
        return self._declared

    @property
    def selected(self):
        """The fields that `process` has of each input as columns."""
        return self._selected.fields if self._selected else ()

    @property
    def declared(self):
        """By port, the fields that it sets as columns."""
        declared = [self._declared_for(name) for name in self._ports]
        return [rows.fields if rows else () for rows in declared]

    def process(self, rows, out):
        raise NotImplementedError

    def timers(self, fired, out):
        """The watermark has passed these."""
        if self._timer is not None:
            self._make(fired, out, self._each_timer(fired))

    def _read_signature(self):
        wanted = list(inspect.signature(self.function).parameters.values())
        if not wanted:
            raise TypeError(f"{self.__name__}: the first parameter is the record's value")
        notes = annotations(self.function)
        first = notes.get(wanted[0].name)
        (self._selected, self._may_lack), self._take = _row_taken(self.__name__, first), take(first)
        if self.makes_rows:
            self._declared = _row_within(notes.get("return"))
        extras = [parameter.name for parameter in wanted[1:]]
        self._extras = known_extras(self.__name__, extras, ("meta", "state", "params"))

    def _each(self, rows):
        """A function of a row's number that calls the module's function with that row."""
        function, state = self._by_place, self.state
        value = self._selected.take(rows, self._may_lack) if self._selected else self._take(rows.values())
        if not self._extras:
            return lambda row: function(value(row))
        makers = {"meta": lambda row: Meta(rows, row), "params": lambda row: self._params}
        makers["state"] = lambda row: state
        makers = [makers[name] for name in self._extras]
        return self._kept(rows, lambda row: function(value(row), *[make(row) for make in makers]))

    def _each_timer(self, fired):
        """The same of timers."""
        function, extras = self._timer
        keys, times, more = fired.keys(), fired.event_times(), self._given(extras)
        return self._kept(fired, lambda row: function(keys.get(row), times[row], *more))

    def _given(self, extras):
        """Further arguments that are the same for a whole call, by their names."""
        return [self.state if name == "state" else self._params for name in extras]

    def _kept(self, rows, each):
        """What stands at the rows' keys is fetched at once, and what a row changes can be taken back."""
        state = self.state
        if state is None:
            return each
        state.fetch(rows.keys())

        def kept(row):
            state.begin_row()
            return each(row)
        return kept

    def _make(self, rows, out, each):
        """The loop of functions that make rows."""
        way = _Rows(self._declared, self.state is not None) if self._declared else _Values
        refusals, made = _Refusals(out, self.state), [_Made(way) for _ in self._ports]
        check, many = way.check, self.many
        parents, values = made[0].parents, made[0].values
        for row in range(len(rows)):
            try:
                returned = each(row)
                if returned is None:
                    continue
                if many and not hasattr(returned, "__iter__"):
                    settled(returned)
                for value in returned if many else (returned,):
                    if isinstance(value, Record):
                        port = 0 if value.port is None else self._port(value.port)
                        made[port].put(row, value)
                    else:
                        value = check(value)
                        parents.append(row)
                        values.append(value)
            except BaseException as error:
                if refusals.add(row, error):
                    break
        refusals.flush()
        for port, of_port in enumerate(made):
            of_port.flush(port, rows, out, refusals)

    def _port(self, name):
        try:
            port = self._ports.index(name)
        except ValueError:
            known = ", ".join(self._ports)
            raise Reject("port", f'no output "{name}"; the node declares: {known}') from None
        if port in self._closed:
            raise Reject("port", self._closed[port].message)
        return port


class _Refusals:
    """Refused rows on their way."""

    def __init__(self, out, state):
        self.out, self.state, self.rows, self.why = out, state, [], ("", "")

    def add(self, row, error):
        """Says whether the batch ends here, as it does at a row to be tried again."""
        if self.state is not None:
            self.state.undo_row()
        if isinstance(error, Retry):
            self.out.retry([row], error.after_ms, *reason(error))
            return True
        why = reason(error)
        if why != self.why:
            self.flush()
            self.why = why
        self.rows.append(row)
        return False

    def flush(self):
        if self.rows:
            self.out.reject(self.rows, *self.why)
            self.rows = []


class _Values:
    """How what is returned goes out: as bytes, JSON for most."""

    check = staticmethod(dumps)

    @staticmethod
    def emit(port, made, rows, out, refusals):
        keys = rows.keys()
        if made.keys is not None:
            keys = made.all_keys(keys)
        elif not made.is_whole(rows):
            keys = keys.gather(made.parents)
        out.emit(port, made.parents, keys, Column.of(made.values))


class _Rows:
    """The same of rows as typed columns. Where state is kept, a row that cannot be one is found at once, since
    what it changed could not be taken back later."""

    def __init__(self, rows, at_once):
        self.rows, self.check = rows, rows.fitting if at_once else rows.checked

    def emit(self, port, made, rows, out, refusals):
        columns, unfit = self.rows.columns(made.values)
        for place, why in unfit.items():
            refusals.add(made.parents[place], Reject("encode", why))
        refusals.flush()
        out.emit_columns(port, None if made.is_whole(rows) else made.parents)
        for number, (cell, column) in enumerate(zip(self.rows.cells, columns)):
            cell.set(out, number, column)
        if made.keys is not None:
            out.set_keys(made.all_keys(rows.keys()))


class _Made:
    """What was made for one port so far; `None` while every row has its parent's."""

    __slots__ = ("way", "parents", "values", "keys", "times", "headers")

    def __init__(self, way):
        self.way, self.parents, self.values = way, [], []
        self.keys = self.times = self.headers = None

    def put(self, row, record):
        value = self.way.check(record.value)
        key = record.key if record.key is INHERITED else sent_key(record.key)
        headers = sent_headers(record.headers)
        time = None if record.event_time is None else micros(record.event_time)
        if key is not INHERITED:
            self.keys = self.keys or {}
            self.keys[len(self.parents)] = key
        if time is not None:
            self.times = self.times or {}
            self.times[len(self.parents)] = time
        for name, header in headers.items():
            self.headers = self.headers or {}
            self.headers.setdefault(name, {})[len(self.parents)] = header
        self.parents.append(row)
        self.values.append(value)

    def is_whole(self, rows):
        """Whether each row of the batch gave one, in order."""
        return len(self.parents) == len(rows) and self.parents == list(range(len(rows)))

    def all_keys(self, keys):
        own = self.keys
        return Column.of([own[i] if i in own else keys.get(p) for i, p in enumerate(self.parents)])

    def flush(self, port, rows, out, refusals):
        if not self.parents:
            return
        self.way.emit(port, self, rows, out, refusals)
        if self.times is not None:
            inherited, own = rows.event_times(), self.times
            out.set_event_times([own.get(i, inherited[p]) for i, p in enumerate(self.parents)])
        for name, own in (self.headers or {}).items():
            out.set_header(name, Column.of([own.get(i) for i in range(len(self.parents))]))


class _Making(Module):
    makes_rows = True

    def process(self, rows, out):
        self._make(rows, out, self._each(rows))


class _Map(_Making):
    pass


class _FlatMap(_Making):
    many = True


class _Filter(Module):
    def process(self, rows, out):
        refusals, kept, each = _Refusals(out, self.state), [], self._each(rows)
        for row in range(len(rows)):
            try:
                keep = each(row)
                if keep is True or (keep is not False and settled(keep)):
                    kept.append(row)
            except BaseException as error:
                if refusals.add(row, error):
                    break
        refusals.flush()
        if kept:
            out.forward(0, kept)


class _Route(Module):
    def process(self, rows, out):
        refusals, sent, each = _Refusals(out, self.state), [[] for _ in self._ports], self._each(rows)
        for row in range(len(rows)):
            try:
                sent[self._port(settled(each(row)))].append(row)
            except BaseException as error:
                if refusals.add(row, error):
                    break
        refusals.flush()
        for port, forwarded in enumerate(sent):
            if forwarded:
                out.forward(port, forwarded)


class _Batch(Module):
    def __init__(self, function, params=None, state_schema=None, select=None, declare=None):
        super().__init__(function, params, state_schema)
        self._selected = self._row(select)
        self._by_output = declare if isinstance(declare, dict) else None
        self._by_output = self._by_output and {name: self._row(rows) for name, rows in declare.items()}
        self._declared = None if self._by_output else self._row(declare)

    def _row(self, cls):
        rows = _row_of(cls)
        if rows is None and cls is not None:
            raise TypeError(f"{self.__name__}: {cls!r} is no row: put `@rustmq.row` above the class")
        return rows

    def _declared_for(self, output):
        return self._by_output.get(output) if self._by_output else self._declared

    def _read_signature(self):
        names = list(inspect.signature(self.function).parameters)
        if len(names) < 2 or set(names[2:]) - {"params", "state"}:
            wanted = "`rows`, `out` and, if wanted, `state` and `params`"
            raise TypeError(f"{self.__name__}: the parameters are {wanted}")
        self._extras = names[2:]

    def process(self, rows, out):
        self._work(self._by_place, self._extras, rows, out)

    def timers(self, fired, out):
        if self._timer is not None:
            self._work(*self._timer, fired, out)

    def _work(self, function, extras, rows, out):
        try:
            settled(function(rows, out, *self._given(extras)))
        except Reject as reject:  # of no row
            raise Failure(*told(reject)) from reject

    def on_timer(self, function):
        raise TypeError(f"{function.__name__}: a `batch` is given all timers at once, with `on_timers`")

    def on_timers(self, function):
        """Put above a function of `fired` and `out`, and by their names `state` and `params`, which is called with
        the timers that the watermark has passed: their keys are those of the rows, their times the event times."""
        return self._set_timers(function, ["fired", "out"])


def run(module, host, rows, out, kept=None, timers=False):
    """One call, with the handles of its batch and its outbox: what the module told, and what it changed of what
    it keeps, counts only if it ends well."""
    _telemetry.begin()
    state = module.state = None if module.state_schema is None else State(kept)
    rows, out = Batch(host, rows, () if timers else module.selected), Outbox(host, out, module.declared)
    (module.timers if timers else module.process)(rows, out)
    if state is not None:
        state.tell()
        module.state = None
    _telemetry.tell()


def find(namespace):
    """The one module of a file's names."""
    found = {id(value): value for value in namespace.values() if isinstance(value, Module)}
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        raise SystemExit("module.py defines no module: put `@rustmq.map` (or filter, flat_map, route) above a function")
    names = ", ".join(sorted(module.__name__ for module in found.values()))
    raise SystemExit(f"module.py defines more than one module: {names}; a component has one")
