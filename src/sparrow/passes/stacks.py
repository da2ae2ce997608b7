"""Reductions of stacked tensors become elementwise chains.

    before   y = Reduce(Concat(a, b, c), axis)      each of extent 1 along the axis
    after    y = max(max(a, b), c)                  or a sum, a product, a mean of them

So export ``torch.stack([a, b, c]).max(0)`` and Keras' Maximum of branches. The stack is never
written, and the chain joins what computes its operands. Integers of few bits and half types keep
their reduction, which adds up in more bits; codes keep theirs, which moves them as they are.
"""

from __future__ import annotations

from dataclasses import replace

from sparrow import lane
from sparrow.graph import Node
from sparrow.ops.concat import Concat
from sparrow.ops.lane import Lane
from sparrow.ops.reduce import Reduce
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import F32, F64, I32, I64

# Operands of one chain; a loop over a stack of more needs no longer code.
MOST = 8
_STEPS = {"max": "max", "min": "min", "sum": "add", "prod": "mul", "mean": "add"}


def reduced_stack(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a reduction over the axis along which single slices are joined."""
    if not isinstance(n.op, Reduce):
        return None
    stack = n.inputs[0]
    p = m.producer(stack, Concat)
    if p is None or m.only_user(stack) is not n:
        return None
    assert isinstance(p.op, Concat)
    axis, t = p.op.axis, m.type(stack)
    if axis not in n.op.axes or any(m.type(x).shape[axis] != 1 for x in p.inputs):
        return None
    if t.quant is not None or t.dtype not in (F32, F64, I32, I64) or t.size == 0:
        return None
    kind, rest = n.op.kind, tuple(a for a in n.op.axes if a != axis)
    if kind == "mean" and (rest or t.dtype not in (F32, F64)):
        return Reject("a mean over further axes, or of integers")
    if len(p.inputs) > MOST:
        return Reject(f"a stack of more than {MOST}")
    expr: lane.Expr = lane.Arg(0, t.dtype)
    for i in range(1, len(p.inputs)):
        expr = lane.call(_STEPS[kind], expr, lane.Arg(i, t.dtype))
    if kind == "mean":
        expr = lane.call("div", expr, lane.imm_like(len(p.inputs), expr))
    if not rest:
        return Rewrite((Node(Lane(expr), p.inputs, n.outputs, n.origin),), (n, p))
    joined = m.fresh()
    return Rewrite(
        (
            Node(Lane(expr), p.inputs, (joined,), n.origin),
            Node(replace(n.op, axes=rest), (joined,), n.outputs, n.origin),
        ),
        (n, p),
    )
