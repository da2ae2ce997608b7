"""Assignments to a fixed region of a tensor, ``x[2:5] = u``, become concatenations.

    before   y = ScatterND(x, indices of a box, u)
    after    y = Concat(x before the box, u, x behind it)     one such step per axis the box cuts

    before   z = Slice(Concat(a, b, c))                       within fewer operands than there are
    after    z = Slice(b)

A cache that is read and written piece by piece is so never copied: each piece is written where it
stays.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import numpy as np

from sparrow.graph import Node
from sparrow.ops.concat import Concat
from sparrow.ops.reshape import Reshape
from sparrow.ops.scatter import ScatterND
from sparrow.ops.slice import Slice
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import Array

# starts and sizes per axis
Box: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]


def box_of(index: Array, shape: tuple[int, ...]) -> Box | None:
    """Starts and sizes of the box of ``shape`` that index vectors [I.., r] walk in order."""
    sizes = index.shape[:-1]
    if len(sizes) != index.shape[-1] or index.size == 0:
        return None
    at = np.where(index < 0, index + np.array(shape[: len(sizes)]), index)
    first = at.reshape(-1, len(sizes))[0]
    walk = np.moveaxis(np.indices(sizes), 0, -1) + first
    if not np.array_equal(at, walk) or first.min() < 0:
        return None
    rest = shape[len(sizes) :]
    starts = (*(int(i) for i in first), *(0,) * len(rest))
    inside = all(a + n <= d for a, n, d in zip(starts, (*sizes, *rest), shape, strict=True))
    return (starts, (*sizes, *rest)) if inside else None


def scatter_region(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a scatter whose constant indices walk a box in order."""
    if not isinstance(n.op, ScatterND) or n.op.reduction != "none":
        return None
    x, index, updates = n.inputs
    value, t = m.const(index), m.type(x)
    if value is None:
        return None
    box = box_of(value, t.shape)
    if box is None or t.quant is not None or m.type(updates).quant is not None:
        return Reject("the indices do not walk a box in order")
    p = m.producer(x)
    if m.only_user(x) is n and p is not None and not isinstance(p.op, (Reshape, Slice, Concat)):
        return Reject("the tensor dies here: the box is written into it")
    new: list[Node] = []
    part = _assigned(m, n, x, t.shape, box, new)
    if not new:
        return Rewrite((), (n,), {n.outputs[0]: part})
    new[-1] = replace(new[-1], outputs=n.outputs)
    return Rewrite(tuple(new), (n,))


def _assigned(m: Match, n: Node, x: str, shape: tuple[int, ...], box: Box, new: list[Node]) -> str:
    """``x`` of ``shape`` with the box assigned; the last node added to ``new`` computes it."""
    starts, sizes = box
    axis = next((a for a, d in enumerate(shape) if sizes[a] != d), None)
    if axis is None:
        return n.inputs[2]
    first, size = starts[axis], sizes[axis]

    def cut(start: int, size: int) -> str:
        lower = tuple(start if a == axis else 0 for a in range(len(shape)))
        extent = tuple(size if a == axis else d for a, d in enumerate(shape))
        new.append(Node(Slice(lower, extent, (1,) * len(shape)), (x,), (m.fresh(),), n.origin))
        return new[-1].outputs[0]

    inner = tuple(size if a == axis else d for a, d in enumerate(shape))
    parts = [cut(0, first)] if first else []
    parts.append(_assigned(m, n, x if inner == sizes else cut(first, size), inner, box, new))
    if first + size < shape[axis]:
        parts.append(cut(first + size, shape[axis] - first - size))
    new.append(Node(Concat(axis), tuple(parts), (m.fresh(),), n.origin))
    return new[-1].outputs[0]


def slice_of_concat(m: Match, n: Node) -> Rewrite | None:
    """Match a slice that needs not all operands of a concatenation."""
    if not isinstance(n.op, Slice):
        return None
    p = m.producer(n.inputs[0], Concat)
    if p is None or m.type(n.inputs[0]).quant is not None:
        return None
    assert isinstance(p.op, Concat)
    axis, op = p.op.axis, n.op
    start, size, step = op.starts[axis], op.sizes[axis], op.steps[axis]
    if step != 1 or size == 0:
        return None
    at = 0
    pieces: list[tuple[str, int, int]] = []
    for x in p.inputs:
        extent = m.type(x).shape[axis]
        lo, hi = max(start, at), min(start + size, at + extent)
        if lo < hi:
            pieces.append((x, lo - at, hi - lo))
        at += extent
    if len(pieces) == len(p.inputs):
        return None
    new: list[Node] = []
    parts: list[str] = []
    for x, lo, length in pieces:
        y = n.outputs[0] if len(pieces) == 1 else m.fresh()
        starts = (*op.starts[:axis], lo, *op.starts[axis + 1 :])
        sizes = (*op.sizes[:axis], length, *op.sizes[axis + 1 :])
        new.append(Node(Slice(starts, sizes, op.steps), (x,), (y,), n.origin))
        parts.append(y)
    if len(pieces) > 1:
        new.append(Node(p.op, tuple(parts), n.outputs, n.origin))
    return Rewrite(tuple(new), (n,))
