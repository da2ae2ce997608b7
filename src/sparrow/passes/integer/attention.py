"""Attention between codes.

before   y = Quantize(Attention(Dequantize(q), Dequantize(k), Dequantize(v), mask))
after    y = AttentionCodes(q, k, v, mask')       mask' in units of the scores, int32
"""

from __future__ import annotations

from math import log2

import numpy as np

from sparrow import lane
from sparrow.graph import Node, Scheme
from sparrow.ops.attention import Attention, rows_inside
from sparrow.ops.attention_codes import DIGIT, MASK, UNSEEN, AttentionCodes, weight_bits
from sparrow.ops.exponential import ONE
from sparrow.ops.lane import Lane
from sparrow.passes.integer.codes import Edit, Target, codes_of
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import F32, I16, I32

# Masks of -10^4 and beyond have to be out of reach of every score.
LEAST_UNIT = 1e-6
# Bits that queries and keys of 16 bits lose together, at most: they keep eight each.
MOST_LOST = 16


def attention(m: Match, n: Node, t: Target, scheme: Scheme) -> Rewrite | Reject:
    """Queries, keys and values of 8 or 16 bits; weights of 14 bits."""
    op = n.op
    assert isinstance(op, Attention)
    q, k, v = (codes_of(m, x) for x in n.inputs[:3])
    if q is None or k is None or v is None:
        return Reject("its operands are no codes of one scale")
    wide = [x.type.dtype == I16 for x in (q, k, v)]
    if any(wide) and (not all(wide) or q.zero or k.zero or v.zero):
        return Reject("its operands have 8 and 16 bits, or 16 and a zero point")
    if scheme == "tflite" or op.softcap or t.clipped:
        return Reject("LiteRT has no such op, its scores have a cap, or its result is clipped")
    unit, shifts = q.scale * k.scale * op.scale, (0, 0)
    features = rows_inside(q.type.shape, op.interleaved[0])[3]
    keys = rows_inside(k.type.shape, op.interleaved[1])[2]
    if wide[0]:
        shifts = _shifts(features, unit)
        unit *= 2.0 ** sum(shifts)
    if not unit >= LEAST_UNIT or features * 255 * 255 >= MASK or weight_bits(keys) < 8:
        return Reject(f"scores in units of {unit:g} over {features} features and {keys} keys")
    if 0 in (*q.type.shape, *k.type.shape, *v.type.shape):
        return Reject("empty operands")
    e = Edit(m, n.origin)
    mask: tuple[str, ...] = ()
    if len(n.inputs) > 3 and n.inputs[3]:
        mask = (e.add(Lane(_in_units(unit)), n.inputs[3]),)
    made = AttentionCodes(
        q.zero,
        v.zero,
        t.grid.zero,
        t.grid.dtype,
        float(np.float32(unit * log2(np.e) * ONE)),
        float(np.float32(v.scale * (1 << DIGIT if wide[0] else 1) / t.scale)),
        op.causal,
        op.offset,
        op.interleaved,
        shifts,
    )
    e.add(made, q.name, k.name, v.name, *mask, y=t.node.outputs[0])
    return e.done(t.node)


def _shifts(features: int, unit: float) -> tuple[int, int]:
    """Bits that queries and keys of 16 bits lose: the fewest that keep scores within `MASK`, and
    more where a score is worth less than `LEAST_UNIT` still.
    """
    lost = features.bit_length() + 1
    while unit * 2.0**lost < LEAST_UNIT and lost < MOST_LOST:
        lost += 1
    return lost // 2, lost - lost // 2


def _in_units(unit: float) -> lane.Expr:
    """A float mask as `AttentionCodes` takes it; -inf says that a key is not seen."""
    x = lane.Arg(0, F32)
    steps = lane.call("mul", x, lane.Imm(float(np.float32(1 / unit)), F32))
    bounds = (lane.Imm(float(v), F32) for v in (-MASK, MASK))
    code = lane.cast(lane.call("round", lane.clip(steps, *bounds)), I32)
    blind = lane.call("eq", x, lane.Imm(-np.inf, F32))
    return lane.call("where", blind, lane.Imm(UNSEEN, I32), code)
