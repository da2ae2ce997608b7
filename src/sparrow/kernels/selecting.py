"""Rows of ops that select elements, and determinants."""

from __future__ import annotations

import math

from sparrow.kernels.case import (
    Argument,
    Case,
    In,
    Invoke,
    Kernel,
    Lowered,
    Out,
    Param,
    Reject,
    Scratch,
)
from sparrow.kernels.element import around_axis, dense, rows_per_task, suffix
from sparrow.ops.compress import Compress
from sparrow.ops.det import Det
from sparrow.ops.nms import NonMaxSuppression
from sparrow.ops.nonzero import NonZero
from sparrow.ops.topk import TopK
from sparrow.ops.unique import Unique
from sparrow.tensor import F32

MAX_RANK = 8
MAX_SORTED = 1 << 31


def _topk(case: Case) -> Lowered | Reject:
    op, x = case.op, case.x[0]
    assert isinstance(op, TopK) and x is not None
    if refused := dense(case):
        return refused
    if not case.y[0].type.size:
        return Lowered(())
    outer, n, inner = around_axis(x.shape, op.axis)
    rows = rows_per_task(case, outer, 4 * x.type.size)
    params: dict[str, Param] = {
        "smallest": int(not op.largest), "outer": outer, "n": n, "k": op.k, "inner": inner,
        "task_rows": rows,
    }  # fmt: skip
    name = f"sp_topk_{suffix(x.type.dtype)}"
    call = Invoke("select.h", name, "sp_topk", params, (In(0), Out(0), Out(1)))
    plain = x.type.dtype == F32 and inner == 1  # vectors of which none is among the best pass by
    each = 2.0 / case.target.isa.lanes if plain else 4.0
    # Of elements in random order so many are among the best when they come. A bound from groups
    # leaves the last of each; either way no branch foresees them.
    often = (
        min(math.log(n / op.k), 1 + math.log(1 + math.log(op.k))) if plain else math.log(n / op.k)
    )
    cycles = each * x.type.size + 30.0 * outer * inner * op.k * (1 + often) * op.k.bit_length()
    return Lowered((call,), -(-outer // rows), cycles=cycles)


def _nonzero(case: Case) -> Lowered | Reject:
    x = case.x[0]
    assert x is not None
    if refused := dense(case):
        return refused
    if x.type.rank > MAX_RANK:
        return Reject(f"{x.type.rank} axes")
    params: dict[str, Param] = {"rank": x.type.rank, "size": x.type.size, "d": x.shape}
    name = f"sp_nonzero_{suffix(x.type.dtype)}"
    call = Invoke("select.h", name, "sp_nonzero", params, (In(0), Out(0), Out(1)))
    return Lowered((call,), cycles=8.0 * x.type.size)


def _compress(case: Case) -> Lowered | Reject:
    op, x, y = case.op, case.x[0], case.y[0]
    assert isinstance(op, Compress) and x is not None
    if refused := dense(case):
        return refused
    outer, n, inner = around_axis(x.shape, op.axis)
    params: dict[str, Param] = {
        "outer": outer, "n": n, "m": y.shape[op.axis], "inner": inner,
    }  # fmt: skip
    name = f"sp_compress_{suffix(x.type.dtype)}"
    call = Invoke("select.h", name, "sp_compress", params, (In(0), In(1), Out(0), Out(1)))
    return Lowered((call,), cycles=2.0 * y.type.size)


def _unique(case: Case) -> Lowered | Reject:
    op, x = case.op, case.x[0]
    assert isinstance(op, Unique) and x is not None
    if refused := dense(case):
        return refused
    outer, n, inner = (1, x.type.size, 1) if op.axis is None else around_axis(x.shape, op.axis)
    if n >= MAX_SORTED:
        return Reject(f"{n} slices")
    params: dict[str, Param] = {
        "ordered": int(op.ordered), "outer": outer, "n": n, "inner": inner,
    }  # fmt: skip
    scratch = max(4 * n, 4)
    outputs = tuple(Out(i) for i in range(5))
    arguments: tuple[Argument, ...] = (In(0), *outputs, Scratch("int32_t", scratch))
    name = f"sp_unique_{suffix(x.type.dtype)}"
    call = Invoke("select.h", name, "sp_unique", params, arguments)
    return Lowered((call,), 1, (), scratch, 8.0 * x.type.size * max(1, n.bit_length()))


def _nms(case: Case) -> Lowered | Reject:
    op, scores = case.op, case.x[1]
    assert isinstance(op, NonMaxSuppression) and scores is not None
    if refused := dense(case):
        return refused
    batch, classes, n = scores.shape
    given = [len(case.x) > i and case.x[i] is not None for i in (2, 3)]
    params: dict[str, Param] = {
        "batch": batch, "classes": classes, "n": n, "limit": min(op.limit, n),
        "center": int(op.center), "has_iou": int(given[0]), "has_score": int(given[1]),
    }  # fmt: skip
    scratch = max(4 * n, 4)
    # an absent threshold is not read: any pointer will do
    thresholds = [In(i) if there else In(0) for i, there in zip((2, 3), given, strict=True)]
    arguments: tuple[Argument, ...] = (
        In(0),
        In(1),
        *thresholds,
        Out(0),
        Out(1),
        Scratch("int32_t", scratch),
    )
    call = Invoke("nms_f32.h", "sp_nms_f32", "sp_nms", params, arguments)
    return Lowered((call,), 1, (), scratch, 20.0 * scores.type.size)


def _det(case: Case) -> Lowered | Reject:
    x, y = case.x[0], case.y[0]
    assert x is not None
    if refused := dense(case):
        return refused
    if not y.type.size:
        return Lowered(())
    n, batch = x.shape[-1], y.type.size
    rows = rows_per_task(case, batch, n**3 * batch)
    tasks = -(-batch // rows)
    each = max(n * n * x.type.dtype.bytes, 8)
    params: dict[str, Param] = {"batch": batch, "n": n, "task_rows": rows}
    ctype = "float" if x.type.dtype.bits == 32 else "double"
    arguments = (In(0), Out(0), Scratch(ctype, each))
    call = Invoke("det.h", f"sp_det_{suffix(x.type.dtype)}", "sp_det", params, arguments)
    return Lowered((call,), tasks, (), tasks * each, 1.0 * n**3 * batch)


ROWS = (
    Kernel("topk", TopK, _topk),
    Kernel("nonzero", NonZero, _nonzero),
    Kernel("compress", Compress, _compress),
    Kernel("unique", Unique, _unique),
    Kernel("nms_f32", NonMaxSuppression, _nms),
    Kernel("det", Det, _det),
)
