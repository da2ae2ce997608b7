"""Scheme ``tflite``: softmax of 16-bit codes by LiteRT's two tables of 512 lines.

They are of exp over [-10, 0] and of 1 / (1 + x) over [0, 1], in steps of 2 / 65535:

    e = exp[(x - max) q 2^p]            steps of 10 / 65535
    b = bits of s = sum of e
    y = clip((e recip[(4 s) >> (b - 15)] + 2^(b-2)) >> (b - 1), 0, 2^15 - 1)
"""

from __future__ import annotations

import numpy as np

from sparrow import lane
from sparrow.graph import Node
from sparrow.ops.lane import Lane
from sparrow.ops.lookup_linear import LookupLinear
from sparrow.ops.reduce import Reduce
from sparrow.ops.softmax import Softmax
from sparrow.passes import litert
from sparrow.passes.integer.codes import Codes, Edit, Target
from sparrow.passes.integer.litert_functions import lines
from sparrow.passes.requantize import Constants
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import I16, I32, I64

# What the exponent reaches, the steps that tables are spread over, and a step of their results.
DEEPEST, RANGE = 10.0, 65535
STEP = np.float64(2 / RANGE)
LOW, HIGH = I16.limits


def softmax_of_lines(m: Match, n: Node, t: Target, x: Codes) -> Rewrite | Reject:
    """Softmax of 16-bit codes as 16-bit codes; rows of less than 2^16."""
    assert isinstance(n.op, Softmax)
    if x.zero or t.grid.zero or t.scale != 2.0**-15:
        return Reject("LiteRT's tables are of steps of 2^-15 and no zero points")
    constants = Constants(2)
    below = lane.call("sub", lane.Arg(0, I32), lane.Arg(1, I32))
    ratio = np.asarray(x.scale / (DEEPEST / RANGE))
    steps = litert.times(below, ratio, constants, away=True)
    if isinstance(steps, Reject):
        return steps
    e = Edit(m, n.origin)
    axis = (n.op.axis % x.type.rank,)
    look = LookupLinear(0, LOW, HIGH, I32)
    code = e.add(Lane(x.real(0)), x.name)
    top = e.add(Reduce("max", axis), code)
    at = lane.call("max", lane.call("add", steps, lane.Imm(HIGH, I32)), lane.Imm(LOW, I32))
    exponent = e.add(Lane(at), code, top)
    powers = e.const(lines(np.exp, np.float64(DEEPEST / RANGE), HIGH, STEP), I32)
    each = e.add(look, exponent, powers)
    total = e.add(Reduce("sum", axis), each)
    s = lane.Arg(0, I32)
    bits: lane.Expr = lane.Imm(15, I32)
    for k in range(15, 31):
        more = lane.cast(lane.call("ge", s, lane.Imm(1 << k, I32)), I32)
        bits = lane.call("add", bits, more)
    size = e.add(Lane(bits), total)
    # the largest exponential alone has 15 bits
    four = lane.call("mul", lane.cast(s, I64), lane.Imm(4, I64))
    over = lane.call("sub", lane.cast(lane.Arg(1, I32), I64), lane.Imm(15, I64))
    mantissa = lane.cast(lane.call("rshr", four, over), I32)
    at = lane.call("sub", mantissa, lane.Imm((1 << 16) - LOW, I32))
    place = e.add(Lane(lane.call("min", at, lane.Imm(HIGH, I32))), total, size)
    inverse = e.const(lines(lambda v: 1 / (1 + v), np.float64(1 / RANGE), LOW, STEP), I32)
    reciprocal = e.add(look, place, inverse)
    product = lane.call("mul", lane.Arg(0, I32), lane.Arg(1, I32))
    shift = lane.call("sub", lane.Arg(2, I32), lane.Imm(1, I32))
    share = lane.call("rshr", product, shift)
    y = lane.cast(lane.clip(share, lane.Imm(0, I32), lane.Imm(HIGH, I32)), I16)
    e.add(Lane(y), each, reciprocal, size, y=t.node.outputs[0])
    return e.done(t.node)
