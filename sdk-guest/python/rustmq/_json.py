"""JSON in and out, strictly: no NaN, nothing after the value; and without work that repeats a row."""

import dataclasses
import json
from json import encoder as _encoder

from ._record import TOMBSTONE, Reject, settled


def _constant(name):
    raise ValueError(f"{name} is no JSON")


_decoder = json.JSONDecoder(parse_constant=_constant)
_scan = _decoder.scan_once


def loads(text):
    """A value of text; a `Reject` where it is none."""
    try:
        value, end = _scan(text, 0)
        if end == len(text):
            return value
    except (ValueError, StopIteration, RecursionError):
        pass
    try:  # white space around it, or the error's own words
        return _decoder.decode(text)
    except (ValueError, RecursionError) as error:
        raise Reject("json", str(error)) from None


def read(value, code, what):
    """The same of bytes that were found somewhere."""
    try:
        return loads(value.decode())
    except Reject as reject:
        why = reject.message
    except UnicodeDecodeError as error:
        why = str(error)
    raise Reject(code, f"{what} is no JSON: {why}")


def _default(value):
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    settled(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


_plain = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False, default=_default
)


def _fast():
    """The encoder written in C, made once and not for each value."""
    make = _encoder.c_make_encoder
    if make is None:
        return _plain.encode
    quote = _encoder.c_encode_basestring or _encoder.encode_basestring
    encode = make(None, _default, quote, None, ":", ",", False, False, False)
    return lambda value: "".join(encode(value, 0))


_encode = _fast()


def dumps(value):
    """The bytes of a value to go out; `None` for a tombstone."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if value is TOMBSTONE:
        return None
    if isinstance(value, tuple) and hasattr(value, "_rustmq_row"):  # it would be a list
        name = type(value).__name__
        raise Reject("encode", f"to make rows of {name}, say so: `-> {name}`, or Iterator[{name}], Record[{name}]")
    try:
        return _encode(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Reject("encode", str(error)) from None
