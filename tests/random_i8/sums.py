"""Convolutions and products of codes, with epilogues and without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from random_i8.draw import Draw, Made
from sparrow import lane
from sparrow.graph import Op
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.passes import litert
from sparrow.passes.requantize import Constants, Grid, blended, scaled
from sparrow.rewrite import Reject
from sparrow.tensor import F32, I8, I16, I32, U8, Array, DType, TensorType
from sparrow.vectors import vectorizable

_DTYPES = {np.dtype(t.numpy): t for t in (I8, U8, I16, I32)}


def grid(d: Draw, *dtypes: DType) -> Grid:
    """Codes of a result: a zero point at an end or anywhere, clips or none."""
    dtype = d.pick(*dtypes)
    low, high = dtype.limits
    zero = 0 if dtype == I16 else d.pick(low, high, 0, d.n(low, high))
    if d.n(0, 2) == 0:
        low, high = sorted((d.n(low, high), d.n(low, high)))
    return Grid(zero, low, high, dtype)


def requantized(
    d: Draw, value: lane.Expr, reach: int, ratio: Array, to: Grid, constants: Constants
) -> lane.Expr:
    """Codes of an int32 ``value`` times ``ratio`` by a scheme that takes them."""
    scheme = d.pick("f32", "f32", "fixed31", "pow2", "tflite")
    found: lane.Expr | Reject = Reject("")
    more = Constants(constants.first)
    if scheme == "pow2":
        found = scaled("pow2", value, np.full(ratio.shape, 2.0 ** -d.n(0, 30)), to, more)
    elif scheme == "fixed31":
        found = scaled("fixed31", value, ratio, to, more)
    elif scheme == "tflite":
        most = np.full(ratio.shape, reach)
        found = litert.requantized(value, most, ratio, to, more, away=d.flag())
    if isinstance(found, Reject):
        more = Constants(constants.first)
        found = scaled("f32", value, ratio, to, more)
    assert not isinstance(found, Reject), found.reason
    constants.arrays += more.arrays
    return found


def _result(op: Op, operands: Sequence[Array | None]) -> tuple[int, ...]:
    """Shape of a sum of products."""
    types = (None if a is None else TensorType(a.shape, _DTYPES[a.dtype]) for a in operands)
    return op.infer(*types)[0].shape


def _reach(op: Conv | MatMul, operands: Sequence[Array | None]) -> int:
    """Magnitude of a sum, at most."""
    x, w, *rest = operands
    assert x is not None and w is not None
    depth = prod(w.shape[1:]) if isinstance(op, Conv) else x.shape[-2 if op.trans_a else -1]
    bias = rest[0] if rest else None
    most = 255 * 255 * depth
    if bias is not None or isinstance(op, Conv) or w.ndim == 2:
        wide = np.abs(w.astype(np.int64) - getattr(op, "zero_b", 0))
        axis = tuple(range(1, w.ndim)) if isinstance(op, Conv) else w.ndim - 2 + op.trans_b
        most = int(wide.sum(axis).max()) * (1 << 15 if x.dtype == np.int16 else 255)
    return most + (0 if bias is None else int(np.abs(bias.astype(np.int64)).max(initial=0)))


def _requantizing(
    d: Draw, value: lane.Expr, reach: int, ratio: Array, to: Grid, constants: Constants
) -> lane.Expr:
    """`requantized` in a form that kernels take as their epilogue."""
    own = Constants(constants.first)
    e = requantized(d, value, reach, ratio, to, own)
    if not vectorizable(e):
        own = Constants(constants.first)
        found = scaled("f32", value, ratio, to, own)
        assert not isinstance(found, Reject)
        e = found
    constants.arrays += own.arrays
    return e


def _residual(
    d: Draw, e: lane.Expr, zero: int, shape: tuple[int, ...], channel: tuple[int, ...], at: int
) -> tuple[lane.Expr, Array] | None:
    """Codes ``e`` plus an operand, number ``at``, of the whole ``shape`` or one per channel."""
    other, to = grid(d, I8, U8), grid(d, I8, U8)
    sides = (
        (lane.cast(e, I32), zero, e.dtype),
        (lane.Arg(at, other.dtype), other.zero, other.dtype),
    )
    terms = []
    for side, z, dtype in sides:
        low, high = dtype.limits
        value = lane.cast(side, I32)
        real = lane.call("sub", value, lane.Imm(z, I32)) if z else value
        terms.append((real, max(high - z, z - low), np.asarray(2.0 ** d.rng.uniform(-3, 2))))
    blend = blended(terms, to, Constants(at + 1))
    if isinstance(blend, Reject) or not vectorizable(blend):
        return None
    codes = d.codes(shape if d.n(0, 3) else channel, *other.dtype.limits)
    return blend, codes.astype(other.dtype.numpy)


def _made(d: Draw, op: Conv | MatMul, *operands: Array | None, weights: bool = True) -> Made:
    """A sum of products, of one in five without an epilogue; ``weights``: operand 1 is constant."""
    fixed: tuple[int, ...] = (1, 2) if weights else (2,)
    if d.n(0, 4) == 0:
        return Made(op, operands, fixed)
    operands = (*operands, *(None,) * (3 - len(operands)))
    shape, reach = _result(op, operands), _reach(op, operands)
    last = not isinstance(op, Conv) or op.channels_last
    channel = (shape[-1],) if last else (1,)
    spread = channel if d.flag() else (1,)
    # results are spread over the codes, or few of them are, or one
    ratio = 2.0 ** d.rng.uniform(-3, 3, spread) / max(1.0, (reach * 127) ** 0.5)
    if d.n(0, 9) == 0:
        ratio = 2.0 ** d.rng.uniform(-30, 3, spread)
    constants = Constants(1)
    kind = d.n(0, 5)
    if kind == 0:
        scale = constants.take(ratio, F32)
        e: lane.Expr = lane.call("mul", lane.cast(lane.Arg(0, I32), F32), scale)
    else:
        to = grid(d, I8, U8, I16)
        e = _requantizing(d, lane.Arg(0, I32), reach, ratio, to, constants)
        if kind > 2 and to.dtype != I16:
            found = _residual(d, e, to.zero, shape, channel, len(constants.arrays) + 1)
            if found is not None:
                operands, fixed = (*operands, *constants.arrays, found[1]), _fixed(fixed, constants)
                return Made(replace(op, epilogue=found[0]), operands, fixed)
    return Made(replace(op, epilogue=e), (*operands, *constants.arrays), _fixed(fixed, constants))


def _fixed(fixed: tuple[int, ...], constants: Constants) -> tuple[int, ...]:
    return (*fixed, *range(3, 3 + len(constants.arrays)))


def conv2d_i8_matrix(seed: int) -> Made:
    """The same, of up to several steps of a matrix register, and rows of several blocks."""
    return conv2d_i8(seed, (21, 70, 150)[seed % 3], (9, 9, 80)[seed // 3 % 3])


def conv2d_i16(seed: int) -> Made:
    """The same over codes of 16 bits."""
    return conv2d_i8(seed, wide=True)


def conv2d_i8(seed: int, channels: int = 21, side: int = 9, wide: bool = False) -> Made:
    """A convolution: every stride, dilation, pad and group, channels off every boundary."""
    d = Draw(seed)
    group = (1, 1, 1, 2, 3)[d.n(0, 4)]
    ci, co = d.n(1, channels), d.n(1, 50)
    kernel = tuple((1, 2, 3, 3, 5)[d.n(0, 4)] for _ in range(2))
    if d.n(0, 2) == 0:
        kernel, ci = (1, 1), 4 * d.n(1, 9)
    if group > 1:
        ci = max(ci, 4)
    dilations = tuple(d.n(1, 2) if d.n(0, 3) == 0 else 1 for _ in range(2))
    reach = [(k - 1) * s + 1 for k, s in zip(kernel, dilations, strict=True)]
    pads = tuple((d.n(0, k - 1), d.n(0, k - 1)) for k in kernel)
    more = d.n(0, 9), d.n(0, side)
    sides = tuple(max(1, r - sum(p)) + m for r, p, m in zip(reach, pads, more, strict=True))
    strides = (d.n(1, 3), d.n(1, 3))
    shape = (d.n(1, 2), *sides, group * ci)
    x, w, bias, zero = d.operands(shape, (group * co, ci, *kernel), group * co, wide)
    return _made(d, Conv(strides, dilations, pads, group, True, zero=zero), x, w, bias)


def depthwise_i16(seed: int) -> Made:
    """The same over codes of 16 bits."""
    return depthwise_i8(seed, wide=True)


def depthwise_i8(seed: int, wide: bool = False) -> Made:
    """One output per channel."""
    d = Draw(seed)
    channels = (d.n(1, 7), 16, d.n(17, 40))[d.n(0, 2)]
    kernel = tuple((1, 2, 3, 3, 5, 7)[d.n(0, 5)] for _ in range(2))
    dilations = tuple(d.n(1, 2) if d.n(0, 3) == 0 else 1 for _ in range(2))
    strides = (d.n(1, 3), d.n(1, 3))
    reach = [(k - 1) * s + 1 for k, s in zip(kernel, dilations, strict=True)]
    pads = tuple((d.n(0, k - 1), d.n(0, k - 1)) for k in kernel)
    sides = tuple(max(1, r - sum(p)) + d.n(0, 9) for r, p in zip(reach, pads, strict=True))
    shape = (d.n(1, 2), *sides, channels)
    x, w, bias, zero = d.operands(shape, (channels, 1, *kernel), channels, wide)
    return _made(d, Conv(strides, dilations, pads, channels, True, zero=zero), x, w, bias)


# Products that a sum in int32 holds: codes less a zero point reach 255, those of 16 bits 2^15, and
# weights 127.
K_MOST = (2**31 - 1 - (1 << 18)) // (255 * 127)
K_MOST_WIDE = (2**31 - 1 - (1 << 18)) // ((1 << 15) * 127)


def gemm_i8_matrix(seed: int) -> Made:
    """The same of more rows, inputs of several steps of a matrix register, and weights that the
    level-1 cache does not hold, which pass by each tile of rows.
    """
    return gemm_i8(seed, (33, 90, 200)[seed % 3], (90, 300)[seed // 3 % 2], (90, 90, 300)[seed % 3])


def gemm_i16(seed: int) -> Made:
    """The same over codes of 16 bits."""
    return gemm_i8(seed, wide=True)


def gemm_i8(
    seed: int, rows: int = 33, inputs: int = 90, columns: int = 90, wide: bool = False
) -> Made:
    """A product with a constant matrix; of one in fifty the sums come close to leaving int32."""
    d = Draw(seed)
    if seed % 50 == 0:
        m, n, k = d.n(1, 3), d.n(1, 5), (K_MOST_WIDE if wide else K_MOST) - d.n(0, 7)
    else:
        m, n, k = (1, d.n(1, rows))[d.n(0, 1)], d.n(1, columns), d.n(1, inputs)
    trans = bool(d.n(0, 1))
    x, w, bias, zero = d.operands((m, k), (n, k) if trans else (k, n), n, wide)
    return _made(d, MatMul(False, trans, zero=zero), x, w, bias)


def gemm_groups_i8(seed: int) -> Made:
    """The product of one group of inputs, of weights with a scale per group: a slice of rows."""
    made = gemm_i8(seed)
    x = made.operands[0]
    assert x is not None
    return made._replace(operands=(Draw(seed).slice(x), *made.operands[1:]))


# Products of two codes less a zero point, each at most 255.
PRODUCTS_MOST = (2**31 - 1) // (255 * 255)


def matmul_i8(seed: int) -> Made:
    """A product of two matrices: batches, stored any way round, zero points of both; of one in 50
    the sums come close to leaving int32.
    """
    d = Draw(seed)
    m, n, k = d.n(1, 19), d.n(1, 90), d.n(1, 70)
    batch: tuple[int, ...] = ((), (d.n(1, 3),), (d.n(1, 2), d.n(1, 3)))[d.n(0, 2)]
    if seed % 50 == 0:
        batch, m, n, k = (), d.n(1, 7), d.n(1, 5), PRODUCTS_MOST - d.n(0, 7)
    elif seed % 50 == 25:  # more columns than are packed at once
        batch, m, n, k = (), d.n(1, 7), d.n(300, 500), d.n(200, 300)
    trans_a, trans_b = d.flag(), d.flag()
    shared = d.n(0, 2) == 0
    given: list[Array] = []
    zeros: list[int] = []
    shapes = [(*batch, *((k, m) if trans_a else (m, k)))]
    shapes.append((*(() if shared else batch), *((n, k) if trans_b else (k, n))))
    for shape in shapes:
        dtype = (I8, U8)[d.n(0, 1)]
        low, high = dtype.limits
        zeros.append((low, high, 0, d.n(low, high))[d.n(0, 3)])
        codes = d.codes(shape, low, high).astype(dtype.numpy)
        given.append(d.slice(codes) if d.n(0, 2) == 0 else codes)
    op = MatMul(trans_a, trans_b, zero=zeros[0], zero_b=zeros[1])
    return _made(d, op, *given, weights=False)


def mean_i8(seed: int) -> Made:
    """Depthwise: a mean over an image or a signal, whose weights are ones, or any weights."""
    d = Draw(seed)
    channels = d.n(1, 40)
    long = 1, d.n(30, 70)
    kernel = d.pick(long, (d.n(1, 9), d.n(1, 9)), (1, d.n(1, 81)))
    sides, pads, batch = kernel, ((0, 0), (0, 0)), d.n(1, 2)
    if kernel is long:
        sides, pads = (1, d.n(40, 90)), ((0, 0), (d.n(20, 35), d.n(0, 35)))
    elif d.n(0, 3) == 0:  # the window hangs over the end
        sides = max(1, kernel[0] - d.n(0, 2)), max(1, kernel[1] - d.n(0, 2))
        pads = (0, kernel[0] - sides[0]), (0, kernel[1] - sides[1])
    shape = (batch, *sides, channels)
    x, w, bias, zero = d.operands(shape, (channels, 1, *kernel), channels)
    if d.n(0, 3):
        w = np.ones(w.shape, np.int8)
    return _made(d, Conv((1, d.n(1, 2)), (1, 1), pads, channels, True, zero=zero), x, w, bias)


def products_i8(seed: int) -> Made:
    """One matrix times several constant ones, as heads take them, whose products lie apart."""
    d = Draw(seed)
    parts, m, n, k = d.n(2, 4), d.n(1, 33), d.n(16, 90), d.n(1, 70)
    trans = d.flag()
    x, w, bias, zero = d.operands((m, k), (parts, n, k) if trans else (parts, k, n), n)
    ratio = 2.0 ** d.rng.uniform(-3, 3, (parts, 1, n)) / (k**0.5 * 16129)
    constants = Constants(1)
    e = scaled("f32", lane.Arg(0, I32), ratio, grid(d, I8, U8, I16), constants)
    assert not isinstance(e, Reject)
    op = MatMul(False, trans, e, zero)
    operands = (x, w, bias, *constants.arrays)
    return Made(op, operands, _fixed((1, 2), constants))


def winograd_i8(seed: int) -> Made:
    """Images of less than a tile and of odd sizes, channels that fill vectors or not."""
    d = Draw(seed)
    ci, co = (32 * d.n(1, 2), 32 * d.n(1, 3)) if d.flag() else (d.n(1, 64), d.n(1, 96))
    pads = tuple((d.n(0, 2), d.n(0, 2)) for _ in range(2))
    x, w, bias, zero = d.operands((d.n(1, 2), d.n(3, 9), d.n(3, 9), ci), (co, ci, 3, 3), co)
    return _made(d, Conv((1, 1), (1, 1), pads, 1, True, zero=zero), x, w, bias)


def column_i8(seed: int) -> Made:
    """One column of weights, as zero points of weights take it: ones, or any weights."""
    d = Draw(seed)
    rows, k = d.n(1, 43), 16 * d.n(1, 9)
    x, w, _, zero = d.operands((1, rows, d.n(1, 3), k), (1, k, 1, 1), 1)
    w = np.ones(w.shape, np.int8) if d.flag() else w
    bias = d.codes((1,), -(1 << 18), 1 << 18).astype(np.int32) if d.flag() else None
    return Made(Conv((1, 1), (1, 1), ((0, 0), (0, 0)), 1, True, zero=zero), (x, w, bias))


def column_gemm_i8(seed: int) -> Made:
    """The same of a matrix."""
    d = Draw(seed)
    k = 16 * d.n(1, 9)
    x, w, bias, zero = d.operands((d.n(1, 43), k), (k, 1), 1)
    w = np.ones(w.shape, np.int8) if d.flag() else w
    return Made(MatMul(False, False, zero=zero), (x, w, bias))


def conv_any(seed: int) -> Made:
    """Codes of any types, layouts and ranks, weights known at run time."""
    d = Draw(seed)
    rank, group = d.n(1, 3), d.n(1, 3)
    ci, co, last = d.n(1, 5), d.n(1, 5), d.flag()
    kernel = tuple(d.n(1, 3) for _ in range(rank))
    pads = tuple((d.n(0, 2), d.n(0, 2)) for _ in range(rank))
    sides = tuple(k + d.n(0, 4) for k in kernel)
    shape = (d.n(1, 2), *sides, group * ci) if last else (d.n(1, 2), group * ci, *sides)
    x, w, bias, zero = d.operands(shape, (group * co, ci, *kernel), group * co)
    if d.flag():
        w = d.codes(w.shape, 0, 255).astype(np.uint8)
    strides = tuple(d.n(1, 2) for _ in range(rank))
    return _made(
        d, Conv(strides, (1,) * rank, pads, group, last, zero=zero), x, w, bias, weights=False
    )


def matmul_any(seed: int) -> Made:
    """Products of codes of any strides."""
    made = matmul_i8(seed + 1 - (seed % 25 == 24))
    d = Draw(seed)
    turned = (None if a is None else np.asfortranarray(a) for a in made.operands[:2])
    return made if d.flag() else made._replace(operands=(*turned, *made.operands[2:]))
