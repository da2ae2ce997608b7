"""Convolutions with few output channels: adjacent pixels of a row as channels of one.

before   y = Conv(x, w [M, C, .., k], b [M])                stride s, W pixels a row
after    p = Conv(x, w' [g M, C, .., k + (g - 1) s], b')    stride g s, W / g pixels a row
         y = p as W pixels of M channels, those beyond W cut off

Channel j M + m of p is output m of the pixel j of its group: w' has w at column j s, zeros before
and behind. A vector computes channels of one pixel, of which M fill a part; g pixels of k + (g - 1)
s columns take less where k is not small (M = 1, k = 5, s = 1: 11 of 15 columns for 55). Sums have
the same terms and zeros: those over codes are the same integers, whatever the zero point of x, and
what is not finite in a float x reaches the whole group. What an epilogue reads with all pixels of y
is in the same groups, if it comes from such a convolution (the low bytes of 16-bit codes).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from sparrow.graph import Graph, Node
from sparrow.ops.conv import Conv
from sparrow.ops.reshape import Reshape
from sparrow.ops.slice import Slice
from sparrow.ops.sums import CODES
from sparrow.tensor import F32, I8, Array, TensorType


@dataclass(frozen=True, slots=True)
class Whole:
    """A result in groups of pixels: its name before the last group is cut off, and type."""

    name: str
    type: TensorType
    pixels: int


def group_of(g: Graph, n: Node, lanes: int, wholes: Mapping[str, Whole]) -> int:
    """Pixels of the best group by its vector operations; 1 where none is worth while.

    Args:
        g: The graph.
        n: Of it.
        lanes: Elements of a vector.
        wholes: What is in groups already, by the value it is cut to.
    """
    op = n.op
    if not isinstance(op, Conv) or not op.channels_last or op.group > 1 or op.dilations[-1] > 1:
        return 1
    x, w, y = g.types[n.inputs[0]], g.types[n.inputs[1]], g.types[n.outputs[0]]
    plain = x.dtype == w.dtype == y.dtype == F32 and op.accumulate is None
    codes = x.dtype in CODES and w.dtype == I8
    biased = len(n.inputs) > 2 and n.inputs[2]
    if not (plain or codes) or n.inputs[1] not in g.consts:
        return 1
    if biased and n.inputs[2] not in g.consts:
        return 1
    if 0 in (*x.shape, *y.shape) or w.shape[0] > lanes:
        return 1
    # other operands of the epilogue have pixels, or are not known
    given: set[int] = set()
    for v in filter(None, n.inputs[3:]):
        t = g.types[v]
        if v in wholes and t.shape == y.shape:
            given.add(wholes[v].pixels)
        elif t.size > 1 and not (v in g.consts and t.shape[-1] == t.size == w.shape[0]):
            return 1
    if given:
        return given.pop() if len(given) == 1 else 1

    def operations(pixels: int) -> int:
        columns = w.shape[-1] + (pixels - 1) * op.strides[-1]
        return -(-y.shape[-2] // pixels) * -(-pixels * w.shape[0] // lanes) * columns

    return min(range(1, min(2 * lanes // w.shape[0], y.shape[-2]) + 1), key=operations)


def grouped(
    g: Graph, n: Node, pixels: int, fresh: Callable[[], str], wholes: Mapping[str, Whole]
) -> tuple[list[Node], dict[str, Array], Whole]:
    """Nodes in the place of a convolution, their constants, and the result in groups.

    ``pixels`` and ``wholes`` as of `group_of`.
    """
    op = n.op
    assert isinstance(op, Conv)
    w, y, stride = g.consts[n.inputs[1]], g.types[n.outputs[0]], op.strides[-1]
    m, k, width = w.shape[0], w.shape[-1], y.shape[-2]
    columns, groups = k + (pixels - 1) * stride, -(-width // pixels)
    wide = np.zeros((pixels, *w.shape[:-1], columns), w.dtype)
    for j in range(pixels):
        wide[j, ..., j * stride : j * stride + k] = w
    consts: dict[str, Array] = {}

    def const(a: Array) -> str:
        name = fresh()
        consts[name] = a
        return name

    def repeated(v: str) -> str:
        """Values of each channel for every pixel of a group, or of each pixel by groups."""
        if v in wholes and g.types[v].shape == y.shape:
            return wholes[v].name
        if not v or g.types[v].size != m or (m == 1 and v != n.inputs[2]):
            return v
        a = g.consts[v]
        return const(np.tile(a, (*(1,) * (a.ndim - 1), pixels)))

    low = op.pads[-1][0]
    needed = (groups - 1) * pixels * stride + columns
    high = max(0, needed - g.types[n.inputs[0]].shape[-2] - low)
    changed = replace(
        op, strides=(*op.strides[:-1], pixels * stride), pads=(*op.pads[:-1], (low, high))
    )
    weights = const(wide.reshape(pixels * m, *w.shape[1:-1], columns))
    inputs = (n.inputs[0], weights, *(repeated(v) for v in n.inputs[2:]))
    out, all_pixels = fresh(), (*y.shape[:-2], groups * pixels, m)
    found = Whole(out, replace(y, shape=(*y.shape[:-2], groups, pixels * m)), pixels)
    nodes = [Node(changed, inputs, (out,), n.origin)]
    if groups * pixels == width:
        return [*nodes, Node(Reshape(all_pixels), (out,), n.outputs, n.origin)], consts, found
    longer = fresh()
    cut = Slice((0,) * y.rank, y.shape, (1,) * y.rank)
    nodes += [
        Node(Reshape(all_pixels), (out,), (longer,), n.origin),
        Node(cut, (longer,), n.outputs, n.origin),
    ]
    return nodes, consts, found
