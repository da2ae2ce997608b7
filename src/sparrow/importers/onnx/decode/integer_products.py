"""Products of codes that give int32, and what rounds its inputs at run time.

The sums over the codes are exact, and corrected for zero points afterwards:

    sum (x - zx)(w - zw) = sum x w - zx sum w - zw sum x + zx zw sum 1

Constant uint8 weights become int8, which is what kernels of codes multiply by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from sparrow import lane
from sparrow.importers.onnx.call import Call, Decoder
from sparrow.importers.onnx.decode import linear
from sparrow.ops.matmul import MatMul
from sparrow.ops.reduce import Reduce
from sparrow.tensor import F32, I8, I32, U8


def dynamic_quantize(n: Call) -> Sequence[str]:
    """uint8 codes with the scale and zero point of this very tensor, computed at run time."""
    b, x = n.b, n.x()
    axes = tuple(range(n.type().rank))
    zero = lane.Imm(0.0, F32)
    high, low = (b.reshape(b.add(Reduce(k, axes), x), ()) for k in ("max", "min"))
    hi, lo = (lane.call(f, lane.Arg(i, F32), zero) for i, f in enumerate(("max", "min")))
    scale = b.lane(lane.call("div", lane.call("sub", hi, lo), lane.Imm(255.0, F32)), high, low)
    top = lane.Imm(255.0, F32)
    s = lane.Arg(1, F32)
    ratio = lane.call("div", lane.call("sub", zero, lane.call("min", lane.Arg(0, F32), zero)), s)
    # an all-zero tensor has scale 0; its zero point is 0
    ratio = lane.call("where", lane.call("eq", s, zero), zero, ratio)
    point = b.lane(lane.call("round", lane.clip(ratio, zero, top)), low, scale)
    steps = lane.call("round", lane.call("div", lane.Arg(0, F32), s))
    shifted = lane.clip(lane.call("add", steps, lane.Arg(2, F32)), zero, top)
    codes = b.lane(lane.cast(shifted, U8), x, scale, point)
    return [codes, scale, b.cast(point, U8)]


def is_zero(n: Call, i: int) -> bool:
    """Whether input ``i`` is absent or known to be zero."""
    v = n.b.value(n.x(i)) if n.has(i) else None
    return not n.has(i) or (v is not None and not v.any())


def check_bytes(n: Call, *inputs: int) -> None:
    """Refuse inputs that are not of 8 bits.

    Raises:
        BadModel: One is of another type.
    """
    for i in inputs:
        if n.type(i).dtype not in (I8, U8):
            raise n.bad(f"input {i} is {n.type(i)}, expected int8 or uint8")


def _with_signed_weights(n: Call) -> Call:
    """``n`` with constant uint8 weights (input 1) and their zero point (input 3) 128 lower."""
    w = n.b.value(n.x(1))
    zero = n.b.value(n.x(3)) if n.has(3) else np.zeros((), np.uint8)
    if w is None or zero is None or w.dtype != np.uint8 or zero.dtype != np.uint8:
        return n
    # the top bit of a byte turned is its value less 128
    lower = [n.b.const((v ^ np.uint8(128)).view(np.int8), I8) for v in (w, zero)]
    return replace(n, inputs=(n.x(0), lower[0], n.opt(2), lower[1]))


def _matmul_integer(n: Call) -> Sequence[str]:
    """(a - za) @ (b - zb) in int32; za per tensor or row, zb per tensor or column."""
    check_bytes(n, 0, 1)
    n = _with_signed_weights(n)
    b, ta, tb = n.b, n.type(0), n.type(1)
    if ta.rank < 2 or tb.rank < 2:
        raise n.unsupported(f"integer product of ranks {ta.rank} and {tb.rank}")
    y = b.add(MatMul(), n.x(0), n.x(1))
    za = zb = ""
    if not is_zero(n, 2):
        za = b.cast(n.x(2), I32)
        if n.type(2).size > 1:
            shape = (ta.shape[-2], 1) if n.type(2).rank == 1 else n.type(2).shape
            za = b.reshape(za, shape)
        else:
            za = b.reshape(za, ())
        columns = b.add(Reduce("sum", (tb.rank - 2,)), b.cast(n.x(1), I32))
        y = b.call("sub", y, b.call("mul", za, columns))
    if not is_zero(n, 3):
        zb = b.cast(n.x(3), I32)
        if n.type(3).size == 1:
            zb = b.reshape(zb, ())
        rows = b.add(Reduce("sum", (ta.rank - 1,)), b.cast(n.x(0), I32))
        y = b.call("sub", y, b.call("mul", zb, rows))
    if za and zb:
        depth = b.scalar(ta.shape[-1], I32)
        y = b.call("add", y, b.call("mul", b.call("mul", za, zb), depth))
    return [y]


def real_product(n: Call, codes: Sequence[str], scale_a: str, scale_b: str, bias: str) -> str:
    """float32 (a - za) @ (b - zb) * sa * sb + bias of ``codes``: a, b and their zero points."""
    b = n.b
    (y,) = _matmul_integer(replace(n, inputs=tuple(codes)))
    scales = [b.reshape(s, ()) if b.type(s).size == 1 else s for s in (scale_a, scale_b)]
    y = b.call("mul", b.cast(y, F32), b.call("mul", *scales))
    return b.call("add", y, bias) if bias else y


def _matmul_integer_to_float(n: Call) -> Sequence[str]:
    """com.microsoft.MatMulIntegerToFloat: a, b, their scales, zero points, and a bias."""
    codes = (n.x(0), n.x(1), n.opt(4), n.opt(5))
    return [real_product(n, codes, n.x(2), n.x(3), n.opt(6))]


def _dynamic_quantize_matmul(n: Call) -> Sequence[str]:
    """com.microsoft.DynamicQuantizeMatMul: real a, codes b, their scale, zero point, and a bias."""
    codes, scale, zero = dynamic_quantize(n)
    return [real_product(n, (codes, n.x(1), zero, n.opt(3)), scale, n.x(2), n.opt(4))]


def _ones(n: Call, shape: Sequence[int]) -> str:
    n.b.made(prod(shape) // 4, "the taps inside the image")
    return n.b.const(np.ones(shape, np.int8), I8)


def _conv_integer(n: Call) -> Sequence[str]:
    """Convolution of codes in int32; zero points x per tensor, w per tensor or output channel."""
    check_bytes(n, 0, 1)
    n = _with_signed_weights(n)
    b, tx, tw = n.b, n.type(0), n.type(1)
    op = linear.convolution(n)
    y = b.add(op, n.x(0), n.x(1))
    spatial = (1,) * (tx.rank - 2)
    m, g = tw.shape[0], op.group
    zx = zw = ""
    # a tap in the padding stands for a real 0, so only taps inside x count
    one_x = _ones(n, (1, *tx.shape[1:])) if any(map(any, op.pads)) else ""
    if not is_zero(n, 2):
        if n.type(2).size != 1:
            raise n.bad(f"x_zero_point is {n.type(2)}, expected one element")
        zx = b.reshape(b.cast(n.x(2), I32), ())
        if one_x:
            taps = b.add(op, one_x, n.x(1))
        else:
            sums = b.add(Reduce("sum", tuple(range(1, tw.rank))), b.cast(n.x(1), I32))
            taps = b.reshape(sums, (m, *spatial))
        y = b.call("sub", y, b.call("mul", zx, taps))
    if not is_zero(n, 3):
        if n.type(3).size not in (1, m):
            raise n.bad(f"w_zero_point is {n.type(3)} for {m} output channels")
        zw = b.cast(n.x(3), I32)
        size = n.type(3).size
        # one sum per group and window, used by all channels of the group
        split = (g, m // g, *spatial)
        zw = b.reshape(zw, split if size == m else (1, 1, *spatial))
        one_w = _ones(n, (g, *tw.shape[1:]))
        windows = b.add(op, n.x(0), one_w)
        if zx:
            counts = b.add(op, one_x or _ones(n, (1, *tx.shape[1:])), one_w)
            windows = b.call("sub", windows, b.call("mul", zx, counts))
        shape = b.shape(windows)
        windows = b.reshape(windows, (shape[0], g, 1, *shape[2:]))
        whole = b.shape(y)
        term = b.call("mul", zw, windows)
        y = b.call("sub", b.reshape(y, (whole[0], g, m // g, *whole[2:])), term)
        y = b.reshape(y, whole)
    return [y]


DECODERS: Mapping[str, Decoder] = {
    "DynamicQuantizeLinear": dynamic_quantize,
    "MatMulInteger": _matmul_integer,
    "ConvInteger": _conv_integer,
    "com.microsoft.DynamicQuantizeMatMul": _dynamic_quantize_matmul,
    "com.microsoft.MatMulIntegerToFloat": _matmul_integer_to_float,
}
