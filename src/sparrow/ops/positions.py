"""Positions that are computed, and what lies at them."""

from __future__ import annotations

from itertools import product

import numpy as np

from sparrow.tensor import Array

# Positions are cut to this before they become integers; what is beyond lies outside any tensor
FAR = float(1 << 24)


def wide(x: Array) -> Array:
    """What arithmetic on a tensor is in: float32 for half types."""
    return x.astype(np.float32) if x.dtype == np.float16 else x


def finite(x: Array) -> Array:
    """Positions that convert to int safely; NaN becomes far outside."""
    return np.asarray(np.clip(np.nan_to_num(x, nan=-FAR, posinf=FAR, neginf=-FAR), -FAR, FAR))


def bilinear(x: Array, h: Array, w: Array) -> Array:
    """Bilinear values of x [C, H, W] at h, w [*out]; zero outside. Returns [C, *out]."""
    rows, cols = x.shape[1:]
    h, w = finite(h), finite(w)
    y = np.zeros((x.shape[0], *h.shape), x.dtype)
    h0, w0 = np.floor(h), np.floor(w)
    for dh, dw in product((0, 1), (0, 1)):
        i, j = h0.astype(np.int64) + dh, w0.astype(np.int64) + dw
        wh = h - h0 if dh else 1 - (h - h0)
        ww = w - w0 if dw else 1 - (w - w0)
        inside = (i >= 0) & (i < rows) & (j >= 0) & (j < cols)
        value = x[:, np.clip(i, 0, rows - 1), np.clip(j, 0, cols - 1)]
        y += np.where(inside, value * (wh * ww), 0).astype(x.dtype)
    return y
