"""Attention rows."""

from __future__ import annotations

import numpy as np

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
    Tensor,
)
from sparrow.kernels.loop import broadcast_strides
from sparrow.kernels.params_f32 import simd_of
from sparrow.ops.attention import Attention, rows_inside
from sparrow.tensor import F32

# query rows of a key head below which packing its keys costs more than it saves
PACK_ROWS = 4
MAX_ROWS = 6


def balanced(count: int, most: int) -> int:
    """Size of the pieces of ``count`` that leaves the fewest pieces, singles counted one by one."""
    return min(range(1, max(1, most) + 1), key=lambda n: (count // n + count % n, n))


def _rows_dense(t: Tensor) -> bool:
    return t.shape[-1] == 1 or t.strides[-1] == 1


def _attention(case: Case) -> Lowered | Reject:
    op = case.op
    assert isinstance(op, Attention)
    q, k, v, y = case.x[0], case.x[1], case.x[2], case.y[0]
    assert q is not None and k is not None and v is not None
    mask = case.x[3] if len(case.x) > 3 else None
    if q.type.dtype != F32:
        return Reject(f"{q.type.dtype}")
    if 0 in (*q.shape, *k.shape, *v.shape):
        return Reject("empty operands")
    if not all(_rows_dense(t) for t in (q, k, v, y)):
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
    simd = simd_of(case.target)
    lanes, repeat = simd.lanes, heads // groups
    panels = -(-keys // lanes)
    wide = 4 if simd.registers > 16 else 2
    packed = rows * repeat >= PACK_ROWS
    mr = balanced(rows, MAX_ROWS)
    params: dict[str, Param] = {
        "batch": batch,
        "groups": groups,
        "repeat": repeat,
        "rows": rows,
        "keys": keys,
        "d": d,
        "e": e,
        "mr": mr,
        "nk": balanced(panels, wide),
        "ne": balanced(e // lanes, wide),
        "packed": int(packed),
        "mask": int(mask is not None),
        "causal": int(op.causal),
        "blind_nan": int(op.blind_nan),
        "offset": op.offset,
        "scale": float(op.scale),
        "softcap": float(op.softcap),
        **moves,
        "mb": mb,
        "mh": mh,
        "ms": ms,
        "mt": mt,
    }
    work = panels * lanes * (mr + (d if packed else 0))
    scratch = -(-4 * work // 64) * 64
    tasks = batch * groups
    together = tasks if case.threads == 1 else 1
    arrays = () if mask is not None else (np.zeros(1, np.float32),)
    args = (In(0), In(1), In(2), Packed(0) if arrays else In(3), Out(0), Scratch("float", scratch))
    call = Invoke("attention_f32.h", "sp_attention_f32", "sp_attention", params, args, together)
    scores = batch * heads * rows * keys
    flops = scores * 2 * (d + e) / (case.target.isa.flops_per_cycle * 0.5)
    cycles = flops + 20 * scores / lanes + (tasks * keys * d if packed else 0)
    count = tasks // together
    return Lowered((call,), count, arrays, scratch * count, cycles)


ROWS = (Kernel("attention_f32", Attention, _attention),)
