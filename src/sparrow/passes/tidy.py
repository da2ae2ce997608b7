"""Remove data movement that moves nothing: identities, inverse and repeated transposes and reshapes.

    Transpose(Transpose(x, p), q)   ->  Transpose(x, p o q)
    Transpose(x, p)                 ->  Reshape(x)     when p only moves axes of extent 1
    Reshape(Reshape(x))             ->  Reshape(x)
    Reshape(x), Slice(x), Lane(x)   ->  x              when nothing changes
"""

from __future__ import annotations

from sparrow import lane
from sparrow.graph import Node
from sparrow.ops.concat import Concat
from sparrow.ops.lane import Lane
from sparrow.ops.reshape import Reshape
from sparrow.ops.slice import Slice
from sparrow.ops.transpose import Transpose
from sparrow.rewrite import Match, Rewrite


def tidy_transpose(m: Match, n: Node) -> Rewrite | None:
    """Compose, drop or turn into a reshape."""
    if not isinstance(n.op, Transpose):
        return None
    (x,) = n.inputs
    p = m.producer(x, Transpose)
    if p is not None:
        assert isinstance(p.op, Transpose)
        perm = tuple(p.op.perm[i] for i in n.op.perm)
        return Rewrite((Node(Transpose(perm, n.op.axes), p.inputs, n.outputs, n.origin),), (n,))
    if n.op.perm == tuple(range(len(n.op.perm))):
        return Rewrite((), (n,), {n.outputs[0]: x})
    shape = m.type(x).shape
    if [i for i in n.op.perm if shape[i] != 1] == [i for i, d in enumerate(shape) if d != 1]:
        new = Node(Reshape(m.type(n.outputs[0]).shape), n.inputs, n.outputs, n.origin)
        return Rewrite((new,), (n,))
    return None


def tidy_reshape(m: Match, n: Node) -> Rewrite | None:
    """Merge with a reshape before it; drop when the shape stays."""
    if not isinstance(n.op, Reshape):
        return None
    (x,) = n.inputs
    if m.type(x).shape == n.op.shape:
        return Rewrite((), (n,), {n.outputs[0]: x})
    p = m.producer(x, Reshape)
    if p is not None:
        return Rewrite((Node(n.op, p.inputs, n.outputs, n.origin),), (n,))
    return None


def tidy_identity(m: Match, n: Node) -> Rewrite | None:
    """Drop whole slices, concatenations of one, and lanes that return their operand."""
    y = n.outputs[0]
    if m.is_output(y) and m.producer(n.inputs[0], object) is None:  # type: ignore[arg-type]
        return None
    same = m.type(n.inputs[0]).shape == m.type(y).shape if n.inputs else False
    if isinstance(n.op, Slice) and same and all(s > 0 for s in n.op.steps):
        return Rewrite((), (n,), {y: n.inputs[0]})
    if isinstance(n.op, Concat) and len(n.inputs) == 1:
        return Rewrite((), (n,), {y: n.inputs[0]})
    if isinstance(n.op, Lane) and same and isinstance(n.op.expr, lane.Arg) and not m.is_output(y):
        return Rewrite((), (n,), {y: n.inputs[n.op.expr.index]})
    return None
