"""The matrix product row for what the fast one refuses: other types, any strides."""

from __future__ import annotations

import math

from sparrow.kernels.case import Case, In, Invoke, Kernel, Lowered, Out, Param, Reject
from sparrow.kernels.conv_any import SLOW, bias_argument, plain_epilogue, put_of, sum_suffix
from sparrow.kernels.element import rows_per_task
from sparrow.kernels.loop import batch_axes
from sparrow.ops.matmul import MatMul
from sparrow.tensor import F32, F64, I16, I32, I64, U16, U32, U64


def _matmul_any(case: Case) -> Lowered | Reject:
    op, a, b, y = case.op, case.x[0], case.x[1], case.y[0]
    assert isinstance(op, MatMul) and a is not None and b is not None
    name = sum_suffix(a.type.dtype, b.type.dtype, (F32, F64, I16, U16, I32, U32, I64, U64))
    if name is None:
        return Reject(f"{a.type.dtype} x {b.type.dtype}")
    bias, biased = bias_argument(case)
    if biased and case.x[2] is not None and not case.x[2].contiguous:
        return Reject("the bias is not dense")
    ep = plain_epilogue(case, a.type.dtype, b.type.dtype)
    if isinstance(ep, Reject):
        return ep
    batch = y.shape[:-2]
    dims, strides = batch_axes((a, b, y), batch)
    missing = 4 - len(dims)
    if missing < 0:
        return Reject(f"{len(dims)} batch axes")
    (ai, ak), (bk, bj) = a.strides[-2:], b.strides[-2:]
    if op.trans_a:
        ai, ak = ak, ai
    if op.trans_b:
        bk, bj = bj, bk
    m, n = y.shape[-2:]
    k = a.shape[-2] if op.trans_a else a.shape[-1]
    rows = math.prod(batch) * m
    task = rows_per_task(case, rows, rows * n * k)
    za, zb, zy = ((*(0,) * missing, *s) for s in strides)
    params: dict[str, Param] = {
        "m": m, "n": n, "k": k, "ai": ai, "ak": ak, "bk": bk, "bj": bj,
        "yi": y.strides[-2], "yj": y.strides[-1], "batch": (*(1,) * missing, *dims),
        "za": za, "zb": zb, "zy": zy, "biased": biased,
        "zero": op.zero, "zero_b": op.zero_b, "put": put_of(y.type.dtype), "task_rows": task,
    }  # fmt: skip
    arguments = (In(0), In(1), bias, Out(0), ep)
    call = Invoke("matmul_any.h", f"sp_matmul_any_{name}", "sp_matmul_any", params, arguments)
    return Lowered((call,), -(-rows // task), cycles=SLOW * rows * n * k)


ROWS = (Kernel("matmul_any", MatMul, _matmul_any),)
