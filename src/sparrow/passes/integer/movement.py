"""Movement of codes; each operand is first brought to the scale of the result.

before   y = Quantize(move(Dequantize(x)))
after    y = move(x)
"""

from __future__ import annotations

from dataclasses import replace

from sparrow.graph import Node, Scheme
from sparrow.ops.concat import Concat
from sparrow.ops.pad import Pad
from sparrow.passes.integer.codes import Edit, Target, codes_of, rescaled
from sparrow.rewrite import Match, Reject, Rewrite


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
