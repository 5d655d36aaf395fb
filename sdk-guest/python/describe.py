"""Prints what `module.py` says of itself, as JSON: `rustmq module build` asks before it builds."""

import json

import module
from rustmq import _module

found = _module.find(vars(module))
print(json.dumps({"params": found.params_schema, "ports": found.ports_named}))
