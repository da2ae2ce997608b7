"""The epilogue argument of convolution-like rows: bias, then the op's expression."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from sparrow import lane
from sparrow.kernels.case import Case, Epilogue, Extra, In, Reject, Tensor
from sparrow.ops.epilogue import rows_and_columns
from sparrow.ops.sums import over_codes
from sparrow.tensor import BF16, F32, I8, I16, I32, U8
from sparrow.vectors import vectorizable

# What an epilogue of int32 sums may give: codes, sums, or the bits of floats.
SUM_RESULTS = (I8, U8, I16, I32, F32)


def stored_half(ep: Epilogue) -> tuple[Epilogue, bool]:
    """An epilogue of float32 sums whose last step, rounding to bfloat16, is left to the store.

    Returns:
        It without that step, and whether there was one.
    """
    e = ep.expr
    if not isinstance(e, lane.Call) or e.fn != "cast" or e.dtype != BF16:
        return ep, False
    (inner,) = e.args
    return replace(ep, expr=None if inner == lane.Arg(0, F32) else inner), True


def _largest(t: Tensor) -> float:
    """See `Extra.largest`."""
    if t.const is None or t.type.dtype != F32:
        return math.inf
    return float(np.abs(np.asarray(t.const)).max(initial=0.0))


def epilogue_of(
    case: Case,
    expr: lane.Expr | None,
    bias: int | None,
    first: int,
    row: int = 0,
    *,
    vectors: bool = True,
    half: bool = False,
) -> Epilogue | Reject:
    """Epilogue of a row over inputs of ``case``.

    Args:
        case: The node.
        expr: Its epilogue over the sum (operand 0) and the inputs from ``first`` on.
        bias: Index of the optional bias input, one value per column; None where the kernel adds it.
        first: Index of the first extra operand.
        row: Output row the call starts at; operands that move with rows are offset to it.
        vectors: Whether it is applied to several columns at a time, which must then lie together.
        half: Whether the kernel can store bfloat16, see `stored_half`.
    """
    y, x, w = case.y[0], *case.x[:2]
    assert x is not None
    codes = w is not None and over_codes(x.type.dtype, w.type.dtype)
    dtype = I32 if codes else F32
    total: lane.Expr = lane.Arg(0, dtype)
    extras: list[Extra] = []
    if bias is not None and bias < len(case.x) and case.x[bias] is not None:
        b = case.x[bias]
        assert b is not None
        if vectors and b.strides[0] not in (0, 1) and b.shape[0] > 1:
            return Reject("the bias is not dense")
        extras.append(Extra(In(bias), b.type, 0, b.strides[0]))
        total = lane.call("add", total, lane.Arg(1, dtype))
    if expr is not None:
        operands: list[lane.Expr] = [total]
        for i in range(first, len(case.x)):
            t = case.x[i]
            assert t is not None
            moves = rows_and_columns(y.shape, t.shape, t.strides)
            if moves is None:
                return Reject(f"epilogue operand {i} has unequal row distances")
            if vectors and moves[1] not in (0, 1):
                return Reject(f"epilogue operand {i} is not dense along the columns")
            extras.append(Extra(In(i, row * moves[0]), t.type, *moves, _largest(t)))
            operands.append(lane.Arg(len(extras), t.type.dtype))
        total = lane.substitute(expr, operands)
    if total == lane.Arg(0, dtype):
        return Epilogue(None, sum=dtype)
    results = SUM_RESULTS if dtype == I32 else (F32, BF16) if half else (F32,)
    if not vectorizable(total) or total.dtype not in results:
        return Reject(f"the epilogue of {dtype} sums has no vector form")
    return Epilogue(total, tuple(extras), dtype)
