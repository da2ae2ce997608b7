"""Quantize and Dequantize as loops, where no pass wrote them as lane expressions."""

from __future__ import annotations

from sparrow.kernels.case import (
    Case,
    In,
    Kernel,
    Loop,
    Lowered,
    Out,
    Packed,
    Reject,
    Stream,
    Tensor,
)
from sparrow.kernels.loop import broadcast_strides, collapse, schedule, tasks_for
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.tensor import row_major, type_of

LANE_BITS = 16


def _loop(case: Case) -> Lowered | Reject:
    op, x, y = case.op, case.x[0], case.y[0]
    assert isinstance(op, Quantize | Dequantize) and x is not None
    if isinstance(op, Quantize) and op.dtype.bits > LANE_BITS:
        return Reject(f"codes of {op.dtype}")
    expr, arrays = op.expression(x.type)
    constants = [Tensor(type_of(a), row_major(a.shape)) for a in arrays]
    walks = [broadcast_strides(t, y.shape) for t in (x, *constants)]
    dims, (into, first, *rest) = collapse(y.shape, [y.strides, *walks])
    streams = [Stream(In(0), x.type, first)]
    streams += [
        Stream(Packed(i), t.type, s) for i, (t, s) in enumerate(zip(constants, rest, strict=True))
    ]
    c = Loop(dims, expr, tuple(streams), Stream(Out(0), y.type, into))
    cycles = schedule(c, case.target.isa.lanes).cycles
    return Lowered((c,), tasks_for(c, case.threads), arrays, cycles=cycles)


ROWS = (
    Kernel("loop_quantize", Quantize, _loop),
    Kernel("loop_dequantize", Dequantize, _loop),
)
