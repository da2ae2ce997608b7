"""Constant operands of sums of codes: weights with their scales, biases in units of the sum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparrow.ops.quantize import Dequantize
from sparrow.ops.sums import CODES
from sparrow.rewrite import Match, Reject
from sparrow.tensor import I2, I4, I32, U4, U8, Affine, Array

# What holds weights.
WEIGHTS = (I2, I4, U4, *CODES)
# The largest multiple of a unit that is looked for: 8 bits.
LARGEST_MULTIPLE = 255


@dataclass(frozen=True, slots=True)
class Groups:
    """Groups of ``size`` inputs, each with a multiple of its channel's unit: int64 [groups, n]."""

    size: int
    multiples: Array


@dataclass(frozen=True, slots=True)
class Weights:
    """Constant weights: int8 codes, what each lacks, and the scale of each output channel."""

    codes: Array
    offset: int
    scale: Array
    groups: Groups | None = None

    def magnitudes(self, axis: int) -> Array:
        """Sum of |w| for each output channel, in units of its scale: int64 [n]."""
        size = np.abs(self.codes.astype(np.int64)) + abs(self.offset)
        if self.groups is not None:
            k = self.codes.shape[1 - axis]
            each = self.groups.multiples.repeat(self.groups.size, 0)[:k]
            size = size * (each if axis == 1 else each.T)
        found: Array = size.sum(tuple(i for i in range(size.ndim) if i != axis))
        return found


def weight_codes(m: Match, value: str, axis: int) -> Weights | Reject:
    """Constant weights with scales along ``axis``, or per group of a matrix's inputs."""
    d = m.producer(value, Dequantize)
    codes = None if d is None else m.const(d.inputs[0])
    if d is None or codes is None:
        return Reject("the weights are no constant codes")
    assert isinstance(d.op, Dequantize)
    quant, t = d.op.quant, m.type(d.inputs[0])
    if t.dtype not in WEIGHTS:
        return Reject(f"weights of {t.dtype}")
    if codes.ndim == 2 and quant.block[axis] == 1 and quant.block[1 - axis] > 1:
        return _grouped(codes, quant, axis)
    apart = [i for i, s in enumerate(quant.scale.shape) if s > 1 and i != axis]
    if apart or quant.block[axis] not in (-1, 1):
        return Reject("scales of the weights do not run along the output channels")
    # every zero point that keeps the difference in int8 is one of symmetric weights
    plain = codes.astype(np.int32) - quant.zero_point
    offset = 0
    if plain.min(initial=0) < -128 or plain.max(initial=0) > 127:
        if not quant.per_tensor:
            return Reject("weights minus their zero point leave int8")
        offset = (128 if t.dtype == U8 else 0) - int(quant.zero_point.reshape(()))
        plain = plain - offset
    scale = np.broadcast_to(quant.scale.reshape(-1), (codes.shape[axis],)).astype(np.float64)
    return Weights(plain.astype(np.int8), offset, scale)


def _grouped(codes: Array, quant: Affine, axis: int) -> Weights | Reject:
    """Weights whose scales are, in each output channel, multiples of one."""
    if quant.zero_point.any() or codes.dtype != np.int8:
        return Reject("weights per group have zero points")
    scale = np.moveaxis(quant.scale, axis, 1).astype(np.float64)
    for parts in range(1, LARGEST_MULTIPLE + 1):
        unit = scale.max(0) / parts
        multiples = np.rint(scale / unit)
        if np.allclose(multiples * unit, scale, rtol=1e-6, atol=0.0):
            groups = Groups(quant.block[1 - axis], multiples.astype(np.int64))
            return Weights(codes, 0, unit, groups)
    return Reject("scales of the groups of weights are no multiples of one per channel")


def bias_codes(m: Match, value: str, unit: Array) -> Array | Reject:
    """The bias in units of the sum, as int32."""
    d = m.producer(value, Dequantize)
    if d is not None and (codes := m.const(d.inputs[0])) is not None:
        assert isinstance(d.op, Dequantize)
        own = np.broadcast_to(d.op.quant.scale.reshape(-1), unit.shape)
        same = np.allclose(own, unit, rtol=1e-6, atol=0.0) and not d.op.quant.zero_point.any()
        if m.type(d.inputs[0]).dtype == I32 and same:
            return codes
        real = (codes.astype(np.float64) - d.op.quant.zero_point.reshape(-1)) * own
    elif (floats := m.const(value)) is not None:
        real = floats.astype(np.float64)
    else:
        return Reject("the bias is not constant")
    steps = np.rint(real / unit)
    if not (np.abs(steps) < 2.0**31).all():
        return Reject("the bias leaves int32 in units of the sum")
    return steps.astype(np.int32)
