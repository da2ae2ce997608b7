"""Functions of a sum, and the step of the codes that they become.

before   y = Quantize(hardswish(s))             s = float32(acc) * u, a sum of products of codes
after    y = z + rne(s * clip(s * (1 / 6 s_y) + 1 / 2 s_y, 0, 1 / s_y))

A division by the step, of every element, becomes part of the numbers that a cheap function has
anyway: behind a sum on AVX-512 that is a fifth of the time. As a sum's own ratio the step's
reciprocal is rounded to float32, so that ties may go the other way.
"""

from __future__ import annotations

import numpy as np

from sparrow import lane
from sparrow.graph import Node
from sparrow.ops.conv import Conv
from sparrow.ops.lane import Lane
from sparrow.ops.matmul import MatMul
from sparrow.passes.integer.codes import Edit, Target, codes_of
from sparrow.passes.requantize import rounded
from sparrow.rewrite import Match, Rewrite
from sparrow.tensor import F32


def of_sum(m: Match, n: Node, t: Target, value: str) -> Rewrite | None:
    """Match a function of the float result of a sum over codes."""
    source = m.producer(value)
    if source is None or not isinstance(source.op, Conv | MatMul):
        return None
    assert isinstance(n.op, Lane)
    same = m.type(value).shape == m.type(n.outputs[0]).shape
    if codes_of(m, source.inputs[0]) is None or not same:
        return None
    with np.errstate(over="ignore", divide="ignore"):
        steps = _times(n.op.expr, float(1 / np.float64(t.scale)))
    literals = [a.value for a in lane.walk(steps) if isinstance(a, lane.Imm)]
    if not np.isfinite(literals).all():
        return None
    expr = rounded(steps, t.grid)
    e = Edit(m, n.origin)
    e.add(Lane(expr), *n.inputs, y=t.node.outputs[0])
    return e.done(t.node)


def _times(e: lane.Expr, r: float) -> lane.Expr:
    """A float32 expression times a positive number, which literals take where there are some."""
    if isinstance(e, lane.Imm):
        return lane.Imm(float(np.float32(float(e.value) * r)), F32)
    if isinstance(e, lane.Call) and e.fn == "hardswish":
        (x,) = e.args
        share = lane.call("add", lane.call("mul", x, _times(_SIXTH, r)), _times(_HALF, r))
        return lane.call("mul", x, lane.clip(share, lane.Imm(0.0, F32), _times(_ONE, r)))
    if isinstance(e, lane.Call) and e.fn in ("relu", "neg", "abs"):
        return lane.call(e.fn, _times(e.args[0], r))
    if isinstance(e, lane.Call) and e.fn in ("add", "sub", "min", "max"):
        return lane.call(e.fn, *(_times(a, r) for a in e.args))
    if isinstance(e, lane.Call) and e.fn == "where":
        return lane.call("where", e.args[0], *(_times(a, r) for a in e.args[1:]))
    if isinstance(e, lane.Call) and e.fn == "mul":
        a, b = e.args
        # a literal, or what is computed of some
        return lane.call("mul", _times(a, r), b) if _plain(b) else lane.call("mul", a, _times(b, r))
    return lane.call("mul", e, lane.Imm(float(np.float32(r)), F32))


def _plain(e: lane.Expr) -> bool:
    """Whether no literal is in an expression."""
    return not any(isinstance(a, lane.Imm) for a in lane.walk(e))


_SIXTH, _HALF, _ONE = (lane.Imm(v, F32) for v in (1 / 6, 0.5, 1.0))
