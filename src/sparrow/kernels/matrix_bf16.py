"""Rows of bfloat16 convolutions and products whose sums matrix registers hold.

The kernel is that of bytes (`conv2d_i8.h`), to which a channel is two of them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sparrow.kernels.case import (
    Argument,
    Case,
    Epilogue,
    In,
    Invoke,
    Kernel,
    Lowered,
    Out,
    Pack,
    Packed,
    Reject,
    Scratch,
    Tile,
)
from sparrow.kernels.conv import bf16_shape
from sparrow.kernels.epilogue import epilogue_of, stored_half
from sparrow.kernels.matmul import bf16_product
from sparrow.kernels.packing_f32 import round_up
from sparrow.kernels.packing_i8 import pack_conv
from sparrow.kernels.params_f32 import Conv2dShape, params_of, shape_text
from sparrow.kernels.spans import conv2d_spans
from sparrow.kernels.tiles_matrix import PAIRS
from sparrow.kernels.tiling_i8 import PUT_16, PUT_32, Bytes, choose_conv2d, merges
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.targets.instruction_sets import MATRIX_ISAS
from sparrow.tensor import Array


def _conv(case: Case) -> Lowered | Reject:
    found = bf16_shape(case)
    if isinstance(found, Reject):
        return found
    s, w = found
    return _lowered(case, s, w)


def _gemm(case: Case) -> Lowered | Reject:
    """Rows times a constant matrix: a 1x1 convolution over the rows."""
    found = bf16_product(case)
    if isinstance(found, Reject):
        return found
    rows, lda, ldy, matrix = found
    k, n = matrix.shape
    s = Conv2dShape(
        ih=1, iw=rows, oh=1, ow=rows, kh=1, kw=1, xn=0, xh=0, xw=lda, ldy=ldy, ci=k, co=n
    )
    return _lowered(case, s, matrix.T.reshape(n, k, 1, 1))


def _lowered(case: Case, s: Conv2dShape, w: Array) -> Lowered | Reject:
    made = _epilogue(case)
    if isinstance(made, Reject):
        return made
    ep, bias = made
    ep, half = stored_half(ep)
    lanes = case.target.isa.lanes
    twice = {name: 2 * getattr(s, name) for name in ("ci", "xn", "xh", "xw")}
    code = Bytes(False, 0, PUT_16 if half else PUT_32, kind=PAIRS)
    if s.ci // s.groups % 2:
        return Reject("an odd number of input channels")
    t = replace(s, **twice)
    p, cycles, tiles = choose_conv2d(
        t, code, case.target, threads=case.threads, tile=case.tile, matrix=True
    )
    merged = merges(t, bool(p.band))
    panels = -(-(s.co // s.groups) // lanes)
    packed = (
        Pack(
            *((s.groups, panels, s.kh, p.runs, p.kq, lanes, 4), np.dtype(np.int8)),
            lambda: pack_conv(_bytes(w), s.groups, lanes, merged, 4, p.kq),
        ),
        Pack(
            *((s.groups, panels * lanes), np.dtype(np.float32)),
            lambda: _start(bias, s.groups, s.co, lanes),
        ),
    )
    serial = case.threads == 1
    arguments: tuple[Argument, ...] = (In(0), Packed(0), Packed(1), Out(0))
    if p.band:
        arguments = (*arguments, Scratch("uint8_t", 0 if serial else p.scratch_bytes))
    function = "sp_conv2d_bf16_run" if p.band else "sp_conv2d_bf16_direct"
    repeat, tasks = (p.tasks, 1) if serial else (1, p.tasks)
    call = Invoke(
        *("conv2d_i8.h", function, "sp_conv2d_i8", params_of(p), (*arguments, ep)), repeat=repeat
    )
    text = shape_text(s, half=int(half))
    return Lowered(
        *((call,), tasks, packed, p.scratch_bytes * tasks, cycles, text, tiles),
        tile=Tile(p.mr, p.nv),
        spans=conv2d_spans(p, lanes, case.y[0], ep) if tasks > 1 else (),
    )


def _epilogue(case: Case) -> tuple[Epilogue, Array | None] | Reject:
    """Without a constant bias, which sums begin with."""
    op, b = case.op, case.x[2] if len(case.x) > 2 else None
    assert isinstance(op, Conv | MatMul)
    const = b is not None and b.const is not None
    ep = epilogue_of(case, op.epilogue, None if const else 2, 3, half=True)
    return ep if isinstance(ep, Reject) else (ep, b.const if b is not None else None)


def _bytes(w: Array) -> NDArray[np.int8]:
    """OIHW of bfloat16 values -> the bytes of each input channel as two of them."""
    o, i, kh, kw = w.shape
    halves = (np.ascontiguousarray(w, np.float32).view(np.uint32) >> 16).astype("<u2")
    split = halves.view(np.int8).reshape(o, i, kh, kw, 2)
    return np.ascontiguousarray(split.transpose(0, 1, 4, 2, 3)).reshape(o, 2 * i, kh, kw)


def _start(bias: Array | None, groups: int, co: int, lanes: int) -> NDArray[np.float32]:
    """[groups, channels of a group rounded up to lanes]."""
    out = np.zeros((groups, round_up(co // groups, lanes)), np.float32)
    if bias is not None:
        out[:, : co // groups] = np.broadcast_to(bias, co).reshape(groups, -1)
    return out


ROWS = (
    Kernel("conv2d_bf16_matrix", Conv, _conv, MATRIX_ISAS),
    Kernel("gemm_bf16_matrix", MatMul, _gemm, MATRIX_ISAS),
)
