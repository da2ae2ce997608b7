"""Softmax of codes.

before   y = Quantize(Softmax(Dequantize(x)))
after    y = SoftmaxCodes(x, table)          8 bits: a table, one integer division per row

where y has 16 bits, with the exponential of attention (ops/exponential.py):

         e = halved(min(rne(float32(max - x) s'), LIMIT))         s' = s_x 2^15 log2(e)
         y = clip(z + rne(float32(e) (float32(1 / s_y) / float32(sum of e))))
"""

from __future__ import annotations

from math import log2

import numpy as np

from sparrow import lane
from sparrow.graph import Node, Scheme
from sparrow.ops.exponential import LIMIT, ONE, halved
from sparrow.ops.lane import Lane
from sparrow.ops.reduce import Reduce
from sparrow.ops.softmax import Softmax
from sparrow.ops.softmax_codes import MAX_SUM, SoftmaxCodes
from sparrow.passes.integer.codes import Codes, Edit, Target, codes_of
from sparrow.passes.integer.litert_softmax import softmax_of_lines
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import F32, I16, I32

# The largest exponential: more would not change the codes of 8 bits.
BITS = 15
# Elements whose exponentials of 16 bits, at most 2^15 each, could leave int32.
MOST = 1 << 16


def softmax(m: Match, n: Node, t: Target, scheme: Scheme) -> Rewrite | Reject:
    """A softmax between codes."""
    op, x = n.op, codes_of(m, n.inputs[0])
    assert isinstance(op, Softmax)
    if x is None or op.log:
        return Reject("its input is no codes of one scale, or it is a logarithm")
    if t.grid.dtype.limits != (t.grid.low, t.grid.high):
        return Reject("its result is clipped")
    if I16 in (x.type.dtype, t.grid.dtype):
        return _wide(m, n, t, x, scheme)
    e = Edit(m, n.origin)
    below = np.arange(256)
    if scheme == "tflite":
        # as LiteRT writes its table: the scale is negated and multiplied in float32
        steps = (np.float32(-x.scale) * below.astype(np.float32)).astype(np.float64)
        table = e.const(np.exp(steps).astype(np.float32), F32)
        made = SoftmaxCodes(op.axis, t.grid.zero, t.grid.dtype, step=float(np.float32(t.scale)))
    else:
        extent = m.type(x.name).shape[op.axis]
        bits = min(BITS, (MAX_SUM // max(extent, 1)).bit_length() - 1)
        shift = min(30, int(np.floor(np.log2(MAX_SUM * t.scale))))
        if bits < 8 or shift < 1 or round(2**shift / t.scale) < 1:
            return Reject(f"{extent} elements to steps of {t.scale:g} leave int32")
        table = e.const(np.rint(np.exp(-below * x.scale) * 2**bits).astype(np.int32), I32)
        total = round(2**shift / t.scale)
        made = SoftmaxCodes(op.axis, t.grid.zero, t.grid.dtype, min(total, MAX_SUM), shift)
    e.add(made, x.name, table, y=t.node.outputs[0])
    return e.done(t.node)


def _wide(m: Match, n: Node, t: Target, x: Codes, scheme: Scheme) -> Rewrite | Reject:
    """A softmax from or to codes of 16 bits; no product feeds a sum."""
    op = n.op
    assert isinstance(op, Softmax)
    extent = x.type.shape[op.axis]
    if t.grid.dtype != I16 or not 0 < extent < MOST:
        return Reject(f"16 bits to {t.grid.dtype}, or {extent} elements that leave int32")
    if scheme == "tflite":
        if x.type.dtype != I16:
            return Reject("LiteRT gives 16 bits in another way from 8")
        return softmax_of_lines(m, n, t, x)
    e = Edit(m, n.origin)
    axis = (op.axis % x.type.rank,)
    code = e.add(Lane(x.real(0)), x.name)
    top = e.add(Reduce("max", axis), code)
    below = lane.cast(lane.call("sub", lane.Arg(1, I32), lane.Arg(0, I32)), F32)
    step = lane.Imm(float(np.float32(x.scale * log2(np.e) * ONE)), F32)
    steps = lane.call("min", lane.call("mul", below, step), lane.Imm(float(LIMIT), F32))
    powers = e.add(Lane(halved(lane.cast(lane.call("round", steps), I32))), code, top)
    total = e.add(Reduce("sum", axis), powers)
    unit = lane.Imm(float(np.float32(1 / t.scale)), F32)
    each = e.add(Lane(lane.call("div", unit, lane.cast(lane.Arg(0, I32), F32))), total)
    value = lane.call("mul", lane.cast(lane.Arg(0, I32), F32), lane.Arg(1, F32))
    low, high = (lane.Imm(float(v - t.grid.zero), F32) for v in (t.grid.low, t.grid.high))
    codes = lane.cast(lane.clip(lane.call("round", value), low, high), I32)
    y = lane.cast(lane.call("add", codes, lane.Imm(t.grid.zero, I32)), t.grid.dtype)
    e.add(Lane(y), powers, each, y=t.node.outputs[0])
    return e.done(t.node)
