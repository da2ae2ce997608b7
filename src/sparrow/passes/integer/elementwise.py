"""Sums, differences and products of two values.

before   y = Quantize(Dequantize(a) + Dequantize(b))
after    y = requantize of (a - z_a) m_a + (b - z_b) m_b

Functions of one value are tables over codes, or work on the float of a sum.
"""

from __future__ import annotations

import numpy as np

from sparrow import lane
from sparrow.graph import Node, Scheme
from sparrow.ops.lane import Lane
from sparrow.passes import litert
from sparrow.passes.integer.codes import Edit, Target, codes_of
from sparrow.passes.integer.functions import of_sum
from sparrow.passes.integer.lines import line
from sparrow.passes.integer.tables import table
from sparrow.passes.requantize import Constants, blended, scaled
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import F32, I16


def elementwise(m: Match, n: Node, t: Target, scheme: Scheme) -> Rewrite | Reject:
    op = n.op
    assert isinstance(op, Lane)
    live = [x for x in dict.fromkeys(n.inputs) if m.const(x) is None]
    if scheme != "tflite" and (found := line(m, n, t)) is not None:
        return found
    if len(live) == 1 and scheme == "f32" and (found := of_sum(m, n, t, live[0])) is not None:
        return found
    if len(live) == 1:
        return table(m, n, t, live[0], scheme)
    args = tuple(lane.Arg(i, F32) for i in range(2))
    kinds: dict[lane.Expr, str] = {lane.call(f, *args): f for f in ("add", "sub", "mul")}
    kinds |= {lane.call(f, args[1], args[0]): f for f in ("add", "mul")}
    fn = kinds.get(op.expr)
    operands = [codes_of(m, x) for x in n.inputs]
    if fn is None or len(operands) != 2:
        return Reject("it is no sum, difference or product of two values")
    a, b = operands
    if a is None or b is None:
        return Reject("an operand is no codes of one scale")
    types = (a.type.dtype, b.type.dtype, t.grid.dtype)
    if scheme == "tflite" and 0 < types.count(I16) < 3:
        return Reject("LiteRT adds and multiplies codes of one width")
    constants = Constants(2)
    if fn == "mul":
        if a.reach * b.reach >= 1 << 31:
            return Reject("products of 16-bit codes with zero points may leave int32")
        product = lane.call("mul", a.real(0), b.real(1))
        ratio = np.asarray(a.scale * b.scale / t.scale)
        if scheme == "tflite":
            ratio = litert.product_ratio(a.scale, b.scale, t.scale)
            reach = np.asarray(a.reach * b.reach)
            expr = litert.requantized(product, reach, ratio, t.grid, constants, away=True)
        else:
            expr = scaled(scheme, product, ratio, t.grid, constants)
    elif scheme == "tflite":
        first, second = (a.real(0), a.scale), (b.real(1), b.scale)
        expr = litert.added(first, second, t.scale, t.grid, minus=fn == "sub")
    else:
        sign = -1.0 if fn == "sub" else 1.0
        terms = [
            (a.real(0), a.reach, np.asarray(a.scale / t.scale)),
            (b.real(1), b.reach, np.asarray(sign * b.scale / t.scale)),
        ]
        expr = blended(terms, t.grid, constants)
    if isinstance(expr, Reject):
        return expr
    e = Edit(m, n.origin)
    e.add(Lane(expr), a.name, b.name, y=t.node.outputs[0])
    return e.done(t.node)
