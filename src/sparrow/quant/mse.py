"""The range of a tensor whose codes have the least squared error.

Grid search over the two ends in turn (Nagel et al. 2021, arXiv:2106.08295, section 3.1), on a
histogram instead of the values.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sparrow.quant.affine import Range, round_trip
from sparrow.quant.histogram import Histogram
from sparrow.tensor import Array, DType

STEPS = 64
ROUNDS = 2


def squared_error(h: Histogram, limits: Range, dtype: DType, symmetric: bool) -> float:
    """Sum of squared differences between the counted values and what their codes say."""
    x, counts = _counted(h)
    return float(np.square(round_trip(x, limits, dtype, symmetric) - x) @ counts)


def _counted(h: Histogram) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    used = h.counts > 0
    return h.centers()[used], h.counts[used]


def _ends(limit: float) -> NDArray[np.float64]:
    """Candidates from the limit itself down to a hundredth of it, evenly in their logarithm."""
    return limit * np.geomspace(1.0, 0.01, STEPS)


def mse(
    h: Histogram,
    dtype: DType,
    symmetric: bool,
    seen: Callable[[Array], Array] | None = None,
) -> Range:
    """Range of least squared error; never worse than min-max, which is the first candidate.

    Args:
        h: What was counted.
        dtype: Integer type of the codes.
        symmetric: Zero point 0.
        seen: What is made of values [N] by all that read them, [.., N]: the error is that of this.
    """
    low, high = min(h.low, 0.0), max(h.high, 0.0)
    x, counts = _counted(h)
    made = x if seen is None else seen(x)
    if not np.isfinite(made).all():
        seen, made = None, x

    def error(limits: Range) -> float:
        found = round_trip(x, limits, dtype, symmetric)
        if seen is not None:
            found = seen(found)
        total = float((np.square(found - made) @ counts).sum())
        return total if np.isfinite(total) else np.inf

    if symmetric:
        bound = max(-low, high)
        ends = [(-float(b), float(b)) for b in _ends(bound)]
        return min(ends, key=error)
    best = (low, high)
    for _ in range(ROUNDS):
        for side in (0, 1):
            limit = (low, high)[side]
            if limit == 0:
                continue
            tried = [best]
            tried += [
                (float(v), best[1]) if side == 0 else (best[0], float(v)) for v in _ends(limit)
            ]
            best = min(tried, key=error)
    return best
