"""What stands for a system in a component, tried natively."""

import codecs
import io
import json
import linecache
import logging
import os
import subprocess
import sys
import tempfile
import time
import traceback
import unittest
from unittest import mock

from rustmq import _sandbox, _telemetry
from rustmq._native import Sink

SDK = os.path.join(os.path.dirname(__file__), "..")


class Streams(unittest.TestCase):
    def test_whole_lines_are_told(self):
        sink, out = Sink(), _sandbox.Lines("info")
        print("before it opened", file=out)
        with mock.patch.object(_telemetry._Host, "sink", sink):
            print("a", 1, file=out, end="")
            print("b\nc", file=out, flush=True)
            print("\n", file=out)
            print("x" * 5000, "y" * 5000, file=out)
            print("part", file=out, end="")
            out.end()
            out.end()
        self.assertEqual(sink.lines, [("info", line) for line in ("a 1b", "c", "x" * _sandbox.LINE, "part")])

    def test_logging_and_tracebacks_ask_for_nothing(self):
        out = io.StringIO()
        logger, handler = logging.Logger("m"), logging.StreamHandler(out)
        handler.setFormatter(logging.Formatter("%(created)d %(message)s"))
        logger.addHandler(handler)
        names = {name: getattr(linecache, name) for name in ("checkcache", "updatecache")}
        self.addCleanup(lambda: [setattr(linecache, name, value) for name, value in names.items()])
        with mock.patch.object(logging, "time", _sandbox.without_clock(time)):
            logger.warning("warned")
        linecache.clearcache()
        _sandbox.without_source(linecache)
        with mock.patch.object(os, "stat", None), mock.patch("builtins.open", None):
            try:
                raise ValueError("x")
            except ValueError:
                said = traceback.format_exc()
        self.assertEqual(out.getvalue(), "0 warned\n")
        self.assertRegex(said, r"(?s)line \d+, in test_logging.*ValueError: x")

    def test_what_comes_late_is_there_or_named(self):
        for name in _sandbox._LATE:
            __import__(name)
        with self.assertRaisesRegex(LookupError, "import encodings.cp1251 at the top of module.py"):
            _sandbox._not_loaded("windows_1251")
        with self.assertRaisesRegex(FileNotFoundError, "no files in the sandbox"):
            _sandbox._no_files("x", "w")
        self.assertEqual(codecs.lookup("utf-8-sig").name, "utf-8-sig")


class Described(unittest.TestCase):
    def described(self, source, check=True):
        """What `describe.py` says of a module, and what it prints beside."""
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "module.py"), "w", encoding="utf-8") as file:
                file.write(source)
            env = {**os.environ, "PYTHONPATH": os.pathsep.join([folder, SDK])}
            words = [sys.executable, os.path.join(SDK, "describe.py")]
            return subprocess.run(words, env=env, cwd=folder, capture_output=True, text=True, check=check)

    def test_what_a_module_prints_is_no_part_of_the_answer(self):
        said = self.described("import rustmq\nprint('loaded')\n\n@rustmq.map\ndef m(value):\n    return value\n")
        self.assertRegex(said.stdout, r"^\{.*\}\n$")
        self.assertEqual(said.stderr, "loaded\n")

    def test_a_module_that_exits_when_it_is_loaded_says_where(self):
        said = self.described("import sys\n\nsys.exit()\n", check=False)
        self.assertEqual((said.returncode, said.stdout), (1, ""))
        where = r"\(module.py, line 3, in <module>\)"
        self.assertRegex(said.stderr, f"^module.py does not load: SystemExit; .* {where}")
        said = self.described("import rustmq\n", check=False)
        self.assertRegex(said.stderr, "^module.py defines no module")

    def test_a_module_makes_requests_where_its_code_names_them(self):
        def asks(source):
            module = f"{source}\n\n@rustmq.map\ndef m(value):\n    return get(value)\n"
            return json.loads(self.described(module).stdout)["http"]

        for source in (
            "import rustmq\nget = lambda url: rustmq.http.get(url).ok().text",
            "import rustmq as r\nimport rustmq\nget = lambda url: [r.http.get(u) for u in url]",
            "import rustmq\ndef get(url):\n    def deep():\n        import rustmq\n        return rustmq.http\n    return deep",
            "import rustmq\nfrom rustmq.http import get",
        ):
            self.assertTrue(asks(source), source)
        self.assertFalse(asks("import rustmq, types\nget = lambda url: types.SimpleNamespace(http=1).http"))


if __name__ == "__main__":
    unittest.main()
