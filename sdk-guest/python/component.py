"""The component's exports: `rustmq module build` gives this file to componentize-py.

What `module.py` imports is loaded here, once, when the component is built.
"""

import builtins
import sys
from array import array
from types import SimpleNamespace

from rustmq import _sandbox

_sandbox.streams()

import module
import rustmq
from componentize_py_types import Err
from rustmq import _keeping, _lookup, _module, _telemetry
from rustmq._record import place, told
from wit_world.imports import columns, lookup, packed, telemetry
from wit_world.imports import types

_sandbox.load()
_the_module = _module.find(vars(module))
_import = builtins.__import__


def _loaded(name, globals=None, locals=None, fromlist=(), level=0):
    if level == 0 and name not in sys.modules:
        raise ImportError(f"there are no files in the sandbox: import {name} at the top of module.py")
    return _import(name, globals, locals, fromlist, level)


def _requests(host):
    """Lends `rustmq.http` the host's `http`."""
    from rustmq import http

    def header(pair):
        return host.Header(str(pair[0]), str(pair[1]))

    def out(request):
        headers = [header(pair) for pair in request.headers.items()]
        body = http.as_bytes(request.body)
        return host.Request(request.method, request.url, headers, body, request.timeout_ms)

    def answer(given):
        if isinstance(given, Err):
            code = given.value.code.name.lower().replace("_", "-")
            return http.Error.of(code, given.value.message)
        given = getattr(given, "value", given)
        headers = {header.name: header.value for header in given.headers}
        return http.Response(given.status, given.body, headers, given.url)

    http._Host.send = lambda requests: [answer(given) for given in host.send([out(r) for r in requests])]


try:  # it is there where `describe.py` found that the module makes requests
    from wit_world.imports import http as _asked
except ImportError:
    pass
else:
    _requests(_asked)


def _column(column):
    """A column of the contract's lists, as the package has it."""
    return rustmq.Column(array("I", column.offsets), column.data, column.validity)


def _states():
    """The host's `packed-state`, where the module keeps state."""
    from wit_world.imports import packed_state as state

    def timers(keys, times, on):
        tell = state.set_timers if on else state.clear_timers
        tell(keys.pack(packed), array("q", times).tobytes())

    def scan(prefix, after, limit):
        found = state.scan(prefix, after, limit)
        return rustmq.Column.unpack(found.keys), rustmq.Column.unpack(found.values)

    return SimpleNamespace(
        get=lambda keys: rustmq.Column.unpack(state.get(keys.pack(packed))),
        put=lambda keys, values: state.put(keys.pack(packed), values.pack(packed)),
        timers=timers,
        scan=scan,
    )


_kept = None if _the_module.state_schema is None else _states()


class _Telemetry:
    """`telemetry` with the levels by their names."""

    def __init__(self):
        self.levels = {name: telemetry.Level[name.upper()] for name in _telemetry.LEVELS}
        self.counter, self.histogram = telemetry.counter, telemetry.histogram
        self.add, self.observe = telemetry.add, telemetry.observe

    def enabled(self, level):
        return telemetry.enabled(self.levels[level])

    def log(self, level, message, values):
        telemetry.log(self.levels[level], message, values)


_sink = _Telemetry()

# `packed`, and of `columns` what has no numbers to pack
_host = SimpleNamespace(
    **{name: value for name, value in vars(packed).items() if not name.startswith("_")},
    get_bools=columns.get_bools, set_bools=columns.set_bools, Bools=columns.Bools,
)


class _Context:
    """What the node declares, and what the module says of its columns."""

    def __init__(self, handle):
        self.handle = handle
        self.params, self.inputs, self.outputs = handle.params, handle.inputs, handle.outputs

    def select(self, number, fields):
        self._say(columns.select, number, fields)

    def declare(self, port, fields):
        self._say(columns.declare, port, fields)

    def _say(self, say, number, fields):
        fields = [columns.Field(field.name, columns.FieldType[field.kind.upper()]) for field in fields]
        try:
            say(self.handle, number, fields)
        except Err as error:
            raise rustmq.Failure(error.value.code, error.value.message) from None


def _guarded(work):
    try:
        return work()
    except Err:
        raise
    except rustmq.Failure as failure:
        raise Err(types.Failure(*told(failure))) from None
    except BaseException as error:
        raise Err(types.Failure("error", place(error))) from None
    finally:
        _sandbox.end_lines()


class Module:
    def open(self, ctx):
        def work():
            builtins.__import__ = _loaded
            _telemetry.register(_sink)
            _lookup.register(packed, lookup.table)
            _the_module.open(_Context(ctx))
        _guarded(work)

    def process(self, rows, out):
        _guarded(lambda: _module.run(_the_module, _host, rows, out, _kept))


class Timed:
    """Of the worlds with state."""

    def on_timers(self, fired, out):
        _guarded(lambda: _module.run(_the_module, _host, fired, out, _kept, timers=True))


class Migration:
    """Of those whose state has had another schema."""

    def migrate(self, schema, old):
        keys, values = _column(old.keys), _column(old.values)
        _guarded(lambda: _keeping.migrate(_the_module, _kept, schema, keys, values))
