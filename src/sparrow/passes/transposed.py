"""Transposed convolutions as convolutions; over codes, channels are the phases of the result.

    before   y = ConvTranspose(Dequantize(x), Dequantize(w), b) stride s, kernel k
    after    p = Conv(Dequantize(x), Dequantize(w'), b')        s channels for one, kernel k / s
             y = p with the phases between the pixels           movement

    before   y = ConvTranspose(x, w, b)                         stride 1, floats
    after    y = Conv(x, w', b)

    before   y = ConvTranspose(x, w, b)                         floats, few channels or w computed
    after    as over codes: phases and channels fill vectors together, or w is moved at run time

Output o = s q + r meets tap r + s j at input q - j: all outputs of one phase r are a convolution
with every s-th tap, backwards. Kernels of convolutions over codes then serve both.

    before   y = Quantize(move(p))
    after    y = move(Quantize(p))
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import prod
from typing import Any

import numpy as np

from sparrow.graph import Node
from sparrow.ops.conv import Conv
from sparrow.ops.conv_transpose import ConvTranspose
from sparrow.ops.lane import Lane
from sparrow.ops.pad import Pad
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.ops.reshape import Reshape
from sparrow.ops.slice import Slice
from sparrow.ops.transpose import Transpose
from sparrow.passes.integer.codes import Edit, clip_of, codes_of
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import F16, F32, F64, Affine, Array

# Channels that are few: of a vector of 16 they would leave half empty.
FEW = 8
# Phases for a tap, beyond which most of them would be nothing but zeros.
IDLE = 4


def _idle(w: tuple[int, ...], op: ConvTranspose) -> bool:
    return prod(op.strides) > IDLE * prod(w[2:])


def _phases(w: Array, fill: Array, op: ConvTranspose) -> Array:
    """Weights [C, M / g, *k] as [g * phases * M / g, C / g, *taps]; ``fill`` [M / g] means 0."""
    c, m, *kernel = w.shape
    taps = [-(-k // s) for k, s in zip(kernel, op.strides, strict=True)]
    out = np.empty((op.group, *op.strides, m, c // op.group, *taps), w.dtype)
    out[...] = fill.reshape(-1, *(1,) * (1 + len(taps)))
    split = np.moveaxis(w.reshape(op.group, c // op.group, m, *kernel), 2, 1)
    for phase in product(*(range(v) for v in op.strides)):
        every = zip(phase, op.strides, strict=True)
        picked = split[(slice(None),) * 3 + tuple(slice(r, None, v) for r, v in every)]
        # taps beyond the kernel stand first, now that it runs backwards
        at = tuple(slice(t - n, None) for t, n in zip(taps, picked.shape[3:], strict=True))
        place: tuple[Any, ...] = (slice(None), *phase, slice(None), slice(None), *at)
        out[place] = np.flip(picked, tuple(range(3, picked.ndim)))
    return out.reshape(op.group * prod(op.strides) * m, c // op.group, *taps)


def _computed_phases(e: Edit, w: str, shape: tuple[int, ...], op: ConvTranspose) -> str:
    """What `_phases` does, of weights [C, M, *k] known at run time."""
    c, m, *kernel = shape
    rank = len(kernel)
    taps = [-(-k // s) for k, s in zip(kernel, op.strides, strict=True)]
    beyond = tuple((0, t * s - k) for t, s, k in zip(taps, op.strides, kernel, strict=True))
    each = [v for both in zip(taps, op.strides, strict=True) for v in both]
    split = e.add(Reshape((c, m, *each)), e.add(Pad(((0, 0), (0, 0), *beyond)), w))
    starts = (0, 0, *(v for t in taps for v in (t - 1, 0)))
    turned = e.add(Slice(starts, (c, m, *each), (1, 1, *(-1, 1) * rank)), split)
    phase, tap = range(3, 3 + 2 * rank, 2), range(2, 2 + 2 * rank, 2)
    rows = e.add(Transpose((*phase, 1, 0, *tap)), turned)
    return e.add(Reshape((prod(op.strides) * m, c, *taps)), rows)


def _repeated(per_channel: Array, op: ConvTranspose) -> Array:
    """One value per channel of the result, for every phase; in groups."""
    rows = per_channel.reshape(op.group, 1, -1)
    return np.broadcast_to(rows, (op.group, prod(op.strides), rows.shape[2])).reshape(-1).copy()


def channels_first(m: Match, n: Node) -> Rewrite | None:
    """Match a ConvTranspose over codes whose channels are last; `phases` wants them first."""
    op, d = n.op, m.producer(n.inputs[0], Dequantize) if n.inputs else None
    if not isinstance(op, ConvTranspose) or not op.channels_last or d is None:
        return None
    if codes_of(m, n.inputs[0]) is None or op.epilogue is not None:
        return None
    assert isinstance(d.op, Dequantize)
    rank = m.type(n.inputs[0]).rank
    first, last = (0, rank - 1, *range(1, rank - 1)), (0, *range(2, rank), 1)
    e = Edit(m, n.origin)
    codes = e.add(Transpose(first), d.inputs[0])
    x = e.add(replace(d.op, quant=d.op.quant.permuted(first)), codes)
    y = e.add(replace(op, channels_last=False), x, *n.inputs[1:])
    clip = m.only_user(n.outputs[0])
    if clip is None or not _clips(clip):
        e.add(Transpose(last), y, y=n.outputs[0])
        return e.done(n)
    e.add(Transpose(last), e.add(clip.op, y), y=clip.outputs[0])
    return e.done(n, clip)


def phases(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a ConvTranspose over codes with constant weights."""
    op = n.op
    if not isinstance(op, ConvTranspose) or codes_of(m, n.inputs[0]) is None:
        return None
    d = m.producer(n.inputs[1], Dequantize)
    w = None if d is None else m.const(d.inputs[0])
    if d is None or w is None:
        return Reject("the weights are no constant codes")
    assert isinstance(d.op, Dequantize)
    quant = d.op.quant
    both = any(d > 1 < s for d, s in zip(op.dilations, op.strides, strict=True))
    if op.channels_last or op.epilogue is not None or both:
        return Reject("channels are last, or taps are dilated beside a stride")
    if any(s > 1 and i != 1 for i, s in enumerate(quant.scale.shape)) or quant.block[1] > 1:
        return Reject("scales of the weights do not run along the output channels")
    if _idle(w.shape, op):
        return Reject("most phases meet no tap")
    e = Edit(m, n.origin)
    zero = np.broadcast_to(quant.zero_point.reshape(-1), (w.shape[1],)).astype(w.dtype)
    weights = e.const(_phases(w, zero, op), m.type(d.inputs[0]).dtype)
    inputs = [n.inputs[0], e.add(Dequantize(_along_first(quant, op, w)), weights)]
    if len(n.inputs) > 2 and n.inputs[2]:
        bias = _bias(m, n, op, e)
        if isinstance(bias, Reject):
            return bias
        inputs.append(bias)
    clip = m.only_user(n.outputs[0])
    return _convolved(m, n, op, e, inputs, clip if clip is not None and _clips(clip) else None)


def _convolved(
    m: Match, n: Node, op: ConvTranspose, e: Edit, inputs: list[str], after: Node | None
) -> Rewrite:
    """The convolution of all phases, its only reader ``after`` it, and the phases interleaved."""
    x, y = m.type(n.inputs[0]), m.type(n.outputs[0])
    rank = len(op.strides)
    kernel = m.type(n.inputs[1]).shape[2:]
    taps = [-(-k // s) for k, s in zip(kernel, op.strides, strict=True)]
    rows = zip(y.shape[2:], op.pads, op.strides, strict=True)
    extents = tuple((a + o - 1) // s + 1 for o, (a, _), s in rows)
    reach = [(t - 1) * d for t, d in zip(taps, op.dilations, strict=True)]
    pads = tuple((r, max(q - i, 0)) for r, q, i in zip(reach, extents, x.shape[2:], strict=True))
    p = e.add(Conv((1,) * rank, op.dilations, pads, op.group), *inputs)
    if after is not None:
        p = e.add(after.op, p)
    # the convolution may reach further than the result wants
    made = tuple(max(q, i) for q, i in zip(extents, x.shape[2:], strict=True))
    channels = y.shape[1] // op.group
    split = e.add(Reshape((x.shape[0], op.group, *op.strides, channels, *made)), p)
    order = [0, 1, 2 + rank]
    for i in range(rank):
        order += [3 + rank + i, 2 + i]
    turned = e.add(Transpose(tuple(order)), split)
    full = tuple(q * s for q, s in zip(made, op.strides, strict=True))
    spread = e.add(Reshape((x.shape[0], y.shape[1], *full)), turned)
    starts = (0, 0, *(a for a, _ in op.pads))
    result = after if after is not None else n
    e.add(Slice(starts, y.shape, (1,) * y.rank), spread, y=result.outputs[0])
    return e.done(n, after) if after is not None else e.done(n)


def few_channels(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a float ConvTranspose of few channels to a vector, or of weights that are computed."""
    op = n.op
    if not isinstance(op, ConvTranspose) or m.type(n.inputs[0]).dtype != F32 or op.group > 1:
        return None
    w, shape = m.const(n.inputs[1]), m.type(n.inputs[1]).shape
    if w is not None and (shape[1] > FEW or all(s == 1 for s in op.strides)):
        return None
    both = any(d > 1 < s for d, s in zip(op.dilations, op.strides, strict=True))
    if op.channels_last or op.epilogue is not None or both:
        return Reject("channels are last, or taps are dilated beside a stride")
    if _idle(shape, op):
        return Reject("most phases meet no tap")
    if w is None and len(op.strides) > 2:
        return Reject("convolutions of three spatial axes are the portable kernel as well")
    e = Edit(m, n.origin)
    if w is None:
        inputs = [n.inputs[0], _computed_phases(e, n.inputs[1], shape, op)]
    else:
        inputs = [n.inputs[0], e.const(_phases(w, np.zeros(shape[1], w.dtype), op), F32)]
    if len(n.inputs) > 2 and n.inputs[2]:
        bias = m.const(n.inputs[2])
        if bias is None:
            return Reject("the bias is not constant")
        inputs.append(e.const(_repeated(bias, op), F32))
    user = m.only_user(n.outputs[0])
    unary = user is not None and isinstance(user.op, Lane) and len(user.inputs) == 1
    return _convolved(m, n, op, e, inputs, user if unary else None)


def unit_stride(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a ConvTranspose of stride 1: a convolution with its kernel turned around."""
    op = n.op
    if not isinstance(op, ConvTranspose) or any(s != 1 for s in op.strides):
        return None
    # the others (Col2Im has them) a convolution sums in another type
    if m.type(n.inputs[0]).dtype not in (F16, F32, F64):
        return None
    w = m.const(n.inputs[1])
    if w is None or op.channels_last or op.epilogue is not None:
        return Reject("weights are not constant, or channels are last")
    reach = [(k - 1) * d for k, d in zip(w.shape[2:], op.dilations, strict=True)]
    pads = tuple((r - a, r - b) for r, (a, b) in zip(reach, op.pads, strict=True))
    if any(v < 0 for p in pads for v in p):
        return Reject("more is cut off than the kernel reaches")
    turned = _phases(w, np.zeros(w.shape[1], w.dtype), op)
    name = m.fresh()
    conv = Conv(op.strides, op.dilations, pads, op.group)
    new = Node(conv, (n.inputs[0], name, *n.inputs[2:]), n.outputs, n.origin)
    return Rewrite((new,), (n,), consts={name: turned})


def _clips(n: Node) -> bool:
    return isinstance(n.op, Lane) and len(n.inputs) == 1 and clip_of(n.op.expr) is not None


def _along_first(quant: Affine, op: ConvTranspose, w: Array) -> Affine:
    """The quantization of the weights, whose output channels are the first axis now."""
    ones = (1,) * (w.ndim - 1)
    if quant.per_tensor:
        scale, zero = quant.scale.reshape(1, *ones), quant.zero_point.reshape(1, *ones)
        return Affine(scale, zero, (-1,) * w.ndim)
    rows = []
    for v in (quant.scale, quant.zero_point):
        each = np.broadcast_to(v.reshape(-1), (w.shape[1],))
        rows.append(_repeated(np.tile(each, op.group), op).reshape(-1, *ones))
    return Affine(rows[0], rows[1], (1, *(-1,) * (w.ndim - 1)))


def _bias(m: Match, n: Node, op: ConvTranspose, e: Edit) -> str | Reject:
    d = m.producer(n.inputs[2], Dequantize)
    codes = None if d is None else m.const(d.inputs[0])
    if d is not None and codes is not None:
        assert isinstance(d.op, Dequantize)
        quant = d.op.quant
        name = e.const(_repeated(codes, op), m.type(d.inputs[0]).dtype)
        if not quant.per_tensor:
            quant = Affine(_repeated(quant.scale, op), _repeated(quant.zero_point, op), (1,))
        return e.add(Dequantize(quant), name)
    floats = m.const(n.inputs[2])
    return Reject("the bias is not constant") if floats is None else e.const(_repeated(floats, op))


def quantize_first(m: Match, n: Node) -> Rewrite | None:
    """Match a Quantize of elements that were only moved: codes are moved instead."""
    if not isinstance(n.op, Quantize) or not n.op.quant.per_tensor:
        return None
    p = m.producer(n.inputs[0], (Reshape, Transpose, Slice))
    if p is None or m.only_user(n.inputs[0]) is None or codes_of(m, p.inputs[0]) is not None:
        return None
    if m.producer(p.inputs[0]) is None:
        return None
    ones = (1,) * m.type(p.inputs[0]).rank
    quant = n.op.quant
    before = Affine(quant.scale.reshape(ones), quant.zero_point.reshape(ones), (-1,) * len(ones))
    codes = m.fresh()
    first = Node(replace(n.op, quant=before), p.inputs, (codes,), n.origin)
    return Rewrite((first, Node(p.op, (codes,), n.outputs, p.origin)), (p, n))
