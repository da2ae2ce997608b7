"""Convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparrow.importers.onnx.call import Call, Decoder
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul


def resolve_pads(
    n: Call,
    spatial: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[tuple[int, int], ...]:
    """(begin, end) pads per spatial axis from ``pads`` and ``auto_pad``."""
    rank = len(kernel)
    auto = n.attr("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        flat = n.ints("pads", (0,) * (2 * rank)) or (0,) * (2 * rank)
        if len(flat) != 2 * rank:
            raise n.bad(f"pads has {len(flat)} values, expected {2 * rank}")
        return tuple(zip(flat[:rank], flat[rank:], strict=True))
    if auto == "VALID":
        return ((0, 0),) * rank
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise n.bad(f"auto_pad is {auto!r}")
    pads = []
    for size, k, s, d in zip(spatial, kernel, strides, dilations, strict=True):
        total = max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
        small = total // 2
        pads.append((small, total - small) if auto == "SAME_UPPER" else (total - small, small))
    return tuple(pads)


def per_axis(n: Call, name: str, rank: int) -> tuple[int, ...]:
    """A positive integer per spatial axis, 1 by default."""
    v = n.ints(name) or (1,) * rank
    if len(v) != rank or min(v) < 1:
        raise n.bad(f"{name} is {v}, expected {rank} positive values")
    return v


def window(n: Call) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Extents, strides and dilations of the weights at input 1, per spatial axis of input 0."""
    x, w = n.type(0), n.type(1)
    rank = x.rank - 2
    if rank < 1 or w.rank != x.rank:
        raise n.bad(f"x {x} and weights {w} are no convolution")
    kernel = n.ints("kernel_shape") or w.shape[2:]
    if tuple(kernel) != w.shape[2:]:
        raise n.bad(f"kernel_shape {kernel} does not fit weights {w.shape}")
    return w.shape[2:], per_axis(n, "strides", rank), per_axis(n, "dilations", rank)


def convolution(n: Call) -> Conv:
    """The op of a node that convolves input 0 with the weights at input 1."""
    kernel, strides, dilations = window(n)
    pads = resolve_pads(n, n.type(0).shape[2:], kernel, strides, dilations)
    return Conv(strides, dilations, pads, int(n.attr("group", 1)))


def _conv(n: Call) -> Sequence[str]:
    return [n.b.add(convolution(n), n.x(0), n.x(1), n.opt(2))]


def matmul(n: Call, a: str, b: str) -> str:
    """NumPy ``matmul`` of two values of rank >= 1."""
    ra, rb = n.b.type(a).rank, n.b.type(b).rank
    if ra == 0 or rb == 0:
        raise n.bad("matrix product of a scalar")
    if ra == 1:
        a = n.b.reshape(a, (1, *n.b.shape(a)))
    if rb == 1:
        b = n.b.reshape(b, (*n.b.shape(b), 1))
    y = n.b.add(MatMul(), a, b)
    shape = list(n.b.shape(y))
    if ra == 1:
        del shape[-2]
    if rb == 1:
        del shape[-1]
    return n.b.reshape(y, shape)


def _matmul(n: Call) -> Sequence[str]:
    return [matmul(n, n.x(0), n.x(1))]


def _gemm(n: Call) -> Sequence[str]:
    """Alpha * A' @ B' + beta * C; C broadcasts to the product."""
    op = MatMul(bool(n.attr("transA", 0)), bool(n.attr("transB", 0)))
    if n.type(0).rank != 2 or n.type(1).rank != 2:
        raise n.bad(f"operands {n.type(0)} and {n.type(1)} are not matrices")
    y = n.b.add(op, n.x(0), n.x(1))
    dtype = n.b.type(y).dtype
    alpha, beta = float(n.attr("alpha", 1.0)), float(n.attr("beta", 1.0))
    if alpha != 1.0:
        y = n.b.call("mul", y, n.b.scalar(alpha, dtype))
    if n.has(2) and beta != 0.0:
        c = n.x(2)
        if beta != 1.0:
            c = n.b.call("mul", c, n.b.scalar(beta, dtype))
        y = n.b.call("add", y, c)
    return [y]


DECODERS: Mapping[str, Decoder] = {
    "Conv": _conv,
    "MatMul": _matmul,
    "Gemm": _gemm,
}
