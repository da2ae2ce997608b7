"""Rows of 8-bit convolutions and products in little code, in place of those of `conv_i8`.

Layers whose epilogues are alike share one function, sizes are a table, and weights are not padded
to whole vectors.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sparrow.kernels.case import (
    Argument,
    Case,
    In,
    Invoke,
    Kernel,
    Literal,
    Lowered,
    Out,
    Pack,
    Packed,
    Reject,
    Scratch,
)
from sparrow.kernels.conv import window_of
from sparrow.kernels.conv_i8 import bytes_of, conv2d_shape, operands, start, two_d
from sparrow.kernels.epilogue import epilogue_of
from sparrow.kernels.packing_f32 import round_up
from sparrow.kernels.packing_i8 import pack_conv, pack_depthwise
from sparrow.kernels.params_f32 import Conv2dShape, Window, params_of
from sparrow.kernels.params_i8 import CompactI8
from sparrow.kernels.tiling_i8 import Bytes, merges
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.tensor import Array

# Pixels of a tile: enough sums in flight for the latency of a dot product.
PIXELS = 4
DEPTHWISE_PIXELS = 2
HEADER, STRUCT = "compact_i8.h", "sp_compact_i8"
# A row of the band of a convolution stays near; more rows than this gain nothing.
BAND_BYTES = 1 << 14


def _params(
    s: Window, ci: int, co: int, groups: int, code: Bytes, rows: int, band: bool, merged: bool
) -> CompactI8:
    each = ci // groups
    width = (s.ow - 1) * s.sw + (s.kw - 1) * s.dw + 1
    line = -(-(width * each + 3) // 64) * 64 if band else 0
    xp = each if band else s.xw
    return CompactI8(
        **{k: getattr(s, k) for k in ("ih", "iw", "oh", "ow", "kh", "kw", "sh", "sw", "dh", "dw")},
        **{k: getattr(s, k) for k in ("pt", "pl", "xn", "xh", "xw", "ldy")},
        ci=ci,
        co=co,
        groups=groups,
        pad=code.pad,
        runs=1 if merged else s.kw,
        kq=-(-(s.kw * each if merged else each) // 4),
        xr=line if band else s.xh,
        xp=xp,
        xt=s.dw * xp,
        line=line,
        rb=rows,
    )


def _trimmed(w: NDArray[np.int8], groups: int, lanes: int, merged: bool) -> Pack:
    """`pack_conv` whose last vector of a group keeps its own channels only.

    A whole vector can be read from every quad: some bytes follow the last.
    """
    co, ci, kh, kw = w.shape
    runs, k = (1, kw * ci) if merged else (kw, ci)
    size = co * kh * runs * 4 * -(-k // 4) + 4 * lanes

    def make() -> Array:
        full = pack_conv(w, groups, lanes, merged)
        each = co // groups
        parts = [
            full[g, v, ..., : min(lanes, each - v * lanes), :].reshape(-1)
            for g in range(groups)
            for v in range(full.shape[1])
        ]
        return np.concatenate([*parts, np.zeros(4 * lanes, np.int8)])

    return Pack((size,), np.dtype(np.int8), make)


def _conv(
    case: Case, op: Conv | MatMul, s: Conv2dShape, w: Array, bias: Array | None
) -> Lowered | Reject:
    code = bytes_of(case, op.zero)
    if isinstance(code, Reject):
        return code
    ep = epilogue_of(case, op.epilogue, None, 3)
    if isinstance(ep, Reject):
        return ep
    lanes, each = case.target.isa.lanes, s.ci // s.groups
    inside_w = s.iw >= (s.ow - 1) * s.sw + (s.kw - 1) * s.dw + 1
    inside_h = s.ih >= (s.oh - 1) * s.sh + (s.kh - 1) * s.dh + 1
    band = not (each % 4 == 0 and not s.pt and not s.pl and inside_w and inside_h)
    if not band and s.kh == s.kw == s.sh == s.sw == 1 and s.xh == s.iw * s.xw and s.oh == s.ih:
        # all pixels are one row
        s = replace(s, ih=1, oh=1, iw=s.oh * s.ow, ow=s.oh * s.ow)
    line = s.iw * each + 64
    rows = max(1, min(s.oh, BAND_BYTES // (line * s.sh)))
    if case.threads > 1:
        rows = min(rows, -(-s.oh // case.threads))
    merged = merges(s, band)
    p = _params(s, s.ci, s.co, s.groups, code[0], rows, band, merged)
    if any(v >= 1 << 31 for v in params_of(p).values() if isinstance(v, int)):
        return Reject("sizes leave 31 bits")
    weights = _trimmed(w, s.groups, lanes, merged)
    scratch_bytes = ((rows - 1) * s.sh + (s.kh - 1) * s.dh + 1) * p.line  # 0 without a band
    tasks = s.batch * s.groups * -(-s.oh // rows)
    serial = case.threads == 1
    arguments: tuple[Argument, ...] = (
        *(Literal(PIXELS), Literal(int(band)), Literal(int(code[0].flip)), Literal(code[0].put)),
        *(In(0), Packed(0), Packed(1), Out(0)),
        # without a band, a null pointer
        Scratch("uint8_t", 0 if serial else scratch_bytes) if band else Literal(0),
        ep,
    )
    call = Invoke(
        *(HEADER, "sp_conv2d_compact_i8", STRUCT, params_of(p), arguments),
        tasks if serial else 1,
        shared=True,
    )
    packed = (weights, start(w, bias, code[1], s.groups, lanes))
    cycles = 2.0 * s.batch * s.oh * s.ow * round_up(s.co, lanes) * p.kq * p.runs * s.kh / lanes
    return Lowered(
        (call,), 1 if serial else tasks, packed, scratch_bytes * (1 if serial else tasks), cycles
    )


def _sum(case: Case) -> Lowered | Reject:
    found = conv2d_shape(case)
    return found if isinstance(found, Reject) else _conv(case, *found)


def _depthwise(case: Case) -> Lowered | Reject:
    op = case.op
    assert isinstance(op, Conv)
    if not op.channels_last:
        return Reject("channels are not last")
    given = operands(case)
    if isinstance(given, Reject):
        return given
    x, weights, bias = given
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
    s, lanes, w = Window(**window), case.target.isa.lanes, two_d(weights)
    rows = s.oh if case.threads == 1 else -(-s.oh // case.threads)
    p = _params(s, 1, c, 1, code[0], rows, band=False, merged=False)
    if any(v >= 1 << 31 for v in params_of(p).values() if isinstance(v, int)):
        return Reject("sizes leave 31 bits")
    quads = -(-s.kh // 4)
    packed = (
        Pack(
            (-(-c // lanes), 1, quads, s.kw, lanes, 4),
            np.dtype(np.int8),
            lambda: pack_depthwise(w, lanes, 1, quads, s.sh),
        ),
        start(w, bias, code[1], 1, lanes),
    )
    each = round_up(s.iw * s.xw + lanes, 64)
    tasks, serial = s.batch * -(-s.oh // rows), case.threads == 1
    arguments: tuple[Argument, ...] = (
        *(Literal(DEPTHWISE_PIXELS), Literal(s.kw), Literal(s.sw), Literal(s.dw)),
        *(Literal(int(code[0].flip)), Literal(code[0].put)),
        *(In(0), Packed(0), Packed(1), Out(0), Scratch("uint8_t", 0 if serial else each), ep),
    )
    call = Invoke(
        *(HEADER, "sp_depthwise_compact_i8", STRUCT, params_of(p), arguments),
        tasks if serial else 1,
        shared=True,
    )
    cycles = 8.0 * math.prod((s.batch, s.oh, s.ow, round_up(c, lanes), s.kw, quads)) / lanes
    return Lowered((call,), 1 if serial else tasks, packed, each * (1 if serial else tasks), cycles)


ROWS = (
    Kernel("depthwise_compact_i8", Conv, _depthwise),
    Kernel("conv2d_compact_i8", Conv, _sum),
    Kernel("gemm_compact_i8", MatMul, _sum),
)
