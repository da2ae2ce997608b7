"""Transposed convolution rows."""

from __future__ import annotations

from math import prod

import numpy as np

from sparrow.kernels.case import (
    Case,
    In,
    Invoke,
    Kernel,
    Lowered,
    Out,
    Packed,
    Param,
    Reject,
    row_stride,
)
from sparrow.kernels.element import rows_per_task, suffix
from sparrow.kernels.epilogue import epilogue_of
from sparrow.kernels.pool_any import three
from sparrow.ops.conv_transpose import ConvTranspose
from sparrow.tensor import F32, Array


def _geometry(case: Case, spatial: slice) -> dict[str, Param]:
    op, x, w, y = case.op, case.x[0], case.x[1], case.y[0]
    assert isinstance(op, ConvTranspose) and x is not None and w is not None
    return {
        "batch": x.shape[0],
        "groups": op.group,
        "ci": w.shape[0] // op.group,
        "co": w.shape[1],
        "in": three(x.shape[spatial], 1),
        "out": three(y.shape[spatial], 1),
        "k": three(w.shape[2:], 1),
        "s": three(op.strides, 1),
        "d": three(op.dilations, 1),
        "begin": three(tuple(p[0] for p in op.pads), 0),
        "xn": x.strides[0],
        "xs": three(x.strides[spatial], 0),
    }


def pack(w: Array, group: int, lanes: int) -> Array:
    """Weights [C, M/g, *kernel] as [g, taps, C/g, M/g rounded up to vectors], zeros at the end."""
    c, m = w.shape[:2]
    taps = prod(w.shape[2:])
    rows = w.reshape(group, c // group, m, taps).transpose(0, 3, 1, 2)
    return np.pad(rows, ((0, 0), (0, 0), (0, 0), (0, -m % lanes)))


def _packed(case: Case) -> Lowered | Reject:
    op, x, w, y = case.op, case.x[0], case.x[1], case.y[0]
    assert isinstance(op, ConvTranspose) and x is not None and w is not None
    if x.type.dtype != F32 or not op.channels_last:
        return Reject("not float32 with channels last")
    if w.const is None:
        return Reject("weights are not constant")
    if len(op.strides) > 3:
        return Reject(f"{len(op.strides)} spatial axes")
    if not y.type.size:
        return Lowered(())
    ldy = row_stride(y)
    if ldy is None or (x.strides[-1] != 1 and x.shape[-1] > 1):
        return Reject("pixels are not equally spaced")
    ep = epilogue_of(case, op.epilogue, 2, 3)
    if isinstance(ep, Reject):
        return ep
    params = _geometry(case, slice(1, -1))
    rows = prod(y.shape[:-2])
    flops = 2 * x.type.size * prod(w.shape[1:])
    each = rows_per_task(case, rows, flops // 8)
    isa, lanes = case.target.isa, case.target.isa.lanes
    # by two vectors six fill 16 registers with what is multiplied; on others than AVX2 none but
    # four were timed
    pixels = 6 if (lanes, isa.registers) == (8, 16) else 4
    params |= {"np": pixels, "task_rows": each, "ldy": ldy}
    call = Invoke(
        "conv_transpose.h",
        "sp_conv_transpose_f32",
        "sp_conv_transpose",
        params,
        (In(0), Packed(0), Out(0), ep),
    )
    used = min(1.0, w.shape[1] / (-(-w.shape[1] // lanes) * lanes))
    cycles = flops / (isa.flops_per_cycle * 0.4 * used)
    return Lowered((call,), -(-rows // each), (pack(w.const, op.group, lanes),), cycles=cycles)


def _any(case: Case) -> Lowered | Reject:
    op, x, w, y = case.op, case.x[0], case.x[1], case.y[0]
    assert isinstance(op, ConvTranspose) and x is not None and w is not None
    if len(op.strides) > 3:
        return Reject(f"{len(op.strides)} spatial axes")
    if op.epilogue is not None:
        return Reject("an epilogue")
    if not w.contiguous:
        return Reject("operands are not dense")
    if not y.type.size:
        return Lowered(())
    spatial = slice(1, -1) if op.channels_last else slice(2, None)
    channel = -1 if op.channels_last else 1
    bias = case.x[2] if len(case.x) > 2 else None
    planes = y.shape[0] * y.shape[channel]
    flops = 2 * x.type.size * prod(w.shape[1:])
    rows = rows_per_task(case, planes, flops)
    params = _geometry(case, spatial) | {
        "task_rows": rows,
        "bias": int(bias is not None),
        "xc": x.strides[channel],
        "yn": y.strides[0],
        "yc": y.strides[channel],
        "ys": three(y.strides[spatial], 0),
    }
    name = f"sp_deconv_{suffix(x.type.dtype)}"
    # without a bias nothing is read there
    added = In(2) if bias is not None else In(1)
    call = Invoke("conv_transpose.h", name, "sp_deconv", params, (In(0), In(1), added, Out(0)))
    return Lowered((call,), -(-planes // rows), cycles=4.0 * flops)


ROWS = (
    Kernel("conv_transpose_f32", ConvTranspose, _packed),
    Kernel("conv_transpose", ConvTranspose, _any),
)
