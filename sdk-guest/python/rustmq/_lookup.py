"""Tables of the node's `lookups`: the newest value of every key of a topic."""

from ._batch import Column
from ._json import read
from ._record import Reject, as_bytes

_lookups = []


class _Host:
    """Where it looks: the component's `packed`, or a test's."""

    host = None


class Lookup:
    """A table that the node declares. Made at the top of `module.py`:

        users = rustmq.Lookup("users")

    While a batch is worked on it does not change. Each call leaves Python: ask for many keys at once
    where there are many.
    """

    def __init__(self, name):
        self.name, self._number = name, None
        _lookups.append(self)

    def get(self, key):
        """What stands at a key (bytes or text), read from JSON; `None` where nothing does."""
        value = self.get_bytes(key)
        return None if value is None else read(value, "lookup", "what was found")

    def get_bytes(self, key):
        return self.get_all([key]).get(0)

    def get_all(self, keys):
        """The values of many keys, as a `Column`: nothing where there is no such key, or for `None`."""
        if self._number is None:
            raise Reject("lookup", f"no table {self.name}: give it in `lookups`, make it before the module opens")
        if not isinstance(keys, Column):
            keys = Column.of([as_bytes(key) for key in keys])
        host = _Host.host
        return Column.unpack(host.lookup(self._number, keys.pack(host)))


def register(host, table):
    """At `open`: asks for the number of each table, and raises where the node declares none."""
    _Host.host = host
    for lookup in _lookups:
        lookup._number = table(lookup.name)
