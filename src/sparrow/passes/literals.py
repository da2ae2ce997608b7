"""Move what is constant in a lane expression out of the loop.

before   y = x * c            c constant, every element 0.125, no wider than x
after    y = x * 0.125

before   y = x + (a * b)      a, b constant
after    y = x + c            c = a * b, no larger than the larger of a and b
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparrow import lane
from sparrow.graph import Node
from sparrow.ops.lane import Lane
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import Array, DType, TensorType


def uniform(value: Array, dtype: DType) -> lane.Imm | None:
    """The literal that all elements of a constant are, bit for bit; None when they differ."""
    flat = np.ascontiguousarray(value).reshape(-1)
    if flat.size == 0:
        return None
    if flat.size > 1:
        rows = flat.view(np.uint8).reshape(flat.size, -1)
        if not (rows == rows[0]).all():
            return None
    return lane.Imm(flat[0].item(), dtype)


def literals(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a Lane with a constant operand of one value; write the value into the expression."""
    if not isinstance(n.op, Lane):
        return None
    found: dict[int, lane.Expr] = {}
    for i, x in enumerate(n.inputs):
        value, t = m.const(x), m.type(x)
        if value is not None and t.quant is None:
            imm = uniform(value, t.dtype)
            if imm is not None:
                found[i] = imm
    return _without(m, n, found) if found else None


def _without(m: Match, n: Node, found: dict[int, lane.Expr]) -> Rewrite | Reject:
    assert isinstance(n.op, Lane)
    args = [found.get(i, lane.Arg(i, m.type(x).dtype)) for i, x in enumerate(n.inputs)]
    e, names = lane.compact(lane.substitute(n.op.expr, args), n.inputs)
    if not names or not spans(m, names, m.type(n.outputs[0]).shape):
        return Reject("the constant gives the result its shape")
    return Rewrite((Node(Lane(e), names, n.outputs, n.origin),), (n,))


def spans(m: Match, names: Sequence[str], shape: tuple[int, ...]) -> bool:
    """Whether operands broadcast to ``shape`` without help."""
    return np.broadcast_shapes(*(m.type(x).shape for x in names)) == shape


def hoist_constants(m: Match, n: Node) -> Rewrite | None:
    """Match a Lane with a call over constants only; compute it now."""
    if not isinstance(n.op, Lane):
        return None
    values = [m.const(x) if m.type(x).quant is None else None for x in n.inputs]
    if all(v is None for v in values) or all(v is not None for v in values):
        return None
    found = _constant_call(n.op.expr, values)
    if found is None:
        return None
    used = {a.index for a in lane.walk(found) if isinstance(a, lane.Arg)}
    value = lane.evaluate(found, [v if v is not None else np.zeros(0) for v in values])
    if value.size > max(m.type(n.inputs[i]).size for i in used):
        return None
    name = m.fresh()
    new = lane.Arg(len(n.inputs), found.dtype)
    e, names = lane.compact(_replaced(n.op.expr, found, new), (*n.inputs, name))
    array = np.ascontiguousarray(value)
    kept = [m.type(x).shape if x != name else array.shape for x in names]
    if np.broadcast_shapes(*kept) != m.type(n.outputs[0]).shape:
        return None
    typed = TensorType(array.shape, found.dtype)
    return Rewrite(
        (Node(Lane(e), names, n.outputs, n.origin),), (n,), {}, {name: array}, {name: typed}
    )


def _constant_call(e: lane.Expr, values: Sequence[Array | None]) -> lane.Call | None:
    """The largest call of ``e`` whose arguments are all known, the leftmost of them."""
    if not isinstance(e, lane.Call) or _widens(e):
        return None
    args = [a for a in lane.walk(e) if isinstance(a, lane.Arg)]
    if args and all(values[a.index] is not None for a in args):
        return e
    return next((c for a in e.args if (c := _constant_call(a, values)) is not None), None)


def _widens(e: lane.Call) -> bool:
    """Whether it only makes integers wider: the constant would grow, and nothing is saved."""
    to = e.dtype
    return (
        e.fn == "cast"
        and isinstance(e.args[0], lane.Arg)
        and to.kind == e.args[0].dtype.kind == "int"
        and to.bits > e.args[0].dtype.bits
    )


def _replaced(e: lane.Expr, old: lane.Expr, new: lane.Expr) -> lane.Expr:
    if e == old:
        return new
    if isinstance(e, lane.Call):
        return lane.Call(e.fn, tuple(_replaced(a, old, new) for a in e.args), e.dtype)
    return e
