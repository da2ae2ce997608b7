"""Resizing and sampling at computed positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor, prod
from typing import get_args

import numpy as np

from sparrow.importers.onnx.call import Call, Decoder
from sparrow.importers.onnx.decode.linear import matmul
from sparrow.ops.grid_sample import GridSample
from sparrow.ops.resize import Axis, Coordinates, Mode, NearestMode, Resize
from sparrow.tensor import BOOL, F32, F64


def _choice(n: Call, name: str, default: str, allowed: Sequence[str]) -> str:
    value = n.attr(name, default)
    if value not in allowed:
        raise n.bad(f"{name} is {value!r}, expected one of {', '.join(allowed)}")
    return str(value)


def _floats_at(n: Call, i: int, what: str) -> list[float]:
    return [float(v) for v in n.const(i, what).ravel()] if n.has(i) else []


def _targets(
    n: Call, shape: tuple[int, ...], axes: Sequence[int], scales: list[float], sizes: list[int]
) -> tuple[list[int], list[float]]:
    """Output extent and scale of each of ``axes``."""
    if bool(scales) == bool(sizes):
        raise n.bad("exactly one of scales and sizes is needed")
    if len(scales or sizes) != len(axes):
        raise n.bad(f"{len(scales or sizes)} scales or sizes for {len(axes)} axes")
    if scales:
        if not all(0 < s < 1 << 31 for s in scales):
            raise n.bad(f"scales {scales}")
        return [floor(shape[a] * s) for a, s in zip(axes, scales, strict=True)], scales
    if min(sizes) < 0 or any(shape[a] == 0 for a in axes):
        raise n.bad(f"sizes {sizes} of {n.type()}")
    ratios = [s / shape[a] for a, s in zip(axes, sizes, strict=True)]
    policy = _choice(
        n, "keep_aspect_ratio_policy", "stretch", ("stretch", "not_larger", "not_smaller")
    )
    if policy == "stretch":
        return sizes, ratios
    ratio = min(ratios) if policy == "not_larger" else max(ratios)
    return [floor(shape[a] * ratio + 0.5) for a in axes], [ratio] * len(axes)


def _resize(n: Call) -> Sequence[str]:
    x = n.type()
    since_11 = n.version >= 11
    mode = _choice(n, "mode", "nearest", get_args(Mode))
    shape = x.shape
    given = n.ints("axes")
    axes = [n.axis(a, x.rank) for a in given] if given else list(range(x.rank))
    if len(set(axes)) != len(axes):
        raise n.bad(f"axes {given} repeat")
    scales = _floats_at(n, 2 if since_11 else 1, "scales")
    sizes = [int(v) for v in _floats_at(n, 3, "sizes")] if since_11 else []
    extents, ratios = _targets(n, shape, axes, scales, sizes)
    # before opset 11 there was one meaning only: asymmetric, floor
    coordinates = _choice(
        n,
        "coordinate_transformation_mode",
        "half_pixel" if since_11 else "asymmetric",
        (*get_args(Coordinates), "tf_half_pixel_for_nn"),
    )
    nearest = _choice(
        n, "nearest_mode", "round_prefer_floor" if since_11 else "floor", get_args(NearestMode)
    )
    roi = [(0.0, 1.0)] * len(axes)
    if coordinates == "tf_crop_and_resize":
        flat = _floats_at(n, 1, "roi")
        if len(flat) != 2 * len(axes):
            raise n.bad(f"roi has {len(flat)} values, expected {2 * len(axes)}")
        roi = list(zip(flat[: len(axes)], flat[len(axes) :], strict=True))
    if coordinates == "tf_half_pixel_for_nn":
        raise n.unsupported("tf_half_pixel_for_nn left ONNX with opset 13")
    rows = [
        Axis(a, size, scale, r)
        for a, size, scale, r in sorted(zip(axes, extents, ratios, roi, strict=True))
        if size != shape[a] or abs(scale - 1) > 1e-9 or r != (0.0, 1.0)
    ]
    if not rows:
        return [n.x()]
    antialias = bool(n.attr("antialias", 0)) and mode != "nearest"
    op = Resize(
        tuple(rows),
        mode,  # type: ignore[arg-type]
        coordinates,  # type: ignore[arg-type]
        nearest,  # type: ignore[arg-type]
        float(np.float32(n.attr("cubic_coeff_a", -0.75))),
        # two taps of a line that are one tap at the border weigh the same
        bool(n.attr("exclude_outside", 0)) and (mode == "cubic" or antialias),
        antialias,
        float(np.float32(n.attr("extrapolation_value", 0.0))),
    )
    if x.dtype == BOOL and mode != "nearest":
        return [n.b.cast(n.b.add(op, n.b.cast(n.x(), F32)), BOOL)]
    return [n.b.add(op, n.x())]


def _upsample(n: Call) -> Sequence[str]:
    x = n.type()
    mode = _choice(n, "mode", "nearest", ("nearest", "linear", "bilinear"))
    if n.version >= 9:
        scales = _floats_at(n, 1, "scales")
    else:
        scales = [float(v) for v in n.attr("scales") or ()]
    if len(scales) != x.rank:
        raise n.bad(f"{len(scales)} scales for {x}")
    sizes, _ = _targets(n, x.shape, range(x.rank), scales, [])
    rows = tuple(
        Axis(i, size, s)
        for i, (size, s) in enumerate(zip(sizes, scales, strict=True))
        if size != x.shape[i] or s != 1
    )
    if not rows:
        return [n.x()]
    kind: Mode = "nearest" if mode == "nearest" else "linear"
    return [n.b.add(Resize(rows, kind, "asymmetric", "floor"), n.x())]


def _grid_sample(n: Call) -> Sequence[str]:
    names = {"bilinear": "linear", "bicubic": "cubic"}
    mode = n.attr("mode", "linear")
    mode = names.get(mode, mode)
    if mode not in ("nearest", "linear", "cubic"):
        raise n.bad(f"mode is {mode!r}")
    padding = _choice(n, "padding_mode", "zeros", ("zeros", "border", "reflection"))
    op = GridSample(mode, padding, bool(n.attr("align_corners", 0)))  # type: ignore[arg-type]
    dtype = n.type(0).dtype
    if dtype.kind == "float":
        return [n.b.add(op, n.x(0), n.x(1))]

    wide = F32 if dtype.bits <= 16 else F64

    def sampled(x: str) -> str:
        return n.b.cast(n.b.add(op, n.b.cast(x, wide), n.x(1)), dtype)

    if dtype.bits <= 32 or mode != "nearest":
        return [sampled(n.x(0))]
    # the nearest element is copied, not computed: halves of 32 bits are exact in float64
    half = n.b.scalar(1 << 32, dtype)
    low = n.b.call("mod", n.x(0), half)
    high = n.b.call("div", n.b.call("sub", n.x(0), low), half)
    return [n.b.call("add", n.b.call("mul", sampled(high), half), sampled(low))]


def _affine_grid(n: Call) -> Sequence[str]:
    """grid[n, *o] = theta[n] @ (x, y[, z], 1) over a regular grid in [-1, 1]."""
    theta = n.type()
    size = n.ints_at(1, "size") or ()
    rank = len(size) - 2
    if rank not in (2, 3) or theta.shape != (size[0], rank, rank + 1) or min(size) < 1:
        raise n.bad(f"theta {theta} does not fit size {size}")
    n.b.made((rank + 1) * prod(size[2:]), "the grid")
    lines = []
    for extent in size[2:]:
        if n.attr("align_corners", 0):
            lines.append(np.linspace(-1, 1, extent) if extent > 1 else np.zeros(1))
        else:
            lines.append((2 * np.arange(extent) + 1) / extent - 1)
    mesh = np.meshgrid(*lines, indexing="ij")
    points = np.stack([*mesh[::-1], np.ones(size[2:])], -1).reshape(-1, rank + 1)
    wide = n.b.cast(n.x(), F32) if theta.dtype.bits < 32 else n.x()
    base = n.b.const(points.astype(n.b.type(wide).dtype.numpy))
    grid = matmul(n, base, n.b.transpose(wide, (0, 2, 1)))
    return [n.b.cast(n.b.reshape(grid, (size[0], *size[2:], rank)), theta.dtype)]


DECODERS: Mapping[str, Decoder] = {
    "Resize": _resize,
    "Upsample": _upsample,
    "GridSample": _grid_sample,
    "AffineGrid": _affine_grid,
}
