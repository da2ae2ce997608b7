"""Take the mean error that rounded weights cause back into the bias.

    b' = b - sum_k (w_q - w)[m, k] E[x][k]        E[x] per input channel, from calibration

Nagel et al. 2019 (arXiv:1906.04721, section 4.2), with measured instead of analytic means. Padding
lowers the mean at the borders; that is left out, as it is there. Where the mean of what each weight
multiplies is known (`sparrow.quant.moments`), padding counts, and that is taken instead.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from sparrow.ops.conv import Conv
from sparrow.ops.conv_transpose import ConvTranspose
from sparrow.ops.matmul import MatMul
from sparrow.tensor import Array


def mean_error(
    op: Conv | ConvTranspose | MatMul, error: Array, mean: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What an error of the weights adds to each output on average: [M].

    Args:
        op: The layer.
        error: Rounded minus real weights: [M, C / group, *kernel], [C, M / group, *kernel] of a
            transposed convolution, or a matrix as ``op`` reads it.
        mean: E[x] of each input channel.
    """
    if isinstance(op, MatMul):
        matrix = error.T if op.trans_b else error
        result: NDArray[np.float64] = mean @ matrix.astype(np.float64)
        return result
    if isinstance(op, ConvTranspose):
        # an output meets one of so many taps
        taps = error.astype(np.float64).reshape(*error.shape[:2], -1).sum(2) / prod(op.strides)
        grouped = taps.reshape(op.group, -1, taps.shape[1])
        each: NDArray[np.float64] = np.einsum("gcm,gc->gm", grouped, mean.reshape(op.group, -1))
        return each.reshape(-1)
    per_channel = error.astype(np.float64).reshape(*error.shape[:2], -1).sum(2)
    m, inputs = per_channel.shape
    group = np.arange(m) // (m // op.group)
    rows = mean.reshape(op.group, inputs)[group]
    summed: NDArray[np.float64] = (per_channel * rows).sum(1)
    return summed
