"""Reduction, normalization, window, resize and sampling kernels against the interpreter.

Random attributes, odd sizes and every element type; all cases of an instruction set are entry
points of one library, compiled with every warning an error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, get_args

import numpy as np
import pytest

from emitted import TARGETS, compiled, planned, session
from native_harness import ISAS, needs_isa
from sparrow import lane
from sparrow.builder import Builder
from sparrow.graph import Graph, Op
from sparrow.ops.conv_transpose import ConvTranspose
from sparrow.ops.deform_conv import DeformConv
from sparrow.ops.grid_sample import GridMode, GridPadding, GridSample
from sparrow.ops.normalize import LocalResponse, Normalize
from sparrow.ops.pad import Pad, PadMode
from sparrow.ops.pool import Pool, PoolKind
from sparrow.ops.reduce import ArgReduce, Cumulate, Reduce, ReduceKind
from sparrow.ops.resize import Axis, Coordinates, Mode, NearestMode, Resize
from sparrow.ops.roi import RoiAlign, RoiPool
from sparrow.ops.unpool import Unpool
from sparrow.reference import evaluate
from sparrow.tensor import F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64, Array, DType
from sparrow.tensor import TensorType as Type

FLOATS = (F16, F32, F32, F64)
TYPES = (*FLOATS, I8, U8, I16, U16, I32, U32, I64, U64)
ROUNDS = 8
T = TypeVar("T")


class _Case:
    """One op over random operands."""

    def __init__(self, name: str, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.b = Builder(name)
        self.feeds: dict[str, Array] = {}

    def n(self, low: int, high: int) -> int:
        """A number in [low, high]."""
        return int(self.rng.integers(low, high + 1))

    def ns(self, count: int, low: int, high: int) -> tuple[int, ...]:
        return tuple(self.n(low, high) for _ in range(count))

    def flag(self) -> bool:
        return bool(self.n(0, 1))

    def one(self, of: tuple[T, ...]) -> T:
        return of[self.n(0, len(of) - 1)]

    def values(self, shape: tuple[int, ...], dtype: DType) -> Array:
        if dtype.kind == "float":
            return self.rng.standard_normal(shape).astype(dtype.numpy)
        low, high = dtype.limits
        return self.rng.integers(max(low, -100), min(high, 100) + 1, shape).astype(dtype.numpy)

    def feed(self, array: Array, dtype: DType) -> str:
        name = f"in{len(self.feeds)}"
        self.feeds[name] = array
        return self.b.input(name, Type(array.shape, dtype))

    def input(self, shape: tuple[int, ...], dtype: DType = F32) -> str:
        return self.feed(self.values(shape, dtype), dtype)

    def maybe(self, shape: tuple[int, ...], dtype: DType = F32) -> str:
        return self.input(shape, dtype) if self.flag() else ""

    def done(self, op: Op, *inputs: str) -> Graph:
        ys = self.b.add_n(op, *inputs)
        return self.b.finish({f"y{i}": y for i, y in enumerate(ys)}, {})


def _reduce(c: _Case) -> Graph:
    rank = c.n(1, 5)
    shape = (*c.ns(rank - 1, 1, 6), c.one((1, 3, 8, 37, 70)))
    axes = c.rng.choice(rank, c.n(1, rank), replace=False)
    kind = c.one(get_args(ReduceKind))
    return c.done(Reduce(kind, tuple(sorted(map(int, axes)))), c.input(shape, c.one(TYPES)))


def _integers(c: _Case) -> Graph:
    """Integers along rows and columns of more than a vector; sums and products wrap."""
    shape, axis = (*c.ns(2, 1, 9), c.n(1, 150)), c.n(0, 2)
    x = c.input(shape, c.one((I8, U8, I16, I32)))
    return c.done(Reduce(c.one(("max", "min", "sum", "prod")), (axis,)), x)


def _wide(c: _Case) -> Graph:
    """Columns of several blocks of vectors, which tasks share where there is no axis before."""
    shape = (c.n(9, 70), c.n(1, 3) * 128 + c.one((-1, 0, 1, 40)))
    return c.done(Reduce(c.one(("max", "min", "sum")), (0,)), c.input(shape, c.one((F32, I8, I32))))


def _short(c: _Case) -> Graph:
    """float32 rows of less than a vector up to several, more of them than lanes or fewer."""
    x = c.input((*c.ns(2, 1, 9), c.n(2, 70)), F32)
    return c.done(Reduce(c.one(get_args(ReduceKind)), (2,)), x)


def _along(c: _Case) -> Graph:
    shape = c.ns(3, 1, 9)
    axis = c.n(0, 2)
    x = c.input(shape, c.one(TYPES))
    if c.flag():
        return c.done(ArgReduce(c.one(("max", "min")), axis, c.flag()), x)
    return c.done(Cumulate(c.one(("sum", "prod")), axis, c.flag(), c.flag()), x)


def _arg(c: _Case) -> Graph:
    """Rows and columns of more than a vector, with equal elements, zeros of both signs and NaN."""
    shape = (c.n(1, 40), c.n(1, 40)) if c.flag() else (c.n(1, 3), c.n(1, 9), c.n(1, 40))
    values = c.rng.integers(-2, 3, shape).astype(np.float32) * c.one((1.0, -1.0))
    if c.flag():
        values[c.rng.random(shape) < 0.05] = np.nan
    return c.done(ArgReduce(c.one(("max", "min")), 1, c.flag()), c.feed(values, F32))


def _enlarged(c: _Case) -> Graph:
    """Two neighbouring axes, with or without channels behind them."""
    last = c.flag()
    shape = (c.n(1, 2), *c.ns(2, 2, 9), c.n(2, 20)) if last else (*c.ns(2, 1, 3), *c.ns(2, 2, 9))
    sizes = {a: c.n(2, 40) for a in ((1, 2) if last else (2, 3))}
    coordinates: Coordinates = c.one(("half_pixel", "align_corners", "asymmetric"))
    mode: Mode = c.one(("linear", "cubic"))
    axes = tuple(Axis(a, size, size / shape[a]) for a, size in sizes.items())
    return c.done(Resize(axes, mode, coordinates), c.input(shape))


def _normalize(c: _Case) -> Graph:
    shape, dtype = (*c.ns(3, 1, 5), c.n(1, 40)), c.one(FLOATS)
    axes, scale = c.one(
        (
            ((3,), shape[3:]),
            ((2, 3), (1, shape[1], 1, 1)),
            ((1, 2, 3), (1, shape[1], 1, 1)),
            ((2, 3), (shape[1], shape[2], 1)),
            ((1, 2), (1, 1, 1, shape[3])),
            # a group's channels behind positions, as transposes leave GroupNorm of a matrix
            ((3,), (shape[1], 1, shape[3])),
            ((3,), (shape[1], 1, 1)),
            ((3,), (*shape[:2], 1, shape[3])),
            ((2,), (shape[1], 1, shape[3])),
            ((2,), (shape[0], 1, 1, 1)),
        )
    )
    if scale == (shape[1], shape[2], 1):
        axes = (1, 2, 3)
    if dtype == F32 and c.flag():
        # groups of channels of an image with its channels last
        scale = c.one(((shape[2], 1), shape[2:], ()))
        op = Normalize((1, 3), 1e-3, c.flag())
        return c.done(op, c.input(shape), c.maybe(scale, dtype), c.maybe(scale, dtype))
    op = Normalize(axes, 1e-3, c.flag(), F64 if dtype == F64 else F32, c.flag())
    return c.done(op, c.input(shape, dtype), c.maybe(scale, dtype), c.maybe(scale, dtype))


def _columns(c: _Case) -> Graph:
    """Statistics down columns of several vectors, shared among tasks where no axis is before."""
    rows, width = c.n(9, 70), c.n(1, 3) * 64 + c.one((-1, 0, 1, 40))
    outer = c.one((1, 1, 3))
    scale = c.one(((width,), (1,)))
    op = Normalize((1,), 1e-3, c.flag(), F32, c.flag())
    given = c.maybe(scale, F32), c.maybe(scale, F32)
    return c.done(op, c.input((outer, rows, width), F32), *given)


def _response(c: _Case) -> Graph:
    op = LocalResponse(c.n(1, 5), 0.1, c.one((0.5, 0.75, 0.6)), 1.0, c.n(0, 3))
    return c.done(op, c.input((*c.ns(3, 1, 6), c.n(1, 40))))


def _pool(c: _Case) -> Graph:
    n, last = c.n(1, 3), c.flag()
    kind = c.one(get_args(PoolKind))
    spatial, channels = c.ns(n, 3, 9), c.n(1, 19)
    kernel = c.ns(n, 1, 3)
    op = Pool(
        kind,
        kernel,
        c.ns(n, 1, 3),
        c.ns(n, 1, 2),
        tuple((c.n(0, k - 1), c.n(0, k - 1)) for k in kernel),
        c.flag(),
        c.flag(),
        c.n(1, 3),
        last,
        c.one(("", "row", "column")) if kind == "max" else "",
    )
    shape = (c.n(1, 2), *spatial, channels) if last else (c.n(1, 2), channels, *spatial)
    return c.done(op, c.input(shape, c.one(TYPES if kind == "max" else FLOATS)))


def _maxima_and_places(c: _Case) -> Graph:
    """Of few channels and many, of one axis and two, with equal elements and NaN."""
    n = c.n(1, 2)
    kernel, dilations = c.ns(n, 1, 3), c.ns(n, 1, 2)
    pads = tuple((c.n(0, k - 1), c.n(0, k - 1)) for k in kernel)
    op = Pool("max", kernel, c.ns(n, 1, 3), dilations, pads, channels_last=True, indices="row")
    shape = (c.n(1, 2), *c.ns(n, 5, 12), c.one((1, 3, 16, 37)))
    values = c.rng.integers(-2, 3, shape).astype(np.float32)
    if c.flag():
        values[c.rng.random(shape) < 0.1] = np.nan
    return c.done(op, c.feed(values, F32))


def _windows_side_by_side(c: _Case) -> Graph:
    """Maximum pooling of stride 1 over rows: few channels and many, with NaN, and empty windows."""
    kernel, dilations = c.ns(2, 1, 9), c.ns(2, 1, 3)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = tuple((c.n(0, r), c.n(0, r)) for r in reach)
    extents = [max(1, r - sum(p)) + c.n(0, 20) for r, p in zip(reach, pads, strict=True)]
    op = Pool("max", kernel, (c.n(1, 2), 1), dilations, pads, channels_last=True)
    shape, dtype = (c.n(1, 2), *extents, c.one((1, 1, 3, 40))), c.one((F32, F32, I8, U8, I16))
    values = c.values(shape, dtype)
    if dtype == F32:
        values[c.rng.random(shape) < 0.02] = np.nan
    return c.done(op, c.feed(values, dtype))


def _resize(c: _Case) -> Graph:
    shape = (*c.ns(3, 1, 7), c.n(1, 40))
    coordinates = c.one(get_args(Coordinates))
    roi = (-0.2, 1.1) if coordinates == "tf_crop_and_resize" else (0.0, 1.0)
    axes = sorted(c.rng.choice(4, c.n(1, 3), replace=False))
    rows = []
    for a in map(int, axes):
        size = c.n(1, 9)
        rows.append(Axis(a, size, size / shape[a], roi))
    op = Resize(
        tuple(rows),
        c.one(get_args(Mode)),
        coordinates,
        c.one(get_args(NearestMode)),
        exclude_outside=c.flag(),
        antialias=c.flag(),
        extrapolation=3.0,
    )
    # 32-bit sums in float64 may fall on either side of an integer
    exact = (*FLOATS, I8, U8, I16, U16)
    return c.done(op, c.input(shape, c.one(TYPES if op.mode == "nearest" else exact)))


def _pad(c: _Case) -> Graph:
    rank = c.n(1, 5)
    pads = tuple((c.n(0, 3), c.n(0, 3)) if c.flag() else (0, 0) for _ in range(rank))
    op = Pad(pads, c.one(get_args(PadMode)), 1)
    return c.done(op, c.input(c.ns(rank, 2, 5), c.one(TYPES)))


def _conv_transpose(c: _Case) -> Graph:
    return _transposed(c, c.flag(), c.one(FLOATS), 9)


def _transposed_rows(c: _Case) -> Graph:
    return _transposed(c, True, F32, 40)


def _transposed(c: _Case, last: bool, dtype: DType, most: int) -> Graph:
    """Sides of up to ``most`` pixels."""
    n, group = c.n(1, 3), c.n(1, 3)
    channels, each = group * c.n(1, 3), c.n(1, 9 if n == 3 else 40)
    kernel, strides, dilations = c.ns(n, 1, 4), c.ns(n, 1, 3), c.ns(n, 1, 2)
    spatial = (*c.ns(n - 1, 2, 9), c.n(2, most))
    pads = []
    for size, k, s, d in zip(spatial, kernel, strides, dilations, strict=True):
        full = (size - 1) * s + (k - 1) * d + 1
        begin = c.n(0, min(2, full - 1))
        pads.append((begin, c.n(-2, min(2, full - 1 - begin))))
    shape = (c.n(1, 2), *spatial, channels) if last else (c.n(1, 2), channels, *spatial)
    x, weights = c.input(shape, dtype), c.values((channels, each, *kernel), dtype)
    const = c.n(0, 3) > 0
    w = c.b.const(weights, dtype) if const else c.feed(weights, dtype)
    op = ConvTranspose(strides, dilations, tuple(pads), group, last)
    bias = c.maybe((group * each,), dtype)
    if dtype != F32 or not last or not const:
        return c.done(op, x, w, bias)
    (y,) = op.infer(c.b.type(x), c.b.type(w))
    added = lane.call("relu", lane.call("add", lane.Arg(0, F32), lane.Arg(1, F32)))
    return c.done(replace(op, epilogue=added), x, w, bias, c.input(y.shape))


def _grid(c: _Case) -> Graph:
    n, batch = c.n(1, 3), c.n(1, 2)
    x = c.input((batch, c.n(1, 4), *c.ns(n, 1, 6)), c.one((F32, F64)))
    dtype = c.one((F32, F64))
    grid = (c.values((batch, *c.ns(n, 1, 5), n), dtype) * 1.2).astype(dtype.numpy)
    grid.flat[0] = c.one((np.nan, np.inf, -np.inf, 1e30, 0.1))
    op = GridSample(c.one(get_args(GridMode)), c.one(get_args(GridPadding)), c.flag())
    return c.done(op, x, c.feed(grid, dtype))


def _regions(c: _Case) -> Graph:
    batch, count = c.n(1, 3), c.n(1, 4)
    x = c.input((batch, c.n(1, 3), *c.ns(2, 2, 9)))
    corner = c.rng.random((count, 2)) * 8
    boxes = np.concatenate([corner, corner + c.rng.random((count, 2)) * 6], 1).astype(np.float32)
    images = c.rng.integers(-1, batch + 1, count)
    out, scale = (c.n(1, 4), c.n(1, 4)), c.one((1.0, 0.5))
    if c.flag():
        op = RoiAlign(out, scale, c.n(0, 3), c.one(("average", "max")), c.flag())
        return c.done(op, x, c.feed(boxes, F32), c.feed(images, I64))
    rows = np.concatenate([images[:, None].astype(np.float32), boxes], 1)
    return c.done(RoiPool(out, scale), x, c.feed(rows, F32))


def _unpool(c: _Case) -> Graph:
    dtype, shape = c.one(TYPES), c.ns(3, 1, 4)
    size = shape[0] * shape[1] * shape[2]
    index = c.rng.permutation(70)[:size].reshape(shape) - 2
    return c.done(Unpool((2, 30)), c.input(shape, dtype), c.feed(index, I64))


def _deform(c: _Case) -> Graph:
    group, share, batch = c.n(1, 2), c.n(1, 2), c.n(1, 2)
    ci, co, (kh, kw), (h, w) = 2 * c.n(1, 2), 2 * c.n(1, 4), c.ns(2, 1, 3), c.ns(2, 5, 8)
    p, s, d = c.n(0, 1), c.n(1, 2), c.n(1, 2)
    out = ((h + 2 * p - (kh - 1) * d - 1) // s + 1, (w + 2 * p - (kw - 1) * d - 1) // s + 1)
    return c.done(
        DeformConv((s, s), (d, d), ((p, p), (p, p)), group, share),
        c.input((batch, ci, h, w)),
        c.input((co, ci // group, kh, kw)),
        c.input((batch, 2 * share * kh * kw, *out)),
        c.maybe((co,)),
        c.maybe((batch, share * kh * kw, *out)),
    )


MAKERS: tuple[Callable[[_Case], Graph], ...] = (
    _reduce, _integers, _wide, _short, _along, _arg, _normalize, _columns, _response, _pool,
    _maxima_and_places, _windows_side_by_side, _resize, _enlarged, _pad, _conv_transpose,
    _transposed_rows, _grid, _regions, _unpool, _deform,
)  # fmt: skip


@pytest.mark.parametrize("isa", list(ISAS))
@pytest.mark.parametrize("threads", [1, 2])
def test_kernels_agree_with_the_interpreter(isa: str, threads: int, tmp_path: Path) -> None:
    cases: list[tuple[_Case, Graph]] = []
    for maker in MAKERS:
        for seed in range(ROUNDS):
            c = _Case(f"{maker.__name__[1:]}{seed}", 100 * threads + seed)
            cases.append((c, maker(c)))
    assert isa in TARGETS
    needs_isa(isa)
    p = planned(*(g for _, g in cases), isa=isa, threads=threads)
    s = session(p, compiled(p, tmp_path, flags=("-O1",)), threads)
    for entry, (c, g) in enumerate(cases):
        want = evaluate(g, c.feeds)
        got = s.run(entry, [c.feeds[name] for name in g.inputs])
        half = any(t.dtype == F16 for t in g.types.values())
        # sums of a few hundred products in another order; halves round at the end
        rtol, atol = (4e-3, 4e-3) if half else (1e-4, 2e-5)
        for name, y in zip(g.outputs, got, strict=True):
            assert y.shape == want[name].shape and y.dtype == want[name].dtype, g.name
            if y.dtype.kind == "f":
                np.testing.assert_allclose(y, want[name], rtol, atol, err_msg=g.name)
            else:
                np.testing.assert_array_equal(y, want[name], err_msg=g.name)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_rows_of_a_resize_are_shared(mode: Mode, tmp_path: Path) -> None:
    """Channels last; where a task begins with a copy of a row, it does not take it from another."""
    c = _Case("resize", 1)
    axes = (Axis(1, 62, 62 / 30, (0.0, 1.0)), Axis(2, 64, 2.0, (0.0, 1.0)))
    op = Resize(axes, mode, "asymmetric", "floor")
    g = c.done(op, c.input((1, 30, 32, 64), F32))
    p = planned(g, threads=2)
    assert [step.lowered.tasks for step in p.entries[0].steps] == [2]
    got = session(p, compiled(p, tmp_path, flags=("-O1",)), 2).run(0, [c.feeds[g.inputs[0]]])
    np.testing.assert_allclose(got[0], evaluate(g, c.feeds)[g.outputs[0]], rtol=1e-5, atol=1e-5)
