"""Convolution rows for what the fast ones refuse: run-time weights, other types, any layout."""

from __future__ import annotations

import math

import numpy as np

from sparrow.kernels.case import (
    Argument,
    Case,
    Epilogue,
    In,
    Invoke,
    Kernel,
    Lowered,
    Out,
    Param,
    Reject,
    Scratch,
)
from sparrow.kernels.conv import image_strides, window_of
from sparrow.kernels.element import rows_per_task, suffix
from sparrow.kernels.epilogue import epilogue_of
from sparrow.kernels.params_f32 import Conv2dShape, params_of, simd_of
from sparrow.kernels.tiling_f32 import choose_conv2d
from sparrow.ops.conv import Conv
from sparrow.ops.sums import over_codes
from sparrow.tensor import F32, F64, I8, I16, U8, DType

# cycles of one multiply-add of a loop that knows nothing about its strides
SLOW = 2.0


def sum_suffix(x: DType, w: DType, others: tuple[DType, ...]) -> str | None:
    """Name of the sum of products of two types in ``native/kernels/*_any.h``, None without one."""
    if over_codes(x, w):
        return f"{suffix(x)}_{suffix(w)}"
    return suffix(x) if x == w and x in others else None


def plain_epilogue(case: Case, dtype: DType, weights: DType) -> Epilogue | Reject:
    """The epilogue of a sum: only those of float32 and of codes have an expression."""
    expr = getattr(case.op, "epilogue", None)
    if dtype == F32 or over_codes(dtype, weights):
        return epilogue_of(case, expr, None, 3, vectors=False)
    return Epilogue(None) if expr is None else Reject(f"an epilogue of {dtype} sums")


def put_of(dtype: DType) -> int:
    """What `sp_put_sum` stores for a result of a sum over codes."""
    return {I8: 0, U8: 1, I16: 3}.get(dtype, 2)


def bias_argument(case: Case) -> tuple[Argument, int]:
    """Pointer to the bias, and whether there is one; without, any pointer of its type will do."""
    there = len(case.x) > 2 and case.x[2] is not None
    return (In(2) if there else Out(0)), int(there)


def _conv_any(case: Case) -> Lowered | Reject:
    op, x, w, y = case.op, case.x[0], case.x[1], case.y[0]
    assert isinstance(op, Conv) and x is not None and w is not None
    rank = len(op.strides)
    if rank > 3:
        return Reject(f"{rank} spatial axes")
    name = sum_suffix(x.type.dtype, w.type.dtype, (F32, F64))
    if name is None:
        return Reject(f"{x.type.dtype} x {w.type.dtype}")
    bias, biased = bias_argument(case)
    if biased and case.x[2] is not None and not case.x[2].contiguous:
        return Reject("the bias is not dense")
    ep = plain_epilogue(case, x.type.dtype, w.type.dtype)
    if isinstance(ep, Reject):
        return ep
    spatial = slice(1, -1) if op.channels_last else slice(2, None)
    channel = -1 if op.channels_last else 1

    def three(v: tuple[int, ...], fill: int) -> tuple[int, ...]:
        return (*(fill,) * (3 - rank), *v)

    pixels = y.shape[0] * math.prod(y.shape[spatial])
    products = y.type.size * math.prod(w.shape[1:])
    task = rows_per_task(case, pixels, products)
    params: dict[str, Param] = {
        "batch": x.shape[0], "groups": op.group, "ci": w.shape[1], "co": w.shape[0] // op.group,
        "in": three(x.shape[spatial], 1), "out": three(y.shape[spatial], 1),
        "k": three(w.shape[2:], 1), "step": three(op.strides, 1),
        "dilation": three(op.dilations, 1), "pad": three(tuple(p[0] for p in op.pads), 0),
        "xn": x.strides[0], "xc": x.strides[channel], "xs": three(x.strides[spatial], 0),
        "wo": w.strides[0], "wi": w.strides[1], "ws": three(w.strides[2:], 0),
        "yn": y.strides[0], "yc": y.strides[channel], "ys": three(y.strides[spatial], 0),
        "last": int(op.channels_last), "biased": biased, "zero": op.zero,
        "put": put_of(y.type.dtype), "task_pixels": task,
    }  # fmt: skip
    arguments = (In(0), In(1), bias, Out(0), ep)
    call = Invoke("conv_any.h", f"sp_conv_any_{name}", "sp_conv_any", params, arguments)
    return Lowered((call,), -(-pixels // task), cycles=SLOW * products)


def _conv2d_pack(case: Case) -> Lowered | Reject:
    op, x, w = case.op, case.x[0], case.x[1]
    assert isinstance(op, Conv) and x is not None and w is not None
    if not op.channels_last:
        return Reject("channels are not last")
    if x.type.dtype != F32 or w.type.dtype != F32:
        return Reject(f"{x.type.dtype} x {w.type.dtype}")
    if w.const is not None:
        return Reject("constant weights are packed when the model is built")
    if not w.contiguous:
        return Reject("weights are not dense")
    window = window_of(case, w.shape[2:], op.strides, op.dilations, op.pads)
    if isinstance(window, Reject):
        return window
    ep = epilogue_of(case, op.epilogue, 2, 3)
    if isinstance(ep, Reject):
        return ep
    simd = simd_of(case.target)
    shape = Conv2dShape(
        **window, ci=x.shape[-1], co=w.shape[0], groups=op.group, xc=image_strides(x)[3]
    )
    p = choose_conv2d(shape, simd)
    each = -(-(w.shape[0] // op.group) // simd.lanes) * simd.lanes
    packed = op.group * each * int(np.prod(w.shape[1:]))
    arguments = (In(0), In(1), Out(0), Scratch("float", 4 * packed), ep)
    call = Invoke(
        "conv2d_pack_f32.h", "sp_conv2d_pack_f32", "sp_conv2d", params_of(p), arguments, p.tasks
    )
    pixels = case.y[0].type.size // w.shape[0]
    work = 2 * packed * pixels / (case.target.isa.flops_per_cycle * 0.7)
    return Lowered((call,), 1, (), 4 * packed, cycles=work + SLOW * packed)


ROWS = (
    Kernel("conv2d_pack_f32", Conv, _conv2d_pack),
    Kernel("conv_any", Conv, _conv_any),
)
