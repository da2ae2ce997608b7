"""Elementwise ops and every kind of strided copy, as emitted loop nests."""

from __future__ import annotations

from collections.abc import Sequence

from sparrow import lane
from sparrow.kernels.case import (
    Case,
    In,
    Kernel,
    Loop,
    Lowered,
    Out,
    Reject,
    Stream,
    Tensor,
)
from sparrow.ops.concat import Concat
from sparrow.ops.lane import Lane
from sparrow.ops.reshape import Reshape
from sparrow.ops.slice import Slice
from sparrow.ops.transpose import Transpose
from sparrow.tensor import TensorType, row_major

TASK_ELEMENTS = 1 << 15


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


def loop(
    shape: tuple[int, ...],
    expr: lane.Expr,
    x: Sequence[tuple[In, TensorType, tuple[int, ...]]],
    y: tuple[Out, TensorType, tuple[int, ...]],
) -> Loop:
    """A loop nest over ``shape`` with collapsed axes; strides are per axis of ``shape``."""
    dims, strides = collapse(shape, [y[2], *(s for _, _, s in x)])
    streams = tuple(Stream(o, t, s) for (o, t, _), s in zip(x, strides[1:], strict=True))
    return Loop(dims, expr, streams, Stream(y[0], y[1], strides[0]))


def tasks_for(loops: Loop, threads: int) -> int:
    """Parts along the outermost axis: enough for 16 threads when there is enough work."""
    total = 1
    for d in loops.dims:
        total *= d
    work = total * (1 + lane.cost(loops.expr) / 4)
    if not loops.dims or threads == 1:
        return 1
    return max(1, min(loops.dims[0], 16, int(work // TASK_ELEMENTS)))


def _finish(loops: Loop, case: Case) -> Lowered:
    total = 1
    for d in loops.dims:
        total *= d
    cycles = total * (1 + lane.cost(loops.expr)) / case.target.isa.lanes
    return Lowered((loops,), tasks_for(loops, case.threads), cycles=cycles)


def _lane(case: Case) -> Lowered | Reject:
    assert isinstance(case.op, Lane)
    y = case.y[0]
    x = [
        (In(i), t.type, broadcast_strides(t, y.shape)) for i, t in enumerate(case.x) if t is not None
    ]
    return _finish(loop(y.shape, case.op.expr, x, (Out(0), y.type, y.strides)), case)


def copy(
    shape: tuple[int, ...],
    source: tuple[In, Tensor, tuple[int, ...]],
    into: tuple[Out, Tensor, tuple[int, ...]],
) -> Loop:
    """A strided copy of ``shape`` elements."""
    expr = lane.Arg(0, source[1].type.dtype)
    return loop(
        shape,
        expr,
        [(source[0], source[1].type, source[2])],
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


def _concat(case: Case) -> Lowered | Reject:
    assert isinstance(case.op, Concat)
    y = case.y[0]
    loops: list[Loop] = []
    at = 0
    for i, x in enumerate(case.x):
        assert x is not None
        if x.type.size and not x.placed:
            into = (Out(0, at * y.strides[case.op.axis]), y, y.strides)
            loops.append(copy(x.shape, (In(i), x, x.strides), into))
        at += x.shape[case.op.axis]
    cycles = y.type.size / case.target.isa.lanes
    return Lowered(tuple(loops), max(1, len(loops)), cycles=cycles)


ROWS = (
    Kernel("loop", Lane, _lane, inplace=tuple(range(32))),
    Kernel("copy_transpose", Transpose, _transpose),
    Kernel("copy_reshape", Reshape, _reshape),
    Kernel("copy_slice", Slice, _slice),
    Kernel("copy_concat", Concat, _concat),
)
