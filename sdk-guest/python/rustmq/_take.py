"""What a function says it takes: its annotations, its parameters, and how a value comes from a column of bytes."""

import inspect
import sys
import types
import typing

from ._json import loads
from ._record import Reject

if sys.version_info >= (3, 14):
    import annotationlib


def annotations(function):
    """By parameter; what names something that only a type checker knows stays as it is written."""
    try:
        return typing.get_type_hints(function)
    except NameError:
        return {name: _known(function, said) for name, said in _written(function).items()}


def _written(function):
    if sys.version_info >= (3, 14):
        return annotationlib.get_annotations(function, format=annotationlib.Format.FORWARDREF)
    return inspect.get_annotations(function)


def _known(function, said):
    """One annotation by itself, so that another one's name is not missed here."""
    def alone():
        pass

    alone.__annotations__ = {"said": said}
    try:
        return typing.get_type_hints(alone, inspect.unwrap(function).__globals__)["said"]
    except NameError:
        return said


def by_place(function):
    """The same function, given its keyword-only parameters by their places as well."""
    parameters = inspect.signature(function).parameters
    kinds = [parameter.kind for parameter in parameters.values()]
    if inspect.Parameter.KEYWORD_ONLY not in kinds:
        return function
    names, at = list(parameters), kinds.index(inspect.Parameter.KEYWORD_ONLY)
    return lambda *given: function(*given[:at], **dict(zip(names[at:], given[at:])))


def take(annotation):
    """How a value is taken from a column of bytes; with `| None` its absence is taken as well."""
    parts = parts_of(annotation)
    names = [_name(part) for part in parts if _name(part) not in ("None", "NoneType")]
    way = {"bytes": _take_bytes, "str": _take_text}.get(names[0], _take_json) if len(names) == 1 else _take_json
    return _or_nothing(way) if 0 < len(names) < len(parts) else way


def parts_of(annotation):
    """Of `A | B` both, of all else itself."""
    if isinstance(annotation, str):
        return [part.strip() for part in annotation.split("|")]
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if is_union else (annotation,)


def _name(annotation):
    return str(getattr(annotation, "__name__", annotation)).strip("'\"")


def _or_nothing(way):
    def taken(column):
        value = way(column)
        if not column.validity:
            return value
        present = column.present()
        return lambda row: value(row) if present[row] else None
    return taken


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


def known_extras(name, extras, known):
    """The further parameters of a function, which are given by their names."""
    for extra in extras:
        if extra not in known:
            listed = "`, `".join(known[:-1]) + "` nor `" + known[-1]
            raise TypeError(f"{name}: parameter {extra!r} is neither `{listed}`")
    return extras
