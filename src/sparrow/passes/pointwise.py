"""Convolutions of single pixels with few channels, channels first around them, are products.

    before   y = Transpose(Conv(Transpose(x), w, b)), kernel 1, few channels      x [1, C, ..]
    after    y = Reshape(w @ Reshape(x) + b)                                       x [1, C, pixels]

A convolution reads and writes pixels whose channels lie side by side. Of few channels there is less
to multiply than to move: the product takes the rows as they lie, pixels in vectors.
"""

from __future__ import annotations

from math import prod

import numpy as np

from sparrow import lane
from sparrow.graph import Node
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.ops.reshape import Reshape
from sparrow.ops.transpose import Transpose
from sparrow.rewrite import Match, Reject, Rewrite, per_channel
from sparrow.tensor import F32, Array

# Weights up to which a product of rows as they lie was faster on a Zen 5 (128 x 128 was as fast),
# and pixels from which on it fills vectors.
FEW_WEIGHTS = 64 * 64
MANY_PIXELS = 128


def pointwise(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match the transposition to channels first behind such a convolution."""
    if not isinstance(n.op, Transpose):
        return None
    conv = m.producer(n.inputs[0], Conv)
    if conv is None:
        return None
    rank = m.type(n.outputs[0]).rank
    before = m.producer(conv.inputs[0], Transpose)
    assert isinstance(conv.op, Conv)
    if before is None or not conv.op.channels_last:
        return None
    assert isinstance(before.op, Transpose)
    to_first, to_last = (0, rank - 1, *range(1, rank - 1)), (0, *range(2, rank), 1)
    if before.op.perm != to_last or n.op.perm != to_first:
        return None
    operands = _operands(m, conv)
    if isinstance(operands, Reject):
        return operands
    w, bias, extras = operands
    x, full = before.inputs[0], m.type(n.outputs[0]).shape
    if m.only_user(n.inputs[0]) is None or m.only_user(conv.inputs[0]) is None:
        return Reject(f"{conv.origin}: what is transposed is read as it is, too")
    pixels = prod(full[2:])
    if full[0] != 1 or w.size > FEW_WEIGHTS or pixels < MANY_PIXELS:
        return Reject(f"{conv.origin}: many images, channels or few pixels")
    consts = {m.fresh(): w}
    inputs = [next(iter(consts)), x, ""]
    expr = lane.Arg(0, F32) if conv.op.epilogue is None else conv.op.epilogue
    for value in extras:
        consts[name := m.fresh()] = value
        inputs.append(name)
    if bias is not None:
        total = lane.call("add", lane.Arg(0, F32), lane.Arg(len(inputs) - 2, F32))
        others = [lane.Arg(1 + k, F32) for k in range(len(extras))]
        expr = lane.substitute(expr, [total, *others])
        consts[name := m.fresh()] = bias
        inputs.append(name)
    rows, product = m.fresh(), m.fresh()
    inputs[1] = rows
    op = MatMul(epilogue=None if expr == lane.Arg(0, F32) else expr)
    while not inputs[-1]:
        inputs.pop()
    nodes = (
        Node(Reshape((1, w.shape[1], pixels)), (x,), (rows,), conv.origin),
        Node(op, tuple(inputs), (product,), conv.origin),
        Node(Reshape(full), (product,), n.outputs, n.origin),
    )
    return Rewrite(nodes, (n, conv, before), consts=consts)


def _operands(m: Match, conv: Node) -> tuple[Array, Array | None, list[Array]] | Reject:
    """Weights [M, C], bias [M, 1] and what else the epilogue reads, a value or one per row."""
    op, y = conv.op, m.type(conv.outputs[0])
    assert isinstance(op, Conv)
    w = m.const(conv.inputs[1])
    if w is None or m.type(conv.inputs[0]).dtype != F32 or y.dtype != F32 or op.group != 1:
        return Reject(f"{conv.origin}: not one group of float32 with constant weights")
    if prod(w.shape[2:]) != 1 or prod(op.strides) != 1 or np.any(op.pads):
        return Reject(f"{conv.origin}: a window of several pixels, or a stride")
    values: list[Array] = []
    for name in conv.inputs[2:]:
        if not name:
            continue
        value = m.const(name)
        flat = None if value is None else per_channel(value, y.shape, y.rank - 1)
        if flat is None or m.type(name).dtype != F32:
            return Reject(f"{conv.origin}: its epilogue reads what varies from pixel to pixel")
        values.append(np.ascontiguousarray(flat).reshape(-1, 1))
    with_bias = len(conv.inputs) > 2 and bool(conv.inputs[2])
    bias, extras = (values[0], values[1:]) if with_bias else (None, values)
    return np.ascontiguousarray(w.reshape(w.shape[:2])), bias, extras
