"""How much of a library is code and constants."""

from __future__ import annotations

import struct
from pathlib import Path

_ALLOCATED = 2
_NO_BITS = 8


def code_bytes(path: Path) -> int:
    """Bytes of an ELF library's sections that take flash; the file's size for other formats."""
    data = path.read_bytes()
    if data[:4] != b"\x7fELF":
        return len(data)
    wide = data[4] == 2
    table, entry, count = (
        (struct.unpack_from("<Q", data, 0x28)[0], *struct.unpack_from("<HH", data, 0x3A))
        if wide
        else (struct.unpack_from("<I", data, 0x20)[0], *struct.unpack_from("<HH", data, 0x2E))
    )
    total = 0
    for i in range(count):
        at = table + i * entry
        kind = struct.unpack_from("<I", data, at + 4)[0]
        flags, size = (
            (struct.unpack_from("<Q", data, at + 8)[0], struct.unpack_from("<Q", data, at + 32)[0])
            if wide
            else (
                struct.unpack_from("<I", data, at + 8)[0],
                struct.unpack_from("<I", data, at + 20)[0],
            )
        )
        if flags & _ALLOCATED and kind != _NO_BITS:
            total += size
    return total
