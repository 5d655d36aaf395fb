"""Rows as they cross the boundary: columns of little-endian bytes, which nothing boxes.

`host` is `packed` of the component's imports, with the bools of `columns`, or what `testing` puts in its
place.
"""

from array import array
from itertools import accumulate

from ._record import as_name, milliseconds, text
from ._typed import Bools, Floats, Ints, gathered, spread

assert array("I").itemsize == 4, "this Python has no 32-bit array"


class Column:
    """Row i is `data[offsets[i]:offsets[i + 1]]`, or nothing."""

    __slots__ = ("offsets", "data", "validity")

    def __init__(self, offsets, data, validity=b""):
        self.offsets, self.data, self.validity = offsets, data, validity

    @staticmethod
    def of(values):
        """Of bytes and `None`s."""
        values = _listed(values)
        offsets, at, missing = array("I", [0]), 0, False
        for value in values:
            if value is None:
                missing = True
            else:
                at += len(value)
            offsets.append(at)
        data = b"".join(v for v in values if v is not None) if missing else b"".join(values)
        if len(data) != at:  # an array of numbers, say: the rows behind it would be cut wrongly
            raise TypeError("a column is of bytes, and one of these values has items of more than a byte")
        return Column(offsets, data, gathered([value is not None for value in values]) if missing else b"")

    @staticmethod
    def of_texts(values):
        """Of text and `None`s."""
        values = _listed(values)
        if None in values:
            return Column.of([None if value is None else str.encode(value) for value in values])
        text = "".join(values)
        data = text.encode()
        if len(data) != len(text):
            return Column.of([value.encode() for value in values])
        return Column(array("I", accumulate(map(len, values), initial=0)), data)

    @staticmethod
    def unpack(packed):
        return Column(array("I", packed.offsets), packed.data, packed.validity)

    def pack(self, host):
        return host.Column(self.offsets.tobytes(), self.data, self.validity)

    def __len__(self):
        return len(self.offsets) - 1

    def get(self, row):
        """The bytes of a row; `None` where there is no value."""
        if self.validity and not self.validity[row >> 3] & 1 << (row & 7):
            return None
        return self.data[self.offsets[row]:self.offsets[row + 1]]

    def __iter__(self):
        cells = map(self.data.__getitem__, map(slice, self.offsets, self.offsets[1:]))
        if not self.validity:
            return cells
        return iter([cell if here else None for cell, here in zip(cells, self.present())])

    def present(self):
        """By row."""
        return spread(self.validity, len(self)) if self.validity else [True] * len(self)

    def texts(self):
        """A column of text as a list of `str`, and of `None`s."""
        if not self.data.isascii():
            return [None if cell is None else cell.decode() for cell in self]
        text = self.data.decode("ascii")
        cells = map(text.__getitem__, map(slice, self.offsets, self.offsets[1:]))
        if not self.validity:
            return list(cells)
        return [cell if here else None for cell, here in zip(cells, self.present())]

    def gather(self, rows):
        """The column of these rows."""
        return Column.of([self.get(row) for row in rows])


class Batch:
    """The rows of one call. Columns are fetched when first asked for.

    Typed columns are those that the module selects, by name or by their place among them.
    """

    def __init__(self, host, handle, selected=()):
        self._host, self._handle = host, handle
        self._len = handle.len()
        self._selected, self._fetched = selected, {}

    def __len__(self):
        return self._len

    def input(self):
        """Index into the node's inputs: a batch comes from one of them."""
        return self._handle.input()

    def watermark(self):
        """Microseconds since the epoch, UTC: no row before it is expected any more."""
        return self._handle.watermark()

    def keys(self):
        return self._once("keys", lambda: Column.unpack(self._host.keys(self._handle)))

    def values(self):
        return self._once("values", lambda: Column.unpack(self._host.values(self._handle)))

    def header(self, name):
        name = as_name(name)
        fetch = lambda: Column.unpack(self._host.header(self._handle, name))  # noqa: E731
        return self._once(("header", name), fetch)

    def event_times(self):
        """Microseconds since the epoch, UTC."""
        return self._once("times", lambda: array("q", self._host.event_times(self._handle)))

    def offsets(self):
        """Of the records in the stage's source topic."""
        return self._once("offsets", lambda: array("Q", self._host.offsets(self._handle)))

    def bools(self, column):
        at = _place(self._selected, column, "selects")
        fetch = lambda: Bools.unpack(self._host.get_bools(self._handle, at), self._len)  # noqa: E731
        return self._once(at, fetch)

    def ints(self, column):
        """Of integers, or of times in microseconds since the epoch, UTC."""
        at = _place(self._selected, column, "selects")
        return self._once(at, lambda: Ints.unpack(self._host.get_ints(self._handle, at)))

    def floats(self, column):
        at = _place(self._selected, column, "selects")
        return self._once(at, lambda: Floats.unpack(self._host.get_floats(self._handle, at)))

    def bytes(self, column):
        """Of bytes or text: `rows.bytes("carrier").texts()`."""
        at = _place(self._selected, column, "selects")
        return self._once(at, lambda: Column.unpack(self._host.get_bytes(self._handle, at)))

    def _once(self, name, fetch):
        known = self._fetched.get(name)
        if known is None:
            known = self._fetched[name] = fetch()
        return known


class Meta:
    """What a row carries besides its value."""

    __slots__ = ("_rows", "row")

    def __init__(self, rows, row):
        self._rows, self.row = rows, row

    @property
    def key(self):
        return self._rows.keys().get(self.row)

    @property
    def event_time(self):
        """Microseconds since the epoch, UTC."""
        return self._rows.event_times()[self.row]

    @property
    def offset(self):
        """Offset in the stage's source topic."""
        return self._rows.offsets()[self.row]

    @property
    def input(self):
        return self._rows.input()

    def header(self, name):
        return self._rows.header(name).get(self.row)


class Outbox:
    """What a batch becomes. Row numbers are lists or arrays of ints.

    The fields that `set_bools` and its sisters set are those that the module declares for the output, by
    name or by their place among them.
    """

    def __init__(self, host, handle, declared=()):
        self._host, self._handle = host, handle
        self._declared, self._port = declared, 0

    def forward(self, port, rows):
        """Passes rows on as they are."""
        self._host.forward(self._handle, port, _numbers(rows))

    def emit(self, port, parents, keys, values):
        """New rows; `parents[i]` is the row that row i came from."""
        host = self._host
        host.emit(self._handle, port, _numbers(parents), keys.pack(host), values.pack(host))

    def emit_columns(self, port, parents=None):
        """New rows, whose columns are set by the calls after it; one that is not set is null. Key, event
        time and headers are those of the parent; without parents each row of the batch gives one."""
        self._port = port
        self._host.emit_columns(self._handle, port, None if parents is None else _numbers(parents))

    def set_keys(self, keys):
        """Of the rows of the last `emit_columns`."""
        self._host.set_keys(self._handle, keys.pack(self._host))

    def set_bools(self, column, values):
        """A column of the last `emit_columns`: any values, with `None` where there is none."""
        self._host.set_bools(self._handle, self._at(column), Bools.of(values).pack(self._host))

    def set_ints(self, column, values):
        """The same of integers or times; an `array("q")` is not copied."""
        self._host.set_ints(self._handle, self._at(column), Ints.of(values).pack(self._host))

    def set_floats(self, column, values):
        """The same of floats; an `array("d")` is not copied."""
        self._host.set_floats(self._handle, self._at(column), Floats.of(values).pack(self._host))

    def set_bytes(self, column, values):
        """The same of bytes and text."""
        if not isinstance(values, Column):
            values = [value.encode() if isinstance(value, str) else value for value in values]
            values = Column.of(values)
        self._host.set_bytes(self._handle, self._at(column), values.pack(self._host))

    def _at(self, column):
        declared = self._declared[self._port] if self._port < len(self._declared) else ()
        return _place(declared or (), column, "declares")

    def set_event_times(self, times):
        """Of the rows of the last emit."""
        self._host.set_event_times(self._handle, array("q", times).tobytes())

    def set_header(self, name, values):
        """Of the rows of the last emit."""
        self._host.set_header(self._handle, as_name(name), values.pack(self._host))

    def reject(self, rows, code, message):
        self._host.reject(self._handle, _numbers(rows), text(code), text(message))

    def retry(self, rows, after_ms, code, message):
        after_ms = milliseconds(after_ms)
        self._host.retry(self._handle, _numbers(rows), after_ms, text(code), text(message))


def _listed(values):
    """Of what may be gone through once."""
    return values if isinstance(values, (list, tuple)) else list(values)


def _place(fields, column, what):
    """The number of a field."""
    if not isinstance(column, str):
        return column
    for place, field in enumerate(fields):
        if field.name == column:
            return place
    known = ", ".join(field.name for field in fields)
    raise KeyError(f"no field {column!r}: the module {what} {known or 'none'}")


def _numbers(rows):
    return rows.tobytes() if isinstance(rows, array) and rows.typecode == "I" else array("I", rows).tobytes()
