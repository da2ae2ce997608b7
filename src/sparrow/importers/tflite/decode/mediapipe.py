"""MediaPipe's custom operators, as its published kernels define them."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from math import cos, prod, sin

import numpy as np

from sparrow import lane
from sparrow.importers.tflite.call import Call, Decoder
from sparrow.importers.tflite.decode.movement import cut
from sparrow.importers.tflite.flexbuffer import Numbers, read_options
from sparrow.ops.concat import Concat
from sparrow.ops.conv_transpose import ConvTranspose
from sparrow.ops.gather import Gather
from sparrow.ops.grid_sample import GridSample
from sparrow.ops.matmul import MatMul
from sparrow.ops.pad import Pad
from sparrow.ops.reduce import Reduce, ReduceKind
from sparrow.ops.slice import Slice
from sparrow.tensor import F32, I32

SAME, VALID = 1, 2
MAX_WINDOW = 64
KINDS: tuple[ReduceKind, ...] = ("max", "min")
LOWEST = float(np.finfo(np.float32).min)
X, Y, Z = (lane.Arg(i, F32) for i in range(3))


def _struct(n: Call, *names: str) -> dict[str, int]:
    """Options that are a C structure of int32."""
    size = 4 * len(names)
    if len(n.custom) < size:
        raise n.bad(f"{len(n.custom)} bytes of options, expected {size}")
    found = dict(zip(names, struct.unpack_from(f"<{len(names)}i", n.custom), strict=True))
    if any(not 1 <= v <= 1 << 20 for k, v in found.items() if k not in ("padding", "activation")):
        raise n.bad(f"options are {found}, expected positive values")
    if found["padding"] not in (SAME, VALID):
        raise n.bad(f"padding is {found['padding']}, expected 1 (same) or 2 (valid)")
    if found.get("activation"):
        raise n.unsupported(f"fused activation {found['activation']}")
    return found


def _image(n: Call, i: int) -> tuple[int, ...]:
    t = n.type(i)
    if t.rank != 4 or t.dtype != F32 or 0 in t.shape:
        raise n.unsupported(f"input {i} is {t}, expected float32 of rank 4")
    return t.shape


def _options(n: Call) -> Mapping[str, Numbers]:
    if n.version != 2:
        raise n.unsupported(f"version {n.version}; version 2 is read")
    return read_options(n.custom, n.where)


def _number(n: Call, options: Mapping[str, Numbers], name: str, default: float = 0) -> float:
    v = options.get(name, default)
    if isinstance(v, tuple):
        raise n.bad(f"option {name!r} is a list, expected a number")
    return _float32(n, name, v)


def _float32(n: Call, name: str, v: float) -> float:
    if not abs(v) <= -LOWEST:  # nor is NaN
        raise n.bad(f"option {name!r} is {v}, expected a number of float32")
    return v


def _extent(n: Call, options: Mapping[str, Numbers], name: str) -> int:
    v = int(_number(n, options, name))
    if not 1 <= v <= 1 << 12:
        raise n.bad(f"option {name!r} is {v}, expected 1 to 4096")
    return v


def _transposed_convolution(n: Call) -> Sequence[str]:
    """Weights [O, h, w, I] and a bias; SAME cuts off what strides do not need."""
    o = _struct(n, "padding", "stride_w", "stride_h")
    x, w = _image(n, 0), _image(n, 1)
    if w[3] != x[3]:
        raise n.bad(f"{x[3]} channels do not fit weights {w}")
    strides = o["stride_h"], o["stride_w"]
    pads = []
    for size, k, s in zip(x[1:3], w[1:3], strides, strict=True):
        total = max(0, k - (size - 1) % s - 1) if o["padding"] == SAME else 0
        pads.append((total // 2, total - total // 2))
    op = ConvTranspose(strides, (1, 1), tuple(pads), channels_last=True)
    return [n.b.add(op, n.x(0), n.weights(1, (3, 0, 1, 2)), n.float(2))]


def _pool_with_argmax(n: Call) -> Sequence[str]:
    """The maximum of each window, and its place in the window plus 0.1 as a float."""
    o = _struct(n, "padding", "stride_w", "stride_h", "filter_w", "filter_h", "activation")
    shape = _image(n, 0)
    kernel, strides = (o["filter_h"], o["filter_w"]), (o["stride_h"], o["stride_w"])
    if prod(kernel) > MAX_WINDOW:
        raise n.unsupported(f"a window of {kernel}; at most {MAX_WINDOW} places are compared")
    pads, out = [(0, 0)], []
    for size, k, s in zip(shape[1:3], kernel, strides, strict=True):
        count = -(-size // s) if o["padding"] == SAME else (size - k + s) // s
        if count < 1:
            raise n.bad(f"a window of {kernel} on {n.type()}")
        total = max(0, (count - 1) * s + k - size)
        pads.append((total // 2, total - total // 2))
        out.append(count)
    b = n.b
    x = b.add(Pad((*pads, (0, 0)), "constant", LOWEST), n.x()) if any(map(sum, pads)) else n.x()
    # as there: what is not above the lowest float leaves place 0
    best = b.scalar(LOWEST, F32)
    place = b.scalar(0.0, F32)
    for k in range(prod(kernel)):
        starts = (0, k // kernel[1], k % kernel[1], 0)
        here = b.add(Slice(starts, (shape[0], *out, shape[3]), (1, *strides, 1)), x)
        larger = lane.call("gt", X, Y)
        place = b.lane(lane.call("where", larger, _imm(float(k)), Z), here, best, place)
        best = b.lane(lane.call("where", larger, X, Y), here, best)
    return [best, b.lane(lane.call("add", X, _imm(float(np.float32(0.1)))), place)]


def _unpool(n: Call) -> Sequence[str]:
    """Each value at the place of its window that the second input says, zeros elsewhere."""
    o = _struct(n, "padding", "stride_w", "stride_h", "filter_w", "filter_h", "activation")
    shape, kernel = _image(n, 0), (o["filter_h"], o["filter_w"])
    if _image(n, 1) != shape:
        raise n.bad(f"indices {n.type(1)} of {n.type(0)}")
    if kernel != (o["stride_h"], o["stride_w"]) or prod(kernel) > MAX_WINDOW:
        raise n.unsupported(
            f"windows of {kernel} with a stride of {o['stride_h']}, {o['stride_w']}; they must "
            f"not overlap and have at most {MAX_WINDOW} places"
        )
    b = n.b

    def here(k: int) -> lane.Expr:
        return lane.call("eq", lane.cast(Y, I32), lane.Imm(k, I32))

    parts = [
        b.lane(lane.call("where", here(k), X, _imm(0.0)), n.x(0), n.x(1))
        for k in range(prod(kernel))
    ]
    batch, height, width, channels = shape
    rows = [b.reshape(p, (batch, height, width, 1, channels)) for p in parts]
    y = rows[0] if len(rows) == 1 else b.add(Concat(3), *rows)
    y = b.reshape(y, (batch, height, width, *kernel, channels))
    y = b.transpose(y, (0, 1, 3, 2, 4, 5))
    return [b.reshape(y, (batch, height * kernel[0], width * kernel[1], channels))]


def _matrix_of_landmarks(n: Call) -> Sequence[str]:
    """The matrix that takes the pixels of a crop to the image: the box around some landmarks
    [1, N, 3], turned so that two of them lie level.

    With the angle r by which they turn it is
    shift(centre) turn(-r) scale(box / crop) shift(-crop / 2).
    """
    o, t = _options(n), n.type()
    if t.dtype != F32 or t.rank != 3 or t.shape[0] != 1 or t.shape[2] != 3:
        raise n.unsupported(f"landmarks {t}, expected float32[1, n, 3]")
    subset = o.get("subset_idxs", ())
    ends = [int(_number(n, o, f"{side}_rotation_idx", -1)) for side in ("left", "right")]
    listed = subset if isinstance(subset, tuple) else (subset,)
    picked = [int(_float32(n, "subset_idxs", v)) for v in listed]
    if not picked or not all(0 <= v < t.shape[1] for v in (*ends, *picked)):
        raise n.bad(f"landmarks {ends} and {picked[:8]} of {t}")
    size = _extent(n, o, "output_width"), _extent(n, o, "output_height")
    scales = _number(n, o, "scale_x"), _number(n, o, "scale_y")
    if min(scales) <= 0:
        raise n.bad(f"scales are {scales}, expected positive values")
    b = n.b

    def coordinates(indices: Sequence[int]) -> tuple[str, str]:
        index = b.const(np.array(indices, np.int32))
        points = b.reshape(b.add(Gather(1), n.x(), index), (len(indices), 3))
        return cut(n, points, 1, 0, 1), cut(n, points, 1, 1, 1)

    def each(e: lane.Expr, *values: str) -> str:
        return b.lane(e, *values)

    def mul(p: lane.Expr, q: lane.Expr) -> lane.Expr:
        return lane.call("mul", p, q)

    dx, dy = (
        each(lane.call("sub", Y, X), cut(n, v, 0, 0, 1), cut(n, v, 0, 1, 1))
        for v in coordinates(ends)
    )
    # cos and sin of the angle that is wanted less the one that is: atan2(0, 0) = 0
    length = each(lane.call("sqrt", lane.call("add", mul(X, X), mul(Y, Y))), dx, dy)
    some = lane.call("gt", Y, _imm(0.0))
    level = each(lane.call("where", some, lane.call("div", X, Y), _imm(1.0)), dx, length)
    steep = each(lane.call("where", some, lane.call("div", X, Y), _imm(0.0)), dy, length)
    wanted = _number(n, o, "target_rotation_radians")
    up, right = _imm(float(np.float32(sin(wanted)))), _imm(float(np.float32(cos(wanted))))
    c = each(lane.call("add", mul(right, X), mul(up, Y)), level, steep)
    s = each(lane.call("sub", mul(up, X), mul(right, Y)), level, steep)
    ahead = lane.call("sub", mul(X, lane.Arg(2, F32)), mul(Y, lane.Arg(3, F32)))
    across = lane.call("add", mul(Y, lane.Arg(2, F32)), mul(X, lane.Arg(3, F32)))
    px, py = coordinates(picked)
    corners = []
    for e in (ahead, across):
        v = each(e, px, py, c, s)
        corners.append([b.reshape(b.add(Reduce(kind, (0,)), v), (1, 1)) for kind in KINDS])
    middle = [each(mul(lane.call("add", X, Y), _imm(0.5)), high, low) for high, low in corners]
    # turned back: by -r, whose sine is -s
    back = each(lane.call("neg", X), s)
    centre = [each(e, *middle, c, back) for e in (ahead, across)]
    steps = [
        each(mul(lane.call("sub", X, Y), _imm(float(np.float32(k / d)))), high, low)
        for (high, low), k, d in zip(corners, scales, size, strict=True)
    ]
    zero, one = (b.const(np.full((1, 1), v, np.float32)) for v in (0, 1))
    cells: list[str] = []
    for at, (e0, e1) in zip(centre, ((c, s), (back, c)), strict=True):
        p, q = (each(mul(X, Y), v, step) for v, step in zip((e0, e1), steps, strict=True))
        half = [_imm(-d / 2) for d in size]
        moved = lane.call("add", lane.call("add", mul(X, half[0]), mul(Y, half[1])), Z)
        cells += [p, q, zero, each(moved, p, q, at)]
    cells += [zero, zero, one, zero, zero, zero, zero, one]
    return [b.reshape(b.add(Concat(1), *cells), (1, 4, 4))]


def _rows(n: Call, i: int) -> tuple[str, str]:
    """The factors of x and y [2, 2] and the shift [2, 1] in a matrix [1, 4, 4]."""
    t = n.type(i)
    if t.dtype != F32 or t.shape != (1, 4, 4):
        raise n.unsupported(f"matrix {t}, expected float32[1, 4, 4]")
    rows = cut(n, n.b.reshape(n.x(i), (4, 4)), 0, 0, 2)
    return cut(n, rows, 1, 0, 2), cut(n, rows, 1, 3, 1)


def _transformed_landmarks(n: Call) -> Sequence[str]:
    """Landmarks [1, n, 2] or [1, n, 3] moved by a matrix in x and y."""
    if n.version != 2:
        raise n.unsupported(f"version {n.version}; version 2 is read")
    t, b = n.type(0), n.b
    if t.dtype != F32 or t.rank != 3 or t.shape[0] != 1 or t.shape[2] not in (2, 3):
        raise n.unsupported(f"landmarks {t}, expected float32[1, n, 2] or [1, n, 3]")
    factors, shift = _rows(n, 1)
    flat = cut(n, n.x(0), 2, 0, 2)
    y = b.add(MatMul(trans_b=True), flat, factors)
    y = b.call("add", y, b.reshape(shift, (1, 1, 2)))
    if t.shape[2] == 2:
        return [y]
    return [b.add(Concat(2), y, cut(n, n.x(0), 2, 2, 1))]


def _transformed_tensor(n: Call) -> Sequence[str]:
    """An image [1, h, w, C] sampled bilinearly at the pixels that a matrix takes the output's to;
    outside of the image 0.
    """
    o, shape, b = _options(n), _image(n, 0), n.b
    if shape[0] != 1:
        raise n.unsupported(f"input {n.type(0)}, expected one image")
    height, width = _extent(n, o, "output_height"), _extent(n, o, "output_width")
    factors, shift = _rows(n, 1)
    b.made(2 * height * width, "the grid")
    # centres of pixels, in the matrix and back: A (p + 1/2) - 1/2
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    at = b.add(MatMul(trans_b=True), b.const(grid + np.float32(0.5)), factors)
    moved = lane.call("sub", lane.call("add", X, Y), _imm(0.5))
    at = b.lane(moved, at, b.reshape(shift, (1, 1, 2)))
    last = b.const(np.array([shape[2] - 1, shape[1] - 1], np.float32))
    outside = lane.call("or", lane.call("lt", X, _imm(0.0)), lane.call("gt", X, Y))
    held = b.lane(lane.call("where", outside, _imm(0.0), _imm(1.0)), at, last)
    inside = b.add(Reduce("min", (2,)), held)
    # an extent of one pixel has no other place than 0
    scale = [2.0 / (d - 1) if d > 1 else 0.0 for d in (shape[2], shape[1])]
    relative = lane.call("sub", lane.call("mul", X, Y), _imm(1.0))
    relative_at = b.lane(relative, at, b.const(np.array(scale, np.float32)))
    x = b.transpose(n.x(0), (0, 3, 1, 2))
    y = b.add(
        GridSample("linear", "border", align_corners=True),
        x,
        b.reshape(relative_at, (1, height, width, 2)),
    )
    y = b.transpose(y, (0, 2, 3, 1))
    return [b.call("mul", y, b.reshape(inside, (1, height, width, 1)))]


def _imm(value: float) -> lane.Imm:
    return lane.Imm(value, F32)


DECODERS: Mapping[str, Decoder] = {
    "CUSTOM:Convolution2DTransposeBias": _transposed_convolution,
    "CUSTOM:Landmarks2TransformMatrix": _matrix_of_landmarks,
    "CUSTOM:MaxPoolingWithArgmax2D": _pool_with_argmax,
    "CUSTOM:MaxUnpooling2D": _unpool,
    "CUSTOM:TransformLandmarks": _transformed_landmarks,
    "CUSTOM:TransformTensorBilinear": _transformed_tensor,
}
