"""The row of products of 8-bit codes with one column of weights: sums along the rows."""

from __future__ import annotations

import numpy as np

from sparrow.kernels.case import (
    Case,
    In,
    Invoke,
    Kernel,
    Lowered,
    Out,
    Pack,
    Packed,
    Param,
    Reject,
)
from sparrow.kernels.packing_i8 import start_of
from sparrow.kernels.sums_i8 import conv2d_sum
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.tensor import I32, U8

# Kinds of products (sp_dot_bytes_i32): of int8, of uint8 with weights that are not negative, and of
# uint8 that is turned into int8 before.
SIGNED, UNSIGNED, TURNED = range(3)


def _column(case: Case) -> Lowered | Reject:
    op, x = case.op, case.x[0]
    assert isinstance(op, Conv | MatMul) and x is not None
    found = conv2d_sum(case)
    if isinstance(found, Reject):
        return found
    s, w, bytes_ = found.shape, found.weights, 4 * case.target.isa.lanes
    if s.co != 1 or s.kh * s.kw != 1 or s.ci % bytes_:
        return Reject("not one column of whole vectors")
    dense = s.oh * s.ow == s.ih * s.iw and (s.oh == 1 or s.xh == s.iw * s.xw)
    if not dense or s.batch != 1 or s.pt or s.pl or s.sh * s.sw != 1:
        return Reject("rows are not equally spaced")
    if found.epilogue.expr is not None or case.y[0].type.dtype != I32 or s.ldy != 1:
        return Reject("results are not dense int32 sums")
    rows, kind = s.oh * s.ow, SIGNED
    if x.type.dtype == U8:
        kind = TURNED if (w < 0).any() else UNSIGNED
    zero = op.zero - (128 if kind == TURNED else 0)
    sums = w.reshape(1, -1).sum(1, dtype=np.int64)
    packed = (
        Pack((s.ci,), np.dtype(np.int8), lambda: np.ascontiguousarray(w.reshape(-1))),
        Pack((1, 1), np.dtype(np.int32), lambda: start_of(sums, found.bias, zero, 1, 1)),
    )
    params: dict[str, Param] = {"rows": rows, "k": s.ci, "kind": kind, "xw": s.xw}
    arguments = (In(0), Packed(0), Packed(1), Out(0))
    call = Invoke("column_i8.h", "sp_column_i8_run", "sp_column_i8", params, arguments)
    # a load and a product of each vector, and what adds up a row
    return Lowered((call,), packed=packed, cycles=rows * (s.ci / bytes_ + 4.0))


_ISAS = ("neon_dot", "neon_i8mm")
ROWS = (
    Kernel("column_i8", Conv, _column, _ISAS),
    Kernel("column_gemm_i8", MatMul, _column, _ISAS),
)
