"""RESIZE_BILINEAR of int8 and int16 codes: sums of four of them, with weights of 10 bits an axis.

Where an element lies is a multiple of a step that is itself rounded to 10 bits, so that positions
drift by up to half of that a step; halves of a sum are rounded away from zero.
"""

from __future__ import annotations

import numpy as np

from sparrow import lane
from sparrow.builder import Builder
from sparrow.lane import Expr
from sparrow.ops.gather import Gather
from sparrow.tensor import I8, I32, I64, Array

BITS = 10
ONE = 1 << BITS


def places(size: int, extent: int, corners: bool, half_pixel: bool) -> tuple[Array, Array, Array]:
    """Of every element of an axis the elements before and after it and the weight of the latter."""
    step = (ONE * extent + size // 2) // size
    if corners and size > 1:
        step = (ONE * (extent - 1) + (size - 1) // 2) // (size - 1)
    at = np.arange(size, dtype=np.int64) * step
    if half_pixel:
        at += step // 2 - ONE // 2
    # a position before the first element lies between it and itself
    first = np.maximum(at, 0) // ONE
    last = np.minimum(np.maximum(at + ONE - 1, 0) // ONE, extent - 1)
    return first, last, at - first * ONE


def bilinear(b: Builder, x: str, size: tuple[int, int], corners: bool, half_pixel: bool) -> str:
    """Codes [N, H, W, C], resized to ``size``: what they mean is not said of the result."""
    t = b.type(x)
    rows, columns = (places(size[i], t.shape[1 + i], corners, half_pixel) for i in range(2))
    wide = I32 if t.dtype == I8 else I64
    # indices of 64 bits and weights of 32
    b.made(5 * sum(size), "weights of a resize")
    names = []
    for row in rows[:2]:
        picked = b.add(Gather(1), x, b.const(row, I64))
        names += [b.add(Gather(2), picked, b.const(column, I64)) for column in columns[:2]]
    down = b.const(rows[2].astype(np.int32).reshape(-1, 1, 1), I32)
    across = b.const(columns[2].astype(np.int32).reshape(-1, 1), I32)
    # codes in the order (above, below) x (left, right)
    codes = [lane.cast(b.arg(i, name), wide) for i, name in enumerate(names)]
    fy, fx = (lane.cast(b.arg(4 + i, f), wide) for i, f in enumerate((down, across)))
    one = lane.Imm(ONE, wide)

    def between(first: Expr, last: Expr, weight: Expr) -> Expr:
        rest = lane.call("mul", first, lane.call("sub", one, weight))
        return lane.call("add", rest, lane.call("mul", last, weight))

    above, below = (between(codes[i], codes[i + 1], fx) for i in (0, 2))
    total = between(above, below, fy)
    # one less, so that the half of a negative sum falls down
    negative = lane.call("lt", total, lane.Imm(0, wide))
    sunk = lane.call("sub", total, lane.Imm(1, wide))
    total = lane.call("where", negative, sunk, total)
    rounded = lane.call("rshr", total, lane.Imm(2 * BITS, wide))
    return b.lane(lane.cast(rounded, t.dtype), *names, down, across)
