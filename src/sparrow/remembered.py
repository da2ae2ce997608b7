"""Measurements of this machine, kept in the cache under the hash of the code they are of.

A second build of the same model then decides by the same times, and does not wait for them again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from sparrow.device.cache import FileCache, cache_folder
from sparrow.measure import cpu

SUFFIX = ".json"


class Remembered:
    """A place in the cache for one measurement.

    Args:
        what: Kind of measurement.
        code: Sources of what is measured.
        threads: Threads it runs on.
    """

    def __init__(self, what: str, code: Sequence[bytes], threads: int) -> None:
        digest = hashlib.sha256(repr((what, cpu(), threads)).encode())
        for text in code:
            digest.update(hashlib.sha256(text).digest())
        self.key = digest.hexdigest()
        self.cache = FileCache(cache_folder())

    def recall(self) -> Any | None:
        """What was remembered, or None."""
        path = self.cache.get(self.key, SUFFIX)
        return None if path is None else json.loads(path.read_bytes())

    def remember(self, value: Any) -> None:
        """Keep a value of plain JSON types.

        Raises:
            BadInput: The cache folder cannot be written.
        """
        with self.cache.scratch() as work:
            (work / "value").write_text(json.dumps(value), encoding="utf-8")
            self.cache.put(self.key, SUFFIX, work / "value")
