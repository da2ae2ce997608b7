"""Scheme ``tflite``: the integer arithmetic of LiteRT's own kernels, as lane expressions.

A ratio of scales becomes q 2^(e - 31) with q of 31 bits (QuantizeMultiplier). A value v times it is
rounded twice:

    h = floor((v q 2^max(e, 0) + 2^30) / 2^31)          SaturatingRoundingDoublingHighMul
    y = round(h / 2^max(-e, 0))                         RoundingDivideByPOT

Convolutions and products with weights run in the ruy library, which rounds halves of the second
step up, as the vectors of QUANTIZE over bytes do; all other kernels round them away from zero. The
first step rounds halves up in both. LiteRT computes modulo 2^32; a value that could get that far is
refused.

Sums of products of 16-bit codes have 64 bits, and are rounded once, with a multiplier of 16 bits in
convolutions and products of two activations, and of 31 in FULLY_CONNECTED with a bias:

    y = floor((v min((q + 2^15) >> 16, 2^15 - 1) + 2^(14 - e)) / 2^(15 - e))
    y = floor((v q + 2^(30 - e) - (1 where v < 0)) / 2^(31 - e))

FULLY_CONNECTED without one is ruy's, in 32 bits.

Verified against ai-edge-litert 2.3 layer by layer, see docs/limits.md for what differs.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sparrow import lane
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.passes.requantize import Constants, Grid, clamped
from sparrow.rewrite import Reject
from sparrow.tensor import F32, I32, I64, Array

# ADD and SUB keep this many bits below the units of their operands, of 8 bits and of 16.
SUM_SHIFT = {8: 20, 16: 15}


def sum_ratio(x: float, w: Array, y: float, *, double: bool) -> Array:
    """What a unit of a sum of products is in steps of the result, as LiteRT rounds it.

    Scales are multiplied in float64 where a kernel takes one per channel, else in float32.
    """
    if double:
        return x * w / y
    return (np.float32(x) * w.astype(np.float32)).astype(np.float64) / y


def product_ratio(a: float, b: float, y: float) -> Array:
    """What a unit of a product of two elements is in steps of the result: all in float32."""
    return np.asarray(float(np.float32(a) * np.float32(b) / np.float32(y)))


def is_depthwise(op: Conv | MatMul) -> bool:
    """Whether LiteRT computes it outside of ruy."""
    return isinstance(op, Conv) and op.group > 1


def multiplier(ratio: Array, bits: int = 31) -> tuple[Array, Array]:
    """(q, e) with q 2^(e - 31) for a ratio; with q 2^(e - 15) of 16 bits, its sign included."""
    mantissa, exponent = np.frexp(np.asarray(ratio))
    q = np.floor(np.ldexp(mantissa, 31) + 0.5).astype(np.int64)
    full = q == 1 << 31
    q, exponent = np.where(full, 1 << 30, q), exponent + full
    if bits == 16:
        q = np.minimum((q + (1 << 15)) >> 16, (1 << 15) - 1)
    return q, exponent


def times(
    value: lane.Expr, ratio: Array, constants: Constants, *, away: bool
) -> lane.Expr | Reject:
    """An int32 value times a ratio, in int32: 2^15 times it must stay there, if the ratio is large.

    The high product is written as vectors compute it, see `vectors.high_product`.
    """
    if not ratio_is_usable(ratio):
        return Reject(f"a ratio of {float(np.min(ratio)):g} between scales")
    return _product(value, *multiplier(ratio), constants, away=away)


def _product(
    value: lane.Expr, q: Array, exponent: Array, constants: Constants, *, away: bool | Array
) -> lane.Expr | Reject:
    """`times` q 2^(e - 31); ``away`` may differ between elements."""
    # a channel with so small a scale gives the zero point
    q, exponent = np.where(exponent < -31, 0, q), np.where(exponent < -31, 0, exponent)
    left, right = np.maximum(exponent, 0), np.maximum(-exponent, 0)
    if left.max() > 15:
        return Reject(f"a ratio of 2^{left.max()} between scales is out of range")
    if left.any():
        value = lane.call("mul", value, constants.take(1 << left, I32))
    product = lane.call("mul", lane.cast(value, I64), lane.cast(constants.take(q, I32), I64))
    high: lane.Expr = lane.cast(lane.call("rshr", product, lane.Imm(31, I64)), I32)
    if not right.any():
        return high
    less = (right > 0) * np.asarray(away, np.int64)
    if less.any():
        # one less makes the half of a negative value fall down; without a second step none has
        below = lane.call("lt", high, lane.Imm(0, I32))
        down = lane.call("sub", high, constants.take(less, I32))
        high = lane.call("where", below, down, high)
    return lane.call("rshr", high, constants.take(right, I32))


def requantized(
    value: lane.Expr, reach: Array, ratio: Array, grid: Grid, constants: Constants, *, away: bool
) -> lane.Expr | Reject:
    """The codes of ``value`` (int32, magnitude at most ``reach``, shaped as ``ratio``) times it.

    MultiplyByQuantizedMultiplier, then the zero point and the clamp.
    """
    mantissa, exponent = np.frexp(ratio)
    left, right = np.maximum(exponent, 0), np.clip(-exponent, 0, 31)
    whole = np.ldexp(reach.astype(np.float64), left)
    # the operand of the first step, and the sum of the second
    if max(whole.max(), (whole * mantissa + np.ldexp(0.5, right)).max()) >= 1 << 31:
        return Reject("LiteRT would wrap")
    steps = times(value, ratio, constants, away=away)
    return steps if isinstance(steps, Reject) else clamped(steps, grid)


def requantized_wide(
    value: lane.Expr, reach: Array, ratio: Array, grid: Grid, constants: Constants, *, bits: int
) -> lane.Expr | Reject:
    """The codes of ``value`` (int64, magnitude at most ``reach``, shaped as ``ratio``) times it.

    One rounding of an exact product with a multiplier of ``bits``: 16 with its sign, halves up, or
    31 without, halves away from zero. What does not fit 64 bits is taken in two parts,
    v = 2^16 a + b, with n = 1 where halves go down:

        floor((v q - n + 2^(s-1)) / 2^s) = floor((a q + l + 2^(s-17)) / 2^(s-16))
        l = floor((b q - n) / 2^16)
    """
    q, exponent = multiplier(ratio, bits)
    shift = (15 if bits == 16 else 31) - exponent
    if not (ratio > 0).all() or shift.min() < 1 or shift.max() > 62:
        return Reject(f"a ratio of {float(np.max(ratio)):g} between scales is out of range")
    wide = reach.astype(np.float64)
    if (wide * ratio).max() >= 2.0**31 - 1:
        return Reject("LiteRT would wrap")
    factor = constants.take(q, I64)

    def lowered(product: lane.Expr) -> lane.Expr:
        if bits == 16:
            return product
        below = lane.call("lt", value, lane.Imm(0, I64))
        return lane.call(
            "sub", product, lane.call("where", below, *(lane.Imm(n, I64) for n in (1, 0)))
        )

    if (wide * q + np.ldexp(0.5, shift)).max() < 2.0**63:
        product = lowered(lane.call("mul", value, factor))
        return clamped(lane.call("rshr", product, constants.take(shift, I64)), grid)
    if shift.min() < 18 or wide.max() >= 2.0**47:
        return Reject("sums of more than 47 bits, or a ratio that leaves few of them")
    part = lane.Imm(16, I64)
    low = lane.call("bitand", value, lane.Imm((1 << 16) - 1, I64))
    high = lane.call("rshr", lane.call("sub", value, low), part)
    # a shift that rounds, of half a unit less, is one that does not
    below = lane.call("sub", lowered(lane.call("mul", low, factor)), lane.Imm(1 << 15, I64))
    total = lane.call("add", lane.call("mul", high, factor), lane.call("rshr", below, part))
    return clamped(lane.call("rshr", total, constants.take(shift - 16, I64)), grid)


def scale_ratio(x: float, y: float) -> Array:
    """What a step of x is in steps of y: in float32, where it may be infinite or 0."""
    with np.errstate(all="ignore"):
        return np.asarray(float(np.float32(x) / np.float32(y)))


def ratio_is_usable(ratio: Array) -> bool:
    """Whether `multiplier` takes ratios: positive and finite."""
    return bool((np.isfinite(ratio) & (ratio > 0)).all())


def added(
    a: tuple[lane.Expr, float],
    b: tuple[lane.Expr, float],
    y: float,
    grid: Grid,
    *,
    minus: bool = False,
) -> lane.Expr | Reject:
    """The codes of a + b or a - b for (codes minus zero point in int32, scale) each.

    Those of 16 bits that LiteRT shifts are codes from the start, see `importers.tflite`.

    Both are brought to twice the larger scale with `SUM_SHIFT` more bits, then the sum to ``y``.
    """
    shift = SUM_SHIFT[grid.dtype.bits]
    twice = 2 * max(a[1], b[1])
    constants = Constants(2)
    terms = []
    for value, scale in (a, b):
        shifted = lane.call("mul", value, lane.Imm(1 << shift, I32))
        term = times(shifted, np.asarray(scale / twice), constants, away=True)
        if isinstance(term, Reject):
            return term
        terms.append(term)
    ratio = twice / ((1 << shift) * y)
    if ratio >= 1:
        return Reject("scales that LiteRT refuses to add")
    total = lane.call("sub" if minus else "add", *terms)
    steps = times(total, np.asarray(ratio), constants, away=True)
    return steps if isinstance(steps, Reject) else clamped(steps, grid)


def mean(
    total: lane.Expr,
    reach: int,
    count: int,
    scales: tuple[float, float],
    grid: Grid,
    constants: Constants,
) -> lane.Expr | Reject:
    """MEAN: codes of a sum of ``count`` codes minus zero points, of at most ``reach``.

    The division is part of the multiplier, which is cut off, and not rounded.
    """
    ratio = np.asarray(scales[0] / scales[1])
    if not ratio_is_usable(ratio):
        return Reject(f"a ratio of {float(ratio):g} between scales")
    q, exponent = multiplier(ratio)
    shift = min(count.bit_length() - 1, 31 + int(exponent))
    if shift < 0 or reach << max(int(exponent) - shift, 0) >= 1 << 31:
        return Reject("LiteRT would wrap")
    steps = _product(total, (q << shift) // count, exponent - shift, constants, away=True)
    return steps if isinstance(steps, Reject) else clamped(steps, grid)


def mean_of_image(
    total: lane.Expr,
    channels: int,
    count: int,
    codes: tuple[float, int],
    y: float,
    grid: Grid,
    constants: Constants,
) -> lane.Expr | Reject:
    """MEAN over the height and width of 8-bit codes that keeps both: a kernel of its own.

    The zero point, in steps of ``y``, is rounded by itself; whole vectors of 16 channels round
    halves up, the rest away from zero.

    Args:
        total: Sum of codes as they are, channels last.
        channels: Their number.
        count: Codes of a sum.
        codes: Scale and zero point.
        y: Scale of the result.
        grid: Of the result.
        constants: Take what differs between channels.
    """
    scale, zero = codes
    ratio = scale_ratio(scale, y) / count
    if not ratio_is_usable(ratio) or ratio * count >= 1 << 15:
        return Reject(f"a ratio of {float(ratio):g} between scales")
    with np.errstate(over="ignore"):
        shift = float(np.float32(zero) * np.float32(scale) / np.float32(y))
    if not np.isfinite(shift):
        return Reject(f"a zero point in steps of {y:g} leaves float32")
    below = int(np.copysign(np.floor(abs(shift) + 0.5), shift))
    q, exponent = multiplier(ratio)
    away = (np.arange(channels) >= channels // 16 * 16).astype(np.int64)
    if 255 * count << max(int(exponent), 0) >= 1 << 31:
        return Reject("LiteRT would wrap")
    steps = _product(total, q, exponent, constants, away=away)
    if isinstance(steps, Reject):
        return steps
    return clamped(steps, replace(grid, zero=grid.zero - below))


def averaged(
    total: lane.Expr, zero: int, counts: Array, grid: Grid, constants: Constants
) -> lane.Expr:
    """The mean of codes from their sum minus zero points, halves away from zero.

    LiteRT averages the codes as they are and ignores the scales, which must be alike.
    """
    whole = counts.astype(np.int64)
    codes = lane.call("add", total, constants.take(whole * zero, I32)) if zero else total
    half, count = constants.take(whole // 2, I32), constants.take(whole, I32)
    up = lane.call("gt", codes, lane.Imm(0, I32))
    away = lane.call("where", up, lane.call("add", codes, half), lane.call("sub", codes, half))
    mean = lane.call("div", away, count)
    low, high = lane.Imm(grid.low, I32), lane.Imm(grid.high, I32)
    return lane.cast(lane.clip(mean, low, high), grid.dtype)


def resized(grid: Grid) -> lane.Expr:
    """Codes of interpolated codes of uint8, float32: halves are rounded up."""
    up = lane.call("floor", lane.call("add", lane.Arg(0, F32), lane.Imm(0.5, F32)))
    low, high = lane.Imm(float(grid.low), F32), lane.Imm(float(grid.high), F32)
    return lane.cast(lane.clip(up, low, high), grid.dtype)
