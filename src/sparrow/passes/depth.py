"""Three spatial axes as two, where kernels of images do the work.

    before   y = Conv(x)                   [N, D, H, W, C], taps [1, kh, kw]
    after    y = Reshape(Conv(Reshape(x)))     [N D, H, W, C], taps [kh, kw]

    before   y = Conv(x)                   [N, D, H, W, C], taps [kd, 1, 1]
    after    y = Reshape(Conv(Reshape(x)))     [N, D, H W, C], taps [kd, 1]

    before   y = Conv(x)                   of codes, taps [kd, kh, kw]
    after    y = Reshape(Conv(Reshape(Concat(Slice(Pad(x)), ..))))     [N D, H, W, kd C]

    before   y = Pool(x)                   maxima, or means that all count the same elements
    after    y = Pool(Pool(x))                 windows [1, kh, kw], then [kd, 1, 1]

and pools of [1, kh, kw] and [kd, 1, 1] as convolutions. The channels are last: all reshapes are
views. The kernel of float convolutions over three axes takes what is left. Means round once more.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TypeVar

from sparrow.graph import Node
from sparrow.ops.concat import Concat
from sparrow.ops.conv import Conv
from sparrow.ops.pad import Pad
from sparrow.ops.pool import Pool
from sparrow.ops.reshape import Reshape
from sparrow.ops.slice import Slice
from sparrow.ops.sums import over_codes
from sparrow.passes.integer.codes import Edit
from sparrow.rewrite import Match, Reject, Rewrite

_Window = TypeVar("_Window", Conv, Pool)


def _flat(shape: tuple[int, ...], plane: bool) -> tuple[int, ...]:
    """[N, D, H, W, C] as [N D, H, W, C], or as [N, D, H W, C]."""
    n, d, h, w, c = shape
    return (n * d, h, w, c) if plane else (n, d, h * w, c)


def _idle(op: Conv | Pool, kernel: tuple[int, ...], axes: slice) -> bool:
    """Whether a window moves over ``axes`` element by element."""
    ones = kernel[axes] + op.strides[axes]
    return all(v == 1 for v in ones) and not any(map(any, op.pads[axes]))


def _two(v: tuple[int, ...], plane: bool) -> tuple[int, ...]:
    return v[1:] if plane else (v[0], 1)


def _over_two(op: _Window, plane: bool) -> _Window:
    pads = op.pads[1:] if plane else (op.pads[0], (0, 0))
    strides, dilations = _two(op.strides, plane), _two(op.dilations, plane)
    return replace(op, strides=strides, dilations=dilations, pads=pads)


def _depth_in_channels(e: Edit, m: Match, op: Conv, n: Node, kd: int) -> str:
    """[N, D, H, W, C] as [N, D', H, W, kd C]: what the taps in depth of a result meet."""
    x, y = m.type(n.inputs[0]).shape, m.type(n.outputs[0]).shape
    source, depth = n.inputs[0], x[1] + sum(op.pads[0])
    if any(op.pads[0]):
        pads = ((0, 0), op.pads[0], *((0, 0),) * 3)
        source = e.add(Pad(pads, value=op.zero), source)
    steps = (1, op.strides[0], 1, 1, 1)
    sizes = (x[0], y[1], *x[2:])
    starts = [(0, k * op.dilations[0], 0, 0, 0) for k in range(kd)]
    whole = kd == 1 and sizes[1] == depth
    taps = [source if whole else e.add(Slice(at, sizes, steps), source) for at in starts]
    return taps[0] if kd == 1 else e.add(Concat(4), *taps)


def flat_depth_conv(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a channels-last convolution over three axes."""
    op = n.op
    if not isinstance(op, Conv) or len(op.strides) != 3 or not op.channels_last:
        return None
    w, x, y = m.const(n.inputs[1]), m.type(n.inputs[0]), m.type(n.outputs[0])
    if w is None or not x.size or not y.size:
        return Reject("weights are not constant, or there is nothing to sum")
    e, kernel = Edit(m, n.origin), w.shape[2:]
    source, shape, plane = n.inputs[0], x.shape, True
    if _idle(op, kernel, slice(0, 1)):
        weights = w[:, :, 0]
    elif _idle(op, kernel, slice(1, 3)):
        weights, plane = w[:, :, :, 0], False
    elif over_codes(x.dtype, m.type(n.inputs[1]).dtype) and op.group == 1:
        kd = kernel[0]
        source = _depth_in_channels(e, m, op, n, kd)
        shape = (x.shape[0], y.shape[1], *x.shape[2:-1], kd * x.shape[-1])
        weights = w.swapaxes(1, 2).reshape(w.shape[0], kd * w.shape[1], *kernel[1:])
    else:
        return Reject("the kernel of three axes takes it")
    flat = e.add(Reshape(_flat(shape, plane)), source)
    extras: list[str] = []
    for v in n.inputs[3:]:
        t = m.type(v)
        if t.shape == y.shape:
            extras.append(e.add(Reshape(_flat(y.shape, plane)), v))
        elif prod(t.shape[:-1]) == 1:
            extras.append(v if t.rank < 2 else e.add(Reshape(t.shape[-1:]), v))
        else:
            return Reject(f"operand {v} varies with the pixels")
    inputs = (flat, e.const(weights, m.type(n.inputs[1]).dtype), *n.inputs[2:3], *extras)
    done = e.add(_over_two(op, plane), *inputs)
    e.add(Reshape(y.shape), done, y=n.outputs[0])
    return e.done(n)


def _only(op: Pool, axes: tuple[int, ...]) -> Pool:
    """The pool with a window along ``axes`` alone."""

    def pick(v: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(a if i in axes else 1 for i, a in enumerate(v))

    pads = tuple(p if i in axes else (0, 0) for i, p in enumerate(op.pads))
    kernel, strides, dilations = map(pick, (op.kernel, op.strides, op.dilations))
    return replace(op, kernel=kernel, strides=strides, dilations=dilations, pads=pads)


def flat_depth_pool(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a channels-last pool over three axes."""
    op = n.op
    if not isinstance(op, Pool) or len(op.kernel) != 3 or not op.channels_last or op.indices:
        return None
    x, y = m.type(n.inputs[0]).shape, m.type(n.outputs[0]).shape
    if 0 in x or 0 in y:
        return None
    e = Edit(m, n.origin)
    plane = _idle(op, op.kernel, slice(0, 1))
    if not plane and not _idle(op, op.kernel, slice(1, 3)):
        if op.kind == "average" and (op.ceil or (any(map(any, op.pads)) and not op.count_pads)):
            return Reject("windows do not count the same elements")
        if op.kind == "lp":
            return Reject("a norm of norms rounds its powers")

        planes = e.add(_only(op, (1, 2)), n.inputs[0])
        e.add(_only(op, (0,)), planes, y=n.outputs[0])
        return e.done(n)
    flat = e.add(Reshape(_flat(x, plane)), n.inputs[0])
    two = replace(_over_two(op, plane), kernel=_two(op.kernel, plane))
    e.add(Reshape(y), e.add(two, flat), y=n.outputs[0])
    return e.done(n)
