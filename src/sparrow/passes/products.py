"""Give matrix products the operands they can read, and cut the ones that are cut up anyway.

before   y = MatMul(a, Transpose(b))             the last two axes swapped
after    y = MatMul(a, b) with trans_b           the kernel walks strides

before   y = MatMul(x, w);  q, k, v = Reshape(Split(y))     columns, each used once
after    q = Reshape(MatMul(x, w[:, :n])); ..    a reshape of some columns would copy them

before   p = Transpose(x)[2:5]
after    p = Transpose(x[.., 2:5])               every reader of the transpose takes a part

before   p = Reshape(x, [1, T, 3, C])[:, :, 1]
after    p = Reshape(x[:, C : 2 C], [1, T, 1, C])    the slice moves to where it is one run
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from sparrow.graph import Node
from sparrow.ops.matmul import MatMul
from sparrow.ops.reshape import Reshape
from sparrow.ops.slice import Slice
from sparrow.ops.transpose import Transpose
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import I16, Array, TensorType


def absorb_transpose(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a MatMul with an operand whose last two axes are swapped."""
    if not isinstance(n.op, MatMul):
        return None
    why: Reject | None = None
    for i in (0, 1):
        p = m.producer(n.inputs[i], Transpose)
        if p is None:
            continue
        assert isinstance(p.op, Transpose)
        rank = len(p.op.perm)
        if p.op.perm != (*range(rank - 2), rank - 1, rank - 2):
            why = Reject("the transpose does not only swap rows and columns")
            continue
        if i == 0 and m.type(n.inputs[0]).dtype == I16:
            why = Reject("products of 16-bit codes read rows of them")
            continue
        op = replace(n.op, trans_a=n.op.trans_a != (i == 0), trans_b=n.op.trans_b != (i == 1))
        inputs = (*n.inputs[:i], p.inputs[0], *n.inputs[i + 1 :])
        return Rewrite((Node(op, inputs, n.outputs, n.origin),), (n,))
    return why


def _cut_of(op: Slice, shape: tuple[int, ...]) -> tuple[int, int] | None:
    """(start, size) of a slice that only takes a run of the last axis."""
    rest = zip(op.starts[:-1], op.sizes[:-1], op.steps[:-1], shape[:-1], strict=True)
    if any((a, n, s) != (0, d, 1) for a, n, s, d in rest) or op.steps[-1] != 1:
        return None
    return op.starts[-1], op.sizes[-1]


def split_product(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a Slice of columns, read by a Reshape, of a MatMul that only such slices read."""
    if not isinstance(n.op, Slice):
        return None
    p = m.producer(n.inputs[0], MatMul)
    if p is None or not any(isinstance(u.op, Reshape) for u in m.users(n.outputs[0])):
        return None
    assert isinstance(p.op, MatMul)
    t = m.type(p.outputs[0])
    cut = _cut_of(n.op, t.shape)
    if cut is None:
        return Reject("the slice takes more than a run of columns")
    if m.is_output(p.outputs[0]) or p.op.epilogue is not None:
        return Reject("the product is used elsewhere, or has an epilogue")
    taken = np.zeros(t.shape[-1], np.int64)
    for u in m.users(p.outputs[0]):
        other = _cut_of(u.op, t.shape) if isinstance(u.op, Slice) else None
        if other is None:
            return Reject("the product is used elsewhere")
        taken[other[0] : sum(other)] += 1
    if taken.max() > 1:
        return Reject("slices overlap: columns would be computed twice")
    consts: dict[str, Array] = {}
    types: dict[str, TensorType] = {}
    inputs = [p.inputs[0]]
    for i, x in enumerate(p.inputs[1:], 1):
        value, tx = m.const(x), m.type(x)
        if value is None or tx.quant is not None:
            return Reject("the weights are not constant")
        columns = slice(cut[0], sum(cut))
        by_rows = i == 1 and p.op.trans_b
        part = np.ascontiguousarray(value[..., columns, :] if by_rows else value[..., columns])
        name = m.fresh()
        consts[name], types[name] = part, TensorType(part.shape, tx.dtype)
        inputs.append(name)
    new = Node(p.op, tuple(inputs), n.outputs, p.origin)
    return Rewrite((new,), (n,), {}, consts, types)


def slice_before_transpose(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a Slice of a Transpose that only slices read."""
    if not isinstance(n.op, Slice):
        return None
    p = m.producer(n.inputs[0], Transpose)
    if p is None:
        return None
    assert isinstance(p.op, Transpose)
    t = m.type(n.inputs[0])
    users = m.users(n.inputs[0])
    if m.is_output(n.inputs[0]) or not all(isinstance(u.op, Slice) for u in users):
        return Reject("the whole transpose is used elsewhere")
    if sum(m.type(u.outputs[0]).size for u in users) > t.size:
        return Reject("slices overlap: more elements would be transposed")
    undone = tuple(int(i) for i in np.argsort(p.op.perm))
    op = n.op.permuted(undone, (t,))
    assert op is not None
    part = m.fresh()
    turned = Node(Transpose(p.op.perm, p.op.axes), (part,), n.outputs, n.origin)
    return Rewrite((Node(op, p.inputs, (part,), n.origin), turned), (n,))


def slice_before_reshape(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a Slice along one axis of a Reshape that splits the last axis of a MatMul's result."""
    if not isinstance(n.op, Slice):
        return None
    r = m.producer(n.inputs[0], Reshape)
    if r is None or m.producer(r.inputs[0], MatMul) is None:
        return None
    x, y = m.type(r.inputs[0]).shape, m.type(r.outputs[0]).shape
    lead = len(x) - 1
    if y[:lead] != x[:lead] or len(y) <= len(x):
        return Reject("the reshape does not split the last axis")
    cut = [
        i
        for i, (a, k, s, d) in enumerate(zip(n.op.starts, n.op.sizes, n.op.steps, y, strict=True))
        if (a, k, s) != (0, d, 1)
    ]
    if len(cut) != 1 or cut[0] < lead or n.op.steps[cut[0]] != 1:
        return Reject("the slice takes more than a run of one axis of the last group")
    axis = cut[0]
    if prod(y[lead:axis]) != 1:
        return Reject("the slice takes many runs")
    inner = prod(y[axis + 1 :])
    starts, sizes = [0] * len(x), list(x)
    starts[-1], sizes[-1] = n.op.starts[axis] * inner, n.op.sizes[axis] * inner
    part = m.fresh()
    cut_node = Node(Slice(tuple(starts), tuple(sizes), (1,) * len(x)), r.inputs, (part,), n.origin)
    return Rewrite((cut_node, Node(Reshape(n.op.sizes), (part,), n.outputs, n.origin)), (n,))
