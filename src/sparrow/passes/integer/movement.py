"""Movement of codes; each operand is first brought to the scale of the result.

before   y = Quantize(move(Dequantize(x)))
after    y = move(x)
"""

from __future__ import annotations

from dataclasses import replace

from sparrow.graph import Node, Scheme
from sparrow.ops.concat import Concat
from sparrow.ops.pad import Pad
from sparrow.ops.quantize import Dequantize
from sparrow.ops.reshape import Reshape
from sparrow.passes.integer.codes import Edit, Target, codes_of, rescaled
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import Affine


def move(m: Match, n: Node, t: Target, scheme: Scheme) -> Rewrite | Reject:
    """Movement of codes; each operand is first brought to the scale of the result."""
    op = n.op
    moved = len(n.inputs) if isinstance(op, Concat) else 1
    e = Edit(m, n.origin)
    inputs = list(n.inputs)
    for i in range(moved):
        x = codes_of(m, inputs[i])
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
    """Match a Reshape of dequantized codes; the codes are reshaped, so that sums see them."""
    d = m.producer(n.inputs[0], Dequantize) if isinstance(n.op, Reshape) else None
    if d is None or m.only_user(d.outputs[0]) is None or m.const(d.inputs[0]) is not None:
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
    return Rewrite((first, last), (d, n))
