"""ADD and SUB of 16-bit codes whose scales are powers of two: shifts, where the file allows them.

The coarser operand has the scale of the result; the other is shifted, halves away from zero.
"""

from __future__ import annotations

import numpy as np

from sparrow import lane
from sparrow.importers.tflite.call import RANGES, Call
from sparrow.tensor import I16, I32


def shifted(n: Call, fn: str) -> str | None:
    """The sum or difference of inputs 0 and 1 as codes; None where LiteRT computes otherwise."""
    tensors = n.tensor(0), n.tensor(1), n.outs[0]
    alike = all(t.dtype == I16 and t.scale.size == 1 and not t.zero_point.any() for t in tensors)
    if not alike or not n.option("shifts") or n.option("activation") not in RANGES:
        return None
    scales = [float(t.scale[0]) for t in tensors]
    mantissa, exponent = np.frexp(scales)
    places = (exponent[2] - exponent[:2]).tolist()
    if (mantissa != 0.5).any() or min(places) != 0 or max(places) > 16:
        return None
    terms = []
    for i, right in enumerate(places):
        value: lane.Expr = lane.cast(n.b.arg(i, n.x(i)), I32)
        if right:
            # one less makes the half of a negative value fall down
            below = lane.call("lt", value, lane.Imm(0, I32))
            sunk = lane.call("sub", value, lane.Imm(1, I32))
            value = lane.call("where", below, sunk, value)
            value = lane.call("rshr", value, lane.Imm(right, I32))
        terms.append(value)
    ends = zip(RANGES[n.option("activation")], I16.limits, strict=True)
    bounds = (limit if v is None else round(v / scales[2]) for v, limit in ends)
    low, high = (lane.Imm(min(max(v, I16.limits[0]), I16.limits[1]), I32) for v in bounds)
    codes = lane.cast(lane.clip(lane.call(fn, *terms), low, high), I16)
    y = n.b.lane(codes, n.x(0), n.x(1))
    return n.typed(y, n.outs[0].affine(n.b.shape(y)))
