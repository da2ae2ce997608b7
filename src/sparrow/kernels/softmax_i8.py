"""The row of softmax over 8-bit codes."""

from __future__ import annotations

import numpy as np

from sparrow.kernels.case import Case, In, Invoke, Kernel, Lowered, Out, Param, Reject
from sparrow.kernels.element import around_axis, dense, rows_per_task
from sparrow.ops.softmax_codes import SoftmaxCodes
from sparrow.tensor import I8, I32, U8


def _softmax(case: Case) -> Lowered | Reject:
    op, x, table = case.op, case.x[0], case.x[1]
    assert isinstance(op, SoftmaxCodes) and x is not None and table is not None
    if refused := dense(case):
        return refused
    if x.type.size == 0:
        return Lowered(())
    outer, n, inner = around_axis(x.shape, op.axis)
    rows = rows_per_task(case, outer, x.type.size)
    low, high = op.dtype.limits
    half = np.float32(0.5)
    above = np.nextafter(half, np.float32(0)) if op.dtype == U8 else half
    params: dict[str, Param] = {
        "outer": outer, "n": n, "inner": inner, "task_rows": rows,
        "flip": 128 if x.type.dtype == I8 else 0, "zero": op.zero, "lo": low, "hi": high,
        "total": op.total, "shift": op.shift, "step": op.step, "above": float(above),
    }  # fmt: skip
    kind = "exact" if table.type.dtype == I32 else "litert"
    arguments = (In(0), In(1), Out(0))
    call = Invoke("softmax_i8.h", f"sp_softmax_i8_{kind}", "sp_softmax_i8", params, arguments)
    return Lowered((call,), -(-outer // rows), cycles=6.0 * x.type.size)


ROWS = (Kernel("softmax_i8", SoftmaxCodes, _softmax, inplace=(0,)),)
