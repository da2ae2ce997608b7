"""A pointwise convolution whose channels are parts that lie apart: one matrix for each of them.

    before   y = Reshape(Conv(x))    [1, H, W, p c] -> [1, H, W, p, c]
    after    y = Transpose(Reshape(MatMul(Reshape(x), w)))    [p, H W, c]

Heads of detectors compute p anchors of c values for each pixel and give them in the order
[p, H, W, c]: the transpose then meets the one that the model has behind the head, and the product
writes each value where it belongs. Only where fewer elements are moved for it.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from sparrow import lane
from sparrow.graph import Graph, Node
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.ops.reshape import Reshape
from sparrow.ops.sums import CODES
from sparrow.ops.transpose import Transpose
from sparrow.passes.sinking import SINK, moved_elements
from sparrow.rewrite import Match, Reject, Remark, Rewrite, apply_rules
from sparrow.tensor import I32, Array


def _parted_head(m: Match, n: Node, least: int) -> Rewrite | Reject | None:
    """Match the Reshape of a pointwise convolution of codes that cuts its channels into parts."""
    if not isinstance(n.op, Reshape):
        return None
    conv = m.producer(n.inputs[0], Conv)
    if conv is None or m.only_user(n.inputs[0]) is None:
        return None
    op, x, y = conv.op, m.type(conv.inputs[0]), m.type(n.inputs[0])
    assert isinstance(op, Conv)
    w, shape = m.const(conv.inputs[1]), n.op.shape
    if w is None or x.dtype not in CODES or not op.channels_last or x.shape[0] != 1:
        return None
    if len(shape) != y.rank + 1 or shape[:-2] != y.shape[:-1] or shape[-2] == 1:
        return None
    once = (1,) * len(op.strides)
    plain = w.shape[2:] == op.strides == once and op.group == 1
    if not plain or any(p != (0, 0) for p in op.pads):
        return Reject("the convolution is not pointwise")
    parts, columns = shape[-2:]
    if columns < least:
        return Reject(f"parts of {columns} channels, kernels take {least} and more")
    consts: dict[str, Array] = {}

    def in_parts(v: str) -> str | None:
        value = m.const(v)
        if (
            value is None
            or value.size not in (1, parts * columns)
            or value.shape[-1:] != y.shape[-1:]
        ):
            return v if m.type(v).size == 1 else None
        name = m.fresh()
        consts[name] = np.ascontiguousarray(value.reshape(parts, 1, columns))
        return name

    extras = [in_parts(v) for v in conv.inputs[3:]]
    bias = conv.inputs[2] if len(conv.inputs) > 2 else ""
    expr = op.epilogue
    if bias:
        # a product's own bias has one value for each of its columns, whatever the part
        extras.append(in_parts(bias))
        total = lane.call("add", lane.Arg(0, I32), lane.Arg(len(extras), I32))
        others = [lane.Arg(i + 1, m.type(v).dtype) for i, v in enumerate(conv.inputs[3:])]
        expr = total if expr is None else lane.substitute(expr, [total, *others])
    if any(v is None for v in extras):
        return Reject("an operand of the epilogue is not constant for each channel")
    rows, weights = math.prod(y.shape[1:-1]), m.fresh()
    consts[weights] = np.ascontiguousarray(w.reshape(parts, columns, w.shape[1]))
    flat, product, split = m.fresh(), m.fresh(), m.fresh()
    rank = len(shape)
    back = (0, *range(2, rank - 1), 1, rank - 1)
    inputs = (flat, weights, "", *(v for v in extras if v is not None))
    matmul = MatMul(trans_b=True, epilogue=expr, zero=op.zero, accumulate=op.accumulate)
    nodes = (
        Node(Reshape((1, 1, rows, x.shape[-1])), conv.inputs[:1], (flat,), conv.origin),
        Node(matmul, inputs, (product,), conv.origin),
        Node(Reshape((1, parts, *y.shape[1:-1], columns)), (product,), (split,), n.origin),
        Node(Transpose(back), (split,), n.outputs, n.origin),
    )
    return Rewrite(nodes, (conv, n), {}, consts)


def part_heads(g: Graph, remarks: list[Remark] | None, least: int = 1) -> Graph:
    """Heads as products in parts of ``least`` columns and more, where their transposes then vanish.

    A kernel that writes parts apart is to be there for each.
    """
    notes: list[Remark] = []
    parted = apply_rules(g, (("parted_head", partial(_parted_head, least=least)),), notes)
    if parted is g:
        return g
    sunk = apply_rules(parted, SINK, notes)
    fewer = moved_elements(sunk) < moved_elements(g)
    if remarks is not None and fewer:
        remarks += notes
    return sunk if fewer else g
