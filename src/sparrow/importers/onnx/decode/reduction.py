"""Reductions, arg-reductions and running sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sparrow import lane
from sparrow.builder import Builder
from sparrow.importers.onnx.call import Call, Decoder
from sparrow.lane import imm_like
from sparrow.ops.reduce import ArgReduce, Cumulate, Reduce, ReduceKind
from sparrow.tensor import BF16, F16, F32, I64, U8


def reduce(b: Builder, kind: ReduceKind, x: str, axes: Sequence[int]) -> str:
    """Reduce with the axes kept; the value itself when nothing is reduced."""
    wanted = tuple(sorted(axes))
    return b.add(Reduce(kind, wanted), x) if wanted else x


def widened(b: Builder, x: str) -> str:
    """Half types as float32, so that several steps round once."""
    return b.cast(x, F32) if b.type(x).dtype in (F16, BF16) else x


def norm(b: Builder, x: str, axes: Sequence[int], p: int) -> str:
    """(sum |x|^p)^(1/p) with the axes kept."""
    dtype = b.type(x).dtype
    wide = widened(b, x)
    e = b.arg(0, wide)
    if p == 1:
        return b.cast(reduce(b, "sum", b.call("abs", wide), axes), dtype)
    if p == 2:
        square = b.lane(lane.call("mul", e, e), wide)
        return b.cast(_root(b, reduce(b, "sum", square, axes)), dtype)
    powers = b.lane(lane.call("pow", lane.call("abs", e), imm_like(p, e)), wide)
    total = reduce(b, "sum", powers, axes)
    t = b.arg(0, total)
    return b.cast(b.lane(lane.call("pow", t, imm_like(1.0 / p, t)), total), dtype)


def _root(b: Builder, x: str) -> str:
    """Square root; of integers, truncated."""
    dtype = b.type(x).dtype
    if dtype.kind == "float":
        return b.call("sqrt", x)
    return b.cast(b.call("sqrt", b.cast(x, F32)), dtype)


def _logarithm(b: Builder, x: str) -> str:
    dtype = b.type(x).dtype
    if dtype.kind == "float":
        return b.call("log", x)
    return b.cast(b.call("log", b.cast(x, F32)), dtype)


def _l1(b: Builder, x: str, axes: Sequence[int]) -> str:
    magnitude = x if b.type(x).dtype.kind == "uint" else b.call("abs", x)
    return reduce(b, "sum", magnitude, axes)


def _sum_square(b: Builder, x: str, axes: Sequence[int]) -> str:
    e = b.arg(0, x)
    return reduce(b, "sum", b.lane(lane.call("mul", e, e), x), axes)


def _l2(b: Builder, x: str, axes: Sequence[int]) -> str:
    return _root(b, _sum_square(b, x, axes))


def _log_sum(b: Builder, x: str, axes: Sequence[int]) -> str:
    return _logarithm(b, reduce(b, "sum", x, axes))


def _log_sum_exp(b: Builder, x: str, axes: Sequence[int]) -> str:
    """log(sum(exp(x - m))) + m with m the maximum where it is finite."""
    dtype = b.type(x).dtype
    x = b.cast(x, F32) if dtype.kind != "float" else x
    if b.type(x).size == 0:
        return b.cast(_log_sum(b, x, axes), dtype)
    top = reduce(b, "max", x, axes)
    t = b.arg(0, top)
    # inf - inf would be NaN
    finite = lane.call("lt", lane.call("abs", t), imm_like(float("inf"), t))
    top = b.lane(lane.call("where", finite, t, imm_like(0, t)), top)
    shifted = lane.call("exp", lane.call("sub", b.arg(0, x), b.arg(1, top)))
    total = reduce(b, "sum", b.lane(shifted, x, top), axes)
    y = lane.call("add", lane.call("log", b.arg(0, total)), b.arg(1, top))
    return b.cast(b.lane(y, total, top), dtype)


def _plain(kind: ReduceKind) -> Callable[[Builder, str, Sequence[int]], str]:
    def apply(b: Builder, x: str, axes: Sequence[int]) -> str:
        return reduce(b, kind, x, axes)

    return apply


def _axes(n: Call) -> tuple[int, ...]:
    since = 13 if n.op_type == "ReduceSum" else 18
    given = n.ints("axes") if n.version < since else n.ints_at(1, "axes")
    rank = n.type().rank
    if not given:
        return () if n.attr("noop_with_empty_axes", 0) else tuple(range(rank))
    axes = tuple(sorted(n.axis(a, rank) for a in given))
    if len(set(axes)) != len(axes):
        raise n.bad(f"axes {given} repeat")
    return axes


def dropped(n: Call, y: str, axes: Sequence[int]) -> str:
    """``y`` without the reduced axes when the node says ``keepdims=0``."""
    if n.attr("keepdims", 1):
        return y
    return n.b.reshape(y, [d for i, d in enumerate(n.b.shape(y)) if i not in axes])


def _reduction(apply: Callable[[Builder, str, Sequence[int]], str]) -> Decoder:
    def decode(n: Call) -> Sequence[str]:
        axes = _axes(n)
        dtype = n.type().dtype
        # one reduction rounds half types once by itself; compositions work in float32
        plain = n.op_type in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd")
        x = n.x() if plain else widened(n.b, n.x())
        return [dropped(n, n.b.cast(apply(n.b, x, axes), dtype), axes)]

    return decode


def _arg(n: Call) -> Sequence[str]:
    axis = n.axis(int(n.attr("axis", 0)), n.type().rank)
    last = bool(n.attr("select_last_index", 0))
    op = ArgReduce("max", axis, last) if n.op_type == "ArgMax" else ArgReduce("min", axis, last)
    y = n.b.add(op, n.x())
    return [dropped(n, y, (axis,))]


def _hardmax(n: Call) -> Sequence[str]:
    """1 at the first maximum along the axis, 0 elsewhere."""
    x = n.type()
    axis = n.axis(int(n.attr("axis", -1 if n.version >= 13 else 1)), x.rank)
    shape, value = x.shape, n.x()
    if n.version < 13:
        # the axes from `axis` on were one
        rows = int(np.prod(shape[:axis], dtype=np.int64))
        shape = (rows, x.size // max(rows, 1))
        value, axis = n.b.reshape(value, shape), 1
    if x.size == 0:
        return [n.x()]
    best = n.b.add(ArgReduce("max", axis), value)
    place = n.b.places(shape[axis]).reshape(-1, *(1,) * (len(shape) - 1 - axis))
    hit = n.b.call("eq", best, n.b.const(place, I64))
    return [n.b.reshape(n.b.cast(n.b.cast(hit, U8), x.dtype), x.shape)]


def _cumulate(n: Call) -> Sequence[str]:
    # a vector has one axis, so there it may as well be known at run time
    vector = n.type().rank == 1 and n.b.value(n.x(1)) is None
    axis = 0 if vector else n.integer(1, "axis")
    op = Cumulate(
        "sum" if n.op_type == "CumSum" else "prod",
        n.axis(axis, n.type().rank),
        bool(n.attr("exclusive", 0)),
        bool(n.attr("reverse", 0)),
    )
    return [n.b.add(op, n.x())]


DECODERS: Mapping[str, Decoder] = {
    "ReduceSum": _reduction(_plain("sum")),
    "ReduceMean": _reduction(_plain("mean")),
    "ReduceMax": _reduction(_plain("max")),
    "ReduceMin": _reduction(_plain("min")),
    "ReduceProd": _reduction(_plain("prod")),
    "ReduceL1": _reduction(_l1),
    "ReduceL2": _reduction(_l2),
    "ReduceSumSquare": _reduction(_sum_square),
    "ReduceLogSum": _reduction(_log_sum),
    "ReduceLogSumExp": _reduction(_log_sum_exp),
    "ArgMax": _arg,
    "ArgMin": _arg,
    "Hardmax": _hardmax,
    "CumSum": _cumulate,
    "CumProd": _cumulate,
}
