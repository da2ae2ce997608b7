"""Attention of the standard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sparrow.importers.onnx.call import Call, Decoder
from sparrow.importers.onnx.decode.heads import Heads, added, attend, bias_of, mask, split_heads
from sparrow.ops.attention import Attention
from sparrow.ops.matmul import MatMul
from sparrow.tensor import F32, F64, I64, Array


def _lengths_bias(n: Call, lens: str, h: Heads, causal: bool, window: tuple[int, int]) -> str:
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
    return bias_of(n, seen, h.dtype)


def _window_bias(n: Call, h: Heads, window: tuple[int, int]) -> str:
    """Constant bias [S, T] of a sliding window, ``""`` for none."""
    left, right = window
    if left < 0 and right < 0:
        return ""
    rows, keys = h.scores_shape()[2:]
    n.b.made(rows * keys, "the window")
    ahead: Array = n.b.places(keys)[None, :] - (n.b.places(rows)[:, None] + h.past)
    outside = ((ahead > right) & (right >= 0)) | ((-ahead > left) & (left >= 0))
    return n.b.const(np.where(outside, -np.inf, 0.0).astype(h.dtype.numpy), h.dtype)


def _scores(h: Heads, op: Attention, bias: str, mode: int) -> str:
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
            bias = added(h.n, bias, b.const(hidden, h.dtype))
        s = added(h.n, s, bias)
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
        q = split_heads(n, q, int(n.attr("q_num_heads")), "q")
        k, v = (split_heads(n, x, int(n.attr("kv_num_heads")), "k or v") for x in (k, v))
    h = Heads(n, q, k, v, [rank == 3] * 3, dtype)
    if n.has(4) != n.has(5):
        raise n.bad("past_key and past_value come together")
    if n.has(4):
        h.append(n.x(4), n.x(5))
    scale = n.attr("scale")
    cap, causal = float(n.attr("softcap", 0.0)), bool(n.attr("is_causal", 0))
    window = (int(n.attr("left_window_size", -1)), int(n.attr("right_window_size", -1)))
    bias = mask(n, 3, h.scores_shape()[3], dtype)
    if n.has(6):
        if n.has(4):
            raise n.bad("nonpad_kv_seqlen and past_key exclude each other")
        bias = added(n, bias, _lengths_bias(n, n.x(6), h, causal, window))
        causal = False
    else:
        bias = added(n, bias, _window_bias(n, h, window))
    default = 1 / np.sqrt(max(1, h.shape(0)[3]))
    op = Attention(float(default if scale is None else scale), cap, causal, h.past * causal)
    results = [attend(h, op, bias, flat=rank == 3, dtype=given)]
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


DECODERS: Mapping[str, Decoder] = {"Attention": _attention}
