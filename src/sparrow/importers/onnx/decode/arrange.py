"""Padding, repetition, rearrangement, and tensors made from nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

import numpy as np

from sparrow import lane
from sparrow.importers.onnx.call import Call, Decoder, elem_type
from sparrow.importers.onnx.decode.movement import slice_axis
from sparrow.lane import imm_like
from sparrow.ops.gather import Gather
from sparrow.ops.lane import broadcast_shape
from sparrow.ops.pad import Expand, Pad, PadMode
from sparrow.tensor import BOOL, I64


def expand(n: Call, x: str, shape: Sequence[int]) -> str:
    """``x`` broadcast to ``shape``; the value itself when nothing changes."""
    return x if n.b.shape(x) == tuple(shape) else n.b.add(Expand(tuple(shape)), x)


def pad(
    n: Call,
    x: str,
    pads: Sequence[tuple[int, int]],
    mode: PadMode = "constant",
    value: float | int | bool = 0,
) -> str:
    """``x`` cut where pads are negative, then padded where they are positive."""
    for axis, (a, b) in enumerate(pads):
        left = n.b.shape(x)[axis] + min(a, 0) + min(b, 0)
        if left < 0:
            raise n.bad(f"pads {(a, b)} cut more than axis {axis} of {n.b.type(x)}")
        x = slice_axis(n, x, axis, max(-a, 0) if left else 0, left)
    grow = tuple((max(a, 0), max(b, 0)) for a, b in pads)
    return n.b.add(Pad(grow, mode, value), x) if any(a or b for a, b in grow) else x


def _pad(n: Call) -> Sequence[str]:
    x = n.type()
    mode = n.attr("mode", "constant")
    if mode not in ("constant", "reflect", "edge", "wrap"):
        raise n.bad(f"mode is {mode!r}")
    flat = (n.ints("pads") if n.version < 11 else n.ints_at(1, "pads")) or ()
    given = n.ints_at(3, "axes") if n.version >= 18 else None
    axes = [n.axis(a, x.rank) for a in given] if given is not None else list(range(x.rank))
    if len(flat) != 2 * len(axes) or len(set(axes)) != len(axes):
        raise n.bad(f"pads {flat} do not fit axes {axes}")
    pads = [(0, 0)] * x.rank
    for i, a in enumerate(axes):
        pads[a] = (flat[i], flat[i + len(axes)])
    if n.version < 11:
        return [pad(n, n.x(), pads, mode, float(n.attr("value", 0.0)))]
    if mode != "constant" or not n.has(2):
        return [pad(n, n.x(), pads, mode, False if x.dtype == BOOL else 0)]
    if n.type(2).size != 1:
        raise n.bad(f"constant_value is {n.type(2)}, expected one element")
    known = n.b.value(n.x(2))
    if known is not None:
        return [pad(n, n.x(), pads, mode, known.ravel()[0].item())]
    # a value known only at run time goes where a padded tensor of ones is zero
    n.b.made(n.type().size, "the region inside the pads")
    inside = pad(n, n.b.const(np.ones(x.shape, np.bool_)), pads, mode, False)
    y = pad(n, n.x(), pads, mode, False if x.dtype == BOOL else 0)
    return [n.b.call("where", inside, y, n.b.reshape(n.x(2), ()))]


def _expand(n: Call) -> Sequence[str]:
    shape = n.ints_at(1, "shape") or ()
    return [expand(n, n.x(), broadcast_shape(n.type().shape, shape))]


def _tile(n: Call) -> Sequence[str]:
    """Repetition of an axis is a broadcast axis before it."""
    shape = n.type().shape
    repeats = n.ints_at(1, "repeats") or ()
    if len(repeats) != len(shape) or min((0, *repeats)) < 0:
        raise n.bad(f"repeats {repeats} of {n.type()}")
    split: list[int] = []
    grown: list[int] = []
    for d, r in zip(shape, repeats, strict=True):
        split += [d] if r == 1 else [1, d]
        grown += [d] if r == 1 else [r, d]
    y = expand(n, n.b.reshape(n.x(), split), grown)
    return [n.b.reshape(y, [d * r for d, r in zip(shape, repeats, strict=True)])]


def _depth_to_space(n: Call) -> Sequence[str]:
    x, block = n.type(), int(n.attr("blocksize", 0))
    if x.rank != 4 or block < 1 or x.shape[1] % (block * block):
        raise n.bad(f"blocks of {block} from {x}")
    mode = n.attr("mode", "DCR")
    if mode not in ("DCR", "CRD"):
        raise n.bad(f"mode is {mode!r}")
    b, c, h, w = x.shape
    c //= block * block
    if mode == "DCR":
        y = n.b.reshape(n.x(), (b, block, block, c, h, w))
        y = n.b.transpose(y, (0, 3, 4, 1, 5, 2))
    else:
        y = n.b.reshape(n.x(), (b, c, block, block, h, w))
        y = n.b.transpose(y, (0, 1, 4, 2, 5, 3))
    return [n.b.reshape(y, (b, c, h * block, w * block))]


def _space_to_depth(n: Call) -> Sequence[str]:
    x, block = n.type(), int(n.attr("blocksize", 0))
    if x.rank != 4 or block < 1 or x.shape[2] % block or x.shape[3] % block:
        raise n.bad(f"blocks of {block} from {x}")
    b, c, h, w = x.shape
    mode = n.attr("mode", "DCR")
    if mode not in ("DCR", "CRD"):
        raise n.bad(f"mode is {mode!r}")
    y = n.b.reshape(n.x(), (b, c, h // block, block, w // block, block))
    y = n.b.transpose(y, (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4))
    return [n.b.reshape(y, (b, c * block * block, h // block, w // block))]


def _reverse_sequence(n: Call) -> Sequence[str]:
    """The first ``lens[b]`` elements of the time axis reversed, per batch entry: one Gather."""
    x = n.type()
    time, batch = int(n.attr("time_axis", 0)), int(n.attr("batch_axis", 1))
    if x.rank < 2 or sorted((time, batch)) != [0, 1] or n.type(1).shape != (x.shape[batch],):
        raise n.bad(f"time axis {time}, batch axis {batch}, lengths {n.type(1)} of {x}")
    y = n.x() if batch == 0 else n.b.transpose(n.x(), (1, 0, *range(2, x.rank)))
    b, t = n.b.shape(y)[:2]
    flat = n.b.reshape(y, (b * t, *x.shape[2:]))
    lens = n.b.reshape(n.b.cast(n.x(1), I64), (b, 1))
    length, at, row = (lane.Arg(i, I64) for i in range(3))
    mirrored = lane.call("sub", lane.call("sub", length, imm_like(1, length)), at)
    picked: lane.Expr = lane.call("where", lane.call("lt", at, length), mirrored, at)
    # lengths beyond the axis must not reach into the next row
    picked = lane.clip(picked, imm_like(0, at), imm_like(max(t - 1, 0), at))
    rows = n.b.const(n.b.places(b)[:, None] * t)
    times = n.b.const(n.b.places(t)[None])
    index = n.b.lane(lane.call("add", picked, row), lens, times, rows)
    y = n.b.add(Gather(0), flat, index)
    return [y if batch == 0 else n.b.transpose(y, (1, 0, *range(2, x.rank)))]


def _center_crop_pad(n: Call) -> Sequence[str]:
    x = n.type()
    want = n.ints_at(1, "shape") or ()
    given = n.ints("axes")
    axes = [n.axis(a, x.rank) for a in given] if given is not None else list(range(x.rank))
    if len(want) != len(axes) or min((0, *want)) < 0:
        raise n.bad(f"shape {want} for axes {axes}")
    pads = [(0, 0)] * x.rank
    for a, size in zip(axes, want, strict=True):
        more = size - x.shape[a]
        # the smaller half goes first, whether it is cut or added
        first = more // 2 if more >= 0 else -(-more // 2)
        pads[a] = (first, more - first)
    return [pad(n, n.x(), pads, value=False if x.dtype == BOOL else 0)]


def _trilu(n: Call) -> Sequence[str]:
    x = n.type()
    if x.rank < 2:
        raise n.bad(f"triangle of {x}")
    rows, cols = x.shape[-2:]
    moving = n.has(1) and n.b.value(n.x(1)) is None
    area = rows * cols * 2 if moving else rows * cols // 4
    n.b.made(area + 2 * (rows + cols), "the triangle")
    if moving:
        # the number of the diagonal an element lies on against one known at run time
        diagonal = n.b.places(cols) - n.b.places(rows)[:, None]
        order = "ge" if n.attr("upper", 1) else "le"
        keep = n.b.call(order, n.b.const(diagonal), n.b.reshape(n.x(1), ()))
    else:
        k = n.integer(1, "k") if n.has(1) else 0
        k = max(-rows - 1, min(cols + 1, k))
        below = np.tri(rows, cols, k - 1 if n.attr("upper", 1) else k, dtype=np.bool_)
        keep = n.b.const(~below if n.attr("upper", 1) else below)
    e = n.b.arg(1, n.x())
    zero = lane.Imm(False, BOOL) if x.dtype == BOOL else imm_like(0, e)
    return [n.b.lane(lane.call("where", n.b.arg(0, keep), e, zero), keep, n.x())]


def _eye_like(n: Call) -> Sequence[str]:
    x = n.type()
    if x.rank != 2:
        raise n.bad(f"identity like {x}, expected a matrix")
    code = n.attr("dtype")
    dtype = x.dtype if code is None else elem_type(int(code), n.where)
    rows, cols = x.shape
    k = max(-rows - 1, min(cols + 1, int(n.attr("k", 0))))
    n.b.made(rows * cols, "the identity")
    return [n.b.const(np.eye(rows, cols, k, dtype.numpy), dtype)]


def _range(n: Call) -> Sequence[str]:
    start, limit, delta = (n.const(i, "start, limit and delta").ravel() for i in range(3))
    if not start.size == limit.size == delta.size == 1:
        raise n.bad("start, limit and delta must be scalars")
    first, last, step = start[0].item(), limit[0].item(), delta[0].item()
    if step == 0 or not all(map(isfinite, (first, last, step))):
        raise n.bad(f"range from {first} to {last} in steps of {step}")
    span = (first - last) // step
    if not isfinite(span):
        raise n.bad(f"range from {first} to {last} in steps of {step}")
    count = max(0, -int(span))
    n.b.made(4 * count, "the range")
    dtype = n.type().dtype
    values = np.array(first, start.dtype) + np.arange(count) * np.array(step, start.dtype)
    return [n.b.const(values.astype(dtype.numpy), dtype)]


def _one_hot(n: Call) -> Sequence[str]:
    """The on value where the index equals the place along the new axis; negative ones wrap."""
    index = n.type(0)
    depth = n.integer(1, "depth")
    values = n.type(2)
    if depth < 0 or values.shape != (2,):
        raise n.bad(f"depth {depth}, values {values}")
    axis = n.axis(int(n.attr("axis", -1)), index.rank + 1)
    n.b.made(depth, "the depth")
    wide = n.b.cast(n.x(0), I64)
    shape = (*index.shape[:axis], 1, *index.shape[axis:])
    places = np.arange(depth, dtype=np.int64).reshape(-1, *(1,) * (index.rank - axis))
    off, on = (n.b.reshape(slice_axis(n, n.x(2), 0, i, 1), ()) for i in (0, 1))
    i, place = lane.Arg(0, I64), lane.Arg(1, I64)
    negative = lane.call("lt", i, imm_like(0, i))
    wrapped = lane.call("where", negative, lane.call("add", i, imm_like(depth, i)), i)
    e = lane.call("where", lane.call("eq", wrapped, place), n.b.arg(2, on), n.b.arg(3, off))
    return [n.b.lane(e, n.b.reshape(wide, shape), n.b.const(places), on, off)]


DECODERS: Mapping[str, Decoder] = {
    "Pad": _pad,
    "Expand": _expand,
    "Tile": _tile,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "ReverseSequence": _reverse_sequence,
    "CenterCropPad": _center_crop_pad,
    "Trilu": _trilu,
    "EyeLike": _eye_like,
    "Range": _range,
    "OneHot": _one_hot,
}
