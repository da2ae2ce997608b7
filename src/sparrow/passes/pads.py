"""Fold padding into the op that pads for itself.

    Pad(Pad(x, p), q)                     ->  Pad(x, p + q)            same constant
    Conv(Pad(x, p, z), pads=q)            ->  Conv(x, pads=p + q)      z: zero point of x, or 0
    MaxPool(Pad(x, p, -inf), pads=q)      ->  MaxPool(x, pads=p + q)
    AveragePool(Pad(x, p, 0), pads=q)     ->  AveragePool(x, pads=p + q)   counting the padding

A mean that does not count padding counts what Pad added, so q must then be 0.
"""

from __future__ import annotations

import math
from dataclasses import replace

from sparrow.errors import InvalidGraph
from sparrow.graph import Node, Op
from sparrow.ops.conv import Conv
from sparrow.ops.pad import Pad
from sparrow.ops.pool import Pool
from sparrow.rewrite import Match, Reject, Rewrite

Pads = tuple[tuple[int, int], ...]


def _sum(a: Pads, b: Pads) -> Pads:
    return tuple((p[0] + q[0], p[1] + q[1]) for p, q in zip(a, b, strict=True))


def merge_pads(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a Pad of a Pad."""
    if not isinstance(n.op, Pad):
        return None
    p = m.producer(n.inputs[0], Pad)
    if p is None:
        return None
    assert isinstance(p.op, Pad)
    if n.op.mode != p.op.mode or n.op.mode not in ("constant", "edge"):
        return Reject(f"{p.op.mode} padding inside {n.op.mode} padding")
    if n.op.mode == "constant" and n.op.value != p.op.value:
        return Reject(f"padding with {n.op.value} around padding with {p.op.value}")
    op = replace(n.op, pads=_sum(p.op.pads, n.op.pads))
    return Rewrite((Node(op, p.inputs, n.outputs, n.origin),), (n,))


def fold_pad(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a Conv or Pool of a Pad."""
    if not isinstance(n.op, (Conv, Pool)):
        return None
    p = m.producer(n.inputs[0], Pad)
    if p is None:
        return None
    assert isinstance(p.op, Pad)
    if p.op.mode != "constant":
        return Reject(f"{p.op.mode} padding")
    c = len(p.op.pads) - 1 if n.op.channels_last else 1
    extra = tuple(v for i, v in enumerate(p.op.pads) if i not in (0, c))
    if p.op.pads[0] != (0, 0) or p.op.pads[c] != (0, 0):
        return Reject("batch or channels are padded")
    op = _padded(n.op, extra, p.op.value)
    if isinstance(op, Reject):
        return op
    try:
        (t, *_) = op.infer(m.type(p.inputs[0]), *(m.type(x) if x else None for x in n.inputs[1:]))
    except InvalidGraph as e:
        return Reject(e.message)
    if t.shape != m.type(n.outputs[0]).shape:
        return Reject("windows that start in the padding would be dropped")
    return Rewrite((Node(op, (p.inputs[0], *n.inputs[1:]), n.outputs, n.origin),), (n,))


def _padded(op: Conv | Pool, extra: Pads, value: float) -> Op | Reject:
    pads = _sum(op.pads, extra)
    if isinstance(op, Conv):
        return replace(op, pads=pads) if value == op.zero else Reject(f"padding with {value}")
    if op.indices:
        return Reject("positions of maxima count the padding")
    if any(max(p) >= k for p, k in zip(pads, op.kernel, strict=True)):
        return Reject("a window would lie in the padding")
    if op.kind == "max":
        return replace(op, pads=pads) if value == -math.inf else Reject(f"padding with {value}")
    if value != 0:
        return Reject(f"padding with {value}")
    if op.kind == "average" and not op.count_pads and any(v for p in op.pads for v in p):
        return Reject("part of the padding counts in the mean, part does not")
    return replace(op, pads=pads, count_pads=op.count_pads or op.kind == "average")
