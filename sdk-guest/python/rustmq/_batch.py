"""Rows as they cross the boundary: columns of little-endian bytes, which nothing boxes.

`host` is `packed` of the component's imports, or what `testing` puts in its place.
"""

from array import array

assert array("I").itemsize == 4, "this Python has no 32-bit array"


class Column:
    """Row i is `data[offsets[i]:offsets[i + 1]]`, or nothing."""

    __slots__ = ("offsets", "data", "validity")

    def __init__(self, offsets, data, validity=b""):
        self.offsets, self.data, self.validity = offsets, data, validity

    @staticmethod
    def of(values):
        """Of bytes and `None`s."""
        offsets, at, missing = array("I", [0]), 0, False
        for value in values:
            if value is None:
                missing = True
            else:
                at += len(value)
            offsets.append(at)
        if not missing:
            return Column(offsets, b"".join(values))
        bits = bytearray((len(offsets) + 6) // 8)
        for i, value in enumerate(values):
            if value is not None:
                bits[i >> 3] |= 1 << (i & 7)
        return Column(offsets, b"".join(v for v in values if v is not None), bytes(bits))

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

    def gather(self, rows):
        """The column of these rows."""
        return Column.of([self.get(row) for row in rows])


class Batch:
    """The rows of one call. Columns are fetched when first asked for."""

    def __init__(self, host, handle):
        self._host, self._handle = host, handle
        self._len = handle.len()
        self._fetched = {}

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
        fetch = lambda: Column.unpack(self._host.header(self._handle, name))  # noqa: E731
        return self._once(("header", name), fetch)

    def event_times(self):
        """Microseconds since the epoch, UTC."""
        return self._once("times", lambda: array("q", self._host.event_times(self._handle)))

    def offsets(self):
        """Of the records in the stage's source topic."""
        return self._once("offsets", lambda: array("Q", self._host.offsets(self._handle)))

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
    """What a batch becomes. Row numbers are lists or arrays of ints."""

    def __init__(self, host, handle):
        self._host, self._handle = host, handle

    def forward(self, port, rows):
        """Passes rows on as they are."""
        self._host.forward(self._handle, port, _numbers(rows))

    def emit(self, port, parents, keys, values):
        """New rows; `parents[i]` is the row that row i came from."""
        host = self._host
        host.emit(self._handle, port, _numbers(parents), keys.pack(host), values.pack(host))

    def set_event_times(self, times):
        """Of the rows of the last emit."""
        self._host.set_event_times(self._handle, array("q", times).tobytes())

    def set_header(self, name, values):
        """Of the rows of the last emit."""
        self._host.set_header(self._handle, name, values.pack(self._host))

    def reject(self, rows, code, message):
        self._host.reject(self._handle, _numbers(rows), code, message)

    def retry(self, rows, after_ms, code, message):
        self._host.retry(self._handle, _numbers(rows), after_ms, code, message)


def _numbers(rows):
    return rows.tobytes() if isinstance(rows, array) and rows.typecode == "I" else array("I", rows).tobytes()
