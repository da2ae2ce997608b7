"""Tables, softmax, attention, normalization, pools and resizes over codes."""

from __future__ import annotations

import numpy as np

from cases_i8.case import Case
from drawn import Made
from sparrow.ops.attention_codes import MASK, UNSEEN, AttentionCodes
from sparrow.ops.concat import Concat
from sparrow.ops.lookup import Lookup
from sparrow.ops.lookup_linear import ENTRIES, REACH, LookupLinear
from sparrow.ops.normalize import Normalize
from sparrow.ops.pool import Pool
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.ops.resize import Axis, Mode, Resize
from sparrow.ops.softmax_codes import SoftmaxCodes
from sparrow.passes.integer import integer
from sparrow.tensor import F32, I8, I16, I32, U8, Affine, TensorType


def lookup_case(seed: int) -> Made:
    c = Case(seed)
    shape = (c.n(1, 11), (16, 32)[c.n(0, 1)]) if seed % 4 == 3 else (c.n(1, 3), c.n(1, 41))
    x, _, _ = c.input(shape)
    to = (I8, U8, F32)[seed % 3]
    table = c.rng.standard_normal(256) if to == F32 else c.codes((256,), to)
    y = c.b.add(Lookup(), x, c.b.const(table.astype(to.numpy), to))
    if c.flag():
        # rows of a concatenation, which lie apart
        other = c.b.add(Lookup(), x, c.b.const(table[::-1].astype(to.numpy), to))
        y = c.b.add(Concat(1), other, y)
    return c.finish(y)


def lookup_linear_case(seed: int) -> Made:
    c = Case(seed)
    dtype, given = (I8, U8, I16, I32)[seed % 4], (I16, I32)[seed // 4 % 2]
    ends = (I16 if dtype == I32 else dtype).limits
    c.feeds["x"] = c.codes((c.n(1, 3), c.n(1, 41)), I16).astype(given.numpy)
    x = c.b.input("x", TensorType(c.feeds["x"].shape, given))
    table = c.rng.integers(-REACH, REACH + 1, ENTRIES).astype(np.int32)
    op = LookupLinear(c.n(*ends), *ends, dtype)
    return c.finish(c.b.add(op, x, c.b.const(table, I32)))


def softmax_case(seed: int) -> Made:
    c = Case(seed)
    shape = (c.n(1, 4), c.n(1, 40), c.n(1, 9))
    x, dtype, zero = c.input(shape)
    axis, scale = c.n(0, 2), float(c.rng.uniform(0.002, 0.2))
    spread = np.exp(-np.arange(256) * scale)
    if seed % 2:
        op = SoftmaxCodes(axis, zero, dtype, step=float(np.float32(c.rng.uniform(0.002, 0.006))))
        return c.finish(c.b.add(op, x, c.b.const(spread.astype(np.float32))))
    op = SoftmaxCodes(axis, zero, dtype, 1 << c.n(28, 30), 22)
    table = np.rint(spread * 2**15).astype(np.int32)
    return c.finish(c.b.add(op, x, c.b.const(table)))


def attention_case(seed: int) -> Made:
    c = Case(seed)
    batch, groups, repeat = c.n(1, 2), c.n(1, 3), c.n(1, 2)
    rows, keys, d, e = c.n(1, 17), c.n(1, 70), c.n(1, 40), c.n(1, 40)
    inside = tuple(c.flag() for _ in range(4))
    shapes = [(groups * repeat, rows, d), (groups, keys, d), (groups, keys, e)]
    wide = seed % 4 > 1
    q, k, v = (
        c.input((batch, n, h, w) if swap else (batch, h, n, w), wide)
        for (h, n, w), swap in zip(shapes, inside, strict=False)
    )
    mask = []
    if c.flag():
        full = (batch, groups * repeat, rows, keys)
        values = c.rng.integers(-500, 500, tuple(n if c.flag() else 1 for n in full))
        pick = c.rng.integers(0, 6, values.shape)
        values = np.select([pick == 0, pick == 1, pick == 2], [UNSEEN, -MASK, MASK], values)
        c.feeds["mask"] = values.astype(np.int32)
        mask = [c.b.input("mask", TensorType(values.shape, I32))]
    dtype = (I8, U8, I16)[seed % 3]
    step = float(np.float32(2.0 ** c.rng.uniform(-2, 9) * 100 / d))
    ratio = float(np.float32(c.rng.uniform(0.5, 2) * (200 if dtype == I16 else 1)))
    zero = 0 if dtype == I16 else c.n(*dtype.limits)
    lost = ((d.bit_length() + 1) // 2, d.bit_length() // 2 + 1) if wide else (0, 0)
    op = AttentionCodes(
        *(q[2], v[2], zero, dtype, step / 1000 if wide else step, ratio, c.flag(), c.n(-3, 60)),
        (inside[0], inside[1], inside[2], inside[3]),
        lost,
    )
    return c.finish(c.b.add(op, q[0], k[0], v[0], *mask))


def resize_case(seed: int) -> Made:
    c = Case(seed)
    low, high = c.n(2, 9), c.n(2, 9)
    x, _, _ = c.input((c.n(1, 2), low, high, c.n(1, 40)))
    rows = [Axis(1, 2 * low + 1, (2 * low + 1) / low), Axis(2, 3, 3 / high)]
    mode: Mode = "cubic" if seed % 3 == 0 else "linear"
    return c.finish(c.b.add(Resize(tuple(rows[seed % 2 :]), mode, rounded=True), x))


def normalization_case(seed: int) -> Made:
    """Its integer form: sums, int64, roots and divisions; extremes whose squares fill int64."""
    c = Case(seed)
    given, to = ((I16, I16), (I16, I8), (I8, I16))[seed % 3]
    shape = (c.n(1, 5), (c.n(1, 70), c.n(200, 600))[c.n(0, 1)])
    c.feeds["x"] = c.codes(shape, given) >> (0, 0, 9)[c.n(0, 2)] * (given == I16)
    step, unit = 10.0 ** c.rng.uniform(-5, -2), 8 / (to.limits[1] + 1)
    x = c.b.add(Dequantize(per_step(step)), c.b.input("x", TensorType(shape, given)))
    gain, bias = (c.b.const(c.rng.uniform(-2, 2, shape[1]).astype(np.float32)) for _ in range(2))
    y = c.b.add(Normalize((1,), 1e-5, c.flag()), x, gain, bias)
    g, feeds = c.finish(c.b.add(Quantize(per_step(unit), to), y))
    return integer(g), feeds


def per_step(scale: float) -> Affine:
    """One scale for a matrix."""
    return Affine(np.full((1, 1), scale, np.float32), np.zeros((1, 1), np.int32), (-1, -1))


def pool_case(seed: int) -> Made:
    c = Case(seed)
    rank = 1 + seed % 2
    kernel = tuple(c.n(1, 4) for _ in range(rank))
    strides = tuple(c.n(1, 3) for _ in range(rank))
    dilations = tuple(c.n(1, 2) if c.n(0, 3) == 0 else 1 for _ in range(rank))
    pads = tuple((c.n(0, k), c.n(0, k)) for k in kernel)
    shape = (c.n(1, 2), *(c.n(9, 19) for _ in range(rank)), c.n(1, 70))
    if seed % 3:
        x, _, _ = c.input(shape)
    else:
        c.feeds["x"] = c.codes(shape, I16)
        x = c.b.input("x", TensorType(shape, I16))
    op = Pool("max", kernel, strides, dilations, pads, channels_last=True)
    return c.finish(c.b.add(op, x))
