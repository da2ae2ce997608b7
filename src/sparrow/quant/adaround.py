"""Round weights up or down, whichever makes the layer's outputs err least together.

AdaRound, Nagel et al. 2020 (arXiv:2004.10568): each weight is floor(w / s) + h(v) with h a
stretched sigmoid that a regularizer drives to 0 or 1 while the squared error of the outputs is
minimised. That error is tr(D H D^T) with H the second moments of the inputs, so the gradient 2 D H
is exact over all calibration samples and nothing is drawn at random.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
ITERATIONS = 600
RATE = 1e-2
# Paper, section 3.3 and appendix: stretch of the sigmoid, annealing of beta, weight of the
# regularizer, share of the iterations without it.
ZETA, GAMMA = 1.1, -0.1
BETA = (20.0, 2.0)
WARM_UP = 0.2
WEIGHT = 0.01


def output_error(delta: Matrix, moments: Matrix) -> Matrix:
    """E|D x|^2 of each row of D: [.., M, K] and [.., K, K] give [.., M]."""
    result: Matrix = np.einsum("...mk,...mk->...m", delta @ moments, delta)
    return result


def adaround(w: Matrix, moments: Matrix, low: int, high: int) -> Matrix:
    """Codes of weights given in steps.

    Args:
        w: [G, M, K], real weights over their scale, in groups that read different inputs.
        moments: [G, K, K], E[x x^T] of each group.
        low: Smallest code.
        high: Largest code.

    Returns:
        Integers [G, M, K]; no row errs more than by rounding to the nearest.
    """
    nearest = np.clip(np.rint(w), low, high)
    base = np.floor(w)
    mean = np.trace(moments, axis1=1, axis2=2)[:, None, None] / max(moments.shape[1], 1)
    evened = moments / np.maximum(mean, 1e-30)
    part = np.clip(w - base, 1e-3, 1 - 1e-3)
    v = -np.log((ZETA - GAMMA) / (part - GAMMA) - 1)
    m1, m2 = np.zeros_like(v), np.zeros_like(v)
    for t in range(1, ITERATIONS + 1):
        s = 1 / (1 + np.exp(-v))
        h = np.clip(s * (ZETA - GAMMA) + GAMMA, 0, 1)
        slope = 2 * (base + h - w) @ evened
        if t > WARM_UP * ITERATIONS:
            share = (t / ITERATIONS - WARM_UP) / (1 - WARM_UP)
            beta = BETA[1] + (BETA[0] - BETA[1]) * (1 + np.cos(share * np.pi)) / 2
            away = 2 * h - 1
            slope -= WEIGHT * beta * 2 * np.sign(away) * np.abs(away) ** (beta - 1)
        grad = slope * ((h > 0) & (h < 1)) * s * (1 - s) * (ZETA - GAMMA)
        m1 = 0.9 * m1 + 0.1 * grad
        m2 = 0.999 * m2 + 0.001 * grad * grad
        v -= RATE * (m1 / (1 - 0.9**t)) / (np.sqrt(m2 / (1 - 0.999**t)) + 1e-8)
    h = np.clip(1 / (1 + np.exp(-v)) * (ZETA - GAMMA) + GAMMA, 0, 1)
    found = np.clip(base + (h >= 0.5), low, high)
    worse = output_error(found - w, moments) > output_error(nearest - w, moments)
    result: Matrix = np.where(worse[..., None], nearest, found)
    return result
