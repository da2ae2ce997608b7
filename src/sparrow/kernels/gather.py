"""Gather and scatter rows."""

from __future__ import annotations

import math

from sparrow.kernels.case import Argument, Case, In, Invoke, Kernel, Lowered, Out, Param, Reject
from sparrow.kernels.element import around_axis, dense, rows_per_task, suffix
from sparrow.kernels.loop import collapse
from sparrow.ops.gather import Gather
from sparrow.ops.gather_elements import GatherElements
from sparrow.ops.gather_nd import GatherND
from sparrow.ops.scatter import REDUCTIONS, ScatterElements, ScatterND
from sparrow.tensor import row_major

MAX_WALK = 6
MAX_DEPTH = 8


def _name(function: str, case: Case) -> str:
    x, index = case.x[0], case.x[1]
    assert x is not None and index is not None
    return f"sp_{function}_{suffix(x.type.dtype)}_{suffix(index.type.dtype)}"


def _call(
    header: str, function: str, case: Case, params: dict[str, Param], work: int, tasks: int = 1
) -> Lowered:
    arguments: tuple[Argument, ...] = (*(In(i) for i in range(len(case.x))), Out(0))
    call = Invoke(header, _name(function, case), f"sp_{function}", params, arguments)
    return Lowered((call,), tasks, cycles=2.0 * work)


def _gather(case: Case) -> Lowered | Reject:
    op, x, index, y = case.op, case.x[0], case.x[1], case.y[0]
    assert isinstance(op, Gather) and x is not None and index is not None
    if refused := dense(case):
        return refused
    if not y.type.size:
        return Lowered(())
    outer, n, inner = around_axis(x.shape, op.axis)
    rows = outer * index.type.size
    each = rows_per_task(case, rows, y.type.size)
    params: dict[str, Param] = {
        "outer": outer, "n": n, "m": index.type.size, "inner": inner,
        "task_rows": each,
    }  # fmt: skip
    return _call("gather.h", "gather", case, params, y.type.size + 4 * rows, -(-rows // each))


def _walk(
    shape: tuple[int, ...], indexed: tuple[int, ...], axis: int
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Extents of an index tensor and the strides of the tensor indexed along ``axis``."""
    strides = tuple(0 if i == axis else s for i, s in enumerate(row_major(indexed)))
    dims, (walk, _) = collapse(shape, [strides, row_major(shape)])
    missing = MAX_WALK - len(dims)
    if missing < 0:
        return None
    return (*(1,) * missing, *dims), (*(0,) * missing, *walk)


def _gather_elements(case: Case) -> Lowered | Reject:
    op, x, y = case.op, case.x[0], case.y[0]
    assert isinstance(op, GatherElements) and x is not None
    if refused := dense(case):
        return refused
    if not y.type.size:
        return Lowered(())
    walk = _walk(y.shape, x.shape, op.axis)
    if walk is None:
        return Reject(f"more than {MAX_WALK} groups of axes")
    rows = y.type.size // walk[0][-1]
    each = rows_per_task(case, rows, 4 * y.type.size)
    params: dict[str, Param] = {
        "d": walk[0], "xs": walk[1], "n": x.shape[op.axis], "step": row_major(x.shape)[op.axis],
        "task_rows": each,
    }  # fmt: skip
    return _call("gather.h", "gather_elements", case, params, 2 * y.type.size, -(-rows // each))


def _gather_nd(case: Case) -> Lowered | Reject:
    op, x, index, y = case.op, case.x[0], case.x[1], case.y[0]
    assert isinstance(op, GatherND) and x is not None and index is not None
    if refused := dense(case):
        return refused
    if not y.type.size:
        return Lowered(())
    b, depth = op.batch_dims, index.shape[-1]
    if depth > MAX_DEPTH:
        return Reject(f"index vectors of {depth}")
    batch, rows = math.prod(x.shape[:b]), index.type.size // depth
    each = rows_per_task(case, rows, y.type.size + rows * depth)
    params: dict[str, Param] = {
        "batch": batch, "m": rows // batch, "x_batch": math.prod(x.shape[b:]),
        "inner": y.type.size // rows, "depth": depth, "n": x.shape[b : b + depth],
        "step": row_major(x.shape)[b : b + depth],
        "task_rows": each,
    }  # fmt: skip
    work = y.type.size + 4 * rows * depth
    return _call("gather.h", "gather_nd", case, params, work, -(-rows // each))


def _scatter_elements(case: Case) -> Lowered | Reject:
    op, x, index = case.op, case.x[0], case.x[1]
    assert isinstance(op, ScatterElements) and x is not None and index is not None
    if refused := dense(case):
        return refused
    if not x.type.size:
        return Lowered(())
    walk = _walk(index.shape, x.shape, op.axis)
    if walk is None:
        return Reject(f"more than {MAX_WALK} groups of axes")
    params: dict[str, Param] = {
        "kind": REDUCTIONS.index(op.reduction), "size": x.type.size, "d": walk[0], "ys": walk[1],
        "n": x.shape[op.axis], "step": row_major(x.shape)[op.axis],
    }  # fmt: skip
    work = x.type.size + 4 * index.type.size
    return _call("scatter.h", "scatter_elements", case, params, work)


def _scatter_nd(case: Case) -> Lowered | Reject:
    op, x, index = case.op, case.x[0], case.x[1]
    assert isinstance(op, ScatterND) and x is not None and index is not None
    if refused := dense(case):
        return refused
    if not x.type.size:
        return Lowered(())
    depth = index.shape[-1]
    if depth > MAX_DEPTH:
        return Reject(f"index vectors of {depth}")
    rows, inner = index.type.size // depth, math.prod(x.shape[depth:])
    params: dict[str, Param] = {
        "kind": REDUCTIONS.index(op.reduction), "size": x.type.size, "m": rows, "inner": inner,
        "depth": depth, "n": x.shape[:depth], "step": row_major(x.shape)[:depth],
    }  # fmt: skip
    work = x.type.size + 2 * rows * inner
    return _call("scatter.h", "scatter_nd", case, params, work)


ROWS = (
    Kernel("gather", Gather, _gather),
    Kernel("gather_elements", GatherElements, _gather_elements),
    Kernel("gather_nd", GatherND, _gather_nd),
    Kernel("scatter_elements", ScatterElements, _scatter_elements, inplace=(0,)),
    Kernel("scatter_nd", ScatterND, _scatter_nd, inplace=(0,)),
)
