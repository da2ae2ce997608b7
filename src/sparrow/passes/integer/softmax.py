"""Softmax of codes: a table of exponentials, one integer division per row.

before   y = Quantize(Softmax(Dequantize(x)))
after    y = SoftmaxCodes(x, table)
"""

from __future__ import annotations

import numpy as np

from sparrow.graph import Node, Scheme
from sparrow.ops.softmax import Softmax
from sparrow.ops.softmax_codes import MAX_SUM, SoftmaxCodes
from sparrow.passes.integer.codes import Edit, Target, codes_of
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import F32, I16, I32

# The largest exponential: more would not change the codes of 8 bits.
BITS = 15


def softmax(m: Match, n: Node, t: Target, scheme: Scheme) -> Rewrite | Reject:
    """A softmax between codes."""
    op, x = n.op, codes_of(m, n.inputs[0])
    assert isinstance(op, Softmax)
    if x is None or I16 in (x.type.dtype, t.grid.dtype) or op.log:
        return Reject("its input or result is no 8-bit codes of one scale, or it is a logarithm")
    if t.grid.dtype.limits != (t.grid.low, t.grid.high):
        return Reject("its result is clipped")
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
