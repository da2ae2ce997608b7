"""The blob that all weights of a plan lie in."""

from __future__ import annotations

import hashlib

from sparrow.memory.arena import ALIGN


class Weights:
    """The weight blob under construction; equal bytes are stored once, each aligned to ALIGN."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._seen: dict[bytes, int] = {}

    def add(self, data: bytes) -> int:
        """Byte offset of ``data`` in the blob."""
        key = hashlib.sha256(data).digest()
        if key not in self._seen:
            pad = -self._size % ALIGN
            self._parts += [bytes(pad), data]
            self._seen[key] = self._size + pad
            self._size += pad + len(data)
        return self._seen[key]

    def blob(self) -> bytes:
        """All parts."""
        return b"".join(self._parts)
