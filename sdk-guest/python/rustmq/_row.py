"""Classes as rows of typed columns: what `@rustmq.row` makes of them, and for which fields.

A class's fields are the columns, in order; a field that may not be `None` refuses rows where it is null.
Rows are named tuples: they are made of columns, and columns of them, without a step of Python for each.
"""

import collections
import inspect
import sys
import typing
from functools import partial

from ._batch import Column
from ._record import Reject
from ._take import parts_of
from ._typed import Bools, Field, Floats, Ints, Timestamp

if sys.version_info >= (3, 11):
    from typing import dataclass_transform
else:
    def dataclass_transform(**_):
        return lambda decorator: decorator

_KINDS = {
    bool: "bool", int: "int64", float: "float64", str: "string", bytes: "bytes", Timestamp: "timestamp",
}
_MAY_BE = "bool, int, float, str, bytes or rustmq.Timestamp, or one of them `| None`"


@dataclass_transform(frozen_default=True)
def row(cls=None, *, rename=None):
    """A class with annotated fields becomes a row of typed columns.

        @rustmq.row
        class Flight:
            carrier: str
            dep_delay: float | None
            ts: rustmq.Timestamp

    A field is bool, int, float, str, bytes or `rustmq.Timestamp` (microseconds since the epoch, UTC); one
    that may be null says `| None`. `rename={"kind": "type"}` gives a field's column another name. Rows
    cannot be changed; `flight._replace(carrier="UA")` makes another.
    """
    if cls is None:
        return lambda cls: _made(cls, rename or {})
    return _made(cls, rename or {})


def _made(cls, rename):
    if cls.__bases__ != (object,):
        raise TypeError(f"{cls.__name__}: a row is a class of its own, without others below it")
    names = list(inspect.get_annotations(cls))
    hints = typing.get_type_hints(cls)
    if not names:
        raise TypeError(f"{cls.__name__}: a row needs at least one field: `name: str`")
    strange = set(rename) - set(names)
    if strange:
        raise TypeError(f"{cls.__name__}: rename names {strange.pop()!r}, which is no field")
    given = [name for name in names if name in vars(cls)]
    if given != names[len(names) - len(given):]:
        raise TypeError(f"{cls.__name__}: a field without a default follows one that has one")
    defaults = [vars(cls)[name] for name in given]
    try:
        made = collections.namedtuple(cls.__name__, names, defaults=defaults, module=cls.__module__)
    except ValueError as error:
        raise TypeError(f"{cls.__name__}: {error}; `rename` gives a field's column any name") from None
    left_out = {"__dict__", "__weakref__", *names}
    namespace = {name: value for name, value in vars(cls).items() if name not in left_out}
    made = type(cls.__name__, (made,), {**namespace, "__slots__": ()})
    cells = [_Cell(cls.__name__, rename.get(name, name), hints[name]) for name in names]
    twice = [name for name, count in collections.Counter(cell.name for cell in cells).items() if count > 1]
    if twice:
        raise TypeError(f"{cls.__name__}: two fields are named {twice[0]!r}")
    made._rustmq_row = Rows(made, cells)
    return made


def of(annotation):
    """The `Rows` of a class that `@rustmq.row` made; `None` of all else."""
    return getattr(annotation, "_rustmq_row", None)


def within(annotation):
    """The same of the one row class in `Late | None`, `Iterator[Late]`, `Record[Late]` and the like."""
    found = of(annotation)
    if found is not None:
        return found
    inner = [within(part) for part in typing.get_args(annotation)]
    inner = [found for found in inner if found is not None]
    if len(set(map(id, inner))) > 1:
        raise TypeError(f"{inner[0].name} and {inner[1].name}: the rows of a module are of one class")
    return inner[0] if inner else None


def taken(function, annotation):
    """The row class that a function's first parameter is annotated with, and whether it may be `None`."""
    parts = [part for part in parts_of(annotation) if part is not type(None)]
    found = of(parts[0]) if len(parts) == 1 else None
    if found is None and within(annotation) is not None:
        said = f"`{within(annotation).name}` or `{within(annotation).name} | None`"
        raise TypeError(f"{function}: a parameter of rows is annotated {said}, not `{annotation}`")
    return found, found is not None and parts_of(annotation) != (parts[0],)


class _Cell:
    """One field."""

    def __init__(self, owner, name, hint):
        parts = parts_of(hint)
        self.optional = type(None) in parts
        kinds = [_KINDS.get(part) for part in parts if part is not type(None)]
        if len(kinds) != 1 or kinds[0] is None:
            raise TypeError(f"{owner}: field {name!r} may be {_MAY_BE}")
        self.name, self.kind = name, kinds[0]

    def fetch(self, rows, number):
        """The column, and its values as Python has them."""
        if self.kind == "bool":
            column = rows.bools(number)
        elif self.kind == "float64":
            column = rows.floats(number)
        elif self.kind in ("int64", "timestamp"):
            column = rows.ints(number)
        else:
            column = rows.bytes(number)
            return column, column.texts() if self.kind == "string" else column
        return column, column

    def column(self, values):
        """Raises where a value is of another type."""
        if self.kind == "bool":
            return Bools.of(values)
        if self.kind == "float64":
            return Floats.of(values)
        if self.kind in ("int64", "timestamp"):
            return Ints.of(values)
        return Column.of_texts(values) if self.kind == "string" else Column.of(values)

    def set(self, out, number, column):
        if self.kind == "bool":
            out.set_bools(number, column)
        elif self.kind == "float64":
            out.set_floats(number, column)
        elif self.kind in ("int64", "timestamp"):
            out.set_ints(number, column)
        else:
            out.set_bytes(number, column)

    def unfit(self, value):
        """Why the field cannot be that."""
        if value is None:
            return None if self.optional else f"field `{self.name}` is None, and its type does not say `| None`"
        try:
            self.column([value])
        except (TypeError, ValueError, OverflowError):
            return f"field `{self.name}`: {self.kind} cannot be {_short(value)}"
        return None


def _short(value):
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"


def _absent(rows, columns):
    """Rows whose records have no value. All their fields are null, so that the values, which are large, are
    only fetched where there are such rows."""
    if not all(column.validity for column in columns):
        return ()
    empty = [row for row, here in enumerate(zip(*[column.present() for column in columns])) if not any(here)]
    if not empty:
        return ()
    present = rows.values().present()
    return {row for row in empty if not present[row]}


class Rows:
    """A row class, seen from its columns."""

    def __init__(self, cls, cells):
        self.cls, self.name, self.cells = cls, cls.__name__, cells
        self.fields = [Field(cell.name, cell.kind) for cell in cells]
        self._make = partial(tuple.__new__, cls)

    def take(self, rows, or_none=False):
        """A function of a row's number that gives the row, or refuses it; with `or_none` a record without a
        value is `None`."""
        fetched = [cell.fetch(rows, number) for number, cell in enumerate(self.cells)]
        taken = list(map(self._make, zip(*[values for _, values in fetched])))
        columns = [column for column, _ in fetched]
        absent, nulls = _absent(rows, columns) if or_none else (), self._nulls(columns)
        if not nulls and not absent:
            return taken.__getitem__

        def take(row):
            if row in absent:
                return None
            name = nulls.get(row)
            if name is not None:
                raise Reject("null", f"field `{name}` is null")
            return taken[row]
        return take

    def _nulls(self, columns):
        """By row, the first field that is null and may not be."""
        nulls = {}
        for cell, column in zip(self.cells, columns):
            if column.validity and not cell.optional:
                for row, here in enumerate(column.present()):
                    if not here:
                        nulls.setdefault(row, cell.name)
        return nulls

    def checked(self, value):
        """A row on its way out."""
        if value.__class__ is self.cls:
            return value
        raise Reject("encode", f"the module makes rows of {self.name}, but returned a {type(value).__name__}")

    def fitting(self, value):
        """The same, and each of its fields fits."""
        value = self.checked(value)
        why = self._unfit(value)
        if why is not None:
            raise Reject("encode", why)
        return value

    def _unfit(self, row):
        """Why a field cannot be what it is."""
        return next(filter(None, (cell.unfit(value) for cell, value in zip(self.cells, row))), None)

    def columns(self, rows):
        """The columns of rows, and by place why one cannot be written; such a row has nulls."""
        try:
            return [self._strict(cell, values) for cell, values in zip(self.cells, zip(*rows))], {}
        except (TypeError, ValueError, OverflowError):
            pass
        unfit = {}
        for place, row in enumerate(rows):
            why = self._unfit(row)
            if why is not None:
                unfit[place] = why
        nothing = (None,) * len(self.cells)
        rows = [nothing if place in unfit else row for place, row in enumerate(rows)]
        return [cell.column(values) for cell, values in zip(self.cells, zip(*rows))], unfit

    @staticmethod
    def _strict(cell, values):
        if not cell.optional and None in values:
            raise TypeError
        return cell.column(values)
