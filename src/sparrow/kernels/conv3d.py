"""The 3-D convolution row: a 2-D convolution per depth tap."""

from __future__ import annotations

from dataclasses import replace

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
    Tensor,
    row_stride,
)
from sparrow.kernels.conv import window_of
from sparrow.kernels.epilogue import epilogue_of
from sparrow.kernels.packing_f32 import pack_conv
from sparrow.kernels.params_f32 import Conv2dShape, params_of, simd_of
from sparrow.kernels.tiling_f32 import choose_conv2d, conv2d_cycles
from sparrow.ops.conv import Conv
from sparrow.tensor import F32, Array


def _plane(t: Tensor) -> Tensor:
    """One plane of a [N, D, H, W, C] tensor as [1, H, W, C]."""
    shape = (1, *t.shape[2:])
    return Tensor(replace(t.type, shape=shape, axes=""), (0, *t.strides[2:]))


def _conv3d(case: Case) -> Lowered | Reject:
    op, x, w, y = case.op, case.x[0], case.x[1], case.y[0]
    assert isinstance(op, Conv) and x is not None and w is not None
    if len(op.strides) != 3 or not op.channels_last:
        return Reject("not three spatial axes with channels last")
    if x.type.dtype != F32 or w.type.dtype != F32:
        return Reject(f"{x.type.dtype} x {w.type.dtype}")
    value = w.const
    if value is None:
        return Reject("weights are not constant")
    if row_stride(y) is None:
        return Reject("output pixels are not equally spaced")
    planes = Case(op, (_plane(x),), (_plane(y),), case.target)
    window = window_of(planes, w.shape[3:], op.strides[1:], op.dilations[1:], op.pads[1:])
    if isinstance(window, Reject):
        return window
    ep = epilogue_of(case, op.epilogue, 2, 3)
    if isinstance(ep, Reject):
        return ep
    simd = simd_of(case.target)
    ci, co, groups = x.shape[-1], w.shape[0], op.group
    p = choose_conv2d(Conv2dShape(**window, ci=ci, co=co, groups=groups, xc=x.strides[-1]), simd)
    depth = w.shape[2]
    vectors = -(-(co // groups) // simd.lanes)
    each = (groups, vectors, *w.shape[3:], ci // groups, simd.lanes)

    def pack() -> Array:
        taps = [
            pack_conv(np.ascontiguousarray(value[:, :, k]), groups, simd.lanes)
            for k in range(depth)
        ]
        return np.stack(taps)

    params: dict[str, Param] = {
        "id": x.shape[1], "od": y.shape[1], "kd": depth, "sd": op.strides[0],
        "dd": op.dilations[0], "pd": op.pads[0][0], "parts": p.tasks,
        "xn": x.strides[0], "xd": x.strides[1], "wd": int(np.prod(each)),
        **{f"plane.{k}": v for k, v in params_of(p).items()},
    }  # fmt: skip
    call = Invoke(
        "conv3d_f32.h", "sp_conv3d_f32", "sp_conv3d", params, (In(0), Packed(0), Out(0), ep)
    )
    tasks = y.shape[0] * y.shape[1]
    cycles = conv2d_cycles(p, simd) * tasks * depth
    return Lowered(
        (call,), tasks, (Pack((depth, *each), np.dtype(np.float32), pack),), cycles=cycles
    )


ROWS = (Kernel("conv3d_f32", Conv, _conv3d),)
