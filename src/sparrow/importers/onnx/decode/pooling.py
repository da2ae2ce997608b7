"""Pooling, and its inverse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sparrow.importers.onnx.call import Call, Decoder
from sparrow.importers.onnx.decode.arrange import pad
from sparrow.importers.onnx.decode.linear import per_axis, resolve_pads
from sparrow.importers.onnx.decode.reduction import norm, reduce
from sparrow.ops.pool import Order, Pool, PoolKind
from sparrow.ops.roi import RoiAlign, RoiPool
from sparrow.ops.unpool import Unpool
from sparrow.tensor import I64


def _window(n: Call, rank: int) -> tuple[int, ...]:
    kernel = n.ints("kernel_shape")
    if kernel is None or len(kernel) != rank or min(kernel) < 1:
        raise n.bad(f"kernel_shape is {kernel}, expected {rank} positive values")
    return kernel


def _pool(kind: PoolKind) -> Decoder:
    def decode(n: Call) -> Sequence[str]:
        x = n.type()
        rank = x.rank - 2
        if rank < 1:
            raise n.bad(f"pooling of {x}")
        kernel = _window(n, rank)
        strides, dilations = per_axis(n, "strides", rank), per_axis(n, "dilations", rank)
        pads = resolve_pads(n, x.shape[2:], kernel, strides, dilations)
        if kind != "average" and min((0, *(v for p in pads for v in p))) < 0:
            raise n.bad(f"negative pads {pads}")
        order: Order = "column" if n.attr("storage_order", 0) else "row"
        op = Pool(
            kind,
            kernel,
            strides,
            dilations,
            pads,
            bool(n.attr("ceil_mode", 0)),
            bool(n.attr("count_include_pad", 0)) and kind == "average",
            int(n.attr("p", 2)),
            indices=order if n.n_outputs > 1 else "",
        )
        return n.b.add_n(op, n.x())

    return decode


def _global(kind: str) -> Decoder:
    def decode(n: Call) -> Sequence[str]:
        rank = n.type().rank
        if rank < 3:
            raise n.bad(f"pooling of {n.type()}")
        axes = tuple(range(2, rank))
        if kind == "lp":
            return [norm(n.b, n.x(), axes, int(n.attr("p", 2)))]
        return [reduce(n.b, "max" if kind == "max" else "mean", n.x(), axes)]

    return decode


def _max_unpool(n: Call) -> Sequence[str]:
    x = n.type()
    rank = x.rank - 2
    kernel = _window(n, rank)
    strides = per_axis(n, "strides", rank)
    pads = resolve_pads(n, x.shape[2:], kernel, strides, (1,) * rank)
    rows = zip(x.shape[2:], kernel, strides, pads, strict=True)
    inferred = (*x.shape[:2], *((d - 1) * s - a - b + k for d, k, s, (a, b) in rows))
    y = n.b.add(Unpool(inferred), n.x(0), n.x(1))
    shape = n.ints_at(2, "output_shape")
    if shape is None or shape == inferred:
        return [y]
    if len(shape) != len(inferred) or any(a < b for a, b in zip(shape, inferred, strict=True)):
        raise n.bad(f"output_shape {shape} is smaller than {inferred}")
    # the indices speak of the inferred shape; a larger output holds it in its first corner
    return [pad(n, y, [(0, a - b) for a, b in zip(shape, inferred, strict=True)])]


def _roi_align(n: Call) -> Sequence[str]:
    shift = n.attr("coordinate_transformation_mode", "half_pixel")
    if shift not in ("half_pixel", "output_half_pixel"):
        raise n.bad(f"coordinate_transformation_mode is {shift!r}")
    mode = n.attr("mode", "avg")
    if mode not in ("avg", "max"):
        raise n.bad(f"mode is {mode!r}")
    op = RoiAlign(
        (int(n.attr("output_height", 1)), int(n.attr("output_width", 1))),
        float(np.float32(n.attr("spatial_scale", 1.0))),
        int(n.attr("sampling_ratio", 0)),
        "average" if mode == "avg" else "max",
        n.version >= 16 and shift == "half_pixel",
    )
    return [n.b.add(op, n.x(0), n.x(1), n.b.cast(n.x(2), I64))]


def _max_roi_pool(n: Call) -> Sequence[str]:
    shape = n.ints("pooled_shape")
    if shape is None or len(shape) != 2:
        raise n.bad(f"pooled_shape is {shape}, expected two values")
    op = RoiPool((shape[0], shape[1]), float(np.float32(n.attr("spatial_scale", 1.0))))
    return [n.b.add(op, n.x(0), n.x(1))]


DECODERS: Mapping[str, Decoder] = {
    "MaxPool": _pool("max"),
    "AveragePool": _pool("average"),
    "LpPool": _pool("lp"),
    "GlobalAveragePool": _global("mean"),
    "GlobalMaxPool": _global("max"),
    "GlobalLpPool": _global("lp"),
    "MaxUnpool": _max_unpool,
    "RoiAlign": _roi_align,
    "MaxRoiPool": _max_roi_pool,
}
