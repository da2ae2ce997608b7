"""Signal and noise: powers of values, and of what they are apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparrow.tensor import Array


def power(x: Array) -> float:
    """Sum of squares of what is finite, in double precision."""
    wide = x.astype(np.float64)
    return float(np.square(np.where(np.isfinite(wide), wide, 0.0)).sum())


def apart(found: Array, real: Array) -> NDArray[np.float64]:
    """Found - real, in double precision and finite.

    It is 0 where both are NaN or the same infinity; where one alone is not finite, it is the
    largest finite magnitude of ``real``, or 1.
    """
    a, b = found.astype(np.float64), real.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        off = a - b
    bad = ~np.isfinite(off)
    if not bad.any():
        return off
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    most = float(np.abs(b[np.isfinite(b)]).max(initial=0.0)) or 1.0
    return np.where(bad, np.where(same, 0.0, most), off)


def decibels(signal: float, noise: float) -> float:
    """10 log10 of a ratio of powers; infinite without noise."""
    return float("inf") if noise == 0 else 10 * float(np.log10(max(signal, 1e-300) / noise))
