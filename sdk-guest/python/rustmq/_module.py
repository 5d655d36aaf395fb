"""The decorators, and the loops over rows.

A row's error refuses that row; a retry ends the batch there; rows refused one after the other for the
same reason share a call; rows are collected by port, so the order of a port is the order of the input.
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


class Failure(Exception):
    """Why a module cannot open, or a whole batch cannot be processed."""

    def __init__(self, code, message=""):
        super().__init__(code, message)
        self.code, self.message = str(code), str(message)


def map(function=None, *, params=None):
    """One row to one: what is returned is the new value; `None` drops the row.

    `params` is the JSON Schema of the node's params, if you want them checked.
    """
    return _decorated(function, _Map, params)


def flat_map(function=None, *, params=None):
    """One row to many: what is returned, or yielded, one after the other."""
    return _decorated(function, _FlatMap, params)


def filter(function=None, *, params=None):
    """Keeps the rows for which it returns true, as they are."""
    return _decorated(function, _Filter, params)


def route(*ports, params=None):
    """Sends each row as it is to the output whose name is returned: `@rustmq.route("small", "big")`."""
    if not ports or not all(isinstance(port, str) for port in ports):
        raise TypeError('name the outputs: @rustmq.route("small", "big")')
    return lambda function: _Route(function, params, list(ports))


def batch(function=None, *, select=None, declare=None, params=None):
    """Whole batches: `def work(rows, out)`, with `rustmq.Batch` and `rustmq.Outbox`.

    `select` is the row class whose fields `rows` has as columns, `declare` that of what `out` is given as
    columns: of every output, or by output `{"out": Late}`.
    """
    def made(function):
        return _Batch(function, params, select=select, declare=declare)
    return made if function is None else made(function)


def _decorated(function, kind, params):
    if function is None:
        return lambda function: kind(function, params)
    return kind(function, params)


class Module:
    """A function that has become a module; it can still be called."""

    makes_rows = False

    def __init__(self, function, params=None, ports=None):
        self.function, self.params_schema, self.ports_named = function, params, ports
        self.__name__, self.__doc__ = function.__name__, function.__doc__
        self._params, self._ports = {}, ["out"]
        # row classes of what comes in and of what goes out, where they are typed columns
        self._selected = self._declared = None
        # by port, why its rows cannot be columns
        self._closed = {}
        self._read_signature()

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

    def _read_signature(self):
        wanted = list(inspect.signature(self.function).parameters.values())
        if not wanted:
            raise TypeError(f"{self.__name__}: the first parameter is the record's value")
        notes = self._annotations()
        first = notes.get(wanted[0].name)
        self._selected = _row_of(first)
        first = str(getattr(first, "__name__", first)).strip("'\"")
        self._take = {"bytes": _take_bytes, "str": _take_text}.get(first, _take_json)
        if self.makes_rows:
            self._declared = _row_within(notes.get("return"))
        extras = [parameter.name for parameter in wanted[1:]]
        for name in extras:
            if name not in ("meta", "params"):
                raise TypeError(f"{self.__name__}: parameter {name!r} is neither `meta` nor `params`")
        self._extras = extras

    def _annotations(self):
        try:
            return typing.get_type_hints(self.function)
        except NameError:  # of a name that only a type checker knows
            return inspect.get_annotations(self.function)

    def _each(self, rows):
        """A function of a row's number that calls the module's function with that row."""
        function = self.function
        value = self._selected.take(rows) if self._selected else self._take(rows.values())
        if not self._extras:
            return lambda row: function(value(row))
        makers = {"meta": lambda row: Meta(rows, row), "params": lambda row: self._params}
        makers = [makers[name] for name in self._extras]
        return lambda row: function(value(row), *[make(row) for make in makers])

    def _port(self, name):
        try:
            port = self._ports.index(name)
        except ValueError:
            known = ", ".join(self._ports)
            raise Reject("port", f'no output "{name}"; the node declares: {known}') from None
        if port in self._closed:
            raise Reject("port", self._closed[port].message)
        return port


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

    def __init__(self, out):
        self.out, self.rows, self.why = out, [], ("", "")

    def add(self, row, error):
        """Says whether the batch ends here, as it does at a row to be tried again."""
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
    """The same of rows as typed columns."""

    def __init__(self, rows):
        self.rows, self.check = rows, rows.checked

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
    """The loop of `map` and `flat_map`."""

    makes_rows = True
    many = False

    def process(self, rows, out):
        way = _Rows(self._declared) if self._declared else _Values
        refusals, made = _Refusals(out), [_Made(way) for _ in self._ports]
        each, check, many = self._each(rows), way.check, self.many
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


class _Map(_Making):
    pass


class _FlatMap(_Making):
    many = True


class _Filter(Module):
    def process(self, rows, out):
        refusals, kept, each = _Refusals(out), [], self._each(rows)
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
        refusals, sent, each = _Refusals(out), [[] for _ in self._ports], self._each(rows)
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
    def __init__(self, function, params=None, select=None, declare=None):
        super().__init__(function, params)
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
        if len(names) not in (2, 3) or names[2:] not in ([], ["params"]):
            raise TypeError(f"{self.__name__}: the parameters are `rows`, `out` and, if wanted, `params`")
        self._extras = names[2:]

    def process(self, rows, out):
        self.function(rows, out, *([self._params] if self._extras else []))


def run(module, host, rows, out):
    """One call, with the handles of its batch and its outbox: what the module told counts only if it ends
    well."""
    _telemetry.begin()
    module.process(Batch(host, rows, module.selected), Outbox(host, out, module.declared))
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
