"""Convolutions over codes of each channel by itself."""

from __future__ import annotations

import numpy as np

from cases_i8.case import Case
from drawn import Made
from sparrow.ops.conv import Conv
from sparrow.tensor import I8


def depthwise_case(seed: int, wide: bool = False) -> Made:
    c = Case(seed)
    rank = 1 + seed % 2
    channels = (c.n(1, 7), 16, c.n(17, 40))[c.n(0, 2)]
    kernel = tuple((1, 3, 3, 5, 7)[c.n(0, 4)] for _ in range(rank))
    dilations = tuple(c.n(1, 2) if c.n(0, 3) == 0 else 1 for _ in range(rank))
    strides = tuple(c.n(1, 2) for _ in range(rank))
    pads = tuple((c.n(0, 3), c.n(0, 3)) for _ in range(rank))
    spatial = tuple(c.n(13, 20) for _ in range(rank))
    x, _, zero = c.input((c.n(1, 2), *spatial, channels), wide)
    w = c.weights((channels, 1, *kernel))
    op = Conv(strides, dilations, pads, channels, True, zero=zero)
    return c.sum(op, x, w, c.bias(channels), int(np.prod(kernel)), channels)


def interleaved_case(seed: int) -> Made:
    """Depthwise: vectors by fours and what is left of them, steps of whole pairs of rows and of
    others, last rows by themselves, last tiles that begin before the former ones end.
    """
    c = Case(seed)
    channels = (c.n(1, 7), 32, c.n(33, 100))[c.n(0, 2)]
    kernel = tuple((1, 2, 3, 4, 5, 9)[c.n(0, 5)] for _ in range(2))
    dilations = tuple(c.n(1, 2) if c.n(0, 3) == 0 else 1 for _ in range(2))
    strides = tuple(c.n(1, 4) for _ in range(2))
    pads = tuple((c.n(0, 4), c.n(0, 4)) for _ in range(2))
    spatial = tuple(c.n((k - 1) * d + 1, 24) for k, d in zip(kernel, dilations, strict=True))
    x, _, zero = c.input((c.n(1, 2), *spatial, channels))
    op = Conv(strides, dilations, pads, channels, True, zero=zero)
    w = c.weights((channels, 1, *kernel))
    return c.sum(op, x, w, c.bias(channels), int(np.prod(kernel)), channels)


def wide_case(seed: int) -> Made:
    """Depthwise: one window over all of an image, of equal taps or any, or long rows of taps."""
    c = Case(seed)
    channels, rank, whole = c.n(1, 40), c.n(1, 2), c.flag()
    flat = (1,) * (rank - 1)
    kernel: tuple[int, ...] = (*flat, c.n(30, 70))
    spatial: tuple[int, ...] = (*flat, c.n(40, 90))
    pads = ((0, 0),) * len(flat) + ((c.n(20, 35), c.n(0, 35)),)
    if whole:
        kernel = spatial = (c.n(1, 70),) if rank == 1 else (c.n(1, 9), c.n(1, 9))
        pads = ((0, 0),) * rank
    strides = (*flat, c.n(1, 2))
    x, _, zero = c.input((c.n(1, 2), *spatial, channels))
    ones = c.b.const(np.ones((channels, 1, *kernel), np.int8), I8)
    w = ones if whole and c.flag() else c.weights((channels, 1, *kernel))
    op = Conv(strides, (1,) * rank, pads, channels, True, zero=zero)
    return c.sum(op, x, w, c.bias(channels), int(np.prod(kernel)), channels)


def rows_case(seed: int) -> Made:
    """Depthwise rows that `compact_i8` takes in twos, of which blocks have any number."""
    c = Case(seed)
    kernel = (3, (3, 5)[c.n(0, 1)])
    channels = (c.n(2, 9), 8 * c.n(1, 3))[c.n(0, 1)]
    spatial = (c.n(1, 9), (5 * c.n(1, 3), c.n(2, 13))[c.n(0, 1)])
    x, _, zero = c.input((c.n(1, 2), *spatial, channels))
    pads = tuple((k // 2, k // 2) for k in kernel)
    op = Conv((1, 1), (1, 1), pads, channels, True, zero=zero)
    return c.sum(op, x, c.weights((channels, 1, *kernel)), c.bias(channels), 15, channels)
