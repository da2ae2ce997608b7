"""The range whose codes tell most of the distribution: least Kullback-Leibler divergence.

Migacz, "8-bit inference with TensorRT", GTC 2017.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparrow.quant.affine import Range
from sparrow.quant.histogram import BINS, Histogram
from sparrow.tensor import DType

STEPS = 128


def _divergence(p: NDArray[np.float64], levels: int, clipped: NDArray[np.float64]) -> float:
    """KL(clipped || p spread over ``levels`` codes); infinite where a code has no mass.

    Args:
        p: Counts inside the range, what lies outside left out.
        levels: Codes that cover the range.
        clipped: Counts with what lies outside added to the ends.
    """
    group = np.minimum(np.arange(len(p)) * levels // len(p), levels - 1)
    mass = np.bincount(group, p, levels)
    filled = np.bincount(group, p > 0, levels)
    share = np.divide(mass, filled, out=np.zeros(levels), where=filled > 0)
    q = np.where(p > 0, share[group], 0.0)
    # what saturates has to be said by a code too: an empty one gets next to nothing
    q = np.where((clipped > 0) & (q == 0), 1e-4, q)
    a, b = clipped / clipped.sum(), q / q.sum()
    on = a > 0
    return float(np.sum(a[on] * np.log(a[on] / b[on])))


def entropy(h: Histogram, dtype: DType, symmetric: bool) -> Range:
    """Range of least divergence among those cut from both ends in proportion."""
    levels = min(1 << dtype.bits, BINS)
    edges = (h.first + np.arange(BINS + 1)) * h.width
    counts = h.counts.astype(np.float64)
    zero = -h.first
    if 0 <= zero < BINS - 1:
        # zero is exact in every range, and what a ReLU leaves of it would outweigh all the rest
        counts[zero] = min(counts[zero], counts[zero + 1])
    best, found = (h.low, h.high), np.inf
    for r in np.linspace(1.0, 0.05, STEPS):
        low, high = min(h.low, 0.0) * float(r), max(h.high, 0.0) * float(r)
        a = max(0, int(np.searchsorted(edges, low, side="right")) - 1)
        b = min(BINS, int(np.searchsorted(edges, high, side="left")))
        inside = counts[a:b]
        # with fewer bins than codes every range tells all of it
        if len(inside) < levels or not inside.sum():
            break
        clipped = inside.copy()
        clipped[0] += counts[:a].sum()
        clipped[-1] += counts[b:].sum()
        d = _divergence(inside, levels, clipped)
        if d < found:
            best, found = (low, high), d
    return best
