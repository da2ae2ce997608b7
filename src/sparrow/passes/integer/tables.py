"""Functions of one value: every code's result, computed in double precision.

before   y = Quantize(f(Dequantize(x)))
after    y = Lookup(x, table of f over all codes)
"""

from __future__ import annotations

import numpy as np

from sparrow import lane
from sparrow.graph import Node
from sparrow.ops.lane import Lane
from sparrow.ops.lookup import Lookup
from sparrow.ops.sums import CODES
from sparrow.passes.integer.codes import Edit, Target, codes_of
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import F32, F64, Array


def table(m: Match, n: Node, t: Target, value: str) -> Rewrite | Reject:
    """A function of one value: every code's result, computed in double precision."""
    op, x = n.op, codes_of(m, value)
    assert isinstance(op, Lane)
    if x is None or x.type.dtype not in CODES:
        return Reject("its input is no 8-bit codes of one scale")
    if any(v is not None and v.size != 1 for v in map(m.const, n.inputs)):
        return Reject("it has an operand that varies")
    if m.type(value).shape != m.type(n.outputs[0]).shape:
        return Reject("it broadcasts")
    low, high = x.type.dtype.limits
    reals = (np.arange(low, high + 1) - x.zero) * x.scale
    args: list[Array] = []
    for name in n.inputs:
        known = m.const(name)
        args.append(reals if known is None else known.astype(np.float64).reshape(()))
    with np.errstate(all="ignore"):
        result = np.broadcast_to(lane.evaluate(_double(op.expr), args), reals.shape)
    if np.isnan(result).any():
        return Reject("it is undefined for some code")
    steps = np.rint(np.clip(result / t.scale, -(2.0**31), 2.0**31)) + t.grid.zero
    table = np.clip(steps, t.grid.low, t.grid.high).astype(t.grid.dtype.numpy)
    e = Edit(m, n.origin)
    e.add(Lookup(), x.name, e.const(table, t.grid.dtype), y=t.node.outputs[0])
    return e.done(t.node)


def _double(e: lane.Expr) -> lane.Expr:
    """A float32 expression in float64."""
    if isinstance(e, lane.Arg):
        return lane.Arg(e.index, F64 if e.dtype == F32 else e.dtype)
    if isinstance(e, lane.Imm):
        return lane.Imm(e.value, F64 if e.dtype == F32 else e.dtype)
    return lane.Call(e.fn, tuple(map(_double, e.args)), F64 if e.dtype == F32 else e.dtype)
