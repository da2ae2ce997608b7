"""Measurements of this machine, kept in the cache under the hash of the code they are of.

A second build of the same model then decides by the same times, and does not wait for them again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

from sparrow.device.cache import FileCache, cache_folder
from sparrow.timing.measure import cpu


class Remembered:
    """A place in the cache for one measurement; of processes that measure at once the first wins.

    Args:
        what: Kind of measurement.
        code: Sources of what is measured.
        threads: Threads it runs on.
    """

    def __init__(self, what: str, code: Sequence[bytes], threads: int) -> None:
        digest = hashlib.sha256(repr((what, cpu(), threads)).encode())
        for text in code:
            digest.update(hashlib.sha256(text).digest())
        self.cache = FileCache(cache_folder())
        key = digest.hexdigest()
        # beside the cache's own entries, so that it is evicted with them
        self.path = self.cache.folder / "entries" / key[:2] / f"{key}.json"

    def recall(self) -> Any | None:
        """What was remembered, or None."""
        try:
            return json.loads(self.path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return None

    def remember(self, value: Any) -> Any:
        """Keep a value of plain JSON types; returns what is kept: another's if that came first.

        Raises:
            BadInput: The cache folder cannot be written.
        """
        with self.cache.scratch() as work:
            made = work / "value"
            made.write_text(json.dumps(value), encoding="utf-8")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                # fails where the name is taken, unlike a replacement
                os.link(made, self.path)
            except FileExistsError:
                known = self.recall()
                if known is not None:
                    return known
                os.replace(made, self.path)
            except OSError:  # a file system without links
                os.replace(made, self.path)
        return value
