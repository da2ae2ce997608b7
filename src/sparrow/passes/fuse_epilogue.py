"""Fuse elementwise work into the convolution or matrix product before it (bias, residual add, activation).

    before   y = g(Conv(x, w, b), r)
    after    y = Conv(x, w, b, r) with epilogue g

A residual operand must not depend on the convolution, or the graph would have a cycle (OneFlow's
add-to-output condition); it never does here, because only g reads the sum and r is ready when g runs.
"""

from __future__ import annotations

from dataclasses import replace

from sparrow import lane
from sparrow.graph import Node
from sparrow.ops.conv import Conv
from sparrow.ops.epilogue import rows_and_columns
from sparrow.ops.lane import Lane
from sparrow.ops.matmul import MatMul
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import F32, row_major

MAX_EXTRAS = 6


def bias_add(m: Match, n: Node) -> Rewrite | Reject | None:
    """Turn ``MatMul(a, b) + c`` with one value per column into the product's bias."""
    if not isinstance(n.op, Lane) or n.op.expr not in _SUMS:
        return None
    for i, x in enumerate(n.inputs):
        p = m.producer(x, (Conv, MatMul))
        other = n.inputs[1 - i]
        if p is None or len(p.inputs) != 2 or p.op.epilogue is not None:  # type: ignore[attr-defined]
            continue
        y, t = m.type(x), m.type(other)
        last = isinstance(p.op, MatMul) or (isinstance(p.op, Conv) and p.op.channels_last)
        axis = y.rank - 1 if last else 1
        shaped = (1,) * (t.rank - (y.rank - axis)) + (y.shape[axis],) + (1,) * (y.rank - axis - 1)
        if t.shape != shaped or m.const(other) is None or m.type(n.outputs[0]) != y:
            continue
        if m.only_user(x) is None:
            return Reject(f"{p.origin}: its result is used elsewhere")
        value = m.const(other)
        assert value is not None
        name = m.fresh()
        new = Node(p.op, (*p.inputs, name), n.outputs, p.origin)
        return Rewrite((new,), (p, n), consts={name: value.reshape(-1)})
    return None


_SUMS = (
    lane.call("add", lane.Arg(0, F32), lane.Arg(1, F32)),
    lane.call("add", lane.Arg(1, F32), lane.Arg(0, F32)),
)


def fuse_epilogue(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a Lane whose operand is a Conv or MatMul used nowhere else."""
    if not isinstance(n.op, Lane):
        return None
    why: Reject | None = None
    for x in reversed(dict.fromkeys(n.inputs)):
        p = m.producer(x, (Conv, MatMul))
        if p is not None:
            r = _fuse(m, n, x, p)
            if isinstance(r, Rewrite):
                return r
            why = r
    return why


def _fuse(m: Match, n: Node, x: str, p: Node) -> Rewrite | Reject:
    op = p.op
    assert isinstance(op, (Conv, MatMul)) and isinstance(n.op, Lane)
    y, z = m.type(x), m.type(n.outputs[0])
    if any(u is not n for u in m.users(x)) or m.is_output(x):
        return Reject(f"{p.origin}: its result is used elsewhere")
    if z.shape != y.shape or z.dtype != F32 or y.dtype != F32:
        return Reject(f"{z} is not the float32 shape of the sum {y}")
    if any(t.dtype != F32 for e in lane.walk(n.op.expr) if isinstance(t := e, lane.Arg)):
        return Reject("an operand is not float32")
    rows = isinstance(op, MatMul) or op.channels_last
    head = [*p.inputs, *[""] * (3 - len(p.inputs))][:3]
    extras = list(p.inputs[3:])
    args: list[lane.Expr] = []
    total = op.epilogue if op.epilogue is not None else lane.Arg(0, F32)
    for v in n.inputs:
        if v == x:
            args.append(total)
            continue
        if v not in extras:
            extras.append(v)
        args.append(lane.Arg(1 + extras.index(v), F32))
    for v in extras:
        t = m.type(v)
        dense = row_major(t.shape)
        if rows and rows_and_columns(z.shape, t.shape, dense) is None:
            return Reject(f"operand {v} moves unevenly with the rows of the sum")
        if not rows and t.size > 1:
            return Reject("the sum has its channels first")
    if len(extras) > MAX_EXTRAS:
        return Reject("too many epilogue operands")
    e = lane.substitute(n.op.expr, args)
    new = Node(replace(op, epilogue=e), (*head, *extras), n.outputs, p.origin)
    while not new.inputs[-1]:
        new = replace(new, inputs=new.inputs[:-1])
    return Rewrite((new,), (p, n))

