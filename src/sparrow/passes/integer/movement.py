"""Movement of codes; each operand is first brought to the scale of the result, constants as well.

before   y = Quantize(move(Dequantize(x)))
after    y = move(x)

Rows of a table of codes are real numbers once they are picked.

before   y = Gather(Dequantize(table), index)
after    y = Gather(table, index) * Gather(scale, index)
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sparrow import lane
from sparrow.graph import Node, Scheme
from sparrow.ops.concat import Concat
from sparrow.ops.conv import Conv
from sparrow.ops.gather import Gather
from sparrow.ops.lane import Lane
from sparrow.ops.matmul import MatMul
from sparrow.ops.pad import Pad
from sparrow.ops.quantize import Dequantize
from sparrow.ops.reshape import Reshape
from sparrow.passes.integer.codes import Edit, Target, codes_of, constant_codes, rescaled
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import F32, I32, Affine, Array


def move(m: Match, n: Node, t: Target, scheme: Scheme) -> Rewrite | Reject:
    """Movement of codes; each operand is first brought to the scale of the result."""
    op = n.op
    moved = len(n.inputs) if isinstance(op, Concat) else 1
    e = Edit(m, n.origin)
    inputs = list(n.inputs)
    for i in range(moved):
        x = codes_of(m, inputs[i])
        fixed = m.const(inputs[i]) if x is None else None
        if fixed is not None and fixed.dtype == np.float32:
            inputs[i] = e.const(constant_codes(fixed, t), t.grid.dtype)
            continue
        if x is None:
            return Reject("an operand is no codes of one scale")
        name = rescaled(e, x, t, scheme)
        if isinstance(name, Reject):
            return name
        inputs[i] = name
    if isinstance(op, Pad) and op.mode == "constant":
        fill = round(float(op.value) / t.scale) + t.grid.zero
        op = replace(op, value=min(max(fill, t.grid.low), t.grid.high))
    node = Node(op, tuple(inputs), t.node.outputs, n.origin)
    return Rewrite((*e.nodes, node), (t.node,), consts=e.consts, types=e.types)


def reshaped_codes(m: Match, n: Node) -> Rewrite | None:
    """Match a Reshape of dequantized codes; the codes are reshaped, so that sums see them.

    Others may read the floats too, as the residual sum beside a transformer's product does.
    """
    d = m.producer(n.inputs[0], Dequantize) if isinstance(n.op, Reshape) else None
    if d is None or m.const(d.inputs[0]) is not None:
        return None
    alone = m.only_user(d.outputs[0]) is not None
    if not alone and not any(isinstance(u.op, Conv | MatMul) for u in m.users(n.outputs[0])):
        return None
    assert isinstance(d.op, Dequantize) and isinstance(n.op, Reshape)
    if not d.op.quant.per_tensor:
        return None
    old, rank = d.op.quant, len(n.op.shape)
    ones = (1,) * rank
    moved = m.fresh()
    first = Node(n.op, d.inputs, (moved,), n.origin)
    quant = Affine(old.scale.reshape(ones), old.zero_point.reshape(ones), (-1,) * rank)
    last = Node(replace(d.op, quant=quant), (moved,), n.outputs, n.origin)
    return Rewrite((first, last), (d, n) if alone else (n,))


def looked_up(m: Match, n: Node) -> Rewrite | None:
    """Match a Gather from dequantized constant codes, of one scale or one per row."""
    d = m.producer(n.inputs[0], Dequantize) if isinstance(n.op, Gather) else None
    codes = m.const(d.inputs[0]) if d is not None else None
    if d is None or codes is None:
        return None
    assert isinstance(n.op, Gather) and isinstance(d.op, Dequantize)
    axis, index, quant, t = n.op.axis, n.inputs[1], d.op.quant, m.type(d.inputs[0])
    if m.const(index) is not None or any(b > 1 for b in quant.block) or d.op.dtype != F32:
        return None
    e = Edit(m, n.origin)
    rows = e.add(Gather(axis), d.inputs[0], index)
    if quant.per_tensor:
        ones = (1,) * m.type(n.outputs[0]).rank
        one = Affine(quant.scale.reshape(ones), quant.zero_point.reshape(ones), (-1,) * len(ones))
        e.add(replace(d.op, quant=one), rows, y=n.outputs[0])
        return e.done(n)

    def picked(values: Array) -> str:
        if values.shape[axis] > 1:
            return e.add(Gather(axis), e.const(values), index)
        ones = (1,) * m.type(index).rank
        return e.const(values.reshape(*values.shape[:axis], *ones, *values.shape[axis + 1 :]))

    inputs = [rows, picked(quant.scale)]
    code = lane.cast(lane.Arg(0, t.dtype), I32)
    if quant.zero_point.any():
        inputs.append(picked(quant.zero_point))
        code = lane.call("sub", code, lane.Arg(2, I32))
    e.add(Lane(lane.call("mul", lane.cast(code, F32), lane.Arg(1, F32))), *inputs, y=n.outputs[0])
    return e.done(n)
