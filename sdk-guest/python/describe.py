"""Prints what `module.py` says of itself, as JSON: `rustmq module build` asks before it builds."""

import json
import sys

answer, sys.stdout = sys.stdout, sys.stderr  # what the module prints is no part of the answer

from rustmq import _asking, _module, _record

try:
    import module
except SystemExit as error:  # with code 0 the build would be told nothing
    sys.exit(f"module.py does not load: {_record.place(error)}")

found = _module.find(vars(module))
print(json.dumps({
    "params": found.params_schema, "ports": found.ports_named, "http": _asking.asks(module),
    "state_schema": found.state_schema, "migrates": sorted(found.migrations) or None,
}), file=answer)
