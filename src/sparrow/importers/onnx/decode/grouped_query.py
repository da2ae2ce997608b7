"""ONNX Runtime's attention of language models, over a cache of keys and values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from sparrow.importers.onnx.call import Call, Decoder
from sparrow.importers.onnx.decode.heads import Heads, added, attend, bias_of, mask, split_heads
from sparrow.importers.onnx.decode.indexing import tensor_scatter
from sparrow.importers.onnx.decode.movement import slice_axis
from sparrow.importers.onnx.decode.rotary import rotate
from sparrow.ops.attention import Attention
from sparrow.ops.concat import Concat
from sparrow.tensor import F32, F64, I64


def _stored(n: Call, cache: str, new: str, start: str) -> str:
    """``cache`` [B, heads, T, D] with ``new`` written at row ``start`` [B] of each sequence."""
    rows, at = n.b.shape(new)[2], n.b.value(start)
    if at is None or len(set(at.tolist())) != 1:
        call = replace(n, op_type="TensorScatter", inputs=(cache, new, start), attrs={})
        return tensor_scatter(call)[0]
    first, behind = int(at[0]), int(at[0]) + rows
    parts = (
        slice_axis(n, cache, 2, 0, first),
        new,
        slice_axis(n, cache, 2, behind, n.b.shape(cache)[2] - behind),
    )
    return n.b.add(Concat(2), *parts)


def _grouped_query(n: Call) -> Sequence[str]:
    """com.microsoft.GroupQueryAttention: causal, over a cache filled up to given lengths.

    q, k, v, past k, past v, last position of each sequence, positions in all, cos, sin, places,
    bias. Rows behind the filled ones are those of the past, then 0.
    """
    b, given = n.b, n.type(0).dtype
    dtype = F64 if given == F64 else F32
    heads, groups = int(n.attr("num_heads", 0)), int(n.attr("kv_num_heads", 0))
    if n.has(11) or int(n.attr("smooth_softmax", 0)) > 0 or any(map(n.has, (12, 13))):
        raise n.unsupported("sinks and quantized caches", "export it without, or as Attention")
    if int(n.attr("qk_output", 0)) or n.n_outputs > 3:
        raise n.unsupported("scores as an output")
    if n.has(1) != n.has(2) or n.has(3) != n.has(4) or n.type(0).rank != 3:
        raise n.bad("keys come with values, both caches together, all beside q of rank 3")
    parts = [n.x(0), n.opt(1), n.opt(2)]
    batch, rows, width = n.type(0).shape
    if not n.has(1):
        each = width // max(1, heads + 2 * groups)
        cuts = ((0, heads), (heads, groups), (heads + groups, groups))
        parts = [slice_axis(n, n.x(0), 2, at * each, size * each) for at, size in cuts]
    total = n.integer(6, "total_sequence_length")
    if n.type(5).size != batch or not rows <= total < 1 << 31:
        raise n.bad(f"lengths {n.type(5)} of {total} positions for a batch of {batch}")
    last = b.reshape(b.cast(n.x(5), I64), (batch,))
    start = b.call("sub", last, b.scalar(rows - 1, I64))
    if rows == total:
        start = b.const(np.zeros(batch, np.int64))
    row = b.call("add", b.reshape(start, (batch, 1)), b.const(b.places(rows)))
    if n.attr("do_rotary", 0):
        places = n.x(9) if n.has(9) else row
        attrs = {
            "interleaved": n.attr("rotary_interleaved", 0),
            "rotary_embedding_dim": 2 * n.type(7).shape[-1],
        }
        for i, count in ((0, heads), (1, groups)):
            turned = replace(n, inputs=(parts[i],), attrs=attrs)
            (parts[i],) = rotate(turned, count, places, n.x(7), n.x(8))
    q, k, v = (
        split_heads(n, b.cast(x, dtype), count, "an operand")
        for x, count in zip(parts, (heads, groups, groups), strict=True)
    )
    h = Heads(n, q, k, v, [True] * 3, dtype)
    past = n.type(3).shape[2] if n.has(3) and n.type(3).rank == 4 else 0
    size = max(past, total)
    at = b.value(start)
    if at is not None and (at.min(initial=0) < 0 or at.max(initial=0) + rows > size):
        raise n.bad(f"sequences that start at {at.tolist()} in {size} positions")
    caches = []
    for i in (1, 2):
        new = h.heads_first(i)
        shape = b.shape(new)
        cache = [b.cast(n.x(2 + i), dtype)] if n.has(3) else []
        if size > past:
            b.made(batch * groups * (size - past) * shape[3], "the empty cache")
            empty = np.zeros((batch, groups, size - past, shape[3]), dtype.numpy)
            cache.append(b.const(empty, dtype))
        whole = b.add(Concat(2), *cache) if len(cache) > 1 else cache[0]
        caches.append(_stored(n, whole, new, start))
    h.k, h.v, h.rows_first = *caches, [True, False, False]
    key = b.const(b.places(size))
    column = b.reshape(row, (batch, 1, rows, 1))
    seen = b.call("le", key, column)
    window = int(n.attr("local_window_size", -1))
    if window > 0:
        first = b.call("sub", column, b.scalar(window, I64))
        seen = b.call("and", seen, b.call("gt", key, first))
    bias = added(n, bias_of(n, seen, dtype), mask(n, 10, size, dtype))
    scale = float(n.attr("scale", 0.0)) or 1 / np.sqrt(max(1, b.shape(q)[3]))
    op = Attention(float(scale), float(n.attr("softcap", 0.0)), False, 0)
    y = attend(h, op, bias, flat=True, dtype=given)
    return [y, *(b.cast(c, given) for c in caches)]


DECODERS: Mapping[str, Decoder] = {"com.microsoft.GroupQueryAttention": _grouped_query}
