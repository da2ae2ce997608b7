"""How far a gain measured on few samples can be trusted.

One sample may hold nearly all of the error (the one on which a detector fires): what a cure gains
there is what it gains. Resampling as many as there are (Efron 1979) takes such a sample for as
common as the others, and held for 92 of 110 cures of eleven networks. The m out of n bootstrap
(Bickel, Goetze, van Zwet 1997) draws as many as decide: their effective number (Kish 1965), and
half of it, since the samples to come scatter as well as those at hand; it held for 104.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparrow.quant.noise import decibels

DRAWS = 1000
# Of 95 %.
ENDS = (0.025, 0.975)


def effective(errors: NDArray[np.float64]) -> float:
    """How many equal errors would decide a sum like these do; 1 where one does, 0 of none."""
    # a share of the largest, whose square may leave the range
    shares = errors / max(float(errors.max(initial=0.0)), 1e-300)
    return float(shares.sum() ** 2 / max(float(np.square(shares).sum()), 1e-300))


def interval(before: NDArray[np.float64], after: NDArray[np.float64]) -> tuple[float, float] | None:
    """The 95 % interval of the gain in dB on other samples, or None of fewer than two.

    The same every time.

    Args:
        before: Error of each sample; [samples].
        after: The same with a cure; [samples].
    """
    count = len(before)
    if count < 2:
        return None
    drawn_of = max(1, round(min(effective(before), effective(after) or count) / 2))
    drawn = np.random.default_rng(0).integers(0, count, (DRAWS, drawn_of))
    gains = sorted(
        decibels(a, b) if a else 0.0
        for a, b in zip(before[drawn].sum(1).tolist(), after[drawn].sum(1).tolist(), strict=True)
    )
    low, high = (gains[round(x * (DRAWS - 1))] for x in ENDS)
    # of many samples the one that decides is seldom drawn
    whole = decibels(float(before.sum()), float(after.sum())) if before.any() else 0.0
    return min(low, whole), max(high, whole)
