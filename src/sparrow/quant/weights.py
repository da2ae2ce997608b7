"""Weights and biases as codes: symmetric, [-127, 127], one scale per output channel, for all, or
per group of inputs of an output channel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparrow.ops.quantize import spread
from sparrow.quant.affine import code_limits
from sparrow.tensor import I8, I32, Affine, Array, DType

# What an int32 bias may take of the accumulator; the products get the rest.
BIAS_LIMIT = 1 << 30
ACCUMULATOR_LIMIT = (1 << 31) - 1
# The largest multiple of a channel's unit that scales a group: 6 bits, as in VS-Quant's table 4.
LARGEST_MULTIPLE = 63


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """A constant as codes.

    Attributes:
        codes: In the storage type of ``dtype``.
        dtype: Type of the codes.
        quant: What they mean.
    """

    codes: Array
    dtype: DType
    quant: Affine

    def real(self) -> NDArray[np.float32]:
        """The numbers that the codes mean."""
        block, shape = self.quant.block, self.codes.shape
        zero = spread(self.quant.zero_point, block, shape)
        scale = spread(self.quant.scale, block, shape)
        return ((self.codes.astype(np.int64) - zero).astype(np.float32) * scale).astype(np.float32)


def channel_block(rank: int, axis: int | None) -> tuple[int, ...]:
    """Block of one scale per index of ``axis``, of one for all when None."""
    return tuple(1 if i == axis else -1 for i in range(rank))


def block_scales(w: Array, block: tuple[int, ...], most: int = 127) -> NDArray[np.float32]:
    """Largest magnitude over the largest code, per block; 1 for blocks of zeros, as which count
    numbers so small that float32 has no full precision for their scale.

    Args:
        w: Weights, any rank.
        block: See `Affine.block`; a last block along an axis may be cut short.
        most: The largest code.
    """
    peak = np.abs(w.astype(np.float32))
    for axis, b in enumerate(block):
        if b == -1:
            peak = peak.max(axis, keepdims=True)
        elif b > 1:
            peak = np.maximum.reduceat(peak, np.arange(0, w.shape[axis], b), axis)
    scale = (peak.astype(np.float64) / most).astype(np.float32)
    return np.where(scale < np.finfo(np.float32).tiny, np.float32(1), scale).astype(np.float32)


def group_units(w: Array, axis: int, group: int) -> NDArray[np.float64]:
    """The unit of each output channel, of which the scales of its groups are multiples.

    Scales of two levels, Dai et al. 2021 (VS-Quant, arXiv:2102.04503): sums of groups then add as
    integers. A unit has 16 bits, so that its multiples are exact in float32.

    Args:
        w: A matrix.
        axis: Of the output channels.
        group: Inputs that share a scale.

    Returns:
        [M].
    """
    scales = block_scales(w, tuple(1 if i == axis else group for i in (0, 1)))
    unit, exponent = np.frexp(scales.max(1 - axis).astype(np.float64) / LARGEST_MULTIPLE)
    rounded: NDArray[np.float64] = np.ldexp(np.ceil(np.ldexp(unit, 16)), exponent - 16)
    return rounded


def group_scales(
    w: Array, axis: int, group: int, units: NDArray[np.float64]
) -> NDArray[np.float32]:
    """The least multiples of the units that hold each group."""
    scales = block_scales(w, tuple(1 if i == axis else group for i in (0, 1)))
    each = np.expand_dims(units, 1 - axis)
    multiples = np.clip(np.ceil(scales.astype(np.float64) / each), 1, LARGEST_MULTIPLE)
    return (multiples * each).astype(np.float32)


def coded(w: Array, scale: NDArray[np.float32], block: tuple[int, ...], dtype: DType = I8) -> Coded:
    """Weights rounded to the nearest codes, ties to even."""
    low, high = code_limits(dtype, True)
    steps = w.astype(np.float64) / spread(scale, block, w.shape).astype(np.float64)
    codes = np.clip(np.rint(steps), low, high).astype(dtype.numpy)
    return Coded(codes, dtype, Affine(scale, np.zeros(scale.shape, np.int32), block))


def fits_bias(
    scale: NDArray[np.float64], bias: NDArray[np.float64], x_scale: float
) -> NDArray[np.float64]:
    """Weight scales wide enough for biases in steps of ``x_scale * scale`` to stay in int32."""
    return np.maximum(scale, np.abs(bias) / (x_scale * BIAS_LIMIT))


def coded_bias(bias: Array, steps: NDArray[np.float64]) -> Coded:
    """A bias [M] as int32 with scale s_x * s_w per channel, or one for all.

    Args:
        bias: Real numbers.
        steps: s_x * s_w, of one element or [M].
    """
    # a scale that underflows would divide by zero
    scale = np.maximum(steps.astype(np.float32), np.finfo(np.float32).tiny).reshape(-1)
    codes = np.rint(bias.astype(np.float64) / scale.astype(np.float64))
    codes = np.clip(codes, -ACCUMULATOR_LIMIT, ACCUMULATOR_LIMIT).astype(np.int32)
    block = (-1,) if scale.size == 1 else (1,)
    return Coded(codes, I32, Affine(scale, np.zeros(scale.shape, np.int32), block))


def largest_sum(codes: Array, axis: int, x: DType, zero: int, bias: Array | None) -> int:
    """Largest magnitude that a sum over codes can have: sum |w| * max |x - z| + |bias|.

    Args:
        codes: Weights, output channels along ``axis``.
        axis: >= 0.
        x: Type of the activations.
        zero: Their zero point.
        bias: int32 [M], or None.
    """
    low, high = x.limits
    reach = max(high - zero, zero - low)
    rows = np.moveaxis(codes, axis, 0).reshape(codes.shape[axis], -1)
    total = np.abs(rows.astype(np.int64)).sum(1) * reach
    if bias is not None:
        total = total + np.abs(bias.astype(np.int64))
    return int(total.max(initial=0))
