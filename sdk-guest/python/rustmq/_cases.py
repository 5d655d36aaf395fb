"""Runs of the harness as cases for `rustmq module test`, which says where it wants them.

A case is a line of JSON: what the node declares, what went in and what came out; a lane with all its batches is
one case, written when the tests are over.
"""

import atexit
import json
import os
import sys

_lanes = []


def is_wanted(module):
    """Whether somebody asks, and it is the module of `module.py`."""
    path, main = os.environ.get("RUSTMQ_CASES"), sys.modules.get("module")
    return bool(path) and main is not None and any(value is module for value in vars(main).values())


def record(context, batch, native_ns=None):
    """Writes down a case of one batch."""
    _write({**_node(context), **batch, "native_ns": native_ns})


def keep(lane):
    """A lane is written down as it is when the tests are over."""
    if not _lanes:
        atexit.register(write_lanes)
    _lanes.append(lane)


def write_lanes():
    while _lanes:
        lane = _lanes.pop(0)
        if not lane.is_case:
            continue
        case = {
            "lateness_us": lane.lateness_us, "batches": lane.batches, "migrated": lane.migrated,
            "kept": entries(lane.store.entries), "timers": timers(lane.store.set),
        }
        _write({**_node(lane.context), "lane": case, "native_ns": lane.native_ns})


def batch(rows, outcome, tables):
    """What went in, and what came of it."""
    return {
        "lookups": {name: entries(table) for name, table in zip(tables.names, tables.entries)},
        "rows": [{"key": _shown(r.key), "value": _shown(r.value), "event_time": r.event_time,
                  "headers": _headers(r.headers)} for r in rows],
        "out": [{"port": r.port, "parent": r.parent, "key": _shown(r.key), "value": _shown(r.value),
                 "event_time": r.event_time, "headers": _headers(r.headers)} for r in outcome.rows],
        "rejects": [vars(refused) for refused in outcome.rejects],
        "retries": [vars(refused) for refused in outcome.retries],
    }


def entries(of):
    return [[_shown(key), _shown(value)] for key, value in sorted(of.items())]


def timers(of):
    return [[time, _shown(key)] for time, key in sorted(of)]


def _node(context):
    """What the node declares, and what the module said of its columns."""
    return {
        "params": context.text, "outputs": context.ports,
        "selected": context.selected and _fields(context.selected),
        "declared": {port: _fields(fields) for port, fields in context.declared.items()},
    }


def _write(case):
    with open(os.environ["RUSTMQ_CASES"], "a", encoding="utf-8") as cases:
        cases.write(json.dumps(case, ensure_ascii=False) + "\n")


def _fields(fields):
    return [{"name": field.name, "type": field.kind} for field in fields]


def _shown(value):
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"hex": value.hex()}


def _headers(headers):
    return [[name, _shown(value)] for name, value in headers.items()]
