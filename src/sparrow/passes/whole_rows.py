"""Indices repeated for every element of a row pick or meet whole rows.

before   y = GatherElements(x, Expand(i), axis)      i [B.., n, 1..], as PyTorch's gather wants it
after    y = GatherND(x, Reshape(i))                 runs of x behind the axis

before   y = ScatterElements(x, Expand(i), u, 0)     i [n, 1..], as graph networks add up messages
after    y = ScatterND(x, Reshape(i), u)             updates meet in the same order

Of a fixed graph the indices are constant, and the rows once.
"""

from __future__ import annotations

from math import prod

from sparrow.graph import Node
from sparrow.ops.gather_elements import GatherElements
from sparrow.ops.gather_nd import GatherND
from sparrow.ops.pad import Expand
from sparrow.ops.reshape import Reshape
from sparrow.ops.scatter import ScatterElements, ScatterND
from sparrow.rewrite import Match, Reject, Rewrite


def whole_rows(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a gather or scatter along an axis whose indices do not vary behind it."""
    if not isinstance(n.op, GatherElements | ScatterElements):
        return None
    axis, x, full = n.op.axis, m.type(n.inputs[0]).shape, m.type(n.inputs[1]).shape
    spread, value = m.producer(n.inputs[1], Expand), m.const(n.inputs[1])
    if spread is not None:
        given = m.type(spread.inputs[0]).shape
        given = (*(1,) * (len(full) - len(given)), *given)
        once = given[: axis + 1] == full[: axis + 1] and all(d == 1 for d in given[axis + 1 :])
    elif value is not None and (behind := prod(full[axis + 1 :])) > 1:
        rows_of = value.reshape(*full[: axis + 1], behind)
        first = rows_of[..., :1]
        once = bool((rows_of == first).all())
    else:
        return None
    if not once:
        return Reject("indices vary behind the axis, or repeat along or before it")
    if x[:axis] != full[:axis] or x[axis + 1 :] != full[axis + 1 :]:
        return Reject("rows are not whole")
    if isinstance(n.op, ScatterElements) and axis:
        return Reject("rows of several tensors")
    rows = m.fresh()
    inputs = (n.inputs[0], rows, *n.inputs[2:])
    op = GatherND(axis) if isinstance(n.op, GatherElements) else ScatterND(n.op.reduction)
    whole = Node(op, inputs, n.outputs, n.origin)
    if spread is None:
        return Rewrite((whole,), (n,), consts={rows: first})
    flat = Node(Reshape((*full[: axis + 1], 1)), (spread.inputs[0],), (rows,), n.origin)
    return Rewrite((flat, whole), (n,))
