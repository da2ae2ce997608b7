"""Convolutions, matrix products and pooling, channels last as the file has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from sparrow.importers.tflite.call import Call, Decoder
from sparrow.importers.tflite.schema import DTYPES
from sparrow.ops.conv import Conv
from sparrow.ops.conv_transpose import ConvTranspose
from sparrow.ops.matmul import MatMul
from sparrow.ops.pool import Pool, PoolKind
from sparrow.ops.quantize import Dequantize, affine
from sparrow.tensor import I16, I32, I64

SAME, VALID = 0, 1
Pads = tuple[tuple[int, int], ...]


def _pair(n: Call, height: str, width: str) -> tuple[int, int]:
    found = int(n.option(height)), int(n.option(width))
    if min(found) < 1 or max(found) > 1 << 20:
        raise n.bad(f"{height}, {width} are {found}, expected positive values")
    return found


def _pads(
    n: Call,
    spatial: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int] = (1, 1),
) -> Pads:
    """(begin, end) pads per spatial axis; an odd one goes to the end."""
    kind = n.option("padding")
    if kind == VALID:
        if any((k - 1) * d >= size for size, k, d in zip(spatial, kernel, dilations, strict=True)):
            raise n.bad(
                f"a window of {list(kernel)} is larger than its image of {list(spatial)}; give "
                "the shapes of inputs of which the file has dynamic ones"
            )
        return ((0, 0),) * len(kernel)
    if kind != SAME:
        raise n.bad(f"padding is {kind}, expected 0 (same) or 1 (valid)")
    pads = []
    for size, k, s, d in zip(spatial, kernel, strides, dilations, strict=True):
        total = max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
        pads.append((total // 2, total - total // 2))
    return tuple(pads)


def _image(n: Call, i: int) -> tuple[int, ...]:
    shape = n.type(i).shape
    if len(shape) != 4:
        raise n.bad(f"input {i} is {n.type(i)}, expected rank 4")
    return shape


def _conv(n: Call) -> Sequence[str]:
    x, w = _image(n, 0), _image(n, 1)
    strides, dilations = _pair(n, "stride_h", "stride_w"), _pair(n, "dilation_h", "dilation_w")
    if not w[3] or x[3] % w[3]:
        raise n.bad(f"{x[3]} channels do not fit weights {w}")
    pads = _pads(n, x[1:3], w[1:3], strides, dilations)
    op = Conv(strides, dilations, pads, max(1, x[3] // w[3]), channels_last=True)
    y = n.b.add(op, n.float(0), n.weights(1, (0, 3, 1, 2)), n.bias(2, 0, 1))
    return [n.write(n.activated(y))]


def _depthwise(n: Call) -> Sequence[str]:
    """Weights [1, h, w, channels * multiplier]; the outputs of a channel lie side by side."""
    x, w = _image(n, 0), _image(n, 1)
    strides, dilations = _pair(n, "stride_h", "stride_w"), _pair(n, "dilation_h", "dilation_w")
    if w[0] != 1 or not x[3] or w[3] % x[3]:
        raise n.bad(f"{x[3]} channels do not fit weights {w}")
    pads = _pads(n, x[1:3], w[1:3], strides, dilations)
    op = Conv(strides, dilations, pads, x[3], channels_last=True)
    y = n.b.add(op, n.float(0), n.weights(1, (3, 0, 1, 2)), n.bias(2, 0, 1))
    return [n.write(n.activated(y))]


def _transpose_conv(n: Call) -> Sequence[str]:
    """Inputs (output shape, weights, x, bias); the output shape says how much SAME cuts off."""
    want, w, x = n.ints(0, "the output shape"), _image(n, 1), _image(n, 2)
    strides = _pair(n, "stride_h", "stride_w")
    if len(want) != 4 or want[0] != x[0] or want[3] != w[0] or w[3] != x[3]:
        raise n.bad(f"x {x} and weights {w} do not give {want}")
    kind = n.option("padding")
    if kind not in (SAME, VALID):
        raise n.bad(f"padding is {kind}, expected 0 (same) or 1 (valid)")
    pads = []
    for size, extent, k, s in zip(x[1:3], want[1:3], w[1:3], strides, strict=True):
        full = (size - 1) * s + k
        # LiteRT pads as the convolution it transposes would
        total = max(0, (size - 1) * s + k - extent) if kind == SAME else 0
        pads.append((total // 2, full - extent - total // 2))
    op = ConvTranspose(strides, (1, 1), tuple(pads), channels_last=True)
    y = n.b.add(op, n.float(2), n.weights(1, (3, 0, 1, 2)), n.bias(3, 2, 1))
    return [n.write(n.activated(y))]


def _fully_connected(n: Call) -> Sequence[str]:
    """X [.., I] as rows times weights [O, I]; rows of another length are cut anew."""
    if n.option("weights_format") != 0:
        raise n.unsupported("shuffled weights", "convert the model without them")
    w, x = n.type(1).shape, n.type(0).shape
    if len(w) != 2 or not w[1] or prod(x) % w[1]:
        raise n.bad(f"x {n.type(0)} does not fit weights {n.type(1)}")
    rows = n.b.reshape(n.float(0), (prod(x) // w[1], w[1]))
    bias = n.bias(2, 0, 1)
    codes = n.tensor(0).quantized and n.tensor(1).quantized and n.tensor(0).dtype == I16
    if not bias and codes and DTYPES.get(n.option("sum_type")) == I64:
        # sums are then of 64 bits, which those with a bias are
        scale = (n.tensor(0).scale.astype(np.float64) * n.tensor(1).scale).astype(np.float32)
        quant = affine(scale, np.zeros(scale.shape, np.int32), w[:1], 0, 0)
        bias = n.b.add(Dequantize(quant), n.b.const(np.zeros(w[:1], np.int32), I32, quant))
    y = n.b.add(MatMul(trans_b=True), rows, n.weights(1, (0, 1)), bias)
    y = n.write(n.activated(y))
    if n.option("keep_num_dims"):
        if not x or x[-1] != w[1]:
            raise n.bad(f"x {n.type(0)} does not fit weights {n.type(1)}")
        return [n.b.reshape(y, (*x[:-1], w[0]))]
    return [y]


def _batch_matmul(n: Call) -> Sequence[str]:
    op = MatMul(bool(n.option("adj_x")), bool(n.option("adj_y")))
    return [n.write(n.b.add(op, n.float(0), n.float(1)))]


def _pool(kind: PoolKind) -> Decoder:
    def decode(n: Call) -> Sequence[str]:
        x = _image(n, 0)
        kernel, strides = _pair(n, "filter_h", "filter_w"), _pair(n, "stride_h", "stride_w")
        pads = _pads(n, x[1:3], kernel, strides)
        op = Pool(kind, kernel, strides, (1, 1), pads, channels_last=True)
        if kind == "max" and n.option("activation") == 0 and n.alike(0):
            return [n.b.add(op, n.x())]
        if kind == "lp":
            # the mean of the squares over the elements inside x
            square = n.b.call("mul", n.float(), n.float())
            mean = n.b.add(replace(op, kind="average"), square)
            return [n.write(n.activated(n.b.call("sqrt", mean)))]
        return [n.write(n.activated(n.b.add(op, n.float())))]

    return decode


DECODERS: Mapping[str, Decoder] = {
    "AVERAGE_POOL_2D": _pool("average"),
    "BATCH_MATMUL": _batch_matmul,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "L2_POOL_2D": _pool("lp"),
    "MAX_POOL_2D": _pool("max"),
    "TRANSPOSE_CONV": _transpose_conv,
}
