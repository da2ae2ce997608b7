"""Compute no more of a convolution than what is cut out of its result.

    before   y = Slice(Conv(x, w, b))             along spatial axes
    after    y = Conv(Slice(x), w, b)             fewer pads, longer strides; x whole if it can be

    before   y = Slice(ConvTranspose(x, w, b))    steps of 1
    after    y = ConvTranspose(x, w, b)           more pads

Causal convolutions are written so: padded on both sides, and their end cut off.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sparrow.graph import Node
from sparrow.ops.conv import Conv, pooled_extent
from sparrow.ops.conv_transpose import ConvTranspose
from sparrow.ops.slice import Slice
from sparrow.rewrite import Match, Reject, Rewrite


@dataclass(frozen=True, slots=True)
class _Axis:
    """What is left to compute along one axis: of x, by which stride, between which pads."""

    start: int
    size: int
    stride: int
    pads: tuple[int, int]


def crop(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a Slice of a channels-first Conv or ConvTranspose."""
    if not isinstance(n.op, Slice):
        return None
    p = m.producer(n.inputs[0], (Conv, ConvTranspose))
    if p is None:
        return None
    assert isinstance(p.op, (Conv, ConvTranspose))
    y = m.type(n.inputs[0]).shape
    if p.op.channels_last or p.op.epilogue is not None:
        return Reject(f"{p.origin}: its layout and epilogue are settled")
    if n.op.sizes[:2] != y[:2] or min(n.op.steps) < 1 or not min(n.op.sizes):
        return Reject("the slice takes some channels, walks backwards or is empty")
    if m.only_user(n.inputs[0]) is None:
        return Reject(f"{p.origin}: its result is used elsewhere")
    if isinstance(p.op, ConvTranspose):
        return _cut_off(p, p.op, n, y)
    return _read_less(m, p, p.op, n)


def _cut_off(p: Node, op: ConvTranspose, n: Node, y: tuple[int, ...]) -> Rewrite | Reject:
    assert isinstance(n.op, Slice)
    if max(n.op.steps) != 1:
        return Reject("a transposed convolution skips no results")
    cuts = zip(op.pads, n.op.starts[2:], n.op.sizes[2:], y[2:], strict=True)
    pads = tuple((a + first, b + have - first - size) for (a, b), first, size, have in cuts)
    return Rewrite((Node(replace(op, pads=pads), p.inputs, n.outputs, p.origin),), (p, n))


def _read_less(m: Match, p: Node, op: Conv, n: Node) -> Rewrite | Reject:
    x, w = m.type(p.inputs[0]).shape, m.type(p.inputs[1]).shape
    axes = [_axis(op, n, i, x[2 + i], w[2 + i]) for i in range(len(op.strides))]
    if any(a.size < 1 for a in axes):
        return Reject("a window would lie in the padding")
    less = replace(op, strides=tuple(a.stride for a in axes), pads=tuple(a.pads for a in axes))
    source, nodes = p.inputs[0], []
    sizes = (*x[:2], *(a.size for a in axes))
    if sizes != x:
        source = m.fresh()
        starts = (0, 0, *(a.start for a in axes))
        part = Slice(starts, sizes, (1,) * len(x))
        nodes.append(Node(part, p.inputs[:1], (source,), n.origin))
    nodes.append(Node(less, (source, *p.inputs[1:]), n.outputs, p.origin))
    return Rewrite(tuple(nodes), (p, n))


def _axis(op: Conv, n: Node, i: int, extent: int, kernel: int) -> _Axis:
    assert isinstance(n.op, Slice)
    count = n.op.sizes[2 + i]
    stride = op.strides[i] * n.op.steps[2 + i]
    first = n.op.starts[2 + i] * op.strides[i] - op.pads[i][0]
    end = first + (count - 1) * stride + (kernel - 1) * op.dilations[i] + 1
    start, pads = max(first, 0), (max(-first, 0), max(end - extent, 0))
    size = extent - start
    if pooled_extent(size, kernel, stride, op.dilations[i], pads, ceil=False) != count:
        size = end - start
    return _Axis(start, size, stride, pads)
