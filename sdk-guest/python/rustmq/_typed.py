"""Columns of numbers and bools, as they cross the boundary, and what a field may be.

A column has a value for every row, present or not; validity is empty while every row is present. Numbers
stay in an `array`: what is not looked at is not made an object.
"""

import itertools
from array import array
from typing import NamedTuple, NewType

Timestamp = NewType("Timestamp", int)
"""A field of this type is an int: microseconds since the epoch, UTC."""


class Field(NamedTuple):
    """`kind` is one of bool, int64, float64, string, bytes, timestamp."""

    name: str
    kind: str


_BITS = [tuple(byte >> bit & 1 == 1 for bit in range(8)) for byte in range(256)]
_DIGITS = bytes([48, 49]) + bytes(254)


def spread(bits, count):
    """Bits, least significant first, as a list of bools."""
    return list(itertools.islice(itertools.chain.from_iterable(map(_BITS.__getitem__, bits)), count))


def gathered(flags):
    """Bools as bits, least significant first."""
    flags = bytes(flags)
    if not flags:
        return b""
    return int(flags[::-1].translate(_DIGITS), 2).to_bytes((len(flags) + 7) // 8, "little")


def validity_of(values):
    """Which of these are there; empty where all are."""
    if None not in values:
        return b""
    return gathered([value is not None for value in values])


class _Values:
    """`get` and iteration give `None` where a row is absent."""

    __slots__ = ("values", "validity")

    def present(self):
        """By row."""
        return spread(self.validity, len(self)) if self.validity else [True] * len(self)

    def get(self, row):
        if self.validity and not self.validity[row >> 3] & 1 << (row & 7):
            return None
        return self.values[row]

    def __len__(self):
        return len(self.values)

    def __iter__(self):
        if not self.validity:
            return iter(self.values)
        return iter([value if here else None for value, here in zip(self.values, self.present())])


class _Numbers(_Values):
    __slots__ = ()
    _code = ""

    def __init__(self, values, validity=b""):
        """`values` is an array of all rows; that of an absent row means nothing."""
        self.values, self.validity = values, validity

    @classmethod
    def of(cls, values):
        """Of numbers and `None`s. An array of the column's own type is not copied."""
        if isinstance(values, cls):
            return values
        if isinstance(values, array) and values.typecode == cls._code:
            return cls(values)
        values = values if isinstance(values, (list, tuple)) else list(values)
        present = validity_of(values)
        if present:
            values = [0 if value is None else value for value in values]
        return cls(array(cls._code, values), present)

    @classmethod
    def unpack(cls, packed):
        return cls(array(cls._code, packed.values), packed.validity)

    def pack(self, host):
        return host.Numbers(self.values.tobytes(), self.validity)


class Ints(_Numbers):
    """Integers of 64 bits, or times in microseconds: `values` is an `array("q")`."""

    __slots__ = ()
    _code = "q"


class Floats(_Numbers):
    """`values` is an `array("d")`."""

    __slots__ = ()
    _code = "d"


class Bools(_Values):
    """`values` is a list."""

    __slots__ = ()

    def __init__(self, values, validity=b""):
        self.values, self.validity = values, validity

    @classmethod
    def of(cls, values):
        """Of bools and `None`s."""
        if isinstance(values, cls):
            return values
        values = values if isinstance(values, (list, tuple)) else list(values)
        wrong = set(map(type, values)) - {bool, type(None)}
        if wrong:
            raise TypeError(f"a {wrong.pop().__name__} is no bool")
        present = validity_of(values)
        return cls(list(map(bool, values)) if present else values, present)

    @classmethod
    def unpack(cls, bools, count):
        return cls(spread(bools.values, count), bools.validity)

    def pack(self, host):
        return host.Bools(gathered(self.values), self.validity)
