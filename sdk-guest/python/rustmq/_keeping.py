"""What a module says of the state that it keeps: its schema, what it does when timers fire, and how it takes over
what an older version kept.
"""

import inspect

from . import _telemetry
from ._record import Failure, reason, refuse_async, settled
from ._row import within as _row_within
from ._state import State
from ._take import annotations, by_place, known_extras, take


class Keeping:
    """What is the same for every kind of module."""

    def on_timer(self, function):
        """Put above a function of a key and a time in microseconds, which is called for each timer that the
        watermark has passed; further parameters, by their names: `state` and `params`. What it returns goes out
        as what the module's own function returns, with the timer's key and time.

            @count.on_timer
            def over(key, time, state):
                return state.get(key)
        """
        return self._set_timers(function, ["key", "time"])

    def _set_timers(self, function, first):
        self._must_keep(refuse_async(function))
        wanted = list(inspect.signature(function).parameters)
        if len(wanted) < len(first):
            raise TypeError(f"{function.__name__}: the first parameters are `{'` and `'.join(first)}`")
        if self._timer is not None:
            raise TypeError(f"{function.__name__}: {self.__name__} has a function for its timers already")
        extras = known_extras(function.__name__, wanted[len(first):], ("state", "params"))
        made = _row_within(annotations(function).get("return")) if first[0] == "key" else None
        if made is not None and self._declared is not None and made is not self._declared:
            raise TypeError(f"{made.name} and {self._declared.name}: the rows of a module are of one class")
        self._declared = made or self._declared
        self._timer = by_place(function), extras
        return function

    def migrate(self, schema):
        """Put above a function that takes over an entry of what an older version kept with that `state_schema`: of
        its key, its value (JSON, or by the annotation `bytes` or `str`) and the state, which is empty before the
        first entry; what it puts there is kept from now on.

            @spent.migrate(1)
            def euros(key, euros, state):
                state.put(key, euros * 100)
        """
        if not _is_schema(schema):
            raise TypeError("say from which `state_schema`: @spent.migrate(1)")

        def taken(function):
            self._must_keep(refuse_async(function))
            wanted = list(inspect.signature(function).parameters)
            if len(wanted) != 3:
                raise TypeError(f"{function.__name__}: the parameters are `key`, `value` and `state`")
            note = annotations(function).get(wanted[1])
            if _row_within(note) is not None:
                raise TypeError(f"{function.__name__}: what was kept is no typed columns: leave the row "
                                f"class out of `{wanted[1]}`, which is read from JSON")
            if schema == self.state_schema or schema in self.migrations:
                raise TypeError(f"{function.__name__}: a migration is from an older schema, and each has one")
            self.migrations[schema] = by_place(function), take(note)
            return function
        return taken

    def _must_keep(self, function):
        if self.state_schema is None:
            raise TypeError(f"{function.__name__}: {self.__name__} keeps no state: it takes no `state`")

    def _check_schema(self):
        """Of its state, which it keeps if it takes one."""
        if "state" in self._extras:
            self.state_schema = 1 if self.state_schema is None else self.state_schema
        elif self.state_schema is not None:
            raise TypeError(f"{self.__name__} keeps no state: it takes no `state`")
        if self.state_schema is not None and not _is_schema(self.state_schema):
            raise TypeError(f"{self.__name__}: `state_schema` is a number of 32 bits, not {self.state_schema!r}")


def _is_schema(schema):
    return isinstance(schema, int) and not isinstance(schema, bool) and 0 <= schema < 2**32


def migrate(module, kept, schema, keys, values):
    """The module takes over a part of what was kept with an older schema."""
    if schema not in module.migrations:
        raise Failure("migrate", f"nothing is taken over from schema {schema}")
    _telemetry.begin()
    state, (function, taking) = State(kept), module.migrations[schema]
    value = taking(values)
    for row, key in enumerate(keys):
        try:
            settled(function(key, value(row), state))
        except BaseException as error:
            code, message = reason(error)
            raise Failure(code, f'key "{key.decode(errors="replace")}": {message}') from error
    state.tell()
    _telemetry.tell()
