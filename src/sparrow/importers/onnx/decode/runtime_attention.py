"""Attentions of ONNX Runtime's domain: separate or packed projections, real or codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sparrow.importers.onnx.call import Call, Decoder
from sparrow.importers.onnx.decode.heads import Heads, added, attend, bias_of, split_heads
from sparrow.importers.onnx.decode.integer_products import real_product
from sparrow.importers.onnx.decode.movement import slice_axis
from sparrow.ops.attention import Attention
from sparrow.ops.concat import Concat
from sparrow.ops.matmul import MatMul
from sparrow.tensor import BOOL, F32, F64, I64, DType


def _padding_bias(n: Call, i: int, h: Heads) -> str:
    """Input ``i`` of an ONNX Runtime attention: 1 keeps a key, 0 hides it; [B, T] or [B, S, T].

    Or [B]: how many keys are kept.
    """
    if not n.has(i):
        return ""
    batch, _, rows, keys = h.scores_shape()
    shape = n.type(i).shape
    low = float(n.attr("mask_filter_value", -10000.0))
    if shape == (batch,):
        places = n.b.const(n.b.places(keys).reshape(1, 1, 1, keys))
        count = n.b.cast(n.b.reshape(n.x(i), (batch, 1, 1, 1)), I64)
        return bias_of(n, n.b.call("lt", places, count), h.dtype, low)
    if shape not in ((batch, keys), (batch, rows, keys)):
        raise n.unsupported(
            f"mask of shape {shape}",
            f"give a 0/1 mask of shape {(batch, keys)} or {(batch, rows, keys)}",
        )
    x = n.b.reshape(n.x(i), (batch, 1, rows if len(shape) == 3 else 1, keys))
    return bias_of(n, n.b.cast(x, BOOL), h.dtype, low)


def _runtime_attention(n: Call, h: Heads, mask: int, bias: int, dtype: DType) -> str:
    """What the attentions of ONNX Runtime share once heads are split; inputs by position."""
    total = _padding_bias(n, mask, h)
    if n.has(bias):
        total = added(n, total, n.b.cast(n.x(bias), h.dtype))
    # an attribute of 0 stands for the default
    scale = float(n.attr("scale", 0.0)) or 1 / np.sqrt(max(1, h.shape(0)[3]))
    causal = bool(n.attr("unidirectional", 0))
    op = Attention(float(scale), 0.0, causal, h.past * causal)
    return attend(h, op, total, flat=True, dtype=dtype)


def _unpacked(n: Call, i: int, parts: int) -> list[str]:
    """The ``parts`` of input ``i`` [B, rows, heads, parts, D], each [B, rows, heads, D]."""
    *outer, count, width = n.type(i).shape
    if len(outer) != 3 or count != parts:
        raise n.bad(f"packed operand {n.type(i)}, expected {parts} in axis 3")
    cuts = (slice_axis(n, n.x(i), 3, p, 1) for p in range(parts))
    return [n.b.reshape(c, (*outer, width)) for c in cuts]


def _operands(n: Call, heads: int) -> tuple[list[str], list[bool]]:
    """Queries, keys and values, and which of them are [B, rows, heads, D].

    The others are [B, heads, rows, D]: keys and values that an encoder has made once.
    """
    ranks = [n.type(i).rank if n.has(i) else 0 for i in range(3)]
    match ranks:
        case [3, 3, 3]:
            parts = [split_heads(n, n.x(i), heads, "an operand") for i in range(3)]
        case [3, 4, 4]:
            parts = [split_heads(n, n.x(0), heads, "q"), n.x(1), n.x(2)]
        case [3, 5, 0]:
            parts = [split_heads(n, n.x(0), heads, "q"), *_unpacked(n, 1, 2)]
        case [5, 0, 0]:
            parts = _unpacked(n, 0, 3)
        case _:
            raise n.bad(f"queries, keys and values of ranks {ranks}")
    return parts, [True, *(ranks[1:] != [4, 4],) * 2]


def _multi_head(n: Call) -> Sequence[str]:
    """com.microsoft.MultiHeadAttention over separate or packed q, k, v.

    q, k, v, bias of the projections, padding, bias of the scores, past keys and values.
    """
    given, heads = n.type(0).dtype, int(n.attr("num_heads", 0))
    dtype = F64 if given == F64 else F32
    if n.has(8) or n.has(9):
        raise n.unsupported("past_sequence_length and cache_indirection")
    if n.n_outputs > 3:
        raise n.unsupported("scores as an output")
    parts, rows_first = _operands(n, heads)
    parts = [n.b.cast(p, dtype) for p in parts]
    if n.has(3):
        each = [
            (s[2], s[3]) if f else (s[1], s[3])
            for p, f in zip(parts, rows_first, strict=True)
            for s in (n.b.shape(p),)
        ]
        widths = [count * d for count, d in each]
        if n.type(3).shape != (sum(widths),):
            raise n.bad(f"bias {n.type(3)} does not fit widths {widths}")
        bias = n.b.cast(n.x(3), dtype)
        starts = np.cumsum([0, *widths])
        for i, (at, (count, d)) in enumerate(zip(starts, each, strict=False)):
            # keys and values of an encoder have theirs already
            if rows_first[i]:
                cut = n.b.reshape(slice_axis(n, bias, 0, int(at), count * d), (count, d))
                parts[i] = n.b.call("add", parts[i], cut)
    q, k, v = parts
    h = Heads(n, q, k, v, rows_first, dtype)
    if n.has(6) != n.has(7):
        raise n.bad("past keys and values come together")
    if n.has(6):
        h.append(n.x(6), n.x(7))
    y = _runtime_attention(n, h, 4, 5, given)
    if n.n_outputs == 1:
        return [y]
    return [y, *(n.b.cast(h.heads_first(i), given) for i in (1, 2))]


def _projected(n: Call, flat: str, heads: int, mask: int, bias: int, past: int) -> Sequence[str]:
    """Attention over what one projection gave: ``flat`` [B, rows, widths of q, k and v].

    ``past`` is the input of cached keys and values [2, B, heads, rows, D]; so is the second result.
    """
    b, dtype = n.b, n.b.type(flat).dtype
    total = b.shape(flat)[2]
    widths = n.ints("qkv_hidden_sizes") or (total // 3,) * 3
    if len(widths) != 3 or sum(widths) != total:
        raise n.bad(f"qkv_hidden_sizes {widths} do not fit a projection of {total}")
    starts = np.cumsum([0, *widths])
    q, k, v = (
        split_heads(n, slice_axis(n, flat, 2, int(a), size), heads, "the projection")
        for a, size in zip(starts, widths, strict=False)
    )
    h = Heads(n, q, k, v, [True] * 3, dtype)
    if n.has(past):
        shape = n.type(past).shape
        if len(shape) != 5 or shape[0] != 2:
            raise n.bad(f"past {n.type(past)}, expected [2, batch, heads, rows, width]")
        cached = (slice_axis(n, n.x(past), 0, i, 1) for i in (0, 1))
        h.append(*(b.reshape(c, shape[1:]) for c in cached))
    y = _runtime_attention(n, h, mask, bias, dtype)
    if n.n_outputs == 1:
        return [y]
    both = (h.heads_first(i) for i in (1, 2))
    return [y, b.add(Concat(0), *(b.reshape(x, (1, *b.shape(x))) for x in both))]


def _check_projection(n: Call) -> tuple[int, int, int]:
    """Batch, rows and width of input 0, which input 1 projects."""
    if n.attr("do_rotary", 0):
        raise n.unsupported("do_rotary")
    if n.attr("past_present_share_buffer", 0):
        raise n.unsupported("past_present_share_buffer", "export without a shared buffer")
    if n.type(0).rank != 3 or n.type(1).rank != 2:
        raise n.bad(f"input {n.type(0)} and weights {n.type(1)}")
    batch, rows, width = n.type(0).shape
    return batch, rows, width


def _packed_attention(n: Call) -> Sequence[str]:
    """com.microsoft.Attention: one projection gives q, k and v.

    x, weights, bias, padding, past, bias of the scores, length of the past.
    """
    given, heads = n.type(0).dtype, int(n.attr("num_heads", 0))
    dtype = F64 if given == F64 else F32
    if n.has(6):
        raise n.unsupported("past_sequence_length", "export without a shared buffer")
    batch, rows, width = _check_projection(n)
    x, w = n.b.cast(n.x(0), dtype), n.b.cast(n.x(1), dtype)
    bias = n.b.cast(n.x(2), dtype) if n.has(2) else ""
    flat = n.b.add(MatMul(), n.b.reshape(x, (batch * rows, width)), w, bias)
    flat = n.b.reshape(flat, (batch, rows, n.b.shape(flat)[1]))
    return [n.b.cast(y, given) for y in _projected(n, flat, heads, 3, 5, 4)]


def _quantized_attention(n: Call) -> Sequence[str]:
    """com.microsoft.QAttention: the projection is one of codes.

    x, weights, bias, scale of x, scale of the weights, padding, zero points of both, past.
    """
    _check_projection(n)
    codes = (n.x(0), n.x(1), n.opt(6), n.opt(7))
    flat = n.b.cast(real_product(n, codes, n.x(3), n.x(4), n.x(2)), F32)
    return _projected(n, flat, int(n.attr("num_heads", 0)), 5, len(n.inputs), 8)


DECODERS: Mapping[str, Decoder] = {
    "com.microsoft.MultiHeadAttention": _multi_head,
    "com.microsoft.Attention": _packed_attention,
    "com.microsoft.QAttention": _quantized_attention,
}
