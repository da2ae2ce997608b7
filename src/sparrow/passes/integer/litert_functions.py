"""Scheme ``tflite``: functions of one value that LiteRT computes with integers of its own.

    leaky, abs     x times a ratio as `litert.times` rounds it, of x < 0 and of others
    hardswish      v = 2^7 (x - z); r = relu6-like of v, both in 16 bits; y = r times v's ratio
    sigmoid, tanh  of 16 bits: entries of sigmoid(i / 24) over 16 bits, of x >= 0:

        v = (x m + 2^(s-1)) >> s            in steps of 1 / (3 2^12), m of 15 bits
        r = table[i] 2^k + o (table[i + 1] - table[i])              |v| = i 2^k + o
        sigmoid   k = 9: y = (r + 2^9) >> 10,                  of v < 0 (2^25 - 1 - r + 2^9) >> 10
        tanh      k = 8: y = (r - 2^23 + 2^7) >> 8,            of v < 0 (2^23 - 1 - r + 2^7) >> 8

    exp, gelu      of 16 bits: 512 lines, whose ends it computes in float32: the last bit of its
                   exponential may make an end another code

Steps of 2^-12 (tanh: 2^-11, too) have another kernel there, and are refused. All other functions of
8 bits are tables that it fills from floats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sparrow import lane
from sparrow.graph import Node
from sparrow.lane import Expr
from sparrow.ops.gather import Gather
from sparrow.ops.lane import Lane
from sparrow.ops.lookup_linear import ENTRIES, FRACTION, LookupLinear
from sparrow.passes import litert
from sparrow.passes.integer.codes import Codes, Edit, Target
from sparrow.passes.requantize import Constants, clamped
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import F32, I16, I32, Array

# Entries of sigmoid from one unit to the next; the last one saturates.
PER_UNIT, SIGMOIDS = 24, 256
# Scales of x that another kernel serves.
SHIFTED = {"sigmoid": (2.0**-12,), "tanh": (2.0**-12, 2.0**-11)}
LOW, HIGH = I16.limits
# Bits below the codes of a hardswish.
FINER = 7
ABS, HARDSWISH = (lane.call(f, lane.Arg(0, F32)) for f in ("abs", "hardswish"))


def rounds_twice(e: Expr) -> bool:
    """Whether a function is one of which LiteRT rounds codes twice, with few bits in between."""
    return e in (ABS, HARDSWISH) or _slope(e) is not None


def own(e: Expr, x: Codes, t: Target) -> Expr | Reject | None:
    """The codes of a function of operand 0, codes themselves; None where LiteRT has no own way."""
    if e == ABS:
        value = lane.call("abs", x.real(0))
        steps = litert.times(value, litert.scale_ratio(x.scale, t.scale), Constants(1), away=True)
        return steps if isinstance(steps, Reject) else clamped(steps, t.grid)
    if e == HARDSWISH:
        return _hardswish(x, t)
    slope = _slope(e)
    if slope is None:
        return None
    with np.errstate(all="ignore"):
        scales = x.scale, float(np.float32(x.scale) * slope)
    ratios = (litert.scale_ratio(s, t.scale) for s in scales)
    up, down = (litert.times(x.real(0), r, Constants(1), away=True) for r in ratios)
    if isinstance(up, Reject) or isinstance(down, Reject):
        return up if isinstance(up, Reject) else down
    below = lane.call("lt", x.real(0), lane.Imm(0, I32))
    return clamped(lane.call("where", below, down, up), t.grid)


def _slope(e: Expr) -> np.float32 | None:
    """The slope of a leaky relu, positive."""
    x = lane.Arg(0, F32)
    if not isinstance(e, lane.Call) or e.fn != "where" or e.args[2] != x:
        return None
    below, scaled = e.args[:2]
    if below != lane.call("lt", x, lane.Imm(0.0, F32)) or not isinstance(scaled, lane.Call):
        return None
    if scaled.fn != "mul" or not isinstance(scaled.args[0], lane.Imm) or scaled.args[1] != x:
        return None
    slope = np.float32(scaled.args[0].value)
    return slope if slope > 0 else None


def _high_product(a: Expr, b: Expr) -> Expr:
    """Of 16-bit numbers: a b / 2^15, halves away from zero."""
    product = lane.call("mul", a, b)
    below = lane.call("lt", product, lane.Imm(0, I32))
    half = lane.call("where", below, lane.Imm(1 - (1 << 14), I32), lane.Imm(1 << 14, I32))
    return lane.call("div", lane.call("add", product, half), lane.Imm(1 << 15, I32))


def _shifted(value: Expr, places: int) -> Expr:
    """Halves of value / 2^places away from zero."""
    if not places:
        return value
    below = lane.call("lt", value, lane.Imm(0, I32))
    less = lane.call("where", below, lane.Imm(1, I32), lane.Imm(0, I32))
    return lane.call("rshr", lane.call("sub", value, less), lane.Imm(places, I32))


def _doubled(value: Expr, places: int) -> Expr:
    """Within 16 bits, value 2^places."""
    shifted = lane.call("mul", value, lane.Imm(1 << places, I32))
    return lane.clip(shifted, lane.Imm(LOW, I32), lane.Imm(HIGH, I32))


def _hardswish(x: Codes, t: Target) -> Expr | Reject:
    """By products of 16 bits, x relu6(x + 3) / 6."""
    with np.errstate(all="ignore"):
        fine = np.float32(x.scale) * np.float32(2.0**-FINER)
        ratios = fine / np.array([3 * 2.0**-15, t.scale], np.float32)
    if not litert.ratio_is_usable(ratios):
        return Reject(f"a hardswish of steps of {x.scale:g} in steps of {t.scale:g}")
    (relu, unit), (places, down) = (v.tolist() for v in litert.multiplier(ratios, 16))
    if x.type.dtype == I16 or places not in range(-30, 16) or down not in range(-30, 1):
        return Reject("a hardswish that LiteRT refuses, or of scales out of range")
    value = lane.call("mul", x.real(0), lane.Imm(1 << FINER, I32))
    whole = _high_product(value, lane.Imm(unit, I32))
    part = _doubled(value, places - 1) if places > 0 else value
    part = _high_product(part, lane.Imm(relu, I32))
    part = _doubled(part, 1) if places > 0 else _shifted(part, -places)
    share = lane.call("add", part, lane.Imm(1 << 15, I32))
    # a rounding shift of one less does not round
    share = lane.call("rshr", lane.call("sub", share, lane.Imm(1, I32)), lane.Imm(1, I32))
    product = lane.call("div", lane.call("mul", share, whole), lane.Imm(1 << 15, I32))
    return clamped(_shifted(product, -down), t.grid)


def _sigmoids(saturated: int) -> Array:
    """Of every interval the entry times 2^10 plus its slope, which is below that."""
    x = np.arange(2 * SIGMOIDS + 1) / (2 * PER_UNIT)
    f = 65536 / (1 + np.exp(-x))
    ends, middle = f[::2], f[1::2]
    # half of what the line misses at the middle of an interval is added to its start
    entries = np.floor(ends[:-1] + (middle - (ends[:-1] + ends[1:]) / 2) / 2 + 0.5).astype(np.int64)
    entries[-1] = 65535
    slopes = np.diff(entries, append=saturated)
    entries[-1], slopes[-1] = saturated, 0
    return entries << 10 | slopes


def lines(
    f: Callable[[Array], Array], scale: np.floating[Any], zero: int, step: np.floating[Any]
) -> Array:
    """The table of `LookupLinear` that LiteRT makes of a function of codes of 16 bits.

    Args:
        f: The function.
        scale: Of its operand; all is computed in its type.
        zero: Zero point of its operand.
        step: Scale of its result.
    """
    real = scale.dtype.type
    low, high = (scale * real(v - zero) for v in I16.limits)
    per = real(HIGH - LOW + 1) / (step * real(HIGH) - step * real(LOW))
    width = (high - low) / real(ENTRIES - 1)
    starts = low + np.arange(ENTRIES - 1).astype(real) * width
    first, middle, last = (f(starts + part) * per for part in (real(0), width / real(2), width))
    between = _rounded((last + _rounded(first)) / real(2)) - _rounded(middle)
    ends = np.append(
        _rounded(first) - _rounded(between / real(2)), _rounded(f(np.asarray([high])) * per)
    )
    codes: Array = np.clip(ends, LOW, HIGH).astype(np.int32) << FRACTION
    return codes


def _rounded(x: Array) -> Array:
    """Halves away from zero."""
    return np.copysign(np.floor(np.abs(x) + 0.5), x)


def of_16_bits(m: Match, n: Node, t: Target, x: Codes) -> Rewrite | Reject:
    """A function of 16-bit codes as 16-bit codes that LiteRT has a table for."""
    assert isinstance(n.op, Lane)
    whole = (t.grid.zero, t.grid.low, t.grid.high, t.grid.dtype) == (0, LOW, HIGH, I16)
    if x.zero or not whole:
        return Reject("LiteRT's functions of 16 bits have no zero points")
    expr = n.op.expr
    if not any(expr == lane.call(f, lane.Arg(0, F32)) for f in ("exp", "gelu", "gelu_tanh")):
        return _squashed(m, n, t, x)
    scales = np.float32(x.scale), np.float32(t.scale)
    with np.errstate(all="ignore"):
        ends = lane.evaluate(expr, (scales[0] * np.array(I16.limits, np.float32),))
    if not np.isfinite(ends).all() or not all(2.0**-40 < v < 2.0**40 for v in scales):
        return Reject("LiteRT's lines may leave float32")
    table = lines(lambda v: lane.evaluate(expr, (v,)), scales[0], 0, scales[1])
    e = Edit(m, n.origin)
    made = LookupLinear(0, LOW, HIGH, I16)
    e.add(made, x.name, e.const(table, I32), y=t.node.outputs[0])
    return e.done(t.node)


def _squashed(m: Match, n: Node, t: Target, x: Codes) -> Rewrite | Reject:
    """Sigmoid or tanh of 16-bit codes as 16-bit codes."""
    assert isinstance(n.op, Lane)
    fn = next((f for f in SHIFTED if n.op.expr == lane.call(f, lane.Arg(0, F32))), None)
    if fn is None:
        return Reject("LiteRT has tables of its own for 16 bits")
    if t.scale != 2.0**-15:
        return Reject("LiteRT's table is of steps of 2^-15")
    factor, shift = x.scale * 3 * 4096, 0
    while factor <= HIGH / 2 and shift <= 30:
        factor, shift = 2 * factor, shift + 1
    if x.scale in SHIFTED[fn] or not 0 < factor <= HIGH:
        return Reject(f"LiteRT has another kernel for steps of {x.scale:g}")
    bits = 9 if fn == "sigmoid" else 8
    v = lane.call("mul", lane.cast(lane.Arg(0, I16), I32), lane.Imm(int(factor), I32))
    v = lane.call("rshr", v, lane.Imm(shift, I32)) if shift else v
    size = lane.call("abs", v)
    offset = lane.call("bitand", size, lane.Imm((1 << bits) - 1, I32))
    # the difference is a multiple: nothing is rounded
    index = lane.call("rshr", lane.call("sub", size, offset), lane.Imm(bits, I32))
    e = Edit(m, n.origin)
    at = e.add(Lane(lane.call("min", index, lane.Imm(SIGMOIDS - 1, I32))), x.name)
    table = e.const(_sigmoids(65534 if fn == "sigmoid" else 65535).astype(np.int32), I32)
    line = e.add(Gather(0), table, at)
    slope = lane.call("bitand", lane.Arg(1, I32), lane.Imm((1 << 10) - 1, I32))
    entry = lane.call("rshr", lane.call("sub", lane.Arg(1, I32), slope), lane.Imm(10 - bits, I32))
    r = lane.call("add", entry, lane.call("mul", offset, slope))
    if fn == "sigmoid":
        low, up, down = 10, r, lane.call("sub", lane.Imm((1 << 25) - 1, I32), r)
    else:
        one = lane.Imm(1 << 23, I32)
        low, up = 8, lane.call("sub", r, one)
        down = lane.call("sub", lane.Imm((1 << 23) - 1, I32), r)
    either = lane.call("where", lane.call("lt", v, lane.Imm(0, I32)), down, up)
    y = lane.cast(lane.call("rshr", either, lane.Imm(low, I32)), I16)
    e.add(Lane(y), x.name, line, y=t.node.outputs[0])
    return e.done(t.node)
