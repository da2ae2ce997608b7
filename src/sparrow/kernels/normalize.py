"""Normalization rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import prod
from operator import mul

from sparrow.kernels.case import (
    Case,
    In,
    Invoke,
    Kernel,
    Lowered,
    Out,
    Reject,
    Scratch,
    Tensor,
)
from sparrow.kernels.element import HALVES, dense, rows_per_task, suffix
from sparrow.ops.normalize import LocalResponse, Normalize
from sparrow.ops.reduce import around, around_groups
from sparrow.tensor import F32

_ONE = {"rows": 1, "row_run": 1, "row_step": 0, "run": 1, "col_step": 0}


def _spans(axes: Sequence[tuple[int, bool]]) -> tuple[int, int, int] | None:
    """Extents before, of and after the axes that vary; None when those lie apart."""
    varying = [i for i, (_, varies) in enumerate(axes) if varies]
    first, end = (varying[0], varying[-1] + 1) if varying else (0, 0)
    if end - first != len(varying):
        return None
    before, own, after = (
        prod(d for d, _ in a) for a in (axes[:first], axes[first:end], axes[end:])
    )
    return before, own, after


def _factors(
    shape: tuple[int, ...], view: tuple[int, int, int], t: Tensor
) -> dict[str, int] | Reject:
    """Where scale or bias is found for a row and column, as fields of ``sp_norm``."""
    if t.type.size == 1:
        return _ONE
    own = (*(1,) * (len(shape) - t.type.rank), *t.shape)
    axes = [(d, own[i] != 1) for i, d in enumerate(shape) if d != 1]
    ends = list(accumulate((d for d, _ in axes), mul, initial=1))
    outer, n, inner = view
    first, last = ends.index(outer), ends.index(outer * n)
    rows, reduced, columns = (_spans(a) for a in (axes[:first], axes[first:last], axes[last:]))
    if rows is None or reduced is None or columns is None:
        return Reject("scale or bias varies along axes that are apart")
    if inner > 1:
        if reduced[1] > 1:
            return Reject("scale or bias varies along reduced axes")
        size, run = columns[1], 1
        if size not in (1, inner):
            return Reject("scale or bias covers rows in part")
    else:
        before, size, run = reduced
        if size > 1 and before > 1:
            return Reject("scale or bias covers rows in part")
    return {
        "rows": rows[1], "row_run": rows[2], "row_step": size,
        "run": run if size > 1 else 1, "col_step": int(size > 1),
    }  # fmt: skip


def _normalize(case: Case) -> Lowered | Reject:
    op, x = case.op, case.x[0]
    assert isinstance(op, Normalize) and x is not None
    dtype = x.type.dtype
    if op.stash != (F32 if dtype in HALVES else dtype):
        return Reject(f"statistics of {dtype} in {op.stash}")
    if refused := dense(case):
        return refused
    if not x.type.size:
        return Lowered(())
    view = around(x.shape, op.axes)
    if view is None:
        return _groups(case, op, x)
    outer, n, inner = view
    given = [case.x[i] if i < len(case.x) else None for i in (1, 2)]
    found = [_factors(x.shape, view, t) for t in given if t is not None]
    for f in found:
        if isinstance(f, Reject):
            return f
    if len(found) == 2 and found[0] != found[1]:
        return Reject("scale and bias vary along different axes")
    factors = found[0] if found else _ONE
    assert isinstance(factors, dict)
    rows = rows_per_task(case, outer, 3 * x.type.size)
    columns = inner
    if dtype == F32 and outer == 1 and inner > 1:
        lanes = case.target.isa.lanes
        columns = lanes * rows_per_task(case, -(-inner // lanes), 3 * x.type.size)
        columns = min(columns, inner)
    params = {
        "outer": outer, "n": n, "inner": inner, "task_rows": rows, "task_columns": columns,
        "center": int(op.center),
        "scaled": int(given[0] is not None), "shifted": int(given[1] is not None),
        "stats": int(op.stats), **factors, "epsilon": op.epsilon,
    }  # fmt: skip
    # what is absent is not read: any pointer of the right type will do
    scale, bias = (In(i) if t is not None else In(0) for i, t in zip((1, 2), given, strict=True))
    stats = [Out(1), Out(2)] if op.center else [Out(1), Out(1)]
    if not op.stats:
        stats = [Out(0), Out(0)]
    call = Invoke(
        "normalize.h",
        f"sp_norm_{suffix(dtype)}",
        "sp_norm",
        params,
        (In(0), scale, bias, Out(0), *stats),
    )
    width = 1 if dtype != F32 else min(case.target.isa.lanes, n if inner == 1 else inner)
    tasks = -(-outer // rows) * -(-inner // columns)
    return Lowered((call,), tasks, cycles=4 * x.type.size / width + 40 * outer)


def _groups(case: Case, op: Normalize, x: Tensor) -> Lowered | Reject:
    """Statistics over positions and over the channels of a group, of channels-last images."""
    view = around_groups(x.shape, op.axes)
    if view is None or x.type.dtype != F32 or op.stats:
        return Reject("normalized axes do not lie together")
    outer, n, groups, inner = view
    channels = groups * inner
    steps: dict[str, int] = {}
    factors: list[In] = []
    for i, name in ((1, "scale"), (2, "bias")):
        t = case.x[i] if i < len(case.x) else None
        if t is not None and t.type.size not in (1, groups, channels):
            return Reject("scale or bias varies along positions")
        if t is not None and t.type.size == groups != channels and t.shape[-1:] != (1,):
            return Reject("scale or bias varies along channels of a group")
        steps[f"{name}_run"] = channels // t.type.size if t is not None else 0
        factors.append(In(i) if t is not None else In(0))
    # a task takes whole groups, of a vector or more
    least = -(-case.target.isa.lanes // inner)
    each = min(groups, max(least, rows_per_task(case, groups, 3 * n * channels)))
    blocks = -(-groups // each)
    params = {
        "n": n, "groups": groups, "inner": inner, "task_groups": each, "center": int(op.center),
        **steps, "epsilon": op.epsilon,
    }  # fmt: skip
    per_task = 4 * 2 * each * inner
    scale, bias = factors
    arguments = (In(0), scale, bias, Out(0), Scratch("float", per_task))
    call = Invoke("normalize.h", "sp_norm_groups_f32", "sp_norm_groups", params, arguments)
    width = min(case.target.isa.lanes, each * inner)
    cycles = 4 * x.type.size / width + 40 * outer * groups
    tasks = outer * blocks
    return Lowered((call,), tasks, cycles=cycles, scratch_bytes=tasks * per_task)


def _lrn(case: Case) -> Lowered | Reject:
    op, x = case.op, case.x[0]
    assert isinstance(op, LocalResponse) and x is not None
    if x.type.dtype != F32:
        return Reject(f"{x.type.dtype}")
    if refused := dense(case):
        return refused
    if not x.type.size:
        return Lowered(())
    view = around(x.shape, (op.axis,))
    assert view is not None
    outer, n, inner = view
    rows = rows_per_task(case, outer, 4 * x.type.size)
    params = {
        "outer": outer, "n": n, "inner": inner, "size": op.size, "task_rows": rows,
        "alpha": op.alpha / op.size, "beta": op.beta, "bias": op.bias,
    }  # fmt: skip
    call = Invoke("normalize.h", "sp_lrn_f32", "sp_lrn", params, (In(0), Out(0)))
    return Lowered((call,), -(-outer // rows), cycles=(op.size + 20.0) * x.type.size)


ROWS = (
    Kernel("normalize", Normalize, _normalize, inplace=(0,)),
    Kernel("lrn_f32", LocalResponse, _lrn),
)
