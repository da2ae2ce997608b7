"""A few of many samples, for what is tried again and again.

Folders are sorted by class, recordings begin with silence: the first samples are not like the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Few(Generic[T]):
    """Samples evenly spread over a stream of unknown length, the first one among them.

    Every ``step``-th is kept, and where they become twice as many as wanted, every other one of
    those. Which ones follows from the length of the stream alone.

    Args:
        wanted: How many.
        in_a_row: The first ones instead: states go from one call to the next.
    """

    def __init__(self, wanted: int, *, in_a_row: bool = False) -> None:
        self._wanted, self._in_a_row = wanted, in_a_row
        self._kept: list[T] = []
        self._step, self._seen = 1, 0

    def passing(self, samples: Iterable[T]) -> Iterator[T]:
        """The samples, some of which are kept as they pass."""
        for x in samples:
            self.add(x)
            yield x

    def add(self, x: T) -> None:
        """Take the next sample."""
        at, self._seen = self._seen, self._seen + 1
        if self._in_a_row:
            if at < self._wanted:
                self._kept.append(x)
            return
        if at % self._step == 0 and len(self._kept) == 2 * self._wanted:
            self._kept = self._kept[::2]
            self._step *= 2
        if at % self._step == 0:
            self._kept.append(x)

    @property
    def taken(self) -> list[T]:
        """The samples, in order: as many as wanted, or all that there were."""
        return spread(self._kept, self._wanted)


def spread(samples: Sequence[T], wanted: int) -> list[T]:
    """As many of the samples as wanted, evenly spread, or all that there are."""
    if len(samples) <= wanted:
        return list(samples)
    return [samples[k * len(samples) // wanted] for k in range(wanted)]


__all__ = ["Few", "spread"]
