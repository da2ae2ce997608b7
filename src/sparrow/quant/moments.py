"""Second moments E[x x^T] of what the products of a layer read.

The squared error of a layer whose weights change by D is tr(D E[x x^T] D^T): with the moments at
hand, no input has to be kept, however many samples there were.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparrow.graph import Graph, Node
from sparrow.ops.conv import Conv, to_channels_first, windows
from sparrow.ops.matmul import MatMul
from sparrow.reference import one_thread
from sparrow.tensor import Array

# Positions of a feature map that one sample gives; neighbours say much the same.
POSITIONS = 4096
# 2304 = 256 channels of 3 x 3; beyond that the matrix takes tens of megabytes per layer.
MAX_INPUTS = 2304


@dataclass(slots=True, eq=False)
class SecondMoments:
    """Sum of x x^T over what each output of a layer multiplies its weights with.

    Attributes:
        op: Conv, or MatMul with constant b.
        kernel: Extents of the window, () of a product.
        total: float64 [group, K, K].
        count: Terms of the sum.
    """

    op: Conv | MatMul
    kernel: tuple[int, ...]
    total: NDArray[np.float64]
    count: int = 0

    @staticmethod
    def of(g: Graph, n: Node) -> SecondMoments | None:
        """Empty moments of a layer; None for two activations, for transposed convolutions and for
        very wide layers.
        """
        if n.inputs[1] not in g.consts:
            return None
        w = g.types[n.inputs[1]].shape
        if isinstance(n.op, Conv):
            groups, k, kernel = n.op.group, int(np.prod(w[1:])), tuple(w[2:])
        else:
            if not isinstance(n.op, MatMul) or len(w) != 2:
                return None
            groups, k, kernel = 1, w[1] if n.op.trans_b else w[0], ()
        if k > MAX_INPUTS:
            return None
        return SecondMoments(n.op, kernel, np.zeros((groups, k, k)))

    @property
    def mean(self) -> NDArray[np.float64]:
        """E[x x^T] per group."""
        return self.total / max(self.count, 1)

    def add(self, x: Array) -> None:
        """Take in the input of the layer in one more call."""
        if isinstance(self.op, MatMul):
            a = np.swapaxes(x, -1, -2) if self.op.trans_a else x
            rows = a.reshape(1, -1, a.shape[-1])
        else:
            rows = _patches(self.op, self.kernel, x)
        step = -(-rows.shape[1] // POSITIONS)
        rows = rows[:, ::step].astype(np.float64)
        with one_thread():
            self.total += np.matmul(rows.transpose(0, 2, 1), rows)
        self.count += rows.shape[1]


def _patches(op: Conv, kernel: tuple[int, ...], x: Array) -> Array:
    """What the windows of a convolution see: [group, positions, K]."""
    n = len(kernel)
    padded = np.pad(to_channels_first(x, op.channels_last), ((0, 0), (0, 0), *op.pads))
    seen = windows(padded, kernel, op.strides, op.dilations)
    # [N, C, *out, *kernel] -> [N, *out, C, *kernel], of which only some positions are copied
    last = np.moveaxis(seen, 1, 1 + n)
    shape = last.shape[: 1 + n]
    places = int(np.prod(shape))
    picks = np.unravel_index(np.arange(0, places, max(1, places // POSITIONS)), shape)
    rows = last[picks]
    rows = rows.reshape(len(rows), op.group, -1)
    return np.ascontiguousarray(rows.transpose(1, 0, 2))
