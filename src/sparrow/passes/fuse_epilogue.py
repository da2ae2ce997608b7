"""Fuse elementwise work into the convolution, transposed convolution or matrix product before it.

    before   y = g(Conv(x, w, b), r)
    after    y = Conv(x, w, b, r) with epilogue g              bias, residual add, activation

A residual operand must not depend on the convolution, or the graph would have a cycle (OneFlow's
add-to-output condition); it never does here, because only g reads the sum and r is ready when g
runs.
"""

from __future__ import annotations

from dataclasses import replace

from sparrow import lane
from sparrow.graph import Node
from sparrow.ops.conv_transpose import ConvTranspose
from sparrow.ops.epilogue import rows_and_columns
from sparrow.ops.lane import Lane
from sparrow.ops.matmul import MatMul
from sparrow.ops.sums import over_codes
from sparrow.passes.affine import SUMS, channel_axis
from sparrow.passes.fuse_lanes import MAX_TREE, tree_size
from sparrow.rewrite import Match, Reject, Rewrite, per_channel
from sparrow.tensor import F32, I8, I16, I32, U8, row_major
from sparrow.vectors import vectorizable

MAX_EXTRAS = 6


def bias_add(m: Match, n: Node) -> Rewrite | Reject | None:
    """Turn ``MatMul(a, b) + c`` with one value per column into the product's bias."""
    if not isinstance(n.op, Lane) or n.op.expr not in _ADDS:
        return None
    for i, x in enumerate(n.inputs):
        p = m.producer(x, SUMS)
        other = n.inputs[1 - i]
        if p is None:
            continue
        assert isinstance(p.op, SUMS)
        y, value = m.type(x), m.const(other)
        if (
            value is None
            or m.type(other).quant is not None
            or m.type(n.outputs[0]).shape != y.shape
        ):
            continue
        flat = per_channel(value, y.shape, channel_axis(p.op, y.rank))
        if flat is None:
            continue
        if len(p.inputs) != 2 or p.op.epilogue is not None:
            return Reject(f"{p.origin}: it has a bias or an epilogue already")
        if m.only_user(x) is None:
            return Reject(f"{p.origin}: its result is used elsewhere")
        name = m.fresh()
        new = Node(p.op, (*p.inputs, name), n.outputs, p.origin)
        return Rewrite((new,), (p, n), consts={name: flat})
    return None


_ADDS = (
    lane.call("add", lane.Arg(0, F32), lane.Arg(1, F32)),
    lane.call("add", lane.Arg(1, F32), lane.Arg(0, F32)),
)


def fuse_epilogue(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a Lane whose operand is a Conv or MatMul used nowhere else."""
    if not isinstance(n.op, Lane):
        return None
    why: Reject | None = None
    for x in reversed(dict.fromkeys(n.inputs)):
        p = m.producer(x, SUMS)
        if p is not None:
            r = _fuse(m, n, x, p)
            if isinstance(r, Rewrite):
                return r
            why = r
    return why


def _fuse(m: Match, n: Node, x: str, p: Node) -> Rewrite | Reject:
    op = p.op
    assert isinstance(op, SUMS) and isinstance(n.op, Lane)
    y, z = m.type(x), m.type(n.outputs[0])
    if any(u is not n for u in m.users(x)) or m.is_output(x):
        return Reject(f"{p.origin}: its result is used elsewhere")
    codes = over_codes(*(m.type(v).dtype for v in p.inputs[:2]))
    start = I32 if codes else F32
    if z.shape != y.shape or z.dtype not in ((I8, U8, I16, I32, F32) if codes else (F32,)):
        return Reject(f"{z} is not {'a result' if codes else 'the float32 shape'} of the sum {y}")
    if not codes and any(m.type(v).dtype != F32 or m.type(v).quant is not None for v in n.inputs):
        return Reject("an operand is not float32")
    if not vectorizable(n.op.expr):
        return Reject("the expression has no float32 vector form")
    if isinstance(op, ConvTranspose) and m.const(p.inputs[1]) is None:
        return Reject("its kernel for weights known at run time has no epilogue")
    rows = isinstance(op, MatMul) or op.channels_last
    head = [*p.inputs, *[""] * (3 - len(p.inputs))][:3]
    extras = list(p.inputs[3:])
    args: list[lane.Expr] = []
    total = op.epilogue if op.epilogue is not None else lane.Arg(0, start)
    for v in n.inputs:
        if v == x:
            args.append(total)
            continue
        if v not in extras:
            extras.append(v)
        args.append(lane.Arg(1 + extras.index(v), m.type(v).dtype))
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
    if tree_size(e) > MAX_TREE:
        return Reject("the epilogue would be too long")
    new = Node(replace(op, epilogue=e), (*head, *extras), n.outputs, p.origin)
    while not new.inputs[-1]:
        new = replace(new, inputs=new.inputs[:-1])
    return Rewrite((new,), (p, n))
