"""What Python expects of a system, for a component, which has none. Called by `component.py` alone.

- `print` and `logging` write whole lines to the server's log: standard output as `info`, standard error as `warn`;
  a line is cut at `LINE` letters, as the host cuts it anyway
- what Python would load late, from files that are not there, is loaded when the component is built
- `open` says that there are no files, where the system's ends the instance
- nobody interrupts: a `KeyboardInterrupt` is one of the module's own, and refuses its row as all else does
- tracebacks are made without the source, log records without the time: to look for either ends the instance
"""

import builtins
import codecs
import errno
import importlib
import io
import sys
import types
from encodings import aliases

from . import _record, _telemetry

LINE = 1024

_LATE = [
    "_strptime", "unicodedata", *(f"encodings.{name}" for name in (
        "ascii", "base64_codec", "cp1252", "hex_codec", "idna", "iso8859_1", "iso8859_15", "latin_1", "punycode",
        "raw_unicode_escape", "unicode_escape", "utf_16", "utf_16_be", "utf_16_le", "utf_32", "utf_32_be", "utf_32_le",
        "utf_8", "utf_8_sig",
    )),
]


class Lines(io.TextIOBase):
    """A text stream whose lines are told."""

    encoding = "utf-8"

    def __init__(self, level):
        self._level, self._begun = level, ""

    def writable(self):
        return True

    def write(self, text):
        first, *more = text.split("\n")
        self._add(first)
        for part in more:
            self.end()
            self._add(part)
        return len(text)

    def end(self):
        """The line is over, or the call is."""
        begun, self._begun = self._begun, ""
        if begun:
            _telemetry.log(self._level, begun)

    def _add(self, part):
        self._begun += part[:LINE - len(self._begun)]


def streams():
    """Before `module.py` is loaded, which may keep them."""
    sys.stdin = sys.__stdin__ = io.StringIO()
    sys.stdout = sys.__stdout__ = Lines("info")
    sys.stderr = sys.__stderr__ = Lines("warn")


def end_lines():
    """At the end of each call."""
    sys.__stdout__.end()
    sys.__stderr__.end()


def load():
    """After `module.py` was loaded: all that comes late, and what asks for files or clocks without being asked."""
    for name in _LATE:
        importlib.import_module(name)
    codecs.register(_not_loaded)
    io.open = builtins.open = _no_files
    uninterrupted()
    without_source(sys.modules.get("linecache"))
    logging = sys.modules.get("logging")
    if logging is not None:
        logging.time = without_clock(logging.time)


def uninterrupted():
    _record.INTERRUPTS = ()


def _no_files(file, *_, **__):
    raise FileNotFoundError(errno.ENOENT, "there are no files in the sandbox", file)


def _not_loaded(encoding):
    """The last who is asked for an encoding."""
    name = encoding.replace("-", "_")
    name = aliases.aliases.get(name, name)
    raise LookupError(f"encoding {encoding} is not loaded, and there are no files in the sandbox: if Python has it, "
                      f"import encodings.{name} at the top of module.py")


def without_source(linecache):
    if linecache is not None:
        linecache.checkcache = lambda filename=None: None
        linecache.updatecache = lambda filename, module_globals=None: []


def without_clock(time):
    return types.SimpleNamespace(**{**vars(time), "time": lambda: 0.0, "time_ns": lambda: 0})
