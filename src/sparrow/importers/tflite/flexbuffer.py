"""Options of custom operators: a FlexBuffer map of numbers and lists of numbers, offsets checked.

The last byte is the width of the root, the one before it its type: kind in the upper six bits, the
width of what it points at (a power of two) in the lower two. Offsets point backwards.
"""

from __future__ import annotations

from collections.abc import Mapping

from sparrow.importers.tflite.flatbuffer import File

MAX_KEYS = 64
MAX_VALUES = 1 << 12
_INT, _UINT, _FLOAT = 1, 2, 3
_DIRECT = {_INT: "bhiq", _UINT: "BHIQ", 26: "BHIQ"}
_INDIRECT = {6: _INT, 7: _UINT, 8: _FLOAT}
_VECTORS = {11: _INT, 12: _UINT, 13: _FLOAT}
_MAP, _VECTOR = 9, 10

Numbers = float | tuple[float, ...]


def read_options(data: bytes, name: str) -> Mapping[str, Numbers]:
    """The numbers of a map by key; values of other kinds are left out.

    Raises:
        BadModel: It is malformed.
    """
    file = _Flex(data, name)
    if len(data) < 3:
        raise file.bad("its options are cut off")
    width, packed = data[-1], data[-2]
    if width not in (1, 2, 4, 8) or packed >> 2 != _MAP:
        raise file.bad("its options are no map")
    return file.map(file.back(len(data) - 2 - width, width), 1 << (packed & 3))


class _Flex(File):
    def back(self, at: int, width: int) -> int:
        """Where the offset stored at a position points."""
        return at - self.integer(at, width, _UINT)

    def integer(self, at: int, width: int, kind: int) -> int:
        code = _DIRECT[kind][width.bit_length() - 1]
        return int(self.number(code, at))

    def size(self, at: int, width: int, most: int) -> int:
        """Count of a vector, which stands before it."""
        count = self.integer(at - width, width, _UINT)
        if count > most:
            raise self.bad(f"{count} options, at most {most} are read")
        return count

    def real(self, at: int, width: int) -> float:
        if width not in (4, 8):
            raise self.bad(f"an option is a float of {width} bytes")
        return float(self.number("f" if width == 4 else "d", at))

    def map(self, at: int, width: int) -> dict[str, Numbers]:
        count = self.size(at, width, MAX_KEYS)
        wide = self.integer(at - 2 * width, width, _UINT)
        if wide not in (1, 2, 4, 8):
            raise self.bad(f"keys of {wide} bytes")
        keys = self.back(at - 3 * width, width)
        found: dict[str, Numbers] = {}
        for i in range(count):
            packed = int(self.number("B", at + count * width + i))
            value = self.value(at + i * width, width, packed)
            if value is not None:
                found[self.key(self.back(keys + i * wide, wide))] = value
        return found

    def key(self, at: int) -> str:
        end = self.data.find(b"\0", at, at + 256) if at >= 0 else -1
        if end < 0:
            raise self.bad("a key has no end")
        return self.data[at:end].decode("utf-8", "replace")

    def value(self, at: int, width: int, packed: int) -> Numbers | None:
        kind, inner = packed >> 2, 1 << (packed & 3)
        if kind in _DIRECT:
            return self.integer(at, width, kind)
        if kind == _FLOAT:
            return self.real(at, width)
        if kind in _INDIRECT:
            return self.element(self.back(at, width), inner, _INDIRECT[kind])
        if kind in _VECTORS or kind == _VECTOR:
            first = self.back(at, width)
            count = self.size(first, inner, MAX_VALUES)
            if kind == _VECTOR:
                kinds = [int(self.number("B", first + count * inner + i)) for i in range(count)]
                if any(k >> 2 not in (_INT, _UINT, _FLOAT) for k in kinds):
                    return None
                return tuple(
                    self.element(first + i * inner, inner, k >> 2) for i, k in enumerate(kinds)
                )
            return tuple(
                self.element(first + i * inner, inner, _VECTORS[kind]) for i in range(count)
            )
        return None

    def element(self, at: int, width: int, kind: int) -> float:
        return self.real(at, width) if kind == _FLOAT else self.integer(at, width, kind)
