"""How far a gain measured on few samples can be trusted.

One sample may hold nearly all of the error (the one on which a detector fires): what a cure gains
there is what it gains. The percentile bootstrap (Efron 1979) over samples says so.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparrow.quant.noise import decibels

DRAWS = 1000
# Of 95 %.
ENDS = (0.025, 0.975)


def interval(before: NDArray[np.float64], after: NDArray[np.float64]) -> tuple[float, float] | None:
    """The 95 % interval of a gain in dB, or None of fewer than two samples; the same every time.

    Args:
        before: Error of each sample; [samples].
        after: The same with a cure; [samples].
    """
    count = len(before)
    if count < 2:
        return None
    drawn = np.random.default_rng(0).integers(0, count, (DRAWS, count))
    gains = sorted(
        decibels(a, b) if a else 0.0
        for a, b in zip(before[drawn].sum(1).tolist(), after[drawn].sum(1).tolist(), strict=True)
    )
    low, high = (gains[round(x * (DRAWS - 1))] for x in ENDS)
    return low, high
