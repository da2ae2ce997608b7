"""Transposed and deformable convolutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from sparrow.importers.onnx.call import Call, Decoder
from sparrow.importers.onnx.decode.linear import per_axis, resolve_pads, window
from sparrow.ops.conv_transpose import ConvTranspose
from sparrow.ops.deform_conv import DeformConv
from sparrow.tensor import BOOL, I32


def _conv_transpose(n: Call) -> Sequence[str]:
    x = n.type(0)
    kernel, strides, dilations = window(n)
    rank = len(kernel)
    extra = n.ints("output_padding") or (0,) * rank
    if len(extra) != rank or min(extra) < 0:
        raise n.bad(f"output_padding is {extra}, expected {rank} values")
    shape = n.ints("output_shape")
    if shape is not None and len(shape) == rank + 2:
        shape = shape[2:]
    if shape is not None and len(shape) != rank:
        raise n.bad(f"output_shape is {shape}, expected {rank} values")
    auto = n.attr("auto_pad", "NOTSET")
    full = [
        (d - 1) * s + (k - 1) * dil + 1
        for d, s, k, dil in zip(x.shape[2:], strides, kernel, dilations, strict=True)
    ]
    if shape is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        shape = tuple(d * s for d, s in zip(x.shape[2:], strides, strict=True))
    if shape is None:
        flat = (0,) * (2 * rank) if auto == "VALID" else n.ints("pads", (0,) * (2 * rank)) or ()
        if len(flat) != 2 * rank:
            raise n.bad(f"pads has {len(flat)} values, expected {2 * rank}")
        pads = [(flat[i], flat[i + rank] - extra[i]) for i in range(rank)]
    else:
        pads = []
        for total, size, more in zip(full, shape, extra, strict=True):
            cut = max(0, total + more - size)
            begin = cut // 2 if auto == "SAME_UPPER" else cut - cut // 2
            pads.append((begin, total - size - begin))
    op = ConvTranspose(strides, dilations, tuple(pads), int(n.attr("group", 1)))
    return [n.b.add(op, n.x(0), n.x(1), n.opt(2))]


def _deform_conv(n: Call) -> Sequence[str]:
    x, w = n.type(0), n.type(1)
    if x.rank != 4 or w.rank != 4:
        raise n.unsupported(f"deformable convolution of {x}; two spatial axes are supported")
    kernel = n.ints("kernel_shape") or w.shape[2:]
    if tuple(kernel) != w.shape[2:]:
        raise n.bad(f"kernel_shape {kernel} does not fit weights {w.shape}")
    (sh, sw), (dh, dw) = per_axis(n, "strides", 2), per_axis(n, "dilations", 2)
    pads = resolve_pads(n, x.shape[2:], kernel, (sh, sw), (dh, dw))
    groups = int(n.attr("group", 1)), int(n.attr("offset_group", 1))
    op = DeformConv((sh, sw), (dh, dw), pads, *groups)
    return [n.b.add(op, n.x(0), n.x(1), n.x(2), n.opt(3), n.opt(4))]


def _col2im(n: Call) -> Sequence[str]:
    """Overlapping blocks summed into an image: a transposed convolution with one-hot weights."""
    x = n.type()
    image, block = n.ints_at(1, "image_shape") or (), n.ints_at(2, "block_shape") or ()
    rank = len(image)
    taps = prod(block)
    if x.rank != 3 or len(block) != rank or rank < 1 or min(block) < 1 or x.shape[1] % taps:
        raise n.bad(f"blocks {block} of {x} in an image of {image}")
    strides, dilations = per_axis(n, "strides", rank), per_axis(n, "dilations", rank)
    pads = n.ints("pads") or (0,) * (2 * rank)
    if len(pads) != 2 * rank:
        raise n.bad(f"pads {pads} of {rank} axes")
    ends, counts = [], []
    for i in range(rank):
        span = image[i] + pads[i] + pads[rank + i] - (block[i] - 1) * dilations[i] - 1
        count = span // strides[i] + 1
        counts.append(count)
        # what the last block does not reach stays zero
        reach = (count - 1) * strides[i] + (block[i] - 1) * dilations[i] + 1
        ends.append(reach - pads[i] - image[i])
    if min(counts) < 1 or prod(counts) != x.shape[2]:
        raise n.bad(f"{x.shape[2]} blocks, expected {counts}")
    n.b.made(max(x.shape[1], taps) * taps, "the weights")
    # a sum of truth values is their disjunction: whether their count is positive
    dtype = I32 if x.dtype == BOOL else x.dtype
    weights = np.eye(taps, dtype=dtype.numpy).reshape(taps, 1, *block)
    channels = x.shape[1] // taps
    w = n.b.const(np.tile(weights, (channels, *(1,) * (rank + 1))), dtype)
    op = ConvTranspose(strides, dilations, tuple(zip(pads[:rank], ends, strict=True)), channels)
    blocks = n.b.cast(n.b.reshape(n.x(), (*x.shape[:2], *counts)), dtype)
    return [n.b.cast(n.b.add(op, blocks, w), x.dtype)]


DECODERS: Mapping[str, Decoder] = {
    "ConvTranspose": _conv_transpose,
    "DeformConv": _deform_conv,
    "Col2Im": _col2im,
}
