"""Softmax rows."""

from __future__ import annotations

import math

from sparrow.kernels.case import Case, In, Invoke, Kernel, Lowered, Out, Reject
from sparrow.kernels.element import rows_per_task
from sparrow.ops.softmax import Softmax
from sparrow.tensor import F32, F64


def _softmax(case: Case) -> Lowered | Reject:
    op, x, y = case.op, case.x[0], case.y[0]
    assert isinstance(op, Softmax) and x is not None
    if x.type.dtype not in (F32, F64):
        return Reject(f"{x.type.dtype}")
    if not (x.contiguous and y.contiguous):
        return Reject("operands are not dense")
    if x.type.size == 0:
        return Lowered(())
    outer, n = math.prod(x.shape[: op.axis]), x.shape[op.axis]
    inner = math.prod(x.shape[op.axis + 1 :])
    rows = rows_per_task(case, outer, 4 * x.type.size)
    params = {"outer": outer, "n": n, "inner": inner, "log": int(op.log), "task_rows": rows}
    kind = "f32" if x.type.dtype == F32 else "f64"
    call = Invoke(f"softmax_{kind}.h", f"sp_softmax_{kind}", "sp_softmax", params, (In(0), Out(0)))
    lanes = case.target.isa.lanes if x.type.dtype == F32 else 1
    width = lanes if inner > 1 else min(lanes, n)
    return Lowered((call,), -(-outer // rows), cycles=20 * x.type.size / width)


ROWS = (Kernel("softmax", Softmax, _softmax, inplace=(0,)),)
