"""Attention rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

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
)
from sparrow.kernels.loop import broadcast_strides
from sparrow.kernels.params_f32 import simd_of
from sparrow.ops.attention import Attention, Extents, extents, rows_inside
from sparrow.tensor import F32

# query rows of a key head below which packing its keys costs more than it saves
PACK_ROWS = 4
MAX_ROWS = 6


def balanced(count: int, most: int) -> int:
    """Size of the pieces of ``count`` that leaves the fewest pieces, singles counted one by one."""
    return min(range(1, max(1, most) + 1), key=lambda n: (count // n + count % n, n))


@dataclass(frozen=True, slots=True)
class Geometry:
    """What the structs of attention kernels have in common.

    Attributes:
        at: Sizes of the operands.
        masked: Whether there is a mask.
        sizes: Fields of sizes.
        strides: Fields of strides, in elements; those of no mask are zero.
    """

    at: Extents
    masked: bool
    sizes: Mapping[str, Param]
    strides: Mapping[str, Param]


def geometry(case: Case, interleaved: tuple[bool, ...]) -> Geometry | Reject:
    """Sizes and strides of an attention whose rows are dense.

    Args:
        case: Operands q, k, v and optionally a mask.
        interleaved: See `Attention`.
    """
    q, k, v, y = case.x[0], case.x[1], case.x[2], case.y[0]
    assert q is not None and k is not None and v is not None
    mask = case.x[3] if len(case.x) > 3 else None
    if 0 in (*q.shape, *k.shape, *v.shape):
        return Reject("empty operands")
    if any(t.shape[-1] > 1 and t.strides[-1] != 1 for t in (q, k, v, y)):
        return Reject("rows are not dense")
    at = extents(q.type, k.type, v.type, interleaved)
    strides: dict[str, Param] = {}
    for name, t, swap in zip("qkvy", (q, k, v, y), interleaved, strict=True):
        b, h, s, _ = rows_inside(t.strides, swap)
        strides |= {f"{name}b": b, f"{name}h": h, f"{name}s": s}
    moves = (0, 0, 0, 0) if mask is None else broadcast_strides(mask, at.scores)
    if moves[3] not in (0, 1):
        return Reject("mask rows are not dense")
    strides |= dict(zip(("mb", "mh", "ms", "mt"), moves, strict=True))
    sizes: dict[str, Param] = {
        "batch": at.batch,
        "groups": at.groups,
        "repeat": at.heads // at.groups,
        "rows": at.rows,
        "keys": at.keys,
        "d": at.d,
        "e": at.e,
    }
    return Geometry(at, mask is not None, sizes, strides)


def _attention(case: Case) -> Lowered | Reject:
    op = case.op
    assert isinstance(op, Attention)
    if case.y[0].type.dtype != F32:
        return Reject(f"{case.y[0].type.dtype}")
    g = geometry(case, op.interleaved)
    if isinstance(g, Reject):
        return g
    at = g.at
    simd = simd_of(case.target)
    lanes, repeat = simd.lanes, at.heads // at.groups
    panels = -(-at.keys // lanes)
    wide = 4 if simd.registers > 16 else 2
    packed = at.rows * repeat >= PACK_ROWS
    mr = balanced(at.rows, MAX_ROWS)
    params: dict[str, Param] = {
        **g.sizes,
        "mr": mr,
        "nk": balanced(panels, wide),
        "ne": balanced(at.e // lanes, wide),
        "packed": int(packed),
        "mask": int(g.masked),
        "causal": int(op.causal),
        "blind_nan": int(op.blind_nan),
        "offset": op.offset,
        "scale": float(op.scale),
        "softcap": float(op.softcap),
        **g.strides,
    }
    work = panels * lanes * (mr + (at.d if packed else 0))
    scratch = -(-4 * work // 64) * 64
    tasks = at.batch * at.groups
    together = tasks if case.threads == 1 else 1
    arrays = () if g.masked else (np.zeros(1, np.float32),)
    args = (In(0), In(1), In(2), Packed(0) if arrays else In(3), Out(0), Scratch("float", scratch))
    call = Invoke("attention_f32.h", "sp_attention_f32", "sp_attention", params, args, together)
    scores = prod(at.scores)
    flops = scores * 2 * (at.d + at.e) / (case.target.isa.flops_per_cycle * 0.5)
    cycles = flops + 20 * scores / lanes + (tasks * at.keys * at.d if packed else 0)
    count = tasks // together
    return Lowered((call,), count, arrays, scratch * count, cycles)


ROWS = (Kernel("attention_f32", Attention, _attention),)
