"""The row of attention over 8-bit codes: keys and values are packed at run time."""

from __future__ import annotations

import numpy as np

from sparrow.kernels.attention import balanced
from sparrow.kernels.case import (
    Case,
    In,
    Invoke,
    Kernel,
    Lowered,
    Out,
    Packed,
    Param,
    Reject,
    Scratch,
)
from sparrow.kernels.loop import broadcast_strides
from sparrow.kernels.packing_f32 import round_up
from sparrow.ops.attention import rows_inside
from sparrow.ops.attention_codes import AttentionCodes, weight_bits
from sparrow.tensor import I8, I16, U8, DType

# `SP_PAIRED` of tile_i8.h
PAIRED = 2
_PUTS: dict[DType, int] = {I8: 0, U8: 1, I16: 2}


def _attention(case: Case) -> Lowered | Reject:
    op = case.op
    assert isinstance(op, AttentionCodes)
    q, k, v, y = case.x[0], case.x[1], case.x[2], case.y[0]
    assert q is not None and k is not None and v is not None
    mask = case.x[3] if len(case.x) > 3 else None
    if 0 in (*q.shape, *k.shape, *v.shape):
        return Reject("empty operands")
    if any(t.shape[-1] > 1 and t.strides[-1] != 1 for t in (q, k, v, y)):
        return Reject("rows are not dense")
    batch, heads, rows, d = rows_inside(q.shape, op.interleaved[0])
    groups, keys = rows_inside(k.shape, op.interleaved[1])[1:3]
    e = v.shape[3]
    moves: dict[str, Param] = {}
    for name, t, swap in zip("qkvy", (q, k, v, y), op.interleaved, strict=True):
        b, h, s, _ = rows_inside(t.strides, swap)
        moves |= {f"{name}b": b, f"{name}h": h, f"{name}s": s}
    mb = mh = ms = mt = 0
    if mask is not None:
        mb, mh, ms, mt = broadcast_strides(mask, (batch, heads, rows, keys))
        if mt not in (0, 1):
            return Reject("mask rows are not dense")
    isa = case.target.isa
    lanes, per = isa.lanes, isa.per
    panels, vectors = -(-keys // lanes), -(-e // lanes)
    most = 4 if isa.registers > 16 else 1 if lanes == 1 else 2
    # products of halves by halves, as of bytes where the set has no better, need registers too
    held = 6 if isa.registers > 16 else 4
    mr, nk = balanced(rows, held), balanced(panels, most)
    ne = min(vectors, most)

    def seen(t: DType, unsigned: bool) -> int:
        return int((t == U8) != unsigned)

    flips = {
        "flip_q": seen(q.type.dtype, isa.dot_unsigned),
        "flip_k": seen(k.type.dtype, False),
        "flip_v": seen(v.type.dtype, False),
    }
    low, high = op.dtype.limits
    params: dict[str, Param] = {
        "batch": batch, "groups": groups, "repeat": heads // groups, "rows": rows, "keys": keys,
        "d": d, "e": e, "mr": mr, "nk": nk, "ne": ne, "pair": PAIRED if isa.pairs else 0, **flips,
        "zero_q": op.zero_q + flips["flip_q"] * (128 if isa.dot_unsigned else -128),
        "zero_v": op.zero_v - 128 * flips["flip_v"],
        "zero": op.zero, "lo": low, "hi": high, "put": _PUTS[op.dtype],
        "mask": int(mask is not None), "causal": int(op.causal), "bits": weight_bits(keys),
        "offset": op.offset, "step": float(np.float32(op.step)),
        "ratio": float(np.float32(op.ratio)), **moves, "mb": mb, "mh": mh, "ms": ms, "mt": mt,
    }  # fmt: skip
    kq, tq, wide = -(-d // per), -(-keys // per), panels * lanes
    line = round_up(keys, max(4, lanes)) * (2 if isa.pairs else 1)
    words = wide * kq + wide + mr * wide
    scratch = round_up(4 * words + 4 * vectors * lanes * tq + 4 * mr * kq + 2 * mr * line, 64)
    tasks = batch * groups
    together = tasks if case.threads == 1 else 1
    arrays = () if mask is not None else (np.zeros(1, np.int32),)
    last = Packed(0) if arrays else In(3)
    args = (In(0), In(1), In(2), last, Out(0), Scratch("int32_t", scratch))
    name = "sp_attention_i8"
    call = Invoke("attention_i8.h", f"{name}_run", name, params, args, together)
    scores = batch * heads * rows * keys
    planes = 1 if isa.pairs else 2
    dots = scores / lanes * (kq + planes * e / per) * isa.dot_ops / 2
    cycles = dots + 20 * scores / lanes + tasks * keys * (2 * kq + e / per)
    count = tasks // together
    return Lowered((call,), count, arrays, scratch * count, cycles)


ROWS = (Kernel("attention_i8", AttentionCodes, _attention),)
