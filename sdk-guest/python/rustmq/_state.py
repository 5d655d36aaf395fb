"""What a module keeps from batch to batch: bytes under bytes, a set of them for each lane of a node.

`host` is `packed-state` of the component's imports, or what `testing` puts in its place. What a call reads is
fetched once; what it changes is told once, at its end, and counts only if the call ends well. What a refused row
changed is taken back.
"""

from collections import deque

from ._batch import Column
from ._json import dumps, read
from ._record import Reject, as_bytes, micros

SCAN_ENTRIES = 1000
"""Entries that one call of the host is asked for, at most."""

_NOTHING = object()


class State:
    """What is kept, during one call. Keys are bytes or text; values JSON, or bytes by the methods that say so.

    The lane's partition has all records of a key, so that what is kept under a record's key is seen by all of them.
    """

    def __init__(self, host):
        self._host, self._found = host, {}
        # by key, and by key and time: what the host is to be told
        self._changes, self._timers = {}, {}
        # what the row at work changed, as it was before; nothing where no rows are told apart
        self._undo = None

    def get(self, key, default=None):
        """What was put at a key."""
        value = self.get_bytes(key)
        return default if value is None else read(value, "state", "what is kept")

    def put(self, key, value):
        """Puts a value, as JSON."""
        if isinstance(value, (bytes, bytearray, memoryview)):
            raise TypeError("bytes are put with `put_bytes`")
        if hasattr(value, "_rustmq_row"):
            value = value._asdict()
        self.put_bytes(key, dumps(value))

    def get_bytes(self, key):
        """The bytes at a key; `None` where nothing stands."""
        key = _key(key)
        if key in self._changes:
            return self._changes[key]
        if key not in self._found:
            self._look([key])
        return self._found[key]

    def put_bytes(self, key, value):
        """Puts bytes, or text."""
        value = as_bytes(value)
        if value is None:
            raise TypeError("nothing cannot be put: `delete` takes an entry out")
        self._change(self._changes, _key(key), value)

    def delete(self, key):
        self._change(self._changes, _key(key), None)

    def fetch(self, keys):
        """Reads what stands at many keys with one call of the host, so that `get` has it at hand. For the keys of a
        batch it is done already where a function works row by row."""
        wanted = dict.fromkeys(as_bytes(key) for key in keys if key is not None)
        wanted = [key for key in wanted if key not in self._found]
        if wanted:
            self._look(wanted)

    def scan(self, prefix=b"", after=None, limit=None):
        """Entries whose keys begin with `prefix` and come behind `after`, in the order of their bytes, at most
        `limit`: a list of pairs of key and value."""
        found = self.scan_bytes(prefix, after, limit)
        return [(key, read(value, "state", "what is kept")) for key, value in found]

    def scan_bytes(self, prefix=b"", after=None, limit=None):
        """The same with values as bytes."""
        prefix, after = as_bytes(prefix), as_bytes(after)
        behind = (key for key in self._changes if key.startswith(prefix) and (after is None or key > after))
        own, found = deque(sorted(behind)), []
        while limit is None or len(found) < limit:
            wanted = SCAN_ENTRIES if limit is None else min(SCAN_ENTRIES, limit - len(found))
            keys, values = map(list, self._host.scan(prefix, after, wanted))
            page = dict(zip(keys, values))
            while own and (not keys or own[0] <= keys[-1]):
                key = own.popleft()
                page[key] = self._changes[key]
            found += [(key, page[key]) for key in sorted(page) if page[key] is not None]
            if not keys:
                break
            after = keys[-1]
        return found[:limit]

    def set_timer(self, key, time):
        """A timer of a key, which fires once the watermark has passed `time`: microseconds since the epoch, UTC. A
        key may have several; one that was set already is not set twice."""
        self._change(self._timers, (_key(key), micros(time)), True)

    def clear_timer(self, key, time):
        self._change(self._timers, (_key(key), micros(time)), False)

    def _look(self, keys):
        self._found.update(zip(keys, self._host.get(Column.of(keys))))

    def _change(self, what, key, value):
        if self._undo is not None:
            self._undo.append((what, key, what.get(key, _NOTHING)))
        what[key] = value

    def begin_row(self):
        """A row begins: what it changes can be taken back."""
        self._undo = []

    def undo_row(self):
        """The row is not taken: nor is what it changed."""
        for what, key, before in reversed(self._undo or ()):
            if before is _NOTHING:
                del what[key]
            else:
                what[key] = before
        self._undo = []

    def tell(self):
        """Tells the host all that changed."""
        if self._changes:
            self._host.put(Column.of(self._changes.keys()), Column.of(self._changes.values()))
        for on in (True, False):
            timers = [timer for timer, last in self._timers.items() if last is on]
            if timers:
                self._host.timers(Column.of([key for key, _ in timers]), [time for _, time in timers], on)


def _key(key):
    if key is None:
        raise Reject("key", "there is no key to keep something under")
    return as_bytes(key)
