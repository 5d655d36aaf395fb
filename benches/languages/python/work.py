"""One function a kind of work."""

from array import array

import rustmq


def forward(rows, out):
    out.forward(0, array("I", range(len(rows))))


def keep(rows, out):
    values = rows.values()
    data, ends = values.data, values.offsets[1:]
    out.forward(0, array("I", [row for row, end in enumerate(ends) if not data[end - 2] & 1]))


def copy(rows, out):
    out.emit(0, array("I", range(len(rows))), rows.keys(), rows.values())


@rustmq.map
def convert(row):
    return {
        "carrier": row["carrier"], "flight": row["flight"], "origin": row["origin"], "dest": row["dest"],
        "hours": row["dep_delay"] / 60, "far": row["distance"] > 1000, "distance": row["distance"],
        "tail": row["tail"],
    }


@rustmq.row
class Flight:
    flight: int
    dep_delay: float
    distance: int


@rustmq.row
class Score:
    score: float


@rustmq.map
def scored(row: Flight) -> Score:
    return Score(row.distance / (row.dep_delay + row.flight))


def whole(rows, out):
    columns = zip(rows.ints("flight"), rows.floats("dep_delay"), rows.ints("distance"))
    out.emit_columns(0)
    out.set_floats("score", [distance / (delay + flight) for flight, delay, distance in columns])


KINDS = {
    "forward": forward, "filter": keep, "copy": copy, "json": convert.process, "columns": scored.process,
    "whole": whole,
}
