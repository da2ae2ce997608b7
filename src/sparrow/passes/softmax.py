"""Recognise a softmax spelled out.

    before   e = exp(x - max(x));  y = e / sum(e)         max and sum over one axis
    after    y = Softmax(x)

    before   d = x - max(x);  y = d - log(sum(exp(d)))
    after    y = LogSoftmax(x)

    before   y = Reshape(Softmax(Reshape(x)))             rows flattened, as before opset 13
    after    y = Softmax(x)

Without the subtracted maximum it stays: exp overflows where Softmax does not.
"""

from __future__ import annotations

from sparrow import lane
from sparrow.graph import Node
from sparrow.ops.lane import Lane
from sparrow.ops.reduce import Reduce
from sparrow.ops.reshape import Reshape
from sparrow.ops.softmax import Softmax
from sparrow.passes.polynomial import factors
from sparrow.passes.unfold import Unfolded
from sparrow.rewrite import Match, Reject, Rewrite


def _over(m: Match, value: str | None, kind: str) -> tuple[str, int] | None:
    """(x, axis) of a reduction over one axis."""
    p = m.producer(value, Reduce) if value is not None else None
    if p is None:
        return None
    assert isinstance(p.op, Reduce)
    return (p.inputs[0], p.op.axes[0]) if p.op.kind == kind and len(p.op.axes) == 1 else None


def _shifted(m: Match, u: Unfolded, e: lane.Expr, axis: int) -> str | None:
    """X of an expression x - max(x)."""
    value = u.name(e)
    if value is not None and m.producer(value, Lane) is not None:
        e = u.of(value)
    if isinstance(e, lane.Call) and e.fn == "sub":
        x, top = (u.name(a) for a in e.args)
        return x if x is not None and _over(m, top, "max") == (x, axis) else None
    return None


def spelled_softmax(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match the Lane that divides by the sum."""
    if not isinstance(n.op, Lane) or n.op.expr.dtype.kind != "float":
        return None
    u = Unfolded(m)
    k, bases = factors(u.of(n.outputs[0]))
    top = [u.name(b) for b, p in bases.items() if p == 1.0]
    low = [u.name(b) for b, p in bases.items() if p == -1.0]
    if k != 1.0 or len(bases) != 2 or len(top) != 1 or len(low) != 1 or top[0] is None:
        return None
    total = _over(m, low[0], "sum")
    if total is None or total[0] != top[0]:
        return None
    e = u.of(top[0])
    if not (isinstance(e, lane.Call) and e.fn == "exp"):
        return None
    x = _shifted(m, u, e.args[0], total[1])
    if x is None:
        return Reject("nothing, or not the maximum, is subtracted before exp: it may overflow")
    return Rewrite((Node(Softmax(total[1]), (x,), n.outputs, n.origin),), (n,))


def flat_softmax(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a Reshape back to the shape that the operand of a Softmax had."""
    if not isinstance(n.op, Reshape):
        return None
    soft = m.producer(n.inputs[0], Softmax)
    flat = m.producer(soft.inputs[0], Reshape) if soft is not None else None
    if soft is None or flat is None:
        return None
    assert isinstance(soft.op, Softmax)
    (x,) = flat.inputs
    shape, inner = m.type(x).shape, m.type(soft.outputs[0]).shape
    if shape != n.op.shape or not shape or soft.op.axis != len(inner) - 1:
        return Reject("the softmax is not along the last axis of one tensor")
    if shape[-1] != inner[-1]:
        return Reject("the softmax runs over several axes")
    op = Softmax(len(shape) - 1, soft.op.log)
    return Rewrite((Node(op, (x,), n.outputs, n.origin),), (n,))


def spelled_log_softmax(m: Match, n: Node) -> Rewrite | None:
    """Match the Lane that subtracts the logarithm of the sum."""
    if not isinstance(n.op, Lane) or n.op.expr.dtype.kind != "float":
        return None
    u = Unfolded(m)
    e = u.of(n.outputs[0])
    if not (isinstance(e, lane.Call) and e.fn == "sub" and isinstance(e.args[1], lane.Call)):
        return None
    log = e.args[1]
    total = _over(m, u.name(log.args[0]), "sum") if log.fn == "log" else None
    if total is None:
        return None
    grown = u.of(total[0])
    if not (isinstance(grown, lane.Call) and grown.fn == "exp" and grown.args[0] == e.args[0]):
        return None
    x = _shifted(m, u, e.args[0], total[1])
    if x is None:
        return None
    return Rewrite((Node(Softmax(total[1], log=True), (x,), n.outputs, n.origin),), (n,))
