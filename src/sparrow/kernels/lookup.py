"""Rows of functions as tables."""

from __future__ import annotations

from sparrow.kernels.case import (
    Case,
    In,
    Invoke,
    Kernel,
    Lowered,
    Out,
    Param,
    Reject,
    Span,
    row_stride,
)
from sparrow.kernels.element import dense, image_row, rows_per_task, suffix
from sparrow.ops.lookup import Lookup
from sparrow.ops.lookup_linear import LookupLinear
from sparrow.tensor import I8


def _lookup(case: Case) -> Lowered | Reject:
    x, table, y = case.x[0], case.x[1], case.y[0]
    assert x is not None and table is not None
    bits = 8 * y.type.dtype.bytes
    if bits > 32:
        return Reject(f"a table of {y.type.dtype}")
    size = x.type.size
    if not table.contiguous:
        return Reject("the table is not dense")
    if x.contiguous and y.contiguous:
        # one row for each task
        n = ldx = ldy = rows_per_task(case, size, size, image_row(y.shape, case.threads))
        each = 1
    else:
        strides = row_stride(x), row_stride(y)
        if strides[0] is None or strides[1] is None or not size:
            return Reject("rows are not equally spaced")
        n, (ldx, ldy) = x.shape[-1], (strides[0], strides[1])
        each = rows_per_task(case, size // n, size)
    params: dict[str, Param] = {
        "size": size, "n": n, "ldx": ldx, "ldy": ldy, "task_rows": each,
        "offset": 128 if x.type.dtype == I8 else 0,
    }  # fmt: skip
    call = Invoke("lookup.h", f"sp_lookup_{bits}", "sp_lookup", params, (In(0), In(1), Out(0)))
    tasks = -(-size // (n * each)) if size else 1
    rows = -(-size // n) if size else 0
    at = ((In(0), ldx, x.type.dtype.bytes), (Out(0), ldy, y.type.dtype.bytes))
    spans = []
    for low, high in ((t * each, min(rows, (t + 1) * each)) for t in range(tasks if rows else 0)):
        # the last row of a dense operand may be short
        end = size - (rows - 1) * n if high == rows else n
        spans.append(tuple(Span(o, low * d * b, ((high - 1) * d + end) * b) for o, d, b in at))
    return Lowered((call,), tasks, cycles=1.0 * size, spans=tuple(spans))


def _linear(case: Case) -> Lowered | Reject:
    op, x, y = case.op, case.x[0], case.y[0]
    assert isinstance(op, LookupLinear) and x is not None
    if refused := dense(case):
        return refused
    size = y.type.size
    each = rows_per_task(case, size, size, image_row(y.shape, case.threads))
    params: dict[str, Param] = {
        "size": size, "task_size": each, "zero": op.zero, "low": op.low, "high": op.high,
    }  # fmt: skip
    function = f"sp_lookup_linear_{suffix(x.type.dtype)}_{suffix(op.dtype)}"
    call = Invoke("lookup.h", function, "sp_lookup_linear", params, (In(0), In(1), Out(0)))
    return Lowered((call,), -(-size // each) if size else 1, cycles=3.0 * size)


ROWS = (
    Kernel("lookup", Lookup, _lookup, inplace=(0,)),
    Kernel("lookup_linear", LookupLinear, _linear, inplace=(0,)),
)
