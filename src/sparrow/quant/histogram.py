"""A histogram of constant size over values whose range is not known beforehand.

Bin k covers [k w, (k + 1) w) with w a power of two. When a value falls outside the bins that are
kept, w doubles until all fit and neighbours merge. Zero is always an edge and counts never move by
halves, so the result is the same in whatever order and portions the values arrive.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import floor, frexp, ldexp

import numpy as np
from numpy.typing import NDArray

from sparrow.tensor import Array

BINS = 2048
# Bins end where float32 does: narrower ones would tell nothing apart.
_FINE = 24


@dataclass(slots=True, eq=False)
class Histogram:
    """Counts of values in bins of equal width.

    Attributes:
        counts: int64 [BINS].
        first: Index of the first bin, in widths from zero.
        exponent: Bins are 2^exponent wide.
        low: Smallest value seen.
        high: Largest value seen.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    first: int = 0
    exponent: int = -149
    low: float = np.inf
    high: float = -np.inf

    @property
    def total(self) -> int:
        """Values counted."""
        return int(self.counts.sum())

    @property
    def width(self) -> float:
        """Width of a bin."""
        return 2.0**self.exponent

    def centers(self) -> NDArray[np.float64]:
        """Middle of every bin, those at the ends no further out than the values seen."""
        middle = (self.first + np.arange(BINS) + 0.5) * self.width
        return np.clip(middle, self.low, self.high)

    def add(self, x: Array) -> None:
        """Count finite values."""
        if x.size == 0:
            return
        self._hold(float(x.min()), float(x.max()))
        scaled = np.ldexp(x.reshape(-1).astype(np.float64), -self.exponent)
        index = np.floor(scaled).astype(np.int64) - self.first
        self.counts += np.bincount(index, minlength=BINS)

    def merged(self, other: Histogram) -> Histogram:
        """The histogram of both sets of values."""
        m = replace(self)
        if other.low <= other.high:
            m._hold(other.low, other.high)
            m.counts = m.counts + other._rebinned(m.exponent, m.first)
        return m

    def _hold(self, low: float, high: float) -> None:
        """Widen the bins until they cover [low, high] and all that was seen before."""
        low, high = min(low, self.low), max(high, self.high)
        peak = max(abs(low), abs(high))
        # zeros alone say nothing of the width: whatever comes next must find it as if first
        e = max(self.exponent, frexp(peak)[1] - _FINE if peak else -149, -149)
        while _bin(high, e) - _bin(low, e) >= BINS:
            e += 1
        first = _bin(low, e)
        self.counts = self._rebinned(e, first)
        self.first, self.exponent, self.low, self.high = first, e, low, high

    def _rebinned(self, exponent: int, first: int) -> NDArray[np.int64]:
        """The counts in wider bins that cover all of them."""
        used = np.flatnonzero(self.counts)
        index = ((self.first + used) >> min(exponent - self.exponent, 62)) - first
        moved = np.zeros(BINS, np.int64)
        np.add.at(moved, index, self.counts[used])
        return moved


def _bin(x: float, exponent: int) -> int:
    return floor(ldexp(x, -exponent))
