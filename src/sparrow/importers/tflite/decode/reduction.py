"""Reductions, arg-reductions, running sums, selection by order, and resizing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparrow.importers.tflite.call import Call, Decoder
from sparrow.importers.tflite.decode.bilinear import bilinear
from sparrow.ops.reduce import ArgReduce, Cumulate, Reduce, ReduceKind
from sparrow.ops.resize import Axis, Coordinates, NearestMode, Resize
from sparrow.ops.topk import TopK
from sparrow.tensor import I8, I16


def _reduce(kind: ReduceKind) -> Decoder:
    """Extremes are taken of the codes where they order like the numbers."""

    def decode(n: Call) -> Sequence[str]:
        shape = n.type().shape
        axes = tuple(sorted({n.axis(a, len(shape)) for a in n.ints(1, "the axes")}))
        codes = kind in ("max", "min") and n.alike(0)
        y = n.b.add(Reduce(kind, axes), n.x() if codes else n.real())
        y = y if codes else n.write(y)
        if n.option("keep_dims"):
            return [y]
        return [n.b.reshape(y, [d for i, d in enumerate(shape) if i not in axes])]

    return decode


def _arg(which: str) -> Decoder:
    def decode(n: Call) -> Sequence[str]:
        shape = n.type().shape
        (axis,) = n.ints(1, "the axis")[:1] or (0,)
        axis = n.axis(axis, len(shape))
        y = n.b.add(ArgReduce("max" if which == "max" else "min", axis), n.x())
        y = n.b.reshape(y, shape[:axis] + shape[axis + 1 :])
        return [n.b.cast(y, n.outs[0].dtype)]

    return decode


def _cumsum(n: Call) -> Sequence[str]:
    (axis,) = n.ints(1, "the axis")[:1] or (0,)
    axis = n.axis(axis, n.type().rank)
    op = Cumulate("sum", axis, bool(n.option("exclusive")), bool(n.option("reverse")))
    return [n.write(n.b.add(op, n.real()))]


def _topk(n: Call) -> Sequence[str]:
    (k,) = n.ints(1, "k")[:1] or (0,)
    values, index = n.b.add_n(TopK(n.type().rank - 1, k), n.x())
    return [values, n.b.cast(index, n.outs[1].dtype)] if len(n.outs) > 1 else [values]


def _sizes(n: Call) -> tuple[int, int]:
    sizes = n.ints(1, "the size")
    if n.type().rank != 4 or len(sizes) != 2 or not all(1 <= s <= 1 << 16 for s in sizes):
        raise n.bad(f"{n.type()} to {sizes}")
    if min(n.type().shape) < 1:
        raise n.bad(f"resize of {n.type()}")
    return sizes[0], sizes[1]


def _axes(n: Call) -> tuple[Axis, ...]:
    shape = n.type().shape
    return tuple(Axis(i + 1, s, s / shape[i + 1]) for i, s in enumerate(_sizes(n)))


def _coordinates(n: Call) -> Coordinates:
    if n.option("align_corners"):
        return "align_corners"
    return "half_pixel" if n.option("half_pixel") else "asymmetric"


def _bilinear(n: Call) -> Sequence[str]:
    if n.tensor().quantized and n.alike(0) and n.type().dtype in (I8, I16):
        how = bool(n.option("align_corners")), bool(n.option("half_pixel"))
        y = bilinear(n.b, n.x(), _sizes(n), *how)
        return [n.typed(y, n.tensor().affine(n.b.shape(y)))]
    op = Resize(_axes(n), "linear", _coordinates(n))
    return [n.write(n.b.add(op, n.float()))]


def _nearest(n: Call) -> Sequence[str]:
    """Coordinates are rounded with align_corners, else floored; half pixels add 0.5 and no more."""
    nearest: NearestMode = "floor"
    if n.option("align_corners"):
        nearest = "round_prefer_ceil"
    elif n.option("half_pixel"):
        # floor((i + 0.5) / scale) = round half up of (i + 0.5) / scale - 0.5
        nearest = "round_prefer_ceil"
    return [n.b.add(Resize(_axes(n), "nearest", _coordinates(n), nearest), n.x())]


DECODERS: Mapping[str, Decoder] = {
    "ARG_MAX": _arg("max"),
    "ARG_MIN": _arg("min"),
    "CUMSUM": _cumsum,
    "MEAN": _reduce("mean"),
    "REDUCE_ALL": _reduce("min"),
    "REDUCE_ANY": _reduce("max"),
    "REDUCE_MAX": _reduce("max"),
    "REDUCE_MIN": _reduce("min"),
    "REDUCE_PROD": _reduce("prod"),
    "RESIZE_BILINEAR": _bilinear,
    "RESIZE_NEAREST_NEIGHBOR": _nearest,
    "SUM": _reduce("sum"),
    "TOPK_V2": _topk,
}
