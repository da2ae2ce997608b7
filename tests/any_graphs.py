"""Hypothesis strategy: graphs over the whole op table and every dtype.

`strategies.graphs` keeps to float32 and to what ONNX Runtime computes alike; these graphs are for
judging native code layer by layer, so that their values may be anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from hypothesis import strategies as st

from sparrow.builder import Builder
from sparrow.graph import Graph
from sparrow.ops.attention import Attention
from sparrow.ops.bitcast import BitCast
from sparrow.ops.compress import Compress
from sparrow.ops.concat import Concat
from sparrow.ops.conv import Conv
from sparrow.ops.conv_transpose import ConvTranspose
from sparrow.ops.deform_conv import DeformConv
from sparrow.ops.det import Det
from sparrow.ops.gather import Gather
from sparrow.ops.gather_elements import GatherElements
from sparrow.ops.gather_nd import GatherND
from sparrow.ops.grid_sample import GridMode, GridPadding, GridSample
from sparrow.ops.gru import GRU
from sparrow.ops.lstm import LSTM
from sparrow.ops.matmul import MatMul
from sparrow.ops.nms import NonMaxSuppression
from sparrow.ops.nonzero import NonZero
from sparrow.ops.normalize import LocalResponse, Normalize
from sparrow.ops.pad import Expand, Pad, PadMode
from sparrow.ops.pool import Pool, PoolKind
from sparrow.ops.quantize import Dequantize, Quantize, affine
from sparrow.ops.reduce import ArgReduce, Cumulate, Reduce, ReduceKind
from sparrow.ops.resize import Axis, Coordinates, Mode, NearestMode, Resize
from sparrow.ops.rnn import RNN
from sparrow.ops.roi import RoiAlign, RoiPool
from sparrow.ops.scatter import REDUCTIONS, ScatterElements, ScatterND
from sparrow.ops.slice import Slice
from sparrow.ops.softmax import Softmax
from sparrow.ops.topk import TopK
from sparrow.ops.unique import Unique
from sparrow.ops.unpool import Unpool
from sparrow.tensor import (
    BF16,
    BOOL,
    F16,
    F32,
    F64,
    I4,
    I8,
    I16,
    I32,
    I64,
    U4,
    U8,
    U16,
    U32,
    U64,
    Affine,
    Array,
    DType,
    TensorType,
    round_bfloat16,
)
from strategies import any_exprs, extents, smooth_exprs

FLOATS = (F32, F32, F32, F32, F16, BF16, F64)
INTS = (I8, U8, I32, I64, I16, U16, U32, U64, I4, U4)
ANY = (*FLOATS, *INTS, BOOL)
INDICES = (I64, I32)
MOST = 2000


def values(t: TensorType, seed: int) -> Array:
    """Normal floats with a few zeros; integers of the whole range, or small ones; bools."""
    rng = np.random.default_rng(seed)
    if t.dtype.kind == "float":
        x = rng.standard_normal(t.shape).astype(np.float32)
        x = np.where(rng.random(t.shape) < 0.1, np.float32(0), x)
        return round_bfloat16(x) if t.dtype == BF16 else x.astype(t.dtype.numpy)
    if t.dtype == BOOL:
        return rng.random(t.shape) < 0.5
    low, high = t.dtype.limits
    if seed % 2:
        low, high = max(low, -9), min(high, 9)
    x64 = rng.integers(low, high, t.shape, np.uint64 if low == 0 else np.int64, endpoint=True)
    return x64.astype(t.dtype.numpy)


def feeds(g: Graph, seed: int = 0) -> dict[str, Array]:
    """An input for every graph input."""
    return {x: values(g.types[x], 2 * seed + i) for i, x in enumerate(g.inputs)}


class Grower:
    """A Builder with the values so far, and those that may only be outputs."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.b = Builder("any")
        self.values: list[str] = []
        self.ends: list[str] = []

    def flag(self) -> bool:
        """Heads or tails."""
        return self.draw(st.booleans())

    def upto(self, most: int) -> int:
        """An integer of 0 .. most."""
        return self.draw(st.integers(0, max(0, most)))

    def one(self, items: Sequence[str]) -> str:
        """One of several names."""
        return self.draw(st.sampled_from(items))

    def dtype(self, dtypes: Sequence[DType]) -> DType:
        """One of several dtypes."""
        return self.draw(st.sampled_from(dtypes))

    def shape(self, low: int, high: int) -> tuple[int, ...]:
        """A shape of few elements and a rank in low .. high."""
        found: list[int] = []
        for _ in range(low + self.upto(high - low)):
            room = MOST // max(1, math.prod(found))
            found.append(self.draw(extents(max(1, min(17, room)))))
        return tuple(found)

    def new(self, shape: Sequence[int], dtype: DType, fixed: bool | None = None) -> str:
        """A new input or constant."""
        t = TensorType(tuple(shape), dtype)
        if self.flag() if fixed is None else fixed:
            return self.const(values(t, self.upto(99)), dtype)
        name = self.b.input(f"in{len(self.b.inputs)}", t)
        self.values.append(name)
        return name

    def const(self, a: Array, dtype: DType) -> str:
        """A constant of a dtype."""
        return self.b.const(a, dtype)

    def weights(self, shape: Sequence[int], dtype: DType, fan: int = 1) -> str:
        """A constant, or now and then an input, of modest size."""
        if not self.upto(4):
            return self.new(shape, dtype, fixed=False)
        a = values(TensorType(tuple(shape), dtype), 2 * self.upto(40) + 1)
        if dtype.kind == "float":
            a = (a / max(1.0, fan**0.5)).astype(dtype.numpy)
            a = round_bfloat16(a) if dtype == BF16 else a
        return self.const(a, dtype)

    def pick(self, dtypes: Sequence[DType] = ANY, low: int = 0, high: int = 4) -> str:
        """An earlier value that fits, or a new input."""
        fit = [
            v
            for v in self.values
            if self.b.type(v).dtype in dtypes
            and low <= len(self.b.shape(v)) <= high
            and self.b.type(v).size
        ]
        if fit and self.upto(4):
            return self.one(fit[-4:])
        return self.new(self.shape(low, high), self.dtype(dtypes), fixed=False)

    def axis(self, x: str) -> int:
        """An axis of a value."""
        return self.upto(len(self.b.shape(x)) - 1)

    def index(self, shape: Sequence[int], extent: int) -> str:
        """Indices, mostly inside an axis; constant or fed."""
        dtype = self.dtype(INDICES)
        rng = np.random.default_rng(self.upto(99))
        a = rng.integers(-extent, extent, tuple(shape))
        if self.flag():
            return self.const(a.astype(dtype.numpy), dtype)
        return self.new(shape, dtype, fixed=False)


def _smooth(s: Grower) -> str:
    x = s.pick((F32,))
    shape, names = s.b.shape(x), [x]
    for _ in range(s.upto(2)):
        cut = s.upto(len(shape))
        names.append(s.new([d if s.flag() else 1 for d in shape[cut:]], F32))
    return s.b.lane(s.draw(smooth_exprs(len(names))), *names)


def _integers(s: Grower) -> str:
    x = s.pick((*INTS[:8], BOOL))
    shape, names = s.b.shape(x), [x]
    for _ in range(s.upto(2)):
        cut = s.upto(len(shape))
        dtype = s.dtype((*INTS[:8], BOOL))
        names.append(s.new([d if s.flag() else 1 for d in shape[cut:]], dtype))
    return s.b.lane(s.draw(any_exprs([s.b.type(n).dtype for n in names], 3)), *names)


def _cast(s: Grower) -> str:
    return s.b.cast(s.pick(), s.dtype(ANY))


def _matmul(s: Grower) -> str:
    a = s.pick((*FLOATS, I8, U8, I32), 2, 4)
    shape, dtype = s.b.shape(a), s.b.type(a).dtype
    flip_a, flip_b = s.flag(), s.flag()
    k, n = shape[-2 if flip_a else -1], s.draw(extents())
    batch = shape[:-2] if s.flag() else ()
    b = s.weights((*batch, n, k) if flip_b else (*batch, k, n), dtype, k)
    floats = dtype.kind == "float"
    epilogue = s.draw(smooth_exprs(1)) if dtype == F32 and s.flag() else None
    bias = s.weights((n,), dtype) if floats and s.flag() else ""
    return s.b.add(MatMul(flip_a, flip_b, epilogue), a, b, bias)


def _window(s: Grower, spatial: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    kernel = tuple(1 + s.upto(min(2, d - 1)) for d in spatial)
    strides = tuple(1 + s.upto(2) for _ in spatial)
    fits = all(2 * (k - 1) < d for k, d in zip(kernel, spatial, strict=True))
    dilations = tuple(1 + (s.upto(1) if fits else 0) for _ in spatial)
    return kernel, strides, dilations


def _pads(s: Grower, kernel: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple((s.upto(k - 1), s.upto(k - 1)) for k in kernel)


def _conv(s: Grower) -> str:
    x = s.pick((*FLOATS, I8, U8), 3, 5)
    dtype = s.b.type(x).dtype
    c, *spatial = s.b.shape(x)[1:]
    kernel, strides, dilations = _window(s, spatial)
    group = s.draw(st.sampled_from([1, 1, c]))
    m = group * (1 + s.upto(4))
    w = s.weights((m, c // group, *kernel), dtype, c // group * math.prod(kernel))
    bias = s.weights((m,), dtype) if dtype.kind == "float" and s.flag() else ""
    epilogue = s.draw(smooth_exprs(1)) if dtype == F32 and s.flag() else None
    op = Conv(strides, dilations, _pads(s, kernel), group, False, epilogue)
    return s.b.add(op, x, w, bias)


def _quantized(s: Grower) -> str:
    """A value quantized and back, and maybe a product or convolution with quantized weights."""
    x = s.pick((F32,), 1, 4)
    rank = len(s.b.shape(x))
    dtype = s.dtype((I8, U8, I16, U16, I4, U4))
    axis = s.axis(x)

    def quant(shape: tuple[int, ...], along: int, each: bool, code: DType) -> Affine:
        n = shape[along] if each else 1
        rng = np.random.default_rng(s.upto(99))
        low, high = code.limits
        zero = rng.integers(max(low, -8), min(high, 8), n, endpoint=True) if s.flag() else 0
        scale = (0.005 + 0.1 * rng.random(n)).astype(np.float32)
        return affine(scale, np.zeros(n, np.int32) + np.int32(zero), shape, along, 0)

    q = quant(s.b.shape(x), axis, s.flag(), dtype)
    codes = s.b.add(Quantize(q, dtype), x)
    s.values.append(codes)
    y = s.b.add(Dequantize(q), codes)
    if rank < 2 or s.flag():
        return y
    k = s.b.shape(y)[1] if rank == 4 else s.b.shape(y)[-1]
    n = s.draw(extents(8))
    shape = (n, k, 1, 1) if rank == 4 else (k, n)
    wq = quant(shape, 0 if rank == 4 else 1, s.flag(), I8)
    raw = values(TensorType(shape, I8), s.upto(99))
    w = s.b.add(Dequantize(wq), s.b.const(raw, I8, wq))
    if rank == 4:
        y = s.b.add(Conv((1, 1), (1, 1), ((0, 0), (0, 0))), y, w)
    else:
        y = s.b.add(MatMul(), y, w)
    return s.b.add(Quantize(quant(s.b.shape(y), 0, False, I8), I8), y)


def _conv_transpose(s: Grower) -> str:
    x = s.pick(FLOATS, 3, 4)
    dtype = s.b.type(x).dtype
    c, *spatial = s.b.shape(x)[1:]
    kernel, strides, dilations = _window(s, spatial)
    group = s.draw(st.sampled_from([1, 1, c]))
    pads = tuple((0, -s.upto(t - 1)) for t in strides)
    w = s.weights((c, 1 + s.upto(3), *kernel), dtype, c)
    return s.b.add(ConvTranspose(strides, dilations, pads, group), x, w)


def _pool(s: Grower) -> str:
    x = s.pick((*FLOATS, I8, U8), 3, 5)
    kernel, strides, dilations = _window(s, s.b.shape(x)[2:])
    kinds: tuple[PoolKind, ...] = ("max", "average", "lp")
    kind = s.draw(st.sampled_from(kinds))
    if s.b.type(x).dtype.kind != "float":
        kind = "max"
    op = Pool(kind, kernel, strides, dilations, _pads(s, kernel), s.flag(), s.flag())
    if kind == "max" and s.flag():
        op = Pool(kind, kernel, strides, dilations, op.pads, op.ceil, indices="row")
        y, index = s.b.add_n(op, x)
        s.values.append(index)
        return y
    return s.b.add(op, x)


def _reshape(s: Grower) -> str:
    x = s.pick()
    shape = s.b.shape(x)
    at = s.upto(len(shape))
    head, tail = shape[:at], shape[at:]
    return s.b.reshape(x, (*head, 1, *tail) if s.flag() else (*head, math.prod(tail)))


def _transpose(s: Grower) -> str:
    x = s.pick()
    return s.b.transpose(x, s.draw(st.permutations(range(len(s.b.shape(x))))))


def _concat(s: Grower) -> str:
    x = s.pick(low=1)
    axis, t = s.axis(x), s.b.type(x)
    other = [s.draw(extents(5)) if i == axis else d for i, d in enumerate(t.shape)]
    names = [x, s.new(other, t.dtype)]
    if s.flag():
        names.append(x)
    return s.b.add(Concat(axis), *(names if s.flag() else names[::-1]))


def _slice(s: Grower) -> str:
    x = s.pick()
    picks = []
    for d in s.b.shape(x):
        size = d if s.flag() else 1 + s.upto(d - 1)
        step = 1 + s.upto(1) if 2 * size <= d else 1
        span = (size - 1) * step
        start = s.upto(d - 1 - span)
        picks.append((start + span, size, -step) if s.flag() else (start, size, step))
    starts, sizes, steps = zip(*picks, strict=True) if picks else ((), (), ())
    return s.b.add(Slice(starts, sizes, steps), x)


def _pad(s: Grower) -> str:
    x = s.pick()
    shape = s.b.shape(x)
    modes: tuple[PadMode, ...] = ("constant", "reflect", "edge", "wrap")
    mode = s.draw(st.sampled_from(modes))
    if mode == "reflect" and min((2, *shape)) < 2:
        mode = "edge"
    pads = tuple((s.upto(min(2, d - 1)), s.upto(min(2, d - 1))) for d in shape)
    return s.b.add(Pad(pads, mode, False if s.b.type(x).dtype == BOOL else 1), x)


def _expand(s: Grower) -> str:
    x = s.pick(high=3)
    shape = [s.draw(extents(5)) if d == 1 else d for d in s.b.shape(x)]
    return s.b.add(Expand((*((2,) if s.flag() else ()), *shape)), x)


def _softmax(s: Grower) -> str:
    x = s.pick(FLOATS, 1)
    return s.b.add(Softmax(s.axis(x), s.flag()), x)


def _reduce(s: Grower) -> str:
    x = s.pick((*FLOATS, I8, U8, I32, I64, U32, U64), 1)
    axes = s.draw(st.sets(st.integers(0, len(s.b.shape(x)) - 1), min_size=1))
    kinds: tuple[ReduceKind, ...] = ("sum", "mean", "max", "min", "prod")
    return s.b.add(Reduce(s.draw(st.sampled_from(kinds)), tuple(sorted(axes))), x)


def _arg(s: Grower) -> str:
    x = s.pick(low=1)
    return s.b.add(ArgReduce("max" if s.flag() else "min", s.axis(x), s.flag()), x)


def _cumulate(s: Grower) -> str:
    x = s.pick((F32, F64, I32, I64), 1)
    kind = "sum" if s.upto(3) else "prod"
    return s.b.add(Cumulate(kind, s.axis(x), s.flag(), s.flag()), x)  # type: ignore[arg-type]


def _topk(s: Grower) -> str:
    x = s.pick((F32, F16, F64, I8, U8, I32, I64), 1)
    axis = s.axis(x)
    k = s.upto(s.b.shape(x)[axis])
    y, index = s.b.add_n(TopK(axis, k, s.flag()), x)
    s.values.append(index)
    return y


def _gather(s: Grower) -> str:
    x = s.pick(low=1, high=3)
    axis = s.axis(x)
    return s.b.add(Gather(axis), x, s.index(s.shape(0, 2), s.b.shape(x)[axis]))


def _gather_elements(s: Grower) -> str:
    x = s.pick(low=1)
    axis = s.axis(x)
    shape = [1 + s.upto(d - 1) for d in s.b.shape(x)]
    return s.b.add(GatherElements(axis), x, s.index(shape, s.b.shape(x)[axis]))


def _gather_nd(s: Grower) -> str:
    x = s.pick(low=1)
    shape = s.b.shape(x)
    depth = 1 + s.upto(len(shape) - 1)
    batch = s.upto(len(shape) - depth)
    index = s.index((*shape[:batch], s.draw(extents(5)), depth), min(shape))
    return s.b.add(GatherND(batch), x, index)


def _scatter(s: Grower) -> str:
    x = s.pick((*FLOATS, *INTS[:8]), 1)
    t = s.b.type(x)
    reduction = s.draw(st.sampled_from(REDUCTIONS))
    if s.flag():
        axis = s.axis(x)
        shape = [1 + s.upto(d - 1) for d in t.shape]
        index, updates = s.index(shape, t.shape[axis]), s.new(shape, t.dtype)
        return s.b.add(ScatterElements(axis, reduction), x, index, updates)
    depth = 1 + s.upto(t.rank - 1)
    n = s.draw(extents(5))
    index, updates = s.index((n, depth), min(t.shape)), s.new((n, *t.shape[depth:]), t.dtype)
    return s.b.add(ScatterND(reduction), x, index, updates)


def _normalize(s: Grower) -> str:
    x = s.pick(FLOATS, 1)
    t = s.b.type(x)
    if t.rank > 1 and not s.upto(3):
        return s.b.add(LocalResponse(1 + s.upto(4), 1e-2, 0.75, 1.0, s.axis(x)), x)
    axes = tuple(sorted(s.draw(st.sets(st.integers(0, t.rank - 1), min_size=1))))
    shape = tuple(d if i in axes else 1 for i, d in enumerate(t.shape))
    scale = s.weights(shape, t.dtype) if s.flag() else ""
    bias = s.weights(shape, t.dtype) if scale and s.flag() else ""
    return s.b.add(Normalize(axes, 1e-2, s.flag()), x, scale, bias)


def _resize(s: Grower) -> str:
    x = s.pick((F32, F16, F64, I8, U8, I32), 1)
    shape = s.b.shape(x)
    where = sorted(s.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1, max_size=2)))
    axes = []
    for i in where:
        size = s.draw(extents(11))
        axes.append(Axis(i, size, size / shape[i]))
    modes: tuple[Mode, ...] = ("nearest", "linear", "cubic")
    systems: tuple[Coordinates, ...] = (
        *("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel"),
        *("align_corners", "asymmetric"),
    )
    rounds: tuple[NearestMode, ...] = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    mode = s.draw(st.sampled_from(modes))
    rest = (s.draw(st.sampled_from(systems)), s.draw(st.sampled_from(rounds)), -0.75)
    return s.b.add(Resize(tuple(axes), mode, *rest, s.flag(), s.flag() and mode != "nearest"), x)


def _recurrent(s: Grower) -> str:
    x = s.pick((F32,), 3, 3)
    width, hidden = s.b.shape(x)[2], s.draw(extents(8))
    common = (s.flag(), s.flag(), 0.5 if s.flag() else 0.0)
    rows = [(4, LSTM(*common, s.flag())), (3, GRU(*common, s.flag())), (1, RNN(*common))]
    gates, op = s.draw(st.sampled_from(rows))
    bias = s.weights((gates * hidden,), F32) if s.flag() else ""
    w = s.weights((gates * hidden, width), F32, width)
    outputs = s.b.add_n(op, x, w, s.weights((gates * hidden, hidden), F32, hidden), bias)
    return s.one(outputs)


def _attention(s: Grower) -> str:
    q = s.pick((F32,), 4, 4)
    b, heads, rows, d = s.b.shape(q)
    groups = s.draw(st.sampled_from([g for g in range(1, heads + 1) if heads % g == 0]))
    keys, e = s.draw(extents(8)), s.draw(extents(8))
    k, v = s.weights((b, groups, keys, d), F32, d), s.weights((b, groups, keys, e), F32)
    mask = s.weights((rows, keys), F32) if s.flag() else ""
    return s.b.add(Attention(0.5, 2.0 if s.flag() else 0.0, s.flag(), s.upto(2)), q, k, v, mask)


def _sample(s: Grower) -> str:
    x = s.pick((F32,), 4, 4)
    n, c, h, w = s.b.shape(x)
    kind = s.upto(3)
    if kind == 0:
        modes: tuple[GridMode, ...] = ("nearest", "linear", "cubic")
        pads: tuple[GridPadding, ...] = ("zeros", "border", "reflection")
        op = GridSample(s.draw(st.sampled_from(modes)), s.draw(st.sampled_from(pads)), s.flag())
        return s.b.add(op, x, s.new((n, s.draw(extents(5)), s.draw(extents(5)), 2), F32))
    regions, out = s.draw(extents(3)), (1 + s.upto(2), 1 + s.upto(2))
    corners = np.random.default_rng(s.upto(99)).random((regions, 4)) * [w / 2, h / 2, w, h]
    if kind == 1:
        batch = s.index((regions,), n)
        batch = batch if s.b.type(batch).dtype == I64 else s.b.cast(batch, I64)
        align = RoiAlign(out, 1.0, s.upto(2), "max" if s.flag() else "average", s.flag())
        return s.b.add(align, x, s.const(corners.astype(np.float32), F32), batch)
    if kind == 2:
        rows = np.concatenate([np.zeros((regions, 1)), corners], 1).astype(np.float32)
        return s.b.add(RoiPool(out), x, s.const(rows, F32))
    kernel = (1 + s.upto(min(1, h - 1)), 1 + s.upto(min(1, w - 1)))
    taps = math.prod(kernel)
    where = (h - kernel[0] + 1, w - kernel[1] + 1)
    offset = s.new((n, 2 * taps, *where), F32)
    mask = s.new((n, taps, *where), F32) if s.flag() else ""
    weights = s.weights((2, c, *kernel), F32, c * taps)
    return s.b.add(DeformConv((1, 1), (1, 1), ((0, 0), (0, 0))), x, weights, offset, "", mask)


def _det(s: Grower) -> str:
    n = 1 + s.upto(4)
    return s.b.add(Det(), s.new((*s.shape(0, 2), n, n), s.dtype((F32, F64)), fixed=False))


def _bitcast(s: Grower) -> str:
    x = s.pick((F32, I32, U32, F16, I16, U16, I8, U8, F64, I64, U64))
    same = [t for t in (*INTS[:8],) if t.bits == s.b.type(x).dtype.bits]
    return s.b.add(BitCast(s.dtype(same)), x)


def _unpool(s: Grower) -> str:
    x = s.pick((F32, I8), 1)
    size = 2 * math.prod(s.b.shape(x))
    index = np.random.default_rng(s.upto(99)).permutation(size)[: size // 2]
    name = s.const(index.reshape(s.b.shape(x)).astype(np.int64), I64)
    return s.b.add(Unpool((2, size // 2)), x, name)


def _counted(s: Grower) -> str:
    """An op whose output has a length known at run time only; it ends there."""
    kind = s.upto(3)
    if kind == 0:
        x = s.pick(low=1)
        y, count = s.b.add_n(NonZero(), x)
        s.b.lengths[y] = (1, count)
    elif kind == 1:
        x = s.pick(low=1)
        axis = s.axis(x)
        y, count = s.b.add_n(Compress(axis), x, s.new((s.b.shape(x)[axis],), BOOL))
        s.b.lengths[y] = (axis, count)
    elif kind == 2:
        x = s.pick((F32, I64, I32, U8, I8), 1)
        y, _, _, _, count = s.b.add_n(Unique(None, s.flag()), x)
        s.b.lengths[y] = (0, count)
    else:
        b, c, n = s.draw(extents(3)), s.draw(extents(3)), s.draw(extents())
        rng = np.random.default_rng(s.upto(99))
        boxes = s.const(rng.random((b, n, 4)).astype(np.float32), F32)
        limits = (s.b.scalar(0.3, F32), s.b.scalar(0.1, F32) if s.flag() else "")
        op = NonMaxSuppression(1 + s.upto(5), s.flag())
        y, count = s.b.add_n(op, boxes, s.new((b, c, n), F32, fixed=False), *limits)
        s.b.lengths[y] = (0, count)
    s.ends.append(y)
    return ""


MAKERS: Sequence[Callable[[Grower], str]] = (
    _smooth, _smooth, _integers, _integers, _cast, _matmul, _conv, _conv, _quantized, _quantized,
    _conv_transpose, _pool, _reshape, _transpose, _concat, _slice, _pad, _expand, _softmax,
    _reduce, _arg, _cumulate, _topk, _gather, _gather_elements, _gather_nd, _scatter, _normalize,
    _resize, _recurrent, _attention, _sample, _det, _bitcast, _unpool, _counted,
)  # fmt: skip


@st.composite
def any_graphs(draw: st.DrawFn, max_nodes: int = 6) -> Graph:
    """A verified graph of one to ``max_nodes`` random steps and one to four outputs."""
    s = Grower(draw)
    s.new(s.shape(0, 4), s.dtype(ANY), fixed=False)
    for _ in range(draw(st.integers(1, max_nodes))):
        y = draw(st.sampled_from(MAKERS))(s)
        if not y:
            continue
        if math.prod(s.b.shape(y)) > 4 * MOST:
            continue
        # products of products leave the range of floats
        tame = s.b.type(y).dtype.kind == "float" and s.flag()
        s.values.append(s.b.call("tanh", y) if tame else y)
    picked = dict.fromkeys([s.values[-1], *s.ends])
    picked |= dict.fromkeys(draw(st.lists(st.sampled_from(s.values), max_size=2)))
    return s.b.finish({f"out{i}": v for i, v in enumerate(picked)}, {})
