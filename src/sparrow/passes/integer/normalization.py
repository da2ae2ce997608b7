"""Normalization of codes over some axes, with integer sums.

    before   y = Quantize(Normalize(Dequantize(x), g, b))
    after    S = sum of c, Q = sum of c^2         c = x - z_x, over n elements, exact
             r = 1 / sqrt(float32(n Q - S^2) + e n^2 / s_x^2)             one per row
             y = clip(z + ((rne(float32(n c - S) * (r * g')) + b' + 2^(F-1)) >> F))

g' = g 2^F / s_y in float32, b' = rint(b 2^F / s_y). Without a mean S is 0 and n Q becomes Q. The
scale of x cancels but for epsilon. No product feeds a sum: the first is rounded to an integer.

|c| <= 2^8 of 8 bits, 2^15 of 16, and n <= 2^14: |S|, |n c| <= 2^29, so that n c - S stays in int32.
Q of 16 bits does not; it is two sums of at most 2^29, of the digits of the squares in base 2^15,

    Q = 2^15 sum(c^2 >> 15) + sum(c^2 & (2^15 - 1))      c^2 <= 2^30, put together in int64

and n Q, S^2 <= 2^58.
"""

from __future__ import annotations

from math import prod

import numpy as np

from sparrow import lane
from sparrow.graph import Node, Scheme
from sparrow.ops.lane import Lane
from sparrow.ops.normalize import Normalize
from sparrow.ops.reduce import Reduce
from sparrow.passes.integer.codes import Codes, Edit, Target, codes_of
from sparrow.passes.requantize import clamped
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import F32, I16, I32, I64, Array

# Bits below a step of the result, and what the scaled value is clipped to.
FRACTION = 12
LIMIT = float(1 << 29)
# n c - S stays in int32, and so do the sums of squares or of their digits.
MAX_COUNT = 1 << 14
# Bits of the lower digit of a square.
DIGIT = 15


def normalize(m: Match, n: Node, t: Target, scheme: Scheme) -> Rewrite | Reject:
    """A normalization between codes, with constant scale and bias."""
    op = n.op
    assert isinstance(op, Normalize)
    x = codes_of(m, n.inputs[0])
    if x is None or scheme == "tflite":
        return Reject("its input is no codes of one scale, or LiteRT has a form of its own")
    if x.type.dtype == I16 and x.zero:
        return Reject("16-bit codes with a zero point")
    if op.stats:
        return Reject("its statistics are used too")
    factors: list[Array | None] = [None, None]
    for i, name in enumerate(n.inputs[1:]):
        factors[i] = m.const(name)
        if name and factors[i] is None:
            return Reject("scale or bias is not constant")
    gain, bias = factors
    count = prod(x.type.shape[a] for a in op.axes)
    if not 1 <= count <= MAX_COUNT:
        return Reject(f"{count} elements are normalized together")
    e = Edit(m, n.origin)
    code = e.add(Lane(x.real(0)), x.name)
    total = Reduce("sum", op.axes)
    squares, wide = _squares(e, x, code, total)
    operands = [code]
    spread: lane.Expr
    away: lane.Expr
    if op.center:
        s = e.add(total, code)
        own = lane.cast(lane.Arg(len(squares), I32), I64)
        spread = lane.call(
            "sub",
            lane.call("mul", wide, lane.Imm(count, I64)),
            lane.call("mul", own, own),
        )
        root = [*squares, s]
        epsilon = op.epsilon * count**2 / x.scale**2
        away = lane.call(
            "sub",
            lane.call("mul", lane.Arg(0, I32), lane.Imm(count, I32)),
            lane.Arg(2, I32),
        )
        unit = 1.0
    else:
        spread, root, s = wide, squares, ""
        epsilon, unit = op.epsilon * count / x.scale**2, float(np.sqrt(count))
        away = lane.Arg(0, I32)
    variance = lane.call("add", lane.cast(spread, F32), lane.Imm(float(np.float32(epsilon)), F32))
    if np.float32(epsilon) == 0:
        return Reject("an epsilon that vanishes beside the codes")
    inverse = lane.call("div", lane.Imm(1.0, F32), lane.call("sqrt", variance))
    r = e.add(Lane(inverse), *root)
    operands += [r] + ([s] if op.center else [])
    step = unit * 2**FRACTION / t.scale
    factor: lane.Expr = lane.Arg(1, F32)
    scaled = np.asarray(step if gain is None else gain.astype(np.float64) * step)
    factor = lane.call("mul", factor, _operand(e, operands, scaled.astype(np.float32)))
    value = lane.call("mul", lane.cast(away, F32), factor)
    clipped = lane.clip(lane.call("round", value), lane.Imm(-LIMIT, F32), lane.Imm(LIMIT, F32))
    steps = lane.cast(clipped, I32)
    if bias is not None:
        added = np.clip(np.rint(bias.astype(np.float64) * 2**FRACTION / t.scale), -LIMIT, LIMIT)
        steps = lane.call("add", steps, _operand(e, operands, added.astype(np.int32)))
    y = clamped(lane.call("rshr", steps, lane.Imm(FRACTION, I32)), t.grid)
    e.add(Lane(y), *operands, y=t.node.outputs[0])
    return e.done(t.node)


def _squares(e: Edit, x: Codes, code: str, total: Reduce) -> tuple[list[str], lane.Expr]:
    """The sum of squares: int32 sums, and what they make in int64 as operands from 0 on."""
    square = lane.call("mul", lane.Arg(0, I32), lane.Arg(0, I32))
    if x.type.dtype != I16:
        return [e.add(total, e.add(Lane(square), code))], lane.cast(lane.Arg(0, I32), I64)
    low = lane.call("bitand", square, lane.Imm((1 << DIGIT) - 1, I32))
    # a multiple of 2^DIGIT: nothing is rounded
    high = lane.call("rshr", lane.call("sub", square, low), lane.Imm(DIGIT, I32))
    sums = [e.add(total, e.add(Lane(digit), code)) for digit in (high, low)]
    first, second = (lane.cast(lane.Arg(i, I32), I64) for i in range(2))
    return sums, lane.call("add", lane.call("mul", first, lane.Imm(1 << DIGIT, I64)), second)


def _operand(e: Edit, operands: list[str], values: Array) -> lane.Expr:
    """A further operand of the last expression, or a literal."""
    dtype = F32 if values.dtype == np.float32 else I32
    if values.size == 1:
        return lane.Imm(values.reshape(-1)[0].item(), dtype)
    operands.append(e.const(values, dtype))
    return lane.Arg(len(operands) - 1, dtype)
