"""What is computed code by code: sums, products, new scales, activations of 16 bits."""

from __future__ import annotations

import numpy as np

from random_i8.draw import Draw, Made
from random_i8.sums import grid, requantized
from sparrow import lane
from sparrow.ops.exponential import LIMIT, halved
from sparrow.ops.lane import Lane
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.passes import litert
from sparrow.passes.requantize import Constants, Grid, blended, scaled
from sparrow.rewrite import Reject
from sparrow.tensor import F32, I8, I16, I32, I64, U8, Affine, Array, DType


def _shape(d: Draw) -> tuple[int, ...]:
    """Of any rank up to four, with a long or a short last axis."""
    return (*(d.n(1, 4) for _ in range(d.n(0, 3))), d.pick(d.n(1, 9), d.n(1, 70), 16 * d.n(1, 4)))


def _operand(d: Draw, shape: tuple[int, ...], dtype: DType) -> Array:
    """Codes that broadcast to a shape; dense, a slice of wider rows, or turned."""
    own = tuple(1 if d.n(0, 5) == 0 else n for n in shape) if d.n(0, 2) == 0 else shape
    codes = d.codes(own, *dtype.limits).astype(dtype.numpy)
    kind = d.n(0, 5)
    return d.slice(codes) if kind == 0 else np.asfortranarray(codes) if kind == 1 else codes


def _real(index: int, to: Grid) -> tuple[lane.Expr, int]:
    """(code minus zero point, its largest magnitude) of an operand."""
    code = lane.cast(lane.Arg(index, to.dtype), I32)
    low, high = to.dtype.limits
    value = lane.call("sub", code, lane.Imm(to.zero, I32)) if to.zero else code
    return value, max(high - to.zero, to.zero - low)


def _ratio(d: Draw) -> Array:
    """Of one scale to another: neighbours, or far apart."""
    return np.asarray(2.0 ** d.rng.uniform(*((-3.0, 3.0) if d.n(0, 5) else (-14.0, 6.0))))


def _lane(e: lane.Expr, operands: list[Array], constants: Constants) -> Made:
    fixed = range(len(operands), len(operands) + len(constants.arrays))
    return Made(Lane(e), (*operands, *constants.arrays), fixed)


def _whole(operands: list[Array], shape: tuple[int, ...], d: Draw) -> list[Array]:
    """Operands of which one has the whole shape."""
    first = operands[0]
    if first.shape != shape:
        low, high = np.iinfo(first.dtype).min, np.iinfo(first.dtype).max
        operands[0] = d.codes(shape, low, high).astype(first.dtype)
    return operands


def added(seed: int) -> Made:
    """Sums and differences of up to three values, each of its own scale, and new scales of one."""
    d = Draw(seed)
    shape, count = _shape(d), d.n(1, 3)
    dtypes = (I16,) if d.n(0, 3) == 0 else (I8, U8)
    grids = [grid(d, *dtypes) for _ in range(count)]
    to, constants = grid(d, *dtypes), Constants(count)
    terms = []
    for i, g in enumerate(grids):
        sign = -1.0 if i and d.flag() else 1.0
        value, reach = _real(i, g)
        terms.append((value, reach, sign * _ratio(d)))
    e: lane.Expr | Reject = Reject("")
    if count == 2 and d.n(0, 2) == 0:
        scales = [float(2.0 ** d.rng.uniform(-3, 3)) for _ in range(3)]
        pairs = [(t[0], s) for t, s in zip(terms, scales, strict=False)]
        e = litert.added(pairs[0], pairs[1], scales[2], to, minus=d.flag())
    if isinstance(e, Reject):
        e = blended(terms, to, constants)
    if isinstance(e, Reject):  # scales too far apart
        constants = Constants(count)
        e = blended([(v, r, np.asarray(0.75)) for v, r, _ in terms], to, constants)
    assert not isinstance(e, Reject)
    operands = [_operand(d, shape, g.dtype) for g in grids]
    return _lane(e, _whole(operands, shape, d), constants)


def multiplied(seed: int) -> Made:
    """Products of two values, element by element."""
    d = Draw(seed)
    shape = _shape(d)
    dtypes = (I16,) if d.n(0, 3) == 0 else (I8, U8)
    a, b, to = grid(d, *dtypes), grid(d, *dtypes), grid(d, *dtypes)
    (x, most), (y, reach) = _real(0, a), _real(1, b)
    constants = Constants(2)
    ratio = _ratio(d) / (32767 if I16 in dtypes else 64)
    e = requantized(d, lane.call("mul", x, y), most * reach, ratio, to, constants)
    operands = [_operand(d, shape, g.dtype) for g in (a, b)]
    return _lane(e, _whole(operands, shape, d), constants)


def rescaled(seed: int) -> Made:
    """Codes of int32 sums, per channel or per tensor, and their floats."""
    d = Draw(seed)
    shape = _shape(d)
    constants, to = Constants(1), grid(d, I8, U8, I16)
    reach = 1 << d.n(4, 31)
    spread = shape[-1:] if d.flag() else (1,)
    ratio = 2.0 ** d.rng.uniform(-3, 3, spread) * (128 / reach)
    value = d.codes(shape, -reach + 1, reach - 1).astype(np.int32)
    arg = lane.Arg(0, I32)
    if d.n(0, 4) == 0:
        e: lane.Expr = lane.call("mul", lane.cast(arg, F32), constants.take(ratio, F32))
    else:
        e = requantized(d, arg, reach, ratio, to, constants)
    return _lane(e, [value], constants)


def sums_i16(seed: int) -> Made:
    """Codes of 256 sum(h w) + sum(l w), in int32 or int64, under every scheme: 16x8."""
    d = Draw(seed)
    shape = _shape(d)
    wide = d.flag()
    dtype, most = (I64, 31) if wide else (I32, 22)
    low, high = (d.codes(shape, -(1 << most) + 1, (1 << most) - 1).astype(np.int32) for _ in "lh")
    total, rest = (lane.cast(lane.Arg(i, I32), dtype) for i in range(2))
    value = lane.call("add", total, lane.call("mul", rest, lane.Imm(256, dtype)))
    to, constants = grid(d, I8, I16), Constants(2)
    spread = shape[-1:] if d.flag() else (1,)
    ratio = 2.0 ** (d.rng.uniform(-3, 3, spread) - most + to.dtype.bits - 8)
    reach = 257 << most
    e: lane.Expr | Reject = Reject("")
    if wide and d.flag():
        most_of = np.full(ratio.shape, reach)
        bits = d.pick(16, 31)
        e = litert.requantized_wide(value, most_of, ratio, to, constants, bits=bits)
    elif wide:
        e = scaled(d.pick("f32", "fixed31"), value, ratio, to, constants)
    if isinstance(e, Reject):
        constants = Constants(2)
        e = (
            scaled("f32", value, ratio, to, constants)
            if wide
            else requantized(d, value, min(reach, (1 << 31) - 1), ratio, to, constants)
        )
    assert not isinstance(e, Reject)
    return _lane(e, [low, high], constants)


def digits(seed: int) -> Made:
    """The upper or the lower byte of 16-bit codes."""
    d = Draw(seed)
    code = lane.cast(lane.Arg(0, I16), I32)
    low = lane.call("bitand", code, lane.Imm(255, I32))
    high = lane.call("rshr", lane.call("sub", code, low), lane.Imm(8, I32))
    e = lane.cast(low, U8) if d.flag() else lane.cast(high, I8)
    shape = _shape(d)
    return _lane(e, _whole([_operand(d, shape, I16)], shape, d), Constants(1))


def clipped(seed: int) -> Made:
    """Larger and smaller of two codes or of a code and a literal."""
    d = Draw(seed)
    shape, dtype = _shape(d), d.pick(I8, U8, I16)
    a = lane.Arg(0, dtype)
    ends = [lane.Imm(d.n(*dtype.limits), dtype) for _ in range(2)]
    e: lane.Expr = lane.clip(a, *ends)
    operands = [_operand(d, shape, dtype)]
    if d.flag():
        e = lane.call(d.pick("max", "min"), a, lane.Arg(1, dtype))
        operands.append(_operand(d, shape, dtype))
    return _lane(e, _whole(operands, shape, d), Constants(2))


def powers(seed: int) -> Made:
    """Powers of two of differences of codes, as softmax, attention and recurrent layers take."""
    d = Draw(seed)
    shape, dtype = _shape(d), d.pick(I8, U8, I16)
    codes = [lane.cast(lane.Arg(i, dtype), I32) for i in range(2)]
    steps = lane.call("mul", lane.cast(lane.call("sub", *codes), F32), lane.Imm(_step(d), F32))
    inside = lane.clip(steps, lane.Imm(0.0, F32), lane.Imm(float(LIMIT), F32))
    e = halved(lane.cast(lane.call("round", inside), I32), d.n(0, 7))
    return _lane(e, _whole([_operand(d, shape, dtype) for _ in range(2)], shape, d), Constants(2))


def _step(d: Draw) -> float:
    return float(np.float32(2.0 ** d.rng.uniform(-2, 15)))


def _affine(d: Draw, shape: tuple[int, ...], dtype: DType) -> Affine:
    """Per tensor, per channel or in blocks along one axis."""
    low, high = dtype.limits
    rank = len(shape)
    kind, axis = d.n(0, 2), d.n(0, rank - 1)
    size = d.n(1, shape[axis]) if kind == 2 else 1
    block = tuple((-1, 1, size)[kind] if i == axis or kind == 0 else -1 for i in range(rank))
    own = tuple(1 if b == -1 else -(-n // b) for b, n in zip(block, shape, strict=True))
    scale = (2.0 ** d.rng.uniform(-8, 4, own)).astype(np.float32)
    zero = d.codes(own, low, high) if d.flag() else np.zeros(own)
    return Affine(scale, zero.astype(np.int32), block)


def loop_quantize(seed: int) -> Made:
    """Floats to codes: ties, values far outside, what is no number."""
    d = Draw(seed)
    shape, dtype = _shape(d), d.pick(I8, U8, I16)
    quant = _affine(d, shape, dtype)
    x = d.rng.standard_normal(shape) * 2.0 ** d.rng.uniform(-4, 14)
    ties = np.rint(x) / 2 * float(quant.scale.flat[0])
    x = ties if d.n(0, 2) == 0 else x
    odd = d.rng.integers(0, 40, shape)
    x = np.select([odd == 0, odd == 1, odd == 2], [np.nan, np.inf, -np.inf], x)
    return Made(Quantize(quant, dtype), (x.astype(np.float32),), ())


def loop_dequantize(seed: int) -> Made:
    """Codes to floats."""
    d = Draw(seed)
    shape, dtype = _shape(d), d.pick(I8, U8, I16)
    x = d.codes(shape, *dtype.limits).astype(dtype.numpy)
    return Made(Dequantize(_affine(d, shape, dtype)), (x,), ())
