"""Resize and Pad rows: fixed taps along every axis, moved elements, or strided copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from sparrow import lane
from sparrow.kernels.case import (
    Case,
    In,
    Invoke,
    Kernel,
    Literal,
    Loop,
    Lowered,
    Out,
    Packed,
    Param,
    Reject,
    Scratch,
    Tensor,
)
from sparrow.kernels.element import HALVES, rows_per_task, suffix
from sparrow.kernels.loop import copy, loop
from sparrow.ops.pad import Pad
from sparrow.ops.resize import Resize, fixed_weights
from sparrow.tensor import F32, Array

GROUPS = 5
MAX_OFFSET = (1 << 31) - 1
# Rows of x that a row of y weighs, of those that are kept (SP_MAX_ROWS).
MAX_ROWS = 4
# Entries of a table of offsets, which the code carries as a constant.
MAX_TABLE = 1 << 24


@dataclass(frozen=True, slots=True, eq=False)
class _Map:
    """Element offsets and weights [outputs, taps] along one group of axes, and its y stride."""

    offset: NDArray[np.int64]
    weight: NDArray[np.float64]
    stride: int


def _axis(x: Tensor, y: Tensor, axis: int, index: Array, weight: Array, dead: Array | None) -> _Map:
    offset = index.astype(np.int64) * x.strides[axis]
    if dead is not None:
        offset = np.where(dead[:, None], -1, offset)
    return _Map(offset, weight, y.strides[axis])


def _maps(x: Tensor, y: Tensor, taken: dict[int, _Map]) -> tuple[list[_Map], int] | Reject:
    """Groups of axes, outermost first, and the run of elements that lie dense in both tensors.

    Axes not in ``taken`` are walked as they are; neighbours that both tensors walk as one merge.
    """
    rank = y.type.rank
    inner, last = 1, rank
    while last > 0 and last - 1 not in taken:
        a = last - 1
        if y.shape[a] != 1 and (x.strides[a] != inner or y.strides[a] != inner):
            break
        inner *= y.shape[a]
        last = a
    groups: list[_Map] = []
    for a in range(last):
        if a in taken:
            groups.append(taken[a])
            continue
        d = y.shape[a]
        if d == 1:
            continue
        if d > MAX_TABLE:
            return Reject(f"an axis of {d}")
        offset = np.arange(d, dtype=np.int64)[:, None] * x.strides[a]
        here = _Map(offset, np.ones((d, 1)), y.strides[a])
        before = groups[-1] if groups and a - 1 not in taken else None
        if (
            before
            and before.stride == here.stride * d
            and before.offset.size * d <= MAX_TABLE
            and (before.offset.shape[0] < 2 or before.offset[1, 0] == x.strides[a] * d)
        ):
            joined = (before.offset[:, None] + here.offset[None]).reshape(-1, 1)
            groups[-1] = _Map(joined, np.ones(joined.shape), here.stride)
            continue
        groups.append(here)
    if len(groups) > GROUPS:
        return Reject(f"{len(groups)} separate groups of axes")
    one = _Map(np.zeros((1, 1), np.int64), np.ones((1, 1)), 0)
    groups = [one] * (GROUPS - len(groups)) + groups
    if any(g.offset.size and g.offset.max() > MAX_OFFSET for g in groups):
        return Reject("the tensor is too large for 32-bit offsets")
    return groups, inner


def _params(case: Case, groups: Sequence[_Map], inner: int, outside: float) -> dict[str, Param]:
    sizes = [g.offset.size for g in groups]
    rows = prod(g.offset.shape[0] for g in groups[:-1])
    return {
        "d": tuple(g.offset.shape[0] for g in groups),
        "k": tuple(g.offset.shape[1] for g in groups),
        "at": tuple(int(v) for v in np.cumsum([0, *sizes])[:GROUPS]),
        "ys": tuple(g.stride for g in groups),
        "inner": inner,
        "task_rows": rows_per_task(case, rows, case.y[0].type.size),
        "shift": 0,
        "repeat": 1,
        "outside": outside,
    }


def _tasks(params: dict[str, Param]) -> int:
    d, rows = params["d"], params["task_rows"]
    assert isinstance(d, tuple) and isinstance(rows, int)
    return -(-int(prod(d[:-1])) // rows)


def _offsets(groups: Sequence[_Map]) -> NDArray[np.int32]:
    return np.concatenate([g.offset.ravel() for g in groups]).astype(np.int32)


def _repeat(last: _Map, inner: int) -> int:
    """How often every element of a dense last axis is written in a row, 1 when not evenly."""
    offset = last.offset[:, 0]
    times = int(np.count_nonzero(offset == 0))
    if inner != 1 or last.stride != 1 or times < 2 or len(offset) % times:
        return 1
    return times if np.array_equal(offset, np.arange(len(offset)) // times) else 1


def _moved(case: Case, taken: dict[int, _Map], fill: Array) -> Lowered | Reject:
    """Elements of x moved along the axes in ``taken``."""
    x, y = case.x[0], case.y[0]
    assert x is not None
    found = _maps(x, y, taken)
    if isinstance(found, Reject):
        return found
    groups, inner = found
    params = _params(case, groups, inner, 0.0)
    params["repeat"] = _repeat(groups[-1], inner)
    call = Invoke(
        "resize.h",
        f"sp_remap_{8 * x.type.dtype.bytes}",
        "sp_taps",
        params,
        (In(0), Packed(0), Packed(1), Out(0)),
    )
    size = y.type.size
    cycles = size / min(inner, case.target.isa.lanes) + 6 * size / inner
    return Lowered((call,), _tasks(params), (_offsets(groups), fill), cycles=cycles)


def _resize(case: Case) -> Lowered | Reject:
    op, x, y = case.op, case.x[0], case.y[0]
    assert isinstance(op, Resize) and x is not None
    dtype = x.type.dtype
    if not y.type.size:
        return Lowered(())
    taken = {t.axis: _axis(x, y, t.axis, t.index, t.weight, t.outside) for t in op.taps(x.shape)}
    if op.mode == "nearest":
        return _moved(case, taken, _bits(op.extrapolation, x))
    found = _maps(x, y, taken)
    if isinstance(found, Reject):
        return found
    groups, inner = found
    rows = _rows(case, groups, inner, tuple(taken.values()))
    if rows is not None:
        return rows
    params = _params(case, groups, inner, op.extrapolation)
    weight: Array
    function = f"sp_resize_{suffix(dtype)}"
    if dtype.kind != "float" and dtype.bits <= 16:
        if len(taken) > 3:
            return Reject("sums of more than three axes may leave int64")
        params["shift"] = op.bits * len(taken)
        # groups that are not resized have weight 1
        resized = [id(m) for m in taken.values()]
        parts = [
            fixed_weights(g.weight, op.bits) if id(g) in resized else g.weight.astype(np.int64)
            for g in groups
        ]
        weight = np.concatenate([p.ravel() for p in parts])
        if op.rounded:
            weight, function = weight.astype(np.int32), f"sp_resize_codes_{suffix(dtype)}"
    else:
        weight = np.concatenate([g.weight.ravel() for g in groups])
        weight = weight.astype(np.float32 if dtype in (F32, *HALVES) else np.float64)
    packed = (_offsets(groups), weight)
    call = Invoke(
        "resize.h",
        function,
        "sp_taps",
        params,
        (In(0), Packed(0), Packed(1), Out(0)),
    )
    taps = y.type.size * prod(g.offset.shape[1] for g in groups)
    cycles = 2.0 * taps / min(inner, case.target.isa.lanes) + 6 * y.type.size / inner
    return Lowered((call,), _tasks(params), packed, cycles=cycles)


def _rows(case: Case, groups: Sequence[_Map], inner: int, taken: Sequence[_Map]) -> Lowered | None:
    """The two last axes one after the other, where rows between them can be kept."""
    x, y, target = case.x[0], case.y[0], case.target
    assert x is not None
    down, along = groups[3], groups[4]
    if x.type.dtype != F32 or len(taken) != 2 or taken[0] is not down or taken[1] is not along:
        return None
    k, run = down.offset.shape[1], along.offset.shape[0] * inner
    kept = 4 * k * run
    distances = np.diff(np.unique(down.offset))
    if (
        not 1 < k <= MAX_ROWS
        or along.stride != inner
        or min(down.offset.min(), along.offset.min()) < 0
        or len(distances) == 0
        or kept > target.l2_bytes // 2
        or target.machine.bare
    ):
        return None
    # rows that meet must lie in slots of their own
    xs = int(np.gcd.reduce(distances))
    slots = down.offset // xs % k
    for rows, at in zip(down.offset, slots, strict=True):
        if len(set(rows.tolist())) != len(set(at.tolist())):
            return None
    params = _params(case, groups, inner, 0.0)
    weight = np.concatenate([g.weight.ravel() for g in groups]).astype(np.float32)
    call = Invoke(
        "resize.h",
        "sp_resize_rows_f32",
        "sp_taps",
        params,
        (Literal(xs), In(0), Packed(0), Packed(1), Out(0), Scratch("float", kept)),
    )
    stretched = x.type.size * run / max(along.offset.max() + inner, 1) * along.offset.shape[1]
    cycles = stretched * (2 if inner == 1 else 2 / min(inner, target.isa.lanes))
    tasks = _tasks(params)
    cycles += (k + 1) * y.type.size / target.isa.lanes
    packed = (_offsets(groups), weight)
    return Lowered((call,), tasks, packed, cycles=cycles, scratch_bytes=tasks * kept)


def _bits(value: float | int | bool, x: Tensor) -> Array:
    """One element, as an unsigned integer of the width of the type."""
    dtype = x.type.dtype
    if dtype.name == "bfloat16":
        high = np.asarray([value], np.float32).view(np.uint32) >> 16
        return high.astype(np.uint16)
    one = np.asarray([value]).astype(dtype.numpy)
    return one.view(np.dtype(f"uint{8 * dtype.bytes}"))


def _pad_loops(case: Case) -> Lowered | Reject:
    """A constant border: one copy, and one fill per padded side."""
    op, x, y = case.op, case.x[0], case.y[0]
    assert isinstance(op, Pad) and x is not None
    if op.mode != "constant":
        return Reject(f"{op.mode} padding")
    value: lane.Expr = lane.Imm(
        float(op.value) if x.type.dtype.kind == "float" else op.value, x.type.dtype
    )
    loops: list[Loop] = []
    low = [0] * y.type.rank
    high = list(y.shape)
    # each side is cut off what the axes before it left
    for axis, (a, b) in enumerate(op.pads):
        for start, stop in ((0, a), (y.shape[axis] - b, y.shape[axis])):
            extents = [h - v for v, h in zip(low, high, strict=True)]
            extents[axis] = stop - start
            if prod(extents):
                first = [*low[:axis], start, *low[axis + 1 :]]
                at = sum(i * s for i, s in zip(first, y.strides, strict=True))
                loops.append(loop(tuple(extents), value, (), (Out(0, at), y.type, y.strides)))
        low[axis], high[axis] = a, y.shape[axis] - b
    if x.type.size:
        at = sum(i * s for i, s in zip(low, y.strides, strict=True))
        loops.append(copy(x.shape, (In(0), x, x.strides), (Out(0, at), y, y.strides)))
    cycles = y.type.size / case.target.isa.lanes + 20 * len(loops)
    return Lowered(tuple(loops), max(1, len(loops)), cycles=cycles)


def _pad_moved(case: Case) -> Lowered | Reject:
    op, x, y = case.op, case.x[0], case.y[0]
    assert isinstance(op, Pad) and x is not None
    if not y.type.size:
        return Lowered(())
    if not x.type.size:
        return Reject("nothing to repeat")
    taken = {}
    for axis, (a, b) in enumerate(op.pads):
        if a or b:
            if y.shape[axis] > MAX_TABLE:
                return Reject(f"an axis of {y.shape[axis]}")
            line = np.arange(x.shape[axis])
            if op.mode == "constant":
                index = np.pad(line, (a, b), constant_values=-1)
            else:
                index = np.pad(line, (a, b), mode=op.mode)
            dead = index < 0
            weight = np.ones((len(index), 1))
            taken[axis] = _axis(x, y, axis, index[:, None], weight, dead if dead.any() else None)
    return _moved(case, taken, _bits(op.value, x))


ROWS = (
    Kernel("resize", Resize, _resize),
    Kernel("pad_copies", Pad, _pad_loops),
    Kernel("pad_moved", Pad, _pad_moved),
)
