"""Whether a module makes requests: `describe.py` asks, since the component's world must say so.

It does where it imports `rustmq.http`, or where its code names `http` of the package: what a function would load
only when a row comes is not there in the component.
"""

import os
import sys
import types

import rustmq


def asks(main):
    """Of `module.py`, and of what was loaded for it."""
    if "rustmq.http" in sys.modules:
        return True
    return any(_names_http(module) for module in list(sys.modules.values()) if _is_authors(module, main))


def _is_authors(module, main):
    if module.__name__.partition(".")[0] == "rustmq":
        return False
    here = os.path.dirname(main.__file__) + os.sep
    file = getattr(module, "__file__", None) or ""
    return file.startswith(here) or any(value is rustmq for value in vars(module).values())


def _names_http(module):
    loader = getattr(module.__spec__, "loader", None)
    if not hasattr(loader, "get_code"):
        return False
    package = {"rustmq"} | {name for name, value in vars(module).items() if value is rustmq}
    return any("http" in names and names & package for names in _names(loader.get_code(module.__name__)))


def _names(code):
    """Of a file's code and of each function in it."""
    yield {*code.co_names, *code.co_varnames, *code.co_freevars}
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            yield from _names(part)
