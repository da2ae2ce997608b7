"""The row of attention over codes: keys and values are packed at run time."""

from __future__ import annotations

from math import prod

import numpy as np

from sparrow.kernels.attention import balanced, geometry, matrix_rows, matrix_step, row_parts
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
from sparrow.kernels.packing_f32 import round_up
from sparrow.kernels.tiles_matrix import UNSIGNED, step_of
from sparrow.kernels.tiling_i8 import PAIRED
from sparrow.ops.attention_codes import AttentionCodes, weight_bits
from sparrow.targets.instruction_sets import MATRIX_ISAS
from sparrow.tensor import I8, I16, U8, DType

_PUTS: dict[DType, int] = {I8: 0, U8: 1, I16: 2}


def _attention_matrix(case: Case) -> Lowered | Reject:
    """The kernel of `_attention` with sums in matrix registers."""
    return _attention(case, matrix=True)


def _attention(case: Case, matrix: bool = False) -> Lowered | Reject:
    op = case.op
    assert isinstance(op, AttentionCodes)
    q, k, v = case.x[:3]
    assert q is not None and k is not None and v is not None
    g = geometry(case, op.interleaved)
    if isinstance(g, Reject):
        return g
    at = g.at
    isa = case.target.isa
    wide = q.type.dtype == I16
    if wide and matrix:
        return Reject("codes of 16 bits")
    # halves by halves on every instruction set
    paired = wide or isa.packs_pairs
    lanes, per = isa.lanes, 2 if paired else 4
    panels, vectors = -(-at.keys // lanes), -(-at.e // lanes)
    most = 4 if isa.registers > 16 else 1 if lanes == 1 else 2
    # products of halves by halves, as of bytes where the set has no better, need registers too
    held = 6 if isa.registers > 16 else 4
    mr, nk = balanced(at.rows, held), balanced(panels, most)
    ne = min(vectors, most)
    kq, tq = -(-at.d // per), -(-at.keys // per)
    step = along = 0
    if matrix:
        step, along = step_of(kq, UNSIGNED), step_of(tq, UNSIGNED)
        mr, held = matrix_rows(at.rows)
        kq, tq = round_up(kq, step), round_up(tq, along)
        nk, ne = min(panels, held), min(vectors, held)
        panels = round_up(panels, nk)

    unsigned = isa.dot_unsigned and not wide

    def seen(t: DType, unsigned: bool) -> int:
        return int((t == U8) != unsigned)

    flips = {
        "flip_q": seen(q.type.dtype, unsigned),
        "flip_k": seen(k.type.dtype, False),
        "flip_v": seen(v.type.dtype, False),
    }
    low, high = op.dtype.limits
    heads = at.batch * at.groups
    parts, share = row_parts(heads, at.rows, mr, case.threads)
    params: dict[str, Param] = {
        **g.sizes, "parts": parts, "share": share,
        "mr": mr, "nk": nk, "ne": ne, "pair": PAIRED if paired else 0,
        "wide": int(wide), "lost_q": op.shifts[0], "lost_k": op.shifts[1],
        "matrix": step, "along": along, **flips,
        "zero_q": op.zero_q + flips["flip_q"] * (128 if unsigned else -128),
        "zero_v": op.zero_v - 128 * flips["flip_v"],
        "zero": op.zero, "lo": low, "hi": high, "put": _PUTS[op.dtype],
        "mask": int(g.masked), "causal": int(op.causal), "bits": weight_bits(at.keys),
        "offset": op.offset, "step": float(np.float32(op.step)),
        "ratio": float(np.float32(op.ratio)), **g.strides,
    }  # fmt: skip
    across = panels * lanes
    line = round_up(4 * tq if matrix else at.keys, max(4, lanes)) * (2 if paired else 1)
    words = (kq + 1 + mr) * across
    values = (2 if wide else 1) * vectors * lanes * tq
    scratch = round_up(4 * (words + values + mr * kq) + 2 * mr * line, 64)
    tasks = heads * parts
    together = tasks if case.threads == 1 else 1
    arrays = () if g.masked else (np.zeros(1, np.int32),)
    last = Packed(0) if arrays else In(3)
    args = (In(0), In(1), In(2), last, Out(0), Scratch("int32_t", scratch))
    name = "sp_attention_i8"
    call = Invoke("attention_i8.h", f"{name}_run", name, params, args, together)
    scores = prod(at.scores)
    planes = 1 if paired and not wide else 2
    if matrix:
        dots = scores / lanes * (kq / step + planes * vectors / lanes) * matrix_step(mr)
    else:
        dots = scores / lanes * (kq + planes * at.e / per) * isa.packed_ops / 2
    cycles = dots + 20 * scores / lanes + tasks * at.keys * (2 * kq + at.e / per)
    count = tasks // together
    return Lowered((call,), count, arrays, scratch * count, cycles)


ROWS = (
    Kernel("attention_i8", AttentionCodes, _attention),
    Kernel("attention_i8_matrix", AttentionCodes, _attention_matrix, MATRIX_ISAS),
)
