"""The clipping value of least squared error by Newton's iteration.

OCTAV, Sakr et al. 2022 (arXiv:2206.06501, equation 8): the error of a clipped quantizer is the
rounding noise of what is inside plus the overshoot of what is outside,

    J(s) = 4^-bits / 3 * s^2 * P(0 < |x| <= s) + E[(|x| - s)^2; |x| > s]
    s'   = E[|x|; |x| > s] / (4^-bits / 3 * P(0 < |x| <= s) + P(|x| > s))
"""

from __future__ import annotations

import numpy as np

from sparrow.quant.affine import Range
from sparrow.quant.histogram import Histogram
from sparrow.tensor import DType

ITERATIONS = 40


def octav(h: Histogram, dtype: DType, symmetric: bool) -> Range:
    """Range [-s, s], cut to what was seen; of one sign, the codes have twice the density."""
    used = h.counts > 0
    x, n = np.abs(h.centers()[used]), h.counts[used].astype(np.float64)
    one_sided = not symmetric and (h.low >= 0 or h.high <= 0)
    noise = 4.0 ** -(dtype.bits + one_sided) / 3
    peak = max(abs(h.low), abs(h.high))
    s = float(np.dot(x, n) / n.sum())
    for _ in range(ITERATIONS):
        out = x > s
        inside = float(n[~out & (x > 0)].sum())
        mass = noise * inside + float(n[out].sum())
        if mass == 0:
            break
        new = float(np.dot(x[out], n[out])) / mass
        if new == 0 or abs(new - s) <= 1e-6 * s:
            break
        s = new
    s = min(s, peak) or peak
    return max(h.low, -s), min(h.high, s)
