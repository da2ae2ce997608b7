"""Means and covariances of what the products of a layer read.

The squared error of a layer whose weights change by D is tr(D (C + m m^T) D^T), with m and C the
mean and the covariance of its inputs, and D m is its mean: with both at hand, no input has to be
kept, however many samples there were.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sparrow.graph import Graph, Node
from sparrow.ops.conv import Conv, to_channels_first, windows
from sparrow.ops.matmul import MatMul
from sparrow.reference import one_thread
from sparrow.tensor import Array

# Positions of a feature map that one sample gives; neighbours say much the same.
POSITIONS = 512
# 1152 = 128 channels of 3 x 3; beyond, a matrix takes megabytes.
MAX_INPUTS = 1280


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Moments:
    """Of what each output of a layer multiplies its weights with, in float32: as statistics store
    them, so that they give the same codes again.

    Attributes:
        mean: [group, K].
        covariance: [group, K, K].
    """

    mean: NDArray[np.float32]
    covariance: NDArray[np.float32]

    @property
    def second(self) -> NDArray[np.float64]:
        """E[x x^T] per group."""
        m = self.mean.astype(np.float64)
        return self.covariance + m[:, :, None] * m[:, None]


@dataclass(slots=True, eq=False)
class SecondMoments:
    """Sums of x and x x^T over what each output of a layer multiplies its weights with.

    Attributes:
        op: Conv, or MatMul with constant b.
        kernel: Extents of the window, () of a product.
        total: float64 [group, K, K].
        first: float64 [group, K], sum of x.
        count: Terms of the sum.
    """

    op: Conv | MatMul
    kernel: tuple[int, ...]
    total: NDArray[np.float64]
    first: NDArray[np.float64]
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
        return SecondMoments(n.op, kernel, np.zeros((groups, k, k)), np.zeros((groups, k)))

    def moments(self) -> Moments:
        """The mean and the covariance."""
        mean = self.first / max(self.count, 1)
        with np.errstate(over="ignore", invalid="ignore"):
            covariance = self.total / max(self.count, 1) - mean[:, :, None] * mean[:, None]
            return Moments(mean.astype(np.float32), covariance.astype(np.float32))

    def add(self, x: Array) -> None:
        """Take in the input of the layer in one more call."""
        if isinstance(self.op, MatMul):
            a = np.swapaxes(x, -1, -2) if self.op.trans_a else x
            rows = a.reshape(1, -1, a.shape[-1])
        else:
            rows = _patches(self.op, self.kernel, x)
        step = -(-rows.shape[1] // POSITIONS)
        rows = rows[:, ::step]
        with one_thread(), np.errstate(over="ignore", invalid="ignore"):
            self.total += np.matmul(rows.transpose(0, 2, 1), rows)
        self.first += rows.sum(1, dtype=np.float64)
        self.count += rows.shape[1]


def alike(moments: Mapping[str, Moments], weights: Mapping[str, str]) -> dict[str, Moments]:
    """``moments`` with one covariance for all products of the same weights, the mean of theirs.

    They round them to the same codes, then, of which one copy is stored. Means stay their own:
    biases are corrected by them.

    Args:
        moments: Product (by its result) -> moments of its inputs.
        weights: Product -> its weights.
    """
    shared: defaultdict[tuple[str, tuple[int, ...]], list[Moments]] = defaultdict(list)
    for y, m in moments.items():
        shared[weights[y], m.covariance.shape].append(m)
    one = {k: np.mean([m.covariance for m in of], axis=0) for k, of in shared.items() if of[1:]}
    return {
        y: replace(m, covariance=one.get((weights[y], m.covariance.shape), m.covariance))
        for y, m in moments.items()
    }


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
