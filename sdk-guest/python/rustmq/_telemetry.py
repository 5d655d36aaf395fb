"""What a module tells about itself. Numbers are collected during a call and told once, at its end."""

import operator

from ._record import text

LEVELS = ("trace", "debug", "info", "warn", "error")

_COUNT_MAX = 2**64 - 1

_metrics = []


class _Host:
    """Where it goes: the component's `telemetry`, or a test's."""

    sink = None


class _Log:
    """`rustmq.log.info("text", name=value)`; levels: trace, debug, info, warn, error."""

    def enabled(self, level):
        return _Host.sink is not None and _Host.sink.enabled(level)

    def __call__(self, level, message, /, **values):
        if self.enabled(level):
            flat = [text(part) for pair in values.items() for part in pair]
            _Host.sink.log(level, text(message), flat)

    def trace(self, message, /, **values):
        self("trace", message, **values)

    def debug(self, message, /, **values):
        self("debug", message, **values)

    def info(self, message, /, **values):
        self("info", message, **values)

    def warn(self, message, /, **values):
        self("warn", message, **values)

    def error(self, message, /, **values):
        self("error", message, **values)


log = _Log()


class Counter:
    """A number that only grows, summed up over all lanes. Made at the top of `module.py`."""

    def __init__(self, name):
        self.name, self._id, self._told = text(name), None, 0
        _metrics.append(self)

    def add(self, amount=1):
        if operator.index(amount) < 0:
            raise ValueError(f"a counter only grows: it cannot take {amount}")
        self._told = min(self._told + amount, _COUNT_MAX)


class Histogram:
    """The spread of many values. `bounds` are the buckets' upper ones, ascending."""

    def __init__(self, name, bounds):
        self.name, self.bounds, self._id, self._told = text(name), [float(b) for b in bounds], None, []
        _metrics.append(self)

    def observe(self, value):
        self._told.append(float(value))


def register(sink):
    """At `open`: asks for an id for each metric."""
    _Host.sink = sink
    for metric in _metrics:
        if isinstance(metric, Counter):
            metric._id, metric._told = sink.counter(metric.name), 0
        else:
            metric._id, metric._told = sink.histogram(metric.name, metric.bounds), []


def begin():
    """What a call that failed left behind does not count."""
    for metric in _metrics:
        metric._told = 0 if isinstance(metric, Counter) else []


def tell():
    counters = [m for m in _metrics if isinstance(m, Counter) and m._told]
    if counters:
        _Host.sink.add([c._id for c in counters], [c._told for c in counters])
    for metric in _metrics:
        if isinstance(metric, Histogram) and metric._told:
            _Host.sink.observe(metric._id, metric._told)
    begin()
