"""Elementwise ops and every kind of strided copy, as emitted loop nests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from sparrow import lane
from sparrow.kernels.case import (
    Case,
    In,
    Kernel,
    Loop,
    Lowered,
    Out,
    Packed,
    Reject,
    Span,
    Stream,
    Tensor,
)
from sparrow.kernels.element import image_row, rows_per_task
from sparrow.ops.bitcast import BitCast
from sparrow.ops.concat import Concat
from sparrow.ops.lane import Lane
from sparrow.ops.pad import Expand
from sparrow.ops.reshape import Reshape
from sparrow.ops.slice import Slice
from sparrow.ops.transpose import Transpose
from sparrow.tensor import F32, TensorType, row_major
from sparrow.vectors import vectorizable

TASK_ELEMENTS = 1 << 12
MAX_BLOCK = 8
# Planes that are interleaved: beyond four, other forms are as fast.
MAX_PLANES = 4
MAX_PIECES = 16
# A vector store of a neighbour's task must not share a cache line.
GRAIN = 64


def collapse(
    dims: Sequence[int], strides: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Drop axes of extent 1 and merge neighbours that every operand walks as one."""
    kept: list[int] = []
    moves: list[list[int]] = [[] for _ in strides]
    for axis, d in enumerate(dims):
        if d == 1:
            continue
        if kept and all(m[-1] == s[axis] * d for m, s in zip(moves, strides, strict=True)):
            kept[-1] *= d
            for m, s in zip(moves, strides, strict=True):
                m[-1] = s[axis]
            continue
        kept.append(d)
        for m, s in zip(moves, strides, strict=True):
            m.append(s[axis])
    return tuple(kept), [tuple(m) for m in moves]


def broadcast_strides(t: Tensor, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of an operand walked over ``shape``; 0 along broadcast axes."""
    lead = len(shape) - t.type.rank
    own = [0 if d == 1 else s for d, s in zip(t.shape, t.strides, strict=True)]
    return (*(0,) * lead, *own)


def batch_axes(
    operands: Sequence[Tensor], shape: tuple[int, ...]
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Batch axes ``shape`` of matrices, collapsed, and the strides of operands along them."""
    walks = [broadcast_strides(t, (*shape, *t.shape[-2:]))[:-2] for t in operands]
    return collapse(shape, walks)


def loop(
    shape: tuple[int, ...],
    expr: lane.Expr,
    x: Sequence[tuple[In, TensorType, tuple[int, ...]]],
    y: tuple[Out, TensorType, tuple[int, ...]],
) -> Loop:
    """A loop nest over ``shape`` with collapsed axes; strides are per axis of ``shape``.

    Operands that ``expr`` does not mention (only their shape mattered) are left out.
    """
    used = sorted({a.index for a in lane.walk(expr) if isinstance(a, lane.Arg)})
    kept = [x[i] for i in used]
    table: list[lane.Expr] = [lane.Imm(0.0, F32)] * len(x)
    for k, i in enumerate(used):
        table[i] = lane.Arg(k, x[i][1].dtype)
    expr, x = lane.substitute(expr, table), kept
    dims, strides = collapse(shape, [y[2], *(s for _, _, s in x)])
    streams = tuple(Stream(o, t, s) for (o, t, _), s in zip(x, strides[1:], strict=True))
    return Loop(dims, expr, streams, Stream(y[0], y[1], strides[0]))


Form = Literal["scalar", "vector", "blocks", "interleave", "transpose"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a loop nest is run.

    Attributes:
        form: ``scalar``: one element at a time. ``vector``: SP_LANES elements of ``axis`` at a
        time;
            operands that do not lie dense along it go element by element through a small array.
            ``blocks``: SP_LANES rows of the short last axis at a time as one dense run; operands
            that are not one run go through a small array. ``transpose``: copies between ``axis``,
            along which the source is dense, and ``other``, along which the result is.
        axis: The innermost axis.
        other: See ``interleave`` and ``transpose``.
        cycles: Predicted cycles on one core.
    """

    form: Form
    axis: int
    other: int
    cycles: float


def is_copy(c: Loop) -> bool:
    """Whether a loop moves elements without changing them."""
    return isinstance(c.expr, lane.Arg) and c.x[0].type.dtype == c.y.type.dtype


def schedule(c: Loop, lanes: int) -> Schedule:
    """The cheapest form of a loop nest."""
    if not c.dims:
        return Schedule("scalar", 0, 0, 4.0 + lane.cost(c.expr))
    total = math.prod(c.dims)
    last = len(c.dims) - 1
    work = lane.cost(c.expr)
    streams = (*c.x, c.y)
    every = [Schedule("scalar", last, 0, total * (0.5 + work + _touch(streams, last, 1)))]
    if is_copy(c):
        every += _transposes(c, total)
        if all(s.strides[last] == 1 for s in streams):
            # short runs are one move each, long ones a block move
            per_run = 1.5 + c.dims[last] * 2 / lanes
            every.append(Schedule("scalar", last, 0, total / max(c.dims[last], 1) * per_run))
    elif vectorizable(c.expr):
        for axis in range(last, -1, -1):
            vectors = -(-c.dims[axis] // lanes) * (total / max(c.dims[axis], 1))
            cost = 0.5 + work + _touch(streams, axis, lanes)
            every.append(Schedule("vector", axis, 0, vectors * cost))
        if len(c.dims) > 1 and 2 <= c.dims[-1] <= MAX_BLOCK and lanes > 1:
            cost = 0.5 + work + sum(_block(s, c.dims[-1], lanes) for s in streams)
            every.append(Schedule("blocks", last, 0, -(-total // lanes) * cost))
        every += _interleaved(c, total, 1.5 + work + 0.25 * lanes, lanes)
    return min(every, key=lambda s: s.cycles)


def _touch(streams: Sequence[Stream], axis: int, lanes: int) -> float:
    """Cycles to load and store one vector of every operand."""
    cost = 0.0
    for s in streams:
        step = s.strides[axis]
        # a large step touches a cache line per element
        far = 1.0 if abs(step) * s.type.dtype.bytes >= 64 else 0.25
        cost += 0.25 if step == 0 else 1.0 if step == 1 else lanes * (1.0 + far)
    return cost


def _block(s: Stream, n: int, lanes: int) -> float:
    """Cycles per vector of an operand in ``blocks`` form."""
    if s.strides[-2] == 0 or (s.strides[-1] == 1 and s.strides[-2] == n):
        return 1.0
    # runs of n elements are moved as a whole
    return lanes / n + 1.0 if s.strides[-1] == 1 else lanes * 1.25


def _transposes(c: Loop, total: int) -> list[Schedule]:
    x, y = c.x[0].strides, c.y.strides
    dense_x = [a for a, s in enumerate(x) if s == 1 and c.dims[a] >= 4]
    dense_y = [a for a, s in enumerate(y) if s == 1 and c.dims[a] >= 4]
    return [
        Schedule("transpose", a, b, total * 0.75)
        for a in dense_x
        for b in dense_y
        if a != b and y[a] > 1 and x[b] > 1
    ]


def _interleaved(c: Loop, total: int, work: float, lanes: int) -> list[Schedule]:
    y = c.y.strides
    planes = [a for a, d in enumerate(c.dims) if y[a] == 1 and 2 <= d <= MAX_PLANES]
    if lanes == 1 or not planes or planes[0] == split_axis(c):
        return []
    return [
        Schedule("interleave", a, b, -(-total // lanes) * (work + _touch(c.x, a, lanes)))
        for b in planes
        for a in range(len(y))
        if y[a] == c.dims[b]
    ]


def split_axis(c: Loop) -> int:
    """The axis that tasks divide: the first long one, else the longest.

    A short last axis may be part of a block, which is not divided.
    """
    inner = len(c.dims) > 1 and c.dims[-1] <= MAX_BLOCK
    axes = range(len(c.dims) - inner)
    long = [a for a in axes if c.dims[a] >= 16]
    return long[0] if long else max(axes, key=lambda a: c.dims[a])


def tasks_for(c: Loop, threads: int) -> int:
    """Parts along the split axis: one for each thread when there is enough work."""
    if not c.dims:
        return 1
    work = math.prod(c.dims) * (1 + lane.cost(c.expr) / 4)
    axis = split_axis(c)
    parts = c.dims[axis] // (1 if axis else c.together)
    return max(1, min(parts, threads, int(work // TASK_ELEMENTS)))


def task_extent(c: Loop, tasks: int, lanes: int) -> int:
    """How much of the split axis each task takes; the last ones may find less, or nothing."""
    axis, plan = split_axis(c), schedule(c, lanes)
    grain = GRAIN if axis == plan.axis and plan.form != "transpose" else 1
    if axis == 0 and c.together > 1:
        grain = c.together
    return -(-c.dims[axis] // (tasks * grain)) * grain


def _spans(c: Loop, tasks: int, lanes: int) -> tuple[tuple[Span, ...], ...]:
    if tasks == 1 or any(s < 0 for t in (*c.x, c.y) for s in t.strides):
        return ()
    axis, each = split_axis(c), task_extent(c, tasks, lanes)
    found = []
    for task in range(tasks):
        low = min(c.dims[axis], task * each)
        part = min(c.dims[axis], low + each) - low
        dims = (*c.dims[:axis], part, *c.dims[axis + 1 :])
        spans = []
        for s in (*c.x, c.y):
            if isinstance(s.operand, Packed):
                continue
            first = s.operand.offset + low * s.strides[axis]
            reach = sum((d - 1) * step for d, step in zip(dims, s.strides, strict=True))
            size = s.type.dtype.bytes
            high = first + reach + 1 if part else first
            spans.append(Span(s.operand, first * size, high * size))
        found.append(tuple(spans))
    return tuple(found)


def _finish(c: Loop, case: Case) -> Lowered:
    y = case.y[0].shape
    if image_row(y, case.threads) > 1 and c.dims[0] in (math.prod(y), math.prod(y[:3])):
        c = replace(c, together=c.dims[0] // y[1])
    lanes = case.target.isa.lanes
    tasks, cycles = tasks_for(c, case.threads), schedule(c, lanes).cycles
    return Lowered((c,), tasks, cycles=cycles, spans=_spans(c, tasks, lanes))


def _lane(case: Case) -> Lowered | Reject:
    assert isinstance(case.op, Lane)
    y = case.y[0]
    x = [
        (In(i), t.type, broadcast_strides(t, y.shape))
        for i, t in enumerate(case.x)
        if t is not None
    ]
    nest = loop(y.shape, case.op.expr, x, (Out(0), y.type, y.strides))
    found = _finish(nest, case)
    # one run of all operands, which ends no later in input 0 than in the result at any element
    run = found.tasks == 1 and all(s.strides == (1,) for s in (*nest.x, nest.y))
    narrow = bool(nest.x) and nest.x[0].operand == In(0) and case.x[0] is not None
    if run and narrow and y.type.dtype.bytes <= nest.x[0].type.dtype.bytes:
        return replace(found, lead=0)
    return found


def copy(
    shape: tuple[int, ...],
    source: tuple[In, Tensor, tuple[int, ...]],
    into: tuple[Out, Tensor, tuple[int, ...]],
) -> Loop:
    """A strided copy of ``shape`` elements."""
    expr = lane.Arg(0, into[1].type.dtype)
    # the bits are moved: what the source takes them for does not matter
    return loop(
        shape,
        expr,
        [(source[0], into[1].type, source[2])],
        (into[0], into[1].type, into[2]),
    )


def _transpose(case: Case) -> Lowered | Reject:
    assert isinstance(case.op, Transpose)
    x, y = case.x[0], case.y[0]
    assert x is not None
    strides = tuple(x.strides[p] for p in case.op.perm)
    return _finish(copy(y.shape, (In(0), x, strides), (Out(0), y, y.strides)), case)


def _reshape(case: Case) -> Lowered | Reject:
    x, y = case.x[0], case.y[0]
    assert x is not None
    if y.contiguous:
        dense = (Out(0), y, row_major(x.shape))
        return _finish(copy(x.shape, (In(0), x, x.strides), dense), case)
    if x.contiguous:
        walk = (In(0), x, row_major(y.shape))
        return _finish(copy(y.shape, walk, (Out(0), y, y.strides)), case)
    return Reject("neither side of the reshape is dense")


def _slice(case: Case) -> Lowered | Reject:
    assert isinstance(case.op, Slice)
    x, y = case.x[0], case.y[0]
    assert x is not None
    offset = sum(a * s for a, s in zip(case.op.starts, x.strides, strict=True))
    strides = tuple(k * s for k, s in zip(case.op.steps, x.strides, strict=True))
    return _finish(copy(y.shape, (In(0, offset), x, strides), (Out(0), y, y.strides)), case)


def _expand(case: Case) -> Lowered | Reject:
    x, y = case.x[0], case.y[0]
    assert x is not None
    return _finish(
        copy(y.shape, (In(0), x, broadcast_strides(x, y.shape)), (Out(0), y, y.strides)), case
    )


def _bitcast(case: Case) -> Lowered | Reject:
    x, y = case.x[0], case.y[0]
    assert x is not None
    return _finish(copy(y.shape, (In(0), x, x.strides), (Out(0), y, y.strides)), case)


def _concat(case: Case) -> Lowered | Reject:
    assert isinstance(case.op, Concat)
    y, axis = case.y[0], case.op.axis
    starts = np.cumsum([0, *(x.shape[axis] for x in case.x if x is not None)])
    moved = [
        (i, x, int(at) * y.strides[axis])
        for i, (x, at) in enumerate(zip(case.x, starts, strict=False))
        if x is not None and x.type.size and not x.placed
    ]
    # what several operands write side by side is written while its lines are near, the longest runs
    # first: they are fetched ahead
    moved.sort(key=lambda part: -part[1].type.size)
    outer = [a for a, d in enumerate(y.shape) if d > 1 and y.strides[a] > y.strides[axis]]
    along, pieces = outer[0] if outer else axis, 1
    if outer and not case.target.machine.bare:
        share = rows_per_task(case, y.shape[along], sum(x.type.size for _, x, _ in moved))
        pieces = -(-y.shape[along] // share)
        if len(moved) > 1:
            most = min(y.shape[along], MAX_PIECES)
            pieces = max(pieces, min(most, -(-2 * y.type.bytes // case.target.l2_bytes)))
    loops: list[Loop] = []
    for piece in range(pieces):
        first, end = (p * y.shape[along] // pieces for p in (piece, piece + 1))
        for i, x, at in moved:
            count = end - first if pieces > 1 else x.shape[along]
            shape = (*x.shape[:along], count, *x.shape[along + 1 :])
            source = (In(i, first * x.strides[along]), x, x.strides)
            into = (Out(0, at + first * y.strides[along]), y, y.strides)
            loops.append(copy(shape, source, into))
    cycles = sum(schedule(c, case.target.isa.lanes).cycles for c in loops)
    return Lowered(tuple(loops), max(1, len(loops)), cycles=cycles)


ROWS = (
    Kernel("loop", Lane, _lane, inplace=tuple(range(32))),
    Kernel("copy_transpose", Transpose, _transpose),
    Kernel("copy_reshape", Reshape, _reshape),
    Kernel("copy_slice", Slice, _slice),
    Kernel("copy_expand", Expand, _expand),
    Kernel("copy_bitcast", BitCast, _bitcast),
    Kernel("copy_concat", Concat, _concat),
)
