"""Pools and means over windows: a depthwise sum with ones, then one multiplier per pixel.

Codes of 16 bits are summed byte by byte: 256 times the sum of the high ones plus that of the low.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from sparrow import lane
from sparrow.graph import Node, Scheme
from sparrow.ops.conv import Conv
from sparrow.ops.lane import Lane
from sparrow.ops.pool import Pool
from sparrow.ops.reduce import Reduce
from sparrow.ops.reshape import Reshape
from sparrow.passes import litert
from sparrow.passes.integer.codes import Codes, Edit, Target, codes_of
from sparrow.passes.integer.movement import move
from sparrow.passes.integer.sums import digits
from sparrow.passes.requantize import Constants, blended
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import I8, I16, I32, Array, TensorType

# Elements of a window that are summed as one.
MAX_WINDOW = 1 << 16
# Ones that stand for weights, and pixels whose windows are counted.
MAX_ONES = 1 << 22


_NO_POOL = Reject("no integer form of this pooling")


def means(m: Match, n: Node, t: Target, scheme: Scheme) -> Rewrite | Reject:
    op = n.op
    x = codes_of(m, n.inputs[0])
    if x is None:
        return Reject("its input is no codes of one scale")
    if isinstance(op, Reduce):
        if op.kind == "max":
            return move(m, n, t, scheme)
        if op.kind != "mean":
            return _NO_POOL
        if scheme == "tflite":
            return _mean_of_litert(m, n, t, x, op)
        return _window_mean(m, n, t, x, *_whole(op, x.type))
    assert isinstance(op, Pool)
    if op.kind == "max" and not op.indices:
        # maxima commute with a monotone rescaling
        return move(m, n, t, scheme)
    if op.kind != "average" or op.ceil:
        return _NO_POOL
    conv = Conv(op.strides, op.dilations, op.pads, 1, op.channels_last)
    counts = np.asarray(float(prod(op.kernel)))
    if any(v for p in op.pads for v in p) and not op.count_pads:
        spatial = x.type.shape[1:-1] if op.channels_last else x.type.shape[2:]
        if prod(spatial) > MAX_ONES:
            return Reject(f"an image of {prod(spatial)} pixels")
        ones = np.ones((1, *spatial, 1))
        last = replace(conv, channels_last=True)
        (counts,) = last.eval(ones, np.ones((1, 1, *op.kernel)))
        if counts.min() < 1:
            return Reject("a window holds nothing")
        counts = counts if op.channels_last else np.moveaxis(counts, -1, 1)
    return _window_mean(m, n, t, x, conv, op.kernel, counts, of_codes=scheme == "tflite")


def _whole(op: Reduce, t: TensorType) -> tuple[Conv | None, tuple[int, ...], Array]:
    """The window of a mean over all spatial axes: (convolution, kernel, counts)."""
    spatial = op.axes
    first, last = tuple(range(2, t.rank)), tuple(range(1, t.rank - 1))
    if t.rank < 3 or t.rank > 4 or spatial not in (first, last):
        return None, (), np.asarray(1.0)
    ones = (1,) * len(spatial)
    kernel = tuple(t.shape[a] for a in spatial)
    conv = Conv(ones, ones, ((0, 0),) * len(spatial), 1, spatial == last)
    return conv, kernel, np.asarray(float(prod(kernel)))


def _window_mean(
    m: Match,
    n: Node,
    t: Target,
    x: Codes,
    conv: Conv | None,
    kernel: tuple[int, ...],
    counts: Array,
    *,
    of_codes: bool = False,
) -> Rewrite | Reject:
    """The mean of windows: a depthwise sum with ones, then one integer multiplier per pixel."""
    if conv is None:
        return Reject("no window")
    e = Edit(m, n.origin)
    found = _window_sum(e, x, conv, kernel, x.zero)
    if isinstance(found, Reject):
        return found
    value, totals = found
    count = prod(kernel)
    constants = Constants(len(totals))
    expr: lane.Expr | Reject
    if of_codes and (x.scale, x.zero) == (t.scale, t.grid.zero):
        expr = litert.averaged(value, x.zero, counts, t.grid, constants)
    else:
        terms = [(value, x.reach * count, x.scale / t.scale / counts)]
        expr = blended(terms, t.grid, constants)
    if isinstance(expr, Reject):
        return expr
    e.add(Lane(expr), *totals, *map(e.const, constants.arrays), y=t.node.outputs[0])
    return e.done(t.node)


def _window_sum(
    e: Edit, x: Codes, conv: Conv, kernel: tuple[int, ...], zero: int
) -> tuple[lane.Expr, list[str]] | Reject:
    """Sums over windows of codes minus ``zero``: an expression of values."""
    count = prod(kernel)
    if count > MAX_WINDOW or count * max(x.reach, 255) >= 1 << 31:
        return Reject("no window of few enough elements")
    wide = x.type.dtype == I16
    if wide and x.zero:
        return Reject("16-bit codes with a zero point")
    c = x.type.shape[-1] if conv.channels_last else x.type.shape[1]
    if c * count > MAX_ONES:
        return Reject(f"windows of {c * count} elements")
    weight = e.const(np.ones((c, 1, *kernel), np.int8), I8)
    own = replace(conv, group=c, zero=zero)
    totals = [e.add(own, d, weight) for d in (digits(e, x) if wide else (x.name,))]
    value: lane.Expr = lane.Arg(0, I32)
    if wide:
        high = lane.call("mul", lane.Arg(1, I32), lane.Imm(256, I32))
        value = lane.call("add", value, high)
    return value, totals


def _mean_of_litert(m: Match, n: Node, t: Target, x: Codes, op: Reduce) -> Rewrite | Reject:
    """MEAN by LiteRT's integers, which are others where it keeps the axes of an image."""
    count = prod(x.type.shape[a] for a in op.axes)
    if not 0 < count * max(x.reach, 255) < 1 << 31:
        return Reject("no window of few enough elements")
    user = m.only_user(t.node.outputs[0])
    # axes that are dropped are so by the same operator
    dropped = user is not None and isinstance(user.op, Reshape) and user.origin == n.origin
    image = x.type.rank == 4 and op.axes == (1, 2) and x.type.dtype != I16 and not dropped
    e = Edit(m, n.origin)
    conv, kernel, _ = _whole(op, x.type)
    found = Reject("") if conv is None else _window_sum(e, x, conv, kernel, 0 if image else x.zero)
    if isinstance(found, Reject):
        if image:
            return Reject("a window of LiteRT's that is too large")
        code = e.add(Lane(x.real(0)), x.name)
        found = lane.Arg(0, I32), [e.add(Reduce("sum", op.axes), code)]
    value, totals = found
    constants = Constants(len(totals))
    if image:
        codes = x.scale, x.zero
        expr = litert.mean_of_image(
            *(value, x.type.shape[-1], count, codes, t.scale, t.grid, constants)
        )
    else:
        reach, scales = x.reach * count, (x.scale, t.scale)
        expr = litert.mean(value, reach, count, scales, t.grid, constants)
    if isinstance(expr, Reject):
        return expr
    e.add(Lane(expr), *totals, *map(e.const, constants.arrays), y=t.node.outputs[0])
    return e.done(t.node)
