"""Rows of convolutions and products of 8-bit codes with constant int8 weights."""

from __future__ import annotations

import math

import numpy as np

from sparrow.kernels.case import (
    Argument,
    Case,
    In,
    Invoke,
    Kernel,
    Lowered,
    Out,
    Pack,
    Packed,
    Reject,
    Scratch,
    Tensor,
    row_stride,
)
from sparrow.kernels.conv import window_of
from sparrow.kernels.conv_any import put_of
from sparrow.kernels.epilogue import SUM_RESULTS, epilogue_of
from sparrow.kernels.packing_f32 import round_up
from sparrow.kernels.packing_i8 import pack_conv, pack_depthwise, start_of
from sparrow.kernels.params_f32 import Conv2dShape, Window, params_of
from sparrow.kernels.tiling_i8 import Bytes, choose_conv2d, choose_depthwise, merges
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.ops.sums import CODES
from sparrow.tensor import I8, I32, U8, Array


def bytes_of(case: Case, zero: int) -> tuple[Bytes, int] | Reject:
    """How the input is read, and its zero point as the dot product sees it."""
    x, y = case.x[0], case.y[0]
    assert x is not None
    if y.type.dtype not in SUM_RESULTS:
        return Reject(f"results of {y.type.dtype}")
    unsigned = case.target.isa.dot_unsigned
    flip = (x.type.dtype == U8) != unsigned
    seen = zero + (0 if not flip else 128 if unsigned else -128)
    return Bytes(flip, seen & 255, put_of(y.type.dtype)), seen


def operands(case: Case) -> tuple[Tensor, Array, Array | None] | Reject:
    """(x, int8 weights, int32 bias) of a sum over codes."""
    x, w = case.x[0], case.x[1]
    assert x is not None and w is not None
    if x.type.dtype not in CODES or w.type.dtype != I8:
        return Reject(f"{x.type.dtype} x {w.type.dtype}")
    if w.const is None:
        return Reject("weights are not constant")
    b = case.x[2] if len(case.x) > 2 else None
    if b is not None and (b.const is None or b.type.dtype != I32):
        return Reject("the bias is not constant int32")
    return x, w.const, None if b is None else b.const


def start(w: Array, bias: Array | None, zero: int, groups: int, lanes: int) -> Pack:
    """Where sums begin, [groups, channels of a group rounded up]; w has output channels first."""
    each = round_up(w.shape[0] // groups, lanes)
    flat = w.reshape(w.shape[0], -1)
    return Pack(
        (groups, each),
        np.dtype(np.int32),
        lambda: start_of(flat.sum(1, dtype=np.int64), bias, zero, groups, lanes),
    )


def two_d(w: Array) -> Array:
    o, i, *kernel = w.shape
    return w if len(kernel) == 2 else w.reshape(o, i, 1, *kernel)


def _depthwise(case: Case) -> Lowered | Reject:
    op = case.op
    assert isinstance(op, Conv)
    if not op.channels_last:
        return Reject("channels are not last")
    found = operands(case)
    if isinstance(found, Reject):
        return found
    x, weights, bias = found
    c = x.shape[-1]
    if op.group != c or weights.shape[0] != c:
        return Reject("not depthwise with one output per channel")
    if x.strides[-1] != 1 and c > 1:
        return Reject("input channels are not adjacent")
    window = window_of(case, weights.shape[2:], op.strides, op.dilations, op.pads)
    if isinstance(window, Reject):
        return window
    code = bytes_of(case, op.zero)
    if isinstance(code, Reject):
        return code
    ep = epilogue_of(case, op.epilogue, None, 3)
    if isinstance(ep, Reject):
        return ep
    lanes, w = case.target.isa.lanes, two_d(weights)
    p, cycles = choose_depthwise(Window(**window), c, code[0], case.target, threads=case.threads)
    per = case.target.isa.per
    shape = (-(-c // lanes), p.ro, p.rq, p.kw, lanes, per)
    packed = (
        Pack(shape, np.dtype(np.int8), lambda: pack_depthwise(w, lanes, p.ro, p.rq, p.sh, per)),
        start(w, bias, code[1], 1, lanes),
    )
    # a row of padding for each task
    each = round_up(p.iw * p.xw + lanes, 64)
    serial = case.threads == 1
    scratch = Scratch("uint8_t", 0 if serial else each)
    arguments: tuple[Argument, ...] = (In(0), Packed(0), Packed(1), Out(0), scratch, ep)
    name, repeat = "sp_depthwise_i8", p.tasks if serial else 1
    call = Invoke("depthwise_i8.h", f"{name}_run", name, params_of(p), arguments, repeat)
    tasks = 1 if serial else p.tasks
    return Lowered((call,), tasks, packed, each * tasks, cycles)


def _lowered(
    case: Case, op: Conv | MatMul, s: Conv2dShape, w: Array, bias: Array | None
) -> Lowered | Reject:
    """A convolution of shape ``s`` with OIHW weights."""
    code = bytes_of(case, op.zero)
    if isinstance(code, Reject):
        return code
    ep = epilogue_of(case, op.epilogue, None, 3)
    if isinstance(ep, Reject):
        return ep
    lanes = case.target.isa.lanes
    p, cycles = choose_conv2d(s, code[0], case.target, threads=case.threads)
    merged = merges(s, bool(p.band))
    per = case.target.isa.per
    shape = (s.groups, -(-(s.co // s.groups) // lanes), s.kh, p.runs, p.kq, lanes, per)
    packed = (
        Pack(shape, np.dtype(np.int8), lambda: pack_conv(w, s.groups, lanes, merged, per)),
        start(w, bias, code[1], s.groups, lanes),
    )
    serial = case.threads == 1
    arguments: tuple[Argument, ...] = (In(0), Packed(0), Packed(1), Out(0))
    if p.band:
        arguments = (*arguments, Scratch("uint8_t", 0 if serial else p.scratch_bytes))
    arguments = (*arguments, ep)
    function = "sp_conv2d_i8_run" if p.band else "sp_conv2d_i8_direct"
    call = Invoke(
        "conv2d_i8.h", function, "sp_conv2d_i8", params_of(p), arguments, p.tasks if serial else 1
    )
    if serial:
        return Lowered((call,), 1, packed, p.scratch_bytes, cycles)
    return Lowered((call,), p.tasks, packed, p.scratch_bytes * p.tasks, cycles)


def conv2d_shape(
    case: Case,
) -> tuple[Conv | MatMul, Conv2dShape, Array, Array | None] | Reject:
    """(op, shape, OIHW weights, bias) of a convolution, or of a product with a constant matrix.

    A product is a 1x1 convolution over the rows of a.
    """
    op = case.op
    assert isinstance(op, Conv | MatMul)
    if isinstance(op, Conv) and not op.channels_last:
        return Reject("channels are not last")
    found = operands(case)
    if isinstance(found, Reject):
        return found
    return (
        _shape_of_conv(case, op, *found)
        if isinstance(op, Conv)
        else _shape_of_product(case, op, *found)
    )


def _shape_of_conv(
    case: Case, op: Conv, x: Tensor, weights: Array, bias: Array | None
) -> tuple[Conv | MatMul, Conv2dShape, Array, Array | None] | Reject:
    if x.strides[-1] != 1 and x.shape[-1] > 1:
        return Reject("input channels are not adjacent")
    window = window_of(case, weights.shape[2:], op.strides, op.dilations, op.pads)
    if isinstance(window, Reject):
        return window
    s = Conv2dShape(**window, ci=x.shape[-1], co=weights.shape[0], groups=op.group)
    if op.group > 1 and s.ci // op.group < 4:
        return Reject("groups of fewer than four channels")
    return op, s, two_d(weights), bias


def _shape_of_product(
    case: Case, op: MatMul, a: Tensor, b: Array, bias: Array | None
) -> tuple[Conv | MatMul, Conv2dShape, Array, Array | None] | Reject:
    if op.trans_a or b.ndim != 2:
        return Reject("a is transposed, or b is no matrix")
    lda, ldy = row_stride(a), row_stride(case.y[0])
    if lda is None or ldy is None:
        return Reject("rows are not equally spaced")
    if 0 in case.y[0].shape or 0 in a.shape:
        return Reject("empty operands")
    w = np.ascontiguousarray(b if op.trans_b else b.T)
    rows = math.prod(a.shape[:-1])
    n, k = w.shape
    s = Conv2dShape(
        ih=1, iw=rows, oh=1, ow=rows, kh=1, kw=1, xn=0, xh=0, xw=lda, ldy=ldy, ci=k, co=n
    )
    return op, s, w.reshape(n, k, 1, 1), bias


def _sum(case: Case) -> Lowered | Reject:
    found = conv2d_shape(case)
    return found if isinstance(found, Reject) else _lowered(case, *found)


ROWS = (
    Kernel("depthwise_i8", Conv, _depthwise),
    Kernel("conv2d_i8", Conv, _sum),
    Kernel("gemm_i8", MatMul, _sum),
)
