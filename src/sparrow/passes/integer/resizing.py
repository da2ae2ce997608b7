"""Resizing of codes."""

from __future__ import annotations

from sparrow import lane
from sparrow.graph import Node, Scheme
from sparrow.ops.lane import Lane
from sparrow.ops.resize import Resize
from sparrow.passes import litert
from sparrow.passes.integer.codes import Edit, Target, codes_of
from sparrow.passes.integer.movement import move
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import F32, U8


def resizing(m: Match, n: Node, t: Target, scheme: Scheme) -> Rewrite | Reject:
    assert isinstance(n.op, Resize)
    if n.op.mode == "nearest":
        return move(m, n, t, scheme)
    x = codes_of(m, n.inputs[0])
    alike = x is not None and (x.scale, x.zero, x.type.dtype) == (
        t.scale,
        t.grid.zero,
        t.grid.dtype,
    )
    if scheme != "tflite" or x is None or x.type.dtype != U8 or not alike:
        return Reject(f"{n.op.mode} resizing has no integer form")
    e = Edit(m, n.origin)
    numbers = e.add(Lane(lane.cast(lane.Arg(0, U8), F32)), x.name)
    blend = e.add(n.op, numbers)
    e.add(Lane(litert.resized(t.grid)), blend, y=t.node.outputs[0])
    return e.done(t.node)
