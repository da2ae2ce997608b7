"""Sums over 8-bit codes with requantizing epilogues: every row, instruction set and scheme, bit for
bit the interpreter's integers.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx.parser
import onnxruntime as ort
import pytest

from emitted import BYTES_TARGETS, TARGETS, blob, linked
from native_harness import BYTES, BYTES_ONLY, DOTS, EMULATED, emulator, engine, needs_isa, node
from sparrow import lane
from sparrow.builder import Builder
from sparrow.device.host import HostLibrary
from sparrow.device.node import node_library
from sparrow.device.qemu import emulated_library
from sparrow.device.session import ModelLibrary
from sparrow.emit.c import emit
from sparrow.graph import Graph, Module, Scheme
from sparrow.kernels import (
    COMPACT,
    KERNELS,
    attention_i8,
    column_i8,
    compact_i8,
    conv_any,
    conv_i8,
    conv_i16,
    conv_twos_i8,
    depthwise_pairs_i8,
    lookup,
    loop,
    maddubs_i8,
    matmul_any,
    matmul_i8,
    pool_any,
    pool_i8,
    recurrent_i8,
    reduce,
    resize,
    softmax_i8,
    tiling_i8,
    winograd_i8,
)
from sparrow.kernels.case import Kernel
from sparrow.kernels.tiles_matrix import DENSE
from sparrow.ops.attention_codes import MASK, UNSEEN, AttentionCodes
from sparrow.ops.concat import Concat
from sparrow.ops.conv import Conv
from sparrow.ops.gru_codes import GRUCodes
from sparrow.ops.lane import Lane
from sparrow.ops.lookup import Lookup
from sparrow.ops.lookup_linear import ENTRIES, REACH, LookupLinear
from sparrow.ops.lstm_codes import LSTMCodes
from sparrow.ops.matmul import MatMul
from sparrow.ops.normalize import Normalize
from sparrow.ops.pool import Pool
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.ops.resize import Axis, Mode, Resize
from sparrow.ops.softmax_codes import SoftmaxCodes
from sparrow.ops.transpose import Transpose
from sparrow.passes.integer import integer
from sparrow.passes.requantize import Constants, Grid, scaled
from sparrow.planner import plan
from sparrow.reference import evaluate
from sparrow.targets import Target, target
from sparrow.tensor import F32, I8, I16, I32, U8, Affine, Array, DType, TensorType

PORTABLE = (
    *loop.ROWS,
    *reduce.ROWS,
    *(r for r in conv_any.ROWS if r.name == "conv_any"),
    *matmul_any.ROWS,
    *lookup.ROWS,
    *pool_any.ROWS,
    *resize.ROWS,
    *softmax_i8.ROWS,
    *attention_i8.ROWS,
    *recurrent_i8.ROWS,
)
ROUNDS = 16
# RISC-V vectors: what code is compiled for beyond 128 bits, and what runs it
LENGTHS = (("", 128), ("", 256), ("+zvl512b", 512))
_OWN = (
    *depthwise_pairs_i8.ROWS,
    *matmul_i8.ROWS,
    *lookup.ROWS,
    *pool_i8.ROWS,
    *softmax_i8.ROWS,
    *attention_i8.ROWS,
    *recurrent_i8.ROWS,
)
Made = tuple[Graph, dict[str, Array]]


class _Case:
    """A graph of one sum over random codes; operands of extreme values are common."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.b = Builder(f"case{seed}")
        self.feeds: dict[str, Array] = {}
        self.wide = False

    def n(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def flag(self) -> bool:
        return bool(self.n(0, 1))

    def codes(self, shape: tuple[int, ...], dtype: DType) -> Array:
        low, high = dtype.limits
        values = self.rng.integers(low, high + 1, shape)
        if self.n(0, 3) == 0:
            values = np.where(values > (low + high) // 2, high, low)
        return values.astype(dtype.numpy)

    def input(self, shape: tuple[int, ...], wide: bool = False) -> tuple[str, DType, int]:
        """(codes, their type, a zero point); of 16 bits 0."""
        dtype = I16 if wide else (I8, U8)[self.n(0, 1)]
        self.wide |= wide
        name = f"in{len(self.feeds)}"
        self.feeds[name] = self.codes(shape, dtype)
        low, high = dtype.limits
        zero = 0 if wide else (low, high, 0, self.n(low, high))[self.n(0, 3)]
        return self.b.input(name, TensorType(shape, dtype)), dtype, zero

    def weights(self, shape: tuple[int, ...]) -> str:
        return self.b.const(np.maximum(self.codes(shape, I8), -127), I8)

    def bias(self, n: int) -> str:
        values = self.rng.integers(-(1 << 18), 1 << 18, n).astype(np.int32)
        return self.b.const(values, I32) if self.flag() else ""

    def requantized(self, depth: int, columns: int) -> tuple[lane.Expr, list[str]]:
        """A requantization under the default scheme, or a conversion to float."""
        ratio = self.rng.uniform(0.2, 3.0, columns if self.flag() else 1) / (depth**0.5 * 60)
        ratio = ratio / 256 if self.wide else ratio
        constants = Constants(1)
        if self.n(0, 4) == 0:
            scale = constants.take(ratio, F32)
            e: lane.Expr = lane.call("mul", lane.cast(lane.Arg(0, I32), F32), scale)
        else:
            dtype = (I8, U8)[self.n(0, 1)]
            low, high = dtype.limits
            grid = Grid(self.n(low, high), low, high, dtype)
            if self.wide and self.flag():
                ratio, grid = 256 * ratio, Grid(0, *I16.limits, I16)
            made = scaled("f32", lane.Arg(0, I32), ratio, grid, constants)
            assert not hasattr(made, "reason")
            e = made
        return e, [self.b.const(a) for a in constants.arrays]

    def finish(self, y: str) -> Made:
        return self.b.finish({"y": y}, {}), self.feeds

    def sum(self, op: Conv | MatMul, x: str, w: str, bias: str, depth: int, columns: int) -> Made:
        if self.n(0, 4) == 0:
            return self.finish(self.b.add(op, *[v for v in (x, w, bias) if v]))
        expr, extras = self.requantized(depth, columns)
        return self.finish(self.b.add(replace(op, epilogue=expr), x, w, bias, *extras))


def conv_case(seed: int, wide: bool = False) -> Made:
    c = _Case(seed)
    rank = 1 + seed % 2
    group = (1, 1, 1, 2, 3)[c.n(0, 4)]
    ci, co = c.n(1, 21), c.n(1, 70)
    kernel = tuple((1, 2, 3, 3, 5)[c.n(0, 4)] for _ in range(rank))
    dilations = tuple(c.n(1, 2) if c.n(0, 3) == 0 else 1 for _ in range(rank))
    strides = tuple(c.n(1, 3) for _ in range(rank))
    pads = tuple((c.n(0, 2), c.n(0, 2)) for _ in range(rank))
    if c.n(0, 2) == 0:
        kernel, pads, ci = (1,) * rank, ((0, 0),) * rank, 4 * c.n(1, 9)
    spatial = tuple(c.n(9, 19) for _ in range(rank))
    x, _, zero = c.input((c.n(1, 2), *spatial, group * ci), wide)
    w = c.weights((group * co, ci, *kernel))
    op = Conv(strides, dilations, pads, group, True, zero=zero)
    depth = ci * int(np.prod(kernel))
    return c.sum(op, x, w, c.bias(group * co), depth, group * co)


def groups_case(seed: int) -> Made:
    """Groups of fewer channels than a product takes or a vector holds, that divide evenly or not,
    beside one another or a channel each that gives several.
    """
    c = _Case(seed)
    group, ci, co = c.n(2, 18), c.n(1, 6), c.n(1, 9)
    co += ci == co == 1
    kernel = (c.n(1, 3), c.n(1, 3))
    pads = tuple((c.n(0, 2), c.n(0, 2)) for _ in range(2))
    x, _, zero = c.input((c.n(1, 2), c.n(5, 12), c.n(5, 12), group * ci))
    op = Conv((c.n(1, 2), c.n(1, 2)), (1, c.n(1, 2)), pads, group, True, zero=zero)
    w = c.weights((group * co, ci, *kernel))
    return c.sum(op, x, w, c.bias(group * co), ci * kernel[0] * kernel[1], group * co)


def upright_case(seed: int) -> Made:
    """One output pixel a row: images one wide, kernels as wide as they are, a step beyond."""
    c = _Case(seed)
    group = (1, 1, 1, 2)[c.n(0, 3)]
    ci, co = c.n(1, 12), c.n(1, 40)
    wide, kh, sh, dh = c.n(1, 6), c.n(1, 4), c.n(1, 3), c.n(1, 2)
    kw = (wide, c.n(1, wide))[c.n(0, 1)]
    pads = ((c.n(0, 2), c.n(0, 2)), (0, 0))
    if kw == wide and c.flag():
        pads = (pads[0], (c.n(0, 1), 0))
        kw += pads[1][0]
    x, _, zero = c.input((c.n(1, 2), c.n(9, 40), wide, group * ci))
    op = Conv((sh, wide), (dh, 1), pads, group, True, zero=zero)
    w = c.weights((group * co, ci, kh, kw))
    return c.sum(op, x, w, c.bias(group * co), ci * kh * kw, group * co)


def two_rows_case(seed: int) -> Made:
    """Kernels that step by fewer rows than they have, over up to one vector of channels."""
    c = _Case(seed)
    stride, ci, co = c.n(1, 3), c.n(1, 9), (c.n(1, 15), 16)[c.n(0, 1)]
    kernel = (stride + c.n(1, 3), c.n(1, 6))
    spatial = (c.n(8, 25), c.n(9, 50))
    pads = tuple((c.n(0, 2), c.n(0, 2)) for _ in range(2))
    x, _, zero = c.input((c.n(1, 2), *spatial, ci))
    op = Conv((stride, c.n(1, 2)), (1, c.n(1, 2)), pads, 1, True, zero=zero)
    return c.sum(op, x, c.weights((co, ci, *kernel)), c.bias(co), ci * kernel[0] * kernel[1], co)


def short_sums_case(seed: int) -> Made:
    """Rows of whole tiles and of a rest, or of one tile, vectors that are filled and that are not,
    kernel rows of one run and of several.
    """
    c = _Case(seed)
    ci, co, k = c.n(1, 48), (c.n(1, 70), 16 * c.n(1, 4))[c.n(0, 1)], (1, c.n(1, 3))[c.n(0, 1)]
    spatial = (c.n(k, 6), (c.n(k, 60), 42 + k - 1)[c.n(0, 1)])
    pads = tuple((c.n(0, k - 1), c.n(0, k - 1)) for _ in range(2))
    x, _, zero = c.input((c.n(1, 2), *spatial, ci))
    op = Conv((c.n(1, 2), c.n(1, 2)), (1, c.n(1, 2)), pads, 1, True, zero=zero)
    return c.sum(op, x, c.weights((co, ci, k, k)), c.bias(co), k * k * ci, co)


def winograd_case(seed: int, whole: bool = True) -> Made:
    """Images of less than a tile and of odd sizes, blocks of one row of tiles and of all; channels
    that fill vectors or not.
    """
    c = _Case(seed)
    ci, co = (16 * c.n(1, 3), 32 * c.n(1, 2)) if whole else (c.n(1, 50), c.n(1, 70))
    pads = tuple((c.n(0, 2), c.n(0, 2)) for _ in range(2))
    spatial = (c.n(3, 9), c.n(3, 9))
    x, _, zero = c.input((c.n(1, 2), *spatial, ci))
    op = Conv((1, 1), (1, 1), pads, 1, True, zero=zero)
    return c.sum(op, x, c.weights((co, ci, 3, 3)), c.bias(co), 9 * ci, co)


def depthwise_case(seed: int, wide: bool = False) -> Made:
    c = _Case(seed)
    rank = 1 + seed % 2
    channels = (c.n(1, 7), 16, c.n(17, 40))[c.n(0, 2)]
    kernel = tuple((1, 3, 3, 5, 7)[c.n(0, 4)] for _ in range(rank))
    dilations = tuple(c.n(1, 2) if c.n(0, 3) == 0 else 1 for _ in range(rank))
    strides = tuple(c.n(1, 2) for _ in range(rank))
    pads = tuple((c.n(0, 3), c.n(0, 3)) for _ in range(rank))
    spatial = tuple(c.n(13, 20) for _ in range(rank))
    x, _, zero = c.input((c.n(1, 2), *spatial, channels), wide)
    w = c.weights((channels, 1, *kernel))
    op = Conv(strides, dilations, pads, channels, True, zero=zero)
    return c.sum(op, x, w, c.bias(channels), int(np.prod(kernel)), channels)


def interleaved_case(seed: int) -> Made:
    """Depthwise: vectors by fours and what is left of them, steps of whole pairs of rows and of
    others, last rows by themselves, last tiles that begin before the former ones end.
    """
    c = _Case(seed)
    channels = (c.n(1, 7), 32, c.n(33, 100))[c.n(0, 2)]
    kernel = tuple((1, 2, 3, 4, 5, 9)[c.n(0, 5)] for _ in range(2))
    dilations = tuple(c.n(1, 2) if c.n(0, 3) == 0 else 1 for _ in range(2))
    strides = tuple(c.n(1, 4) for _ in range(2))
    pads = tuple((c.n(0, 4), c.n(0, 4)) for _ in range(2))
    spatial = tuple(c.n((k - 1) * d + 1, 24) for k, d in zip(kernel, dilations, strict=True))
    x, _, zero = c.input((c.n(1, 2), *spatial, channels))
    op = Conv(strides, dilations, pads, channels, True, zero=zero)
    w = c.weights((channels, 1, *kernel))
    return c.sum(op, x, w, c.bias(channels), int(np.prod(kernel)), channels)


def wide_case(seed: int) -> Made:
    """Depthwise: one window over all of an image, of equal taps or any, or long rows of taps."""
    c = _Case(seed)
    channels, rank, whole = c.n(1, 40), c.n(1, 2), c.flag()
    flat = (1,) * (rank - 1)
    kernel: tuple[int, ...] = (*flat, c.n(30, 70))
    spatial: tuple[int, ...] = (*flat, c.n(40, 90))
    pads = ((0, 0),) * len(flat) + ((c.n(20, 35), c.n(0, 35)),)
    if whole:
        kernel = spatial = (c.n(1, 70),) if rank == 1 else (c.n(1, 9), c.n(1, 9))
        pads = ((0, 0),) * rank
    strides = (*flat, c.n(1, 2))
    x, _, zero = c.input((c.n(1, 2), *spatial, channels))
    ones = c.b.const(np.ones((channels, 1, *kernel), np.int8), I8)
    w = ones if whole and c.flag() else c.weights((channels, 1, *kernel))
    op = Conv(strides, (1,) * rank, pads, channels, True, zero=zero)
    return c.sum(op, x, w, c.bias(channels), int(np.prod(kernel)), channels)


def signal_case(seed: int) -> Made:
    """Windows of hundreds of samples of a signal, as spectra are computed from."""
    c = _Case(seed)
    channels, flat = c.n(1, 3), (1,) * c.n(0, 1)
    taps, outputs = c.n(240, 600), c.n(1, 20)
    x, _, zero = c.input((1, *flat, c.n(taps, 1500), channels))
    pads = ((0, 0),) * len(flat) + ((c.n(0, 200), c.n(0, 200)) if c.flag() else (0, 0),)
    op = Conv((*flat, c.n(1, 400)), (1,) * (1 + len(flat)), pads, 1, True, zero=zero)
    w = c.weights((outputs, channels, *flat, taps))
    return c.sum(op, x, w, c.bias(outputs), channels * taps, outputs)


def rows_case(seed: int) -> Made:
    """Depthwise rows that `compact_i8` takes in twos, of which blocks have any number."""
    c = _Case(seed)
    kernel = (3, (3, 5)[c.n(0, 1)])
    channels = (c.n(2, 9), 8 * c.n(1, 3))[c.n(0, 1)]
    spatial = (c.n(1, 9), (5 * c.n(1, 3), c.n(2, 13))[c.n(0, 1)])
    x, _, zero = c.input((c.n(1, 2), *spatial, channels))
    pads = tuple((k // 2, k // 2) for k in kernel)
    op = Conv((1, 1), (1, 1), pads, channels, True, zero=zero)
    return c.sum(op, x, c.weights((channels, 1, *kernel)), c.bias(channels), 15, channels)


def matmul_case(seed: int, wide: bool = False) -> Made:
    c = _Case(seed)
    m, n, k = (1, c.n(1, 33))[c.n(0, 1)], c.n(1, 90), c.n(1, 70)
    batch = (c.n(1, 3),) if c.flag() else ()
    trans_b = c.flag()
    x, _, zero = c.input((*batch, m, k), wide)
    w = c.weights((n, k) if trans_b else (k, n))
    return c.sum(MatMul(False, trans_b, zero=zero), x, w, c.bias(n), k, n)


def column_case(seed: int) -> Made:
    """One column, as zero points of weights take it: ones, or any weights."""
    c = _Case(seed)
    rows, k = c.n(1, 43), 16 * c.n(1, 9)
    x, _, zero = c.input((1, rows, 2, k) if seed % 2 else (rows, k))
    ones = c.b.const(np.ones(k, np.int8).reshape((1, k, 1, 1) if seed % 2 else (k, 1)), I8)
    w = ones if c.flag() else c.weights((1, k, 1, 1) if seed % 2 else (k, 1))
    none = ((0, 0), (0, 0))
    conv = Conv((1, 1), (1, 1), none, 1, True, zero=zero)
    op = conv if seed % 2 else MatMul(False, False, zero=zero)
    bias = c.bias(1)
    return c.finish(c.b.add(op, *[v for v in (x, w, bias) if v]))


def parts_case(seed: int) -> Made:
    """One matrix times several constant ones, whose products lie apart."""
    c = _Case(seed)
    parts, m, n, k = c.n(2, 4), c.n(1, 33), c.n(16, 90), c.n(1, 70)
    trans_b = c.flag()
    x, _, zero = c.input((1, 1, m, k) if c.flag() else (m, k))
    w = c.weights((parts, n, k) if trans_b else (parts, k, n))
    expr, extras = c.requantized(k, parts * n)
    shaped = [
        c.b.const(v.reshape(parts, 1, n) if v.size > 1 else v)
        for v in (c.b.consts[name] for name in extras)
    ]
    op = MatMul(False, trans_b, zero=zero, epilogue=expr)
    y = c.b.add(op, x, w, c.bias(n), *shaped)
    return c.finish(c.b.add(Concat(len(c.b.type(y).shape) - 1), y, y) if c.flag() else y)


def product_case(seed: int) -> Made:
    """Two operands known at run time, turned by views as heads are."""
    c = _Case(seed)
    m, n, k, heads = (1, c.n(1, 19))[c.n(0, 1)], c.n(1, 70), c.n(1, 50), c.n(1, 3)
    trans_a, trans_b = c.flag(), c.flag()
    batch = (c.n(1, 2), heads)
    left = (k, m) if trans_a else (m, k)
    right = (n, k) if trans_b else (k, n)
    if c.flag():
        a, _, zero = c.input((batch[0], left[0], heads, left[1]))
        a = c.b.add(Transpose((0, 2, 1, 3)), a)
    else:
        a, _, zero = c.input((*batch, *left))
    b, _, zero_b = c.input((*(batch if c.flag() else ()), *right))
    op = MatMul(trans_a, trans_b, zero=zero, zero_b=zero_b)
    return c.sum(op, a, b, c.bias(n), k, n)


def lookup_case(seed: int) -> Made:
    c = _Case(seed)
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
    c = _Case(seed)
    dtype, given = (I8, U8, I16, I32)[seed % 4], (I16, I32)[seed // 4 % 2]
    ends = (I16 if dtype == I32 else dtype).limits
    c.feeds["x"] = c.codes((c.n(1, 3), c.n(1, 41)), I16).astype(given.numpy)
    x = c.b.input("x", TensorType(c.feeds["x"].shape, given))
    table = c.rng.integers(-REACH, REACH + 1, ENTRIES).astype(np.int32)
    op = LookupLinear(c.n(*ends), *ends, dtype)
    return c.finish(c.b.add(op, x, c.b.const(table, I32)))


def softmax_case(seed: int) -> Made:
    c = _Case(seed)
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
    c = _Case(seed)
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


def _gates(c: _Case, gates: int) -> tuple[tuple[int, int, int], list[str]]:
    """(time, batch, hidden) and the operands x, r and ratio of a recurrent layer."""
    shape = c.n(1, 5), c.n(1, 2), (c.n(1, 70), 16, 32)[c.n(0, 2)]
    time, batch, hidden = shape
    reach = 1 << (20 if c.n(0, 3) == 0 else 13)
    c.feeds["x"] = c.rng.integers(-reach, reach + 1, (time, batch, gates * hidden), np.int32)
    x = c.b.input("x", TensorType(c.feeds["x"].shape, I32))
    ratio = c.rng.uniform(0.05, 3, gates * hidden).astype(np.float32)
    return shape, [x, c.weights((gates * hidden, hidden)), c.b.const(ratio)]


def _state(c: _Case, name: str, dtype: DType, shape: tuple[int, ...], reach: int) -> str:
    if c.flag():
        return ""
    c.feeds[name] = c.rng.integers(-reach, reach, shape).astype(dtype.numpy)
    return c.b.input(name, TensorType(shape, dtype))


def _first(c: _Case, op: LSTMCodes | GRUCodes, operands: list[str]) -> Made:
    """All results of a layer in one tensor."""
    flat = [
        c.b.add(
            Lane(lane.cast(lane.Arg(0, c.b.type(y).dtype), I32)),
            c.b.reshape(y, (c.b.type(y).size,)),
        )
        for y in c.b.add_n(op, *operands)
    ]
    return c.finish(c.b.add(Concat(0), *flat))


def lstm_case(seed: int) -> Made:
    c = _Case(seed)
    (_, batch, hidden), operands = _gates(c, 4)
    h0 = _state(c, "h0", I8, (batch, hidden), 127)
    c0 = _state(c, "c0", I32, (batch, hidden), 1 << (31 if c.flag() else 23))
    step = float(np.float32(2.0**-30 * c.rng.uniform(60, 200)))
    clip = (0, 0, c.n(100, 40000))[c.n(0, 2)]
    zero = (-128, 127, c.n(-128, 127))[c.n(0, 2)]
    op = LSTMCodes(zero, step, c.flag(), c.flag(), clip, c.flag())
    return _first(c, op, [*operands, h0, c0])


def lstm_of_halves_case(seed: int) -> Made:
    """Hidden codes of up to 16 bits, whose ratios are those of weights that mean something."""
    c = _Case(seed)
    (_, batch, hidden), (x, r, _) = _gates(c, 4)
    most = (32767, 16384, c.n(200, 32767))[c.n(0, 2)]
    ratio = c.b.const(c.rng.uniform(0.1, 30, 4 * hidden).astype(np.float32) / np.float32(most))
    h0 = _state(c, "h0", I16, (batch, hidden), most)
    c0 = _state(c, "c0", I32, (batch, hidden), 1 << (31 if c.flag() else 23))
    step = float(np.float32(2.0**-30 * most * c.rng.uniform(0.9, 1.2)))
    clip = (0, 0, c.n(100, 40000))[c.n(0, 2)]
    op = LSTMCodes(0, step, c.flag(), c.flag(), clip, c.flag(), most)
    return _first(c, op, [x, r, ratio, h0, c0])


def gru_case(seed: int) -> Made:
    c = _Case(seed)
    (_, batch, hidden), operands = _gates(c, 3)
    h0 = _state(c, "h0", I32, (batch, hidden), 1 << (31 if c.flag() else 20))
    step = float(np.float32(2.0**-20 * c.rng.uniform(60, 200)))
    clip = (0, 0, c.n(100, 40000))[c.n(0, 2)]
    zero = (-128, 127, c.n(-128, 127))[c.n(0, 2)]
    op = GRUCodes(zero, step, c.flag(), c.flag(), clip, c.flag())
    rb = c.b.const(c.rng.integers(-(1 << 20), 1 << 20, hidden, np.int32)) if c.flag() else ""
    return _first(c, op, [*operands, h0, rb if op.reset_after else ""])


def resize_case(seed: int) -> Made:
    c = _Case(seed)
    low, high = c.n(2, 9), c.n(2, 9)
    x, _, _ = c.input((c.n(1, 2), low, high, c.n(1, 40)))
    rows = [Axis(1, 2 * low + 1, (2 * low + 1) / low), Axis(2, 3, 3 / high)]
    mode: Mode = "cubic" if seed % 3 == 0 else "linear"
    return c.finish(c.b.add(Resize(tuple(rows[seed % 2 :]), mode, rounded=True), x))


def normalization_case(seed: int) -> Made:
    """Its integer form: sums, int64, roots and divisions; extremes whose squares fill int64."""
    c = _Case(seed)
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
    c = _Case(seed)
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


MAKERS = (
    *(conv_case, depthwise_case, matmul_case, lookup_case, pool_case, softmax_case, resize_case),
    *(
        attention_case,
        lstm_case,
        lstm_of_halves_case,
        gru_case,
        product_case,
        lookup_linear_case,
        wide_case,
    ),
    *(normalization_case, upright_case),
)


def _compare(
    cases: list[Made],
    isa: str,
    kernels: tuple[Kernel, ...],
    folder: Path,
    threads: int = 1,
    device: Target | None = None,
) -> set[str]:
    module = Module("m", tuple(g for g, _ in cases))
    row = device or target({**BYTES_TARGETS, **EMULATED, **BYTES_ONLY}[isa])
    p = plan(module, row, kernels=kernels, threads=threads)
    libraries: list[ModelLibrary] = []
    for longer, bits in LENGTHS if isa == "rvv" else (("", 0),):
        cpu = f"rv64,v=true,vext_spec=v1.0,vlen={bits}" if bits else ""
        built = replace(p, target=replace(p.target, cpu=p.target.cpu + longer))
        path = linked(built, folder, parts=True, flags=("-O1",))
        if isa.startswith("wasm"):
            libraries.append(node_library(path))
        elif isa in EMULATED:
            libraries.append(emulated_library(path, p.target.machine, cpu))
        else:
            needs_isa(isa)
            libraries.append(HostLibrary(path))
    sessions = [library.open(blob(p)) for library in libraries]
    for i, (g, feeds) in enumerate(cases):
        want = evaluate(g, feeds)["y"]
        for s in sessions:
            (got,) = s.run(i, [feeds[v] for v in g.inputs])
            np.testing.assert_array_equal(got, want, err_msg=f"{g.name}: {g.nodes[-1].op}")
    return {step.kernel for e in p.entries for step in e.steps}


# each multiplies bytes in its own way
FOREIGN = ("neon32", "neon", "neon_dot", "neon_i8mm", "rvv")


ENGINES = ("wasm", "wasm_simd", *(f"wasm_{kind}" for kind in DOTS))


@pytest.mark.parametrize("isa", [*BYTES, *ENGINES, *FOREIGN])
def test_fast_rows_give_the_integers_of_the_reference(isa: str, tmp_path: Path) -> None:
    if isa.startswith("wasm"):
        engine(isa)
    if isa in FOREIGN:
        emulator(target(EMULATED[isa]).machine)
    rounds = 4 if isa in FOREIGN else ROUNDS
    cases = [make(1000 * k + s) for k, make in enumerate(MAKERS) for s in range(rounds)]
    used = _compare(cases, isa, KERNELS, tmp_path)
    if isa == "amx":
        # small products are predicted cheaper without its matrix registers
        few = tuple(k for k in KERNELS if k.name not in ("conv2d_i8", "gemm_i8"))
        used |= _compare(cases, isa, few, tmp_path)
    sums = compact_i8.ENGINES if isa.startswith("wasm") else conv_i8.ROWS
    if isa in TWOS and isa != "wasm_maddubs":
        sums = (*TWOS[isa], *(r for r in sums if r.op is Conv and "depthwise" in r.name))
    assert used >= {r.name for r in (*sums, *_OWN) if not r.isas or isa in r.isas}
    assert "resize" in used


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    "isa", ["avx2", "avx512", "wasm", "wasm_simd", "wasm_relaxed", "wasm_maddubs"]
)
@pytest.mark.parametrize("table", [KERNELS, COMPACT])
def test_codes_of_16_bits_give_the_integers_of_the_reference(
    isa: str, threads: int, table: tuple[Kernel, ...], tmp_path: Path
) -> None:
    if isa.startswith("wasm"):
        engine(isa)
    makers = (conv_case, depthwise_case, matmul_case)
    cases = [make(1000 * k + s, wide=True) for k, make in enumerate(makers) for s in range(12)]
    used = _compare(cases, isa, table, tmp_path, threads)
    rows = (*conv_i16.ROWS, *depthwise_pairs_i8.ROWS_I16, *compact_i8.ROWS_I16)
    assert used >= {r.name for r in rows if isa in r.isas and r in table}


@pytest.mark.parametrize(("threads", "lines"), [(1, depthwise_pairs_i8.LINES), (3, 1)])
def test_rows_interleaved_by_pairs_give_the_integers_of_the_reference(
    threads: int, lines: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # of few bytes blocks are a row of tiles
    monkeypatch.setattr(depthwise_pairs_i8, "LINES", lines)
    cases = [interleaved_case(s) for s in range(24)]
    rows = (*depthwise_pairs_i8.ROWS, *PORTABLE)
    assert "depthwise_pairs_i8" in _compare(cases, "avx2", rows, tmp_path, threads)


@pytest.mark.parametrize("isa", ["neon_dot", "neon_i8mm"])
def test_single_columns_are_added_up_along_rows(isa: str, tmp_path: Path) -> None:
    emulator(target(EMULATED[isa]).machine)
    used = _compare([column_case(s) for s in range(24)], isa, KERNELS, tmp_path)
    assert used == {r.name for r in column_i8.ROWS}


@pytest.mark.parametrize("trans_b", [False, True])
def test_a_transposed_operand_meets_constant_weights(trans_b: bool, tmp_path: Path) -> None:
    """Channels-first images by a matrix, as attention over channels leaves them."""
    c = _Case(0)
    x, _, zero = c.input((1, 37, 51))
    w = c.weights((19, 37) if trans_b else (37, 19))
    case = c.sum(MatMul(True, trans_b, zero=zero), x, w, c.bias(19), 37, 19)
    assert "matmul_i8" in _compare([case], "avx2", KERNELS, tmp_path)


# (instruction set, threads): tasks are cut alike on all of them
COMPACTED = (
    *(("scalar", 1), ("avx2", 1), ("avx512vnni", 1), ("avx512vnni", 2)),
    *(("neon_dot", 1), ("neon_i8mm", 1)),
)


@pytest.mark.parametrize(("isa", "threads"), COMPACTED)
def test_compact_rows_give_the_integers_of_the_reference(
    isa: str, threads: int, tmp_path: Path
) -> None:
    if isa in FOREIGN:
        emulator(target(EMULATED[isa]).machine)
    makers = (conv_case, depthwise_case, matmul_case, wide_case)
    cases = [make(1000 * k + s) for k, make in enumerate(makers) for s in range(8)]
    used = _compare(cases, isa, COMPACT, tmp_path, threads)
    rows = {r.name for r in compact_i8.ROWS}
    # on one lane the portable depthwise row costs less
    assert used >= (rows - {"depthwise_compact_i8"} if isa == "scalar" else rows)


@pytest.mark.parametrize(("threads", "dense"), [(1, DENSE), (1, 0.0), (3, 0.0)])
def test_matrix_registers_give_the_integers_of_the_reference(
    threads: int, dense: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiling_i8, "DENSE", dense)
    makers = (conv_case, matmul_case, two_rows_case)
    cases = [make(1000 * k + s) for k, make in enumerate(makers) for s in range(12)]
    rows = [r for r in conv_i8.ROWS if r.name.endswith("_matrix")]
    used = _compare(cases, "amx", (*rows, *PORTABLE), tmp_path, threads)
    assert used >= {r.name for r in rows}


def test_onnxruntime_keeps_its_matrix_registers_beside_ours(tmp_path: Path) -> None:
    # it takes registers of another shape for its own where half of it agrees: illegal instruction
    needs_isa("amx")
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (64, 256)).astype(np.uint8)
    b = rng.integers(-127, 128, (256, 64)).astype(np.int8)
    theirs = ort.InferenceSession(
        onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 13]> g (uint8[64, 256] a, int8[256, 64] b) => '
            "(int32[64, 64] y) { y = MatMulInteger (a, b) }"
        ).SerializeToString()
    )
    want = a.astype(np.int32) @ b.astype(np.int32)
    rows = [r for r in conv_i8.ROWS if r.name.endswith("_matrix")]
    c = _Case(0)
    x, _, zero = c.input((1, 1, 7, 64))
    op = Conv((1, 1), (1, 1), ((0, 0), (0, 0)), 1, True, zero=zero)
    case = c.sum(op, x, c.weights((16, 64, 1, 1)), c.bias(16), 64, 16)
    np.testing.assert_array_equal(theirs.run(None, {"a": a, "b": b})[0], want)
    assert "conv2d_i8_matrix" in _compare([case], "amx", (*rows, *PORTABLE), tmp_path)
    np.testing.assert_array_equal(theirs.run(None, {"a": a, "b": b})[0], want)


@pytest.mark.parametrize("isa", ["wasm_simd", "wasm_usdot"])
def test_rows_for_engines_share_their_panels_among_threads(isa: str, tmp_path: Path) -> None:
    engine(isa)
    makers = (conv_case, depthwise_case, matmul_case)
    cases = [make(1000 * k + s) for k, make in enumerate(makers) for s in range(8)]
    assert _compare(cases, isa, KERNELS, tmp_path, threads=4) >= {
        r.name for r in compact_i8.ENGINES
    }


TWOS = {"wasm_maddubs": maddubs_i8.ROWS, "avx2": conv_twos_i8.ROWS}


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("isa", TWOS)
def test_products_by_twos_give_the_integers_of_the_reference(
    isa: str, threads: int, tmp_path: Path
) -> None:
    if isa.startswith("wasm"):
        engine(isa)
    makers = (conv_case, matmul_case, upright_case, wide_case, signal_case)
    cases = [make(1000 * k + s) for k, make in enumerate(makers) for s in range(16)]
    rows = (*TWOS[isa], *PORTABLE)
    assert _compare(cases, isa, rows, tmp_path, threads) >= {row.name for row in TWOS[isa]}


@pytest.mark.parametrize("isa", TWOS)
def test_products_by_twos_are_exact_for_the_largest_codes(isa: str, tmp_path: Path) -> None:
    if isa.startswith("wasm"):
        engine(isa)
    cases = [extreme_case(ci, seed) for ci in (3, 4, 224) for seed in range(3)]
    assert _compare(cases, isa, TWOS[isa], tmp_path) == {TWOS[isa][0].name}


@pytest.mark.parametrize(
    ("name", "least", "taken"),
    [
        ("wasm32_maddubs", -127, "conv2d_maddubs_i8"),
        ("wasm32_maddubs", -128, "conv2d_compact_i8"),
        ("x86_64_v3", -127, "conv2d_twos_i8"),
        ("x86_64_v3", -128, "conv2d_i8"),
    ],
)
def test_products_by_twos_have_no_weight_that_cannot_be_negated(
    name: str, least: int, taken: str
) -> None:
    c = _Case(0)
    x = c.b.input("x", TensorType((1, 20, 20, 64), I8))
    w = c.rng.normal(0, 30, (64, 64, 1, 1)).round().clip(-127, 127)
    w[0] = least
    op = Conv((1, 1), (1, 1), ((0, 0), (0, 0)), 1, True)
    module = Module("m", (c.finish(c.b.add(op, x, c.b.const(w.astype(np.int8), I8)))[0],))
    steps = plan(module, target(name)).entries[0].steps
    assert {s.kernel for s in steps} == {taken}


@pytest.mark.parametrize(
    ("isa", "threads"),
    [("scalar", 1), ("wasm_simd", 1), ("wasm_usdot", 1), ("wasm_usdot", 3), ("wasm_maddubs", 1)],
)
def test_windows_of_a_signal_take_no_portable_row(isa: str, threads: int, tmp_path: Path) -> None:
    if isa.startswith("wasm"):
        engine(isa)
    kernels = COMPACT if isa == "scalar" else KERNELS
    used = _compare([signal_case(s) for s in range(16)], isa, kernels, tmp_path, threads)
    assert used & {"conv2d_compact_i8", "conv2d_maddubs_i8"} and "conv_any" not in used


@pytest.mark.parametrize(("isa", "threads"), [("avx2", 1), ("avx2", 3), ("avx512vnni", 1)])
def test_groups_of_few_channels_are_taken_together(isa: str, threads: int, tmp_path: Path) -> None:
    used = _compare([groups_case(s) for s in range(24)], isa, KERNELS, tmp_path, threads)
    assert used & {"conv2d_twos_i8", "conv2d_i8"} and "conv_any" not in used


@pytest.mark.parametrize("threads", [1, 3])
def test_pairs_of_rows_serve_two_rows(threads: int, tmp_path: Path) -> None:
    node()
    used = _compare([rows_case(s) for s in range(24)], "wasm_simd", KERNELS, tmp_path, threads)
    assert "depthwise_compact_i8" in used


@pytest.mark.parametrize("isa", ["avx2", "avx512vnni"])
def test_rows_of_a_head_are_shared_among_threads(isa: str, tmp_path: Path) -> None:
    needs_isa(isa)
    cases = [attention_case(s) for s in range(12)]
    assert _compare(cases, isa, attention_i8.ROWS, tmp_path, threads=3) >= {"attention_i8"}


@pytest.mark.parametrize(("isa", "threads"), [("avx2", 1), ("avx512vnni", 1), ("avx512vnni", 3)])
def test_two_rows_share_broadcasts(isa: str, threads: int, tmp_path: Path) -> None:
    cases = [two_rows_case(s) for s in range(24)]
    assert _compare(cases, isa, conv_i8.ROWS, tmp_path, threads) >= {"conv2d_i8"}
    if isa == "avx512vnni":
        module = Module("m", tuple(g for g, _ in cases))
        planned = plan(module, target(BYTES_TARGETS[isa]), threads=threads)
        assert emit(planned).files["model.c"].decode().count(".ro = 2") > len(cases) // 2


@pytest.mark.parametrize(("isa", "threads"), [("avx512vnni", 1), ("avx512vnni", 3), ("avx2", 1)])
def test_epilogues_between_the_sums_of_the_next_tile(
    isa: str, threads: int, tmp_path: Path
) -> None:
    cases = [short_sums_case(s) for s in range(48)]
    assert _compare(cases, isa, conv_i8.ROWS, tmp_path, threads) >= {"conv2d_i8"}
    module = Module("m", tuple(g for g, _ in cases))
    text = emit(plan(module, target(BYTES_TARGETS[isa]), threads=threads)).files["model.c"].decode()
    turns = len(re.findall(r"\.between = [1-9]", text))
    assert turns > len(cases) // 3 if isa == "avx512vnni" else not turns


@pytest.mark.parametrize(
    ("isa", "threads"),
    [("scalar", 1), ("avx2", 1), ("avx512vnni", 1), ("avx512vnni", 3), ("neon_dot", 1)],
)
def test_products_in_parts_are_one_product(isa: str, threads: int, tmp_path: Path) -> None:
    if isa in FOREIGN:
        emulator(target(EMULATED[isa]).machine)
    cases = [parts_case(seed) for seed in range(24)]
    row = "gemm_twos_i8" if isa == "avx2" else "gemm_i8"
    assert row in _compare(cases, isa, KERNELS, tmp_path, threads)


# the same rows for vectors of other lengths, which have faster ones
WINOGRAD = {row.name: (replace(row, isas=()),) for row in winograd_i8.ROWS}


@pytest.mark.parametrize("name", WINOGRAD)
@pytest.mark.parametrize(
    ("isa", "threads"),
    [
        *(("wasm", 1), ("wasm_simd", 1), ("wasm_usdot", 1)),
        *(("scalar", 1), ("avx2", 1), ("avx2", 3), ("neon", 1)),
    ],
)
def test_winograd_gives_the_integers_of_the_direct_sum(
    isa: str, threads: int, name: str, tmp_path: Path
) -> None:
    if isa.startswith("wasm"):
        engine(isa)
    if isa in FOREIGN:
        emulator(target(EMULATED[isa]).machine)
    cases = [winograd_case(seed) for seed in range(8)]
    assert _compare(cases, isa, WINOGRAD[name], tmp_path, threads) == {name}


@pytest.mark.parametrize("name", WINOGRAD)
@pytest.mark.parametrize(("isa", "threads"), [("scalar", 1), ("avx2", 1), ("avx2", 3), ("neon", 1)])
def test_winograd_of_channels_that_fill_no_vectors(
    isa: str, threads: int, name: str, tmp_path: Path
) -> None:
    if isa in FOREIGN:
        emulator(target(EMULATED[isa]).machine)
    cases = [winograd_case(300 + seed, whole=False) for seed in range(16)]
    assert _compare(cases, isa, WINOGRAD[name], tmp_path, threads) == {name}


@pytest.mark.parametrize("name", WINOGRAD)
@pytest.mark.parametrize("budget", [1 << 11, 1 << 18])
def test_winograd_in_blocks_and_groups_of_panels(
    budget: int, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine("wasm_simd")
    monkeypatch.setattr(winograd_i8, "NEAR", budget)
    cases = [winograd_case(100 + seed) for seed in range(8)]
    assert _compare(cases, "wasm_simd", WINOGRAD[name], tmp_path) == {name}


@pytest.mark.parametrize("name", WINOGRAD)
@pytest.mark.parametrize(
    ("l2_bytes", "threads"), [(1 << 14, 1), (1 << 16, 1), (1 << 16, 3), (1 << 18, 2), (1 << 24, 1)]
)
def test_winograd_in_what_any_cache_holds(
    l2_bytes: int, threads: int, name: str, tmp_path: Path
) -> None:
    """Weights are transformed at once, panel by panel, and in parts of the channels."""
    cases = [winograd_case(200 + seed) for seed in range(8)]
    device = replace(target("x86_64_v3"), l2_bytes=l2_bytes)
    assert _compare(cases, "avx2", WINOGRAD[name], tmp_path, threads, device) == {name}


def extreme_case(ci: int, seed: int, least: int = -127) -> Made:
    """Codes and weights that are as large as can be, of one sign where seed is 0."""
    c = _Case(seed)
    shape, signs = (1, 9, 10, ci), np.array([-128, 127], np.int8)
    x = c.b.input("x", TensorType(shape, I8))
    c.feeds["x"] = np.full(shape, -128, np.int8) if seed == 0 else c.rng.choice(signs, shape)
    codes = c.rng.choice(np.array([least, 127], np.int8), (32, ci, 3, 3))
    w = c.b.const(np.maximum(codes, least + 254) if seed == 0 else codes, I8)
    return c.finish(c.b.add(Conv((1, 1), (1, 1), ((1, 1), (1, 1)), 1, True), x, w))


@pytest.mark.parametrize("isa", ["scalar", "avx2"])
def test_sums_are_exact_for_the_largest_codes(isa: str, tmp_path: Path) -> None:
    needs_isa(isa)
    cases = [extreme_case(ci, seed, least) for ci in (3, 4, 33) for seed in range(3)
             for least in (-127, -128)]  # fmt: skip
    assert _compare(cases, isa, conv_i8.ROWS, tmp_path) == {"conv2d_i8"}


@pytest.mark.parametrize("name", WINOGRAD)
@pytest.mark.parametrize("isa", ["scalar", "avx2"])
def test_winograd_is_exact_up_to_what_its_sums_reach(isa: str, name: str, tmp_path: Path) -> None:
    # 9 x 224 products of 128 x 127 are nearly 2^25
    cases = [extreme_case(224, seed) for seed in range(4)]
    assert _compare(cases, isa, WINOGRAD[name], tmp_path) == {name}
    beyond = Module("m", (extreme_case(240, 0)[0],))
    p = plan(beyond, target(BYTES_TARGETS[isa]), kernels=(*WINOGRAD[name], *KERNELS))
    taken = {s.kernel for s in p.entries[0].steps}
    assert (taken == {name}) == (name == "winograd_i8")


@pytest.mark.parametrize(
    ("cpu", "direct", "fewer"),
    [
        ("wasm32_simd", "conv2d_compact_i8", True),
        ("x86_64_v3", "conv2d_twos_i8", True),
        ("x86_64_v4_vnni", "conv2d_i8", False),
    ],
)
def test_winograd_is_taken_where_it_multiplies_less(cpu: str, direct: str, fewer: bool) -> None:
    def rows(size: int, channels: int, stride: int) -> set[str]:
        c = _Case(0)
        x = c.b.input("x", TensorType((1, size, size, channels), I8))
        op = Conv((stride, stride), (1, 1), ((1, 1), (1, 1)), 1, True)
        y = c.b.add(op, x, c.weights((channels, channels, 3, 3)))
        module = Module("m", (c.finish(y)[0],))
        return {s.kernel for e in plan(module, target(cpu)).entries for s in e.steps}

    taken = {"winograd4_i8"} if fewer else {direct}
    assert rows(14, 64, 1) == rows(56, 64, 1) == taken
    assert rows(14, 60, 1) == ({direct} if target(cpu).isa.engine else taken)
    assert rows(14, 64, 2) == {direct}


def test_compact_weights_are_not_padded_to_vectors() -> None:
    made = (make(s)[0] for make in (conv_case, depthwise_case) for s in range(8))
    module = Module("m", tuple(made))
    row = target(TARGETS["avx512vnni"])
    small, fast = (plan(module, row, kernels=k).weights for k in (COMPACT, KERNELS))
    assert len(small) < 0.75 * len(fast)


def test_compact_weights_hold_no_zeros_for_other_groups() -> None:
    c = _Case(0)
    x, _, zero = c.input((1, 5, 5, 64))
    op = Conv((1, 1), (1, 1), ((1, 1), (1, 1)), 16, True, zero=zero)
    made = c.sum(op, x, c.weights((64, 4, 3, 3)), c.bias(64), 36, 64)
    module = Module("m", (made[0],))
    row = target(TARGETS["avx2"])
    small, fast = (len(plan(module, row, kernels=k).weights) for k in (COMPACT, KERNELS))
    assert 64 * 36 <= small < 64 * 36 + 1024 < fast


def test_compact_layers_of_other_zero_points_share_a_function() -> None:
    c = _Case(0)
    x = c.b.input("x", TensorType((1, 9, 9, 8), I8))
    w = c.weights((8, 8, 1, 1))
    for zero in (-9, 30, 77):
        constants = Constants(1)
        ratio = np.full(8, 1e-3)
        made = scaled("f32", lane.Arg(0, I32), ratio, Grid(zero, -128, 127, I8), constants)
        assert not hasattr(made, "reason")
        op = Conv((1, 1), (1, 1), ((0, 0), (0, 0)), 1, True, made, zero)
        x = c.b.add(op, x, w, "", *(c.b.const(a) for a in constants.arrays))
    module = Module("m", (c.finish(x)[0],))
    text = emit(plan(module, target(TARGETS["avx2"]), kernels=COMPACT)).files["model.c"].decode()
    assert text.count("sp_conv2d_compact_i8(p0") == 1


def test_portable_rows_give_the_integers_of_the_reference(tmp_path: Path) -> None:
    cases = [make(1000 * k + s) for k, make in enumerate(MAKERS) for s in range(10)]
    assert _compare(cases, "scalar", PORTABLE, tmp_path) >= {
        *("conv_any", "matmul_any", "lookup", "pool"),
    }


@pytest.mark.parametrize("isa", ["scalar", "avx2", "wasm_simd", "wasm"])
def test_floats_become_codes(isa: str, tmp_path: Path) -> None:
    if isa.startswith("wasm"):
        engine(isa)
    ties = np.arange(-140.5, 140.0, 0.25)
    x = np.concatenate([ties, [np.nan, np.inf, -np.inf, 3e9, -3e9, -0.0]]).astype(np.float32)
    b = Builder("codes")
    steps = lane.call("div", lane.Arg(0, F32), lane.Imm(0.5, F32))
    clipped = lane.clip(lane.call("round", steps), lane.Imm(-121.0, F32), lane.Imm(134.0, F32))
    whole = lane.call("add", lane.cast(clipped, I32), lane.Imm(-7, I32))
    y = b.lane(lane.cast(whole, I8), b.input("x", TensorType((1, x.size), F32)))
    _compare([(b.finish({"y": y}, {}), {"x": x[None]})], isa, loop.ROWS, tmp_path)


@pytest.mark.parametrize("scheme", ["f32", "fixed31"])
def test_schemes_round_to_nearest(scheme: Scheme) -> None:
    rng = np.random.default_rng(5)
    value = rng.integers(-(1 << 30), 1 << 30, 4096).astype(np.int32)
    ratio = 10.0 ** rng.uniform(-9, -6, 4096)
    constants = Constants(1)
    e = scaled(scheme, lane.Arg(0, I32), ratio, Grid(3, -128, 127, I8), constants)
    assert not hasattr(e, "reason")
    got = lane.evaluate(e, (value, *constants.arrays))
    exact = np.clip(value * ratio + 3, -128, 127)
    # float32 keeps 24 bits of the product, fixed31 30: ties may fall either way near them
    assert (np.abs(got - exact) <= 0.5 + 128 * 2.0**-22).all()
