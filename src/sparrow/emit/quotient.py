"""Codes of real numbers without a division: x / s, s known, as a product and its correction.

With r = 1 / s rounded to float32, ``q = x r`` is near x / s, and ``q + (x - q s) r`` in fused
multiply-adds nearly always the rounded quotient itself (Markstein 1990). A code needs less: that
both round to the same integer. Both are within 2 ULP of x / s, so that they can differ only where
it lies next to a half, and there every float32 is tried.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from sparrow.tensor import Array

# float32 on either side of a half's multiple of s; 2 ULP of the quotient are 4 of x at most.
NEAR = 16
LARGEST = 1 << 12


@cache
def divides_exactly(s: float, low: int, high: int) -> bool:
    """Whether rounding the corrected product clips to the codes that rounding x / s gives.

    Args:
        s: A float32.
        low: Least code, as `high` at most `LARGEST` either way.
        high: Largest code.
    """
    step = np.float32(s)
    with np.errstate(all="ignore"):
        r = np.float32(1) / step
    if not (2.0**-60 < step < 2.0**60) or max(-low, high) > LARGEST or low >= high:
        return False
    halves = np.arange(low, high) + 0.5
    middle = (halves * np.float64(step)).astype(np.float32)
    near = middle.view(np.int32)[:, None] + np.arange(-NEAR, NEAR + 1, dtype=np.int32)
    ends = np.array([low, high], np.float32) * step
    x = np.concatenate([near.view(np.float32).ravel(), ends, np.zeros(1, np.float32)])
    x = np.clip(x, ends[0], ends[1])
    wanted = np.clip(np.rint(x / step), low, high)
    got = _corrected(x, step, r)
    return bool(np.array_equal(wanted, np.rint(got)))


def _corrected(x: Array, s: np.float32, r: np.float32) -> Array:
    """The corrected product in float32; NaN where float64 cannot tell how it rounds.

    Products of two float32 are exact in float64, and so is ``x - q s``.
    """
    q = (x * r).astype(np.float32)
    rest = (x.astype(np.float64) - q.astype(np.float64) * np.float64(s)).astype(np.float32)
    total = q.astype(np.float64) + rest.astype(np.float64) * np.float64(r)
    y = total.astype(np.float32)
    # a sum that was rounded to float64 may have become a tie of float32: neighbours then disagree
    sides = (np.nextafter(total, to).astype(np.float32) for to in (-np.inf, np.inf))
    clear = np.all([side == y for side in sides], axis=0)
    return np.where(clear, y, np.float32(np.nan))
