"""Resizing of codes.

before   y = Quantize(Resize(Dequantize(x)))        linear or cubic
after    y = Resize(x) over codes, rounded          weights of 11 bits an axis, exact int32 sums
"""

from __future__ import annotations

from dataclasses import replace

from sparrow import lane
from sparrow.graph import Node, Scheme
from sparrow.ops.lane import Lane
from sparrow.ops.resize import Resize
from sparrow.ops.sums import CODES
from sparrow.passes import litert
from sparrow.passes.integer.codes import Codes, Edit, Target, codes_of, rescaled
from sparrow.passes.integer.movement import move
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import F32, U8


def resizing(m: Match, n: Node, t: Target, scheme: Scheme) -> Rewrite | Reject:
    assert isinstance(n.op, Resize)
    if n.op.mode == "nearest":
        return move(m, n, t, scheme)
    x = codes_of(m, n.inputs[0])
    if x is None or x.type.dtype not in CODES:
        return Reject("its input is no 8-bit codes of one scale")
    alike = (x.scale, x.zero, x.type.dtype) == (t.scale, t.grid.zero, t.grid.dtype)
    if scheme != "tflite":
        return _blended(m, n, n.op, x, t, scheme)
    if x.type.dtype != U8 or not alike:
        return Reject(f"{n.op.mode} resizing has no integer form like LiteRT's")
    e = Edit(m, n.origin)
    numbers = e.add(Lane(lane.cast(lane.Arg(0, U8), F32)), x.name)
    blend = e.add(n.op, numbers)
    e.add(Lane(litert.resized(t.grid)), blend, y=t.node.outputs[0])
    return e.done(t.node)


def _blended(
    m: Match, n: Node, op: Resize, x: Codes, t: Target, scheme: Scheme
) -> Rewrite | Reject:
    """Weighted sums of codes, in the scale of the result."""
    if len(op.axes) > 2 or any(v.outside is not None for v in op.taps(x.type.shape)):
        return Reject("more than two axes are resized, or values from outside are taken")
    if op.mode == "cubic" and (t.grid.low, t.grid.high) != t.grid.dtype.limits:
        return Reject("cubic sums leave the range of a clip")
    e = Edit(m, n.origin)
    name = rescaled(e, x, t, scheme)
    if isinstance(name, Reject):
        return name
    e.add(replace(op, rounded=True), name, y=t.node.outputs[0])
    return e.done(t.node)
