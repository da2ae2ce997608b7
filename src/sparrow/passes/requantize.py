"""Rounding schemes: how an exact integer becomes a code of another scale, as a lane expression.

    code = clamp(zero + round(value * ratio))        ratio = what a unit of value is in steps of y

The scheme belongs to the Graph (`Graph.scheme`) and never to the target; docs/integer-spec.md is
the full text. Two forms serve all ops under the schemes of our own (``tflite`` is `litert`):

- `scaled`: one value times one ratio (sums of products).
- `blended`: a sum of values times ratios (add, mean, concat), with integer multipliers under every
  scheme, because no float product may feed a float sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparrow import lane
from sparrow.graph import Scheme
from sparrow.ops.sums import CODES
from sparrow.rewrite import Reject
from sparrow.tensor import F32, I32, I64, Array, DType

# An int32 blend keeps at least this many bits of its largest multiplier; below, int64 is used.
BLEND_BITS = 14
# What rounded multipliers may add up to in an int32 blend, in steps of 8 bits: a mean of 64 bytes
# stays, a value of 16 bits does not. A 500th of the codes at most then go to their neighbours.
BLEND_ERROR = 2.0**-9
MAX_SHIFT = 30


@dataclass(frozen=True, slots=True)
class Grid:
    """The codes of a result.

    Attributes:
        zero: Zero point.
        low: Least code after clamping, at least that of ``dtype``.
        high: Greatest code.
        dtype: Type of the codes.
    """

    zero: int
    low: int
    high: int
    dtype: DType


class Constants:
    """Operands an expression needs beside its values; one equal element becomes a literal."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.arrays: list[Array] = []

    def take(self, values: Array, dtype: DType) -> lane.Expr:
        """The operand or literal for an array that broadcasts to the result."""
        if values.size == 1 or (values == values.reshape(-1)[0]).all():
            return lane.Imm(values.reshape(-1)[0].item(), dtype)
        self.arrays.append(np.ascontiguousarray(values.astype(dtype.numpy)))
        return lane.Arg(self.first + len(self.arrays) - 1, dtype)


def scaled(
    scheme: Scheme, value: lane.Expr, ratio: Array, grid: Grid, constants: Constants
) -> lane.Expr | Reject:
    """The codes of ``value`` (int32) times ``ratio`` (float64, broadcasts to the result).

    ``f32``: clamp(z + rne(float32(value) * float32(ratio))). ``fixed31``: (value * m + half) >> s
    in int64, m of 31 bits. ``pow2``: (value + half) >> s.
    """
    if not (np.isfinite(ratio).all() and (ratio > 0).all()):
        return Reject("a scale is not positive and finite")
    if scheme == "pow2":
        return _shifted(value, ratio, grid)
    if scheme == "fixed31":
        return _fixed(value, ratio, grid, constants)
    product = lane.call("mul", lane.cast(value, F32), constants.take(ratio.astype(np.float32), F32))
    return rounded(product, grid)


def rounded(steps: lane.Expr, grid: Grid) -> lane.Expr:
    """The codes of float32 steps: clamp(z + rne(steps))."""
    # clipped as floats: exact, and the conversion cannot leave int32
    clipped = lane.clip(
        lane.call("round", steps),
        lane.Imm(float(grid.low - grid.zero), F32),
        lane.Imm(float(grid.high - grid.zero), F32),
    )
    codes = lane.cast(clipped, I32)
    if grid.zero:
        codes = lane.call("add", codes, lane.Imm(grid.zero, I32))
    return lane.cast(codes, grid.dtype)


def _shifted(value: lane.Expr, ratio: Array, grid: Grid) -> lane.Expr | Reject:
    shift = -np.log2(ratio.reshape(-1))
    first = round(float(shift[0]))
    if not (shift == first).all() or not 0 <= first <= MAX_SHIFT:
        return Reject("scheme pow2 needs one power of two for all channels")
    steps = lane.call("rshr", lane.cast(value, I64), lane.Imm(first, I64))
    return clamped(steps, grid)


def _fixed(value: lane.Expr, ratio: Array, grid: Grid, constants: Constants) -> lane.Expr | Reject:
    mantissa, exponent = np.frexp(ratio)
    multiplier = np.rint(np.ldexp(mantissa, 31)).astype(np.int64)
    full = multiplier == 1 << 31
    multiplier, shift = np.where(full, 1 << 30, multiplier), 31 - (exponent + full)
    if shift.min() < 1 or shift.max() > 62:
        return Reject(f"a ratio of {float(ratio.max()):g} between scales is out of range")
    product = lane.call("mul", lane.cast(value, I64), constants.take(multiplier, I64))
    return clamped(lane.call("rshr", product, constants.take(shift, I64)), grid)


def blended(
    values: Sequence[tuple[lane.Expr, int, Array]], grid: Grid, constants: Constants
) -> lane.Expr | Reject:
    """The codes of a sum of values times ratios: clamp(z + ((sum v * m + half) >> s)).

    Args:
        values: (int32 expression, greatest magnitude, ratio in float64) of each term.
        grid: Codes of the result.
        constants: Takes the multipliers that are no literals.

    The shift s is the largest, up to 30, for which no partial sum leaves int32; m is rint(ratio
    2^s). Where that rounds too much (`BLEND_BITS`, `BLEND_ERROR`), sums are int64.
    """
    reach = sum(bound * float(np.abs(ratio).max()) for _, bound, ratio in values)
    # half of 2^s, and half a unit of each multiplier, belong to the sum
    rounded = sum(bound for _, bound, _ in values) / 2
    shift = MAX_SHIFT
    while shift > 0 and (reach + 0.5) * 2.0**shift + rounded >= 2.0**31:
        shift -= 1
    wide = max(float(np.abs(r).max()) for _, _, r in values) * 2.0**shift < 1 << BLEND_BITS
    if grid.dtype in CODES:
        wide = wide or max(bound for _, bound, _ in values) / 2 >= BLEND_ERROR * 2.0**shift
    dtype = I64 if wide else I32
    if wide:
        _, exponent = math.frexp(reach + 0.5 + rounded)
        shift = min(62 - exponent, 46)
    if shift <= 0:
        return Reject("scales that differ too much for an integer sum")
    total: lane.Expr | None = None
    for value, _, ratio in values:
        multiplier = np.rint(np.ldexp(ratio, shift)).astype(np.int64)
        term = lane.call("mul", lane.cast(value, dtype), constants.take(multiplier, dtype))
        total = term if total is None else lane.call("add", total, term)
    assert total is not None
    return clamped(lane.call("rshr", total, lane.Imm(shift, dtype)), grid)


def clamped(steps: lane.Expr, grid: Grid) -> lane.Expr:
    """clamp(zero + steps), clipped before the zero point is added: nothing can wrap."""
    low, high = (lane.Imm(v - grid.zero, steps.dtype) for v in (grid.low, grid.high))
    codes = lane.cast(lane.clip(steps, low, high), I32)
    if grid.zero:
        codes = lane.call("add", codes, lane.Imm(grid.zero, I32))
    return lane.cast(codes, grid.dtype)
