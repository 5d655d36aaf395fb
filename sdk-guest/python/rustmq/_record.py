"""What a function over rows returns and raises. What a record does not say is its parent's."""

import inspect
import math
import os
import re
import types


def _folder(function):
    return os.path.join(os.path.dirname(function.__code__.co_filename), "")


_HERE, _STDLIB = _folder(_folder), _folder(inspect.signature)
_LONE = re.compile("[\ud800-\udfff]")

MS_MAX = 2**32 - 1

NAME_BYTES_MAX = 255
"""Longest name of a header; a longer one, or none, ends the instance."""

INTERRUPTS = (KeyboardInterrupt,)
"""What is of no row: who runs tests stops them so. In a component nobody does, and this is empty."""


def text(value):
    """Any value as text that crosses the boundary: what UTF-8 cannot hold, half of a surrogate pair, is replaced."""
    said = str(value)
    return said if said.isascii() else _LONE.sub("\ufffd", said)


def milliseconds(value):
    """A time that the contract has room for: what is beyond is its end."""
    value = int(value) if isinstance(value, str) else value
    return math.ceil(min(max(0, value), MS_MAX))


class Reject(Exception):
    """This row will never succeed. `code` is short and stable, `message` is for people."""

    code, message = "error", None  # of a class of the author's that does not call this `__init__`

    def __init__(self, code, message=""):
        super().__init__(code, message)
        self.code, self.message = text(code), text(message)


class Failure(Exception):
    """Why a module cannot open, or a whole batch cannot be processed."""

    code, message = "error", None

    def __init__(self, code, message=""):
        super().__init__(code, message)
        self.code, self.message = text(code), text(message)


class Retry(Exception):
    """A passing trouble: present this row and those after it again, after so many milliseconds."""

    after_ms, code, message = 0, "error", None

    def __init__(self, after_ms, code, message=""):
        super().__init__(after_ms, code, message)
        self.after_ms, self.code, self.message = milliseconds(after_ms), text(code), text(message)


class _Tombstone:
    def __repr__(self):
        return "rustmq.TOMBSTONE"


TOMBSTONE = _Tombstone()
"""A record without a value: in a compacted topic it deletes its key."""

INHERITED = object()


class Record:
    """An output with its own key, event time, headers or port; `Record[Late]` in an annotation is one of a
    row class.

    `key` is bytes, text, or `None` for no key; `event_time` is in microseconds since the epoch, UTC;
    `headers` are names with bytes or text; `port` is an output by its name, the first one otherwise. Bytes
    may be a `bytearray` or a `memoryview`.
    """

    __slots__ = ("value", "key", "event_time", "headers", "port")
    __class_getitem__ = classmethod(types.GenericAlias)

    def __init__(self, value, key=INHERITED, event_time=None, headers=None, port=None):
        self.value, self.key, self.event_time = value, key, event_time
        self.headers, self.port = headers, port


def as_bytes(value):
    """Of a key or a header."""
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if not isinstance(value, str):
        raise TypeError(f"bytes or str, not {type(value).__name__}")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        why = f"letter {error.start} is half of a surrogate pair, which UTF-8 cannot hold"
        raise ValueError(f"{why}: give bytes, or text without it") from None


def reason(error):
    """Code and message of what a function raised, which may be anything, `sys.exit()` too."""
    if isinstance(error, INTERRUPTS):
        raise error
    if isinstance(error, (Reject, Retry)):
        return told(error)
    return ("limit" if isinstance(error, MemoryError) else "error"), place(error)


def told(error):
    """Code and message of a `Reject`, `Retry` or `Failure`; without a message, what any exception says."""
    return text(error.code), place(error) if error.message is None else text(error.message)


def place(error):
    """An exception that nobody caught: what it says, and the innermost line of the author's code."""
    said = _said(error)
    what = f"{type(error).__name__}: {said}" if said else type(error).__name__
    if isinstance(error, MemoryError):
        what += "; there is no more memory: raise limits.memory of the module if that is right"
    if isinstance(error, SystemExit):
        what += "; a module does not exit: to refuse a row raise `rustmq.Reject`"
    trace, where, innermost = error.__traceback__, "", ""
    while trace is not None:
        code = trace.tb_frame.f_code
        file = code.co_filename
        if not file.startswith((_HERE, "<")):
            innermost = f" ({os.path.basename(file)}, line {trace.tb_lineno}, in {code.co_name})"
            if not file.startswith(_STDLIB) or "-packages" in file:
                where = innermost
        trace = trace.tb_next
    return what + (where or innermost)


def _said(error):
    try:
        return text(error)
    except Exception as failed:  # of its own `__str__`
        return f"(its text fails with {type(failed).__name__})"


def refuse_async(function):
    """Of a module: what it returned would be lost, since nobody awaits it."""
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{function.__name__}: functions of a module are not `async`: nobody awaits what they return")
    return function


def settled(value):
    """What a function returned, which must not be something to await."""
    if inspect.isawaitable(value) or inspect.isasyncgen(value):
        getattr(value, "close", int)()  # or Python would warn
        raise Reject("encode", f"a {type(value).__name__} was returned, and nobody awaits it")
    return value


def micros(value):
    """A time in microseconds, of those that a record can have."""
    time = int(value)
    if not -2**63 <= time < 2**63:
        raise Reject("encode", f"a time of {len(str(abs(time)))} digits does not fit 64 bits of microseconds")
    return time


def sent_key(key):
    """Of a record on its way out."""
    return _sent("the key", key)


def sent_headers(headers):
    """The same of its headers, by their names."""
    if not headers:
        return {}
    if not hasattr(headers, "items"):
        raise Reject("encode", f"headers are a dict of names with bytes or str, not {type(headers).__name__}")
    return {_sent_name(name): _sent(f"header `{name}`", value) for name, value in headers.items()}


def _sent(what, value):
    try:
        return as_bytes(value)
    except (TypeError, ValueError) as error:
        raise Reject("encode", f"{what}: {error}") from None


def _sent_name(value):
    try:
        name = as_name(value)
    except TypeError as error:
        raise Reject("encode", str(error)) from None
    size = len(name.encode())
    if 0 < size <= NAME_BYTES_MAX:
        return name
    raise Reject("encode", f"header `{name[:32]}`: a name has 1 to {NAME_BYTES_MAX} bytes, not {size}")


def as_name(value):
    """Of a header."""
    if isinstance(value, str):
        return text(value)
    raise TypeError(f"the name of a header is a str, not {type(value).__name__}")
