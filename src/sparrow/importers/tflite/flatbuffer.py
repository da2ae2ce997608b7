"""FlatBuffers tables read straight from bytes, every offset checked.

A table begins with the distance back to its vtable: two uint16 (bytes of the vtable, bytes of the
table), then a uint16 per field, its place in the table or 0 when absent. Vectors begin with a
uint32 count. The format allows any offset to point anywhere, so that a small file may name one
large vector a million times: what is turned into Python objects counts against ``MAX_ITEMS``.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparrow.errors import BadModel

MAX_ITEMS = 1 << 22
MAX_TEXT = 1024
_FORMATS = {c: struct.Struct("<" + c) for c in "bBhHiIqQfd?"}


class File:
    """The bytes of a file, and how much of them was turned into objects."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.name = data, name
        self.items = 0

    def bad(self, what: str) -> BadModel:
        """An error about this file."""
        return BadModel(f"{self.name}: not a valid .tflite file: {what}")

    def spend(self, count: int) -> None:
        """Account for ``count`` objects."""
        self.items += count
        if self.items > MAX_ITEMS:
            raise self.bad(f"more than {MAX_ITEMS} items")

    def number(self, code: str, at: int) -> Any:
        """The number of a `struct` code at a position."""
        f = _FORMATS[code]
        if at < 0 or at + f.size > len(self.data):
            raise self.bad(f"position {at} lies outside of its {len(self.data)} bytes")
        return f.unpack_from(self.data, at)[0]

    def follow(self, at: int) -> int:
        """Where the offset stored at a position points."""
        return at + int(self.number("I", at))

    def root(self) -> Table:
        """The root table."""
        return Table(self, self.follow(0))

    def vector(self, at: int, dtype: str) -> NDArray[Any]:
        """The vector of numbers at a position, as a view of the file."""
        count, first = int(self.number("I", at)), at + 4
        size = np.dtype(dtype).itemsize
        if first + count * size > len(self.data):
            raise self.bad(f"a vector of {count} elements at {at} is longer than the file")
        return np.frombuffer(self.data, dtype, count, first)


class Table:
    """A table; fields by their number in the schema, defaults where they are absent.

    Raises:
        BadModel: It, its vtable or a field lies outside of the file.
    """

    __slots__ = ("_at", "_file", "_size", "_vtable", "_width")

    def __init__(self, file: File, at: int) -> None:
        self._file, self._at = file, at
        self._vtable = at - int(file.number("i", at))
        self._width = int(file.number("H", self._vtable))
        self._size = int(file.number("H", self._vtable + 2))
        if self._width < 4 or self._vtable + self._width > len(file.data):
            raise file.bad(f"the table at {at} has a vtable of {self._width} bytes")
        file.spend(1)

    def _field(self, i: int) -> int:
        """Position of field ``i``, 0 when absent."""
        entry = 4 + 2 * i
        if entry + 2 > self._width:
            return 0
        offset = int(self._file.number("H", self._vtable + entry))
        if offset and not 4 <= offset < self._size:
            raise self._file.bad(f"field {i} of the table at {self._at} lies outside of it")
        return self._at + offset if offset else 0

    def number(self, i: int, code: str, default: float = 0) -> Any:
        """A scalar field of a `struct` code."""
        at = self._field(i)
        return self._file.number(code, at) if at else default

    def vector(self, i: int, dtype: str) -> NDArray[Any] | None:
        """A vector of numbers, as a view of the file; None when absent."""
        at = self._field(i)
        return self._file.vector(self._file.follow(at), dtype) if at else None

    def ints(self, i: int, most: int) -> tuple[int, ...] | None:
        """A vector of at most ``most`` int32; None when absent."""
        v = self.vector(i, "<i4")
        if v is None:
            return None
        if v.size > most:
            raise self._file.bad(f"a list of {v.size} numbers, at most {most} are expected")
        self._file.spend(v.size)
        return tuple(int(e) for e in v)

    def text(self, i: int) -> str:
        """A string, empty when absent."""
        v = self.vector(i, "u1")
        if v is None:
            return ""
        if v.size > MAX_TEXT:
            raise self._file.bad(f"a name of {v.size} bytes, at most {MAX_TEXT} are read")
        self._file.spend(v.size // 64 + 1)
        try:
            return v.tobytes().decode("utf-8")
        except UnicodeDecodeError:
            raise self._file.bad("a name is not UTF-8") from None

    def table(self, i: int) -> Table | None:
        """A table; None when absent."""
        at = self._field(i)
        return Table(self._file, self._file.follow(at)) if at else None

    def tables(self, i: int, most: int) -> list[Table]:
        """A vector of at most ``most`` tables; empty when absent."""
        at = self._field(i)
        if not at:
            return []
        first = self._file.follow(at) + 4
        offsets = self._file.vector(first - 4, "<u4")
        if offsets.size > most:
            raise self._file.bad(f"{offsets.size} entries, at most {most} are read")
        return [Table(self._file, first + 4 * k + int(offset)) for k, offset in enumerate(offsets)]
