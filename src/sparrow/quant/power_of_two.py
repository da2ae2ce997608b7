"""Scales that are powers of two: rescaling from layer to layer is then a shift.

Of the exponent that just covers the range, and of finer ones that saturate some values, the one
with the least squared error (AMD, "Vitis AI User Guide", UG1414: pof2s). Zero points are 0: a code
that holds one would have to be subtracted before a shift.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparrow.ops.quantize import spread
from sparrow.quant.affine import code_limits
from sparrow.quant.histogram import Histogram
from sparrow.quant.mse import squared_error
from sparrow.tensor import I8, Affine, Array, DType

# Each step finer saturates everything above half of what the one before reached.
FINER = 4


def above(scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """The smallest powers of two that are no less, within float32's normal numbers."""
    normal = np.maximum(scale.astype(np.float64), 2.0**-126)
    return np.asarray(np.exp2(np.minimum(np.ceil(np.log2(normal)), 127)), np.float32)


def activation_steps(h: Histogram, dtype: DType, quant: Affine) -> Affine:
    """The power of two of least squared error over counted values, no zero point.

    Args:
        h: What was seen.
        dtype: Of the codes.
        quant: A scale that a range setter found: the coarsest candidate covers its range.
    """
    high = code_limits(dtype, True)[1]
    reach = above(np.asarray(max(-h.low, h.high, 0.0) / high, np.float32).reshape(1))[0]
    coarsest = max(float(reach), float(above(quant.scale.reshape(-1))[0]))
    tried = [coarsest * 2.0**-k for k in range(FINER + 1)]
    best = min(tried, key=lambda s: squared_error(h, (-s * high, s * high), dtype, True))
    zero = np.zeros(quant.zero_point.shape, np.int32)
    return Affine(np.full(quant.scale.shape, best, np.float32), zero, quant.block)


def weight_steps(
    w: Array, scale: NDArray[np.float32], block: tuple[int, ...], dtype: DType = I8
) -> NDArray[np.float32]:
    """Powers of two for constants, per block that of least squared error.

    Args:
        w: Constants, any rank.
        scale: Scales that cover them, see `block_scales`.
        block: See `Affine.block`.
        dtype: Of the codes.
    """
    low, high = code_limits(dtype, True)
    coarsest = above(scale)
    best, least = coarsest, np.full(scale.shape, np.inf)
    for k in range(FINER + 1):
        tried = coarsest * np.float32(2.0**-k)
        s = spread(tried, block, w.shape).astype(np.float64)
        error = np.square(np.clip(np.rint(w / s), low, high) * s - w)
        total = _per_block(error, scale.shape)
        better = total < least
        best, least = np.where(better, tried, best), np.where(better, total, least)
    return np.asarray(best, np.float32)


def _per_block(x: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Sums over the axes along which a scale is shared."""
    for axis, extent in enumerate(shape):
        if extent == 1:
            x = x.sum(axis, keepdims=True)
    return x
