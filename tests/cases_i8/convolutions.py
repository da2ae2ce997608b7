"""Convolutions over codes whose sums run over channels."""

from __future__ import annotations

import numpy as np

from cases_i8.case import Case
from drawn import Made
from sparrow.ops.conv import Conv
from sparrow.tensor import I8, TensorType


def conv_case(seed: int, wide: bool = False) -> Made:
    c = Case(seed)
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
    c = Case(seed)
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
    c = Case(seed)
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
    c = Case(seed)
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
    c = Case(seed)
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
    c = Case(seed)
    ci, co = (16 * c.n(1, 3), 32 * c.n(1, 2)) if whole else (c.n(1, 50), c.n(1, 70))
    pads = tuple((c.n(0, 2), c.n(0, 2)) for _ in range(2))
    spatial = (c.n(3, 9), c.n(3, 9))
    x, _, zero = c.input((c.n(1, 2), *spatial, ci))
    op = Conv((1, 1), (1, 1), pads, 1, True, zero=zero)
    return c.sum(op, x, c.weights((co, ci, 3, 3)), c.bias(co), 9 * ci, co)


def signal_case(seed: int) -> Made:
    """Windows of hundreds of samples of a signal, as spectra are computed from."""
    c = Case(seed)
    channels, flat = c.n(1, 3), (1,) * c.n(0, 1)
    taps, outputs = c.n(240, 600), c.n(1, 20)
    x, _, zero = c.input((1, *flat, c.n(taps, 1500), channels))
    pads = ((0, 0),) * len(flat) + ((c.n(0, 200), c.n(0, 200)) if c.flag() else (0, 0),)
    op = Conv((*flat, c.n(1, 400)), (1,) * (1 + len(flat)), pads, 1, True, zero=zero)
    w = c.weights((outputs, channels, *flat, taps))
    return c.sum(op, x, w, c.bias(outputs), channels * taps, outputs)


def extreme_case(ci: int, seed: int, least: int = -127) -> Made:
    """Codes and weights that are as large as can be, of one sign where seed is 0."""
    c = Case(seed)
    shape, signs = (1, 9, 10, ci), np.array([-128, 127], np.int8)
    x = c.b.input("x", TensorType(shape, I8))
    c.feeds["x"] = np.full(shape, -128, np.int8) if seed == 0 else c.rng.choice(signs, shape)
    codes = c.rng.choice(np.array([least, 127], np.int8), (32, ci, 3, 3))
    w = c.b.const(np.maximum(codes, least + 254) if seed == 0 else codes, I8)
    return c.finish(c.b.add(Conv((1, 1), (1, 1), ((1, 1), (1, 1)), 1, True), x, w))
