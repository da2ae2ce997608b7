"""Attention rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

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
from sparrow.kernels.packing_f32 import round_up
from sparrow.kernels.params_f32 import simd_of
from sparrow.kernels.tiles_matrix import PAIRS, UNSIGNED, step_of
from sparrow.ops.attention import Attention, Extents, extents, rows_inside
from sparrow.targets import Target
from sparrow.targets.instruction_sets import ISAS, MATRIX_ISAS
from sparrow.tensor import BF16, F32, DType

# query rows of a key head below which packing its keys costs more than it saves
PACK_ROWS = 4

# Of L1, what scores of a block may take, and of L2, what is held of rows whose keys come in chunks.
SCORES_PART, HELD_PART = 2, 16

MATRIX_SUMS = 4  # matrix registers of sums
MATRIX_ROWS = 32  # of a block of matrix registers, at most


def equal_blocks(count: int, most: int) -> int:
    """Size of the fewest blocks of ``count`` of at most ``most`` that differ least."""
    return -(-count // -(-count // most))


def matrix_rows(rows: int) -> tuple[int, int]:
    """Rows of equal blocks in matrix registers, and vectors whose sums fit beside one another."""
    mr = equal_blocks(rows, MATRIX_ROWS)
    return mr, MATRIX_SUMS // -(-mr // 16)


def matrix_step(mr: int) -> float:
    """Cycles of a step for a row of 16 sums: 16 for up to 16 rows, and what loads wait."""
    return 1 + 16 * -(-mr // 16) / mr


def row_parts(tasks: int, rows: int, mr: int, threads: int) -> tuple[int, int]:
    """Parts that the rows of each of ``tasks`` heads are cut into, and the rows of one.

    As few as give every one of ``threads`` as many; each part packs the keys of its head again.
    """
    blocks = -(-rows // mr)
    each = -(-blocks // min(blocks, threads // math.gcd(tasks, threads)))
    return -(-blocks // each), each * mr


def chunks(target: Target, mr: int, nk: int, keys: int, rows: int, wide: int) -> tuple[int, int]:
    """Keys whose scores are there at a time, and rows whose results are held, or zeros: all keys.

    Args:
        target: Whose caches they are for.
        mr: Rows of a block.
        nk: Vectors of keys in a tile.
        keys: Keys of a head.
        rows: Query rows of a task, whole blocks.
        wide: Elements of a result in whole vectors.
    """
    most = target.l1_bytes // SCORES_PART // (4 * mr)
    if keys <= most:
        return 0, 0
    tile = nk * target.isa.lanes
    held = target.l2_bytes // HELD_PART // (4 * wide) // mr * mr
    return max(1, most // tile) * tile, min(rows, max(mr, held))


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
    strides: Mapping[str, int]


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
    strides: dict[str, int] = {}
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
    return _lowered(case, F32)


def _halves(case: Case) -> Lowered | Reject:
    """The kernel of `_attention` over pairs of bfloat16."""
    return _lowered(case, BF16)


def _matrix(case: Case) -> Lowered | Reject:
    """The kernel of `_halves` with sums in matrix registers."""
    return _lowered(case, BF16, matrix=True)


def _lowered(case: Case, dtype: DType, matrix: bool = False) -> Lowered | Reject:
    op, q, y = case.op, case.x[0], case.y[0]
    assert isinstance(op, Attention) and q is not None
    if q.type.dtype != dtype:
        return Reject(f"{q.type.dtype}")
    g = geometry(case, op.interleaved)
    if isinstance(g, Reject):
        return g
    at = g.at
    simd = simd_of(case.target)
    lanes, repeat = simd.lanes, at.heads // at.groups
    packed, pair = at.rows * repeat >= PACK_ROWS, dtype == BF16
    strides, d, tq = dict(g.strides), at.d, 0
    if pair:
        paired = {n: strides[n] for n in ("qb", "qh", "qs", "kb", "kh", "ks")}
        if not packed or d % 2 or any(n % 2 for n in paired.values()):
            return Reject("few rows, or features that are no pairs")
        strides |= {name: n // 2 for name, n in paired.items()}
        d, tq = d // 2, -(-at.keys // 2)
    panels, vectors = -(-at.keys // lanes), at.e // lanes
    step = along = 0
    if matrix:
        mr, held = matrix_rows(at.rows)
        nk, ne = min(panels, held), max(1, min(vectors, held))
        # what is behind the last key is packed as zeros, which bytes may be as well
        step, along = step_of(d, PAIRS), step_of(tq, UNSIGNED)
        panels, tq = round_up(panels, nk), round_up(tq, along)
    else:
        # two vectors of keys or values for each line of them that L2 has to deliver
        mr = equal_blocks(at.rows, 12 if simd.registers > 16 else 6)
        nk, ne = balanced(panels, 2), balanced(vectors, 2)
    heads = at.batch * at.groups
    parts, share = row_parts(heads, at.rows, mr, case.threads)
    chunk = held = 0
    if packed and not pair:
        chunk, held = chunks(case.target, mr, nk, at.keys, share, round_up(at.e, lanes))
    params: dict[str, Param] = {
        **g.sizes, "d": d, "parts": parts, "share": share,
        "mr": mr, "nk": nk, "ne": ne, "packed": int(packed),
        "mask": int(g.masked), "causal": int(op.causal), "blind_nan": int(op.blind_nan),
        "pair": int(pair), "half": int(y.type.dtype == BF16), "matrix": step, "along": along,
        "chunk": chunk, "held": held,
        "offset": op.offset, "scale": float(op.scale), "softcap": float(op.softcap), **strides,
    }  # fmt: skip
    work = panels * lanes * d if packed else 0
    work += mr * (chunk or panels * lanes) + (tq + held) * round_up(at.e, lanes) + 2 * held
    scratch = round_up(4 * work, 64)
    tasks = heads * parts
    together = tasks if case.threads == 1 else 1
    arrays = () if g.masked else (np.zeros(1, np.float32),)
    args = (In(0), In(1), In(2), Packed(0) if arrays else In(3), Out(0), Scratch("float", scratch))
    call = Invoke("attention_f32.h", "sp_attention_run", "sp_attention", params, args, together)
    scores = math.prod(at.scores)
    if matrix:
        steps = d / step + tq / along * -(-at.e // lanes) / max(at.keys / lanes, 1)
        sums = scores / lanes * matrix_step(mr) * steps
    else:
        rate = 1 if not pair else 2 / case.target.isa.dot2_ops
        sums = scores * 2 * (at.d + at.e) / (case.target.isa.flops_per_cycle * 0.5 * rate)
    packing = d + (at.e / lanes if pair else 0)
    cycles = sums + 20 * scores / lanes + (tasks * at.keys * packing if packed else 0)
    count = tasks // together
    return Lowered((call,), count, arrays, scratch * count, cycles)


_BF16 = tuple(i.name for i in ISAS if i.multiplies_bfloat16)
ROWS = (
    Kernel("attention_f32", Attention, _attention),
    Kernel("attention_bf16", Attention, _halves, _BF16),
    Kernel("attention_bf16_matrix", Attention, _matrix, MATRIX_ISAS),
)
