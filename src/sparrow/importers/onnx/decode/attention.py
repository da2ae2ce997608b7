"""Attention of the standard and of ONNX Runtime's domain, and rotary embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from sparrow import lane
from sparrow.importers.onnx.call import Call, Decoder
from sparrow.importers.onnx.decode.indexing import tensor_scatter
from sparrow.importers.onnx.decode.movement import slice_axis
from sparrow.ops.attention import HEADS_SECOND, Attention
from sparrow.ops.concat import Concat
from sparrow.ops.gather import Gather
from sparrow.ops.matmul import MatMul
from sparrow.tensor import BOOL, F32, F64, I64, Array, DType


@dataclass(slots=True)
class _Heads:
    """Queries, keys and values of rank 4 under construction.

    ``rows_first`` values are [B, rows, heads, D] (reshaped projections), the others
    [B, heads, rows, D].
    """

    n: Call
    q: str
    k: str
    v: str
    rows_first: list[bool]
    dtype: DType
    past: int = 0

    def shape(self, i: int) -> tuple[int, ...]:
        """[B, heads, rows, D] of q, k or v."""
        s = self.n.b.shape((self.q, self.k, self.v)[i])
        return (s[0], s[2], s[1], s[3]) if self.rows_first[i] else s

    def heads_first(self, i: int) -> str:
        """The value q, k or v as [B, heads, rows, D]."""
        value = (self.q, self.k, self.v)[i]
        return self.n.b.transpose(value, HEADS_SECOND) if self.rows_first[i] else value

    def append(self, past_k: str, past_v: str) -> None:
        """Put cached keys and values before the new ones."""
        self.past = self.n.b.shape(past_k)[2]
        b = self.n.b
        for i, cached in ((1, past_k), (2, past_v)):
            joined = b.add(Concat(2), b.cast(cached, self.dtype), self.heads_first(i))
            self.rows_first[i] = False
            self.k, self.v = (joined, self.v) if i == 1 else (self.k, joined)

    def scores_shape(self) -> tuple[int, int, int, int]:
        """[B, H, S, T]."""
        b, h, s, _ = self.shape(0)
        return b, h, s, self.shape(1)[2]


def _split_heads(n: Call, x: str, heads: int, what: str) -> str:
    """[B, S, heads * D] -> [B, S, heads, D]."""
    shape = n.b.shape(x)
    if len(shape) != 3 or heads < 1 or shape[2] % heads:
        raise n.bad(f"{what} {n.b.type(x)} does not split into {heads} heads")
    return n.b.reshape(x, (*shape[:2], heads, shape[2] // heads))


def _bias_of(n: Call, allowed: str, dtype: DType, low: float = -np.inf) -> str:
    """0 where a bool value is true, ``low`` elsewhere."""
    cond = lane.Arg(0, BOOL)
    e = lane.call("where", cond, lane.Imm(0.0, dtype), lane.Imm(float(low), dtype))
    return n.b.lane(e, allowed)


def _added(n: Call, a: str, b: str) -> str:
    return n.b.call("add", a, b) if a and b else a or b


def _mask(n: Call, i: int, keys: int, dtype: DType) -> str:
    """Input ``i``, a bool or float mask, as bias with all keys; ``""`` when absent."""
    if not n.has(i):
        return ""
    x, t = n.x(i), n.type(i)
    bias = _bias_of(n, x, dtype) if t.dtype == BOOL else n.b.cast(x, dtype)
    if t.rank and 1 < t.shape[-1] < keys:
        n.b.made(prod(t.shape[:-1]) * (keys - t.shape[-1]), "the rest of the mask")
        rest = np.full((*t.shape[:-1], keys - t.shape[-1]), -np.inf, dtype.numpy)
        bias = n.b.add(Concat(t.rank - 1), bias, n.b.const(rest, dtype))
    return bias


def _lengths_bias(n: Call, lens: str, h: _Heads, causal: bool, window: tuple[int, int]) -> str:
    """Bias [B, 1, S or 1, T] of a cache filled up to run-time lengths [B]."""
    batch, _, rows, keys = h.scores_shape()
    if n.b.shape(lens) != (batch,):
        raise n.bad(f"sequence lengths {n.b.type(lens)}, expected {batch} of them")
    b = n.b
    column = b.reshape(b.cast(lens, I64), (batch, 1, 1, 1))
    key = b.const(b.places(keys))
    seen = b.call("lt", key, column)
    left, right = window
    if causal or left >= 0 or right >= 0:
        # position of a row: the rows are the last of the filled part
        row = b.const(b.places(rows)[:, None] - rows)
        position = b.call("add", row, column)
        if causal:
            seen = b.call("and", seen, b.call("le", key, position))
        if right >= 0:
            last = b.call("add", position, b.scalar(right, I64))
            seen = b.call("and", seen, b.call("le", key, last))
        if left >= 0:
            first = b.call("sub", position, b.scalar(left, I64))
            seen = b.call("and", seen, b.call("ge", key, first))
    return _bias_of(n, seen, h.dtype)


def _window_bias(n: Call, h: _Heads, window: tuple[int, int]) -> str:
    """Constant bias [S, T] of a sliding window, ``""`` for none."""
    left, right = window
    if left < 0 and right < 0:
        return ""
    rows, keys = h.scores_shape()[2:]
    n.b.made(rows * keys, "the window")
    ahead: Array = n.b.places(keys)[None, :] - (n.b.places(rows)[:, None] + h.past)
    outside = ((ahead > right) & (right >= 0)) | ((-ahead > left) & (left >= 0))
    return n.b.const(np.where(outside, -np.inf, 0.0).astype(h.dtype.numpy), h.dtype)


def _attend(h: _Heads, op: Attention, bias: str, *, flat: bool, dtype: DType) -> str:
    """Apply attention; ``flat`` gives [B, S, H * E], otherwise [B, H, S, E]."""
    b = h.n.b
    inside = (h.rows_first[0], h.rows_first[1], h.rows_first[2], flat)
    fused = Attention(op.scale, op.softcap, op.causal, op.offset, inside)
    y = b.add(fused, h.q, h.k, h.v, bias)
    if flat:
        batch, rows, heads, width = b.shape(y)
        y = b.reshape(y, (batch, rows, heads * width))
    return b.cast(y, dtype)


def _scores(h: _Heads, op: Attention, bias: str, mode: int) -> str:
    """The optional output of ONNX Attention: scores at one of four stages, [B, H, S, T]."""
    b = h.n.b
    batch, heads, rows, keys = h.scores_shape()
    groups = h.shape(1)[1]
    if mode == 3:
        # probabilities are what attention gives over values that name the keys
        h.n.b.made(max(batch * groups, 1) * keys * keys, "the probabilities")
        eye = np.broadcast_to(np.eye(keys, dtype=h.dtype.numpy), (batch, groups, keys, keys))
        named = b.const(np.ascontiguousarray(eye), h.dtype)
        inside = (h.rows_first[0], h.rows_first[1], False, False)
        fused = Attention(op.scale, op.softcap, op.causal, op.offset, inside)
        return b.add(fused, h.q, h.k, named, bias)
    q = b.reshape(h.heads_first(0), (batch, groups, heads // groups, rows, h.shape(0)[3]))
    k = b.reshape(h.heads_first(1), (batch, groups, 1, keys, h.shape(1)[3]))
    q = b.call("mul", q, b.scalar(op.scale, h.dtype))
    s = b.reshape(b.add(MatMul(trans_b=True), q, k), (batch, heads, rows, keys))
    if mode >= 1 and op.softcap:
        cap = b.scalar(op.softcap, h.dtype)
        s = b.call("mul", b.call("tanh", b.call("div", s, cap)), cap)
    if mode == 2:
        if op.causal:
            hidden = np.where(op.visible(rows, keys), 0.0, -np.inf).astype(h.dtype.numpy)
            bias = _added(h.n, bias, b.const(hidden, h.dtype))
        s = _added(h.n, s, bias)
    return s


def _attention(n: Call) -> Sequence[str]:
    """ONNX Attention: q, k, v, mask, past keys and values, lengths -> y, keys, values, scores."""
    given = n.type(0).dtype
    dtype = F64 if given == F64 else F32
    rank = n.type(0).rank
    if rank not in (3, 4) or n.type(1).rank != rank or n.type(2).rank != rank:
        raise n.bad(f"q {n.type(0)}, k {n.type(1)}, v {n.type(2)} must all have rank 3 or 4")
    q, k, v = (n.b.cast(n.x(i), dtype) for i in range(3))
    if rank == 3:
        if n.attr("q_num_heads") is None or n.attr("kv_num_heads") is None:
            raise n.bad("inputs of rank 3 need q_num_heads and kv_num_heads")
        q = _split_heads(n, q, int(n.attr("q_num_heads")), "q")
        k, v = (_split_heads(n, x, int(n.attr("kv_num_heads")), "k or v") for x in (k, v))
    h = _Heads(n, q, k, v, [rank == 3] * 3, dtype)
    if n.has(4) != n.has(5):
        raise n.bad("past_key and past_value come together")
    if n.has(4):
        h.append(n.x(4), n.x(5))
    scale = n.attr("scale")
    cap, causal = float(n.attr("softcap", 0.0)), bool(n.attr("is_causal", 0))
    window = (int(n.attr("left_window_size", -1)), int(n.attr("right_window_size", -1)))
    bias = _mask(n, 3, h.scores_shape()[3], dtype)
    if n.has(6):
        if n.has(4):
            raise n.bad("nonpad_kv_seqlen and past_key exclude each other")
        bias = _added(n, bias, _lengths_bias(n, n.x(6), h, causal, window))
        causal = False
    else:
        bias = _added(n, bias, _window_bias(n, h, window))
    default = 1 / np.sqrt(max(1, h.shape(0)[3]))
    op = Attention(float(default if scale is None else scale), cap, causal, h.past * causal)
    results = [_attend(h, op, bias, flat=rank == 3, dtype=given)]
    if any(n.wanted[1:3]):
        results += [n.b.cast(h.heads_first(i), given) for i in (1, 2)]
    else:
        results += ["", ""]
    if len(n.wanted) > 3:
        mode = int(n.attr("qk_matmul_output_mode", 0))
        if mode not in range(4):
            raise n.bad(f"qk_matmul_output_mode is {mode}")
        results.append(n.b.cast(_scores(h, op, bias, mode), given))
    return results


def _padding_bias(n: Call, i: int, h: _Heads) -> str:
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
        return _bias_of(n, n.b.call("lt", places, count), h.dtype, low)
    if shape not in ((batch, keys), (batch, rows, keys)):
        raise n.unsupported(
            f"mask of shape {shape}",
            f"give a 0/1 mask of shape {(batch, keys)} or {(batch, rows, keys)}",
        )
    x = n.b.reshape(n.x(i), (batch, 1, rows if len(shape) == 3 else 1, keys))
    return _bias_of(n, n.b.cast(x, BOOL), h.dtype, low)


def _runtime_attention(n: Call, h: _Heads, mask: int, bias: int, dtype: DType) -> str:
    """What the attentions of ONNX Runtime share once heads are split; inputs by position."""
    total = _padding_bias(n, mask, h)
    if n.has(bias):
        total = _added(n, total, n.b.cast(n.x(bias), h.dtype))
    # an attribute of 0 stands for the default
    scale = float(n.attr("scale", 0.0)) or 1 / np.sqrt(max(1, h.shape(0)[3]))
    causal = bool(n.attr("unidirectional", 0))
    op = Attention(float(scale), 0.0, causal, h.past * causal)
    return _attend(h, op, total, flat=True, dtype=dtype)


def _multi_head(n: Call) -> Sequence[str]:
    """com.microsoft.MultiHeadAttention over separate q, k, v of rank 3."""
    given, heads = n.type(0).dtype, int(n.attr("num_heads", 0))
    dtype = F64 if given == F64 else F32
    if not (n.has(1) and n.has(2)) or any(n.type(i).rank != 3 for i in range(3)):
        raise n.unsupported("packed or cached queries, keys and values", "give q, k, v of rank 3")
    if n.has(8) or n.has(9):
        raise n.unsupported("past_sequence_length and cache_indirection")
    parts = [n.b.cast(n.x(i), dtype) for i in range(3)]
    if n.has(3):
        widths = [n.b.shape(p)[2] for p in parts]
        if n.type(3).shape != (sum(widths),):
            raise n.bad(f"bias {n.type(3)} does not fit widths {widths}")
        bias = n.b.cast(n.x(3), dtype)
        starts = np.cumsum([0, *widths])
        cuts = [slice_axis(n, bias, 0, int(a), w) for a, w in zip(starts, widths, strict=False)]
        parts = [n.b.call("add", p, c) for p, c in zip(parts, cuts, strict=True)]
    q, k, v = (_split_heads(n, p, heads, "an operand") for p in parts)
    h = _Heads(n, q, k, v, [True] * 3, dtype)
    if n.has(6) and n.has(7):
        h.append(n.x(6), n.x(7))
    y = _runtime_attention(n, h, 4, 5, given)
    if n.n_outputs == 1:
        return [y]
    return [y, *(n.b.cast(h.heads_first(i), given) for i in (1, 2))]


def _packed_attention(n: Call) -> Sequence[str]:
    """com.microsoft.Attention: one projection gives q, k and v."""
    given, heads = n.type(0).dtype, int(n.attr("num_heads", 0))
    dtype = F64 if given == F64 else F32
    if n.n_outputs > 1 or n.has(4) or n.has(6):
        raise n.unsupported("past and present states", "use the Attention of opset 23")
    if n.attr("do_rotary", 0):
        raise n.unsupported("do_rotary")
    x, w = n.b.cast(n.x(0), dtype), n.b.cast(n.x(1), dtype)
    if n.type(0).rank != 3 or n.type(1).rank != 2:
        raise n.bad(f"input {n.type(0)} and weights {n.type(1)}")
    batch, rows, width = n.b.shape(x)
    bias = n.b.cast(n.x(2), dtype) if n.has(2) else ""
    flat = n.b.add(MatMul(), n.b.reshape(x, (batch * rows, width)), w, bias)
    total = n.b.shape(flat)[1]
    widths = n.ints("qkv_hidden_sizes") or (total // 3,) * 3
    if len(widths) != 3 or sum(widths) != total:
        raise n.bad(f"qkv_hidden_sizes {widths} do not fit weights {n.type(1)}")
    y = n.b.reshape(flat, (batch, rows, total))
    starts = np.cumsum([0, *widths])
    q, k, v = (
        _split_heads(n, slice_axis(n, y, 2, int(a), size), heads, "the projection")
        for a, size in zip(starts, widths, strict=False)
    )
    h = _Heads(n, q, k, v, [True] * 3, dtype)
    return [_runtime_attention(n, h, 3, 5, given)]


def _rotate(n: Call, heads: int, positions: str, cos: str, sin: str) -> Sequence[str]:
    """Rotate pairs of features by the angle of their position."""
    b, x, t = n.b, n.x(0), n.type(0)
    if t.rank == 3:
        x = _split_heads(n, x, heads, "the input")
    elif t.rank != 4:
        raise n.bad(f"input {t}, expected rank 3 or 4")
    shape = b.shape(x)
    batch, rows = shape[0], shape[1 if t.rank == 3 else 2]
    width = int(n.attr("rotary_embedding_dim", 0)) or shape[3]
    half = width // 2
    if width % 2 or not 0 < width <= shape[3]:
        raise n.bad(f"rotary_embedding_dim {width} of {shape[3]} features")
    angles = []
    for cache in (cos, sin):
        a = b.add(Gather(0), cache, positions) if positions else cache
        if b.shape(a) != (batch, rows, half):
            raise n.bad(f"angles {b.type(a)}, expected {batch}x{rows}x{half}")
        one = (batch, rows, 1, half) if t.rank == 3 else (batch, 1, rows, half)
        angles.append(b.reshape(a, one))
    crossed = bool(n.attr("interleaved", 0))
    step = 2 if crossed else 1
    first = slice_axis(n, x, 3, 0, half, step)
    second = slice_axis(n, x, 3, 1 if crossed else half, half, step)
    p, q, c, s = (b.arg(i, v) for i, v in enumerate((first, second, *angles)))
    real = lane.call("sub", lane.call("mul", c, p), lane.call("mul", s, q))
    imag = lane.call("add", lane.call("mul", s, p), lane.call("mul", c, q))
    parts = [b.lane(e, first, second, *angles) for e in (real, imag)]
    if crossed:
        pairs = [b.reshape(v, (*shape[:3], half, 1)) for v in parts]
        parts = [b.reshape(b.add(Concat(4), *pairs), (*shape[:3], width))]
    if width < shape[3]:
        parts.append(slice_axis(n, x, 3, width, shape[3] - width))
    y = b.add(Concat(3), *parts) if len(parts) > 1 else parts[0]
    return [b.reshape(y, t.shape)]


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
            (parts[i],) = _rotate(turned, count, places, n.x(7), n.x(8))
    q, k, v = (
        _split_heads(n, b.cast(x, dtype), count, "an operand")
        for x, count in zip(parts, (heads, groups, groups), strict=True)
    )
    h = _Heads(n, q, k, v, [True] * 3, dtype)
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
    bias = _added(n, _bias_of(n, seen, dtype), _mask(n, 10, size, dtype))
    scale = float(n.attr("scale", 0.0)) or 1 / np.sqrt(max(1, b.shape(q)[3]))
    op = Attention(float(scale), float(n.attr("softcap", 0.0)), False, 0)
    y = _attend(h, op, bias, flat=True, dtype=given)
    return [y, *(b.cast(c, given) for c in caches)]


def _rotary(n: Call) -> Sequence[str]:
    """ONNX RotaryEmbedding: [x, cos, sin, positions]."""
    return _rotate(n, int(n.attr("num_heads", 0)), n.opt(3), n.x(1), n.x(2))


def _runtime_rotary(n: Call) -> Sequence[str]:
    """com.microsoft.RotaryEmbedding: [x, positions, cos, sin]."""
    if n.attr("is_packed_batching", 0) or float(n.attr("scale", 1.0)) != 1.0:
        raise n.unsupported("packed batching or scale")
    t = n.type(0)
    rows = t.shape[1 if t.rank == 3 else 2] if t.rank in (3, 4) else 0
    positions = n.x(1)
    if n.type(1).size == 1 and (t.shape[0], rows) != (1, 1):
        # one number is where the sequence starts
        n.b.made(t.shape[0] * rows, "the positions")
        offset = n.b.const(np.tile(n.b.places(rows), (t.shape[0], 1)))
        positions = n.b.call("add", n.b.reshape(positions, (1, 1)), offset)
    elif n.type(1).size == 1:
        positions = n.b.reshape(positions, (1, 1))
    heads = int(n.attr("num_heads", 0))
    if not heads and t.rank == 3:
        heads = t.shape[2] // max(1, 2 * n.type(2).shape[-1])
    return _rotate(n, heads, positions, n.x(2), n.x(3))


DECODERS: Mapping[str, Decoder] = {
    "Attention": _attention,
    "RotaryEmbedding": _rotary,
    "com.microsoft.MultiHeadAttention": _multi_head,
    "com.microsoft.Attention": _packed_attention,
    "com.microsoft.GroupQueryAttention": _grouped_query,
    "com.microsoft.RotaryEmbedding": _runtime_rotary,
}
