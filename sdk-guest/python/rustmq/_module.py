"""The decorators, and the loops over rows.

A row's error refuses that row; a retry ends the batch there; rows refused one after the other for the
same reason share a call; rows are collected by port, so the order of a port is the order of the input. What a refused
row changed of the state is taken back.
"""

import inspect
import json
import typing

from . import _telemetry
from ._batch import Batch, Column, Meta, Outbox
from ._json import dumps, loads
from ._record import INHERITED, Record, Reject, Retry, as_bytes
from ._row import of as _row_of
from ._row import within as _row_within
from ._state import State


class Failure(Exception):
    """Why a module cannot open, or a whole batch cannot be processed."""

    def __init__(self, code, message=""):
        super().__init__(code, message)
        self.code, self.message = str(code), str(message)


def map(function=None, *, params=None, state_schema=None):
    """One row to one: what is returned is the new value; `None` drops the row.

    `params` is the JSON Schema of the node's params, if you want them checked. `state_schema` is the version of how
    the function keeps what it keeps, 1 where it has a parameter `state` and does not say.
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
    """Whole batches: `def work(rows, out)`, with `rustmq.Batch` and `rustmq.Outbox`; further parameters, by their
    names: `params` and `state`.

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


class Module:
    """A function that has become a module; it can still be called."""

    makes_rows = False
    many = False

    def __init__(self, function, params=None, state_schema=None, ports=None):
        self.function, self.params_schema, self.ports_named = function, params, ports
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

    def on_timer(self, function):
        """Put above a function of a key and a time in microseconds, which is called for each timer that the watermark
        has passed; further parameters, by their names: `state` and `params`. What it returns goes out as what the
        module's own function returns, with the timer's key and time.

            @count.on_timer
            def over(key, time, state):
                return state.get(key)
        """
        return self._on_timers(function, ["key", "time"])

    def _on_timers(self, function, first):
        self._must_keep(function)
        wanted = list(inspect.signature(function).parameters)
        if len(wanted) < len(first):
            raise TypeError(f"{function.__name__}: the first parameters are `{'` and `'.join(first)}`")
        if self._timer is not None:
            raise TypeError(f"{function.__name__}: {self.__name__} has a function for its timers already")
        extras = self._known_extras(function.__name__, wanted[len(first):], ("state", "params"))
        made = _row_within(_annotations(function).get("return")) if first[0] == "key" else None
        if made is not None and self._declared is not None and made is not self._declared:
            raise TypeError(f"{made.name} and {self._declared.name}: the rows of a module are of one class")
        self._declared = made or self._declared
        self._timer = function, extras
        return function

    def migrate(self, schema):
        """Put above a function that takes over an entry of what an older version kept with that `state_schema`: of its
        key, its value (JSON, or by the annotation `bytes` or `str`) and the state, which is empty before the first entry;
        what it puts there is kept from now on.

            @spent.migrate(1)
            def euros(key, euros, state):
                state.put(key, euros * 100)
        """
        if isinstance(schema, bool) or not isinstance(schema, int):
            raise TypeError("say from which `state_schema`: @spent.migrate(1)")

        def taken(function):
            self._must_keep(function)
            wanted = list(inspect.signature(function).parameters)
            if len(wanted) != 3:
                raise TypeError(f"{function.__name__}: the parameters are `key`, `value` and `state`")
            if schema == self.state_schema or schema in self.migrations:
                raise TypeError(f"{function.__name__}: a migration is from an older schema, and each has one")
            self.migrations[schema] = function, _take(_annotations(function).get(wanted[1]))
            return function
        return taken

    def _must_keep(self, function):
        if self.state_schema is None:
            raise TypeError(f"{function.__name__}: {self.__name__} keeps no state: it takes no `state`")

    def _check_schema(self):
        """Of its state, which it keeps if it takes one."""
        if "state" in self._extras:
            self.state_schema = 1 if self.state_schema is None else self.state_schema
        elif self.state_schema is not None:
            raise TypeError(f"{self.__name__} keeps no state: it takes no `state`")
        schema = self.state_schema
        if schema is not None and (isinstance(schema, bool) or not isinstance(schema, int) or not 0 <= schema < 2**32):
            raise TypeError(f"{self.__name__}: `state_schema` is a number of 32 bits, not {schema!r}")

    @staticmethod
    def _known_extras(name, extras, known):
        for extra in extras:
            if extra not in known:
                listed = "`, `".join(known[:-1]) + "` nor `" + known[-1]
                raise TypeError(f"{name}: parameter {extra!r} is neither `{listed}`")
        return extras

    def _read_signature(self):
        wanted = list(inspect.signature(self.function).parameters.values())
        if not wanted:
            raise TypeError(f"{self.__name__}: the first parameter is the record's value")
        notes = _annotations(self.function)
        first = notes.get(wanted[0].name)
        self._selected, self._take = _row_of(first), _take(first)
        if self.makes_rows:
            self._declared = _row_within(notes.get("return"))
        extras = [parameter.name for parameter in wanted[1:]]
        self._extras = self._known_extras(self.__name__, extras, ("meta", "state", "params"))

    def _each(self, rows):
        """A function of a row's number that calls the module's function with that row."""
        function, state = self.function, self.state
        value = self._selected.take(rows) if self._selected else self._take(rows.values())
        if not self._extras:
            return lambda row: function(value(row))
        makers = {"meta": lambda row: Meta(rows, row), "params": lambda row: self._params, "state": lambda row: state}
        makers = [makers[name] for name in self._extras]
        return self._kept(rows, lambda row: function(value(row), *[make(row) for make in makers]))

    def _each_timer(self, fired):
        """The same of timers."""
        function, extras = self._timer
        keys, times = fired.keys(), fired.event_times()
        more = [self.state if name == "state" else self._params for name in extras]
        return self._kept(fired, lambda row: function(keys.get(row), times[row], *more))

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
                for value in returned if many else (returned,):
                    if isinstance(value, Record):
                        port = 0 if value.port is None else self._port(value.port)
                        made[port].put(row, value)
                    else:
                        value = check(value)
                        parents.append(row)
                        values.append(value)
            except Exception as error:
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


def _annotations(function):
    try:
        return typing.get_type_hints(function)
    except NameError:  # of a name that only a type checker knows
        return inspect.get_annotations(function)


def _take(annotation):
    """How a value is taken from a column of bytes."""
    name = str(getattr(annotation, "__name__", annotation)).strip("'\"")
    return {"bytes": _take_bytes, "str": _take_text}.get(name, _take_json)


def _no_value():
    return Reject("no-value", "the record has no value")


def _take_bytes(column):
    def take(row):
        value = column.get(row)
        if value is None:
            raise _no_value()
        return value
    return take


def _take_text(column):
    data, offsets = column.data, column.offsets
    if not column.validity and data.isascii():  # decoded once, cut by the same offsets
        text = data.decode("ascii")
        return lambda row: text[offsets[row]:offsets[row + 1]]

    def take(row):
        value = column.get(row)
        if value is None:
            raise _no_value()
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise Reject("utf-8", f"the value is not UTF-8: {error}") from None
    return take


def _take_json(column):
    text = _take_text(column)

    def take(row):
        try:
            return loads(text(row))
        except Reject as reject:
            if reject.code != "utf-8":
                raise
            raise Reject("json", reject.message) from None
    return take


class _Refusals:
    """Refused rows on their way."""

    def __init__(self, out, state):
        self.out, self.state, self.rows, self.why = out, state, [], ("", "")

    def add(self, row, error):
        """Says whether the batch ends here, as it does at a row to be tried again."""
        if self.state is not None:
            self.state.undo_row()
        if isinstance(error, Retry):
            self.out.retry([row], error.after_ms, error.code, error.message)
            return True
        why = (error.code, error.message) if isinstance(error, Reject) else ("error", _place(error))
        if why != self.why:
            self.flush()
            self.why = why
        self.rows.append(row)
        return False

    def flush(self):
        if self.rows:
            self.out.reject(self.rows, *self.why)
            self.rows = []


def _place(error):
    """An exception that nobody caught: what it says, and the innermost line of the author's code."""
    what = f"{type(error).__name__}: {error}"
    trace, where = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        file = code.co_filename.replace("\\", "/")
        if "/rustmq/_" not in file and not file.startswith("<"):
            where = f" ({file.rsplit('/', 1)[-1]}, line {trace.tb_lineno}, in {code.co_name})"
        trace = trace.tb_next
    return what + where


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
    """The same of rows as typed columns. Where state is kept, a row that cannot be one is found at once, since what it
    changed could not be taken back later."""

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
        key = record.key if record.key is INHERITED else as_bytes(record.key)
        headers = {name: as_bytes(value) for name, value in (record.headers or {}).items()}
        if key is not INHERITED:
            self.keys = self.keys or {}
            self.keys[len(self.parents)] = key
        if record.event_time is not None:
            self.times = self.times or {}
            self.times[len(self.parents)] = int(record.event_time)
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
                if each(row):
                    kept.append(row)
            except Exception as error:
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
                sent[self._port(each(row))].append(row)
            except Exception as error:
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
            raise TypeError(f"{self.__name__}: the parameters are `rows`, `out` and, if wanted, `state` and `params`")
        self._extras = names[2:]

    def process(self, rows, out):
        self._work(self.function, self._extras, rows, out)

    def timers(self, fired, out):
        if self._timer is not None:
            self._work(*self._timer, fired, out)

    def _work(self, function, extras, rows, out):
        more = [self.state if name == "state" else self._params for name in extras]
        function(rows, out, *more)

    def on_timer(self, function):
        raise TypeError(f"{function.__name__}: a `batch` is given all timers at once, with `on_timers`")

    def on_timers(self, function):
        """Put above a function of `fired` and `out`, and by their names `state` and `params`, which is called with the
        timers that the watermark has passed: their keys are those of the rows, their times the event times."""
        return self._on_timers(function, ["fired", "out"])


def run(module, host, rows, out, kept=None, timers=False):
    """One call, with the handles of its batch and its outbox: what the module told, and what it changed of what it
    keeps, counts only if it ends well."""
    _telemetry.begin()
    state = module.state = None if module.state_schema is None else State(kept)
    rows, out = Batch(host, rows, () if timers else module.selected), Outbox(host, out, module.declared)
    (module.timers if timers else module.process)(rows, out)
    if state is not None:
        state.tell()
    _telemetry.tell()


def migrate(module, kept, schema, keys, values):
    """The module takes over a part of what was kept with an older schema."""
    if schema not in module.migrations:
        raise Failure("migrate", f"nothing is taken over from schema {schema}")
    _telemetry.begin()
    state, (function, take) = State(kept), module.migrations[schema]
    value = take(values)
    for row, key in enumerate(keys):
        try:
            function(key, value(row), state)
        except Exception as error:
            code, message = (error.code, error.message) if isinstance(error, Reject) else ("error", _place(error))
            raise Failure(code, f'key "{key.decode(errors="replace")}": {message}') from error
    state.tell()
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
