"""Pooling over everything is a reduction.

before   y = AveragePool(x, kernel = the whole image)     after   y = Reduce mean of x
before   y = MaxPool(x, kernel = the whole image)         after   y = Reduce max of x
"""

from __future__ import annotations

from sparrow.graph import Node
from sparrow.ops.pool import Pool
from sparrow.ops.quantize import Dequantize
from sparrow.ops.reduce import Reduce
from sparrow.rewrite import Match, Reject, Rewrite


def global_pool(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a Pool of one window that covers the image."""
    if not isinstance(n.op, Pool) or n.op.kind == "lp":
        return None
    if m.producer(n.inputs[0], Dequantize) is not None:
        return Reject("pools of codes round by rules of their own")
    t, op = m.type(n.inputs[0]), n.op
    first = 1 if op.channels_last else 2
    axes = tuple(range(first, first + len(op.kernel)))
    if op.kernel != tuple(t.shape[a] for a in axes):
        return None
    y = m.type(n.outputs[0]).shape
    if any(y[a] != 1 for a in axes) or any(v for p in op.pads for v in p):
        return Reject("the window leaves the image")
    if op.indices or any(d != 1 for d in op.dilations):
        return Reject("the window is dilated, or positions are wanted")
    reduce = Reduce("mean" if op.kind == "average" else "max", axes)
    return Rewrite((Node(reduce, n.inputs, n.outputs, n.origin),), (n,))
