"""Rows of convolutions and products of 8-bit codes with constant int8 weights."""

from __future__ import annotations

from dataclasses import asdict, replace

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
    Tile,
)
from sparrow.kernels.packing_f32 import round_up
from sparrow.kernels.packing_i8 import pack_apart, pack_conv, pack_depthwise, tame
from sparrow.kernels.params_f32 import params_of, shape_text
from sparrow.kernels.params_i8 import Conv2dI8, DepthwiseI8
from sparrow.kernels.spans import channels_of, conv2d_spans, window_spans
from sparrow.kernels.sums_i8 import Sum, conv2d_sum, depthwise_sum, one_column
from sparrow.kernels.tiling_depthwise_i8 import choose_depthwise
from sparrow.kernels.tiling_i8 import choose_conv2d, merges
from sparrow.kernels.walk import lead_of
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.targets.instruction_sets import ISAS, MATRIX_ISAS

# What strips of rows of one layer differ in.
HANDED = ("ih", "oh", "pt", "xn", "rb", "task_h")


def _handed(case: Case, p: Conv2dI8 | DepthwiseI8) -> tuple[str, ...]:
    """Where code is short: one body for any number of rows."""
    return HANDED if case.target.machine.bare and p.batch == p.tasks == 1 else ()


def _depthwise(case: Case) -> Lowered | Reject:
    found = depthwise_sum(case)
    if isinstance(found, Reject):
        return found
    (s, w), c = one_column(found.shape, found.weights), found.shape.co
    lanes, per = case.target.isa.lanes, case.target.isa.depthwise_taken
    p, cycles, tiles = choose_depthwise(
        s, found.code, case.target, threads=case.threads, tile=case.tile
    )
    # of a mean all taps are 1
    same = p.ro == 1 and p.rq > 2 and bool((w == w[:, :, :1]).all())
    p = replace(p, same=int(same))
    quads = np.array([0, -1]) if same else np.arange(p.rq)
    packed = (
        Pack(
            *((-(-c // lanes), p.ro, quads.size, p.kw, lanes, per), np.dtype(np.int8)),
            lambda: pack_depthwise(w, lanes, p.ro, p.rq, p.sh, per)[:, :, quads],
        ),
        found.start(lanes),
    )
    # a row of padding for each task
    each = round_up(p.iw * p.xw + lanes, 64)
    serial = case.threads == 1
    scratch = Scratch("uint8_t", 0 if serial else each)
    arguments: tuple[Argument, ...] = (*(In(0), Packed(0), Packed(1), Out(0)), scratch)
    name, repeat = "sp_depthwise_i8", p.tasks if serial else 1
    arguments = (*arguments, found.epilogue)
    call = Invoke(
        *("depthwise_i8.h", f"{name}_run", name, params_of(p), arguments, repeat),
        handed=_handed(case, p),
    )
    tasks = 1 if serial else p.tasks
    shape = shape_text(s, **asdict(found.code))
    size, walks = case.y[0].type.dtype.bytes, serial and p.tasks == 1
    lead = lead_of(p, size, p.rb, p.ow, copied=False) if walks else None
    across = channels_of(c, lanes, p.task_c)
    spans = window_spans(p, p.task_h, across, (c, 1), case.y[0], found.epilogue)
    return Lowered(
        *((call,), tasks, packed, each * tasks, cycles, shape, tiles, Tile(p.mr, 1), lead),
        spans=spans if tasks > 1 else (),
    )


def _conv2d_matrix(case: Case) -> Lowered | Reject:
    """The kernel of `_conv2d` with sums in matrix registers."""
    return _conv2d(case, matrix=True)


def _conv2d(case: Case, matrix: bool = False) -> Lowered | Reject:
    found = conv2d_sum(case, either=matrix)
    if isinstance(found, Reject):
        return found
    s, w = found.shape, found.weights
    isa, lanes = case.target.isa, case.target.isa.lanes
    p, cycles, tiles = choose_conv2d(
        s, found.code, case.target, threads=case.threads, tile=case.tile, matrix=matrix
    )
    merged = merges(s, bool(p.band))
    if isa.halves:
        p = replace(p, tame=int(tame(w, s.groups, merged)))
    elif isa.widens:
        p = replace(p, tame=int(w.min(initial=0) > -128))
    kq = -(-p.kq * isa.taken // isa.together)
    shape = (s.groups, -(-(s.co // s.groups) // lanes), s.kh, p.runs, kq, lanes, isa.together)
    packed = (
        Pack(
            *(shape, np.dtype(np.int8)),
            lambda: (pack_apart if isa.halves else np.asarray)(
                pack_conv(w, s.groups, lanes, merged, isa.together, kq)
            ),
        ),
        found.start(lanes),
    )
    return conv2d_lowered(case, found, p, packed, cycles, tiles)


def conv2d_lowered(
    case: Case,
    found: Sum,
    p: Conv2dI8,
    packed: tuple[Pack, ...],
    cycles: float,
    tiles: tuple[Tile, ...],
) -> Lowered:
    """A call of the kernel of conv2d_i8.h."""
    s, lanes = found.shape, case.target.isa.lanes
    serial = case.threads == 1
    arguments: tuple[Argument, ...] = (In(0), Packed(0), Packed(1), Out(0))
    if p.band:
        arguments = (*arguments, Scratch("uint8_t", 0 if serial else p.scratch_bytes))
    arguments = (*arguments, found.epilogue)
    function = "sp_conv2d_i8_run" if p.band else "sp_conv2d_i8_direct"
    call = Invoke(
        *("conv2d_i8.h", function, "sp_conv2d_i8", params_of(p), arguments),
        repeat=p.tasks if serial else 1,
        handed=_handed(case, p),
    )
    tasks, text = 1 if serial else p.tasks, shape_text(s, **asdict(found.code))
    # a band of rows is copied once for all of its blocks
    size, pixels = case.y[0].type.dtype.bytes, p.ow if p.band else p.wb
    # a row of products in parts is written to all of them
    walks = serial and p.tasks == 1 and not p.part
    lead = lead_of(p, size, p.rb, pixels, copied=bool(p.band)) if walks else None
    scratch, tile = p.scratch_bytes * tasks, Tile(p.mr, p.nv)
    spans = conv2d_spans(p, lanes, case.y[0], found.epilogue) if tasks > 1 else ()
    return Lowered(*((call,), tasks, packed, scratch, cycles, text, tiles, tile, lead), spans=spans)


_ISAS = tuple(i.name for i in ISAS if not i.engine)
ROWS = (
    Kernel("depthwise_i8", Conv, _depthwise, _ISAS),
    Kernel("conv2d_i8", Conv, _conv2d, _ISAS),
    Kernel("gemm_i8", MatMul, _conv2d, _ISAS),
    Kernel("conv2d_i8_matrix", Conv, _conv2d_matrix, MATRIX_ISAS),
    Kernel("gemm_i8_matrix", MatMul, _conv2d_matrix, MATRIX_ISAS),
)
