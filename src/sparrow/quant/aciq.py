"""The clipping value of least squared error for values that follow a law.

ACIQ, Banner et al. 2019 (arXiv:1810.05723): Laplace and Gauss are fitted by their moments, the one
nearer to the values is taken, and its clipping value is a constant per number of bits times its
width. The constants solve dJ/ds = 0 (their equations 7 and 10) and are found here by bisection.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import erfc, exp, pi, sqrt
from typing import Literal

import numpy as np

from sparrow.quant.affine import Range
from sparrow.quant.histogram import Histogram
from sparrow.tensor import DType

Law = Literal["laplace", "gauss"]


@cache
def clipping_factor(law: Law, bits: int) -> float:
    """Best clipping value in widths of the law: b of Laplace, sigma of Gauss."""
    slope: Callable[[float], float]
    if law == "laplace":

        def slope(a: float) -> float:
            return 2 * a / (3 * 4.0**bits) - 2 * exp(-a)
    else:

        def slope(a: float) -> float:
            tail = a * erfc(a / sqrt(2)) - sqrt(2 / pi) * exp(-a * a / 2)
            return 2 * a / (3 * 4.0**bits) + 2 * tail

    low, high = 0.0, 100.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return high


def aciq(h: Histogram, dtype: DType, symmetric: bool) -> Range:
    """Range around the mean, or from 0 for values of one sign, cut to what was seen."""
    used = h.counts > 0
    x, n = h.centers()[used], h.counts[used].astype(np.float64)
    one_sided = h.low >= 0 or h.high <= 0
    # what a ReLU leaves is one half of a law around 0
    mean = 0.0 if one_sided or symmetric else float(np.dot(x, n) / n.sum())
    away = np.abs(x - mean)
    inside = away > 0 if one_sided else np.ones(len(x), bool)
    total = n[inside].sum()
    if total == 0:
        return h.low, h.high
    b = float(np.dot(away[inside], n[inside]) / total)
    sigma = sqrt(float(np.dot(away[inside] ** 2, n[inside]) / total))
    # E|x| / sigma is 0.707 for Laplace and 0.798 for Gauss
    law: Law = "laplace" if b < 0.7525 * sigma else "gauss"
    factor = clipping_factor(law, dtype.bits + (1 if one_sided and not symmetric else 0))
    reach = factor * (b if law == "laplace" else sigma)
    return max(h.low, mean - reach), min(h.high, mean + reach)
