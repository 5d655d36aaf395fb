"""Rows in JSON as typed columns and back, as the host does it, for `testing`: simple, not fast.

What the host refuses with code `schema` is refused here; bytes are base64, times RFC 3339; a field that is
not there is null, one that nobody asked for is left alone.
"""

import base64
import binascii
import json
import re
from datetime import datetime, timedelta, timezone

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-]\d\d:\d\d))")
_EXACT = 9e15


def decode(value, fields):
    """The cells of a row; `ValueError` where it does not fit."""
    if value is None or not fields:
        return [None] * len(fields)
    try:
        row = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a JSON object: {error}") from None
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    return [_cell(field, row.get(field.name)) for field in fields]


def _cell(field, value):
    if value is None:
        return None
    try:
        found = _READ[field.kind](value)
    except (ValueError, OverflowError):
        found = None
    if found is None:
        raise ValueError(f"field `{field.name}` ({field.kind}): found {json.dumps(value)}")
    return found


def _whole(value):
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if -2**63 <= value < 2**63 else None


def _number(value):
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _bytes(value):
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else None
    except binascii.Error:
        return None


def _time(value):
    if not isinstance(value, str):
        return _whole(value)
    found = _TIME.fullmatch(value)
    if found is None:
        return None
    day, time, fraction, zone = found.groups()
    if time.startswith("24"):  # newer versions of Python take it for the next day
        return None
    moment = datetime.fromisoformat(f"{day}T{time}{zone or '+00:00'}")
    return (moment - _EPOCH) // timedelta(microseconds=1) + int((fraction or "").ljust(6, "0")[:6])


_READ = {
    "bool": lambda value: value if isinstance(value, bool) else None,
    "int64": _whole,
    "float64": _number,
    "string": lambda value: value if isinstance(value, str) else None,
    "bytes": _bytes,
    "timestamp": _time,
}


def encode(fields, cells):
    """One row as a JSON object, its fields in the order they were declared."""
    shown = {field.name: _shown(field.kind, cell) for field, cell in zip(fields, cells)}
    return json.dumps(shown, ensure_ascii=False, separators=(",", ":")).encode()


def _shown(kind, cell):
    if kind == "bytes" and cell is not None:
        return base64.b64encode(cell).decode()
    if kind == "string" and cell is not None:
        return cell.decode()
    if kind == "float64" and cell is not None:
        return cell if abs(cell) < float("inf") else None
    if kind == "timestamp" and cell is not None:
        return time_shown(cell)
    return cell


def time_shown(micros):
    """RFC 3339, where it reaches."""
    try:
        moment = _EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        return micros
    return moment.strftime("%Y").zfill(4) + moment.strftime("-%m-%dT%H:%M:%S.%fZ")
