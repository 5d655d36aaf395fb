"""Write RustMQ modules as plain Python functions.

    import rustmq

    @rustmq.map
    def tidy(row):
        if row.get("delay") is None:
            raise rustmq.Reject("delay", "no delay")
        return {"carrier": row["carrier"], "hours": row["delay"] / 60}

- `map` one row to one (`None` drops it), `flat_map` to many (a generator, say), `filter`, `route`
- the first parameter is the record's value read from JSON, or as it is where it is annotated `bytes`
  or `str`, and `None` for a record without a value where it says `| None`; further parameters, by their
  names: `meta` for key, time and headers, `state` for what is kept from batch to batch, `params` for the
  node's params
- a class with `@rustmq.row` is a row of typed columns, which the host decodes and encodes: annotate the
  first parameter with it (or with `Flight | None`) to read them, the function's result to make them
- what is returned goes out as JSON; `bytes` and `TOMBSTONE` as they are; `Record` sets more than the value
- `Reject` refuses a row, `Retry` asks for it again later; any other exception refuses the row with
  code `error`
- `log`, `Counter` and `Histogram` tell the server's log and the pipeline's status
- a function with a `state` keeps values by key: `@count.on_timer` above another one is for the timers that it
  sets, `@count.migrate(1)` for what it kept with an older `state_schema`
- `Lookup` is a table that the node declares: the newest value of every key of a topic
- `rustmq.http` makes requests to other services, where the node grants it
- `batch` is the level below: whole batches, columns as arrays
- `rustmq.testing` runs a module natively, with neither broker nor WebAssembly

In the sandbox there are no files, clocks, threads or sockets: import what you need at the top of
`module.py`, since what is loaded there is built into the component.
"""

from ._batch import Batch, Column, Meta, Outbox
from ._lookup import Lookup
from ._module import Module, batch, filter, flat_map, map, route
from ._record import TOMBSTONE, Failure, Record, Reject, Retry
from ._row import row
from ._state import State
from ._telemetry import Counter, Histogram, log
from ._typed import Bools, Floats, Ints, Timestamp

__all__ = [
    "TOMBSTONE", "Batch", "Bools", "Column", "Counter", "Failure", "Floats", "Histogram", "Ints", "Lookup",
    "Meta", "Module", "Outbox", "Record", "Reject", "Retry", "State", "Timestamp", "batch", "filter", "flat_map",
    "log", "map", "route", "row",
]


def __getattr__(name):
    """`rustmq.http` without an import of its own: only who makes requests has it."""
    if name != "http":
        raise AttributeError(f"module 'rustmq' has no attribute {name!r}")
    import rustmq.http
    return rustmq.http
