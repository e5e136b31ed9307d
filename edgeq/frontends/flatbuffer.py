"""A flatbuffer, read with every offset checked first: tables, fields, vectors, strings.

A table begins with the distance back to its vtable, which says where each field lies; vectors and
strings begin with their length. What is read never leaves the bytes, and a vector of tables or a
string has a greatest length, so that a malformed file costs no more than a good one of its size.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

from edgeq.errors import ModelError
from edgeq.ir import Array

MOST_TABLES = 1 << 14  # in one vector
MOST_TEXT = 1 << 12  # bytes of a string
_OFFSET = struct.Struct("<I")
_LENGTHS = struct.Struct("<HH")


@dataclass(frozen=True, slots=True)
class Table:
    """One table: `at` is where it begins, `vtable` where its fields are listed."""

    data: bytes = field(repr=False)
    path: str
    at: int
    vtable: int = 0
    fields: int = 0  # bytes of the vtable
    size: int = 0  # bytes of the table

    def scalar(self, slot: int, form: str, default: float = 0) -> float:
        """The number in field `slot`, of `struct`'s format `form`."""
        kind = struct.Struct(f"<{form}")
        at = self._field(slot, kind.size)
        if at is None:
            return default
        value: float = kind.unpack_from(self.data, at)[0]
        return value

    def integer(self, slot: int, form: str = "i", default: int = 0) -> int:
        """The integer in field `slot`."""
        return int(self.scalar(slot, form, default))

    def table(self, slot: int) -> Table | None:
        """The table that field `slot` points at."""
        at = self._target(slot)
        return None if at is None else table_at(self.data, self.path, at)

    def tables(self, slot: int) -> tuple[Table, ...]:
        """The tables of the vector in field `slot`."""
        start, length = self._vector(slot, _OFFSET.size)
        if length > MOST_TABLES:
            raise self.broken(f"a list of {length} tables; at most {MOST_TABLES} are read")
        places = range(start, start + 4 * length, 4)
        offsets = [_OFFSET.unpack_from(self.data, at)[0] for at in places]
        return tuple(
            table_at(self.data, self.path, at + offset)
            for at, offset in zip(places, offsets, strict=True)
        )

    def numbers(self, slot: int, dtype: str) -> Array:
        """The vector of numbers in field `slot`: a view, not a copy."""
        kind = np.dtype(dtype)
        start, length = self._vector(slot, kind.itemsize)
        return np.frombuffer(self.data, kind, length, start)

    def text(self, slot: int) -> str:
        """The string in field `slot`."""
        start, length = self._vector(slot, 1)
        if length > MOST_TEXT:
            raise self.broken(f"a name of {length} bytes; at most {MOST_TEXT} are read")
        return self.data[start : start + length].decode("utf-8", "replace")

    def broken(self, what: str) -> ModelError:
        """The refusal of a file that is no flatbuffer, or none any more."""
        return ModelError("EQ0310", f"{self.path}: malformed flatbuffer: {what}")

    def _field(self, slot: int, size: int) -> int | None:
        """Where field `slot` lies; None if the table does not have it."""
        entry = 4 + 2 * slot
        if entry + 2 > self.fields:
            return None
        offset: int = struct.unpack_from("<H", self.data, self.vtable + entry)[0]
        if offset == 0:
            return None
        if offset + size > self.size:
            raise self.broken(f"field {slot} lies outside its table at byte {self.at}")
        return self.at + offset

    def _target(self, slot: int) -> int | None:
        at = self._field(slot, _OFFSET.size)
        if at is None:
            return None
        target: int = at + _OFFSET.unpack_from(self.data, at)[0]
        return target

    def _vector(self, slot: int, size: int) -> tuple[int, int]:
        """Where the items of a vector begin and how many there are; none where it is missing."""
        at = self._target(slot)
        if at is None:
            return 0, 0
        if at + 4 > len(self.data):
            raise self.broken(f"field {slot} points to byte {at} of {len(self.data)}")
        length: int = _OFFSET.unpack_from(self.data, at)[0]
        if at + 4 + length * size > len(self.data):
            raise self.broken(f"{length} items of {size} bytes at byte {at} of {len(self.data)}")
        return at + 4, length


def table_at(data: bytes, path: str, at: int) -> Table:
    """The table at byte `at`.

    Raises:
        ModelError: it, or its vtable, does not lie inside the data.
    """
    found = Table(data, path, at)
    if at + 4 > len(data):
        raise found.broken(f"a table at byte {at} of {len(data)}")
    vtable = at - struct.unpack_from("<i", data, at)[0]
    if not 0 <= vtable <= len(data) - _LENGTHS.size:
        raise found.broken(f"a vtable at byte {vtable} of {len(data)}")
    fields, size = _LENGTHS.unpack_from(data, vtable)
    if fields < 4 or vtable + fields > len(data) or size < 4 or at + size > len(data):
        raise found.broken(f"the table at byte {at} has {size} bytes, {fields} in its vtable")
    return Table(data, path, at, vtable, fields, size)


def root(data: bytes, path: str, identifier: bytes) -> Table:
    """The root table of a file of this kind.

    Raises:
        ModelError: the file is shorter than its header, or of another kind.
    """
    if len(data) < 8 or data[4:8] != identifier:
        name = identifier.decode()
        raise ModelError("EQ0310", f"{path}: no {name} file: bytes 4 to 8 are {data[4:8]!r}")
    return table_at(data, path, _OFFSET.unpack_from(data)[0])
